//! What a PostgreSQL source can be told.

use crate::connect::Target;
use headgate_sdk::Fault;
use std::{collections::BTreeMap, time::Duration};

/// The settings of one PostgreSQL source, with secrets and variables already filled in.
#[derive(Clone)]
pub struct Config {
    /// `postgres://user:password@host:port/database?sslmode=…&sslrootcert=…&sslcert=…&sslkey=…`, or
    /// `host=/run/postgresql` for a unix socket. Holds a secret: never logged.
    pub url: String,
    /// Globs on `schema.table`; a leading `!` excludes. A table is captured when a glob includes it and none excludes it.
    pub tables: Vec<String>,
    /// Row filters by `schema.table`: conditions in SQL under which a row is published (PostgreSQL 15 and later).
    pub row_filters: BTreeMap<String, String>,
    /// An existing publication to use as it is; without one Headgate keeps its own.
    pub publication: Option<String>,
    /// Name of the replication slot; by default `headgate_{source}`.
    pub slot: Option<String>,
    /// Create the slot as a failover slot (PostgreSQL 17 and later).
    pub failover: bool,
    /// Tell changes of partitions under the name of their root table.
    pub partition_root: bool,
    /// How often to write a heartbeat into a log that is otherwise silent; `None` for never.
    pub heartbeat: Option<Duration>,
    /// Largest row in bytes on the wire; a larger one goes to the dead letters unread.
    pub max_row: u64,
    /// How long to wait for a connection to be made.
    pub connect_timeout: Duration,
    /// How long to wait for the slot's creation, which waits for every transaction that is open when it starts.
    pub slot_timeout: Duration,
    /// How long the database has to keep its log for a gateway that is away; `check` measures the server by it.
    pub outage_budget: Duration,
    /// Bytes of log that may be kept for this source; `None` for what the server allows.
    pub wal_limit: Option<u64>,
    /// What to do when [`wal_limit`](Self::wal_limit) is reached.
    pub on_wal_pressure: WalPressure,
}

/// What to do when the database keeps more log for a source than it may.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WalPressure {
    /// Warn, long before, and go on: the data counts more than the disk.
    #[default]
    Warn,
    /// Drop the slot, which loses changes: the database counts more than the data.
    DropSlot,
}

impl Config {
    /// Looks whether the URL says where to connect, as whom and how. No more than its text is looked at.
    ///
    /// # Errors
    /// Definite: what is wrong with it, without any of its values.
    pub fn check_url(&self) -> Result<(), Fault> {
        Target::new(self, "").map(drop)
    }

    /// The settings that hold for `url` when nothing else is said.
    #[must_use]
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            tables: vec!["public.*".to_owned()],
            row_filters: BTreeMap::new(),
            publication: None,
            slot: None,
            failover: false,
            partition_root: true,
            heartbeat: Some(Duration::from_secs(30)),
            max_row: 32 << 20,
            connect_timeout: Duration::from_secs(10),
            slot_timeout: Duration::from_secs(120),
            outage_budget: Duration::from_secs(8 * 3600),
            wal_limit: None,
            on_wal_pressure: WalPressure::Warn,
        }
    }
}

/// Without the URL, which holds a password.
impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Config")
            .field("tables", &self.tables)
            .field("publication", &self.publication)
            .field("slot", &self.slot)
            .finish_non_exhaustive()
    }
}
