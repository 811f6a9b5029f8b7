//! Subscriptions.

use super::*;
use crate::clock::Clock;

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
    assert!(matches!(company.create(&watch_request()).await, Err(WatchError::Exists { named: None })));
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
    assert_eq!(found[0].id, id());
    assert_eq!(found[0].reports_to, "https://presence-hooks.example.net/graph/v1/notify");
}

#[tokio::test]
async fn the_watch_that_stands_in_the_way_is_named_and_looked_at_without_a_list() {
    let fake = Fake::start().await;
    let said = json!({"error": {"code": "Conflict", "message": format!(
        "Subscription Id {} already exists for the requested combination", id()
    )}});
    let standing = &fixture("subscription-create-response.json")["body"];
    fake.graph(Reply::json(409, &said))
        .graph(Reply::json(200, standing))
        .graph(Reply::refusal(404, "ResourceNotFound"));
    let company = fake.company();
    let Err(WatchError::Exists { named }) = company.create(&watch_request()).await else {
        panic!("not told")
    };
    assert_eq!(named, Some(id()));
    let found = company.look(&id()).await.unwrap().unwrap();
    assert_eq!(found.reports_to, standing["notificationUrl"]);
    assert!(found.is_on(&anna()));
    assert_eq!(company.look(&id()).await.unwrap(), None);
    assert_eq!(fake.seen()[1].target, format!("/v1.0/subscriptions/{}", id()));
}

#[tokio::test]
async fn every_page_of_a_list_counts_and_a_list_that_was_begun_waits_for_its_next_pages() {
    let fake = Fake::start().await;
    let more =
        json!({"value": [], "@odata.nextLink": format!("{}v1.0/subscriptions?$skiptoken=2", fake.base)});
    for _ in 0..10 {
        fake.graph(Reply::json(200, &more));
    }
    fake.graph(Reply::json(200, &json!({"value": []})));
    fake.clock.let_sleep();
    let begun = fake.clock.now();
    assert_eq!(fake.company().find(&anna()).await.unwrap(), []);
    assert_eq!(fake.seen().len(), 11);
    assert_eq!(fake.clock.now().duration_since(begun), jiff::SignedDuration::from_secs(20));
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
    assert!(matches!(error, WatchError::Read(ReadError::Throttled { retry_after }) if retry_after == wait));
    assert_eq!(fake.seen().len(), 10);
}
