//! The store on Redis, for a service of many processes. Today: the way to the server ([`link`]) and what is asked of
//! it at the start ([`check`]).

pub mod check;
mod cluster;
mod dial;
pub mod link;
mod listener;
mod node;
pub mod script;
pub mod settings;

pub use dial::DialError;
pub use link::{Link, LinkError, OpenError};
pub use listener::Listener;
pub use script::Script;
pub use settings::{Address, Form, LinkSettings, Login};
