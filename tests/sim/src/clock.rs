//! The simulator's clock: real time unless a test sets it, so that a test which moves the
//! product's clock can move Microsoft's also.

use std::{sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use tokio::sync::watch;

/// The time that every part of the simulator asks for; clones share one clock.
#[derive(Clone, Default)]
pub struct SimClock {
    mode: Arc<watch::Sender<Mode>>,
}

#[derive(Clone, Copy)]
enum Mode {
    /// Real time plus an offset.
    Running(SignedDuration),
    /// Stands still until it is set again.
    Frozen(Timestamp),
}

impl Mode {
    fn now(self) -> Timestamp {
        match self {
            Self::Running(offset) => Timestamp::now().checked_add(offset).unwrap_or(Timestamp::MAX),
            Self::Frozen(at) => at,
        }
    }
}

impl Default for Mode {
    fn default() -> Self {
        Self::Running(SignedDuration::ZERO)
    }
}

impl SimClock {
    /// What time it is in the simulator.
    pub fn now(&self) -> Timestamp {
        self.mode.borrow().now()
    }

    /// Whether it stands.
    pub(crate) fn stands(&self) -> bool {
        matches!(*self.mode.borrow(), Mode::Frozen(_))
    }

    /// Completes when `now` has reached `at`, by itself or by being moved.
    pub(crate) async fn sleep_until(&self, at: Timestamp) {
        let mut mode = self.mode.subscribe();
        loop {
            let left = Duration::try_from(at.duration_since(self.now())).unwrap_or_default();
            if left.is_zero() {
                return;
            }
            let by_itself = async {
                if self.stands() { std::future::pending().await } else { tokio::time::sleep(left).await }
            };
            tokio::select! {
                () = by_itself => {}
                // The sender is ours: it lives as long as we look.
                _ = mode.changed() => {}
            }
        }
    }

    /// Sets the time and stops the clock there.
    pub fn set_time(&self, now: Timestamp) {
        self.mode.send_replace(Mode::Frozen(now));
    }

    /// Sets the time and lets the clock run on from there.
    pub fn run_from(&self, now: Timestamp) {
        self.mode.send_replace(Mode::Running(now.duration_since(Timestamp::now())));
    }

    /// Moves the clock by `by`, whether it runs or stands.
    pub fn advance(&self, by: SignedDuration) {
        self.mode.send_modify(|mode| {
            *mode = match *mode {
                Mode::Running(offset) => Mode::Running(offset.saturating_add(by)),
                Mode::Frozen(at) => Mode::Frozen(at.checked_add(by).unwrap_or(Timestamp::MAX)),
            };
        });
    }

    /// Goes back to real time.
    pub fn follow_real_time(&self) {
        self.mode.send_replace(Mode::default());
    }
}

/// The form in which Graph writes instants: UTC with seven fraction digits.
pub(crate) fn wire(at: Timestamp) -> String {
    let nanos = at.subsec_nanosecond();
    let whole = at.strftime("%Y-%m-%dT%H:%M:%S");
    format!("{whole}.{:07}Z", nanos / 100)
}
