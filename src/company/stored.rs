//! A company in the store: JSON with the version of its form.
//!
//! What a newer release wrote and this one does not know survives: it is set aside while reading and put
//! back while writing, so that going back a release and forth again loses nothing. Applying a file anew
//! replaces the whole, and with it what was set aside.

use serde_json::{Map, Value, json};

use super::{Company, CompanyFile};

/// The form that this release writes. It grows only when a reader of the old form would misunderstand the new.
const SCHEMA: u64 = 1;

/// More unknown fields than any release adds: something else is stored there.
const MOST_UNKNOWN: usize = 1_000;

/// Fields that this release does not know, by where they stood.
pub(super) type Unknown = Vec<(Vec<Step>, Value)>;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    Key(String),
    Index(usize),
}

/// Why a stored company cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum StoredError {
    /// It is no JSON.
    #[error("the stored company is damaged")]
    Damaged(#[source] serde_json::Error),
    /// A newer release wrote it in a form that this one would misunderstand.
    #[error(
        "the stored company has form {found}, and this release reads up to {SCHEMA}: start the newer release"
    )]
    TooNew {
        /// The form's number.
        found: u64,
    },
    /// A field does not hold.
    #[error("the stored company does not hold at `{place}`: {reason}")]
    Misfit {
        /// Path in the document.
        place: String,
        /// What is wrong there.
        reason: String,
    },
}

impl Company {
    /// The company for the store.
    pub fn to_json(&self) -> String {
        let mut company = serde_json::to_value(&self.file).unwrap_or_default();
        for (steps, value) in &self.unknown {
            put_back(&mut company, steps, value);
        }
        let mut stored = json!({ "schema": SCHEMA, "revision": self.revision, "company": company });
        if self.leaving {
            stored["leaving"] = Value::Bool(true);
        }
        stored.to_string()
    }

    /// A company from the store.
    ///
    /// # Errors
    /// [`StoredError`] where it is damaged, or written by a release that is too new.
    pub fn from_json(text: &str) -> Result<Self, StoredError> {
        let mut stored: Map<String, Value> = serde_json::from_str(text).map_err(StoredError::Damaged)?;
        let number = |stored: &Map<String, Value>, key: &str| stored.get(key).and_then(Value::as_u64);
        let misfit =
            |place: &str, reason: &str| StoredError::Misfit { place: place.into(), reason: reason.into() };
        let schema = number(&stored, "schema").ok_or_else(|| misfit("schema", "no number"))?;
        if schema > SCHEMA {
            return Err(StoredError::TooNew { found: schema });
        }
        let revision = number(&stored, "revision").ok_or_else(|| misfit("revision", "no number"))?;
        let company = stored.remove("company").ok_or_else(|| misfit("company", "missing"))?;
        let leaving = stored.get("leaving").and_then(Value::as_bool).unwrap_or_default();
        let (file, unknown) = read(company)?;
        Ok(Self { leaving, ..Self::assemble(file, revision, unknown) })
    }
}

/// Reads a declaration and sets aside, one by one, the fields that it has no place for.
fn read(mut company: Value) -> Result<(CompanyFile, Unknown), StoredError> {
    let mut unknown = Unknown::new();
    loop {
        let error = match serde_path_to_error::deserialize::<_, CompanyFile>(&company) {
            Ok(file) => return Ok((file, unknown)),
            Err(error) => error,
        };
        let misfit =
            || StoredError::Misfit { place: error.path().to_string(), reason: error.inner().to_string() };
        if !error.inner().to_string().starts_with("unknown field") || unknown.len() >= MOST_UNKNOWN {
            return Err(misfit());
        }
        let steps = steps(error.path()).ok_or_else(misfit)?;
        let value = take_out(&mut company, &steps).ok_or_else(misfit)?;
        unknown.push((steps, value));
    }
}

fn steps(path: &serde_path_to_error::Path) -> Option<Vec<Step>> {
    use serde_path_to_error::Segment;
    path.iter()
        .map(|segment| match segment {
            Segment::Map { key } => Some(Step::Key(key.clone())),
            Segment::Seq { index } => Some(Step::Index(*index)),
            Segment::Enum { .. } | Segment::Unknown => None,
        })
        .collect()
}

fn take_out(value: &mut Value, steps: &[Step]) -> Option<Value> {
    match steps {
        [Step::Key(key)] => value.as_object_mut()?.remove(key),
        [Step::Key(key), rest @ ..] => take_out(value.get_mut(key)?, rest),
        [Step::Index(index), rest @ ..] => take_out(value.get_mut(index)?, rest),
        [] => None,
    }
}

fn put_back(value: &mut Value, steps: &[Step], field: &Value) {
    match steps {
        [Step::Key(key)] => {
            if let Some(object) = value.as_object_mut() {
                object.insert(key.clone(), field.clone());
            }
        }
        [Step::Key(key), rest @ ..] => {
            if let Some(inner) = value.get_mut(key) {
                put_back(inner, rest, field);
            }
        }
        [Step::Index(index), rest @ ..] => {
            if let Some(inner) = value.get_mut(index) {
                put_back(inner, rest, field);
            }
        }
        [] => {}
    }
}
