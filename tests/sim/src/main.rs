//! The program: starts the stand-ins, plants a seed, says where they are, and runs until it
//! is told to stop.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "the addresses are this program's output, its problems its talk"
)]

use std::{net::SocketAddr, path::PathBuf, process::ExitCode};

use clap::Parser;
use narvaro_sim::{Seed, Sim, SimOptions};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// Microsoft Graph, Entra login and PBX stand-ins for Närvaro.
#[derive(Parser)]
struct Arguments {
    /// Address of the HTTP port (Graph, login, HTTP PBX and the control API).
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Address of the AMI port.
    #[arg(long, default_value = "127.0.0.1:0")]
    ami: SocketAddr,
    /// URL under which clients reach the HTTP port, if it is not the address itself.
    #[arg(long)]
    public_url: Option<String>,
    /// Tenants, apps and users to start with, TOML or JSON.
    #[arg(long)]
    seed: Option<PathBuf>,
    /// Seed of everything random.
    #[arg(long, default_value_t = 1)]
    random: u64,
    /// Deliver to https endpoints without checking their certificates.
    #[arg(long)]
    accept_any_certificate: bool,
    /// More root certificates to trust when delivering, PEM.
    #[arg(long)]
    trusted_roots: Option<PathBuf>,
    /// Host accepted in the audience of certificate assertions.
    #[arg(long, default_value = "login.microsoftonline.com")]
    login_host: Vec<String>,
}

#[tokio::main]
async fn main() -> ExitCode {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    match run(Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> Result<(), Box<dyn std::error::Error>> {
    let seed = match &arguments.seed {
        Some(path) => Seed::read(path)?,
        None => Seed::default(),
    };
    let trusted_roots = match &arguments.trusted_roots {
        Some(path) => vec![std::fs::read_to_string(path)?],
        None => Vec::new(),
    };
    let mut stop = signal(SignalKind::terminate())?;
    let sim = Sim::start(SimOptions {
        listen: arguments.listen,
        ami_listen: arguments.ami,
        public_url: arguments.public_url,
        rng_seed: arguments.random,
        accept_any_certificate: arguments.accept_any_certificate,
        trusted_roots,
        login_audience_hosts: arguments.login_host,
        ..SimOptions::default()
    })
    .await?;
    seed.plant(&sim)?;
    println!(
        "{}",
        json!({
            "base_url": sim.base_url(),
            "graph": sim.graph_url(),
            "login": sim.login_url(),
            "control": format!("{}/sim", sim.base_url()),
            "pbx": format!("{}/pbx", sim.base_url()),
            "ami": sim.ami_addr().to_string(),
        })
    );
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = stop.recv() => {}
    }
    sim.shutdown().await;
    Ok(())
}
