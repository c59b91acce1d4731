//! Makes the [snapshots](crate::SnapshotJob) of a source, whatever its database: a connector brings a [`Reader`].
//!
//! ```text
//!  Reader ───▶ Read ──▶ held chunks ──▶ Outlet     between two transactions, when the log has been told beyond the read
//!  (own task)             ▲
//!  log ──▶ Listening ─────┘ new values go over the rows that wait
//! ```
//!
//! # Order
//! A chunk is told when the log has been told up to the position that was taken with it: everything that the chunk saw has
//! been told by then. What the log told that the chunk did not see has gone over it. A transaction may be told before
//! reads can see it ([`Told`]); a read that began too early for one is done again.
//!
//! # Durability and duplicates
//! Every event carries the key of the last row that was told, so a restart goes on behind the last row that the
//! stream holds, and repeats none. Only a table without a key begins again.
//!
//! # Memory
//! At most two chunks that wait and one that is being read, each bounded in bytes.
//!
//! # The log comes first
//! Nothing here waits for the database: a task of its own reads. Rows are told in slices, and after each the log has its turn.

mod chunk;
mod hearing;
mod job;
mod ledger;
mod listen;
mod pace;
mod place;
mod reader;
mod reading;
mod request;
mod telling;

pub use self::{
    chunk::{Chunk, OwnedCell, OwnedChange, Span},
    ledger::after_gap,
    listen::Listening,
    pace::CHUNK_BYTES,
    place::{Key, columns},
    reader::{Read, Reader, Rows, Table, Told, Unread},
};

use self::{
    job::Job,
    pace::Pace,
    reading::{Found, Outcome, Reading},
    request::Asked,
};
use crate::{
    CapturedTables, Fault, Outlet, Position, Progress, SnapshotDesk, SnapshotJob, SnapshotLedger,
    SnapshotPlace, SnapshotRequest, SnapshotSettings, SnapshotStart, TableName, clock::now,
};
use std::{collections::VecDeque, fmt, sync::Arc, time::Duration};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

/// Chunks that wait to be told.
const HELD: usize = 2;
/// Jobs that are made at the same time; further ones wait for their turn.
const ACTIVE: usize = 4;
/// How long to wait before a table that cannot be read is tried again.
const RETRY: Duration = Duration::from_secs(10);
/// The same where it only has to be looked at anew.
const SOON: Duration = Duration::from_millis(100);

/// What a run of a source knows when its snapshots begin.
#[derive(Debug)]
pub struct Beginning<D> {
    /// The source's name.
    pub source: String,
    /// What its readers need.
    pub database: D,
    /// See [`Position::epoch`].
    pub epoch: u16,
    /// The stream's last event.
    pub last: Option<Position>,
    /// Everything before this position of the log has been told by earlier runs; zero where that is not known.
    pub passed: u64,
    /// The schema whose tables people name by their name alone.
    pub default_schema: String,
    /// A row with more bytes goes to the dead letters.
    pub max_row: u64,
    /// The tables that are captured, whenever that changes.
    pub captured: watch::Receiver<CapturedTables>,
    /// See [`Context::released`](crate::Context::released).
    pub released: watch::Receiver<Progress>,
}

/// The snapshots of one source, made by the task that tells its log.
pub struct Snapshots<R: Reader> {
    source: String,
    database: Arc<R::Database>,
    default_schema: String,
    settings: SnapshotSettings,
    desk: Arc<SnapshotDesk>,
    ledger: SnapshotLedger,
    /// One for each job of the ledger, in the same order.
    jobs: Vec<Job<R>>,
    places: Vec<SnapshotPlace>,
    captured: watch::Receiver<CapturedTables>,
    released: watch::Receiver<Progress>,
    session: Option<R>,
    reading: Option<Reading<R>>,
    asked: Option<Asked>,
    held: VecDeque<Held>,
    pace: Pace,
    /// Whose turn it was.
    turn: u64,
    told: R::Told,
    epoch: u16,
    /// Everything before this position of the log has been told.
    passed: u64,
    /// Nothing may be told before this position.
    floor: u64,
    max_row: u64,
    in_transaction: bool,
    /// Whether the captured tables were not compared with the known ones yet.
    unsorted: bool,
}

/// A chunk that waits to be told.
struct Held {
    job: u64,
    name: TableName,
    rows: Rows,
    /// Whether these were all of `rows`.
    complete: bool,
    chunk: Chunk,
    watermark: u64,
    read_at: i64,
    /// Rows told so far.
    next: usize,
}

/// What happened beside the log.
#[derive(Debug)]
pub struct Event<R: Reader>(Happened<R>);

enum Happened<R: Reader> {
    Read(Box<Outcome<R>>),
    Asked(SnapshotRequest),
    Checked(Result<(), Fault>),
    Captured,
    Released,
    Due,
}

impl<R: Reader> fmt::Debug for Happened<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read(_) => "Read",
            Self::Asked(_) => "Asked",
            Self::Checked(_) => "Checked",
            Self::Captured => "Captured",
            Self::Released => "Released",
            Self::Due => "Due",
        })
    }
}

impl<R: Reader> fmt::Debug for Snapshots<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshots").field("source", &self.source).finish_non_exhaustive()
    }
}

impl<R: Reader> Snapshots<R> {
    /// Goes on with what is kept in `start`.
    pub fn new(start: SnapshotStart, beginning: Beginning<R::Database>) -> Self {
        let Beginning { source, database, epoch, last, passed, default_schema, max_row, captured, released } =
            beginning;
        let SnapshotStart { settings, ledger, places, desk } = start;
        let at = now();
        let place = |job: &SnapshotJob| places.iter().find(|place| place.job == job.id);
        let mut jobs: Vec<Job<R>> =
            ledger.jobs.iter().map(|job| Job::new(job.clone(), place(job), at)).collect();
        for job in &mut jobs {
            if job.current().is_none() {
                // The stream held all of it already.
                job.told(last.map_or(0, |last| last.commit), at, last);
            }
            desk.show(job.progress.clone());
        }
        let mut snapshots = Self {
            source,
            told: R::told(&database),
            database: Arc::new(database),
            default_schema,
            pace: Pace::new(settings.chunk, settings.rate),
            settings,
            desk,
            ledger,
            jobs,
            places: Vec::new(),
            captured,
            released,
            session: None,
            reading: None,
            asked: None,
            held: VecDeque::new(),
            turn: 0,
            epoch,
            passed,
            floor: last.filter(|last| last.epoch == epoch).map_or(0, |last| last.commit),
            max_row,
            in_transaction: false,
            unsorted: true,
        };
        snapshots.write_places();
        snapshots
    }

    /// The outlet for the log.
    pub fn listen<'a, O>(&'a mut self, outlet: &'a mut O) -> Listening<'a, O, R> {
        Listening { outlet, snapshots: self }
    }

    /// Shows the outlet how far the jobs are. To be called before anything is told.
    pub fn show_places<O: Outlet>(&self, outlet: &mut O) {
        outlet.places(&self.places);
    }

    /// Waits for something to happen. May be cancelled without loss.
    pub async fn event(&mut self) -> Event<R> {
        if self.unsorted {
            return Event(Happened::Captured);
        }
        let due = self.due();
        let ended = self.jobs.iter().any(|job| job.told_at.is_some());
        let room = self.held.len() < HELD;
        Event(tokio::select! {
            outcome = async {
                match &mut self.reading {
                    Some(reading) => (&mut reading.task).await,
                    None => std::future::pending().await,
                }
            }, if room => Happened::Read(Box::new(outcome.unwrap_or_else(|_| Outcome {
                session: None,
                found: Found::Fault(Fault::transient("the task that reads a snapshot failed")),
            }))),
            request = self.desk.request(), if self.asked.is_none() => Happened::Asked(request),
            checked = async {
                match &mut self.asked {
                    Some(asked) => asked.checked().await,
                    None => std::future::pending().await,
                }
            } => Happened::Checked(checked),
            changed = self.captured.changed() => {
                if changed.is_err() {
                    // The monitor has ended, and with it the run.
                    std::future::pending::<()>().await;
                }
                Happened::Captured
            }
            changed = self.released.changed(), if ended => {
                if changed.is_err() {
                    std::future::pending::<()>().await;
                }
                Happened::Released
            }
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => Happened::Due,
        })
    }

    /// Deals with it.
    ///
    /// # Errors
    /// What has to be kept could not be kept.
    pub async fn handle<O: Outlet>(&mut self, event: Event<R>, outlet: &mut O) -> Result<(), Fault> {
        match event.0 {
            Happened::Read(outcome) => self.read_ended(*outcome),
            Happened::Asked(request) => {
                let captured = self.captured.borrow().keys().cloned().collect();
                self.asked =
                    Asked::new::<R>(request, &captured, &self.default_schema, Arc::clone(&self.database));
            }
            Happened::Checked(checked) => self.checked(checked, outlet).await?,
            Happened::Captured => self.sort_captured(outlet).await?,
            Happened::Released => self.close_jobs(outlet).await?,
            Happened::Due => {}
        }
        self.ask();
        self.show_places(outlet);
        Ok(())
    }
}

impl<R: Reader> Drop for Snapshots<R> {
    fn drop(&mut self) {
        if let Some(reading) = &self.reading {
            reading.task.abort();
        }
    }
}
