//! Real Redis servers: plain, by TLS, watched by sentinels, in a Cluster; and a proxy that spoils the way to them.

use std::{
    fs,
    io::Write,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use narvaro::{
    config::{Config, Environment},
    store::redis::LinkSettings,
};
use tempfile::TempDir;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener as Listener, TcpStream},
    sync::watch,
    task::JoinSet,
};

/// Longest wait for a server's state.
const LIMIT: Duration = Duration::from_secs(30);

/// What stands in a server's configuration beside what all have.
pub(crate) const PLAIN: &str = "save \"\"";

/// The ports that a test's servers get: free when they were asked for.
pub(crate) fn free_port() -> u16 {
    // A Cluster's bus listens 10,000 above.
    loop {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        if port < 55_000 && TcpListener::bind(("127.0.0.1", port + 10_000)).is_ok() {
            return port;
        }
    }
}

/// How a test's store goes to that server.
pub(crate) fn link_settings(url: &str) -> LinkSettings {
    let environment = Environment::of([("NARVARO__STORE__URL", url)]);
    let config = Config::parse("narvaro.toml", "", &environment).unwrap();
    config.store.link_settings().unwrap().unwrap()
}

/// One server in a folder of its own. Dropped, it is killed.
pub(crate) struct RedisServer {
    pub(crate) port: u16,
    folder: TempDir,
    program: &'static str,
    tls: bool,
    child: Mutex<Option<Child>>,
}

impl RedisServer {
    /// A server with these lines in its configuration, once it answers.
    pub(crate) fn start(lines: &str) -> Self {
        Self::of("redis-server", free_port(), lines, false)
    }

    /// A Sentinel with these lines in its configuration.
    pub(crate) fn sentinel(lines: &str) -> Self {
        Self::of("redis-sentinel", free_port(), lines, false)
    }

    fn of(program: &'static str, port: u16, lines: &str, tls: bool) -> Self {
        let folder = tempfile::Builder::new().prefix("narvaro-redis-").tempdir().unwrap();
        let at = folder.path().display().to_string();
        let listen = if tls { format!("port 0\ntls-port {port}") } else { format!("port {port}") };
        let usual = format!("bind 127.0.0.1\n{listen}\ndir {at}\ndaemonize no\nlogfile {at}/log\n");
        fs::write(folder.path().join("conf"), usual + &lines.replace("FOLDER", &at)).unwrap();
        let server = Self { port, folder, program, tls, child: Mutex::new(None) };
        server.launch();
        server
    }

    /// A server that speaks TLS only, with a certificate of its own CA, and lets in `anna` with `s3cret` only.
    pub(crate) fn with_tls() -> Self {
        let files = tempfile::tempdir().unwrap();
        certificates(files.path());
        let at = |name: &str| fs::read_to_string(files.path().join(name)).unwrap();
        let folder = tempfile::Builder::new().prefix("narvaro-redis-tls-").tempdir().unwrap();
        for name in ["ca.pem", "cert.pem", "key.pem"] {
            fs::write(folder.path().join(name), at(name)).unwrap();
        }
        let path = folder.path().display().to_string();
        let port = free_port();
        let lines = format!(
            "bind 127.0.0.1\nport 0\ntls-port {port}\ndir {path}\nlogfile {path}/log\n{PLAIN}\n\
             tls-cert-file {path}/cert.pem\ntls-key-file {path}/key.pem\ntls-ca-cert-file {path}/ca.pem\n\
             tls-auth-clients no\nuser default off\nuser anna on >s3cret ~{{narvaro}}:* ~narvaro:* &{{narvaro}}:* &narvaro:* +@all\n"
        );
        fs::write(folder.path().join("conf"), lines).unwrap();
        let server = Self { port, folder, program: "redis-server", tls: true, child: Mutex::new(None) };
        server.launch();
        server
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Starts it again, on the same port and with the same folder, and waits until it answers.
    pub(crate) fn launch(&self) {
        let mut command = Command::new(self.program);
        command.arg(self.file("conf")).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().unwrap_or_else(|error| {
            panic!("{} cannot be started ({error}): run `apt-get install {}`", self.program, self.program)
        });
        *self.child.lock().unwrap() = Some(child);
        let user: &[&str] = if self.tls { &["--user", "anna", "--pass", "s3cret"] } else { &[] };
        let end = Instant::now() + LIMIT;
        while self.cli_with(user, &["PING"]).trim() != "PONG" {
            assert!(Instant::now() < end, "no answer: {:?}", fs::read_to_string(self.file("log")));
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// What `redis-cli` says.
    pub(crate) fn cli(&self, words: &[&str]) -> String {
        self.cli_with(&[], words)
    }

    fn cli_with(&self, options: &[&str], words: &[&str]) -> String {
        let mut command = self.client(options);
        let said = command.args(words).output();
        let said = said.unwrap_or_else(|error| {
            panic!("redis-cli cannot be started ({error}): run `apt-get install redis-tools`")
        });
        String::from_utf8_lossy(&said.stdout).into_owned()
    }

    fn client(&self, options: &[&str]) -> Command {
        let mut command = Command::new("redis-cli");
        command.args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "--no-auth-warning"]).args(options);
        if self.tls {
            command.arg("--tls").arg("--cacert").arg(self.file("ca.pem"));
        }
        command
    }

    /// Returns once a replica has everything that this server has: `WAIT` waits for what its own connection has written, so
    /// that something has to be written over it.
    pub(crate) fn until_replicated(&self) {
        let mut client = self.client(&[]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        client.stdin.take().unwrap().write_all(b"SET {narvaro}:waited 1\nWAIT 1 20000\n").unwrap();
        let said = client.wait_with_output().unwrap();
        assert_eq!(String::from_utf8_lossy(&said.stdout).split_whitespace().collect::<Vec<_>>(), ["OK", "1"]);
    }

    /// As the power does it.
    pub(crate) fn kill(&self) {
        if let Some(mut child) = self.child.lock().unwrap().take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Lets it hang: the system still takes connections for it.
    pub(crate) fn stop(&self) {
        self.signal("-STOP");
    }

    /// Lets it go on.
    pub(crate) fn go_on(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let pid = self.child.lock().unwrap().as_ref().unwrap().id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A CA, and a certificate of it for this machine.
pub(crate) fn certificates(folder: &Path) {
    let ca_key = rcgen::KeyPair::generate().unwrap();
    let mut ca = rcgen::CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    ca.distinguished_name.push(rcgen::DnType::CommonName, "test");
    let ca_certificate = ca.self_signed(&ca_key).unwrap();
    let issuer = rcgen::Issuer::new(ca, ca_key);
    let key = rcgen::KeyPair::generate().unwrap();
    let names = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
    let certificate = rcgen::CertificateParams::new(names).unwrap().signed_by(&key, &issuer).unwrap();
    fs::write(folder.join("ca.pem"), ca_certificate.pem()).unwrap();
    fs::write(folder.join("cert.pem"), certificate.pem()).unwrap();
    fs::write(folder.join("key.pem"), key.serialize_pem()).unwrap();
}

/// Waits until `holds`, and says `what` if it never does.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + LIMIT;
    while !holds() {
        assert!(Instant::now() < end, "{what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A master, its replica, and three sentinels that take a second to see the master gone.
pub(crate) struct Watched {
    pub(crate) master: RedisServer,
    pub(crate) replica: RedisServer,
    pub(crate) sentinels: Vec<RedisServer>,
}

impl Watched {
    pub(crate) async fn start() -> Self {
        let master = RedisServer::start(PLAIN);
        let replica = RedisServer::start(&format!(
            "{PLAIN}\nreplicaof 127.0.0.1 {}\nrepl-diskless-sync-delay 0",
            master.port
        ));
        let watch = format!(
            "sentinel monitor mymaster 127.0.0.1 {} 2\nsentinel down-after-milliseconds mymaster 1000\n\
             sentinel failover-timeout mymaster 5000\n",
            master.port
        );
        let sentinels: Vec<_> = (0..3).map(|_| RedisServer::sentinel(&watch)).collect();
        let watched = Self { master, replica, sentinels };
        until("the replica follows", || {
            watched.replica.cli(&["INFO", "replication"]).contains("master_link_status:up")
        })
        .await;
        until("the sentinels know one another and the replica", || {
            watched.sentinels.iter().all(|one| {
                let told = one.cli(&["INFO", "sentinel"]);
                told.contains("slaves=1,sentinels=3")
            })
        })
        .await;
        watched
    }

    pub(crate) fn url(&self) -> String {
        let hosts: Vec<_> = self.sentinels.iter().map(|one| format!("127.0.0.1:{}", one.port)).collect();
        format!("redis+sentinel://{}/mymaster", hosts.join(","))
    }
}

/// Three masters with a replica each.
pub(crate) struct ClusterOf {
    pub(crate) nodes: Vec<RedisServer>,
}

impl ClusterOf {
    pub(crate) async fn start() -> Self {
        let lines = format!(
            "{PLAIN}\ncluster-enabled yes\ncluster-config-file FOLDER/nodes.conf\ncluster-node-timeout 2000\n\
             repl-diskless-sync-delay 0"
        );
        let nodes: Vec<_> = (0..6).map(|_| RedisServer::start(&lines)).collect();
        let mut command = Command::new("redis-cli");
        command.args(["--cluster", "create"]);
        command.args(nodes.iter().map(|node| format!("127.0.0.1:{}", node.port)));
        let made = command.args(["--cluster-replicas", "1", "--cluster-yes"]).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stdout));
        let cluster = Self { nodes };
        until("all of the Cluster agree", || {
            cluster.nodes.iter().all(|node| {
                let whole = node.cli(&["CLUSTER", "INFO"]).contains("cluster_state:ok");
                let role = node.cli(&["INFO", "replication"]);
                whole && (role.contains("connected_slaves:1") || role.contains("master_link_status:up"))
            })
        })
        .await;
        cluster
    }

    pub(crate) fn url(&self) -> String {
        let hosts: Vec<_> = self.nodes[..2].iter().map(|one| format!("127.0.0.1:{}", one.port)).collect();
        format!("redis+cluster://{}", hosts.join(","))
    }

    /// The master that has `key`.
    pub(crate) fn master_of(&self, key: &str) -> &RedisServer {
        self.nodes.iter().find(|node| node.cli(&["SET", key, "x"]).trim() == "OK").unwrap()
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Open,
    Refused,
}

/// Stands before a server. Dropped, it is gone.
pub(crate) struct Proxy {
    pub(crate) port: u16,
    way: watch::Sender<Way>,
    /// Grows with each cut.
    cuts: watch::Sender<u64>,
    /// While it is set nothing is passed on, and nobody is told.
    stalled: Arc<watch::Sender<bool>>,
    _tasks: JoinSet<()>,
}

impl Proxy {
    pub(crate) async fn to(port: u16) -> Self {
        let listener = Listener::bind("127.0.0.1:0").await.unwrap();
        let here = listener.local_addr().unwrap().port();
        let (way, open) = watch::channel(Way::Open);
        let (cuts, cut) = watch::channel(0);
        let stalled = Arc::new(watch::channel(false).0);
        let mut tasks = JoinSet::new();
        let stall = Arc::clone(&stalled);
        tasks.spawn(async move {
            let mut passing = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                if *open.borrow() == Way::Open {
                    passing.spawn(pass(client, port, cut.clone(), stall.subscribe()));
                }
            }
        });
        Self { port: here, way, cuts, stalled, _tasks: tasks }
    }

    /// Ends all connections that there are.
    pub(crate) fn cut(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// Ends all, and every new one at once.
    pub(crate) fn refuse(&self, refuse: bool) {
        self.way.send_replace(if refuse { Way::Refused } else { Way::Open });
        if refuse {
            self.cut();
        }
    }

    /// Passes nothing on, without a word.
    pub(crate) fn stall(&self, stall: bool) {
        self.stalled.send_replace(stall);
    }
}

async fn pass(
    mut client: TcpStream,
    port: u16,
    mut cut: watch::Receiver<u64>,
    mut stalled: watch::Receiver<bool>,
) {
    cut.mark_unchanged();
    let Ok(mut server) = TcpStream::connect(("127.0.0.1", port)).await else { return };
    let through = async {
        loop {
            if stalled.wait_for(|stalled| !stalled).await.is_err() {
                return;
            }
            tokio::select! {
                _ = copy_bidirectional(&mut client, &mut server) => return,
                // What is in between at this moment may be lost, as on a bad line; the connection stays.
                _ = stalled.wait_for(|stalled| *stalled) => {}
            }
        }
    };
    tokio::select! {
        () = through => {}
        _ = cut.changed() => {}
    }
}
