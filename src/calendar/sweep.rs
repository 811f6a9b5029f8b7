//! How long push may be trusted before the calendar is looked at again: silence is never proof.
//!
//! A sweep is a round that nothing has announced. Where push works it finds nothing, and costs one request; where
//! push fails it is what bounds the time until a change is seen. So the time between sweeps follows what is known:
//!
//! | Push | Next sweep |
//! |---|---|
//! | There is no living subscription | after [`SweepPlan::unwatched`] |
//! | The last sweep found what push had not announced | after [`SweepPlan::unproven`] |
//! | Nothing has been announced since push was last in doubt | after [`SweepPlan::unproven`] at first, then after three times as long as it has been silent, up to [`SweepPlan::trusted`] |
//! | Something has been announced since | after [`SweepPlan::proven`] at first, and longer, up to [`SweepPlan::trusted`], the longer nothing was found lost |
//!
//! Why growing, and not the short time for as long as nothing is announced: most calendars are silent because
//! nobody writes in them. Looking at each of them a hundred times a day would be most of all requests, and says
//! no more than looking once a day: whatever push loses there is found by the next sweep, and makes push suspicious. A
//! calendar in which somebody writes is not looked at by sweeps at all: each change that is announced is read by a
//! round, which proves all of it.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

/// How long to wait for the next sweep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SweepPlan {
    /// Where push has lost nothing for as long.
    pub trusted: SignedDuration,
    /// Where push is proven to work, and not yet for long.
    pub proven: SignedDuration,
    /// Where it is not, or not yet.
    pub unproven: SignedDuration,
    /// Where nothing would be announced.
    pub unwatched: SignedDuration,
}

/// How far push can be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Push {
    /// There is no living subscription.
    Absent,
    /// It is known to have lost something.
    Suspicious,
    /// It has said nothing for so long, and was not found to have lost anything in that time.
    Silent(SignedDuration),
    /// It works, and was not found to have lost anything for so long.
    Proven(SignedDuration),
}

impl SweepPlan {
    /// How long after the last round the next one comes, though nothing is announced.
    pub fn every(&self, push: Push) -> SignedDuration {
        match push {
            Push::Absent => self.unwatched,
            Push::Suspicious => self.unproven,
            Push::Silent(so_far) => (so_far * 3).max(self.unproven).min(self.trusted),
            Push::Proven(so_far) => so_far.max(self.proven).min(self.trusted),
        }
    }
}

/// What a mailbox knows of push to it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PushRecord {
    /// Which of our subscriptions it is known of.
    pub generation: u32,
    /// When there was last reason to doubt: the subscription was new, or something had been lost.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub doubted_at: Option<Timestamp>,
    /// When a notification last arrived.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub notified_at: Option<Timestamp>,
    /// Whether the last sweep found what had not been announced.
    pub surprised: bool,
}

impl PushRecord {
    /// Notes which subscription is the living one: of a new one nothing is known.
    pub fn follow(&mut self, generation: u32, now: Timestamp) {
        if self.doubted_at.is_none() || self.generation != generation {
            *self =
                Self { generation, doubted_at: Some(now), notified_at: self.notified_at, surprised: false };
        }
    }

    /// Notes that something was lost.
    pub fn doubt(&mut self, now: Timestamp) {
        self.doubted_at = Some(now);
    }

    /// Notes that a notification arrived.
    pub fn notified(&mut self, at: Timestamp) {
        self.notified_at = self.notified_at.max(Some(at));
    }

    /// Notes whether a sweep found what had not been announced.
    pub fn swept(&mut self, surprised: bool, at: Timestamp) {
        self.surprised = surprised;
        if surprised {
            self.doubt(at);
        }
    }

    /// How far push can be trusted, if the last round began at `read_at`.
    pub fn standing(&self, watched: bool, read_at: Timestamp) -> Push {
        if !watched {
            return Push::Absent;
        }
        if self.surprised {
            return Push::Suspicious;
        }
        match (self.doubted_at, self.notified_at) {
            (Some(doubted), Some(notified)) if notified > doubted => {
                Push::Proven(read_at.duration_since(doubted))
            }
            (Some(doubted), _) => Push::Silent(read_at.duration_since(doubted)),
            (None, _) => Push::Silent(SignedDuration::ZERO),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAN: SweepPlan = SweepPlan {
        trusted: SignedDuration::from_hours(12),
        proven: SignedDuration::from_hours(4),
        unproven: SignedDuration::from_mins(15),
        unwatched: SignedDuration::from_mins(5),
    };

    fn minute(minute: i64) -> Timestamp {
        Timestamp::UNIX_EPOCH + SignedDuration::from_mins(minute)
    }

    fn new_at(made: i64) -> PushRecord {
        let mut push = PushRecord::default();
        push.follow(1, minute(made));
        push
    }

    /// Minutes until the next sweep, where the last round was at `read`.
    fn next(push: &PushRecord, read: i64) -> i64 {
        PLAN.every(push.standing(true, minute(read))).as_mins()
    }

    #[test]
    fn without_a_living_subscription_the_calendar_is_polled_whatever_was_proven() {
        let mut push = new_at(0);
        push.notified(minute(1));
        assert_eq!(PLAN.every(push.standing(false, minute(1))), PLAN.unwatched);
    }

    #[test]
    fn a_new_subscription_is_looked_at_often_and_less_often_with_each_sweep_that_finds_nothing() {
        let push = new_at(0);
        let mut read = 0;
        let sweeps: Vec<i64> = (0..6)
            .map(|_| {
                let wait = next(&push, read);
                read += wait;
                wait
            })
            .collect();
        assert_eq!(sweeps, [15, 45, 180, 720, 720, 720]);
    }

    #[test]
    fn a_notification_proves_push_at_once_and_time_without_a_loss_makes_it_trusted() {
        let mut push = new_at(0);
        push.notified(minute(3));
        let waits = [3, 240, 300, 720, 10_000].map(|read| next(&push, read));
        assert_eq!(waits, [240, 240, 300, 720, 720]);
    }

    #[test]
    fn what_push_did_not_announce_makes_it_suspicious_until_a_sweep_finds_nothing() {
        let mut push = new_at(0);
        push.notified(minute(3));
        push.swept(true, minute(243));
        assert_eq!(next(&push, 243), 15);
        push.notified(minute(250));
        assert_eq!(next(&push, 243), 15, "one that arrives does not clear what was lost");
        push.swept(false, minute(258));
        assert_eq!(next(&push, 258), 240);
    }

    #[test]
    fn after_a_loss_without_a_word_since_trust_grows_anew() {
        let mut push = new_at(0);
        push.swept(true, minute(1000));
        push.swept(false, minute(1015));
        assert_eq!(next(&push, 1015), 45);
        push.swept(false, minute(1060));
        assert_eq!(next(&push, 1060), 180);
        push.doubt(minute(2000));
        assert_eq!(next(&push, 2000), 15);
    }

    #[test]
    fn what_was_proven_of_one_subscription_is_not_of_the_next() {
        let mut push = new_at(0);
        push.notified(minute(3));
        push.follow(1, minute(100));
        assert_eq!(next(&push, 100), 240, "it is the same");
        push.follow(2, minute(200));
        assert_eq!(next(&push, 200), 15);
    }
}
