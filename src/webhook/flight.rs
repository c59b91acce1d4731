//! Turns under way to the broker: sent, in their order, and not acknowledged yet. No I/O.
//!
//! Each message is answered by a tag of its own, for the stream may answer a message that it has already before the one that
//! was sent ahead of it. A turn is answered when all its messages and all turns before it are.

use super::{lane::Answer, message::Message};
use crate::{
    broker::wire::{self, Unstored},
    status::SourceState,
};
use headgate_sdk::clock;
use std::collections::VecDeque;
use tokio::time::Instant;

/// The broker does not take a message.
#[derive(Debug, thiserror::Error)]
#[error("the broker does not take deliveries: {0}")]
pub(super) struct Refused(String);

/// A turn whose messages were sent.
#[derive(Debug)]
struct Turn {
    messages: Vec<Message>,
    /// The tag of its first message.
    first: u64,
    /// How many are not acknowledged.
    left: usize,
    /// The highest of the stream's sequences so far.
    stored: u64,
    received_at: i64,
    came: Instant,
    safe: Answer,
}

/// All turns under way, oldest first.
#[derive(Debug, Default)]
pub(super) struct Flight {
    turns: VecDeque<Turn>,
    next_tag: u64,
}

impl Flight {
    pub(super) fn is_empty(&self) -> bool {
        self.turns.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.turns.len()
    }

    /// The tag of the next message that is sent; those behind it follow it.
    pub(super) fn next_tag(&self) -> u64 {
        self.next_tag
    }

    /// When the oldest turn came.
    pub(super) fn oldest(&self) -> Option<Instant> {
        self.turns.front().map(|turn| turn.came)
    }

    /// Adds a turn whose messages, never none, were sent from [`next_tag`](Self::next_tag) on.
    pub(super) fn push(&mut self, messages: Vec<Message>, received_at: i64, came: Instant, safe: Answer) {
        let (first, left) = (self.next_tag, messages.len());
        self.next_tag += left as u64;
        self.turns.push_back(Turn { messages, first, left, stored: 0, received_at, came, safe });
    }

    /// Takes in an answer, and answers the turns that are safe with it.
    pub(super) fn land(&mut self, answer: &wire::Answer, state: &SourceState) -> Result<(), Refused> {
        let ack = answer.ack()?;
        let stray = || Refused("an acknowledgement of nothing that was sent".to_owned());
        let tag = answer.tag.ok_or_else(stray)?;
        let at = self.turns.partition_point(|turn| turn.first <= tag).checked_sub(1).ok_or_else(stray)?;
        let turn = self.turns.get_mut(at).ok_or_else(stray)?;
        let index = usize::try_from(tag - turn.first).unwrap_or(usize::MAX);
        let message = turn.messages.get(index).ok_or_else(stray)?;
        turn.left = turn.left.checked_sub(1).ok_or_else(stray)?;
        turn.stored = turn.stored.max(ack.sequence);
        let metrics = &state.metrics;
        if ack.duplicate {
            metrics.deduplicated.inc();
        } else {
            metrics.published.inc();
            metrics.published_bytes.inc_by(message.size() as u64);
        }
        if at > 0 || turn.left > 0 {
            return Ok(());
        }
        let now = clock::now();
        while let Some(turn) = self.turns.pop_front_if(|turn| turn.left == 0) {
            if let Some(last) = turn.messages.last() {
                state.acked(super::position(last.sequence), turn.stored, turn.received_at);
            }
            metrics.commit_to_ack.observe((now - turn.received_at).max(0) as f64 / 1e6);
            // Who does not wait any more has closed its connection.
            let _ = turn.safe.send(Ok(()));
        }
        Ok(())
    }

    /// What is not answered, in its order.
    pub(super) fn into_turns(self) -> Vec<(Vec<Message>, Answer)> {
        self.turns.into_iter().map(|turn| (turn.messages, turn.safe)).collect()
    }
}

impl From<Unstored> for Refused {
    fn from(unstored: Unstored) -> Self {
        Self(unstored.to_string())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{config::ConnectorKind, telemetry::metrics::Metrics};
    use async_nats::StatusCode;
    use bytes::Bytes;
    use std::sync::Arc;
    use tokio::sync::oneshot;

    const PAYLOADS: [&str; 3] = [
        r#"{"stream":"EVENTS_gh","seq":7}"#,
        r#"{"stream":"EVENTS_gh","seq":3,"duplicate":true}"#,
        r#"{"error":{"code":503,"err_code":10077,"description":"maximum messages exceeded"},"stream":"EVENTS_gh","seq":0}"#,
    ];

    fn answer(tag: Option<u64>, payload: &'static str) -> wire::Answer {
        wire::Answer { tag, status: None, payload: Bytes::from_static(payload.as_bytes()) }
    }

    fn message(sequence: u64) -> Message {
        Message {
            id: sequence.to_string(),
            sequence,
            subject: "events.gh.issues.opened.3".to_owned(),
            head: Bytes::new(),
            payload: Bytes::from_static(b"{}"),
            data: (0, 0),
        }
    }

    fn state() -> Arc<SourceState> {
        SourceState::new("gh", ConnectorKind::Webhook, Metrics::new().source("gh"))
    }

    /// Turns of one, two and one messages.
    fn three() -> (Flight, Vec<oneshot::Receiver<Result<(), headgate_webhook::Unkept>>>) {
        let mut flight = Flight::default();
        let mut waiting = Vec::new();
        for sequences in [&[1][..], &[2, 3], &[4]] {
            let (safe, answered) = oneshot::channel();
            let messages = sequences.iter().map(|sequence| message(*sequence)).collect();
            flight.push(messages, 1, Instant::now(), safe);
            waiting.push(answered);
        }
        (flight, waiting)
    }

    #[test]
    fn a_turn_is_answered_after_all_its_messages_and_all_turns_before_it() {
        let [stored, duplicate, _] = PAYLOADS;
        let (state, (mut flight, mut waiting)) = (state(), three());
        for (tag, payload, left) in [(3, duplicate, 3), (1, stored, 3), (0, stored, 2), (2, stored, 0)] {
            flight.land(&answer(Some(tag), payload), &state).unwrap();
            assert_eq!(flight.len(), left, "after {tag}");
            for (at, waiting) in waiting.iter_mut().enumerate().skip(3 - left) {
                assert!(waiting.try_recv().is_err(), "turn {at} was answered after {tag}");
            }
        }
        for mut waiting in waiting {
            assert_eq!(waiting.try_recv(), Ok(Ok(())));
        }
        assert_eq!((state.metrics.published.get(), state.metrics.deduplicated.get()), (3, 1));
        assert_eq!(flight.next_tag(), 4);
    }

    #[test]
    fn what_is_refused_or_strange_answers_nobody() {
        let [stored, _, error] = PAYLOADS;
        let no_stream = wire::Answer { status: Some(StatusCode::NO_RESPONDERS), ..answer(Some(0), "") };
        for wrong in [
            answer(Some(0), error),
            answer(Some(0), "{}"),
            answer(Some(0), "PONG"),
            answer(Some(4), stored),
            answer(None, stored),
            no_stream,
        ] {
            let (mut flight, _waiting) = three();
            assert!(flight.land(&wrong, &state()).is_err(), "{wrong:?}");
            let left: Vec<usize> = flight.into_turns().iter().map(|(messages, _)| messages.len()).collect();
            assert_eq!(left, [1, 2, 1]);
        }
        let (mut flight, _waiting) = three();
        flight.land(&answer(Some(0), stored), &state()).unwrap();
        assert!(flight.land(&answer(Some(0), stored), &state()).is_err(), "answered twice");
    }
}
