//! What a connector is, and what it is given to run with.

use crate::{Fault, Outlet, Position, Progress, SnapshotStart};
use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64},
    },
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// A source of changes.
pub trait Source: Send {
    /// Connects, goes on after `resume`, and tells everything to `outlet` until shutdown (`Ok`) or a fault.
    ///
    /// Called again after every fault, each time with a fresh `resume`: how soon, its [kind](crate::FaultKind) says.
    fn run<O: Outlet>(
        &mut self,
        resume: Resume,
        outlet: &mut O,
        context: Context,
    ) -> impl Future<Output = Result<(), Fault>> + Send;
}

/// The last event that the stream holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastEvent {
    /// Its position.
    pub position: Position,
    /// Where its transaction ends in the log, if it is the last event of it.
    pub transaction_end: Option<u64>,
    /// When its transaction was committed, in microseconds since 1970-01-01 UTC; `None` for what is in none, a row of a snapshot
    /// say.
    pub committed_at: Option<i64>,
}

/// What the gateway keeps beside the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The epoch when it was written.
    pub epoch: u16,
    /// [`Origin::identity`](crate::Origin::identity) when it was written.
    pub identity: String,
    /// How far the log had been told.
    pub progress: Progress,
}

/// Where to go on: what the stream holds, and what is known beside it. Both `None`: a new source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resume {
    /// The stream's last event.
    pub last: Option<LastEvent>,
    /// The checkpoint.
    pub checkpoint: Option<Checkpoint>,
}

impl Resume {
    /// How far the log is proven to be told, in the newest epoch that either witness knows.
    #[must_use]
    pub fn proven(&self) -> Option<Progress> {
        let streamed = self.last.map(|last| Progress {
            epoch: last.position.epoch,
            log: last.transaction_end.unwrap_or(last.position.commit),
        });
        streamed.max(self.checkpoint.as_ref().map(|checkpoint| checkpoint.progress))
    }
}

/// What a running connector is given.
#[derive(Clone, Debug)]
pub struct Context {
    /// How far the log may be released to the database. Rises only.
    pub released: watch::Receiver<Progress>,
    /// Fires when the source has to stop.
    pub shutdown: CancellationToken,
    /// Where the connector writes how it is.
    pub vitals: Arc<Vitals>,
    /// The snapshots to be made.
    pub snapshots: SnapshotStart,
}

/// How a running source is, written by its connector and read by status and metrics. Plain numbers, each on its own: a
/// reader may see one newer than another.
#[derive(Debug, Default)]
pub struct Vitals {
    /// 1 while changes are being streamed, else 0.
    pub streaming: AtomicU64,
    /// Bytes of log payload received since the process began.
    pub received_bytes: AtomicU64,
    /// Bytes that the server lets a file of its log grow to, where positions count in files.
    pub log_file_bytes: AtomicU64,
    /// The newest log position that the server told of.
    pub server_log: AtomicU64,
    /// The newest log position received.
    pub received_log: AtomicU64,
    /// The position last confirmed to the server.
    pub confirmed_log: AtomicU64,
    /// The position from which the server keeps its log for this source.
    pub retained_log: AtomicU64,
    /// Bytes of log that the server keeps for this source.
    pub retained_bytes: AtomicU64,
    /// Bytes that may still be written before the server gives the source up; -1 where there is no limit.
    pub safe_bytes: AtomicI64,
    /// Bytes of log that the server writes in a second, averaged over about a minute.
    pub wal_rate: AtomicU64,
    /// How long, in seconds at that rate, until as much is kept as may be kept; -1 where there is no limit or no rate.
    pub wal_left_seconds: AtomicI64,
    /// How near that is: 0 calm, 1 raised, 2 high, 3 critical.
    pub wal_pressure: AtomicU64,
    /// The session whose open transaction makes the server keep its log; 0 where there is none, or one without a session.
    pub holder_pid: AtomicI64,
    /// When that transaction began, in microseconds since 1970-01-01 UTC; 0 where there is none.
    pub holder_since: AtomicI64,
    /// When the server will have discarded log that this source has not confirmed, in microseconds since 1970-01-01 UTC, if
    /// nothing moves on until then; 0 where nothing is about to go.
    pub expires_at: AtomicI64,
    /// Commit time of the newest transaction received, in microseconds since 1970-01-01 UTC; 0 before the first.
    pub last_commit: AtomicI64,
    /// When anything was last received from the server, in microseconds since 1970-01-01 UTC.
    pub last_heard: AtomicI64,
}
