//! What turns that were held ahead ask of a store that is away: they may be very many, and no worker bounds them.

use std::{collections::BTreeSet, sync::Mutex};

use futures_util::{FutureExt, future::join_all};
use secrecy::SecretSlice;
use tokio::sync::Notify;

use super::{
    roster::{Office, Ruleset},
    *,
};
use crate::{
    clock::{Clock, ManualClock},
    model::{Generation, Language},
    queue::{Depth, Gathered, Tally},
    timetable::tests::rules,
    webhook::client_state::{StateKey, StateKeys},
};

const WRITE: Duration = Duration::from_secs(10);
const HOLD_AHEAD: Duration = Duration::from_secs(15);

/// More than may ask at a time.
const MANY: u64 = ASKING as u64 + 6;

/// A store that does nothing: it says so at once, or once it is told to.
#[derive(Default)]
struct Away {
    answers: Option<Notify>,
    tried: Mutex<Vec<u64>>,
    announced: Mutex<Vec<u64>>,
    asked_to_read: Mutex<Vec<u64>>,
    extended: Mutex<BTreeSet<u64>>,
}

impl Away {
    async fn answer<T>(&self) -> Result<T, StoreError> {
        if let Some(answers) = &self.answers {
            answers.notified().await;
        }
        Err(StoreError::Unavailable("away".into()))
    }
}

#[async_trait]
impl DueStore for Away {
    async fn mark(&self, _: Vec<Mark>) -> Result<Tally, StoreError> {
        Err(StoreError::Busy)
    }
    async fn lease(&self, _: usize, _: Duration) -> Result<Vec<Lease>, StoreError> {
        Err(StoreError::Busy)
    }
    async fn wait(&self) {}
    async fn extend(&self, lease: &Lease, _: Duration) -> Result<Timestamp, StoreError> {
        self.extended.lock().unwrap().insert(lease.mailbox.0);
        Ok(lease.until)
    }
    async fn begin_reading(&self, lease: &Lease) -> Result<bool, StoreError> {
        self.asked_to_read.lock().unwrap().push(lease.mailbox.0);
        self.answer().await
    }
    async fn intend(&self, lease: &Lease, _: Vec<u8>) -> Result<(), StoreError> {
        self.announced.lock().unwrap().push(lease.mailbox.0);
        self.answer().await
    }
    async fn settle(&self, lease: &Lease, _: Settled) -> Result<(), StoreError> {
        self.tried.lock().unwrap().push(lease.mailbox.0);
        self.answer().await
    }
    async fn release(&self, _: &Lease) -> Result<(), StoreError> {
        Err(StoreError::Busy)
    }
    async fn look(&self, _: MailboxId) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(None)
    }
    async fn depth(&self) -> Result<Depth, StoreError> {
        Ok(Depth::default())
    }
}

/// Nobody has a seat.
struct Empty;

#[async_trait]
impl SeatsCompanies for Empty {
    async fn bring_up(&self, _: &CompanyId, _: u64) -> Result<(), StoreError> {
        Ok(())
    }
}

fn settings() -> TurnSettings {
    let hour = SignedDuration::from_hours(1);
    let key = StateKey::new("k1", &SecretSlice::from(vec![7; 32])).unwrap();
    TurnSettings {
        hold: Duration::from_secs(90),
        hold_ahead: HOLD_AHEAD,
        write_within: WRITE,
        read_within: Duration::from_secs(240),
        sweep: SweepPlan { trusted: hour, proven: hour, unproven: hour, unwatched: hour },
        window: (hour, hour),
        read_back_every: hour,
        retry: RetryPlan {
            first: Duration::from_secs(2),
            longest: Duration::from_secs(60),
            parked: Duration::from_secs(600),
        },
        watches: WatchPlan {
            notification_url: String::new(),
            lifecycle_url: String::new(),
            keys: StateKeys::new(key, None),
            life: hour,
        },
    }
}

/// Turns whose edge is now.
fn turns(store: &Arc<Away>) -> (Arc<Turns>, Arc<ManualClock>) {
    let clock = ManualClock::at(Timestamp::UNIX_EPOCH);
    let (store, time) = (Arc::clone(store) as Arc<dyn DueStore>, Arc::clone(&clock) as SharedClock);
    let (roster, stops) = (Arc::default(), CancellationToken::new());
    (Turns::new(store, roster, Arc::new(Empty), time, settings(), stops), clock)
}

fn leases(clock: &ManualClock) -> Vec<Lease> {
    let lease = |mailbox| Lease {
        mailbox: MailboxId(mailbox),
        company: "acme".parse().unwrap(),
        revision: 1,
        generation: Generation(1),
        until: clock.now() + SignedDuration::try_from(HOLD_AHEAD).unwrap(),
        gathered: Gathered::default(),
        reads: false,
        ahead: Some(clock.now()),
        state: Vec::new(),
        intent: None,
    };
    (0..MANY).map(lease).collect()
}

fn seat() -> Seat {
    let office = Office {
        company: "acme".parse().unwrap(),
        revision: 1,
        language: Language::Sv,
        common: Arc::new(Ruleset::new(rules()).unwrap()),
        integration: None,
        push: Arc::default(),
        driver: None,
    };
    let extension = "201".parse().unwrap();
    Seat { office: Arc::new(office), extension, alias: None, retired: false, own: None }
}

async fn settle(turns: &Turns, lease: &Lease) -> Result<(), StoreError> {
    let standing = Standing::ahead(lease, &turns.settings);
    turns.settle(lease, Settled::Gone, &standing).await
}

#[test]
fn where_the_store_is_away_all_try_to_settle_though_they_are_more_than_may_ask_at_a_time() {
    let store = Arc::new(Away::default());
    let (turns, clock) = turns(&store);
    let leases = leases(&clock);
    let mut all = Box::pin(join_all(leases.iter().map(|lease| settle(&turns, lease))));
    for round in 1..=3 {
        assert!(all.as_mut().now_or_never().is_none());
        let mut tried = std::mem::take(&mut *store.tried.lock().unwrap());
        tried.sort_unstable();
        assert_eq!(tried, (0..MANY).collect::<Vec<_>>(), "round {round}");
        clock.advance(Duration::from_secs(1));
    }
    clock.advance(HOLD_AHEAD);
    // None goes on longer than its lease.
    let outcomes = all.now_or_never().unwrap();
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Err(StoreError::Unavailable(_)))));
}

#[test]
fn who_waits_to_be_settled_keeps_its_lease() {
    let store = Arc::new(Away { answers: Some(Notify::new()), ..Away::default() });
    let (turns, clock) = turns(&store);
    let leases = leases(&clock);
    let mut all = Box::pin(join_all(leases.iter().map(|lease| settle(&turns, lease))));
    assert!(all.as_mut().now_or_never().is_none());
    assert_eq!(store.tried.lock().unwrap().len(), ASKING, "the others wait");
    clock.advance(HOLD_AHEAD - WRITE);
    assert!(all.as_mut().now_or_never().is_none());
    let waiting: BTreeSet<_> = (ASKING as u64..MANY).collect();
    assert_eq!(*store.extended.lock().unwrap(), waiting);
}

#[test]
fn what_was_not_announced_ahead_is_announced_a_few_at_a_time_and_so_begins_what_is_read() {
    let store = Arc::new(Away { answers: Some(Notify::new()), ..Away::default() });
    let (turns, clock) = turns(&store);
    let (seat, leases) = (seat(), leases(&clock));
    let standings: Vec<_> = leases.iter().map(|lease| Standing::ahead(lease, &turns.settings)).collect();
    let begun = || {
        let of = |(lease, standing)| turns.turn(lease, &seat, MailboxState::default(), standing);
        leases.iter().zip(&standings).map(of)
    };
    let mut announce = Box::pin(join_all(begun().map(async |turn| turn.announce(Vec::new()).await)));
    assert!(announce.as_mut().now_or_never().is_none());
    assert_eq!(store.announced.lock().unwrap().len(), ASKING);
    drop(announce);
    let mut read = Box::pin(join_all(begun().map(async |turn| turn.begin_reading().await)));
    assert!(read.as_mut().now_or_never().is_none());
    assert_eq!(store.asked_to_read.lock().unwrap().len(), ASKING);
}

#[test]
fn a_lease_is_extended_before_a_write_could_not_begin_any_more_each_at_a_moment_of_its_own() {
    let settings = settings();
    let at = |mailbox| first_extension(MailboxId(mailbox), &settings);
    let (first, last) = (at(1_000), at(999));
    assert_eq!((first, last), (SignedDuration::from_secs(1), SignedDuration::from_millis(2_998)));
    let lease =
        Lease { mailbox: MailboxId(999), ..leases(&ManualClock::at(Timestamp::UNIX_EPOCH)).remove(0) };
    let standing = Standing::ahead(&lease, &settings);
    assert!(standing.lasts(Timestamp::UNIX_EPOCH + last, WRITE));
    assert!(!standing.lasts(Timestamp::UNIX_EPOCH + SignedDuration::from_secs(4), WRITE));
}
