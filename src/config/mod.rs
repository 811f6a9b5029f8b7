//! What the process is told at its start: defaults, one file, the environment; later ones win, key by key.
//!
//! `defaults.toml` is embedded and is the reference: every key stands in it with its meaning above it. The
//! environment form of `webhook.public_url` is `NARVARO__WEBHOOK__PUBLIC_URL`. A key that does not exist, a
//! value that cannot be meant and two keys that exclude each other are refused with file, line, key and
//! remedy ([`Finding`]), all of them at once where the file can be read at all.
//!
//! This module is the only one that reads the environment and the files that an operator writes; the text of
//! a company file is read here too ([`Document`]), so that both kinds of file fail in the same words. Relative
//! paths count from the folder of the configuration file, without one from the working folder.
//!
//! Why no layer library: merging three tables is a dozen lines, and none of the libraries can still say which
//! line of which file a value came from.

mod document;
mod environment;
mod finding;
mod graph;
mod layers;
mod listen;
mod process;
mod redis_url;
mod secret;
mod store;
mod sweep;
mod tokens;
mod webhook;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use serde::Deserialize;

pub use document::Document;
pub(crate) use document::read as read_table;
pub use environment::Environment;
pub use finding::{Finding, Findings};
pub use graph::{Cloud, Credential, Endpoints, Graph};
pub use listen::Listen;
pub use process::{Admin, Keys, Log, LogFormat, Pbx, Queue};
pub use redis_url::RedisUrl;
pub use secret::{SecretError, SecretRef, read_or_create_secret, read_secret, replace_secret};
pub use store::{Store, StoreUrl};
pub use sweep::Sweep;
pub use tokens::{AdminToken, FIRST_TOKEN, Role};
pub use webhook::Webhook;

use layers::{Checks, Layers};

/// The reference: every key, its meaning, its default.
pub const DEFAULTS: &str = include_str!("defaults.toml");

/// All that the process is told.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where it listens.
    pub listen: Listen,
    /// What Microsoft 365 calls.
    pub webhook: Webhook,
    /// Where it keeps things.
    pub store: Store,
    /// How it reaches Microsoft 365.
    pub graph: Graph,
    /// What it signs with.
    pub keys: Keys,
    /// The private side.
    pub admin: Admin,
    /// How it works.
    pub queue: Queue,
    /// How often it looks for what was not announced.
    pub sweep: Sweep,
    /// How it reaches PBXs.
    pub pbx: Pbx,
    /// What it tells.
    pub log: Log,
    /// The file that was read, for messages.
    #[serde(skip)]
    file: Option<PathBuf>,
}

impl Config {
    /// Reads the configuration. Without `path`, `NARVARO_CONFIG` names the file; without that, `narvaro.toml` in the
    /// working folder is read if it is there.
    ///
    /// # Errors
    /// Every place that does not hold, with its remedy.
    pub fn load(path: Option<&Path>, environment: &Environment) -> Result<Self, Findings> {
        let path = match (path, environment.get("NARVARO_CONFIG")) {
            (Some(path), _) => Some(path.to_owned()),
            (None, Some(path)) => Some(PathBuf::from(path)),
            (None, None) => Some(PathBuf::from("narvaro.toml")).filter(|usual| usual.exists()),
        };
        let document = path.as_deref().map(Document::open).transpose()?;
        let mut config = Self::from_layers(document, environment)?;
        config.file = path;
        config.anchor();
        Ok(config)
    }

    /// Reads the configuration from the text of a file, as tests and tools do. Relative paths stay as they are.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn parse(name: &str, text: &str, environment: &Environment) -> Result<Self, Findings> {
        Self::from_layers(Some(Document::parse(name, text)?), environment)
    }

    fn from_layers(file: Option<Document>, environment: &Environment) -> Result<Self, Findings> {
        let layers = Layers::new(Document::parse("defaults.toml", DEFAULTS)?, file, environment)?;
        let config: Self = layers.read()?;
        let mut checks = Checks::new(&layers);
        config.listen.check(&mut checks);
        config.store.check(&mut checks);
        config.webhook.check(config.graph.allow_plain_http_loopback, &mut checks);
        config.graph.check(&mut checks);
        config.keys.check(&mut checks);
        config.admin.check(&mut checks);
        config.queue.check(&config.pbx, &mut checks);
        config.sweep.check(&mut checks);
        config.pbx.check(&mut checks);
        config.log.check(&mut checks);
        checks.done()?;
        Ok(config)
    }

    /// What `serve` needs besides a file that holds: an address that Microsoft can call, and credentials that can be read.
    ///
    /// # Errors
    /// Every key that is missing, with its remedy.
    pub fn complete(&self) -> Result<(), Findings> {
        let mut findings = Vec::new();
        if self.webhook.public_url.is_none() {
            findings.push(
                self.missing("webhook.public_url", "it is the address at which Microsoft 365 calls us"),
            );
        }
        if self.graph.client_id.is_none() {
            findings.push(
                self.missing("graph.client_id", "it is the application (client) id of the app registration"),
            );
        }
        match self.graph.credential() {
            Ok(Some(_)) => {}
            Ok(None) => findings.push(self.missing(
                "graph.client_secret_file",
                "the app registration's secret is needed, or its certificate, or a workload identity",
            )),
            Err(error) => findings.push(self.unreadable(&error)),
        }
        match self.store.link_settings() {
            Ok(Some(_)) if matches!(self.keys.client_state(), Ok(None)) => findings.push(self.missing(
                "keys.client_state_file",
                "the store is one that several processes share, and all of them have to know notifications by the same key: `openssl rand -hex 32` makes one",
            )),
            Ok(_) => {}
            Err(error) => findings.push(self.unreadable(&error)),
        }
        for error in
            [self.keys.client_state().err(), self.keys.client_state_previous().err()].into_iter().flatten()
        {
            findings.push(self.unreadable(&error));
        }
        Findings::unless_empty(self.name(), findings)
    }

    /// The file's name for messages.
    pub fn name(&self) -> String {
        self.file.as_ref().map_or_else(|| "narvaro.toml".to_owned(), |file| file.display().to_string())
    }

    /// Where the token of the admin API lies: as configured, else `admin.token` beside the store.
    pub fn token_file(&self) -> PathBuf {
        self.admin.token_file.clone().unwrap_or_else(|| self.store.beside("admin.token"))
    }

    /// Where the generated `clientState` key lies while none is configured: beside the store.
    pub fn client_state_file(&self) -> PathBuf {
        self.store.beside("client-state.key")
    }

    /// Where the generated keys lie that events sent along with notifications are sealed for: beside the store.
    pub fn encryption_keys_file(&self) -> PathBuf {
        self.store.beside("encryption.keys")
    }

    fn missing(&self, key: &str, why: &str) -> Finding {
        let (table, name) = key.split_once('.').unwrap_or(("", key));
        Finding {
            file: self.name(),
            line: None,
            key: key.to_owned(),
            problem: format!("is not set; {why}"),
            remedy: format!(
                "set `{name}` under `[{table}]`, or `{}` in the environment",
                layers::variable(key)
            ),
        }
    }

    fn unreadable(&self, error: &SecretError) -> Finding {
        Finding {
            file: self.name(),
            line: None,
            key: error.key().to_owned(),
            problem: crate::chain::Chain(error).to_string(),
            remedy: error.remedy(),
        }
    }

    /// Makes relative paths count from the configuration file's folder.
    fn anchor(&mut self) {
        let Some(folder) = self.file.as_deref().and_then(Path::parent).map(Path::to_owned) else { return };
        let graph = &mut self.graph;
        let paths = [
            &mut self.admin.token_file,
            &mut self.keys.client_state_file,
            &mut self.keys.client_state_previous_file,
            &mut graph.client_secret_file,
            &mut graph.certificate_file,
            &mut graph.key_file,
            &mut graph.workload_identity_token_file,
        ];
        let tokens = self.admin.tokens.iter_mut().map(|token| &mut token.file);
        for path in paths.into_iter().chain(tokens).flatten() {
            *path = folder.join(&path);
        }
        self.store.anchor(&folder);
    }
}
