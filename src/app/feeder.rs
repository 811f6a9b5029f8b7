//! Which mailboxes of a large job may be marked now: few at a time for each company, and no more in a while than
//! Microsoft 365 lets one tenant and one application change.
//!
//! Pure: the caller passes the time, marks, and tells what has ended.

use std::collections::{BTreeMap, VecDeque};

use jiff::{SignedDuration, Timestamp};

use crate::model::{CompanyId, MailboxId};

/// Of one company, marked and not ended. A notification that comes meanwhile waits for none of them: what is asked by a
/// job is upkeep.
pub(super) const IN_FLIGHT: usize = 8;

/// In which subscriptions that change are counted.
pub(super) const WINDOW: SignedDuration = SignedDuration::from_secs(20);

/// In a window for one company. Graph allows 500 for each tenant; its own upkeep, and another instance, need some too.
pub(super) const IN_WINDOW: usize = 200;

/// In a window for all companies. Graph allows 2,000 for each application.
pub(super) const IN_WINDOW_FOR_ALL: usize = 800;

/// One mailbox of a job, with what to call it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) mailbox: MailboxId,
    pub(super) company: CompanyId,
    pub(super) title: String,
    /// How often it has been put back because Graph asked for patience.
    pub(super) put_back: u8,
}

/// How much has been fed lately, by all jobs together: one that follows another finds no fresh room.
#[derive(Debug, Default)]
pub(super) struct Pace {
    companies: BTreeMap<CompanyId, Window>,
    all: Window,
}

impl Pace {
    fn full_until(&mut self, company: &CompanyId, now: Timestamp) -> Option<Timestamp> {
        let own = self.companies.get_mut(company).and_then(|fed| fed.full_until(IN_WINDOW, now));
        own.max(self.all.full_until(IN_WINDOW_FOR_ALL, now))
    }

    fn feed(&mut self, company: &CompanyId, now: Timestamp) {
        self.companies.entry(company.clone()).or_default().0.push_back(now);
        self.all.0.push_back(now);
    }
}

/// What waits, by company, and how much is on its way.
#[derive(Debug, Default)]
pub(super) struct Feeder {
    lanes: BTreeMap<CompanyId, Lane>,
}

#[derive(Debug, Default)]
struct Lane {
    waiting: VecDeque<Piece>,
    in_flight: usize,
    rests_until: Option<Timestamp>,
}

/// When the last ones were fed.
#[derive(Debug, Default)]
struct Window(VecDeque<Timestamp>);

impl Window {
    /// When there is room for one more, if not now.
    fn full_until(&mut self, most: usize, now: Timestamp) -> Option<Timestamp> {
        while self.0.front().is_some_and(|fed| *fed + WINDOW <= now) {
            self.0.pop_front();
        }
        (self.0.len() >= most).then(|| self.0[0] + WINDOW)
    }
}

impl Lane {
    /// When the next may be fed by the time alone; `None` where something has to end first, or nothing waits.
    fn next_at(&self, company: &CompanyId, pace: &mut Pace, now: Timestamp) -> Option<Timestamp> {
        if self.waiting.is_empty() || self.in_flight >= IN_FLIGHT {
            return None;
        }
        let full_until = pace.full_until(company, now);
        Some(full_until.into_iter().chain(self.rests_until).max().unwrap_or(now).max(now))
    }
}

impl Feeder {
    pub(super) fn new(pieces: impl IntoIterator<Item = Piece>) -> Self {
        let mut feeder = Self::default();
        for piece in pieces {
            feeder.lanes.entry(piece.company.clone()).or_default().waiting.push_back(piece);
        }
        feeder
    }

    /// The same, with every company left alone until then.
    pub(super) fn resting_until(mut self, until: Timestamp) -> Self {
        self.lanes.values_mut().for_each(|lane| lane.rests_until = Some(until));
        self
    }

    /// What may be marked now; from each company in turn.
    pub(super) fn take(&mut self, pace: &mut Pace, now: Timestamp) -> Vec<Piece> {
        let mut taken = Vec::new();
        loop {
            let before = taken.len();
            for (company, lane) in &mut self.lanes {
                if lane.next_at(company, pace, now) == Some(now) {
                    taken.extend(lane.waiting.pop_front());
                    lane.in_flight += 1;
                    pace.feed(company, now);
                }
            }
            if taken.len() == before {
                return taken;
            }
        }
    }

    /// When something may be taken by the time alone.
    pub(super) fn next_at(&self, pace: &mut Pace, now: Timestamp) -> Option<Timestamp> {
        self.lanes.iter().filter_map(|(company, lane)| lane.next_at(company, pace, now)).min()
    }

    /// Something that was taken has ended.
    pub(super) fn ended(&mut self, company: &CompanyId) {
        if let Some(lane) = self.lanes.get_mut(company) {
            lane.in_flight = lane.in_flight.saturating_sub(1);
        }
    }

    /// Something that was taken is to be tried again, and its company left alone until then.
    pub(super) fn put_back(&mut self, mut piece: Piece, until: Timestamp) {
        self.ended(&piece.company);
        piece.put_back = piece.put_back.saturating_add(1);
        let lane = self.lanes.entry(piece.company.clone()).or_default();
        lane.rests_until = lane.rests_until.max(Some(until));
        lane.waiting.push_front(piece);
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.lanes.values().all(|lane| lane.waiting.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use super::*;

    fn pieces(company: &str, count: u64, first: u64) -> Vec<Piece> {
        let piece = |number: u64| Piece {
            mailbox: MailboxId(first + number),
            company: company.parse().unwrap(),
            title: number.to_string(),
            put_back: 0,
        };
        (0..count).map(piece).collect()
    }

    fn start() -> Timestamp {
        "2026-11-23T08:00:00Z".parse().unwrap()
    }

    /// A queue that ends what it was given after some time that differs from mailbox to mailbox.
    struct FakeQueue {
        working: Vec<(Timestamp, Piece)>,
        fed: HashMap<CompanyId, Vec<Timestamp>>,
    }

    impl FakeQueue {
        fn accept(&mut self, piece: Piece, now: Timestamp) {
            self.fed.entry(piece.company.clone()).or_default().push(now);
            let takes = SignedDuration::from_millis(50 + (piece.mailbox.0 % 7) as i64 * 40);
            let company = piece.company.clone();
            self.working.push((now + takes, piece));
            let at_once = self.working.iter().filter(|(_, one)| one.company == company).count();
            assert!(at_once <= IN_FLIGHT, "{at_once} at once");
        }
    }

    #[test]
    fn ten_thousand_mailboxes_are_all_fed_once_within_what_graph_allows() {
        let mut feeder =
            Feeder::new(pieces("acme", 9_000, 0).into_iter().chain(pieces("beta", 1_000, 100_000)));
        let mut pace = Pace::default();
        let mut queue = FakeQueue { working: Vec::new(), fed: HashMap::new() };
        let (mut now, mut seen) = (start(), HashSet::new());
        while !feeder.is_empty() || !queue.working.is_empty() {
            for piece in feeder.take(&mut pace, now) {
                assert!(seen.insert(piece.mailbox), "{piece:?} twice");
                queue.accept(piece, now);
            }
            let next = queue.working.iter().map(|(at, _)| *at).chain(feeder.next_at(&mut pace, now)).min();
            now = next.unwrap_or(now);
            let (ended, working) = queue.working.drain(..).partition(|(at, _)| *at <= now);
            queue.working = working;
            let ended: Vec<(Timestamp, Piece)> = ended;
            ended.iter().for_each(|(_, piece)| feeder.ended(&piece.company));
        }
        assert_eq!(seen.len(), 10_000);
        for (company, times) in &queue.fed {
            for (index, from) in times.iter().enumerate() {
                let within = times[index..].iter().take_while(|at| **at < *from + WINDOW).count();
                assert!(within <= IN_WINDOW, "{within} of {company} from {from}");
            }
        }
        let took = now.duration_since(start());
        // 9,000 at 200 in 20 s.
        assert!((SignedDuration::from_mins(14)..SignedDuration::from_mins(16)).contains(&took), "{took}");
        assert!(
            queue.fed[&"beta".parse().unwrap()].last().unwrap().duration_since(start())
                < SignedDuration::from_mins(2)
        );
    }

    #[test]
    fn a_company_that_graph_asks_for_patience_rests_and_the_others_go_on() {
        let mut feeder = Feeder::new(pieces("acme", 20, 0).into_iter().chain(pieces("beta", 20, 100)));
        let mut pace = Pace::default();
        let mut taken = feeder.take(&mut pace, start());
        assert_eq!(taken.len(), 2 * IN_FLIGHT);
        let until = start() + SignedDuration::from_secs(30);
        let acme = taken.remove(0);
        feeder.put_back(acme.clone(), until);
        let mut resumed = Feeder::new(pieces("gamma", 1, 500)).resting_until(until);
        assert_eq!(
            (resumed.take(&mut pace, start()), resumed.next_at(&mut pace, start())),
            (vec![], Some(until))
        );
        feeder.ended(&"beta".parse().unwrap());
        let next = feeder.take(&mut pace, start());
        assert_eq!(next.iter().map(|piece| piece.company.as_str()).collect::<Vec<_>>(), ["beta"]);
        assert_eq!(feeder.next_at(&mut pace, start()), Some(until));
        assert_eq!(feeder.take(&mut pace, until), [Piece { put_back: 1, ..acme }]);
    }

    #[test]
    fn more_companies_than_one_application_may_serve_at_once_share_what_there_is() {
        let many = (0..200).flat_map(|number| pieces(&format!("c{number}"), 8, number * 1_000));
        let mut feeder = Feeder::new(many);
        let mut pace = Pace::default();
        assert_eq!(feeder.take(&mut pace, start()).len(), IN_WINDOW_FOR_ALL);
        assert_eq!(feeder.next_at(&mut pace, start()), Some(start() + WINDOW));
        // Another job finds no room either.
        let mut other = Feeder::new(pieces("other", 1, 1_000_000));
        assert_eq!(other.take(&mut pace, start()), []);
        assert_eq!(feeder.take(&mut pace, start() + WINDOW).len(), 800);
        assert!(feeder.is_empty());
    }
}
