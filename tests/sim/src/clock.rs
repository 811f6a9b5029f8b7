//! The simulator's clock: real time unless a test sets it, so that a test which moves the
//! product's clock can move Microsoft's also.

use std::sync::{Arc, Mutex};

use jiff::{SignedDuration, Timestamp};

use crate::lock;

/// The time that every part of the simulator asks for; clones share one clock.
#[derive(Clone, Default)]
pub struct SimClock {
    mode: Arc<Mutex<Mode>>,
}

#[derive(Clone, Copy)]
enum Mode {
    /// Real time plus an offset.
    Running(SignedDuration),
    /// Stands still until it is set again.
    Frozen(Timestamp),
}

impl Default for Mode {
    fn default() -> Self {
        Self::Running(SignedDuration::ZERO)
    }
}

impl SimClock {
    /// What time it is in the simulator.
    pub fn now(&self) -> Timestamp {
        match *lock(&self.mode) {
            Mode::Running(offset) => Timestamp::now().checked_add(offset).unwrap_or(Timestamp::MAX),
            Mode::Frozen(at) => at,
        }
    }

    /// Sets the time and stops the clock there.
    pub fn set_time(&self, now: Timestamp) {
        *lock(&self.mode) = Mode::Frozen(now);
    }

    /// Sets the time and lets the clock run on from there.
    pub fn run_from(&self, now: Timestamp) {
        *lock(&self.mode) = Mode::Running(now.duration_since(Timestamp::now()));
    }

    /// Moves the clock by `by`, whether it runs or stands.
    pub fn advance(&self, by: SignedDuration) {
        let mut mode = lock(&self.mode);
        *mode = match *mode {
            Mode::Running(offset) => Mode::Running(offset.saturating_add(by)),
            Mode::Frozen(at) => Mode::Frozen(at.checked_add(by).unwrap_or(Timestamp::MAX)),
        };
    }

    /// Goes back to real time.
    pub fn follow_real_time(&self) {
        *lock(&self.mode) = Mode::default();
    }
}

/// The form in which Graph writes instants: UTC with seven fraction digits.
pub(crate) fn wire(at: Timestamp) -> String {
    let nanos = at.subsec_nanosecond();
    let whole = at.strftime("%Y-%m-%dT%H:%M:%S");
    format!("{whole}.{:07}Z", nanos / 100)
}
