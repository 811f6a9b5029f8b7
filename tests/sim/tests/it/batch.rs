//! `$batch`, and the limits that hold for its parts as for requests alone.

use jiff::SignedDuration;
use narvaro_sim::{Fault, FaultFilter, FaultKind, SimOptions, UserSpec};
use reqwest::Method;
use serde_json::{Value, json};

use crate::world::{CONTOSO, Hook, World, answer, at};

async fn post(world: &World, body: &Value) -> (u16, Value) {
    answer(world.graph(Method::POST, "/$batch").json(body)).await
}

fn zone(id: &str, mailbox: &str) -> Value {
    let headers = json!({"Prefer": "IdType=\"ImmutableId\""});
    json!({"id": id, "method": "GET", "url": format!("/users/{mailbox}/mailboxSettings/timeZone"), "headers": headers})
}

/// Statuses by the parts' ids.
fn statuses(answer: &Value) -> Vec<(String, u64)> {
    let answers = answer["responses"].as_array().unwrap();
    let mut statuses: Vec<_> = answers
        .iter()
        .map(|one| (one["id"].as_str().unwrap().to_owned(), one["status"].as_u64().unwrap()))
        .collect();
    statuses.sort();
    statuses
}

fn status(id: &str, status: u64) -> (String, u64) {
    (id.to_owned(), status)
}

#[tokio::test]
async fn parts_are_answered_each_by_itself_in_any_order_and_written_down() {
    let world = World::new().await;
    let mut requests: Vec<Value> = Vec::new();
    for n in 0..18 {
        let user = UserSpec::new(&format!("u{n}@contoso.example"));
        requests.push(zone(&n.to_string(), &world.sim.add_user(CONTOSO, user).unwrap()));
    }
    requests.push(zone("gone", "nobody"));
    requests
        .push(json!({"id": "odd", "method": "GET", "url": format!("/users/{}/events/x%2Fy", world.anna)}));
    let (code, body) = post(&world, &json!({ "requests": requests })).await;
    assert_eq!(code, 200, "{body}");
    let found = statuses(&body);
    assert_eq!(found.len(), 20);
    assert_eq!(found.iter().filter(|(_, code)| *code == 200).count(), 18);
    assert!(found.contains(&status("gone", 404)), "{found:?}");
    let answers = body["responses"].as_array().unwrap();
    let order: Vec<_> = answers.iter().map(|one| one["id"].as_str().unwrap()).collect();
    let asked: Vec<_> = requests.iter().map(|one| one["id"].as_str().unwrap()).collect();
    assert_ne!(order, asked);
    let first = answers.iter().find(|one| one["id"] == "0").unwrap();
    assert_eq!(first["body"]["value"], "W. Europe Standard Time");
    assert!(first["headers"]["request-id"].is_string());
    let calls = world.sim.journal().graph_calls();
    let parts: Vec<_> = calls.iter().filter(|call| call.in_batch).collect();
    assert_eq!((calls.len(), parts.len()), (21, 20));
    assert_eq!(parts.iter().filter(|call| call.immutable_id).count(), 19);
    assert_eq!(calls.last().unwrap().path, "/v1.0/$batch");
    assert!(world.rules_broken().is_empty());
}

#[tokio::test]
async fn a_batch_that_is_not_to_the_letter_is_refused_and_noted() {
    let world = World::new().await;
    let good = zone("1", &world.anna);
    let with = |name: &str, value: Value| {
        let mut part = good.clone();
        part[name] = value;
        json!({ "requests": [part] })
    };
    let odd = [
        json!({ "requests": [] }),
        json!({ "requests": vec![good.clone(); 21] }),
        json!({ "requests": [good.clone(), good.clone()] }),
        json!({ "parts": [good.clone()] }),
        with("id", json!(1)),
        with("id", json!("")),
        with("method", json!(null)),
        with("url", json!(format!("{}/users", world.sim.graph_url()))),
        with("url", json!("users/x")),
        with("url", json!("//127.0.0.1/users")),
        with("url", json!("/v1.0/users/x")),
        with("url", json!("/$batch")),
        with("body", json!({"a": 1})),
        with("headers", json!({"Authorization": "Bearer x"})),
        with("dependsOn", json!(["0"])),
    ];
    for (n, body) in odd.iter().enumerate() {
        assert_eq!(post(&world, body).await.0, 400, "{body}");
        assert_eq!(world.rules_broken().len(), n + 1, "{body}");
    }
    let text = world.graph(Method::POST, "/$batch").header("content-type", "text/plain").body("{}");
    assert_eq!(answer(text).await.0, 400);
    assert_eq!(world.get("/$batch").await.0, 405);
    let body = json!({"requests": [{"id": "a", "method": "POST", "url": "/subscriptions", "body": {},
        "headers": {"Content-Type": "application/json"}}]});
    assert_eq!(statuses(&post(&world, &body).await.1), [status("a", 400)]);
    assert!(world.rules_broken().iter().all(|rule| rule == "batch"));
}

#[tokio::test]
async fn faults_meet_parts_or_the_whole_as_their_filter_says() {
    let world = World::new().await;
    let mut requests = Vec::new();
    for n in 0..3 {
        let user = UserSpec::new(&format!("u{n}@contoso.example"));
        requests.push(zone(&n.to_string(), &world.sim.add_user(CONTOSO, user).unwrap()));
    }
    let body = json!({ "requests": requests });
    let only = |n: usize| {
        let user = world.sim.user_id(&format!("u{n}@contoso.example")).unwrap();
        FaultFilter::mailbox(&user)
    };
    world.sim.fault(Fault::next(1, FaultKind::Throttle { retry_after: Some(7.0) }).only(only(0)));
    world.sim.fault(Fault::next(1, FaultKind::Drop).only(only(1)));
    world.sim.fault(Fault::next(1, FaultKind::CutBody).only(only(2)));
    let (code, answered) = post(&world, &body).await;
    assert_eq!((code, statuses(&answered)), (200, vec![status("0", 429), status("2", 504)]));
    let throttled = answered["responses"].as_array().unwrap().iter().find(|one| one["id"] == "0").unwrap();
    assert_eq!(throttled["headers"]["retry-after"], "7");
    assert_eq!(throttled["body"]["error"]["code"], "TooManyRequests");

    world.sim.clear_faults();
    let html = FaultKind::Html { status: 502 };
    world.sim.fault(Fault::next(1, html).only(FaultFilter::path("$batch")));
    assert_eq!(post(&world, &body).await.0, 502);
    assert_eq!(post(&world, &body).await.0, 200);
}

#[tokio::test]
async fn parts_count_as_requests_at_once_for_their_mailbox() {
    let world = World::new().await;
    let four: Vec<_> = (0..4).map(|n| zone(&n.to_string(), &world.anna)).collect();
    let (_, answered) = post(&world, &json!({ "requests": four })).await;
    assert!(statuses(&answered).iter().all(|(_, code)| *code == 200), "{answered}");
    assert!(world.rules_broken().is_empty());
    let five: Vec<_> = (0..5).map(|n| zone(&n.to_string(), &world.anna)).collect();
    let slow = FaultKind::Slow { millis: 50 };
    world.sim.fault(Fault::lasting(slow).only(FaultFilter::mailbox(&world.anna)));
    let (_, answered) = post(&world, &json!({ "requests": five })).await;
    assert_eq!(statuses(&answered).iter().filter(|(_, code)| *code == 429).count(), 1);
    assert_eq!(world.rules_broken(), ["mailbox-concurrency"]);
}

#[tokio::test]
async fn what_is_beyond_a_limit_is_throttled_and_noted() {
    let (world, hook) = (World::new().await, Hook::new().await);
    world.sim.set_time(at("2026-11-22T10:00:00Z"));
    let world = World { token: world.token_for(CONTOSO).await, ..world };
    let id = world.subscribe(&hook).await;
    for _ in 0..25 {
        assert_eq!(world.get("/subscriptions").await.0, 200);
    }
    let limited = world.graph(Method::GET, "/subscriptions").send().await.unwrap();
    assert_eq!((limited.status().as_u16(), &limited.headers()["retry-after"]), (429, &"20".parse().unwrap()));
    assert_eq!(world.rules_broken(), ["subscription-lists"]);
    world.sim.clock().advance(SignedDuration::from_secs(20));
    assert_eq!(world.get("/subscriptions").await.0, 200);

    let path = format!("/subscriptions/{id}");
    for _ in 0..500 {
        assert_eq!(world.get(&path).await.0, 200);
    }
    assert_eq!(world.rules_broken().len(), 1);
    assert_eq!(world.get(&path).await.0, 429);
    assert_eq!(world.rules_broken()[1], "subscription-reads");
}

#[tokio::test]
async fn a_request_that_hangs_is_dropped_when_the_faults_are_cleared() {
    let world = World::new().await;
    world.sim.fault(Fault::lasting(FaultKind::Hang));
    let path = format!("/users/{}", world.anna);
    let mut hanging = Box::pin(world.graph(Method::GET, &path).send());
    let patience = std::time::Duration::from_millis(50);
    assert!(tokio::time::timeout(patience, &mut hanging).await.is_err());
    world.sim.clear_faults();
    assert!(hanging.await.is_err());
    assert_eq!(world.get(&path).await.0, 200);
}

#[tokio::test]
async fn a_part_that_was_told_to_wait_and_comes_too_early_is_noted() {
    let world = World::with(SimOptions { paced: true, ..SimOptions::default() }).await;
    world.sim.set_time(world.sim.clock().now());
    let body = json!({ "requests": [zone("1", &world.anna)] });
    world.sim.fault(
        Fault::next(1, FaultKind::Throttle { retry_after: Some(30.0) })
            .only(FaultFilter::mailbox(&world.anna)),
    );
    assert_eq!(statuses(&post(&world, &body).await.1), [status("1", 429)]);
    world.sim.clock().advance(SignedDuration::from_secs(29));
    assert_eq!(statuses(&post(&world, &body).await.1), [status("1", 200)]);
    assert_eq!(world.rules_broken(), ["retry-after-ignored"]);
}
