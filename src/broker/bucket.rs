//! The key-value bucket `headgate`: what the gateways of an account keep beside the streams.
//!
//! * **Truth**: a key is read from the bucket's leader, never by a direct get, which any replica may answer late.
//! * **Durability**: what was written counts when the broker has acknowledged it.
//! * **Fencing**: each write names the revision that it replaces, so that a gateway which was replaced cannot put back an
//!   older state.

use super::is_stream_missing;
use async_nats::jetstream::{
    Context,
    context::{GetStreamError, PublishError},
    kv::{Config, PurgeError},
    message::PublishMessage,
    stream::{LastRawMessageError, LastRawMessageErrorKind, StorageType, Stream},
};
use bytes::Bytes;
use headgate_sdk::Fault;

/// The bucket of all gateways of an account.
pub(crate) const BUCKET: &str = "headgate";

/// What a key holds.
#[derive(Debug)]
pub(crate) struct Entry {
    /// What a write has to name to replace it; 0 where the key never was.
    pub(crate) revision: u64,
    /// `None` where the key never was, or was removed.
    pub(crate) value: Option<Bytes>,
}

/// Reads what a key of any bucket holds, by the key's subject in the bucket's stream.
pub(crate) async fn read(bucket: &Stream, subject: &str) -> Result<Entry, LastRawMessageError> {
    match bucket.get_last_raw_message_by_subject(subject).await {
        Ok(message) => {
            let is_removed = message.headers.get("KV-Operation").is_some();
            Ok(Entry { revision: message.sequence, value: (!is_removed).then_some(message.payload) })
        }
        Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => {
            Ok(Entry { revision: 0, value: None })
        }
        Err(error) => Err(error),
    }
}

/// Removes a key of the bucket, if there is one.
pub(crate) async fn remove(context: &Context, key: &str) -> Result<(), PurgeError> {
    match context.get_key_value(BUCKET).await {
        Ok(bucket) => bucket.purge(key).await,
        Err(_) => Ok(()),
    }
}

/// One key of the bucket.
#[derive(Clone, Debug)]
pub(crate) struct Key {
    context: Context,
    bucket: Stream,
    subject: String,
}

impl Key {
    /// A key of the bucket as it is.
    ///
    /// # Errors
    /// Transient: there is no bucket, or the broker does not answer.
    pub(crate) async fn open(context: &Context, key: &str) -> Result<Self, Fault> {
        stream(context).await.map(|bucket| Self::of(context, bucket, key)).map_err(unopened)
    }

    /// The same; `None` where there is no bucket.
    ///
    /// # Errors
    /// Transient: the broker does not answer.
    pub(crate) async fn find(context: &Context, key: &str) -> Result<Option<Self>, Fault> {
        match stream(context).await {
            Ok(bucket) => Ok(Some(Self::of(context, bucket, key))),
            Err(error) if is_stream_missing(error.kind()) => Ok(None),
            Err(error) => Err(unopened(error)),
        }
    }

    /// The same; makes the bucket if it is missing.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub(crate) async fn open_or_create(
        context: &Context,
        key: &str,
        replicas: usize,
        memory: bool,
    ) -> Result<Self, Fault> {
        if let Ok(found) = Self::open(context, key).await {
            return Ok(found);
        }
        let config = Config {
            bucket: BUCKET.to_owned(),
            description: "Headgate: checkpoints of its sources".to_owned(),
            history: 1,
            num_replicas: replicas,
            storage: if memory { StorageType::Memory } else { StorageType::File },
            ..Config::default()
        };
        if let Err(error) = context.create_key_value(config).await {
            tracing::debug!("bucket {BUCKET}: {error}");
        }
        Self::open(context, key).await
    }

    fn of(context: &Context, bucket: Stream, key: &str) -> Self {
        Self { context: context.clone(), bucket, subject: format!("$KV.{BUCKET}.{key}") }
    }

    /// Its subject, for people.
    pub(crate) fn subject(&self) -> &str {
        &self.subject
    }

    /// What it holds.
    ///
    /// # Errors
    /// Transient: the broker does not answer.
    pub(crate) async fn read(&self) -> Result<Entry, Fault> {
        read(&self.bucket, &self.subject)
            .await
            .map_err(|error| Fault::transient(format!("cannot read {}", self.subject)).with_cause(error))
    }

    /// Writes in place of a revision, and gives the new one.
    ///
    /// # Errors
    /// It was not acknowledged, which does not mean that it was not written; or the key has another revision by now.
    pub(crate) async fn replace(&self, revision: u64, value: Vec<u8>) -> Result<u64, PublishError> {
        let message = PublishMessage::build().payload(value.into()).expected_last_subject_sequence(revision);
        let ack = self.context.send_publish(self.subject.clone(), message).await?;
        Ok(ack.await?.sequence)
    }
}

async fn stream(context: &Context) -> Result<Stream, GetStreamError> {
    context.get_stream(format!("KV_{BUCKET}")).await
}

fn unopened(error: GetStreamError) -> Fault {
    Fault::transient(format!("cannot open the bucket {BUCKET}")).with_cause(error)
}
