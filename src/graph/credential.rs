//! How our application proves itself to the login service: a secret, a certificate, or another platform's token.
//!
//! Why not azure_identity's own certificate credential: it needs openssl, and signs RS256 with a SHA-1
//! thumbprint. Here its assertion credential is given an assertion that we sign, PS256 with `x5t#S256`.
//! Why not its workload identity credential: it keeps the token file's text for ten minutes; a projected token
//! that was just rotated must be read anew.
//! Facts: <https://learn.microsoft.com/entra/identity-platform/certificate-credentials>.

use std::{fmt, path::PathBuf, sync::Arc};

use async_trait::async_trait;
use azure_core::{credentials::TokenCredential, error::ErrorKind, http::ClientOptions};
use azure_identity::{
    ClientAssertion, ClientAssertionCredential, ClientAssertionCredentialOptions, ClientSecretCredential,
    ClientSecretCredentialOptions,
};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use jiff::Timestamp;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, crypto};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use sha2::{Digest, Sha256};
use url::Url;

use crate::clock::SharedClock;

/// How long an assertion is good for, in seconds. It is made for one request; ten minutes forgive a slow clock.
const ASSERTION_LIFE_SECS: i64 = 600;

/// What our application proves itself with.
#[derive(Debug, Clone)]
pub enum AppCredential {
    /// A client secret: its value, not its id.
    Secret(SecretString),
    /// A certificate that is registered with the application, and its RSA key.
    Certificate {
        /// The certificate as PEM; the first one in the text counts.
        cert_pem: String,
        /// Its private key as PEM.
        key_pem: SecretString,
    },
    /// A token of another platform that is trusted as a federated credential.
    WorkloadIdentity {
        /// The file that the platform keeps fresh; read for each login.
        token_file: PathBuf,
    },
}

/// A credential that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// Not a certificate in PEM.
    #[error("the application's certificate is not PEM text with a certificate in it")]
    Certificate,
    /// Not an RSA key in PEM.
    #[error("the application's key is not an RSA private key in PEM")]
    Key(#[source] jsonwebtoken::errors::Error),
    /// The key belongs to another certificate, or the certificate's is not RSA.
    #[error("the application's certificate and key do not belong together")]
    Mismatch,
    /// An empty secret.
    #[error("the application's secret is empty")]
    EmptySecret,
}

impl AppCredential {
    /// When it stops working, where it tells: a certificate does.
    pub fn expires(&self) -> Option<Timestamp> {
        let Self::Certificate { cert_pem, .. } = self else { return None };
        let der = CertificateDer::from_pem_slice(cert_pem.as_bytes()).ok()?;
        let (_, certificate) = x509_parser::parse_x509_certificate(&der).ok()?;
        Timestamp::from_second(certificate.validity().not_after.timestamp()).ok()
    }
}

/// A credential that has been looked at.
#[derive(Clone)]
pub(super) enum Proof {
    Secret(SecretString),
    Certificate(Arc<CertificateKey>),
    TokenFile(Arc<PathBuf>),
}

/// A certificate's key, ready to sign.
pub(super) struct CertificateKey {
    key: EncodingKey,
    /// SHA-256 of the certificate's DER form, base64url.
    thumbprint: String,
}

impl CertificateKey {
    fn new(cert_pem: &str, key_pem: &SecretString) -> Result<Self, CredentialError> {
        let certificate = CertificateDer::from_pem_slice(cert_pem.as_bytes())
            .map_err(|_no_detail_worth_showing| CredentialError::Certificate)?;
        let thumbprint = BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(&certificate));
        let key = EncodingKey::from_rsa_pem(key_pem.expose_secret().as_bytes());
        let key = Self { key: key.map_err(CredentialError::Key)?, thumbprint };
        key.try_against(cert_pem)?;
        Ok(key)
    }

    /// Signs something and lets the certificate judge it.
    fn try_against(&self, cert_pem: &str) -> Result<(), CredentialError> {
        let trial = b"narvaro";
        let signature = crypto::sign(trial, &self.key, Algorithm::PS256).map_err(CredentialError::Key)?;
        let judge = DecodingKey::from_rsa_pem(cert_pem.as_bytes());
        let judge = judge.map_err(|_not_rsa| CredentialError::Mismatch)?;
        match crypto::verify(&signature, trial, &judge, Algorithm::PS256) {
            Ok(true) => Ok(()),
            Ok(false) | Err(_) => Err(CredentialError::Mismatch),
        }
    }
}

impl Proof {
    /// Looks at a credential, so that a mistake shows at the start and not at the first login.
    pub(super) fn new(credential: AppCredential) -> Result<Self, CredentialError> {
        match credential {
            AppCredential::Secret(secret) if secret.expose_secret().trim().is_empty() => {
                Err(CredentialError::EmptySecret)
            }
            AppCredential::Secret(secret) => Ok(Self::Secret(secret)),
            AppCredential::Certificate { cert_pem, key_pem } => {
                Ok(Self::Certificate(Arc::new(CertificateKey::new(&cert_pem, &key_pem)?)))
            }
            AppCredential::WorkloadIdentity { token_file } => Ok(Self::TokenFile(Arc::new(token_file))),
        }
    }

    /// A credential for one tenant and one login: azure_identity's own cache cannot be told to forget.
    pub(super) fn credential(
        &self,
        tenant: &str,
        client_id: &str,
        audience: &Url,
        clock: &SharedClock,
        client_options: ClientOptions,
    ) -> azure_core::Result<Arc<dyn TokenCredential>> {
        let client_id = client_id.to_owned();
        match self {
            Self::Secret(secret) => {
                let secret = secret.expose_secret().to_owned().into();
                let options = ClientSecretCredentialOptions { client_options };
                Ok(ClientSecretCredential::new(tenant, client_id, secret, Some(options))?)
            }
            Self::Certificate(key) => {
                let assertion = SignedAssertion {
                    key: Arc::clone(key),
                    client_id: client_id.clone(),
                    audience: audience.to_string(),
                    clock: Arc::clone(clock),
                };
                let options = ClientAssertionCredentialOptions { client_options };
                Ok(ClientAssertionCredential::new(tenant.to_owned(), client_id, assertion, Some(options))?)
            }
            Self::TokenFile(path) => {
                let assertion = TokenFile { path: Arc::clone(path) };
                let options = ClientAssertionCredentialOptions { client_options };
                Ok(ClientAssertionCredential::new(tenant.to_owned(), client_id, assertion, Some(options))?)
            }
        }
    }
}

/// An assertion signed with our certificate's key, for one tenant.
struct SignedAssertion {
    key: Arc<CertificateKey>,
    client_id: String,
    audience: String,
    clock: SharedClock,
}

impl fmt::Debug for SignedAssertion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignedAssertion").field("audience", &self.audience).finish_non_exhaustive()
    }
}

#[derive(Serialize)]
struct Claims<'a> {
    aud: &'a str,
    iss: &'a str,
    sub: &'a str,
    jti: String,
    nbf: i64,
    iat: i64,
    exp: i64,
}

#[async_trait]
impl ClientAssertion for SignedAssertion {
    async fn secret(
        &self,
        _: Option<azure_core::http::ClientMethodOptions<'_>>,
    ) -> azure_core::Result<String> {
        let now = self.clock.now().as_second();
        let mut header = Header::new(Algorithm::PS256);
        header.x5t_s256 = Some(self.key.thumbprint.clone());
        let claims = Claims {
            aud: &self.audience,
            iss: &self.client_id,
            sub: &self.client_id,
            jti: azure_core::Uuid::new_v4().to_string(),
            nbf: now,
            iat: now,
            exp: now + ASSERTION_LIFE_SECS,
        };
        jsonwebtoken::encode(&header, &claims, &self.key.key).map_err(|error| {
            azure_core::Error::with_error(ErrorKind::Credential, ProofError::Signing(error), "no assertion")
        })
    }
}

/// The token that the platform we run on keeps in a file.
#[derive(Debug)]
struct TokenFile {
    path: Arc<PathBuf>,
}

#[async_trait]
impl ClientAssertion for TokenFile {
    async fn secret(
        &self,
        _: Option<azure_core::http::ClientMethodOptions<'_>>,
    ) -> azure_core::Result<String> {
        match tokio::fs::read_to_string(self.path.as_path()).await {
            Ok(token) => Ok(token.trim().to_owned()),
            Err(error) => Err(azure_core::Error::with_error(
                ErrorKind::Credential,
                ProofError::TokenFile(error),
                "no assertion",
            )),
        }
    }
}

/// Why there was nothing to prove ourselves with, before the login service was asked.
#[derive(Debug, thiserror::Error)]
pub(super) enum ProofError {
    #[error("the client assertion cannot be signed")]
    Signing(#[source] jsonwebtoken::errors::Error),
    #[error("the workload identity's token file cannot be read")]
    TokenFile(#[source] std::io::Error),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_certificate_key_or_secret_is_found_at_the_start() {
        let (cert_pem, key_pem) = super::super::testing::certificate();
        let proof = |cert: &str, key: &str| {
            Proof::new(AppCredential::Certificate { cert_pem: cert.to_owned(), key_pem: key.into() })
        };
        assert!(proof(&cert_pem, &key_pem).is_ok());
        assert!(matches!(proof("nonsense", &key_pem), Err(CredentialError::Certificate)));
        assert!(matches!(proof(&cert_pem, &cert_pem), Err(CredentialError::Key(_))));
        let (another, _) = super::super::testing::certificate();
        assert!(matches!(proof(&another, &key_pem), Err(CredentialError::Mismatch)));
        assert!(matches!(Proof::new(AppCredential::Secret(" ".into())), Err(CredentialError::EmptySecret)));
    }

    #[test]
    fn a_credential_never_prints_its_secrets() {
        let secret = AppCredential::Secret("hunter2".into());
        assert!(!format!("{secret:?}").contains("hunter2"));
        let (cert_pem, key_pem) = super::super::testing::certificate();
        let inside = key_pem.lines().nth(1).unwrap().to_owned();
        let certificate = AppCredential::Certificate { cert_pem, key_pem: key_pem.into() };
        assert!(!format!("{certificate:?}").contains(&inside));
    }
}
