//! Base, calendar and override (`semantics.md` 5.4 and 5.5).

use proptest::prelude::*;

use super::{Mailbox, found};
use crate::{
    decide::{Base, Lasting, Layer, Layers, ManualChange, What, manual_change},
    model::{EndTo, OverrideRule, Shown, Wanted},
    timetable::tests::{all_day, own, profile, rules, t},
};

fn meeting() -> [crate::model::CalendarEvent; 1] {
    [own("m", "MÖT", "10:00", "11:00")]
}

#[test]
fn nobody_has_set_anything_and_the_calendar_is_empty() {
    let decision = Mailbox::new(rules(), &[]).at(t("10:00"));
    assert_eq!((decision.profile, decision.layer), (Some(profile("available")), Layer::Base));
    assert_eq!((decision.until, decision.available_at, decision.next_edge), (None, None, None));
    let Wanted::Profile(outward) = decision.wanted else { panic!("a profile of ours") };
    assert_eq!((outward.label.as_str(), outward.note.as_str(), outward.until), ("Tillgänglig", "", None));
}

#[test]
fn after_an_event_the_base_shows_as_it_then_is() {
    let mut mailbox = Mailbox::new(rules(), &meeting());
    mailbox.base("lunch", Some(t("10:30")), t("09:30"));
    assert_eq!(mailbox.shows(t("09:45")), "lunch");
    assert_eq!(mailbox.shows(t("10:15")), "meeting");
    assert_eq!(mailbox.shows(t("11:00")), "available");
    assert_eq!(mailbox.layers, Layers::default(), "a base that has run out is gone");
    let mut lasting = Mailbox::new(rules(), &meeting());
    lasting.base("lunch", None, t("09:30"));
    assert_eq!(lasting.shows(t("10:15")), "meeting");
    assert_eq!(lasting.shows(t("11:00")), "lunch");
}

#[test]
fn a_base_ends_at_its_expiry_and_an_endless_one_has_no_until() {
    let mut mailbox = Mailbox::new(rules(), &[own("m", "MÖT", "12:30", "14:00")]);
    mailbox.base("lunch", Some(t("13:00")), t("11:00"));
    let decision = mailbox.at(t("12:00"));
    assert_eq!((decision.until, decision.available_at), (Some(t("12:30")), Some(t("14:00"))));
    mailbox.base("lunch", None, t("11:00"));
    let decision = mailbox.at(t("12:00"));
    assert_eq!((decision.until, decision.available_at), (None, None));
    assert_eq!(decision.next_edge, Some(t("12:30")));
}

#[test]
fn the_expiry_of_a_covered_base_is_an_edge() {
    let mut mailbox = Mailbox::new(rules(), &meeting());
    mailbox.base("lunch", Some(t("10:30")), t("09:30"));
    let decision = mailbox.at(t("10:15"));
    assert_eq!((decision.next_edge, decision.until), (Some(t("10:30")), Some(t("11:00"))));
}

#[test]
fn a_locked_base_keeps_the_calendar_off() {
    let mut rules = rules();
    rules.profiles[0].calendar_may_not_override = true;
    let mut mailbox = Mailbox::new(rules, &meeting());
    mailbox.base("sick", None, t("08:00"));
    assert_eq!(mailbox.shows(t("10:30")), "sick");
    // Taking it back by hand during the event wins over the event too.
    mailbox.change("available", Lasting::OnPhone(None), t("10:40"));
    assert_eq!(mailbox.shows(t("10:45")), "available");
    assert_eq!(mailbox.shows(t("11:30")), "available");
    assert_eq!(mailbox.layers.base.as_ref().unwrap().what, What::Profile(profile("available")));
}

#[test]
fn a_locked_profile_found_on_the_pbx_locks_too() {
    let mut rules = rules();
    rules.profiles[0].calendar_may_not_override = true;
    let mut mailbox = Mailbox::new(rules, &meeting());
    let what = What::AsFound { shown: found("xa"), profile: Some(profile("sick")) };
    mailbox.layers.base = Some(Base::new(what, t("08:00")));
    assert_eq!(mailbox.at(t("10:30")).wanted, Wanted::AsFound(found("xa")));
}

#[test]
fn events_may_end_in_available_until_a_base_is_set_anew() {
    let mut rules = rules();
    rules.end_to = EndTo::Available;
    let mut mailbox = Mailbox::new(rules, &meeting());
    mailbox.base("lunch", None, t("09:00"));
    assert_eq!(mailbox.shows(t("09:30")), "lunch");
    assert_eq!(mailbox.shows(t("10:30")), "meeting");
    assert_eq!(mailbox.shows(t("11:30")), "available");
    // The event leaves the window; the older base stays hidden.
    mailbox.recalendar(&[]);
    assert_eq!(mailbox.shows(t("20:00")), "available");
    mailbox.change("lunch", Lasting::UntilChanged, t("20:30"));
    assert_eq!(mailbox.shows(t("21:00")), "lunch");
}

#[test]
fn a_base_set_during_an_event_is_not_older_than_it() {
    let mut rules = rules();
    rules.end_to = EndTo::Available;
    let mut mailbox = Mailbox::new(rules, &meeting());
    mailbox.change("lunch", Lasting::UntilChanged, t("10:30"));
    assert_eq!(mailbox.shows(t("11:30")), "lunch");
}

#[test]
fn a_change_on_the_phone_during_an_event_wins_until_it_ends_and_is_no_base() {
    let mut mailbox = Mailbox::new(rules(), &meeting());
    mailbox.change("available", Lasting::OnPhone(None), t("10:30"));
    let decision = mailbox.at(t("10:30"));
    assert_eq!((decision.layer, decision.until), (Layer::Override, None));
    assert_eq!(decision.deciding.unwrap().event.as_str(), "m");
    assert_eq!(decision.next_edge, Some(t("11:00")));
    assert!(mailbox.layers.base.is_none());
    assert_eq!(mailbox.shows(t("11:00")), "available");
    assert!(mailbox.layers.override_.is_none());
}

#[test]
fn the_override_ends_with_the_event_that_was_deciding_whatever_else_runs() {
    let events = [own("m", "MÖT", "10:00", "11:00"), own("l", "LUN", "10:40", "12:00")];
    let mut mailbox = Mailbox::new(rules(), &events);
    mailbox.change("available", Lasting::OnPhone(None), t("10:30"));
    assert_eq!(mailbox.shows(t("10:45")), "available");
    assert_eq!(mailbox.shows(t("11:00")), "lunch");
    let mut strict = Mailbox::new(rules(), &events);
    strict.rules.override_rule = OverrideRule::UntilNextEvent;
    strict.change("available", Lasting::OnPhone(None), t("10:30"));
    assert_eq!(strict.shows(t("10:39")), "available");
    assert_eq!(strict.shows(t("10:40")), "lunch");
    // It ended for good, even if nobody looked while the other event was on.
    let short = [own("m", "MÖT", "10:00", "11:00"), own("l", "LUN", "10:40", "10:45")];
    let mut unseen = Mailbox::new(rules(), &short);
    unseen.rules.override_rule = OverrideRule::UntilNextEvent;
    unseen.change("available", Lasting::OnPhone(None), t("10:30"));
    assert_eq!(unseen.shows(t("10:50")), "meeting");
}

#[test]
fn the_calendar_may_be_made_to_win() {
    let mut mailbox = Mailbox::new(rules(), &meeting());
    mailbox.rules.override_rule = OverrideRule::CalendarWins;
    mailbox.change("available", Lasting::OnPhone(None), t("10:30"));
    assert_eq!(mailbox.shows(t("10:31")), "meeting");
    mailbox.change("lunch", Lasting::UntilChanged, t("10:30"));
    assert_eq!(mailbox.shows(t("10:31")), "meeting");
    assert_eq!(mailbox.shows(t("11:31")), "lunch");
}

#[test]
fn only_a_choice_for_longer_than_the_event_becomes_the_base() {
    for (lasting, base) in [
        (Lasting::OnPhone(None), None),
        (Lasting::RestOfEvent, None),
        (Lasting::OnPhone(Some(t("11:00"))), None),
        (Lasting::Until(t("11:00")), None),
        (Lasting::Until(t("10:45")), None),
        (Lasting::OnPhone(Some(t("12:00"))), Some(Some(t("12:00")))),
        (Lasting::Until(t("12:00")), Some(Some(t("12:00")))),
        (Lasting::UntilChanged, Some(None)),
    ] {
        let mut mailbox = Mailbox::new(rules(), &meeting());
        mailbox.change("lunch", lasting, t("10:30"));
        assert_eq!(mailbox.layers.base.as_ref().map(|base| base.until), base, "{lasting:?}");
        assert_eq!(mailbox.shows(t("10:40")), "lunch", "{lasting:?}");
        let later = if base.is_some() { "lunch" } else { "available" };
        assert_eq!(mailbox.shows(t("11:30")), later, "{lasting:?}");
        if lasting == Lasting::Until(t("10:45")) {
            let mut shorter = Mailbox::new(rules(), &meeting());
            shorter.change("lunch", lasting, t("10:30"));
            assert_eq!(shorter.at(t("10:40")).until, Some(t("10:45")));
            assert_eq!(shorter.shows(t("10:45")), "meeting", "its own end comes first");
        }
    }
}

#[test]
fn without_an_event_a_change_by_hand_is_the_base() {
    for (lasting, until) in [
        (Lasting::OnPhone(None), None),
        (Lasting::OnPhone(Some(t("09:00"))), Some(t("09:00"))),
        (Lasting::RestOfEvent, None),
        (Lasting::UntilChanged, None),
        (Lasting::Until(t("09:00")), Some(t("09:00"))),
    ] {
        let mut mailbox = Mailbox::new(rules(), &meeting());
        mailbox.change("lunch", lasting, t("08:00"));
        let expected = Base { until, ..Base::new(What::Profile(profile("lunch")), t("08:00")) };
        assert_eq!((mailbox.layers.base.as_ref(), &mailbox.layers.override_), (Some(&expected), &None));
    }
}

#[test]
fn an_end_that_has_passed_is_none_on_the_phone_and_voids_a_choice_elsewhere() {
    let mut mailbox = Mailbox::new(rules(), &[]);
    mailbox.change("lunch", Lasting::OnPhone(Some(t("07:00"))), t("08:00"));
    assert_eq!(mailbox.shows(t("08:00")), "lunch");
    mailbox.change("meeting", Lasting::Until(t("08:00")), t("08:30"));
    assert_eq!(mailbox.shows(t("08:30")), "lunch");
}

#[test]
fn what_was_found_on_the_pbx_is_put_back_as_it_was_found() {
    let mut mailbox = Mailbox::new(rules(), &meeting());
    let strange = What::AsFound { shown: found("chat"), profile: None };
    let change = ManualChange { what: strange, lasting: Lasting::OnPhone(None) };
    mailbox.layers = manual_change(&mailbox.rules, &mailbox.timetable, &mailbox.layers, change, t("09:00"));
    let decision = mailbox.at(t("09:30"));
    assert_eq!((decision.wanted, decision.profile), (Wanted::AsFound(found("chat")), None));
    assert_eq!(mailbox.shows(t("10:30")), "meeting");
    assert_eq!(mailbox.at(t("11:30")).wanted, Wanted::AsFound(found("chat")));
}

#[test]
fn a_bridged_gap_and_a_tail_belong_to_the_overridden_event() {
    let mut rules = rules();
    rules.bridge_secs = 300;
    let events = [own("a", "MÖT", "10:00", "11:00"), own("b", "MÖT", "11:05", "12:00")];
    let mut mailbox = Mailbox::new(rules.clone(), &events);
    mailbox.change("available", Lasting::OnPhone(None), t("10:30"));
    assert_eq!(mailbox.at(t("11:02")).layer, Layer::Override);
    assert_eq!(mailbox.shows(t("11:05")), "meeting");
    let meeting = rules.profiles.iter_mut().find(|profile| profile.id.as_str() == "meeting").unwrap();
    meeting.after_end_secs = 300;
    let mut tailed = Mailbox::new(rules, &events[..1]);
    tailed.change("lunch", Lasting::OnPhone(None), t("10:30"));
    assert_eq!(tailed.shows(t("11:04")), "lunch");
    assert_eq!(tailed.shows(t("11:05")), "available");
}

#[test]
fn a_profile_that_the_company_has_removed_is_no_base_and_no_override() {
    let mut mailbox = Mailbox::new(rules(), &meeting());
    mailbox.base("gone", None, t("08:00"));
    assert_eq!(mailbox.shows(t("09:00")), "available");
    mailbox.change("gone", Lasting::OnPhone(None), t("10:30"));
    assert_eq!(mailbox.shows(t("10:31")), "meeting");
    mailbox.rules.profiles.clear();
    assert_eq!(mailbox.at(t("10:31")).wanted, Wanted::AsFound(Shown::default()));
}

#[test]
fn unknown_fields_of_a_newer_release_survive_in_the_layers() {
    let mut mailbox = Mailbox::new(rules(), &meeting());
    mailbox.change("lunch", Lasting::UntilChanged, t("10:30"));
    let mut stored = serde_json::to_value(&mailbox.layers).unwrap();
    for place in ["base", "override"] {
        stored[place]["novel"] = 1.into();
    }
    stored["novel"] = 2.into();
    mailbox.layers = serde_json::from_value(stored.clone()).unwrap();
    mailbox.at(t("10:40"));
    assert_eq!(serde_json::to_value(&mailbox.layers).unwrap(), stored);
    assert_eq!(serde_json::from_str::<Layers>("{}").unwrap(), Layers::default());
}

#[test]
fn available_at_skips_what_is_only_another_absence() {
    let events = [
        own("m", "MÖT", "10:00", "11:00"),
        own("l", "LUN", "11:00", "12:00"),
        all_day("h", "HOL", "2026-11-24", "2026-11-26"),
    ];
    let mut mailbox = Mailbox::new(rules(), &events);
    let decision = mailbox.at(t("10:30"));
    assert_eq!((decision.until, decision.available_at), (Some(t("11:00")), Some(t("12:00"))));
    let next: Vec<_> =
        decision.next_changes.iter().map(|next| (next.at, next.profile.clone().unwrap())).collect();
    assert_eq!(next, [(t("11:00"), profile("lunch")), (t("12:00"), profile("available"))]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn i11_a_manual_change_is_respected_until_the_event_ends(
        start in 0..60_i64, length in 2..120_i64, others in prop::collection::vec((0..180_i64, 1..120_i64, 0..3_usize), 0..4),
        made in 0..120_i64, chosen in 0..12_usize,
    ) {
        let minutes = |n: i64| t("08:00") + jiff::SignedDuration::from_mins(n);
        let event = |id: &str, word: &str, from: i64, length: i64| crate::model::CalendarEvent {
            when: crate::timetable::tests::timed(minutes(from), minutes(from + length)),
            ..own(id, word, "00:00", "00:00")
        };
        let mut events = vec![event("own", "DND", start, length)];
        for (number, (from, length, word)) in others.into_iter().enumerate() {
            events.push(event(&format!("o{number}"), ["LUN", "MÖT", "Sick"][word], from, length));
        }
        let mut mailbox = Mailbox::new(rules(), &events);
        let made = minutes(start + made % length);
        let Some(deciding) = mailbox.at(made).deciding else { panic!("an event is on") };
        let end = mailbox.timetable.spans(&mailbox.rules).into_iter()
            .find(|span| span.event == deciding).unwrap().interval.end;
        let chosen = mailbox.rules.profiles[chosen].id.to_string();
        mailbox.change(&chosen, Lasting::OnPhone(None), made);
        let without = Mailbox::new(rules(), &events);
        for at in (0..300).map(minutes).filter(|at| *at >= made) {
            let shown = mailbox.shows(at);
            if at < end {
                prop_assert_eq!(&shown, &chosen, "at {}", at);
            } else {
                let mut plain = Mailbox { layers: Layers::default(), rules: without.rules.clone(), timetable: without.timetable.clone() };
                prop_assert_eq!(shown, plain.shows(at), "normal rules at {}", at);
            }
        }
    }
}
