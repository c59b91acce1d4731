//! Which version of a table's shape its events had since when, and which version waits to be accepted: one key for each
//! table in the key-value bucket `headgate`, `shape.{source}.{schema.table}`.
//!
//! * **Order**: an entry is written before the first event of its version leaves, and says that event's position. So an
//!   entry counts only where the stream came as far as it says: whoever begins anew sees the shape that the stream's last
//!   event of the table had, and decides as the run before it did.
//! * **Durability**: as the checkpoint's. What cannot be written ends the run.
//! * **Fencing**: each write names the revision that it replaces, and is refused where another run has written since this one
//!   began. A run writes only when it holds the claim on the stream.
//! * **Recovery**: what the stream proves and the entries do not say, as after a power cut, is taken from the stream
//!   ([`Evidence`]), and written with the run's first entry.
//! * **Truth**: keys are read from the bucket's leader. The general client's own reading may be answered by a replica that
//!   is behind.

use super::{
    Evidence, READS, Shape,
    evidence::Proven,
    registry::{Failed, encoded, keys, open},
};
use crate::broker::bucket::{self, BUCKET, Entry};
use async_nats::jetstream::{Context, kv::Store, stream::LastRawMessageError};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use headgate_sdk::{Fault, Position, TableFilter};
use serde::{Deserialize, Serialize};
use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};
use tokio::time::{sleep, timeout};

/// How long the broker may take for all keys, for one, and for each part of what the stream proves.
const PATIENCE: Duration = Duration::from_secs(30);
/// Entries that the stream has passed and that are kept all the same: a stream may lose its tail.
const PASSED: usize = 4;
/// How often a key is written anew that somebody else writes too.
const ATTEMPTS: u32 = 5;
/// How long to wait before that.
const AGAIN: Duration = Duration::from_millis(20);

/// What a run begins with.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// The shape of each table as of the stream's last event, by `schema.table`.
    pub shapes: HashMap<String, Shape>,
    /// The version that somebody accepted, likewise, by its hash.
    pub accepted: HashMap<String, String>,
    /// The types of letters that have versions.
    pub letters: HashSet<String>,
}

/// What a run finds out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// `schema.table`
    pub table: String,
    /// Its shape.
    pub shape: Shape,
    /// What became of it.
    pub turn: Turn,
}

/// What became of a version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Its events begin at this position.
    Told(Position),
    /// It has to be accepted first; what changed, for people.
    Waits(Vec<String>),
}

/// What the key of a table holds.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Record {
    table: String,
    seen: Vec<Seen>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    waiting: Option<Waiting>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    accepted: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Seen {
    since: String,
    #[serde(flatten)]
    shape: Shape,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Waiting {
    hash: String,
    changes: Vec<String>,
}

impl Record {
    /// The shape that the table's events had up to a position, and since when.
    fn at(&self, position: Position) -> Option<Proven> {
        let since = |seen: &Seen| seen.since.parse::<Position>().ok();
        let before = self.seen.iter().filter_map(|seen| Some((since(seen)?, &seen.shape)));
        let before = before.filter(|(since, _)| *since <= position);
        let (since, shape) = before.max_by_key(|(since, _)| *since)?;
        Some(Proven { since, shape: shape.clone() })
    }

    fn see(&mut self, since: Position, shape: &Shape) {
        let since = since.to_string();
        self.seen.retain(|seen| seen.since != since);
        self.seen.push(Seen { since, shape: shape.clone() });
        self.seen.sort_by(|a, b| a.since.cmp(&b.since));
    }

    fn note(&mut self, note: &Note, durable: Option<Position>) {
        match &note.turn {
            Turn::Told(since) => {
                self.see(*since, &note.shape);
                let passed = durable.map(|durable| durable.to_string()).unwrap_or_default();
                let behind = self.seen.iter().filter(|seen| seen.since <= passed).count();
                self.seen.drain(..behind.saturating_sub(PASSED));
                self.waiting = None;
                // It stays accepted until another one comes and the stream has kept it: it may have to be told again.
                let is_open = |accepted: &String| {
                    let is_ahead = |seen: &Seen| seen.since > passed && seen.shape.hash("") == *accepted;
                    *accepted == note.shape.hash("") || self.seen.iter().any(is_ahead)
                };
                self.accepted.take_if(|accepted| !is_open(accepted));
            }
            Turn::Waits(changes) => {
                self.waiting = Some(Waiting { hash: note.shape.hash(""), changes: changes.clone() });
            }
        }
    }
}

/// The shapes of one source's tables.
#[derive(Debug)]
pub struct History {
    store: Store,
    source: String,
    /// Where the stream ended when the run began.
    begun: Position,
    /// What each table's key said when it was read or written last.
    seen: HashMap<String, Vec<Seen>>,
    /// Tables that something was written of since.
    noted: HashSet<String>,
    /// What the stream proves beyond that.
    recovered: Vec<(String, Proven)>,
}

impl History {
    /// Reads what is known of a source's tables where its stream ends at `end`.
    ///
    /// # Errors
    /// Transient: the broker does not answer.
    pub async fn open(
        context: &Context,
        source: &str,
        end: Option<Position>,
        evidence: Evidence<'_>,
    ) -> Result<(Self, Known), Fault> {
        let failed =
            |error: Failed| Fault::transient("cannot read which shapes the tables had").with_cause(error);
        let read = within(async {
            let store = open(context, BUCKET).await?;
            let store = store.ok_or_else(|| format!("there is no bucket {BUCKET}"))?;
            let records = records(&store, source).await?;
            Ok((store, records))
        });
        let (store, records) = read.await.map_err(failed)?;
        let mut known = Known::default();
        let mut proven: HashMap<String, Proven> = HashMap::new();
        let mut seen = HashMap::new();
        for (_, record) in records {
            if let Some(shape) = end.and_then(|end| record.at(end)) {
                proven.insert(record.table.clone(), shape);
            }
            if let Some(hash) = record.accepted {
                known.accepted.insert(record.table.clone(), hash);
            }
            seen.insert(record.table, record.seen);
        }
        let recovered = match end {
            Some(end) => recover(context, evidence, end, &proven).await.map_err(failed)?,
            None => Vec::new(),
        };
        for (table, shape) in &recovered {
            tracing::warn!(
                source,
                table,
                "the bucket {BUCKET} is behind the stream: the shape of a table is taken from the stream"
            );
            proven.insert(table.clone(), shape.clone());
        }
        known.shapes = proven.into_iter().map(|(table, proven)| (table, proven.shape)).collect();
        let (begun, noted) = (end.unwrap_or_default(), HashSet::new());
        Ok((Self { store, source: source.to_owned(), begun, seen, noted, recovered }, known))
    }

    /// Whether the entries lack something that the stream proves.
    #[must_use]
    pub fn is_behind(&self) -> bool {
        !self.recovered.is_empty()
    }

    /// Keeps what was found out. `durable` is how far the stream is known to be kept. To be called by the run that holds the
    /// claim on the stream alone.
    ///
    /// # Errors
    /// Transient: it could not be written, or another run has written it.
    pub async fn keep(&mut self, notes: &[Note], durable: Option<Position>) -> Result<(), Fault> {
        for (table, Proven { since, shape }) in std::mem::take(&mut self.recovered) {
            self.write(&table, |record| record.see(since, &shape)).await?;
        }
        for note in notes {
            self.write(&note.table, |record| record.note(note, durable)).await?;
        }
        Ok(())
    }

    async fn write(&mut self, table: &str, mut entry: impl FnMut(&mut Record)) -> Result<(), Fault> {
        let first = self.noted.insert(table.to_owned());
        let begun = self.begun.to_string();
        let expected = self.seen.get(table).map(Vec::as_slice).unwrap_or_default();
        let key = key(&self.source, table);
        let written = within(change(&self.store, &key, |record| {
            if record.seen != expected {
                return Err("another run has written it since this one began, looking again".into());
            }
            table.clone_into(&mut record.table);
            if first {
                // What was noted beyond where the stream ended never became an event.
                record.seen.retain(|seen| seen.since <= begun);
            }
            entry(record);
            Ok(())
        }));
        let record = written.await.map_err(|error| {
            Fault::transient(format!("cannot keep the shape of {table}")).with_cause(error)
        })?;
        self.seen.insert(table.to_owned(), record.seen);
        Ok(())
    }
}

/// What a stream that ends at `end` proves of the shapes of tables, where that is more than what is `known`.
async fn recover(
    context: &Context,
    evidence: Evidence<'_>,
    end: Position,
    known: &HashMap<String, Proven>,
) -> Result<Vec<(String, Proven)>, Failed> {
    let changes = within(async { Ok(evidence.changes().await?) }).await?;
    let names: HashSet<&str> = known.keys().chain(changes.keys()).map(String::as_str).collect();
    let others = match within(evidence.versions(context, &names)).await {
        Ok(versions) => within(async { Ok(evidence.named(versions).await?) }).await?,
        Err(error) => {
            // The registry holds no events up.
            tracing::warn!("cannot compare the shapes of tables with the registry of schemas: {error}");
            HashMap::new()
        }
    };
    let is_news = |(table, proven): &(String, Proven)| {
        proven.since <= end && known.get(table).is_none_or(|known| known.since < proven.since)
    };
    Ok(changes.into_iter().chain(others).filter(is_news).collect())
}

/// Accepts what waits of a source: every table's new version, or that of the tables that a glob on `schema.table` means.
/// Gives the tables, and what changed.
///
/// # Errors
/// The broker does not answer.
pub async fn accept(
    context: &Context,
    source: &str,
    tables: Option<&str>,
) -> Result<Vec<(String, Vec<String>)>, Failed> {
    let Some(store) = open(context, BUCKET).await? else { return Ok(Vec::new()) };
    let meant = tables.map(|glob| TableFilter::new(&[glob]));
    let mut accepted = Vec::new();
    for (key, record) in records(&store, source).await? {
        let Some(waiting) = record.waiting else { continue };
        if meant.as_ref().is_some_and(|meant| !meant.matches_name(&record.table)) {
            continue;
        }
        change(&store, &key, |record| {
            record.accepted = Some(waiting.hash.clone());
            record.waiting = None;
            Ok(())
        })
        .await?;
        accepted.push((record.table, waiting.changes));
    }
    Ok(accepted)
}

/// Forgets the shapes of a source's tables; the versions stay, for the events that name them.
///
/// # Errors
/// The broker does not answer.
pub async fn forget(context: &Context, source: &str) -> Result<(), Failed> {
    let Some(store) = open(context, BUCKET).await? else { return Ok(()) };
    for key in keys(&store, &format!("shape.{source}.*")).await? {
        store.purge(&key).await?;
    }
    Ok(())
}

async fn within<T>(work: impl Future<Output = Result<T, Failed>>) -> Result<T, Failed> {
    timeout(PATIENCE, work).await.unwrap_or_else(|_| Err(format!("no answer within {PATIENCE:?}").into()))
}

/// Reads a key, changes what it holds, and writes it over what was read; gives what it holds then.
async fn change(
    store: &Store,
    key: &str,
    mut change: impl FnMut(&mut Record) -> Result<(), Failed>,
) -> Result<Record, Failed> {
    let mut attempt = 0;
    loop {
        attempt += 1;
        let Entry { revision, value } = latest(store, key).await?;
        // What is not a record is written over: it can only be an older release's, or nobody's.
        let mut record: Record =
            value.and_then(|value| serde_json::from_slice(&value).ok()).unwrap_or_default();
        change(&mut record)?;
        match store.update(key, serde_json::to_vec(&record)?.into(), revision).await {
            Ok(_) => return Ok(record),
            Err(error) if attempt >= ATTEMPTS => return Err(error.into()),
            Err(_) => sleep(AGAIN).await,
        }
    }
}

async fn records(store: &Store, source: &str) -> Result<Vec<(String, Record)>, Failed> {
    let read = async |key: String| Ok::<_, Failed>((latest(store, &key).await?.value, key));
    let mut reads =
        stream::iter(keys(store, &format!("shape.{source}.*")).await?).map(read).buffer_unordered(READS);
    let mut found = Vec::new();
    while let Some((value, key)) = reads.try_next().await? {
        if let Some(record) = value.and_then(|value| serde_json::from_slice(&value).ok()) {
            found.push((key, record));
        }
    }
    Ok(found)
}

/// What a key holds, as the bucket's leader has it.
async fn latest(store: &Store, key: &str) -> Result<Entry, LastRawMessageError> {
    bucket::read(&store.stream, &format!("{}{key}", store.prefix)).await
}

fn key(source: &str, table: &str) -> String {
    format!("shape.{source}.{}", encoded(table))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::ShapeColumn;

    fn at(commit: u64) -> Position {
        Position { epoch: 1, commit, index: 0 }
    }

    fn note(commit: u64) -> Note {
        let column = ShapeColumn { name: format!("c{commit}"), r#type: "text".to_owned(), nullable: None };
        let shape = Shape { columns: vec![column], key: Vec::new() };
        Note { table: "public.t".to_owned(), shape, turn: Turn::Told(at(commit)) }
    }

    #[test]
    fn an_entry_counts_where_the_stream_came_as_far() {
        let mut record = Record::default();
        for commit in [10, 30, 20] {
            record.note(&note(commit), None);
        }
        assert_eq!(record.at(at(9)), None);
        for (end, expected) in [(10, 10), (19, 10), (20, 20), (29, 20), (30, 30), (u64::MAX, 30)] {
            let shape = record.at(at(end)).map(|proven| proven.shape);
            assert_eq!(shape, Some(note(expected).shape), "{end}");
        }
        record.note(&note(20), None);
        assert_eq!(record.seen.len(), 3, "the same again on a replay");
    }

    #[test]
    fn what_the_stream_has_not_reached_is_never_forgotten() {
        let mut record = Record::default();
        for commit in 1..=20 {
            record.note(&note(commit), Some(at(10)));
        }
        let kept: Vec<String> = record.seen.iter().map(|seen| seen.since.clone()).collect();
        assert_eq!(kept, (7..=20).map(|commit| at(commit).to_string()).collect::<Vec<_>>());
    }

    #[test]
    fn what_was_accepted_is_so_until_the_stream_has_it() {
        let mut record = Record { accepted: Some(note(10).shape.hash("")), ..Record::default() };
        record.note(&note(10), Some(at(9)));
        record.note(&note(11), Some(at(9)));
        assert!(record.accepted.is_some(), "a run that begins after 9 tells it again");
        record.note(&note(12), Some(at(10)));
        assert_eq!(record.accepted, None);
    }

    #[test]
    fn a_version_that_is_told_waits_no_more() {
        let mut record = Record::default();
        let waits = Note { turn: Turn::Waits(vec!["- a".to_owned()]), ..note(1) };
        record.note(&waits, None);
        assert!(record.waiting.is_some() && record.seen.is_empty());
        record.note(&note(1), None);
        assert!(record.waiting.is_none());
    }
}
