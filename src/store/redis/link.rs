//! The way to Redis: one server, a master by its sentinels, or a Cluster.
//!
//! What it promises:
//!
//! - A call ends within the time that is set, whatever the server does, and at once while the server is known to be away.
//! - A call is sent once. Where it is unknown what became of it, that is an error which says so
//!   ([`LinkError::may_have_run`]); it is sent again only where the server has said that it did not run it.
//! - All callers share one connection to each server, and what they ask at the same time travels together.
//! - Servers that come back, and masters that change, are found by itself.

use std::{fmt, sync::Arc, time::Duration};

use redis::{Cmd, ErrorKind, Pipeline, RedisError, ServerErrorKind, ToRedisArgs, Value};
use tokio::time::{Instant, sleep};

use super::{
    cluster::{Cluster, slot, within},
    dial::{DialError, Dialer, words},
    listener::Listener,
    node::{AskError, Node, Target, Up},
    script::Script,
    settings::{Address, Form, LinkSettings},
};

/// How often one call may be pointed from server to server.
const REDIRECTIONS: usize = 6;
/// How long a call waits that the server wants to hear again.
const AGAIN_AFTER: Duration = Duration::from_millis(20);

/// How long a value is kept that is put where a script will look for it, should the script not run.
const KEPT: Duration = Duration::from_secs(60);
/// What a script answers that did not find the value, and has done nothing.
const NO_VALUE: &str = "NOVALUE";

/// Errors of a server that has not run what it was asked; or, of a script, not the first write of it.
const NOT_RUN: [&str; 10] = [
    "LOADING",
    "MASTERDOWN",
    "READONLY",
    "MISCONF",
    "NOREPLICAS",
    "CLUSTERDOWN",
    "TRYAGAIN",
    "NOAUTH",
    "NOPERM",
    "BUSY",
];

/// Why a call has no answer.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The server is away: the call was not sent.
    #[error("Redis is away")]
    Away(#[source] Arc<DialError>),
    /// The server has not run the call.
    #[error("Redis cannot serve now: {0}")]
    NotNow(String),
    /// No answer came in time; the call may have run.
    #[error("Redis did not answer in time")]
    Unanswered,
    /// The connection broke before the answer; the call may have run.
    #[error("the connection to Redis broke before the answer")]
    Broken(#[source] RedisError),
    /// The server, or the script, has answered with an error.
    #[error("Redis has answered `{0}` with an error: {1}")]
    Refused(String, String),
}

impl LinkError {
    /// Whether the call may have run, in whole or in part. `false`: surely not.
    pub fn may_have_run(&self) -> bool {
        match self {
            Self::Away(_) | Self::NotNow(_) => false,
            Self::Unanswered | Self::Broken(_) | Self::Refused(..) => true,
        }
    }
}

/// Why there is no way to Redis.
#[derive(Debug, thiserror::Error)]
#[error("Redis cannot be used")]
pub struct OpenError {
    /// Whether it was to be by TLS.
    pub(super) tls: bool,
    /// What stands in the way.
    #[source]
    pub(super) source: Arc<DialError>,
}

/// The way to Redis. Clones share it; it ends with the last of them.
#[derive(Clone)]
pub struct Link(Arc<Inner>);

pub(super) struct Inner {
    pub(super) topology: Topology,
    pub(super) dialer: Dialer,
}

pub(super) enum Topology {
    One(Arc<Node>),
    Cluster(Cluster),
}

impl Inner {
    pub(super) fn deadline(&self) -> Instant {
        within(self.dialer.patience)
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").finish_non_exhaustive()
    }
}

impl Link {
    /// Connects.
    ///
    /// # Errors
    /// Where no server answers, or one refuses. Later, a server that is away is an error of each call.
    pub async fn open(settings: &LinkSettings) -> Result<Self, OpenError> {
        let dialer = Dialer::to_servers(settings);
        let closed = |source| OpenError { tls: settings.tls, source };
        let one = |target| Topology::One(Arc::new(Node::start(target, dialer.clone())));
        let topology = match &settings.form {
            Form::Single(address) => one(Target::Fixed(address.clone())),
            Form::Sentinel { sentinels, master } => {
                let target = Target::Master {
                    sentinels: sentinels.clone(),
                    name: master.clone(),
                    dialer: Dialer::to_sentinels(settings),
                };
                one(target)
            }
            Form::Cluster(seeds) => {
                let cluster = Cluster::open(seeds.clone(), dialer.clone()).await;
                Topology::Cluster(cluster.map_err(|error| closed(Arc::new(error)))?)
            }
        };
        let link = Self(Arc::new(Inner { topology, dialer }));
        // Finding the master, connecting and logging in are three steps, each bounded.
        let deadline = within(link.0.dialer.patience * 4);
        for node in link.nodes() {
            node.up(deadline).await.map_err(closed)?;
        }
        Ok(link)
    }

    /// Runs a script at the server that has `key`, which is its only key.
    ///
    /// # Errors
    /// [`LinkError`]
    pub async fn run(&self, script: &Script, key: &str, args: impl ToRedisArgs) -> Result<Value, LinkError> {
        self.run_on(script, &[key], args).await
    }

    /// Runs a script at the server that has `keys`, all of one slot. In a Cluster a slot that moves to another server
    /// has half of its keys here and half there for a while: only of keys that are named here the server sees to it
    /// that the script finds all of them, or does not run.
    ///
    /// # Errors
    /// [`LinkError`]
    pub async fn run_on(
        &self,
        script: &Script,
        keys: &[&str],
        args: impl ToRedisArgs,
    ) -> Result<Value, LinkError> {
        let mut call = redis::cmd("EVALSHA");
        call.arg(&script.sha).arg(keys.len()).arg(keys).arg(args);
        let place = keys.first().map(|key| slot(key.as_bytes()));
        self.send(place, script.name, call, Some(script)).await
    }

    /// Puts a value under a key of its own, which has to be in the slot of `key`, for a minute, and runs a script that looks for it there, in one
    /// message. A script that is given a value by [`run`](Self::run) hashes it byte by byte, and copies it: that is more than it costs to store
    /// it, where it is long. A script that does not find it answers with the error `NOVALUE`, and has done nothing.
    ///
    /// `None`: the server is another one, does not know the script, or the value was not found: nothing was run, and [`run`](Self::run) may
    /// bring it about.
    ///
    /// # Errors
    /// [`LinkError`]
    pub async fn run_with(
        &self,
        script: &Script,
        key: &str,
        (value_key, value): (&str, &[u8]),
        args: impl ToRedisArgs,
    ) -> Result<Option<Value>, LinkError> {
        let deadline = self.0.deadline();
        let up = self.up(Some(slot(key.as_bytes())), None, deadline).await?;
        let mut both = Pipeline::with_capacity(2);
        both.cmd("SET").arg(value_key).arg(value).arg("EX").arg(KEPT.as_secs());
        both.cmd("EVALSHA").arg(&script.sha).arg(1).arg(key).arg(args);
        let error = match up.ask_both(&both, deadline).await {
            Ok(value) => return Ok(Some(value)),
            Err(error) => error,
        };
        if matches!(&error, AskError::Answered(error) if error.code() == Some(NO_VALUE)) {
            return Ok(None);
        }
        match self.sequel(&up, &error) {
            Sequel::Source | Sequel::Moved | Sequel::Ahead(_) | Sequel::Later => Ok(None),
            Sequel::End => Err(told(script.name, error)),
        }
    }

    /// By which connection the server that has `key` is reached now: by another one it may be another server.
    ///
    /// # Errors
    /// [`LinkError::Away`]
    pub(super) async fn connection(&self, key: &str) -> Result<Instant, LinkError> {
        let deadline = self.0.deadline();
        Ok(self.up(Some(slot(key.as_bytes())), None, deadline).await?.since)
    }

    /// Asks a server; in a Cluster, any of the masters.
    ///
    /// # Errors
    /// [`LinkError`]
    pub async fn command(&self, command: Cmd) -> Result<Value, LinkError> {
        self.send(None, &name(&command), command, None).await
    }

    /// Asks the server that has `key`. What makes the server wait (`WAIT`, `BLPOP`) makes all wait who share the link.
    ///
    /// # Errors
    /// [`LinkError`]
    pub async fn command_at(&self, key: &str, command: Cmd) -> Result<Value, LinkError> {
        self.send(Some(slot(key.as_bytes())), &name(&command), command, None).await
    }

    /// Asks every master: there is one, or a Cluster has several.
    ///
    /// # Errors
    /// [`LinkError`], where one of them gives no answer.
    pub async fn each(&self, command: &Cmd) -> Result<Vec<(Address, Value)>, LinkError> {
        let mut answers = Vec::new();
        for node in self.nodes() {
            let deadline = self.0.deadline();
            let up = node.up(deadline).await.map_err(LinkError::Away)?;
            let answered = up.ask(command, deadline).await.map_err(|error| told(&name(command), error))?;
            answers.push((up.address.clone(), answered));
        }
        Ok(answers)
    }

    /// Whether a server is known to be away: calls to it end at once.
    pub fn is_away(&self) -> bool {
        self.nodes().iter().any(|node| node.is_away())
    }

    /// Hears a channel from now on.
    pub fn listen(&self, channel: String) -> Listener {
        let [listener] = self.listen_to([channel]);
        listener
    }

    /// Hears several channels from now on, on one connection.
    pub fn listen_to<const N: usize>(&self, channels: [String; N]) -> [Listener; N] {
        Listener::start(Arc::clone(&self.0), channels)
    }

    pub(super) fn is_cluster(&self) -> bool {
        matches!(self.0.topology, Topology::Cluster(_))
    }

    fn nodes(&self) -> Vec<Arc<Node>> {
        match &self.0.topology {
            Topology::One(node) => vec![Arc::clone(node)],
            Topology::Cluster(cluster) => cluster.masters().into_iter().map(|(_, node)| node).collect(),
        }
    }

    async fn send(
        &self,
        place: Option<u16>,
        name: &str,
        mut call: Cmd,
        script: Option<&Script>,
    ) -> Result<Value, LinkError> {
        let deadline = self.0.deadline();
        let mut ahead: Option<Address> = None;
        let mut redirections = 0;
        loop {
            let up = self.up(place, ahead.as_ref(), deadline).await?;
            let answered = match ahead {
                None => up.ask(&call, deadline).await,
                Some(_) => up.ask_ahead(&call, deadline).await,
            };
            let error = match answered {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            redirections += 1;
            let sequel = self.sequel(&up, &error);
            if redirections > REDIRECTIONS {
                return Err(told(name, error));
            }
            match (sequel, script) {
                // Asked again is the server that does not know the script.
                (Sequel::Source, Some(script)) => call = with_source(&call, script),
                (Sequel::Moved, _) => ahead = None,
                (Sequel::Ahead(address), _) => ahead = Some(address),
                (Sequel::Later, _) => sleep(AGAIN_AFTER).await,
                (Sequel::Source | Sequel::End, _) => return Err(told(name, error)),
            }
        }
    }

    /// The connection to the server of a slot, or to the one that was named as the next.
    async fn up(
        &self,
        place: Option<u16>,
        ahead: Option<&Address>,
        deadline: Instant,
    ) -> Result<Arc<Up>, LinkError> {
        let node = match (&self.0.topology, ahead, place) {
            (Topology::One(node), ..) => Some(Arc::clone(node)),
            (Topology::Cluster(cluster), Some(address), _) => Some(cluster.node(address)),
            (Topology::Cluster(cluster), None, Some(slot)) => cluster.owner(slot),
            (Topology::Cluster(cluster), None, None) => {
                let masters = cluster.masters();
                let up = masters.iter().find(|(_, node)| node.is_up()).or(masters.first());
                up.map(|(_, node)| Arc::clone(node))
            }
        };
        let Some(node) = node else {
            self.stale();
            return Err(LinkError::NotNow("no server of the Cluster has this slot".to_owned()));
        };
        node.up(deadline).await.map_err(|why| {
            self.stale();
            LinkError::Away(why)
        })
    }

    /// What an error tells about the servers, and what is to be done about the call.
    fn sequel(&self, up: &Up, error: &AskError) -> Sequel {
        let AskError::Answered(error) = error else {
            self.stale();
            return Sequel::End;
        };
        match (error.kind(), &self.0.topology) {
            (ErrorKind::Server(ServerErrorKind::NoScript), _) => Sequel::Source,
            (ErrorKind::Server(ServerErrorKind::TryAgain), _) => Sequel::Later,
            (ErrorKind::Server(ServerErrorKind::Moved), Topology::Cluster(cluster)) => {
                match pointed(error, &up.address) {
                    Some((slot, address)) => {
                        cluster.moved(slot, &address);
                        Sequel::Moved
                    }
                    None => Sequel::End,
                }
            }
            (ErrorKind::Server(ServerErrorKind::Ask), Topology::Cluster(_)) => {
                pointed(error, &up.address).map_or(Sequel::End, |(_, address)| Sequel::Ahead(address))
            }
            _ => {
                if code(error).is_some_and(|code| code == "READONLY") {
                    up.demoted();
                }
                self.stale();
                Sequel::End
            }
        }
    }

    fn stale(&self) {
        if let Topology::Cluster(cluster) = &self.0.topology {
            cluster.stale();
        }
    }
}

/// What follows from an error.
enum Sequel {
    /// The script's source has to be sent.
    Source,
    /// Another server has the slot.
    Moved,
    /// Another server is getting the slot, and has the key already.
    Ahead(Address),
    /// The keys are on their way.
    Later,
    /// That was it.
    End,
}

fn with_source(call: &Cmd, script: &Script) -> Cmd {
    let mut whole = redis::cmd("EVAL");
    whole.arg(&script.source);
    for arg in call.args_iter().skip(2) {
        if let redis::Arg::Simple(arg) = arg {
            whole.arg(arg);
        }
    }
    whole
}

/// The slot and the server that an error points to; without a host it is the one that was asked, at another port.
fn pointed(error: &RedisError, asked: &Address) -> Option<(u16, Address)> {
    let (to, slot) = error.redirect_node()?;
    let (host, port) = to.rsplit_once(':')?;
    let host = if host.is_empty() { &asked.host } else { host };
    Some((slot, Address { host: host.to_owned(), port: port.parse().ok()? }))
}

fn told(name: &str, error: AskError) -> LinkError {
    match error {
        AskError::Unanswered => LinkError::Unanswered,
        AskError::Broken(error) => LinkError::Broken(error),
        AskError::Answered(error) if code(&error).is_some() => LinkError::NotNow(words(&error)),
        AskError::Answered(error) => LinkError::Refused(name.to_owned(), words(&error)),
    }
}

/// The code of an error that says that nothing was run; a server before version 7 hides it in the words of a script.
fn code(error: &RedisError) -> Option<&'static str> {
    NOT_RUN.into_iter().find(|code| {
        error.code() == Some(code)
            || (error.code() == Some("ERR")
                && error.detail().is_some_and(|detail| detail.contains(&format!(": -{code} "))))
    })
}

fn name(command: &Cmd) -> String {
    match command.args_iter().next() {
        Some(redis::Arg::Simple(name)) => String::from_utf8_lossy(name).into_owned(),
        _ => String::new(),
    }
}
