//! The admin API of the whole service: who may do what, what is written down of it, jobs that outlive the process, and
//! the end of a credential.

use std::{ffi::OsString, fs, sync::Arc};

use futures_util::FutureExt;
use jiff::SignedDuration;
use narvaro::{
    admin::{
        ApplyRequest, AuditRequest, JobId, JobProgress, OperationError, RemoveRequest, RenewRequest, Scope,
    },
    app::{App, Sockets, StartError},
    cli,
    clock::SharedClock,
    config::Environment,
};
use narvaro_sim::{Fault, FaultFilter, FaultKind, UserSpec};
use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    apart::two_companies,
    support::service::Service,
    world::{ANNA, Pbx, World, scope},
};

const BO: &str = "bo@acme.example";

/// Lets the service know tokens of these roles, each limited to a company or not; a token is its own name.
async fn with_tokens(world: &mut World, tokens: &[(&str, &str, &str)]) {
    let mut text = String::new();
    for (name, role, companies) in tokens {
        let file = world.folder.path().join(format!("{name}.token"));
        fs::write(&file, name).unwrap();
        text += &format!("[[admin.tokens]]\nname = \"{name}\"\nrole = \"{role}\"\n{companies}\n");
        text += &format!("file = \"{}\"\n", file.display());
    }
    world.more_config = text;
    world.restart().await;
    world.settle().await;
}

/// Status and document of an answer, without what differs from request to request.
async fn ask(world: &World, token: &str, method: &Method, path: &str, body: Option<&Value>) -> (u16, Value) {
    let address = format!("http://{}{path}", world.app().private());
    let mut request = world.client.request(method.clone(), address).bearer_auth(token);
    if let Some(body) = body {
        request = request.json(body);
    }
    let answer = request.send().await.unwrap();
    let status = answer.status().as_u16();
    let mut document: Value = answer.json().await.unwrap();
    if let Some(fields) = document.as_object_mut() {
        fields.remove("request_id");
    }
    (status, document)
}

/// Requests to a route that are about `company`. A route that is not here fails the test, until somebody has thought of
/// what it shows of another company.
fn about(company: &str, method: &Method, path: &str, job: &str) -> Vec<(String, Option<Value>)> {
    let place = path.replace("{company}", company).replace("{job}", job);
    let query = |more: &str| vec![(format!("{place}?company={company}{more}"), None)];
    let body = |body: Value| vec![(place.clone(), Some(body))];
    match (method.as_str(), path.trim_start_matches("/admin/v1")) {
        ("GET", "/companies" | "/backup" | "/jobs/{job}") => vec![(place, None)],
        ("GET", "/status" | "/subscriptions" | "/jobs" | "/check" | "/audit") => query(""),
        ("GET", "/explain") => [query("&user=201"), query("&user=anna@acme.example")].concat(),
        ("GET", path) if path.starts_with("/companies/{company}/") => vec![(place, None)],
        ("POST", "/companies/{company}/consent-url" | "/jobs/{job}/cancel") => body(json!({})),
        ("POST", "/companies/{company}/remove") => body(json!({ "dry_run": true })),
        ("POST", "/companies/apply") => {
            body(json!({ "text": format!("id = '{company}'"), "file": "a.toml", "dry_run": true }))
        }
        ("POST", "/companies/restore") => {
            body(json!({ "company": { "id": company }, "file": "b.json", "dry_run": true }))
        }
        ("POST", "/try") => body(json!({ "company": company, "subject": "MÖT" })),
        ("POST", "/subscriptions/renew" | "/sync") => {
            [body(json!({ "company": company })), body(json!({ "company": company, "user": "201" }))].concat()
        }
        _ => panic!("{method} {path}: what does it show of another company?"),
    }
}

#[tokio::test]
async fn i14_to_a_token_of_another_company_a_company_is_as_if_it_did_not_exist() {
    let (mut world, _) = two_companies().await;
    with_tokens(&mut world, &[("beta-desk", "operator", "companies = [\"beta\"]")]).await;
    let asked = RenewRequest { company: Some("acme".parse().unwrap()), ..RenewRequest::default() };
    let job = world.operations().renew(asked).await.unwrap().job;
    finished(&world, &job).await;
    world.settle().await;
    let (_, document) = ask(&world, "nobody", &Method::GET, "/openapi.json", None).await;
    let calls = world.sim.journal().graph_calls().len();
    let mut asked = 0;
    for (path, operations) in document["paths"].as_object().unwrap() {
        if !path.starts_with("/admin/") {
            continue;
        }
        for method in operations.as_object().unwrap().keys() {
            let method: Method = method.to_uppercase().parse().unwrap();
            let real = about("acme", &method, path, &job.0);
            let none = about("none", &method, path, "none");
            for ((real, real_body), (none, none_body)) in real.into_iter().zip(none) {
                let (status, told) = ask(&world, "beta-desk", &method, &real, real_body.as_ref()).await;
                let expected = ask(&world, "beta-desk", &method, &none, none_body.as_ref()).await;
                let told = told.to_string().replace(&job.0, "none").replace("acme", "none");
                assert_eq!((status, told), (expected.0, expected.1.to_string()), "{method} {real}");
                asked += 1;
            }
        }
    }
    assert!(asked >= 20, "{asked}");
    assert_eq!(world.sim.journal().graph_calls().len(), calls, "nothing was done there");
    // What names no company is about the token's own.
    let get = async |path: &str| ask(&world, "beta-desk", &Method::GET, path, None).await;
    for path in ["companies", "status", "subscriptions", "jobs", "audit", "explain?user=201"] {
        let (status, told) = get(&format!("/admin/v1/{path}")).await;
        assert_eq!(status, 200, "{path}: {told}");
        assert!(!told.to_string().contains("acme"), "{path}: {told}");
    }
    let (_, told) = get("/admin/v1/companies/beta/mailboxes").await;
    assert_eq!(told["items"][0]["alias"], "eva@beta.example");
    let everything = Some(&json!({ "all": true }));
    let renewed = ask(&world, "beta-desk", &Method::POST, "/admin/v1/subscriptions/renew", everything).await;
    assert_eq!((renewed.0, &renewed.1["total"]), (200, &json!(1)));
    world.end().await;
}

#[tokio::test]
async fn two_tokens_that_are_the_same_are_refused_at_start() {
    let mut world = World::bare().await;
    world.stop().await;
    let token = fs::read_to_string(world.folder.path().join("admin.token")).unwrap();
    let file = world.folder.path().join("again.token");
    fs::write(&file, token).unwrap();
    world.more_config =
        format!("[[admin.tokens]]\nname = \"again\"\nrole = \"read\"\nfile = \"{}\"", file.display());
    let clock = Arc::clone(&world.clock) as SharedClock;
    let sockets = async || tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let sockets = Sockets { public: sockets().await, private: sockets().await };
    let refused = App::start(world.config(), world.environment(), clock, None, sockets).await.err().unwrap();
    assert!(matches!(refused, StartError::SameToken(..)), "{refused}");
    assert!(refused.to_string().contains("`admin` and `again`"), "{refused}");
}

#[tokio::test]
async fn who_did_what_is_written_down_with_its_outcome_and_survives_a_restart() {
    let mut world = World::new().await;
    with_tokens(&mut world, &[("helpdesk", "operator", "")]).await;
    let post = async |path: &str, token: &str, body: Value| {
        ask(&world, token, &Method::POST, &format!("/admin/v1/{path}"), Some(&body)).await
    };
    let admin = fs::read_to_string(world.folder.path().join("admin.token")).unwrap();
    let apply = |text: &str, dry_run| json!({ "text": text, "file": "company.toml", "dry_run": dry_run });
    let changed = world.company(Pbx::Http, "phone_region = \"NO\"");
    post("companies/apply", admin.trim(), apply(&changed, true)).await;
    assert_eq!(post("companies/apply", admin.trim(), apply(&changed, false)).await.0, 200);
    assert_eq!(post("companies/apply", admin.trim(), apply("id = 5", false)).await.0, 422);
    assert_eq!(post("companies/apply", "helpdesk", apply(&changed, false)).await.0, 403);
    post("sync", "helpdesk", json!({ "user": "201" })).await;
    let (_, started) = post("subscriptions/renew", "helpdesk", json!({ "company": "acme" })).await;
    post("try", "helpdesk", json!({ "company": "acme", "subject": "Läkare kl 10" })).await;
    let job = JobId(started["job"].as_str().unwrap().to_owned());
    finished(&world, &job).await;
    let id = job.0.clone();
    let entries = async |world: &World, request: AuditRequest| -> Vec<String> {
        let page = world.operations().audit(request).await.unwrap();
        let line = |line: &narvaro::admin::AuditLine| {
            let company = line.company.as_ref().map_or("-", |company| company.as_str());
            // When a link ends, and which job it is, is different each time.
            let outcome = line.outcome.split(" until ").next().unwrap().replace(&id, "J");
            format!("{} {} {company}: {outcome}", line.who, line.what)
        };
        page.items.iter().rev().map(line).collect()
    };
    let expected = [
        "admin apply acme: revision 1, 4 changes",
        "admin consent_link acme: good",
        "consent link consent acme: the company's administrator has consented",
        "admin apply acme: revision 2, 1 change",
        "admin apply -: refused: the company file does not hold",
        "helpdesk sync acme: 1 mailbox is read anew",
        "helpdesk renew acme: job J: 2 mailboxes",
        "helpdesk renew_ended acme: job J: 2 renewed, 0 made anew, 0 failed of 2",
    ];
    let told = entries(&world, AuditRequest::default()).await;
    assert_eq!(told.len(), expected.len(), "{told:#?}");
    // How many lines a new company has is the business of its own tests.
    assert!(told[0].starts_with("admin apply acme: revision 1, "), "{told:#?}");
    assert_eq!(told[1..], expected[1..]);
    world.restart().await;
    assert_eq!(entries(&world, AuditRequest::default()).await, told);
    let acme = AuditRequest { company: Some("acme".parse().unwrap()), ..AuditRequest::default() };
    assert_eq!(entries(&world, acme).await.len(), 7);
    // From the newest, in pieces.
    let first = AuditRequest { limit: Some(3), ..AuditRequest::default() };
    let page = world.operations().audit(first).await.unwrap();
    let rest = AuditRequest { after: page.next, ..AuditRequest::default() };
    assert_eq!(page.items.len(), 3);
    assert_eq!(entries(&world, rest).await, told[..5]);
    let later =
        AuditRequest { since: Some(world.now() + SignedDuration::from_secs(1)), ..AuditRequest::default() };
    assert_eq!(entries(&world, later).await, Vec::<String>::new());
    world.end().await;
}

#[tokio::test]
async fn who_removed_a_company_is_told_even_when_it_is_gone() {
    let mut world = World::new().await;
    with_tokens(&mut world, &[("helpdesk", "operator", "")]).await;
    let admin = fs::read_to_string(world.folder.path().join("admin.token")).unwrap();
    let remove = async |token: &str, dry_run: bool| {
        let body = json!({ "dry_run": dry_run });
        ask(&world, token, &Method::POST, "/admin/v1/companies/acme/remove", Some(&body)).await
    };
    assert_eq!(remove("helpdesk", false).await.0, 403);
    let (status, would) = remove(admin.trim(), true).await;
    assert_eq!((status, &would["leaving"]), (200, &json!(false)));
    let (status, goes) = remove(admin.trim(), false).await;
    assert_eq!((status, &goes["leaving"]), (200, &json!(true)));
    world
        .until("the company is forgotten", async || {
            let status = world.operations().status(scope("acme")).await;
            matches!(status, Err(OperationError::NoSuchCompany(_)))
        })
        .await;
    let of = |company: &str| AuditRequest { company: company.parse().ok(), ..AuditRequest::default() };
    let told = world.operations().audit(of("acme")).await.unwrap().items;
    let removed: Vec<_> = told.iter().filter(|line| line.what == "remove").collect();
    assert_eq!(removed.len(), 1, "a dry run is no deed: {told:#?}");
    assert_eq!((removed[0].who.as_str(), removed[0].outcome.as_str()), ("admin", "revision 2, 2 users go"));
    let unknown = world.operations().audit(of("none")).await;
    assert!(matches!(unknown, Err(OperationError::NoSuchCompany(_))), "{unknown:?}");
    world.end().await;
}

#[tokio::test]
async fn what_was_begun_goes_on_though_its_client_hangs_up() {
    let world = World::bare().await;
    for alias in [ANNA, BO] {
        world.sim.add_user(&world.tenant, UserSpec::new(alias)).unwrap();
    }
    let operations = world.operations();
    let acme = || "acme".parse().unwrap();
    // Each is looked at once and let go of, as when the client closes the connection.
    let text = world.company(Pbx::Http, "");
    let request = ApplyRequest { text, file: "company.toml".to_owned(), dry_run: false };
    assert!(operations.apply(request).now_or_never().is_none());
    let is_known = async || operations.status(scope("acme")).await.is_ok();
    world.until("the company is at work", is_known).await;
    world.consent("acme").await;
    world.until_fine("acme").await;
    let request = RenewRequest { company: Some(acme()), ..RenewRequest::default() };
    assert!(operations.renew(request).now_or_never().is_none());
    let renewed = async || {
        let jobs = operations.jobs(None).await.unwrap();
        jobs.first().is_some_and(|job| job.progress.finished && job.progress.renewed == 2)
    };
    world.until("the job is done", renewed).await;
    assert!(operations.remove(acme(), RemoveRequest { dry_run: false }).now_or_never().is_none());
    world.until("the company is forgotten", async || !is_known().await).await;
    world.end().await;
}

async fn finished(world: &World, job: &JobId) -> JobProgress {
    let progress = async || world.operations().job(job.clone()).await.unwrap();
    world.until("the job ends", async || progress().await.finished).await;
    progress().await
}

fn patches(world: &World) -> usize {
    world.sim.journal().graph_calls().iter().filter(|call| call.method == "PATCH").count()
}

/// The command line, with the token that the service has made.
async fn narvaro(world: &World, arguments: &[&str]) -> (u8, String, String) {
    let url = format!("http://{}", world.app().private());
    let token = world.folder.path().join("admin.token").display().to_string();
    let options = ["narvaro", "--url", &url, "--token-file", &token];
    let line: Vec<OsString> = options.iter().chain(arguments).map(OsString::from).collect();
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let code = cli::run(line, Environment::of([]), &mut out, &mut err).await;
    (code, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
}

#[tokio::test]
async fn renewing_many_is_spread_and_goes_on_where_it_was_after_a_restart_of_the_service() {
    const MANY: usize = 230;
    /// As many as may be changed for one tenant within 20 seconds.
    const AT_ONCE: u64 = 200;
    let mut world = World::bare().await;
    let aliases: Vec<(String, String)> =
        (0..MANY).map(|number| (format!("{}", 1_000 + number), format!("u{number}@acme.example"))).collect();
    for (_, alias) in &aliases {
        world.sim.add_user(&world.tenant, UserSpec::new(alias)).unwrap();
    }
    let users: Vec<_> =
        aliases.iter().map(|(extension, alias)| (extension.as_str(), alias.as_str(), "")).collect();
    world.apply(&world.file("acme", "", "", &world.http_pbx("acme"), &users)).await;
    world.consent("acme").await;
    world.until("every mailbox is watched", async || world.sim.subscriptions().len() == MANY).await;
    world.settle().await;

    let everything = RenewRequest::default();
    let started = world.operations().renew(everything.clone()).await.unwrap();
    assert_eq!((started.total, started.under_way), (MANY as u64, false));
    let progress = async |world: &World| world.operations().job(started.job.clone()).await.unwrap();
    world.until("there is room for no more", async || progress(&world).await.done == AT_ONCE).await;
    world.settle().await;
    assert!(!progress(&world).await.finished);
    world.restart().await;
    world.settle().await;
    assert_eq!(progress(&world).await.done, AT_ONCE, "it shows how far it had come, and goes on in a while");
    // The command again, instead of a second job: it joins the first and follows it to its end.
    world.sim.set_time(world.now() + SignedDuration::from_secs(20));
    world.clock.advance_to(world.now() + SignedDuration::from_secs(20));
    let (code, out, err) = narvaro(&world, &["subscriptions", "renew", "--all"]).await;
    assert_eq!((code, out.as_str()), (0, "Renewed 230 of 230 subscriptions.\n"), "{err}");
    let jobs = world.operations().jobs(None).await.unwrap();
    assert_eq!(jobs.len(), 1);
    assert_eq!(jobs[0].progress.renewed, MANY as u64, "{jobs:?}");
    assert_eq!(patches(&world), MANY, "each once");

    // Another one right behind finds no room that the first has used; ended early, it leaves the rest as it is.
    let second = world.operations().renew(everything).await.unwrap();
    assert!(second.job != started.job && !second.under_way);
    let progress = async || world.operations().job(second.job.clone()).await.unwrap();
    world.until("there is room for no more", async || progress().await.done == AT_ONCE - 30).await;
    assert!(world.operations().cancel(second.job.clone()).await.unwrap().cancelled);
    let ended = finished(&world, &second.job).await;
    assert_eq!((ended.cancelled, ended.done, ended.renewed), (true, AT_ONCE - 30, AT_ONCE - 30));
    world.end().await;
}

#[tokio::test]
async fn a_renewal_tells_what_was_made_anew_and_what_failed_for_which_reason() {
    let world = World::new().await;
    world.sim.expire_subscription(&world.subscriptions(BO)[0].id);
    let anna = world.subscriptions(ANNA)[0].id.clone();
    let status = FaultKind::Status { status: 403, code: None, retry_after: None };
    let filter = FaultFilter { method: Some("PATCH".into()), ..FaultFilter::path(&anna) };
    world.sim.fault(Fault::lasting(status).only(filter));
    let (code, out, err) = narvaro(&world, &["subscriptions", "renew", "--company", "acme"]).await;
    assert_eq!((code, out.as_str()), (1, "Renewed 1 of 2 subscriptions, 1 of them made anew.\n"), "{err}");
    assert!(err.contains("failed: acme: 201: ") && err.contains("1 failed with `access_denied`"), "{err}");
    world.sim.clear_faults();
    let (code, out, _) = narvaro(&world, &["subscriptions", "renew", "--all"]).await;
    assert_eq!((code, out.as_str()), (0, "Renewed 2 of 2 subscriptions.\n"));
    world.end().await;
}

#[tokio::test]
async fn a_company_without_consent_is_not_asked_and_counted_as_such() {
    let world = World::bare().await;
    world.apply(&world.company(Pbx::Http, "")).await;
    world.settle().await;
    let started = world.operations().renew(RenewRequest::default()).await.unwrap();
    let ended = finished(&world, &started.job).await;
    assert_eq!((ended.done, ended.reasons.get("no_consent")), (2, Some(&2)), "{ended:?}");
    assert_eq!(world.sim.journal().graph_calls().len(), 0);
    world.end().await;
}

#[tokio::test]
async fn while_graph_asks_for_patience_a_renewal_waits_and_then_succeeds() {
    let world = World::new().await;
    let throttle = FaultKind::Throttle { retry_after: Some(30.0) };
    let filter = FaultFilter { method: Some("PATCH".into()), ..FaultFilter::path("subscriptions") };
    world.sim.fault(Fault::next(1, throttle).only(filter));
    let started = world.operations().renew(RenewRequest::default()).await.unwrap();
    let progress = async || world.operations().job(started.job.clone()).await.unwrap();
    world.settle().await;
    assert!(!progress().await.finished);
    for _ in 0..60 {
        world.advance(SignedDuration::from_secs(5)).await;
    }
    let ended = finished(&world, &started.job).await;
    assert_eq!((ended.renewed, ended.reasons.len()), (2, 0), "{ended:?}");
    world.end().await;
}

#[tokio::test]
async fn the_end_of_the_client_secret_is_told_thirty_days_ahead_and_not_before() {
    let mut world = World::new().await;
    world.more_config = "client_secret_expires = \"2026-12-24\"".to_owned();
    world.restart().await;
    world.settle().await;
    let notices = async || world.operations().status(Scope::default()).await.unwrap().notices;
    let line = async || {
        let report = world.operations().check(Scope::default()).await.unwrap();
        report.checks.into_iter().find(|line| line.what == "credential of the application").unwrap()
    };
    assert_eq!(notices().await, []);
    assert_eq!((line().await.ok, line().await.said.as_str()), (true, "works until 2026-12-24"));
    world.advance(SignedDuration::from_hours(48)).await;
    let told = notices().await;
    assert_eq!(told[0].health.name(), "credential_expires");
    assert!(told[0].cause.contains("2026-12-24") && told[0].cure.contains("Entra"), "{told:?}");
    let line = line().await;
    assert!(!line.ok && line.cure.is_some(), "{line:?}");
    let (_, out, _) = narvaro(&world, &["status"]).await;
    assert!(out.starts_with("warning: Service: credential expires\n"), "{out}");
    // A new secret, and its day: all is well again.
    world.more_config = "client_secret_expires = \"2028-12-24\"".to_owned();
    let mut world = world;
    world.restart().await;
    assert_eq!(world.operations().status(Scope::default()).await.unwrap().notices, []);
    world.settle().await;
    world.end().await;
}

#[tokio::test]
async fn the_end_of_the_client_secret_is_a_metric() {
    let mut service = Service::new().await;
    service.start(&[("NARVARO__GRAPH__CLIENT_SECRET_EXPIRES", "2099-01-31")]).await;
    let end: jiff::Timestamp = "2099-01-31T00:00:00Z".parse().unwrap();
    let line = format!("narvaro_credential_expires_timestamp_seconds {}", end.as_second());
    let metrics = service.metrics().await;
    assert!(metrics.lines().any(|known| known == line), "{metrics}");
}
