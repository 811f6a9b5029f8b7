//! The built binary as a process of its own, with the machine's clock, against the simulators.
//!
//! It listens at free ports of its own choice, anew with each start. What Graph is given is the address of a relay in
//! this process, which stays; while no service runs, the relay drops connections, as a proxy without backend does.

use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use narvaro_sim::{AppSpec, Sim, SimOptions, TenantSpec};
use tokio::net::{TcpListener, TcpStream};

use crate::world::{CLIENT_ID, LIMIT, SECRET};

/// Simulators, relay and, while it runs, the service.
pub(crate) struct Service {
    pub(crate) sim: Sim,
    pub(crate) tenant: String,
    pub(crate) folder: tempfile::TempDir,
    pub(crate) client: reqwest::Client,
    relay: SocketAddr,
    backend: Arc<Mutex<Option<SocketAddr>>>,
    running: Option<Running>,
    /// Everything that all lives of the service have logged.
    log: Arc<Mutex<String>>,
}

struct Running {
    child: Child,
    private: SocketAddr,
}

impl Drop for Service {
    fn drop(&mut self) {
        self.kill();
    }
}

async fn relay(listener: TcpListener, backend: Arc<Mutex<Option<SocketAddr>>>) {
    loop {
        let Ok((mut inside, _)) = listener.accept().await else { return };
        let to = *backend.lock().unwrap();
        tokio::spawn(async move {
            let Some(to) = to else { return };
            if let Ok(mut outside) = TcpStream::connect(to).await {
                // One of the two ends is cut often here: that is the purpose.
                drop(tokio::io::copy_bidirectional(&mut inside, &mut outside).await);
            }
        });
    }
}

impl Service {
    /// Simulators and relay; the service is to be started.
    pub(crate) async fn new() -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let sim = Sim::start(SimOptions::default()).await.unwrap();
        let tenant = sim.add_tenant(TenantSpec::new("acme.example")).unwrap();
        sim.add_app(AppSpec::new(CLIENT_ID, SECRET)).unwrap();
        sim.consent(&tenant, CLIENT_ID).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let backend = Arc::new(Mutex::new(None));
        tokio::spawn(relay(listener, Arc::clone(&backend)));
        let client = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(0).build().unwrap();
        let folder = tempfile::tempdir().unwrap();
        Self { sim, tenant, folder, client, relay: at, backend, running: None, log: Arc::default() }
    }

    pub(crate) fn store(&self) -> PathBuf {
        self.folder.path().join("narvaro.db")
    }

    fn write_config(&self) -> PathBuf {
        let (base, relay) = (self.sim.base_url(), self.relay);
        let text = format!(
            r#"
            [listen]
            public = "127.0.0.1:0"
            private = "127.0.0.1:0"
            [webhook]
            public_url = "http://{relay}"
            max_body_bytes = 65536
            [store]
            url = "embedded:{}"
            [graph]
            client_id = "{CLIENT_ID}"
            cloud = "custom"
            graph_base = "{base}"
            login_authority = "{base}"
            allow_plain_http_loopback = true
            "#,
            self.store().display()
        );
        let path = self.folder.path().join("narvaro.toml");
        std::fs::write(&path, text).unwrap();
        path
    }

    /// Starts the service and returns once it is ready. `more` are environment variables.
    pub(crate) async fn start(&mut self, more: &[(&str, &str)]) {
        let mut child = Command::new(env!("CARGO_BIN_EXE_narvaro"))
            .args(["serve", "--config"])
            .arg(self.write_config())
            .env_clear()
            .env("NARVARO__GRAPH__CLIENT_SECRET", SECRET)
            .envs(more.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = child.stderr.take().unwrap();
        let (ready, is_ready) = tokio::sync::oneshot::channel();
        let log = Arc::clone(&self.log);
        std::thread::spawn(move || {
            let mut ready = Some(ready);
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let addresses = addresses(&line);
                let mut log = log.lock().unwrap();
                log.push_str(&line);
                log.push('\n');
                if let Some(addresses) = addresses
                    && let Some(ready) = ready.take()
                {
                    let _ = ready.send(addresses);
                }
            }
        });
        match tokio::time::timeout(LIMIT, is_ready).await {
            Ok(Ok((public, private))) => {
                *self.backend.lock().unwrap() = Some(public);
                self.running = Some(Running { child, private });
            }
            _ => {
                drop(child.kill());
                panic!("the service did not start:\n{}", self.log());
            }
        }
    }

    /// Ends the service by SIGKILL, if it runs.
    pub(crate) fn kill(&mut self) {
        if let Some(mut running) = self.running.take() {
            running.child.kill().unwrap();
            running.child.wait().unwrap();
        }
        *self.backend.lock().unwrap() = None;
    }

    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Where notifications are to be posted.
    pub(crate) fn notify_url(&self) -> String {
        format!("http://{}/graph/v1/notify", self.relay)
    }

    fn private(&self) -> SocketAddr {
        self.running.as_ref().unwrap().private
    }

    /// A request to the admin API; status and body.
    pub(crate) async fn admin(
        &self,
        method: &str,
        path: &str,
        body: Option<serde_json::Value>,
    ) -> (u16, String) {
        let token = std::fs::read_to_string(self.folder.path().join("admin.token")).unwrap();
        let url = format!("http://{}/admin/v1{path}", self.private());
        let mut request = self.client.request(method.parse().unwrap(), url).bearer_auth(token.trim());
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    }

    pub(crate) async fn get(&self, path: &str) -> String {
        let (status, body) = self.admin("GET", path, None).await;
        assert_eq!(status, 200, "{path}: {body}");
        body
    }

    pub(crate) async fn apply(&self, file: &str) {
        let request = serde_json::json!({ "text": file, "file": "acme.toml", "dry_run": false });
        let (status, body) = self.admin("POST", "/companies/apply", Some(request)).await;
        assert_eq!(status, 200, "{body}");
    }

    pub(crate) async fn metrics(&self) -> String {
        let url = format!("http://{}/metrics", self.private());
        self.client.get(url).send().await.unwrap().text().await.unwrap()
    }

    /// A counter's value, by its whole name with labels; 0 where it is not there.
    pub(crate) async fn counter(&self, name: &str) -> u64 {
        let metrics = self.metrics().await;
        let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.map_or(0, |value| value.parse().unwrap())
    }

    /// Company `acme`, with users 201, 202 ... of these aliases.
    pub(crate) fn company(&self, users: &[&str], more: &str) -> String {
        let mut file = format!(
            r#"
            id = "acme"
            name = "Acme AB"
            {more}
            [integration]
            kind = "microsoft365"
            tenant = "{}"
            [pbx]
            kind = "http"
            [pbx.http]
            base_url = "{}"
            allow_plain_http = true
            [pbx.http.set]
            method = "PUT"
            path = "/extensions/{{extension}}/presence"
            json = {{ profile = "{{profile.id}}", text = "{{text}}", until = "{{until|json}}" }}
            "#,
            self.tenant,
            self.sim.pbx_url("acme")
        );
        for (n, alias) in users.iter().enumerate() {
            file += &format!("[[users]]\nextension = \"{}\"\nalias = \"{alias}\"\n", 201 + n);
        }
        file
    }

    /// Waits until something holds that nothing announces.
    pub(crate) async fn until<F: AsyncFn() -> bool>(&self, what: &str, holds: F) {
        let end = Instant::now() + LIMIT;
        while !holds().await {
            assert!(Instant::now() < end, "not within {LIMIT:?}: {what}\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits until so many mailboxes have been read and are watched.
    pub(crate) async fn until_read(&self, mailboxes: usize) {
        self.until("every mailbox is read", async || {
            let status = self.get("/status").await;
            status.matches("\"proven_until\":\"").count() == mailboxes
                && self.sim.subscriptions().len() == mailboxes
        })
        .await;
    }

    /// Bytes of every file beside the store, by name.
    pub(crate) fn files(&self) -> Vec<(String, Vec<u8>)> {
        let read = |path: &Path| std::fs::read(path).unwrap_or_default();
        let entries = std::fs::read_dir(self.folder.path()).unwrap();
        entries
            .map(|entry| entry.unwrap().path())
            .map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), read(&path)))
            .collect()
    }
}

/// The two addresses of a line that says `Ready`, in either form of log line.
fn addresses(line: &str) -> Option<(SocketAddr, SocketAddr)> {
    let plain = strip_colours(line);
    if !plain.contains("Ready") {
        return None;
    }
    let after = |name: &str| {
        let rest = &plain[plain.find(name)? + name.len()..];
        let text = rest.trim_start_matches(['"', '=', ':']);
        let end = text.find(|c: char| !(c.is_ascii_digit() || c == '.' || c == ':')).unwrap_or(text.len());
        text[..end].parse().ok()
    };
    Some((after("public")?, after("private")?))
}

fn strip_colours(line: &str) -> String {
    let mut plain = String::with_capacity(line.len());
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        if c == '\u{1b}' {
            // Up to the letter that ends the sequence.
            chars.by_ref().find(char::is_ascii_alphabetic);
        } else {
            plain.push(c);
        }
    }
    plain
}
