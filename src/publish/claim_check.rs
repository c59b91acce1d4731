//! Events over the broker's payload limit: the data goes to the object store, the event keeps a reference to it.
//!
//! The object's name is the event's id, so that publishing again overwrites and never doubles. The object is stored
//! before the event that refers to it. `dataref` follows the CloudEvents extension of that name
//! (<https://github.com/cloudevents/spec/blob/main/cloudevents/extensions/dataref.md>); `datadigest` is
//! `sha-256:` and the digest in hexadecimal, `datasize` the length of the data in bytes.

use crate::event::Event;
use async_nats::jetstream::{
    Context,
    object_store::{Config, ObjectMetadata, ObjectStore},
    stream::StorageType,
};
use bytes::Bytes;
use headgate_sdk::Fault;
use sha2::{Digest, Sha256};

/// An object in chunks that a broker with this payload limit takes: those of 128 KiB, as usual, or smaller ones.
pub(crate) fn object(name: &str, max_payload: usize) -> ObjectMetadata {
    const USUAL: usize = 128 << 10;
    ObjectMetadata {
        name: name.to_owned(),
        chunk_size: Some(max_payload.clamp(1, USUAL)),
        ..ObjectMetadata::default()
    }
}

/// Stores large data of one source.
#[derive(Clone, Debug)]
pub(super) struct ClaimCheck {
    context: Context,
    bucket: String,
    settings: Config,
}

impl ClaimCheck {
    pub(super) fn new(context: Context, source: &str, wanted: &crate::config::Stream) -> Self {
        let bucket = format!("EVENTS_{source}_data");
        let settings = Config {
            bucket: bucket.clone(),
            description: Some("Headgate: data of events over the payload limit".to_owned()),
            max_age: wanted.max_age,
            storage: if wanted.memory { StorageType::Memory } else { StorageType::File },
            num_replicas: wanted.replicas,
            ..Config::default()
        };
        Self { context, bucket, settings }
    }

    /// Moves the event's data to the object store; returns the event that refers to it.
    pub(super) async fn check_in(&self, event: &Event) -> Result<Event, Fault> {
        let (from, to) = (event.data.0 as usize, event.data.1 as usize);
        let structured = event.head.is_empty();
        // In structured mode the range holds `,"data":` or `,"data_base64":` before the data itself.
        let name_end =
            event.payload[from..to].iter().position(|byte| *byte == b':').map_or(from, |at| from + at + 1);
        let start = if structured { name_end } else { from };
        let data = event.payload.slice(start..to);
        let name = event.position.to_string();
        let unstored = |error: async_nats::Error| {
            Fault::transient(format!("cannot store {} bytes of event {name} in {}", data.len(), self.bucket))
                .with_cause(error)
                .with_fix(format!(
                    "see that the object store {} has room, and that the gateway's user may publish on $O.>",
                    self.bucket
                ))
        };
        let store = self.open().await.map_err(unstored)?;
        let object = object(&name, self.context.client().server_info().max_payload);
        store.put(object, &mut data.as_ref()).await.map_err(|error| unstored(error.into()))?;
        let mut digest = String::with_capacity(72);
        digest.push_str("sha-256:");
        for byte in Sha256::digest(&data) {
            digest.push_str(&format!("{byte:02x}"));
        }
        let reference = format!("nats-obj://{}/{name}", self.bucket);
        let mut checked_in = event.clone();
        if structured {
            let mut payload = event.payload[..from].to_vec();
            payload.extend_from_slice(
                format!(
                    ",\"dataref\":\"{reference}\",\"datadigest\":\"{digest}\",\"datasize\":{}",
                    data.len()
                )
                .as_bytes(),
            );
            payload.extend_from_slice(&event.payload[to..]);
            checked_in.payload = Bytes::from(payload);
        } else {
            let mut head = event.head.to_vec();
            head.extend_from_slice(
                format!(
                    "ce-dataref: {reference}\r\nce-datadigest: {digest}\r\nce-datasize: {}\r\n",
                    data.len()
                )
                .as_bytes(),
            );
            checked_in.head = Bytes::from(head);
            checked_in.payload = Bytes::new();
        }
        Ok(checked_in)
    }

    async fn open(&self) -> Result<ObjectStore, async_nats::Error> {
        match self.context.get_object_store(&self.bucket).await {
            Ok(store) => Ok(store),
            Err(_) => Ok(self.context.create_object_store(self.settings.clone()).await?),
        }
    }
}
