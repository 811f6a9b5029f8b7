//! Asterisk, and what is built on it (FreePBX and others), by its manager interface (AMI).
//!
//! A profile becomes `PRESENCE_STATE(CustomPresence:<ext>)`, always in base64 because Asterisk refuses commas
//! in the texts; if configured also a device state that lamps follow, and AstDB's DND, which FreePBX obeys.
//! [`AsteriskAmi::set`](PbxDriver::set) returns once every part was acknowledged.
//!
//! Reading back asks `PRESENCE_STATE(…,e)` by `Getvar`, never `PresenceState`: the latter prints the texts as
//! they are, so that one with a line break in it forges headers and whole messages (seen 2026-11 on
//! Asterisk 22). State and texts are three questions, so they are asked twice and must agree.
//!
//! A change by anybody is told by Asterisk's own events: each is a hint to read back, but for what is surely our own
//! write coming back (see `echo`). DND that a person set is never taken away (see `dnd`), so after a `set` it may show although the
//! profile does not ask for it: what `set` returns says so.
//!
//! It does not know which extensions exist: Asterisk takes a presence for any name.

mod codec;
mod config;
mod connection;
mod dnd;
mod echo;
mod fields;
mod link;
mod probe;
#[cfg(test)]
mod testing;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use base64::{Engine, prelude::BASE64_STANDARD};
use tokio::sync::{Semaphore, broadcast};
use tokio_util::sync::CancellationToken;

pub use config::{AsteriskConfig, ExtensionTemplate, Flavour, Login, TemplateError, TlsConfig};

use self::{
    codec::{Action, Message},
    config::Flavour::Freepbx,
    connection::{LinkError, accepted},
    dnd::{Found, Step},
    echo::{Echoes, Said},
    fields::{Face, MESSAGE_CHARS, state_name, state_named},
    link::{Answer, Link},
};
use crate::{
    clock::SharedClock,
    model::{Extension, Language, Profile, Readback, Shown, Wanted},
    presence::{Abilities, LinkState, PbxDriver, PbxError, PbxSignal, Write},
};

/// How often a presence that changes while it is read is read again.
const READ_ATTEMPTS: usize = 3;

/// Questions that make up one reading of a presence.
const PRESENCE_PARTS: usize = 3;

/// The driver of one Asterisk.
pub struct AsteriskAmi {
    config: Arc<AsteriskConfig>,
    link: Link,
    echoes: Arc<Echoes>,
    /// Extensions being read or written; the others wait here, not in Asterisk.
    turns: Semaphore,
}

impl AsteriskAmi {
    /// A driver that connects once it is [`run`](PbxDriver::run). The clock times pings and pauses.
    pub fn new(config: AsteriskConfig, clock: SharedClock) -> Arc<Self> {
        let config = Arc::new(config);
        let turns = Semaphore::new(config.concurrency.max(1).into());
        let echoes = Arc::new(Echoes::default());
        let link = Link::new(Arc::clone(&config), clock, Arc::clone(&echoes), changed);
        Arc::new(Self { config, link, echoes, turns })
    }

    async fn ask(&self, actions: &[Action]) -> Result<Vec<Answer>, PbxError> {
        self.link.ask(actions).await.map_err(PbxError::from)
    }

    async fn apply(&self, extension: &Extension, wanted: &Wanted) -> Result<Shown, PbxError> {
        let mut face = Face::wanted(&self.config, wanted);
        let mut steps = Vec::new();
        if self.config.astdb_dnd {
            let found = self.find_dnd(extension).await?;
            let by_person = matches!(wanted, Wanted::AsFound(_));
            steps = found.steps(extension, face.dnd, by_person);
            let outcome = found.outcome(face.dnd);
            face = face.with_dnd(outcome);
            steps.extend(self.device_lamps(&found, &face));
        }
        let lamp = self.config.device_state.as_ref().map(|device| device.fill(extension));
        if let Some(device) = &lamp {
            steps.push(lamp_step(device, &face.lamp));
        }
        let provider = self.config.custom_presence.fill(extension);
        steps.push(Step { action: set_presence(&provider, &face), may_be_gone: false });
        let expected = Expected::of(&self.echoes, &provider, lamp.as_deref(), &face);
        self.take(steps).await?;
        expected.stands();
        Ok(face.shown(&self.config))
    }

    async fn take(&self, steps: Vec<Step>) -> Result<(), PbxError> {
        let (actions, may_be_gone): (Vec<_>, Vec<_>) =
            steps.into_iter().map(|step| (step.action, step.may_be_gone)).unzip();
        for (answer, may_be_gone) in self.ask(&actions).await?.into_iter().zip(may_be_gone) {
            match accepted(answer.response) {
                Err(PbxError::Refused { reason }) if may_be_gone && dnd::says_no_such_key(&reason) => {}
                outcome => drop(outcome?),
            }
        }
        Ok(())
    }

    async fn find_dnd(&self, extension: &Extension) -> Result<Found, PbxError> {
        let answers = self.ask(&dnd::questions(extension)).await?;
        for answer in &answers {
            match accepted(answer.response.clone()) {
                Ok(_) => {}
                Err(PbxError::Refused { reason }) if dnd::says_no_such_key(&reason) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Found::read(&answers))
    }

    /// FreePBX has a lamp for each device of a user besides that of the extension.
    fn device_lamps(&self, found: &Found, face: &Face) -> Vec<Step> {
        if self.config.flavour != Freepbx {
            return Vec::new();
        }
        let state = Face::blank().with_dnd(face.dnd).lamp;
        found.devices.iter().map(|device| lamp_step(&format!("Custom:DEVDND{device}"), &state)).collect()
    }

    async fn read(&self, extension: &Extension) -> Result<Face, PbxError> {
        for _ in 0..READ_ATTEMPTS {
            if let Some(face) = self.read_once(extension).await? {
                return Ok(face);
            }
        }
        Err(PbxError::Unexpected { reason: "the presence changes while it is read".to_owned() })
    }

    /// What shows; `None` where it changed between the questions.
    async fn read_once(&self, extension: &Extension) -> Result<Option<Face>, PbxError> {
        let provider = self.config.custom_presence.fill(extension);
        let mut questions = [presence_questions(&provider), presence_questions(&provider)].concat();
        if let Some(device) = &self.config.device_state {
            questions.push(lamp_question(&device.fill(extension)));
        }
        let values = self.ask(&questions).await?.into_iter().map(value).collect::<Result<Vec<_>, _>>()?;
        let (once, rest) = values.split_at(PRESENCE_PARTS);
        let (again, lamp) = rest.split_at(PRESENCE_PARTS);
        if once != again {
            return Ok(None);
        }
        let lamp = match lamp {
            [] => "",
            [state, ..] if state.is_empty() => return Err(missing("DEVICE_STATE")),
            [state, ..] => state,
        };
        let dnd = self.config.astdb_dnd && self.find_dnd(extension).await?.is_on();
        face(once, lamp, dnd).map(Some)
    }

    async fn in_turn<T>(
        &self,
        limit: Duration,
        work: impl Future<Output = Result<T, PbxError>>,
    ) -> Result<T, PbxError> {
        let in_turn = async {
            let _turn = self.turns.acquire().await.map_err(|_| LinkError::Closed)?;
            work.await
        };
        tokio::time::timeout(limit, in_turn).await.unwrap_or_else(|_| Err(LinkError::Silent(limit).into()))
    }
}

#[async_trait]
impl PbxDriver for AsteriskAmi {
    fn abilities(&self) -> Abilities {
        Abilities {
            text_chars: MESSAGE_CHARS,
            until: false,
            read_back: true,
            watches: true,
            tells_restart: true,
        }
    }

    fn render(&self, wanted: &Wanted) -> Shown {
        Face::wanted(&self.config, wanted).shown(&self.config)
    }

    fn label(&self, shown: &Shown, language: Language) -> Option<String> {
        Face::found(shown).label(language)
    }

    async fn set(&self, write: Write<'_>) -> Result<Shown, PbxError> {
        let _turn = self.turns.acquire().await.map_err(|_| LinkError::Closed)?;
        if !write.stands.lasts(write.within) {
            return Err(LinkError::TooLate.into());
        }
        // Boxed, since very many may wait for their turn at the same time.
        let applied = Box::pin(self.apply(write.extension, write.wanted));
        tokio::time::timeout(write.within, applied)
            .await
            .unwrap_or_else(|_| Err(LinkError::Silent(write.within).into()))
    }

    async fn read_back(&self, extension: &Extension, profiles: &[Profile]) -> Result<Readback, PbxError> {
        // Three rounds at most, and a wait for the turn.
        let limit = self.config.timeout() * 4;
        let face = self.in_turn(limit, self.read(extension)).await?;
        Ok(Readback {
            is_default: face == Face::blank(),
            profile: face.profile_of(self.config.flavour, profiles),
            shown: face.shown(&self.config),
            until: None,
        })
    }

    fn signals(&self) -> broadcast::Receiver<PbxSignal> {
        self.link.signals()
    }

    fn link(&self) -> LinkState {
        self.link.state()
    }

    fn lost_at(&self) -> Option<jiff::Timestamp> {
        self.link.lost_at()
    }

    async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        self.link.run(shutdown).await;
    }

    async fn check(&self) -> Result<String, PbxError> {
        probe::probe(&self.config).await
    }
}

/// The echo of one write, expected unless the write fails or is given up half way.
struct Expected<'a> {
    echoes: &'a Echoes,
    names: Vec<&'a str>,
}

impl<'a> Expected<'a> {
    fn of(echoes: &'a Echoes, provider: &'a str, lamp: Option<&'a str>, face: &Face) -> Self {
        echoes.expect(provider, Said::presence(state_name(face.state), &face.subtype, &face.message));
        if let Some(device) = lamp {
            echoes.expect(device, Said::lamp(&face.lamp));
        }
        Self { echoes, names: [Some(provider), lamp].into_iter().flatten().collect() }
    }

    /// The write was acknowledged.
    fn stands(mut self) {
        self.names.clear();
    }
}

impl Drop for Expected<'_> {
    fn drop(&mut self) {
        for name in &self.names {
            self.echoes.forget(name);
        }
    }
}

/// Which extension somebody else may have changed by what an event says, if any.
fn changed(config: &AsteriskConfig, echoes: &Echoes, event: &Message) -> Option<PbxSignal> {
    let name = event.get("Event")?;
    let (extension, ours) = if name.eq_ignore_ascii_case("PresenceStateChange") {
        let provider = event.get("Presentity")?;
        let extension = config.custom_presence.extension_in(provider)?;
        (extension, echoes.is_ours(provider, &Said::presence_in(event)))
    } else if name.eq_ignore_ascii_case("PresenceStatus") {
        let extension: Extension = event.get("Exten")?.parse().ok()?;
        let provider = config.custom_presence.fill(&extension);
        (extension, echoes.is_ours(&provider, &Said::presence_in(event)))
    } else if name.eq_ignore_ascii_case("DeviceStateChange") {
        let device = event.get("Device")?;
        let extension = config.device_state.as_ref()?.extension_in(device)?;
        (extension, echoes.is_ours(device, &Said::lamp_in(event)))
    } else {
        return None;
    };
    (!ours).then_some(PbxSignal::Changed(extension))
}

fn setvar(variable: String, value: impl Into<String>) -> Action {
    Action::new("Setvar").with("Variable", variable).with("Value", value)
}

fn set_presence(provider: &str, face: &Face) -> Action {
    let coded = |text: &str| BASE64_STANDARD.encode(text);
    let value = format!("{},{},{},e", state_name(face.state), coded(&face.subtype), coded(&face.message));
    setvar(format!("PRESENCE_STATE({provider})"), value)
}

fn lamp_step(device: &str, state: &str) -> Step {
    Step { action: setvar(format!("DEVICE_STATE({device})"), state), may_be_gone: false }
}

fn lamp_question(device: &str) -> Action {
    Action::new("Getvar").with("Variable", format!("DEVICE_STATE({device})"))
}

fn presence_questions(provider: &str) -> [Action; PRESENCE_PARTS] {
    ["value", "subtype,e", "message,e"]
        .map(|part| Action::new("Getvar").with("Variable", format!("PRESENCE_STATE({provider},{part})")))
}

fn value(answer: Answer) -> Result<String, PbxError> {
    Ok(accepted(answer.response)?.get("Value").unwrap_or_default().to_owned())
}

fn face(presence: &[String], lamp: &str, dnd: bool) -> Result<Face, PbxError> {
    let [state, subtype, message] = presence else {
        return Err(PbxError::Unexpected { reason: "an answer is missing".to_owned() });
    };
    if state.is_empty() {
        return Err(missing("PRESENCE_STATE"));
    }
    let state = state_named(state)
        .ok_or_else(|| PbxError::Unexpected { reason: "a presence state of an unknown name".to_owned() })?;
    Ok(Face::read(state, &decoded(subtype)?, &decoded(message)?, lamp, dnd))
}

fn decoded(text: &str) -> Result<String, PbxError> {
    let bytes = BASE64_STANDARD
        .decode(text)
        .map_err(|_| PbxError::Unexpected { reason: "a presence text is not in base64".to_owned() })?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Asterisk answers a question for a function it does not have with nothing, and success.
fn missing(function: &str) -> PbxError {
    PbxError::Refused { reason: format!("its function {function} is not loaded") }
}

#[cfg(test)]
mod tests;
