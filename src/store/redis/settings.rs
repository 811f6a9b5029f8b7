//! What has to be known to reach a Redis.

use std::{fmt, path::PathBuf, time::Duration};

use secrecy::SecretString;

/// A host and its port.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address {
    /// Name or IP, without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl Address {
    /// `host:port`, `[v6]:port`, or either without a port.
    pub fn parse(text: &str, usual_port: u16) -> Option<Self> {
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (host, after) = rest.split_once(']')?;
                host.parse::<std::net::Ipv6Addr>().ok()?;
                (host, if after.is_empty() { None } else { Some(after.strip_prefix(':')?) })
            }
            None => match text.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (text, None),
            },
        };
        let named = |c: char| c.is_ascii_alphanumeric() || "-._:".contains(c);
        if host.is_empty() || !host.chars().all(named) {
            return None;
        }
        let port = port.map_or(Some(usual_port), |port| port.parse().ok().filter(|port| *port != 0))?;
        Some(Self { host: host.to_owned(), port })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// How the servers stand together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Form {
    /// One server, or what looks like one.
    Single(Address),
    /// A master and its replicas, watched by sentinels that say who is master.
    Sentinel {
        /// Who is asked.
        sentinels: Vec<Address>,
        /// What the sentinels call the master.
        master: String,
    },
    /// Masters that share the keys; some of them, by which the others are found.
    Cluster(Vec<Address>),
}

/// With what a connection proves itself.
#[derive(Debug, Clone, Default)]
pub struct Login {
    /// The ACL user; `None`: the one called `default`.
    pub username: Option<String>,
    /// Its password.
    pub password: Option<SecretString>,
}

/// All that a [`Link`](super::Link) has to know.
#[derive(Debug, Clone)]
pub struct LinkSettings {
    /// Where the servers are.
    pub form: Form,
    /// Whether the way to them is TLS.
    pub tls: bool,
    /// The certificates that are trusted with TLS; `None`: those of the system.
    pub ca_file: Option<PathBuf>,
    /// The database; only 0 exists in a Cluster.
    pub database: u32,
    /// Towards the servers.
    pub login: Login,
    /// Towards the sentinels.
    pub sentinel_login: Login,
    /// Longest time for one call, connecting included.
    pub call_timeout: Duration,
}
