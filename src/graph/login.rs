//! The road to the login service, and what its refusals mean.
//!
//! azure_identity brings the requests; this module carries them, with our own limits, and reads refusals itself.
//! Why: version 1.0 reads `error_description` as a borrowed text, which fails on every description with an
//! escape in it (the real ones have `\r\n`), so status, code and `Retry-After` would be lost (seen 2026-11).
//! It also refuses an authority without TLS; for a simulator on the loopback it is told an https name, and the
//! requests are turned round here.
//! Facts: <https://learn.microsoft.com/entra/identity-platform/reference-error-codes>.

use std::{error::Error, sync::Arc, time::Duration};

use async_trait::async_trait;
use azure_core::{
    cloud::CustomConfiguration,
    error::ErrorKind,
    http::{
        AsyncRawResponse, Body, ClientOptions, HttpClient, Request, RetryOptions, Transport, headers::Headers,
    },
};
use serde::Deserialize;
use url::Url;

use super::{
    cloud::Cloud,
    courier::{BodyError, read_body},
    credential::ProofError,
    refusal,
};
use crate::{calendar::ReadError, clock::SharedClock};

/// A token answer is about 3 KB; a refusal less.
const LONGEST_ANSWER: usize = 256 * 1024;

/// Stands in for a loopback authority, which azure_identity would refuse; `.invalid` leads nowhere by mistake.
const STAND_IN: &str = "https://login.loopback.invalid";

/// Why there is no token.
#[derive(Debug, Clone)]
pub(super) enum TokenFailure {
    Credentials(String),
    NoConsent(String),
    Blocked(String),
    Refused(String),
    Throttled(Option<Duration>),
    Unreachable(Arc<dyn Error + Send + Sync>),
}

impl TokenFailure {
    /// Whether only a person can mend it, so that asking again soon is of no use.
    pub(super) fn needs_a_person(&self) -> bool {
        match self {
            Self::Credentials(_) | Self::NoConsent(_) | Self::Blocked(_) | Self::Refused(_) => true,
            Self::Throttled(_) | Self::Unreachable(_) => false,
        }
    }
}

impl From<TokenFailure> for ReadError {
    fn from(failure: TokenFailure) -> Self {
        match failure {
            TokenFailure::Credentials(reason) => Self::Credentials { reason },
            TokenFailure::NoConsent(reason) => Self::NoConsent { reason },
            TokenFailure::Blocked(reason) => Self::Denied { reason },
            TokenFailure::Refused(reason) => Self::Refused { reason },
            TokenFailure::Throttled(retry_after) => Self::Throttled { retry_after },
            TokenFailure::Unreachable(cause) => Self::Unreachable(Box::new(cause)),
        }
    }
}

/// Options for a credential whose requests go through [`Road`].
pub(super) fn client_options(cloud: &Cloud, road: Arc<Road>) -> ClientOptions {
    let mut custom = CustomConfiguration::default();
    custom.authority_host = match cloud.plain_login() {
        Some(_) => STAND_IN.to_owned(),
        None => cloud.login_authority().to_string(),
    };
    ClientOptions {
        transport: Some(Transport::new(road)),
        // Repeating is the token keeper's business; a hidden retry would sleep inside a turn.
        retry: RetryOptions::none(),
        cloud: Some(Arc::new(custom.into())),
        ..ClientOptions::default()
    }
}

/// Carries azure_identity's requests.
#[derive(Debug)]
pub(super) struct Road {
    client: reqwest::Client,
    plain_login: Option<Url>,
    clock: RoadClock,
}

/// The clock, which does not print.
struct RoadClock(SharedClock);

impl std::fmt::Debug for RoadClock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("clock")
    }
}

impl Road {
    pub(super) fn new(client: reqwest::Client, cloud: &Cloud, clock: SharedClock) -> Self {
        Self { client, plain_login: cloud.plain_login().cloned(), clock: RoadClock(clock) }
    }

    fn destination(&self, asked: &Url) -> Url {
        let Some(login) = &self.plain_login else { return asked.clone() };
        let mut url = login.clone();
        url.set_path(asked.path());
        url.set_query(asked.query());
        url
    }

    async fn carry(&self, request: &Request) -> Result<AsyncRawResponse, LoginError> {
        let Body::Bytes(body) = request.body() else { return Err(LoginError::Shape) };
        let mut outgoing = self.client.post(self.destination(request.url())).body(body.clone());
        for (name, value) in request.headers().iter() {
            outgoing = outgoing.header(name.as_str(), value.as_str());
        }
        let answer =
            outgoing.send().await.map_err(|error| LoginError::NoAnswer(Arc::new(error.without_url())))?;
        let status = answer.status();
        let wait = answer.headers().get(reqwest::header::RETRY_AFTER).and_then(|value| value.to_str().ok());
        let retry_after = wait.and_then(|value| refusal::retry_after(value, self.clock.0.now()));
        let body =
            read_body(answer, LONGEST_ANSWER).await.map_err(|error| LoginError::Body(Arc::new(error)))?;
        if status.is_success() {
            Ok(AsyncRawResponse::from_bytes(status.as_u16().into(), Headers::new(), body))
        } else {
            Err(LoginError::Refused(LoginRefusal::read(status.as_u16(), &body, retry_after)))
        }
    }
}

#[async_trait]
impl HttpClient for Road {
    async fn execute_request(&self, request: &Request) -> azure_core::Result<AsyncRawResponse> {
        self.carry(request).await.map_err(|error| {
            azure_core::Error::with_error(ErrorKind::Other, error, "the login service gave no token")
        })
    }
}

/// What happened on the road.
#[derive(Debug, Clone, thiserror::Error)]
enum LoginError {
    #[error("the login request has an unexpected form")]
    Shape,
    #[error("the login service did not answer")]
    NoAnswer(#[source] Arc<reqwest::Error>),
    #[error("the login service's answer broke off")]
    Body(#[source] Arc<BodyError>),
    #[error(transparent)]
    Refused(LoginRefusal),
}

/// The login service's refusal, without its description: that names our application and the directory.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the login service answered {status} `{error}` ({})", self.reason())]
struct LoginRefusal {
    status: u16,
    error: String,
    number: Option<u64>,
    retry_after: Option<Duration>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct WireRefusal {
    error: String,
    error_codes: Vec<u64>,
}

impl LoginRefusal {
    fn read(status: u16, body: &[u8], retry_after: Option<Duration>) -> Self {
        let wire = serde_json::from_slice::<WireRefusal>(body).unwrap_or_default();
        let named = wire.error.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '_').take(60);
        Self { status, error: named.collect(), number: wire.error_codes.first().copied(), retry_after }
    }

    fn reason(&self) -> String {
        match self.number {
            Some(number) => format!("AADSTS{number}"),
            None if self.error.is_empty() => format!("HTTP {}", self.status),
            None => self.error.clone(),
        }
    }

    /// Microsoft asks not to rely on the numbers: `error` gives the class, and only well-known numbers refine it.
    /// What is not known is tried again, which harms nobody.
    fn classify(self) -> TokenFailure {
        let reason = self.reason();
        let passing = self.status == 429 || self.status >= 500 || self.error == "temporarily_unavailable";
        match self.number {
            Some(90033 | 50196) => self.into_passing(),
            _ if passing => self.into_passing(),
            // Not there, disabled, no service principal, no such tenant, no Graph in it, no consent.
            Some(700016 | 7000112 | 7000229 | 90002 | 500011 | 65001) => TokenFailure::NoConsent(reason),
            Some(53003 | 530003) => TokenFailure::Blocked(reason),
            Some(7000215 | 7000222 | 700027 | 700213 | 70021 | 700211) => TokenFailure::Credentials(reason),
            Some(900023) => TokenFailure::Refused(reason),
            _ => match self.error.as_str() {
                "invalid_client" => TokenFailure::Credentials(reason),
                "unauthorized_client" => TokenFailure::NoConsent(reason),
                "invalid_scope" | "unsupported_grant_type" => TokenFailure::Refused(reason),
                _ => self.into_passing(),
            },
        }
    }

    fn into_passing(self) -> TokenFailure {
        if self.status == 429 || self.retry_after.is_some() {
            TokenFailure::Throttled(self.retry_after)
        } else {
            TokenFailure::Unreachable(Arc::new(self))
        }
    }
}

/// Finds in azure's error what happened.
pub(super) fn classify(error: azure_core::Error) -> TokenFailure {
    let mut cause: Option<&(dyn Error + 'static)> = Some(&error);
    while let Some(found) = cause {
        if let Some(LoginError::Refused(refusal)) = found.downcast_ref::<LoginError>() {
            return refusal.clone().classify();
        }
        if let Some(on_the_road) = found.downcast_ref::<LoginError>() {
            return TokenFailure::Unreachable(Arc::new(on_the_road.clone()));
        }
        if let Some(proof) = found.downcast_ref::<ProofError>() {
            return TokenFailure::Credentials(proof.to_string());
        }
        cause = found.source();
    }
    // Neither ours nor a refusal: an answer that azure_identity could not read. Its text may quote the answer.
    TokenFailure::Unreachable(Arc::new(NotAToken))
}

/// An answer of the login service that holds no token.
#[derive(Debug, thiserror::Error)]
#[error("the login service's answer holds no token that can be used")]
pub(super) struct NotAToken;

impl From<NotAToken> for TokenFailure {
    fn from(error: NotAToken) -> Self {
        Self::Unreachable(Arc::new(error))
    }
}

#[cfg(test)]
mod tests {
    use super::{super::testing::fixture, *};

    #[test]
    fn every_known_refusal_of_a_token_is_told_apart() {
        let cases = fixture("token-errors.json");
        let cases = cases["cases"].as_array().unwrap();
        assert_eq!(cases.len(), 12);
        for case in cases {
            let (name, class) = (case["name"].as_str().unwrap(), case["class"].as_str().unwrap());
            let body = serde_json::to_vec(&case["body"]).unwrap();
            let wait = case["headers"]["Retry-After"].as_str().map(|text| text.parse().unwrap());
            let status = u16::try_from(case["status"].as_u64().unwrap()).unwrap();
            let failure = LoginRefusal::read(status, &body, wait.map(Duration::from_secs)).classify();
            let right = match (class, name) {
                // Our tenant ids are GUIDs, so this one would be a mistake of ours.
                ("config", "tenant id malformed") => matches!(failure, TokenFailure::Refused(_)),
                ("config", _) => matches!(failure, TokenFailure::Credentials(_)),
                ("tenant-disconnected", _) => matches!(failure, TokenFailure::NoConsent(_)),
                ("tenant-blocked", _) => matches!(failure, TokenFailure::Blocked(_)),
                ("bug", _) => matches!(failure, TokenFailure::Refused(_)),
                ("retry", _) => {
                    matches!(failure, TokenFailure::Throttled(Some(wait)) if wait == Duration::from_secs(5))
                }
                other => panic!("unknown class {other:?}"),
            };
            assert!(right, "{name}: {failure:?}");
        }
    }

    #[test]
    fn an_unknown_number_is_judged_by_its_error_and_an_unknown_error_is_tried_again() {
        let read = |body: &str| LoginRefusal::read(400, body.as_bytes(), None).classify();
        assert!(matches!(
            read(r#"{"error":"invalid_client","error_codes":[1]}"#),
            TokenFailure::Credentials(reason) if reason == "AADSTS1"
        ));
        assert!(matches!(read(r#"{"error":"brand_new"}"#), TokenFailure::Unreachable(_)));
        assert!(matches!(read("<html>"), TokenFailure::Unreachable(_)));
    }

    #[test]
    fn a_refusal_shows_its_code_and_not_its_description() {
        let body =
            br#"{"error":"invalid_client","error_codes":[7000222],"error_description":"of app 6d2f\r\n"}"#;
        let refusal = LoginRefusal::read(401, body, None);
        assert_eq!(refusal.to_string(), "the login service answered 401 `invalid_client` (AADSTS7000222)");
    }
}
