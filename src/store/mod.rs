//! The ports' stored forms: [`embedded`], a single SQLite file, for a service of one process, and [`redis`], for several.
//!
//! Both are held to one contract: `tests/it/store_contract.rs` takes any [`Store`].
//!
//! Without a service a store is moved and checked through [`portable`], whatever its form; [`copy()`] moves it.

mod copy;
pub mod embedded;
pub mod portable;
pub mod redis;

pub use copy::{CopyError, Stage, copy, ensure_filled, ensure_whole};

use crate::{
    company::{records::Records, trail::Trail},
    queue::{DueStore, Replicas},
};

/// Everything the service keeps.
pub trait Store: DueStore + Records + Trail + Replicas {}

impl<S: DueStore + Records + Trail + Replicas> Store for S {}
