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
//! * **Limits**: a machine that is gone without a word stays connected until the server misses it, which takes minutes. A
//!   run waits [`PATIENCE`] for it. Within a cluster, that a subscription is gone and what its connection had sent
//!   may travel on different ways. Where the subject is forbidden, or somebody subscribes to all subjects, only the first
//!   message's way alone is left.

use super::Publisher;
use crate::broker::wire::{Arrival, Lost, Wire};
use headgate_sdk::Fault;
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// Said by a run that begins: it reads the source now, and nobody else does.
const BEGIN: &str = "begin";
/// Said by a run whose connection was lost: it would go on, if no other has begun meanwhile.
const REJOIN: &str = "rejoin";
/// How long to wait for a connection that does not end.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a run that goes on waits for a later one to say so. Connections of its own that the server has not missed yet
/// say nothing, and do no harm: they carry the same messages in the same places.
const REJOIN_PATIENCE: Duration = Duration::from_secs(1);
/// How often to ask. Being asked also tells the server's kernel that nobody is there any more.
const ASK_EVERY: Duration = Duration::from_millis(50);

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
        if !self.is_alone(wire, BEGIN, PATIENCE).await? {
            tracing::warn!(
                subject = self.claim_subject(),
                "an earlier run's connection to nats has not ended within {PATIENCE:?}; going on without waiting for it"
            );
        }
        self.claimed = true;
        Ok(())
    }

    /// Sees to it, on a new connection of a run that has begun, that no later run has.
    pub(super) async fn rejoin(&self, wire: &mut Wire) -> Result<(), Unclaimed> {
        self.is_alone(wire, REJOIN, REJOIN_PATIENCE).await.map(|_| ())
    }

    /// What a run that publishes does when it hears another one: it leaves the stream to one that begins, and tells one
    /// that would go on that this one has begun.
    pub(super) fn hear(&self, wire: &mut Wire, question: &[u8]) -> Result<(), Fault> {
        if question == REJOIN.as_bytes() {
            wire.ask(&self.claim_subject(), BEGIN);
        }
        yield_to(question)
    }

    /// Holds the subject, and asks until nobody else does; `false` where somebody did for as long as `patience`. A server
    /// that stands still takes none of that: the wire says when it has done so for too long.
    async fn is_alone(
        &self,
        wire: &mut Wire,
        question: &str,
        mut patience: Duration,
    ) -> Result<bool, Unclaimed> {
        let subject = self.claim_subject();
        wire.hold(&subject);
        wire.ask(&subject, question);
        // Whether the question is one that only those hear who listen to everything; asked once, and not by a run that goes on:
        // it waits for an answer of another kind.
        let (mut probing, mut probed) = (false, question != BEGIN);
        let mut again = None;
        loop {
            let arrival = tokio::select! {
                arrival = wire.next() => arrival.map_err(Unclaimed::Lost)?,
                () = sleep_until(again.unwrap_or_else(Instant::now)), if again.is_some() => {
                    wire.ask(&subject, question);
                    again = None;
                    continue;
                }
            };
            match arrival {
                Arrival::Alone if probing => {
                    tracing::info!(subject, "waiting for an earlier connection to nats to end");
                    probing = false;
                    again = Some(Instant::now() + ASK_EVERY);
                }
                Arrival::Alone => return Ok(true),
                Arrival::Heard if probing => {
                    tracing::info!(
                        subject,
                        "somebody subscribes to all subjects: whether an earlier connection is left cannot be told"
                    );
                    return Ok(true);
                }
                Arrival::Heard if !probed => {
                    (probing, probed) = (true, true);
                    wire.ask(&format!("{subject}.nobody"), question);
                }
                Arrival::Heard if patience.is_zero() => return Ok(false),
                Arrival::Heard => {
                    patience = patience.saturating_sub(ASK_EVERY);
                    again = Some(Instant::now() + ASK_EVERY);
                }
                // Of two that begin at once, both look again: only one of them can read the source.
                Arrival::Asked(other) => yield_to(&other).map_err(Unclaimed::Taken)?,
                Arrival::Forbidden(error) => {
                    tracing::warn!(
                        fix = format!("let the gateway's user publish and subscribe on {subject}"),
                        "runs cannot be told from each other: {error}"
                    );
                    return Ok(true);
                }
                Arrival::Answer(_) | Arrival::Room => {}
            }
        }
    }

    fn claim_subject(&self) -> String {
        format!("headgate.writing.{}", self.stream.name())
    }
}

/// Leaves the stream to a run that begins.
fn yield_to(question: &[u8]) -> Result<(), Fault> {
    if question == BEGIN.as_bytes() {
        return Err(Fault::transient("a later run publishes to the stream now, looking again"));
    }
    Ok(())
}
