//! Delivery of notifications: batches, time-outs, retries with backoff, and the knobs that
//! lose, double, delay, reorder, hold and cut them.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use jiff::{SignedDuration, Timestamp};
use rand::Rng;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::{Notify, Semaphore, mpsc, watch};

use crate::{
    calendar::{Change, ChangeType, change_key},
    clock::wire,
    error::SimError,
    events,
    journal::{DeliveryAttempt, DeliveryOutcome, Record, millis},
    lock, rich,
    subscriptions::{Subscription, Watched, chain},
    world::{User, World},
};

/// Knobs of notification delivery.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct DeliveryKnobs {
    /// Fraction of notifications that are lost for good.
    pub drop: f64,
    /// Fraction that is sent twice.
    pub duplicate: f64,
    /// Least delay before the first attempt.
    pub delay_min_ms: u64,
    /// Greatest delay before the first attempt.
    pub delay_max_ms: u64,
    /// Fraction that is held back by `reorder_by_ms`, so that later ones overtake it.
    pub reorder: f64,
    /// How long those are held back.
    pub reorder_by_ms: u64,
    /// How long notifications are collected for one POST; 0 = each has its own.
    pub batch_ms: u64,
    /// Most notifications in one POST.
    pub batch_max: usize,
    /// Nothing is sent; what comes up is sent when this is turned off.
    pub hold: bool,
    /// Every attempt fails as if the network were cut.
    pub cut: bool,
    /// Delay before the first retry; doubles with each.
    pub retry_base_ms: u64,
    /// Simulator time after which a notification is given up.
    pub retry_horizon_secs: u64,
    /// Time-out of the first attempt.
    pub first_timeout_ms: u64,
    /// Time-out of later attempts.
    pub retry_timeout_ms: u64,
    /// Uses all spellings of `resource` and `@odata.type` that Microsoft's samples show.
    pub varied_spellings: bool,
    /// Deliveries wait while the access token captured with the subscription is expired.
    pub token_expiry_pauses: bool,
}

impl Default for DeliveryKnobs {
    fn default() -> Self {
        Self {
            drop: 0.0,
            duplicate: 0.0,
            delay_min_ms: 0,
            delay_max_ms: 0,
            reorder: 0.0,
            reorder_by_ms: 200,
            batch_ms: 0,
            batch_max: 1_000,
            hold: false,
            cut: false,
            retry_base_ms: 1_000,
            retry_horizon_secs: 4 * 3_600,
            first_timeout_ms: 3_000,
            retry_timeout_ms: 10_000,
            varied_spellings: true,
            token_expiry_pauses: false,
        }
    }
}

/// Kinds of lifecycle notifications.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum LifecycleKind {
    /// The subscription or its token is about to expire.
    ReauthorizationRequired,
    /// Graph has removed the subscription; it is removed here, too.
    SubscriptionRemoved,
    /// Some notifications were not delivered.
    Missed,
}

impl LifecycleKind {
    fn as_str(self) -> &'static str {
        match self {
            Self::ReauthorizationRequired => "reauthorizationRequired",
            Self::SubscriptionRemoved => "subscriptionRemoved",
            Self::Missed => "missed",
        }
    }
}

#[derive(Clone)]
struct Pending {
    id: String,
    app: String,
    subscription: String,
    url: String,
    lifecycle: bool,
    item: Value,
    born: Timestamp,
}

/// The state of delivery.
pub(crate) struct Delivery {
    knobs: Mutex<DeliveryKnobs>,
    queue: mpsc::UnboundedSender<Pending>,
    incoming: Mutex<Option<mpsc::UnboundedReceiver<Pending>>>,
    held: Mutex<Vec<Pending>>,
    retry_now: Notify,
    outstanding: watch::Sender<usize>,
    /// When waits on a paced clock end, and how many notifications wait for each.
    waits: Mutex<BTreeMap<Timestamp, usize>>,
    slots: Semaphore,
    health: Mutex<HashMap<String, Health>>,
}

/// Answers of one endpoint in a window of ten minutes.
struct Health {
    since: Timestamp,
    answers: u32,
    slow: u32,
    told: bool,
}

impl Delivery {
    pub(crate) fn new() -> Self {
        let (queue, incoming) = mpsc::unbounded_channel();
        Self {
            knobs: Mutex::default(),
            queue,
            incoming: Mutex::new(Some(incoming)),
            held: Mutex::default(),
            retry_now: Notify::new(),
            outstanding: watch::Sender::new(0),
            waits: Mutex::default(),
            slots: Semaphore::new(128),
            health: Mutex::default(),
        }
    }

    pub(crate) fn knobs(&self) -> DeliveryKnobs {
        lock(&self.knobs).clone()
    }

    pub(crate) fn turn(&self, turn: impl FnOnce(&mut DeliveryKnobs)) -> DeliveryKnobs {
        let mut knobs = lock(&self.knobs);
        turn(&mut knobs);
        let now = knobs.clone();
        drop(knobs);
        if !now.hold {
            let held = std::mem::take(&mut *lock(&self.held));
            for pending in held {
                let _ = self.queue.send(pending);
            }
        }
        now
    }

    pub(crate) fn retry_now(&self) {
        self.retry_now.notify_waiters();
    }

    /// Notifications that are neither delivered nor given up.
    pub(crate) fn outstanding(&self) -> usize {
        *self.outstanding.borrow()
    }

    /// Notifications to be delivered at `now`: those that wait for a later time of a paced clock are left out.
    pub(crate) fn due(&self, now: Timestamp) -> usize {
        let outstanding = self.outstanding();
        let waits = lock(&self.waits);
        let later = waits.iter().rev().take_while(|(until, _)| **until > now).map(|(_, count)| count);
        outstanding.saturating_sub(later.sum())
    }

    /// When the next of those that wait for a paced clock is to go out.
    pub(crate) fn next(&self) -> Option<Timestamp> {
        lock(&self.waits).first_key_value().map(|(until, _)| *until)
    }

    pub(crate) fn watch(&self) -> watch::Receiver<usize> {
        self.outstanding.subscribe()
    }

    fn push(&self, pending: Pending) {
        if lock(&self.knobs).hold {
            lock(&self.held).push(pending);
        } else {
            let _ = self.queue.send(pending);
        }
    }

    fn done(&self, count: usize) {
        self.outstanding.send_modify(|left| *left = left.saturating_sub(count));
    }

    /// Counts slow answers per endpoint, as Graph does.
    fn answered(&self, world: &World, url: &str, took: Duration) {
        let endpoint =
            reqwest::Url::parse(url).ok().map(|url| url.origin().ascii_serialization()).unwrap_or_default();
        let now = world.clock.now();
        let mut health = lock(&self.health);
        let one =
            health.entry(endpoint.clone()).or_insert(Health { since: now, answers: 0, slow: 0, told: false });
        if now.duration_since(one.since) > SignedDuration::from_mins(10) {
            *one = Health { since: now, answers: 0, slow: 0, told: false };
        }
        one.answers += 1;
        one.slow += u32::from(took > Duration::from_secs(3));
        if !one.told && one.answers >= 100 && one.slow * 10 > one.answers {
            one.told = true;
            let detail = format!("{endpoint}: {} of {} over 3 s", one.slow, one.answers);
            drop(health);
            world.journal.violation("slow-endpoint", detail);
        }
    }
}

/// A wait before a delivery: in real time, or on a paced clock, where it can be seen what is waited for.
enum Wait {
    Real(Duration),
    Paced { until: Timestamp, count: usize },
}

impl Wait {
    /// Begins to wait with `count` notifications.
    fn begin(world: &World, wait: Duration, count: usize) -> Self {
        if !world.options.paced {
            return Self::Real(wait);
        }
        let until = world.clock.now().checked_add(wait).unwrap_or(Timestamp::MAX);
        *lock(&world.delivery.waits).entry(until).or_default() += count;
        Self::Paced { until, count }
    }

    async fn end(&self, world: &World) {
        match *self {
            Self::Real(wait) => tokio::time::sleep(wait).await,
            Self::Paced { until, .. } => world.clock.sleep_until(until).await,
        }
    }

    /// No longer waits, whether the time has come or not.
    fn over(self, world: &World) {
        let Self::Paced { until, count } = self else { return };
        let mut waits = lock(&world.delivery.waits);
        if let Some(left) = waits.get_mut(&until) {
            *left = left.saturating_sub(count);
            if *left == 0 {
                waits.remove(&until);
            }
        }
    }
}

/// Makes notifications of changes in a mailbox.
pub(crate) fn notify(world: &Arc<World>, user: &User, changes: &[Change]) {
    let now = world.clock.now();
    let subscriptions = lock(&world.subscriptions).of_user(&user.id, now, &world.journal);
    if subscriptions.is_empty() {
        return;
    }
    for change in changes {
        for subscription in &subscriptions {
            if subscription.watched != Watched::Events
                || !subscription.changes.contains(&change.kind)
                || change.only_immutable.is_some_and(|immutable| immutable != subscription.immutable)
            {
                continue;
            }
            let item = change.item.id(user.number, subscription.immutable);
            let etag = change_key(user.number, change.item, change.version);
            let mut pending = event_item(world, user, subscription, change, &item, &etag, now);
            if let Some(data) = subscription.data.as_ref().filter(|_| change.kind != ChangeType::Deleted)
                && let Some(event) = events::sent_along(world, user, subscription, data, change.item)
                && let Some(content) = rich::content(world, data, event)
            {
                pending.item["encryptedContent"] = content;
            }
            world.journal.write(Record::Notified {
                id: pending.id.clone(),
                subscription: subscription.id.clone(),
                mailbox: user.id.clone(),
                change: change.kind.as_str().to_owned(),
                item,
            });
            enqueue(world, pending);
        }
    }
}

fn event_item(
    world: &World,
    user: &User,
    subscription: &Subscription,
    change: &Change,
    item: &str,
    etag: &str,
    now: Timestamp,
) -> Pending {
    let (id, spelling) = {
        let mut rng = lock(&world.rng);
        (format!("{:016X}AAA", rng.random::<u64>()), rng.random_range(0..4))
    };
    let spelling = if lock(&world.delivery.knobs).varied_spellings { spelling } else { 0 };
    let (user_id, tenant) = (&user.id, &subscription.tenant);
    let (resource, kind) = match spelling {
        1 => (format!("Users('{user_id}')/events('{item}')"), "#Microsoft.Graph.Event"),
        2 => (format!("users/{user_id}@{tenant}/events/{item}"), "#microsoft.graph.event"),
        _ => (format!("Users/{user_id}/Events/{item}"), "#Microsoft.Graph.Event"),
    };
    let body = json!({
        "id": id,
        "subscriptionId": subscription.id,
        "subscriptionExpirationDateTime": wire(subscription.expires),
        "clientState": subscription.client_state,
        "changeType": change.kind.as_str(),
        "resource": resource,
        "tenantId": tenant,
        "resourceData": {
            "@odata.type": kind,
            "@odata.id": resource,
            "@odata.etag": format!("W/\"{etag}\""),
            "id": item,
        },
    });
    Pending {
        id,
        app: subscription.app.clone(),
        subscription: subscription.id.clone(),
        url: subscription.url.clone(),
        lifecycle: false,
        item: body,
        born: now,
    }
}

/// Sends a lifecycle notification for a subscription.
pub(crate) fn lifecycle(world: &Arc<World>, id: &str, kind: LifecycleKind) -> Result<(), SimError> {
    let now = world.clock.now();
    let mut table = lock(&world.subscriptions);
    let subscription = table
        .get(id, now, &world.journal)
        .cloned()
        .ok_or_else(|| SimError::not_found(format!("subscription `{id}`")))?;
    if kind == LifecycleKind::SubscriptionRemoved {
        table.end(id, &world.journal, "removed by Graph");
    }
    drop(table);
    let url = subscription
        .lifecycle_url
        .clone()
        .ok_or_else(|| SimError::invalid("the subscription has no lifecycleNotificationUrl"))?;
    let notification = format!("{:016X}AAL", lock(&world.rng).random::<u64>());
    world.journal.write(Record::Notified {
        id: notification.clone(),
        subscription: subscription.id.clone(),
        mailbox: subscription.user.clone(),
        change: kind.as_str().to_owned(),
        item: String::new(),
    });
    enqueue(
        world,
        Pending {
            id: notification,
            app: subscription.app.clone(),
            subscription: subscription.id.clone(),
            url,
            lifecycle: true,
            item: json!({
                "subscriptionId": subscription.id,
                "subscriptionExpirationDateTime": wire(subscription.expires),
                "tenantId": subscription.tenant,
                "clientState": subscription.client_state,
                "lifecycleEvent": kind.as_str(),
            }),
            born: now,
        },
    );
    Ok(())
}

fn enqueue(world: &Arc<World>, pending: Pending) {
    let knobs = world.delivery.knobs();
    let (lost, double) = {
        let mut rng = lock(&world.rng);
        let mut happens = |fraction: f64| fraction > 0.0 && rng.random_bool(fraction.clamp(0.0, 1.0));
        (!pending.lifecycle && happens(knobs.drop), happens(knobs.duplicate))
    };
    if lost {
        world.journal.write(Record::Lost {
            id: pending.id,
            subscription: pending.subscription,
            reason: "dropped",
        });
        return;
    }
    let copies = if double { vec![pending.clone(), pending] } else { vec![pending] };
    for pending in copies {
        world.delivery.outstanding.send_modify(|count| *count += 1);
        let delay = {
            let mut rng = lock(&world.rng);
            let mut delay = knobs.delay_min_ms;
            if knobs.delay_max_ms > knobs.delay_min_ms {
                delay = rng.random_range(knobs.delay_min_ms..=knobs.delay_max_ms);
            }
            if knobs.reorder > 0.0 && rng.random_bool(knobs.reorder.clamp(0.0, 1.0)) {
                delay += knobs.reorder_by_ms;
            }
            delay
        };
        if delay == 0 {
            world.delivery.push(pending);
            continue;
        }
        let later = world.clone();
        let wait = Wait::begin(world, Duration::from_millis(delay), 1);
        world.tasks.spawn(async move {
            tokio::select! {
                () = later.stop.cancelled() => {}
                () = wait.end(&later) => {
                    wait.over(&later);
                    later.delivery.push(pending);
                }
            }
        });
    }
}

/// Puts notifications together and sends them off, until the world stops.
pub(crate) async fn run(world: Arc<World>) {
    let Some(mut incoming) = lock(&world.delivery.incoming).take() else {
        return;
    };
    loop {
        let first = tokio::select! {
            () = world.stop.cancelled() => return,
            first = incoming.recv() => match first {
                Some(first) => first,
                None => return,
            },
        };
        let knobs = world.delivery.knobs();
        let mut batch = vec![first];
        if knobs.batch_ms > 0 {
            let until = tokio::time::sleep(Duration::from_millis(knobs.batch_ms));
            tokio::pin!(until);
            while batch.len() < knobs.batch_max.max(1) {
                tokio::select! {
                    () = world.stop.cancelled() => return,
                    () = &mut until => break,
                    next = incoming.recv() => match next {
                        Some(next) => batch.push(next),
                        None => break,
                    },
                }
            }
        }
        let mut by_url: HashMap<String, Vec<Pending>> = HashMap::new();
        for pending in batch {
            by_url.entry(pending.url.clone()).or_default().push(pending);
        }
        for (url, batch) in by_url {
            let sender = world.clone();
            world.tasks.spawn(async move {
                let stop = sender.stop.clone();
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = send(&sender, &url, batch) => {}
                }
            });
        }
    }
}

/// Sends one POST until it is delivered or given up.
async fn send(world: &World, url: &str, mut batch: Vec<Pending>) {
    let delivery = &world.delivery;
    let mut attempt = 0_u32;
    while let Some(first) = batch.first() {
        let born = first.born;
        drop_gone(world, &mut batch);
        if batch.is_empty() {
            return;
        }
        attempt += 1;
        let knobs = delivery.knobs();
        let paused = knobs.token_expiry_pauses && token_expired(world, &batch);
        let started = Instant::now();
        let (status, problem) = if knobs.cut {
            (None, Some("network cut".to_owned()))
        } else if paused {
            (None, Some("access token expired".to_owned()))
        } else {
            let Ok(_slot) = delivery.slots.acquire().await else {
                return;
            };
            let limit = Duration::from_millis(if attempt == 1 {
                knobs.first_timeout_ms
            } else {
                knobs.retry_timeout_ms
            });
            post(world, url, &batch, limit).await
        };
        if status.is_some() || problem.as_deref() == Some("timed out") {
            delivery.answered(world, url, started.elapsed());
        }
        let age = world.clock.now().duration_since(born).as_secs();
        let given_up = age >= i64::try_from(knobs.retry_horizon_secs).unwrap_or(i64::MAX);
        let outcome = match status {
            Some(200..=299) => DeliveryOutcome::Delivered,
            _ if given_up => DeliveryOutcome::Discarded,
            _ => DeliveryOutcome::Retry,
        };
        world.journal.write(Record::Delivery(DeliveryAttempt {
            url: url.to_owned(),
            notifications: batch.iter().map(|one| one.id.clone()).collect(),
            subscriptions: batch.iter().map(|one| one.subscription.clone()).collect(),
            attempt,
            status,
            error: problem,
            outcome,
            lifecycle: first_is_lifecycle(&batch),
            took_ms: millis(started),
        }));
        if outcome != DeliveryOutcome::Retry {
            delivery.done(batch.len());
            return;
        }
        let wait = knobs.retry_base_ms.max(1).saturating_mul(1 << (attempt - 1).min(12));
        let wait = Wait::begin(world, Duration::from_millis(wait.min(15 * 60 * 1_000)), batch.len());
        tokio::select! {
            () = wait.end(world) => {}
            () = delivery.retry_now.notified() => {}
        }
        wait.over(world);
    }
}

fn first_is_lifecycle(batch: &[Pending]) -> bool {
    batch.first().is_some_and(|one| one.lifecycle)
}

fn drop_gone(world: &World, batch: &mut Vec<Pending>) {
    let now = world.clock.now();
    let mut table = lock(&world.subscriptions);
    let gone: HashSet<String> = batch
        .iter()
        .filter(|one| !one.lifecycle)
        .filter(|one| table.get(&one.subscription, now, &world.journal).is_none())
        .map(|one| one.id.clone())
        .collect();
    drop(table);
    if gone.is_empty() {
        return;
    }
    batch.retain(|one| {
        let keep = !gone.contains(&one.id);
        if !keep {
            world.journal.write(Record::Lost {
                id: one.id.clone(),
                subscription: one.subscription.clone(),
                reason: "subscription gone",
            });
            world.delivery.done(1);
        }
        keep
    });
}

fn token_expired(world: &World, batch: &[Pending]) -> bool {
    let now = world.clock.now();
    let mut table = lock(&world.subscriptions);
    batch
        .iter()
        .filter(|one| !one.lifecycle)
        .filter_map(|one| table.get(&one.subscription, now, &world.journal).cloned())
        .any(|one| one.token_until <= now)
}

async fn post(world: &World, url: &str, batch: &[Pending], limit: Duration) -> (Option<u16>, Option<String>) {
    let items = batch.iter().map(|one| (one.app.as_str(), one.item.clone())).collect();
    let answer = world.http.post(url).timeout(limit).json(&rich::delivery(world, url, items)).send().await;
    match answer {
        Ok(answer) => {
            let status = answer.status().as_u16();
            // Read the rest, so that the connection can be used again.
            let _ = answer.bytes().await;
            (Some(status), None)
        }
        Err(error) if error.is_timeout() => (None, Some("timed out".to_owned())),
        Err(error) => (None, Some(chain(&error))),
    }
}
