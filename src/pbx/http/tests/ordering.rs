use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use futures_util::{FutureExt, future::join_all};
use tokio::sync::Semaphore;

use super::*;

/// A server that holds each request until the test lets it go, and counts how many it holds at most.
struct Gate {
    gate: Arc<Semaphore>,
    most: Arc<AtomicUsize>,
}

async fn gated() -> (Server, Gate) {
    let (gate, most, held) =
        (Arc::new(Semaphore::new(0)), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (inner, peak) = (gate.clone(), most.clone());
    let server = Server::start(move |_, _| {
        let (gate, most, held) = (inner.clone(), peak.clone(), held.clone());
        async move {
            most.fetch_max(held.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            gate.acquire().await.unwrap().forget();
            held.fetch_sub(1, Ordering::SeqCst);
            answer(200, "")
        }
    })
    .await;
    (server, Gate { gate, most })
}

#[tokio::test]
async fn there_are_never_two_requests_in_flight_about_one_extension() {
    let (server, gate) = gated().await;
    let bench = Bench::new(server, &format!("concurrency = 8\n{SET}"));
    let wanted = meeting();
    let sets = (0..4).map(|_| bench.set(&wanted));
    let release = async {
        for n in 1..=4 {
            bench.server.until_asked(n).await;
            gate.gate.add_permits(1);
        }
    };
    let (outcomes, ()) = tokio::join!(join_all(sets), release);
    assert!(outcomes.iter().all(Result::is_ok));
    assert_eq!(gate.most.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn different_extensions_go_side_by_side_up_to_the_limit() {
    let (server, gate) = gated().await;
    let bench = Bench::new(server, &format!("concurrency = 3\n{SET}"));
    let wanted = meeting();
    let extensions: Vec<_> = (1..=7).map(|n| n.to_string()).collect();
    let sets = extensions.iter().map(|extension| set(&bench.pbx, extension, &wanted, 1, "t"));
    let release = async {
        bench.server.until_asked(3).await;
        gate.gate.add_permits(7);
    };
    let (outcomes, ()) = tokio::join!(join_all(sets), release);
    assert!(outcomes.iter().all(Result::is_ok));
    assert_eq!(gate.most.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn i3_a_change_that_waited_for_its_turn_until_its_lease_lasts_no_more_sends_nothing() {
    let (server, gate) = gated().await;
    let bench = Bench::new(server, &format!("concurrency = 1\n{SET}"));
    let (wanted, extension) = (meeting(), "1002".parse().unwrap());
    let lasts = AtomicBool::new(true);
    let is_asked = |long| {
        assert_eq!(long, Duration::from_secs(30));
        lasts.load(Ordering::SeqCst)
    };
    let first = bench.set(&wanted);
    let second = async {
        bench.server.until_asked(1).await;
        let waits = Write { stands: Stands::new(&is_asked), ..write(&extension, &wanted, 1, "t-2") };
        let mut waits = bench.pbx.set(waits);
        assert!(waits.as_mut().now_or_never().is_none());
        lasts.store(false, Ordering::SeqCst);
        gate.gate.add_permits(1);
        waits.await
    };
    let (first, second) = tokio::join!(first, second);
    first.unwrap();
    assert!(matches!(second, Err(PbxError::Unreachable(_))), "{second:?}");
    assert_eq!(bench.server.seen().len(), 1);
}

#[tokio::test]
async fn a_change_of_an_older_generation_is_refused_without_being_sent() {
    let bench = Bench::new(Server::always(200, "").await, SET);
    bench.set_as(&meeting(), 7, "new").await.unwrap();
    let error = bench.set_as(&meeting(), 6, "old").await.unwrap_err();
    assert!(matches!(error, PbxError::Refused { .. }), "{error:?}");
    assert_eq!(bench.server.seen().len(), 1);
}

#[tokio::test]
async fn a_newer_change_ends_an_older_one_that_waits_for_its_next_attempt() {
    let server = Server::start(|seen, _| async move {
        answer(if seen.header("idempotency-key") == "old" { 503 } else { 200 }, "")
    })
    .await;
    let bench = Bench::new(server, SET);
    let wanted = meeting();
    let newer = async {
        bench.clock.sleeper(1).await;
        bench.set_as(&wanted, 2, "new").await
    };
    // The clock stands still: only the newer change can end the older one's wait.
    let (old, new) = tokio::join!(bench.set_as(&wanted, 1, "old"), newer);
    assert!(matches!(old, Err(PbxError::Refused { .. })), "{old:?}");
    new.unwrap();
    let seen = bench.server.seen();
    let ids: Vec<_> = seen.iter().map(|seen| seen.header("idempotency-key")).collect();
    assert_eq!(ids, ["old", "new"]);
}

#[tokio::test]
async fn a_newer_change_replaces_an_older_one_that_is_queued() {
    let (server, gate) = gated().await;
    let bench = Bench::new(server, SET);
    let wanted = meeting();
    let rest = async {
        bench.server.until_asked(1).await;
        // `join!` polls in this order: the second queues behind the first before the third comes in.
        let release = async { gate.gate.add_permits(3) };
        let (queued, newest) = (bench.set_as(&wanted, 1, "second"), bench.set_as(&wanted, 2, "third"));
        tokio::join!(biased; queued, newest, release)
    };
    let (first, (second, third, ())) = tokio::join!(bench.set_as(&wanted, 1, "first"), rest);
    first.unwrap();
    assert!(matches!(second, Err(PbxError::Refused { .. })), "{second:?}");
    third.unwrap();
    let seen = bench.server.seen();
    let ids: Vec<_> = seen.iter().map(|seen| seen.header("idempotency-key")).collect();
    assert_eq!(ids, ["first", "third"]);
}
