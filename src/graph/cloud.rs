//! Where Graph and its login service live: the clouds by name, and one's own for a simulator.
//!
//! Tokens, app registrations and consents belong to one cloud and mean nothing in another, so the hosts are
//! values that travel together, never constants in the code that calls them.
//! Facts: <https://learn.microsoft.com/graph/deployments>.

use url::{Host, Url};

/// The hosts of one cloud.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cloud {
    graph_base: Url,
    login_authority: Url,
}

/// Hosts that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CloudError {
    /// Tokens and calendars would cross the network in the clear.
    #[error("`{0}` is not https; plain http is for a simulator on the loopback, and has to be allowed")]
    Insecure(Url),
    /// The address carries something that has no meaning there.
    #[error("`{0}` must be scheme, host and port only")]
    Surplus(Url),
}

impl Cloud {
    /// The world-wide service, and GCC.
    pub fn global() -> Self {
        Self::preset("https://graph.microsoft.com", "https://login.microsoftonline.com")
    }

    /// US Government L4 (GCC High).
    pub fn gcc_high() -> Self {
        Self::preset("https://graph.microsoft.us", "https://login.microsoftonline.us")
    }

    /// US Government L5 (DoD).
    pub fn dod() -> Self {
        Self::preset("https://dod-graph.microsoft.us", "https://login.microsoftonline.us")
    }

    /// China, operated by 21Vianet.
    pub fn china() -> Self {
        Self::preset("https://microsoftgraph.chinacloudapi.cn", "https://login.chinacloudapi.cn")
    }

    /// A cloud by its name in the configuration: `global`, `gcc-high`, `dod` or `china`.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "global" => Some(Self::global()),
            "gcc-high" => Some(Self::gcc_high()),
            "dod" => Some(Self::dod()),
            "china" => Some(Self::china()),
            _ => None,
        }
    }

    /// Hosts of one's own, for a simulator or a cloud that has no name here.
    ///
    /// `allow_plain_http_loopback` lets `http` through for 127.0.0.0/8, `::1` and `localhost`, nothing else.
    ///
    /// # Errors
    /// [`CloudError::Insecure`] for any other `http`; [`CloudError::Surplus`] where a path, a query or a user
    /// name would be lost on the way.
    pub fn custom(
        graph_base: Url,
        login_authority: Url,
        allow_plain_http_loopback: bool,
    ) -> Result<Self, CloudError> {
        for url in [&graph_base, &login_authority] {
            let plain_allowed = allow_plain_http_loopback && url.scheme() == "http" && is_loopback(url);
            if url.scheme() != "https" && !plain_allowed {
                return Err(CloudError::Insecure(url.clone()));
            }
            let bare = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
            if !bare || !url.username().is_empty() || url.password().is_some() {
                return Err(CloudError::Surplus(url.clone()));
            }
        }
        Ok(Self { graph_base, login_authority })
    }

    #[expect(clippy::expect_used, reason = "the addresses stand in this file")]
    fn preset(graph_base: &str, login_authority: &str) -> Self {
        let parse = |text| Url::parse(text).expect("a constant address");
        Self { graph_base: parse(graph_base), login_authority: parse(login_authority) }
    }

    /// Root of all calls: `https://graph.microsoft.com/v1.0/`.
    pub(super) fn root(&self) -> Url {
        let mut root = self.graph_base.clone();
        root.set_path("/v1.0/");
        root
    }

    /// What a token is asked for: all application permissions that have been granted.
    pub(super) fn scope(&self) -> String {
        format!("{}/.default", self.graph_base.as_str().trim_end_matches('/'))
    }

    /// Whom a client assertion is made for: the address where this tenant's tokens are asked for.
    ///
    /// A simulator on the loopback stands in for the world-wide service, and wants what that one wants.
    pub(super) fn assertion_audience(&self, tenant: &str) -> Url {
        let cloud = if self.plain_login().is_some() { &Self::global() } else { self };
        cloud.login_url(&format!("/{tenant}/oauth2/v2.0/token"))
    }

    /// An address at the login service.
    pub(super) fn login_url(&self, path: &str) -> Url {
        let mut url = self.login_authority.clone();
        url.set_path(path);
        url
    }

    /// The login service, if it is reached without TLS.
    pub(super) fn plain_login(&self) -> Option<&Url> {
        (self.login_authority.scheme() == "http").then_some(&self.login_authority)
    }

    /// The login service as `https://host[:port]`.
    pub(super) fn login_authority(&self) -> &Url {
        &self.login_authority
    }

    /// Whether either host is a loopback simulator, to which no proxy leads.
    pub(super) fn is_loopback(&self) -> bool {
        is_loopback(&self.graph_base) || is_loopback(&self.login_authority)
    }
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    fn custom(graph: &str, login: &str, allow: bool) -> Result<Cloud, CloudError> {
        Cloud::custom(url(graph), url(login), allow)
    }

    #[test]
    fn plain_http_is_for_an_allowed_loopback_only() {
        assert!(custom("http://127.0.0.1:8080", "http://[::1]:8081", true).is_ok());
        assert!(custom("http://localhost:8080", "https://login.example", true).is_ok());
        assert!(matches!(
            custom("http://127.0.0.1:8080", "http://127.0.0.1:8081", false),
            Err(CloudError::Insecure(_))
        ));
        for far in ["http://graph.example", "http://127.0.0.1.example", "http://10.0.0.1", "ftp://127.0.0.1"]
        {
            assert!(
                matches!(custom(far, "https://login.example", true), Err(CloudError::Insecure(_))),
                "{far}"
            );
            assert!(
                matches!(custom("https://graph.example", far, true), Err(CloudError::Insecure(_))),
                "{far}"
            );
        }
    }

    #[test]
    fn an_address_with_a_path_or_a_user_name_is_refused() {
        for odd in ["https://graph.example/v1.0", "https://graph.example/?a=b", "https://me@graph.example"] {
            assert!(
                matches!(custom(odd, "https://login.example", false), Err(CloudError::Surplus(_))),
                "{odd}"
            );
        }
    }

    #[test]
    fn each_named_cloud_asks_for_its_own_graph() {
        for (name, scope, token) in [
            ("global", "https://graph.microsoft.com/.default", "https://login.microsoftonline.com/"),
            ("gcc-high", "https://graph.microsoft.us/.default", "https://login.microsoftonline.us/"),
            ("dod", "https://dod-graph.microsoft.us/.default", "https://login.microsoftonline.us/"),
            ("china", "https://microsoftgraph.chinacloudapi.cn/.default", "https://login.chinacloudapi.cn/"),
        ] {
            let cloud = Cloud::named(name).unwrap();
            assert_eq!(cloud.scope(), scope);
            assert_eq!(cloud.assertion_audience("t").as_str(), format!("{token}t/oauth2/v2.0/token"));
            assert!(cloud.root().as_str().ends_with("/v1.0/"));
        }
        assert_eq!(Cloud::named("mars"), None);
    }
}
