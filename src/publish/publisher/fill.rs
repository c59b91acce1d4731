//! From the queue into the window: an event gets its sequence here, and everything that is not a plain event is dealt
//! with, in its place.

use super::{HEADER_ROOM, Publisher, queue::Queued};
use crate::{
    config::Publish,
    event::{Event, Item},
    publish::Content,
    status::SourceState,
};
use headgate_sdk::{Fault, Progress};
use std::{sync::Arc, time::Duration};
use tokio::time::sleep;

impl Publisher {
    /// Takes what the window has room for. `open`: more may come.
    pub(super) async fn fill(&mut self, open: bool) -> Result<(), Fault> {
        match self.setting.publish {
            Publish::Chain => {
                while self.window.len() < self.setting.window {
                    let Some(queued) = self.queue.pop() else { break };
                    match queued {
                        // Nearly all of them; spared the way of the rare ones, which would move them many times.
                        Queued::Item(Item::Event(event)) if self.is_plain(&event) => self.window.push(event),
                        rare => {
                            if let Some(event) = Box::pin(self.pass(rare)).await? {
                                self.window.push(event);
                            }
                        }
                    }
                }
                Ok(())
            }
            Publish::Atomic => self.fill_atomic(open).await,
        }
    }

    /// Deals with everything that is not a plain event to publish; returns the event if it is one.
    pub(super) async fn pass(&mut self, queued: Queued) -> Result<Option<Event>, Fault> {
        let item = match queued {
            Queued::Item(item) => item,
            Queued::BatchEnd(permit) => {
                self.window.end_batch(permit);
                self.settle_idle();
                return Ok(None);
            }
        };
        match item {
            Item::Event(event) => {
                if self.tail.is_some_and(|tail| event.position <= tail) {
                    // Another gateway was quicker with the same event.
                    if let Some(log) = event.transaction_end {
                        self.window.mark(Progress { epoch: event.position.epoch, log });
                        self.settle_idle();
                    }
                    return Ok(None);
                }
                self.fit(event).await.map(Some)
            }
            Item::DeadLetter(letter) => {
                let (context, dead_letters) = (self.context.clone(), self.dead_letters.clone());
                persist(&self.state, || dead_letters.keep(&context, &letter)).await;
                self.state.metrics.failed.inc();
                Ok(None)
            }
            Item::Mark(progress) => {
                self.window.mark(progress);
                self.settle_idle();
                Ok(None)
            }
        }
    }

    /// Whether the event is new to the stream and small enough to be published as it is.
    fn is_plain(&self, event: &Event) -> bool {
        self.tail.is_none_or(|tail| event.position > tail) && weight(event) <= self.limit
    }

    /// Marks behind an empty window are done at once.
    fn settle_idle(&mut self) {
        if self.window.is_empty() {
            let acked = self.window.ack(self.window.last_sequence());
            self.settle(&acked);
        }
    }

    /// The event as it can be published: over the payload limit its data goes to the object store.
    async fn fit(&mut self, event: Event) -> Result<Event, Fault> {
        if weight(&event) <= self.limit {
            return Ok(event);
        }
        let content = Content {
            head: event.head.clone(),
            payload: event.payload.clone(),
            data: event.data.0 as usize..event.data.1 as usize,
        };
        let name = event.position.to_string();
        let what = format!("event {name}");
        let (context, claim_check) = (self.context.clone(), self.claim_check.clone());
        let Content { head, payload, .. } =
            persist(&self.state, || claim_check.check_in(&context, &content, &name, &what)).await;
        Ok(Event { head, payload, ..event })
    }
}

/// Tries until it is done: what is kept beside the stream must be kept before the stream goes on.
async fn persist<T, F>(state: &Arc<SourceState>, mut attempt: impl FnMut() -> F) -> T
where
    F: Future<Output = Result<T, Fault>>,
{
    let mut pause = Duration::from_millis(100);
    let mut held_up = None;
    loop {
        match attempt().await {
            Ok(done) => return done,
            Err(fault) => state.still_held_up(&mut held_up, &fault),
        }
        sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(5));
    }
}

/// What an event's message weighs at most.
fn weight(event: &Event) -> usize {
    event.head.len() + event.payload.len() + event.places.len() + HEADER_ROOM
}
