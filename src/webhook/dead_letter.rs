//! Deliveries that the broker will never take: kept in `EVENTS_dlq` with the reason, as every source's dead letters are.

use super::message::Message;
use crate::{
    config::Nats,
    normalize::{encode, time},
};
use async_nats::jetstream::{
    Context,
    message::PublishMessage,
    stream::{Config, StorageType},
};
use headgate_sdk::Fault;
use serde_json::{json, value::RawValue};

const STREAM: &str = "EVENTS_dlq";

/// Keeps dead letters of one source.
#[derive(Clone, Debug)]
pub(super) struct DeadLetters {
    source: String,
    uri: String,
    partitions: u32,
    settings: Config,
}

impl DeadLetters {
    pub(super) fn new(source: &str, uri: &str, partitions: u32, nats: &Nats) -> Self {
        let settings = Config {
            name: STREAM.to_owned(),
            subjects: vec!["events.dlq.>".to_owned()],
            storage: if nats.stream.memory { StorageType::Memory } else { StorageType::File },
            num_replicas: nats.stream.replicas,
            allow_direct: true,
            description: Some("Headgate: what could not be published, with the reason".to_owned()),
            ..Config::default()
        };
        Self { source: source.to_owned(), uri: uri.to_owned(), partitions, settings }
    }

    /// Stores a message that was refused; returns when the broker has it.
    pub(super) async fn keep(&self, context: &Context, message: &Message, detail: &str) -> Result<(), Fault> {
        let unkept = |error: async_nats::Error| {
            Fault::transient(format!("cannot keep a dead letter in {STREAM}")).with_cause(error)
        };
        context.get_or_create_stream(self.settings.clone()).await.map_err(|error| unkept(error.into()))?;
        let limit = context.client().server_info().max_payload.saturating_sub(4096);
        let partition = encode::fnv1a(&[self.source.as_bytes()]) % self.partitions;
        let position = super::position(message.sequence).to_string();
        let id = format!("{}/{}", self.source, message.id);
        let content = std::str::from_utf8(&message.payload)
            .ok()
            .filter(|text| text.len() <= limit)
            .and_then(|text| serde_json::from_str::<&RawValue>(text).ok());
        let omitted = serde_json::value::to_raw_value(&json!({ "omitted_bytes": message.payload.len() }))
            .map_err(|error| unkept(error.into()))?;
        let event = json!({
            "specversion": "1.0",
            "id": id,
            "source": self.uri,
            "type": "headgate.dead_letter.refused",
            "subject": self.source,
            "time": time::rfc3339(time::now()).as_str(),
            "datacontenttype": "application/json",
            "partitionkey": self.source,
            "sequence": position,
            "data": {
                "reason": "refused",
                "detail": detail,
                "source": self.source,
                "table": null,
                "position": position,
                "delivery": message.id,
                "subject": message.subject,
                "content": content.unwrap_or(&omitted),
            },
        });
        let publish = PublishMessage::build()
            .payload(event.to_string().into())
            .header("Content-Type", "application/cloudevents+json")
            .message_id(id);
        let subject = format!("events.dlq.{}.refused.{partition}", self.source);
        let ack = context.send_publish(subject, publish).await.map_err(|error| unkept(error.into()))?;
        ack.await.map_err(|error| unkept(error.into()))?;
        tracing::warn!(
            source = self.source,
            delivery = message.id,
            "a delivery went to {STREAM}: the broker refused it: {detail}"
        );
        Ok(())
    }
}
