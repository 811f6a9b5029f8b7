//! Hearing at once what other processes tell over a channel.

use std::{sync::Arc, time::Duration};

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

/// Hears a channel, on a connection of its own that is made anew when it breaks.
pub struct Listener {
    heard: watch::Receiver<u64>,
    /// Ends with the listener.
    _ear: JoinSet<()>,
}

impl Listener {
    pub(super) fn start(inner: Arc<Inner>, channel: String) -> Self {
        let (ring, heard) = watch::channel(0);
        let mut ear = JoinSet::new();
        ear.spawn(listen(inner, channel, Arc::new(ring)));
        Self { heard, _ear: ear }
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

fn ring(heard: &watch::Sender<u64>) {
    heard.send_modify(|count| *count += 1);
}

async fn listen(inner: Arc<Inner>, channel: String, heard: Arc<watch::Sender<u64>>) {
    let mut turn = 0_usize;
    let mut wait = FIRST_WAIT;
    loop {
        turn += 1;
        match subscribe(&inner, &channel, &heard, turn).await {
            Ok(talk) => {
                // From here on nothing is missed; what was told before may have been.
                ring(&heard);
                wait = FIRST_WAIT;
                let ended = stay(&inner, talk).await;
                debug!("The channel `{channel}` has to be connected to anew: {}", Chain(&ended));
            }
            Err(error) => {
                debug!("The channel `{channel}` is not heard: {}", Chain(&*error));
                wait = (wait * 2).min(LONGEST_WAIT);
            }
        }
        sleep(wait).await;
    }
}

async fn subscribe(
    inner: &Inner,
    channel: &str,
    heard: &Arc<watch::Sender<u64>>,
    turn: usize,
) -> Result<Talk, Arc<DialError>> {
    let address = whom(inner, turn).await?;
    let heard = Arc::clone(heard);
    let mut talk = inner.dialer.dial(&address, Some(Arc::new(move || ring(&heard)))).await?;
    prove(inner, &mut talk).await?;
    talk.ask(redis::cmd("SUBSCRIBE").arg(channel)).await?;
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
