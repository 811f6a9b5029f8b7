//! A list of trigger words as it stands in a file: `"Möte*; MÖT"`, or `["Möte*", "MÖT"]`.

use std::ops::Deref;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

use crate::timetable::{WordError, join, parse_list, same};

/// Trigger words as typed, split, trimmed, each once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Words(Vec<String>);

impl Words {
    /// Splits a list as it is typed.
    ///
    /// # Errors
    /// A sentence about the word that cannot be used, and what to write instead.
    pub fn parse(text: &str) -> Result<Self, String> {
        parse_list(text).map(Self).map_err(|error| match error {
            WordError::BareStar { .. } => error.to_string(),
            WordError::Invisible { .. } => format!("{error}: remove it, or type it anew"),
            WordError::TooLong { .. } => format!("{error}: put `;` between words"),
        })
    }

    /// Whether `word`, compared as the matcher compares, is one of them.
    pub fn contains(&self, word: &str) -> bool {
        self.0.iter().any(|own| same(own, word))
    }

    /// `A; B`.
    pub fn joined(&self) -> String {
        join(&self.0)
    }
}

impl Deref for Words {
    type Target = [String];

    fn deref(&self) -> &[String] {
        &self.0
    }
}

impl Words {
    /// Whether there are none. (By name, for serde.)
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Serialize for Words {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.joined())
    }
}

impl<'de> Deserialize<'de> for Words {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(
            untagged,
            expecting = "value of the wrong kind: write a text `\"A; B\"` or a list `[\"A\", \"B\"]`"
        )]
        enum Typed {
            Line(String),
            List(Vec<String>),
        }
        let typed = match Typed::deserialize(deserializer)? {
            Typed::Line(line) => line,
            Typed::List(list) => list.join(";"),
        };
        Self::parse(&typed).map_err(D::Error::custom)
    }
}
