//! A running stream: events in, changes told, landmarks kept.

use super::Ended;
use crate::{
    apply::{Apply, Halt},
    connect::Target,
    dump::{Arrival, Dump},
    landmarks::Landmarks,
    monitor::Monitor,
    snapshot::Snapshots,
};
use headgate_sdk::{Context, Fault, Gap, Origin, Outlet, Progress, clock};
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
    /// Bytes of events that were told and not shown yet.
    pub(super) heard: u64,
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
            let told = self.tell_ready(due, &mut snapshots, outlet).await;
            self.show(context);
            let idle = told?;
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
                        self.tell(&arrival, &mut snapshots, outlet).await?;
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

    /// Tells a burst of the events that are there. `true`: there are no more now. With `due` it ends between transactions.
    async fn tell_ready<O: Outlet>(
        &mut self,
        due: bool,
        snapshots: &mut Snapshots,
        outlet: &mut O,
    ) -> Result<bool, Ended> {
        for _ in 0..BURST {
            let Some(arrival) = self.dump.ready().await? else { return Ok(true) };
            self.tell(&arrival, snapshots, outlet).await?;
            if outlet.is_full() {
                self.flush(outlet).await?;
            }
            if due && !self.apply.in_transaction() {
                break;
            }
        }
        Ok(false)
    }

    /// Shows how far the log was read.
    fn show(&mut self, context: &Context) {
        let vitals = &context.vitals;
        let heard = std::mem::take(&mut self.heard);
        if heard > 0 {
            vitals.last_heard.store(clock::now(), Relaxed);
            vitals.received_bytes.fetch_add(heard, Relaxed);
        }
        let place = self.apply.place().0;
        vitals.received_log.store(place, Relaxed);
        vitals.server_log.fetch_max(place, Relaxed);
        let at = self.apply.committed_at().unwrap_or_else(|| self.apply.last_commit());
        if at != 0 {
            vitals.last_commit.store(at, Relaxed);
        }
    }

    /// Tells one event.
    async fn tell<O: Outlet>(
        &mut self,
        arrival: &Arrival,
        snapshots: &mut Snapshots,
        outlet: &mut O,
    ) -> Result<(), Ended> {
        self.heard += u64::from(arrival.header.size);
        let listening = &mut snapshots.listen(outlet);
        let told = self.apply.event(&arrival.header, arrival.body(), arrival.inside, listening).await;
        let told = match told {
            Ok(None) => Ok(()),
            // Rare and large: in a box, or every event would pay for moving the room that they need.
            Ok(Some(replay)) => Box::pin(self.replay(&replay, listening)).await,
            Err(halt) => Err(halt),
        };
        self.told |= self.apply.in_transaction();
        match told {
            Ok(()) => Ok(()),
            Err(Halt::Fault(fault)) => Err(fault.into()),
            Err(Halt::Foreign(reason)) => Err(Ended::Foreign(reason)),
            Err(Halt::Lost(reason)) => Err(Box::pin(self.gap(reason, snapshots, outlet)).await),
        }
    }

    /// Tells that changes up to here are not in the log as rows.
    async fn gap<O: Outlet>(&mut self, reason: String, snapshots: &mut Snapshots, outlet: &mut O) -> Ended {
        let flushed = match outlet.flush().await {
            Ok(()) => snapshots.after_gap(outlet).await,
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
