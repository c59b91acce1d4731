//! The dead letters: what could not be published as an event, with the reason, in a stream of its own.
//!
//! Subjects are `events.dlq.{source}.{reason}.{partition}`, five tokens as everywhere. A dead letter is stored before any
//! later event of its source; stored twice at most if the gateway dies between the two (its id is the same, and the
//! broker's duplicate window catches all but long outages).

use super::{Identity, stream};
use crate::{config, event::DeadLetter, normalize::time};
use async_nats::jetstream::{
    Context,
    message::PublishMessage,
    stream::{Config, StorageType},
};
use headgate_sdk::{Fault, clock, fnv1a};
use serde::Serialize;
use serde_json::{Value, json};

/// The stream of all sources' dead letters.
pub(crate) const STREAM: &str = "EVENTS_dlq";

/// The settings that it is created with, whichever source is the first to need it.
fn settings(wanted: &config::Stream) -> Config {
    Config {
        name: STREAM.to_owned(),
        subjects: vec!["events.dlq.>".to_owned()],
        storage: if wanted.memory { StorageType::Memory } else { StorageType::File },
        num_replicas: wanted.replicas,
        allow_direct: true,
        description: Some("Headgate: what could not be published, with the reason".to_owned()),
        ..Config::default()
    }
}

/// A dead letter as it is published.
#[derive(Debug, Serialize)]
pub(crate) struct Letter<'a, T> {
    specversion: &'a str,
    id: &'a str,
    source: &'a str,
    #[serde(rename = "type")]
    kind: String,
    subject: &'a str,
    time: String,
    datacontenttype: &'a str,
    partitionkey: &'a str,
    sequence: &'a str,
    data: T,
}

/// Its data, where it comes from a log.
#[derive(Serialize)]
struct Unpublished<'a> {
    reason: &'a str,
    detail: &'a str,
    source: &'a str,
    table: Option<&'a str>,
    position: &'a str,
    content: &'a Value,
}

/// The dead letters of one source.
#[derive(Clone, Debug)]
pub(crate) struct DeadLetters {
    pub(crate) source: String,
    uri: String,
    partitions: u32,
    settings: Config,
}

impl DeadLetters {
    pub(crate) fn new(identity: Identity<'_>, wanted: &config::Stream) -> Self {
        let Identity { source, uri, partitions } = identity;
        Self { source: source.to_owned(), uri: uri.to_owned(), partitions, settings: settings(wanted) }
    }

    /// A letter with the id that it is also de-duplicated by.
    pub(crate) fn letter<'a, T>(
        &'a self,
        id: &'a str,
        reason: &str,
        sequence: &'a str,
        data: T,
    ) -> Letter<'a, T> {
        Letter {
            specversion: "1.0",
            id,
            source: &self.uri,
            kind: format!("headgate.dead_letter.{reason}"),
            subject: &self.source,
            time: time::rfc3339(clock::now()).as_str().to_owned(),
            datacontenttype: "application/json",
            partitionkey: &self.source,
            sequence,
            data,
        }
    }

    /// Stores a letter; returns when the broker has it.
    ///
    /// # Errors
    /// Transient: the broker does not take it.
    pub(crate) async fn store(
        &self,
        context: &Context,
        id: &str,
        reason: &str,
        payload: Vec<u8>,
    ) -> Result<(), Fault> {
        stream::open_or_create(context, self.settings.clone()).await?;
        let partition = fnv1a(&[self.source.as_bytes()]) % self.partitions;
        let subject = format!("events.dlq.{}.{reason}.{partition}", self.source);
        let message = PublishMessage::build()
            .payload(payload.into())
            .header("Content-Type", "application/cloudevents+json")
            .message_id(id);
        let unkept = |error| {
            Fault::transient(format!("cannot keep a dead letter in {STREAM}")).with_cause(error).with_fix(format!(
                "see that {STREAM} holds events.dlq.> and has room, and that the gateway's user may publish there"
            ))
        };
        let ack = context.send_publish(subject, message).await.map_err(unkept)?;
        ack.await.map_err(unkept)?;
        Ok(())
    }

    /// Stores what a log's event would have been; returns when the broker has it.
    pub(super) async fn keep(&self, context: &Context, letter: &DeadLetter) -> Result<(), Fault> {
        let position = letter.position.to_string();
        let id = format!("{}/{position}", self.source);
        let data = Unpublished {
            reason: letter.reason,
            detail: &letter.detail,
            source: &self.source,
            table: letter.table.as_deref(),
            position: &position,
            content: &letter.content,
        };
        let mut event = json!(self.letter(&id, letter.reason, &position, data));
        let mut payload = event.to_string();
        if payload.len() > room(context) {
            event["data"]["content"] = json!({ "omitted_bytes": letter.content.to_string().len() });
            payload = event.to_string();
        }
        self.store(context, &id, letter.reason, payload.into_bytes()).await?;
        tracing::warn!(
            source = self.source,
            table = letter.table,
            %position,
            "an event went to {STREAM}: {}: {}",
            letter.reason,
            letter.detail
        );
        Ok(())
    }
}

/// What the broker takes of a letter, in bytes, with its headers' room left.
pub(crate) fn room(context: &Context) -> usize {
    context.client().server_info().max_payload.saturating_sub(4096)
}
