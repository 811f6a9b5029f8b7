//! One connection: TCP, TLS, login, and a first answer.

use std::{io, path::PathBuf, pin::Pin, sync::Arc, time::Duration};

use redis::{
    AsyncConnectionConfig, Cmd, ErrorKind, ProtocolVersion, PushInfo, RedisConnectionInfo, RedisError,
    ServerErrorKind, Value,
    aio::{ConnectionLike, MultiplexedConnection},
};
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use secrecy::ExposeSecret;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::{Instant, timeout, timeout_at},
};

use super::settings::{Address, LinkSettings, Login};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Moves what is asked and answered; nothing happens on a connection while nobody polls this.
pub(super) type Driver = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Why a server cannot be reached, or is not to be used.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// No connection comes about.
    #[error("`{address}` cannot be connected to")]
    Unreachable {
        /// Whom.
        address: Address,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It takes connections, or took ours, and does not answer.
    #[error("`{address}` does not answer")]
    Silent {
        /// Whom.
        address: Address,
    },
    /// A connection is being made, and did not come about in the time of the call.
    #[error("the connection is still being made")]
    Connecting,
    /// It closed the connection, or spoke something else than Redis.
    #[error("`{address}` ended the connection")]
    Broken {
        /// Whom.
        address: Address,
        /// Why.
        #[source]
        source: RedisError,
    },
    /// TLS does not come about.
    #[error("no TLS with `{address}`; check `store.ca_file` and the names in its certificate")]
    Tls {
        /// Whom.
        address: Address,
        /// Why.
        #[source]
        source: BoxError,
    },
    /// It takes connections, and what comes back, if anything, is no TLS.
    #[error("no TLS with `{address}`, which takes connections and does not answer as TLS does")]
    NoTls {
        /// Whom.
        address: Address,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The certificates that are to be trusted cannot be had.
    #[error("the certificates in `{}` (`store.ca_file`) cannot be used", file.display())]
    CaFile {
        /// Where.
        file: PathBuf,
        /// Why.
        #[source]
        source: BoxError,
    },
    /// It lets nobody in without a password, and none is set.
    #[error("`{address}` wants a password, and none is set (`{keys}password_file`)")]
    PasswordWanted {
        /// Whom.
        address: Address,
        /// What the keys that name it begin with.
        keys: &'static str,
    },
    /// User or password are wrong.
    #[error(
        "`{address}` refuses user or password ({reason}); check `{keys}username` and `{keys}password_file`"
    )]
    Denied {
        /// Whom.
        address: Address,
        /// What the keys that name them begin with.
        keys: &'static str,
        /// Its words.
        reason: String,
    },
    /// It answers, and says that it cannot serve.
    #[error("`{address}` cannot serve now: {reason}")]
    NotNow {
        /// Whom.
        address: Address,
        /// Its words.
        reason: String,
    },
    /// It is no master, or not the one any more.
    #[error("`{address}` is not the master")]
    NotMaster {
        /// Whom.
        address: Address,
    },
    /// The sentinels have no such master.
    #[error("the sentinels know no master `{master}`; the name stands at the end of `store.url`")]
    NoSuchMaster {
        /// Its name.
        master: String,
    },
    /// It has fewer databases than that.
    #[error("`{address}` has no database of so high a number as stands at the end of `store.url`")]
    NoDatabase {
        /// Whom.
        address: Address,
    },
    /// It was named as a sentinel.
    #[error("`{address}` is no Sentinel")]
    NoSentinel {
        /// Whom.
        address: Address,
    },
    /// It was named as one of a Cluster.
    #[error("`{address}` belongs to no Cluster")]
    NotClustered {
        /// Whom.
        address: Address,
    },
    /// It is of a Cluster that does not hold all keys.
    #[error("`{address}` shows no Cluster that holds all keys: {reason}")]
    NoCluster {
        /// Whom.
        address: Address,
        /// What it shows.
        reason: String,
    },
}

impl DialError {
    /// Its words, where the server has answered with an error.
    pub(super) fn of(address: &Address, keys: &'static str, error: RedisError) -> Self {
        let address = address.clone();
        let reason = words(&error);
        // Where a database is chosen first, the library keeps of an error only what stands behind its code.
        if error.code() == Some("NOAUTH") || reason.contains("Authentication required") {
            return Self::PasswordWanted { address, keys };
        }
        if reason.contains("DB index is out of range") {
            return Self::NoDatabase { address };
        }
        let refused = error.code() == Some("WRONGPASS")
            || matches!(
                error.kind(),
                ErrorKind::AuthenticationFailed | ErrorKind::Server(ServerErrorKind::NoPerm)
            );
        if refused {
            Self::Denied { address, keys, reason }
        } else if error.code().is_some() || error.kind() == ErrorKind::RESP3NotSupported {
            Self::NotNow { address, reason }
        } else {
            Self::Broken { address, source: error }
        }
    }

    /// Whether it is what was set that does not fit: waiting alone does not help.
    pub(super) fn is_of_settings(&self) -> bool {
        match self {
            Self::Tls { .. }
            | Self::CaFile { .. }
            | Self::PasswordWanted { .. }
            | Self::Denied { .. }
            | Self::NoSuchMaster { .. }
            | Self::NoDatabase { .. }
            | Self::NoSentinel { .. }
            | Self::NotClustered { .. } => true,
            Self::Unreachable { .. }
            | Self::Silent { .. }
            | Self::Connecting
            | Self::Broken { .. }
            | Self::NoTls { .. }
            | Self::NotNow { .. }
            | Self::NotMaster { .. }
            | Self::NoCluster { .. } => false,
        }
    }

    /// The same, of a server that was asked what only those of another kind know: then it is `otherwise`.
    pub(super) fn unless_unknown(self, otherwise: impl FnOnce(Address) -> Self) -> Self {
        match self {
            Self::NotNow { address, reason }
                if ["unknown command", "cluster support disabled"].iter().any(|it| reason.contains(it)) =>
            {
                otherwise(address)
            }
            other => other,
        }
    }
}

/// What the server said.
pub(super) fn words(error: &RedisError) -> String {
    match (error.code(), error.detail()) {
        (Some(code), Some(detail)) => format!("{code} {detail}"),
        (Some(code), None) => code.to_owned(),
        (None, Some(detail)) => detail.to_owned(),
        (None, None) => error.to_string(),
    }
}

/// An answer, or the error that it is.
pub(super) fn answer(value: Value) -> Result<Value, RedisError> {
    match value {
        Value::ServerError(error) => Err(error.into()),
        value => Ok(value),
    }
}

/// Is called with each message that arrives beside the answers.
pub(super) type Heard = Arc<dyn Fn(&PushInfo) + Send + Sync>;

/// Makes connections of one kind.
#[derive(Clone)]
pub(super) struct Dialer {
    tls: bool,
    ca_file: Option<PathBuf>,
    login: Login,
    database: u32,
    keys: &'static str,
    /// Longest time for a connection, and for each question of our own.
    pub(super) patience: Duration,
}

impl Dialer {
    /// For the servers.
    pub(super) fn to_servers(settings: &LinkSettings) -> Self {
        Self {
            tls: settings.tls,
            ca_file: settings.ca_file.clone(),
            login: settings.login.clone(),
            database: settings.database,
            keys: "store.",
            patience: settings.call_timeout,
        }
    }

    /// For the sentinels, which have a login of their own and no databases.
    pub(super) fn to_sentinels(settings: &LinkSettings) -> Self {
        Self {
            login: settings.sentinel_login.clone(),
            database: 0,
            keys: "store.sentinel_",
            ..Self::to_servers(settings)
        }
    }

    /// A connection on which nothing was asked yet but the login. With `heard`, one on which messages arrive.
    pub(super) async fn dial(&self, address: &Address, heard: Option<Heard>) -> Result<Talk, DialError> {
        let (connection, driver) = self.connect(address, heard).await?;
        Ok(Talk { address: address.clone(), keys: self.keys, patience: self.patience, connection, driver })
    }

    async fn connect(
        &self,
        address: &Address,
        heard: Option<Heard>,
    ) -> Result<(MultiplexedConnection, Driver), DialError> {
        // One time for all steps; what did not come about in it is told by the step.
        let end = Instant::now() + self.patience;
        let silent = |_| DialError::Silent { address: address.clone() };
        let unreachable = |source| DialError::Unreachable { address: address.clone(), source };
        let tcp = TcpStream::connect((address.host.as_str(), address.port));
        let tcp = timeout_at(end, tcp).await.map_err(silent)?.map_err(unreachable)?;
        tcp.set_nodelay(true).map_err(unreachable)?;
        // Answers of scripts look as the scripts' authors expect in the older protocol; messages beside answers need
        // the newer one.
        let protocol = if heard.is_some() { ProtocolVersion::RESP3 } else { ProtocolVersion::RESP2 };
        let info = self.info(protocol);
        let mut config =
            AsyncConnectionConfig::new().set_response_timeout(None).set_pipeline_buffer_size(1024);
        if let Some(heard) = heard {
            config = config.set_push_sender(move |message: PushInfo| {
                heard(&message);
                Ok::<(), ()>(())
            });
        }
        let made = if self.tls {
            let late = |_| no_tls(address, io::ErrorKind::TimedOut.into());
            let stream = timeout_at(end, self.encrypt(tcp, address)).await.map_err(late)??;
            timeout_at(end, greeted(&info, stream, config)).await
        } else {
            timeout_at(end, greeted(&info, tcp, config)).await
        };
        made.map_err(silent)?.map_err(|error| DialError::of(address, self.keys, error))
    }

    fn info(&self, protocol: ProtocolVersion) -> RedisConnectionInfo {
        let mut info = RedisConnectionInfo::default()
            .set_protocol(protocol)
            .set_db(self.database.into())
            .set_skip_set_lib_name();
        if let Some(username) = &self.login.username {
            info = info.set_username(username);
        }
        if let Some(password) = &self.login.password {
            info = info.set_password(password.expose_secret());
        }
        info
    }

    async fn encrypt(
        &self,
        tcp: TcpStream,
        address: &Address,
    ) -> Result<tokio_rustls::client::TlsStream<TcpStream>, DialError> {
        let failed = |source: BoxError| DialError::Tls { address: address.clone(), source };
        let name = ServerName::try_from(address.host.clone()).map_err(|error| failed(error.into()))?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| failed(error.into()))?;
        let client = match &self.ca_file {
            Some(file) => {
                let trusted = trusted(file).await;
                let trusted = trusted.map_err(|source| DialError::CaFile { file: file.clone(), source })?;
                builder.with_root_certificates(trusted).with_no_client_auth()
            }
            None => {
                let verifier = rustls_platform_verifier::Verifier::new(provider);
                let verifier = verifier.map_err(|error| failed(error.into()))?;
                builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier)).with_no_client_auth()
            }
        };
        let connector = tokio_rustls::TlsConnector::from(Arc::new(client));
        connector
            .connect(name, tcp)
            .await
            .map_err(|error| if is_of_tls(&error) { failed(error.into()) } else { no_tls(address, error) })
    }
}

fn no_tls(address: &Address, source: io::Error) -> DialError {
    DialError::NoTls { address: address.clone(), source }
}

/// Whether it is the other end's TLS that failed; what cannot be read is not TLS at all.
fn is_of_tls(error: &io::Error) -> bool {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    inner.is_some_and(|inner| !matches!(inner, rustls::Error::InvalidMessage(_)))
}

async fn greeted<C>(
    info: &RedisConnectionInfo,
    stream: C,
    config: AsyncConnectionConfig,
) -> Result<(MultiplexedConnection, Driver), RedisError>
where
    C: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (connection, driver) = MultiplexedConnection::new_with_config(info, stream, config).await?;
    Ok((connection, Box::pin(driver)))
}

/// Read at each connection: a certificate that is exchanged needs no restart.
async fn trusted(file: &PathBuf) -> Result<rustls::RootCertStore, BoxError> {
    let pem = tokio::fs::read(file).await?;
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        roots.add(certificate?)?;
    }
    if roots.is_empty() {
        return Err("there is no certificate in it".into());
    }
    Ok(roots)
}

/// A connection that one task has for itself.
pub(super) struct Talk {
    /// With whom.
    pub(super) address: Address,
    keys: &'static str,
    patience: Duration,
    /// What is asked on; others may ask too while somebody polls the driver.
    pub(super) connection: MultiplexedConnection,
    /// Ends when the connection does.
    pub(super) driver: Driver,
}

impl Talk {
    /// Asks, and drives the connection until the answer is there.
    pub(super) async fn ask(&mut self, command: &Cmd) -> Result<Value, DialError> {
        let Self { address, keys, patience, connection, driver } = self;
        let asked = timeout(*patience, connection.req_packed_command(command));
        let answered = tokio::select! {
            biased;
            answered = asked => answered,
            () = driver => return Err(closed(address)),
        };
        let answered = answered.map_err(|_| DialError::Silent { address: address.clone() })?;
        answered.and_then(answer).map_err(|error| DialError::of(address, keys, error))
    }
}

/// The other end has closed the connection.
pub(super) fn closed(address: &Address) -> DialError {
    let source = io::Error::from(io::ErrorKind::ConnectionReset);
    DialError::Broken { address: address.clone(), source: source.into() }
}
