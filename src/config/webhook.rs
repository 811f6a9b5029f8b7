//! `[webhook]`: what Microsoft 365 calls, and how much of it is taken.

use jiff::SignedDuration;
use serde::{Deserialize, Deserializer, de::Error};
use url::{Host, Url};

use super::layers::Checks;

/// What Microsoft 365 calls.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Webhook {
    /// Where the public listener is seen from the internet; notification, lifecycle and consent addresses begin with it.
    #[serde(deserialize_with = "optional_url")]
    pub public_url: Option<Url>,
    /// Longest notification body, bytes.
    pub max_body_bytes: usize,
    self_test_secs: u32,
}

impl Webhook {
    /// How often the service calls its own notification address; `None`: never.
    pub fn self_test_every(&self) -> Option<SignedDuration> {
        Some(SignedDuration::from_secs(self.self_test_secs.into())).filter(|every| !every.is_zero())
    }

    pub(super) fn check(&self, plain_http_on_loopback: bool, checks: &mut Checks<'_>) {
        if let Some(url) = &self.public_url {
            refuse_unsafe(checks, "webhook.public_url", url, plain_http_on_loopback);
        }
        checks.within(
            "webhook.max_body_bytes",
            self.max_body_bytes as u64,
            16_384..=67_108_864,
            "a batch of notifications has some hundred kilobytes",
        );
        if self.self_test_secs != 0 {
            checks.within(
                "webhook.self_test_secs",
                self.self_test_secs.into(),
                10..=86_400,
                "0 switches the test off",
            );
        }
    }
}

/// Refuses an outside address that is not https, unless it is this very machine and that was allowed; and one that
/// carries credentials, a query or a fragment.
pub(super) fn refuse_unsafe(checks: &mut Checks<'_>, key: &str, url: &Url, plain_http_on_loopback: bool) {
    let loopback = match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        None => false,
    };
    match url.scheme() {
        "https" if url.host().is_some() => {}
        "http" if loopback && plain_http_on_loopback => {}
        "http" if loopback => checks.refuse(
            key,
            format!("is plain http: `{url}`"),
            "use https, or for a simulator on this machine set `graph.allow_plain_http_loopback = true`",
        ),
        _ => checks.refuse(
            key,
            format!("is not https: `{url}`"),
            "use https; plain http is possible only towards this machine itself, for simulators",
        ),
    }
    if !url.username().is_empty()
        || url.password().is_some()
        || url.query().is_some()
        || url.fragment().is_some()
    {
        checks.refuse(key, "has more than host, port and path", "remove user, password, `?...` and `#...`");
    }
}

/// An address, or nothing where the text is empty.
pub(super) fn optional_url<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Url>, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text.is_empty() {
        return Ok(None);
    }
    Url::parse(&text).map(Some).map_err(|error| {
        D::Error::custom(format_args!(
            "`{text}` is no URL ({error}): write it in full, as `https://presence.example.org`"
        ))
    })
}
