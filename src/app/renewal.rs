//! Renewal of many subscriptions as a job: started at once, worked off by turns, followed by its progress.
//!
//! The job marks mailboxes and watches turns end; it calls nobody itself, so that quotas and back-off are kept as
//! for any other turn. A turn that ends may have had another reason, or may have put the renewal off: a mailbox counts
//! once its state says that what was asked for was tried after the job began. Jobs live in memory: after a
//! restart the marks are still there and are worked off.

use std::{
    collections::{HashMap, VecDeque, hash_map::Entry},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use jiff::{SignedDuration, Timestamp};
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

use crate::{
    admin::{JobId, JobProgress},
    chain::Chain,
    clock::SharedClock,
    model::{Language, MailboxId},
    queue::Reason,
    store::Store,
    turn::state::MailboxState,
};

/// Jobs that are remembered; older ones are forgotten first.
const KEPT: usize = 100;

/// Failures that are told in words; the rest is only counted.
const TOLD: usize = 50;

/// Longest that a job is followed; ten thousand subscriptions take minutes.
const LONGEST: SignedDuration = SignedDuration::from_hours(1);

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

/// What a job is to renew.
pub(super) struct Job {
    pub(super) id: JobId,
    /// When it was asked for; what was renewed before does not count.
    pub(super) begun: Timestamp,
    /// Language of what is told of failures.
    pub(super) language: Language,
    pub(super) pieces: Vec<Piece>,
}

/// Follows a job's mailboxes until each has been renewed or has failed.
pub(super) async fn follow(
    jobs: Arc<Jobs>,
    job: Job,
    mut ended: broadcast::Receiver<MailboxId>,
    store: Arc<dyn Store>,
    clock: SharedClock,
    shutdown: CancellationToken,
) {
    let Job { id, begun, language, pieces } = job;
    let mut open: HashMap<MailboxId, Piece> =
        pieces.into_iter().map(|piece| (piece.mailbox, piece)).collect();
    while !open.is_empty() {
        let turned: Vec<MailboxId> = tokio::select! {
            () = shutdown.cancelled() => return,
            () = clock.sleep_until(begun + LONGEST) => {
                for (_, piece) in open.drain() {
                    jobs.note(&id, Some(piece.failed(late(language))));
                }
                return;
            }
            turned = ended.recv() => match turned {
                Ok(mailbox) => vec![mailbox],
                // Some turns were missed: any may have been.
                Err(broadcast::error::RecvError::Lagged(_)) => open.keys().copied().collect(),
                Err(broadcast::error::RecvError::Closed) => return,
            },
        };
        for mailbox in turned {
            let Entry::Occupied(piece) = open.entry(mailbox) else { continue };
            let outcome = match store.look(mailbox).await {
                Ok(Some(document)) => match MailboxState::read(&document) {
                    Ok(state) => outcome(&state, begun, language),
                    Err(error) => Some(Err(Chain(&error).to_string())),
                },
                Ok(None) => Some(Err(gone(language))),
                Err(error) => Some(Err(Chain(&error).to_string())),
            };
            if let Some(outcome) = outcome {
                let piece = piece.remove();
                jobs.note(&id, outcome.err().map(|why| piece.failed(why)));
            }
        }
    }
}

/// What came of a mailbox's renewal; `None` as long as no turn has tried.
fn outcome(state: &MailboxState, begun: Timestamp, language: Language) -> Option<Result<(), String>> {
    state.renewal_tried_at.filter(|tried| *tried >= begun)?;
    if state.watch.is_some() && !state.owed.reasons.contains(Reason::RenewAsked) {
        return Some(Ok(()));
    }
    let trouble = state.watch_trouble.as_ref().or(state.calendar_trouble.as_ref());
    Some(Err(trouble.map_or_else(|| gone(language), |trouble| trouble.health.cause(language))))
}

fn gone(language: Language) -> String {
    match language {
        Language::Sv => "Användaren är borttagen, avstängd eller inte redo än.".to_owned(),
        Language::En => "The user was removed, is switched off, or is not ready yet.".to_owned(),
    }
}

fn late(language: Language) -> String {
    match language {
        Language::Sv => "Inte klart inom en timme; det görs ändå när det går.".to_owned(),
        Language::En => "Not done within an hour; it will be done all the same once possible.".to_owned(),
    }
}

impl Piece {
    fn failed(&self, why: String) -> String {
        format!("{}: {why}", self.title)
    }
}
