//! What an apply changes, in lines that an operator can check against what was meant.

use std::{collections::HashMap, fmt};

use super::{
    Company,
    file::{CompanyFile, User},
};
use crate::{model::Profile, timetable::same};

/// One thing that changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change(String);

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What changes when `new` takes the place of `old`, or comes for the first time. Secrets are never shown.
pub fn diff(old: Option<&Company>, new: &Company) -> Vec<Change> {
    let mut changes = Changes(Vec::new());
    match old {
        None => changes.add(format!("company {}: new, `{}`", new.id(), new.name())),
        Some(old) => {
            changes.settings(old.file(), new.file());
            changes.profiles(old.profiles(), new.profiles());
        }
    }
    changes.users(old.map_or(&[], Company::users), new.users());
    changes.0
}

struct Changes(Vec<Change>);

impl Changes {
    fn add(&mut self, line: String) {
        self.0.push(Change(line));
    }

    fn settings(&mut self, old: &CompanyFile, new: &CompanyFile) {
        self.value("company: name", &old.name, &new.name);
        self.value("company: time zone", &old.time_zone, &new.time_zone);
        self.value("company: phone region", &old.phone_region, &new.phone_region);
        // What serialises is compared key by key, so that a setting added one day is not forgotten here.
        let settings = [
            ("language", json(&old.language), json(&new.language)),
            ("bridge_secs", json(&old.bridge_secs), json(&new.bridge_secs)),
            ("end_to", json(&old.end_to), json(&new.end_to)),
            ("override_rule", json(&old.override_rule), json(&new.override_rule)),
            ("matching", json(&old.matching), json(&new.matching)),
            ("counting", json(&old.counting), json(&new.counting)),
            ("integration", json(&old.integration), json(&new.integration)),
        ];
        for (key, old, new) in settings {
            self.json("settings", key, &old, &new);
        }
        self.pbx(old, new);
    }

    fn pbx(&mut self, old: &CompanyFile, new: &CompanyFile) {
        match (&old.pbx, &new.pbx) {
            (None, None) => {}
            (None, Some(new)) => self.add(format!("PBX: new, of kind `{}`", new.kind.as_str())),
            (Some(_), None) => self.add("PBX: removed".to_owned()),
            (Some(old), Some(new)) if old.kind != new.kind => {
                self.value("PBX: kind", old.kind.as_str(), new.kind.as_str());
            }
            (Some(old), Some(new)) => {
                let keys: std::collections::BTreeSet<&String> =
                    old.table().keys().chain(new.table().keys()).collect();
                for key in keys {
                    if old.table().get(key) != new.table().get(key) {
                        self.add(format!("PBX: `{key}` changed"));
                    }
                }
            }
        }
    }

    fn profiles(&mut self, old: &[Profile], new: &[Profile]) {
        for gone in old.iter().filter(|old| !new.iter().any(|new| new.id == old.id)) {
            self.add(format!("profile {}: removed", gone.name_sv));
        }
        for profile in new {
            match old.iter().find(|old| old.id == profile.id) {
                Some(old) => self.profile(old, profile),
                None => {
                    let words = words_line(&profile.triggers);
                    self.add(format!("profile {}: new, trigger words {words}", profile.name_sv));
                }
            }
        }
        let order = |profiles: &[Profile], others: &[Profile]| -> Vec<String> {
            let shared = profiles.iter().filter(|profile| others.iter().any(|other| other.id == profile.id));
            shared.map(|profile| profile.id.to_string()).collect()
        };
        if order(old, new) != order(new, old) {
            let names: Vec<&str> = new.iter().map(|profile| profile.name_sv.as_str()).collect();
            self.add(format!("profiles: rank now {}", names.join(" > ")));
        }
    }

    fn profile(&mut self, old: &Profile, new: &Profile) {
        let what = format!("profile {}", old.name_sv);
        self.words(&format!("{what}: trigger words"), &old.triggers, &new.triggers);
        let plain = |profile: &Profile| {
            let mut profile = profile.clone();
            profile.triggers.clear();
            json(&profile)
        };
        self.json(&what, "", &plain(old), &plain(new));
    }

    fn users(&mut self, old: &[User], new: &[User]) {
        let (by_old, by_new) = (Names::of(old), Names::of(new));
        for gone in old.iter().filter(|user| by_new.counterpart(user).is_none()) {
            self.add(format!("user {}: removed", gone.title()));
        }
        for user in new {
            match by_old.counterpart(user) {
                Some(old) => self.user(old, user),
                None => self.add(format!("user {}: new, alias {}", user.title(), user.alias)),
            }
        }
    }

    fn user(&mut self, old: &User, new: &User) {
        let what = format!("user {}", new.title());
        self.value(&format!("{what}: extension"), old.extension.as_str(), new.extension.as_str());
        self.value(&format!("{what}: alias"), &old.alias, &new.alias);
        let name = |user: &User| user.name.clone().unwrap_or_else(|| "none".to_owned());
        self.value(&format!("{what}: name"), &name(old), &name(new));
        match (old.enabled, new.enabled) {
            (true, false) => self.add(format!("{what}: switched off")),
            (false, true) => self.add(format!("{what}: switched on")),
            _ => {}
        }
        self.words(&format!("{what}: switched-off words"), &old.disabled_words, &new.disabled_words);
        let profiles: std::collections::BTreeSet<_> =
            old.triggers.keys().chain(new.triggers.keys()).collect();
        for id in profiles {
            let words = |user: &User| user.triggers.get(id).map(|words| words.to_vec()).unwrap_or_default();
            self.words(&format!("{what}: own words for {id}"), &words(old), &words(new));
        }
    }

    fn value(&mut self, what: &str, old: &str, new: &str) {
        if old != new {
            self.add(format!("{what} {old} → {new}"));
        }
    }

    /// `+ `a`, - `b``.
    fn words(&mut self, what: &str, old: &[String], new: &[String]) {
        let missing = |from: &[String], word: &String| !from.iter().any(|other| same(other, word));
        let gone = old.iter().filter(|word| missing(new, word)).map(|word| format!("- `{word}`"));
        let come = new.iter().filter(|word| missing(old, word)).map(|word| format!("+ `{word}`"));
        let parts: Vec<String> = come.chain(gone).collect();
        if !parts.is_empty() {
            self.add(format!("{what} {}", parts.join(", ")));
        }
    }

    /// Compares two settings of any form and names the innermost keys that differ.
    fn json(&mut self, what: &str, key: &str, old: &serde_json::Value, new: &serde_json::Value) {
        use serde_json::Value::{Null, Object};
        match (old, new) {
            (Object(olds), Object(news)) => {
                let keys: std::collections::BTreeSet<&String> = olds.keys().chain(news.keys()).collect();
                for inner in keys {
                    let path = if key.is_empty() { inner.clone() } else { format!("{key}.{inner}") };
                    self.json(
                        what,
                        &path,
                        olds.get(inner).unwrap_or(&Null),
                        news.get(inner).unwrap_or(&Null),
                    );
                }
            }
            _ if old == new => {}
            _ => self.add(format!("{what}: {key} {} → {}", shown(old), shown(new))),
        }
    }
}

/// Users by what names them.
struct Names<'a> {
    extensions: HashMap<&'a str, &'a User>,
    aliases: HashMap<String, &'a User>,
}

impl<'a> Names<'a> {
    fn of(users: &'a [User]) -> Self {
        Self {
            extensions: users.iter().map(|user| (user.extension.as_str(), user)).collect(),
            aliases: users.iter().map(|user| (user.alias.to_lowercase(), user)).collect(),
        }
    }

    /// The same user on this side: by extension, else by alias (the extension has changed).
    fn counterpart(&self, user: &User) -> Option<&'a User> {
        let by_extension = self.extensions.get(user.extension.as_str());
        by_extension.or_else(|| self.aliases.get(&user.alias.to_lowercase())).copied()
    }
}

fn words_line(words: &[String]) -> String {
    if words.is_empty() { "none".to_owned() } else { format!("`{}`", words.join("; ")) }
}

fn json<T: serde::Serialize>(value: &T) -> serde_json::Value {
    serde_json::to_value(value).unwrap_or_default()
}

fn shown(value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::Null => "none".to_owned(),
        serde_json::Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
