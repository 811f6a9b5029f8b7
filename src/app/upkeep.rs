//! Upkeep of each tenant's subscriptions, every night and after each start: what Microsoft 365 has is held against what
//! the mailboxes believe.
//!
//! - What a mailbox believes it has and Microsoft 365 has not is marked as removed, and its turn makes it anew.
//! - What reports to our address and no mailbox keeps is an orphan, and is ended: it was left behind by a crash, by a
//!   user who was taken out while Microsoft 365 was away, or by a mailbox that became another's. Nobody else's is touched.
//!
//! An orphan is judged twice, some minutes apart: a subscription is made before the turn that made it has settled.
//! Where one mailbox's state cannot be read, nothing is judged an orphan.
//!
//! Lists are what Microsoft 365 allows least of: each tenant has its own moment of the night, one tenant is read at a
//! time, and pages are asked for slowly. A night that fails is made up for the next; one that a restart went over, soon
//! after it. Of several processes one does it, and whoever takes over from it does as after a start.

use std::{
    collections::{HashMap, HashSet},
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{membership::Membership, offices::Offices};
use crate::{
    chain::Chain,
    clock::SharedClock,
    model::{CompanyId, Disposition, MailboxId, SubscriptionId, TenantId},
    queue::{Duty, Mark, Reason, StoreError},
    store::Store,
    subscription::{ListedWatch, WatchError, WatchKeeper},
    turn::state::{MailboxState, WatchKept},
};

/// When the night begins, by the clocks of the tenant's company, and how long it lasts.
const NIGHT: (SignedDuration, SignedDuration) =
    (SignedDuration::from_mins(30), SignedDuration::from_hours(5));

/// How long after a start the first comparison may come, and over how long those of all tenants are spread: no sooner
/// than subscriptions have been set up.
const AFTER_START: (SignedDuration, SignedDuration) =
    (SignedDuration::from_mins(30), SignedDuration::from_hours(1));

/// How often it is looked who has become a tenant.
const LOOK_EVERY: SignedDuration = SignedDuration::from_mins(15);

/// Between two pages: 7 in the 20 seconds in which Microsoft 365 allows 25 to a tenant and 40 in all, so that turns have
/// the rest.
const PAGE_EVERY: SignedDuration = SignedDuration::from_secs(3);

/// Between seeing a subscription that nobody keeps and ending it: longer than a turn takes to settle what it made.
const JUDGE_AFTER: SignedDuration = SignedDuration::from_mins(10);

/// Between a failure that may pass and the next try.
const TRY_AGAIN: SignedDuration = SignedDuration::from_mins(30);

/// Between two looks at what is missing, and so between two mailboxes that make theirs anew: 200 in 20 seconds, where
/// Microsoft 365 allows 500 of either to a tenant.
const LOOK_AT_ONE_EVERY: SignedDuration = SignedDuration::from_millis(100);

/// Why a night came to nothing.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("the subscriptions of the tenant cannot be compared")]
    Watches(#[source] WatchError),
    #[error("what mailboxes believe cannot be read")]
    Store(#[source] StoreError),
}

impl Failure {
    /// Whether it may pass within the night.
    fn passes(&self) -> bool {
        match self {
            Self::Watches(WatchError::Read(error)) => {
                matches!(error.disposition(), Disposition::Retry { .. })
            }
            Self::Watches(_) => false,
            Self::Store(_) => true,
        }
    }
}

/// What is to be done for a tenant next.
enum Task {
    Compare,
    Judge(Vec<SubscriptionId>),
}

struct Planned {
    task: Task,
    at: Timestamp,
}

struct Tenant {
    id: TenantId,
    zone: TimeZone,
    watches: Arc<dyn WatchKeeper>,
}

/// A mailbox's belief in its subscription.
struct Belief {
    mailbox: MailboxId,
    watch: WatchKept,
    /// Whether its company has this tenant, as far as is known.
    is_of_tenant: bool,
}

/// What all mailboxes believe that may have a subscription in one tenant.
struct Beliefs {
    kept: Vec<Belief>,
    /// Whether all of them could be read.
    complete: bool,
}

impl Beliefs {
    fn ids(&self) -> HashSet<&SubscriptionId> {
        self.kept.iter().map(|belief| &belief.watch.id).collect()
    }
}

/// Compares, tenant by tenant and night by night.
pub(super) struct Upkeep {
    store: Arc<dyn Store>,
    offices: Arc<Offices>,
    membership: Arc<Membership>,
    clock: SharedClock,
    notification_url: String,
}

impl Upkeep {
    pub(super) fn new(
        store: Arc<dyn Store>,
        offices: Arc<Offices>,
        membership: Arc<Membership>,
        notification_url: String,
    ) -> Self {
        let clock = membership.clock();
        Self { store, offices, membership, clock, notification_url }
    }

    /// Runs until `shutdown`. It may be cut off anywhere: what it has not done is found the next time.
    pub(super) async fn run(self, shutdown: CancellationToken) {
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = self.nights() => {}
        }
    }

    async fn nights(&self) {
        let mut plan: HashMap<TenantId, Planned> = HashMap::new();
        let mut duties = self.membership.changes();
        loop {
            if self.membership.hold(Duty::Upkeep).await.is_none() {
                // Whoever does it may leave halfway: then all of it is planned anew here, as after a start.
                plan.clear();
                duties.changed().await;
                continue;
            }
            let tenants = self.tenants();
            plan.retain(|known, _| tenants.iter().any(|tenant| tenant.id == *known));
            for tenant in &tenants {
                let now = self.clock.now();
                let planned = plan
                    .entry(tenant.id.clone())
                    .or_insert_with(|| Planned { task: Task::Compare, at: tenant.first_time(now) });
                if planned.at <= now && self.membership.hold(Duty::Upkeep).await.is_some() {
                    *planned = self.work(tenant, &planned.task).await;
                }
            }
            let look = self.clock.now() + LOOK_EVERY;
            let next = plan.values().map(|planned| planned.at).fold(look, Timestamp::min);
            tokio::select! {
                () = self.clock.sleep_until(next) => {}
                () = duties.changed() => {}
            }
        }
    }

    /// Tenants that have consented, as far as is known; several companies may have one.
    fn tenants(&self) -> Vec<Tenant> {
        let mut tenants: Vec<Tenant> = Vec::new();
        for open in self.offices.all() {
            let Some(integration) = &open.office.integration else { continue };
            if tenants.iter().all(|tenant| tenant.id != integration.tenant) {
                tenants.push(Tenant {
                    id: integration.tenant.clone(),
                    zone: TimeZone::get(open.company.time_zone()).unwrap_or(TimeZone::UTC),
                    watches: Arc::clone(&integration.watches),
                });
            }
        }
        tenants
    }

    async fn work(&self, tenant: &Tenant, task: &Task) -> Planned {
        let outcome = match task {
            Task::Compare => self.compare(tenant).await,
            Task::Judge(suspects) => self.judge(tenant, suspects).await.map(|()| Vec::new()),
        };
        let now = self.clock.now();
        let name = if outcome.is_ok() { "done" } else { "failed" };
        if matches!(task, Task::Compare) {
            metrics::counter!("narvaro_subscription_compares_total", "outcome" => name).increment(1);
        }
        match outcome {
            Ok(suspects) if suspects.is_empty() => {
                Planned { task: Task::Compare, at: tenant.next_night(now) }
            }
            Ok(suspects) => Planned { task: Task::Judge(suspects), at: now + JUDGE_AFTER },
            Err(error) => {
                warn!(tenant.id = %tenant.id, error = %Chain(&error), "Subscriptions could not be compared");
                let at = if error.passes() { now + TRY_AGAIN } else { tenant.next_night(now) };
                Planned { task: Task::Compare, at }
            }
        }
    }

    /// Marks mailboxes whose subscription is missing; returns those that report to us and nobody keeps.
    async fn compare(&self, tenant: &Tenant) -> Result<Vec<SubscriptionId>, Failure> {
        // In this order: what is made meanwhile is in the list or not believed yet, and so never missing.
        let believed = self.beliefs(tenant).await?;
        let listed = self.list(tenant).await?;
        self.mark_missing(tenant, &believed, &listed).await?;
        let kept = believed.ids();
        let ours = listed.into_iter().filter(|watch| watch.reports_to == self.notification_url);
        Ok(ours.map(|watch| watch.id).filter(|id| !kept.contains(id)).collect())
    }

    async fn list(&self, tenant: &Tenant) -> Result<Vec<ListedWatch>, Failure> {
        let mut page = tenant.watches.list(None).await.map_err(Failure::Watches)?;
        let mut listed = page.watches;
        while let Some(next) = page.next {
            self.clock.sleep_until(self.clock.now() + PAGE_EVERY).await;
            page = tenant.watches.list(Some(&next)).await.map_err(Failure::Watches)?;
            listed.extend(page.watches);
        }
        Ok(listed)
    }

    /// Each is marked as it is found: what fails later takes nothing of it back.
    async fn mark_missing(
        &self,
        tenant: &Tenant,
        believed: &Beliefs,
        listed: &[ListedWatch],
    ) -> Result<(), Failure> {
        let listed: HashSet<&SubscriptionId> = listed.iter().map(|watch| &watch.id).collect();
        let is_unlisted = |belief: &&Belief| belief.is_of_tenant && !listed.contains(&belief.watch.id);
        let unlisted: Vec<&Belief> = believed.kept.iter().filter(is_unlisted).collect();
        for (n, Belief { mailbox, watch, .. }) in unlisted.into_iter().enumerate() {
            if n > 0 {
                self.clock.sleep_until(self.clock.now() + LOOK_AT_ONE_EVERY).await;
            }
            let now = self.clock.now();
            if watch.expires <= now {
                continue;
            }
            // A list whose pages move while it is read may lack what is there.
            if tenant.watches.look(&watch.id).await.map_err(Failure::Watches)?.is_none() {
                let missing = Mark::of_watch(*mailbox, now, Reason::Removed, watch.generation);
                self.store.mark(vec![missing]).await.map_err(Failure::Store)?;
                warn!(tenant.id = %tenant.id, "The subscription of mailbox {mailbox} was missing and is made anew");
                metrics::counter!("narvaro_subscriptions_total", "done" => "found_missing").increment(1);
            }
        }
        Ok(())
    }

    /// Ends those of `suspects` that still nobody keeps.
    async fn judge(&self, tenant: &Tenant, suspects: &[SubscriptionId]) -> Result<(), Failure> {
        let believed = self.beliefs(tenant).await?;
        if !believed.complete {
            warn!(tenant.id = %tenant.id, "What some mailboxes believe cannot be read: no subscription is ended");
            return Ok(());
        }
        let kept = believed.ids();
        for orphan in suspects.iter().filter(|id| !kept.contains(id)) {
            tenant.watches.remove(orphan).await.map_err(Failure::Watches)?;
            info!(tenant.id = %tenant.id, "A subscription that nobody keeps was ended");
            metrics::counter!("narvaro_subscriptions_total", "done" => "orphan_removed").increment(1);
        }
        Ok(())
    }

    /// What the mailboxes believe that may have subscriptions in this tenant: those of its companies, and of companies of
    /// which the tenant is not known.
    async fn beliefs(&self, tenant: &Tenant) -> Result<Beliefs, Failure> {
        let all = self.offices.all();
        let tenant_of: HashMap<&CompanyId, &TenantId> =
            all.iter().filter_map(|open| Some((open.company.id(), open.tenant()?))).collect();
        let mut beliefs = Beliefs { kept: Vec::new(), complete: true };
        for mailbox in self.store.mailboxes().await.map_err(Failure::Store)? {
            let known = tenant_of.get(&mailbox.company);
            let is_of_tenant = known.is_some_and(|known| **known == tenant.id);
            if known.is_some() && !is_of_tenant {
                continue;
            }
            let document = self.store.look(mailbox.id).await.map_err(Failure::Store)?;
            match MailboxState::read(&document.unwrap_or_default()) {
                // A subscription may be among what could not be read.
                Ok(state) if state.unread.is_empty() => {
                    let belief = |watch| Belief { mailbox: mailbox.id, watch, is_of_tenant };
                    beliefs.kept.extend(state.watch.map(belief));
                }
                Ok(_) | Err(_) => beliefs.complete = false,
            }
        }
        Ok(beliefs)
    }
}

impl Tenant {
    /// The tenant's own share of whatever is spread over all tenants, from 0 to below 1.
    fn share(&self) -> f64 {
        let mut hasher = DefaultHasher::new();
        self.id.as_str().hash(&mut hasher);
        (hasher.finish() % 10_000) as f64 / 10_000.0
    }

    /// When it is compared first after a start, or after it has consented: a restart may have gone over its night.
    fn first_time(&self, now: Timestamp) -> Timestamp {
        let (waits, lasts) = AFTER_START;
        now + waits + SignedDuration::from_secs_f64(lasts.as_secs_f64() * self.share())
    }

    /// The tenant's own moment of the next night.
    fn next_night(&self, now: Timestamp) -> Timestamp {
        let (begins, lasts) = NIGHT;
        let into = begins + SignedDuration::from_secs_f64(lasts.as_secs_f64() * self.share());
        let today = now.to_zoned(self.zone.clone());
        let days = [Ok(today.clone()), today.tomorrow()].into_iter().flatten();
        let nights = days.filter_map(|day| Some(day.start_of_day().ok()?.timestamp() + into));
        nights.into_iter().find(|night| *night > now).unwrap_or(now + SignedDuration::from_hours(24))
    }
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;

    use super::*;
    use crate::{
        calendar::MailboxRef,
        subscription::{Watch, WatchPage, WatchRequest},
    };

    /// No night of these tests gets as far as asking.
    struct Nobody;

    #[async_trait]
    impl WatchKeeper for Nobody {
        async fn create(&self, _: &WatchRequest) -> Result<Watch, WatchError> {
            Err(WatchError::Gone)
        }
        async fn renew(&self, _: &SubscriptionId, _: Timestamp) -> Result<Watch, WatchError> {
            Err(WatchError::Gone)
        }
        async fn remove(&self, _: &SubscriptionId) -> Result<(), WatchError> {
            Err(WatchError::Gone)
        }
        async fn look(&self, _: &SubscriptionId) -> Result<Option<ListedWatch>, WatchError> {
            Err(WatchError::Gone)
        }
        async fn find(&self, _: &MailboxRef) -> Result<Vec<ListedWatch>, WatchError> {
            Err(WatchError::Gone)
        }
        async fn list(&self, _: Option<&str>) -> Result<WatchPage, WatchError> {
            Err(WatchError::Gone)
        }
    }

    fn tenant(n: u32) -> Tenant {
        Tenant {
            id: format!("{n:08}-0000-0000-0000-000000000000").parse().unwrap(),
            zone: TimeZone::get("Europe/Stockholm").unwrap(),
            watches: Arc::new(Nobody),
        }
    }

    #[test]
    fn each_tenant_has_its_moment_once_a_night_and_they_are_spread() {
        let monday: Timestamp = "2026-10-19T12:00:00Z".parse().unwrap();
        let mut starts = Vec::new();
        for n in 0..500 {
            let tenant = tenant(n);
            let mut now = monday;
            // Over the end of summer time.
            for _ in 0..14 {
                let night = tenant.next_night(now);
                assert!(night > now && night.duration_since(now) <= SignedDuration::from_hours(25));
                let local = night.to_zoned(tenant.zone.clone());
                assert!((0..6).contains(&local.hour()), "{local}");
                now = night;
            }
            starts.push(tenant.next_night(monday));
        }
        starts.sort();
        // 500 in 5 hours: 36 s apart on average.
        let most = starts.windows(20).map(|some| some[19].duration_since(some[0])).min().unwrap();
        assert!(most > SignedDuration::from_mins(1), "20 tenants within {most}");
    }
}
