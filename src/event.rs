//! Events on their way from the normalizer to the publisher.
//!
//! A batch is one buffer that its events are slices of: an event is written once and never copied again, and its bytes
//! live exactly until the broker has acknowledged the last event of the batch.

use async_nats::Subject;
use bytes::Bytes;
use headgate_sdk::{Position, Progress};
use serde_json::Value;
use tokio::sync::OwnedSemaphorePermit;

/// What the normalizer hands on at one time, in order.
#[derive(Debug)]
pub struct Batch {
    /// What is to be done, in order. Nothing at all: more waits for room, which only acknowledgements make.
    pub items: Vec<Item>,
    /// The share of the source's memory that the batch takes; given back when its last event is acknowledged.
    pub permit: Option<OwnedSemaphorePermit>,
}

/// One thing to do.
#[derive(Debug)]
pub enum Item {
    /// Publish this event.
    Event(Event),
    /// Keep this among the dead letters.
    DeadLetter(Box<DeadLetter>),
    /// Everything before this progress has been handed on; nothing to publish.
    Mark(Progress),
}

/// One encoded event.
#[derive(Clone, Debug)]
pub struct Event {
    /// The subject to publish on.
    pub subject: Subject,
    /// In binary mode the attributes as `ce-name: value\r\n` lines; empty in structured mode.
    pub head: Bytes,
    /// In structured mode the whole CloudEvent, in binary mode its data.
    pub payload: Bytes,
    /// Where in `payload` the member `"data":…` begins and ends; in binary mode the whole of it.
    pub data: (u32, u32),
    /// Its place in the source's order.
    pub position: Position,
    /// Where its transaction ends in the log, if this is the last event of it.
    pub transaction_end: Option<u64>,
    /// Whether it is the last event of a transaction (`txlast`), rather than one that stands alone or has more behind it.
    pub last_of_transaction: bool,
    /// Commit time in microseconds since 1970-01-01 UTC; 0 where there is none.
    pub committed_at: i64,
    /// How far the source's snapshots are with this event; empty where there are none.
    pub places: Bytes,
}

/// Something that cannot be published as the event it should have been.
#[derive(Clone, Debug)]
pub struct DeadLetter {
    /// The place it would have had in the source's order; with the source's name it makes the dead letter's id.
    pub position: Position,
    /// One word: `unencodable`, `too-large`.
    pub reason: &'static str,
    /// What is wrong, for people.
    pub detail: String,
    /// The table, where it is known.
    pub table: Option<String>,
    /// What could be kept of the content, as JSON.
    pub content: Value,
}

impl DeadLetter {
    /// What it takes in memory, in bytes, about.
    #[must_use]
    pub fn weight(&self) -> usize {
        size_of::<Self>() + self.detail.len() + weight(&self.content)
    }
}

fn weight(value: &Value) -> usize {
    let within = match value {
        Value::String(text) => text.len(),
        Value::Array(items) => items.iter().map(weight).sum(),
        Value::Object(members) => {
            members.iter().map(|(name, member)| size_of::<String>() + name.len() + weight(member)).sum()
        }
        Value::Number(number) => number.to_string().len(),
        Value::Null | Value::Bool(_) => 0,
    };
    size_of::<Value>() + within
}
