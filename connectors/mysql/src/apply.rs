//! Turns the events of a log into what an [`Outlet`] is told.
//!
//! # Order
//! Strictly the log's: transactions in commit order, rows as they were written. A row outside a transaction, a transaction
//! within another, or one without an end is a fault: going on would give events a false position.
//!
//! # Duplicates
//! The same log makes the same calls. A transaction's commit position is the place after its first event, which rises from
//! transaction to transaction and is the same however the transaction is compressed.
//!
//! # What cannot be told
//! A change in statement format, what a server lost before it logged it (INCIDENT), and what it logged and rolled back all
//! the same, is a [`Halt::Lost`]: after the transaction that it is in, a gap has to be told.
//!
//! # Distributed transactions
//! Their rows are in the log when they are prepared, which is not when they are committed. So they are passed over, and
//! read again ([`Replay`]) when the commit comes. A rollback needs nothing more.
//!
//! # Memory
//! One event at a time; a row costs no allocation.

mod rows;
mod savepoints;
mod statements;

use crate::{
    catalog::Catalog,
    event::{self, Event, Flavor, Header, Images},
    executed::{Executed, Name},
    history::{Partial, Prepared},
    place::{Place, parse_file},
    table::Table,
    tables::Captured,
    tags,
};
use headgate_sdk::{CONTEXT_PREFIX, Fault, Message, Outlet, Progress, Transaction};
use savepoints::Savepoints;
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

/// Numbers of tables that are remembered; a server gives a new one whenever it opens a table again.
const MAX_TABLES: usize = 4096;
/// Prepared transactions that are remembered. Servers refuse more open ones long before.
const MAX_PREPARED: usize = 4096;

/// Why the log is not read on.
#[derive(Debug)]
pub(crate) enum Halt {
    Fault(Fault),
    /// Changes up to here are not in the log as rows.
    Lost(String),
    /// The log is not the one that the checkpoint speaks of, although the server says that it is the same.
    Foreign(String),
}

impl From<Fault> for Halt {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

/// Rows of a prepared transaction to be read again, and told as those of the open one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Replay {
    pub(crate) name: String,
    pub(crate) prepared: Prepared,
}

/// What the log is told to be before the first event.
#[derive(Debug)]
pub(crate) struct Opening {
    pub(crate) epoch: u16,
    pub(crate) flavor: Flavor,
    /// What log files' names begin with.
    pub(crate) log: String,
    /// Where the first transaction is expected at the earliest, and when its file was begun; `None` where the log is
    /// another one than before.
    pub(crate) expected: Option<(Place, u32)>,
    /// The transaction that the stream ends with, by its commit position, and when it was committed: the log has it too, or it
    /// is not the log that was read.
    pub(crate) held: Option<(Place, i64)>,
    pub(crate) executed: Option<Executed>,
    pub(crate) prepared: BTreeMap<String, Prepared>,
    pub(crate) partial: Option<Partial>,
    pub(crate) tables: Captured,
    /// Whether tables have small letters only, whatever a statement writes (`lower_case_table_names = 1`).
    pub(crate) lower_case: bool,
    /// Whether events get the text of their statement.
    pub(crate) query: bool,
}

/// The state of one dump. A new connection needs a new one.
#[derive(Debug)]
pub(crate) struct Apply {
    opening: Opening,
    catalog: Catalog,
    /// The end of the last event.
    place: Place,
    /// When the file at `place` was begun.
    born: u32,
    /// The end of the last transaction.
    done: Place,
    last_commit: i64,
    open: Option<Open>,
    /// By the numbers that rows refer to; `None` for a table that is not captured.
    numbers: HashMap<u64, Option<Arc<Table>>>,
    /// The newest shape of each table by schema and name.
    shapes: HashMap<(String, String), Arc<Table>>,
    images: Images<'static>,
    scratch: Vec<u8>,
}

/// The transaction that is being read.
#[derive(Debug)]
struct Open {
    began: Place,
    transaction: Transaction,
    /// Its name, where it has one; then this is also the transaction's id.
    gtid: Option<Name>,
    stage: Stage,
    savepoints: Savepoints,
    /// Changes of it that are not in the log as rows.
    lost: Option<String>,
}

impl Open {
    fn is_named(&self, name: &str) -> bool {
        self.gtid.is_some() && self.transaction.id == name
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Its name was read.
    Named,
    /// Its rows come, and it ends with a commit.
    Begun,
    /// Its rows come, but are told only when it is committed, if ever.
    Preparing,
}

impl Apply {
    pub(crate) fn new(opening: Opening, catalog: Catalog) -> Self {
        Self {
            place: Place::default(),
            born: 0,
            done: opening.expected.map_or(Place::default(), |(place, _)| place),
            last_commit: 0,
            opening,
            catalog,
            open: None,
            numbers: HashMap::new(),
            shapes: HashMap::new(),
            images: Images::default(),
            scratch: Vec::new(),
        }
    }

    /// Whether a transaction has begun and not ended.
    pub(crate) fn in_transaction(&self) -> bool {
        self.open.is_some()
    }

    /// The end of the last event.
    pub(crate) fn place(&self) -> Place {
        self.place
    }

    /// The end of the last transaction.
    pub(crate) fn done(&self) -> Place {
        self.done
    }

    /// Commit time of the transaction that is being read, in microseconds since 1970-01-01 UTC.
    pub(crate) fn committed_at(&self) -> Option<i64> {
        self.open.as_ref().map(|open| open.transaction.committed_at)
    }

    /// Commit time of the last transaction; 0 before the first.
    pub(crate) fn last_commit(&self) -> i64 {
        self.last_commit
    }

    pub(crate) fn flavor(&self) -> Flavor {
        self.opening.flavor
    }

    /// When the file that is being read was begun.
    pub(crate) fn born(&self) -> u32 {
        self.born
    }

    pub(crate) fn executed(&self) -> Option<&Executed> {
        self.opening.executed.as_ref()
    }

    pub(crate) fn prepared(&self) -> &BTreeMap<String, Prepared> {
        &self.opening.prepared
    }

    pub(crate) fn partial(&self) -> Option<&Partial> {
        self.opening.partial.as_ref()
    }

    /// Tells one event. `inside`: it comes out of a compressed transaction, and so has no place of its own.
    ///
    /// Gives the rows that have to be read again before the next event.
    pub(crate) async fn event<O: Outlet>(
        &mut self,
        header: &Header,
        body: &[u8],
        inside: bool,
        outlet: &mut O,
    ) -> Result<Option<Replay>, Halt> {
        if header.kind == event::kind::TABLE_MAP && self.knows(body) {
            if !inside {
                self.step(header.size, header.log_pos)?;
            }
            return Ok(None);
        }
        let event = Event::decode(header, body).map_err(|error| self.undecodable(error))?;
        if !inside {
            self.advance(header, &event)?;
        }
        match event {
            Event::Rows(rows) => self.rows(&rows, outlet)?,
            Event::TableMap(map) => self.table_map(&map).await?,
            Event::Query(query) => return self.query(&query, outlet),
            Event::Xid(_) => self.commit(outlet)?,
            Event::Gtid(gtid) => {
                let at = gtid.original_commit.or(gtid.immediate_commit).and_then(|at| i64::try_from(at).ok());
                self.named(gtid.id.map(Name::MySql), at, header, false, outlet)?;
            }
            Event::MariaGtid(gtid) => {
                let begun = !gtid.standalone && !gtid.prepared_xa && !gtid.completed_xa;
                self.named(Some(Name::MariaDb(gtid.id)), None, header, begun, outlet)?;
                if gtid.prepared_xa
                    && let Some(open) = &mut self.open
                {
                    open.stage = Stage::Preparing;
                }
            }
            Event::RowsQuery(text) => self.context(text, outlet),
            Event::XaPrepare(prepare) => return self.prepare(&prepare, outlet),
            Event::Format(_) => {
                if self.open.is_some() {
                    return Err(self.unended());
                }
                self.begin_file(header)?;
            }
            Event::Rotate(_) => {
                if self.open.is_some() {
                    return Err(self.unended());
                }
            }
            Event::PreviousGtids(set) => {
                // Here it is certain what lies before, whatever was known until now.
                if self.opening.executed.is_none() && self.catalog.has_names() {
                    self.opening.executed = Some(Executed::MySql(set));
                }
            }
            Event::MariaGtidList(list) => {
                if self.opening.executed.is_none() {
                    self.opening.executed = Some(Executed::MariaDb(list));
                }
            }
            Event::Heartbeat => {
                if self.open.is_none() {
                    self.pass(outlet);
                }
            }
            Event::Incident(incident) => {
                let reason = format!(
                    "the server lost changes before it could log them: {}",
                    String::from_utf8_lossy(incident.message)
                );
                if self.open.is_some() {
                    self.begin(outlet);
                    self.lose(reason);
                    self.commit(outlet)?;
                } else {
                    self.pass(outlet);
                    return Err(Halt::Lost(reason));
                }
            }
            // The events in it follow, each by itself.
            Event::Payload(_) | Event::Aside(_) => {}
        }
        Ok(None)
    }

    /// Tells one event of a transaction that is read again. `true`: that was its last.
    pub(crate) async fn replayed<O: Outlet>(
        &mut self,
        header: &Header,
        body: &[u8],
        outlet: &mut O,
    ) -> Result<bool, Halt> {
        match Event::decode(header, body).map_err(|error| self.undecodable(error))? {
            Event::Rows(rows) => self.rows(&rows, outlet)?,
            Event::TableMap(map) => self.table_map(&map).await?,
            Event::RowsQuery(text) => self.context(text, outlet),
            Event::Query(query) => self.savepoint(&statements::read(&query)),
            Event::XaPrepare(_) => return Ok(true),
            _ => {}
        }
        Ok(false)
    }

    /// The rows have been read again: the transaction is whole.
    pub(crate) fn replay_ended<O: Outlet>(&mut self, outlet: &mut O) -> Result<(), Halt> {
        self.numbers.clear();
        self.commit(outlet)
    }

    fn undecodable(&self, error: event::DecodeError) -> Fault {
        Fault::definite(format!("an event of the log after {}.{} cannot be read", self.opening.log, self.place))
            .with_cause(error)
            .with_fix("if the log is damaged (mysqlbinlog --verify-binlog-checksum says so), read it from a replica; else report this as a defect of Headgate")
    }

    fn unended(&self) -> Halt {
        Halt::Fault(Fault::transient(format!(
            "the log at {}.{} has a transaction without an end",
            self.opening.log, self.place
        )))
    }

    /// Moves the place on by `size` bytes, or to where the header says that the event ends.
    fn step(&mut self, size: u32, log_pos: u32) -> Result<(), Halt> {
        self.place = self.place.after(size, log_pos).ok_or_else(|| {
            Fault::definite(format!(
                "the log file {} is larger than any that is supported",
                self.place.file()
            ))
        })?;
        Ok(())
    }

    /// Moves the place on to the event's end.
    fn advance(&mut self, header: &Header, event: &Event<'_>) -> Result<(), Halt> {
        const ARTIFICIAL: u16 = 0x20;
        if let Event::Rotate(rotate) = event {
            let name = String::from_utf8_lossy(rotate.file);
            let place = parse_file(&name)
                .filter(|(log, _)| *log == self.opening.log)
                .and_then(|(_, file)| Place::new(file, rotate.position));
            let Some(place) = place else {
                return Err(Halt::Foreign(format!(
                    "the log goes on in {name}, which is not of {}",
                    self.opening.log
                )));
            };
            if place < self.place {
                return Err(Halt::Foreign(format!("the log went back from {} to {place}", self.place)));
            }
            self.place = place;
            return Ok(());
        }
        // Made up for this dump: not in the file.
        let made_up = header.flags & ARTIFICIAL != 0
            || (matches!(event, Event::Format(_) | Event::Heartbeat) && header.log_pos == 0);
        let size = match event {
            _ if made_up => return Ok(()),
            Event::Heartbeat => 0,
            _ => header.size,
        };
        self.step(size, header.log_pos)
    }

    fn begin_file(&mut self, header: &Header) -> Result<(), Halt> {
        self.born = header.timestamp;
        self.numbers.clear();
        match self.opening.expected {
            Some((place, born))
                if born != 0 && place.file() == self.place.file() && born != header.timestamp =>
            {
                Err(Halt::Foreign(format!(
                    "the log file {} was begun anew since it was read: {} instead of {born}",
                    place.file(),
                    header.timestamp
                )))
            }
            _ => Ok(()),
        }
    }

    /// A transaction begins with its name.
    fn named<O: Outlet>(
        &mut self,
        gtid: Option<Name>,
        committed_at: Option<i64>,
        header: &Header,
        begun: bool,
        outlet: &mut O,
    ) -> Result<(), Halt> {
        if self.open.is_some() {
            return Err(self.unended());
        }
        let commit = self.place;
        let began = Place(commit.0.saturating_sub(header.size.into()));
        if let Some((expected, _)) = self.opening.expected.take()
            && began < expected
        {
            return Err(Halt::Foreign(format!(
                "the log has a transaction at {began} that was not read, although it was read up to {expected}"
            )));
        }
        let id = gtid.map_or_else(|| format!("{}.{began}", self.opening.log), |name| name.to_string());
        let committed_at = committed_at.unwrap_or_else(|| i64::from(header.timestamp) * 1_000_000);
        let lost = self.contradicts(commit, committed_at);
        self.open = Some(Open {
            began,
            transaction: Transaction { commit: commit.0, committed_at, id },
            gtid,
            stage: Stage::Named,
            savepoints: Savepoints::default(),
            lost,
        });
        if begun {
            self.begin(outlet);
        }
        Ok(())
    }

    /// Why the log cannot be the one that the stream ends in, where a transaction says so.
    ///
    /// A server that was reset, or restored from a copy of itself, names its transactions and files as before. What it wrote
    /// since has places that the stream is past, so that it would be taken for what the stream holds.
    fn contradicts(&mut self, commit: Place, committed_at: i64) -> Option<String> {
        let (held, held_at) = self.opening.held.take_if(|(held, _)| commit >= *held)?;
        (commit != held || committed_at != held_at).then(|| {
            format!(
                "the log does not have the transaction at {held} that the stream ends with: the server was reset, restored from a copy, or lost what it had not synced; what it wrote since in its place is not told"
            )
        })
    }

    /// The transaction's rows are going to be told.
    fn begin<O: Outlet>(&mut self, outlet: &mut O) {
        let Some(open) = &mut self.open else { return };
        if open.stage == Stage::Begun {
            return;
        }
        open.stage = Stage::Begun;
        outlet.begin(&open.transaction);
        if let Some(partial) = &self.opening.partial
            && open.is_named(&partial.transaction)
        {
            outlet.skip(partial.events);
        }
    }

    /// Ends the transaction.
    fn commit<O: Outlet>(&mut self, outlet: &mut O) -> Result<(), Halt> {
        let Some(open) = self.open.take() else {
            return Err(Fault::definite(format!(
                "the log at {}.{} ends a transaction that did not begin",
                self.opening.log, self.place
            ))
            .into());
        };
        self.done = self.place;
        // Only between transactions: the rows of a statement refer to several tables that were told before them.
        if self.numbers.len() >= MAX_TABLES {
            self.numbers.clear();
        }
        self.last_commit = open.transaction.committed_at;
        if let (Some(executed), Some(gtid)) = (&mut self.opening.executed, &open.gtid) {
            executed.note(gtid);
        }
        if self.opening.partial.as_ref().is_some_and(|partial| open.is_named(&partial.transaction)) {
            self.opening.partial = None;
        }
        let progress = Progress { epoch: self.opening.epoch, log: self.done.0 };
        if open.stage == Stage::Begun {
            outlet.commit(progress);
        } else {
            outlet.progress(progress);
        }
        match open.lost {
            Some(reason) => Err(Halt::Lost(reason)),
            None => Ok(()),
        }
    }

    /// Between transactions: everything up to here is done with.
    fn pass<O: Outlet>(&mut self, outlet: &mut O) {
        if self.place > self.done {
            self.done = self.place;
            outlet.progress(Progress { epoch: self.opening.epoch, log: self.done.0 });
        }
    }

    /// Notes that the transaction has changes which are not told.
    fn lose(&mut self, reason: String) {
        if let Some(open) = &mut self.open {
            open.lost.get_or_insert(reason);
        }
    }

    fn context<O: Outlet>(&mut self, text: &[u8], outlet: &mut O) {
        let begun = self.open.as_ref().is_some_and(|open| open.stage == Stage::Begun);
        if !begun {
            return;
        }
        if let Some(content) = tags::context(text, self.opening.query) {
            let position = self.place.0;
            outlet.message(&Message {
                prefix: CONTEXT_PREFIX,
                content: &content,
                transactional: true,
                position,
            });
        }
    }
}
