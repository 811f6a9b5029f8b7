//! What can go wrong when a test or a person asks the simulator for something.

use std::fmt;

/// A request of the simulator's own API that it cannot carry out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SimError {
    /// The named thing does not exist.
    NotFound(String),
    /// The request makes no sense.
    Invalid(String),
}

impl SimError {
    pub(crate) fn not_found(what: impl Into<String>) -> Self {
        Self::NotFound(what.into())
    }

    pub(crate) fn invalid(why: impl Into<String>) -> Self {
        Self::Invalid(why.into())
    }
}

impl fmt::Display for SimError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound(what) => write!(f, "no such {what}"),
            Self::Invalid(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for SimError {}
