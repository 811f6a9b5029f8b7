//! The binary: hands the command line over and turns its end into an exit code.

use std::{io::Write, process::ExitCode, time::Duration};

use narvaro::{cli, config::Environment};

/// Faster than the system's where much is allocated and freed, as a webhook does.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How long the end waits for calls that cannot be broken off: a look-up of a name by the system may hang.
const LINGER: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    // The second installation of a provider fails; this is the first.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let (mut out, mut err) = (std::io::stdout(), std::io::stderr());
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            // Where there is nowhere to write, nobody reads.
            let _ = writeln!(err, "error: the system gives no threads: {error}");
            return ExitCode::FAILURE;
        }
    };
    let code = runtime.block_on(cli::run(std::env::args_os(), Environment::process(), &mut out, &mut err));
    runtime.shutdown_timeout(LINGER);
    code.into()
}
