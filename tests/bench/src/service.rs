//! The service as its own binary against the simulator, with companies of many mailboxes.

use std::{
    fs,
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use narvaro_sim::{AppSpec, Sim, TenantSpec, UserSpec};

pub(crate) const CLIENT_ID: &str = "6d2f4b8e-91c7-4a3d-b0e5-5f7c8a1e2d34";
const SECRET: &str = "a-client-secret-of-the-simulator";

/// A company of the load, with a tenant of its own.
#[derive(Clone, Copy)]
pub(crate) struct Company {
    pub(crate) id: &'static str,
}

impl Company {
    pub(crate) fn alias(self, n: usize) -> String {
        format!("u{n:05}@{}.example", self.id)
    }

    /// Makes its tenant and its users; the tenant's id.
    pub(crate) fn enrol(self, sim: &Sim, mailboxes: usize) -> anyhow::Result<String> {
        let tenant = sim.add_tenant(TenantSpec::new(&format!("{}.example", self.id)))?;
        for n in 0..mailboxes {
            sim.add_user(&tenant, UserSpec::new(&self.alias(n)))?;
        }
        Ok(tenant)
    }
}

pub(crate) fn extension(n: usize) -> String {
    (100_000 + n).to_string()
}

/// Waits for something that comes within `limit`.
pub(crate) async fn until(
    what: &str,
    limit: Duration,
    mut holds: impl FnMut() -> bool,
) -> anyhow::Result<()> {
    let end = Instant::now() + limit;
    while !holds() {
        ensure!(Instant::now() < end, "not within {limit:?}: {what}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

/// The service as a child process; ended when dropped.
pub(crate) struct Service {
    child: Child,
    binary: PathBuf,
    folder: PathBuf,
    private: SocketAddr,
}

impl Drop for Service {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Service {
    /// Starts it in `folder`, with the consent of all `tenants`; the binary is beside this program unless given.
    pub(crate) fn start(
        sim: &Sim,
        binary: Option<&Path>,
        folder: &Path,
        tenants: &[String],
    ) -> anyhow::Result<Self> {
        let free = || std::net::TcpListener::bind("127.0.0.1:0")?.local_addr();
        let (public, private) = (free()?, free()?);
        let mut app = AppSpec::new(CLIENT_ID, SECRET);
        app.redirect_uris = vec![format!("http://{public}/consent/callback")];
        sim.add_app(app)?;
        for tenant in tenants {
            sim.consent(tenant, CLIENT_ID)?;
        }
        let base = sim.base_url();
        fs::write(
            folder.join("narvaro.toml"),
            format!(
                "[listen]\npublic = \"{public}\"\nprivate = \"{private}\"\n\
                 [webhook]\npublic_url = \"http://{public}\"\n\
                 [graph]\nclient_id = \"{CLIENT_ID}\"\ncloud = \"custom\"\ngraph_base = \"{base}\"\n\
                 login_authority = \"{base}\"\nallow_plain_http_loopback = true\n\
                 [log]\nlevel = \"warn\"\n"
            ),
        )?;
        let binary = match binary {
            Some(binary) => binary.canonicalize()?,
            None => std::env::current_exe()?.with_file_name("narvaro"),
        };
        let child = serve(&binary, folder)?;
        Ok(Self { child, binary, folder: folder.to_owned(), private })
    }

    /// Ends it at once, as a failure of the machine would.
    pub(crate) fn kill(&mut self) {
        // It may have ended by itself; either way it is gone.
        drop(self.child.kill());
        drop(self.child.wait());
    }

    /// Starts it again where it was killed, and waits until it is ready.
    pub(crate) fn start_again(&mut self) -> anyhow::Result<()> {
        self.child = serve(&self.binary, &self.folder)?;
        Ok(())
    }

    /// The command line, beside the service.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command.args(arguments).current_dir(&self.folder);
        command
    }

    /// Applies a company whose phones are the simulator's.
    pub(crate) fn apply(
        &self,
        sim: &Sim,
        company: Company,
        tenant: &str,
        mailboxes: usize,
    ) -> anyhow::Result<()> {
        let id = company.id;
        let mut file = format!(
            "id = \"{id}\"\nname = \"{id}\"\n[integration]\nkind = \"microsoft365\"\ntenant = \"{tenant}\"\n\
             [pbx]\nkind = \"http\"\n[pbx.http]\nbase_url = \"{}\"\nallow_plain_http = true\nconcurrency = 32\n\
             [pbx.http.set]\nmethod = \"PUT\"\npath = \"/extensions/{{extension}}/presence\"\n\
             json = {{ profile = \"{{profile.id}}\", text = \"{{text}}\", until = \"{{until|json}}\" }}\n",
            sim.pbx_url(id)
        );
        for n in 0..mailboxes {
            let (extension, alias) = (extension(n), company.alias(n));
            file.push_str(&format!("[[users]]\nextension = \"{extension}\"\nalias = \"{alias}\"\n"));
        }
        let name = format!("{id}.toml");
        fs::write(self.folder.join(&name), file)?;
        let done = self.command(&["apply", &name, "--json"]).stdout(Stdio::null()).status()?;
        ensure!(done.success(), "the company could not be applied");
        Ok(())
    }

    /// Where the admin API is, and the token that the service has made for it.
    pub(crate) fn admin(&self) -> anyhow::Result<(String, String)> {
        let token = fs::read_to_string(self.folder.join("admin.token"))?;
        Ok((format!("http://{}/admin/v1", self.private), token.trim().to_owned()))
    }

    pub(crate) fn resident_mib(&self) -> anyhow::Result<f64> {
        crate::process::resident_mib(self.child.id())
    }

    pub(crate) fn peak_mib(&self) -> anyhow::Result<f64> {
        crate::process::peak_mib(self.child.id())
    }
}

/// Starts the service and waits until it is ready.
fn serve(binary: &Path, folder: &Path) -> anyhow::Result<Child> {
    let mut child = Command::new(binary)
        .arg("serve")
        .current_dir(folder)
        .env("NARVARO__GRAPH__CLIENT_SECRET", SECRET)
        .env("NARVARO__LOG__LEVEL", "warn,narvaro::app=info")
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("`{}` cannot be started; build it first", binary.display()))?;
    let mut lines = BufReader::new(child.stderr.take().context("the service has no output")?).lines();
    let ready = lines.by_ref().map_while(Result::ok).any(|line| line.contains("Ready"));
    ensure!(ready, "the service ended before it was ready");
    std::thread::spawn(move || lines.map_while(Result::ok).for_each(|line| eprintln_line(&line)));
    Ok(child)
}

#[expect(clippy::print_stderr, reason = "what the service complains of belongs to what was measured")]
fn eprintln_line(line: &str) {
    eprintln!("{line}");
}
