//! What `narvaro company new` prints.

/// A company file in which every key is explained. It holds as it is, once its examples are replaced.
pub const TEMPLATE: &str = include_str!("template.toml");
