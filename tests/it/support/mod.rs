//! What tests run against: a real Asterisk, and a telephone that watches it.

pub(crate) mod asterisk;
pub(crate) mod sip;
