//! `[pbx]` of a company file: which kind of PBX, and the settings of that kind's driver.
//!
//! The settings stay a table here: they belong to the driver. Wherever a setting is `{ env = "NAME" }` or
//! `{ file = "/path" }` it is a secret's reference; [`PbxTarget::settings`] puts the secret in its place, and nothing
//! before that knows it. What goes out to the PBX as it stands (bodies and headers of requests) is left alone: a body
//! may well be `{ file = ... }`.

use std::fmt;

use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use toml::{Table, Value};

use crate::config::{Environment, SecretError, SecretRef};

/// Where presence is shown.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PbxTarget {
    /// Of which kind.
    pub kind: PbxKind,
    /// Settings of the Asterisk driver.
    #[serde(default, skip_serializing_if = "Table::is_empty")]
    asterisk: Table,
    /// Settings of the HTTP driver.
    #[serde(default, skip_serializing_if = "Table::is_empty")]
    http: Table,
}

/// Kinds of PBXs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PbxKind {
    /// Asterisk and its relatives, by the manager interface.
    Asterisk,
    /// Anything that is told by HTTP requests.
    Http,
}

impl PbxKind {
    /// As in the file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Asterisk => "asterisk",
            Self::Http => "http",
        }
    }
}

/// Why the settings cannot be handed to the driver.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// A secret is not where the file says.
    #[error("a secret of the PBX cannot be had")]
    Secret(#[source] SecretError),
    /// The driver does not understand a setting.
    #[error("`{key}` {problem}")]
    Misfit {
        /// The key in the company file.
        key: String,
        /// What is wrong.
        problem: String,
        /// What to do about it.
        remedy: String,
    },
}

impl PbxTarget {
    /// The driver's settings, with secrets in place.
    ///
    /// # Errors
    /// Where a secret cannot be had, or a setting does not fit the driver.
    pub fn settings<T: DeserializeOwned>(&self, environment: &Environment) -> Result<T, SettingsError> {
        let mut table = self.table().clone();
        replace_references(&mut table, &self.path(), &|key, reference| {
            reference.resolve(key, environment).map(|secret| secret.expose_secret().to_owned())
        })
        .map_err(SettingsError::Secret)?;
        self.read(&table)
    }

    /// Whether the settings fit the driver, whatever the secrets are: they need not exist where a file is checked.
    pub(super) fn fits<T: DeserializeOwned>(&self) -> Result<(), SettingsError> {
        let mut table = self.table().clone();
        replace_references(&mut table, &self.path(), &|_, _| Ok("secret".to_owned()))
            .map_err(SettingsError::Secret)?;
        self.read::<T>(&table).map(|_| ())
    }

    /// The settings as written.
    pub(super) fn table(&self) -> &Table {
        match self.kind {
            PbxKind::Asterisk => &self.asterisk,
            PbxKind::Http => &self.http,
        }
    }

    /// The table that the other kind's settings stand in, if they are there.
    pub(super) fn strange_table(&self) -> Option<&'static str> {
        match self.kind {
            PbxKind::Asterisk => (!self.http.is_empty()).then_some("http"),
            PbxKind::Http => (!self.asterisk.is_empty()).then_some("asterisk"),
        }
    }

    /// Every secret's reference, with its key.
    pub(super) fn references(&self) -> Vec<(String, SecretRef)> {
        let found = std::cell::RefCell::new(Vec::new());
        let collected = replace_references(&mut self.table().clone(), &self.path(), &|key, reference| {
            found.borrow_mut().push((key.to_owned(), reference));
            Ok(String::new())
        });
        debug_assert!(collected.is_ok(), "collecting resolves nothing");
        found.into_inner()
    }

    /// Keys that hold a secret itself in place of a reference.
    pub(super) fn bare_secrets(&self) -> Vec<String> {
        let mut found = Vec::new();
        note_bare(self.table(), &self.path(), &mut found);
        found
    }

    /// `pbx.asterisk`.
    pub(super) fn path(&self) -> String {
        format!("pbx.{}", self.kind.as_str())
    }

    fn read<T: DeserializeOwned>(&self, table: &Table) -> Result<T, SettingsError> {
        crate::config::read_table(table).map_err(|misfit| SettingsError::Misfit {
            key: if misfit.path.is_empty() {
                self.path()
            } else {
                format!("{}.{}", self.path(), misfit.path)
            },
            problem: misfit.problem,
            remedy: misfit.remedy,
        })
    }
}

impl fmt::Debug for PbxTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A value may be a secret; which keys there are is none.
        let keys: Vec<&String> = self.table().keys().collect();
        f.debug_struct("PbxTarget").field("kind", &self.kind).field("keys", &keys).finish()
    }
}

type Resolver<'a> = &'a dyn Fn(&str, SecretRef) -> Result<String, SecretError>;

fn replace_references(table: &mut Table, path: &str, resolve: Resolver<'_>) -> Result<(), SecretError> {
    for (key, value) in table.iter_mut().filter(|(key, _)| !SENT_AS_WRITTEN.contains(&key.as_str())) {
        replace_in_value(value, &format!("{path}.{key}"), resolve)?;
    }
    Ok(())
}

fn replace_in_value(value: &mut Value, path: &str, resolve: Resolver<'_>) -> Result<(), SecretError> {
    if let Some(reference) = reference(value) {
        *value = Value::String(resolve(path, reference)?);
        return Ok(());
    }
    match value {
        Value::Table(table) => replace_references(table, path, resolve),
        Value::Array(items) => items
            .iter_mut()
            .enumerate()
            .try_for_each(|(index, item)| replace_in_value(item, &format!("{path}[{index}]"), resolve)),
        _ => Ok(()),
    }
}

/// `{ env = "NAME" }` and `{ file = "PATH" }`, and nothing with more or other keys.
fn reference(value: &Value) -> Option<SecretRef> {
    let table = value.as_table().filter(|table| table.len() == 1)?;
    let (key, value) = table.iter().next()?;
    match (key.as_str(), value.as_str()?) {
        ("env", name) => Some(SecretRef::Env(name.to_owned())),
        ("file", path) => Some(SecretRef::File(path.into())),
        _ => None,
    }
}

/// Settings of the HTTP driver that are templates of what is sent.
const SENT_AS_WRITTEN: [&str; 4] = ["json", "form", "xml", "headers"];

/// Settings that are secrets in either driver; `token` and `key` are, unless they are pointers into an answer.
fn is_secret(key: &str, value: &str) -> bool {
    match key {
        "secret" | "password" | "client_secret" => true,
        "token" | "key" => !value.starts_with('/'),
        _ => false,
    }
}

fn note_bare(table: &Table, path: &str, found: &mut Vec<String>) {
    for (key, value) in table.iter().filter(|(key, _)| !SENT_AS_WRITTEN.contains(&key.as_str())) {
        let path = format!("{path}.{key}");
        match value {
            Value::String(text) if is_secret(key, text) => found.push(path),
            Value::Table(inner) => note_bare(inner, &path, found),
            _ => {}
        }
    }
}
