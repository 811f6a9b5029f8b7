//! `narvaro status`: how companies and mailboxes stand, and what to do about those that do not stand well.

use clap::Args;
use serde_json::json;

use super::{
    Client, Ended, Failure, Streams,
    table::table,
    time::{shown, shown_or_dash},
};
use crate::{
    admin::{self, CompanyStatus, Consent, HealthReport, MailboxStatus, PbxLink, Severity, ShownPresence},
    model::CompanyId,
};

#[derive(Debug, Args)]
pub(super) struct Status {
    /// Only this company.
    company: Option<CompanyId>,
}

impl Status {
    pub(super) async fn run(
        self,
        client: &Client,
        json: bool,
        streams: &mut Streams<'_>,
    ) -> Result<Ended, Failure> {
        let status: admin::Status = client.get("status", &json!({ "company": self.company })).await?;
        if json {
            streams.json(&status)?;
            return Ok(Ended::Done);
        }
        let notices: Vec<String> =
            status.notices.iter().flat_map(|notice| trouble("", "Service", notice)).collect();
        if !notices.is_empty() {
            streams.data(&(notices.join("\n") + "\n"));
        }
        if status.companies.is_empty() {
            streams.note("There is no company yet. `narvaro company new` prints a file to start from; `narvaro apply` makes it live.");
        }
        let companies: Vec<String> = status.companies.iter().map(company).collect();
        if !companies.is_empty() {
            streams.data(&companies.join("\n\n"));
        }
        Ok(Ended::Done)
    }
}

fn company(company: &CompanyStatus) -> String {
    let zone = &company.time_zone;
    let mut lines = vec![
        format!("{} ({}), times in {zone}", company.name, company.id),
        format!("  Consent  {}", consent(&company.consent, zone)),
        format!("  PBX      {}", pbx(&company.pbx)),
    ];
    lines.extend(trouble("  ", "Company", &company.health));
    if company.mailboxes.is_empty() {
        lines.push("  No users.".to_owned());
        return lines.join("\n");
    }
    lines.push(String::new());
    let rows: Vec<_> = company.mailboxes.iter().map(|mailbox| row(mailbox, zone)).collect();
    let head =
        ["EXT", "NAME", "ALIAS", "SHOWS", "UNTIL", "NEXT CHANGE", "SUBSCRIBED UNTIL", "PROVEN", "HEALTH"];
    lines.extend(table(head, &rows).into_iter().map(|line| format!("  {line}")));
    for mailbox in &company.mailboxes {
        let what = format!("{} {}", mailbox.extension, mailbox.alias);
        let told = trouble("  ", &what, &mailbox.health);
        if !told.is_empty() {
            lines.push(String::new());
            lines.extend(told);
        }
    }
    lines.join("\n")
}

fn row(mailbox: &MailboxStatus, zone: &str) -> [String; 9] {
    let dash = || "-".to_owned();
    [
        mailbox.extension.to_string(),
        mailbox.name.clone().unwrap_or_else(dash),
        mailbox.alias.clone(),
        mailbox.shown.as_ref().map_or_else(dash, label),
        shown_or_dash(mailbox.shown.as_ref().and_then(|presence| presence.until), zone),
        shown_or_dash(mailbox.next_change, zone),
        shown_or_dash(mailbox.subscription_expires, zone),
        shown_or_dash(mailbox.proven_until, zone),
        mailbox.health.name(),
    ]
}

fn label(presence: &ShownPresence) -> String {
    presence.label.clone()
}

fn consent(consent: &Consent, zone: &str) -> String {
    match consent {
        Consent::NotNeeded => "not needed".to_owned(),
        Consent::Missing => "missing".to_owned(),
        Consent::Given { tenant, since: Some(since) } => {
            format!("given by tenant {tenant} at {}", shown(*since, zone))
        }
        Consent::Given { tenant, since: None } => format!("given by tenant {tenant}"),
        Consent::Withdrawn { since } => format!("withdrawn, noticed at {}", shown(*since, zone)),
    }
}

fn pbx(link: &PbxLink) -> String {
    match link {
        PbxLink::None => "none".to_owned(),
        PbxLink::Unknown => "not tried yet".to_owned(),
        PbxLink::Up => "answers".to_owned(),
        PbxLink::Down { cause } => format!("DOWN: {cause}"),
    }
}

/// Cause and cure, where there is something to tell.
pub(super) fn trouble(indent: &str, what: &str, report: &HealthReport) -> Vec<String> {
    let word = match report.severity {
        Severity::Fine => return Vec::new(),
        Severity::Warning => "warning",
        Severity::Trouble => "TROUBLE",
    };
    let mut lines = vec![
        format!("{indent}{word}: {what}: {}", report.name()),
        format!("{indent}  cause: {}", report.cause),
    ];
    if !report.cure.is_empty() {
        lines.push(format!("{indent}  cure:  {}", report.cure));
    }
    lines
}
