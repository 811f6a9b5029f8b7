//! What Graph posts, read leniently: only what is needed, unknown members skipped, enumerations in any case.
//!
//! Shape: <https://learn.microsoft.com/graph/api/resources/changenotificationcollection>.

use std::{borrow::Cow, fmt, ops::Deref};

use serde::{
    Deserialize, Deserializer,
    de::{self, IgnoredAny, Visitor},
};

use super::compact;
use crate::{model::ItemVersion, queue::Reason};

/// One delivery.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Delivery<'a> {
    #[serde(borrow)]
    pub(super) value: Vec<Item<'a>>,
    #[serde(borrow, default)]
    validation_tokens: Option<Lenient<Vec<Text<'a>>>>,
}

/// One notification.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Item<'a> {
    #[serde(borrow, default)]
    pub(super) client_state: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) tenant_id: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) change_type: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) lifecycle_event: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) resource_data: Option<ResourceData<'a>>,
    #[serde(borrow, default)]
    encrypted_content: Option<Lenient<Encrypted<'a>>>,
}

/// What a notification brings of its item.
///
/// Shape: <https://learn.microsoft.com/graph/api/resources/changenotificationencryptedcontent>.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Encrypted<'a> {
    #[serde(borrow)]
    pub(super) data: Text<'a>,
    #[serde(borrow)]
    pub(super) data_key: Text<'a>,
    #[serde(borrow)]
    pub(super) data_signature: Text<'a>,
    #[serde(borrow)]
    pub(super) encryption_certificate_id: Text<'a>,
}

/// What a hint does not need to be a hint: of another shape, it is as good as absent.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Lenient<T> {
    As(T),
    Odd(IgnoredAny),
}

impl<T> Lenient<T> {
    fn get(&self) -> Option<&T> {
        match self {
            Self::As(value) => Some(value),
            Self::Odd(_) => None,
        }
    }
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct ResourceData<'a> {
    #[serde(borrow, default)]
    pub(super) id: Option<Text<'a>>,
    #[serde(default, rename = "@odata.etag")]
    pub(super) etag: Option<Etag>,
}

/// An etag, as the version it speaks of; one without characters speaks of none. Outlook's have escapes, and would be copied as texts.
#[derive(Debug, Clone, Copy)]
pub(super) struct Etag(Option<ItemVersion>);

impl<'de> Deserialize<'de> for Etag {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct EtagVisitor;

        impl Visitor<'_> for EtagVisitor {
            type Value = Etag;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an etag")
            }

            fn visit_str<E: de::Error>(self, etag: &str) -> Result<Etag, E> {
                Ok(Etag((!etag.is_empty()).then(|| ItemVersion::of(etag))))
            }
        }

        deserializer.deserialize_str(EtagVisitor)
    }
}

/// A text of the body, in place unless it has escapes. (`Option<Cow<str>>` would be copied whatever is said of borrowing.)
#[derive(Debug, Deserialize)]
#[serde(transparent)]
pub(super) struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl Deref for Text<'_> {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

/// What a notification is about.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Kind<'a> {
    /// An item was created, changed or deleted.
    Changed {
        /// Its id.
        item: Option<&'a str>,
        /// Into which version.
        version: Option<ItemVersion>,
    },
    /// The subscription itself is concerned.
    Lifecycle(Reason),
    /// A kind that this version does not know.
    Unknown,
}

impl Item<'_> {
    /// What it brings of its item; a deletion brings nothing.
    pub(super) fn encrypted(&self) -> Option<&Encrypted<'_>> {
        let gone = self.change_type.as_ref().is_some_and(|change| change.eq_ignore_ascii_case("deleted"));
        self.encrypted_content.as_ref().filter(|_| !gone)?.get()
    }

    pub(super) fn kind(&self) -> Kind<'_> {
        if let Some(event) = &self.lifecycle_event {
            let known = [
                ("missed", Reason::Missed),
                ("reauthorizationRequired", Reason::Reauthorize),
                ("subscriptionRemoved", Reason::Removed),
            ];
            return known
                .into_iter()
                .find(|(name, _)| event.eq_ignore_ascii_case(name))
                .map_or(Kind::Unknown, |(_, reason)| Kind::Lifecycle(reason));
        }
        let Some(change) = &self.change_type else { return Kind::Unknown };
        if !["created", "updated", "deleted"].iter().any(|known| change.eq_ignore_ascii_case(known)) {
            return Kind::Unknown;
        }
        let data = self.resource_data.as_ref();
        let version = data.and_then(|data| data.etag?.0);
        let deleted = change.eq_ignore_ascii_case("deleted");
        let version = version.map(|version| if deleted { version.deleted() } else { version });
        Kind::Changed { item: data.and_then(|data| data.id.as_deref()), version }
    }
}

/// Why a body is not a delivery.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NotADelivery;

/// The rest of a delivery.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Rest {
    /// How many notifications have not the documented shape.
    pub(super) unreadable: usize,
    /// The validation tokens.
    pub(super) tokens: Vec<String>,
}

/// Reads a body: `readable` is called once, with all notifications that have the documented shape.
pub(super) fn read(body: &[u8], readable: impl FnOnce(&[Item<'_>])) -> Result<Rest, NotADelivery> {
    // Looked at as a whole once, instead of each text by itself.
    let body = std::str::from_utf8(body).map_err(|_| NotADelivery)?;
    if let Some(items) = compact::items(body) {
        readable(&items);
        return Ok(Rest::default());
    }
    if let Ok(delivery) = serde_json::from_str::<Delivery<'_>>(body) {
        readable(&delivery.value);
        let tokens = delivery.validation_tokens.as_ref().and_then(Lenient::get);
        let tokens = tokens.into_iter().flatten().map(|token| token.to_string()).collect();
        return Ok(Rest { unreadable: 0, tokens });
    }
    // Something is odd. Slower, and one by one, so that a single odd notification does not cost the others.
    let whole: serde_json::Value = serde_json::from_str(body).map_err(|_| NotADelivery)?;
    let items = whole.get("value").and_then(serde_json::Value::as_array).ok_or(NotADelivery)?;
    // Who vouches for a delivery vouches for all of it, and a part of it is not to be read.
    let read: Vec<_> = items.iter().filter_map(|item| Item::deserialize(item).ok()).collect();
    readable(&read);
    Ok(Rest { unreadable: items.len() - read.len(), tokens: Vec::new() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_read_in_place_and_with_their_escapes_undone() {
        let plain = r#"{"value":[{"clientState":"abc","resourceData":{"id":"AAk="}}]}"#;
        let delivery: Delivery<'_> = serde_json::from_str(plain).unwrap();
        assert!(matches!(delivery.value[0].client_state, Some(Text(Cow::Borrowed("abc")))));
        let escaped = r#"{"value":[{"clientState":"\u0061bc","tenantId":null}]}"#;
        let delivery: Delivery<'_> = serde_json::from_str(escaped).unwrap();
        assert_eq!(delivery.value[0].client_state.as_deref(), Some("abc"));
        assert!(delivery.value[0].tenant_id.is_none());
    }

    #[test]
    fn what_is_brought_in_another_shape_is_left_out_and_the_hint_stays() {
        let whole = r#"{"data":"d","dataKey":"k","dataSignature":"s","encryptionCertificateId":"c"}"#;
        for (change, content, brings) in [
            ("updated", whole, true),
            ("Deleted", whole, false),
            ("updated", "null", false),
            ("updated", "[1]", false),
            ("updated", r#"{"data":1}"#, false),
        ] {
            let body = format!(
                r#"{{"value":[{{"changeType":"{change}","resourceData":{{"id":"a"}},"encryptedContent":{content}}}],
                     "validationTokens":["t","u"]}}"#
            );
            let mut seen = Vec::new();
            let rest = read(body.as_bytes(), |items| {
                let [item] = items else { panic!("{items:?}") };
                seen.push(item.encrypted().map(|it| it.data_key.to_string()));
                assert!(matches!(item.kind(), Kind::Changed { item: Some("a"), .. }));
            });
            assert_eq!(seen, [brings.then(|| "k".to_owned())], "{change} {content}");
            assert_eq!(rest.unwrap().tokens, ["t", "u"]);
        }
        for tokens in ["null", "{}", "[1]"] {
            let body = format!(r#"{{"value":[{{}}],"validationTokens":{tokens}}}"#);
            assert_eq!(read(body.as_bytes(), |_| {}), Ok(Rest::default()), "{tokens}");
        }
    }
}
