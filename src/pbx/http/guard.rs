//! Which addresses a request may go to.
//!
//! A company's file names hosts; whoever writes it must not be able to reach the service's own network with
//! it. So the process decides ([`ProcessLimits`]), and what is decided about is the address that is really
//! connected to: names are resolved by [`Guard`] itself, inside the connection, so that a name that answers
//! differently the second time gains nothing. Addresses written as such, in any spelling (`0x7f.1`,
//! `2130706433`, `[::ffff:127.0.0.1]`), are judged when they are configured and again before each request.
//!
//! Link-local, cloud metadata, unspecified, multicast, broadcast and reserved addresses are never
//! allowed. Private and loopback ones are common for a PBX and dangerous for a service with many
//! customers, hence off until the operator of the process says otherwise.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::{Host, Url};

/// What the operator of the process allows to all companies.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProcessLimits {
    /// Addresses of private networks (RFC 1918, RFC 6598, RFC 4193).
    pub allow_private: bool,
    /// The machine itself.
    pub allow_loopback: bool,
    /// The only hosts, as `pbx.example.com` or `*.example.com`; empty: all.
    pub allowed_hosts: Vec<String>,
}

/// A target that must not be reached.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Forbidden {
    #[error("`{host}` is {kind}, which the service does not connect to")]
    Never { host: String, kind: &'static str },
    #[error("`{host}` is {kind}; the operator of the service has to allow such addresses for PBXs")]
    NotAllowed { host: String, kind: &'static str },
    #[error("`{host}` is not among the hosts that the operator of the service allows")]
    NotListed { host: String },
    #[error("the URL has no host")]
    NoHost,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Public,
    Private,
    Loopback,
    Never(&'static str),
}

/// Judges hosts and addresses, and resolves names.
#[derive(Debug, Clone)]
pub(super) struct Guard {
    limits: Arc<ProcessLimits>,
}

impl Guard {
    pub(super) fn new(limits: ProcessLimits) -> Self {
        Self { limits: Arc::new(limits) }
    }

    /// Whether a request may go to `url`, as far as can be told before its name is resolved.
    pub(super) fn admit(&self, url: &Url) -> Result<(), Forbidden> {
        match url.host().ok_or(Forbidden::NoHost)? {
            Host::Domain(name) => self.listed(name),
            Host::Ipv4(address) => {
                self.listed(&address.to_string())?;
                self.address(IpAddr::V4(address))
            }
            Host::Ipv6(address) => {
                self.listed(&address.to_string())?;
                self.address(IpAddr::V6(address))
            }
        }
    }

    fn listed(&self, host: &str) -> Result<(), Forbidden> {
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        let matches = |allowed: &String| {
            let allowed = allowed.to_ascii_lowercase();
            match allowed.strip_prefix('*') {
                Some(suffix) => {
                    suffix.starts_with('.') && host.len() > suffix.len() && host.ends_with(suffix)
                }
                None => host == allowed,
            }
        };
        if self.limits.allowed_hosts.is_empty() || self.limits.allowed_hosts.iter().any(matches) {
            Ok(())
        } else {
            Err(Forbidden::NotListed { host })
        }
    }

    fn address(&self, address: IpAddr) -> Result<(), Forbidden> {
        let host = address.to_string();
        match kind(address) {
            Kind::Public => Ok(()),
            Kind::Private if self.limits.allow_private => Ok(()),
            Kind::Private => Err(Forbidden::NotAllowed { host, kind: "an address of a private network" }),
            Kind::Loopback if self.limits.allow_loopback => Ok(()),
            Kind::Loopback => Err(Forbidden::NotAllowed { host, kind: "the machine itself" }),
            Kind::Never(kind) => Err(Forbidden::Never { host, kind }),
        }
    }
}

impl Resolve for Guard {
    fn resolve(&self, name: Name) -> Resolving {
        let guard = self.clone();
        Box::pin(async move {
            let resolved = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let (mut allowed, mut refused) = (Vec::<SocketAddr>::new(), None);
            for address in resolved {
                match guard.address(address.ip()) {
                    Ok(()) => allowed.push(address),
                    Err(why) => refused = Some(why),
                }
            }
            match refused {
                Some(why) if allowed.is_empty() => Err(why.into()),
                _ => Ok(Box::new(allowed.into_iter()) as Addrs),
            }
        })
    }
}

fn kind(address: IpAddr) -> Kind {
    match address {
        IpAddr::V4(address) => kind_v4(address),
        IpAddr::V6(address) => kind_v6(address),
    }
}

/// IANA's special-purpose registry, and where clouds keep their metadata.
fn kind_v4(address: Ipv4Addr) -> Kind {
    let [a, b, c, _] = address.octets();
    match (a, b) {
        (0, _) => Kind::Never("an unspecified address"),
        (127, _) => Kind::Loopback,
        (169, 254) => Kind::Never("a link-local or metadata address"),
        (100, 100) if address == Ipv4Addr::new(100, 100, 100, 200) => Kind::Never("a metadata address"),
        (168, 63) if address == Ipv4Addr::new(168, 63, 129, 16) => Kind::Never("a metadata address"),
        (192, 0) if c == 0 => Kind::Never("a reserved or metadata address"),
        (10, _) | (192, 168) | (172, 16..=31) | (100, 64..=127) | (198, 18..=19) => Kind::Private,
        (224..=239, _) => Kind::Never("a multicast address"),
        (240.., _) => Kind::Never("a reserved or broadcast address"),
        _ => Kind::Public,
    }
}

fn kind_v6(address: Ipv6Addr) -> Kind {
    if address == Ipv6Addr::LOCALHOST {
        return Kind::Loopback;
    }
    if let Some(inner) = embedded(address) {
        return kind_v4(inner);
    }
    let segments = address.segments();
    match segments[0] {
        0xfd00 if segments == [0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254] => Kind::Never("a metadata address"),
        0xfe80..=0xfebf => Kind::Never("a link-local address"),
        0xfec0..=0xfeff | 0xfc00..=0xfdff => Kind::Private,
        0xff00.. => Kind::Never("a multicast address"),
        0x2000..=0x3fff if segments[..2] != [0x2001, 0] => Kind::Public,
        _ => Kind::Never("an unspecified or reserved address"),
    }
}

/// The IPv4 address that an IPv6 one stands for: mapped, compatible, NAT64 or 6to4.
fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let s = address.segments();
    let v4 = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        Ipv4Addr::new(a, b, c, d)
    };
    match s {
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => Some(v4(high, low)),
        [0x2002, high, low, ..] => Some(v4(high, low)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard(allow_private: bool, allow_loopback: bool) -> Guard {
        Guard::new(ProcessLimits { allow_private, allow_loopback, allowed_hosts: Vec::new() })
    }

    fn admits(guard: &Guard, host: &str) -> bool {
        guard.admit(&format!("https://{host}/").parse().unwrap()).is_ok()
    }

    #[test]
    fn some_addresses_are_never_allowed_whatever_the_process_allows() {
        for host in [
            "169.254.169.254",
            "[::ffff:169.254.169.254]",
            "[::169.254.169.254]",
            "[64:ff9b::a9fe:a9fe]",
            "[2002:a9fe:a9fe::1]",
            "2852039166",
            "0251.0376.0251.0376",
            "0xa9fea9fe",
            "0.0.0.0",
            "0",
            "[::]",
            "[::ffff:0.0.0.0]",
            "224.0.0.1",
            "255.255.255.255",
            "[ff02::1]",
            "[fe80::1]",
            "[fd00:ec2::254]",
            "100.100.100.200",
            "168.63.129.16",
        ] {
            assert!(!admits(&guard(true, true), host), "{host}");
        }
    }

    #[test]
    fn the_machine_itself_is_allowed_only_where_the_process_allows_it() {
        for host in
            ["127.0.0.1", "127.1", "2130706433", "0177.0.0.1", "0x7f000001", "[::1]", "[::ffff:127.0.0.1]"]
        {
            assert!(!admits(&guard(true, false), host), "{host}");
            assert!(admits(&guard(false, true), host), "{host}");
        }
    }

    #[test]
    fn private_networks_are_allowed_only_where_the_process_allows_them() {
        for host in [
            "10.1.2.3",
            "172.16.0.1",
            "172.31.9.9",
            "192.168.1.1",
            "100.64.0.1",
            "[fd12::1]",
            "[::ffff:10.0.0.1]",
        ] {
            assert!(!admits(&guard(false, true), host), "{host}");
            assert!(admits(&guard(true, false), host), "{host}");
        }
    }

    #[test]
    fn public_addresses_and_names_are_allowed() {
        for host in ["8.8.8.8", "172.32.0.1", "[2606:4700::1]", "pbx.example.com"] {
            assert!(admits(&guard(false, false), host), "{host}");
        }
    }

    #[test]
    fn a_list_of_hosts_leaves_all_others_out() {
        let allowed_hosts = vec!["pbx.example.com".to_owned(), "*.voice.example".to_owned()];
        let guard = Guard::new(ProcessLimits { allowed_hosts, ..ProcessLimits::default() });
        for host in ["pbx.example.com", "PBX.example.com.", "a.voice.example"] {
            assert!(admits(&guard, host), "{host}");
        }
        for host in [
            "example.com",
            "xpbx.example.com",
            "voice.example",
            "avoice.example",
            "pbx.example.com.evil.example",
            "8.8.8.8",
        ] {
            assert!(!admits(&guard, host), "{host}");
        }
    }

    #[tokio::test]
    async fn a_name_is_judged_by_the_addresses_it_resolves_to() {
        let resolve = |guard: Guard| async move { guard.resolve("localhost".parse().unwrap()).await };
        let refused = resolve(guard(true, false)).await.err().unwrap();
        assert!(refused.downcast_ref::<Forbidden>().is_some(), "{refused}");
        assert!(resolve(guard(false, true)).await.unwrap().all(|address| address.ip().is_loopback()));
    }
}
