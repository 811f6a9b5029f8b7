//! What is written in a calendar stays there: no subject, body, attendee, place or organiser is found in the store, in
//! logs, in metrics or in answers (I5).

use narvaro_sim::{EventSpec, Fault, FaultKind, Response, SeriesSpec, UserSpec};
use serde_json::json;

use crate::support::service::Service;

/// Written into the calendar, or asked about, and to be found nowhere.
const MARKERS: [&str; 6] =
    ["amnesmarke7q", "brodtextmarke7q", "platsmarke7q", "deltagarmarke7q", "arrangormarke7q", "provmarke7q"];

/// Written on purpose where the search has to find it.
const CONTROL: &str = "kontrollmarke7q";

fn marked(word: &str) -> EventSpec {
    EventSpec {
        body: Some("brodtextmarke7q".into()),
        location: Some("platsmarke7q".into()),
        attendees: Some(vec!["deltagarmarke7q@acme.example".into()]),
        in_secs: Some(-60),
        for_secs: Some(3_600),
        ..EventSpec::new(&format!("{word} amnesmarke7q"))
    }
}

fn contains(text: &[u8], marker: &str) -> bool {
    let lower: Vec<u8> = text.to_ascii_lowercase();
    lower.windows(marker.len()).any(|window| window == marker.as_bytes())
}

/// Everything that the service leaves or says, by name.
async fn all_that_is_said(service: &Service) -> Vec<(String, Vec<u8>)> {
    let mut all = service.files();
    all.push(("log".into(), service.log().into_bytes()));
    all.push(("metrics".into(), service.metrics().await.into_bytes()));
    for path in [
        "/status",
        "/explain?user=201",
        "/explain?user=202",
        "/subscriptions",
        "/companies/acme/export",
        "/check",
        "/companies",
    ] {
        all.push((path.into(), service.get(path).await.into_bytes()));
    }
    all
}

async fn sync(service: &Service) {
    let (status, body) = service.admin("POST", "/sync", Some(json!({ "all": true }))).await;
    assert_eq!(status, 200, "{body}");
}

async fn nothing_is_said(format: &str) {
    let mut service = Service::new().await;
    for alias in ["anna@acme.example", "bo@acme.example"] {
        service.sim.add_user(&service.tenant, UserSpec::new(alias)).unwrap();
    }
    let told = [("NARVARO__LOG__LEVEL", "trace"), ("NARVARO__LOG__FORMAT", format)];
    service.start(&told).await;
    let file = service.company(&["anna@acme.example", "bo@acme.example"], "").replace("Acme AB", CONTROL);
    service.apply(&file).await;
    service.until_read(2).await;
    let shows = async |extension: &str, profile: &str| {
        let pbx = service.sim.pbx();
        service.until(profile, async || pbx.presence("acme", extension).profile == profile).await;
    };
    let anna = |spec: EventSpec| service.sim.add_event("anna@acme.example", spec).unwrap().id;
    let id = anna(marked("MÖT"));
    shows("201", "meeting").await;
    service.sim.patch_event("anna@acme.example", &id, EventSpec::new("Lunch amnesmarke7q")).unwrap();
    shows("201", "lunch").await;
    anna(marked("utan ord"));
    anna(marked("Canceled: MÖT"));
    anna(marked("MÖT").in_secondary_calendar());
    anna(marked("MÖT").series(SeriesSpec::daily(3)));
    anna(marked("MÖT").invited_by("arrangormarke7q@elsewhere.example", Response::NotResponded));
    let held = marked("MÖT").invited_by("arrangormarke7q@elsewhere.example", Response::Accepted);
    let held = service.sim.add_event("bo@acme.example", held).unwrap().id;
    shows("202", "meeting").await;
    service.sim.patch_event("bo@acme.example", &held, EventSpec::new("Sick amnesmarke7q")).unwrap();
    // Answers that cannot be understood are quoted by many a library.
    for fault in [
        FaultKind::CutBody,
        FaultKind::Html { status: 200 },
        FaultKind::Status { status: 400, code: None, retry_after: None },
    ] {
        let failed = service.counter("narvaro_reads_failed_total").await;
        service.sim.fault(Fault::lasting(fault));
        anna(marked("DND"));
        sync(&service).await;
        let more = async || service.counter("narvaro_reads_failed_total").await > failed;
        service.until("a read has failed", more).await;
        service.sim.clear_faults();
    }
    let subject = json!({ "company": "acme", "subject": "MÖT provmarke7q" });
    let (status, tried) = service.admin("POST", "/try", Some(subject)).await;
    assert_eq!(status, 200, "{tried}");
    assert!(!contains(tried.as_bytes(), "provmarke7q"), "{tried}");
    sync(&service).await;
    shows("201", "do-not-disturb").await;

    // The phone shows it a moment before the turn is stored.
    let explained =
        async || service.admin("GET", "/explain?user=201", None).await.1.to_lowercase().contains("dnd");
    service.until("the turn is stored", explained).await;

    let said = all_that_is_said(&service).await;
    let found = |marker: &str| -> Vec<&str> {
        said.iter().filter(|(_, text)| contains(text, marker)).map(|(name, _)| name.as_str()).collect()
    };
    for marker in MARKERS {
        assert_eq!(found(marker), Vec::<&str>::new(), "`{marker}` was found");
    }
    // The search finds what is there.
    assert!(found(CONTROL).iter().any(|name| name.starts_with("narvaro.db")), "{:?}", found(CONTROL));
    assert!(found(CONTROL).contains(&"/companies/acme/export"), "{:?}", found(CONTROL));
    let word = found("dnd");
    assert!(
        word.iter().any(|name| name.starts_with("narvaro.db")) && word.contains(&"/explain?user=201"),
        "{word:?}"
    );
    let log = service.log();
    assert!(log.contains("DEBUG") && log.contains("was read"), "the log is at its most talkative");
}

#[tokio::test]
async fn i5_with_logs_for_people_nothing_from_a_calendar_is_found_anywhere() {
    nothing_is_said("text").await;
}

#[tokio::test]
async fn i5_with_logs_for_collectors_nothing_from_a_calendar_is_found_anywhere() {
    nothing_is_said("json").await;
}
