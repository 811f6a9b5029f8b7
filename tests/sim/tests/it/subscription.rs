//! Subscriptions: handshakes to the letter, expiry, duplicates, ownership.

use std::time::Duration;

use jiff::SignedDuration;
use narvaro_sim::{MailboxKind, SimOptions};
use reqwest::Method;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::world::{FABRIKAM, Handshake, Hook, World, answer, at};

#[tokio::test]
async fn both_endpoints_are_asked_before_a_subscription_exists() {
    let (world, hook) = (World::new().await, Hook::new().await);
    let id = world.subscribe(&hook).await;
    let validations = hook.state.lock().unwrap().validations.clone();
    assert_eq!(validations.len(), 2);
    assert!(validations[0].starts_with("/notify?t=contoso&validationToken=Validation%3A+Testing"));
    assert!(validations[1].starts_with("/lifecycle?validationToken="));
    let (status, body) = world.get(&format!("/subscriptions/{id}")).await;
    assert_eq!(status, 200);
    assert_eq!(body["clientState"], "state-1");
    assert!(world.rules_broken().is_empty());
}

#[tokio::test]
async fn an_answer_that_is_not_to_the_letter_makes_no_subscription() {
    let options = SimOptions { handshake_timeout: Duration::from_millis(1_500), ..SimOptions::default() };
    let (world, hook) = (World::with(options).await, Hook::new().await);
    for (handshake, text) in [
        (Handshake::Accepted, "must respond with 200 OK"),
        (Handshake::Json, "text/plain"),
        (Handshake::StillEncoded, "exactly match"),
        (Handshake::Newline, "exactly match"),
        (Handshake::Never, "timed out"),
    ] {
        hook.handshake(handshake);
        let (status, body) = world.create(&world.subscription(&hook)).await;
        assert_eq!(status, 400, "{handshake:?}");
        let message = body["error"]["message"].as_str().unwrap();
        assert!(message.contains(text), "{handshake:?}: {message}");
    }
    assert!(world.sim.subscriptions().is_empty());
}

#[tokio::test]
async fn expiry_is_raised_to_45_minutes_refused_beyond_a_week_and_ends_silently() {
    let (world, hook) = (World::new().await, Hook::new().await);
    world.sim.set_time(at("2026-11-22T10:00:00Z"));
    let world = World { token: world.token_for(crate::world::CONTOSO).await, ..world };
    let mut body = world.subscription(&hook);
    body["expirationDateTime"] = json!("2026-11-29T10:00:01Z");
    assert_eq!(world.create(&body).await.0, 400);
    body["expirationDateTime"] = json!("2026-11-22T10:01:00Z");
    let (status, made) = world.create(&body).await;
    assert_eq!(status, 201);
    assert_eq!(made["expirationDateTime"], "2026-11-22T10:45:00.0000000Z");
    let path = format!("/subscriptions/{}", made["id"].as_str().unwrap());
    let longer = json!({"expirationDateTime": "2026-11-22T10:50:00Z"});
    let (status, renewed) = answer(world.graph(Method::PATCH, &path).json(&longer)).await;
    assert_eq!(status, 200);
    assert_eq!(renewed["expirationDateTime"], "2026-11-22T10:50:00.0000000Z");
    world.sim.set_time(at("2026-11-22T10:50:00Z"));
    let (status, body) = answer(world.graph(Method::PATCH, &path).json(&longer)).await;
    assert_eq!((status, &body["error"]["code"]), (404, &json!("ResourceNotFound")));
    assert!(hook.items().is_empty());
}

#[tokio::test]
async fn the_same_resource_and_change_type_conflict() {
    let (world, hook) = (World::new().await, Hook::new().await);
    let id = world.subscribe(&hook).await;
    let mut again = world.subscription(&hook);
    again["notificationUrl"] = json!(hook.url("/other"));
    again["changeType"] = json!("deleted, updated,created");
    let (status, body) = world.create(&again).await;
    assert_eq!(status, 409);
    assert!(body["error"]["message"].as_str().unwrap().contains(&id));
    let path = format!("/subscriptions/{id}");
    assert_eq!(answer(world.graph(Method::DELETE, &path)).await.0, 204);
    assert_eq!(world.create(&again).await.0, 201);
}

#[tokio::test]
async fn what_the_client_may_not_send_is_refused() {
    let (world, hook) = (World::new().await, Hook::new().await);
    for (name, value) in [
        ("clientState", json!("x".repeat(129))),
        ("notificationUrl", json!("http://presence.example.net/notify")),
        ("resource", json!(format!("/users/{}/messages", world.anna))),
        ("resource", json!(format!("/users/{}/events?$top=5", world.anna))),
        ("changeType", json!("created,moved")),
        ("vapidPublicKey", json!("x")),
    ] {
        let mut body = world.subscription(&hook);
        body[name] = value.clone();
        assert_eq!(world.create(&body).await.0, 400, "{name} {value}");
    }
    let id = world.subscribe(&hook).await;
    let change = json!({"lifecycleNotificationUrl": hook.url("/new")});
    let path = format!("/subscriptions/{id}");
    assert_eq!(answer(world.graph(Method::PATCH, &path).json(&change)).await.0, 400);
}

#[tokio::test]
async fn another_tenants_token_sees_no_subscription() {
    let (world, hook) = (World::new().await, Hook::new().await);
    let id = world.subscribe(&hook).await;
    world.sim.consent(FABRIKAM, crate::world::APP).unwrap();
    let other = World { token: world.token_for(FABRIKAM).await, ..world };
    assert_eq!(other.get(&format!("/subscriptions/{id}")).await.0, 404);
    let (status, body) = other.get("/subscriptions").await;
    assert_eq!((status, &body["value"]), (200, &json!([])));
}

#[tokio::test]
async fn a_mailbox_that_cannot_be_read_cannot_be_watched() {
    let (world, hook) = (World::new().await, Hook::new().await);
    for (kind, wanted) in [(MailboxKind::Denied, 403), (MailboxKind::NoMailbox, 404)] {
        world.sim.set_mailbox(&world.anna, kind).unwrap();
        let (status, body) = world.create(&world.subscription(&hook)).await;
        assert_eq!((status, &body["error"]["code"]), (wanted, &json!("ExtensionError")));
    }
}

#[tokio::test]
async fn renewing_and_reauthorizing_at_once_is_noted() {
    let (world, hook) = (World::new().await, Hook::new().await);
    let path = format!("/subscriptions/{}", world.subscribe(&hook).await);
    let later = world.sim.clock().now() + SignedDuration::from_hours(80);
    let renew = json!({"expirationDateTime": later.to_string()});
    assert_eq!(answer(world.graph(Method::PATCH, &path).json(&renew)).await.0, 200);
    let path = format!("{path}/reauthorize");
    let empty = world.graph(Method::POST, &path).header("content-length", "0");
    assert_eq!(answer(empty).await.0, 204);
    assert_eq!(world.rules_broken(), ["patch-and-reauthorize"]);
}

#[tokio::test]
async fn a_post_without_a_length_is_refused() {
    let world = World::new().await;
    let mut stream = TcpStream::connect(world.sim.http_addr()).await.unwrap();
    let text = format!(
        "POST /v1.0/subscriptions/x/reauthorize HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\nconnection: close\r\n\r\n",
        world.token
    );
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 411"), "{answer}");
}

#[tokio::test]
async fn a_list_comes_in_pages() {
    let (world, hook) = (World::new().await, Hook::new().await);
    for number in 0..120 {
        let user = narvaro_sim::UserSpec::new(&format!("u{number}@contoso.example"));
        let id = world.sim.add_user(crate::world::CONTOSO, user).unwrap();
        let mut body = world.subscription(&hook);
        body["resource"] = json!(format!("users/{id}/events"));
        assert_eq!(world.create(&body).await.0, 201);
    }
    let (_, first) = world.get("/subscriptions").await;
    assert_eq!(first["value"].as_array().unwrap().len(), 100);
    let (_, second) = world.get(first["@odata.nextLink"].as_str().unwrap()).await;
    assert_eq!(second["value"].as_array().unwrap().len(), 20);
    assert!(second["@odata.nextLink"].is_null());
}

#[tokio::test]
async fn the_twenty_sixth_list_of_a_tenant_within_twenty_seconds_is_too_many() {
    let world = World::new().await;
    for _ in 0..25 {
        assert_eq!(world.get("/subscriptions").await.0, 200);
    }
    assert_eq!(world.get("/subscriptions").await.0, 429);
    assert_eq!(world.rules_broken(), ["subscription-lists"]);
    world.sim.clock().advance(SignedDuration::from_secs(21));
    assert_eq!(world.get("/subscriptions").await.0, 200);
    assert_eq!(world.rules_broken().len(), 1);
}
