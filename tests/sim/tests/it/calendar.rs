//! Reading calendars: ids, pages, zones, series over a daylight saving change, delta.

use jiff::civil::date;
use narvaro_sim::{EventSpec, MailboxKind, Occurrences, Response, SeriesSpec, ShowAs, UserSpec};
use reqwest::Method;
use serde_json::{Value, json};

use crate::world::{ANNA, CONTOSO, World, answer, at};

fn encode(id: &str) -> String {
    form_urlencoded::byte_serialize(id.as_bytes()).collect()
}

fn meeting(subject: &str) -> EventSpec {
    EventSpec::new(subject).at(at("2026-11-23T09:00:00Z"), at("2026-11-23T10:00:00Z"))
}

#[tokio::test]
async fn a_user_is_found_by_any_of_his_addresses_in_his_own_tenant() {
    let world = World::new().await;
    for address in [ANNA, "ANNA.Berg@contoso.example"] {
        let path = format!(
            "/users?$filter=mail eq '{address}' or proxyAddresses/any(p:p eq 'smtp:{address}')&$select=id,mail,proxyAddresses"
        );
        let (status, body) = world.get(&path).await;
        assert_eq!(status, 200, "{body}");
        assert_eq!(body["value"][0]["id"], world.anna.as_str());
        assert_eq!(body["value"].as_array().unwrap().len(), 1);
        assert_eq!(body["value"][0]["proxyAddresses"][0], format!("SMTP:{ANNA}"));
    }
    let (_, none) = world.get("/users?$filter=mail eq 'o''hara@contoso.example'").await;
    assert_eq!(none["value"], json!([]));
    assert_eq!(world.get(&format!("/users/{ANNA}")).await.0, 404);
    assert_eq!(world.get("/users/aberg@corp.contoso.example").await.0, 200);
    let (status, body) = world.get(&format!("/users/{}", world.bo)).await;
    assert_eq!((status, &body["error"]["code"]), (404, &json!("Request_ResourceNotFound")));
    let path = format!("/users/{}/calendarView?startDateTime=2026-11-23&endDateTime=2026-11-24", world.bo);
    assert_eq!(world.get(&path).await.0, 404);
}

#[tokio::test]
async fn mailboxes_that_cannot_be_read_say_so() {
    let world = World::new().await;
    let path = format!("/users/{}/mailboxSettings/timeZone", world.anna);
    let (_, body) = world.get(&path).await;
    assert_eq!(body["value"], "W. Europe Standard Time");
    world.sim.set_mailbox(ANNA, MailboxKind::NoMailbox).unwrap();
    let (status, body) = world.get(&path).await;
    assert_eq!((status, &body["error"]["code"]), (404, &json!("MailboxNotEnabledForRESTAPI")));
    world.sim.set_mailbox(ANNA, MailboxKind::Denied).unwrap();
    let (status, body) = world.get(&path).await;
    assert_eq!((status, &body["error"]["code"]), (403, &json!("ErrorAccessDenied")));
}

#[tokio::test]
async fn default_and_immutable_ids_do_not_mix() {
    let world = World::new().await;
    let ids = world.sim.add_event(ANNA, meeting("MÖT")).unwrap();
    assert_ne!(ids.id, ids.default_id);
    let path = |id: &str| format!("/users/{}/events/{}", world.anna, encode(id));
    let (status, body) = world.get(&path(&ids.id)).await;
    assert_eq!(status, 200);
    assert_eq!(body["id"], ids.id.as_str());
    assert_eq!(body["start"], json!({"dateTime": "2026-11-23T09:00:00.0000000", "timeZone": "UTC"}));
    let (status, body) = answer(world.plain(Method::GET, &path(&ids.default_id))).await;
    assert_eq!((status, &body["id"]), (200, &json!(ids.default_id)));
    assert!(world.rules_broken().is_empty());
    assert_eq!(world.get(&path(&ids.default_id)).await.0, 400);
    assert_eq!(world.rules_broken(), ["id-kinds-mixed"]);
}

#[tokio::test]
async fn a_move_to_another_calendar_changes_the_default_id_only() {
    let world = World::new().await;
    let old = world.sim.add_event(ANNA, meeting("MÖT")).unwrap();
    let new = world.sim.patch_event(ANNA, &old.id, EventSpec::default().in_secondary_calendar()).unwrap();
    assert_eq!(new.id, old.id);
    assert_ne!(new.default_id, old.default_id);
    let path = format!("/users/{}/events/{}", world.anna, encode(&old.default_id));
    assert_eq!(answer(world.plain(Method::GET, &path)).await.0, 404);
    assert!(world.view("2026-11-23", "2026-11-24", "").await.is_empty());
}

#[tokio::test]
async fn the_view_comes_in_pages_of_ten_and_select_is_kept() {
    let world = World::new().await;
    for number in 0..25 {
        world.sim.add_event(ANNA, meeting(&format!("MÖT {number}"))).unwrap();
    }
    let mut path = format!(
        "/users/{}/calendarView?startDateTime=2026-11-23T00:00:00%2B01:00&endDateTime=2026-11-24&$select=subject,start",
        world.anna
    );
    let mut sizes = Vec::new();
    loop {
        let (status, body) = world.get(&path).await;
        assert_eq!(status, 200, "{body}");
        let page = body["value"].as_array().unwrap().clone();
        sizes.push(page.len());
        assert_eq!(page[0].as_object().unwrap().len(), 4, "etag, id and two selected");
        match body["@odata.nextLink"].as_str() {
            Some(next) => {
                assert!(next.starts_with(world.sim.base_url()));
                next.clone_into(&mut path);
            }
            None => break,
        }
    }
    assert_eq!(sizes, [10, 10, 5]);
    let path = format!(
        "/users/{}/calendarView?startDateTime=2026-11-23&endDateTime=2026-11-24&$select=lastModifiedDateTime",
        world.anna
    );
    assert_eq!(world.get(&path).await.0, 400);
}

#[tokio::test]
async fn a_series_keeps_its_wall_time_when_the_clocks_change() {
    let world = World::new().await;
    let series = EventSpec::new("MÖT: veckomöte")
        .at(at("2026-10-19T07:00:00Z"), at("2026-10-19T08:00:00Z"))
        .series(SeriesSpec::weekly(3).in_zone("Europe/Stockholm"));
    let master = world.sim.add_event(ANNA, series).unwrap();
    let starts = |rows: &[Value]| -> Vec<String> {
        rows.iter().map(|row| row["start"]["dateTime"].as_str().unwrap()[..16].to_owned()).collect()
    };
    let rows = world.view("2026-10-01", "2026-12-01", "").await;
    assert_eq!(starts(&rows), ["2026-10-19T07:00", "2026-10-26T08:00", "2026-11-02T08:00"]);
    assert!(
        rows.iter().all(|row| row["type"] == "occurrence" && row["seriesMasterId"] == master.id.as_str())
    );
    let moved = world.sim.occurrence(ANNA, &master.id, date(2026, 10, 26)).unwrap();
    world
        .sim
        .patch_event(
            ANNA,
            &moved.id,
            EventSpec::new("LUN").at(at("2026-10-27T10:00:00Z"), at("2026-10-27T11:00:00Z")),
        )
        .unwrap();
    let gone = world.sim.occurrence(ANNA, &master.id, date(2026, 11, 2)).unwrap();
    world.sim.delete_event(ANNA, &gone.id).unwrap();
    let rows = world.view("2026-10-01", "2026-12-01", "").await;
    assert_eq!(starts(&rows), ["2026-10-19T07:00", "2026-10-27T10:00"]);
    assert_eq!((&rows[1]["type"], &rows[1]["subject"]), (&json!("exception"), &json!("LUN")));
    assert_eq!(rows[1]["originalStart"], "2026-10-26T08:00:00Z");
    let path = format!("/users/{}/events/{}", world.anna, encode(&master.id));
    let (_, body) = world.get(&path).await;
    assert_eq!(body["type"], "seriesMaster");
    assert_eq!(body["recurrence"]["range"]["numberOfOccurrences"], 3);
    assert_eq!(body["recurrence"]["pattern"]["daysOfWeek"], json!(["monday"]));
    let (status, body) =
        world.get(&format!("{path}/instances?startDateTime=2026-10-01&endDateTime=2026-12-01")).await;
    assert_eq!((status, body["value"].as_array().unwrap().len()), (200, 2));
}

#[tokio::test]
async fn zones_change_the_output_but_all_day_events_stay_midnight() {
    let world = World::new().await;
    world.sim.add_event(ANNA, meeting("MÖT")).unwrap();
    world.sim.add_event(ANNA, EventSpec::new("SEM").all_day(date(2026, 12, 24), 2)).unwrap();
    let path = format!(
        "/users/{}/calendarView?startDateTime=2026-11-23&endDateTime=2027-01-01&$orderby=start/dateTime",
        world.anna
    );
    let (_, body) = world.get(&path).await;
    assert_eq!(
        body["value"][1]["start"],
        json!({"dateTime": "2026-12-24T00:00:00.0000000", "timeZone": "UTC"})
    );
    assert_eq!(body["value"][1]["end"]["dateTime"], "2026-12-26T00:00:00.0000000");
    assert_eq!(body["value"][1]["showAs"], "free");
    let request =
        world.graph(Method::GET, &path).header("prefer", "outlook.timezone=\"W. Europe Standard Time\"");
    let (_, body) = answer(request).await;
    assert_eq!(
        body["value"][0]["start"],
        json!({"dateTime": "2026-11-23T10:00:00.0000000", "timeZone": "W. Europe Standard Time"})
    );
    assert_eq!(body["value"][1]["start"]["dateTime"], "2026-12-24T00:00:00.0000000");
}

#[tokio::test]
async fn invitations_are_answered_and_cancelled() {
    let world = World::new().await;
    let spec =
        meeting("MÖT").invited_by("chef@other.example", Response::NotResponded).show_as(ShowAs::Tentative);
    let ids = world.sim.add_event(ANNA, spec).unwrap();
    world.sim.respond(ANNA, &ids.id, Response::Accepted).unwrap();
    world.sim.cancel_event(ANNA, &ids.id).unwrap();
    let row = world.view("2026-11-23", "2026-11-24", "").await.remove(0);
    assert_eq!(row["responseStatus"]["response"], "accepted");
    assert_eq!((&row["isCancelled"], &row["isOrganizer"]), (&json!(true), &json!(false)));
    assert_eq!(row["subject"], "Canceled: MÖT");
    assert_eq!(row["organizer"]["emailAddress"]["address"], "chef@other.example");
}

#[tokio::test]
async fn a_delta_round_shows_what_changed_and_what_went() {
    let world = World::new().await;
    let keep = world.sim.add_event(ANNA, meeting("MÖT")).unwrap();
    let go = world.sim.add_event(ANNA, meeting("LUN")).unwrap();
    let path =
        format!("/users/{}/calendarView/delta?startDateTime=2026-11-23&endDateTime=2026-12-23", world.anna);
    let (_, first) = world.get(&path).await;
    assert_eq!(first["value"].as_array().unwrap().len(), 2);
    let link = first["@odata.deltaLink"].as_str().unwrap().to_owned();
    let (_, same) = world.get(&link).await;
    assert_eq!(same["value"], json!([]));
    world.sim.delete_event(ANNA, &go.id).unwrap();
    world.sim.patch_event(ANNA, &keep.id, EventSpec::new("UTE")).unwrap();
    let (_, body) = world.get(&link).await;
    let rows = body["value"].as_array().unwrap();
    assert_eq!(rows[0]["id"], go.id.as_str());
    assert_eq!(rows[0]["@removed"]["reason"], "deleted");
    assert_eq!(rows[1]["subject"], "UTE");
    world.sim.expire_delta_links(ANNA).unwrap();
    let (status, body) = world.get(&link).await;
    assert_eq!((status, &body["error"]["code"]), (410, &json!("SyncStateNotFound")));
}

/// Rows of a whole round, page by page, and the link of the next one.
async fn pages(world: &World, first: &str) -> (Vec<Vec<Value>>, String) {
    let (mut path, mut pages) = (first.to_owned(), Vec::new());
    loop {
        let (status, body) = world.get(&path).await;
        assert_eq!(status, 200, "{body}");
        pages.push(body["value"].as_array().unwrap().clone());
        match (body["@odata.nextLink"].as_str(), body["@odata.deltaLink"].as_str()) {
            (Some(next), None) => next.clone_into(&mut path),
            (None, Some(delta)) => return (pages, delta.to_owned()),
            both => panic!("{both:?}"),
        }
    }
}

fn first_round(world: &World) -> String {
    format!("/users/{}/calendarView/delta?startDateTime=2026-11-23&endDateTime=2026-12-23", world.anna)
}

#[tokio::test]
async fn an_unchanged_occurrence_is_thin_and_its_series_may_stand_behind_it_or_nowhere() {
    let world = World::new().await;
    let master = world.sim.add_event(ANNA, meeting("MÖT").series(SeriesSpec::daily(3))).unwrap();
    let moved = world.sim.occurrence(ANNA, &master.id, date(2026, 11, 24)).unwrap();
    world.sim.patch_event(ANNA, &moved.id, EventSpec::new("LUN")).unwrap();
    let kinds = |pages: &[Vec<Value>]| -> Vec<String> {
        let rows = pages.iter().flatten();
        rows.map(|row| {
            let thin = if row.get("subject").is_some() { "" } else { "thin " };
            format!("{thin}{}", row["type"].as_str().unwrap())
        })
        .collect()
    };
    let (rows, _) = pages(&world, &first_round(&world)).await;
    assert_eq!(kinds(&rows), ["thin occurrence", "exception", "thin occurrence", "seriesMaster"]);
    let thin = rows[0][0].as_object().unwrap();
    let names: Vec<&str> = thin.keys().map(String::as_str).collect();
    assert_eq!(names, ["@odata.type", "end", "id", "seriesMasterId", "start", "type"]);
    world.sim.delta(|knobs| knobs.occurrences = Occurrences::ThinWithoutSeries);
    let (rows, _) = pages(&world, &first_round(&world)).await;
    assert_eq!(kinds(&rows), ["thin occurrence", "exception", "thin occurrence"]);
    world.sim.delta(|knobs| knobs.occurrences = Occurrences::Full);
    let (rows, _) = pages(&world, &first_round(&world)).await;
    assert_eq!(kinds(&rows), ["seriesMaster", "occurrence", "exception", "occurrence"]);
}

#[tokio::test]
async fn pages_may_be_empty_small_and_repeat_themselves() {
    let world = World::new().await;
    for n in 0..3 {
        world.sim.add_event(ANNA, meeting(&format!("MÖT {n}"))).unwrap();
    }
    world.sim.delta(|knobs| {
        (knobs.empty_pages, knobs.replays, knobs.rows_per_page) = (true, true, Some(2));
    });
    let (rows, link) = pages(&world, &first_round(&world)).await;
    let sizes: Vec<usize> = rows.iter().map(Vec::len).collect();
    assert_eq!(sizes, [0, 3, 0, 2]);
    assert_eq!(rows[1][0]["id"], rows[1][2]["id"]);
    assert_eq!(pages(&world, &link).await.0, [Vec::<Value>::new(), Vec::new()]);
}

#[tokio::test]
async fn what_changes_between_two_pages_makes_none_be_left_out() {
    let world = World::new().await;
    let first = world.sim.add_event(ANNA, meeting("eins")).unwrap();
    for name in ["zwei", "drei"] {
        world.sim.add_event(ANNA, meeting(name)).unwrap();
    }
    world.sim.delta(|knobs| knobs.rows_per_page = Some(1));
    let (_, body) = world.get(&first_round(&world)).await;
    assert_eq!(body["value"][0]["subject"], "eins");
    world.sim.delete_event(ANNA, &first.id).unwrap();
    let (rest, link) = pages(&world, body["@odata.nextLink"].as_str().unwrap()).await;
    let subjects: Vec<&str> = rest.iter().flatten().map(|row| row["subject"].as_str().unwrap()).collect();
    assert_eq!(subjects, ["zwei", "drei"]);
    let (rows, _) = pages(&world, &link).await;
    assert_eq!(rows.concat()[0]["id"], first.id.as_str());
}

#[tokio::test]
async fn a_change_outside_the_window_is_reported_as_a_removal() {
    let world = World::new().await;
    let (_, link) = pages(&world, &first_round(&world)).await;
    let spec = EventSpec::new("MÖT").at(at("2027-03-01T09:00:00Z"), at("2027-03-01T10:00:00Z"));
    let far = world.sim.add_event(ANNA, spec).unwrap();
    let (rows, link) = pages(&world, &link).await;
    let rows = rows.concat();
    assert_eq!((rows.len(), rows[0]["id"].as_str().unwrap()), (1, far.id.as_str()));
    assert_eq!(rows[0]["@removed"]["reason"], "deleted");
    assert!(pages(&world, &link).await.0.concat().is_empty(), "once");
}

#[tokio::test]
async fn a_link_is_used_as_it_is_and_with_the_headers_it_began_with() {
    let world = World::new().await;
    for n in 0..25 {
        world.sim.add_event(ANNA, meeting(&format!("MÖT {n}"))).unwrap();
    }
    let path = first_round(&world);
    for wrong in ["&$select=subject", "&$top=5", "&$filter=isAllDay eq true", "&$orderby=start/dateTime"] {
        assert_eq!(world.get(&format!("{path}{wrong}")).await.0, 400, "{wrong}");
    }
    assert!(world.rules_broken().is_empty(), "refused is told enough");
    let (_, body) = world.get(&path).await;
    let next = body["@odata.nextLink"].as_str().unwrap().to_owned();
    let (_, delta) = pages(&world, &next).await;
    assert!(world.rules_broken().is_empty());
    answer(world.graph(Method::GET, &next).header("prefer", "odata.maxpagesize=7")).await;
    assert_eq!(world.rules_broken(), ["delta-headers-changed"]);
    let eva = world.sim.add_user(CONTOSO, UserSpec::new("eva@contoso.example")).unwrap();
    for changed in [
        format!("{delta}&startDateTime=2026-11-24"),
        delta.replace("deltatoken", "skiptoken"),
        delta.replace(&world.anna, &eva),
    ] {
        assert_eq!(world.get(&changed).await.0, 400, "{changed}");
    }
    assert_eq!(world.rules_broken()[1..], ["delta-link-changed"; 3]);
}
