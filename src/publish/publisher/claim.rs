//! The claim: a run publishes only when no connection of an earlier one is left.
//!
//! The chain alone does not show an earlier writer who tells other events than this one, as two runs do with the rows of a
//! snapshot: his message in the place of one of ours is refused, or ours is, and the next ones of both may fit. So what a
//! dead gateway left under way must have come to an end before the first message of a run.
//!
//! * **Who writes**: each publishing connection is subscribed to one subject from before its first message on. A run that
//!   is about to publish asks there. The server answers that nobody hears it once no connection is subscribed, and a
//!   connection is that until the server has read it to its end. Whoever does hear it has been replaced, and leaves.
//! * **A run whose connection was lost** asks too before it goes on. A later run that hears it says that it has begun.
//! * **What the stream has not stored yet** of what the server has read stands before whatever this run sends. So the first
//!   message goes alone: it is taken only if the stream still ends where this run found it, and nothing can come after
//!   it. If it is refused, the run ends, and the next one looks again.
//! * **A machine that is gone without a word** stays connected until the server misses it, and what it had sent may still come.
//!   It is waited for, however long: behind this run's first message its later ones would fit. After a second the source says
//!   that it waits, and what for. So that it does not take minutes, the questions become large then. They fill what leads to
//!   that machine, and a server closes a connection that takes nothing for its `write_deadline` (10 s, if not set).
//! * **Limits**: within a cluster, that a subscription is gone and what its connection had sent may travel on different ways.
//!   Where the subject is forbidden, or somebody subscribes to all subjects, only the first message's way alone is left. That
//!   somebody does is found out by a question on a subject of nobody; where that alone is forbidden it cannot be told, and
//!   the run waits.

use super::Publisher;
use crate::broker::wire::{Arrival, Lost, Wire};
use headgate_sdk::Fault;
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep_until},
};

/// Said by a run that begins: it reads the source now, and nobody else does.
const BEGIN: &str = "begin";
/// Said by a run whose connection was lost: it would go on, if no other has begun meanwhile.
const REJOIN: &str = "rejoin";
/// For how long questions are small, and the wait is no news: whoever lives hears them, and leaves.
const SMALL_FOR: Duration = Duration::from_secs(1);
/// What the gateway's user has to publish on and subscribe to.
const PERMISSION: &str = "headgate.writing.>";
/// What makes a question large, in bytes; at 20 in a second, what lies between a server and a dead machine is full within seconds.
const PADDING: usize = 64 << 10;
/// How long a run that goes on waits for a later one to say so. Connections of its own that the server has not missed yet
/// say nothing, and do no harm: they carry the same messages in the same places.
const REJOIN_PATIENCE: Duration = Duration::from_secs(1);
/// How often to ask. Being asked also tells the server's kernel that nobody is there any more.
const ASK_EVERY: Duration = Duration::from_millis(50);

/// The claim, for what a run writes beside the stream before its first message: only the run that may write to the stream
/// may write that.
#[derive(Debug)]
pub struct Claim {
    wanted: Arc<Notify>,
    held: watch::Receiver<bool>,
}

impl Claim {
    pub(super) fn new(wanted: Arc<Notify>, held: watch::Receiver<bool>) -> Self {
        Self { wanted, held }
    }

    /// Waits until the stream is claimed for this run.
    ///
    /// # Errors
    /// Transient: the publisher has ended.
    pub async fn held(&mut self) -> Result<(), Fault> {
        if !*self.held.borrow() {
            self.wanted.notify_one();
        }
        let held = self.held.wait_for(|held| *held).await;
        held.map(drop).map_err(|_| Fault::transient("the publisher has stopped"))
    }
}

/// Why there is no claim.
#[derive(Debug)]
pub(super) enum Unclaimed {
    /// Another run writes to the stream.
    Taken(Fault),
    /// The connection was lost.
    Lost(Lost),
}

impl Unclaimed {
    pub(super) fn into_fault(self) -> Fault {
        match self {
            Self::Taken(fault) => fault,
            Self::Lost(lost) => Fault::transient("the connection for publishing was lost").with_cause(lost),
        }
    }
}

impl Publisher {
    /// Claims the stream for this run, before its first message.
    pub(super) async fn claim(&mut self, wire: &mut Wire) -> Result<(), Unclaimed> {
        self.be_alone(wire, BEGIN, None).await?;
        self.claimed.send_replace(true);
        Ok(())
    }

    /// Sees to it, on a new connection of a run that has begun, that no later run has.
    pub(super) async fn rejoin(&self, wire: &mut Wire) -> Result<(), Unclaimed> {
        self.be_alone(wire, REJOIN, Some(REJOIN_PATIENCE)).await
    }

    /// What a run that publishes does when it hears another one: it leaves the stream to one that begins, and tells one
    /// that would go on that this one has begun.
    pub(super) fn hear(&self, wire: &mut Wire, question: &[u8]) -> Result<(), Fault> {
        if question.trim_ascii_end() == REJOIN.as_bytes() {
            wire.ask(&self.claim_subject(), BEGIN);
        }
        yield_to(question)
    }

    /// Holds the subject, and asks until nobody else does, or somebody did for as long as `patience`, of which each answer takes
    /// [`ASK_EVERY`]. A server that stands still takes none of that: the wire says when it has done so for too long.
    async fn be_alone(
        &self,
        wire: &mut Wire,
        question: &str,
        patience: Option<Duration>,
    ) -> Result<(), Unclaimed> {
        let subject = self.claim_subject();
        let large = format!("{question}{}", " ".repeat(PADDING.min(wire.max_payload() / 2)));
        wire.hold(&subject);
        wire.ask(&subject, question);
        // By a run that goes on nothing else is asked: it waits for an answer of another kind.
        let mut probe = if question == BEGIN { Probe::Due } else { Probe::Done };
        let (mut again, mut heard_since, mut held_up, mut untold) = (None, None, None, None);
        let mut answered = Duration::ZERO;
        loop {
            let waited = heard_since.map_or(Duration::ZERO, |since: Instant| since.elapsed());
            let arrival = tokio::select! {
                arrival = wire.next() => arrival.map_err(Unclaimed::Lost)?,
                () = sleep_until(again.unwrap_or_else(Instant::now)), if again.is_some() => {
                    // Not more than a socket takes: the server may stand still, or be far.
                    if !wire.is_full() {
                        wire.ask(&subject, if waited < SMALL_FOR { question } else { &large });
                        again = None;
                    } else {
                        again = Some(Instant::now() + ASK_EVERY);
                    }
                    continue;
                }
            };
            match arrival {
                Arrival::Alone if probe == Probe::Asked => {
                    probe = Probe::Done;
                    again = Some(Instant::now() + ASK_EVERY);
                }
                Arrival::Alone => return Ok(()),
                Arrival::Heard if probe == Probe::Asked => {
                    tracing::info!(
                        subject,
                        "somebody subscribes to all subjects: whether an earlier connection is left cannot be told"
                    );
                    return Ok(());
                }
                Arrival::Heard if probe == Probe::Due => {
                    probe = Probe::Asked;
                    // No source has a name with a dot in it.
                    wire.ask(&format!("{subject}.nobody"), question);
                }
                Arrival::Heard if patience.is_some_and(|patience| answered >= patience) => return Ok(()),
                Arrival::Heard => {
                    answered += ASK_EVERY;
                    heard_since.get_or_insert_with(Instant::now);
                    again = Some(Instant::now() + ASK_EVERY);
                    if patience.is_none() && waited >= SMALL_FOR {
                        held_up.get_or_insert_with(|| self.state.hold_up(&earlier(&subject, untold.take())));
                    }
                }
                // Of two that begin at once, both look again: only one of them can read the source.
                Arrival::Asked(other) => yield_to(&other).map_err(Unclaimed::Taken)?,
                Arrival::Forbidden(error) if probe == Probe::Asked => {
                    probe = Probe::Done;
                    untold = Some(error);
                }
                Arrival::Forbidden(error) => {
                    tracing::warn!(
                        fix = format!("let the gateway's user publish and subscribe on {PERMISSION}"),
                        "runs cannot be told from each other: {error}"
                    );
                    return Ok(());
                }
                Arrival::Answer(_) | Arrival::Room => {}
            }
        }
    }

    fn claim_subject(&self) -> String {
        format!("headgate.writing.{}", self.stream.name())
    }
}

/// Whether the subject of nobody has been asked on: only those hear that who listen to everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Probe {
    /// Not yet.
    Due,
    /// Its answer is to come.
    Asked,
    /// It was, and nobody heard it, or it is not to be.
    Done,
}

/// Somebody hears the question who is not known to listen to everything. `untold`: why that cannot be told.
fn earlier(subject: &str, untold: Option<String>) -> Fault {
    let fault = Fault::transient(
        "waiting for an earlier connection to nats to end; nothing is published before, lest what it sent come in between",
    )
    .with_fix(format!(
        "the broker ends it when it has missed that machine; nobody but gateways may subscribe to {subject}, and the gateway's \
         user has to publish and subscribe on {PERMISSION}"
    ));
    match untold {
        None => fault,
        Some(error) => fault.with_cause(error),
    }
}

/// Leaves the stream to a run that begins.
fn yield_to(question: &[u8]) -> Result<(), Fault> {
    if question.trim_ascii_end() == BEGIN.as_bytes() {
        return Err(Fault::transient("a later run publishes to the stream now, looking again"));
    }
    Ok(())
}
