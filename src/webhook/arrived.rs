//! What a source's stream holds since some time, for those who look for what is missing in it.
//!
//! # Memory
//! One message at a time.

use crate::{normalize::time, publish::stream_name};
use async_nats::jetstream::{
    Context, Message,
    consumer::{DeliverPolicy, pull::OrderedConfig},
};
use futures_util::StreamExt as _;
use headgate_sdk::Fault;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::time::Duration;

/// How long the broker may be silent while there is more.
const SILENCE: Duration = Duration::from_secs(10);

/// Hands over the data of each event that was published since (microseconds since 1970-01-01 UTC), oldest first. An event whose data
/// is in the object store has none here.
///
/// # Errors
/// The broker does not answer, or what `take` says.
pub(crate) async fn arrived<E: From<Fault>>(
    context: &Context,
    source: &str,
    since: i64,
    mut take: impl FnMut(&[u8]) -> Result<(), E>,
) -> Result<(), E> {
    let name = stream_name(source);
    let unreadable = |error: async_nats::Error| {
        E::from(Fault::transient(format!("cannot read what is in {name}")).with_cause(error))
    };
    let stream = match context.get_stream(&name).await {
        Ok(stream) => stream,
        Err(error) if super::stream::is_missing(error.kind()) => return Ok(()),
        Err(error) => return Err(unreadable(error.into())),
    };
    // The policy takes a time of a crate that is not ours; its wire form is plain text.
    let wire = serde_json::json!({
        "deliver_policy": "by_start_time", "opt_start_time": time::rfc3339(since.max(0)).as_str(),
    });
    let deliver_policy = serde_json::from_value(wire).unwrap_or(DeliverPolicy::All);
    let config = OrderedConfig { deliver_policy, ..OrderedConfig::default() };
    let mut consumer = stream.create_consumer(config).await.map_err(|error| unreadable(error.into()))?;
    let mut left = consumer.info().await.map_err(|error| unreadable(error.into()))?.num_pending;
    let mut messages = consumer.messages().await.map_err(|error| unreadable(error.into()))?;
    while left > 0 {
        let Ok(Some(message)) = tokio::time::timeout(SILENCE, messages.next()).await else {
            return Err(E::from(Fault::transient(format!("the events of {name} stopped coming"))));
        };
        let message = message.map_err(|error| unreadable(error.into()))?;
        left -= 1;
        if let Some(data) = data(&message) {
            take(data)?;
        }
    }
    Ok(())
}

/// An event's data, whichever mode it was published in.
fn data(message: &Message) -> Option<&[u8]> {
    #[derive(Deserialize)]
    struct Event<'a> {
        #[serde(borrow)]
        data: Option<&'a RawValue>,
    }
    let binary = message.headers.as_ref().is_some_and(|headers| headers.get("ce-id").is_some());
    if binary {
        return Some(&message.payload);
    }
    let event: Event<'_> = serde_json::from_slice(&message.payload).ok()?;
    event.data.map(|data| data.get().as_bytes())
}
