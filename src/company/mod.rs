//! Companies, their integrations, users and profiles.

pub mod standard;
