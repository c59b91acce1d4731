//! What the URL says: where the server is, who we are there, and how the way to it is secured. Pure.
//!
//! `tokio_postgres::Config` reads the URL; what it does not know (the certificate settings, two of the six `sslmode`s)
//! is taken out of the text before.

use super::tls::{Mode, TlsSettings};
use crate::Config;
use headgate_sdk::{Fault, percent};
use std::{net::IpAddr, path::PathBuf, time::Duration};
use tokio_postgres::config::{ChannelBinding, Host, SslMode, SslNegotiation};

/// The session settings that the text of values depends on, the timeouts that would end a session that only waits, and that
/// publications can be made by a role whose transactions only read unless it says otherwise. They stand on every connection, so
/// that a snapshot and the log give the same bytes whatever the role or the database has set.
const SETTINGS: &str = "-c datestyle=ISO,YMD -c intervalstyle=iso_8601 -c timezone=UTC -c bytea_output=hex \
    -c extra_float_digits=1 -c lc_monetary=C -c statement_timeout=0 -c lock_timeout=0 \
    -c idle_in_transaction_session_timeout=0 -c idle_session_timeout=0 -c default_transaction_read_only=off";

/// One way to reach the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// A name, and where it is if the URL says so.
    Tcp { host: String, address: Option<IpAddr>, port: u16 },
    /// The path of a unix socket.
    Unix(PathBuf),
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp { host, port, .. } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

/// Everything that is needed to connect.
#[derive(Clone)]
pub(crate) struct Target {
    /// Where the server may be, in the order to try.
    pub(crate) places: Vec<Place>,
    /// The role.
    pub(crate) user: String,
    /// Its password.
    pub(crate) password: Option<Vec<u8>>,
    /// The database.
    pub(crate) database: String,
    /// How we show up in `pg_stat_activity`.
    pub(crate) application: String,
    /// The `options` startup parameter: the URL's own, then [`SETTINGS`], which win.
    pub(crate) options: String,
    /// Whether SCRAM must, may or must not be bound to the TLS channel.
    pub(crate) channel_binding: ChannelBinding,
    /// How the way is secured.
    pub(crate) tls: TlsSettings,
    /// How long one attempt may take.
    pub(crate) timeout: Duration,
    /// What `tokio_postgres` made of the URL: which server of several will do (`target_session_attrs`).
    pub(crate) attributes: tokio_postgres::config::TargetSessionAttrs,
}

impl Target {
    /// Reads the URL of a source.
    pub(crate) fn new(config: &Config, source: &str) -> Result<Self, Fault> {
        let (rest, own) = split(&config.url)?;
        // The parser's errors name an option or a place in the text, never a value.
        let parsed: tokio_postgres::Config = rest.parse().map_err(|error| {
            Fault::definite("the url of the source cannot be read").with_cause(error).with_fix(FORM)
        })?;

        let mut tls = TlsSettings {
            mode: match parsed.get_ssl_mode() {
                SslMode::Disable => Mode::Disable,
                SslMode::Require => Mode::Require,
                _ => Mode::Prefer,
            },
            direct: parsed.get_ssl_negotiation() == SslNegotiation::Direct,
            ..TlsSettings::default()
        };
        for (key, value) in own {
            match key.as_str() {
                "sslmode" => tls.mode = mode(&value)?,
                "sslrootcert" if !value.is_empty() => tls.root = Some(value),
                "sslcert" if !value.is_empty() => tls.cert = Some(value.into()),
                "sslkey" if !value.is_empty() => tls.key = Some(value.into()),
                _ => {}
            }
        }
        // As libpq has it: an authority that was named is meant to be used.
        if tls.mode == Mode::Require && tls.root.is_some() {
            tls.mode = Mode::VerifyCa;
        }
        if tls.root.as_deref() == Some("system") && tls.mode != Mode::VerifyFull {
            return Err(Fault::definite("sslrootcert=system trusts every public authority, so the server's name has to be verified too")
                .with_fix("add sslmode=verify-full to the url"));
        }
        if tls.direct && matches!(tls.mode, Mode::Disable | Mode::Prefer) {
            return Err(Fault::definite("sslnegotiation=direct needs TLS")
                .with_fix("add sslmode=require, verify-ca or verify-full to the url"));
        }
        if tls.cert.is_some() != tls.key.is_some() {
            return Err(Fault::definite("a client certificate needs its key, and a key its certificate")
                .with_fix("give both sslcert and sslkey in the url, or none"));
        }
        let channel_binding = parsed.get_channel_binding();
        if channel_binding == ChannelBinding::Require && tls.mode == Mode::Disable {
            return Err(Fault::definite("channel_binding=require needs TLS")
                .with_fix("add sslmode=verify-full to the url"));
        }

        let user = parsed
            .get_user()
            .filter(|user| !user.is_empty())
            .map(str::to_owned)
            .ok_or_else(|| Fault::definite("the url of the source names no user").with_fix(FORM))?;
        let database = parsed.get_dbname().unwrap_or(&user).to_owned();
        let options = match parsed.get_options() {
            Some(options) => format!("{options} {SETTINGS}"),
            None => SETTINGS.to_owned(),
        };
        Ok(Self {
            places: places(&parsed)?,
            password: parsed.get_password().map(<[u8]>::to_vec),
            application: parsed
                .get_application_name()
                .map_or_else(|| format!("headgate_{source}"), str::to_owned),
            timeout: parsed
                .get_connect_timeout()
                .copied()
                .filter(|timeout| !timeout.is_zero())
                .unwrap_or(config.connect_timeout),
            attributes: parsed.get_target_session_attrs(),
            user,
            database,
            options,
            channel_binding,
            tls,
        })
    }
}

const FORM: &str = "url = \"postgres://user:password@host:5432/database?sslmode=verify-full\"";

/// The settings that `tokio_postgres` does not know, or not wholly.
const OWN: [&str; 4] = ["sslmode", "sslrootcert", "sslcert", "sslkey"];

/// Settings of libpq that change nothing here: what they ask for is what we do anyway.
fn harmless(key: &str, value: &str) -> bool {
    match key {
        "gssencmode" => matches!(value, "disable" | "prefer"),
        "sslsni" => value == "1",
        "sslcompression" => value == "0",
        "client_encoding" => {
            value.eq_ignore_ascii_case("utf8") || value.eq_ignore_ascii_case("utf-8") || value == "auto"
        }
        "fallback_application_name" => true,
        _ => false,
    }
}

fn mode(value: &str) -> Result<Mode, Fault> {
    Ok(match value {
        "disable" => Mode::Disable,
        "prefer" => Mode::Prefer,
        "require" => Mode::Require,
        "verify-ca" => Mode::VerifyCa,
        "verify-full" => Mode::VerifyFull,
        "allow" => {
            return Err(Fault::definite(
                "sslmode=allow is not supported: it encrypts only when the server insists",
            )
            .with_fix("use sslmode=prefer, or better sslmode=verify-full"));
        }
        _ => {
            return Err(Fault::definite("sslmode has no such value")
                .with_fix("use disable, prefer, require, verify-ca or verify-full"));
        }
    })
}

fn places(parsed: &tokio_postgres::Config) -> Result<Vec<Place>, Fault> {
    let (hosts, addresses, ports) = (parsed.get_hosts(), parsed.get_hostaddrs(), parsed.get_ports());
    let count = hosts.len().max(addresses.len());
    if count == 0 {
        return Err(Fault::definite("the url of the source names no host").with_fix(FORM));
    }
    if (!hosts.is_empty() && !addresses.is_empty() && hosts.len() != addresses.len())
        || (ports.len() > 1 && ports.len() != count)
    {
        return Err(Fault::definite(
            "the url of the source has different numbers of hosts, addresses and ports",
        ));
    }
    let mut places = Vec::with_capacity(count);
    for index in 0..count {
        let port = ports.get(index).or(ports.first()).copied().unwrap_or(5432);
        let address = addresses.get(index).copied();
        places.push(match (hosts.get(index), address) {
            (Some(Host::Unix(directory)), _) => Place::Unix(directory.join(format!(".s.PGSQL.{port}"))),
            (Some(Host::Tcp(host)), None) if host.is_empty() => {
                return Err(Fault::definite("the url of the source names no host").with_fix(FORM));
            }
            (Some(Host::Tcp(host)), address) => Place::Tcp { host: host.clone(), address, port },
            (None, Some(address)) => Place::Tcp { host: address.to_string(), address: Some(address), port },
            (None, None) => return Err(Fault::definite("the url of the source names no host").with_fix(FORM)),
        });
    }
    Ok(places)
}

/// The text without our own settings, and those.
fn split(url: &str) -> Result<(String, Vec<(String, String)>), Fault> {
    if url.starts_with("postgres://") || url.starts_with("postgresql://") {
        split_url(url)
    } else {
        split_pairs(url)
    }
}

fn unreadable(what: &str) -> Fault {
    Fault::definite(format!("the url of the source cannot be read: {what}")).with_fix(FORM)
}

fn split_url(url: &str) -> Result<(String, Vec<(String, String)>), Fault> {
    // A raw question mark in the password belongs to the password.
    let credentials = url.find('@').unwrap_or(0);
    let Some(query) = url.get(credentials..).and_then(|rest| rest.find('?')).map(|at| at + credentials)
    else {
        return Ok((url.to_owned(), Vec::new()));
    };
    let (base, pairs) = (url.get(..query).unwrap_or_default(), url.get(query + 1..).unwrap_or_default());
    let (mut kept, mut own) = (Vec::new(), Vec::new());
    for pair in pairs.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').ok_or_else(|| unreadable("a parameter without a value"))?;
        let value = percent::decode(value).ok_or_else(|| unreadable("a broken percent-encoding"))?;
        if OWN.contains(&key) {
            own.push((key.to_owned(), value));
        } else if !harmless(key, &value) {
            kept.push(pair);
        }
    }
    let rest = if kept.is_empty() { base.to_owned() } else { format!("{base}?{}", kept.join("&")) };
    Ok((rest, own))
}

/// `key = value` pairs, values perhaps in quotes, a backslash before a quote or a backslash.
fn split_pairs(text: &str) -> Result<(String, Vec<(String, String)>), Fault> {
    let (mut kept, mut own) = (String::new(), Vec::new());
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let (key, after) = rest
            .split_once('=')
            .ok_or_else(|| unreadable("it is neither a postgres:// url nor key=value pairs"))?;
        let key = key.trim();
        let after = after.trim_start();
        let quoted = after.starts_with('\'');
        let mut value = String::new();
        let mut end = None;
        let mut characters = after.char_indices().skip(usize::from(quoted));
        while let Some((at, c)) = characters.next() {
            match c {
                '\\' => value.push(characters.next().ok_or_else(|| unreadable("a backslash at the end"))?.1),
                '\'' if quoted => {
                    end = Some(at + 1);
                    break;
                }
                c if c.is_whitespace() && !quoted => {
                    end = Some(at);
                    break;
                }
                c => value.push(c),
            }
        }
        let end = match end {
            Some(end) => end,
            None if quoted => return Err(unreadable("a quote that is not closed")),
            None => after.len(),
        };
        if OWN.contains(&key) {
            own.push((key.to_owned(), value));
        } else if !harmless(key, &value) {
            kept.push_str(&format!("{key}={} ", after.get(..end).unwrap_or_default()));
        }
        rest = after.get(end..).unwrap_or_default().trim_start();
    }
    Ok((kept, own))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn target(url: &str) -> Result<Target, Fault> {
        Target::new(&Config::new(url), "shop")
    }

    #[test]
    fn reads_urls_and_pairs() {
        let t = target("postgres://cdc:p%40ss?@db:5433/shop?sslmode=verify-full&sslrootcert=%2Fetc%2Fca.pem&application_name=x").unwrap();
        assert_eq!(t.places, [Place::Tcp { host: "db".into(), address: None, port: 5433 }]);
        assert_eq!(
            (t.user.as_str(), t.password.as_deref(), t.database.as_str()),
            ("cdc", Some(&b"p@ss?"[..]), "shop")
        );
        assert_eq!(
            (t.tls.mode, t.tls.root.as_deref(), t.application.as_str()),
            (Mode::VerifyFull, Some("/etc/ca.pem"), "x")
        );

        let t = target(
            "host=/run/postgresql user = cdc password='it''s' dbname=shop sslmode='disable' port=5439",
        );
        assert!(t.is_err(), "a doubled quote is not an escape");
        let t = target(
            r"host=/run/postgresql user = cdc password='it\'s' dbname=shop sslmode='disable' port=5439",
        )
        .unwrap();
        assert_eq!(t.places, [Place::Unix("/run/postgresql/.s.PGSQL.5439".into())]);
        assert_eq!(
            (t.password.as_deref(), t.tls.mode, t.application.as_str()),
            (Some(&b"it's"[..]), Mode::Disable, "headgate_shop")
        );

        let t = target("postgres://u@a:1,b:2/d?target_session_attrs=read-write&gssencmode=disable").unwrap();
        assert_eq!(t.places.len(), 2);
        assert_eq!(t.tls.mode, Mode::Prefer);
    }

    #[test]
    fn require_with_an_authority_verifies_it() {
        assert_eq!(
            target("postgres://u@a/d?sslmode=require&sslrootcert=/ca").unwrap().tls.mode,
            Mode::VerifyCa
        );
    }

    #[test]
    fn our_settings_come_after_the_urls() {
        let options = target("postgres://u@a/d?options=-c%20timezone%3DJapan").unwrap().options;
        assert!(options.find("timezone=Japan").unwrap() < options.find("timezone=UTC").unwrap());
    }

    #[test]
    fn refuses_clearly_and_never_shows_the_password() {
        for url in [
            "postgres://u:secret@a/d?sslmode=allow",
            "postgres://u:secret@a/d?sslmode=maybe",
            "postgres://u:secret@a/d?sslrootcert=system",
            "postgres://u:secret@a/d?sslcert=/x",
            "postgres://u:secret@a/d?sslnegotiation=direct",
            "postgres://u:secret@a/d?sslcrl=/x",
            "postgres://u:secret@a/d?channel_binding=require&sslmode=disable",
            "postgres://:secret@a/d",
            "postgres://u:secret@/d",
            "postgres://u:secret@a:port/d",
            "mysql://u:secret@a/d",
            "password='secret",
            "secret",
        ] {
            let fault = target(url).err().unwrap();
            assert_eq!(fault.kind(), headgate_sdk::FaultKind::Definite, "{url}");
            let text = format!("{fault} {fault:?} {:?}", fault.fix());
            assert!(!text.contains("secret"), "{url}: {text}");
        }
    }
}
