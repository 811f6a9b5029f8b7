//! `narvaro check`: what holds, what does not, and the next step. Works without a running service too.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::{Client, Ended, Failure, Options, Streams};
use crate::{
    admin::{CheckLine, CheckReport},
    company::Company,
    config::{Config, Environment, Findings},
    model::CompanyId,
};

#[derive(Debug, Args)]
pub(super) struct Check {
    /// Company files to be checked too; nothing is applied.
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Only this company's outside systems.
    #[arg(long)]
    company: Option<CompanyId>,
}

impl Check {
    pub(super) async fn run(
        self,
        options: &Options,
        environment: &Environment,
        streams: &mut Streams<'_>,
    ) -> Result<Ended, Failure> {
        let mut checks = configuration(options, environment);
        for file in &self.files {
            checks.extend(company_file(file));
        }
        checks.extend(self.service(options, environment).await);
        let report = CheckReport { checks };
        if options.json {
            streams.json(&report)?;
        } else {
            streams.data(&text(&report));
        }
        Ok(if report.ok() { Ended::Done } else { Ended::FoundTrouble })
    }

    /// Whether the service answers, and what it says about the systems outside.
    async fn service(&self, options: &Options, environment: &Environment) -> Vec<CheckLine> {
        let client = match Client::connect(options, environment) {
            Ok(client) => client,
            Err(failure) => return vec![failed("service", &failure)],
        };
        let answer: Result<CheckReport, Failure> =
            client.get("check", &json!({ "company": self.company })).await;
        match answer {
            Ok(report) => {
                let mut lines = vec![good("service", format!("answers at {}", client.address()))];
                lines.extend(report.checks);
                lines
            }
            Err(failure) => vec![failed("service", &failure)],
        }
    }
}

fn configuration(options: &Options, environment: &Environment) -> Vec<CheckLine> {
    let said = Config::load(options.config.as_deref(), environment).and_then(|config| {
        config.complete()?;
        Ok(config)
    });
    match said {
        Ok(config) => vec![good("configuration", format!("{} holds", config.name()))],
        Err(findings) => told("configuration", &findings),
    }
}

fn company_file(path: &std::path::Path) -> Vec<CheckLine> {
    let what = path.display().to_string();
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) => {
            let failure = Failure::of("cannot be read", &error).hint("check the path");
            return vec![failed(&what, &failure)];
        }
    };
    match Company::parse(&what, &text) {
        Ok(parsed) => {
            let users = parsed.company.users().len();
            let mut lines =
                vec![good(&what, format!("holds: company `{}` with {users} users", parsed.company.id()))];
            lines.extend(parsed.warnings.iter().map(|warning| CheckLine {
                what: what.clone(),
                ok: true,
                said: format!("but {warning}"),
                cure: Some(warning.remedy.clone()),
            }));
            lines
        }
        Err(findings) => told(&what, &findings),
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

fn text(report: &CheckReport) -> String {
    let mut lines = Vec::new();
    for check in &report.checks {
        lines.push(format!("{}  {}: {}", if check.ok { "ok  " } else { "FAIL" }, check.what, check.said));
        lines.extend(check.cure.iter().map(|cure| format!("      next: {cure}")));
    }
    let failed = report.checks.iter().filter(|check| !check.ok).count();
    lines.push(match failed {
        0 => "\nAll is well.".to_owned(),
        1 => "\n1 thing is wrong.".to_owned(),
        many => format!("\n{many} things are wrong."),
    });
    lines.join("\n")
}
