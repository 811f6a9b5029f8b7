//! Redis servers of the benchmarks' own: real processes with a folder and a port each, and a client that is no part of what is
//! measured.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};

use crate::process::{CpuTime, cpu_time};

/// How long a server may take to answer after its start, with an append-only file to read, or to write that file anew.
const UP_WITHIN: Duration = Duration::from_secs(20);

/// How long one answer may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// The program; Debian's package `redis-server` brings it, with the sentinel in it.
const PROGRAM: &str = "redis-server";

/// A `redis-server`; it is ended when dropped.
pub(crate) struct RedisServer {
    child: Child,
    folder: PathBuf,
    arguments: Vec<String>,
    core: Option<usize>,
    pub(crate) port: u16,
}

/// A port that nobody listens at. Between this and its use somebody may take it: the start then fails.
pub(crate) fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

impl RedisServer {
    /// A server as an operator should have it: an append-only file, on disk once a second, nothing evicted.
    pub(crate) fn start(folder: &Path, core: Option<usize>, more: &[&str]) -> anyhow::Result<Self> {
        Self::start_at(free_port()?, folder, core, more)
    }

    /// The same at a port of the caller's choice.
    pub(crate) fn start_at(
        port: u16,
        folder: &Path,
        core: Option<usize>,
        more: &[&str],
    ) -> anyhow::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let fixed = ["--bind", "127.0.0.1", "--daemonize", "no", "--maxmemory-policy", "noeviction"];
        let kept = ["--appendonly", "yes", "--appendfsync", "everysec", "--save", ""];
        let mut arguments: Vec<String> =
            fixed.iter().chain(&kept).chain(more).map(|argument| (*argument).to_owned()).collect();
        arguments.extend(["--port".to_owned(), port.to_string()]);
        arguments.extend(["--dir".to_owned(), folder.display().to_string()]);
        let child = run(folder, &arguments, core)?;
        let mut server = Self { child, folder: folder.to_owned(), arguments, core, port };
        server.until_up()?;
        Ok(server)
    }

    /// As narvaro's `store.url`.
    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub(crate) fn client(&self) -> anyhow::Result<Client> {
        Client::connect(self.port)
    }

    /// Writes its file anew, and waits until that is done.
    pub(crate) fn rewrite_file(&self) -> anyhow::Result<()> {
        let mut client = self.client()?;
        client.ask(&["BGREWRITEAOF"])?;
        until("has not written its file anew", || {
            let info = client.info("persistence")?;
            let mut steps = ["aof_rewrite_in_progress", "aof_rewrite_scheduled"].iter();
            Ok(steps.all(|step| info.get(*step).is_some_and(|value| value == "0")))
        })
    }

    /// Processor time of all its threads, and of children that it has waited for (rewrites of its file).
    pub(crate) fn cpu_time(&self) -> anyhow::Result<CpuTime> {
        cpu_time(self.child.id())
    }

    /// Ends it at once, as a failure of the machine would.
    pub(crate) fn kill(&mut self) {
        // It may have ended by itself; either way it is gone.
        drop(self.child.kill());
        drop(self.child.wait());
    }

    /// Starts it again where it was killed, with what it had written, and waits until it answers.
    pub(crate) fn start_again(&mut self) -> anyhow::Result<()> {
        self.child = run(&self.folder, &self.arguments, self.core)?;
        self.until_up()
    }

    fn until_up(&mut self) -> anyhow::Result<()> {
        until("did not answer", || {
            // While it reads its file it answers `LOADING`.
            if self.client().and_then(|mut client| client.ask(&["PING"])).is_ok() {
                return Ok(true);
            }
            if let Some(status) = self.child.try_wait()? {
                let log = std::fs::read_to_string(self.folder.join("redis.log")).unwrap_or_default();
                bail!("`{PROGRAM}` ended as it started ({status}):\n{log}");
            }
            Ok(false)
        })
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Looks until something is so; `not_yet` says what a server that takes too long for it does.
fn until(not_yet: &str, mut is_so: impl FnMut() -> anyhow::Result<bool>) -> anyhow::Result<()> {
    let end = Instant::now() + UP_WITHIN;
    while !is_so()? {
        ensure!(Instant::now() < end, "`{PROGRAM}` {not_yet} within {UP_WITHIN:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

fn run(folder: &Path, arguments: &[String], core: Option<usize>) -> anyhow::Result<Child> {
    let log = std::fs::File::options().create(true).append(true).open(folder.join("redis.log"))?;
    let mut command = crate::process::on_core(PROGRAM, core);
    command.args(arguments).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    command
        .spawn()
        .with_context(|| format!("`{PROGRAM}` cannot be started; on Debian: apt-get install redis-server"))
}

/// Which version `redis-server` is.
pub(crate) fn version() -> anyhow::Result<String> {
    let output = Command::new(PROGRAM)
        .arg("--version")
        .output()
        .with_context(|| format!("`{PROGRAM}` is not there; on Debian: apt-get install redis-server"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let version = text.split_whitespace().find_map(|word| word.strip_prefix("v="));
    Ok(version.context("`redis-server --version` says something else than expected")?.to_owned())
}

/// What Redis answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reply {
    Nothing,
    Number(i64),
    Text(String),
    List(Vec<Reply>),
}

impl Reply {
    pub(crate) fn text(&self) -> &str {
        if let Self::Text(text) = self { text } else { "" }
    }

    pub(crate) fn number(&self) -> i64 {
        if let Self::Number(number) = self { *number } else { 0 }
    }

    pub(crate) fn list(&self) -> &[Self] {
        if let Self::List(list) = self { list } else { &[] }
    }
}

/// One connection that blocks.
pub(crate) struct Client(BufReader<TcpStream>);

impl Client {
    pub(crate) fn connect(port: u16) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWER_WITHIN))?;
        Ok(Self(BufReader::new(stream)))
    }

    /// Sends one command and takes its answer; an error of Redis is one.
    pub(crate) fn ask(&mut self, words: &[&str]) -> anyhow::Result<Reply> {
        self.send(words)?;
        self.take()
    }

    /// Sends one command for each of `arguments` (put at its end), and takes all answers after.
    pub(crate) fn ask_each(&mut self, words: &[&str], arguments: &[String]) -> anyhow::Result<Vec<Reply>> {
        let mut replies = Vec::with_capacity(arguments.len());
        for some in arguments.chunks(500) {
            for argument in some {
                self.send(&[words, &[argument]].concat())?;
            }
            for _ in some {
                replies.push(self.take()?);
            }
        }
        Ok(replies)
    }

    fn send(&mut self, words: &[&str]) -> anyhow::Result<()> {
        let mut request = format!("*{}\r\n", words.len());
        for word in words {
            request.push_str(&format!("${}\r\n{word}\r\n", word.len()));
        }
        self.0.get_mut().write_all(request.as_bytes())?;
        Ok(())
    }

    fn take(&mut self) -> anyhow::Result<Reply> {
        let mut line = String::new();
        ensure!(self.0.read_line(&mut line)? > 0, "Redis closed the connection");
        let (kind, rest) = line.trim_end().split_at_checked(1).context("an empty line of Redis")?;
        Ok(match kind {
            "+" => Reply::Text(rest.to_owned()),
            "-" => bail!("Redis: {rest}"),
            ":" => Reply::Number(rest.parse()?),
            "$" => {
                let Ok(length) = rest.parse::<usize>() else { return Ok(Reply::Nothing) };
                let mut bytes = vec![0; length + 2];
                self.0.read_exact(&mut bytes)?;
                bytes.truncate(length);
                Reply::Text(String::from_utf8_lossy(&bytes).into_owned())
            }
            "*" => {
                let Ok(length) = rest.parse::<usize>() else { return Ok(Reply::Nothing) };
                Reply::List((0..length).map(|_| self.take()).collect::<anyhow::Result<_>>()?)
            }
            _ => bail!("Redis said something that is no answer: {line:?}"),
        })
    }

    /// A section of `INFO`, by name.
    pub(crate) fn info(&mut self, section: &str) -> anyhow::Result<BTreeMap<String, String>> {
        let text = self.ask(&["INFO", section])?;
        let lines = text.text().lines().filter_map(|line| line.split_once(':'));
        Ok(lines.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }

    /// How often each command was called, by its name in lower case.
    pub(crate) fn calls(&mut self) -> anyhow::Result<BTreeMap<String, u64>> {
        let stats = self.info("commandstats")?;
        let count = |(name, value): (&String, &String)| {
            let calls = value.strip_prefix("calls=")?.split(',').next()?.parse().ok()?;
            Some((name.strip_prefix("cmdstat_")?.to_owned(), calls))
        };
        Ok(stats.iter().filter_map(count).collect())
    }
}
