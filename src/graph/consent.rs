//! A company's consent: the address its administrator is sent to, what comes back, and the state that ties the
//! two together.
//!
//! Anybody can call the address that consent comes back to, with any tenant: the `tenant` in it proves nothing.
//! What ties it to a company is the state, which only we can make, which ends after half an hour, and which the
//! store lets through once (not done here). And a token has to be had for that tenant before it is believed.
//! Facts: <https://learn.microsoft.com/entra/identity-platform/v2-admin-consent>.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use jiff::{SignedDuration, Timestamp};
use secrecy::{ExposeSecret, SecretSlice};
use sha2::Sha256;
use url::{Url, form_urlencoded};

use super::cloud::Cloud;
use crate::model::{CompanyId, TenantId};

/// How long an administrator has, from the link to the last click.
pub const STATE_LIFE: SignedDuration = SignedDuration::from_mins(30);

/// What is signed begins with this, so that no other signature of the same key can be passed off as a state.
const PURPOSE: &[u8] = b"narvaro consent state 1\0";

/// Longest state that is looked at.
const LONGEST_STATE: usize = 512;

/// The address where an administrator consents for a company.
///
/// Without a tenant the administrator's own is meant (`organizations`). The redirect address must be one that is
/// registered with the application, to the letter.
pub fn consent_url(
    cloud: &Cloud,
    client_id: &str,
    tenant: Option<&TenantId>,
    redirect_uri: &str,
    state: &str,
) -> Url {
    let tenant = tenant.map_or("organizations", TenantId::as_str);
    let mut url = cloud.login_url(&format!("/{tenant}/v2.0/adminconsent"));
    url.query_pairs_mut()
        .append_pair("client_id", client_id)
        // Application permissions are asked for as a whole; Graph takes no other scope here.
        .append_pair("scope", &cloud.scope())
        .append_pair("redirect_uri", redirect_uri)
        .append_pair("state", state);
    url
}

/// What came back from the consent page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConsentAnswer {
    /// Somebody says that this tenant has consented; verify the state, then try a login.
    Granted {
        /// The tenant that is named.
        tenant: TenantId,
        /// Our state, not verified yet.
        state: String,
    },
    /// The administrator declined, or could not.
    Declined {
        /// The page's code, as `consent_required`.
        error: String,
        /// Our state, not verified yet, where it was given back.
        state: Option<String>,
    },
}

/// A call to the consent address that is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CallbackError {
    /// A parameter is not there.
    #[error("the call from the consent page has no `{0}`")]
    Missing(&'static str),
    /// A parameter is there twice: two readers could take two different ones.
    #[error("the call from the consent page has `{0}` twice")]
    Twice(&'static str),
    /// The tenant is not a GUID.
    #[error("the call from the consent page names no tenant")]
    Tenant,
}

/// Reads the query of a call from the consent page.
///
/// # Errors
/// [`CallbackError`] for a call that the consent page would not make.
pub fn read_callback(query: &str) -> Result<ConsentAnswer, CallbackError> {
    let one = |wanted: &'static str| {
        let mut values = form_urlencoded::parse(query.as_bytes())
            .filter(|(name, _)| name == wanted)
            .map(|(_, value)| value);
        match (values.next(), values.next()) {
            (_, Some(_)) => Err(CallbackError::Twice(wanted)),
            (value, None) => Ok(value.map(String::from).filter(|value| !value.is_empty())),
        }
    };
    let state = one("state")?;
    // First of all: a refusal of the newer page says `admin_consent=True` as well.
    if let Some(error) = one("error")? {
        let error = error.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '_').take(60).collect();
        return Ok(ConsentAnswer::Declined { error, state });
    }
    let granted = one("admin_consent")?.is_some_and(|value| value.eq_ignore_ascii_case("true"));
    if !granted {
        return Err(CallbackError::Missing("admin_consent"));
    }
    let tenant = one("tenant")?.ok_or(CallbackError::Missing("tenant"))?.to_ascii_lowercase();
    let tenant = tenant.parse().map_err(|_quotes_the_call| CallbackError::Tenant)?;
    Ok(ConsentAnswer::Granted { tenant, state: state.ok_or(CallbackError::Missing("state"))? })
}

/// A key that states are signed with.
#[derive(Debug, Clone)]
pub struct StateKey(SecretSlice<u8>);

/// A key that is too short to sign with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a key for consent states has at least 32 bytes")]
pub struct WeakKey;

impl StateKey {
    /// A key of 32 random bytes or more.
    ///
    /// # Errors
    /// [`WeakKey`] for fewer.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Result<Self, WeakKey> {
        let bytes = bytes.into();
        if bytes.len() < 32 { Err(WeakKey) } else { Ok(Self(bytes.into())) }
    }

    #[expect(clippy::expect_used, reason = "HMAC takes keys of any length")]
    fn mac(&self, content: &[u8]) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(self.0.expose_secret()).expect("any length will do");
        mac.update(PURPOSE);
        mac.update(content);
        mac
    }
}

/// What a state says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsentTicket {
    /// The company that is to be connected.
    pub company: CompanyId,
    /// Told apart from all other tickets by this; the store lets it through once.
    pub nonce: String,
    /// When it ends.
    pub expires: Timestamp,
}

/// A state that ties nothing to anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ConsentError {
    /// Not made by us, or changed since.
    #[error("the consent link was not made by us")]
    Forged,
    /// Too late.
    #[error("the consent link has ended")]
    Expired,
}

/// Makes a state. The nonce must be new and not guessable, see [`fresh_nonce`]; `expires` is usually
/// [`STATE_LIFE`] from now, to the second.
pub fn issue(key: &StateKey, company: &CompanyId, nonce: &str, expires: Timestamp) -> String {
    // The nonce comes last, so that whatever it is made of cannot be taken for another field.
    let content = format!("{company}|{}|{nonce}", expires.as_second());
    let signature = key.mac(content.as_bytes()).finalize().into_bytes();
    format!("{}.{}", BASE64_URL_SAFE_NO_PAD.encode(content), BASE64_URL_SAFE_NO_PAD.encode(signature))
}

/// Looks at a state that came back; any of the keys will do, so that a key can be changed.
///
/// # Errors
/// [`ConsentError::Forged`] before [`ConsentError::Expired`]: of a forged one nothing is told.
pub fn verify(keys: &[StateKey], text: &str, now: Timestamp) -> Result<ConsentTicket, ConsentError> {
    let ticket = opened(keys, text).ok_or(ConsentError::Forged)?;
    if now >= ticket.expires { Err(ConsentError::Expired) } else { Ok(ticket) }
}

fn opened(keys: &[StateKey], text: &str) -> Option<ConsentTicket> {
    if text.len() > LONGEST_STATE {
        return None;
    }
    let (content, signature) = text.split_once('.')?;
    let content = BASE64_URL_SAFE_NO_PAD.decode(content).ok()?;
    let signature = BASE64_URL_SAFE_NO_PAD.decode(signature).ok()?;
    // `verify_slice` takes the same time whatever the difference.
    if !keys.iter().any(|key| key.mac(&content).verify_slice(&signature).is_ok()) {
        return None;
    }
    let content = String::from_utf8(content).ok()?;
    let mut fields = content.splitn(3, '|');
    Some(ConsentTicket {
        company: fields.next()?.parse().ok()?,
        expires: Timestamp::from_second(fields.next()?.parse().ok()?).ok()?,
        nonce: fields.next()?.to_owned(),
    })
}

/// A nonce that nobody can guess.
pub fn fresh_nonce() -> String {
    azure_core::Uuid::new_v4().to_string()
}

#[cfg(test)]
mod tests {
    use super::{super::testing::fixture, *};

    const TENANT: &str = "3f6c1a52-0b7e-4c1d-9a55-1c2f7e9b4d10";

    fn key(byte: u8) -> StateKey {
        StateKey::new([byte; 32]).unwrap()
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn ticket() -> (CompanyId, Timestamp) {
        ("acme".parse().unwrap(), at("2026-11-22T20:30:00Z"))
    }

    #[test]
    fn the_consent_pages_four_answers_are_understood() {
        let cases = fixture("admin-consent-callbacks.json");
        let answers: Vec<_> = cases["cases"]
            .as_array()
            .unwrap()
            .iter()
            .map(|case| Url::parse(case["url"].as_str().unwrap()).unwrap())
            .map(|url| read_callback(url.query().unwrap()).unwrap())
            .collect();
        let state = "4f1c0a9e7b".to_owned();
        let granted = ConsentAnswer::Granted { tenant: TENANT.parse().unwrap(), state: state.clone() };
        let declined =
            |error: &str| ConsentAnswer::Declined { error: error.into(), state: Some(state.clone()) };
        let expected =
            [granted.clone(), granted, declined("permission_denied"), declined("consent_required")];
        assert_eq!(answers, expected);
    }

    #[test]
    fn a_call_that_the_consent_page_would_not_make_is_refused() {
        let read = |query: &str| read_callback(query).unwrap_err();
        assert_eq!(read(""), CallbackError::Missing("admin_consent"));
        assert_eq!(read("admin_consent=False&tenant=a&state=b"), CallbackError::Missing("admin_consent"));
        assert_eq!(read("admin_consent=True&state=b"), CallbackError::Missing("tenant"));
        assert_eq!(read("admin_consent=True&tenant=common&state=b"), CallbackError::Tenant);
        assert_eq!(read(&format!("admin_consent=True&tenant={TENANT}")), CallbackError::Missing("state"));
        assert_eq!(
            read(&format!("admin_consent=True&tenant={TENANT}&tenant={TENANT}&state=b")),
            CallbackError::Twice("tenant")
        );
        assert_eq!(read("error=a&error=b"), CallbackError::Twice("error"));
    }

    #[test]
    fn the_administrator_is_sent_to_the_clouds_own_page() {
        let url = consent_url(&Cloud::gcc_high(), "app id", None, "https://p.example/cb?x=1", "s&t");
        assert_eq!(url.path(), "/organizations/v2.0/adminconsent");
        assert_eq!(url.host_str(), Some("login.microsoftonline.us"));
        let pairs: Vec<_> = url.query_pairs().into_owned().collect();
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(
            pairs,
            [
                pair("client_id", "app id"),
                pair("scope", "https://graph.microsoft.us/.default"),
                pair("redirect_uri", "https://p.example/cb?x=1"),
                pair("state", "s&t"),
            ]
        );
        let tenant = TENANT.parse().unwrap();
        let url = consent_url(&Cloud::global(), "app", Some(&tenant), "https://p.example/", "s");
        assert_eq!(url.path(), format!("/{TENANT}/v2.0/adminconsent"));
    }

    #[test]
    fn a_state_comes_back_as_it_was_made_and_an_older_key_still_opens_it() {
        let (company, expires) = ticket();
        let state = issue(&key(1), &company, "n|1", expires);
        let opened = verify(&[key(2), key(1)], &state, at("2026-11-22T20:29:59Z"));
        assert_eq!(opened, Ok(ConsentTicket { company, nonce: "n|1".to_owned(), expires }));
    }

    #[test]
    fn a_state_ends_at_its_end() {
        let (company, expires) = ticket();
        let state = issue(&key(1), &company, "n", expires);
        assert_eq!(verify(&[key(1)], &state, expires), Err(ConsentError::Expired));
    }

    #[test]
    fn a_state_that_was_changed_anywhere_is_forged() {
        let (company, expires) = ticket();
        let state = issue(&key(1), &company, "nonce", expires);
        let now = at("2026-11-22T20:00:00Z");
        assert_eq!(verify(&[key(2)], &state, now), Err(ConsentError::Forged));
        assert_eq!(verify(&[], &state, now), Err(ConsentError::Forged));
        for place in 0..state.len() {
            let mut bytes = state.clone().into_bytes();
            bytes[place] = if bytes[place] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(bytes).unwrap();
            assert_eq!(verify(&[key(1)], &changed, now), Err(ConsentError::Forged), "{place}");
        }
        for odd in ["", ".", "a.b", &state[..state.len() - 1], &"x".repeat(LONGEST_STATE + 1)] {
            assert_eq!(verify(&[key(1)], odd, now), Err(ConsentError::Forged));
        }
    }

    #[test]
    fn a_key_is_long_enough_and_does_not_print() {
        assert_eq!(StateKey::new([1; 31]).unwrap_err(), WeakKey);
        assert!(!format!("{:?}", key(65)).contains("65"));
    }

    #[test]
    fn no_two_nonces_are_alike() {
        assert_ne!(fresh_nonce(), fresh_nonce());
    }
}
