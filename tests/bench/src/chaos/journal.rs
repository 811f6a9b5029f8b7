//! What the simulator's journal proves: what was acknowledged, in which order phones were told, and that no two replicas had
//! one mailbox at a time.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    time::Duration,
};

use anyhow::{Context, ensure};
use jiff::{SignedDuration, Timestamp};
use narvaro_sim::{DeliveryAttempt, DeliveryOutcome, Entry, GraphCall, PbxWrite, Record, Sim};

use super::{faults::Ending, town::Town};

/// How long a call is remembered, to be held against those of other replicas.
const REMEMBERED: SignedDuration = SignedDuration::from_secs(60);

/// The journal has whole milliseconds: by so much a call may seem longer than it was.
const ROUNDED: SignedDuration = SignedDuration::from_millis(2);

/// How long after it was woken a replica may not know yet that its leases have ended.
const WAKES_FOR: SignedDuration = SignedDuration::from_secs(2);

/// A request about a mailbox to Graph.
struct Call {
    replica: usize,
    from: Timestamp,
    to: Timestamp,
}

/// What a mailbox has been through.
#[derive(Default)]
struct Seen {
    calls: VecDeque<Call>,
    /// Generation of the newest write that the PBX has acknowledged.
    acknowledged: u64,
    mailbox: Option<u64>,
    /// When a change was acknowledged that the phone does not show yet.
    waiting_since: Option<Timestamp>,
}

/// Everything that is counted.
#[derive(Default)]
pub(super) struct Findings {
    /// POSTs by what came of them.
    pub(super) posts: BTreeMap<String, usize>,
    pub(super) acknowledged: usize,
    pub(super) discarded: usize,
    pub(super) notifications: usize,
    pub(super) answers: Vec<Duration>,
    pub(super) writes: usize,
    pub(super) writes_failed: usize,
    pub(super) graph_calls: usize,
    pub(super) calls_of: BTreeMap<usize, usize>,
    /// From an acknowledgement to the next write for that phone.
    pub(super) took: Vec<Duration>,
    pub(super) overtaken: Vec<String>,
    pub(super) unnamed: usize,
    pub(super) overlaps: Vec<String>,
    pub(super) woken: usize,
    pub(super) cut_off: usize,
}

/// Follows the journal.
pub(super) struct Watch {
    last: u64,
    seen: Vec<Seen>,
    of_subscription: HashMap<String, usize>,
    /// When which replica was woken after it had been stopped.
    pub(super) wakings: Vec<(usize, Timestamp)>,
    /// When which replica was told to stop: it hands its mailboxes back and hears out no reading that is under way, which
    /// Graph does not notice.
    pub(super) endings: Vec<Ending>,
    /// What the phone shows, by mailbox.
    pub(super) found: Findings,
}

impl Watch {
    pub(super) fn from_now(sim: &Sim, town: &Town) -> Self {
        let mut watch = Self {
            last: sim.journal().last_seq(),
            seen: town.mailboxes.iter().map(|_| Seen::default()).collect(),
            of_subscription: HashMap::new(),
            wakings: Vec::new(),
            endings: Vec::new(),
            found: Findings::default(),
        };
        watch.learn_subscriptions(sim, town);
        watch
    }

    fn learn_subscriptions(&mut self, sim: &Sim, town: &Town) {
        let known = sim.subscriptions().into_iter();
        self.of_subscription
            .extend(known.filter_map(|known| Some((known.id, *town.by_user.get(&known.user)?))));
    }

    /// Takes in what is new.
    pub(super) fn look(&mut self, sim: &Sim, town: &Town) -> anyhow::Result<()> {
        let entries = sim.journal().since(self.last);
        if let Some(first) = entries.first() {
            ensure!(first.seq == self.last + 1, "the journal was too short: entries were lost");
        }
        for entry in entries {
            self.last = entry.seq;
            self.note(&entry, sim, town)?;
        }
        Ok(())
    }

    fn note(&mut self, entry: &Entry, sim: &Sim, town: &Town) -> anyhow::Result<()> {
        match &entry.record {
            Record::Delivery(attempt) if !attempt.lifecycle => self.note_post(attempt, entry.at, sim, town),
            Record::Graph(call) => self.note_call(call, entry.at, town),
            Record::Pbx(write) => self.note_write(write, entry.at, town)?,
            Record::Notified { item, .. } if !item.is_empty() => self.found.notifications += 1,
            _ => {}
        }
        Ok(())
    }

    fn note_post(&mut self, attempt: &DeliveryAttempt, at: Timestamp, sim: &Sim, town: &Town) {
        let what = match (attempt.status, &attempt.error) {
            (Some(status), _) => status.to_string(),
            (None, Some(error)) if error == "timed out" => "no answer in time".to_owned(),
            (None, _) => "connection failed".to_owned(),
        };
        *self.found.posts.entry(what).or_default() += 1;
        match attempt.outcome {
            DeliveryOutcome::Delivered => {}
            DeliveryOutcome::Discarded => {
                self.found.discarded += attempt.notifications.len();
                return;
            }
            DeliveryOutcome::Retry => return,
        }
        self.found.acknowledged += attempt.notifications.len();
        self.found.answers.push(Duration::from_millis(attempt.took_ms));
        for subscription in &attempt.subscriptions {
            if !self.of_subscription.contains_key(subscription) {
                self.learn_subscriptions(sim, town);
            }
            if let Some(place) = self.of_subscription.get(subscription)
                && !town.is_right(sim, *place)
            {
                self.seen[*place].waiting_since.get_or_insert(at);
            }
        }
    }

    fn note_write(&mut self, write: &PbxWrite, at: Timestamp, town: &Town) -> anyhow::Result<()> {
        let phone = (write.company.clone(), write.extension.clone());
        let place = *town.by_phone.get(&phone).with_context(|| format!("nobody has the phone {phone:?}"))?;
        let seen = &mut self.seen[place];
        if !write.applied {
            self.found.writes_failed += 1;
            return Ok(());
        }
        self.found.writes += 1;
        // `MAILBOX-GENERATION-NUMBER`
        let names = write.request_id.as_deref().map(|id| id.split('-').map(str::parse::<u64>));
        let names: Option<Vec<u64>> = names.and_then(|names| names.collect::<Result<_, _>>().ok());
        let Some(&[mailbox, generation, _]) = names.as_deref() else {
            self.found.unnamed += 1;
            return Ok(());
        };
        ensure!(
            *seen.mailbox.get_or_insert(mailbox) == mailbox,
            "the phone {phone:?} is told by two mailboxes: {:?} and {mailbox}",
            seen.mailbox
        );
        if generation < seen.acknowledged {
            let newer = seen.acknowledged;
            self.found.overtaken.push(format!("{phone:?} at {at}: generation {generation} after {newer}"));
        }
        if write.status == 200 {
            seen.acknowledged = seen.acknowledged.max(generation);
        }
        let began = at - SignedDuration::from_millis(i64::try_from(write.took_ms)?);
        if let Some(since) = seen.waiting_since.take_if(|since| *since <= began) {
            self.found.took.push(at.duration_since(since).unsigned_abs());
        }
        Ok(())
    }

    fn note_call(&mut self, call: &GraphCall, at: Timestamp, town: &Town) {
        self.found.graph_calls += 1;
        let Some(replica) = call.secret else { return };
        *self.found.calls_of.entry(replica).or_default() += 1;
        let place = call.mailbox.as_ref().and_then(|user| town.by_user.get(user));
        let Some(place) = place else { return };
        let took = SignedDuration::from_millis(i64::try_from(call.took_ms).unwrap_or(i64::MAX));
        let now = Call { replica, from: at - took, to: at };
        let calls = &mut self.seen[*place].calls;
        calls.retain(|known| now.to.duration_since(known.to) < REMEMBERED);
        for known in calls.iter().filter(|known| known.replica != replica) {
            let together = known.to.min(now.to).duration_since(known.from.max(now.from));
            if together <= ROUNDED {
                continue;
            }
            let later = if known.from > now.from { known } else { &now };
            let woken = |call: &Call| {
                let just = |(replica, at): &(usize, Timestamp)| {
                    *replica == call.replica && *at <= call.from && call.from < *at + WAKES_FOR
                };
                self.wakings.iter().any(just)
            };
            let cut_off = |call: &Call| {
                let then = |ending: &Ending| {
                    ending.replica == call.replica
                        && ending.told <= call.to
                        && ending.gone.is_none_or(|gone| call.from <= gone)
                };
                self.endings.iter().any(then)
            };
            if woken(known) || woken(&now) {
                self.found.woken += 1;
            } else if cut_off(known) || cut_off(&now) {
                self.found.cut_off += 1;
            } else {
                self.found.overlaps.push(format!(
                    "mailbox {place} at {}: replicas {} and {replica}, {} ms together",
                    later.from,
                    known.replica,
                    together.as_millis()
                ));
            }
        }
        calls.push_back(now);
    }
}
