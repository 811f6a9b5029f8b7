//! `narvaro sync`: read calendars anew now.

use clap::{ArgGroup, Args};

use super::{Client, Ended, Failure, Streams};
use crate::{
    admin::{SyncRequest, Synced},
    counted::counted,
    model::CompanyId,
};

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("scope").args(["company", "user", "all"]).required(true).multiple(true))]
pub(super) struct Sync {
    /// Only this company's.
    #[arg(long)]
    company: Option<CompanyId>,
    /// Only this user's: extension or alias.
    #[arg(long, conflicts_with = "all")]
    user: Option<String>,
    /// All of the company's, or of all companies.
    #[arg(long)]
    all: bool,
}

impl Sync {
    pub(super) async fn run(
        self,
        client: &Client,
        json: bool,
        streams: &mut Streams<'_>,
    ) -> Result<Ended, Failure> {
        let request = SyncRequest { company: self.company, user: self.user, all: self.all };
        let synced: Synced = client.post("sync", &request).await?;
        if json {
            streams.json(&synced)?;
        } else {
            let calendars = counted(synced.marked, "calendar is", "calendars are");
            streams.data(&format!("{calendars} being read anew; `narvaro status` shows when."));
        }
        Ok(Ended::Done)
    }
}
