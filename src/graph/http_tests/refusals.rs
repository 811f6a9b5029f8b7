//! What Graph refuses, and what never arrives.

use super::*;

#[tokio::test]
async fn html_from_a_proxy_is_no_answer() {
    let fake = Fake::start().await;
    fake.graph(Reply::text(502, "<html><body>Bad Gateway</body></html>")).graph(Reply::text(200, "<html>"));
    let company = fake.company();
    let error = company.time_zone(&anna()).await.unwrap_err();
    assert!(matches!(error, ReadError::Unreachable(_)));
    assert!(matches!(company.time_zone(&anna()).await, Err(ReadError::Unreadable { .. })));
}

#[tokio::test]
async fn a_wait_with_a_fraction_is_told_and_kept_for_that_mailbox_alone() {
    let fake = Fake::start().await;
    fake.graph(Reply::refusal(429, "TooManyRequests").with("retry-after", "2.128"));
    let company = fake.company();
    let wait = |error: ReadError| match error {
        ReadError::Throttled { retry_after } => retry_after,
        other => panic!("{other:?}"),
    };
    let told = wait(company.time_zone(&anna()).await.unwrap_err());
    assert_eq!(told, Some(Duration::from_millis(2128)));
    fake.clock.advance(Duration::from_secs(1));
    let left = wait(company.time_zone(&anna()).await.unwrap_err());
    assert_eq!(left, Some(Duration::from_millis(1128)));
    assert_eq!(fake.seen().len(), 1, "nothing is sent while we wait");

    let bo = MailboxRef { object: "bo".to_owned() };
    fake.graph(Reply::json(200, &json!({"value": "UTC"}))).graph(Reply::json(200, &json!({"value": "UTC"})));
    assert!(company.time_zone(&bo).await.is_ok());
    fake.clock.advance(Duration::from_millis(1128));
    assert!(company.time_zone(&anna()).await.is_ok());
}

#[tokio::test]
async fn a_401_is_tried_once_more_with_a_new_token() {
    let fake = Fake::start().await;
    fake.graph(Reply::refusal(401, "InvalidAuthenticationToken"))
        .graph(Reply::json(200, &json!({"value": "UTC"})));
    assert!(fake.company().time_zone(&anna()).await.is_ok());
    let seen = fake.seen();
    assert_eq!(seen[0].header("authorization"), "Bearer token-1");
    assert_eq!(seen[1].header("authorization"), "Bearer token-2");
    assert_eq!(seen[0].header("client-request-id"), seen[1].header("client-request-id"));
}

#[tokio::test]
async fn a_401_that_stays_is_reported_and_does_not_storm_the_login_service() {
    let fake = Fake::start().await;
    let company = fake.company();
    for _ in 0..4 {
        fake.graph(Reply::refusal(401, "InvalidAuthenticationToken"));
    }
    for _ in 0..3 {
        let error = company.time_zone(&anna()).await.unwrap_err();
        assert!(matches!(error, ReadError::Unreachable(_)), "{error:?}");
    }
    assert_eq!(fake.logins().len(), 2);
    assert!(fake.is_done());
}

#[tokio::test]
async fn an_answer_beyond_the_limit_is_not_read_to_its_end() {
    let fake = Fake::start().await;
    fake.graph(Reply::text(200, &" ".repeat(super::super::courier::LONGEST_ANSWER + 1)));
    let error = fake.company().time_zone(&anna()).await.unwrap_err();
    assert!(Chain(&error).to_string().contains("longer than"), "{}", Chain(&error));
}

#[tokio::test]
async fn an_error_tells_the_request_id_and_neither_address_nor_token() {
    let fake = Fake::start().await;
    fake.graph(Reply::refusal(500, "generalException").with("request-id", "94fb3b52"));
    let error = fake.company().resolve("ines@contoso.example").await.unwrap_err();
    let text = format!("{} {error:?}", Chain(&error));
    assert!(text.contains("94fb3b52"), "{text}");
    for secret in ["ines", "token-1", "s3cret", "users?"] {
        assert!(!text.contains(secret), "{text}");
    }
}

#[tokio::test]
async fn a_server_that_hangs_up_is_unreachable_and_its_url_stays_untold() {
    let fake = Fake::start().await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mute = url::Url::parse(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
    let mut server = tokio::task::JoinSet::new();
    server.spawn(async move {
        while let Ok((connection, _)) = listener.accept().await {
            drop(connection);
        }
    });
    let config = GraphConfig {
        cloud: Cloud::custom(mute, fake.base.clone(), true).unwrap(),
        client_id: CLIENT.to_owned(),
        credential: AppCredential::Secret("s3cret".into()),
    };
    let clock: SharedClock = Arc::clone(&fake.clock) as SharedClock;
    let company = Graph::new(config, clock).unwrap().company(TENANT.parse().unwrap());
    let error = company.resolve("ines@contoso.example").await.unwrap_err();
    let text = format!("{} {error:?}", Chain(&error));
    assert!(matches!(error, ReadError::Unreachable(_)));
    assert!(!text.contains("ines") && !text.contains("http://"), "{text}");
}

#[tokio::test]
async fn a_post_without_a_body_says_that_it_has_none() {
    let fake = Fake::start().await;
    fake.graph(Reply::text(204, ""));
    let call = Call {
        operation: "test",
        method: Method::POST,
        url: fake.base.join("/v1.0/subscriptions/a/reauthorize").unwrap(),
        body: None,
        scope: Scope::Subscriptions,
        page_size: None,
    };
    fake.company().transport.send(&call).await.unwrap();
    assert_eq!(fake.seen()[0].header("content-length"), "0");
    assert_eq!(fake.seen()[0].headers.get_all("content-length").iter().count(), 1);
}

#[tokio::test]
async fn requests_are_counted_by_operation_and_status() {
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    let fake = Fake::start().await;
    fake.graph(Reply::refusal(404, "ErrorItemNotFound"));
    let _guard = metrics::set_default_local_recorder(&recorder);
    fake.company().event(&anna(), &id_of(&single())).await.unwrap();
    let shown = recorder.handle().render();
    assert!(shown.contains(r#"narvaro_graph_requests_total{operation="event",status="404"} 1"#), "{shown}");
}
