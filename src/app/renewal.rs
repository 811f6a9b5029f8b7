//! Renewal of many subscriptions as a job: started at once, worked off by turns, followed by its progress.
//!
//! The job marks mailboxes and watches turns end; it calls nobody itself, so that quotas and back-off are kept as
//! for any other turn. Jobs live in memory: after a restart the marks are still there and are worked off.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

use crate::{
    admin::{JobId, JobProgress},
    model::{Language, MailboxId},
    store::Store,
    turn::state::MailboxState,
};

/// Jobs that are remembered; older ones are forgotten first.
const KEPT: usize = 100;

/// Failures that are told in words; the rest is only counted.
const TOLD: usize = 50;

/// One mailbox of a job, with what to call it.
pub(super) struct Piece {
    pub(super) mailbox: MailboxId,
    pub(super) title: String,
}

/// All jobs.
#[derive(Default)]
pub(super) struct Jobs {
    jobs: Mutex<VecDeque<(JobId, JobProgress)>>,
}

impl Jobs {
    fn jobs(&self) -> MutexGuard<'_, VecDeque<(JobId, JobProgress)>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enters a job of so many pieces.
    pub(super) fn open(&self, id: &JobId, total: u64) {
        let mut jobs = self.jobs();
        jobs.push_back((
            id.clone(),
            JobProgress { total, done: 0, failed: Vec::new(), finished: total == 0 },
        ));
        if jobs.len() > KEPT {
            jobs.pop_front();
        }
    }

    /// How far a job has come.
    pub(super) fn progress(&self, id: &JobId) -> Option<JobProgress> {
        self.jobs().iter().find(|(known, _)| known == id).map(|(_, progress)| progress.clone())
    }

    fn note(&self, id: &JobId, failure: Option<String>) {
        if let Some((_, progress)) = self.jobs().iter_mut().find(|(known, _)| known == id) {
            progress.done += 1;
            progress.finished = progress.done == progress.total;
            progress.failed.extend(failure.filter(|_| progress.failed.len() < TOLD));
        }
    }
}

/// Follows a job's mailboxes until each has had its turn.
pub(super) async fn follow(
    jobs: Arc<Jobs>,
    id: JobId,
    pieces: Vec<Piece>,
    language: Language,
    mut ended: broadcast::Receiver<MailboxId>,
    store: Arc<dyn Store>,
    shutdown: CancellationToken,
) {
    let mut open: HashMap<MailboxId, Piece> =
        pieces.into_iter().map(|piece| (piece.mailbox, piece)).collect();
    while !open.is_empty() {
        let turned: HashSet<MailboxId> = tokio::select! {
            () = shutdown.cancelled() => return,
            turned = ended.recv() => match turned {
                Ok(mailbox) => HashSet::from([mailbox]),
                // Some turns were missed: every mailbox that is not waiting any more has had its own.
                Err(broadcast::error::RecvError::Lagged(_)) => open.keys().copied().collect(),
                Err(broadcast::error::RecvError::Closed) => return,
            },
        };
        for mailbox in turned {
            if !open.contains_key(&mailbox) {
                continue;
            }
            let state = match store.look(mailbox).await {
                Ok(document) => document.and_then(|document| MailboxState::read(&document).ok()),
                Err(_) => None,
            };
            let Some(piece) = open.remove(&mailbox) else { continue };
            let failure = match state {
                None => Some(format!("{}: ?", piece.title)),
                Some(state) => state
                    .watch_trouble
                    .as_ref()
                    .or(state.calendar_trouble.as_ref())
                    .map(|trouble| format!("{}: {}", piece.title, trouble.health.cause(language))),
            };
            jobs.note(&id, failure);
        }
    }
}
