//! All that is in a store, whatever its form: read in pieces, written into an empty store, and summed up.
//!
//! It is for moving and checking, while no service works on the store: opening a store for it writes no mark, starts
//! nothing that changes anything, and refuses one in use. Everything that a service would miss is here. What a start
//! makes up for is not: who waits in which order, leases, which marks were seen lately, and rooms for reading.
//!
//! What it promises:
//! - a store that was written by [`begin`](Portable::begin), [`put`](Portable::put) and
//!   [`complete`](Portable::complete) is read back equal, to the microsecond; [`Summary`] says so by a digest that does
//!   not depend on the store's form, nor on how large its pieces were;
//! - numbers of mailboxes are not used again, and generations (I3) and revisions go on growing, because [`Numbers`] go
//!   along;
//! - between `begin` and `complete` no service starts on it, and `begin` starts anew.
//!
//! Why one bound for all generations and not one for each mailbox: the embedded store does not know the latter, and
//! a bound that is too high costs nothing.

use async_trait::async_trait;
use jiff::Timestamp;
use sha2::{Digest as _, Sha256};

use crate::{
    company::{
        records::{CompanyRecord, MailboxRecord},
        trail::{JobRecord, TrailEntry},
    },
    counted::counted,
    model::{Generation, ItemVersion, MailboxId},
    queue::{Gathered, StoreError, Urgency},
};

/// How many mailboxes, or entries of the audit trail, are in memory at a time. A state may have some 100 KB.
const PIECE: usize = 500;

/// A mailbox, with all that its next turn goes by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredMailbox {
    /// Whose it is.
    pub record: MailboxRecord,
    /// The turn's document; empty where it never had a turn.
    pub state: Vec<u8>,
    /// What a turn that did not come to its end had announced to write.
    pub intent: Option<Vec<u8>>,
    /// When it is due by itself.
    pub due: Option<Timestamp>,
    /// How urgent that is.
    pub urgency: Urgency,
    /// What marks ask for that no turn has settled, those in a lease that nobody holds any more too. It is due since
    /// the first of them was made.
    pub gathered: Gathered,
}

/// A job, with the mailboxes that it is not done with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredJob {
    /// The job.
    pub record: JobRecord,
    /// Those mailboxes, by number.
    pub left: Vec<MailboxId>,
}

/// A ticket that is not to be used again.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct SpentTicket {
    /// The ticket.
    pub ticket: String,
    /// Until when that is remembered, in whole seconds.
    pub expires: Timestamp,
}

/// Where counting goes on, whatever there is now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Numbers {
    /// The highest number that a mailbox ever had.
    pub mailbox: u64,
    /// The highest number that an entry of the audit trail ever had.
    pub trail: u64,
    /// A generation that no lease was above.
    pub generation: Generation,
    /// The revision of the last change of all.
    pub revision: u64,
}

impl Numbers {
    /// Whether counting on from these gives none that the others may have given.
    pub fn reach(&self, others: &Self) -> bool {
        self.mailbox >= others.mailbox
            && self.trail >= others.trail
            && self.generation >= others.generation
            && self.revision >= others.revision
    }
}

/// A part of what is in a store.
#[derive(Debug, Clone)]
pub enum Piece {
    /// Companies, by id.
    Companies(Vec<CompanyRecord>),
    /// Mailboxes, by number.
    Mailboxes(Vec<StoredMailbox>),
    /// Entries of the audit trail, by number.
    Trail(Vec<TrailEntry>),
    /// Jobs, the oldest first.
    Jobs(Vec<StoredJob>),
    /// Spent tickets.
    Tickets(Vec<SpentTicket>),
}

/// Something in a store that does not fit together.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Fault {
    /// Where.
    pub place: String,
    /// What is wrong.
    pub said: String,
    /// What to do about it.
    pub remedy: String,
    /// What a copy does about it.
    #[serde(skip)]
    pub in_copy: InCopy,
    /// Of how many things this is said: more than one, where there are very many alike.
    #[serde(skip)]
    pub things: u64,
}

impl Fault {
    /// One thing, that a copy takes along as it is.
    pub fn new(place: impl Into<String>, said: impl Into<String>, remedy: impl Into<String>) -> Self {
        let (place, said, remedy) = (place.into(), said.into(), remedy.into());
        Self { place, said, remedy, in_copy: InCopy::AsItIs, things: 1 }
    }
}

/// What becomes in a copy of something that does not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InCopy {
    /// It is copied with what is wrong with it.
    AsItIs,
    /// It is written anew from what is whole, and fits.
    MadeAnew,
    /// It is not in the copy.
    LeftBehind,
    /// There is no copy: it cannot be read past this.
    InTheWay,
}

/// Why a store cannot be copied into.
#[derive(Debug, thiserror::Error)]
pub enum BeginError {
    /// Something is in it.
    #[error("there is something in it already: {has}")]
    NotEmpty {
        /// What: `3 companies, 120 mailboxes`.
        has: String,
    },
    /// It does not do as asked.
    #[error("it cannot be written")]
    Store(#[from] StoreError),
}

/// A store without a service.
#[async_trait]
pub trait Portable: Send + Sync {
    /// What to call it in messages: as in the configuration, without secrets.
    fn name(&self) -> String;

    /// Who works on it now, in words; `None`: nobody.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    async fn in_use(&self) -> Result<Option<String>, StoreError>;

    /// Whether a copy into it was begun and not finished.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    async fn is_incomplete(&self) -> Result<bool, StoreError>;

    /// Where counting goes on.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    async fn numbers(&self) -> Result<Numbers, StoreError>;

    /// All companies, by id.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    async fn companies(&self) -> Result<Vec<CompanyRecord>, StoreError>;

    /// Up to `most` mailboxes with higher numbers than `after`, by number.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    async fn mailboxes_after(
        &self,
        after: Option<MailboxId>,
        most: usize,
    ) -> Result<Vec<StoredMailbox>, StoreError>;

    /// Up to `most` entries of the audit trail with higher numbers than `after`, by number.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    async fn trail_after(&self, after: Option<u64>, most: usize) -> Result<Vec<TrailEntry>, StoreError>;

    /// All jobs, the oldest first.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    async fn jobs(&self) -> Result<Vec<StoredJob>, StoreError>;

    /// Spent tickets that are remembered; those that have run out may be among them.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    async fn tickets(&self) -> Result<Vec<SpentTicket>, StoreError>;

    /// What keeps the store from being read at all, as far as it can be named; the rest need not be asked then, and fails.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    async fn obstacles(&self) -> Result<Vec<Fault>, StoreError> {
        Ok(Vec::new())
    }

    /// What does not fit together in the store's own structures. What the service's documents say is not its concern.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    async fn faults(&self) -> Result<Vec<Fault>, StoreError>;

    /// Begins a copy into it: what an unfinished one has left goes, numbers are counted on from `numbers` at least, and
    /// from here on the store is incomplete.
    ///
    /// # Errors
    /// [`BeginError::NotEmpty`]: nothing was changed.
    async fn begin(&self, numbers: &Numbers) -> Result<(), BeginError>;

    /// Writes a part, between [`begin`](Self::begin) and [`complete`](Self::complete). Nothing in it is there yet.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]: the copy has to begin anew.
    async fn put(&self, piece: Piece) -> Result<(), StoreError>;

    /// The copy is whole: a service may start on the store, and makes every mailbox due as after any stop.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]: it is still incomplete.
    async fn complete(&self) -> Result<(), StoreError>;
}

/// How much there is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Counts {
    /// Companies.
    pub companies: u64,
    /// Mailboxes.
    pub mailboxes: u64,
    /// How many of them have something waiting that no turn has settled.
    pub waiting: u64,
    /// Entries of the audit trail.
    pub trail: u64,
    /// Jobs.
    pub jobs: u64,
}

impl std::fmt::Display for Counts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { companies, mailboxes, waiting, trail, jobs } = *self;
        let companies = counted(companies, "company", "companies");
        write!(f, "{companies}, {}", counted(mailboxes, "mailbox", "mailboxes"))?;
        if waiting > 0 {
            write!(f, " ({waiting} with something waiting)")?;
        }
        let trail = counted(trail, "entry of the audit trail", "entries of the audit trail");
        write!(f, ", {trail}, {}", counted(jobs, "job", "jobs"))
    }
}

/// SHA-256 over all that is in a store but spent tickets, which a store lets go of by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Digest([u8; 32]);

impl std::fmt::Display for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// What is in a store, in short.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// How much.
    pub counts: Counts,
    /// Equal for equal contents.
    pub digest: Digest,
}

/// Reads all of a store and sums it up; `told` hears how many mailboxes that were so far.
///
/// # Errors
/// [`StoreError::Unavailable`].
pub async fn sum_up(store: &dyn Portable, told: &mut dyn FnMut(u64)) -> Result<Summary, StoreError> {
    let mut reading = Reading::of(store);
    let mut sum = Sum::new();
    while let Some(piece) = reading.next().await? {
        sum.add(&piece);
        told(sum.counts.mailboxes);
    }
    Ok(sum.done())
}

/// Whether there is nothing at all in a store.
///
/// # Errors
/// [`StoreError::Unavailable`].
pub async fn is_empty(store: &dyn Portable) -> Result<bool, StoreError> {
    Ok(store.mailboxes_after(None, 1).await?.is_empty()
        && store.companies().await?.is_empty()
        && store.trail_after(None, 1).await?.is_empty()
        && store.jobs().await?.is_empty()
        && store.tickets().await?.is_empty())
}

/// Reads a store from its beginning to its end, a piece at a time.
pub(super) struct Reading<'a> {
    store: &'a dyn Portable,
    next: Next,
}

enum Next {
    Companies,
    Mailboxes(Option<MailboxId>),
    Trail(Option<u64>),
    Jobs,
    Tickets,
    Nothing,
}

impl<'a> Reading<'a> {
    pub(super) fn of(store: &'a dyn Portable) -> Self {
        Self { store, next: Next::Companies }
    }

    /// The next piece; `None`: that was all.
    pub(super) async fn next(&mut self) -> Result<Option<Piece>, StoreError> {
        let (piece, next) = match self.next {
            Next::Companies => (Piece::Companies(self.store.companies().await?), Next::Mailboxes(None)),
            Next::Mailboxes(after) => {
                let mailboxes = self.store.mailboxes_after(after, PIECE).await?;
                let last = mailboxes.last().map(|last| last.record.id);
                let next = last.map_or(Next::Trail(None), |last| Next::Mailboxes(Some(last)));
                (Piece::Mailboxes(mailboxes), next)
            }
            Next::Trail(after) => {
                let entries = self.store.trail_after(after, PIECE).await?;
                let last = entries.last().map(|last| last.number);
                let next = last.map_or(Next::Jobs, |last| Next::Trail(Some(last)));
                (Piece::Trail(entries), next)
            }
            Next::Jobs => (Piece::Jobs(self.store.jobs().await?), Next::Tickets),
            Next::Tickets => (Piece::Tickets(self.store.tickets().await?), Next::Nothing),
            Next::Nothing => return Ok(None),
        };
        self.next = next;
        Ok(Some(piece))
    }
}

/// Sums up pieces: each thing by a letter and its fields, each field with its length or in a fixed one, so that no two
/// contents read alike.
pub(super) struct Sum {
    hash: Sha256,
    counts: Counts,
}

impl Sum {
    pub(super) fn new() -> Self {
        Self { hash: Sha256::new(), counts: Counts::default() }
    }

    pub(super) fn counts(&self) -> &Counts {
        &self.counts
    }

    pub(super) fn done(self) -> Summary {
        Summary { counts: self.counts, digest: Digest(self.hash.finalize().into()) }
    }

    pub(super) fn add(&mut self, piece: &Piece) {
        match piece {
            Piece::Companies(companies) => companies.iter().for_each(|company| self.company(company)),
            Piece::Mailboxes(mailboxes) => mailboxes.iter().for_each(|mailbox| self.mailbox(mailbox)),
            Piece::Trail(entries) => entries.iter().for_each(|entry| self.entry(entry)),
            Piece::Jobs(jobs) => jobs.iter().for_each(|job| self.job(job)),
            Piece::Tickets(_) => {}
        }
    }

    fn company(&mut self, company: &CompanyRecord) {
        let CompanyRecord { id, revision, applied, draft, standing } = company;
        self.counts.companies += 1;
        self.hash.update(b"c");
        self.bytes(id.as_str().as_bytes());
        self.number(*revision);
        for document in [applied, draft, standing] {
            self.perhaps(document.as_deref());
        }
    }

    fn mailbox(&mut self, mailbox: &StoredMailbox) {
        let StoredMailbox { record, state, intent, due, urgency, gathered } = mailbox;
        let MailboxRecord { id, company, extension, retired } = record;
        self.counts.mailboxes += 1;
        self.counts.waiting += u64::from(!gathered.is_empty());
        self.hash.update(b"m");
        self.number(id.0);
        self.bytes(company.as_str().as_bytes());
        self.bytes(extension.as_str().as_bytes());
        self.hash.update([u8::from(*retired), *urgency as u8]);
        self.bytes(state);
        self.perhaps(intent.as_deref());
        self.time(*due);
        self.gathered(gathered);
    }

    fn gathered(&mut self, gathered: &Gathered) {
        let Gathered { reasons, hints, overflow, watches, since } = gathered;
        self.number(reasons.iter().count() as u64);
        reasons.iter().for_each(|reason| self.hash.update([u8::from(reason)]));
        // Where everything is to be read they mean nothing, and a store need not keep them.
        let hints = if *overflow { &[] } else { hints.as_slice() };
        self.number(hints.len() as u64);
        for hint in hints {
            self.bytes(hint.item.as_str().as_bytes());
            self.perhaps(
                hint.version
                    .map(|version| ItemVersion::bits(version).to_be_bytes())
                    .as_ref()
                    .map(<[u8; 8]>::as_slice),
            );
        }
        self.hash.update([u8::from(*overflow)]);
        self.number(watches.len() as u64);
        for (reason, generation) in watches {
            self.hash.update([u8::from(*reason)]);
            self.number(u64::from(*generation));
        }
        self.time(*since);
    }

    fn entry(&mut self, entry: &TrailEntry) {
        let TrailEntry { number, at, who, what, company, outcome } = entry;
        self.counts.trail += 1;
        self.hash.update(b"t");
        self.number(*number);
        self.time(Some(*at));
        self.bytes(who.as_bytes());
        self.bytes(what.as_bytes());
        self.perhaps(company.as_ref().map(|company| company.as_str().as_bytes()));
        self.bytes(outcome.as_bytes());
    }

    fn job(&mut self, job: &StoredJob) {
        let StoredJob { record: JobRecord { id, document, version, cancelled }, left } = job;
        self.counts.jobs += 1;
        self.hash.update(b"j");
        self.bytes(id.as_bytes());
        self.bytes(document);
        self.number(*version);
        self.hash.update([u8::from(*cancelled)]);
        self.number(left.len() as u64);
        left.iter().for_each(|mailbox| self.number(mailbox.0));
    }

    fn number(&mut self, number: u64) {
        self.hash.update(number.to_be_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.hash.update(bytes);
    }

    fn perhaps(&mut self, bytes: Option<&[u8]>) {
        self.hash.update([u8::from(bytes.is_some())]);
        self.bytes(bytes.unwrap_or_default());
    }

    fn time(&mut self, time: Option<Timestamp>) {
        self.perhaps(time.map(|time| time.as_microsecond().to_be_bytes()).as_ref().map(<[u8; 8]>::as_slice));
    }
}
