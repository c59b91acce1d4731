//! The source: from a connection to an ordered stream of changes.
//!
//! ```text
//!  walsender ──▶ Reader ──▶ Apply ──▶ Outlet            the run's own task
//!      ▲                                 │
//!      └── Feedback ◀── released ◀───────┘ (broker)     its own task, waits for nobody
//!  server ◀──▶ Monitor (slot, publications, heartbeat)  its own task
//! ```
//!
//! # Order and duplicates
//! Everything is told from one task, in the log's order. After a restart the server sends again what was not confirmed;
//! the outlet drops what the stream already holds.
//!
//! # Durability
//! The server is told to forget only what came back through [`Context::released`].
//!
//! # Shutdown
//! Ours: confirm once more, say goodbye, `Ok`. The server's: it waits for a walsender whose client has not confirmed
//! everything, and we confirm late on purpose, so we leave at once.

mod opening;
mod stream;

use crate::{Config, slot};
use headgate_sdk::{Context, Fault, Outlet, Progress, Resume, Source};
use std::sync::{Arc, atomic::Ordering::Relaxed};
use stream::Ended;

/// A PostgreSQL database as a source of changes.
#[derive(Debug)]
pub struct Postgres {
    source: String,
    config: Config,
    lost: Option<Lost>,
}

/// Why a slot, though it is there, cannot give the whole history any more. Found while streaming, judged by the next run; a
/// process that dies in between finds it again, for nothing behind it was confirmed.
#[derive(Debug)]
struct Lost {
    /// What had been told of the epoch that was streamed. Once a later epoch has begun, the gap has been told.
    told: Progress,
    reason: String,
}

impl Lost {
    /// Whether `resume` lacks what was told before the loss. The slot still has it, and the loss is found again behind it.
    fn is_ahead_of(&self, resume: &Resume) -> bool {
        resume.proven().is_none_or(|proven| proven < self.told)
    }
}

impl Postgres {
    /// The source named `source`.
    #[must_use]
    pub fn new(source: impl Into<String>, config: Config) -> Self {
        Self { source: source.into(), config, lost: None }
    }

    /// What an earlier run lost of the newest epoch that `resume` knows, and nobody was told of.
    fn lost_since(&self, resume: &Resume) -> Option<&Lost> {
        let streamed = resume.last.map_or(0, |last| last.position.epoch);
        let kept = resume.checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.epoch);
        self.lost.as_ref().filter(|lost| lost.told.epoch >= streamed.max(kept))
    }

    /// The slot's name.
    fn slot(&self) -> String {
        slot::name(&self.source, &self.config)
    }
}

impl Source for Postgres {
    async fn run<O: Outlet>(
        &mut self,
        resume: Resume,
        outlet: &mut O,
        context: Context,
    ) -> Result<(), Fault> {
        let shutdown = context.shutdown.clone();
        let stream = tokio::select! {
            stream = Box::pin(self.start(&resume, outlet, &context)) => stream?,
            () = shutdown.cancelled() => return Ok(()),
        };
        let vitals = Arc::clone(&context.vitals);
        vitals.streaming.store(1, Relaxed);
        let (ended, told) = Box::pin(stream.run(outlet, context)).await;
        vitals.streaming.store(0, Relaxed);
        match ended {
            Ok(()) => Ok(()),
            Err(Ended::Fault(fault)) => Err(fault),
            Err(Ended::HistoryLost(reason)) => {
                let fault = Fault::transient(format!("history is lost: {reason}"));
                self.lost = Some(Lost { told, reason });
                // What was read before is good. The slot goes when the stream has it: until then it is read again, up to here.
                tokio::select! {
                    flushed = outlet.flush() => flushed?,
                    () = shutdown.cancelled() => return Ok(()),
                }
                Err(fault)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use headgate_sdk::Checkpoint;

    fn proven(epoch: u16, log: u64) -> Resume {
        let checkpoint = Checkpoint { epoch, identity: String::new(), progress: Progress { epoch, log } };
        Resume { last: None, checkpoint: Some(checkpoint) }
    }

    #[test]
    fn a_loss_counts_when_the_stream_has_what_came_before_it() {
        let mut source = Postgres::new("shop", Config::new(""));
        assert!(source.lost_since(&proven(2, 100)).is_none());
        source.lost = Some(Lost { told: Progress { epoch: 2, log: 100 }, reason: "dropped".to_owned() });
        for (log, is_ahead) in [(99, true), (100, false), (101, false)] {
            let resume = proven(2, log);
            assert_eq!(source.lost_since(&resume).map(|lost| lost.is_ahead_of(&resume)), Some(is_ahead));
        }
        assert!(source.lost_since(&proven(3, 10)).is_none(), "the gap has been told");
    }
}
