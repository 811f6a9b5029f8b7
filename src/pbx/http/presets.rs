//! Settings to begin from, for systems whose interface is published.
//!
//! They were made from the published descriptions and tried against stand-ins written from the same
//! text, never against the real systems: try them with one extension before all. Hosts and secrets
//! are placeholders to be filled in. The terms that the profiles need (`{profile.pbx.NAME}`) are
//! told in each note.

/// One preset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Preset {
    /// Short name.
    pub name: &'static str,
    /// The table `[pbx.http]`, without its heading.
    pub toml: &'static str,
    /// What to know and fill in.
    pub note: &'static str,
}

const PRESETS: [Preset; 5] = [
    Preset {
        name: "wazo",
        toml: include_str!("presets/wazo.toml"),
        note: "Wazo Platform, chatd and confd. Profiles need `state`: available, unavailable, invisible or away. \
               Several profiles share a state, so the status text tells them apart for people only.",
    },
    Preset {
        name: "yeastar-p",
        toml: include_str!("presets/yeastar_p.toml"),
        note: "Yeastar P-Series. Profiles need `status`: available, away, business_trip, do_not_disturb, lunch or \
               off_work. No text: callers hear what the PBX has for the status. The codes under `success.denied` \
               are to be compared with the error list of the firmware.",
    },
    Preset {
        name: "3cx-v20",
        toml: include_str!("presets/threecx_v20.toml"),
        note: "3CX V20, Configuration API; wants an Enterprise licence and an API client of its own: only one token \
               of a client is valid at a time. Profiles need `name`: Available, Away, Out of office, Custom 1 or \
               Custom 2. Switch the PBX's own calendar presence (`UseCalendarEventsAsPresence`) off.",
    },
    Preset {
        name: "broadworks-personal-assistant",
        toml: include_str!("presets/broadworks.toml"),
        note: "Cisco BroadWorks, Xsi-Actions, release 21 or newer, service Personal Assistant. Profiles need \
               `presence`: Business Trip, Gone for the Day, Lunch, Meeting, Out Of Office, Temporarily Out, Training, \
               Unavailable or Vacation. Answers are XML, so nothing is read back. The user's id is taken to be \
               EXTENSION@pbx.example.com.",
    },
    Preset {
        name: "webhook",
        toml: include_str!("presets/webhook.toml"),
        note: "A receiver of your own, after Standard Webhooks: check `webhook-signature` in constant time and that \
               `webhook-timestamp` is within five minutes. Fields without a value are null.",
    },
];

/// All presets.
pub fn presets() -> &'static [Preset] {
    &PRESETS
}
