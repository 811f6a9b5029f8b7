//! What goes over the wire, and what becomes of what comes back.

mod gateway;
mod reading;
mod refusals;
mod rounds;
mod tokens;
mod watches;

use std::time::Duration;

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use reqwest::Method;
use rustls::pki_types::{CertificateDer, pem::PemObject};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{
    builder::Call,
    gates::Scope,
    testing::{ANNA, CLIENT, Fake, Reply, TENANT, certificate, fixture},
    *,
};
use crate::{
    calendar::{CalendarSource, DeltaLink, MailboxRef, ReadError, Round},
    chain::Chain,
    model::{CalendarEvent, Interval, SubscriptionId},
    subscription::{WatchError, WatchKeeper, WatchRequest},
};

fn anna() -> MailboxRef {
    MailboxRef { object: ANNA.to_owned() }
}

fn window() -> Interval {
    Interval::new("2026-11-21T23:00:00Z".parse().unwrap(), "2026-12-27T23:00:00Z".parse().unwrap())
}

fn page(events: &[Value], next: Option<&str>) -> Reply {
    let mut body = json!({ "value": events });
    if let Some(link) = next {
        body["@odata.nextLink"] = json!(link);
    }
    Reply::json(200, &body)
}

fn single() -> Value {
    fixture("event-single.json")
}

fn named(id: &str) -> Value {
    let mut event = single();
    event["id"] = json!(id);
    event
}

fn id_of(event: &Value) -> crate::model::EventId {
    event["id"].as_str().unwrap().parse().unwrap()
}

fn ids(events: &[CalendarEvent]) -> Vec<&str> {
    events.iter().map(|event| event.id.as_str()).collect()
}

fn watch_request() -> WatchRequest {
    WatchRequest {
        mailbox: anna(),
        notification_url: "https://hooks.example/notify".to_owned(),
        lifecycle_url: "https://hooks.example/lifecycle".to_owned(),
        client_state: "v1.secret".to_owned(),
        until: "2026-11-25T20:00:00Z".parse().unwrap(),
    }
}
