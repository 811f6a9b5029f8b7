//! `[store]`: where the service keeps things, and how it gets there.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use secrecy::SecretString;
use serde::{Deserialize, Deserializer};

use super::{
    layers::Checks,
    process::{optional_path, optional_secret},
    redis_url::RedisUrl,
    secret::{SecretError, read_secret},
};
use crate::store::redis::{Form, LinkSettings, Login};

/// Where the service keeps things.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Store {
    /// Which store.
    pub url: StoreUrl,
    #[serde(deserialize_with = "optional_path")]
    data_dir: Option<PathBuf>,
    /// What the names of all keys in Redis begin with.
    pub prefix: String,
    #[serde(deserialize_with = "optional_text")]
    username: Option<String>,
    #[serde(deserialize_with = "optional_secret")]
    password: Option<SecretString>,
    #[serde(deserialize_with = "optional_path")]
    password_file: Option<PathBuf>,
    #[serde(deserialize_with = "optional_text")]
    sentinel_username: Option<String>,
    #[serde(deserialize_with = "optional_secret")]
    sentinel_password: Option<SecretString>,
    #[serde(deserialize_with = "optional_path")]
    sentinel_password_file: Option<PathBuf>,
    #[serde(deserialize_with = "optional_path")]
    ca_file: Option<PathBuf>,
    call_timeout_ms: u64,
}

/// Which store.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum StoreUrl {
    /// One file, one process, no server.
    Embedded(PathBuf),
    /// Redis, for many processes.
    Redis(RedisUrl),
}

impl TryFrom<String> for StoreUrl {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.split_once(':') {
            Some(("embedded", path)) if !path.is_empty() => Ok(Self::Embedded(PathBuf::from(path))),
            Some((_, rest)) if rest.starts_with("//") => RedisUrl::parse(&text).map(Self::Redis),
            _ => Err(format!(
                "`{text}` is no store: write `embedded:` and the path of a file, as `embedded:/var/lib/narvaro/narvaro.db`, or the address of a Redis, as `redis://127.0.0.1:6379`"
            )),
        }
    }
}

impl Store {
    /// A file of that name in the folder for what lies beside the store: the one that is set, else that of an embedded
    /// store, else that of the configuration file.
    pub fn beside(&self, name: &str) -> PathBuf {
        let folder = match (&self.data_dir, &self.url) {
            (Some(folder), _) => folder.as_path(),
            (None, StoreUrl::Embedded(path)) => path.parent().unwrap_or_else(|| Path::new("")),
            (None, StoreUrl::Redis(_)) => Path::new(""),
        };
        folder.join(name)
    }

    /// What has to be known to reach Redis; `None` where the store is embedded.
    ///
    /// # Errors
    /// Where a password's file cannot be read.
    pub fn link_settings(&self) -> Result<Option<LinkSettings>, SecretError> {
        let StoreUrl::Redis(url) = &self.url else { return Ok(None) };
        let read = |key, path: &Option<PathBuf>| path.as_ref().map(|path| read_secret(key, path)).transpose();
        let given = |secret: Option<&SecretString>| secret.cloned();
        let password = match given(self.password.as_ref()).or_else(|| given(url.password())) {
            None => read("store.password_file", &self.password_file)?,
            given => given,
        };
        let sentinel_password = match given(self.sentinel_password.as_ref()) {
            None => read("store.sentinel_password_file", &self.sentinel_password_file)?,
            given => given,
        };
        Ok(Some(LinkSettings {
            form: url.form.clone(),
            tls: url.tls,
            ca_file: self.ca_file.clone(),
            database: url.database,
            login: Login { username: self.username.clone().or_else(|| url.username.clone()), password },
            sentinel_login: Login { username: self.sentinel_username.clone(), password: sentinel_password },
            call_timeout: Duration::from_millis(self.call_timeout_ms),
        }))
    }

    /// The same with another store: what belongs to the Redis that is set (user, passwords, sentinels) goes along only where
    /// `url` names just that one.
    #[must_use]
    pub fn naming(&self, url: StoreUrl) -> Self {
        if let (StoreUrl::Redis(ours), StoreUrl::Redis(given)) = (&self.url, &url)
            && ours.is_at_the_place_of(given)
        {
            return self.clone();
        }
        let ca_file = match &url {
            StoreUrl::Redis(given) if given.tls => self.ca_file.clone(),
            _ => None,
        };
        Self {
            url,
            data_dir: self.data_dir.clone(),
            prefix: self.prefix.clone(),
            username: None,
            password: None,
            password_file: None,
            sentinel_username: None,
            sentinel_password: None,
            sentinel_password_file: None,
            ca_file,
            call_timeout_ms: self.call_timeout_ms,
        }
    }

    pub(super) fn check(&self, checks: &mut Checks<'_>) {
        checks.within(
            "store.call_timeout_ms",
            self.call_timeout_ms,
            100..=30_000,
            "Microsoft 365 wants an answer within 3 s",
        );
        let named = |c: char| c.is_ascii_alphanumeric() || "-_.:".contains(c);
        if !(1..=40).contains(&self.prefix.len()) || !self.prefix.chars().all(named) {
            checks.refuse(
                "store.prefix",
                format!("cannot be `{}`", self.prefix),
                "use 1 to 40 letters, digits, `-`, `_`, `.` and `:`",
            );
        }
        self.check_secrets(checks);
        match &self.url {
            StoreUrl::Embedded(_) => self.check_embedded(checks),
            StoreUrl::Redis(url) => self.check_redis(url, checks),
        }
    }

    fn check_secrets(&self, checks: &mut Checks<'_>) {
        for (key, value, file) in [
            ("store.password", &self.password, &self.password_file),
            ("store.sentinel_password", &self.sentinel_password, &self.sentinel_password_file),
        ] {
            checks.secret(key, value.is_some(), file.is_some());
        }
    }

    fn check_embedded(&self, checks: &mut Checks<'_>) {
        for (key, set) in [
            ("store.username", self.username.is_some()),
            ("store.password", self.password.is_some()),
            ("store.password_file", self.password_file.is_some()),
            ("store.ca_file", self.ca_file.is_some()),
        ] {
            if set {
                checks.refuse(
                    key,
                    "is set, and `store.url` is a file on this machine",
                    "remove it, or name a Redis as `store.url`",
                );
            }
        }
        self.check_no_sentinel(checks);
    }

    fn check_redis(&self, url: &RedisUrl, checks: &mut Checks<'_>) {
        if url.password().is_some() && checks.stands_in_file("store.url") {
            checks.refuse(
                "store.url",
                "has a password in it, and this file is no secret",
                "write the password into a file and name that as `store.password_file`, or set `NARVARO__STORE__URL` in the environment",
            );
        }
        let twice = [
            ("store.username", url.username.is_some() && self.username.is_some()),
            ("store.password", url.password().is_some() && self.password.is_some()),
            ("store.password_file", url.password().is_some() && self.password_file.is_some()),
        ];
        for (key, _) in twice.into_iter().filter(|(_, twice)| *twice) {
            checks.refuse(key, "is set, and stands in `store.url` too", "keep one");
        }
        let password = self.password.is_some() || self.password_file.is_some() || url.password().is_some();
        if (self.username.is_some() || url.username.is_some()) && !password {
            let key = if self.username.is_some() { "store.username" } else { "store.url" };
            checks.refuse(key, "names a user, and no password is set", "set `store.password_file`");
        }
        if self.ca_file.is_some() && !url.tls {
            checks.refuse(
                "store.ca_file",
                "is set, and the way to Redis is not TLS",
                "begin `store.url` with `rediss` (two s), or remove the file",
            );
        }
        if !matches!(url.form, Form::Sentinel { .. }) {
            self.check_no_sentinel(checks);
        }
    }

    fn check_no_sentinel(&self, checks: &mut Checks<'_>) {
        for (key, set) in [
            ("store.sentinel_username", self.sentinel_username.is_some()),
            ("store.sentinel_password", self.sentinel_password.is_some()),
            ("store.sentinel_password_file", self.sentinel_password_file.is_some()),
        ] {
            if set {
                checks.refuse(
                    key,
                    "is set, and `store.url` names no sentinels",
                    "remove it, or write `redis+sentinel://HOST,HOST/MASTER`",
                );
            }
        }
    }

    pub(super) fn anchor(&mut self, folder: &Path) {
        if let StoreUrl::Embedded(path) = &mut self.url {
            *path = folder.join(&path);
        } else if self.data_dir.is_none() {
            self.data_dir = Some(PathBuf::new());
        }
        let paths = [
            &mut self.data_dir,
            &mut self.ca_file,
            &mut self.password_file,
            &mut self.sentinel_password_file,
        ];
        for path in paths.into_iter().flatten() {
            *path = folder.join(&path);
        }
    }
}

/// A text, or nothing where it is empty.
fn optional_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Ok(Some(String::deserialize(deserializer)?).filter(|text| !text.is_empty()))
}
