//! The control API and the seed, as a person with curl uses them.

use narvaro_sim::{Seed, Sim, SimOptions};
use serde_json::{Value, json};

use crate::world::{ANNA, World, answer};

async fn call(world: &World, method: &str, path: &str, body: Value) -> (u16, Value) {
    let url = format!("{}/sim/{path}", world.sim.base_url());
    let mut request = world.http.request(method.parse().unwrap(), url);
    if !body.is_null() {
        request = request.json(&body);
    }
    answer(request).await
}

#[tokio::test]
async fn a_person_can_do_everything_with_curl() {
    let world = World::new().await;
    let (status, ids) = call(
        &world,
        "POST",
        &format!("users/{ANNA}/events"),
        json!({"subject": "MÖT: budget", "in_secs": 5, "for_secs": 20}),
    )
    .await;
    assert_eq!(status, 200, "{ids}");
    let id = ids["id"].as_str().unwrap();
    let (_, holiday) = call(
        &world,
        "POST",
        &format!("users/{}/events", world.anna),
        json!({"subject": "SEM", "all_day": true, "date": "2026-12-24", "days": 2}),
    )
    .await;
    assert!(holiday["id"].is_string());
    let local = json!({"subject": "LUN", "start": "2026-11-23T12:00:00", "end": "2026-11-23T13:00:00"});
    call(&world, "POST", &format!("users/{ANNA}/events"), local).await;
    let rows = world.view("2026-11-23T00:00:00Z", "2026-11-24T00:00:00Z", "").await;
    assert!(rows.iter().any(|row| row["start"]["dateTime"] == "2026-11-23T11:00:00.0000000"));
    let path = format!("users/{ANNA}/events/{id}");
    assert_eq!(call(&world, "PATCH", &path, json!({"subject": "LUN"})).await.0, 200);
    assert_eq!(call(&world, "PATCH", &path, json!({"subjekt": "LUN"})).await.0, 400);
    assert_eq!(call(&world, "DELETE", &path, Value::Null).await.0, 204);
    assert_eq!(call(&world, "DELETE", &path, Value::Null).await.0, 404);
    let (_, knobs) = call(&world, "POST", "delivery", json!({"drop": 0.5, "batch_ms": 20})).await;
    assert_eq!((&knobs["drop"], &knobs["retry_base_ms"]), (&json!(0.5), &json!(1_000)));
    let fault = json!({"filter": {"path": "calendarView"}, "fault": {"kind": "throttle", "retry_after": 2.5}, "times": 1});
    assert_eq!(call(&world, "POST", "faults", fault).await.1.as_array().unwrap().len(), 1);
    let (_, time) =
        call(&world, "POST", "time", json!({"now": "2026-11-23T08:00:00Z", "advance_secs": 60})).await;
    assert_eq!(time["now"], "2026-11-23T08:01:00Z");
    call(&world, "POST", "pbx/acme/extensions/201/manual", json!({"profile": "Lunch"})).await;
    assert_eq!(world.sim.pbx().presence("acme", "201").profile, "Lunch");
    call(&world, "POST", "ami/201", json!({"state": "dnd", "subtype": "Stör ej"})).await;
    assert_eq!(call(&world, "GET", "ami/201", Value::Null).await.1["subtype"], "Stör ej");
    let (_, journal) = call(&world, "GET", "journal?since=1&kind=pbx", Value::Null).await;
    assert_eq!(journal["entries"].as_array().unwrap().len(), 1);
    assert_eq!(call(&world, "GET", "violations", Value::Null).await.1, json!([]));
    assert_eq!(call(&world, "GET", "", Value::Null).await.1["tenants"], 2);
    assert_eq!(call(&world, "GET", "nothing", Value::Null).await.0, 404);
}

#[tokio::test]
async fn a_seed_makes_a_world() {
    let text = r#"
        [[apps]]
        client_id = "6d2f4b8e-91c7-4a3d-b0e5-5f7c8a1e2d34"
        secrets = ["s3cret"]
        redirect_uris = ["http://127.0.0.1:8080/onboarding/microsoft/callback"]

        [[tenants]]
        id = "3f6c1a52-0b7e-4c1d-9a55-1c2f7e9b4d10"
        domain = "contoso.example"
        consented = ["6d2f4b8e-91c7-4a3d-b0e5-5f7c8a1e2d34"]
        crowd = 3

        [[tenants.users]]
        alias = "anna@contoso.example"
        time_zone = "Europe/Stockholm"
        mailbox = "licensed"

        [[tenants.events]]
        alias = "anna@contoso.example"
        event = { subject = "MÖT: start", in_secs = 60, for_secs = 600 }

        [[pbx]]
        company = "contoso"
        auth = { kind = "bearer", token = "t" }
    "#;
    let sim = Sim::start(SimOptions::default()).await.unwrap();
    Seed::parse(text).unwrap().plant(&sim).unwrap();
    assert!(sim.user_id("u00003@contoso.example").is_ok());
    assert_eq!(sim.events(ANNA).unwrap().len(), 1);
    assert!(Seed::parse("[[tenant]]").is_err());
    sim.shutdown().await;
}
