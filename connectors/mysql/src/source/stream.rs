//! A running stream: events in, changes told, landmarks kept.

use super::Ended;
use crate::{
    apply::{Apply, Halt},
    connect::Target,
    dump::{Arrival, Dump},
    landmarks::Landmarks,
    monitor::{self, Monitor},
    snapshot::Snapshots,
};
use headgate_sdk::{Context, Fault, Gap, Origin, Outlet, Progress};
use std::{sync::atomic::Ordering::Relaxed, time::Duration};
use tokio::time::{Instant, MissedTickBehavior};

/// How often landmarks are looked after.
const TICK: Duration = Duration::from_secs(1);
/// Events between two looks at the runtime, while they come without end.
const BURST: u32 = 256;

/// Batches of a snapshot's rows that are told before the log has its turn again.
const SLICES: usize = 8;
/// How long that turn is where the log has nothing to say.
const TURN: Duration = Duration::from_millis(1);

/// A running stream.
pub(super) struct Stream {
    pub(super) epoch: u16,
    pub(super) server_id: u32,
    pub(super) heartbeat: Duration,
    pub(super) log: String,
    pub(super) target: Target,
    pub(super) dump: Dump,
    pub(super) apply: Apply,
    pub(super) landmarks: Landmarks,
    pub(super) monitor: Monitor,
    /// Whether anything was told to the outlet.
    pub(super) told: bool,
}

impl Stream {
    pub(super) async fn run<O: Outlet>(
        &mut self,
        mut snapshots: Snapshots,
        outlet: &mut O,
        context: &Context,
    ) -> Result<(), Ended> {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut due = false;
        loop {
            // While much comes in, nothing below ever waits. The runtime's timers and sockets would wait for us instead.
            tokio::task::yield_now().await;
            let mut idle = false;
            for _ in 0..BURST {
                let Some(arrival) = self.dump.ready()? else {
                    idle = true;
                    break;
                };
                self.tell(arrival, &mut snapshots, outlet, context).await?;
                if outlet.is_full() {
                    self.flush(outlet).await?;
                }
                if due && !self.apply.in_transaction() {
                    break;
                }
            }
            if due && !self.apply.in_transaction() {
                due = false;
                self.landmarks.note(&self.apply, &self.log);
                self.keep_landmark(outlet, context, false).await?;
            }
            for _ in 0..if idle { SLICES } else { 1 } {
                if !snapshots.is_ready() {
                    break;
                }
                snapshots.tell(outlet);
                self.flush(outlet).await?;
            }
            if idle {
                self.flush(outlet).await?;
                tokio::select! {
                    biased;
                    () = context.shutdown.cancelled() => return self.keep_landmark(outlet, context, true).await,
                    fault = self.monitor.failed() => return Err(fault.into()),
                    arrived = self.dump.next() => {
                        let arrival = arrived?;
                        self.tell(arrival, &mut snapshots, outlet, context).await?;
                    }
                    // More rows wait: the log has its turn, and they go on.
                    () = tokio::time::sleep(TURN), if snapshots.is_ready() => {}
                    event = snapshots.event() => snapshots.handle(event, outlet).await?,
                    _ = tick.tick() => due = true,
                }
                continue;
            }
            tokio::select! {
                biased;
                () = context.shutdown.cancelled() => return self.keep_landmark(outlet, context, true).await,
                fault = self.monitor.failed() => return Err(fault.into()),
                _ = tick.tick() => due = true,
                event = snapshots.event() => snapshots.handle(event, outlet).await?,
                () = std::future::ready(()) => {}
            }
        }
    }

    /// Waits for the broker, but not when the server is in trouble.
    async fn flush<O: Outlet>(&mut self, outlet: &mut O) -> Result<(), Ended> {
        let begun = Instant::now();
        tokio::select! {
            biased;
            flushed = outlet.flush() => flushed?,
            fault = self.monitor.failed() => return Err(fault.into()),
        }
        if begun.elapsed() > Duration::from_secs(1) {
            self.dump.forgive();
        }
        Ok(())
    }

    /// Tells one event.
    async fn tell<O: Outlet>(
        &mut self,
        arrival: Arrival,
        snapshots: &mut Snapshots,
        outlet: &mut O,
        context: &Context,
    ) -> Result<(), Ended> {
        let vitals = &context.vitals;
        vitals.last_heard.store(monitor::now(), Relaxed);
        vitals.received_bytes.fetch_add(arrival.header.size.into(), Relaxed);
        let listening = &mut snapshots.listen(outlet);
        let told = self.apply.event(&arrival.header, arrival.body(), arrival.inside, listening).await;
        let told = match told {
            Ok(None) => Ok(()),
            Ok(Some(replay)) => self.replay(&replay, listening).await,
            Err(halt) => Err(halt),
        };
        let place = self.apply.place().0;
        vitals.received_log.store(place, Relaxed);
        vitals.server_log.fetch_max(place, Relaxed);
        if let Some(at) = self.apply.committed_at() {
            vitals.last_commit.store(at, Relaxed);
            self.told = true;
        }
        match told {
            Ok(()) => Ok(()),
            Err(Halt::Fault(fault)) => Err(fault.into()),
            Err(Halt::Foreign(reason)) => Err(Ended::Foreign(reason)),
            Err(Halt::Lost(reason)) => Err(self.gap(reason, snapshots, outlet).await),
        }
    }

    /// Tells that changes up to here are not in the log as rows.
    async fn gap<O: Outlet>(&mut self, reason: String, snapshots: &mut Snapshots, outlet: &mut O) -> Ended {
        let flushed = match outlet.flush().await {
            Ok(()) => snapshots.read_again(outlet).await,
            Err(fault) => Err(fault),
        };
        let here = Progress { epoch: self.epoch, log: self.apply.done().0 };
        let epoch = self.epoch.saturating_add(1);
        let identity = self.landmarks.identity(&self.apply, &self.log);
        let origin = Origin { epoch, identity: identity.to_string() };
        let gap = Gap { from: Some(here), to: Progress { epoch, ..here }, reason };
        let told = match flushed {
            Ok(()) => outlet.gap(origin, gap).await,
            Err(fault) => Err(fault),
        };
        match told {
            Ok(()) => Fault::transient("going on after the gap").into(),
            Err(fault) => fault.into(),
        }
    }

    /// Keeps the newest landmark that the broker has everything before.
    async fn keep_landmark<O: Outlet>(
        &mut self,
        outlet: &mut O,
        context: &Context,
        last: bool,
    ) -> Result<(), Ended> {
        let released = *context.released.borrow();
        if released.epoch != self.epoch {
            return Ok(());
        }
        context.vitals.confirmed_log.fetch_max(released.log, Relaxed);
        if let Some(identity) = self.landmarks.reached(released.log, last) {
            // What is not kept now is kept the next time; a run that begins further back only reads more.
            if let Err(fault) =
                outlet.open(Origin { epoch: self.epoch, identity: identity.to_string() }).await
            {
                tracing::debug!("landmark not kept: {fault}");
            }
        }
        Ok(())
    }
}
