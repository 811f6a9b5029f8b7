//! What tests run against: a real Asterisk and a telephone that watches it; the built service as a process.

pub(crate) mod asterisk;
pub(crate) mod service;
pub(crate) mod sip;
