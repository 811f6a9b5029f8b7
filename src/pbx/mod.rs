//! Drivers: one kind of PBX each, all behind [`PbxDriver`](crate::presence::PbxDriver).

pub mod asterisk_ami;
pub mod http;
