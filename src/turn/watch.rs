//! The subscription part of a turn: set up before the first read, so that nothing falls between; renewed at half life.

use jiff::Timestamp;
use tracing::{info, warn};

use super::{
    Turn,
    roster::Integration,
    state::{Trouble, WatchKept},
};
use crate::{
    chain::Chain,
    health::Health,
    model::Disposition,
    queue::Reason,
    subscription::{Watch, WatchError, WatchRequest},
    webhook::client_state::{Claim, Resource},
};

impl Turn<'_> {
    /// When the subscription wants something next.
    pub(super) fn watch_due_at(&self) -> Timestamp {
        match (&self.state.watch_trouble, &self.state.watch) {
            (Some(trouble), _) => trouble.retry_at,
            (None, Some(watch)) => watch.renew_at,
            // Long since.
            (None, None) => Timestamp::UNIX_EPOCH,
        }
    }

    /// Creates, renews or replaces the subscription if it is time to.
    pub(super) async fn tend_watch(&mut self) {
        let (Some(integration), Some(_)) = (self.seat.office.integration.clone(), &self.state.resolved)
        else {
            return;
        };
        let now = self.now();
        // Dealt with here once; that a complete read is owed stays until there was one.
        if self.state.owed.reasons.remove(Reason::Removed) {
            self.state.owed.reasons.insert(Reason::Missed);
            if self.state.watch.take().is_some() {
                info!("The subscription of mailbox {} was removed by the server", self.lease.mailbox);
            }
        }
        let owed = self.state.owed.reasons;
        // What was asked for and failed waits like any other; asked for again, it is tried at once.
        let rests = Trouble::rests(self.state.watch_trouble.as_ref(), now);
        let asked = if rests { self.now_asked } else { owed }.any(&[Reason::RenewAsked, Reason::Reauthorize]);
        if !asked && self.watch_due_at() > now {
            return;
        }
        let outcome = match self.state.watch.clone() {
            Some(watch) if watch.key != self.turns.settings.watches.keys.current_name() => {
                self.replace(&integration, watch).await
            }
            Some(watch) => self.renew(&integration, watch).await,
            None => self.create(&integration).await,
        };
        match outcome {
            Ok(()) => {
                if self.state.watch_trouble.take().is_some() {
                    info!("The subscription of mailbox {} stands again", self.lease.mailbox);
                }
            }
            Err(error) => self.watch_failed(&error),
        }
    }

    async fn renew(&mut self, integration: &Integration, watch: WatchKept) -> Result<(), WatchError> {
        let until = self.turns.settings.watches.until(self.now());
        match integration.watches.renew(&watch.id, until).await {
            Ok(renewed) => {
                self.keep_watch(renewed, watch.generation);
                metrics::counter!("narvaro_subscriptions_total", "done" => "renewed").increment(1);
                Ok(())
            }
            Err(WatchError::Gone) => {
                warn!("The subscription of mailbox {} was gone and is created anew", self.lease.mailbox);
                self.state.watch = None;
                // What was announced meanwhile went nowhere.
                self.state.owed.reasons.insert(Reason::Missed);
                self.create(integration).await
            }
            Err(error) => Err(error),
        }
    }

    /// A renewal leaves the `clientState` as it is, so that under a changed key the subscription is made anew.
    async fn replace(&mut self, integration: &Integration, watch: WatchKept) -> Result<(), WatchError> {
        integration.watches.remove(&watch.id).await?;
        info!("The subscription of mailbox {} is made anew under the new key", self.lease.mailbox);
        self.state.watch = None;
        // What changes in between goes nowhere.
        self.state.owed.reasons.insert(Reason::Missed);
        self.create(integration).await
    }

    async fn create(&mut self, integration: &Integration) -> Result<(), WatchError> {
        let request = self.request(integration);
        let created = match integration.watches.create(&request).await {
            Err(WatchError::Exists) => {
                self.remove_ours(integration, &request).await?;
                integration.watches.create(&request).await
            }
            outcome => outcome,
        }?;
        let generation = self.state.watch_generation;
        self.keep_watch(created, generation);
        metrics::counter!("narvaro_subscriptions_total", "done" => "created").increment(1);
        info!("The calendar of mailbox {} is watched", self.lease.mailbox);
        Ok(())
    }

    /// A subscription that stands in the way is ours if it reports to our address; its `clientState` is not known
    /// any more, so it cannot be kept.
    async fn remove_ours(&self, integration: &Integration, request: &WatchRequest) -> Result<(), WatchError> {
        for (watch, reports_to) in integration.watches.find(&request.mailbox).await? {
            if reports_to == request.notification_url {
                integration.watches.remove(&watch.id).await?;
                metrics::counter!("narvaro_subscriptions_total", "done" => "replaced").increment(1);
            }
        }
        Ok(())
    }

    fn request(&mut self, integration: &Integration) -> WatchRequest {
        self.state.watch_generation = self.state.watch_generation.wrapping_add(1);
        let plan = &self.turns.settings.watches;
        let claim = Claim {
            company: self.seat.office.company.clone(),
            mailbox: self.lease.mailbox,
            resource: Resource::Events,
            generation: self.state.watch_generation,
        };
        WatchRequest {
            mailbox: self.mailbox_ref(),
            notification_url: plan.notification_url.clone(),
            lifecycle_url: plan.lifecycle_url.clone(),
            client_state: plan.keys.seal(&claim, &integration.tenant),
            until: plan.until(self.now()),
        }
    }

    fn mailbox_ref(&self) -> crate::calendar::MailboxRef {
        let object =
            self.state.resolved.as_ref().map(|found| found.mailbox.object.clone()).unwrap_or_default();
        crate::calendar::MailboxRef { object }
    }

    fn keep_watch(&mut self, watch: Watch, generation: u32) {
        let now = self.now();
        let share = super::retry::spread(self.lease.mailbox, watch.id.as_str());
        let renew_at = self.turns.settings.watches.renew_at(now, watch.expires, share);
        let key = self.turns.settings.watches.keys.current_name().to_owned();
        self.state.watches_kept += 1;
        self.state.watch =
            Some(WatchKept { id: watch.id, expires: watch.expires, renew_at, generation, key });
    }

    fn watch_failed(&mut self, error: &WatchError) {
        let now = self.now();
        let health = Health::of_watch(error, self.state.proven_until.is_some());
        let disposition = match error {
            WatchError::Read(error) => error.disposition(),
            WatchError::Quota => Disposition::Park,
            _ => Disposition::Retry { after: None },
        };
        let trouble = Trouble::again(
            &self.turns.settings.retry,
            self.state.watch_trouble.as_ref(),
            health,
            disposition,
            self.lease.mailbox,
            now,
        );
        let retry_in_s = trouble.retry_at.duration_since(now).as_secs();
        warn!(error = %Chain(error), retry_in_s, "The subscription of mailbox {} failed, will retry", self.lease.mailbox);
        metrics::counter!("narvaro_subscriptions_failed_total").increment(1);
        self.state.watch_trouble = Some(trouble);
    }

    /// Ends the subscription; `false` where it has to be tried again.
    pub(super) async fn end_watch(&mut self) -> bool {
        let (Some(integration), Some(watch)) = (&self.seat.office.integration, &self.state.watch) else {
            return true;
        };
        if watch.expires <= self.now() {
            return true;
        }
        match integration.watches.remove(&watch.id).await {
            Ok(()) => {
                metrics::counter!("narvaro_subscriptions_total", "done" => "removed").increment(1);
                self.state.watch = None;
                true
            }
            Err(error) => {
                self.watch_failed(&error);
                false
            }
        }
    }
}
