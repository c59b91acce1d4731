//! The connection to the broker that all webhook sources share, for whatever is not on the way of a delivery in ordinary
//! times: streams, the object store, emptying the spool. Lanes have a [`Wire`](crate::broker::wire::Wire) each.

use super::message::Message;
use crate::{
    broker::{self, Link, Patience},
    config::Nats,
    publish::{ClaimCheck, Content},
};
use async_nats::jetstream::{
    self, ErrorCode,
    context::{PublishError, PublishErrorKind},
    message::PublishMessage,
    publish::PublishAck,
};
use headgate_sdk::Fault;
use std::{future::IntoFuture as _, pin::Pin, time::Duration};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Messages of all webhook sources that may wait for their acknowledgement.
const IN_FLIGHT: usize = 16_384;
/// How long one publish may take before it has failed.
const ACK_TIMEOUT: Duration = Duration::from_secs(5);

/// Bytes of a message that are kept free for what a fence adds.
pub(super) const FENCE_ROOM: usize = 128;

/// The pending acknowledgement of one message.
pub(super) type Ack = Pin<Box<dyn Future<Output = Result<PublishAck, PublishError>> + Send>>;

/// A connection to the broker. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct Bus {
    pub(super) context: jetstream::Context,
    pub(super) link: watch::Receiver<Link>,
}

/// The bus as soon as there is one.
pub(super) type Arriving = watch::Receiver<Option<Bus>>;

/// Connects in the background, for ever if it has to.
pub(super) fn connect(nats: Nats, name: String, shutdown: CancellationToken) -> Arriving {
    let (found, arriving) = watch::channel(None);
    tokio::spawn(async move {
        let connected = broker::connect(&nats, &name, Patience::Silent);
        match shutdown.run_until_cancelled(connected).await {
            Some(Ok((client, link))) => {
                let context = jetstream::ContextBuilder::new()
                    .timeout(ACK_TIMEOUT)
                    .max_ack_inflight(IN_FLIGHT)
                    .build(client);
                found.send_replace(Some(Bus { context, link }));
            }
            Some(Err(error)) => {
                tracing::error!(fix = error.fix(), "{error}; deliveries are kept in the spool");
            }
            None => {}
        }
        // Whoever waits for a bus waits until the shutdown, not for a closed channel.
        shutdown.cancelled().await;
    });
    arriving
}

impl Bus {
    /// Whether the broker takes the message as one.
    pub(super) fn takes(&self, message: &Message) -> bool {
        message.size() + FENCE_ROOM <= self.context.client().server_info().max_payload
    }

    /// Sends a message; the acknowledgement is yet to come.
    pub(super) async fn send(&self, message: &Message, expected: Option<u64>) -> Result<Ack, PublishError> {
        let publish = PublishMessage::build().payload(message.payload.clone()).headers(message.headers());
        let publish = match expected {
            Some(sequence) => publish.expected_last_sequence(sequence),
            None => publish,
        };
        Ok(self.context.send_publish(message.subject.clone(), publish).await?.into_future())
    }

    /// The message with its data in the object store and a reference instead (see `docs/events.md`). The object's name is
    /// the delivery's, so storing it again doubles nothing.
    pub(super) async fn check_in(
        &self,
        claim_check: &ClaimCheck,
        message: Message,
    ) -> Result<Message, Fault> {
        let (from, to) = message.data;
        let content =
            Content { head: message.head.clone(), payload: message.payload.clone(), data: from..to };
        let name = format!("{:016x}", message.sequence);
        let Content { head, payload, .. } =
            claim_check.check_in(&self.context, &content, &name, "a delivery").await?;
        Ok(Message { head, payload, ..message })
    }
}

/// Whether the broker will never take this message, so that it has to go to the dead letters.
pub(super) fn is_final(error: &PublishError) -> bool {
    match error.kind() {
        PublishErrorKind::MaxPayloadExceeded => true,
        PublishErrorKind::Other => std::error::Error::source(error)
            .and_then(|source| source.downcast_ref::<jetstream::Error>())
            .is_some_and(|error| error.error_code() == ErrorCode::STREAM_MESSAGE_EXCEEDS_MAXIMUM),
        _ => false,
    }
}
