//! The publisher of one source: the task that owns its chain.
//!
//! Events go from the queue into the window ([`fill`]), from the window onto the wire ([`send`]), and leave the window
//! with their acknowledgement. Nothing here waits for the socket, so that answers are read while messages are written.

mod atomic;
mod broken;
mod claim;
mod fill;
mod queue;
mod resync;
mod send;

use super::{
    claim_check::ClaimCheck,
    dead_letter::DeadLetters,
    stream::{End, SourceStream},
    window::{Acked, Window},
};
use crate::{
    broker::{
        Link,
        wire::{Answer, Arrival, Wire},
    },
    config::{self, Publish},
    event::Batch,
    status::SourceState,
};
use async_nats::jetstream::Context;
use atomic::{ATOMIC_MAX, AtomicBatch};
use broken::Broken;
pub use claim::Claim;
use claim::Unclaimed;
use headgate_sdk::{Fault, Position, Progress, clock};
use queue::Queue;
use resync::Interrupted;
use std::{collections::VecDeque, sync::Arc};
use tokio::{
    sync::{Notify, mpsc, watch},
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

/// Room for the headers beside a payload.
const HEADER_ROOM: usize = 1024;

/// What the broker holds durably of a source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Durable {
    /// The last event.
    pub position: Option<Position>,
    /// How far the log is covered by events.
    pub streamed: Option<Progress>,
    /// How far it is covered by marks, with everything before them durable.
    pub marked: Option<Progress>,
    /// The stream's sequence of the last event.
    pub sequence: u64,
}

/// Whose events they are.
#[derive(Clone, Copy, Debug)]
pub struct Identity<'a> {
    /// The source's name.
    pub source: &'a str,
    /// The events' `source` attribute.
    pub uri: &'a str,
    /// The number of partitions.
    pub partitions: u32,
}

/// Publishes one source's batches.
pub struct Publisher {
    /// What the broker knows the wire as.
    name: String,
    link: watch::Receiver<Link>,
    stream: SourceStream,
    /// The largest message that the broker and the stream take; asked for anew with each wire.
    limit: usize,
    setting: config::Nats,
    /// For what is kept beside the stream.
    context: Context,
    dead_letters: DeadLetters,
    claim_check: ClaimCheck,
    state: Arc<SourceState>,
    durable: watch::Sender<Durable>,
    queue: Queue,
    window: Window,
    /// Sequences whose acknowledgement was asked for, and when.
    asked: VecDeque<(u64, Instant)>,
    unasked: usize,
    /// The last event that the stream is known to hold.
    tail: Option<Position>,
    /// The atomic batch that the window holds.
    atomic: Option<AtomicBatch>,
    /// Tells this run's atomic batches from those of others.
    run: String,
    /// Whether the stream has been claimed: nobody published before that.
    claimed: watch::Sender<bool>,
    /// Told where it should be, although there is nothing to publish yet.
    claim_wanted: Arc<Notify>,
    /// Whether the stream has taken a message of this run.
    proven: bool,
    interrupted: Interrupted,
}

impl Publisher {
    /// A publisher that goes on after `end`.
    pub fn new(
        context: &Context,
        link: watch::Receiver<Link>,
        (stream, end): (SourceStream, End),
        identity: Identity<'_>,
        setting: config::Nats,
        state: Arc<SourceState>,
    ) -> Self {
        let tail = end.last.map(|last| last.position);
        let (durable, _) =
            watch::channel(Durable { position: tail, sequence: end.sequence, ..Durable::default() });
        if let Some(position) = tail {
            state.acked(position, end.sequence, 0);
        }
        let inbox = context.client().new_inbox();
        Self {
            name: format!("headgate {}", identity.source),
            context: context.clone(),
            dead_letters: DeadLetters::new(identity, &setting.stream),
            claim_check: ClaimCheck::new(identity.source, &setting.stream),
            link,
            limit: 0,
            stream,
            setting,
            state,
            durable,
            queue: Queue::default(),
            window: Window::new(end.sequence),
            asked: VecDeque::new(),
            unasked: 0,
            tail,
            atomic: None,
            run: inbox.rsplit('.').next().unwrap_or_default().to_owned(),
            claimed: watch::Sender::new(false),
            claim_wanted: Arc::default(),
            proven: false,
            interrupted: Interrupted::default(),
        }
    }

    /// What is durable, from now on.
    pub fn durable(&self) -> watch::Receiver<Durable> {
        self.durable.subscribe()
    }

    /// The way to the claim for whoever writes beside the stream.
    pub fn claim_of_run(&self) -> Claim {
        Claim::new(Arc::clone(&self.claim_wanted), self.claimed.subscribe())
    }

    /// Publishes until `batches` closes and everything is acknowledged. A `shutdown` ends it at once as long as it waits for
    /// the stream, for then nothing is under way; whoever waits for the publisher need not wait longer.
    ///
    /// # Errors
    /// Transient where the stream lost events that were acknowledged, or another run writes to it: the source has to be
    /// read again.
    pub async fn run(
        mut self,
        mut batches: mpsc::Receiver<Batch>,
        shutdown: CancellationToken,
    ) -> Result<(), Fault> {
        let mut wire = Wire::connect(&self.setting, &self.name)
            .await
            .map_err(|lost| Fault::transient("cannot connect to nats for publishing").with_cause(lost))?;
        self.limit = self.stream.max_message(wire.max_payload());
        let (mut open, mut claims) = (true, false);
        loop {
            self.take_available(&mut batches, &mut open);
            self.fill(open).await?;
            if !*self.claimed.borrow() && (claims || !self.window.is_empty()) {
                self.show_pending();
                tokio::select! {
                    claimed = self.claim(&mut wire) => claimed.map_err(Unclaimed::into_fault)?,
                    () = shutdown.cancelled() => {
                        return Err(Fault::transient("an earlier connection to nats has not ended, and nothing was published"));
                    }
                }
            }
            self.send(&mut wire);
            self.show_pending();
            if !open && self.queue.is_empty() && self.window.is_empty() {
                return Ok(());
            }
            let overdue = self.asked.front().map(|(_, at)| *at + self.setting.ack_timeout);
            let broken = tokio::select! {
                biased;
                arrival = wire.next() => match arrival {
                    Ok(Arrival::Answer(answer)) => self.acknowledged(&answer),
                    Ok(Arrival::Asked(question)) => {
                        self.hear(&mut wire, &question)?;
                        None
                    }
                    Ok(Arrival::Room | Arrival::Alone | Arrival::Heard | Arrival::Forbidden(_)) => None,
                    Err(lost) => Some(Broken::Disconnected(lost)),
                },
                () = self.claim_wanted.notified() => {
                    claims = true;
                    None
                }
                () = sleep_until(overdue.unwrap_or_else(Instant::now)), if overdue.is_some() => Some(Broken::Silence),
                batch = batches.recv(), if open && self.wants_more() => {
                    match batch {
                        Some(batch) => self.queue.push(batch),
                        None => open = false,
                    }
                    None
                }
            };
            if let Some(broken) = broken {
                wire = self.resync(wire, &broken).await?;
            }
        }
    }

    /// Whether another batch should be taken: not while what was taken still waits for the window.
    fn wants_more(&self) -> bool {
        match self.setting.publish {
            Publish::Chain => self.queue.is_empty(),
            Publish::Atomic => self.queue.events() < ATOMIC_MAX,
        }
    }

    /// Takes what is there without waiting, so that acknowledgements are asked for at the end of a burst, not of a batch.
    fn take_available(&mut self, batches: &mut mpsc::Receiver<Batch>, open: &mut bool) {
        while *open && self.queue.events() < ATOMIC_MAX {
            match batches.try_recv() {
                Ok(batch) => self.queue.push(batch),
                Err(mpsc::error::TryRecvError::Empty) => break,
                Err(mpsc::error::TryRecvError::Disconnected) => *open = false,
            }
        }
    }

    /// Takes in an acknowledgement.
    fn acknowledged(&mut self, answer: &Answer) -> Option<Broken> {
        let ack = match answer.ack() {
            Ok(ack) => ack.sequence,
            Err(unstored) => return Some(Broken::Unstored(unstored)),
        };
        while self.asked.front().is_some_and(|(sequence, _)| *sequence <= ack) {
            self.asked.pop_front();
        }
        self.proven = true;
        self.interrupted = Interrupted::default();
        let acked = self.window.ack(ack);
        self.settle(&acked);
        None
    }

    /// Tells what became durable.
    fn settle(&mut self, acked: &Acked) {
        let metrics = &self.state.metrics;
        metrics.published.inc_by(acked.messages);
        metrics.published_bytes.inc_by(acked.bytes);
        if !acked.commits.is_empty() {
            let now = clock::now();
            for commit in &acked.commits {
                metrics.commit_to_ack.observe((now - commit).max(0) as f64 / 1e6);
            }
        }
        self.tail = self.tail.max(acked.position);
        let sequence = self.window.last_sequence() - self.window.len() as u64;
        if let Some(position) = acked.position {
            self.state.acked(position, sequence, acked.commits.last().copied().unwrap_or(0));
        }
        if let Some(done) = acked.streamed.max(acked.marked) {
            self.state.set_done(done.log);
        }
        if acked.position.is_some() || acked.marked.is_some() {
            self.durable.send_modify(|durable| {
                durable.position = durable.position.max(acked.position);
                durable.streamed = durable.streamed.max(acked.streamed);
                durable.marked = durable.marked.max(acked.marked);
                durable.sequence = sequence;
            });
        }
    }

    /// Shows what is under way.
    fn show_pending(&self) {
        self.state.metrics.in_flight.set(i64::try_from(self.window.len()).unwrap_or(i64::MAX));
        let queued = || self.queue.first_event().map(|event| event.committed_at).filter(|at| *at != 0);
        self.state.set_oldest_pending(self.window.oldest_commit().or_else(queued).unwrap_or(0));
    }
}
