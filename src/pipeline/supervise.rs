//! Keeps a source running: one run after the other, until shutdown.
//!
//! * **Faults**: a passing one is tried again, each time a little later, for ever; who stands by looks again soon; what only a
//!   person can help with is looked at now and then, so that a fix needs no restart. A panic is a passing fault of its run.
//! * **News**: a fault is logged here, where it is handled, and seldom again while it stays the same.

use super::{Log, Pipeline, Task};
use crate::{broker::random, config::Connector, status::Phase};
use futures_util::FutureExt as _;
use headgate_sdk::{Fault, FaultKind};
use std::{
    future::Future,
    panic::AssertUnwindSafe,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// The first pause after a passing fault; each further one is twice as long…
const QUICKEST: Duration = Duration::from_millis(100);
/// … up to this: when what was away is back, nobody should wait for long, and an attempt costs it next to nothing.
const SLOWEST: Duration = Duration::from_secs(5);
/// How often a source that is stopped looks again, and how often a fault that stays the same is told again.
const SELDOM: Duration = Duration::from_secs(30);
/// How often a source that stands by looks again.
const STANDBY: Duration = Duration::from_secs(2);

/// Runs `pipeline` until shutdown: again after every fault that may pass, each time a little later.
pub async fn supervise(pipeline: Pipeline, shutdown: CancellationToken) {
    let _guard = guard(&pipeline, &shutdown);
    let mut pause = QUICKEST;
    // The fault that stopped it and was told of: the same one again is no news, unless the source got on in between.
    let mut told = None;
    let mut told_at = Instant::now();
    let mut log = Log::of(&pipeline);
    let mut unreleased = None;
    loop {
        let begun = Instant::now();
        let received = pipeline.state.vitals.received_log.load(Ordering::Relaxed);
        let run = pipeline.run(&mut log, &mut unreleased, shutdown.clone());
        // A panic in a run is a fault of that run.
        let outcome = guarded(Box::pin(run)).await;
        // A run that was cut off did not come to say that it streams no more.
        pipeline.state.vitals.streaming.store(0, Ordering::Relaxed);
        if shutdown.is_cancelled() {
            if let Err(fault) = outcome {
                tracing::warn!(source = pipeline.name, "ended by the shutdown: {fault}");
            }
            return;
        }
        let fault = match outcome {
            Ok(()) => Fault::transient("the source ended by itself"),
            Err(fault) => fault,
        };
        let (name, state) = (&pipeline.name, &pipeline.state);
        let got_on = state.vitals.received_log.load(Ordering::Relaxed) > received;
        let text = Some(fault.to_string());
        let known = !got_on && told == text;
        told = text;
        let wait = match fault.kind() {
            // Stopped means until somebody acted: that is looked for now and then, so that a fix needs no restart.
            kind @ (FaultKind::Definite | FaultKind::Gap) => {
                state.fault(if kind == FaultKind::Gap { Phase::Gap } else { Phase::Stopped }, &fault);
                if !known {
                    tracing::error!(source = name, fix = fault.fix(), "source stopped: {fault}");
                }
                SELDOM
            }
            FaultKind::Busy => {
                state.fault(Phase::Standby, &fault);
                if !known {
                    tracing::info!(source = name, fix = fault.fix(), "standing by: {fault}");
                }
                STANDBY
            }
            FaultKind::Transient => {
                // A run that got further in the log is a new beginning, one that failed where it did before is not.
                if got_on || begun.elapsed() > SELDOM {
                    pause = QUICKEST;
                }
                state.fault(Phase::Waiting, &fault);
                state.metrics.restarts.inc();
                let wait = jittered(pause);
                // The same again and again would bury everything else.
                if !known || told_at.elapsed() >= SELDOM {
                    tracing::warn!(source = name, fix = fault.fix(), "{fault}; trying again in {wait:.1?}");
                    told_at = Instant::now();
                }
                pause = (pause * 2).min(SLOWEST);
                wait
            }
        };
        if !sleep(wait, &shutdown).await {
            return;
        }
    }
}

/// Watches what the database keeps for the source while no run does: the broker is away, say, or the source is stopped.
fn guard(pipeline: &Pipeline, shutdown: &CancellationToken) -> Task<()> {
    let (name, vitals, shutdown) =
        (pipeline.name.clone(), Arc::clone(&pipeline.state.vitals), shutdown.clone());
    match &pipeline.source.connector {
        Connector::Postgres(config) => {
            let config = config.clone();
            Task(tokio::spawn(
                async move { headgate_postgres::guard(&name, &config, vitals, shutdown).await },
            ))
        }
        // A binary log is kept for a time, whoever reads it; nobody sends twice what a webhook sent.
        Connector::MySql(_) | Connector::Webhook(_) => Task(tokio::spawn(std::future::ready(()))),
    }
}

async fn guarded(run: impl Future<Output = Result<(), Fault>>) -> Result<(), Fault> {
    match AssertUnwindSafe(run).catch_unwind().await {
        Ok(outcome) => outcome,
        Err(_) => Err(Fault::transient("the source's task panicked; this is a defect of Headgate")),
    }
}

/// Sleeps; `false` if the shutdown came first.
async fn sleep(pause: Duration, shutdown: &CancellationToken) -> bool {
    tokio::select! {
        () = tokio::time::sleep(pause) => true,
        () = shutdown.cancelled() => false,
    }
}

/// Up to a quarter more or less, so that many sources do not come back at the same moment.
fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(0.75 + (random() % 1000) as f64 / 2000.0)
}
