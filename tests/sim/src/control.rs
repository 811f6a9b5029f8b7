//! The control API under `/sim`: every knob and all state, as JSON, for curl and for tests
//! in another process.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp, civil::Date};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};

use crate::{
    Sim,
    ami::{AmiAccount, AmiPresence},
    calendar::{EventSpec, Response},
    delivery::LifecycleKind,
    error::SimError,
    faults::Fault,
    http::{Reply, Request},
    journal::Record,
    lock,
    pbx::{self, PbxAuth, PbxFault},
    read,
    world::{AppSpec, MailboxKind, TenantSpec, User, UserSpec, World},
};

type Answer = Result<Value, SimError>;

/// Everything under `/sim`.
pub(crate) async fn handle(world: &Arc<World>, request: &Request, rest: &[&str]) -> Reply {
    let body = match request.json() {
        Ok(body) => body,
        Err(why) => return Reply::json(400, &json!({"error": why})),
    };
    let sim = Sim::attached(world);
    match act(&sim, world, request, rest, body).await {
        Ok(Value::Null) => Reply::empty(204),
        Ok(value) => Reply::json(200, &value),
        Err(error @ SimError::NotFound(_)) => Reply::json(404, &json!({"error": error.to_string()})),
        Err(error @ SimError::Invalid(_)) => Reply::json(400, &json!({"error": error.to_string()})),
    }
}

fn parse<T: DeserializeOwned>(body: Value) -> Result<T, SimError> {
    let body = if body.is_null() { json!({}) } else { body };
    serde_json::from_value(body).map_err(|error| SimError::invalid(error.to_string()))
}

/// Puts the members of `body` over those of `current`.
fn merge<T: DeserializeOwned + serde::Serialize>(current: &T, body: Value) -> Result<T, SimError> {
    let mut merged = json!(current);
    if let (Value::Object(merged), Value::Object(body)) = (&mut merged, body) {
        merged.extend(body);
    }
    parse(merged)
}

async fn act(sim: &Sim, world: &Arc<World>, request: &Request, path: &[&str], body: Value) -> Answer {
    let method = request.method.as_str();
    match path {
        [] | [""] => Ok(summary(sim, world)),
        ["time"] => time(world, method, body),
        ["journal"] => journal(world, request),
        ["violations"] => Ok(json!(sim.violations())),
        ["tenants" | "apps", ..] => directory(sim, world, request, path, body),
        ["users", ..] => users(sim, world, method, path, body),
        ["subscriptions", ..] => subscriptions(sim, method, path, body),
        ["delivery", ..] => delivery(sim, method, path, body),
        ["faults"] => faults(sim, world, method, body),
        ["login"] => {
            let mut knobs = lock(&world.login);
            if method != "GET" {
                *knobs = merge(&*knobs, body)?;
            }
            Ok(json!(*knobs))
        }
        ["delta"] => {
            if method == "GET" {
                return Ok(json!(sim.delta(|_| {})));
            }
            let knobs = merge(&sim.delta(|_| {}), body)?;
            Ok(json!(sim.delta(|current| *current = knobs)))
        }
        ["tokens", "expire"] if method == "POST" => {
            sim.expire_tokens();
            Ok(Value::Null)
        }
        ["pbx", ..] => http_pbx(sim, world, method, path, body),
        [first, ..] if first.starts_with("ami") => asterisk(sim, world, method, path, body),
        _ => Err(SimError::not_found(format!("page `{}`", request.path))),
    }
}

fn unknown(path: &[&str]) -> Answer {
    Err(SimError::not_found(format!("page or method for `/sim/{}`", path.join("/"))))
}

fn summary(sim: &Sim, world: &World) -> Value {
    json!({
        "now": world.clock.now(),
        "base_url": world.base_url,
        "tenants": world.tenants().len(),
        "users": world.users().len(),
        "subscriptions": sim.subscriptions().len(),
        "outstanding_notifications": sim.outstanding(),
        "ami_sessions": sim.ami().sessions(),
        "journal": {"last_seq": world.journal.last_seq(), "dropped": world.journal.dropped()},
        "violations": world.journal.violations().len(),
    })
}

fn time(world: &World, method: &str, body: Value) -> Answer {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Time {
        now: Option<Timestamp>,
        advance_secs: Option<f64>,
        /// With `now`: let the clock run on.
        #[serde(default)]
        run: bool,
        #[serde(default)]
        real: bool,
    }
    if method != "GET" {
        let time: Time = parse(body)?;
        match (time.now, time.run) {
            (Some(now), true) => world.clock.run_from(now),
            (Some(now), false) => world.clock.set_time(now),
            (None, _) if time.real => world.clock.follow_real_time(),
            (None, _) => {}
        }
        if let Some(secs) = time.advance_secs {
            let by = SignedDuration::try_from_secs_f64(secs)
                .map_err(|_| SimError::invalid("advance_secs is out of range"))?;
            world.clock.advance(by);
        }
    }
    Ok(json!({"now": world.clock.now()}))
}

fn journal(world: &World, request: &Request) -> Answer {
    if request.method == "DELETE" {
        world.journal.clear();
        return Ok(Value::Null);
    }
    let since = match request.param("since") {
        Some(text) => text.parse().map_err(|_| SimError::invalid("since is a number"))?,
        None => 0,
    };
    let kind = request.param("kind");
    let entries: Vec<Value> = world
        .journal
        .since(since)
        .iter()
        .map(|entry| json!(**entry))
        .filter(|entry| kind.is_none_or(|kind| entry["kind"] == kind))
        .collect();
    Ok(json!({
        "last_seq": world.journal.last_seq(),
        "dropped": world.journal.dropped(),
        "entries": entries,
    }))
}

fn directory(sim: &Sim, world: &World, request: &Request, path: &[&str], body: Value) -> Answer {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Consent {
        client_id: String,
        #[serde(default)]
        disabled: Option<bool>,
        #[serde(default)]
        withdraw: Vec<String>,
        #[serde(default)]
        end_tokens: bool,
    }
    match (request.method.as_str(), path) {
        ("GET", ["tenants"]) => Ok(world
            .tenants()
            .iter()
            .map(|tenant| {
                let consented: Vec<String> = read(&tenant.grants).keys().cloned().collect();
                json!({"id": tenant.id, "domain": tenant.domain, "name": tenant.name, "consented": consented})
            })
            .collect()),
        ("POST", ["tenants"]) => {
            let id = sim.add_tenant(parse::<TenantSpec>(body)?)?;
            Ok(json!({"id": id}))
        }
        ("POST", ["tenants", tenant, "users"]) => {
            let id = sim.add_user(tenant, parse::<UserSpec>(body)?)?;
            Ok(json!({"id": id}))
        }
        ("POST", ["tenants", tenant, "consent"]) => {
            let consent: Consent = parse(body)?;
            if consent.disabled.is_none() && consent.withdraw.is_empty() {
                sim.consent(tenant, &consent.client_id)?;
            }
            if let Some(disabled) = consent.disabled {
                sim.set_app_disabled(tenant, &consent.client_id, disabled)?;
            }
            for permission in &consent.withdraw {
                sim.withdraw_permission(tenant, &consent.client_id, permission)?;
            }
            Ok(Value::Null)
        }
        ("DELETE", ["tenants", tenant, "consent"]) => {
            let consent: Consent = parse(body)?;
            sim.revoke_consent(tenant, &consent.client_id, consent.end_tokens)?;
            Ok(Value::Null)
        }
        ("POST", ["apps"]) => {
            sim.add_app(parse::<AppSpec>(body)?)?;
            Ok(Value::Null)
        }
        _ => unknown(path),
    }
}

fn user_json(user: &User) -> Value {
    let profile = read(&user.profile);
    let mut value = json!(profile.spec);
    value["id"] = json!(user.id);
    value["tenant"] = json!(user.tenant.id);
    value
}

fn users(sim: &Sim, world: &World, method: &str, path: &[&str], body: Value) -> Answer {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Change {
        mailbox: Option<MailboxKind>,
        time_zone: Option<String>,
    }
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Answered {
        response: Response,
    }
    let date = |text: &str| -> Result<Date, SimError> {
        text.parse().map_err(|_| SimError::invalid(format!("`{text}` is no date")))
    };
    match (method, path) {
        ("GET", ["users"]) => Ok(world.users().iter().map(|user| user_json(user)).collect()),
        ("GET", ["users", user]) => Ok(user_json(&*world.any_user(user)?)),
        ("DELETE", ["users", user]) => {
            sim.remove_user(user)?;
            Ok(Value::Null)
        }
        ("PATCH" | "POST", ["users", user]) => {
            let change: Change = parse(body)?;
            if let Some(kind) = change.mailbox {
                sim.set_mailbox(user, kind)?;
            }
            if let Some(zone) = change.time_zone {
                sim.set_time_zone(user, &zone)?;
            }
            Ok(user_json(&*world.any_user(user)?))
        }
        ("GET", ["users", user, "events"]) => Ok(sim
            .events(user)?
            .into_iter()
            .map(|(ids, subject)| json!({"id": ids.id, "default_id": ids.default_id, "subject": subject}))
            .collect()),
        ("POST", ["users", user, "events"]) => Ok(json!(sim.add_event(user, parse::<EventSpec>(body)?)?)),
        ("PATCH", ["users", user, "events", id]) => Ok(json!(sim.patch_event(user, id, parse(body)?)?)),
        ("DELETE", ["users", user, "events", id]) => {
            sim.delete_event(user, id)?;
            Ok(Value::Null)
        }
        ("POST", ["users", user, "events", id, "cancel"]) => Ok(json!(sim.cancel_event(user, id)?)),
        ("POST", ["users", user, "events", id, "respond"]) => {
            let Answered { response } = parse(body)?;
            Ok(json!(sim.respond(user, id, response)?))
        }
        ("GET", ["users", user, "events", id, "occurrences", day]) => {
            Ok(json!(sim.occurrence(user, id, date(day)?)?))
        }
        ("PATCH", ["users", user, "events", id, "occurrences", day]) => {
            let one = sim.occurrence(user, id, date(day)?)?;
            Ok(json!(sim.patch_event(user, &one.id, parse(body)?)?))
        }
        ("DELETE", ["users", user, "events", id, "occurrences", day]) => {
            let one = sim.occurrence(user, id, date(day)?)?;
            sim.delete_event(user, &one.id)?;
            Ok(Value::Null)
        }
        ("POST", ["users", user, "delta", "expire"]) => {
            sim.expire_delta_links(user)?;
            Ok(Value::Null)
        }
        _ => unknown(path),
    }
}

fn subscriptions(sim: &Sim, method: &str, path: &[&str], body: Value) -> Answer {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Lifecycle {
        event: LifecycleKind,
    }
    match (method, path) {
        ("GET", ["subscriptions"]) => Ok(json!(sim.subscriptions())),
        ("DELETE", ["subscriptions", id]) | ("POST", ["subscriptions", id, "expire"]) => {
            sim.expire_subscription(id);
            Ok(Value::Null)
        }
        ("POST", ["subscriptions", id, "lifecycle"]) => {
            let Lifecycle { event } = parse(body)?;
            sim.lifecycle(id, event)?;
            Ok(Value::Null)
        }
        _ => unknown(path),
    }
}

fn delivery(sim: &Sim, method: &str, path: &[&str], body: Value) -> Answer {
    match (method, path) {
        ("GET", ["delivery"]) => Ok(json!(sim.delivery(|_| {}))),
        (_, ["delivery"]) => {
            let knobs = merge(&sim.delivery(|_| {}), body)?;
            Ok(json!(sim.delivery(|current| *current = knobs)))
        }
        ("POST", ["delivery", "retry"]) => {
            sim.retry_now();
            Ok(Value::Null)
        }
        _ => unknown(path),
    }
}

fn faults(sim: &Sim, world: &World, method: &str, body: Value) -> Answer {
    match method {
        "GET" => {}
        "DELETE" => sim.clear_faults(),
        _ => sim.fault(parse::<Fault>(body)?),
    }
    Ok(json!(world.faults.list()))
}

fn http_pbx(sim: &Sim, world: &World, method: &str, path: &[&str], body: Value) -> Answer {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Faulty {
        fault: PbxFault,
        #[serde(default = "once")]
        times: u32,
    }
    fn once() -> u32 {
        1
    }
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Signing {
        secret: Option<String>,
    }
    let pbx = sim.pbx();
    match (method, path) {
        ("GET", ["pbx"]) => Ok(json!(world.pbx.companies())),
        ("GET", ["pbx", company]) => Ok(json!(pbx.all(company))),
        ("GET", ["pbx", company, "extensions", extension]) => Ok(json!(pbx.presence(company, extension))),
        ("GET", ["pbx", company, "writes"]) => Ok(json!(
            world.journal.find(|record| matches!(record, Record::Pbx(write) if write.company == *company))
        )),
        ("POST", ["pbx", company, "auth"]) => {
            pbx.set_auth(company, parse::<PbxAuth>(body)?);
            Ok(Value::Null)
        }
        ("POST", ["pbx", company, "signing"]) => {
            let Signing { secret } = parse(body)?;
            pbx.set_signing_secret(company, secret.as_deref());
            Ok(Value::Null)
        }
        ("POST", ["pbx", company, "faults"]) => {
            let Faulty { fault, times } = parse(body)?;
            pbx.fault(company, times, fault);
            Ok(Value::Null)
        }
        ("DELETE", ["pbx", company, "faults"]) => {
            pbx.clear_faults(company);
            Ok(Value::Null)
        }
        ("POST", ["pbx", company, "wipe"]) => {
            pbx.wipe(company);
            Ok(Value::Null)
        }
        ("POST", ["pbx", company, "tokens", "revoke"]) => {
            pbx.revoke_tokens(company);
            Ok(Value::Null)
        }
        ("POST", ["pbx", company, "extensions", extension, "manual"]) => {
            pbx.set_by_hand(company, extension, pbx::by_hand(&body)?);
            Ok(json!(pbx.presence(company, extension)))
        }
        _ => unknown(path),
    }
}

fn asterisk(sim: &Sim, world: &World, method: &str, path: &[&str], body: Value) -> Answer {
    #[derive(Deserialize, Default)]
    #[serde(default, deny_unknown_fields)]
    struct Restart {
        wipe: bool,
    }
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Text {
        value: Option<String>,
    }
    let ami = sim.ami();
    match (method, path) {
        ("GET", ["ami"]) => Ok(json!(ami.all())),
        ("GET", ["ami", extension]) => Ok(json!(ami.presence(extension))),
        ("POST", ["ami", extension]) => {
            let AmiPresence { state, subtype, message } = parse(body)?;
            ami.set_by_hand(extension, &state, &subtype, &message);
            Ok(json!(ami.presence(extension)))
        }
        ("GET", ["ami-knobs"]) => Ok(json!(ami.turn(|_| {}))),
        (_, ["ami-knobs"]) => {
            let knobs = merge(&ami.turn(|_| {}), body)?;
            Ok(json!(ami.turn(|current| *current = knobs)))
        }
        ("POST", ["ami-accounts"]) => {
            ami.add_account(parse::<AmiAccount>(body)?);
            Ok(Value::Null)
        }
        ("POST", ["ami-restart"]) => {
            let Restart { wipe } = parse(body)?;
            ami.restart(wipe);
            Ok(Value::Null)
        }
        ("POST", ["ami-cut"]) => {
            ami.cut();
            Ok(Value::Null)
        }
        ("GET", ["ami-db", family, key]) => Ok(json!({"value": ami.db(family, key)})),
        ("POST" | "PUT", ["ami-db", family, key]) => {
            let Text { value } = parse(body)?;
            ami.set_db(family, key, value.as_deref());
            Ok(json!({"value": ami.db(family, key)}))
        }
        ("GET", ["ami-devices", name]) => Ok(json!({"value": ami.device(name)})),
        ("POST" | "PUT", ["ami-devices", name]) => {
            let Text { value } = parse(body)?;
            ami.set_device_by_hand(name, value.as_deref().unwrap_or("NOT_INUSE"));
            Ok(json!({"value": world.ami.device(name)}))
        }
        _ => unknown(path),
    }
}
