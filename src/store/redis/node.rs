//! One server, and the connection to it that all callers share.
//!
//! A task of its own, the keeper, connects, watches and connects again. Callers never connect: they find the connection,
//! wait for one that is being made, or learn at once that the server is away. So a server that hangs costs those who
//! were asking it one time-out, and nobody after them.
//!
//! Away is a server that does not answer: nothing came from it for as long as a call has waited, or a question of the
//! keeper's own stayed without answer. The connection is given up then, with all that was asked on it, because one whose
//! other end is gone does not say so.

use std::{
    hash::{BuildHasher, RandomState},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use redis::{
    Cmd, Pipeline, RedisError, Value,
    aio::{ConnectionLike, MultiplexedConnection},
};
use tokio::{
    sync::{Notify, watch},
    task::JoinSet,
    time::{Instant, sleep, timeout, timeout_at},
};
use tracing::{info, warn};

use super::{
    dial::{DialError, Dialer, Talk, answer, closed},
    settings::Address,
};
use crate::chain::Chain;

/// How often the keeper asks a server that nobody else has heard.
const PROBE_EVERY: Duration = Duration::from_secs(2);
/// How often the sentinels are asked who is master.
const FOLLOW_EVERY: Duration = Duration::from_secs(1);
/// The first wait before another try; it doubles.
const FIRST_WAIT: Duration = Duration::from_millis(50);
/// The longest wait before another try: also the longest that a server which is back is not found.
const LONGEST_WAIT: Duration = Duration::from_secs(1);
/// A connection that lived for so long was a good one: the next is tried at once.
const GOOD_AFTER: Duration = Duration::from_secs(2);

/// Whom a node stands for.
pub(super) enum Target {
    /// One server.
    Fixed(Address),
    /// Whoever is master.
    Master {
        /// The sentinels.
        sentinels: Vec<Address>,
        /// What they call the master.
        name: String,
        /// How they are reached.
        dialer: Dialer,
    },
}

/// What callers find.
#[derive(Clone)]
pub(super) enum State {
    /// A connection is being made.
    Connecting,
    /// There is one.
    Up(Arc<Up>),
    /// There is none, for this reason, until one is told.
    Away(Arc<DialError>),
}

/// A connection that answers.
pub(super) struct Up {
    /// With whom.
    pub(super) address: Address,
    connection: MultiplexedConnection,
    /// Since when; no two connections of a process begin at the same instant.
    pub(super) since: Instant,
    /// When an answer came last, in milliseconds after `since`.
    heard: AtomicU64,
    /// How long a call may wait; half of it without any answer is silence.
    patience: Duration,
    silent: Notify,
    demoted: Notify,
}

/// What became of a question.
#[derive(Debug)]
pub(super) enum AskError {
    /// The server has answered with an error.
    Answered(RedisError),
    /// Nothing came in time.
    Unanswered,
    /// The connection broke before the answer.
    Broken(RedisError),
}

impl Up {
    fn new(address: Address, connection: MultiplexedConnection, patience: Duration) -> Self {
        let (silent, demoted) = (Notify::new(), Notify::new());
        let heard = AtomicU64::new(0);
        Self { address, connection, since: Instant::now(), heard, patience, silent, demoted }
    }

    /// Asks.
    pub(super) async fn ask(&self, command: &Cmd, deadline: Instant) -> Result<Value, AskError> {
        let mut connection = self.connection.clone();
        self.heed(deadline, connection.send_packed_command(command)).await
    }

    /// Asks, with the word before it that makes a server answer for a slot which is on its way to it.
    pub(super) async fn ask_ahead(&self, command: &Cmd, deadline: Instant) -> Result<Value, AskError> {
        let mut both = Pipeline::with_capacity(2);
        both.cmd("ASKING").add_command(command.clone());
        let mut connection = self.connection.clone();
        let asked = async {
            let mut answers = connection.req_packed_commands(&both, 0, 2).await?;
            Ok(answers.pop().unwrap_or(Value::Nil))
        };
        self.heed(deadline, asked).await
    }

    /// Asks both, in one message; the answer to the second, where there was none to the first that is an error.
    pub(super) async fn ask_both(&self, both: &Pipeline, deadline: Instant) -> Result<Value, AskError> {
        let mut connection = self.connection.clone();
        let asked = async {
            let mut answers = connection.req_packed_commands(both, 0, 2).await?;
            let second = answers.pop().unwrap_or(Value::Nil);
            answers.pop().map_or(Ok(Value::Nil), answer)?;
            Ok(second)
        };
        self.heed(deadline, asked).await
    }

    async fn heed(
        &self,
        deadline: Instant,
        asked: impl Future<Output = Result<Value, RedisError>>,
    ) -> Result<Value, AskError> {
        let began = self.age();
        let answered = match timeout_at(deadline, asked).await {
            Ok(answered) => answered.and_then(answer),
            Err(_) => {
                // Others may have been answered meanwhile: then it was the call that was slow, not the server. And a
                // call that had to wait for the connection may have had too little time left.
                let waited = u128::from(self.age() - began);
                if self.heard.load(Ordering::Relaxed) <= began && waited * 2 >= self.patience.as_millis() {
                    self.silent.notify_one();
                }
                return Err(AskError::Unanswered);
            }
        };
        match answered {
            Err(error) if error.code().is_none() => Err(AskError::Broken(error)),
            answered => {
                self.heard.store(self.age(), Ordering::Relaxed);
                answered.map_err(AskError::Answered)
            }
        }
    }

    fn age(&self) -> u64 {
        u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// It has said that it takes no writes: another is master.
    pub(super) fn demoted(&self) {
        self.demoted.notify_one();
    }
}

/// One server, or whoever is master, with the connection that all share.
pub(super) struct Node {
    state: watch::Receiver<State>,
    /// Ends with the node.
    _keeper: JoinSet<()>,
}

impl Node {
    pub(super) fn start(target: Target, dialer: Dialer) -> Self {
        let (told, state) = watch::channel(State::Connecting);
        let mut keeper = JoinSet::new();
        keeper.spawn(Keeper { target, dialer, told, failures: 0, asked: 0 }.keep());
        Self { state, _keeper: keeper }
    }

    /// The connection; waits for one that is being made.
    pub(super) async fn up(&self, deadline: Instant) -> Result<Arc<Up>, Arc<DialError>> {
        match &*self.state.borrow() {
            State::Up(up) => return Ok(Arc::clone(up)),
            State::Away(why) => return Err(Arc::clone(why)),
            State::Connecting => {}
        }
        let mut state = self.state.clone();
        let known = timeout_at(deadline, state.wait_for(|state| !matches!(state, State::Connecting))).await;
        match known.as_ref().map(|known| known.as_deref()) {
            Ok(Ok(State::Up(up))) => Ok(Arc::clone(up)),
            Ok(Ok(State::Away(why))) => Err(Arc::clone(why)),
            // The keeper tells within the time of one dial; this is for a deadline that is nearer.
            _ => Err(Arc::new(DialError::Connecting)),
        }
    }

    /// Whether there is a connection.
    pub(super) fn is_up(&self) -> bool {
        matches!(&*self.state.borrow(), State::Up(_))
    }

    /// Whether it is known to be away.
    pub(super) fn is_away(&self) -> bool {
        matches!(&*self.state.borrow(), State::Away(_))
    }

    /// For those who want to know of changes.
    pub(super) fn state(&self) -> watch::Receiver<State> {
        self.state.clone()
    }
}

struct Keeper {
    target: Target,
    dialer: Dialer,
    told: watch::Sender<State>,
    failures: u32,
    /// Which sentinel is asked first: the one that answered last.
    asked: usize,
}

impl Keeper {
    async fn keep(mut self) {
        loop {
            match self.connect().await {
                Ok((talk, sentinel)) => self.stay(talk, sentinel).await,
                Err(why) => self.away(why),
            }
            sleep(self.wait()).await;
        }
    }

    fn away(&mut self, why: DialError) {
        self.failures += 1;
        self.told.send_if_modified(|state| {
            if !matches!(state, State::Away(_)) {
                let what = if why.is_of_settings() { "cannot be used" } else { "is away" };
                warn!("Redis {what}: {}", Chain(&why));
            }
            *state = State::Away(Arc::new(why));
            true
        });
    }

    /// Doubles, with some chance in it, so that many replicas do not come back as one.
    fn wait(&self) -> Duration {
        if self.failures == 0 {
            return Duration::ZERO;
        }
        let doubled = FIRST_WAIT.saturating_mul(1 << (self.failures - 1).min(10)).min(LONGEST_WAIT);
        let chance = RandomState::new().hash_one(self.failures) % 1000;
        doubled.mul_f64(0.6 + 0.4 * f64::from(u32::try_from(chance).unwrap_or(0)) / 1000.0)
    }

    async fn connect(&mut self) -> Result<(Talk, Option<Talk>), DialError> {
        let (address, sentinel) = match &self.target {
            Target::Fixed(address) => (address.clone(), None),
            Target::Master { sentinels, name, dialer } => {
                let (talk, index, master) = first_word(sentinels, name, dialer, self.asked).await?;
                self.asked = index;
                (master, Some(talk))
            }
        };
        let mut talk = self.dialer.dial(&address, None).await?;
        match self.target {
            // A server that is loading its data answers this with an error.
            Target::Fixed(_) => drop(talk.ask(&redis::cmd("PING")).await?),
            Target::Master { .. } => prove_master(&mut talk).await?,
        }
        Ok((talk, sentinel))
    }

    /// Holds a connection until it is to be used no more.
    async fn stay(&mut self, talk: Talk, sentinel: Option<Talk>) {
        let up = Arc::new(Up::new(talk.address.clone(), talk.connection, self.dialer.patience));
        let was_away = matches!(self.told.send_replace(State::Up(Arc::clone(&up))), State::Away(_));
        if was_away {
            info!("Redis is back at {}", up.address);
        }
        let ended = tokio::select! {
            () = talk.driver => closed(&up.address),
            ended = self.watch(&up, sentinel) => ended,
        };
        self.failures = if up.since.elapsed() >= GOOD_AFTER { 0 } else { self.failures + 1 };
        match ended {
            // It may be back in no time, and somebody else may be master already: whoever comes now waits for that.
            DialError::Broken { .. } | DialError::NotMaster { .. } => {
                warn!("Redis has to be connected to anew: {}", Chain(&ended));
                self.told.send_replace(State::Connecting);
            }
            ended => self.away(ended),
        }
    }

    /// Returns when the connection should not be used any more.
    async fn watch(&self, up: &Up, sentinel: Option<Talk>) -> DialError {
        tokio::select! {
            ended = self.probe(up) => ended,
            ended = self.follow(up, sentinel) => ended,
            () = up.demoted.notified() => DialError::NotMaster { address: up.address.clone() },
        }
    }

    /// Asks a server that nobody has heard of late; one that left a call without answer is silent.
    async fn probe(&self, up: &Up) -> DialError {
        let silent = || DialError::Silent { address: up.address.clone() };
        loop {
            if timeout(PROBE_EVERY, up.silent.notified()).await.is_ok() {
                return silent();
            }
            let quiet = up.age().saturating_sub(up.heard.load(Ordering::Relaxed));
            if u128::from(quiet) < PROBE_EVERY.as_millis() {
                continue;
            }
            match up.ask(&redis::cmd("PING"), Instant::now() + self.dialer.patience).await {
                Err(AskError::Unanswered) => return silent(),
                // A broken connection ends the driver too; an error is an answer.
                Err(AskError::Broken(_) | AskError::Answered(_)) | Ok(_) => {}
            }
        }
    }

    /// Asks the sentinels whether the master is still the one.
    async fn follow(&self, up: &Up, mut sentinel: Option<Talk>) -> DialError {
        let Target::Master { sentinels, name, dialer } = &self.target else {
            return std::future::pending().await;
        };
        loop {
            sleep(FOLLOW_EVERY).await;
            let master = match &mut sentinel {
                Some(talk) => ask_master(talk, name).await,
                None => first_word(sentinels, name, dialer, self.asked + 1).await.map(|(talk, _, master)| {
                    sentinel = Some(talk);
                    master
                }),
            };
            match master {
                Ok(master) if master != up.address => {
                    return DialError::NotMaster { address: up.address.clone() };
                }
                Ok(_) => {}
                // While the master answers, no sentinel is needed.
                Err(_) => sentinel = None,
            }
        }
    }
}

/// Asks one sentinel after the other who is master, from `first` on.
async fn first_word(
    sentinels: &[Address],
    name: &str,
    dialer: &Dialer,
    first: usize,
) -> Result<(Talk, usize, Address), DialError> {
    let mut failed = None;
    for step in 0..sentinels.len() {
        let index = (first + step) % sentinels.len();
        let asked = async {
            let mut talk = dialer.dial(&sentinels[index], None).await?;
            let master = ask_master(&mut talk, name).await?;
            Ok((talk, index, master))
        };
        match asked.await {
            Ok(found) => return Ok(found),
            Err(error) => failed = Some(error),
        }
    }
    Err(failed.unwrap_or_else(|| DialError::NoSuchMaster { master: name.to_owned() }))
}

async fn ask_master(talk: &mut Talk, name: &str) -> Result<Address, DialError> {
    let answered = talk.ask(redis::cmd("SENTINEL").arg("GET-MASTER-ADDR-BY-NAME").arg(name)).await;
    let answered =
        answered.map_err(|error| error.unless_unknown(|address| DialError::NoSentinel { address }))?;
    match redis::from_redis_value::<Option<(String, u16)>>(answered) {
        Ok(Some((host, port))) => Ok(Address { host, port }),
        Ok(None) => Err(DialError::NoSuchMaster { master: name.to_owned() }),
        Err(error) => Err(DialError::Broken { address: talk.address.clone(), source: error.into() }),
    }
}

async fn prove_master(talk: &mut Talk) -> Result<(), DialError> {
    match talk.ask(&redis::cmd("ROLE")).await? {
        Value::Array(parts) if matches!(parts.first(), Some(Value::BulkString(role)) if role == b"master") => {
            Ok(())
        }
        _ => Err(DialError::NotMaster { address: talk.address.clone() }),
    }
}
