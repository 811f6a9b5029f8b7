//! `narvaro subscriptions`: the watches at Microsoft 365.

use std::time::Duration;

use clap::{ArgGroup, Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};

use super::{Client, Ended, Failure, Streams, language::Spoken, status::trouble, table::table};
use crate::{
    admin::{JobProgress, JobStarted, RenewRequest, Scope, SubscriptionInfo},
    model::{CompanyId, Language},
};

/// How often a job is asked how far it is: quick for the eye, slow for the service.
const ASK_EVERY: Duration = Duration::from_millis(200);

#[derive(Debug, Subcommand)]
pub(super) enum Subscriptions {
    /// List them, with their ends.
    List {
        /// Only this company's.
        #[arg(long)]
        company: Option<CompanyId>,
        #[command(flatten)]
        spoken: Spoken,
    },
    /// Renew them now, or set them up anew.
    Renew(Renew),
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("scope").args(["company", "user", "all"]).required(true).multiple(true))]
pub(super) struct Renew {
    /// Only this company's.
    #[arg(long)]
    company: Option<CompanyId>,
    /// Only this user's: extension or alias.
    #[arg(long, conflicts_with = "all")]
    user: Option<String>,
    /// All of the company's, or of all companies.
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    spoken: Spoken,
}

impl Subscriptions {
    pub(super) async fn run(
        self,
        client: &Client,
        json: bool,
        streams: &mut Streams<'_>,
    ) -> Result<Ended, Failure> {
        match self {
            Self::List { company, spoken } => list(company, spoken.language(), client, json, streams).await,
            Self::Renew(renew) => renew.run(client, json, streams).await,
        }
    }
}

async fn list(
    company: Option<CompanyId>,
    language: Language,
    client: &Client,
    json: bool,
    streams: &mut Streams<'_>,
) -> Result<Ended, Failure> {
    let list: Vec<SubscriptionInfo> =
        client.get("subscriptions", &Scope { company, language: Some(language) }).await?;
    if json {
        streams.json(&list)?;
        return Ok(Ended::Done);
    }
    let when = |at: Option<jiff::Timestamp>| {
        at.map_or_else(|| "-".to_owned(), |at| at.strftime("%Y-%m-%d %H:%MZ").to_string())
    };
    let rows: Vec<_> = list
        .iter()
        .map(|one| {
            [
                one.company.to_string(),
                one.extension.to_string(),
                one.alias.clone(),
                when(one.expires),
                when(one.renew_at),
                one.id.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string),
                one.health.title(language),
            ]
        })
        .collect();
    let head = match language {
        Language::Sv => ["FÖRETAG", "ANKN", "ALIAS", "LÖPER UT", "FÖRNYAS", "ID", "TILLSTÅND"],
        Language::En => ["COMPANY", "EXT", "ALIAS", "EXPIRES", "TO BE RENEWED", "ID", "HEALTH"],
    };
    let mut lines = table(head, &rows);
    for one in &list {
        let what = format!("{} {} {}", one.company, one.extension, one.alias);
        lines.extend(trouble("", &what, &one.health, language));
    }
    streams.data(&lines.join("\n"));
    Ok(Ended::Done)
}

impl Renew {
    async fn run(self, client: &Client, json: bool, streams: &mut Streams<'_>) -> Result<Ended, Failure> {
        let language = self.spoken.language();
        let request = RenewRequest { company: self.company, user: self.user, language: Some(language) };
        let JobStarted { job, total } = client.post("subscriptions/renew", &request).await?;
        let bar = progress_bar(total);
        let progress = loop {
            let progress: JobProgress = client.get(&format!("jobs/{job}"), &()).await?;
            bar.set_position(progress.done);
            if progress.finished {
                break progress;
            }
            tokio::time::sleep(ASK_EVERY).await;
        };
        bar.finish_and_clear();
        if json {
            streams.json(&progress)?;
        } else {
            tell(&progress, language, streams);
        }
        Ok(if progress.failed.is_empty() { Ended::Done } else { Ended::FoundTrouble })
    }
}

/// On stderr; draws nothing where that is no terminal.
fn progress_bar(total: u64) -> ProgressBar {
    let bar = ProgressBar::new(total);
    if let Ok(style) = ProgressStyle::with_template("Renewing {wide_bar} {pos} of {len}, {eta} left") {
        bar.set_style(style);
    }
    bar
}

fn tell(progress: &JobProgress, language: Language, streams: &mut Streams<'_>) {
    let failed = progress.failed.len() as u64;
    let (done, total) = (progress.done.saturating_sub(failed), progress.total);
    streams.data(&match language {
        Language::Sv => format!("{done} av {total} prenumerationer förnyades."),
        Language::En => format!("Renewed {done} of {total} subscriptions."),
    });
    for failure in &progress.failed {
        streams.note(&format!("{}: {failure}", language.say("misslyckades", "failed")));
    }
    if failed > 0 {
        streams.note(language.say(
            "\ntips: `narvaro status` säger orsak och åtgärd; var och en provas igen av sig själv",
            "\nhint: `narvaro status` tells cause and cure; each is tried again by itself",
        ));
    }
}
