//! From a URL to an authenticated session.

mod packet;
mod password;
mod refusal;
mod replication;
mod target;
mod tls;

pub(crate) use packet::Packets;
pub(crate) use refusal::{sql_fault, unprivileged};
pub(crate) use replication::{OK, REFUSED, Replication, refusal};
pub(crate) use target::Target;
pub use target::{UrlError, parse_url};

use futures_util::FutureExt as _;
use headgate_sdk::Fault;
use mysql_async::{ClientIdentity, Conn, DriverError, Error, OptsBuilder, SslOpts};
use password::Withheld;
use std::{panic::AssertUnwindSafe, time::Duration};
use target::Tls;

/// The largest event that is taken: the protocol's own limit on a packet's content.
const LARGEST_PACKET: usize = 1 << 30;
/// Heartbeats that may be missing before a connection is given up.
pub(crate) const PATIENCE: u32 = 3;
/// Seconds that a session may be idle. Every session of ours says something much more often, so that one whose gateway
/// is gone without a word frees its lock soon.
const IDLE_SECONDS: usize = 120;

impl Target {
    /// A new session, in UTC.
    pub(crate) async fn connect(&self) -> Result<Conn, Fault> {
        let secured = self.socket.is_none() && self.tls != Tls::Disabled;
        match self.open(secured.then(|| self.ssl())).await {
            Err(Error::Driver(DriverError::NoClientSslFlagFromServer)) if self.tls == Tls::Preferred => {
                self.open(None).await
            }
            // The driver cannot leave a certificate's name unchecked, but it can look for another one: any that the
            // certificate has will do. That it is signed by the authority is checked in the same handshake.
            Err(error) if self.tls == Tls::VerifyCa => match certified_name(&error) {
                Some(name) => self.open(Some(self.ssl().with_danger_tls_hostname_override(Some(name)))).await,
                None => Err(error),
            },
            opened => opened,
        }
        .map_err(|error| self.unreachable(error))
    }

    async fn open(&self, ssl: Option<SslOpts>) -> Result<Conn, Error> {
        let mut options = OptsBuilder::default()
            .ip_or_hostname(&self.host)
            .tcp_port(self.port)
            .socket(self.socket.clone())
            // The driver would change to the server's unix socket by itself, which need not be ours to reach.
            .prefer_socket(false)
            .user(Some(&self.user))
            .pass(self.password.clone())
            .db_name(self.database.clone())
            .tcp_keepalive(Some(Duration::from_secs(30)))
            .max_allowed_packet(Some(LARGEST_PACKET))
            .wait_timeout(Some(IDLE_SECONDS))
            .setup(vec![format!("SET time_zone = '+00:00', wait_timeout = {IDLE_SECONDS}")]);
        if ssl.is_some() {
            options = options.ssl_opts(ssl);
        }
        // The driver panics at a key that is none, before it has said anything secret; see `password`.
        let opened = AssertUnwindSafe(Conn::new(options)).catch_unwind();
        match tokio::time::timeout(self.timeout, opened).await {
            Ok(opened) => opened.unwrap_or_else(|_| Err(Error::Other(Withheld::Nonsense.into()))),
            Err(_) => Err(Error::Io(mysql_async::IoError::Io(std::io::Error::new(
                std::io::ErrorKind::TimedOut,
                format!("no answer within {:?}", self.timeout),
            )))),
        }
    }

    fn ssl(&self) -> SslOpts {
        let checked = matches!(self.tls, Tls::VerifyCa | Tls::VerifyIdentity);
        let mut ssl = SslOpts::default().with_danger_accept_invalid_certs(!checked);
        if let Some(authority) = &self.authority {
            ssl = ssl.with_root_certs(vec![authority.clone().into()]).with_disable_built_in_roots(true);
        }
        if let Some((certificate, key)) = &self.identity {
            let identity = ClientIdentity::new(certificate.clone().into(), key.clone().into());
            ssl = ssl.with_client_identity(Some(identity));
        }
        ssl
    }

    fn unreachable(&self, error: Error) -> Fault {
        let doing = format!("cannot connect to {}", self.address());
        match error {
            Error::Driver(DriverError::NoClientSslFlagFromServer) => {
                Fault::definite(format!("{doing}: the server has no TLS"))
                    .with_fix("give the server a certificate (ssl_cert, ssl_key), or, on a network that you trust, set ssl-mode=preferred in the url")
            }
            Error::Other(error) if error.is::<Withheld>() => Fault::transient(doing)
                .with_fix("let nobody be in between: ssl-mode=verify_identity in the url; or see that the server has a sound key (caching_sha2_password_public_key_path)")
                .with_cause(error),
            Error::Io(mysql_async::IoError::Io(io)) if unanswered(&io) => {
                Fault::transient(format!("{doing}: {}", innermost(&io)))
                    .with_fix("check host and port in the url, that the server runs and listens there (bind_address, port), and that no firewall is in between")
            }
            error => match certificate_error(&error) {
                // It may be renewed, or another server may come back behind the address: tried again.
                Some(found) => Fault::transient(format!("{doing}: the server's certificate does not prove who it is"))
                    .with_fix("give the url the authority that signed it (ssl-ca=…) and, for ssl-mode=verify_identity, the host by a subjectAltName of the certificate")
                    .with_cause(found.to_string()),
                None => sql_fault(error, doing),
            },
        }
    }

    /// Waits for what a session asks, but not for ever: a network that is cut without a word, or that damaged the length
    /// of an answer, says nothing more. Whoever gives up has to give up the session too.
    pub(crate) async fn answer<T, E: From<Fault>>(
        &self,
        asked: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        match tokio::time::timeout(self.patience, asked).await {
            Ok(answered) => answered,
            Err(_) => {
                let what = format!("{} has not answered for {:?}", self.address(), self.patience);
                Err(Fault::transient(what).into())
            }
        }
    }

    /// How long a session may leave a question unanswered.
    pub(crate) fn patience(&self) -> Duration {
        self.patience
    }
}

/// Whether the network failed, or what listens there says nothing that a MySQL server says, rather than TLS.
fn unanswered(error: &std::io::Error) -> bool {
    !error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>())
}

/// The error without those that only repeat it.
fn innermost(error: &std::io::Error) -> String {
    error.get_ref().map_or_else(|| error.to_string(), ToString::to_string)
}

/// What rustls finds wrong with a server's certificate, if that is the error.
fn certificate_error(error: &Error) -> Option<&rustls::CertificateError> {
    let refused = match error {
        Error::Io(mysql_async::IoError::Io(io)) => io.get_ref()?.downcast_ref::<rustls::Error>()?,
        _ => return None,
    };
    match refused {
        rustls::Error::InvalidCertificate(error) => Some(error),
        _ => None,
    }
}

/// A name that the certificate does have, where it was refused for another name only.
fn certified_name(error: &Error) -> Option<String> {
    let Some(rustls::CertificateError::NotValidForNameContext { presented, .. }) = certificate_error(error)
    else {
        return None;
    };
    // As `DnsName("db.example")` or `IpAddress(10.0.0.5)`; a wildcard is no name to look for.
    presented.iter().find_map(|name| {
        let (_, name) = name.trim_end_matches(')').split_once('(')?;
        let name = name.trim_matches('"').replacen("*.", "any.", 1);
        rustls::pki_types::ServerName::try_from(name.as_str()).is_ok().then_some(name)
    })
}
