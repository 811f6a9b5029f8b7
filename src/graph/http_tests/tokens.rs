//! Logins, and the tokens that come of them.

use super::*;

fn zone() -> Reply {
    Reply::json(200, &json!({"value": "UTC"}))
}

async fn ask(company: &GraphCompany) -> Result<(), ReadError> {
    company.time_zone(&anna()).await.map(|_zone| ())
}

#[tokio::test]
async fn a_secret_goes_to_the_companys_own_tenant() {
    let fake = Fake::start().await;
    fake.graph(zone());
    ask(&fake.company()).await.unwrap();
    let login = &fake.logins()[0];
    assert_eq!(login.target, format!("/{TENANT}/oauth2/v2.0/token"));
    let field = |name: &str| login.form().into_iter().find(|(key, _)| key == name).unwrap().1;
    assert_eq!(field("grant_type"), "client_credentials");
    assert_eq!(field("client_id"), CLIENT);
    assert_eq!(field("client_secret"), "s3cret");
    assert_eq!(field("scope"), format!("{}.default", fake.base));
}

#[tokio::test]
async fn many_callers_cause_one_login() {
    let fake = Fake::start().await;
    let company = fake.company();
    let callers = (0..20).map(|n| {
        fake.graph(zone());
        let (company, mailbox) = (Arc::clone(&company), MailboxRef { object: format!("user-{n}") });
        async move { company.time_zone(&mailbox).await }
    });
    for outcome in futures_util::future::join_all(callers).await {
        outcome.unwrap();
    }
    assert_eq!(fake.logins().len(), 1);
}

#[tokio::test]
async fn a_token_is_renewed_after_four_fifths_of_its_life() {
    let fake = Fake::start().await;
    let company = fake.company();
    for (minutes, bearer) in [(0, "token-1"), (47, "token-1"), (2, "token-2"), (1, "token-2")] {
        fake.clock.advance(Duration::from_secs(minutes * 60));
        fake.graph(zone());
        ask(&company).await.unwrap();
        assert_eq!(fake.seen().last().unwrap().header("authorization"), format!("Bearer {bearer}"));
    }
}

#[tokio::test]
async fn an_old_token_serves_while_the_login_service_is_away_until_it_ends() {
    let fake = Fake::start().await;
    let company = fake.company();
    fake.graph(zone());
    ask(&company).await.unwrap();
    fake.clock.advance(Duration::from_secs(50 * 60));
    fake.login(Reply::text(503, "<html>")).graph(zone()).graph(zone());
    ask(&company).await.unwrap();
    ask(&company).await.unwrap();
    assert_eq!(fake.logins().len(), 2, "the failure is remembered");
    assert_eq!(fake.seen().last().unwrap().header("authorization"), "Bearer token-1");
    fake.clock.advance(Duration::from_secs(9 * 60 + 31));
    fake.login(Reply::text(503, "<html>"));
    assert!(matches!(ask(&company).await, Err(ReadError::Unreachable(_))));
    assert_eq!(fake.seen().len(), 3);
}

#[tokio::test]
async fn a_failed_login_is_not_repeated_at_once_and_a_check_does_repeat_it() {
    let fake = Fake::start().await;
    let company = fake.company();
    let refusal = || Reply::json(401, &json!({"error": "invalid_client", "error_codes": [7000222]}));
    fake.login(refusal());
    for _ in 0..5 {
        let error = ask(&company).await.unwrap_err();
        assert!(matches!(error, ReadError::Credentials { reason } if reason == "AADSTS7000222"));
    }
    assert_eq!(fake.logins().len(), 1);
    fake.clock.advance(Duration::from_secs(60));
    fake.login(refusal());
    assert!(ask(&company).await.is_err());
    fake.clock.advance(Duration::from_secs(60));
    assert!(ask(&company).await.is_err());
    assert_eq!(fake.logins().len(), 2, "the second wait is longer");
    assert!(company.check().await.unwrap().contains(TENANT));
    fake.graph(zone());
    ask(&company).await.unwrap();
}

#[tokio::test]
async fn a_check_tells_of_a_login_that_no_longer_works_although_a_token_is_still_good() {
    let fake = Fake::start().await;
    let company = fake.company();
    company.check().await.unwrap();
    fake.login(Reply::json(400, &json!({"error": "unauthorized_client", "error_codes": [700016]})));
    assert!(matches!(company.check().await, Err(ReadError::NoConsent { .. })));
}

#[tokio::test]
async fn the_login_services_refusals_arrive_as_what_they_are() {
    let cases = fixture("token-errors.json");
    for case in cases["cases"].as_array().unwrap() {
        let fake = Fake::start().await;
        let mut body = case["body"].clone();
        // As the real ones are: several lines, which the JSON has to escape.
        let description = body["error_description"].as_str().unwrap().replace(" Trace ID", "\r\nTrace ID");
        body["error_description"] = json!(description);
        let mut reply = Reply::json(u16::try_from(case["status"].as_u64().unwrap()).unwrap(), &body);
        if let Some(wait) = case["headers"]["Retry-After"].as_str() {
            reply = reply.with("retry-after", wait);
        }
        fake.login(reply);
        let error = ask(&fake.company()).await.unwrap_err();
        let right = match case["class"].as_str().unwrap() {
            "config" => matches!(error, ReadError::Credentials { .. } | ReadError::Refused { .. }),
            "tenant-disconnected" => matches!(error, ReadError::NoConsent { .. }),
            "tenant-blocked" => matches!(error, ReadError::Denied { .. }),
            "bug" => matches!(error, ReadError::Refused { .. }),
            "retry" => matches!(error, ReadError::Throttled { retry_after: Some(_) }),
            other => panic!("unknown class `{other}`"),
        };
        assert!(right, "{}: {error:?}", case["name"]);
        assert!(!format!("{error:?} {}", Chain(&error)).contains("Trace ID"), "{error:?}");
        assert!(fake.seen().is_empty());
    }
}

#[tokio::test]
async fn an_answer_without_a_usable_token_is_a_failure_and_is_not_quoted() {
    for body in ["{}", "<html>", r#"{"access_token":"abc","expires_in":0}"#, r#"{"expires_in":3600}"#] {
        let fake = Fake::start().await;
        fake.login(Reply::text(200, body));
        let error = ask(&fake.company()).await.unwrap_err();
        assert!(matches!(error, ReadError::Unreachable(_)), "{body}: {error:?}");
        assert!(!format!("{error:?}").contains("abc"));
    }
}

#[tokio::test]
async fn a_certificates_assertion_is_signed_for_this_tenant_and_names_its_certificate() {
    let fake = Fake::start().await;
    let (cert_pem, key_pem) = certificate();
    let credential = AppCredential::Certificate { cert_pem: cert_pem.clone(), key_pem: key_pem.into() };
    let company = fake.company_with(credential);
    company.check().await.unwrap();
    company.check().await.unwrap();
    let claims: Vec<Value> = fake.logins().iter().map(|login| verified(login, &cert_pem, &fake)).collect();
    assert_ne!(claims[0]["jti"], claims[1]["jti"]);
}

fn verified(login: &super::super::testing::Seen, cert_pem: &str, fake: &Fake) -> Value {
    let form = login.form();
    let field = |name: &str| form.iter().find(|(key, _)| key == name).unwrap().1.clone();
    assert_eq!(field("client_assertion_type"), "urn:ietf:params:oauth:client-assertion-type:jwt-bearer");
    assert!(form.iter().all(|(key, _)| key != "client_secret"));
    let assertion = field("client_assertion");
    let header = jsonwebtoken::decode_header(&assertion).unwrap();
    let der = CertificateDer::from_pem_slice(cert_pem.as_bytes()).unwrap();
    assert_eq!(header.alg, Algorithm::PS256);
    assert_eq!(header.typ.as_deref(), Some("JWT"));
    assert_eq!(header.x5t_s256.unwrap(), BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(&der)));

    let mut validation = Validation::new(Algorithm::PS256);
    validation.set_audience(&[format!("https://login.microsoftonline.com/{TENANT}/oauth2/v2.0/token")]);
    validation.set_issuer(&[CLIENT]);
    // The clock stands still in these tests; the times are compared below.
    validation.validate_exp = false;
    validation.set_required_spec_claims(&["aud", "iss", "sub", "exp", "nbf"]);
    let key = DecodingKey::from_rsa_pem(cert_pem.as_bytes()).unwrap();
    let claims = jsonwebtoken::decode::<Value>(&assertion, &key, &validation).unwrap().claims;
    let now = crate::clock::Clock::now(&*fake.clock).as_second();
    assert_eq!(claims["nbf"], now);
    assert_eq!(claims["exp"], now + 600);
    assert_eq!(claims["sub"], CLIENT);
    claims
}

#[tokio::test]
async fn a_workload_identitys_token_file_is_read_for_each_login() {
    let fake = Fake::start().await;
    let folder = tempfile::tempdir().unwrap();
    let token_file = folder.path().join("token");
    let company = fake.company_with(AppCredential::WorkloadIdentity { token_file: token_file.clone() });
    assert!(matches!(company.check().await, Err(ReadError::Credentials { .. })));
    for token in ["first.jwt.x", "second.jwt.x"] {
        std::fs::write(&token_file, format!("{token}\n")).unwrap();
        company.check().await.unwrap();
        let form = fake.logins().last().unwrap().form();
        assert!(form.contains(&("client_assertion".to_owned(), token.to_owned())));
    }
}

#[tokio::test]
async fn a_company_asked_for_twice_is_one() {
    let fake = Fake::start().await;
    let company = fake.company();
    let again = company.graph.company(TENANT.parse().unwrap());
    assert!(Arc::ptr_eq(&company, &again));
}

#[test]
fn a_client_id_that_is_none_is_refused_at_the_start() {
    let clock: SharedClock = Arc::new(crate::clock::SystemClock);
    for client_id in ["", "a b", "{6d2f4b8e}"] {
        let config = GraphConfig {
            cloud: Cloud::global(),
            client_id: client_id.to_owned(),
            credential: AppCredential::Secret("s".into()),
        };
        let outcome = Graph::new(config, Arc::clone(&clock)).map(|_graph| ());
        assert!(matches!(outcome, Err(GraphConfigError::ClientId)), "{client_id}");
    }
}
