//! Snapshots in the stream: rows that were there before, told between the transactions of the log.
//!
//! ```text
//!  Session ──▶ Read ──▶ held chunks ──▶ Outlet     between two transactions, when the log has been told beyond the read
//!  (own task)             ▲
//!  log ──▶ Listening ─────┘ new values go over the rows that wait
//! ```
//!
//! # Order
//! A chunk is told when the log has been told up to the position that was taken with it: everything that the chunk saw has
//! been told by then. What the log told that the chunk did not see has gone over it ([`chunk`]). A transaction may be told before
//! reads can see it ([`visibility`]); a read that began too early for one is done again.
//!
//! # Durability and duplicates
//! Every event carries the key of the last row that was told ([`place`]), so a restart goes on behind the last row that the
//! stream holds, and repeats none. Only a table without a key begins again.
//!
//! # Memory
//! At most [`HELD`] chunks that wait and one that is being read, each bounded in bytes.
//!
//! # The log comes first
//! Nothing here waits for the database: a task of its own reads. Rows are told in slices, and after each the log has its turn.

mod chunk;
mod copy;
mod hearing;
mod job;
mod ledger;
mod listen;
mod pace;
mod place;
mod read;
mod reading;
mod request;
mod table;
mod telling;
mod visibility;

pub(crate) use self::{listen::Listening, read::Database};

use self::{
    chunk::Chunk,
    job::Job,
    pace::Pace,
    read::Session,
    reading::{Found, Outcome, Reading},
    request::Asked,
    table::Rows,
    visibility::Told,
};
use crate::feedback::now;
use headgate_sdk::{
    Fault, Outlet, Position, Progress, SnapshotDesk, SnapshotJob, SnapshotLedger, SnapshotPlace,
    SnapshotSettings, SnapshotStart, TableName,
};
use std::{collections::BTreeSet, sync::Arc, time::Duration};
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
pub(crate) struct Beginning {
    pub(crate) source: String,
    pub(crate) database: Database,
    pub(crate) epoch: u16,
    /// The stream's last event.
    pub(crate) last: Option<Position>,
    pub(crate) max_row: u64,
    /// The tables that are captured, whenever that changes.
    pub(crate) captured: watch::Receiver<BTreeSet<TableName>>,
    pub(crate) released: watch::Receiver<Progress>,
}

/// The snapshots of one source, made by the task that tells its log.
pub(crate) struct Snapshots {
    source: String,
    database: Arc<Database>,
    settings: SnapshotSettings,
    desk: Arc<SnapshotDesk>,
    ledger: SnapshotLedger,
    /// One for each job of the ledger, in the same order.
    jobs: Vec<Job>,
    places: Vec<SnapshotPlace>,
    captured: watch::Receiver<BTreeSet<TableName>>,
    released: watch::Receiver<Progress>,
    session: Option<Session>,
    reading: Option<Reading>,
    asked: Option<Asked>,
    held: std::collections::VecDeque<Held>,
    pace: Pace,
    /// Whose turn it was.
    turn: u64,
    told: Told,
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
    chunk: Chunk,
    watermark: u64,
    read_at: i64,
    /// Rows told so far.
    next: usize,
}

/// What happened beside the log.
pub(crate) enum Event {
    Read(Box<ReadEnded>),
    Asked(headgate_sdk::SnapshotRequest),
    Checked(Result<(), Fault>),
    Captured,
    Released,
    Due,
}

/// Opaque outside of here.
pub(crate) struct ReadEnded(Outcome);

impl Snapshots {
    pub(crate) fn new(start: SnapshotStart, beginning: Beginning) -> Self {
        let Beginning { source, database, epoch, last, max_row, captured, released } = beginning;
        let SnapshotStart { settings, ledger, places, desk } = start;
        let at = now();
        let place = |job: &SnapshotJob| places.iter().find(|place| place.job == job.id);
        let mut jobs: Vec<Job> =
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
            database: Arc::new(database),
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
            held: std::collections::VecDeque::new(),
            turn: 0,
            told: Told::default(),
            epoch,
            passed: 0,
            floor: last.filter(|last| last.epoch == epoch).map_or(0, |last| last.commit),
            max_row,
            in_transaction: false,
            unsorted: true,
        };
        snapshots.write_places();
        snapshots
    }

    /// The outlet for the log.
    pub(crate) fn listen<'a, O>(&'a mut self, outlet: &'a mut O) -> Listening<'a, O> {
        Listening { outlet, snapshots: self }
    }

    /// Shows the outlet how far the jobs are. To be called before anything is told.
    pub(crate) fn show_places<O: Outlet>(&self, outlet: &mut O) {
        outlet.places(&self.places);
    }

    /// Waits for something to happen. May be cancelled without loss.
    pub(crate) async fn event(&mut self) -> Event {
        if self.unsorted {
            return Event::Captured;
        }
        let due = self.due();
        let ended = self.jobs.iter().any(|job| job.told_at.is_some());
        let room = self.held.len() < HELD;
        tokio::select! {
            outcome = async {
                match &mut self.reading {
                    Some(reading) => (&mut reading.task).await,
                    None => std::future::pending().await,
                }
            }, if room => Event::Read(Box::new(ReadEnded(outcome.unwrap_or_else(|_| Outcome {
                session: None,
                found: Found::Fault(Fault::transient("the task that reads a snapshot failed")),
            })))),
            request = self.desk.request(), if self.asked.is_none() => Event::Asked(request),
            checked = async {
                match &mut self.asked {
                    Some(asked) => asked.checked().await,
                    None => std::future::pending().await,
                }
            } => Event::Checked(checked),
            changed = self.captured.changed() => {
                if changed.is_err() {
                    // The monitor has ended, and with it the run.
                    std::future::pending::<()>().await;
                }
                Event::Captured
            }
            changed = self.released.changed(), if ended => {
                if changed.is_err() {
                    std::future::pending::<()>().await;
                }
                Event::Released
            }
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => Event::Due,
        }
    }

    /// Deals with it.
    ///
    /// # Errors
    /// What has to be kept could not be kept.
    pub(crate) async fn handle<O: Outlet>(&mut self, event: Event, outlet: &mut O) -> Result<(), Fault> {
        match event {
            Event::Read(ended) => self.read_ended(ended.0),
            Event::Asked(request) => {
                let captured = self.captured.borrow().clone();
                self.asked = Asked::new(request, &captured, Arc::clone(&self.database));
            }
            Event::Checked(checked) => self.checked(checked, outlet).await?,
            Event::Captured => self.sort_captured(outlet).await?,
            Event::Released => self.close_jobs(outlet).await?,
            Event::Due => {}
        }
        self.ask();
        self.show_places(outlet);
        Ok(())
    }
}

impl Drop for Snapshots {
    fn drop(&mut self) {
        if let Some(reading) = &self.reading {
            reading.task.abort();
        }
    }
}
