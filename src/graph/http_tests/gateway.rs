//! When requests go, alone or together, and what keeps them back.

use std::{cell::RefCell, io};

use futures_util::future::join_all;
use tokio::{io::AsyncWriteExt, net::TcpListener, task::JoinSet};

use super::*;

fn zone() -> Reply {
    Reply::json(200, &json!({"value": "UTC"}))
}

fn user(n: usize) -> MailboxRef {
    MailboxRef { object: format!("user-{n}") }
}

fn users(count: usize) -> Vec<MailboxRef> {
    (0..count).map(user).collect()
}

fn wait(error: &ReadError) -> Duration {
    match error {
        ReadError::Throttled { retry_after: Some(wait) } => *wait,
        other => panic!("{other:?}"),
    }
}

type Zone = Result<Option<String>, ReadError>;

/// Asks for the time zones of mailboxes while the calendars of eight others are being read, until one of these is
/// there; what came of each, in their order.
async fn meanwhile(fake: &Fake, company: &Arc<GraphCompany>, mailboxes: &[MailboxRef]) -> Vec<Zone> {
    fake.always("calendarView", page(&[], None));
    let before = fake.seen().len();
    let mut held: Vec<_> = (0..8).map(|_| fake.hold()).collect();
    let mut views = JoinSet::new();
    for n in 100..108 {
        let company = Arc::clone(company);
        views.spawn(async move { company.view(&user(n), window()).await });
    }
    fake.until_seen(before + 8).await;
    let mut zones = Box::pin(join_all(mailboxes.iter().map(|mailbox| company.time_zone(mailbox))));
    assert!(futures_util::poll!(zones.as_mut()).is_pending());
    drop(held.pop());
    let outcomes = zones.await;
    drop(held);
    while let Some(view) = views.join_next().await {
        assert_eq!(view.unwrap().unwrap(), []);
    }
    outcomes
}

fn names(outcomes: &[Zone]) -> Vec<String> {
    outcomes.iter().map(|outcome| outcome.as_ref().unwrap().clone().unwrap()).collect()
}

#[tokio::test]
async fn while_slots_are_free_requests_go_alone() {
    let fake = Fake::start().await;
    let company = fake.company();
    fake.always("timeZone", zone());
    for outcome in join_all(users(8).iter().map(|mailbox| company.time_zone(mailbox))).await {
        outcome.unwrap();
    }
    assert_eq!((fake.seen().len(), fake.batches().len()), (8, 0));
}

#[tokio::test]
async fn when_all_slots_are_taken_small_requests_go_together_and_each_gets_its_own_answer() {
    let fake = Fake::start().await;
    let company = fake.company();
    for n in 0..25 {
        fake.graph(Reply::json(200, &json!({"value": format!("zone {n}")})));
    }
    let mailboxes = users(25);
    let outcomes = meanwhile(&fake, &company, &mailboxes).await;
    // The answers stood in the batches the other way round.
    assert_eq!(names(&outcomes), (0..25).map(|n| format!("zone {n}")).collect::<Vec<_>>());
    let batches: Vec<Value> =
        fake.batches().iter().map(|batch| serde_json::from_slice(&batch.body).unwrap()).collect();
    let sizes: Vec<_> = batches.iter().map(|batch| batch["requests"].as_array().unwrap().len()).collect();
    assert_eq!(sizes, [20, 5]);
    let batch = &fake.batches()[0];
    assert_eq!((batch.method.as_str(), batch.header("content-type")), ("POST", "application/json"));
    assert_eq!(batch.header("authorization"), "Bearer token-1");
    for (n, part) in fake.seen()[8..].iter().enumerate() {
        assert_eq!(part.target, format!("/v1.0/users/user-{n}/mailboxSettings/timeZone"));
        assert!(part.header("prefer").starts_with(r#"IdType="ImmutableId", outlook.timezone="UTC""#));
        assert_eq!(part.header("client-request-id").len(), 36);
        assert_ne!(part.header("client-request-id"), batch.header("client-request-id"));
    }
    assert!(fake.is_done());
}

#[tokio::test]
async fn a_part_is_refused_paused_and_missed_as_a_request_alone_would_be() {
    let fake = Fake::start().await;
    let company = fake.company();
    fake.graph(zone())
        .graph(Reply::refusal(429, "ApplicationThrottled").with("Retry-After", "4"))
        .graph(Reply::refusal(404, "MailboxNotEnabledForRESTAPI"))
        .graph(Reply::refusal(403, "ErrorAccessDenied"))
        .graph(Reply::refusal(429, "TooManyRequests"))
        .graph(zone());
    let outcomes = meanwhile(&fake, &company, &users(6)).await;
    let error = |n: usize| outcomes[n].as_ref().unwrap_err();
    assert_eq!(wait(error(1)), Duration::from_secs(4));
    assert!(matches!(error(2), ReadError::NoMailbox { reason } if reason == "MailboxNotEnabledForRESTAPI"));
    assert!(matches!(error(3), ReadError::Denied { .. }));
    let untimed = wait(error(4));
    assert!(untimed < Duration::from_secs(2), "{untimed:?}");
    assert!(outcomes[0].is_ok() && outcomes[5].is_ok());

    // The pause is the one mailbox's.
    fake.clock.advance(Duration::from_secs(3));
    let seen = fake.seen().len();
    assert_eq!(wait(&company.time_zone(&user(1)).await.unwrap_err()), Duration::from_secs(1));
    assert_eq!(fake.seen().len(), seen);
    fake.always("timeZone", zone());
    for n in [0, 2, 3, 4, 5] {
        company.time_zone(&user(n)).await.unwrap();
    }
    fake.clock.advance(Duration::from_secs(1));
    company.time_zone(&user(1)).await.unwrap();
}

#[tokio::test]
async fn a_part_that_is_missing_is_its_own_error_and_no_others() {
    let fake = Fake::start().await;
    let company = fake.company();
    let part = |id: &str| json!({"id": id, "status": 200, "headers": {}, "body": {"value": id}});
    fake.batch(Reply::json(200, &json!({"responses": [part("2"), part("0"), part("9")]})));
    let outcomes = meanwhile(&fake, &company, &users(3)).await;
    assert_eq!(outcomes[0].as_ref().unwrap().as_deref(), Some("0"));
    assert_eq!(outcomes[2].as_ref().unwrap().as_deref(), Some("2"));
    let error = outcomes[1].as_ref().unwrap_err();
    assert!(Chain(error).to_string().contains("does not mention it"), "{}", Chain(error));
}

#[tokio::test]
async fn only_what_was_refused_for_its_token_is_sent_again_with_a_new_one() {
    let fake = Fake::start().await;
    let company = fake.company();
    let refused = || Reply::refusal(401, "InvalidAuthenticationToken");
    fake.graph(zone()).graph(refused()).graph(zone()).graph(refused()).graph(zone()).graph(zone());
    let outcomes = meanwhile(&fake, &company, &users(4)).await;
    assert_eq!(names(&outcomes), ["UTC"; 4]);
    assert!(fake.is_done());
    let tried: Vec<_> =
        fake.seen()[8..].iter().map(|seen| seen.target.split('/').nth(3).unwrap().to_owned()).collect();
    assert_eq!(tried, ["user-0", "user-1", "user-2", "user-3", "user-1", "user-3"]);
    let tokens: Vec<_> =
        fake.batches().iter().map(|batch| batch.header("authorization").to_owned()).collect();
    assert_eq!(tokens, ["Bearer token-1", "Bearer token-2"]);
    let chain = |n: usize| fake.seen()[8 + n].header("client-request-id").to_owned();
    assert_eq!((chain(1), chain(3)), (chain(4), chain(5)));

    // Once: a token that is new and not liked either is not renewed for each part.
    for _ in 0..4 {
        fake.graph(refused());
    }
    let outcomes = meanwhile(&fake, &company, &users(4)).await;
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Err(ReadError::Unreachable(_)))));
    assert!(fake.is_done() && fake.logins().len() == 2);
}

#[tokio::test]
async fn a_batch_whose_token_is_refused_is_sent_again_whole() {
    let fake = Fake::start().await;
    let company = fake.company();
    fake.batch(Reply::refusal(401, "InvalidAuthenticationToken"));
    let answers: Vec<_> =
        (0..3).map(|n| json!({"id": n.to_string(), "status": 200, "body": {"value": "UTC"}})).collect();
    fake.batch(Reply::json(200, &json!({ "responses": answers })));
    assert_eq!(names(&meanwhile(&fake, &company, &users(3)).await), ["UTC"; 3]);
    assert_eq!(fake.batches().len(), 2);
}

#[tokio::test]
async fn a_batch_that_fails_is_an_error_of_each_and_then_requests_go_alone_for_a_minute() {
    for (reply, said) in [
        (Reply::text(502, "<html>"), "502"),
        (Reply::refusal(400, "BadRequest"), "BadRequest"),
        (Reply::refusal(403, "ErrorAccessDenied"), "ErrorAccessDenied"),
        (Reply::text(200, "<html>"), "not understood"),
    ] {
        let fake = Fake::start().await;
        let company = fake.company();
        fake.batch(reply);
        for outcome in meanwhile(&fake, &company, &users(6)).await {
            let error = outcome.unwrap_err();
            assert!(matches!(error, ReadError::Unreachable(_)), "nobody is parked for it: {error:?}");
            assert!(Chain(&error).to_string().contains(said), "{}", Chain(&error));
        }
        // Six failed, but as one: the circuit stays closed.
        fake.always("timeZone", zone());
        assert_eq!(names(&meanwhile(&fake, &company, &users(3)).await), ["UTC"; 3]);
        assert_eq!(fake.batches().len(), 1);
        fake.clock.advance(Duration::from_secs(60));
        assert_eq!(names(&meanwhile(&fake, &company, &users(3)).await), ["UTC"; 3]);
        assert_eq!(fake.batches().len(), 2);
    }
}

#[tokio::test]
async fn a_batch_that_is_throttled_tells_each_and_keeps_batches_away_and_nothing_else() {
    let fake = Fake::start().await;
    let company = fake.company();
    fake.batch(Reply::refusal(429, "TooManyRequests").with("Retry-After", "90"));
    for outcome in meanwhile(&fake, &company, &users(3)).await {
        assert_eq!(wait(&outcome.unwrap_err()), Duration::from_secs(90));
    }
    fake.always("timeZone", zone());
    fake.clock.advance(Duration::from_secs(89));
    assert_eq!(names(&meanwhile(&fake, &company, &users(3)).await), ["UTC"; 3]);
    assert_eq!(fake.batches().len(), 1);
}

#[tokio::test]
async fn a_changed_event_goes_before_a_view_and_that_before_a_subscription() {
    let fake = Fake::start().await;
    let company = fake.company();
    fake.always("calendarView", page(&[], None));
    let mut held: Vec<_> = (0..8).map(|_| fake.hold()).collect();
    let mut views = JoinSet::new();
    for n in 0..8 {
        let company = Arc::clone(&company);
        views.spawn(async move { company.view(&user(n), window()).await });
    }
    fake.until_seen(8).await;
    let id: SubscriptionId = "a4c2".parse().unwrap();
    fake.graph(Reply::json(200, &single())).graph(Reply::text(204, ""));
    let event = id_of(&single());
    let (a, b) = (user(20), user(21));
    let mut waiting = Box::pin(async {
        tokio::join!(company.remove(&id), company.view(&a, window()), company.event(&b, &event))
    });
    assert!(futures_util::poll!(waiting.as_mut()).is_pending());
    drop(held.pop());
    let (removed, viewed, read) = waiting.await;
    assert!(removed.is_ok() && viewed.is_ok() && read.is_ok());
    drop(held);
    let order: Vec<_> = fake.seen()[8..11].iter().map(|seen| seen.method.clone()).collect();
    let paths: Vec<_> = fake.seen()[8..11].iter().map(|seen| seen.target.clone()).collect();
    assert!(paths[0].contains("/events/") && paths[1].contains("calendarView"), "{paths:?}");
    assert_eq!(order[2], Method::DELETE);
    while let Some(view) = views.join_next().await {
        view.unwrap().unwrap();
    }
}

#[tokio::test]
async fn four_of_a_mailbox_are_under_way_in_batches_too() {
    let fake = Fake::start().await;
    let company = fake.company();
    fake.always("timeZone", zone());
    let mailboxes: Vec<_> = (0..10).map(|_| anna()).chain(users(3)).collect();
    assert_eq!(names(&meanwhile(&fake, &company, &mailboxes).await), ["UTC"; 13]);
    for batch in fake.batches() {
        let parts = String::from_utf8(batch.body.to_vec()).unwrap();
        assert!(parts.matches(ANNA).count() <= 4, "{parts}");
    }
    assert!(!fake.batches().is_empty());
}

#[tokio::test]
async fn who_gives_up_in_a_batch_spoils_nobody_elses_answer() {
    let fake = Fake::start().await;
    let company = fake.company();
    fake.always("timeZone", zone()).always("calendarView", page(&[], None));
    let mut held: Vec<_> = (0..8).map(|_| fake.hold()).collect();
    let batch = fake.hold();
    let mut views = JoinSet::new();
    for n in 10..18 {
        let company = Arc::clone(&company);
        views.spawn(async move { company.view(&user(n), window()).await });
    }
    fake.until_seen(8).await;
    let (first, others) = (user(0), users(3));
    let mut gives_up = Box::pin(company.time_zone(&first));
    assert!(futures_util::poll!(gives_up.as_mut()).is_pending());
    let mut others = Box::pin(join_all(others[1..].iter().map(|mailbox| company.time_zone(mailbox))));
    assert!(futures_util::poll!(others.as_mut()).is_pending());
    drop(held.pop());
    while fake.batches().is_empty() {
        tokio::task::yield_now().await;
        assert!(futures_util::poll!(gives_up.as_mut()).is_pending());
        assert!(futures_util::poll!(others.as_mut()).is_pending());
    }
    drop(gives_up);
    drop((batch, held));
    assert_eq!(names(&others.await), ["UTC"; 2]);
    assert_eq!(fake.batches().len(), 1);
    while let Some(view) = views.join_next().await {
        view.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_429_without_a_time_is_waited_for_longer_each_time_in_a_row() {
    let fake = Fake::start().await;
    let company = fake.company();
    for plain in [1.0, 2.0, 4.0] {
        fake.graph(Reply::refusal(429, "TooManyRequests"));
        let told = wait(&company.time_zone(&anna()).await.unwrap_err());
        assert!((plain * 0.79..=plain * 1.21).contains(&told.as_secs_f64()), "{told:?}");
        let again = wait(&company.view(&anna(), window()).await.unwrap_err());
        assert_eq!(again, told, "all of the mailbox stays away");
        fake.clock.advance(told);
    }
    assert_eq!(fake.seen().len(), 3);
    fake.graph(zone()).graph(Reply::refusal(429, "TooManyRequests"));
    company.time_zone(&anna()).await.unwrap();
    assert!(wait(&company.time_zone(&anna()).await.unwrap_err()) < Duration::from_secs(2));
}

#[tokio::test]
async fn a_503_without_a_time_keeps_whom_it_concerned_away_and_says_why() {
    let fake = Fake::start().await;
    let company = fake.company();
    fake.graph(Reply::text(503, ""));
    assert!(matches!(company.time_zone(&anna()).await, Err(ReadError::Unreachable(_))));
    let error = company.time_zone(&anna()).await.unwrap_err();
    assert!(
        matches!(&error, ReadError::LeftAlone { left, cause } if *left < Duration::from_secs(2) && cause.contains("503")),
        "{error:?}"
    );
    fake.graph(zone());
    company.time_zone(&user(1)).await.unwrap();
    assert_eq!(fake.seen().len(), 2);
}

#[tokio::test]
async fn a_tenant_whose_graph_fails_call_after_call_is_left_alone_and_taken_up_again_by_one_call() {
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let fake = Fake::start().await;
    let company = fake.company();
    for n in 0..5 {
        fake.graph(Reply::text(500, ""));
        assert!(matches!(company.time_zone(&user(n)).await, Err(ReadError::Unreachable(_))), "{n}");
    }
    let error = company.time_zone(&user(7)).await.unwrap_err();
    let ReadError::LeftAlone { left, cause } = error else { panic!("{error:?}") };
    assert!(cause.contains("500") && left > Duration::from_secs(3), "{cause} {left:?}");
    assert!(matches!(company.resolve("x@acme.example").await, Err(ReadError::LeftAlone { .. })));
    assert_eq!(fake.seen().len(), 5, "nothing is sent meanwhile");
    let shown = recorder.handle().render();
    assert!(shown.contains(r#"narvaro_graph_circuits_total{change="opened"} 1"#), "{shown}");
    assert!(shown.contains("narvaro_graph_circuits_open 1"), "{shown}");
    assert!(shown.contains(r#"narvaro_graph_withheld_total{reason="circuit"} 2"#), "{shown}");

    fake.clock.advance(left);
    let release = fake.hold();
    fake.graph(zone()).graph(zone());
    let (one, other) = (user(8), user(9));
    let mut probe = Box::pin(company.time_zone(&one));
    while fake.seen().len() < 6 {
        assert!(futures_util::poll!(probe.as_mut()).is_pending());
        tokio::task::yield_now().await;
    }
    assert!(matches!(company.time_zone(&other).await, Err(ReadError::LeftAlone { .. })), "one at a time");
    fake.graph(zone());
    let mut beside = Box::pin(company.time_zone(&one));
    assert!(futures_util::poll!(beside.as_mut()).is_pending(), "its own turn goes on");
    drop((release, beside));
    probe.await.unwrap();
    company.time_zone(&other).await.unwrap();
    let shown = recorder.handle().render();
    assert!(shown.contains("narvaro_graph_circuits_open 0"), "{shown}");
}

#[tokio::test]
async fn one_mailbox_that_always_fails_leaves_its_tenant_alone() {
    let fake = Fake::start().await;
    let company = fake.company();
    for _ in 0..20 {
        fake.graph(Reply::text(500, ""));
        assert!(matches!(company.time_zone(&anna()).await, Err(ReadError::Unreachable(_))));
    }
    fake.graph(zone());
    company.time_zone(&user(1)).await.unwrap();
}

#[tokio::test]
async fn subscriptions_written_too_often_wait_before_graph_says_so() {
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let fake = Fake::start().await;
    let company = fake.company();
    fake.always("/subscriptions/", Reply::text(204, ""));
    let id: SubscriptionId = "a4c2".parse().unwrap();
    for _ in 0..450 {
        company.remove(&id).await.unwrap();
    }
    fake.clock.advance(Duration::from_secs(5));
    let WatchError::Read(error) = company.remove(&id).await.unwrap_err() else { panic!("not a wait") };
    assert_eq!(wait(&error), Duration::from_secs(15));
    assert_eq!(fake.seen().len(), 450);
    fake.always("timeZone", zone());
    company.time_zone(&anna()).await.unwrap();
    fake.clock.advance(Duration::from_secs(15));
    company.remove(&id).await.unwrap();
    let shown = recorder.handle().render();
    assert!(shown.contains(r#"narvaro_graph_withheld_total{reason="subscription_writes"} 1"#), "{shown}");
}

#[tokio::test]
async fn a_body_that_breaks_off_is_no_answer_alone_or_in_a_batch() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut server = JoinSet::new();
    server.spawn(async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            let half = "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"value\": \"UTC\"}";
            connection.write_all(half.as_bytes()).await.unwrap();
        }
    });
    let fake = Fake::start().await;
    let base = url::Url::parse(&format!("http://{address}")).unwrap();
    let config = GraphConfig {
        cloud: Cloud::custom(base, fake.base.clone(), true).unwrap(),
        client_id: CLIENT.to_owned(),
        credential: AppCredential::Secret("s3cret".into()),
    };
    let company =
        Graph::new(config, Arc::clone(&fake.clock) as SharedClock).unwrap().company(TENANT.parse().unwrap());
    let mailboxes = users(30);
    for outcome in join_all(mailboxes.iter().map(|mailbox| company.time_zone(mailbox))).await {
        let error = outcome.unwrap_err();
        assert!(matches!(error, ReadError::Unreachable(_) | ReadError::LeftAlone { .. }), "{error:?}");
    }
}

thread_local! {
    /// What this thread, and so this test, has logged.
    static LOGGED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Writes log lines to where the thread that logs finds them.
#[derive(Clone, Copy)]
struct OwnLines;

impl io::Write for OwnLines {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        LOGGED.with_borrow_mut(|logged| logged.extend_from_slice(text));
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn every_refusal_is_logged_with_both_request_ids_and_no_item_or_address() {
    // For all threads: a subscriber of this one alone might be too late for a line that another has come by.
    let subscriber = tracing_subscriber::fmt().with_writer(|| OwnLines).with_ansi(false).finish();
    tracing::subscriber::set_global_default(subscriber).unwrap();
    let fake = Fake::start().await;
    let company = fake.company();
    fake.graph(Reply::refusal(401, "InvalidAuthenticationToken").with("request-id", "asked-0"))
        .graph(Reply::refusal(403, "ErrorAccessDenied").with("request-id", "asked-1"))
        .graph(Reply::refusal(403, "Authorization_RequestDenied").with("request-id", "asked-2"));
    company.event(&anna(), &"AAkSecretItem=".parse().unwrap()).await.unwrap_err();
    company.resolve("ines@contoso.example").await.unwrap_err();
    fake.graph(Reply::refusal(404, "MailboxNotEnabledForRESTAPI").with("request-id", "asked-3"))
        .graph(zone());
    meanwhile(&fake, &company, &users(2)).await;
    fake.batch(Reply::refusal(400, "BadRequest").with("request-id", "asked-4"));
    meanwhile(&fake, &company, &users(2)).await;

    let text = String::from_utf8(LOGGED.take()).unwrap();
    let refused: Vec<_> = text.lines().filter(|line| line.contains("Graph refused")).collect();
    assert_eq!(refused.len(), 5, "{text}");
    for (n, line) in refused.iter().enumerate() {
        assert!(line.contains(&format!("asked-{n}")), "{line}");
        let chain = line.split("client_request_id=\"").nth(1).unwrap().split('"').next().unwrap();
        let sent = |seen: &super::super::testing::Seen| seen.header("client-request-id") == chain;
        assert!(fake.seen().iter().any(sent) || fake.batches().iter().any(sent), "{line}");
    }
    for secret in ["AAkSecretItem", "ines", "contoso", "token-1"] {
        assert!(!text.contains(secret), "{secret}: {text}");
    }
}
