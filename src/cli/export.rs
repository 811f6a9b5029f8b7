//! `narvaro export`: write an applied company as a company file.

use clap::Args;

use super::{Client, Ended, Failure, Streams};
use crate::{admin::Exported, model::CompanyId};

#[derive(Debug, Args)]
pub(super) struct Export {
    /// Which company.
    company: CompanyId,
}

impl Export {
    pub(super) async fn run(
        self,
        client: &Client,
        json: bool,
        streams: &mut Streams<'_>,
    ) -> Result<Ended, Failure> {
        let exported: Exported = client.get(&format!("companies/{}/export", self.company), &()).await?;
        if json {
            streams.json(&exported)?
        } else {
            streams.data(&exported.toml)
        }
        Ok(Ended::Done)
    }
}
