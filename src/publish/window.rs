//! What was published and is not acknowledged yet. Pure: no clock, no I/O.

use crate::event::Event;
use headgate_sdk::{Position, Progress};
use std::collections::VecDeque;
use tokio::sync::OwnedSemaphorePermit;

/// One entry of the window.
#[derive(Debug)]
enum Entry {
    /// A message and the stream sequence that it was given.
    Message { event: Event, sequence: u64 },
    /// Everything before this progress is in the entries before it.
    Mark(Progress),
    /// The end of a batch: its memory is free when everything before it is acknowledged.
    BatchEnd(#[allow(dead_code, reason = "held for its drop")] OwnedSemaphorePermit),
}

/// The window of a chain: message n expects to be stored right after message n-1.
#[derive(Debug)]
pub(super) struct Window {
    entries: VecDeque<Entry>,
    messages: usize,
    /// The entries before this one have been sent.
    sent: usize,
    /// Messages that have not been sent.
    unsent: usize,
    /// Sequence of the last message given one.
    last_sequence: u64,
}

/// What an acknowledgement brought.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Acked {
    /// How many messages it covered.
    pub messages: u64,
    /// Their payload bytes.
    pub bytes: u64,
    /// The last position among them.
    pub position: Option<Position>,
    /// How far the source's log is covered by messages.
    pub streamed: Option<Progress>,
    /// How far it is covered by marks that nothing was published for.
    pub marked: Option<Progress>,
    /// Commit times of the transactions that ended, oldest first.
    pub commits: Vec<i64>,
}

impl Window {
    /// An empty window on a stream that ends at `last_sequence`.
    pub(super) fn new(last_sequence: u64) -> Self {
        Self { entries: VecDeque::new(), messages: 0, sent: 0, unsent: 0, last_sequence }
    }

    /// The sequence that the next message must follow.
    pub(super) fn last_sequence(&self) -> u64 {
        self.last_sequence
    }

    /// Messages under way.
    pub(super) fn len(&self) -> usize {
        self.messages
    }

    /// Whether nothing at all is under way.
    pub(super) fn is_empty(&self) -> bool {
        self.messages == 0
    }

    /// Commit time of the oldest event under way.
    pub(super) fn oldest_commit(&self) -> Option<i64> {
        self.entries.iter().find_map(|entry| match entry {
            // What a snapshot read has no commit.
            Entry::Message { event, .. } => (event.committed_at != 0).then_some(event.committed_at),
            Entry::Mark(_) | Entry::BatchEnd(_) => None,
        })
    }

    /// Adds a message.
    pub(super) fn push(&mut self, event: Event) {
        self.last_sequence += 1;
        self.messages += 1;
        self.unsent += 1;
        self.entries.push_back(Entry::Message { event, sequence: self.last_sequence });
    }

    /// How many messages have not been sent.
    pub(super) fn unsent(&self) -> usize {
        self.unsent
    }

    /// The next message to send, and the sequence that it must follow.
    pub(super) fn next_unsent(&mut self) -> Option<(&Event, u64)> {
        while let Some(entry) = self.entries.get(self.sent) {
            self.sent += 1;
            if let Entry::Message { event, sequence } = entry {
                self.unsent -= 1;
                return Some((event, sequence - 1));
            }
        }
        None
    }

    /// Adds a mark behind everything under way.
    pub(super) fn mark(&mut self, progress: Progress) {
        self.entries.push_back(Entry::Mark(progress));
    }

    /// Adds the end of a batch.
    pub(super) fn end_batch(&mut self, permit: OwnedSemaphorePermit) {
        self.entries.push_back(Entry::BatchEnd(permit));
    }

    /// Takes out everything that `done` says is stored, and the marks and batch ends behind it.
    fn take(&mut self, mut done: impl FnMut(&Event, u64) -> bool) -> Acked {
        let mut acked = Acked::default();
        while let Some(entry) = self.entries.front() {
            match entry {
                Entry::Message { event, sequence } => {
                    if !done(event, *sequence) {
                        break;
                    }
                    acked.messages += 1;
                    acked.bytes += event.payload.len() as u64;
                    acked.position = Some(event.position);
                    if let Some(log) = event.transaction_end {
                        acked.streamed = Some(Progress { epoch: event.position.epoch, log });
                        if event.committed_at != 0 {
                            acked.commits.push(event.committed_at);
                        }
                    }
                    self.messages -= 1;
                    if self.sent == 0 {
                        self.unsent -= 1;
                    }
                }
                Entry::Mark(progress) => acked.marked = Some(*progress),
                Entry::BatchEnd(_) => {}
            }
            self.entries.pop_front();
            self.sent = self.sent.saturating_sub(1);
        }
        acked
    }

    /// The broker holds everything up to `sequence`.
    pub(super) fn ack(&mut self, sequence: u64) -> Acked {
        self.take(|_, given| given <= sequence)
    }

    /// Whether the message under way that was given `sequence` is the event at `position`.
    pub(super) fn has(&self, sequence: u64, position: Option<Position>) -> bool {
        self.entries.iter().any(|entry| match entry {
            Entry::Message { event, sequence: given } => {
                *given == sequence && Some(event.position) == position
            }
            Entry::Mark(_) | Entry::BatchEnd(_) => false,
        })
    }

    /// The stream was found to end at `last_sequence` with the event at `position`: what it holds is taken out, what is
    /// left is given new sequences and is to be sent again.
    pub(super) fn resync(&mut self, last_sequence: u64, position: Option<Position>) -> Acked {
        let acked = self.take(|event, _| position.is_some_and(|at| event.position <= at));
        (self.sent, self.unsent) = (0, self.messages);
        self.last_sequence = last_sequence;
        for entry in &mut self.entries {
            if let Entry::Message { sequence, .. } = entry {
                self.last_sequence += 1;
                *sequence = self.last_sequence;
            }
        }
        acked
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use async_nats::Subject;
    use bytes::Bytes;

    fn event(commit: u64, index: u32, end: Option<u64>) -> Event {
        Event {
            subject: Subject::from_static("events.shop.orders.created.0"),
            head: Bytes::new(),
            payload: Bytes::from_static(b"{}"),
            data: (0, 2),
            position: Position { epoch: 1, commit, index },
            transaction_end: end,
            last_of_transaction: end.is_some(),
            committed_at: 5,
            places: Bytes::new(),
        }
    }

    /// Sends everything; the index of each message and the sequence that it must follow.
    fn unsent(window: &mut Window) -> Vec<(u32, u64)> {
        let count = window.unsent();
        let sent: Vec<_> = std::iter::from_fn(|| {
            window.next_unsent().map(|(event, expected)| (event.position.index, expected))
        })
        .collect();
        assert_eq!((sent.len(), window.unsent()), (count, 0));
        sent
    }

    #[test]
    fn an_ack_covers_everything_before_it_and_the_marks_behind() {
        let mut window = Window::new(10);
        window.push(event(100, 0, None));
        window.push(event(100, 1, Some(120)));
        window.mark(Progress { epoch: 1, log: 130 });
        window.push(event(140, 0, Some(150)));
        assert_eq!(unsent(&mut window), [(0, 10), (1, 11), (0, 12)]);
        let acked = window.ack(12);
        assert_eq!((acked.messages, acked.bytes), (2, 4));
        assert_eq!(acked.position, Some(Position { epoch: 1, commit: 100, index: 1 }));
        assert_eq!(acked.streamed, Some(Progress { epoch: 1, log: 120 }));
        assert_eq!(acked.marked, Some(Progress { epoch: 1, log: 130 }));
        assert_eq!(window.len(), 1);
        assert_eq!(window.ack(12), Acked::default());
    }

    #[test]
    fn a_resync_keeps_what_the_stream_lacks_and_renumbers_it() {
        let mut window = Window::new(10);
        for index in 0..4 {
            window.push(event(100, index, None));
        }
        // Somebody else wrote one message behind our second.
        let acked = window.resync(13, Some(Position { epoch: 1, commit: 100, index: 1 }));
        assert_eq!(acked.messages, 2);
        assert_eq!(unsent(&mut window), [(2, 13), (3, 14)]);
        assert_eq!(window.last_sequence(), 15);
    }

    #[test]
    fn what_was_sent_is_not_sent_again_but_by_a_resync() {
        let mut window = Window::new(0);
        window.push(event(100, 0, None));
        window.mark(Progress { epoch: 1, log: 110 });
        window.push(event(100, 1, None));
        assert_eq!(window.next_unsent().map(|(_, expected)| expected), Some(0));
        assert_eq!(window.ack(1).messages, 1);
        window.push(event(100, 2, None));
        assert_eq!(unsent(&mut window), [(1, 1), (2, 2)]);
        assert_eq!(window.ack(2).messages, 1);
        assert_eq!(unsent(&mut window), []);
        // The stream holds what was acknowledged, and somebody else's third.
        assert_eq!(window.resync(3, Some(Position { epoch: 1, commit: 100, index: 1 })).messages, 0);
        assert_eq!(unsent(&mut window), [(2, 3)]);
        // It is stored although it was never asked for; what follows was not sent when the connection broke.
        window.push(event(100, 3, None));
        assert_eq!(window.resync(4, Some(Position { epoch: 1, commit: 100, index: 2 })).messages, 1);
        assert_eq!(unsent(&mut window), [(3, 4)]);
    }

    #[test]
    fn a_message_is_ours_in_its_place_alone() {
        let mut window = Window::new(10);
        let at = |index| Some(Position { epoch: 1, commit: 100, index });
        assert!(!window.has(10, at(0)));
        window.push(event(100, 0, None));
        window.push(event(100, 1, Some(100)));
        assert!(window.has(11, at(0)) && window.has(12, at(1)));
        assert!(!window.has(12, at(0)), "somebody told one event more before it");
        assert!(!window.has(11, at(1)), "or one less");
        assert!(!window.has(12, None));
    }

    #[test]
    fn a_mark_on_an_empty_window_is_done_at_the_next_ack_of_anything() {
        let mut window = Window::new(0);
        window.mark(Progress { epoch: 1, log: 7 });
        assert!(window.is_empty());
        assert_eq!(window.ack(0).marked, Some(Progress { epoch: 1, log: 7 }));
    }
}
