//! Tracked tasks: shutdown can wait for them, and a panic is seen.

use std::{future::Future, panic::AssertUnwindSafe, time::Duration};

use futures_util::FutureExt;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{error, warn};

/// All tasks of the service.
#[derive(Debug, Clone, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    shutdown: CancellationToken,
    cut_off: CancellationToken,
}

impl Tasks {
    /// What tasks listen to in order to end.
    pub fn shutdown(&self) -> CancellationToken {
        self.shutdown.child_token()
    }

    /// Runs `task` until it ends by itself or has seen the shutdown.
    pub fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let cut_off = self.cut_off.clone();
        self.tracker.spawn(async move {
            let ended = tokio::select! {
                ended = AssertUnwindSafe(task).catch_unwind() => ended,
                () = cut_off.cancelled() => {
                    return warn!("Task `{name}` did not end in time and was cut off");
                }
            };
            if ended.is_err() {
                metrics::counter!("narvaro_tasks_panicked_total", "task" => name).increment(1);
                error!("Task `{name}` has failed; please report this");
            }
        });
    }

    /// Tells all tasks to end and waits until they have; what has not ended within `limit` is cut off.
    pub async fn end_within(&self, limit: Duration) {
        self.shutdown.cancel();
        self.tracker.close();
        if tokio::time::timeout(limit, self.tracker.wait()).await.is_err() {
            self.cut_off.cancel();
            self.tracker.wait().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_end_waits_for_tasks_and_survives_one_that_failed() {
        let tasks = Tasks::default();
        let shutdown = tasks.shutdown();
        let (ended, mut has_ended) = tokio::sync::mpsc::channel(1);
        tasks.spawn("waits", async move {
            shutdown.cancelled().await;
            ended.send(()).await.unwrap();
        });
        tasks.spawn("fails", async { panic!("on purpose") });
        tasks.end_within(Duration::MAX).await;
        assert_eq!(has_ended.try_recv(), Ok(()));
    }

    #[tokio::test]
    async fn the_end_does_not_wait_for_ever() {
        let tasks = Tasks::default();
        let (held, dropped) = tokio::sync::oneshot::channel::<()>();
        tasks.spawn("hangs", async move {
            std::future::pending::<()>().await;
            drop(held);
        });
        tasks.end_within(Duration::ZERO).await;
        assert!(dropped.await.is_err(), "what it held is let go");
    }
}
