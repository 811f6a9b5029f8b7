//! Whole-service tests: the service against the simulators, over HTTP and wire only.

mod asterisk_driver;
mod support;
