//! What every request of the admin API goes through: a name, a limit, and words for what was not understood.

use axum::{
    body::{Bytes, to_bytes},
    extract::{FromRequest, FromRequestParts, Query, RawPathParams, Request},
    http::{HeaderMap, HeaderName, HeaderValue, Uri, header, request::Parts},
    middleware::Next,
    response::Response,
};
use serde::de::DeserializeOwned;

use super::problem::{Problem, Refusal};

/// Longest request body in bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct RequestLimit(pub(super) usize);

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Gives each request a random name, and writes refusals down under it. The sender's own name is not taken over:
/// two requests could then look like one.
pub(super) async fn name_requests(request: Request, next: Next) -> Response {
    let id = random_id();
    let mut response = next.run(request).await;
    if let Some(refusal) = response.extensions_mut().remove::<Refusal>() {
        refusal.log(&id);
        response = refusal.respond(&id);
    }
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    response
}

fn random_id() -> String {
    let mut bytes = [0_u8; 8];
    // Without randomness the request is still answered; only its name says less.
    let _ = aws_lc_rs::rand::fill(&mut bytes);
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A JSON object within the limit. A body that got lost on its way must not pass for one that says nothing: none is
/// taken for `{}`, and an array does not stand for an object.
pub(super) struct Input<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Input<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, _: &S) -> Result<Self, Refusal> {
        let RequestLimit(limit) = request.extensions().get().copied().unwrap_or(RequestLimit(64 * 1024));
        let (parts, body) = request.into_parts();
        let body = to_bytes(body, limit).await.map_err(|_| Problem::too_large(limit))?;
        if body.trim_ascii().is_empty() {
            return Err(Problem::no_body().into());
        }
        if !is_json(&parts.headers) {
            return Err(Problem::not_json().into());
        }
        read_object(&body).map(Self).map_err(|said| Problem::bad_body(said).into())
    }
}

/// Whether the sender calls it `application/json`, or something that is written in it.
fn is_json(headers: &HeaderMap) -> bool {
    let said = headers.get(header::CONTENT_TYPE).and_then(|said| said.to_str().ok()).unwrap_or_default();
    let essence = said.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json"))
}

fn read_object<T: DeserializeOwned>(body: &Bytes) -> Result<T, String> {
    // Read into a struct, an array would fill its fields in their order.
    if !body.trim_ascii_start().starts_with(b"{") {
        return Err("body: not a JSON object".to_owned());
    }
    let mut json = serde_json::Deserializer::from_slice(body);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let place = match error.path().to_string().as_str() {
            // Neither is a place: the text is no JSON, or the whole is of the wrong kind.
            "." | "?" => String::new(),
            path => format!(", at `{path}`"),
        };
        format!("body{place}: {}", error.inner())
    })?;
    json.end().map_err(|error| format!("body: {error}"))?;
    Ok(value)
}

/// What stands in the address: the parts of the path that have names, and the query.
pub(super) struct Parameters<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Parameters<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let refuse = |said: String| Problem::bad_request(format!("parameters: {said}"));
        let named = RawPathParams::from_request_parts(parts, state).await;
        let named = named.map_err(|error| refuse(error.body_text()))?;
        let mut pairs = url::form_urlencoded::Serializer::new(String::new());
        pairs.extend_pairs(&named);
        pairs.extend_pairs(url::form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes()));
        let all = Uri::builder().path_and_query(format!("/?{}", pairs.finish())).build();
        let all = all.map_err(|error| refuse(error.to_string()))?;
        let Query(value) = Query::try_from_uri(&all).map_err(|error| refuse(error.body_text()))?;
        Ok(Self(value))
    }
}
