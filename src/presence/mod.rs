//! Presence out: what the PBX should show against what it acknowledged.
//!
//! This module declares [`PbxDriver`], the port that one kind of PBX implements in `pbx/`. A driver is a
//! translator: it neither decides nor remembers. Ordering comes from the lease (one turn per mailbox at a
//! time, so one write per extension in flight), retries and back-off from the queue.

mod driver;

pub use driver::{Abilities, LinkState, PbxDriver, PbxError, PbxSignal, Stands, Write};
