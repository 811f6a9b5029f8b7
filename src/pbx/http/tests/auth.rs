use std::sync::Arc;

use futures_util::future::join_all;

use super::*;

/// A server with a token endpoint that numbers its tokens; `good` says which token the rest takes.
async fn token_server(good: fn(&str) -> bool) -> Server {
    let issued = Arc::new(Mutex::new(0));
    Server::start(move |seen, _| {
        let issued = issued.clone();
        async move {
            if seen.uri.path() == "/token" {
                let mut issued = issued.lock().unwrap();
                *issued += 1;
                return format!(r#"{{"access_token":"token-{issued}","expires_in":600}}"#).into_response();
            }
            answer(if good(seen.header("authorization")) { 200 } else { 401 }, "")
        }
    })
    .await
}

const OAUTH2: &str = "[auth]\nkind = \"oauth2\"\ntoken_url = \"BASE/token\"\nclient_id = \"me & you\"\n\
                      client_secret = \"s3cret\"\nscope = \"presence\"\n";

fn asked_for_token(server: &Server) -> usize {
    server.seen().iter().filter(|seen| seen.uri.path() == "/token").count()
}

#[tokio::test]
async fn fixed_credentials_go_where_they_are_configured_to_go() {
    for (auth, header, expected) in [
        ("kind = \"basic\"\nusername = \"me\"\npassword = \"pw\"", "authorization", "Basic bWU6cHc="),
        ("kind = \"bearer\"\ntoken = \"abc\"", "authorization", "Bearer abc"),
        ("kind = \"api_key\"\nkey = \"abc\"\nplace = { header = \"X-Key\" }", "x-key", "abc"),
        ("kind = \"none\"", "authorization", ""),
    ] {
        let bench = Bench::new(Server::always(200, "").await, &format!("{SET}[auth]\n{auth}\n"));
        bench.set(&meeting()).await.unwrap();
        assert_eq!(bench.server.seen()[0].header(header), expected);
    }
}

#[tokio::test]
async fn a_key_in_the_query_is_added_to_what_the_template_says_and_never_shown() {
    let settings = "[set]\nmethod = \"POST\"\npath = \"/set?a={extension}\"\n[auth]\nkind = \"api_key\"\n\
                    key = \"s3cret&x\"\nplace = { query = \"key\" }\n";
    let bench = Bench::new(Server::always(200, "").await, settings);
    bench.set(&meeting()).await.unwrap();
    assert_eq!(bench.server.seen()[0].uri.query(), Some("a=1001&key=s3cret%26x"));

    let nobody = Bench { server: Server::always(200, "").await, ..bench };
    let extension = "1001".parse().unwrap();
    let shown = nobody.pbx.dry_run(&write(&extension, &meeting(), 1, "t-1")).unwrap();
    assert!(shown.starts_with("POST http://127.0.0.1:") && shown.contains("key=%5Bredacted%5D"), "{shown}");
    assert!(!shown.contains("s3cret"));
}

#[tokio::test]
async fn a_failure_to_connect_does_not_show_the_key_in_the_url() {
    // A port that was free a moment ago, and whose listener is gone.
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let settings = format!(
        "attempts = 1\n{SET}[auth]\nkind = \"api_key\"\nkey = \"s3cret\"\nplace = {{ query = \"key\" }}\n"
    );
    let config = config(&settings, &format!("http://{free}"));
    let pbx = HttpPbx::new(&config, loopback(), "acme".parse().unwrap(), ManualClock::new()).unwrap();
    let error = set(&pbx, "1001", &meeting(), 1, "t-1").await.unwrap_err();
    assert!(matches!(error, PbxError::Unreachable(_)));
    let said = format!("{} {error:?} {config:?} {pbx:?}", crate::chain::Chain(&error));
    assert!(!said.contains("s3cret"), "{said}");
}

#[tokio::test]
async fn client_credentials_are_exchanged_for_a_token_that_is_kept() {
    let bench = Bench::new(token_server(|auth| auth == "Bearer token-1").await, &format!("{SET}{OAUTH2}"));
    bench.set(&meeting()).await.unwrap();
    bench.set(&meeting()).await.unwrap();
    assert_eq!(asked_for_token(&bench.server), 1);
    let form: Vec<_> =
        url::form_urlencoded::parse(bench.server.seen()[0].body.as_bytes()).into_owned().collect();
    let pair = |k: &str, v: &str| (k.to_owned(), v.to_owned());
    assert_eq!(
        form,
        [
            pair("grant_type", "client_credentials"),
            pair("client_id", "me & you"),
            pair("client_secret", "s3cret"),
            pair("scope", "presence")
        ]
    );
}

#[tokio::test]
async fn a_token_is_renewed_before_it_runs_out() {
    let bench = Bench::new(token_server(|_| true).await, &format!("{SET}{OAUTH2}"));
    bench.set(&meeting()).await.unwrap();
    bench.clock.advance(Duration::from_secs(539));
    bench.set(&meeting()).await.unwrap();
    assert_eq!(asked_for_token(&bench.server), 1);
    bench.clock.advance(Duration::from_secs(1));
    bench.set(&meeting()).await.unwrap();
    assert_eq!(asked_for_token(&bench.server), 2);
    assert_eq!(bench.server.seen().last().unwrap().header("authorization"), "Bearer token-2");
}

#[tokio::test]
async fn a_token_that_is_no_longer_taken_is_renewed_once() {
    let bench = Bench::new(token_server(|auth| auth == "Bearer token-2").await, &format!("{SET}{OAUTH2}"));
    bench.set(&meeting()).await.unwrap();
    assert_eq!(asked_for_token(&bench.server), 2);

    let bench = Bench::new(token_server(|_| false).await, &format!("{SET}{OAUTH2}"));
    let error = bench.set(&meeting()).await.unwrap_err();
    assert!(matches!(error, PbxError::Denied { .. }), "{error:?}");
    assert_eq!(asked_for_token(&bench.server), 2);
}

#[tokio::test]
async fn many_requests_at_once_fetch_one_token_and_renew_it_once() {
    let bench = Bench::new(
        token_server(|auth| auth == "Bearer token-2").await,
        &format!("concurrency = 16\n{SET}{OAUTH2}"),
    );
    let extensions: Vec<_> = (1000..1016).map(|n| n.to_string()).collect();
    let wanted = meeting();
    let sets = extensions.iter().map(|extension| set(&bench.pbx, extension, &wanted, 1, extension));
    for outcome in join_all(sets).await {
        outcome.unwrap();
    }
    assert_eq!(asked_for_token(&bench.server), 2);
}

#[tokio::test]
async fn a_fixed_key_that_is_not_taken_is_not_tried_twice() {
    let bench = Bench::new(
        Server::always(401, "").await,
        &format!("{SET}[auth]\nkind = \"bearer\"\ntoken = \"abc\"\n"),
    );
    assert!(matches!(bench.set(&meeting()).await, Err(PbxError::Denied { .. })));
    assert_eq!(bench.server.seen().len(), 1);
}

#[tokio::test]
async fn a_refused_client_is_told_with_the_endpoints_own_word() {
    let server =
        Server::always(401, r#"{"error":"invalid_client","error_description":"s3cret is wrong"}"#).await;
    let bench = Bench::new(server, &format!("{SET}{OAUTH2}"));
    let error = bench.set(&meeting()).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "the PBX refuses our credentials: the token endpoint answered with status 401 (`invalid_client`)"
    );
}

#[tokio::test]
async fn while_a_renewal_fails_the_old_token_serves_to_its_end() {
    let server = Server::start(|seen, number| async move {
        match seen.uri.path() {
            "/token" if number == 0 => answer(200, r#"{"access_token":"token-1","expires_in":600}"#),
            "/token" => answer(503, ""),
            _ => answer(200, ""),
        }
    })
    .await;
    let bench = Bench::new(server, &format!("attempts = 1\n{SET}{OAUTH2}"));
    bench.set(&meeting()).await.unwrap();
    bench.clock.advance(Duration::from_secs(599));
    bench.set(&meeting()).await.unwrap();
    bench.clock.advance(Duration::from_secs(1));
    assert!(matches!(bench.set(&meeting()).await, Err(PbxError::Unreachable(_))));
}

#[tokio::test]
async fn a_log_in_gives_a_token_that_is_renewed_when_the_answers_say_so() {
    let server = Server::start(|seen, number| async move {
        match (seen.uri.path(), number) {
            ("/login", 0) => answer(200, r#"{"data":{"token":"first","life":"900"}}"#),
            ("/login", _) => answer(200, r#"{"data":{"token":"second","life":"900"}}"#),
            _ if seen.header("x-auth-token") == "second" => answer(200, r#"{"errcode":0}"#),
            _ => answer(200, r#"{"errcode":10004}"#),
        }
    })
    .await;
    let settings = format!(
        "{SET}[auth]\nkind = \"login\"\nlogin_url = \"BASE/login\"\nusername = \"me\"\npassword = \"pw\"\n\
         token = \"/data/token\"\nexpires_in = \"/data/life\"\nplace = {{ header = \"X-Auth-Token\" }}\n\
         [success]\npointer = \"/errcode\"\nequals = 0\ndenied = [10004]\n"
    );
    let bench = Bench::new(server, &settings);
    bench.set(&meeting()).await.unwrap();
    let seen = bench.server.seen();
    let paths: Vec<_> = seen.iter().map(|seen| seen.uri.path()).collect();
    assert_eq!(paths, ["/login", "/set", "/login", "/set"]);
    assert_eq!(seen[0].json(), serde_json::json!({"username": "me", "password": "pw"}));
}
