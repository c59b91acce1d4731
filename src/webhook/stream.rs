//! The stream of a webhook source: like any source's, with a duplicate window instead of a fence.
//!
//! Deliveries may come to several gateways, so no gateway is the stream's only writer. What keeps a delivery from becoming
//! two events is the broker: it drops a message whose `Nats-Msg-Id` it has seen within the stream's duplicate window.

use crate::{
    broker::{Version, is_stream_missing},
    config::Nats,
    publish::stream_name,
};
use async_nats::jetstream::{
    Context,
    stream::{Config, DiscardPolicy, RetentionPolicy, StorageType, Stream},
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
    let unreadable =
        |error: async_nats::Error| Fault::transient(format!("cannot read stream {name}")).with_cause(error);
    let stream = match context.get_stream(&name).await {
        Ok(stream) => stream,
        Err(error) if is_stream_missing(error.kind()) => match context.create_stream(settings(source, nats, window, batches)).await {
            Ok(stream) => {
                tracing::info!(stream = name, "stream created");
                stream
            }
            // Another gateway may have been quicker.
            Err(error) => context.get_stream(&name).await.map_err(|_| {
                Fault::transient(format!("cannot create stream {name}"))
                    .with_cause(error)
                    .with_fix("see that JetStream is enabled for this account, with room for the stream, and allows this dedup_window")
            })?,
        },
        Err(error) => return Err(unreadable(error.into())),
    };
    let config = &stream.cached_info().config;
    if let Some(flaw) = flaws(config, source).into_iter().next() {
        return Err(Fault::definite(format!("stream {name} is unfit: {}", flaw.what))
            .with_fix(flaw.fix.unwrap_or_default()));
    }
    if let Some(short) = short_window(config, source, window) {
        tracing::warn!(stream = name, fix = short.fix, "{}: {}", short.what, short.why);
    }
    let last = last_sequence(&stream).await.map_err(unreadable)?;
    Ok(Opened { last, batches: batches && stream.cached_info().config.allow_atomic_publish })
}

/// The sequence attribute of the stream's last event: the next one has to be higher, whatever the clock says now.
async fn last_sequence(stream: &Stream) -> Result<u64, async_nats::Error> {
    #[derive(Deserialize)]
    struct Attributes {
        #[serde(default)]
        sequence: String,
    }
    let state = &stream.cached_info().state;
    if state.messages == 0 {
        return Ok(0);
    }
    let Ok(message) = stream.get_raw_message(state.last_sequence).await else { return Ok(0) };
    let text = match message.headers.get("ce-sequence") {
        Some(value) => value.as_str().to_owned(),
        None => serde_json::from_slice::<Attributes>(&message.payload)
            .map_or_else(|_| String::new(), |a| a.sequence),
    };
    Ok(u64::from_str_radix(&text, 16).unwrap_or(0))
}

/// The settings that a stream is created with.
fn settings(source: &str, nats: &Nats, window: Duration, batches: bool) -> Config {
    let wanted = &nats.stream;
    Config {
        name: stream_name(source),
        subjects: vec![format!("events.{source}.>")],
        retention: RetentionPolicy::Limits,
        discard: DiscardPolicy::Old,
        storage: if wanted.memory { StorageType::Memory } else { StorageType::File },
        num_replicas: wanted.replicas,
        max_age: wanted.max_age,
        max_bytes: wanted.max_bytes.map_or(-1, |bytes| i64::try_from(bytes).unwrap_or(i64::MAX)),
        allow_direct: true,
        // For spools that are emptied.
        allow_atomic_publish: batches,
        // The broker refuses a window that is longer than messages are kept.
        duplicate_window: if wanted.max_age.is_zero() { window } else { window.min(wanted.max_age) },
        description: Some("Headgate: CloudEvents of a webhook source, once for each delivery".to_owned()),
        ..Config::default()
    }
}

/// Settings of an existing stream that would lose events.
fn flaws(found: &Config, source: &str) -> Vec<Finding> {
    let name = &found.name;
    let wildcard = format!("events.{source}.>");
    let again = format!("delete {name} and let Headgate create it");
    let flaw = |what: &str, why: &str, fix: String| {
        Finding::error(format!("stream {name}"), what, why).with_fix(fix)
    };
    let mut flaws = Vec::new();
    if !found.subjects.contains(&wildcard) {
        let fix = format!("nats stream edit {name} --subjects '{wildcard}'");
        flaws.push(flaw(
            &format!("it does not hold {wildcard}"),
            "events would be published to nowhere",
            fix,
        ));
    }
    if found.no_ack {
        let fix = format!("nats stream edit {name} --ack");
        flaws.push(flaw("no_ack is on", "no delivery could be answered", fix));
    }
    if found.retention != RetentionPolicy::Limits {
        let why = "an event would go when one consumer has read it";
        flaws.push(flaw("its retention is not `limits`", why, again.clone()));
    }
    if found.max_messages_per_subject > 0 {
        let fix = format!("nats stream edit {name} --max-msgs-per-subject=-1");
        flaws.push(flaw("max_msgs_per_subject is set", "older events of a subject would be lost", fix));
    }
    if found.mirror.is_some() || found.sealed {
        flaws.push(flaw("it is a mirror or sealed", "nothing can be published to it", again));
    }
    flaws
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

/// What `check` says about the stream: that it is missing and will be made, or what is unfit in it.
pub(crate) async fn findings(context: &Context, source: &str, window: Duration) -> Vec<Finding> {
    let name = stream_name(source);
    let subject = format!("stream {name}");
    let stream = match context.get_stream(&name).await {
        Ok(stream) => stream,
        Err(error) if is_stream_missing(error.kind()) => {
            return vec![Finding::good(subject, "not there yet; `headgate run` creates it")];
        }
        Err(error) => {
            let what = format!("cannot be read: {error}");
            return vec![Finding::error(subject, what, "deliveries would fill the spool")];
        }
    };
    let info = stream.cached_info();
    let mut findings = flaws(&info.config, source);
    findings.extend(short_window(&info.config, source, window));
    if findings.is_empty() {
        let what = format!("{} events, {} bytes", info.state.messages, info.state.bytes);
        findings.push(Finding::good(subject, what));
    }
    findings
}
