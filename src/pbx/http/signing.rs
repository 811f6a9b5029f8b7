//! Signatures of what we send, after [Standard Webhooks](https://www.standardwebhooks.com/) 1.0, for receivers
//! that an operator writes.
//!
//! Symmetric signatures only (`v1`). A receiver checks one of them in constant time and that the time is
//! within five minutes.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use secrecy::{ExposeSecret, SecretSlice, SecretString};
use sha2::Sha256;

use super::config::ConfigError;

/// The keys: the newest first, older ones while receivers still use them.
#[derive(Debug)]
pub(super) struct Signer {
    keys: Vec<SecretSlice<u8>>,
}

impl Signer {
    /// `None` where there are no secrets.
    pub(super) fn new(secrets: &[SecretString]) -> Result<Option<Self>, ConfigError> {
        let key = |(i, secret): (usize, &SecretString)| {
            let wrong = |problem| ConfigError::new(format!("signing_secrets[{i}]"), problem);
            let text = secret.expose_secret().strip_prefix("whsec_");
            let text = text.ok_or_else(|| wrong("begins with `whsec_`, followed by base64"))?;
            let key = STANDARD.decode(text).map_err(|_| wrong("is not base64 after `whsec_`"))?;
            if !(24..=64).contains(&key.len()) {
                return Err(wrong("holds a key of 24 to 64 bytes"));
            }
            Ok(SecretSlice::from(key))
        };
        let keys: Vec<_> = secrets.iter().enumerate().map(key).collect::<Result<_, _>>()?;
        Ok((!keys.is_empty()).then_some(Self { keys }))
    }

    /// The value of `webhook-signature`.
    pub(super) fn sign(&self, id: &str, unix_secs: i64, body: &[u8]) -> String {
        let signature = |key: &SecretSlice<u8>| {
            let mut mac = Hmac::<Sha256>::new_from_slice(key.expose_secret()).ok()?;
            mac.update(format!("{id}.{unix_secs}.").as_bytes());
            mac.update(body);
            Some(format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes())))
        };
        self.keys.iter().filter_map(signature).collect::<Vec<_>>().join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

    fn signer(secrets: &[&str]) -> Result<Option<Signer>, ConfigError> {
        Signer::new(&secrets.iter().map(|secret| SecretString::from(*secret)).collect::<Vec<_>>())
    }

    #[test]
    fn the_published_example_is_signed_as_published() {
        let signature = signer(&[SECRET]).unwrap().unwrap().sign(
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            1_614_265_330,
            br#"{"test": 2432232314}"#,
        );
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn each_key_signs_while_keys_are_changed() {
        let other = format!("whsec_{}", STANDARD.encode([7; 32]));
        let signature = signer(&[SECRET, &other]).unwrap().unwrap().sign("id", 1, b"{}");
        let (first, second) = signature.split_once(' ').unwrap();
        assert_eq!(first, signer(&[SECRET]).unwrap().unwrap().sign("id", 1, b"{}"));
        assert_eq!(second, signer(&[&other]).unwrap().unwrap().sign("id", 1, b"{}"));
    }

    #[test]
    fn a_secret_that_is_none_is_refused_without_being_shown() {
        for secret in ["MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_***", "whsec_c2hvcnQ="] {
            let error = signer(&["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", secret]).unwrap_err();
            assert_eq!(error.key(), "signing_secrets[1]");
            assert!(!error.to_string().contains(secret));
        }
        assert!(signer(&[]).unwrap().is_none());
    }
}
