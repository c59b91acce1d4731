//! From the spool to the stream: in order, until nothing is left.
//!
//! * **Order**: one message after the other, each after the acknowledgement of the one before. Once the stream proves to have none
//!   of them yet ([`Pipelining`]), many are sent at once, as one atomic batch ([`batch`]): it is stored in one piece, whoever else writes to
//!   the stream, or not at all, and then fewer go at once, down to one after the other.
//!   A stream that does not allow atomic batches has to prove that it has no other writer, and each message of a window names the sequence
//!   that it must follow (`Nats-Expected-Last-Sequence`). That is absolute. So where a second gateway's message takes the
//!   place of one of them, the ones behind that may still find theirs and be stored; the one whose place was taken is then sent
//!   again and comes after them. `sequence` tells the order of arrival all the same.
//! * **Duplicates**: what the stream has already, the broker drops by its id.
//! * **Durability**: records leave the spool after their acknowledgement.
//! * **Faults**: again and again, at most two seconds apart. What the broker will never take goes to the dead letters.

use super::{
    batch::{self, Unstored},
    bus::{self, Ack, Arriving, Bus},
    dead_letter,
    message::Message,
    pipelining::{Pipelining, Together, WINDOW},
    stream::{self, Opened},
};
use crate::{
    broker::{
        backoff,
        wire::{Lost, Wire},
    },
    config::Nats,
    publish::{ClaimCheck, dead_letter::DeadLetters},
    status::{Phase, SourceState},
};
use async_nats::jetstream::{
    context::{PublishError, PublishErrorKind},
    publish::PublishAck,
};
use headgate_sdk::{Fault, clock};
use headgate_webhook::{Record, Spool};
use std::{
    collections::{HashSet, VecDeque},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::time::{Instant, timeout_at};

/// How long the broker may take with what was sent together, and how long a batch may take to be handed to the connection.
const ACK_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes that are read from the spool at once. A distant broker takes one gulp in a round trip.
const GULP: usize = 2 << 20;

/// What empties one source's spool.
#[derive(Clone, Debug)]
pub(super) struct Drain {
    pub(super) source: Arc<str>,
    pub(super) spool: Spool,
    pub(super) bus: Arriving,
    pub(super) nats: Nats,
    pub(super) dedup_window: Duration,
    pub(super) dead_letters: DeadLetters,
    pub(super) claim_check: ClaimCheck,
    pub(super) state: Arc<SourceState>,
    /// No sequence below this one may be given any more.
    pub(super) floor: Arc<AtomicU64>,
    /// Which of the broker's servers took the last wire.
    pub(super) server: Arc<AtomicUsize>,
}

/// What a drain found on its way to the stream. It takes several round trips to find, in which the spool fills again: a
/// drain that begins with it is done sooner.
#[derive(Debug)]
pub(super) struct Emptied {
    /// For what comes next.
    pub(super) wire: Wire,
    /// The bus's connection on which the stream was opened.
    generation: u64,
    pipelining: Pipelining,
}

impl Drain {
    /// Returns when the broker is there, the stream is fit, and what the spool held of this source then is in it. What has
    /// come meanwhile is for another drain, which begins with what this one returns: more comes all the time, and is
    /// held back only between two of them.
    pub(super) async fn run(mut self, mut last: Option<Emptied>) -> Emptied {
        let mut attempt = 0;
        loop {
            match Box::pin(self.once(last.take())).await {
                Ok(emptied) => return emptied,
                Err(fault) => {
                    attempt += 1;
                    self.state.fault(phase(&fault), &fault);
                    if attempt == 1 || attempt % 32 == 0 {
                        let held = self.spool.held(&self.source).records;
                        tracing::warn!(
                            source = &*self.source,
                            held,
                            fix = fault.fix(),
                            "{fault}; deliveries are kept in the spool"
                        );
                    }
                    tokio::time::sleep(backoff(attempt).max(Duration::from_millis(50))).await;
                }
            }
        }
    }

    async fn once(&mut self, last: Option<Emptied>) -> Result<Emptied, Fault> {
        let bus = self.connected().await?;
        let generation = bus.link.borrow().generation;
        let (mut wire, mut pipelining) = match last.filter(|last| last.generation == generation) {
            Some(last) => (Ok(last.wire), last.pipelining),
            None => {
                let Opened { last, batches } =
                    stream::open(&bus.context, &self.source, &self.nats, self.dedup_window).await?;
                self.floor.fetch_max(last, Ordering::Relaxed);
                // Where there is none, the spool is emptied all the same.
                (self.connect().await, Pipelining::new(batches))
            }
        };
        beside(&mut wire, Box::pin(self.empty(&bus, &mut pipelining))).await?;
        match wire {
            Ok(wire) => Ok(Emptied { wire, generation, pipelining }),
            Err(lost) => Err(Fault::transient("no connection to nats for publishing").with_cause(lost)),
        }
    }

    /// A connection of the lane's own, from the server that took the last one if it does.
    async fn connect(&self) -> Result<Wire, Lost> {
        let mut first = self.server.load(Ordering::Relaxed);
        let name = format!("headgate {}", self.source);
        let wire = Wire::connect_from(&self.nats, &name, &mut first).await;
        self.server.store(first, Ordering::Relaxed);
        wire
    }

    /// Publishes as much as the spool holds now.
    async fn empty(&self, bus: &Bus, pipelining: &mut Pipelining) -> Result<(), Fault> {
        let mut left = self.spool.held(&self.source).records;
        while left > 0 {
            let records = self.spool.oldest(&self.source, GULP).await.map_err(|error| spool_fault(&error))?;
            let Some(newest) = records.last().map(|record| record.sequence) else { break };
            left = left.saturating_sub(records.len() as u64);
            let mut done = None;
            let outcome = self.publish(bus, records, pipelining, &mut done).await;
            if let Some(through) = done {
                self.spool.remove(&self.source, through).await.map_err(|error| spool_fault(&error))?;
                let left = self.spool.held(&self.source);
                self.state.vitals.retained_bytes.store(left.bytes, Ordering::Relaxed);
                self.state.set_oldest_pending(i64::try_from(left.oldest).unwrap_or(0));
            }
            outcome?;
            debug_assert_eq!(done, Some(newest));
        }
        Ok(())
    }

    async fn connected(&mut self) -> Result<Bus, Fault> {
        let closed = || Fault::transient("the broker's connection is closed");
        let mut bus =
            self.bus.wait_for(Option::is_some).await.map_err(|_| closed())?.clone().ok_or_else(closed)?;
        if bus.link.wait_for(|link| link.connected).await.is_err() {
            return Err(closed());
        }
        Ok(bus)
    }

    /// Publishes records in their order; `done` is how far that went, also where it failed.
    async fn publish(
        &self,
        bus: &Bus,
        records: Vec<Record>,
        pipelining: &mut Pipelining,
        done: &mut Option<u64>,
    ) -> Result<(), Fault> {
        let load = |record: Record| Message::load(record.sequence, record.content).ok_or(record.sequence);
        let mut rest: VecDeque<Result<Message, u64>> = records.into_iter().map(load).collect();
        loop {
            if let Some(together) = pipelining.together() {
                let most = match together {
                    Together::Batch(most) => most,
                    Together::Behind(_) => WINDOW,
                };
                let window = window(bus, &mut rest, most);
                // One alone needs no company to be in order.
                if window.len() > 1 {
                    let stored = match together {
                        Together::Batch(_) => self.publish_batch(bus, &window, pipelining).await?,
                        Together::Behind(last) => {
                            self.publish_window(bus, &window, last, pipelining, done).await?
                        }
                    };
                    *done = stored.checked_sub(1).map(|newest| window[newest].sequence).or(*done);
                    put_back(&mut rest, window, stored);
                    continue;
                }
                put_back(&mut rest, window, 0);
            }
            let Some(next) = rest.pop_front() else { return Ok(()) };
            let sequence = match next {
                Ok(message) => {
                    let sequence = message.sequence;
                    self.publish_one(bus, message, pipelining).await?;
                    sequence
                }
                Err(sequence) => {
                    // It has passed its checksum: a newer version wrote it. It must not hold the others up.
                    self.spool
                        .set_aside(&self.source, sequence)
                        .await
                        .map_err(|error| spool_fault(&error))?;
                    self.state.metrics.failed.inc();
                    sequence
                }
            };
            *done = Some(sequence);
        }
    }

    async fn publish_one(
        &self,
        bus: &Bus,
        message: Message,
        pipelining: &mut Pipelining,
    ) -> Result<(), Fault> {
        let message = match bus.takes(&message) {
            true => message,
            false => bus.check_in(&self.claim_check, message).await?,
        };
        let generation = bus.link.borrow().generation;
        let outcome = match bus.send(&message, None).await {
            Ok(ack) => answer(bus, generation, Instant::now() + ACK_TIMEOUT, ack).await,
            Err(error) => Err(Unacked::Refused(error)),
        };
        match outcome {
            Ok(ack) => {
                pipelining.stored(ack.sequence, ack.duplicate);
                self.count(&message, ack.duplicate, ack.sequence);
                Ok(())
            }
            Err(Unacked::Refused(error)) if bus::is_final(&error) => {
                pipelining.disturbed();
                dead_letter::keep(&self.dead_letters, &bus.context, &message, &error.to_string()).await?;
                self.state.metrics.failed.inc();
                Ok(())
            }
            Err(error) => {
                pipelining.disturbed();
                Err(publish_fault(error))
            }
        }
    }

    /// Sends messages that all fit as one atomic batch; tells how many were stored, all or none.
    async fn publish_batch(
        &self,
        bus: &Bus,
        window: &[Message],
        pipelining: &mut Pipelining,
    ) -> Result<usize, Fault> {
        let generation = bus.link.borrow().generation;
        // While the connection is away, its queue fills and is not emptied. Half a batch is not stored, by a leader that knows batches.
        let outcome = match timeout_at(Instant::now() + ACK_TIMEOUT, bus.send_batch(window)).await {
            Ok(Ok((id, ack))) => {
                answer(bus, generation, Instant::now() + ACK_TIMEOUT, ack).await.map(|ack| (id, ack))
            }
            Ok(Err(error)) => Err(Unacked::Refused(error)),
            Err(_) => Err(Unacked::Silence),
        };
        let refused = match outcome {
            Ok((id, ack)) if batch::is_whole(&ack, &id, window.len()) => {
                pipelining.batch_stored();
                let first = (ack.sequence + 1).saturating_sub(window.len() as u64);
                for (message, sequence) in window.iter().zip(first..) {
                    self.count(message, false, sequence);
                }
                return Ok(window.len());
            }
            Ok(_) => {
                // Which of them are stored nobody says. They are sent again one by one, and the broker drops what it has.
                tracing::warn!(
                    source = &*self.source,
                    "the stream's leader is a server that knows no atomic batches: none are sent to it now"
                );
                pipelining.without_batches();
                return Ok(0);
            }
            Err(unacked) => unacked,
        };
        let Unacked::Refused(error) = &refused else { return Err(publish_fault(refused)) };
        match batch::unstored(error) {
            Some(Unstored::Contents) => pipelining.batch_refused(window.len()),
            Some(Unstored::Batch) => pipelining.without_batches(),
            None => return Err(publish_fault(refused)),
        }
        Ok(0)
    }

    /// Sends a window of messages that all fit, each to be stored right behind the one before; tells how many were, also where it
    /// fails by `done`.
    async fn publish_window(
        &self,
        bus: &Bus,
        window: &[Message],
        last: u64,
        pipelining: &mut Pipelining,
        done: &mut Option<u64>,
    ) -> Result<usize, Fault> {
        let mut acks = Vec::with_capacity(window.len());
        let mut failed: Option<Unacked> = None;
        let generation = bus.link.borrow().generation;
        for (message, expected) in window.iter().zip(last..) {
            match bus.send(message, Some(expected)).await {
                Ok(ack) => acks.push(ack),
                Err(error) => {
                    failed = Some(Unacked::Refused(error));
                    break;
                }
            }
        }
        let mut stored = 0;
        let deadline = Instant::now() + ACK_TIMEOUT;
        for ack in acks {
            // The others' answers are waited for too: none may be under way when the rest is sent again.
            match answer(bus, generation, deadline, ack).await {
                Ok(ack) if failed.is_none() => {
                    pipelining.stored(ack.sequence, ack.duplicate);
                    self.count(&window[stored], ack.duplicate, ack.sequence);
                    *done = Some(window[stored].sequence);
                    stored += 1;
                }
                Ok(_) => {}
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        let Some(error) = failed else { return Ok(stored) };
        pipelining.disturbed();
        if matches!(&error, Unacked::Refused(error) if error.kind() == PublishErrorKind::WrongLastSequence) {
            // The one that was disturbed, and those behind it, one after the other again.
            return Ok(stored);
        }
        Err(publish_fault(error))
    }

    fn count(&self, message: &Message, duplicate: bool, sequence: u64) {
        let metrics = &self.state.metrics;
        if duplicate {
            metrics.deduplicated.inc();
        } else {
            metrics.published.inc();
            metrics.published_bytes.inc_by(message.size() as u64);
        }
        let arrived = i64::try_from(message.sequence).unwrap_or(0);
        metrics.commit_to_ack.observe((clock::now() - arrived).max(0) as f64 / 1e6);
        self.state.acked(super::position(message.sequence), sequence, arrived);
    }
}

/// Takes off the next messages that may be sent together: those that the broker takes as they are, none of them twice.
fn window(bus: &Bus, rest: &mut VecDeque<Result<Message, u64>>, most: usize) -> Vec<Message> {
    let mut ids = HashSet::new();
    let fits = |next: &&Result<Message, u64>| {
        next.as_ref().is_ok_and(|message| bus.takes(message) && ids.insert(message.id.clone()))
    };
    let count = rest.iter().take(most).take_while(fits).count();
    rest.drain(..count).filter_map(Result::ok).collect()
}

/// Puts back what was not stored.
fn put_back(rest: &mut VecDeque<Result<Message, u64>>, window: Vec<Message>, stored: usize) {
    for message in window.into_iter().skip(stored).rev() {
        rest.push_front(Ok(message));
    }
}

/// Does the work, and meanwhile answers the server on a wire that nothing is sent on yet: it would give up one that is
/// silent.
async fn beside<T>(wire: &mut Result<Wire, Lost>, work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    while let Ok(idle) = wire {
        tokio::select! {
            biased;
            done = &mut work => return done,
            arrival = idle.next() => if let Err(lost) = arrival {
                *wire = Err(lost);
            },
        }
    }
    work.await
}

fn phase(fault: &Fault) -> Phase {
    match fault.kind() {
        headgate_sdk::FaultKind::Transient => Phase::Waiting,
        _ => Phase::Stopped,
    }
}

/// Why there is no acknowledgement.
enum Unacked {
    /// The broker, or the client, says so.
    Refused(PublishError),
    /// The connection broke, or there was no answer in time.
    Silence,
}

/// An acknowledgement, until the deadline or until its connection breaks: what was under way then is not answered any more.
async fn answer(bus: &Bus, generation: u64, deadline: Instant, ack: Ack) -> Result<PublishAck, Unacked> {
    let mut link = bus.link.clone();
    tokio::select! {
        biased;
        answered = timeout_at(deadline, ack) => match answered {
            Ok(answered) => answered.map_err(Unacked::Refused),
            Err(_) => Err(Unacked::Silence),
        },
        _ = link.wait_for(|link| !link.connected || link.generation != generation) => Err(Unacked::Silence),
    }
}

fn publish_fault(error: Unacked) -> Fault {
    let fault = Fault::transient("the broker does not take the deliveries");
    match error {
        Unacked::Refused(error) => fault.with_cause(error),
        Unacked::Silence => fault,
    }
}

fn spool_fault(error: &headgate_webhook::SpoolError) -> Fault {
    Fault::transient(error.to_string())
}
