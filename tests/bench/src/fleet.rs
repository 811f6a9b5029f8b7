//! The service as several replicas: processes of its binary, with folders of their own, on one store, behind one address.
//!
//! A supervisor stands by, as systemd would: a replica that ends though it should run is started again a second later.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use narvaro_sim::{AppSpec, Sim};
use tokio::task::JoinHandle;

use crate::{
    process::{self, signal},
    redis::free_port,
    relay::Relay,
    service::CLIENT_ID,
};

/// How long a replica may take until it is ready; a debug build among others.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// How often replicas are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// How often the load balancer asks whether a replica lives, and how soon it has to answer.
const ASK_EVERY: Duration = Duration::from_millis(500);
const ANSWER_WITHIN: Duration = Duration::from_secs(1);

/// How long one that ended by itself stays ended.
const RESTART_AFTER: Duration = Duration::from_secs(1);

/// The key of `clientState`, the same for all.
const CLIENT_STATE: &str = "a-key-of-the-benchmark-that-all-its-replicas-share";

/// How a fleet is started.
pub(crate) struct FleetPlan<'a> {
    /// The service's binary; beside this program unless given.
    pub(crate) binary: Option<&'a Path>,
    /// Where each replica gets a folder.
    pub(crate) folder: &'a Path,
    /// Each replica's way to the store.
    pub(crate) stores: Vec<String>,
    /// More configuration, by replica.
    pub(crate) more: &'a dyn Fn(usize) -> String,
    /// `log.level`.
    pub(crate) log: &'a str,
}

/// One replica.
struct Replica {
    child: Option<Child>,
    /// Whether it should run.
    wanted: bool,
    ended_at: Option<Instant>,
}

struct Place {
    folder: PathBuf,
    public: u16,
    private: u16,
    replica: Mutex<Replica>,
}

struct Inner {
    binary: PathBuf,
    log: String,
    places: Vec<Place>,
    relay: Relay,
    client: reqwest::Client,
    /// How often one was started again that had ended by itself.
    restarts: Mutex<usize>,
}

/// The running replicas; they are ended when this is dropped.
pub(crate) struct Fleet {
    inner: Arc<Inner>,
    tasks: Vec<JoinHandle<()>>,
}

/// The secret of the app that only one replica has: by it the simulator tells who asks.
fn secret(place: usize) -> String {
    format!("client-secret-of-replica-{place}")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Fleet {
    /// Starts all, with the consent of all `tenants`, and waits until they are ready.
    pub(crate) async fn start(sim: &Sim, plan: FleetPlan<'_>, tenants: &[String]) -> anyhow::Result<Self> {
        let mut places = Vec::new();
        for place in 0..plan.stores.len() {
            let folder = plan.folder.join(format!("replica-{place}"));
            fs::create_dir_all(&folder)?;
            let replica = Mutex::new(Replica { child: None, wanted: true, ended_at: None });
            places.push(Place { folder, public: free_port()?, private: free_port()?, replica });
        }
        let ports: Vec<u16> = places.iter().map(|place| place.public).collect();
        let relay = Relay::start(&ports).await?;
        let address = format!("http://127.0.0.1:{}", relay.port);
        let mut app = AppSpec::new(CLIENT_ID, &secret(0));
        app.secrets = (0..places.len()).map(secret).collect();
        app.redirect_uris = vec![format!("{address}/consent/callback")];
        sim.add_app(app)?;
        for tenant in tenants {
            sim.consent(tenant, CLIENT_ID)?;
        }
        for (number, (place, store)) in places.iter().zip(&plan.stores).enumerate() {
            let text = configuration(place, sim.base_url(), &address, store, &(plan.more)(number));
            fs::write(place.folder.join("narvaro.toml"), text)?;
        }
        let binary = match plan.binary {
            Some(binary) => binary.canonicalize()?,
            None => std::env::current_exe()?.with_file_name("narvaro"),
        };
        let client = reqwest::Client::builder().no_proxy().timeout(ANSWER_WITHIN).build()?;
        let log = plan.log.to_owned();
        let inner = Arc::new(Inner { binary, log, places, relay, client, restarts: Mutex::new(0) });
        for place in 0..inner.places.len() {
            inner.run(place)?;
            inner.until_ready(place).await?;
        }
        let tasks =
            vec![tokio::spawn(Arc::clone(&inner).supervise()), tokio::spawn(Arc::clone(&inner).balance())];
        Ok(Self { inner, tasks })
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.inner.places.len()
    }

    /// The command line, in the folder of one of them.
    pub(crate) fn command(&self, place: usize, arguments: &[&str]) -> Command {
        let mut command = self.inner.command(place);
        command.args(arguments);
        command
    }

    /// Where one keeps its files.
    pub(crate) fn folder(&self, place: usize) -> &Path {
        &self.inner.places[place].folder
    }

    /// Ends one at once, as a failure of the machine would.
    pub(crate) fn kill(&self, place: usize) -> anyhow::Result<()> {
        let mut replica = lock(&self.inner.places[place].replica);
        replica.wanted = false;
        if let Some(mut child) = replica.child.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// Starts one again, and waits until it is ready.
    pub(crate) async fn start_again(&self, place: usize) -> anyhow::Result<()> {
        self.inner.run(place)?;
        self.inner.until_ready(place).await
    }

    /// Tells one to stop, and waits; how it ended and how long that took.
    pub(crate) async fn terminate(&self, place: usize) -> anyhow::Result<(ExitStatus, Duration)> {
        let child = {
            let mut replica = lock(&self.inner.places[place].replica);
            replica.wanted = false;
            replica.child.take()
        };
        let mut child = child.context("it does not run")?;
        let began = Instant::now();
        signal(child.id(), "TERM")?;
        loop {
            if let Some(status) = child.try_wait()? {
                return Ok((status, began.elapsed()));
            }
            if began.elapsed() > READY_WITHIN {
                child.kill()?;
                return Ok((child.wait()?, began.elapsed()));
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Sends a signal to one; `false` where it does not run.
    pub(crate) fn signal(&self, place: usize, name: &str) -> anyhow::Result<bool> {
        let replica = lock(&self.inner.places[place].replica);
        let Some(child) = &replica.child else { return Ok(false) };
        signal(child.id(), name)?;
        Ok(true)
    }

    /// Waits until all are ready.
    pub(crate) async fn until_all_ready(&self) -> anyhow::Result<()> {
        for place in 0..self.len() {
            self.inner.until_ready(place).await?;
        }
        Ok(())
    }

    /// How often one was started again that had ended by itself.
    pub(crate) fn restarts(&self) -> usize {
        *lock(&self.inner.restarts)
    }

    /// Resident memory of one in MiB.
    pub(crate) fn resident_mib(&self, place: usize) -> anyhow::Result<f64> {
        process::resident_mib(self.id(place)?)
    }

    /// Processor time of one since its start.
    pub(crate) fn cpu_time(&self, place: usize) -> anyhow::Result<Duration> {
        Ok(process::cpu_time(self.id(place)?)?.total())
    }

    fn id(&self, place: usize) -> anyhow::Result<u32> {
        let replica = lock(&self.inner.places[place].replica);
        Ok(replica.child.as_ref().context("it does not run")?.id())
    }

    /// What one tells Prometheus: each line's name with its labels, and its value.
    pub(crate) async fn metrics(&self, place: usize) -> anyhow::Result<Vec<(String, f64)>> {
        let text = self.inner.get(place, "/metrics").await?.text().await?;
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let value = |line: &str| {
            let (name, value) = line.rsplit_once(' ')?;
            Some((name.to_owned(), value.parse().ok()?))
        };
        Ok(lines.filter_map(value).collect())
    }

    /// All that all lives of all replicas have logged.
    pub(crate) fn log(&self) -> anyhow::Result<Vec<String>> {
        let mut lines = Vec::new();
        for (number, place) in self.inner.places.iter().enumerate() {
            let text = fs::read_to_string(place.folder.join("narvaro.log"))?;
            lines.extend(text.lines().map(|line| format!("[{number}] {line}")));
        }
        Ok(lines)
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
        for place in 0..self.len() {
            // One that is stopped dies of it too; one that has ended is gone already.
            drop(self.kill(place));
        }
    }
}

impl Inner {
    fn command(&self, place: usize) -> Command {
        let mut command = Command::new(&self.binary);
        command
            .current_dir(&self.places[place].folder)
            .env("NARVARO__GRAPH__CLIENT_SECRET", secret(place))
            .env("NARVARO__KEYS__CLIENT_STATE", CLIENT_STATE)
            .env("NARVARO__LOG__LEVEL", &self.log);
        command
    }

    fn run(&self, number: usize) -> anyhow::Result<()> {
        let place = &self.places[number];
        let log = fs::File::options().create(true).append(true).open(place.folder.join("narvaro.log"))?;
        let mut command = self.command(number);
        command.arg("serve").env("NO_COLOR", "1").stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let mut replica = lock(&place.replica);
        let child = command.spawn();
        let binary = self.binary.display();
        replica.child = Some(child.with_context(|| format!("`{binary}` cannot be started; build it first"))?);
        replica.wanted = true;
        replica.ended_at = None;
        Ok(())
    }

    async fn get(&self, place: usize, path: &str) -> reqwest::Result<reqwest::Response> {
        let url = format!("http://127.0.0.1:{}{path}", self.places[place].private);
        self.client.get(url).send().await
    }

    async fn until_ready(&self, place: usize) -> anyhow::Result<()> {
        let end = Instant::now() + READY_WITHIN;
        loop {
            if self.get(place, "/health/ready").await.is_ok_and(|answer| answer.status().is_success()) {
                return Ok(());
            }
            let log =
                || fs::read_to_string(self.places[place].folder.join("narvaro.log")).unwrap_or_default();
            let tail = || {
                let log = log();
                let last: Vec<&str> = log.lines().rev().take(10).collect();
                last.into_iter().rev().collect::<Vec<_>>().join("\n")
            };
            ensure!(Instant::now() < end, "replica {place} is not ready after {READY_WITHIN:?}:\n{}", tail());
            tokio::time::sleep(LOOK_EVERY / 2).await;
        }
    }

    async fn supervise(self: Arc<Self>) {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            for (number, place) in self.places.iter().enumerate() {
                let due = {
                    let mut replica = lock(&place.replica);
                    let ended = match &mut replica.child {
                        Some(child) => matches!(child.try_wait(), Ok(Some(_))),
                        None => false,
                    };
                    if !ended || !replica.wanted {
                        continue;
                    }
                    replica.ended_at.get_or_insert_with(Instant::now).elapsed() >= RESTART_AFTER
                };
                if due && self.run(number).is_ok() {
                    *lock(&self.restarts) += 1;
                }
            }
        }
    }

    /// Sends nothing to a replica that does not answer, and cuts what it has.
    async fn balance(self: Arc<Self>) {
        let mut was_up = vec![true; self.places.len()];
        loop {
            tokio::time::sleep(ASK_EVERY).await;
            let asked = (0..self.places.len()).map(|place| self.get(place, "/health/live"));
            for (place, answer) in futures_util::future::join_all(asked).await.into_iter().enumerate() {
                let up = answer.is_ok_and(|answer| answer.status().is_success());
                self.relay.set_up(place, up);
                if was_up[place] && !up {
                    self.relay.cut(place);
                }
                was_up[place] = up;
            }
        }
    }
}

fn configuration(place: &Place, sim: &str, address: &str, store: &str, more: &str) -> String {
    let (public, private) = (place.public, place.private);
    format!(
        "[listen]\npublic = \"127.0.0.1:{public}\"\nprivate = \"127.0.0.1:{private}\"\n\
         [webhook]\npublic_url = \"{address}\"\nself_test_secs = 0\n\
         [store]\nurl = \"{store}\"\n\
         [graph]\nclient_id = \"{CLIENT_ID}\"\ncloud = \"custom\"\ngraph_base = \"{sim}\"\n\
         login_authority = \"{sim}\"\nallow_plain_http_loopback = true\n\
         [admin]\ntoken_file = \"admin.token\"\n{more}\n"
    )
}
