//! `narvaro remove`: take a company out.

use std::io::{BufRead, IsTerminal};

use clap::Args;

use super::{Client, Ended, Failure, Streams};
use crate::{
    admin::{RemoveReport, RemoveRequest},
    model::CompanyId,
};

#[derive(Debug, Args)]
pub(super) struct Remove {
    /// Which company.
    company: CompanyId,
    /// Only say what would go.
    #[arg(long, conflicts_with = "yes")]
    dry_run: bool,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
}

impl Remove {
    pub(super) async fn run(
        self,
        client: &Client,
        json: bool,
        streams: &mut Streams<'_>,
    ) -> Result<Ended, Failure> {
        let stdin = std::io::stdin();
        let asked: Option<&mut dyn BufRead> =
            if stdin.is_terminal() { Some(&mut stdin.lock()) } else { None };
        self.run_with(asked, client, json, streams).await
    }

    /// That company, to be asked about.
    #[cfg(test)]
    pub(super) fn of(company: CompanyId) -> Self {
        Self { company, dry_run: false, yes: false }
    }

    /// `person`: who can be asked, if there is one.
    pub(super) async fn run_with(
        self,
        person: Option<&mut dyn BufRead>,
        client: &Client,
        json: bool,
        streams: &mut Streams<'_>,
    ) -> Result<Ended, Failure> {
        let path = format!("companies/{}/remove", self.company);
        if !self.dry_run && !self.yes {
            let would: RemoveReport = client.post(&path, &RemoveRequest { dry_run: true }).await?;
            self.confirm(&would, person, streams)?;
        }
        let report: RemoveReport = client.post(&path, &RemoveRequest { dry_run: self.dry_run }).await?;
        if json {
            streams.json(&report)?;
        } else {
            streams.data(&self.summary(&report));
        }
        Ok(Ended::Done)
    }

    fn confirm(
        &self,
        would: &RemoveReport,
        person: Option<&mut dyn BufRead>,
        streams: &mut Streams<'_>,
    ) -> Result<(), Failure> {
        let Some(person) = person else {
            return Err(Failure::new(format!("nobody can be asked whether `{}` is to go", self.company))
                .hint("look at it with `--dry-run`, then add `--yes`"));
        };
        streams.note(&format!("{}\nTo remove it, type its id ({}):", listed(would), self.company));
        let mut answer = String::new();
        person
            .read_line(&mut answer)
            .map_err(|error| Failure::of("the answer cannot be read", &error).hint("add `--yes`"))?;
        if answer.trim() == self.company.as_str() {
            Ok(())
        } else {
            Err(Failure::new("not confirmed: nothing was removed"))
        }
    }

    fn summary(&self, report: &RemoveReport) -> String {
        let outcome = if self.dry_run {
            "Dry run, nothing removed.".to_owned()
        } else {
            format!(
                "It is being removed; `narvaro status {}` shows how far that is, and knows it no more once it is gone.",
                report.company
            )
        };
        format!("{}\n{outcome}", listed(report))
    }
}

fn listed(report: &RemoveReport) -> String {
    let mut lines = vec![format!("{} ({})", report.name, report.company)];
    lines.extend(report.goes.iter().map(|line| format!("  {line}")));
    lines.join("\n")
}
