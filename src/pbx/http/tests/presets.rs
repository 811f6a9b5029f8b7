use super::{super::presets::presets, *};

/// The preset as it ships.
fn preset(name: &str) -> HttpPbxConfig {
    let preset = presets().iter().find(|preset| preset.name == name).unwrap();
    toml::from_str(preset.toml).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn shown_request(name: &str, wanted: &Wanted) -> String {
    let driver =
        HttpPbx::new(&preset(name), ProcessLimits::default(), "acme".parse().unwrap(), ManualClock::new());
    let extension = "1001".parse().unwrap();
    driver.unwrap().dry_run(&write(&extension, wanted, 1, "t-1")).unwrap()
}

/// The preset with its host replaced by a stand-in on this machine.
fn against(server: &Server, name: &str) -> Arc<HttpPbx> {
    let text = presets().iter().find(|preset| preset.name == name).unwrap().toml;
    let mut text = text.to_owned();
    for host in [
        "https://wazo.example.com",
        "https://pbx.example.com:8088",
        "https://pbx.example.com",
        "https://receiver.example.com",
    ] {
        text = text.replace(host, &server.base);
    }
    let config = toml::from_str(&format!("allow_plain_http = true\n{text}")).unwrap();
    HttpPbx::new(&config, loopback(), "acme".parse().unwrap(), ManualClock::new()).unwrap()
}

fn lines(text: &str) -> Vec<&str> {
    text.lines().collect()
}

#[test]
fn every_preset_is_valid_as_it_ships() {
    for preset in presets() {
        let config = toml::from_str(preset.toml).unwrap_or_else(|error| panic!("{}: {error}", preset.name));
        let driver =
            HttpPbx::new(&config, ProcessLimits::default(), "acme".parse().unwrap(), ManualClock::new());
        driver.unwrap_or_else(|error| panic!("{}: {error}", preset.name));
    }
}

#[test]
fn wazo_is_told_state_and_status() {
    let shown = shown_request("wazo", &until_three());
    assert_eq!(
        lines(&shown),
        [
            "PUT https://wazo.example.com/api/chatd/1.0/users/uuid-of-1001/presences",
            "content-type: application/json",
            "x-auth-token: [redacted]",
            "",
            r#"{"state":"away","status":"Möte till 15:00"}"#
        ]
    );
}

#[test]
fn broadworks_is_told_the_presence_and_its_end_in_xml() {
    let shown = shown_request("broadworks-personal-assistant", &until_three());
    assert!(shown.starts_with(
        "PUT https://xsp.example.com/com.broadsoft.xsi-actions/v2.0/user/1001@pbx.example.com/services/PersonalAssistant\n"
    ));
    assert!(shown.contains("authorization: Basic [redacted]\n"));
    assert!(shown.contains(
        "<presence>Meeting</presence>\n  <enableExpirationTime>true</enableExpirationTime>\n  \
         <expirationTime>2026-11-23T15:00:00+01:00</expirationTime>\n</PersonalAssistant>"
    ));
    let shown = shown_request("broadworks-personal-assistant", &meeting());
    assert!(
        shown.contains("<enableExpirationTime>false</enableExpirationTime>\n</PersonalAssistant>"),
        "{shown}"
    );
    let available =
        Wanted::Profile(Outward { profile: "available".parse().unwrap(), ..outward("Tillgänglig") });
    assert!(shown_request("broadworks-personal-assistant", &available).contains("<presence>None</presence>"));
}

#[tokio::test]
async fn a_webhook_carries_the_change_and_its_signature() {
    let server = Server::always(202, "").await;
    set(&against(&server, "webhook"), "1001", &until_three(), 5, "t-1").await.unwrap();
    let seen = &server.seen()[0];
    assert_eq!(
        seen.json(),
        serde_json::json!({
            "type": "user.profile.changed",
            "timestamp": NOW,
            "data": {
                "company": "acme", "extension": "1001", "profile": "meeting", "label": "Möte",
                "text": "Möte till 15:00", "note": "till 15:00", "until": "2026-11-23T14:00:00Z",
                "available_at": null, "previous_profile": null, "generation": 5
            }
        })
    );
    assert_eq!((seen.header("webhook-id"), seen.header("idempotency-key")), ("t-1", "t-1"));
    assert!(seen.header("webhook-signature").starts_with("v1,"));
}

#[tokio::test]
async fn yeastar_is_logged_in_to_searched_and_told() {
    let server = Server::start(|seen, _| async move {
        match seen.uri.path().trim_start_matches("/openapi/v1.0/") {
            "get_token" => answer(200, r#"{"errcode":0,"access_token":"T","access_token_expire_time":1800}"#),
            "extension/search" => {
                answer(200, r#"{"errcode":0,"data":[{"id":59,"number":"11001"},{"id":60,"number":"1001"}]}"#)
            }
            "extension/get" => answer(200, r#"{"errcode":0,"data":{"id":60,"presence_status":"away"}}"#),
            "extension/update" if seen.json()["presence_status"] == "away" => answer(200, r#"{"errcode":0}"#),
            _ => answer(200, r#"{"errcode":40002,"errmsg":"PARAMETER ERROR"}"#),
        }
    })
    .await;
    let pbx = against(&server, "yeastar-p");
    let shown = set(&pbx, "1001", &meeting(), 1, "t-1").await.unwrap();
    let seen = server.seen();
    let targets: Vec<_> = seen.iter().map(|seen| seen.uri.to_string()).collect();
    assert_eq!(
        targets,
        [
            "/openapi/v1.0/get_token",
            "/openapi/v1.0/extension/search?search_value=1001&access_token=T",
            "/openapi/v1.0/extension/update?access_token=T"
        ]
    );
    assert!(seen.iter().all(|seen| seen.header("user-agent") == "OpenAPI"));
    assert_eq!(seen[2].json(), serde_json::json!({"id": 60, "presence_status": "away"}));

    let profiles = [profile("meeting", &[("status", "away")])];
    let read = pbx.read_back(&"1001".parse().unwrap(), &profiles).await.unwrap();
    assert_eq!((read.shown, read.profile), (shown, Some("meeting".parse().unwrap())));

    let wrong = Wanted::Profile(Outward { terms: terms(&[("status", "asleep")]), ..outward("Möte") });
    let error = set(&pbx, "1001", &wrong, 1, "t-2").await.unwrap_err();
    assert_eq!(error.to_string(), r#"the PBX refused: `/errcode` is `40002`, not `0` ("PARAMETER ERROR")"#);
}

#[tokio::test]
async fn threecx_is_asked_for_a_token_and_the_users_id_and_told() {
    let server = Server::start(|seen, _| async move {
        match (seen.uri.path(), seen.method.as_str()) {
            ("/connect/token", _) => {
                answer(200, r#"{"access_token":"T","expires_in":3600,"token_type":"Bearer"}"#)
            }
            ("/xapi/v1/Users", "GET") => answer(200, r#"{"value":[{"Id":28,"Number":"1001"}]}"#),
            ("/xapi/v1/Users(28)", "PATCH") => answer(204, ""),
            ("/xapi/v1/Users(28)", "GET") => answer(200, r#"{"Id":28,"CurrentProfileName":"Away"}"#),
            _ => answer(404, ""),
        }
    })
    .await;
    let pbx = against(&server, "3cx-v20");
    let shown = set(&pbx, "1001", &meeting(), 1, "t-1").await.unwrap();
    assert_eq!(pbx.read_back(&"1001".parse().unwrap(), &[]).await.unwrap().shown, shown);
    let seen = server.seen();
    assert_eq!(
        seen[1].uri.query(),
        Some("$filter=Number%20eq%20%271001%27&$select=Id,Number,CurrentProfileName")
    );
    assert_eq!(seen[2].json(), serde_json::json!({"CurrentProfileName": "Away"}));
    assert_eq!(seen[2].header("authorization"), "Bearer T");
}
