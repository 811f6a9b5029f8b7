//! A server as a child process, and what the kernel says of it.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
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

/// Processor time of each thread of `process`, and of children that it has waited for. A thread that has ended is not in
/// it: the servers start all of theirs before they are ready.
pub(crate) fn cpu_time(process: u32) -> anyhow::Result<CpuTime> {
    let mut time = CpuTime::default();
    for thread in fs::read_dir(format!("/proc/{process}/task"))? {
        let folder = thread?.path();
        let name = fs::read_to_string(folder.join("comm"))?.trim().to_owned();
        *time.by_thread.entry(name).or_default() += time_in(&folder.join("schedstat"))?;
    }
    ensure!(!time.total().is_zero(), "the kernel does not account for processor time here (schedstat)");
    let children = time_of_children(process)?;
    *time.by_thread.entry("children".to_owned()).or_default() += children;
    Ok(time)
}

/// In ticks of the kernel, which are a hundredth of a second wherever Linux runs on these processors.
fn time_of_children(process: u32) -> anyhow::Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
    // The name, in parentheses, may hold anything.
    let (_, fields) = stat.rsplit_once(") ").context("`stat` is not as proc(5) has it")?;
    let fields: Vec<&str> = fields.split(' ').collect();
    let ticks = |index: usize| fields.get(index).and_then(|field| field.parse::<u64>().ok());
    let (user, system) = ticks(13).zip(ticks(14)).context("`stat` is not as proc(5) has it")?;
    Ok(Duration::from_millis(10 * (user + system)))
}

/// A command that runs on one core, or on any.
pub(crate) fn on_core(program: impl AsRef<OsStr>, core: Option<usize>) -> Command {
    let Some(core) = core else { return Command::new(program) };
    let mut command = Command::new("taskset");
    command.args(["--cpu-list", &core.to_string()]).arg(program);
    command
}

/// Two cores that this process may use: one for what is measured, one for the load. This thread, and those it starts from
/// now on, stay on the second.
pub(crate) fn take_two_cores() -> anyhow::Result<(usize, usize)> {
    let status = fs::read_to_string("/proc/self/status")?;
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap_or_default();
    let bounds = list.trim().split(',').filter_map(|part| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some((first.parse::<usize>().ok()?, last.parse::<usize>().ok()?))
    });
    let mut cores = bounds.flat_map(|(first, last)| first..=last);
    let two = cores.next().zip(cores.next());
    let (measured, load) = two.context("two cores are needed: one for what is measured, one for the load")?;
    let this = std::process::id().to_string();
    let pinned = Command::new("taskset")
        .args(["--pid", "--cpu-list", &load.to_string(), &this])
        .stdout(Stdio::null())
        .status()
        .context("`taskset` is not there; on Debian: apt-get install util-linux")?;
    ensure!(pinned.success(), "`taskset` could not put this process on core {load}");
    Ok((measured, load))
}

/// Sends a signal, by its name without `SIG`.
pub(crate) fn signal(process: u32, name: &str) -> anyhow::Result<()> {
    let sent = Command::new("kill").args(["-s", name, &process.to_string()]).status()?;
    ensure!(sent.success(), "SIG{name} could not be sent to process {process}");
    Ok(())
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
        let mut command = Command::new(program);
        command.args(["serve", kind, "--store"]).arg(store);
        let server = Self::launch(kind, command)?;
        ensure!(server.side_port != 0, "the server `{kind}` has told one port only");
        Ok(server)
    }

    /// Starts a server that tells its port, and perhaps a second one, in its first line; waits until it does.
    pub(crate) fn launch(kind: &str, mut command: Command) -> anyhow::Result<Self> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("the server `{kind}` could not be started"))?;
        let mut line = String::new();
        let output = child.stdout.take().context("the server has no output")?;
        BufReader::new(output).read_line(&mut line)?;
        let mut server = Self { child, port: 0, side_port: 0 };
        let mut ports = line.split_whitespace().filter_map(|port| port.parse().ok());
        server.port = ports.next().with_context(|| format!("the server `{kind}` did not start: {line:?}"))?;
        server.side_port = ports.next().unwrap_or(0);
        Ok(server)
    }

    /// Processor time of all its threads.
    pub(crate) fn cpu_time(&self) -> anyhow::Result<CpuTime> {
        cpu_time(self.child.id())
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
