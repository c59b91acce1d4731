//! What the stream itself says of the shapes that its tables had. The [`History`](super::History) is a file of its own to the
//! broker: after a power cut it may be behind the stream, or gone.
//!
//! * **A change of shape** is in the stream with the whole new shape. So each table's newest `schema` event says what its
//!   history has to say at least.
//! * **A first shape** has no such event. Of a table that nothing else is known of, its last event names the version, and the
//!   registry has it.
//! * **Truth**: everything is read from the stream's leader. An event at an odd index was not told by the gateway on its own
//!   account, whatever it says: an application may write such a message. None has a verb of the gateway's own, so none
//!   hides a `schema` event, which is the last one on its subject.
//! * **Limits**: what has aged out of the stream proves nothing; nor does a stream whose subjects have no token for the verb. Where
//!   letters of an outbox have the entity and the verbs of a table that never changed, they may hide that table's last event.

use super::{
    READS, Shape, Stored,
    registry::{self, Failed},
    uri,
};
use crate::{
    normalize::Look,
    publish::{POSITION_HEADER, SourceStream},
};
use async_nats::{
    HeaderMap,
    jetstream::{Context, message::StreamMessage},
};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use headgate_sdk::{Fault, Position, percent};
use serde::Deserialize;
use serde_json::Value;
use std::collections::{HashMap, HashSet};

/// The verbs of a table's events that name its version.
const VERBS: [&str; 5] = ["created", "updated", "deleted", "truncated", "snapshot"];

/// A shape, and an event that had it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Proven {
    /// The event's position.
    pub since: Position,
    /// The shape that the table had then.
    pub shape: Shape,
}

/// One source's stream, as a witness.
#[derive(Clone, Copy, Debug)]
pub struct Evidence<'a> {
    /// The stream.
    pub stream: &'a SourceStream,
    /// What its subjects and entities are called.
    pub look: &'a Look,
}

/// The data of a schema event, as far as it matters here.
#[derive(Deserialize)]
struct Told {
    op: String,
    schema: String,
    table: String,
    shape: Shape,
}

impl Evidence<'_> {
    /// The newest change of shape of each table, by `schema.table`.
    pub(super) async fn changes(self) -> Result<HashMap<String, Proven>, Fault> {
        let style = &self.look.style;
        let Some(filter) = style.template.filter(&style.source, None, "schema") else {
            return Ok(HashMap::new());
        };
        let subjects = self.stream.subjects(&filter).await?;
        let read = async |subject: String| self.stream.last_on(&subject).await;
        let mut messages = stream::iter(subjects).map(read).buffer_unordered(READS);
        let mut changes: HashMap<String, Proven> = HashMap::new();
        while let Some(message) = messages.try_next().await? {
            let Some((table, proven)) = message.as_ref().and_then(told) else { continue };
            if changes.get(&table).is_none_or(|known| known.since < proven.since) {
                changes.insert(table, proven);
            }
        }
        Ok(changes)
    }

    /// The versions that the registry has of tables that are none of those `known`, each with its `schema.table`.
    ///
    /// # Errors
    /// The registry does not answer.
    pub(super) async fn versions(
        self,
        context: &Context,
        known: &HashSet<&str>,
    ) -> Result<Vec<(String, Stored)>, Failed> {
        let entities: HashSet<String> = known
            .iter()
            .filter_map(|table| table.split_once('.'))
            .map(|(schema, table)| self.look.entity(schema, table))
            .collect();
        let versions = registry::tables_but_of(context, &self.look.style.source, &entities).await?;
        let named = versions.into_iter().filter_map(|version| {
            let text = |pointer: &str| version.document.pointer(pointer).and_then(Value::as_str);
            let name = format!("{}.{}", text("/properties/schema/const")?, text("/properties/table/const")?);
            (!known.contains(name.as_str())).then_some((name, version))
        });
        Ok(named.collect())
    }

    /// Those of them that the last events of their tables name.
    pub(super) async fn named(
        self,
        versions: Vec<(String, Stored)>,
    ) -> Result<HashMap<String, Proven>, Fault> {
        let read = async |entity: String| Ok::<_, Fault>((self.last_version(&entity).await?, entity));
        let entities: HashSet<String> = versions.iter().map(|(_, version)| version.entity.clone()).collect();
        let mut reads = stream::iter(entities).map(read).buffer_unordered(READS);
        let mut last = HashMap::new();
        while let Some((version, entity)) = reads.try_next().await? {
            last.extend(version.map(|version| (entity, version)));
        }
        let proven = versions.into_iter().filter_map(|(table, version)| {
            let (since, uri) = last.get(&version.entity)?;
            let shape = Shape::of_document(&version.document);
            (version.document["$id"] == uri.as_str()).then_some((table, Proven { since: *since, shape }))
        });
        Ok(proven.collect())
    }

    /// The version that the last event of an entity's rows names, and that event's position.
    async fn last_version(self, entity: &str) -> Result<Option<(Position, String)>, Fault> {
        let style = &self.look.style;
        let versions = uri(&style.source, entity, "");
        let mut last: Option<(Position, String)> = None;
        for verb in VERBS {
            let Some(filter) = style.template.filter(&style.source, Some(entity), verb) else { break };
            let Some(message) = self.stream.last_on(&filter).await? else { continue };
            let Some(since) = position(&message) else { continue };
            let Some(uri) = dataschema(&message.headers, &message.payload) else { continue };
            if !uri.starts_with(&versions) {
                continue;
            }
            if last.as_ref().is_none_or(|(known, _)| *known < since) {
                last = Some((since, uri));
            }
        }
        Ok(last)
    }
}

/// The change of shape that a message tells of.
fn told(message: &StreamMessage) -> Option<(String, Proven)> {
    let since = position(message).filter(|position| position.index % 2 == 0)?;
    let mut payload: Value = serde_json::from_slice(&message.payload).ok()?;
    let data = match payload.get_mut("data") {
        // In binary mode the payload is the data, which has no member of that name.
        Some(data) => data.take(),
        None => payload,
    };
    let Told { op, schema, table, shape } = serde_json::from_value(data).ok()?;
    (op == "schema").then(|| (format!("{schema}.{table}"), Proven { since, shape }))
}

fn position(message: &StreamMessage) -> Option<Position> {
    message.headers.get(POSITION_HEADER)?.as_str().split(' ').next()?.parse().ok()
}

fn dataschema(headers: &HeaderMap, payload: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Attributes {
        dataschema: Option<String>,
    }
    match headers.get("ce-dataschema") {
        Some(uri) => percent::decode(uri.as_str()),
        None => serde_json::from_slice::<Attributes>(payload).ok()?.dataschema,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::Mode, normalize::form::Form};

    #[test]
    fn both_modes_name_the_same_version() {
        let version = uri("shop", "order%20lines", "ab");
        let mut line = Vec::new();
        Form::new(Mode::Binary).attribute("dataschema", &version, &mut line);
        let line = String::from_utf8_lossy(&line);
        let (name, value) = line.trim_end().split_once(": ").unwrap_or_default();
        let mut headers = HeaderMap::new();
        headers.insert(name, value);
        assert_eq!(dataschema(&headers, b"{}").as_deref(), Some(version.as_str()));
        let payload = format!(r#"{{"dataschema":"{version}"}}"#);
        assert_eq!(dataschema(&HeaderMap::new(), payload.as_bytes()), Some(version));
    }
}
