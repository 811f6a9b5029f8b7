//! What an extension shows, in canonical fields: made from a profile, made from what Asterisk says, and back.
//!
//! Fields: `state`, `subtype`, `message`; with a lamp configured `device_state` (`BUSY` or `NOT_INUSE`, or
//! what else somebody put there); with AstDB's DND configured `dnd` (`YES` or empty). Both ways go through
//! the same cleaning, so what is told and what is read back afterwards are equal.
//!
//! Nothing here speaks to anybody.

use crate::model::{AsteriskState, Language, Outward, Profile, ProfileId, Shown, Wanted};

use super::config::{AsteriskConfig, Flavour};

/// Longest texts, in characters; in UTF-8 bytes twice as many, so that scripts with long characters get
/// fewer. Both in base64 then take 960 bytes at most, which leaves room in a line of 1,024 for the rest.
pub(super) const MESSAGE_CHARS: usize = 240;
const SUBTYPE_CHARS: usize = 120;

/// A device state that says the extension is closed, and AstDB's value for the same.
const CLOSED_LAMP: &str = "BUSY";
const OPEN_LAMP: &str = "NOT_INUSE";
pub(super) const DND_ON: &str = "YES";

/// Id of the standard profile that a bare `dnd` means.
const DO_NOT_DISTURB: &str = "do-not-disturb";

/// What an extension shows, before it is put into the fields that the configuration has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Face {
    pub(super) state: AsteriskState,
    pub(super) subtype: String,
    pub(super) message: String,
    pub(super) lamp: String,
    pub(super) dnd: bool,
}

impl Face {
    /// What shows on an Asterisk that was never told anything.
    pub(super) fn blank() -> Self {
        Self {
            state: AsteriskState::NotSet,
            subtype: String::new(),
            message: String::new(),
            lamp: OPEN_LAMP.to_owned(),
            dnd: false,
        }
    }

    /// What `wanted` looks like on this Asterisk.
    pub(super) fn wanted(config: &AsteriskConfig, wanted: &Wanted) -> Self {
        match wanted {
            Wanted::Profile(outward) => Self::profile(config, outward),
            Wanted::AsFound(shown) => Self::found(shown),
        }
    }

    fn profile(config: &AsteriskConfig, outward: &Outward) -> Self {
        let terms = &outward.terms.asterisk;
        let (subtype, message) = match config.flavour {
            Flavour::Plain => (clean(&outward.label, SUBTYPE_CHARS), clean(&outward.note, MESSAGE_CHARS)),
            Flavour::Freepbx if config.freepbx_note && !outward.note.is_empty() => {
                (String::new(), clean(&format!("{} {}", outward.label, outward.note), MESSAGE_CHARS))
            }
            Flavour::Freepbx => (String::new(), clean(&outward.label, MESSAGE_CHARS)),
        };
        Self { state: terms.state, subtype, message, lamp: lamp(terms.dnd).to_owned(), dnd: terms.dnd }
    }

    pub(super) fn found(shown: &Shown) -> Self {
        Self {
            state: state_named(shown.field("state")).unwrap_or(AsteriskState::NotSet),
            subtype: clean(shown.field("subtype"), SUBTYPE_CHARS),
            message: clean(shown.field("message"), MESSAGE_CHARS),
            lamp: canonical_lamp(shown.field("device_state")).to_owned(),
            dnd: shown.field("dnd") == DND_ON,
        }
    }

    /// From what Asterisk said.
    pub(super) fn read(state: AsteriskState, subtype: &str, message: &str, lamp: &str, dnd: bool) -> Self {
        Self {
            state,
            subtype: clean(subtype, SUBTYPE_CHARS),
            message: clean(message, MESSAGE_CHARS),
            lamp: canonical_lamp(lamp).to_owned(),
            dnd,
        }
    }

    /// The same with DND, and the lamp of it, on or off.
    #[must_use]
    pub(super) fn with_dnd(mut self, on: bool) -> Self {
        if self.dnd != on {
            self.dnd = on;
            self.lamp = lamp(on).to_owned();
        }
        self
    }

    /// In the fields that this configuration has.
    pub(super) fn shown(&self, config: &AsteriskConfig) -> Shown {
        let mut shown = Shown::of([
            ("state", state_name(self.state)),
            ("subtype", &self.subtype),
            ("message", &self.message),
        ]);
        if config.device_state.is_some() {
            shown.0.insert("device_state".to_owned(), self.lamp.clone());
        }
        if config.astdb_dnd {
            shown.0.insert("dnd".to_owned(), if self.dnd { DND_ON } else { "" }.to_owned());
        }
        shown
    }

    /// What people read of it: its text, else the state in words; and whether a lamp says busy beside it. `None` where
    /// nobody has set anything.
    pub(super) fn label(&self, language: Language) -> Option<String> {
        let texts = [&self.subtype, &self.message];
        let text = texts.into_iter().find(|text| !text.is_empty()).cloned();
        let words = text.or_else(|| state_words(self.state, language).map(str::to_owned));
        let closed = self.dnd || self.lamp != OPEN_LAMP;
        let busy = closed.then_some(match language {
            Language::Sv => "upptagen",
            Language::En => "busy",
        });
        match (words, busy) {
            (Some(words), Some(_)) if self.state == AsteriskState::Dnd => Some(words),
            (Some(words), Some(busy)) => Some(format!("{words}, {busy}")),
            (words, busy) => words.or(busy.map(str::to_owned)),
        }
    }

    /// The one profile that this means: by state and name, or by the bare state where there is no text.
    /// `None` where several, or none, would look like this.
    pub(super) fn profile_of(&self, flavour: Flavour, profiles: &[Profile]) -> Option<ProfileId> {
        let text = match flavour {
            Flavour::Plain => &self.subtype,
            Flavour::Freepbx => &self.message,
        };
        let same_state = || profiles.iter().filter(|profile| profile.pbx.asterisk.state == self.state);
        if self.subtype.is_empty() && self.message.is_empty() {
            let bare = |profile: &&Profile| match self.state {
                AsteriskState::Dnd => profile.id.as_str() == DO_NOT_DISTURB,
                AsteriskState::Available => profile.is_available,
                _ => false,
            };
            return same_state().find(bare).map(|profile| profile.id.clone());
        }
        let longest = same_state().filter_map(|profile| named_in(text, profile, flavour)).max()?;
        let mut found = same_state().filter(|profile| named_in(text, profile, flavour) == Some(longest));
        match (found.next(), found.next()) {
            (Some(profile), None) => Some(profile.id.clone()),
            _ => None,
        }
    }
}

/// Length of the profile's name that `text` is, or (FreePBX, where a return time may follow) starts with.
fn named_in(text: &str, profile: &Profile, flavour: Flavour) -> Option<usize> {
    let text = text.to_lowercase();
    let names = [Some(&profile.name_sv), Some(&profile.name_en), profile.label.as_ref()];
    let fits = |name: &String| {
        let limit = if flavour == Flavour::Plain { SUBTYPE_CHARS } else { MESSAGE_CHARS };
        let name = clean(name, limit).to_lowercase();
        let rest = text.strip_prefix(&name)?;
        let whole = rest.is_empty() || (flavour == Flavour::Freepbx && rest.starts_with(' '));
        (whole && !name.is_empty()).then_some(name.len())
    };
    names.into_iter().flatten().filter_map(fits).max()
}

/// Asterisk's word for a state.
pub(super) fn state_name(state: AsteriskState) -> &'static str {
    match state {
        AsteriskState::NotSet => "not_set",
        AsteriskState::Unavailable => "unavailable",
        AsteriskState::Available => "available",
        AsteriskState::Away => "away",
        AsteriskState::Xa => "xa",
        AsteriskState::Chat => "chat",
        AsteriskState::Dnd => "dnd",
    }
}

/// A state as people say it.
fn state_words(state: AsteriskState, language: Language) -> Option<&'static str> {
    let (sv, en) = match state {
        AsteriskState::NotSet => return None,
        AsteriskState::Unavailable => ("inte nåbar", "unavailable"),
        AsteriskState::Available => ("tillgänglig", "available"),
        AsteriskState::Away => ("borta", "away"),
        AsteriskState::Xa => ("borta längre", "away for long"),
        AsteriskState::Chat => ("nås i chatten", "free for chat"),
        AsteriskState::Dnd => ("stör ej", "do not disturb"),
    };
    Some(match language {
        Language::Sv => sv,
        Language::En => en,
    })
}

/// The state of that name.
pub(super) fn state_named(name: &str) -> Option<AsteriskState> {
    use AsteriskState::{Available, Away, Chat, Dnd, NotSet, Unavailable, Xa};
    [NotSet, Unavailable, Available, Away, Xa, Chat, Dnd]
        .into_iter()
        .find(|state| state_name(*state).eq_ignore_ascii_case(name))
}

fn lamp(closed: bool) -> &'static str {
    if closed { CLOSED_LAMP } else { OPEN_LAMP }
}

/// A lamp that is off has many words: a device that was never set is `UNKNOWN`, FreePBX writes `UNAVAILABLE`.
fn canonical_lamp(state: &str) -> &str {
    match state {
        "BUSY" | "INUSE" | "RINGING" | "RINGINUSE" | "ONHOLD" => state,
        _ => OPEN_LAMP,
    }
}

/// One line of text without control characters, cut at a character so that it and its base64 form fit.
fn clean(text: &str, chars: usize) -> String {
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let line = line.trim();
    let fits =
        |(place, (start, c)): &(usize, (usize, char))| *place < chars && start + c.len_utf8() <= 2 * chars;
    let end = line
        .char_indices()
        .enumerate()
        .take_while(fits)
        .last()
        .map_or(0, |(_, (start, c))| start + c.len_utf8());
    line[..end].trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::{AsteriskTerms, PbxTerms};
    use crate::pbx::asterisk_ami::testing::{config, outward, profile};

    #[test]
    fn a_profile_gives_name_and_return_time_a_place_each() {
        let shown = Face::wanted(&config(), &outward("Möte", "till 15:00", AsteriskState::Away, false));
        assert_eq!((shown.subtype.as_str(), shown.message.as_str()), ("Möte", "till 15:00"));
    }

    #[test]
    fn freepbx_gets_the_bare_name_in_the_message_so_that_its_panel_knows_it() {
        let mut config = config();
        config.flavour = Flavour::Freepbx;
        let wanted = outward("Möte", "till 15:00", AsteriskState::Away, false);
        let face = Face::wanted(&config, &wanted);
        assert_eq!((face.subtype.as_str(), face.message.as_str()), ("", "Möte"));
        config.freepbx_note = true;
        assert_eq!(Face::wanted(&config, &wanted).message, "Möte till 15:00");
    }

    #[test]
    fn only_configured_fields_are_shown() {
        let mut config = config();
        let wanted = outward("Stör ej", "", AsteriskState::Dnd, true);
        assert_eq!(
            Face::wanted(&config, &wanted).shown(&config),
            Shown::of([("state", "dnd"), ("subtype", "Stör ej"), ("message", "")])
        );
        config.device_state = Some("Custom:DND{ext}".to_owned().try_into().unwrap());
        config.astdb_dnd = true;
        let shown = Face::wanted(&config, &wanted).shown(&config);
        assert_eq!((shown.field("device_state"), shown.field("dnd")), ("BUSY", "YES"));
    }

    #[test]
    fn a_lamp_that_is_off_in_any_word_is_the_same() {
        for word in ["NOT_INUSE", "UNAVAILABLE", "UNKNOWN", "INVALID", ""] {
            assert_eq!(Face::read(AsteriskState::NotSet, "", "", word, false), Face::blank(), "{word}");
        }
        assert_eq!(Face::read(AsteriskState::NotSet, "", "", "RINGING", false).lamp, "RINGING");
    }

    #[test]
    fn texts_are_cut_at_a_character_and_lose_their_control_characters() {
        assert_eq!(clean("  a\r\nb\u{7}c ", 10), "a  b c");
        assert_eq!(clean(&"å".repeat(300), 240), "å".repeat(240));
        assert_eq!(clean(&"😀".repeat(300), 240), "😀".repeat(120));
        assert_eq!(clean("abc def", 4), "abc");
    }

    #[test]
    fn a_state_set_by_hand_is_recognised_by_state_and_name() {
        let profiles = [
            profile("out", "Ute", AsteriskState::Away),
            profile("out-working", "Ute på arbete", AsteriskState::Away),
            profile("trip", "Ute", AsteriskState::Xa),
        ];
        let face = |state, subtype: &str, message: &str| Face::read(state, subtype, message, "", false);
        let told = |face: Face, flavour| face.profile_of(flavour, &profiles).map(String::from);
        assert_eq!(told(face(AsteriskState::Away, "UTE", "x"), Flavour::Plain).as_deref(), Some("out"));
        assert_eq!(told(face(AsteriskState::Xa, "Ute", ""), Flavour::Plain).as_deref(), Some("trip"));
        assert_eq!(told(face(AsteriskState::Chat, "Ute", ""), Flavour::Plain), None);
        assert_eq!(told(face(AsteriskState::Away, "Utesluten", ""), Flavour::Plain), None);
        let long = face(AsteriskState::Away, "", "Ute på arbete till 15:00");
        assert_eq!(told(long, Flavour::Freepbx).as_deref(), Some("out-working"));
    }

    #[test]
    fn what_was_set_by_hand_is_read_in_words() {
        let read = |state, subtype: &str, message: &str, lamp: &str, language| {
            Face::read(state, subtype, message, lamp, false).label(language).unwrap_or_default()
        };
        use AsteriskState::{Away, Dnd, NotSet, Xa};
        assert_eq!(read(Xa, "Kurs", "hela dagen", "", Language::Sv), "Kurs");
        assert_eq!(read(Xa, "Kurs", "hela dagen", "BUSY", Language::Sv), "Kurs, upptagen");
        assert_eq!(read(Away, "", "snart åter", "", Language::Sv), "snart åter");
        assert_eq!(read(Away, "", "", "ONHOLD", Language::En), "away, busy");
        assert_eq!(read(Dnd, "", "", "BUSY", Language::En), "do not disturb");
        assert_eq!(read(NotSet, "", "", "BUSY", Language::Sv), "upptagen");
        assert_eq!(Face::blank().label(Language::Sv), None);
    }

    #[test]
    fn a_label_that_two_profiles_share_names_neither() {
        let mut sick = profile("sick", "Sjuk", AsteriskState::Xa);
        let mut parental = profile("parental-leave", "Föräldraledig", AsteriskState::Xa);
        sick.label = Some("Frånvarande".to_owned());
        parental.label = Some("Frånvarande".to_owned());
        let face = |name: &str| Face::read(AsteriskState::Xa, name, "", "", false);
        let profiles = [sick, parental];
        assert_eq!(face("Frånvarande").profile_of(Flavour::Plain, &profiles), None);
        assert_eq!(face("Sjuk").profile_of(Flavour::Plain, &profiles), Some(profiles[0].id.clone()));
    }

    #[test]
    fn a_bare_state_means_the_standard_profile_of_that_state() {
        let mut available = profile("available", "Tillgänglig", AsteriskState::Available);
        available.is_available = true;
        let profiles = [
            profile("meeting", "Möte", AsteriskState::Dnd),
            profile("do-not-disturb", "Stör ej", AsteriskState::Dnd),
            available,
        ];
        let meant = |state| Face::read(state, "", "", "", false).profile_of(Flavour::Plain, &profiles);
        assert_eq!(meant(AsteriskState::Dnd), Some(profiles[1].id.clone()));
        assert_eq!(meant(AsteriskState::Available), Some(profiles[2].id.clone()));
        assert_eq!(meant(AsteriskState::Away), None);
    }

    proptest! {
        #[test]
        fn what_was_found_is_put_back_as_it_was(
            state in 0_usize..7, subtype in "(\\PC|[\r\n]){0,200}", message in "(\\PC|[\r\n]){0,400}",
            lamp in "BUSY|UNKNOWN|ONHOLD", dnd: bool, freepbx: bool,
        ) {
            let names = ["not_set", "unavailable", "available", "away", "xa", "chat", "dnd"];
            let mut config = config();
            config.device_state = Some("Custom:DND{ext}".to_owned().try_into().unwrap());
            config.astdb_dnd = true;
            config.flavour = if freepbx { Flavour::Freepbx } else { Flavour::Plain };
            let found = Face::read(state_named(names[state]).unwrap(), &subtype, &message, &lamp, dnd);
            let shown = found.shown(&config);
            prop_assert_eq!(shown.field("state"), names[state]);
            prop_assert_eq!(Face::wanted(&config, &Wanted::AsFound(shown)), found);
        }

        #[test]
        fn every_profile_is_recognised_in_what_it_is_told_as(
            name in "[\\PC--[\\s]]\\PC{0,150}", freepbx: bool,
        ) {
            let mut config = config();
            config.flavour = if freepbx { Flavour::Freepbx } else { Flavour::Plain };
            let profile = profile("p", &name, AsteriskState::Away);
            let wanted = Wanted::Profile(Outward {
                profile: profile.id.clone(),
                label: name,
                note: String::new(),
                until: None,
                available_at: None,
                terms: PbxTerms {
                    asterisk: AsteriskTerms { state: AsteriskState::Away, dnd: false },
                    http: Default::default(),
                },
            });
            let face = Face::wanted(&config, &wanted);
            let found = face.profile_of(config.flavour, std::slice::from_ref(&profile));
            prop_assert_eq!(found, Some(profile.id));
        }
    }
}
