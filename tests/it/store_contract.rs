//! The contract of a store: what the queue and the companies rely on, whatever the form.
//!
//! Each check takes a [`Bench`]: a fresh store, its clock, and a way to close and open it again. Every form of the store is
//! put under all of them ([`forms`]), and stores that are broken on purpose show that they notice ([`broken`]).

mod broken;
mod forms;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use narvaro::{
    clock::{Clock, ManualClock},
    company::trail::{Deed, JobRecord, TrailQuery},
    model::{CompanyId, Extension, ItemVersion, MailboxId},
    queue::{
        ANNOUNCE_EVERY, Duty, GONE_AFTER, Hint, Lease, Mark, Reason, Replica, ReplicaRecord, Settled,
        StoreError, Tally, Urgency,
    },
    store::Store,
};

use crate::support::items;

/// A store under test.
#[async_trait]
trait Bench: Send + Sync {
    fn store(&self) -> Arc<dyn Store>;
    fn clock(&self) -> &ManualClock;
    /// Closes the store, as an orderly stop would, and opens it again.
    async fn reopen(&mut self);
}

/// A store that several processes share.
trait SharedBench: Bench {
    /// As one more process has it; [`Bench::store`] is the first one's.
    fn beside(&self) -> Arc<dyn Store>;
}

const HOLD: Duration = Duration::from_secs(60);

fn company(name: &str) -> CompanyId {
    name.parse().unwrap()
}

fn extensions(range: std::ops::Range<u32>) -> Vec<Extension> {
    range.map(|n| n.to_string().parse().unwrap()).collect()
}

async fn apply(bench: &dyn Bench, name: &str, users: Vec<Extension>) -> Vec<MailboxId> {
    let store = bench.store();
    let applied = store.apply(&company(name), b"{}".to_vec(), users).await.unwrap();
    applied.mailboxes.iter().map(|mailbox| mailbox.id).collect()
}

async fn lease_all(bench: &dyn Bench) -> Vec<Lease> {
    bench.store().lease(100, HOLD).await.unwrap()
}

/// Works everything off that is due now and leaves `due` behind.
async fn drain(bench: &dyn Bench, due: Option<Timestamp>) {
    loop {
        let leases = lease_all(bench).await;
        if leases.is_empty() {
            return;
        }
        for lease in leases {
            settle(bench, &lease, due).await.unwrap();
        }
    }
}

async fn settle(bench: &dyn Bench, lease: &Lease, due: Option<Timestamp>) -> Result<(), StoreError> {
    let next = Settled::Next { state: b"state".to_vec(), due, urgency: Urgency::Now, to_read: None };
    bench.store().settle(lease, next).await
}

fn notification(mailbox: MailboxId, item: &str, version: Option<u64>, at: Timestamp) -> Mark {
    let hint = Hint { item: item.parse().unwrap(), version: version.map(ItemVersion::from_bits) };
    Mark { mailbox, at, reason: Reason::Notification, watch: None, hint: Some(hint) }
}

async fn mark(bench: &dyn Bench, mailbox: MailboxId, item: &str, version: Option<u64>) -> Tally {
    let mark = notification(mailbox, item, version, bench.clock().now());
    bench.store().mark(vec![mark]).await.unwrap()
}

async fn a_mark_makes_its_mailbox_due_with_reason_and_item(bench: Box<dyn Bench>) {
    let mailbox = apply(&*bench, "acme", extensions(201..202)).await[0];
    drain(&*bench, None).await;
    mark(&*bench, mailbox, "item", None).await;
    let leases = lease_all(&*bench).await;
    assert_eq!(leases.len(), 1);
    assert_eq!(leases[0].mailbox, mailbox);
    assert!(leases[0].gathered.reasons.contains(Reason::Notification));
    assert_eq!(items(&leases[0].gathered), ["item"]);
    assert_eq!(leases[0].state, b"state");
}

async fn i1_what_was_marked_survives_a_stop_until_it_is_settled(mut bench: Box<dyn Bench>) {
    let mailboxes = apply(&*bench, "acme", extensions(201..204)).await;
    drain(&*bench, None).await;
    mark(&*bench, mailboxes[0], "waiting", None).await;
    mark(&*bench, mailboxes[1], "leased", None).await;
    let _taken = lease_all(&*bench).await;
    mark(&*bench, mailboxes[2], "after", None).await;
    bench.reopen().await;
    drain_and_expect(
        &*bench,
        &[(mailboxes[0], "waiting"), (mailboxes[1], "leased"), (mailboxes[2], "after")],
    )
    .await;
    bench.reopen().await;
    let again = bench.store().lease(100, HOLD).await.unwrap();
    assert!(again.iter().all(|lease| !lease.gathered.reasons.contains(Reason::Notification)));
}

async fn drain_and_expect(bench: &dyn Bench, expected: &[(MailboxId, &str)]) {
    let mut found = BTreeSet::new();
    loop {
        let leases = lease_all(bench).await;
        if leases.is_empty() {
            break;
        }
        for lease in leases {
            for hint in &lease.gathered.hints {
                found.insert((lease.mailbox, hint.item.to_string()));
            }
            settle(bench, &lease, None).await.unwrap();
        }
    }
    let expected: BTreeSet<_> =
        expected.iter().map(|(mailbox, item)| (*mailbox, (*item).to_owned())).collect();
    assert_eq!(found, expected);
}

async fn a_mailbox_is_leased_once_at_a_time_and_a_mark_meanwhile_comes_after(bench: Box<dyn Bench>) {
    let mailbox = apply(&*bench, "acme", extensions(201..202)).await[0];
    let first = lease_all(&*bench).await.remove(0);
    mark(&*bench, mailbox, "meanwhile", None).await;
    assert!(lease_all(&*bench).await.is_empty());
    settle(&*bench, &first, None).await.unwrap();
    let second = lease_all(&*bench).await.remove(0);
    assert_eq!(items(&second.gathered), ["meanwhile"]);
    assert!(second.generation > first.generation);
}

async fn i3_a_lease_that_ran_out_can_neither_announce_a_write_nor_settle(bench: Box<dyn Bench>) {
    apply(&*bench, "acme", extensions(201..202)).await;
    let late = lease_all(&*bench).await.remove(0);
    bench.clock().advance(HOLD + Duration::from_millis(1));
    let store = bench.store();
    assert!(matches!(store.intend(&late, vec![1]).await, Err(StoreError::LeaseLost { .. })));
    assert!(matches!(settle(&*bench, &late, None).await, Err(StoreError::LeaseLost { .. })));
    let next = lease_all(&*bench).await.remove(0);
    assert!(next.generation > late.generation);
    assert_eq!(next.gathered, late.gathered, "what the lost lease had gathered comes again");
    assert!(matches!(settle(&*bench, &late, None).await, Err(StoreError::LeaseLost { .. })));
    assert!(matches!(store.extend(&late, HOLD).await, Err(StoreError::LeaseLost { .. })));
    assert!(matches!(store.release(&late).await, Err(StoreError::LeaseLost { .. })));
    settle(&*bench, &next, None).await.unwrap();
}

async fn an_extended_lease_stands_and_a_released_one_is_due_again_at_once(bench: Box<dyn Bench>) {
    apply(&*bench, "acme", extensions(201..202)).await;
    let lease = lease_all(&*bench).await.remove(0);
    bench.clock().advance(HOLD / 2);
    bench.store().extend(&lease, HOLD).await.unwrap();
    bench.clock().advance(HOLD / 2 + Duration::from_secs(1));
    assert!(lease_all(&*bench).await.is_empty());
    bench.store().release(&lease).await.unwrap();
    assert_eq!(lease_all(&*bench).await.remove(0).gathered, lease.gathered);
}

async fn generations_grow_across_restarts(mut bench: Box<dyn Bench>) {
    apply(&*bench, "acme", extensions(201..202)).await;
    let before = lease_all(&*bench).await.remove(0);
    bench.reopen().await;
    let after = lease_all(&*bench).await.remove(0);
    assert!(after.generation > before.generation);
}

async fn an_intent_is_seen_by_the_next_lease_until_a_turn_is_settled(mut bench: Box<dyn Bench>) {
    apply(&*bench, "acme", extensions(201..202)).await;
    let lease = lease_all(&*bench).await.remove(0);
    assert_eq!(lease.intent, None);
    bench.store().intend(&lease, b"about to".to_vec()).await.unwrap();
    bench.reopen().await;
    let lease = lease_all(&*bench).await.remove(0);
    assert_eq!(lease.intent.as_deref(), Some(b"about to".as_slice()));
    settle(&*bench, &lease, Some(bench.clock().now())).await.unwrap();
    assert_eq!(lease_all(&*bench).await.remove(0).intent, None);
}

async fn a_settled_mailbox_is_due_at_its_time_and_not_before_across_restarts_too(mut bench: Box<dyn Bench>) {
    apply(&*bench, "acme", extensions(201..202)).await;
    drain(&*bench, None).await;
    bench.reopen().await;
    let due = bench.clock().now() + SignedDuration::from_mins(10);
    drain(&*bench, Some(due)).await;
    assert!(lease_all(&*bench).await.is_empty());
    bench.clock().advance_to(due - SignedDuration::from_millis(1));
    assert!(lease_all(&*bench).await.is_empty());
    bench.clock().advance_to(due);
    let lease = lease_all(&*bench).await.remove(0);
    assert!(lease.gathered.is_empty());
    settle(&*bench, &lease, Some(due + SignedDuration::from_mins(1))).await.unwrap();
    bench.reopen().await;
    drain(&*bench, None).await;
}

async fn waiting_ends_with_a_mark_and_with_the_time(bench: Box<dyn Bench>) {
    let mailbox = apply(&*bench, "acme", extensions(201..202)).await[0];
    let due = bench.clock().now() + SignedDuration::from_mins(1);
    drain(&*bench, Some(due)).await;
    let store = bench.store();
    let waiting = tokio::task::spawn(async move { store.wait().await });
    mark(&*bench, mailbox, "wakes", None).await;
    tokio::time::timeout(Duration::from_secs(10), waiting).await.unwrap().unwrap();
    drain(&*bench, Some(due)).await;
    let store = bench.store();
    let waiting = tokio::task::spawn(async move { store.wait().await });
    bench.clock().advance_to(due);
    tokio::time::timeout(Duration::from_secs(10), waiting).await.unwrap().unwrap();
}

async fn the_same_version_again_is_a_duplicate_and_another_version_is_not(bench: Box<dyn Bench>) {
    let mailbox = apply(&*bench, "acme", extensions(201..202)).await[0];
    drain(&*bench, None).await;
    assert_eq!(mark(&*bench, mailbox, "item", Some(1)).await.marked, 1);
    drain(&*bench, None).await;
    assert_eq!(mark(&*bench, mailbox, "item", Some(1)).await.duplicate, 1);
    assert!(lease_all(&*bench).await.is_empty());
    assert_eq!(mark(&*bench, mailbox, "item", Some(2)).await.marked, 1);
    assert_eq!(lease_all(&*bench).await.len(), 1);
}

async fn i9_marks_are_counted_as_marked_coalesced_duplicate_or_unknown(bench: Box<dyn Bench>) {
    let mailbox = apply(&*bench, "acme", extensions(201..202)).await[0];
    drain(&*bench, None).await;
    assert_eq!(mark(&*bench, mailbox, "item", None).await.marked, 1);
    assert_eq!(mark(&*bench, mailbox, "item", None).await.coalesced, 1);
    assert_eq!(mark(&*bench, MailboxId(9_999), "item", None).await.unknown, 1);
    assert_eq!(mark(&*bench, mailbox, "other", Some(1)).await.marked, 1);
    assert_eq!(mark(&*bench, mailbox, "other", Some(1)).await.duplicate, 1);
}

async fn i9_of_many_marks_in_one_step_each_is_counted_and_what_is_new_gets_to_its_mailbox(
    bench: Box<dyn Bench>,
) {
    let mailboxes = apply(&*bench, "acme", extensions(201..203)).await;
    drain(&*bench, None).await;
    let now = bench.clock().now();
    let of = |mailbox, item, version| notification(mailbox, item, version, now);
    let first = vec![of(mailboxes[0], "seen", Some(1))];
    assert_eq!(bench.store().mark(first).await.unwrap().marked, 1);
    drain(&*bench, None).await;
    let marks = vec![
        of(mailboxes[0], "seen", Some(1)),
        of(mailboxes[1], "new", Some(1)),
        of(MailboxId(9_999), "new", Some(1)),
        of(mailboxes[1], "new", Some(1)),
        of(mailboxes[1], "other", None),
        of(mailboxes[1], "new", Some(2)),
    ];
    let Tally { marked, duplicate, coalesced, unknown } = bench.store().mark(marks).await.unwrap();
    assert_eq!((marked + duplicate, coalesced, unknown), (5, 0, 1));
    assert!((1..=2).contains(&duplicate), "the one that is twice in the step may be noticed, or be gathered");
    let leases = lease_all(&*bench).await;
    assert_eq!(leases.iter().map(|lease| lease.mailbox).collect::<Vec<_>>(), [mailboxes[1]]);
    let mut items: Vec<_> =
        leases[0].gathered.hints.iter().map(|hint| (hint.item.as_str(), hint.version.is_some())).collect();
    items.sort_unstable();
    assert_eq!(
        items,
        [("new", false), ("other", false)],
        "of two versions nobody knows which is the newer one"
    );
}

async fn the_urgent_comes_before_the_old(bench: Box<dyn Bench>) {
    let first = apply(&*bench, "acme", extensions(201..202)).await[0];
    let other = apply(&*bench, "beta", extensions(201..202)).await[0];
    drain(&*bench, None).await;
    let store = bench.store();
    store.mark(vec![Mark::new(first, bench.clock().now(), Reason::RenewAsked)]).await.unwrap();
    bench.clock().advance(Duration::from_secs(5));
    mark(&*bench, other, "item", None).await;
    let order: Vec<_> = lease_all(&*bench).await.iter().map(|lease| lease.mailbox).collect();
    assert_eq!(order, [other, first]);
}

async fn i10_one_company_takes_no_more_than_its_share_of_leases(bench: Box<dyn Bench>) {
    apply(&*bench, "acme", extensions(201..211)).await;
    let small = apply(&*bench, "beta", extensions(201..202)).await[0];
    let leases = lease_all(&*bench).await;
    assert_eq!(leases.len(), 3, "two for the large company, one for the small");
    assert!(leases.iter().any(|lease| lease.mailbox == small));
    settle(&*bench, leases.iter().find(|lease| lease.mailbox != small).unwrap(), None).await.unwrap();
    assert_eq!(lease_all(&*bench).await.len(), 1);
}

/// Ends a turn that found no room to read.
async fn put_off(bench: &dyn Bench, lease: &Lease, due: Option<Timestamp>) {
    let next = Settled::Next {
        state: b"shown".to_vec(),
        due,
        urgency: Urgency::Now,
        to_read: Some(Urgency::Upkeep),
    };
    bench.store().settle(lease, next).await.unwrap();
}

async fn i6_i10_leases_that_read_leave_room_for_those_that_show(bench: Box<dyn Bench>) {
    let store = bench.store();
    apply(&*bench, "acme", extensions(201..211)).await;
    for lease in lease_all(&*bench).await {
        assert!(store.begin_reading(&lease).await.unwrap());
    }
    let more = lease_all(&*bench).await;
    assert_eq!(more.len(), 2, "the company's share for showing is free again");
    assert!(!store.begin_reading(&more[0]).await.unwrap(), "its share for reading is not");
    apply(&*bench, "beta", extensions(201..203)).await;
    let others = lease_all(&*bench).await;
    assert!(store.begin_reading(&others[0]).await.unwrap(), "another company has its own");
    assert!(!store.begin_reading(&others[1]).await.unwrap(), "and all together have no more than theirs");
}

async fn what_waits_for_room_to_read_is_handed_out_once_there_is_some_the_longest_waiting_first(
    bench: Box<dyn Bench>,
) {
    let store = bench.store();
    let mailboxes = apply(&*bench, "acme", extensions(201..205)).await;
    let reading = lease_all(&*bench).await;
    for lease in &reading {
        assert!(store.begin_reading(lease).await.unwrap());
    }
    let waiting = lease_all(&*bench).await;
    for lease in &waiting {
        put_off(&*bench, lease, None).await;
        bench.clock().advance(Duration::from_secs(1));
    }
    assert!(lease_all(&*bench).await.is_empty());
    assert_eq!(store.depth().await.unwrap().due, 2, "they are not forgotten");
    // Handed out for a mark, it does not overtake who waits, and keeps its place.
    mark(&*bench, waiting[0].mailbox, "item", None).await;
    let marked = lease_all(&*bench).await.remove(0);
    assert_eq!((marked.mailbox, marked.reads), (waiting[0].mailbox, false));
    settle(&*bench, &reading[0], None).await.unwrap();
    assert!(!store.begin_reading(&marked).await.unwrap());
    put_off(&*bench, &marked, None).await;
    let next = lease_all(&*bench).await;
    assert_eq!(next.len(), 1, "room for one");
    assert_eq!((next[0].mailbox, next[0].reads), (waiting[0].mailbox, true));
    assert!(store.begin_reading(&next[0]).await.unwrap(), "it reads already");
    store.release(&next[0]).await.unwrap();
    assert_eq!(lease_all(&*bench).await.len(), 2, "the other one, and what was handed back");
    assert_eq!(mailboxes.len(), store.depth().await.unwrap().mailboxes);
}

async fn i6_what_waits_for_room_to_read_is_handed_out_at_its_edge(bench: Box<dyn Bench>) {
    let store = bench.store();
    apply(&*bench, "acme", extensions(201..204)).await;
    for lease in lease_all(&*bench).await {
        assert!(store.begin_reading(&lease).await.unwrap());
    }
    let lease = lease_all(&*bench).await.remove(0);
    let edge = bench.clock().now() + SignedDuration::from_secs(10);
    put_off(&*bench, &lease, Some(edge)).await;
    assert!(lease_all(&*bench).await.is_empty());
    bench.clock().advance_to(edge);
    assert_eq!(store.depth().await.unwrap().due, 1);
    let again = lease_all(&*bench).await;
    assert_eq!((again[0].mailbox, again[0].reads), (lease.mailbox, false));
}

async fn i13_a_draft_affects_nothing_until_it_is_applied(mut bench: Box<dyn Bench>) {
    let store = bench.store();
    store.save_draft(&company("acme"), Some(b"draft".to_vec())).await.unwrap();
    assert!(store.mailboxes().await.unwrap().is_empty());
    drop(store);
    bench.reopen().await;
    let store = bench.store();
    let found = store.companies().await.unwrap();
    assert_eq!(found[0].draft.as_deref(), Some(b"draft".as_slice()));
    assert_eq!(found[0].applied, None);
    assert!(store.lease(10, HOLD).await.unwrap().is_empty());
    let applied = store.apply(&company("acme"), b"live".to_vec(), extensions(201..203)).await.unwrap();
    let found = store.companies().await.unwrap();
    assert_eq!((found[0].draft.as_deref(), found[0].applied.as_deref()), (None, Some(b"live".as_slice())));
    let leases = store.lease(10, HOLD).await.unwrap();
    assert_eq!(leases.len(), 2);
    assert!(leases.iter().all(|lease| lease.revision == applied.revision));
}

fn reasons_of(leases: &[Lease]) -> Vec<(MailboxId, Vec<Reason>)> {
    let mut reasons: Vec<_> =
        leases.iter().map(|lease| (lease.mailbox, lease.gathered.reasons.iter().collect())).collect();
    reasons.sort_by_key(|(mailbox, _)| *mailbox);
    reasons
}

/// Two of `acme`, worked off; the revision of that apply.
async fn two_of_acme(bench: &dyn Bench) -> (Vec<MailboxId>, u64) {
    let applied = bench.store().apply(&company("acme"), b"{}".to_vec(), extensions(201..203)).await.unwrap();
    drain(bench, None).await;
    (applied.mailboxes.iter().map(|mailbox| mailbox.id).collect(), applied.revision)
}

async fn i13_what_is_applied_makes_its_mailboxes_due_in_the_same_step_and_leases_tell_its_revision(
    bench: Box<dyn Bench>,
) {
    let store = bench.store();
    let (mailboxes, first) = two_of_acme(&*bench).await;
    assert!(first > 0);
    let waiting = tokio::task::spawn(async move { store.wait().await });
    let store = bench.store();
    let second = store.apply(&company("acme"), b"2".to_vec(), extensions(202..203)).await.unwrap();
    tokio::time::timeout(Duration::from_secs(10), waiting).await.unwrap().unwrap();
    assert!(second.revision > first);
    let leases = lease_all(&*bench).await;
    let retired = vec![Reason::Applied, Reason::Retired];
    assert_eq!(reasons_of(&leases), [(mailboxes[0], retired), (mailboxes[1], vec![Reason::Applied])]);
    assert!(leases.iter().all(|lease| lease.revision == second.revision));
}

async fn what_becomes_known_makes_due_and_a_lease_that_was_given_before_keeps_its_revision(
    mut bench: Box<dyn Bench>,
) {
    let (mailboxes, applied) = two_of_acme(&*bench).await;
    mark(&*bench, mailboxes[0], "item", None).await;
    let before = lease_all(&*bench).await.remove(0);
    let known = bench.store().set_standing(&company("acme"), b"tenant".to_vec()).await.unwrap();
    assert!(known > applied);
    assert_eq!(before.revision, applied);
    settle(&*bench, &before, None).await.unwrap();
    let leases = lease_all(&*bench).await;
    let consent = || vec![Reason::Consent];
    assert_eq!(reasons_of(&leases), [(mailboxes[0], consent()), (mailboxes[1], consent())]);
    assert!(leases.iter().all(|lease| lease.revision == known));
    drop((before, leases));
    bench.reopen().await;
    assert!(lease_all(&*bench).await.iter().all(|lease| lease.revision == known), "after a restart too");
}

async fn a_company_is_read_with_its_mailboxes_and_its_revision_outlives_its_end(mut bench: Box<dyn Bench>) {
    let store = bench.store();
    assert_eq!(store.company(&company("acme")).await.unwrap(), None);
    store.save_draft(&company("draft"), Some(b"draft".to_vec())).await.unwrap();
    let (mailboxes, revision) = two_of_acme(&*bench).await;
    apply(&*bench, "beta", extensions(201..202)).await;
    let (record, found) = store.company(&company("acme")).await.unwrap().unwrap();
    assert_eq!((record.revision, record.applied.as_deref()), (revision, Some(&b"{}"[..])));
    assert_eq!(found.iter().map(|mailbox| mailbox.id).collect::<Vec<_>>(), mailboxes);
    let revisions = store.revisions().await.unwrap();
    assert_eq!(revisions.len(), 3);
    assert_eq!(revisions[0], (company("acme"), revision));
    assert!(revisions.contains(&(company("draft"), 0)), "a draft is no change: {revisions:?}");
    let records = store.companies().await.unwrap();
    let of_records: Vec<_> = records.into_iter().map(|record| (record.id, record.revision)).collect();
    assert_eq!(of_records, revisions);
    let empty = store.apply(&company("acme"), b"{}".to_vec(), Vec::new()).await.unwrap();
    for lease in lease_all(&*bench).await.iter().filter(|lease| lease.company == company("acme")) {
        store.settle(lease, Settled::Gone).await.unwrap();
    }
    store.forget(&company("acme")).await.unwrap();
    assert_eq!(store.company(&company("acme")).await.unwrap(), None);
    drop(store);
    bench.reopen().await;
    let again = bench.store().apply(&company("acme"), b"{}".to_vec(), Vec::new()).await.unwrap();
    assert!(again.revision > empty.revision, "nobody takes the new one for the old one");
}

/// Waits for a change behind `since` while `change` makes one; the revision afterwards.
async fn changes<F: Future<Output = ()>>(bench: &dyn Bench, change: F) -> u64 {
    let store = bench.store();
    let since = store.revision().await.unwrap();
    let waiting = tokio::task::spawn(async move { store.changed(since).await });
    change.await;
    tokio::time::timeout(Duration::from_secs(10), waiting).await.unwrap().unwrap();
    let now = bench.store().revision().await.unwrap();
    assert!(now > since);
    now
}

async fn whoever_follows_changes_is_woken_by_each_that_concerns_all_and_by_no_other(bench: Box<dyn Bench>) {
    let bench = &*bench;
    let (store, now, acme) = (bench.store(), bench.clock().now(), company("acme"));
    changes(bench, async { drop(store.apply(&acme, b"{}".to_vec(), extensions(201..202)).await.unwrap()) })
        .await;
    changes(bench, async { assert!(store.set_standing(&acme, b"tenant".to_vec()).await.unwrap() > 0) }).await;
    let job = JobRecord::new("job".into(), Vec::new());
    let opened = deed("renew", None, now);
    changes(bench, async { store.open_job(job, vec![MailboxId(1)], opened).await.unwrap() }).await;
    let cancelled = deed("cancel", None, now);
    changes(bench, async { assert!(store.cancel_job("job", cancelled).await.unwrap()) }).await;
    changes(bench, async { drop(store.apply(&acme, b"{}".to_vec(), Vec::new()).await.unwrap()) }).await;
    let lease = lease_all(bench).await.remove(0);
    changes(bench, async { store.settle(&lease, Settled::Gone).await.unwrap() }).await;
    let newest = changes(bench, async { store.forget(&acme).await.unwrap() }).await;
    // What came to pass before is not waited for.
    tokio::time::timeout(Duration::from_secs(10), store.changed(newest - 1)).await.unwrap();
    let mailbox = apply(bench, "beta", extensions(201..202)).await[0];
    let newest = store.revision().await.unwrap();
    mark(bench, mailbox, "item", None).await;
    drain(bench, None).await;
    store.save_draft(&company("beta"), Some(b"draft".to_vec())).await.unwrap();
    assert_eq!(store.revision().await.unwrap(), newest);
}

fn replica(name: &str, at: Timestamp) -> Replica {
    Replica { name: name.into(), version: "1.2.3".into(), started: at, key: "abc123".into() }
}

async fn a_replica_is_known_until_it_leaves_or_falls_silent(bench: Box<dyn Bench>) {
    let (store, start) = (bench.store(), bench.clock().now());
    assert_eq!(store.replicas().await.unwrap(), []);
    let me = replica("one", start);
    store.announce(&me).await.unwrap();
    bench.clock().advance(ANNOUNCE_EVERY);
    store.announce(&me).await.unwrap();
    let seen = bench.clock().now();
    bench.clock().advance(GONE_AFTER - Duration::from_millis(1));
    assert_eq!(store.replicas().await.unwrap(), [ReplicaRecord { replica: me.clone(), seen }]);
    bench.clock().advance(Duration::from_millis(1));
    assert_eq!(store.replicas().await.unwrap(), []);
    store.announce(&me).await.unwrap();
    assert_eq!(store.replicas().await.unwrap().len(), 1);
    store.leave().await.unwrap();
    assert_eq!(store.replicas().await.unwrap(), []);
}

async fn who_leaves_hands_back_what_is_leased(bench: Box<dyn Bench>) {
    let mailbox = apply(&*bench, "acme", extensions(201..202)).await[0];
    let left = lease_all(&*bench).await.remove(0);
    let store = bench.store();
    let waiting = tokio::task::spawn(async move { store.wait().await });
    bench.store().leave().await.unwrap();
    tokio::time::timeout(Duration::from_secs(10), waiting).await.unwrap().unwrap();
    let again = lease_all(&*bench).await.remove(0);
    assert_eq!((again.mailbox, &again.gathered), (mailbox, &left.gathered));
    assert!(again.generation > left.generation);
    assert!(matches!(settle(&*bench, &left, None).await, Err(StoreError::LeaseLost { .. })));
    settle(&*bench, &again, None).await.unwrap();
}

async fn a_duty_is_held_as_long_as_it_is_taken_hold_of(bench: Box<dyn Bench>) {
    let store = bench.store();
    for duty in Duty::ALL {
        assert!(store.hold_duty(duty, HOLD).await.unwrap());
        bench.clock().advance(HOLD / 2);
        assert!(store.hold_duty(duty, HOLD).await.unwrap());
        bench.clock().advance(HOLD * 2);
        assert!(store.hold_duty(duty, HOLD).await.unwrap(), "nobody else wanted it");
    }
}

async fn a_duty_is_one_process_s_until_it_leaves_or_falls_silent(bench: Box<dyn SharedBench>) {
    let (one, two) = (bench.store(), bench.beside());
    for duty in Duty::ALL {
        assert!(one.hold_duty(duty, HOLD).await.unwrap());
        assert!(!two.hold_duty(duty, HOLD).await.unwrap());
    }
    bench.clock().advance(HOLD / 2);
    assert!(one.hold_duty(Duty::Jobs, HOLD).await.unwrap());
    bench.clock().advance(HOLD / 2);
    assert!(two.hold_duty(Duty::Upkeep, HOLD).await.unwrap(), "the one was silent");
    assert!(!two.hold_duty(Duty::Jobs, HOLD).await.unwrap(), "of this it took hold again");
    assert!(!one.hold_duty(Duty::Upkeep, HOLD).await.unwrap());
    one.leave().await.unwrap();
    assert!(two.hold_duty(Duty::Jobs, HOLD).await.unwrap(), "at once");
    assert!(!one.hold_duty(Duty::Upkeep, HOLD).await.unwrap(), "what it had not, it has not let go");
}

async fn who_leaves_hands_back_its_own_leases_and_nobody_else_s(bench: Box<dyn SharedBench>) {
    let (one, two) = (bench.store(), bench.beside());
    one.apply(&company("acme"), b"{}".to_vec(), extensions(201..203)).await.unwrap();
    let of_one = one.lease(1, HOLD).await.unwrap().remove(0);
    let of_two = two.lease(1, HOLD).await.unwrap().remove(0);
    assert!(two.lease(1, HOLD).await.unwrap().is_empty());
    one.leave().await.unwrap();
    let again = two.lease(2, HOLD).await.unwrap();
    assert_eq!(again.len(), 1);
    assert_eq!((again[0].mailbox, &again[0].gathered), (of_one.mailbox, &of_one.gathered));
    assert!(again[0].generation > of_one.generation);
    assert!(matches!(one.intend(&of_one, vec![1]).await, Err(StoreError::LeaseLost { .. })));
    two.extend(&of_two, HOLD).await.unwrap();
}

async fn each_process_is_named_until_it_leaves(bench: Box<dyn SharedBench>) {
    let (one, two, start) = (bench.store(), bench.beside(), bench.clock().now());
    one.announce(&replica("one", start)).await.unwrap();
    two.announce(&replica("two", start)).await.unwrap();
    let names = async |store: &Arc<dyn Store>| {
        let all = store.replicas().await.unwrap();
        all.into_iter().map(|record| record.replica.name).collect::<Vec<_>>()
    };
    assert_eq!(
        (names(&one).await, names(&two).await),
        (vec!["one".to_owned(), "two".to_owned()], names(&one).await)
    );
    one.leave().await.unwrap();
    assert_eq!(names(&two).await, ["two"]);
    bench.clock().advance(GONE_AFTER);
    assert_eq!(names(&two).await, Vec::<String>::new());
}

async fn what_one_process_does_wakes_the_others(bench: Box<dyn SharedBench>) {
    let (one, two) = (bench.store(), bench.beside());
    let since = two.revision().await.unwrap();
    let (follows, works) = (Arc::clone(&two), Arc::clone(&two));
    let following = tokio::task::spawn(async move { follows.changed(since).await });
    let working = tokio::task::spawn(async move { works.wait().await });
    let applied = one.apply(&company("acme"), b"{}".to_vec(), extensions(201..202)).await.unwrap();
    for waiting in [following, working] {
        tokio::time::timeout(Duration::from_secs(10), waiting).await.unwrap().unwrap();
    }
    let lease = two.lease(1, HOLD).await.unwrap().remove(0);
    assert_eq!(lease.revision, applied.revision);
    assert_eq!(two.company(&company("acme")).await.unwrap().unwrap().0.revision, applied.revision);
    assert!(matches!(one.lease(1, HOLD).await.unwrap().as_slice(), []));
    let works = Arc::clone(&one);
    let working = tokio::task::spawn(async move { works.wait().await });
    two.release(&lease).await.unwrap();
    tokio::time::timeout(Duration::from_secs(10), working).await.unwrap().unwrap();
    assert_eq!(one.lease(1, HOLD).await.unwrap().len(), 1);
}

async fn what_was_applied_makes_due_after_a_restart_too(mut bench: Box<dyn Bench>) {
    bench.store().apply(&company("acme"), b"{}".to_vec(), extensions(201..203)).await.unwrap();
    bench.reopen().await;
    assert_eq!(bench.store().lease(10, HOLD).await.unwrap().len(), 2);
}

async fn applying_again_keeps_mailboxes_retires_those_taken_out_and_makes_all_due(bench: Box<dyn Bench>) {
    let before = apply(&*bench, "acme", extensions(201..203)).await;
    drain(&*bench, None).await;
    let store = bench.store();
    let applied = store.apply(&company("acme"), b"{}".to_vec(), extensions(202..204)).await.unwrap();
    let kept = applied.mailboxes.iter().find(|mailbox| mailbox.extension.as_str() == "202").unwrap();
    assert_eq!(kept.id, before[1]);
    let retired: Vec<_> = applied.mailboxes.iter().filter(|mailbox| mailbox.retired).collect();
    assert_eq!(retired.len(), 1);
    assert_eq!(retired[0].id, before[0]);
    let mut seen = Vec::new();
    loop {
        let leases = lease_all(&*bench).await;
        if leases.is_empty() {
            break;
        }
        for lease in leases {
            seen.push((lease.mailbox, lease.gathered.reasons));
            let settled = if lease.gathered.reasons.contains(Reason::Retired) {
                Settled::Gone
            } else {
                Settled::Next { state: vec![], due: None, urgency: Urgency::Now, to_read: None }
            };
            store.settle(&lease, settled).await.unwrap();
        }
    }
    assert_eq!(seen.len(), 3);
    assert_eq!(store.mailboxes().await.unwrap().len(), 2);
    assert_eq!(mark(&*bench, before[0], "late", None).await.unknown, 1);
    // The extension comes back: a new mailbox, never the old number.
    let again = apply(&*bench, "acme", extensions(201..204)).await;
    assert!(!again.contains(&before[0]));
}

async fn a_ticket_is_spent_once_and_stays_spent_across_a_restart(mut bench: Box<dyn Bench>) {
    let now = bench.clock().now();
    let expires = now + SignedDuration::from_mins(30);
    assert!(bench.store().spend("ticket", expires, now).await.unwrap());
    assert!(!bench.store().spend("ticket", expires, now).await.unwrap());
    bench.reopen().await;
    assert!(!bench.store().spend("ticket", expires, now).await.unwrap());
}

fn deed(what: &'static str, name: Option<&str>, at: Timestamp) -> Deed {
    Deed { at, who: "admin".into(), what, company: name.map(company), outcome: format!("{what} done") }
}

/// What the trail has, the newest first.
async fn trail(bench: &dyn Bench, query: TrailQuery) -> Vec<String> {
    let query = TrailQuery { most: 10, ..query };
    bench.store().trail(query).await.unwrap().into_iter().map(|entry| entry.what).collect()
}

async fn the_trail_keeps_the_newest_and_is_read_by_company_time_and_piece(mut bench: Box<dyn Bench>) {
    let start = bench.clock().now();
    let later = start + SignedDuration::from_secs(60);
    for (what, name, at) in [
        ("first", None, start),
        ("second", Some("acme"), start),
        ("third", Some("beta"), later),
        ("fourth", Some("acme"), later),
    ] {
        bench.store().note(deed(what, name, at)).await.unwrap();
    }
    bench.reopen().await;
    let all = TrailQuery::default();
    assert_eq!(trail(&*bench, all.clone()).await, ["fourth", "third", "second"]);
    let acme = TrailQuery { company: Some(company("acme")), ..all.clone() };
    assert_eq!(trail(&*bench, acme).await, ["fourth", "second"]);
    assert_eq!(trail(&*bench, TrailQuery { since: Some(later), ..all.clone() }).await, ["fourth", "third"]);
    let newest = bench.store().trail(TrailQuery { most: 1, ..all.clone() }).await.unwrap();
    assert_eq!((newest[0].outcome.as_str(), newest[0].at), ("fourth done", later));
    let before = TrailQuery { before: Some(newest[0].number), ..all };
    assert_eq!(trail(&*bench, before).await, ["third", "second"]);
}

async fn what_is_done_and_who_did_it_are_stored_in_one_step(bench: Box<dyn Bench>) {
    let now = bench.clock().now();
    let store = bench.store();
    let applied = deed("apply", Some("acme"), now);
    store.apply_noted(&company("acme"), b"{}".to_vec(), extensions(201..203), Some(applied)).await.unwrap();
    let consented = deed("consent", Some("acme"), now);
    store.set_standing_noted(&company("acme"), b"standing".to_vec(), Some(consented)).await.unwrap();
    assert_eq!(trail(&*bench, TrailQuery::default()).await, ["consent", "apply"]);
    assert_eq!(store.companies().await.unwrap()[0].standing.as_deref(), Some(&b"standing"[..]));
    assert_eq!(store.mailboxes().await.unwrap().len(), 2);
}

async fn a_job_goes_on_after_a_restart_with_the_mailboxes_that_it_was_not_done_with(
    mut bench: Box<dyn Bench>,
) {
    let now = bench.clock().now();
    let job = |version: u64, document: &str| JobRecord {
        version,
        ..JobRecord::new("job".into(), document.as_bytes().to_vec())
    };
    let mailboxes: Vec<MailboxId> = (1..=4).map(MailboxId).collect();
    bench.store().open_job(job(0, "0 of 4"), mailboxes, deed("renew", None, now)).await.unwrap();
    let done = vec![MailboxId(1), MailboxId(3)];
    assert!(bench.store().advance_job(job(0, "2 of 4"), done).await.unwrap());
    bench.reopen().await;
    assert_eq!(bench.store().jobs().await.unwrap(), [job(1, "2 of 4")]);
    assert_eq!(bench.store().job("job").await.unwrap(), Some(job(1, "2 of 4")));
    assert_eq!(bench.store().job("other").await.unwrap(), None);
    assert_eq!(bench.store().left_of_job("job").await.unwrap(), [MailboxId(2), MailboxId(4)]);
    let ended = job(1, "ended early");
    assert!(bench.store().close_job(ended, deed("renew_ended", None, now)).await.unwrap());
    assert_eq!(bench.store().left_of_job("job").await.unwrap(), []);
    assert_eq!(bench.store().jobs().await.unwrap(), [job(2, "ended early")]);
    assert_eq!(trail(&*bench, TrailQuery::default()).await, ["renew_ended", "renew"]);
}

async fn a_job_is_worked_off_by_one_and_ended_by_anybody(mut bench: Box<dyn Bench>) {
    let now = bench.clock().now();
    let opened = JobRecord::new("job".into(), b"0 of 2".to_vec());
    let (store, mailboxes) = (bench.store(), vec![MailboxId(1), MailboxId(2)]);
    store.open_job(opened.clone(), mailboxes.clone(), deed("renew", None, now)).await.unwrap();
    let by =
        |version: u64, document: &[u8]| JobRecord { version, document: document.to_vec(), ..opened.clone() };
    assert!(store.advance_job(by(0, b"1 of 2"), vec![MailboxId(1)]).await.unwrap());
    assert!(!store.advance_job(by(0, b"late"), vec![MailboxId(2)]).await.unwrap(), "somebody else has");
    assert!(!store.close_job(by(0, b"late"), deed("late", None, now)).await.unwrap());
    assert_eq!(store.left_of_job("job").await.unwrap(), [MailboxId(2)]);
    assert!(!store.cancel_job("other", deed("cancel", None, now)).await.unwrap());
    assert!(store.cancel_job("job", deed("cancel", None, now)).await.unwrap());
    assert!(!store.cancel_job("job", deed("again", None, now)).await.unwrap());
    drop(store);
    bench.reopen().await;
    let store = bench.store();
    let cancelled = JobRecord { cancelled: true, ..by(1, b"1 of 2") };
    assert_eq!(store.job("job").await.unwrap(), Some(cancelled));
    // Whoever works it off knew nothing of it yet.
    assert!(store.advance_job(by(1, b"1 of 2 still"), Vec::new()).await.unwrap());
    assert!(store.job("job").await.unwrap().unwrap().cancelled);
    assert!(store.close_job(by(2, b"ended"), deed("ended", None, now)).await.unwrap());
    assert!(!store.cancel_job("job", deed("cancel", None, now)).await.unwrap(), "it has ended");
    assert_eq!(trail(&*bench, TrailQuery::default()).await, ["ended", "cancel", "renew"]);
}

async fn a_hundred_ended_jobs_are_kept_and_every_one_that_is_under_way(bench: Box<dyn Bench>) {
    let now = bench.clock().now();
    for number in 0..=105 {
        let job = JobRecord::new(number.to_string(), Vec::new());
        let mailboxes = if number == 0 { vec![MailboxId(1)] } else { Vec::new() };
        bench.store().open_job(job, mailboxes, deed("renew", None, now)).await.unwrap();
    }
    let kept = bench.store().jobs().await.unwrap();
    let ends = [&kept[0], &kept[1], &kept[kept.len() - 1]].map(|job| job.id.as_str());
    assert_eq!((kept.len(), ends), (101, ["0", "6", "105"]));
}

async fn what_became_known_of_a_company_survives_an_apply(bench: Box<dyn Bench>) {
    let store = bench.store();
    store.set_standing(&company("acme"), b"tenant".to_vec()).await.unwrap();
    apply(&*bench, "acme", extensions(201..202)).await;
    assert_eq!(store.companies().await.unwrap()[0].standing.as_deref(), Some(b"tenant".as_slice()));
    store.forget(&company("acme")).await.unwrap();
    assert_eq!(store.companies().await.unwrap().len(), 1, "it still has a mailbox");
}

async fn many_marks_at_once_are_all_kept(mut bench: Box<dyn Bench>) {
    let mailboxes = apply(&*bench, "acme", extensions(1000..1050)).await;
    drain(&*bench, None).await;
    let mut tasks = tokio::task::JoinSet::new();
    for (n, mailbox) in mailboxes.iter().copied().enumerate() {
        let (store, now) = (bench.store(), bench.clock().now());
        tasks.spawn(async move {
            for k in 0..10 {
                store.mark(vec![notification(mailbox, &format!("{n}-{k}"), None, now)]).await.unwrap();
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    bench.reopen().await;
    let mut items = 0;
    loop {
        let leases = lease_all(&*bench).await;
        if leases.is_empty() {
            break;
        }
        for lease in leases {
            items += lease.gathered.hints.len();
            settle(&*bench, &lease, None).await.unwrap();
        }
    }
    assert_eq!(items, 500);
    assert_eq!(bench.store().depth().await.unwrap().due, 0);
}

/// The checks of stores that several processes share, each as a test of every such form. The first only stands in for one:
/// it holds the tests' own to the contract.
macro_rules! shared_checks {
    ($($name:ident)*) => {
        mod stand_in {
            $(#[tokio::test]
            async fn $name() {
                super::$name(super::forms::stand_in()).await;
            })*
        }

        mod shared_redis {
            $(#[tokio::test]
            async fn $name() {
                super::$name(super::forms::shared_redis().await).await;
            })*
        }
    };
}

shared_checks! {
    a_duty_is_one_process_s_until_it_leaves_or_falls_silent
    who_leaves_hands_back_its_own_leases_and_nobody_else_s
    each_process_is_named_until_it_leaves
    what_one_process_does_wakes_the_others
}

/// All checks, each as a test of every form, and by name for a store that is to fail one.
macro_rules! checks {
    ($($name:ident)*) => {
        mod embedded {
            $(#[tokio::test]
            async fn $name() {
                super::$name(super::forms::embedded()).await;
            })*
        }

        mod redis {
            $(#[tokio::test]
            async fn $name() {
                super::$name(super::forms::redis().await).await;
            })*
        }

        /// The check of that name.
        fn check(name: &str, bench: Box<dyn Bench>) -> futures_util::future::BoxFuture<'static, ()> {
            match name {
                $(stringify!($name) => Box::pin($name(bench)),)*
                _ => panic!("there is no check `{name}`"),
            }
        }
    };
}

checks! {
    a_mark_makes_its_mailbox_due_with_reason_and_item
    i1_what_was_marked_survives_a_stop_until_it_is_settled
    a_mailbox_is_leased_once_at_a_time_and_a_mark_meanwhile_comes_after
    i3_a_lease_that_ran_out_can_neither_announce_a_write_nor_settle
    an_extended_lease_stands_and_a_released_one_is_due_again_at_once
    generations_grow_across_restarts
    an_intent_is_seen_by_the_next_lease_until_a_turn_is_settled
    a_settled_mailbox_is_due_at_its_time_and_not_before_across_restarts_too
    waiting_ends_with_a_mark_and_with_the_time
    the_same_version_again_is_a_duplicate_and_another_version_is_not
    i9_marks_are_counted_as_marked_coalesced_duplicate_or_unknown
    i9_of_many_marks_in_one_step_each_is_counted_and_what_is_new_gets_to_its_mailbox
    the_urgent_comes_before_the_old
    i10_one_company_takes_no_more_than_its_share_of_leases
    i6_i10_leases_that_read_leave_room_for_those_that_show
    what_waits_for_room_to_read_is_handed_out_once_there_is_some_the_longest_waiting_first
    i6_what_waits_for_room_to_read_is_handed_out_at_its_edge
    i13_a_draft_affects_nothing_until_it_is_applied
    i13_what_is_applied_makes_its_mailboxes_due_in_the_same_step_and_leases_tell_its_revision
    what_becomes_known_makes_due_and_a_lease_that_was_given_before_keeps_its_revision
    a_company_is_read_with_its_mailboxes_and_its_revision_outlives_its_end
    whoever_follows_changes_is_woken_by_each_that_concerns_all_and_by_no_other
    a_replica_is_known_until_it_leaves_or_falls_silent
    who_leaves_hands_back_what_is_leased
    a_duty_is_held_as_long_as_it_is_taken_hold_of
    what_was_applied_makes_due_after_a_restart_too
    applying_again_keeps_mailboxes_retires_those_taken_out_and_makes_all_due
    a_ticket_is_spent_once_and_stays_spent_across_a_restart
    the_trail_keeps_the_newest_and_is_read_by_company_time_and_piece
    what_is_done_and_who_did_it_are_stored_in_one_step
    a_job_goes_on_after_a_restart_with_the_mailboxes_that_it_was_not_done_with
    a_job_is_worked_off_by_one_and_ended_by_anybody
    a_hundred_ended_jobs_are_kept_and_every_one_that_is_under_way
    what_became_known_of_a_company_survives_an_apply
    many_marks_at_once_are_all_kept
}
