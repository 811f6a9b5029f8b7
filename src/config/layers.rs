//! Defaults, file and environment laid over one another, with the memory of what came from where.

use serde::de::DeserializeOwned;
use toml::{Table, Value};

use super::{
    document::{self, Document},
    environment::Environment,
    finding::{Finding, Findings},
};

const PREFIX: &str = "NARVARO__";

/// The environment's name for a key: `NARVARO__WEBHOOK__PUBLIC_URL`.
pub(super) fn variable(key: &str) -> String {
    format!("{PREFIX}{}", key.to_uppercase().replace('.', "__"))
}

pub(super) struct Layers {
    file: Option<Document>,
    /// Keys that the environment sets.
    from_environment: Vec<String>,
    merged: Table,
}

impl Layers {
    pub(super) fn new(
        defaults: Document,
        file: Option<Document>,
        environment: &Environment,
    ) -> Result<Self, Findings> {
        let mut merged = defaults.table().clone();
        if let Some(file) = &file {
            lay_over(&mut merged, file.table());
        }
        let mut from_environment = Vec::new();
        for (name, text) in environment.with_prefix(PREFIX) {
            let key = name.to_lowercase().replace("__", ".");
            let value = like(lookup(defaults.table(), &key), text);
            set(&mut merged, &key, value);
            from_environment.push(key);
        }
        Ok(Self { file, from_environment, merged })
    }

    pub(super) fn read<T: DeserializeOwned>(&self) -> Result<T, Finding> {
        document::read(&self.merged)
            .map_err(|misfit| self.finding(&misfit.path, misfit.problem, misfit.remedy))
    }

    /// A finding at the place that `key` came from.
    fn finding(&self, key: &str, problem: impl Into<String>, remedy: impl Into<String>) -> Finding {
        let (problem, remedy) = (problem.into(), remedy.into());
        if self.sets_in_environment(key) {
            let file = format!("environment variable {}", variable(key));
            return Finding { file, line: None, key: key.to_owned(), problem, remedy };
        }
        match &self.file {
            Some(file) => file.finding(key, problem, remedy),
            None => {
                Finding { file: "defaults.toml".to_owned(), line: None, key: key.to_owned(), problem, remedy }
            }
        }
    }

    fn sets_in_environment(&self, key: &str) -> bool {
        self.from_environment.iter().any(|set| set == key)
    }
}

/// Collects what does not hold between keys.
pub(super) struct Checks<'a> {
    layers: &'a Layers,
    findings: Vec<Finding>,
}

impl<'a> Checks<'a> {
    pub(super) fn new(layers: &'a Layers) -> Self {
        Self { layers, findings: Vec::new() }
    }

    pub(super) fn refuse(&mut self, key: &str, problem: impl Into<String>, remedy: impl Into<String>) {
        self.findings.push(self.layers.finding(key, problem, remedy));
    }

    /// Refuses a number outside `range`.
    pub(super) fn within(&mut self, key: &str, value: u64, range: std::ops::RangeInclusive<u64>, why: &str) {
        if !range.contains(&value) {
            let remedy = format!("use {} to {}: {why}", range.start(), range.end());
            self.refuse(key, format!("cannot be {value}"), remedy);
        }
    }

    /// Whether the file, not the environment, sets `key`.
    pub(super) fn stands_in_file(&self, key: &str) -> bool {
        let in_file = self.layers.file.as_ref().is_some_and(|file| file.has(key));
        in_file && !self.layers.sets_in_environment(key)
    }

    /// A secret that may stand in the environment, or in a file of its own: not in this file, and not in both.
    pub(super) fn secret(&mut self, key: &str, is_set: bool, file_is_set: bool) {
        if is_set && self.stands_in_file(key) {
            let remedy =
                format!("write it into a file and name that as `{key}_file`, or set it in the environment");
            self.refuse(key, "is a secret, and this file is none", remedy);
        }
        if is_set && file_is_set {
            self.refuse(&format!("{key}_file"), format!("is set, and so is `{key}`"), "keep one");
        }
    }

    pub(super) fn done(self) -> Result<(), Findings> {
        let file = self.layers.file.as_ref().map_or("configuration", Document::name);
        Findings::unless_empty(file, self.findings)
    }
}

fn lay_over(under: &mut Table, over: &Table) {
    for (key, value) in over {
        match (under.get_mut(key), value) {
            (Some(Value::Table(under)), Value::Table(over)) => lay_over(under, over),
            _ => {
                under.insert(key.clone(), value.clone());
            }
        }
    }
}

fn lookup<'a>(table: &'a Table, key: &str) -> Option<&'a Value> {
    match key.split_once('.') {
        Some((first, rest)) => lookup(table.get(first)?.as_table()?, rest),
        None => table.get(key),
    }
}

fn set(table: &mut Table, key: &str, value: Value) {
    match key.split_once('.') {
        Some((first, rest)) => {
            let inner = table.entry(first).or_insert_with(|| Value::Table(Table::new()));
            if let Value::Table(inner) = inner {
                set(inner, rest, value);
            }
        }
        None => {
            table.insert(key.to_owned(), value);
        }
    }
}

/// The text as a value of the default's kind; as text where that cannot be, so that the type says what it wants.
fn like(default: Option<&Value>, text: &str) -> Value {
    let read = match default {
        Some(Value::Integer(_)) => text.trim().parse().ok().map(Value::Integer),
        Some(Value::Boolean(_)) => text.trim().parse().ok().map(Value::Boolean),
        _ => None,
    };
    read.unwrap_or_else(|| Value::String(text.to_owned()))
}
