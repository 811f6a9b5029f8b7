//! `POST /v1.0/$batch`: each part is a request of its own, and the answers come in any order.
//!
//! Stricter than Graph, which mends some of it in silence: what is not to the letter is refused and noted.
//! A part whose connection a fault drops is missing from the answer; one that would be cut in its body is a 504.

use std::{collections::HashSet, sync::Arc};

use base64::{Engine, prelude::BASE64_STANDARD};
use hyper::{
    HeaderMap, Method,
    header::{AUTHORIZATION, HeaderName, HeaderValue},
};
use rand::seq::SliceRandom;
use serde_json::{Map, Value, json};

use crate::{
    graph,
    http::{Ending, Reply, Request},
    lock,
    world::World,
};

/// Most parts of a batch.
const MOST: usize = 20;

pub(crate) async fn handle(world: &Arc<World>, request: &Request) -> Reply {
    if request.method != Method::POST {
        return graph::error(request, 405, "BadRequest", "$batch takes POST.");
    }
    let parts = match parts(request) {
        Ok(parts) => parts,
        Err(why) => {
            world.journal.violation("batch", why.clone());
            return graph::error(request, 400, "BadRequest", &why);
        }
    };
    let mut working = tokio::task::JoinSet::new();
    for (id, part) in parts {
        let world = Arc::clone(world);
        working.spawn(async move {
            let reply = graph::handle_part(&world, &part).await;
            (id, reply)
        });
    }
    let mut answers: Vec<Value> = Vec::new();
    let (mut told, mut too_early) = (Vec::new(), Vec::new());
    while let Some(done) = working.join_next().await {
        let Ok((id, mut reply)) = done else { continue };
        too_early.append(&mut reply.too_early);
        if reply.ending == Ending::Whole {
            told.append(&mut reply.told);
        }
        if reply.ending != Ending::NoAnswer {
            answers.push(answer(&id, reply));
        }
    }
    answers.shuffle(&mut *lock(&world.rng));
    Reply { told, too_early, ..Reply::json(200, &json!({ "responses": answers })) }
}

fn answer(id: &str, reply: Reply) -> Value {
    if reply.ending == Ending::CutBody {
        return json!({"id": id, "status": 504});
    }
    let headers: Map<String, Value> =
        reply.headers.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
    let body = match serde_json::from_slice(&reply.body) {
        Ok(body) => body,
        Err(_) if reply.body.is_empty() => Value::Null,
        Err(_) => json!(BASE64_STANDARD.encode(&reply.body)),
    };
    json!({"id": id, "status": reply.status, "headers": headers, "body": body})
}

/// The parts with their ids, or what is wrong with them.
fn parts(request: &Request) -> Result<Vec<(String, Request)>, String> {
    let kind = request.header("content-type").unwrap_or_default();
    if !kind.starts_with("application/json") {
        return Err(format!("The content type of a batch is application/json and not '{kind}'."));
    }
    let document = request.json()?;
    let requests = document["requests"].as_array().ok_or("There are no requests.")?;
    if requests.is_empty() || requests.len() > MOST {
        return Err(format!("A batch has 1 to {MOST} requests and not {}.", requests.len()));
    }
    let mut seen = HashSet::new();
    let parts = requests.iter().map(|part| {
        let id = part["id"].as_str().filter(|id| !id.is_empty()).ok_or("A request has no id.")?;
        if !seen.insert(id) {
            return Err(format!("The id '{id}' is there twice."));
        }
        let part = read(request, part).map_err(|why| format!("Request '{id}': {why}"))?;
        Ok((id.to_owned(), part))
    });
    parts.collect()
}

fn read(outer: &Request, part: &Value) -> Result<Request, String> {
    let members = part.as_object().ok_or("it is no object")?;
    if let Some(odd) =
        members.keys().find(|name| !["id", "method", "url", "headers", "body"].contains(&name.as_str()))
    {
        return Err(format!("'{odd}' is not simulated"));
    }
    let method: Method =
        part["method"].as_str().unwrap_or_default().parse().map_err(|_| "it has no method")?;
    let url = part["url"].as_str().unwrap_or_default();
    if !url.starts_with('/') || url.starts_with("//") || url.starts_with("/v1.0") {
        return Err("its URL is not relative to the version".to_owned());
    }
    if url.to_lowercase().starts_with("/$batch") {
        return Err("a batch has no batch in it".to_owned());
    }
    let mut headers = HeaderMap::new();
    for (name, value) in part["headers"].as_object().into_iter().flatten() {
        let name: HeaderName = name.parse().map_err(|_| "a header has no name")?;
        let value = value.as_str().and_then(|value| HeaderValue::from_str(value).ok());
        if name == AUTHORIZATION {
            return Err("the batch is signed, and not its parts".to_owned());
        }
        headers.append(name, value.ok_or("a header has no value")?);
    }
    let body = match &part["body"] {
        Value::Null => Vec::new(),
        _ if !headers.contains_key("content-type") => return Err("a body needs a content type".to_owned()),
        body => body.to_string().into_bytes(),
    };
    if !body.is_empty() {
        headers.append("content-length", body.len().into());
    }
    headers.extend(outer.headers.get(AUTHORIZATION).map(|token| (AUTHORIZATION, token.clone())));
    let (path, query) = url.split_once('?').unwrap_or((url, ""));
    Ok(Request::new(method, &format!("/v1.0{path}"), query, headers, body.into()))
}
