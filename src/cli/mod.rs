//! The command line: one file per subcommand.
//!
//! All but `serve`, `store`, `company new`, `config new` and `openapi` ask the running service over its private listener, with the
//! token that it made at its first start; address and token come from the same configuration that the service
//! reads. Data goes to stdout, talk and progress to stderr; `--json` makes both readable for scripts. Only
//! `remove` asks a question, and only on a terminal. Exit code 0: done; 1: failed, or `check` found something; 2: wrong usage.
//!
//! A failure reads the same everywhere: what was tried, the causes, and a hint that can be acted on ([`Failure`]).
//!
//! Why the service is asked, and the store not opened: the store belongs to one process, and the answers
//! (`explain`, `status`) must be the ones that the service itself acts by. `store` is about a store that no service has.

mod apply;
mod audit;
mod backup;
mod check;
mod client;
mod company;
mod config;
mod consent_url;
mod explain;
mod export;
mod failure;
mod language;
mod remove;
mod serve;
mod status;
mod store;
mod streams;
mod subscriptions;
mod sync;
mod table;
mod time;
mod try_subject;

#[cfg(test)]
mod tests;

use std::{ffi::OsString, io::Write, path::PathBuf};

use clap::{Args, Parser, Subcommand};

use crate::{admin::openapi, config::Environment};
use client::Client;
pub use failure::Failure;
use streams::Streams;

/// Keeps a telephone system in step with people's calendars.
#[derive(Debug, Parser)]
#[command(name = "narvaro", version, propagate_version = true, arg_required_else_help = true)]
struct Line {
    #[command(flatten)]
    options: Options,
    #[command(subcommand)]
    command: Command,
}

/// What every subcommand takes.
#[derive(Debug, Args)]
struct Options {
    /// Configuration file; without it `NARVARO_CONFIG`, else `narvaro.toml` here.
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Write JSON for scripts.
    #[arg(long, global = true)]
    json: bool,
    /// Address of the private listener, as `http://127.0.0.1:8081`.
    #[arg(long, global = true, value_name = "URL")]
    url: Option<String>,
    /// File with the token of the admin API.
    #[arg(long, global = true, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the service.
    Serve,
    /// Make a company file live, all or nothing, and say what changes.
    Apply(apply::Apply),
    /// Write an applied company as a company file.
    Export(export::Export),
    /// Take a company out: give its phones back, delete its subscriptions, forget it.
    Remove(remove::Remove),
    /// Print the address at which a company's administrator gives consent.
    ConsentUrl(consent_url::ConsentUrl),
    /// Show companies, mailboxes, what the PBX shows, and what is wrong, with cause and cure.
    Status(status::Status),
    /// Say why a user shows what they show, now or at another time.
    Explain(explain::Explain),
    /// Say what a subject would do.
    Try(try_subject::Try),
    /// List or renew the subscriptions at Microsoft 365, and follow jobs of renewal.
    #[command(subcommand)]
    Subscriptions(subscriptions::Subscriptions),
    /// Read calendars anew now.
    Sync(sync::Sync),
    /// Try configuration, service and every outside system, and say the next step.
    Check(check::Check),
    /// Show who did what, to which company, with which outcome.
    Audit(audit::Audit),
    /// Write the configuration of all companies into one file: nothing of calendars, and secrets only by name.
    Backup(backup::Backup),
    /// Put companies back as a backup has them, and say what changes; others stay as they are.
    Restore(backup::Restore),
    /// Move a store, or look whether it holds together, while the service is stopped.
    #[command(subcommand)]
    Store(store::Store),
    /// Print the OpenAPI document of the admin API.
    Openapi,
    /// Print a commented company file to start from.
    #[command(subcommand)]
    Company(company::Company),
    /// Print the commented configuration to start from.
    #[command(subcommand)]
    Config(config::Config),
}

/// Runs one command line and says how it ended: 0 done, 1 failed, 2 wrong usage.
pub async fn run(
    arguments: impl IntoIterator<Item = OsString>,
    environment: Environment,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> u8 {
    let mut streams = Streams::new(out, err);
    let line = match Line::try_parse_from(arguments) {
        Ok(line) => line,
        Err(said) => {
            let usage = said.render().to_string();
            if said.use_stderr() {
                streams.note(&usage)
            } else {
                streams.data(&usage)
            }
            return u8::try_from(said.exit_code()).unwrap_or(2);
        }
    };
    let json = line.options.json;
    let ended = dispatch(line, environment, &mut streams).await.and_then(|ended| {
        streams.written()?;
        Ok(ended)
    });
    match ended {
        Ok(ended) => ended as u8,
        Err(failure) if json => {
            streams.note(&failure.to_json());
            1
        }
        Err(failure) => {
            streams.note(&failure.to_string());
            1
        }
    }
}

/// How a command that did not fail ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    /// As wished.
    Done = 0,
    /// It did its work, and its work was to find trouble.
    FoundTrouble = 1,
}

async fn dispatch(line: Line, environment: Environment, streams: &mut Streams<'_>) -> Result<Ended, Failure> {
    let Line { options, command } = line;
    match command {
        Command::Serve => return serve::run(&options, &environment).await.map(|()| Ended::Done),
        Command::Check(check) => return check.run(&options, &environment, streams).await,
        Command::Store(store) => return store.run(&options, &environment, streams).await,
        Command::Company(company) => return company.run(options.json, streams),
        Command::Config(config) => return config.run(options.json, streams),
        Command::Openapi => return streams.json(&openapi()).map(|()| Ended::Done),
        _ => {}
    }
    let client = Client::connect(&options, &environment)?;
    let json = options.json;
    match command {
        Command::Apply(apply) => apply.run(&client, json, streams).await,
        Command::Export(export) => export.run(&client, json, streams).await,
        Command::Remove(remove) => remove.run(&client, json, streams).await,
        Command::ConsentUrl(consent) => consent.run(&client, json, streams).await,
        Command::Status(status) => status.run(&client, json, streams).await,
        Command::Explain(explain) => explain.run(&client, json, streams).await,
        Command::Try(attempt) => attempt.run(&client, json, streams).await,
        Command::Subscriptions(subscriptions) => subscriptions.run(&client, json, streams).await,
        Command::Sync(sync) => sync.run(&client, json, streams).await,
        Command::Backup(backup) => backup.run(&client, json, streams).await,
        Command::Restore(restore) => restore.run(&client, json, streams).await,
        Command::Audit(audit) => audit.run(&client, json, streams).await,
        Command::Serve
        | Command::Check(_)
        | Command::Store(_)
        | Command::Company(_)
        | Command::Config(_)
        | Command::Openapi => Ok(Ended::Done),
    }
}
