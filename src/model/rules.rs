//! Everything a mailbox's decisions depend on besides the calendar: applied settings, never drafts.

use serde::{Deserialize, Serialize};

use super::{Profile, ProfileId, ShowAs};

/// Language of notes and outward texts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Language {
    /// Swedish.
    #[default]
    Sv,
    /// English.
    En,
}

impl Language {
    /// The one of two texts that is in this language.
    pub fn say<'t>(self, sv: &'t str, en: &'t str) -> &'t str {
        match self {
            Self::Sv => sv,
            Self::En => en,
        }
    }
}

/// How a trigger word is held against a subject.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MatchMode {
    /// Whole words.
    #[default]
    Word,
    /// Every trigger as if it ended with `*`.
    Prefix,
    /// Anywhere, even inside a word: for migrations, with a warning.
    Contains,
}

/// Where in the subject a trigger may stand.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Position {
    /// Anywhere.
    #[default]
    Anywhere,
    /// First, after leading punctuation and brackets.
    Start,
}

/// Settings of trigger matching (`semantics.md` 5.1).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Matching {
    /// How words are held against subjects.
    pub mode: MatchMode,
    /// Where they may stand.
    pub position: Position,
    /// Whether `å ä ö é` count as `a a o e`.
    pub fold_diacritics: bool,
    /// Whether a profile's names are triggers too.
    pub name_is_trigger: bool,
    /// Whether a subject that starts with `*` is ignored.
    pub opt_out_mark: bool,
    /// Whether categories match: `cat:Semester` among the triggers.
    pub categories: bool,
}

/// What happens when an external organiser changes the subject after acceptance.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ExternalChange {
    /// The profile seen at acceptance stays.
    #[default]
    Hold,
    /// The subject is followed.
    Follow,
}

/// Profiles for events without a trigger word, by how they show. All off by default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Fallback {
    /// For busy events.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub busy: Option<ProfileId>,
    /// For out-of-office events.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oof: Option<ProfileId>,
    /// For working-elsewhere events.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub working_elsewhere: Option<ProfileId>,
}

/// Which events count (`semantics.md` 5.3).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Counting {
    /// Whether a tentatively accepted invitation counts.
    pub tentative: bool,
    /// Whether an unanswered invitation counts.
    pub unanswered: bool,
    /// Whether private events are left out.
    pub ignore_private: bool,
    /// Whether all-day events count.
    pub all_day: bool,
    /// If given, only events that show as one of these count, the owner's own too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub showas_for_trigger: Option<Vec<ShowAs>>,
    /// Whether events of external organisers are left out.
    pub internal_only: bool,
    /// What a subject changed from outside does.
    pub external_subject_change: ExternalChange,
    /// Domains that are the company's own, in lower case; those of its users' aliases are added to them.
    pub internal_domains: Vec<String>,
    /// Profiles for events without a word.
    pub fallback: Fallback,
}

impl Default for Counting {
    fn default() -> Self {
        Self {
            tentative: false,
            unanswered: false,
            ignore_private: false,
            all_day: true,
            showas_for_trigger: None,
            internal_only: false,
            external_subject_change: ExternalChange::Hold,
            internal_domains: Vec::new(),
            fallback: Fallback::default(),
        }
    }
}

/// What shows when the last event ends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EndTo {
    /// The base as it then is.
    #[default]
    Base,
    /// Available, until a base is set anew.
    Available,
}

/// How long a change made by hand during an event lasts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OverrideRule {
    /// Until the event that was deciding ends.
    #[default]
    UntilEventEnd,
    /// Until another event decides, if that is earlier.
    UntilNextEvent,
    /// Not at all.
    CalendarWins,
}

/// All rules of one mailbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rules {
    /// Language of texts.
    pub language: Language,
    /// IANA zone used where the mailbox's own cannot be had.
    pub time_zone: String,
    /// Profiles, highest rank first.
    pub profiles: Vec<Profile>,
    /// Trigger matching.
    pub matching: Matching,
    /// Which events count.
    pub counting: Counting,
    /// Gaps up to this many seconds between events of one profile are bridged (at most 600).
    pub bridge_secs: u32,
    /// What shows after the last event.
    pub end_to: EndTo,
    /// How long changes by hand last.
    pub override_rule: OverrideRule,
}

impl Rules {
    /// The profile with that id.
    pub fn profile(&self, id: &ProfileId) -> Option<&Profile> {
        self.profiles.iter().find(|profile| profile.id == *id)
    }
}
