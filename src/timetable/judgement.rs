//! What the matcher says of a subject: the word that won, those that lost and why. Never the subject.

use serde::{Deserialize, Serialize};

use crate::model::ProfileId;

/// How a trigger was held against the event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MatchRule {
    /// A whole word or phrase of the subject.
    Word,
    /// The start of a word (`MÖT*`).
    Prefix,
    /// Anywhere, even inside a word.
    Contains,
    /// One of the profile's names, which the company has made triggers.
    Name,
    /// The name of a category (`cat:Semester`).
    Category,
}

/// Whose word it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Owner {
    /// The company's.
    Company,
    /// The user's own: it beats the same word of the company's.
    User,
}

/// A trigger word that was found.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Hit {
    /// The profile it stands for.
    pub profile: ProfileId,
    /// The word as typed in the settings.
    pub word: String,
    /// How it was held against the event.
    pub rule: MatchRule,
    /// Whose it is.
    pub owner: Owner,
}

/// Why a word that was found did not decide.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LostBecause {
    /// It lies inside a longer trigger that was found.
    InsideWord(String),
    /// It lies inside a profile's full name, which is no trigger.
    InsideName(String),
    /// Another word's profile has a higher rank.
    LowerRank,
    /// A word of the same profile stands before it.
    FurtherRight,
    /// It is the company's, and the user has given the same word to another profile.
    UsersOwnWord,
    /// It does not stand first, where the company wants it.
    NotAtStart,
    /// The event as a whole is left aside.
    EventIgnored,
}

/// A word that was found and did not decide.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lost {
    /// The word.
    pub hit: Hit,
    /// Why.
    pub because: LostBecause,
}

/// Why no word decides.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NoProfile {
    /// The subject starts as that of a cancelled event (`Avbokat:`).
    CancellationMark,
    /// The subject starts with `*`, by which its owner keeps it from steering the phone.
    OptOutMark,
    /// A profile's full name stands there, and names are no triggers here: add it as a trigger word of the
    /// profile, or turn `name_is_trigger` on.
    ProfileName {
        /// Whose name.
        profile: ProfileId,
        /// The name.
        name: String,
    },
    /// Words were found, none of them where it counts.
    NotAtStart,
    /// No trigger word was found.
    NothingMatched,
}

/// Something that a person should look at, without effect on the outcome.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Warning {
    /// A word that negates stands right before the trigger; negation is not understood.
    Negated {
        /// The trigger.
        word: String,
    },
}

/// All that the matcher has to say of one subject.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Judgement {
    /// The word that decides.
    pub winner: Option<Hit>,
    /// The others, in the order of their places in the subject.
    pub losers: Vec<Lost>,
    /// Why there is no winner.
    pub none: Option<NoProfile>,
    /// What a person should look at.
    pub warnings: Vec<Warning>,
}
