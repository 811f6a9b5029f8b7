//! The ports' stored forms. Today one: [`embedded`], a single SQLite file, for a service of one process.
//!
//! A second form is held to the same contract: `tests/it/store_contract.rs` takes any [`Store`].

pub mod embedded;
pub mod redis;

use crate::{
    company::{records::Records, trail::Trail},
    queue::{DueStore, Replicas},
};

/// Everything the service keeps.
pub trait Store: DueStore + Records + Trail + Replicas {}

impl<S: DueStore + Records + Trail + Replicas> Store for S {}
