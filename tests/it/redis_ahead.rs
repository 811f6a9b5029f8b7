//! Edges that are leased before they are due: what the store in Redis gives, to whom, and what takes it back.

use std::{sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use narvaro::{
    clock::{Clock, ManualClock, SharedClock},
    model::{CompanyId, Extension, MailboxId},
    queue::{AHEAD_HOLD, DueStore, Lease, Mark, Reason, Settled, Shares, StoreError, Urgency},
    store::{
        Store,
        embedded::Files,
        portable::Portable,
        redis::{AtRest, Redis, RedisSettings},
    },
};

use crate::{
    support::redis::{PLAIN, Proxy, RedisServer, link_settings},
    world::at,
};

const HOLD: Duration = Duration::from_secs(60);
const AHEAD: Duration = Duration::from_secs(30);

/// Longest wait for what comes about at once.
const LIMIT: Duration = Duration::from_secs(30);

/// A Redis, its time, and the edge that everything is about: 20 seconds ahead.
struct Place {
    server: RedisServer,
    clock: Arc<ManualClock>,
    edge: Timestamp,
}

impl Place {
    fn new() -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let edge = at("2026-11-23 09:00");
        let clock = ManualClock::at(edge - SignedDuration::from_secs(20));
        Self { server: RedisServer::start(PLAIN), clock, edge }
    }

    async fn replica(&self) -> Arc<Redis> {
        self.replica_at(&self.server.url()).await
    }

    async fn replica_at(&self, url: &str) -> Arc<Redis> {
        let prefix = "narvaro".to_owned();
        let settings =
            RedisSettings { link: link_settings(url), prefix, shares: Shares::of(64), trail_entries: 10 };
        Arc::new(Redis::open(&settings, Arc::clone(&self.clock) as SharedClock).await.unwrap())
    }

    /// A company whose mailboxes are all due at the edge.
    async fn company(&self, store: &Redis, id: &str, users: u32) -> Vec<MailboxId> {
        let id: CompanyId = id.parse().unwrap();
        let users: Vec<Extension> = (201..201 + users).map(|n| n.to_string().parse().unwrap()).collect();
        let all: &dyn Store = store;
        let applied = all.apply(&id, b"{}".to_vec(), users).await.unwrap();
        for _ in &applied.mailboxes {
            let lease = store.lease(1, HOLD).await.unwrap().remove(0);
            settle(store, &lease, Some(self.edge), Urgency::Now).await.unwrap();
        }
        applied.mailboxes.iter().map(|mailbox| mailbox.id).collect()
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Moves to so many seconds after the edge, or before it.
    fn move_to(&self, secs: f64) {
        self.clock.advance_to(self.edge + SignedDuration::try_from_secs_f64(secs).unwrap());
    }

    async fn at_rest(&self) -> AtRest {
        AtRest::open(&link_settings(&self.server.url()), "narvaro", self.server.url()).await.unwrap()
    }

    async fn assert_sound(&self) {
        assert_eq!(self.at_rest().await.faults().await.unwrap(), []);
    }
}

async fn settle(
    store: &Redis,
    lease: &Lease,
    due: Option<Timestamp>,
    urgency: Urgency,
) -> Result<(), StoreError> {
    store.settle(lease, Settled::Next { state: b"state".to_vec(), due, urgency, to_read: None }).await
}

async fn ahead(store: &Redis) -> Vec<Lease> {
    store.lease_ahead(100, AHEAD, AHEAD_HOLD, &[]).await.unwrap()
}

async fn one_ahead(store: &Redis) -> Lease {
    let mut leases = ahead(store).await;
    assert_eq!(leases.len(), 1, "{leases:?}");
    leases.remove(0)
}

async fn due_now(store: &Redis) -> Vec<Lease> {
    store.lease(100, HOLD).await.unwrap()
}

async fn within<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(LIMIT, what).await.unwrap()
}

fn is_lost<T>(outcome: Result<T, StoreError>) -> bool {
    matches!(outcome, Err(StoreError::LeaseLost { .. }))
}

#[tokio::test]
async fn i3_an_edge_is_leased_ahead_to_one_and_to_nobody_else_before_at_or_after_its_instant() {
    let place = Place::new();
    let (one, other) = (place.replica().await, place.replica().await);
    let mailbox = place.company(&one, "acme", 1).await[0];
    let lease = one_ahead(&one).await;
    assert_eq!((lease.mailbox, lease.ahead), (mailbox, Some(place.edge)));
    assert_eq!(lease.until, place.edge + SignedDuration::try_from(AHEAD_HOLD).unwrap());
    assert_eq!(lease.state, b"state");
    place.assert_sound().await;
    for secs in [-20.0, 0.0, 9.0] {
        place.move_to(secs);
        for replica in [&one, &other] {
            assert!(ahead(replica).await.is_empty() && due_now(replica).await.is_empty(), "at {secs}");
        }
    }
    one.intend(&lease, b"announced".to_vec()).await.unwrap();
    let until = one.extend(&lease, HOLD).await.unwrap();
    assert_eq!(until, place.now() + SignedDuration::try_from(HOLD).unwrap());
    place.move_to(30.0);
    assert!(due_now(&other).await.is_empty(), "it is held like any other lease from then on");
    let next = place.now() + SignedDuration::from_hours(1);
    settle(&one, &lease, Some(next), Urgency::Now).await.unwrap();
    assert_eq!(one.depth().await.unwrap().next, Some(next));
    place.assert_sound().await;
}

#[tokio::test]
async fn only_what_is_urgent_and_comes_soon_is_leased_ahead_and_nothing_of_companies_that_have_their_share() {
    let place = Place::new();
    let store = place.replica().await;
    place.company(&store, "acme", 3).await;
    let beta = place.company(&store, "beta", 2).await;
    let full: [CompanyId; 1] = ["acme".parse().unwrap()];
    let soon = SignedDuration::from_secs(5);
    let not_yet = store.lease_ahead(100, soon.unsigned_abs(), AHEAD_HOLD, &[]).await.unwrap();
    assert!(not_yet.is_empty(), "{not_yet:?}");
    let leases = store.lease_ahead(1, AHEAD, AHEAD_HOLD, &full).await.unwrap();
    assert_eq!(leases.iter().map(|lease| lease.mailbox).collect::<Vec<_>>(), [beta[0]]);
    settle(&store, &leases[0], Some(place.edge), Urgency::Upkeep).await.unwrap();
    let leases = store.lease_ahead(100, AHEAD, AHEAD_HOLD, &full).await.unwrap();
    assert_eq!(leases.iter().map(|lease| lease.mailbox).collect::<Vec<_>>(), [beta[1]]);
    assert_eq!(ahead(&store).await.len(), 3, "those that were passed over");
    place.move_to(0.0);
    assert_eq!(due_now(&store).await.len(), 1, "upkeep, when it is due");
    place.assert_sound().await;
}

#[tokio::test]
async fn a_company_of_which_no_more_is_taken_hides_what_lies_far_behind_it_and_the_store_goes_on() {
    let place = Place::new();
    let store = place.replica().await;
    place.company(&store, "acme", 40).await;
    let hidden = place.company(&store, "beta", 1).await[0];
    let full = ["acme".parse().unwrap()];
    let taken = within(store.lease_ahead(1, AHEAD, AHEAD_HOLD, &full)).await.unwrap();
    assert!(taken.is_empty(), "so many are not gone through: {taken:?}");
    place.move_to(0.0);
    let due = within(due_now(&store)).await;
    assert!(due.iter().any(|lease| lease.mailbox == hidden), "it is given out when it is due");
    place.assert_sound().await;
}

#[tokio::test]
async fn i9_a_turn_that_was_given_up_is_handed_back_by_itself_and_what_others_hold_stays() {
    let place = Place::new();
    let (one, other) = (place.replica().await, place.replica().await);
    let mailboxes = place.company(&one, "acme", 3).await;
    let held = other.lease_ahead(1, AHEAD, AHEAD_HOLD, &[]).await.unwrap().remove(0);
    place.move_to(0.0);
    let leases = due_now(&one).await;
    assert_eq!(leases.len(), mailboxes.len() - 1);
    one.abandon(leases[0].mailbox, leases[0].generation);
    settle(&one, &leases[1], None, Urgency::Now).await.unwrap();
    one.abandon(leases[1].mailbox, leases[1].generation);
    let again = due_now(&one).await;
    assert_eq!(again.iter().map(|lease| lease.mailbox).collect::<Vec<_>>(), [leases[0].mailbox]);
    assert!(is_lost(settle(&one, &leases[0], None, Urgency::Now).await), "i3");
    settle(&other, &held, None, Urgency::Now).await.unwrap();
    place.assert_sound().await;
}

#[tokio::test]
async fn what_is_marked_before_the_edge_recalls_the_lease_and_another_turn_follows_at_once() {
    let place = Place::new();
    let (one, other) = (place.replica().await, place.replica().await);
    let mailbox = place.company(&one, "acme", 1).await[0];
    let lease = one_ahead(&one).await;
    let after = Mark::new(mailbox, place.edge + SignedDuration::from_secs(1), Reason::Asked);
    other.mark(vec![after]).await.unwrap();
    let marks = || vec![Mark::new(mailbox, place.now(), Reason::Notification)];
    other.mark(marks()).await.unwrap();
    other.mark(marks()).await.unwrap();
    assert_eq!(within(one.recalled()).await, [(lease.mailbox, lease.generation)]);
    place.assert_sound().await;
    assert!(due_now(&other).await.is_empty(), "one turn at a time");
    one.intend(&lease, b"in vain".to_vec()).await.unwrap();
    one.release(&lease).await.unwrap();
    let again = due_now(&other).await.remove(0);
    assert!(again.generation > lease.generation && again.ahead.is_none());
    assert!(again.gathered.reasons.contains(Reason::Notification));
    assert_eq!(again.intent, None, "what was announced in vain is not taken for a write");
    assert!(is_lost(one.intend(&lease, b"late".to_vec()).await), "i3");
    settle(&other, &again, Some(place.edge), Urgency::Now).await.unwrap();
    assert_eq!(one_ahead(&other).await.mailbox, mailbox, "and its edge is held again");
    tokio::select! {
        biased;
        again = one.recalled() => panic!("it was told already: {again:?}"),
        // Over the same connection, which answers in order.
        () = async { one.depth().await.unwrap(); } => {}
    }
}

#[tokio::test]
async fn an_apply_recalls_what_is_held_of_its_company() {
    let place = Place::new();
    let (one, other) = (place.replica().await, place.replica().await);
    place.company(&one, "acme", 2).await;
    place.company(&one, "beta", 1).await;
    let held = ahead(&one).await;
    assert_eq!(held.len(), 3);
    let all: &dyn Store = &*other;
    all.apply(&"acme".parse().unwrap(), b"{}".to_vec(), vec!["201".parse().unwrap()]).await.unwrap();
    let mut recalled = within(one.recalled()).await;
    recalled.sort_unstable();
    let of_acme = held.iter().filter(|lease| lease.company.as_str() == "acme");
    let mut of_acme: Vec<_> = of_acme.map(|lease| (lease.mailbox, lease.generation)).collect();
    of_acme.sort_unstable();
    assert_eq!(recalled, of_acme);
}

#[tokio::test]
async fn a_recall_that_was_told_while_nobody_heard_is_read_later() {
    let place = Place::new();
    let proxy = Proxy::to(place.server.port).await;
    let one = place.replica_at(&format!("redis://127.0.0.1:{}", proxy.port)).await;
    let other = place.replica().await;
    let mailbox = place.company(&other, "acme", 1).await[0];
    let lease = one_ahead(&one).await;
    proxy.cut();
    other.mark(vec![Mark::new(mailbox, place.now(), Reason::Notification)]).await.unwrap();
    assert_eq!(within(one.recalled()).await, [(lease.mailbox, lease.generation)]);
}

#[tokio::test]
async fn where_the_holder_was_killed_the_edge_is_late_by_the_short_hold_and_no_more() {
    let place = Place::new();
    let (killed, other) = (place.replica().await, place.replica().await);
    let mailbox = place.company(&killed, "acme", 1).await[0];
    let lease = one_ahead(&killed).await;
    killed.intend(&lease, b"announced".to_vec()).await.unwrap();
    place.move_to(AHEAD_HOLD.as_secs_f64() - 0.001);
    assert!(due_now(&other).await.is_empty());
    let waits = tokio::spawn({
        let other = Arc::clone(&other);
        async move {
            loop {
                other.wait().await;
                if let Some(lease) = due_now(&other).await.pop() {
                    return lease;
                }
            }
        }
    });
    place.move_to(AHEAD_HOLD.as_secs_f64());
    let again = within(waits).await.unwrap();
    assert_eq!((again.mailbox, again.intent.as_deref()), (mailbox, Some(&b"announced"[..])));
    assert!(is_lost(settle(&killed, &lease, None, Urgency::Now).await), "i3");
    place.assert_sound().await;
}

#[tokio::test]
async fn what_is_handed_back_before_its_edge_is_due_when_it_was_and_taken_ahead_by_another() {
    let place = Place::new();
    let (one, other) = (place.replica().await, place.replica().await);
    let mailbox = place.company(&one, "acme", 1).await[0];
    assert!(ahead(&other).await.len() == 1);
    // As whoever stops does, with what was on its way to it.
    (&*other as &dyn Store).leave().await.unwrap();
    assert!(due_now(&one).await.is_empty(), "not before");
    let lease = one_ahead(&one).await;
    one.release(&lease).await.unwrap();
    assert_eq!(one.depth().await.unwrap().due, 0);
    let lease = one_ahead(&other).await;
    assert_eq!((lease.mailbox, lease.ahead), (mailbox, Some(place.edge)));
    place.assert_sound().await;
}

#[tokio::test]
async fn a_lease_ahead_whose_answer_got_lost_is_handed_back() {
    let place = Place::new();
    let proxy = Proxy::to(place.server.port).await;
    let direct = place.replica().await;
    let mailbox = place.company(&direct, "acme", 1).await[0];
    let store = place.replica_at(&format!("redis://127.0.0.1:{}", proxy.port)).await;
    assert!(due_now(&store).await.is_empty());
    place.server.stop();
    assert!(store.lease_ahead(1, AHEAD, AHEAD_HOLD, &[]).await.is_err());
    proxy.cut();
    place.server.go_on();
    let taken = async {
        loop {
            if let Some(lease) = store.lease_ahead(1, AHEAD, AHEAD_HOLD, &[]).await.unwrap_or_default().pop()
            {
                return lease;
            }
        }
    };
    assert_eq!(within(taken).await.mailbox, mailbox);
}

#[tokio::test]
async fn who_waits_for_edges_is_woken_when_one_comes_near_and_when_a_nearer_one_is_told_of() {
    let place = Place::new();
    let (one, other) = (place.replica().await, place.replica().await);
    let mailbox = place.company(&one, "acme", 1).await[0];
    let lease = one_ahead(&one).await;
    let far = place.edge + SignedDuration::from_hours(1);
    settle(&one, &lease, Some(far), Urgency::Now).await.unwrap();
    let waits = |store: &Arc<Redis>| {
        let store = Arc::clone(store);
        tokio::spawn(async move {
            loop {
                // A new connection wakes too.
                store.wait_ahead(AHEAD).await;
                let leases = ahead(&store).await;
                if !leases.is_empty() {
                    return leases;
                }
            }
        })
    };
    assert!(ahead(&other).await.is_empty());
    let woken = waits(&other);
    place.clock.advance_to(far - SignedDuration::try_from(AHEAD).unwrap());
    let lease = within(woken).await.unwrap().remove(0);
    assert_eq!((lease.mailbox, lease.ahead), (mailbox, Some(far)));

    settle(&other, &lease, Some(far + SignedDuration::from_hours(1)), Urgency::Now).await.unwrap();
    assert!(ahead(&one).await.is_empty());
    let woken = waits(&one);
    other.mark(vec![Mark::new(mailbox, place.now(), Reason::Asked)]).await.unwrap();
    let turn = due_now(&other).await.remove(0);
    let near = place.now() + SignedDuration::from_secs(10);
    settle(&other, &turn, Some(near), Urgency::Now).await.unwrap();
    assert_eq!(within(woken).await.unwrap()[0].ahead, Some(near));
}

#[tokio::test]
async fn what_is_held_ahead_counts_as_leased_from_its_edge_on() {
    let place = Place::new();
    let store = place.replica().await;
    place.company(&store, "acme", 2).await;
    let before = store.depth().await.unwrap();
    assert_eq!((before.due, before.leased, before.next), (0, 0, Some(place.edge)));
    let leases = ahead(&store).await;
    assert_eq!(store.depth().await.unwrap(), before);
    place.move_to(0.0);
    let depth = store.depth().await.unwrap();
    assert_eq!((depth.due, depth.leased, depth.next), (0, 2, None));
    for lease in &leases {
        settle(&store, lease, None, Urgency::Now).await.unwrap();
    }
    assert_eq!(store.depth().await.unwrap().leased, 0);
}

#[tokio::test]
async fn what_a_process_held_ahead_when_it_was_killed_is_copied_as_due_at_its_edge() {
    let place = Place::new();
    let store = place.replica().await;
    place.company(&store, "acme", 2).await;
    assert_eq!(ahead(&store).await.len(), 2);
    drop(store);
    let from = place.at_rest().await;
    let folder = tempfile::tempdir().unwrap();
    let files = Files::create(&folder.path().join("a.db")).unwrap();
    narvaro::store::copy(&from, &files, place.now(), &mut |_| {}).await.unwrap();
    let mailboxes = files.mailboxes_after(None, 10).await.unwrap();
    assert!(mailboxes.iter().all(|mailbox| mailbox.due == Some(place.edge)), "{mailboxes:?}");
    let server = RedisServer::start(PLAIN);
    let there = AtRest::open(&link_settings(&server.url()), "narvaro", server.url()).await.unwrap();
    narvaro::store::copy(&files, &there, place.now(), &mut |_| {}).await.unwrap();
    assert_eq!(there.faults().await.unwrap(), []);
}
