//! Atomic batches: for brokers that sync on every write, where a batch costs one sync.
//!
//! A batch holds whole transactions, so that a transaction of up to [`ATOMIC_MAX`] events becomes visible at once; only
//! its first message names the sequence that it must follow, and only its last asks for the acknowledgement (ADR-50,
//! <https://github.com/nats-io/nats-architecture-and-design/blob/main/adr/ADR-50.md>).

use super::{EXPECTED_LAST_SEQUENCE, Publisher, Queued};
use crate::event::{Event, Item};
use async_nats::HeaderValue;
use headgate_sdk::Fault;

/// The most messages that a broker takes as one atomic batch.
pub(super) const ATOMIC_MAX: usize = 1000;

impl Publisher {
    /// Publishes up to [`ATOMIC_MAX`] events as one atomic batch, whole transactions where they fit.
    pub(super) async fn publish_atomic(&mut self, open: bool) -> Result<(), Fault> {
        // Once is not always enough: what is taken may hold no event, and then no acknowledgement would wake us again.
        while self.window.is_empty() && !self.queue.is_empty() && self.publish_next_atomic(open).await? {}
        Ok(())
    }

    /// Takes the next batch from the queue and publishes what is to be published of it; `false` where more has to come
    /// first.
    async fn publish_next_atomic(&mut self, open: bool) -> Result<bool, Fault> {
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
        let waits = open && !self.pressed && events < ATOMIC_MAX && self.queued_bytes < ATOMIC_MAX * 1024;
        let take = match whole {
            0 if waits => return Ok(false),
            0 => self.queue.len(),
            whole => whole,
        };
        let mut batch = Vec::with_capacity(events);
        // Marks and ends of batches stand for the events before them, which enter the window only when they are sent.
        let mut behind = Vec::new();
        for _ in 0..take {
            let Some(queued) = self.queue.pop_front() else { break };
            match queued {
                Queued::Item(Item::Mark(_)) | Queued::BatchEnd(_) if !batch.is_empty() => behind.push(queued),
                _ => batch.extend(self.pass(queued).await?),
            }
            if batch.len() == ATOMIC_MAX {
                break;
            }
        }
        self.send_atomic(batch).await?;
        for queued in behind {
            self.pass(queued).await?;
        }
        Ok(true)
    }

    async fn send_atomic(&mut self, batch: Vec<Event>) -> Result<(), Fault> {
        let id = format!("{}-{}", self.generation, self.window.last_sequence());
        let count = batch.len();
        for (nth, event) in batch.into_iter().enumerate() {
            let mut headers = self.headers(&event);
            let (subject, payload) = (event.subject.clone(), event.payload.clone());
            let expected = self.window.push(event);
            // One event alone needs no batch.
            if nth == 0 {
                headers.insert(EXPECTED_LAST_SEQUENCE, HeaderValue::from(expected));
            }
            if count > 1 {
                headers.insert("Nats-Batch-Id", format!("{}-{id}", self.inbox_token()));
                headers.insert("Nats-Batch-Sequence", HeaderValue::from(nth as u64 + 1));
                if nth + 1 == count {
                    headers.insert("Nats-Batch-Commit", "1");
                }
            }
            self.send(subject, headers, payload, nth + 1 == count).await?;
        }
        Ok(())
    }

    fn inbox_token(&self) -> &str {
        self.inbox.rsplit('.').next().unwrap_or_default()
    }
}
