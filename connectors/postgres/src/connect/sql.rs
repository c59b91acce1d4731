//! Ordinary SQL sessions, over the same kind of socket and with the same settings as the replication connection.
//!
//! The socket is secured by us; `tokio-postgres` is told that TLS has been negotiated already (`Direct`), so that there
//! is one way to TLS only and channel binding works for both.

use super::{
    socket::{self, Socket},
    startup,
    target::Target,
};
use crate::refusal::{Refusal, sql_fault};
use headgate_sdk::Fault;
use std::{
    future::{Ready, ready},
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready as poll_ready},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    task::JoinHandle,
};
use tokio_postgres::{
    Client,
    config::{SslMode, SslNegotiation},
    tls::{ChannelBinding, NoTls, TlsConnect, TlsStream},
};

/// A session and the task that drives it; the session ends when this is dropped.
pub(crate) struct SqlSession {
    /// For queries. Queries of one session run one after the other.
    pub(crate) client: Arc<Client>,
    driver: JoinHandle<Option<tokio_postgres::Error>>,
}

impl Drop for SqlSession {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl SqlSession {
    /// Starts a session on `socket`.
    pub(crate) async fn start(socket: Socket, target: &Target) -> Result<Self, Fault> {
        let mut config = tokio_postgres::Config::new();
        config
            .user(&target.user)
            .dbname(&target.database)
            .application_name(&target.application)
            .options(format!("{} -c lock_timeout=5s", target.options))
            .channel_binding(target.channel_binding);
        if let Some(password) = &target.password {
            config.password(password);
        }
        let private = socket.is_private();
        let (client, driver) = if socket.is_tls() {
            config.ssl_mode(SslMode::Require).ssl_negotiation(SslNegotiation::Direct);
            let end_point = socket.end_point();
            let (client, connection) = config
                .connect_raw(socket, Negotiated { end_point })
                .await
                .map_err(|error| refused(error, target))?;
            (client, tokio::spawn(async move { connection.await.err() }))
        } else {
            config.ssl_mode(SslMode::Disable);
            let guard = Guard { socket, seen: if private { None } else { Some(Vec::new()) } };
            let (client, connection) =
                config.connect_raw(guard, NoTls).await.map_err(|error| refused(error, target))?;
            (client, tokio::spawn(async move { connection.await.err() }))
        };
        Ok(Self { client: Arc::new(client), driver })
    }

    /// Waits until the session ends, which it does not by itself: says why.
    pub(crate) async fn ended(&mut self) -> Fault {
        match (&mut self.driver).await {
            Ok(Some(error)) => match Refusal::of(&error) {
                Some(refusal) if refusal.is_shutdown() => {
                    Fault::transient("the database is shutting down").with_cause(refusal)
                }
                Some(refusal) => refusal.fault("the database ended a session"),
                None => Fault::transient("lost the SQL connection to the database").with_cause(error),
            },
            Ok(None) | Err(_) => Fault::transient("the SQL connection to the database is closed"),
        }
    }
}

fn refused(error: tokio_postgres::Error, target: &Target) -> Fault {
    if let Some(refusal) = Refusal::of(&error) {
        return startup::refused(refusal, target);
    }
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    while let Some(inner) = cause {
        if let Some(lost) = inner.downcast_ref::<io::Error>() {
            if lost.get_ref().is_some_and(|reason| reason.is::<ClearText>()) {
                return startup::cleartext();
            }
            return match socket::refused_in_tls(lost) {
                Some(fix) => {
                    Fault::definite("the server refused the TLS session").with_cause(error).with_fix(fix)
                }
                None => sql_fault(error, "lost the connection to the database while starting an SQL session"),
            };
        }
        cause = inner.source();
    }
    if error.is_closed() {
        return sql_fault(error, "the database closed the connection while an SQL session was started");
    }
    // Neither the server nor the network: the two of us do not agree on how to authenticate.
    Fault::definite(format!("cannot authenticate as {}", target.user)).with_cause(error).with_fix(
        "check that the url holds the password (postgres://user:${PASSWORD}@host/database), and scram-sha-256 in pg_hba.conf",
    )
}

/// TLS that has been negotiated already.
struct Negotiated {
    end_point: Option<Vec<u8>>,
}

impl TlsConnect<Socket> for Negotiated {
    type Stream = Secured;
    type Error = io::Error;
    type Future = Ready<io::Result<Secured>>;

    fn connect(self, socket: Socket) -> Self::Future {
        ready(Ok(Secured { socket, end_point: self.end_point }))
    }
}

struct Secured {
    socket: Socket,
    end_point: Option<Vec<u8>>,
}

impl TlsStream for Secured {
    fn channel_binding(&self) -> ChannelBinding {
        match &self.end_point {
            Some(end_point) => ChannelBinding::tls_server_end_point(end_point.clone()),
            None => ChannelBinding::none(),
        }
    }
}

/// The server asked for a password in clear text.
#[derive(Debug, thiserror::Error)]
#[error("the server asks for the password in clear text")]
struct ClearText;

/// Looks at the first message that comes over an open connection: `tokio-postgres` would answer a request for the
/// password in clear text.
struct Guard {
    socket: Socket,
    /// The first bytes of the server's first message, until it has been judged.
    seen: Option<Vec<u8>>,
}

impl AsyncRead for Guard {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        poll_ready!(Pin::new(&mut self.socket).poll_read(cx, buf))?;
        if let Some(seen) = &mut self.seen {
            seen.extend(buf.filled().iter().skip(before).take(9));
            if let Some([tag, _, _, _, _, kind @ ..]) = seen.first_chunk::<9>() {
                if *tag == b'R' && *kind == 3u32.to_be_bytes() {
                    return Poll::Ready(Err(io::Error::other(ClearText)));
                }
                self.seen = None;
            }
        }
        Poll::Ready(Ok(()))
    }
}

macro_rules! write_through {
    ($stream:ty) => {
        impl AsyncWrite for $stream {
            fn poll_write(
                mut self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                buf: &[u8],
            ) -> Poll<io::Result<usize>> {
                Pin::new(&mut self.socket).poll_write(cx, buf)
            }

            fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                Pin::new(&mut self.socket).poll_flush(cx)
            }

            fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                Pin::new(&mut self.socket).poll_shutdown(cx)
            }
        }
    };
}

write_through!(Guard);
write_through!(Secured);

impl AsyncRead for Secured {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(cx, buf)
    }
}
