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
}

/// A clock that is shared.
pub type SharedClock = Arc<dyn Clock>;

/// The machine's own clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
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
