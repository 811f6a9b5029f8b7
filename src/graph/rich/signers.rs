//! Keys that the login service signs tokens with: found by its metadata, kept by their names, asked for again when a
//! token names one that is not known.
//!
//! Only the worker that opens an item gets here, so that no notification makes the receiver ask anybody (I2). A token
//! can name any key; so that nobody makes us ask without end, it is asked once in five minutes at most, and what fails
//! counts. Without the key an item is not opened but fetched.
//! Facts: <https://learn.microsoft.com/entra/identity-platform/signing-key-rollover>.

use std::{collections::HashMap, sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use jsonwebtoken::DecodingKey;
use serde::{Deserialize, de::DeserializeOwned};
use tokio::sync::Mutex;
use tracing::{info, warn};
use url::Url;

use super::super::transport::read_body;
use crate::{chain::Chain, clock::SharedClock};

/// Where an unknown key's name leads to a new look, the last one has to be this long ago.
const NOT_AGAIN_WITHIN: SignedDuration = SignedDuration::from_mins(5);

/// Keys are looked up anew after this long: one that was withdrawn is not accepted for ever.
const FRESH_FOR: SignedDuration = SignedDuration::from_hours(24);

/// Metadata has about 2 KB, the keys about 10 KB.
const LONGEST_ANSWER: usize = 256 * 1024;

/// For each of the two answers: a turn is waiting.
const WITHIN: Duration = Duration::from_secs(10);

/// Why the keys are not to be had.
#[derive(Debug, thiserror::Error)]
enum LookUpError {
    #[error("the login service did not answer")]
    NoAnswer(#[source] reqwest::Error),
    #[error("the login service answered {0}")]
    Status(u16),
    #[error("the login service's answer did not arrive")]
    Body(#[source] super::super::transport::BodyError),
    #[error("the login service's answer was not understood")]
    Unreadable,
    #[error("the login service's metadata leads to an address that is not secure")]
    Insecure,
}

/// <https://learn.microsoft.com/entra/identity-platform/v2-protocols-oidc>
#[derive(Deserialize)]
struct Metadata {
    jwks_uri: Url,
}

#[derive(Deserialize)]
struct KeySet {
    keys: Vec<WireKey>,
}

/// Of other kinds than RSA, members are missing.
#[derive(Deserialize)]
struct WireKey {
    kid: Option<String>,
    n: Option<String>,
    e: Option<String>,
}

#[derive(Default)]
struct Known {
    keys: HashMap<String, Arc<DecodingKey>>,
    /// When they were last looked up, or tried to.
    tried: Option<Timestamp>,
}

/// The keys.
pub(super) struct Signers {
    client: reqwest::Client,
    metadata: Url,
    clock: SharedClock,
    known: Mutex<Known>,
}

impl Signers {
    /// Keys of the login service at `authority`.
    pub(super) fn new(client: reqwest::Client, authority: &Url, clock: SharedClock) -> Self {
        let mut metadata = authority.clone();
        metadata.set_path("/common/v2.0/.well-known/openid-configuration");
        Self { client, metadata, clock, known: Mutex::default() }
    }

    /// The key of this name.
    pub(super) async fn key(&self, name: &str) -> Option<Arc<DecodingKey>> {
        let now = self.clock.now();
        // Held over the look-up: others who want a key wait for it instead of asking too.
        let mut known = self.known.lock().await;
        let age = known.tried.map(|tried| now.duration_since(tried));
        let outdated = if known.keys.contains_key(name) { FRESH_FOR } else { NOT_AGAIN_WITHIN };
        if age.is_none_or(|age| age >= outdated) {
            known.tried = Some(now);
            match self.look_up().await {
                Ok(keys) => {
                    info!(keys = keys.len(), "The login service's signing keys were looked up");
                    known.keys = keys;
                }
                Err(error) => warn!(
                    error = %Chain(&error),
                    "The login service's signing keys cannot be looked up: events that are sent along are fetched"
                ),
            }
        }
        known.keys.get(name).cloned()
    }

    async fn look_up(&self) -> Result<HashMap<String, Arc<DecodingKey>>, LookUpError> {
        let Metadata { jwks_uri } = self.read(&self.metadata).await?;
        // It may be another host of the same login service, which only the metadata can tell.
        if jwks_uri.scheme() != "https" && jwks_uri.origin() != self.metadata.origin() {
            return Err(LookUpError::Insecure);
        }
        let KeySet { keys } = self.read(&jwks_uri).await?;
        let usable = keys.into_iter().filter_map(|key| {
            let decoding = DecodingKey::from_rsa_components(&key.n?, &key.e?).ok()?;
            Some((key.kid?, Arc::new(decoding)))
        });
        Ok(usable.collect())
    }

    async fn read<T: DeserializeOwned>(&self, url: &Url) -> Result<T, LookUpError> {
        let answer = self.client.get(url.clone()).timeout(WITHIN).send().await;
        let answer = answer.map_err(|error| LookUpError::NoAnswer(error.without_url()))?;
        if !answer.status().is_success() {
            return Err(LookUpError::Status(answer.status().as_u16()));
        }
        let body = read_body(answer, LONGEST_ANSWER).await.map_err(LookUpError::Body)?;
        serde_json::from_slice(&body).map_err(|_quotes_the_answer| LookUpError::Unreadable)
    }
}
