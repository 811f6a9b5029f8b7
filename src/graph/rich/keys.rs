//! The certificates that events are sealed for: made here, kept in one file, replaced once a year.
//!
//! Nobody has to trust such a certificate, Graph only needs a public key in that form; so it is self-signed and names
//! nobody. A new one is used from the next renewal of each subscription on. One before it is kept for two days
//! more: a subscription with resource data lives for one day, and what could not be delivered is tried for four hours,
//! so that afterwards nothing can be sealed for it any more.
//!
//! Made at the first need, since most companies have their events fetched.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use aws_lc_rs::rsa::{OaepPrivateDecryptingKey, PrivateDecryptingKey};
use base64::{Engine, prelude::BASE64_STANDARD};
use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_RSA_SHA256, PublicKeyData, RsaKeySize};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::sync::Mutex;
use tracing::info;

use crate::{
    clock::SharedClock,
    config::{self, SecretError},
};

/// A certificate is used this long.
const USED_FOR: SignedDuration = SignedDuration::from_hours(365 * 24);

/// A key is kept this long after another has taken its place.
const KEPT_FOR: SignedDuration = SignedDuration::from_hours(48);

/// What the file is called in messages.
const FILE: &str = "encryption keys";

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file.
    #[error("the keys for events that are sent along cannot be kept")]
    File(#[source] SecretError),
    /// What stands in it.
    #[error("`{path}` does not hold keys as the service writes them")]
    Unreadable {
        /// Its path.
        path: PathBuf,
    },
    /// The cryptography refused.
    #[error("no key can be made")]
    NotMade,
}

/// A certificate as Graph is given it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct Certificate {
    /// Our name of it.
    pub(in super::super) id: String,
    /// X.509, base64.
    pub(in super::super) base64: String,
}

struct Key {
    made: Timestamp,
    certificate: Certificate,
    private: Arc<OaepPrivateDecryptingKey>,
    /// As it is kept.
    pkcs8: SecretString,
}

#[derive(Serialize, Deserialize)]
struct KeptKey {
    made: Timestamp,
    id: String,
    certificate: String,
    pkcs8: String,
}

/// All keys, the newest last.
pub(super) struct EncryptionKeys {
    path: PathBuf,
    clock: SharedClock,
    keys: Mutex<Vec<Key>>,
}

impl EncryptionKeys {
    /// The keys kept in `path`; none where there is no such file yet.
    ///
    /// # Errors
    /// [`KeyError`] where there is a file that cannot be read.
    pub(super) fn load(path: PathBuf, clock: SharedClock) -> Result<Self, KeyError> {
        let keys = if path.exists() { read(&path)? } else { Vec::new() };
        Ok(Self { path, clock, keys: Mutex::new(keys) })
    }

    /// The certificate to be used now; one is made where there is none, or where it has been used long enough.
    ///
    /// # Errors
    /// [`KeyError`] where it cannot be made or kept; nothing is used that is not kept.
    pub(super) async fn current(&self) -> Result<Certificate, KeyError> {
        let now = self.clock.now();
        let mut keys = self.keys.lock().await;
        if let Some(newest) = keys.last()
            && now.duration_since(newest.made) < USED_FOR
        {
            return Ok(newest.certificate.clone());
        }
        prune(&mut keys, now);
        let (path, before) = (self.path.clone(), keys.iter().map(Key::kept).collect());
        let made = tokio::task::spawn_blocking(move || make_and_keep(now, before, &path)).await;
        let made = made.map_err(|_panicked| KeyError::NotMade)??;
        let certificate = made.certificate.clone();
        keys.push(made);
        info!(certificate.id = certificate.id, "A certificate for events that are sent along was made");
        Ok(certificate)
    }

    /// The private key of a certificate by our name of it.
    pub(super) async fn private(&self, id: &str) -> Option<Arc<OaepPrivateDecryptingKey>> {
        let now = self.clock.now();
        let mut keys = self.keys.lock().await;
        prune(&mut keys, now);
        keys.iter().find(|key| key.certificate.id == id).map(|key| Arc::clone(&key.private))
    }
}

impl Key {
    fn kept(&self) -> KeptKey {
        let Certificate { id, base64 } = self.certificate.clone();
        KeptKey { made: self.made, id, certificate: base64, pkcs8: self.pkcs8.expose_secret().to_owned() }
    }

    fn from_kept(kept: KeptKey) -> Option<Self> {
        let KeptKey { made, id, certificate, pkcs8 } = kept;
        let private = private(&BASE64_STANDARD.decode(&pkcs8).ok()?)?;
        let certificate = Certificate { id, base64: certificate };
        Some(Self { made, certificate, private, pkcs8: pkcs8.into() })
    }
}

/// Drops keys that nothing can be sealed for any more. The file follows when the next one is made.
fn prune(keys: &mut Vec<Key>, now: Timestamp) {
    while keys.get(1).is_some_and(|next| now.duration_since(next.made) > KEPT_FOR) {
        keys.remove(0);
    }
}

fn make_and_keep(now: Timestamp, mut kept: Vec<KeptKey>, path: &Path) -> Result<Key, KeyError> {
    let made = make(now)?;
    kept.push(made.kept());
    let text = serde_json::to_string_pretty(&kept).map_err(|_| KeyError::NotMade)?;
    config::replace_secret(FILE, path, &text.into()).map_err(KeyError::File)?;
    Ok(made)
}

fn read(path: &Path) -> Result<Vec<Key>, KeyError> {
    let text = config::read_secret(FILE, path).map_err(KeyError::File)?;
    let unreadable = || KeyError::Unreadable { path: path.to_owned() };
    // The reason would quote the file.
    let kept: Vec<KeptKey> =
        serde_json::from_str(text.expose_secret()).map_err(|_quotes_the_keys| unreadable())?;
    kept.into_iter().map(|key| Key::from_kept(key).ok_or_else(unreadable)).collect()
}

fn private(pkcs8: &[u8]) -> Option<Arc<OaepPrivateDecryptingKey>> {
    let key = PrivateDecryptingKey::from_pkcs8(pkcs8).ok()?;
    OaepPrivateDecryptingKey::new(key).ok().map(Arc::new)
}

/// RSA with 2,048 bits: what Microsoft documents, and enough for a key that is used for a year.
fn make(now: Timestamp) -> Result<Key, KeyError> {
    let pair =
        KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).map_err(|_| KeyError::NotMade)?;
    let id: String = Sha256::digest(pair.der_bytes()).iter().take(16).map(|b| format!("{b:02x}")).collect();
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    // Valid from the day before, for clocks that differ, until well after it is used.
    let midnight = |at: Timestamp| {
        let date = at.to_zoned(TimeZone::UTC).date();
        rcgen::date_time_ymd(date.year().into(), date.month().unsigned_abs(), date.day().unsigned_abs())
    };
    params.not_before = midnight(now - SignedDuration::from_hours(24));
    params.not_after = midnight(now + USED_FOR * 2);
    let signed = params.self_signed(&pair).map_err(|_| KeyError::NotMade)?;
    let pkcs8 = pair.serialize_der();
    Ok(Key {
        made: now,
        certificate: Certificate { id, base64: BASE64_STANDARD.encode(signed.der()) },
        private: private(&pkcs8).ok_or(KeyError::NotMade)?,
        pkcs8: BASE64_STANDARD.encode(pkcs8).into(),
    })
}

#[cfg(test)]
mod tests {
    use crate::clock::ManualClock;

    use super::*;

    fn keys(path: &Path, clock: &Arc<ManualClock>) -> EncryptionKeys {
        EncryptionKeys::load(path.to_owned(), Arc::clone(clock) as SharedClock).unwrap()
    }

    #[tokio::test]
    async fn a_certificate_is_used_for_a_year_and_its_key_kept_two_days_more() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("encryption.keys");
        let made: Timestamp = "2026-11-23T08:00:00Z".parse().unwrap();
        let clock = ManualClock::at(made);
        let all = keys(&path, &clock);
        assert!(!path.exists(), "nothing is made before it is needed");
        let first = all.current().await.unwrap();
        clock.advance_to(made + USED_FOR - SignedDuration::from_secs(1));
        assert_eq!(all.current().await.unwrap(), first);
        clock.advance_to(made + USED_FOR);
        let second = all.current().await.unwrap();
        assert_ne!(first.id, second.id);
        // Started anew, it is the same.
        for all in [&all, &keys(&path, &clock)] {
            assert_eq!(all.current().await.unwrap(), second);
            assert!(all.private(&first.id).await.is_some());
            assert!(all.private(&second.id).await.is_some());
            assert!(all.private("another").await.is_none());
        }
        clock.advance_to(made + USED_FOR + KEPT_FOR + SignedDuration::from_secs(1));
        assert!(all.private(&first.id).await.is_none());
        assert!(all.private(&second.id).await.is_some());
    }

    #[tokio::test]
    async fn only_the_services_account_can_read_the_keys_and_a_damaged_file_is_told() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("encryption.keys");
        let clock = ManualClock::at("2026-11-23T08:00:00Z".parse().unwrap());
        keys(&path, &clock).current().await.unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::write(&path, "[{}]").unwrap();
        let load = EncryptionKeys::load(path, Arc::clone(&clock) as SharedClock);
        assert!(matches!(load, Err(KeyError::Unreadable { .. })));
    }
}
