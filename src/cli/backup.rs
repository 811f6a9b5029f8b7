//! `narvaro backup` and `narvaro restore`: the configuration of all companies as one file, and back.
//!
//! The file is JSON that a person can read and compare. What is secret is only named in it, unless a company file has
//! a secret written into it: so it is for the account that made it only.

use std::{
    collections::BTreeSet,
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use clap::Args;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Client, Ended, Failure, Streams, apply};
use crate::{
    admin::{ApplyReport, CompanyBackup, CompanySummary, Page, RestoreRequest},
    clock::{Clock, SystemClock},
    counted::counted,
    model::CompanyId,
};

/// What the file says that it is.
const FORMAT: &str = "narvaro-backup";

/// The form that this version writes and reads.
const VERSION: u64 = 1;

/// Companies that are asked for in one go: one with 10,000 users has some 3 MB.
const AT_A_TIME: &str = "20";

#[derive(Debug, Args)]
pub(super) struct Backup {
    /// The file to write; one that is there is replaced. `-` writes to stdout.
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

#[derive(Debug, Args)]
pub(super) struct Restore {
    /// The file that `narvaro backup` wrote; `-` reads it from stdin.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Only say what would change.
    #[arg(long)]
    dry_run: bool,
    /// Only this company.
    #[arg(long)]
    company: Option<CompanyId>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct BackupFile {
    format: String,
    version: u64,
    made_at: Timestamp,
    made_by: String,
    companies: Vec<CompanyBackup>,
}

impl Backup {
    pub(super) async fn run(
        self,
        client: &Client,
        json: bool,
        streams: &mut Streams<'_>,
    ) -> Result<Ended, Failure> {
        let companies = all(client).await?;
        let backup = BackupFile {
            format: FORMAT.to_owned(),
            version: VERSION,
            made_at: SystemClock.now(),
            made_by: format!("narvaro {}", env!("CARGO_PKG_VERSION")),
            companies,
        };
        let left_out: Vec<String> = backup
            .companies
            .iter()
            .flat_map(|company| {
                company.left_out.iter().map(|said| format!("company `{}`: {said}", company.id))
            })
            .collect();
        if is_stream(&self.file) {
            streams.json(&backup)?;
        } else {
            self.write(&backup)?;
            if json {
                let (file, companies) = (&self.file, backup.companies.len());
                streams.json(&json!({ "file": file, "companies": companies, "left_out": left_out }))?;
            } else {
                let companies = counted(backup.companies.len(), "company", "companies");
                streams.data(&format!("{companies} in `{}`.", self.file.display()));
            }
        }
        if left_out.is_empty() {
            return Ok(Ended::Done);
        }
        left_out.iter().for_each(|said| streams.note(&format!("left out: {said}")));
        streams.note("\nhint: stop the service, and `narvaro store check` names each place with its remedy");
        Ok(Ended::FoundTrouble)
    }

    fn write(&self, backup: &BackupFile) -> Result<(), Failure> {
        let name = self.file.display();
        let text = serde_json::to_string_pretty(backup)
            .map_err(|error| Failure::of("the backup cannot be written as JSON", &error))?;
        replace(&self.file, &text).map_err(|error| {
            Failure::of(format!("the backup `{name}` cannot be written"), &error)
                .hint("check the folder, its rights and the free space; what was there before is unchanged")
        })
    }
}

async fn all(client: &Client) -> Result<Vec<CompanyBackup>, Failure> {
    let mut companies = Vec::new();
    let mut after: Option<String> = None;
    loop {
        let page: Page<CompanyBackup> =
            client.get("backup", &json!({ "after": after, "limit": AT_A_TIME })).await?;
        companies.extend(page.items);
        match page.next {
            Some(next) => after = Some(next),
            None => return Ok(companies),
        }
    }
}

/// Under another name first, so that a backup is never half of one.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let mut draft = path.as_os_str().to_owned();
    draft.push(format!(".{}.new", std::process::id()));
    let draft = PathBuf::from(draft);
    let file = std::fs::File::options().write(true).create_new(true).mode(0o600).open(&draft);
    let written = file.and_then(|mut file| {
        writeln!(file, "{text}")?;
        file.sync_all()?;
        std::fs::rename(&draft, path)
    });
    if written.is_err() {
        let _ = std::fs::remove_file(&draft);
    }
    written
}

fn is_stream(path: &Path) -> bool {
    path.as_os_str() == "-"
}

impl Restore {
    pub(super) async fn run(
        self,
        client: &Client,
        json: bool,
        streams: &mut Streams<'_>,
    ) -> Result<Ended, Failure> {
        let companies = self.chosen()?;
        // Everything is tried before anything is changed.
        let tried = self.send(&companies, true, client).await?;
        let reports = if self.dry_run { tried } else { self.send(&companies, false, client).await? };
        let others = self.others(&companies, client).await?;
        if json {
            streams.json(&json!({ "companies": reports, "not_in_the_backup": others }))?;
            return Ok(Ended::Done);
        }
        for report in &reports {
            apply::warn(report, streams);
            streams.data(&apply::summary(report, self.dry_run));
        }
        if !others.is_empty() {
            let names: Vec<String> = others.iter().map(|id| format!("`{id}`")).collect();
            streams.note(&format!("Not in the backup, and left as they are: {}.", names.join(", ")));
        }
        Ok(Ended::Done)
    }

    fn name(&self) -> String {
        if is_stream(&self.file) { "stdin".to_owned() } else { self.file.display().to_string() }
    }

    /// The companies of the file that are to be put back.
    fn chosen(&self) -> Result<Vec<CompanyBackup>, Failure> {
        let name = self.name();
        let read = if is_stream(&self.file) {
            let mut text = String::new();
            io::stdin().read_to_string(&mut text).map(|_| text)
        } else {
            std::fs::read_to_string(&self.file)
        };
        let text = read.map_err(|error| {
            Failure::of(format!("the backup `{name}` cannot be read"), &error)
                .hint("check the path; `narvaro backup` makes such a file")
        })?;
        let mut companies = parse(&name, &text)?.companies;
        if let Some(wanted) = &self.company {
            companies.retain(|company| company.id == *wanted);
            if companies.is_empty() {
                return Err(Failure::new(format!("the backup `{name}` has no company `{wanted}`"))
                    .hint("leave out `--company` to put all back; `--dry-run` shows which there are"));
            }
        }
        Ok(companies)
    }

    async fn send(
        &self,
        companies: &[CompanyBackup],
        dry_run: bool,
        client: &Client,
    ) -> Result<Vec<ApplyReport>, Failure> {
        let mut reports = Vec::new();
        let mut refused: Option<Failure> = None;
        for company in companies {
            let request = RestoreRequest { company: company.clone(), file: self.name(), dry_run };
            match client.post("companies/restore", &request).await {
                Ok(report) => reports.push(report),
                // The others may have mistakes too: all are told at once.
                Err(failure) if dry_run && failure.has_findings() => {
                    refused = Some(match refused {
                        Some(before) => before.and(failure),
                        None => failure,
                    });
                }
                Err(failure) if reports.is_empty() => return Err(failure),
                Err(failure) => {
                    let done = counted(reports.len(), "company was", "companies were");
                    let hint = format!("{done} put back before; do it again, which changes nothing of those");
                    return Err(if dry_run { failure } else { failure.hint(hint) });
                }
            }
        }
        refused.map_or(Ok(reports), Err)
    }

    /// Companies that the service has and the file has not.
    async fn others(&self, companies: &[CompanyBackup], client: &Client) -> Result<Vec<CompanyId>, Failure> {
        if self.company.is_some() {
            return Ok(Vec::new());
        }
        let here: Vec<CompanySummary> = client.get("companies", &json!({})).await?;
        let known: BTreeSet<&CompanyId> = companies.iter().map(|company| &company.id).collect();
        Ok(here.into_iter().map(|company| company.id).filter(|id| !known.contains(id)).collect())
    }
}

fn parse(name: &str, text: &str) -> Result<BackupFile, Failure> {
    let none = |cause: String| {
        Failure::new(format!("`{name}` is no backup that can be restored: {cause}"))
            .hint("nothing was changed: take a file that `narvaro backup` has made, as it has made it")
    };
    let value: Value = serde_json::from_str(text).map_err(|error| none(format!("it is no JSON: {error}")))?;
    match value.get("format").and_then(Value::as_str) {
        Some(FORMAT) => {}
        Some(other) => return Err(none(format!("`format` is `{other}`, not `{FORMAT}`"))),
        None => return Err(none(format!("`format` does not say `{FORMAT}`"))),
    }
    match value.get("version").and_then(Value::as_u64) {
        Some(VERSION) => {}
        Some(newer) if newer > VERSION => {
            return Err(Failure::new(format!(
                "`{name}` has form {newer}, and this version reads up to {VERSION}"
            ))
            .hint("restore with the version that made it; `made_by` in the file names it"));
        }
        _ => return Err(none("`version` is no form that there is".to_owned())),
    }
    let backup: BackupFile = serde_path_to_error::deserialize(value)
        .map_err(|error| none(format!("`{}` does not hold: {}", error.path(), error.inner())))?;
    let mut seen = BTreeSet::new();
    for (index, company) in backup.companies.iter().enumerate() {
        if !seen.insert(&company.id) {
            return Err(none(format!("`companies[{index}].id` is `{}`, which another one has", company.id)));
        }
    }
    Ok(backup)
}
