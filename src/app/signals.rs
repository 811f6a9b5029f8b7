//! Makes marks of what a company's PBX tells.
//!
//! A signal is told once. One that the store does not take, because the disk is busy or full, is kept as "read everything
//! of this company back" and tried again until it is taken: no change made by hand is lost, and however
//! many signals are refused, no more is kept than that.

use jiff::SignedDuration;
use tokio::sync::broadcast::{Receiver, error::RecvError};
use tracing::{error, info, warn};

use crate::{
    chain::Chain,
    clock::Clock,
    model::{CompanyId, Extension},
    presence::PbxSignal,
    queue::{DueStore, Mark, Reason, Reasons},
};

/// How long a store that has refused is left alone: it is not mended sooner, and a person does not notice more.
const PAUSE: SignedDuration = SignedDuration::from_secs(2);

/// Runs until the PBX tells nothing any more. `marks` gives the marks of one extension, or of all.
pub(super) async fn follow(
    company: &CompanyId,
    mut signals: Receiver<PbxSignal>,
    queue: &dyn DueStore,
    clock: &dyn Clock,
    marks: impl Fn(Option<&Extension>, Reason) -> Vec<Mark>,
) {
    let mut refused = Reasons::NONE;
    let mut again_at = clock.now();
    loop {
        let (reasons, marks) = tokio::select! {
            signal = signals.recv() => {
                let (extension, reason) = match signal {
                    Ok(PbxSignal::Changed(extension)) => (Some(extension), Reason::PbxChanged),
                    Ok(PbxSignal::LinkUp) => {
                        info!(company.id = %company, "The PBX of company `{company}` answers");
                        (None, Reason::PbxLinkUp)
                    }
                    Ok(PbxSignal::LinkDown) => {
                        warn!(company.id = %company, "The PBX of company `{company}` does not answer");
                        continue;
                    }
                    Err(RecvError::Lagged(missed)) => {
                        metrics::counter!("narvaro_pbx_signals_missed_total").increment(missed);
                        (None, Reason::PbxChanged)
                    }
                    Err(RecvError::Closed) => return,
                };
                if !refused.is_empty() {
                    refused.insert(reason);
                    continue;
                }
                let mut reasons = Reasons::NONE;
                reasons.insert(reason);
                (reasons, marks(extension.as_ref(), reason))
            }
            () = clock.sleep_until(again_at), if !refused.is_empty() => {
                let all = refused.iter().flat_map(|reason| marks(None, reason)).collect();
                (std::mem::take(&mut refused), all)
            }
        };
        if marks.is_empty() {
            continue;
        }
        if let Err(error) = queue.mark(marks).await {
            refused = refused.union(reasons);
            again_at = clock.now() + PAUSE;
            metrics::counter!("narvaro_pbx_signals_refused_total").increment(1);
            error!(company.id = %company, error = %Chain(&error), "What the PBX of company `{company}` told could not be kept, will retry");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            Arc, Mutex,
            atomic::{AtomicBool, Ordering},
        },
        time::Duration,
    };

    use async_trait::async_trait;
    use jiff::Timestamp;
    use tokio::sync::{broadcast, mpsc};

    use super::*;
    use crate::{
        clock::ManualClock,
        model::MailboxId,
        queue::{Depth, Lease, Settled, StoreError, Tally},
    };

    /// A queue that takes marks, or refuses them, and tells either.
    struct Queue {
        refuses: AtomicBool,
        told: mpsc::UnboundedSender<Option<Vec<Mark>>>,
    }

    #[async_trait]
    impl DueStore for Queue {
        async fn mark(&self, marks: Vec<Mark>) -> Result<Tally, StoreError> {
            let refuses = self.refuses.load(Ordering::SeqCst);
            self.told.send((!refuses).then_some(marks)).unwrap();
            if refuses { Err(StoreError::Busy) } else { Ok(Tally::default()) }
        }
        async fn lease(&self, _: usize, _: Duration) -> Result<Vec<Lease>, StoreError> {
            Ok(Vec::new())
        }
        async fn wait(&self) {
            std::future::pending().await
        }
        async fn extend(&self, _: &Lease, _: Duration) -> Result<Timestamp, StoreError> {
            Err(StoreError::Busy)
        }
        async fn begin_reading(&self, _: &Lease) -> Result<bool, StoreError> {
            Err(StoreError::Busy)
        }
        async fn intend(&self, _: &Lease, _: Vec<u8>) -> Result<(), StoreError> {
            Err(StoreError::Busy)
        }
        async fn settle(&self, _: &Lease, _: Settled) -> Result<(), StoreError> {
            Err(StoreError::Busy)
        }
        async fn release(&self, _: &Lease) -> Result<(), StoreError> {
            Err(StoreError::Busy)
        }
        async fn look(&self, _: MailboxId) -> Result<Option<Vec<u8>>, StoreError> {
            Ok(None)
        }
        async fn depth(&self) -> Result<Depth, StoreError> {
            Ok(Depth::default())
        }
    }

    #[tokio::test]
    async fn a_signal_that_the_store_refused_is_kept_and_tried_again() {
        let (told, mut tells) = mpsc::unbounded_channel();
        let queue = Queue { refuses: AtomicBool::new(true), told };
        let clock = ManualClock::at(Timestamp::UNIX_EPOCH);
        let (pbx, signals) = broadcast::channel(16);
        let company: CompanyId = "acme".parse().unwrap();
        let asked = Mutex::new(Vec::new());
        let marks = |extension: Option<&Extension>, reason| {
            asked.lock().unwrap().push((extension.map(ToString::to_string), reason));
            vec![Mark::new(MailboxId(1), Timestamp::UNIX_EPOCH, reason)]
        };
        let test = async {
            let changed = || PbxSignal::Changed("201".parse().unwrap());
            pbx.send(changed()).unwrap();
            assert_eq!(tells.recv().await, Some(None), "refused");
            // These wait for the same moment, and the store is left alone until then.
            pbx.send(changed()).unwrap();
            pbx.send(PbxSignal::LinkUp).unwrap();
            clock.advance(Duration::from_secs(2));
            assert_eq!(tells.recv().await, Some(None), "refused again");
            queue.refuses.store(false, Ordering::SeqCst);
            clock.advance(Duration::from_secs(2));
            let Some(Some(marks)) = tells.recv().await else { panic!("not taken") };
            let reasons: Vec<_> = marks.iter().map(|mark| mark.reason).collect();
            assert_eq!(reasons, [Reason::PbxChanged, Reason::PbxLinkUp]);
            assert!(asked.lock().unwrap().iter().skip(1).all(|(extension, _)| extension.is_none()));
            // Then each again by itself.
            pbx.send(changed()).unwrap();
            assert!(matches!(tells.recv().await, Some(Some(marks)) if marks.len() == 1));
            assert_eq!(asked.lock().unwrap().last().unwrap().0.as_deref(), Some("201"));
        };
        let clock = Arc::clone(&clock);
        tokio::select! {
            () = follow(&company, signals, &queue, &*clock, marks) => panic!("the PBX is still there"),
            () = test => {}
        }
    }
}
