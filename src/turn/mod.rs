//! One leased mailbox's turn, start to finish.
//!
//! A turn shows first and reads later: whatever made the mailbox due, the PBX is brought in step with the
//! timetable that is known already, so that a span edge never waits for the calendar server (I6). Then, if
//! marks or timers ask for it, it reads what they ask for, and shows again. Whatever fails is written down as
//! a trouble with a time at which it is tried again; the rest of the turn goes on (I4: a read that failed
//! changes nothing that shows). Reading is [cut short](Cut) when the next span edge comes, when it takes too long, and
//! when the service stops; where as many turns read as may ([`crate::queue`]), it does not even begin. What
//! was not read stays owed.
//!
//! A turn whose edge was leased [ahead](crate::queue::ahead) is made ready before its instant: decided, and what it will write is announced. At the
//! instant it is the same turn as any other.
//!
//! Before a write to the PBX the turn announces it in the store ([`crate::queue::DueStore::intend`]). After a
//! crash between write and settling, what shows on the PBX is then known as ours and not taken for a change
//! by hand; and a worker that has lost its lease is refused there, so that no write is overtaken by an older one (I3).

mod ahead;
mod present;
mod read;
mod retry;
pub mod roster;
pub mod state;
mod watch;

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use tokio::sync::{Semaphore, SemaphorePermit, broadcast};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, warn};

pub use self::retry::RetryPlan;
use self::{
    roster::{Roster, Seat, SeatsCompanies},
    state::{MailboxState, Trouble},
};
use crate::{
    calendar::SweepPlan,
    chain::Chain,
    clock::SharedClock,
    decide::Decision,
    health::Health,
    model::{CompanyId, Disposition, MailboxId, Shown},
    queue::{
        DueStore, HeldAhead, Lease, Mark, Reason, Reasons, STORE_PAUSE, Settled, StoreError, TakesTurns,
        Urgency,
    },
    subscription::WatchPlan,
};

/// How turns go about it.
#[derive(Debug, Clone)]
pub struct TurnSettings {
    /// Length of a lease; a turn that takes longer extends it.
    pub hold: Duration,
    /// How long after its instant an edge is held that was leased ahead ([`crate::queue::AheadSettings::hold`]).
    pub hold_ahead: Duration,
    /// Longest write to a PBX.
    pub write_within: Duration,
    /// Longest reading of a turn, all its calls together: each has its own time-out, and a turn may make many.
    pub read_within: Duration,
    /// How long after a round the next comes, though nothing was announced: silence is not trusted.
    pub sweep: SweepPlan,
    /// How far back and ahead the calendar is read.
    pub window: (SignedDuration, SignedDuration),
    /// How often a PBX that does not report changes is read back.
    pub read_back_every: SignedDuration,
    /// How long to wait after failures.
    pub retry: RetryPlan,
    /// Addresses and life of subscriptions.
    pub watches: WatchPlan,
}

/// How old the mailbox's zone may be when a change is read and only texts are told by it. The night reads it anyway.
const ZONE_FRESH: SignedDuration = SignedDuration::from_hours(24);

/// The same where the change is one of whole days, which begin by it.
const ZONE_FRESH_FOR_DAYS: SignedDuration = SignedDuration::from_mins(10);

/// When a mailbox without a seat is looked at again: its company is about to be seated, or is gone.
const UNSEATED: SignedDuration = SignedDuration::from_secs(60);

/// Soonest that a mailbox is due again by itself, where a time that has passed is left over: turns must not follow one
/// another without end.
const NOT_AT_ONCE: SignedDuration = SignedDuration::from_secs(1);

/// How long a lease may have been on its way from the store, and by how much a clock here may run slower than the store's.
const ON_ITS_WAY: SignedDuration = SignedDuration::from_secs(5);

/// By how much a clock here may run slower than the store's in the minute for which a lease is held ahead.
const CLOCKS_DIFFER: SignedDuration = SignedDuration::from_secs(1);

/// Marks behind which a person stands, or a doubt that only a reading takes away: they are asked for still when there is room to read at last.
const ASKED: [Reason; 5] =
    [Reason::Applied, Reason::Asked, Reason::Consent, Reason::RenewAsked, Reason::StoreChanged];

/// Takes turns.
pub struct Turns {
    store: Arc<dyn DueStore>,
    roster: Arc<Roster>,
    offices: Arc<dyn SeatsCompanies>,
    clock: SharedClock,
    settings: TurnSettings,
    shutdown: CancellationToken,
    ended: broadcast::Sender<MailboxId>,
    /// For turns that were held ahead, which may be very many at once and are bounded by no workers: what they ask the store at a time.
    asking: Semaphore,
    /// The same for what they leave behind, which is not to wait for the former.
    leaving: Semaphore,
}

/// Questions to the store at a time by turns that were held ahead: enough to keep it busy, and few enough to be answered within the
/// time of a call.
const ASKING: usize = 64;

/// Turns that may end before who follows them looks.
const ENDED_KEPT: usize = 1_024;

/// A turn under way.
struct Turn<'a> {
    turns: &'a Turns,
    lease: &'a Lease,
    seat: &'a Seat,
    state: MailboxState,
    /// What the lease had gathered: what is new in this turn, beside what was owed.
    now_asked: Reasons,
    /// Whether reading has come to its end, or to the end of its time.
    has_read: bool,
    /// Whether the subscription has been looked after.
    watch_tended: bool,
    /// Whether all that the calendar owed has been read.
    calendar_read: bool,
    /// Whether the PBX should have been read back and did not answer, or whose change it shows is still in doubt.
    pbx_unread: bool,
    /// Whether the calendar has yet to say whose change the PBX shows.
    in_doubt: bool,
    /// Whether reading was put off: it goes on as soon as there is room.
    put_off: bool,
    /// Whether what was found makes the whole company's push doubtful.
    company_doubted: bool,
    /// Until when the lease surely stands, though the store were away.
    standing: &'a Standing,
    /// What this turn has announced to write so far.
    announced: Vec<Shown>,
    decision: Option<Box<Decision>>,
    /// What was decided ahead for the instant of the edge, as long as nothing has changed since.
    foreseen: Option<Box<Decision>>,
    /// The place among all that are held for that instant.
    held: Option<HeldAhead>,
    /// Whether it was noted how soon after its edge the turn came to what it is about.
    is_edge_noted: bool,
}

/// Until when a lease surely stands: as the store answered last, by the clock here. An answer may lie unread for long, where
/// the process was stopped or the machine slept.
struct Standing {
    until: AtomicI64,
    /// How soon it is extended for the first time.
    first: SignedDuration,
    /// Whether it was given ahead.
    is_ahead: bool,
}

impl Standing {
    fn of(lease: &Lease, hold: Duration) -> Self {
        let third = SignedDuration::try_from(hold / 3).unwrap_or(SignedDuration::from_secs(1));
        let until = AtomicI64::new((lease.until - ON_ITS_WAY).as_microsecond());
        Self { until, first: third, is_ahead: false }
    }

    /// That of a lease that was given ahead. It was on its way long before its end.
    fn ahead(lease: &Lease, settings: &TurnSettings) -> Self {
        let until = AtomicI64::new((lease.until - CLOCKS_DIFFER).as_microsecond());
        Self { until, first: first_extension(lease.mailbox, settings), is_ahead: true }
    }

    fn move_to(&self, at: Timestamp) {
        self.until.store(at.as_microsecond(), Ordering::Release);
    }

    /// Whether it stands at `at`.
    fn holds(&self, at: Timestamp) -> bool {
        at.as_microsecond() < self.until.load(Ordering::Acquire)
    }

    /// Whether it stands for so long from `now` on.
    fn lasts(&self, now: Timestamp, long: Duration) -> bool {
        let long = SignedDuration::try_from(long).unwrap_or(SignedDuration::MAX);
        now.checked_add(long).is_ok_and(|end| self.holds(end))
    }
}

/// How soon after its instant a turn that was held ahead extends its lease for the first time: before the lease is too short for a write to
/// begin. What very many have to extend at the same time, they do one after the other, each at a moment of its own between a quarter and
/// three quarters of the time that there is.
fn first_extension(mailbox: MailboxId, settings: &TurnSettings) -> SignedDuration {
    let spare = settings.hold_ahead.saturating_sub(settings.write_within);
    let spare = SignedDuration::try_from(spare).unwrap_or(SignedDuration::ZERO) - CLOCKS_DIFFER;
    let place = i32::try_from(mailbox.0 % 1_000).unwrap_or_default();
    spare / 4 + spare * place / 2_000
}

/// Why reading did not begin, or did not come to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cut {
    /// As many turns read as may.
    NoRoom,
    /// A span starts or ends.
    Edge,
    /// The service stops.
    Stop,
    /// It took too long.
    TooLong,
}

impl Cut {
    /// For metrics and logs.
    fn name(self) -> &'static str {
        match self {
            Self::NoRoom => "no_room",
            Self::Edge => "edge",
            Self::Stop => "stop",
            Self::TooLong => "too_long",
        }
    }
}

/// How a turn ended.
enum Ended {
    /// The mailbox goes on.
    GoesOn,
    /// Nothing of it is left.
    Gone,
}

impl Turns {
    /// Turns over `store` for whoever is in `roster`, kept in step with what is stored by `offices`; from `shutdown` on they show, and read nothing any more.
    pub fn new(
        store: Arc<dyn DueStore>,
        roster: Arc<Roster>,
        offices: Arc<dyn SeatsCompanies>,
        clock: SharedClock,
        settings: TurnSettings,
        shutdown: CancellationToken,
    ) -> Arc<Self> {
        let ended = broadcast::Sender::new(ENDED_KEPT);
        let (asking, leaving) = (Semaphore::new(ASKING), Semaphore::new(ASKING));
        Arc::new(Self { store, roster, offices, clock, settings, shutdown, ended, asking, leaving })
    }

    /// Tells which mailboxes' turns end from now on, once what they leave behind is stored.
    pub fn ended(&self) -> broadcast::Receiver<MailboxId> {
        self.ended.subscribe()
    }

    /// The seat of a mailbox by the revision that its lease is of, or by a newer one (I13).
    async fn seat(&self, lease: &Lease, standing: &Standing) -> Result<Option<Seat>, StoreError> {
        let sits = || self.roster.seat(lease.mailbox).filter(|seat| seat.office.revision >= lease.revision);
        if let Some(seat) = sits() {
            return Ok(Some(seat));
        }
        // However many ask for it: companies are brought up one at a time.
        tokio::select! {
            brought = self.offices.bring_up(&lease.company, lease.revision) => brought?,
            lost = self.keep(lease, standing) => return Err(lost),
        }
        Ok(sits())
    }

    async fn put_off(
        &self,
        lease: &Lease,
        mut state: MailboxState,
        standing: &Standing,
    ) -> Result<(), StoreError> {
        debug!(company.id = %lease.company, "Mailbox {} has no seat yet", lease.mailbox);
        metrics::counter!("narvaro_turns_put_off_total").increment(1);
        state.owed.merge(&lease.gathered);
        if lease.gathered.reasons.contains(Reason::RenewAsked) {
            state.renewal_tried_at = Some(self.clock.now());
        }
        let due = Some(self.clock.now() + UNSEATED);
        let next = Settled::Next { state: state.write(), due, urgency: Urgency::Soon, to_read: None };
        self.settle(lease, next, standing).await?;
        drop(self.ended.send(lease.mailbox));
        Ok(())
    }

    /// The stored document; one that cannot be read is begun anew, so that the mailbox heals by reading its calendar.
    fn state_of(&self, lease: &Lease) -> MailboxState {
        let read = MailboxState::read(&lease.state).inspect(|state| {
            if !state.unread.is_empty() {
                warn!(members = ?state.unread, "Some of the stored state of mailbox {} cannot be read; all of it is read anew", lease.mailbox);
                metrics::counter!("narvaro_states_unreadable_total").increment(1);
            }
        });
        read.unwrap_or_else(|error| {
            error!(error = %Chain(&error), "The stored state of mailbox {} cannot be read; it is built anew", lease.mailbox);
            metrics::counter!("narvaro_states_unreadable_total").increment(1);
            MailboxState::read(&[]).unwrap_or_default()
        })
    }

    /// Has the calendars of a company looked at, all but the one that is being looked at: push has lost changes, and
    /// their own sweeps may be hours away.
    async fn doubt_company(&self, company: &CompanyId, but: MailboxId) {
        let now = self.clock.now();
        let others = self.roster.seats(Some(company)).into_iter().filter(|(mailbox, _)| *mailbox != but);
        let marks: Vec<Mark> = others.map(|(mailbox, _)| Mark::new(mailbox, now, Reason::Missed)).collect();
        for part in marks.chunks(500) {
            if let Err(error) = self.store.mark(part.to_vec()).await {
                warn!(error = %Chain(&error), company.id = %company, "Some calendars wait for their own sweeps");
            }
        }
    }

    /// Extends the lease while the turn lasts; returns when it is lost. A store that is away takes nothing from whom it gave
    /// the lease to, until its time is over.
    async fn keep(&self, lease: &Lease, standing: &Standing) -> StoreError {
        let third = SignedDuration::try_from(self.settings.hold / 3).unwrap_or(SignedDuration::from_secs(1));
        let mut wait = standing.first;
        loop {
            let now = self.clock.now();
            self.clock.sleep_until(now + wait).await;
            wait = third;
            let _few = self.few(standing, &self.asking).await;
            let asked = self.clock.now();
            match self.store.extend(lease, self.settings.hold).await {
                Ok(_) => standing.move_to(self.stands_until(asked)),
                Err(StoreError::Unavailable(_)) if standing.holds(self.clock.now()) => wait = STORE_PAUSE,
                Err(error) => return error,
            }
        }
    }

    /// Until when a lease that was asked for at `asked` surely stands.
    fn stands_until(&self, asked: Timestamp) -> Timestamp {
        let hold = SignedDuration::try_from(self.settings.hold).unwrap_or(SignedDuration::ZERO);
        asked + hold - ON_ITS_WAY
    }

    /// Stores what a turn leaves behind; a store that is away is tried again as long as the lease surely stands, because what was
    /// shown in the turn would have to be found out again. Between two attempts it leaves its place to others, and
    /// while it waits for one it keeps the lease.
    async fn settle(&self, lease: &Lease, settled: Settled, standing: &Standing) -> Result<(), StoreError> {
        loop {
            let few = tokio::select! {
                biased;
                few = self.few(standing, &self.leaving) => few,
                lost = self.keep(lease, standing) => return Err(lost),
            };
            let outcome = self.store.settle(lease, settled.clone()).await;
            drop(few);
            match outcome {
                Err(StoreError::Unavailable(error)) if standing.holds(self.clock.now() + STORE_PAUSE) => {
                    debug!(error = %Chain(&*error), "A turn of mailbox {} waits for the store", lease.mailbox);
                    self.clock.sleep_until(self.clock.now() + STORE_PAUSE).await;
                }
                outcome => return outcome,
            }
        }
    }

    /// A place among the few that ask the store at a time, for turns that no worker bounds.
    async fn few<'a>(&self, standing: &Standing, places: &'a Semaphore) -> Option<SemaphorePermit<'a>> {
        // The semaphores are never closed.
        if standing.is_ahead { places.acquire().await.ok() } else { None }
    }

    /// Takes the turn of a mailbox, whose state may have been read already.
    async fn begin(
        &self,
        lease: &Lease,
        standing: &Standing,
        state: Option<MailboxState>,
        held: Option<HeldAhead>,
    ) -> Result<(), StoreError> {
        let seat = self.seat(lease, standing).await;
        let state = state.unwrap_or_else(|| self.state_of(lease));
        let seat = match seat {
            Ok(Some(seat)) => seat,
            Ok(None) => return self.put_off(lease, state, standing).await,
            Err(error) => {
                warn!(company.id = %lease.company, error = %Chain(&error), "What is stored of company `{}` cannot be read; mailbox {} waits", lease.company, lease.mailbox);
                let _few = self.few(standing, &self.leaving).await;
                return self.store.release(lease).await;
            }
        };
        let mut turn = self.turn(lease, &seat, state, standing);
        turn.held = held;
        self.go_through(turn).await
    }

    fn turn<'a>(
        &'a self,
        lease: &'a Lease,
        seat: &'a Seat,
        state: MailboxState,
        standing: &'a Standing,
    ) -> Box<Turn<'a>> {
        Box::new(Turn {
            turns: self,
            lease,
            seat,
            state,
            now_asked: lease.gathered.reasons,
            has_read: false,
            watch_tended: false,
            calendar_read: false,
            pbx_unread: false,
            in_doubt: false,
            put_off: false,
            company_doubted: false,
            standing,
            announced: Vec::new(),
            decision: None,
            foreseen: None,
            held: None,
            is_edge_noted: false,
        })
    }

    /// Takes a turn from its start to its end. Very many wait here at a full hour: what is large is boxed, and what is boxed before the hour
    /// costs nothing at it.
    async fn go_through(&self, mut turn: Box<Turn<'_>>) -> Result<(), StoreError> {
        let (lease, seat, standing) = (turn.lease, turn.seat, turn.standing);
        let ended = tokio::select! {
            // What an edge comes to is handed over before anything else.
            biased;
            ended = turn.run() => ended,
            lost = self.keep(lease, standing) => Err(lost),
        };
        // Told once, whatever became of the reading that found it, and so not within its bounds.
        if turn.company_doubted {
            self.doubt_company(&seat.office.company, lease.mailbox).await;
        }
        match ended? {
            Ended::Gone => {
                self.settle(lease, Settled::Gone, standing).await?;
                self.roster.unseat_retired(lease.mailbox);
            }
            Ended::GoesOn => {
                let (due, urgency) = turn.next_due();
                let to_read = turn.to_read();
                let state = turn.state.write();
                let next = Settled::Next { state, due, urgency, to_read };
                self.settle(lease, next, standing).await?;
            }
        }
        // Nobody may be listening.
        drop(self.ended.send(lease.mailbox));
        Ok(())
    }
}

#[async_trait]
impl TakesTurns for Turns {
    async fn take(&self, lease: Lease) -> Result<(), StoreError> {
        metrics::counter!("narvaro_turns_total").increment(1);
        let standing = Standing::of(&lease, self.settings.hold);
        self.begin(&lease, &standing, None, None).await
    }

    async fn take_ahead(&self, lease: Lease, held: HeldAhead) -> Result<(), StoreError> {
        self.hold_ahead(lease, held).await
    }
}

impl Turn<'_> {
    fn now(&self) -> Timestamp {
        self.turns.clock.now()
    }

    async fn run(&mut self) -> Result<Ended, StoreError> {
        let begun = self.now();
        self.state.owed.merge(&self.lease.gathered);
        if self.now_asked.contains(Reason::Missed) {
            self.state.push.doubt(begun);
        }
        if self.lease.reads {
            for reason in ASKED.into_iter().filter(|asked| self.state.owed.reasons.contains(*asked)) {
                self.now_asked.insert(reason);
            }
        }
        let renewal_owed = self.state.owed.reasons.contains(Reason::RenewAsked);
        let ended = self.go().await?;
        let asked = self.now_asked.contains(Reason::RenewAsked);
        // A reading that is put off may have got as far as the subscription.
        let tried = self.watch_tended || (!self.put_off && (asked || self.has_read));
        if renewal_owed && tried {
            self.state.renewal_tried_at = Some(begun);
        }
        Ok(ended)
    }

    async fn go(&mut self) -> Result<Ended, StoreError> {
        let Some(alias) = self.seat.alias.clone() else { return Box::pin(self.leave()).await };
        if *self.state.alias != *alias && !Box::pin(self.move_to_alias(&alias)).await? {
            return Ok(Ended::GoesOn);
        }
        if self.state.timetable.is_some() {
            self.read_back().await;
        }
        self.present().await?;
        self.let_others_go_first().await;
        if self.wants_calendar() {
            Box::pin(self.calendar()).await?;
        }
        if self.seat.office.integration.is_none() {
            self.note_missing_consent();
        }
        self.forget_what_is_done();
        Ok(Ended::GoesOn)
    }

    /// Reads the calendar and keeps the subscription, and shows what came of it.
    async fn calendar(&mut self) -> Result<(), StoreError> {
        let cut = if self.begin_reading().await? {
            let cut = self.cut(self.decision.as_ref().and_then(|decision| decision.next_edge));
            tokio::select! {
                biased;
                () = self.tend() => None,
                cut = cut => Some(cut),
            }
        } else {
            Some(Cut::NoRoom)
        };
        if let Some(cut) = cut {
            self.cut_short(cut);
            if cut == Cut::TooLong {
                self.state.calendar_trouble = Some(self.took_too_long(self.state.calendar_trouble.as_ref()));
            }
        }
        self.has_read = matches!(cut, None | Some(Cut::TooLong));
        // Nothing is new.
        if matches!(cut, Some(Cut::NoRoom | Cut::Stop)) {
            return Ok(());
        }
        let is_first = self.decision.is_none() && self.state.timetable.is_some();
        if is_first || std::mem::take(&mut self.in_doubt) {
            // Only now can what the PBX shows be held against what it should show.
            self.pbx_unread = false;
            self.read_back().await;
        }
        self.present().await
    }

    async fn begin_reading(&self) -> Result<bool, StoreError> {
        let _few = self.turns.few(self.standing, &self.turns.asking).await;
        self.turns.store.begin_reading(self.lease).await
    }

    /// Comes when whatever waits for the calendar server has to be given up.
    fn cut(&self, edge: Option<Timestamp>) -> impl Future<Output = Cut> + use<> {
        let (clock, shutdown) = (Arc::clone(&self.turns.clock), self.turns.shutdown.clone());
        let end = self.now().checked_add(self.turns.settings.read_within).unwrap_or(Timestamp::MAX);
        let (at, why) = match edge {
            Some(edge) if edge <= end => (edge, Cut::Edge),
            _ => (end, Cut::TooLong),
        };
        async move {
            tokio::select! {
                () = shutdown.cancelled() => Cut::Stop,
                () = clock.sleep_until(at) => why,
            }
        }
    }

    fn cut_short(&mut self, cut: Cut) {
        debug!("Reading the calendar of mailbox {} was put off: {}", self.lease.mailbox, cut.name());
        metrics::counter!("narvaro_reads_interrupted_total", "because" => cut.name()).increment(1);
        self.put_off = cut != Cut::TooLong;
    }

    /// What a reading comes to that was given up, after one more or less.
    fn took_too_long(&self, before: Option<&Trouble>) -> Trouble {
        let secs = self.turns.settings.read_within.as_secs();
        let health = Health::GraphUnreachable { said: format!("not read to the end within {secs} s") };
        let (again, now) = (Disposition::Retry { after: None }, self.now());
        let trouble =
            Trouble::again(&self.turns.settings.retry, before, health, again, self.lease.mailbox, now);
        let retry_in_s = trouble.retry_at.duration_since(now).as_secs();
        warn!(retry_in_s, "Reading the calendar of mailbox {} took too long, will retry", self.lease.mailbox);
        metrics::counter!("narvaro_reads_failed_total").increment(1);
        trouble
    }

    /// Ends the subscription, within the bounds of any other reading; `false` where it has to be tried again.
    async fn give_up_watch(&mut self) -> Result<bool, StoreError> {
        if self.state.watch.is_none() {
            return Ok(true);
        }
        if !self.begin_reading().await? {
            self.cut_short(Cut::NoRoom);
            return Ok(false);
        }
        let cut = self.cut(None);
        let cut = tokio::select! {
            biased;
            ended = self.end_watch() => return Ok(ended),
            cut = cut => cut,
        };
        self.cut_short(cut);
        if cut == Cut::TooLong {
            self.state.watch_trouble = Some(self.took_too_long(self.state.watch_trouble.as_ref()));
        }
        Ok(false)
    }

    /// How urgent the reading is that was put off.
    fn to_read(&self) -> Option<Urgency> {
        let urgency = self.state.owed.reasons.iter().map(Reason::urgency).min();
        self.put_off.then(|| urgency.unwrap_or(Urgency::Upkeep))
    }

    async fn tend(&mut self) {
        if self.find_mailbox().await.is_err() {
            return;
        }
        self.tend_watch().await;
        self.watch_tended = true;
        self.read_calendar().await;
    }

    /// Takes off what is owed what this turn has done.
    fn forget_what_is_done(&mut self) {
        let owed = &mut self.state.owed;
        let mut left = Reasons::NONE;
        for reason in owed.reasons.iter() {
            let kept = match reason {
                Reason::PbxChanged | Reason::PbxLinkUp => self.pbx_unread,
                // Both have to be known, to tell whose change the PBX shows.
                Reason::StoreChanged => !self.calendar_read || self.pbx_unread,
                Reason::Retired => false,
                Reason::RenewAsked | Reason::Reauthorize => {
                    !self.watch_tended || self.state.watch_trouble.is_some()
                }
                _ => !self.calendar_read,
            };
            if kept {
                left.insert(reason);
            }
        }
        owed.reasons = left;
        if self.calendar_read {
            owed.hints.clear();
            owed.overflow = false;
        }
        if owed.is_empty() {
            owed.since = None;
        }
    }

    /// When the mailbox is due next, and how urgent that is.
    fn next_due(&mut self) -> (Option<Timestamp>, Urgency) {
        let edge = self.decision.as_ref().and_then(|decision| decision.next_edge);
        self.state.next_edge = edge;
        let soonest = self.now() + NOT_AT_ONCE;
        let later = |due: Timestamp| if due <= self.now() { soonest } else { due };
        let pbx = self.state.pbx_trouble.as_ref().map(|trouble| later(trouble.retry_at));
        // An edge lies after the moment that was decided for, though it may have passed since: it is not put off.
        let urgent = edge.into_iter().chain(pbx).min();
        let calendar = if self.put_off {
            // As soon as there is room, whatever the time.
            None
        } else if self.seat.alias.is_some() {
            self.calendar_due_at().map(later)
        } else {
            self.state.watch_trouble.as_ref().map(|trouble| later(trouble.retry_at))
        };
        let upkeep = calendar.into_iter().chain(self.state.read_back_at.map(later)).min();
        match (urgent, upkeep) {
            (Some(urgent), Some(upkeep)) if upkeep < urgent => (Some(upkeep), Urgency::Upkeep),
            (Some(urgent), _) => (Some(urgent), Urgency::Now),
            (None, upkeep) => (upkeep, Urgency::Upkeep),
        }
    }
}

#[cfg(test)]
mod tests;
