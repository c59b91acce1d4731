//! Messages of a spool as one atomic batch of JetStream's
//! (ADR-50, <https://github.com/nats-io/nats-architecture-and-design/blob/main/adr/ADR-50.md>).
//!
//! * **Order**: a batch is stored in one piece, in its order, with nobody else's message in between; or not at all.
//! * **Duplicates**: a message that the stream has already, by its id, refuses the whole batch.
//! * **Faults**: a batch of which something is missing, as when the connection broke within it, is refused or given up by the broker.

use super::{
    bus::{Ack, Bus},
    message::Message,
};
use crate::broker::random;
use async_nats::{
    Client, HeaderMap, header,
    jetstream::{
        self, ErrorCode,
        context::{PublishError, PublishErrorKind},
        message::PublishMessage,
    },
};
use std::future::IntoFuture as _;

/// Why nothing of a batch was stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unstored {
    /// For something in it: most often the stream has one of its messages already.
    Contents,
    /// For being a batch, or so large a one.
    Batch,
}

/// Whether the broker knows batches of messages with ids. Those of 2.12.0 had none.
pub(super) fn are_taken(client: &Client) -> bool {
    client.is_server_compatible(2, 12, 1)
}

/// Why nothing of a batch was stored; `None` where the broker has not said that.
pub(super) fn unstored(error: &PublishError) -> Option<Unstored> {
    let source = std::error::Error::source(error)?;
    let code = source.downcast_ref::<jetstream::Error>()?.error_code();
    Some(match code {
        ErrorCode::ATOMIC_PUBLISH_DISABLED
        | ErrorCode::ATOMIC_PUBLISH_UNSUPPORTED_HEADER
        | ErrorCode::ATOMIC_PUBLISH_TOO_LARGE_BATCH
        | ErrorCode::ATOMIC_PUBLISH_TOO_MANY_INFLIGHT => Unstored::Batch,
        _ => Unstored::Contents,
    })
}

impl Bus {
    /// Sends messages, at least one, as a batch; the acknowledgement of all is yet to come.
    pub(super) async fn send_batch(&self, messages: &[Message]) -> Result<Ack, PublishError> {
        let id = format!("{:016x}{:016x}", random(), random());
        let nothing = || PublishError::new(PublishErrorKind::Other);
        let (last, others) = messages.split_last().ok_or_else(nothing)?;
        let broken = |error| PublishError::with_source(PublishErrorKind::BrokenPipe, error);
        for (message, nth) in others.iter().zip(1..) {
            let headers = headers(message, &id, nth);
            let client = self.context.client();
            let publish =
                client.publish_with_headers(message.subject.clone(), headers, message.payload.clone());
            publish.await.map_err(broken)?;
        }
        let mut headers = headers(last, &id, messages.len());
        headers.insert(header::NATS_BATCH_COMMIT, header::NATS_BATCH_COMMIT_FINAL);
        let publish = PublishMessage::build().payload(last.payload.clone()).headers(headers);
        Ok(self.context.send_publish(last.subject.clone(), publish).await?.into_future())
    }
}

fn headers(message: &Message, batch: &str, nth: usize) -> HeaderMap {
    let mut headers = message.headers();
    headers.insert(header::NATS_BATCH_ID, batch);
    headers.insert(header::NATS_BATCH_SEQUENCE, nth.to_string());
    headers
}
