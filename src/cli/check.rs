//! `narvaro check`: what holds, what does not, and the next step. Works without a running service too.

use std::path::PathBuf;

use clap::Args;

use super::{Client, Ended, Failure, Options, Streams, language::Spoken};
use crate::{
    admin::{CheckLine, CheckReport, Scope},
    company::Company,
    config::{Config, Environment, Findings},
    counted::counted,
    model::{CompanyId, Language},
};

#[derive(Debug, Args)]
pub(super) struct Check {
    /// Company files to be checked too; nothing is applied.
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Only this company's outside systems.
    #[arg(long)]
    company: Option<CompanyId>,
    #[command(flatten)]
    spoken: Spoken,
}

impl Check {
    pub(super) async fn run(
        self,
        options: &Options,
        environment: &Environment,
        streams: &mut Streams<'_>,
    ) -> Result<Ended, Failure> {
        let language = self.spoken.language();
        let mut checks = configuration(options, environment, language);
        for file in &self.files {
            checks.extend(company_file(file, language));
        }
        checks.extend(self.service(options, environment).await);
        let report = CheckReport { checks };
        if options.json {
            streams.json(&report)?;
        } else {
            streams.data(&text(&report, language));
        }
        Ok(if report.ok() { Ended::Done } else { Ended::FoundTrouble })
    }

    /// Whether the service answers, and what it says about the systems outside.
    async fn service(&self, options: &Options, environment: &Environment) -> Vec<CheckLine> {
        let language = self.spoken.language();
        let what = language.say("tjänsten", "service");
        let client = match Client::connect(options, environment) {
            Ok(client) => client,
            Err(failure) => return vec![failed(what, &failure)],
        };
        let answer: Result<CheckReport, Failure> =
            client.get("check", &Scope { company: self.company.clone(), language: Some(language) }).await;
        match answer {
            Ok(report) => {
                let mut lines = vec![good(
                    what,
                    format!("{} {}", language.say("svarar på", "answers at"), client.address()),
                )];
                lines.extend(report.checks);
                lines
            }
            Err(failure) => vec![failed(what, &failure)],
        }
    }
}

fn configuration(options: &Options, environment: &Environment, language: Language) -> Vec<CheckLine> {
    let what = language.say("konfigurationen", "configuration");
    let said = Config::load(options.config.as_deref(), environment).and_then(|config| {
        config.complete()?;
        Ok(config)
    });
    match said {
        Ok(config) => vec![good(what, format!("{} {}", config.name(), language.say("håller", "holds")))],
        Err(findings) => told(what, &findings),
    }
}

fn company_file(path: &std::path::Path, language: Language) -> Vec<CheckLine> {
    let what = language.say("företagsfilen", "company file");
    let name = path.display().to_string();
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) => {
            let failure = Failure::of(format!("{name} cannot be read"), &error).hint("check the path");
            return vec![failed(what, &failure)];
        }
    };
    match Company::parse(&name, &text) {
        Ok(parsed) => {
            let (id, users) = (parsed.company.id(), parsed.company.users().len());
            let holds = match language {
                Language::Sv => format!("{name} håller: företag `{id}` med {users} användare"),
                Language::En => {
                    let users = counted(users, "user", "users");
                    format!("{name} holds: company `{id}` with {users}")
                }
            };
            let mut lines = vec![good(what, holds)];
            lines.extend(parsed.warnings.iter().map(|warning| CheckLine {
                what: what.to_owned(),
                ok: true,
                said: format!("{} {warning}", language.say("men", "but")),
                cure: Some(warning.remedy.clone()),
            }));
            lines
        }
        Err(findings) => told(what, &findings),
    }
}

fn told(what: &str, findings: &Findings) -> Vec<CheckLine> {
    let line = |finding: &crate::config::Finding| CheckLine {
        what: what.to_owned(),
        ok: false,
        said: finding.to_string(),
        cure: Some(finding.remedy.clone()),
    };
    findings.findings.iter().map(line).collect()
}

fn good(what: &str, said: String) -> CheckLine {
    CheckLine { what: what.to_owned(), ok: true, said, cure: None }
}

fn failed(what: &str, failure: &Failure) -> CheckLine {
    CheckLine { what: what.to_owned(), ok: false, said: failure.sentence(), cure: failure.first_hint() }
}

fn text(report: &CheckReport, language: Language) -> String {
    let (fail, next) = (language.say("FEL ", "FAIL"), language.say("nästa steg", "next"));
    let mut lines = Vec::new();
    for check in &report.checks {
        lines.push(format!("{}  {}: {}", if check.ok { "ok  " } else { fail }, check.what, check.said));
        lines.extend(check.cure.iter().map(|cure| format!("      {next}: {cure}")));
    }
    let failed = report.checks.iter().filter(|check| !check.ok).count();
    lines.push(match (failed, language) {
        (0, Language::Sv) => "\nAllt är bra.".to_owned(),
        (0, Language::En) => "\nAll is well.".to_owned(),
        (1, Language::Sv) => "\n1 sak är fel.".to_owned(),
        (1, Language::En) => "\n1 thing is wrong.".to_owned(),
        (many, Language::Sv) => format!("\n{many} saker är fel."),
        (many, Language::En) => format!("\n{many} things are wrong."),
    });
    lines.join("\n")
}
