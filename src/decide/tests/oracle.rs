//! The decision against a slow second opinion that knows nothing but minutes and plainly written rules.

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;

use super::{Lasting, Layers, Mailbox, decide};
use crate::{
    decide::{Layer, preview},
    model::{CalendarEvent, OverrideRule, Rules},
    timetable::{
        Timetable,
        tests::{own, rules, t, timed, timetable},
    },
};

/// Minutes that are looked at, from 06:00 on.
const DAY: i64 = 400;

/// Words of four profiles and the places of these in the ranking; the last is Available.
const WORDS: [(&str, usize); 4] = [("HOL", 1), ("LUN", 9), ("MÖT", 10), ("Available", 11)];

#[derive(Debug, Clone)]
struct Drawn {
    word: usize,
    start: i64,
    length: i64,
}

#[derive(Debug, Clone)]
struct World {
    events: Vec<Drawn>,
    bridge: i64,
    /// Lead and tail of meetings, in minutes.
    lead: i64,
    tail: i64,
    /// A base (of lunch) set before the day, and when it ends.
    base: Option<Option<i64>>,
    locked: bool,
    /// A change by hand to "do not disturb", and when.
    manual: Option<i64>,
    next_event_ends_it: bool,
}

fn world() -> impl Strategy<Value = World> {
    let event = (0..WORDS.len(), 0..60_i64, 1..25_i64).prop_map(|(word, start, length)| Drawn {
        word,
        start: start * 5,
        length: length * 5,
    });
    (
        prop::collection::vec(event, 0..6),
        prop::sample::select(vec![0_i64, 5, 10]),
        prop::sample::select(vec![0_i64, 5, 12, -5]),
        prop::sample::select(vec![0_i64, 5, 12, -5]),
        prop::option::of(prop::option::of(1..DAY)),
        prop::bool::weighted(0.2),
        prop::option::of(0..DAY),
        any::<bool>(),
    )
        .prop_map(|(events, bridge, lead, tail, base, locked, manual, next_event_ends_it)| World {
            events,
            bridge,
            lead,
            tail,
            base,
            locked,
            manual,
            next_event_ends_it,
        })
}

fn minute(n: i64) -> Timestamp {
    t("06:00") + SignedDuration::from_mins(n)
}

impl World {
    fn rules(&self) -> Rules {
        let mut rules = rules();
        rules.bridge_secs = u32::try_from(self.bridge * 60).unwrap();
        if self.next_event_ends_it {
            rules.override_rule = OverrideRule::UntilNextEvent;
        }
        let meeting = &mut rules.profiles[10];
        meeting.before_start_secs = i32::try_from(self.lead * 60).unwrap();
        meeting.after_end_secs = i32::try_from(self.tail * 60).unwrap();
        rules.profiles[9].calendar_may_not_override = self.locked;
        rules
    }

    fn calendar(&self) -> Vec<CalendarEvent> {
        let events = self.events.iter().enumerate();
        let event = |(number, drawn): (usize, &Drawn)| CalendarEvent {
            when: timed(minute(drawn.start), minute(drawn.start + drawn.length)),
            ..own(&format!("e{number}"), WORDS[drawn.word].0, "00:00", "00:00")
        };
        events.map(event).collect()
    }

    fn mailbox(&self) -> Mailbox {
        let mut mailbox = Mailbox::new(self.rules(), &self.calendar());
        if let Some(until) = self.base {
            mailbox.base("lunch", until.map(minute), minute(-60));
        }
        mailbox
    }
}

/// The second opinion. Events are known by their numbers; times are minutes.
struct Oracle<'a>(&'a World, Vec<Option<usize>>);

/// Events end and begin within this many minutes before and after the day.
const MARGIN: i64 = 100;

impl<'a> Oracle<'a> {
    fn new(world: &'a World) -> Self {
        let blank = Self(world, Vec::new());
        let running = |at| (0..world.events.len()).filter(|&event| blank.own(event, at)).collect();
        let winners = (-MARGIN..DAY + MARGIN).map(|at| blank.best(running(at))).collect();
        Self(world, winners)
    }

    fn shift(&self, event: usize) -> (i64, i64) {
        if self.0.events[event].word == 2 { (self.0.lead, self.0.tail) } else { (0, 0) }
    }

    fn own(&self, event: usize, at: i64) -> bool {
        let (lead, tail) = self.shift(event);
        let Drawn { start, length, .. } = self.0.events[event];
        at >= start - lead.min(0) && at < start + length + tail.min(0)
    }

    fn reaches(&self, event: usize, at: i64) -> bool {
        let (lead, tail) = self.shift(event);
        let Drawn { start, length, .. } = self.0.events[event];
        // An event whose own time is used up has no reach either.
        let left = length + lead.min(0) + tail.min(0);
        left > 0 && at >= start - lead && at < start + length + tail
    }

    /// Whether `one` wins against `other` among `all`, by the rules in their written order.
    fn beats(&self, one: usize, other: usize) -> bool {
        let (a, b) = (&self.0.events[one], &self.0.events[other]);
        if a.word != b.word {
            return a.word < b.word;
        }
        if a.length != b.length {
            return a.length < b.length;
        }
        if a.start != b.start {
            return a.start > b.start;
        }
        one < other
    }

    fn best(&self, running: Vec<usize>) -> Option<usize> {
        let mut standing = Vec::new();
        for &event in &running {
            let in_a_hole = running.iter().any(|&hole| {
                self.0.events[hole].word == 3
                    && self.0.events[event].word != 3
                    && self.0.events[hole].length < self.0.events[event].length
            });
            if !in_a_hole {
                standing.push(event);
            }
        }
        let mut best = None;
        for event in standing {
            if best.is_none_or(|best| self.beats(event, best)) {
                best = Some(event);
            }
        }
        best
    }

    /// Who wins at a minute among those in their own time.
    fn own_winner(&self, at: i64) -> Option<usize> {
        self.1[usize::try_from(at + MARGIN).unwrap()]
    }

    fn calendar(&self, at: i64) -> Option<usize> {
        if let Some(event) = self.own_winner(at) {
            return Some(event);
        }
        // How far back and forth does nobody's time go?
        let before = (-MARGIN..at).rev().find(|&at| self.own_winner(at).is_some());
        let after = (at + 1..DAY + MARGIN).find(|&at| self.own_winner(at).is_some());
        if let (Some(before), Some(after)) = (before, after)
            && after - before - 1 <= self.0.bridge
        {
            let (earlier, later) = (self.own_winner(before).unwrap(), self.own_winner(after).unwrap());
            if self.0.events[earlier].word == self.0.events[later].word {
                return Some(earlier);
            }
        }
        self.best((0..self.0.events.len()).filter(|&event| self.reaches(event, at)).collect())
    }

    /// What shows each minute, as places in the ranking.
    fn day(&self) -> Vec<usize> {
        const AVAILABLE: usize = 11;
        const LUNCH: usize = 9;
        const DO_NOT_DISTURB: usize = 4;
        let mut over: Option<usize> = None;
        let mut over_event_ended = false;
        let mut base = self.0.base;
        let mut base_profile = LUNCH;
        let mut shown = Vec::new();
        for now in 0..DAY {
            if base.is_some_and(|until| until.is_some_and(|until| until <= now)) {
                base = None;
            }
            let locked = self.0.locked && base.is_some() && base_profile == LUNCH;
            let decides = self.calendar(now);
            if self.0.manual == Some(now) {
                over = decides;
                over_event_ended = false;
                if decides.is_none() || locked {
                    base = Some(None);
                    base_profile = DO_NOT_DISTURB;
                }
            }
            let locked = self.0.locked && base.is_some() && base_profile == LUNCH;
            if let Some(event) = over {
                let end =
                    self.0.events[event].start + self.0.events[event].length + self.shift(event).1.min(0);
                over_event_ended |= now >= end;
                let elsewhere = decides.is_some_and(|other| other != event);
                if over_event_ended && decides != Some(event) || self.0.next_event_ends_it && elsewhere {
                    over = None;
                }
            }
            shown.push(match (over, decides) {
                (Some(_), _) => DO_NOT_DISTURB,
                (None, Some(event)) if !locked => WORDS[self.0.events[event].word].1,
                _ if base.is_some() => base_profile,
                _ => AVAILABLE,
            });
        }
        shown
    }
}

fn place(rules: &Rules, profile: Option<&crate::model::ProfileId>) -> usize {
    rules.profiles.iter().position(|known| Some(&known.id) == profile).unwrap()
}

fn same_timetable_by_another_way(rules: &Rules, mut events: Vec<CalendarEvent>) -> Timetable {
    events.reverse();
    let stored = serde_json::to_string(&timetable(rules, &events)).unwrap();
    serde_json::from_str(&stored).unwrap()
}

#[test]
fn what_is_set_by_hand_in_a_tail_after_another_event_holds_for_the_tail() {
    let (meeting, higher) =
        (Drawn { word: 2, start: 295, length: 55 }, Drawn { word: 0, start: 285, length: 70 });
    let world = World {
        events: vec![meeting, higher],
        bridge: 0,
        lead: 0,
        tail: 12,
        base: None,
        locked: false,
        manual: Some(355),
        next_event_ends_it: false,
    };
    let expected = Oracle::new(&world).day();
    let mut mailbox = world.mailbox();
    for at in 285..380 {
        if world.manual == Some(at) {
            mailbox.change("do-not-disturb", Lasting::OnPhone(None), minute(at));
        }
        let decision = mailbox.at(minute(at));
        let shown = place(&mailbox.rules, decision.profile.as_ref());
        assert_eq!(shown, expected[usize::try_from(at).unwrap()], "minute {at}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn the_decision_agrees_with_the_second_opinion_at_every_minute(world in world()) {
        let expected = Oracle::new(&world).day();
        let mut mailbox = world.mailbox();
        for (at, &expected) in (0..DAY).zip(&expected) {
            let now = minute(at);
            if world.manual == Some(at) {
                mailbox.change("do-not-disturb", Lasting::OnPhone(None), now);
            }
            let decision = mailbox.at(now);
            let shown = place(&mailbox.rules, decision.profile.as_ref());
            prop_assert_eq!(shown, expected, "minute {} of {:?}", at, world);
        }
    }

    #[test]
    fn until_and_available_at_and_the_next_changes_come_true(world in world()) {
        let world = World { manual: None, ..world };
        let expected = Oracle::new(&world).day();
        let mailbox = world.mailbox();
        let changes: Vec<i64> =
            (1..DAY).filter(|&at| expected[usize::try_from(at).unwrap()] != expected[usize::try_from(at - 1).unwrap()]).collect();
        for at in (0..DAY).step_by(7) {
            let decision = decide(&mailbox.rules, &mailbox.timetable, &mailbox.layers, minute(at));
            let coming: Vec<_> = changes.iter().copied().filter(|change| *change > at).map(minute).collect();
            let told: Vec<_> = decision.next_changes.iter().map(|change| change.at).filter(|at| *at < minute(DAY)).collect();
            prop_assert_eq!(&told[..], &coming[..coming.len().min(2)]);
            let endless = decision.layer == Layer::Base && decision.layers.base.as_ref().is_none_or(|base| base.until.is_none());
            let until = decision.until.filter(|until| *until < minute(DAY));
            prop_assert_eq!(until, if endless { None } else { coming.first().copied() });
            let here = usize::try_from(at).unwrap();
            let there = (here + 1..expected.len()).find(|&at| expected[at] == 11).filter(|_| expected[here] != 11);
            let there = there.map(|at| minute(i64::try_from(at).unwrap()));
            prop_assert_eq!(decision.available_at.filter(|at| *at < minute(DAY)), there);
        }
    }

    #[test]
    fn between_now_and_the_next_edge_nothing_changes(world in world()) {
        let mut mailbox = world.mailbox();
        let mut now = minute(-30);
        let mut left = 200;
        while let Some(edge) = {
            if world.manual.map(minute).is_some_and(|made| made == now) {
                mailbox.change("do-not-disturb", Lasting::OnPhone(None), now);
            }
            let decision = mailbox.at(now);
            if let Some(edge) = decision.next_edge {
                prop_assert!(edge > now);
                let half = now + edge.duration_since(now) / 2;
                for at in [half, edge - SignedDuration::from_nanos(1)] {
                    let later = decide(&mailbox.rules, &mailbox.timetable, &mailbox.layers, at);
                    prop_assert_eq!(&later.wanted, &decision.wanted);
                    prop_assert_eq!(&later.deciding, &decision.deciding);
                    prop_assert_eq!(&later.next_changes, &decision.next_changes);
                    prop_assert_eq!((later.until, later.layer), (decision.until, decision.layer));
                    prop_assert_eq!(later.available_at, decision.available_at);
                    prop_assert_eq!(later.next_edge, decision.next_edge);
                }
            }
            // The change by hand is an edge of the test's own.
            let made = world.manual.map(minute).filter(|made| *made > now);
            decision.next_edge.into_iter().chain(made).min()
        } {
            now = edge;
            left -= 1;
            prop_assert!(left > 0, "edges without end");
        }
    }

    #[test]
    fn looking_at_every_edge_or_never_comes_to_the_same(world in world()) {
        let world = World { manual: None, ..world };
        let mut watched = world.mailbox();
        let untouched = world.mailbox();
        for at in (0..DAY).step_by(3) {
            let once = decide(&untouched.rules, &untouched.timetable, &untouched.layers, minute(at));
            prop_assert_eq!(watched.at(minute(at)).wanted, once.wanted);
        }
    }

    #[test]
    fn the_preview_is_what_then_comes(world in world()) {
        let mut mailbox = world.mailbox();
        let stretches = preview(&mailbox.rules, &mailbox.timetable, &mailbox.layers, minute(0), minute(DAY));
        prop_assert_eq!(stretches[0].interval.start, minute(0));
        prop_assert_eq!(stretches[stretches.len() - 1].interval.end, minute(DAY));
        for (one, next) in stretches.iter().zip(&stretches[1..]) {
            prop_assert_eq!(one.interval.end, next.interval.start);
            prop_assert_ne!(&one.profile, &next.profile);
        }
        for at in 0..DAY {
            let stretch = stretches.iter().find(|stretch| stretch.interval.contains(minute(at))).unwrap();
            prop_assert_eq!(&mailbox.at(minute(at)).profile, &stretch.profile);
        }
    }

    #[test]
    fn i12_two_replicas_given_the_same_inputs_decide_the_same(world in world(), at in 0..DAY) {
        let mut one = world.mailbox();
        let made = world.manual.unwrap_or(0).min(at);
        one.change("do-not-disturb", Lasting::OnPhone(None), minute(made));
        let rules: Rules = serde_json::from_str(&serde_json::to_string(&one.rules).unwrap()).unwrap();
        let layers: Layers = serde_json::from_str(&serde_json::to_string(&one.layers).unwrap()).unwrap();
        let other = same_timetable_by_another_way(&rules, world.calendar());
        prop_assert_eq!(one.at(minute(at)), decide(&rules, &other, &layers, minute(at)));
    }
}
