//! Brings subjects and trigger words into one form, so that equal for a reader is equal for the matcher.
//!
//! The form is NFC over full case folding over NFC, without invisible format characters, with straight
//! apostrophes and single spaces. `ß` becomes `ss`, a decomposed `ö` becomes one letter, `å ä ö é` stay
//! letters of their own.
//!
//! Why quicker paths beside the full one: nearly all subjects are Western European text without combining
//! marks, for which one pass over the characters gives the same answer ten times faster; and of most of
//! them nothing has to be changed but ASCII capitals, which the matcher ignores by itself. Tests hold these ways
//! against each other.

use std::borrow::Cow;

use icu_casemap::CaseMapperBorrowed;
use icu_normalizer::{ComposingNormalizerBorrowed, DecomposingNormalizerBorrowed};
use icu_properties::{CodePointMapData, props::GeneralCategory};

/// What stands first in a subject that answers or forwards another; the colon follows.
const REPLY_MARKS: [&str; 6] = ["sv", "svar", "re", "fw", "fwd", "vb"];

/// What mail programs write before the subject of a cancelled event; the colon follows.
const CANCELLATION_MARKS: [&str; 6] = ["canceled", "cancelled", "avbokat", "avbokad", "inställt", "avlyst"];

/// Bytes within which the colon of a mark stands: the longest mark has 9, and a space may follow it.
const FURTHEST_COLON: usize = 12;

/// `text` in the form in which texts are compared.
pub(super) fn fold(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 4);
    if !fold_quickly(text, &mut out) {
        out.clear();
        fold_fully(text, &mut out);
    }
    out
}

/// As [`fold`], except that ASCII capitals may stay: for readers that take them for small letters anyway.
/// Nearly all subjects need no copy then.
pub(super) fn fold_but_ascii(text: &str) -> Cow<'_, str> {
    if is_plain(text) { Cow::Borrowed(text) } else { Cow::Owned(fold(text)) }
}

/// Takes `å ä ö é` and their like to `a a o e`, in a text that is already folded.
pub(super) fn fold_diacritics(folded: &str) -> String {
    if folded.is_ascii() {
        return folded.to_owned();
    }
    let mut out = String::with_capacity(folded.len());
    for c in DecomposingNormalizerBorrowed::new_nfd().normalize(folded).chars() {
        match c {
            'ø' => out.push('o'),
            'æ' => out.push_str("ae"),
            c if is_mark(c) => {}
            c => out.push(c),
        }
    }
    out
}

/// A subject, folded but for ASCII, without its leading reply and forward marks, however many there are.
pub(super) fn without_reply_marks(mut folded: &str) -> &str {
    while let Some(rest) = after_mark(folded, &REPLY_MARKS) {
        folded = rest;
    }
    folded
}

/// Whether a subject, folded but for ASCII, starts as that of a cancelled event does.
pub(super) fn has_cancellation_mark(folded: &str) -> bool {
    after_mark(folded, &CANCELLATION_MARKS).is_some()
}

/// What follows the first of `marks` and its colon, if the text starts with one.
fn after_mark<'a>(folded: &'a str, marks: &[&str]) -> Option<&'a str> {
    let colon = folded.bytes().take(FURTHEST_COLON).position(|byte| byte == b':')?;
    let (word, rest) = folded.split_at_checked(colon)?;
    let word = word.trim_end();
    marks.iter().any(|mark| mark.eq_ignore_ascii_case(word)).then(|| rest[1..].trim_start())
}

/// Whether `c` is a letter, a digit or `_`, or a mark that belongs to the letter before it.
pub(super) fn is_word(c: char) -> bool {
    if c.is_ascii() { c.is_ascii_alphanumeric() || c == '_' } else { c.is_alphanumeric() || is_mark(c) }
}

/// Whether `c` is a combining mark: it makes another letter of the one before it.
pub(super) fn is_mark(c: char) -> bool {
    c >= '\u{300}'
        && matches!(
            category(c),
            GeneralCategory::NonspacingMark | GeneralCategory::SpacingMark | GeneralCategory::EnclosingMark
        )
}

fn category(c: char) -> GeneralCategory {
    CodePointMapData::<GeneralCategory>::new().get(c)
}

fn is_invisible(c: char) -> bool {
    c >= '\u{ad}' && category(c) == GeneralCategory::Format
}

fn is_apostrophe(c: char) -> bool {
    matches!(c, '\u{2018}' | '\u{2019}' | '\u{201b}' | '\u{2bc}')
}

/// Appends single spaces between words, none first or last.
struct Spaced<'a> {
    out: &'a mut String,
    gap: bool,
}

impl Spaced<'_> {
    fn push(&mut self, c: char) {
        if self.gap {
            self.gap = false;
            if !self.out.is_empty() {
                self.out.push(' ');
            }
        }
        self.out.push(c);
    }
}

/// Whether only ASCII capitals stand between `text` and its folded form: it has single spaces, and beyond
/// ASCII small Latin-1 letters only.
fn is_plain(text: &str) -> bool {
    /// First byte of `À` to `ÿ` in UTF-8; the small ones and `÷` start at second byte 0xa0.
    const LETTER: u8 = 0xc3;
    let odd = |before: u8, byte: u8| {
        (before == b' ') & (byte == b' ')
            | (before == LETTER) & (byte < 0xa0)
            | matches!(byte, b'\t'..=b'\r' | 0xc2 | 0xc4..)
    };
    let bytes = text.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else { return true };
    // Not `any`: without a way out early, many bytes are looked at at once.
    let pairs = bytes.iter().zip(&bytes[1..]);
    let within = pairs.fold(false, |found, (before, byte)| found | odd(*before, *byte));
    !(within || odd(b' ', *first) || *last == b' ')
}

/// One pass for text of Latin-1 letters and everyday punctuation; `false` where the full way is needed.
fn fold_quickly(text: &str, out: &mut String) -> bool {
    let mut spaced = Spaced { out, gap: false };
    for c in text.chars() {
        match c {
            ' ' | '\u{9}'..='\u{d}' | '\u{85}' | '\u{a0}' => spaced.gap = true,
            'A'..='Z' => spaced.push(c.to_ascii_lowercase()),
            '\0'..='\u{7f}' => spaced.push(c),
            '\u{ad}' => {}
            'µ' => spaced.push('μ'),
            'À'..='Ö' | 'Ø'..='Þ' => spaced.push(char::from_u32(u32::from(c) + 0x20).unwrap_or(c)),
            'ß' => {
                spaced.push('s');
                spaced.push('s');
            }
            '\u{80}'..='\u{ff}' => spaced.push(c),
            '\u{2018}' | '\u{2019}' => spaced.push('\''),
            '\u{2013}' | '\u{2014}' | '\u{201c}' | '\u{201d}' | '\u{2022}' | '\u{2026}' | '€' => {
                spaced.push(c)
            }
            _ => return false,
        }
    }
    true
}

fn fold_fully(text: &str, out: &mut String) {
    let nfc = ComposingNormalizerBorrowed::new_nfc();
    let visible: String = text.chars().filter(|c| !is_invisible(*c)).collect();
    let composed = nfc.normalize(&visible);
    let folded = CaseMapperBorrowed::new().fold_string(&composed);
    let mut spaced = Spaced { out, gap: false };
    for c in nfc.normalize(&folded).chars() {
        match c {
            c if c.is_whitespace() => spaced.gap = true,
            c if is_apostrophe(c) => spaced.push('\''),
            c => spaced.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_reads_the_same_folds_to_the_same() {
        for (one, other) in [
            ("MÖT", "mo\u{308}t"),
            ("STRASSE", "straße"),
            ("of\u{fb01}ce", "OFFICE"),
            ("I’m out", "i'M OUT"),
            ("Gått\u{a0} för\tdagen ", "gått för dagen"),
            ("Lu\u{ad}nch", "lunch"),
            ("Lu\u{200b}n\u{200d}ch\u{feff}", "lunch"),
            ("mo\u{200d}\u{308}t", "möt"),
            ("ΜΆΪΟΣ", "μάϊος"),
        ] {
            assert_eq!(fold(one), fold(other), "{one} and {other}");
        }
    }

    #[test]
    fn letters_with_rings_dots_and_accents_stay_letters_of_their_own() {
        for (one, other) in
            [("möt", "mot"), ("å", "a"), ("idé", "ide"), ("möt", "möt\u{301}"), ("ＭÖＴ", "MÖT")]
        {
            assert_ne!(fold(one), fold(other), "{one} and {other}");
        }
    }

    #[test]
    fn diacritics_fold_only_when_asked_to() {
        assert_eq!(fold_diacritics(&fold("MÖTE på Åre, idé, MØT, FÆR")), "mote pa are, ide, mot, faer");
    }

    #[test]
    fn reply_and_forward_marks_go_however_many() {
        for (subject, left) in [
            ("Sv: Lunch", "lunch"),
            ("SV: VB: Re: FW: Fwd: Svar:Lunch", "lunch"),
            ("Re : lunch", "lunch"),
            ("re lunch", "re lunch"),
            ("Svenska: lunch", "svenska: lunch"),
            ("sv:", ""),
        ] {
            assert_eq!(without_reply_marks(&fold(subject)), left, "{subject}");
        }
    }

    #[test]
    fn the_plain_way_is_the_way_of_usual_subjects_and_of_no_other() {
        for usual in ["", "Möte: åäö, 3 * 4 (Q3)", "a", "GFD"] {
            assert!(is_plain(usual), "{usual}");
        }
        for other in [" a", "a ", "a  b", "a\tb", "Straße", "MÖT", "a\u{a0}b", "µ", "a – b", "mo\u{308}t"]
        {
            assert!(!is_plain(other), "{other}");
        }
    }

    #[test]
    fn cancellation_marks_are_known_in_both_languages_and_need_their_colon() {
        for mark in
            ["Canceled: x", "CANCELLED: x", "Avbokat: x", "Avbokad:x", "Insta\u{308}llt: x", "Avlyst : x"]
        {
            assert!(has_cancellation_mark(&fold(mark)), "{mark}");
        }
        for other in ["Avbokat möte", "Cancelled", "x avbokat: y", "Avbokning: x"] {
            assert!(!has_cancellation_mark(&fold(other)), "{other}");
        }
    }

    proptest! {
        #[test]
        fn the_quick_way_gives_what_the_full_way_gives(text in "[\0-\u{ff}‘’–—“”•…€]{0,40}") {
            let (mut quick, mut full) = (String::new(), String::new());
            prop_assert!(fold_quickly(&text, &mut quick));
            fold_fully(&text, &mut full);
            prop_assert_eq!(quick, full);
        }

        #[test]
        fn the_plain_way_gives_what_the_full_way_gives(text in "[A-Za-zÀ-ÿ :*_.×\t\u{80}–]{0,12}") {
            let mut full = String::new();
            fold_fully(&text, &mut full);
            prop_assert!(!is_plain(&text) || text.to_ascii_lowercase() == full, "{full:?}");
        }

        #[test]
        fn folding_twice_changes_nothing(text in "\\PC{0,40}") {
            let once = fold(&text);
            prop_assert_eq!(fold(&once), once);
        }
    }
}
