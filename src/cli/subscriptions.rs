//! `narvaro subscriptions`: the watches at Microsoft 365.

use std::time::{Duration, Instant};

use clap::{ArgGroup, Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use super::{Client, Ended, Failure, Streams, language::Spoken, status::trouble, table::table};
use crate::{
    admin::{JobInfo, JobProgress, JobStarted, RenewRequest, Scope, SubscriptionInfo},
    counted::counted,
    model::{CompanyId, Language},
};

/// How often a job is asked how far it is: quick for the eye, slow for the service.
const ASK_EVERY: Duration = Duration::from_millis(200);

/// How often a line tells how far a job is, where no bar can be drawn: in the log of a timer or a pipeline.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// From so many mailboxes on, a job takes long enough to be left alone.
const LONG: u64 = 20;

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
    /// List jobs of renewal, the newest first.
    Jobs {
        /// Only those about this company.
        #[arg(long)]
        company: Option<CompanyId>,
    },
    /// End a job early: what has not begun stays as it is.
    Cancel {
        /// The job.
        job: String,
    },
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("scope").args(["company", "user", "all", "job"]).required(true).multiple(true))]
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
    /// Start nothing: follow this job, which is under way or has ended.
    #[arg(long, conflicts_with_all = ["company", "user", "all"])]
    job: Option<String>,
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
            Self::Jobs { company } => jobs(company, client, json, streams).await,
            Self::Cancel { job } => cancel(&job, client, json, streams).await,
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

async fn jobs(
    company: Option<CompanyId>,
    client: &Client,
    json: bool,
    streams: &mut Streams<'_>,
) -> Result<Ended, Failure> {
    let jobs: Vec<JobInfo> = client.get("jobs", &json!({ "company": company })).await?;
    if json {
        streams.json(&jobs)?;
        return Ok(Ended::Done);
    }
    let rows: Vec<_> = jobs
        .iter()
        .map(|one| {
            let progress = &one.progress;
            let state = match (progress.finished, progress.cancelled) {
                (_, true) => "ended early",
                (true, false) => "done",
                (false, false) => "under way",
            };
            let failed: u64 = progress.reasons.values().sum();
            [
                one.job.to_string(),
                one.started.strftime("%Y-%m-%d %H:%MZ").to_string(),
                one.by.clone(),
                one.company.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string),
                one.user.clone().unwrap_or_else(|| "-".to_owned()),
                format!("{} of {}", progress.done, progress.total),
                failed.to_string(),
                state.to_owned(),
            ]
        })
        .collect();
    let head = ["JOB", "STARTED", "BY", "COMPANY", "USER", "DONE", "FAILED", "STATE"];
    streams.data(&table(head, &rows).join("\n"));
    Ok(Ended::Done)
}

async fn cancel(job: &str, client: &Client, json: bool, streams: &mut Streams<'_>) -> Result<Ended, Failure> {
    let progress: JobProgress = client.post(&format!("jobs/{job}/cancel"), &json!({})).await?;
    if json {
        streams.json(&progress)?;
    } else if progress.cancelled {
        streams.data(&format!("Ended early, {} of {} done.", progress.done, progress.total));
    } else {
        streams.data("It had ended already.");
    }
    Ok(Ended::Done)
}

impl Renew {
    async fn run(self, client: &Client, json: bool, streams: &mut Streams<'_>) -> Result<Ended, Failure> {
        let language = self.spoken.language();
        let job = match self.job {
            Some(job) => job,
            None => {
                let request = RenewRequest {
                    company: self.company,
                    user: self.user,
                    all: self.all,
                    language: Some(language),
                };
                let started: JobStarted = client.post("subscriptions/renew", &request).await?;
                if !json {
                    announce(&started, language, streams);
                }
                started.job.0
            }
        };
        let bar = progress_bar();
        let mut told = Instant::now();
        let progress = loop {
            let progress: JobProgress = client.get_patiently(&format!("jobs/{job}")).await?;
            bar.set_length(progress.total);
            bar.set_position(progress.done);
            if progress.finished {
                break progress;
            }
            if bar.is_hidden() && told.elapsed() >= TELL_EVERY {
                told = Instant::now();
                streams.note(&how_far(&progress, language));
            }
            tokio::time::sleep(ASK_EVERY).await;
        };
        bar.finish_and_clear();
        if json {
            streams.json(&progress)?;
        } else {
            tell(&progress, language, streams);
        }
        // Of a job that was cancelled some are not renewed, whoever cancelled it.
        let all_is_done = progress.reasons.is_empty() && !progress.cancelled;
        Ok(if all_is_done { Ended::Done } else { Ended::FoundTrouble })
    }
}

/// A job that takes its time is named, so that it can be followed from elsewhere.
fn announce(started: &JobStarted, language: Language, streams: &mut Streams<'_>) {
    let JobStarted { job, total, under_way } = started;
    if *under_way {
        streams.note(&match language {
            Language::Sv => format!("Jobb {job} pågår redan för dessa; det fortsätter där det är."),
            Language::En => format!("Job {job} is under way for these already; it goes on where it is."),
        });
    } else if *total >= LONG {
        let follow = format!("`narvaro subscriptions renew --job {job}`");
        streams.note(&match language {
            Language::Sv => format!("Jobb {job} går i tjänsten: lämna det med Ctrl-C om du vill, det fortsätter; {follow} följer det igen."),
            Language::En => format!("Job {job} runs in the service: leave it with Ctrl-C if you like, it goes on; {follow} follows it again."),
        });
    }
}

/// On stderr; hidden where that is no terminal.
fn progress_bar() -> ProgressBar {
    let bar = ProgressBar::new(0);
    if let Ok(style) = ProgressStyle::with_template("Renewing {wide_bar} {pos} of {len}, {eta} left") {
        bar.set_style(style);
    }
    bar
}

fn how_far(progress: &JobProgress, language: Language) -> String {
    let JobProgress { total, done, reasons, .. } = progress;
    let failed: u64 = reasons.values().sum();
    match language {
        Language::Sv => format!("{done} av {total} klara, {failed} misslyckade"),
        Language::En => format!("{done} of {total} done, {failed} failed"),
    }
}

fn tell(progress: &JobProgress, language: Language, streams: &mut Streams<'_>) {
    let JobProgress { total, renewed, made_anew, reasons, failed, cancelled, .. } = progress;
    // Not what is left of `done`: of those that failed only the first are told.
    let done = renewed + made_anew;
    let early = if *cancelled {
        language
            .say("; jobbet avbröts, resten är som det var", "; the job was cancelled, the rest is as it was")
    } else {
        ""
    };
    streams.data(&match language {
        Language::Sv => {
            let anew = if *made_anew > 0 { format!(", {made_anew} av dem på nytt") } else { String::new() };
            let all = counted(*total, "prenumeration", "prenumerationer");
            format!("{done} av {all} förnyades{anew}{early}.")
        }
        Language::En => {
            let anew =
                if *made_anew > 0 { format!(", {made_anew} of them made anew") } else { String::new() };
            let all = counted(*total, "subscription", "subscriptions");
            format!("Renewed {done} of {all}{anew}{early}.")
        }
    });
    let word = language.say("misslyckades", "failed");
    for failure in failed {
        streams.note(&format!("{word}: {failure}"));
    }
    let all: u64 = reasons.values().sum();
    if all == 0 {
        return;
    }
    let untold = all.saturating_sub(failed.len() as u64);
    if untold > 0 {
        streams.note(&format!("{word}: {untold} {}", language.say("till", "more")));
    }
    for (reason, count) in reasons {
        let with = language.say("med", "with");
        streams.note(&format!("{count} {word} {with} `{reason}`"));
    }
    streams.note(language.say(
        "\ntips: `narvaro status` säger orsak och åtgärd; var och en provas igen av sig själv",
        "\nhint: `narvaro status` tells cause and cure; each is tried again by itself",
    ));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_no_bar_is_drawn_a_line_tells_how_far_a_job_is() {
        let reasons = [("throttled".to_owned(), 2), ("no_mailbox".to_owned(), 1)].into();
        let progress = JobProgress { total: 10_000, done: 4_000, reasons, ..JobProgress::default() };
        assert_eq!(how_far(&progress, Language::En), "4000 of 10000 done, 3 failed");
        assert_eq!(how_far(&progress, Language::Sv), "4000 av 10000 klara, 3 misslyckade");
    }
}
