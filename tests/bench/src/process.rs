//! A server as a child process, and what the kernel says of it.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, ensure};

/// A running child that has told its two ports; it is ended when dropped.
pub(crate) struct Server {
    child: Child,
    /// Where the load goes.
    pub(crate) port: u16,
    /// Where questions about the load go.
    pub(crate) side_port: u16,
}

/// Processor time since the start of a process, by thread name.
#[derive(Debug, Clone, Default)]
pub(crate) struct CpuTime {
    by_thread: BTreeMap<String, Duration>,
}

impl CpuTime {
    /// Of all threads.
    pub(crate) fn total(&self) -> Duration {
        self.by_thread.values().sum()
    }

    /// Of threads with that name.
    pub(crate) fn of(&self, thread: &str) -> Duration {
        self.by_thread.get(thread).copied().unwrap_or_default()
    }

    /// What was spent since `before`.
    pub(crate) fn since(&self, before: &Self) -> Self {
        let left = |(name, time): (&String, &Duration)| (name.clone(), time.saturating_sub(before.of(name)));
        Self { by_thread: self.by_thread.iter().map(left).collect() }
    }
}

/// Processor time of the calling thread since its start.
pub(crate) fn own_thread_time() -> anyhow::Result<Duration> {
    time_in(Path::new("/proc/thread-self/schedstat"))
}

fn time_in(schedstat: &Path) -> anyhow::Result<Duration> {
    let numbers = fs::read_to_string(schedstat)?;
    Ok(Duration::from_nanos(numbers.split(' ').next().unwrap_or("").parse()?))
}

/// Resident memory of a process in MiB.
pub(crate) fn resident_mib(process: u32) -> anyhow::Result<f64> {
    memory_mib(process, "VmRSS:")
}

/// The most that a process has had resident, in MiB.
pub(crate) fn peak_mib(process: u32) -> anyhow::Result<f64> {
    memory_mib(process, "VmHWM:")
}

fn memory_mib(process: u32, name: &str) -> anyhow::Result<f64> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(name)).context("no such line of status")?;
    let kib: f64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib / 1024.0)
}

impl Server {
    /// Starts this program as `serve KIND` and waits until it is ready.
    pub(crate) fn start(kind: &str, store: &Path) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("this program's own file is not known")?;
        let mut child = Command::new(program)
            .args(["serve", kind, "--store"])
            .arg(store)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("the server `{kind}` could not be started"))?;
        let mut line = String::new();
        let output = child.stdout.take().context("the server has no output")?;
        BufReader::new(output).read_line(&mut line)?;
        let mut server = Self { child, port: 0, side_port: 0 };
        let ports: Vec<u16> = line.split_whitespace().filter_map(|port| port.parse().ok()).collect();
        ensure!(ports.len() == 2, "the server `{kind}` did not start: {line:?}");
        (server.port, server.side_port) = (ports[0], ports[1]);
        Ok(server)
    }

    /// Processor time of each of its threads. A thread that has ended is not in it: the servers start all of theirs
    /// before they are ready.
    pub(crate) fn cpu_time(&self) -> anyhow::Result<CpuTime> {
        let mut time = CpuTime::default();
        for thread in fs::read_dir(format!("/proc/{}/task", self.child.id()))? {
            let folder = thread?.path();
            let name = fs::read_to_string(folder.join("comm"))?.trim().to_owned();
            *time.by_thread.entry(name).or_default() += time_in(&folder.join("schedstat"))?;
        }
        ensure!(!time.total().is_zero(), "the kernel does not account for processor time here (schedstat)");
        Ok(time)
    }

    /// Resident memory in MiB.
    pub(crate) fn resident_mib(&self) -> anyhow::Result<f64> {
        resident_mib(self.child.id())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already, and then there is nothing to end.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
