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
mod job;
mod listen;
mod pace;
mod place;
mod read;
mod request;
mod table;
mod visibility;

pub(crate) use self::{listen::Listening, read::Database};

use self::{
    chunk::{Chunk, Effect, Notes},
    job::{Ahead, Job},
    pace::Pace,
    read::{Read, Session, Unread},
    request::Asked,
    table::{Rows, Table},
    visibility::Told,
};
use crate::feedback::now;
use headgate_sdk::{
    Cell, Change, Fault, FaultKind, Op, Outlet, Position, Progress, RowFault, SnapshotDesk, SnapshotJob,
    SnapshotLedger, SnapshotPlace, SnapshotPoint, SnapshotReason, SnapshotSettings, SnapshotStart, TableName,
    Transaction,
};
use std::{collections::BTreeSet, sync::Arc, time::Duration};
use tokio::{
    sync::watch,
    task::JoinHandle,
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

/// A read under way.
struct Reading {
    job: u64,
    name: TableName,
    /// How many transactions had been told when it began.
    told: u64,
    rows: Rows,
    notes: Notes,
    /// Whether its rows will be of no use.
    void: bool,
    task: JoinHandle<Outcome>,
}

struct Outcome {
    session: Option<Session>,
    found: Found,
}

/// What a task came back with.
enum Found {
    Table { table: Option<Arc<Table>>, expected: Option<u64> },
    Writers(BTreeSet<String>),
    Chunk(Box<Read>),
    Changed,
    Fault(Fault),
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

    // What the log tells.

    fn hear_begin(&mut self, transaction: &Transaction) {
        self.in_transaction = true;
        if let Ok(xid) = transaction.id.parse() {
            self.told.note(xid);
        }
    }

    fn hear_progress(&mut self, progress: Progress) {
        self.in_transaction = false;
        self.passed = self.passed.max(progress.log);
    }

    /// Lets the rows that wait hear a change; says whether places changed by it.
    fn hear_change(&mut self, change: &Change<'_>) -> bool {
        if self.jobs.is_empty() {
            return false;
        }
        let (schema, table) = (&change.relation.schema, &change.relation.table);
        let of = |name: &TableName| name.table == *table && name.schema == *schema;
        let (mut voided, mut moved) = (None, None);
        for held in self.held.iter_mut().filter(|held| of(&held.name)) {
            match held.chunk.changed(change) {
                Effect::None => {}
                Effect::Moved(key) => moved = Some(key),
                Effect::Void => voided = Some(held.job),
            }
        }
        if let Some(reading) = self.reading.as_mut().filter(|reading| of(&reading.name)) {
            reading.notes.note(change);
        }
        if let Some(job) = voided {
            self.void(job);
        }
        if change.op == Op::Truncated && change.relation.key.is_empty() {
            // What is left to read of it is of a table that is no more.
            let middle =
                self.jobs.iter().filter(|job| job.ahead == Ahead::Middle && job.current().is_some_and(of));
            let middle: Vec<u64> = middle.map(|job| job.job.id).collect();
            middle.into_iter().for_each(|job| self.void(job));
        }
        if change.op == Op::Updated && change.before.is_some() && moved.is_none() {
            moved = moved_to(change);
        }
        let Some(key) = moved else { return false };
        let mut noted = false;
        for job in &mut self.jobs {
            // Before a table's first row everything about it is still to come.
            let begun = job.place.after.is_some() || !job.place.again.is_empty();
            if begun && job.current().is_some_and(of) {
                noted = true;
                if !job.place.repeat(key.clone()) {
                    tracing::info!(job = job.job.id, table = %format!("{schema}.{table}"), "too many rows change their key while their table is read: reading it from its beginning");
                    job.start_table();
                }
            }
        }
        if noted {
            self.write_places();
        }
        noted
    }

    /// Whether rows can be told now.
    pub(crate) fn is_ready(&self) -> bool {
        !self.in_transaction
            && self.passed > self.floor
            && self.held.front().is_some_and(|held| self.passed >= held.watermark)
    }

    /// Tells rows until the outlet is full, or there are no more of them for now.
    pub(crate) fn tell<O: Outlet>(&mut self, outlet: &mut O) {
        while self.is_ready() && !outlet.is_full() {
            let Some(mut held) = self.held.pop_front() else { return };
            let of = |job: &Job| job.job.id == held.job && job.current() == Some(&held.name);
            let Some(at) = self.jobs.iter().position(of) else { continue };
            outlet.begin_snapshot(SnapshotPoint { log: self.passed, read_at: held.read_at });
            let rows = self.tell_rows(at, &mut held, outlet);
            let last = outlet.end_snapshot();
            if let Some(job) = self.jobs.get_mut(at) {
                job.progress.rows += rows;
                job.progress.trouble = None;
                job.progress.fix = None;
            }
            if held.next < held.chunk.len() {
                self.held.push_front(held);
            } else {
                self.chunk_told(at, &held, last);
                self.show_places(outlet);
            }
            if let Some(job) = self.jobs.get(at) {
                self.desk.show(job.progress.clone());
            }
        }
        self.ask();
    }

    fn tell_rows<O: Outlet>(&mut self, at: usize, held: &mut Held, outlet: &mut O) -> u64 {
        let Held { chunk, next, rows, .. } = held;
        let mut cells = Vec::new();
        let mut told = 0;
        while *next < chunk.len() && !outlet.is_full() {
            let row = *next;
            *next += 1;
            if let (Some(key), Some(job)) = (chunk.read_key(row), self.jobs.get_mut(at)) {
                match rows {
                    Rows::Keys(_) => job.place.again.retain(|again| again != key),
                    Rows::After(..) | Rows::All => match &mut job.place.after {
                        Some(after) => {
                            after.clear();
                            after.push_str(key);
                        }
                        None => job.place.after = Some(key.to_owned()),
                    },
                }
                if let Some(place) = self.places.get_mut(at) {
                    job.place.write(&mut place.place);
                }
            }
            if !chunk.row(row, &mut cells) {
                continue;
            }
            outlet.places(&self.places);
            told += 1;
            let size: usize =
                cells.iter().map(|cell| if let Cell::Value(raw) = cell { raw.len() } else { 0 }).sum();
            if size as u64 > self.max_row {
                outlet.reject(&RowFault {
                    table: Some(held.name.to_string()),
                    reason: format!("the row has {size} bytes, more than `max_row` allows"),
                    size: size as u64,
                });
                continue;
            }
            outlet.change(&Change {
                relation: &chunk.relation,
                op: Op::Snapshot,
                before: None,
                after: Some(&cells),
            });
        }
        told
    }

    /// All rows of a chunk have been told.
    fn chunk_told(&mut self, at: usize, held: &Held, last: Option<Position>) {
        let Some(job) = self.jobs.get_mut(at) else { return };
        match &held.rows {
            // Those that were not found are there no more.
            Rows::Keys(keys) => job.place.again.retain(|again| !keys.contains(again)),
            Rows::After(..) | Rows::All => {}
        }
        // Read to its end it is as soon as its last chunk has come, told only when no chunk of it waits any more.
        let waits = self.held.iter().any(|other| other.job == held.job);
        if job.ahead == Ahead::End && job.place.again.is_empty() && !waits {
            self.table_told(at, last);
        } else if let Some(job) = self.jobs.get_mut(at) {
            // Caught up with what was read.
            if matches!((&job.ahead, &job.place.after), (Ahead::Key(ahead), Some(after)) if ahead == after) {
                job.ahead = Ahead::Told;
            }
        }
        self.write_places();
    }

    /// A table has been told whole, or is not there to be told.
    fn table_told(&mut self, at: usize, last: Option<Position>) {
        let Some(job) = self.jobs.get_mut(at) else { return };
        if let Some(name) = job.current() {
            tracing::info!(source = self.source, job = job.job.id, table = %name, "snapshot of the table done");
        }
        job.next_table();
        if job.current().is_none() {
            job.told(self.passed, now(), last);
            tracing::info!(source = self.source, job = job.job.id, rows = job.progress.rows, "snapshot done");
        }
        self.desk.show(job.progress.clone());
        self.write_places();
    }

    fn write_places(&mut self) {
        self.places.clear();
        for job in &self.jobs {
            let mut place = String::new();
            job.place.write(&mut place);
            self.places.push(SnapshotPlace { job: job.job.id, table: job.table, place });
        }
    }

    /// What was read of a job and is not told is of no use: it will be read again.
    fn void(&mut self, job: u64) {
        self.held.retain(|held| held.job != job);
        if let Some(reading) = self.reading.as_mut().filter(|reading| reading.job == job) {
            reading.void = true;
        }
        if let Some(job) = self.jobs.iter_mut().find(|known| known.job.id == job) {
            job.reread();
            job.wait = Some(Instant::now() + SOON);
        }
    }

    // What has to be read next.

    /// The jobs that have something to read, of those that are made at present.
    fn wanting(&self) -> impl Iterator<Item = (usize, &Job)> {
        let active = self.jobs.iter().enumerate().filter(|(_, job)| job.current().is_some()).take(ACTIVE);
        active.filter(|(_, job)| {
            let held = |held: &Held| held.job == job.job.id;
            // Rows are read again once everything that was read is told.
            let again = !job.place.again.is_empty() && job.is_caught_up();
            if again { !self.held.iter().any(held) } else { job.ahead != Ahead::End }
        })
    }

    /// Begins to read, if there is something to read and room for it.
    fn ask(&mut self) {
        if self.reading.is_some() || self.held.len() >= HELD {
            return;
        }
        let now = Instant::now();
        if self.pace.due().is_some_and(|due| due > now) {
            return;
        }
        // One after the other has its turn.
        let ready = || self.wanting().filter(|(_, job)| job.wait.is_none_or(|until| until <= now));
        let next = ready().find(|(_, job)| job.job.id > self.turn).or_else(|| ready().next());
        let Some((at, _)) = next else { return };
        let pace = &self.pace;
        let Some(job) = self.jobs.get_mut(at) else { return };
        let Some(name) = job.current().cloned() else { return };
        self.turn = job.job.id;
        let rows = match (&job.described, &job.ahead) {
            _ if !job.place.again.is_empty() && job.is_caught_up() => Rows::Keys(job.place.again.clone()),
            (Some(table), _) if !table.has_key() => Rows::All,
            (_, Ahead::Key(ahead)) => Rows::After(Some(ahead.clone()), pace.rows(job.size)),
            (_, Ahead::Told | Ahead::Middle | Ahead::End) => {
                Rows::After(job.place.after.clone(), pace.rows(job.size))
            }
        };
        let errand = Errand {
            database: Arc::clone(&self.database),
            session: job.session.take().or_else(|| self.session.take()),
            name: name.clone(),
            table: job.described.clone(),
            size_up: (job.progress.expected.is_none() && job.job.condition.is_none())
                .then(|| job.job.tables.clone()),
            watch_writers: job.job.reason == SnapshotReason::Joined
                && job.place.after.is_none()
                && job.writers.as_ref().is_none_or(|writers| !writers.is_empty()),
            rows: rows.clone(),
            condition: job.job.condition.clone(),
        };
        self.reading = Some(Reading {
            job: job.job.id,
            name,
            told: self.told.count(),
            rows,
            notes: Notes::default(),
            void: false,
            task: tokio::spawn(errand.run()),
        });
    }

    /// When [`ask`](Self::ask) has something to do that it has not now.
    fn due(&self) -> Option<Instant> {
        if self.reading.is_some() || self.held.len() >= HELD {
            return None;
        }
        let next = self.wanting().map(|(_, job)| job.wait.unwrap_or_else(Instant::now)).min()?;
        Some(self.pace.due().map_or(next, |due| due.max(next)))
    }

    // What happens beside the log.

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

    fn read_ended(&mut self, outcome: Outcome) {
        let Some(reading) = self.reading.take() else { return };
        let Some(at) = self.jobs.iter().position(|job| job.job.id == reading.job) else { return };
        let Some(job) = self.jobs.get_mut(at) else { return };
        match outcome.session {
            Some(session) if session.is_open() => job.session = Some(session),
            session => self.session = session.or_else(|| self.session.take()),
        }
        job.wait = None;
        if job.current() != Some(&reading.name) {
            return;
        }
        match outcome.found {
            Found::Table { table: None, .. } => {
                tracing::info!(source = self.source, table = %reading.name, "the table is not there, or not published, any more");
                self.table_told(at, None);
            }
            Found::Table { table: Some(table), expected } => {
                job.described = Some(table);
                job.progress.expected = job.progress.expected.or(expected);
            }
            Found::Writers(writers) => {
                job.writers = Some(match &job.writers {
                    Some(former) => former.intersection(&writers).cloned().collect(),
                    None => writers,
                });
                if job.writers.as_ref().is_some_and(|writers| !writers.is_empty()) {
                    job.wait = Some(Instant::now() + SOON);
                }
            }
            Found::Changed => {
                self.void(reading.job);
            }
            Found::Fault(fault) => self.trouble(at, &fault),
            Found::Chunk(read) => self.chunk_read(at, reading, *read),
        }
    }

    fn chunk_read(&mut self, at: usize, reading: Reading, read: Read) {
        let Reading { job: id, name, told, rows, notes, void, .. } = reading;
        let Read { mut chunk, complete, visibility, watermark, read_at, took } = read;
        self.pace.read(Instant::now(), chunk.len());
        let size = self.jobs.get(at).map(|job| self.pace.resize(job.size, chunk.len(), chunk.bytes(), took));
        // On a standby nothing is sent before it can be seen; and which transactions run it cannot tell. What goes on from an
        // earlier chunk was judged with that.
        let middle = self.jobs.get(at).is_some_and(|job| job.ahead == Ahead::Middle);
        let seen = self.database.standby || middle || self.told.all_seen(&visibility, told);
        let moved = notes.apply(&mut chunk);
        let (Some(moved), true, false) = (moved, seen, void) else {
            self.void(id);
            return;
        };
        let Some(job) = self.jobs.get_mut(at) else { return };
        if let (Some(size), Rows::After(..)) = (size, &rows) {
            job.size = size;
        }
        let mut begin_again = false;
        for key in moved {
            begin_again |= !job.place.repeat(key);
        }
        if begin_again {
            self.void(id);
            if let Some(job) = self.jobs.get_mut(at) {
                job.start_table();
            }
            self.write_places();
            return;
        }
        match &rows {
            Rows::Keys(_) => {}
            Rows::All => job.ahead = if complete { Ahead::End } else { Ahead::Middle },
            Rows::After(..) if complete => job.ahead = Ahead::End,
            Rows::After(..) => {
                if let Some(key) = chunk.len().checked_sub(1).and_then(|last| chunk.read_key(last)) {
                    job.ahead = Ahead::Key(key.to_owned());
                }
            }
        }
        self.held.push_back(Held { job: id, name, rows, chunk, watermark: watermark.0, read_at, next: 0 });
    }

    /// A table cannot be read.
    fn trouble(&mut self, at: usize, fault: &Fault) {
        let Some(job) = self.jobs.get_mut(at) else { return };
        let text = fault.to_string();
        if job.progress.trouble.as_ref() != Some(&text) {
            tracing::warn!(source = self.source, job = job.job.id, fix = fault.fix(), "snapshot: {fault}");
        }
        job.progress.trouble = Some(text);
        job.progress.fix = fault.fix().map(str::to_owned);
        let (id, failed) =
            (job.job.id, fault.kind() == FaultKind::Definite && job.job.reason == SnapshotReason::Asked);
        self.void(id);
        let Some(job) = self.jobs.get_mut(at) else { return };
        job.wait =
            Some(Instant::now() + if fault.kind() == FaultKind::Definite { RETRY } else { RETRY / 10 });
        if failed {
            // Whoever asked is told, and may ask again.
            job.table = job.job.tables.len();
            job.told(0, now(), None);
        }
        self.desk.show(job.progress.clone());
        self.write_places();
    }

    /// Makes jobs for tables that are new to the source, and forgets those that left it.
    async fn sort_captured<O: Outlet>(&mut self, outlet: &mut O) -> Result<(), Fault> {
        self.unsorted = false;
        let captured = self.captured.borrow_and_update().clone();
        let joined: Vec<TableName> = captured.difference(&self.ledger.known).cloned().collect();
        let left = self.ledger.known.iter().any(|known| !captured.contains(known));
        if !self.settings.initial || (joined.is_empty() && !left) {
            return Ok(());
        }
        let reason = if self.ledger.next == 0 { SnapshotReason::Initial } else { SnapshotReason::Joined };
        self.ledger.known = captured;
        self.add_job(reason, joined, None, outlet).await.map(drop)
    }

    async fn checked<O: Outlet>(&mut self, checked: Result<(), Fault>, outlet: &mut O) -> Result<(), Fault> {
        let Some(asked) = self.asked.take() else { return Ok(()) };
        let answer = match checked {
            Ok(()) => {
                let (tables, condition) = (asked.tables, asked.condition);
                Ok(self.add_job(SnapshotReason::Asked, tables, condition, outlet).await?)
            }
            Err(fault) => Err(fault),
        };
        // Whoever asked may have gone away; the job is made all the same.
        let _ = asked.answer.send(answer);
        Ok(())
    }

    async fn add_job<O: Outlet>(
        &mut self,
        reason: SnapshotReason,
        tables: Vec<TableName>,
        condition: Option<String>,
        outlet: &mut O,
    ) -> Result<u64, Fault> {
        self.ledger.next += 1;
        let job = SnapshotJob { id: self.ledger.next, reason, tables, condition };
        let id = job.id;
        let empty = job.tables.is_empty();
        if !empty {
            tracing::info!(
                source = self.source,
                job = id,
                reason = reason.as_str(),
                tables = job.tables.len(),
                "snapshot begins"
            );
            self.ledger.jobs.push(job.clone());
        }
        outlet.keep_snapshots(&self.ledger).await?;
        if !empty {
            let job = Job::new(job, None, now());
            self.desk.show(job.progress.clone());
            self.jobs.push(job);
            self.write_places();
        }
        Ok(id)
    }

    /// Takes jobs out of the ledger whose last event the broker holds for good.
    async fn close_jobs<O: Outlet>(&mut self, outlet: &mut O) -> Result<(), Fault> {
        let released = *self.released.borrow_and_update();
        let done = |job: &Job| {
            // Beyond, not up to: the log may have stood there before the rows were told.
            job.told_at.is_some_and(|told| released > Progress { epoch: self.epoch, log: told })
        };
        if !self.jobs.iter().any(done) {
            return Ok(());
        }
        let ids: BTreeSet<u64> = self.jobs.iter().filter(|job| done(job)).map(|job| job.job.id).collect();
        self.ledger.jobs.retain(|job| !ids.contains(&job.id));
        outlet.keep_snapshots(&self.ledger).await?;
        self.jobs.retain(|job| !ids.contains(&job.job.id));
        self.write_places();
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

/// Where a row moved whose event could not carry every column.
fn moved_to(change: &Change<'_>) -> Option<place::Key> {
    let (before, after) = (change.before?, change.after?);
    if !after.contains(&Cell::Unavailable) {
        return None;
    }
    let key = place::key(change.relation, after, Some(before))?;
    let old = place::key(change.relation, before, Some(after))?;
    (key != old).then_some(key)
}

/// What a reading task is sent for: whatever has to be known first, else rows.
struct Errand {
    database: Arc<Database>,
    session: Option<Session>,
    name: TableName,
    table: Option<Arc<Table>>,
    /// Tables whose size is wanted.
    size_up: Option<Vec<TableName>>,
    watch_writers: bool,
    rows: Rows,
    condition: Option<String>,
}

impl Errand {
    async fn run(mut self) -> Outcome {
        let mut session = match self.session.take() {
            Some(session) => session,
            None => match Session::start(Arc::clone(&self.database)).await {
                Ok(session) => session,
                Err(fault) => return Outcome { session: None, found: Found::Fault(fault) },
            },
        };
        match self.fetch(&mut session).await {
            Ok(found) => Outcome { session: Some(session), found },
            Err(Unread::Changed) => Outcome { session: Some(session), found: Found::Changed },
            // Whatever state it is in, a new session is in none.
            Err(Unread::Fault(fault)) => Outcome { session: None, found: Found::Fault(fault) },
        }
    }

    async fn fetch(&self, session: &mut Session) -> Result<Found, Unread> {
        let Some(table) = &self.table else {
            let table = session.describe(&self.name).await?.map(Arc::new);
            let expected = match &self.size_up {
                Some(tables) => session.expected(tables).await?,
                None => None,
            };
            return Ok(Found::Table { table, expected });
        };
        if self.watch_writers {
            return Ok(Found::Writers(session.writers(table).await?));
        }
        let read = session.read(table, &self.rows, self.condition.as_deref()).await?;
        Ok(Found::Chunk(Box::new(read)))
    }
}
