//! What is wrong in a file that a person wrote: where, what, and what to do about it.

use std::fmt;

use serde::{Deserialize, Serialize};

/// One place in a file that does not hold, or deserves a look.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Finding {
    /// The file as the asker named it, or the environment variable.
    pub file: String,
    /// Line, from 1, where it is known.
    pub line: Option<usize>,
    /// The key, as `users[2].alias`; empty where the text is no TOML.
    pub key: String,
    /// What is wrong.
    pub problem: String,
    /// What to do about it.
    pub remedy: String,
}

impl Finding {
    /// The place in words: `acme.toml, line 12`.
    pub fn place(&self) -> String {
        match self.line {
            Some(line) => format!("{}, line {line}", self.file),
            None => self.file.clone(),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.key.is_empty() {
            write!(f, "{}: {}", self.place(), self.problem)
        } else {
            write!(f, "{}: `{}` {}", self.place(), self.key, self.problem)
        }
    }
}

/// A file that does not hold, with every place that could be found.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{file}` does not hold")]
pub struct Findings {
    /// The file as the asker named it.
    pub file: String,
    /// At least one.
    pub findings: Vec<Finding>,
}

impl Findings {
    /// The error, if there is anything to say.
    ///
    /// # Errors
    /// The findings, unless there are none.
    pub fn unless_empty(file: impl Into<String>, findings: Vec<Finding>) -> Result<(), Self> {
        if findings.is_empty() { Ok(()) } else { Err(Self { file: file.into(), findings }) }
    }
}

impl From<Finding> for Findings {
    fn from(finding: Finding) -> Self {
        Self { file: finding.file.clone(), findings: vec![finding] }
    }
}
