//! Who else is there, who does what only one may do, and what follows when Redis itself is no longer the one it was.
//!
//! Each announcement asks Redis for its `run_id` too, which is another after a restart and after a fail-over. Then the last that
//! Redis acknowledged may be lost: marks, a settled turn, an apply. Calendars and PBXs are not lost, so every mailbox is made due
//! once, and the new `run_id` is remembered when all of them are. The same is looked after before the first lease by a new connection, so that
//! no turn takes for true what Redis has, and finds set by hand what was shown and then lost.

use std::{sync::atomic::Ordering, time::Duration};

use async_trait::async_trait;
use redis::Value;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tracing::{error, warn};

use super::{
    LAYOUT, Redis, keys,
    value::{self, Answer, Args, number},
};
use crate::{
    company::records::Records,
    queue::{DueStore, Duty, GONE_AFTER, Mark, Reason, Replica, ReplicaRecord, Replicas, StoreError},
};

/// Marks in one call while every mailbox is made due: some 3 ms of Redis, so that others come in between.
const PIECE: usize = 500;

/// What a replica says of itself.
#[derive(Debug, Serialize, Deserialize)]
struct Said {
    name: String,
    version: String,
    started: jiff::Timestamp,
    #[serde(default)]
    key: String,
}

impl Redis {
    /// Makes every mailbox due.
    async fn make_all_due(&self, because: Reason) -> Result<(), StoreError> {
        let now = self.inner.clock.now();
        let marks: Vec<Mark> =
            self.mailboxes().await?.into_iter().map(|mailbox| Mark::new(mailbox.id, now, because)).collect();
        for piece in marks.chunks(PIECE) {
            self.mark(piece.to_vec()).await?;
        }
        Ok(())
    }

    /// Signs on; whoever is alone, and whoever finds another Redis than was there before, makes every mailbox due.
    async fn sign_on(&self, said: Vec<u8>) -> Result<(), StoreError> {
        let args = Args::default()
            .add(self.inner.time())
            .add(&self.inner.replica)
            .bytes(said)
            .add(GONE_AFTER.as_micros())
            .add(u8::from(!self.signed_on.load(Ordering::Acquire)))
            .add(LAYOUT);
        let mut answer = Answer::list(self.inner.run(&keys::ANNOUNCE, args).await?)?;
        let was_here = self.signed_on.swap(true, Ordering::AcqRel);
        let (is_another, run, is_empty) = (answer.number()? == 1, answer.text()?, answer.number()? == 1);
        if is_empty && was_here {
            error!(
                "Redis has lost everything, all companies too: restore its files, or apply the company files again"
            );
        }
        if run.is_empty() {
            return Ok(());
        }
        let may_lack_the_last = is_another || (is_empty && was_here);
        self.catch_up(&run, may_lack_the_last).await
    }

    /// Makes every mailbox due, and has the store remember which Redis this is.
    async fn catch_up(&self, run: &str, may_lack_the_last: bool) -> Result<(), StoreError> {
        self.make_all_due(if may_lack_the_last { Reason::StoreChanged } else { Reason::Started }).await?;
        if may_lack_the_last {
            warn!(
                "Redis was started anew, or another took over: what it was told last may be lost, so every mailbox is looked at"
            );
            metrics::counter!("narvaro_store_changed_total").increment(1);
        }
        let args = Args::default().add(run).add(u8::from(may_lack_the_last));
        self.inner.run(&keys::CAUGHT_UP, args).await.map(drop)
    }

    /// Makes sure that no turn begins before its mailbox knows that Redis may have lost what it was told last. By the same connection as before
    /// it is the same Redis.
    pub(super) async fn make_sure(&self, sure_of: &mut Option<Instant>) -> Result<(), StoreError> {
        let connection = self.inner.link.connection(&self.inner.prefix).await;
        let connection = connection.map_err(|error| StoreError::Unavailable(Box::new(error)))?;
        if *sure_of == Some(connection) {
            return Ok(());
        }
        let run = value::bytes(self.inner.run(&keys::ANOTHER, Args::default()).await?)?.unwrap_or_default();
        if !run.is_empty() {
            self.catch_up(&String::from_utf8_lossy(&run), true).await?;
        }
        *sure_of = Some(connection);
        Ok(())
    }

    /// An answer, if it came from the Redis that was made sure of: in a Cluster another may have been pointed to meanwhile.
    pub(super) async fn if_still_sure(
        &self,
        sure_of: Option<Instant>,
        answer: Result<Value, StoreError>,
    ) -> Result<Value, StoreError> {
        if answer.is_ok() && self.inner.link.connection(&self.inner.prefix).await.ok() != sure_of {
            let why = "another Redis has answered, of which nothing is known yet";
            return Err(StoreError::Unavailable(why.into()));
        }
        answer
    }
}

/// Who is alive, by name.
pub(super) fn alive(answer: Value) -> Result<Vec<ReplicaRecord>, StoreError> {
    let mut answer = Answer::list(answer)?;
    let mut replicas = Vec::new();
    while !answer.is_empty() {
        let said: Said = serde_json::from_slice(&answer.bytes()?)
            .map_err(|error| StoreError::Corrupt { what: "replica", source: Box::new(error) })?;
        let seen = answer.time()?.unwrap_or_default();
        let Said { name, version, started, key } = said;
        let replica = Replica { name, version, started, key };
        replicas.push(ReplicaRecord { replica, seen });
    }
    replicas.sort_unstable_by(|a, b| a.replica.name.cmp(&b.replica.name));
    Ok(replicas)
}

#[async_trait]
impl Replicas for Redis {
    async fn announce(&self, me: &Replica) -> Result<(), StoreError> {
        let Replica { name, version, started, key } = me.clone();
        let said = serde_json::to_vec(&Said { name, version, started, key }).unwrap_or_default();
        self.sign_on(said).await?;
        self.tidy_up().await
    }

    async fn replicas(&self) -> Result<Vec<ReplicaRecord>, StoreError> {
        let args = Args::default().add(self.inner.time()).add(GONE_AFTER.as_micros());
        alive(self.inner.run(&keys::REPLICAS, args).await?)
    }

    async fn hold_duty(&self, duty: Duty, hold: Duration) -> Result<bool, StoreError> {
        let args = Args::default()
            .add(self.inner.time())
            .add(duty.name())
            .add(&self.inner.replica)
            .add(hold.as_micros());
        Ok(number(self.inner.run(&keys::DUTY, args).await?)? == 1)
    }

    async fn leave(&self) -> Result<(), StoreError> {
        self.inner.holding().forget_all();
        self.inner.lost_an_answer();
        self.tidy_up().await?;
        self.signed_on.store(false, Ordering::Release);
        self.inner.run(&keys::SIGN_OFF, Args::default().add(&self.inner.replica)).await.map(drop)
    }
}
