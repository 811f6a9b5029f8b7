//! Time, injected. Everything that asks what time it is, or waits for a time, asks a [`Clock`].

use std::{pin::Pin, sync::Arc};

use jiff::Timestamp;

/// A future that a clock hands out.
pub type Sleep = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The time that decisions are made by. Tests move it.
pub trait Clock: Send + Sync + 'static {
    /// The present instant.
    fn now(&self) -> Timestamp;
    /// Completes when `now` has reached `at`.
    fn sleep_until(&self, at: Timestamp) -> Sleep;
    /// Whether this is the time that other machines go by too; not so in a test that moves it.
    fn is_real(&self) -> bool {
        false
    }
}

/// A clock that is shared.
pub type SharedClock = Arc<dyn Clock>;

/// The machine's own clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn is_real(&self) -> bool {
        true
    }

    #[expect(clippy::disallowed_methods, reason = "the one place that reads the machine's clock")]
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn sleep_until(&self, at: Timestamp) -> Sleep {
        let clock = *self;
        Box::pin(async move {
            // Waits in pieces of at most a minute, so that a clock set anew is noticed.
            loop {
                let left = at.duration_since(clock.now());
                if left <= jiff::SignedDuration::ZERO {
                    return;
                }
                let left = left.unsigned_abs().min(std::time::Duration::from_secs(60));
                tokio::time::sleep(left).await;
            }
        })
    }
}

/// A clock that stands still until it is moved: for tests.
#[derive(Debug)]
pub struct ManualClock {
    now: tokio::sync::watch::Sender<Timestamp>,
}

impl ManualClock {
    /// Stands at `now`.
    pub fn at(now: Timestamp) -> Arc<Self> {
        Arc::new(Self { now: tokio::sync::watch::Sender::new(now) })
    }

    /// Moves to `to`, never back.
    pub fn advance_to(&self, to: Timestamp) {
        self.now.send_if_modified(|now| {
            let later = to > *now;
            *now = to.max(*now);
            later
        });
    }

    /// Moves by `by`.
    pub fn advance(&self, by: std::time::Duration) {
        let to = self.now().checked_add(by).unwrap_or(Timestamp::MAX);
        self.advance_to(to);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        *self.now.borrow()
    }

    fn sleep_until(&self, at: Timestamp) -> Sleep {
        let mut moved = self.now.subscribe();
        Box::pin(async move {
            // The sender lives as long as the clock; without it nothing will ever move.
            if moved.wait_for(|now| *now >= at).await.is_err() {
                std::future::pending::<()>().await;
            }
        })
    }
}
