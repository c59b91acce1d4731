//! What ends a chain.

use crate::broker::wire::{Lost, Refusal, Unstored};
use async_nats::jetstream::ErrorCode;

/// Why the chain has to be taken up anew.
#[derive(Debug)]
pub(super) enum Broken {
    /// A message of the chain, or one before it, was not stored.
    Unstored(Unstored),
    /// An acknowledgement is overdue.
    Silence,
    /// The connection was lost, and whatever was in it.
    Disconnected(Lost),
}

impl Broken {
    /// Whether the broker would refuse the same again at once, for reasons of its own: no room, say. Not so where only the
    /// place in the stream was wrong.
    pub(super) fn is_lasting(&self) -> bool {
        match self {
            Self::Unstored(Unstored::Refused(refusal)) => {
                refusal.code != ErrorCode::STREAM_WRONG_LAST_SEQUENCE
            }
            Self::Unstored(_) => true,
            Self::Silence | Self::Disconnected(_) => false,
        }
    }
}

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unstored(Unstored::Refused(Refusal { code, description })) => {
                write!(f, "refused ({}): {description}", code.0)
            }
            Self::Unstored(unstored) => unstored.fmt(f),
            Self::Silence => f.write_str("an acknowledgement is overdue"),
            Self::Disconnected(lost) => write!(f, "the connection was lost: {lost}"),
        }
    }
}
