//! What a source's URL says: where a database is, and how to be let in.

use super::PATIENCE;
use crate::Config;
use headgate_sdk::{Fault, percent};
use std::{path::PathBuf, time::Duration};

/// How a connection is secured; the names are those of `ssl-mode` in MySQL's own clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tls {
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
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) socket: Option<String>,
    pub(crate) user: String,
    pub(super) password: Option<String>,
    pub(crate) database: Option<String>,
    pub(super) tls: Tls,
    pub(super) authority: Option<PathBuf>,
    pub(super) identity: Option<(PathBuf, PathBuf)>,
    pub(super) timeout: Duration,
    pub(super) patience: Duration,
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

    pub(super) fn parse(url: &str, timeout: Duration) -> Result<Self, UrlError> {
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
