use super::*;

fn build(base: &str, plain: bool, limits: ProcessLimits) -> Result<Arc<HttpPbx>, super::super::ConfigError> {
    let text = format!("base_url = \"{base}\"\nallow_plain_http = {plain}\n{SET}");
    HttpPbx::new(&toml::from_str(&text).unwrap(), limits, "acme".parse().unwrap(), ManualClock::new())
}

#[test]
fn an_address_that_is_never_allowed_is_refused_when_it_is_configured() {
    let all = ProcessLimits { allow_private: true, allow_loopback: true, allowed_hosts: Vec::new() };
    for host in
        ["169.254.169.254", "[::ffff:169.254.169.254]", "0.0.0.0", "2852039166", "0251.0376.0251.0376"]
    {
        let error = build(&format!("https://{host}"), false, all.clone()).unwrap_err();
        assert_eq!(error.key(), "base_url", "{host}");
    }
    for host in ["[::1]", "127.0.0.1", "2130706433", "0177.0.0.1"] {
        assert!(build(&format!("https://{host}"), false, ProcessLimits::default()).is_err(), "{host}");
        assert!(build(&format!("https://{host}"), false, all.clone()).is_ok(), "{host}");
    }
}

#[test]
fn a_base_url_says_what_is_wrong_with_it() {
    for (base, part) in [
        ("http://pbx.example.com", "allow_plain_http"),
        ("ftp://pbx.example.com", "neither `https` nor `http`"),
        ("pbx.example.com", "not an absolute URL"),
        ("https://me:pw@pbx.example.com", "belong into `auth`"),
        ("https://pbx.example.com/?key=1", "belong into `path`"),
    ] {
        let error = build(base, false, ProcessLimits::default()).unwrap_err().to_string();
        assert!(error.starts_with("`base_url`: ") && error.contains(part), "{error}");
        assert!(!error.contains("pw@"));
    }
    assert!(build("http://pbx.example.com", true, ProcessLimits::default()).is_ok());
}

#[tokio::test]
async fn a_name_that_leads_to_a_forbidden_address_is_not_connected_to() {
    let server = Server::always(200, "").await;
    let base = server.base.replace("127.0.0.1", "localhost");
    let pbx = build(&base, true, ProcessLimits { allow_private: true, ..ProcessLimits::default() }).unwrap();
    let error = set(&pbx, "1001", &meeting(), 1, "t-1").await.unwrap_err();
    assert!(
        matches!(&error, PbxError::Refused { reason } if reason.contains("the machine itself")),
        "{error:?}"
    );
    assert!(server.seen().is_empty());

    let pbx = build(&base, true, loopback()).unwrap();
    set(&pbx, "1001", &meeting(), 1, "t-1").await.unwrap();
    assert_eq!(server.seen().len(), 1);
}

#[test]
fn a_token_endpoint_is_guarded_too() {
    let text = format!(
        "base_url = \"https://pbx.example.com\"\n{SET}[auth]\nkind = \"oauth2\"\n\
         token_url = \"https://169.254.169.254/token\"\nclient_id = \"me\"\nclient_secret = \"pw\"\n"
    );
    let config = toml::from_str(&text).unwrap();
    let error = HttpPbx::new(&config, loopback(), "acme".parse().unwrap(), ManualClock::new()).unwrap_err();
    assert_eq!(error.key(), "auth.token_url");
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let other = Server::always(200, "").await;
    let location = format!("{}/elsewhere", other.base);
    let server = Server::start(move |_, _| {
        let location = location.clone();
        async move { ([("location", location)], answer(307, "")).into_response() }
    })
    .await;
    let bench = Bench::new(server, SET);
    let error = bench.set(&meeting()).await.unwrap_err();
    assert!(matches!(error, PbxError::Refused { .. }), "{error:?}");
    assert!(other.seen().is_empty());
}

#[tokio::test]
async fn an_answer_that_does_not_end_is_cut() {
    let huge = || async { "x".repeat(2 * 1024 * 1024).into_response() };
    let bench = Bench::new(
        Server::start(move |_, _| huge()).await,
        &format!("{SET}[success]\npointer = \"/errcode\"\nequals = 0\n"),
    );
    let error = bench.set(&meeting()).await.unwrap_err();
    assert!(matches!(&error, PbxError::Unexpected { reason } if reason.contains("1048576")), "{error:?}");

    // Where nobody reads it, a change that was acknowledged stays acknowledged.
    Bench::new(Server::start(move |_, _| huge()).await, SET).set(&meeting()).await.unwrap();
}

#[tokio::test]
async fn compressed_answers_are_not_asked_for() {
    let bench = Bench::new(Server::always(200, "").await, SET);
    bench.set(&meeting()).await.unwrap();
    assert_eq!(bench.server.seen()[0].header("accept-encoding"), "");
}

/// A server with a certificate of its own that answers each connection with 200.
async fn tls_server() -> (String, String, JoinSet<()>) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let key = rustls::pki_types::PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
    let tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(tls));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            // A client that does not trust us ends the handshake.
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            if stream.read(&mut [0; 4096]).await.is_ok_and(|read| read > 0) {
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
                stream.flush().await.unwrap();
            }
        }
    });
    (base, made.cert.pem(), tasks)
}

#[tokio::test]
async fn only_the_certificate_that_is_named_is_trusted() {
    let (base, pem, _tasks) = tls_server().await;
    let driver = |pem: &str| {
        let text = format!("base_url = \"{base}\"\nattempts = 1\n{pem}{SET}");
        HttpPbx::new(&toml::from_str(&text).unwrap(), loopback(), "acme".parse().unwrap(), ManualClock::new())
    };
    let trusting = driver(&format!("ca_pem = \"\"\"\n{pem}\"\"\"\n")).unwrap();
    set(&trusting, "1001", &meeting(), 1, "t-1").await.unwrap();
    let error = set(&driver("").unwrap(), "1001", &meeting(), 1, "t-1").await.unwrap_err();
    assert!(matches!(error, PbxError::Unreachable(_)), "{error:?}");
    assert_eq!(driver("ca_pem = \"none\"\n").unwrap_err().key(), "ca_pem");
}
