//! The whole service against the simulators, by HTTP and wire, with a clock that the test moves.

use std::{
    net::TcpListener,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::support::redis::{PLAIN, RedisServer};
use jiff::{SignedDuration, Timestamp, civil::DateTime, tz::TimeZone};
use narvaro::{
    admin::{
        ApplyReport, ApplyRequest, ExplainRequest, Explained, MailboxStatus, OperationError, Operations,
        Scope,
    },
    app::{App, Sockets},
    clock::{Clock, ManualClock, SharedClock},
    config::{Config, Environment},
    queue::Shares,
    store::{Store, embedded::EmbeddedSettings},
};
use narvaro_sim::{AppSpec, EventSpec, PbxPresence, Sim, SimOptions, TenantSpec, UserSpec};

use crate::support::shared::{Handle, Shared};

/// How long a state may take to come about, in real time; far more than it ever needs.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

pub(crate) const ANNA: &str = "anna@acme.example";
pub(crate) const CLIENT_ID: &str = "6d2f4b8e-91c7-4a3d-b0e5-5f7c8a1e2d34";
pub(crate) const SECRET: &str = "a-client-secret-of-the-simulator";

/// The service, its surroundings and its time.
pub(crate) struct World {
    pub(crate) sim: Sim,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) tenant: String,
    pub(crate) folder: tempfile::TempDir,
    pub(crate) client: reqwest::Client,
    /// The keys of `clientState` in the environment: the present one and the one before; empty: not set.
    pub(crate) state_keys: [String; 2],
    /// More lines of the configuration: keys of `[graph]`, then other tables. They count from the next start.
    pub(crate) more_config: String,
    /// Where the public listener is seen from outside, where that is not where it is.
    pub(crate) outside: Option<String>,
    public: TcpListener,
    private: TcpListener,
    app: Option<App>,
    /// Where the store is, if the whole run is to be on Redis.
    redis: Option<RedisServer>,
    /// The store, where other processes may share it, and what the service has of it.
    shared: Option<(Arc<Shared>, Arc<Handle>)>,
}

/// With this set to `1` every [`World`] keeps its store in a Redis of its own: the same tests on the other form.
const ON_REDIS: &str = "NARVARO_TEST_ON_REDIS";

fn redis() -> Option<RedisServer> {
    match std::env::var(ON_REDIS).as_deref() {
        Ok("1") => Some(RedisServer::start(PLAIN)),
        Ok(other) => panic!("{ON_REDIS} is `{other}`: set it to `1`, or not at all"),
        Err(_) => None,
    }
}

/// One more process on the store.
pub(crate) struct Beside {
    pub(crate) app: App,
    pub(crate) handle: Arc<Handle>,
}

/// Which PBX the company has.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pbx {
    Http,
    /// The simulator's stand-in.
    Asterisk,
    /// A real one, with the account of `infra/asterisk`; the port of its manager interface on this machine.
    RealAsterisk(u16),
}

/// An instant by Stockholm's clocks, as `2026-11-23 10:00`.
pub(crate) fn at(local: &str) -> Timestamp {
    let local: DateTime = local.replace(' ', "T").parse().unwrap();
    local.to_zoned(TimeZone::get("Europe/Stockholm").unwrap()).unwrap().timestamp()
}

/// One company, told in English.
pub(crate) fn scope(company: &str) -> Scope {
    Scope { company: Some(company.parse().unwrap()), language: None }
}

/// The company file's part about an Asterisk on this machine, lamps included.
pub(crate) fn asterisk_pbx(port: u16, secret: &str) -> String {
    format!(
        r#"
        [pbx]
        kind = "asterisk"
        [pbx.asterisk]
        host = "127.0.0.1"
        port = {port}
        username = "narvaro"
        secret = {{ env = "{secret}" }}
        device_state = "Custom:DND{{ext}}"
        "#
    )
}

impl World {
    /// A service without companies, at 08:00 on a Monday.
    pub(crate) async fn bare() -> Self {
        Self::bare_at(at("2026-11-23 08:00"), SimOptions::default(), tempfile::tempdir().unwrap()).await
    }

    /// A service without companies, at some other time, with its store in `folder`.
    pub(crate) async fn bare_at(now: Timestamp, options: SimOptions, folder: tempfile::TempDir) -> Self {
        let mut world = Self::unstarted(now, options, folder).await;
        world.start().await;
        world
    }

    /// A service with company `acme` as [`new`](Self::new) has it, on a store that others may share.
    pub(crate) async fn shared() -> Self {
        Self::shared_with(Pbx::Http).await
    }

    pub(crate) async fn shared_with(pbx: Pbx) -> Self {
        let (now, folder) = (at("2026-11-23 08:00"), tempfile::tempdir().unwrap());
        let mut world = Self::unstarted(now, SimOptions::default(), folder).await;
        let path = world.folder.path().join("narvaro.db");
        let settings = EmbeddedSettings { path, shares: Shares::of(8), trail_entries: 1_000 };
        let shared = Shared::open(&settings, &world.clock);
        let handle = shared.handle();
        world.shared = Some((shared, handle));
        world.start().await;
        world.with_acme(pbx).await;
        world
    }

    /// A service with company `acme` as [`new`](Self::new) has it, its store in a Redis of its own.
    pub(crate) async fn on_redis() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut world = Self::unstarted(at("2026-11-23 08:00"), SimOptions::default(), folder).await;
        world.redis.get_or_insert_with(|| RedisServer::start(PLAIN));
        world.start().await;
        world.with_acme(Pbx::Http).await;
        world
    }

    async fn unstarted(now: Timestamp, options: SimOptions, folder: tempfile::TempDir) -> Self {
        // Another test may have done it already.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let clock = ManualClock::at(now);
        let sim = Sim::start(options).await.unwrap();
        sim.set_time(clock.now());
        let socket = || {
            let socket = TcpListener::bind("127.0.0.1:0").unwrap();
            socket.set_nonblocking(true).unwrap();
            socket
        };
        let (public, private) = (socket(), socket());
        let tenant = sim.add_tenant(TenantSpec::new("acme.example")).unwrap();
        let mut app = AppSpec::new(CLIENT_ID, SECRET);
        app.redirect_uris = vec![format!("http://{}/consent/callback", public.local_addr().unwrap())];
        sim.add_app(app).unwrap();
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let (state_keys, more_config, outside) = Default::default();
        Self {
            sim,
            clock,
            tenant,
            folder,
            client,
            state_keys,
            more_config,
            outside,
            public,
            private,
            app: None,
            shared: None,
            redis: redis(),
        }
    }

    /// A service with company `acme`, consented, and its users 201 (anna) and 202 (bo) read.
    pub(crate) async fn new() -> Self {
        Self::with(Pbx::Http).await
    }

    pub(crate) async fn with(pbx: Pbx) -> Self {
        let world = Self::bare().await;
        world.with_acme(pbx).await;
        world
    }

    async fn with_acme(&self, pbx: Pbx) {
        for alias in ["anna@acme.example", "bo@acme.example"] {
            self.sim.add_user(&self.tenant, UserSpec::new(alias)).unwrap();
        }
        self.apply(&self.company(pbx, "")).await;
        self.consent("acme").await;
        self.until_fine("acme").await;
    }

    pub(crate) fn config(&self) -> Config {
        let (public, private) = (self.public.local_addr().unwrap(), self.private.local_addr().unwrap());
        let folder = self.folder.path().display();
        let store = match &self.redis {
            None => format!("url = \"embedded:{folder}/narvaro.db\""),
            Some(redis) => format!("url = \"{}\"\ndata_dir = \"{folder}\"", redis.url()),
        };
        let base = self.sim.base_url();
        let outside = self.outside.clone().unwrap_or_else(|| self.public_url());
        let text = format!(
            r#"
            [listen]
            public = "{public}"
            private = "{private}"
            [webhook]
            public_url = "{outside}"
            [store]
            {store}
            [graph]
            client_id = "{CLIENT_ID}"
            cloud = "custom"
            graph_base = "{base}"
            login_authority = "{base}"
            allow_plain_http_loopback = true
            {}
            "#,
            self.more_config
        );
        Config::parse("world.toml", &text, &self.environment()).unwrap()
    }

    pub(crate) fn environment(&self) -> Environment {
        let [current, previous] = &self.state_keys;
        // A store that may be shared wants a key that is.
        let shared = if self.redis.is_some() { "a-key-that-all-replicas-of-this-world-know" } else { "" };
        let current = if current.is_empty() { shared } else { current };
        Environment::of([
            ("NARVARO__GRAPH__CLIENT_SECRET", SECRET),
            ("PBX_SECRET", "secret"),
            ("ASTERISK_SECRET", "narvaro-test"),
            ("NARVARO__KEYS__CLIENT_STATE", current),
            ("NARVARO__KEYS__CLIENT_STATE_PREVIOUS", previous),
        ])
    }

    pub(crate) async fn start(&mut self) {
        let socket =
            |socket: &TcpListener| tokio::net::TcpListener::from_std(socket.try_clone().unwrap()).unwrap();
        let sockets = Sockets { public: socket(&self.public), private: socket(&self.private) };
        let clock: SharedClock = Arc::clone(&self.clock) as SharedClock;
        let (config, environment) = (self.config(), self.environment());
        let app = match &self.shared {
            Some((_, handle)) => {
                let store = Arc::clone(handle) as Arc<dyn Store>;
                App::start_on(store, config, environment, clock, None, sockets).await
            }
            None => App::start(config, environment, clock, None, sockets).await,
        };
        self.app = Some(app.unwrap());
    }

    /// Starts one more process on the store, at the same public address.
    pub(crate) async fn beside(&self) -> Beside {
        let public = tokio::net::TcpListener::from_std(self.public.try_clone().unwrap()).unwrap();
        let private = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (sockets, handle) = (Sockets { public, private }, self.shared.as_ref().unwrap().0.handle());
        let clock: SharedClock = Arc::clone(&self.clock) as SharedClock;
        let store = Arc::clone(&handle) as Arc<dyn Store>;
        let app = App::start_on(store, self.config(), self.environment(), clock, None, sockets).await;
        Beside { app: app.unwrap(), handle }
    }

    /// Starts one more process on the same Redis, with a clock of its own.
    pub(crate) async fn beside_on_redis(&self, clock: &Arc<ManualClock>) -> App {
        let socket = async || tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let sockets = Sockets { public: socket().await, private: socket().await };
        let clock: SharedClock = Arc::clone(clock) as SharedClock;
        App::start(self.config(), self.environment(), clock, None, sockets).await.unwrap()
    }

    /// How many edges are held ahead on Redis, by whomever, and for how many mailboxes a write is announced.
    pub(crate) fn held_ahead(&self) -> (usize, usize) {
        let redis = self.redis.as_ref().unwrap();
        let held = redis.cli(&["ZCARD", "{narvaro}:ahead"]).trim().parse().unwrap();
        let announced = redis.cli(&["KEYS", "{narvaro}:intent:*"]);
        (held, announced.lines().filter(|line| !line.trim().is_empty()).count())
    }

    /// What the service has of the shared store.
    pub(crate) fn handle(&self) -> &Handle {
        &self.shared.as_ref().unwrap().1
    }

    /// From now on the other process is asked; the one that was asked so far is returned.
    pub(crate) fn ask(&mut self, other: Beside) -> Beside {
        let app = self.app.replace(other.app).unwrap();
        let handle = std::mem::replace(&mut self.shared.as_mut().unwrap().1, other.handle);
        Beside { app, handle }
    }

    /// From the next start on the store is in a Redis of its own, which is returned by its address; empty, unless somebody
    /// copies into it. The key of the subscriptions goes along.
    pub(crate) fn move_to_redis(&mut self) -> String {
        if let Ok(key) = std::fs::read_to_string(self.folder.path().join("client-state.key")) {
            self.state_keys[0] = key.trim().to_owned();
        }
        self.redis.insert(RedisServer::start(PLAIN)).url()
    }

    pub(crate) async fn stop(&mut self) {
        self.app.take().unwrap().stop().await;
    }

    pub(crate) fn is_on_redis(&self) -> bool {
        self.redis.is_some()
    }

    /// Makes the store's Redis one that has no room for anything more, or some again.
    pub(crate) fn fill_redis(&self, full: bool) {
        if let Some(redis) = &self.redis {
            redis.cli(&["CONFIG", "SET", "maxmemory", if full { "1" } else { "0" }]);
        }
    }

    /// Takes everything out of the store's Redis, if that is where it is.
    pub(crate) fn empty_redis(&self) {
        if let Some(redis) = &self.redis {
            redis.cli(&["FLUSHALL"]);
        }
    }

    /// Has the store's Redis keep what it knows now: after the next crash it knows this and no more.
    pub(crate) fn save_redis(&self) {
        assert_eq!(self.redis.as_ref().unwrap().cli(&["SAVE"]).trim(), "OK");
    }

    /// Lets the store's Redis crash, time pass up to `until`, and starts it again.
    pub(crate) fn crash_redis(&self, until: &str) {
        let redis = self.redis.as_ref().unwrap();
        redis.kill();
        self.move_to(at(until));
        redis.launch();
    }

    /// Makes the store one that cannot be read, or one that can be again.
    pub(crate) fn spoil_store(&self, spoiled: bool) {
        if let Some(redis) = &self.redis {
            return if spoiled { redis.stop() } else { redis.go_on() };
        }
        let file = rusqlite::Connection::open(self.folder.path().join("narvaro.db")).unwrap();
        let (from, to) = if spoiled { ("company", "elsewhere") } else { ("elsewhere", "company") };
        file.execute(&format!("ALTER TABLE {from} RENAME TO {to}"), []).unwrap();
    }

    /// Stops in order and starts again on the same store and addresses.
    pub(crate) async fn restart(&mut self) {
        self.stop().await;
        self.start().await;
    }

    /// Whether the service runs.
    pub(crate) fn is_up(&self) -> bool {
        self.app.is_some()
    }

    pub(crate) fn app(&self) -> &App {
        self.app.as_ref().unwrap()
    }

    pub(crate) fn operations(&self) -> Arc<dyn Operations> {
        self.app().operations()
    }

    /// The company file of `acme`, with more lines before its users.
    pub(crate) fn company(&self, pbx: Pbx, more: &str) -> String {
        let pbx = match pbx {
            Pbx::Http => self.http_pbx("acme"),
            Pbx::Asterisk => asterisk_pbx(self.sim.ami_addr().port(), "PBX_SECRET"),
            Pbx::RealAsterisk(port) => asterisk_pbx(port, "ASTERISK_SECRET"),
        };
        self.file("acme", more, "", &pbx, &[("201", "anna@acme.example", ""), ("202", "bo@acme.example", "")])
    }

    /// A company file; `more` stands before the first table, `integration` in its own, and each user has an
    /// extension, an alias and more lines.
    pub(crate) fn file(
        &self,
        company: &str,
        more: &str,
        integration: &str,
        pbx: &str,
        users: &[(&str, &str, &str)],
    ) -> String {
        let mut file = format!(
            r#"
            id = "{company}"
            name = "{company} AB"
            language = "sv"
            {more}
            [integration]
            kind = "microsoft365"
            {integration}
            {pbx}
            "#
        );
        for (extension, alias, lines) in users {
            file += &format!("[[users]]\nextension = \"{extension}\"\nalias = \"{alias}\"\n{lines}\n");
        }
        file
    }

    pub(crate) fn http_pbx(&self, company: &str) -> String {
        format!(
            r#"
            [pbx]
            kind = "http"
            [pbx.http]
            base_url = "{}"
            allow_plain_http = true
            [pbx.http.set]
            method = "PUT"
            path = "/extensions/{{extension}}/presence"
            json = {{ profile = "{{profile.id}}", text = "{{text}}", until = "{{until|json}}" }}
            [pbx.http.restore]
            method = "PUT"
            path = "/extensions/{{extension}}/presence"
            json = {{ profile = "{{shown.profile}}", text = "{{shown.text}}" }}
            [pbx.http.read]
            default = {{ profile = "" }}
            [pbx.http.read.request]
            method = "GET"
            path = "/extensions/{{extension}}/presence"
            [pbx.http.read.fields.profile]
            pointer = "/profile"
            shows = "{{profile.id}}"
            [pbx.http.read.fields.text]
            pointer = "/text"
            shows = "{{text}}"
            [pbx.http.read.profile]
            field = "profile"
            "#,
            self.sim.pbx_url(company)
        )
    }

    pub(crate) async fn apply(&self, file: &str) {
        let report = self.try_apply(file, false).await.unwrap();
        assert!(report.applied);
    }

    pub(crate) async fn try_apply(&self, file: &str, dry_run: bool) -> Result<ApplyReport, OperationError> {
        let request = ApplyRequest { text: file.to_owned(), file: "company.toml".to_owned(), dry_run };
        self.operations().apply(request).await
    }

    /// Opens the consent address as the company's administrator would and accepts.
    pub(crate) async fn consent(&self, company: &str) {
        let (status, page) = self.consent_as(company, &self.tenant).await;
        assert_eq!(status, 200, "{page}");
    }

    /// An address at which an administrator of the company consents.
    pub(crate) async fn consent_url(&self, company: &str) -> String {
        self.operations().consent_url(company.parse().unwrap()).await.unwrap().url
    }

    /// Opens the consent address as somebody of `tenant` would; status and page of our own answer.
    pub(crate) async fn consent_as(&self, company: &str, tenant: &str) -> (u16, String) {
        let url = self.consent_url(company).await;
        self.open_consent(&url, tenant).await
    }

    pub(crate) async fn open_consent(&self, url: &str, tenant: &str) -> (u16, String) {
        self.sim.login(|knobs| knobs.signing_in_tenant = Some(tenant.to_owned()));
        let page = self.client.get(url).send().await.unwrap();
        assert!(page.url().path().ends_with("/consent/callback"), "{}", page.url());
        (page.status().as_u16(), page.text().await.unwrap())
    }

    /// Where the public listener is.
    pub(crate) fn public_url(&self) -> String {
        format!("http://{}", self.public.local_addr().unwrap())
    }

    /// Waits until something holds. `what` is evaluated again and again, as nothing tells when it changes.
    pub(crate) async fn until<F: AsyncFn() -> bool>(&self, what: &str, holds: F) {
        let end = Instant::now() + LIMIT;
        while !holds().await {
            assert!(Instant::now() < end, "not within {LIMIT:?}: {what}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub(crate) async fn mailbox(&self, company: &str, extension: &str) -> MailboxStatus {
        let status = self.operations().status(scope(company)).await.unwrap();
        let mut mailboxes = status.companies.into_iter().flat_map(|company| company.mailboxes);
        mailboxes.find(|mailbox| mailbox.extension.as_str() == extension).unwrap()
    }

    pub(crate) async fn until_fine(&self, company: &str) {
        self.until("every mailbox is read", async || {
            let status = self.operations().status(scope(company)).await.unwrap();
            let mut mailboxes = status.companies.iter().flat_map(|company| &company.mailboxes);
            mailboxes.all(|mailbox| mailbox.proven_until.is_some() && mailbox.subscription_expires.is_some())
        })
        .await;
        self.settle().await;
    }

    /// Waits until nothing is due and nothing is under way.
    pub(crate) async fn settle(&self) {
        let end = Instant::now() + LIMIT;
        loop {
            // In this order: a notification counts as outstanding until its mark can be seen in the queue.
            let outstanding = self.sim.outstanding();
            let depth = self.app().depth().await.unwrap();
            if outstanding == 0 && depth.due == 0 && depth.leased == 0 {
                return;
            }
            assert!(
                Instant::now() < end,
                "at {} not settled: {outstanding} to deliver, {depth:?}",
                self.now()
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Moves the time of everything to `to`, by Stockholm's clocks, and waits until all that was due is done.
    pub(crate) async fn advance_to(&self, local: &str) {
        self.advance_to_instant(at(local)).await;
    }

    pub(crate) async fn advance_to_instant(&self, to: Timestamp) {
        self.move_to(to);
        self.settle().await;
    }

    /// Moves the time of everything and waits for nothing.
    pub(crate) fn move_to(&self, to: Timestamp) {
        self.sim.set_time(to);
        self.clock.advance_to(to);
    }

    /// Lets so many seconds go by one by one, for what waits within a turn, and waits until all is done.
    pub(crate) async fn pass(&self, secs: i64) {
        self.elapse(secs).await;
        self.settle().await;
    }

    /// The same, whether or not all is done.
    pub(crate) async fn elapse(&self, secs: i64) {
        for _ in 0..secs {
            let to = self.now() + SignedDuration::from_secs(1);
            self.sim.set_time(to);
            self.clock.advance_to(to);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub(crate) async fn advance(&self, by: SignedDuration) {
        self.advance_to_instant(self.now() + by).await;
    }

    /// Moves the time of everything, a quarter of a second a step, until something holds; gives how long that was.
    pub(crate) async fn advance_until<F: AsyncFn() -> bool>(&self, what: &str, holds: F) -> SignedDuration {
        let (start, end) = (self.clock.now(), Instant::now() + LIMIT);
        while !holds().await {
            assert!(Instant::now() < end, "not within {LIMIT:?}: {what}");
            let to = self.clock.now() + SignedDuration::from_millis(250);
            self.sim.set_time(to);
            self.clock.advance_to(to);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.settle().await;
        self.clock.now().duration_since(start)
    }

    /// What the HTTP PBX shows for an extension of `acme`.
    pub(crate) fn shows(&self, extension: &str) -> PbxPresence {
        self.sim.pbx().presence("acme", extension)
    }

    /// Waits until the HTTP PBX shows a profile for an extension of `acme`.
    pub(crate) async fn until_shows(&self, extension: &str, profile: &str) {
        let shown = self.sim.pbx().until("acme", extension, LIMIT, |shown| shown.profile == profile).await;
        assert!(shown, "extension {extension} shows {:?}, not `{profile}`", self.shows(extension));
        self.settle().await;
    }

    /// An event in Anna's calendar; returns its id.
    pub(crate) fn event(&self, subject: &str, start: &str, end: &str) -> String {
        self.add(EventSpec::new(subject).at(at(start), at(end)))
    }

    /// An event in Anna's calendar; returns its id.
    pub(crate) fn add(&self, spec: EventSpec) -> String {
        self.sim.add_event(ANNA, spec).unwrap().id
    }

    /// Changes an event in Anna's calendar and waits until all that follows is done.
    pub(crate) async fn patch(&self, id: &str, spec: EventSpec) {
        self.sim.patch_event(ANNA, id, spec).unwrap();
        self.settle().await;
    }

    /// What the HTTP PBX shows for Anna, as `meeting: Möte till 11:00`.
    pub(crate) fn anna(&self) -> String {
        let shown = self.shows("201");
        format!("{}: {}", shown.profile, shown.text.unwrap_or_default())
    }

    pub(crate) async fn explained(&self, extension: &str) -> Explained {
        let request = ExplainRequest {
            company: Some("acme".parse().unwrap()),
            user: extension.to_owned(),
            at: None,
            language: None,
        };
        self.operations().explain(request).await.unwrap()
    }

    /// How `acme` as a whole stands, by name.
    pub(crate) async fn company_health(&self) -> String {
        let status = self.operations().status(scope("acme")).await.unwrap();
        status.companies[0].health.health.name()
    }

    /// How Anna's mailbox stands, by name.
    pub(crate) async fn health(&self) -> String {
        self.mailbox("acme", "201").await.health.health.name()
    }

    /// Asserts that Anna's mailbox stands so, and that cause and cure are told.
    pub(crate) async fn expect_trouble(&self, name: &str) {
        let health = self.mailbox("acme", "201").await.health;
        assert_eq!(health.health.name(), name, "{health:?}");
        assert!(!health.cause.is_empty() && !health.cure.is_empty(), "{health:?}");
    }

    /// Live subscriptions at the simulator on a user's mailbox.
    pub(crate) fn subscriptions(&self, alias: &str) -> Vec<narvaro_sim::SubscriptionInfo> {
        let user = self.sim.user_id(alias).unwrap();
        self.sim.subscriptions().into_iter().filter(|one| one.user == user).collect()
    }

    /// The end of every test: nothing left to do, and the simulator has nothing to complain about.
    pub(crate) async fn end(mut self) {
        self.settle().await;
        let violations = self.sim.violations();
        assert!(violations.is_empty(), "{violations:#?}");
        self.stop().await;
    }
}
