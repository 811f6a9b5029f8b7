//! The words of the field as types: who is called, what a calendar says, what a PBX shows.
//!
//! Nothing here does anything outside itself: no clock, no network, no files. Instants are
//! [`jiff::Timestamp`]; intervals are half-open, `[start, end)`.

pub mod disposition;
pub mod event;
pub mod ids;
pub mod interval;
mod others;
pub mod presence;
pub mod profile;
pub mod rules;
mod version;

pub use disposition::Disposition;
pub use event::{CalendarEvent, EventKind, Response, Sensitivity, ShowAs, Subject, When};
pub use ids::{
    CompanyId, EventId, Extension, Generation, IdError, MailboxId, ProfileId, SubscriptionId, TenantId,
};
pub use interval::Interval;
pub use others::Others;
pub use presence::{Outward, Readback, Shown, Wanted};
pub use profile::{AsteriskState, AsteriskTerms, PbxTerms, Profile};
pub use rules::{
    Counting, EndTo, ExternalChange, Fallback, Language, MatchMode, Matching, OverrideRule, Position, Rules,
};
pub use version::ItemVersion;
