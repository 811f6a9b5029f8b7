//! Where a tenant's calls stand in line: so many are under way at a time, and small ones that meet go together.
//!
//! While a slot is free nobody waits and everybody goes alone. When all are taken, those who come stand in line, the
//! more pressing first. A slot that becomes free goes to the first in line; if that one may be joined, up to nineteen
//! others of its kind go with it and need no slot of their own.
//!
//! Whoever gives up while standing in line is passed over. Those who go together go on when one of them gives up:
//! what they do is a shared future that any of them drives. Why not a task of its own: it would outlive those who
//! asked for it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use futures_util::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use tokio::sync::oneshot;

/// Calls of one tenant that are under way at a time: enough for the answers that a company waits for, and so few
/// that one company takes neither all connections nor all memory.
const SLOTS: usize = 8;

/// Longest batch that Graph takes.
const TOGETHER: usize = 20;

/// Who goes first when slots are short.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Priority {
    /// Somebody changed something and looks at the phone.
    Change,
    /// A calendar is read, by a round or a view.
    Read,
    /// What can wait: time zones, subscriptions.
    Upkeep,
}

/// Whether a call may go together with others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Company {
    Alone,
    Any,
}

/// The line before one tenant's slots.
pub(super) struct Line<T> {
    state: Mutex<State<T>>,
}

struct State<T> {
    free: usize,
    arrived: u64,
    waiting: BTreeMap<(Priority, u64), Waiting<T>>,
}

struct Waiting<T> {
    errand: T,
    company: Company,
    called: oneshot::Sender<Called<T>>,
}

/// A slot; it goes to the next in line when it is dropped.
pub(super) struct Slot<T> {
    line: Arc<Line<T>>,
}

/// Whose turn it is.
pub(super) enum Called<T> {
    Alone(Slot<T>, T),
    Together(Arc<Group<T>>),
}

/// Some who go together.
pub(super) struct Group<T> {
    gathered: Mutex<Option<(Slot<T>, Vec<T>)>>,
    going: OnceLock<Shared<BoxFuture<'static, ()>>>,
}

impl<T> Line<T> {
    pub(super) fn new() -> Arc<Self> {
        let state = State { free: SLOTS, arrived: 0, waiting: BTreeMap::new() };
        Arc::new(Self { state: Mutex::new(state) })
    }

    /// Stands in line; the answer is there at once while a slot is free.
    pub(super) fn stand(
        self: &Arc<Self>,
        priority: Priority,
        company: Company,
        errand: T,
    ) -> oneshot::Receiver<Called<T>> {
        let (called, turn) = oneshot::channel();
        let mut state = self.state();
        state.arrived += 1;
        let place = (priority, state.arrived);
        state.waiting.insert(place, Waiting { errand, company, called });
        let free = state.free > 0;
        if free {
            state.free -= 1;
        }
        drop(state);
        if free {
            self.hand_on();
        }
        turn
    }

    /// Gives a slot to the next in line.
    fn hand_on(self: &Arc<Self>) {
        let Some((first, others)) = self.state().next() else { return };
        let slot = Slot { line: Arc::clone(self) };
        // Whoever gives up in this moment lets go of what was sent, and so hands the slot on.
        if others.is_empty() {
            drop(first.called.send(Called::Alone(slot, first.errand)));
            return;
        }
        let together = std::iter::once(first).chain(others);
        let (errands, calls): (Vec<_>, Vec<_>) = together.map(|one| (one.errand, one.called)).unzip();
        let gathered = Mutex::new(Some((slot, errands)));
        let group = Arc::new(Group { gathered, going: OnceLock::new() });
        for called in calls {
            drop(called.send(Called::Together(Arc::clone(&group))));
        }
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> State<T> {
    /// The next in line and those who go with it; with nobody there, the slot is free.
    fn next(&mut self) -> Option<(Waiting<T>, Vec<Waiting<T>>)> {
        self.waiting.retain(|_, waiting| !waiting.called.is_closed());
        let Some((_, first)) = self.waiting.pop_first() else {
            self.free += 1;
            return None;
        };
        if first.company == Company::Alone {
            return Some((first, Vec::new()));
        }
        let others = self.waiting.iter().filter(|(_, other)| other.company == Company::Any);
        let places: Vec<_> = others.map(|(place, _)| *place).take(TOGETHER - 1).collect();
        let others = places.iter().filter_map(|place| self.waiting.remove(place)).collect();
        Some((first, others))
    }
}

impl<T> Drop for Slot<T> {
    fn drop(&mut self) {
        self.line.hand_on();
    }
}

impl<T> Group<T> {
    /// Goes, as soon as the first of the group asks for it; each of them gets the same future.
    pub(super) fn go(
        &self,
        start: impl FnOnce(Slot<T>, Vec<T>) -> BoxFuture<'static, ()>,
    ) -> Shared<BoxFuture<'static, ()>> {
        let begin = || {
            let gathered = self.gathered.lock().unwrap_or_else(PoisonError::into_inner).take();
            match gathered {
                Some((slot, errands)) => start(slot, errands).shared(),
                None => std::future::ready(()).boxed().shared(),
            }
        };
        self.going.get_or_init(begin).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Turn = oneshot::Receiver<Called<&'static str>>;

    fn stand(
        line: &Arc<Line<&'static str>>,
        priority: Priority,
        company: Company,
        who: &'static str,
    ) -> Turn {
        line.stand(priority, company, who)
    }

    /// Takes all slots.
    fn full() -> (Arc<Line<&'static str>>, Vec<Slot<&'static str>>) {
        let line = Line::new();
        let slots = (0..SLOTS).map(|_| alone(stand(&line, Priority::Upkeep, Company::Any, "first")).0);
        let slots = slots.collect();
        (line, slots)
    }

    fn alone(mut turn: Turn) -> (Slot<&'static str>, &'static str) {
        match turn.try_recv() {
            Ok(Called::Alone(slot, who)) => (slot, who),
            Ok(Called::Together(_)) => panic!("called with others"),
            Err(error) => panic!("not called: {error}"),
        }
    }

    /// Lets a group go; who is in it.
    async fn together(turn: &mut Turn) -> Vec<&'static str> {
        let Ok(Called::Together(group)) = turn.try_recv() else { panic!("not called with others") };
        let gone = Arc::new(Mutex::new(Vec::new()));
        let going = Arc::clone(&gone);
        let start = move |slot, errands| {
            async move {
                *going.lock().unwrap() = errands;
                drop(slot);
            }
            .boxed()
        };
        group.go(start).await;
        gone.lock().unwrap().clone()
    }

    #[test]
    fn while_a_slot_is_free_everybody_goes_at_once_and_alone() {
        let (line, mut slots) = full();
        assert!(stand(&line, Priority::Change, Company::Any, "ninth").try_recv().is_err());
        slots.pop();
        assert_eq!(alone(stand(&line, Priority::Change, Company::Any, "tenth")).1, "tenth");
    }

    #[test]
    fn the_more_pressing_goes_first_and_within_a_kind_the_first_to_come() {
        let (line, mut slots) = full();
        let upkeep = stand(&line, Priority::Upkeep, Company::Alone, "renewal");
        let read = stand(&line, Priority::Read, Company::Alone, "view");
        let changes = ["one", "two"].map(|who| stand(&line, Priority::Change, Company::Alone, who));
        let mut called = Vec::new();
        for turn in changes.into_iter().chain([read, upkeep]) {
            slots.pop();
            let (slot, who) = alone(turn);
            called.push((slot, who));
        }
        let called: Vec<_> = called.iter().map(|(_, who)| *who).collect();
        assert_eq!(called, ["one", "two", "view", "renewal"]);
    }

    #[tokio::test]
    async fn those_who_may_be_joined_go_together_up_to_twenty() {
        let (line, mut slots) = full();
        let mut turns: Vec<_> =
            (0..30).map(|_| stand(&line, Priority::Change, Company::Any, "event")).collect();
        let view = stand(&line, Priority::Read, Company::Alone, "view");
        let mut zone = stand(&line, Priority::Upkeep, Company::Any, "zone");
        slots.pop();
        assert_eq!(together(&mut turns[0]).await.len(), 20);
        // Its slot went to the next ten, with whom the less pressing may go as well, but nobody who goes alone.
        let second = together(&mut turns[20]).await;
        assert_eq!((second.len(), second[10]), (11, "zone"));
        assert!(matches!(zone.try_recv(), Ok(Called::Together(_))));
        assert_eq!(alone(view).1, "view");
    }

    #[tokio::test]
    async fn who_gives_up_is_passed_over_and_hands_its_slot_on() {
        let (line, mut slots) = full();
        let given_up = stand(&line, Priority::Change, Company::Alone, "gone");
        let called = stand(&line, Priority::Change, Company::Alone, "called and gone");
        let last = stand(&line, Priority::Change, Company::Alone, "last");
        drop(given_up);
        slots.pop();
        drop(called);
        assert_eq!(alone(last).1, "last");
    }

    #[tokio::test]
    async fn a_group_goes_on_without_who_gives_up_and_ends_with_the_last() {
        let (line, mut slots) = full();
        let mut turns: Vec<_> =
            (0..3).map(|_| stand(&line, Priority::Change, Company::Any, "event")).collect();
        slots.pop();
        let groups = turns.iter_mut().map(|turn| match turn.try_recv() {
            Ok(Called::Together(group)) => group,
            _ => panic!("not called with others"),
        });
        let (finish, finished) = oneshot::channel::<()>();
        let mut start = Some(|slot: Slot<&'static str>, _errands| {
            async move {
                finished.await.unwrap();
                drop(slot);
            }
            .boxed()
        });
        let never = |_, _| -> BoxFuture<'static, ()> { panic!("it goes once") };
        let mut going: Vec<_> = Vec::new();
        for group in groups {
            going.push(match start.take() {
                Some(start) => group.go(start),
                None => group.go(never),
            });
        }
        for one in &mut going {
            assert!(futures_util::poll!(one).is_pending());
        }
        drop(going.remove(0));
        finish.send(()).unwrap();
        drop(going.remove(0));
        going.remove(0).await;
        // Its slot is free again.
        assert_eq!(alone(stand(&line, Priority::Upkeep, Company::Alone, "next")).1, "next");
    }

    #[tokio::test]
    async fn a_group_that_all_gave_up_lets_its_slot_go() {
        let (line, mut slots) = full();
        let mut turns: Vec<_> =
            (0..3).map(|_| stand(&line, Priority::Change, Company::Any, "event")).collect();
        slots.pop();
        let Ok(Called::Together(group)) = turns[0].try_recv() else { panic!("not called") };
        let hang = |slot: Slot<&'static str>, _errands| {
            async move {
                std::future::pending::<()>().await;
                drop(slot);
            }
            .boxed()
        };
        let mut going = group.go(hang);
        assert!(futures_util::poll!(&mut going).is_pending());
        drop((going, group, turns));
        assert_eq!(alone(stand(&line, Priority::Upkeep, Company::Alone, "next")).1, "next");
    }
}
