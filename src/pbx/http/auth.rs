//! How we identify ourselves to a target.
//!
//! A token is fetched once however many requests wait for it, renewed before it runs out, and once
//! more when the target says that it has (status 401, or a value that the success rule names). While
//! a renewal fails for reasons that may pass, the old token serves as long as it is valid.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use jiff::{SignedDuration, Timestamp};
use reqwest::{
    Method,
    header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue},
};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value as Json;
use tokio::sync::Mutex;
use url::Url;

use super::{
    answer::{check_pointer, printable},
    config::{AuthConfig, ConfigError, LoginForm, TokenPlace},
    request::{Prepared, header_name},
    transport::{Answer, Silence, Transport},
};
use crate::{clock::Clock, presence::PbxError};

/// A token's life where its endpoint does not tell: short, since asking again costs little.
const UNTOLD_LIFE_SECS: i64 = 300;

/// Renewed so long before the end, or in the last fifth of a shorter life.
const RENEW_EARLY_SECS: i64 = 60;

/// A checked way to identify ourselves.
#[derive(Debug)]
pub(super) enum Auth {
    None,
    Fixed { place: Place, secret: SecretString },
    Token(Box<TokenSource>),
}

/// Where a secret goes.
#[derive(Debug, Clone)]
pub(super) enum Place {
    /// As `Authorization: SCHEME SECRET`.
    Authorization(&'static str),
    Header(HeaderName),
    Query(String),
}

/// A place where tokens are to be had.
#[derive(Debug)]
pub(super) struct TokenSource {
    place: Place,
    url: Url,
    headers: HeaderMap,
    body: SecretString,
    token: String,
    expires_in: Option<String>,
    life_secs: i64,
    current: Mutex<Option<Token>>,
}

#[derive(Debug)]
struct Token {
    serial: u64,
    secret: SecretString,
    renew_at: Timestamp,
    expires_at: Timestamp,
}

impl Auth {
    pub(super) fn new(config: &AuthConfig, transport: &Transport) -> Result<Self, ConfigError> {
        Ok(match config {
            AuthConfig::None => Self::None,
            AuthConfig::Basic { username, password } => {
                Self::Fixed { place: Place::Authorization("Basic"), secret: basic(username, password) }
            }
            AuthConfig::Bearer { token } => {
                Self::Fixed { place: Place::Authorization("Bearer"), secret: token.clone() }
            }
            AuthConfig::ApiKey { key, place } => {
                Self::Fixed { place: Place::new(place)?, secret: key.clone() }
            }
            AuthConfig::Oauth2 { .. } | AuthConfig::Login { .. } => {
                Self::Token(Box::new(TokenSource::new(config, transport)?))
            }
        })
    }

    /// Puts what identifies us into `request`. Returns the token's number where it can be renewed;
    /// `stale` is the number of one that the target no longer takes.
    pub(super) async fn identify(
        &self,
        request: &mut Prepared,
        transport: &Transport,
        clock: &dyn Clock,
        timeout: Duration,
        stale: Option<u64>,
    ) -> Result<Option<u64>, PbxError> {
        match self {
            Self::None => Ok(None),
            Self::Fixed { place, secret } => place.put(secret, request).map(|()| None),
            Self::Token(source) => {
                let mut current = source.current.lock().await;
                source.refresh(&mut current, transport, clock, timeout, stale).await?;
                let Some(token) = current.as_ref() else { return Ok(None) };
                source.place.put(&token.secret, request)?;
                Ok(Some(token.serial))
            }
        }
    }

    /// Puts a stand-in where the secret would go.
    pub(super) fn pretend(&self, request: &mut Prepared) -> Result<(), PbxError> {
        let place = match self {
            Self::None => return Ok(()),
            Self::Fixed { place, .. } => place,
            Self::Token(source) => &source.place,
        };
        place.put(&SecretString::from("[redacted]"), request)
    }
}

fn basic(username: &str, password: &SecretString) -> SecretString {
    STANDARD.encode(format!("{username}:{}", password.expose_secret())).into()
}

fn secret_header(text: &str) -> Result<HeaderValue, PbxError> {
    let reason = "the key or token holds a character that a header cannot carry".to_owned();
    let mut value = HeaderValue::from_str(text).map_err(|_| PbxError::Denied { reason })?;
    value.set_sensitive(true);
    Ok(value)
}

impl Place {
    fn new(config: &TokenPlace) -> Result<Self, ConfigError> {
        match config {
            TokenPlace::Header(name) if name.eq_ignore_ascii_case("authorization") => {
                Ok(Self::Header(AUTHORIZATION))
            }
            TokenPlace::Header(name) => Ok(Self::Header(header_name("auth.place.header", name)?)),
            TokenPlace::Query(name) => Ok(Self::Query(name.clone())),
        }
    }

    fn put(&self, secret: &SecretString, request: &mut Prepared) -> Result<(), PbxError> {
        let secret = secret.expose_secret();
        match self {
            Self::Authorization(scheme) => {
                request.headers.insert(AUTHORIZATION, secret_header(&format!("{scheme} {secret}"))?);
            }
            Self::Header(name) => {
                request.headers.insert(name, secret_header(secret)?);
            }
            Self::Query(name) => {
                request.url.query_pairs_mut().append_pair(name, secret);
            }
        }
        Ok(())
    }
}

impl TokenSource {
    fn new(config: &AuthConfig, transport: &Transport) -> Result<Self, ConfigError> {
        match config {
            AuthConfig::Oauth2 { token_url, client_id, client_secret, scope, audience, basic: as_basic } => {
                let mut form = url::form_urlencoded::Serializer::new(String::new());
                form.append_pair("grant_type", "client_credentials");
                let mut headers = HeaderMap::new();
                if *as_basic {
                    // RFC 6749, 2.3.1: each is form-encoded before they are joined.
                    let encode = |text: &str| {
                        url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>()
                    };
                    let secret = SecretString::from(encode(client_secret.expose_secret()));
                    headers.insert(AUTHORIZATION, basic_header("auth", &encode(client_id), &secret)?);
                } else {
                    form.append_pair("client_id", client_id);
                    form.append_pair("client_secret", client_secret.expose_secret());
                }
                for (name, value) in [("scope", scope), ("audience", audience)] {
                    if let Some(value) = value {
                        form.append_pair(name, value);
                    }
                }
                headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
                Ok(Self {
                    place: Place::Authorization("Bearer"),
                    url: transport.url("auth.token_url", token_url)?,
                    headers,
                    body: form.finish().into(),
                    token: "/access_token".to_owned(),
                    expires_in: Some("/expires_in".to_owned()),
                    life_secs: UNTOLD_LIFE_SECS,
                    current: Mutex::new(None),
                })
            }
            AuthConfig::Login { .. } => Self::login(config, transport),
            _ => Err(ConfigError::new("auth.kind", "gives no tokens")),
        }
    }

    fn login(config: &AuthConfig, transport: &Transport) -> Result<Self, ConfigError> {
        let AuthConfig::Login {
            login_url,
            username,
            password,
            send,
            headers: extra,
            token,
            expires_in,
            life_secs,
            place,
        } = config
        else {
            return Err(ConfigError::new("auth.kind", "is not `login`"));
        };
        let mut headers = HeaderMap::new();
        for (name, value) in extra {
            let key = format!("auth.headers.{name}");
            let value = HeaderValue::from_str(value);
            let value =
                value.map_err(|_| ConfigError::new(&key, "holds a character that a header cannot carry"))?;
            headers.insert(header_name(&key, name)?, value);
        }
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let body = match send {
            LoginForm::Json => {
                serde_json::json!({ "username": username, "password": password.expose_secret() }).to_string()
            }
            LoginForm::Basic => {
                headers.insert(AUTHORIZATION, basic_header("auth", username, password)?);
                "{}".to_owned()
            }
        };
        check_pointer("auth.token", token)?;
        if let Some(pointer) = expires_in {
            check_pointer("auth.expires_in", pointer)?;
        }
        Ok(Self {
            place: Place::new(place)?,
            url: transport.url("auth.login_url", login_url)?,
            headers,
            body: body.into(),
            token: token.clone(),
            expires_in: expires_in.clone(),
            life_secs: i64::try_from(*life_secs).unwrap_or(i64::MAX),
            current: Mutex::new(None),
        })
    }

    /// Leaves a token in `current` that serves, or says why there is none.
    async fn refresh(
        &self,
        current: &mut Option<Token>,
        transport: &Transport,
        clock: &dyn Clock,
        timeout: Duration,
        stale: Option<u64>,
    ) -> Result<(), PbxError> {
        let now = clock.now();
        let serial = current.as_ref().map_or(0, |token| token.serial);
        let usable =
            current.as_ref().is_some_and(|token| Some(token.serial) != stale && now < token.expires_at);
        if usable && current.as_ref().is_some_and(|token| now < token.renew_at) {
            return Ok(());
        }
        match self.fetch(transport, now, timeout, serial + 1).await {
            Ok(token) => *current = Some(token),
            Err(PbxError::Unreachable(_) | PbxError::Throttled { .. }) if usable => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    async fn fetch(
        &self,
        transport: &Transport,
        now: Timestamp,
        timeout: Duration,
        serial: u64,
    ) -> Result<Token, PbxError> {
        let request = Prepared {
            method: Method::POST,
            url: self.url.clone(),
            headers: self.headers.clone(),
            body: self.body.expose_secret().to_owned().into(),
        };
        let answer = transport.send(request, timeout, now).await?;
        let json: Json = serde_json::from_slice(&good(answer)?).unwrap_or_default();
        let secret = json.pointer(&self.token).and_then(Json::as_str).filter(|token| !token.is_empty());
        let Some(secret) = secret else {
            return Err(PbxError::Denied { reason: format!("the log-in gave no token at `{}`", self.token) });
        };
        let life = self.expires_in.as_ref().and_then(|pointer| seconds(json.pointer(pointer)?));
        let life = life.unwrap_or(self.life_secs).clamp(1, 7 * 86_400);
        let after = |secs| now.checked_add(SignedDuration::from_secs(secs)).unwrap_or(Timestamp::MAX);
        Ok(Token {
            serial,
            secret: secret.into(),
            renew_at: after(life - RENEW_EARLY_SECS.min(life / 5)),
            expires_at: after(life),
        })
    }
}

fn basic_header(key: &str, username: &str, password: &SecretString) -> Result<HeaderValue, ConfigError> {
    let text = format!("Basic {}", basic(username, password).expose_secret());
    secret_header(&text).map_err(|error| ConfigError::new(key, error))
}

fn seconds(json: &Json) -> Option<i64> {
    json.as_i64().or_else(|| json.as_str()?.parse().ok())
}

/// The body of a token endpoint's good answer.
fn good(answer: Answer) -> Result<Vec<u8>, PbxError> {
    let status = answer.status.as_u16();
    match status {
        200..=299 => answer.body,
        429 => Err(PbxError::Throttled { retry_after: answer.retry_after }),
        408 | 425 | 500.. => Err(PbxError::Unreachable(Silence::Status(status).into())),
        _ => {
            // RFC 6749, 5.2: `error` is one of a few words, never a secret.
            let body: Json = serde_json::from_slice(&answer.body.unwrap_or_default()).unwrap_or_default();
            let word = body.pointer("/error").and_then(Json::as_str);
            let word = word.map(|word| format!(" (`{}`)", printable(word))).unwrap_or_default();
            Err(PbxError::Denied {
                reason: format!("the token endpoint answered with status {status}{word}"),
            })
        }
    }
}
