//! Jobs as they are told: started, followed, listed, ended early.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::types::JobId;
use crate::model::{CompanyId, Language};

/// A job that has begun, or that was under way already for the same mailboxes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct JobStarted {
    /// Its name.
    pub job: JobId,
    /// How many pieces it has.
    pub total: u64,
    /// Whether it was under way already: it goes on where it is.
    #[serde(default)]
    pub under_way: bool,
}

/// How far a job has come.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct JobProgress {
    /// Pieces in all.
    pub total: u64,
    /// Pieces done, failed ones included.
    pub done: u64,
    /// Subscriptions that got a new end.
    #[serde(default)]
    pub renewed: u64,
    /// Subscriptions that had to be made anew.
    #[serde(default)]
    pub made_anew: u64,
    /// How many failed, by the state that their mailboxes are in.
    #[serde(default)]
    pub reasons: BTreeMap<String, u64>,
    /// What failed, a sentence each, naming the user; the first fifty.
    pub failed: Vec<String>,
    /// Whether nothing more will happen.
    pub finished: bool,
    /// Whether somebody ended it early: what had not begun stays as it was.
    #[serde(default)]
    pub cancelled: bool,
}

/// A job in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct JobInfo {
    /// Its name.
    pub job: JobId,
    /// Whose token started it.
    pub by: String,
    /// When.
    pub started: Timestamp,
    /// The one company it is about; absent: all.
    pub company: Option<CompanyId>,
    /// The one user it is about, as asked for; absent: all.
    pub user: Option<String>,
    /// Language of what failed; English where absent.
    #[serde(default)]
    pub language: Option<Language>,
    /// How far it has come.
    pub progress: JobProgress,
}
