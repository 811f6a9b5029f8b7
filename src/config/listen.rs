//! `[listen]`: where the two listeners are.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Deserializer, de::Error};

use super::layers::Checks;

/// Two listeners: what the internet may reach, and what it must not.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listen {
    /// Notifications, lifecycle, consent return; nothing else.
    #[serde(deserialize_with = "address")]
    pub public: SocketAddr,
    /// Admin API, health, metrics.
    #[serde(deserialize_with = "address")]
    pub private: SocketAddr,
}

impl Listen {
    /// Where the command line finds the private listener of a service on this machine.
    pub fn private_url(&self) -> String {
        let ip = match self.private.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::from([127, 0, 0, 1]),
            IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::from(std::net::Ipv6Addr::LOCALHOST),
            ip => ip,
        };
        format!("http://{}", SocketAddr::new(ip, self.private.port()))
    }

    pub(super) fn check(&self, checks: &mut Checks<'_>) {
        if self.public == self.private && self.public.port() != 0 {
            checks.refuse(
                "listen.private",
                format!("is the same address as `listen.public`, {}", self.public),
                "give each listener its own port: the admin API must not be reachable from the internet",
            );
        }
    }
}

fn address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map_err(|_| {
        D::Error::custom(format_args!(
            "`{text}` is no address to listen at: write IP and port, as `127.0.0.1:8081` or `[::]:8080`"
        ))
    })
}
