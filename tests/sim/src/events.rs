//! Reading calendars: one event, instances of a series, calendarView and its delta.

use std::sync::Arc;

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use jiff::{
    Timestamp,
    civil::{Date, DateTime},
    tz::TimeZone,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::{
    calendar::{CalendarKind, Event, Every, IdProblem, ItemRef, Mailbox, Row, When, change_key, plus_days},
    clock::wire,
    graph::{Caller, Prefer, error},
    http::{Reply, Request},
    lock, read,
    rich::ResourceData,
    subscriptions::Subscription,
    world::{User, World},
    zones,
};

const PROPERTIES: [&str; 44] = [
    "id",
    "createdDateTime",
    "lastModifiedDateTime",
    "changeKey",
    "categories",
    "transactionId",
    "originalStartTimeZone",
    "originalEndTimeZone",
    "iCalUId",
    "uid",
    "reminderMinutesBeforeStart",
    "isReminderOn",
    "hasAttachments",
    "subject",
    "bodyPreview",
    "importance",
    "sensitivity",
    "isAllDay",
    "isCancelled",
    "isOrganizer",
    "responseRequested",
    "seriesMasterId",
    "showAs",
    "type",
    "webLink",
    "onlineMeetingUrl",
    "isOnlineMeeting",
    "onlineMeetingProvider",
    "allowNewTimeProposals",
    "isDraft",
    "hideAttendees",
    "recurrence",
    "onlineMeeting",
    "responseStatus",
    "body",
    "start",
    "end",
    "location",
    "locations",
    "attendees",
    "organizer",
    "originalStart",
    "cancelledOccurrences",
    "occurrenceId",
];

/// Whether an event has such a property.
pub(crate) fn is_property(name: &str) -> bool {
    PROPERTIES.contains(&name)
}

/// An event as it is sent along with a notification: what was selected, annotated as Graph does.
pub(crate) fn sent_along(
    world: &World,
    user: &User,
    subscription: &Subscription,
    data: &ResourceData,
    item: ItemRef,
) -> Option<Value> {
    let request = Request {
        method: hyper::Method::GET,
        path: String::new(),
        raw_query: String::new(),
        segments: Vec::new(),
        query: Vec::new(),
        headers: hyper::HeaderMap::new(),
        body: bytes::Bytes::new(),
    };
    let caller = Caller {
        tenant: world.tenant(&subscription.tenant)?,
        app: subscription.app.clone(),
        principal: String::new(),
        token_expires: subscription.token_until,
        permissions: Arc::default(),
        immutable: subscription.immutable,
        prefer: Prefer::default(),
        secret: None,
    };
    let view = View::new(world, &request, &caller, user).ok()?;
    let mailbox = lock(&user.mailbox);
    let row = view.row(&mailbox, item).ok()?;
    let mut members = view.render(&row, Some(&data.select), true);
    if data.folder {
        let folder = format!("{}/{:?}", user.id, row.event.calendar);
        let value = base64::prelude::BASE64_STANDARD.encode(folder);
        let property = json!([{"id": "Binary 0xe09", "value": value}]);
        members.insert("singleValueExtendedProperties".to_owned(), property);
    }
    drop(mailbox);
    for (name, kind) in [
        ("lastModifiedDateTime", "#DateTimeOffset"),
        ("showAs", "#microsoft.graph.freeBusyStatus"),
        ("sensitivity", "#microsoft.graph.sensitivity"),
        ("type", "#microsoft.graph.eventType"),
    ] {
        if members.contains_key(name) {
            members.insert(format!("{name}@odata.type"), json!(kind));
        }
    }
    for name in ["start", "end"] {
        if let Some(Value::Object(time)) = members.get_mut(name) {
            time.insert("@odata.type".to_owned(), json!("#microsoft.graph.dateTimeTimeZone"));
        }
    }
    Some(Value::Object(members))
}

/// Everything under `/users/{id}/` that is about events.
pub(crate) fn handle(
    world: &Arc<World>,
    request: &Request,
    caller: &Caller,
    user: &Arc<User>,
    rest: &[&str],
) -> Reply {
    if request.method != "GET" {
        return error(
            request,
            403,
            "ErrorAccessDenied",
            "Access is denied. Check credentials and try again.",
        );
    }
    let view = match View::new(world, request, caller, user) {
        Ok(view) => view,
        Err(reply) => return *reply,
    };
    let reply = match rest {
        ["events", id] => view.event(id),
        ["events", id, "instances"] => view.instances(id),
        ["calendarView"] | ["calendar", "calendarView"] => view.calendar_view(),
        ["calendarView", "delta" | "delta()"] => view.delta(),
        ["events"] => view.list(),
        _ => error(
            request,
            400,
            "BadRequest",
            &format!("Resource not found for the segment '{}'.", rest.join("/")),
        ),
    };
    if reply.status == 200 && !view.applied.is_empty() {
        return reply.header("preference-applied", view.applied.join(", "));
    }
    reply
}

struct View<'a> {
    world: &'a World,
    request: &'a Request,
    caller: &'a Caller,
    user: &'a User,
    /// Zone in which the mailbox's days lie.
    zone: TimeZone,
    zone_name: String,
    /// Zone asked for by `Prefer: outlook.timezone`.
    output: Option<(String, TimeZone)>,
    applied: Vec<String>,
    owner: (String, String),
}

type Answer<T> = Result<T, Box<Reply>>;

impl<'a> View<'a> {
    fn new(world: &'a World, request: &'a Request, caller: &'a Caller, user: &'a User) -> Answer<Self> {
        let (zone_name, zone) = user.zone();
        let mut applied = Vec::new();
        let output = match &caller.prefer.time_zone {
            None => None,
            Some(name) => {
                let zone = zones::zone(name).ok_or_else(|| {
                    Box::new(error(
                        request,
                        400,
                        "TimeZoneNotSupportedException",
                        &format!("A valid TimeZone value must be specified, got '{name}'."),
                    ))
                })?;
                applied.push(format!("outlook.timezone=\"{name}\""));
                Some((name.clone(), zone))
            }
        };
        if caller.prefer.text_body {
            applied.push("outlook.body-content-type=\"text\"".to_owned());
        }
        let owner = {
            let profile = read(&user.profile);
            (profile.spec.name.clone(), profile.spec.alias.clone())
        };
        Ok(Self { world, request, caller, user, zone, zone_name, output, applied, owner })
    }

    fn bad(&self, code: &str, why: &str) -> Box<Reply> {
        Box::new(error(self.request, 400, code, why))
    }

    fn gone(&self) -> Box<Reply> {
        Box::new(error(
            self.request,
            404,
            "ErrorItemNotFound",
            "The specified object was not found in the store.",
        ))
    }

    fn context(&self, what: &str) -> String {
        format!("{}/v1.0/$metadata#users('{}')/{what}", self.world.base_url, self.user.id)
    }

    /// Names in `$select`, checked; `None` without one.
    fn select(&self, listing: bool) -> Answer<Option<Vec<String>>> {
        let Some(select) = self.request.param("$select") else {
            return Ok(None);
        };
        let names: Vec<String> = select.split(',').map(|name| name.trim().to_owned()).collect();
        for name in &names {
            if !PROPERTIES.contains(&name.as_str()) {
                return Err(self.bad(
                    "RequestBroker--ParseUri",
                    &format!(
                        "Could not find a property named '{name}' on type 'Microsoft.OutlookServices.Event'."
                    ),
                ));
            }
            if listing && matches!(name.as_str(), "lastModifiedDateTime" | "createdDateTime") {
                return Err(self.bad(
                    "ErrorInvalidProperty",
                    &format!("The property '{name}' cannot be selected on calendarView."),
                ));
            }
        }
        Ok(Some(names))
    }

    fn parse_id(&self, id: &str) -> Answer<ItemRef> {
        match ItemRef::parse(id, self.user.number) {
            Ok((item, immutable)) => {
                if immutable != self.caller.immutable {
                    self.world.journal.violation(
                        "id-kinds-mixed",
                        format!("{} with Prefer {:?}", self.request.path, self.caller.prefer.raw),
                    );
                    return Err(self.bad("ErrorInvalidIdMalformed", "Id is malformed."));
                }
                Ok(item)
            }
            Err(IdProblem::Malformed) => Err(self.bad("ErrorInvalidIdMalformed", "Id is malformed.")),
            Err(IdProblem::OtherMailbox) => Err(self.gone()),
        }
    }

    fn row<'m>(&self, mailbox: &'m Mailbox, item: ItemRef) -> Answer<Row<'m>> {
        let event = mailbox.events.get(&item.key).ok_or_else(|| self.gone())?;
        if !self.caller.immutable && event.moves != item.moves {
            return Err(self.gone());
        }
        match item.slot {
            None => Ok(event.row()),
            Some(date) => event.slot(date).ok_or_else(|| self.gone()),
        }
    }

    fn event(&self, id: &str) -> Reply {
        let answer = || -> Answer<Reply> {
            let item = self.parse_id(id)?;
            let select = self.select(false)?;
            let mailbox = lock(&self.user.mailbox);
            let row = self.row(&mailbox, item)?;
            let mut body = Map::new();
            body.insert("@odata.context".to_owned(), json!(self.context("events/$entity")));
            body.append(&mut self.render(&row, select.as_deref(), true));
            Ok(Reply::json(200, &Value::Object(body)))
        };
        answer().unwrap_or_else(|reply| *reply)
    }

    fn window(&self) -> Answer<(Timestamp, Timestamp)> {
        let time = |name: &str| -> Answer<Timestamp> {
            let text = self.request.param(name).ok_or_else(|| {
                self.bad(
                    "ErrorInvalidParameter",
                    &format!("This request requires a time window specified by the query string parameters StartDateTime and EndDateTime: {name} is missing."),
                )
            })?;
            if text.contains(' ') {
                self.world.journal.violation("plus-not-encoded", self.request.raw_query.clone());
            }
            text.parse::<Timestamp>()
                .ok()
                .or_else(|| {
                    let local: DateTime = text.parse().ok()?;
                    local.to_zoned(TimeZone::UTC).ok().map(|at| at.timestamp())
                })
                .ok_or_else(|| {
                    self.bad(
                        "ErrorInvalidParameter",
                        &format!("The value '{text}' of parameter '{name}' is invalid."),
                    )
                })
        };
        let (from, to) = (time("startDateTime")?, time("endDateTime")?);
        if to < from {
            return Err(self.bad("ErrorInvalidParameter", "The end of the window lies before its start."));
        }
        if to.duration_since(from).as_hours() > 1_825 * 24 {
            return Err(self.bad(
                "ErrorInvalidParameter",
                "Your request can't be completed. The range between the start and end dates is greater than the allowed range. Maximum number of days: 1825",
            ));
        }
        Ok((from, to))
    }

    /// `$top`, the preferred page size, or 10.
    fn page_size(&self) -> Answer<usize> {
        let size = match self.request.param("$top") {
            Some(text) => text.parse().map_err(|_| self.bad("BadRequest", "Invalid value for $top."))?,
            None => self.caller.prefer.page_size.unwrap_or(10),
        };
        if size == 0 || size > 1_000 {
            return Err(self.bad("ErrorInvalidParameter", "The page size must be between 1 and 1000."));
        }
        Ok(size)
    }

    fn instances(&self, id: &str) -> Reply {
        let answer = || -> Answer<Reply> {
            let item = self.parse_id(id)?;
            let (from, to) = self.window()?;
            let select = self.select(false)?;
            let mailbox = lock(&self.user.mailbox);
            let row = self.row(&mailbox, item)?;
            if row.event.series.is_none() || row.slot.is_some() {
                return Err(self.bad("ErrorInvalidRecurrenceMaster", "The id does not name a series master."));
            }
            let mut rows = Vec::new();
            row.event.rows(from, to, &self.zone, &mut rows);
            rows.sort_by_key(|row| row.when.instants(&self.zone).0);
            let context = format!("events('{id}')/instances");
            self.page(&rows, select.as_deref(), &context)
        };
        answer().unwrap_or_else(|reply| *reply)
    }

    fn calendar_view(&self) -> Reply {
        let answer = || -> Answer<Reply> {
            self.only(&["startDateTime", "endDateTime", "$select", "$top", "$skip", "$orderby", "$count"])?;
            let (from, to) = self.window()?;
            let select = self.select(true)?;
            let mailbox = lock(&self.user.mailbox);
            let mut rows = Vec::new();
            for event in mailbox.events.values() {
                if event.calendar == CalendarKind::Default {
                    event.rows(from, to, &self.zone, &mut rows);
                }
            }
            match self.request.param("$orderby").map(str::trim) {
                // Without an order none is promised, and none is given.
                None => {}
                Some("start/dateTime" | "start/dateTime asc") => {
                    rows.sort_by_key(|row| row.when.instants(&self.zone).0);
                }
                Some(_) => {
                    return Err(
                        self.bad("ErrorInvalidParameter", "Only $orderby=start/dateTime is simulated.")
                    );
                }
            }
            self.page(&rows, select.as_deref(), "calendarView")
        };
        answer().unwrap_or_else(|reply| *reply)
    }

    /// `GET /users/{id}/events`: singles and masters of all calendars.
    fn list(&self) -> Reply {
        let answer = || -> Answer<Reply> {
            self.only(&["$select", "$top", "$skip"])?;
            let select = self.select(false)?;
            let mailbox = lock(&self.user.mailbox);
            let rows: Vec<Row<'_>> = mailbox.events.values().map(|event| event.row()).collect();
            self.page(&rows, select.as_deref(), "events")
        };
        answer().unwrap_or_else(|reply| *reply)
    }

    fn only(&self, known: &[&str]) -> Answer<()> {
        match self
            .request
            .query
            .iter()
            .find(|(key, _)| !known.iter().any(|one| one.eq_ignore_ascii_case(key)))
        {
            Some((key, _)) => {
                Err(self.bad("BadRequest", &format!("The query parameter '{key}' is not supported here.")))
            }
            None => Ok(()),
        }
    }

    fn page(&self, rows: &[Row<'_>], select: Option<&[String]>, what: &str) -> Answer<Reply> {
        let size = self.page_size()?;
        let skip: usize = match self.request.param("$skip") {
            Some(text) => text.parse().map_err(|_| self.bad("BadRequest", "Invalid value for $skip."))?,
            None => 0,
        };
        let value: Vec<Value> = rows
            .iter()
            .skip(skip)
            .take(size)
            .map(|row| Value::Object(self.render(row, select, false)))
            .collect();
        let mut body = json!({"@odata.context": self.context(what)});
        body["value"] = json!(value);
        if skip + size < rows.len() {
            let mut query = form_urlencoded::Serializer::new(String::new());
            for (key, value) in &self.request.query {
                if key != "$skip" {
                    query.append_pair(key, value);
                }
            }
            query.append_pair("$skip", &(skip + size).to_string());
            body["@odata.nextLink"] =
                json!(format!("{}{}?{}", self.world.base_url, self.request.path, query.finish()));
        }
        Ok(Reply::json(200, &body))
    }

    /// calendarView/delta. Pages go on behind the last row that was given, so that what changes between two pages
    /// makes none be left out; and all that changes after a round has begun comes with the next one, too.
    fn delta(&self) -> Reply {
        let answer = || -> Answer<Reply> {
            let mailbox = lock(&self.user.mailbox);
            let round = self.round(&mailbox)?;
            let knobs = lock(&self.world.delta).clone();
            let is_empty = knobs.empty_pages && !round.after_empty;
            let rows = if is_empty { Vec::new() } else { self.delta_rows(&mailbox, &round, &knobs) };
            let size = round.size.min(knobs.rows_per_page.unwrap_or(round.size)).max(1);
            let mut value: Vec<&Value> = rows.iter().map(|(_, row)| row).take(size).collect();
            if let (true, Some(first)) = (knobs.replays, value.first().copied()) {
                value.push(first);
            }
            let mut body = json!({
                "@odata.context": format!("{}/v1.0/$metadata#Collection(event)", self.world.base_url),
            });
            body["value"] = json!(value);
            let link = |name: &str, round: &Round| {
                format!("{}{}?${name}={}", self.world.base_url, self.request.path, round.write())
            };
            let last = rows.get(size - 1).filter(|_| rows.len() > size).map(|(at, _)| *at);
            if is_empty {
                let next = Round { after_empty: true, ..round };
                body["@odata.nextLink"] = json!(link("skiptoken", &next));
            } else if let Some(after) = last {
                let next = Round { after, after_empty: false, ..round };
                body["@odata.nextLink"] = json!(link("skiptoken", &next));
            } else {
                let end =
                    Round { kind: TokenKind::Delta, after: Position::default(), after_empty: false, ..round };
                body["@odata.deltaLink"] = json!(link("deltatoken", &end));
            }
            Ok(Reply::json(200, &body))
        };
        answer().unwrap_or_else(|reply| *reply)
    }

    /// The round that is asked for: a new one, the next page of one, or the one after it.
    fn round(&self, mailbox: &Mailbox) -> Answer<Round> {
        let (name, kind) = match (self.request.param("$deltatoken"), self.request.param("$skiptoken")) {
            (Some(_), _) => ("$deltatoken", TokenKind::Delta),
            (None, Some(_)) => ("$skiptoken", TokenKind::Skip),
            (None, None) => return self.first_round(mailbox),
        };
        let broken = |why: &str| {
            self.world.journal.violation("delta-link-changed", format!("{}: {why}", self.request.path));
            self.bad("BadRequest", why)
        };
        if self.request.query.len() > 1 {
            return Err(broken("A link is used as it is: it holds the window already."));
        }
        let token = self.request.param(name).unwrap_or_default();
        let round = Round::read(token).ok_or_else(|| self.bad("BadRequest", "Badly formed token."))?;
        if round.kind != kind || round.mailbox != self.user.number {
            return Err(broken("The token belongs to another request."));
        }
        if round.generation != mailbox.delta_generation {
            return Err(Box::new(error(
                self.request,
                410,
                "SyncStateNotFound",
                &format!(
                    "The sync state generation is not found; generation={};[highest={}].",
                    round.generation, mailbox.delta_generation
                ),
            )));
        }
        if kind == TokenKind::Skip {
            if (round.immutable, round.size) != (self.caller.immutable, self.delta_size()) {
                let sent = format!("{} with Prefer {:?}", self.request.path, self.caller.prefer.raw);
                self.world.journal.violation("delta-headers-changed", sent);
            }
            return Ok(round);
        }
        let until = if lock(&self.world.delta).lagging { round.until } else { mailbox.version };
        Ok(Round {
            kind: TokenKind::Skip,
            since: Some(round.until),
            until,
            immutable: self.caller.immutable,
            size: self.delta_size(),
            ..round
        })
    }

    fn first_round(&self, mailbox: &Mailbox) -> Answer<Round> {
        self.only(&["startDateTime", "endDateTime"])?;
        let (from, to) = self.window()?;
        Ok(Round {
            kind: TokenKind::Skip,
            mailbox: self.user.number,
            from,
            to,
            since: None,
            until: mailbox.version,
            after: Position::default(),
            after_empty: false,
            generation: mailbox.delta_generation,
            immutable: self.caller.immutable,
            size: self.delta_size(),
        })
    }

    fn delta_size(&self) -> usize {
        self.caller.prefer.page_size.unwrap_or(10).clamp(1, 1_000)
    }

    /// What is left of a round, in its order.
    fn delta_rows(&self, mailbox: &Mailbox, round: &Round, knobs: &DeltaKnobs) -> Vec<(Position, Value)> {
        let mut rows = Vec::new();
        if round.since == Some(round.until) {
            return rows;
        }
        if let Some(since) = round.since {
            for (at, (version, item)) in mailbox.removed.iter().enumerate() {
                if *version > since && *version <= round.until {
                    rows.push((Position::Removed(at), self.removed_row(*item)));
                }
            }
        }
        for event in mailbox.events.values() {
            let changed = round.since.is_none_or(|since| event.version > since);
            if changed && event.calendar == CalendarKind::Default {
                self.event_rows(event, round, knobs, &mut rows);
            }
        }
        rows.retain(|(at, _)| *at > round.after);
        rows.sort_by_key(|(at, _)| *at);
        rows
    }

    /// The rows of one changed event: itself, or a series with its occurrences in the window. A series stands before
    /// its occurrences, or where these are thin behind them.
    fn event_rows(
        &self,
        event: &Event,
        round: &Round,
        knobs: &DeltaKnobs,
        into: &mut Vec<(Position, Value)>,
    ) {
        let mut rows = Vec::new();
        event.rows(round.from, round.to, &self.zone, &mut rows);
        if rows.is_empty() {
            if round.since.is_some() {
                // Changes outside the window are reported as removals, too.
                let item = ItemRef { key: event.key, moves: event.moves, slot: None };
                into.push((Position::Event(event.key, 0), self.removed_row(item)));
            }
            return;
        }
        let in_series = |row: &Row<'_>| row.slot.map_or(0, |day| day_number(day) + 1);
        for row in &rows {
            let thin =
                row.slot.is_some() && row.exception.is_none() && knobs.occurrences != Occurrences::Full;
            into.push((Position::Event(event.key, in_series(row)), self.delta_row(row, thin)));
        }
        if event.series.is_some() {
            let place = match knobs.occurrences {
                Occurrences::Full => 0,
                Occurrences::Thin => i32::MAX,
                Occurrences::ThinWithoutSeries => return,
            };
            into.push((Position::Event(event.key, place), self.delta_row(&event.row(), false)));
        }
    }

    fn delta_row(&self, row: &Row<'_>, thin: bool) -> Value {
        let mut map = self.render(row, None, false);
        if thin {
            map.retain(|name, _| matches!(name.as_str(), "id" | "type" | "seriesMasterId" | "start" | "end"));
        }
        map.insert("@odata.type".to_owned(), json!("#microsoft.graph.event"));
        Value::Object(map)
    }

    fn removed_row(&self, item: ItemRef) -> Value {
        json!({
            "@odata.type": "#microsoft.graph.event",
            "id": item.id(self.user.number, self.caller.immutable),
            "@removed": {"reason": "deleted"},
        })
    }

    fn times(&self, when: When) -> (Value, Value) {
        let text = |at: DateTime, zone: &str| {
            let seven = at.subsec_nanosecond() / 100;
            json!({
                "dateTime": format!("{}.{seven:07}", at.strftime("%Y-%m-%dT%H:%M:%S")),
                "timeZone": zone,
            })
        };
        let label = self.output.as_ref().map_or("UTC", |(name, _)| name.as_str());
        match when {
            When::AllDay { date, days } => (
                text(date.at(0, 0, 0, 0), label),
                text(plus_days(date, i64::from(days)).at(0, 0, 0, 0), label),
            ),
            When::Timed { start, end } => {
                let zone = self.output.as_ref().map_or(TimeZone::UTC, |(_, zone)| zone.clone());
                let local = |at: Timestamp| at.to_zoned(zone.clone()).datetime();
                (text(local(start), label), text(local(end), label))
            }
        }
    }

    /// The event as JSON; with `$select` only what was asked for, and always the id.
    fn render(&self, row: &Row<'_>, select: Option<&[String]>, single: bool) -> Map<String, Value> {
        let event = row.event;
        let fields = row.fields();
        let item = ItemRef { key: event.key, moves: event.moves, slot: row.slot };
        let id = item.id(self.user.number, self.caller.immutable);
        let version = row.exception.map_or(event.version, |one| one.version.max(1));
        let key = change_key(self.user.number, item, version);
        let master =
            row.slot.map(|_| ItemRef { slot: None, ..item }.id(self.user.number, self.caller.immutable));
        let wanted = |name: &str| select.is_none_or(|names| names.iter().any(|one| one == name));
        let mut map = Map::new();
        map.insert("@odata.etag".to_owned(), json!(format!("W/\"{key}\"")));
        map.insert("id".to_owned(), json!(id));
        let mut put = |name: &str, value: &dyn Fn() -> Value| {
            if wanted(name) {
                map.insert(name.to_owned(), value());
            }
        };
        let is_all_day = matches!(row.when, When::AllDay { .. });
        let person = |address: &str| {
            let name = if address == self.owner.1 {
                self.owner.0.clone()
            } else {
                address.split('@').next().unwrap_or_default().to_owned()
            };
            json!({"emailAddress": {"name": name, "address": address}})
        };
        let organizer = fields.organizer.as_deref().unwrap_or(&self.owner.1);
        let responded = fields.responded.map_or_else(|| "0001-01-01T00:00:00Z".to_owned(), wire);
        let location = if fields.location.is_empty() {
            json!({"displayName": "", "locationType": "default", "uniqueIdType": "unknown", "address": {}, "coordinates": {}})
        } else {
            json!({"displayName": fields.location, "locationType": "default", "uniqueId": fields.location, "uniqueIdType": "private"})
        };
        let (start, end) = self.times(row.when);
        let slot = row.slot.map_or_else(String::new, |date| date.strftime("%Y%m%d").to_string());
        put("createdDateTime", &|| json!(wire(event.created)));
        put("lastModifiedDateTime", &|| {
            json!(wire(row.exception.map_or(event.modified, |one| one.modified)))
        });
        put("changeKey", &|| json!(key));
        put("categories", &|| json!(fields.categories));
        put("transactionId", &|| Value::Null);
        let zone_name = event.series.as_ref().map_or(&self.zone_name, |series| &series.zone_name);
        put("originalStartTimeZone", &|| json!(zone_name));
        put("originalEndTimeZone", &|| json!(zone_name));
        put("iCalUId", &|| {
            json!(format!(
                "040000008200E00074C5B7101A82E008{slot:0>8}{:08X}{:016X}",
                self.user.number, event.key
            ))
        });
        put("reminderMinutesBeforeStart", &|| json!(15));
        put("isReminderOn", &|| json!(!is_all_day));
        put("hasAttachments", &|| json!(false));
        put("subject", &|| json!(fields.subject));
        put("bodyPreview", &|| json!(fields.body.chars().take(255).collect::<String>()));
        put("importance", &|| json!("normal"));
        put("sensitivity", &|| json!(fields.sensitivity));
        put("isAllDay", &|| json!(is_all_day));
        put("isCancelled", &|| json!(fields.is_cancelled));
        put("isOrganizer", &|| json!(fields.is_organizer));
        put("responseRequested", &|| json!(true));
        put("seriesMasterId", &|| json!(master));
        put("showAs", &|| json!(fields.show_as));
        put("type", &|| {
            json!(match (row.slot, row.exception, &event.series) {
                (Some(_), Some(_), _) => "exception",
                (Some(_), None, _) => "occurrence",
                (None, _, Some(_)) => "seriesMaster",
                (None, _, None) => "singleInstance",
            })
        });
        put("webLink", &|| {
            json!(format!(
                "https://outlook.office365.com/owa/?itemid={}&exvsurl=1&path=/calendar/item",
                id.replace('=', "%3D")
            ))
        });
        put("onlineMeetingUrl", &|| Value::Null);
        put("isOnlineMeeting", &|| json!(fields.online));
        put("onlineMeetingProvider", &|| json!(if fields.online { "teamsForBusiness" } else { "unknown" }));
        put("allowNewTimeProposals", &|| json!(true));
        put("isDraft", &|| json!(false));
        put("hideAttendees", &|| json!(false));
        put("recurrence", &|| {
            if row.slot.is_some() { Value::Null } else { recurrence(event) }
        });
        put("onlineMeeting", &|| {
            if fields.online {
                json!({"joinUrl": "https://teams.microsoft.com/l/meetup-join/19%3ameeting_EXAMPLE%40thread.v2/0"})
            } else {
                Value::Null
            }
        });
        put("responseStatus", &|| json!({"response": fields.response, "time": responded}));
        put("body", &|| {
            let kind = if self.caller.prefer.text_body { "text" } else { "html" };
            json!({"contentType": kind, "content": fields.body})
        });
        put("start", &|| start.clone());
        put("end", &|| end.clone());
        put("location", &|| location.clone());
        put("locations", &|| {
            if fields.location.is_empty() { json!([]) } else { json!([location]) }
        });
        put("attendees", &|| {
            fields
                .attendees
                .iter()
                .map(|address| {
                    let mut one = person(address);
                    one["type"] = json!("required");
                    one["status"] = json!({"response": "none", "time": "0001-01-01T00:00:00Z"});
                    one
                })
                .collect()
        });
        put("organizer", &|| person(organizer));
        if row.slot.is_some() {
            put("originalStart", &|| {
                let zone = event.series.as_ref().map_or(TimeZone::UTC, |series| series.zone.clone());
                let at = match row.original {
                    When::Timed { start, .. } => start,
                    all_day => all_day.instants(&zone).0,
                };
                json!(at.to_string())
            });
        }
        if single
            && let Some(series) = &event.series
            && row.slot.is_none()
            && select.is_some_and(|names| names.iter().any(|name| name == "cancelledOccurrences"))
        {
            let cancelled: Vec<String> =
                series.cancelled.iter().map(|date| format!("OID.{id}.{date}")).collect();
            map.insert("cancelledOccurrences".to_owned(), json!(cancelled));
        }
        if select.is_none() {
            // A member that no client knows, as Graph adds them over time.
            map.insert("simUnknownMember".to_owned(), json!({"since": "2026-11"}));
        }
        map
    }
}

fn recurrence(event: &Event) -> Value {
    let Some(series) = &event.series else {
        return Value::Null;
    };
    let mut range = json!({
        "type": "noEnd",
        "startDate": event.range_start().map(|date| date.to_string()),
        "endDate": "0001-01-01",
        "recurrenceTimeZone": series.zone_name,
        "numberOfOccurrences": 0,
    });
    if let Some(count) = series.count {
        range["type"] = json!("numbered");
        range["numberOfOccurrences"] = json!(count);
        range["endDate"] = json!(event.range_end().map(|date| date.to_string()));
    }
    json!({
        "pattern": {
            "type": match series.every { Every::Day => "daily", Every::Week => "weekly" },
            "interval": series.interval,
            "month": 0,
            "dayOfMonth": 0,
            "daysOfWeek": event.pattern_days(),
            "firstDayOfWeek": if series.every == Every::Week { "monday" } else { "sunday" },
            "index": "first",
        },
        "range": range,
    })
}

/// How much delta says of an unchanged occurrence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum Occurrences {
    /// All that a view says.
    Full,
    /// Its times and its series; the series stands in the round, too.
    #[default]
    Thin,
    /// The same, and the series does not.
    ThinWithoutSeries,
}

/// Knobs of calendarView/delta.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DeltaKnobs {
    /// How much it says of an unchanged occurrence.
    pub occurrences: Occurrences,
    /// Every page is preceded by an empty one.
    pub empty_pages: bool,
    /// The first row of a page comes again at its end.
    pub replays: bool,
    /// Most rows of a page, whatever size is preferred.
    pub rows_per_page: Option<usize>,
    /// Rounds that go on from a link do not see yet what has changed since.
    pub lagging: bool,
}

/// Where a row stands in a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
enum Position {
    /// Before all rows.
    #[default]
    Start,
    /// The removal with this number.
    Removed(usize),
    /// The event with this key, and its place in the series.
    Event(u64, i32),
}

/// What a token is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum TokenKind {
    /// The next page of a round.
    Skip,
    /// The next round.
    Delta,
}

/// One round of delta reading, as its links carry it; the window is frozen in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Round {
    kind: TokenKind,
    mailbox: u32,
    from: Timestamp,
    to: Timestamp,
    /// Version of the mailbox at the round before; `None` in the first one.
    since: Option<u64>,
    until: u64,
    /// The last row that was given.
    after: Position,
    /// Whether the empty page before the next rows has been given.
    after_empty: bool,
    generation: u32,
    immutable: bool,
    size: usize,
}

impl Round {
    fn write(&self) -> String {
        BASE64_URL_SAFE_NO_PAD.encode(json!(self).to_string())
    }

    fn read(token: &str) -> Option<Self> {
        serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(token).ok()?).ok()
    }
}

fn day_number(day: Date) -> i32 {
    Date::constant(1970, 1, 1).until(day).map_or(0, |span| span.get_days()).max(0)
}
