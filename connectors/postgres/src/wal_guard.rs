//! The log that the database keeps for a source, watched before it hurts the database or is lost to the source.
//!
//! Looks by whoever has a session: the monitor while a run streams, [`guard`] at all other times (the broker is away,
//! the source is stopped, waits, or stands by), for a slot keeps log above all while nobody reads it.
//!
//! # What it does
//! Tells the rate of the log, how long what is left lasts at that rate, and who holds the slot back; warns once for each
//! [`Level`]. Only where the operator has chosen so (`on_wal_pressure = "drop_slot"`) it gives the slot up at `wal_limit`:
//! the monitor ends the run, then the guard drops the slot, which nobody reads by then. The next run finds no slot and
//! says what is lost with a gap.

mod holder;
mod pressure;

pub(crate) use self::pressure::{Look, Pressure};

use self::holder::Holder;
use crate::{
    Config, WalPressure,
    connect::{Server, SqlSession, Target},
    slot::{self, Slot},
};
use headgate_sdk::{Fault, FaultKind, Vitals, amount::Bytes};
use pressure::{Forecast, Level};
use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};
use tokio::time::Instant;
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;

/// How often the guard looks while nothing streams.
const TICK: Duration = Duration::from_secs(2);
/// How long it waits before it tries to reach the server again.
const PAUSE: Duration = Duration::from_secs(15);
/// How long a look or the making of a session may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// The watch over one source's slot: what it may keep, and what was seen so far.
pub(crate) struct WalGuard {
    source: String,
    slot: String,
    action: WalPressure,
    pressure: Pressure,
    vitals: Arc<Vitals>,
}

impl WalGuard {
    /// The watch over the slot of `source`.
    pub(crate) fn new(source: &str, config: &Config, vitals: Arc<Vitals>) -> Self {
        Self {
            source: source.to_owned(),
            slot: slot::name(source, config),
            action: config.on_wal_pressure,
            pressure: Pressure::new(config.wal_limit),
            vitals,
        }
    }

    /// Takes in how the slot is: writes the vitals, warns where a level is newly reached. The fault, if there is one, says
    /// that the slot has to be given up.
    pub(crate) async fn look(&mut self, client: &Client, slot: &Slot) -> Option<Fault> {
        let vitals = &self.vitals;
        vitals.server_log.fetch_max(slot.server_log.0, Relaxed);
        vitals.retained_log.store(slot.restart.unwrap_or_default().0, Relaxed);
        vitals.retained_bytes.store(slot.retained_bytes(), Relaxed);
        vitals.safe_bytes.store(slot.safe_bytes.unwrap_or(-1), Relaxed);
        let forecast = self.pressure.observe(&Look {
            at: Instant::now().into_std(),
            server_log: slot.server_log.0,
            retained: slot.retained_bytes(),
            safe: slot.safe_bytes.map(|safe| u64::try_from(safe).unwrap_or(0)),
        });
        vitals.wal_rate.store(forecast.rate, Relaxed);
        vitals.wal_left_seconds.store(
            forecast.lasts.map_or(-1, |lasts| i64::try_from(lasts.as_secs()).unwrap_or(i64::MAX)),
            Relaxed,
        );
        let level = forecast.level as u64;
        let before = vitals.wal_pressure.swap(level, Relaxed);
        let holder = match holder::find(client, slot).await {
            Ok(holder) => holder,
            Err(error) => {
                tracing::debug!(source = self.source, %error, "cannot look for what holds the log back");
                None
            }
        };
        vitals.holder_pid.store(holder.as_ref().map_or(0, |holder| holder.pid.into()), Relaxed);
        vitals.holder_since.store(holder.as_ref().map_or(0, |holder| holder.since), Relaxed);
        if level > before {
            self.warn(&forecast, holder.as_ref());
        } else if level == 0 && before > 0 {
            tracing::info!(
                source = self.source,
                retained = %Bytes(forecast.retained),
                "the database keeps less log for this source again"
            );
        }
        (self.action == WalPressure::DropSlot && self.pressure.is_over_limit(&forecast))
            .then(|| self.given_up(&forecast))
    }

    fn warn(&self, forecast: &Forecast, holder: Option<&Holder>) {
        let held = match holder {
            Some(holder) => format!("held by {holder}"),
            None => "held by what is read and not confirmed yet, or not read at all".to_owned(),
        };
        let fix = match holder {
            Some(holder) => holder.fix(),
            None => "see headgate status for what keeps the source from reading; ALTER SYSTEM SET max_slot_wal_keep_size gives more time".to_owned(),
        };
        let (source, slot) = (&self.source, &self.slot);
        if forecast.level == Level::Critical {
            tracing::error!(source, slot, fix, "{forecast}; {held}");
        } else {
            tracing::warn!(source, slot, fix, "{forecast}; {held}");
        }
    }

    fn given_up(&self, forecast: &Forecast) -> Fault {
        Fault::definite(format!(
            "the database keeps {} of log for slot {}, more than wal_limit allows, and on_wal_pressure = \"drop_slot\" gives the slot up",
            Bytes(forecast.retained),
            self.slot
        ))
        .with_fix(format!(
            "the next start says with a gap event what is lost; then: headgate source accept-gap {}",
            self.source
        ))
    }
}

/// Watches the slot of `source` for as long as no run streams from it, until shutdown.
///
/// Holds one ordinary SQL session meanwhile, and none while a run streams. A server that cannot be reached is tried
/// again quietly: that is for the run to tell.
pub async fn guard(source: &str, config: &Config, vitals: Arc<Vitals>, shutdown: CancellationToken) {
    let mut guard = WalGuard::new(source, config, Arc::clone(&vitals));
    let mut session = None;
    let watch = async {
        // A run that starts as it should streams before the first look.
        let mut pause = TICK;
        loop {
            tokio::time::sleep(pause).await;
            pause = TICK;
            if vitals.streaming.load(Relaxed) != 0 {
                session = None;
                continue;
            }
            let look = guard.look_from_outside(config, &mut session);
            match tokio::time::timeout(PATIENCE, look).await {
                Ok(Ok(())) => {}
                Ok(Err(fault)) => {
                    tracing::debug!(source, error = %fault, "cannot look at the slot");
                    session = None;
                    // A server that refuses us is not to be asked again and again: some count.
                    pause = if fault.kind() == FaultKind::Definite { 4 * PAUSE } else { PAUSE };
                }
                Err(_) => {
                    session = None;
                    pause = PAUSE;
                }
            }
        }
    };
    tokio::select! {
        () = watch => {}
        () = shutdown.cancelled() => {}
    }
}

impl WalGuard {
    async fn look_from_outside(
        &mut self,
        config: &Config,
        session: &mut Option<(Server, SqlSession)>,
    ) -> Result<(), Fault> {
        let (server, sql) = match session {
            Some(reached) => reached,
            None => session.insert(Server::find(Target::new(config, &self.source)?).await?),
        };
        let Some(slot) = slot::inspect(&sql.client, &self.slot).await? else {
            self.vitals.retained_bytes.store(0, Relaxed);
            self.vitals.wal_pressure.store(0, Relaxed);
            return Ok(());
        };
        // A slot of another database or plugin is not ours to judge, and one that is read has its reader's own watch.
        if slot.validate(&self.slot, &server.target.database).is_err()
            || slot.active_pid.is_some()
            || slot.unusable.is_some()
        {
            return Ok(());
        }
        if let Some(fault) = self.look(&sql.client, &slot).await {
            slot::drop(&sql.client, &self.slot).await?;
            self.vitals.wal_pressure.store(0, Relaxed);
            tracing::error!(
                source = self.source,
                slot = self.slot,
                fix = fault.fix(),
                "slot dropped: {fault}"
            );
        }
        Ok(())
    }
}
