//! The smaller tables: `[keys]`, `[admin]`, `[queue]`, `[pbx]`, `[log]`.

use std::{ops::RangeInclusive, path::PathBuf, time::Duration};

use secrecy::SecretString;
use serde::{Deserialize, Deserializer};

use super::{
    layers::Checks,
    secret::{SecretError, read_secret},
    tokens::{self, AdminToken},
};

/// What the service signs with.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Keys {
    #[serde(deserialize_with = "optional_secret")]
    client_state: Option<SecretString>,
    #[serde(deserialize_with = "optional_path")]
    pub(super) client_state_file: Option<PathBuf>,
    #[serde(deserialize_with = "optional_secret")]
    client_state_previous: Option<SecretString>,
    #[serde(deserialize_with = "optional_path")]
    pub(super) client_state_previous_file: Option<PathBuf>,
}

impl Keys {
    /// The key of `clientState`; `None`: one is generated beside the store.
    ///
    /// # Errors
    /// Where its file cannot be read.
    pub fn client_state(&self) -> Result<Option<SecretString>, SecretError> {
        either("keys.client_state_file", self.client_state.as_ref(), self.client_state_file.as_ref())
    }

    /// The key before that, accepted until all subscriptions carry the new one.
    ///
    /// # Errors
    /// Where its file cannot be read.
    pub fn client_state_previous(&self) -> Result<Option<SecretString>, SecretError> {
        either(
            "keys.client_state_previous_file",
            self.client_state_previous.as_ref(),
            self.client_state_previous_file.as_ref(),
        )
    }

    pub(super) fn check(&self, checks: &mut Checks<'_>) {
        for (key, value, file) in [
            ("keys.client_state", &self.client_state, &self.client_state_file),
            ("keys.client_state_previous", &self.client_state_previous, &self.client_state_previous_file),
        ] {
            checks.secret(key, value.is_some(), file.is_some());
        }
    }
}

fn either(
    key: &str,
    value: Option<&SecretString>,
    file: Option<&PathBuf>,
) -> Result<Option<SecretString>, SecretError> {
    match (value, file) {
        (Some(value), _) => Ok(Some(value.clone())),
        (None, Some(path)) => read_secret(key, path).map(Some),
        (None, None) => Ok(None),
    }
}

/// The private side.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Admin {
    /// Where the token lies; absent: `admin.token` beside the store. Made at the first start.
    #[serde(deserialize_with = "optional_path")]
    pub token_file: Option<PathBuf>,
    /// Longest request body, bytes.
    pub max_body_bytes: usize,
    /// How many entries of the audit trail are kept.
    pub audit_entries: u64,
    /// Who else may ask, and for what.
    pub tokens: Vec<AdminToken>,
}

impl Admin {
    pub(super) fn check(&self, checks: &mut Checks<'_>) {
        checks.within(
            "admin.audit_entries",
            self.audit_entries,
            1_000..=10_000_000,
            "the oldest go first; an entry has about 200 bytes",
        );
        tokens::check(&self.tokens, checks);
    }
}

/// How the service works through what is due.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Queue {
    /// How many mailboxes have their turn at once.
    pub workers: usize,
    /// How many edges are held ahead of their time.
    pub ahead_most: usize,
    ahead_secs: u64,
    lease_secs: u64,
    read_within_secs: u64,
    retry_first_secs: u64,
    retry_max_secs: u64,
    park_secs: u64,
}

/// Seconds of a lease that are not counted on: its answer may have been on its way for so long.
const NOT_COUNTED_ON: u64 = 5;

/// Seconds that a lease lasts at least where a write may take `write`. Extended at every third of its length, it stands for two thirds
/// at least when a write begins, which is not begun unless it surely stands until the write's end; what is over is for a machine that
/// stalls.
fn shortest_lease(write: u64) -> u64 {
    let stands = write.saturating_add(NOT_COUNTED_ON).saturating_mul(3).div_ceil(2);
    stands.max(write.saturating_mul(2))
}

/// Seconds that a lease may last.
const LEASE_SECS: RangeInclusive<u64> = 10..=600;

impl Queue {
    /// After how long a turn that says nothing counts as lost.
    pub fn lease(&self) -> Duration {
        Duration::from_secs(self.lease_secs)
    }

    /// How early edges are taken; zero: when they are due.
    pub fn ahead(&self) -> Duration {
        Duration::from_secs(self.ahead_secs)
    }

    /// How long one mailbox may read its calendar in one go.
    pub fn read_within(&self) -> Duration {
        Duration::from_secs(self.read_within_secs)
    }

    /// Pause after the first failure; it doubles with each.
    pub fn retry_first(&self) -> Duration {
        Duration::from_secs(self.retry_first_secs)
    }

    /// Longest pause after failures.
    pub fn retry_max(&self) -> Duration {
        Duration::from_secs(self.retry_max_secs)
    }

    /// How rarely a parked mailbox is looked at again.
    pub fn park(&self) -> Duration {
        Duration::from_secs(self.park_secs)
    }

    pub(super) fn check(&self, pbx: &Pbx, checks: &mut Checks<'_>) {
        checks.within("queue.workers", self.workers as u64, 1..=1024, "each holds one mailbox at a time");
        checks.within(
            "queue.ahead_secs",
            self.ahead_secs,
            0..=60,
            "what a process that dies has taken on waits so long and longer; 0 takes none on",
        );
        checks.within(
            "queue.ahead_most",
            self.ahead_most as u64,
            1..=1_000_000,
            "each takes some kilobytes while it is held",
        );
        checks.within(
            "queue.lease_secs",
            self.lease_secs,
            LEASE_SECS,
            "a turn waits up to 30 s for an outside system",
        );
        let shortest = shortest_lease(pbx.timeout_secs);
        if LEASE_SECS.contains(&self.lease_secs) && self.lease_secs < shortest {
            let longest = (1..=pbx.timeout_secs).rev().find(|secs| shortest_lease(*secs) <= self.lease_secs);
            checks.refuse(
                "queue.lease_secs",
                "is too short for `pbx.timeout_secs`: a lease has to outlast a write to a PBX",
                format!(
                    "make it {shortest} at least, or `pbx.timeout_secs` {} at most",
                    longest.unwrap_or(1)
                ),
            );
        }
        checks.within(
            "queue.read_within_secs",
            self.read_within_secs,
            10..=3600,
            "Graph may take 90 s for one answer, and a first reading may take several",
        );
        checks.within(
            "queue.retry_first_secs",
            self.retry_first_secs,
            1..=300,
            "it doubles with each failure",
        );
        checks.within(
            "queue.retry_max_secs",
            self.retry_max_secs,
            1..=3600,
            "a mailbox must not be forgotten",
        );
        checks.within(
            "queue.park_secs",
            self.park_secs,
            300..=86_400,
            "Exchange remembers a refusal for half an hour and longer while it is asked",
        );
        if self.retry_max_secs < self.retry_first_secs {
            checks.refuse(
                "queue.retry_max_secs",
                "is shorter than `queue.retry_first_secs`",
                "make it the longer of the two",
            );
        }
    }
}

/// How PBXs are reached.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pbx {
    /// Whether a company's PBX may have a private or loopback address.
    pub allow_private_addresses: bool,
    timeout_secs: u64,
}

impl Pbx {
    /// How long a PBX may take for one answer.
    pub fn timeout(&self) -> Duration {
        Duration::from_secs(self.timeout_secs)
    }

    pub(super) fn check(&self, checks: &mut Checks<'_>) {
        checks.within("pbx.timeout_secs", self.timeout_secs, 1..=60, "it must end before the lease does");
    }
}

/// What the service tells.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Log {
    /// In which form.
    pub format: LogFormat,
    /// How much: a level, or filters as `info,narvaro::graph=debug`.
    pub level: String,
}

/// The form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl Log {
    pub(super) fn check(&self, checks: &mut Checks<'_>) {
        if let Err(error) = self.level.parse::<tracing_subscriber::filter::Targets>() {
            checks.refuse(
                "log.level",
                format!("cannot be `{}`: {error}", self.level),
                "use `error`, `warn`, `info`, `debug`, `trace`, or filters as `info,narvaro::graph=debug`",
            );
        }
    }
}

/// A path, or nothing where the text is empty.
pub(super) fn optional_path<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<PathBuf>, D::Error> {
    let text = String::deserialize(deserializer)?;
    Ok(Some(text).filter(|text| !text.is_empty()).map(PathBuf::from))
}

/// A secret, or nothing where the text is empty.
pub(super) fn optional_secret<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<SecretString>, D::Error> {
    let text = String::deserialize(deserializer)?;
    Ok(Some(text).filter(|text| !text.is_empty()).map(SecretString::from))
}
