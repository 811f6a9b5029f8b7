//! Leaves a target alone that has failed several times in a row, and lets one request find out
//! whether it is back.
//!
//! A failure is: no answer, or one that a later attempt may turn into a good one (5xx, 408). A refusal
//! is an answer like any other: the target works.

use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::{SignedDuration, Timestamp};

use super::config::BreakerConfig;
use crate::presence::LinkState;

/// The target is left alone at present.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("it failed several times in a row ({cause}) and is left alone for {left_secs} s more")]
pub(super) struct LeftAlone {
    left_secs: i64,
    cause: String,
}

/// The link has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    Up,
    Down,
}

#[derive(Debug)]
pub(super) struct Breaker {
    config: BreakerConfig,
    state: Mutex<State>,
}

#[derive(Debug)]
enum State {
    /// Nothing has been tried, or it works.
    Closed { failures: u32, answered: bool },
    /// Left alone until then.
    Open { until: Timestamp, cause: String },
    /// One request is finding out.
    Probing { cause: String },
}

/// The right to send one request; its outcome is to be reported.
#[derive(Debug)]
pub(super) struct Permit<'a> {
    breaker: &'a Breaker,
    reported: bool,
}

impl Breaker {
    pub(super) fn new(config: BreakerConfig) -> Self {
        Self { config, state: Mutex::new(State::Closed { failures: 0, answered: false }) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a request may be sent.
    pub(super) fn admit(&self, now: Timestamp) -> Result<Permit<'_>, LeftAlone> {
        let mut state = self.state();
        match &*state {
            State::Closed { .. } => {}
            State::Open { until, cause } if *until > now => {
                let left_secs = until.duration_since(now).as_secs().max(1);
                return Err(LeftAlone { left_secs, cause: cause.clone() });
            }
            State::Open { cause, .. } => *state = State::Probing { cause: cause.clone() },
            State::Probing { cause } => return Err(LeftAlone { left_secs: 1, cause: cause.clone() }),
        }
        Ok(Permit { breaker: self, reported: false })
    }

    /// How the link stands.
    pub(super) fn link(&self) -> LinkState {
        match &*self.state() {
            State::Closed { answered: false, .. } => LinkState::Unknown,
            State::Closed { answered: true, .. } => LinkState::Up,
            State::Open { cause, .. } | State::Probing { cause } => LinkState::Down { cause: cause.clone() },
        }
    }
}

impl Permit<'_> {
    /// The target has answered.
    pub(super) fn answered(mut self) -> Option<Change> {
        self.reported = true;
        let mut state = self.breaker.state();
        let was_down = !matches!(*state, State::Closed { .. });
        *state = State::Closed { failures: 0, answered: true };
        was_down.then_some(Change::Up)
    }

    /// The target has failed.
    pub(super) fn failed(mut self, now: Timestamp, cause: String) -> Option<Change> {
        self.reported = true;
        let mut state = self.breaker.state();
        let open_for = SignedDuration::from_secs(i64::try_from(self.breaker.config.open_secs).unwrap_or(600));
        let until = now.checked_add(open_for).unwrap_or(Timestamp::MAX);
        match &mut *state {
            State::Closed { failures, .. } if *failures + 1 < self.breaker.config.failures => {
                *failures += 1;
                None
            }
            State::Closed { .. } => {
                *state = State::Open { until, cause };
                Some(Change::Down)
            }
            State::Open { .. } | State::Probing { .. } => {
                *state = State::Open { until, cause };
                None
            }
        }
    }
}

impl Drop for Permit<'_> {
    /// A request that was given up tells nothing; the next one finds out.
    fn drop(&mut self) {
        if self.reported {
            return;
        }
        let mut state = self.breaker.state();
        if let State::Probing { cause } = &*state {
            *state = State::Open { until: Timestamp::MIN, cause: cause.clone() };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn fail(breaker: &Breaker, second: i64) -> Option<Change> {
        breaker.admit(at(second)).unwrap().failed(at(second), "status 503".to_owned())
    }

    #[test]
    fn it_opens_after_failures_in_a_row_and_one_probe_closes_it() {
        let breaker = Breaker::new(BreakerConfig { failures: 3, open_secs: 30 });
        assert_eq!(breaker.link(), LinkState::Unknown);
        assert_eq!(fail(&breaker, 0), None);
        assert_eq!(breaker.admit(at(0)).unwrap().answered(), None);
        assert_eq!(breaker.link(), LinkState::Up);
        assert_eq!(
            (fail(&breaker, 1), fail(&breaker, 1), fail(&breaker, 1)),
            (None, None, Some(Change::Down))
        );
        assert_eq!(breaker.link(), LinkState::Down { cause: "status 503".to_owned() });
        assert_eq!(breaker.admit(at(21)).unwrap_err().left_secs, 10);

        let probe = breaker.admit(at(31)).unwrap();
        assert!(breaker.admit(at(31)).is_err(), "one probe at a time");
        assert_eq!(probe.answered(), Some(Change::Up));
        assert_eq!(breaker.link(), LinkState::Up);
    }

    #[test]
    fn a_failed_probe_opens_it_again_without_a_second_report() {
        let breaker = Breaker::new(BreakerConfig { failures: 1, open_secs: 30 });
        assert_eq!(fail(&breaker, 0), Some(Change::Down));
        assert_eq!(fail(&breaker, 30), None);
        assert!(breaker.admit(at(59)).is_err());
        assert!(breaker.admit(at(60)).is_ok());
    }

    #[test]
    fn a_probe_that_was_given_up_makes_way_for_the_next() {
        let breaker = Breaker::new(BreakerConfig { failures: 1, open_secs: 30 });
        fail(&breaker, 0);
        drop(breaker.admit(at(30)).unwrap());
        assert!(breaker.admit(at(30)).is_ok());
    }
}
