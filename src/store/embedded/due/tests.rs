//! The index against a model that keeps nothing in order and looks through everything at each step.

use std::collections::BTreeMap;

use jiff::SignedDuration;
use proptest::prelude::*;

use super::*;
use crate::queue::{Reason, Reasons};

const SHARES: Shares = Shares { showing_per_company: 2, reading: 3, reading_per_company: 2 };

/// Mailboxes of three companies.
const MAILBOXES: u64 = 12;

const HOLD: SignedDuration = SignedDuration::from_secs(10);

#[derive(Debug, Clone)]
enum Step {
    Pass { secs: i64 },
    Mark { mailbox: u64, in_secs: i64, reason: usize, durable: bool },
    Take { most: usize },
    BeginReading { mailbox: u64 },
    Extend { mailbox: u64 },
    Settle { mailbox: u64, due_in: Option<i64>, to_read: bool, stored: bool },
    Release { mailbox: u64 },
    Remove { mailbox: u64 },
    Add { mailbox: u64, due_in: Option<i64> },
}

fn step() -> impl Strategy<Value = Step> {
    let mailbox = || 0..MAILBOXES;
    let due_in = || proptest::option::of(0_i64..15);
    prop_oneof![
        3 => (0_i64..8).prop_map(|secs| Step::Pass { secs }),
        6 => (mailbox(), 0_i64..6, 0_usize..3, any::<bool>())
            .prop_map(|(mailbox, in_secs, reason, durable)| Step::Mark { mailbox, in_secs, reason, durable }),
        6 => (1_usize..6).prop_map(|most| Step::Take { most }),
        5 => mailbox().prop_map(|mailbox| Step::BeginReading { mailbox }),
        1 => mailbox().prop_map(|mailbox| Step::Extend { mailbox }),
        6 => (mailbox(), due_in(), any::<bool>(), proptest::bool::weighted(0.9)).prop_map(
            |(mailbox, due_in, to_read, stored)| Step::Settle { mailbox, due_in, to_read, stored }
        ),
        1 => mailbox().prop_map(|mailbox| Step::Release { mailbox }),
        1 => mailbox().prop_map(|mailbox| Step::Remove { mailbox }),
        2 => (mailbox(), due_in()).prop_map(|(mailbox, due_in)| Step::Add { mailbox, due_in }),
    ]
}

/// A mark as the model remembers it.
#[derive(Debug, Clone, Copy)]
struct Made {
    at: Timestamp,
    reason: Option<Reason>,
    entry: Option<u64>,
}

#[derive(Debug)]
struct Leased {
    generation: Generation,
    until: Timestamp,
    marks: Vec<Made>,
    reads: bool,
}

#[derive(Debug, Default)]
struct Mailbox {
    due: Option<Timestamp>,
    marks: Vec<Made>,
    to_read: bool,
    leased: Option<Leased>,
}

impl Mailbox {
    /// When it is due by itself or by a mark, whoever holds it.
    fn due_at(&self) -> Option<Timestamp> {
        self.due.into_iter().chain(self.marks.iter().map(|mark| mark.at)).min()
    }
}

struct Both {
    index: DueIndex,
    model: BTreeMap<u64, Mailbox>,
    /// The last lease that anybody had of a mailbox.
    leases: BTreeMap<u64, Generation>,
    now: Timestamp,
    entries: u64,
    newest: u64,
}

fn company(mailbox: u64) -> CompanyId {
    format!("company{}", mailbox % 3).parse().unwrap()
}

fn reasons(marks: &[Made]) -> Reasons {
    let mut reasons = Reasons::NONE;
    marks.iter().filter_map(|mark| mark.reason).for_each(|reason| reasons.insert(reason));
    reasons
}

impl Both {
    fn new() -> Self {
        let (model, leases) = (BTreeMap::new(), BTreeMap::new());
        let index = DueIndex::new(1, SHARES);
        Self { index, model, leases, now: Timestamp::UNIX_EPOCH, entries: 0, newest: 0 }
    }

    fn after(&self, secs: i64) -> Timestamp {
        self.now + SignedDuration::from_secs(secs)
    }

    /// The lease that somebody believes to have, and whether it stands.
    fn lease(&self, mailbox: u64) -> (Generation, bool) {
        let generation = self.leases.get(&mailbox).copied().unwrap_or_default();
        let leased = self.model.get(&mailbox).and_then(|mailbox| mailbox.leased.as_ref());
        (generation, leased.is_some_and(|leased| leased.generation == generation && leased.until > self.now))
    }

    fn count(&self, of: Option<u64>, reads: bool) -> usize {
        let concerned = |id: u64| of.is_none_or(|of| of % 3 == id % 3);
        let leased =
            self.model.iter().filter(|(id, _)| concerned(**id)).filter_map(|(_, one)| one.leased.as_ref());
        leased.filter(|leased| leased.reads == reads).count()
    }

    fn room_to_show(&self, mailbox: u64) -> bool {
        self.count(Some(mailbox), false) < SHARES.showing_per_company
    }

    fn room_to_read(&self, mailbox: u64) -> bool {
        self.count(None, true) < SHARES.reading
            && self.count(Some(mailbox), true) < SHARES.reading_per_company
    }

    /// Whether a mailbox is to be handed out now.
    fn is_wanted(&self, id: u64, mailbox: &Mailbox) -> bool {
        let due = mailbox.due_at().is_some_and(|at| at <= self.now);
        mailbox.leased.is_none() && (due && self.room_to_show(id) || mailbox.to_read && self.room_to_read(id))
    }

    fn anybody_wanted(&self) -> bool {
        self.model.iter().any(|(id, mailbox)| self.is_wanted(*id, mailbox))
    }

    fn give_back(&mut self, id: u64) {
        let now = self.now;
        let Some(mailbox) = self.model.get_mut(&id) else { return };
        let Some(leased) = mailbox.leased.take() else { return };
        mailbox.marks.extend(leased.marks);
        mailbox.marks.push(Made { at: now, reason: None, entry: None });
    }

    fn take(&mut self, most: usize) -> Result<(), TestCaseError> {
        let over = |mailbox: &Mailbox| mailbox.leased.as_ref().is_some_and(|leased| leased.until <= self.now);
        let over: Vec<u64> = self.model.iter().filter(|(_, one)| over(one)).map(|(id, _)| *id).collect();
        over.into_iter().for_each(|id| self.give_back(id));
        let until = self.now + HOLD;
        let taken = self.index.take(most, self.now, until);
        let all = taken.len() < most;
        for taken in taken {
            let id = taken.mailbox.0;
            let (due, show, read) = {
                let mailbox = &self.model[&id];
                prop_assert!(mailbox.leased.is_none(), "leased twice");
                let due = mailbox.due_at().is_some_and(|at| at <= self.now);
                (due, self.room_to_show(id), mailbox.to_read && self.room_to_read(id))
            };
            prop_assert!(
                if taken.reads { read } else { due && show },
                "{taken:?} beyond its share, or not due"
            );
            prop_assert!(taken.generation.0 > self.newest, "generations only grow");
            self.newest = taken.generation.0;
            let mailbox = self.model.get_mut(&id).unwrap();
            let marks = std::mem::take(&mut mailbox.marks);
            prop_assert_eq!(taken.gathered.reasons, reasons(&marks), "nothing is lost");
            mailbox.to_read &= !taken.reads;
            let generation = taken.generation;
            mailbox.leased = Some(Leased { generation, until, marks, reads: taken.reads });
            self.leases.insert(id, generation);
        }
        if all {
            prop_assert!(!self.anybody_wanted(), "somebody was left out");
            // The next moment at which there may be somebody: those that are due and have no room wait for a lease's end.
            let later = self.model.values().filter(|mailbox| mailbox.leased.is_none());
            let later = later.filter_map(Mailbox::due_at).filter(|at| *at > self.now);
            let ends = self.model.values().filter_map(|mailbox| Some(mailbox.leased.as_ref()?.until));
            prop_assert_eq!(self.index.wake_at(), later.chain(ends).min());
        }
        Ok(())
    }

    fn step(&mut self, step: &Step) -> Result<(), TestCaseError> {
        let now = self.now;
        match *step {
            Step::Pass { secs } => self.now = self.after(secs),
            Step::Mark { mailbox, in_secs, reason, durable } => {
                let reason = [Reason::PbxChanged, Reason::Missed, Reason::Reauthorize][reason];
                let at = self.after(in_secs);
                let known = self.model.contains_key(&mailbox);
                let entry = durable.then(|| {
                    self.entries += 1;
                    self.entries
                });
                self.index.enter(Mark::new(MailboxId(mailbox), at, reason), entry, now);
                if known {
                    let made = Made { at, reason: Some(reason), entry };
                    self.model.get_mut(&mailbox).unwrap().marks.push(made);
                }
            }
            Step::Take { most } => self.take(most)?,
            Step::BeginReading { mailbox } => {
                let (generation, holds) = self.lease(mailbox);
                let may = holds.then(|| {
                    let reads = self.model[&mailbox].leased.as_ref().unwrap().reads;
                    let mut others = self.model.iter().filter(|(_, one)| one.leased.is_none() && one.to_read);
                    let waits =
                        others.any(|(id, _)| self.count(Some(*id), true) < SHARES.reading_per_company);
                    reads || self.room_to_read(mailbox) && !waits
                });
                prop_assert_eq!(self.index.begin_reading(MailboxId(mailbox), generation, now), may);
                if may == Some(true) {
                    let mailbox = self.model.get_mut(&mailbox).unwrap();
                    let leased = mailbox.leased.as_mut().unwrap();
                    mailbox.to_read &= leased.reads;
                    leased.reads = true;
                }
            }
            Step::Extend { mailbox } => {
                let (generation, holds) = self.lease(mailbox);
                let until = now + HOLD;
                prop_assert_eq!(self.index.extend(MailboxId(mailbox), generation, now, until), holds);
                if holds {
                    self.model.get_mut(&mailbox).unwrap().leased.as_mut().unwrap().until = until;
                }
            }
            Step::Settle { mailbox: id, due_in, to_read, stored } => {
                let (generation, holds) = self.lease(id);
                prop_assert_eq!(
                    self.index.settling(MailboxId(id), generation, now),
                    holds,
                    "a lease that ended writes nothing"
                );
                if holds {
                    let due = due_in.map(|secs| self.after(secs));
                    let mailbox = self.model.get_mut(&id).unwrap();
                    if stored {
                        let to_read_as = to_read.then_some(Urgency::Upkeep);
                        self.index.settled(MailboxId(id), due, Urgency::Soon, to_read_as, now);
                        (mailbox.due, mailbox.to_read, mailbox.leased) = (due, to_read, None);
                    } else {
                        self.index.not_settled(MailboxId(id), now);
                        mailbox.leased.as_mut().unwrap().until = now + STORE_PAUSE;
                    }
                }
            }
            Step::Release { mailbox } => {
                let (generation, holds) = self.lease(mailbox);
                prop_assert_eq!(self.index.release(MailboxId(mailbox), generation, now), holds);
                if holds {
                    self.give_back(mailbox);
                }
            }
            Step::Remove { mailbox } => {
                self.index.remove(MailboxId(mailbox));
                self.model.remove(&mailbox);
            }
            Step::Add { mailbox, due_in } => {
                let due = due_in.map(|secs| self.after(secs));
                self.index.add(MailboxId(mailbox), &company(mailbox), due, Urgency::Soon, now);
                self.model.entry(mailbox).or_insert_with(|| Mailbox { due, ..Mailbox::default() });
            }
        }
        Ok(())
    }

    fn check(&self) -> Result<(), TestCaseError> {
        let marks = self.model.values().flat_map(|mailbox| {
            mailbox.marks.iter().chain(mailbox.leased.iter().flat_map(|leased| &leased.marks))
        });
        let needed = marks.filter_map(|mark| mark.entry).min();
        prop_assert_eq!(
            self.index.first_needed_entry(),
            needed,
            "the log is kept from what is not worked off"
        );
        if self.anybody_wanted() {
            prop_assert!(self.index.wake_at().is_some_and(|at| at <= self.now), "nobody is woken");
        }
        let depth = self.index.depth(self.now);
        prop_assert_eq!(depth.mailboxes, self.model.len());
        prop_assert_eq!(depth.leased, self.count(None, false) + self.count(None, true));
        let free = self.model.values().filter(|mailbox| mailbox.leased.is_none());
        let due = free.filter(|one| one.to_read || one.due_at().is_some_and(|at| at <= self.now)).count();
        prop_assert_eq!(depth.due, due);
        Ok(())
    }
}

proptest! {
    #[test]
    fn i3_i10_the_index_does_as_a_model_that_looks_through_everything(
        steps in proptest::collection::vec(step(), 1..200)
    ) {
        let mut both = Both::new();
        for mailbox in 0..MAILBOXES {
            both.step(&Step::Add { mailbox, due_in: Some(0) })?;
        }
        for step in &steps {
            both.step(step)?;
            both.check()?;
        }
    }
}
