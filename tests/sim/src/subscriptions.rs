//! The subscription table, and `/v1.0/subscriptions` with its validation handshakes.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::{SignedDuration, Timestamp, ToSpan};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::{
    calendar::ChangeType,
    clock::wire,
    error::SimError,
    graph::{Caller, error},
    http::{Reply, Request},
    journal::{Journal, Record, millis},
    lock,
    world::{MailboxKind, User, World},
};

const MAX_MINUTES: i64 = 10_080;
const MIN_MINUTES: i64 = 45;
const QUOTA: usize = 1_000;

/// What a subscription watches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Watched {
    Events,
    Contacts,
}

#[derive(Debug, Clone)]
pub(crate) struct Subscription {
    pub(crate) id: String,
    pub(crate) app: String,
    pub(crate) tenant: String,
    pub(crate) user: String,
    pub(crate) watched: Watched,
    pub(crate) resource: String,
    pub(crate) change_type: String,
    pub(crate) changes: BTreeSet<ChangeType>,
    pub(crate) url: String,
    pub(crate) lifecycle_url: Option<String>,
    pub(crate) client_state: Option<String>,
    pub(crate) expires: Timestamp,
    pub(crate) immutable: bool,
    pub(crate) creator: String,
    pub(crate) tls: String,
    /// When the access token captured with it runs out.
    pub(crate) token_until: Timestamp,
    patched: Option<Timestamp>,
    reauthorized: Option<Timestamp>,
}

impl Subscription {
    pub(crate) fn json(&self) -> Value {
        json!({
            "id": self.id,
            "resource": self.resource,
            "applicationId": self.app,
            "changeType": self.change_type,
            "clientState": self.client_state,
            "notificationUrl": self.url,
            "notificationQueryOptions": null,
            "lifecycleNotificationUrl": self.lifecycle_url,
            "expirationDateTime": wire(self.expires),
            "creatorId": self.creator,
            "includeResourceData": null,
            "latestSupportedTlsVersion": self.tls,
            "encryptionCertificate": null,
            "encryptionCertificateId": null,
            "notificationUrlAppId": null,
        })
    }

    fn key(&self) -> Key {
        (
            self.app.clone(),
            self.tenant.clone(),
            self.resource.trim_start_matches('/').to_lowercase(),
            self.change_type.clone(),
        )
    }
}

type Key = (String, String, String, String);
type Owner = (String, String);

/// All subscriptions, found by id, mailbox, owner and combination.
#[derive(Default)]
pub(crate) struct Subscriptions {
    by_id: HashMap<String, Subscription>,
    by_user: HashMap<String, Vec<String>>,
    by_owner: HashMap<Owner, BTreeSet<String>>,
    by_key: HashMap<Key, String>,
}

impl Subscriptions {
    fn insert(&mut self, subscription: Subscription) {
        let id = subscription.id.clone();
        self.by_user.entry(subscription.user.clone()).or_default().push(id.clone());
        self.by_owner
            .entry((subscription.app.clone(), subscription.tenant.clone()))
            .or_default()
            .insert(id.clone());
        self.by_key.insert(subscription.key(), id.clone());
        self.by_id.insert(id, subscription);
    }

    pub(crate) fn remove(&mut self, id: &str) -> Option<Subscription> {
        let gone = self.by_id.remove(id)?;
        if let Some(ids) = self.by_user.get_mut(&gone.user) {
            ids.retain(|one| one != id);
        }
        if let Some(ids) = self.by_owner.get_mut(&(gone.app.clone(), gone.tenant.clone())) {
            ids.remove(id);
        }
        self.by_key.remove(&gone.key());
        Some(gone)
    }

    pub(crate) fn end(&mut self, id: &str, journal: &Journal, reason: &'static str) {
        if self.remove(id).is_some() {
            journal.write(Record::SubscriptionEnded { subscription: id.to_owned(), reason });
        }
    }

    pub(crate) fn end_all_of(&mut self, user: &str, journal: &Journal, reason: &'static str) {
        for id in self.by_user.get(user).cloned().unwrap_or_default() {
            self.end(&id, journal, reason);
        }
    }

    /// A live subscription; an expired one ends here, silently.
    pub(crate) fn get(&mut self, id: &str, now: Timestamp, journal: &Journal) -> Option<&mut Subscription> {
        if self.by_id.get(id)?.expires <= now {
            self.end(id, journal, "expired");
            return None;
        }
        self.by_id.get_mut(id)
    }

    /// Live subscriptions on a mailbox.
    pub(crate) fn of_user(&mut self, user: &str, now: Timestamp, journal: &Journal) -> Vec<Subscription> {
        let Some(ids) = self.by_user.get(user) else {
            return Vec::new();
        };
        let ids = ids.clone();
        ids.iter().filter_map(|id| self.get(id, now, journal).cloned()).collect()
    }

    pub(crate) fn all(&mut self, now: Timestamp, journal: &Journal) -> Vec<Subscription> {
        let mut ids: Vec<String> = self.by_id.keys().cloned().collect();
        ids.sort();
        ids.iter().filter_map(|id| self.get(id, now, journal).cloned()).collect()
    }

    fn of_owner(&mut self, owner: &Owner, now: Timestamp, journal: &Journal) -> Vec<Subscription> {
        let ids = self.by_owner.get(owner).cloned().unwrap_or_default();
        ids.iter().filter_map(|id| self.get(id, now, journal).cloned()).collect()
    }

    fn duplicate(&mut self, key: &Key, now: Timestamp, journal: &Journal) -> Option<String> {
        let id = self.by_key.get(key)?.clone();
        self.get(&id, now, journal).map(|found| found.id.clone())
    }
}

/// Everything under `/v1.0/subscriptions`.
pub(crate) async fn handle(world: &Arc<World>, request: &Request, caller: &Caller, rest: &[&str]) -> Reply {
    match (request.method.as_str(), rest) {
        ("POST", []) => create(world, request, caller).await,
        ("GET", []) => list(world, request, caller),
        (_, []) => error(request, 405, "Request_BadRequest", "Method not allowed."),
        ("POST", [id, "reauthorize"]) => reauthorize(world, request, caller, id),
        ("GET", [id]) => get(world, request, caller, id),
        ("DELETE", [id]) => delete(world, request, caller, id),
        ("PATCH", [id]) => patch(world, request, caller, id).await,
        _ => error(request, 404, "BadRequest", "Resource not found for the segment."),
    }
}

fn bad(request: &Request, why: impl Into<String>) -> Reply {
    error(request, 400, "InvalidRequest", &why.into())
}

fn gone(request: &Request) -> Reply {
    error(request, 404, "ResourceNotFound", "The object was not found.")
}

fn context(world: &World, mut value: Value) -> Value {
    if let Value::Object(map) = &mut value {
        let mut with = Map::new();
        with.insert(
            "@odata.context".to_owned(),
            json!(format!("{}/v1.0/$metadata#subscriptions/$entity", world.base_url)),
        );
        with.append(map);
        return Value::Object(with);
    }
    value
}

/// Expiry as stored: short ones are raised, long ones refused.
fn expiry(world: &World, request: &Request, text: Option<&Value>) -> Result<Timestamp, Box<Reply>> {
    let text = text
        .and_then(Value::as_str)
        .ok_or_else(|| Box::new(bad(request, "expirationDateTime is required.")))?;
    let asked: Timestamp =
        text.parse().map_err(|_| Box::new(bad(request, "expirationDateTime is not an RFC 3339 instant.")))?;
    let now = world.clock.now();
    let plus = |minutes: i64| now.checked_add(minutes.minutes()).unwrap_or(Timestamp::MAX);
    if asked > plus(MAX_MINUTES) {
        return Err(Box::new(bad(
            request,
            format!("Subscription expiration can only be {MAX_MINUTES} minutes in the future."),
        )));
    }
    Ok(asked.max(plus(MIN_MINUTES)))
}

fn check_url(request: &Request, url: &str, name: &str) -> Result<(), Box<Reply>> {
    let parsed = reqwest::Url::parse(url)
        .map_err(|_| Box::new(bad(request, format!("{name} is not an absolute URL."))))?;
    let host = parsed.host_str().unwrap_or_default();
    let loopback = matches!(host, "localhost" | "127.0.0.1" | "[::1]") || host.starts_with("127.");
    if parsed.scheme() == "https" || (parsed.scheme() == "http" && loopback) {
        return Ok(());
    }
    Err(Box::new(bad(request, format!("{name} must use the https scheme."))))
}

fn parse_resource(caller: &Caller, resource: &str) -> Result<(Arc<User>, Watched), String> {
    let (path, query) = resource.split_once('?').unwrap_or((resource, ""));
    if !query.is_empty() {
        return Err(format!("query options are not supported here: {query}"));
    }
    let path = path.trim_start_matches('/');
    let parts: Vec<&str> = path.split('/').collect();
    let (user, what) = match parts.as_slice() {
        [users, user, what] if users.eq_ignore_ascii_case("users") => (*user, *what),
        _ => return Err(format!("resource '{resource}' is not supported")),
    };
    let watched = match what.to_ascii_lowercase().as_str() {
        "events" => Watched::Events,
        "contacts" => Watched::Contacts,
        _ => return Err(format!("resource '{resource}' is not supported")),
    };
    caller.tenant.user(user).map(|user| (user, watched)).ok_or_else(|| String::from("\0"))
}

async fn create(world: &Arc<World>, request: &Request, caller: &Caller) -> Reply {
    match draft(world, request, caller) {
        Ok((subscription, user)) => match validate(world, request, &subscription).await {
            Ok(()) => store(world, request, subscription, &user),
            Err(reply) => *reply,
        },
        Err(reply) => *reply,
    }
}

fn draft(
    world: &Arc<World>,
    request: &Request,
    caller: &Caller,
) -> Result<(Subscription, Arc<User>), Box<Reply>> {
    let refuse = |why: &str| Box::new(bad(request, why));
    let body = request
        .json()
        .map_err(|_| Box::new(error(request, 400, "BadRequest", "Unable to read JSON request payload.")))?;
    let Value::Object(body) = body else {
        return Err(Box::new(error(request, 400, "BadRequest", "Empty Payload. JSON content expected.")));
    };
    const KNOWN: [&str; 12] = [
        "changeType",
        "notificationUrl",
        "lifecycleNotificationUrl",
        "resource",
        "expirationDateTime",
        "clientState",
        "latestSupportedTlsVersion",
        "includeResourceData",
        "encryptionCertificate",
        "encryptionCertificateId",
        "notificationUrlAppId",
        "@odata.type",
    ];
    if let Some(unknown) = body.keys().find(|key| !KNOWN.contains(&key.as_str())) {
        return Err(refuse(&format!("The property '{unknown}' is not allowed here.")));
    }
    if body.get("includeResourceData").and_then(Value::as_bool) == Some(true) {
        return Err(refuse("Resource data is not simulated."));
    }
    let text = |name: &str| body.get(name).and_then(Value::as_str);
    let change_type = text("changeType").ok_or_else(|| refuse("changeType is required."))?;
    let mut changes = BTreeSet::new();
    for word in change_type.split(',') {
        changes.insert(match word.trim().to_ascii_lowercase().as_str() {
            "created" => ChangeType::Created,
            "updated" => ChangeType::Updated,
            "deleted" => ChangeType::Deleted,
            _ => return Err(refuse(&format!("changeType '{word}' is not supported."))),
        });
    }
    let normal: Vec<&str> = changes.iter().map(|change| change.as_str()).collect();
    let resource = text("resource").ok_or_else(|| refuse("resource is required."))?;
    let (user, watched) = parse_resource(caller, resource).map_err(|why| {
        Box::new(if why == "\0" {
            error(request, 404, "ExtensionError", "Operation: Create; Exception: [Status Code: NotFound; Reason: The requested user is invalid.]")
        } else {
            bad(request, why)
        })
    })?;
    let url = text("notificationUrl").ok_or_else(|| refuse("notificationUrl is required."))?;
    check_url(request, url, "notificationUrl")?;
    let lifecycle_url = text("lifecycleNotificationUrl");
    if let Some(url) = lifecycle_url {
        check_url(request, url, "lifecycleNotificationUrl")?;
    } else {
        world.journal.violation("subscription-without-lifecycle-url", resource);
    }
    let client_state = text("clientState");
    if client_state.is_some_and(|state| state.chars().count() > 128) {
        return Err(refuse("clientState must not exceed 128 characters."));
    }
    if client_state.is_none_or(str::is_empty) {
        world.journal.violation("subscription-without-client-state", resource);
    }
    let tls = text("latestSupportedTlsVersion").unwrap_or("v1_2");
    if !["v1_0", "v1_1", "v1_2", "v1_3"].contains(&tls) {
        return Err(refuse("latestSupportedTlsVersion is not supported."));
    }
    let expires = expiry(world, request, body.get("expirationDateTime"))?;
    if !caller.may(match watched {
        Watched::Events => "Calendars.Read",
        Watched::Contacts => "Contacts.Read",
    }) {
        return Err(Box::new(extension(request, 403)));
    }
    let now = world.clock.now();
    let subscription = Subscription {
        id: Uuid::new_v4().to_string(),
        app: caller.app.clone(),
        tenant: caller.tenant.id.clone(),
        user: user.id.clone(),
        watched,
        resource: resource.to_owned(),
        change_type: normal.join(","),
        changes,
        url: url.to_owned(),
        lifecycle_url: lifecycle_url.map(str::to_owned),
        client_state: client_state.map(str::to_owned),
        expires,
        immutable: caller.immutable,
        creator: caller.principal.clone(),
        tls: tls.to_owned(),
        token_until: caller.token_expires,
        patched: None,
        reauthorized: None,
    };
    check_table(world, request, &subscription, &mut lock(&world.subscriptions), now)?;
    Ok((subscription, user))
}

/// A subscription to a user's events that somebody else made with the same application.
pub(crate) fn plant(world: &World, app: &str, user: &User, url: &str) -> Result<String, SimError> {
    let now = world.clock.now();
    let id = Uuid::new_v4().to_string();
    let subscription = Subscription {
        id: id.clone(),
        app: app.to_lowercase(),
        tenant: user.tenant.id.clone(),
        user: user.id.clone(),
        watched: Watched::Events,
        resource: format!("/users/{}/events", user.id),
        change_type: "created,updated,deleted".to_owned(),
        changes: BTreeSet::from([ChangeType::Created, ChangeType::Updated, ChangeType::Deleted]),
        url: url.to_owned(),
        lifecycle_url: None,
        client_state: None,
        expires: now.checked_add(MAX_MINUTES.minutes()).unwrap_or(Timestamp::MAX),
        immutable: true,
        creator: String::new(),
        tls: "v1_2".to_owned(),
        token_until: Timestamp::MAX,
        patched: None,
        reauthorized: None,
    };
    let mut table = lock(&world.subscriptions);
    if table.duplicate(&subscription.key(), now, &world.journal).is_some() {
        return Err(SimError::invalid("the mailbox is watched already"));
    }
    table.insert(subscription);
    Ok(id)
}

fn check_table(
    world: &World,
    request: &Request,
    subscription: &Subscription,
    table: &mut Subscriptions,
    now: Timestamp,
) -> Result<(), Box<Reply>> {
    if let Some(id) = table.duplicate(&subscription.key(), now, &world.journal) {
        return Err(Box::new(error(
            request,
            409,
            "Conflict",
            &format!("Subscription Id {id} already exists for the requested combination"),
        )));
    }
    if table.by_user.get(&subscription.user).map_or(0, Vec::len) >= QUOTA
        && table.of_user(&subscription.user, now, &world.journal).len() >= QUOTA
    {
        return Err(Box::new(error(
            request,
            403,
            "Forbidden",
            "Subscription quota exceeded for the mailbox.",
        )));
    }
    Ok(())
}

fn extension(request: &Request, status: u16) -> Reply {
    let why = match status {
        404 => "Status Code: NotFound; Reason: REST API is not yet supported for this mailbox.",
        _ => "Status Code: Forbidden; Reason: Access denied",
    };
    error(request, status, "ExtensionError", &format!("Operation: Create; Exception: [{why}]"))
}

fn store(world: &Arc<World>, request: &Request, subscription: Subscription, user: &Arc<User>) -> Reply {
    match user.mailbox_kind() {
        MailboxKind::Licensed => {}
        MailboxKind::NoMailbox => return extension(request, 404),
        MailboxKind::Denied => return extension(request, 403),
    }
    let now = world.clock.now();
    let mut table = lock(&world.subscriptions);
    if let Err(reply) = check_table(world, request, &subscription, &mut table, now) {
        return *reply;
    }
    let json = subscription.json();
    table.insert(subscription);
    drop(table);
    Reply::json(201, &context(world, json))
}

async fn validate(
    world: &Arc<World>,
    request: &Request,
    subscription: &Subscription,
) -> Result<(), Box<Reply>> {
    handshake(world, request, &subscription.url, false).await?;
    if let Some(url) = &subscription.lifecycle_url {
        handshake(world, request, url, true).await?;
    }
    Ok(())
}

/// Asks an endpoint to echo a token; every rule is checked to the letter.
async fn handshake(
    world: &Arc<World>,
    request: &Request,
    url: &str,
    lifecycle: bool,
) -> Result<(), Box<Reply>> {
    let token = format!(
        "Validation: Testing client application reachability for subscription Request-Id: {}",
        Uuid::new_v4()
    );
    let encoded: String = form_urlencoded::byte_serialize(token.as_bytes()).collect();
    let joint = if url.contains('?') { '&' } else { '?' };
    let started = Instant::now();
    let asked = world
        .http
        .post(format!("{url}{joint}validationToken={encoded}"))
        .header("content-type", "text/plain; charset=utf-8")
        .header("request-id", Uuid::new_v4().to_string())
        .body("")
        .send();
    let check = async {
        let answer = asked.await.map_err(|error| {
            if error.is_timeout() { Problem::TimedOut } else { Problem::Unreachable(chain(&error)) }
        })?;
        let status = answer.status().as_u16();
        if status != 200 {
            return Err(Problem::Status(status));
        }
        let kind = answer
            .headers()
            .get("content-type")
            .and_then(|kind| kind.to_str().ok())
            .unwrap_or_default()
            .to_ascii_lowercase();
        if kind.split(';').next().map(str::trim) != Some("text/plain") {
            return Err(Problem::ContentType(kind));
        }
        let body = answer.bytes().await.map_err(|error| Problem::Unreachable(chain(&error)))?;
        if body != token.as_bytes() {
            return Err(Problem::Echo(String::from_utf8_lossy(&body[..body.len().min(200)]).into_owned()));
        }
        Ok(())
    };
    let result =
        tokio::time::timeout(world.options.handshake_timeout, check).await.unwrap_or(Err(Problem::TimedOut));
    world.journal.write(Record::Handshake {
        url: url.to_owned(),
        lifecycle,
        problem: result.as_ref().err().map(|problem| format!("{problem:?}")),
        took_ms: millis(started),
    });
    let Err(problem) = result else {
        return Ok(());
    };
    let (code, message) = match problem {
        Problem::TimedOut => ("InvalidRequest", "Subscription validation request timed out."),
        Problem::Echo(_) => (
            "InvalidRequest",
            "Subscription validation request failed. Response must exactly match validationToken query parameter.",
        ),
        Problem::ContentType(_) => (
            "InvalidRequest",
            "Subscription validation request failed. Response content type must be text/plain.",
        ),
        Problem::Status(_) | Problem::Unreachable(_) => (
            "ValidationError",
            "Subscription validation request failed. Notification endpoint must respond with 200 OK to validation request.",
        ),
    };
    Err(Box::new(error(request, 400, code, message)))
}

#[derive(Debug)]
#[expect(dead_code, reason = "the contents are read through Debug, in the journal")]
enum Problem {
    TimedOut,
    Unreachable(String),
    Status(u16),
    ContentType(String),
    Echo(String),
}

pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

fn list(world: &Arc<World>, request: &Request, caller: &Caller) -> Reply {
    const PAGE: usize = 100;
    if request.query.iter().any(|(key, _)| key != "$skiptoken") {
        return error(request, 400, "BadRequest", "Query options are not supported.");
    }
    let now = world.clock.now();
    let owner = (caller.app.clone(), caller.tenant.id.clone());
    let mut table = lock(&world.subscriptions);
    let all = table.of_owner(&owner, now, &world.journal);
    drop(table);
    let after = request.param("$skiptoken").unwrap_or_default();
    let first = all.partition_point(|one| one.id.as_str() <= after);
    let page: Vec<Value> = all[first..].iter().take(PAGE).map(Subscription::json).collect();
    let mut body = json!({
        "@odata.context": format!("{}/v1.0/$metadata#subscriptions", world.base_url),
    });
    if all.len() > first + PAGE
        && let Some(last) = all.get(first + PAGE - 1)
    {
        body["@odata.nextLink"] =
            json!(format!("{}/v1.0/subscriptions?$skiptoken={}", world.base_url, last.id));
    }
    body["value"] = json!(page);
    Reply::json(200, &body)
}

fn mine<'a>(
    table: &'a mut Subscriptions,
    world: &World,
    caller: &Caller,
    id: &str,
) -> Option<&'a mut Subscription> {
    table
        .get(id, world.clock.now(), &world.journal)
        .filter(|one| one.app == caller.app && one.tenant == caller.tenant.id)
}

fn get(world: &Arc<World>, request: &Request, caller: &Caller, id: &str) -> Reply {
    let mut table = lock(&world.subscriptions);
    match mine(&mut table, world, caller, id) {
        Some(found) => Reply::json(200, &context(world, found.json())),
        None => gone(request),
    }
}

fn delete(world: &Arc<World>, request: &Request, caller: &Caller, id: &str) -> Reply {
    let mut table = lock(&world.subscriptions);
    if mine(&mut table, world, caller, id).is_none() {
        return gone(request);
    }
    table.remove(id);
    Reply::empty(204)
}

fn too_close(world: &World, id: &str, other: Option<Timestamp>, now: Timestamp) {
    let near = SignedDuration::from_mins(10);
    if other.is_some_and(|at| now.duration_since(at) < near) {
        world.journal.violation("patch-and-reauthorize", format!("subscription {id}"));
    }
}

fn reauthorize(world: &Arc<World>, request: &Request, caller: &Caller, id: &str) -> Reply {
    let now = world.clock.now();
    let mut table = lock(&world.subscriptions);
    let Some(found) = mine(&mut table, world, caller, id) else {
        return gone(request);
    };
    too_close(world, id, found.patched, now);
    found.reauthorized = Some(now);
    found.token_until = caller.token_expires;
    Reply::empty(204)
}

async fn patch(world: &Arc<World>, request: &Request, caller: &Caller, id: &str) -> Reply {
    let body = match request.json() {
        Ok(Value::Object(body)) => body,
        _ => return error(request, 400, "BadRequest", "Unable to read JSON request payload."),
    };
    if let Some(wrong) =
        body.keys().find(|key| !["expirationDateTime", "notificationUrl"].contains(&key.as_str()))
    {
        return bad(request, format!("The property '{wrong}' cannot be changed."));
    }
    if mine(&mut lock(&world.subscriptions), world, caller, id).is_none() {
        return gone(request);
    }
    let expires = match body.get("expirationDateTime") {
        Some(text) => match expiry(world, request, Some(text)) {
            Ok(expires) => Some(expires),
            Err(reply) => return *reply,
        },
        None => None,
    };
    let url = body.get("notificationUrl").and_then(Value::as_str);
    if let Some(url) = url {
        if let Err(reply) = check_url(request, url, "notificationUrl") {
            return *reply;
        }
        if let Err(reply) = handshake(world, request, url, false).await {
            return *reply;
        }
    }
    let now = world.clock.now();
    let mut table = lock(&world.subscriptions);
    let Some(found) = mine(&mut table, world, caller, id) else {
        return gone(request);
    };
    too_close(world, id, found.reauthorized, now);
    found.patched = Some(now);
    found.token_until = caller.token_expires;
    if let Some(expires) = expires {
        found.expires = expires;
    }
    if let Some(url) = url {
        url.clone_into(&mut found.url);
    }
    Reply::json(200, &context(world, found.json()))
}

/// How long a handshake may take unless the options say otherwise.
pub(crate) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
