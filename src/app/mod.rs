//! Wiring: configuration to adapters to the running service. The only place that names both a port and who
//! implements it.
//!
//! Starting: the store is opened, companies are seated from what was applied, PBX links and the two listeners
//! come up, turns begin. Stopping: listeners close first, so that no new work is promised; turns under way show what they
//! are about to show and read no further; then PBX links; the store last, to which leases and duties are handed back.
//! What does not end in time is cut off and repeated by whoever gets it next, as after a crash: an orderly stop is over
//! within 30 s.
//!
//! Several processes may share a store. Each takes turns, answers notifications and operators, and seats what any of
//! them applied ([`offices`]); what is done once for all, one of them does ([`membership`]).

mod at_rest;
mod backup;
mod consent;
mod credential;
mod deeds;
mod feeder;
mod leaving;
pub mod listener;
mod lists;
mod membership;
mod offices;
mod operations;
mod renewal;
mod self_test;
mod signals;
mod standing;
mod tasks;
mod tell;
mod upkeep;
mod views;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::Router;
use jiff::SignedDuration;
use metrics_exporter_prometheus::PrometheusHandle;
use secrecy::{ExposeSecret, SecretSlice, SecretString};
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;
use tracing::{info, warn};

pub use at_rest::{
    AtRestError, Checked, Place, check_at_rest, copy_at_rest, create_at_rest, open_at_rest, survey_at_rest,
};
pub use tasks::Tasks;

use self::{
    consent::ConsentDesk, credential::CredentialEnd, membership::Membership, offices::Offices,
    operations::Service, self_test::SelfTest, upkeep::Upkeep,
};
use crate::{
    admin::{self, Caller, Operations, Surface},
    calendar::SweepPlan,
    chain::Chain,
    clock::{SharedClock, SystemClock},
    config::{self, Config, Environment},
    graph::{
        AppCredential, Cloud, Graph, GraphConfig, GraphConfigError, KeyError as EncryptionKeyError, Rich,
        StateKey as ConsentKey,
    },
    queue::{AHEAD_HOLD, Ahead, AheadSettings, Dispatcher, DispatcherSettings, DueStore, Shares, TakesTurns},
    store::{
        Store,
        embedded::{Embedded, EmbeddedSettings, OpenError},
        redis::{Redis, RedisSettings},
    },
    subscription::{LONGEST_LIFE, WatchPlan},
    telemetry,
    turn::{
        RetryPlan, TurnSettings, Turns,
        roster::{Roster, SeatsCompanies},
    },
    webhook::{
        Receiver, ReceiverLimits,
        client_state::{KeyError, StateKey, StateKeys},
        sealed::{BoxLimits, SealedBox},
    },
};

/// Connections at a time on the public listener; Graph uses some tens.
const PUBLIC_CONNECTIONS: usize = 4_096;

/// Connections at a time on the private listener.
const PRIVATE_CONNECTIONS: usize = 256;

/// How long what is under way may take once the service stops: a write to a PBX, answers of the listeners. Supervisors
/// that are not told otherwise kill after 30 s (Kubernetes) or later.
const STOP_WITHIN: Duration = Duration::from_secs(20);

/// How late a write to a PBX may begin under the hold of an edge that was leased ahead, before that is extended: when
/// very many are due at one instant they wait for their PBXs, and for Redis to extend them.
const BEGINS_LATE: Duration = Duration::from_secs(20);

/// How long PBX links may take to say goodbye.
const UNLINK_WITHIN: Duration = Duration::from_secs(5);

/// How long the store may take to hear that this process is gone; what it does not hear it finds out by time.
const LEAVE_WITHIN: Duration = Duration::from_secs(3);

/// Why the service did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration lacks something.
    #[error("the configuration is not complete")]
    Incomplete(#[source] config::Findings),
    /// A secret is not to be had.
    #[error("a secret of the configuration cannot be had")]
    Secret(#[source] config::SecretError),
    /// Two names for one token: the audit trail could not tell them apart.
    #[error("the tokens `{0}` and `{1}` of the admin API are the same: give each its own")]
    SameToken(String, String),
    /// The key of `clientState` cannot be used.
    #[error("the key of `clientState` cannot be used")]
    Key(#[source] KeyError),
    /// Graph's addresses cannot be used.
    #[error("the addresses of Microsoft Graph cannot be used")]
    Cloud(#[source] crate::graph::CloudError),
    /// The application's credential cannot be used.
    #[error("the application for Microsoft Graph cannot be set up")]
    Graph(#[source] GraphConfigError),
    /// The keys for events that are sent along cannot be read.
    #[error("the keys for events that are sent along cannot be used")]
    Encryption(#[source] EncryptionKeyError),
    /// The store cannot be opened.
    #[error("the store cannot be opened")]
    Store(#[source] OpenError),
    /// The store in Redis cannot be used.
    #[error("the store in Redis cannot be used")]
    Redis(#[source] crate::store::redis::OpenError),
    /// What is stored cannot be loaded.
    #[error("the stored companies cannot be loaded")]
    Load(#[source] crate::queue::StoreError),
    /// An address cannot be listened at.
    #[error("`{key} = {address}` cannot be listened at")]
    Listen {
        /// Its key in the configuration.
        key: &'static str,
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Logs or metrics.
    #[error("logs and metrics cannot be set up")]
    Telemetry(#[source] telemetry::TelemetryError),
}

/// The running service.
pub struct App {
    tasks: Tasks,
    links: Tasks,
    public: SocketAddr,
    private: SocketAddr,
    operations: Arc<Service>,
    store: Arc<dyn Store>,
}

/// Starts the service and runs it until it is told to stop (SIGTERM, SIGINT).
///
/// # Errors
/// [`StartError`] names what stands in the way of starting.
pub async fn serve(config: Config, environment: Environment) -> Result<(), StartError> {
    let format = match config.log.format {
        config::LogFormat::Text => telemetry::LogFormat::Text,
        config::LogFormat::Json => telemetry::LogFormat::Json,
    };
    telemetry::log(format, &config.log.level).map_err(StartError::Telemetry)?;
    let metrics = telemetry::metrics().map_err(StartError::Telemetry)?;
    let sockets = Sockets::bind(&config).await?;
    let app = App::start(config, environment, Arc::new(SystemClock), Some(metrics), sockets).await?;
    info!(public = %app.public, private = %app.private, "Ready");
    told_to_stop().await;
    info!("Stopping");
    app.stop().await;
    info!("Stopped");
    Ok(())
}

async fn told_to_stop() {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut terminate) = signal(SignalKind::terminate()) else {
        // Without the handler the system's default ends the process: nothing is left to be waited for.
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}

/// The two sockets, listening.
pub struct Sockets {
    /// For the internet, behind a proxy.
    pub public: TcpListener,
    /// For the operator.
    pub private: TcpListener,
}

impl Sockets {
    /// Listens where the configuration says.
    ///
    /// # Errors
    /// [`StartError::Listen`] names the key and the address.
    pub async fn bind(config: &Config) -> Result<Self, StartError> {
        Ok(Self {
            public: bind("listen.public", config.listen.public).await?,
            private: bind("listen.private", config.listen.private).await?,
        })
    }
}

impl App {
    /// Starts everything; returns once both listeners accept.
    ///
    /// # Errors
    /// [`StartError`] names what stands in the way.
    pub async fn start(
        config: Config,
        environment: Environment,
        clock: SharedClock,
        metrics: Option<PrometheusHandle>,
        sockets: Sockets,
    ) -> Result<Self, StartError> {
        config.complete().map_err(StartError::Incomplete)?;
        let store = open(&config, Arc::clone(&clock)).await?;
        Self::start_on(store, config, environment, clock, metrics, sockets).await
    }

    /// The same on a store that is open: whatever shares it with other processes has to know this one from them.
    ///
    /// # Errors
    /// [`StartError`] names what stands in the way.
    pub async fn start_on(
        store: Arc<dyn Store>,
        config: Config,
        environment: Environment,
        clock: SharedClock,
        metrics: Option<PrometheusHandle>,
        sockets: Sockets,
    ) -> Result<Self, StartError> {
        config.complete().map_err(StartError::Incomplete)?;
        let Sockets { public, private } = sockets;
        let secret = client_state_secret(&config)?;
        let keys = state_keys(&config, &secret)?;
        let tokens = admin_tokens(&config, &environment)?;
        let credential = app_credential(&config)?;
        let credential_end = CredentialEnd::of(&config, &credential);
        credential_end.announce();
        let graph = graph(&config, credential, Arc::clone(&clock))?;

        let brought = SealedBox::new(BoxLimits::default(), Arc::clone(&clock));
        let rich = Rich::new(Arc::clone(&graph), Arc::clone(&brought), config.encryption_keys_file())
            .map_err(StartError::Encryption)?;

        let tasks = Tasks::default();
        let links = Tasks::default();
        let roster = Arc::new(Roster::default());
        let queue: Arc<dyn DueStore> = Arc::clone(&store) as _;
        let membership =
            Membership::new(Arc::clone(&store), Arc::clone(&clock), keys.current_name(), graph.processes());
        membership.show_up().await;
        let offices = Offices::new(
            Arc::clone(&store),
            Arc::clone(&roster),
            rich,
            environment,
            config.pbx.clone(),
            Arc::clone(&clock),
            links.clone(),
        );
        offices.load().await.map_err(StartError::Load)?;

        let public_url = public_url(&config);
        let settings = turn_settings(&config, &public_url, &keys);
        let upkeep = Upkeep::new(
            Arc::clone(&store),
            Arc::clone(&offices),
            Arc::clone(&membership),
            settings.watches.notification_url.clone(),
        );
        let self_test = SelfTest::new(public_url.clone(), Arc::clone(&clock));
        let turns = Turns::new(
            Arc::clone(&queue),
            Arc::clone(&roster),
            Arc::clone(&offices) as Arc<dyn SeatsCompanies>,
            Arc::clone(&clock),
            settings,
            tasks.shutdown(),
        );
        let hold = config.queue.lease();
        let dispatcher = Dispatcher::new(
            Arc::clone(&queue),
            Arc::clone(&turns) as Arc<dyn TakesTurns>,
            Arc::clone(&clock),
            DispatcherSettings { workers: config.queue.workers, hold },
        );
        let ahead = Ahead::new(
            Arc::clone(&queue),
            Arc::clone(&turns) as Arc<dyn TakesTurns>,
            Arc::clone(&clock),
            AheadSettings {
                ahead: config.queue.ahead(),
                hold: hold_ahead(&config),
                most: config.queue.ahead_most,
            },
        );
        let limits =
            ReceiverLimits { body_bytes: config.webhook.max_body_bytes, ..ReceiverLimits::default() };
        let receiver = Receiver::new(keys, Arc::clone(&queue), brought, Arc::clone(&clock), limits);
        let consent = ConsentDesk::new(
            consent_key(&secret),
            Arc::clone(&graph),
            Arc::clone(&offices),
            Arc::clone(&clock),
            tasks.clone(),
            &public_url,
        );
        let operations = Service::new(
            Arc::clone(&store),
            Arc::clone(&offices),
            Arc::clone(&consent),
            Arc::clone(&turns),
            Arc::clone(&membership),
            tasks.clone(),
            Arc::clone(&self_test),
        );
        let operations = Arc::new(operations.with_credential_end(credential_end));
        operations.tend_jobs().await.map_err(StartError::Load)?;

        let (public_address, private_address) = (address_of(&public), address_of(&private));
        let routes = public_routes(&receiver, &consent);
        tasks.spawn("public listener", listener::serve(public, routes, PUBLIC_CONNECTIONS, tasks.shutdown()));
        let surface = Surface {
            operations: Arc::clone(&operations) as Arc<dyn Operations>,
            tokens,
            metrics: metrics.clone(),
            max_body_bytes: config.admin.max_body_bytes,
        };
        let routes = admin::router(surface);
        tasks.spawn(
            "private listener",
            listener::serve(private, routes, PRIVATE_CONNECTIONS, tasks.shutdown()),
        );
        tasks.spawn("turns", dispatcher.run(tasks.shutdown()));
        tasks.spawn("edges", ahead.run(tasks.shutdown()));
        tasks.spawn("companies", Arc::clone(&offices).follow(tasks.shutdown()));
        tasks.spawn("jobs", Arc::clone(&operations).keep_jobs(tasks.shutdown()));
        let gone = leaving::see_off(offices, Arc::clone(&membership), Arc::clone(&clock), tasks.shutdown());
        tasks.spawn("removals", gone);
        tasks.spawn("upkeep", upkeep.run(tasks.shutdown()));
        tasks.spawn("membership", membership.run(tasks.shutdown()));
        if let Some(every) = config.webhook.self_test_every() {
            tasks.spawn("self-test", self_test.keep(every, tasks.shutdown()));
        }
        if let Some(metrics) = &metrics {
            tasks.spawn("metrics", telemetry::upkeep(metrics.clone(), tasks.shutdown()));
        }
        Ok(Self { tasks, links, public: public_address, private: private_address, operations, store })
    }

    /// Where the public listener is.
    pub fn public(&self) -> SocketAddr {
        self.public
    }

    /// Where the private listener is.
    pub fn private(&self) -> SocketAddr {
        self.private
    }

    /// What an operator may ask.
    pub fn operations(&self) -> Arc<dyn Operations> {
        Arc::clone(&self.operations) as Arc<dyn Operations>
    }

    /// How full the queue is.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`](crate::queue::StoreError::Unavailable).
    pub async fn depth(&self) -> Result<crate::queue::Depth, crate::queue::StoreError> {
        self.operations.depth().await
    }

    /// Stops in order: no new work, turns under way, PBX links, the store, which gets back what is still held.
    pub async fn stop(self) {
        self.tasks.end_within(STOP_WITHIN).await;
        self.links.end_within(UNLINK_WITHIN).await;
        match tokio::time::timeout(LEAVE_WITHIN, self.store.leave()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                warn!(error = %Chain(&error), "The store could not be told that this process is gone")
            }
            Err(_) => warn!("The store did not hear in time that this process is gone"),
        }
    }
}

/// Without a slash at its end; `Config::complete` has made sure that it is there.
fn public_url(config: &Config) -> String {
    let url = config.webhook.public_url.as_ref().map(url::Url::as_str).unwrap_or_default();
    url.trim_end_matches('/').to_owned()
}

fn public_routes(receiver: &Arc<Receiver>, consent: &Arc<ConsentDesk>) -> Router {
    Router::new().merge(receiver.routes()).merge(consent.routes())
}

async fn bind(key: &'static str, address: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).await.map_err(|source| StartError::Listen { key, address, source })
}

fn address_of(listener: &TcpListener) -> SocketAddr {
    #[expect(clippy::expect_used, reason = "proven")]
    listener.local_addr().expect("a bound socket has an address")
}

async fn open(config: &Config, clock: SharedClock) -> Result<Arc<dyn Store>, StartError> {
    let shares = Shares::of(config.queue.workers);
    let trail_entries = config.admin.audit_entries;
    if let config::StoreUrl::Embedded(path) = &config.store.url {
        let settings = EmbeddedSettings { path: path.clone(), shares, trail_entries };
        return Ok(Arc::new(Embedded::open(&settings, clock).map_err(StartError::Store)?));
    }
    let link = config.store.link_settings().map_err(StartError::Secret)?;
    #[expect(clippy::expect_used, reason = "proven")]
    let link = link.expect("what is not embedded is in Redis");
    let prefix = config.store.prefix.clone();
    let store = Redis::open(&RedisSettings { link, prefix, shares, trail_entries }, clock).await;
    Ok(Arc::new(store.map_err(StartError::Redis)?))
}

fn client_state_secret(config: &Config) -> Result<SecretString, StartError> {
    let given = config.keys.client_state().map_err(StartError::Secret)?;
    match given {
        Some(secret) => Ok(secret),
        None => config::read_or_create_secret("keys.client_state_file", &config.client_state_file())
            .map_err(StartError::Secret),
    }
}

/// The key's name is made from the key, so that nobody has to keep names and keys together.
fn state_key(secret: &SecretString) -> Result<StateKey, StartError> {
    let digest = Sha256::digest(secret.expose_secret().as_bytes());
    let name: String = digest.iter().take(3).map(|byte| format!("{byte:02x}")).collect();
    StateKey::new(&name, &SecretSlice::from(secret.expose_secret().as_bytes().to_vec()))
        .map_err(StartError::Key)
}

fn state_keys(config: &Config, current: &SecretString) -> Result<StateKeys, StartError> {
    let previous = config.keys.client_state_previous().map_err(StartError::Secret)?;
    let previous = previous.as_ref().map(state_key).transpose()?;
    Ok(StateKeys::new(state_key(current)?, previous))
}

/// A key of its own for consent links, from the same secret: neither can be passed off as the other.
fn consent_key(secret: &SecretString) -> ConsentKey {
    let mut hash = Sha256::new();
    hash.update(b"narvaro consent key 1\0");
    hash.update(secret.expose_secret().as_bytes());
    #[expect(clippy::expect_used, reason = "proven")]
    ConsentKey::new(hash.finalize().to_vec()).expect("a SHA-256 has 32 bytes")
}

/// All tokens of the admin API, each a different one.
fn admin_tokens(config: &Config, environment: &Environment) -> Result<Vec<admin::Token>, StartError> {
    let first = config::read_or_create_secret("admin.token_file", &config.token_file());
    let first = first.map_err(StartError::Secret)?;
    let mut tokens = vec![admin::Token { secret: first, caller: Caller::admin(config::FIRST_TOKEN) }];
    for (index, token) in config.admin.tokens.iter().enumerate() {
        let key = format!("admin.tokens[{index}]");
        let secret = token.secret(&key, environment).map_err(StartError::Secret)?;
        let same = |known: &&admin::Token| known.secret.expose_secret() == secret.expose_secret();
        if let Some(known) = tokens.iter().find(same) {
            return Err(StartError::SameToken(known.caller.name.clone(), token.name.clone()));
        }
        let config::AdminToken { name, role, companies, .. } = token.clone();
        tokens.push(admin::Token { secret, caller: Caller { name, role, companies } });
    }
    Ok(tokens)
}

fn app_credential(config: &Config) -> Result<AppCredential, StartError> {
    Ok(match config.graph.credential().map_err(StartError::Secret)? {
        Some(config::Credential::Secret(secret)) => AppCredential::Secret(secret),
        Some(config::Credential::Certificate { certificate_pem, key_pem }) => {
            AppCredential::Certificate { cert_pem: certificate_pem.expose_secret().to_owned(), key_pem }
        }
        Some(config::Credential::WorkloadIdentity { token_file }) => {
            AppCredential::WorkloadIdentity { token_file }
        }
        // `Config::complete` has refused this already.
        None => AppCredential::Secret(SecretString::default()),
    })
}

fn graph(config: &Config, credential: AppCredential, clock: SharedClock) -> Result<Arc<Graph>, StartError> {
    let endpoints = config.graph.endpoints();
    let cloud = Cloud::custom(
        endpoints.graph_base,
        endpoints.login_authority,
        config.graph.allow_plain_http_loopback,
    )
    .map_err(StartError::Cloud)?;
    let client_id = config.graph.client_id.clone().unwrap_or_default();
    Graph::new(GraphConfig { cloud, client_id, credential }, clock).map_err(StartError::Graph)
}

/// How long an edge is held after its instant that was leased ahead: long enough for a write that begins some seconds late.
fn hold_ahead(config: &Config) -> Duration {
    AHEAD_HOLD.max(config.pbx.timeout() + BEGINS_LATE)
}

fn turn_settings(config: &Config, public_url: &str, keys: &StateKeys) -> TurnSettings {
    TurnSettings {
        hold: config.queue.lease(),
        hold_ahead: hold_ahead(config),
        write_within: config.pbx.timeout(),
        read_within: config.queue.read_within(),
        sweep: SweepPlan {
            trusted: config.sweep.trusted(),
            proven: config.sweep.proven(),
            unproven: config.sweep.unproven(),
            unwatched: config.sweep.unwatched(),
        },
        window: (SignedDuration::from_hours(24), SignedDuration::from_hours(35 * 24)),
        read_back_every: SignedDuration::from_mins(1),
        retry: RetryPlan {
            first: config.queue.retry_first(),
            longest: config.queue.retry_max(),
            parked: config.queue.park(),
        },
        watches: WatchPlan {
            notification_url: format!("{public_url}/graph/v1/notify"),
            lifecycle_url: format!("{public_url}/graph/v1/lifecycle"),
            keys: keys.clone(),
            life: LONGEST_LIFE,
        },
    }
}
