//! The HTTP PBX.

use base64::{Engine, prelude::BASE64_STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use narvaro_sim::{PbxAuth, PbxFault, PbxPresence};
use serde_json::{Value, json};
use sha2::Sha256;

use crate::world::{World, answer};

fn url(world: &World) -> String {
    format!("{}/extensions/201/presence", world.sim.pbx_url("acme"))
}

async fn put(world: &World, profile: &str) -> Result<(u16, Value), reqwest::Error> {
    let body = json!({"profile": profile, "text": "åter 10:00", "until": "2026-11-23T09:00:00Z"});
    let answer = world.http.put(url(world)).json(&body).send().await?;
    Ok((answer.status().as_u16(), answer.json().await?))
}

#[tokio::test]
async fn a_profile_is_written_read_back_and_changed_by_hand() {
    let world = World::new().await;
    assert_eq!(put(&world, "Möte").await.unwrap(), (200, json!({"errcode": 0, "errmsg": "SUCCESS"})));
    let (_, body) = answer(world.http.get(url(&world))).await;
    assert_eq!(
        body,
        json!({"profile": "Möte", "text": "åter 10:00", "until": "2026-11-23T09:00:00Z", "manual": false})
    );
    let lunch = PbxPresence { profile: "Lunch".to_owned(), ..PbxPresence::default() };
    world.sim.pbx().set_by_hand("acme", "201", lunch);
    assert!(world.sim.pbx().presence("acme", "201").manual);
    let writes = world.sim.journal().pbx_writes();
    assert_eq!(writes.iter().map(|write| write.by_hand).collect::<Vec<_>>(), [false, true]);
}

#[tokio::test]
async fn faults_come_in_order_and_a_cut_write_has_happened() {
    let world = World::new().await;
    let pbx = world.sim.pbx();
    pbx.fault("acme", 1, PbxFault::Status { status: 503, retry_after: Some(1.5) });
    pbx.fault("acme", 1, PbxFault::Errcode { errcode: 20002 });
    assert_eq!(put(&world, "Möte").await.unwrap().0, 503);
    assert_eq!(put(&world, "Möte").await.unwrap(), (200, json!({"errcode": 20002, "errmsg": "failed"})));
    assert_eq!(pbx.presence("acme", "201").profile, "");
    pbx.fault("acme", 2, PbxFault::CutAfterApply);
    assert!(put(&world, "Lunch").await.is_err());
    assert_eq!(pbx.presence("acme", "201").profile, "Lunch");
}

#[tokio::test]
async fn callers_must_prove_who_they_are() {
    let world = World::new().await;
    let pbx = world.sim.pbx();
    let get = |request: reqwest::RequestBuilder| async { answer(request).await.0 };
    let url = url(&world);
    pbx.set_auth("acme", PbxAuth::Basic { user: "u".to_owned(), password: "p".to_owned() });
    assert_eq!(get(world.http.get(&url)).await, 401);
    assert_eq!(get(world.http.get(&url).basic_auth("u", Some("p"))).await, 200);
    pbx.set_auth("acme", PbxAuth::ApiKey { header: "x-api-key".to_owned(), key: "k".to_owned() });
    assert_eq!(get(world.http.get(&url).header("x-api-key", "k")).await, 200);
    pbx.set_auth(
        "acme",
        PbxAuth::OAuth2 { client_id: "id".to_owned(), client_secret: "s".to_owned(), lifetime_secs: 60 },
    );
    let token = world
        .http
        .post(format!("{}/pbx/oauth/token", world.sim.base_url()))
        .header("content-type", "application/x-www-form-urlencoded")
        .body("grant_type=client_credentials&client_id=id&client_secret=s");
    let (_, body) = answer(token).await;
    let token = body["access_token"].as_str().unwrap();
    assert_eq!(get(world.http.get(&url).bearer_auth(token)).await, 200);
    world.sim.clock().advance(jiff::SignedDuration::from_secs(61));
    assert_eq!(get(world.http.get(&url).bearer_auth(token)).await, 401);
}

#[tokio::test]
async fn signed_requests_are_checked() {
    let world = World::new().await;
    let key = [7_u8; 24];
    let secret = format!("whsec_{}", BASE64_STANDARD.encode(key));
    world.sim.pbx().set_signing_secret("acme", Some(&secret));
    assert_eq!(put(&world, "Möte").await.unwrap().0, 401);
    let body = json!({"profile": "Möte"}).to_string();
    let at = world.sim.clock().now().as_second();
    let mut mac = Hmac::<Sha256>::new_from_slice(&key).unwrap();
    mac.update(format!("msg_1.{at}.{body}").as_bytes());
    let signature = BASE64_STANDARD.encode(mac.finalize().into_bytes());
    let request = world
        .http
        .put(url(&world))
        .header("webhook-id", "msg_1")
        .header("webhook-timestamp", at.to_string())
        .header("webhook-signature", format!("v1,{} v1,{signature}", BASE64_STANDARD.encode([0; 32])))
        .body(body);
    assert_eq!(answer(request).await.0, 200);
    assert_eq!(world.rules_broken(), ["pbx-signature"]);
}

#[tokio::test]
async fn two_writes_at_once_for_one_extension_are_noted() {
    let world = World::new().await;
    world.sim.pbx().fault("acme", 2, PbxFault::Slow { millis: 300 });
    let (one, two) = tokio::join!(put(&world, "Möte"), put(&world, "Lunch"));
    assert_eq!((one.unwrap().0, two.unwrap().0), (200, 200));
    assert_eq!(world.rules_broken(), ["pbx-two-in-flight"]);
}
