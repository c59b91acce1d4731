//! Whether the broker has room for a stream that reserves it, before one is needed.
//!
//! A stream with `max_bytes` reserves as much, against the account's limits and against the server's own, which a client cannot ask
//! for. So the streams that are missing are made under other names, of the same size, and removed at once. What a check that was
//! killed left of them is removed by the next.

use super::{settings::settings, stream_name};
use crate::{broker::is_stream_missing, config};
use async_nats::jetstream::{Context, ErrorCode, context::CreateStreamErrorKind};
use futures_util::future::join_all;
use headgate_sdk::Finding;

/// Sources whose streams are tried together.
const TRIED: usize = 16;

/// What to change where the broker refuses a stream for lack of something; `None` where it lacks nothing.
pub(super) fn of(error: CreateStreamErrorKind) -> Option<&'static str> {
    let CreateStreamErrorKind::JetStream(error) = error else { return None };
    match error.error_code() {
        ErrorCode::STORAGE_RESOURCES_EXCEEDED | ErrorCode::INSUFFICIENT_RESOURCES => Some(
            "a smaller max_bytes in [nats.stream], or a larger max_file_store in the server's jetstream {}",
        ),
        ErrorCode::MEMORY_RESOURCES_EXCEEDED => Some(
            "a smaller max_bytes in [nats.stream], or a larger max_memory_store in the server's jetstream {}",
        ),
        ErrorCode::ACCOUNT_RESOURCES_EXCEEDED => {
            Some("a smaller max_bytes in [nats.stream], or a higher limit of the account's JetStream storage")
        }
        ErrorCode::STREAM_MAX_STREAM_BYTES_EXCEEDED => {
            Some("a smaller max_bytes in [nats.stream], or a higher limit of the account on one stream")
        }
        ErrorCode::STREAM_MAX_BYTES_REQUIRED => Some("max_bytes = \"10GB\" in [nats.stream], say"),
        ErrorCode::MAXIMUM_STREAMS_LIMIT => Some("a higher limit of the account on streams"),
        ErrorCode::STREAM_REPLICAS_NOT_SUPPORTED => {
            Some("replicas = 1 in [nats.stream]: this server is no cluster")
        }
        ErrorCode::CLUSTER_NO_PEERS => Some(
            "a smaller max_bytes or fewer replicas in [nats.stream], or more room on the cluster's servers",
        ),
        _ => None,
    }
}

/// The name of the `number`th stream that is made to see whether there is room.
fn trial(number: usize) -> String {
    format!("headgate_check_{number}")
}

/// Removes the streams of those names; says which may be left. Somebody else who checks at the same time may have been quicker.
async fn remove(context: &Context, trials: Vec<String>) -> Vec<Finding> {
    let removals = trials.into_iter().map(async |name| match context.delete_stream(&name).await {
        Ok(_) => None,
        Err(error) if is_stream_missing(error.kind()) => None,
        Err(error) => Some(
            Finding::warning(
                "room",
                format!("{name}, which is made to see whether there is room, may be left: {error}"),
                "it takes up the room of a stream that is needed",
            )
            .with_fix(format!("nats stream rm {name}")),
        ),
    });
    join_all(removals).await.into_iter().flatten().collect()
}

/// The trial streams that an earlier check has left.
async fn leftovers(context: &Context) -> Vec<String> {
    let looks = (0..TRIED).map(async |number| {
        let name = trial(number);
        context.get_stream(&name).await.is_ok().then_some(name)
    });
    join_all(looks).await.into_iter().flatten().collect()
}

/// What there is to say of the streams of `sources` that are missing and reserve room. Nothing where none does.
pub async fn findings<'a>(
    context: &Context,
    sources: impl Iterator<Item = &'a str>,
    wanted: &config::Nats,
) -> Vec<Finding> {
    let left = leftovers(context).await;
    let mut findings = remove(context, left).await;
    let mut missing = Vec::new();
    for source in sources.take(TRIED) {
        if context.get_stream(stream_name(source)).await.is_err_and(|error| is_stream_missing(error.kind())) {
            missing.push(source);
        }
    }
    if missing.is_empty() || wanted.stream.max_bytes.is_none() && wanted.stream.replicas == 1 {
        return findings;
    }
    let mut made = Vec::new();
    let (mut found, mut all) = (None, true);
    for (number, source) in missing.iter().enumerate() {
        // Not one of the sources' subjects: nothing that is published meanwhile may go into it.
        let name = trial(number);
        match context.create_stream(settings(&name, &format!("headgate.check.{number}"), wanted)).await {
            Ok(_) => made.push(name),
            Err(error) => {
                all = false;
                // One that did not answer may have made it.
                if !matches!(error.kind(), CreateStreamErrorKind::JetStream(_)) {
                    made.push(name);
                }
                found = of(error.kind()).map(|fix| {
                    let subject = format!("stream {}", stream_name(source));
                    let why = "the stream cannot be made, and events have nowhere to go";
                    Finding::error(subject, format!("no room for it: {error}"), why).with_fix(fix)
                });
                break;
            }
        }
    }
    findings.extend(found);
    if all {
        findings.push(Finding::good("room", format!("for the {} streams to be made", missing.len())));
    }
    for finding in remove(context, made).await {
        if !findings.contains(&finding) {
            findings.push(finding);
        }
    }
    findings
}
