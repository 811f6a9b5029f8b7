//! The world behind the stand-ins: tenants, their users and mailboxes, app registrations,
//! consents and tokens. Indexed so that no request looks through everything.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{
        Arc, Mutex, RwLock,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use jiff::{Timestamp, tz::TimeZone};
use rand::{SeedableRng, rngs::StdRng};
use serde::{Deserialize, Serialize};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use uuid::Uuid;

use crate::{
    SimOptions, ami::AmiState, calendar::Mailbox, clock::SimClock, delivery::Delivery, error::SimError,
    faults::Faults, journal::Journal, limits::Limits, lock, pbx::PbxState, read,
    subscriptions::Subscriptions, write, zones,
};

/// A customer's tenant.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TenantSpec {
    /// Tenant GUID; empty = one is made up.
    pub id: String,
    /// Verified domain.
    pub domain: String,
    /// Display name; empty = the domain.
    pub name: String,
}

impl TenantSpec {
    /// A tenant with a made-up id.
    pub fn new(domain: &str) -> Self {
        Self { domain: domain.to_owned(), ..Self::default() }
    }
}

/// Whether a user's mailbox can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MailboxKind {
    /// In Exchange Online, readable.
    #[default]
    Licensed,
    /// No licence, or on premises: 404 `MailboxNotEnabledForRESTAPI`.
    NoMailbox,
    /// Kept from the app by policy: 403 `ErrorAccessDenied`.
    Denied,
}

/// What a directory object stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UserKind {
    /// A person of the company.
    #[default]
    Member,
    /// A person of another company: never has a mailbox here.
    Guest,
    /// A shared or room mailbox: `accountEnabled` is false.
    Shared,
}

/// A user and his mailbox.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct UserSpec {
    /// Object id; empty = one is made up.
    pub id: String,
    /// Primary SMTP address.
    pub alias: String,
    /// Other proxy addresses; without a prefix `smtp:` is meant.
    pub proxies: Vec<String>,
    /// User principal name; empty = the alias.
    pub upn: String,
    /// Display name; empty = the alias before the `@`.
    pub name: String,
    /// Windows or IANA name; empty = unset.
    pub time_zone: Option<String>,
    /// State of the mailbox.
    pub mailbox: MailboxKind,
    /// Kind of the directory object.
    pub kind: UserKind,
}

impl UserSpec {
    /// A member with a mailbox in Swedish time.
    pub fn new(alias: &str) -> Self {
        Self { alias: alias.to_owned(), ..Self::default() }
    }
}

/// An identity of another issuer that may act as the app.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FederatedSpec {
    /// `iss` of the assertion.
    pub issuer: String,
    /// `sub` of the assertion.
    pub subject: String,
    /// `aud` of the assertion.
    pub audience: String,
    /// PEM public key or certificate of the issuer (RSA).
    pub key_pem: String,
}

/// An app registration.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AppSpec {
    /// Client id.
    pub client_id: String,
    /// Accepted client secrets.
    pub secrets: Vec<String>,
    /// Secrets that have expired.
    pub expired_secrets: Vec<String>,
    /// Registered certificates or public keys, PEM.
    pub certificates: Vec<String>,
    /// Federated credentials.
    pub federated: Vec<FederatedSpec>,
    /// Registered redirect URIs.
    pub redirect_uris: Vec<String>,
}

impl AppSpec {
    /// An app with one secret.
    pub fn new(client_id: &str, secret: &str) -> Self {
        Self { client_id: client_id.to_owned(), secrets: vec![secret.to_owned()], ..Self::default() }
    }
}

pub(crate) struct Tenant {
    pub(crate) id: String,
    pub(crate) domain: String,
    pub(crate) name: String,
    /// Consented apps: client id → granted permissions.
    pub(crate) grants: RwLock<HashMap<String, Grant>>,
    by_address: RwLock<HashMap<String, Vec<Arc<User>>>>,
    by_id: RwLock<HashMap<String, Arc<User>>>,
    by_upn: RwLock<HashMap<String, Arc<User>>>,
}

#[derive(Debug, Clone)]
pub(crate) struct Grant {
    pub(crate) principal: String,
    pub(crate) permissions: BTreeSet<String>,
    pub(crate) disabled: bool,
}

pub(crate) const PERMISSIONS: [&str; 4] =
    ["Calendars.Read", "Contacts.Read", "MailboxSettings.Read", "User.Read.All"];

impl Tenant {
    pub(crate) fn user(&self, id_or_upn: &str) -> Option<Arc<User>> {
        let key = id_or_upn.to_lowercase();
        let found = read(&self.by_id).get(&key).cloned();
        found.or_else(|| read(&self.by_upn).get(&key).cloned())
    }

    pub(crate) fn by_address(&self, address: &str) -> Vec<Arc<User>> {
        read(&self.by_address).get(&address.to_lowercase()).cloned().unwrap_or_default()
    }
}

pub(crate) struct User {
    pub(crate) id: String,
    pub(crate) tenant: Arc<Tenant>,
    /// Small number that goes into item ids.
    pub(crate) number: u32,
    pub(crate) profile: RwLock<Profile>,
    pub(crate) mailbox: Mutex<Mailbox>,
    pub(crate) in_flight: AtomicU32,
}

#[derive(Clone)]
pub(crate) struct Profile {
    pub(crate) spec: UserSpec,
    /// With prefixes, the primary first.
    pub(crate) proxies: Vec<String>,
    pub(crate) zone: TimeZone,
}

impl User {
    pub(crate) fn zone(&self) -> (String, TimeZone) {
        let profile = read(&self.profile);
        (profile.spec.time_zone.clone().unwrap_or_default(), profile.zone.clone())
    }

    pub(crate) fn mailbox_kind(&self) -> MailboxKind {
        let profile = read(&self.profile);
        if profile.spec.kind == UserKind::Guest { MailboxKind::NoMailbox } else { profile.spec.mailbox }
    }
}

pub(crate) struct App {
    pub(crate) spec: AppSpec,
}

#[derive(Clone)]
pub(crate) struct TokenHolder {
    pub(crate) tenant: Arc<Tenant>,
    pub(crate) app: String,
    pub(crate) expires: Timestamp,
    pub(crate) permissions: Arc<BTreeSet<String>>,
    pub(crate) principal: String,
    pub(crate) secret: Option<usize>,
}

#[derive(Default)]
pub(crate) struct Directory {
    pub(crate) tenants: HashMap<String, Arc<Tenant>>,
    domains: HashMap<String, Arc<Tenant>>,
    pub(crate) apps: HashMap<String, Arc<App>>,
    by_address: HashMap<String, Arc<User>>,
    by_id: HashMap<String, Arc<User>>,
    order: Vec<String>,
}

/// Everything the servers share.
pub(crate) struct World {
    pub(crate) options: SimOptions,
    pub(crate) base_url: String,
    pub(crate) clock: SimClock,
    pub(crate) journal: Arc<Journal>,
    pub(crate) directory: RwLock<Directory>,
    pub(crate) tokens: RwLock<HashMap<String, TokenHolder>>,
    pub(crate) login: Mutex<crate::login::LoginKnobs>,
    pub(crate) delta: Mutex<crate::events::DeltaKnobs>,
    pub(crate) subscriptions: Mutex<Subscriptions>,
    pub(crate) delivery: Delivery,
    pub(crate) rich: crate::rich::RichState,
    pub(crate) faults: Faults,
    pub(crate) limits: Limits,
    pub(crate) pbx: PbxState,
    pub(crate) ami: AmiState,
    pub(crate) http: reqwest::Client,
    pub(crate) rng: Mutex<StdRng>,
    pub(crate) stop: CancellationToken,
    pub(crate) tasks: TaskTracker,
    next_user: AtomicU32,
}

impl World {
    pub(crate) fn new(
        options: SimOptions,
        base_url: String,
        http: reqwest::Client,
        delivery: Delivery,
    ) -> Arc<Self> {
        let clock = SimClock::default();
        Arc::new(Self {
            base_url,
            journal: Arc::new(Journal::new(clock.clone(), options.journal_limit)),
            directory: RwLock::default(),
            tokens: RwLock::default(),
            login: Mutex::default(),
            delta: Mutex::default(),
            subscriptions: Mutex::default(),
            delivery,
            rich: crate::rich::RichState::default(),
            faults: Faults::default(),
            limits: Limits::default(),
            pbx: PbxState::default(),
            ami: AmiState::new(&options, clock.now()),
            http,
            rng: Mutex::new(StdRng::seed_from_u64(options.rng_seed)),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
            next_user: AtomicU32::new(0),
            clock,
            options,
        })
    }

    pub(crate) fn add_tenant(&self, spec: TenantSpec) -> Result<String, SimError> {
        let id = if spec.id.is_empty() {
            Uuid::new_v4().to_string()
        } else {
            Uuid::parse_str(&spec.id).map_err(|_| SimError::invalid("a tenant id is a GUID"))?.to_string()
        };
        if spec.domain.is_empty() {
            return Err(SimError::invalid("a tenant needs a domain"));
        }
        let mut directory = write(&self.directory);
        let domain = spec.domain.to_lowercase();
        if directory.tenants.contains_key(&id) || directory.domains.contains_key(&domain) {
            return Err(SimError::invalid("the tenant exists already"));
        }
        let tenant = Arc::new(Tenant {
            id: id.clone(),
            name: if spec.name.is_empty() { spec.domain } else { spec.name },
            domain: domain.clone(),
            grants: RwLock::default(),
            by_address: RwLock::default(),
            by_id: RwLock::default(),
            by_upn: RwLock::default(),
        });
        directory.domains.insert(domain, tenant.clone());
        directory.tenants.insert(id.clone(), tenant);
        directory.order.push(id.clone());
        Ok(id)
    }

    pub(crate) fn add_app(&self, spec: AppSpec) -> Result<(), SimError> {
        if spec.client_id.is_empty() {
            return Err(SimError::invalid("an app needs a client_id"));
        }
        write(&self.directory).apps.insert(spec.client_id.to_lowercase(), Arc::new(App { spec }));
        Ok(())
    }

    pub(crate) fn add_user(&self, tenant: &str, mut spec: UserSpec) -> Result<String, SimError> {
        let tenant = self.tenant(tenant).ok_or_else(|| SimError::not_found(format!("tenant `{tenant}`")))?;
        if !spec.alias.contains('@') {
            return Err(SimError::invalid("an alias is a mail address"));
        }
        if spec.id.is_empty() {
            spec.id = Uuid::new_v4().to_string();
        }
        let id = spec.id.to_lowercase();
        if spec.upn.is_empty() {
            spec.upn.clone_from(&spec.alias);
        }
        if spec.name.is_empty() {
            spec.name = spec.alias.split('@').next().unwrap_or_default().to_owned();
        }
        if spec.time_zone.is_none() {
            spec.time_zone = Some("W. Europe Standard Time".to_owned());
        }
        let zone = zone_of(spec.time_zone.as_deref())?;
        let mut proxies = vec![format!("SMTP:{}", spec.alias)];
        proxies.extend(
            spec.proxies
                .iter()
                .map(|proxy| if proxy.contains(':') { proxy.clone() } else { format!("smtp:{proxy}") }),
        );
        let user = Arc::new(User {
            id: id.clone(),
            tenant: tenant.clone(),
            number: self.next_user.fetch_add(1, Ordering::Relaxed) + 1,
            profile: RwLock::new(Profile { spec: spec.clone(), proxies: proxies.clone(), zone }),
            mailbox: Mutex::default(),
            in_flight: AtomicU32::new(0),
        });
        let mut directory = write(&self.directory);
        if directory.by_id.contains_key(&id) {
            return Err(SimError::invalid("a user with this id exists already"));
        }
        write(&tenant.by_id).insert(id.clone(), user.clone());
        write(&tenant.by_upn).insert(spec.upn.to_lowercase(), user.clone());
        for proxy in &proxies {
            let proxy = proxy.to_lowercase();
            let address = proxy.strip_prefix("smtp:").unwrap_or(&proxy).to_owned();
            directory.by_address.entry(address.clone()).or_insert_with(|| user.clone());
            write(&tenant.by_address).entry(address).or_default().push(user.clone());
        }
        directory.by_id.insert(id.clone(), user);
        Ok(id)
    }

    /// Another primary address; the one before becomes a secondary one or goes.
    pub(crate) fn rename_user(&self, user: &Arc<User>, alias: &str, keep: bool) -> Result<(), SimError> {
        if !alias.contains('@') {
            return Err(SimError::invalid("an alias is a mail address"));
        }
        let mut directory = write(&self.directory);
        let mut of_tenant = write(&user.tenant.by_address);
        let mut profile = write(&user.profile);
        let before = std::mem::replace(&mut profile.spec.alias, alias.to_owned());
        profile.proxies.retain(|proxy| !proxy.starts_with("SMTP:"));
        profile.proxies.insert(0, format!("SMTP:{alias}"));
        let lower = alias.to_lowercase();
        directory.by_address.insert(lower.clone(), user.clone());
        of_tenant.entry(lower).or_default().push(user.clone());
        if keep {
            profile.proxies.push(format!("smtp:{before}"));
        } else {
            let before = before.to_lowercase();
            directory.by_address.remove(&before);
            of_tenant.entry(before).or_default().retain(|other| other.id != user.id);
        }
        Ok(())
    }

    pub(crate) fn remove_user(&self, user: &Arc<User>) {
        let mut directory = write(&self.directory);
        directory.by_id.remove(&user.id);
        directory.by_address.retain(|_, other| other.id != user.id);
        write(&user.tenant.by_id).remove(&user.id);
        write(&user.tenant.by_upn).retain(|_, other| other.id != user.id);
        for users in write(&user.tenant.by_address).values_mut() {
            users.retain(|other| other.id != user.id);
        }
        drop(directory);
        lock(&self.subscriptions).end_all_of(&user.id, &self.journal, "user removed");
    }

    /// By GUID or domain.
    pub(crate) fn tenant(&self, key: &str) -> Option<Arc<Tenant>> {
        let key = key.to_lowercase();
        let directory = read(&self.directory);
        directory.tenants.get(&key).or_else(|| directory.domains.get(&key)).cloned()
    }

    pub(crate) fn first_tenant(&self) -> Option<Arc<Tenant>> {
        let directory = read(&self.directory);
        let first = directory.order.first()?;
        directory.tenants.get(first).cloned()
    }

    pub(crate) fn tenants(&self) -> Vec<Arc<Tenant>> {
        let directory = read(&self.directory);
        directory.order.iter().filter_map(|id| directory.tenants.get(id).cloned()).collect()
    }

    pub(crate) fn app(&self, client_id: &str) -> Option<Arc<App>> {
        read(&self.directory).apps.get(&client_id.to_lowercase()).cloned()
    }

    /// For the simulator's own API: by GUID or any address, over all tenants.
    pub(crate) fn any_user(&self, key: &str) -> Result<Arc<User>, SimError> {
        let lower = key.to_lowercase();
        let directory = read(&self.directory);
        directory
            .by_id
            .get(&lower)
            .or_else(|| directory.by_address.get(&lower))
            .cloned()
            .ok_or_else(|| SimError::not_found(format!("user `{key}`")))
    }

    pub(crate) fn users(&self) -> Vec<Arc<User>> {
        let mut users: Vec<_> = read(&self.directory).by_id.values().cloned().collect();
        users.sort_by_key(|user| user.number);
        users
    }

    pub(crate) fn consent(&self, tenant: &str, client_id: &str) -> Result<(), SimError> {
        let tenant = self.tenant(tenant).ok_or_else(|| SimError::not_found(format!("tenant `{tenant}`")))?;
        write(&tenant.grants).insert(
            client_id.to_lowercase(),
            Grant {
                principal: Uuid::new_v4().to_string(),
                permissions: PERMISSIONS.iter().map(|&p| p.to_owned()).collect(),
                disabled: false,
            },
        );
        Ok(())
    }

    pub(crate) fn set_time_zone(&self, user: &str, zone: &str) -> Result<(), SimError> {
        let user = self.any_user(user)?;
        let parsed = zone_of(Some(zone))?;
        let mut profile = write(&user.profile);
        profile.spec.time_zone = Some(zone.to_owned());
        profile.zone = parsed;
        Ok(())
    }

    pub(crate) fn token_lifetime(&self) -> Duration {
        lock(&self.login).token_lifetime.unwrap_or(self.options.token_lifetime)
    }
}

fn zone_of(name: Option<&str>) -> Result<TimeZone, SimError> {
    match name {
        None | Some("") => Ok(TimeZone::UTC),
        Some(name) => {
            zones::zone(name).ok_or_else(|| SimError::invalid(format!("unknown time zone `{name}`")))
        }
    }
}
