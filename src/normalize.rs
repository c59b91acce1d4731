//! Turns what a connector tells into encoded CloudEvents, in batches for the publisher.
//!
//! * **Order**: events leave in the order they were told, numbered within their transaction. One event of a transaction
//!   is always held back, because only the commit tells that it was the last.
//! * **Duplicates**: an event at or before the stream's last one is dropped before it is encoded; the same transaction
//!   always gives the same positions.
//! * **Memory**: a batch leaves when it is large or when the connector would wait; it waits for its share of the
//!   source's memory, which the publisher gives back when the broker has acknowledged it.
//! * **Cost**: JSON is written once, from the wire's bytes into the batch's buffer; what does not change from row to row
//!   is spelled once for each table and transaction.

pub mod context;
pub mod encode;
pub mod form;
mod key;
pub mod subject;
mod table;
pub mod time;

use crate::{
    config::OnGap,
    event::{Batch, DeadLetter, Event, Item},
    publish::{CheckpointStore, Durable, StoredCheckpoint},
    telemetry::metrics::SourceMetrics,
};
use async_nats::Subject;
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use bytes::Bytes;
use form::Form;
use headgate_sdk::{
    Cell, Change, Fault, Gap, Message, Op, Origin, Outlet, Position, Progress, Relation, RowFault, Transaction,
    Unwritable,
};
use key::Key;
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};
use subject::{Names, Template};
pub use table::Style;
use table::{Table, Verb};
use tokio::sync::{Semaphore, mpsc, watch};

/// A batch leaves when it has this many bytes…
const BATCH_BYTES: usize = 256 << 10;
/// … or this many items.
const BATCH_ITEMS: usize = 1024;
/// What an item costs beside its bytes.
const ITEM_BYTES: usize = 160;
/// Tables prepared at one time; beyond that (endless DDL) all are prepared anew.
const MAX_TABLES: usize = 4096;

/// What a normalizer needs beside its input.
#[derive(Debug)]
pub struct Setting {
    /// How events look.
    pub style: Style,
    /// Entity names by `schema.table`.
    pub entities: BTreeMap<String, String>,
    /// The schema whose tables are known by their name alone.
    pub default_schema: String,
    /// What to do where history is gone.
    pub on_gap: OnGap,
    /// Bytes that may be on their way to the broker.
    pub memory: usize,
}

/// The attributes of the open transaction.
#[derive(Debug, Default)]
struct OpenTransaction {
    commit: u64,
    committed_at: i64,
    id: String,
    next_index: u32,
    /// Spelled from the end of `subject`'s key to the last attribute that the transaction decides.
    attributes: Vec<u8>,
    /// Whether `attributes` has been spelled: it is not, for a transaction that is dropped whole.
    spelled: bool,
    context: Vec<(String, String)>,
    /// Commit position and index up to which the stream holds the transaction.
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
}

/// The gateway's outlet.
#[derive(Debug)]
pub struct Normalizer {
    setting: Setting,
    metrics: SourceMetrics,
    batches: mpsc::Sender<Batch>,
    room: Arc<Semaphore>,
    durable: watch::Receiver<Durable>,
    checkpoints: CheckpointStore,
    epoch: u16,
    /// The last event that the stream held when the run began.
    resume: Option<Position>,
    transaction: OpenTransaction,
    tables: HashMap<u64, Table>,
    buffer: Vec<u8>,
    items: Vec<Pending>,
    held: Option<Held>,
    key: Key,
    other_key: Key,
    source_hash: u64,
}

/// An item whose bytes are still in the buffer.
#[derive(Debug)]
enum Pending {
    Event { held: Held, end: usize, transaction_end: Option<u64>, last: bool },
    DeadLetter(Box<DeadLetter>),
    Mark(Progress),
}

impl Normalizer {
    /// An outlet that hands its batches to `batches` and drops events up to `resume`.
    pub fn new(
        setting: Setting,
        metrics: SourceMetrics,
        batches: mpsc::Sender<Batch>,
        durable: watch::Receiver<Durable>,
        checkpoints: CheckpointStore,
        resume: Option<Position>,
    ) -> Self {
        let room = Arc::new(Semaphore::new(setting.memory.max(BATCH_BYTES)));
        let source = setting.style.source.as_bytes();
        let source_hash = u64::from(encode::fnv1a(&[source])) << 32 | u64::from(encode::fnv1a(&[source, &[0]]));
        Self {
            setting,
            metrics,
            batches,
            room,
            durable,
            checkpoints,
            epoch: resume.map_or(0, |position| position.epoch),
            resume,
            transaction: OpenTransaction::default(),
            tables: HashMap::new(),
            buffer: Vec::with_capacity(BATCH_BYTES + (BATCH_BYTES >> 2)),
            items: Vec::with_capacity(BATCH_ITEMS),
            held: None,
            key: Key::default(),
            other_key: Key::default(),
            source_hash,
        }
    }

    fn form(&self) -> &Form {
        &self.setting.style.form
    }

    /// Takes the next index of the open transaction; `None` if the stream holds that event already.
    fn next_position(&mut self) -> Option<Position> {
        let position =
            Position { epoch: self.epoch, commit: self.transaction.commit, index: self.transaction.next_index };
        self.transaction.next_index += 1;
        if self.resume.is_some_and(|resume| position <= resume) {
            self.metrics.deduplicated.inc();
            return None;
        }
        Some(position)
    }

    /// Closes the event that was held back.
    fn close(&mut self, transaction_end: Option<u64>) {
        let Some(held) = self.held.take() else { return };
        let last = transaction_end.is_some() && self.transaction.is_open;
        if self.setting.style.form.is_structured() {
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
        let form = &self.setting.style.form;
        let transaction = &self.transaction;
        let mut text = Vec::with_capacity(32);
        out.extend_from_slice(form.close);
        time::write_rfc3339(transaction.committed_at, &mut text);
        form.attribute("time", &String::from_utf8_lossy(&text), &mut out);
        text.clear();
        time::write_rfc3339(time::now(), &mut text);
        form.attribute("recordedtime", &String::from_utf8_lossy(&text), &mut out);
        for (name, value) in &transaction.context {
            form.attribute(name, value, &mut out);
        }
        if !transaction.context.iter().any(|(name, _)| name == "traceparent") {
            let first = Position { epoch: self.epoch, commit: transaction.commit, index: 0 };
            form.attribute("traceparent", &context::derived_traceparent(self.source_hash, first), &mut out);
        }
        if transaction.is_open {
            form.attribute("txid", &transaction.id, &mut out);
        }
        self.transaction.attributes = out;
        self.transaction.spelled = true;
    }

    /// Encodes one event of a table under the key in `self.key`, up to where its end would be written.
    fn encode(
        &mut self,
        relation: &Arc<Relation>,
        verb: Verb,
        images: Images<'_, '_>,
        rekeyed: Option<&'static [u8]>,
    ) {
        let Some(position) = self.next_position() else { return };
        self.spell_transaction();
        // The event held back is ended only when this one could be written: else it may still be the transaction's last.
        let held_end = self.buffer.len();
        if self.held.is_some() && self.form().is_structured() {
            self.buffer.push(b'}');
        }
        let start = self.buffer.len();
        let style = &self.setting.style;
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
        out.extend_from_slice(style.form.txindex);
        out.extend_from_slice(itoa::Buffer::new().format(position.index).as_bytes());
        out.extend_from_slice(style.form.number_end);
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
                let data_end = out.len();
                let committed_at = self.transaction.committed_at;
                let event = Held { start, data_start, data_end, subject, position, committed_at };
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
    fn bury(&mut self, relation: &Relation, position: Position, verb: Verb, images: Images<'_, '_>, error: &Unwritable) {
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

    /// Sees to it that the relation's table is prepared.
    fn prepare(&mut self, relation: &Arc<Relation>) {
        if self.tables.contains_key(&relation.id) {
            return;
        }
        if self.tables.len() >= MAX_TABLES {
            self.tables.clear();
        }
        // An older version of the same table is never told again.
        self.tables.retain(|_, table| table.relation.schema != relation.schema || table.relation.table != relation.table);
        let entity = entity(&self.setting, relation);
        self.tables.insert(relation.id, Table::new(Arc::clone(relation), entity, &self.setting.style));
    }

    /// Encodes an event that is not a row's: a logical message, a gap.
    fn encode_plain(&mut self, entity: &str, verb: &str, position: Position, data: &Value) {
        self.close(None);
        self.spell_transaction();
        let style = &self.setting.style;
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
            out.extend_from_slice(itoa::Buffer::new().format(position.index).as_bytes());
            out.extend_from_slice(style.form.number_end);
        } else {
            out.extend_from_slice(style.form.close);
        }
        let data_start = out.len();
        if style.form.is_structured() {
            out.extend_from_slice(b",\"data\":");
        }
        out.extend_from_slice(data.to_string().as_bytes());
        self.held = Some(Held {
            start,
            data_start,
            data_end: out.len(),
            subject: Subject::from(subject),
            position,
            committed_at: self.transaction.committed_at,
        });
    }

    /// Hands on everything that is complete.
    async fn hand_on(&mut self) -> Result<(), Fault> {
        if self.items.is_empty() {
            return Ok(());
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
        let items = self.items.drain(..).map(|item| item.cut(&bytes, structured)).collect();
        // A batch larger than all the memory there is goes alone.
        let share = u32::try_from(size.min(self.setting.memory.max(BATCH_BYTES))).unwrap_or(u32::MAX);
        let permit = Arc::clone(&self.room).acquire_many_owned(share).await.ok();
        self.batches
            .send(Batch { items, permit })
            .await
            .map_err(|_| Fault::transient("the publisher has stopped"))
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
                })
            }
            Self::DeadLetter(letter) => Item::DeadLetter(letter),
            Self::Mark(progress) => Item::Mark(progress),
        }
    }
}

/// The row images of an event.
#[derive(Clone, Copy)]
struct Images<'i, 'a> {
    before: Option<&'i [Cell<'a>]>,
    after: Option<&'i [Cell<'a>]>,
}

impl<'i, 'a> Images<'i, 'a> {
    /// The image that says most about the row.
    fn row(&self) -> &'i [Cell<'a>] {
        self.after.or(self.before).unwrap_or_default()
    }
}

/// Appends `,"before":…,"after":…,"changed":[…],"unavailable":[…]`.
fn write_images(
    relation: &Relation,
    names: &[Vec<u8>],
    images: Images<'_, '_>,
    out: &mut Vec<u8>,
) -> Result<(), Unwritable> {
    out.extend_from_slice(b",\"before\":");
    write_row(relation, names, images.before, out)?;
    out.extend_from_slice(b",\"after\":");
    write_row(relation, names, images.after, out)?;
    if let Images { before: Some(before), after: Some(after) } = images
        && !before.contains(&Cell::Unavailable)
    {
        let differs = |index: &usize| before.get(*index) != after.get(*index) && after.get(*index) != Some(&Cell::Unavailable);
        out.extend_from_slice(b",\"changed\":");
        write_names(names, (0..names.len()).filter(differs), out);
    }
    out.extend_from_slice(b",\"unavailable\":");
    let row = images.after.unwrap_or_default();
    write_names(names, (0..names.len()).filter(|index| row.get(*index) == Some(&Cell::Unavailable)), out);
    Ok(())
}

fn write_row(
    relation: &Relation,
    names: &[Vec<u8>],
    row: Option<&[Cell<'_>]>,
    out: &mut Vec<u8>,
) -> Result<(), Unwritable> {
    let Some(row) = row else {
        out.extend_from_slice(b"null");
        return Ok(());
    };
    let mut separator = b'{';
    for ((column, name), cell) in relation.columns.iter().zip(names).zip(row) {
        let raw = match cell {
            Cell::Unavailable => continue,
            Cell::Null => None,
            Cell::Value(raw) => Some(raw),
        };
        out.push(separator);
        separator = b',';
        out.extend_from_slice(name);
        match raw {
            None => out.extend_from_slice(b"null"),
            Some(raw) => column.writer.write(raw, out)?,
        }
    }
    if separator == b'{' {
        out.push(b'{');
    }
    out.push(b'}');
    Ok(())
}

/// Appends a JSON array of column names; `names` hold them as `"name":`.
fn write_names(names: &[Vec<u8>], indexes: impl Iterator<Item = usize>, out: &mut Vec<u8>) {
    out.push(b'[');
    for (nth, index) in indexes.enumerate() {
        if nth > 0 {
            out.push(b',');
        }
        let name = &names[index];
        out.extend_from_slice(&name[..name.len() - 1]);
    }
    out.push(b']');
}

/// What can be kept of a row that cannot be encoded: each value as it should be, else its bytes in base64.
fn salvage(relation: &Relation, row: &[Cell<'_>]) -> Value {
    let cells = relation.columns.iter().zip(row).filter_map(|(column, cell)| {
        let value = match cell {
            Cell::Unavailable => return None,
            Cell::Null => Value::Null,
            Cell::Value(raw) => {
                let mut out = Vec::new();
                let written = column.writer.write(raw, &mut out).ok().and_then(|()| serde_json::from_slice(&out).ok());
                written.unwrap_or_else(|| json!({ "base64": BASE64.encode(raw) }))
            }
        };
        Some((column.name.clone(), value))
    });
    Value::Object(cells.collect())
}

/// The entity of a table, as a token.
fn entity(setting: &Setting, relation: &Relation) -> String {
    let qualified = format!("{}.{}", relation.schema, relation.table);
    let name = match setting.entities.get(&qualified) {
        Some(name) => name.clone(),
        None if relation.schema == setting.default_schema => relation.table.clone(),
        None => format!("{}-{}", relation.schema, relation.table),
    };
    encode::token(&name)
}

/// The content of a logical message: JSON where it is JSON, text where it is text.
fn message_content(content: &[u8]) -> (&'static str, Value) {
    if let Ok(value) = serde_json::from_slice(content) {
        return ("content", value);
    }
    match std::str::from_utf8(content) {
        Ok(text) => ("content", Value::String(text.to_owned())),
        Err(_) => ("content_base64", Value::String(BASE64.encode(content))),
    }
}

impl Outlet for Normalizer {
    async fn open(&mut self, origin: Origin) -> Result<(), Fault> {
        self.epoch = origin.epoch;
        self.checkpoints.bind(origin).await
    }

    async fn gap(&mut self, origin: Origin, gap: Gap) -> Result<(), Fault> {
        self.epoch = origin.epoch;
        let now = time::now();
        self.transaction =
            OpenTransaction { commit: gap.to.log, committed_at: now, ..OpenTransaction::default() };
        let position = Position { epoch: origin.epoch, commit: gap.to.log, index: 0 };
        let data = json!({
            "op": "gap",
            "reason": gap.reason,
            "from": gap.from.map(|from| json!({ "epoch": from.epoch, "log": format!("{:016x}", from.log) })),
            "to": { "epoch": gap.to.epoch, "log": format!("{:016x}", gap.to.log) },
            "bytes": gap.from.filter(|from| from.log <= gap.to.log).map(|from| gap.to.log - from.log),
        });
        self.encode_plain("headgate", "gap", position, &data);
        self.close(Some(gap.to.log));
        self.hand_on().await?;
        self.durable
            .wait_for(|durable| durable.position.is_some_and(|at| at >= position))
            .await
            .map_err(|_| Fault::transient("the publisher has stopped"))?;
        let stop = self.setting.on_gap == OnGap::Stop;
        self.checkpoints
            .store(StoredCheckpoint {
                epoch: origin.epoch,
                identity: origin.identity,
                progress: gap.to,
                gap: stop.then(|| gap.reason.clone()),
            })
            .await?;
        if stop { Err(gap_fault(&self.setting.style.source, &gap.reason)) } else { Ok(()) }
    }

    fn begin(&mut self, transaction: &Transaction) {
        let open = &mut self.transaction;
        open.commit = transaction.commit;
        open.committed_at = transaction.committed_at;
        open.id.clone_from(&transaction.id);
        open.next_index = 0;
        open.spelled = false;
        open.context.clear();
        open.is_open = true;
    }

    fn change(&mut self, change: &Change<'_>) {
        self.metrics.received.inc();
        self.prepare(change.relation);
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
            self.encode(relation, Verb::Deleted, Images { before: change.before, after: None }, Some(b"{\"to\":"));
            std::mem::swap(&mut self.key, &mut self.other_key);
            self.encode(relation, Verb::Created, Images { before: None, after: change.after }, Some(b"{\"from\":"));
        } else {
            self.encode(relation, verb, images, None);
        }
    }

    fn message(&mut self, message: &Message<'_>) {
        if message.transactional && message.prefix == context::PREFIX {
            match context::parse(message.content) {
                Ok(attributes) => {
                    self.transaction.context = attributes;
                    self.transaction.spelled = false;
                }
                Err(error) => tracing::warn!(
                    source = self.setting.style.source,
                    transaction = self.transaction.id,
                    "a {} message sets nothing: {error}",
                    context::PREFIX
                ),
            }
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
        if let Some(position) = self.next_position() {
            let (member, content) = message_content(message.content);
            let data = json!({
                "op": "message",
                "prefix": message.prefix,
                "transactional": message.transactional,
                member: content,
            });
            self.encode_plain(&encode::token(message.prefix), "message", position, &data);
        }
        if !message.transactional {
            self.close(Some(message.position));
        }
    }

    fn reject(&mut self, fault: &RowFault) {
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

    fn commit(&mut self, progress: Progress) {
        let closes_event = self.held.is_some();
        self.close(Some(progress.log));
        self.transaction.is_open = false;
        if !closes_event {
            self.progress(progress);
        }
    }

    fn progress(&mut self, progress: Progress) {
        match self.items.last_mut() {
            Some(Pending::Mark(mark)) => *mark = progress,
            _ => self.items.push(Pending::Mark(progress)),
        }
    }

    fn is_full(&self) -> bool {
        self.buffer.len() >= BATCH_BYTES || self.items.len() >= BATCH_ITEMS
    }

    async fn flush(&mut self) -> Result<(), Fault> {
        self.hand_on().await
    }
}

/// The fault of a source that waits for somebody to accept a gap.
pub fn gap_fault(source: &str, reason: &str) -> Fault {
    Fault::gap(format!("history is gone: {reason}")).with_fix(format!(
        "the gap event in EVENTS_{source} says how much; when the consumers know, run `headgate source accept-gap {source}`"
    ))
}
