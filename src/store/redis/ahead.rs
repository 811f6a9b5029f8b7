//! Edges that are leased before they are due ([`crate::queue::ahead`] says what for).
//!
//! Whoever has taken all that come within the time ahead sleeps until the next one does, or until an edge is told of that comes
//! before all others. Of one that comes nearer and is not the first of all nobody is told: it may be taken when it is due.

use std::{
    sync::{MutexGuard, PoisonError, atomic::Ordering},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use tracing::debug;

use super::{
    Redis,
    due::given,
    keys,
    value::{Answer, Args},
};
use crate::{
    chain::Chain,
    model::{CompanyId, Generation, MailboxId},
    queue::{Lease, StoreError},
};

/// Calls in which nothing is found but what has to be passed over, until the rest is left for when it is due.
const MOST_IN_VAIN: usize = 8;

/// How long a store that failed is left alone. In real time, as messages are.
const PAUSE: Duration = Duration::from_secs(1);

/// What the last look told of edges.
#[derive(Debug, Clone, Copy)]
pub(super) struct NextEdges {
    /// How many messages had been heard when it was taken.
    heard: u64,
    /// When the first edge comes that lay further ahead, by this process's clock.
    first: Option<Timestamp>,
    /// How many were passed over while there may be more behind them; `None` where all was seen.
    passed: Option<u64>,
}

/// What was read of recalls.
#[derive(Debug, Default)]
pub(super) struct RecallsRead {
    /// How many messages had been heard when all had been read; `None`: never.
    heard: Option<u64>,
    /// What the last answer told, of which Redis does not know yet that it arrived.
    last: Vec<(MailboxId, Generation)>,
}

impl Redis {
    fn recalls_read(&self) -> MutexGuard<'_, RecallsRead> {
        self.recalls_read.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next_edges(&self) -> MutexGuard<'_, Option<NextEdges>> {
        self.next_edges.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes edges that come within `ahead`.
    pub(super) async fn take_ahead(
        &self,
        most: usize,
        ahead: Duration,
        hold: Duration,
        full: &[CompanyId],
    ) -> Result<Vec<Lease>, StoreError> {
        let mut sure_of = self.leasing.lock().await;
        self.make_sure(&mut sure_of).await?;
        self.ahead_hold_us.store(u64::try_from(hold.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
        self.hand_back_unknown().await?;
        let mut passed = (*self.next_edges()).and_then(|next| next.passed).unwrap_or(0);
        for _ in 0..MOST_IN_VAIN {
            let heard = self.edges.count();
            let before = self.inner.clock.now();
            let mut args = Args::with_capacity(6 + full.len())
                .add(self.inner.time())
                .add(most)
                .add(ahead.as_micros())
                .add(hold.as_micros())
                .add(&self.inner.replica)
                .add(passed);
            for company in full {
                args = args.add(company);
            }
            let answer = self.if_still_sure(*sure_of, self.inner.run(&keys::AHEAD, args).await).await;
            let read = answer.and_then(|answer| self.read_ahead(Answer::list(answer)?, before, heard));
            if read.is_err() {
                self.inner.lost_an_answer();
            }
            let (leases, next) = read?;
            *self.next_edges() = Some(next);
            let Some(now_passed) = next.passed else {
                self.inner.holding().forget_lapsed_ahead(before);
                return Ok(leases);
            };
            if !leases.is_empty() {
                return Ok(leases);
            }
            passed = now_passed;
        }
        if let Some(next) = self.next_edges().as_mut() {
            next.passed = None;
        }
        Ok(Vec::new())
    }

    fn read_ahead(
        &self,
        mut answer: Answer,
        before: Timestamp,
        heard: u64,
    ) -> Result<(Vec<Lease>, NextEdges), StoreError> {
        let store_now = answer.time()?.unwrap_or_default();
        let skew = self.inner.skew(before, store_now);
        let first = answer.time()?.map(|at| at + skew);
        let passed = answer.number()?;
        let has_more = answer.text()? == "1";
        let mut leases = Vec::new();
        while !answer.is_empty() {
            // Fired by the clock here, as every replica fires by its own: an edge is a time of the calendar, not of the store.
            let edge = answer.time()?;
            leases.push(Lease { ahead: edge, ..given(&mut answer, skew)? });
        }
        // Once all of the answer is understood: what is not known here is handed back.
        for Lease { mailbox, generation, company, until, .. } in &leases {
            self.inner.holding().begin_ahead(*mailbox, *generation, company.clone(), *until);
        }
        Ok((leases, NextEdges { heard, first, passed: has_more.then_some(passed) }))
    }

    /// Returns when an edge comes within `ahead` that nobody was seen to hold.
    pub(super) async fn wait_for_edges(&self, ahead: Duration) {
        let Some(next) = *self.next_edges() else { return };
        if next.passed.is_some() {
            return;
        }
        let ahead = SignedDuration::try_from(ahead).unwrap_or(SignedDuration::ZERO);
        let comes = async {
            match next.first.and_then(|first| first.checked_sub(ahead).ok()) {
                Some(at) => self.inner.clock.sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.edges.heard_since(next.heard) => {}
            () = comes => {}
        }
    }

    /// Waits until something is to be handed back; reads what there is after every new connection too.
    pub(super) async fn read_recalled(&self) -> Vec<(MailboxId, Generation)> {
        loop {
            let heard = self.recalls.count();
            let args = {
                let read = self.recalls_read();
                let named = |args: Args, (mailbox, generation): &(MailboxId, Generation)| {
                    args.add(format_args!("{mailbox} {generation}"))
                };
                let args = read.last.iter().fold(Args::default().add(&self.inner.replica), named);
                (read.heard != Some(heard) || !read.last.is_empty()).then_some(args)
            };
            let Some(args) = args else {
                self.recalls.heard_since(heard).await;
                continue;
            };
            match self.inner.run(&keys::RECALLED, args).await.and_then(recalled) {
                Ok(told) => {
                    let mut read = self.recalls_read();
                    read.heard = Some(heard);
                    read.last.clone_from(&told);
                    if !told.is_empty() {
                        return told;
                    }
                }
                // A Redis that comes back is connected to anew, and heard; one that was slow is not.
                Err(error) => {
                    debug!(error = %Chain(&error), "What is recalled could not be read, will retry");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }
}

fn recalled(answer: redis::Value) -> Result<Vec<(MailboxId, Generation)>, StoreError> {
    let mut answer = Answer::list(answer)?;
    let mut recalled = Vec::new();
    while !answer.is_empty() {
        let line = answer.text()?;
        let numbers = line.split_once(' ').and_then(|(id, g)| Some((id.parse().ok()?, g.parse().ok()?)));
        if let Some((mailbox, generation)) = numbers {
            recalled.push((MailboxId(mailbox), Generation(generation)));
        }
    }
    Ok(recalled)
}
