//! What JetStream answers to a publish
//! (<https://docs.nats.io/reference/reference-protocols/nats_api_reference>, publish acknowledgement).

use super::Answer;
use async_nats::{StatusCode, jetstream::ErrorCode};
use serde::Deserialize;

/// A message is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack {
    /// Where in the stream.
    pub sequence: u64,
    /// Whether it was there already, by its id.
    pub duplicate: bool,
}

/// No message is stored, as far as an answer says.
#[derive(Debug, thiserror::Error)]
pub enum Unstored {
    /// There is no stream for its subject.
    #[error("no stream answers")]
    NoStream,
    /// The stream refuses it.
    #[error("{} ({})", .0.description, .0.code.0)]
    Refused(Refusal),
    /// The answer is none of a stream.
    #[error("an acknowledgement that cannot be read")]
    Unreadable,
}

/// Why a stream refuses a message.
#[derive(Debug, Deserialize)]
pub struct Refusal {
    /// As JetStream numbers it.
    #[serde(default, rename = "err_code")]
    pub code: ErrorCode,
    /// For people.
    #[serde(default)]
    pub description: String,
}

#[derive(Deserialize)]
struct Reply {
    #[serde(default)]
    seq: u64,
    #[serde(default)]
    duplicate: bool,
    error: Option<Refusal>,
}

impl Answer {
    /// Reads it as the acknowledgement of a message.
    ///
    /// # Errors
    /// It is none.
    pub fn ack(&self) -> Result<Ack, Unstored> {
        if self.status == Some(StatusCode::NO_RESPONDERS) {
            return Err(Unstored::NoStream);
        }
        match serde_json::from_slice(&self.payload) {
            Ok(Reply { error: Some(refusal), .. }) => Err(Unstored::Refused(refusal)),
            Ok(Reply { seq, duplicate, error: None }) if seq > 0 => Ok(Ack { sequence: seq, duplicate }),
            _ => Err(Unstored::Unreadable),
        }
    }
}
