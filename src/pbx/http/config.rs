//! What is written about an HTTP target in a company's file, under `[pbx.http]`.
//!
//! Only the form is checked while it is read; [`HttpPbx::new`](super::HttpPbx::new) checks the meaning
//! and says in a [`ConfigError`] which key is wrong and what to write. Secrets are [`SecretString`]s: no
//! `Debug`, log line, error or dry run shows them.

use std::collections::BTreeMap;

use secrecy::SecretString;
use serde::Deserialize;

use crate::model::ProfileId;

/// A setting that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{key}`: {problem}")]
pub struct ConfigError {
    key: String,
    problem: String,
}

impl ConfigError {
    pub(super) fn new(key: impl Into<String>, problem: impl ToString) -> Self {
        Self { key: key.into(), problem: problem.to_string() }
    }

    /// The key, below `pbx.http`.
    pub fn key(&self) -> &str {
        &self.key
    }
}

/// One HTTP target: where it is, how it is told and what its answers mean.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpPbxConfig {
    /// Scheme, host, port and the beginning of every path.
    pub base_url: String,
    /// Whether `http://` is allowed: everything, credentials too, can then be read on the way.
    #[serde(default)]
    pub allow_plain_http: bool,
    /// The only certificates to be trusted, as PEM; those of the system where absent.
    #[serde(default)]
    pub ca_pem: Option<String>,
    /// IANA zone of `.local` times.
    #[serde(default = "utc")]
    pub time_zone: String,
    /// Longest text it shows, in characters.
    #[serde(default = "text_chars")]
    pub text_chars: usize,
    /// Longest wait for one answer, in seconds (1 to 30).
    #[serde(default = "timeout_secs")]
    pub timeout_secs: u64,
    /// Most requests at the same time (1 to 64).
    #[serde(default = "four")]
    pub concurrency: usize,
    /// Most attempts at one change before it goes back to the queue (1 to 10).
    #[serde(default = "attempts")]
    pub attempts: u32,
    /// When to leave a target that fails alone for a while.
    #[serde(default)]
    pub breaker: BreakerConfig,
    /// Header that carries the transition's id, the same on all attempts; empty: none.
    #[serde(default = "idempotency_header")]
    pub idempotency_header: String,
    /// How we identify ourselves.
    #[serde(default)]
    pub auth: AuthConfig,
    /// Standard Webhooks secrets, `whsec_…`; each adds a signature, so that they can be changed
    /// without a gap.
    #[serde(default)]
    pub signing_secrets: Vec<SecretString>,
    /// What a good answer is, where a request has no rule of its own.
    #[serde(default)]
    pub success: SuccessConfig,
    /// Looks up what the PBX itself calls the extension.
    #[serde(default)]
    pub find: Option<FindConfig>,
    /// Sets a profile.
    pub set: RequestConfig,
    /// Sets a profile of `clear_for`, in place of `set`.
    #[serde(default)]
    pub clear: Option<RequestConfig>,
    /// Profiles that `clear` is for.
    #[serde(default = "clear_for")]
    pub clear_for: Vec<ProfileId>,
    /// Puts a state back that was found; where absent, `clear` is sent instead.
    #[serde(default)]
    pub restore: Option<RequestConfig>,
    /// Reads what shows.
    #[serde(default)]
    pub read: Option<ReadConfig>,
    /// What `check` sends; where absent, a plain GET of `base_url`, whose status is only reported.
    #[serde(default)]
    pub check: Option<RequestConfig>,
}

/// A request as a set of templates (their writing is told in `template`). At most one body.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RequestConfig {
    /// HTTP method.
    pub method: Method,
    /// Path and query after `base_url`: a template.
    pub path: String,
    /// Header values: templates.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// A JSON body whose texts are templates.
    #[serde(default)]
    pub json: Option<serde_json::Value>,
    /// A form body whose values are templates.
    #[serde(default)]
    pub form: Option<BTreeMap<String, String>>,
    /// An XML body: a template.
    #[serde(default)]
    pub xml: Option<String>,
    /// What a good answer is.
    #[serde(default)]
    pub success: Option<SuccessConfig>,
}

/// Methods a request may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Method {
    /// `GET`
    Get,
    /// `POST`
    Post,
    /// `PUT`
    Put,
    /// `PATCH`
    Patch,
    /// `DELETE`
    Delete,
}

/// When an answer means that it is done.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SuccessConfig {
    /// Good statuses; empty: 200 to 299.
    pub status: Vec<u16>,
    /// JSON pointer into the answer: what is there must equal `equals`.
    pub pointer: Option<String>,
    /// The value of a good answer.
    pub equals: Option<serde_json::Value>,
    /// Values at `pointer` that mean the same as status 401: the token has run out.
    pub denied: Vec<serde_json::Value>,
    /// JSON pointer to the PBX's own words about a failure.
    pub message: Option<String>,
}

/// How the PBX's own name of an extension is looked up; kept until it proves wrong.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FindConfig {
    /// The request.
    pub request: RequestConfig,
    /// JSON pointer to a list in the answer, where it is one.
    #[serde(default)]
    pub list: Option<String>,
    /// JSON pointer, within an entry of the list, to what must equal the extension.
    #[serde(default)]
    pub key: Option<String>,
    /// Names for `{found.NAME}`, each with its JSON pointer (within the entry).
    pub values: BTreeMap<String, String>,
}

/// How what shows is read and understood.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReadConfig {
    /// The request.
    pub request: RequestConfig,
    /// The canonical fields.
    pub fields: BTreeMap<String, ReadField>,
    /// JSON pointer to the end that was set with it: RFC 3339 or seconds.
    #[serde(default)]
    pub until: Option<String>,
    /// Fields of a PBX that was never told anything; empty: cannot be told.
    #[serde(default)]
    pub default: BTreeMap<String, String>,
    /// How the profile is recognised.
    #[serde(default)]
    pub profile: Option<ReadProfile>,
}

/// One canonical field.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReadField {
    /// JSON pointer to it in the answer.
    pub pointer: String,
    /// What will be there once a profile is set: a template.
    pub shows: String,
    /// What it is.
    #[serde(default)]
    pub kind: FieldKind,
}

/// What a canonical field is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FieldKind {
    /// Text, compared as it is.
    #[default]
    Text,
    /// An instant, compared as such: RFC 3339 with any offset, or seconds.
    Instant,
}

/// How a canonical field tells the profile: by `map`, else by the one profile that has its value for
/// `term`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReadProfile {
    /// The canonical field.
    pub field: String,
    /// Its values, each with the profile it means.
    #[serde(default)]
    pub map: BTreeMap<String, ProfileId>,
    /// A name under `pbx.http` of the profiles.
    #[serde(default)]
    pub term: Option<String>,
}

/// When a target is left alone.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BreakerConfig {
    /// After so many failures in a row (1 to 100).
    pub failures: u32,
    /// For so long, in seconds (1 to 600); then one request tries.
    pub open_secs: u64,
}

impl Default for BreakerConfig {
    fn default() -> Self {
        Self { failures: 5, open_secs: 30 }
    }
}

/// How we identify ourselves.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum AuthConfig {
    /// Not at all.
    #[default]
    None,
    /// HTTP Basic.
    Basic {
        /// User.
        username: String,
        /// Password.
        password: SecretString,
    },
    /// A fixed bearer token.
    Bearer {
        /// The token.
        token: SecretString,
    },
    /// A fixed key.
    ApiKey {
        /// The key.
        key: SecretString,
        /// Where it goes.
        place: TokenPlace,
    },
    /// OAuth 2.0 client credentials (RFC 6749, 4.4), sent as a bearer token.
    Oauth2 {
        /// Absolute URL of the token endpoint.
        token_url: String,
        /// Client.
        client_id: String,
        /// Its secret.
        client_secret: SecretString,
        /// Scope.
        #[serde(default)]
        scope: Option<String>,
        /// Audience, where the endpoint wants one.
        #[serde(default)]
        audience: Option<String>,
        /// Whether client and secret go as HTTP Basic, not in the form.
        #[serde(default)]
        basic: bool,
    },
    /// A log-in of the PBX's own that gives a token.
    Login {
        /// Absolute URL.
        login_url: String,
        /// User.
        username: String,
        /// Password.
        password: SecretString,
        /// How they are sent.
        #[serde(default)]
        send: LoginForm,
        /// Headers of the log-in request.
        #[serde(default)]
        headers: BTreeMap<String, String>,
        /// JSON pointer to the token.
        token: String,
        /// JSON pointer to its life in seconds.
        #[serde(default)]
        expires_in: Option<String>,
        /// Its life in seconds where the answer does not tell.
        #[serde(default = "life_secs")]
        life_secs: u64,
        /// Where the token goes.
        place: TokenPlace,
    },
}

/// Where a key or token goes.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenPlace {
    /// Into a header of this name.
    Header(String),
    /// Into the query, under this name.
    Query(String),
}

/// How user and password are sent at a log-in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LoginForm {
    /// As `{"username": …, "password": …}`.
    #[default]
    Json,
    /// As HTTP Basic with an empty JSON object.
    Basic,
}

fn utc() -> String {
    "UTC".to_owned()
}

/// The shortest limit among the PBXs that name one (PortSIP's note).
fn text_chars() -> usize {
    128
}

fn timeout_secs() -> u64 {
    15
}

fn four() -> usize {
    4
}

fn attempts() -> u32 {
    4
}

fn idempotency_header() -> String {
    "Idempotency-Key".to_owned()
}

fn clear_for() -> Vec<ProfileId> {
    "available".parse().into_iter().collect()
}

fn life_secs() -> u64 {
    1_800
}
