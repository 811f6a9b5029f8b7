//! The binary: hands the command line over and turns its end into an exit code.

use std::process::ExitCode;

use narvaro::{cli, config::Environment};

#[tokio::main]
async fn main() -> ExitCode {
    // The second installation of a provider fails; this is the first.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let (mut out, mut err) = (std::io::stdout(), std::io::stderr());
    cli::run(std::env::args_os(), Environment::process(), &mut out, &mut err).await.into()
}
