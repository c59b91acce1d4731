//! From the window onto the wire, with the headers that make the chain.

use super::{Publisher, atomic::AtomicBatch};
use crate::{
    broker::wire::Wire,
    config::{Mode, Publish},
    event::Event,
    publish::{POSITION_HEADER, stream::write_position},
    snapshot::PLACES_HEADER,
};
use tokio::time::Instant;

/// An acknowledgement is asked for at least this often: one proves all before it, so more would only cost.
const ASK_EVERY: usize = 256;

impl Publisher {
    /// Writes what the window holds and the wire has room for.
    pub(super) fn send(&mut self, wire: &mut Wire) {
        // Nothing follows soon: the last one has to ask, or nobody would know when it is stored. Beside atomic batches
        // the window is filled only when it is empty.
        let ends_burst = self.queue.events() == 0
            || self.window.len() >= self.setting.window
            || self.setting.publish == Publish::Atomic;
        while !wire.is_full() {
            // The first message of a run goes alone; an atomic batch does anyway, and is refused as a whole.
            let first = !self.proven && self.atomic.is_none();
            if first && self.window.unsent() < self.window.len() {
                break;
            }
            let last = self.window.unsent() == 1;
            let Some((event, expected)) = self.window.next_unsent() else { break };
            let batch = self.atomic.as_ref();
            let ask = match batch {
                Some(batch) => batch.ends_with(expected),
                None => first || last && ends_burst || self.unasked + 1 >= ASK_EVERY,
            };
            wire.publish(&event.subject, ask, &event.payload, |headers| {
                chain(headers, batch, expected);
                describe(headers, event, self.setting.mode);
            });
            if ask {
                self.asked.push_back((expected + 1, Instant::now()));
                self.unasked = 0;
            } else {
                self.unasked += 1;
            }
        }
    }
}

/// What the message must follow. In an atomic batch only the first says so.
fn chain(headers: &mut Vec<u8>, batch: Option<&AtomicBatch>, expected: u64) {
    if batch.is_none_or(|batch| batch.begins_with(expected)) {
        line(headers, "Nats-Expected-Last-Sequence", itoa::Buffer::new().format(expected).as_bytes());
    }
    if let Some(batch) = batch {
        batch.write(headers, expected);
    }
}

/// What the message is: its position, how far snapshots are with it, and how the event is spelled.
fn describe(headers: &mut Vec<u8>, event: &Event, mode: Mode) {
    headers.extend_from_slice(POSITION_HEADER.as_bytes());
    headers.extend_from_slice(b": ");
    write_position(event.position, event.transaction_end, headers);
    headers.extend_from_slice(b"\r\n");
    if !event.places.is_empty() {
        line(headers, PLACES_HEADER, &event.places);
    }
    match mode {
        Mode::Structured => line(headers, "Content-Type", b"application/cloudevents+json"),
        Mode::Binary => {
            headers.extend_from_slice(&event.head);
            if event.last_of_transaction {
                line(headers, "ce-txlast", b"true");
            }
        }
    }
}

/// One header line.
pub(super) fn line(headers: &mut Vec<u8>, name: &str, value: &[u8]) {
    headers.extend_from_slice(name.as_bytes());
    headers.extend_from_slice(b": ");
    headers.extend_from_slice(value);
    headers.extend_from_slice(b"\r\n");
}
