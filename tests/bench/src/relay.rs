//! A relay of TCP connections to one of several servers: stands for a load balancer, and for a network that can be cut.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::JoinHandle,
};

/// How long a server may take to accept.
const CONNECT_WITHIN: Duration = Duration::from_secs(2);

/// One server behind it.
struct Backend {
    port: u16,
    up: AtomicBool,
    /// Counts up with each cut.
    cuts: watch::Sender<u64>,
    /// While it holds, nothing goes either way, and nobody is told.
    stalled: watch::Sender<bool>,
}

/// The relay; it ends when dropped.
pub(crate) struct Relay {
    pub(crate) port: u16,
    backends: Arc<[Backend]>,
    accepting: JoinHandle<()>,
    connections: Connections,
}

type Connections = Arc<Mutex<Vec<JoinHandle<()>>>>;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Relay {
    /// Listens, and gives each connection to the next of `ports` that accepts it.
    pub(crate) async fn start(ports: &[u16]) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        let backends: Arc<[Backend]> = ports
            .iter()
            .map(|port| Backend {
                port: *port,
                up: AtomicBool::new(true),
                cuts: watch::Sender::new(0),
                stalled: watch::Sender::new(false),
            })
            .collect();
        let connections = Connections::default();
        let accepting = tokio::spawn(accept(listener, Arc::clone(&backends), Arc::clone(&connections)));
        Ok(Self { port, backends, accepting, connections })
    }

    /// Whether new connections go to one of the servers.
    pub(crate) fn set_up(&self, place: usize, up: bool) {
        self.backends[place].up.store(up, Ordering::Release);
    }

    /// Cuts all connections to one of the servers.
    pub(crate) fn cut(&self, place: usize) {
        self.backends[place].cuts.send_modify(|cuts| *cuts += 1);
    }

    /// Lets nothing through to one of the servers or from it, without telling anybody, until turned off.
    pub(crate) fn stall(&self, place: usize, stalled: bool) {
        self.backends[place].stalled.send_replace(stalled);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.accepting.abort();
        lock(&self.connections).iter().for_each(JoinHandle::abort);
    }
}

async fn accept(listener: TcpListener, backends: Arc<[Backend]>, connections: Connections) {
    let next = Arc::new(AtomicUsize::new(0));
    loop {
        // Where the process has no file left, the next one may be accepted.
        let Ok((inside, _)) = listener.accept().await else { continue };
        let first = next.fetch_add(1, Ordering::Relaxed);
        let connection = tokio::spawn(relay(inside, Arc::clone(&backends), first));
        let mut connections = lock(&connections);
        connections.retain(|connection| !connection.is_finished());
        connections.push(connection);
    }
}

async fn relay(inside: TcpStream, backends: Arc<[Backend]>, first: usize) {
    for place in (0..backends.len()).map(|more| (first + more) % backends.len()) {
        let backend = &backends[place];
        if !backend.up.load(Ordering::Acquire) {
            continue;
        }
        let mut cuts = backend.cuts.subscribe();
        let connect = TcpStream::connect(("127.0.0.1", backend.port));
        let Ok(Ok(outside)) = tokio::time::timeout(CONNECT_WITHIN, connect).await else { continue };
        // Small packets that answer each other: nothing is gained by collecting them.
        drop((inside.set_nodelay(true), outside.set_nodelay(true)));
        let ((in_read, in_write), (out_read, out_write)) = (inside.into_split(), outside.into_split());
        let both = async {
            tokio::join!(
                pump(in_read, out_write, backend.stalled.subscribe()),
                pump(out_read, in_write, backend.stalled.subscribe()),
            )
        };
        tokio::select! {
            _ = both => {}
            _ = cuts.changed() => {}
        }
        return;
    }
}

/// One direction, until either end is gone.
async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut stalled: watch::Receiver<bool>) {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let read = from.read(&mut buffer).await.unwrap_or(0);
        if stalled.wait_for(|stalled| !stalled).await.is_err() || read == 0 {
            break;
        }
        if to.write_all(&buffer[..read]).await.is_err() {
            break;
        }
    }
    // The other end may be gone already.
    drop(to.shutdown().await);
}
