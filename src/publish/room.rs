//! Whether the broker has room for a stream that reserves it, before one is needed.
//!
//! A stream with `max_bytes` reserves as much, against the account's limits and against the server's own, which a client cannot ask
//! for. So the streams that are missing are made under other names, of the same size, and removed at once.

use super::stream::{is_stream_missing, settings, stream_name};
use crate::config;
use async_nats::jetstream::{
    Context, ErrorCode,
    context::{CreateStreamErrorKind, DeleteStreamErrorKind},
};
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

/// Whether a stream is left that could not be removed. Somebody else who checks at the same time may have been quicker, and a broker
/// that does not answer is not known to have made it.
fn is_there(error: DeleteStreamErrorKind) -> bool {
    matches!(error, DeleteStreamErrorKind::JetStream(_)) && !is_stream_missing(error)
}

/// What there is to say of the streams of `sources` that are missing and reserve room. Nothing where none does.
pub async fn findings<'a>(
    context: &Context,
    sources: impl Iterator<Item = &'a str>,
    wanted: &config::Nats,
) -> Vec<Finding> {
    let mut missing = Vec::new();
    for source in sources.take(TRIED) {
        if context.get_stream(stream_name(source)).await.is_err_and(|error| is_stream_missing(error.kind())) {
            missing.push(source);
        }
    }
    if missing.is_empty() || wanted.stream.max_bytes.is_none() && wanted.stream.replicas == 1 {
        return Vec::new();
    }
    let mut made = Vec::new();
    let (mut found, mut all) = (None, true);
    for (number, source) in missing.iter().enumerate() {
        // Not one of the sources' subjects: nothing that is published meanwhile may go into it.
        let name = format!("headgate_check_{number}");
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
    let mut findings: Vec<Finding> = found.into_iter().collect();
    if all {
        findings.push(Finding::good("room", format!("for the {} streams to be made", missing.len())));
    }
    for name in made {
        if let Err(error) = context.delete_stream(&name).await
            && is_there(error.kind())
        {
            findings.push(
                Finding::warning(
                    "room",
                    format!("{name}, which was made to see whether there is room, is left: {error}"),
                    "it takes up the room of a stream that is needed",
                )
                .with_fix(format!("nats stream rm {name}")),
            );
        }
    }
    findings
}
