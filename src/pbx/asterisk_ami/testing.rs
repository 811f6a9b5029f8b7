//! What the tests of this driver share: short ways to make values, and a small Asterisk on a real socket.
//!
//! The fake knows logins, presence states, device states and AstDB, and answers in the words of Asterisk 22.
//! The tests against a real Asterisk are in `tests/it`.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{BufRead, BufReader, Write as _},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{Arc, Mutex},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use jiff::Timestamp;
use tokio::sync::watch;

use super::AsteriskConfig;
use crate::{
    clock::{Clock, Sleep},
    model::{AsteriskState, AsteriskTerms, Outward, PbxTerms, Profile, Wanted},
};

pub(super) fn config() -> AsteriskConfig {
    toml::from_str("host = '127.0.0.1'\nusername = 'narvaro'\nsecret = 'narvaro-test'").unwrap()
}

pub(super) fn config_for(asterisk: &FakeAsterisk) -> AsteriskConfig {
    AsteriskConfig { port: asterisk.port, ..config() }
}

fn terms(state: AsteriskState, dnd: bool) -> PbxTerms {
    PbxTerms { asterisk: AsteriskTerms { state, dnd }, http: BTreeMap::new() }
}

pub(super) fn outward(label: &str, note: &str, state: AsteriskState, dnd: bool) -> Wanted {
    Wanted::Profile(Outward {
        profile: "any".parse().unwrap(),
        label: label.to_owned(),
        note: note.to_owned(),
        until: None,
        available_at: None,
        terms: terms(state, dnd),
    })
}

pub(super) fn profile(id: &str, name: &str, state: AsteriskState) -> Profile {
    Profile {
        id: id.parse().unwrap(),
        name_sv: name.to_owned(),
        name_en: format!("{name} in English"),
        label: None,
        sensitive: false,
        triggers: Vec::new(),
        own_triggers: Vec::new(),
        before_start_secs: 0,
        after_end_secs: 0,
        calendar_may_not_override: false,
        is_available: false,
        pbx: terms(state, false),
    }
}

/// A clock that stands until it is moved.
pub(super) struct StillClock(watch::Sender<Timestamp>);

impl StillClock {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self(watch::Sender::new(Timestamp::UNIX_EPOCH)))
    }

    pub(super) fn advance(&self, seconds: i64) {
        self.0.send_modify(|now| *now += jiff::SignedDuration::from_secs(seconds));
    }
}

impl Clock for StillClock {
    fn now(&self) -> Timestamp {
        *self.0.borrow()
    }

    fn sleep_until(&self, at: Timestamp) -> Sleep {
        let mut now = self.0.subscribe();
        Box::pin(async move { drop(now.wait_for(|now| *now >= at).await) })
    }
}

#[derive(Default)]
struct Inside {
    journal: String,
    /// Presence as stored: state, subtype and message, the texts in the clear.
    presence: BTreeMap<String, (String, String, String)>,
    devices: BTreeMap<String, String>,
    database: BTreeMap<String, String>,
    refused: BTreeMap<String, String>,
    muted: BTreeSet<String>,
    changes_left: usize,
    connections: Vec<TcpStream>,
}

/// A small Asterisk. Its threads end with the test's process.
pub(super) struct FakeAsterisk {
    pub(super) port: u16,
    inside: Arc<Mutex<Inside>>,
}

impl FakeAsterisk {
    pub(super) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let inside = Arc::new(Mutex::new(Inside::default()));
        let shared = Arc::clone(&inside);
        std::thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || serve(stream, &shared));
            }
        });
        Self { port, inside }
    }

    /// All that was ever received.
    pub(super) fn journal(&self) -> String {
        self.inside.lock().unwrap().journal.clone()
    }

    /// Ends all connections without a word.
    pub(super) fn cut(&self) {
        for connection in self.inside.lock().unwrap().connections.drain(..) {
            drop(connection.shutdown(Shutdown::Both));
        }
    }

    /// Says this on all connections.
    pub(super) fn say(&self, text: &str) {
        for mut connection in &self.inside.lock().unwrap().connections {
            connection.write_all(text.as_bytes()).unwrap();
        }
    }

    /// Answers that action with an error from now on.
    pub(super) fn refuse(&self, action: &str, words: &str) {
        self.inside.lock().unwrap().refused.insert(action.to_owned(), words.to_owned());
    }

    /// Does not answer that action from now on.
    pub(super) fn mute(&self, action: &str) {
        self.inside.lock().unwrap().muted.insert(action.to_owned());
    }

    /// Adds to the message after each of the next so many readings of it.
    pub(super) fn change_while_reading(&self, times: usize) {
        self.inside.lock().unwrap().changes_left = times;
    }

    pub(super) fn presence(&self, provider: &str) -> (String, String, String) {
        self.inside.lock().unwrap().presence.get(provider).cloned().unwrap_or_default()
    }

    pub(super) fn set_presence(&self, provider: &str, state: &str, subtype: &str, message: &str) {
        let presence = (state.to_owned(), subtype.to_owned(), message.to_owned());
        self.inside.lock().unwrap().presence.insert(provider.to_owned(), presence);
    }

    pub(super) fn device(&self, name: &str) -> String {
        self.inside.lock().unwrap().devices.get(name).cloned().unwrap_or_default()
    }

    pub(super) fn stored(&self, key: &str) -> Option<String> {
        self.inside.lock().unwrap().database.get(key).cloned()
    }

    pub(super) fn store(&self, key: &str, value: &str) {
        self.inside.lock().unwrap().database.insert(key.to_owned(), value.to_owned());
    }
}

fn serve(mut stream: TcpStream, inside: &Mutex<Inside>) {
    stream.write_all(b"Asterisk Call Manager/11.0.0\r\n").unwrap();
    inside.lock().unwrap().connections.push(stream.try_clone().unwrap());
    let mut headers = BTreeMap::new();
    for line in BufReader::new(stream.try_clone().unwrap()).lines() {
        let Ok(line) = line else { return };
        let mut inside = inside.lock().unwrap();
        inside.journal.push_str(&line);
        inside.journal.push('\n');
        if let Some((key, value)) = line.split_once(": ") {
            headers.insert(key.to_owned(), value.to_owned());
            continue;
        }
        let answer = inside.answer(&std::mem::take(&mut headers));
        if stream.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

impl Inside {
    fn answer(&mut self, action: &BTreeMap<String, String>) -> String {
        let header = |key: &str| action.get(key).map_or("", String::as_str);
        let id = header("ActionID");
        let good = |rest: &str| format!("Response: Success\r\nActionID: {id}\r\n{rest}\r\n");
        let bad = |words: &str| format!("Response: Error\r\nActionID: {id}\r\nMessage: {words}\r\n\r\n");
        let key = format!("{}/{}", header("Family"), header("Key"));
        if self.muted.contains(header("Action")) {
            return String::new();
        }
        if let Some(words) = self.refused.get(header("Action")) {
            return bad(words);
        }
        match header("Action") {
            "Challenge" => good("Challenge: 12345\r\n"),
            // `printf 12345narvaro-test | md5sum`
            "Login"
                if header("Key") == "c3e4fd71379216a265afe4bffda108ef"
                    || header("Secret") == "narvaro-test" =>
            {
                good("Message: Authentication accepted\r\n")
                    + "Event: FullyBooted\r\nPrivilege: system,all\r\nStatus: Fully Booted\r\n\r\n"
            }
            "Login" => bad("Authentication failed"),
            "Ping" => good("Ping: Pong\r\n"),
            "CoreSettings" => good("AMIversion: 11.0.0\r\nAsteriskVersion: 22.10.1\r\n"),
            "Setvar" => match self.set_variable(header("Variable"), header("Value")) {
                Some(event) => good("Message: Variable Set\r\n") + &event,
                None => bad("Variable not set"),
            },
            "Getvar" => good(&format!("Value: {}\r\n", self.variable(header("Variable")))),
            "DBPut" => {
                self.database.insert(key, header("Val").to_owned());
                good("Message: Updated database successfully\r\n")
            }
            "DBDel" if self.database.remove(&key).is_some() => good("Message: Key deleted successfully\r\n"),
            "DBDel" => bad("Database entry could not be deleted"),
            "DBGet" => match self.database.get(&key) {
                Some(value) => {
                    good("EventList: start\r\nMessage: Result will follow\r\n")
                        + &format!("Event: DBGetResponse\r\nVal: {value}\r\nActionID: {id}\r\n\r\n")
                        + &format!("Event: DBGetComplete\r\nActionID: {id}\r\nEventList: Complete\r\n\r\n")
                }
                None => bad("Database entry not found"),
            },
            _ => bad("Invalid/unknown command"),
        }
    }

    fn set_variable(&mut self, variable: &str, value: &str) -> Option<String> {
        let (function, name) = variable.strip_suffix(')')?.split_once('(')?;
        match function {
            "DEVICE_STATE" => {
                self.devices.insert(name.to_owned(), value.to_owned());
                Some(format!("Event: DeviceStateChange\r\nDevice: {name}\r\nState: {value}\r\n\r\n"))
            }
            "PRESENCE_STATE" => {
                let [state, subtype, message, "e"] = value.split(',').collect::<Vec<_>>()[..] else {
                    return None;
                };
                let text = |part| String::from_utf8(BASE64_STANDARD.decode(part).ok()?).ok();
                let presence = (state.to_owned(), text(subtype)?, text(message)?);
                let (_, subtype, message) = &presence;
                let event = format!(
                    "Event: PresenceStateChange\r\nPresentity: {name}\r\nStatus: {state}\r\n\
                     Subtype: {subtype}\r\nMessage: {message}\r\n\r\n"
                );
                self.presence.insert(name.to_owned(), presence);
                Some(event)
            }
            _ => None,
        }
    }

    fn variable(&mut self, variable: &str) -> String {
        let Some((function, arguments)) = variable.strip_suffix(')').and_then(|text| text.split_once('('))
        else {
            return String::new();
        };
        let (name, part) = arguments.split_once(',').unwrap_or((arguments, ""));
        let (state, subtype, message) =
            self.presence.get(name).cloned().unwrap_or(("not_set".to_owned(), String::new(), String::new()));
        match (function, part) {
            ("DEVICE_STATE", _) => self.devices.get(name).cloned().unwrap_or("UNKNOWN".to_owned()),
            ("PRESENCE_STATE", "value") => state,
            ("PRESENCE_STATE", "subtype,e") => BASE64_STANDARD.encode(subtype),
            ("PRESENCE_STATE", "message,e") => {
                if self.changes_left > 0 {
                    self.changes_left -= 1;
                    self.presence.entry(name.to_owned()).or_default().2.push('!');
                }
                BASE64_STANDARD.encode(message)
            }
            _ => String::new(),
        }
    }
}
