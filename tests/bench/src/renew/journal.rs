//! What the simulator's journal says of renewals, and of events that started.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    time::{Duration, Instant},
};

use anyhow::ensure;
use jiff::Timestamp;
use narvaro_sim::{GraphCall, Record, Sim};

use super::LIMIT;

/// An event of one mailbox, about to start.
pub(super) struct Start {
    pub(super) company: &'static str,
    pub(super) extension: String,
    pub(super) at: Timestamp,
}

/// What has happened from a moment on.
pub(super) struct Seen {
    last: u64,
    /// How often each subscription was renewed.
    renewed: HashMap<String, usize>,
    /// When a subscription was changed, in milliseconds, and of which tenant.
    changes: Vec<(u64, Option<String>)>,
    requests: usize,
    /// When a phone, by company and extension, first showed a meeting.
    shown: HashMap<(String, String), Timestamp>,
}

impl Seen {
    pub(super) fn from_now(sim: &Sim) -> Self {
        Self {
            last: sim.journal().last_seq(),
            renewed: HashMap::new(),
            changes: Vec::new(),
            requests: 0,
            shown: HashMap::new(),
        }
    }

    /// Takes in what is new.
    pub(super) fn look(&mut self, sim: &Sim) {
        for entry in sim.journal().since(self.last) {
            self.last = entry.seq;
            match &entry.record {
                Record::Graph(call) => self.note(call, entry.elapsed_ms),
                Record::Pbx(write) if write.profile == "meeting" => {
                    let phone = (write.company.clone(), write.extension.clone());
                    self.shown.entry(phone).or_insert(entry.at);
                }
                _ => {}
            }
        }
    }

    fn note(&mut self, call: &GraphCall, elapsed_ms: u64) {
        self.requests += 1;
        let Some((_, subscription)) = call.path.split_once("/subscriptions") else { return };
        if call.method == "GET" {
            return;
        }
        self.changes.push((elapsed_ms, call.tenant.clone()));
        if call.method == "PATCH" && call.status == 200 {
            *self.renewed.entry(subscription.to_owned()).or_default() += 1;
        }
    }

    /// Looks until `holds`.
    pub(super) async fn until(
        &mut self,
        sim: &Sim,
        what: &str,
        holds: impl Fn(&Self) -> bool,
    ) -> anyhow::Result<()> {
        let end = Instant::now() + LIMIT;
        loop {
            self.look(sim);
            if holds(self) {
                return Ok(());
            }
            ensure!(Instant::now() < end, "not within {LIMIT:?}: {what}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Renewals of all subscriptions together.
    pub(super) fn renewals(&self) -> usize {
        self.renewed.values().sum()
    }

    /// Subscriptions that were renewed.
    pub(super) fn subscriptions(&self) -> usize {
        self.renewed.len()
    }

    /// How often the one that was renewed most often was.
    pub(super) fn most_often(&self) -> usize {
        self.renewed.values().copied().max().unwrap_or(0)
    }

    /// Requests to Graph.
    pub(super) fn requests(&self) -> usize {
        self.requests
    }

    /// The most changes of subscriptions within `window`: of one tenant, and of all.
    pub(super) fn most_within(&self, window: Duration) -> (usize, usize) {
        let mut tenants: BTreeMap<&Option<String>, Vec<u64>> = BTreeMap::new();
        for (at, tenant) in &self.changes {
            tenants.entry(tenant).or_default().push(*at);
        }
        let of_one = tenants.into_values().map(|times| most_within(times, window)).max();
        (of_one.unwrap_or(0), most_within(self.changes.iter().map(|(at, _)| *at), window))
    }

    /// When the phone showed what has started.
    pub(super) fn shown_at(&self, start: &Start) -> Option<Timestamp> {
        self.shown.get(&(start.company.to_owned(), start.extension.clone())).copied()
    }
}

/// The most of `times` (in milliseconds, in order) that lie within a window.
fn most_within(times: impl IntoIterator<Item = u64>, window: Duration) -> usize {
    let mut within = VecDeque::new();
    let mut most = 0;
    for at in times {
        within.push_back(at);
        while within.front().is_some_and(|first| Duration::from_millis(at.saturating_sub(*first)) >= window) {
            within.pop_front();
        }
        most = most.max(within.len());
    }
    most
}
