//! The way to the broker: connecting, staying connected, and the server that Headgate runs itself.
//!
//! The client reconnects for ever on its own; what was under way when a connection ended is lost, and whoever
//! publishes learns of it through [`Link`]. No URL is logged with its credentials.

mod address;
pub(crate) mod bucket;
pub mod embedded;
mod version;
pub mod wire;

use crate::config::{Auth, Nats, Server};
use async_nats::{
    Client, ConnectOptions, Event,
    jetstream::{ErrorCode, context::GetStreamErrorKind},
};
use serde::{Deserialize, Serialize};
use std::{
    error::Error,
    hash::BuildHasher as _,
    io,
    time::{Duration, Instant},
};
use tokio::sync::watch;
pub(crate) use version::Version;

/// How the connection to the broker is, told through a watch channel by its event callback.
///
/// A reader that finds another `generation` than it knew has lost whatever was under way on the connection before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// Whether there is a connection now.
    pub connected: bool,
    /// How many connections there have been; 0 before the first.
    pub generation: u64,
}

/// How long to try for the first connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// Once, for a few seconds: somebody waits for the answer.
    Once,
    /// For ever, with backoff.
    Endless,
    /// The same, for one connection beside another: how the broker is, that one tells in the log.
    Silent,
}

/// No connection to the broker.
#[derive(Debug, thiserror::Error)]
#[error("cannot connect to nats at {server}: {reason}")]
pub struct ConnectError {
    server: String,
    reason: String,
    fix: &'static str,
}

impl ConnectError {
    /// What to do next.
    #[must_use]
    pub fn fix(&self) -> &'static str {
        self.fix
    }
}

/// Longest wait for a connection to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A silent server is asked this often; twice without an answer is a lost connection.
const PING_INTERVAL: Duration = Duration::from_secs(10);
/// How often a connection that cannot be made for the same reason is told again.
const REMIND: Duration = Duration::from_secs(30);
/// Longest wait between two tries.
const LONGEST_DELAY: Duration = Duration::from_secs(2);

/// Connects as `name`.
///
/// # Errors
/// The settings cannot be used, or, unless patience is endless, the server cannot be reached.
pub async fn connect(
    nats: &Nats,
    name: &str,
    patience: Patience,
) -> Result<(Client, watch::Receiver<Link>), ConnectError> {
    let mut attempt = 0;
    let mut told: Option<(String, Instant)> = None;
    loop {
        match try_connect(nats, name, patience).await {
            Ok(connection) => return Ok(connection),
            Err((error, retry)) if patience == Patience::Once || !retry => return Err(error),
            Err((error, _)) => {
                attempt += 1;
                let delay = backoff(attempt).max(Duration::from_millis(100));
                // The same reason again and again would bury everything else.
                let known = told
                    .as_ref()
                    .is_some_and(|(reason, at)| *reason == error.reason && at.elapsed() < REMIND);
                if !known && patience != Patience::Silent {
                    tracing::warn!(fix = error.fix, "{error}; trying again until it works");
                    told = Some((error.reason, Instant::now()));
                }
                tokio::time::sleep(delay).await;
            }
        }
    }
}

/// One try. The flag of the error: whether another try can help.
async fn try_connect(
    nats: &Nats,
    name: &str,
    patience: Patience,
) -> Result<(Client, watch::Receiver<Link>), (ConnectError, bool)> {
    let failed =
        |reason: String, fix, retry| (ConnectError { server: nats.server.to_string(), reason, fix }, retry);
    let (addresses, login) = address::addresses(&nats.server)
        .map_err(|reason| failed(reason.to_owned(), "correct nats.url", false))?;
    let (told, mut link) = watch::channel(Link::default());
    let auth = match &nats.auth {
        Auth::None => &login,
        auth => auth,
    };
    let options = options(nats, auth, name)
        .map_err(|reason| failed(reason, "nats.credentials is the content of a .creds file", false))?
        .event_callback(move |event| {
            note(&told, &event, patience != Patience::Silent);
            std::future::ready(())
        });
    // The embedded server is nobody's to start but the gateway's.
    let start = match nats.server {
        Server::Embedded(_) => "headgate run starts it",
        Server::Remote(_) => "start the server, or correct nats.url",
    };
    let connecting = tokio::time::timeout(CONNECT_TIMEOUT, options.connect(addresses));
    let client = match connecting.await {
        Ok(Ok(client)) => client,
        Ok(Err(error)) => {
            use async_nats::ConnectErrorKind as Kind;
            let fix = match error.kind() {
                Kind::Authentication | Kind::AuthorizationViolation => {
                    "set nats.credentials, nats.user and nats.password, nats.token or nats.nkey to what the server knows"
                }
                Kind::Tls => "see [nats.tls]: ca, cert, key, required",
                _ if refuses_certificate(&error) => {
                    "give nats.tls.ca the authority that signed the server's certificate; it has to name the host of nats.url (subjectAltName), and be no authority's own, as `openssl req -x509` makes them (basicConstraints=CA:FALSE)"
                }
                _ => start,
            };
            return Err(failed(error.to_string(), fix, true));
        }
        Err(_) => {
            let reason = format!("no answer within {CONNECT_TIMEOUT:?}");
            return Err(failed(reason, start, true));
        }
    };
    // The event of the first connection comes by a task of its own; whoever gets the link should find it connected.
    let _ = tokio::time::timeout(Duration::from_secs(1), link.wait_for(|link| link.connected)).await;
    Ok((client, link))
}

/// Whether the server's certificate is what the connection failed for.
fn refuses_certificate(error: &(dyn Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        if inner
            .is_some_and(|inner| matches!(inner.downcast_ref(), Some(rustls::Error::InvalidCertificate(_))))
        {
            return true;
        }
        next = error.source();
    }
    false
}

fn options(nats: &Nats, auth: &Auth, name: &str) -> Result<ConnectOptions, String> {
    let mut options = ConnectOptions::new()
        .name(name)
        .connection_timeout(CONNECT_TIMEOUT)
        .ping_interval(PING_INTERVAL)
        .client_capacity(2 * nats.window + 512)
        .custom_inbox_prefix(format!("_INBOX.headgate{:016x}", random()))
        .max_reconnects(None)
        .reconnect_delay_callback(backoff)
        .require_tls(nats.tls.required);
    if let Some(ca) = &nats.tls.ca {
        options = options.add_root_certificates(ca.clone());
    }
    if let (Some(cert), Some(key)) = (&nats.tls.cert, &nats.tls.key) {
        options = options.add_client_certificate(cert.clone(), key.clone());
    }
    match auth {
        Auth::None => Ok(options),
        Auth::Credentials(text) => {
            options.credentials(text).map_err(|_| "the credentials cannot be read".to_owned())
        }
        Auth::Nkey(seed) => Ok(options.nkey(seed.clone())),
        Auth::Token(token) => Ok(options.token(token.clone())),
        Auth::Password(user, password) => Ok(options.user_and_password(user.clone(), password.clone())),
    }
}

fn note(told: &watch::Sender<Link>, event: &Event, aloud: bool) {
    match event {
        Event::Connected => {
            told.send_modify(|link| *link = Link { connected: true, generation: link.generation + 1 });
            if aloud {
                tracing::info!("connected to nats");
            }
        }
        Event::Disconnected => {
            told.send_modify(|link| link.connected = false);
            if aloud {
                tracing::warn!("disconnected from nats");
            }
        }
        // By us: nobody uses the client any more.
        Event::Closed => {
            told.send_modify(|link| link.connected = false);
            tracing::debug!("the connection to nats is closed");
        }
        Event::LameDuckMode if aloud => tracing::warn!("the nats server is about to shut down"),
        Event::LameDuckMode | Event::Draining => {}
        Event::SlowConsumer(_) => tracing::warn!("a subscription does not keep up with the nats server"),
        Event::ServerError(error) => tracing::error!("the nats server reports: {error}"),
        Event::ClientError(error) => tracing::error!("the nats client reports: {error}"),
    }
}

/// How long to wait before the given try: nothing before the first, then growing, with jitter so that many clients of
/// one server do not return at the same moment.
#[must_use]
pub fn backoff(attempt: usize) -> Duration {
    let Some(doublings) = attempt.checked_sub(2) else { return Duration::ZERO };
    let longest = Duration::from_millis(50 << doublings.min(8)).min(LONGEST_DELAY);
    let half = longest / 2;
    half + half.mul_f64((random() % 1000) as f64 / 1000.0)
}

/// Whether an error says that there is no such stream.
pub(crate) fn is_stream_missing(kind: GetStreamErrorKind) -> bool {
    matches!(kind, GetStreamErrorKind::JetStream(error) if error.error_code() == ErrorCode::STREAM_NOT_FOUND)
}

/// A number that differs between processes and calls; not for secrets.
pub(crate) fn random() -> u64 {
    std::hash::RandomState::new().hash_one(std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_grows_and_stays_bounded() {
        assert_eq!(backoff(0), Duration::ZERO);
        assert_eq!(backoff(1), Duration::ZERO);
        for attempt in 2..200 {
            let delay = backoff(attempt);
            assert!(delay >= Duration::from_millis(25) && delay <= LONGEST_DELAY, "{attempt}: {delay:?}");
        }
    }
}
