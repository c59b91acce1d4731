//! Deliveries that the broker will never take: kept in `EVENTS_dlq` with the reason, as every source's dead letters are.

use super::message::Message;
use crate::publish::dead_letter::{DeadLetters, STREAM, room};
use async_nats::jetstream::{Context, consumer::pull::OrderedConfig, message::PublishMessage};
use futures_util::StreamExt as _;
use headgate_sdk::Fault;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::{borrow::Cow, time::Duration};

/// Why a delivery is there.
const REASON: &str = "refused";

/// A dead letter's data: what was refused, so that it can be published again.
#[derive(Serialize, Deserialize)]
struct Refused<'a> {
    reason: &'a str,
    #[serde(borrow)]
    detail: Cow<'a, str>,
    source: Cow<'a, str>,
    table: Option<&'a str>,
    position: Cow<'a, str>,
    delivery: Cow<'a, str>,
    subject: Cow<'a, str>,
    head: Cow<'a, str>,
    #[serde(borrow)]
    content: Option<&'a RawValue>,
    omitted_bytes: Option<usize>,
}

/// What became of a source's dead letters.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct Replayed {
    /// Published now.
    pub(crate) published: usize,
    /// The stream had them.
    pub(crate) known: usize,
    /// Too large for the dead letters too, so that only their description was kept.
    pub(crate) without_content: usize,
}

/// Publishes a source's dead letters again, or the one of a delivery. They stay where they are.
///
/// # Errors
/// The broker does not answer, or refuses one again; those before it are published.
pub(crate) async fn replay(
    context: &Context,
    source: &str,
    delivery: Option<&str>,
) -> Result<Replayed, Fault> {
    #[derive(Deserialize)]
    struct Kept<'a> {
        #[serde(borrow)]
        data: Refused<'a>,
    }
    let failed = |what: &str, error: async_nats::Error| Fault::transient(what.to_owned()).with_cause(error);
    let unreadable = |error: async_nats::Error| failed("cannot read the dead letters", error);
    let mut replayed = Replayed::default();
    let Ok(stream) = context.get_stream(STREAM).await else { return Ok(replayed) };
    let consumer = OrderedConfig {
        filter_subject: format!("events.dlq.{source}.{REASON}.>"),
        ..OrderedConfig::default()
    };
    let mut consumer = stream.create_consumer(consumer).await.map_err(|error| unreadable(error.into()))?;
    let mut left = consumer.info().await.map_err(|error| unreadable(error.into()))?.num_pending;
    let mut letters = consumer.messages().await.map_err(|error| unreadable(error.into()))?;
    while left > 0 {
        let next = tokio::time::timeout(Duration::from_secs(5), letters.next()).await;
        let Ok(Some(letter)) = next else {
            return Err(Fault::transient("the dead letters stopped coming"));
        };
        let letter = letter.map_err(|error| unreadable(error.into()))?;
        left -= 1;
        let Ok(Kept { data }) = serde_json::from_slice::<Kept<'_>>(&letter.payload) else { continue };
        if delivery.is_some_and(|wanted| wanted != data.delivery) {
            continue;
        }
        let Some(content) = data.content else {
            replayed.without_content += 1;
            continue;
        };
        let message = Message {
            id: data.delivery.into_owned(),
            sequence: 0,
            subject: data.subject.into_owned(),
            head: data.head.into_owned().into(),
            payload: content.get().to_owned().into(),
            data: (0, 0),
        };
        let publish = PublishMessage::build().payload(message.payload.clone()).headers(message.headers());
        let refused = |error: async_nats::Error| {
            Fault::transient(format!("the dead letter of delivery {} was not published", message.id))
                .with_cause(error)
                .with_fix(
                    "mend what keeps it out (EVENTS_dlq says the reason), or replay others by --delivery",
                )
        };
        let ack = context.send_publish(message.subject.clone(), publish).await;
        let ack = ack.map_err(|error| refused(error.into()))?.await.map_err(|error| refused(error.into()))?;
        if ack.duplicate {
            replayed.known += 1;
        } else {
            replayed.published += 1;
        }
    }
    Ok(replayed)
}

/// Stores a message that was refused; returns when the broker has it.
///
/// # Errors
/// Transient: the broker does not take it.
pub(super) async fn keep(
    letters: &DeadLetters,
    context: &Context,
    message: &Message,
    detail: &str,
) -> Result<(), Fault> {
    let source = letters.source.as_str();
    let position = super::position(message.sequence).to_string();
    let id = format!("{source}/{}", message.id);
    let content = std::str::from_utf8(&message.payload)
        .ok()
        .filter(|text| text.len() <= room(context))
        .and_then(|text| serde_json::from_str::<&RawValue>(text).ok());
    let data = Refused {
        reason: REASON,
        detail: detail.into(),
        source: source.into(),
        table: None,
        position: position.as_str().into(),
        delivery: message.id.as_str().into(),
        subject: message.subject.as_str().into(),
        head: String::from_utf8_lossy(&message.head),
        omitted_bytes: content.is_none().then_some(message.payload.len()),
        content,
    };
    let payload = serde_json::to_vec(&letters.letter(&id, REASON, &position, data)).map_err(|error| {
        Fault::transient(format!("cannot keep a dead letter in {STREAM}")).with_cause(error)
    })?;
    letters.store(context, &id, REASON, payload).await?;
    tracing::warn!(
        source,
        delivery = message.id,
        "a delivery went to {STREAM}: the broker refused it: {detail}"
    );
    Ok(())
}
