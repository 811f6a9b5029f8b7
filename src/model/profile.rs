//! A named presence on the PBX ("Möte", "Semester") and what each kind of PBX is told for it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Language, ProfileId};

/// State of Asterisk's `PRESENCE_STATE(CustomPresence:…)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AsteriskState {
    /// `not_set`
    NotSet,
    /// `unavailable`
    Unavailable,
    /// `available`
    Available,
    /// `away`: back today.
    Away,
    /// `xa`: away for long.
    Xa,
    /// `chat`
    Chat,
    /// `dnd`: do not disturb.
    Dnd,
}

/// What an Asterisk is told for a profile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AsteriskTerms {
    /// CustomPresence state.
    pub state: AsteriskState,
    /// Whether the extension is closed: sets the DND lamp and, where enabled, AstDB `DND/<ext>`.
    #[serde(default)]
    pub dnd: bool,
}

/// What each kind of PBX is told for a profile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PbxTerms {
    /// For Asterisk and its relatives.
    pub asterisk: AsteriskTerms,
    /// For the HTTP driver: free names a request template may use as `{profile.pbx.NAME}`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub http: BTreeMap<String, String>,
}

/// One profile as a company has it. Its rank is its place in [`super::Rules::profiles`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Profile {
    /// Stable id.
    pub id: ProfileId,
    /// Swedish name.
    pub name_sv: String,
    /// English name.
    pub name_en: String,
    /// What others see in place of the name ("Frånvarande" for Sjuk); the name where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Whether the name tells something a colleague need not know (illness, parental leave).
    #[serde(default)]
    pub sensitive: bool,
    /// Trigger words as typed, split and trimmed. Empty: never set by the calendar.
    #[serde(default)]
    pub triggers: Vec<String>,
    /// Words of the user's own; they beat the company's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub own_triggers: Vec<String>,
    /// Seconds by which the profile starts before the event (negative: after it); within ±900.
    #[serde(default)]
    pub before_start_secs: i32,
    /// Seconds by which the profile outlives the event (negative: ends before it); within ±900.
    #[serde(default)]
    pub after_end_secs: i32,
    /// Whether this profile, set by hand, locks the calendar out.
    #[serde(default)]
    pub calendar_may_not_override: bool,
    /// Whether it is the profile of being there ("Tillgänglig"): the base by default, and a hole in longer events.
    #[serde(default)]
    pub is_available: bool,
    /// What PBXs are told.
    pub pbx: PbxTerms,
}

impl Profile {
    /// The name in a language.
    pub fn name(&self, language: Language) -> &str {
        match language {
            Language::Sv => &self.name_sv,
            Language::En => &self.name_en,
        }
    }

    /// What others see as its name: the label, else the name; a sensitive profile's name is never shown.
    pub fn outward_label(&self, language: Language) -> &str {
        match (&self.label, self.sensitive, language) {
            (Some(label), ..) => label,
            (None, true, Language::Sv) => "Frånvarande",
            (None, true, Language::En) => "Away",
            (None, false, _) => self.name(language),
        }
    }
}
