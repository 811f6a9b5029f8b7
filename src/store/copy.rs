//! Copying a store into an empty one, whatever the forms of both.
//!
//! The source is only read. Until the copy has been read back and found equal, the target is marked as incomplete: no
//! service starts on it, and the next copy into it begins anew.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};

use super::portable::{BeginError, Piece, Portable, Reading, SpentTicket, Sum, Summary, is_empty, sum_up};
use crate::{counted::counted, queue::StoreError};

/// Tickets that run out within this time after the copy are not looked for in it: a store may let go of them meanwhile.
const NEARLY_RUN_OUT: SignedDuration = SignedDuration::from_mins(10);

/// How far a copy is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// So many mailboxes are copied.
    Copied(u64),
    /// So many mailboxes have been read back.
    ReadBack(u64),
}

/// Why a store was not copied.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// A service works on one of the two.
    #[error("`{store}` is in use: {by}")]
    InUse {
        /// Which.
        store: String,
        /// Who does.
        by: String,
    },
    /// A copy into the source was never finished.
    #[error("`{store}` is not whole: a copy into it was begun and not finished")]
    SourceIncomplete {
        /// The source.
        store: String,
    },
    /// The source has nothing in it: another one was meant.
    #[error("there is nothing at `{store}`")]
    Nothing {
        /// The source.
        store: String,
    },
    /// The target has something in it.
    #[error("nothing is copied into `{store}`: it has {has} already")]
    TargetNotEmpty {
        /// The target.
        store: String,
        /// What.
        has: String,
    },
    /// One of the two does not do as asked.
    #[error("`{store}` cannot be {done}")]
    Store {
        /// Which.
        store: String,
        /// `read` or `written`.
        done: &'static str,
        /// Why.
        #[source]
        source: StoreError,
    },
    /// What was read back is something else.
    #[error("the copy in `{store}` is not equal to what was copied: {differs}")]
    Differs {
        /// The target.
        store: String,
        /// What differs.
        differs: String,
    },
}

fn failed<'a>(store: &'a dyn Portable, done: &'static str) -> impl Fn(StoreError) -> CopyError + 'a {
    move |source| CopyError::Store { store: store.name(), done, source }
}

/// Copies everything that is in `from` into the empty `to`, and reads it back; `told` hears how far it is.
///
/// # Errors
/// [`CopyError`]. Whatever it is, `from` is untouched; and `to` too, or incomplete.
pub async fn copy(
    from: &dyn Portable,
    to: &dyn Portable,
    now: Timestamp,
    told: &mut dyn FnMut(Stage),
) -> Result<Summary, CopyError> {
    ensure_whole(from).await?;
    idle(to).await?;
    let numbers = from.numbers().await.map_err(failed(from, "read"))?;
    to.begin(&numbers).await.map_err(|error| match error {
        BeginError::NotEmpty { has } => CopyError::TargetNotEmpty { store: to.name(), has },
        BeginError::Store(source) => failed(to, "written")(source),
    })?;
    let copied = transfer(from, to, told).await?;
    let found =
        sum_up(to, &mut |mailboxes| told(Stage::ReadBack(mailboxes))).await.map_err(failed(to, "read"))?;
    let differs = difference(&copied.summary, &found)
        .or(lost_tickets(&copied.tickets, to, now).await?)
        .or(lost_numbers(&numbers, to).await?);
    if let Some(differs) = differs {
        return Err(CopyError::Differs { store: to.name(), differs });
    }
    // A service that was started meanwhile has gone on in what was copied.
    idle(from).await?;
    idle(to).await?;
    to.complete().await.map_err(failed(to, "written"))?;
    Ok(copied.summary)
}

/// Nobody works on it, and it is no half copy.
///
/// # Errors
/// [`CopyError`], where it is not so.
pub async fn ensure_whole(from: &dyn Portable) -> Result<(), CopyError> {
    idle(from).await?;
    match from.is_incomplete().await.map_err(failed(from, "read"))? {
        true => Err(CopyError::SourceIncomplete { store: from.name() }),
        false => Ok(()),
    }
}

/// Something is in it.
///
/// # Errors
/// [`CopyError`], where nothing is.
pub async fn ensure_filled(from: &dyn Portable) -> Result<(), CopyError> {
    match is_empty(from).await.map_err(failed(from, "read"))? {
        true => Err(CopyError::Nothing { store: from.name() }),
        false => Ok(()),
    }
}

struct Copied {
    summary: Summary,
    tickets: Vec<SpentTicket>,
}

async fn transfer(
    from: &dyn Portable,
    to: &dyn Portable,
    told: &mut dyn FnMut(Stage),
) -> Result<Copied, CopyError> {
    let mut reading = Reading::of(from);
    let mut sum = Sum::new();
    let mut tickets = Vec::new();
    while let Some(piece) = reading.next().await.map_err(failed(from, "read"))? {
        sum.add(&piece);
        if let Piece::Tickets(all) = &piece {
            tickets.clone_from(all);
        }
        to.put(piece).await.map_err(failed(to, "written"))?;
        told(Stage::Copied(sum.counts().mailboxes));
    }
    Ok(Copied { summary: sum.done(), tickets })
}

async fn idle(store: &dyn Portable) -> Result<(), CopyError> {
    match store.in_use().await.map_err(failed(store, "read"))? {
        Some(by) => Err(CopyError::InUse { store: store.name(), by }),
        None => Ok(()),
    }
}

fn difference(copied: &Summary, found: &Summary) -> Option<String> {
    if copied.counts != found.counts {
        return Some(format!("it has {}, and the source {}", found.counts, copied.counts));
    }
    (copied.digest != found.digest)
        .then(|| format!("its digest is {}, and that of the source {}", found.digest, copied.digest))
}

async fn lost_tickets(
    copied: &[SpentTicket],
    to: &dyn Portable,
    now: Timestamp,
) -> Result<Option<String>, CopyError> {
    let found: BTreeSet<SpentTicket> = to.tickets().await.map_err(failed(to, "read"))?.into_iter().collect();
    let remembered = copied.iter().filter(|ticket| ticket.expires > now + NEARLY_RUN_OUT);
    let lost = remembered.filter(|ticket| !found.contains(ticket)).count();
    Ok((lost > 0).then(|| {
        format!("{} missing", counted(lost as u64, "spent consent link is", "spent consent links are"))
    }))
}

async fn lost_numbers(
    copied: &super::portable::Numbers,
    to: &dyn Portable,
) -> Result<Option<String>, CopyError> {
    let found = to.numbers().await.map_err(failed(to, "read"))?;
    Ok((!found.reach(copied)).then(|| format!("it would count on from {found:?} and not from {copied:?}")))
}
