//! The network between two processes, as something that can fail.
//!
//! A cut holds bytes back and closes nothing, as a broken cable does: each side believes that the other is there.
//! What is held back is delivered when the proxy is mended, or lost when the connections are dropped.

use super::port::Port;
use std::sync::{Arc, Mutex};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, tcp::OwnedReadHalf, tcp::OwnedWriteHalf},
    sync::watch,
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
    stopped: CancellationToken,
    held: Arc<Mutex<Vec<u8>>>,
}

impl Proxy {
    /// Stands in front of a server's port.
    pub(crate) async fn start(server: u16) -> Self {
        let port = Port::free();
        let listener = TcpListener::bind(("127.0.0.1", port.number())).await.unwrap();
        let (flow, _) = watch::channel(Flow::WHOLE);
        let (epoch, epochs) = watch::channel(CancellationToken::new());
        let stopped = CancellationToken::new();
        let held = Arc::default();
        tokio::spawn(accept(listener, server, (flow.clone(), Arc::clone(&held)), epochs, stopped.clone()));
        Self { port, flow, epoch, stopped, held }
    }

    /// Its own port.
    pub(crate) fn port(&self) -> u16 {
        self.port.number()
    }

    /// Cuts or mends.
    pub(crate) fn set(&self, flow: Flow) {
        self.flow.send_replace(flow);
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

async fn accept(
    listener: TcpListener,
    server: u16,
    (flow, held): (watch::Sender<Flow>, Arc<Mutex<Vec<u8>>>),
    epochs: watch::Receiver<CancellationToken>,
    stopped: CancellationToken,
) {
    let connections = TaskTracker::new();
    while let Some(Ok((client, _))) = stopped.run_until_cancelled(listener.accept()).await {
        let epoch = epochs.borrow().clone();
        let Ok(server) = TcpStream::connect(("127.0.0.1", server)).await else { continue };
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        let (from_client, to_client) = client.into_split();
        let (from_server, to_server) = server.into_split();
        // Either side's end is the connection's.
        let connection = epoch.child_token();
        let requests = carry(
            from_client,
            to_server,
            flow.subscribe(),
            |flow| flow.requests,
            connection.clone(),
            Arc::clone(&held),
        );
        let answers =
            carry(from_server, to_client, flow.subscribe(), |flow| flow.answers, connection, Arc::default());
        connections.spawn(requests);
        connections.spawn(answers);
    }
}

async fn carry(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut flow: watch::Receiver<Flow>,
    open: impl Fn(&Flow) -> bool,
    connection: CancellationToken,
    held: Arc<Mutex<Vec<u8>>>,
) {
    let mut bytes = vec![0; 64 << 10];
    let copy = async {
        loop {
            let Ok(count @ 1..) = from.read(&mut bytes).await else { return };
            if !open(&flow.borrow()) {
                held.lock().unwrap().extend_from_slice(&bytes[..count]);
            }
            if flow.wait_for(&open).await.is_err() || to.write_all(&bytes[..count]).await.is_err() {
                return;
            }
        }
    };
    connection.run_until_cancelled(copy).await;
    connection.cancel();
}
