//! The story: one company, one event, there and back. Each step is checked as it is told.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::{SignedDuration, ToSpan, Unit};
use narvaro_sim::{DeliveryOutcome, Entry, EventSpec, Journal, Record};
use serde_json::Value;

use crate::{Fallible, stage::Stage, voice::Voice};

const COMPANY: &str = "acme";
const ANNA: &str = "anna@acme.example";
const EXTENSION: &str = "201";
const USERS: usize = 2;

/// How long one step may take; far more than it needs.
const STEP_WITHIN: Duration = Duration::from_secs(15);
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// How far ahead the event is, and how long it lasts, in seconds.
const STARTS_IN: i64 = 3;
const LASTS: i64 = 4;

/// Real subject lines with what they must do.
const SUBJECTS: [(&str, Option<&str>); 3] =
    [("MÖT: budget", Some("meeting")), ("Lunch med Anna", Some("lunch")), ("Resa till Stockholm", None)];

/// The measured times, in the order measured.
type Times = Vec<(String, SignedDuration)>;

/// Tells all of it.
///
/// # Errors
/// The first step that does not hold.
pub(crate) async fn tell(stage: &mut Stage, voice: &Voice) -> Fallible<()> {
    let mut times = Times::new();
    start(stage, voice).await?;
    consent(stage, voice, &mut times).await?;
    try_subjects(stage, voice).await?;
    near_miss(stage, voice).await?;
    event(stage, voice, &mut times).await?;
    running_event(stage, voice, &mut times).await?;
    end(stage, voice, &times)
}

async fn start(stage: &mut Stage, voice: &Voice) -> Fallible<()> {
    voice.chapter("1. The service starts, on its embedded store");
    stage.start_service().await?;
    voice.say(&format!("ready: public http://{}, private http://{}", stage.public, stage.private));
    voice.say(&format!("Graph, login and PBX stand-ins: {}", stage.sim.base_url()));
    let applied = stage.service()?.ask(&["apply", "company.toml"]).await?;
    voice.command(&applied.command, &applied.text);
    demand(applied.text.contains("applied as revision 1"), "the company is not applied")
}

async fn consent(stage: &Stage, voice: &Voice, times: &mut Times) -> Fallible<()> {
    voice.chapter("2. The company's administrator consents, and subscriptions are made");
    let asked = stage.service()?.ask(&["consent-url", COMPANY]).await?;
    voice.command(&asked.command, &asked.text);
    let address = asked.text.lines().next().unwrap_or_default();
    let before = stage.sim.journal().last_seq();
    let page = stage.client.get(address).send().await?;
    let status = page.status();
    let page = page.text().await?;
    let title = between(&page, "<h1>", "</h1>");
    demand(status.is_success(), &format!("the consent page answered {status}"))?;
    let consented = seen(
        stage,
        before,
        "the consent",
        |record| matches!(record, Record::Consent { outcome, .. } if outcome == "granted"),
    )
    .await?;
    voice.say(&format!("the administrator opens it and accepts; the page then says \"{title}\""));

    let handshakes = |lifecycle: bool| move |record: &Record| matches!(record, Record::Handshake { lifecycle: kind, problem: None, .. } if *kind == lifecycle);
    let created = |record: &Record| matches!(record, Record::Graph(call) if call.method == "POST" && call.path.ends_with("/subscriptions") && call.status == 201);
    for (what, wanted) in [
        ("validation handshake at the notification address", &handshakes(false) as &dyn Fn(&Record) -> bool),
        ("validation handshake at the lifecycle address", &handshakes(true)),
        ("subscription created", &created),
    ] {
        let all = seen_all(stage, before, what, USERS, wanted).await?;
        for entry in &all {
            voice.say(&format!("{what}, {} ms after consent", since(&consented, entry).as_millis()));
        }
        if let Some(last) = all.last() {
            times.push((format!("consent → {what} (last of {USERS})"), since(&consented, last)));
        }
    }
    until_proven(stage).await?;
    let status = stage.service()?.ask(&["status"]).await?;
    voice.command(&status.command, &status.text);
    Ok(())
}

/// Waits until the service itself says that each mailbox is read and watched.
async fn until_proven(stage: &Stage) -> Fallible<()> {
    let end = Instant::now() + STEP_WITHIN;
    loop {
        let status = stage.service()?.ask(&["status", "--json"]).await?;
        let status: Value = serde_json::from_str(&status.text)?;
        let mailboxes = status["companies"][0]["mailboxes"].as_array().cloned().unwrap_or_default();
        let is_proven = |mailbox: &Value| {
            mailbox["proven_until"].is_string() && mailbox["subscription_expires"].is_string()
        };
        if mailboxes.len() == USERS && mailboxes.iter().all(is_proven) {
            return Ok(());
        }
        demand(Instant::now() < end, "not every mailbox was read and watched in time")?;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn try_subjects(stage: &Stage, voice: &Voice) -> Fallible<()> {
    voice.chapter("3. What would a subject do?");
    for (subject, profile) in SUBJECTS {
        let tried = stage.service()?.ask(&["try", subject, "--company", COMPANY, "--lang", "en"]).await?;
        voice.command(&tried.command, &tried.text);
        let tried = stage.service()?.ask(&["try", subject, "--company", COMPANY, "--json"]).await?;
        let tried: Value = serde_json::from_str(&tried.text)?;
        demand(
            tried["profile"].as_str() == profile,
            &format!("`{subject}` gives {}, not {profile:?}", tried["profile"]),
        )?;
    }
    Ok(())
}

async fn near_miss(stage: &Stage, voice: &Voice) -> Fallible<()> {
    let (subject, _) = SUBJECTS[2];
    voice.chapter(&format!(
        "4. A near miss: HOL, the code for holiday, stands inside \"{subject}\" and must not count"
    ));
    let before = stage.sim.journal().last_seq();
    let spec = EventSpec { in_secs: Some(-60), for_secs: Some(1_800), ..EventSpec::new(subject) };
    stage.sim.add_event(ANNA, spec)?;
    let (notified, delivered) = delivered(stage, before).await?;
    voice.say(&format!(
        "created; notification accepted {} ms later",
        since(&notified, &delivered).as_millis()
    ));
    let read = seen(stage, notified.seq, "the read", is_read).await?;
    voice.say(&format!("calendar read {} ms after the change", since(&notified, &read).as_millis()));
    let explained = stage.service()?.ask(&["explain", EXTENSION, "--lang", "en"]).await?;
    voice.command(&explained.command, &explained.text);
    let writes =
        stage.sim.journal().since(before).iter().filter(|entry| write(&entry.record).is_some()).count();
    demand(writes == 0, "the telephone was changed")
}

async fn event(stage: &Stage, voice: &Voice, times: &mut Times) -> Fallible<()> {
    let (subject, profile) = SUBJECTS[0];
    voice.chapter(&format!("5. An event: \"{subject}\", in {STARTS_IN} s, for {LASTS} s"));
    let before = stage.sim.journal().last_seq();
    // Calendars know whole seconds at best.
    let start = stage.sim.clock().now().round(Unit::Second)? + STARTS_IN.seconds();
    let end = start + LASTS.seconds();
    stage.sim.add_event(ANNA, EventSpec::new(subject).at(start, end))?;
    let (notified, delivered) = delivered(stage, before).await?;
    voice.say("created in Anna's calendar");
    voice.say(&format!("notification accepted {} ms later", since(&notified, &delivered).as_millis()));
    times.push(("event created → notification accepted (202)".to_owned(), since(&notified, &delivered)));
    let read = seen(stage, notified.seq, "the read", is_read).await?;
    voice.say(&format!("calendar read {} ms after the change", since(&notified, &read).as_millis()));
    times.push(("event created → calendar read".to_owned(), since(&notified, &read)));

    let shown = seen(stage, notified.seq, "the event's presence", |record| shows(record, profile)).await?;
    let late = shown.at.duration_since(start);
    demand(!late.is_negative(), "presence was written before the event started")?;
    let text = write(&shown.record).and_then(|write| write.text.clone()).unwrap_or_default();
    voice.say(&format!("presence written {} ms after the start: 201 shows \"{text}\"", late.as_millis()));
    demand(text.starts_with("Möte till "), "the text names neither profile nor return time")?;
    times.push(("event starts → presence written".to_owned(), late));
    let explained = stage.service()?.ask(&["explain", EXTENSION, "--lang", "en"]).await?;
    voice.command(&explained.command, &explained.text);
    demand(explained.text.contains("MÖT"), "`explain` does not name the trigger word")?;

    let back = seen(stage, shown.seq, "the way back", |record| shows(record, Some("available"))).await?;
    let late = back.at.duration_since(end);
    demand(!late.is_negative(), "presence was taken back before the event ended")?;
    voice.say(&format!(
        "span ends; back to base {} ms after it: 201 shows \"{}\"",
        late.as_millis(),
        on_phone(stage)
    ));
    times.push(("event ends → back to base".to_owned(), late));
    Ok(())
}

async fn running_event(stage: &Stage, voice: &Voice, times: &mut Times) -> Fallible<()> {
    let (subject, profile) = SUBJECTS[1];
    voice.chapter(&format!(
        "6. An event that has begun already: \"{subject}\", created late and then deleted"
    ));
    let before = stage.sim.journal().last_seq();
    let spec = EventSpec { in_secs: Some(-60), for_secs: Some(1_800), ..EventSpec::new(subject) };
    let ids = stage.sim.add_event(ANNA, spec)?;
    let (notified, _) = delivered(stage, before).await?;
    let shown = seen(stage, before, "the event's presence", |record| shows(record, profile)).await?;
    voice.say(&format!(
        "created; 201 shows \"{}\" {} ms later",
        on_phone(stage),
        since(&notified, &shown).as_millis()
    ));
    times.push(("running event created → presence written".to_owned(), since(&notified, &shown)));

    stage.sim.delete_event(ANNA, &ids.id)?;
    let (notified, _) = delivered(stage, shown.seq).await?;
    let back = seen(stage, shown.seq, "the way back", |record| shows(record, Some("available"))).await?;
    voice.say(&format!("deleted; back to base {} ms later", since(&notified, &back).as_millis()));
    times.push(("event deleted → back to base".to_owned(), since(&notified, &back)));
    Ok(())
}

fn end(stage: &Stage, voice: &Voice, times: &Times) -> Fallible<()> {
    let violations = stage.sim.violations();
    demand(violations.is_empty(), &format!("the simulators object: {violations:?}"))?;
    voice.chapter("Measured, by the simulators' journal, in real time:");
    voice.table(times);
    voice.plain("\nEvery step held; the simulators object to nothing.");
    Ok(())
}

/// The change and the accepted notification of it.
async fn delivered(stage: &Stage, after: u64) -> Fallible<(Arc<Entry>, Arc<Entry>)> {
    let notified =
        seen(stage, after, "the change", |record| matches!(record, Record::Notified { .. })).await?;
    let Record::Notified { id, .. } = &notified.record else { return Err("no notification".into()) };
    let delivered = seen(stage, after, "the notification", |record| {
        matches!(record, Record::Delivery(attempt)
            if attempt.notifications.contains(id) && attempt.outcome == DeliveryOutcome::Delivered)
    })
    .await?;
    Ok((notified, delivered))
}

fn is_read(record: &Record) -> bool {
    matches!(record, Record::Graph(call) if call.method == "GET" && call.status == 200 && call.mailbox.is_some())
}

fn write(record: &Record) -> Option<&narvaro_sim::PbxWrite> {
    match record {
        Record::Pbx(write) if write.applied && write.extension == EXTENSION => Some(write),
        _ => None,
    }
}

fn shows(record: &Record, profile: Option<&str>) -> bool {
    write(record).is_some_and(|write| Some(write.profile.as_str()) == profile)
}

fn on_phone(stage: &Stage) -> String {
    let shown = stage.sim.pbx().presence(COMPANY, EXTENSION);
    shown.text.filter(|text| !text.is_empty()).unwrap_or(shown.profile)
}

/// The first entry after number `after` that is wanted.
async fn seen(
    stage: &Stage,
    after: u64,
    what: &str,
    wanted: impl Fn(&Record) -> bool,
) -> Fallible<Arc<Entry>> {
    let mut all = seen_all(stage, after, what, 1, &wanted).await?;
    Ok(all.swap_remove(0))
}

/// The first `count` of them.
async fn seen_all(
    stage: &Stage,
    after: u64,
    what: &str,
    count: usize,
    wanted: &dyn Fn(&Record) -> bool,
) -> Fallible<Vec<Arc<Entry>>> {
    let end = Instant::now() + STEP_WITHIN;
    let journal: &Journal = stage.sim.journal();
    loop {
        let mut found: Vec<_> =
            journal.since(after).into_iter().filter(|entry| wanted(&entry.record)).collect();
        if found.len() >= count {
            found.truncate(count);
            return Ok(found);
        }
        demand(Instant::now() < end, &format!("not seen within {} s: {what}", STEP_WITHIN.as_secs()))?;
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn since(earlier: &Entry, later: &Entry) -> SignedDuration {
    later.at.duration_since(earlier.at)
}

fn between<'a>(text: &'a str, before: &str, after: &str) -> &'a str {
    let rest = text.split_once(before).map_or("", |(_, rest)| rest);
    rest.split_once(after).map_or("", |(inner, _)| inner)
}

fn demand(holds: bool, otherwise: &str) -> Fallible<()> {
    if holds { Ok(()) } else { Err(otherwise.into()) }
}
