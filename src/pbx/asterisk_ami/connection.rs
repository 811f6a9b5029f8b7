//! One connection to the manager interface, from TCP to the end of the login.
//!
//! Up to there all goes one after the other. Afterwards [`Link`](super::link::Link) takes the pieces and
//! keeps many questions in flight; `check` stays with [`Connection::ask`].
//!
//! Time-outs here are tokio's, not the injected clock's: they measure a machine's answer, and a clock that is
//! set anew (or moved by a test) must not break a healthy connection.

use std::{
    collections::hash_map::RandomState, future::Future, hash::BuildHasher, io, path::PathBuf, sync::Arc,
    time::Duration,
};

use md5::{Digest, Md5};
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use secrecy::ExposeSecret;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
};

use super::{
    codec::{Action, CodecError, Decoder, Message},
    config::{AsteriskConfig, Login, TlsConfig},
};
use crate::presence::PbxError;

/// Longest wait for `FullyBooted`, which only an account with the read class `system` is sent.
const FULLY_BOOTED: Duration = Duration::from_secs(1);

/// Most events kept while one answer is awaited.
const KEPT_EVENTS: usize = 256;

/// What we want to hear of: presence and device states are of class `call`, the end of the start of `system`.
const EVENT_CLASSES: &str = "system,call";

/// Why there is no connection, or no answer over it.
#[derive(Debug, thiserror::Error)]
pub(super) enum LinkError {
    #[error("cannot connect to `{host}` port {port}")]
    Connect {
        host: String,
        port: u16,
        #[source]
        source: io::Error,
    },
    #[error("cannot read the certificates in `{}`", file.display())]
    CaFile {
        file: PathBuf,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("cannot set up TLS")]
    Tls(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("the connection broke")]
    Broken(#[source] io::Error),
    #[error("Asterisk closed the connection")]
    Closed,
    #[error("Asterisk is stopping")]
    Stopping,
    #[error("no answer within {0:?}")]
    Silent(Duration),
    /// Nothing was sent.
    #[error("its turn came too late for the lease")]
    TooLate,
    #[error("cannot speak with the far side")]
    Codec(#[from] CodecError),
    #[error("Asterisk refused the login: {0}")]
    Denied(String),
    #[error("Asterisk does not take a login now: {0}")]
    NotNow(String),
    #[error("the link is down: {0}")]
    Down(String),
}

impl From<LinkError> for PbxError {
    fn from(error: LinkError) -> Self {
        match error {
            LinkError::Denied(reason) => Self::Denied { reason },
            LinkError::Codec(CodecError::NotAsterisk | CodecError::MessageTooLong) => {
                Self::Unexpected { reason: error_text(&error) }
            }
            LinkError::Codec(_) => Self::Refused { reason: error_text(&error) },
            other => Self::Unreachable(Box::new(other)),
        }
    }
}

/// An error with its causes in one line.
pub(super) fn error_text(error: &LinkError) -> String {
    crate::chain::Chain(error).to_string()
}

/// Asterisk has no codes, only words, the same for many years (seen 2026-11 on Asterisk 22).
const NO_PERMISSION: &str = "Permission denied";
const NO_LOGIN: &str = "Authentication failed";
/// Its answer to any action in its last moments.
const STOPPING: &str = "Asterisk is shutting down";

/// The message itself if it says success; else what Asterisk's refusal means.
pub(super) fn accepted(answer: Message) -> Result<Message, PbxError> {
    if answer.says("Response", "Success") {
        return Ok(answer);
    }
    let reason = reason(&answer);
    Err(match reason.as_str() {
        STOPPING => LinkError::Stopping.into(),
        NO_PERMISSION => PbxError::Denied { reason },
        _ => PbxError::Refused { reason },
    })
}

fn reason(answer: &Message) -> String {
    answer.get("Message").unwrap_or("no reason given").chars().take(200).collect()
}

/// A number that nobody outside can foresee.
pub(super) fn unforeseeable() -> u64 {
    RandomState::new().hash_one(0_u8)
}

/// Waits for `work`, at most `limit`.
pub(super) async fn within<T>(
    limit: Duration,
    work: impl Future<Output = Result<T, LinkError>>,
) -> Result<T, LinkError> {
    tokio::time::timeout(limit, work).await.unwrap_or(Err(LinkError::Silent(limit)))
}

/// TCP, or TLS over it.
pub(super) trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

/// A connection on which Asterisk has greeted.
pub(super) struct Connection {
    pub(super) wire: Box<dyn Wire>,
    pub(super) decoder: Decoder,
    /// Version of the interface, not of Asterisk.
    pub(super) ami_version: String,
    /// Events that came while an answer was awaited.
    pub(super) events: Vec<Message>,
    limit: Duration,
    asked: u64,
}

impl Connection {
    /// Connects, and logs in.
    ///
    /// # Errors
    /// [`LinkError::Denied`] if the account or its secret is wrong, or this address may not use it: Asterisk
    /// does not tell these apart.
    pub(super) async fn open(config: &AsteriskConfig) -> Result<Self, LinkError> {
        let limit = config.timeout();
        let mut connection = within(limit, Self::greet(config)).await?;
        within(limit, connection.log_in(config)).await?;
        connection.await_boot().await?;
        Ok(connection)
    }

    async fn greet(config: &AsteriskConfig) -> Result<Self, LinkError> {
        let failed = |source| LinkError::Connect { host: config.host.clone(), port: config.port, source };
        let tcp = TcpStream::connect((config.host.as_str(), config.port)).await.map_err(failed)?;
        // Requests are small and awaited: nothing is won by collecting them.
        tcp.set_nodelay(true).map_err(failed)?;
        let wire: Box<dyn Wire> = match &config.tls {
            None => Box::new(tcp),
            Some(tls) => Box::new(encrypt(tcp, tls, &config.host).await?),
        };
        let mut connection = Self {
            wire,
            decoder: Decoder::default(),
            ami_version: String::new(),
            events: Vec::new(),
            limit: config.timeout(),
            asked: 0,
        };
        loop {
            connection.receive().await?;
            if let Some(version) = connection.decoder.greeting()? {
                connection.ami_version = version;
                return Ok(connection);
            }
        }
    }

    async fn log_in(&mut self, config: &AsteriskConfig) -> Result<(), LinkError> {
        let login = Action::new("Login").with("Username", &config.username).with("Events", EVENT_CLASSES);
        let secret = config.secret.expose_secret();
        let login = match config.login {
            Login::Plain => login.with("Secret", secret),
            Login::Challenge => {
                let answer = self.ask(&Action::new("Challenge").with("AuthType", "MD5")).await?;
                let challenge = answer.get("Challenge").ok_or_else(|| denied(&answer))?;
                login.with("AuthType", "MD5").with("Key", digest(challenge, secret))
            }
        };
        let answer = self.ask(&login).await?;
        if answer.says("Response", "Success") { Ok(()) } else { Err(denied(&answer)) }
    }

    /// While Asterisk starts, states are not loaded yet.
    async fn await_boot(&mut self) -> Result<(), LinkError> {
        let booted = self.event(|event| event.is_event("FullyBooted"));
        match tokio::time::timeout(FULLY_BOOTED, booted).await {
            Ok(outcome) => outcome.map(drop),
            // The account may not be told; should it come later, the link reads everything anew.
            Err(_) => Ok(()),
        }
    }

    /// Asks, and waits for the answer to just this.
    pub(super) async fn ask(&mut self, action: &Action) -> Result<Message, LinkError> {
        within(self.limit, self.ask_patiently(action)).await
    }

    async fn ask_patiently(&mut self, action: &Action) -> Result<Message, LinkError> {
        self.asked += 1;
        let id = format!("login-{}", self.asked);
        self.wire.write_all(&action.encode(&id)?).await.map_err(LinkError::Broken)?;
        self.wire.flush().await.map_err(LinkError::Broken)?;
        loop {
            let message = self.message().await?;
            if message.get("Event").is_none() && message.says("ActionID", &id) {
                return Ok(message);
            }
            if message.get("Event").is_some() && self.events.len() < KEPT_EVENTS {
                self.events.push(message);
            }
        }
    }

    /// The first event, of those kept and those to come, that is as wished.
    pub(super) async fn event(&mut self, wished: impl Fn(&Message) -> bool) -> Result<Message, LinkError> {
        if let Some(place) = self.events.iter().position(&wished) {
            return Ok(self.events.swap_remove(place));
        }
        loop {
            let message = self.message().await?;
            if wished(&message) {
                return Ok(message);
            }
        }
    }

    async fn message(&mut self) -> Result<Message, LinkError> {
        loop {
            if let Some(message) = self.decoder.next()? {
                return Ok(message);
            }
            self.receive().await?;
        }
    }

    async fn receive(&mut self) -> Result<(), LinkError> {
        let mut piece = [0; 4096];
        match self.wire.read(&mut piece).await.map_err(LinkError::Broken)? {
            0 => Err(LinkError::Closed),
            length => {
                self.decoder.feed(&piece[..length]);
                Ok(())
            }
        }
    }
}

/// Only a refusal that a person has to mend is one: an Asterisk that stops or starts refuses logins too.
fn denied(answer: &Message) -> LinkError {
    let reason = reason(answer);
    match reason.as_str() {
        STOPPING => LinkError::Stopping,
        NO_LOGIN | NO_PERMISSION => LinkError::Denied(reason),
        _ => LinkError::NotNow(reason),
    }
}

/// What Asterisk expects as `Key`: the hexadecimal MD5 of challenge and secret.
fn digest(challenge: &str, secret: &str) -> String {
    let mut hash = Md5::new();
    hash.update(challenge);
    hash.update(secret);
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

async fn encrypt(
    tcp: TcpStream,
    tls: &TlsConfig,
    host: &str,
) -> Result<tokio_rustls::client::TlsStream<TcpStream>, LinkError> {
    let settings = |error: rustls::Error| LinkError::Tls(Box::new(error));
    let name = tls.server_name.as_deref().unwrap_or(host).to_owned();
    let name = ServerName::try_from(name).map_err(|error| LinkError::Tls(Box::new(error)))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(settings)?;
    let client = match &tls.ca_file {
        Some(file) => builder.with_root_certificates(trusted(file.clone()).await?).with_no_client_auth(),
        None => {
            let verifier = rustls_platform_verifier::Verifier::new(provider).map_err(settings)?;
            builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier)).with_no_client_auth()
        }
    };
    let connector = tokio_rustls::TlsConnector::from(Arc::new(client));
    connector.connect(name, tcp).await.map_err(|error| LinkError::Tls(Box::new(error)))
}

/// Read at each connection: a certificate that is exchanged needs no restart.
async fn trusted(file: PathBuf) -> Result<rustls::RootCertStore, LinkError> {
    let failed = |source| LinkError::CaFile { file: file.clone(), source };
    let pem = tokio::fs::read(&file).await.map_err(|error| failed(Box::new(error)))?;
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| failed(Box::new(error)))?;
        roots.add(certificate).map_err(|error| failed(Box::new(error)))?;
    }
    if roots.is_empty() {
        return Err(failed("there is no certificate in it".into()));
    }
    Ok(roots)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pbx::asterisk_ami::testing::{FakeAsterisk, config_for};

    #[test]
    fn the_key_is_the_hexadecimal_md5_of_challenge_and_secret() {
        // `printf 840415273hunter2 | md5sum`
        assert_eq!(digest("840415273", "hunter2"), "5cde6baa8a34dcf111fe867b80cde132");
    }

    #[tokio::test]
    async fn a_challenge_proves_the_secret_without_sending_it() {
        let asterisk = FakeAsterisk::start();
        let connection = Connection::open(&config_for(&asterisk)).await.unwrap();
        assert_eq!(connection.ami_version, "11.0.0");
        assert!(!asterisk.journal().contains("narvaro-test"));
    }

    #[tokio::test]
    async fn a_plain_login_is_made_only_where_it_is_set() {
        let asterisk = FakeAsterisk::start();
        let mut config = config_for(&asterisk);
        config.login = Login::Plain;
        Connection::open(&config).await.unwrap();
        assert!(asterisk.journal().contains("Secret: narvaro-test"));
    }

    #[tokio::test]
    async fn a_wrong_secret_is_denied_and_not_told() {
        let asterisk = FakeAsterisk::start();
        let mut config = config_for(&asterisk);
        config.secret = "wrong-secret".into();
        let error = PbxError::from(Connection::open(&config).await.err().unwrap());
        assert!(matches!(&error, PbxError::Denied { reason } if reason == "Authentication failed"));
        assert!(!format!("{error:?}").contains("wrong-secret"));
    }

    #[tokio::test]
    async fn an_asterisk_that_stops_denies_nothing_for_good() {
        let asterisk = FakeAsterisk::start();
        asterisk.refuse("Challenge", STOPPING);
        let error = Connection::open(&config_for(&asterisk)).await.err().unwrap();
        assert!(matches!(error, LinkError::Stopping), "{error:?}");
        asterisk.refuse("Challenge", "Something new");
        let error = PbxError::from(Connection::open(&config_for(&asterisk)).await.err().unwrap());
        assert!(matches!(error, PbxError::Unreachable(_)), "{error:?}");
    }

    #[tokio::test]
    async fn a_user_name_with_a_line_break_sends_nothing_more() {
        let asterisk = FakeAsterisk::start();
        let mut config = config_for(&asterisk);
        config.username = "narvaro\r\nAction: Originate".to_owned();
        let error = Connection::open(&config).await.err().unwrap();
        assert!(matches!(error, LinkError::Codec(CodecError::Injection { .. })), "{error:?}");
        assert!(!asterisk.journal().contains("Originate"));
    }

    #[tokio::test]
    async fn a_port_where_nobody_listens_is_unreachable() {
        let mut config = config_for(&FakeAsterisk::start());
        config.port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let error = PbxError::from(Connection::open(&config).await.err().unwrap());
        assert!(matches!(error, PbxError::Unreachable(_)), "{error:?}");
    }

    #[tokio::test]
    async fn a_file_without_certificates_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("ca.pem");
        std::fs::write(&file, "not a certificate").unwrap();
        let error = trusted(file.clone()).await.err().unwrap();
        assert!(error_text(&error).contains(file.to_str().unwrap()));
    }
}
