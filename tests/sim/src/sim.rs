//! The handle: starts the servers, and has a method for every knob.

use std::{
    collections::{BTreeMap, HashMap},
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use jiff::{SignedDuration, Timestamp, civil::Date};
use serde::Serialize;
use tokio::{net::TcpListener, sync::watch};
use tokio_util::sync::DropGuard;

use crate::{
    ami::{self, AmiAccount, AmiKnobs, AmiPresence},
    calendar::{CalendarKind, EventSpec, ItemRef, Moment, Response, ShowAs, When},
    clock::SimClock,
    delivery::{self, Delivery, DeliveryKnobs, LifecycleKind},
    error::SimError,
    events::DeltaKnobs,
    faults::{Fault, FaultFilter, FaultKind},
    http,
    journal::{Entry, Journal},
    lock,
    login::LoginKnobs,
    pbx::{PbxAuth, PbxFault, PbxPresence},
    rich::{self, RichKnobs},
    subscriptions::{self, HANDSHAKE_TIMEOUT, Watched},
    world::{AppSpec, MailboxKind, TenantSpec, User, UserSpec, World},
    write,
};

/// How a simulator is started.
#[derive(Debug, Clone)]
pub struct SimOptions {
    /// Address of the HTTP port; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Address of the AMI port; port 0 takes a free one.
    pub ami_listen: SocketAddr,
    /// URL under which clients reach the HTTP port, if it is not the address itself.
    pub public_url: Option<String>,
    /// Seed of everything random.
    pub rng_seed: u64,
    /// Hosts accepted in the audience of certificate assertions.
    pub login_audience_hosts: Vec<String>,
    /// Life of access tokens.
    pub token_lifetime: Duration,
    /// Time that the product has to answer a validation request.
    pub handshake_timeout: Duration,
    /// The clock stands, and whoever moves it waits before until everything has come to rest
    /// ([`Sim::delivering`]). Delays of delivery then follow this clock, and an answer is known to its receiver once
    /// the time has gone on.
    pub paced: bool,
    /// Most entries kept in the journal.
    pub journal_limit: usize,
    /// Deliver to https endpoints without checking their certificates.
    pub accept_any_certificate: bool,
    /// More root certificates to trust when delivering, PEM.
    pub trusted_roots: Vec<String>,
    /// Manager accounts of the Asterisk stand-in.
    pub ami_accounts: Vec<AmiAccount>,
}

impl Default for SimOptions {
    fn default() -> Self {
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        Self {
            listen: any,
            ami_listen: any,
            public_url: None,
            rng_seed: 1,
            login_audience_hosts: vec!["login.microsoftonline.com".to_owned()],
            token_lifetime: Duration::from_secs(3_599),
            handshake_timeout: HANDSHAKE_TIMEOUT,
            paced: false,
            journal_limit: 200_000,
            accept_any_certificate: false,
            trusted_roots: Vec::new(),
            ami_accounts: vec![AmiAccount {
                username: "narvaro".to_owned(),
                secret: "secret".to_owned(),
                system: true,
            }],
        }
    }
}

/// The two ids of an event or occurrence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EventIds {
    /// With `Prefer: IdType="ImmutableId"`.
    pub id: String,
    /// Without it.
    pub default_id: String,
}

/// An event, or an occurrence of a series, as a user's default calendar shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventInfo {
    /// Immutable id.
    pub id: String,
    /// Immutable id of its series.
    pub series: Option<String>,
    /// Subject; empty where it has none.
    pub subject: String,
    /// When it starts; a whole day starts in the mailbox's zone.
    pub start: Timestamp,
    /// When it ends.
    pub end: Timestamp,
    /// Whether it lasts whole days.
    pub all_day: bool,
    /// What the owner answered.
    pub response: Response,
    /// Whether the owner invites.
    pub is_organizer: bool,
    /// Address of the organizer, if it is another.
    pub organizer: Option<String>,
    /// Whether it is cancelled.
    pub is_cancelled: bool,
    /// As what it shows.
    pub show_as: ShowAs,
}

/// A live subscription.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SubscriptionInfo {
    /// Subscription id.
    pub id: String,
    /// App it belongs to.
    pub app: String,
    /// Tenant it belongs to.
    pub tenant: String,
    /// Object id of the mailbox.
    pub user: String,
    /// Resource, as sent.
    pub resource: String,
    /// Whether it watches contacts instead of events.
    pub contacts: bool,
    /// Change types, comma separated.
    pub change_type: String,
    /// Where notifications go.
    pub notification_url: String,
    /// Where lifecycle notifications go.
    pub lifecycle_url: Option<String>,
    /// The product's secret.
    pub client_state: Option<String>,
    /// When it ends.
    pub expires: Timestamp,
    /// Whether its notifications carry immutable ids.
    pub immutable: bool,
    /// Id of the certificate that resource data is encrypted for, where it is included.
    pub certificate_id: Option<String>,
}

/// The running simulator; it ends when this is dropped.
pub struct Sim {
    world: Arc<World>,
    http_addr: SocketAddr,
    ami_addr: SocketAddr,
    /// Ends the simulator with this handle; the control API's handles have none.
    _ends_with_us: Option<DropGuard>,
}

impl Sim {
    /// Binds the ports and serves.
    ///
    /// # Errors
    /// When a port cannot be bound or a root certificate cannot be read.
    pub async fn start(options: SimOptions) -> io::Result<Self> {
        let http_listener = TcpListener::bind(options.listen).await?;
        let ami_listener = TcpListener::bind(options.ami_listen).await?;
        let http_addr = http_listener.local_addr()?;
        let ami_addr = ami_listener.local_addr()?;
        let base_url = options
            .public_url
            .as_deref()
            .map_or_else(|| format!("http://{http_addr}"), |url| url.trim_end_matches('/').to_owned());
        let client = client(&options).map_err(io::Error::other)?;
        let world = World::new(options, base_url, client, Delivery::new());
        world.tasks.spawn(http::serve(world.clone(), http_listener));
        world.tasks.spawn(ami::serve(world.clone(), ami_listener));
        world.tasks.spawn(delivery::run(world.clone()));
        let guard = world.stop.clone().drop_guard();
        Ok(Self { world, http_addr, ami_addr, _ends_with_us: Some(guard) })
    }

    /// Ends all servers and waits until they have ended.
    pub async fn shutdown(self) {
        self.world.stop.cancel();
        self.world.tasks.close();
        self.world.tasks.wait().await;
    }

    /// URL of the HTTP port, without a slash at the end.
    pub fn base_url(&self) -> &str {
        &self.world.base_url
    }

    /// URL that takes the place of `https://graph.microsoft.com/v1.0`.
    pub fn graph_url(&self) -> String {
        format!("{}/v1.0", self.world.base_url)
    }

    /// URL that takes the place of `https://login.microsoftonline.com`.
    pub fn login_url(&self) -> String {
        self.world.base_url.clone()
    }

    /// URL of a company's HTTP PBX.
    pub fn pbx_url(&self, company: &str) -> String {
        format!("{}/pbx/{company}", self.world.base_url)
    }

    /// Address of the HTTP port.
    pub fn http_addr(&self) -> SocketAddr {
        self.http_addr
    }

    /// Address of the AMI port.
    pub fn ami_addr(&self) -> SocketAddr {
        self.ami_addr
    }

    /// The simulator's clock.
    pub fn clock(&self) -> &SimClock {
        &self.world.clock
    }

    /// Sets the time and stops the clock there.
    pub fn set_time(&self, now: Timestamp) {
        self.world.clock.set_time(now);
    }

    /// Moves the clock, which runs on if it runs.
    pub fn advance_time(&self, by: SignedDuration) {
        self.world.clock.advance(by);
    }

    /// The journal.
    pub fn journal(&self) -> &Journal {
        &self.world.journal
    }

    /// What the product did wrong.
    pub fn violations(&self) -> Vec<Arc<Entry>> {
        self.world.journal.violations()
    }

    // Tenants, apps, users.

    /// Adds a tenant; answers its id.
    ///
    /// # Errors
    /// When it exists or its id is no GUID.
    pub fn add_tenant(&self, spec: TenantSpec) -> Result<String, SimError> {
        self.world.add_tenant(spec)
    }

    /// Adds an app registration, or replaces the one with the same client id.
    ///
    /// # Errors
    /// When the client id is missing.
    pub fn add_app(&self, spec: AppSpec) -> Result<(), SimError> {
        self.world.add_app(spec)
    }

    /// Adds a user; answers the object id.
    ///
    /// # Errors
    /// When the tenant or the zone is unknown, or the id is taken.
    pub fn add_user(&self, tenant: &str, spec: UserSpec) -> Result<String, SimError> {
        self.world.add_user(tenant, spec)
    }

    /// Removes a user with his mailbox and subscriptions.
    ///
    /// # Errors
    /// When the user is unknown.
    pub fn remove_user(&self, user: &str) -> Result<(), SimError> {
        let user = self.world.any_user(user)?;
        self.world.remove_user(&user);
        Ok(())
    }

    /// Gives a user another primary address; the one before stays as a secondary address if `keep`.
    ///
    /// # Errors
    /// When the user is unknown or the address is none.
    pub fn rename_user(&self, user: &str, alias: &str, keep: bool) -> Result<(), SimError> {
        let user = self.world.any_user(user)?;
        self.world.rename_user(&user, alias, keep)
    }

    /// Object id of a user, by any address or the id itself.
    ///
    /// # Errors
    /// When the user is unknown.
    pub fn user_id(&self, user: &str) -> Result<String, SimError> {
        Ok(self.world.any_user(user)?.id.clone())
    }

    /// Grants an app all permissions in a tenant.
    ///
    /// # Errors
    /// When the tenant is unknown.
    pub fn consent(&self, tenant: &str, client_id: &str) -> Result<(), SimError> {
        self.world.consent(tenant, client_id)
    }

    /// Takes the consent back; tokens already issued go on unless `end_tokens`.
    ///
    /// # Errors
    /// When the tenant is unknown.
    pub fn revoke_consent(&self, tenant: &str, client_id: &str, end_tokens: bool) -> Result<(), SimError> {
        let tenant =
            self.world.tenant(tenant).ok_or_else(|| SimError::not_found(format!("tenant `{tenant}`")))?;
        let client_id = client_id.to_lowercase();
        write(&tenant.grants).remove(&client_id);
        if end_tokens {
            write(&self.world.tokens)
                .retain(|_, token| token.tenant.id != tenant.id || token.app != client_id);
        }
        Ok(())
    }

    /// Takes one permission (for example `Calendars.Read`) out of a grant; later tokens lack it.
    ///
    /// # Errors
    /// When the tenant or the grant is unknown.
    pub fn withdraw_permission(
        &self,
        tenant: &str,
        client_id: &str,
        permission: &str,
    ) -> Result<(), SimError> {
        self.grant(tenant, client_id, |grant| {
            grant.permissions.remove(permission);
        })
    }

    /// Disables or enables the app in a tenant.
    ///
    /// # Errors
    /// When the tenant or the grant is unknown.
    pub fn set_app_disabled(&self, tenant: &str, client_id: &str, disabled: bool) -> Result<(), SimError> {
        self.grant(tenant, client_id, |grant| grant.disabled = disabled)
    }

    fn grant(
        &self,
        tenant: &str,
        client_id: &str,
        change: impl FnOnce(&mut crate::world::Grant),
    ) -> Result<(), SimError> {
        let tenant =
            self.world.tenant(tenant).ok_or_else(|| SimError::not_found(format!("tenant `{tenant}`")))?;
        let mut grants = write(&tenant.grants);
        let grant = grants.get_mut(&client_id.to_lowercase()).ok_or_else(|| SimError::not_found("grant"))?;
        change(grant);
        Ok(())
    }

    /// Changes what a mailbox answers.
    ///
    /// # Errors
    /// When the user is unknown.
    pub fn set_mailbox(&self, user: &str, kind: MailboxKind) -> Result<(), SimError> {
        let user = self.world.any_user(user)?;
        write(&user.profile).spec.mailbox = kind;
        Ok(())
    }

    /// Changes a mailbox's zone; Windows or IANA name, or empty for unset.
    ///
    /// # Errors
    /// When the user or the zone is unknown.
    pub fn set_time_zone(&self, user: &str, zone: &str) -> Result<(), SimError> {
        self.world.set_time_zone(user, zone)
    }

    /// Turns knobs of the login stand-in.
    pub fn login(&self, turn: impl FnOnce(&mut LoginKnobs)) {
        turn(&mut lock(&self.world.login));
    }

    /// Makes all tokens issued so far expired.
    pub fn expire_tokens(&self) {
        let past = self.world.clock.now();
        for token in write(&self.world.tokens).values_mut() {
            token.expires = past;
        }
    }

    // Calendars.

    fn ids(user: &User, item: ItemRef) -> EventIds {
        EventIds { id: item.id(user.number, true), default_id: item.id(user.number, false) }
    }

    fn item(user: &User, id: &str) -> Result<ItemRef, SimError> {
        ItemRef::parse(id, user.number)
            .map(|(item, _)| item)
            .map_err(|_| SimError::not_found(format!("event `{id}`")))
    }

    /// Adds an event.
    ///
    /// # Errors
    /// When the user is unknown or the times make no sense.
    pub fn add_event(&self, user: &str, spec: EventSpec) -> Result<EventIds, SimError> {
        let user = self.world.any_user(user)?;
        let (zone_name, zone) = user.zone();
        let now = self.world.clock.now();
        let (item, changes) = lock(&user.mailbox).add(&spec, now, &zone, &zone_name)?;
        delivery::notify(&self.world, &user, &changes);
        Ok(Self::ids(&user, item))
    }

    /// Changes an event, a series or, by its own id, an occurrence.
    ///
    /// # Errors
    /// When it does not exist or the times make no sense.
    pub fn patch_event(&self, user: &str, id: &str, spec: EventSpec) -> Result<EventIds, SimError> {
        let user = self.world.any_user(user)?;
        let item = Self::item(&user, id)?;
        let (zone_name, zone) = user.zone();
        let now = self.world.clock.now();
        let mut mailbox = lock(&user.mailbox);
        let changes = mailbox.patch(item, &spec, now, &zone, &zone_name)?;
        let moves = mailbox.events.get(&item.key).map_or(0, |event| event.moves);
        drop(mailbox);
        delivery::notify(&self.world, &user, &changes);
        Ok(Self::ids(&user, ItemRef { moves, ..item }))
    }

    /// Deletes an event or a series, or cancels an occurrence.
    ///
    /// # Errors
    /// When it does not exist.
    pub fn delete_event(&self, user: &str, id: &str) -> Result<(), SimError> {
        let user = self.world.any_user(user)?;
        let item = Self::item(&user, id)?;
        let now = self.world.clock.now();
        let changes = lock(&user.mailbox).delete(item, now)?;
        delivery::notify(&self.world, &user, &changes);
        Ok(())
    }

    /// Ids of the occurrence of a series that the pattern has on `date`.
    ///
    /// # Errors
    /// When there is none.
    pub fn occurrence(&self, user: &str, master: &str, date: Date) -> Result<EventIds, SimError> {
        let user = self.world.any_user(user)?;
        let item = Self::item(&user, master)?;
        let mailbox = lock(&user.mailbox);
        mailbox
            .events
            .get(&item.key)
            .and_then(|event| event.slot(date))
            .ok_or_else(|| SimError::not_found(format!("occurrence on {date}")))?;
        let slot = Some(date);
        Ok(Self::ids(&user, ItemRef { slot, ..item }))
    }

    /// Moves an event.
    ///
    /// # Errors
    /// When it does not exist or ends before it starts.
    pub fn move_event(
        &self,
        user: &str,
        id: &str,
        start: impl Into<Moment>,
        end: impl Into<Moment>,
    ) -> Result<EventIds, SimError> {
        self.patch_event(user, id, EventSpec::default().at(start, end))
    }

    /// The organizer cancels: the event stays, marked, free, with a prefix in the subject.
    ///
    /// # Errors
    /// When it does not exist.
    pub fn cancel_event(&self, user: &str, id: &str) -> Result<EventIds, SimError> {
        let found = self.world.any_user(user)?;
        let item = Self::item(&found, id)?;
        let subject = {
            let mailbox = lock(&found.mailbox);
            let event = mailbox.events.get(&item.key);
            let event = event.ok_or_else(|| SimError::not_found("event"))?;
            let row = item.slot.and_then(|date| event.slot(date));
            let fields = row.as_ref().map_or(&event.fields, |row| row.fields());
            fields.subject.clone().unwrap_or_default()
        };
        let spec = EventSpec {
            is_cancelled: Some(true),
            show_as: Some(crate::ShowAs::Free),
            ..EventSpec::new(&format!("Canceled: {subject}"))
        };
        self.patch_event(user, id, spec)
    }

    /// The owner answers the invitation.
    ///
    /// # Errors
    /// When the event does not exist.
    pub fn respond(&self, user: &str, id: &str, response: Response) -> Result<EventIds, SimError> {
        let spec = EventSpec { response: Some(response), ..EventSpec::default() };
        self.patch_event(user, id, spec)
    }

    /// Turns knobs of calendarView/delta; answers how they stand.
    pub fn delta(&self, turn: impl FnOnce(&mut DeltaKnobs)) -> DeltaKnobs {
        let mut knobs = lock(&self.world.delta);
        turn(&mut knobs);
        knobs.clone()
    }

    /// Makes all links of a mailbox's rounds answer 410, those to a next page too.
    ///
    /// # Errors
    /// When the user is unknown.
    pub fn expire_delta_links(&self, user: &str) -> Result<(), SimError> {
        let user = self.world.any_user(user)?;
        lock(&user.mailbox).delta_generation += 1;
        Ok(())
    }

    /// Ids and subjects of a mailbox's single events and series.
    ///
    /// # Errors
    /// When the user is unknown.
    pub fn events(&self, user: &str) -> Result<Vec<(EventIds, Option<String>)>, SimError> {
        let user = self.world.any_user(user)?;
        let mailbox = lock(&user.mailbox);
        Ok(mailbox
            .events
            .values()
            .map(|event| {
                let item = ItemRef { key: event.key, moves: event.moves, slot: None };
                (Self::ids(&user, item), event.fields.subject.clone())
            })
            .collect())
    }

    /// What a user's default calendar shows between two moments, series expanded.
    ///
    /// # Errors
    /// When the user is unknown.
    pub fn view(&self, user: &str, from: Timestamp, to: Timestamp) -> Result<Vec<EventInfo>, SimError> {
        let user = self.world.any_user(user)?;
        let (_, zone) = user.zone();
        let mailbox = lock(&user.mailbox);
        let mut rows = Vec::new();
        for event in mailbox.events.values().filter(|event| event.calendar == CalendarKind::Default) {
            event.rows(from, to, &zone, &mut rows);
        }
        Ok(rows
            .iter()
            .map(|row| {
                let item = ItemRef { key: row.event.key, moves: row.event.moves, slot: row.slot };
                let series = row.slot.map(|_| ItemRef { slot: None, ..item }.id(user.number, true));
                let (start, end) = row.when.instants(&zone);
                let fields = row.fields();
                EventInfo {
                    id: item.id(user.number, true),
                    series,
                    subject: fields.subject.clone().unwrap_or_default(),
                    start,
                    end,
                    all_day: matches!(row.when, When::AllDay { .. }),
                    response: fields.response,
                    is_organizer: fields.is_organizer,
                    organizer: fields.organizer.clone(),
                    is_cancelled: fields.is_cancelled,
                    show_as: fields.show_as,
                }
            })
            .collect())
    }

    // Subscriptions and delivery.

    /// All live subscriptions.
    pub fn subscriptions(&self) -> Vec<SubscriptionInfo> {
        let now = self.world.clock.now();
        lock(&self.world.subscriptions)
            .all(now, &self.world.journal)
            .into_iter()
            .map(|one| SubscriptionInfo {
                contacts: one.watched == Watched::Contacts,
                id: one.id,
                app: one.app,
                tenant: one.tenant,
                user: one.user,
                resource: one.resource,
                change_type: one.change_type,
                notification_url: one.url,
                lifecycle_url: one.lifecycle_url,
                client_state: one.client_state,
                expires: one.expires,
                immutable: one.immutable,
                certificate_id: one.data.map(|data| data.certificate.id),
            })
            .collect()
    }

    /// Makes a subscription to a user's events as another installation of the same application would; nobody is asked at
    /// `url`. Answers its id.
    ///
    /// # Errors
    /// When the user is unknown, or the application watches the mailbox already.
    pub fn plant_subscription(&self, client_id: &str, user: &str, url: &str) -> Result<String, SimError> {
        let user = self.world.any_user(user)?;
        subscriptions::plant(&self.world, client_id, &user, url)
    }

    /// Ends a subscription silently, as expiry does.
    pub fn expire_subscription(&self, id: &str) {
        lock(&self.world.subscriptions).end(id, &self.world.journal, "expired by a knob");
    }

    /// Sends a lifecycle notification for a subscription.
    ///
    /// # Errors
    /// When the subscription is unknown or has no lifecycle URL.
    pub fn lifecycle(&self, subscription: &str, kind: LifecycleKind) -> Result<(), SimError> {
        delivery::lifecycle(&self.world, subscription, kind)
    }

    /// Turns knobs of delivery; answers how they stand.
    pub fn delivery(&self, turn: impl FnOnce(&mut DeliveryKnobs)) -> DeliveryKnobs {
        self.world.delivery.turn(turn)
    }

    /// Turns knobs of resource data.
    pub fn rich(&self, turn: impl FnOnce(&mut RichKnobs)) {
        turn(&mut lock(&self.world.rich.knobs));
    }

    /// Sends a delivery with resource data once more as it was, the last one or that so many before it; the status
    /// answered, if there was such a delivery and an answer.
    pub async fn replay(&self, back: usize) -> Option<u16> {
        rich::replay(&self.world, back).await
    }

    /// Retries at once what waits for its next attempt.
    pub fn retry_now(&self) {
        self.world.delivery.retry_now();
    }

    /// Notifications that are neither delivered nor given up.
    pub fn outstanding(&self) -> usize {
        self.world.delivery.outstanding()
    }

    /// Notifications that are to be delivered now: outstanding, but not waiting for a later time of a paced clock.
    pub fn delivering(&self) -> usize {
        self.world.delivery.due(self.world.clock.now())
    }

    /// When the next notification goes out that waits for a later time of a paced clock.
    pub fn next_delivery(&self) -> Option<Timestamp> {
        self.world.delivery.next()
    }

    /// Waits until nothing is outstanding; false if `limit` passes first.
    pub async fn until_delivered(&self, limit: Duration) -> bool {
        let mut left = self.world.delivery.watch();
        tokio::time::timeout(limit, left.wait_for(|left| *left == 0)).await.is_ok_and(|result| result.is_ok())
    }

    // Faults.

    /// Adds a fault.
    pub fn fault(&self, fault: Fault) {
        self.world.faults.add(fault, self.world.clock.now());
    }

    /// The next `times` Graph requests answer 429 with `Retry-After`.
    pub fn throttle(&self, times: u32, retry_after: Duration) {
        self.fault(Fault::next(times, FaultKind::Throttle { retry_after: Some(retry_after.as_secs_f64()) }));
    }

    /// All Graph requests that `filter` meets answer 429 for a time on the simulator's clock.
    pub fn throttle_for(&self, filter: FaultFilter, lasting: SignedDuration, retry_after: Duration) {
        self.fault(Fault {
            filter,
            fault: FaultKind::Throttle { retry_after: Some(retry_after.as_secs_f64()) },
            times: None,
            for_secs: u64::try_from(lasting.as_secs()).ok(),
        });
    }

    /// Removes all faults and forgets who was told to wait.
    pub fn clear_faults(&self) {
        self.world.faults.clear();
    }

    /// How many requests to Graph have begun to [hang](crate::FaultKind::Hang) so far, those in batches aside.
    pub fn hung(&self) -> usize {
        self.world.faults.hung()
    }

    /// The HTTP PBX.
    pub fn pbx(&self) -> Pbx<'_> {
        Pbx { world: &self.world }
    }

    /// The Asterisk stand-in.
    pub fn ami(&self) -> Ami<'_> {
        Ami { world: &self.world }
    }

    /// A handle for the control API, whose end does not end the simulator.
    pub(crate) fn attached(world: &Arc<World>) -> Self {
        Self {
            world: world.clone(),
            http_addr: world.options.listen,
            ami_addr: world.options.ami_listen,
            _ends_with_us: None,
        }
    }
}

fn client(options: &SimOptions) -> reqwest::Result<reqwest::Client> {
    let mut builder = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .user_agent("narvaro-sim")
        .connect_timeout(Duration::from_secs(10))
        .pool_max_idle_per_host(64);
    if options.accept_any_certificate {
        builder = builder.tls_danger_accept_invalid_certs(true);
    }
    let mut roots = Vec::new();
    for pem in &options.trusted_roots {
        roots.extend(reqwest::Certificate::from_pem_bundle(pem.as_bytes())?);
    }
    if !roots.is_empty() {
        builder = builder.tls_certs_merge(roots);
    }
    builder.build()
}

async fn until_state(mut changed: watch::Receiver<u64>, limit: Duration, holds: impl Fn() -> bool) -> bool {
    tokio::time::timeout(limit, async {
        loop {
            changed.borrow_and_update();
            if holds() {
                return;
            }
            if changed.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    })
    .await
    .is_ok()
}

/// Knobs and state of the HTTP PBX.
#[derive(Clone, Copy)]
pub struct Pbx<'a> {
    world: &'a World,
}

impl Pbx<'_> {
    /// What an extension shows.
    pub fn presence(&self, company: &str, extension: &str) -> PbxPresence {
        self.world.pbx.presence(company, extension)
    }

    /// What all extensions of a company show.
    pub fn all(&self, company: &str) -> HashMap<String, PbxPresence> {
        self.world.pbx.all(company)
    }

    /// How callers must prove who they are.
    pub fn set_auth(&self, company: &str, auth: PbxAuth) {
        self.world.pbx.set_auth(company, auth);
    }

    /// The Standard Webhooks secret that writes must be signed with.
    pub fn set_signing_secret(&self, company: &str, secret: Option<&str>) {
        self.world.pbx.set_signing_secret(company, secret.map(str::to_owned));
    }

    /// Faults the next `times` writes, after the faults already there.
    pub fn fault(&self, company: &str, times: u32, fault: PbxFault) {
        self.world.pbx.add_fault(company, fault, times);
    }

    /// Removes all faults of a company.
    pub fn clear_faults(&self, company: &str) {
        self.world.pbx.clear_faults(company);
    }

    /// Ends all tokens that the PBX issued.
    pub fn revoke_tokens(&self, company: &str) {
        self.world.pbx.revoke_tokens(company);
    }

    /// Sets a profile by hand.
    pub fn set_by_hand(&self, company: &str, extension: &str, presence: PbxPresence) {
        self.world.pbx.set_by_hand(self.world, company, extension, presence);
    }

    /// Forgets what all extensions show, as a PBX that restarts empty.
    pub fn wipe(&self, company: &str) {
        self.world.pbx.wipe(company);
    }

    /// Waits until an extension satisfies `wanted`; false if `limit` passes first.
    pub async fn until(
        &self,
        company: &str,
        extension: &str,
        limit: Duration,
        wanted: impl Fn(&PbxPresence) -> bool,
    ) -> bool {
        until_state(self.world.pbx.watch(), limit, || wanted(&self.presence(company, extension))).await
    }
}

/// Knobs and state of the Asterisk stand-in.
#[derive(Clone, Copy)]
pub struct Ami<'a> {
    world: &'a World,
}

impl Ami<'_> {
    /// What `CustomPresence:<extension>` is.
    pub fn presence(&self, extension: &str) -> AmiPresence {
        self.world.ami.presence(extension)
    }

    /// All custom presences.
    pub fn all(&self) -> BTreeMap<String, AmiPresence> {
        self.world.ami.all()
    }

    /// A custom device state, by its full name (`Custom:…`).
    pub fn device(&self, name: &str) -> Option<String> {
        self.world.ami.device(name)
    }

    /// An entry of the AstDB.
    pub fn db(&self, family: &str, key: &str) -> Option<String> {
        self.world.ami.db(family, key)
    }

    /// Sets or removes an entry of the AstDB by hand.
    pub fn set_db(&self, family: &str, key: &str, value: Option<&str>) {
        self.world.ami.set_db(self.world, family, key, value, true);
    }

    /// Sets a presence by hand; sessions see the event.
    pub fn set_by_hand(&self, extension: &str, state: &str, subtype: &str, message: &str) {
        let presence =
            AmiPresence { state: state.to_owned(), subtype: subtype.to_owned(), message: message.to_owned() };
        self.world.ami.set_presence(self.world, extension, presence, true);
    }

    /// Sets a device state by hand.
    pub fn set_device_by_hand(&self, name: &str, state: &str) {
        self.world.ami.set_device(self.world, name, state, true);
    }

    /// Adds an account, or replaces the one of the same name.
    pub fn add_account(&self, account: AmiAccount) {
        self.world.ami.add_account(account);
    }

    /// Turns knobs; answers how they stand.
    pub fn turn(&self, turn: impl FnOnce(&mut AmiKnobs)) -> AmiKnobs {
        self.world.ami.turn(turn)
    }

    /// Ends all sessions with `Event: Shutdown`; `wipe` forgets all state.
    pub fn restart(&self, wipe: bool) {
        self.world.ami.restart(self.world, wipe);
    }

    /// Ends all sessions without a word.
    pub fn cut(&self) {
        self.world.ami.cut();
    }

    /// Sessions that are logged in.
    pub fn sessions(&self) -> usize {
        self.world.ami.sessions()
    }

    /// Waits until an extension's presence satisfies `wanted`; false if `limit` passes first.
    pub async fn until(
        &self,
        extension: &str,
        limit: Duration,
        wanted: impl Fn(&AmiPresence) -> bool,
    ) -> bool {
        until_state(self.world.ami.watch(), limit, || wanted(&self.presence(extension))).await
    }

    /// Waits until so many sessions are logged in; false if `limit` passes first.
    pub async fn until_sessions(&self, count: usize, limit: Duration) -> bool {
        until_state(self.world.ami.watch(), limit, || self.sessions() == count).await
    }
}
