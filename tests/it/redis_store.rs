//! What the contract does not ask of a store: several of them on one Redis, and a Redis that fails.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{BufRead, BufReader, Write},
    process::{ChildStdin, ChildStdout, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use narvaro::{
    chain::Chain,
    clock::{ManualClock, SharedClock, SystemClock},
    model::{CompanyId, Extension, Generation, ItemVersion, MailboxId},
    queue::{
        DueStore, Duty, Hint, Lease, Mark, Reason, Replica, Replicas, Settled, Shares, StoreError, Tally,
        Urgency,
    },
    store::{
        Store,
        redis::{LinkSettings, Redis, RedisSettings},
    },
};

use crate::support::redis::{ClusterOf, PLAIN, Proxy, RedisServer, Watched, link_settings};

const HOLD: Duration = Duration::from_secs(60);

/// Longest wait for what comes about at once.
const LIMIT: Duration = Duration::from_secs(30);

/// A setting that loses nothing of what was acknowledged.
const DURABLE: &str = "save \"\"\nappendonly yes\nappendfsync always";

async fn open(link: LinkSettings) -> Arc<Redis> {
    open_by(link, Arc::new(SystemClock)).await
}

async fn open_by(link: LinkSettings, clock: SharedClock) -> Arc<Redis> {
    let prefix = "narvaro".to_owned();
    let settings = RedisSettings { link, prefix, shares: Shares::of(1_000), trail_entries: 10 };
    Arc::new(Redis::open(&settings, clock).await.unwrap())
}

async fn on(server: &RedisServer) -> Arc<Redis> {
    open(link_settings(&server.url())).await
}

fn acme() -> CompanyId {
    "acme".parse().unwrap()
}

/// Applies a company of so many users, and works off that they are due.
async fn company(store: &Redis, users: u32) -> Vec<MailboxId> {
    let users: Vec<Extension> = (1_000..1_000 + users).map(|n| n.to_string().parse().unwrap()).collect();
    let all: &dyn Store = store;
    let applied = all.apply(&acme(), b"{}".to_vec(), users).await.unwrap();
    drain(store).await;
    applied.mailboxes.iter().map(|mailbox| mailbox.id).collect()
}

async fn drain(store: &Redis) {
    loop {
        let leases = store.lease(500, HOLD).await.unwrap();
        if leases.is_empty() {
            return;
        }
        for lease in leases {
            settle(store, &lease).await.unwrap();
        }
    }
}

async fn settle(store: &Redis, lease: &Lease) -> Result<(), StoreError> {
    let next = Settled::Next { state: b"done".to_vec(), due: None, urgency: Urgency::Now, to_read: None };
    store.settle(lease, next).await
}

fn notification(mailbox: MailboxId, item: &str) -> Mark {
    let hint = Hint { item: item.parse().unwrap(), version: Some(ItemVersion::from_bits(1)) };
    let at = Timestamp::UNIX_EPOCH;
    Mark { mailbox, at, reason: Reason::Notification, watch: None, hint: Some(hint) }
}

/// The next lease, as a worker gets it: waits, and is woken.
async fn next_lease(store: &Redis, hold: Duration) -> Lease {
    let next = async {
        loop {
            store.wait().await;
            // A store that is away is tried again, as a worker does.
            if let Some(lease) = store.lease(1, hold).await.unwrap_or_default().pop() {
                return lease;
            }
        }
    };
    tokio::time::timeout(LIMIT, next).await.unwrap()
}

async fn announce(store: &Redis, name: &str) -> Result<(), StoreError> {
    let me =
        Replica { name: name.into(), version: "1".into(), started: Timestamp::UNIX_EPOCH, key: "k".into() };
    store.announce(&me).await
}

#[tokio::test]
async fn a_mark_at_one_replica_wakes_another_that_waits() {
    let server = RedisServer::start(PLAIN);
    let (one, other) = (on(&server).await, on(&server).await);
    let mailbox = company(&one, 1).await[0];
    assert!(other.lease(1, HOLD).await.unwrap().is_empty());
    let waiting = tokio::spawn(async move { next_lease(&other, HOLD).await });
    one.mark(vec![notification(mailbox, "item")]).await.unwrap();
    assert_eq!(waiting.await.unwrap().mailbox, mailbox);
}

#[tokio::test]
async fn many_announcements_go_beside_the_script_and_are_told_apart_as_one_is() {
    let server = RedisServer::start(PLAIN);
    let clock = ManualClock::at(Timestamp::from_second(1_800_000_000).unwrap());
    let open = || open_by(link_settings(&server.url()), Arc::clone(&clock) as _);
    let (one, other) = (open().await, open().await);
    let mailboxes = company(&one, 400).await;
    let announce = async |store: &Redis, items: [&str; 2]| {
        let items = items.iter().cycle();
        let marks = mailboxes.iter().zip(items).map(|(mailbox, item)| notification(*mailbox, item)).collect();
        let tally = store.mark(marks).await.unwrap();
        (tally.marked, tally.duplicate)
    };
    let parcels = || server.cli(&["--scan", "--pattern", "{narvaro}:parcel:*"]).lines().count();
    other.mark(vec![notification(mailboxes[0], "before")]).await.unwrap();
    assert_eq!(announce(&one, ["one", "one"]).await, (400, 0));
    assert_eq!(announce(&other, ["two", "one"]).await, (200, 200), "what it had not read is told it");
    // A server that was started anew knows no script.
    server.cli(&["SCRIPT", "FLUSH"]);
    assert_eq!(announce(&one, ["one", "other"]).await, (200, 200), "what it knows it does not send");
    assert_eq!((announce(&other, ["one", "other"]).await, parcels()), ((0, 400), 4));
    let mut items = 0;
    while let Some(lease) = one.lease(1, HOLD).await.unwrap().pop() {
        items += lease.gathered.hints.len();
        settle(&one, &lease).await.unwrap();
    }
    assert_eq!((items, parcels()), (801, 0));
    let calls = server.cli(&["INFO", "commandstats"]);
    let kept = calls.lines().find(|line| line.starts_with("cmdstat_persist:")).unwrap();
    assert!(kept.contains("calls=3,"), "{kept}");
}

#[tokio::test]
async fn a_version_is_known_again_for_a_minute_at_least_and_takes_no_room_for_long() {
    let server = RedisServer::start(PLAIN);
    // Where a minute begins whose announcements are written into the same log.
    let start = Timestamp::from_second(1_800_000_000).unwrap();
    let clock = ManualClock::at(start);
    let settings = link_settings(&server.url());
    let stores = [
        open_by(settings.clone(), Arc::clone(&clock) as _).await,
        open_by(settings, Arc::clone(&clock) as _).await,
    ];
    let mailbox = company(&stores[0], 1).await[0];
    let announce_at = async |second: i64, replica: usize, item: &str| {
        clock.advance_to(start + SignedDuration::from_secs(second));
        let tally = stores[replica].mark(vec![notification(mailbox, item)]).await.unwrap();
        (tally.marked, tally.duplicate)
    };
    assert_eq!(announce_at(1, 0, "early").await, (1, 0));
    assert_eq!(announce_at(59, 0, "late").await, (1, 0));
    assert_eq!(announce_at(59, 1, "early").await, (0, 1));
    assert_eq!(announce_at(119, 1, "late").await, (0, 1), "the log before is looked into by both");
    assert_eq!(announce_at(119, 0, "late").await, (0, 1));
    assert_eq!(announce_at(121, 0, "late").await, (1, 0), "by a replica that had read it");
    assert_eq!(announce_at(122, 1, "late").await, (0, 1));
    assert_eq!(announce_at(122, 1, "early").await, (1, 0));
    assert_eq!(announce_at(600, 0, "late").await, (1, 0), "by a replica that had nothing to do for long");
    for log in server.cli(&["--scan", "--pattern", "{narvaro}:announced:*"]).lines() {
        let left: u64 = server.cli(&["TTL", log]).trim().parse().unwrap();
        assert!((200..=240).contains(&left), "{log}: {left} s");
    }
}

#[tokio::test]
async fn a_version_is_stored_once_whichever_replicas_are_told_of_it() {
    let server = RedisServer::start(PLAIN);
    let clock = ManualClock::at(Timestamp::from_second(1_800_000_000).unwrap());
    let stores = [(), (), ()].map(|()| open_by(link_settings(&server.url()), Arc::clone(&clock) as _));
    let stores = futures_util::future::join_all(stores).await;
    let mailboxes = company(&stores[0], 3).await;
    let mut announced = BTreeSet::new();
    for call in 0..200_usize {
        // A walk through all of them, with steps that have nothing in common with their number.
        let items: Vec<usize> = (0..call % 7 + 1).map(|n| (call * 31 + n * 17) % 1_009).collect();
        let marks = items.iter().map(|item| notification(mailboxes[item % 3], &format!("{item}"))).collect();
        let tally = stores[call * 5 % 3].mark(marks).await.unwrap();
        let new = items.iter().filter(|item| announced.insert(**item)).count();
        assert_eq!((tally.marked, tally.duplicate), (new, items.len() - new), "call {call}");
        // Some of a minute, and some of the next.
        clock.advance(Duration::from_millis(300));
    }
    let stored = server.cli(&["HGET", "{narvaro}:meta", "inbox"]);
    assert_eq!(stored.trim(), announced.len().to_string(), "nothing is in the inbox twice");
}

#[tokio::test]
async fn requests_of_all_replicas_at_a_time_store_a_version_once() {
    let server = RedisServer::start(PLAIN);
    let stores = [on(&server).await, on(&server).await, on(&server).await];
    let mailboxes = company(&stores[0], 40).await;
    for round in 0..20 {
        let ask = |store: &Arc<Redis>| {
            let marks = mailboxes.iter().map(|mailbox| notification(*mailbox, &format!("{round}"))).collect();
            let store = Arc::clone(store);
            async move { store.mark(marks).await.unwrap() }
        };
        let asked: Vec<_> = stores.iter().cycle().take(9).map(ask).collect();
        let told = futures_util::future::join_all(asked).await;
        let sum = |count: fn(&Tally) -> usize| told.iter().map(count).sum::<usize>();
        assert_eq!((sum(|tally| tally.marked), sum(|tally| tally.duplicate)), (40, 320), "round {round}");
    }
}

#[tokio::test]
async fn who_has_missed_much_reads_it_before_anything_is_stored() {
    let server = RedisServer::start(PLAIN);
    let (one, other) = (on(&server).await, on(&server).await);
    let mailboxes = company(&one, 500).await;
    let announce = async |store: &Redis, from: usize, count: usize| {
        let items = (from..from + count).map(|item| notification(mailboxes[item % 500], &format!("{item}")));
        let tally = store.mark(items.collect()).await.unwrap();
        (tally.marked, tally.duplicate)
    };
    assert_eq!(announce(&other, 0, 1).await, (1, 0));
    assert_eq!(announce(&one, 0, 20_000).await, (19_999, 1));
    assert_eq!(announce(&other, 19_990, 20).await, (10, 10));
    assert_eq!(announce(&one, 19_990, 21).await, (1, 20));
}

#[tokio::test]
async fn a_log_that_got_lost_is_noticed_and_what_stood_in_it_is_new_again() {
    let server = RedisServer::start(PLAIN);
    let (one, other) = (on(&server).await, on(&server).await);
    let mailbox = company(&one, 1).await[0];
    let announce = async |store: &Redis, item: &str| {
        let tally = store.mark(vec![notification(mailbox, item)]).await.unwrap();
        (tally.marked, tally.duplicate)
    };
    let lose = || {
        for log in server.cli(&["--scan", "--pattern", "{narvaro}:announced:*"]).lines() {
            server.cli(&["DEL", log]);
        }
    };
    assert_eq!(announce(&one, "one").await, (1, 0));
    lose();
    assert_eq!(announce(&one, "one").await, (1, 0));
    lose();
    assert_eq!(announce(&other, "other").await, (1, 0));
    assert_eq!(announce(&one, "one").await, (1, 0), "though the log is as long as it was");
    assert_eq!(announce(&one, "other").await, (0, 1));
    assert_eq!(announce(&other, "one").await, (0, 1));
}

#[tokio::test]
async fn a_log_that_got_lost_just_as_the_next_began_is_noticed_too() {
    let server = RedisServer::start(PLAIN);
    let start = Timestamp::from_second(1_800_000_000).unwrap();
    let clock = ManualClock::at(start);
    let store = open_by(link_settings(&server.url()), Arc::clone(&clock) as _).await;
    let mailbox = company(&store, 1).await[0];
    let announce = async |item: &str| {
        let tally = store.mark(vec![notification(mailbox, item)]).await.unwrap();
        (tally.marked, tally.duplicate)
    };
    assert_eq!(announce("one").await, (1, 0));
    clock.advance(Duration::from_secs(60));
    // Nothing is in the new log yet.
    assert_eq!(announce("one").await, (0, 1));
    let log = server.cli(&["--scan", "--pattern", "{narvaro}:announced:*"]);
    server.cli(&["DEL", log.trim()]);
    assert_eq!(announce("one").await, (1, 0));
}

#[tokio::test]
async fn i1_a_redis_that_hangs_is_waited_for_no_longer_than_was_said_and_what_comes_later_is_taken() {
    let server = RedisServer::start(PLAIN);
    // By a clock of its own, no new minute begins.
    let clock = ManualClock::at(Timestamp::from_second(1_800_000_000).unwrap());
    let store = open_by(link_settings(&server.url()), clock as _).await;
    let mailbox = company(&store, 1).await[0];
    store.mark(vec![notification(mailbox, "before")]).await.unwrap();
    server.stop();
    let within = Duration::from_millis(50);
    let refused = store.mark_within(vec![notification(mailbox, "one")], within).await.unwrap_err();
    assert!(matches!(refused, StoreError::Late), "{refused:?}");
    server.go_on();
    let taken = store.mark(vec![notification(mailbox, "other")]).await.unwrap();
    assert_eq!(taken.marked, 1);
    // Graph delivers again what was refused. It came about all the same, and is found in the log.
    let again = store.mark(vec![notification(mailbox, "one")]).await.unwrap();
    assert_eq!(again.duplicate, 1);
    let lease = store.lease(1, HOLD).await.unwrap().remove(0);
    assert_eq!(lease.gathered.hints.len(), 3);
}

#[tokio::test]
async fn i1_a_server_that_must_not_write_is_not_believed_what_was_announced_before() {
    let server = RedisServer::start(PLAIN);
    let store = on(&server).await;
    let mailbox = company(&store, 1).await[0];
    let again = || vec![notification(mailbox, "one")];
    store.mark(again()).await.unwrap();
    server.cli(&["REPLICAOF", "127.0.0.1", "1"]);
    store.mark(again()).await.unwrap_err();
    server.cli(&["REPLICAOF", "NO", "ONE"]);
    assert_eq!(store.mark(again()).await.unwrap().duplicate, 1);
}

#[tokio::test]
async fn of_a_long_parcel_only_what_is_new_and_has_a_mailbox_is_kept() {
    let server = RedisServer::start(PLAIN);
    let (one, other) = (on(&server).await, on(&server).await);
    let mailboxes = company(&one, 200).await;
    let marks = |item: &str| -> Vec<Mark> {
        (0..).zip(&mailboxes).map(|(n, mailbox)| notification(*mailbox, &format!("{item}-{n}"))).collect()
    };
    let nowhere = |n: u64| notification(MailboxId(1_000_000 + n), "item");
    other.mark(marks("before")).await.unwrap();
    one.mark(marks("before")).await.unwrap();
    let mut first = marks("first");
    first.truncate(70);
    one.mark(first).await.unwrap();
    // Some that the other has not read of yet, some of mailboxes that are not there, and the rest is new.
    let mixed = marks("first").into_iter().enumerate().flat_map(|(n, mark)| {
        let unknown = n.is_multiple_of(3).then(|| nowhere(n as u64));
        unknown.into_iter().chain([mark])
    });
    let tally = other.mark(mixed.collect()).await.unwrap();
    assert_eq!((tally.marked, tally.duplicate, tally.unknown), (130, 70, 67));
    let mut hints = Vec::new();
    while let Some(lease) = one.lease(1, HOLD).await.unwrap().pop() {
        hints.extend(lease.gathered.hints.iter().map(|hint| (lease.mailbox, hint.item.as_str().to_owned())));
        settle(&one, &lease).await.unwrap();
    }
    let expected = marks("before").into_iter().chain(marks("first"));
    let mut expected: Vec<_> =
        expected.map(|mark| (mark.mailbox, mark.hint.unwrap().item.as_str().to_owned())).collect();
    hints.sort();
    expected.sort();
    assert_eq!(hints, expected);
}

#[tokio::test]
async fn i1_an_inbox_that_nobody_empties_stays_bounded_and_nothing_of_it_is_lost() {
    let server = RedisServer::start(PLAIN);
    let store = on(&server).await;
    let mailboxes = company(&store, 500).await;
    let waiting = || server.cli(&["HGET", "{narvaro}:meta", "inbox"]).trim().parse::<usize>().unwrap();
    let announce = async |call: usize, mailboxes: &[MailboxId]| {
        let marks = mailboxes.iter().map(|mailbox| notification(*mailbox, &format!("item-{call}"))).collect();
        assert_eq!(store.mark(marks).await.unwrap().marked, mailboxes.len());
    };
    // More than one call to Redis can take.
    let all: Vec<MailboxId> = mailboxes.iter().cycle().take(10_000).copied().collect();
    let marks: Vec<_> =
        (0..).zip(&all).map(|(n, mailbox)| notification(*mailbox, &format!("of-{n}"))).collect();
    assert_eq!(store.mark(marks).await.unwrap().marked, all.len());
    for call in 0..190 {
        announce(call, &mailboxes).await;
    }
    assert!((98_000..=100_000).contains(&waiting()), "{}", waiting());
    let mut items = 0;
    loop {
        let leases = store.lease(500, HOLD).await.unwrap();
        if leases.is_empty() && waiting() == 0 {
            break;
        }
        for lease in &leases {
            assert!(!lease.gathered.overflow);
            items += lease.gathered.hints.len();
            settle(&store, lease).await.unwrap();
        }
    }
    assert_eq!(items, all.len() + 190 * mailboxes.len());
    drain(&store).await;
    assert_eq!((waiting(), server.cli(&["LLEN", "{narvaro}:inbox"]).trim()), (0, "0"));
    announce(1_000, &mailboxes).await;
    let leases = store.lease(500, HOLD).await.unwrap();
    assert!(!leases.is_empty() && leases.iter().all(|lease| lease.gathered.hints.len() == 1));
}

#[tokio::test]
async fn i3_no_two_replicas_hold_a_mailbox_and_its_generations_only_grow() {
    let server = RedisServer::start(PLAIN);
    let replicas = [on(&server).await, on(&server).await, on(&server).await];
    let mailboxes = company(&replicas[0], 40).await;
    let held = Arc::new(std::sync::Mutex::new(BTreeMap::<MailboxId, Generation>::new()));
    let newest = Arc::new(std::sync::Mutex::new(BTreeMap::<MailboxId, Generation>::new()));
    let mut workers = tokio::task::JoinSet::new();
    for replica in &replicas {
        let (replica, held, newest) = (Arc::clone(replica), Arc::clone(&held), Arc::clone(&newest));
        workers.spawn(async move {
            loop {
                replica.wait().await;
                for lease in replica.lease(8, HOLD).await.unwrap() {
                    let before = held.lock().unwrap().insert(lease.mailbox, lease.generation);
                    assert_eq!(before, None, "mailbox {} is held twice", lease.mailbox);
                    let before = newest.lock().unwrap().insert(lease.mailbox, lease.generation);
                    assert!(before.is_none_or(|before| before < lease.generation));
                    tokio::task::yield_now().await;
                    held.lock().unwrap().remove(&lease.mailbox);
                    settle(&replica, &lease).await.unwrap();
                }
            }
        });
    }
    for round in 0..50 {
        let marks = mailboxes.iter().map(|mailbox| notification(*mailbox, &format!("item-{round}")));
        replicas[round % 3].mark(marks.collect()).await.unwrap();
    }
    let all_settled = async {
        loop {
            let depth = replicas[0].depth().await.unwrap();
            if depth.due == 0 && depth.leased == 0 {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        failed = workers.join_next() => panic!("a worker ended: {failed:?}"),
        settled = tokio::time::timeout(LIMIT, all_settled) => settled.unwrap(),
    }
    assert_eq!(newest.lock().unwrap().len(), mailboxes.len());
}

/// Where the child finds the Redis it is to work on.
const REDIS: &str = "NARVARO_TEST_REDIS";

/// How long the child's lease lasts.
const SHORT: Duration = Duration::from_millis(500);

/// The worker that is stopped: it leases, says so, and writes when it is told to.
#[tokio::test]
#[ignore = "started as a process of its own by `i3_a_worker_that_was_stopped_past_its_lease_is_refused`"]
async fn leases_and_writes_when_told() {
    let store = open(link_settings(&std::env::var(REDIS).unwrap())).await;
    let lease = next_lease(&store, SHORT).await;
    println!("leased {}", lease.generation);
    let mut told = String::new();
    std::io::stdin().read_line(&mut told).unwrap();
    let refused = |outcome: Result<(), StoreError>| matches!(outcome, Err(StoreError::LeaseLost { .. }));
    let announced = store.intend(&lease, b"late".to_vec()).await;
    let settled = settle(&store, &lease).await;
    println!("refused {} {}", refused(announced), refused(settled));
}

/// A line that the child says, from its first word on.
fn line(said: &mut BufReader<ChildStdout>, word: &str) -> String {
    loop {
        let mut line = String::new();
        assert!(said.read_line(&mut line).unwrap() > 0, "the child ended without `{word}`");
        // The test harness may have begun the line.
        if let Some(at) = line.find(word) {
            return line[at..].trim().to_owned();
        }
    }
}

fn signal(child: u32, name: &str) {
    assert!(Command::new("kill").args([name, &child.to_string()]).status().unwrap().success());
}

#[tokio::test]
async fn i3_a_worker_that_was_stopped_past_its_lease_is_refused() {
    let server = RedisServer::start(PLAIN);
    let store = on(&server).await;
    let mailbox = company(&store, 1).await[0];
    store.mark(vec![notification(mailbox, "item")]).await.unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "redis_store::leases_and_writes_when_told", "--ignored", "--nocapture"])
        .env(REDIS, server.url())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut tell, mut said): (ChildStdin, _) =
        (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
    let leased: u64 = line(&mut said, "leased").split_once(' ').unwrap().1.parse().unwrap();
    signal(child.id(), "-STOP");
    // Redis takes the lease back by its own time, and gives it to whoever asks.
    let lease = next_lease(&store, HOLD).await;
    assert!(lease.generation.0 > leased);
    assert!(lease.gathered.reasons.contains(Reason::Notification), "what it had gathered comes again");
    store.intend(&lease, b"in time".to_vec()).await.unwrap();
    signal(child.id(), "-CONT");
    writeln!(tell, "write").unwrap();
    assert_eq!(line(&mut said, "refused"), "refused true true");
    settle(&store, &lease).await.unwrap();
    assert!(child.wait().unwrap().success());
}

#[tokio::test]
async fn i1_what_was_acknowledged_survives_the_death_of_redis_that_writes_always() {
    let server = RedisServer::start(DURABLE);
    let store = on(&server).await;
    let mailboxes = company(&store, 50).await;
    for mailbox in &mailboxes {
        store.mark(vec![notification(*mailbox, "item")]).await.unwrap();
    }
    let taken = store.lease(10, HOLD).await.unwrap();
    settle(&store, &taken[0]).await.unwrap();
    server.kill();
    let refused = store.mark(vec![notification(mailboxes[0], "lost")]).await.unwrap_err();
    assert!(matches!(refused, StoreError::Unavailable(_)));
    let told = Chain(&refused).to_string();
    assert_eq!(told.matches("the store cannot take it now").count(), 1, "{told}");
    server.launch();
    let mut found = Vec::new();
    for lease in &taken[1..] {
        found.push(lease.mailbox);
        // The lease outlives it too.
        settle_when_back(&store, lease).await;
    }
    while found.len() < mailboxes.len() - 1 {
        let lease = next_lease(&store, HOLD).await;
        assert!(lease.gathered.reasons.contains(Reason::Notification));
        found.push(lease.mailbox);
        settle(&store, &lease).await.unwrap();
    }
    assert_eq!(store.depth().await.unwrap().due, 0);
}

/// Settles as soon as Redis can be asked again.
async fn settle_when_back(store: &Redis, lease: &Lease) {
    let settled = async {
        while let Err(StoreError::Unavailable(_)) = settle(store, lease).await {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LIMIT, settled).await.unwrap();
}

/// Marks as soon as Redis can be asked again.
async fn announce_when_back(store: &Redis) {
    let announced = async {
        while announce(store, "one").await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LIMIT, announced).await.unwrap();
}

async fn everything_is_due(store: &Redis, mailboxes: usize, because: Reason) {
    assert_eq!(store.depth().await.unwrap().due, mailboxes);
    let lease = next_lease(store, HOLD).await;
    assert!(lease.gathered.reasons.contains(because), "{:?}", lease.gathered.reasons);
    store.release(&lease).await.unwrap();
}

#[tokio::test]
async fn whoever_is_alone_makes_everything_due_and_whoever_joins_does_not() {
    let server = RedisServer::start(PLAIN);
    let (one, other) = (on(&server).await, on(&server).await);
    company(&one, 3).await;
    announce(&one, "one").await.unwrap();
    everything_is_due(&one, 3, Reason::Started).await;
    drain(&one).await;
    announce(&other, "other").await.unwrap();
    announce(&one, "one").await.unwrap();
    assert_eq!(one.depth().await.unwrap().due, 0);
    assert_eq!(one.replicas().await.unwrap().len(), 2);
    one.leave().await.unwrap();
    other.leave().await.unwrap();
    announce(&one, "one").await.unwrap();
    everything_is_due(&one, 3, Reason::Started).await;
}

#[tokio::test]
async fn after_a_restart_of_redis_every_mailbox_is_looked_at_because_the_last_second_may_be_lost() {
    let server = RedisServer::start("save \"\"\nappendonly yes\nappendfsync everysec");
    let store = on(&server).await;
    announce(&store, "one").await.unwrap();
    company(&store, 3).await;
    server.cli(&["BGREWRITEAOF"]);
    server.kill();
    server.launch();
    announce_when_back(&store).await;
    let mailboxes = store.depth().await.unwrap().mailboxes;
    everything_is_due(&store, mailboxes, Reason::StoreChanged).await;
    drain(&store).await;
    announce(&store, "one").await.unwrap();
    assert_eq!(store.depth().await.unwrap().due, 0, "once");
}

#[tokio::test]
async fn a_fail_over_of_sentinels_is_followed_and_every_mailbox_looked_at() {
    let watched = Watched::start().await;
    let store = open(link_settings(&watched.url())).await;
    announce(&store, "one").await.unwrap();
    company(&store, 3).await;
    watched.master.until_replicated();
    watched.master.kill();
    announce_when_back(&store).await;
    everything_is_due(&store, 3, Reason::StoreChanged).await;
}

#[tokio::test]
async fn a_cluster_keeps_everything_in_one_slot_and_goes_on_when_its_master_dies() {
    let cluster = ClusterOf::start().await;
    let store = open(link_settings(&cluster.url())).await;
    let other = open(link_settings(&cluster.url())).await;
    announce(&store, "one").await.unwrap();
    let mailboxes = company(&store, 3).await;
    assert!(other.lease(1, HOLD).await.unwrap().is_empty());
    let woken = tokio::spawn(async move { next_lease(&other, HOLD).await });
    store.mark(vec![notification(mailboxes[0], "item")]).await.unwrap();
    let lease = woken.await.unwrap();
    store.settle(&lease, Settled::Gone).await.unwrap();
    let master = cluster.master_of("{narvaro}:x");
    master.until_replicated();
    master.kill();
    announce_when_back(&store).await;
    everything_is_due(&store, 3, Reason::StoreChanged).await;
}

#[tokio::test]
async fn what_a_newer_version_has_laid_out_is_refused_and_its_remedy_told() {
    let server = RedisServer::start(PLAIN);
    let store = on(&server).await;
    announce(&store, "one").await.unwrap();
    assert_eq!(server.cli(&["HGET", "{narvaro}:meta", "layout"]).trim(), "1");
    server.cli(&["HSET", "{narvaro}:meta", "layout", "2"]);
    let settings = RedisSettings {
        link: link_settings(&server.url()),
        prefix: "narvaro".to_owned(),
        shares: Shares::of(1),
        trail_entries: 1,
    };
    let refused = Redis::open(&settings, Arc::new(SystemClock)).await.err().unwrap().to_string();
    assert!(refused.contains("layout 2") && refused.contains("use the newer version"), "{refused}");
}

#[tokio::test]
async fn a_redis_that_has_lost_everything_is_noticed_by_who_follows_changes() {
    let server = RedisServer::start(PLAIN);
    let store = on(&server).await;
    announce(&store, "one").await.unwrap();
    company(&store, 1).await;
    let since = (&*store as &dyn Store).revision().await.unwrap();
    server.cli(&["FLUSHALL"]);
    announce(&store, "one").await.unwrap();
    tokio::time::timeout(LIMIT, (&*store as &dyn Store).changed(since)).await.unwrap();
    assert_eq!((&*store as &dyn Store).revisions().await.unwrap(), []);
}

#[tokio::test]
async fn an_apply_that_redis_has_lost_is_not_taken_for_a_later_one() {
    let server = RedisServer::start("save \"\"\nappendonly no");
    let store = on(&server).await;
    announce(&store, "one").await.unwrap();
    company(&store, 1).await;
    let all: &dyn Store = &*store;
    server.cli(&["SAVE"]);
    let lost = all.apply(&acme(), b"lost".to_vec(), Vec::new()).await.unwrap();
    server.kill();
    server.launch();
    announce_when_back(&store).await;
    let (record, _) = all.company(&acme()).await.unwrap().unwrap();
    assert_eq!(record.applied.as_deref(), Some(&b"{}"[..]));
    assert!(record.revision > lost.revision, "whoever goes by what was lost reads it anew");
}

#[tokio::test]
async fn a_lease_whose_answer_got_lost_is_handed_back() {
    let server = RedisServer::start(PLAIN);
    let proxy = Proxy::to(server.port).await;
    let direct = on(&server).await;
    let mailbox = company(&direct, 1).await[0];
    let store = open(link_settings(&format!("redis://127.0.0.1:{}", proxy.port))).await;
    assert!(store.lease(1, HOLD).await.unwrap().is_empty());
    direct.mark(vec![notification(mailbox, "item")]).await.unwrap();
    // Redis is stopped with the question before it; it answers to a connection that is no more.
    server.stop();
    assert!(store.lease(1, HOLD).await.is_err());
    proxy.cut();
    server.go_on();
    let lease = next_lease(&store, HOLD).await;
    assert_eq!(lease.mailbox, mailbox);
    assert!(lease.gathered.reasons.contains(Reason::Notification));
}

#[tokio::test]
async fn one_replica_has_a_duty_until_it_leaves() {
    let server = RedisServer::start(PLAIN);
    let (one, other) = (on(&server).await, on(&server).await);
    assert!(one.hold_duty(Duty::Jobs, HOLD).await.unwrap());
    assert!(!other.hold_duty(Duty::Jobs, HOLD).await.unwrap());
    assert!(other.hold_duty(Duty::Upkeep, HOLD).await.unwrap());
    assert!(one.hold_duty(Duty::Jobs, HOLD).await.unwrap());
    one.leave().await.unwrap();
    assert!(other.hold_duty(Duty::Jobs, HOLD).await.unwrap());
}

#[tokio::test]
async fn a_user_without_the_rights_that_are_needed_is_refused_at_the_start_with_those_it_should_have() {
    let server = RedisServer::start(PLAIN);
    for (user, rights) in [
        ("elsewhere", &["~{other}:*", "&*", "+@all"][..]),
        ("deaf", &["~{narvaro}:*", "resetchannels", "+@all"]),
        (
            "reader",
            &[
                "~{narvaro}:*",
                "&*",
                "+@read",
                "+@scripting",
                "+@connection",
                "+@pubsub",
                "+info",
                "+config|get",
            ],
        ),
    ] {
        let mut words = vec!["ACL", "SETUSER", user, "on", ">s3cret"];
        words.extend(rights);
        assert_eq!(server.cli(&words).trim(), "OK");
        let link = link_settings(&format!("redis://{user}:s3cret@127.0.0.1:{}", server.port));
        let settings =
            RedisSettings { link, prefix: "narvaro".to_owned(), shares: Shares::of(1), trail_entries: 10 };
        let refused = Redis::open(&settings, Arc::new(SystemClock)).await.err().unwrap().to_string();
        assert!(refused.contains("NOPERM") || refused.contains("can't"), "{user}: {refused}");
        assert!(refused.contains("~{narvaro}:* &{narvaro}:*"), "{user}: {refused}");
    }
}

#[tokio::test]
async fn tls_with_an_acl_user_serves_the_whole_store() {
    let server = RedisServer::with_tls();
    let mut settings = link_settings(&format!("rediss://anna:s3cret@127.0.0.1:{}", server.port));
    settings.ca_file = Some(server.file("ca.pem"));
    let (one, other) = (open(settings.clone()).await, open(settings).await);
    announce(&one, "one").await.unwrap();
    let mailbox = company(&one, 2).await[0];
    assert!(other.lease(1, HOLD).await.unwrap().is_empty());
    let woken = tokio::spawn(async move { next_lease(&other, HOLD).await });
    one.mark(vec![notification(mailbox, "item")]).await.unwrap();
    settle(&one, &woken.await.unwrap()).await.unwrap();
    one.leave().await.unwrap();
}
