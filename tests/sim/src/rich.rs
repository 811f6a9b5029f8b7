//! Resource data in notifications: what is asked for is checked to the letter, what is sent is really encrypted with
//! the given certificate, and really vouched for by tokens of the login stand-in; with knobs that tamper with each part.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, OnceLock},
};

use aws_lc_rs::{
    cipher::{AES_256, EncryptionContext, PaddedBlockEncryptingKey, UnboundCipherKey},
    error::Unspecified,
    hmac,
    iv::FixedLength,
    rand::{self, SystemRandom},
    rsa::{KeyPair, KeySize, OAEP_SHA1_MGF1SHA1, OaepPublicEncryptingKey, PublicEncryptingKey},
    signature::{KeyPair as _, RSA_PKCS1_SHA256},
};
use base64::{
    Engine,
    prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD},
};
use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::{
    events,
    http::{Reply, Request},
    journal::Record,
    lock,
    world::World,
};

/// Longest life of a subscription with resource data.
pub(crate) const MAX_MINUTES: i64 = 1_440;

/// The application that publishes change notifications.
const PUBLISHER: &str = "0bf30f3b-4a52-48df-9a82-234910c4a086";

/// Somebody else, wherever somebody else is needed.
const STRANGER: &str = "11111111-2222-3333-4444-555555555555";

/// The one extended property that is simulated: the entry id of the folder that the event lies in.
const FOLDER: &str = "singleValueExtendedProperties($filter=id eq 'Binary 0x0E09')";

const KEY_NAME: &str = "sim-signing-key";

/// Most deliveries that can be sent again.
const KEPT: usize = 16;

/// Which part of a delivery is tampered with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tamper {
    /// The encrypted key of each item.
    Key,
    /// The encrypted data of each item.
    Data,
    /// The MAC of each item.
    Signature,
    /// The signature of each token.
    TokenSignature,
    /// The token is for another application.
    Audience,
    /// The token's issuer is another tenant's.
    Issuer,
    /// The token has expired.
    Expired,
    /// The token is another application's.
    Publisher,
    /// The token vouches for another tenant.
    Tenant,
    /// The token names a key that the login service does not have.
    UnknownKey,
}

/// The form of tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum TokenVersion {
    /// Issued by `sts.windows.net`, publisher in `appid`.
    #[serde(rename = "1.0")]
    V1,
    /// Issued by the login service, publisher in `azp`.
    #[default]
    #[serde(rename = "2.0")]
    V2,
}

/// Knobs of resource data.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RichKnobs {
    /// As where the tenant is not set up for it: `validationTokens` is null, and nothing is encrypted.
    pub null_tokens: bool,
    /// What is tampered with.
    pub tamper: Option<Tamper>,
    /// The form of tokens.
    pub token_version: TokenVersion,
}

/// What there is of resource data in the simulator.
#[derive(Default)]
pub(crate) struct RichState {
    pub(crate) knobs: Mutex<RichKnobs>,
    signing: OnceLock<KeyPair>,
    sent: Mutex<Vec<(String, Value)>>,
}

/// What a subscription has sent along.
#[derive(Debug, Clone)]
pub(crate) struct ResourceData {
    pub(crate) select: Vec<String>,
    /// Whether the folder of the event, too.
    pub(crate) folder: bool,
    pub(crate) certificate: Certificate,
}

/// A certificate to encrypt for.
#[derive(Debug, Clone)]
pub(crate) struct Certificate {
    pub(crate) id: String,
    pub(crate) text: String,
    thumbprint: String,
    public: Vec<u8>,
}

impl Certificate {
    /// The certificate that a request body gives; `None` where it gives none at all.
    pub(crate) fn of(body: &Map<String, Value>) -> Result<Option<Self>, String> {
        let text = |name: &str| body.get(name).and_then(Value::as_str);
        let (text, id) = match (text("encryptionCertificate"), text("encryptionCertificateId")) {
            (None, None) => return Ok(None),
            (Some(text), Some(id)) => (text, id),
            _ => return Err("encryptionCertificate and encryptionCertificateId go together.".to_owned()),
        };
        if id.is_empty() || id.chars().count() > 128 {
            return Err("encryptionCertificateId must have 1 to 128 characters.".to_owned());
        }
        let invalid = |_| "encryptionCertificate is not a base64 X.509 certificate.".to_owned();
        let der = CertificateDer::from(BASE64_STANDARD.decode(text).map_err(|_| invalid(()))?);
        let parsed = webpki::EndEntityCert::try_from(&der).map_err(|_| invalid(()))?;
        let public = parsed.subject_public_key_info().to_vec();
        let key = PublicEncryptingKey::from_der(&public).map_err(|_| invalid(()))?;
        if key.key_size_bits() < 2_048 {
            return Err("encryptionCertificate must have an RSA key of 2,048 bits or more.".to_owned());
        }
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY, &der);
        let thumbprint = digest.as_ref().iter().map(|byte| format!("{byte:02X}")).collect();
        Ok(Some(Self { id: id.to_owned(), text: text.to_owned(), thumbprint, public }))
    }

    fn encrypt(&self, resource: &Value) -> Result<Value, Unspecified> {
        let mut key = [0_u8; 32];
        rand::fill(&mut key)?;
        let mut data = resource.to_string().into_bytes();
        let iv = *key.first_chunk::<16>().ok_or(Unspecified)?;
        PaddedBlockEncryptingKey::cbc_pkcs7(UnboundCipherKey::new(&AES_256, &key)?)?
            .less_safe_encrypt(&mut data, EncryptionContext::Iv128(FixedLength::from(iv)))?;
        let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key), &data);
        let public = PublicEncryptingKey::from_der(&self.public).map_err(|_| Unspecified)?;
        let public = OaepPublicEncryptingKey::new(public)?;
        let mut space = vec![0; public.ciphertext_size()];
        let sealed = public.encrypt(&OAEP_SHA1_MGF1SHA1, &key, &mut space, None)?;
        Ok(json!({
            "data": BASE64_STANDARD.encode(data),
            "dataKey": BASE64_STANDARD.encode(sealed),
            "dataSignature": BASE64_STANDARD.encode(signature),
            "encryptionCertificateId": self.id,
            "encryptionCertificateThumbprint": self.thumbprint,
        }))
    }
}

/// What a request for a subscription wants sent along; `query` is that of its resource.
pub(crate) fn asked_for(body: &Map<String, Value>, query: &str) -> Result<Option<ResourceData>, String> {
    let wanted = body.get("includeResourceData").and_then(Value::as_bool) == Some(true);
    match (wanted, Certificate::of(body)?) {
        (true, Some(certificate)) => {
            let (query, folder) = match query.split_once("&$expand=") {
                None => (query, false),
                Some((query, FOLDER)) => (query, true),
                Some(_) => return Err("Only extended properties can be expanded.".to_owned()),
            };
            Ok(Some(ResourceData { select: select(query)?, folder, certificate }))
        }
        (true, None) => Err("encryptionCertificate is required with includeResourceData.".to_owned()),
        (false, Some(_)) => Err("encryptionCertificate is for includeResourceData only.".to_owned()),
        (false, None) if query.is_empty() => Ok(None),
        (false, None) => Err(format!("query options are not supported here: {query}")),
    }
}

fn select(query: &str) -> Result<Vec<String>, String> {
    let names = query.strip_prefix("$select=").filter(|names| !names.is_empty() && !names.contains('&'));
    let names = names.ok_or("The resource must have $select, and nothing else, with includeResourceData.")?;
    let names: Vec<String> = names.split(',').map(str::to_owned).collect();
    match names.iter().find(|name| !events::is_property(name) || *name == "body") {
        Some(unknown) => Err(format!("The property '{unknown}' cannot be selected.")),
        None => Ok(names),
    }
}

/// The encrypted content of a notification.
pub(crate) fn content(world: &World, data: &ResourceData, resource: Value) -> Option<Value> {
    if lock(&world.rich.knobs).null_tokens {
        return None;
    }
    match data.certificate.encrypt(&resource) {
        Ok(content) => Some(content),
        Err(_) => {
            world.journal.violation("certificate-unusable", data.certificate.id.clone());
            None
        }
    }
}

/// The body of a delivery: its items, tampered with if so wished, and who vouches for them.
pub(crate) fn delivery(world: &World, url: &str, items: Vec<(&str, Value)>) -> Value {
    let knobs = lock(&world.rich.knobs).clone();
    let owners: BTreeSet<(String, String)> = items
        .iter()
        .filter(|(_, item)| item.get("encryptedContent").is_some())
        .map(|(app, item)| ((*app).to_owned(), item["tenantId"].as_str().unwrap_or_default().to_owned()))
        .collect();
    let mut items: Vec<Value> = items.into_iter().map(|(_, item)| item).collect();
    if owners.is_empty() || knobs.null_tokens {
        return json!({ "value": items, "validationTokens": null });
    }
    let part = match knobs.tamper {
        Some(Tamper::Key) => "dataKey",
        Some(Tamper::Data) => "data",
        Some(Tamper::Signature) => "dataSignature",
        _ => "",
    };
    for item in &mut items {
        if let Some(text) = item.pointer_mut(&format!("/encryptedContent/{part}")) {
            *text = turned(text.as_str().unwrap_or_default());
        }
    }
    let tokens: Vec<String> = owners.iter().map(|(app, tenant)| token(world, &knobs, app, tenant)).collect();
    let body = json!({ "value": items, "validationTokens": tokens });
    let mut sent = lock(&world.rich.sent);
    if sent.len() == KEPT {
        sent.remove(0);
    }
    sent.push((url.to_owned(), body.clone()));
    body
}

/// With one bit turned in the middle.
fn turned(base64: &str) -> Value {
    let mut bytes = BASE64_STANDARD.decode(base64).unwrap_or_default();
    let middle = bytes.len() / 2;
    if let Some(byte) = bytes.get_mut(middle) {
        *byte ^= 1;
    }
    json!(BASE64_STANDARD.encode(bytes))
}

fn token(world: &World, knobs: &RichKnobs, app: &str, tenant: &str) -> String {
    let tampered = |tamper: Tamper| knobs.tamper == Some(tamper);
    let or = |tamper: Tamper, right: &str| {
        if tampered(tamper) { STRANGER.to_owned() } else { right.to_owned() }
    };
    let now = world.clock.now().as_second();
    let tid = or(Tamper::Tenant, tenant);
    let issuing = or(Tamper::Issuer, &tid);
    let publisher = or(Tamper::Publisher, PUBLISHER);
    let begun = if tampered(Tamper::Expired) { now - 100_000 } else { now };
    let mut claims = json!({
        "aud": or(Tamper::Audience, app),
        "iat": begun, "nbf": begun, "exp": begun + 86_400,
        "oid": "1e7d79fa-7893-4d50-bdde-164260d9c5ba", "sub": "1e7d79fa-7893-4d50-bdde-164260d9c5ba",
        "tid": tid,
    });
    match knobs.token_version {
        TokenVersion::V1 => {
            claims["ver"] = json!("1.0");
            claims["iss"] = json!(format!("https://sts.windows.net/{issuing}/"));
            claims["appid"] = json!(publisher);
        }
        TokenVersion::V2 => {
            claims["ver"] = json!("2.0");
            claims["iss"] = json!(format!("{}/{issuing}/v2.0", world.base_url));
            claims["azp"] = json!(publisher);
        }
    }
    let kid = if tampered(Tamper::UnknownKey) { "another" } else { KEY_NAME };
    let header = json!({"typ": "JWT", "alg": "RS256", "kid": kid, "x5t": kid});
    let part = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", part(&header), part(&claims));
    let mut signature = sign(world, signed.as_bytes());
    if tampered(Tamper::TokenSignature)
        && let Some(byte) = signature.first_mut()
    {
        *byte ^= 1;
    }
    format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))
}

fn signing(world: &World) -> &KeyPair {
    #[expect(clippy::expect_used, reason = "a simulator that has no randomness cannot go on")]
    world.rich.signing.get_or_init(|| KeyPair::generate(KeySize::Rsa2048).expect("a key can be made"))
}

fn sign(world: &World, text: &[u8]) -> Vec<u8> {
    let key = signing(world);
    let mut signature = vec![0; key.public_modulus_len()];
    #[expect(clippy::expect_used, reason = "proven")]
    key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), text, &mut signature).expect("the space fits the key");
    signature
}

/// `GET /common/v2.0/.well-known/openid-configuration`
pub(crate) fn metadata(world: &Arc<World>, request: &Request) -> Reply {
    looked_up(
        world,
        request,
        &json!({
            "issuer": format!("{}/{{tenantid}}/v2.0", world.base_url),
            "jwks_uri": format!("{}/common/discovery/v2.0/keys", world.base_url),
            "id_token_signing_alg_values_supported": ["RS256"],
        }),
    )
}

/// `GET /common/discovery/v2.0/keys`
pub(crate) fn keys(world: &Arc<World>, request: &Request) -> Reply {
    let key = signing(world);
    // `RSAPublicKey` in DER: for 2,048 bits and 65,537 nine bytes, the modulus, five bytes and the exponent.
    let der = key.public_key().as_ref();
    let (modulus, exponent) = (&der[9..9 + key.public_modulus_len()], &der[der.len() - 3..]);
    looked_up(
        world,
        request,
        &json!({"keys": [
            {"kty": "EC", "use": "sig", "kid": "of-another-kind", "crv": "P-256", "x": "AA", "y": "AA"},
            {
                "kty": "RSA", "use": "sig", "kid": KEY_NAME, "x5t": KEY_NAME,
                "n": BASE64_URL_SAFE_NO_PAD.encode(modulus), "e": BASE64_URL_SAFE_NO_PAD.encode(exponent),
            },
        ]}),
    )
}

fn looked_up(world: &World, request: &Request, document: &Value) -> Reply {
    if request.method != "GET" {
        return Reply::empty(405);
    }
    world.journal.write(Record::SigningKeys { path: request.path.clone() });
    Reply::json(200, document)
}

/// Sends a delivery with resource data once more, `back` deliveries ago; the status answered.
pub(crate) async fn replay(world: &World, back: usize) -> Option<u16> {
    let (url, body) = {
        let sent = lock(&world.rich.sent);
        sent.iter().rev().nth(back)?.clone()
    };
    let answer = world.http.post(url).json(&body).send().await.ok()?;
    Some(answer.status().as_u16())
}
