//! Sends one request and reads its answer, within limits: time, size, no redirects, no proxy,
//! allowed addresses only.
//!
//! The environment's proxies are not used: a proxy would resolve names itself, behind the back of the
//! [`Guard`]. Compressed answers are not asked for, so that a small answer cannot become a large one.

use std::{error::Error, time::Duration};

use bytes::Bytes;
use jiff::{Timestamp, fmt::rfc2822};
use reqwest::{
    Certificate, Client, StatusCode,
    header::{HeaderMap, RETRY_AFTER},
    redirect,
};
use url::Url;

use super::{
    config::{ConfigError, HttpPbxConfig},
    guard::{Forbidden, Guard, ProcessLimits},
    request::Prepared,
};
use crate::presence::PbxError;

/// Most that is read of an answer, in bytes: a state is small.
const MOST_BYTES: usize = 1024 * 1024;

/// Connecting takes a fraction of this; the rest of the time-out is the target's.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Why there is no usable answer, below [`PbxError::Unreachable`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Silence {
    #[error("it answered with status {0}")]
    Status(u16),
    #[error("the time for it is over")]
    OutOfTime,
}

/// An answer, whatever its status.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) retry_after: Option<Duration>,
    pub(super) body: Result<Vec<u8>, PbxError>,
}

#[derive(Debug)]
pub(super) struct Transport {
    client: Client,
    guard: Guard,
    allow_plain_http: bool,
}

impl Transport {
    pub(super) fn new(config: &HttpPbxConfig, limits: ProcessLimits) -> Result<Self, ConfigError> {
        let guard = Guard::new(limits);
        let mut client = Client::builder()
            .user_agent(concat!("narvaro/", env!("CARGO_PKG_VERSION")))
            .redirect(redirect::Policy::none())
            .retry(reqwest::retry::never())
            .referer(false)
            .no_proxy()
            .no_gzip()
            .no_brotli()
            .no_deflate()
            .no_zstd()
            .https_only(!config.allow_plain_http)
            .connect_timeout(CONNECT_TIMEOUT)
            .dns_resolver(guard.clone());
        if let Some(pem) = &config.ca_pem {
            let certificates = Certificate::from_pem_bundle(pem.as_bytes()).unwrap_or_default();
            if certificates.is_empty() {
                return Err(ConfigError::new("ca_pem", "holds no certificate in PEM form"));
            }
            client = client.tls_certs_only(certificates);
        }
        let client = client.build().map_err(|error| ConfigError::new("ca_pem", chain(&error)))?;
        Ok(Self { client, guard, allow_plain_http: config.allow_plain_http })
    }

    /// Checks the URL that stands under `key`.
    pub(super) fn url(&self, key: &str, text: &str) -> Result<Url, ConfigError> {
        let wrong = |problem: &str| Err(ConfigError::new(key, problem));
        let Ok(url) = Url::parse(text) else {
            return wrong("is not an absolute URL; write `https://pbx.example.com`");
        };
        match url.scheme() {
            "https" => {}
            "http" if self.allow_plain_http => {}
            "http" => {
                return wrong(
                    "is plain HTTP; use `https`, or set `allow_plain_http` knowing that all can be read",
                );
            }
            _ => return wrong("is neither `https` nor `http`"),
        }
        if !url.username().is_empty() || url.password().is_some() {
            return wrong("holds a user or a password; they belong into `auth`");
        }
        if url.query().is_some() || url.fragment().is_some() {
            return wrong("holds a query or a fragment; they belong into `path`");
        }
        self.guard.admit(&url).map_err(|forbidden| ConfigError::new(key, forbidden))?;
        Ok(url)
    }

    /// Sends `request` once.
    pub(super) async fn send(
        &self,
        request: Prepared,
        timeout: Duration,
        now: Timestamp,
    ) -> Result<Answer, PbxError> {
        self.guard.admit(&request.url).map_err(|forbidden| refused(&forbidden))?;
        let builder = self.client.request(request.method, request.url).headers(request.headers);
        let sent = builder.body(request.body).timeout(timeout).send().await;
        let mut response = sent.map_err(unreachable)?;
        let (status, retry_after) = (response.status(), retry_after(response.headers(), now));
        let mut body = Vec::new();
        let body = loop {
            match response.chunk().await {
                Ok(None) => break Ok(body),
                Ok(Some(chunk)) if within_limit(&body, &chunk) => body.extend_from_slice(&chunk),
                Ok(Some(_)) => {
                    let reason = format!("the answer is longer than {MOST_BYTES} bytes");
                    break Err(PbxError::Unexpected { reason });
                }
                Err(error) => break Err(unreachable(error)),
            }
        };
        Ok(Answer { status, retry_after, body })
    }
}

fn within_limit(body: &[u8], chunk: &Bytes) -> bool {
    body.len() + chunk.len() <= MOST_BYTES
}

fn refused(forbidden: &Forbidden) -> PbxError {
    PbxError::Refused { reason: forbidden.to_string() }
}

/// The URL is taken out: it may carry a key in its query.
fn unreachable(error: reqwest::Error) -> PbxError {
    let error = error.without_url();
    let mut cause = error.source();
    while let Some(source) = cause {
        if let Some(forbidden) = source.downcast_ref::<Forbidden>() {
            return refused(forbidden);
        }
        cause = source.source();
    }
    PbxError::Unreachable(error.into())
}

fn chain(error: &(dyn Error + 'static)) -> String {
    crate::chain::Chain(error).to_string()
}

/// RFC 9110, 10.2.3: seconds or a date.
fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let at = rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
    Some(Duration::try_from(at.duration_since(now)).unwrap_or(Duration::ZERO))
}

#[cfg(test)]
mod tests {
    use reqwest::header::HeaderValue;

    use super::*;

    #[test]
    fn a_wish_for_patience_is_read_as_seconds_or_as_a_date() {
        let wish = |text| {
            let now = "2026-11-23T08:00:00Z".parse().unwrap();
            retry_after(&HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_static(text))]), now)
        };
        assert_eq!(wish("7"), Some(Duration::from_secs(7)));
        assert_eq!(wish("Mon, 23 Nov 2026 08:01:30 GMT"), Some(Duration::from_secs(90)));
        assert_eq!(wish("Mon, 23 Nov 2026 07:00:00 GMT"), Some(Duration::ZERO));
        assert_eq!(wish("soon"), None);
        assert_eq!(wish("-1"), None);
    }
}
