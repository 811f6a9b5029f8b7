//! What to do about a Redis that cannot be used: the next step for each reason, which stands in the error itself.

use super::{CheckError, DialError, LinkError, OpenError, link};
use crate::chain::Chain;

/// Of a Redis that cannot serve for a while.
const LATER: &str = "wait until Redis has done what it says, and start again";

impl OpenError {
    /// The next step.
    pub fn remedy(&self) -> String {
        match self {
            Self::Link(link::OpenError { tls, source }) => source.remedy(*tls),
            Self::Check(error) => error.remedy(),
            Self::Newer { .. } => "install the newer version, or name another `store.prefix`".to_owned(),
            Self::Store(error) if Chain(error).to_string().contains("WRONGTYPE") => {
                "`narvaro store check` names the key that something else has written over".to_owned()
            }
            Self::Store(_) => LATER.to_owned(),
            Self::NotAllowed { .. } => {
                "let an administrator of Redis give these rights to the user: `ACL SETUSER`".to_owned()
            }
            Self::Incomplete { .. } => {
                "copy into it again, to the end: `narvaro store copy` begins anew; or name the store that was copied from".to_owned()
            }
        }
    }
}

impl CheckError {
    fn remedy(&self) -> String {
        match self {
            Self::Link(LinkError::Away(error)) => error.remedy(true),
            Self::Link(LinkError::NotNow(said)) if said.starts_with("NOPERM") => allow_info(),
            Self::Link(_) => LATER.to_owned(),
            Self::TooOld { .. } => "update Redis there, or name another one in `store.url`".to_owned(),
            Self::Evicts { .. } => {
                "`redis-cli config set maxmemory-policy noeviction`, and the same in the configuration of Redis".to_owned()
            }
            Self::Replica { .. } => {
                "a replica says in `redis-cli info replication` who its master is (`master_host`, `master_port`)".to_owned()
            }
            Self::Cluster { address } => {
                format!("`store.url = \"redis+cluster://{address}\"`, better with some more of its servers")
            }
            Self::Sentinel { address } => format!(
                "`store.url = \"redis+sentinel://{address}/NAME\"`, better with the other Sentinels too; `redis-cli -p {} sentinel masters` tells the name, often `mymaster`",
                address.port
            ),
            Self::Untold { .. } => allow_info(),
        }
    }
}

fn allow_info() -> String {
    "let the user of Redis ask `INFO`: `ACL SETUSER NAME +info`".to_owned()
}

impl DialError {
    /// The next step, where a connection was to be made, by TLS or not.
    fn remedy(&self, tls: bool) -> String {
        match self {
            Self::Unreachable { .. } => {
                "check host and port in `store.url`, that Redis runs there, and that no firewall is between".to_owned()
            }
            Self::Silent { .. } | Self::Connecting => {
                "see whether it is Redis that has this port, whether it hangs, and whether a firewall is between; `store.call_timeout_ms` is how long it may take".to_owned()
            }
            Self::Broken { .. } if tls => "see why in the log of Redis: it may want a certificate of its clients (`tls-auth-clients no` wants none)".to_owned(),
            Self::Broken { .. } => {
                "a port that speaks TLS ends connections without it: where it does, write `rediss` in place of `redis` in `store.url`; else see why in the log of Redis".to_owned()
            }
            Self::NoTls { .. } => {
                "where Redis has no TLS on this port, write `redis` in place of `rediss` in `store.url`, or name the port that has it (`tls-port`); where it has, see whether it hangs".to_owned()
            }
            Self::Tls { .. } => {
                "name the CA of its certificate as `store.ca_file`, and write the host in `store.url` as it stands in the certificate".to_owned()
            }
            Self::CaFile { .. } => {
                "name a file with certificates in PEM form that the service's account can read".to_owned()
            }
            Self::PasswordWanted { keys, .. } => format!(
                "write the password into a file and name that as `{keys}password_file`; a user other than `default` is named as `{keys}username`"
            ),
            Self::Denied { keys, .. } => format!(
                "`redis-cli --user NAME --askpass ping` tells whether Redis takes user and password; they are `{keys}username` and what is in `{keys}password_file`"
            ),
            Self::NotNow { .. } => LATER.to_owned(),
            Self::NotMaster { .. } => "another server may just be taking over: start again in a while; `redis-cli info replication` tells who is master".to_owned(),
            Self::NoSuchMaster { .. } => "`redis-cli -p 26379 sentinel masters`, asked of a Sentinel, tells the names that there are".to_owned(),
            Self::NoDatabase { .. } => {
                "write a lower number after the last `/` of `store.url`, or none; Redis has 16 databases, from 0, unless `databases` says otherwise".to_owned()
            }
            Self::NoSentinel { .. } => "name the ports of the Sentinels in `store.url`, usually 26379; for a Redis without Sentinels write `redis://HOST:PORT`".to_owned(),
            Self::NotClustered { .. } => "write `redis://HOST:PORT` in `store.url`, or name servers of the Cluster".to_owned(),
            Self::NoCluster { address, .. } => {
                format!("`redis-cli --cluster check {address}` tells what the Cluster lacks")
            }
        }
    }
}
