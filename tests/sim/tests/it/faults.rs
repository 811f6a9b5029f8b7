//! Faults of Graph, and what the simulator notices about the client meanwhile.

use std::time::{Duration, Instant};

use jiff::SignedDuration;
use narvaro_sim::{Fault, FaultFilter, FaultKind, Record, SimOptions};
use serde_json::json;

use crate::world::{LIMIT, World, at};

#[tokio::test]
async fn throttled_requests_say_when_and_coming_too_early_is_noted() {
    let world = World::new().await;
    world.sim.set_time(at("2026-11-22T10:00:00Z"));
    let world = World { token: world.token_for(crate::world::CONTOSO).await, ..world };
    let path = format!("/users/{}/mailboxSettings", world.anna);
    world.sim.throttle(1, Duration::from_millis(2_500));
    let answer = world.graph(reqwest::Method::GET, &path).send().await.unwrap();
    assert_eq!(answer.status().as_u16(), 429);
    assert_eq!(answer.headers()["retry-after"], "2.5");
    // The client cannot know before it has read the answer: the grace is real time.
    let told = Instant::now();
    while told.elapsed() < Duration::from_millis(110) {
        tokio::task::yield_now().await;
    }
    assert_eq!(world.get(&path).await.0, 200);
    assert_eq!(world.rules_broken(), ["retry-after-ignored"]);
    world.sim.clock().advance(SignedDuration::from_secs(3));
    assert_eq!(world.get(&path).await.0, 200);
    assert_eq!(world.rules_broken().len(), 1);
}

#[tokio::test]
async fn on_a_paced_clock_an_answer_is_known_once_the_time_has_gone_on() {
    let world = World::with(SimOptions { paced: true, ..SimOptions::default() }).await;
    world.sim.set_time(world.sim.clock().now());
    let path = format!("/users/{}/mailboxSettings", world.anna);
    world.sim.throttle(1, Duration::from_secs(30));
    assert_eq!(world.get(&path).await.0, 429);
    assert_eq!(world.get(&path).await.0, 200);
    assert!(world.rules_broken().is_empty(), "it may have been on its way already");
    world.sim.clock().advance(SignedDuration::from_secs(1));
    assert_eq!(world.get(&path).await.0, 200);
    assert_eq!(world.rules_broken(), ["retry-after-ignored"]);
}

#[tokio::test]
async fn a_fault_meets_only_what_its_filter_says() {
    let world = World::new().await;
    let status = FaultKind::Status { status: 503, code: None, retry_after: None };
    world.sim.fault(Fault::lasting(status).only(FaultFilter::path("calendarView")));
    assert_eq!(world.get(&format!("/users/{}", world.anna)).await.0, 200);
    let path = format!("/users/{}/calendarView?startDateTime=2026-11-23&endDateTime=2026-11-24", world.anna);
    assert_eq!(world.get(&path).await.0, 503);
    world.sim.clear_faults();
    assert_eq!(world.get(&path).await.0, 200);
}

#[tokio::test]
async fn connections_break_in_the_body_or_before_an_answer() {
    let world = World::new().await;
    let path = format!("/users/{}", world.anna);
    world.sim.fault(Fault::next(1, FaultKind::CutBody));
    let answer = world.graph(reqwest::Method::GET, &path).send().await.unwrap();
    assert_eq!(answer.status().as_u16(), 200);
    assert!(answer.bytes().await.is_err());
    world.sim.fault(Fault::next(2, FaultKind::Drop));
    assert!(world.graph(reqwest::Method::GET, &path).send().await.is_err());
    world.sim.clear_faults();
    world.sim.fault(Fault::next(1, FaultKind::Html { status: 502 }));
    let answer = world.graph(reqwest::Method::GET, &path).send().await.unwrap();
    assert_eq!(answer.headers()["content-type"], "text/html");
}

#[tokio::test]
async fn the_fifth_request_at_once_for_a_mailbox_is_too_many() {
    let world = World::new().await;
    world.sim.fault(Fault::next(5, FaultKind::Slow { millis: 500 }));
    let path = format!("/users/{}/mailboxSettings", world.anna);
    let one = || world.get(&path);
    let answers = tokio::join!(one(), one(), one(), one(), one());
    let answers = [answers.0, answers.1, answers.2, answers.3, answers.4];
    let refused: Vec<_> = answers.iter().filter(|(status, _)| *status == 429).collect();
    assert_eq!(refused.len(), 1);
    assert_eq!(refused[0].1["error"]["code"], json!("ApplicationThrottled"));
    assert_eq!(world.rules_broken(), ["mailbox-concurrency"]);
}

#[tokio::test]
async fn a_request_whose_client_gave_up_is_in_the_journal() {
    let world = World::new().await;
    let slow = Fault::next(1, FaultKind::Slow { millis: 150 });
    world.sim.fault(slow);
    let path = format!("/users/{}/mailboxSettings", world.anna);
    let request = world.graph(reqwest::Method::GET, &path).timeout(Duration::from_millis(30));
    assert!(request.send().await.unwrap_err().is_timeout());
    let seen =
        |record: &Record| matches!(record, Record::Graph(call) if call.fault.as_deref() == Some("slow"));
    assert!(world.sim.journal().until(LIMIT, seen).await.is_some());
}
