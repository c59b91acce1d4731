//! One source's way to safety: every delivery takes its turn here, and is answered when it is safe.
//!
//! * **Order**: turns are numbered and sent one after the other, in the order in which they came. A lane is in one of two
//!   modes. *Direct*: messages go to the broker at once, many under way. *Spooling*: they go to the spool, which a
//!   [`Drain`] empties from its other end. It becomes direct again only when the spool is empty, so nothing overtakes what
//!   is in there.
//! * **Safe**: a turn is answered when the broker has acknowledged all its messages, or when they are synced to the spool.
//!   What the broker has not acknowledged half a second after it came, and everything behind it, goes to the spool.
//! * **Duplicates**: a message that was under way when its lane began to spool may be in the stream already; the broker
//!   then drops it by its id when it comes out of the spool.
//! * **Memory**: what is under way is bounded in turns here, in bytes by the listener's budget.
//! * **Shutdown**: when no more turns can come, what is under way is acknowledged or spooled, and the lane ends. What is in
//!   the spool stays there for the next start.

use super::{
    bus::{Ack, Bus},
    drain::Drain,
    event::{self, Draft, Style},
    message::Message,
};
use crate::{
    normalize::time,
    status::{Phase, SourceState},
};
use async_nats::jetstream::context::PublishError;
use headgate_sdk::Fault;
use headgate_webhook::{Arrival, Keep, Record, Unkept};
use std::{
    collections::VecDeque,
    future::pending,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::{Instant, sleep_until, timeout_at},
};

/// How long the broker may take before a delivery is spooled instead.
const PATIENCE: Duration = Duration::from_millis(500);
/// Turns that wait to be taken.
const WAITING: usize = 1024;
/// Turns under way to the broker.
const FLYING: usize = 4096;
/// Turns that one append to the spool takes.
const TOGETHER: usize = 512;
/// With fewer records than this left, turns are held back for a moment, so that the spool can become empty.
const NEARLY_EMPTY: u64 = 4096;
/// For how long they are held back.
const HOLD: Duration = Duration::from_millis(250);

/// Tells that a turn is safe, or why not.
type Answer = oneshot::Sender<Result<(), Unkept>>;

/// What came with one request, waiting to be safe.
#[derive(Debug)]
struct Turn {
    drafts: Vec<Draft>,
    received_at: i64,
    came: Instant,
    safe: Answer,
}

/// The way into a lane, for the listener.
#[derive(Clone, Debug)]
pub(crate) struct Gate {
    turns: mpsc::Sender<Turn>,
    style: Arc<Style>,
    state: Arc<SourceState>,
}

impl Keep for Gate {
    async fn keep(&self, arrival: Arrival) -> Result<(), Unkept> {
        let ending = || Unkept { reason: "the gateway is ending".to_owned() };
        self.state.metrics.received.inc_by(arrival.deliveries.len() as u64);
        let draft = |delivery| event::draft(&self.style, delivery, &arrival);
        let drafts = arrival.deliveries.iter().map(draft).collect();
        let (safe, answered) = oneshot::channel();
        let turn = Turn { drafts, received_at: arrival.received_at, came: Instant::now(), safe };
        self.turns.send(turn).await.map_err(|_| ending())?;
        answered.await.map_err(|_| ending())?
    }

    fn refused(&self, reason: &'static str) {
        self.state.metrics.refused(reason);
    }
}

/// A turn whose messages were sent.
struct Flying {
    messages: Vec<Message>,
    acks: Vec<Ack>,
    /// How many of them are acknowledged.
    acked: usize,
    received_at: i64,
    deadline: Instant,
    safe: Answer,
}

impl Flying {
    /// Waits for the acknowledgements that are left. Can be dropped and called again.
    async fn land(&mut self, state: &SourceState) -> Result<(), Obstacle> {
        while let Some(ack) = self.acks.get_mut(self.acked) {
            let ack = match timeout_at(self.deadline, ack).await {
                Ok(Ok(ack)) => ack,
                Ok(Err(error)) => return Err(refused(&error)),
                Err(_) => {
                    let why = format!("the broker has not answered within {PATIENCE:?}");
                    return Err(Obstacle::Broker(why));
                }
            };
            let metrics = &state.metrics;
            let message = &self.messages[self.acked];
            if ack.duplicate {
                metrics.deduplicated.inc();
            } else {
                metrics.published.inc();
                metrics.published_bytes.inc_by(message.size() as u64);
            }
            state.acked(super::position(message.sequence), ack.sequence, self.received_at);
            self.acked += 1;
        }
        state.metrics.commit_to_ack.observe((time::now() - self.received_at).max(0) as f64 / 1e6);
        Ok(())
    }
}

/// Why a lane ceases to be direct.
enum Obstacle {
    /// The broker is away, slow, or refuses.
    Broker(String),
    /// A message whose data has to be stored elsewhere first, which takes its time.
    Large,
}

/// The mode that comes next.
enum Next {
    Direct,
    Spool,
    End,
}

/// One source's lane.
pub(super) struct Lane {
    turns: mpsc::Receiver<Turn>,
    flying: VecDeque<Flying>,
    last_sequence: u64,
    drain: Drain,
    state: Arc<SourceState>,
}

/// A task that ends with its owner.
struct Draining(JoinHandle<()>);

impl Drop for Draining {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Lane {
    /// A lane and the way into it. It ends when every gate is gone.
    pub(super) fn new(style: Arc<Style>, drain: Drain) -> (Self, Gate) {
        let (sender, turns) = mpsc::channel(WAITING);
        let state = Arc::clone(&drain.state);
        let gate = Gate { turns: sender, style, state: Arc::clone(&state) };
        (Self { turns, flying: VecDeque::new(), last_sequence: 0, drain, state }, gate)
    }

    /// Runs until no more turns can come.
    pub(super) async fn run(mut self) {
        // What an earlier run left comes first; and a broker that is away must not keep anybody waiting.
        let mut next = Next::Spool;
        loop {
            next = match next {
                Next::Spool => self.spool().await,
                Next::Direct => self.direct().await,
                Next::End => return,
            };
        }
    }

    /// Sends turns to the broker until one is not acknowledged in time.
    async fn direct(&mut self) -> Next {
        let Some(mut bus) = self.drain.bus.borrow().clone() else { return Next::Spool };
        let generation = bus.link.borrow_and_update().generation;
        self.state.set_phase(Phase::Streaming);
        self.state.set_oldest_pending(0);
        let mut open = true;
        let obstacle = loop {
            let link = *bus.link.borrow();
            if !link.connected || link.generation != generation {
                break Obstacle::Broker("the connection to the broker broke".to_owned());
            }
            if !open && self.flying.is_empty() {
                return Next::End;
            }
            self.state.metrics.in_flight.set(i64::try_from(self.flying.len()).unwrap_or(i64::MAX));
            tokio::select! {
                biased;
                _ = bus.link.changed() => {}
                landed = first(&mut self.flying, &self.state) => match landed {
                    Ok(()) => {
                        if let Some(turn) = self.flying.pop_front() {
                            let _ = turn.safe.send(Ok(()));
                        }
                    }
                    Err(obstacle) => break obstacle,
                },
                turn = self.turns.recv(), if open && self.flying.len() < FLYING => match turn {
                    Some(turn) => {
                        if let Err(obstacle) = self.send(&bus, turn).await {
                            break obstacle;
                        }
                    }
                    None => open = false,
                },
            }
        };
        let under_way = self.flying.drain(..).map(|turn| (turn.messages, turn.safe)).collect();
        self.state.metrics.in_flight.set(0);
        if let Obstacle::Broker(why) = obstacle {
            let fault = Fault::transient(why);
            tracing::warn!(source = &*self.drain.source, "{fault}; deliveries are kept in the spool");
            self.state.fault(Phase::Waiting, &fault);
        }
        self.park(under_way).await;
        Next::Spool
    }

    /// Sends one turn. Where that fails it is under way all the same, with fewer acknowledgements than messages.
    async fn send(&mut self, bus: &Bus, turn: Turn) -> Result<(), Obstacle> {
        let mut flying = Flying {
            acks: Vec::with_capacity(turn.drafts.len()),
            acked: 0,
            received_at: turn.received_at,
            deadline: turn.came + PATIENCE,
            messages: self.stamp(turn.drafts),
            safe: turn.safe,
        };
        let mut outcome = Ok(());
        for message in &flying.messages {
            if !bus.takes(message) {
                outcome = Err(Obstacle::Large);
                break;
            }
            match timeout_at(flying.deadline, bus.send(message, None)).await {
                Ok(Ok(ack)) => flying.acks.push(ack),
                Ok(Err(error)) => outcome = Err(refused(&error)),
                Err(_) => {
                    outcome = Err(Obstacle::Broker(format!("the broker takes nothing for {PATIENCE:?}")));
                }
            }
            if outcome.is_err() {
                break;
            }
        }
        self.flying.push_back(flying);
        outcome
    }

    /// Keeps turns in the spool while it is being emptied from its other end.
    async fn spool(&mut self) -> Next {
        let mut draining = Draining(tokio::spawn(self.drain.clone().run()));
        let mut hold_until = None;
        let mut gathered = Vec::with_capacity(TOGETHER);
        loop {
            tokio::select! {
                biased;
                ended = &mut draining.0 => {
                    if let Err(error) = ended {
                        tracing::error!(source = &*self.drain.source, "emptying the spool failed: {error}; this is a defect of Headgate");
                        tokio::time::sleep(HOLD).await;
                    }
                    let left = self.drain.spool.held(&self.drain.source).records;
                    if left == 0 {
                        return Next::Direct;
                    }
                    // Under load more has come meanwhile, and would every time.
                    hold_until = (left < NEARLY_EMPTY && hold_until.is_none()).then(|| Instant::now() + HOLD);
                    draining = Draining(tokio::spawn(self.drain.clone().run()));
                }
                () = until(hold_until), if hold_until.is_some() => hold_until = None,
                count = self.turns.recv_many(&mut gathered, TOGETHER), if hold_until.is_none() => {
                    if count == 0 {
                        return Next::End;
                    }
                    let turns = gathered.drain(..).map(|turn| (self.stamp(turn.drafts), turn.safe)).collect();
                    self.park(turns).await;
                }
            }
        }
    }

    /// Appends turns to the spool, in one sync, and answers them.
    async fn park(&mut self, turns: Vec<(Vec<Message>, Answer)>) {
        if turns.is_empty() {
            return;
        }
        let record = |message: &Message| Record { sequence: message.sequence, content: message.store() };
        let records: Vec<Record> = turns.iter().flat_map(|(messages, _)| messages).map(record).collect();
        let count = records.len() as u64;
        let outcome = self.drain.spool.append(&self.drain.source, records).await;
        match &outcome {
            Ok(()) => {
                self.state.metrics.spooled.inc_by(count);
                let held = self.drain.spool.held(&self.drain.source);
                self.state.vitals.retained_bytes.store(held.bytes, Ordering::Relaxed);
                self.state.set_oldest_pending(i64::try_from(held.oldest).unwrap_or(0));
            }
            Err(error) => {
                let fault = Fault::transient(error.to_string()).with_fix(
                    "let the broker take deliveries again, give the disk room, or raise http.spool_max",
                );
                self.state.fault(Phase::Waiting, &fault);
            }
        }
        for (_, safe) in turns {
            let _ = safe.send(outcome.clone().map_err(|error| Unkept { reason: error.to_string() }));
        }
    }

    /// Gives each message the next place in the order of arrival.
    fn stamp(&mut self, drafts: Vec<Draft>) -> Vec<Message> {
        let floor = self.last_sequence.max(self.drain.floor.load(Ordering::Relaxed));
        let now = u64::try_from(time::now()).unwrap_or(0);
        self.last_sequence = floor;
        drafts
            .into_iter()
            .map(|draft| {
                self.last_sequence = now.max(self.last_sequence + 1);
                draft.stamp(self.last_sequence)
            })
            .collect()
    }
}

fn refused(error: &PublishError) -> Obstacle {
    Obstacle::Broker(format!("the broker does not take deliveries: {error}"))
}

/// The oldest turn's landing; for ever where there is none.
async fn first(flying: &mut VecDeque<Flying>, state: &SourceState) -> Result<(), Obstacle> {
    match flying.front_mut() {
        Some(turn) => turn.land(state).await,
        None => pending().await,
    }
}

async fn until(instant: Option<Instant>) {
    match instant {
        Some(instant) => sleep_until(instant).await,
        None => pending().await,
    }
}
