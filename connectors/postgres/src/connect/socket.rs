//! The way to the server: a TCP or unix socket, secured before anything else is said on it.
//!
//! The answer to the request for TLS is one byte, and exactly one byte is read: whatever a man in the middle appends
//! to it in clear text is never taken for the server's words (CVE-2021-23222).

use super::{
    end_point::end_point,
    stream::{Stream, Unwatch},
    target::{Place, Target},
    tls::{Mode, client_config},
};
use headgate_sdk::Fault;
use rustls::pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::{TcpStream, UnixStream},
};
use tokio_rustls::{TlsConnector, client::TlsStream};

/// Room for what the server sends while we publish, so that it can go on decoding.
const RECEIVE_BUFFER: usize = 4 << 20;

/// A connection to the server, secured as the URL asks.
pub(crate) enum Socket {
    Tcp(Tcp),
    Unix(Stream<UnixStream>),
    Tls(Box<TlsStream<Tcp>>),
}

type Tcp = Stream<TcpStream>;

impl Socket {
    /// Whether nobody else can listen: a password may be said in clear text.
    pub(crate) fn is_private(&self) -> bool {
        !matches!(self, Self::Tcp(_))
    }

    /// Whether TLS is on.
    pub(crate) fn is_tls(&self) -> bool {
        matches!(self, Self::Tls(_))
    }

    /// The way to leave the socket unwatched.
    pub(crate) fn unwatcher(&self) -> Arc<dyn Unwatch> {
        match self {
            Self::Tcp(stream) => stream.unwatcher(),
            Self::Unix(stream) => stream.unwatcher(),
            Self::Tls(stream) => stream.get_ref().0.unwatcher(),
        }
    }

    /// What SCRAM binds to, see [`end_point`].
    pub(crate) fn end_point(&self) -> Option<Vec<u8>> {
        match self {
            Self::Tls(stream) => {
                stream.get_ref().1.peer_certificates()?.first().and_then(|certificate| end_point(certificate))
            }
            Self::Tcp(_) | Self::Unix(_) => None,
        }
    }
}

/// A place that has been looked up.
#[derive(Clone, Debug)]
pub(crate) enum Address {
    /// The name to verify, and where it is.
    Tcp(String, SocketAddr),
    /// A unix socket.
    Unix(std::path::PathBuf),
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(host, address) if address.ip().to_string() == *host => write!(f, "{address}"),
            Self::Tcp(host, address) => write!(f, "{host} ({address})"),
            Self::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

/// Looks a place up.
pub(crate) async fn resolve(place: &Place) -> Result<Vec<Address>, Fault> {
    match place {
        Place::Unix(path) => Ok(vec![Address::Unix(path.clone())]),
        Place::Tcp { host, address: Some(address), port } => {
            Ok(vec![Address::Tcp(host.clone(), SocketAddr::new(*address, *port))])
        }
        Place::Tcp { host, address: None, port } => {
            let found = tokio::net::lookup_host((host.as_str(), *port)).await.map_err(|error| {
                Fault::transient(format!("cannot look up the database's host {host}"))
                    .with_cause(error)
                    .with_fix("check the host in the url, and the name service")
            })?;
            Ok(found.map(|address| Address::Tcp(host.clone(), address)).collect())
        }
    }
}

/// Connects and secures the connection.
pub(crate) async fn dial(target: &Target, address: &Address) -> Result<Socket, Fault> {
    match tokio::time::timeout(target.timeout, open(target, address)).await {
        Ok(result) => result,
        Err(_) => Err(Fault::transient(format!(
            "no answer from the database at {address} within {:?}",
            target.timeout
        ))
        .with_fix("check host, port and firewall; connect_timeout sets how long to wait")),
    }
}

async fn open(target: &Target, address: &Address) -> Result<Socket, Fault> {
    let unreachable = |error: io::Error| {
        Fault::transient(format!("cannot connect to the database at {address}")).with_cause(error).with_fix(
            "check that the server runs, listens there (listen_addresses, port) and is not behind a firewall",
        )
    };
    match address {
        Address::Unix(path) => {
            let stream = UnixStream::connect(path).await.map_err(unreachable)?;
            Ok(Socket::Unix(Stream::new(stream)))
        }
        Address::Tcp(host, at) => {
            let stream = TcpStream::connect(at).await.map_err(unreachable)?;
            tune(&stream).map_err(unreachable)?;
            secure(target, host, address, Stream::new(stream)).await
        }
    }
}

fn tune(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    let keepalive =
        TcpKeepalive::new().with_time(Duration::from_secs(30)).with_interval(Duration::from_secs(10));
    socket.set_tcp_keepalive(&keepalive)?;
    // A wish: the kernel gives what it allows (net.core.rmem_max).
    let _ = socket.set_recv_buffer_size(RECEIVE_BUFFER);
    Ok(())
}

async fn secure(target: &Target, host: &str, address: &Address, mut stream: Tcp) -> Result<Socket, Fault> {
    if target.tls.mode == Mode::Disable {
        return Ok(Socket::Tcp(stream));
    }
    let lost = |error: io::Error| {
        Fault::transient(format!("lost the connection to {address} while asking for TLS")).with_cause(error)
    };
    if !target.tls.direct {
        let mut request = bytes::BytesMut::new();
        postgres_protocol::message::frontend::ssl_request(&mut request);
        stream.write_all(&request).await.map_err(lost)?;
        match stream.read_u8().await.map_err(lost)? {
            b'S' => {}
            b'N' if target.tls.mode == Mode::Prefer => return Ok(Socket::Tcp(stream)),
            b'N' => {
                return Err(Fault::definite(format!("the database at {address} has no TLS, and sslmode asks for it"))
                    .with_fix("set ssl = on in postgresql.conf (with ssl_cert_file and ssl_key_file) and reload, or use sslmode=prefer"));
            }
            // An error instead of an answer: a server that cannot start a backend. Its text is not trustworthy yet.
            b'E' => {
                return Err(Fault::transient(format!(
                    "the database at {address} answered the request for TLS with an error"
                )));
            }
            _ => {
                return Err(Fault::definite(format!(
                    "what listens at {address} does not speak PostgreSQL's protocol"
                ))
                .with_fix("check host and port in the url"));
            }
        }
    }
    let config = client_config(&target.tls)?;
    let name = ServerName::try_from(host.to_owned()).map_err(|error| {
        Fault::definite(format!("{host} is not a name that a certificate could carry")).with_cause(error)
    })?;
    let stream = TlsConnector::from(config)
        .connect(name, stream)
        .await
        .map_err(|error| untrusted(target, host, address, error))?;
    Ok(Socket::Tls(Box::new(stream)))
}

const REFUSED_BY_SERVER: &str =
    "the server refused: check sslcert and sslkey against its ssl_ca_file, and its ssl_min_protocol_version";

/// What to do where a session's beginning failed because the server refused TLS. In TLS 1.3 it judges the client's
/// certificate when the handshake is over for the client.
pub(super) fn refused_in_tls(error: &io::Error) -> Option<&'static str> {
    let tls = error.get_ref()?.downcast_ref::<rustls::Error>()?;
    matches!(tls, rustls::Error::AlertReceived(_)).then_some(REFUSED_BY_SERVER)
}

/// A failed handshake: final where it is about trust, else perhaps a passing loss.
fn untrusted(target: &Target, host: &str, address: &Address, error: io::Error) -> Fault {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let message = format!("the TLS handshake with {address} failed");
    match tls {
        Some(rustls::Error::InvalidCertificate(_)) => Fault::definite(message).with_cause(error).with_fix(format!(
            "the certificate must be valid now, come from {} and be made out to {host}; set sslrootcert, or (sslmode=verify-ca) do without the name",
            target.tls.root.as_deref().filter(|root| *root != "system").unwrap_or("an authority that the system trusts")
        )),
        Some(rustls::Error::AlertReceived(_)) => {
            Fault::definite(message).with_cause(error).with_fix(REFUSED_BY_SERVER)
        }
        _ => Fault::transient(message).with_cause(error),
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Unix(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
