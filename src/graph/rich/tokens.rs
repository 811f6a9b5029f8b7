//! Validation tokens: that a delivery comes from Microsoft Graph, and is meant for us.
//!
//! Graph adds one token for each tenant that a delivery has notifications of. All of them have to hold, and every
//! tenant needs one: if anything fails, nothing that the delivery brought is trusted. (Its notifications stay hints:
//! for these `clientState` vouches, and what they are about is fetched.)
//! Facts: <https://learn.microsoft.com/graph/change-notifications-with-resource-data#validation-tokens-in-the-change-notification>.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::Deserialize;
use url::Url;

use super::signers::Signers;
use crate::webhook::sealed::Delivered;

/// The application that publishes change notifications: "Microsoft Graph Change Tracking", the same in all clouds.
const PUBLISHER: &str = "0bf30f3b-4a52-48df-9a82-234910c4a086";

/// How far clocks may differ.
const SKEW: SignedDuration = SignedDuration::from_mins(5);

/// Why a delivery is not trusted, for our counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Untrusted(pub(super) &'static str);

/// A token does not hold, or a tenant has none.
const BAD_TOKEN: Untrusted = Untrusted("bad_token");

/// Nobody vouches at all: the company's side is not set up for it.
const NO_TOKEN: Untrusted = Untrusted("no_token");

/// A key is not known, or cannot be had now.
const UNKNOWN_SIGNER: Untrusted = Untrusted("unknown_signer");

/// <https://learn.microsoft.com/entra/identity-platform/access-token-claims-reference>
#[derive(Deserialize)]
struct Claims {
    aud: String,
    iss: String,
    tid: String,
    ver: String,
    exp: i64,
    nbf: i64,
    appid: Option<String>,
    azp: Option<String>,
}

/// Whom tokens must be made for, and by whom.
pub(super) struct Audience {
    pub(super) client_id: String,
    pub(super) authority: Url,
}

impl Audience {
    /// Whether all of a delivery is vouched for.
    ///
    /// # Errors
    /// [`Untrusted`] says for our counters why not.
    pub(super) async fn trust(
        &self,
        delivery: &Delivered,
        signers: &Signers,
        now: Timestamp,
    ) -> Result<(), Untrusted> {
        if delivery.tokens.is_empty() {
            return Err(NO_TOKEN);
        }
        let mut vouched = BTreeSet::new();
        for token in &delivery.tokens {
            let header = jsonwebtoken::decode_header(token).map_err(|_| BAD_TOKEN)?;
            let name = header.kid.ok_or(BAD_TOKEN)?;
            let key = signers.key(&name).await.ok_or(UNKNOWN_SIGNER)?;
            vouched.insert(self.tenant_of(token, &key, now).ok_or(BAD_TOKEN)?);
        }
        if delivery.tenants.is_subset(&vouched) { Ok(()) } else { Err(BAD_TOKEN) }
    }

    /// The tenant that a token vouches for, if it holds.
    fn tenant_of(&self, token: &str, key: &DecodingKey, now: Timestamp) -> Option<String> {
        // RS256 and nothing else, whatever the token says. Times and audience are compared here, with our own clock.
        let mut validation = Validation::new(Algorithm::RS256);
        validation.validate_exp = false;
        validation.validate_nbf = false;
        validation.validate_aud = false;
        validation.required_spec_claims.clear();
        let claims = jsonwebtoken::decode::<Claims>(token, key, &validation).ok()?.claims;
        let (at, skew) = (now.as_second(), SKEW.as_secs());
        let in_time = claims.nbf.saturating_sub(skew) <= at && at < claims.exp.saturating_add(skew);
        let for_us = claims.aud.eq_ignore_ascii_case(&self.client_id);
        // Each version has its issuer and its claim for the publisher; the other's does not stand in for it.
        let (issuer, publisher) = match claims.ver.as_str() {
            "1.0" => (format!("https://sts.windows.net/{}/", claims.tid), claims.appid),
            "2.0" => {
                let authority = self.authority.as_str().trim_end_matches('/');
                (format!("{authority}/{}/v2.0", claims.tid), claims.azp)
            }
            _ => return None,
        };
        let by_graph = claims.iss == issuer && publisher.as_deref() == Some(PUBLISHER);
        (in_time && for_us && by_graph).then(|| claims.tid.to_ascii_lowercase())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::{super::super::testing::fixture, *};

    fn audience(tokens: &Value) -> Audience {
        Audience {
            client_id: tokens["expectedAudience"].as_str().unwrap().to_owned(),
            authority: Url::parse("https://login.microsoftonline.com").unwrap(),
        }
    }

    fn key(tokens: &Value) -> DecodingKey {
        let key = &tokens["jwks"]["keys"][0];
        DecodingKey::from_rsa_components(key["n"].as_str().unwrap(), key["e"].as_str().unwrap()).unwrap()
    }

    /// Within the life of the recorded tokens.
    fn now() -> Timestamp {
        "2026-11-23T08:00:00Z".parse().unwrap()
    }

    fn jwt(tokens: &Value, name: &str) -> String {
        let cases = tokens["cases"].as_array().unwrap();
        cases.iter().find(|case| case["name"] == name).unwrap()["jwt"].as_str().unwrap().to_owned()
    }

    #[test]
    fn b4_of_the_recorded_tokens_the_good_ones_hold_and_no_other() {
        let tokens = fixture("validation-tokens.json");
        assert_eq!(tokens["expectedPublisher"], PUBLISHER);
        let cases = tokens["cases"].as_array().unwrap();
        assert_eq!(cases.len(), 7);
        for case in cases {
            let tenant = audience(&tokens).tenant_of(case["jwt"].as_str().unwrap(), &key(&tokens), now());
            let expected = case["accept"].as_bool().unwrap().then(|| case["claims"]["tid"].as_str().unwrap());
            assert_eq!(tenant.as_deref(), expected, "{}", case["name"]);
        }
    }

    #[test]
    fn b4_a_token_holds_in_its_time_and_a_little_around_it() {
        let tokens = fixture("validation-tokens.json");
        let token = jwt(&tokens, "v2 good");
        let holds = |second: i64| {
            let at = Timestamp::from_second(second).unwrap();
            audience(&tokens).tenant_of(&token, &key(&tokens), at).is_some()
        };
        let (nbf, exp) = (1_795_300_000, 2_110_000_000);
        assert!(!holds(nbf - 301) && holds(nbf - 300) && holds(exp + 299) && !holds(exp + 300));
    }

    #[test]
    fn b4_a_signature_that_was_touched_or_another_algorithm_does_not_hold() {
        let tokens = fixture("validation-tokens.json");
        let token = jwt(&tokens, "v2 good");
        let check = |token: &str| audience(&tokens).tenant_of(token, &key(&tokens), now());
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let (header, claims) = signed.split_once('.').unwrap();
        let first = if signature.starts_with('A') { "B" } else { "A" };
        assert_eq!(check(&format!("{signed}.{first}{}", &signature[1..])), None);
        assert_eq!(check(&format!("{signed}.")), None);
        // {"alg":"none"}
        assert_eq!(check(&format!("eyJhbGciOiJub25lIn0.{claims}.")), None);
        let other = jwt(&tokens, "v1 good");
        let foreign = other.split('.').nth(1).unwrap();
        assert_eq!(check(&format!("{header}.{foreign}.{signature}")), None);
        assert_eq!(check(""), None);
    }

    #[test]
    fn b4_an_issuer_of_another_login_service_does_not_hold() {
        let tokens = fixture("validation-tokens.json");
        let elsewhere = Audience {
            authority: Url::parse("https://login.microsoftonline.us").unwrap(),
            ..audience(&tokens)
        };
        assert_eq!(elsewhere.tenant_of(&jwt(&tokens, "v2 good"), &key(&tokens), now()), None);
    }
}
