//! Which version of an item is spoken of: by a notification that announces it, by a read that brings it.

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

/// A fingerprint of an item's version; equal fingerprints speak of one version.
///
/// A deletion may carry the etag of the last change, so that it is told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ItemVersion(u64);

impl ItemVersion {
    /// Of an item as it is, by the etag that its server gives it.
    pub fn of(etag: &str) -> Self {
        Self(xxh3_64(etag.as_bytes()) | 1)
    }

    /// Of the same item, deleted in this version.
    #[must_use]
    pub fn deleted(self) -> Self {
        Self(self.0 & !1)
    }

    /// Whether it speaks of a deletion.
    pub fn is_of_deleted(self) -> bool {
        self.0 & 1 == 0
    }

    /// As it is stored.
    pub fn bits(self) -> u64 {
        self.0
    }

    /// As it was stored.
    pub fn from_bits(bits: u64) -> Self {
        Self(bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_differ_by_etag_and_a_deletion_from_the_last_change() {
        let (one, other) = (ItemVersion::of("W/\"1\""), ItemVersion::of("W/\"2\""));
        assert_eq!(one, ItemVersion::of("W/\"1\""));
        assert_ne!(one, other);
        let deleted = one.deleted();
        assert_ne!(one, deleted);
        assert_eq!((one.is_of_deleted(), deleted.is_of_deleted()), (false, true));
        assert_eq!(ItemVersion::from_bits(deleted.bits()), deleted);
    }
}
