use super::*;

const READING: &str = r#"
[set]
method = "PUT"
path = "/presence/{found.id}"
json = { id = "{found.id|json}", state = "{profile.pbx.state}", status = "{text}", until = "{until|json}" }

[restore]
method = "PUT"
path = "/presence/{found.id}"
json = { state = "{shown.state}", status = "{shown.status}", until = "{shown.until}" }

[find]
list = "/items"
key = "/number"
values = { id = "/id" }
[find.request]
method = "GET"
path = "/users?search={extension}"

[read]
until = "/until"
default = { state = "available", status = "" }
profile = { field = "state", map = { dnd = "busy" }, term = "state" }
[read.request]
method = "GET"
path = "/presence/{found.id}"
[read.fields]
state = { pointer = "/state", shows = "{profile.pbx.state}" }
status = { pointer = "/status", shows = "{text}" }
until = { pointer = "/until", shows = "{until?}", kind = "instant" }
"#;

/// A stand-in that stores what it is told, under ids of its own; `ids` is what the look-up gives, in turn.
async fn store(ids: &'static [u64]) -> Server {
    let state = Arc::new(Mutex::new(r#"{"state":"available","status":"","until":null}"#.to_owned()));
    let asked = Arc::new(Mutex::new(0));
    Server::start(move |seen, _| {
        let (state, asked) = (state.clone(), asked.clone());
        async move {
            if seen.uri.path() == "/users" {
                let mut asked = asked.lock().unwrap();
                let id = ids[(*asked).min(ids.len() - 1)];
                *asked += 1;
                return format!(r#"{{"items":[{{"number":"10010","id":1}},{{"number":"1001","id":{id}}}]}}"#)
                    .into_response();
            }
            if seen.uri.path() != format!("/presence/{}", ids[ids.len() - 1]) {
                return answer(404, "");
            }
            let mut state = state.lock().unwrap();
            if seen.method == Method::PUT {
                *state = seen.body;
                return answer(204, "");
            }
            state.clone().into_response()
        }
    })
    .await
}

#[tokio::test]
async fn what_is_read_back_is_what_was_rendered() {
    let bench = Bench::new(store(&[42]).await, READING);
    let extension = "1001".parse().unwrap();
    let long = Wanted::Profile(outward(&"å".repeat(300)));
    let by_hand = Wanted::AsFound(Shown::of([("state", "x"), ("status", "\"hej\" <då>"), ("until", "")]));
    for wanted in [meeting(), until_three(), long, by_hand] {
        let shown = bench.set(&wanted).await.unwrap();
        assert_eq!(shown, bench.pbx.render(&wanted));
        assert_eq!(bench.pbx.read_back(&extension, &[]).await.unwrap().shown, shown);
    }
}

#[tokio::test]
async fn an_answer_is_turned_into_state_profile_and_end() {
    let bench = Bench::new(store(&[42]).await, READING);
    let extension = "1001".parse().unwrap();
    let profiles = [profile("meeting", &[("state", "away")]), profile("busy", &[])];
    let first = bench.pbx.read_back(&extension, &profiles).await.unwrap();
    assert!(first.is_default);
    assert_eq!((first.profile, first.until), (None, None));

    bench.set(&until_three()).await.unwrap();
    let second = bench.pbx.read_back(&extension, &profiles).await.unwrap();
    assert_eq!(second.profile, Some("meeting".parse().unwrap()));
    assert_eq!(second.until, Some("2026-11-23T14:00:00Z".parse().unwrap()));
    assert!(!second.is_default);
    let shown = [("state", "away"), ("status", "Möte till 15:00"), ("until", "2026-11-23T14:00:00Z")];
    assert_eq!(second.shown, Shown::of(shown));

    let dnd = Wanted::AsFound(Shown::of([("state", "dnd"), ("status", ""), ("until", "")]));
    bench.set(&dnd).await.unwrap();
    let mapped = |profiles: &'static [&'static str]| {
        let profiles: Vec<_> = profiles.iter().map(|id| profile(id, &[])).collect();
        let (pbx, extension) = (bench.pbx.clone(), extension.clone());
        async move { pbx.read_back(&extension, &profiles).await.unwrap().profile }
    };
    assert_eq!(mapped(&["busy"]).await, Some("busy".parse().unwrap()));
    assert_eq!(mapped(&["lunch"]).await, None, "a profile that the company does not have is none");
}

#[tokio::test]
async fn a_value_that_two_profiles_share_tells_no_profile() {
    let bench = Bench::new(store(&[42]).await, READING);
    bench.set(&meeting()).await.unwrap();
    let profiles = [profile("meeting", &[("state", "away")]), profile("lunch", &[("state", "away")])];
    assert_eq!(bench.pbx.read_back(&"1001".parse().unwrap(), &profiles).await.unwrap().profile, None);
}

#[tokio::test]
async fn a_looked_up_id_is_kept_until_it_proves_wrong() {
    let bench = Bench::new(store(&[42]).await, READING);
    bench.set(&meeting()).await.unwrap();
    bench.set(&meeting()).await.unwrap();
    let lookups =
        |bench: &Bench| bench.server.seen().iter().filter(|seen| seen.uri.path() == "/users").count();
    assert_eq!(lookups(&bench), 1);
    assert_eq!(bench.server.seen()[1].json()["id"], 42, "a number stays a number");

    let bench = Bench::new(store(&[7, 42]).await, READING);
    assert!(matches!(bench.set(&meeting()).await, Err(PbxError::NoSuchExtension { .. })));
    // The id from the look-up before proves wrong: it is looked up anew.
    bench.set(&meeting()).await.unwrap();
    assert_eq!(lookups(&bench), 2);
}

#[tokio::test]
async fn an_extension_that_is_not_in_the_list_is_not_known() {
    let bench = Bench::new(store(&[42]).await, READING);
    let error = set(&bench.pbx, "100", &meeting(), 1, "t").await.unwrap_err();
    assert!(matches!(error, PbxError::NoSuchExtension { .. }), "{error:?}");
}

#[tokio::test]
async fn a_driver_without_a_read_request_says_so_and_shows_what_it_said() {
    let bench = Bench::new(Server::always(200, "").await, SET);
    assert!(!bench.pbx.abilities().read_back);
    let error = bench.pbx.read_back(&"1001".parse().unwrap(), &[]).await.unwrap_err();
    assert!(matches!(error, PbxError::Refused { .. }));
    // A return time that is not told cannot make a difference to what shows.
    let shown = bench.set(&until_three()).await.unwrap();
    assert_eq!(shown, Shown::of([("profile", "meeting"), ("text", "Möte till 15:00"), ("until", "")]));
    assert!(!bench.pbx.abilities().until);

    let telling = SET.replace("state =", "until = \"{until|json}\", state =");
    let bench = Bench::new(Server::always(200, "").await, &telling);
    assert!(bench.pbx.abilities().until);
    assert_eq!(bench.set(&until_three()).await.unwrap().field("until"), "2026-11-23T14:00:00Z");
}

#[test]
fn settings_that_can_read_but_put_nothing_back_are_refused() {
    let build = |text: &str| {
        HttpPbx::new(
            &config(text, "https://pbx.example.com"),
            ProcessLimits::default(),
            "acme".parse().unwrap(),
            ManualClock::new(),
        )
    };
    let (before, after) = READING.split_once("[restore]").unwrap();
    let after = &after[after.find("[find]").unwrap()..];
    let without = format!("{before}{after}");
    assert_eq!(build(&without).unwrap_err().key(), "restore");

    let clear = "[clear]\nmethod = \"DELETE\"\npath = \"/presence/{found.id}\"\n";
    let pbx = build(&format!("{without}{clear}")).unwrap();
    let default = Shown::of([("state", "available"), ("status", ""), ("until", "")]);
    assert_eq!(pbx.render(&Wanted::AsFound(Shown::of([("state", "x")]))), default);
    let available = Outward { profile: "available".parse().unwrap(), ..outward("Tillgänglig") };
    assert_eq!(pbx.render(&Wanted::Profile(available)), default);

    let needs_profile = clear.replace("found.id", "profile.id");
    assert_eq!(build(&format!("{without}{needs_profile}")).unwrap_err().key(), "restore");
}

#[tokio::test]
async fn a_check_says_what_was_found() {
    let bench = Bench::new(Server::always(404, "").await, SET);
    let found = bench.pbx.check().await.unwrap();
    assert_eq!(found, "`127.0.0.1` answers with status 404; a `check` request would tell more");

    let check = format!("{SET}[check]\nmethod = \"GET\"\npath = \"/version\"\n");
    let bench = Bench::new(Server::always(200, "").await, &check);
    assert!(bench.pbx.check().await.unwrap().contains("takes our credentials"));
    assert_eq!(bench.server.seen()[0].uri.path(), "/version");
    let bench = Bench::new(Server::always(403, "").await, &check);
    assert!(matches!(bench.pbx.check().await, Err(PbxError::Denied { .. })));
}
