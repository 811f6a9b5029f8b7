//! Stand-ins for what Närvaro talks to: Microsoft Graph, Entra login, an HTTP PBX and the
//! Asterisk manager interface, as real servers with knobs and a journal.
//!
//! They are stricter than the vendors: what a vendor lets pass but its documentation forbids
//! is written to the journal as a violation, and tests assert that there is none. The
//! simulator shares no code with the service, so that it does not share its mistakes.
//!
//! ```text
//!  Sim::start ──► one HTTP port ── /v1.0/…            graph, batch, users, events, subscriptions
//!                               ├─ /{tenant}/oauth2/… login
//!                               ├─ /pbx/…             pbx
//!                               └─ /sim/…             control: every knob, for curl
//!             └─► one TCP port ─── AMI                ami
//!  a change in calendar ──► subscriptions ──► delivery (rich) ──► POST to the product
//!  everything ──► journal
//! ```
#![expect(
    clippy::disallowed_methods,
    reason = "the simulator has a clock of its own and spawns its own tasks"
)]

mod ami;
mod batch;
mod calendar;
mod clock;
mod control;
mod delivery;
mod error;
mod events;
mod faults;
mod graph;
mod http;
mod journal;
mod limits;
mod login;
mod pbx;
mod rich;
mod seed;
mod sim;
mod subscriptions;
mod users;
mod world;
mod zones;

use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

pub use ami::{AmiAccount, AmiKnobs, AmiPresence};
pub use calendar::{
    CalendarKind, ChangeType, Day, EventSpec, Every, Moment, Response, Sensitivity, SeriesSpec, ShowAs,
};
pub use clock::SimClock;
pub use delivery::{DeliveryKnobs, LifecycleKind};
pub use error::SimError;
pub use events::{DeltaKnobs, Occurrences};
pub use faults::{Fault, FaultFilter, FaultKind};
pub use journal::{DeliveryAttempt, DeliveryOutcome, Entry, GraphCall, Journal, PbxWrite, Record};
pub use login::{ConsentAnswer, LoginKnobs};
pub use pbx::{PbxAuth, PbxFault, PbxPresence};
pub use rich::{RichKnobs, Tamper, TokenVersion};
pub use seed::{Seed, SeedEvent, SeedPbx, SeedTenant};
pub use sim::{Ami, EventIds, EventInfo, Pbx, Sim, SimOptions, SubscriptionInfo};
pub use world::{AppSpec, FederatedSpec, MailboxKind, TenantSpec, UserKind, UserSpec};

/// A panic elsewhere does not make the state unreadable.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}
