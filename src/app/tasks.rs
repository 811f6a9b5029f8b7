//! Tracked tasks: shutdown can wait for them, and a panic is seen.

use std::{future::Future, panic::AssertUnwindSafe};

use futures_util::FutureExt;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::error;

/// All tasks of the service.
#[derive(Debug, Clone, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    shutdown: CancellationToken,
}

impl Tasks {
    /// What tasks listen to in order to end.
    pub fn shutdown(&self) -> CancellationToken {
        self.shutdown.child_token()
    }

    /// Runs `task` until it ends by itself or has seen the shutdown.
    pub fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        self.tracker.spawn(async move {
            if AssertUnwindSafe(task).catch_unwind().await.is_err() {
                metrics::counter!("narvaro_tasks_panicked_total", "task" => name).increment(1);
                error!("Task `{name}` has failed; please report this");
            }
        });
    }

    /// Tells all tasks to end and waits until they have.
    pub async fn end(&self) {
        self.shutdown.cancel();
        self.tracker.close();
        self.tracker.wait().await;
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
        tasks.end().await;
        assert_eq!(has_ended.try_recv(), Ok(()));
    }
}
