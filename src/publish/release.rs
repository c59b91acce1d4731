//! Holds back what the source's log may release until the broker has it for certain.
//!
//! A NATS server acknowledges before it syncs to disk, so on an unreplicated stream a position is released only
//! `confirm_delay` after it was acknowledged: after a power cut of the broker the log still has what the stream lost.
//! Progress that nothing was published for is released only once the checkpoint holds it, for nothing else proves it. A
//! source whose checkpoint cannot be written says so, and is tried again each second.
//!
//! What waits goes from one run on to the next, or a connection that breaks more often than `confirm_delay` would release nothing
//! at all.

use super::{CheckpointStore, Durable, Landmark};
use crate::status::SourceState;
use headgate_sdk::{Fault, Progress};
use std::{collections::VecDeque, sync::Arc, time::Duration};
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior},
};

/// How often progress is kept in the checkpoint.
const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(1);

/// Positions on their way out, oldest first, at most about `SLOTS` of them whatever the rate.
#[derive(Debug)]
pub struct DelayLine {
    delay: Duration,
    waiting: VecDeque<(Instant, Landmark)>,
}

impl DelayLine {
    const SLOTS: u32 = 64;

    /// An empty one, which positions leave after `delay`.
    #[must_use]
    pub fn new(delay: Duration) -> Self {
        Self { delay, waiting: VecDeque::new() }
    }

    /// For a run that begins: without what the stream, which ends at `sequence`, does not have any more.
    #[must_use]
    pub fn within(mut self, sequence: u64) -> Self {
        self.waiting.retain(|(_, landmark)| landmark.sequence <= sequence);
        self
    }

    fn push(&mut self, now: Instant, landmark: Landmark) {
        let spacing = self.delay / Self::SLOTS;
        match self.waiting.back_mut() {
            Some((_, last)) if last.progress >= landmark.progress => {}
            // An entry is dated at the end of its span, so that what joins it meanwhile does not leave early.
            Some((at, last)) if now <= *at => *last = landmark,
            _ => self.waiting.push_back((now + spacing, landmark)),
        }
    }

    fn pop(&mut self, now: Instant) -> Option<Landmark> {
        let mut out = None;
        while let Some((at, landmark)) = self.waiting.front() {
            if *at + self.delay > now {
                break;
            }
            out = Some(*landmark);
            self.waiting.pop_front();
        }
        out
    }

    fn next(&self) -> Option<Instant> {
        self.waiting.front().map(|(at, _)| *at + self.delay)
    }
}

/// Releases durable positions when they leave the line, and keeps the checkpoint. Ends when the publisher is gone, with a last
/// checkpoint, and gives back what still waits.
pub async fn release(
    mut durable: watch::Receiver<Durable>,
    checkpoints: CheckpointStore,
    mut line: DelayLine,
    released: watch::Sender<Progress>,
    state: Arc<SourceState>,
) -> DelayLine {
    let mut tick = tokio::time::interval(CHECKPOINT_INTERVAL);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut kept = Progress::default();
    let mut passed = Landmark::default();
    let mut held_up = None;
    loop {
        let next = line.next();
        tokio::select! {
            changed = durable.changed() => {
                if changed.is_err() {
                    let last = *durable.borrow();
                    if let Err(fault) = keep(&checkpoints, last, passed, kept).await {
                        tracing::debug!("last checkpoint not kept: {fault}");
                    }
                    return line;
                }
                let Durable { streamed, sequence, .. } = *durable.borrow_and_update();
                if let Some(progress) = streamed {
                    line.push(Instant::now(), Landmark { progress, sequence });
                }
            }
            _ = tick.tick() => {
                let last = *durable.borrow();
                match keep(&checkpoints, last, passed, kept).await {
                    Ok(reached) => {
                        held_up = None;
                        if let Some(reached) = reached {
                            kept = reached.progress;
                            line.push(Instant::now(), reached);
                        }
                    }
                    Err(fault) => state.still_held_up(&mut held_up, &fault),
                }
            }
            () = tokio::time::sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {}
        }
        if let Some(landmark) = line.pop(Instant::now()) {
            passed = landmark;
            let progress = landmark.progress;
            released.send_if_modified(|current| {
                let rises = progress > *current;
                if rises {
                    *current = progress;
                }
                rises
            });
        }
    }
}

/// Keeps what is durable, if that is more than was `kept`; gives it then.
async fn keep(
    checkpoints: &CheckpointStore,
    durable: Durable,
    released: Landmark,
    kept: Progress,
) -> Result<Option<Landmark>, Fault> {
    let progress = durable.streamed.max(durable.marked).filter(|progress| *progress > kept);
    let Some(progress) = progress else { return Ok(None) };
    let reached = Landmark { progress, sequence: durable.sequence };
    Ok(checkpoints.advance(reached, released).await?.then_some(reached))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(log: u64) -> Landmark {
        Landmark { progress: Progress { epoch: 1, log }, sequence: log }
    }

    #[test]
    fn nothing_leaves_early_and_the_line_stays_short() {
        let start = Instant::now();
        let delay = Duration::from_secs(64);
        let mut line = DelayLine::new(delay);
        for millis in 0..64_000u64 {
            line.push(start + Duration::from_millis(millis), at(millis + 1));
        }
        assert!(line.waiting.len() <= DelayLine::SLOTS as usize + 1, "{}", line.waiting.len());
        for millis in (0..140_000u64).step_by(100) {
            let now = start + Duration::from_millis(millis);
            if let Some(Landmark { progress, .. }) = line.pop(now) {
                assert!(progress.log - 1 + 64_000 <= millis, "{} left at {millis} ms", progress.log);
            }
        }
        assert!(line.waiting.is_empty());
    }

    #[test]
    fn what_the_stream_lost_waits_no_more() {
        let start = Instant::now();
        let mut line = DelayLine::new(Duration::from_secs(64));
        for second in 0..10 {
            line.push(start + Duration::from_secs(2 * second), at(second + 1));
        }
        let mut line = line.within(4);
        let out = line.pop(start + Duration::from_secs(200)).unwrap();
        assert!(out.sequence <= 4 && out.sequence > 0, "{out:?}");
        assert!(line.waiting.is_empty());
    }

    #[test]
    fn without_a_delay_positions_leave_at_once() {
        let mut line = DelayLine::new(Duration::ZERO);
        let now = Instant::now();
        line.push(now, at(1));
        assert_eq!(line.pop(now), Some(at(1)));
    }
}
