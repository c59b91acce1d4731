//! Atomic batches: for brokers that sync on every write, where a batch costs one sync.
//!
//! A batch holds whole transactions, so that a transaction of up to [`ATOMIC_MAX`] events becomes visible at once; only
//! its first message names the sequence that it must follow, and only its last asks for the acknowledgement (ADR-50,
//! <https://github.com/nats-io/nats-architecture-and-design/blob/main/adr/ADR-50.md>).

use super::{Publisher, queue::Queued, send::line};
use crate::event::Item;
use headgate_sdk::Fault;

/// The most messages that a broker takes as one atomic batch.
pub(super) const ATOMIC_MAX: usize = 1000;

/// The batch that is under way: all messages of the window.
#[derive(Debug)]
pub(super) struct AtomicBatch {
    id: String,
    /// The sequence that its first message must follow.
    follows: u64,
    count: u64,
}

impl AtomicBatch {
    /// Whether the message that would follow `expected` is its first.
    pub(super) fn begins_with(&self, expected: u64) -> bool {
        expected == self.follows
    }

    /// Whether the message that would follow `expected` is its last, which the broker answers.
    pub(super) fn ends_with(&self, expected: u64) -> bool {
        expected + 1 == self.follows + self.count
    }

    /// Writes the header lines of a message. One event alone needs none.
    pub(super) fn write(&self, headers: &mut Vec<u8>, expected: u64) {
        if self.count == 1 {
            return;
        }
        line(headers, "Nats-Batch-Id", self.id.as_bytes());
        let nth = expected - self.follows + 1;
        line(headers, "Nats-Batch-Sequence", itoa::Buffer::new().format(nth).as_bytes());
        if self.ends_with(expected) {
            line(headers, "Nats-Batch-Commit", b"1");
        }
    }
}

impl Publisher {
    /// Takes up to [`ATOMIC_MAX`] events into an empty window as one atomic batch, whole transactions where they fit.
    pub(super) async fn fill_atomic(&mut self, open: bool) -> Result<(), Fault> {
        // Once is not always enough: what is taken may hold no event, and then no acknowledgement would wake us again.
        while self.window.is_empty() && !self.queue.is_empty() && self.fill_next_atomic(open).await? {}
        Ok(())
    }

    /// Takes the next batch from the queue; `false` where more has to come first.
    async fn fill_next_atomic(&mut self, open: bool) -> Result<bool, Fault> {
        // Up to the last end of a transaction; into a transaction only if it is larger than a batch or than the memory.
        let (mut events, mut whole) = (0, 0);
        for (nth, queued) in self.queue.iter().enumerate() {
            match queued {
                Queued::Item(Item::Event(event)) => {
                    if events == ATOMIC_MAX {
                        break;
                    }
                    events += 1;
                    if event.transaction_end.is_some() {
                        whole = nth + 1;
                    }
                }
                // What is not an event goes with the event before it.
                _ if whole == nth => whole = nth + 1,
                _ => {}
            }
        }
        let waits =
            open && !self.queue.is_pressed() && events < ATOMIC_MAX && self.queue.bytes() < ATOMIC_MAX * 1024;
        let take = match whole {
            0 if waits => return Ok(false),
            0 => self.queue.len(),
            whole => whole,
        };
        let mut batch = Vec::with_capacity(events);
        // Marks and ends of batches stand for the events before them, which enter the window only when all are known.
        let mut behind = Vec::new();
        for _ in 0..take {
            let Some(queued) = self.queue.pop() else { break };
            match queued {
                Queued::Item(Item::Mark(_)) | Queued::BatchEnd(_) if !batch.is_empty() => behind.push(queued),
                _ => batch.extend(self.pass(queued).await?),
            }
            if batch.len() == ATOMIC_MAX {
                break;
            }
        }
        if !batch.is_empty() {
            let follows = self.window.last_sequence();
            let id = format!("{}-{follows}", self.run);
            self.atomic = Some(AtomicBatch { id, follows, count: batch.len() as u64 });
        }
        for event in batch {
            self.window.push(event);
        }
        for queued in behind {
            self.pass(queued).await?;
        }
        Ok(true)
    }
}
