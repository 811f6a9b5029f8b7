//! `/users`: finding a user by address, one user, and his mailbox settings.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::{
    graph::{Caller, error},
    http::{Reply, Request},
    read,
    world::{User, UserKind, World},
};

const DEFAULT: [&str; 11] = [
    "businessPhones",
    "displayName",
    "givenName",
    "jobTitle",
    "mail",
    "mobilePhone",
    "officeLocation",
    "preferredLanguage",
    "surname",
    "userPrincipalName",
    "id",
];

const SELECTABLE: [&str; 4] = ["proxyAddresses", "accountEnabled", "userType", "mailNickname"];

fn object(user: &User) -> Map<String, Value> {
    let profile = read(&user.profile);
    let spec = &profile.spec;
    let all = json!({
        "id": user.id,
        "businessPhones": [],
        "displayName": spec.name,
        "givenName": null,
        "jobTitle": null,
        "mail": spec.alias,
        "mobilePhone": null,
        "officeLocation": null,
        "preferredLanguage": null,
        "surname": null,
        "userPrincipalName": spec.upn,
        "proxyAddresses": profile.proxies,
        "accountEnabled": spec.kind != UserKind::Shared,
        "userType": if spec.kind == UserKind::Guest { "Guest" } else { "Member" },
        "mailNickname": spec.alias.split('@').next(),
    });
    match all {
        Value::Object(all) => all,
        _ => Map::new(),
    }
}

fn selection(request: &Request) -> Result<Vec<String>, Box<Reply>> {
    let Some(select) = request.param("$select") else {
        return Ok(DEFAULT.iter().map(|&name| name.to_owned()).collect());
    };
    let names: Vec<String> = select.split(',').map(|name| name.trim().to_owned()).collect();
    match names.iter().find(|name| !DEFAULT.contains(&name.as_str()) && !SELECTABLE.contains(&name.as_str()))
    {
        Some(wrong) => Err(Box::new(error(
            request,
            400,
            "BadRequest",
            &format!("Could not find a property named '{wrong}' on type 'microsoft.graph.user'."),
        ))),
        None => Ok(names),
    }
}

fn pick(mut object: Map<String, Value>, names: &[String]) -> Value {
    object.retain(|name, _| names.contains(name));
    Value::Object(object)
}

fn denied(request: &Request, caller: &Caller) -> Option<Reply> {
    (!caller.may("User.Read.All")).then(|| {
        error(
            request,
            403,
            "Authorization_RequestDenied",
            "Insufficient privileges to complete the operation.",
        )
    })
}

pub(crate) fn missing(request: &Request, key: &str) -> Reply {
    error(
        request,
        404,
        "Request_ResourceNotFound",
        &format!(
            "Resource '{key}' does not exist or one of its queried reference-property objects are not present."
        ),
    )
}

/// `GET /users/{id}`
pub(crate) fn one(world: &World, request: &Request, caller: &Caller, user: &User) -> Reply {
    if request.method != "GET" {
        return error(request, 405, "Request_BadRequest", "Method not allowed.");
    }
    if let Some(reply) = denied(request, caller) {
        return reply;
    }
    match selection(request) {
        Ok(names) => {
            let mut body = json!({
                "@odata.context": format!("{}/v1.0/$metadata#users/$entity", world.base_url),
            });
            if let (Value::Object(body), Value::Object(mut rest)) = (&mut body, pick(object(user), &names)) {
                body.append(&mut rest);
            }
            Reply::json(200, &body)
        }
        Err(reply) => *reply,
    }
}

/// `GET /users?$filter=…`
pub(crate) fn find(world: &World, request: &Request, caller: &Caller) -> Reply {
    if request.method != "GET" {
        return error(request, 405, "Request_BadRequest", "Method not allowed.");
    }
    if let Some(reply) = denied(request, caller) {
        return reply;
    }
    let names = match selection(request) {
        Ok(names) => names,
        Err(reply) => return *reply,
    };
    let Some(filter) = request.param("$filter") else {
        return error(
            request,
            400,
            "Request_UnsupportedQuery",
            "Listing all users is not simulated: use $filter.",
        );
    };
    let Some(clauses) = parse_filter(filter) else {
        return error(
            request,
            400,
            "Request_UnsupportedQuery",
            &format!("Unsupported or invalid query filter clause specified: {filter}"),
        );
    };
    let mut found: Vec<Arc<User>> = Vec::new();
    for clause in clauses {
        for user in clause.users(caller) {
            if !found.iter().any(|one| one.id == user.id) {
                found.push(user);
            }
        }
    }
    let value: Vec<Value> = found.iter().map(|user| pick(object(user), &names)).collect();
    Reply::json(
        200,
        &json!({
            "@odata.context": format!(
                "{}/v1.0/$metadata#users({})", world.base_url, names.join(",")
            ),
            "value": value,
        }),
    )
}

enum Clause {
    Mail(String),
    Proxy(String),
    Upn(String),
}

impl Clause {
    fn users(&self, caller: &Caller) -> Vec<Arc<User>> {
        match self {
            Self::Mail(mail) => caller
                .tenant
                .by_address(mail)
                .into_iter()
                .filter(|user| read(&user.profile).spec.alias.eq_ignore_ascii_case(mail))
                .collect(),
            Self::Proxy(proxy) => {
                let lower = proxy.to_lowercase();
                caller
                    .tenant
                    .by_address(lower.strip_prefix("smtp:").unwrap_or(&lower))
                    .into_iter()
                    .filter(|user| read(&user.profile).proxies.iter().any(|one| one.to_lowercase() == lower))
                    .collect()
            }
            Self::Upn(upn) => caller
                .tenant
                .user(upn)
                .into_iter()
                .filter(|user| read(&user.profile).spec.upn.eq_ignore_ascii_case(upn))
                .collect(),
        }
    }
}

/// `mail eq '…' or proxyAddresses/any(p:p eq 'smtp:…') or userPrincipalName eq '…'`
fn parse_filter(filter: &str) -> Option<Vec<Clause>> {
    let mut rest = filter.trim();
    let mut clauses = Vec::new();
    loop {
        if let Some(after) = rest.strip_prefix("mail eq ") {
            let (text, after) = literal(after)?;
            clauses.push(Clause::Mail(text));
            rest = after;
        } else if let Some(after) = rest.strip_prefix("userPrincipalName eq ") {
            let (text, after) = literal(after)?;
            clauses.push(Clause::Upn(text));
            rest = after;
        } else if let Some(after) = rest.strip_prefix("proxyAddresses/any(") {
            let (variable, after) = after.split_once(':')?;
            let after = after.trim_start().strip_prefix(variable.trim())?.strip_prefix(" eq ")?;
            let (text, after) = literal(after)?;
            clauses.push(Clause::Proxy(text));
            rest = after.trim_start().strip_prefix(')')?;
        } else {
            return None;
        }
        rest = rest.trim_start();
        if rest.is_empty() {
            return Some(clauses);
        }
        rest = rest.strip_prefix("or ")?.trim_start();
    }
}

/// A quoted text in which a quote is doubled.
fn literal(text: &str) -> Option<(String, &str)> {
    let mut rest = text.trim_start().strip_prefix('\'')?;
    let mut value = String::new();
    loop {
        let end = rest.find('\'')?;
        value.push_str(&rest[..end]);
        rest = &rest[end + 1..];
        match rest.strip_prefix('\'') {
            Some(after) => {
                value.push('\'');
                rest = after;
            }
            None => return Some((value, rest)),
        }
    }
}

/// `GET /users/{id}/mailboxSettings[/timeZone]`
pub(crate) fn mailbox_settings(world: &World, request: &Request, user: &User, rest: &[&str]) -> Reply {
    if request.method != "GET" {
        return error(request, 405, "ErrorInvalidRequest", "Only reading is simulated.");
    }
    let (zone, _) = user.zone();
    let context = format!("{}/v1.0/$metadata#users('{}')/mailboxSettings", world.base_url, user.id);
    match rest {
        [] => {
            let mut body = json!({
                "@odata.context": context,
                "archiveFolder": "AAkALgAAAAAAHYQDEapmEc2byACqAC-EWg0AiQyr4nETZAMyb4JSxZz91HFg-mP-ejeAHTv_wdAAA=",
                "timeZone": zone,
                "delegateMeetingMessageDeliveryOptions": "sendToDelegateOnly",
                "dateFormat": "yyyy-MM-dd",
                "timeFormat": "HH:mm",
                "automaticRepliesSetting": {
                    "status": "disabled",
                    "externalAudience": "none",
                    "internalReplyMessage": "",
                    "externalReplyMessage": "",
                    "scheduledStartDateTime": {"dateTime": "2026-11-23T07:00:00.0000000", "timeZone": "UTC"},
                    "scheduledEndDateTime": {"dateTime": "2026-11-24T07:00:00.0000000", "timeZone": "UTC"},
                },
                "language": {"locale": "sv-SE", "displayName": "Swedish (Sweden)"},
                "workingHours": {
                    "daysOfWeek": ["monday", "tuesday", "wednesday", "thursday", "friday"],
                    "startTime": "08:00:00.0000000",
                    "endTime": "17:00:00.0000000",
                    "timeZone": {"name": zone},
                },
            });
            if let (Some(select), Value::Object(map)) = (request.param("$select"), &mut body) {
                let names: Vec<&str> = select.split(',').map(str::trim).collect();
                map.retain(|name, _| name.starts_with('@') || names.contains(&name.as_str()));
            }
            Reply::json(200, &body)
        }
        ["timeZone"] => {
            Reply::json(200, &json!({"@odata.context": format!("{context}/timeZone"), "value": zone}))
        }
        _ => error(
            request,
            400,
            "BadRequest",
            &format!("Resource not found for the segment '{}'.", rest.join("/")),
        ),
    }
}
