//! What the broker answers to a publish, and what ends a chain.
//!
//! Acknowledgements: <https://docs.nats.io/reference/reference-protocols/nats_api_reference> (publish acknowledgement).

use crate::broker::wire::{Answer, Lost};
use async_nats::StatusCode;
use serde::Deserialize;

/// A publish acknowledgement of JetStream.
#[derive(Debug, Deserialize)]
struct PubAck {
    #[serde(default)]
    seq: u64,
    #[serde(default)]
    error: Option<PubError>,
}

#[derive(Debug, Deserialize)]
pub(super) struct PubError {
    #[serde(default)]
    pub(super) err_code: u64,
    #[serde(default)]
    description: String,
}

/// Why the chain has to be taken up anew.
#[derive(Debug)]
pub(super) enum Broken {
    /// The broker refused a message of the chain: it, or one before it, was not stored.
    Refused(PubError),
    /// No stream answered.
    NoResponders,
    /// An acknowledgement is overdue.
    Silence,
    /// The connection was lost, and whatever was in it.
    Disconnected(Lost),
}

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Refused(error) => write!(f, "refused ({}): {}", error.err_code, error.description),
            Self::NoResponders => f.write_str("no stream answers"),
            Self::Silence => f.write_str("an acknowledgement is overdue"),
            Self::Disconnected(lost) => write!(f, "the connection was lost: {lost}"),
        }
    }
}

/// The sequence up to which an answer proves everything stored.
pub(super) fn read(answer: &Answer) -> Result<u64, Broken> {
    if answer.status == Some(StatusCode::NO_RESPONDERS) {
        return Err(Broken::NoResponders);
    }
    match serde_json::from_slice::<PubAck>(&answer.payload) {
        Ok(PubAck { seq, error: None }) if seq > 0 => Ok(seq),
        Ok(PubAck { error: Some(error), .. }) => Err(Broken::Refused(error)),
        _ => {
            let description = "an acknowledgement that cannot be read".to_owned();
            Err(Broken::Refused(PubError { err_code: 0, description }))
        }
    }
}
