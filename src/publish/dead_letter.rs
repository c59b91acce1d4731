//! The dead letters: what could not be published as an event, with the reason, in a stream of its own.
//!
//! Subjects are `events.dlq.{source}.{reason}.{partition}`, five tokens as everywhere. A dead letter is stored before any
//! later event of its source; stored twice at most if the gateway dies between the two (its id is the same, and the
//! broker's duplicate window catches all but long outages).

use super::stream;
use crate::{config, event::DeadLetter, normalize::time};
use async_nats::jetstream::{
    Context,
    message::PublishMessage,
    stream::{Config, StorageType},
};
use headgate_sdk::{Fault, clock, fnv1a};
use serde_json::json;

/// The stream of all sources' dead letters.
pub(crate) const STREAM: &str = "EVENTS_dlq";

/// The settings that it is created with, whichever source is the first to need it.
pub(crate) fn settings(wanted: &config::Stream) -> Config {
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

/// Publishes dead letters of one source.
#[derive(Clone, Debug)]
pub(super) struct DeadLetters {
    context: Context,
    source: String,
    uri: String,
    partitions: u32,
    settings: Config,
}

impl DeadLetters {
    pub(super) fn new(
        context: Context,
        source: &str,
        uri: &str,
        partitions: u32,
        wanted: &config::Stream,
    ) -> Self {
        let settings = settings(wanted);
        Self { context, source: source.to_owned(), uri: uri.to_owned(), partitions, settings }
    }

    /// Stores a dead letter; returns when the broker has it.
    pub(super) async fn keep(&self, letter: &DeadLetter) -> Result<(), Fault> {
        stream::open_or_create(&self.context, self.settings.clone()).await?;
        let id = format!("{}/{}", self.source, letter.position);
        let partition = fnv1a(&[self.source.as_bytes()]) % self.partitions;
        let limit = self.context.client().server_info().max_payload.saturating_sub(4096);
        let mut event = json!({
            "specversion": "1.0",
            "id": id,
            "source": self.uri,
            "type": format!("headgate.dead_letter.{}", letter.reason),
            "subject": self.source,
            "time": time::rfc3339(clock::now()).as_str(),
            "datacontenttype": "application/json",
            "partitionkey": self.source,
            "sequence": letter.position.to_string(),
            "data": {
                "reason": letter.reason,
                "detail": letter.detail,
                "source": self.source,
                "table": letter.table,
                "position": letter.position.to_string(),
                "content": letter.content,
            },
        });
        let mut payload = event.to_string();
        if payload.len() > limit {
            event["data"]["content"] = json!({ "omitted_bytes": letter.content.to_string().len() });
            payload = event.to_string();
        }
        let subject = format!("events.dlq.{}.{}.{partition}", self.source, letter.reason);
        let message = PublishMessage::build()
            .payload(payload.into())
            .header("Content-Type", "application/cloudevents+json")
            .message_id(id);
        let unkept = |error| {
            Fault::transient(format!("cannot keep a dead letter in {STREAM}")).with_cause(error).with_fix(format!(
                "see that {STREAM} holds events.dlq.> and has room, and that the gateway's user may publish there"
            ))
        };
        let ack = self.context.send_publish(subject, message).await.map_err(unkept)?;
        ack.await.map_err(unkept)?;
        tracing::warn!(
            source = self.source,
            table = letter.table,
            position = %letter.position,
            "an event went to {STREAM}: {}: {}",
            letter.reason,
            letter.detail
        );
        Ok(())
    }
}
