//! The configuration as the gateway uses it: complete, expanded, checked. Built by [`load()`].

mod error;
mod expand;
mod load;
mod nearest;
mod section;
mod shaping;
mod source;
mod units;

pub use error::{ConfigError, Problem};
pub(crate) use expand::expand;
pub use load::{load, load_with};
pub(crate) use nearest::nearest;
pub use section::{SecretFiles, read_secret};
pub use shaping::{ColumnRule, Mask, Member, Outbox, Salt, SemanticEvent, Shaping};
pub(crate) use source::mysql_default_schema;
pub(crate) use units::duration as parse_duration;

use headgate_sdk::SnapshotSettings;
use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

/// The whole configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// `[gateway]`
    pub gateway: Gateway,
    /// `[nats]`
    pub nats: Nats,
    /// `[http]`
    pub http: Http,
    /// `[admin]`
    pub admin: Admin,
    /// `[sources.NAME]`
    pub sources: BTreeMap<String, Source>,
}

/// `[gateway]`
#[derive(Clone, Debug)]
pub struct Gateway {
    /// Name of this gateway, shown to the broker and the databases.
    pub name: String,
    /// Where the gateway keeps files (the embedded broker's store).
    pub data_dir: PathBuf,
    /// Number of partitions that ordering keys are spread over.
    pub partitions: u32,
    /// How long a shutdown may take.
    pub shutdown_grace: Duration,
    /// Bytes of events that one source may hold in memory on their way to the broker.
    pub memory: usize,
}

/// `[nats]`
#[derive(Clone, Debug)]
pub struct Nats {
    /// Where the broker is.
    pub server: Server,
    /// How to be known to it.
    pub auth: Auth,
    /// `[nats.tls]`
    pub tls: Tls,
    /// `[nats.stream]`
    pub stream: Stream,
    /// How an event becomes a message.
    pub mode: Mode,
    /// The subject template; by default `events.{source}.{entity}.{verb}.{partition}`.
    pub subject: String,
    /// How messages are published.
    pub publish: Publish,
    /// How long to hold back what the source's log may release, after the broker acknowledged it; `None` to choose by
    /// the stream's replicas and the broker's kind.
    pub confirm_delay: Option<Duration>,
    /// Messages under way before the publisher waits for acknowledgements.
    pub window: usize,
    /// How long an acknowledgement may take before the stream is asked where it ends.
    pub ack_timeout: Duration,
}

/// Where the broker is. URLs may hold credentials: neither `Display` nor `Debug` shows them.
#[derive(Clone, PartialEq, Eq)]
pub enum Server {
    /// Headgate starts and supervises a nats-server of its own.
    Embedded(Embedded),
    /// URLs of a running server or cluster.
    Remote(Vec<String>),
}

impl std::fmt::Display for Server {
    /// Where the broker is, without credentials.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Embedded(embedded) => write!(f, "nats://{} (embedded)", embedded.listen),
            Self::Remote(urls) => {
                for (index, url) in urls.iter().enumerate() {
                    if index > 0 {
                        f.write_str(",")?;
                    }
                    f.write_str(&without_credentials(url))?;
                }
                Ok(())
            }
        }
    }
}

/// The URL without what stands before the host's `@`.
#[must_use]
pub fn without_credentials(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("nats", url));
    // A password may hold an unescaped `/` or `@`, so everything up to the last `@` goes.
    let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
    format!("{scheme}://{host}")
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self}")
    }
}

/// `[nats.embedded]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Embedded {
    /// Where the embedded server listens.
    pub listen: SocketAddr,
    /// The nats-server program; searched for on PATH when not given.
    pub binary: Option<PathBuf>,
    /// How often the embedded server syncs its files to disk.
    pub sync_interval: Duration,
}

/// How to be known to the broker. Holds secrets: its `Debug` shows the kind only.
#[derive(Clone, Default)]
pub enum Auth {
    /// Nothing, or what the URL says.
    #[default]
    None,
    /// The text of a `.creds` file (JWT and nkey seed).
    Credentials(String),
    /// An nkey seed.
    Nkey(String),
    /// A token.
    Token(String),
    /// User and password.
    Password(String, String),
}

impl std::fmt::Debug for Auth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::Credentials(_) => "Credentials(…)",
            Self::Nkey(_) => "Nkey(…)",
            Self::Token(_) => "Token(…)",
            Self::Password(..) => "Password(…)",
        })
    }
}

/// `[nats.tls]`
#[derive(Clone, Debug, Default)]
pub struct Tls {
    /// Refuse a connection without TLS.
    pub required: bool,
    /// Authority certificates to trust beside the system's (PEM).
    pub ca: Option<PathBuf>,
    /// Client certificate chain (PEM).
    pub cert: Option<PathBuf>,
    /// Client key (PEM).
    pub key: Option<PathBuf>,
}

/// `[nats.stream]`: what a stream is created with. An existing stream is never changed.
#[derive(Clone, Debug)]
pub struct Stream {
    /// Memory instead of files: for trials only.
    pub memory: bool,
    /// Copies of each message in a cluster.
    pub replicas: usize,
    /// How long events are kept; zero for ever.
    pub max_age: Duration,
    /// How many bytes of events are kept; `None` for all. The oldest go first.
    pub max_bytes: Option<u64>,
}

/// How an event becomes a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// One JSON object with attributes and data.
    Structured,
    /// Attributes as `ce-` headers, data as the payload.
    Binary,
}

/// How messages are published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Publish {
    /// A fenced chain of single messages with sparse acknowledgements.
    Chain,
    /// Atomic batches of up to 1000 messages: for brokers that sync on every write.
    Atomic,
}

/// `[http]`
#[derive(Clone, Debug)]
pub struct Http {
    /// Where webhooks are received.
    pub listen: SocketAddr,
    /// The URL under which the world sees `listen`.
    pub public_url: Option<String>,
    /// `[http.tls]`; `None`: without TLS, behind a proxy that ends it.
    pub tls: Option<HttpTls>,
    /// Networks of proxies whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<headgate_webhook::IpNet>,
    /// Connections that may be open at a time.
    pub max_connections: usize,
    /// Bytes of bodies that may be under way at a time.
    pub memory: usize,
    /// Where providers beside those of the release are.
    pub providers_dir: Option<PathBuf>,
    /// Bytes of deliveries that are kept on disk while the broker does not take them.
    pub spool_max: u64,
}

/// `[http.tls]`
#[derive(Clone, Debug)]
pub struct HttpTls {
    /// Certificate chain (PEM).
    pub cert: PathBuf,
    /// Its key (PEM).
    pub key: PathBuf,
}

/// `[admin]`
#[derive(Clone, Debug)]
pub struct Admin {
    /// Where health, metrics and status are served.
    pub listen: SocketAddr,
}

/// `[sources.NAME]`
#[derive(Clone, Debug)]
pub struct Source {
    /// The events' `source` attribute; by default `/headgate/{name}`.
    pub uri: Option<String>,
    /// The first part of the events' `type`; by default the source's name.
    pub type_prefix: Option<String>,
    /// Entity names by `schema.table`, where the default is not wanted.
    pub entities: BTreeMap<String, String>,
    /// What to do where history is gone.
    pub on_gap: OnGap,
    /// What to do where a table's shape changes in a way that is not compatible.
    pub on_incompatible: OnIncompatible,
    /// What is told of its rows and messages.
    pub shaping: Shaping,
    /// How snapshots are made.
    pub snapshots: SnapshotSettings,
    /// The connector and its own settings.
    pub connector: Connector,
}

/// What to do where history is gone, after saying so in a `gap` event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnGap {
    /// Stop the source until somebody accepts the gap.
    Stop,
    /// Go on, and read everything again.
    Snapshot,
}

/// What to do where a table's shape changes so that whoever knows the old one may not understand the new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnIncompatible {
    /// Say so, and go on.
    Warn,
    /// Stop the source before the first event of the new shape, until somebody accepts it.
    Stop,
}

/// A connector and its own settings.
#[derive(Clone, Debug)]
pub enum Connector {
    /// `connector = "postgres"`
    Postgres(headgate_postgres::Config),
    /// `connector = "mysql"`
    MySql(headgate_mysql::Config),
    /// `connector = "webhook"`
    Webhook(Webhook),
}

impl Connector {
    /// Which one it is.
    #[must_use]
    pub fn kind(&self) -> ConnectorKind {
        match self {
            Self::Postgres(_) => ConnectorKind::Postgres,
            Self::MySql(_) => ConnectorKind::MySql,
            Self::Webhook(_) => ConnectorKind::Webhook,
        }
    }
}

/// A connector, without its settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectorKind {
    /// PostgreSQL's log.
    Postgres,
    /// The log of MySQL or MariaDB.
    MySql,
    /// Webhooks.
    Webhook,
}

impl ConnectorKind {
    /// As the configuration names it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::MySql => "mysql",
            Self::Webhook => "webhook",
        }
    }
}

/// The settings of a webhook source.
#[derive(Clone, Debug)]
pub struct Webhook {
    /// The provider, as data.
    pub provider: Arc<headgate_webhook::Provider>,
    /// What the provider's requests are verified with.
    pub settings: headgate_webhook::Settings,
    /// What is accepted, and how much.
    pub limits: headgate_webhook::Limits,
    /// For how long the same delivery is recognised.
    pub dedup_window: Duration,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_part_of_a_password_is_shown() {
        for url in ["nats://u:p@h:4222", "nats://u:p@x/p@h:4222", "u:p@h:4222", "nats://tokenp@h:4222"] {
            assert_eq!(without_credentials(url), "nats://h:4222");
        }
        assert_eq!(without_credentials("tls://h"), "tls://h");
    }
}
