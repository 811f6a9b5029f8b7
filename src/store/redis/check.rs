//! What is asked of a Redis before anything is kept in it: its version, that it throws nothing away, and what it may
//! forget in a crash.

use redis::Value;

use super::{
    link::{Link, LinkError},
    settings::Address,
};

/// The oldest Redis with all that the scripts use.
const OLDEST: (u32, u32) = (6, 2);

/// What a crash of the server may lose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Durability {
    /// Nothing that was acknowledged.
    Nothing,
    /// The last second.
    LastSecond,
    /// What the system had not written to its disk yet.
    SomeSeconds,
    /// All since the last snapshot.
    SinceSnapshot,
    /// All.
    Everything,
    /// The server does not let itself be asked.
    Unknown,
}

impl Durability {
    /// What an operator should know and do; `None` where there is nothing to do.
    pub fn warning(self) -> Option<&'static str> {
        let told = match self {
            Self::Nothing => return None,
            Self::LastSecond => {
                "a crash of its machine may lose the last second (`appendfsync everysec`): changes that were announced in it show after the next sweep; `appendfsync always` loses nothing"
            }
            Self::SomeSeconds => {
                "a crash of its machine may lose some seconds (`appendfsync no`): set `appendfsync everysec`, or `always`, which loses nothing"
            }
            Self::SinceSnapshot => {
                "a crash loses all since its last snapshot, companies and manual changes among it: set `appendonly yes`"
            }
            Self::Everything => {
                "a crash or restart loses everything, all companies too: nothing is written to disk; set `appendonly yes`"
            }
            Self::Unknown => {
                "whether a crash loses anything is not known, as it allows no `CONFIG GET`: see to it that it keeps an append-only file"
            }
        };
        Some(told)
    }
}

/// What one server is like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// Where it is.
    pub address: Address,
    /// Its version.
    pub version: String,
    /// What its crash may lose.
    pub durability: Durability,
}

impl Server {
    /// What an operator should know about it.
    pub fn warning(&self) -> Option<String> {
        self.durability.warning().map(|told| format!("Redis at `{}`: {told}", self.address))
    }
}

/// Why a server cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// It could not be asked.
    #[error("Redis could not be asked about itself")]
    Link(#[from] LinkError),
    /// It is too old.
    #[error("Redis at `{address}` has version {version}: 6.2 or newer is needed")]
    TooOld {
        /// Where.
        address: Address,
        /// Its version.
        version: String,
    },
    /// It throws keys away when its memory is full.
    #[error(
        "Redis at `{address}` throws keys away when its memory is full (`maxmemory-policy {policy}`): set `maxmemory-policy noeviction`, so that it refuses instead"
    )]
    Evicts {
        /// Where.
        address: Address,
        /// The policy.
        policy: String,
    },
    /// It is the replica of another.
    #[error(
        "Redis at `{address}` is a replica and takes no writes: name its master as `store.url`, or the sentinels"
    )]
    Replica {
        /// Where.
        address: Address,
    },
    /// It is a node of a Cluster, and was not named as one; or the other way about.
    #[error("Redis at `{address}` belongs to a Cluster: write `redis+cluster://` in `store.url`")]
    Cluster {
        /// Where.
        address: Address,
    },
    /// It knows a master, and is none.
    #[error("`{address}` is a Sentinel, and keeps nothing itself")]
    Sentinel {
        /// Where.
        address: Address,
    },
    /// It does not say what has to be known.
    #[error("Redis at `{address}` does not tell `{what}` (`INFO`)")]
    Untold {
        /// Where.
        address: Address,
        /// What.
        what: &'static str,
    },
}

/// Asks every server that keeps something; in a Cluster, every master.
///
/// # Errors
/// Where one of them cannot be used.
pub async fn check(link: &Link) -> Result<Vec<Server>, CheckError> {
    let told = link.each(&redis::cmd("INFO")).await?;
    let config = |key: &'static str| async move {
        // Managed servers often forbid this.
        let told = link.each(redis::cmd("CONFIG").arg("GET").arg(key)).await.unwrap_or_default();
        told.into_iter().map(|(address, value)| (address, setting(&value))).collect::<Vec<_>>()
    };
    let (fsync, save) = (config("appendfsync").await, config("save").await);
    let at = |settings: &[(Address, Option<String>)], address: &Address| {
        settings.iter().find(|(one, _)| one == address).and_then(|(_, value)| value.clone())
    };
    let servers = told.into_iter().map(|(address, value)| {
        let info = Info { text: redis::from_redis_value(value).unwrap_or_default(), address };
        let (fsync, save) = (at(&fsync, &info.address), at(&save, &info.address));
        info.judge(link.is_cluster(), fsync.as_deref(), save.as_deref())
    });
    servers.collect()
}

/// What `INFO` tells of one server.
struct Info {
    address: Address,
    text: String,
}

impl Info {
    fn judge(self, clustered: bool, fsync: Option<&str>, save: Option<&str>) -> Result<Server, CheckError> {
        if self.get("redis_mode") == Some("sentinel") {
            return Err(CheckError::Sentinel { address: self.address });
        }
        let version = self.needed("redis_version")?.to_owned();
        let policy = self.needed("maxmemory_policy")?.to_owned();
        let role = self.needed("role")?.to_owned();
        let evicts = policy != "noeviction";
        let belongs = !clustered && self.get("cluster_enabled") == Some("1");
        let durability = self.durability(fsync, save);
        let address = self.address;
        if !new_enough(&version) {
            return Err(CheckError::TooOld { address, version });
        }
        if belongs {
            return Err(CheckError::Cluster { address });
        }
        if role != "master" {
            return Err(CheckError::Replica { address });
        }
        if evicts {
            return Err(CheckError::Evicts { address, policy });
        }
        Ok(Server { address, version, durability })
    }

    fn durability(&self, fsync: Option<&str>, save: Option<&str>) -> Durability {
        match (self.get("aof_enabled"), fsync, save) {
            (Some("1"), Some("always"), _) => Durability::Nothing,
            (Some("1"), Some("everysec"), _) => Durability::LastSecond,
            (Some("1"), Some(_), _) => Durability::SomeSeconds,
            (Some("0"), _, Some("")) => Durability::Everything,
            (Some("0"), _, Some(_)) => Durability::SinceSnapshot,
            _ => Durability::Unknown,
        }
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.text.lines().find_map(|line| line.trim_end().strip_prefix(name)?.strip_prefix(':'))
    }

    fn needed(&self, what: &'static str) -> Result<&str, CheckError> {
        self.get(what).ok_or_else(|| CheckError::Untold { address: self.address.clone(), what })
    }
}

fn new_enough(version: &str) -> bool {
    let mut parts = version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0)) >= OLDEST
}

/// The value in an answer to `CONFIG GET`.
fn setting(value: &Value) -> Option<String> {
    let pair: Vec<String> = redis::from_redis_value_ref(value).ok()?;
    pair.into_iter().nth(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(text: &str, fsync: Option<&str>, save: Option<&str>) -> Result<Server, String> {
        let address = Address { host: "h".to_owned(), port: 1 };
        let usual = "redis_version:7.0.15\r\nrole:master\r\nmaxmemory:0\r\nmaxmemory_policy:noeviction\r\naof_enabled:0\r\n";
        Info { address, text: format!("{text}{usual}") }
            .judge(false, fsync, save)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn a_server_that_would_lose_or_refuse_is_not_used() {
        for (text, expected) in [
            ("redis_version:6.0.16\r\n", "Redis at `h:1` has version 6.0.16: 6.2 or newer"),
            ("redis_mode:sentinel\r\n", "`h:1` is a Sentinel"),
            ("role:slave\r\n", "Redis at `h:1` is a replica"),
            ("cluster_enabled:1\r\n", "Redis at `h:1` belongs to a Cluster"),
            ("maxmemory:1000\r\nmaxmemory_policy:allkeys-lru\r\n", "Redis at `h:1` throws keys away"),
        ] {
            let told = judge(text, None, None).unwrap_err();
            assert!(told.starts_with(expected), "{told}");
        }
        for fine in ["", "redis_version:6.2.0\r\n", "redis_version:10.1\r\n"] {
            judge(fine, None, None).unwrap();
        }
    }

    #[test]
    fn what_a_crash_may_lose_is_told_with_what_to_do() {
        let of = |aof: &str, fsync, save| {
            judge(&format!("aof_enabled:{aof}\r\n"), fsync, save).unwrap().durability
        };
        assert_eq!(of("1", Some("always"), Some("")), Durability::Nothing);
        assert_eq!(of("1", Some("everysec"), None), Durability::LastSecond);
        assert_eq!(of("1", Some("no"), None), Durability::SomeSeconds);
        assert_eq!(of("0", Some("everysec"), Some("3600 1")), Durability::SinceSnapshot);
        assert_eq!(of("0", Some("everysec"), Some("")), Durability::Everything);
        assert_eq!(of("1", None, None), Durability::Unknown);
        assert_eq!(Durability::Nothing.warning(), None);
        assert!(Durability::Everything.warning().unwrap().contains("`appendonly yes`"));
    }
}
