//! The ports' stored forms. Today one: [`embedded`], a single SQLite file, for a service of one process.
//!
//! A second form is held to the same contract: `tests/it/store_contract.rs` takes any [`Store`].
//!
//! Without a service a store is moved and checked through [`portable`], whatever its form; [`copy()`] moves it.

mod copy;
pub mod embedded;
pub mod portable;
pub mod redis;

pub use copy::{CopyError, Stage, copy};

use crate::{
    company::{records::Records, trail::Trail},
    queue::{DueStore, Replicas},
};

/// Everything the service keeps.
pub trait Store: DueStore + Records + Trail + Replicas {}

impl<S: DueStore + Records + Trail + Replicas> Store for S {}
