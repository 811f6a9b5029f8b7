//! Sentences for those who answer the telephone: what a subject would do (`try`), and what of the present `explain` knows
//! beyond the calendar.

use jiff::{Timestamp, tz::TimeZone};

use super::views::Obstacle;
use crate::{
    health::Severity,
    model::{Interval, Language, ProfileId, Rules},
    timetable::{Hit, Judgement, Lost, LostBecause, MatchRule, NoProfile, Owner, Warning},
    turn::state::Shows,
};

/// What a subject would do, a sentence a line. The subject is not repeated.
pub(super) fn verdict(judgement: &Judgement, rules: &Rules, language: Language) -> Vec<String> {
    let teller = Teller { rules, language };
    let mut lines = vec![match (&judgement.winner, &judgement.none) {
        (Some(hit), _) => teller.winner(hit),
        (None, Some(none)) => teller.none(none),
        (None, None) => teller.none(&NoProfile::NothingMatched),
    }];
    lines.extend(judgement.losers.iter().map(|lost| teller.lost(lost)));
    lines.extend(judgement.warnings.iter().map(|warning| teller.warning(warning)));
    lines
}

/// What `explain` adds to an explanation, times as the clock on the wall in `zone` shows them.
pub(super) struct Explainer<'a> {
    pub(super) language: Language,
    pub(super) zone: &'a TimeZone,
}

impl Explainer<'_> {
    fn time(&self, at: Timestamp) -> String {
        at.to_zoned(self.zone.clone()).strftime("%Y-%m-%d %H:%M").to_string()
    }

    /// In place of an explanation, for a moment that no reading reaches.
    pub(super) fn outside(&self, at: Timestamp, read: Interval) -> String {
        let (at, from, to) = (self.time(at), self.time(read.start), self.time(read.end));
        match self.language {
            Language::Sv => {
                format!("Vad som visas {at} är inte känt: kalendern är läst från {from} till {to}.")
            }
            Language::En => {
                format!("What shows at {at} is not known: the calendar has been read from {from} to {to}.")
            }
        }
    }

    /// In place of an explanation, before the first reading.
    pub(super) fn unread(&self, at: Timestamp) -> String {
        let at = self.time(at);
        match self.language {
            Language::Sv => format!("Vad som ska visas {at} är inte känt: kalendern har inte lästs."),
            Language::En => {
                format!("What is to show at {at} is not known: the calendar has not been read.")
            }
        }
    }

    /// What the PBX is known to show, and whether that differs from what it should.
    pub(super) fn shown(&self, shows: Option<&Shows>, differs: bool) -> String {
        let Some(shows) = shows else {
            let unknown = ("Vad växeln visar är inte känt än.", "What the PBX shows is not known yet.");
            return self.language.say(unknown.0, unknown.1).to_owned();
        };
        let (label, since) = (&shows.label, self.time(shows.since));
        match (self.language, differs) {
            (Language::Sv, false) => format!("Växeln visar “{label}” sedan {since}."),
            (Language::Sv, true) => {
                format!("Men växeln visar “{label}” sedan {since}: den har inte tagit emot ändringen.")
            }
            (Language::En, false) => format!("The PBX shows “{label}” since {since}."),
            (Language::En, true) => {
                format!("But the PBX shows “{label}” since {since}: it has not taken the change.")
            }
        }
    }

    /// Cause and cure of what stands in the way, a line each.
    pub(super) fn trouble(&self, trouble: &Obstacle) -> Vec<String> {
        let word = match trouble.health.severity() {
            Severity::Fine | Severity::Warning => self.language.say("Obs", "Note"),
            Severity::Trouble => self.language.say("Fel", "Trouble"),
        };
        let mut lines = vec![format!("{word}: {}", trouble.health.cause(self.language))];
        let cure = trouble.health.cure(self.language);
        if !cure.is_empty() {
            lines.push(format!("{}: {cure}", self.language.say("Åtgärd", "Cure")));
        }
        lines.extend(trouble.retry_at.map(|at| {
            // Often within the minute.
            let at = at.to_zoned(self.zone.clone()).strftime("%Y-%m-%d %H:%M:%S");
            match self.language {
                Language::Sv => format!("Nästa försök: {at}."),
                Language::En => format!("Next try: {at}."),
            }
        }));
        lines
    }

    /// How old the knowledge is that the answer rests on.
    pub(super) fn proven(&self, proven: Timestamp) -> String {
        let proven = self.time(proven);
        match self.language {
            Language::Sv => format!("Kalendern lästes senast i sin helhet {proven}."),
            Language::En => format!("The calendar was last read as a whole at {proven}."),
        }
    }
}

struct Teller<'a> {
    rules: &'a Rules,
    language: Language,
}

impl Teller<'_> {
    fn name(&self, profile: &ProfileId) -> String {
        self.rules.profile(profile).map_or_else(
            || profile.to_string(),
            |profile| match self.language {
                Language::Sv => profile.name_sv.clone(),
                Language::En => profile.name_en.clone(),
            },
        )
    }

    fn winner(&self, hit: &Hit) -> String {
        let (name, word) = (self.name(&hit.profile), &hit.word);
        let how = match (self.language, hit.rule) {
            (Language::Sv, MatchRule::Word) => "som helt ord",
            (Language::Sv, MatchRule::Prefix) => "som början av ett ord",
            (Language::Sv, MatchRule::Contains) => "någonstans i texten",
            (Language::Sv, MatchRule::Name) => "som profilens namn",
            (Language::Sv, MatchRule::Category) => "som kategori",
            (Language::En, MatchRule::Word) => "as a whole word",
            (Language::En, MatchRule::Prefix) => "as the start of a word",
            (Language::En, MatchRule::Contains) => "somewhere in the text",
            (Language::En, MatchRule::Name) => "as the profile's name",
            (Language::En, MatchRule::Category) => "as a category",
        };
        match (self.language, hit.owner) {
            (Language::Sv, Owner::Company) => format!("Profilen blir {name}: ordet `{word}` finns {how}."),
            (Language::Sv, Owner::User) => {
                format!("Profilen blir {name}: användarens eget ord `{word}` finns {how}.")
            }
            (Language::En, Owner::Company) => {
                format!("The profile becomes {name}: the word `{word}` is there {how}.")
            }
            (Language::En, Owner::User) => {
                format!("The profile becomes {name}: the user's own word `{word}` is there {how}.")
            }
        }
    }

    fn none(&self, none: &NoProfile) -> String {
        match (self.language, none) {
            (Language::Sv, NoProfile::CancellationMark) => {
                "Ingen profil: ämnet börjar som för en inställd händelse (`Avbokat:`).".into()
            }
            (Language::En, NoProfile::CancellationMark) => {
                "No profile: the subject begins like that of a cancelled event (`Canceled:`).".into()
            }
            (Language::Sv, NoProfile::OptOutMark) => {
                "Ingen profil: ämnet börjar med `*`, som låter telefonen vara i fred.".into()
            }
            (Language::En, NoProfile::OptOutMark) => {
                "No profile: the subject begins with `*`, which leaves the phone alone.".into()
            }
            (Language::Sv, NoProfile::ProfileName { profile, name }) => format!(
                "Ingen profil: `{name}` är namnet på profilen {}, och namn räknas inte som triggerord här. Lägg till det som triggerord för profilen, eller sätt `name_is_trigger = true` under `[matching]`.",
                self.name(profile)
            ),
            (Language::En, NoProfile::ProfileName { profile, name }) => format!(
                "No profile: `{name}` is the name of the profile {}, and names are no trigger words here. Add it as a trigger word of the profile, or set `name_is_trigger = true` under `[matching]`.",
                self.name(profile)
            ),
            (Language::Sv, NoProfile::NotAtStart) => {
                "Ingen profil: det finns triggerord, men inget står först (`position = \"start\"`).".into()
            }
            (Language::En, NoProfile::NotAtStart) => {
                "No profile: there are trigger words, but none stands first (`position = \"start\"`).".into()
            }
            (Language::Sv, NoProfile::NothingMatched) => {
                "Ingen profil: inget triggerord finns i ämnet.".into()
            }
            (Language::En, NoProfile::NothingMatched) => {
                "No profile: no trigger word is in the subject.".into()
            }
        }
    }

    fn lost(&self, lost: &Lost) -> String {
        let (name, word) = (self.name(&lost.hit.profile), &lost.hit.word);
        let because = match (self.language, &lost.because) {
            (Language::Sv, LostBecause::InsideWord(longer)) => format!("det ingår i `{longer}`"),
            (Language::En, LostBecause::InsideWord(longer)) => format!("it is a part of `{longer}`"),
            (Language::Sv, LostBecause::InsideName(name)) => format!("det ingår i profilnamnet `{name}`"),
            (Language::En, LostBecause::InsideName(name)) => {
                format!("it is a part of the profile name `{name}`")
            }
            (Language::Sv, LostBecause::LowerRank) => "profilen har lägre rang".into(),
            (Language::En, LostBecause::LowerRank) => "the profile has a lower rank".into(),
            (Language::Sv, LostBecause::FurtherRight) => "ett annat av profilens ord står före".into(),
            (Language::En, LostBecause::FurtherRight) => {
                "another word of the profile stands before it".into()
            }
            (Language::Sv, LostBecause::UsersOwnWord) => {
                "användaren har gett ordet till en annan profil".into()
            }
            (Language::En, LostBecause::UsersOwnWord) => {
                "the user has given the word to another profile".into()
            }
            (Language::Sv, LostBecause::NotAtStart) => "det står inte först".into(),
            (Language::En, LostBecause::NotAtStart) => "it does not stand first".into(),
            (Language::Sv, LostBecause::EventIgnored) => "händelsen räknas inte alls".into(),
            (Language::En, LostBecause::EventIgnored) => "the event does not count at all".into(),
        };
        match self.language {
            Language::Sv => format!("`{word}` ({name}) avgör inte: {because}."),
            Language::En => format!("`{word}` ({name}) does not decide: {because}."),
        }
    }

    fn warning(&self, warning: &Warning) -> String {
        let Warning::Negated { word } = warning;
        match self.language {
            Language::Sv => format!("Obs: ett nekande ord står före `{word}`; negation förstås inte."),
            Language::En => {
                format!("Note: a negating word stands before `{word}`; negation is not understood.")
            }
        }
    }
}
