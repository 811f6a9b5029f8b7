//! The driver for anything with an HTTP interface: requests made of templates.
//!
//! Most systems that let a third party set presence want the same: get a token, find out what they
//! call the extension, send one request. What differs is configuration ([`HttpPbxConfig`]): requests
//! with typed placeholders (`template` tells their writing), how we identify ourselves, what a good
//! answer is, and how what shows is read back. [`presets`] has ready ones to begin from.
//!
//! Promises: a value is escaped for the place where it stands; one request at a time about one
//! extension, never an older change after a newer one; the same id on all attempts at one change;
//! attempts end within the time that the caller gives; only addresses that the operator of the
//! process allows are connected to ([`ProcessLimits`]); secrets are neither logged nor shown.
//!
//! A state that was found and is put back goes by the `restore` request, whose names are
//! `{shown.FIELD}`. Without one, the `clear` request is sent and `read.default` is what shows then:
//! settings that can read but could put nothing back are refused.
//!
//! It does not keep a connection, does not watch (what shows is read back each minute) and cannot
//! tell a restart of the far side. It speaks JSON in answers only, and neither HTTP Digest, client
//! certificates nor asymmetric (`v1a`) signatures.
//!
//! Why the waits within one change, when the queue retries too: a change at an event's edge is late
//! by the queue's back-off otherwise, and most failures of HTTP targets pass within seconds.

mod answer;
mod auth;
mod breaker;
mod call;
mod config;
mod driver;
mod escape;
mod guard;
mod order;
mod plan;
pub mod presets;
mod request;
mod signing;
mod template;
mod transport;
mod values;

#[cfg(test)]
mod tests;

pub use config::{
    AuthConfig, BreakerConfig, ConfigError, FieldKind, FindConfig, HttpPbxConfig, LoginForm, Method,
    ReadConfig, ReadField, ReadProfile, RequestConfig, SuccessConfig, TokenPlace,
};
pub use driver::HttpPbx;
pub use guard::ProcessLimits;
