//! Wiring: configuration to adapters to the running service.

pub mod listener;
