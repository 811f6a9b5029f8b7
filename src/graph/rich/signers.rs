//! Keys that the login service signs tokens with: found by its metadata, kept by their names, asked for again when a
//! token names one that is not known. Who wants a known one never waits for that.
//!
//! Only the worker that opens an item gets here, so that no notification makes the receiver ask anybody (I2). A token
//! can name any key; so that nobody makes us ask without end, it is asked once in five minutes at most, and what fails
//! counts. Without the key an item is not opened but fetched.
//! Facts: <https://learn.microsoft.com/entra/identity-platform/signing-key-rollover>.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use jsonwebtoken::DecodingKey;
use serde::{Deserialize, de::DeserializeOwned};
use tracing::{info, warn};
use url::Url;

use super::super::courier::{BodyError, read_body};
use crate::{chain::Chain, clock::SharedClock};

/// Where an unknown key's name leads to a new look, the last one has to be this long ago.
const NOT_AGAIN_WITHIN: SignedDuration = SignedDuration::from_mins(5);

/// Keys are not used longer than this without a new look: one that was withdrawn is not accepted for ever, even where
/// the looks fail.
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
    Body(#[source] BodyError),
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
    /// When they were looked up.
    since: Option<Timestamp>,
    /// When that was last tried.
    tried: Option<Timestamp>,
}

/// What is to be said of a key.
enum Answer {
    /// This key, or that there is none.
    Now(Option<Arc<DecodingKey>>),
    AfterALook,
}

impl Known {
    fn answer(&self, name: &str, now: Timestamp) -> Answer {
        let within = |at: Option<Timestamp>, long| at.is_some_and(|at| now.duration_since(at) < long);
        let key = self.keys.get(name).filter(|_| within(self.since, FRESH_FOR));
        if key.is_some() || within(self.tried, NOT_AGAIN_WITHIN) {
            Answer::Now(key.cloned())
        } else {
            Answer::AfterALook
        }
    }
}

/// The keys.
pub(super) struct Signers {
    client: reqwest::Client,
    metadata: Url,
    clock: SharedClock,
    known: Mutex<Known>,
    /// Held over a look: others who need one wait for it instead of asking too.
    looking: tokio::sync::Mutex<()>,
}

impl Signers {
    /// Keys of the login service at `authority`.
    pub(super) fn new(client: reqwest::Client, authority: &Url, clock: SharedClock) -> Self {
        let mut metadata = authority.clone();
        metadata.set_path("/common/v2.0/.well-known/openid-configuration");
        Self { client, metadata, clock, known: Mutex::default(), looking: tokio::sync::Mutex::default() }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer(&self, name: &str) -> Answer {
        self.known().answer(name, self.clock.now())
    }

    /// The key of this name.
    pub(super) async fn key(&self, name: &str) -> Option<Arc<DecodingKey>> {
        if let Answer::Now(key) = self.answer(name) {
            return key;
        }
        let _looking = self.looking.lock().await;
        if let Answer::Now(key) = self.answer(name) {
            return key;
        }
        let looked_up = self.look_up().await;
        let now = self.clock.now();
        let mut known = self.known();
        known.tried = Some(now);
        match looked_up {
            Ok(keys) => {
                info!(keys = keys.len(), "The login service's signing keys were looked up");
                known.keys = keys;
                known.since = Some(now);
            }
            Err(error) => warn!(
                error = %Chain(&error),
                "The login service's signing keys cannot be looked up: events that are sent along are fetched"
            ),
        }
        known.keys.get(name).filter(|_| known.since == Some(now)).cloned()
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Clock, ManualClock};

    #[test]
    fn a_key_is_used_for_a_day_and_looked_for_every_five_minutes_at_most() {
        let start: Timestamp = "2026-11-23T08:00:00Z".parse().unwrap();
        let keys = HashMap::from([("known".to_owned(), Arc::new(DecodingKey::from_secret(b"x")))]);
        let said = |name: &str, since: i64, tried: i64| {
            let ago = |minutes: i64| Some(start - SignedDuration::from_mins(minutes));
            let known = Known { keys: keys.clone(), since: ago(since), tried: ago(tried) };
            match known.answer(name, start) {
                Answer::Now(Some(_)) => "this",
                Answer::Now(None) => "none",
                Answer::AfterALook => "a look first",
            }
        };
        assert_eq!(said("known", 0, 0), "this");
        assert_eq!(said("known", 24 * 60 - 1, 24 * 60 - 1), "this");
        assert_eq!(said("known", 24 * 60, 24 * 60), "a look first");
        // The look failed: what may have been withdrawn is not used.
        assert_eq!(said("known", 24 * 60, 4), "none");
        assert_eq!(said("known", 24 * 60, 5), "a look first");
        // A look for another one that failed costs nothing.
        assert_eq!(said("known", 60, 4), "this");
        assert_eq!(said("other", 60, 4), "none");
        assert_eq!(said("other", 60, 5), "a look first");
        assert!(matches!(Known::default().answer("known", start), Answer::AfterALook));
    }

    #[tokio::test]
    async fn who_wants_a_known_key_does_not_wait_for_the_look_of_another() {
        let clock = ManualClock::at("2026-11-23T08:00:00Z".parse().unwrap());
        let nowhere = Url::parse("http://127.0.0.1:9").unwrap();
        let client = crate::graph::http_client(true).unwrap();
        let signers = Signers::new(client, &nowhere, Arc::clone(&clock) as SharedClock);
        let key = Arc::new(DecodingKey::from_secret(b"x"));
        *signers.known() =
            Known { keys: HashMap::from([("known".to_owned(), key)]), since: Some(clock.now()), tried: None };
        let _another_looks = signers.looking.lock().await;
        assert!(signers.key("known").await.is_some());
    }
}
