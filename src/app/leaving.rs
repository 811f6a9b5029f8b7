//! Companies on their way out, followed until they are gone.
//!
//! A removal is an apply that leaves nobody in: each user's last turn gives the phone back and deletes the subscription,
//! as for any user who is taken out. What is left to do is to forget the company once the last of them is gone. That
//! it is leaving stands in its stored document, so that a restart goes on with it, and any process that shares the store.

use std::sync::Arc;

use jiff::SignedDuration;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{membership::Membership, offices::Offices};
use crate::{chain::Chain, clock::SharedClock, queue::Duty};

/// When a company that could not be forgotten is tried again.
const AGAIN: SignedDuration = SignedDuration::from_secs(60);

/// Forgets companies that leave, once nothing is left of them, until `shutdown`.
pub(super) async fn see_off(
    offices: Arc<Offices>,
    membership: Arc<Membership>,
    clock: SharedClock,
    shutdown: CancellationToken,
) {
    let (mut followed, mut duties) = (offices.followed(), membership.changes());
    loop {
        let leaving = offices.leaving();
        if !leaving.is_empty() && membership.hold(Duty::Removals).await.is_some() {
            for company in &leaving {
                if let Err(error) = offices.forget_left(company).await {
                    warn!(company.id = %company, error = %Chain(&error), "Company `{company}` could not be forgotten, will retry");
                }
            }
        }
        let again = clock.sleep_until(clock.now() + AGAIN);
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = followed.changed() => {}
            () = duties.changed(), if !leaving.is_empty() => {}
            () = again, if !leaving.is_empty() => {}
        }
    }
}
