//! The names that a template may use, and what each stands for in one request.

use std::collections::BTreeMap;

use jiff::{Timestamp, tz::TimeZone};

use crate::model::{CompanyId, Extension, Generation, Outward, Shown, Wanted};

/// How an instant is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// RFC 3339 in UTC, whole seconds: `2026-11-23T14:00:00Z`.
    Utc,
    /// RFC 3339 with the offset of the configured zone: `2026-11-23T15:00:00+01:00`.
    Local,
    /// Seconds since 1970, a number.
    Unix,
}

/// One name out of a placeholder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Field {
    Extension,
    Company,
    ProfileId,
    ProfileLabel,
    Term(String),
    Text,
    Note,
    Until(Form),
    AvailableAt(Form),
    Now(Form),
    Previous(String),
    Shown(String),
    Found(String),
    Transition,
    Generation,
}

/// What `find` looked up, by name.
pub(super) type Names = BTreeMap<String, Value>;

/// What a value is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    Text(String),
    Number(i64),
}

impl Value {
    pub(super) fn into_text(self) -> String {
        match self {
            Self::Text(text) => text,
            Self::Number(number) => number.to_string(),
        }
    }
}

/// Which names a template may use: it depends on what the request is for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scope<'a> {
    /// Whose presence it is about.
    pub(super) extension: bool,
    /// The profile, its texts and times.
    pub(super) profile: bool,
    /// The change: its id, generation and what showed before.
    pub(super) change: bool,
    /// A state to be put back.
    pub(super) shown: bool,
    /// The instant of sending.
    pub(super) now: bool,
    /// Names of canonical fields, for `previous.` and `shown.`.
    pub(super) fields: &'a [String],
    /// Names that `find` looks up.
    pub(super) found: &'a [String],
}

const TIMES: [(&str, Form); 3] = [("", Form::Utc), (".local", Form::Local), (".unix", Form::Unix)];

impl Scope<'_> {
    /// The field of that name; the error lists the names there are.
    pub(super) fn field(&self, name: &str) -> Result<Field, String> {
        if self.profile
            && let Some(term) = name.strip_prefix("profile.pbx.")
            && !term.is_empty()
        {
            return Ok(Field::Term(term.to_owned()));
        }
        let known = self.known();
        let found = known.iter().find(|(known, _)| known == name).map(|(_, field)| field.clone());
        found.ok_or_else(|| {
            let mut names: Vec<_> = known.into_iter().map(|(name, _)| format!("`{name}`")).collect();
            if self.profile {
                names.push("`profile.pbx.NAME`".to_owned());
            }
            format!("`{name}` is not known here; write one of {}", names.join(", "))
        })
    }

    fn known(&self) -> Vec<(String, Field)> {
        let mut known = vec![("company".to_owned(), Field::Company)];
        let mut add = |name: &str, field| known.push((name.to_owned(), field));
        if self.extension {
            add("extension", Field::Extension);
        }
        if self.profile {
            add("profile.id", Field::ProfileId);
            add("profile.label", Field::ProfileLabel);
            add("text", Field::Text);
            add("note", Field::Note);
            for (suffix, form) in TIMES {
                add(&format!("until{suffix}"), Field::Until(form));
                add(&format!("available_at{suffix}"), Field::AvailableAt(form));
            }
        }
        if self.now {
            for (suffix, form) in TIMES {
                add(&format!("now{suffix}"), Field::Now(form));
            }
        }
        if self.change {
            add("transition", Field::Transition);
            add("generation", Field::Generation);
            for name in self.fields {
                add(&format!("previous.{name}"), Field::Previous(name.clone()));
            }
        }
        if self.shown {
            for name in self.fields {
                add(&format!("shown.{name}"), Field::Shown(name.clone()));
            }
        }
        for name in self.found {
            add(&format!("found.{name}"), Field::Found(name.clone()));
        }
        known
    }
}

impl Field {
    /// Whether it is in order that there is no value: the template has to say what is to be done then.
    pub(super) fn may_be_absent(&self) -> bool {
        matches!(self, Self::Note | Self::Until(_) | Self::AvailableAt(_) | Self::Previous(_))
    }

    /// Whether the two are the same value, perhaps written in two forms.
    pub(super) fn same_source(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Until(_), Self::Until(_)) | (Self::AvailableAt(_), Self::AvailableAt(_)) => true,
            _ => self == other,
        }
    }

    /// Whether only a profile of ours has a value for it.
    pub(super) fn is_of_profile(&self) -> bool {
        match self {
            Self::ProfileId
            | Self::ProfileLabel
            | Self::Term(_)
            | Self::Text
            | Self::Note
            | Self::Until(_)
            | Self::AvailableAt(_) => true,
            Self::Extension
            | Self::Company
            | Self::Now(_)
            | Self::Previous(_)
            | Self::Shown(_)
            | Self::Found(_)
            | Self::Transition
            | Self::Generation => false,
        }
    }
}

/// All that one request can be made of.
#[derive(Debug, Clone, Copy)]
pub(super) struct Values<'a> {
    pub(super) company: &'a CompanyId,
    pub(super) zone: &'a TimeZone,
    pub(super) text_chars: usize,
    pub(super) now: Timestamp,
    pub(super) extension: Option<&'a Extension>,
    pub(super) wanted: Option<&'a Wanted>,
    pub(super) previous: Option<&'a Shown>,
    pub(super) found: &'a Names,
    pub(super) transition: &'a str,
    pub(super) generation: Generation,
}

impl Values<'_> {
    /// The value of `field`; `None` where there is none.
    pub(super) fn get(&self, field: &Field) -> Option<Value> {
        let text = |text: &str| Some(Value::Text(text.to_owned()));
        match field {
            Field::Extension => text(self.extension?.as_str()),
            Field::Company => text(self.company.as_str()),
            Field::ProfileId => text(self.outward()?.profile.as_str()),
            Field::ProfileLabel => text(&self.outward()?.label),
            Field::Term(name) => text(self.outward()?.terms.http.get(name)?),
            Field::Text => Some(Value::Text(outward_text(self.outward()?, self.text_chars))),
            Field::Note => text(Some(&self.outward()?.note).filter(|note| !note.is_empty())?),
            Field::Until(form) => Some(self.instant(self.outward()?.until?, *form)),
            Field::AvailableAt(form) => Some(self.instant(self.outward()?.available_at?, *form)),
            Field::Now(form) => Some(self.instant(self.now, *form)),
            Field::Previous(name) => text(self.previous?.0.get(name)?),
            Field::Shown(name) => match self.wanted? {
                Wanted::AsFound(shown) => text(shown.field(name)),
                Wanted::Profile(_) => None,
            },
            Field::Found(name) => self.found.get(name).cloned(),
            Field::Transition => text(self.transition),
            Field::Generation => Some(
                i64::try_from(self.generation.0)
                    .map_or_else(|_| Value::Text(self.generation.to_string()), Value::Number),
            ),
        }
    }

    fn outward(&self) -> Option<&Outward> {
        match self.wanted? {
            Wanted::Profile(outward) => Some(outward),
            Wanted::AsFound(_) => None,
        }
    }

    fn instant(&self, at: Timestamp, form: Form) -> Value {
        match form {
            Form::Utc => Value::Text(utc(at)),
            Form::Unix => Value::Number(at.as_second()),
            Form::Local => {
                let zoned = at.to_zoned(self.zone.clone());
                Value::Text(zoned.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string())
            }
        }
    }
}

/// RFC 3339 in UTC, whole seconds.
pub(super) fn utc(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// The label and the note as one text, cut to what the PBX shows.
pub(super) fn outward_text(outward: &Outward, chars: usize) -> String {
    let whole = if outward.note.is_empty() {
        outward.label.clone()
    } else {
        format!("{} {}", outward.label, outward.note)
    };
    let cut: String = whole.chars().take(chars).collect();
    cut.trim_end().to_owned()
}
