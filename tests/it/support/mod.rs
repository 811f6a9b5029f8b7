//! What tests run against: real Redis servers; a real Asterisk and a telephone that watches it; the built service as a
//! process; a store that several processes share.

pub(crate) mod asterisk;
pub(crate) mod redis;
pub(crate) mod service;
pub(crate) mod shared;
pub(crate) mod sip;

/// The items that notifications named, as they were gathered.
pub(crate) fn items(gathered: &narvaro::queue::Gathered) -> Vec<&str> {
    gathered.hints.iter().map(|hint| hint.item.as_str()).collect()
}
