//! The demo: the real service, as a process of its own, against the simulators in this one.
//!
//! It tells the story of one event from consent to the phone and back, checks each step as it tells it, and ends
//! with the measured times. With `--once` it ends there, 0 if every step held; without, it goes on and says where
//! to look. The service is only started, spoken to by HTTP and asked by its own command line: nothing of it is
//! linked in. All that was started ends with this program, and nothing is left in the file system.
//!
//! Times come from the simulators' journal: the moment at which Graph changed, and at which the PBX was told.

mod service;
mod stage;
mod story;
mod voice;
mod ways;

use std::{error::Error, path::PathBuf, process::ExitCode, time::Duration};

use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

use stage::Stage;
use voice::Voice;

/// Far more than the story takes (about 15 s); a demo that hangs is a failed one.
const LIMIT: Duration = Duration::from_secs(60);

type Fallible<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// Shows Närvaro at work against stand-ins for Microsoft 365 and a PBX.
#[derive(Parser)]
struct Arguments {
    /// Check the story as it is told, then end: 0 if every step held.
    #[arg(long)]
    once: bool,
    /// The service's program; without it, the one beside this program.
    #[arg(long, value_name = "FILE")]
    narvaro: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let voice = Voice::new();
    match run(arguments, &voice).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            voice.failed(error.as_ref());
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments, voice: &Voice) -> Fallible<()> {
    let program = match arguments.narvaro {
        Some(program) => program,
        None => std::env::current_exe()?.with_file_name("narvaro"),
    };
    let mut stage = Stage::set(program).await?;
    let told = tokio::select! {
        told = tokio::time::timeout(LIMIT, story::tell(&mut stage, voice)) => told
            .unwrap_or_else(|_| Err(format!("the story did not end within {} s", LIMIT.as_secs()).into())),
        signal = told_to_stop() => {
            let signal = signal?;
            stage.clear().await?;
            return Err(format!("ended by {signal} before the story's end").into());
        }
    };
    if told.is_err() {
        voice.log(&stage.log());
    } else if !arguments.once {
        ways::show(&stage, voice);
        told_to_stop().await?;
    }
    let cleared = stage.clear().await;
    told.and(cleared)
}

/// Waits for Ctrl-C, for being told to stop, or for the terminal to be gone; says which.
async fn told_to_stop() -> Fallible<&'static str> {
    let (mut stop, mut hang_up) = (signal(SignalKind::terminate())?, signal(SignalKind::hangup())?);
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => interrupted.map(|()| "Ctrl-C").map_err(Into::into),
        _ = stop.recv() => Ok("SIGTERM"),
        _ = hang_up.recv() => Ok("SIGHUP"),
    }
}
