//! `narvaro status`: how companies and mailboxes stand, and what to do about those that do not stand well.

use clap::Args;

use super::{
    Client, Ended, Failure, Streams,
    language::Spoken,
    table::table,
    time::{shown, shown_or_dash},
};
use crate::{
    admin::{
        self, CompanyStatus, Consent, HealthReport, MailboxStatus, PbxLink, ReplicaInfo, Scope, Severity,
    },
    model::{CompanyId, Language},
};

#[derive(Debug, Args)]
pub(super) struct Status {
    /// Only this company.
    company: Option<CompanyId>,
    #[command(flatten)]
    spoken: Spoken,
}

impl Status {
    pub(super) async fn run(
        self,
        client: &Client,
        json: bool,
        streams: &mut Streams<'_>,
    ) -> Result<Ended, Failure> {
        let language = self.spoken.language();
        let scope = Scope { company: self.company, language: Some(language) };
        let status: admin::Status = client.get("status", &scope).await?;
        if json {
            streams.json(&status)?;
            return Ok(Ended::Done);
        }
        let service = language.say("Tjänsten", "Service");
        let notices: Vec<String> =
            status.notices.iter().flat_map(|notice| trouble("", service, notice, language)).collect();
        if !notices.is_empty() {
            streams.data(&(notices.join("\n") + "\n"));
        }
        if !status.replicas.is_empty() {
            streams.data(&replicas(&status.replicas, language));
            streams.data("");
        }
        if status.companies.is_empty() {
            streams.note(language.say("Det finns inget företag än. `narvaro company new` skriver en fil att börja med; `narvaro apply` verkställer den.",
                "There is no company yet. `narvaro company new` prints a file to start from; `narvaro apply` makes it live.",
            ));
        }
        let teller = Teller { language };
        let companies: Vec<String> = status.companies.iter().map(|company| teller.company(company)).collect();
        if !companies.is_empty() {
            streams.data(&companies.join("\n\n"));
        }
        Ok(Ended::Done)
    }
}

/// The processes that share the store, a line each, with times in UTC: they are nobody's in particular.
fn replicas(all: &[ReplicaInfo], language: Language) -> String {
    let head = match language {
        Language::Sv => ["PROCESS", "VERSION", "SEDAN", "HÖRDES", ""],
        Language::En => ["PROCESS", "VERSION", "SINCE", "LAST HEARD", ""],
    };
    let answers = language.say("svarade på detta", "answered this");
    let row = |one: &ReplicaInfo| {
        [
            one.name.clone(),
            one.version.clone(),
            one.started.strftime("%Y-%m-%d %H:%MZ").to_string(),
            one.seen.strftime("%Y-%m-%d %H:%M:%SZ").to_string(),
            if one.answers { answers.to_owned() } else { String::new() },
        ]
    };
    let rows: Vec<_> = all.iter().map(row).collect();
    table(head, &rows).join("\n")
}

/// Says how things stand in the language asked for.
struct Teller {
    language: Language,
}

impl Teller {
    fn say<'t>(&self, sv: &'t str, en: &'t str) -> &'t str {
        self.language.say(sv, en)
    }

    fn company(&self, company: &CompanyStatus) -> String {
        let zone = &company.time_zone;
        let times = self.say("tider i", "times in");
        let mut lines = vec![
            format!("{} ({}), {times} {zone}", company.name, company.id),
            format!("  {}  {}", self.say("Medgivande", "Consent"), self.consent(&company.consent, zone)),
        ];
        if !matches!(company.consent, Consent::NotNeeded) {
            let last = match company.notified_at {
                Some(at) => {
                    format!("{} {}", self.say("senaste aviseringen", "last notification"), shown(at, zone))
                }
                None => self.say("ingen avisering än", "no notification yet").to_owned(),
            };
            lines.push(format!("  {}  {last}", self.say("Push      ", "Push   ")));
        }
        lines.push(format!("  {}  {}", self.say("Växel     ", "PBX    "), self.pbx(&company.pbx)));
        if company.leaving {
            lines.push(format!("  {}  {}", self.say("Tas bort  ", "Leaving"), company.health.cause));
            lines.push(format!("  {}", company.health.cure));
        }
        lines.extend(trouble("  ", self.say("Företaget", "Company"), &company.health, self.language));
        if company.mailboxes.is_empty() {
            lines.push(self.say("  Inga användare.", "  No users.").to_owned());
            return lines.join("\n");
        }
        lines.push(String::new());
        let rows: Vec<_> = company.mailboxes.iter().map(|mailbox| self.row(mailbox, zone)).collect();
        lines.extend(table(self.head(), &rows).into_iter().map(|line| format!("  {line}")));
        for mailbox in &company.mailboxes {
            let what = format!("{} {}", mailbox.extension, mailbox.alias);
            let told = trouble("  ", &what, &mailbox.health, self.language);
            if !told.is_empty() {
                lines.push(String::new());
                lines.extend(told);
            }
        }
        lines.join("\n")
    }

    fn head(&self) -> [&'static str; 9] {
        match self.language {
            Language::Sv => [
                "ANKN",
                "NAMN",
                "ALIAS",
                "VISAR",
                "TILL",
                "NÄSTA ÄNDRING",
                "PRENUMERATION TILL",
                "LÄST",
                "TILLSTÅND",
            ],
            Language::En => [
                "EXT",
                "NAME",
                "ALIAS",
                "SHOWS",
                "UNTIL",
                "NEXT CHANGE",
                "SUBSCRIBED UNTIL",
                "READ",
                "HEALTH",
            ],
        }
    }

    fn row(&self, mailbox: &MailboxStatus, zone: &str) -> [String; 9] {
        let dash = || "-".to_owned();
        [
            mailbox.extension.to_string(),
            mailbox.name.clone().unwrap_or_else(dash),
            mailbox.alias.clone(),
            mailbox.shown.as_ref().map_or_else(dash, |presence| presence.label.clone()),
            shown_or_dash(mailbox.shown.as_ref().and_then(|presence| presence.until), zone),
            shown_or_dash(mailbox.next_change, zone),
            shown_or_dash(mailbox.subscription_expires, zone),
            shown_or_dash(mailbox.proven_until, zone),
            mailbox.health.title(self.language),
        ]
    }

    fn consent(&self, consent: &Consent, zone: &str) -> String {
        match (consent, self.language) {
            (Consent::NotNeeded, _) => self.say("behövs inte", "not needed").to_owned(),
            (Consent::Missing, _) => self.say("saknas", "missing").to_owned(),
            (Consent::Given { tenant, since: Some(since) }, Language::Sv) => {
                format!("gett av klientorganisation {tenant} {}", shown(*since, zone))
            }
            (Consent::Given { tenant, since: Some(since) }, Language::En) => {
                format!("given by tenant {tenant} at {}", shown(*since, zone))
            }
            (Consent::Given { tenant, since: None }, Language::Sv) => {
                format!("gett av klientorganisation {tenant}")
            }
            (Consent::Given { tenant, since: None }, Language::En) => format!("given by tenant {tenant}"),
            (Consent::Withdrawn { since }, Language::Sv) => {
                format!("återtaget, märktes {}", shown(*since, zone))
            }
            (Consent::Withdrawn { since }, Language::En) => {
                format!("withdrawn, noticed at {}", shown(*since, zone))
            }
        }
    }

    fn pbx(&self, link: &PbxLink) -> String {
        match link {
            PbxLink::None => self.say("ingen", "none").to_owned(),
            PbxLink::Unknown => self.say("inte provad än", "not tried yet").to_owned(),
            PbxLink::Up => self.say("svarar", "answers").to_owned(),
            PbxLink::Down { cause } => format!("{}: {cause}", self.say("SVARAR INTE", "DOWN")),
            PbxLink::Denied { cause } => format!("{}: {cause}", self.say("NEKAR", "DENIED")),
        }
    }
}

/// Cause and cure, where there is something to tell.
pub(super) fn trouble(indent: &str, what: &str, report: &HealthReport, language: Language) -> Vec<String> {
    let word = match report.severity {
        Severity::Fine => return Vec::new(),
        Severity::Warning => language.say("varning", "warning"),
        Severity::Trouble => language.say("FEL", "TROUBLE"),
    };
    let mut lines = vec![
        format!("{indent}{word}: {what}: {}", report.title(language)),
        format!("{indent}  {} {}", language.say("orsak: ", "cause:"), report.cause),
    ];
    if !report.cure.is_empty() {
        lines.push(format!("{indent}  {} {}", language.say("åtgärd:", "cure: "), report.cure));
    }
    lines
}
