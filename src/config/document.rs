//! A TOML file written by a person: its values, and the line on which each key stands.

use std::{collections::BTreeMap, path::Path};

use serde::de::DeserializeOwned;
use toml::de::{DeTable, DeValue};

use super::finding::Finding;

/// The text of one TOML file, read.
#[derive(Clone)]
pub struct Document {
    name: String,
    table: toml::Table,
    /// Line of each key and each item of an array, by its path: `users[1].alias`.
    lines: BTreeMap<String, usize>,
}

impl Document {
    /// Reads the file at `path`.
    ///
    /// # Errors
    /// Where it cannot be read, or is no TOML.
    pub fn open(path: &Path) -> Result<Self, Finding> {
        let name = path.display().to_string();
        match std::fs::read_to_string(path) {
            Ok(text) => Self::parse(&name, &text),
            Err(error) => Err(Finding {
                file: name,
                line: None,
                key: String::new(),
                problem: format!("cannot be read: {error}"),
                remedy: "check the path and the rights on the file; it must be UTF-8 text".to_owned(),
            }),
        }
    }

    /// Reads `text`, which will be called `name` in messages.
    ///
    /// # Errors
    /// Where it is no TOML, with the line.
    pub fn parse(name: &str, text: &str) -> Result<Self, Finding> {
        let breaks = Breaks::of(text);
        let syntax = |error: toml::de::Error| Finding {
            file: name.to_owned(),
            line: error.span().map(|span| breaks.line_at(span.start)),
            key: String::new(),
            problem: format!("is no TOML: {}", error.message().lines().collect::<Vec<_>>().join(", ")),
            remedy: "correct the line: texts stand in quotes, each key once, `[table]` before its keys"
                .to_owned(),
        };
        let spanned = DeTable::parse(text).map_err(syntax)?;
        let mut lines = BTreeMap::new();
        note_table("", spanned.get_ref(), &breaks, &mut lines);
        let table = toml::from_str(text).map_err(syntax)?;
        Ok(Self { name: name.to_owned(), table, lines })
    }

    /// What the file is called in messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The values.
    pub fn table(&self) -> &toml::Table {
        &self.table
    }

    /// The line of `path`, or of the nearest thing around it that stands in the file.
    pub fn line(&self, path: &str) -> Option<usize> {
        let mut path = path;
        loop {
            if let Some(line) = self.lines.get(path) {
                return Some(*line);
            }
            path = parent(path)?;
        }
    }

    /// Whether `path` itself stands in the file.
    pub fn has(&self, path: &str) -> bool {
        self.lines.contains_key(path)
    }

    /// A finding at `path`.
    pub fn finding(&self, path: &str, problem: impl Into<String>, remedy: impl Into<String>) -> Finding {
        Finding {
            file: self.name.clone(),
            line: self.line(path),
            key: path.to_owned(),
            problem: problem.into(),
            remedy: remedy.into(),
        }
    }

    /// The values as a type; the first that does not fit is the error.
    ///
    /// # Errors
    /// With line, key and remedy.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, Finding> {
        read(&self.table).map_err(|misfit| self.finding(&misfit.path, misfit.problem, misfit.remedy))
    }
}

impl std::fmt::Debug for Document {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The values may be secrets.
        f.debug_struct("Document").field("name", &self.name).finish_non_exhaustive()
    }
}

/// A value that does not fit its type.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Misfit {
    pub(crate) path: String,
    pub(crate) problem: String,
    pub(crate) remedy: String,
}

pub(crate) fn read<T: DeserializeOwned>(table: &toml::Table) -> Result<T, Misfit> {
    serde_path_to_error::deserialize(table.clone()).map_err(|error| {
        let path = match error.path().to_string() {
            top if top == "." => String::new(),
            path => path,
        };
        in_our_words(path, error.inner().message())
    })
}

/// Turns the deserialiser's sentence into ours. What is not recognised is shown as it is.
fn in_our_words(path: String, message: &str) -> Misfit {
    let message = message.trim();
    if let Some(rest) = message.strip_prefix("unknown field `") {
        let (given, known) = rest.split_once('`').unwrap_or((rest, ""));
        let known = quoted(known);
        return Misfit {
            path,
            problem: "is no key that exists here".to_owned(),
            remedy: meant(given, &known),
        };
    }
    if let Some(rest) = message.strip_prefix("missing field `") {
        let name = rest.trim_end_matches('`');
        let path = if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
        return Misfit { path, problem: "is missing".to_owned(), remedy: format!("add `{name} = ...`") };
    }
    if let Some(rest) = message.strip_prefix("unknown variant `") {
        let (given, known) = rest.split_once('`').unwrap_or((rest, ""));
        let remedy = meant(given, &quoted(known));
        return Misfit { path, problem: format!("cannot be `{given}`"), remedy };
    }
    let mismatch = message.strip_prefix("invalid type: ").or_else(|| message.strip_prefix("invalid value: "));
    if let Some((found, wanted)) = mismatch.and_then(|rest| rest.split_once(", expected ")) {
        return Misfit {
            path,
            problem: format!("cannot be {found}"),
            remedy: format!("write {}", kind(wanted)),
        };
    }
    // Our own types say `problem: remedy`, or the remedy alone.
    match split_outside_ticks(message) {
        Some((problem, remedy)) => {
            Misfit { path, problem: format!("does not hold: {problem}"), remedy: remedy.to_owned() }
        }
        None => Misfit { path, problem: "does not hold".to_owned(), remedy: message.to_owned() },
    }
}

/// Splits at the first `: ` that is not quoted in backticks.
fn split_outside_ticks(message: &str) -> Option<(&str, &str)> {
    let colon =
        message.match_indices(": ").find(|(at, _)| message[..*at].matches('`').count().is_multiple_of(2))?.0;
    Some((&message[..colon], &message[colon + 2..]))
}

/// The deserialiser's name for a kind of value, as a person would say it.
fn kind(wanted: &str) -> &str {
    match wanted {
        "a string" => "a text in quotes",
        "a boolean" => "`true` or `false`, without quotes",
        "a sequence" => "a list in `[` and `]`",
        "u16" | "u32" | "u64" | "usize" => "a whole number, 0 or more",
        "i32" | "i64" => "a whole number",
        wanted if wanted.starts_with("struct ") || wanted == "a map" => "a table",
        wanted => wanted,
    }
}

/// The words in backticks.
fn quoted(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

/// `did you mean` the nearest, and all that exist.
fn meant(given: &str, known: &[&str]) -> String {
    let list = known.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    let nearest = known.iter().map(|name| (distance(given, name), name)).min().filter(|(far, _)| *far <= 2);
    match (nearest, known.is_empty()) {
        (Some((_, name)), _) => format!("did you mean `{name}`? Possible are {list}"),
        (None, false) => format!("possible are {list}"),
        (None, true) => "remove it".to_owned(),
    }
}

/// How many letters must be added, removed or replaced (Levenshtein).
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, letter) in from.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, other) in to.iter().enumerate() {
            let replaced = diagonal + usize::from(letter != *other);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[to.len()]
}

fn note_table(path: &str, table: &DeTable<'_>, breaks: &Breaks, lines: &mut BTreeMap<String, usize>) {
    for (key, value) in table {
        let path =
            if path.is_empty() { key.get_ref().to_string() } else { format!("{path}.{}", key.get_ref()) };
        lines.insert(path.clone(), breaks.line_at(key.span().start));
        note_value(&path, value.get_ref(), breaks, lines);
    }
}

fn note_value(path: &str, value: &DeValue<'_>, breaks: &Breaks, lines: &mut BTreeMap<String, usize>) {
    match value {
        DeValue::Table(table) => note_table(path, table, breaks, lines),
        DeValue::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                let path = format!("{path}[{index}]");
                lines.insert(path.clone(), breaks.line_at(item.span().start));
                note_value(&path, item.get_ref(), breaks, lines);
            }
        }
        _ => {}
    }
}

/// Where the lines of a text end. Kept, since counting from the start for each key takes minutes in a file of
/// ten thousand users.
struct Breaks(Vec<usize>);

impl Breaks {
    fn of(text: &str) -> Self {
        Self(text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at).collect())
    }

    /// Line of the byte at `offset`, from 1.
    fn line_at(&self, offset: usize) -> usize {
        1 + self.0.partition_point(|end| *end < offset)
    }
}

/// `users[1].alias` → `users[1]` → `users` → none.
fn parent(path: &str) -> Option<&str> {
    let cut = path.rfind(['.', '['])?;
    Some(&path[..cut])
}
