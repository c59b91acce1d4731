//! The pure part of the normalizer: changes in, encoded events out, no waiting and no broker.

mod plain;
mod row;
mod snapshot;
mod transaction;
mod treated;
mod turn;
mod unfinished;

use super::{
    encode,
    form::Form,
    key::Key,
    shapes::Shapes,
    shaping::{Shaping, Treatment},
    table::{Style, Table},
};
use crate::{
    event::Item,
    schema::{Note, Version},
    telemetry::metrics::SourceMetrics,
};
use bytes::Bytes;
use headgate_sdk::{Change, Fault, Position, Progress, Relation, SnapshotPoint, fnv1a};
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};
use transaction::OpenTransaction;
use unfinished::{Held, Pending};

/// A batch is full when it has this many bytes…
pub(super) const BATCH_BYTES: usize = 256 << 10;
/// … or this many items.
const BATCH_ITEMS: usize = 1024;
/// What an item costs beside its bytes, and a dead letter's.
const ITEM_BYTES: usize = 160;
/// Tables prepared at one time; beyond that (endless DDL) all are prepared anew.
const MAX_TABLES: usize = 4096;
/// Changes that one transaction may have: an index has 32 bits, and each change takes two.
const MAX_CHANGES: u32 = u32::MAX >> 1;

/// What decides how events look.
#[derive(Debug)]
pub struct Look {
    /// The spelling of attributes, subjects and partitions.
    pub style: Style,
    /// Entity names by `schema.table`.
    pub entities: BTreeMap<String, String>,
    /// The schema whose tables are known by their name alone.
    pub default_schema: String,
    /// What the settings make of rows and messages.
    pub shaping: Shaping,
}

impl Look {
    /// The entity of a table, as a token.
    pub fn entity(&self, schema: &str, table: &str) -> String {
        match self.entities.get(&format!("{schema}.{table}")) {
            Some(name) => encode::token(name),
            None if schema == self.default_schema => encode::token(table),
            None => encode::token(&format!("{schema}-{table}")),
        }
    }
}

/// Encodes one source's events.
#[derive(Debug)]
pub struct Encoder {
    look: Look,
    metrics: SourceMetrics,
    epoch: u16,
    /// The last event that the stream held when the run began.
    resume: Option<Position>,
    /// The last event that got a position, here or in the stream.
    last: Option<Position>,
    /// The last one of them that is in the stream, or on its way: not a dead letter.
    streamed: Option<Position>,
    /// Where rows of a snapshot are being told.
    snapshot: Option<SnapshotPoint>,
    /// How far the snapshots are with the next event.
    places: Bytes,
    /// How far they were before that event.
    places_before: Bytes,
    transaction: OpenTransaction,
    tables: HashMap<u64, Table>,
    shapes: Shapes,
    /// Whether any table has a shape whose first event has not come.
    arrivals: bool,
    buffer: Vec<u8>,
    items: Vec<Pending>,
    /// What the dead letters among them weigh.
    letter_bytes: usize,
    held: Option<Held>,
    key: Key,
    other_key: Key,
    source_hash: u64,
    /// Why nothing more may be told: the settings cannot be kept to.
    refusal: Option<Fault>,
}

impl Encoder {
    /// An encoder that drops events up to `resume`, for a stream that ends with `last`, and whose tables had the shapes that
    /// are known when it did.
    pub fn new(
        look: Look,
        metrics: SourceMetrics,
        resume: Option<Position>,
        last: Option<Position>,
        shapes: Shapes,
    ) -> Self {
        let source = look.style.source.as_bytes();
        let source_hash = u64::from(fnv1a(&[source])) << 32 | u64::from(fnv1a(&[source, &[0]]));
        Self {
            look,
            metrics,
            epoch: resume.map_or(0, |position| position.epoch),
            resume,
            last,
            streamed: last,
            snapshot: None,
            places: Bytes::new(),
            places_before: Bytes::new(),
            transaction: OpenTransaction::default(),
            tables: HashMap::new(),
            shapes,
            arrivals: false,
            buffer: Vec::with_capacity(BATCH_BYTES + (BATCH_BYTES >> 2)),
            items: Vec::with_capacity(BATCH_ITEMS),
            letter_bytes: 0,
            held: None,
            key: Key::default(),
            other_key: Key::default(),
            source_hash,
            refusal: None,
        }
    }

    /// Why nothing that was told since became an event. The run has to end: what comes after would be out of order.
    pub fn take_refusal(&mut self) -> Option<Fault> {
        self.refusal.take()
    }

    /// The epoch that positions count in from now on.
    pub fn set_epoch(&mut self, epoch: u16) {
        self.epoch = epoch;
    }

    /// The source's name.
    pub fn source(&self) -> &str {
        &self.look.style.source
    }

    fn form(&self) -> &Form {
        &self.look.style.form
    }

    /// Takes out everything that is complete, and what it weighs.
    ///
    /// Within a transaction, dead letters leave with the event or the mark behind them: only that proves to the next run that
    /// they are kept. Where nothing more may be told, those behind the last one are not taken: whoever reads again tells them again.
    /// More than a batch of them in a row do not wait.
    pub fn take(&mut self) -> Option<(Vec<Item>, usize)> {
        let proven = self.items.iter().rposition(|item| !matches!(item, Pending::DeadLetter(..)));
        let proven = proven.map_or(0, |last| last + 1);
        let behind = &self.items[proven..];
        let bytes_behind: usize = behind.iter().map(Pending::letter_bytes).sum();
        let are_few = behind.len() < BATCH_ITEMS && bytes_behind < BATCH_BYTES;
        let complete = if self.refusal.is_some() {
            self.items.truncate(proven);
            self.letter_bytes -= bytes_behind;
            proven
        } else if self.transaction.is_open && are_few {
            proven
        } else {
            self.items.len()
        };
        if complete == 0 {
            return None;
        }
        // What is held back stays, and becomes the beginning of the next batch. The copy makes the batch as large as
        // its content, so that a thousand small batches under way do not hold a thousand large buffers.
        let cut = self.held.as_ref().map_or(self.buffer.len(), |held| held.start);
        let bytes = Bytes::copy_from_slice(&self.buffer[..cut]);
        self.buffer.drain(..cut);
        self.buffer.shrink_to(2 * BATCH_BYTES);
        if let Some(held) = &mut self.held {
            held.data_start -= held.start;
            held.data_end -= held.start;
            held.start = 0;
        }
        let kept: usize = self.items[complete..].iter().map(Pending::letter_bytes).sum();
        let size = bytes.len() + complete * ITEM_BYTES + self.letter_bytes - kept;
        self.letter_bytes = kept;
        let structured = self.form().is_structured();
        Some((self.items.drain(..complete).map(|item| item.cut(&bytes, structured)).collect(), size))
    }

    /// One change of the open transaction.
    pub fn change(&mut self, change: &Change<'_>) {
        if self.refusal.is_some() {
            return;
        }
        if self.snapshot.is_some() {
            self.metrics.snapshot_rows.inc();
        } else {
            self.metrics.received.inc();
        }
        match self.prepare(change.relation) {
            Some(treatment) => self.treated(&treatment, change),
            None if self.refusal.is_none() => self.row(change),
            None => {}
        }
    }

    /// A change of the open transaction that nobody is told. Its index is taken all the same, and no other event's `txindex`.
    pub fn pass_over(&mut self) {
        if self.refusal.is_some() {
            return;
        }
        self.metrics.received.inc();
        let _ = self.next_position();
    }

    /// Everything before `progress` has been told.
    pub fn progress(&mut self, progress: Progress) {
        if self.refusal.is_some() {
            return;
        }
        match self.items.last_mut() {
            Some(Pending::Mark(mark)) => *mark = progress,
            _ => self.items.push(Pending::Mark(progress)),
        }
    }

    /// Whether the batch should be taken before more is told.
    pub fn is_full(&self) -> bool {
        self.buffer.len() + self.letter_bytes >= BATCH_BYTES
            || self.items.len() >= BATCH_ITEMS
            || self.refusal.is_some()
    }

    /// Takes the next position of the open transaction; `None` if the stream holds that event already.
    ///
    /// Indexes of changes are odd. The even one before it is that of the schema event that stands before the change, if one
    /// does: so ids never depend on whether anybody knew the table's former shape.
    fn next_position(&mut self) -> Option<Position> {
        let number = self.transaction.next_index;
        if number >= MAX_CHANGES {
            self.refusal.get_or_insert_with(|| {
                Fault::definite(format!("a transaction has more than {MAX_CHANGES} changes"))
            });
            return None;
        }
        self.transaction.next_index = number + 1;
        let position = Position { epoch: self.epoch, commit: self.transaction.commit, index: number * 2 + 1 };
        // What a snapshot read is new whatever the stream holds: it never comes twice.
        let is_held =
            position.index < self.transaction.held || self.resume.is_some_and(|resume| position <= resume);
        if self.snapshot.is_none() && is_held {
            self.metrics.deduplicated.inc();
            return None;
        }
        self.last = self.last.max(Some(position));
        Some(position)
    }

    /// Whether the stream ends within the open transaction, or holds the beginning of it under an earlier epoch.
    fn is_resumed(&self) -> bool {
        self.transaction.held > 0
            || self.resume.is_some_and(|at| (at.epoch, at.commit) == (self.epoch, self.transaction.commit))
    }

    /// Sees to it that the relation's table is prepared; gives what the settings make of its rows. Sets the refusal where
    /// they cannot be kept to.
    fn prepare(&mut self, relation: &Arc<Relation>) -> Option<Arc<Treatment>> {
        if let Some(table) = self.tables.get(&relation.id) {
            return table.treatment.clone();
        }
        let before = self.shapes.before(relation);
        let treatment = match self.look.shaping.prepare(relation, before, &self.look.style) {
            Ok(treatment) => treatment,
            Err(fault) => {
                self.refusal = Some(fault);
                return None;
            }
        };
        if self.tables.len() >= MAX_TABLES {
            self.tables.clear();
        }
        // An older version of the same table is never told again.
        self.tables.retain(|_, table| {
            table.relation.schema != relation.schema || table.relation.table != relation.table
        });
        let entity = self.look.entity(&relation.schema, &relation.table);
        let told = treatment
            .as_ref()
            .and_then(|treatment| treatment.view.as_ref())
            .map_or(relation, |view| &view.relation);
        let role = treatment.as_ref().map(|treatment| &treatment.role);
        let met = self.shapes.meet(&entity, told, role);
        self.arrivals |= met.arrival.is_some();
        let mut table = Table::new(Arc::clone(told), entity, &self.look.style, met);
        table.treatment.clone_from(&treatment);
        self.tables.insert(relation.id, table);
        treatment
    }

    /// The versions that were met since this was last asked, and what was found out of tables.
    pub fn take_shapes(&mut self) -> (Vec<Version>, Vec<Note>) {
        self.shapes.take()
    }
}
