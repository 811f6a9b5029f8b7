//! The reading part of a turn: who the mailbox is, its zone, and what changed.

use jiff::Timestamp;
use tracing::{debug, info, warn};

use super::{
    Turn, ZONE_FRESH,
    state::{Found, Trouble, ZoneRead},
};
use crate::{
    calendar::{MailboxRef, ReadError},
    chain::Chain,
    health::Health,
    model::{CalendarEvent, EventId, EventKind, Interval},
    queue::Reason,
    timetable::Zone,
};

/// Marks that make a complete read necessary.
const ASK_FOR_ALL: [Reason; 6] =
    [Reason::Missed, Reason::Removed, Reason::Applied, Reason::Asked, Reason::Started, Reason::Consent];

/// Marks behind which a person stands, or news: they do not wait for a trouble's time, unless the server asked for it.
const DO_NOT_WAIT: [Reason; 5] =
    [Reason::Applied, Reason::Asked, Reason::Started, Reason::Consent, Reason::RenewAsked];

impl Turn<'_> {
    /// Whether the calendar or the subscription wants something now.
    pub(super) fn wants_calendar(&self) -> bool {
        if self.seat.office.integration.is_none() {
            return false;
        }
        let trouble = self.state.calendar_trouble.as_ref();
        // Also after a restart, of which the gate before Graph knows nothing.
        let told_to_wait = trouble.is_some_and(|trouble| matches!(trouble.health, Health::Throttled { .. }));
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
        let every = self.sweep_every();
        let sweep = self.state.proven_until.map_or(Timestamp::UNIX_EPOCH, |proven| proven + every);
        Some(sweep.min(self.watch_due_at()))
    }

    /// How old a complete read may get: silence is trusted less where nothing would be announced.
    fn sweep_every(&self) -> jiff::SignedDuration {
        let settings = &self.turns.settings;
        let alive = self.state.watch.as_ref().is_some_and(|watch| watch.expires > self.now());
        if alive { settings.sweep_every } else { settings.poll_every }
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

    /// Reads what is owed: everything, or just the items that changed.
    pub(super) async fn read_calendar(&mut self) {
        let Some(found) = self.state.resolved.clone() else { return };
        let outcome = if self.needs_all() {
            self.read_all(&found.mailbox).await
        } else {
            match self.read_items(&found.mailbox).await {
                // One item that cannot even be asked for must not stand in the way of all the others.
                Err(ReadError::Refused { reason }) => {
                    warn!(
                        reason,
                        "An item of mailbox {} was refused: everything is read", self.lease.mailbox
                    );
                    self.state.owed.overflow = true;
                    self.read_all(&found.mailbox).await
                }
                outcome => outcome,
            }
        };
        match outcome {
            Ok(()) => {
                self.calendar_read = true;
                if self.state.calendar_trouble.take().is_some() {
                    info!("The calendar of mailbox {} can be read again", self.lease.mailbox);
                }
            }
            Err(error) => {
                // A mailbox that is gone may come back as another one, and its subscription does not come with it.
                if matches!(error, ReadError::Gone { .. } | ReadError::NoMailbox { .. }) {
                    self.state.resolved = None;
                    self.state.watch = None;
                }
                self.failed(&error, "Reading the calendar");
            }
        }
    }

    fn needs_all(&self) -> bool {
        let Some(timetable) = &self.state.timetable else { return true };
        let owed = &self.state.owed;
        let every = self.sweep_every();
        owed.overflow
            || owed.reasons.any(&ASK_FOR_ALL)
            || timetable.rules_version != self.seat.ruleset().rules.version
            || self.state.proven_until.is_none_or(|proven| proven + every <= self.now())
    }

    /// A complete read: the only kind that proves the timetable.
    async fn read_all(&mut self, mailbox: &MailboxRef) -> Result<(), ReadError> {
        let Some(integration) = self.seat.office.integration.clone() else { return Ok(()) };
        let begun = self.now();
        let (back, ahead) = self.turns.settings.window;
        let window = Interval::new(begun - back, begun + ahead);
        let (zone, events) = tokio::try_join!(
            integration.source.time_zone(mailbox),
            integration.source.view(mailbox, window)
        )?;
        self.state.zone = Some(ZoneRead { name: zone, at: begun });
        let zone = self.zone();
        let ruleset = self.seat.ruleset();
        let timetable = self.state.timetable.get_or_insert_default();
        let changes = timetable.rebuild(&ruleset.rules, &ruleset.matcher, &events, window, zone);
        self.state.proven_until = Some(begun);
        metrics::counter!("narvaro_reads_total", "kind" => "all").increment(1);
        debug!(
            events = events.len(),
            changed = !changes.is_empty(),
            "The calendar of mailbox {} was read",
            self.lease.mailbox
        );
        Ok(())
    }

    /// Reads the items that notifications named, each as it is now.
    async fn read_items(&mut self, mailbox: &MailboxRef) -> Result<(), ReadError> {
        let items = self.state.owed.hints.clone();
        if items.is_empty() {
            return Ok(());
        }
        let Some(integration) = self.seat.office.integration.clone() else { return Ok(()) };
        let now = self.now();
        let stale = self.state.zone.as_ref().is_none_or(|zone| now.duration_since(zone.at) > ZONE_FRESH);
        let zone =
            async { if stale { integration.source.time_zone(mailbox).await.map(Some) } else { Ok(None) } };
        let changes = async {
            let mut changes = Vec::with_capacity(items.len());
            for item in &items {
                changes.push(self.read_item(mailbox, item).await?);
            }
            Ok(changes)
        };
        let (zone, changes) = tokio::try_join!(zone, changes)?;
        if let Some(name) = zone {
            self.state.zone = Some(ZoneRead { name, at: now });
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

    async fn read_item(&self, mailbox: &MailboxRef, item: &EventId) -> Result<ItemChange, ReadError> {
        let (Some(integration), Some(timetable)) = (&self.seat.office.integration, &self.state.timetable)
        else {
            return Ok(ItemChange::Nothing);
        };
        let source = &integration.source;
        let Some(event) = source.event(mailbox, item).await? else {
            return Ok(ItemChange::Gone(item.clone()));
        };
        let series = match (event.kind, &event.series) {
            (EventKind::SeriesMaster, _) => Some(event.id.clone()),
            (EventKind::Occurrence | EventKind::Exception, Some(series)) => Some(series.clone()),
            _ => None,
        };
        if let Some(series) = series {
            let instances = source.instances(mailbox, &series, timetable.window).await?;
            // One look decides for the series: all its occurrences lie in one calendar.
            if let Some(first) = instances.first()
                && !self.is_of_default_calendar(mailbox, first, &series).await?
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
        integration.source.in_default_calendar(mailbox, event).await
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

/// What a changed item comes to.
enum ItemChange {
    Nothing,
    Gone(EventId),
    Single(Box<CalendarEvent>),
    Series(EventId, Vec<CalendarEvent>),
}

impl ItemChange {
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
