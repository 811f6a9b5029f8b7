//! Leaves a tenant alone whose Graph fails call after call, and lets one at a time find out whether it is back.
//!
//! A failure is an answer that did not arrive whole, a fault of the far side (5xx), or "slow down" (429) without a
//! time; everything else is an answer, and the first one closes the circuit.
//! Failures count by whom the call concerned: five different ones in a row. A single mailbox that always fails never
//! opens the circuit of its tenant, and a tenant of fewer than five mailboxes has no circuit: it holds up no more
//! workers than it has mailboxes.
//!
//! One call finds out, and with it whatever else is asked about the same mailbox. Why not one call alone: a turn asks
//! two things at once and drops one when the other is refused, so that the call would always be given up.

use std::{
    collections::HashSet,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::Timestamp;

use super::{backoff::Backoff, gates::Scope};
use crate::{calendar::ReadError, model::TenantId};

/// How many different ones have to fail in a row.
const DIFFERENT: usize = 5;

/// How long the tenant is left alone. One call a minute is no burden for whoever is in trouble, and a minute is
/// soon enough after an outage.
const OPEN_FOR: Backoff = Backoff { first: Duration::from_secs(5), longest: Duration::from_secs(60) };

/// How long others wait while one is finding out, which can take as long as the longest call.
const WHILE_PROBING: Duration = Duration::from_secs(20);

/// The tenant is left alone at present.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LeftAlone {
    left: Duration,
    cause: String,
}

impl From<LeftAlone> for ReadError {
    fn from(LeftAlone { left, cause }: LeftAlone) -> Self {
        Self::LeftAlone { left, cause }
    }
}

/// The circuit of one tenant.
#[derive(Debug)]
pub(super) struct Circuit {
    tenant: TenantId,
    state: Mutex<State>,
}

#[derive(Debug)]
enum State {
    /// Calls go through; who failed since the last answer.
    Closed { failing: HashSet<Scope> },
    /// Nobody goes through until then.
    Open { until: Timestamp, times: u32, cause: String },
    /// One call is finding out, and others about whom it concerns.
    Probing { about: Vec<Scope>, times: u32, cause: String },
}

/// The right to make a call; what comes of it is to be reported.
#[derive(Debug)]
pub(super) struct Pass<'a> {
    circuit: &'a Circuit,
    probes: bool,
}

impl Circuit {
    pub(super) fn new(tenant: TenantId) -> Self {
        Self { tenant, state: Mutex::new(State::Closed { failing: HashSet::new() }) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it is worth standing in line for a call.
    pub(super) fn check(&self, scope: &Scope, now: Timestamp) -> Result<(), LeftAlone> {
        self.state().check(&[scope], now)
    }

    /// Lets a call through that concerns these, or says how long to wait.
    pub(super) fn admit(&self, scopes: &[&Scope], now: Timestamp) -> Result<Pass<'_>, LeftAlone> {
        let mut state = self.state();
        state.check(scopes, now)?;
        let probes = match &*state {
            State::Open { times, cause, .. } => {
                let about = scopes.iter().copied().cloned().collect();
                *state = State::Probing { about, times: *times, cause: cause.clone() };
                true
            }
            State::Closed { .. } | State::Probing { .. } => false,
        };
        Ok(Pass { circuit: self, probes })
    }

    fn opened(&self, times: u32, cause: String, now: Timestamp) -> State {
        let until = now.checked_add(OPEN_FOR.wait(times, self.tenant.as_str())).unwrap_or(Timestamp::MAX);
        State::Open { until, times, cause }
    }
}

impl State {
    fn check(&self, scopes: &[&Scope], now: Timestamp) -> Result<(), LeftAlone> {
        let (left, cause) = match self {
            Self::Closed { .. } => return Ok(()),
            Self::Probing { about, .. } if scopes.iter().all(|scope| about.contains(scope)) => return Ok(()),
            Self::Probing { cause, .. } => (WHILE_PROBING, cause),
            Self::Open { until, cause, .. } => {
                (Duration::try_from(until.duration_since(now)).unwrap_or_default(), cause)
            }
        };
        if left.is_zero() { Ok(()) } else { Err(LeftAlone { left, cause: cause.clone() }) }
    }
}

impl Pass<'_> {
    /// Somebody answered.
    pub(super) fn answered(self) {
        let circuit = self.circuit;
        let before = std::mem::replace(&mut *circuit.state(), State::Closed { failing: HashSet::new() });
        if !matches!(before, State::Closed { .. }) {
            metrics::counter!("narvaro_graph_circuits_total", "change" => "closed").increment(1);
            metrics::gauge!("narvaro_graph_circuits_open").decrement(1);
            tracing::info!(tenant.id = %circuit.tenant, "Graph answers again for tenant `{}`", circuit.tenant);
        }
    }

    /// Nobody answered; `concerned` is whom the call concerned.
    pub(super) fn failed<'s>(self, concerned: impl Iterator<Item = &'s Scope>, cause: &str, now: Timestamp) {
        let circuit = self.circuit;
        let mut state = circuit.state();
        match &mut *state {
            State::Closed { failing } => {
                failing.extend(concerned.cloned());
                if failing.len() < DIFFERENT {
                    return;
                }
                *state = circuit.opened(1, cause.to_owned(), now);
                metrics::counter!("narvaro_graph_circuits_total", "change" => "opened").increment(1);
                metrics::gauge!("narvaro_graph_circuits_open").increment(1);
                tracing::warn!(
                    tenant.id = %circuit.tenant,
                    cause,
                    "Graph fails call after call for tenant `{}`, which is left alone for a while",
                    circuit.tenant
                );
            }
            State::Probing { times, .. } if self.probes => {
                *state = circuit.opened(times.saturating_add(1), cause.to_owned(), now);
            }
            // Calls that were under way when it opened tell nothing new.
            State::Open { .. } | State::Probing { .. } => {}
        }
    }
}

impl Drop for Pass<'_> {
    /// A probe that was given up tells nothing; the next call finds out. After a report there is nothing to undo.
    fn drop(&mut self) {
        let mut state = self.circuit.state();
        if let State::Probing { times, cause, .. } = &*state
            && self.probes
        {
            *state = State::Open { until: Timestamp::MIN, times: *times, cause: cause.clone() };
        }
    }
}

impl Drop for Circuit {
    fn drop(&mut self) {
        if !matches!(*self.state(), State::Closed { .. }) {
            metrics::gauge!("narvaro_graph_circuits_open").decrement(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + second).unwrap()
    }

    fn circuit() -> Circuit {
        Circuit::new("3f6c1a52-0b7e-4c1d-9a55-1c2f7e9b4d10".parse().unwrap())
    }

    fn mailbox(n: usize) -> Scope {
        Scope::Mailbox(n.to_string())
    }

    fn fail(circuit: &Circuit, n: usize, second: i64) {
        circuit.admit(&[&mailbox(n)], at(second)).unwrap().failed(
            [&mailbox(n)].into_iter(),
            "no answer",
            at(second),
        );
    }

    fn left(circuit: &Circuit, second: i64) -> Option<Duration> {
        let alone = circuit.check(&mailbox(99), at(second)).err()?;
        assert_eq!(alone.cause, "no answer");
        Some(alone.left)
    }

    fn open() -> Circuit {
        let circuit = circuit();
        (0..5).for_each(|n| fail(&circuit, n, 0));
        circuit
    }

    #[test]
    fn five_different_failures_in_a_row_open_it_for_a_while() {
        let circuit = circuit();
        (0..4).for_each(|n| fail(&circuit, n, 0));
        assert_eq!(left(&circuit, 0), None);
        fail(&circuit, 4, 0);
        let told = left(&circuit, 0).unwrap();
        assert!((4.0..=6.0).contains(&told.as_secs_f64()), "{told:?}");
        assert_eq!(left(&circuit, 1), Some(told - Duration::from_secs(1)));
        assert!(circuit.admit(&[&mailbox(99)], at(1)).is_err());
        assert_eq!(left(&circuit, 6), None);
    }

    #[test]
    fn one_mailbox_that_always_fails_never_opens_it_and_an_answer_starts_the_count_anew() {
        let circuit = circuit();
        (0..100).for_each(|_| fail(&circuit, 7, 0));
        assert_eq!(left(&circuit, 0), None);
        circuit.admit(&[&mailbox(99)], at(0)).unwrap().answered();
        for round in 0..10 {
            (0..4).for_each(|n| fail(&circuit, 4 * round + n, 0));
            circuit.admit(&[&mailbox(99)], at(0)).unwrap().answered();
        }
        assert_eq!(left(&circuit, 0), None);
    }

    #[test]
    fn one_mailbox_at_a_time_finds_out_and_the_first_answer_closes_it() {
        let circuit = open();
        let probe = circuit.admit(&[&mailbox(1)], at(6)).unwrap();
        assert!(circuit.admit(&[&mailbox(1), &mailbox(2)], at(6)).is_err(), "one at a time");
        let beside = circuit.admit(&[&mailbox(1)], at(6)).unwrap();
        beside.failed([&mailbox(1)].into_iter(), "no answer", at(6));
        assert_eq!(left(&circuit, 6), Some(WHILE_PROBING));
        probe.answered();
        assert_eq!(left(&circuit, 6), None);
        assert!(circuit.admit(&[&mailbox(99)], at(6)).is_ok());
    }

    #[test]
    fn each_probe_that_fails_doubles_the_wait_up_to_a_minute() {
        let circuit = open();
        let mut now = 6;
        for plain in [10.0, 20.0, 40.0, 60.0, 60.0] {
            fail(&circuit, 1, now);
            let told = left(&circuit, now).unwrap().as_secs_f64();
            assert!((plain * 0.79..=plain * 1.21).contains(&told), "{told} instead of {plain}");
            now += 73;
        }
    }

    #[test]
    fn calls_under_way_when_it_opened_change_nothing_unless_they_are_answered() {
        let circuit = circuit();
        let passes: Vec<_> = (0..8).map(|_| circuit.admit(&[&mailbox(99)], at(0)).unwrap()).collect();
        let mut passes = passes.into_iter();
        for n in 0..5 {
            passes.next().unwrap().failed([&mailbox(n)].into_iter(), "no answer", at(0));
        }
        let told = left(&circuit, 0);
        passes.next().unwrap().failed([&mailbox(6)].into_iter(), "no answer", at(3));
        assert_eq!(left(&circuit, 0), told);
        let probe = circuit.admit(&[&mailbox(1)], at(6)).unwrap();
        passes.next().unwrap().failed([&mailbox(7)].into_iter(), "no answer", at(6));
        assert_eq!(left(&circuit, 6), Some(WHILE_PROBING), "the probe goes on");
        passes.next().unwrap().answered();
        assert_eq!(left(&circuit, 6), None);
        probe.failed([&mailbox(1)].into_iter(), "no answer", at(7));
        assert_eq!(left(&circuit, 7), None, "the answer was the newer");
    }

    #[test]
    fn a_probe_that_was_given_up_makes_way_for_the_next() {
        let circuit = open();
        drop(circuit.admit(&[&mailbox(99)], at(6)).unwrap());
        assert!(circuit.admit(&[&mailbox(99)], at(6)).is_ok());
    }
}
