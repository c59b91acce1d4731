//! What was taken from the normalizer and has no place in the window yet. Pure.

use crate::event::{Batch, Event, Item};
use std::collections::VecDeque;
use tokio::sync::OwnedSemaphorePermit;

/// One entry of the queue.
#[derive(Debug)]
pub(super) enum Queued {
    Item(Item),
    BatchEnd(OwnedSemaphorePermit),
}

/// The queue, and how much is in it.
#[derive(Debug, Default)]
pub(super) struct Queue {
    entries: VecDeque<Queued>,
    events: usize,
    bytes: usize,
    pressed: bool,
}

impl Queue {
    pub(super) fn push(&mut self, batch: Batch) {
        // What it waited with comes right behind.
        self.pressed = batch.items.is_empty();
        for item in batch.items {
            if let Item::Event(event) = &item {
                self.events += 1;
                self.bytes += event.payload.len();
            }
            self.entries.push_back(Queued::Item(item));
        }
        if let Some(permit) = batch.permit {
            self.entries.push_back(Queued::BatchEnd(permit));
        }
    }

    pub(super) fn pop(&mut self) -> Option<Queued> {
        let queued = self.entries.pop_front()?;
        if let Queued::Item(Item::Event(event)) = &queued {
            self.events -= 1;
            self.bytes -= event.payload.len();
        }
        Some(queued)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Queued> {
        self.entries.iter()
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many events are in it.
    pub(super) fn events(&self) -> usize {
        self.events
    }

    /// What the payloads of its events weigh.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether the normalizer waits for room: no more will come until something of it is acknowledged.
    pub(super) fn is_pressed(&self) -> bool {
        self.pressed
    }

    /// The oldest event in it.
    pub(super) fn first_event(&self) -> Option<&Event> {
        self.entries.iter().find_map(|queued| match queued {
            Queued::Item(Item::Event(event)) => Some(event),
            _ => None,
        })
    }
}
