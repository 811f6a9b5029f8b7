//! Companies on their way out, followed until they are gone.
//!
//! A removal is an apply that leaves nobody in: each user's last turn gives the phone back and deletes the subscription,
//! as for any user who is taken out. What is left to do is to forget the company once the last of them is gone. That
//! it is leaving stands in its stored document, so that a restart goes on with it.

use std::sync::Arc;

use jiff::SignedDuration;
use tokio::sync::broadcast::{self, error::RecvError};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::offices::Offices;
use crate::{
    chain::Chain,
    clock::SharedClock,
    model::{CompanyId, MailboxId},
};

/// When a company that could not be forgotten is tried again.
const AGAIN: SignedDuration = SignedDuration::from_secs(60);

/// Follows a company until it is forgotten, or taken back by an apply. `ended` tells whose turns end from before this on.
pub(super) async fn see_off(
    company: CompanyId,
    offices: Arc<Offices>,
    clock: SharedClock,
    mut ended: broadcast::Receiver<MailboxId>,
    shutdown: CancellationToken,
) {
    loop {
        match offices.forget_left(&company).await {
            Ok(true) => return,
            Ok(false) => {}
            Err(error) => {
                warn!(company.id = %company, error = %Chain(&error), "Company `{company}` could not be forgotten, will retry");
            }
        }
        let again = clock.sleep_until(clock.now() + AGAIN);
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = again => {}
            open = one_left(&offices, &mut ended) => if !open { return },
        }
    }
}

/// Waits until some mailbox is gone; `false` where no turn will end any more.
async fn one_left(offices: &Offices, ended: &mut broadcast::Receiver<MailboxId>) -> bool {
    loop {
        match ended.recv().await {
            Ok(mailbox) if offices.is_seated(mailbox) => {}
            Ok(_) | Err(RecvError::Lagged(_)) => return true,
            Err(RecvError::Closed) => return false,
        }
    }
}
