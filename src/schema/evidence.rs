//! What the stream itself says of the shapes that its tables had. The [`History`](super::History) is a file of its own to the
//! broker: after a power cut it may be behind the stream, or gone.
//!
//! * **A change of shape** is in the stream with the whole new shape. So each table's newest `schema` event says what its
//!   history has to say at least.
//! * **A first shape** has no such event. Of a table that nothing else is known of, its last event names the version, and the
//!   registry has it.
//! * **Truth**: everything is read from the stream's leader. An event at an odd index was not told by the gateway on its own
//!   account, whatever it says: an application may write such a message.
//! * **Limits**: what has aged out of the stream proves nothing; nor does a stream whose subjects have no verb.

use super::{
    Shape,
    registry::{self, Failed},
};
use crate::{
    normalize::Look,
    publish::{POSITION_HEADER, SourceStream},
};
use async_nats::jetstream::{Context, message::StreamMessage};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use headgate_sdk::{Fault, Position, percent};
use serde::Deserialize;
use serde_json::Value;
use std::collections::{HashMap, HashSet};

/// Subjects that are read at the same time.
const READS: usize = 32;
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

    /// The shapes of tables that the registry knows and that are none of those `known`, by `schema.table`.
    pub(super) async fn others(
        self,
        context: &Context,
        known: &HashSet<&str>,
    ) -> Result<HashMap<String, Proven>, Failed> {
        let style = &self.look.style;
        let entities: HashSet<String> = known
            .iter()
            .filter_map(|table| table.split_once('.'))
            .map(|(schema, table)| self.look.entity(schema, table))
            .collect();
        let mut found = HashMap::new();
        let mut seen = HashMap::new();
        for version in registry::versions_but_of(context, &style.source, &entities).await? {
            let text = |pointer: &str| version.document.pointer(pointer).and_then(Value::as_str);
            let (Some(schema), Some(table)) =
                (text("/properties/schema/const"), text("/properties/table/const"))
            else {
                continue;
            };
            let name = format!("{schema}.{table}");
            if known.contains(name.as_str()) {
                continue;
            }
            // Semantic events have versions with the data of rows too: no row's event names them.
            if !seen.contains_key(&version.entity) {
                seen.insert(version.entity.clone(), self.last_version(&version.entity).await?);
            }
            let Some(Some((since, uri))) = seen.get(&version.entity) else { continue };
            if version.document["$id"] == uri.as_str() {
                let shape = Shape::of_document(&version.document);
                found.insert(name, Proven { since: *since, shape });
            }
        }
        Ok(found)
    }

    /// The version that the last event of an entity's rows names, and that event's position.
    async fn last_version(self, entity: &str) -> Result<Option<(Position, String)>, Fault> {
        let style = &self.look.style;
        let mut encoded = Vec::new();
        percent::encode(entity.as_bytes(), &mut encoded);
        let versions = format!("urn:headgate:schema:{}:{}:", style.source, String::from_utf8_lossy(&encoded));
        let mut last: Option<(Position, String)> = None;
        for verb in VERBS {
            let Some(filter) = style.template.filter(&style.source, Some(entity), verb) else { break };
            let Some(message) = self.stream.last_on(&filter).await? else { continue };
            let Some(since) = position(&message) else { continue };
            let Some(uri) = dataschema(&message).filter(|uri| uri.starts_with(&versions)) else { continue };
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

fn dataschema(message: &StreamMessage) -> Option<String> {
    #[derive(Deserialize)]
    struct Attributes {
        dataschema: Option<String>,
    }
    match message.headers.get("ce-dataschema") {
        Some(uri) => Some(uri.as_str().to_owned()),
        None => serde_json::from_slice::<Attributes>(&message.payload).ok()?.dataschema,
    }
}
