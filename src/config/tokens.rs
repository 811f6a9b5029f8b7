//! `[[admin.tokens]]`: who may ask the admin API besides whoever has `admin.token_file`.

use std::{collections::BTreeSet, path::PathBuf};

use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use super::{
    environment::Environment,
    layers::Checks,
    secret::{SecretError, SecretRef},
};
use crate::model::CompanyId;

/// The name in the audit trail of whoever has `admin.token_file`.
pub const FIRST_TOKEN: &str = "admin";

/// What a token may do. Ordered: each may what the ones before it may.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Look.
    Read,
    /// Renew, read calendars anew, make consent links, see who did what.
    Operator,
    /// Change companies.
    Admin,
}

impl Role {
    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }
}

/// One token: whose, for what, and where its secret is to be found.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdminToken {
    /// What it is called in the audit trail.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// The only companies that it may see; absent: all.
    pub companies: Option<BTreeSet<CompanyId>>,
    pub(super) file: Option<PathBuf>,
    env: Option<String>,
}

impl AdminToken {
    /// The secret, read now from where it lies; `key` names the token in the error.
    ///
    /// # Errors
    /// Where the file or the variable is not there.
    pub fn secret(&self, key: &str, environment: &Environment) -> Result<SecretString, SecretError> {
        let place = match (&self.file, &self.env) {
            (Some(file), _) => SecretRef::File(file.clone()),
            (None, name) => SecretRef::Env(name.clone().unwrap_or_default()),
        };
        place.resolve(key, environment)
    }
}

pub(super) fn check(tokens: &[AdminToken], checks: &mut Checks<'_>) {
    let mut names = BTreeSet::from([FIRST_TOKEN]);
    for (index, token) in tokens.iter().enumerate() {
        let key = |field: &str| format!("admin.tokens[{index}].{field}");
        if token.name.trim().is_empty() || !names.insert(token.name.as_str()) {
            checks.refuse(
                &key("name"),
                format!("cannot be `{}`: another token is called so, or nobody", token.name),
                format!(
                    "give each token a name of its own; `{FIRST_TOKEN}` is the one in `admin.token_file`"
                ),
            );
        }
        if token.file.is_some() == token.env.is_some() {
            checks.refuse(
                &key("file"),
                "and `env`: exactly one is needed",
                "name the file, or the variable, that holds the token",
            );
        }
        match (&token.companies, token.role) {
            (Some(companies), _) if companies.is_empty() => {
                checks.refuse(&key("companies"), "names no company", "name some, or leave it out for all");
            }
            // A company file names tenants and secrets of any company: who may apply one has all of them in hand.
            (Some(_), Role::Admin) => checks.refuse(
                &key("companies"),
                "is set, and the role is `admin`",
                "use `role = \"operator\"`: whoever may apply company files can reach every company",
            ),
            _ => {}
        }
    }
}
