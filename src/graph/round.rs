//! Rounds of `calendarView/delta`: what a calendar holds, and what has changed since.
//! Facts: <https://learn.microsoft.com/graph/delta-query-events>.
//!
//! What a reader of these pages has to know, and is met here: a page can be empty and have a next one; the same id
//! can come several times, the last counts; `@removed` comes for what lies outside the window too; occurrences
//! can be thin, their series standing on another page or on none; links are used as they are, at our own Graph
//! only, and can be forgotten by Graph at any page.
//!
//! Of a series, a round from the start of a window holds all occurrences, and they are completed from their series'
//! own row. A later round holds some of them, and nowhere is written which: of a series that any row speaks of, all
//! occurrences in the window are read anew. That is one request per changed series, and right whatever Graph sends.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::{
    GraphCompany,
    builder::Call,
    calendar::{EVENTS_PER_PAGE, MOST_PAGES},
    events::WireEvent,
    refusal::CallError,
    wire::{self, DeltaPage, unreadable},
};
use crate::{
    calendar::{CalendarSource, DeltaLink, MailboxRef, ReadError, Round},
    model::{CalendarEvent, EventId, Interval},
};

/// A row, and its number in the round, by which mistakes in it are named.
type Row = (usize, WireEvent);

/// The rows of a round, by what they are.
#[derive(Default)]
struct Sorted {
    gone: Vec<EventId>,
    masters: HashMap<String, WireEvent>,
    of_series: Vec<Row>,
    singles: Vec<Row>,
}

impl GraphCompany {
    /// All that touches the window.
    pub(super) async fn whole_round(
        &self,
        mailbox: &MailboxRef,
        window: Interval,
    ) -> Result<Round, ReadError> {
        let first = self.graph.requests.calendar_delta(mailbox, window, EVENTS_PER_PAGE).await?;
        let (rows, link) = self.delta_pages(first, false).await?;
        let Sorted { masters, of_series, singles, .. } = Sorted::of(rows)?;
        let mut events = into_events(singles)?;
        let mut incomplete = BTreeSet::new();
        for (n, mut row) in of_series {
            let series = row.series().and_then(|id| masters.get(id));
            if row.is_thin() && !series.is_some_and(|series| row.inherit(series)) {
                incomplete.insert(series_of(n, &row)?);
            } else {
                events.push(row.into_event(&place(n))?);
            }
        }
        for series in incomplete {
            events.retain(|event| event.series.as_ref() != Some(&series));
            events.extend(self.instances(mailbox, &series, window).await?);
        }
        Ok(Round { events, series: Vec::new(), gone: Vec::new(), link })
    }

    /// What has changed since a round ended.
    pub(super) async fn round_since(
        &self,
        mailbox: &MailboxRef,
        window: Interval,
        link: &DeltaLink,
    ) -> Result<Round, ReadError> {
        let first = self.graph.requests.calendar_delta_since(mailbox, link, EVENTS_PER_PAGE);
        // Kept from a time when Graph had another address: nothing here knows it.
        let first = first.ok_or(ReadError::LinkExpired)?;
        let (rows, link) = self.delta_pages(first, true).await?;
        let Sorted { gone, masters, of_series, singles } = Sorted::of(rows)?;
        let mut changed = BTreeSet::new();
        for id in masters.into_keys() {
            changed.insert(id.parse().map_err(|_quotes_the_id| unreadable("value[].id"))?);
        }
        for (n, row) in &of_series {
            changed.insert(series_of(*n, row)?);
        }
        let mut series = Vec::with_capacity(changed.len());
        for id in changed {
            let occurrences = self.instances(mailbox, &id, window).await?;
            series.push((id, occurrences));
        }
        Ok(Round { events: into_events(singles)?, series, gone, link })
    }

    /// All rows of a round, each id once, and the link of the next one. `by_link` says whether the first page is
    /// asked for by a link.
    async fn delta_pages(&self, first: Call, by_link: bool) -> Result<(Vec<Row>, DeltaLink), ReadError> {
        let mut rows = Vec::new();
        let (mut call, mut by_link) = (first, by_link);
        for _ in 0..MOST_PAGES {
            let page: DeltaPage<WireEvent> = match self.transport.send(&call).await {
                Ok(body) => wire::read(&body)?,
                Err(CallError::Refused(refusal)) if refusal.is_lost_sync() => {
                    return Err(ReadError::LinkExpired);
                }
                Err(error) => {
                    return Err(match ReadError::from(error) {
                        // Asked with nothing of our own but the link: no other way out than without it.
                        ReadError::Refused { .. } if by_link => ReadError::LinkExpired,
                        error => error,
                    });
                }
            };
            rows.extend(page.value);
            match (page.next, page.delta) {
                (Some(next), None) => call = self.graph.requests.next_page(&call, &next)?,
                (None, Some(link)) => {
                    return Ok((last_of_each(rows), self.graph.requests.next_round(link)?));
                }
                _ => return Err(unreadable("@odata.deltaLink")),
            }
            by_link = true;
        }
        Err(unreadable("@odata.nextLink"))
    }
}

impl Sorted {
    fn of(rows: Vec<Row>) -> Result<Self, ReadError> {
        let mut sorted = Self::default();
        for (n, row) in rows {
            if row.is_removed() {
                sorted.gone.push(parse(n, row.id(), "id")?);
            } else if row.is_master() {
                sorted.masters.insert(row.id().to_owned(), row);
            } else if row.series().is_some() {
                sorted.of_series.push((n, row));
            } else {
                sorted.singles.push((n, row));
            }
        }
        Ok(sorted)
    }
}

/// The last row of each id, in the order of the round.
fn last_of_each(rows: Vec<WireEvent>) -> Vec<Row> {
    let mut rows: Vec<Row> = rows.into_iter().enumerate().collect();
    let mut seen = HashSet::with_capacity(rows.len());
    rows.reverse();
    rows.retain(|(_, row)| seen.insert(row.id().to_owned()));
    rows.reverse();
    rows
}

fn into_events(rows: Vec<Row>) -> Result<Vec<CalendarEvent>, ReadError> {
    rows.into_iter().map(|(n, row)| row.into_event(&place(n))).collect()
}

fn series_of(n: usize, row: &WireEvent) -> Result<EventId, ReadError> {
    parse(n, row.series().unwrap_or_default(), "seriesMasterId")
}

fn parse(n: usize, id: &str, field: &str) -> Result<EventId, ReadError> {
    id.parse().map_err(|_quotes_the_id| unreadable(format!("{}.{field}", place(n))))
}

fn place(n: usize) -> String {
    format!("value[{n}]")
}
