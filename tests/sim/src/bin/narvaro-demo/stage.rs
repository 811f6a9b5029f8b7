//! What the story needs: the simulators in this process, a folder with the files of the demo, and the
//! service beside them.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use narvaro_sim::{Seed, Sim, SimOptions};
use tempfile::TempDir;

use crate::{
    Fallible,
    service::{Service, free_addresses},
};

const CONFIG: &str = include_str!("../../../../../infra/demo/narvaro.toml");
const CLIENT_SECRET: &str = include_str!("../../../../../infra/demo/client-secret");
const COMPANY: &str = include_str!("../../../../../infra/demo/company.toml");
const SEED: &str = include_str!("../../../../../infra/demo/seed.toml");

/// Everything that runs.
pub(crate) struct Stage {
    pub(crate) sim: Sim,
    pub(crate) client: reqwest::Client,
    pub(crate) public: SocketAddr,
    pub(crate) private: SocketAddr,
    program: PathBuf,
    folder: TempDir,
    service: Option<Service>,
}

impl Stage {
    /// Starts the simulators and writes the files; the service is started by the story.
    pub(crate) async fn set(program: PathBuf) -> Fallible<Self> {
        let sim = Sim::start(SimOptions::default()).await?;
        let (public, private) = free_addresses()?;
        let folder = tempfile::Builder::new().prefix("narvaro-demo-").tempdir()?;
        let here = |text: &str| {
            text.replace("127.0.0.1:8080", &public.to_string())
                .replace("127.0.0.1:8081", &private.to_string())
                .replace("http://127.0.0.1:9080", sim.base_url())
        };
        Seed::parse(&here(SEED))?.plant(&sim)?;
        fs::write(folder.path().join("narvaro.toml"), here(CONFIG))?;
        fs::write(folder.path().join("client-secret"), CLIENT_SECRET)?;
        fs::write(folder.path().join("company.toml"), here(COMPANY))?;
        let client = reqwest::Client::builder().no_proxy().build()?;
        Ok(Self { sim, client, public, private, program, folder, service: None })
    }

    /// Where the files of the demo are.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The service's program.
    pub(crate) fn program(&self) -> &Path {
        &self.program
    }

    /// Starts the service and waits until it is ready.
    pub(crate) async fn start_service(&mut self) -> Fallible<()> {
        let service = self.service.insert(Service::start(&self.program, self.folder.path())?);
        service.until_ready(&self.client, self.private).await
    }

    /// The running service.
    pub(crate) fn service(&self) -> Fallible<&Service> {
        self.service.as_ref().ok_or_else(|| "the service does not run".into())
    }

    /// The last lines that the service logged.
    pub(crate) fn log(&self) -> Vec<String> {
        let text = fs::read_to_string(self.folder.path().join("narvaro.log")).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].iter().map(|line| (*line).to_owned()).collect()
    }

    /// Ends everything in order.
    pub(crate) async fn clear(mut self) -> Fallible<()> {
        let stopped = match self.service.take() {
            Some(service) => service.stop().await,
            None => Ok(()),
        };
        self.sim.shutdown().await;
        stopped
    }
}
