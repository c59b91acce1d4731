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
    bus::FENCE_ROOM,
    drain::{Drain, Emptied},
    event::{self, Draft, Style},
    flight::{Flight, Refused},
    message::Message,
};
use crate::{
    broker::wire::{self, Wire},
    status::{Phase, SourceState},
};
use headgate_sdk::{Fault, clock};
use headgate_webhook::{Arrival, Keep, Record, Unkept};
use std::{
    future::pending,
    pin::pin,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use tokio::{
    sync::{mpsc, oneshot},
    task::{JoinHandle, yield_now},
    time::{Instant, sleep, sleep_until},
};

/// How long the broker may take before a delivery is spooled instead.
const PATIENCE: Duration = Duration::from_millis(500);
/// Turns that wait to be taken.
const WAITING: usize = 1024;
/// Turns under way to the broker.
const FLYING: usize = 4096;
/// Turns that one append to the spool takes, or one write to the broker.
const TOGETHER: usize = 512;
/// With fewer records than this left, turns are held back for a moment, so that the spool can become empty.
const NEARLY_EMPTY: u64 = 4096;
/// For how long they are held back at most. What is left then is a few round trips to a broker far away.
const HOLD: Duration = Duration::from_secs(1);
/// How long to wait after a drain that failed by a defect.
const DEFECT: Duration = Duration::from_millis(250);

/// Tells that a turn is safe, or why not.
pub(super) type Answer = oneshot::Sender<Result<(), Unkept>>;

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

/// Why a lane ceases to be direct.
enum Obstacle {
    /// The broker is away, slow, or refuses.
    Broker(String),
    /// A message whose data has to be stored elsewhere first, which takes its time.
    Large,
}

impl From<Refused> for Obstacle {
    fn from(refused: Refused) -> Self {
        Self::Broker(refused.to_string())
    }
}

/// The mode that comes next.
enum Next {
    /// The spool is empty, and this is the way to the broker.
    Direct(Box<Wire>),
    Spool,
    End,
}

/// One source's lane.
pub(super) struct Lane {
    turns: mpsc::Receiver<Turn>,
    last_sequence: u64,
    drain: Drain,
    state: Arc<SourceState>,
}

/// A task that ends with its owner.
struct Draining(JoinHandle<Emptied>);

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
        // What an earlier run left counts before the drain gets to it.
        let held = drain.spool.held(&drain.source);
        state.vitals.retained_bytes.store(held.bytes, Ordering::Relaxed);
        let gate = Gate { turns: sender, style, state: Arc::clone(&state) };
        (Self { turns, last_sequence: 0, drain, state }, gate)
    }

    /// Runs until no more turns can come.
    pub(super) async fn run(mut self) {
        // What an earlier run left comes first; and a broker that is away must not keep anybody waiting.
        let mut next = Next::Spool;
        loop {
            next = match next {
                Next::Spool => self.spool().await,
                Next::Direct(wire) => self.direct(*wire).await,
                Next::End => return,
            };
        }
    }

    /// Sends turns to the broker until one is not acknowledged in time.
    async fn direct(&mut self, mut wire: Wire) -> Next {
        self.state.set_phase(Phase::Streaming);
        self.state.set_oldest_pending(0);
        let mut flight = Flight::default();
        let mut gathered = Vec::with_capacity(TOGETHER);
        let mut overdue = pin!(sleep(PATIENCE));
        let mut open = true;
        let obstacle = loop {
            if !open && flight.is_empty() {
                return Next::End;
            }
            self.state.metrics.in_flight.set(i64::try_from(flight.len()).unwrap_or(i64::MAX));
            let takes = open && !wire.is_full() && flight.len() < FLYING;
            tokio::select! {
                biased;
                arrival = wire.next() => match arrival {
                    Ok(wire::Arrival::Answer(answer)) => {
                        if let Err(refused) = flight.land(&answer, &self.state) {
                            break refused.into();
                        }
                    }
                    // There is room again. Nothing else comes: a lane's wire holds no subject.
                    Ok(_) => {}
                    Err(lost) => break Obstacle::Broker(format!("the connection to the broker broke: {lost}")),
                },
                // It goes off for the turn that was the oldest when it was set, which is answered as a rule: setting it
                // anew for each turn would cost more.
                () = &mut overdue, if !flight.is_empty() => {
                    let now = Instant::now();
                    let due = flight.oldest().unwrap_or(now) + PATIENCE;
                    if due <= now {
                        break Obstacle::Broker(format!("the broker has not answered within {PATIENCE:?}"));
                    }
                    overdue.as_mut().reset(due);
                }
                count = self.turns.recv_many(&mut gathered, TOGETHER), if takes => {
                    if count == 0 {
                        open = false;
                        continue;
                    }
                    // Requests that are ready now come along, in one write to the broker.
                    yield_now().await;
                    while gathered.len() < TOGETHER && let Ok(turn) = self.turns.try_recv() {
                        gathered.push(turn);
                    }
                    let mut fits = true;
                    for turn in gathered.drain(..) {
                        fits &= self.send(&mut wire, turn, &mut flight, fits);
                    }
                    if !fits {
                        break Obstacle::Large;
                    }
                }
            }
        };
        self.state.metrics.in_flight.set(0);
        if let Obstacle::Broker(why) = obstacle {
            let fault = Fault::transient(why);
            tracing::warn!(source = &*self.drain.source, "{fault}; deliveries are kept in the spool");
            self.state.fault(Phase::Waiting, &fault);
        }
        self.park(flight.into_turns()).await;
        Next::Spool
    }

    /// Sends one turn; false where the broker does not take all of it. With `go` false it is not sent, but counts as
    /// under way: behind one that has to be spooled.
    fn send(&mut self, wire: &mut Wire, turn: Turn, flight: &mut Flight, go: bool) -> bool {
        let messages = self.stamp(turn.drafts);
        let mut fits = go;
        for (tag, message) in (flight.next_tag()..).zip(&messages) {
            fits = fits && message.size() + FENCE_ROOM <= wire.max_payload();
            if !fits {
                break;
            }
            wire.publish_tagged(&message.subject, tag, &message.payload, |head| message.write_head(head));
        }
        flight.push(messages, turn.received_at, turn.came, turn.safe);
        fits
    }

    /// Keeps turns in the spool while it is being emptied from its other end.
    async fn spool(&mut self) -> Next {
        let mut draining = self.empty(None);
        let mut hold_until = None;
        let mut gathered = Vec::with_capacity(TOGETHER);
        loop {
            tokio::select! {
                biased;
                ended = &mut draining.0 => {
                    let left = self.drain.spool.held(&self.drain.source).records;
                    let last = match ended {
                        Ok(emptied) if left == 0 => return Next::Direct(Box::new(emptied.wire)),
                        Ok(emptied) => Some(emptied),
                        Err(error) => {
                            tracing::error!(source = &*self.drain.source, "emptying the spool failed: {error}; this is a defect of Headgate");
                            sleep(DEFECT).await;
                            None
                        }
                    };
                    // Under load more has come meanwhile, and would every time.
                    hold_until = (left < NEARLY_EMPTY && hold_until.is_none()).then(|| Instant::now() + HOLD);
                    draining = self.empty(last);
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

    /// Empties the spool in the background, beginning with what the drain before this one found.
    fn empty(&self, last: Option<Emptied>) -> Draining {
        Draining(tokio::spawn(self.drain.clone().run(last)))
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
        let now = u64::try_from(clock::now()).unwrap_or(0);
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

async fn until(instant: Option<Instant>) {
    match instant {
        Some(instant) => sleep_until(instant).await,
        None => pending().await,
    }
}
