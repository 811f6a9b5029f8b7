//! The Graph stand-in: who may ask, injected faults, limits, and the routes.

use std::{
    collections::BTreeSet,
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    batch, events,
    faults::FaultKind,
    http::{Ending, Reply, Request},
    journal::{GraphCall, Record, millis},
    limits::Asked,
    read, subscriptions, users,
    world::{MailboxKind, Tenant, User, World},
};

/// Who asks, and how.
pub(crate) struct Caller {
    pub(crate) tenant: Arc<Tenant>,
    pub(crate) app: String,
    pub(crate) principal: String,
    pub(crate) token_expires: Timestamp,
    pub(crate) permissions: Arc<BTreeSet<String>>,
    pub(crate) immutable: bool,
    pub(crate) prefer: Prefer,
    pub(crate) secret: Option<usize>,
}

impl Caller {
    pub(crate) fn may(&self, permission: &str) -> bool {
        self.permissions.contains(permission)
    }
}

/// What the `Prefer` headers ask for.
#[derive(Debug, Default, Clone)]
pub(crate) struct Prefer {
    pub(crate) raw: Option<String>,
    pub(crate) immutable: bool,
    pub(crate) time_zone: Option<String>,
    pub(crate) page_size: Option<usize>,
    pub(crate) text_body: bool,
}

impl Prefer {
    fn of(request: &Request) -> Self {
        let mut prefer = Self::default();
        let values: Vec<&str> =
            request.headers.get_all("prefer").iter().filter_map(|value| value.to_str().ok()).collect();
        if values.is_empty() {
            return prefer;
        }
        for one in values.iter().flat_map(|value| value.split(',')) {
            let (name, value) = one.split_once('=').unwrap_or((one, ""));
            let value = value.trim().trim_matches('"');
            match name.trim().to_ascii_lowercase().as_str() {
                "idtype" => prefer.immutable = value.eq_ignore_ascii_case("ImmutableId"),
                "outlook.timezone" => prefer.time_zone = Some(value.to_owned()),
                "odata.maxpagesize" => prefer.page_size = value.parse().ok(),
                "outlook.body-content-type" => prefer.text_body = value.eq_ignore_ascii_case("text"),
                _ => {}
            }
        }
        prefer.raw = Some(values.join(", "));
        prefer
    }
}

/// Graph's error body.
pub(crate) fn error(request: &Request, status: u16, code: &str, message: &str) -> Reply {
    let id = Uuid::new_v4().to_string();
    let client = request.header("client-request-id").unwrap_or(&id);
    let body = json!({"error": {
        "code": code,
        "message": message,
        "innerError": {
            "date": Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S").to_string(),
            "request-id": id,
            "client-request-id": client,
        },
    }});
    Reply::json(status, &body)
}

/// Counts a request in flight for a mailbox.
struct InFlight<'a>(&'a User);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Everything under `/v1.0`.
pub(crate) async fn handle(world: &Arc<World>, request: &Request) -> Reply {
    answer(world, request, false).await
}

/// A part of a batch. Boxed, since it comes out of [`handle`] itself.
pub(crate) fn handle_part<'a>(
    world: &'a Arc<World>,
    request: &'a Request,
) -> Pin<Box<dyn Future<Output = Reply> + Send + 'a>> {
    Box::pin(answer(world, request, true))
}

async fn answer(world: &Arc<World>, request: &Request, in_batch: bool) -> Reply {
    let started = Instant::now();
    let prefer = Prefer::of(request);
    let mut call = GraphCall {
        method: request.method.to_string(),
        path: request.path.clone(),
        query: request.raw_query.clone(),
        client_request_id: request.header("client-request-id").map(str::to_owned),
        prefer: prefer.raw.clone(),
        immutable_id: prefer.immutable,
        in_batch,
        ..GraphCall::default()
    };
    let mut reply = guarded(world, request, prefer, &mut call).await;
    let early = call.early_secs.map(|secs| format!("{} {}: {secs:.3} s too early", call.method, call.path));
    reply.too_early.extend(early);
    call.status = if reply.ending == Ending::NoAnswer { 0 } else { reply.status };
    if reply.status >= 400 {
        call.code = serde_json::from_slice::<Value>(&reply.body)
            .ok()
            .and_then(|body| Some(body["error"]["code"].as_str()?.to_owned()));
    }
    call.took_ms = millis(started);
    let client = call.client_request_id.clone();
    world.journal.write(Record::Graph(call));
    let request_id = Uuid::new_v4().to_string();
    let reply = reply.header("client-request-id", client.unwrap_or_else(|| request_id.clone()));
    reply.header("request-id", request_id)
}

async fn guarded(world: &Arc<World>, request: &Request, prefer: Prefer, call: &mut GraphCall) -> Reply {
    let caller = match authenticate(world, request, prefer) {
        Ok(caller) => caller,
        Err(reply) => return *reply,
    };
    call.tenant = Some(caller.tenant.id.clone());
    call.secret = caller.secret;
    let segments: Vec<&str> = request.segments[1..].iter().map(String::as_str).collect();
    let (user_key, rest) = user_path(&segments);
    let user = user_key.as_deref().and_then(|key| caller.tenant.user(key));
    call.mailbox = user.as_ref().map(|user| user.id.clone());
    let outlook = user.is_some() && !rest.is_empty();
    let now = world.clock.now();
    let scope = match (&user, outlook) {
        (Some(user), true) => format!("{}/{}", caller.app, user.id),
        _ => format!("{}/{}/{}", caller.app, caller.tenant.id, segments.first().unwrap_or(&"")),
    };
    call.early_secs = world.faults.came_early(&scope, &world.clock, world.options.paced);
    let cleared = world.faults.cleared();
    let fault =
        world.faults.take(request, Some(&caller.tenant.id), user.as_ref().map(|user| user.id.as_str()), now);
    call.fault = fault.as_ref().map(|fault| fault.name().to_owned());
    if let Some(FaultKind::Hang) = fault {
        // It is lost on its way, and nobody here works at it.
        world.faults.hangs();
        cleared.await;
        return Reply::no_answer();
    }
    let _in_flight = match &user {
        Some(user) if outlook => {
            let before = user.in_flight.fetch_add(1, Ordering::AcqRel);
            let guard = InFlight(user);
            if before >= 4 {
                world.journal.violation("mailbox-concurrency", format!("mailbox {}", user.id));
                call.fault = Some("concurrency".to_owned());
                return error(
                    request,
                    429,
                    "ApplicationThrottled",
                    "Application is over its MailboxConcurrency limit.",
                )
                .header("retry-after", "1");
            }
            // The parts of a batch come at once: each is here before the first is done.
            tokio::task::yield_now().await;
            Some(guard)
        }
        _ => None,
    };
    let asked = Asked {
        app: &caller.app,
        tenant: &caller.tenant.id,
        mailbox: user.as_ref().filter(|_| outlook).map(|user| user.id.as_str()),
        method: request.method.as_str(),
        segments: &segments,
    };
    if let Some((rule, left)) = world.limits.over(&asked, now) {
        world.journal.violation(rule, format!("{} {}", request.method, request.path));
        call.fault = Some("limit".to_owned());
        let throttle = FaultKind::Throttle { retry_after: Some(left) };
        return faulty(request, &throttle, &scope);
    }
    let mut ending = Ending::Whole;
    match fault {
        None => {}
        Some(FaultKind::Slow { millis }) => {
            tokio::time::sleep(Duration::from_millis(millis)).await;
        }
        Some(FaultKind::CutBody) => ending = Ending::CutBody,
        Some(FaultKind::DropAfter) => ending = Ending::NoAnswer,
        Some(fault) => return faulty(request, &fault, &scope),
    }
    if request.method == "POST"
        && !request.headers.contains_key("content-length")
        && !request.headers.contains_key("transfer-encoding")
    {
        world.journal.violation("post-without-length", request.path.clone());
        return Reply::text(411, "text/html", "<html><body><h2>Length Required</h2></body></html>");
    }
    let mut reply = route(world, request, &caller, user.as_ref(), &segments, &rest).await;
    reply.ending = ending;
    reply
}

async fn route(
    world: &Arc<World>,
    request: &Request,
    caller: &Caller,
    user: Option<&Arc<User>>,
    segments: &[&str],
    rest: &[&str],
) -> Reply {
    match segments {
        ["$batch"] => batch::handle(world, request).await,
        ["subscriptions", rest @ ..] => subscriptions::handle(world, request, caller, rest).await,
        ["users"] => users::find(world, request, caller),
        [first, ..] if *first == "users" || first.starts_with("users(") => {
            let Some(user) = user else {
                return users::missing(request, segments.get(1).copied().unwrap_or(first));
            };
            if rest.is_empty() {
                return users::one(world, request, caller, user);
            }
            if let Some(denied) = mailbox_gate(request, caller, user, rest) {
                return denied;
            }
            match rest {
                ["mailboxSettings", rest @ ..] => users::mailbox_settings(world, request, user, rest),
                _ => events::handle(world, request, caller, user, rest),
            }
        }
        _ => error(
            request,
            400,
            "BadRequest",
            &format!("Resource not found for the segment '{}'.", segments.first().unwrap_or(&"")),
        ),
    }
}

fn mailbox_gate(request: &Request, caller: &Caller, user: &User, rest: &[&str]) -> Option<Reply> {
    let permission = match rest.first() {
        Some(&"mailboxSettings") => "MailboxSettings.Read",
        _ => "Calendars.Read",
    };
    if !caller.may(permission) {
        return Some(error(
            request,
            403,
            "ErrorAccessDenied",
            "Access is denied. Check credentials and try again.",
        ));
    }
    match user.mailbox_kind() {
        MailboxKind::Licensed => None,
        MailboxKind::NoMailbox => Some(error(
            request,
            404,
            "MailboxNotEnabledForRESTAPI",
            "The mailbox is either inactive, soft-deleted, or is hosted on-premise.",
        )),
        MailboxKind::Denied => Some(error(request, 403, "ErrorAccessDenied", "Access to OData is disabled.")),
    }
}

/// Splits `users/{id}/…` and `users('{id}')/…` into the user and what follows.
fn user_path<'a>(segments: &[&'a str]) -> (Option<String>, Vec<&'a str>) {
    match segments {
        ["users", user, rest @ ..] => (Some((*user).to_owned()), rest.to_vec()),
        [first, rest @ ..] => {
            let quoted = first.strip_prefix("users('").and_then(|user| user.strip_suffix("')"));
            match quoted {
                Some(user) => (Some(user.replace("''", "'")), rest.to_vec()),
                None => (None, rest.to_vec()),
            }
        }
        [] => (None, Vec::new()),
    }
}

fn authenticate(world: &World, request: &Request, prefer: Prefer) -> Result<Caller, Box<Reply>> {
    let refuse = |message: &str| {
        Box::new(
            error(request, 401, "InvalidAuthenticationToken", message).header(
                "www-authenticate",
                "Bearer realm=\"\", authorization_uri=\"https://login.microsoftonline.com/common/oauth2/authorize\", client_id=\"00000003-0000-0000-c000-000000000000\"",
            ),
        )
    };
    let token = request
        .header("authorization")
        .and_then(|value| {
            let (kind, token) = value.split_once(' ')?;
            kind.eq_ignore_ascii_case("bearer").then(|| token.trim())
        })
        .ok_or_else(|| refuse("Access token is empty."))?;
    let holder = read(&world.tokens)
        .get(token)
        .cloned()
        .ok_or_else(|| refuse("CompactToken parsing failed with error code: 80049217"))?;
    if holder.expires <= world.clock.now() {
        return Err(refuse("Lifetime validation failed, the token is expired."));
    }
    Ok(Caller {
        tenant: holder.tenant,
        app: holder.app,
        principal: holder.principal,
        token_expires: holder.expires,
        permissions: holder.permissions,
        immutable: prefer.immutable,
        prefer,
        secret: holder.secret,
    })
}

fn faulty(request: &Request, fault: &FaultKind, scope: &str) -> Reply {
    let with_wait = |mut reply: Reply, secs: Option<f64>| match secs {
        Some(secs) => {
            reply.told.push((scope.to_owned(), secs));
            reply.header("retry-after", secs.to_string())
        }
        None => reply,
    };
    match fault {
        FaultKind::Throttle { retry_after } => {
            with_wait(error(request, 429, "TooManyRequests", "Please retry again later."), *retry_after)
        }
        FaultKind::Status { status, code, retry_after } => {
            let code = code.as_deref().unwrap_or(match status {
                401 => "InvalidAuthenticationToken",
                403 => "ErrorAccessDenied",
                404 => "ErrorItemNotFound",
                410 => "SyncStateNotFound",
                500 => "ErrorInternalServerTransientError",
                503 => "serviceNotAvailable",
                _ => "generalException",
            });
            with_wait(error(request, *status, code, "Injected by the simulator."), *retry_after)
        }
        FaultKind::Html { status } => {
            Reply::text(*status, "text/html", "<html><body>Bad Gateway</body></html>")
        }
        FaultKind::Empty { status } => Reply::empty(*status),
        FaultKind::Drop
        | FaultKind::DropAfter
        | FaultKind::CutBody
        | FaultKind::Hang
        | FaultKind::Slow { .. } => Reply::no_answer(),
    }
}
