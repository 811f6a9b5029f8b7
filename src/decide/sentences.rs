//! An [`Explanation`] in plain sentences, for those who answer the telephone about telephones.
//!
//! Names of profiles, trigger words and times are all that the sentences hold of a calendar.

use jiff::{Timestamp, tz::TimeZone};

use super::{
    course::{Beaten, Phase},
    explain::{Decider, Explanation, LostEvent, OverrideNote, WhyLost},
    note::moment,
};
use crate::{
    model::{Interval, Language, ProfileId, ShowAs},
    timetable::{Cause, Exclusion, HeldBack, Hit, Lost, LostBecause, MatchRule, Owner, Warning},
};

pub(super) fn lines(explanation: &Explanation, language: Language, zone: &TimeZone) -> Vec<String> {
    let teller = Teller { explanation, language, zone };
    let mut lines = vec![teller.shows()];
    lines.extend(explanation.override_.as_ref().map(|known| teller.overridden(known)));
    if let Some(decider) = &explanation.decider {
        lines.extend(teller.decider(decider));
    }
    lines.push(teller.base());
    lines.extend(explanation.losers.iter().map(|lost| teller.lost_event(lost)));
    lines.push(teller.next());
    lines
}

pub(super) fn should_show(explanation: &Explanation, language: Language, zone: &TimeZone) -> String {
    Teller { explanation, language, zone }.should_show()
}

/// Says one thing in the language asked for.
struct Teller<'a> {
    explanation: &'a Explanation,
    language: Language,
    zone: &'a TimeZone,
}

impl Teller<'_> {
    fn say<'t>(&self, sv: &'t str, en: &'t str) -> &'t str {
        self.language.say(sv, en)
    }

    fn name(&self, profile: Option<&ProfileId>) -> String {
        let Some(id) = profile else {
            return self.say("det som sattes på telefonen", "what was set on the phone").to_owned();
        };
        let name = self.explanation.names.get(id).map(|names| match self.language {
            Language::Sv => names.sv.as_str(),
            Language::En => names.en.as_str(),
        });
        format!("“{}”", name.unwrap_or(id.as_str()))
    }

    fn moment(&self, at: Timestamp) -> String {
        moment(self.language, self.zone, self.explanation.at, at)
    }

    fn times(&self, interval: Interval) -> String {
        format!("{}–{}", self.moment(interval.start), self.moment(interval.end))
    }

    fn shows(&self) -> String {
        let (at, name) = (self.moment(self.explanation.at), self.name(self.explanation.profile.as_ref()));
        match self.language {
            Language::Sv => format!("Klockan {at} visas {name}."),
            Language::En => format!("At {at} the phone shows {name}."),
        }
    }

    fn should_show(&self) -> String {
        let (at, name) = (self.moment(self.explanation.at), self.name(self.explanation.profile.as_ref()));
        match self.language {
            Language::Sv => format!("Klockan {at} ska {name} visas."),
            Language::En => format!("At {at} the phone should show {name}."),
        }
    }

    fn overridden(&self, known: &OverrideNote) -> String {
        let (set_at, name) = (self.moment(known.set_at), self.name(known.profile.as_ref()));
        let event = self.times(known.event_time);
        let end = known.until.filter(|until| *until < known.event_time.end).unwrap_or(known.event_time.end);
        let end = self.moment(end);
        match self.language {
            Language::Sv => format!(
                "Det valdes för hand kl. {set_at} ({name}) och gäller före kalendern under händelsen {event}, \
                 senast till {end}."
            ),
            Language::En => format!(
                "It was chosen by hand at {set_at} ({name}) and wins over the calendar during the event \
                 {event}, until {end} at the latest."
            ),
        }
    }

    fn decider(&self, decider: &Decider) -> Vec<String> {
        let times = self.times(decider.interval);
        let cause = self.cause(&decider.cause);
        let mut lines = vec![match self.language {
            Language::Sv => format!("Det kommer av händelsen {times}: {cause}."),
            Language::En => format!("That comes from the event {times}: {cause}."),
        }];
        lines.extend(self.phase(decider.phase).map(str::to_owned));
        lines.extend(decider.words_lost.iter().map(|lost| self.lost_word(lost)));
        lines.extend(decider.warnings.iter().map(|warning| self.warning(warning)));
        lines.extend(decider.held_back.as_ref().map(|held| self.held_back(held)));
        lines
    }

    fn cause(&self, cause: &Cause) -> String {
        match (cause, self.language) {
            (Cause::Word(hit), _) => self.hit(hit),
            (Cause::Fallback(show_as, _), Language::Sv) => {
                format!("inget triggerord, men händelsen visas som {}", self.show_as(*show_as))
            }
            (Cause::Fallback(show_as, _), Language::En) => {
                format!("no trigger word, but the event shows as {}", self.show_as(*show_as))
            }
        }
    }

    fn hit(&self, hit: &Hit) -> String {
        let word = &hit.word;
        let rule = match hit.rule {
            MatchRule::Word => self.say("som helt ord", "as a whole word"),
            MatchRule::Prefix => self.say("som början på ett ord", "as the start of a word"),
            MatchRule::Contains => self.say("var som helst i ämnesraden", "anywhere in the subject"),
            MatchRule::Name => self.say("som profilens namn", "as the profile's name"),
            MatchRule::Category => self.say("som kategori", "as a category"),
        };
        let owner = match hit.owner {
            Owner::Company => self.say("företagets ord", "the company's word"),
            Owner::User => self.say("användarens eget ord", "the user's own word"),
        };
        match self.language {
            Language::Sv => format!("triggerordet “{word}” hittades {rule} ({owner})"),
            Language::En => format!("the trigger word “{word}” was found {rule} ({owner})"),
        }
    }

    fn phase(&self, phase: Phase) -> Option<&'static str> {
        Some(match (phase, self.language) {
            (Phase::Own, _) => return None,
            (Phase::Lead, Language::Sv) => "Händelsen har inte börjat; profilen sätts en stund före.",
            (Phase::Lead, Language::En) => "The event has not begun; the profile is set some time before it.",
            (Phase::Tail, Language::Sv) => "Händelsen är slut; profilen ligger kvar en stund efter.",
            (Phase::Tail, Language::En) => "The event is over; the profile stays for some time after it.",
            (Phase::Bridge, Language::Sv) => {
                "Händelsen är slut; uppehållet till nästa händelse med samma profil är så kort att det överbryggas."
            }
            (Phase::Bridge, Language::En) => {
                "The event is over; the gap to the next event of the same profile is short enough to be bridged."
            }
        })
    }

    fn lost_word(&self, lost: &Lost) -> String {
        let (word, profile) = (&lost.hit.word, self.name(Some(&lost.hit.profile)));
        let why = match (&lost.because, self.language) {
            (LostBecause::InsideWord(outer), Language::Sv) => format!("det ingår i triggerordet “{outer}”"),
            (LostBecause::InsideWord(outer), Language::En) => {
                format!("it is part of the trigger word “{outer}”")
            }
            (LostBecause::InsideName(outer), Language::Sv) => format!("det ingår i profilnamnet “{outer}”"),
            (LostBecause::InsideName(outer), Language::En) => {
                format!("it is part of the profile name “{outer}”")
            }
            (other, _) => self.why_word_lost(other).to_owned(),
        };
        match self.language {
            Language::Sv => format!("Ordet “{word}” ({profile}) avgjorde inte: {why}."),
            Language::En => format!("The word “{word}” ({profile}) did not decide: {why}."),
        }
    }

    fn why_word_lost(&self, because: &LostBecause) -> &'static str {
        match because {
            LostBecause::InsideWord(_) | LostBecause::InsideName(_) => {
                self.say("det ingår i ett längre ord", "it is part of a longer word")
            }
            LostBecause::LowerRank => self.say("profilen har lägre rang", "the profile has a lower rank"),
            LostBecause::FurtherRight => self.say(
                "ett annat ord för samma profil avgjorde före",
                "another word of the same profile decided before it",
            ),
            LostBecause::UsersOwnWord => self.say(
                "användaren har gett samma ord en annan profil",
                "the user has given the same word to another profile",
            ),
            LostBecause::NotAtStart => {
                self.say("det står inte först i ämnesraden", "it does not stand first in the subject")
            }
            LostBecause::EventIgnored => self.say("händelsen räknas inte", "the event does not count"),
        }
    }

    fn warning(&self, warning: &Warning) -> String {
        let Warning::Negated { word } = warning;
        match self.language {
            Language::Sv => {
                format!("Obs: före “{word}” står ett nekande ord, och sådana förstås inte.")
            }
            Language::En => {
                format!("Note: a negating word stands before “{word}”, and such words are not understood.")
            }
        }
    }

    fn held_back(&self, held: &HeldBack) -> String {
        let now = match (&held.profile, self.language) {
            (Some(profile), _) => self.name(Some(profile)),
            (None, Language::Sv) => "ingen profil".to_owned(),
            (None, Language::En) => "no profile".to_owned(),
        };
        match self.language {
            Language::Sv => format!(
                "En arrangör utanför företaget har ändrat ämnesraden efter att inbjudan accepterades (skulle ge \
                 {now}); ändringen styr inte telefonen."
            ),
            Language::En => format!(
                "An organiser outside the company changed the subject after the invitation was accepted (it \
                 would give {now}); the change does not steer the phone."
            ),
        }
    }

    fn base(&self) -> String {
        let base = &self.explanation.base;
        let name = self.name(base.profile.as_ref());
        let mut line = match self.language {
            Language::Sv => format!("Utan kalendern visas {name}"),
            Language::En => format!("Without the calendar the phone shows {name}"),
        };
        if let Some(set_at) = base.set_at {
            line += self.say(", satt för hand ", ", set by hand ");
            line += &self.moment(set_at);
        }
        if let Some(until) = base.until {
            line += self.say(", till ", ", until ");
            line += &self.moment(until);
        }
        line.push('.');
        if base.locked {
            line += self.say(
                " Den profilen är låst: kalendern ändrar den inte.",
                " That profile is locked: the calendar does not change it.",
            );
        }
        if base.hides_older {
            line += self.say(
                " Det som sattes för hand tidigare är dolt sedan en händelse kom efter.",
                " What was set by hand before is hidden, as an event came after it.",
            );
        }
        line
    }

    fn lost_event(&self, lost: &LostEvent) -> String {
        let times = self.times(lost.interval);
        let mut what = match &lost.profile {
            Some(profile) => self.name(Some(profile)),
            None => self.say("utan känd profil", "without a known profile").to_owned(),
        };
        if let Some(word) = &lost.word {
            what += &format!(", “{word}”");
        }
        let why = match &lost.why {
            WhyLost::Beaten(beaten) => self.beaten(*beaten).to_owned(),
            WhyLost::Excluded(reason) => self.excluded(*reason),
            WhyLost::Overridden => {
                self.say("ett val för hand gäller före den", "a choice made by hand wins over it").to_owned()
            }
            WhyLost::BaseLocked => {
                self.say("det som är satt för hand är låst", "what was set by hand is locked").to_owned()
            }
        };
        match self.language {
            Language::Sv => format!("Händelsen {times} ({what}) avgör inte: {why}."),
            Language::En => format!("The event {times} ({what}) does not decide: {why}."),
        }
    }

    fn beaten(&self, beaten: Beaten) -> &'static str {
        match beaten {
            Beaten::Hole => self.say(
                "en kortare händelse inom den säger tillgänglig",
                "a shorter event within it says available",
            ),
            Beaten::Rank => self
                .say("en annan händelses profil har högre rang", "another event's profile has a higher rank"),
            Beaten::Shorter => self.say(
                "en annan händelse med samma profil är kortare",
                "another event of the same profile is shorter",
            ),
            Beaten::LaterStart => self.say(
                "en lika lång händelse med samma profil började senare",
                "an equally long event of the same profile began later",
            ),
            Beaten::LaterModified => self.say(
                "en likadan händelse ändrades senare",
                "an event of the same kind and time was changed later",
            ),
            Beaten::SmallerId => self.say(
                "en likadan händelse valdes, för att alltid välja samma",
                "an event of the same kind and time was picked, so that the same is picked always",
            ),
            Beaten::NotOwnTime => self.say(
                "den är inte i sin egen tid, bara strax före eller efter",
                "it is not in its own time, only shortly before or after",
            ),
        }
    }

    fn excluded(&self, reason: Exclusion) -> String {
        let why = match reason {
            Exclusion::Cancelled => self.say("den är inställd", "it is cancelled"),
            Exclusion::CancellationMark => {
                self.say("ämnesraden säger att den är inställd", "its subject says that it is cancelled")
            }
            Exclusion::OptOutMark => {
                self.say("ämnesraden börjar med *", "its subject starts with *")
            }
            Exclusion::Declined => self.say("inbjudan är avböjd", "the invitation was declined"),
            Exclusion::Unanswered => {
                self.say("inbjudan är inte besvarad", "the invitation has not been answered")
            }
            Exclusion::Tentative => self.say(
                "inbjudan är bara preliminärt accepterad",
                "the invitation was accepted only tentatively",
            ),
            Exclusion::FreeInvitation => self.say(
                "den är någon annans och visas som ledig",
                "it is somebody else's and shows as free",
            ),
            Exclusion::Private => {
                self.say("den är privat, och privata räknas inte", "it is private, and private ones do not count")
            }
            Exclusion::AllDay => self.say(
                "den är en heldagshändelse, och sådana räknas inte",
                "it lasts all day, and such events do not count",
            ),
            Exclusion::ShowsAs(show_as) => {
                let show_as = self.show_as(show_as);
                return match self.language {
                    Language::Sv => format!("den visas som {show_as}, och sådana räknas inte"),
                    Language::En => format!("it shows as {show_as}, and such events do not count"),
                };
            }
            Exclusion::ExternalOrganizer => self.say(
                "arrangören är utanför företaget, och sådana räknas inte",
                "its organiser is outside the company, and such events do not count",
            ),
            Exclusion::ZeroLength => self.say("den slutar när den börjar", "it ends when it begins"),
            Exclusion::SubjectNotReadable => {
                self.say("ämnesraden får inte läsas", "its subject may not be read")
            }
            Exclusion::HeldWithout => self.say(
                "ordet kom dit från en arrangör utanför företaget efter att inbjudan accepterades",
                "the word was put there by an organiser outside the company after the invitation was accepted",
            ),
        };
        why.to_owned()
    }

    fn show_as(&self, show_as: ShowAs) -> &'static str {
        match show_as {
            ShowAs::Free => self.say("ledig", "free"),
            ShowAs::Tentative => self.say("preliminär", "tentative"),
            ShowAs::Busy => self.say("upptagen", "busy"),
            ShowAs::Oof => self.say("frånvarande", "away"),
            ShowAs::WorkingElsewhere => self.say("arbetar någon annanstans", "working elsewhere"),
            ShowAs::Unknown => self.say("något okänt", "something unknown"),
        }
    }

    fn next(&self) -> String {
        let changes: Vec<String> = self
            .explanation
            .next_changes
            .iter()
            .map(|change| {
                let (at, name) = (self.moment(change.at), self.name(change.profile.as_ref()));
                match self.language {
                    Language::Sv => format!("{at} till {name}"),
                    Language::En => format!("at {at} to {name}"),
                }
            })
            .collect();
        match (changes.as_slice(), self.language) {
            ([], Language::Sv) => "Ingen ändring är känd.".to_owned(),
            ([], Language::En) => "No change is known.".to_owned(),
            (changes, Language::Sv) => format!("Det ändras {}.", changes.join(", sedan ")),
            (changes, Language::En) => format!("It changes {}.", changes.join(", then ")),
        }
    }
}
