//! The writing part of a turn: what should show against what shows.

use std::{
    iter::successors,
    pin::Pin,
    task::{Context, Poll},
};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use tracing::{debug, info, warn};

use super::{
    Ended, Turn,
    state::{MailboxState, Replaced, Shows, Trouble},
};
use crate::{
    chain::Chain,
    decide::{Base, Decision, Lasting, ManualChange, What, decide, manual_change},
    health::Health,
    model::{Profile, Readback, Shown, Wanted},
    presence::{PbxDriver, PbxError, Stands, Write},
    queue::{HeldAhead, Lease, Reason, StoreError},
};

/// A PBX that crashes may forget what it acknowledged last: Asterisk's database is written to disk once a second, and
/// the loss of a link may be noticed 40 s late.
const FORGETS: SignedDuration = SignedDuration::from_secs(60);

/// What was shown longer ago than this is not looked for where a store has lost what it was told last: a calendar is read so far back.
const MAY_HAVE_LOST: SignedDuration = SignedDuration::from_hours(24);

/// Edges of that time that are looked at, at most.
const MOST_EDGES: usize = 200;

/// How long a timetable is kept whose calendar is kept from us: long enough for a mistake to be noticed and mended.
const KEPT_SHUT_OUT: SignedDuration = SignedDuration::from_hours(24);

/// Most failed changes remembered; more than fail between two readings, but for a PBX that cannot be read.
const UNSETTLED: usize = 8;

/// What the PBX told and reading back answers.
const PBX_NEWS: [Reason; 2] = [Reason::PbxChanged, Reason::PbxLinkUp];

/// What a turn announces before it writes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Intent {
    /// What will show, and what was announced before and may show by now.
    shown: Vec<Shown>,
}

/// What a read-back comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Meaning {
    /// As we know it.
    Known,
    /// What should show anyway, whoever set it.
    AsWanted(Wanted),
    /// A write of ours that was not settled.
    OurWrite,
    /// The PBX has lost what it was told.
    Lost,
    /// A person did it.
    ByHand,
    /// A person did it, or we did and the store has lost that: what the calendar says will tell. Nothing is written until then, not at an edge
    /// either: it might undo what a person did.
    InDoubt,
}

impl Turn<'_> {
    /// Reads the PBX back if there is a reason to, and takes what a person did there into account.
    pub(super) async fn read_back(&mut self) {
        let driver = self.seat.office.driver.clone();
        let Some(driver) = driver.filter(|driver| driver.abilities().read_back) else {
            // What was planned with another PBX would stay due for ever.
            self.state.read_back_at = None;
            return;
        };
        let abilities = driver.abilities();
        if !self.wants_read_back(self.now()) {
            // Still owed, where the PBX is left alone for now.
            self.pbx_unread = self.state.owed.reasons.any(&PBX_NEWS);
            return;
        }
        // Whatever is found may change what was foreseen, and others do not wait for it.
        self.foreseen = None;
        if let Some(held) = &mut self.held {
            held.hand_over();
        }
        let now = self.now();
        let profiles = &self.seat.ruleset().rules.profiles;
        match driver.read_back(&self.seat.extension, profiles).await {
            Ok(found) => self.take_in(&*driver, found, now),
            Err(error) => {
                self.owe_read_back(&error);
                self.pbx_failed(&error, "Reading back");
            }
        }
        if !abilities.watches {
            self.state.read_back_at = Some(now + self.turns.settings.read_back_every);
        }
    }

    /// Whether the PBX is to be read back in a turn at `at`.
    pub(super) fn wants_read_back(&self, at: Timestamp) -> bool {
        let marked = self.now_asked.any(&PBX_NEWS)
            || self.now_asked.any(&[Reason::Started, Reason::StoreChanged, Reason::Asked]);
        let rests = Trouble::rests(self.state.pbx_trouble.as_ref(), at);
        let owed = self.state.owed.reasons.any(&PBX_NEWS) && !rests;
        let due = self.state.read_back_at.is_some_and(|due| due <= at);
        marked || owed || due || self.lease.intent.is_some() || self.state.acknowledged.is_none()
    }

    /// What a PBX that does not answer was to be asked is asked again; one that answers nonsense is not held up.
    fn owe_read_back(&mut self, error: &PbxError) {
        self.pbx_unread = matches!(error, PbxError::Unreachable(_) | PbxError::Throttled { .. });
        if self.pbx_unread {
            let started = self.now_asked.any(&[Reason::Started, Reason::StoreChanged]);
            let news = if started { Reason::PbxLinkUp } else { Reason::PbxChanged };
            self.state.owed.reasons.insert(news);
        }
    }

    fn take_in(&mut self, driver: &dyn PbxDriver, found: Readback, now: Timestamp) {
        match self.meaning(driver, &found, now) {
            Meaning::Known => {}
            Meaning::AsWanted(wanted) => self.state.told = Some(wanted),
            // What exactly shows is uncertain, or nothing of ours: it is told anew.
            Meaning::OurWrite | Meaning::Lost => self.state.told = None,
            Meaning::InDoubt => {
                (self.in_doubt, self.pbx_unread) = (true, true);
                self.state.owed.reasons.insert(Reason::PbxChanged);
                return;
            }
            Meaning::ByHand => {
                info!(profile = ?found.profile, "Extension {} was changed by hand", self.seat.extension);
                metrics::counter!("narvaro_manual_changes_total").increment(1);
                let what = What::AsFound { shown: found.shown.clone(), profile: found.profile.clone() };
                let change = ManualChange { what, lasting: Lasting::OnPhone(found.until) };
                let rules = &self.seat.ruleset().rules;
                let timetable = self.state.timetable.clone().unwrap_or_default();
                if self.state.acknowledged.is_some() {
                    self.state.layers = manual_change(rules, &timetable, &self.state.layers, change, now);
                } else {
                    // Found there when we first looked: it lies under the calendar, nobody set it against an event.
                    self.state.layers.base = Some(Base { until: found.until, ..Base::new(change.what, now) });
                }
                self.state.told = Some(Wanted::AsFound(found.shown.clone()));
            }
        }
        self.state.acknowledged = Some(found.shown);
        self.state.sure_at = Some(now);
        self.state.unsettled.clear();
    }

    fn meaning(&self, driver: &dyn PbxDriver, found: &Readback, now: Timestamp) -> Meaning {
        let acknowledged = self.state.acknowledged.as_ref();
        if acknowledged == Some(&found.shown) {
            return Meaning::Known;
        }
        let announced = self.announced_before();
        let unsettled: Vec<_> = announced.iter().chain(&self.state.unsettled).collect();
        if !unsettled.is_empty() && mixes(&found.shown, unsettled.into_iter().chain(acknowledged)) {
            return Meaning::OurWrite;
        }
        if self.was_forgotten(driver, found) {
            return Meaning::Lost;
        }
        if found.is_default {
            let lost = self.was_away(driver) || acknowledged.is_none();
            return if lost { Meaning::Lost } else { Meaning::ByHand };
        }
        // A person may have set by hand exactly what is to show now: nothing follows from it.
        let wanted = self.decide(now).map(|decision| decision.wanted);
        if let Some(wanted) = wanted.filter(|wanted| driver.render(wanted) == found.shown) {
            return Meaning::AsWanted(wanted);
        }
        // Owed until the calendar has been read.
        if self.state.owed.reasons.contains(Reason::StoreChanged) {
            if self.was_due_since(driver, &found.shown, now) {
                return Meaning::OurWrite;
            }
            // Of a user who is leaving no calendar is read.
            if !self.has_read && self.seat.alias.is_some() && self.wants_calendar() {
                return Meaning::InDoubt;
            }
        }
        Meaning::ByHand
    }

    /// Whether it is what the calendar would have had us show at some time since we were last sure of what shows.
    fn was_due_since(&self, driver: &dyn PbxDriver, found: &Shown, now: Timestamp) -> bool {
        let since = self.state.sure_at.unwrap_or(Timestamp::MIN).max(now - MAY_HAVE_LOST);
        let decisions = successors(self.decide(since), |decision| {
            decision.next_edge.filter(|edge| *edge <= now).and_then(|edge| self.decide(edge))
        });
        decisions.take(MOST_EDGES).any(|decision| driver.render(&decision.wanted) == *found)
    }

    /// Whether the PBX was out of sight since we last knew what it shows.
    fn was_away(&self, driver: &dyn PbxDriver) -> bool {
        let cut = driver.lost_at().is_some_and(|lost| self.state.sure_at.is_none_or(|sure| lost >= sure));
        cut || self.now_asked.any(&[Reason::Started, Reason::StoreChanged])
            || self.state.owed.reasons.contains(Reason::PbxLinkUp)
    }

    /// Whether the PBX came back with what it showed just before a change of ours, made in its last moments.
    fn was_forgotten(&self, driver: &dyn PbxDriver, found: &Readback) -> bool {
        let (Some(lost), Some(replaced)) = (driver.lost_at(), &self.state.replaced) else { return false };
        let fresh = replaced.at <= lost && lost <= replaced.at + FORGETS;
        let unseen = self.state.sure_at.is_none_or(|sure| lost >= sure);
        fresh && unseen && mixes(&found.shown, self.state.acknowledged.iter().chain([&replaced.shown]))
    }

    /// What a turn that did not come to its end had announced.
    fn announced_before(&self) -> Vec<Shown> {
        let document = self.lease.intent.as_deref().unwrap_or_default();
        serde_json::from_slice::<Intent>(document).map(|intent| intent.shown).unwrap_or_default()
    }

    pub(super) fn decide(&self, now: Timestamp) -> Option<Box<Decision>> {
        let timetable = self.state.timetable.as_ref()?;
        Some(Box::new(decide(&self.seat.ruleset().rules, timetable, &self.state.layers, now)))
    }

    /// A timetable is not held on to for ever when its calendar has been kept from us: after a day the phone is let go.
    fn let_go_when_shut_out(&mut self, now: Timestamp) {
        match &mut self.state.calendar_trouble {
            None => self.state.shut_out_since = None,
            Some(trouble) if trouble.health.shuts_us_out() => {
                let ends = *self.state.shut_out_since.get_or_insert(now) + KEPT_SHUT_OUT;
                if now < ends {
                    trouble.retry_at = trouble.retry_at.min(ends);
                }
            }
            Some(_) => {}
        }
        let over = self.state.shut_out_since.is_some_and(|since| since + KEPT_SHUT_OUT <= now);
        let holds = self.state.timetable.as_ref().is_some_and(|timetable| !timetable.entries.is_empty());
        if over && holds {
            info!("The calendar of mailbox {} has been kept from us for a day: let go", self.lease.mailbox);
            self.state.let_go();
            self.foreseen = None;
            self.state.owed.reasons.insert(Reason::Missed);
        }
    }

    /// Decides, and writes if something else should show. Before the first round nothing is known and nothing is
    /// written.
    pub(super) async fn present(&mut self) -> Result<(), StoreError> {
        let now = self.now();
        self.let_go_when_shut_out(now);
        // Between the moment that it was made for and its next edge a decision stays what it is.
        let foreseen = self.foreseen.take();
        let foreseen = foreseen.filter(|decision| decision.next_edge.is_none_or(|edge| now < edge));
        let is_foreseen = foreseen.is_some();
        let Some(decision) = foreseen.or_else(|| self.decide(now)) else {
            // With nothing to write there is nothing to try again.
            self.state.pbx_trouble.take_if(|trouble| trouble.retry_at <= now);
            return Ok(());
        };
        self.state.layers = decision.layers.clone();
        let outcome = self.show(&decision, now, is_foreseen).await;
        self.decision = Some(decision);
        outcome
    }

    async fn show(
        &mut self,
        decision: &Decision,
        now: Timestamp,
        is_foreseen: bool,
    ) -> Result<(), StoreError> {
        let Some(driver) = self.seat.office.driver.clone() else {
            // Nobody is left who could make up for what failed.
            self.state.pbx_trouble = None;
            return Ok(());
        };
        if !self.must_write(&*driver, decision) {
            self.note_edge();
            if !self.pbx_unread {
                self.state.pbx_trouble = None;
            }
            let before = self.state.shows.take();
            self.state.shows = Some(self.shows(&*driver, decision, before, now));
            return Ok(());
        }
        let rests = Trouble::rests(self.state.pbx_trouble.as_ref(), now);
        // Written unseen, it might undo what a person did there.
        if self.pbx_unread
            || rests && !self.now_asked.any(&[Reason::PbxLinkUp, Reason::Applied, Reason::Asked])
        {
            return Ok(());
        }
        let announced = self.announced.last().filter(|_| is_foreseen).cloned();
        let rendered = match announced {
            Some(rendered) => rendered,
            None => {
                // Others of the instant do not wait for the store's answer.
                if let Some(held) = &mut self.held {
                    held.hand_over();
                }
                let rendered = driver.render(&decision.wanted);
                let document = self.intent(&rendered);
                self.announce(document).await?;
                rendered
            }
        };
        self.note_edge();
        let mut held = self.held.take();
        let written = self.write(&*driver, &decision.wanted, held.as_mut()).await?;
        self.held = held;
        match written {
            Ok(shown) => {
                metrics::counter!("narvaro_presence_writes_total").increment(1);
                self.measure(decision, now);
                let at = self.now();
                self.state.replaced =
                    self.state.acknowledged.replace(shown).map(|shown| Replaced { shown, at });
                self.state.sure_at = Some(at);
                self.state.unsettled.clear();
                self.state.told = Some(decision.wanted.clone());
                self.state.pbx_trouble = None;
                self.state.shows = Some(self.shows(&*driver, decision, None, now));
            }
            Err(error) => {
                self.remember_unsettled(rendered);
                self.pbx_failed(&error, "Changing");
            }
        }
        Ok(())
    }

    /// What is to be announced of a write, together with what was announced before it and may show.
    pub(super) fn intent(&mut self, rendered: &Shown) -> Vec<u8> {
        self.announced.push(rendered.clone());
        let mut shown = self.announced_before();
        shown.extend_from_slice(&self.announced);
        #[expect(clippy::expect_used, reason = "keys are texts and no value can refuse")]
        serde_json::to_vec(&Intent { shown }).expect("maps of texts can always be written")
    }

    /// How soon after its edge a turn came to what it is about: to the hand-over of the write, or to finding that none is needed.
    fn note_edge(&mut self) {
        let now = self.now();
        let Some(edge) = self.state.next_edge.filter(|edge| *edge <= now) else { return };
        if !std::mem::replace(&mut self.is_edge_noted, true) {
            let lag = now.duration_since(edge).as_secs_f64();
            metrics::histogram!("narvaro_edge_scheduling_seconds").record(lag);
        }
    }

    /// Where very many are held for the same instant, nothing goes on before all of them have done what was to be done at it.
    pub(super) async fn let_others_go_first(&mut self) {
        if let Some(held) = &mut self.held {
            held.all_handed_over().await;
        }
    }

    /// Announces a write. Where the store is away, a lease that surely outlasts the write is enough: an edge that has begun to be
    /// shown does not wait for the store, and nobody else can show anything meanwhile. An answer that was read too late is none: the
    /// lease may have ended since.
    pub(super) async fn announce(&self, document: Vec<u8>) -> Result<(), StoreError> {
        let few = self.turns.few(self.standing, &self.turns.asking).await;
        let announced = self.turns.store.intend(self.lease, document).await;
        drop(few);
        match announced {
            Err(StoreError::Unavailable(error))
                if self.standing.lasts(self.now(), self.turns.settings.write_within) =>
            {
                warn!(error = %Chain(&*error), "Extension {} is changed though the store is away", self.seat.extension);
                metrics::counter!("narvaro_writes_unannounced_total").increment(1);
                Ok(())
            }
            Ok(()) if !self.standing.holds(self.now()) => Err(self.lost()),
            outcome => outcome,
        }
    }

    /// What the PBX shows once it shows what was decided, in words for people.
    fn shows(
        &self,
        driver: &dyn PbxDriver,
        decision: &Decision,
        before: Option<Shows>,
        now: Timestamp,
    ) -> Shows {
        let rules = &self.seat.ruleset().rules;
        let named = |profile: &Profile| profile.outward_label(rules.language).to_owned();
        let label = match &decision.wanted {
            Wanted::Profile(outward) => outward.label.clone(),
            Wanted::AsFound(shown) => {
                let known = decision.profile.as_ref().and_then(|id| rules.profile(id));
                let there = || rules.profiles.iter().find(|profile| profile.is_available).map(named);
                known
                    .map(named)
                    .or_else(|| driver.label(shown, rules.language))
                    .or_else(there)
                    .unwrap_or_default()
            }
        };
        let since = before
            .filter(|shows| shows.profile == decision.profile && shows.label == label)
            .map_or(now, |shows| shows.since);
        Shows { profile: decision.profile.clone(), label, until: decision.until, since }
    }

    fn remember_unsettled(&mut self, shown: Shown) {
        let unsettled = &mut self.state.unsettled;
        unsettled.retain(|known| *known != shown);
        unsettled.push(shown);
        if unsettled.len() > UNSETTLED {
            unsettled.remove(0);
        }
    }

    /// Whether the PBX has to be told. After an apply also where the PBX's own settings make something else of the same.
    pub(super) fn must_write(&self, driver: &dyn PbxDriver, decision: &Decision) -> bool {
        let told = self.state.told.as_ref();
        let retold = self.now_asked.contains(Reason::Applied)
            && told.map(|told| driver.render(told)) != self.state.acknowledged;
        retold || decision.must_write(told)
    }

    /// Hands a write to the driver and waits for the PBX's answer; first of all for the others that are held for the same instant.
    async fn write(
        &self,
        driver: &dyn PbxDriver,
        wanted: &Wanted,
        held: Option<&mut HeldAhead>,
    ) -> Result<Result<Shown, PbxError>, StoreError> {
        // A turn may write twice: at an edge, and after it has read.
        let (mailbox, generation) = (self.lease.mailbox, self.lease.generation);
        let transition = format!("{mailbox}-{generation}-{}", self.announced.len());
        let (clock, standing) = (&self.turns.clock, self.standing);
        let lasts = |long| standing.lasts(clock.now(), long);
        let write = Write {
            extension: &self.seat.extension,
            wanted,
            previous: self.state.acknowledged.as_ref(),
            generation: self.lease.generation,
            transition: &transition,
            within: self.turns.settings.write_within,
            stands: Stands::new(&lasts),
        };
        let mut set = driver.set(write);
        if let Some(held) = held {
            // Once is enough to stand in the driver's queue.
            let begun = std::future::poll_fn(|context| Poll::Ready(self.go_on_with(&mut set, context))).await;
            held.all_handed_over().await;
            if let Poll::Ready(outcome) = begun {
                return outcome;
            }
        }
        std::future::poll_fn(|context| self.go_on_with(&mut set, context)).await
    }

    /// Goes on with a write as long as the lease surely stands: asked each time, because it may have waited for its turn at the PBX, and the
    /// process may have been stopped meanwhile (I3).
    fn go_on_with(
        &self,
        set: &mut Pin<Box<dyn Future<Output = Result<Shown, PbxError>> + Send + '_>>,
        context: &mut Context<'_>,
    ) -> Poll<Result<Result<Shown, PbxError>, StoreError>> {
        if self.standing.holds(self.now()) {
            set.as_mut().poll(context).map(Ok)
        } else {
            Poll::Ready(Err(self.lost()))
        }
    }

    fn lost(&self) -> StoreError {
        let Lease { mailbox, generation, .. } = *self.lease;
        StoreError::LeaseLost { mailbox, generation }
    }

    /// How late the change was: against the span edge that was due, or against the first mark that led to it.
    fn measure(&mut self, decision: &Decision, decided: Timestamp) {
        let acknowledged = self.now();
        let since = |at: Timestamp| acknowledged.duration_since(at).as_secs_f64().max(0.0);
        let edge = self.state.next_edge.take().filter(|edge| *edge <= decided);
        let notified = self.lease.gathered.since.filter(|_| self.now_asked.contains(Reason::Notification));
        if let Some(edge) = edge {
            metrics::histogram!("narvaro_edge_lateness_seconds").record(since(edge));
        } else if let Some(notified) = notified {
            metrics::histogram!("narvaro_notification_to_presence_seconds").record(since(notified));
        }
        info!(
            extension = %self.seat.extension,
            profile = ?decision.profile,
            until = ?decision.until,
            "Extension {} shows something else now",
            self.seat.extension
        );
    }

    fn pbx_failed(&mut self, error: &PbxError, what: &str) {
        let now = self.now();
        let trouble = Trouble::again(
            &self.turns.settings.retry,
            self.state.pbx_trouble.as_ref(),
            Health::of_pbx(error),
            error.disposition(),
            self.lease.mailbox,
            now,
        );
        let retry_in_s = trouble.retry_at.duration_since(now).as_secs();
        warn!(error = %Chain(error), retry_in_s, "{what} extension {} failed, will retry", self.seat.extension);
        metrics::counter!("narvaro_presence_writes_failed_total").increment(1);
        self.state.pbx_trouble = Some(trouble);
    }

    /// The last turn of a mailbox whose user was taken out or switched off: the calendar's hand is taken off the
    /// phone, and no subscription is left behind.
    pub(super) async fn leave(&mut self) -> Result<Ended, StoreError> {
        if self.state.let_go() {
            self.read_back().await;
            self.present().await?;
        } else {
            self.state.pbx_trouble = None;
        }
        let shown = self.state.pbx_trouble.is_none();
        let ended = self.give_up_watch().await?;
        if ended {
            self.state.watch_trouble = None;
        }
        if shown && ended {
            debug!("Mailbox {} is left", self.lease.mailbox);
            if self.seat.retired {
                return Ok(Ended::Gone);
            }
            self.state = MailboxState {
                layers: std::mem::take(&mut self.state.layers),
                acknowledged: self.state.acknowledged.take(),
                told: self.state.told.take(),
                watch_generation: self.state.watch_generation,
                watches_kept: self.state.watches_kept,
                schema: self.state.schema,
                others: std::mem::take(&mut self.state.others),
                newer: std::mem::take(&mut self.state.newer),
                ..MailboxState::default()
            };
            self.decision = None;
            return Ok(Ended::GoesOn);
        }
        Ok(Ended::GoesOn)
    }

    /// The alias now names another calendar; `false` where leaving the old one has to wait.
    pub(super) async fn move_to_alias(&mut self, alias: &str) -> Result<bool, StoreError> {
        if !self.state.alias.is_empty() {
            info!("Mailbox {} has another alias: its calendar is read anew", self.lease.mailbox);
            if self.state.let_go() {
                self.present().await?;
                self.decision = None;
            }
            if !self.give_up_watch().await? && self.put_off {
                return Ok(false);
            }
        }
        self.state.move_to_alias(alias);
        Ok(true)
    }
}

/// Whether each field is as one of `ours` has it: a change that was cut half way mixes states of ours.
fn mixes<'a>(found: &Shown, ours: impl Iterator<Item = &'a Shown>) -> bool {
    let ours: Vec<_> = ours.collect();
    found.0.iter().all(|(name, value)| ours.iter().any(|shown| shown.field(name) == value))
}
