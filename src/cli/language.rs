//! The language of an answer: one for everything that a command puts out.
//!
//! What is wrong with a command or a file is told in English, as the keys in the files are.

use clap::Args;

use crate::model::Language;

/// For answers that may be about companies of several languages.
#[derive(Debug, Clone, Copy, Args)]
pub(super) struct Spoken {
    /// Language of the answer: `sv` or `en`.
    #[arg(long, value_parser = language, default_value = "en")]
    lang: Language,
}

impl Spoken {
    pub(super) fn language(self) -> Language {
        self.lang
    }
}

/// For answers about one company.
#[derive(Debug, Clone, Copy, Args)]
pub(super) struct SpokenThere {
    /// Language of the answer: `sv` or `en`; the company's where absent.
    #[arg(long, value_parser = language)]
    pub(super) lang: Option<Language>,
}

fn language(text: &str) -> Result<Language, String> {
    match text {
        "sv" => Ok(Language::Sv),
        "en" => Ok(Language::En),
        _ => Err("write `sv` or `en`".to_owned()),
    }
}
