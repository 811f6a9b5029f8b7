//! The subscription part of a turn: set up before the first read, so that nothing falls between; renewed at half life.
//!
//! Whoever made a mark could not know which of the mailbox's subscriptions lives (I2); here it is known. A notification
//! for a subscription that has been replaced is still a hint that something changed; that it was removed, or wants to
//! be confirmed, says nothing of the one that lives.
//!
//! A confirmation is a renewal: `/reauthorize` is never called, since both within ten minutes leave the subscription in
//! an undefined state.

mod alias;

use jiff::{SignedDuration, Timestamp};
use tracing::{info, warn};

use super::{
    Turn,
    read::DO_NOT_WAIT,
    roster::Integration,
    state::{Trouble, WatchKept},
};
use crate::{
    chain::Chain,
    health::Health,
    model::{Disposition, SubscriptionId},
    queue::Reason,
    subscription::{Watch, WatchError, WatchRequest},
    webhook::client_state::{Claim, Resource},
};

/// A subscription that was made or renewed is confirmed no sooner than this: requests to confirm come in numbers, and
/// late.
const CONFIRMED_FOR: SignedDuration = SignedDuration::from_mins(10);

impl WatchKept {
    /// When it wants something next.
    fn due_at(&self) -> Timestamp {
        if !self.unconfirmed {
            return self.renew_at;
        }
        let confirm_at = self.renewed_at.map_or(Timestamp::UNIX_EPOCH, |renewed| renewed + CONFIRMED_FOR);
        confirm_at.min(self.renew_at)
    }
}

impl Turn<'_> {
    /// When the subscription wants something next.
    pub(super) fn watch_due_at(&self) -> Timestamp {
        match (&self.state.watch_trouble, &self.state.watch) {
            (Some(trouble), _) => trouble.retry_at,
            (None, Some(watch)) if watch.rich != self.sent_along() => Timestamp::UNIX_EPOCH,
            (None, Some(watch)) => watch.due_at(),
            // Long since.
            (None, None) => Timestamp::UNIX_EPOCH,
        }
    }

    /// Whether the company has events sent along with notifications.
    fn sent_along(&self) -> bool {
        self.seat.office.integration.as_ref().is_some_and(|integration| integration.brought.is_some())
    }

    /// Creates, renews or replaces the subscription if it is time to.
    pub(super) async fn tend_watch(&mut self) {
        let (Some(integration), Some(_)) = (self.seat.office.integration.clone(), &self.state.resolved)
        else {
            return;
        };
        let now = self.now();
        self.hear_what_was_said(now);
        // What was asked for and failed waits like any other; asked for again, it is tried at once.
        let rests = Trouble::rests(self.state.watch_trouble.as_ref(), now);
        let asked = if rests { self.now_asked } else { self.state.owed.reasons };
        let due = asked.contains(Reason::RenewAsked) || self.watch_due_at() <= now || self.is_pressed();
        let renews = due && self.state.watch.is_some() && self.state.watch_trouble.is_none();
        // Every second renewal: once a week.
        let weekly = renews && self.state.watches_kept % 2 == 1;
        if (weekly || self.now_asked.contains(Reason::Asked)) && self.check_alias(&integration).await {
            // Watched before it is read, as at the first time.
            self.state.watch_trouble = None;
        } else if !due {
            return;
        }
        let outcome = match self.state.watch.clone() {
            Some(watch)
                if watch.key != self.turns.settings.watches.keys.current_name()
                    || watch.rich != self.sent_along() =>
            {
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

    /// Whether a subscription that failed is tried at once: somebody has mended something, or says so.
    fn is_pressed(&self) -> bool {
        let trouble = self.state.watch_trouble.as_ref();
        trouble.is_some_and(|trouble| !trouble.was_told_to_wait()) && self.now_asked.any(&DO_NOT_WAIT)
    }

    /// Takes in what notifications said of subscriptions. It is dealt with here once; that a round is owed stays until
    /// there was one.
    fn hear_what_was_said(&mut self, now: Timestamp) {
        if self.now_asked.contains(Reason::Notification) {
            self.seat.office.push.announced(&self.seat.office.company, now);
        }
        self.is_said_of_the_living(Reason::Notification);
        self.is_said_of_the_living(Reason::Missed);
        if self.state.owed.reasons.remove(Reason::Removed) && self.is_said_of_the_living(Reason::Removed) {
            self.state.owed.reasons.insert(Reason::Missed);
            if self.state.watch.take().is_some() {
                info!("The subscription of mailbox {} was removed by the server", self.lease.mailbox);
            }
        }
        if self.state.owed.reasons.remove(Reason::Reauthorize)
            && self.is_said_of_the_living(Reason::Reauthorize)
            && let Some(watch) = &mut self.state.watch
        {
            watch.unconfirmed = true;
        }
    }

    /// Whether this was said of the subscription that lives, or without naming one; what was said of others is counted.
    fn is_said_of_the_living(&mut self, reason: Reason) -> bool {
        let named = self.state.owed.take_watches(reason);
        let living = self.state.watch.as_ref().map(|watch| watch.generation);
        let replaced = named.iter().filter(|generation| Some(**generation) != living).count();
        metrics::counter!("narvaro_notifications_replaced_total", "reason" => reason.name())
            .increment(replaced as u64);
        named.is_empty() || replaced < named.len()
    }

    async fn renew(&mut self, integration: &Integration, watch: WatchKept) -> Result<(), WatchError> {
        let until = self.turns.settings.watches.until(self.now());
        match integration.watches.renew(&watch.id, until).await {
            Ok(renewed) => {
                self.keep_watch(renewed, watch.generation);
                if watch.unconfirmed {
                    // What happened before it was confirmed may have been held back. Push itself is not in doubt.
                    self.state.owed.reasons.insert(Reason::Missed);
                }
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

    /// A renewal leaves the `clientState` as it is, and whether events are sent along: where either is to be another,
    /// the subscription is made anew.
    async fn replace(&mut self, integration: &Integration, watch: WatchKept) -> Result<(), WatchError> {
        integration.watches.remove(&watch.id).await?;
        info!("The subscription of mailbox {} is made anew as it is to be now", self.lease.mailbox);
        self.state.watch = None;
        // What changes in between goes nowhere.
        self.state.owed.reasons.insert(Reason::Missed);
        self.create(integration).await
    }

    async fn create(&mut self, integration: &Integration) -> Result<(), WatchError> {
        let request = self.request(integration);
        let created = match integration.watches.create(&request).await {
            Err(WatchError::Exists { named }) => {
                self.make_way(integration, &request, named.as_ref()).await?;
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

    /// A subscription that stands in the way is ours if it reports to our address. Its `clientState` is not known any
    /// more, so it cannot be kept. One that reports elsewhere is left alone: somebody else's presence rests on it.
    async fn make_way(
        &self,
        integration: &Integration,
        request: &WatchRequest,
        named: Option<&SubscriptionId>,
    ) -> Result<(), WatchError> {
        let watches = &integration.watches;
        let named = match named {
            Some(id) => watches.look(id).await?.filter(|watch| watch.is_on(&request.mailbox)),
            None => None,
        };
        let standing = match named {
            Some(watch) => vec![watch],
            None => watches.find(&request.mailbox).await?,
        };
        let (ours, others): (Vec<_>, Vec<_>) =
            standing.into_iter().partition(|watch| watch.reports_to == request.notification_url);
        for watch in &ours {
            watches.remove(&watch.id).await?;
            metrics::counter!("narvaro_subscriptions_total", "done" => "replaced").increment(1);
        }
        match others.first() {
            Some(other) if ours.is_empty() => Err(WatchError::Elsewhere { host: host_of(&other.reports_to) }),
            _ => Ok(()),
        }
    }

    fn request(&mut self, integration: &Integration) -> WatchRequest {
        self.state.watch_generation = self.state.watch_generation.wrapping_add(1);
        let plan = &self.turns.settings.watches;
        let claim = Claim {
            mailbox: self.lease.mailbox,
            resource: Resource::Events,
            generation: self.state.watch_generation,
        };
        WatchRequest {
            mailbox: self.mailbox_ref(),
            notification_url: plan.notification_url.clone(),
            lifecycle_url: plan.lifecycle_url.clone(),
            client_state: plan.keys.seal(&self.seat.office.company, claim, &integration.tenant),
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
        self.state.watch = Some(WatchKept {
            id: watch.id,
            expires: watch.expires,
            renew_at,
            renewed_at: Some(now),
            unconfirmed: false,
            generation,
            key,
            rich: self.sent_along(),
        });
    }

    fn watch_failed(&mut self, error: &WatchError) {
        let now = self.now();
        let health = Health::of_watch(error, self.state.proven_until.is_some());
        let disposition = match error {
            WatchError::Read(error) => error.disposition(),
            WatchError::Quota | WatchError::Elsewhere { .. } => Disposition::Park,
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

/// The host of a notification address, which may hold a secret elsewhere.
fn host_of(address: &str) -> String {
    let url = url::Url::parse(address).ok();
    url.and_then(|url| url.host_str().map(str::to_owned)).unwrap_or_default()
}
