//! What a person gets to read for each mistake, and what wins over what.

use secrecy::ExposeSecret;

use super::*;

/// What a person reads about a configuration that does not hold.
fn told(text: &str) -> Vec<String> {
    told_with(text, &Environment::default())
}

fn told_with(text: &str, environment: &Environment) -> Vec<String> {
    match Config::parse("narvaro.toml", text, environment) {
        Ok(_) => Vec::new(),
        Err(findings) => findings.findings.iter().map(|one| format!("{one} -- {}", one.remedy)).collect(),
    }
}

fn config(text: &str) -> Config {
    Config::parse("narvaro.toml", text, &Environment::default()).unwrap()
}

#[test]
fn the_defaults_hold_and_every_key_is_explained_above_it() {
    config("");
    let lines: Vec<&str> = DEFAULTS.lines().collect();
    for (index, line) in lines.iter().enumerate().filter(|(_, line)| line.contains(" = ")) {
        if !line.starts_with('#') {
            let above = lines[index - 1];
            assert!(above.starts_with('#') || *line == "key_file = \"\"", "`{line}` is not explained");
        }
    }
}

#[test]
fn the_example_for_operators_holds() {
    let config = config(include_str!("../../infra/narvaro.toml"));
    assert!(config.webhook.public_url.is_some() && config.graph.client_id.is_some());
}

/// The text of a file, and what is told of it.
const REFUSED: &[(&str, &[&str])] = &[
    (
        "[[admin.tokens]]\nname = 'admin'\nrole = 'read'\n[[admin.tokens]]\nname = 'x'\nrole = 'admin'\nenv = 'X'\ncompanies = ['acme']",
        &[
            "narvaro.toml, line 2: `admin.tokens[0].name` cannot be `admin`: another token is called so, or nobody -- give each token a name of its own; `admin` is the one in `admin.token_file`",
            "narvaro.toml, line 1: `admin.tokens[0].file` and `env`: exactly one is needed -- name the file, or the variable, that holds the token",
            "narvaro.toml, line 8: `admin.tokens[1].companies` is set, and the role is `admin` -- use `role = \"operator\"`: whoever may apply company files can reach every company",
        ],
    ),
    (
        "[[admin.tokens]]\nname = 'x'\nrole = 'root'\nenv = 'X'",
        &[
            "narvaro.toml, line 3: `admin.tokens[0].role` cannot be `root` -- possible are `read`, `operator`, `admin`",
        ],
    ),
    (
        "[graph]\nclient_secret_expires = 'soon'",
        &[
            "narvaro.toml, line 2: `graph.client_secret_expires` does not hold: `soon` is no day -- write it as `2027-01-31`",
        ],
    ),
    (
        "[listen]\npublic = 5",
        &["narvaro.toml, line 2: `listen.public` cannot be integer `5` -- write a text in quotes"],
    ),
    (
        "[listen]\n\npubic = ''",
        &[
            "narvaro.toml, line 3: `listen.pubic` is no key that exists here -- did you mean `public`? Possible are `public`, `private`",
        ],
    ),
    (
        "[listen]\npublic = ':8080'",
        &[
            "narvaro.toml, line 2: `listen.public` does not hold: `:8080` is no address to listen at -- write IP and port, as `127.0.0.1:8081` or `[::]:8080`",
        ],
    ),
    (
        "[listen]\npublic = '127.0.0.1:8081'",
        &[
            "narvaro.toml, line 1: `listen.private` is the same address as `listen.public`, 127.0.0.1:8081 -- give each listener its own port: the admin API must not be reachable from the internet",
        ],
    ),
    (
        "[queu]",
        &[
            "narvaro.toml, line 1: `queu` is no key that exists here -- did you mean `queue`? Possible are `listen`, `webhook`, `store`, `graph`, `keys`, `admin`, `queue`, `sweep`, `pbx`, `log`",
        ],
    ),
    (
        "[queue]\nworkers = 0\nlease_secs = 5\nahead_secs = 61",
        &[
            "narvaro.toml, line 2: `queue.workers` cannot be 0 -- use 1 to 1024: each holds one mailbox at a time",
            "narvaro.toml, line 4: `queue.ahead_secs` cannot be 61 -- use 0 to 60: what a process that dies has taken on waits so long and longer; 0 takes none on",
            "narvaro.toml, line 3: `queue.lease_secs` cannot be 5 -- use 10 to 600: a turn waits up to 30 s for an outside system",
        ],
    ),
    (
        "[queue]\nworkers = -1",
        &["narvaro.toml, line 2: `queue.workers` cannot be integer `-1` -- write a whole number, 0 or more"],
    ),
    (
        "[queue\n",
        &[
            "narvaro.toml, line 1: is no TOML: unclosed table, expected `]` -- correct the line: texts stand in quotes, each key once, `[table]` before its keys",
        ],
    ),
    (
        "[graph]\ncloud = 'globl'",
        &[
            "narvaro.toml, line 2: `graph.cloud` cannot be `globl` -- did you mean `global`? Possible are `global`, `us-gcc-high`, `us-dod`, `china`, `custom`",
        ],
    ),
    (
        "[graph]\ncloud = 'custom'\ngraph_base = 'http://graph.example'",
        &[
            "narvaro.toml, line 3: `graph.graph_base` is not https: `http://graph.example/` -- use https; plain http is possible only towards this machine itself, for simulators",
            "narvaro.toml, line 1: `graph.login_authority` is not set, and `graph.cloud` is `custom` -- give both addresses, or name a cloud",
        ],
    ),
    (
        "[graph]\ngraph_base = 'https://graph.example'",
        &[
            "narvaro.toml, line 2: `graph.graph_base` is set, and `graph.cloud` names one of Microsoft's clouds -- set `graph.cloud = \"custom\"`, or remove the address",
        ],
    ),
    (
        "[graph]\nclient_secret = 'x'",
        &[
            "narvaro.toml, line 2: `graph.client_secret` is a secret, and this file is none -- write it into a file and name that as `graph.client_secret_file`, or set `NARVARO__GRAPH__CLIENT_SECRET`",
        ],
    ),
    (
        "[graph]\nclient_secret_file = 'a'\ncertificate_file = 'b'",
        &[
            "narvaro.toml, line 3: `graph.certificate_file` is set, and so is `graph.client_secret_file` -- keep one: the service proves itself in one way",
            "narvaro.toml, line 1: `graph.key_file` is not set, and `graph.certificate_file` is -- name the file with the certificate's private key (PEM)",
        ],
    ),
    (
        "[graph]\nclient_id = 'narvaro'",
        &[
            "narvaro.toml, line 2: `graph.client_id` does not hold: `narvaro` is no application id -- copy `Application (client) ID` from the app registration, a GUID",
        ],
    ),
    (
        "[webhook]\npublic_url = 'presence.example.org'",
        &[
            "narvaro.toml, line 2: `webhook.public_url` does not hold: `presence.example.org` is no URL (relative URL without a base) -- write it in full, as `https://presence.example.org`",
        ],
    ),
    (
        "[webhook]\npublic_url = 'http://127.0.0.1:8080'",
        &[
            "narvaro.toml, line 2: `webhook.public_url` is plain http: `http://127.0.0.1:8080/` -- use https, or for a simulator on this machine set `graph.allow_plain_http_loopback = true`",
        ],
    ),
    (
        "[webhook]\npublic_url = 'https://a:b@x.example/?y'",
        &[
            "narvaro.toml, line 2: `webhook.public_url` has more than host, port and path -- remove user, password, `?...` and `#...`",
        ],
    ),
    (
        "[store]\nurl = 'sqlite:x'",
        &[
            "narvaro.toml, line 2: `store.url` does not hold: `sqlite:x` is no store -- write `embedded:` and the path of a file, as `embedded:/var/lib/narvaro/narvaro.db`, or the address of a Redis, as `redis://127.0.0.1:6379`",
        ],
    ),
    (
        "[store]\nurl = 'redis://u:s3cret@h/x'",
        &[
            "narvaro.toml, line 2: `store.url` does not hold: `redis://…@h/x` is no address -- after the last `/` stands the number of a database, as `/0`",
        ],
    ),
    (
        "[store]\nurl = 'redis://u:s3cret@h'\nusername = 'u'\nca_file = 'x'\nprefix = 'a{b}'\nsentinel_username = 'x'",
        &[
            "narvaro.toml, line 5: `store.prefix` cannot be `a{b}` -- use 1 to 40 letters, digits, `-`, `_`, `.` and `:`",
            "narvaro.toml, line 2: `store.url` has a password in it, and this file is no secret -- write the password into a file and name that as `store.password_file`, or set `NARVARO__STORE__URL` in the environment",
            "narvaro.toml, line 3: `store.username` is set, and stands in `store.url` too -- keep one",
            "narvaro.toml, line 4: `store.ca_file` is set, and the way to Redis is not TLS -- begin `store.url` with `rediss` (two s), or remove the file",
            "narvaro.toml, line 6: `store.sentinel_username` is set, and `store.url` names no sentinels -- remove it, or write `redis+sentinel://HOST,HOST/MASTER`",
        ],
    ),
    (
        "[store]\npassword_file = 'x'\ncall_timeout_ms = 5",
        &[
            "narvaro.toml, line 3: `store.call_timeout_ms` cannot be 5 -- use 100 to 30000: Microsoft 365 wants an answer within 3 s",
            "narvaro.toml, line 2: `store.password_file` is set, and `store.url` is a file on this machine -- remove it, or name a Redis as `store.url`",
        ],
    ),
    (
        "[store]\nurl = 'redis://anna@h'",
        &[
            "narvaro.toml, line 2: `store.url` names a user, and no password is set -- set `store.password_file`",
        ],
    ),
];

#[test]
fn a_mistake_is_told_with_line_key_and_remedy() {
    for (text, expected) in REFUSED {
        assert_eq!(told(text), *expected, "{text}");
    }
}

#[test]
fn a_level_that_cannot_be_is_told() {
    let told = told("[log]\nlevel = 'a=b=c'");
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].starts_with("narvaro.toml, line 2: `log.level` cannot be `a=b=c`"), "{told:?}");
}

#[test]
fn plain_http_is_allowed_only_towards_this_machine_and_only_when_asked_for() {
    let address = |host: &str| {
        format!(
            "[graph]\nallow_plain_http_loopback = true\ncloud = 'custom'\n\
             graph_base = 'http://{host}:1'\nlogin_authority = 'https://login.example'"
        )
    };
    for host in ["127.0.0.1", "localhost", "[::1]", "127.8.9.1"] {
        assert_eq!(told(&address(host)), [""; 0], "{host}");
    }
    for host in ["10.0.0.1", "localhost.example", "graph.example", "[::2]", "0.0.0.0"] {
        assert_eq!(told(&address(host)).len(), 1, "{host}");
    }
}

#[test]
fn the_environment_wins_over_the_file_and_is_named_when_it_is_wrong() {
    let file = "[queue]\nworkers = 3\n[log]\nformat = 'json'";
    let environment = Environment::of([
        ("NARVARO__QUEUE__WORKERS", "5"),
        ("NARVARO__WEBHOOK__PUBLIC_URL", "https://x.example"),
        ("NARVARO__GRAPH__ALLOW_PLAIN_HTTP_LOOPBACK", "true"),
        ("NARVARO__GRAPH__CLIENT_SECRET", "s3cret"),
        ("OTHER", "x"),
    ]);
    let config = Config::parse("narvaro.toml", file, &environment).unwrap();
    assert_eq!((config.queue.workers, config.log.format), (5, LogFormat::Json));
    assert_eq!(config.webhook.public_url.as_ref().map(url::Url::as_str), Some("https://x.example/"));
    assert!(config.graph.allow_plain_http_loopback);
    let Some(Credential::Secret(secret)) = config.graph.credential().unwrap() else { panic!() };
    assert_eq!(secret.expose_secret(), "s3cret");
    assert!(!format!("{config:?}{environment:?}").contains("s3cret"));

    let wrong = |name, value| told_with(file, &Environment::of([(name, value)]));
    assert_eq!(
        wrong("NARVARO__QUEUE__WORKERS", "many"),
        [
            "environment variable NARVARO__QUEUE__WORKERS: `queue.workers` cannot be string \"many\" -- write a whole number, 0 or more"
        ]
    );
    assert!(
        wrong("NARVARO__QUEUE__WORKER", "1")[0]
            .starts_with("environment variable NARVARO__QUEUE__WORKER: `queue.worker` is no key"),
    );
}

#[test]
fn a_lease_that_a_write_to_a_pbx_may_outlast_is_refused_with_both_keys() {
    let told = |lease: u64, timeout: u64| {
        let file = format!("[queue]\nlease_secs = {lease}\n[pbx]\ntimeout_secs = {timeout}");
        told_with(&file, &Environment::default())
    };
    assert_eq!(
        told(30, 20),
        [
            "narvaro.toml, line 2: `queue.lease_secs` is too short for `pbx.timeout_secs`: a lease has to outlast a write to a PBX -- make it 40 at least, or `pbx.timeout_secs` 15 at most"
        ]
    );
    assert!(told(40, 20).is_empty());
    // A write of 10 s has to end 5 s before the last third of the lease.
    let short = told(22, 10);
    assert!(short[0].ends_with("make it 23 at least, or `pbx.timeout_secs` 9 at most"), "{short:?}");
    assert!(told(23, 10).is_empty() && told(10, 1).is_empty());
}

#[test]
fn relative_paths_count_from_the_files_folder() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("n.toml");
    std::fs::write(&file, "[graph]\nclient_secret_file = 'secret.txt'\n[store]\nurl = 'embedded:data/n.db'")
        .unwrap();
    let config = Config::load(Some(&file), &Environment::default()).unwrap();
    assert_eq!(config.store.url, StoreUrl::Embedded(folder.path().join("data/n.db")));
    assert_eq!(config.token_file(), folder.path().join("data/admin.token"));
    assert_eq!(config.client_state_file(), folder.path().join("data/client-state.key"));
    std::fs::write(folder.path().join("secret.txt"), " s3cret\n").unwrap();
    let Some(Credential::Secret(secret)) = config.graph.credential().unwrap() else { panic!() };
    assert_eq!(secret.expose_secret(), "s3cret");
}

#[test]
fn the_files_beside_a_redis_lie_where_it_is_said_else_beside_the_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("n.toml");
    let read = |text: &str, environment: &Environment| {
        std::fs::write(&file, text).unwrap();
        Config::load(Some(&file), environment).unwrap()
    };
    let redis = read("[store]\nurl = 'redis://h'", &Environment::default());
    assert_eq!(redis.token_file(), folder.path().join("admin.token"));
    let elsewhere = read("[store]\nurl = 'redis://h'\ndata_dir = 'data'", &Environment::default());
    assert_eq!(elsewhere.token_file(), folder.path().join("data/admin.token"));
    let embedded = read("[store]\ndata_dir = 'data'", &Environment::default());
    assert_eq!(embedded.token_file(), folder.path().join("data/admin.token"));
}

#[test]
fn a_password_of_the_store_comes_from_environment_or_file_and_is_never_printed() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("n.toml");
    std::fs::write(folder.path().join("sentinel"), "s3cret-2\n").unwrap();
    std::fs::write(&file, "[store]\nsentinel_password_file = 'sentinel'\nusername = 'anna'").unwrap();
    let environment =
        Environment::of([("NARVARO__STORE__URL", "rediss+sentinel://:s3cret-1@a,b/mymaster/2")]);
    let config = Config::load(Some(&file), &environment).unwrap();
    let settings = config.store.link_settings().unwrap().unwrap();
    let secret = |login: &crate::store::redis::Login| {
        login.password.as_ref().map(|one| one.expose_secret().to_owned())
    };
    assert_eq!(secret(&settings.login).as_deref(), Some("s3cret-1"));
    assert_eq!(secret(&settings.sentinel_login).as_deref(), Some("s3cret-2"));
    assert_eq!((settings.login.username.as_deref(), settings.database), (Some("anna"), 2));
    assert!(settings.tls && settings.call_timeout.as_millis() == 1500);
    assert!(!format!("{config:?}{settings:?}").contains("s3cret"));

    std::fs::remove_file(folder.path().join("sentinel")).unwrap();
    let told = config.complete().unwrap_err().findings;
    assert!(told.iter().any(|one| one.key == "store.sentinel_password_file"), "{told:?}");
}

#[test]
fn the_file_can_be_named_in_the_environment_and_must_then_exist() {
    let environment = Environment::of([("NARVARO_CONFIG", "/nowhere/n.toml")]);
    let findings = Config::load(None, &environment).unwrap_err();
    let said = findings.findings[0].to_string();
    assert!(said.starts_with("/nowhere/n.toml: cannot be read: "), "{said}");
}

#[test]
fn what_serve_lacks_is_told_with_both_ways_to_set_it() {
    let findings = config("").complete().unwrap_err().findings;
    let told: Vec<String> = findings.iter().map(|one| format!("{one} -- {}", one.remedy)).collect();
    assert_eq!(
        told,
        [
            "narvaro.toml: `webhook.public_url` is not set; it is the address at which Microsoft 365 calls us -- set `public_url` under `[webhook]`, or `NARVARO__WEBHOOK__PUBLIC_URL` in the environment",
            "narvaro.toml: `graph.client_id` is not set; it is the application (client) id of the app registration -- set `client_id` under `[graph]`, or `NARVARO__GRAPH__CLIENT_ID` in the environment",
            "narvaro.toml: `graph.client_secret_file` is not set; the app registration's secret is needed, or its certificate, or a workload identity -- set `client_secret_file` under `[graph]`, or `NARVARO__GRAPH__CLIENT_SECRET_FILE` in the environment",
        ]
    );
}

#[test]
fn a_secrets_file_that_cannot_be_read_is_told_with_its_key() {
    let config = config(
        "[webhook]\npublic_url = 'https://x.example'\n[graph]\nclient_id = '01234567-89AB-cdef-0123-456789abcdef'\n\
         client_secret_file = '/nowhere/secret'",
    );
    assert_eq!(config.graph.client_id.as_deref(), Some("01234567-89ab-cdef-0123-456789abcdef"));
    let findings = config.complete().unwrap_err().findings;
    assert_eq!(findings.len(), 1);
    let said = findings[0].to_string();
    assert!(
        said.starts_with("narvaro.toml: `graph.client_secret_file` cannot read `/nowhere/secret`: "),
        "{said}"
    );
    assert_eq!(findings[0].remedy, "create `/nowhere/secret` and let the service's account read it");
}

#[test]
fn every_cloud_has_its_addresses() {
    for (cloud, graph, login) in [
        ("global", "https://graph.microsoft.com/", "https://login.microsoftonline.com/"),
        ("us-gcc-high", "https://graph.microsoft.us/", "https://login.microsoftonline.us/"),
        ("us-dod", "https://dod-graph.microsoft.us/", "https://login.microsoftonline.us/"),
        ("china", "https://microsoftgraph.chinacloudapi.cn/", "https://login.chinacloudapi.cn/"),
    ] {
        let endpoints = config(&format!("[graph]\ncloud = '{cloud}'")).graph.endpoints();
        assert_eq!((endpoints.graph_base.as_str(), endpoints.login_authority.as_str()), (graph, login));
    }
}

#[test]
fn a_secret_is_made_once_and_only_its_owner_may_read_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data/admin.token");
    let made = read_or_create_secret("admin.token_file", &path).unwrap();
    let read = read_or_create_secret("admin.token_file", &path).unwrap();
    assert_eq!(made.expose_secret(), read.expose_secret());
    assert_eq!(made.expose_secret().len(), 43);
    assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
}

#[test]
fn an_empty_secrets_file_is_not_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key");
    std::fs::write(&path, "\n").unwrap();
    let error = read_or_create_secret("keys.client_state_file", &path).unwrap_err();
    assert!(matches!(error, SecretError::NotASecret { .. }), "{error}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "\n");
}

#[test]
fn an_unspecified_listening_address_is_called_by_loopback() {
    for (listens, called) in [
        ("0.0.0.0:9000", "http://127.0.0.1:9000"),
        ("[::]:9000", "http://[::1]:9000"),
        ("10.1.2.3:9000", "http://10.1.2.3:9000"),
    ] {
        let config = config(&format!("[listen]\nprivate = '{listens}'"));
        assert_eq!(config.listen.private_url(), called);
    }
}

#[test]
fn lines_are_found_in_tables_lists_and_inline_tables() {
    let text = "a = [1,\n 2]\n[[users]]\nname = 'x'\n\n[[users]]\n\n[users.t]\nx = { y = 1 }\n";
    let document = Document::parse("x", text).unwrap();
    for (path, line) in [
        ("a[1]", Some(2)),
        ("users[0]", Some(3)),
        ("users[1]", Some(6)),
        ("users[1].t.x.y", Some(9)),
        ("users[1].none", Some(6)),
        ("none", None),
    ] {
        assert_eq!(document.line(path), line, "{path}");
    }
}
