//! The network between two processes, as something that can fail.
//!
//! A cut holds bytes back and closes nothing, as a broken cable does: each side believes that the other is there.
//! What is held back is delivered when the proxy is mended, or lost when the connections are dropped.

use super::port::Port;
use std::{
    future::pending,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU16, AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, tcp::OwnedReadHalf, tcp::OwnedWriteHalf},
    sync::{mpsc, watch},
    time::{Instant, sleep_until},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Which way bytes go through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Flow {
    /// From the client to the server.
    pub(crate) requests: bool,
    /// From the server to the client.
    pub(crate) answers: bool,
}

impl Flow {
    /// All is well.
    pub(crate) const WHOLE: Self = Self { requests: true, answers: true };
    /// Nothing passes.
    pub(crate) const CUT: Self = Self { requests: false, answers: false };
    /// The server hears and is not heard.
    pub(crate) const MUTE: Self = Self { requests: true, answers: false };
    /// The server is heard and does not hear.
    pub(crate) const DEAF: Self = Self { requests: false, answers: true };
}

/// A TCP proxy on 127.0.0.1 in front of one port.
#[derive(Debug)]
pub(crate) struct Proxy {
    port: Port,
    flow: watch::Sender<Flow>,
    epoch: watch::Sender<CancellationToken>,
    server: Arc<AtomicU16>,
    damage: Arc<AtomicU32>,
    stopped: CancellationToken,
    held: Arc<Mutex<Vec<u8>>>,
    swallowed: Arc<Mutex<Option<String>>>,
}

impl Proxy {
    /// Stands in front of a server's port.
    pub(crate) async fn start(server: u16) -> Self {
        Self::far(server, Duration::ZERO).await
    }

    /// The same, with a server that is far away: bytes take this long, either way. A connection is there at once.
    pub(crate) async fn far(server: u16, delay: Duration) -> Self {
        let port = Port::free();
        let listener = TcpListener::bind(("127.0.0.1", port.number())).await.unwrap();
        let (flow, _) = watch::channel(Flow::WHOLE);
        let (epoch, epochs) = watch::channel(CancellationToken::new());
        let stopped = CancellationToken::new();
        let (server, damage, held) = (Arc::new(AtomicU16::new(server)), Arc::default(), Arc::default());
        let swallowed = Arc::default();
        let way = Way {
            server: Arc::clone(&server),
            damage: Arc::clone(&damage),
            held: Arc::clone(&held),
            swallowed: Arc::clone(&swallowed),
            flow: flow.clone(),
            epochs,
            delay,
        };
        tokio::spawn(accept(listener, way, stopped.clone()));
        Self { port, flow, epoch, server, damage, stopped, held, swallowed }
    }

    /// Its own port.
    pub(crate) fn port(&self) -> u16 {
        self.port.number()
    }

    /// Cuts or mends.
    pub(crate) fn set(&self, flow: Flow) {
        self.flow.send_replace(flow);
    }

    /// Leads new connections to another server, and closes those that are open.
    pub(crate) fn redirect(&self, server: u16) {
        self.server.store(server, Relaxed);
        self.drop_connections();
    }

    /// Changes one byte of what the server says next, as many bytes from now on.
    pub(crate) fn damage(&self, after: u32) {
        self.damage.store(after + 1, Relaxed);
    }

    /// Loses whatever the server answers to the next request with `words` in it, and after it on the same connection.
    pub(crate) fn swallow(&self, words: &str) {
        *self.swallowed.lock().unwrap() = Some(words.to_owned());
    }

    /// Whether that request has come.
    pub(crate) fn has_swallowed(&self) -> bool {
        self.swallowed.lock().unwrap().is_none()
    }

    /// What has been held back of the requests so far.
    pub(crate) fn held(&self) -> String {
        String::from_utf8_lossy(&self.held.lock().unwrap()).into_owned()
    }

    /// Closes every connection; what was held back is lost.
    pub(crate) fn drop_connections(&self) {
        self.epoch.send_replace(CancellationToken::new()).cancel();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.stopped.cancel();
        self.epoch.borrow().cancel();
    }
}

/// What every connection shares.
struct Way {
    server: Arc<AtomicU16>,
    /// Bytes until one is damaged, and one more; 0 for none.
    damage: Arc<AtomicU32>,
    held: Arc<Mutex<Vec<u8>>>,
    /// Words of a request whose answer is lost.
    swallowed: Arc<Mutex<Option<String>>>,
    flow: watch::Sender<Flow>,
    epochs: watch::Receiver<CancellationToken>,
    delay: Duration,
}

/// Pieces of 64 KiB at most that are on their way in one direction.
const UNDER_WAY: usize = 64;

async fn accept(listener: TcpListener, way: Way, stopped: CancellationToken) {
    let Way { server, damage, held, swallowed, flow, epochs, delay } = way;
    let connections = TaskTracker::new();
    while let Some(Ok((client, _))) = stopped.run_until_cancelled(listener.accept()).await {
        let epoch = epochs.borrow().clone();
        let Ok(server) = TcpStream::connect(("127.0.0.1", server.load(Relaxed))).await else { continue };
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        let (from_client, to_client) = client.into_split();
        let (from_server, to_server) = server.into_split();
        // Either side's end is the connection's.
        let connection = epoch.child_token();
        let held = Arc::clone(&held);
        let (swallowed, lost) = (Arc::clone(&swallowed), Arc::new(AtomicBool::new(false)));
        let loses = Arc::clone(&lost);
        let keep = move |bytes: &mut [u8], open: bool| {
            if !open {
                held.lock().unwrap().extend_from_slice(bytes);
            }
            let mut swallowed = swallowed.lock().unwrap();
            if swallowed.as_ref().is_some_and(|words| String::from_utf8_lossy(bytes).contains(words)) {
                *swallowed = None;
                loses.store(true, Relaxed);
            }
            true
        };
        let damage = Arc::clone(&damage);
        let spoil = move |bytes: &mut [u8], _: bool| {
            spoil(bytes, &damage);
            !lost.load(Relaxed)
        };
        let requests = carry(from_client, flow.subscribe(), |flow| flow.requests, keep, to_server, delay);
        let answers = carry(from_server, flow.subscribe(), |flow| flow.answers, spoil, to_client, delay);
        connections.spawn(until_the_end(requests, connection.clone()));
        connections.spawn(until_the_end(answers, connection));
    }
}

async fn until_the_end(way: impl Future<Output = ()>, connection: CancellationToken) {
    connection.run_until_cancelled(way).await;
    connection.cancel();
}

async fn carry(
    mut from: OwnedReadHalf,
    mut flow: watch::Receiver<Flow>,
    open: impl Fn(&Flow) -> bool,
    // Whether the bytes go on.
    tap: impl Fn(&mut [u8], bool) -> bool,
    mut to: OwnedWriteHalf,
    delay: Duration,
) {
    let (sender, mut under_way) = mpsc::channel::<(Instant, Vec<u8>)>(UNDER_WAY);
    let read = async move {
        let mut bytes = vec![0; 64 << 10];
        loop {
            let Ok(count @ 1..) = from.read(&mut bytes).await else { return };
            let due = Instant::now() + delay;
            let now = open(&flow.borrow());
            if !tap(&mut bytes[..count], now) {
                continue;
            }
            let piece = bytes[..count].to_vec();
            if flow.wait_for(&open).await.is_err() || sender.send((due, piece)).await.is_err() {
                return;
            }
        }
    };
    let write = async move {
        while let Some((due, piece)) = under_way.recv().await {
            sleep_until(due).await;
            if to.write_all(&piece).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = write => {}
        // What was read before the end is still to be written.
        () = async { read.await; pending().await } => {}
    }
}

/// Changes the byte that is due, or counts down to it.
fn spoil(bytes: &mut [u8], damage: &AtomicU32) {
    let due = damage.load(Relaxed);
    let Some(at) = due.checked_sub(1) else { return };
    let left = match bytes.get_mut(at as usize) {
        Some(byte) => {
            *byte ^= 0x10;
            0
        }
        None => due - u32::try_from(bytes.len()).unwrap(),
    };
    damage.store(left, Relaxed);
}
