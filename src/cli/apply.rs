//! `narvaro apply`: make a company file live, all or nothing.

use std::{io::Read, path::PathBuf};

use clap::Args;

use super::{Client, Ended, Failure, Streams};
use crate::{
    admin::{ApplyReport, ApplyRequest},
    counted::counted,
};

#[derive(Debug, Args)]
pub(super) struct Apply {
    /// The company file; `-` reads it from stdin.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Only say what would change.
    #[arg(long)]
    dry_run: bool,
}

impl Apply {
    pub(super) async fn run(
        self,
        client: &Client,
        json: bool,
        streams: &mut Streams<'_>,
    ) -> Result<Ended, Failure> {
        let request = ApplyRequest { text: self.text()?, file: self.name(), dry_run: self.dry_run };
        let report: ApplyReport = client.post("companies/apply", &request).await?;
        if json {
            streams.json(&report)?;
            return Ok(Ended::Done);
        }
        warn(&report, streams);
        streams.data(&summary(&report, self.dry_run));
        Ok(Ended::Done)
    }

    fn name(&self) -> String {
        if self.file.as_os_str() == "-" { "stdin".to_owned() } else { self.file.display().to_string() }
    }

    fn text(&self) -> Result<String, Failure> {
        let read = if self.file.as_os_str() == "-" {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).map(|_| text)
        } else {
            std::fs::read_to_string(&self.file)
        };
        read.map_err(|error| {
            Failure::of(format!("the company file `{}` cannot be read", self.name()), &error)
                .hint("check the path; `narvaro company new` prints a file to start from")
        })
    }
}

pub(super) fn warn(report: &ApplyReport, streams: &mut Streams<'_>) {
    for warning in &report.warnings {
        streams.note(&format!("warning: {warning}\n  hint: {}", warning.remedy));
    }
}

pub(super) fn summary(report: &ApplyReport, dry_run: bool) -> String {
    let changes = match report.changes.len() {
        0 => "nothing changes".to_owned(),
        some => counted(some, "change", "changes"),
    };
    let outcome = match (dry_run, report.applied) {
        (true, _) => "dry run, nothing applied".to_owned(),
        (false, true) => format!("applied as revision {}", report.revision),
        (false, false) => format!("revision {} stays", report.revision),
    };
    let mut lines = vec![format!("{}: {changes}, {outcome}", report.company)];
    lines.extend(report.changes.iter().map(|change| format!("  {change}")));
    lines.join("\n")
}
