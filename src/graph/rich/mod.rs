//! Events that are sent along with their notifications: opened here instead of fetched.
//!
//! ```text
//!  webhook ── SealedBox ──▶ RichCompany::event ── tokens (signers) ── cipher (keys) ── events ──▶ the event
//!                                   └── anything missing, false, old or not whole ──▶ fetched as always
//! ```
//!
//! Promises: what is used was vouched for by Graph's own tokens, came by the mailbox's living subscription, was opened
//! with our key, holds all that a fetched event holds, and is newer than everything known of that event. Nothing that is
//! opened is stored or logged; whatever is not used is counted with its reason, and looks the same to its sender.
//!
//! # What is news
//!
//! Notifications come late, twice, and out of order, and what one brings is the event as it was then. A fetched event
//! is as it is now. So what was brought is used only if it was changed later than all looks at that event: the end of
//! the last round, the last fetch of it (or the last try), and the last that was used; and later than the last that was
//! brought for the mailbox and dropped. That is remembered here for a while; what is older than the memory is not news
//! either, and so a restart costs a few requests. Looks are timed by our clock and changes by Microsoft's: what was changed
//! about when we looked is fetched.
//!
//! # Which calendar
//!
//! Notifications tell of all calendars of a mailbox, and the default one counts. An event does not say in which it lies,
//! but its folder is sent along: once a look at the view of the default calendar has shown one event of a folder, the
//! folder is known, and the next event in it needs no look.
//!
//! # Series
//!
//! An occurrence or a master says nothing of the others in its series: these are fetched.

mod cipher;
mod keys;
mod signers;
mod tokens;

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde_json::{Map, Value};

pub(super) use keys::Certificate;
pub use keys::KeyError;

use self::{
    cipher::NotOpened,
    keys::EncryptionKeys,
    signers::Signers,
    tokens::{Audience, Untrusted},
};
use super::{Graph, GraphCompany, events::WireEvent};
use crate::{
    calendar::{BroughtEvents, CalendarSource, MailboxRef, ReadError},
    clock::SharedClock,
    model::{CalendarEvent, EventId, EventKind, MailboxId, SubscriptionId, TenantId},
    subscription::{ListedWatch, Watch, WatchError, WatchKeeper, WatchPage, WatchRequest},
    webhook::sealed::{Sealed, SealedBox, Taken},
};

/// How long it is remembered when an event was looked at: longer than most deliveries take. What Graph tries again
/// after that is fetched.
const REMEMBERED_FOR: SignedDuration = SignedDuration::from_mins(15);

/// How far our clock and Microsoft's may differ where a change is held against a look. Both follow time servers, so
/// that this is plenty, and a fetch of what is changed within it costs little.
const CLOCKS_DIFFER: SignedDuration = SignedDuration::from_secs(10);

/// Most looks that are remembered; about 250 bytes each.
const MOST_REMEMBERED: usize = 100_000;

/// What must stand in what was brought: a member that is missing would be taken for one that says nothing.
const NEEDED: [&str; 13] = [
    "type",
    "subject",
    "start",
    "end",
    "isAllDay",
    "isCancelled",
    "isOrganizer",
    "showAs",
    "sensitivity",
    "responseStatus",
    "categories",
    "organizer",
    "lastModifiedDateTime",
];

/// Rich notifications, for all companies that have them.
pub struct Rich {
    graph: Arc<Graph>,
    brought: Arc<SealedBox>,
    keys: EncryptionKeys,
    signers: Signers,
    audience: Audience,
    clock: SharedClock,
    looks: Mutex<Looks>,
    folders: Mutex<HashMap<MailboxId, Folders>>,
}

/// What is known of a mailbox's folders, by their entry ids.
#[derive(Default)]
struct Folders {
    /// That of the default calendar.
    default: Option<String>,
    /// The event that was read last, and where it lies.
    latest: Option<(EventId, String)>,
}

impl Rich {
    /// Opens what waits in `brought`, with keys that are kept in the file `keys`.
    ///
    /// # Errors
    /// [`KeyError`] where there is such a file and it cannot be read.
    pub fn new(graph: Arc<Graph>, brought: Arc<SealedBox>, keys: PathBuf) -> Result<Arc<Self>, KeyError> {
        let clock = Arc::clone(&graph.clock);
        let authority = graph.cloud().login_authority().clone();
        Ok(Arc::new(Self {
            brought,
            keys: EncryptionKeys::load(keys, Arc::clone(&clock))?,
            signers: Signers::new(graph.client.clone(), &authority, Arc::clone(&clock)),
            audience: Audience { client_id: graph.client_id().to_owned(), authority },
            looks: Mutex::new(Looks::since(clock.now() + CLOCKS_DIFFER)),
            folders: Mutex::default(),
            clock,
            graph,
        }))
    }

    /// Graph, for companies whose events are fetched.
    pub fn graph(&self) -> &Arc<Graph> {
        &self.graph
    }

    /// The company with this tenant, its events sent along.
    pub fn company(self: &Arc<Self>, tenant: TenantId) -> Arc<RichCompany> {
        Arc::new(RichCompany { rich: Arc::clone(self), company: self.graph.company(tenant) })
    }

    async fn certificate(&self) -> Result<Certificate, WatchError> {
        self.keys.current().await.map_err(|error| WatchError::Read(ReadError::Unreachable(Box::new(error))))
    }

    /// What was brought of an event, if it can be used.
    async fn use_brought(
        &self,
        whose: MailboxId,
        id: &EventId,
        tenant: &TenantId,
        watch: Option<u32>,
    ) -> Result<CalendarEvent, Unused> {
        let Taken { sealed: brought, complete_since } = self.brought.take(whose, id);
        // What was taken out may be lost from here on, where the reading is given up or the fetch fails. Then nothing
        // that was changed before now may take its place.
        let seen_until = self.begin_look(whose, id);
        let known_until = seen_until.max(complete_since + CLOCKS_DIFFER);
        if brought.iter().any(|sealed| Some(sealed.watch) != watch) {
            return Err(Unused("replaced"));
        }
        let mut newest: Option<Opened> = None;
        for sealed in brought {
            let opened = self.open(&sealed, id, tenant).await?;
            let is_newer = |before: &Opened| before.event.last_modified <= opened.event.last_modified;
            if newest.as_ref().is_none_or(is_newer) {
                newest = Some(opened);
            }
        }
        let Opened { event, folder } = newest.ok_or(Unused("nothing_brought"))?;
        let modified = event.last_modified.ok_or(Unused("not_whole"))?;
        match event.kind {
            _ if modified <= known_until => Err(Unused("not_news")),
            EventKind::Single => {
                self.looks().note(whose, id, modified, self.clock.now());
                self.folders().entry(whose).or_default().latest = folder.map(|folder| (id.clone(), folder));
                Ok(event)
            }
            EventKind::Occurrence | EventKind::Exception | EventKind::SeriesMaster => Err(Unused("series")),
        }
    }

    async fn open(&self, sealed: &Sealed, id: &EventId, tenant: &TenantId) -> Result<Opened, Unused> {
        let delivery = &sealed.delivery;
        self.audience.trust(delivery, &self.signers, self.clock.now()).await?;
        if !delivery.tenants.contains(tenant.as_str()) {
            return Err(Unused("bad_token"));
        }
        let private = self.keys.private(&sealed.certificate).await.ok_or(Unused("unknown_certificate"))?;
        let clear = cipher::open(&private, sealed)?;
        read(&clear, id).ok_or(Unused("not_whole"))
    }

    fn folders(&self) -> MutexGuard<'_, HashMap<MailboxId, Folders>> {
        self.folders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn looks(&self) -> MutexGuard<'_, Looks> {
        self.looks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that an event is looked at now; up to when it was known before.
    fn begin_look(&self, whose: MailboxId, id: &EventId) -> Timestamp {
        self.looked(whose, id, self.clock.now() + CLOCKS_DIFFER)
    }

    /// Notes that a look has shown an event as it was at a time; up to when it was known before.
    fn looked(&self, whose: MailboxId, id: &EventId, until: Timestamp) -> Timestamp {
        let mut looks = self.looks();
        let before = looks.known_until(whose, id);
        looks.note(whose, id, before.max(until), self.clock.now());
        before
    }
}

/// Why what was brought is not used: a name for our counters.
#[derive(Debug, PartialEq, Eq)]
struct Unused(&'static str);

impl From<Untrusted> for Unused {
    fn from(Untrusted(reason): Untrusted) -> Self {
        Self(reason)
    }
}

impl From<NotOpened> for Unused {
    fn from(not_opened: NotOpened) -> Self {
        Self(not_opened.step)
    }
}

/// What stood in an opened text.
#[derive(Debug, PartialEq)]
struct Opened {
    event: CalendarEvent,
    /// Where it lies.
    folder: Option<String>,
}

/// The event that stands in the opened text, if all of it does. Mistakes are not told: they quote it.
fn read(clear: &[u8], id: &EventId) -> Option<Opened> {
    let mut members: Map<String, Value> = serde_json::from_slice(clear).ok()?;
    if NEEDED.iter().any(|name| !members.contains_key(*name)) {
        return None;
    }
    // It is not always there; where it is, it is the one that the notification named.
    let named = members.entry("id").or_insert_with(|| id.as_str().into());
    if named.as_str() != Some(id.as_str()) {
        return None;
    }
    // We have one property sent along.
    let folder =
        members.get("singleValueExtendedProperties").and_then(|all| all.get(0)?.get("value")?.as_str());
    let folder = folder.map(str::to_owned);
    let event = WireEvent::deserialize(Value::Object(members)).ok()?.into_event("event").ok()?;
    Some(Opened { event, folder })
}

/// When events were last looked at.
struct Looks {
    /// What was changed before this is never news.
    floor: Timestamp,
    /// Nor what was changed before the mailbox's last round ended.
    rounds: HashMap<MailboxId, Timestamp>,
    seen: HashMap<(MailboxId, EventId), Timestamp>,
}

impl Looks {
    fn since(floor: Timestamp) -> Self {
        Self { floor, rounds: HashMap::new(), seen: HashMap::new() }
    }

    /// What was changed up to then is not news.
    fn known_until(&self, whose: MailboxId, id: &EventId) -> Timestamp {
        let looks = [self.rounds.get(&whose), self.seen.get(&(whose, id.clone()))];
        looks.into_iter().flatten().copied().fold(self.floor, Timestamp::max)
    }

    fn note(&mut self, whose: MailboxId, id: &EventId, until: Timestamp, now: Timestamp) {
        if self.seen.len() >= MOST_REMEMBERED {
            self.floor = self.floor.max(now - REMEMBERED_FOR);
            let floor = self.floor;
            self.seen.retain(|_, seen| *seen >= floor);
        }
        if self.seen.len() >= MOST_REMEMBERED {
            self.floor = self.floor.max(now + CLOCKS_DIFFER);
            self.seen.clear();
        }
        self.seen.insert((whose, id.clone()), until);
    }
}

/// One company at Graph whose events are sent along.
pub struct RichCompany {
    rich: Arc<Rich>,
    company: Arc<GraphCompany>,
}

#[async_trait]
impl BroughtEvents for RichCompany {
    fn expect(&self, whose: MailboxId) {
        self.rich.brought.expect(whose);
    }

    fn has_read(&self, whose: MailboxId) {
        let until = self.rich.clock.now() + CLOCKS_DIFFER;
        self.rich.looks().rounds.insert(whose, until);
    }

    async fn event(
        &self,
        whose: MailboxId,
        mailbox: &MailboxRef,
        id: &EventId,
        watch: Option<u32>,
    ) -> Result<Option<CalendarEvent>, ReadError> {
        if let Some(known) = self.rich.folders().get_mut(&whose) {
            known.latest = None;
        }
        match self.rich.use_brought(whose, id, &self.company.tenant, watch).await {
            Ok(event) => {
                count("used");
                Ok(Some(event))
            }
            Err(Unused(reason)) => {
                count(reason);
                self.rich.begin_look(whose, id);
                let event = self.company.event(mailbox, id).await?;
                // Should Microsoft's clock be far ahead of ours.
                if let Some(modified) = event.as_ref().and_then(|event| event.last_modified) {
                    self.rich.looked(whose, id, modified);
                }
                Ok(event)
            }
        }
    }

    async fn in_default_calendar(
        &self,
        whose: MailboxId,
        mailbox: &MailboxRef,
        event: &CalendarEvent,
    ) -> Result<bool, ReadError> {
        let folder = {
            let folders = self.rich.folders();
            let known = folders.get(&whose);
            let latest = known.and_then(|known| known.latest.as_ref());
            let folder = latest.filter(|(id, _)| *id == event.id).map(|(_, folder)| folder.clone());
            if folder.is_some() && folder.as_ref() == known.and_then(|known| known.default.as_ref()) {
                return Ok(true);
            }
            folder
        };
        let is_there = self.company.in_default_calendar(mailbox, event).await?;
        if is_there && folder.is_some() {
            self.rich.folders().entry(whose).or_default().default = folder;
        }
        Ok(is_there)
    }
}

#[async_trait]
impl WatchKeeper for RichCompany {
    async fn create(&self, request: &WatchRequest) -> Result<Watch, WatchError> {
        let certificate = self.rich.certificate().await?;
        self.company.create_watch(request, Some(&certificate)).await
    }

    async fn renew(&self, id: &SubscriptionId, until: Timestamp) -> Result<Watch, WatchError> {
        let certificate = self.rich.certificate().await?;
        self.company.renew_watch(id, until, Some(&certificate)).await
    }

    async fn remove(&self, id: &SubscriptionId) -> Result<(), WatchError> {
        self.company.remove(id).await
    }

    async fn look(&self, id: &SubscriptionId) -> Result<Option<ListedWatch>, WatchError> {
        self.company.look(id).await
    }

    async fn find(&self, mailbox: &MailboxRef) -> Result<Vec<ListedWatch>, WatchError> {
        self.company.find(mailbox).await
    }

    async fn list(&self, next: Option<&str>) -> Result<WatchPage, WatchError> {
        self.company.list(next).await
    }
}

fn count(outcome: &'static str) {
    metrics::counter!("narvaro_rich_notifications_total", "outcome" => outcome).increment(1);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{super::testing::fixture, *};
    use crate::model::{Interval, When};

    fn id() -> EventId {
        "AAk=".parse().unwrap()
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn brought() -> Value {
        let vector = fixture("rich-notification-vector.json");
        let mut event: Value = serde_json::from_str(vector["plaintext"].as_str().unwrap()).unwrap();
        // It was recorded with fewer members than we have sent along.
        event["responseStatus"] = json!({"response": "organizer"});
        event["isOrganizer"] = json!(true);
        event["categories"] = json!([]);
        event["organizer"] = json!({"emailAddress": {"address": "anna@example.org"}});
        event
    }

    fn read_value(value: &Value) -> Option<CalendarEvent> {
        read(&serde_json::to_vec(value).unwrap(), &id()).map(|opened| opened.event)
    }

    #[test]
    fn the_recorded_text_is_the_event_that_a_fetch_gives() {
        let event = read_value(&brought()).unwrap();
        assert_eq!(event.id, id());
        assert_eq!(event.kind, EventKind::Single);
        assert_eq!(event.subject.unwrap().expose(), "#dnd Focus: rate card review");
        let time = Interval::new(at("2026-11-23T09:00:00Z"), at("2026-11-23T10:30:00Z"));
        assert_eq!(event.when, When::Timed(time));
        assert_eq!(event.last_modified, Some(at("2026-11-20T13:45:09.1122334Z")));
    }

    #[test]
    fn what_is_not_whole_or_speaks_of_another_event_is_not_used() {
        for name in NEEDED {
            let mut event = brought();
            event.as_object_mut().unwrap().remove(name);
            assert_eq!(read_value(&event), None, "{name}");
        }
        let with_id = |id: Value| {
            let mut event = brought();
            event["id"] = id;
            read_value(&event)
        };
        assert!(with_id(json!("AAk=")).is_some());
        for other in [json!("aak="), json!(null), json!(7)] {
            assert_eq!(with_id(other), None);
        }
        let mut event = brought();
        event["start"] = json!("confidential");
        assert_eq!(read_value(&event), None);
        assert_eq!(read(b"[]", &id()), None);
        assert_eq!(read(b"", &id()), None);
    }

    #[test]
    fn what_is_not_newer_than_the_last_look_is_no_news() {
        let born = at("2026-11-23T08:00:00Z");
        let minutes = |minutes: i64| born + SignedDuration::from_mins(minutes);
        let mut looks = Looks::since(born);
        let anna = MailboxId(1);
        assert_eq!(looks.known_until(anna, &id()), born);
        looks.note(anna, &id(), minutes(10), minutes(10));
        assert_eq!(looks.known_until(anna, &id()), minutes(10));
        assert_eq!(looks.known_until(MailboxId(2), &id()), born);
        looks.note(anna, &id(), minutes(-10), minutes(10));
        assert_eq!(looks.known_until(anna, &id()), born);
        // A round has shown all of the mailbox's events, up to its end.
        looks.rounds.insert(anna, minutes(20));
        assert_eq!(looks.known_until(anna, &id()), minutes(20));
        assert_eq!(looks.known_until(MailboxId(2), &id()), born);
    }

    #[test]
    fn what_is_forgotten_makes_nothing_look_like_news() {
        let born = at("2026-11-23T08:00:00Z");
        let later = born + SignedDuration::from_hours(1);
        let mut looks = Looks::since(born);
        let anna = MailboxId(1);
        looks.note(anna, &id(), born, born);
        for n in 1..MOST_REMEMBERED {
            looks.note(anna, &n.to_string().parse().unwrap(), later, later);
        }
        assert_eq!(looks.seen.len(), MOST_REMEMBERED);
        looks.note(anna, &"one more".parse().unwrap(), later, later);
        assert_eq!(looks.known_until(anna, &id()), later - REMEMBERED_FOR);
        looks.note(anna, &"another".parse().unwrap(), later, later);
        assert_eq!(looks.known_until(anna, &id()), later + CLOCKS_DIFFER);
        assert_eq!(looks.seen.len(), 1);
    }
}
