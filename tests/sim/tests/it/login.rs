//! Tokens and consent.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use narvaro_sim::{AppSpec, ConsentAnswer, FederatedSpec};
use rcgen::{CertificateParams, KeyPair, PKCS_RSA_SHA256, PublicKeyData};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::world::{APP, CONTOSO, FABRIKAM, SCOPE, SECRET, World, at};

const JWT: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

#[tokio::test]
async fn each_refusal_has_its_number() {
    let world = World::new().await;
    for (tenant, client, secret, scope, status, code) in [
        (CONTOSO, APP, "wrong", SCOPE, 401, 7_000_215),
        (FABRIKAM, APP, SECRET, SCOPE, 400, 700_016),
        (CONTOSO, "11111111-1111-1111-1111-111111111111", SECRET, SCOPE, 400, 700_016),
        ("11111111-1111-1111-1111-111111111111", APP, SECRET, SCOPE, 400, 90002),
        ("contoso", APP, SECRET, SCOPE, 400, 900_023),
        (CONTOSO, APP, SECRET, "https://graph.microsoft.com/Calendars.Read", 400, 1_002_012),
    ] {
        let form = [
            ("grant_type", "client_credentials"),
            ("client_id", client),
            ("client_secret", secret),
            ("scope", scope),
        ];
        let (got, body) = world.ask_token(tenant, &form).await;
        assert_eq!((got, &body["error_codes"]), (status, &json!([code])), "{body}");
    }
    assert!(!world.token_for("contoso.example").await.is_empty());
}

#[tokio::test]
async fn an_expired_token_is_refused() {
    let world = World::new().await;
    let path = format!("/users/{}", world.anna);
    assert_eq!(world.get(&path).await.0, 200);
    world.sim.expire_tokens();
    let (status, body) = world.get(&path).await;
    assert_eq!((status, &body["error"]["code"]), (401, &json!("InvalidAuthenticationToken")));
}

struct Key {
    private: String,
    certificate: String,
    thumbprint: String,
}

fn key() -> Key {
    let pair = KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap();
    let _ = pair.der_bytes();
    let certificate = CertificateParams::default().self_signed(&pair).unwrap();
    Key {
        private: pair.serialize_pem(),
        thumbprint: BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(certificate.der())),
        certificate: certificate.pem(),
    }
}

fn sign(key: &Key, algorithm: Algorithm, x5t: bool, claims: &Value) -> String {
    let mut header = Header::new(algorithm);
    header.x5t_s256 = x5t.then(|| key.thumbprint.clone());
    let private = EncodingKey::from_rsa_pem(key.private.as_bytes()).unwrap();
    jsonwebtoken::encode(&header, claims, &private).unwrap()
}

#[tokio::test]
async fn a_certificate_assertion_is_checked_in_every_part() {
    let world = World::new().await;
    world.sim.set_time(at("2026-11-22T10:00:00Z"));
    let (good, other) = (key(), key());
    world
        .sim
        .add_app(AppSpec {
            client_id: APP.to_owned(),
            certificates: vec![good.certificate.clone()],
            ..AppSpec::default()
        })
        .unwrap();
    let now = at("2026-11-22T10:00:00Z").as_second();
    let claims = |name: &str, value: Value| {
        let mut claims = json!({
            "aud": format!("https://login.microsoftonline.com/{CONTOSO}/oauth2/v2.0/token"),
            "iss": APP, "sub": APP, "jti": name, "nbf": now, "iat": now, "exp": now + 300,
        });
        claims[name] = value;
        claims
    };
    let right = claims("jti", json!("1"));
    let local = format!("{}/{CONTOSO}/oauth2/v2.0/token", world.sim.login_url());
    for (assertion, code) in [
        (sign(&good, Algorithm::PS256, true, &right), None),
        (sign(&good, Algorithm::PS256, true, &right), None),
        (sign(&good, Algorithm::RS256, true, &right), Some(700_027)),
        (sign(&good, Algorithm::PS256, false, &right), Some(700_027)),
        (sign(&other, Algorithm::PS256, true, &right), Some(700_027)),
        (sign(&good, Algorithm::PS256, true, &claims("aud", json!(local))), Some(700_023)),
        (sign(&good, Algorithm::PS256, true, &claims("sub", json!("x"))), Some(700_021)),
        (sign(&good, Algorithm::PS256, true, &claims("exp", json!(now - 1))), Some(700_024)),
    ] {
        let form = [
            ("grant_type", "client_credentials"),
            ("client_id", APP),
            ("client_assertion_type", JWT),
            ("client_assertion", &assertion),
            ("scope", SCOPE),
        ];
        let (status, body) = world.ask_token(CONTOSO, &form).await;
        match code {
            None => assert_eq!(status, 200, "{body}"),
            Some(code) => assert_eq!(body["error_codes"], json!([code]), "{body}"),
        }
    }
    assert_eq!(world.rules_broken(), ["assertion-reused"]);
}

#[tokio::test]
async fn another_issuer_may_act_as_the_app() {
    let world = World::new().await;
    let issuer = key();
    world
        .sim
        .add_app(AppSpec {
            client_id: APP.to_owned(),
            federated: vec![FederatedSpec {
                issuer: "https://cluster.example".to_owned(),
                subject: "system:serviceaccount:narvaro:narvaro".to_owned(),
                audience: "api://AzureADTokenExchange".to_owned(),
                key_pem: issuer.certificate.clone(),
            }],
            ..AppSpec::default()
        })
        .unwrap();
    let exp = world.sim.clock().now().as_second() + 300;
    let mut claims = json!({
        "iss": "https://cluster.example", "sub": "system:serviceaccount:narvaro:narvaro",
        "aud": ["api://AzureADTokenExchange"], "exp": exp,
    });
    for (subject, status) in [("system:serviceaccount:narvaro:narvaro", 200), ("someone", 401)] {
        claims["sub"] = json!(subject);
        let assertion = sign(&issuer, Algorithm::RS256, false, &claims);
        let form = [
            ("grant_type", "client_credentials"),
            ("client_id", APP),
            ("client_assertion_type", JWT),
            ("client_assertion", &assertion),
            ("scope", SCOPE),
        ];
        let (got, body) = world.ask_token(CONTOSO, &form).await;
        assert_eq!(got, status, "{body}");
    }
}

#[tokio::test]
async fn consent_is_given_refused_and_withdrawn() {
    let world = World::new().await;
    let back = "https://presence.example.net/callback";
    let consent = async |redirect: &str| {
        let query = form_urlencoded::Serializer::new(String::new())
            .extend_pairs([
                ("client_id", APP),
                ("scope", SCOPE),
                ("redirect_uri", redirect),
                ("state", "s 1"),
            ])
            .finish();
        let url = format!("{}/organizations/v2.0/adminconsent?{query}", world.sim.login_url());
        let answer = world.http.get(url).send().await.unwrap();
        let to = answer.headers().get("location").map(|to| to.to_str().unwrap().to_owned());
        (answer.status().as_u16(), to.unwrap_or_default())
    };
    world.sim.login(|knobs| knobs.signing_in_tenant = Some(FABRIKAM.to_owned()));
    assert_eq!(consent("https://evil.example/callback").await.0, 400);
    let (status, to) = consent(back).await;
    assert_eq!(status, 302);
    assert_eq!(
        to,
        format!(
            "{back}?admin_consent=True&tenant={FABRIKAM}&scope=https%3A%2F%2Fgraph.microsoft.com%2F.default&state=s+1"
        )
    );
    assert!(!world.token_for(FABRIKAM).await.is_empty());
    world.sim.login(|knobs| knobs.consent_answer = ConsentAnswer::RefuseV2);
    let (_, to) = consent(back).await;
    assert!(to.contains("admin_consent=True&error=consent_required"), "{to}");
    world.sim.revoke_consent(FABRIKAM, APP, true).unwrap();
    let form = [
        ("grant_type", "client_credentials"),
        ("client_id", APP),
        ("client_secret", SECRET),
        ("scope", SCOPE),
    ];
    assert_eq!(world.ask_token(FABRIKAM, &form).await.1["error_codes"], json!([700_016]));
}
