//! Events over the broker's payload limit: the data goes to the object store, the event keeps a reference to it.
//!
//! The object's name is the same whenever the event is published again, so that it is overwritten and never doubled. The
//! object is stored before the event that refers to it. `dataref` follows the CloudEvents extension of that name
//! (<https://github.com/cloudevents/spec/blob/main/cloudevents/extensions/dataref.md>); `datadigest` is
//! `sha-256:` and the digest in hexadecimal, `datasize` the length of the data in bytes.

use crate::config;
use async_nats::jetstream::{
    Context,
    object_store::{Config, ObjectMetadata, ObjectStore},
    stream::StorageType,
};
use bytes::Bytes;
use headgate_sdk::Fault;
use sha2::{Digest, Sha256};
use std::{fmt::Write as _, ops::Range};

/// What a message says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Content {
    /// Its headers, as `Name: value\r\n` lines.
    pub(crate) head: Bytes,
    /// In structured mode the whole CloudEvent, in binary mode its data.
    pub(crate) payload: Bytes,
    /// Where in the payload the data is: in structured mode its member, comma included, in binary mode all of it.
    pub(crate) data: Range<usize>,
}

impl Content {
    /// In structured mode something always follows: the event's closing brace.
    fn is_structured(&self) -> bool {
        self.data.end < self.payload.len()
    }

    /// The data itself. In structured mode `,"data":` or `,"data_base64":` stands before it.
    fn data(&self) -> Bytes {
        let member = self.payload.slice(self.data.clone());
        match member.iter().position(|byte| *byte == b':') {
            Some(colon) if self.is_structured() => member.slice(colon + 1..),
            _ => member,
        }
    }

    /// The same with a reference in place of its data.
    fn referring(&self, reference: &str, digest: &str, size: usize) -> Self {
        if self.is_structured() {
            let member =
                format!(",\"dataref\":\"{reference}\",\"datadigest\":\"{digest}\",\"datasize\":{size}");
            let (before, behind) = (&self.payload[..self.data.start], &self.payload[self.data.end..]);
            let payload = Bytes::from([before, member.as_bytes(), behind].concat());
            Self { payload, head: self.head.clone(), data: self.data.start..self.data.start }
        } else {
            let lines =
                format!("ce-dataref: {reference}\r\nce-datadigest: {digest}\r\nce-datasize: {size}\r\n");
            let head = Bytes::from([&self.head, lines.as_bytes()].concat());
            Self { payload: Bytes::new(), head, data: 0..0 }
        }
    }
}

/// Stores large data of one source.
#[derive(Clone, Debug)]
pub(crate) struct ClaimCheck {
    settings: Config,
}

impl ClaimCheck {
    pub(crate) fn new(source: &str, wanted: &config::Stream) -> Self {
        let settings = Config {
            bucket: format!("EVENTS_{source}_data"),
            description: Some("Headgate: data of events over the payload limit".to_owned()),
            max_age: wanted.max_age,
            storage: if wanted.memory { StorageType::Memory } else { StorageType::File },
            num_replicas: wanted.replicas,
            ..Config::default()
        };
        Self { settings }
    }

    /// Moves a message's data to the object store, under a name; gives the message that refers to it. `what` is whose data
    /// it is, for people.
    ///
    /// # Errors
    /// Transient: the object could not be stored.
    pub(crate) async fn check_in(
        &self,
        context: &Context,
        content: &Content,
        name: &str,
        what: &str,
    ) -> Result<Content, Fault> {
        let bucket = &self.settings.bucket;
        let data = content.data();
        let unstored = |error: async_nats::Error| {
            Fault::transient(format!("cannot store {} bytes of {what} in {bucket}", data.len()))
                .with_cause(error)
                .with_fix(format!(
                    "see that the object store {bucket} has room, and that the gateway's user may publish on $O.>"
                ))
        };
        let store = self.open(context).await.map_err(unstored)?;
        let object = object(name, context.client().server_info().max_payload);
        store.put(object, &mut data.as_ref()).await.map_err(|error| unstored(error.into()))?;
        let mut digest = "sha-256:".to_owned();
        for byte in Sha256::digest(&data) {
            let _ = write!(digest, "{byte:02x}");
        }
        Ok(content.referring(&format!("nats-obj://{bucket}/{name}"), &digest, data.len()))
    }

    async fn open(&self, context: &Context) -> Result<ObjectStore, async_nats::Error> {
        match context.get_object_store(&self.settings.bucket).await {
            Ok(store) => Ok(store),
            Err(_) => Ok(context.create_object_store(self.settings.clone()).await?),
        }
    }
}

/// An object in chunks that a broker with this payload limit takes: those of 128 KiB, as usual, or smaller ones.
fn object(name: &str, max_payload: usize) -> ObjectMetadata {
    const USUAL: usize = 128 << 10;
    ObjectMetadata {
        name: name.to_owned(),
        chunk_size: Some(max_payload.clamp(1, USUAL)),
        ..ObjectMetadata::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_is_found_and_replaced_by_what_refers_to_it() {
        for (before, member, data) in [
            (r#"{"id":"1""#, r#","data":{"a":1}"#, r#"{"a":1}"#),
            (r#"{"id":"1""#, r#","data_base64":"/w==""#, r#""/w==""#),
            (r#"{"id":"1""#, "", ""),
        ] {
            let payload = Bytes::from([before, member, r#","txlast":true}"#].concat());
            let data_at = before.len()..before.len() + member.len();
            let content = Content { head: Bytes::new(), payload, data: data_at };
            assert_eq!(content.data(), data);
            let referring = content.referring("nats-obj://b/1", "sha-256:00", 7);
            assert_eq!(
                referring.payload,
                r#"{"id":"1","dataref":"nats-obj://b/1","datadigest":"sha-256:00","datasize":7,"txlast":true}"#
            );
            assert_eq!(referring.head, "");
        }
        let content =
            Content { head: Bytes::from("ce-id: 1\r\n"), payload: Bytes::from("{\"a\":1}"), data: 0..7 };
        assert_eq!(content.data(), "{\"a\":1}");
        let referring = content.referring("nats-obj://b/1", "sha-256:00", 7);
        assert_eq!(
            referring.head,
            "ce-id: 1\r\nce-dataref: nats-obj://b/1\r\nce-datadigest: sha-256:00\r\nce-datasize: 7\r\n"
        );
        assert_eq!(referring.payload, "");
    }
}
