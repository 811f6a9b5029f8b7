//! The one process that there is.

use std::time::Duration;

use async_trait::async_trait;

use super::{Embedded, after};
use crate::queue::{Duty, GONE_AFTER, Replica, ReplicaRecord, Replicas, StoreError};

#[async_trait]
impl Replicas for Embedded {
    async fn announce(&self, me: &Replica) -> Result<(), StoreError> {
        let seen = self.shared.clock.now();
        *self.shared.announced() = Some(ReplicaRecord { replica: me.clone(), seen });
        Ok(())
    }

    async fn replicas(&self) -> Result<Vec<ReplicaRecord>, StoreError> {
        let now = self.shared.clock.now();
        let announced = self.shared.announced().clone();
        Ok(announced.into_iter().filter(|record| after(record.seen, GONE_AFTER) > now).collect())
    }

    async fn hold_duty(&self, _duty: Duty, _hold: Duration) -> Result<bool, StoreError> {
        Ok(true)
    }

    async fn leave(&self) -> Result<(), StoreError> {
        *self.shared.announced() = None;
        let now = self.shared.clock.now();
        self.shared.index().release_all(now);
        self.shared.changed.notify_waiters();
        Ok(())
    }
}
