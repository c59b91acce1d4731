//! The stream of a webhook source: like any source's, with a duplicate window instead of a fence.
//!
//! Deliveries may come to several gateways, so no gateway is the stream's only writer. What keeps a delivery from becoming
//! two events is the broker: it drops a message whose `Nats-Msg-Id` it has seen within the stream's duplicate window.

use crate::{
    broker::Version,
    config::Nats,
    publish::{
        settings::{self, Writers},
        stream::{is_no_message, open_or_create, unreadable},
        stream_name,
    },
};
use async_nats::jetstream::{
    Context,
    stream::{Config, Stream},
};
use headgate_sdk::{Fault, Finding};
use serde::Deserialize;
use std::time::Duration;

/// A stream that is fit to be published to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Opened {
    /// The sequence attribute of its last event, 0 where it has none.
    pub(super) last: u64,
    /// Whether it takes atomic batches.
    pub(super) batches: bool,
}

/// Opens the source's stream, makes it if it is missing.
///
/// # Errors
/// Transient where the broker does not answer; definite where an existing stream would lose events.
pub(super) async fn open(
    context: &Context,
    source: &str,
    nats: &Nats,
    window: Duration,
) -> Result<Opened, Fault> {
    let name = stream_name(source);
    let batches = Version::of(&context.client()).has_sound_batches();
    let stream = open_or_create(context, settings(source, nats, window, batches)).await?;
    let config = &stream.cached_info().config;
    settings::suffices(config, source, Writers::Several)?;
    if let Some(short) = short_window(config, source, window) {
        tracing::warn!(stream = name, fix = short.fix, "{}: {}", short.what, short.why);
    }
    let last = last_sequence(&stream).await?;
    Ok(Opened { last, batches: batches && stream.cached_info().config.allow_atomic_publish })
}

/// The sequence attribute of the stream's last event: the next one has to be higher, whatever the clock says now.
async fn last_sequence(stream: &Stream) -> Result<u64, Fault> {
    #[derive(Deserialize)]
    struct Attributes {
        #[serde(default)]
        sequence: String,
    }
    let state = &stream.cached_info().state;
    if state.messages == 0 {
        return Ok(0);
    }
    let message = match stream.get_raw_message(state.last_sequence).await {
        Ok(message) => message,
        // Somebody has removed that one message.
        Err(error) if is_no_message(&error) => return Ok(0),
        Err(error) => return Err(unreadable(&stream.cached_info().config.name, error)),
    };
    let text = match message.headers.get("ce-sequence") {
        Some(value) => value.as_str().to_owned(),
        None => serde_json::from_slice::<Attributes>(&message.payload)
            .map_or_else(|_| String::new(), |a| a.sequence),
    };
    Ok(u64::from_str_radix(&text, 16).unwrap_or(0))
}

/// The settings that a stream is created with.
fn settings(source: &str, nats: &Nats, window: Duration, batches: bool) -> Config {
    let max_age = nats.stream.max_age;
    Config {
        // For spools that are emptied.
        allow_atomic_publish: batches,
        // The broker refuses a window that is longer than messages are kept.
        duplicate_window: if max_age.is_zero() { window } else { window.min(max_age) },
        description: Some("Headgate: CloudEvents of a webhook source, once for each delivery".to_owned()),
        ..settings::settings(&stream_name(source), &format!("events.{source}.>"), nats)
    }
}

/// A duplicate window that is shorter than configured.
fn short_window(found: &Config, source: &str, window: Duration) -> Option<Finding> {
    let wanted = if found.max_age.is_zero() { window } else { window.min(found.max_age) };
    (found.duplicate_window < wanted).then(|| {
        Finding::warning(
            format!("stream {}", found.name),
            format!("its duplicate window is {:?}, dedup_window is {window:?}", found.duplicate_window),
            "a provider's later retry of the same delivery becomes a second event",
        )
        .with_fix(format!(
            "nats stream edit {} --dupe-window={}s",
            stream_name(source),
            wanted.as_secs()
        ))
    })
}

/// What `check` says about the stream.
pub(crate) async fn findings(context: &Context, source: &str, window: Duration) -> Vec<Finding> {
    let short = |found: &Config| short_window(found, source, window);
    settings::findings(context, source, Writers::Several, short).await
}
