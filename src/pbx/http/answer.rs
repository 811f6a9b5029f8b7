//! What an answer means: done, refused, or what shows.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::Value as Json;

use super::{
    config::{ConfigError, FieldKind, FindConfig, ReadConfig, ReadProfile, SuccessConfig},
    request::parse,
    template::{Kind, Template},
    values::{Names, Scope, Value, Values, utc},
};
use crate::{
    model::{Extension, Outward, Profile, ProfileId, Readback, Shown},
    presence::PbxError,
};

/// A checked success rule.
#[derive(Debug, Clone)]
pub(super) struct Success {
    status: Vec<u16>,
    rule: Option<(String, Json)>,
    denied: Vec<Json>,
    message: Option<String>,
}

/// What a success rule says of an answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is done.
    Good,
    /// The token has run out.
    Denied,
    /// It is not done, and why.
    Bad(String),
}

impl Success {
    pub(super) fn new(key: &str, config: &SuccessConfig) -> Result<Self, ConfigError> {
        let rule = match (&config.pointer, &config.equals) {
            (Some(pointer), Some(equals)) => Some((pointer.clone(), equals.clone())),
            (None, None) if config.denied.is_empty() => None,
            _ => return Err(ConfigError::new(key, "needs `pointer` and `equals`, both or neither")),
        };
        if let Some((pointer, _)) = &rule {
            check_pointer(&format!("{key}.pointer"), pointer)?;
        }
        if let Some(pointer) = &config.message {
            check_pointer(&format!("{key}.message"), pointer)?;
        }
        if let Some(status) = config.status.iter().find(|status| !(200..300).contains(*status)) {
            return Err(ConfigError::new(
                format!("{key}.status"),
                format!("{status} is not within 200 to 299"),
            ));
        }
        let (denied, message) = (config.denied.clone(), config.message.clone());
        Ok(Self { status: config.status.clone(), rule, denied, message })
    }

    /// Whether the answer's body says more than its status.
    pub(super) fn reads_body(&self) -> bool {
        self.rule.is_some()
    }

    /// What an answer with a status of 200 to 299 means.
    pub(super) fn judge(&self, status: u16, body: &[u8]) -> Result<Verdict, PbxError> {
        if !self.status.is_empty() && !self.status.contains(&status) {
            return Ok(Verdict::Bad(format!(
                "it answered with status {status}, which does not count as done"
            )));
        }
        let Some((pointer, equals)) = &self.rule else { return Ok(Verdict::Good) };
        let json = json(body)?;
        let found = json.pointer(pointer).unwrap_or(&Json::Null);
        if found == equals {
            Ok(Verdict::Good)
        } else if self.denied.contains(found) {
            Ok(Verdict::Denied)
        } else {
            let words = self.words(body).map(|words| format!(" (\"{words}\")")).unwrap_or_default();
            Ok(Verdict::Bad(format!(
                "`{pointer}` is `{}`, not `{equals}`{words}",
                printable(&found.to_string())
            )))
        }
    }

    /// The PBX's own words about a failure.
    pub(super) fn words(&self, body: &[u8]) -> Option<String> {
        let json: Json = serde_json::from_slice(body).ok()?;
        Some(printable(json.pointer(self.message.as_ref()?)?.as_str()?))
    }
}

/// At most 120 characters, control characters written out: text from outside on its way into an error.
pub(super) fn printable(text: &str) -> String {
    text.chars().take(120).flat_map(char::escape_debug).collect()
}

fn json(body: &[u8]) -> Result<Json, PbxError> {
    serde_json::from_slice(body).map_err(|error| PbxError::Unexpected {
        reason: format!("the answer is not JSON (line {}, column {})", error.line(), error.column()),
    })
}

/// RFC 6901: empty, or beginning with a slash.
pub(super) fn check_pointer(key: &str, pointer: &str) -> Result<(), ConfigError> {
    if pointer.is_empty() || pointer.starts_with('/') {
        return Ok(());
    }
    Err(ConfigError::new(key, format!("a JSON pointer begins with `/`; write `/{pointer}`")))
}

fn scalar(json: Option<&Json>) -> String {
    match json {
        None | Some(Json::Null) => String::new(),
        Some(Json::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

fn instant(json: Option<&Json>) -> Option<Timestamp> {
    match json? {
        Json::Number(seconds) => Timestamp::from_second(seconds.as_i64()?).ok(),
        Json::String(text) => text.parse().ok().or_else(|| Timestamp::from_second(text.parse().ok()?).ok()),
        _ => None,
    }
}

/// How the PBX's own names of an extension are taken out of an answer.
#[derive(Debug, Clone)]
pub(super) struct Finder {
    list: Option<String>,
    key: Option<String>,
    values: BTreeMap<String, String>,
}

impl Finder {
    pub(super) fn new(config: &FindConfig) -> Result<Self, ConfigError> {
        for (key, pointer) in [("find.list", &config.list), ("find.key", &config.key)] {
            pointer.as_ref().map_or(Ok(()), |pointer| check_pointer(key, pointer))?;
        }
        for (name, pointer) in &config.values {
            check_pointer(&format!("find.values.{name}"), pointer)?;
        }
        if config.list.is_some() && config.key.is_none() {
            return Err(ConfigError::new("find.key", "is needed to tell the entries of `list` apart"));
        }
        Ok(Self { list: config.list.clone(), key: config.key.clone(), values: config.values.clone() })
    }

    /// What it looks up.
    pub(super) fn names(&self) -> impl Iterator<Item = &String> {
        self.values.keys()
    }

    /// The names, from the entry that is about `extension`.
    pub(super) fn find(&self, body: &[u8], extension: &Extension) -> Result<Names, PbxError> {
        let answer = json(body)?;
        let none = || PbxError::NoSuchExtension { extension: extension.clone() };
        let is_it = |entry: &&Json| {
            self.key.as_ref().is_none_or(|key| scalar(entry.pointer(key)) == extension.as_str())
        };
        let entry = match &self.list {
            None => Some(&answer).filter(is_it),
            Some(list) => {
                answer.pointer(list).and_then(Json::as_array).and_then(|items| items.iter().find(is_it))
            }
        };
        let entry = entry.ok_or_else(none)?;
        let value = |(name, pointer): (&String, &String)| {
            let value = match entry.pointer(pointer) {
                Some(Json::Number(number)) => number.as_i64().map(Value::Number),
                Some(Json::String(text)) if !text.is_empty() => Some(Value::Text(text.clone())),
                _ => None,
            };
            Ok((name.clone(), value.ok_or_else(none)?))
        };
        self.values.iter().map(value).collect()
    }
}

/// How an answer is turned into canonical fields, and a profile into the same.
#[derive(Debug, Clone)]
pub(super) struct Reader {
    fields: Vec<(String, CanonicalField)>,
    until: Option<String>,
    default: Shown,
    profile: Option<ReadProfile>,
}

#[derive(Debug, Clone)]
struct CanonicalField {
    pointer: String,
    shows: Template,
    kind: FieldKind,
}

impl Reader {
    pub(super) fn new(config: &ReadConfig, scope: &Scope<'_>) -> Result<Self, ConfigError> {
        let mut fields = Vec::new();
        for (name, field) in &config.fields {
            check_pointer(&format!("read.fields.{name}.pointer"), &field.pointer)?;
            let shows = parse(&format!("read.fields.{name}.shows"), &field.shows, Kind::Plain, scope)?;
            fields.push((
                name.clone(),
                CanonicalField { pointer: field.pointer.clone(), shows, kind: field.kind },
            ));
        }
        if fields.is_empty() {
            return Err(ConfigError::new("read.fields", "is empty; name at least one field and its pointer"));
        }
        if let Some(pointer) = &config.until {
            check_pointer("read.until", pointer)?;
        }
        let names = config.default.keys().map(|name| ("read.default", name));
        let names = names.chain(config.profile.iter().map(|profile| ("read.profile.field", &profile.field)));
        for (key, name) in names {
            if !config.fields.contains_key(name) {
                return Err(ConfigError::new(key, format!("`{name}` is not one of `read.fields`")));
            }
        }
        let default = Shown(config.default.clone());
        Ok(Self { fields, until: config.until.clone(), default, profile: config.profile.clone() })
    }

    /// What shows on a PBX that was never told anything, as far as that is configured.
    pub(super) fn default(&self) -> &Shown {
        &self.default
    }

    /// The canonical fields of a state that was found.
    pub(super) fn only_canonical(&self, shown: &Shown) -> Shown {
        let field = |(name, _): &(String, _)| (name.clone(), shown.field(name).to_owned());
        Shown(self.fields.iter().map(field).collect())
    }

    /// What will show once the profile in `values` is set. A field whose value is missing is empty: the
    /// request that would set it is refused for the same reason.
    pub(super) fn shows(&self, values: &Values<'_>) -> Shown {
        let field = |(name, field): &(String, CanonicalField)| {
            let text = field.shows.render(values).unwrap_or_default();
            (name.clone(), field.canonical(Some(&Json::String(text))))
        };
        Shown(self.fields.iter().map(field).collect())
    }

    /// What an answer says.
    pub(super) fn read(&self, body: &[u8], profiles: &[Profile]) -> Result<Readback, PbxError> {
        let json = json(body)?;
        let field = |(name, field): &(String, CanonicalField)| {
            (name.clone(), field.canonical(json.pointer(&field.pointer)))
        };
        let shown = Shown(self.fields.iter().map(field).collect());
        let is_default = !self.default.0.is_empty()
            && self.default.0.iter().all(|(name, value)| shown.field(name) == value);
        let until = self.until.as_ref().and_then(|pointer| instant(json.pointer(pointer)));
        let profile = self.profile.as_ref().and_then(|rule| recognise(rule, &shown, profiles));
        Ok(Readback { shown, is_default, profile, until })
    }
}

impl CanonicalField {
    fn canonical(&self, json: Option<&Json>) -> String {
        match self.kind {
            FieldKind::Text => scalar(json),
            FieldKind::Instant => instant(json).map_or_else(|| scalar(json), utc),
        }
    }
}

fn recognise(rule: &ReadProfile, shown: &Shown, profiles: &[Profile]) -> Option<ProfileId> {
    let value = shown.field(&rule.field);
    if let Some(mapped) = rule.map.get(value) {
        return profiles.iter().any(|profile| profile.id == *mapped).then(|| mapped.clone());
    }
    let term = rule.term.as_ref()?;
    let mut meant = profiles.iter().filter(|profile| profile.pbx.http.get(term).is_some_and(|v| v == value));
    match (meant.next(), meant.next()) {
        (Some(only), None) => Some(only.id.clone()),
        _ => None,
    }
}

/// The canonical fields where nothing can be read back: what we said.
pub(super) fn unread(outward: &Outward, text: String, until: Option<Timestamp>) -> Shown {
    let until = until.map(utc).unwrap_or_default();
    Shown::of([("profile", outward.profile.as_str()), ("text", &text), ("until", &until)])
}
