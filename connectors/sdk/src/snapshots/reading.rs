//! What has to be read next, the task that reads it, and what becomes of its answer.

use super::{
    ACTIVE, HELD, Held, RETRY, SOON, Snapshots, Told as _,
    chunk::Notes,
    job::{Ahead, Job},
    now,
    reader::{Read, Reader, Rows, Table as _, Unread},
};
use crate::{Fault, FaultKind, SnapshotReason, TableName};
use std::{collections::BTreeSet, sync::Arc};
use tokio::{task::JoinHandle, time::Instant};

/// At which try to describe a captured table it is told that it cannot be described: at the first it may be amid a rename.
const TROUBLE_AT: u32 = 2;
/// After how many of them the table is skipped.
const TRIES: u32 = 30;

/// A read under way.
pub(super) struct Reading<R: Reader> {
    pub(super) job: u64,
    pub(super) name: TableName,
    /// What had been told when it began.
    pub(super) told: <R::Told as super::Told>::Mark,
    pub(super) rows: Rows,
    pub(super) notes: Notes,
    /// Whether its rows will be of no use.
    pub(super) void: bool,
    pub(super) task: JoinHandle<Outcome<R>>,
}

pub(super) struct Outcome<R: Reader> {
    pub(super) session: Option<R>,
    pub(super) found: Found<R>,
}

/// What a task came back with.
pub(super) enum Found<R: Reader> {
    Table { table: Option<Arc<R::Table>>, expected: Option<u64> },
    Writers(BTreeSet<String>),
    Chunk(Box<Read<R>>),
    Changed,
    Fault(Fault),
}

impl<R: Reader> Snapshots<R> {
    /// The jobs that have something to read, of those that are made at present.
    pub(super) fn wanting(&self) -> impl Iterator<Item = (usize, &Job<R>)> {
        let active = self.jobs.iter().enumerate().filter(|(_, job)| job.current().is_some()).take(ACTIVE);
        active.filter(|(_, job)| {
            let held = |held: &Held| held.job == job.job.id;
            // Rows are read again once everything that was read is told.
            let again = !job.place.again.is_empty() && job.is_caught_up();
            if again { !self.held.iter().any(held) } else { job.ahead != Ahead::End }
        })
    }

    /// Begins to read, if there is something to read and room for it.
    pub(super) fn ask(&mut self) {
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
        let errand = Errand::<R> {
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
            told: self.told.mark(),
            rows,
            notes: Notes::default(),
            void: false,
            task: tokio::spawn(errand.run()),
        });
    }

    /// When [`ask`](Self::ask) has something to do that it has not now.
    pub(super) fn due(&self) -> Option<Instant> {
        if self.reading.is_some() || self.held.len() >= HELD {
            return None;
        }
        let next = self.wanting().map(|(_, job)| job.wait.unwrap_or_else(Instant::now)).min()?;
        Some(self.pace.due().map_or(next, |due| due.max(next)))
    }

    pub(super) fn read_ended(&mut self, outcome: Outcome<R>) {
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
            // Renamed, and perhaps back again in a moment: whether it is gone, the next look at the tables says.
            Found::Table { table: None, .. } if self.captured.borrow().contains_key(&reading.name) => {
                self.table_missed(at, &reading.name);
            }
            Found::Table { table: None, .. } => {
                tracing::info!(source = self.source, table = %reading.name, "the table is not there, or not captured, any more");
                self.table_told(at, None);
            }
            Found::Table { table: Some(table), expected } => {
                if !job.place.is_of(&table.order()) {
                    tracing::info!(source = self.source, job = job.job.id, table = %reading.name, "the table's key is another one: reading it from its beginning");
                }
                if std::mem::take(&mut job.missed) >= TROUBLE_AT {
                    (job.progress.trouble, job.progress.fix) = (None, None);
                    self.desk.show(job.progress.clone());
                }
                job.described = Some(table);
                job.progress.expected = job.progress.expected.or(expected);
                self.write_places();
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

    pub(super) fn chunk_read(&mut self, at: usize, reading: Reading<R>, read: Read<R>) {
        let Reading { job: id, name, told, rows, notes, void, .. } = reading;
        let Read { mut chunk, complete, sight, watermark, read_at, took } = read;
        self.pace.read(Instant::now(), chunk.len());
        let size = self.jobs.get(at).map(|job| self.pace.resize(job.size, chunk.len(), chunk.bytes(), took));
        // What goes on from an earlier chunk was judged with that.
        let middle = self.jobs.get(at).is_some_and(|job| job.ahead == Ahead::Middle);
        let seen = middle || R::Told::all_seen(&sight, &told);
        let moved = notes.apply(&mut chunk, R::LOG_FORM);
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
        self.held.push_back(Held { job: id, name, rows, complete, chunk, watermark, read_at, next: 0 });
    }

    /// A table that is captured is not there to be described. The tables behind it do not wait for it for ever.
    fn table_missed(&mut self, at: usize, table: &TableName) {
        let Some(job) = self.jobs.get_mut(at) else { return };
        job.missed += 1;
        if job.missed >= TRIES {
            tracing::warn!(
                source = self.source,
                job = job.job.id,
                %table,
                "the table is captured, but cannot be described: it is skipped; `headgate snapshot` reads it when it can be"
            );
            (job.progress.trouble, job.progress.fix) = (None, None);
            self.table_told(at, None);
            return;
        }
        job.wait = Some(Instant::now() + RETRY / 10);
        if job.missed == TROUBLE_AT {
            let text = format!("table {table} is captured, but cannot be described");
            tracing::warn!(source = self.source, job = job.job.id, "snapshot: {text}");
            (job.progress.trouble, job.progress.fix) = (Some(text), None);
            self.desk.show(job.progress.clone());
        }
    }

    /// A table cannot be read.
    pub(super) fn trouble(&mut self, at: usize, fault: &Fault) {
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

    /// What was read of a job and is not told is of no use: it will be read again.
    pub(super) fn void(&mut self, job: u64) {
        self.held.retain(|held| held.job != job);
        if let Some(reading) = self.reading.as_mut().filter(|reading| reading.job == job) {
            reading.void = true;
        }
        if let Some(job) = self.jobs.iter_mut().find(|known| known.job.id == job) {
            job.reread();
            job.wait = Some(Instant::now() + SOON);
        }
    }
}

/// What a reading task is sent for: whatever has to be known first, else rows.
struct Errand<R: Reader> {
    database: Arc<R::Database>,
    session: Option<R>,
    name: TableName,
    table: Option<Arc<R::Table>>,
    /// Tables whose size is wanted.
    size_up: Option<Vec<TableName>>,
    watch_writers: bool,
    rows: Rows,
    condition: Option<String>,
}

impl<R: Reader> Errand<R> {
    async fn run(mut self) -> Outcome<R> {
        let mut session = match self.session.take() {
            Some(session) => session,
            None => match R::start(Arc::clone(&self.database)).await {
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

    async fn fetch(&mut self, session: &mut R) -> Result<Found<R>, Unread> {
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
