//! Messages of a spool as one atomic batch of JetStream's
//! (ADR-50, <https://github.com/nats-io/nats-architecture-and-design/blob/main/adr/ADR-50.md>).
//!
//! * **Order**: a batch is stored in one piece, in its order, with nobody else's message in between; or not at all.
//! * **Duplicates**: a message that the stream has already, by its id, refuses the whole batch.
//! * **Faults**: a batch of which something is missing, as when the connection broke within it, is refused or given up by the broker.
//!   Only the last message has a reply, so whatever was wrong with one before it is told as an incomplete batch.
//! * **Mixed clusters**: a stream's leader may be older than the server that the client is connected to. One that knows no batches stores
//!   the messages one by one and acknowledges the last as such; so an acknowledgement has to name the batch and its size
//!   ([`is_whole`]).

use super::{
    bus::{Ack, Bus},
    message::Message,
};
use crate::broker::random;
use async_nats::{
    HeaderMap, header,
    jetstream::{
        self, ErrorCode,
        context::{PublishError, PublishErrorKind},
        message::PublishMessage,
        publish::PublishAck,
    },
};
use std::future::IntoFuture as _;

/// Why nothing of a batch was stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unstored {
    /// For something in it, or for its size: most often the stream has one of its messages already.
    Contents,
    /// For being a batch.
    Batch,
}

/// Why nothing of a batch was stored; `None` where the broker has not said that.
pub(super) fn unstored(error: &PublishError) -> Option<Unstored> {
    let source = std::error::Error::source(error)?;
    let code = source.downcast_ref::<jetstream::Error>()?.error_code();
    Some(match code {
        ErrorCode::ATOMIC_PUBLISH_DISABLED | ErrorCode::ATOMIC_PUBLISH_UNSUPPORTED_HEADER => Unstored::Batch,
        _ => Unstored::Contents,
    })
}

/// Whether an acknowledgement says that a batch of so many messages was stored.
pub(super) fn is_whole(ack: &PublishAck, id: &str, messages: usize) -> bool {
    ack.batch_id.as_deref() == Some(id) && ack.batch_size == u64::try_from(messages).ok()
}

impl Bus {
    /// Sends messages, at least one, as a batch, and tells the batch's id; the acknowledgement of all is yet to come.
    pub(super) async fn send_batch(&self, messages: &[Message]) -> Result<(String, Ack), PublishError> {
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
        Ok((id, self.context.send_publish(last.subject.clone(), publish).await?.into_future()))
    }
}

fn headers(message: &Message, batch: &str, nth: usize) -> HeaderMap {
    let mut headers = message.headers();
    headers.insert(header::NATS_BATCH_ID, batch);
    headers.insert(header::NATS_BATCH_SEQUENCE, nth.to_string());
    headers
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_acknowledgement_without_the_batch_is_that_of_one_message() {
        let whole = |ack: &str| is_whole(&serde_json::from_str(ack).unwrap(), "b1", 3);
        assert!(whole(r#"{"stream":"S","seq":9,"batch":"b1","count":3}"#));
        for ack in [
            r#"{"stream":"S","seq":9}"#,
            r#"{"stream":"S","seq":9,"duplicate":true}"#,
            r#"{"stream":"S","seq":9,"batch":"b1"}"#,
            r#"{"stream":"S","seq":9,"batch":"b1","count":2}"#,
            r#"{"stream":"S","seq":9,"batch":"b2","count":3}"#,
        ] {
            assert!(!whole(ack), "{ack}");
        }
    }
}
