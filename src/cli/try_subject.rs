//! `narvaro try`: what a subject would do.

use clap::Args;

use super::{Client, Ended, Failure, Streams, language::SpokenThere};
use crate::{
    admin::{Tried, TryRequest},
    model::CompanyId,
};

#[derive(Debug, Args)]
pub(super) struct Try {
    /// The subject as it would be typed into Outlook.
    subject: String,
    /// By whose words.
    #[arg(long)]
    company: CompanyId,
    /// With this user's own words too: extension or alias.
    #[arg(long)]
    user: Option<String>,
    #[command(flatten)]
    spoken: SpokenThere,
}

impl Try {
    pub(super) async fn run(
        self,
        client: &Client,
        json: bool,
        streams: &mut Streams<'_>,
    ) -> Result<Ended, Failure> {
        let request = TryRequest {
            company: self.company,
            user: self.user,
            subject: self.subject,
            language: self.spoken.lang,
        };
        let tried: Tried = client.post("try", &request).await?;
        if json {
            streams.json(&tried)?
        } else {
            streams.data(&tried.lines.join("\n"))
        }
        Ok(Ended::Done)
    }
}
