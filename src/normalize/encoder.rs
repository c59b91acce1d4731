//! The pure part of the normalizer: changes in, encoded events out, no waiting and no broker.

mod shaped;

use super::{
    context, encode,
    form::Form,
    key::Key,
    message,
    row::{Images, salvage, write_images},
    shaping::{Shape, Shaping},
    subject::Names,
    table::{Style, Table, Verb},
    time,
};
use crate::{
    event::{DeadLetter, Event, Item},
    schema::Version,
    telemetry::metrics::SourceMetrics,
};
use async_nats::Subject;
use bytes::Bytes;
use headgate_sdk::{
    CONTEXT_PREFIX, Change, Fault, Gap, Message, Op, Position, Progress, Relation, RowFault, SnapshotPlace,
    SnapshotPoint, Transaction, Unwritable,
};
use serde_json::json;
use std::{
    collections::{BTreeMap, HashMap},
    fmt::Write as _,
    sync::Arc,
};

/// A batch is full when it has this many bytes…
pub(super) const BATCH_BYTES: usize = 256 << 10;
/// … or this many items.
const BATCH_ITEMS: usize = 1024;
/// What an item costs beside its bytes.
const ITEM_BYTES: usize = 160;
/// Tables prepared at one time; beyond that (endless DDL) all are prepared anew.
const MAX_TABLES: usize = 4096;

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

/// The attributes of the open transaction.
#[derive(Debug, Default)]
struct OpenTransaction {
    commit: u64,
    committed_at: i64,
    id: String,
    /// Index of the next change, dead letters counted: half of its position.
    next_index: u32,
    /// Events before this index are in the stream under an earlier epoch.
    held: u32,
    /// Events so far, dead letters not counted: the next one's `txindex`.
    events: u32,
    /// Spelled from the end of `subject`'s key to the last attribute that the transaction decides.
    attributes: Vec<u8>,
    /// Whether `attributes` has been spelled: it is not, for a transaction that is dropped whole.
    spelled: bool,
    context: Vec<(String, String)>,
    /// Between its begin and its commit.
    is_open: bool,
}

/// An event whose end is not written yet.
#[derive(Debug)]
struct Held {
    start: usize,
    data_start: usize,
    data_end: usize,
    subject: Subject,
    position: Position,
    committed_at: i64,
    places: Bytes,
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
    /// Where rows of a snapshot are being told.
    snapshot: Option<SnapshotPoint>,
    /// How far the snapshots are.
    places: Bytes,
    transaction: OpenTransaction,
    tables: HashMap<u64, Table>,
    /// Versions of tables that the registry has not been told of.
    versions: Vec<Version>,
    buffer: Vec<u8>,
    items: Vec<Pending>,
    held: Option<Held>,
    key: Key,
    other_key: Key,
    source_hash: u64,
    /// Why nothing more may be told: the settings cannot be kept to.
    refusal: Option<Fault>,
}

/// An item whose bytes are still in the buffer.
#[derive(Debug)]
enum Pending {
    Event { held: Held, end: usize, transaction_end: Option<u64>, last: bool },
    DeadLetter(Box<DeadLetter>),
    Mark(Progress),
}

impl Encoder {
    /// An encoder that drops events up to `resume`, for a stream that ends with `last`.
    pub fn new(look: Look, metrics: SourceMetrics, resume: Option<Position>, last: Option<Position>) -> Self {
        let source = look.style.source.as_bytes();
        let source_hash =
            u64::from(encode::fnv1a(&[source])) << 32 | u64::from(encode::fnv1a(&[source, &[0]]));
        Self {
            look,
            metrics,
            epoch: resume.map_or(0, |position| position.epoch),
            resume,
            last,
            snapshot: None,
            places: Bytes::new(),
            transaction: OpenTransaction::default(),
            tables: HashMap::new(),
            versions: Vec::new(),
            buffer: Vec::with_capacity(BATCH_BYTES + (BATCH_BYTES >> 2)),
            items: Vec::with_capacity(BATCH_ITEMS),
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
    pub fn take(&mut self) -> Option<(Vec<Item>, usize)> {
        if self.items.is_empty() {
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
        let size = bytes.len() + self.items.len() * ITEM_BYTES;
        let structured = self.form().is_structured();
        Some((self.items.drain(..).map(|item| item.cut(&bytes, structured)).collect(), size))
    }

    /// Tells of lost history, as an event of the epoch that begins with it; returns its position.
    pub fn gap(&mut self, epoch: u16, gap: &Gap) -> Position {
        self.epoch = epoch;
        self.transaction =
            OpenTransaction { commit: gap.to.log, committed_at: time::now(), ..OpenTransaction::default() };
        let position = Position { epoch, commit: gap.to.log, index: 0 };
        let data = json!({
            "op": "gap",
            "reason": gap.reason,
            "from": gap.from.map(|from| json!({ "epoch": from.epoch, "log": format!("{:016x}", from.log) })),
            "to": { "epoch": gap.to.epoch, "log": format!("{:016x}", gap.to.log) },
            "bytes": gap.from.filter(|from| from.log <= gap.to.log).map(|from| gap.to.log - from.log),
        });
        self.last = Some(position);
        self.encode_plain("headgate", "gap", position, data.to_string().as_bytes());
        self.close(Some(gap.to.log));
        position
    }

    /// Begins a transaction.
    pub fn begin(&mut self, transaction: &Transaction) {
        let open = &mut self.transaction;
        open.commit = transaction.commit;
        open.committed_at = transaction.committed_at;
        open.id.clone_from(&transaction.id);
        open.next_index = 0;
        open.held = 0;
        open.events = 0;
        open.spelled = false;
        open.context.clear();
        open.is_open = true;
    }

    /// The first events of the open transaction are in the stream already, under an earlier epoch.
    pub fn skip(&mut self, events: u32) {
        self.transaction.held = events;
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
            Some(shape) => self.shaped(&shape, change),
            None if self.refusal.is_none() => self.row(change),
            None => {}
        }
    }

    /// The event, or the two, of a row.
    fn row(&mut self, change: &Change<'_>) {
        let relation = change.relation;
        let Some(table) = self.tables.get(&relation.id) else { return };
        let images = Images { before: change.before, after: change.after };
        let verb = Verb::from(change.op);
        let read = self.key.read(relation, &table.names, images.row(), change.before);
        let old = change.before.filter(|_| change.op == Op::Updated);
        let read = read.and_then(|()| {
            old.map_or(Ok(()), |before| self.other_key.read(relation, &table.names, before, change.after))
        });
        if let Err(error) = read {
            if let Some(position) = self.next_position() {
                self.bury(relation, position, verb, images, &error);
            }
            return;
        }
        let rekeyed = old.is_some() && self.key.json != self.other_key.json;
        if rekeyed {
            // A change of key is the end of one entity and the beginning of another, each in its own order.
            std::mem::swap(&mut self.key, &mut self.other_key);
            self.encode(
                relation,
                Verb::Deleted,
                Images { before: change.before, after: None },
                Some(b"{\"to\":"),
            );
            std::mem::swap(&mut self.key, &mut self.other_key);
            self.encode(
                relation,
                Verb::Created,
                Images { before: None, after: change.after },
                Some(b"{\"from\":"),
            );
        } else {
            self.encode(relation, verb, images, None);
        }
        if let Some(point) = self.snapshot {
            // No later row belongs to it: each stands for itself.
            self.close(Some(point.log));
        }
    }

    /// Begins to tell rows of a snapshot.
    ///
    /// They stand on the last byte before the point, which no transaction commits at: everything told lies at or before it,
    /// everything to come behind it. A message that stands alone may have it too, with index 0, as may rows told there before.
    pub fn begin_snapshot(&mut self, point: SnapshotPoint) {
        let commit = point.log.saturating_sub(1);
        let before = self.last.filter(|last| (last.epoch, last.commit) == (self.epoch, commit));
        self.transaction = OpenTransaction {
            commit,
            committed_at: point.read_at,
            next_index: before.map_or(1, |last| last.index.saturating_add(1)),
            ..OpenTransaction::default()
        };
        self.snapshot = Some(point);
    }

    /// Ends that; gives the last event's position.
    pub fn end_snapshot(&mut self) -> Option<Position> {
        self.snapshot = None;
        self.last
    }

    /// How far the snapshots are, with the next event.
    pub fn places(&mut self, places: &[SnapshotPlace]) {
        if places.is_empty() {
            self.places.clear();
            return;
        }
        let mut text = String::with_capacity(32 * places.len());
        for (nth, place) in places.iter().enumerate() {
            let separator = if nth == 0 { "" } else { " " };
            // Writing to a string does not fail.
            let _ = write!(text, "{separator}{place}");
        }
        self.places = Bytes::from(text);
    }

    /// A logical message, inside the open transaction or standing alone.
    pub fn message(&mut self, message: &Message<'_>) {
        if self.refusal.is_some() {
            return;
        }
        if message.transactional && message.prefix == CONTEXT_PREFIX {
            match context::parse(message.content) {
                Ok(attributes) => {
                    self.transaction.context = attributes;
                    self.transaction.spelled = false;
                }
                Err(error) => tracing::warn!(
                    source = self.look.style.source,
                    transaction = self.transaction.id,
                    "a {} message sets nothing: {error}",
                    CONTEXT_PREFIX
                ),
            }
            return;
        }
        if !self.look.shaping.tells_message(message.prefix) {
            return;
        }
        self.metrics.received.inc();
        if !message.transactional {
            self.transaction = OpenTransaction {
                commit: message.position,
                committed_at: time::now(),
                ..OpenTransaction::default()
            };
        }
        let position = self.next_position();
        if message.prefix.len() > message::MAX_PREFIX {
            if let Some(position) = position {
                self.bury_message(message, position);
            }
            return;
        }
        if let Some(position) = position {
            let (entity, verb) = message::name(message.prefix);
            self.encode_plain(&entity, &verb, position, &message::data(message));
        }
        self.transaction.events += 1;
        if !message.transactional {
            self.close(Some(message.position));
        }
    }

    /// A row that cannot be read.
    pub fn reject(&mut self, fault: &RowFault) {
        if self.refusal.is_some() {
            return;
        }
        self.metrics.received.inc();
        let Some(position) = self.next_position() else { return };
        self.items.push(Pending::DeadLetter(Box::new(DeadLetter {
            position,
            reason: "too-large",
            detail: fault.reason.clone(),
            table: fault.table.clone(),
            content: json!({ "txid": self.transaction.id, "size": fault.size }),
        })));
    }

    /// Ends the open transaction.
    pub fn commit(&mut self, progress: Progress) {
        if self.refusal.is_some() {
            return;
        }
        let closes_event = self.held.is_some();
        self.close(Some(progress.log));
        self.transaction.is_open = false;
        if !closes_event {
            self.progress(progress);
        }
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
        self.buffer.len() >= BATCH_BYTES || self.items.len() >= BATCH_ITEMS || self.refusal.is_some()
    }

    /// Takes the next index of the open transaction; `None` if the stream holds that event already.
    fn next_position(&mut self) -> Option<Position> {
        let position = Position {
            epoch: self.epoch,
            commit: self.transaction.commit,
            index: self.transaction.next_index,
        };
        self.transaction.next_index = self.transaction.next_index.saturating_add(1);
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

    /// Whether a row's images can be an event. They are written to find out, and taken back.
    fn can_be_written(&mut self, relation: &Relation, images: Images<'_, '_>) -> bool {
        let Some(table) = self.tables.get(&relation.id) else { return false };
        let end = self.buffer.len();
        let written = write_images(&table.relation, &table.names, images, &mut self.buffer);
        self.buffer.truncate(end);
        written.is_ok()
    }

    /// Closes the event that was held back.
    fn close(&mut self, transaction_end: Option<u64>) {
        let Some(held) = self.held.take() else { return };
        let last = transaction_end.is_some() && self.transaction.is_open;
        if self.look.style.form.is_structured() {
            self.buffer.extend_from_slice(if last { b",\"txlast\":true}" } else { b"}" });
        }
        self.items.push(Pending::Event { held, end: self.buffer.len(), transaction_end, last });
    }

    /// Spells the attributes that the transaction decides, if they are not spelled yet.
    fn spell_transaction(&mut self) {
        if self.transaction.spelled {
            return;
        }
        let mut out = std::mem::take(&mut self.transaction.attributes);
        out.clear();
        self.write_attributes(&[], &mut out);
        self.transaction.attributes = out;
        self.transaction.spelled = true;
    }

    /// Writes the attributes that the transaction decides, but for those that an event has of its `own`, and these.
    fn write_attributes(&self, own: &[(String, String)], out: &mut Vec<u8>) {
        let form = &self.look.style.form;
        let transaction = &self.transaction;
        out.extend_from_slice(form.close);
        form.attribute("time", time::rfc3339(transaction.committed_at).as_str(), out);
        form.attribute("recordedtime", time::rfc3339(time::now()).as_str(), out);
        let is_own = |name: &str| own.iter().any(|(known, _)| known == name);
        let inherited = transaction.context.iter().filter(|(name, _)| !is_own(name));
        let mut traced = false;
        for (name, value) in inherited.chain(own) {
            traced |= name == "traceparent";
            form.attribute(name, value, out);
        }
        if !traced {
            let first = Position { epoch: self.epoch, commit: transaction.commit, index: 0 };
            form.attribute(
                "traceparent",
                context::derived_traceparent(self.source_hash, first).as_str(),
                out,
            );
        }
        if transaction.is_open {
            form.attribute("txid", &transaction.id, out);
        }
    }

    /// Encodes one event of a table under the key in `self.key`, up to where its end would be written.
    fn encode(
        &mut self,
        relation: &Arc<Relation>,
        verb: Verb,
        images: Images<'_, '_>,
        rekeyed: Option<&'static [u8]>,
    ) {
        let Some(position) = self.next_position() else {
            // Where the stream ends within a transaction, those before it are counted as they were when they went there.
            if self.is_resumed() && self.can_be_written(relation, images) {
                self.transaction.events += 1;
            }
            return;
        };
        self.spell_transaction();
        // The event held back is ended only when this one could be written: else it may still be the transaction's last.
        let held_end = self.buffer.len();
        if self.held.is_some() && self.form().is_structured() {
            self.buffer.push(b'}');
        }
        let start = self.buffer.len();
        let style = &self.look.style;
        let Some(table) = self.tables.get_mut(&relation.id) else { return };
        let subject = table.subject(style, verb, &self.key, images.row());
        let spelling = table.spelling(verb);
        let out = &mut self.buffer;
        let text = position.text();
        out.extend_from_slice(style.form.open);
        out.extend_from_slice(&text);
        out.extend_from_slice(&spelling.head);
        style.form.key(&self.key.text, out);
        out.extend_from_slice(&self.transaction.attributes);
        out.extend_from_slice(&table.shape);
        style.form.key(&self.key.text, out);
        out.extend_from_slice(style.form.sequence);
        out.extend_from_slice(&text);
        if self.snapshot.is_none() {
            out.extend_from_slice(style.form.txindex);
            out.extend_from_slice(itoa::Buffer::new().format(self.transaction.events).as_bytes());
            out.extend_from_slice(style.form.number_end);
        } else {
            out.extend_from_slice(style.form.close);
        }
        let data_start = out.len();
        out.extend_from_slice(&spelling.data);
        out.extend_from_slice(&self.key.json);
        let written = write_images(&table.relation, &table.names, images, out);
        match written {
            Ok(()) => {
                if let Some(member) = rekeyed {
                    out.extend_from_slice(b",\"rekeyed\":");
                    out.extend_from_slice(member);
                    out.extend_from_slice(&self.other_key.json);
                    out.push(b'}');
                }
                out.push(b'}');
                self.transaction.events += 1;
                let data_end = out.len();
                // A row that was only read has no commit whose delay could be told.
                let committed_at = if self.snapshot.is_none() { self.transaction.committed_at } else { 0 };
                let places = self.places.clone();
                let event = Held { start, data_start, data_end, subject, position, committed_at, places };
                if let Some(held) = self.held.replace(event) {
                    self.items.push(Pending::Event { held, end: start, transaction_end: None, last: false });
                }
            }
            Err(error) => {
                out.truncate(held_end);
                self.bury(relation, position, verb, images, &error);
            }
        }
    }

    /// Keeps a row that cannot be an event among the dead letters.
    fn bury(
        &mut self,
        relation: &Relation,
        position: Position,
        verb: Verb,
        images: Images<'_, '_>,
        error: &Unwritable,
    ) {
        self.items.push(Pending::DeadLetter(Box::new(DeadLetter {
            position,
            reason: "unencodable",
            detail: error.to_string(),
            table: Some(format!("{}.{}", relation.schema, relation.table)),
            content: json!({
                "op": format!("{verb:?}").to_lowercase(),
                "txid": self.transaction.id,
                "before": images.before.map(|row| salvage(relation, row)),
                "after": images.after.map(|row| salvage(relation, row)),
            }),
        })));
    }

    /// Keeps what can be kept of a message whose name is too long for a subject.
    fn bury_message(&mut self, message: &Message<'_>, position: Position) {
        let start: String = message.prefix.chars().take(80).collect();
        self.items.push(Pending::DeadLetter(Box::new(DeadLetter {
            position,
            reason: "unencodable",
            detail: format!(
                "the prefix of a message has {} bytes, more than {}",
                message.prefix.len(),
                message::MAX_PREFIX
            ),
            table: None,
            content: json!({ "txid": self.transaction.id, "prefix": start, "size": message.content.len() }),
        })));
    }

    /// Sees to it that the relation's table is prepared; gives what the settings make of its rows. Sets the refusal where
    /// they cannot be kept to.
    fn prepare(&mut self, relation: &Arc<Relation>) -> Option<Arc<Shape>> {
        if let Some(table) = self.tables.get(&relation.id) {
            return table.settings.clone();
        }
        let shape = match self.look.shaping.prepare(relation, &self.look.style) {
            Ok(shape) => shape,
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
        let entity = entity(&self.look, relation);
        let told =
            shape.as_ref().and_then(|shape| shape.view.as_ref()).map_or(relation, |view| &view.relation);
        let mut table = Table::new(Arc::clone(told), entity, &self.look.style);
        table.settings.clone_from(&shape);
        self.versions.push(Version::new(self.source(), &table.entity, &table.dataschema, told));
        self.tables.insert(relation.id, table);
        shape
    }

    /// The versions of tables that were prepared since this was last asked.
    pub fn take_versions(&mut self) -> Vec<Version> {
        std::mem::take(&mut self.versions)
    }

    /// Encodes an event that is not a row's: a logical message, a gap.
    fn encode_plain(&mut self, entity: &str, verb: &str, position: Position, data: &[u8]) {
        self.close(None);
        self.spell_transaction();
        let style = &self.look.style;
        let partition = style.partition(entity, b"");
        let subject = style.template.fill(
            Names { source: &style.source, entity, verb, partition, key: "", schema: "", table: "" },
            None,
            &[],
        );
        let start = self.buffer.len();
        let out = &mut self.buffer;
        let text = position.text();
        out.extend_from_slice(style.form.open);
        out.extend_from_slice(&text);
        out.extend_from_slice(&style.head(entity, verb));
        out.extend_from_slice(&self.transaction.attributes);
        style.form.attribute("datacontenttype", "application/json", out);
        style.form.begin("partitionkey", entity, out);
        out.extend_from_slice(style.form.sequence);
        out.extend_from_slice(&text);
        if self.transaction.is_open {
            out.extend_from_slice(style.form.txindex);
            out.extend_from_slice(itoa::Buffer::new().format(self.transaction.events).as_bytes());
            out.extend_from_slice(style.form.number_end);
        } else {
            out.extend_from_slice(style.form.close);
        }
        let data_start = out.len();
        if style.form.is_structured() {
            out.extend_from_slice(b",\"data\":");
        }
        out.extend_from_slice(data);
        self.held = Some(Held {
            start,
            data_start,
            data_end: out.len(),
            subject: Subject::from(subject),
            position,
            committed_at: self.transaction.committed_at,
            places: self.places.clone(),
        });
    }
}

impl Pending {
    fn cut(self, bytes: &Bytes, structured: bool) -> Item {
        match self {
            Self::Event { held, end, transaction_end, last } => {
                let (head, from) = if structured {
                    (Bytes::new(), held.start)
                } else {
                    (bytes.slice(held.start..held.data_start), held.data_start)
                };
                let offset = |at: usize| u32::try_from(at - from).unwrap_or(u32::MAX);
                Item::Event(Event {
                    subject: held.subject,
                    head,
                    payload: bytes.slice(from..end),
                    data: (offset(held.data_start), offset(held.data_end)),
                    position: held.position,
                    transaction_end,
                    last_of_transaction: last,
                    committed_at: held.committed_at,
                    places: held.places,
                })
            }
            Self::DeadLetter(letter) => Item::DeadLetter(letter),
            Self::Mark(progress) => Item::Mark(progress),
        }
    }
}

/// The entity of a table, as a token.
fn entity(look: &Look, relation: &Relation) -> String {
    let qualified = format!("{}.{}", relation.schema, relation.table);
    let name = match look.entities.get(&qualified) {
        Some(name) => name.clone(),
        None if relation.schema == look.default_schema => relation.table.clone(),
        None => format!("{}-{}", relation.schema, relation.table),
    };
    encode::token(&name)
}
