//! Calendars, users and time zones, read.

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
    assert!(seen[0].target.starts_with(&format!("/v1.0/users/{ANNA}/calendarView?startDateTime=2026-11-21")));
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
