//! Renewal of many subscriptions as a job: started at once, worked off by turns, followed by its progress.
//!
//! The job marks mailboxes, a few at a time ([`Feeder`]), and watches turns end; it calls nobody itself, so that quotas
//! and back-off are kept as for any other turn. A turn that ends may have had another reason, or may have put the renewal
//! off: a mailbox counts once its state says that what was asked for was tried after it was asked for. What the job is
//! not done with, and how far it has come, is in the store: after a restart it goes on, and nothing is counted twice.
//! Marks outlive a restart too: what they have brought about before the job goes on is not asked for again.
//!
//! Of several processes one works the jobs off, whichever has that duty; any of them starts one, tells how far it has
//! come and ends it early, by what is in the store.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use jiff::{SignedDuration, Timestamp};
use tokio::sync::broadcast::{
    self,
    error::{RecvError, TryRecvError},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    feeder::{Feeder, Pace, Piece},
    membership::Membership,
    offices::Offices,
    views,
};
use crate::{
    admin::{JobInfo, JobProgress},
    chain::Chain,
    clock::SharedClock,
    company::trail::{Deed, JobRecord},
    health::Health,
    model::{CompanyId, Language, MailboxId, Others, SubscriptionId},
    queue::{Mark, Reason, StoreError},
    store::Store,
    turn::state::{MailboxState, Trouble},
};

/// Failures that are told in words; the rest is only counted.
const TOLD: usize = 50;

/// How often one mailbox is put back because Graph asks for patience, before it counts as failed.
const MOST_PUT_BACK: u8 = 5;

/// How long one mailbox is waited for: a turn's longest back-off, twice.
const PATIENCE: SignedDuration = SignedDuration::from_mins(10);

/// How long to wait for a store that does not answer.
const STORE_PAUSE: SignedDuration = SignedDuration::from_secs(2);

/// How often mailboxes are looked at whose turns another process takes: nobody tells here when those end.
const LOOK_EVERY: SignedDuration = SignedDuration::from_secs(2);

/// The jobs that this process works off.
#[derive(Default)]
pub(super) struct Jobs {
    at_work: Mutex<HashMap<String, AtWork>>,
    pub(super) pace: Arc<Mutex<Pace>>,
    /// Held from looking whether a job is under way until it is.
    pub(super) starting: tokio::sync::Mutex<()>,
    /// Held from looking which jobs nobody works off until this process does.
    pub(super) tending: tokio::sync::Mutex<()>,
}

struct AtWork {
    job: Arc<Job>,
    let_go: CancellationToken,
}

/// A job that is worked off here.
pub(super) struct Job {
    info: Mutex<JobInfo>,
    /// What another version keeps with it.
    others: Others,
    /// Of what is stored of it.
    version: AtomicU64,
    cancel: CancellationToken,
}

impl Job {
    fn held(&self) -> MutexGuard<'_, JobInfo> {
        self.info.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn info(&self) -> JobInfo {
        self.held().clone()
    }

    /// Ends it early, unless it has ended.
    pub(super) fn cancel(&self) -> JobProgress {
        let mut info = self.held();
        if !info.progress.finished {
            info.progress.cancelled = true;
            self.cancel.cancel();
        }
        info.progress.clone()
    }

    fn record(&self, info: &JobInfo) -> JobRecord {
        let version = self.version.load(Ordering::Relaxed);
        JobRecord { version, ..JobRecord::new(info.job.0.clone(), document(info, &self.others)) }
    }

    fn is_stored(&self) {
        self.version.fetch_add(1, Ordering::Relaxed);
    }
}

impl Jobs {
    fn held(&self) -> MutexGuard<'_, HashMap<String, AtWork>> {
        self.at_work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enters a job; it counts as worked off here until what is returned is dropped.
    pub(super) fn enter(
        self: &Arc<Self>,
        info: JobInfo,
        record: JobRecord,
        let_go: CancellationToken,
    ) -> (Arc<Job>, Entered) {
        let others = others(&record);
        let JobRecord { id, version, .. } = record;
        let (info, version) = (Mutex::new(info), AtomicU64::new(version));
        let job = Arc::new(Job { info, others, version, cancel: CancellationToken::new() });
        self.held().insert(id.clone(), AtWork { job: Arc::clone(&job), let_go });
        (job, Entered { jobs: Arc::clone(self), id })
    }

    /// The job of that name, where it is worked off here.
    pub(super) fn find(&self, id: &str) -> Option<Arc<Job>> {
        self.held().get(id).map(|at_work| Arc::clone(&at_work.job))
    }

    /// Leaves all of them to whoever has the duty now.
    pub(super) fn let_go(&self) {
        self.held().values().for_each(|at_work| at_work.let_go.cancel());
    }
}

/// A job that is worked off here for as long as this is.
pub(super) struct Entered {
    jobs: Arc<Jobs>,
    id: String,
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.jobs.held().remove(&self.id);
    }
}

/// Reads a stored job.
///
/// # Errors
/// Where the document is none.
pub(super) fn stored(record: &JobRecord) -> Result<JobInfo, serde_json::Error> {
    let mut info: JobInfo = serde_json::from_slice(&record.document)?;
    info.progress.cancelled |= record.cancelled;
    Ok(info)
}

/// Whom a job needs.
#[derive(Clone)]
pub(super) struct Means {
    pub(super) store: Arc<dyn Store>,
    pub(super) offices: Arc<Offices>,
    pub(super) clock: SharedClock,
    pub(super) pace: Arc<Mutex<Pace>>,
    pub(super) membership: Arc<Membership>,
    /// The service stops, or another process works the jobs off.
    pub(super) let_go: CancellationToken,
}

impl Means {
    fn pace(&self) -> MutexGuard<'_, Pace> {
        self.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a mailbox looked like when it was asked: what differs afterwards tells what came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Before {
    asked: Timestamp,
    kept: u64,
    watch: Option<SubscriptionId>,
}

impl Before {
    fn of(state: &MailboxState, asked: Timestamp) -> Self {
        Self { asked, kept: state.watches_kept, watch: watch_of(state) }
    }
}

fn watch_of(state: &MailboxState) -> Option<SubscriptionId> {
    state.watch.as_ref().map(|watch| watch.id.clone())
}

fn trouble_of(state: &MailboxState) -> Option<&Trouble> {
    state.watch_trouble.as_ref().or(state.calendar_trouble.as_ref())
}

/// What came of one mailbox.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Renewed,
    MadeAnew,
    /// Graph asks for patience until then.
    Throttled(Timestamp),
    Failed(Health),
    /// No turn has got so far in time.
    Late,
    /// It is no mailbox of ours, any more or yet.
    Gone,
}

/// What has come of a mailbox; `None`: nothing has been tried since it was asked.
fn judge(before: &Before, after: Option<&MailboxState>) -> Option<Outcome> {
    let Some(after) = after else { return Some(Outcome::Gone) };
    after.renewal_tried_at.filter(|tried| *tried >= before.asked)?;
    let owed = after.owed.reasons.contains(Reason::RenewAsked);
    if !owed && after.watches_kept > before.kept {
        return Some(if watch_of(after) == before.watch { Outcome::Renewed } else { Outcome::MadeAnew });
    }
    Some(match trouble_of(after) {
        Some(Trouble { health: Health::Throttled { .. }, retry_at, .. }) => Outcome::Throttled(*retry_at),
        Some(trouble) => Outcome::Failed(trouble.health.clone()),
        None => Outcome::Gone,
    })
}

/// Whether a renewal that was asked for has been tried since then, and succeeded.
fn is_renewed(state: &MailboxState, since: Timestamp) -> bool {
    let tried = state.renewal_tried_at.is_some_and(|tried| tried > since);
    let renewed =
        state.watch.as_ref().and_then(|watch| watch.renewed_at).is_some_and(|renewed| renewed > since);
    tried && renewed && !state.owed.reasons.contains(Reason::RenewAsked)
}

/// A mailbox that was marked and has not ended.
struct Flight {
    piece: Piece,
    before: Before,
    until: Timestamp,
}

/// A job at work.
pub(super) struct Runner {
    job: Arc<Job>,
    means: Means,
    ended: broadcast::Receiver<MailboxId>,
    feeder: Feeder,
    flights: HashMap<MailboxId, Flight>,
    /// Counted, and not stored yet.
    unsaved: Vec<MailboxId>,
    /// Whether somebody else works it off.
    lost: bool,
    /// When to look at what is on its way, whoever took its turns.
    look_at: Option<Timestamp>,
    /// Not before then is the store asked again.
    store_rests_until: Option<Timestamp>,
}

impl Runner {
    /// `ended` listens from before the first mark is made, so that no turn is missed.
    pub(super) fn new(
        job: Arc<Job>,
        means: Means,
        ended: broadcast::Receiver<MailboxId>,
        feeder: Feeder,
    ) -> Self {
        Self {
            job,
            means,
            ended,
            feeder,
            flights: HashMap::new(),
            unsaved: Vec::new(),
            lost: false,
            look_at: None,
            store_rests_until: None,
        }
    }

    /// Marks the first mailboxes: whoever asked for one is answered when it is due.
    pub(super) async fn begin(&mut self) {
        let now = self.means.clock.now();
        self.step_unless_store_rests(&mut Vec::new(), now).await;
    }

    /// Works until all is done, it is cancelled, or it is let go of: then it goes on at whoever takes it up.
    pub(super) async fn run(mut self) {
        let mut ended = Vec::new();
        loop {
            self.take_ended(&mut ended);
            let now = self.means.clock.now();
            self.take_unheard(&mut ended, now);
            self.step_unless_store_rests(&mut ended, now).await;
            if self.job.held().progress.finished || self.lost {
                return;
            }
            let wake_at = self.wake_at(now);
            let clock = Arc::clone(&self.means.clock);
            let wake = async {
                match wake_at {
                    Some(at) => clock.sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.means.let_go.cancelled() => return,
                () = self.job.cancel.cancelled(), if self.store_rests_until.is_none() => {}
                () = wake => {}
                turn = self.ended.recv() => match turn {
                    Ok(mailbox) => ended.push(mailbox),
                    Err(RecvError::Lagged(_)) => ended.extend(self.flights.keys().copied()),
                    Err(RecvError::Closed) => return,
                },
            }
        }
    }

    /// Takes all turns that have ended by now: what follows from them goes into the store together.
    fn take_ended(&mut self, ended: &mut Vec<MailboxId>) {
        loop {
            match self.ended.try_recv() {
                Ok(mailbox) => ended.push(mailbox),
                // Some turns were missed: each mailbox that is on its way may have had its own.
                Err(TryRecvError::Lagged(_)) => ended.extend(self.flights.keys().copied()),
                Err(TryRecvError::Empty | TryRecvError::Closed) => return,
            }
        }
    }

    /// Takes all mailboxes that may have had a turn in another process.
    fn take_unheard(&mut self, ended: &mut Vec<MailboxId>, now: Timestamp) {
        if self.look_at.is_some_and(|at| at <= now) {
            ended.extend(self.flights.keys().copied());
            self.look_at = None;
        }
        if self.look_at.is_none() && !self.flights.is_empty() && !self.means.membership.is_alone() {
            self.look_at = Some(now + LOOK_EVERY);
        }
    }

    async fn step_unless_store_rests(&mut self, ended: &mut Vec<MailboxId>, now: Timestamp) {
        if self.store_rests_until.is_some_and(|until| now < until) {
            return;
        }
        self.store_rests_until = None;
        if let Err(error) = self.step(ended).await {
            warn!(error = %Chain(&error), "A job waits for the store");
            self.store_rests_until = Some(now + STORE_PAUSE);
        }
    }

    /// When something is to be done by the time alone.
    fn wake_at(&self, now: Timestamp) -> Option<Timestamp> {
        if self.store_rests_until.is_some() {
            return self.store_rests_until;
        }
        let next = self.feeder.next_at(&mut self.means.pace(), now);
        let flights = self.flights.values().map(|flight| flight.until);
        next.into_iter().chain(flights).chain(self.look_at).min()
    }

    /// Counts what has ended, feeds what may follow, and keeps how far it has come.
    async fn step(&mut self, ended: &mut Vec<MailboxId>) -> Result<(), StoreError> {
        while let Some(mailbox) = ended.last() {
            self.look_at(*mailbox).await?;
            ended.pop();
        }
        self.give_up_on_late().await?;
        let cancelled = self.job.cancel.is_cancelled();
        if !cancelled {
            self.feed().await?;
        }
        if cancelled || (self.feeder.is_empty() && self.flights.is_empty()) {
            return self.close().await;
        }
        if !self.unsaved.is_empty() {
            let record = self.job.record(&self.job.info());
            if !self.means.store.advance_job(record, self.unsaved.clone()).await? {
                self.lost = true;
                return Ok(());
            }
            self.job.is_stored();
            self.unsaved.clear();
        }
        Ok(())
    }

    /// Counts a mailbox whose turn has ended, if that turn was the one.
    async fn look_at(&mut self, mailbox: MailboxId) -> Result<(), StoreError> {
        let Some(flight) = self.flights.get(&mailbox) else { return Ok(()) };
        let state = self.state_of(mailbox).await?;
        let Some(outcome) = judge(&flight.before, state.as_ref()) else { return Ok(()) };
        let Some(flight) = self.flights.remove(&mailbox) else { return Ok(()) };
        match outcome {
            Outcome::Throttled(until) if flight.piece.put_back < MOST_PUT_BACK => {
                self.feeder.put_back(flight.piece, until);
            }
            outcome => self.count(flight.piece, outcome),
        }
        Ok(())
    }

    /// `None` where there is no such mailbox any more; what cannot be read is begun anew by its next turn.
    async fn state_of(&self, mailbox: MailboxId) -> Result<Option<MailboxState>, StoreError> {
        let document = self.means.store.look(mailbox).await?;
        Ok(document.map(|document| MailboxState::read(&document).unwrap_or_default()))
    }

    async fn give_up_on_late(&mut self) -> Result<(), StoreError> {
        let now = self.means.clock.now();
        let late: Vec<MailboxId> = self
            .flights
            .values()
            .filter(|flight| flight.until <= now)
            .map(|flight| flight.piece.mailbox)
            .collect();
        for mailbox in late {
            let state = self.state_of(mailbox).await?;
            let Some(flight) = self.flights.remove(&mailbox) else { continue };
            let outcome = judge(&flight.before, state.as_ref()).unwrap_or_else(|| {
                let trouble = state.as_ref().and_then(trouble_of);
                trouble.map_or(Outcome::Late, |trouble| Outcome::Failed(trouble.health.clone()))
            });
            self.count(flight.piece, outcome);
        }
        Ok(())
    }

    /// Marks as many as may be.
    async fn feed(&mut self) -> Result<(), StoreError> {
        let begun = self.job.held().started;
        loop {
            let now = self.means.clock.now();
            let taken = self.feeder.take(&mut self.means.pace(), now);
            if taken.is_empty() {
                return Ok(());
            }
            let mut marks = Vec::with_capacity(taken.len());
            let mut failed = None;
            for piece in taken {
                if let Some(outcome) = self.hopeless(&piece.company) {
                    self.count(piece, outcome);
                    continue;
                }
                match self.state_of(piece.mailbox).await {
                    Ok(Some(state)) if is_renewed(&state, begun) => self.count(piece, Outcome::Renewed),
                    Ok(Some(state)) => {
                        marks.push(Mark::new(piece.mailbox, now, Reason::RenewAsked));
                        let flight = Flight { before: Before::of(&state, now), until: now + PATIENCE, piece };
                        self.flights.insert(flight.piece.mailbox, flight);
                    }
                    Ok(None) => self.count(piece, Outcome::Gone),
                    Err(error) => {
                        self.feeder.put_back(piece, now + STORE_PAUSE);
                        failed = Some(error);
                    }
                }
            }
            let marked = self.means.store.mark(marks.clone()).await;
            if let Err(error) = marked {
                for flight in marks.iter().filter_map(|mark| self.flights.remove(&mark.mailbox)) {
                    self.feeder.put_back(flight.piece, now + STORE_PAUSE);
                }
                return Err(error);
            }
            if let Some(error) = failed {
                return Err(error);
            }
        }
    }

    /// What comes of asking where nobody can be asked.
    fn hopeless(&self, company: &CompanyId) -> Option<Outcome> {
        match self.means.offices.get(company) {
            None => Some(Outcome::Gone),
            Some(office) if office.office.integration.is_none() => {
                Some(Outcome::Failed(views::not_consented()))
            }
            Some(_) => None,
        }
    }

    fn count(&mut self, piece: Piece, outcome: Outcome) {
        self.feeder.ended(&piece.company);
        self.unsaved.push(piece.mailbox);
        let mut info = self.job.held();
        let language = info.language.unwrap_or(Language::En);
        let progress = &mut info.progress;
        progress.done += 1;
        let (reason, said) = match outcome {
            Outcome::Renewed => return progress.renewed += 1,
            Outcome::MadeAnew => return progress.made_anew += 1,
            Outcome::Throttled(until) => told(&Health::Throttled { until: Some(until) }, language),
            Outcome::Failed(health) => told(&health, language),
            Outcome::Late => ("late".to_owned(), late(language).to_owned()),
            Outcome::Gone => ("removed".to_owned(), gone(language).to_owned()),
        };
        *progress.reasons.entry(reason).or_default() += 1;
        if progress.failed.len() < TOLD {
            progress.failed.push(format!("{}: {said}", piece.title));
        }
    }

    async fn close(&mut self) -> Result<(), StoreError> {
        let mut ending = self.job.info();
        ending.progress.finished = true;
        let deed = Deed {
            at: self.means.clock.now(),
            who: ending.by.clone(),
            what: "renew_ended",
            company: ending.company.clone(),
            outcome: summary(&ending),
        };
        if !self.means.store.close_job(self.job.record(&ending), deed).await? {
            self.lost = true;
            return Ok(());
        }
        self.job.is_stored();
        info!(job = %ending.job, "{}", summary(&ending));
        *self.job.held() = ending;
        Ok(())
    }
}

fn told(health: &Health, language: Language) -> (String, String) {
    (health.name(), health.cause(language))
}

fn gone(language: Language) -> &'static str {
    language.say(
        "Användaren är borttagen, avstängd eller inte redo än.",
        "The user was removed, is switched off, or is not ready yet.",
    )
}

fn late(language: Language) -> &'static str {
    language.say(
        "Inte klart inom tio minuter; det görs ändå när det går.",
        "Not done within ten minutes; it will be done all the same once possible.",
    )
}

/// What came of a job, for the audit trail and the log.
fn summary(info: &JobInfo) -> String {
    let JobProgress { total, renewed, made_anew, reasons, cancelled, .. } = &info.progress;
    let failed: u64 = reasons.values().sum();
    let early = if *cancelled { ", ended early" } else { "" };
    format!("job {}: {renewed} renewed, {made_anew} made anew, {failed} failed of {total}{early}", info.job)
}

/// What a stored job says beyond what this version knows.
pub(super) fn others(record: &JobRecord) -> Others {
    let known = serde_json::from_slice::<JobInfo>(&record.document).ok().map(serde_json::to_value);
    let document = serde_json::from_slice(&record.document).unwrap_or_default();
    known.and_then(Result::ok).map_or_else(Others::default, |known| Others::of(document, &known))
}

/// A job's document in the store, with what another version keeps there.
pub(super) fn document(info: &JobInfo, others: &Others) -> Vec<u8> {
    #[expect(clippy::expect_used, reason = "proven")]
    let mut document = serde_json::to_value(info).expect("keys are texts and no value can refuse");
    others.put_back(&mut document);
    document.to_string().into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::turn::state::WatchKept;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn state(kept: u64, watch: &str) -> MailboxState {
        let watch = WatchKept {
            id: watch.parse().unwrap(),
            expires: at("2026-11-30T08:00:00Z"),
            renew_at: at("2026-11-26T08:00:00Z"),
            renewed_at: None,
            unconfirmed: false,
            generation: 1,
            key: String::new(),
            rich: false,
        };
        MailboxState { watches_kept: kept, watch: Some(watch), ..MailboxState::default() }
    }

    fn trouble(health: Health) -> Option<Trouble> {
        let moment = at("2026-11-23T08:05:00Z");
        Some(Trouble { health, since: moment, attempts: 1, retry_at: moment })
    }

    /// That state, after a turn that tried what was asked for and left this owed.
    fn tried(state: MailboxState, at: Timestamp, owed: &[Reason]) -> MailboxState {
        let mut state = MailboxState { renewal_tried_at: Some(at), ..state };
        owed.iter().for_each(|reason| state.owed.reasons.insert(*reason));
        state
    }

    #[test]
    fn a_mailbox_counts_once_its_renewal_was_tried_after_it_was_asked_for() {
        let asked = at("2026-11-23T08:00:00Z");
        let early = at("2026-11-23T07:59:59Z");
        let before = Before::of(&state(3, "a"), asked);
        assert_eq!(judge(&before, Some(&state(3, "a"))), None, "a turn that did not get so far");
        assert_eq!(judge(&before, Some(&state(4, "a"))), None, "renewed without being asked");
        assert_eq!(judge(&before, Some(&tried(state(4, "a"), early, &[]))), None, "asked for before");
        assert_eq!(judge(&before, Some(&tried(state(4, "a"), asked, &[]))), Some(Outcome::Renewed));
        assert_eq!(judge(&before, Some(&tried(state(4, "b"), asked, &[]))), Some(Outcome::MadeAnew));
        assert_eq!(judge(&before, Some(&tried(state(3, "a"), asked, &[]))), Some(Outcome::Gone));
        assert_eq!(judge(&before, None), Some(Outcome::Gone));
    }

    #[test]
    fn what_was_renewed_since_a_job_began_is_not_asked_for_again() {
        let begun = at("2026-11-23T08:00:00Z");
        let (early, late) = (at("2026-11-23T07:59:59Z"), at("2026-11-23T08:00:01Z"));
        let renewed = |renewed_at| {
            let mut state = state(4, "a");
            state.watch.as_mut().unwrap().renewed_at = Some(renewed_at);
            state
        };
        assert!(is_renewed(&tried(renewed(late), late, &[]), begun));
        assert!(!is_renewed(&renewed(late), begun), "renewed without being asked");
        assert!(!is_renewed(&tried(renewed(late), early, &[]), begun), "asked for before");
        assert!(!is_renewed(&tried(renewed(early), late, &[]), begun), "tried, and not renewed");
        assert!(!is_renewed(&tried(renewed(late), late, &[Reason::RenewAsked]), begun), "asked for again");
    }

    #[test]
    fn a_trouble_counts_only_if_the_renewal_was_tried() {
        let asked = at("2026-11-23T08:00:00Z");
        let before = Before::of(&state(3, "a"), asked);
        let failing = |health| MailboxState { watch_trouble: trouble(health), ..state(4, "a") };
        let quota = || failing(Health::QuotaReached);
        assert_eq!(judge(&before, Some(&quota())), None);
        // Renewed by itself meanwhile; what was asked for has failed all the same.
        let failed = tried(quota(), asked, &[Reason::RenewAsked]);
        assert_eq!(judge(&before, Some(&failed)), Some(Outcome::Failed(Health::QuotaReached)));
        let throttled = MailboxState {
            calendar_trouble: trouble(Health::Throttled { until: None }),
            ..tried(state(3, "a"), asked, &[Reason::RenewAsked])
        };
        let until = at("2026-11-23T08:05:00Z");
        assert_eq!(judge(&before, Some(&throttled)), Some(Outcome::Throttled(until)));
    }
}
