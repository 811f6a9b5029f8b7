//! The private listener from outside: who is let in, how it refuses, what it says of health.

use reqwest::{RequestBuilder, StatusCode, header};
use serde_json::{Value, json};

use super::{
    fake::{Fake, LESSER, Running, TOKEN},
    routes::routes,
    *,
};
use crate::model::Language;

fn client() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().build().unwrap()
}

/// Status, media type and document of an answer.
async fn answer(request: RequestBuilder) -> (StatusCode, String, Value) {
    let response = request.send().await.unwrap();
    let status = response.status();
    let media = response.headers()[header::CONTENT_TYPE].to_str().unwrap().to_owned();
    let named = response.headers()["x-request-id"].to_str().unwrap().to_owned();
    let document: Value = response.json().await.unwrap();
    if media == "application/problem+json" {
        assert_eq!(document["status"], status.as_u16());
        assert_eq!(document["request_id"], named);
    }
    (status, media, document)
}

/// What a refused request is told: status, `type` and detail.
async fn refused(request: RequestBuilder) -> (u16, String, String) {
    let (status, media, document) = answer(request).await;
    assert_eq!(media, "application/problem+json", "{document}");
    let text = |key: &str| document[key].as_str().unwrap().to_owned();
    (status.as_u16(), text("type"), text("detail"))
}

fn kind(name: &str) -> String {
    format!("urn:narvaro:problem:{name}")
}

#[tokio::test]
async fn nothing_under_admin_is_answered_without_the_token() {
    let running = Running::start(Fake::default()).await;
    let address = |path: &str| format!("{}/admin/v1/{path}", running.url);
    let http = client();
    for path in ["companies", "status", "companies/acme/export", "check", "nothing/here"] {
        for request in [
            http.get(address(path)),
            http.get(address(path)).bearer_auth(""),
            http.get(address(path)).bearer_auth("open-sesam"),
            http.get(address(path)).bearer_auth("open-sesame2"),
            http.get(address(path)).basic_auth(TOKEN, Some(TOKEN)),
            http.get(address(path)).header(header::AUTHORIZATION, TOKEN),
        ] {
            let (status, told, _) = refused(request).await;
            assert_eq!((status, told), (401, kind("unauthorised")), "{path}");
        }
    }
    let response = http.get(address("companies")).send().await.unwrap();
    assert_eq!(response.headers()[header::WWW_AUTHENTICATE], "Bearer");
}

#[tokio::test]
async fn the_token_opens_and_the_schemes_case_does_not_matter() {
    let running = Running::start(Fake::default()).await;
    for scheme in ["Bearer", "bearer", "BEARER"] {
        let request = client().get(format!("{}/admin/v1/companies", running.url));
        let (status, _, document) =
            answer(request.header(header::AUTHORIZATION, format!("{scheme} {TOKEN}"))).await;
        assert_eq!((status, &document[0]["id"]), (StatusCode::OK, &Value::from("acme")));
    }
}

/// A request that the fake grants, by method and path. A route that is not here fails the tests below, until somebody
/// has thought of what it shows to whom.
fn granted(method: &str, path: &str) -> (String, Option<Value>) {
    let company = |path: &str| path.replace("{company}", "acme");
    let (query, body) = match (method, path) {
        ("GET", "/companies" | "/status" | "/subscriptions" | "/jobs" | "/check" | "/audit") => ("", None),
        ("POST", "/companies/apply") => {
            ("", Some(json!({ "text": "id = 'acme'\nname = 'A'", "file": "a.toml", "dry_run": true })))
        }
        ("GET", "/companies/{company}/export") => ("", None),
        ("GET", "/companies/{company}/users") => ("?limit=1", None),
        ("GET", "/companies/{company}/mailboxes") => ("?after=201", None),
        ("GET", "/companies/{company}/subscriptions") => ("", None),
        ("GET", "/backup") => ("?limit=1", None),
        ("POST", "/companies/restore") => {
            ("", Some(json!({ "company": { "id": "acme" }, "file": "b.json", "dry_run": true })))
        }
        ("POST", "/companies/{company}/consent-url" | "/jobs/{job}/cancel") => ("", Some(json!({}))),
        ("POST", "/companies/{company}/remove") => ("", Some(json!({ "dry_run": true }))),
        ("GET", "/explain") => ("?user=201&company=acme", None),
        ("POST", "/try") => ("", Some(json!({ "company": "acme", "subject": "MÖT" }))),
        ("POST", "/subscriptions/renew" | "/sync") => ("", Some(json!({ "company": "acme" }))),
        ("GET", "/jobs/{job}") => ("", None),
        _ => panic!("{method} {path}: who may do this, and what does it show of other companies?"),
    };
    (format!("{}{query}", company(path).replace("{job}", "renew-2")), body)
}

fn request(running: &Running, method: &str, path: &str, token: &str) -> RequestBuilder {
    let (address, body) = granted(method, path);
    let address = format!("{}/admin/v1{address}", running.url);
    let request = client().request(method.parse().unwrap(), address).bearer_auth(token);
    match body {
        Some(body) => request.json(&body),
        None => request,
    }
}

#[tokio::test]
async fn every_route_is_closed_to_lesser_roles_and_open_to_its_own() {
    let running = Running::start(Fake::default()).await;
    for route in routes() {
        let (method, path) = (route.method.as_str(), route.path);
        let (status, _, document) = answer(request(&running, method, path, TOKEN)).await;
        assert_eq!(status, StatusCode::OK, "{method} {path}: {document}");
        for (token, role, _) in LESSER.iter().filter(|(_, _, company)| company.is_none()) {
            let (status, _, document) = answer(request(&running, method, path, token)).await;
            if *role < route.role {
                assert_eq!(
                    (status, &document["type"]),
                    (StatusCode::FORBIDDEN, &Value::from(kind("forbidden"))),
                    "{method} {path}"
                );
                assert!(document["detail"].as_str().unwrap().contains(route.role.name()), "{document}");
            } else {
                assert_eq!(status, StatusCode::OK, "{method} {path} as {token}: {document}");
            }
        }
        let (status, told, _) = refused(request(&running, method, path, "reads-al")).await;
        assert_eq!((status, told), (401, kind("unauthorised")), "{method} {path}");
    }
}

#[tokio::test]
async fn where_the_service_runs_is_told_to_nobody_who_is_limited_to_a_company() {
    let now = "2026-11-23T13:29:58Z".parse().unwrap();
    let (name, version) = ("one-1f2e3d4c".to_owned(), "1.2.3".to_owned());
    let replicas = vec![ReplicaInfo { name, version, started: now, seen: now, answers: true }];
    let running = Running::start(Fake { replicas, ..Fake::default() }).await;
    for (token, told) in [("reads-all", true), ("reads-acme", false)] {
        for path in ["/status", "/status?company=acme"] {
            let address = format!("{}/admin/v1{path}", running.url);
            let (status, _, document) = answer(client().get(address).bearer_auth(token)).await;
            assert_eq!(status, StatusCode::OK, "{document}");
            assert_eq!(document.to_string().contains("one-1f2e3d4c"), told, "{path} as {token}: {document}");
        }
    }
}

#[tokio::test]
async fn i14_a_token_for_one_company_does_all_there_and_sees_nothing_of_another() {
    let running = Running::start(Fake::default()).await;
    for route in routes() {
        let (method, path) = (route.method.as_str(), route.path);
        let (status, _, document) = answer(request(&running, method, path, "operates-acme")).await;
        // Nobody's who is limited to some: a company file can name any company's tenant and secrets, and only one brings
        // back what was removed.
        let of_all = ["/companies/apply", "/companies/restore", "/companies/{company}/remove", "/backup"];
        let of_all = of_all.contains(&path);
        let expected = if of_all { StatusCode::FORBIDDEN } else { StatusCode::OK };
        assert_eq!(status, expected, "{method} {path}: {document}");
        let (status, _, document) = answer(request(&running, method, path, "administers-acme")).await;
        let expected = if of_all { StatusCode::UNPROCESSABLE_ENTITY } else { StatusCode::OK };
        assert_eq!(status, expected, "{method} {path}: {document}");
        if of_all {
            assert_eq!(document["type"], kind("refused"), "{method} {path}: {document}");
        }
        // The same requests, which name acme or all, by somebody who has another company.
        let (_, _, mut document) = answer(request(&running, method, path, "operates-beta")).await;
        // Its digits are anything.
        document.as_object_mut().and_then(|fields| fields.remove("request_id"));
        let told = document.to_string().replace("acme.example", "");
        for word in ["Acme", "anna", "201", "sub-1", "renew-2: 2"] {
            assert!(!told.contains(word), "{method} {path} tells of `{word}`: {document}");
        }
    }
}

#[tokio::test]
async fn the_document_tells_every_route_with_its_role_its_types_and_its_refusals() {
    let running = Running::start(Fake::default()).await;
    let (status, _, document) = answer(client().get(format!("{}/openapi.json", running.url))).await;
    assert_eq!((status, &document), (StatusCode::OK, &openapi()));
    let table: Vec<_> = routes().into_iter().map(|route| (route.path, route.method, route.role)).collect();
    for (path, method, role) in &table {
        let told = &document["paths"][format!("/admin/v1{path}")][method.as_str().to_lowercase()];
        assert_eq!(told["x-role"], role.name(), "{method} {path}");
        for status in ["401", "403", "default"] {
            assert_eq!(told["responses"][status]["$ref"], "#/components/responses/Problem", "{path}");
        }
        let named = path.split('{').skip(1).map(|rest| rest.split('}').next().unwrap());
        let parameters = told["parameters"].as_array().unwrap();
        for name in named {
            let known = parameters.iter().find(|parameter| parameter["name"] == name);
            assert_eq!(
                known.map(|known| (&known["in"], &known["required"])),
                Some((&"path".into(), &true.into()))
            );
        }
    }
    // And the reverse: what is told answers, and with no other method.
    let mut told = 0;
    for (path, operations) in document["paths"].as_object().unwrap() {
        let methods: Vec<&str> = operations.as_object().unwrap().keys().map(String::as_str).collect();
        told += methods.len();
        let address =
            format!("{}{}", running.url, path.replace("{company}", "acme").replace("{job}", "renew-2"));
        for method in ["get", "post", "put", "patch", "delete"] {
            let request =
                client().request(method.to_uppercase().parse().unwrap(), &address).bearer_auth(TOKEN);
            let status = request.send().await.unwrap().status();
            assert_eq!(
                status != StatusCode::METHOD_NOT_ALLOWED,
                methods.contains(&method),
                "{method} {path}"
            );
        }
    }
    assert_eq!(told, table.len() + 4, "health, metrics and the document itself");
}

#[tokio::test]
async fn what_the_document_refers_to_is_in_it() {
    let document = openapi();
    let text = document.to_string();
    let references: Vec<&str> =
        text.split("\"$ref\":\"#").skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
    assert!(references.len() > 50, "{references:?}");
    for reference in references {
        assert!(document.pointer(reference).is_some(), "`{reference}` leads nowhere");
    }
}

#[tokio::test]
async fn answers_are_what_the_document_says() {
    let running = Running::start(Fake::default()).await;
    let document = openapi();
    for route in routes() {
        let (method, path) = (route.method.as_str(), route.path);
        let (_, _, given) = answer(request(&running, method, path, TOKEN)).await;
        let told = &document["paths"][format!("/admin/v1{path}")][method.to_lowercase()];
        let schema = &told["responses"]["200"]["content"]["application/json"]["schema"];
        assert!(fits(&document, schema, &given), "{method} {path}: {given} is no {schema}");
    }
}

/// Whether a value is what a schema says, as far as types and names of fields go.
fn fits(document: &Value, schema: &Value, value: &Value) -> bool {
    if let Some(reference) = schema["$ref"].as_str() {
        return fits(document, document.pointer(&reference[1..]).unwrap(), value);
    }
    let all = |key: &str| schema[key].as_array().into_iter().flatten();
    if !schema["allOf"].is_null() {
        return all("allOf").all(|part| fits(document, part, value));
    }
    if !schema["oneOf"].is_null() {
        return all("oneOf").any(|part| fits(document, part, value));
    }
    let types: Vec<&str> = match &schema["type"] {
        Value::String(one) => vec![one],
        many => many.as_array().into_iter().flatten().filter_map(Value::as_str).collect(),
    };
    let of_type = |kind: &&str| match *kind {
        "null" => value.is_null(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_u64() || value.is_i64(),
        "array" => value
            .as_array()
            .is_some_and(|items| items.iter().all(|item| fits(document, &schema["items"], item))),
        "object" => value.as_object().is_some_and(|fields| {
            let needed = all("required").all(|name| fields.contains_key(name.as_str().unwrap()));
            let known = schema["properties"].as_object();
            needed
                && known
                    .into_iter()
                    .flatten()
                    .all(|(name, part)| fields.get(name).is_none_or(|field| fits(document, part, field)))
        }),
        _ => false,
    };
    types.is_empty() || types.iter().any(of_type)
}

#[tokio::test]
async fn long_lists_come_in_pieces() {
    let running = Running::start(Fake::default()).await;
    let get = |query: &str| {
        client().get(format!("{}/admin/v1/companies/acme/mailboxes{query}", running.url)).bearer_auth(TOKEN)
    };
    let (_, _, first) = answer(get("?limit=1")).await;
    assert_eq!((&first["items"][0]["extension"], &first["next"]), (&"201".into(), &"201".into()));
    let (_, _, last) = answer(get("?limit=1&after=201")).await;
    assert_eq!((&last["items"][0]["extension"], &last["next"]), (&"202".into(), &Value::Null));
    let (status, _, _) = refused(get("?limit=many")).await;
    assert_eq!(status, 400);
    let (status, _, _) = refused(get("?company=beta")).await;
    assert_eq!(status, 400, "the company stands in the path");
}

#[tokio::test]
async fn refusals_have_stable_types() {
    let running = Running::start(Fake::default()).await;
    let http = client();
    let get = |path: &str| http.get(format!("{}/admin/v1/{path}", running.url)).bearer_auth(TOKEN);
    let post = |path: &str, body: &str| {
        http.post(format!("{}/admin/v1/{path}", running.url))
            .bearer_auth(TOKEN)
            .header(header::CONTENT_TYPE, "application/json")
            .body(body.to_owned())
    };
    for (request, status, name, detail) in [
        (get("status?company=none"), 404, "no-such-company", "there is no company `none`"),
        (
            get("companies/Nobody/export"),
            400,
            "bad-request",
            "parameters: Failed to deserialize query string: company: `Nobody` is not a company id: use 1 to 63 of a-z, 0-9 and `-`, no `-` first or last",
        ),
        (
            get("explain?user=299"),
            404,
            "no-such-user",
            "company `acme` has no user with extension or alias `299`",
        ),
        (
            get("explain"),
            400,
            "bad-request",
            "parameters: Failed to deserialize query string: missing field `user`",
        ),
        (get("jobs/none"), 404, "no-such-job", "there is no job `none`"),
        (get("nothing"), 404, "not-found", "no such operation"),
        (post("status", ""), 405, "method-not-allowed", "the method does not fit the address"),
        (post("try", "{"), 400, "bad-request", "body: EOF while parsing an object at line 1 column 1"),
        (
            post("try", r#"{"company":"acme","subject":5}"#),
            400,
            "bad-request",
            "body, at `subject`: invalid type: integer `5`, expected a string at line 1 column 29",
        ),
        (
            post("sync", r#"{"compani":"acme"}"#),
            400,
            "bad-request",
            "body, at `compani`: unknown field `compani`, expected one of `company`, `user`, `all` at line 1 column 10",
        ),
        (post("sync", &" ".repeat(10_001)), 413, "too-large", "a request may have 10000 bytes"),
    ] {
        assert_eq!(refused(request).await, (status, kind(name), detail.to_owned()));
    }
}

#[tokio::test]
async fn a_body_that_got_lost_acts_on_nothing() {
    let running = Running::start(Fake::default()).await;
    let post = |path: &str, media: Option<&str>, body: &str| {
        let request = client().post(format!("{}/admin/v1/{path}", running.url)).bearer_auth(TOKEN);
        let request = media.into_iter().fold(request, |request, media| request.header("content-type", media));
        answer(request.body(body.to_owned()))
    };
    let json = Some("application/json");
    for path in ["sync", "subscriptions/renew", "companies/acme/remove", "jobs/renew-2/cancel"] {
        for (media, body, status) in [
            (None, "", 400),
            (json, " ", 400),
            (json, "[]", 400),
            (json, "[false]", 400),
            (json, "null", 400),
            (json, "{} {}", 400),
            (None, "{}", 415),
            (Some("application/x-www-form-urlencoded"), "company=acme", 415),
            (Some("text/json"), "{}", 415),
        ] {
            let (refused, _, problem) = post(path, media, body).await;
            assert_eq!(refused.as_u16(), status, "{path} {media:?} `{body}`: {problem}");
            assert!(problem["remedy"].is_string(), "{path} {media:?} `{body}`: {problem}");
        }
    }
    for path in ["sync", "subscriptions/renew"] {
        for body in ["{}", r#"{"all":false}"#, r#"{"company":null}"#, r#"{"user":"201","all":true}"#] {
            let (refused, _, problem) = post(path, json, body).await;
            assert_eq!(refused.as_u16(), 400, "{path} `{body}`: {problem}");
            assert!(problem["remedy"].is_string(), "{path} `{body}`: {problem}");
        }
        for body in [r#"{"all":true}"#, r#"{"company":"acme"}"#, r#"{"company":"acme","all":true}"#] {
            let (done, _, told) = post(path, Some("application/json; charset=utf-8"), body).await;
            assert_eq!(done, StatusCode::OK, "{path} `{body}`: {told}");
        }
    }
    let (refused, _, problem) = post("companies/acme/remove", json, "{}").await;
    assert_eq!(refused.as_u16(), 400);
    assert!(problem["detail"].as_str().unwrap().contains("missing field `dry_run`"), "{problem}");
    for dry_run in [true, false] {
        let (done, _, report) =
            post("companies/acme/remove", json, &json!({ "dry_run": dry_run }).to_string()).await;
        assert_eq!((done, &report["leaving"]), (StatusCode::OK, &json!(!dry_run)));
    }
    let told = &openapi()["paths"]["/admin/v1/companies/{company}/remove"]["post"]["requestBody"];
    assert_eq!(told["required"], true);
    assert_eq!(openapi()["components"]["schemas"]["RemoveRequest"]["required"], json!(["dry_run"]));
}

#[tokio::test]
async fn a_company_file_that_does_not_hold_is_refused_with_its_places() {
    let running = Running::start(Fake::default()).await;
    let body = ApplyRequest { text: "id = 'a'\nnam = 'A'".into(), file: "a.toml".into(), dry_run: true };
    let request =
        client().post(format!("{}/admin/v1/companies/apply", running.url)).bearer_auth(TOKEN).json(&body);
    let (status, _, document) = answer(request).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    let problem: Problem = serde_json::from_value(document).unwrap();
    assert_eq!(problem.kind, kind("company-file-refused"));
    assert_eq!((problem.findings[0].line, problem.findings[0].key.as_str()), (Some(2), "nam"));
}

#[tokio::test]
async fn the_cause_of_a_failure_of_ours_stays_inside() {
    let running = Running::start(Fake { store_is_away: true, ..Fake::default() }).await;
    let request = client().get(format!("{}/admin/v1/companies", running.url)).bearer_auth(TOKEN);
    let (status, _, document) = answer(request).await;
    assert_eq!(
        (status, &document["type"]),
        (StatusCode::SERVICE_UNAVAILABLE, &Value::from(kind("store-unavailable")))
    );
    assert!(!document.to_string().contains("/secret/place"));
}

#[tokio::test]
async fn only_what_looks_is_said_to_have_changed_nothing_where_the_store_does_not_answer() {
    let running = Running::start(Fake { store_is_away: true, ..Fake::default() }).await;
    let address = |path: &str| format!("{}/admin/v1/{path}", running.url);
    let body = ApplyRequest { text: "id = 'a'\nname = 'A'".into(), file: "a.toml".into(), dry_run: false };
    let looks = client().get(address("companies")).bearer_auth(TOKEN);
    let changes = client().post(address("companies/apply")).bearer_auth(TOKEN).json(&body);
    for (request, remedy) in [(looks, "nothing was changed: "), (changes, "it may have been done or not: ")] {
        let (status, _, document) = answer(request).await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(document["remedy"].as_str().unwrap().starts_with(remedy), "{document}");
    }
}

#[tokio::test]
async fn health_needs_no_token_and_tells_alive_from_ready() {
    for (fake, ready) in [(Fake::default(), 200), (Fake { store_is_away: true, ..Fake::default() }, 503)] {
        let running = Running::start(fake).await;
        let (status, _, document) = answer(client().get(format!("{}/health/live", running.url))).await;
        assert_eq!((status, &document["status"]), (StatusCode::OK, &Value::from("alive")));
        let (status, _, _) = answer(client().get(format!("{}/health/ready", running.url))).await;
        assert_eq!(status.as_u16(), ready);
        assert_eq!(refused(client().get(format!("{}/metrics", running.url))).await.0, 404);
    }
}

#[test]
fn a_report_names_its_state() {
    let report = HealthReport::of(Health::NoMailbox { code: "X".into() }, Language::En);
    assert_eq!(report.title(Language::En), "no mailbox");
    assert_eq!((report.title(Language::Sv).as_str(), report.severity), ("ingen postlåda", Severity::Trouble));
}

#[test]
fn a_secret_typed_into_a_company_file_is_not_shown_by_debug() {
    let request = ApplyRequest { text: "secret = 's3cret'".into(), file: "a.toml".into(), dry_run: false };
    assert!(!format!("{request:?}").contains("s3cret"));
    let request =
        TryRequest {
            company: "acme".parse().unwrap(), user: None, subject: "Läkare".into(), language: None
        };
    assert!(!format!("{request:?}").contains("Läkare"));
}
