//! From a URL to an authenticated session.

mod packet;
mod password;
mod refusal;
mod replication;
mod tls;

pub(crate) use packet::Packets;
pub(crate) use refusal::{sql_fault, unprivileged};
pub(crate) use replication::{OK, REFUSED, Replication, refusal};

use crate::Config;
use futures_util::FutureExt as _;
use headgate_sdk::{Fault, percent};
use mysql_async::{ClientIdentity, Conn, DriverError, Error, OptsBuilder, SslOpts};
use password::Withheld;
use std::{panic::AssertUnwindSafe, path::PathBuf, time::Duration};

/// The largest event that is taken: the protocol's own limit on a packet's content.
const LARGEST_PACKET: usize = 1 << 30;
/// Heartbeats that may be missing before a connection is given up.
pub(crate) const PATIENCE: u32 = 3;
/// Seconds that a session may be idle. Every session of ours says something much more often, so that one whose gateway
/// is gone without a word frees its lock soon.
const IDLE_SECONDS: usize = 120;

/// How a connection is secured; the names are those of `ssl-mode` in MySQL's own clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tls {
    Disabled,
    /// Encrypted if the server can; no certificate is checked.
    Preferred,
    /// Encrypted; no certificate is checked.
    Required,
    /// The certificate has to be signed by a known authority.
    VerifyCa,
    /// The certificate has to be the host's, too.
    VerifyIdentity,
}

/// Where a database is, and how to be let in.
#[derive(Clone)]
pub(crate) struct Target {
    host: String,
    port: u16,
    socket: Option<String>,
    pub(crate) user: String,
    password: Option<String>,
    pub(crate) database: Option<String>,
    tls: Tls,
    authority: Option<PathBuf>,
    identity: Option<(PathBuf, PathBuf)>,
    timeout: Duration,
    patience: Duration,
}

/// Without the password.
impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Target")
            .field("address", &self.address())
            .field("tls", &self.tls)
            .finish_non_exhaustive()
    }
}

/// What is wrong with a URL, without any part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct UrlError(&'static str);

/// Checks a URL without connecting, and gives the database that it names.
///
/// # Errors
/// It is not `mysql://user:password@host:port/database?…`, or has an option that is not known.
pub fn parse_url(url: &str) -> Result<Option<String>, UrlError> {
    Target::parse(url, Duration::ZERO).map(|target| target.database)
}

impl Target {
    /// Reads a source's URL.
    pub(crate) fn new(config: &Config) -> Result<Self, Fault> {
        let target = Self::parse(&config.url, config.connect_timeout).map_err(|error| {
            Fault::definite(format!("the source's url {error}"))
                .with_fix("write it as mysql://user:password@host:3306/database")
        })?;
        Ok(Self { patience: config.connect_timeout.max(config.heartbeat * PATIENCE), ..target })
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

    fn parse(url: &str, timeout: Duration) -> Result<Self, UrlError> {
        let rest = url
            .strip_prefix("mysql://")
            .or_else(|| url.strip_prefix("mariadb://"))
            .ok_or(UrlError("is not a MySQL URL"))?;
        let (rest, options) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
        let (user, host) = authority.rsplit_once('@').ok_or(UrlError("names no user"))?;
        if user.contains('@') {
            return Err(UrlError("has a user or password that is not percent-encoded"));
        }
        let (user, password) = match user.split_once(':') {
            Some((user, password)) => (user, Some(decode(password)?)),
            None => (user, None),
        };
        let (host, port) = match host.rsplit_once(':') {
            Some((name, port)) if !port.ends_with(']') => {
                (name, port.parse().map_err(|_| UrlError("has no sound host and port"))?)
            }
            _ => (host, 3306),
        };
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let database = Some(decode(database)?).filter(|database| !database.is_empty());
        let mut target = Self {
            host: decode(host)?,
            port,
            socket: None,
            user: decode(user)?,
            password,
            database,
            tls: Tls::Preferred,
            authority: None,
            identity: None,
            timeout,
            patience: timeout,
        };
        target.read_options(options)?;
        if target.host.is_empty() && target.socket.is_none() {
            return Err(UrlError("has no sound host and port"));
        }
        Ok(target)
    }

    fn read_options(&mut self, options: &str) -> Result<(), UrlError> {
        let (mut certificate, mut key) = (None, None);
        for option in options.split('&').filter(|option| !option.is_empty()) {
            let (name, value) = option.split_once('=').ok_or(UrlError("has an option without a value"))?;
            let value = decode(value)?;
            match name.to_ascii_lowercase().replace('_', "-").as_str() {
                "ssl-mode" | "sslmode" => {
                    self.tls = match value.to_ascii_lowercase().replace('-', "_").as_str() {
                        "disabled" | "disable" => Tls::Disabled,
                        "preferred" | "prefer" => Tls::Preferred,
                        "required" | "require" => Tls::Required,
                        "verify_ca" => Tls::VerifyCa,
                        "verify_identity" | "verify_full" => Tls::VerifyIdentity,
                        _ => {
                            return Err(UrlError(
                                "has an ssl-mode that is none of disabled, preferred, required, verify_ca, verify_identity",
                            ));
                        }
                    };
                }
                "ssl-ca" => self.authority = Some(value.into()),
                "ssl-cert" => certificate = Some(PathBuf::from(value)),
                "ssl-key" => key = Some(PathBuf::from(value)),
                "socket" => self.socket = Some(value),
                _ => {
                    return Err(UrlError(
                        "has an option that is none of ssl-mode, ssl-ca, ssl-cert, ssl-key, socket",
                    ));
                }
            }
        }
        self.identity = match (certificate, key) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            _ => return Err(UrlError("has one of ssl-cert and ssl-key without the other")),
        };
        Ok(())
    }

    /// Where it is, for people.
    pub(crate) fn address(&self) -> String {
        match &self.socket {
            Some(socket) => socket.clone(),
            None => format!("{}:{}", self.host, self.port),
        }
    }

    /// Whether nobody can be in between: a unix socket, or this machine's own address.
    pub(crate) fn is_near(&self) -> bool {
        let loopback = self.host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
        self.socket.is_some() || loopback || self.host == "localhost"
    }

    /// Whether the server has to prove that it is the one that the URL names.
    pub(crate) fn verifies(&self) -> bool {
        self.tls == Tls::VerifyIdentity
    }

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

/// Percent-decodes one part of a URL.
fn decode(text: &str) -> Result<String, UrlError> {
    percent::decode(text).ok_or(UrlError("has a broken percent-encoding"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn urls_are_read() {
        let target = Target::parse(
            "mysql://cdc:p%40ss%3A@[::1]:3307/shop?ssl-mode=VERIFY_CA&ssl-ca=%2Fetc%2Fca.pem",
            Duration::ZERO,
        )
        .unwrap();
        assert_eq!((target.host.as_str(), target.port), ("::1", 3307));
        assert_eq!(target.password.as_deref(), Some("p@ss:"));
        assert_eq!(target.database.as_deref(), Some("shop"));
        assert_eq!(target.tls, Tls::VerifyCa);
        assert!(!format!("{target:?}").contains("p@ss"));
        let local = Target::parse("mysql://cdc@/?socket=/run/mysqld/mysqld.sock", Duration::ZERO).unwrap();
        assert_eq!(local.address(), "/run/mysqld/mysqld.sock");
        assert_eq!(local.database, None);
    }

    #[test]
    fn unsound_urls_are_refused_without_being_repeated() {
        for url in [
            "postgres://a:b@h/d",
            "mysql://host/db",
            "mysql://a:b@c@h/d",
            "mysql://a:%4@h/d",
            "mysql://a:b@h:port/d",
            "mysql://a:b@/d",
            "mysql://a:b@h/d?ssl-mode=maybe",
            "mysql://a:b@h/d?ssl-key=x",
            "mysql://a:b@h/d?charset=latin1",
        ] {
            let error = Target::parse(url, Duration::ZERO).unwrap_err();
            assert!(!error.to_string().contains("b@"), "{error}");
        }
    }
}
