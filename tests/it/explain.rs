//! `explain` says of the present what the PBX shows and what is in the way, and of other times what is not known.

use narvaro::{
    admin::{ExplainRequest, Explained},
    model::Language,
};
use narvaro_sim::PbxFault;

use crate::world::{ANNA, World, at};

async fn explain(world: &World, when: Option<&str>, language: Language) -> Explained {
    let request = ExplainRequest {
        company: Some("acme".parse().unwrap()),
        user: "201".to_owned(),
        at: when.map(at),
        language: Some(language),
    };
    world.operations().explain(request).await.unwrap()
}

fn says(explained: &Explained, sentence: &str) {
    assert!(explained.lines.iter().any(|line| line.contains(sentence)), "`{sentence}` in {explained:#?}");
}

#[tokio::test]
async fn what_the_pbx_shows_is_told_with_the_answer() {
    let world = World::new().await;
    world.event("MÖT", "2026-11-23 07:30", "2026-11-23 09:00");
    world.settle().await;
    let explained = explain(&world, None, Language::En).await;
    says(&explained, "At 08:00 the phone shows “Meeting”.");
    says(&explained, "The PBX shows “Möte” since 2026-11-23 08:00.");
    assert_eq!(explained.troubles, []);
    assert_eq!(explained.shown.unwrap().label, "Möte");
    let later = explain(&world, Some("2026-11-23 12:00"), Language::En).await;
    assert!(later.shown.is_none() && !later.lines.iter().any(|line| line.contains("PBX")), "{later:#?}");
    world.end().await;
}

#[tokio::test]
async fn a_pbx_that_did_not_take_the_change_is_told_with_cause_cure_and_the_next_try() {
    let world = World::new().await;
    world.sim.pbx().fault("acme", 100_000, PbxFault::Drop);
    world.event("MÖT", "2026-11-23 07:30", "2026-11-23 16:00");
    world.pass(30).await;
    let explained = explain(&world, None, Language::Sv).await;
    assert_eq!(explained.lines[0], "Klockan 08:00 ska “Möte” visas.");
    says(
        &explained,
        "Men växeln visar “Tillgänglig” sedan 2026-11-23 08:00: den har inte tagit emot ändringen.",
    );
    says(&explained, "Fel: Växeln svarar inte");
    says(&explained, "Åtgärd: Kontrollera växelns adress");
    says(&explained, "Nästa försök: 2026-11-23 08:");
    assert_eq!(explained.troubles[0].health.name(), "pbx_unreachable");
    says(&explain(&world, None, Language::En).await, "Cure: Check address, port and firewall of the PBX");
    world.sim.pbx().clear_faults("acme");
    world.pass(120).await;
    assert_eq!(explain(&world, None, Language::Sv).await.troubles, []);
    world.end().await;
}

#[tokio::test]
async fn a_calendar_that_cannot_be_read_is_told_beside_what_is_known() {
    let world = World::new().await;
    world.sim.set_mailbox(ANNA, narvaro_sim::MailboxKind::Denied).unwrap();
    world.operations().sync_now(narvaro::admin::SyncRequest::default()).await.unwrap();
    world.settle().await;
    let explained = explain(&world, None, Language::En).await;
    says(&explained, "the phone shows “Available”");
    says(&explained, "Trouble: Microsoft 365 forbids us to read this mailbox");
    says(&explained, "Cure: Let the company's administrator grant");
    world.sim.set_mailbox(ANNA, narvaro_sim::MailboxKind::Licensed).unwrap();
    world.end().await;
}

#[tokio::test]
async fn a_time_that_no_reading_reaches_is_not_known() {
    let world = World::new().await;
    for when in ["2026-11-21 12:00", "2027-01-15 12:00"] {
        let english = explain(&world, Some(when), Language::En).await;
        says(
            &english,
            &format!(
                "What shows at {when} is not known: the calendar has been read from 2026-11-22 08:00 to \
                 2026-12-28 08:00."
            ),
        );
        assert!(english.details.is_null() && english.read.is_some_and(|read| !read.contains(at(when))));
        assert!(!english.lines.iter().any(|line| line.contains("Available")), "{english:#?}");
        says(
            &explain(&world, Some(when), Language::Sv).await,
            &format!(
                "Vad som visas {when} är inte känt: kalendern är läst från 2026-11-22 08:00 till 2026-12-28 08:00."
            ),
        );
    }
    says(&explain(&world, Some("2026-12-27 12:00"), Language::En).await, "the phone shows “Available”");
    world.end().await;
}

#[tokio::test]
async fn before_the_first_reading_nothing_is_known_and_the_reason_is_told() {
    let world = World::bare().await;
    world.apply(&world.file("acme", "", "", &world.http_pbx("acme"), &[("201", ANNA, "")])).await;
    world.settle().await;
    for (when, moment) in [(None, "08:00"), (Some("2026-11-23 15:00"), "15:00")] {
        let explained = explain(&world, when, Language::En).await;
        says(
            &explained,
            &format!("What is to show at 2026-11-23 {moment} is not known: the calendar has not been read."),
        );
        says(&explained, "Trouble: The company's administrator has not given consent");
        says(&explained, "Cure: Run `narvaro consent-url`");
        assert_eq!(explained.read, None);
    }
    world.end().await;
}
