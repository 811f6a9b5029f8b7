//! Redis as an operator may have it: one server, a master with its sentinels, or a Cluster; each with a way to fail.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};

use crate::redis::{Client, RedisServer, free_port};

/// How Redis is set up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Form {
    /// No Redis: one replica on a file.
    Embedded,
    /// One server.
    Single,
    /// A master and two replicas, with three sentinels.
    Sentinel,
    /// Three masters with a replica each.
    Cluster,
}

/// Name that the sentinels have for the master.
const MASTER: &str = "mymaster";

/// How long it may take until another server has taken over.
const TAKEN_OVER_WITHIN: Duration = Duration::from_secs(40);

/// The hash tag that all of Närvaro's keys share.
const A_KEY: &str = "{narvaro}";

/// How often what comes by itself is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// The servers of one form.
pub(crate) struct Site {
    form: Form,
    servers: Vec<RedisServer>,
    sentinels: Vec<Sentinel>,
}

struct Sentinel {
    child: Child,
    port: u16,
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Site {
    /// Starts all servers of `form` in `folder` and waits until they are one.
    pub(crate) fn start(form: Form, folder: &Path) -> anyhow::Result<Self> {
        let mut site = Self { form, servers: Vec::new(), sentinels: Vec::new() };
        match form {
            Form::Embedded => {}
            Form::Single => site.servers.push(RedisServer::start(&folder.join("redis"), None, &[])?),
            Form::Sentinel => site.start_with_sentinels(folder)?,
            Form::Cluster => site.start_cluster(folder)?,
        }
        Ok(site)
    }

    fn start_with_sentinels(&mut self, folder: &Path) -> anyhow::Result<()> {
        let master = RedisServer::start(&folder.join("redis-0"), None, &[])?;
        let of_master = ["--replicaof".to_owned(), format!("127.0.0.1 {}", master.port)];
        let port = master.port;
        self.servers.push(master);
        for number in 1..=2 {
            let more: Vec<&str> = of_master.iter().map(String::as_str).collect();
            self.servers.push(RedisServer::start(&folder.join(format!("redis-{number}")), None, &more)?);
        }
        for number in 0..3 {
            self.sentinels.push(Sentinel::start(&folder.join(format!("sentinel-{number}")), port)?);
        }
        self.until_whole()
    }

    fn start_cluster(&mut self, folder: &Path) -> anyhow::Result<()> {
        for number in 0..6 {
            let more = ["--cluster-enabled", "yes", "--cluster-node-timeout", "2000"];
            // The bus is ten thousand above: that has to be a port, too.
            let port = loop {
                let port = free_port()?;
                if port < 50_000 {
                    break port;
                }
            };
            let folder = folder.join(format!("redis-{number}"));
            self.servers.push(RedisServer::start_at(port, &folder, None, &more)?);
        }
        let addresses = self.servers.iter().map(|server| format!("127.0.0.1:{}", server.port));
        let joined = Command::new("redis-cli")
            .args(["--cluster", "create"])
            .args(addresses)
            .args(["--cluster-replicas", "1", "--cluster-yes"])
            .output()
            .context("`redis-cli` is not there; on Debian: apt-get install redis-tools")?;
        let said = String::from_utf8_lossy(&joined.stdout);
        ensure!(joined.status.success(), "the servers did not become a Cluster: {said}");
        self.until_whole()
    }

    /// Waits until every server could take over: after one has come back that takes a while.
    fn until_whole(&self) -> anyhow::Result<()> {
        until("all servers of Redis are linked again", || {
            self.servers.iter().all(|server| is_linked(server, self.form).unwrap_or(false))
                && self.sentinels.iter().all(|sentinel| sentinel.knows_all().unwrap_or(false))
        })
    }

    /// As `store.url`; of a single server it may be reached through a relay at another port.
    pub(crate) fn url(&self, relay: Option<u16>) -> String {
        let hosts = |ports: Vec<u16>| {
            ports.iter().map(|port| format!("127.0.0.1:{port}")).collect::<Vec<_>>().join(",")
        };
        match self.form {
            Form::Embedded => "embedded:narvaro.db".to_owned(),
            Form::Single => {
                let port = relay.or(self.servers.first().map(|server| server.port)).unwrap_or_default();
                format!("redis://{}", hosts(vec![port]))
            }
            Form::Sentinel => {
                let sentinels = self.sentinels.iter().map(|sentinel| sentinel.port).collect();
                format!("redis+sentinel://{}/{MASTER}", hosts(sentinels))
            }
            Form::Cluster => {
                format!("redis+cluster://{}", hosts(self.servers.iter().map(|server| server.port).collect()))
            }
        }
    }

    /// Where the only server is.
    pub(crate) fn port(&self) -> Option<u16> {
        self.servers.first().filter(|_| self.form == Form::Single).map(|server| server.port)
    }

    /// Kills the server that has the keys. One that is alone is started again after `down`; else it comes back as soon as
    /// another has taken over. How long it was until one took commands again.
    pub(crate) fn fail(&mut self, down: Duration) -> anyhow::Result<Duration> {
        self.until_whole()?;
        let place = self.master()?;
        let before = self.servers[place].port;
        let began = Instant::now();
        self.servers[place].kill();
        if self.form == Form::Single {
            std::thread::sleep(down);
            self.servers[place].start_again()?;
            return Ok(began.elapsed());
        }
        let taken_over = until("another server has taken over", || {
            self.master().is_ok_and(|now| self.servers[now].port != before && self.is_master(now))
        });
        let took = began.elapsed();
        // It comes back whether or not another one did its work meanwhile.
        self.servers[place].start_again()?;
        taken_over?;
        Ok(took)
    }

    /// Ends all connections of clients to the server that has the keys.
    pub(crate) fn cut(&self) -> anyhow::Result<()> {
        let mut client = self.servers[self.master()?].client()?;
        for kind in ["normal", "pubsub"] {
            client.ask(&["CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes"])?;
        }
        Ok(())
    }

    fn is_master(&self, place: usize) -> bool {
        let role = self.servers[place].client().and_then(|mut client| client.ask(&["ROLE"]));
        role.is_ok_and(|role| role.list().first().is_some_and(|role| role.text() == "master"))
    }

    /// Which server has the keys, as the others see it.
    fn master(&self) -> anyhow::Result<usize> {
        let port = match self.form {
            Form::Embedded => bail!("there is no Redis"),
            Form::Single => return Ok(0),
            Form::Sentinel => {
                let asked = self.sentinels.iter().find_map(|sentinel| {
                    let mut client = Client::connect(sentinel.port).ok()?;
                    let answer = client.ask(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER]).ok()?;
                    answer.list().get(1)?.text().parse().ok()
                });
                asked.context("no sentinel answers")?
            }
            Form::Cluster => self.master_of_slot()?,
        };
        let place = self.servers.iter().position(|server| server.port == port);
        place.with_context(|| format!("a server at port {port} is unknown"))
    }

    fn master_of_slot(&self) -> anyhow::Result<u16> {
        for server in &self.servers {
            let Ok(mut client) = server.client() else { continue };
            let slot = client.ask(&["CLUSTER", "KEYSLOT", A_KEY])?.number();
            let slots = client.ask(&["CLUSTER", "SLOTS"])?;
            let ranges = slots.list().iter().map(crate::redis::Reply::list);
            for range in ranges.filter(|range| range.len() > 2) {
                if (range[0].number()..=range[1].number()).contains(&slot)
                    && let Some(port) = range[2].list().get(1)
                {
                    return Ok(u16::try_from(port.number())?);
                }
            }
        }
        bail!("no server of the Cluster knows who has the keys")
    }
}

/// Whether a server follows its master, or has followers.
fn is_linked(server: &RedisServer, form: Form) -> anyhow::Result<bool> {
    let mut client = server.client()?;
    if form == Form::Cluster && !client.ask(&["CLUSTER", "INFO"])?.text().contains("cluster_state:ok") {
        return Ok(false);
    }
    let replication = client.info("replication")?;
    let says = |name: &str, value: &str| replication.get(name).is_some_and(|said| said == value);
    Ok(match form {
        Form::Embedded | Form::Single => true,
        Form::Sentinel if says("role", "master") => says("connected_slaves", "2"),
        Form::Cluster if says("role", "master") => says("connected_slaves", "1"),
        Form::Sentinel | Form::Cluster => says("master_link_status", "up"),
    })
}

impl Sentinel {
    /// Whether it could have another server take over.
    fn knows_all(&self) -> anyhow::Result<bool> {
        let mut client = Client::connect(self.port)?;
        let quorum = client.ask(&["SENTINEL", "CKQUORUM", MASTER])?;
        let replicas = client.ask(&["SENTINEL", "REPLICAS", MASTER])?;
        Ok(quorum.text().starts_with("OK 3") && replicas.list().len() == 2)
    }

    fn start(folder: &Path, master: u16) -> anyhow::Result<Self> {
        fs::create_dir_all(folder)?;
        let port = free_port()?;
        let file = folder.join("sentinel.conf");
        fs::write(
            &file,
            format!(
                "port {port}\nbind 127.0.0.1\ndir {}\nsentinel monitor {MASTER} 127.0.0.1 {master} 2\n\
                 sentinel down-after-milliseconds {MASTER} 1000\nsentinel failover-timeout {MASTER} 5000\n",
                folder.display()
            ),
        )?;
        let log = fs::File::create(folder.join("sentinel.log"))?;
        let child = Command::new("redis-server")
            .arg(&file)
            .arg("--sentinel")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("`redis-server` cannot be started; on Debian: apt-get install redis-server")?;
        Ok(Self { child, port })
    }
}

fn until(what: &str, mut holds: impl FnMut() -> bool) -> anyhow::Result<()> {
    let end = Instant::now() + TAKEN_OVER_WITHIN;
    while !holds() {
        ensure!(Instant::now() < end, "not within {TAKEN_OVER_WITHIN:?}: {what}");
        std::thread::sleep(LOOK_EVERY);
    }
    Ok(())
}
