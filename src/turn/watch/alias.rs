//! Whether the alias still leads to the mailbox that is watched.
//!
//! People are renamed, and addresses go to successors. The mailbox is followed by its object id and would go on to be
//! read unnoticed; so the alias is looked up again once a week, with a renewal of the subscription, and when a person asks.

use tracing::{info, warn};

use super::{Integration, Turn};
use crate::{
    calendar::{MailboxRef, ReadError, Resolved},
    queue::Reason,
    timetable::Timetable,
    turn::state::Found,
};

impl Turn<'_> {
    /// Looks the alias up again; whether it leads to another mailbox now. That it cannot be looked up changes nothing:
    /// what can be read is followed.
    pub(super) async fn check_alias(&mut self, integration: &Integration) -> bool {
        let Some(known) = self.state.resolved.clone() else { return false };
        match integration.source.resolve(&self.state.alias).await {
            Ok(found) if same(&found.mailbox, &known.mailbox) => {
                self.state.alias_lost_by = None;
                self.state.alias_shared = false;
                self.state.resolved =
                    Some(Found { mailbox: known.mailbox, primary_smtp: found.primary_smtp });
            }
            Ok(found) => {
                self.follow(found).await;
                return true;
            }
            Err(ReadError::AmbiguousAlias { .. }) => {
                self.state.alias_lost_by = None;
                self.state.alias_shared = true;
            }
            Err(ReadError::UnknownAlias { .. }) => {
                self.state.alias_shared = false;
                if self.state.alias_lost_by.replace(known.mailbox).is_none() {
                    warn!("Nobody has the alias of mailbox {} any more", self.lease.mailbox);
                }
            }
            Err(_) => {}
        }
        false
    }

    /// The address has gone to somebody else, whose calendar it is from now on.
    async fn follow(&mut self, found: Resolved) {
        info!("The alias of mailbox {} leads to another user: that calendar is read", self.lease.mailbox);
        self.end_watch().await;
        let alias = self.state.alias.clone();
        self.state.move_to_alias(&alias);
        self.state.resolved = Some(Found { mailbox: found.mailbox, primary_smtp: found.primary_smtp });
        // Known to be empty until it is read: the phone must not stay behind with the other's meeting.
        self.state.timetable = Some(Timetable::default());
        self.state.owed.reasons.insert(Reason::Missed);
    }
}

fn same(one: &MailboxRef, other: &MailboxRef) -> bool {
    one.object.eq_ignore_ascii_case(&other.object)
}
