//! What `/status` answers and `headgate status` reads back.

use super::Phase;
use crate::snapshot::SnapshotReport;
use serde::{Deserialize, Serialize};

/// The content of `/status`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// The gateway itself.
    pub gateway: GatewayReport,
    /// Its sources, by name.
    pub sources: Vec<SourceReport>,
}

/// The gateway in `/status`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct GatewayReport {
    /// Its configured name.
    pub name: String,
    /// The version of Headgate.
    pub version: String,
    /// Seconds since it started.
    pub uptime_s: u64,
    /// The broker.
    pub nats: NatsReport,
}

/// The broker in `/status`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NatsReport {
    /// Whether there is a connection now.
    pub connected: bool,
    /// Where it is, without credentials.
    pub url: String,
}

/// One source in `/status`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SourceReport {
    /// The source's name.
    pub name: String,
    /// Its connector.
    pub connector: String,
    /// What it is doing.
    pub state: Phase,
    /// Position of the last event that the stream is known to hold.
    pub position: Option<String>,
    /// Stream sequence of that event.
    pub sequence: u64,
    /// Bytes of log whose events are not in the stream yet.
    pub lag_bytes: u64,
    /// Age of the oldest commit that is not in the stream yet.
    pub lag_ms: u64,
    /// Bytes of log that the database keeps for this source.
    pub retained_bytes: u64,
    /// Bytes that may still be written before the database gives the source up; null where there is no limit
    /// or it is not known.
    pub safe_bytes: Option<u64>,
    /// How near the database is to keeping more log for this source than it may.
    #[serde(default)]
    pub wal: WalReport,
    /// Seconds until the database discards log that is not in the stream for certain, if nothing moves on; null where none is
    /// about to go.
    #[serde(default)]
    pub log_expires_in_s: Option<u64>,
    /// The position last confirmed to the database, in its own words.
    pub confirmed: Option<String>,
    /// Commit time of the last event that the stream is known to hold.
    pub last_commit: Option<String>,
    /// Events published since the gateway started.
    pub events: u64,
    /// Events that went to the dead letters since the gateway started.
    pub dead_letters: u64,
    /// Faults since the gateway started.
    pub errors: u64,
    /// The last fault.
    pub last_error: Option<String>,
    /// What to do about it.
    pub fix: Option<String>,
    /// Times that the source was started again.
    pub restarts: u64,
    /// The first snapshot that is under way.
    pub snapshot: Option<SnapshotReport>,
    /// All that are under way, and the last ones that ended.
    pub snapshots: Vec<SnapshotReport>,
}

/// How near a database is to keeping more log for a source than it may.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct WalReport {
    /// How near.
    pub pressure: WalPressure,
    /// Bytes of log that the database writes in a second, averaged over about a minute.
    pub rate: u64,
    /// Seconds until as much is kept as may be, at that rate and if nothing is released; null where there is no limit
    /// or it is not known.
    pub left_s: Option<u64>,
    /// The open transaction that makes the database keep its log, if one does.
    pub holder: Option<HolderReport>,
}

/// An open transaction.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct HolderReport {
    /// Its session; 0 for a prepared transaction, which has none.
    pub pid: i64,
    /// How long it is open.
    pub age_s: u64,
}

/// How much of what may be kept is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WalPressure {
    /// As it should be.
    #[default]
    None,
    /// Half, or the rest lasts less than an hour.
    Raised,
    /// Three quarters, or less than 15 minutes.
    High,
    /// Nine tenths, or less than 5 minutes.
    Critical,
}
