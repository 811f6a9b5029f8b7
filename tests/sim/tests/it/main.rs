//! The simulator from outside: by HTTP and TCP, as the product sees it.
#![expect(clippy::disallowed_methods, reason = "tests spawn their own tasks")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod asterisk;
mod batch;
mod calendar;
mod control;
mod delivery;
mod faults;
mod login;
mod pbx;
mod subscription;
mod world;
