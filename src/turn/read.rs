//! The reading part of a turn: who the mailbox is, its zone, and what changed.
//!
//! Three kinds of read, from the dearest to the cheapest, and when each is needed:
//!
//! - `full`, a round from the start of a window: for the first timetable, where words or rules have changed (no
//!   subjects are kept that they could be held against), when the night rolls the window, where more has changed
//!   than is kept, where a person asks, where the server has forgotten the link.
//! - `delta`, a round from the last link: for what notifications announce, for sweeps, after a start of the service,
//!   after the server says that it lost something. What it says and what it brings are stored in one step with the link
//!   to the next.
//! - `items`, each by its id: as new as can be. For what notifications announce where events are sent along, and where
//!   a round does not speak of the announced version: it may lag behind its notification, or the item lies elsewhere.
//!
//! Only the first two prove the timetable, up to the moment at which they began. What a sweep finds though nothing
//! was announced is counted, and makes push suspicious ([`crate::calendar::PushRecord`]).

use jiff::{SignedDuration, Timestamp};
use tracing::{debug, info, warn};

use super::{
    Turn, ZONE_FRESH, ZONE_FRESH_FOR_DAYS,
    retry::spread,
    roster::Integration,
    state::{Bookmark, Found, Trouble, ZoneRead},
};
use crate::{
    calendar::{MailboxRef, ReadError, Round, next_roll},
    chain::Chain,
    health::Health,
    model::{CalendarEvent, EventId, EventKind, Interval},
    queue::{Hint, Reason},
    timetable::{Changes, Zone},
};

/// Marks that make a round from the start of the window necessary: whoever asks for it trusts nothing, and what
/// is newly consented may be another calendar.
const ASK_FOR_ALL: [Reason; 3] = [Reason::Asked, Reason::Consent, Reason::Unknown];

/// Marks that make a round necessary: something may have changed unheard.
const ASK_FOR_CHANGES: [Reason; 5] =
    [Reason::Missed, Reason::Removed, Reason::Applied, Reason::Started, Reason::StoreChanged];

/// For how long a reading looks whether anything shows for which the mailbox's zone matters: until after the next one.
const ZONE_MATTERS: SignedDuration = SignedDuration::from_hours(36);

/// Marks behind which a person stands, or news: they do not wait for a trouble's time, unless the server asked for it.
pub(super) const DO_NOT_WAIT: [Reason; 6] = [
    Reason::Applied,
    Reason::Asked,
    Reason::Started,
    Reason::StoreChanged,
    Reason::Consent,
    Reason::RenewAsked,
];

impl Turn<'_> {
    /// Whether the calendar or the subscription wants something now.
    pub(super) fn wants_calendar(&self) -> bool {
        if self.seat.office.integration.is_none() {
            return false;
        }
        let trouble = self.state.calendar_trouble.as_ref();
        // Also after a restart, of which the gate before Graph knows nothing.
        let told_to_wait = trouble.is_some_and(Trouble::was_told_to_wait);
        let must_not_wait = !told_to_wait && self.now_asked.any(&DO_NOT_WAIT);
        if Trouble::rests(trouble, self.now()) && !must_not_wait {
            return false;
        }
        self.state.timetable.is_none()
            || !self.state.owed.is_empty()
            || self.calendar_due_at().is_some_and(|due| due <= self.now())
    }

    /// When the calendar or the subscription wants something next.
    pub(super) fn calendar_due_at(&self) -> Option<Timestamp> {
        self.seat.office.integration.as_ref()?;
        if let Some(trouble) = &self.state.calendar_trouble {
            return Some(trouble.retry_at);
        }
        Some(self.sweep_due_at().min(self.roll_due_at()).min(self.watch_due_at()))
    }

    /// When the next round is due, though nothing was announced.
    fn sweep_due_at(&self) -> Timestamp {
        let Some(proven) = self.state.proven_until else { return Timestamp::UNIX_EPOCH };
        let watched = self.state.watch.as_ref().is_some_and(|watch| watch.expires > self.now());
        let plan = &self.turns.settings.sweep;
        let every = plan.every(self.state.push.standing(watched, proven));
        let suspicious = self.seat.office.push.now().suspicious_since().is_some();
        proven + if suspicious { every.min(plan.unproven) } else { every }
    }

    /// When the window is rolled. Without a link there is nothing to go on from: long since.
    fn roll_due_at(&self) -> Timestamp {
        let Some(bookmark) = &self.state.bookmark else { return Timestamp::UNIX_EPOCH };
        let zone = Zone::choose(None, &self.seat.ruleset().rules.time_zone).rules();
        next_roll(bookmark.since, &zone, spread(self.lease.mailbox, "roll"))
    }

    pub(super) fn note_missing_consent(&mut self) {
        let health = Health::NoConsent { code: "not given yet".to_owned() };
        let trouble = Trouble::again(
            &self.turns.settings.retry,
            None,
            health,
            crate::model::Disposition::Park,
            self.lease.mailbox,
            self.now(),
        );
        self.state.calendar_trouble = Some(trouble);
    }

    /// Takes a failed read down: nothing that shows changes because of it.
    fn failed(&mut self, error: &ReadError, what: &str) {
        let now = self.now();
        let consented = self.state.proven_until.is_some();
        let health = Health::of_read(error, consented);
        let trouble = Trouble::again(
            &self.turns.settings.retry,
            self.state.calendar_trouble.as_ref(),
            health,
            error.disposition(),
            self.lease.mailbox,
            now,
        );
        let retry_in_s = trouble.retry_at.duration_since(now).as_secs();
        warn!(error = %Chain(error), retry_in_s, "{what} of mailbox {} failed, will retry", self.lease.mailbox);
        metrics::counter!("narvaro_reads_failed_total").increment(1);
        self.state.calendar_trouble = Some(trouble);
    }

    /// Finds out who the alias is, once.
    pub(super) async fn find_mailbox(&mut self) -> Result<(), ()> {
        let Some(integration) = &self.seat.office.integration else { return Err(()) };
        if self.state.resolved.is_some() {
            return Ok(());
        }
        match integration.source.resolve(&self.state.alias).await {
            Ok(found) => {
                info!("Mailbox {} was found", self.lease.mailbox);
                self.state.alias_shared = false;
                self.state.resolved =
                    Some(Found { mailbox: found.mailbox, primary_smtp: found.primary_smtp });
                Ok(())
            }
            Err(error) => {
                self.failed(&error, "Looking up the user");
                Err(())
            }
        }
    }

    /// Reads what is owed: everything, what has changed, or just the items that were named.
    pub(super) async fn read_calendar(&mut self) {
        let Some(found) = self.state.resolved.clone() else { return };
        self.note_push();
        let outcome = match self.read_owed(&found.mailbox).await {
            Err(ReadError::LinkExpired) => {
                info!(
                    "The calendar server forgot mailbox {}'s place: everything is read",
                    self.lease.mailbox
                );
                metrics::counter!("narvaro_resyncs_total").increment(1);
                self.state.bookmark = None;
                self.read_all(&found.mailbox).await
            }
            outcome => outcome,
        };
        match outcome {
            Ok(()) => {
                self.calendar_read = true;
                if self.state.calendar_trouble.take().is_some() {
                    info!("The calendar of mailbox {} can be read again", self.lease.mailbox);
                    self.try_watch_again();
                }
            }
            Err(error) => {
                // A mailbox that is gone may come back as another one, and neither its subscription nor its link
                // comes with it.
                if matches!(error, ReadError::Gone { .. } | ReadError::NoMailbox { .. }) {
                    self.state.resolved = None;
                    self.state.watch = None;
                    self.state.bookmark = None;
                }
                self.failed(&error, "Reading the calendar");
            }
        }
    }

    /// What kept the calendar from us kept the subscription too: it is tried as soon as the one is over.
    fn try_watch_again(&mut self) {
        let now = self.now();
        if let Some(trouble) = self.state.watch_trouble.as_mut().filter(|trouble| !trouble.was_told_to_wait())
        {
            trouble.retry_at = trouble.retry_at.min(now);
        }
    }

    /// Notes what this turn knows of push before anything is read.
    fn note_push(&mut self) {
        let now = self.now();
        let (push, owed) = (&mut self.state.push, &self.state.owed);
        if let Some(watch) = &self.state.watch {
            push.follow(watch.generation, now);
        }
        if owed.reasons.contains(Reason::Notification) {
            push.notified(owed.since.unwrap_or(now));
        }
    }

    async fn read_owed(&mut self, mailbox: &MailboxRef) -> Result<(), ReadError> {
        let Some(bookmark) = self.state.bookmark.clone().filter(|bookmark| !self.needs_all(bookmark)) else {
            return self.read_all(mailbox).await;
        };
        match self.read_news(mailbox, bookmark).await {
            // One thing that cannot even be asked for must not stand in the way of all the others.
            Err(ReadError::Refused { reason }) => {
                warn!(reason, "A change of mailbox {} was refused: everything is read", self.lease.mailbox);
                self.state.owed.overflow = true;
                self.read_all(mailbox).await
            }
            outcome => outcome,
        }
    }

    async fn read_news(&mut self, mailbox: &MailboxRef, bookmark: Bookmark) -> Result<(), ReadError> {
        let brought = self.seat.office.integration.as_ref().is_some_and(|one| one.brought.is_some());
        // Where events are not sent along, what has changed costs no more than one item, and proves the timetable.
        let by_round = !brought && !self.state.owed.hints.is_empty();
        let mut items = self.state.owed.hints.clone();
        if by_round || self.state.owed.reasons.any(&ASK_FOR_CHANGES) || self.sweep_due_at() <= self.now() {
            self.read_changes(mailbox, bookmark, &mut items).await?;
        }
        self.read_items(mailbox, items).await
    }

    /// Whether what changed since is not enough: other rules judge events of which no subject is kept.
    fn needs_all(&self, bookmark: &Bookmark) -> bool {
        let Some(timetable) = &self.state.timetable else { return true };
        let owed = &self.state.owed;
        owed.overflow
            || owed.reasons.any(&ASK_FOR_ALL)
            || bookmark.rules != self.seat.ruleset().digest
            || timetable.window != bookmark.window
            || self.roll_due_at() <= self.now()
    }

    /// A round from the start of a new window.
    async fn read_all(&mut self, mailbox: &MailboxRef) -> Result<(), ReadError> {
        let Some(integration) = self.seat.office.integration.clone() else { return Ok(()) };
        let begun = self.now();
        self.expect_brought(&integration);
        let (back, ahead) = self.turns.settings.window;
        let window = Interval::new(begun - back, begun + ahead);
        let round = integration.source.round(mailbox, window, None).await?;
        self.note_round(&integration);
        // Days and texts go by it; where neither is to come, tomorrow's reading is soon enough.
        let soon = Interval::new(begun, begun + ZONE_MATTERS);
        if self.state.zone.is_none()
            || self.state.owed.reasons.any(&ASK_FOR_ALL)
            || round.events.iter().any(|event| event.may_touch(soon) && self.matters(event))
        {
            let name = integration.source.time_zone(mailbox).await?;
            self.state.zone = Some(ZoneRead { name, at: begun });
        }
        let zone = self.zone();
        let ruleset = self.seat.ruleset();
        let timetable = self.state.timetable.get_or_insert_default();
        let changes = timetable.rebuild(&ruleset.rules, &ruleset.matcher, &round.events, window, zone);
        self.state.bookmark =
            Some(Bookmark { link: round.link, window, since: begun, rules: ruleset.digest });
        self.state.proven_until = Some(begun);
        metrics::counter!("narvaro_reads_total", "kind" => "full").increment(1);
        debug!(
            events = round.events.len(),
            changed = changes.count(),
            "The calendar of mailbox {} was read",
            self.lease.mailbox
        );
        Ok(())
    }

    /// Has what notifications bring kept from now on: all that was before is in the round that begins.
    fn expect_brought(&self, integration: &Integration) {
        if let Some(brought) = &integration.brought {
            brought.expect(self.lease.mailbox);
        }
    }

    /// Has what was changed before now taken for known: some of it may be in the round that has ended.
    fn note_round(&self, integration: &Integration) {
        if let Some(brought) = &integration.brought {
            brought.has_read(self.lease.mailbox);
        }
    }

    /// A round from the last link; whatever of `items` it answers for is taken out.
    async fn read_changes(
        &mut self,
        mailbox: &MailboxRef,
        bookmark: Bookmark,
        items: &mut Vec<Hint>,
    ) -> Result<(), ReadError> {
        let Some(integration) = self.seat.office.integration.clone() else { return Ok(()) };
        let begun = self.now();
        let before = self.state.proven_until.unwrap_or(begun);
        self.expect_brought(&integration);
        let round = integration.source.round(mailbox, bookmark.window, Some(&bookmark.link)).await?;
        self.note_round(&integration);
        items.retain(|hint| !round.answers(&hint.item, hint.version));
        if !round.is_empty() {
            let whole_days = round.whole_days().any(|event| self.matters(event));
            self.refresh_zone(&integration, mailbox, whole_days).await?;
        }
        let zone = self.zone();
        let ruleset = self.seat.ruleset();
        let Some(timetable) = &mut self.state.timetable else { return Ok(()) };
        timetable.set_zone(zone);
        let Round { events, series, gone, link, .. } = round;
        let changes = timetable.take_in(&ruleset.rules, &ruleset.matcher, &gone, &series, &events);
        // Of what is gone, nobody tells when it went.
        let changed_at = last_change(&changes, &events, &series).unwrap_or(before);
        self.state.bookmark = Some(Bookmark { link, ..bookmark });
        self.state.proven_until = Some(begun);
        metrics::counter!("narvaro_reads_total", "kind" => "delta").increment(1);
        debug!(
            changed = changes.count(),
            "What changed in the calendar of mailbox {} was read", self.lease.mailbox
        );
        self.note_sweep(changes.count(), changed_at, begun);
        Ok(())
    }

    /// Notes what a sweep found. Where something else made the round necessary, push is not to blame for what it
    /// brought.
    fn note_sweep(&mut self, found: usize, changed_at: Timestamp, begun: Timestamp) {
        let owed = self.state.owed.reasons;
        if owed.any(&ASK_FOR_CHANGES) || owed.contains(Reason::Notification) {
            return;
        }
        self.state.push.swept(found > 0, begun);
        if found > 0 {
            warn!(found, "A sweep of mailbox {} found changes that were not announced", self.lease.mailbox);
            metrics::counter!("narvaro_unannounced_changes_total").increment(found as u64);
            let office = &self.seat.office;
            self.company_doubted = office.push.found_unannounced(&office.company, changed_at, begun);
        }
    }

    /// Reads items that notifications named, each as it is now.
    async fn read_items(&mut self, mailbox: &MailboxRef, items: Vec<Hint>) -> Result<(), ReadError> {
        if items.is_empty() {
            return Ok(());
        }
        let Some(integration) = self.seat.office.integration.clone() else { return Ok(()) };
        let mut changes = Vec::with_capacity(items.len());
        for hint in &items {
            changes.push(self.read_item(mailbox, &hint.item).await?);
        }
        // Where events are sent along, a change is to cost no request: rounds keep the zone.
        if integration.brought.is_none() {
            let whole_days = changes.iter().any(ItemChange::has_whole_days);
            self.refresh_zone(&integration, mailbox, whole_days).await?;
        }
        let zone = self.zone();
        let ruleset = self.seat.ruleset();
        if let Some(timetable) = &mut self.state.timetable {
            timetable.set_zone(zone);
            for change in changes {
                change.enter(timetable, &ruleset.rules, &ruleset.matcher);
            }
        }
        metrics::counter!("narvaro_reads_total", "kind" => "items").increment(1);
        Ok(())
    }

    /// Reads the mailbox's zone again where what is known of it is not fresh: it comes with changes, since nothing
    /// announces it. Where days change it has to be right, elsewhere only texts are told by it.
    async fn refresh_zone(
        &mut self,
        integration: &Integration,
        mailbox: &MailboxRef,
        whole_days: bool,
    ) -> Result<(), ReadError> {
        let at = self.now();
        let fresh = if whole_days { ZONE_FRESH_FOR_DAYS } else { ZONE_FRESH };
        if self.state.zone.as_ref().is_some_and(|zone| at.duration_since(zone.at) <= fresh) {
            return Ok(());
        }
        let name = integration.source.time_zone(mailbox).await?;
        self.state.zone = Some(ZoneRead { name, at });
        Ok(())
    }

    async fn read_item(&self, mailbox: &MailboxRef, item: &EventId) -> Result<ItemChange, ReadError> {
        let (Some(integration), Some(timetable)) = (&self.seat.office.integration, &self.state.timetable)
        else {
            return Ok(ItemChange::Nothing);
        };
        let source = &integration.source;
        let found = match &integration.brought {
            Some(brought) => {
                let watch = self.state.watch.as_ref().map(|watch| watch.generation);
                brought.event(self.lease.mailbox, mailbox, item, watch).await?
            }
            None => source.event(mailbox, item).await?,
        };
        let Some(event) = found else {
            return Ok(ItemChange::Gone(item.clone()));
        };
        let series = match (event.kind, &event.series) {
            (EventKind::SeriesMaster, _) => Some(event.id.clone()),
            (EventKind::Occurrence | EventKind::Exception, Some(series)) => Some(series.clone()),
            _ => None,
        };
        if let Some(series) = series {
            let instances = source.instances(mailbox, &series, timetable.window).await?;
            // One look decides for the series: all its occurrences lie in one calendar. It is taken at one that matters,
            // which may be a single one with a subject of its own.
            if let Some(telling) = instances.iter().find(|instance| self.matters(instance))
                && !self.is_of_default_calendar(mailbox, telling, &series).await?
            {
                return Ok(ItemChange::Nothing);
            }
            return Ok(ItemChange::Series(series, instances));
        }
        if self.is_of_default_calendar(mailbox, &event, &event.id).await? {
            Ok(ItemChange::Single(Box::new(event)))
        } else {
            // It may have been moved out of the default calendar.
            Ok(ItemChange::Gone(event.id))
        }
    }

    /// Whether an event counts at all as to where it lies. What is in the timetable was seen there, and an event
    /// without a word makes no difference wherever it lies: only a new one with a word costs a look.
    async fn is_of_default_calendar(
        &self,
        mailbox: &MailboxRef,
        event: &CalendarEvent,
        known_as: &EventId,
    ) -> Result<bool, ReadError> {
        let (Some(integration), Some(timetable)) = (&self.seat.office.integration, &self.state.timetable)
        else {
            return Ok(false);
        };
        if timetable.knows(known_as) || !self.matters(event) {
            return Ok(true);
        }
        match &integration.brought {
            Some(brought) => brought.in_default_calendar(self.lease.mailbox, mailbox, event).await,
            None => integration.source.in_default_calendar(mailbox, event).await,
        }
    }

    fn matters(&self, event: &CalendarEvent) -> bool {
        let ruleset = self.seat.ruleset();
        let fallback = &ruleset.rules.counting.fallback;
        let by_word = event.subject.as_ref().is_some_and(|subject| {
            ruleset.matcher.judge_event(subject.expose(), &event.categories).winner.is_some()
        });
        by_word
            || [&fallback.busy, &fallback.oof, &fallback.working_elsewhere].into_iter().any(Option::is_some)
    }

    fn zone(&self) -> Zone {
        let spelled = self.state.zone.as_ref().and_then(|zone| zone.name.as_deref());
        Zone::choose(spelled, &self.seat.ruleset().rules.time_zone)
    }
}

/// When the newest of these changes was made, as far as they tell.
fn last_change(
    changes: &Changes,
    events: &[CalendarEvent],
    series: &[(EventId, Vec<CalendarEvent>)],
) -> Option<Timestamp> {
    let of_series = series.iter().flat_map(|(_, occurrences)| occurrences);
    let changed = events
        .iter()
        .chain(of_series)
        .filter(|event| changes.added.contains(&event.id) || changes.changed.contains(&event.id));
    changed.filter_map(|event| event.last_modified).max()
}

/// What a changed item comes to.
enum ItemChange {
    Nothing,
    Gone(EventId),
    Single(Box<CalendarEvent>),
    Series(EventId, Vec<CalendarEvent>),
}

impl ItemChange {
    fn has_whole_days(&self) -> bool {
        match self {
            Self::Nothing | Self::Gone(_) => false,
            Self::Single(event) => event.is_of_whole_days(),
            Self::Series(_, instances) => instances.iter().any(CalendarEvent::is_of_whole_days),
        }
    }

    fn enter(
        self,
        timetable: &mut crate::timetable::Timetable,
        rules: &crate::model::Rules,
        matcher: &crate::timetable::Matcher,
    ) {
        match self {
            Self::Nothing => {}
            Self::Gone(item) => {
                timetable.remove(&item);
            }
            Self::Single(event) => {
                timetable.upsert(rules, matcher, &event);
            }
            Self::Series(series, instances) => {
                timetable.replace_series(rules, matcher, &series, &instances);
            }
        }
    }
}
