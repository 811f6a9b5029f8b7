//! The process is killed at any moment, a hundred times: what was acknowledged is not lost (I1).
//!
//! Two tests. One kills a process that does nothing but mark and settle in the store, so that no complete read at the
//! next start can make up for a lost mark. The other kills the built service under notifications while Graph is away,
//! so that what was acknowledged has to stay owed.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{BufRead, BufReader, Read, Write},
    path::Path,
    process::{Command, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use narvaro::{
    clock::SystemClock,
    model::MailboxId,
    queue::{DueStore, Gathered, Hint, Mark, Reason, Settled, Shares, Urgency},
    store::{
        Store,
        embedded::{Embedded, EmbeddedSettings},
    },
    turn::state::MailboxState,
};
use narvaro_sim::{EventSpec, Fault, FaultKind, UserSpec};
use serde_json::json;

use crate::support::service::Service;

const ROUNDS: u64 = 100;
const HOLD: Duration = Duration::from_secs(60);

/// Mailboxes of the store test, and marks of one life: each mailbox gets ten in all, fewer than are kept singly.
const MAILBOXES: u64 = 2_000;
const MARKS: u64 = 200;

/// Where the child finds the store it is to work on, and which life it lives.
const STORE: &str = "NARVARO_TEST_STORE";
const ROUND: &str = "NARVARO_TEST_ROUND";

/// Dice that fall the same way for the same seed (SplitMix64).
struct Dice(u64);

impl Dice {
    /// A number below `most`.
    fn below(&mut self, most: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % most
    }
}

/// A seed of this run's own; `NARVARO_TEST_SEED` throws the dice of an earlier run again.
fn seed() -> u64 {
    let given = std::env::var("NARVARO_TEST_SEED").ok().map(|seed| seed.parse().unwrap());
    given.unwrap_or_else(|| u64::from(std::process::id()))
}

fn open(path: &Path) -> Embedded {
    let settings = EmbeddedSettings { path: path.to_owned(), shares: Shares::of(100_000) };
    Embedded::open(&settings, Arc::new(SystemClock)).unwrap()
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    // The parent that reads this has killed us before it stops reading.
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

fn notification(mailbox: MailboxId, item: &str, version: Option<u64>) -> Mark {
    let hint = Hint { item: item.parse().unwrap(), version };
    Mark {
        mailbox,
        at: jiff::Timestamp::UNIX_EPOCH,
        reason: Reason::Notification,
        watch: None,
        hint: Some(hint),
    }
}

/// The child's life: it marks and settles until it is killed, and says what was acknowledged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "started as a process of its own by `i1_every_acknowledged_mark_survives_a_hundred_kills`"]
async fn marks_until_it_is_killed() {
    let round: u64 = std::env::var(ROUND).unwrap().parse().unwrap();
    let store = Arc::new(open(Path::new(&std::env::var(STORE).unwrap())));
    let mut mailboxes: Vec<MailboxId> =
        (&*store as &dyn Store).mailboxes().await.unwrap().into_iter().map(|mailbox| mailbox.id).collect();
    mailboxes.sort();
    say("opened");
    let worker = Arc::clone(&store);
    tokio::spawn(async move {
        loop {
            worker.wait().await;
            for lease in worker.lease(1, HOLD).await.unwrap() {
                // Said before it is done: from here on the marks may be worked off.
                for item in &lease.gathered.hints {
                    say(&format!("worked {} {item}", lease.mailbox));
                }
                let next =
                    Settled::Next { state: Vec::new(), due: None, urgency: Urgency::Now, to_read: None };
                worker.settle(&lease, next).await.unwrap();
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    });
    let marking = (0..4).map(|task| {
        let (store, mailboxes) = (Arc::clone(&store), mailboxes.clone());
        tokio::spawn(async move {
            for n in (task..MARKS).step_by(4) {
                let mailbox = mailboxes[usize::try_from((round * MARKS + n) % MAILBOXES).unwrap()];
                let item = format!("{round}-{n}");
                let mark = || store.mark(vec![notification(mailbox, &item, Some(n))]);
                // Delivered twice at once, each time acknowledged on its own.
                let first = async {
                    mark().await.unwrap();
                    say(&format!("acknowledged {mailbox} {item}"));
                };
                let second = async {
                    mark().await.unwrap();
                    say(&format!("acknowledged {mailbox} {item}"));
                };
                tokio::join!(first, second);
            }
        })
    });
    for task in marking.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    std::future::pending::<()>().await;
}

/// One life of the child and its end; the lines it said.
fn life(store: &Path, round: u64, dice: &mut Dice) -> Vec<String> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "killed::marks_until_it_is_killed", "--ignored", "--nocapture"])
        .env(STORE, store)
        .env(ROUND, round.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let mut said = Vec::new();
    // One in ten dies while it opens the store.
    if dice.below(10) == 0 {
        std::thread::sleep(Duration::from_micros(dice.below(60_000)));
        child.kill().unwrap();
    } else {
        if !lines.by_ref().any(|line| line.ends_with("opened")) {
            let mut why = String::new();
            child.stderr.take().unwrap().read_to_string(&mut why).unwrap();
            panic!("life {round} could not open the store: {why}");
        }
        // Somewhere in the middle of its work, however slow that is today.
        let enough = dice.below(2 * MARKS - 20);
        let mut acknowledged = 0;
        while acknowledged < enough {
            let line = lines.next().unwrap();
            acknowledged += u64::from(line.starts_with("acknowledged"));
            said.push(line);
        }
        std::thread::sleep(Duration::from_micros(dice.below(2_000)));
        child.kill().unwrap();
    }
    child.wait().unwrap();
    said.extend(lines);
    said
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i1_every_acknowledged_mark_survives_a_hundred_kills() {
    let seed = seed();
    let mut dice = Dice(seed);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("narvaro.db");
    {
        let store = open(&path);
        let users = (1_000..1_000 + MAILBOXES).map(|n| n.to_string().parse().unwrap()).collect();
        (&store as &dyn Store).apply(&"acme".parse().unwrap(), b"{}".to_vec(), users).await.unwrap();
    }
    let mut acknowledged = BTreeSet::new();
    let mut worked = BTreeSet::new();
    for round in 0..ROUNDS {
        for line in life(&path, round, &mut dice) {
            let mut words = line.split(' ');
            let (kind, mailbox, item) = (words.next(), words.next(), words.next());
            let (Some(mailbox), Some(item)) = (mailbox, item) else { continue };
            let entry = (mailbox.to_owned(), item.to_owned());
            match kind {
                Some("acknowledged") => drop(acknowledged.insert(entry)),
                Some("worked") => drop(worked.insert(entry)),
                _ => {}
            }
        }
    }
    let store = open(&path);
    let mut waiting: BTreeMap<String, Gathered> = BTreeMap::new();
    for lease in store.lease(10_000, HOLD).await.unwrap() {
        waiting.insert(lease.mailbox.to_string(), lease.gathered);
    }
    let owed: Vec<_> = acknowledged.difference(&worked).collect();
    let lost: Vec<_> = owed
        .iter()
        .filter(|(mailbox, item)| {
            !waiting
                .get(mailbox)
                .is_some_and(|gathered| gathered.hints.iter().any(|hint| hint.as_str() == item))
        })
        .collect();
    assert!(lost.is_empty(), "seed {seed}: {} of {} lost: {lost:?}", lost.len(), owed.len());
    assert!(
        owed.len() > 500 && worked.len() > 100,
        "seed {seed}: too little was tried: {} and {}",
        owed.len(),
        worked.len()
    );
}

/// Items that any mailbox still owes, and whether one owes a complete read in their place.
async fn owed_items(store: &Path) -> (BTreeSet<String>, bool) {
    let store = open(store);
    let mut items = BTreeSet::new();
    let mut all = false;
    for lease in store.lease(10_000, HOLD).await.unwrap() {
        let state = MailboxState::read(&lease.state).unwrap();
        for gathered in [&lease.gathered, &state.owed] {
            all |= gathered.overflow;
            items.extend(gathered.hints.iter().map(|item| item.as_str().to_owned()));
        }
    }
    (items, all)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i1_the_service_owes_what_it_acknowledged_after_a_hundred_kills() {
    const USERS: usize = 32;
    const MOST_A_LIFE: usize = 4;
    let seed = seed();
    let mut dice = Dice(seed);
    let mut service = Service::new().await;
    let aliases: Vec<String> = (0..USERS).map(|n| format!("user{n}@acme.example")).collect();
    for alias in &aliases {
        service.sim.add_user(&service.tenant, UserSpec::new(alias)).unwrap();
    }
    service.start(&[]).await;
    let aliases: Vec<&str> = aliases.iter().map(String::as_str).collect();
    service.apply(&service.company(&aliases, "")).await;
    service.until_read(USERS).await;
    let subscriptions = service.sim.subscriptions();
    // From here on nothing can be read: what is acknowledged has to be kept.
    service.sim.fault(Fault::lasting(FaultKind::Drop));
    let acknowledged = Arc::new(Mutex::new(Vec::new()));
    let mut sent = 0;
    for round in 0..ROUNDS {
        if round > 0 {
            service.start(&[]).await;
        }
        let posts: Vec<_> = (0..MOST_A_LIFE)
            .map(|_| {
                let subscription = &subscriptions[sent % USERS];
                let item = format!("item-{sent}");
                sent += 1;
                let body = json!({ "value": [{
                    "subscriptionId": subscription.id, "clientState": subscription.client_state,
                    "tenantId": subscription.tenant, "changeType": "updated", "resourceData": { "id": item },
                }] });
                let post = service.client.post(service.notify_url()).json(&body);
                let acknowledged = Arc::clone(&acknowledged);
                tokio::spawn(async move {
                    if let Ok(answer) = post.send().await
                        && answer.status().is_success()
                    {
                        acknowledged.lock().unwrap().push(item);
                    }
                })
            })
            .collect();
        // After so many of this life's answers, while the others are under way, however slow that is today.
        let wanted = acknowledged.lock().unwrap().len() + usize::try_from(dice.below(4)).unwrap();
        service.until("some are acknowledged", async || acknowledged.lock().unwrap().len() >= wanted).await;
        tokio::time::sleep(Duration::from_micros(dice.below(3_000))).await;
        service.kill();
        for post in posts {
            post.await.unwrap();
        }
    }
    let acknowledged = acknowledged.lock().unwrap().clone();
    let (owed, all) = owed_items(&service.store()).await;
    assert!(!all, "each item is kept singly, or the test proves nothing");
    let lost: Vec<_> = acknowledged.iter().filter(|item| !owed.contains(*item)).collect();
    assert!(lost.is_empty(), "seed {seed}: {} of {} lost: {lost:?}", lost.len(), acknowledged.len());
    assert!(acknowledged.len() > 50, "seed {seed}: only {} of {sent} were acknowledged", acknowledged.len());

    // And it does its work as if nothing had happened.
    service.sim.clear_faults();
    service.start(&[]).await;
    for alias in &aliases {
        let spec = EventSpec { in_secs: Some(-60), for_secs: Some(3_600), ..EventSpec::new("MÖT") };
        service.sim.add_event(alias, spec).unwrap();
    }
    service
        .until("every phone shows the meeting", async || {
            service.sim.pbx().all("acme").values().filter(|shown| shown.profile == "meeting").count() == USERS
        })
        .await;
}
