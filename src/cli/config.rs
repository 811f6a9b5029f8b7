//! `narvaro config new`: the commented configuration to start from.

use clap::Subcommand;
use serde_json::json;

use super::{Ended, Failure, Streams};
use crate::config::DEFAULTS;

#[derive(Debug, Subcommand)]
pub(super) enum Config {
    /// Print every key of the configuration with its meaning and default.
    New,
}

impl Config {
    pub(super) fn run(self, json: bool, streams: &mut Streams<'_>) -> Result<Ended, Failure> {
        let Self::New = self;
        if json {
            streams.json(&json!({ "toml": DEFAULTS }))?
        } else {
            streams.data(DEFAULTS)
        }
        Ok(Ended::Done)
    }
}
