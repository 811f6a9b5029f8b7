//! `narvaro company new`: a commented company file to start from.

use clap::Subcommand;
use serde_json::json;

use super::{Ended, Failure, Streams};
use crate::company::TEMPLATE;

#[derive(Debug, Subcommand)]
pub(super) enum Company {
    /// Print a commented company file.
    New,
}

impl Company {
    pub(super) fn run(self, json: bool, streams: &mut Streams<'_>) -> Result<Ended, Failure> {
        let Self::New = self;
        if json {
            streams.json(&json!({ "toml": TEMPLATE }))?
        } else {
            streams.data(TEMPLATE)
        }
        Ok(Ended::Done)
    }
}
