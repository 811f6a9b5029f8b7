//! Measures what Närvaro promises about cost and speed, prints it as a table, and fails where a promise is not kept.
//!
//! Each subcommand compares with something that needs no belief: the same server without the work, another
//! regular-expression engine on the same words. What is compared runs in alternation, in one sitting, so that a
//! machine that slows down or speeds up does so for both sides.
#![expect(clippy::print_stdout, reason = "a benchmark's output is its purpose")]
#![expect(
    clippy::disallowed_methods,
    reason = "a benchmark spawns its own tasks; nothing of it is part of the service"
)]

mod ack;
mod chaos;
mod dice;
mod fleet;
mod hour;
mod load;
mod matching;
mod process;
mod redis;
mod relay;
mod renew;
mod report;
mod seeded;
mod service;
mod shared;
mod site;
mod turns;
mod wake;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The service's own, for the bare route too.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Parser)]
#[command(about, disable_version_flag = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// The acknowledged path: verified, stored, 202; against a route that reads the body and answers 202
    Ack(ack::Options),
    /// Trigger words in subjects; against Python's `re`
    Match(matching::Options),
    /// How soon a phone follows a notification, and the start of an event
    Turns(turns::Options),
    /// All subscriptions renewed at once, with a restart on the way
    Renew(renew::Options),
    /// Replicas in the middle of everything that can go wrong: nothing is lost, nothing is done twice
    Chaos(chaos::Options),
    /// How soon a turn begins on another replica
    Wake(wake::Options),
    /// What very many mailboxes cost, and what of it grows
    Load(load::Options),
    /// Very many meetings that start at the same instant
    FullHour(hour::Options),
    /// One of the servers that `ack` and `wake` compare
    #[command(hide = true)]
    Serve(ack::serve::Options),
}

fn main() -> anyhow::Result<ExitCode> {
    let kept = match Arguments::parse().command {
        Command::Ack(options) => ack::run(&options)?,
        Command::Match(options) => matching::run(&options)?,
        Command::Turns(options) => turns::run(&options)?,
        Command::Renew(options) => renew::run(&options)?,
        Command::Chaos(options) => chaos::run(&options)?,
        Command::Wake(options) => wake::run(&options)?,
        Command::Load(options) => load::run(&options)?,
        Command::FullHour(options) => hour::run(&options)?,
        Command::Serve(options) => {
            ack::serve::run(&options)?;
            true
        }
    };
    Ok(if kept { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
