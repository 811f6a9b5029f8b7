//! A Redis Cluster: which server has which keys.
//!
//! Keys belong to 16,384 slots, slots to masters. Which is whose, any server of the Cluster says; a task asks, at first,
//! every so often, and whenever a call shows that something has changed. Why not the library's own Cluster connection:
//! it sends a call again when its connection breaks before the answer, and what such a call has done is unknown.

use std::{
    collections::BTreeSet,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use redis::Value;
use tokio::{
    sync::Notify,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tracing::debug;

use super::{
    dial::{DialError, Dialer, Talk},
    node::{Node, Target},
    settings::Address,
};
use crate::chain::Chain;

const SLOTS: u16 = 16_384;
/// How often the slots are asked for while nothing seems to have changed.
const REFRESH_EVERY: Duration = Duration::from_secs(15);
/// The same while a master is away: a replica is about to take its place.
const REFRESH_EVERY_AWAY: Duration = Duration::from_millis(300);
/// The shortest time between two askings, however many calls want one.
const REFRESH_PAUSE: Duration = Duration::from_millis(100);

/// The slot of a key: of what stands in its first `{...}`, or of all of it.
pub(super) fn slot(key: &[u8]) -> u16 {
    let tag = key.iter().position(|byte| *byte == b'{').and_then(|open| {
        let rest = &key[open + 1..];
        let close = rest.iter().position(|byte| *byte == b'}')?;
        Some(&rest[..close]).filter(|tag| !tag.is_empty())
    });
    crc16(tag.unwrap_or(key)) % SLOTS
}

/// CRC-16/XMODEM, as the Cluster's specification wants it.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0_u16, |sum, byte| {
        (0..8).fold(sum ^ (u16::from(*byte) << 8), |sum, _| {
            if sum & 0x8000 == 0 { sum << 1 } else { (sum << 1) ^ 0x1021 }
        })
    })
}

/// The servers and their slots, as far as is known.
pub(super) struct Cluster {
    shared: Arc<Shared>,
    /// Ends with the Cluster.
    _refresher: JoinSet<()>,
}

struct Shared {
    dialer: Dialer,
    seeds: Vec<Address>,
    map: RwLock<Map>,
    stale: Notify,
}

#[derive(Clone, Default)]
struct Map {
    /// For each slot the index of its master; past the end: nobody's.
    owners: Vec<u16>,
    masters: Vec<(Address, Arc<Node>)>,
    /// Replicas too: any of them knows whose the slots are.
    known: Vec<Address>,
}

/// What one server says: the masters with their ranges of slots, and all servers.
#[derive(Debug, Default, PartialEq, Eq)]
struct View {
    ranges: Vec<(u16, u16, Address)>,
    known: Vec<Address>,
}

impl Cluster {
    pub(super) async fn open(seeds: Vec<Address>, dialer: Dialer) -> Result<Self, DialError> {
        let shared = Arc::new(Shared { dialer, seeds, map: RwLock::default(), stale: Notify::new() });
        let view = shared.ask_around(0).await?;
        shared.adopt(view);
        let mut refresher = JoinSet::new();
        refresher.spawn(Arc::clone(&shared).refresh());
        Ok(Self { shared, _refresher: refresher })
    }

    /// The master of a slot.
    pub(super) fn owner(&self, slot: u16) -> Option<Arc<Node>> {
        let map = self.shared.read();
        let index = *map.owners.get(usize::from(slot))?;
        map.masters.get(usize::from(index)).map(|(_, node)| Arc::clone(node))
    }

    /// All masters.
    pub(super) fn masters(&self) -> Vec<(Address, Arc<Node>)> {
        self.shared.read().masters.clone()
    }

    /// A server that another has named, whether or not it has slots already.
    pub(super) fn node(&self, address: &Address) -> Arc<Node> {
        self.shared.write(|map| {
            let index = self.shared.place(map, address);
            Arc::clone(&map.masters[index].1)
        })
    }

    /// A slot has gone to another master.
    pub(super) fn moved(&self, slot: u16, address: &Address) {
        self.shared.write(|map| {
            let index = self.shared.place(map, address);
            if let (Some(owner), Ok(index)) = (map.owners.get_mut(usize::from(slot)), u16::try_from(index)) {
                *owner = index;
            }
        });
        self.stale();
    }

    /// What is known about the slots does not seem to hold any more.
    pub(super) fn stale(&self) {
        self.shared.stale.notify_one();
    }
}

impl Shared {
    fn read(&self) -> std::sync::RwLockReadGuard<'_, Map> {
        self.map.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write<T>(&self, change: impl FnOnce(&mut Map) -> T) -> T {
        change(&mut self.map.write().unwrap_or_else(PoisonError::into_inner))
    }

    /// Where a server stands among the masters; it is put there if it is new.
    fn place(&self, map: &mut Map, address: &Address) -> usize {
        map.masters.iter().position(|(known, _)| known == address).unwrap_or_else(|| {
            let node = Node::start(Target::Fixed(address.clone()), self.dialer.clone());
            map.masters.push((address.clone(), Arc::new(node)));
            map.masters.len() - 1
        })
    }

    async fn refresh(self: Arc<Self>) {
        let mut turn = 1;
        loop {
            let every = if self.is_whole() { REFRESH_EVERY } else { REFRESH_EVERY_AWAY };
            // Woken or not, it is time.
            let _ = timeout(every, self.stale.notified()).await;
            match self.ask_around(turn).await {
                Ok(view) => self.adopt(view),
                Err(error) => debug!("Nobody in the Cluster says whose the slots are: {}", Chain(&error)),
            }
            turn += 1;
            sleep(REFRESH_PAUSE).await;
        }
    }

    fn is_whole(&self) -> bool {
        let map = self.read();
        let owned = map.owners.iter().all(|owner| usize::from(*owner) < map.masters.len());
        owned && map.masters.iter().all(|(_, node)| node.is_up())
    }

    /// Asks one server after the other, each time beginning with another one, so that one which is wrong does not stay
    /// the only one that is heard. One that is cut off from the others says so and is passed over.
    async fn ask_around(&self, turn: usize) -> Result<View, DialError> {
        let mut all = self.read().known.clone();
        let known: BTreeSet<_> = all.iter().cloned().collect();
        all.extend(self.seeds.iter().filter(|seed| !known.contains(seed)).cloned());
        let mut failed = None;
        for step in 0..all.len() {
            let address = &all[(turn + step) % all.len()];
            match self.ask_one(address).await {
                Ok(view) => return Ok(view),
                Err(error) => failed = Some(error),
            }
        }
        Err(failed.unwrap_or(DialError::Connecting))
    }

    async fn ask_one(&self, address: &Address) -> Result<View, DialError> {
        let mut talk = self.dialer.dial(address, None).await?;
        prove_whole(&mut talk).await?;
        let slots = talk.ask(redis::cmd("CLUSTER").arg("SLOTS")).await?;
        view(&slots, address).ok_or_else(|| DialError::NoCluster {
            address: address.clone(),
            reason: "its slots cannot be read".to_owned(),
        })
    }

    fn adopt(&self, view: View) {
        self.write(|map| {
            let old = std::mem::take(&mut map.masters);
            let mut new =
                Map { known: view.known, owners: vec![u16::MAX; usize::from(SLOTS)], masters: Vec::new() };
            for (first, last, address) in &view.ranges {
                // A connection that is there stays.
                if let Some(kept) = old.iter().find(|(known, _)| known == address)
                    && !new.masters.iter().any(|(known, _)| known == address)
                {
                    new.masters.push(kept.clone());
                }
                let index = u16::try_from(self.place(&mut new, address)).unwrap_or(u16::MAX);
                if let Some(range) = new.owners.get_mut(usize::from(*first)..=usize::from(*last)) {
                    range.fill(index);
                }
            }
            *map = new;
        });
    }
}

/// A server that has lost the others keeps what it knew, and that may be old; so does one that never joined.
pub(super) async fn prove_whole(talk: &mut Talk) -> Result<(), DialError> {
    let told = talk.ask(redis::cmd("CLUSTER").arg("INFO")).await;
    let told = told.map_err(|error| error.unless_unknown(|address| DialError::NotClustered { address }))?;
    let told: String = redis::from_redis_value(told).unwrap_or_default();
    match told.lines().find_map(|line| line.trim().strip_prefix("cluster_state:")) {
        Some("ok") => Ok(()),
        state => Err(DialError::NoCluster {
            address: talk.address.clone(),
            reason: format!("its `cluster_state` is `{}`", state.unwrap_or("")),
        }),
    }
}

/// Reads `CLUSTER SLOTS`: ranges, each with its master first and the replicas after it.
fn view(slots: &Value, asked: &Address) -> Option<View> {
    let Value::Array(ranges) = slots else { return None };
    let mut view = View::default();
    let mut known = BTreeSet::new();
    for range in ranges {
        let Value::Array(parts) = range else { return None };
        let [Value::Int(first), Value::Int(last), servers @ ..] = parts.as_slice() else { return None };
        let servers: Vec<_> = servers.iter().filter_map(|server| address(server, asked)).collect();
        let (first, last) = (u16::try_from(*first).ok()?, u16::try_from(*last).ok()?);
        if let Some(master) = servers.first() {
            view.ranges.push((first, last, master.clone()));
        }
        known.extend(servers);
    }
    view.known = known.into_iter().collect();
    Some(view)
}

/// A server that does not know its own address leaves it out: it is the one that we have asked.
fn address(server: &Value, asked: &Address) -> Option<Address> {
    let Value::Array(parts) = server else { return None };
    let [host, Value::Int(port), ..] = parts.as_slice() else { return None };
    let host: Option<String> = redis::from_redis_value_ref(host).ok()?;
    let host = host.filter(|host| !host.is_empty()).unwrap_or_else(|| asked.host.clone());
    // A name that is asked for and not set is shown as `?`.
    (host != "?").then_some(())?;
    Some(Address { host, port: u16::try_from(*port).ok()? })
}

/// The deadline of a call that begins now.
pub(super) fn within(limit: Duration) -> Instant {
    Instant::now() + limit
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slot_is_that_of_the_tag_where_there_is_one() {
        // As `CLUSTER KEYSLOT` of a Redis 7.0.15 says.
        for (key, expected) in
            [("123456789", 12739), ("foo", 12182), ("a{foo}b", 12182), ("{}foo", 9500), ("", 0)]
        {
            assert_eq!(slot(key.as_bytes()), expected, "{key}");
        }
        assert_eq!(slot(b"foo{bar"), slot(b"foo{bar"));
        assert_eq!(slot(b"{foo}{bar}"), slot(b"foo"));
    }

    fn text(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    #[test]
    fn ranges_are_read_with_their_masters_and_a_host_that_is_left_out_is_the_one_asked() {
        let asked = Address { host: "asked".to_owned(), port: 1 };
        let server = |host: Value, port| Value::Array(vec![host, Value::Int(port), text("id")]);
        let slots = Value::Array(vec![
            Value::Array(vec![
                Value::Int(0),
                Value::Int(99),
                server(text("a"), 7),
                server(text("b"), 8),
                server(text("?"), 9),
            ]),
            Value::Array(vec![Value::Int(100), Value::Int(16_383), server(Value::Nil, 9)]),
        ]);
        let at = |host: &str, port| Address { host: host.to_owned(), port };
        let read = view(&slots, &asked).unwrap();
        assert_eq!(read.ranges, [(0, 99, at("a", 7)), (100, 16_383, at("asked", 9))]);
        assert_eq!(read.known, [at("a", 7), at("asked", 9), at("b", 8)]);
    }
}
