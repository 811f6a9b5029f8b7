//! The one thread that appends marks: it takes whatever has gathered and appends it as one group.
//!
//! While a group is on its way to the disk the next one gathers by itself: a lone mark is appended at once, and under
//! load a group carries many. After a busy group the next one gathers a little longer, because going to the disk costs
//! as much processor time as some three requests do without it.
//!
//! Why a thread and a file apart from the database's: what a notification waits for is then one append, and never a
//! checkpoint, nor the states of a thousand mailboxes whose turns ended in the same second.

use std::{sync::Arc, time::Duration};

use tokio::sync::mpsc;
use tracing::error;

use super::{Reply, Shared, mark_log::MarkLog};
use crate::{
    chain::Chain,
    queue::{Mark, StoreError},
};

/// Most requests in a group: bounds how long the first of a group waits for the last.
const GROUP: usize = 512;

/// Most marks in a group, unless one delivery alone has more: bounds the memory that a storm takes.
const GROUP_MARKS: usize = 1_024;

/// Sizes of a group that say: more is coming, and a larger group would be cheaper.
const BUSY: std::ops::Range<usize> = 8..256;

/// How long the next group gathers after a busy one: doubles the groups of 64 connections, and is a thousandth of
/// what Graph waits.
const GATHER: Duration = Duration::from_micros(500);

/// Marks that are to be made durable.
pub(super) struct Append {
    pub(super) marks: Vec<Mark>,
    pub(super) reply: Reply<()>,
}

pub(super) struct Marker {
    log: MarkLog,
    shared: Arc<Shared>,
    appends: metrics::Counter,
}

impl Marker {
    pub(super) fn new(log: MarkLog, shared: Arc<Shared>) -> Self {
        Self { log, shared, appends: metrics::counter!("narvaro_store_appends_total") }
    }

    /// Runs until every sender is gone.
    pub(super) fn run(mut self, mut waiting: mpsc::Receiver<Append>) {
        let mut group = Vec::with_capacity(GROUP);
        let mut marks = Vec::new();
        let mut replies = Vec::with_capacity(GROUP);
        while waiting.blocking_recv_many(&mut group, GROUP) > 0 {
            let busy = BUSY.contains(&group.len());
            let mut appends = group.drain(..).peekable();
            while let Some(Append { marks: first, reply }) = appends.next() {
                marks.extend(first);
                replies.push(reply);
                while let Some(more) = appends.next_if(|more| marks.len() + more.marks.len() <= GROUP_MARKS) {
                    marks.extend(more.marks);
                    replies.push(more.reply);
                }
                self.append(&mut marks, &mut replies);
            }
            // A storm's memory is not held for good.
            marks.shrink_to(GROUP_MARKS);
            if busy {
                std::thread::sleep(GATHER);
            }
        }
        let needed = self.shared.index().first_needed_entry();
        if let Err(error) = self.log.close(needed) {
            error!(error = %Chain(&error), "The store's log of marks could not be closed; the next start reads it all");
        }
    }

    fn append(&mut self, marks: &mut Vec<Mark>, replies: &mut Vec<Reply<()>>) {
        let needed = self.shared.index().first_needed_entry();
        match self.log.append(marks, needed) {
            Ok(entry) => {
                self.appends.increment(1);
                let now = self.shared.clock.now();
                {
                    let mut index = self.shared.index();
                    for mark in marks.drain(..) {
                        index.enter(mark, Some(entry), now);
                    }
                }
                self.shared.changed.notify_waiters();
                // A receiver that has given up needs no answer.
                replies.drain(..).for_each(|reply| drop(reply.send(Ok(()))));
            }
            Err(error) => {
                error!(error = %Chain(&error), "The store's log of marks could not be written");
                metrics::counter!("narvaro_store_commits_failed_total").increment(1);
                marks.clear();
                let error = Arc::new(error);
                for reply in replies.drain(..) {
                    drop(reply.send(Err(StoreError::Unavailable(Box::new(Arc::clone(&error))))));
                }
            }
        }
    }
}
