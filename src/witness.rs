//! What a source's stream holds, transaction by transaction.
//!
//! The position of the last event says it all while the log stays the same. When another database server takes over,
//! positions mean nothing any more, and only the names of the transactions do; then the end of the stream is read.
//!
//! * **Order**: the stream's own.
//! * **Completeness**: everything up to the stream's last sequence, as its leader told it before; a consumer that is served
//!   by a replica waits until that has it too.
//! * **Memory**: one message at a time.

use crate::publish::{POSITION_HEADER, stream_name};
use async_nats::{
    HeaderMap,
    jetstream::{
        Context,
        consumer::{DeliverPolicy, pull::OrderedConfig},
        stream::{LastRawMessageErrorKind, Stream},
    },
};
use futures_util::StreamExt as _;
use headgate_sdk::{Fault, Held, Position, Progress};
use serde::Deserialize;
use std::time::Duration;
use tokio::time::timeout;

/// How long the next message may take, which is there already.
const PATIENCE: Duration = Duration::from_secs(10);
/// The attribute with a transaction's name, in binary mode.
const TXID_HEADER: &str = "ce-txid";

/// Reads one source's stream.
#[derive(Clone, Debug)]
pub struct Witness {
    context: Context,
    stream: String,
}

/// The attribute with a transaction's name, in structured mode.
#[derive(Deserialize)]
struct Attributes {
    txid: Option<String>,
}

impl Witness {
    /// Of the stream that `source` is written to.
    #[must_use]
    pub fn new(context: Context, source: &str) -> Self {
        Self { context, stream: stream_name(source) }
    }

    /// See [`Outlet::held_since`](headgate_sdk::Outlet::held_since).
    ///
    /// # Errors
    /// The broker does not answer, or the stream ends before it should.
    pub async fn held_since(
        &self,
        from: Progress,
        each: &mut (dyn FnMut(Held<'_>) + Send),
    ) -> Result<bool, Fault> {
        let stream = self.context.get_stream(&self.stream).await.map_err(|error| self.unreadable(error))?;
        let state = stream.get_info().await.map_err(|error| self.unreadable(error))?.state;
        if state.messages == 0 {
            return Ok(state.last_sequence == 0);
        }
        let from = Position { epoch: from.epoch, commit: from.log, index: 0 };
        let (first, whole) = self.first_at(&stream, from, state.first_sequence, state.last_sequence).await?;
        let whole = whole || state.first_sequence <= 1;
        let consumer = stream
            .create_consumer(OrderedConfig {
                deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: first },
                ..OrderedConfig::default()
            })
            .await
            .map_err(|error| self.unreadable(error))?;
        let mut messages = consumer.messages().await.map_err(|error| self.unreadable(error))?;
        // An event is counted by the first of the next transaction, or by the end of its own.
        let mut open: Option<(String, u32)> = None;
        let mut sequence = 0;
        while sequence < state.last_sequence {
            let message = match timeout(PATIENCE, messages.next()).await {
                Ok(Some(Ok(message))) => message,
                Ok(Some(Err(error))) => return Err(self.unreadable(error)),
                Ok(None) | Err(_) => {
                    return Err(Fault::transient(format!(
                        "stream {} gave no message after sequence {sequence} of {}",
                        self.stream, state.last_sequence
                    )));
                }
            };
            sequence = message
                .info()
                .map_err(|error| {
                    Fault::transient("a message without its place in the stream").with_cause(error)
                })?
                .stream_sequence;
            let Some((position, ended)) = message.headers.as_ref().and_then(position) else { continue };
            if position < from || position.epoch != from.epoch {
                continue;
            }
            let Some(name) = name(message.headers.as_ref(), &message.payload) else { continue };
            if ended {
                each(Held { transaction: &name, events: position.index + 1, ended: true });
                open = None;
            } else {
                open = Some((name, position.index + 1));
            }
        }
        if let Some((name, events)) = open {
            each(Held { transaction: &name, events, ended: false });
        }
        Ok(whole)
    }

    /// The first sequence whose event is not before `from`, and whether there is one before it: positions rise with
    /// sequences.
    async fn first_at(
        &self,
        stream: &Stream,
        from: Position,
        first: u64,
        last: u64,
    ) -> Result<(u64, bool), Fault> {
        let (mut low, mut high) = (first, last);
        while low < high {
            let middle = low + (high - low) / 2;
            match self.position_at_or_after(stream, middle, high).await? {
                Some(position) if position < from => low = middle + 1,
                _ => high = middle,
            }
        }
        Ok((low, low > first))
    }

    /// The position of the first of Headgate's messages from `sequence` on, as some may have been deleted.
    async fn position_at_or_after(
        &self,
        stream: &Stream,
        sequence: u64,
        last: u64,
    ) -> Result<Option<Position>, Fault> {
        for sequence in sequence..=last {
            match stream.get_raw_message(sequence).await {
                Ok(message) => {
                    if let Some((position, _)) = position(&message.headers) {
                        return Ok(Some(position));
                    }
                }
                Err(error) if matches!(error.kind(), LastRawMessageErrorKind::NoMessageFound) => {}
                Err(error) => return Err(self.unreadable(error)),
            }
        }
        Ok(None)
    }

    fn unreadable(&self, error: impl std::error::Error + Send + Sync + 'static) -> Fault {
        Fault::transient(format!("cannot read stream {}", self.stream)).with_cause(error)
    }
}

/// An event's position, and whether its transaction ends with it.
fn position(headers: &HeaderMap) -> Option<(Position, bool)> {
    let text = headers.get(POSITION_HEADER)?.as_str();
    let (position, end) = text.split_once(' ').map_or((text, None), |(position, end)| (position, Some(end)));
    Some((position.parse().ok()?, end.is_some()))
}

fn name(headers: Option<&HeaderMap>, payload: &[u8]) -> Option<String> {
    if let Some(value) = headers.and_then(|headers| headers.get(TXID_HEADER)) {
        return Some(value.as_str().to_owned());
    }
    serde_json::from_slice::<Attributes>(payload).ok()?.txid
}
