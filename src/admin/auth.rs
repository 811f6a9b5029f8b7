//! The bearer token of the private listener.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use axum::{
    extract::{Request, State},
    http::{HeaderMap, header::AUTHORIZATION},
    middleware::Next,
    response::{IntoResponse, Response},
};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};

use super::problem::{Problem, Refusal};

/// The token that opens the admin API. Kept as its hash; prints as `[redacted]`.
#[derive(Clone)]
pub(super) struct Token([u8; 32]);

impl Token {
    pub(super) fn new(token: &SecretString) -> Self {
        Self(digest(token.expose_secret().trim()))
    }

    /// Whether the request carries the token. Takes the same time however much of an offered token is right:
    /// both are hashed first, so that lengths are equal and no byte of the comparison is the sender's to choose.
    pub(super) fn opens(&self, headers: &HeaderMap) -> bool {
        let offered = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).and_then(bearer);
        offered.is_some_and(|offered| verify_slices_are_equal(&digest(offered), &self.0).is_ok())
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[redacted]")
    }
}

/// Lets through what carries the token.
pub(super) async fn require_token(State(token): State<Token>, request: Request, next: Next) -> Response {
    if token.opens(request.headers()) {
        next.run(request).await
    } else {
        Refusal::from(Problem::unauthorised()).into_response()
    }
}

fn digest(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}

/// The credentials after the scheme, whose case does not matter (RFC 9110, 11.1).
fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}
