//! Publishes a source's events to its stream: each once, in order, and tells what the broker holds durably.
//!
//! * **Order and duplicates**: the stream has one writer, and every message carries the sequence that it must follow
//!   (`Nats-Expected-Last-Sequence`). The broker stores message n+1 only after n, so pipelining can neither reorder nor
//!   leave a hole, a second writer is refused by the broker itself, and one acknowledgement proves all messages before it.
//! * **Durability**: positions come back ([`Durable`]) only for messages that the broker acknowledged, and are released
//!   to the source only after `confirm_delay` ([`release()`]).
//! * **Faults**: after any error, silence or disconnect the publisher reads where the stream really ends and goes on from
//!   there with what it still holds; if the stream lost more than that, the source is read again.
//! * **Shutdown**: when its input closes, the publisher waits for the last acknowledgements and returns.

mod checkpoint;
mod claim_check;
pub(crate) mod dead_letter;
mod publisher;
mod release;
pub mod room;
pub(crate) mod settings;
pub(crate) mod stream;
mod window;

pub use checkpoint::{Announced, CheckpointStore, Landmark, StoredCheckpoint, accept_gap, forget};
pub(crate) use claim_check::{ClaimCheck, Content};
pub use publisher::{Claim, Durable, Identity, Publisher};
pub use release::{DelayLine, release};
pub use stream::{End, SourceStream, findings, stream_name};

/// Header that carries the position of a message's event in its source.
pub const POSITION_HEADER: &str = "Headgate-Position";
