//! What goes on beside the stream, on an SQL session of its own: the slot's state, the publications' upkeep, heartbeats.
//!
//! Runs as its own task, so that it goes on while the stream waits for the broker. It speaks only when the run has to
//! end: [`Monitor::alarm`].

use crate::{
    connect::SqlSession,
    publication::{Plan, Publications},
    refusal::sql_fault,
    slot, sql_name,
    wal_guard::WalGuard,
};
use headgate_sdk::{CapturedTables, Fault, FaultKind, TableName, Vitals};
use std::{
    collections::BTreeSet,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};
use tokio::{
    sync::{oneshot, watch},
    task::JoinHandle,
    time::{Instant, MissedTickBehavior},
};

/// How often to look.
const TICK: Duration = Duration::from_secs(5);
/// How long one look may take before the server counts as gone.
const PATIENCE: Duration = Duration::from_secs(60);
/// How many looks in a row may find that somebody else, or nobody, reads the slot.
const STRANGERS: u32 = 3;

/// Why the run has to end.
#[derive(Debug)]
pub(crate) enum Alarm {
    /// A fault.
    Fault(Fault),
    /// Part of the log can no longer be read as it was meant to be.
    HistoryLost(String),
}

/// What the monitor watches.
pub(crate) struct Watch {
    pub(crate) source: String,
    pub(crate) slot: String,
    /// The walsender that reads the slot for us.
    pub(crate) pid: i32,
    pub(crate) publications: Publications,
    pub(crate) standby: bool,
    pub(crate) heartbeat: Option<Duration>,
    pub(crate) user: String,
    pub(crate) database: String,
    pub(crate) vitals: Arc<Vitals>,
    /// Watches what the slot keeps.
    pub(crate) wal: WalGuard,
    /// Told of the tables that are captured, whenever that changes.
    pub(crate) captured: watch::Sender<CapturedTables>,
}

/// The handle of the task.
pub(crate) struct Monitor {
    alarm: oneshot::Receiver<Alarm>,
    task: JoinHandle<()>,
}

impl Drop for Monitor {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Monitor {
    /// Starts the task. `catalog` is watched too: whichever session hears first that the server goes down says so.
    pub(crate) fn start(watch: Watch, control: SqlSession, catalog: SqlSession) -> Self {
        let (sender, alarm) = oneshot::channel();
        let task = tokio::spawn(async move {
            let alarm = watch.run(control, catalog).await;
            // Nobody listens any more: the run is over anyway.
            let _ = sender.send(alarm);
        });
        Self { alarm, task }
    }

    /// Waits for the reason to end the run. Must not be called again once it has given one.
    pub(crate) async fn alarm(&mut self) -> Alarm {
        (&mut self.alarm)
            .await
            .unwrap_or_else(|_| Alarm::Fault(Fault::transient("the watch over the database has ended")))
    }
}

/// What is remembered from look to look.
struct Memory {
    /// Tables already complained about.
    foreign: BTreeSet<TableName>,
    append: BTreeSet<TableName>,
    /// What the primary was last asked to do to the publications.
    pending: String,
    strangers: u32,
    received: u64,
    heard: Instant,
    mute: bool,
}

impl Watch {
    async fn run(mut self, mut control: SqlSession, mut catalog: SqlSession) -> Alarm {
        let client = Arc::clone(&control.client);
        let looks = async {
            let mut ticks = tokio::time::interval(TICK);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let mut memory = Memory {
                foreign: BTreeSet::new(),
                append: BTreeSet::new(),
                pending: String::new(),
                strangers: 0,
                received: 0,
                heard: Instant::now(),
                mute: false,
            };
            loop {
                ticks.tick().await;
                match tokio::time::timeout(PATIENCE, self.look(&client, &mut memory)).await {
                    Ok(None) => {}
                    Ok(Some(alarm)) => return alarm,
                    Err(_) => {
                        return Alarm::Fault(Fault::transient(format!(
                            "the database did not answer an SQL query within {PATIENCE:?}"
                        )));
                    }
                }
            }
        };
        tokio::select! {
            alarm = looks => alarm,
            fault = control.ended() => Alarm::Fault(fault),
            fault = catalog.ended() => Alarm::Fault(fault),
        }
    }

    async fn look(&mut self, client: &tokio_postgres::Client, memory: &mut Memory) -> Option<Alarm> {
        match self.look_at_slot(client, memory).await {
            Ok(None) => {}
            Ok(Some(alarm)) => return Some(alarm),
            Err(fault) => return Some(Alarm::Fault(fault)),
        }
        match self.look_after_publications(client, memory).await {
            Ok(alarm) => {
                if alarm.is_some() {
                    return alarm;
                }
            }
            // What is published stays published; the next look tries again.
            Err(fault) => {
                tracing::warn!(source = self.source, error = %fault, fix = fault.fix(), "could not bring the publications up to date");
            }
        }
        self.beat(client, memory).await;
        None
    }

    async fn look_at_slot(
        &mut self,
        client: &tokio_postgres::Client,
        memory: &mut Memory,
    ) -> Result<Option<Alarm>, Fault> {
        let Some(slot) = slot::inspect(client, &self.slot).await? else {
            return Ok(Some(Alarm::Fault(Fault::transient(format!("slot {} is gone", self.slot)))));
        };
        // The slot cannot be dropped while this run reads it: the run ends, and the guard outside of it drops the slot.
        if let Some(fault) = self.wal.look(client, &slot).await {
            return Ok(Some(Alarm::Fault(fault)));
        }
        if let Some(reason) = slot.unusable {
            return Ok(Some(Alarm::Fault(Fault::transient(format!(
                "slot {} cannot be read any more: {reason}",
                self.slot
            )))));
        }
        // The server has let go of us, and our side of the connection has not heard.
        memory.strangers = if slot.active_pid == Some(self.pid) { 0 } else { memory.strangers + 1 };
        if memory.strangers >= STRANGERS {
            return Ok(Some(Alarm::Fault(Fault::transient(format!(
                "the server no longer streams slot {} to this connection",
                self.slot
            )))));
        }
        Ok(None)
    }

    async fn look_after_publications(
        &self,
        client: &tokio_postgres::Client,
        memory: &mut Memory,
    ) -> Result<Option<Alarm>, Fault> {
        let plan = self.publications.plan(client).await?;
        if !plan.missing.is_empty() {
            return Ok(Some(Alarm::HistoryLost(lost(&plan.missing))));
        }
        if !self.publications.are_kept() {
            self.tell_captured(plan.captured());
            return Ok(None);
        }
        memory.foreign.retain(|table| plan.foreign.iter().any(|(foreign, _)| foreign == table));
        for (table, owner) in &plan.foreign {
            if memory.foreign.insert(table.clone()) {
                tracing::warn!(source = self.source, %table, owner = owner.as_deref(), "a table that should be captured is not: it belongs to another role; exclude it, or grant its owner's role unless that is a superuser's");
            }
        }
        warn_of_append(&self.source, &plan, &mut memory.append);
        if self.standby {
            let statements = plan.statements.join("; ");
            if !statements.is_empty() && statements != memory.pending {
                tracing::warn!(
                    source = self.source,
                    statements,
                    "the publications are out of date, which only the primary can change"
                );
            }
            memory.pending = statements;
            self.tell_captured(plan.captured_as_is());
            return Ok(None);
        }
        match self.publications.carry_out(client, &plan, &self.user, &self.database).await {
            Ok(()) => {
                plan.tell(&self.source);
                self.tell_captured(plan.captured());
                Ok(None)
            }
            // A lock that was not to be had, a table that went: next time.
            Err(fault) if fault.kind() == FaultKind::Transient => {
                tracing::debug!(source = self.source, error = %fault, "publications not changed yet");
                Ok(None)
            }
            Err(fault) => Err(fault),
        }
    }

    fn tell_captured(&self, captured: CapturedTables) {
        self.captured.send_if_modified(|known| {
            let changed = *known != captured;
            *known = captured;
            changed
        });
    }

    /// Writes into a log that says nothing, so that the way through it is seen to work.
    async fn beat(&self, client: &tokio_postgres::Client, memory: &mut Memory) {
        let received = self.vitals.received_bytes.load(Relaxed);
        if received != memory.received {
            memory.received = received;
            memory.heard = Instant::now();
        }
        let due = self.heartbeat.is_some_and(|every| memory.heard.elapsed() >= every);
        if !due || self.standby || memory.mute {
            return;
        }
        memory.heard = Instant::now();
        if let Err(error) =
            client.execute("SELECT pg_logical_emit_message(false, $1, '')", &[&crate::apply::HEARTBEAT]).await
        {
            memory.mute = true;
            let fault = sql_fault(error, "cannot write heartbeats");
            tracing::warn!(source = self.source, error = %fault, "heartbeats are off: headgate check names the GRANT, or set heartbeat to off");
        }
    }
}

/// What is lost where publications are missing.
pub(crate) fn lost(missing: &[String]) -> String {
    format!(
        "publication {} was dropped, and changes from then on are not in the log's reading",
        missing.join(" and ")
    )
}

/// Warns, once for each table, that its updates and deletes are not captured.
fn warn_of_append(source: &str, plan: &Plan, warned: &mut BTreeSet<TableName>) {
    warned.retain(|table| plan.append.contains(table));
    for table in &plan.append {
        if warned.insert(table.clone()) {
            tracing::warn!(
                source,
                %table,
                "only inserts and truncates of this table are captured, for it has no replica identity: add a primary key, or ALTER TABLE {} REPLICA IDENTITY FULL",
                sql_name::quoted(table)
            );
        }
    }
}
