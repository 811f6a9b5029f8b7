//! Companies, their users and profiles; draft and applied, all or nothing.

pub mod records;
