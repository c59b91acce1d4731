//! What of a source's stream shows to have arrived, for providers whose API does not tell under which id they delivered.
//!
//! # Duplicates
//! The stream has to be read whole from where the search began, or what arrived could be taken for missing. So a stream that does
//! not reach back so far, one that stops coming, and deliveries that still wait in the gateway's spool end the run.
//!
//! # Memory
//! One message at a time; what is looked for is bounded by what a run may find.

use crate::{
    broker::{self, Patience},
    cli::{Failure, status, tail::event::Structured},
    config::Config,
    status::Report,
};
use async_nats::jetstream::{
    self,
    consumer::{DeliverPolicy, pull::OrderedConfig},
    stream::Stream,
};
use futures_util::StreamExt as _;
use headgate_webhook::api::{Missed, Seen};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::{
    borrow::Cow,
    io::ErrorKind,
    path::Path,
    time::{Duration, SystemTime},
};
use tokio::net::TcpStream;

/// How much earlier than it happened something may have arrived, by clocks that differ.
const CLOCKS: Duration = Duration::from_secs(600);

/// How long a message may take to come.
const SILENCE: Duration = Duration::from_secs(10);

/// What is looked at.
#[derive(Deserialize)]
struct Event<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

/// How long whoever listens may take to accept a connection.
const KNOCK: Duration = Duration::from_secs(3);

/// Refuses where deliveries of the source wait in the spool of the gateway, or of one of those beside it: they arrived, and the stream
/// does not show it.
pub(super) async fn nothing_waits(config: &Config, source: &str, beside: &[String]) -> Result<(), Failure> {
    match status::fetch(config).await {
        Ok((_, report)) => spool_is_empty(&report, source, "the spool")?,
        // Who runs no admin listener here has no spool here either. One that is busy, or of another version, may well have one.
        Err(_) if nobody_listens(config).await => {}
        Err(failure) => return Err(failure),
    }
    for address in beside {
        // One that does not answer may have deliveries all the same.
        let silent = |_| {
            Failure::unavailable(format!("the gateway at {address} does not tell what waits in its spool"))
                .with_fix("start it, or leave out --beside where it is gone for good")
        };
        let (_, report) = status::fetch_from(address).await.map_err(silent)?;
        spool_is_empty(&report, source, &format!("the spool of the gateway at {address}"))?;
    }
    Ok(())
}

fn spool_is_empty(report: &Report, source: &str, spool: &str) -> Result<(), Failure> {
    if report.sources.iter().any(|known| known.name == source && known.retained_bytes > 0) {
        return Err(Failure::unavailable(format!("deliveries of {source} still wait in {spool}"))
            .with_fix("come again when `headgate status` shows none of it RETAINED"));
    }
    Ok(())
}

/// Takes what arrived within the last `back` away from what was missed. `bookmark` is the file that says how far that is, if one does.
pub(super) async fn strike(
    config: &Config,
    source: &str,
    back: Duration,
    bookmark: Option<&Path>,
    missed: &mut Missed<'_>,
) -> Result<(), Failure> {
    let client = format!("{} reconcile", config.gateway.name);
    let (client, _) = broker::connect(&config.nats, &client, Patience::Once)
        .await
        .map_err(|error| Failure::unavailable(error.to_string()).with_fix(error.fix()))?;
    let name = format!("EVENTS_{source}");
    let mut stream = jetstream::new(client).get_stream(&name).await.map_err(|error| {
        Failure::unavailable(format!("{name}: {error}")).with_fix("headgate run, which makes it")
    })?;
    let from = SystemTime::now().checked_sub(back + CLOCKS).unwrap_or(SystemTime::UNIX_EPOCH);
    reaches_back(&mut stream, &name, from, bookmark).await?;
    let unreadable = |error: async_nats::Error| Failure::unavailable(format!("cannot read {name}: {error}"));
    let config = OrderedConfig {
        deliver_policy: DeliverPolicy::ByStartTime { start_time: from.into() },
        ..OrderedConfig::default()
    };
    let mut consumer = stream.create_consumer(config).await.map_err(|error| unreadable(error.into()))?;
    let mut left = consumer.info().await.map_err(|error| unreadable(error.into()))?.num_pending;
    let mut messages = consumer.messages().await.map_err(|error| unreadable(error.into()))?;
    while left > 0 {
        let Ok(Some(message)) = tokio::time::timeout(SILENCE, messages.next()).await else {
            return Err(Failure::unavailable(format!(
                "{name} stopped coming, {left} messages before its end"
            ))
            .with_fix("run it again: nothing was posted yet"));
        };
        let message = message.map_err(|error| unreadable(error.into()))?;
        left -= 1;
        let Ok(structured) = Structured::read(&message) else { continue };
        let Ok(event) = serde_json::from_slice::<Event<'_>>(structured.json()) else { continue };
        if let Some(data) = event.data {
            missed.seen(&Seen { event_type: &event.kind, data: data.get().as_bytes() });
        }
    }
    Ok(())
}

/// Whether connections to the admin listener's address are refused.
async fn nobody_listens(config: &Config) -> bool {
    let knock = tokio::time::timeout(KNOCK, TcpStream::connect(config.admin.listen)).await;
    matches!(knock, Ok(Err(error)) if error.kind() == ErrorKind::ConnectionRefused)
}

/// Refuses a stream that has dropped events of the time that is looked at.
async fn reaches_back(
    stream: &mut Stream,
    name: &str,
    from: SystemTime,
    bookmark: Option<&Path>,
) -> Result<(), Failure> {
    let info = stream.info().await.map_err(|error| Failure::unavailable(format!("{name}: {error}")))?;
    // Of a stream that lost all that it had, the broker tells no time: it goes back to now.
    let emptied = info.state.messages == 0 && info.state.last_sequence > 0;
    let first = if emptied { SystemTime::now() } else { SystemTime::from(info.state.first_timestamp) };
    if (emptied || info.state.first_sequence > 1) && first > from {
        let kept = SystemTime::now().duration_since(first).unwrap_or_default().as_secs();
        let fix = "a shorter --since, or a longer nats.stream.max_age";
        let fix = bookmark.map_or_else(
            || fix.to_owned(),
            |file| format!("{fix}; without --since, {} says from when on", file.display()),
        );
        return Err(Failure::usage(format!(
            "{name} goes back {kept} s only: what arrived before could not be told from what did not"
        ))
        .with_fix(fix));
    }
    Ok(())
}
