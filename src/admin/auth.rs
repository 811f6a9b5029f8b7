//! Bearer tokens of the private listener: whose they are, and what they may do.

use std::{collections::BTreeSet, sync::Arc};

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
use crate::{config::Role, model::CompanyId};

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The token's name, as the audit trail shows it.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// The only companies it may see; absent: all.
    pub companies: Option<BTreeSet<CompanyId>>,
}

impl Caller {
    /// Somebody who may do everything.
    pub fn admin(name: &str) -> Self {
        Self { name: name.to_owned(), role: Role::Admin, companies: None }
    }
}

/// A token that opens the admin API, and to whom it belongs.
#[derive(Debug, Clone)]
pub struct Token {
    /// The token itself.
    pub secret: SecretString,
    /// Whose.
    pub caller: Caller,
}

/// All tokens. Kept as their hashes.
#[derive(Clone)]
pub(super) struct Tokens(Arc<[([u8; 32], Caller)]>);

impl Tokens {
    pub(super) fn new(tokens: Vec<Token>) -> Self {
        let hashed =
            tokens.into_iter().map(|token| (digest(token.secret.expose_secret().trim()), token.caller));
        Self(hashed.collect())
    }

    /// Whose token the request carries. Takes the same time however much of an offered token is right, and whichever
    /// it is: all are hashed first, so that lengths are equal and no byte of the comparison is the sender's to
    /// choose, and every one is looked at.
    pub(super) fn owner(&self, headers: &HeaderMap) -> Option<&Caller> {
        let offered = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).and_then(bearer)?;
        let offered = digest(offered);
        self.0.iter().fold(None, |found, (token, caller)| {
            if verify_slices_are_equal(&offered, token).is_ok() { Some(caller) } else { found }
        })
    }
}

/// Lets through what carries a token, with the name of whose it is.
pub(super) async fn require_token(
    State(tokens): State<Tokens>,
    mut request: Request,
    next: Next,
) -> Response {
    let Some(caller) = tokens.owner(request.headers()).cloned() else {
        return Refusal::from(Problem::unauthorised()).into_response();
    };
    request.extensions_mut().insert(caller);
    next.run(request).await
}

/// Lets through whoever has the role; [`require_token`] has been passed before.
pub(super) async fn require_role(State(role): State<Role>, request: Request, next: Next) -> Response {
    match request.extensions().get::<Caller>() {
        None => Refusal::from(Problem::unauthorised()).into_response(),
        Some(caller) if caller.role < role => {
            Refusal::from(Problem::forbidden(&caller.name, role.name())).into_response()
        }
        Some(_) => next.run(request).await,
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
