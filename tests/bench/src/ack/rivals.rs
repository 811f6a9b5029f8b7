//! Receivers of other makes that do the same job, written for the comparison: installed into a folder of their own from
//! where everybody gets such packages, and started as one process each.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, ensure};

use crate::process::on_core;

const AIOHTTP: (&str, &str) = ("aiohttp.py", include_str!("rivals/aiohttp.py"));
const REQUIREMENTS: (&str, &str) = ("requirements.txt", include_str!("rivals/requirements.txt"));
const EXPRESS: (&str, &str) = ("express.js", include_str!("rivals/express.js"));
const PACKAGE: (&str, &str) = ("package.json", include_str!("rivals/package.json"));

/// Which of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Make {
    Aiohttp,
    Express,
}

/// How one looks for doubles and queues.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// `SET NX EX`, then `XADD`: pipelines.
    Commands,
    /// Both in one script.
    Script,
}

/// The folder with all that they need.
pub(super) struct Rivals(PathBuf);

impl Rivals {
    /// Installs them into `folder`; `client_states` is what they compare with, as JSON.
    pub(super) fn install(folder: &Path, client_states: &[u8]) -> anyhow::Result<Self> {
        fs::create_dir_all(folder)?;
        for (name, text) in [AIOHTTP, REQUIREMENTS, EXPRESS, PACKAGE] {
            fs::write(folder.join(name), text)?;
        }
        fs::write(folder.join("client-states.json"), client_states)?;
        let rivals = Self(folder.to_owned());
        rivals.run("python3", &["-m", "venv", "venv"])?;
        let install =
            ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", REQUIREMENTS.0];
        rivals.run(rivals.python(), &install)?;
        rivals.run("npm", &["install", "--no-package-lock", "--no-audit", "--no-fund", "--silent"])?;
        Ok(rivals)
    }

    fn python(&self) -> PathBuf {
        self.0.join("venv/bin/python3")
    }

    fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new(program.as_ref());
        command.current_dir(&self.0);
        command
    }

    fn run(&self, program: impl AsRef<Path>, arguments: &[&str]) -> anyhow::Result<()> {
        let program = program.as_ref();
        let name = program.display();
        let missing = || format!("`{name}` is not there; on Debian: apt-get install python3-venv nodejs npm");
        let output = self.command(program).args(arguments).output().with_context(missing)?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "`{name} {}` failed: {said}", arguments.join(" "));
        Ok(())
    }

    /// What exactly was installed.
    pub(super) fn versions(&self) -> anyhow::Result<String> {
        let python = "import sys, importlib.metadata as m; print('Python', sys.version.split()[0] + ':', \
                      ', '.join(p + ' ' + m.version(p) for p in ('aiohttp', 'redis', 'hiredis')))";
        let node = "console.log('Node.js', process.version.slice(1) + ':', ['express', 'ioredis']\
                    .map((p) => p + ' ' + JSON.parse(require('fs').readFileSync(`node_modules/${p}/package.json`)).version)\
                    .join(', '))";
        let mut said = Vec::new();
        for (mut command, script) in
            [(self.command(self.python()), ["-c", python]), (self.command("node"), ["-e", node])]
        {
            let output = command.args(script).output()?;
            ensure!(output.status.success(), "versions: {}", String::from_utf8_lossy(&output.stderr));
            said.push(String::from_utf8_lossy(&output.stdout).trim().to_owned());
        }
        Ok(said.join("; "))
    }

    /// The command that starts one on a core, over the Redis at `port`.
    pub(super) fn start(&self, make: Make, form: Form, port: u16, core: usize) -> Command {
        let (program, file) = match make {
            Make::Aiohttp => (self.python(), AIOHTTP.0),
            Make::Express => (PathBuf::from("node"), EXPRESS.0),
        };
        let form = match form {
            Form::Commands => "commands",
            Form::Script => "script",
        };
        let mut command = on_core(program, Some(core));
        command.args([file, &port.to_string(), "client-states.json", form]);
        command.current_dir(&self.0).env("NODE_ENV", "production");
        command
    }
}
