//! `[graph]`: which cloud, which application, with which credential.

use std::path::PathBuf;

use jiff::civil::Date;
use secrecy::SecretString;
use serde::{Deserialize, Deserializer, de::Error};
use url::Url;

use super::{
    layers::Checks,
    process::{optional_path, optional_secret},
    secret::{SecretError, read_secret},
    webhook::{optional_url, refuse_unsafe},
};

/// How Microsoft 365 is reached.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Graph {
    /// Application (client) id of the app registration, a GUID.
    #[serde(deserialize_with = "client_id")]
    pub client_id: Option<String>,
    /// Which cloud.
    pub cloud: Cloud,
    /// Base address of Graph, without version; only with `cloud = "custom"`.
    #[serde(deserialize_with = "optional_url")]
    graph_base: Option<Url>,
    /// Address of the login service, without tenant; only with `cloud = "custom"`.
    #[serde(deserialize_with = "optional_url")]
    login_authority: Option<Url>,
    /// Whether plain http is allowed towards this machine itself.
    pub allow_plain_http_loopback: bool,
    #[serde(deserialize_with = "optional_secret")]
    client_secret: Option<SecretString>,
    #[serde(deserialize_with = "optional_path")]
    pub(super) client_secret_file: Option<PathBuf>,
    /// The day on which the client secret stops working, as far as the operator has written it down.
    #[serde(deserialize_with = "optional_date")]
    pub client_secret_expires: Option<Date>,
    #[serde(deserialize_with = "optional_path")]
    pub(super) certificate_file: Option<PathBuf>,
    #[serde(deserialize_with = "optional_path")]
    pub(super) key_file: Option<PathBuf>,
    #[serde(deserialize_with = "optional_path")]
    pub(super) workload_identity_token_file: Option<PathBuf>,
}

/// One of Microsoft's clouds; tokens, registrations and consents hold within one only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cloud {
    /// The worldwide one, and GCC.
    Global,
    /// US government, GCC High (L4).
    UsGccHigh,
    /// US government, DoD (L5).
    UsDod,
    /// China, operated by 21Vianet.
    China,
    /// Addresses given by hand.
    Custom,
}

/// Where Graph and the login service are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoints {
    /// Base address of Graph, without version.
    pub graph_base: Url,
    /// Address of the login service, without tenant.
    pub login_authority: Url,
}

/// What proves to the login service that we are the application.
#[derive(Debug, Clone)]
pub enum Credential {
    /// A client secret.
    Secret(SecretString),
    /// A certificate and its private key, both PEM.
    Certificate {
        /// The certificate that the app registration knows.
        certificate_pem: SecretString,
        /// Its key.
        key_pem: SecretString,
    },
    /// A token of another identity provider, read anew for each exchange since it is replaced on disk.
    WorkloadIdentity {
        /// Where it lies.
        token_file: PathBuf,
    },
}

impl Graph {
    /// The addresses of the configured cloud.
    ///
    /// With `custom` both are present: a configuration without them does not load.
    pub fn endpoints(&self) -> Endpoints {
        let (graph, login) = match self.cloud {
            Cloud::Global | Cloud::Custom => {
                ("https://graph.microsoft.com", "https://login.microsoftonline.com")
            }
            Cloud::UsGccHigh => ("https://graph.microsoft.us", "https://login.microsoftonline.us"),
            Cloud::UsDod => ("https://dod-graph.microsoft.us", "https://login.microsoftonline.us"),
            Cloud::China => ("https://microsoftgraph.chinacloudapi.cn", "https://login.chinacloudapi.cn"),
        };
        Endpoints {
            graph_base: self.graph_base.clone().unwrap_or_else(|| constant(graph)),
            login_authority: self.login_authority.clone().unwrap_or_else(|| constant(login)),
        }
    }

    /// The credential, read now from where it lies; `None` where none is configured.
    ///
    /// # Errors
    /// Where a file cannot be read.
    pub fn credential(&self) -> Result<Option<Credential>, SecretError> {
        if let Some(secret) = &self.client_secret {
            return Ok(Some(Credential::Secret(secret.clone())));
        }
        if let Some(path) = &self.client_secret_file {
            return read_secret("graph.client_secret_file", path).map(Credential::Secret).map(Some);
        }
        if let (Some(certificate), Some(key)) = (&self.certificate_file, &self.key_file) {
            return Ok(Some(Credential::Certificate {
                certificate_pem: read_secret("graph.certificate_file", certificate)?,
                key_pem: read_secret("graph.key_file", key)?,
            }));
        }
        let Some(path) = &self.workload_identity_token_file else { return Ok(None) };
        // Read only to tell whether it can be read.
        read_secret("graph.workload_identity_token_file", path)?;
        Ok(Some(Credential::WorkloadIdentity { token_file: path.clone() }))
    }

    pub(super) fn check(&self, checks: &mut Checks<'_>) {
        self.check_addresses(checks);
        self.check_credential(checks);
    }

    fn check_addresses(&self, checks: &mut Checks<'_>) {
        for (key, url) in
            [("graph.graph_base", &self.graph_base), ("graph.login_authority", &self.login_authority)]
        {
            match (self.cloud, url) {
                (Cloud::Custom, Some(url)) => refuse_unsafe(checks, key, url, self.allow_plain_http_loopback),
                (Cloud::Custom, None) => {
                    checks.refuse(
                        key,
                        "is not set, and `graph.cloud` is `custom`",
                        "give both addresses, or name a cloud",
                    );
                }
                (_, Some(_)) => checks.refuse(
                    key,
                    "is set, and `graph.cloud` names one of Microsoft's clouds",
                    "set `graph.cloud = \"custom\"`, or remove the address",
                ),
                (_, None) => {}
            }
        }
    }

    fn check_credential(&self, checks: &mut Checks<'_>) {
        if checks.stands_in_file("graph.client_secret") && self.client_secret.is_some() {
            checks.refuse(
                "graph.client_secret",
                "is a secret, and this file is none",
                "write it into a file and name that as `graph.client_secret_file`, or set `NARVARO__GRAPH__CLIENT_SECRET`",
            );
        }
        let given: Vec<&str> = [
            ("graph.client_secret", self.client_secret.is_some()),
            ("graph.client_secret_file", self.client_secret_file.is_some()),
            ("graph.certificate_file", self.certificate_file.is_some() || self.key_file.is_some()),
            ("graph.workload_identity_token_file", self.workload_identity_token_file.is_some()),
        ]
        .into_iter()
        .filter_map(|(key, given)| given.then_some(key))
        .collect();
        if let [first, second, ..] = given[..] {
            checks.refuse(
                second,
                format!("is set, and so is `{first}`"),
                "keep one: the service proves itself in one way",
            );
        }
        let secret = self.client_secret.is_some() || self.client_secret_file.is_some();
        if self.client_secret_expires.is_some() && !secret && !given.is_empty() {
            checks.refuse(
                "graph.client_secret_expires",
                "is set, and the service proves itself with no client secret",
                "remove it: the end of a certificate is read from the certificate",
            );
        }
        match (&self.certificate_file, &self.key_file) {
            (Some(_), None) => checks.refuse(
                "graph.key_file",
                "is not set, and `graph.certificate_file` is",
                "name the file with the certificate's private key (PEM)",
            ),
            (None, Some(_)) => checks.refuse(
                "graph.certificate_file",
                "is not set, and `graph.key_file` is",
                "name the file with the certificate (PEM)",
            ),
            _ => {}
        }
    }
}

#[expect(clippy::expect_used, reason = "the addresses are constants of this file, and a test reads them all")]
fn constant(address: &'static str) -> Url {
    Url::parse(address).expect("the address is a constant")
}

/// A day, or nothing where the text is empty.
fn optional_date<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Date>, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text.is_empty() {
        return Ok(None);
    }
    text.parse()
        .map(Some)
        .map_err(|_| D::Error::custom(format_args!("`{text}` is no day: write it as `2027-01-31`")))
}

fn client_id<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let text = String::deserialize(deserializer)?.to_lowercase();
    if text.is_empty() {
        return Ok(None);
    }
    match text.parse::<crate::model::TenantId>() {
        Ok(_) => Ok(Some(text)),
        Err(_) => Err(D::Error::custom(format_args!(
            "`{text}` is no application id: copy `Application (client) ID` from the app registration, a GUID"
        ))),
    }
}
