//! The source: from a connection to an ordered stream of changes.
//!
//! ```text
//!  server ──▶ Dump ──▶ Apply ──▶ Outlet        the run's own task
//!                        │
//!                    Landmarks ◀── released     which transactions are before a place that is safe
//!  server ◀──▶ Monitor (lock, end of the log, purge)   its own task
//! ```
//!
//! # Order and duplicates
//! Everything is told from one task, in the log's order. A run begins at the last landmark, which is a place that the broker
//! holds everything before; what was told since is read again, and dropped by the outlet, for it has the positions that it
//! had. Where another server has taken over it has not, so there what the stream holds is asked of the stream, by name.
//!
//! # Durability
//! A server keeps its log by age, whatever its readers do. What is kept here is the landmark: it moves on only to places that
//! came back through [`Context::released`].
//!
//! # Shutdown
//! The dump is dropped, the last landmark is kept, `Ok`.

mod opening;
mod replay;
mod stream;

use crate::{Config, dump::Broken};
use headgate_sdk::{Context, Fault, Outlet, Resume, Source};
use std::sync::atomic::Ordering::Relaxed;

/// A MySQL or MariaDB database as a source of changes.
#[derive(Debug)]
pub struct MySql {
    source: String,
    config: Config,
}

impl MySql {
    /// The source named `source`.
    #[must_use]
    pub fn new(source: impl Into<String>, config: Config) -> Self {
        Self { source: source.into(), config }
    }
}

/// Why an attempt ended.
enum Ended {
    Fault(Fault),
    /// The server cannot go on where it was asked to.
    Lost(String),
    /// The log is another one than it seemed.
    Foreign(String),
}

impl From<Fault> for Ended {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl From<Broken> for Ended {
    fn from(broken: Broken) -> Self {
        match broken {
            Broken::Fault(fault) => Self::Fault(fault),
            Broken::Lost(reason) => Self::Lost(reason),
        }
    }
}

impl Source for MySql {
    async fn run<O: Outlet>(
        &mut self,
        resume: Resume,
        outlet: &mut O,
        context: Context,
    ) -> Result<(), Fault> {
        let (mut lost, mut foreign) = (None, false);
        loop {
            let shutdown = context.shutdown.clone();
            let started = tokio::select! {
                started = Box::pin(self.start(&resume, outlet, &context, lost.as_deref(), foreign)) => started,
                () = shutdown.cancelled() => return Ok(()),
            };
            let ended = match started {
                Ok((mut stream, snapshots)) => {
                    context.vitals.streaming.store(1, Relaxed);
                    let ended = Box::pin(stream.run(snapshots, outlet, &context)).await;
                    context.vitals.streaming.store(0, Relaxed);
                    match ended {
                        // What was told since is not in `resume`: the next run has a fresh one, and finds the same.
                        Err(Ended::Lost(reason) | Ended::Foreign(reason)) if stream.told => {
                            Err(Ended::Fault(Fault::transient(reason)))
                        }
                        ended => ended,
                    }
                }
                Err(ended) => Err(ended),
            };
            match ended {
                Ok(()) => return Ok(()),
                Err(Ended::Lost(reason)) if lost.is_none() => lost = Some(reason),
                Err(Ended::Foreign(reason)) if !foreign => {
                    tracing::warn!(source = self.source, "the log is another one than before: {reason}");
                    foreign = true;
                }
                Err(Ended::Lost(reason) | Ended::Foreign(reason)) => return Err(Fault::transient(reason)),
                Err(Ended::Fault(fault)) => return Err(fault),
            }
        }
    }
}
