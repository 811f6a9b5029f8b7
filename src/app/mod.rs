//! Wiring: configuration to adapters to the running service.

pub mod listener;
mod tasks;

pub use tasks::Tasks;
