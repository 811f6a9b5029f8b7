//! What must hold between the keys of a company file.

use std::collections::HashMap;

use jiff::tz::TimeZone;

use super::{
    file::{CompanyFile, DEFAULT_SET, User},
    pbx::{PbxKind, PbxTarget, SettingsError},
    profiles::{self, Origin, Trigger, of},
    standard::{self, TriggerSet},
};
use crate::{
    config::{Document, Finding, Findings, SecretRef},
    model::{MatchMode, Profile, ProfileId},
    pbx::{asterisk_ami::AsteriskConfig, http::HttpPbxConfig},
    timetable::{Matcher, same},
};

/// Farthest that a profile may begin before, or last beyond, its event.
const MOST_LEAD_SECS: i32 = 900;
/// Longest gap that is bridged.
const MOST_BRIDGE_SECS: u32 = 600;

/// Everything that does not hold is the error; what holds and is probably not meant is the answer.
pub(super) fn check(file: &CompanyFile, document: &Document) -> Result<Vec<Finding>, Findings> {
    let (profiles, skipped) = profiles::resolve_and_tell(file);
    let mut check = Check { file, document, profiles, mistakes: Vec::new(), warnings: Vec::new() };
    check.company();
    check.pbx();
    check.profiles();
    check.words();
    check.users();
    for word in skipped {
        check.warn(
            "trigger_sets",
            format!(
                "leaves out `{}` for profile `{}`: profile `{}` has it",
                word.word, word.profile, word.holder
            ),
            "nothing, if that is meant",
        );
    }
    let mut mistakes = check.mistakes;
    mistakes.sort_by_key(|mistake| mistake.line);
    Findings::unless_empty(document.name(), mistakes)?;
    Ok(check.warnings)
}

struct Check<'a> {
    file: &'a CompanyFile,
    document: &'a Document,
    profiles: Vec<Profile>,
    mistakes: Vec<Finding>,
    warnings: Vec<Finding>,
}

impl Check<'_> {
    fn refuse(&mut self, key: &str, problem: impl Into<String>, remedy: impl Into<String>) {
        self.mistakes.push(self.document.finding(key, problem, remedy));
    }

    fn warn(&mut self, key: &str, problem: impl Into<String>, remedy: impl Into<String>) {
        self.warnings.push(self.document.finding(key, problem, remedy));
    }

    /// ` in line 12`, or nothing.
    fn line_of(&self, key: &str) -> String {
        self.document.line(key).map(|line| format!(" in line {line}")).unwrap_or_default()
    }

    fn company(&mut self) {
        let file = self.file;
        if file.name.trim().is_empty() {
            self.refuse("name", "is empty", "write the company's name as people know it");
        }
        if TimeZone::get(&file.time_zone).is_err() {
            self.refuse(
                "time_zone",
                format!("cannot be `{}`: there is no such zone", file.time_zone),
                "write an IANA name, as `Europe/Stockholm`",
            );
        }
        if file.phone_region.len() != 2 || !file.phone_region.bytes().all(|b| b.is_ascii_uppercase()) {
            self.refuse(
                "phone_region",
                format!("cannot be `{}`", file.phone_region),
                "write the country's two capital letters, as `SE`",
            );
        }
        if file.bridge_secs > MOST_BRIDGE_SECS {
            self.refuse(
                "bridge_secs",
                format!("cannot be {}", file.bridge_secs),
                format!("use 0 to {MOST_BRIDGE_SECS}: a longer gap is a gap"),
            );
        }
        for (index, set) in file.trigger_sets.iter().enumerate() {
            if set != DEFAULT_SET && TriggerSet::by_name(set).is_none() {
                let names = TriggerSet::ALL.map(|set| format!("`{}`", set.name())).join(", ");
                let key = format!("trigger_sets[{index}]");
                self.refuse(
                    &key,
                    format!("cannot be `{set}`"),
                    format!("possible are `{DEFAULT_SET}`, {names}"),
                );
            }
        }
        for (index, domain) in file.counting.internal_domains.iter().enumerate() {
            if domain.contains('@') || !domain.contains('.') {
                self.refuse(
                    &format!("counting.internal_domains[{index}]"),
                    format!("cannot be `{domain}`"),
                    "write the part after the `@`, as `example.org`",
                );
            }
        }
        if file.matching.mode == MatchMode::Contains {
            self.warn(
                "matching.mode",
                "is `contains`: `MÖT` then matches `Bemöta` too",
                "use it only while you migrate from a system that works so, and try subjects with `narvaro try`",
            );
        }
        if file.integration.is_none() {
            self.warn(
                "integration",
                "is not there: no calendar is read",
                "add `[integration]` with `kind = \"microsoft365\"`",
            );
        }
    }

    fn pbx(&mut self) {
        let Some(pbx) = &self.file.pbx else {
            self.warn(
                "pbx",
                "is not there: nothing is shown anywhere",
                "add `[pbx]` with its `kind` and settings",
            );
            return;
        };
        if let Some(other) = pbx.strange_table() {
            let kind = pbx.kind.as_str();
            self.refuse(
                &format!("pbx.{other}"),
                format!("is there, and `pbx.kind` is `{kind}`"),
                format!("remove `[pbx.{other}]`, or set `kind = \"{other}\"`"),
            );
        }
        for (key, reference) in pbx.references() {
            match reference {
                SecretRef::File(path) if !path.is_absolute() => self.refuse(
                    &key,
                    format!("names the file `{}`, which counts from nowhere", path.display()),
                    "write the whole path as the service sees it, from `/`",
                ),
                _ => {}
            }
        }
        for key in pbx.bare_secrets() {
            self.warn(
                &key,
                "is a secret, and this file is none",
                "write `{ env = \"NAME\" }` or `{ file = \"/path\" }`",
            );
        }
        if let Err(SettingsError::Misfit { key, problem, remedy }) = fits_its_driver(pbx) {
            self.refuse(&key, problem, remedy);
        }
    }

    fn profiles(&mut self) {
        let file = self.file;
        let known: Vec<ProfileId> = self.profiles.iter().map(|profile| profile.id.clone()).collect();
        let standard: Vec<ProfileId> = standard::RANKED.iter().filter_map(|id| id.parse().ok()).collect();
        for (index, entry) in file.profiles.iter().enumerate() {
            let path = format!("profiles[{index}]");
            let first = file.profiles.iter().position(|other| other.id == entry.id).unwrap_or(index);
            if first < index {
                let line = self.line_of(&format!("profiles[{first}].id"));
                self.refuse(
                    &format!("{path}.id"),
                    format!("is `{}`, which stands{line} already", entry.id),
                    "put all that is said about a profile into one `[[profiles]]`",
                );
            }
            if !standard.contains(&entry.id)
                && entry.name_sv.as_deref().is_none_or(|name| name.trim().is_empty())
            {
                self.refuse(
                    &format!("{path}.id"),
                    format!("is `{}`, which is no standard profile, and `name_sv` is missing", entry.id),
                    format!("add `name_sv`, or use a standard id: {}", listed(&standard)),
                );
            }
            for (key, secs) in
                [("before_start_secs", entry.before_start_secs), ("after_end_secs", entry.after_end_secs)]
            {
                if secs.is_some_and(|secs| secs.unsigned_abs() > MOST_LEAD_SECS.unsigned_abs()) {
                    self.refuse(
                        &format!("{path}.{key}"),
                        format!("cannot be {}", secs.unwrap_or_default()),
                        format!("use -{MOST_LEAD_SECS} to {MOST_LEAD_SECS} (15 minutes)"),
                    );
                }
            }
        }
        for (index, id) in file.profile_order.iter().enumerate() {
            let key = format!("profile_order[{index}]");
            if !known.contains(id) {
                self.unknown_profile(&key, id, &known);
            } else if file.profile_order[..index].contains(id) {
                self.refuse(
                    &key,
                    format!("is `{id}`, which stands before already"),
                    "name each profile once",
                );
            }
        }
        let fallback = &file.counting.fallback;
        for (name, id) in [
            ("busy", &fallback.busy),
            ("oof", &fallback.oof),
            ("working_elsewhere", &fallback.working_elsewhere),
        ] {
            if let Some(id) = id.as_ref().filter(|id| !known.contains(id)) {
                self.unknown_profile(&format!("counting.fallback.{name}"), id, &known);
            }
        }
        for (index, user) in file.users.iter().enumerate() {
            for id in user.triggers.keys().filter(|id| !known.contains(id)) {
                self.unknown_profile(&format!("users[{index}].triggers.{id}"), id, &known);
            }
        }
    }

    fn unknown_profile(&mut self, key: &str, id: &ProfileId, known: &[ProfileId]) {
        let remedy = format!("use one of {}, or add a `[[profiles]]` with that id", listed(known));
        self.refuse(key, format!("names the profile `{id}`, which does not exist"), remedy);
    }

    /// A word may stand for one profile only, within the company and within each user's own.
    fn words(&mut self) {
        let before = self.mistakes.len();
        self.same_word_twice(&profiles::chosen_triggers(self.file));
        for (index, user) in self.file.users.iter().enumerate() {
            let own: Vec<Trigger> = user
                .triggers
                .iter()
                .flat_map(|(id, words)| of(id, words, &Origin::Key(format!("users[{index}].triggers.{id}"))))
                .collect();
            self.same_word_twice(&own);
        }
        if self.mistakes.len() == before {
            self.words_made_same();
        }
    }

    /// What is two words as typed can be one by the company's way of matching: `MÖT` and `mot` where diacritics
    /// are folded, `Kurs` and `Kurs*` where all are prefixes.
    fn words_made_same(&mut self) {
        let rules = super::Company::assemble(self.file.clone(), 0, super::stored::Unknown::default()).rules();
        for problem in Matcher::problems(&rules) {
            let remedy = "keep the word in one of the two, or change `[matching]`";
            self.refuse("matching", format!("does not go with the words: {problem}"), remedy);
        }
    }

    fn same_word_twice(&mut self, triggers: &[Trigger]) {
        for (index, trigger) in triggers.iter().enumerate() {
            let clash = triggers[..index]
                .iter()
                .find(|earlier| earlier.profile != trigger.profile && same(&earlier.word, &trigger.word));
            let Some(earlier) = clash else { continue };
            // Pointed at is what stands in the file: a set cannot be edited.
            let (here, there) = match (&trigger.origin, &earlier.origin) {
                (Origin::Default, Origin::Key(_)) => (earlier, trigger),
                _ => (trigger, earlier),
            };
            let key = match &here.origin {
                Origin::Key(key) => key.clone(),
                Origin::Default => "trigger_sets".to_owned(),
            };
            let place = match &there.origin {
                Origin::Key(key) => self.line_of(key),
                Origin::Default => format!(" in the set `{DEFAULT_SET}`"),
            };
            self.refuse(
                &key,
                format!(
                    "gives `{}` to profile `{}`; profile `{}` has it{place}",
                    here.word, here.profile, there.profile
                ),
                "keep the word in one of the two",
            );
        }
    }

    fn users(&mut self) {
        let file = self.file;
        let mut extensions: HashMap<&str, usize> = HashMap::new();
        let mut aliases: HashMap<String, usize> = HashMap::new();
        for (index, user) in file.users.iter().enumerate() {
            let path = format!("users[{index}]");
            let first = *extensions.entry(user.extension.as_str()).or_insert(index);
            if first != index {
                let other = self.taken_by(first, "extension");
                self.refuse(
                    &format!("{path}.extension"),
                    format!("is `{}`, which {other} has", user.extension),
                    "give each user an extension of their own",
                );
            }
            let first = *aliases.entry(user.alias.to_lowercase()).or_insert(index);
            if first != index {
                let other = self.taken_by(first, "alias");
                self.refuse(
                    &format!("{path}.alias"),
                    format!("is `{}`, which {other} has", user.alias),
                    "give each user the primary SMTP address of their own mailbox",
                );
            }
            if !is_address(&user.alias) {
                self.refuse(
                    &format!("{path}.alias"),
                    format!("cannot be `{}`", user.alias),
                    "write the user's primary SMTP address, as `anna@example.org`",
                );
            }
            self.disabled_words(&path, user);
        }
    }

    fn taken_by(&self, index: usize, key: &str) -> String {
        let title = self.file.users.get(index).map(User::title).unwrap_or_default();
        format!("user `{title}`{}", self.line_of(&format!("users[{index}].{key}")))
    }

    fn disabled_words(&mut self, path: &str, user: &User) {
        if user.disabled_words.is_empty() {
            return;
        }
        for word in user.disabled_words.iter() {
            let known =
                self.profiles.iter().flat_map(|profile| &profile.triggers).any(|trigger| same(trigger, word));
            if !known {
                self.warn(
                    &format!("{path}.disabled_words"),
                    format!("has `{word}`, which is no trigger word of the company"),
                    "remove it, or write it as the company's list does",
                );
            }
        }
    }
}

/// Whether the driver of that kind knows all keys and kinds of values; what they mean it checks when it is started.
fn fits_its_driver(pbx: &PbxTarget) -> Result<(), SettingsError> {
    match pbx.kind {
        PbxKind::Asterisk => pbx.fits::<AsteriskConfig>(),
        PbxKind::Http => pbx.fits::<HttpPbxConfig>(),
    }
}

fn listed(ids: &[ProfileId]) -> String {
    ids.iter().map(|id| format!("`{id}`")).collect::<Vec<_>>().join(", ")
}

/// One `@` with something before it and a domain with a dot after it, without blanks.
fn is_address(text: &str) -> bool {
    let Some((local, domain)) = text.split_once('@') else { return false };
    let blank = |c: char| c.is_whitespace() || c.is_control();
    !local.is_empty()
        && !text.contains(blank)
        && text.len() <= 320
        && !domain.contains('@')
        && domain.split('.').count() >= 2
        && domain.split('.').all(|label| !label.is_empty())
}
