//! Rounds of delta, page by page.

use super::*;
use crate::model::{EventKind, When};

/// A recorded document, or the answer in it, with its links leading to `base`.
fn recorded(name: &str, base: &url::Url) -> Value {
    let mut document = fixture(name);
    let body = document.get_mut("body").map_or(Value::Null, Value::take);
    let answer = if body.is_null() { document } else { body };
    let text = answer.to_string().replace("https://graph.microsoft.com/", base.as_str());
    serde_json::from_str(&text).unwrap()
}

fn link(fake: &Fake, token: &str) -> String {
    format!("{}v1.0/users/{ANNA}/calendarView/delta?${token}", fake.base)
}

/// A page; `ends` are its links, by their names.
fn rows(rows: &[Value], ends: &[(&str, &str)]) -> Reply {
    let mut body = json!({ "value": rows });
    for (name, link) in ends {
        body[format!("@odata.{name}")] = json!(link);
    }
    Reply::json(200, &body)
}

fn last(fake: &Fake, page: &[Value]) -> Reply {
    rows(page, &[("deltaLink", &link(fake, "deltatoken=end"))])
}

fn thin(id: &str, series: &str, kind: &str) -> Value {
    let time =
        |hour: &str| json!({"dateTime": format!("2026-11-26T{hour}:00:00.0000000"), "timeZone": "UTC"});
    json!({"id": id, "type": kind, "seriesMasterId": series, "start": time("07"), "end": time("09")})
}

fn master() -> Value {
    fixture("event-series-master.json")
}

async fn whole(fake: &Fake) -> Result<Round, ReadError> {
    fake.company().round(&anna(), window(), None).await
}

async fn since(fake: &Fake, token: &str) -> Result<Round, ReadError> {
    fake.company().round(&anna(), window(), Some(&DeltaLink::new(link(fake, token)))).await
}

#[tokio::test]
async fn a_recorded_round_is_read_over_an_empty_page_and_thin_occurrences_have_what_their_series_has() {
    let fake = Fake::start().await;
    for page in ["page1", "empty-page-with-nextlink", "final-page"] {
        fake.graph(Reply::json(200, &recorded(&format!("calendarview-delta-{page}.json"), &fake.base)));
    }
    let round = whole(&fake).await.unwrap();
    assert!(round.series.is_empty() && round.gone.is_empty());
    assert!(round.link.as_str().ends_with("$deltatoken=b9658zLYx7ag_WbFCK2mQhvLwlJPwROUND1"));
    assert!(round.events.iter().all(|event| event.kind != EventKind::SeriesMaster));
    let occurrence = round
        .events
        .iter()
        .find(|event| {
            event.kind == EventKind::Occurrence
                && matches!(event.when, When::Timed(when) if when.start.to_string() == "2026-11-26T07:00:00Z")
        })
        .unwrap();
    let series = &recorded("calendarview-delta-page1.json", &fake.base)["value"];
    let series = series.as_array().unwrap().iter().find(|row| row["type"] == "seriesMaster").unwrap();
    assert_eq!(occurrence.subject.as_ref().unwrap().expose(), series["subject"].as_str().unwrap());
    assert_eq!(occurrence.response, crate::model::Response::Organizer);
    assert_eq!(occurrence.original_start, Some("2026-11-26T07:00:00Z".parse().unwrap()));
    let exception = round.events.iter().find(|event| event.kind == EventKind::Exception).unwrap();
    assert_eq!(exception.subject.as_ref().unwrap().expose(), "Hotline duty #queue (late shift)");

    let seen = fake.seen();
    assert_eq!(seen.len(), 3);
    let first = &seen[0].target;
    assert!(first.starts_with(&format!("/v1.0/users/{ANNA}/calendarView/delta()?startDateTime=")), "{first}");
    assert!(!first.contains("select") && !first.contains("top"), "{first}");
    assert!(seen[2].target.ends_with("?$skiptoken=R0usmcCM996atia_sPAGE3"), "{}", seen[2].target);
    for request in &seen {
        assert_eq!(
            request.header("prefer"),
            r#"IdType="ImmutableId", outlook.timezone="UTC", outlook.body-content-type="text", odata.maxpagesize=50"#
        );
    }
}

#[tokio::test]
async fn of_an_id_that_comes_twice_the_last_counts_and_what_is_gone_is_told_known_or_not() {
    let fake = Fake::start().await;
    fake.graph(Reply::json(200, &recorded("calendarview-delta-removed.json", &fake.base)));
    let round = since(&fake, "deltatoken=before").await.unwrap();
    assert_eq!(round.gone.len(), 2);
    assert_eq!(round.events.len(), 1);
    assert_eq!(round.events[0].subject.as_ref().unwrap().expose(), "#away Focus moved");
    assert!(fake.seen()[0].target.ends_with("?$deltatoken=before"), "the link is used as it is");

    let removed = |id: &str| json!({"id": id, "@removed": {"reason": "deleted"}});
    fake.graph(last(&fake, &[removed("back"), named("away"), named("back"), removed("away")]));
    let round = since(&fake, "deltatoken=x").await.unwrap();
    assert_eq!((ids(&round.events), round.gone), (vec!["back"], vec!["away".parse().unwrap()]));
}

#[tokio::test]
async fn a_series_whose_own_row_is_missing_or_says_nothing_is_read_by_its_instances() {
    let instances = fixture("event-instances.json");
    let series = master()["id"].as_str().unwrap().to_owned();
    let mut silent = master();
    silent.as_object_mut().unwrap().remove("subject");
    for page in [
        vec![thin("o", &series, "occurrence"), named("single")],
        vec![thin("o", &series, "occurrence"), named("single"), silent],
        // An exception may differ from its series in everything.
        vec![thin("x", &series, "exception"), thin("o", &series, "occurrence"), named("single"), master()],
    ] {
        let fake = Fake::start().await;
        fake.graph(last(&fake, &page)).graph(Reply::json(200, &instances));
        let round = whole(&fake).await.unwrap();
        assert_eq!(round.events.len(), 4, "the single one, and three of the series");
        assert!(round.events.iter().all(|event| event.subject.is_some()));
        assert!(fake.seen()[1].target.contains("/instances?startDateTime=2026-11-21"));
    }
}

#[tokio::test]
async fn a_later_round_reads_the_whole_of_each_series_that_it_speaks_of_once() {
    let instances = fixture("event-instances.json");
    let series = master()["id"].as_str().unwrap().to_owned();
    let exception = fixture("event-exception.json");
    for page in [
        vec![master()],
        vec![exception.clone()],
        vec![thin("o1", &series, "occurrence"), thin("o2", &series, "occurrence"), exception, master()],
    ] {
        let fake = Fake::start().await;
        fake.graph(last(&fake, &page)).graph(Reply::json(200, &instances));
        let round = since(&fake, "deltatoken=x").await.unwrap();
        assert_eq!(round.events, []);
        assert_eq!(round.series.len(), 1);
        assert_eq!((round.series[0].0.as_str(), round.series[0].1.len()), (series.as_str(), 3));
        assert_eq!(fake.seen().len(), 2);
    }
}

#[tokio::test]
async fn a_round_that_fails_on_any_page_or_in_any_series_is_no_round() {
    let series = master()["id"].as_str().unwrap().to_owned();
    for failing in [Reply::refusal(503, "serviceNotAvailable"), Reply::text(200, "<html>")] {
        let fake = Fake::start().await;
        fake.graph(rows(&[single()], &[("nextLink", &link(&fake, "skiptoken=a"))])).graph(failing);
        assert!(whole(&fake).await.is_err());
    }
    let fake = Fake::start().await;
    fake.graph(last(&fake, &[single(), thin("o", &series, "occurrence")]));
    fake.graph(Reply::refusal(500, "generalException"));
    assert!(matches!(since(&fake, "deltatoken=x").await, Err(ReadError::Unreachable(_))));
}

#[tokio::test]
async fn a_page_has_either_a_next_one_or_the_link_of_the_next_round() {
    let fake = Fake::start().await;
    let next = link(&fake, "skiptoken=a");
    fake.graph(rows(&[], &[])).graph(rows(&[], &[("nextLink", &next), ("deltaLink", &next)]));
    for _ in 0..2 {
        let error = whole(&fake).await.unwrap_err();
        assert!(matches!(error, ReadError::Unreadable { place } if place == "@odata.deltaLink"));
    }
}

#[tokio::test]
async fn no_link_leads_to_a_foreign_host_not_even_one_that_was_kept() {
    let (fake, stranger) = (Fake::start().await, Fake::start().await);
    for name in ["nextLink", "deltaLink"] {
        fake.graph(rows(&[single()], &[(name, &link(&stranger, "skiptoken=a"))]));
        let error = whole(&fake).await.unwrap_err();
        assert!(matches!(error, ReadError::Unreadable { place } if place == format!("@odata.{name}")));
    }
    let kept = DeltaLink::new(link(&stranger, "deltatoken=a"));
    let outcome = fake.company().round(&anna(), window(), Some(&kept)).await;
    assert!(matches!(outcome, Err(ReadError::LinkExpired)));
    assert_eq!((fake.seen().len(), stranger.seen().len()), (2, 0));
}

#[tokio::test]
async fn a_link_that_graph_has_forgotten_has_a_name_of_its_own_at_any_page() {
    let forgotten = || {
        let code = |status, code| Reply::refusal(status, code);
        [
            Reply::json(410, &recorded("calendarview-delta-410.json", &fixed())),
            code(410, "syncStateNotFound"),
            code(400, "SyncStateNotFound"),
            code(404, "RESYNCREQUIRED"),
            code(400, "BadRequest"),
            Reply::text(410, "").with("location", "https://graph.microsoft.com/v1.0/elsewhere"),
        ]
    };
    for reply in forgotten() {
        let fake = Fake::start().await;
        fake.graph(reply);
        assert!(matches!(since(&fake, "deltatoken=x").await, Err(ReadError::LinkExpired)));
    }
    for reply in forgotten() {
        let fake = Fake::start().await;
        fake.graph(rows(&[single()], &[("nextLink", &link(&fake, "skiptoken=a"))])).graph(reply);
        assert!(matches!(whole(&fake).await, Err(ReadError::LinkExpired)));
        assert_eq!(fake.seen().len(), 2);
    }
    // Without a link there is nothing to forget: the mistake is in what we asked.
    let fake = Fake::start().await;
    fake.graph(Reply::refusal(400, "BadRequest"));
    assert!(matches!(whole(&fake).await, Err(ReadError::Refused { .. })));
}

fn fixed() -> url::Url {
    url::Url::parse("https://graph.microsoft.com/").unwrap()
}

#[tokio::test]
async fn pages_of_a_round_that_never_end_are_an_error() {
    let fake = Fake::start().await;
    for _ in 0..300 {
        fake.graph(rows(&[], &[("nextLink", &link(&fake, "skiptoken=a"))]));
    }
    let error = whole(&fake).await.unwrap_err();
    assert!(matches!(error, ReadError::Unreadable { place } if place == "@odata.nextLink"));
    assert!(fake.seen().len() < 300);
}

#[tokio::test]
async fn a_row_that_cannot_be_read_is_named_by_its_place() {
    let fake = Fake::start().await;
    let mut endless = single();
    endless.as_object_mut().unwrap().remove("end");
    fake.graph(last(&fake, &[named("one"), endless]));
    let error = whole(&fake).await.unwrap_err();
    assert!(matches!(error, ReadError::Unreadable { place } if place == "value[1].end"));
}
