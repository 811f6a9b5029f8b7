//! The Asterisk stand-in: the manager interface (AMI) with custom presence, custom device
//! states and the AstDB, as strict as Asterisk 22 about lines, commas and injected headers.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use jiff::Timestamp;
use md5::{Digest, Md5};
use rand::Rng;
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{mpsc, watch},
};
use tokio_util::sync::CancellationToken;

use crate::{SimOptions, journal::Record, lock, world::World};

const MAX_LINE: usize = 1_024;
const MAX_LINES: usize = 128;
const STATES: [&str; 7] = ["not_set", "unavailable", "available", "away", "xa", "chat", "dnd"];
const DEVICE_STATES: [&str; 8] =
    ["NOT_INUSE", "INUSE", "BUSY", "INVALID", "UNAVAILABLE", "RINGING", "RINGINUSE", "ONHOLD"];
const ACTION_HEADERS: [&str; 19] = [
    "action",
    "actionid",
    "username",
    "secret",
    "events",
    "authtype",
    "key",
    "variable",
    "value",
    "channel",
    "family",
    "val",
    "provider",
    "exten",
    "context",
    "eventmask",
    "device",
    "filter",
    "command",
];

/// The presence of an extension.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AmiPresence {
    /// One of Asterisk's presence states.
    pub state: String,
    /// Subtype, decoded.
    pub subtype: String,
    /// Message, decoded.
    pub message: String,
}

impl AmiPresence {
    fn unset() -> Self {
        Self { state: "not_set".to_owned(), ..Self::default() }
    }
}

/// Knobs of the manager interface.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AmiKnobs {
    /// New connections are closed at once.
    pub down: bool,
    /// Every login fails.
    pub refuse_logins: bool,
    /// Delay before every answer.
    pub slow_ms: u64,
    /// Actions are taken, but never answered.
    pub mute: bool,
    /// Delay before a failed login is answered; Asterisk waits a second.
    pub login_failure_ms: Option<u64>,
    /// Next so many `Setvar` of presence fail.
    pub fail_setvar: u32,
}

/// A manager account.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AmiAccount {
    /// Name.
    pub username: String,
    /// Secret.
    pub secret: String,
    /// Whether it may read class `system`, and so sees `FullyBooted`.
    #[serde(default = "yes")]
    pub system: bool,
}

fn yes() -> bool {
    true
}

pub(crate) struct AmiState {
    store: Mutex<Store>,
    knobs: Mutex<AmiKnobs>,
    accounts: Mutex<HashMap<String, AmiAccount>>,
    sessions: Mutex<HashMap<u64, Session>>,
    next_session: AtomicU64,
    changed: watch::Sender<u64>,
    booted: Mutex<(Timestamp, Instant)>,
}

#[derive(Default)]
struct Store {
    presence: BTreeMap<String, AmiPresence>,
    devices: BTreeMap<String, String>,
    db: BTreeMap<(String, String), String>,
}

struct Session {
    out: mpsc::UnboundedSender<Vec<u8>>,
    events: bool,
    system: bool,
    logged_in: bool,
    end: CancellationToken,
}

impl AmiState {
    pub(crate) fn new(options: &SimOptions, now: Timestamp) -> Self {
        let accounts =
            options.ami_accounts.iter().map(|account| (account.username.clone(), account.clone())).collect();
        Self {
            store: Mutex::default(),
            knobs: Mutex::default(),
            accounts: Mutex::new(accounts),
            sessions: Mutex::default(),
            next_session: AtomicU64::new(0),
            changed: watch::Sender::new(0),
            booted: Mutex::new((now, Instant::now())),
        }
    }

    pub(crate) fn knobs(&self) -> AmiKnobs {
        lock(&self.knobs).clone()
    }

    pub(crate) fn turn(&self, turn: impl FnOnce(&mut AmiKnobs)) -> AmiKnobs {
        let mut knobs = lock(&self.knobs);
        turn(&mut knobs);
        knobs.clone()
    }

    pub(crate) fn add_account(&self, account: AmiAccount) {
        lock(&self.accounts).insert(account.username.clone(), account);
    }

    pub(crate) fn presence(&self, extension: &str) -> AmiPresence {
        lock(&self.store).presence.get(extension).cloned().unwrap_or_else(AmiPresence::unset)
    }

    pub(crate) fn all(&self) -> BTreeMap<String, AmiPresence> {
        lock(&self.store).presence.clone()
    }

    pub(crate) fn device(&self, name: &str) -> Option<String> {
        lock(&self.store).devices.get(name).cloned()
    }

    pub(crate) fn db(&self, family: &str, key: &str) -> Option<String> {
        lock(&self.store).db.get(&(family.to_owned(), key.to_owned())).cloned()
    }

    pub(crate) fn set_db(
        &self,
        world: &World,
        family: &str,
        key: &str,
        value: Option<&str>,
        by_hand: bool,
    ) -> bool {
        let at = (family.to_owned(), key.to_owned());
        let known = {
            let mut store = lock(&self.store);
            match value {
                Some(value) => {
                    store.db.insert(at, value.to_owned());
                    true
                }
                None => store.db.remove(&at).is_some(),
            }
        };
        if known {
            self.wrote(world, "db", &format!("{family}/{key}"), value.unwrap_or_default(), by_hand);
        }
        known
    }

    pub(crate) fn sessions(&self) -> usize {
        lock(&self.sessions).values().filter(|session| session.logged_in).count()
    }

    pub(crate) fn watch(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    fn touched(&self) {
        self.changed.send_modify(|count| *count += 1);
    }

    fn wrote(&self, world: &World, what: &'static str, name: &str, value: &str, by_hand: bool) {
        world.journal.write(Record::AmiWrite {
            what,
            name: name.to_owned(),
            value: value.to_owned(),
            by_hand,
        });
        self.touched();
    }

    pub(crate) fn set_presence(&self, world: &World, extension: &str, presence: AmiPresence, by_hand: bool) {
        let AmiPresence { state, subtype, message } = presence.clone();
        lock(&self.store).presence.insert(extension.to_owned(), presence);
        self.wrote(world, "presence", extension, &format!("{state},{subtype},{message}"), by_hand);
        // A control character comes out raw here, as it does in Asterisk.
        self.raise(&[
            ("Event", "PresenceStateChange"),
            ("Privilege", "call,all"),
            ("Presentity", &format!("CustomPresence:{extension}")),
            ("Status", &state),
            ("Subtype", &subtype),
            ("Message", &message),
        ]);
        self.raise(&[
            ("Event", "PresenceStatus"),
            ("Privilege", "call,all"),
            ("Exten", extension),
            ("Context", "from-internal"),
            ("Hint", &format!("PJSIP/{extension},CustomPresence:{extension}")),
            ("Status", &state),
            ("Subtype", &subtype),
            ("Message", &message),
        ]);
    }

    pub(crate) fn set_device(&self, world: &World, name: &str, state: &str, by_hand: bool) {
        lock(&self.store).devices.insert(name.to_owned(), state.to_owned());
        self.wrote(world, "device", name, state, by_hand);
        self.raise(&[
            ("Event", "DeviceStateChange"),
            ("Privilege", "call,all"),
            ("Device", name),
            ("State", state),
        ]);
    }

    fn raise(&self, headers: &[(&str, &str)]) {
        let text = packet(headers);
        for session in lock(&self.sessions).values() {
            if session.logged_in && session.events {
                let _ = session.out.send(text.clone());
            }
        }
    }

    /// Ends all sessions with `Event: Shutdown`; Asterisk is back at once.
    pub(crate) fn restart(&self, world: &World, wipe: bool) {
        let text = packet(&[
            ("Event", "Shutdown"),
            ("Privilege", "system,all"),
            ("Shutdown", "Cleanly"),
            ("Restart", "True"),
        ]);
        for (_, session) in lock(&self.sessions).drain() {
            if session.system && session.events {
                let _ = session.out.send(text.clone());
            }
            session.end.cancel();
        }
        if wipe {
            *lock(&self.store) = Store::default();
        }
        *lock(&self.booted) = (world.clock.now(), Instant::now());
        self.touched();
    }

    /// Ends all sessions without a word.
    pub(crate) fn cut(&self) {
        for (_, session) in lock(&self.sessions).drain() {
            session.end.cancel();
        }
        self.touched();
    }
}

fn packet(headers: &[(&str, &str)]) -> Vec<u8> {
    let mut text = String::new();
    for (key, value) in headers {
        text.push_str(key);
        text.push_str(": ");
        text.push_str(value);
        text.push_str("\r\n");
    }
    text.push_str("\r\n");
    text.into_bytes()
}

/// Takes connections until the world stops.
pub(crate) async fn serve(world: Arc<World>, listener: TcpListener) {
    loop {
        let stream = tokio::select! {
            () = world.stop.cancelled() => return,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(_) => {
                    tokio::task::yield_now().await;
                    continue;
                }
            },
        };
        if lock(&world.ami.knobs).down {
            continue;
        }
        let _ = stream.set_nodelay(true);
        let session = world.clone();
        world.tasks.spawn(async move {
            let stop = session.stop.clone();
            tokio::select! {
                () = stop.cancelled() => {}
                () = talk(&session, stream) => {}
            }
        });
    }
}

/// Forgets a session when its connection ends.
struct Leaving<'a>(&'a World, u64);

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        lock(&self.0.ami.sessions).remove(&self.1);
        self.0.ami.touched();
    }
}

async fn talk(world: &Arc<World>, stream: TcpStream) {
    let ami = &world.ami;
    let number = ami.next_session.fetch_add(1, Ordering::Relaxed) + 1;
    let (out, mut outgoing) = mpsc::unbounded_channel::<Vec<u8>>();
    let end = CancellationToken::new();
    lock(&ami.sessions).insert(
        number,
        Session { out: out.clone(), events: false, system: false, logged_in: false, end: end.clone() },
    );
    let _leaving = Leaving(world, number);
    let (mut reader, mut writer) = stream.into_split();
    let writing = async {
        if writer.write_all(b"Asterisk Call Manager/11.0.0\r\n").await.is_err() {
            return;
        }
        loop {
            tokio::select! {
                biased;
                text = outgoing.recv() => match text {
                    Some(text) => if writer.write_all(&text).await.is_err() { return },
                    None => return,
                },
                () = end.cancelled() => {
                    while let Ok(text) = outgoing.try_recv() {
                        let _ = writer.write_all(&text).await;
                    }
                    let _ = writer.shutdown().await;
                    return;
                }
            }
        }
    };
    let reading = async {
        let mut parser = Parser::default();
        let mut buffer = vec![0_u8; 4_096];
        let mut conversation = Conversation {
            world,
            number,
            out: out.clone(),
            end: end.clone(),
            challenge: None,
            logged_in: false,
        };
        let deadline = tokio::time::sleep(Duration::from_secs(30));
        tokio::pin!(deadline);
        loop {
            let read = tokio::select! {
                read = reader.read(&mut buffer) => read,
                () = &mut deadline, if !conversation.logged_in => return,
            };
            let Ok(count @ 1..) = read else {
                return;
            };
            for message in parser.feed(&buffer[..count]) {
                conversation.take(message).await;
                if end.is_cancelled() {
                    std::future::pending::<()>().await;
                }
            }
        }
    };
    tokio::select! {
        () = writing => {}
        () = reading => {}
    }
}

/// What came out of the byte stream.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Incoming {
    /// Headers, in order.
    Message(Vec<(String, String)>),
    /// A line or a message was too long.
    TooLong,
    /// A line had no colon.
    NoColon(String),
}

/// Cuts the byte stream into lines and messages.
#[derive(Default)]
pub(crate) struct Parser {
    line: Vec<u8>,
    headers: Vec<(String, String)>,
    lines: usize,
    spoiled: bool,
}

impl Parser {
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Vec<Incoming> {
        let mut out = Vec::new();
        for &byte in bytes {
            if byte != b'\n' {
                self.line.push(byte);
                if self.line.len() > MAX_LINE && !self.spoiled {
                    self.spoiled = true;
                    out.push(Incoming::TooLong);
                }
                if self.line.len() > MAX_LINE {
                    self.line.truncate(MAX_LINE);
                }
                continue;
            }
            let mut line = std::mem::take(&mut self.line);
            if line.last() == Some(&b'\r') {
                line.pop();
            }
            self.take_line(&line, &mut out);
        }
        out
    }

    fn take_line(&mut self, line: &[u8], out: &mut Vec<Incoming>) {
        if line.is_empty() {
            let headers = std::mem::take(&mut self.headers);
            self.lines = 0;
            if !std::mem::take(&mut self.spoiled) && !headers.is_empty() {
                out.push(Incoming::Message(headers));
            }
            return;
        }
        self.lines += 1;
        if self.spoiled {
            return;
        }
        if self.lines > MAX_LINES {
            self.spoiled = true;
            out.push(Incoming::TooLong);
            return;
        }
        let text = String::from_utf8_lossy(line);
        match text.split_once(':') {
            Some((key, value)) => self.headers.push((key.trim().to_owned(), value.trim_start().to_owned())),
            None => out.push(Incoming::NoColon(text.into_owned())),
        }
    }
}

struct Conversation<'a> {
    world: &'a Arc<World>,
    number: u64,
    out: mpsc::UnboundedSender<Vec<u8>>,
    end: CancellationToken,
    challenge: Option<String>,
    logged_in: bool,
}

/// One action with its headers.
struct Action {
    headers: Vec<(String, String)>,
}

impl Action {
    fn get(&self, name: &str) -> &str {
        self.headers
            .iter()
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map_or("", |(_, value)| value.as_str())
    }
}

impl Conversation<'_> {
    fn send(&self, headers: &[(&str, &str)]) {
        if !lock(&self.world.ami.knobs).mute {
            let _ = self.out.send(packet(headers));
        }
    }

    /// An answer to `action`, with its ActionID after the first header.
    fn answer(&self, action: &Action, headers: &[(&str, &str)]) {
        let id = action.get("ActionID");
        let mut all = headers.to_vec();
        if !id.is_empty() {
            all.insert(1.min(all.len()), ("ActionID", id));
        }
        self.send(&all);
    }

    fn success(&self, action: &Action, message: &str) -> bool {
        self.answer(action, &[("Response", "Success"), ("Message", message)]);
        true
    }

    fn failure(&self, action: &Action, message: &str) -> bool {
        self.answer(action, &[("Response", "Error"), ("Message", message)]);
        false
    }

    async fn take(&mut self, incoming: Incoming) {
        let journal = &self.world.journal;
        let headers = match incoming {
            Incoming::Message(headers) => headers,
            Incoming::TooLong => {
                journal.violation("ami-too-long", format!("session {}", self.number));
                self.send(&[("Response", "Error"), ("Message", "Message too long")]);
                return;
            }
            Incoming::NoColon(line) => {
                journal.violation("ami-line-without-colon", line);
                return;
            }
        };
        for (key, _) in &headers {
            if !ACTION_HEADERS.contains(&key.to_ascii_lowercase().as_str()) {
                journal.violation("ami-unknown-header", key.clone());
            }
        }
        let action = Action { headers };
        let actions =
            |name: &str| action.headers.iter().filter(|(key, _)| key.eq_ignore_ascii_case(name)).count();
        for name in ["Action", "ActionID", "Variable", "Value", "Family", "Key", "Val"] {
            if actions(name) > 1 {
                journal.violation("ami-repeated-header", name);
            }
        }
        let slow = lock(&self.world.ami.knobs).slow_ms;
        if slow > 0 {
            tokio::time::sleep(Duration::from_millis(slow)).await;
        }
        let name = action.get("Action").to_owned();
        let lower = name.to_ascii_lowercase();
        let ok = match lower.as_str() {
            "login" => self.login(&action).await,
            "challenge" => self.challenge(&action),
            "logoff" => {
                self.answer(&action, &[("Response", "Goodbye"), ("Message", "Thanks for all the fish.")]);
                self.end.cancel();
                true
            }
            "" => self.failure(&action, "Missing action in request"),
            _ if !self.logged_in => self.failure(&action, "Permission denied"),
            _ => self.act(&lower, &action),
        };
        let subject = ["Variable", "Provider", "Exten", "Key", "Username"]
            .iter()
            .map(|name| action.get(name))
            .find(|value| !value.is_empty())
            .unwrap_or_default()
            .to_owned();
        self.world.journal.write(Record::Ami { session: self.number, action: name, subject, ok });
    }

    fn challenge(&mut self, action: &Action) -> bool {
        if !action.get("AuthType").eq_ignore_ascii_case("md5") {
            return self.failure(action, "Must specify AuthType");
        }
        let challenge = lock(&self.world.rng).random_range(100_000_000_u32..999_999_999).to_string();
        self.answer(action, &[("Response", "Success"), ("Challenge", &challenge)]);
        self.challenge = Some(challenge);
        true
    }

    async fn login(&mut self, action: &Action) -> bool {
        let ami = &self.world.ami;
        let account = lock(&ami.accounts).get(action.get("Username")).cloned();
        let knobs = ami.knobs();
        let good = account.as_ref().filter(|account| {
            if action.get("AuthType").eq_ignore_ascii_case("md5") {
                self.challenge.as_ref().is_some_and(|challenge| {
                    let digest = Md5::digest(format!("{challenge}{}", account.secret));
                    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
                    action.get("Key").eq_ignore_ascii_case(&hex)
                })
            } else {
                action.get("Secret") == account.secret
            }
        });
        let Some(account) = good.filter(|_| !knobs.refuse_logins) else {
            let wait = knobs.login_failure_ms.unwrap_or(1_000);
            tokio::time::sleep(Duration::from_millis(wait)).await;
            self.failure(action, "Authentication failed");
            self.end.cancel();
            return false;
        };
        let events = action.get("Events").is_empty() || events_on(action.get("Events"));
        self.success(action, "Authentication accepted");
        self.logged_in = true;
        if events && account.system {
            let up = lock(&ami.booted).1.elapsed().as_secs().to_string();
            self.send(&[
                ("Event", "FullyBooted"),
                ("Privilege", "system,all"),
                ("Uptime", &up),
                ("LastReload", &up),
                ("Status", "Fully Booted"),
            ]);
        }
        if let Some(session) = lock(&ami.sessions).get_mut(&self.number) {
            session.logged_in = true;
            session.events = events;
            session.system = account.system;
        }
        ami.touched();
        true
    }

    fn act(&mut self, name: &str, action: &Action) -> bool {
        let ami = &self.world.ami;
        match name {
            "ping" => {
                let now = self.world.clock.now();
                let at = format!("{}.{:06}", now.as_second(), now.subsec_microsecond());
                self.answer(action, &[("Response", "Success"), ("Ping", "Pong"), ("Timestamp", &at)]);
                true
            }
            "events" => {
                let on = events_on(action.get("EventMask"));
                if let Some(session) = lock(&ami.sessions).get_mut(&self.number) {
                    session.events = on;
                }
                let word = if on { "On" } else { "Off" };
                self.answer(action, &[("Response", "Success"), ("Events", word)]);
                true
            }
            "setvar" => self.setvar(action),
            "getvar" => self.getvar(action),
            "dbput" | "dbget" | "dbdel" | "dbdeltree" => self.database(name, action),
            "presencestate" => {
                let Some(extension) = action.get("Provider").strip_prefix("CustomPresence:") else {
                    return self.failure(action, "Could not determine presence state");
                };
                let presence = ami.presence(extension);
                let mut headers = vec![
                    ("Response", "Success"),
                    ("Message", "Presence State"),
                    ("State", presence.state.as_str()),
                ];
                if !presence.subtype.is_empty() {
                    headers.push(("Subtype", &presence.subtype));
                }
                if !presence.message.is_empty() {
                    headers.push(("Message", &presence.message));
                }
                self.answer(action, &headers);
                true
            }
            "presencestatelist" => {
                self.answer(
                    action,
                    &[
                        ("Response", "Success"),
                        ("EventList", "start"),
                        ("Message", "Presence State Changes will follow"),
                    ],
                );
                let all = ami.all();
                for (extension, presence) in &all {
                    self.answer(
                        action,
                        &[
                            ("Event", "PresenceStateChange"),
                            ("Presentity", &format!("CustomPresence:{extension}")),
                            ("Status", &presence.state),
                            ("Subtype", &presence.subtype),
                            ("Message", &presence.message),
                        ],
                    );
                }
                self.list_end(action, "PresenceStateListComplete", all.len())
            }
            "devicestatelist" => {
                self.answer(
                    action,
                    &[
                        ("Response", "Success"),
                        ("EventList", "start"),
                        ("Message", "Device State Changes will follow"),
                    ],
                );
                let all = lock(&ami.store).devices.clone();
                for (device, state) in &all {
                    self.answer(
                        action,
                        &[("Event", "DeviceStateChange"), ("Device", device), ("State", state)],
                    );
                }
                self.list_end(action, "DeviceStateListComplete", all.len())
            }
            "extensionstate" => {
                let extension = action.get("Exten");
                let context = action.get("Context");
                let busy = ami.device(&format!("Custom:DND{extension}")).is_some_and(|state| state == "BUSY");
                self.answer(
                    action,
                    &[
                        ("Response", "Success"),
                        ("Message", "Extension Status"),
                        ("Exten", extension),
                        ("Context", context),
                        (
                            "Hint",
                            &format!("PJSIP/{extension}&Custom:DND{extension},CustomPresence:{extension}"),
                        ),
                        ("Status", if busy { "2" } else { "0" }),
                        ("StatusText", if busy { "Busy" } else { "Idle" }),
                    ],
                );
                true
            }
            "corestatus" => {
                let booted = lock(&ami.booted).0;
                let date = booted.strftime("%Y-%m-%d").to_string();
                let time = booted.strftime("%H:%M:%S").to_string();
                self.answer(
                    action,
                    &[
                        ("Response", "Success"),
                        ("CoreStartupDate", &date),
                        ("CoreStartupTime", &time),
                        ("CoreReloadDate", &date),
                        ("CoreReloadTime", &time),
                        ("CoreCurrentCalls", "0"),
                    ],
                );
                true
            }
            "coresettings" => {
                self.answer(
                    action,
                    &[
                        ("Response", "Success"),
                        ("AMIversion", "11.0.0"),
                        ("AsteriskVersion", "22.6.0"),
                        ("SystemName", ""),
                    ],
                );
                true
            }
            _ => {
                self.world.journal.violation("ami-unknown-action", action.get("Action"));
                self.failure(
                    action,
                    "Invalid/unknown command: Use Action: ListCommands to show available commands.",
                )
            }
        }
    }

    fn list_end(&self, action: &Action, event: &str, items: usize) -> bool {
        self.answer(
            action,
            &[("Event", event), ("EventList", "Complete"), ("ListItems", &items.to_string())],
        );
        true
    }

    fn setvar(&self, action: &Action) -> bool {
        let (variable, value) = (action.get("Variable"), action.get("Value"));
        if variable.is_empty() {
            return self.failure(action, "No variable specified");
        }
        let done = match function(variable) {
            Some(("PRESENCE_STATE", name)) => self.set_presence(name, value),
            Some(("DEVICE_STATE", name)) => {
                let good = name.starts_with("Custom:") && DEVICE_STATES.contains(&value);
                if good {
                    self.world.ami.set_device(self.world, name, value, false);
                }
                good
            }
            // live_dangerously=no
            Some(_) => false,
            None => true,
        };
        if done {
            self.success(action, "Variable Set")
        } else {
            self.world.journal.violation("ami-refused-setvar", format!("{variable} = {value}"));
            self.failure(action, "Variable not set")
        }
    }

    fn set_presence(&self, name: &str, value: &str) -> bool {
        let Some(extension) = name.strip_prefix("CustomPresence:") else {
            return false;
        };
        {
            let mut knobs = lock(&self.world.ami.knobs);
            if knobs.fail_setvar > 0 {
                knobs.fail_setvar -= 1;
                return false;
            }
        }
        let parts: Vec<&str> = value.split(',').collect();
        let part = |at: usize| parts.get(at).copied().unwrap_or_default();
        let encoded = match parts.len() {
            1..=3 => false,
            4 => part(3) == "e",
            _ => return false,
        };
        if parts.len() == 4 && !encoded && !part(3).is_empty() {
            return false;
        }
        let state = part(0).to_ascii_lowercase();
        if !STATES.contains(&state.as_str()) {
            return false;
        }
        let decode = |text: &str| -> Option<String> {
            if encoded && !text.is_empty() {
                String::from_utf8(BASE64_STANDARD.decode(text).ok()?).ok()
            } else {
                Some(text.to_owned())
            }
        };
        let (Some(subtype), Some(message)) = (decode(part(1)), decode(part(2))) else {
            return false;
        };
        if subtype.contains(char::is_control) || message.contains(char::is_control) {
            self.world.journal.violation("ami-control-character", format!("CustomPresence:{extension}"));
        }
        let presence = AmiPresence { state, subtype, message };
        self.world.ami.set_presence(self.world, extension, presence, false);
        true
    }

    fn getvar(&self, action: &Action) -> bool {
        let variable = action.get("Variable");
        let ami = &self.world.ami;
        let value = match function(variable) {
            Some(("PRESENCE_STATE", inner)) => {
                let parts: Vec<&str> = inner.split(',').collect();
                let part = |at: usize| parts.get(at).copied().unwrap_or_default();
                let extension = part(0).strip_prefix("CustomPresence:").unwrap_or(part(0));
                let presence = ami.presence(extension);
                let text = match part(1) {
                    "value" => presence.state,
                    "subtype" => presence.subtype,
                    "message" => presence.message,
                    _ => return self.failure(action, "No such variable"),
                };
                if part(2) == "e" && part(1) != "value" { BASE64_STANDARD.encode(text) } else { text }
            }
            Some(("DEVICE_STATE", name)) => ami.device(name).unwrap_or_else(|| "UNKNOWN".to_owned()),
            Some(("DB", name)) => {
                name.split_once('/').and_then(|(family, key)| ami.db(family, key)).unwrap_or_default()
            }
            Some(_) => return self.failure(action, "No such variable"),
            None => String::new(),
        };
        self.answer(action, &[("Response", "Success"), ("Variable", variable), ("Value", &value)]);
        true
    }

    fn database(&self, name: &str, action: &Action) -> bool {
        let ami = &self.world.ami;
        let (family, key) = (action.get("Family"), action.get("Key"));
        if family.is_empty() {
            return self.failure(action, "No family specified");
        }
        if key.is_empty() && name != "dbdeltree" {
            return self.failure(action, "No key specified");
        }
        match name {
            "dbput" => {
                ami.set_db(self.world, family, key, Some(action.get("Val")), false);
                self.success(action, "Updated database successfully")
            }
            "dbget" => match ami.db(family, key) {
                None => self.failure(action, "Database entry not found"),
                Some(value) => {
                    self.answer(
                        action,
                        &[("Response", "Success"), ("EventList", "start"), ("Message", "Result will follow")],
                    );
                    self.answer(
                        action,
                        &[("Event", "DBGetResponse"), ("Family", family), ("Key", key), ("Val", &value)],
                    );
                    self.list_end(action, "DBGetComplete", 1)
                }
            },
            "dbdel" => {
                if ami.set_db(self.world, family, key, None, false) {
                    self.success(action, "Key deleted successfully")
                } else {
                    self.failure(action, "Database entry not found")
                }
            }
            _ => {
                let prefix = format!("{key}/");
                let keys: Vec<String> = lock(&ami.store)
                    .db
                    .keys()
                    .filter(|(one, inner)| {
                        one == family && (key.is_empty() || inner == key || inner.starts_with(&prefix))
                    })
                    .map(|(_, inner)| inner.clone())
                    .collect();
                if keys.is_empty() {
                    return self.failure(action, "Database entry not found");
                }
                for inner in keys {
                    ami.set_db(self.world, family, &inner, None, false);
                }
                self.success(action, "Key tree deleted successfully")
            }
        }
    }
}

fn events_on(mask: &str) -> bool {
    let mask = mask.to_ascii_lowercase();
    mask == "on" || mask.split(',').any(|class| class.trim() == "call")
}

/// Splits `NAME(inner)`.
fn function(variable: &str) -> Option<(&str, &str)> {
    let (name, rest) = variable.split_once('(')?;
    Some((name, rest.strip_suffix(')')?))
}
