//! How one source is.

use super::{HolderReport, Phase, SourceReport, WalPressure, WalReport};
use crate::{config::ConnectorKind, snapshot::SnapshotReport, telemetry::metrics::SourceMetrics};
use headgate_sdk::{Fault, Position, SnapshotDesk, Vitals, clock};
use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI64, AtomicU8, AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

/// What changes too seldom, or together, to be an atomic.
#[derive(Debug, Default)]
struct Detail {
    position: Option<Position>,
    last_error: Option<String>,
    fix: Option<String>,
}

/// How one source is. Shared by the tasks that run it.
#[derive(Debug)]
pub struct SourceState {
    name: String,
    connector: ConnectorKind,
    /// Written by the connector.
    pub vitals: Arc<Vitals>,
    /// Requests for snapshots, and how far they are.
    pub snapshots: Arc<SnapshotDesk>,
    /// Counted by the pipeline and the publisher.
    pub metrics: SourceMetrics,
    phase: AtomicU8,
    /// How many [`HoldUp`]s there are.
    held_up: AtomicU32,
    sequence: AtomicU64,
    done_log: AtomicU64,
    last_commit: AtomicI64,
    oldest_pending: AtomicI64,
    errors: AtomicU64,
    detail: Mutex<Detail>,
}

impl SourceState {
    /// A source that is about to start.
    #[must_use]
    pub fn new(name: &str, connector: ConnectorKind, metrics: SourceMetrics) -> Arc<Self> {
        Arc::new(Self {
            name: name.to_owned(),
            connector,
            vitals: Arc::default(),
            snapshots: Arc::default(),
            metrics,
            phase: AtomicU8::new(Phase::Starting as u8),
            held_up: AtomicU32::new(0),
            sequence: AtomicU64::new(0),
            done_log: AtomicU64::new(0),
            last_commit: AtomicI64::new(0),
            oldest_pending: AtomicI64::new(0),
            errors: AtomicU64::new(0),
            detail: Mutex::default(),
        })
    }

    /// The source's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What the source is doing. That a started source streams is known to its connector alone, and does not count while
    /// something holds it up.
    #[must_use]
    pub fn phase(&self) -> Phase {
        match Phase::ALL.get(usize::from(self.phase.load(Ordering::Relaxed))) {
            Some(Phase::Starting | Phase::Standby) if self.held_up.load(Ordering::Relaxed) != 0 => {
                Phase::Waiting
            }
            Some(Phase::Starting | Phase::Standby) if self.vitals.streaming.load(Ordering::Relaxed) != 0 => {
                Phase::Streaming
            }
            Some(phase) => *phase,
            None => Phase::Starting,
        }
    }

    /// A run begins. One that follows on standing by stands by until it streams: it only looks whether the other gateway still
    /// reads, and is as ready meanwhile as before.
    pub fn begins(&self) {
        if self.phase.load(Ordering::Relaxed) != Phase::Standby as u8 {
            self.set_phase(Phase::Starting);
        }
    }

    /// Says what the source is doing.
    pub fn set_phase(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Relaxed);
    }

    /// Keeps a fault for people to see, and says what the source does because of it.
    pub fn fault(&self, phase: Phase, fault: &Fault) {
        self.keep(fault);
        self.set_phase(phase);
    }

    /// Tells of a fault that does not end the run, for it is tried until it passes. The source waits for as long as the
    /// value lives.
    #[must_use]
    pub fn hold_up(self: &Arc<Self>, fault: &Fault) -> HoldUp {
        tracing::warn!(source = self.name, fix = fault.fix(), "{fault}");
        self.keep(fault);
        self.held_up.fetch_add(1, Ordering::Relaxed);
        HoldUp { state: Arc::clone(self), what: fault.to_string() }
    }

    /// As [`hold_up`](Self::hold_up), where the source may wait already: what it waits for is told again if it is something else
    /// now.
    pub fn still_held_up(self: &Arc<Self>, held_up: &mut Option<HoldUp>, fault: &Fault) {
        if held_up.as_ref().is_none_or(|held_up| held_up.what != fault.to_string()) {
            *held_up = Some(self.hold_up(fault));
        }
    }

    fn keep(&self, fault: &Fault) {
        self.errors.fetch_add(1, Ordering::Relaxed);
        let mut detail = self.detail();
        detail.last_error = Some(fault.to_string());
        detail.fix = fault.fix().map(str::to_owned);
    }

    /// The stream holds everything up to this event: its position, its stream sequence, its commit time in microseconds
    /// since 1970-01-01 UTC (0 where it is not known).
    pub fn acked(&self, position: Position, sequence: u64, committed_at: i64) {
        self.sequence.store(sequence, Ordering::Relaxed);
        if committed_at != 0 {
            self.last_commit.store(committed_at, Ordering::Relaxed);
        }
        self.detail().position = Some(position);
    }

    /// Everything before this log position is in the stream, or needed no event.
    pub fn set_done(&self, log: u64) {
        self.done_log.store(log, Ordering::Relaxed);
    }

    /// Commit time, in microseconds since 1970-01-01 UTC, of the oldest change that was received and is not in the
    /// stream yet; 0 when all are.
    pub fn set_oldest_pending(&self, committed_at: i64) {
        self.oldest_pending.store(committed_at, Ordering::Relaxed);
    }

    /// Bytes of the source's log whose events are not in the stream yet.
    #[must_use]
    pub fn lag_bytes(&self) -> u64 {
        let done =
            self.done_log.load(Ordering::Relaxed).max(self.vitals.confirmed_log.load(Ordering::Relaxed));
        // Before the first position is known, the whole log would count as lag.
        let (server, vitals) = (self.vitals.server_log.load(Ordering::Relaxed), &self.vitals);
        match self.connector {
            _ if done == 0 => 0,
            ConnectorKind::MySql => {
                headgate_mysql::log_distance(done, server, vitals.log_file_bytes.load(Ordering::Relaxed))
            }
            ConnectorKind::Postgres | ConnectorKind::Webhook => server.saturating_sub(done),
        }
    }

    /// Age of the oldest commit that is not in the stream yet; 0 when caught up.
    #[must_use]
    pub fn lag_ms(&self) -> u64 {
        let oldest = self.oldest_pending.load(Ordering::Relaxed);
        if oldest == 0 { 0 } else { u64::try_from((clock::now() - oldest) / 1000).unwrap_or(0) }
    }

    /// How long until the database discards log that this source has not confirmed; `None` where none is about to go.
    #[must_use]
    pub fn log_expires_in(&self) -> Option<Duration> {
        let at = self.vitals.expires_at.load(Ordering::Relaxed);
        (at > 0).then(|| Duration::from_micros(u64::try_from(at - clock::now()).unwrap_or(0)))
    }

    /// The last error that was kept.
    #[must_use]
    pub fn last_error(&self) -> Option<String> {
        self.detail().last_error.clone()
    }

    /// How it is, for people and for scripts.
    #[must_use]
    pub fn report(&self) -> SourceReport {
        let log = |value: u64| (value != 0).then(|| log_text(self.connector, value));
        let snapshots = self.snapshots();
        let detail = self.detail();
        SourceReport {
            name: self.name.clone(),
            connector: self.connector.name().to_owned(),
            state: self.phase(),
            position: detail.position.map(|position| position.to_string()),
            sequence: self.sequence.load(Ordering::Relaxed),
            lag_bytes: self.lag_bytes(),
            lag_ms: self.lag_ms(),
            retained_bytes: self.vitals.retained_bytes.load(Ordering::Relaxed),
            // Zero is also what it is before the connector has asked.
            safe_bytes: u64::try_from(self.vitals.safe_bytes.load(Ordering::Relaxed)).ok().filter(|b| *b > 0),
            wal: self.wal(),
            log_expires_in_s: self.log_expires_in().map(|left| left.as_secs()),
            confirmed: log(self.vitals.confirmed_log.load(Ordering::Relaxed)),
            last_commit: time_text(self.last_commit.load(Ordering::Relaxed)),
            events: self.metrics.published.get(),
            dead_letters: self.metrics.failed.get(),
            errors: self.errors.load(Ordering::Relaxed),
            last_error: detail.last_error.clone(),
            // The last error stays for people to see; its fix is no longer wanted once the source streams.
            fix: detail.fix.clone().filter(|_| !self.phase().is_ready()),
            restarts: self.metrics.restarts.get(),
            snapshot: snapshots.iter().find(|job| !job.has_ended()).cloned(),
            snapshots,
        }
    }

    /// How near its database is to keeping more log for it than it may.
    #[must_use]
    pub fn wal(&self) -> WalReport {
        let vitals = &self.vitals;
        let rate = vitals.wal_rate.load(Ordering::Relaxed);
        let left = u64::try_from(vitals.wal_left_seconds.load(Ordering::Relaxed)).ok();
        let since = vitals.holder_since.load(Ordering::Relaxed);
        WalReport {
            pressure: match vitals.wal_pressure.load(Ordering::Relaxed) {
                0 => WalPressure::None,
                1 => WalPressure::Raised,
                2 => WalPressure::High,
                _ => WalPressure::Critical,
            },
            rate,
            // Zero is also what it is before the connector has looked twice.
            left_s: left.filter(|_| rate > 0),
            holder: (since != 0).then(|| HolderReport {
                pid: vitals.holder_pid.load(Ordering::Relaxed),
                age_s: u64::try_from((clock::now() - since) / 1_000_000).unwrap_or(0),
            }),
        }
    }

    /// How far its snapshots are: those under way, and the last that ended.
    #[must_use]
    pub fn snapshots(&self) -> Vec<SnapshotReport> {
        let (held, now) = (self.detail().position, clock::now());
        let all = self.snapshots.progress().into_iter();
        all.map(|progress| SnapshotReport::new(progress, held, now)).collect()
    }

    fn detail(&self) -> MutexGuard<'_, Detail> {
        // Nothing panics while holding it; if something did, the fields would still be whole.
        self.detail.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Something that a source cannot go on without, and that is tried again and again.
#[derive(Debug)]
pub struct HoldUp {
    state: Arc<SourceState>,
    what: String,
}

impl Drop for HoldUp {
    fn drop(&mut self) {
        self.state.held_up.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A log position in the words of the database it belongs to.
fn log_text(connector: ConnectorKind, log: u64) -> String {
    match connector {
        ConnectorKind::Postgres => format!("{:X}/{:X}", log >> 32, log & 0xFFFF_FFFF),
        ConnectorKind::MySql => headgate_mysql::log_text(log),
        ConnectorKind::Webhook => log.to_string(),
    }
}

fn time_text(micros: i64) -> Option<String> {
    if micros == 0 {
        return None;
    }
    jiff::Timestamp::from_microsecond(micros).ok().map(|time| format!("{time:.6}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::telemetry::metrics::Metrics;

    fn state() -> Arc<SourceState> {
        SourceState::new("shop", ConnectorKind::Postgres, Metrics::new().source("shop"))
    }

    #[test]
    fn lag_is_zero_until_something_is_known_and_when_caught_up() {
        let state = state();
        state.vitals.server_log.store(5_000, Ordering::Relaxed);
        assert_eq!((state.lag_bytes(), state.lag_ms()), (0, 0));
        state.set_done(4_000);
        assert_eq!(state.lag_bytes(), 1_000);
        state.vitals.confirmed_log.store(4_500, Ordering::Relaxed);
        assert_eq!(state.lag_bytes(), 500);
        state.set_done(6_000);
        assert_eq!(state.lag_bytes(), 0);
        state.set_oldest_pending(clock::now() - 2_500_000);
        assert!((2_500..3_500).contains(&state.lag_ms()));
        state.set_oldest_pending(0);
        assert_eq!(state.lag_ms(), 0);
    }

    #[test]
    fn report_tells_how_near_the_limit_is_and_who_holds_the_log() {
        let state = state();
        let wal = serde_json::to_value(state.report()).unwrap()["wal"].clone();
        assert_eq!(wal, serde_json::json!({"pressure": "none", "rate": 0, "left_s": null, "holder": null}));
        state.vitals.wal_rate.store(1 << 20, Ordering::Relaxed);
        state.vitals.wal_left_seconds.store(600, Ordering::Relaxed);
        state.vitals.wal_pressure.store(2, Ordering::Relaxed);
        state.vitals.holder_pid.store(77, Ordering::Relaxed);
        state.vitals.holder_since.store(clock::now() - 90_500_000, Ordering::Relaxed);
        let wal = serde_json::to_value(state.report()).unwrap()["wal"].clone();
        assert_eq!(
            (&wal["pressure"], &wal["left_s"], &wal["holder"]["pid"], &wal["holder"]["age_s"]),
            (&"high".into(), &600.into(), &77.into(), &90.into())
        );
    }

    #[test]
    fn report_tells_what_happened_and_what_to_do() {
        let state = state();
        state.acked(Position { epoch: 1, commit: 0x16B_3748, index: 2 }, 9, 1_700_000_000_123_456);
        state.vitals.confirmed_log.store(0x1_016B_3748, Ordering::Relaxed);
        state.fault(Phase::Stopped, &Fault::definite("the slot is gone").with_fix("drop the source"));
        let report = serde_json::to_value(state.report()).unwrap();
        assert_eq!(report["state"], "stopped");
        assert_eq!(report["position"], "0001-00000000016b3748-00000002");
        assert_eq!(report["confirmed"], "1/16B3748");
        assert_eq!(report["last_commit"], "2023-11-14T22:13:20.123456Z");
        assert_eq!(report["last_error"], "the slot is gone");
        assert_eq!(report["fix"], "drop the source");
        assert_eq!(report["errors"], 1);
        assert!(report["snapshot"].is_null());
        state.set_phase(Phase::Streaming);
        assert_eq!(state.report().fix, None);
    }

    #[test]
    fn a_source_that_stands_by_does_so_until_it_streams() {
        let state = state();
        state.begins();
        assert_eq!(state.phase(), Phase::Starting);
        state.fault(Phase::Standby, &Fault::busy("another gateway reads"));
        state.begins();
        assert_eq!(state.phase(), Phase::Standby);
        let held_up = state.hold_up(&Fault::transient("an earlier connection"));
        assert_eq!(state.phase(), Phase::Waiting);
        drop(held_up);
        state.vitals.streaming.store(1, Ordering::Relaxed);
        assert_eq!(state.phase(), Phase::Streaming);
        state.fault(Phase::Waiting, &Fault::transient("the connection was lost"));
        state.begins();
        state.vitals.streaming.store(0, Ordering::Relaxed);
        assert_eq!(state.phase(), Phase::Starting, "it does not stand by any more");
    }

    #[test]
    fn a_source_that_is_held_up_waits_and_says_why() {
        let state = state();
        state.vitals.streaming.store(1, Ordering::Relaxed);
        assert_eq!(state.phase(), Phase::Streaming);
        let first = state.hold_up(&Fault::transient("no room").with_fix("make some"));
        let second = state.hold_up(&Fault::transient("no answer"));
        drop(first);
        let report = state.report();
        assert_eq!((report.state, report.last_error.as_deref()), (Phase::Waiting, Some("no answer")));
        assert_eq!(report.errors, 2);
        drop(second);
        assert_eq!(state.phase(), Phase::Streaming);
        // What ended the run says more.
        let _later = state.hold_up(&Fault::transient("no room"));
        state.fault(Phase::Gap, &Fault::gap("history is gone"));
        assert_eq!(state.phase(), Phase::Gap);
    }
}
