//! How much may be asked in a while: budgets that stay ahead of Graph's own, so that Graph never has to refuse.
//!
//! Each budget is a [`RollingWindow`]. A request is charged to its mailbox, or to the subscriptions of its tenant
//! and of the whole application together; where one is spent, nothing is charged and the wait is told.
//! Nine tenths of what Graph allows are used: it counts when requests arrive, which is not when they are sent. Of
//! lists, of which it allows few, half: another instance may share the application. What all mailboxes of a tenant, and all tenants, have
//! together is divided among the processes that work on the same store; a mailbox is with one of them at a time.
//! Limits: <https://learn.microsoft.com/graph/throttling-limits> (2026-02).

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use reqwest::Method;

use super::{builder::Call, gates::Scope};

/// So many in so long.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limit {
    most: u32,
    span: SignedDuration,
}

const fn limit(most: u32, secs: i64) -> Limit {
    Limit { most, span: SignedDuration::from_secs(secs) }
}

/// Graph allows 10,000 in ten minutes for each mailbox.
const MAILBOX: Limit = limit(9_000, 600);

/// From this many mailboxes on, those whose windows are empty are forgotten.
const CLEAR_FROM: usize = 1024;

/// Into how many pieces a window is cut: so many entries say how full it is, whatever its limit.
const PIECES: i32 = 20;

/// What a request to `/subscriptions` is charged to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Charge {
    List,
    Read,
    Write,
}

impl Charge {
    fn of(call: &Call) -> Self {
        match call.method {
            Method::GET if call.url.path().ends_with("/subscriptions") => Self::List,
            Method::GET => Self::Read,
            _ => Self::Write,
        }
    }

    /// Limits of one tenant and of the application over all tenants; Graph's own: 25 and 40, 500 and 2,000.
    fn limits(self) -> (Limit, Limit) {
        match self {
            Self::List => (limit(10, 20), limit(20, 20)),
            Self::Read | Self::Write => (limit(450, 20), limit(1_800, 20)),
        }
    }

    fn reason(self) -> &'static str {
        match self {
            Self::List => "subscription_lists",
            Self::Read => "subscription_reads",
            Self::Write => "subscription_writes",
        }
    }
}

/// Counts what happened within the time that just went by.
///
/// What happened close together is kept as one entry that leaves with the last of it: never fewer are counted than
/// there were, and the memory does not grow with the limit.
#[derive(Debug, Clone)]
pub(super) struct RollingWindow {
    limit: Limit,
    /// The first and the last moment of each piece, and how many there were.
    pieces: VecDeque<(Timestamp, Timestamp, u32)>,
    /// Until when those who were turned away come back; `None`: nobody was.
    line_until: Option<Timestamp>,
    /// Among how many the limit is divided.
    sharers: u32,
}

impl RollingWindow {
    pub(super) fn new(limit: Limit) -> Self {
        Self { limit, pieces: VecDeque::new(), line_until: None, sharers: 1 }
    }

    fn most(&self) -> u32 {
        (self.limit.most / self.sharers.max(1)).max(1)
    }

    /// How long until there is room for one more; nothing where there is.
    pub(super) fn wait(&mut self, now: Timestamp) -> Option<Duration> {
        let span = self.limit.span;
        while self.pieces.front().is_some_and(|(_, last, _)| now.duration_since(*last) >= span) {
            self.pieces.pop_front();
        }
        let used: u32 = self.pieces.iter().map(|(_, _, count)| count).sum();
        if used < self.most() {
            return None;
        }
        let (_, leaves, _) = self.pieces.front()?;
        Duration::try_from(span - now.duration_since(*leaves)).ok()
    }

    /// As [`wait`](Self::wait), for one who comes back after it: behind those who were turned away before.
    fn stand_in_line(&mut self, now: Timestamp) -> Option<Duration> {
        let room_at = now.checked_add(self.wait(now)?).unwrap_or(Timestamp::MAX);
        let turn = self.line_until.map_or(room_at, |line| room_at.max(line));
        let every = self.limit.span / i32::try_from(self.most()).unwrap_or(i32::MAX);
        self.line_until = turn.checked_add(every).ok();
        Duration::try_from(turn.duration_since(now)).ok()
    }

    /// Counts one.
    pub(super) fn add(&mut self, now: Timestamp) {
        let piece = self.limit.span / PIECES;
        match self.pieces.back_mut() {
            Some((first, last, count)) if now.duration_since(*first) < piece => {
                *last = now.max(*last);
                *count += 1;
            }
            _ => self.pieces.push_back((now, now, 1)),
        }
    }

    fn is_empty(&self, now: Timestamp) -> bool {
        self.pieces.back().is_none_or(|(_, last, _)| now.duration_since(*last) >= self.limit.span)
    }
}

/// The windows of requests to `/subscriptions`, of one tenant or of all.
#[derive(Debug)]
struct SubscriptionWindows {
    lists: RollingWindow,
    reads: RollingWindow,
    writes: RollingWindow,
}

impl SubscriptionWindows {
    fn new(limit_of: impl Fn(Charge) -> Limit) -> Self {
        let window = |charge| RollingWindow::new(limit_of(charge));
        Self { lists: window(Charge::List), reads: window(Charge::Read), writes: window(Charge::Write) }
    }

    fn of(&mut self, charge: Charge) -> &mut RollingWindow {
        match charge {
            Charge::List => &mut self.lists,
            Charge::Read => &mut self.reads,
            Charge::Write => &mut self.writes,
        }
    }
}

/// What all tenants of the application spend together.
#[derive(Debug)]
pub(super) struct ApplicationBudget {
    subscriptions: Mutex<SubscriptionWindows>,
    processes: Arc<AtomicU32>,
}

impl Default for ApplicationBudget {
    fn default() -> Self {
        let subscriptions = Mutex::new(SubscriptionWindows::new(|charge| charge.limits().1));
        Self { subscriptions, processes: Arc::new(AtomicU32::new(1)) }
    }
}

impl ApplicationBudget {
    /// How many processes spend it.
    pub(super) fn processes(&self) -> Arc<AtomicU32> {
        Arc::clone(&self.processes)
    }
}

/// A budget is spent.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Spent {
    /// When there is room again.
    pub(super) wait: Duration,
    /// Which budget, as it is counted.
    pub(super) reason: &'static str,
}

/// What one tenant may spend.
#[derive(Debug)]
pub(super) struct Budget {
    application: Arc<ApplicationBudget>,
    subscriptions: Mutex<SubscriptionWindows>,
    mailboxes: Mutex<HashMap<String, RollingWindow>>,
}

impl Budget {
    pub(super) fn new(application: Arc<ApplicationBudget>) -> Self {
        let subscriptions = Mutex::new(SubscriptionWindows::new(|charge| charge.limits().0));
        Self { application, subscriptions, mailboxes: Mutex::default() }
    }

    /// Charges a request, or says how long to wait.
    pub(super) fn spend(&self, call: &Call, now: Timestamp) -> Result<(), Spent> {
        self.with_windows(call, now, |windows| {
            for window in windows {
                window.add(now);
            }
        })
    }

    /// Whether there is room for a request, which is not charged yet.
    pub(super) fn check(&self, call: &Call, now: Timestamp) -> Result<(), Spent> {
        self.with_windows(call, now, |_| ())
    }

    fn with_windows(
        &self,
        call: &Call,
        now: Timestamp,
        then: impl FnOnce(&mut [&mut RollingWindow]),
    ) -> Result<(), Spent> {
        match &call.scope {
            Scope::Mailbox(object) => {
                let mut mailboxes = held(&self.mailboxes);
                if mailboxes.len() >= CLEAR_FROM {
                    mailboxes.retain(|_, window| !window.is_empty(now));
                }
                let window = mailboxes.entry(object.clone()).or_insert_with(|| RollingWindow::new(MAILBOX));
                with_room(&mut [window], now, "mailbox_requests", then)
            }
            Scope::Subscriptions => {
                let charge = Charge::of(call);
                let (mut tenant, mut all) =
                    (held(&self.subscriptions), held(&self.application.subscriptions));
                let mut windows = [tenant.of(charge), all.of(charge)];
                let processes = self.application.processes.load(Ordering::Relaxed);
                windows.iter_mut().for_each(|window| window.sharers = processes);
                with_room(&mut windows, now, charge.reason(), then)
            }
            Scope::Directory | Scope::Batch => Ok(()),
        }
    }
}

fn with_room(
    windows: &mut [&mut RollingWindow],
    now: Timestamp,
    reason: &'static str,
    then: impl FnOnce(&mut [&mut RollingWindow]),
) -> Result<(), Spent> {
    match windows.iter_mut().filter_map(|window| window.stand_in_line(now)).max() {
        Some(wait) => Err(Spent { wait, reason }),
        None => {
            then(windows);
            Ok(())
        }
    }
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millisecond(1_700_000_000_000 + millis).unwrap()
    }

    fn call(method: Method, path: &str, scope: Scope) -> Call {
        let url = format!("https://graph.microsoft.com/v1.0/{path}").parse().unwrap();
        Call { operation: "test", method, url, body: None, scope, page_size: None }
    }

    fn subscription(method: Method) -> Call {
        call(method, "subscriptions/a4c2", Scope::Subscriptions)
    }

    fn list() -> Call {
        call(Method::GET, "subscriptions?$skiptoken=7", Scope::Subscriptions)
    }

    fn of_mailbox(object: &str) -> Call {
        call(Method::GET, "users/x/events/y", Scope::Mailbox(object.to_owned()))
    }

    fn spend_all(budget: &Budget, call: &Call, now: Timestamp) -> u32 {
        (0..).find(|_| budget.spend(call, now).is_err()).unwrap()
    }

    proptest! {
        #[test]
        fn no_window_of_that_length_ever_holds_more_than_the_limit(
            most in 1_u32..30,
            steps in prop::collection::vec(0_i64..3_000, 1..400),
        ) {
            let mut window = RollingWindow::new(limit(most, 20));
            let (mut now, mut taken) = (0, Vec::new());
            for step in steps {
                now += step;
                match window.wait(at(now)) {
                    None => {
                        window.add(at(now));
                        taken.push(now);
                    }
                    Some(wait) => {
                        prop_assert!(wait <= Duration::from_secs(20) && !wait.is_zero());
                        let then = now + i64::try_from(wait.as_millis()).unwrap();
                        prop_assert_eq!(window.clone().wait(at(then)), None, "the wait that was told is enough");
                    }
                }
                prop_assert!(window.pieces.len() <= 21);
            }
            for (n, first) in taken.iter().enumerate() {
                let within = taken[n..].iter().take_while(|other| *other - first < 20_000).count();
                prop_assert!(within <= most as usize);
            }
        }
    }

    #[test]
    fn a_mailbox_has_its_own_budget() {
        let budget = Budget::new(Arc::default());
        assert_eq!(spend_all(&budget, &of_mailbox("anna"), at(0)), 9_000);
        let spent = budget.spend(&of_mailbox("anna"), at(60_000));
        let behind_one = Duration::from_secs(540) + Duration::from_secs(600) / 9_000;
        assert_eq!(spent, Err(Spent { wait: behind_one, reason: "mailbox_requests" }));
        assert_eq!(budget.spend(&of_mailbox("bo"), at(60_000)), Ok(()));
        assert_eq!(budget.spend(&of_mailbox("anna"), at(600_000)), Ok(()));
    }

    #[test]
    fn what_all_have_together_is_divided_among_processes_and_what_a_mailbox_has_is_not() {
        let budget = Budget::new(Arc::default());
        budget.application.processes().store(3, Ordering::Relaxed);
        assert_eq!(spend_all(&budget, &subscription(Method::PATCH), at(0)), 150);
        assert_eq!(spend_all(&budget, &list(), at(0)), 3);
        assert_eq!(spend_all(&budget, &of_mailbox("anna"), at(0)), 9_000);
        // One goes.
        budget.application.processes().store(2, Ordering::Relaxed);
        assert_eq!(spend_all(&budget, &subscription(Method::PATCH), at(1)), 75);
        budget.application.processes().store(1_000, Ordering::Relaxed);
        assert_eq!(spend_all(&budget, &list(), at(20_000)), 1, "none is shut out");
    }

    #[test]
    fn subscriptions_are_budgeted_per_tenant_and_over_all_and_by_kind() {
        let application = Arc::<ApplicationBudget>::default();
        let tenants: Vec<_> = (0..5).map(|_| Budget::new(Arc::clone(&application))).collect();
        for method in [Method::PATCH, Method::GET] {
            let spent: Vec<_> = tenants
                .iter()
                .map(|tenant| spend_all(tenant, &subscription(method.clone()), at(0)))
                .collect();
            assert_eq!(spent, [450, 450, 450, 450, 0], "{method}");
        }
        let lists: Vec<_> = tenants.iter().map(|tenant| spend_all(tenant, &list(), at(0))).collect();
        assert_eq!(lists, [10, 10, 0, 0, 0]);
        // Behind the four who were turned away there: one a second, as the application may list.
        let spent = tenants[4].spend(&list(), at(6_000));
        assert_eq!(spent, Err(Spent { wait: Duration::from_secs(18), reason: "subscription_lists" }));
        assert_eq!(tenants[4].check(&list(), at(20_000)), Ok(()));
        let create = call(Method::POST, "subscriptions", Scope::Subscriptions);
        assert_eq!(tenants[4].spend(&create, at(19_000)).unwrap_err().reason, "subscription_writes");
    }

    #[test]
    fn who_is_turned_away_comes_back_when_there_is_room_however_many_there_are() {
        let budget = Budget::new(Arc::default());
        let create = || call(Method::POST, "subscriptions", Scope::Subscriptions);
        let mut waiting: BTreeMap<i64, u32> = BTreeMap::from([(0, 2_000)]);
        let (mut tries, mut last) = (0_u32, 0);
        while let Some((now, many)) = waiting.pop_first() {
            for _ in 0..many {
                tries += 1;
                last = now;
                if let Err(Spent { wait, .. }) = budget.spend(&create(), at(now)) {
                    let then = now + i64::try_from(wait.as_millis()).unwrap() + 1;
                    *waiting.entry(then).or_default() += 1;
                }
            }
        }
        // Each but the first comes back once, a few more than that; and no time is lost: 450 in 20 s.
        assert!(tries < 2 * 2_000, "{tries} tries");
        assert!((60_000..100_000).contains(&last), "{last} ms");
    }

    #[test]
    fn a_request_that_has_to_wait_is_charged_nowhere() {
        let application = Arc::<ApplicationBudget>::default();
        let (one, other) = (Budget::new(Arc::clone(&application)), Budget::new(Arc::clone(&application)));
        assert_eq!(spend_all(&one, &list(), at(0)), 10);
        for _ in 0..100 {
            one.spend(&list(), at(1)).unwrap_err();
            one.check(&list(), at(1)).unwrap_err();
        }
        assert_eq!(spend_all(&other, &list(), at(2)), 10, "the application still had ten");
    }

    #[test]
    fn mailboxes_that_rest_are_forgotten() {
        let budget = Budget::new(Arc::default());
        for n in 0..CLEAR_FROM {
            budget.spend(&of_mailbox(&n.to_string()), at(0)).unwrap();
        }
        budget.spend(&of_mailbox("anna"), at(601_000)).unwrap();
        assert_eq!(held(&budget.mailboxes).len(), 1);
    }
}
