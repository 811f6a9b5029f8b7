//! The way to Redis, against real servers of every form.

use std::time::{Duration, Instant};

use ::redis::Value;
use narvaro::{
    chain::Chain,
    config::{Config, Environment},
    store::redis::{self, Link, LinkSettings, Listener, Script, check, link::OpenError},
};

use crate::support::redis::{ClusterOf, PLAIN, Proxy, RedisServer, Watched, certificates, until};

const CALL: Duration = Duration::from_millis(500);

fn settings(url: &str, more: &str) -> LinkSettings {
    let environment =
        Environment::of([("NARVARO__STORE__URL", url), ("NARVARO__STORE__CALL_TIMEOUT_MS", "500")]);
    let config = Config::parse("narvaro.toml", &format!("[store]\n{more}"), &environment).unwrap();
    config.store.link_settings().unwrap().unwrap()
}

async fn open(url: &str) -> Link {
    Link::open(&settings(url, "")).await.unwrap_or_else(|error| panic!("{}", Chain(&error)))
}

fn told(opened: Result<Link, OpenError>) -> String {
    Chain(&opened.unwrap_err()).to_string()
}

fn count() -> Script {
    Script::new("count", &["return redis.call('INCRBY', KEYS[1], ARGV[1])"])
}

async fn counted(link: &Link, key: &str) -> Result<Value, narvaro::store::redis::LinkError> {
    link.run(&count(), key, "1").await
}

/// Waits until the link serves again; nothing else may be wrong than that the server is away.
async fn until_served(link: &Link, key: &str) {
    let end = Instant::now() + Duration::from_secs(30);
    while let Err(error) = counted(link, key).await {
        assert!(Instant::now() < end, "{}", Chain(&error));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until more was heard than `heard`, and counts that.
async fn hears(listener: &Listener, heard: &mut u64) {
    tokio::time::timeout(Duration::from_secs(15), listener.heard_since(*heard)).await.unwrap();
    *heard = listener.count();
}

#[tokio::test]
async fn a_plain_server_serves_and_scripts_it_has_forgotten_are_sent_again() {
    let server = RedisServer::start(PLAIN);
    let link = open(&format!("{}/3", server.url())).await;
    assert_eq!(counted(&link, "narvaro:a").await.unwrap(), Value::Int(1));
    server.cli(&["SCRIPT", "FLUSH"]);
    assert_eq!(counted(&link, "narvaro:a").await.unwrap(), Value::Int(2));
    assert_eq!(server.cli(&["-n", "3", "GET", "narvaro:a"]).trim(), "2");
    let found = check::check(&link).await.unwrap();
    assert_eq!(found[0].durability, check::Durability::Everything);
    assert!(found[0].warning().unwrap().contains("loses everything"));
}

#[tokio::test]
async fn tls_with_an_acl_user_serves_and_a_wrong_ca_or_password_is_told() {
    let server = RedisServer::with_tls();
    let url = |password: &str| format!("rediss://anna:{password}@127.0.0.1:{}", server.port);
    let ca = format!("ca_file = '{}'", server.file("ca.pem").display());
    let link = Link::open(&settings(&url("s3cret"), &ca)).await;
    let link = link.unwrap_or_else(|error| panic!("{}", Chain(&error)));
    assert_eq!(counted(&link, "narvaro:a").await.unwrap(), Value::Int(1));
    let listener = link.listen("narvaro:x".to_owned());
    let mut heard = 0;
    hears(&listener, &mut heard).await;

    let wrong = told(Link::open(&settings(&url("wr0ng"), &ca)).await);
    assert!(wrong.contains("refuses user or password ("), "{wrong}");
    assert!(wrong.contains("check `store.username` and `store.password_file`"), "{wrong}");
    assert!(!wrong.contains("wr0ng"), "{wrong}");
    let other = tempfile::tempdir().unwrap();
    certificates(other.path());
    let other = format!("ca_file = '{}'", other.path().join("ca.pem").display());
    let wrong = told(Link::open(&settings(&url("s3cret"), &other)).await);
    assert!(wrong.contains("no TLS with `127.0.0.1:"), "{wrong}");
    let system = told(Link::open(&settings(&url("s3cret"), "")).await);
    assert!(system.contains("no TLS with `127.0.0.1:"), "{system}");
}

#[tokio::test]
async fn a_server_that_is_killed_is_away_at_once_and_found_when_it_is_back() {
    let server = RedisServer::start("appendonly yes\nappendfsync always");
    let link = open(&server.url()).await;
    counted(&link, "narvaro:a").await.unwrap();
    assert_eq!(check::check(&link).await.unwrap()[0].durability, check::Durability::Nothing);
    server.kill();
    let began = Instant::now();
    counted(&link, "narvaro:a").await.unwrap_err();
    assert!(began.elapsed() < CALL * 2, "{:?}", began.elapsed());
    server.launch();
    until_served(&link, "narvaro:b").await;
    assert_eq!(counted(&link, "narvaro:a").await.unwrap(), Value::Int(2));
}

#[tokio::test]
async fn a_server_that_hangs_costs_one_time_out_then_nobody_waits_and_it_recovers() {
    let server = RedisServer::start(PLAIN);
    let link = open(&server.url()).await;
    counted(&link, "narvaro:a").await.unwrap();
    server.stop();
    let began = Instant::now();
    let error = counted(&link, "narvaro:a").await.unwrap_err();
    assert!(error.may_have_run(), "{error}");
    assert!(began.elapsed() < CALL * 2, "{:?}", began.elapsed());
    until("it is known to be away", || link.is_away()).await;
    let began = Instant::now();
    for _ in 0..100 {
        assert!(!counted(&link, "narvaro:a").await.unwrap_err().may_have_run());
    }
    assert!(began.elapsed() < CALL, "{:?}", began.elapsed());
    server.go_on();
    until_served(&link, "narvaro:b").await;
}

#[tokio::test]
async fn a_fail_over_of_sentinels_is_followed_and_the_listener_hears_the_new_master() {
    let watched = Watched::start().await;
    let link = open(&watched.url()).await;
    counted(&link, "narvaro:a").await.unwrap();
    let listener = link.listen("narvaro:x".to_owned());
    let mut heard = 0;
    hears(&listener, &mut heard).await;
    watched.master.kill();
    until_served(&link, "narvaro:b").await;
    assert_eq!(watched.replica.cli(&["GET", "narvaro:b"]).trim(), "1");
    hears(&listener, &mut heard).await;
    watched.replica.cli(&["PUBLISH", "narvaro:x", "1"]);
    hears(&listener, &mut heard).await;
}

#[tokio::test]
async fn a_cluster_serves_every_slot_and_a_master_that_is_killed_is_followed() {
    let cluster = ClusterOf::start().await;
    let link = open(&cluster.url()).await;
    for number in 0..50 {
        assert_eq!(counted(&link, &format!("narvaro:{number}")).await.unwrap(), Value::Int(1));
    }
    assert_eq!(check::check(&link).await.unwrap().len(), 3);
    let listener = link.listen("narvaro:x".to_owned());
    let mut heard = 0;
    hears(&listener, &mut heard).await;
    cluster.nodes[5].cli(&["PUBLISH", "narvaro:x", "1"]);
    hears(&listener, &mut heard).await;
    cluster.master_of("narvaro:lost").kill();
    until_served(&link, "narvaro:after{narvaro:lost}").await;
}

#[tokio::test]
async fn a_server_that_throws_keys_away_is_refused() {
    let server = RedisServer::start(&format!("{PLAIN}\nmaxmemory 100mb\nmaxmemory-policy allkeys-lru"));
    let (told, remedy) = hindrance(&server.url(), "").await;
    assert!(told.contains("set `maxmemory-policy noeviction`"), "{told}");
    assert!(remedy.starts_with("`redis-cli config set maxmemory-policy noeviction`"), "{remedy}");
}

/// What stands in the way of a start on this Redis, and what to do about it.
async fn hindrance(url: &str, more: &str) -> (String, String) {
    let open = async {
        check::check(&Link::open(&settings(url, more)).await?).await?;
        Ok::<_, redis::OpenError>(())
    };
    let error = open.await.unwrap_err();
    (Chain(&error).to_string(), error.remedy())
}

/// Both say these words, and of nobody who answers it is said that it is away.
async fn is_hindered(url: &str, more: &str, said: &str, remedy: &str) {
    let told = hindrance(url, more).await;
    assert!(told.0.contains(said) && told.1.contains(remedy), "{url}: {told:#?}");
    assert!(!told.0.contains("reached") && !told.1.contains("reached"), "{url}: {told:#?}");
}

#[tokio::test]
async fn a_redis_of_another_form_than_was_named_is_told_with_the_address_to_write() {
    let server = RedisServer::start(PLAIN);
    let host = format!("127.0.0.1:{}", server.port);
    let (url, said) = (format!("redis+sentinel://{host}/mymaster"), format!("`{host}` is no Sentinel"));
    is_hindered(&url, "", &said, "usually 26379; for a Redis without Sentinels write `redis://").await;
    let (url, said) = (format!("redis+cluster://{host}"), format!("`{host}` belongs to no Cluster"));
    is_hindered(&url, "", &said, "write `redis://HOST:PORT`").await;
    let sentinel = RedisServer::sentinel(&format!("sentinel monitor mymaster 127.0.0.1 {} 1", server.port));
    let host = format!("127.0.0.1:{}", sentinel.port);
    let named = format!("`store.url = \"redis+sentinel://{host}/NAME\"`");
    is_hindered(&sentinel.url(), "", &format!("`{host}` is a Sentinel"), &named).await;
    let url = format!("redis+sentinel://{host}/other");
    is_hindered(&url, "", "know no master `other`", "`redis-cli -p 26379 sentinel masters`").await;
}

#[tokio::test]
async fn tls_where_there_is_none_and_none_where_there_is_are_told_with_the_address_to_write() {
    let server = RedisServer::start(PLAIN);
    let url = format!("rediss://127.0.0.1:{}", server.port);
    is_hindered(&url, "", "does not answer as TLS does", "write `redis` in place of `rediss`").await;
    let server = RedisServer::with_tls();
    is_hindered(&server.url(), "", "ended the connection", "write `rediss` in place of `redis`").await;
}

#[tokio::test]
async fn a_database_that_there_is_not_and_a_password_that_is_not_set_are_told() {
    let server = RedisServer::start(PLAIN);
    let url = format!("{}/99", server.url());
    is_hindered(&url, "", "has no database of so high a number", "write a lower number").await;
    server.cli(&["CONFIG", "SET", "requirepass", "s3cret"]);
    for url in [server.url(), format!("{}/3", server.url())] {
        let said = "wants a password, and none is set (`store.password_file`)";
        is_hindered(&url, "", said, "name that as `store.password_file`").await;
    }
    let url = format!("redis://:wr0ng@127.0.0.1:{}", server.port);
    is_hindered(&url, "", "refuses user or password", "`redis-cli --user NAME --askpass ping`").await;
}

#[tokio::test]
async fn a_listener_hears_again_after_its_connection_was_cut_or_fell_silent() {
    let server = RedisServer::start(PLAIN);
    let proxy = Proxy::to(server.port).await;
    let link = open(&format!("redis://127.0.0.1:{}", proxy.port)).await;
    let listener = link.listen("narvaro:x".to_owned());
    let mut heard = 0;
    hears(&listener, &mut heard).await;
    server.cli(&["PUBLISH", "narvaro:x", "1"]);
    hears(&listener, &mut heard).await;
    proxy.cut();
    hears(&listener, &mut heard).await;
    proxy.stall(true);
    until("the silence is noticed", || link.is_away()).await;
    proxy.refuse(true);
    proxy.stall(false);
    proxy.refuse(false);
    hears(&listener, &mut heard).await;
    until_served(&link, "narvaro:a").await;
}
