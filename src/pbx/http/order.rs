//! Keeps the requests about one extension in order: one at a time, and never an older one after a
//! newer one.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use jiff::{SignedDuration, Timestamp};
use tokio::sync::{Mutex as AsyncMutex, watch};

use super::values::Names;
use crate::{
    model::{Extension, Generation},
    presence::PbxError,
};

/// How long the newest generation is remembered after it was last seen. A lease lasts seconds, so no
/// worker is so late; and an extension that moves to another mailbox, whose generations are lower,
/// is not shut out for good.
const REMEMBERED: SignedDuration = SignedDuration::from_mins(10);

/// The PBX's own names of an extension, once they have been looked up.
pub(super) type Found = Option<Names>;

/// All extensions that were spoken about.
#[derive(Debug, Default)]
pub(super) struct Order {
    lanes: Mutex<HashMap<Extension, Arc<Lane>>>,
}

/// One extension.
#[derive(Debug)]
pub(super) struct Lane {
    newest: watch::Sender<Newest>,
    /// Held while a request about the extension is under way.
    pub(super) busy: AsyncMutex<Found>,
}

#[derive(Debug, Clone, Copy)]
struct Newest {
    generation: Generation,
    seen: Timestamp,
}

/// One change's place in the order.
#[derive(Debug)]
pub(super) struct Place {
    extension: Extension,
    generation: Generation,
    newest: watch::Receiver<Newest>,
}

impl Order {
    /// The lane of `extension`.
    pub(super) fn lane(&self, extension: &Extension) -> Arc<Lane> {
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        let lane = || {
            let nothing = Newest { generation: Generation(0), seen: Timestamp::MIN };
            Arc::new(Lane { newest: watch::Sender::new(nothing), busy: AsyncMutex::new(None) })
        };
        lanes.entry(extension.clone()).or_insert_with(lane).clone()
    }
}

impl Lane {
    /// Takes a place for a change; older ones that still wait find out by [`Place::superseded`].
    pub(super) fn enter(
        &self,
        extension: &Extension,
        generation: Generation,
        now: Timestamp,
    ) -> Result<Place, PbxError> {
        self.newest.send_if_modified(|newest| {
            let forgotten = now.duration_since(newest.seen) > REMEMBERED;
            let takes = generation >= newest.generation || forgotten;
            if takes {
                *newest = Newest { generation, seen: now };
            }
            takes
        });
        let place = Place { extension: extension.clone(), generation, newest: self.newest.subscribe() };
        place.check()?;
        Ok(place)
    }
}

impl Place {
    /// Whether it is still this change's turn.
    pub(super) fn check(&self) -> Result<(), PbxError> {
        if self.newest.borrow().generation > self.generation {
            return Err(self.error());
        }
        Ok(())
    }

    /// Completes, with the error to return, once a newer change has come in.
    pub(super) async fn superseded(&self) -> PbxError {
        let mut newest = self.newest.clone();
        if newest.wait_for(|newest| newest.generation > self.generation).await.is_err() {
            // The sender lives in the lane, and lanes are never taken away.
            std::future::pending::<()>().await;
        }
        self.error()
    }

    fn error(&self) -> PbxError {
        PbxError::Refused { reason: format!("a newer change of extension `{}` has come in", self.extension) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn an_older_generation_is_refused_and_the_same_one_is_not() {
        let (order, extension) = (Order::default(), "1001".parse().unwrap());
        let lane = order.lane(&extension);
        let first = lane.enter(&extension, Generation(5), at(0)).unwrap();
        assert!(lane.enter(&extension, Generation(5), at(1)).is_ok());
        assert!(lane.enter(&extension, Generation(4), at(1)).is_err());
        assert!(first.check().is_ok());
        lane.enter(&extension, Generation(6), at(2)).unwrap();
        assert!(first.check().is_err());
    }

    #[test]
    fn generations_are_forgotten_so_that_an_extension_may_move_to_another_mailbox() {
        let (order, extension) = (Order::default(), "1001".parse().unwrap());
        let lane = order.lane(&extension);
        lane.enter(&extension, Generation(500), at(0)).unwrap();
        assert!(lane.enter(&extension, Generation(3), at(600)).is_err());
        assert!(lane.enter(&extension, Generation(3), at(601)).is_ok());
    }
}
