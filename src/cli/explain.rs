//! `narvaro explain`: why a user shows what they show.

use clap::Args;
use serde_json::json;

use super::{Client, Ended, Failure, Streams, language::SpokenThere, time::Moment};
use crate::{
    admin::{ExplainRequest, Explained, Status},
    model::CompanyId,
};

#[derive(Debug, Args)]
pub(super) struct Explain {
    /// Extension or alias.
    user: String,
    /// Company, where more than one has such a user.
    #[arg(long)]
    company: Option<CompanyId>,
    /// Another time than now: `15:00`, `2026-11-23 15:00` or `2026-11-23T15:00:00+01:00`.
    #[arg(long, value_name = "TIME")]
    at: Option<Moment>,
    #[command(flatten)]
    spoken: SpokenThere,
}

impl Explain {
    pub(super) async fn run(
        self,
        client: &Client,
        json: bool,
        streams: &mut Streams<'_>,
    ) -> Result<Ended, Failure> {
        let at = match &self.at {
            None => None,
            Some(Moment::Exact(at)) => Some(*at),
            Some(moment) => Some(self.instant(client, moment).await?),
        };
        let request =
            ExplainRequest { company: self.company, user: self.user, at, language: self.spoken.lang };
        let explained: Explained = client.get("explain", &request).await?;
        if json {
            streams.json(&explained)?
        } else {
            streams.data(&explained.lines.join("\n"))
        }
        Ok(Ended::Done)
    }

    /// A time without an offset is meant where the company is.
    async fn instant(&self, client: &Client, moment: &Moment) -> Result<jiff::Timestamp, Failure> {
        let status: Status = client.get("status", &json!({ "company": self.company })).await?;
        let is_meant = |mailbox: &crate::admin::MailboxStatus| {
            mailbox.extension.as_str() == self.user || mailbox.alias.eq_ignore_ascii_case(&self.user)
        };
        let zones: std::collections::BTreeSet<&str> = status
            .companies
            .iter()
            .filter(|company| company.mailboxes.iter().any(is_meant))
            .map(|company| company.time_zone.as_str())
            .collect();
        let mut zones = zones.into_iter();
        match (zones.next(), zones.next()) {
            (Some(zone), None) => moment.instant(status.at, zone).ok_or_else(|| {
                Failure::new(format!("that time does not exist in `{zone}`")).hint("write it with its offset")
            }),
            (None, _) => {
                Err(Failure::new(format!("no company has a user with extension or alias `{}`", self.user))
                    .hint("`narvaro status` lists the users"))
            }
            (Some(_), Some(_)) => Err(Failure::new(format!(
                "more than one company has a user `{}`, in different time zones",
                self.user
            ))
            .hint("add `--company`")),
        }
    }
}
