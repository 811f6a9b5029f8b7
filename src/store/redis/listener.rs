//! Hearing at once what other processes tell over channels.

use std::{sync::Arc, time::Duration};

use redis::{PushInfo, Value};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{sleep, timeout},
};
use tracing::debug;

use super::{
    cluster::prove_whole,
    dial::{DialError, Talk, closed},
    link::{Inner, Topology},
    node::State,
    settings::Address,
};
use crate::chain::Chain;

/// How often the server is asked whether it is still there. With the time for its answer, the longest that a connection
/// whose other end is gone can be taken for silence.
const PROBE_EVERY: Duration = Duration::from_millis(1500);
const FIRST_WAIT: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// Hears a channel, on a connection that is made anew when it breaks; others may share it.
pub struct Listener {
    heard: watch::Receiver<u64>,
    /// Ends with the last that shares it.
    _ear: Arc<JoinSet<()>>,
}

/// A channel, and how often it was heard.
struct Channel {
    name: String,
    heard: watch::Sender<u64>,
}

impl Channel {
    fn ring(&self) {
        self.heard.send_modify(|count| *count += 1);
    }
}

impl Listener {
    pub(super) fn start<const N: usize>(inner: Arc<Inner>, channels: [String; N]) -> [Self; N] {
        let mut ear = JoinSet::new();
        let channels = Arc::new(channels.map(|name| Channel { name, heard: watch::Sender::new(0) }));
        let heard = channels.each_ref().map(|channel| channel.heard.subscribe());
        ear.spawn(listen(inner, channels));
        let ear = Arc::new(ear);
        heard.map(|heard| Self { heard, _ear: Arc::clone(&ear) })
    }

    /// How often something was told so far, or may have been told unheard: after the first connection and each later one.
    pub fn count(&self) -> u64 {
        *self.heard.borrow()
    }

    /// Returns when [`count`](Self::count) is no longer what it was.
    pub async fn heard_since(&self, count: u64) {
        let mut heard = self.heard.clone();
        // The ear lives as long as the listener.
        drop(heard.wait_for(|now| *now != count).await);
    }
}

/// Rings for the channel of a message; of one that names none, for all.
fn ring(channels: &[Channel], message: &PushInfo) {
    let named = match message.data.first() {
        Some(Value::BulkString(name)) => std::str::from_utf8(name).ok(),
        Some(Value::SimpleString(name)) => Some(name.as_str()),
        _ => None,
    };
    match channels.iter().find(|channel| Some(channel.name.as_str()) == named) {
        Some(channel) => channel.ring(),
        None => channels.iter().for_each(Channel::ring),
    }
}

async fn listen<const N: usize>(inner: Arc<Inner>, channels: Arc<[Channel; N]>) {
    let mut turn = 0_usize;
    let mut wait = FIRST_WAIT;
    let first = channels.first().map_or("", |channel| channel.name.as_str());
    loop {
        turn += 1;
        match subscribe(&inner, &channels, turn).await {
            Ok(talk) => {
                // From here on nothing is missed; what was told before may have been.
                channels.iter().for_each(Channel::ring);
                wait = FIRST_WAIT;
                let ended = stay(&inner, talk).await;
                debug!("The channel `{first}` has to be connected to anew: {}", Chain(&ended));
            }
            Err(error) => {
                debug!("The channel `{first}` is not heard: {}", Chain(&*error));
                wait = (wait * 2).min(LONGEST_WAIT);
            }
        }
        sleep(wait).await;
    }
}

async fn subscribe<const N: usize>(
    inner: &Inner,
    channels: &Arc<[Channel; N]>,
    turn: usize,
) -> Result<Talk, Arc<DialError>> {
    let address = whom(inner, turn).await?;
    let told = Arc::clone(channels);
    let heard = Arc::new(move |message: &PushInfo| ring(&*told, message));
    let mut talk = inner.dialer.dial(&address, Some(heard)).await?;
    prove(inner, &mut talk).await?;
    for channel in channels.iter() {
        talk.ask(redis::cmd("SUBSCRIBE").arg(&channel.name)).await?;
    }
    Ok(talk)
}

/// A Cluster carries what is told to all its servers: any of them will do, and each time another one is tried.
async fn whom(inner: &Inner, turn: usize) -> Result<Address, Arc<DialError>> {
    match &inner.topology {
        Topology::One(node) => Ok(node.up(inner.deadline()).await?.address.clone()),
        Topology::Cluster(cluster) => {
            let masters = cluster.masters();
            let up: Vec<_> =
                masters.iter().filter(|(_, node)| node.is_up()).map(|(address, _)| address).collect();
            let found = if up.is_empty() { None } else { up.get(turn % up.len()) };
            found.map(|address| (*address).clone()).ok_or_else(|| Arc::new(DialError::Connecting))
        }
    }
}

/// Whether the server is there, and where the others are.
async fn prove(inner: &Inner, talk: &mut Talk) -> Result<(), DialError> {
    match &inner.topology {
        Topology::One(_) => talk.ask(&redis::cmd("PING")).await.map(drop),
        Topology::Cluster(_) => prove_whole(talk).await,
    }
}

/// Returns when the connection does not serve any more.
async fn stay(inner: &Inner, mut talk: Talk) -> DialError {
    let here = talk.address.clone();
    loop {
        let ended = timeout(PROBE_EVERY, async {
            tokio::select! {
                () = &mut talk.driver => closed(&here),
                ended = elsewhere(inner, &here) => ended,
            }
        });
        if let Ok(ended) = ended.await {
            return ended;
        }
        if let Err(error) = prove(inner, &mut talk).await {
            return error;
        }
    }
}

/// Returns when the calls go to another server than `here`.
async fn elsewhere(inner: &Inner, here: &Address) -> DialError {
    let Topology::One(node) = &inner.topology else { return std::future::pending().await };
    let mut state = node.state();
    let moved = |state: &State| matches!(state, State::Up(up) if up.address != *here);
    // The keeper ends only with the link, so nothing else can be the outcome.
    let _ = state.wait_for(moved).await.map(drop);
    DialError::NotMaster { address: here.clone() }
}
