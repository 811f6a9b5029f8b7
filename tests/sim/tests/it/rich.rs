//! Resource data: what a subscription must ask for, and that what is sent opens.

use aws_lc_rs::{
    cipher::{AES_256, DecryptionContext, PaddedBlockDecryptingKey, UnboundCipherKey},
    hmac,
    iv::FixedLength,
    rsa::{OAEP_SHA1_MGF1SHA1, OaepPrivateDecryptingKey, PrivateDecryptingKey},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use narvaro_sim::{EventSpec, RichKnobs, Tamper};
use rcgen::{CertificateParams, KeyPair, PKCS_RSA_SHA256, RsaKeySize};
use reqwest::Method;
use serde_json::{Value, json};

use crate::world::{ANNA, Hook, World, answer};

/// Has the folder sent along that the event lies in.
const FOLDER: &str = "$expand=singleValueExtendedProperties($filter=id eq 'Binary 0x0E09')";

struct Certificate {
    base64: String,
    key: KeyPair,
}

fn certificate() -> Certificate {
    let key = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap();
    let signed = CertificateParams::default().self_signed(&key).unwrap();
    Certificate { base64: BASE64_STANDARD.encode(signed.der()), key }
}

fn rich(world: &World, hook: &Hook, certificate: &Certificate) -> Value {
    let mut body = world.subscription(hook);
    let day = world.sim.clock().now() + jiff::SignedDuration::from_hours(23);
    body["expirationDateTime"] = json!(day.to_string());
    body["resource"] = json!(format!("/users/{}/events?$select=subject,start,end&{FOLDER}", world.anna));
    body["includeResourceData"] = json!(true);
    body["encryptionCertificate"] = json!(certificate.base64);
    body["encryptionCertificateId"] = json!("key-1");
    body
}

fn opened(content: &Value, certificate: &Certificate) -> Option<Value> {
    let bytes = |name: &str| BASE64_STANDARD.decode(content[name].as_str().unwrap()).unwrap();
    let private = PrivateDecryptingKey::from_pkcs8(&certificate.key.serialize_der()).unwrap();
    let private = OaepPrivateDecryptingKey::new(private).unwrap();
    let mut space = vec![0; private.min_output_size()];
    let key = private.decrypt(&OAEP_SHA1_MGF1SHA1, &bytes("dataKey"), &mut space, None).ok()?;
    let mut data = bytes("data");
    hmac::verify(&hmac::Key::new(hmac::HMAC_SHA256, key), &data, &bytes("dataSignature")).ok()?;
    let cipher = PaddedBlockDecryptingKey::cbc_pkcs7(UnboundCipherKey::new(&AES_256, key).unwrap()).unwrap();
    let iv: [u8; 16] = key[..16].try_into().unwrap();
    let clear = cipher.decrypt(&mut data, DecryptionContext::Iv128(FixedLength::from(iv))).ok()?;
    serde_json::from_slice(clear).ok()
}

#[tokio::test]
async fn resource_data_needs_a_selection_a_certificate_and_a_life_of_one_day() {
    let (world, hook) = (World::new().await, Hook::new().await);
    let certificate = certificate();
    let right = rich(&world, &hook, &certificate);
    let events = format!("/users/{}/events", world.anna);
    let week = (world.sim.clock().now() + jiff::SignedDuration::from_hours(25)).to_string();
    for (member, wrong) in [
        ("resource", json!(events)),
        ("resource", json!(format!("{events}?$select="))),
        ("resource", json!(format!("{events}?$select=noSuchThing"))),
        ("resource", json!(format!("{events}?$select=subject,body"))),
        ("resource", json!(format!("{events}?$select=subject&$top=5"))),
        ("resource", json!(format!("{events}?$select=subject&$expand=attachments"))),
        ("expirationDateTime", json!(week)),
        ("encryptionCertificate", Value::Null),
        ("encryptionCertificate", json!("no base64!")),
        ("encryptionCertificate", json!("AAAA")),
        ("encryptionCertificateId", Value::Null),
        ("encryptionCertificateId", json!("x".repeat(129))),
        ("includeResourceData", json!(false)),
    ] {
        let mut body = right.clone();
        body[member] = wrong.clone();
        assert_eq!(world.create(&body).await.0, 400, "{member}: {wrong}");
    }
    let (status, made) = world.create(&right).await;
    assert_eq!((status, &made["encryptionCertificateId"]), (201, &json!("key-1")), "{made}");
    let path = format!("/subscriptions/{}", made["id"].as_str().unwrap());
    let patch = async |body: Value| answer(world.graph(Method::PATCH, &path).json(&body)).await;
    assert_eq!(patch(json!({"encryptionCertificateId": "key-2"})).await.0, 400);
    assert_eq!(patch(json!({"expirationDateTime": week})).await.0, 400);
    let other = json!({"encryptionCertificate": certificate.base64, "encryptionCertificateId": "key-2"});
    let (status, changed) = patch(other.clone()).await;
    assert_eq!((status, &changed["encryptionCertificateId"]), (200, &json!("key-2")));
    let plain = world.subscribe(&hook).await;
    let refused = world.graph(Method::PATCH, &format!("/subscriptions/{plain}")).json(&other);
    assert_eq!(answer(refused).await.0, 400);
}

#[tokio::test]
async fn what_is_sent_along_opens_with_the_certificates_key_unless_it_is_tampered_with() {
    let (world, hook) = (World::new().await, Hook::new().await);
    let certificate = certificate();
    let (status, made) = world.create(&rich(&world, &hook, &certificate)).await;
    assert_eq!(status, 201, "{made}");
    let sent = async |turn: fn(&mut RichKnobs)| {
        world.sim.rich(turn);
        let before = hook.items().len();
        world
            .sim
            .add_event(ANNA, EventSpec { in_secs: Some(60), for_secs: Some(60), ..EventSpec::new("Möte") })
            .unwrap();
        let items = hook.until(|items| items.len() > before).await;
        items[before]["encryptedContent"].clone()
    };
    let content = sent(|_| {}).await;
    let event = opened(&content, &certificate).unwrap();
    assert_eq!(event["subject"], "Möte");
    assert!(event["start"]["dateTime"].is_string() && event.get("showAs").is_none(), "{event}");
    assert!(event["singleValueExtendedProperties"][0]["value"].is_string(), "{event}");
    assert_eq!(content["encryptionCertificateId"], "key-1");
    for turn in [
        (|knobs| knobs.tamper = Some(Tamper::Key)) as fn(&mut RichKnobs),
        |knobs| knobs.tamper = Some(Tamper::Data),
        |knobs| knobs.tamper = Some(Tamper::Signature),
    ] {
        assert_eq!(opened(&sent(turn).await, &certificate), None);
    }
    assert!(sent(|knobs| knobs.null_tokens = true).await.is_null());
}
