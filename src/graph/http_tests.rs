//! What goes over the wire, and what becomes of what comes back.

use std::time::Duration;

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use reqwest::Method;
use rustls::pki_types::{CertificateDer, pem::PemObject};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{
    builder::Call,
    gates::Scope,
    testing::{ANNA, CLIENT, Fake, Reply, TENANT, certificate, fixture},
    *,
};
use crate::{
    calendar::{CalendarSource, MailboxRef, ReadError},
    chain::Chain,
    model::{CalendarEvent, Interval, SubscriptionId},
    subscription::{WatchError, WatchKeeper, WatchRequest},
};

fn anna() -> MailboxRef {
    MailboxRef { object: ANNA.to_owned() }
}

fn window() -> Interval {
    Interval::new("2026-11-21T23:00:00Z".parse().unwrap(), "2026-12-27T23:00:00Z".parse().unwrap())
}

fn page(events: &[Value], next: Option<&str>) -> Reply {
    let mut body = json!({ "value": events });
    if let Some(link) = next {
        body["@odata.nextLink"] = json!(link);
    }
    Reply::json(200, &body)
}

fn single() -> Value {
    fixture("event-single.json")
}

fn named(id: &str) -> Value {
    let mut event = single();
    event["id"] = json!(id);
    event
}

fn id_of(event: &Value) -> crate::model::EventId {
    event["id"].as_str().unwrap().parse().unwrap()
}

fn ids(events: &[CalendarEvent]) -> Vec<&str> {
    events.iter().map(|event| event.id.as_str()).collect()
}

fn watch_request() -> WatchRequest {
    WatchRequest {
        mailbox: anna(),
        notification_url: "https://hooks.example/notify".to_owned(),
        lifecycle_url: "https://hooks.example/lifecycle".to_owned(),
        client_state: "v1.secret".to_owned(),
        until: "2026-11-25T20:00:00Z".parse().unwrap(),
    }
}

mod reading {
    use super::*;

    #[tokio::test]
    async fn every_page_is_read_with_the_same_headers() {
        let fake = Fake::start().await;
        let link = format!("{}v1.0/users/{ANNA}/calendarView?$skiptoken=a%2Bb", fake.base);
        fake.graph(page(&[named("one"), named("two")], Some(&link))).graph(page(&[named("three")], None));
        let events = fake.company().view(&anna(), window()).await.unwrap();
        assert_eq!(ids(&events), ["one", "two", "three"]);

        let seen = fake.seen();
        assert_eq!(seen.len(), 2);
        assert!(
            seen[0].target.starts_with(&format!("/v1.0/users/{ANNA}/calendarView?startDateTime=2026-11-21"))
        );
        assert!(!seen[0].target.contains("select"), "{}", seen[0].target);
        assert_eq!(seen[1].target, format!("/v1.0/users/{ANNA}/calendarView?$skiptoken=a%2Bb"));
        for request in &seen {
            assert_eq!(request.header("authorization"), "Bearer token-1");
            assert_eq!(
                request.header("prefer"),
                r#"IdType="ImmutableId", outlook.timezone="UTC", outlook.body-content-type="text", odata.maxpagesize=50"#
            );
            assert_eq!(request.header("client-request-id").len(), 36);
            assert!(request.header("user-agent").starts_with("narvaro/"));
            assert_eq!(request.header("accept"), "application/json");
        }
        assert_ne!(seen[0].header("client-request-id"), seen[1].header("client-request-id"));
    }

    #[tokio::test]
    async fn a_next_page_at_a_foreign_host_is_refused_and_gets_no_token() {
        let (fake, stranger) = (Fake::start().await, Fake::start().await);
        let link = format!("{}v1.0/users/{ANNA}/calendarView?$skiptoken=a", stranger.base);
        fake.graph(page(&[single()], Some(&link)));
        let error = fake.company().view(&anna(), window()).await.unwrap_err();
        assert!(matches!(error, ReadError::Unreadable { place } if place == "@odata.nextLink"));
        assert!(stranger.seen().is_empty());
    }

    #[tokio::test]
    async fn a_redirect_is_not_followed() {
        let (fake, stranger) = (Fake::start().await, Fake::start().await);
        fake.graph(Reply::text(302, "").with("location", stranger.base.as_str()));
        let error = fake.company().event(&anna(), &id_of(&single())).await.unwrap_err();
        assert!(matches!(error, ReadError::Unreachable(_)));
        assert!(stranger.seen().is_empty());
    }

    #[tokio::test]
    async fn a_failing_second_page_is_no_short_day() {
        let fake = Fake::start().await;
        let link = format!("{}v1.0/users/{ANNA}/calendarView?$skiptoken=a", fake.base);
        fake.graph(page(&[single()], Some(&link))).graph(Reply::refusal(500, "generalException"));
        let error = fake.company().view(&anna(), window()).await.unwrap_err();
        assert!(matches!(error, ReadError::Unreachable(_)));
    }

    #[tokio::test]
    async fn pages_that_never_end_are_an_error() {
        let fake = Fake::start().await;
        let link = format!("{}v1.0/users/{ANNA}/calendarView?$skiptoken=a", fake.base);
        for _ in 0..200 {
            fake.graph(page(&[], Some(&link)));
        }
        let error = fake.company().view(&anna(), window()).await.unwrap_err();
        assert!(matches!(error, ReadError::Unreadable { .. }));
        assert!(fake.is_done());
    }

    #[tokio::test]
    async fn an_event_shown_on_two_pages_counts_once_as_it_was_last() {
        let fake = Fake::start().await;
        let link = format!("{}v1.0/users/{ANNA}/calendarView?$skiptoken=a", fake.base);
        let mut moved = named("one");
        moved["isCancelled"] = json!(true);
        fake.graph(page(&[named("one"), named("two")], Some(&link))).graph(page(&[moved], None));
        let events = fake.company().view(&anna(), window()).await.unwrap();
        assert_eq!(ids(&events), ["one", "two"]);
        assert!(events[0].cancelled);
    }

    #[tokio::test]
    async fn an_unreadable_event_is_named_by_its_place_in_the_list() {
        let fake = Fake::start().await;
        let mut odd = named("two");
        odd["start"]["timeZone"] = json!("tzone://Microsoft/Custom");
        fake.graph(page(&[named("one"), odd], None));
        let error = fake.company().view(&anna(), window()).await.unwrap_err();
        assert!(matches!(error, ReadError::Unreadable { place } if place == "value[1].start.timeZone"));
        fake.graph(page(&[named("one"), json!({"id": 7})], None));
        let error = fake.company().view(&anna(), window()).await.unwrap_err();
        assert!(matches!(error, ReadError::Unreadable { place } if place == "value[1].id"));
    }

    #[tokio::test]
    async fn an_event_is_got_by_its_encoded_id_and_none_when_it_is_gone() {
        let fake = Fake::start().await;
        fake.graph(Reply::json(200, &single())).graph(Reply::refusal(404, "ErrorItemNotFound"));
        let company = fake.company();
        let id = id_of(&single());
        let event = company.event(&anna(), &id).await.unwrap().unwrap();
        assert_eq!(event.id, id);
        assert_eq!(company.event(&anna(), &id).await.unwrap(), None);
        let target = &fake.seen()[0].target;
        assert!(target.contains("CoAAA%3D?%24select=id%2Ctype%2C"), "{target}");
        assert!(target.ends_with("lastModifiedDateTime"), "{target}");
    }

    #[tokio::test]
    async fn a_404_for_the_mailbox_or_from_a_proxy_is_not_a_deleted_event() {
        let fake = Fake::start().await;
        fake.graph(Reply::refusal(404, "MailboxNotEnabledForRESTAPI"))
            .graph(Reply::refusal(404, "ErrorInvalidUser"))
            .graph(Reply::text(404, "<html>Not Found</html>"));
        let (company, id) = (fake.company(), id_of(&single()));
        assert!(matches!(company.event(&anna(), &id).await, Err(ReadError::NoMailbox { .. })));
        assert!(matches!(company.event(&anna(), &id).await, Err(ReadError::Gone { .. })));
        assert!(matches!(company.event(&anna(), &id).await, Err(ReadError::Unreachable(_))));
    }

    #[tokio::test]
    async fn instances_of_a_series_that_is_gone_are_none() {
        let fake = Fake::start().await;
        fake.graph(Reply::json(200, &fixture("event-instances.json")))
            .graph(Reply::refusal(404, "ErrorItemNotFound"));
        let (company, series) = (fake.company(), id_of(&fixture("event-series-master.json")));
        assert_eq!(company.instances(&anna(), &series, window()).await.unwrap().len(), 3);
        assert_eq!(company.instances(&anna(), &series, window()).await.unwrap(), []);
    }

    #[tokio::test]
    async fn an_id_that_would_vanish_from_the_path_is_refused_before_anything_is_sent() {
        let fake = Fake::start().await;
        let company = fake.company();
        for object in ["..", ".", ""] {
            let mailbox = MailboxRef { object: object.to_owned() };
            assert!(matches!(company.time_zone(&mailbox).await, Err(ReadError::Refused { .. })));
        }
        assert!(fake.seen().is_empty());
    }

    #[tokio::test]
    async fn an_event_lies_in_the_default_calendar_if_its_view_shows_it() {
        let fake = Fake::start().await;
        let company = fake.company();
        fake.graph(Reply::json(200, &single()));
        let event = company.event(&anna(), &id_of(&single())).await.unwrap().unwrap();
        fake.graph(page(&[named("other"), single()], None)).graph(page(&[named("other")], None));
        assert!(company.in_default_calendar(&anna(), &event).await.unwrap());
        assert!(!company.in_default_calendar(&anna(), &event).await.unwrap());
        let target = &fake.seen()[1].target;
        assert!(target.contains("startDateTime=2026-11-23T08%3A59%3A59Z"), "{target}");
        assert!(target.contains("endDateTime=2026-11-23T09%3A01%3A00Z"), "{target}");
    }

    #[tokio::test]
    async fn a_series_lies_where_one_of_its_occurrences_lies() {
        let fake = Fake::start().await;
        let (master, instances) = (fixture("event-series-master.json"), fixture("event-instances.json"));
        fake.graph(Reply::json(200, &master));
        let company = fake.company();
        let master = company.event(&anna(), &id_of(&master)).await.unwrap().unwrap();
        let first = instances["value"][0].clone();
        fake.graph(Reply::json(200, &instances)).graph(page(&[first], None));
        assert!(company.in_default_calendar(&anna(), &master).await.unwrap());
        fake.graph(Reply::json(200, &instances)).graph(page(&[], None));
        assert!(!company.in_default_calendar(&anna(), &master).await.unwrap());
        fake.graph(page(&[], None));
        assert!(!company.in_default_calendar(&anna(), &master).await.unwrap());
        assert!(fake.is_done());
    }

    #[tokio::test]
    async fn a_time_zone_is_told_as_it_is_spelt_and_an_empty_one_is_none() {
        let fake = Fake::start().await;
        fake.graph(Reply::json(200, &json!({"@odata.context": "x", "value": "W. Europe Standard Time"})))
            .graph(Reply::json(200, &json!({"value": ""})));
        let company = fake.company();
        let zone = company.time_zone(&anna()).await.unwrap();
        assert_eq!(zone.as_deref(), Some("W. Europe Standard Time"));
        assert_eq!(company.time_zone(&anna()).await.unwrap(), None);
        assert_eq!(fake.seen()[0].target, format!("/v1.0/users/{ANNA}/mailboxSettings/timeZone"));
    }

    #[tokio::test]
    async fn an_alias_is_resolved_and_an_empty_one_is_not_asked_for() {
        let fake = Fake::start().await;
        fake.graph(Reply::json(200, &fixture("users-lookup.json")["body"]));
        let company = fake.company();
        let found = company.resolve(" ines@contoso.example ").await.unwrap();
        assert_eq!((found.mailbox, found.primary_smtp.is_some()), (anna(), true));
        assert!(matches!(company.resolve(" ").await, Err(ReadError::UnknownAlias { .. })));
        assert_eq!(fake.seen().len(), 1);
    }
}

mod refusals {
    use super::*;

    #[tokio::test]
    async fn html_from_a_proxy_is_no_answer() {
        let fake = Fake::start().await;
        fake.graph(Reply::text(502, "<html><body>Bad Gateway</body></html>"))
            .graph(Reply::text(200, "<html>"));
        let company = fake.company();
        let error = company.time_zone(&anna()).await.unwrap_err();
        assert!(matches!(error, ReadError::Unreachable(_)));
        assert!(matches!(company.time_zone(&anna()).await, Err(ReadError::Unreadable { .. })));
    }

    #[tokio::test]
    async fn a_wait_with_a_fraction_is_told_and_kept_for_that_mailbox_alone() {
        let fake = Fake::start().await;
        fake.graph(Reply::refusal(429, "TooManyRequests").with("retry-after", "2.128"));
        let company = fake.company();
        let wait = |error: ReadError| match error {
            ReadError::Throttled { retry_after } => retry_after,
            other => panic!("{other:?}"),
        };
        let told = wait(company.time_zone(&anna()).await.unwrap_err());
        assert_eq!(told, Some(Duration::from_millis(2128)));
        fake.clock.advance(Duration::from_secs(1));
        let left = wait(company.time_zone(&anna()).await.unwrap_err());
        assert_eq!(left, Some(Duration::from_millis(1128)));
        assert_eq!(fake.seen().len(), 1, "nothing is sent while we wait");

        let bo = MailboxRef { object: "bo".to_owned() };
        fake.graph(Reply::json(200, &json!({"value": "UTC"})))
            .graph(Reply::json(200, &json!({"value": "UTC"})));
        assert!(company.time_zone(&bo).await.is_ok());
        fake.clock.advance(Duration::from_millis(1128));
        assert!(company.time_zone(&anna()).await.is_ok());
    }

    #[tokio::test]
    async fn a_401_is_tried_once_more_with_a_new_token() {
        let fake = Fake::start().await;
        fake.graph(Reply::refusal(401, "InvalidAuthenticationToken"))
            .graph(Reply::json(200, &json!({"value": "UTC"})));
        assert!(fake.company().time_zone(&anna()).await.is_ok());
        let seen = fake.seen();
        assert_eq!(seen[0].header("authorization"), "Bearer token-1");
        assert_eq!(seen[1].header("authorization"), "Bearer token-2");
        assert_eq!(seen[0].header("client-request-id"), seen[1].header("client-request-id"));
    }

    #[tokio::test]
    async fn a_401_that_stays_is_reported_and_does_not_storm_the_login_service() {
        let fake = Fake::start().await;
        let company = fake.company();
        for _ in 0..4 {
            fake.graph(Reply::refusal(401, "InvalidAuthenticationToken"));
        }
        for _ in 0..3 {
            let error = company.time_zone(&anna()).await.unwrap_err();
            assert!(matches!(error, ReadError::Unreachable(_)), "{error:?}");
        }
        assert_eq!(fake.logins().len(), 2);
        assert!(fake.is_done());
    }

    #[tokio::test]
    async fn an_answer_beyond_the_limit_is_not_read_to_its_end() {
        let fake = Fake::start().await;
        fake.graph(Reply::text(200, &" ".repeat(super::super::transport::LONGEST_ANSWER + 1)));
        let error = fake.company().time_zone(&anna()).await.unwrap_err();
        assert!(Chain(&error).to_string().contains("longer than"), "{}", Chain(&error));
    }

    #[tokio::test]
    async fn an_error_tells_the_request_id_and_neither_address_nor_token() {
        let fake = Fake::start().await;
        fake.graph(Reply::refusal(500, "generalException").with("request-id", "94fb3b52"));
        let error = fake.company().resolve("ines@contoso.example").await.unwrap_err();
        let text = format!("{} {error:?}", Chain(&error));
        assert!(text.contains("94fb3b52"), "{text}");
        for secret in ["ines", "token-1", "s3cret", "users?"] {
            assert!(!text.contains(secret), "{text}");
        }
    }

    #[tokio::test]
    async fn a_server_that_hangs_up_is_unreachable_and_its_url_stays_untold() {
        let fake = Fake::start().await;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mute = url::Url::parse(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
        let mut server = tokio::task::JoinSet::new();
        server.spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                drop(connection);
            }
        });
        let config = GraphConfig {
            cloud: Cloud::custom(mute, fake.base.clone(), true).unwrap(),
            client_id: CLIENT.to_owned(),
            credential: AppCredential::Secret("s3cret".into()),
        };
        let clock: SharedClock = Arc::clone(&fake.clock) as SharedClock;
        let company = Graph::new(config, clock).unwrap().company(TENANT.parse().unwrap());
        let error = company.resolve("ines@contoso.example").await.unwrap_err();
        let text = format!("{} {error:?}", Chain(&error));
        assert!(matches!(error, ReadError::Unreachable(_)));
        assert!(!text.contains("ines") && !text.contains("http://"), "{text}");
    }

    #[tokio::test]
    async fn a_post_without_a_body_says_that_it_has_none() {
        let fake = Fake::start().await;
        fake.graph(Reply::text(204, ""));
        let call = Call {
            operation: "test",
            method: Method::POST,
            url: fake.base.join("/v1.0/subscriptions/a/reauthorize").unwrap(),
            body: None,
            scope: Scope::Subscriptions,
            page_size: None,
        };
        fake.company().transport.send(&call).await.unwrap();
        assert_eq!(fake.seen()[0].header("content-length"), "0");
        assert_eq!(fake.seen()[0].headers.get_all("content-length").iter().count(), 1);
    }

    #[tokio::test]
    async fn requests_are_counted_by_operation_and_status() {
        let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
        let fake = Fake::start().await;
        fake.graph(Reply::refusal(404, "ErrorItemNotFound"));
        let _guard = metrics::set_default_local_recorder(&recorder);
        fake.company().event(&anna(), &id_of(&single())).await.unwrap();
        let shown = recorder.handle().render();
        assert!(
            shown.contains(r#"narvaro_graph_requests_total{operation="event",status="404"} 1"#),
            "{shown}"
        );
    }
}

mod tokens {
    use super::*;

    fn zone() -> Reply {
        Reply::json(200, &json!({"value": "UTC"}))
    }

    async fn ask(company: &GraphCompany) -> Result<(), ReadError> {
        company.time_zone(&anna()).await.map(|_zone| ())
    }

    #[tokio::test]
    async fn a_secret_goes_to_the_companys_own_tenant() {
        let fake = Fake::start().await;
        fake.graph(zone());
        ask(&fake.company()).await.unwrap();
        let login = &fake.logins()[0];
        assert_eq!(login.target, format!("/{TENANT}/oauth2/v2.0/token"));
        let field = |name: &str| login.form().into_iter().find(|(key, _)| key == name).unwrap().1;
        assert_eq!(field("grant_type"), "client_credentials");
        assert_eq!(field("client_id"), CLIENT);
        assert_eq!(field("client_secret"), "s3cret");
        assert_eq!(field("scope"), format!("{}.default", fake.base));
    }

    #[tokio::test]
    async fn many_callers_cause_one_login() {
        let fake = Fake::start().await;
        let company = fake.company();
        let callers = (0..20).map(|n| {
            fake.graph(zone());
            let (company, mailbox) = (Arc::clone(&company), MailboxRef { object: format!("user-{n}") });
            async move { company.time_zone(&mailbox).await }
        });
        for outcome in futures_util::future::join_all(callers).await {
            outcome.unwrap();
        }
        assert_eq!(fake.logins().len(), 1);
    }

    #[tokio::test]
    async fn a_token_is_renewed_after_four_fifths_of_its_life() {
        let fake = Fake::start().await;
        let company = fake.company();
        for (minutes, bearer) in [(0, "token-1"), (47, "token-1"), (2, "token-2"), (1, "token-2")] {
            fake.clock.advance(Duration::from_secs(minutes * 60));
            fake.graph(zone());
            ask(&company).await.unwrap();
            assert_eq!(fake.seen().last().unwrap().header("authorization"), format!("Bearer {bearer}"));
        }
    }

    #[tokio::test]
    async fn an_old_token_serves_while_the_login_service_is_away_until_it_ends() {
        let fake = Fake::start().await;
        let company = fake.company();
        fake.graph(zone());
        ask(&company).await.unwrap();
        fake.clock.advance(Duration::from_secs(50 * 60));
        fake.login(Reply::text(503, "<html>")).graph(zone()).graph(zone());
        ask(&company).await.unwrap();
        ask(&company).await.unwrap();
        assert_eq!(fake.logins().len(), 2, "the failure is remembered");
        assert_eq!(fake.seen().last().unwrap().header("authorization"), "Bearer token-1");
        fake.clock.advance(Duration::from_secs(9 * 60 + 31));
        fake.login(Reply::text(503, "<html>"));
        assert!(matches!(ask(&company).await, Err(ReadError::Unreachable(_))));
        assert_eq!(fake.seen().len(), 3);
    }

    #[tokio::test]
    async fn a_failed_login_is_not_repeated_at_once_and_a_check_does_repeat_it() {
        let fake = Fake::start().await;
        let company = fake.company();
        let refusal = || Reply::json(401, &json!({"error": "invalid_client", "error_codes": [7000222]}));
        fake.login(refusal());
        for _ in 0..5 {
            let error = ask(&company).await.unwrap_err();
            assert!(matches!(error, ReadError::Credentials { reason } if reason == "AADSTS7000222"));
        }
        assert_eq!(fake.logins().len(), 1);
        fake.clock.advance(Duration::from_secs(60));
        fake.login(refusal());
        assert!(ask(&company).await.is_err());
        fake.clock.advance(Duration::from_secs(60));
        assert!(ask(&company).await.is_err());
        assert_eq!(fake.logins().len(), 2, "the second wait is longer");
        assert!(company.check().await.unwrap().contains(TENANT));
        fake.graph(zone());
        ask(&company).await.unwrap();
    }

    #[tokio::test]
    async fn a_check_tells_of_a_login_that_no_longer_works_although_a_token_is_still_good() {
        let fake = Fake::start().await;
        let company = fake.company();
        company.check().await.unwrap();
        fake.login(Reply::json(400, &json!({"error": "unauthorized_client", "error_codes": [700016]})));
        assert!(matches!(company.check().await, Err(ReadError::NoConsent { .. })));
    }

    #[tokio::test]
    async fn the_login_services_refusals_arrive_as_what_they_are() {
        let cases = fixture("token-errors.json");
        for case in cases["cases"].as_array().unwrap() {
            let fake = Fake::start().await;
            let mut body = case["body"].clone();
            // As the real ones are: several lines, which the JSON has to escape.
            let description =
                body["error_description"].as_str().unwrap().replace(" Trace ID", "\r\nTrace ID");
            body["error_description"] = json!(description);
            let mut reply = Reply::json(u16::try_from(case["status"].as_u64().unwrap()).unwrap(), &body);
            if let Some(wait) = case["headers"]["Retry-After"].as_str() {
                reply = reply.with("retry-after", wait);
            }
            fake.login(reply);
            let error = ask(&fake.company()).await.unwrap_err();
            let right = match case["class"].as_str().unwrap() {
                "config" => matches!(error, ReadError::Credentials { .. } | ReadError::Refused { .. }),
                "tenant-disconnected" => matches!(error, ReadError::NoConsent { .. }),
                "tenant-blocked" => matches!(error, ReadError::Denied { .. }),
                "bug" => matches!(error, ReadError::Refused { .. }),
                "retry" => matches!(error, ReadError::Throttled { retry_after: Some(_) }),
                other => panic!("unknown class `{other}`"),
            };
            assert!(right, "{}: {error:?}", case["name"]);
            assert!(!format!("{error:?} {}", Chain(&error)).contains("Trace ID"), "{error:?}");
            assert!(fake.seen().is_empty());
        }
    }

    #[tokio::test]
    async fn an_answer_without_a_usable_token_is_a_failure_and_is_not_quoted() {
        for body in ["{}", "<html>", r#"{"access_token":"abc","expires_in":0}"#, r#"{"expires_in":3600}"#] {
            let fake = Fake::start().await;
            fake.login(Reply::text(200, body));
            let error = ask(&fake.company()).await.unwrap_err();
            assert!(matches!(error, ReadError::Unreachable(_)), "{body}: {error:?}");
            assert!(!format!("{error:?}").contains("abc"));
        }
    }

    #[tokio::test]
    async fn a_certificates_assertion_is_signed_for_this_tenant_and_names_its_certificate() {
        let fake = Fake::start().await;
        let (cert_pem, key_pem) = certificate();
        let credential = AppCredential::Certificate { cert_pem: cert_pem.clone(), key_pem: key_pem.into() };
        let company = fake.company_with(credential);
        company.check().await.unwrap();
        company.check().await.unwrap();
        let claims: Vec<Value> =
            fake.logins().iter().map(|login| verified(login, &cert_pem, &fake)).collect();
        assert_ne!(claims[0]["jti"], claims[1]["jti"]);
    }

    fn verified(login: &super::super::testing::Seen, cert_pem: &str, fake: &Fake) -> Value {
        let form = login.form();
        let field = |name: &str| form.iter().find(|(key, _)| key == name).unwrap().1.clone();
        assert_eq!(field("client_assertion_type"), "urn:ietf:params:oauth:client-assertion-type:jwt-bearer");
        assert!(form.iter().all(|(key, _)| key != "client_secret"));
        let assertion = field("client_assertion");
        let header = jsonwebtoken::decode_header(&assertion).unwrap();
        let der = CertificateDer::from_pem_slice(cert_pem.as_bytes()).unwrap();
        assert_eq!(header.alg, Algorithm::PS256);
        assert_eq!(header.typ.as_deref(), Some("JWT"));
        assert_eq!(header.x5t_s256.unwrap(), BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(&der)));

        let mut validation = Validation::new(Algorithm::PS256);
        validation.set_audience(&[format!("https://login.microsoftonline.com/{TENANT}/oauth2/v2.0/token")]);
        validation.set_issuer(&[CLIENT]);
        // The clock stands still in these tests; the times are compared below.
        validation.validate_exp = false;
        validation.set_required_spec_claims(&["aud", "iss", "sub", "exp", "nbf"]);
        let key = DecodingKey::from_rsa_pem(cert_pem.as_bytes()).unwrap();
        let claims = jsonwebtoken::decode::<Value>(&assertion, &key, &validation).unwrap().claims;
        let now = crate::clock::Clock::now(&*fake.clock).as_second();
        assert_eq!(claims["nbf"], now);
        assert_eq!(claims["exp"], now + 600);
        assert_eq!(claims["sub"], CLIENT);
        claims
    }

    #[tokio::test]
    async fn a_workload_identitys_token_file_is_read_for_each_login() {
        let fake = Fake::start().await;
        let folder = tempfile::tempdir().unwrap();
        let token_file = folder.path().join("token");
        let company = fake.company_with(AppCredential::WorkloadIdentity { token_file: token_file.clone() });
        assert!(matches!(company.check().await, Err(ReadError::Credentials { .. })));
        for token in ["first.jwt.x", "second.jwt.x"] {
            std::fs::write(&token_file, format!("{token}\n")).unwrap();
            company.check().await.unwrap();
            let form = fake.logins().last().unwrap().form();
            assert!(form.contains(&("client_assertion".to_owned(), token.to_owned())));
        }
    }

    #[tokio::test]
    async fn a_company_asked_for_twice_is_one() {
        let fake = Fake::start().await;
        let company = fake.company();
        let again = company.graph.company(TENANT.parse().unwrap());
        assert!(Arc::ptr_eq(&company, &again));
    }

    #[test]
    fn a_client_id_that_is_none_is_refused_at_the_start() {
        let clock: SharedClock = Arc::new(crate::clock::SystemClock);
        for client_id in ["", "a b", "{6d2f4b8e}"] {
            let config = GraphConfig {
                cloud: Cloud::global(),
                client_id: client_id.to_owned(),
                credential: AppCredential::Secret("s".into()),
            };
            let outcome = Graph::new(config, Arc::clone(&clock)).map(|_graph| ());
            assert!(matches!(outcome, Err(GraphConfigError::ClientId)), "{client_id}");
        }
    }
}

mod watches {
    use super::*;

    fn id() -> SubscriptionId {
        "a4c2e0f8-7b1d-4935-86ca-5e9f3d2b1c07".parse().unwrap()
    }

    #[tokio::test]
    async fn a_watch_is_asked_for_with_all_it_needs_and_ends_when_graph_says() {
        let fake = Fake::start().await;
        fake.graph(Reply::json(201, &fixture("subscription-create-response.json")["body"]));
        let watch = fake.company().create(&watch_request()).await.unwrap();
        assert_eq!(watch.id, id());
        assert_eq!(watch.expires, "2026-11-29T20:15:00Z".parse().unwrap());
        let request = &fake.seen()[0];
        assert_eq!((request.method.as_str(), request.target.as_str()), ("POST", "/v1.0/subscriptions"));
        assert_eq!(request.header("content-type"), "application/json");
        assert!(request.header("prefer").contains(r#"IdType="ImmutableId""#));
        assert_eq!(
            serde_json::from_slice::<Value>(&request.body).unwrap(),
            json!({
                "changeType": "created,updated,deleted",
                "resource": format!("/users/{ANNA}/events"),
                "notificationUrl": "https://hooks.example/notify",
                "lifecycleNotificationUrl": "https://hooks.example/lifecycle",
                "expirationDateTime": "2026-11-25T20:00:00Z",
                "clientState": "v1.secret",
                "latestSupportedTlsVersion": "v1_2",
            })
        );
    }

    #[tokio::test]
    async fn a_life_beyond_graphs_longest_is_cut_to_it() {
        let fake = Fake::start().await;
        fake.graph(Reply::json(200, &fixture("subscription-renew.json")["response"]["body"]));
        let until = "2027-01-01T00:00:00Z".parse().unwrap();
        let watch = fake.company().renew(&id(), until).await.unwrap();
        assert_eq!(watch.expires, "2026-12-05T20:00:00Z".parse().unwrap());
        let request = &fake.seen()[0];
        assert_eq!(request.method, Method::PATCH);
        // Seven days from 2026-11-22T20:00, less a quarter of an hour.
        assert_eq!(&request.body[..], br#"{"expirationDateTime":"2026-11-29T19:45:00Z"}"#);
    }

    #[tokio::test]
    async fn a_client_state_that_graph_would_cut_is_not_sent() {
        let fake = Fake::start().await;
        let request = WatchRequest { client_state: "å".repeat(129), ..watch_request() };
        let error = fake.company().create(&request).await.unwrap_err();
        assert!(matches!(error, WatchError::Read(ReadError::Refused { .. })));
        assert!(fake.seen().is_empty());
    }

    #[tokio::test]
    async fn a_second_watch_exists_and_a_lost_one_is_gone() {
        let fake = Fake::start().await;
        fake.graph(Reply::refusal(409, "Conflict")).graph(Reply::refusal(404, "ResourceNotFound"));
        let company = fake.company();
        assert!(matches!(company.create(&watch_request()).await, Err(WatchError::Exists)));
        let until = "2026-11-25T20:00:00Z".parse().unwrap();
        assert!(matches!(company.renew(&id(), until).await, Err(WatchError::Gone)));
    }

    #[tokio::test]
    async fn ending_a_watch_that_is_gone_is_ending_it() {
        let fake = Fake::start().await;
        fake.graph(Reply::text(204, ""))
            .graph(Reply::refusal(404, "ResourceNotFound"))
            .graph(Reply::refusal(403, "ErrorAccessDenied"));
        let company = fake.company();
        company.remove(&id()).await.unwrap();
        company.remove(&id()).await.unwrap();
        assert!(matches!(company.remove(&id()).await, Err(WatchError::Read(ReadError::Denied { .. }))));
        assert_eq!(fake.seen()[0].method, Method::DELETE);
    }

    #[tokio::test]
    async fn watches_on_a_mailbox_are_found_over_all_pages() {
        let fake = Fake::start().await;
        let list = fixture("subscription-list-response.json");
        let mut first = list.clone();
        first["value"] = json!([list["value"][1]]);
        first["@odata.nextLink"] = json!(format!("{}v1.0/subscriptions?$skiptoken=2", fake.base));
        fake.graph(Reply::json(200, &first)).graph(Reply::json(200, &list));
        let found = fake.company().find(&anna()).await.unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].0.id, id());
        assert_eq!(found[0].1, "https://presence-hooks.example.net/graph/v1/notify");
    }

    #[tokio::test]
    async fn lists_are_paced_and_not_slept_over() {
        let fake = Fake::start().await;
        let company = fake.company();
        for _ in 0..10 {
            fake.graph(Reply::json(200, &json!({"value": []})));
            assert_eq!(company.find(&anna()).await.unwrap(), []);
        }
        let error = company.find(&anna()).await.unwrap_err();
        let wait = Some(Duration::from_secs(20));
        assert!(
            matches!(error, WatchError::Read(ReadError::Throttled { retry_after }) if retry_after == wait)
        );
        assert_eq!(fake.seen().len(), 10);
    }
}
