//! A source's stream: made if it is missing, refused if it would lose or reorder events, read where it ends.

use super::{
    POSITION_HEADER, room,
    settings::{self, Writers},
};
use crate::{broker::is_stream_missing, config, snapshot::PLACES_HEADER};
use async_nats::{
    HeaderMap,
    jetstream::{
        Context, ErrorCode,
        message::StreamMessage,
        stream::{Config, Stream},
    },
};
use futures_util::TryStreamExt as _;
use headgate_sdk::{Fault, Finding, LastEvent, Position, SnapshotPlace};
use serde::Deserialize;

/// How many messages that are not Headgate's are passed over at the stream's end before giving up.
const MAX_FOREIGN: u64 = 1000;

/// The name of a source's stream.
#[must_use]
pub fn stream_name(source: &str) -> String {
    format!("EVENTS_{source}")
}

/// A source's stream.
#[derive(Clone, Debug)]
pub struct SourceStream {
    stream: Stream,
    name: String,
    /// The stream's own limit on a message; `None` where it has none.
    max_message: Option<usize>,
}

/// Where a stream ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// The sequence of the last message that was ever stored.
    pub sequence: u64,
    /// The last event that is still there.
    pub last: Option<LastEvent>,
    /// The sequence of that event's message; 0 where there is none.
    pub last_sequence: u64,
}

impl SourceStream {
    /// Opens the source's stream; makes it with the settings of the configuration if it is missing.
    ///
    /// # Errors
    /// Transient where the broker does not answer; definite where an existing stream would lose or reorder events.
    pub async fn open(context: &Context, source: &str, wanted: &config::Nats) -> Result<Self, Fault> {
        let name = stream_name(source);
        let subjects = format!("events.{source}.>");
        let stream = open_or_create(context, settings::settings(&name, &subjects, wanted)).await?;
        let info = stream.get_info().await.map_err(|error| unreadable(&name, error))?;
        settings::suffices(&info.config, source, Writers::One(wanted.publish))?;
        let max_message = usize::try_from(info.config.max_message_size).ok().filter(|limit| *limit > 0);
        Ok(Self { stream, name, max_message })
    }

    /// The source's stream as it is. `None`: there is none.
    ///
    /// # Errors
    /// Transient: the broker does not answer.
    pub async fn find(context: &Context, source: &str) -> Result<Option<Self>, Fault> {
        let name = stream_name(source);
        match context.get_stream(&name).await {
            Ok(stream) => Ok(Some(Self { stream, name, max_message: None })),
            Err(error) if is_stream_missing(error.kind()) => Ok(None),
            Err(error) => Err(unreadable(&name, error)),
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The largest message, headers included, that the broker (up to `max_payload`) and the stream take.
    #[must_use]
    pub fn max_message(&self, max_payload: usize) -> usize {
        self.max_message.map_or(max_payload, |limit| limit.min(max_payload))
    }

    /// Reads where the stream ends, from its leader: never by a direct get, which any replica may answer late. `None`: the
    /// stream is gone.
    ///
    /// # Errors
    /// Transient where the broker does not answer; definite where the end holds nothing that Headgate wrote.
    pub async fn end(&self) -> Result<Option<End>, Fault> {
        let info = match self.stream.get_info().await {
            Ok(info) => info,
            Err(error) if is_gone(&error) => return Ok(None),
            Err(error) => return Err(unreadable(&self.name, error)),
        };
        let state = info.state;
        if state.messages == 0 {
            return Ok(Some(End { sequence: state.last_sequence, last: None, last_sequence: 0 }));
        }
        let first = state.first_sequence.max(state.last_sequence.saturating_sub(MAX_FOREIGN));
        for sequence in (first..=state.last_sequence).rev() {
            let message = match self.stream.get_raw_message(sequence).await {
                Ok(message) => message,
                Err(error) if is_no_message(&error) => continue,
                Err(error) => return Err(unreadable(&self.name, error)),
            };
            let Some(header) = message.headers.get(POSITION_HEADER) else { continue };
            let mut last = parse_position(header.as_str()).ok_or_else(|| {
                Fault::definite(format!("message {sequence} of {} has an unreadable position", self.name))
            })?;
            last.committed_at = committed_at(&message.headers, &message.payload);
            return Ok(Some(End {
                sequence: state.last_sequence,
                last: Some(last),
                last_sequence: sequence,
            }));
        }
        if first > state.first_sequence {
            return Err(Fault::definite(format!("the last {MAX_FOREIGN} messages of {} are not Headgate's", self.name))
                .with_fix("let nobody but the gateway publish on the stream's subjects, and delete the foreign messages"));
        }
        Ok(Some(End { sequence: state.last_sequence, last: None, last_sequence: 0 }))
    }

    /// How far the source's snapshots are with the stream's last event, as [`end`](Self::end) found it.
    ///
    /// # Errors
    /// Transient where the broker does not answer.
    pub async fn places(&self, end: &End) -> Result<Vec<SnapshotPlace>, Fault> {
        if end.last.is_none() {
            return Ok(Vec::new());
        }
        for sequence in (end.sequence.saturating_sub(MAX_FOREIGN).max(1)..=end.sequence).rev() {
            let message = match self.stream.get_raw_message(sequence).await {
                Ok(message) => message,
                Err(error) if is_no_message(&error) => continue,
                Err(error) => return Err(unreadable(&self.name, error)),
            };
            if message.headers.get(POSITION_HEADER).is_some() {
                let places = message.headers.get(PLACES_HEADER).map(|places| places.as_str());
                return Ok(places.map(SnapshotPlace::parse_all).unwrap_or_default());
            }
        }
        Ok(Vec::new())
    }
}

impl SourceStream {
    /// The subjects that a filter means and that have messages, from the stream's leader.
    ///
    /// # Errors
    /// Transient where the broker does not answer.
    pub async fn subjects(&self, filter: &str) -> Result<Vec<String>, Fault> {
        let found = match self.stream.info_with_subjects(filter).await {
            Ok(found) => found,
            Err(error) => return Err(unreadable(&self.name, error)),
        };
        let subjects: Vec<(String, usize)> =
            found.try_collect().await.map_err(|error| unreadable(&self.name, error))?;
        Ok(subjects.into_iter().map(|(subject, _)| subject).collect())
    }

    /// The last message on a subject, or on those that a filter means, from the stream's leader.
    ///
    /// # Errors
    /// Transient where the broker does not answer.
    pub async fn last_on(&self, filter: &str) -> Result<Option<StreamMessage>, Fault> {
        match self.stream.get_last_raw_message_by_subject(filter).await {
            Ok(message) => Ok(Some(message)),
            Err(error) if is_no_message(&error) => Ok(None),
            Err(error) => Err(unreadable(&self.name, error)),
        }
    }
}

/// Opens a stream, or makes it.
///
/// # Errors
/// Transient: the broker does not answer, or does not make it.
pub(crate) async fn open_or_create(context: &Context, settings: Config) -> Result<Stream, Fault> {
    let name = settings.name.clone();
    match context.get_stream(&name).await {
        Ok(stream) => return Ok(stream),
        Err(error) if is_stream_missing(error.kind()) => {}
        Err(error) => return Err(unreadable(&name, error)),
    }
    let fix = if settings.duplicate_window.is_zero() {
        "see that JetStream is enabled for this account, with room for the stream"
    } else {
        "see that JetStream is enabled for this account, with room for the stream, and allows this dedup_window"
    };
    match context.create_stream(settings).await {
        Ok(stream) => {
            tracing::info!(stream = name, "stream created");
            Ok(stream)
        }
        Err(error) => {
            // Another gateway may have been quicker.
            context.get_stream(&name).await.map_err(|_| {
                let fix = room::of(error.kind()).unwrap_or(fix);
                Fault::transient(format!("cannot create stream {name}")).with_cause(error).with_fix(fix)
            })
        }
    }
}

/// The broker does not say what a stream holds.
pub(crate) fn unreadable(name: &str, error: impl std::error::Error + Send + Sync + 'static) -> Fault {
    Fault::transient(format!("cannot read stream {name}")).with_cause(error)
}

/// Whether JetStream itself, which stands behind the request's error, says that there is no such stream.
fn is_gone(error: &async_nats::jetstream::stream::InfoError) -> bool {
    std::error::Error::source(error)
        .and_then(|source| source.downcast_ref::<async_nats::jetstream::Error>())
        .is_some_and(|error| error.error_code() == ErrorCode::STREAM_NOT_FOUND)
}

pub(crate) fn is_no_message(error: &async_nats::jetstream::stream::RawMessageError) -> bool {
    use async_nats::jetstream::stream::LastRawMessageErrorKind as Kind;
    matches!(error.kind(), Kind::NoMessageFound)
}

/// What `check` says about the stream of a source that is read from a log.
pub async fn findings(context: &Context, source: &str, wanted: &config::Nats) -> Vec<Finding> {
    let replicas = wanted.stream.replicas;
    let too_few = |found: &Config| {
        (found.num_replicas < replicas).then(|| {
            Finding::warning(
                format!("stream {}", found.name),
                format!("{} replicas, {replicas} configured", found.num_replicas),
                "the loss of one server may stop or lose the stream",
            )
            .with_fix(format!("nats stream edit {} --replicas={replicas}", found.name))
        })
    };
    settings::findings(context, source, Writers::One(wanted.publish), too_few).await
}

/// Writes the value of a message's position header: the position, and where its transaction ends in the log.
pub(super) fn write_position(position: Position, transaction_end: Option<u64>, out: &mut Vec<u8>) {
    out.extend_from_slice(&position.text());
    if let Some(end) = transaction_end {
        // The same sixteen digits that a position writes its commit with.
        let end = Position { commit: end, ..Position::default() }.text();
        out.push(b' ');
        out.extend_from_slice(&end[5..21]);
    }
}

fn parse_position(text: &str) -> Option<LastEvent> {
    let (position, end) = match text.split_once(' ') {
        Some((position, end)) => (position, Some(u64::from_str_radix(end, 16).ok()?)),
        None => (text, None),
    };
    Some(LastEvent { position: position.parse().ok()?, transaction_end: end, committed_at: None })
}

/// The attributes that say when an event's transaction was committed; those of an event of none have no transaction.
#[derive(Deserialize)]
struct Committed {
    txid: Option<String>,
    time: Option<String>,
}

/// When an event's transaction was committed, in microseconds since 1970-01-01 UTC, in either mode.
fn committed_at(headers: &HeaderMap, payload: &[u8]) -> Option<i64> {
    let header = |name: &str| headers.get(name).map(|value| value.as_str().to_owned());
    let committed = match header("ce-txid") {
        Some(txid) => Committed { txid: Some(txid), time: header("ce-time") },
        None => serde_json::from_slice(payload).ok()?,
    };
    committed.txid?;
    Some(committed.time?.parse::<jiff::Timestamp>().ok()?.as_microsecond())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_transactions_are_read_in_either_mode() {
        let time = "2026-11-22T14:06:07.123456Z";
        let micros = Some(1_795_356_367_123_456);
        let plain = HeaderMap::new();
        let structured = format!(r#"{{"id":"1","txid":"a:1","time":"{time}","data":{{"time":"x"}}}}"#);
        assert_eq!(committed_at(&plain, structured.as_bytes()), micros);
        let mut binary = HeaderMap::new();
        binary.insert("ce-time", time);
        assert_eq!(committed_at(&binary, b"{}"), None, "a row of a snapshot");
        binary.insert("ce-txid", "a:1");
        assert_eq!(committed_at(&binary, b"{}"), micros);
        for hostile in ["", "[]", r#"{"txid":1,"time":2}"#, r#"{"txid":"a","time":"soon"}"#] {
            assert_eq!(committed_at(&plain, hostile.as_bytes()), None, "{hostile}");
        }
    }

    #[test]
    fn position_headers_read_back() {
        let position = Position { epoch: 3, commit: 0x16b_3748, index: 12 };
        for transaction_end in [None, Some(0x16b_3790)] {
            let mut text = Vec::new();
            write_position(position, transaction_end, &mut text);
            assert_eq!(
                parse_position(std::str::from_utf8(&text).unwrap()),
                Some(LastEvent { position, transaction_end, committed_at: None })
            );
        }
        for hostile in ["", "x", "0003-00000000016b3748-0000000c ", "0003-00000000016b3748-0000000c zz"] {
            assert_eq!(parse_position(hostile), None);
        }
    }
}
