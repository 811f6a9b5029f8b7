//! Whole-service tests and contract tests: one binary, modules named after behaviour.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![expect(clippy::disallowed_methods, reason = "tests spawn their own tasks")]

mod admin;
mod apart;
mod architecture;
mod asterisk_driver;
mod asterisk_service;
mod backup;
mod by_hand;
mod calendar_changes;
mod consent;
mod counted;
mod crowded;
mod explain;
mod failures;
mod gateway;
mod graph_adapter;
mod health;
mod held;
mod killed;
mod main_path;
mod manual;
mod month;
mod moving;
mod nights;
mod proxy;
mod reading;
mod readme;
mod redis_ahead;
mod redis_link;
mod redis_service;
mod redis_store;
mod removal;
mod replicas;
mod rich;
mod shut_out;
mod silence;
mod store_contract;
mod subscription_life;
mod support;
mod upkeep;
mod users;
mod webhook;
mod world;
