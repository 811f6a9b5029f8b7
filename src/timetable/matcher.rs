//! Finds trigger words in subjects, all of them in one pass, and chooses among them.
//!
//! Promises the same answer for the same rules and subject everywhere. Keeps no subject.
//!
//! A word counts if no letter, digit or `_` touches it on a side where it has one itself. Words that lie
//! inside a longer one are swallowed by it; so are words inside the full name of *another* profile, while
//! a profile's own triggers count inside its own name (`MÖT*` is meant to match "Möte"). Of what remains
//! the profile's rank decides, then the place in the subject.
//!
//! Why not Unicode word segmentation: it takes `MÖT:Erik` and `möt_1` for one word, and people type tags
//! so. Why overlapping search and not leftmost-longest: with `SJUK` and `sjuk hem`, "sjuk hemma" must hit
//! the first.

use std::collections::HashMap;

use aho_corasick::{AhoCorasick, MatchKind};
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::{
    fold::{
        fold, fold_but_ascii, fold_diacritics, has_cancellation_mark, is_mark, is_word, without_reply_marks,
    },
    judgement::{Hit, Judgement, Lost, LostBecause, MatchRule, NoProfile, Owner, Warning},
    words::{Word, WordError},
};
use crate::model::{MatchMode, Position, Profile, ProfileId, Rules};

/// Words that negate what follows; only warned of.
const NEGATIONS: [&str; 9] = ["not", "no", "never", "inte", "ej", "icke", "ingen", "inget", "aldrig"];

/// How much of a subject is looked at, in bytes. Calendars allow 255 characters; what is longer was made to
/// keep us busy.
const MAX_SUBJECT_BYTES: usize = 1024;

/// Rules that cannot be matched by.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// One word is unusable.
    #[error("profile `{profile}` has a trigger word that cannot be used")]
    Word {
        /// Whose word.
        profile: ProfileId,
        /// What is wrong with it.
        source: WordError,
    },
    /// One owner gave the same word to two profiles.
    #[error("the trigger word `{word}` stands for both `{first}` and `{second}`")]
    Duplicate {
        /// The word as typed second.
        word: String,
        /// The profile of higher rank.
        first: ProfileId,
        /// The other.
        second: ProfileId,
        /// Whose words they are.
        owner: Owner,
    },
    /// More words than can be searched for.
    #[error("there are too many trigger words")]
    TooMany,
}

/// What a pattern is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    /// It decides.
    Trigger,
    /// The user gave the same word to another profile.
    Overruled,
    /// A full name that is no trigger: it only swallows.
    Name,
}

#[derive(Debug)]
struct Pattern {
    hit: Hit,
    role: Role,
    rank: usize,
    folded: String,
    /// Whether the left edge must be free.
    left: bool,
    /// Whether the right edge must be free.
    right: bool,
}

/// Where a pattern was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Found {
    pattern: usize,
    start: usize,
    end: usize,
}

impl Found {
    fn lies_inside(&self, other: &Self) -> bool {
        other.start <= self.start && self.end <= other.end && other.end - other.start > self.end - self.start
    }
}

/// All trigger words of one mailbox's rules, ready to be looked for.
#[derive(Debug)]
pub struct Matcher {
    patterns: Vec<Pattern>,
    /// Words held against categories, in rank order.
    categories: Vec<Pattern>,
    search: AhoCorasick,
    position: Position,
    fold_diacritics: bool,
    opt_out_mark: bool,
    digest: u64,
}

impl Matcher {
    /// Prepares the words of `rules`.
    ///
    /// # Errors
    /// [`RuleError`] for the first word that cannot be used; [`Matcher::problems`] lists them all.
    pub fn new(rules: &Rules) -> Result<Self, RuleError> {
        let (patterns, problems) = compile(rules);
        if let Some(problem) = problems.into_iter().next() {
            return Err(problem);
        }
        let (categories, patterns): (Vec<_>, Vec<_>) =
            patterns.into_iter().partition(|pattern| pattern.hit.rule == MatchRule::Category);
        let search = AhoCorasick::builder()
            .match_kind(MatchKind::Standard)
            .ascii_case_insensitive(true)
            .build(patterns.iter().map(|pattern| &pattern.folded))
            .map_err(|_| RuleError::TooMany)?;
        Ok(Self {
            patterns,
            categories: if rules.matching.categories { categories } else { Vec::new() },
            search,
            position: rules.matching.position,
            fold_diacritics: rules.matching.fold_diacritics,
            opt_out_mark: rules.matching.opt_out_mark,
            digest: digest(rules),
        })
    }

    /// The same for two matchers that choose by the same words, in every process and release; another for others.
    pub fn digest(&self) -> u64 {
        self.digest
    }

    /// Everything that is wrong with the words of `rules`, in rank order.
    pub fn problems(rules: &Rules) -> Vec<RuleError> {
        compile(rules).1
    }

    /// The word that decides for `subject`; the quick way for when nobody asks why.
    pub fn winner(&self, subject: &str) -> Option<&Hit> {
        let folded = fold_but_ascii(beginning(subject));
        let text = without_reply_marks(&folded);
        if self.mark_of(text).is_some() {
            return None;
        }
        let found = self.find_folded(text);
        self.best(&found.0, found.1.as_deref().unwrap_or(text)).map(|found| &self.patterns[found.pattern].hit)
    }

    /// The word that decides for `subject`, the others, and why.
    pub fn judge(&self, subject: &str) -> Judgement {
        self.judge_event(subject, &[])
    }

    /// As [`judge`](Self::judge), with the event's categories where the rules want them.
    pub fn judge_event(&self, subject: &str, categories: &[String]) -> Judgement {
        let folded = fold_but_ascii(beginning(subject));
        let text = without_reply_marks(&folded);
        let mark = self.mark_of(text);
        let (found, plain) = self.find_folded(text);
        if found.is_empty() && self.categories.is_empty() {
            let none = Some(mark.unwrap_or(NoProfile::NothingMatched));
            return Judgement { winner: None, losers: Vec::new(), none, warnings: Vec::new() };
        }
        let text = plain.as_deref().unwrap_or(text);
        let best = self.best(&found, text);
        let category = self.best_category(categories);

        let in_subject = best.map(|found| &self.patterns[found.pattern]);
        // A category counts as standing after the subject.
        let winner = match (in_subject, category) {
            (Some(word), Some(category)) if category.rank < word.rank => Some(category),
            (word, category) => word.or(category),
        };
        let mut losers = self.losers(&found, text, winner);
        losers.extend(
            category
                .into_iter()
                .filter(|lost| winner.is_none_or(|won| won.hit != lost.hit))
                .map(|lost| Lost { hit: lost.hit.clone(), because: lower_or_right(lost, winner) }),
        );
        let none = mark.clone().or_else(|| winner.is_none().then(|| self.why_none(&found, &losers)));
        if mark.is_some() {
            losers = ignored(winner, losers);
        }
        let winner = winner.filter(|_| mark.is_none());
        let warnings = best
            .filter(|best| winner.is_some_and(|won| std::ptr::eq(won, &self.patterns[best.pattern])))
            .filter(|best| is_negated(text, best.start))
            .map(|best| Warning::Negated { word: self.patterns[best.pattern].hit.word.clone() })
            .into_iter()
            .collect();
        Judgement { winner: winner.map(|pattern| pattern.hit.clone()), losers, none, warnings }
    }

    fn mark_of(&self, text: &str) -> Option<NoProfile> {
        if has_cancellation_mark(text) {
            Some(NoProfile::CancellationMark)
        } else if self.opt_out_mark && text.starts_with('*') {
            Some(NoProfile::OptOutMark)
        } else {
            None
        }
    }

    /// What is found in a folded text, and that text without diacritics where the rules want it so.
    fn find_folded(&self, text: &str) -> (Vec<Found>, Option<String>) {
        let plain = (self.fold_diacritics && !text.is_ascii()).then(|| fold_diacritics(text));
        let text = plain.as_deref().unwrap_or(text);
        let found = self
            .search
            .find_overlapping_iter(text)
            .map(|hit| Found { pattern: hit.pattern().as_usize(), start: hit.start(), end: hit.end() })
            .filter(|found| self.is_free(found, text))
            .collect();
        (found, plain)
    }

    /// Whether nothing touches the word that must not.
    fn is_free(&self, found: &Found, text: &str) -> bool {
        let pattern = &self.patterns[found.pattern];
        let next = text[found.end..].chars().next();
        let right = match next {
            Some(next) => !(is_mark(next) || pattern.right && is_word(next)),
            None => true,
        };
        // Marks before a word belong to what stands before them: a symbol with a mark is no letter.
        right
            && !(pattern.left
                && text[..found.start].chars().rev().find(|c| !is_mark(*c)).is_some_and(is_word))
    }

    /// The longest thing found that swallows `found`.
    fn swallower<'f>(&self, found: &Found, all: &'f [Found]) -> Option<&'f Found> {
        let inner = &self.patterns[found.pattern];
        all.iter()
            .filter(|other| found.lies_inside(other))
            .filter(|other| {
                let outer = &self.patterns[other.pattern];
                outer.role != Role::Name || outer.rank != inner.rank
            })
            .max_by_key(|other| other.end - other.start)
    }

    fn stands_right(&self, found: &Found, text: &str) -> bool {
        self.position == Position::Anywhere || !text[..found.start].chars().any(is_word)
    }

    fn best(&self, all: &[Found], text: &str) -> Option<Found> {
        all.iter()
            .filter(|found| self.patterns[found.pattern].role == Role::Trigger)
            .filter(|found| self.stands_right(found, text) && self.swallower(found, all).is_none())
            .min_by_key(|found| (self.patterns[found.pattern].rank, found.start, found.pattern))
            .copied()
    }

    fn losers(&self, all: &[Found], text: &str, winner: Option<&Pattern>) -> Vec<Lost> {
        let mut losers: Vec<(usize, Lost)> = Vec::new();
        for found in all {
            let pattern = &self.patterns[found.pattern];
            let known = losers.iter().any(|(_, lost)| lost.hit == pattern.hit);
            if pattern.role == Role::Name || known || winner.is_some_and(|won| std::ptr::eq(won, pattern)) {
                continue;
            }
            let because = self.why_lost(found, all, text, winner);
            losers.push((found.start, Lost { hit: pattern.hit.clone(), because }));
        }
        losers.sort_by_key(|(start, _)| *start);
        losers.into_iter().map(|(_, lost)| lost).collect()
    }

    fn why_lost(&self, found: &Found, all: &[Found], text: &str, winner: Option<&Pattern>) -> LostBecause {
        let pattern = &self.patterns[found.pattern];
        if let Some(outer) = self.swallower(found, all) {
            let outer = &self.patterns[outer.pattern];
            let word = outer.hit.word.clone();
            return if outer.role == Role::Name {
                LostBecause::InsideName(word)
            } else {
                LostBecause::InsideWord(word)
            };
        }
        if pattern.role == Role::Overruled {
            LostBecause::UsersOwnWord
        } else if !self.stands_right(found, text) {
            LostBecause::NotAtStart
        } else {
            lower_or_right(pattern, winner)
        }
    }

    fn why_none(&self, found: &[Found], losers: &[Lost]) -> NoProfile {
        let name = found.iter().map(|found| &self.patterns[found.pattern]).find(|p| p.role == Role::Name);
        if let Some(Pattern { hit, .. }) = name {
            NoProfile::ProfileName { profile: hit.profile.clone(), name: hit.word.clone() }
        } else if losers.iter().any(|lost| lost.because == LostBecause::NotAtStart) {
            NoProfile::NotAtStart
        } else {
            NoProfile::NothingMatched
        }
    }

    fn best_category(&self, categories: &[String]) -> Option<&Pattern> {
        if self.categories.is_empty() {
            return None;
        }
        let folded: Vec<String> = categories.iter().map(|name| self.in_form(&fold(name))).collect();
        self.categories.iter().filter(|pattern| pattern.role == Role::Trigger).find(|pattern| {
            folded.iter().any(|name| {
                *name == pattern.folded || !pattern.right && name.starts_with(pattern.folded.as_str())
            })
        })
    }

    fn in_form(&self, folded: &str) -> String {
        if self.fold_diacritics { fold_diacritics(folded) } else { folded.to_owned() }
    }
}

/// A digest of what chooses a word for a subject and of nothing else: which events count, texts and times have no part
/// in that.
fn digest(rules: &Rules) -> u64 {
    let words = |profile: &Profile| {
        let Profile { id, name_sv, name_en, triggers, own_triggers, .. } = profile.clone();
        (id, [name_sv, name_en], [triggers, own_triggers])
    };
    let profiles: Vec<_> = rules.profiles.iter().map(words).collect();
    digest_of(&(profiles, &rules.matching))
}

/// The first 64 bits of a SHA-256, enough to tell one state of a company's rules from the next, in every process and
/// release.
pub(crate) fn digest_of(rules: &impl Serialize) -> u64 {
    #[expect(clippy::expect_used, reason = "proven")]
    let document = serde_json::to_vec(rules).expect("lists and texts can always be written");
    Sha256::digest(document).iter().take(8).fold(0, |digest, byte| digest << 8 | u64::from(*byte))
}

fn beginning(subject: &str) -> &str {
    &subject[..subject.floor_char_boundary(MAX_SUBJECT_BYTES)]
}

fn lower_or_right(lost: &Pattern, winner: Option<&Pattern>) -> LostBecause {
    if winner.is_some_and(|won| won.rank != lost.rank) {
        LostBecause::LowerRank
    } else {
        LostBecause::FurtherRight
    }
}

/// All words found in an event that is left aside: none of them decides.
fn ignored(winner: Option<&Pattern>, losers: Vec<Lost>) -> Vec<Lost> {
    let won = winner.map(|won| Lost { hit: won.hit.clone(), because: LostBecause::EventIgnored });
    won.into_iter().chain(losers).collect()
}

fn is_negated(text: &str, start: usize) -> bool {
    let before = text[..start].trim_end();
    let word = before.rsplit(|c: char| !is_word(c)).next().unwrap_or_default();
    NEGATIONS.iter().any(|negation| negation.eq_ignore_ascii_case(word))
}

/// Gathers the patterns of a company's rules.
struct Compiler<'a> {
    rules: &'a Rules,
    patterns: Vec<Pattern>,
    problems: Vec<RuleError>,
    /// Which rank took a word, per owner.
    taken: HashMap<(Owner, Word), usize>,
}

fn compile(rules: &Rules) -> (Vec<Pattern>, Vec<RuleError>) {
    let mut compiler = Compiler { rules, patterns: Vec::new(), problems: Vec::new(), taken: HashMap::new() };
    for (rank, profile) in rules.profiles.iter().enumerate() {
        for word in &profile.own_triggers {
            compiler.add_word(rank, profile, word, Owner::User);
        }
    }
    for (rank, profile) in rules.profiles.iter().enumerate() {
        for word in &profile.triggers {
            compiler.add_word(rank, profile, word, Owner::Company);
        }
    }
    for (rank, profile) in rules.profiles.iter().enumerate() {
        compiler.add_names(rank, profile);
    }
    compiler.patterns.sort_by_key(|pattern| pattern.rank);
    (compiler.patterns, compiler.problems)
}

impl Compiler<'_> {
    fn parse(&self, typed: &str) -> Result<Word, WordError> {
        let mut word = Word::parse(typed)?;
        word.prefix |= self.rules.matching.mode == MatchMode::Prefix;
        if self.rules.matching.fold_diacritics {
            word.folded = fold_diacritics(&word.folded);
        }
        Ok(word)
    }

    fn add_word(&mut self, rank: usize, profile: &Profile, typed: &str, owner: Owner) {
        let word = match self.parse(typed) {
            Ok(word) => word,
            Err(source) => {
                self.problems.push(RuleError::Word { profile: profile.id.clone(), source });
                return;
            }
        };
        match self.taken.insert((owner, word.clone()), rank) {
            None => {}
            Some(first) if first == rank => return,
            Some(first) => {
                self.problems.push(RuleError::Duplicate {
                    word: typed.to_owned(),
                    first: self.rules.profiles[first].id.clone(),
                    second: profile.id.clone(),
                    owner,
                });
                return;
            }
        }
        let users = self.taken.get(&(Owner::User, word.clone())).filter(|_| owner == Owner::Company);
        let role = match users {
            Some(users) if *users == rank => return,
            Some(_) => Role::Overruled,
            None => Role::Trigger,
        };
        let rule = match (word.category, self.rules.matching.mode) {
            (true, _) => MatchRule::Category,
            (_, MatchMode::Contains) => MatchRule::Contains,
            _ if word.prefix => MatchRule::Prefix,
            _ => MatchRule::Word,
        };
        self.push(rank, profile, typed, word, (rule, owner, role));
    }

    fn add_names(&mut self, rank: usize, profile: &Profile) {
        let matching = &self.rules.matching;
        let is_trigger = matching.name_is_trigger;
        if matching.mode == MatchMode::Contains && !is_trigger {
            return;
        }
        for name in [&profile.name_sv, &profile.name_en] {
            // A name is never a pattern language: a star in it is a star.
            let mut folded = fold(name);
            if matching.fold_diacritics {
                folded = fold_diacritics(&folded);
            }
            let prefix = matching.mode == MatchMode::Prefix;
            let word = Word { folded, prefix, category: false };
            if word.folded.is_empty() {
                continue;
            }
            let taken =
                [Owner::User, Owner::Company].iter().any(|o| self.taken.contains_key(&(*o, word.clone())));
            if taken {
                continue;
            }
            if is_trigger {
                self.taken.insert((Owner::Company, word.clone()), rank);
            }
            let role = if is_trigger { Role::Trigger } else { Role::Name };
            self.push(rank, profile, name, word, (MatchRule::Name, Owner::Company, role));
        }
    }

    fn push(
        &mut self,
        rank: usize,
        profile: &Profile,
        typed: &str,
        word: Word,
        (rule, owner, role): (MatchRule, Owner, Role),
    ) {
        let anywhere = self.rules.matching.mode == MatchMode::Contains && !word.category;
        let left = !anywhere && word.folded.chars().next().is_some_and(is_word);
        let right = !anywhere
            && !word.prefix
            && (word.category || word.folded.chars().next_back().is_some_and(is_word));
        let hit = Hit { profile: profile.id.clone(), word: typed.to_owned(), rule, owner };
        self.patterns.push(Pattern { hit, role, rank, folded: word.folded, left, right });
    }
}
