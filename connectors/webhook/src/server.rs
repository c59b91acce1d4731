//! The public listener: connections, their deadlines and their number.
//!
//! * A request's head has to be there [`HEAD_WITHIN`] after the connection became idle, its body within the source's
//!   `body_timeout`. Who is slower is cut off. Connections have no timer each, which every request would set anew: idle
//!   ones are looked through every [`LOOK_EVERY`].
//! * At most `max_connections` are open. When another comes, the one that was idle for longest makes room ([`Roster`]), so
//!   that half-open connections do not keep anybody out.
//! * **TLS** is optional; its handshake and the first head have to be there within the same time.
//! * **Shutdown**: nothing is accepted any more, requests under way are answered, idle connections are closed.

use crate::{
    intake::{Intake, Keep},
    roster::{Roster, Visit},
};
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use std::{
    convert::Infallible,
    fs, io,
    net::{IpAddr, SocketAddr},
    path::Path,
    sync::Arc,
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    time::{MissedTickBehavior, interval},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// How long a connection may be without a complete request head.
const HEAD_WITHIN: Duration = Duration::from_secs(10);
/// How often the connections are looked through for idle ones.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Bytes of a request's head; hyper's least is 8 KiB.
const HEAD_BYTES: usize = 32 << 10;
/// How long to wait when the system has no more sockets to give.
const OUT_OF_SOCKETS: Duration = Duration::from_millis(50);

/// The listening socket, with TLS or without.
pub struct Listener {
    tcp: TcpListener,
    tls: Option<TlsAcceptor>,
    roster: Roster,
}

impl std::fmt::Debug for Listener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Listener")
            .field("tcp", &self.tcp)
            .field("tls", &self.tls.is_some())
            .finish_non_exhaustive()
    }
}

/// The TLS settings cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{file}: {problem}")]
pub struct TlsError {
    file: String,
    problem: String,
}

/// A certificate chain and its key, both PEM.
///
/// # Errors
/// A file cannot be read, or the two do not make a server.
pub fn tls(certificate: &Path, key: &Path) -> Result<TlsAcceptor, TlsError> {
    use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
    let failed = |file: &Path, problem: &dyn std::fmt::Display| TlsError {
        file: file.display().to_string(),
        problem: problem.to_string(),
    };
    let pem = fs::read(certificate).map_err(|error| failed(certificate, &error))?;
    let chain = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| failed(certificate, &error))?;
    let pem = fs::read(key).map_err(|error| failed(key, &error))?;
    let key_der = PrivateKeyDer::from_pem_slice(&pem).map_err(|error| failed(key, &error))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| failed(certificate, &error))?
        .with_no_client_auth()
        .with_single_cert(chain, key_der)
        .map_err(|error| failed(certificate, &error))?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

impl Listener {
    /// Takes the address, with room for this many connections.
    ///
    /// # Errors
    /// It is taken, or not an address of this machine.
    pub async fn bind(
        address: SocketAddr,
        tls: Option<TlsAcceptor>,
        max_connections: usize,
    ) -> io::Result<Self> {
        Ok(Self { tcp: TcpListener::bind(address).await?, tls, roster: Roster::new(max_connections) })
    }

    /// Serves until the token fires and the requests under way are answered.
    pub async fn serve<K: Keep>(self, intake: Arc<Intake<K>>, shutdown: CancellationToken) {
        let connections = TaskTracker::new();
        let mut look = interval(LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let accepted = tokio::select! {
                accepted = self.tcp.accept() => accepted,
                _ = look.tick() => {
                    self.roster.evict(HEAD_WITHIN);
                    continue;
                }
                () = shutdown.cancelled() => break,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // The client is gone again, or the process is out of file descriptors; the latter would spin.
                    tracing::debug!("cannot accept a connection: {error}");
                    tokio::time::sleep(OUT_OF_SOCKETS).await;
                    continue;
                }
            };
            // All are at work: the newcomer is the one who can come again.
            let Some(visit) = self.roster.admit(&shutdown) else { continue };
            let connection = Connection { intake: Arc::clone(&intake), peer: peer.ip(), visit };
            connections.spawn(connection.run(stream, self.tls.clone()));
        }
        drop(self.tcp);
        connections.close();
        connections.wait().await;
    }
}

struct Connection<K> {
    intake: Arc<Intake<K>>,
    peer: IpAddr,
    visit: Visit,
}

impl<K: Keep> Connection<K> {
    async fn run(self, stream: TcpStream, tls: Option<TlsAcceptor>) {
        // An answer is one small packet that nothing follows.
        let _ = stream.set_nodelay(true);
        match tls {
            None => self.serve(stream).await,
            Some(acceptor) => {
                let handshake = self.visit.ended.run_until_cancelled(acceptor.accept(stream));
                // Without a handshake there is nobody to tell.
                if let Some(Ok(stream)) = handshake.await {
                    Box::pin(self.serve(stream)).await;
                }
            }
        }
    }

    async fn serve(&self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
        let service = service_fn(|request| async move {
            let _busy = self.visit.work();
            Ok::<_, Infallible>(self.intake.answer(request, self.peer).await)
        });
        let connection = http1::Builder::new()
            // An answer is small: copied into one piece it costs less than written in two.
            .writev(false)
            .header_read_timeout(None)
            // Of at most 100 lines, hyper's own limit: setting one, even the same, costs an allocation for each request.
            .max_buf_size(HEAD_BYTES)
            .serve_connection(TokioIo::new(stream), service);
        let mut connection = std::pin::pin!(connection);
        let ended = tokio::select! {
            biased;
            ended = connection.as_mut() => ended,
            () = self.visit.ended.cancelled() => {
                // Nothing is waited for where no request is under way. One may have begun just when the connection had to make
                // room, and its delivery may be safe already: it is answered.
                if self.visit.is_idle() {
                    return;
                }
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(peer = %self.peer, "a connection ended: {error}");
        }
    }
}
