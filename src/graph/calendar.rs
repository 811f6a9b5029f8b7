//! [`CalendarSource`] over Graph.

use std::collections::HashMap;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use serde::{Deserialize, de::DeserializeOwned};

use super::{
    GraphCompany,
    builder::Call,
    events::WireEvent,
    refusal::CallError,
    users::{self, WireUser},
    wire::{self, Page, unreadable},
};
use crate::{
    calendar::{CalendarSource, DeltaLink, MailboxRef, ReadError, Resolved, Round},
    model::{CalendarEvent, EventId, EventKind, Interval, When},
};

/// Events per page. Their bodies come with them, and a page has to fit the longest answer that is read.
pub(super) const EVENTS_PER_PAGE: u16 = 50;

/// No list of ours is longer; more means that the links go round in a circle.
pub(super) const MOST_PAGES: usize = 200;

/// How far around now a series is looked for: what a timetable spans.
const SERIES_AROUND: (SignedDuration, SignedDuration) =
    (SignedDuration::from_hours(24), SignedDuration::from_hours(35 * 24));

/// `GET .../mailboxSettings/timeZone`
#[derive(Deserialize)]
struct WireTimeZone {
    value: Option<String>,
}

impl GraphCompany {
    /// All items of a list; never a part of them.
    pub(super) async fn all_pages<T: DeserializeOwned>(&self, first: Call) -> Result<Vec<T>, CallError> {
        let mut items = Vec::new();
        let mut call = first;
        for _ in 0..MOST_PAGES {
            let page: Page<T> = wire::read(&self.transport.send(&call).await?)?;
            items.extend(page.value);
            match page.next {
                Some(link) => call = self.graph.requests.next_page(&call, &link)?,
                None => return Ok(items),
            }
        }
        Err(unreadable("@odata.nextLink").into())
    }

    async fn events(&self, first: Call) -> Result<Vec<CalendarEvent>, CallError> {
        let items = self.all_pages::<WireEvent>(first).await?;
        let events = items.into_iter().enumerate();
        let events = events.map(|(n, event)| event.into_event(&format!("value[{n}]")));
        Ok(once_each(events.collect::<Result<_, ReadError>>()?))
    }

    /// All events of the default calendar that touch the window, as they are.
    pub(super) async fn view(
        &self,
        mailbox: &MailboxRef,
        window: Interval,
    ) -> Result<Vec<CalendarEvent>, ReadError> {
        let call = self.graph.requests.calendar_view(mailbox, window, EVENTS_PER_PAGE).await?;
        Ok(self.events(call).await?)
    }

    /// Whether the calendar view around an event's own time shows it.
    async fn shows(&self, mailbox: &MailboxRef, event: &CalendarEvent) -> Result<bool, ReadError> {
        let around = self.view(mailbox, around(event.when)).await?;
        Ok(around.iter().any(|shown| shown.id == event.id))
    }
}

#[async_trait]
impl CalendarSource for GraphCompany {
    async fn resolve(&self, alias: &str) -> Result<Resolved, ReadError> {
        let alias = alias.trim();
        if alias.is_empty() {
            return Err(ReadError::UnknownAlias { alias: String::new() });
        }
        let call = self.graph.requests.users_with_address(alias).await?;
        users::pick(alias, self.all_pages::<WireUser>(call).await?)
    }

    async fn time_zone(&self, mailbox: &MailboxRef) -> Result<Option<String>, ReadError> {
        let call = self.graph.requests.time_zone(mailbox).await?;
        let answer: WireTimeZone = wire::read(&self.transport.send(&call).await?)?;
        Ok(answer.value.filter(|name| !name.trim().is_empty()))
    }

    async fn round(
        &self,
        mailbox: &MailboxRef,
        window: Interval,
        since: Option<&DeltaLink>,
    ) -> Result<Round, ReadError> {
        match since {
            None => self.whole_round(mailbox, window).await,
            Some(link) => self.round_since(mailbox, window, link).await,
        }
    }

    async fn event(&self, mailbox: &MailboxRef, id: &EventId) -> Result<Option<CalendarEvent>, ReadError> {
        let call = self.graph.requests.event(mailbox, id).await?;
        match self.transport.send(&call).await {
            Ok(body) => wire::read::<WireEvent>(&body)?.into_event("event").map(Some),
            Err(CallError::Refused(refusal)) if refusal.is_missing_item() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    async fn instances(
        &self,
        mailbox: &MailboxRef,
        series: &EventId,
        window: Interval,
    ) -> Result<Vec<CalendarEvent>, ReadError> {
        let call = self.graph.requests.instances(mailbox, series, window, EVENTS_PER_PAGE).await?;
        match self.events(call).await {
            Err(CallError::Refused(refusal)) if refusal.is_missing_item() => Ok(Vec::new()),
            outcome => Ok(outcome?),
        }
    }

    /// An event says nothing of its calendar, but the calendar view is the default calendar's alone: an event
    /// that the view around its own time does not show lies elsewhere. A series is judged by one of its
    /// occurrences, since a master is never on a view.
    async fn in_default_calendar(
        &self,
        mailbox: &MailboxRef,
        event: &CalendarEvent,
    ) -> Result<bool, ReadError> {
        if event.kind != EventKind::SeriesMaster {
            return self.shows(mailbox, event).await;
        }
        let now = self.graph.clock.now();
        let (before, after) = SERIES_AROUND;
        let window = Interval::new(shifted(now, -before), shifted(now, after));
        match self.instances(mailbox, &event.id, window).await?.first() {
            Some(occurrence) => self.shows(mailbox, occurrence).await,
            None => Ok(false),
        }
    }

    async fn check(&self) -> Result<String, ReadError> {
        self.tokens.login_now().await?;
        Ok(format!(
            "The login service gave our application `{}` a token for tenant `{}`. Whether it may read a mailbox \
             shows at the first one.",
            self.graph.application.client_id, self.tenant
        ))
    }
}

/// A list that changes between two pages can show an event twice; the later one is the newer.
fn once_each(events: Vec<CalendarEvent>) -> Vec<CalendarEvent> {
    let mut places = HashMap::with_capacity(events.len());
    let mut once: Vec<CalendarEvent> = Vec::with_capacity(events.len());
    for event in events {
        match places.get(&event.id) {
            Some(&place) => once[place] = event,
            None => {
                places.insert(event.id.clone(), once.len());
                once.push(event);
            }
        }
    }
    once
}

/// A narrow window that the event is sure to touch: around its start, so that a long event does not bring a
/// month of others. An all-day event begins somewhere between the first and the last zone's midnight.
fn around(when: When) -> Interval {
    match when {
        When::Timed(time) => Interval::new(
            shifted(time.start, SignedDuration::from_secs(-1)),
            shifted(time.start, SignedDuration::from_secs(60)),
        ),
        When::AllDay { first, .. } => {
            let midnight = TimeZone::UTC.to_timestamp(first.at(0, 0, 0, 0)).unwrap_or(Timestamp::MAX);
            Interval::new(
                shifted(midnight, SignedDuration::from_hours(-14)),
                shifted(midnight, SignedDuration::from_hours(14)),
            )
        }
    }
}

fn shifted(at: Timestamp, by: SignedDuration) -> Timestamp {
    at.checked_add(by).unwrap_or(at)
}
