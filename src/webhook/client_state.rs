//! `clientState`: the secret that each notification of a subscription brings back.
//!
//! It is made, not stored: `1.KEY.COMPANY.ROUTE.MAC`, where `ROUTE` is mailbox, resource and generation in
//! base64url and `MAC` the first 128 bits of HMAC-SHA-256 over company, tenant and route. So the receiver
//! routes and checks a notification without a look-up, and a notification that claims another tenant than
//! its subscription's does not verify. Graph keeps at most 128 characters; the longest made here has 116.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use secrecy::{ExposeSecret, SecretSlice};
use sha2::Sha256;

use crate::model::{CompanyId, MailboxId, TenantId};

/// Longest `clientState` that Graph keeps, in characters.
pub const MOST_CHARS: usize = 128;

const MAC_BYTES: usize = 16;
const ROUTE_BYTES: usize = 13;
const VERSION: &str = "1";

/// Of what a MAC is made of: company, tenant and route of the longest kind, and what ends each of them, are 120 bytes.
const SIGNED_BYTES: usize = 128;

/// What is watched in the mailbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Resource {
    /// Calendar items.
    Events = 1,
    /// Contacts.
    Contacts = 2,
}

/// What a genuine `clientState` says; the company, which is signed with it, follows from the mailbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// Which mailbox.
    pub mailbox: MailboxId,
    /// What is watched.
    pub resource: Resource,
    /// Counts the subscriptions made for this mailbox and resource.
    pub generation: u32,
}

/// A server key with its short name.
#[derive(Clone)]
pub struct StateKey {
    id: String,
    /// Of what all MACs begin with.
    keyed: Hmac<Sha256>,
}

impl fmt::Debug for StateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StateKey({})", self.id)
    }
}

/// Why a key cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The name has other characters, or is too long.
    #[error("the key name `{0}` must be 1 to 8 letters and digits")]
    Name(String),
    /// Too few bytes to be a secret.
    #[error("the key has {0} bytes, at least 32 are needed")]
    Short(usize),
}

impl StateKey {
    /// A key named `id` (1 to 8 ASCII letters and digits) with a secret of at least 32 bytes.
    ///
    /// # Errors
    /// [`KeyError`] says which of the two is wrong.
    pub fn new(id: &str, secret: &SecretSlice<u8>) -> Result<Self, KeyError> {
        if !(1..=8).contains(&id.len()) || !id.bytes().all(|b| b.is_ascii_alphanumeric()) {
            return Err(KeyError::Name(id.to_owned()));
        }
        let secret = secret.expose_secret();
        if secret.len() < 32 {
            return Err(KeyError::Short(secret.len()));
        }
        let mut keyed = Hmac::new_from_slice(secret).map_err(|_| KeyError::Short(secret.len()))?;
        keyed.update(b"narvaro clientState 1\0");
        Ok(Self { id: id.to_owned(), keyed })
    }

    /// A tenant is signed in lower case, as Graph nearly always writes it.
    fn mac(&self, company: &[u8], tenant: &str, route: &[u8]) -> Hmac<Sha256> {
        let mut signed = Vec::with_capacity(SIGNED_BYTES);
        for part in [company, tenant.as_bytes(), route] {
            signed.extend_from_slice(part);
            // No part of a genuine one contains it: what is signed has three of them, and reads in one way.
            signed.push(0);
        }
        signed[company.len() + 1..][..tenant.len()].make_ascii_lowercase();
        let mut mac = self.keyed.clone();
        mac.update(&signed);
        mac
    }
}

/// The key that signs, and the ones still accepted while keys rotate.
#[derive(Debug, Clone)]
pub struct StateKeys {
    current: StateKey,
    previous: Option<StateKey>,
}

impl StateKeys {
    /// Signs with `current` and accepts `previous` too.
    pub fn new(current: StateKey, previous: Option<StateKey>) -> Self {
        Self { current, previous }
    }

    /// Name of the key that signs.
    pub fn current_name(&self) -> &str {
        &self.current.id
    }

    /// Makes the `clientState` of a subscription to a mailbox of a company.
    pub fn seal(&self, company: &CompanyId, claim: Claim, tenant: &TenantId) -> String {
        let mut route = [0_u8; ROUTE_BYTES];
        route[..8].copy_from_slice(&claim.mailbox.0.to_be_bytes());
        route[8] = claim.resource as u8;
        route[9..].copy_from_slice(&claim.generation.to_be_bytes());
        let route = URL_SAFE_NO_PAD.encode(route);
        let mac = self.current.mac(company.as_str().as_bytes(), tenant.as_str(), route.as_bytes());
        let mac = URL_SAFE_NO_PAD.encode(&mac.finalize().into_bytes()[..MAC_BYTES]);
        format!("{VERSION}.{}.{company}.{route}.{mac}", self.current.id)
    }

    /// What a `clientState` says, if it is one of ours, for `tenant`. The comparison takes the same time for every MAC.
    pub fn open(&self, text: &str, tenant: &str) -> Option<Claim> {
        if text.len() > MOST_CHARS {
            return None;
        }
        let mut parts = text.as_bytes().split(|byte| *byte == b'.');
        let (version, key, company, route, mac) =
            (parts.next()?, parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        if version != VERSION.as_bytes() || parts.next().is_some() {
            return None;
        }
        let key = [Some(&self.current), self.previous.as_ref()]
            .into_iter()
            .flatten()
            .find(|k| k.id.as_bytes() == key)?;
        let mut given = [0_u8; MAC_BYTES];
        (URL_SAFE_NO_PAD.decode_slice(mac, &mut given).ok()? == MAC_BYTES).then_some(())?;
        key.mac(company, tenant, route).verify_truncated_left(&given).ok()?;

        let mut bytes = [0_u8; ROUTE_BYTES];
        (URL_SAFE_NO_PAD.decode_slice(route, &mut bytes).ok()? == ROUTE_BYTES).then_some(())?;
        let (mailbox, rest) = bytes.split_first_chunk::<8>()?;
        let (resource, generation) = rest.split_first_chunk::<1>()?;
        Some(Claim {
            mailbox: MailboxId(u64::from_be_bytes(*mailbox)),
            resource: match resource {
                [1] => Resource::Events,
                [2] => Resource::Contacts,
                _ => return None,
            },
            generation: u32::from_be_bytes(*generation.first_chunk::<4>()?),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TENANT: &str = "3f6c1a52-0b7e-4c1d-9a55-1c2f7e9b4d10";

    fn key(id: &str, byte: u8) -> StateKey {
        StateKey::new(id, &SecretSlice::from(vec![byte; 32])).unwrap()
    }

    fn company() -> CompanyId {
        "acme".parse().unwrap()
    }

    fn claim() -> Claim {
        Claim { mailbox: MailboxId(7), resource: Resource::Events, generation: 3 }
    }

    fn tenant() -> TenantId {
        TENANT.parse().unwrap()
    }

    #[test]
    fn what_was_sealed_opens_to_the_same_claim() {
        let keys = StateKeys::new(key("a", 1), None);
        let text = keys.seal(&company(), claim(), &tenant());
        assert_eq!(keys.open(&text, TENANT), Some(claim()));
        assert_eq!(keys.open(&text, &TENANT.to_uppercase()), Some(claim()));
    }

    #[test]
    fn i7_a_state_opens_for_its_own_tenant_company_and_purpose_only() {
        let keys = StateKeys::new(key("a", 1), None);
        let text = keys.seal(&company(), claim(), &tenant());
        assert_eq!(keys.open(&text, "b81e7c40-55d2-4f0a-8f63-7a9e20c5d6e1"), None);
        assert_eq!(keys.open(&text.replace("acme", "acmf"), TENANT), None);
        assert_eq!(keys.open(&text, ""), None);
        let contacts = keys.seal(&company(), Claim { resource: Resource::Contacts, ..claim() }, &tenant());
        assert_ne!(text, contacts);
        let swapped: Vec<&str> = text.split('.').collect();
        let other: Vec<&str> = contacts.split('.').collect();
        let forged = [swapped[0], swapped[1], swapped[2], other[3], swapped[4]].join(".");
        assert_eq!(keys.open(&forged, TENANT), None);
    }

    #[test]
    fn i7_two_keys_are_accepted_while_they_rotate_and_a_retired_one_is_not() {
        let old = StateKeys::new(key("a", 1), None);
        let text = old.seal(&company(), claim(), &tenant());
        let rotating = StateKeys::new(key("b", 2), Some(key("a", 1)));
        assert_eq!(rotating.open(&text, TENANT), Some(claim()));
        let after = StateKeys::new(key("b", 2), None);
        assert_eq!(after.open(&text, TENANT), None);
        let impostor = StateKeys::new(key("a", 9), None);
        assert_eq!(impostor.open(&text, TENANT), None);
    }

    #[test]
    fn the_longest_state_fits_into_what_graph_keeps() {
        let keys = StateKeys::new(key("abcdefgh", 1), None);
        let claim = Claim { mailbox: MailboxId(u64::MAX), generation: u32::MAX, ..claim() };
        let text = keys.seal(&"x".repeat(63).parse().unwrap(), claim, &tenant());
        assert!(text.len() <= MOST_CHARS, "{} characters", text.len());
        assert_eq!(keys.open(&text, TENANT), Some(claim));
    }

    #[test]
    fn weak_or_oddly_named_keys_are_refused() {
        assert_eq!(StateKey::new("a", &SecretSlice::from(vec![0; 31])).unwrap_err(), KeyError::Short(31));
        for name in ["", "a.b", "123456789", "ö"] {
            let secret = SecretSlice::from(vec![0; 32]);
            assert_eq!(StateKey::new(name, &secret).unwrap_err(), KeyError::Name(name.to_owned()));
        }
    }

    proptest! {
        #[test]
        fn i7_no_single_changed_character_verifies(position in 0_usize..200, byte in 0x20_u8..0x7f) {
            let keys = StateKeys::new(key("a", 1), None);
            let text = keys.seal(&company(), claim(), &tenant());
            let mut bytes = text.clone().into_bytes();
            let position = position % bytes.len();
            prop_assume!(bytes[position] != byte);
            bytes[position] = byte;
            let changed = String::from_utf8(bytes).unwrap();
            // The last character of each base64 part has spare bits; only the canonical form is accepted.
            prop_assert_eq!(keys.open(&changed, TENANT), None);
        }

        #[test]
        fn no_text_at_all_makes_it_panic(text in "\\PC{0,160}", tenant in "\\PC{0,40}") {
            let keys = StateKeys::new(key("a", 1), None);
            prop_assert_eq!(keys.open(&text, &tenant), None);
        }
    }
}
