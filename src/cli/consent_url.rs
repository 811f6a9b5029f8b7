//! `narvaro consent-url`: where a company's administrator gives consent.

use clap::Args;

use super::{Client, Ended, Failure, Streams};
use crate::{admin, model::CompanyId};

#[derive(Debug, Args)]
pub(super) struct ConsentUrl {
    /// Which company.
    company: CompanyId,
}

impl ConsentUrl {
    pub(super) async fn run(
        self,
        client: &Client,
        json: bool,
        streams: &mut Streams<'_>,
    ) -> Result<Ended, Failure> {
        let path = format!("companies/{}/consent-url", self.company);
        let consent: admin::ConsentUrl = client.post(&path, &serde_json::json!({})).await?;
        if json {
            streams.json(&consent)?;
        } else {
            streams.data(&consent.url);
            streams.note(&format!(
                "To be opened once, by an administrator of the company's Microsoft 365; good until {}.",
                consent.expires.strftime("%Y-%m-%d %H:%M UTC")
            ));
        }
        Ok(Ended::Done)
    }
}
