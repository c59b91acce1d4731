//! The event that is held back until it is known whether it was its transaction's last, and what waits for the batch's bytes
//! to be cut.

use super::Encoder;
use crate::event::{DeadLetter, Event, Item};
use async_nats::Subject;
use bytes::Bytes;
use headgate_sdk::{Position, Progress};

/// An event whose end is not written yet.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) start: usize,
    pub(super) data_start: usize,
    pub(super) data_end: usize,
    pub(super) subject: Subject,
    pub(super) position: Position,
    pub(super) committed_at: i64,
    pub(super) places: Bytes,
}

/// An item whose bytes are still in the buffer.
#[derive(Debug)]
pub(super) enum Pending {
    Event {
        held: Held,
        end: usize,
        transaction_end: Option<u64>,
        last: bool,
    },
    /// And what it weighs.
    DeadLetter(Box<DeadLetter>, usize),
    Mark(Progress),
}

impl Pending {
    pub(super) fn cut(self, bytes: &Bytes, structured: bool) -> Item {
        match self {
            Self::Event { held, end, transaction_end, last } => {
                let (head, from) = if structured {
                    (Bytes::new(), held.start)
                } else {
                    (bytes.slice(held.start..held.data_start), held.data_start)
                };
                let offset = |at: usize| u32::try_from(at - from).unwrap_or(u32::MAX);
                Item::Event(Event {
                    subject: held.subject,
                    head,
                    payload: bytes.slice(from..end),
                    data: (offset(held.data_start), offset(held.data_end)),
                    position: held.position,
                    transaction_end,
                    last_of_transaction: last,
                    committed_at: held.committed_at,
                    places: held.places,
                })
            }
            Self::DeadLetter(letter, _) => Item::DeadLetter(letter),
            Self::Mark(progress) => Item::Mark(progress),
        }
    }

    /// What a dead letter weighs; 0 for what is in the buffer, or next to nothing.
    pub(super) fn letter_bytes(&self) -> usize {
        if let Self::DeadLetter(_, bytes) = self { *bytes } else { 0 }
    }
}

impl Encoder {
    /// Takes in what cannot be an event, in its place.
    pub(super) fn bury(&mut self, letter: DeadLetter) {
        let bytes = letter.weight();
        self.letter_bytes += bytes;
        self.items.push(Pending::DeadLetter(Box::new(letter), bytes));
    }

    /// Closes the event that was held back.
    pub(super) fn close(&mut self, transaction_end: Option<u64>) {
        let Some(held) = self.held.take() else { return };
        let last = transaction_end.is_some() && self.transaction.is_open;
        if self.look.style.form.is_structured() {
            self.buffer.extend_from_slice(if last { b",\"txlast\":true}" } else { b"}" });
        }
        self.items.push(Pending::Event { held, end: self.buffer.len(), transaction_end, last });
    }

    /// Ends the event that is held back, which is no longer its transaction's last; gives where that was, and where the
    /// next one begins. Nothing is final before [`hold`](Self::hold): cut off from the first on, it is held back as before.
    pub(super) fn begin_event(&mut self) -> (usize, usize) {
        let held_end = self.buffer.len();
        if self.held.is_some() && self.form().is_structured() {
            self.buffer.push(b'}');
        }
        (held_end, self.buffer.len())
    }

    /// Holds back the event that was written from `start` on.
    pub(super) fn hold(&mut self, start: usize, data_start: usize, subject: Subject, position: Position) {
        let data_end = self.buffer.len();
        self.transaction.events += 1;
        // A row that was only read has no commit whose delay could be told.
        let committed_at = if self.snapshot.is_none() { self.transaction.committed_at } else { 0 };
        let places = self.places.clone();
        self.streamed = Some(position);
        let event = Held { start, data_start, data_end, subject, position, committed_at, places };
        if let Some(held) = self.held.replace(event) {
            self.items.push(Pending::Event { held, end: start, transaction_end: None, last: false });
        }
    }
}
