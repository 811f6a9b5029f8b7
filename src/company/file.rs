//! The company file's form.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{pbx::PbxTarget, words::Words};
use crate::model::{
    AsteriskState, CompanyId, Counting, EndTo, Extension, Language, Matching, OverrideRule, ProfileId,
    TenantId,
};

/// The set of trigger words that a company has unless it says otherwise.
pub(super) const DEFAULT_SET: &str = "sv-default";

/// What a company file declares. `narvaro company new` prints one with every key explained.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CompanyFile {
    /// Chosen by the operator, never changed.
    pub id: CompanyId,
    /// For people.
    pub name: String,
    /// IANA zone of the company.
    #[serde(default = "default_zone")]
    pub time_zone: String,
    /// Language of notes and outward texts.
    #[serde(default)]
    pub language: Language,
    /// Two letters: where a number without country code is called.
    #[serde(default = "default_region")]
    pub phone_region: String,
    /// Sets of trigger words given to the standard profiles.
    #[serde(default = "default_sets")]
    pub trigger_sets: Vec<String>,
    /// Profiles by rank, highest first; those not named follow in their standard order.
    #[serde(default)]
    pub profile_order: Vec<ProfileId>,
    /// Gaps up to this many seconds between events of one profile are bridged.
    #[serde(default)]
    pub bridge_secs: u32,
    /// What shows after the last event.
    #[serde(default)]
    pub end_to: EndTo,
    /// How long changes by hand last.
    #[serde(default)]
    pub override_rule: OverrideRule,
    /// Where calendars are read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub integration: Option<Integration>,
    /// Where presence is shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pbx: Option<PbxTarget>,
    /// How trigger words are held against subjects.
    #[serde(default)]
    pub matching: Matching,
    /// Which events count.
    #[serde(default)]
    pub counting: Counting,
    /// Standard profiles changed, and profiles of the company's own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub profiles: Vec<ProfileEntry>,
    /// Whose presence is kept.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub users: Vec<User>,
}

/// Where calendars are read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Integration {
    /// Of which kind.
    pub kind: IntegrationKind,
    /// The tenant; where absent it comes from the consent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<TenantId>,
    /// Whether events are sent along with notifications, sealed, instead of being fetched.
    #[serde(default, skip_serializing_if = "is_no")]
    pub rich: bool,
}

/// Kinds of calendar servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IntegrationKind {
    /// Microsoft 365 by Graph, on the application's own authority.
    Microsoft365,
}

/// A standard profile's changes, or a profile of the company's own. What is absent stays as the standard has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProfileEntry {
    /// Which profile.
    pub id: ProfileId,
    /// Swedish name; needed for one of the company's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name_sv: Option<String>,
    /// English name; the Swedish one where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name_en: Option<String>,
    /// Trigger words in place of those of the sets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub triggers: Option<Words>,
    /// Trigger words besides those of the sets.
    #[serde(default, skip_serializing_if = "Words::is_empty")]
    pub add_triggers: Words,
    /// What others see in place of the name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Whether the name tells something a colleague need not know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sensitive: Option<bool>,
    /// Seconds before the event; within ±900.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before_start_secs: Option<i32>,
    /// Seconds after the event; within ±900.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after_end_secs: Option<i32>,
    /// Whether the profile, set by hand, locks the calendar out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calendar_may_not_override: Option<bool>,
    /// What PBXs are told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pbx: Option<PbxEntry>,
}

/// What PBXs are told for a profile, as far as it differs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PbxEntry {
    /// For Asterisk and its relatives.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub asterisk: Option<AsteriskEntry>,
    /// For the HTTP driver: names that request templates use; added to the standard's.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub http: BTreeMap<String, String>,
}

/// What an Asterisk is told for a profile, as far as it differs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AsteriskEntry {
    /// CustomPresence state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<AsteriskState>,
    /// Whether the extension is closed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dnd: Option<bool>,
}

/// A person with an extension and a calendar.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct User {
    /// The PBX extension.
    pub extension: Extension,
    /// The Exchange alias: the primary SMTP address.
    pub alias: String,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Whether the calendar steers this user's presence.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub enabled: bool,
    /// Words of the company that do not count for this user.
    #[serde(default, skip_serializing_if = "Words::is_empty")]
    pub disabled_words: Words,
    /// Words of the user's own, by profile; they beat the company's.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub triggers: BTreeMap<ProfileId, Words>,
}

impl User {
    /// Whether that is the user's extension, or alias in whatever case.
    pub fn is_called(&self, extension_or_alias: &str) -> bool {
        self.extension.as_str() == extension_or_alias
            || self.alias.to_lowercase() == extension_or_alias.to_lowercase()
    }

    /// `201 Anna`, or the extension alone.
    pub fn title(&self) -> String {
        match &self.name {
            Some(name) => format!("{} {name}", self.extension),
            None => self.extension.to_string(),
        }
    }

    /// The alias's domain in lower case.
    pub(super) fn domain(&self) -> Option<String> {
        self.alias.rsplit_once('@').map(|(_, domain)| domain.to_lowercase())
    }
}

fn default_zone() -> String {
    "Europe/Stockholm".to_owned()
}

fn default_region() -> String {
    "SE".to_owned()
}

fn default_sets() -> Vec<String> {
    vec![DEFAULT_SET.to_owned()]
}

fn yes() -> bool {
    true
}

fn is_no(value: &bool) -> bool {
    !*value
}

fn is_yes(value: &bool) -> bool {
    *value
}
