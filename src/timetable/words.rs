//! Trigger words as people type them: `Meeting; MÖT`.
//!
//! Items are split at `;` and at new lines, trimmed, and kept in the order typed; of two that compare
//! equal the first stays. A comma does not split: phrases contain commas. A `*` last makes a prefix; a `*`
//! anywhere else is an ordinary character.

use std::collections::HashSet;

use super::fold::fold;

/// Longest trigger word, in characters; a subject line has at most 255.
pub const MAX_CHARS: usize = 255;

/// What makes a trigger a category match: `cat:Semester`.
pub(super) const CATEGORY_MARK: &str = "cat:";

/// A trigger word that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WordError {
    /// A `*` by itself would match every event.
    #[error("the trigger word `{word}` would match every event: write letters before the `*`")]
    BareStar {
        /// As typed.
        word: String,
    },
    /// Nothing that can be seen remains of it.
    #[error("the trigger word `{}` has nothing in it that can be seen", word.escape_unicode())]
    Invisible {
        /// As typed.
        word: String,
    },
    /// Longer than any subject.
    #[error("the trigger word that starts with `{start}` is longer than {MAX_CHARS} characters")]
    TooLong {
        /// Its first characters.
        start: String,
    },
}

/// A trigger word, taken apart.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Word {
    /// What is looked for, folded, without the star and without `cat:`.
    pub(super) folded: String,
    /// Whether the word may go on after it.
    pub(super) prefix: bool,
    /// Whether it is held against categories instead of the subject.
    pub(super) category: bool,
}

impl Word {
    /// Takes one item apart.
    ///
    /// # Errors
    /// [`WordError`] names the word.
    pub(super) fn parse(typed: &str) -> Result<Self, WordError> {
        let word = tidy(typed);
        if word.chars().count() > MAX_CHARS {
            return Err(WordError::TooLong { start: word.chars().take(40).collect() });
        }
        let whole = fold(&word);
        let (category, rest) = match whole.strip_prefix(CATEGORY_MARK) {
            Some(rest) => (true, rest.trim_start()),
            None => (false, whole.as_str()),
        };
        let (prefix, rest) = match rest.strip_suffix('*') {
            Some(rest) => (true, rest.trim_end()),
            None => (false, rest),
        };
        match (rest.is_empty(), prefix) {
            (true, true) => Err(WordError::BareStar { word }),
            (true, false) => Err(WordError::Invisible { word }),
            (false, _) => Ok(Self { folded: rest.to_owned(), prefix, category }),
        }
    }
}

/// The words of a typed list, in order, without repetitions.
///
/// # Errors
/// [`WordError`] for the first word that cannot be used.
pub fn parse_list(text: &str) -> Result<Vec<String>, WordError> {
    let mut seen = HashSet::new();
    let mut words = Vec::new();
    for item in text.split([';', '\n', '\r', '\u{85}', '\u{2028}', '\u{2029}']) {
        let word = tidy(item);
        if !word.is_empty() && seen.insert(Word::parse(&word)?) {
            words.push(word);
        }
    }
    Ok(words)
}

/// The words as one line: `A; B`.
pub fn join<W: AsRef<str>>(words: &[W]) -> String {
    words.iter().map(AsRef::as_ref).collect::<Vec<_>>().join("; ")
}

/// Whether two words, as typed, are the same trigger.
pub fn same(one: &str, other: &str) -> bool {
    matches!((Word::parse(one), Word::parse(other)), (Ok(one), Ok(other)) if one == other)
}

/// Trimmed, with single spaces inside.
fn tidy(item: &str) -> String {
    item.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_split_at_semicolons_and_new_lines_and_nowhere_else() {
        for (typed, words) in [
            ("Gone for the day; GFD", &["Gone for the day", "GFD"][..]),
            ("a;b\nc\r\nd", &["a", "b", "c", "d"]),
            (" ; ;;\u{a0}a\u{a0}; \t", &["a"]),
            ("Hej, på   dig", &["Hej, på dig"]),
            ("MÖT; möt; Mo\u{308}t; MÖT*", &["MÖT", "MÖT*"]),
            ("a*b; c**", &["a*b", "c**"]),
            ("", &[]),
        ] {
            assert_eq!(parse_list(typed).unwrap(), words, "{typed:?}");
        }
    }

    #[test]
    fn a_word_that_cannot_be_used_is_named() {
        assert_eq!(parse_list("a; *"), Err(WordError::BareStar { word: "*".into() }));
        assert_eq!(parse_list("cat:*"), Err(WordError::BareStar { word: "cat:*".into() }));
        assert_eq!(parse_list("\u{200b}*"), Err(WordError::BareStar { word: "\u{200b}*".into() }));
        assert_eq!(parse_list("\u{200b}"), Err(WordError::Invisible { word: "\u{200b}".into() }));
        assert_eq!(parse_list("cat:"), Err(WordError::Invisible { word: "cat:".into() }));
        assert!(matches!(parse_list(&"x".repeat(256)), Err(WordError::TooLong { .. })));
        let said = parse_list("Lunch; *").unwrap_err().to_string();
        assert!(said.contains("`*`"), "{said}");
    }

    #[test]
    fn joining_and_parsing_give_the_words_back() {
        let words = ["Gone for the day", "GFD", "Möte*"];
        assert_eq!(join(&words), "Gone for the day; GFD; Möte*");
        assert_eq!(parse_list(&join(&words)).unwrap(), words);
    }

    #[test]
    fn sameness_of_words_ignores_case_and_form_but_not_the_star() {
        assert!(same("MÖT", "mo\u{308}t"));
        assert!(!same("MÖT", "MOT"));
        assert!(!same("MÖT", "MÖT*"));
    }
}
