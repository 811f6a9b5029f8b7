//! What every request of the admin API goes through: a name, a limit, and words for what was not understood.

use axum::{
    body::to_bytes,
    extract::{FromRequest, FromRequestParts, Query, RawPathParams, Request},
    http::{HeaderName, HeaderValue, Uri, request::Parts},
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

/// A JSON body within the limit; an empty one counts as `{}`.
pub(super) struct Input<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Input<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, _: &S) -> Result<Self, Refusal> {
        let RequestLimit(limit) = request.extensions().get().copied().unwrap_or(RequestLimit(64 * 1024));
        let body = to_bytes(request.into_body(), limit).await.map_err(|_| Problem::too_large(limit))?;
        let text: &[u8] = if body.is_empty() { b"{}" } else { &body };
        let mut json = serde_json::Deserializer::from_slice(text);
        match serde_path_to_error::deserialize(&mut json) {
            Ok(value) => Ok(Self(value)),
            Err(error) => {
                let place = match error.path().to_string().as_str() {
                    // Neither is a place: the text is no JSON, or the whole is of the wrong kind.
                    "." | "?" => String::new(),
                    path => format!(", at `{path}`"),
                };
                Err(Problem::bad_request(format!("body{place}: {}", error.inner())).into())
            }
        }
    }
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
