//! The forms of the store that are held to the contract.

use std::sync::Arc;

use async_trait::async_trait;
use narvaro::{
    clock::{Clock, ManualClock, SharedClock},
    queue::{Replica, Replicas, Shares},
    store::{
        Store,
        embedded::{Embedded, EmbeddedSettings},
        redis::{Redis, RedisSettings},
    },
};

use super::{Bench, SharedBench};
use crate::support::{
    redis::{PLAIN, RedisServer, link_settings},
    shared::Shared,
};

const SHARES: Shares = Shares { showing_per_company: 2, reading: 3, reading_per_company: 2 };

/// Entries of the trail that are kept.
const TRAIL: u64 = 3;

fn clock() -> Arc<ManualClock> {
    ManualClock::at("2026-11-23T08:00:00Z".parse().unwrap())
}

struct EmbeddedBench {
    _folder: tempfile::TempDir,
    settings: EmbeddedSettings,
    clock: Arc<ManualClock>,
    store: Option<Arc<Embedded>>,
}

impl EmbeddedBench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("narvaro.db");
        let settings = EmbeddedSettings { path, shares: SHARES, trail_entries: TRAIL };
        let mut bench = Self { _folder: folder, settings, clock: clock(), store: None };
        bench.open();
        bench
    }

    fn open(&mut self) {
        let clock: SharedClock = Arc::clone(&self.clock) as SharedClock;
        self.store = Some(Arc::new(Embedded::open(&self.settings, clock).unwrap()));
    }
}

#[async_trait]
impl Bench for EmbeddedBench {
    fn store(&self) -> Arc<dyn Store> {
        Arc::clone(self.store.as_ref().unwrap()) as Arc<dyn Store>
    }

    fn clock(&self) -> &ManualClock {
        &self.clock
    }

    async fn reopen(&mut self) {
        let store = self.store.take().unwrap();
        let last = Arc::into_inner(store).unwrap();
        tokio::task::spawn_blocking(move || drop(last)).await.unwrap();
        self.open();
    }
}

struct RedisBench {
    _server: RedisServer,
    settings: RedisSettings,
    clock: Arc<ManualClock>,
    store: Arc<Redis>,
}

impl RedisBench {
    async fn new() -> Self {
        let server = RedisServer::start(PLAIN);
        let settings = RedisSettings {
            link: link_settings(&server.url()),
            prefix: "narvaro".into(),
            shares: SHARES,
            trail_entries: TRAIL,
        };
        let clock = clock();
        let store = Arc::new(Redis::open(&settings, Arc::clone(&clock) as SharedClock).await.unwrap());
        Self { _server: server, settings, clock, store }
    }
}

#[async_trait]
impl Bench for RedisBench {
    fn store(&self) -> Arc<dyn Store> {
        Arc::clone(&self.store) as Arc<dyn Store>
    }

    fn clock(&self) -> &ManualClock {
        &self.clock
    }

    async fn reopen(&mut self) {
        self.store.leave().await.unwrap();
        let clock: SharedClock = Arc::clone(&self.clock) as SharedClock;
        self.store = Arc::new(Redis::open(&self.settings, clock).await.unwrap());
        // As the service does when it starts; nobody else is there, so everything is due.
        let (name, version, started) = ("one".into(), "1".into(), self.clock.now());
        self.store.announce(&Replica { name, version, started, key: String::new() }).await.unwrap();
    }
}

/// A Redis with two processes on it.
struct SharedRedis {
    first: RedisBench,
    second: Arc<Redis>,
}

#[async_trait]
impl Bench for SharedRedis {
    fn store(&self) -> Arc<dyn Store> {
        self.first.store()
    }

    fn clock(&self) -> &ManualClock {
        self.first.clock()
    }

    async fn reopen(&mut self) {
        self.first.reopen().await;
    }
}

impl SharedBench for SharedRedis {
    fn beside(&self) -> Arc<dyn Store> {
        Arc::clone(&self.second) as Arc<dyn Store>
    }
}

/// The tests' own store of several processes.
struct HandleBench {
    _folder: tempfile::TempDir,
    clock: Arc<ManualClock>,
    shared: Arc<Shared>,
    store: Arc<dyn Store>,
}

impl HandleBench {
    fn new() -> Self {
        let EmbeddedBench { _folder, settings, clock, store } = EmbeddedBench::new();
        drop(store);
        let shared = Shared::open(&settings, &clock);
        let store = shared.handle();
        Self { _folder, clock, shared, store }
    }
}

#[async_trait]
impl Bench for HandleBench {
    fn store(&self) -> Arc<dyn Store> {
        Arc::clone(&self.store)
    }

    fn clock(&self) -> &ManualClock {
        &self.clock
    }

    async fn reopen(&mut self) {
        self.store = self.shared.handle();
    }
}

impl SharedBench for HandleBench {
    fn beside(&self) -> Arc<dyn Store> {
        self.shared.handle()
    }
}

/// What the tests of several processes use.
pub(super) fn stand_in() -> Box<dyn SharedBench> {
    Box::new(HandleBench::new())
}

/// A Redis of its own, with two processes on it.
pub(super) async fn shared_redis() -> Box<dyn SharedBench> {
    let first = RedisBench::new().await;
    let clock: SharedClock = Arc::clone(&first.clock) as SharedClock;
    let second = Arc::new(Redis::open(&first.settings, clock).await.unwrap());
    Box::new(SharedRedis { first, second })
}

/// A file of its own.
pub(super) fn embedded() -> Box<dyn Bench> {
    Box::new(EmbeddedBench::new())
}

/// A Redis of its own.
pub(super) async fn redis() -> Box<dyn Bench> {
    Box::new(RedisBench::new().await)
}

#[tokio::test]
async fn a_second_process_is_refused_the_file() {
    let bench = EmbeddedBench::new();
    let clock: SharedClock = Arc::clone(&bench.clock) as SharedClock;
    let error = Embedded::open(&bench.settings, clock).err().expect("one owner only");
    assert!(error.to_string().contains("in use by another process"), "{error}");
}
