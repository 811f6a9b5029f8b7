//! Users come, change and go, and so do their words.

use narvaro_sim::{EventSpec, UserSpec};

use crate::world::{ANNA, Pbx, World, at};

const BO: &str = "bo@acme.example";

/// Company `acme` with these users.
fn acme(world: &World, users: &[(&str, &str, &str)]) -> String {
    world.file("acme", "", "", &world.http_pbx("acme"), users)
}

fn during(subject: &str) -> EventSpec {
    EventSpec::new(subject).at(at("2026-11-23 07:30"), at("2026-11-23 17:00"))
}

#[tokio::test]
async fn an_alias_that_is_not_the_primary_address_works_and_is_told() {
    let world = World::bare().await;
    let spec = UserSpec { proxies: vec!["a.berg@acme.example".to_owned()], ..UserSpec::new(ANNA) };
    world.sim.add_user(&world.tenant, spec).unwrap();
    world.apply(&acme(&world, &[("201", "a.berg@acme.example", "")])).await;
    world.consent("acme").await;
    world.until_fine("acme").await;
    world.add(during("MÖT"));
    world.settle().await;
    assert_eq!(world.shows("201").profile, "meeting");
    world.expect_trouble("alias_not_primary").await;
    let health = world.mailbox("acme", "201").await.health;
    assert!(health.cause.contains(ANNA) || health.cure.contains(ANNA), "{health:?}");
    world.end().await;
}

#[tokio::test]
async fn users_with_words_of_their_own_are_each_steered_by_theirs() {
    let world = World::new().await;
    let file = acme(
        &world,
        &[
            ("201", ANNA, "triggers = { lunch = \"PADEL\" }\ndisabled_words = \"MÖT\""),
            ("202", BO, "triggers = { do-not-disturb = \"PADEL\" }"),
        ],
    );
    world.apply(&file).await;
    world.settle().await;
    for alias in [ANNA, BO] {
        world.sim.add_event(alias, during("PADEL")).unwrap();
    }
    world.settle().await;
    assert_eq!(
        (world.shows("201").profile, world.shows("202").profile),
        ("lunch".into(), "do-not-disturb".into())
    );
    for alias in [ANNA, BO] {
        for (ids, _) in world.sim.events(alias).unwrap() {
            world.sim.delete_event(alias, &ids.id).unwrap();
        }
        world.sim.add_event(alias, during("MÖT")).unwrap();
    }
    world.settle().await;
    assert_eq!(
        (world.shows("201").profile, world.shows("202").profile),
        ("available".into(), "meeting".into())
    );
    world.end().await;
}

#[tokio::test]
async fn a_user_who_is_switched_off_is_left_and_taken_back_when_switched_on() {
    let world = World::new().await;
    world.add(during("MÖT"));
    world.settle().await;
    assert_eq!(world.shows("201").profile, "meeting");
    world.apply(&acme(&world, &[("201", ANNA, "enabled = false"), ("202", BO, "")])).await;
    world.settle().await;
    assert_eq!(world.shows("201").profile, "available");
    assert_eq!(world.subscriptions(ANNA), []);
    assert_eq!(world.health().await, "disabled");
    let calls = world.sim.journal().graph_calls().len();
    world.add(during("Sick"));
    world.settle().await;
    assert_eq!(world.shows("201").profile, "available");
    assert_eq!(world.sim.journal().graph_calls().len(), calls, "the calendar is left alone");

    world.apply(&world.company(Pbx::Http, "")).await;
    world.settle().await;
    assert_eq!(world.shows("201").profile, "sick");
    assert_eq!(world.subscriptions(ANNA).len(), 1);
    assert_eq!(world.health().await, "fine");
    world.end().await;
}

#[tokio::test]
async fn a_user_who_is_taken_out_is_left_and_forgotten() {
    let mut world = World::new().await;
    world.add(during("MÖT"));
    world.settle().await;
    assert_eq!(world.shows("201").profile, "meeting");
    world.apply(&acme(&world, &[("202", BO, "")])).await;
    world.settle().await;
    assert_eq!(world.shows("201").profile, "available");
    assert_eq!(world.subscriptions(ANNA), []);
    assert_eq!(world.subscriptions(BO).len(), 1);
    assert_eq!(world.app().depth().await.unwrap().mailboxes, 1);
    world.restart().await;
    world.settle().await;
    assert_eq!(
        (world.app().depth().await.unwrap().mailboxes, world.shows("201").profile),
        (1, "available".into())
    );
    world.end().await;
}

#[tokio::test]
async fn a_user_who_is_taken_out_while_the_pbx_is_away_is_left_once_it_is_back() {
    let world = World::new().await;
    world.add(during("MÖT"));
    world.settle().await;
    let away = narvaro_sim::PbxFault::Status { status: 503, retry_after: None };
    world.sim.pbx().fault("acme", 1_000, away);
    world.apply(&acme(&world, &[("202", BO, "")])).await;
    world.pass(20).await;
    assert_eq!(world.shows("201").profile, "meeting");
    world.sim.pbx().clear_faults("acme");
    world.advance_to("2026-11-23 08:30").await;
    assert_eq!(world.shows("201").profile, "available");
    assert_eq!(world.app().depth().await.unwrap().mailboxes, 1);
    world.end().await;
}

#[tokio::test]
async fn an_alias_that_is_changed_leads_to_the_other_calendar() {
    let world = World::new().await;
    world.sim.add_user(&world.tenant, UserSpec::new("eva@acme.example")).unwrap();
    world.sim.add_event("eva@acme.example", during("Sick")).unwrap();
    world.add(during("MÖT"));
    world.settle().await;
    world.apply(&acme(&world, &[("201", "eva@acme.example", ""), ("202", BO, "")])).await;
    world.settle().await;
    assert_eq!(world.shows("201").profile, "sick");
    assert_eq!(world.subscriptions(ANNA), []);
    assert_eq!(world.subscriptions("eva@acme.example").len(), 1);
    world.end().await;
}

#[tokio::test]
async fn changed_trigger_words_take_effect_when_applied() {
    let world = World::new().await;
    world.add(during("PADEL"));
    world.settle().await;
    assert_eq!(world.shows("201").profile, "available");
    let words = |list: &str| {
        let profile = format!("[[profiles]]\nid = \"lunch\"\nadd_triggers = \"{list}\"");
        world.file(
            "acme",
            "",
            "",
            &format!("{}\n{profile}", world.http_pbx("acme")),
            &[("201", ANNA, ""), ("202", BO, "")],
        )
    };
    world.apply(&words("PADEL; TENNIS")).await;
    world.settle().await;
    assert_eq!(world.shows("201").profile, "lunch");
    world.apply(&words("TENNIS")).await;
    world.settle().await;
    assert_eq!(world.shows("201").profile, "available");
    world.end().await;
}

#[tokio::test]
async fn an_apply_costs_every_user_one_turn() {
    let world = World::new().await;
    world.sim.add_user(&world.tenant, UserSpec::new("eva@acme.example")).unwrap();
    let reads = || {
        let calls = world.sim.journal().graph_calls();
        calls.iter().filter(|call| call.path.contains("/calendarView/delta")).count()
    };
    let before = reads();
    let words = "triggers = { lunch = \"PADEL\" }";
    world
        .apply(&acme(&world, &[("201", ANNA, words), ("202", BO, ""), ("203", "eva@acme.example", "")]))
        .await;
    world.settle().await;
    assert_eq!(reads() - before, 3);
    world.end().await;
}

/// With several threads, turns begin while the company is still being put to work.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_applied_is_what_every_user_goes_by_whoever_was_first() {
    let world = World::bare().await;
    let users: Vec<(String, String)> =
        (0..60).map(|n| (format!("3{n:02}"), format!("user{n}@acme.example"))).collect();
    for (_, alias) in &users {
        world.sim.add_user(&world.tenant, UserSpec::new(alias)).unwrap();
        world.sim.add_event(alias, during("PADEL")).unwrap();
    }
    let file = |profile: &str| {
        let lines = format!("triggers = {{ {profile} = \"PADEL\" }}");
        let users: Vec<(&str, &str, &str)> = users
            .iter()
            .map(|(extension, alias)| (extension.as_str(), alias.as_str(), lines.as_str()))
            .collect();
        acme(&world, &users)
    };
    world.apply(&file("lunch")).await;
    world.consent("acme").await;
    world.until_fine("acme").await;
    for profile in ["meeting", "sick", "lunch"] {
        world.apply(&file(profile)).await;
        world.settle().await;
        for (extension, _) in &users {
            assert_eq!(world.shows(extension).profile, profile, "extension {extension}");
        }
    }
    world.end().await;
}
