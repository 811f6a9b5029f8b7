//! `$batch` on the wire: up to twenty requests in one, and their answers in whatever order they come.
//!
//! Only requests that read are joined, so none has a body and none depends on another.
//! Facts: <https://learn.microsoft.com/graph/json-batching>.

use std::{collections::HashMap, time::Duration};

use bytes::Bytes;
use jiff::Timestamp;
use reqwest::Method;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use url::Url;

use super::{
    builder::{CHANGES, Call},
    refusal, wire,
};
use crate::calendar::ReadError;

/// What has small answers and changes nothing; who lists events gets their bodies as well and goes alone, but for what
/// has changed: that is seldom more than one.
const SMALL: &[&str] = &["event", CHANGES, "time_zone", "users"];

/// Whether a call may be a part of a batch.
pub(super) fn may_join(call: &Call) -> bool {
    call.method == Method::GET && SMALL.contains(&call.operation)
}

#[derive(Serialize)]
struct WireBatch<'a> {
    requests: Vec<WireRequest<'a>>,
}

#[derive(Serialize)]
struct WireRequest<'a> {
    id: String,
    method: &'a str,
    url: String,
    headers: WireHeaders<'a>,
}

#[derive(Serialize)]
struct WireHeaders<'a> {
    #[serde(rename = "Accept")]
    accept: &'static str,
    #[serde(rename = "Prefer")]
    prefer: String,
    #[serde(rename = "client-request-id")]
    chain: &'a str,
}

/// A request as a part of a batch.
pub(super) struct Part<'a> {
    pub(super) call: &'a Call,
    pub(super) prefer: String,
    pub(super) chain: &'a str,
}

/// The body of a batch. Its parts are told apart by their place.
pub(super) fn write(root: &Url, parts: Vec<Part<'_>>) -> Result<Bytes, ReadError> {
    let requests = parts.into_iter().enumerate().map(|(place, part)| WireRequest {
        id: place.to_string(),
        method: part.call.method.as_str(),
        url: relative(root, &part.call.url),
        headers: WireHeaders { accept: "application/json", prefer: part.prefer, chain: part.chain },
    });
    let batch = WireBatch { requests: requests.collect() };
    serde_json::to_vec(&batch).map(Bytes::from).map_err(|_quotes_the_request| ReadError::Refused {
        reason: "the batch cannot be written".to_owned(),
    })
}

/// An address below the root, which it leaves out.
fn relative(root: &Url, url: &Url) -> String {
    let path = url.path();
    let path = path.strip_prefix(root.path().trim_end_matches('/')).unwrap_or(path);
    match url.query() {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    }
}

#[derive(Deserialize)]
struct WireAnswers {
    responses: Vec<WireAnswer>,
}

#[derive(Deserialize)]
struct WireAnswer {
    id: String,
    status: u16,
    #[serde(default)]
    headers: HashMap<String, serde_json::Value>,
    body: Option<Box<RawValue>>,
}

/// What a part was answered.
#[derive(Debug)]
pub(super) struct PartAnswer {
    pub(super) status: u16,
    pub(super) retry_after: Option<Duration>,
    pub(super) request_id: Option<String>,
    pub(super) body: Bytes,
}

impl PartAnswer {
    fn of(answer: WireAnswer, now: Timestamp) -> Self {
        let header = |wanted: &str| {
            let mut headers = answer.headers.iter();
            let (_, value) = headers.find(|(name, _)| name.eq_ignore_ascii_case(wanted))?;
            Some(value.as_str().map_or_else(|| value.to_string(), str::to_owned))
        };
        let body = answer.body.as_ref().map_or("", |body| body.get());
        Self {
            status: answer.status,
            retry_after: header("retry-after").and_then(|value| refusal::retry_after(&value, now)),
            request_id: header("request-id"),
            body: Bytes::copy_from_slice(body.as_bytes()),
        }
    }
}

/// The answers to so many parts, each in its place; the first counts, and one that is missing stays so.
pub(super) fn read(body: &[u8], parts: usize, now: Timestamp) -> Result<Vec<Option<PartAnswer>>, ReadError> {
    let answers: WireAnswers = wire::read(body)?;
    let mut places: Vec<Option<PartAnswer>> = std::iter::repeat_with(|| None).take(parts).collect();
    for answer in answers.responses {
        let place = answer.id.parse::<usize>().ok().and_then(|place| places.get_mut(place));
        if let Some(empty @ None) = place {
            *empty = Some(PartAnswer::of(answer, now));
        }
    }
    Ok(places)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{super::gates::Scope, super::testing::fixture, *};

    fn call(url: &str) -> Call {
        Call {
            operation: "event",
            method: Method::GET,
            url: url.parse().unwrap(),
            body: None,
            scope: Scope::Mailbox("anna".to_owned()),
            page_size: None,
        }
    }

    #[test]
    fn parts_have_relative_addresses_ids_of_their_own_and_their_headers() {
        let root = "https://graph.microsoft.com/v1.0/".parse().unwrap();
        let calls = [
            call("https://graph.microsoft.com/v1.0/users/a/events/AAk%3D?%24select=id"),
            call("https://graph.microsoft.com/v1.0/users/b/mailboxSettings/timeZone"),
        ];
        let part = |call| Part { call, prefer: "x".to_owned(), chain: "c" };
        let body: Value =
            serde_json::from_slice(&write(&root, calls.iter().map(part).collect()).unwrap()).unwrap();
        let headers = json!({"Accept": "application/json", "Prefer": "x", "client-request-id": "c"});
        let request = |id, url| json!({"id": id, "method": "GET", "url": url, "headers": headers.clone()});
        let requests = [
            request("0", "/users/a/events/AAk%3D?%24select=id"),
            request("1", "/users/b/mailboxSettings/timeZone"),
        ];
        assert_eq!(body, json!({ "requests": requests }));
    }

    #[test]
    fn answers_find_their_places_whatever_their_order_and_a_wait_is_the_parts_own() {
        let body = serde_json::to_vec(&fixture("batch-response-mixed.json")).unwrap();
        let answers = read(&body, 6, Timestamp::UNIX_EPOCH).unwrap();
        let statuses: Vec<_> = answers.iter().map(|answer| answer.as_ref().map(|one| one.status)).collect();
        assert_eq!(statuses, [None, Some(429), Some(200), Some(404), Some(424), None]);
        let waits: Vec<_> = answers.iter().flatten().map(|answer| answer.retry_after).collect();
        assert_eq!(waits, [Some(Duration::from_secs(4)), None, None, None]);
        let zone: Value = serde_json::from_slice(&answers[2].as_ref().unwrap().body).unwrap();
        assert_eq!(zone["value"], "W. Europe Standard Time");
    }

    #[test]
    fn headers_are_found_in_any_case_and_odd_answers_are_passed_over() {
        let body = json!({"responses": [
            {"id": "7", "status": 200},
            {"id": "x", "status": 200},
            {"id": "0", "status": 503, "headers": {"RETRY-AFTER": 7, "Request-Id": "r"}},
            {"id": "0", "status": 200, "body": {}},
            {"id": "1", "status": 204, "body": null},
        ]});
        let answers = read(body.to_string().as_bytes(), 2, Timestamp::UNIX_EPOCH).unwrap();
        let [Some(first), Some(second)] = &answers[..] else { panic!("{answers:?}") };
        assert_eq!((first.status, first.retry_after), (503, Some(Duration::from_secs(7))));
        assert_eq!(first.request_id.as_deref(), Some("r"));
        assert_eq!((second.status, second.body.len()), (204, 0));
    }

    #[test]
    fn what_is_no_batch_is_an_error_that_names_the_place() {
        for (body, wanted) in [("{}", ""), (r#"{"responses":[{"id":"1"}]}"#, "responses[0]"), ("<html>", "")]
        {
            let error = read(body.as_bytes(), 1, Timestamp::UNIX_EPOCH).unwrap_err();
            assert!(
                matches!(&error, ReadError::Unreadable { place } if place.contains(wanted)),
                "{body}: {error:?}"
            );
        }
    }
}
