//! What Graph posts, read leniently: only what is needed, unknown members skipped, enumerations in any case.
//!
//! Shape: <https://learn.microsoft.com/graph/api/resources/changenotificationcollection>.

use std::{
    borrow::Cow,
    hash::{DefaultHasher, Hash, Hasher},
    ops::Deref,
};

use serde::Deserialize;

use crate::queue::Reason;

/// One delivery.
#[derive(Debug, Deserialize)]
pub(super) struct Delivery<'a> {
    #[serde(borrow)]
    pub(super) value: Vec<Item<'a>>,
}

/// One notification.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Item<'a> {
    #[serde(borrow, default)]
    pub(super) client_state: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) tenant_id: Option<Text<'a>>,
    #[serde(borrow, default)]
    change_type: Option<Text<'a>>,
    #[serde(borrow, default)]
    lifecycle_event: Option<Text<'a>>,
    #[serde(borrow, default)]
    resource_data: Option<ResourceData<'a>>,
}

#[derive(Debug, Deserialize)]
struct ResourceData<'a> {
    #[serde(borrow, default)]
    id: Option<Text<'a>>,
    #[serde(borrow, default, rename = "@odata.etag")]
    etag: Option<Text<'a>>,
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
        /// Fingerprint of kind of change and version.
        version: Option<u64>,
    },
    /// The subscription itself is concerned.
    Lifecycle(Reason),
    /// A kind that this version does not know.
    Unknown,
}

impl Item<'_> {
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
        let etag = data.and_then(|data| data.etag.as_deref()).filter(|etag| !etag.is_empty());
        let version = etag.map(|etag| {
            let mut hasher = DefaultHasher::new();
            // A deletion may carry the etag of the last change.
            change.eq_ignore_ascii_case("deleted").hash(&mut hasher);
            etag.hash(&mut hasher);
            hasher.finish()
        });
        Kind::Changed { item: data.and_then(|data| data.id.as_deref()), version }
    }
}

/// Why a body is not a delivery.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NotADelivery;

/// Reads a body: `readable` is called with each notification that has the documented shape.
/// Returns how many had not.
pub(super) fn read(body: &[u8], mut readable: impl FnMut(&Item<'_>)) -> Result<usize, NotADelivery> {
    // Looked at as a whole once, instead of each text by itself.
    let body = std::str::from_utf8(body).map_err(|_| NotADelivery)?;
    if let Ok(delivery) = serde_json::from_str::<Delivery<'_>>(body) {
        delivery.value.iter().for_each(readable);
        return Ok(0);
    }
    // Something is odd. Slower, and one by one, so that a single odd notification does not cost the others.
    let whole: serde_json::Value = serde_json::from_str(body).map_err(|_| NotADelivery)?;
    let items = whole.get("value").and_then(serde_json::Value::as_array).ok_or(NotADelivery)?;
    let mut unreadable = 0;
    for item in items {
        match Item::deserialize(item) {
            Ok(item) => readable(&item),
            Err(_) => unreadable += 1,
        }
    }
    Ok(unreadable)
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
}
