//! The service as a process: started, asked by its own command line, stopped.

use std::{
    fs::File,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use crate::Fallible;

/// How long the service may take to start, and to stop.
const START_WITHIN: Duration = Duration::from_secs(20);
const STOP_WITHIN: Duration = Duration::from_secs(15);

const LOOK_EVERY: Duration = Duration::from_millis(20);

/// The running service. Dropped, it is killed.
pub(crate) struct Service {
    program: PathBuf,
    folder: PathBuf,
    child: Child,
}

/// What a command line printed.
pub(crate) struct Printed {
    /// The command as a reader would type it.
    pub(crate) command: String,
    /// Data first, then talk.
    pub(crate) text: String,
}

impl Service {
    /// Starts it in a folder that holds its configuration; what it logs goes to `narvaro.log` there.
    pub(crate) fn start(program: &Path, folder: &Path) -> Fallible<Self> {
        let log = File::create(folder.join("narvaro.log"))?;
        let child = command(program, folder)
            .arg("serve")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .map_err(|error| format!("`{}` cannot be started: {error}", program.display()))?;
        Ok(Self { program: program.to_owned(), folder: folder.to_owned(), child })
    }

    /// Waits until it answers.
    pub(crate) async fn until_ready(
        &mut self,
        client: &reqwest::Client,
        private: SocketAddr,
    ) -> Fallible<()> {
        let address = format!("http://{private}/health/ready");
        let end = Instant::now() + START_WITHIN;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Err(format!("the service ended while it started ({status})").into());
            }
            let answer = client.get(&address).send().await;
            if answer.is_ok_and(|answer| answer.status().is_success()) {
                return Ok(());
            }
            if Instant::now() > end {
                return Err(format!("the service did not start within {} s", START_WITHIN.as_secs()).into());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Runs `narvaro` with these arguments; an exit code other than 0 is a failure.
    pub(crate) async fn ask(&self, arguments: &[&str]) -> Fallible<Printed> {
        let quoted = arguments.iter().map(|argument| {
            if argument.contains([' ', ':']) { format!("\"{argument}\"") } else { (*argument).to_owned() }
        });
        let typed = format!("narvaro {}", quoted.collect::<Vec<_>>().join(" "));
        let mut asked = command(&self.program, &self.folder);
        asked.args(arguments).stdin(Stdio::null());
        let output = tokio::task::spawn_blocking(move || asked.output()).await??;
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text).trim_end().to_owned();
        if !output.status.success() {
            return Err(format!("`{typed}` failed ({}):\n{text}", output.status).into());
        }
        Ok(Printed { command: typed, text })
    }

    /// Asks it to stop and waits; one that does not, or says that it failed, is a failure.
    pub(crate) async fn stop(mut self) -> Fallible<()> {
        // The standard library can only kill; the shell has `kill` built in.
        let pid = self.child.id().to_string();
        Command::new("sh").args(["-c", "kill -TERM \"$1\"", "sh", &pid]).status()?;
        let end = Instant::now() + STOP_WITHIN;
        while Instant::now() < end {
            match self.child.try_wait()? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => return Err(format!("the service did not stop in order ({status})").into()),
                None => tokio::time::sleep(LOOK_EVERY).await,
            }
        }
        Err(format!("the service did not stop within {} s", STOP_WITHIN.as_secs()).into())
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // Both fail where it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Without what the surroundings might say to another installation, or about proxies.
fn command(program: &Path, folder: &Path) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        if name.starts_with("NARVARO") || name.to_lowercase().ends_with("_proxy") {
            command.env_remove(&*name);
        }
    }
    command.env("NO_COLOR", "1").env("NARVARO_CONFIG", folder.join("narvaro.toml")).current_dir(folder);
    command
}

/// Addresses that nobody listens at. Between this and their use somebody may take one; the start then fails
/// with the port's name.
pub(crate) fn free_addresses() -> Fallible<(SocketAddr, SocketAddr)> {
    let (one, other) = (TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?);
    Ok((one.local_addr()?, other.local_addr()?))
}
