//! Snapshots: rows that were there before anybody listened, told in the same stream as the changes.
//!
//! A connector reads a table in chunks, each a consistent read of its own, and tells the rows between two transactions of
//! the log, once the log has been told up to where the chunk was read. What the log says of a row in between goes before
//! what the chunk says of it. So a snapshot's row is never older than an event before it, and the stream, replayed, gives
//! the table.
//!
//! # Order
//! Rows are told with [`Outlet::change`](crate::Outlet::change) and [`Op::Snapshot`](crate::Op::Snapshot) between
//! [`Outlet::begin_snapshot`](crate::Outlet::begin_snapshot) and
//! [`Outlet::end_snapshot`](crate::Outlet::end_snapshot), never within a transaction. Their positions lie behind
//! everything that was told, and before everything that the log holds from [`SnapshotPoint::log`] on.
//!
//! # Durability and duplicates
//! The stream is the checkpoint here too. While jobs are under way every event carries, in a header, how far each of them
//! is ([`SnapshotPlace`]), so the stream's last event says where to go on, whatever a power cut took from its tail. What has to
//! be done at all is kept beside the stream ([`SnapshotLedger`]). A job leaves the ledger only when everything that it told has come
//! back as [released](crate::Context::released): until then a shorter stream may still need it.

use crate::{Fault, Position};
use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    str::FromStr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::sync::{Notify, oneshot};

/// Finished jobs that the desk still shows.
const SHOWN: usize = 16;

/// A table, by its names as the database has them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableName {
    /// The schema (PostgreSQL) or database (MySQL).
    pub schema: String,
    /// The table.
    pub table: String,
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.schema, self.table)
    }
}

/// Tables, each with what tells it from another that has its name later on (PostgreSQL: its OID). Zero where it is not
/// known: then a table that is made anew is told by the log from its first row on, and one that was filled before it was renamed
/// into the name is not noticed.
pub type CapturedTables = BTreeMap<TableName, u64>;

/// Why a snapshot is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SnapshotReason {
    /// The source is new.
    Initial,
    /// Tables joined a source that was there before, or were made anew under the name of a former one.
    Joined,
    /// History was lost, and the policy is to read everything again.
    Gap,
    /// Somebody asked for it.
    Asked,
}

impl SnapshotReason {
    const ALL: [Self; 4] = [Self::Initial, Self::Joined, Self::Gap, Self::Asked];

    /// One word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Initial => "initial",
            Self::Joined => "joined",
            Self::Gap => "gap",
            Self::Asked => "asked",
        }
    }
}

/// The text is not a reason.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not the reason of a snapshot")]
pub struct ParseReasonError;

impl FromStr for SnapshotReason {
    type Err = ParseReasonError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == text).ok_or(ParseReasonError)
    }
}

/// Something to be read: tables one after the other, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotJob {
    /// Unique within the source.
    pub id: u64,
    /// Why.
    pub reason: SnapshotReason,
    /// What, in order.
    pub tables: Vec<TableName>,
    /// An SQL condition on the rows, for one table.
    pub condition: Option<String>,
}

/// What is kept of snapshots beside the stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SnapshotLedger {
    /// The next job's id.
    pub next: u64,
    /// Jobs that are not done, in the order of their beginning.
    pub jobs: Vec<SnapshotJob>,
    /// Tables that need no snapshot because they are new to the source: they have one, or a job that makes it.
    pub known: CapturedTables,
}

/// How far a job is. Its text is `job:table:place`; several are joined by blanks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotPlace {
    /// The job's id.
    pub job: u64,
    /// Which of its tables is being read; those before it are done.
    pub table: usize,
    /// Where in that table, in the connector's own words: printable ASCII without blanks.
    pub place: String,
}

impl SnapshotPlace {
    /// Reads a header. What is not a place is left out: the job then begins again.
    #[must_use]
    pub fn parse_all(text: &str) -> Vec<Self> {
        let parse = |part: &str| {
            let mut fields = part.splitn(3, ':');
            Some(Self {
                job: fields.next()?.parse().ok()?,
                table: fields.next()?.parse().ok()?,
                place: fields.next()?.to_owned(),
            })
        };
        text.split(' ').filter_map(parse).collect()
    }
}

impl fmt::Display for SnapshotPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.job, self.table, self.place)
    }
}

/// Between which transactions rows are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotPoint {
    /// Everything that the log holds before this position has been told, and nothing from it on.
    pub log: u64,
    /// When the rows were read, in microseconds since 1970-01-01 UTC.
    pub read_at: i64,
}

/// How snapshots are made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotSettings {
    /// Whether a table that is new to the source is read.
    pub initial: bool,
    /// Whether everything is read again after lost history.
    pub on_gap: bool,
    /// The most rows to read in a second, all jobs together; `None` for as many as can be.
    pub rate: Option<u32>,
    /// How long reading one chunk should take.
    pub chunk: Duration,
}

impl Default for SnapshotSettings {
    fn default() -> Self {
        Self { initial: false, on_gap: false, rate: None, chunk: Duration::from_millis(100) }
    }
}

/// Somebody asks for a snapshot.
#[derive(Debug)]
pub struct SnapshotRequest {
    /// Tables as a person names them (`orders`, `public.orders`); empty: all that are captured.
    pub tables: Vec<String>,
    /// An SQL condition on the rows of the one table that is named.
    pub condition: Option<String>,
    /// Takes the job's id as soon as the job is kept.
    pub answer: oneshot::Sender<Result<u64, Fault>>,
}

/// How far a job has come, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotProgress {
    /// The job's id.
    pub job: u64,
    /// Why it is made.
    pub reason: SnapshotReason,
    /// The table that is being read.
    pub table: Option<TableName>,
    /// How many tables it has, and how many of them are done.
    pub tables: usize,
    /// See `tables`.
    pub tables_done: usize,
    /// Rows told, by all runs of the source.
    pub rows: u64,
    /// Those of them that earlier runs told.
    pub rows_before: u64,
    /// Rows that the database guesses there are, where it does.
    pub expected: Option<u64>,
    /// When it began in this run, in microseconds since 1970-01-01 UTC.
    pub started_at: i64,
    /// When everything had been told, likewise.
    pub ended_at: Option<i64>,
    /// The last event that it told.
    pub last: Option<Position>,
    /// What keeps it from going on; with `ended_at`: why it failed.
    pub trouble: Option<String>,
    /// What to do about that.
    pub fix: Option<String>,
}

/// Where requests are left, and progress is shown. Shared by all runs of a source.
#[derive(Debug, Default)]
pub struct SnapshotDesk {
    requests: Mutex<VecDeque<SnapshotRequest>>,
    asked: Notify,
    progress: Mutex<Vec<SnapshotProgress>>,
}

impl SnapshotDesk {
    /// Leaves a request. It waits until the source runs.
    pub fn ask(&self, request: SnapshotRequest) {
        lock(&self.requests).push_back(request);
        self.asked.notify_one();
    }

    /// Waits for the next request. May be cancelled without loss.
    pub async fn request(&self) -> SnapshotRequest {
        loop {
            let first = lock(&self.requests).pop_front();
            match first {
                // Whoever asked has gone away meanwhile.
                Some(request) if request.answer.is_closed() => {}
                Some(request) => return request,
                None => self.asked.notified().await,
            }
        }
    }

    /// All jobs: those under way, and the last ones that ended.
    #[must_use]
    pub fn progress(&self) -> Vec<SnapshotProgress> {
        lock(&self.progress).clone()
    }

    /// Shows how far a job is.
    pub fn show(&self, job: SnapshotProgress) {
        let mut all = lock(&self.progress);
        match all.iter_mut().find(|known| known.job == job.job) {
            Some(known) => *known = job,
            None => all.push(job),
        }
        let ended = all.iter().filter(|job| job.ended_at.is_some()).count();
        if ended > SHOWN
            && let Some(oldest) = all.iter().position(|job| job.ended_at.is_some())
        {
            all.remove(oldest);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while holding it; if something did, the content would still be whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a run of a source begins with.
#[derive(Clone, Debug, Default)]
pub struct SnapshotStart {
    /// How to make them.
    pub settings: SnapshotSettings,
    /// What is kept beside the stream.
    pub ledger: SnapshotLedger,
    /// What the stream's last event says of how far they are.
    pub places: Vec<SnapshotPlace>,
    /// Requests and progress.
    pub desk: Arc<SnapshotDesk>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_read_back_and_nonsense_is_left_out() {
        let places = [
            SnapshotPlace { job: 3, table: 0, place: "+4%2C2,x:y".to_owned() },
            SnapshotPlace { job: 17, table: 12, place: "-".to_owned() },
        ];
        let text = format!("{} {}", places[0], places[1]);
        assert_eq!(SnapshotPlace::parse_all(&text), places);
        assert_eq!(SnapshotPlace::parse_all(&format!(" x 1:2 1:x:y {text} -1:0:-")), places);
    }

    #[test]
    fn reasons_read_back() {
        for reason in SnapshotReason::ALL {
            assert_eq!(reason.as_str().parse(), Ok(reason));
        }
        assert_eq!("often".parse::<SnapshotReason>(), Err(ParseReasonError));
    }
}
