//! The private listener from outside: who is let in, how it refuses, what it says of health.

use reqwest::{RequestBuilder, StatusCode, header};
use serde_json::Value;

use super::{
    fake::{Fake, Running, TOKEN},
    *,
};
use crate::model::Language;

fn client() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().build().unwrap()
}

/// Status, media type and document of an answer.
async fn answer(request: RequestBuilder) -> (StatusCode, String, Value) {
    let response = request.send().await.unwrap();
    let status = response.status();
    let media = response.headers()[header::CONTENT_TYPE].to_str().unwrap().to_owned();
    let named = response.headers()["x-request-id"].to_str().unwrap().to_owned();
    let document: Value = response.json().await.unwrap();
    if media == "application/problem+json" {
        assert_eq!(document["status"], status.as_u16());
        assert_eq!(document["request_id"], named);
    }
    (status, media, document)
}

/// What a refused request is told: status, `type` and detail.
async fn refused(request: RequestBuilder) -> (u16, String, String) {
    let (status, media, document) = answer(request).await;
    assert_eq!(media, "application/problem+json", "{document}");
    let text = |key: &str| document[key].as_str().unwrap().to_owned();
    (status.as_u16(), text("type"), text("detail"))
}

fn kind(name: &str) -> String {
    format!("urn:narvaro:problem:{name}")
}

#[tokio::test]
async fn nothing_under_admin_is_answered_without_the_token() {
    let running = Running::start(Fake::default()).await;
    let address = |path: &str| format!("{}/admin/v1/{path}", running.url);
    let http = client();
    for path in ["companies", "status", "companies/acme/export", "check", "nothing/here"] {
        for request in [
            http.get(address(path)),
            http.get(address(path)).bearer_auth(""),
            http.get(address(path)).bearer_auth("open-sesam"),
            http.get(address(path)).bearer_auth("open-sesame2"),
            http.get(address(path)).basic_auth(TOKEN, Some(TOKEN)),
            http.get(address(path)).header(header::AUTHORIZATION, TOKEN),
        ] {
            let (status, told, _) = refused(request).await;
            assert_eq!((status, told), (401, kind("unauthorised")), "{path}");
        }
    }
    let response = http.get(address("companies")).send().await.unwrap();
    assert_eq!(response.headers()[header::WWW_AUTHENTICATE], "Bearer");
}

#[tokio::test]
async fn the_token_opens_and_the_schemes_case_does_not_matter() {
    let running = Running::start(Fake::default()).await;
    for scheme in ["Bearer", "bearer", "BEARER"] {
        let request = client().get(format!("{}/admin/v1/companies", running.url));
        let (status, _, document) =
            answer(request.header(header::AUTHORIZATION, format!("{scheme} {TOKEN}"))).await;
        assert_eq!((status, &document[0]["id"]), (StatusCode::OK, &Value::from("acme")));
    }
}

#[tokio::test]
async fn refusals_have_stable_types() {
    let running = Running::start(Fake::default()).await;
    let http = client();
    let get = |path: &str| http.get(format!("{}/admin/v1/{path}", running.url)).bearer_auth(TOKEN);
    let post = |path: &str, body: &str| {
        http.post(format!("{}/admin/v1/{path}", running.url)).bearer_auth(TOKEN).body(body.to_owned())
    };
    for (request, status, name, detail) in [
        (get("status?company=none"), 404, "no-such-company", "there is no company `none`"),
        (
            get("companies/Nobody/export"),
            400,
            "bad-request",
            "`Nobody` is not a company id: use 1 to 63 of a-z, 0-9 and `-`, no `-` first or last",
        ),
        (
            get("explain?user=299"),
            404,
            "no-such-user",
            "company `acme` has no user with extension or alias `299`",
        ),
        (
            get("explain"),
            400,
            "bad-request",
            "parameters: Failed to deserialize query string: missing field `user`",
        ),
        (get("jobs/none"), 404, "no-such-job", "there is no job `none`"),
        (get("nothing"), 404, "not-found", "no such operation"),
        (post("status", ""), 405, "method-not-allowed", "the method does not fit the address"),
        (post("try", "{"), 400, "bad-request", "body: EOF while parsing an object at line 1 column 1"),
        (
            post("try", r#"{"company":"acme","subject":5}"#),
            400,
            "bad-request",
            "body, at `subject`: invalid type: integer `5`, expected a string at line 1 column 29",
        ),
        (
            post("sync", r#"{"compani":"acme"}"#),
            400,
            "bad-request",
            "body, at `compani`: unknown field `compani`, expected `company` or `user` at line 1 column 10",
        ),
        (post("sync", &" ".repeat(10_001)), 413, "too-large", "a request may have 10000 bytes"),
    ] {
        assert_eq!(refused(request).await, (status, kind(name), detail.to_owned()));
    }
}

#[tokio::test]
async fn a_company_file_that_does_not_hold_is_refused_with_its_places() {
    let running = Running::start(Fake::default()).await;
    let body = ApplyRequest { text: "id = 'a'\nnam = 'A'".into(), file: "a.toml".into(), dry_run: true };
    let request =
        client().post(format!("{}/admin/v1/companies/apply", running.url)).bearer_auth(TOKEN).json(&body);
    let (status, _, document) = answer(request).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    let problem: Problem = serde_json::from_value(document).unwrap();
    assert_eq!(problem.kind, kind("company-file-refused"));
    assert_eq!((problem.findings[0].line, problem.findings[0].key.as_str()), (Some(2), "nam"));
}

#[tokio::test]
async fn the_cause_of_a_failure_of_ours_stays_inside() {
    let running = Running::start(Fake { store_is_away: true, ..Fake::default() }).await;
    let request = client().get(format!("{}/admin/v1/companies", running.url)).bearer_auth(TOKEN);
    let (status, _, document) = answer(request).await;
    assert_eq!(
        (status, &document["type"]),
        (StatusCode::SERVICE_UNAVAILABLE, &Value::from(kind("store-unavailable")))
    );
    assert!(!document.to_string().contains("/secret/place"));
}

#[tokio::test]
async fn health_needs_no_token_and_tells_alive_from_ready() {
    for (fake, ready) in [(Fake::default(), 200), (Fake { store_is_away: true, ..Fake::default() }, 503)] {
        let running = Running::start(fake).await;
        let (status, _, document) = answer(client().get(format!("{}/health/live", running.url))).await;
        assert_eq!((status, &document["status"]), (StatusCode::OK, &Value::from("alive")));
        let (status, _, _) = answer(client().get(format!("{}/health/ready", running.url))).await;
        assert_eq!(status.as_u16(), ready);
        assert_eq!(refused(client().get(format!("{}/metrics", running.url))).await.0, 404);
    }
}

fn all_states() -> Vec<Health> {
    let text = || "SAID".to_owned();
    let moment = "2026-11-23T13:30:00Z".parse().ok();
    vec![
        Health::Fine,
        Health::Starting,
        Health::Disabled,
        Health::Leaving,
        Health::WrongCredentials { code: text() },
        Health::NoConsent { code: text() },
        Health::ConsentWithdrawn { code: text() },
        Health::UnknownAlias { alias: text() },
        Health::AmbiguousAlias { alias: text() },
        Health::AliasNotPrimary { alias: text(), primary: text() },
        Health::NoMailbox { code: text() },
        Health::UserGone { code: text() },
        Health::AccessDenied { code: text() },
        Health::GraphUnreachable { said: text() },
        Health::GraphRefused { said: text() },
        Health::Throttled { until: moment },
        Health::Throttled { until: None },
        Health::NotificationEndpointRefused { said: text() },
        Health::SubscriptionLapsed { since: moment },
        Health::SubscriptionLapsed { since: None },
        Health::QuotaReached,
        Health::PbxMissing,
        Health::PbxUnreachable { said: text() },
        Health::PbxThrottled,
        Health::PbxDenied { said: text() },
        Health::PbxNoSuchExtension { extension: text() },
        Health::PbxRefused { said: text() },
        Health::TimeZoneUnknown { name: text(), used: text() },
        Health::StoreUnavailable { said: text() },
    ]
}

#[test]
fn every_state_tells_its_cause_and_a_cure_in_both_languages() {
    for health in all_states() {
        let particulars = format!("{health:?}").contains("SAID");
        for language in [Language::Sv, Language::En] {
            let (cause, cure) = (health.cause(language), health.cure(language));
            assert!(cause.ends_with('.') && cause.len() > 10, "{health:?}: {cause}");
            assert_eq!(cause.contains("SAID"), particulars, "{health:?}: {cause}");
            assert_eq!(cure.is_empty(), health == Health::Fine, "{health:?}: {cure}");
        }
        assert_ne!(health.cause(Language::Sv), health.cause(Language::En), "{health:?}");
    }
}

#[test]
fn a_report_survives_its_way_and_names_its_state() {
    for health in all_states() {
        let report = HealthReport::of(health.clone(), Language::Sv);
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["state"], health.name());
        assert_eq!(serde_json::from_value::<HealthReport>(json).unwrap(), report);
    }
    let report = HealthReport::of(Health::NoMailbox { code: "X".into() }, Language::En);
    assert_eq!(report.title(Language::En), "no mailbox");
    assert_eq!((report.title(Language::Sv).as_str(), report.severity), ("ingen postlåda", Severity::Trouble));
}

#[test]
fn a_secret_typed_into_a_company_file_is_not_shown_by_debug() {
    let request = ApplyRequest { text: "secret = 's3cret'".into(), file: "a.toml".into(), dry_run: false };
    assert!(!format!("{request:?}").contains("s3cret"));
    let request =
        TryRequest {
            company: "acme".parse().unwrap(), user: None, subject: "Läkare".into(), language: None
        };
    assert!(!format!("{request:?}").contains("Läkare"));
}
