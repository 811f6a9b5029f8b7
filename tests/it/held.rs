//! A person outside who invites cannot steer a phone by renaming, whatever is applied meanwhile; new words can.

use narvaro_sim::{EventSpec, Response, UserSpec};

use crate::world::{ANNA, Pbx, World, at};

const BO: &str = "bo@acme.example";

/// An invitation from outside that Anna has accepted; its id.
async fn invited(world: &World, subject: &str) -> String {
    let spec = EventSpec::new(subject).at(at("2026-11-23 07:30"), at("2026-11-23 09:30"));
    let id = world.add(spec.invited_by("mallory@elsewhere.example", Response::Accepted));
    world.settle().await;
    id
}

/// A world in which Anna's meeting was renamed from outside to something else, and nobody was told.
async fn renamed_unnoticed() -> World {
    let world = World::new().await;
    let id = invited(&world, "MÖT").await;
    assert_eq!(world.anna(), "meeting: Möte till 09:30");
    world.sim.delivery(|knobs| knobs.drop = 1.0);
    world.patch(&id, EventSpec::new("Sick")).await;
    world.sim.delivery(|knobs| knobs.drop = 0.0);
    world
}

/// Company `acme` with more settings, with these lines of Anna's and these others.
fn acme(world: &World, settings: &str, annas: &str, others: &[(&str, &str, &str)]) -> String {
    let users: Vec<_> = [("201", ANNA, annas)].into_iter().chain(others.iter().copied()).collect();
    world.file("acme", "", "", &format!("{}\n{settings}", world.http_pbx("acme")), &users)
}

#[tokio::test]
async fn an_apply_about_others_leaves_held_what_was_renamed_before_it() {
    let mut world = renamed_unnoticed().await;
    world.sim.add_user(&world.tenant, UserSpec::new("carl@acme.example")).unwrap();
    let others = [("212", BO, "triggers = { lunch = \"MÖT\" }"), ("203", "carl@acme.example", "")];
    world.apply(&acme(&world, "", "name = \"Anna\"", &others)).await;
    world.settle().await;
    assert_eq!(world.anna(), "meeting: Möte till 09:30");
    let told = world.explained("201").await.lines.join("\n");
    assert!(told.contains("Sjuk"), "the renaming was seen: {told}");
    world.restart().await;
    world.settle().await;
    assert_eq!(world.anna(), "meeting: Möte till 09:30");
    world.end().await;
}

#[tokio::test]
async fn an_apply_of_what_chooses_no_words_leaves_held_what_was_renamed_before_it() {
    let world = renamed_unnoticed().await;
    let more = "time_zone = \"Europe/Helsinki\"\nbridge_secs = 60";
    let file = world.company(Pbx::Http, more).replace("language = \"sv\"", "language = \"en\"")
        + "[counting]\ntentative = true";
    world.apply(&file).await;
    world.settle().await;
    assert_eq!(world.anna(), "meeting: Meeting until 09:30", "of the same event the new language tells");
    world.end().await;
}

#[tokio::test]
async fn a_company_that_chooses_to_follow_follows_at_once() {
    let world = renamed_unnoticed().await;
    let follow = "[counting]\nexternal_subject_change = \"follow\"";
    world.apply(&acme(&world, follow, "", &[("202", BO, "")])).await;
    world.settle().await;
    assert_eq!(world.shows("201").profile, "sick");
    world.end().await;
}

#[tokio::test]
async fn new_words_that_concern_a_user_reach_held_events_at_once_and_those_of_others_do_not() {
    let world = World::new().await;
    invited(&world, "PADEL").await;
    let companys = "[[profiles]]\nid = \"lunch\"\nadd_triggers = \"PADEL\"";
    let own = |profile: &str| format!("triggers = {{ {profile} = \"PADEL\" }}");
    for (settings, annas, bos, profile) in [
        ("", "", own("sick"), "available"),
        ("", &*own("lunch"), own("sick"), "lunch"),
        ("", &*own("meeting"), String::new(), "meeting"),
        ("", "", String::new(), "available"),
        (companys, "", String::new(), "lunch"),
        (companys, "disabled_words = \"PADEL\"", String::new(), "available"),
    ] {
        world.apply(&acme(&world, settings, annas, &[("202", BO, &bos)])).await;
        world.settle().await;
        assert_eq!(world.shows("201").profile, profile, "{settings} {annas} {bos}");
    }
    world.end().await;
}
