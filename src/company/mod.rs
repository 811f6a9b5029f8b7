//! One customer company: what its file declares, and what the service runs on once that is applied.
//!
//! A company is written as one TOML file ([`CompanyFile`]), validated as a whole ([`Company::parse`]), compared with
//! what is live ([`diff()`]) and made live all or nothing; [`export()`] writes the same format back, and what it writes
//! parses to the same company. What is stored is the declaration itself ([`Company::to_json`]), so that nothing
//! an operator wrote is lost on the way; profiles and rules are computed from it.
//!
//! It reads no files and no environment: secrets stay references until [`PbxTarget::settings`] resolves them
//! with the environment it is given.
//!
//! Why the file and not a database of settings: a file can be reviewed, compared and put under version
//! control by those who answer for it, and "draft" and "applied" are then the file and the store.

mod check;
mod diff;
mod export;
mod file;
mod pbx;
mod profiles;
pub mod records;
pub mod standard;
mod stored;
mod template;
mod words;

#[cfg(test)]
mod tests;

use crate::{
    config::{Document, Finding, Findings},
    model::{CompanyId, Language, Profile, Rules, TenantId},
};

pub use diff::{Change, diff};
pub use export::export;
pub use file::{AsteriskEntry, CompanyFile, Integration, IntegrationKind, PbxEntry, ProfileEntry, User};
pub use pbx::{PbxKind, PbxTarget, SettingsError};
pub use stored::StoredError;
pub use template::TEMPLATE;
pub use words::Words;

/// A company as the service runs on it: declared, validated, applied.
#[derive(Debug, Clone, PartialEq)]
pub struct Company {
    file: CompanyFile,
    revision: u64,
    /// Whether it is being removed.
    leaving: bool,
    /// Computed from the file: highest rank first.
    profiles: Vec<Profile>,
    /// The configured domains and those of the users' aliases, each once, in lower case.
    internal_domains: Vec<String>,
    /// What a newer release stored and this one does not know; goes back into the store untouched.
    unknown: stored::Unknown,
}

/// A company file that holds, and what deserves a look all the same.
#[derive(Debug)]
pub struct Parsed {
    /// The company, with revision 0: the store gives it its number when it is applied.
    pub company: Company,
    /// Not mistakes, but probably not meant either.
    pub warnings: Vec<Finding>,
    /// Where each key stands: for those who find out later that something does not hold ([`Document::finding`]).
    pub document: Document,
}

impl Company {
    /// Reads and validates the text of a company file, which is called `name` in messages.
    ///
    /// # Errors
    /// Every place that does not hold, with line, key and remedy; only the first where the text is no TOML or
    /// a value is of the wrong kind.
    pub fn parse(name: &str, text: &str) -> Result<Parsed, Findings> {
        let document = Document::parse(name, text)?;
        let file: CompanyFile = document.read()?;
        let warnings = check::check(&file, &document)?;
        Ok(Parsed { company: Self::assemble(file, 0, stored::Unknown::default()), warnings, document })
    }

    fn assemble(file: CompanyFile, revision: u64, unknown: stored::Unknown) -> Self {
        let profiles = profiles::resolve(&file);
        let internal_domains = internal_domains(&file);
        Self { file, revision, leaving: false, profiles, internal_domains, unknown }
    }

    /// The same company as the apply of that number.
    pub fn with_revision(mut self, revision: u64) -> Self {
        self.revision = revision;
        self
    }

    /// The same company without its users, on its way out: applied, it gives every phone back, and is then forgotten.
    pub fn leaving(mut self) -> Self {
        self.file.users.clear();
        self.leaving = true;
        self
    }

    /// Whether it is on its way out.
    pub fn is_leaving(&self) -> bool {
        self.leaving
    }

    /// Which apply this is; grows with each.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// What was declared.
    pub fn file(&self) -> &CompanyFile {
        &self.file
    }

    /// Its id.
    pub fn id(&self) -> &CompanyId {
        &self.file.id
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.file.name
    }

    /// The language of notes and outward texts.
    pub fn language(&self) -> Language {
        self.file.language
    }

    /// Its IANA zone.
    pub fn time_zone(&self) -> &str {
        &self.file.time_zone
    }

    /// The tenant, where the file names one; else it comes from the consent.
    pub fn tenant(&self) -> Option<&TenantId> {
        self.file.integration.as_ref()?.tenant.as_ref()
    }

    /// Its PBX.
    pub fn pbx(&self) -> Option<&PbxTarget> {
        self.file.pbx.as_ref()
    }

    /// Its profiles, highest rank first, with the company's trigger words.
    pub fn profiles(&self) -> &[Profile] {
        &self.profiles
    }

    /// Its users, in the file's order.
    pub fn users(&self) -> &[User] {
        &self.file.users
    }

    /// The user with that extension or alias.
    pub fn user(&self, extension_or_alias: &str) -> Option<&User> {
        self.users().iter().find(|user| user.is_called(extension_or_alias))
    }

    /// The rules of a user's mailbox: the company's words without those the user has switched off, and the user's own.
    pub fn rules_for(&self, user: &User) -> Rules {
        let mut rules = self.rules();
        for profile in &mut rules.profiles {
            profile.triggers.retain(|word| !user.disabled_words.contains(word));
            if let Some(own) = user.triggers.get(&profile.id) {
                profile.own_triggers = own.to_vec();
            }
        }
        rules
    }

    /// The rules without any user's own words.
    pub fn rules(&self) -> Rules {
        let file = &self.file;
        let mut counting = file.counting.clone();
        counting.internal_domains.clone_from(&self.internal_domains);
        Rules {
            language: file.language,
            time_zone: file.time_zone.clone(),
            profiles: self.profiles.clone(),
            matching: file.matching.clone(),
            counting,
            bridge_secs: file.bridge_secs,
            end_to: file.end_to,
            override_rule: file.override_rule,
        }
    }
}

fn internal_domains(file: &CompanyFile) -> Vec<String> {
    let configured = file.counting.internal_domains.iter().map(|domain| domain.to_lowercase());
    let of_users = file.users.iter().filter_map(User::domain);
    let domains: std::collections::BTreeSet<String> = configured.chain(of_users).collect();
    domains.into_iter().collect()
}
