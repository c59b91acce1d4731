//! The key-value bucket `SCHEMAS`: one key for each version, `{source}.{entity}.{hash}`, whose value is the document.
//!
//! A version is created once and never changed: whoever comes second, a replay or another gateway, finds it there. So a
//! `kill -9` at any moment leaves either the version or nothing, and no event without its version.

use super::{
    READS, Version, compare,
    shape::{ABOUT, Shape},
};
use crate::broker::is_stream_missing;
use async_nats::jetstream::{
    Context,
    kv::{Config, CreateErrorKind, Store},
    stream::StorageType,
};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use headgate_sdk::percent;
use serde_json::{Value, json};
use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

/// The bucket's name.
pub const BUCKET: &str = "SCHEMAS";

/// How long the registry may take before events go on without it.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a registry that failed is left alone.
const PAUSE: Duration = Duration::from_secs(30);

pub(super) type Failed = Box<dyn std::error::Error + Send + Sync>;

/// A version that the registry holds.
#[derive(Clone, Debug)]
pub struct Stored {
    /// The source's name.
    pub source: String,
    /// The entity, as a token.
    pub entity: String,
    /// What tells it from other versions.
    pub hash: String,
    /// Its number among the entity's versions, from 1, in the order in which they were first seen.
    pub number: u64,
    /// The schema.
    pub document: Value,
}

/// Writes one source's versions.
#[derive(Debug)]
pub struct Registry {
    context: Context,
    replicas: usize,
    memory: bool,
    store: Option<Store>,
    /// Versions that are known to be there.
    known: HashSet<String>,
    /// Versions that could not be written yet.
    waiting: Vec<Version>,
    again: Option<Instant>,
}

impl Registry {
    /// The registry of an account; the bucket is made with the first version, if it is missing.
    #[must_use]
    pub fn new(context: &Context, replicas: usize, memory: bool) -> Self {
        Self {
            context: context.clone(),
            replicas,
            memory,
            store: None,
            known: HashSet::new(),
            waiting: Vec::new(),
            again: None,
        }
    }

    /// Sees that versions are in the registry before the events that name them leave. A registry that cannot be written
    /// holds no events up: it is told of, and tried again half a minute later, with the events after.
    pub async fn register(&mut self, versions: Vec<Version>) {
        self.waiting.extend(versions);
        if self.waiting.is_empty() || self.again.is_some_and(|again| Instant::now() < again) {
            return;
        }
        self.again = None;
        let failed = match tokio::time::timeout(PATIENCE, self.write()).await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {PATIENCE:?}"),
        };
        self.again = Some(Instant::now() + PAUSE);
        tracing::warn!(
            versions = self.waiting.len(),
            "cannot write schemas to the bucket {BUCKET}, events name versions that nobody can look up yet: {failed}"
        );
    }

    async fn write(&mut self) -> Result<(), Failed> {
        let store = match &self.store {
            Some(store) => store.clone(),
            None => {
                self.store.insert(open_or_create(&self.context, self.replicas, self.memory).await?).clone()
            }
        };
        while let Some(version) = self.waiting.first() {
            let key = key(&version.source, &version.entity, &version.hash);
            if !self.known.contains(&key) {
                if store.entry(&key).await?.is_none() {
                    create(&store, &key, version).await?;
                }
                self.known.insert(key);
            }
            self.waiting.remove(0);
        }
        Ok(())
    }
}

async fn open_or_create(context: &Context, replicas: usize, memory: bool) -> Result<Store, Failed> {
    if let Ok(store) = context.get_key_value(BUCKET).await {
        return Ok(store);
    }
    let config = Config {
        bucket: BUCKET.to_owned(),
        description: "Headgate: versions of tables as JSON Schema".to_owned(),
        history: 1,
        num_replicas: replicas,
        storage: if memory { StorageType::Memory } else { StorageType::File },
        ..Config::default()
    };
    match context.create_key_value(config).await {
        Ok(store) => Ok(store),
        // Another source may have been quicker.
        Err(error) => context.get_key_value(BUCKET).await.map_err(|_| error.into()),
    }
}

/// Writes a version that is not there, numbered after those that are, and says what changed.
async fn create(store: &Store, key: &str, version: &Version) -> Result<(), Failed> {
    let before = read(store, Some((&version.source, &version.entity))).await?;
    let last = before.last();
    let mut document = version.document.clone();
    document[ABOUT]["version"] = json!(last.map_or(1, |last| last.number + 1));
    let shape = Shape::of_document(&document);
    let changes = last
        .map(|last| compare::differences(&Shape::of_document(&last.document), &shape))
        .unwrap_or_default();
    if let Some(last) = last {
        document[ABOUT]["follows"] = json!(last.number);
        document[ABOUT]["compatible"] = json!(compare::is_compatible(&changes));
        document[ABOUT]["changes"] = changes.iter().map(ToString::to_string).collect();
    }
    match store.create(key, serde_json::to_vec(&document)?.into()).await {
        Ok(_) => {}
        Err(error) if error.kind() == CreateErrorKind::AlreadyExists => return Ok(()),
        Err(error) => return Err(error.into()),
    }
    let (source, entity) = (&version.source, &version.entity);
    let told: Vec<String> = changes.iter().map(ToString::to_string).collect();
    // The first version changes nothing.
    let changes = (!told.is_empty()).then(|| told.join("; "));
    tracing::info!(source, entity, version = %document[ABOUT]["version"], changes, "a new version of a schema");
    Ok(())
}

/// Every version that the registry holds, by source, entity and number; `None` where there is no registry yet.
///
/// # Errors
/// The broker does not answer.
pub async fn stored(context: &Context) -> Result<Option<Vec<Stored>>, Failed> {
    match open(context, BUCKET).await? {
        Some(store) => read(&store, None).await.map(Some),
        None => Ok(None),
    }
}

/// A bucket, if there is one.
pub(super) async fn open(context: &Context, bucket: &str) -> Result<Option<Store>, Failed> {
    match context.get_key_value(bucket).await {
        Ok(store) => Ok(Some(store)),
        Err(error) => match context.get_stream(format!("KV_{bucket}")).await {
            Err(found) if is_stream_missing(found.kind()) => Ok(None),
            _ => Err(error.into()),
        },
    }
}

/// The keys that a filter means, those of what was removed too, as the bucket's leader has them.
pub(super) async fn keys(store: &Store, filter: &str) -> Result<Vec<String>, Failed> {
    let subjects = store.stream.info_with_subjects(format!("{}{filter}", store.prefix)).await?;
    let subjects: Vec<(String, usize)> = subjects.try_collect().await?;
    let key = |(subject, _): (String, usize)| subject.strip_prefix(&store.prefix).map(str::to_owned);
    Ok(subjects.into_iter().filter_map(key).collect())
}

/// The names of a source's events that are no table's and have versions: types of letters, and semantic events. None where
/// the registry does not answer, for it holds no events up.
pub async fn event_names(context: &Context, source: &str) -> HashSet<String> {
    let read = async {
        let Some(store) = open(context, BUCKET).await? else { return Ok(Vec::new()) };
        keys(&store, &format!("{source}.*.*")).await
    };
    let keys = match tokio::time::timeout(PATIENCE, read).await {
        Ok(Ok(keys)) => keys,
        Ok(Err(error)) => return unnamed(&error),
        Err(_) => return unnamed(&format!("no answer within {PATIENCE:?}").into()),
    };
    let name = |key: String| decoded(key.split('.').nth(1).filter(|name| is_event(name))?);
    keys.into_iter().filter_map(name).collect()
}

fn unnamed(error: &Failed) -> HashSet<String> {
    tracing::warn!("cannot read from the bucket {BUCKET} which types of events have versions: {error}");
    HashSet::new()
}

/// The versions of a source's tables, but for those of some entities.
pub(super) async fn tables_but_of(
    context: &Context,
    source: &str,
    entities: &HashSet<String>,
) -> Result<Vec<Stored>, Failed> {
    let Some(store) = open(context, BUCKET).await? else { return Ok(Vec::new()) };
    let left_out: HashSet<String> = entities.iter().map(|entity| key(source, entity, "")).collect();
    let wanted = keys(&store, &format!("{source}.*.*")).await?.into_iter().filter(|key| {
        let entity = key.rfind('.').and_then(|dot| key.get(..=dot)).unwrap_or_default();
        !is_event(entity) && !left_out.contains(entity)
    });
    look_up(&store, wanted).await
}

async fn read(store: &Store, of: Option<(&str, &str)>) -> Result<Vec<Stored>, Failed> {
    let filter = of.map_or_else(|| ">".to_owned(), |(source, entity)| key(source, entity, "*"));
    look_up(store, keys(store, &filter).await?.into_iter()).await
}

async fn look_up(store: &Store, keys: impl Iterator<Item = String>) -> Result<Vec<Stored>, Failed> {
    let read = async |key: String| Ok::<_, Failed>((store.get(&key).await?, key));
    let mut reads = stream::iter(keys).map(read).buffer_unordered(READS);
    let mut found = Vec::new();
    while let Some((value, key)) = reads.try_next().await? {
        let document = value.and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok());
        let Some(document) = document else { continue };
        let about = &document[ABOUT];
        let text = |name: &str| about[name].as_str().unwrap_or_default().to_owned();
        found.push(Stored {
            source: text("source"),
            entity: text("entity"),
            hash: key.rsplit('.').next().unwrap_or_default().to_owned(),
            number: about["version"].as_u64().unwrap_or(0),
            document,
        });
    }
    found.sort_by(|a, b| {
        (&a.source, &a.entity, a.number, &a.hash).cmp(&(&b.source, &b.entity, b.number, &b.hash))
    });
    Ok(found)
}

/// Versions by the URI that events name them by.
#[must_use]
pub fn by_uri(versions: &[Stored]) -> HashMap<&str, &Stored> {
    versions.iter().filter_map(|version| Some((version.document["$id"].as_str()?, version))).collect()
}

fn key(source: &str, entity: &str, hash: &str) -> String {
    format!("{source}.{}.{hash}", encoded(entity))
}

/// A part of a key may hold letters, digits and `-/_=`; whatever else stands in a name is `=` and two hexadecimal digits.
pub(super) fn encoded(name: &str) -> String {
    let mut part = String::with_capacity(name.len());
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => part.push(char::from(byte)),
            byte => part.push_str(&format!("={byte:02X}")),
        }
    }
    part
}

fn decoded(part: &str) -> Option<String> {
    percent::decode(&part.replace('=', "%"))
}

/// Whether a part of a key is the name of an event or of a type of letters: it has a dot, which no table's entity has.
fn is_event(part: &str) -> bool {
    part.contains("=2E")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_hold_any_entity_and_none_is_anothers_beginning() {
        assert_eq!(key("shop", "order lines%2E", "ab"), "shop.order=20lines=252E.ab");
        assert!(!key("shop", "orders2", "ab").starts_with(&key("shop", "orders", "")));
        for name in ["deal.won", "a=b%2E.é", "order%2Elines"] {
            assert_eq!(decoded(&encoded(name)).as_deref(), Some(name));
            assert_eq!(is_event(&encoded(name)), name.contains('.'), "{name}");
        }
    }
}
