//! What a MySQL or MariaDB source can be told.

use headgate_sdk::fnv1a;
use std::time::Duration;

/// The settings of one MySQL or MariaDB source, with secrets and variables already filled in.
#[derive(Clone)]
pub struct Config {
    /// `mysql://user:password@host:port/database?ssl-mode=…&ssl-ca=…&ssl-cert=…&ssl-key=…&socket=…`. Holds a secret: never
    /// logged.
    pub url: String,
    /// Globs on `schema.table`; a leading `!` excludes. A table is captured when a glob includes it and none excludes it.
    pub tables: Vec<String>,
    /// The id to be known by among the server's replicas; derived from the source's name where none is given.
    pub server_id: Option<u32>,
    /// How often the server says that it is alive while it has nothing to tell. Three times that long without a word
    /// and the connection is given up.
    pub heartbeat: Duration,
    /// Give events the text of the statement that changed their row, where the server logs it.
    pub query: bool,
    /// How long to wait for a connection to be made.
    pub connect_timeout: Duration,
    /// How long an outage the log should outlast; `check` compares the server's retention with it.
    pub outage_budget: Duration,
}

impl Config {
    /// The settings that hold for `url` when nothing else is said.
    #[must_use]
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            tables: Vec::new(),
            server_id: None,
            heartbeat: Duration::from_secs(10),
            query: false,
            connect_timeout: Duration::from_secs(10),
            outage_budget: Duration::from_secs(24 * 3600),
        }
    }

    /// The id that `source` is known by among the server's replicas: the one that was given, else one derived from its
    /// name, in the upper half of the range, where people and orchestrators seldom choose theirs.
    #[must_use]
    pub fn server_id_of(&self, source: &str) -> u32 {
        self.server_id.unwrap_or_else(|| fnv1a(&[source.as_bytes()]) | 1 << 31)
    }
}

/// Without the URL, which holds a password.
impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Config")
            .field("tables", &self.tables)
            .field("server_id", &self.server_id)
            .finish_non_exhaustive()
    }
}
