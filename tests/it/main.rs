//! Whole-service tests and contract tests: one binary, modules named after behaviour.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![expect(clippy::disallowed_methods, reason = "tests spawn their own tasks")]

mod architecture;
mod asterisk_driver;
mod dependencies;
mod asterisk_service;
mod graph_adapter;
mod main_path;
mod proxy;
mod manual;
mod store_contract;
mod support;
mod webhook;
mod world;
