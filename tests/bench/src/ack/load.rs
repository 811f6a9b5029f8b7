//! The load: keep-alive HTTP/1.1 over loopback.
//!
//! Why [`paced`] has threads and not tasks: a thread that sleeps until an instant wakes within 50 µs of it, a timer of the
//! runtime within 1 ms, and at 500 requests a second that would be most of what is measured.

use std::{
    io::{Read, Write},
    net::TcpStream,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, anyhow, ensure};
use futures_util::future::try_join_all;
use jiff::Timestamp;
use narvaro::clock::{Clock, SystemClock};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    runtime::Runtime,
};

/// Longest wait for one answer; the receiver gives up after 2 s.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// An answer as it comes in; it has to be a 202 without a body.
struct Answer {
    bytes: [u8; 512],
    length: usize,
}

impl Default for Answer {
    fn default() -> Self {
        Self { bytes: [0; 512], length: 0 }
    }
}

impl Answer {
    fn rest(&mut self) -> &mut [u8] {
        &mut self.bytes[self.length..]
    }

    /// Takes note of `read` bytes more in [`rest`](Self::rest); `true` once the answer is complete.
    fn add(&mut self, read: usize) -> anyhow::Result<bool> {
        ensure!(read > 0, "the server closed the connection, or its answer is longer than a 202");
        self.length += read;
        let head = &self.bytes[..self.length];
        if !head.ends_with(b"\r\n\r\n") {
            return Ok(false);
        }
        ensure!(head.starts_with(b"HTTP/1.1 202 "), "not a 202: {}", String::from_utf8_lossy(head));
        Ok(true)
    }
}

/// One connection that blocks.
pub(crate) struct Connection(TcpStream);

impl Connection {
    pub(crate) fn open(port: u16) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port)).context("the server is not there")?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWER_WITHIN))?;
        Ok(Self(stream))
    }

    /// Sends `request` and takes the answer.
    fn deliver(&mut self, request: &[u8]) -> anyhow::Result<()> {
        self.0.write_all(request)?;
        let mut answer = Answer::default();
        loop {
            let read = self.0.read(answer.rest())?;
            if answer.add(read)? {
                return Ok(());
            }
        }
    }

    /// Asks for `path` and returns the body of the answer.
    pub(crate) fn ask(mut self, path: &str) -> anyhow::Result<String> {
        write!(self.0, "GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        self.0.read_to_string(&mut answer)?;
        let (_, body) = answer.split_once("\r\n\r\n").context("no answer")?;
        Ok(body.to_owned())
    }
}

/// Connections that each send the next request as soon as the one before is answered.
///
/// All are tasks of one thread: over loopback the server's `send` is charged with waking whoever reads, and
/// with a thread a connection that would be a large part of both servers' figures and no part of the service.
pub(crate) struct ClosedLoop {
    runtime: Runtime,
    streams: Vec<tokio::net::TcpStream>,
}

impl ClosedLoop {
    pub(crate) fn open(port: u16, connections: usize) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
        let connect = async || {
            let stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await?;
            stream.set_nodelay(true)?;
            anyhow::Ok(stream)
        };
        let streams = runtime.block_on(try_join_all((0..connections).map(|_| connect())))?;
        Ok(Self { runtime, streams })
    }

    /// Sends each request once.
    pub(crate) fn send(&mut self, requests: &[Vec<u8>]) -> anyhow::Result<()> {
        let next = AtomicUsize::new(0);
        let connection = async |stream: &mut tokio::net::TcpStream| {
            while let Some(request) = requests.get(next.fetch_add(1, Ordering::Relaxed)) {
                stream.write_all(request).await?;
                let mut answer = Answer::default();
                loop {
                    let read = stream.read(answer.rest()).await?;
                    if answer.add(read)? {
                        break;
                    }
                }
            }
            anyhow::Ok(())
        };
        self.runtime.block_on(try_join_all(self.streams.iter_mut().map(connection))).map(drop)
    }
}

/// Sends each request once at its own instant, `every` after the one before, whatever became of the earlier ones.
/// Returns the times from that instant (not from the sending) to the answer, sorted.
pub(crate) fn paced(
    port: u16,
    connections: usize,
    every: Duration,
    requests: &[Vec<u8>],
) -> anyhow::Result<Vec<Duration>> {
    let mut times = each_paced(port, connections, every, requests, |_, due| due.elapsed())?;
    times.sort();
    Ok(times)
}

/// The same; returns of each request its place and when its answer was here.
pub(crate) fn paced_answers(
    port: u16,
    connections: usize,
    every: Duration,
    requests: &[Vec<u8>],
) -> anyhow::Result<Vec<(usize, Timestamp)>> {
    each_paced(port, connections, every, requests, |place, _| (place, SystemClock.now()))
}

fn each_paced<T: Send>(
    port: u16,
    connections: usize,
    every: Duration,
    requests: &[Vec<u8>],
    note: impl Fn(usize, Instant) -> T + Sync,
) -> anyhow::Result<Vec<T>> {
    let start = Instant::now() + Duration::from_millis(100);
    let noted = on_each_connection(port, connections, |number, connection| {
        let mut noted = Vec::new();
        for (position, request) in requests.iter().enumerate().skip(number).step_by(connections) {
            let due = start + every * u32::try_from(position)?;
            thread::sleep(due.saturating_duration_since(Instant::now()));
            connection.deliver(request)?;
            noted.push(note(position, due));
        }
        Ok(noted)
    })?;
    Ok(noted.into_iter().flatten().collect())
}

fn on_each_connection<T: Send>(
    port: u16,
    connections: usize,
    work: impl Fn(usize, &mut Connection) -> anyhow::Result<T> + Sync,
) -> anyhow::Result<Vec<T>> {
    let mut open: Vec<Connection> =
        (0..connections).map(|_| Connection::open(port)).collect::<anyhow::Result<_>>()?;
    thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> = open
            .iter_mut()
            .enumerate()
            .map(|(number, connection)| scope.spawn(move || work(number, connection)))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().map_err(|_| anyhow!("a connection's thread failed"))?)
            .collect()
    })
}
