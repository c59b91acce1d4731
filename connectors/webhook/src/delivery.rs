//! What a verified request holds, named in the terms of CloudEvents.

use bytes::Bytes;
use std::fmt;

/// How much of a delivery its provider's signature proves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Integrity {
    /// Nothing: a shared token came along, and whoever saw one request can make others.
    None,
    /// Something about the delivery is signed (a time, an identity), its body is not.
    Metadata,
    /// The body, every byte of it.
    Body,
}

impl Integrity {
    /// The value of the event's `integrity` attribute.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Metadata => "metadata",
            Self::Body => "body",
        }
    }
}

impl fmt::Display for Integrity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An event's data, byte for byte as the provider wrote it.
#[derive(Clone, PartialEq, Eq)]
pub enum Data {
    /// One JSON value, checked: valid UTF-8, valid JSON, no key twice in one object.
    Json(Bytes),
    /// Valid UTF-8 of another content type (a form, XML).
    Text(Bytes),
    /// Anything else: base64 where the event is structured.
    Binary(Bytes),
    /// No body at all.
    Empty,
}

impl Data {
    /// The bytes, whatever they are.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Json(bytes) | Self::Text(bytes) | Self::Binary(bytes) => bytes,
            Self::Empty => &[],
        }
    }
}

/// Shows what kind and how long, not what: payloads hold personal data.
impl fmt::Debug for Data {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            Self::Json(_) => "Json",
            Self::Text(_) => "Text",
            Self::Binary(_) => "Binary",
            Self::Empty => return f.write_str("Empty"),
        };
        write!(f, "{name}({} bytes)", self.bytes().len())
    }
}

/// One event out of a verified request. A batch gives several, in the order in which it holds them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// The delivery's identity: the same again when the provider sends the same again. For the events of a batch that have
    /// no identity of their own, the batch's with `#index`.
    pub id: String,
    /// What tells it from every other delivery, where its id alone does not: CloudEvents have ids that are unique within
    /// their `source`.
    pub identity: Option<String>,
    /// The CloudEvent's `type`.
    pub event_type: String,
    /// The thing that the event type names; second token of the subject after the source. Not encoded.
    pub entity: String,
    /// What happened to it, in the provider's own word. Not encoded.
    pub verb: String,
    /// The ordering key (`partitionkey`); the entity's name where there is none.
    pub key: Option<String>,
    /// When it happened, by the provider, in microseconds since 1970-01-01 UTC.
    pub time: Option<i64>,
    /// The CloudEvent's `source`, if the provider's mapping has one.
    pub source: Option<String>,
    /// The CloudEvent's `subject`: the entity's id.
    pub subject: Option<String>,
    /// The provider's own sequence, zero-padded so that byte order is its order.
    pub sequence: Option<String>,
    /// The CloudEvent's `datacontenttype`.
    pub content_type: Option<String>,
    /// The CloudEvent's `data`.
    pub data: Data,
    /// Headers worth keeping: name in lower case and value, by the provider's allow-list. Never one that holds a secret.
    pub headers: Vec<(String, String)>,
    /// Further CloudEvents attributes, checked for name and value (`cloudevents` only).
    pub extensions: Vec<(String, String)>,
    /// How much of this was signed.
    pub integrity: Integrity,
}
