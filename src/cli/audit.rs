//! `narvaro audit`: who did what.

use clap::Args;
use serde_json::json;

use super::{Client, Ended, Failure, Streams, table::table, time::Moment};
use crate::{
    admin::{AuditLine, Page},
    clock::{Clock, SystemClock},
    model::CompanyId,
};

#[derive(Debug, Args)]
pub(super) struct Audit {
    /// Only what was done to this company.
    #[arg(long)]
    company: Option<CompanyId>,
    /// Only from then on: `15:00`, `2026-11-23`, `2026-11-23 15:00` (all UTC), or with an offset.
    #[arg(long, value_name = "TIME")]
    since: Option<Moment>,
    /// The newest so many.
    #[arg(long, default_value_t = 100)]
    most: usize,
}

impl Audit {
    pub(super) async fn run(
        self,
        client: &Client,
        json: bool,
        streams: &mut Streams<'_>,
    ) -> Result<Ended, Failure> {
        let since = self.since.as_ref().and_then(|since| since.instant(SystemClock.now(), "UTC"));
        let (mut lines, mut after) = (Vec::<AuditLine>::new(), None::<String>);
        while lines.len() < self.most {
            let request = json!({ "company": self.company, "since": since, "after": after });
            let page: Page<AuditLine> = client.get("audit", &request).await?;
            lines.extend(page.items);
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        lines.truncate(self.most);
        // As a log is read: the newest is nearest to the prompt.
        lines.reverse();
        if json {
            streams.json(&lines)?;
        } else {
            streams.data(&text(&lines));
        }
        Ok(Ended::Done)
    }
}

fn text(lines: &[AuditLine]) -> String {
    let company =
        |line: &AuditLine| line.company.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string);
    let rows: Vec<_> = lines
        .iter()
        .map(|line| {
            let at = line.at.strftime("%Y-%m-%d %H:%M:%SZ").to_string();
            [at, line.who.clone(), line.what.clone(), company(line), line.outcome.clone()]
        })
        .collect();
    table(["AT", "WHO", "WHAT", "COMPANY", "OUTCOME"], &rows).join("\n")
}
