//! Opening what is sealed for our certificate.
//!
//! RSA-OAEP (SHA-1) gives the key of the data; its HMAC-SHA-256 over the encrypted bytes is verified, in constant time,
//! before anything is decrypted; then AES-256-CBC with PKCS#7, the first half of the key being the IV.
//! Everything that can be wrong is one error: who tampers must not learn which step noticed. The steps
//! are told apart in our own counters only.
//! Facts: <https://learn.microsoft.com/graph/change-notifications-with-resource-data>.

use aws_lc_rs::{
    cipher::{AES_256, DecryptionContext, PaddedBlockDecryptingKey, UnboundCipherKey},
    hmac,
    iv::FixedLength,
    rsa::{OAEP_SHA1_MGF1SHA1, OaepPrivateDecryptingKey},
};
use base64::{Engine, prelude::BASE64_STANDARD};

use crate::webhook::sealed::Sealed;

const KEY_BYTES: usize = 32;
const IV_BYTES: usize = 16;

/// It cannot be opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("what the notification brought cannot be opened")]
pub(super) struct NotOpened {
    /// For our counters.
    pub(super) step: &'static str,
}

const KEY: NotOpened = NotOpened { step: "bad_key" };
const SIGNATURE: NotOpened = NotOpened { step: "bad_signature" };
const DATA: NotOpened = NotOpened { step: "bad_data" };

/// The data in the clear, for as long as the caller keeps it.
pub(super) fn open(private: &OaepPrivateDecryptingKey, sealed: &Sealed) -> Result<Vec<u8>, NotOpened> {
    let sealed_key = BASE64_STANDARD.decode(&sealed.key).map_err(|_| KEY)?;
    let mut space = vec![0; private.min_output_size()];
    let key = private.decrypt(&OAEP_SHA1_MGF1SHA1, &sealed_key, &mut space, None).map_err(|_| KEY)?;
    let key: &[u8; KEY_BYTES] = (&*key).try_into().map_err(|_| KEY)?;

    let mut data = BASE64_STANDARD.decode(&sealed.data).map_err(|_| SIGNATURE)?;
    let signature = BASE64_STANDARD.decode(&sealed.signature).map_err(|_| SIGNATURE)?;
    hmac::verify(&hmac::Key::new(hmac::HMAC_SHA256, key), &data, &signature).map_err(|_| SIGNATURE)?;

    let iv: [u8; IV_BYTES] = *key.first_chunk().ok_or(DATA)?;
    let cipher = UnboundCipherKey::new(&AES_256, key).and_then(PaddedBlockDecryptingKey::cbc_pkcs7);
    let context = DecryptionContext::Iv128(FixedLength::from(iv));
    let clear = cipher.and_then(|cipher| cipher.decrypt(&mut data, context).map(|clear| clear.len()));
    data.truncate(clear.map_err(|_| DATA)?);
    Ok(data)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use aws_lc_rs::rsa::PrivateDecryptingKey;
    use serde_json::Value;

    use super::{super::super::testing::fixture, *};
    use crate::webhook::sealed::Delivered;

    fn private(vector: &Value) -> OaepPrivateDecryptingKey {
        let der = BASE64_STANDARD.decode(vector["decryptionKeyPkcs8DerBase64"].as_str().unwrap()).unwrap();
        OaepPrivateDecryptingKey::new(PrivateDecryptingKey::from_pkcs8(&der).unwrap()).unwrap()
    }

    fn sealed(content: &Value) -> Sealed {
        let text = |name: &str| content[name].as_str().unwrap().to_owned();
        Sealed {
            certificate: text("encryptionCertificateId"),
            key: text("dataKey"),
            signature: text("dataSignature"),
            data: text("data"),
            watch: 1,
            delivery: Arc::new(Delivered { tokens: Vec::new(), tenants: Default::default() }),
        }
    }

    fn items() -> Vec<Sealed> {
        let delivery = fixture("rich-notification.json");
        let items = delivery["value"].as_array().unwrap().iter();
        items.map(|item| sealed(&item["encryptedContent"])).collect()
    }

    #[test]
    fn b4_the_recorded_notifications_open_to_the_recorded_text() {
        let vector = fixture("rich-notification-vector.json");
        let items = items();
        assert_eq!(items.len(), 2);
        for item in items {
            let opened = open(&private(&vector), &item).unwrap();
            assert_eq!(opened, vector["plaintext"].as_str().unwrap().as_bytes());
        }
    }

    #[test]
    fn b4_whatever_is_tampered_with_is_refused_in_the_same_words() {
        let vector = fixture("rich-notification-vector.json");
        let private = private(&vector);
        let item = items().remove(0);
        let turned = |text: &str, at: usize| {
            let mut bytes = BASE64_STANDARD.decode(text).unwrap();
            let at = at.min(bytes.len() - 1);
            bytes[at] ^= 1;
            BASE64_STANDARD.encode(bytes)
        };
        let refused = |tampered: Sealed| {
            let error = open(&private, &tampered).unwrap_err();
            assert_eq!(error.to_string(), "what the notification brought cannot be opened");
            error.step
        };
        for at in [0, 100, usize::MAX] {
            assert_eq!(refused(Sealed { key: turned(&item.key, at), ..item.clone() }), "bad_key");
            assert_eq!(refused(Sealed { data: turned(&item.data, at), ..item.clone() }), "bad_signature");
            let signature = turned(&item.signature, at);
            assert_eq!(refused(Sealed { signature, ..item.clone() }), "bad_signature");
        }
        for odd in ["", "no base64!", "AAAA"] {
            assert_eq!(refused(Sealed { key: odd.to_owned(), ..item.clone() }), "bad_key");
            assert_eq!(refused(Sealed { data: odd.to_owned(), ..item.clone() }), "bad_signature");
            assert_eq!(refused(Sealed { signature: odd.to_owned(), ..item.clone() }), "bad_signature");
        }
    }

    #[test]
    fn data_that_is_signed_and_is_no_whole_number_of_blocks_is_refused() {
        let vector = fixture("rich-notification-vector.json");
        let key = BASE64_STANDARD.decode(vector["symmetricKeyBase64"].as_str().unwrap()).unwrap();
        for data in [vec![], vec![7; 15], vec![7; 33]] {
            let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key), &data);
            let signature = BASE64_STANDARD.encode(tag);
            let item = Sealed { data: BASE64_STANDARD.encode(data), signature, ..items().remove(0) };
            assert_eq!(open(&private(&vector), &item), Err(DATA));
        }
    }
}
