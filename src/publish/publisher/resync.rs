//! When the chain broke: a new wire, where the stream really ends, and from there on.
//!
//! That is tried until it succeeds. Where nothing is stored for longer than a broker needs to find itself a new leader, the source
//! says that it waits, and why.

use super::{Publisher, broken::Broken, claim::Unclaimed};
use crate::{broker::wire::Wire, publish::stream::End, status::HoldUp};
use headgate_sdk::{Fault, FaultKind};
use std::{pin::pin, sync::Arc, time::Duration};
use tokio::time::{Instant, sleep, timeout};

/// For how long an interruption is no news.
const PATIENCE: Duration = Duration::from_secs(3);

/// That nothing of what was sent is stored, from the first break on until the stream takes something again.
#[derive(Debug, Default)]
pub(super) struct Interrupted {
    since: Option<Instant>,
    held_up: Option<HoldUp>,
}

impl Publisher {
    /// Reads where the stream ends, and makes the window what the stream lacks, to be sent again on a new wire.
    ///
    /// The old wire is left behind whatever was wrong: what is still in it is either stored in its place of the chain or
    /// refused, and its answers come to nobody.
    pub(super) async fn resync(&mut self, old: Wire, broken: &Broken) -> Result<Wire, Fault> {
        // Or the new one would hear it, and wait for it to end.
        drop(old);
        self.state.metrics.resyncs.inc();
        tracing::warn!(
            in_flight = self.window.len(),
            "publishing interrupted: {broken}; reading where the stream ends"
        );
        if broken.is_lasting() {
            sleep(Duration::from_millis(500)).await;
        }
        let (wire, end) = self.reconnect_and_say(broken).await?;
        let acked_sequence = self.window.last_sequence() - self.window.len() as u64;
        if end.sequence < acked_sequence {
            return Err(Fault::transient(format!(
                "the stream ends at {} although {acked_sequence} was acknowledged: it lost its tail, reading the source again",
                end.sequence
            )));
        }
        if end.sequence != acked_sequence && !self.proven {
            return Err(Fault::transient(format!(
                "the stream ended at {acked_sequence} when this run began, and ends at {} now; looking again",
                end.sequence
            )));
        }
        self.limit = self.stream.max_message(wire.max_payload());
        self.asked.clear();
        self.unasked = 0;
        self.atomic = None;
        let position = end.last.map(|last| last.position);
        // Whoever else writes may tell the same events, but then in the same places. Else what follows his last one is not
        // what follows it in the window.
        if end.last_sequence > acked_sequence && !self.window.has(end.last_sequence, position) {
            return Err(Fault::transient(format!(
                "another gateway has published message {} of the stream, looking again",
                end.last_sequence
            )));
        }
        let acked = self.window.resync(end.sequence, position);
        self.tail = self.tail.max(position);
        self.settle(&acked);
        if self.window.is_empty() {
            self.interrupted = Interrupted::default();
        }
        tracing::info!(sequence = end.sequence, again = self.window.len(), "publishing goes on");
        Ok(wire)
    }

    /// As [`reconnect`](Self::reconnect); the source waits where that, or the whole interruption, takes long.
    async fn reconnect_and_say(&mut self, broken: &Broken) -> Result<(Wire, End), Fault> {
        let left = PATIENCE.saturating_sub(self.interrupted.since.get_or_insert_with(Instant::now).elapsed());
        let (state, mut held_up) = (Arc::clone(&self.state), self.interrupted.held_up.take());
        let name = self.stream.name();
        let fault = Fault::transient(format!("nothing is stored in {name}: {broken}"))
            .with_fix(format!("{name} needs its server, a leader, and room within its own limits and its account's; headgate check looks at it"));
        let done = {
            let mut reconnected = pin!(self.reconnect());
            match timeout(left, reconnected.as_mut()).await {
                Ok(done) if left > Duration::ZERO => done,
                early => {
                    state.still_held_up(&mut held_up, &fault);
                    match early {
                        Ok(done) => done,
                        Err(_) => reconnected.await,
                    }
                }
            }
        };
        self.interrupted.held_up = held_up;
        done
    }

    /// Connects, and reads the stream's end, however long that takes.
    async fn reconnect(&mut self) -> Result<(Wire, End), Fault> {
        let mut pause = Duration::from_millis(20);
        loop {
            let read = async {
                self.link.wait_for(|link| link.connected).await.ok()?;
                let mut wire = match Wire::connect(&self.setting, &self.name).await {
                    Ok(wire) => wire,
                    Err(lost) => {
                        tracing::debug!("cannot connect for publishing: {lost}");
                        return None;
                    }
                };
                if *self.claimed.borrow() {
                    match self.rejoin(&mut wire).await {
                        Ok(()) => {}
                        Err(Unclaimed::Taken(fault)) => return Some(Err(fault)),
                        Err(Unclaimed::Lost(lost)) => {
                            tracing::debug!("cannot connect for publishing: {lost}");
                            return None;
                        }
                    }
                }
                match timeout(self.setting.ack_timeout, self.stream.end()).await.ok()? {
                    Ok(end) => Some(Ok((wire, end))),
                    Err(fault) if fault.kind() == FaultKind::Definite => Some(Err(fault)),
                    Err(fault) => {
                        tracing::debug!("{fault}");
                        None
                    }
                }
            };
            match read.await {
                Some(Ok((wire, Some(end)))) => return Ok((wire, end)),
                // The next run makes it anew, and says what is lost.
                Some(Ok((_, None))) => return Err(Fault::transient("the stream is gone")),
                Some(Err(fault)) => return Err(fault),
                None => {}
            }
            sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(1));
        }
    }
}
