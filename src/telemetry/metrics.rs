//! Every metric, named here and nowhere else.
//!
//! Counters and gauges are handles on atomics: counting is one atomic addition, and a hot path counts in batches
//! (`inc_by`). What a connector or a source's state knows anyway is not counted twice: it is read when a scrape comes.

use crate::status::{Phase, SourceState};
use prometheus_client::{
    encoding::{EncodeLabelSet, text},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};
use std::{
    fmt,
    sync::{Arc, atomic::Ordering},
};

/// Seconds from half a millisecond to a minute.
const COMMIT_TO_ACK_BUCKETS: [f64; 16] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    source: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RefusalLabels {
    source: String,
    reason: &'static str,
}

type Refusals = Family<RefusalLabels, Counter>;
type Counters = Family<Labels, Counter>;
type Gauges = Family<Labels, Gauge>;

/// The registry and its families, as a value: whoever serves `/metrics` holds it.
pub struct Metrics {
    registry: Registry,
    received: Counters,
    published: Counters,
    failed: Counters,
    deduplicated: Counters,
    received_bytes: Counters,
    published_bytes: Counters,
    restarts: Counters,
    resyncs: Counters,
    snapshot_rows: Counters,
    snapshot_jobs: Gauges,
    snapshot_rows_left: Gauges,
    spooled: Counters,
    refused: Refusals,
    in_flight: Gauges,
    lag_bytes: Gauges,
    lag_ms: Gauges,
    retained_bytes: Gauges,
    wal_rate: Gauges,
    wal_left: Gauges,
    wal_pressure: Gauges,
    holder_age: Gauges,
    log_expires: Gauges,
    streaming: Gauges,
    commit_to_ack: Family<Labels, Histogram, fn() -> Histogram>,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// All families, registered and empty.
    #[must_use]
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("headgate");
        let mut counters = |name: &str, help: &str| {
            let family = Counters::default();
            registry.register(name, help, family.clone());
            family
        };
        let received = counters("received", "Changes read from the source's log");
        let published = counters("published", "Events that the broker acknowledged");
        let failed = counters("failed", "Events that went to the dead letters");
        let deduplicated = counters("deduplicated", "Changes skipped because the stream already held them");
        let received_bytes = counters("received_bytes", "Bytes of log payload read from the source");
        let published_bytes = counters("published_bytes", "Bytes of messages that the broker acknowledged");
        let restarts = counters("restarts", "Times that the source was started again after a fault");
        let resyncs = counters(
            "resyncs",
            "Times that the publisher asked the stream where it ends and went on from there",
        );
        let snapshot_rows = counters("snapshot_rows", "Rows that snapshots read and told");
        let spooled =
            counters("spooled", "Webhook events kept in the spool because the broker was slow or away");
        let refused = Refusals::default();
        registry.register("refused", "Webhook requests that were turned away, by reason", refused.clone());
        let mut gauges = |name: &str, help: &str| {
            let family = Gauges::default();
            registry.register(name, help, family.clone());
            family
        };
        let in_flight = gauges("in_flight", "Messages published and not yet acknowledged");
        let lag_bytes =
            gauges("lag_bytes", "Bytes of the source's log whose events are not in the stream yet");
        let lag_ms =
            gauges("lag_ms", "Age in milliseconds of the oldest commit that is not in the stream yet");
        let retained_bytes = gauges("retained_bytes", "Bytes of log that the database keeps for this source");
        let wal_rate = gauges(
            "wal_bytes_per_second",
            "Bytes of log that the database writes in a second, averaged over about a minute",
        );
        let wal_left = gauges(
            "wal_left_seconds",
            "Seconds until the database keeps as much log for this source as it may, if nothing is released; -1 where there is no limit",
        );
        let wal_pressure =
            gauges("wal_pressure", "How near that limit is: 0 not, 1 raised, 2 high, 3 critical");
        let holder_age = gauges(
            "wal_holder_age_seconds",
            "Age of the open transaction that makes the database keep its log; 0 where none does",
        );
        let snapshot_jobs = gauges("snapshot_jobs", "Snapshots under way");
        let snapshot_rows_left =
            gauges("snapshot_rows_left", "Rows that are left to snapshot, as the database guesses");
        let log_expires = gauges(
            "log_expires_seconds",
            "Seconds until the database discards log that this source has not confirmed; -1 where none is about to go",
        );
        let streaming = gauges("streaming", "1 while changes are being streamed");
        let commit_to_ack: Family<Labels, Histogram, fn() -> Histogram> =
            Family::new_with_constructor(|| Histogram::new(COMMIT_TO_ACK_BUCKETS));
        registry.register(
            "commit_to_ack_seconds",
            "Seconds from a commit in the database to the broker's acknowledgement of its event",
            commit_to_ack.clone(),
        );
        Self {
            registry,
            received,
            published,
            failed,
            deduplicated,
            received_bytes,
            published_bytes,
            restarts,
            resyncs,
            snapshot_rows,
            snapshot_jobs,
            snapshot_rows_left,
            spooled,
            refused,
            in_flight,
            lag_bytes,
            lag_ms,
            retained_bytes,
            wal_rate,
            wal_left,
            wal_pressure,
            holder_age,
            log_expires,
            streaming,
            commit_to_ack,
        }
    }

    /// The handles of one source.
    #[must_use]
    pub fn source(&self, name: &str) -> SourceMetrics {
        let labels = Labels { source: name.to_owned() };
        SourceMetrics {
            received: self.received.get_or_create_owned(&labels),
            published: self.published.get_or_create_owned(&labels),
            failed: self.failed.get_or_create_owned(&labels),
            deduplicated: self.deduplicated.get_or_create_owned(&labels),
            published_bytes: self.published_bytes.get_or_create_owned(&labels),
            restarts: self.restarts.get_or_create_owned(&labels),
            resyncs: self.resyncs.get_or_create_owned(&labels),
            snapshot_rows: self.snapshot_rows.get_or_create_owned(&labels),
            snapshot_jobs: self.snapshot_jobs.get_or_create_owned(&labels),
            snapshot_rows_left: self.snapshot_rows_left.get_or_create_owned(&labels),
            spooled: self.spooled.get_or_create_owned(&labels),
            refused: Refused { family: self.refused.clone(), source: name.to_owned() },
            in_flight: self.in_flight.get_or_create_owned(&labels),
            commit_to_ack: self.commit_to_ack.get_or_create_owned(&labels),
            received_bytes: self.received_bytes.get_or_create_owned(&labels),
            lag_bytes: self.lag_bytes.get_or_create_owned(&labels),
            lag_ms: self.lag_ms.get_or_create_owned(&labels),
            retained_bytes: self.retained_bytes.get_or_create_owned(&labels),
            wal_rate: self.wal_rate.get_or_create_owned(&labels),
            wal_left: self.wal_left.get_or_create_owned(&labels),
            wal_pressure: self.wal_pressure.get_or_create_owned(&labels),
            holder_age: self.holder_age.get_or_create_owned(&labels),
            log_expires: self.log_expires.get_or_create_owned(&labels),
            streaming: self.streaming.get_or_create_owned(&labels),
        }
    }

    /// Everything in the OpenMetrics text format, with the sources' gauges brought up to date.
    ///
    /// # Errors
    /// A metric could not be formatted.
    pub fn encode<'a>(
        &self,
        sources: impl IntoIterator<Item = &'a Arc<SourceState>>,
    ) -> Result<String, fmt::Error> {
        for source in sources {
            source.metrics.refresh(source);
        }
        let mut out = String::new();
        text::encode(&mut out, &self.registry)?;
        Ok(out)
    }
}

/// One source's handles. Cloning is cheap, and all clones count into the same numbers.
#[derive(Clone, Debug)]
pub struct SourceMetrics {
    /// Changes read from the source's log.
    pub received: Counter,
    /// Events that the broker acknowledged.
    pub published: Counter,
    /// Events that went to the dead letters.
    pub failed: Counter,
    /// Changes skipped because the stream already held them.
    pub deduplicated: Counter,
    /// Bytes of messages that the broker acknowledged.
    pub published_bytes: Counter,
    /// Times that the source was started again after a fault.
    pub restarts: Counter,
    /// Times that the publisher asked the stream where it ends.
    pub resyncs: Counter,
    /// Rows that snapshots read and told.
    pub snapshot_rows: Counter,
    /// Webhook events kept in the spool.
    pub spooled: Counter,
    refused: Refused,
    /// Messages published and not yet acknowledged.
    pub in_flight: Gauge,
    /// Seconds from commit to acknowledgement; observed once for each transaction, by its last event.
    pub commit_to_ack: Histogram,
    snapshot_jobs: Gauge,
    snapshot_rows_left: Gauge,
    received_bytes: Counter,
    lag_bytes: Gauge,
    lag_ms: Gauge,
    retained_bytes: Gauge,
    wal_rate: Gauge,
    wal_left: Gauge,
    wal_pressure: Gauge,
    holder_age: Gauge,
    log_expires: Gauge,
    streaming: Gauge,
}

/// The counters of one source's refused requests. Only those of reasons that occurred exist.
#[derive(Clone, Debug)]
struct Refused {
    family: Refusals,
    source: String,
}

impl SourceMetrics {
    /// Counts a request that was turned away.
    pub fn refused(&self, reason: &'static str) {
        let Refused { family, source } = &self.refused;
        family.get_or_create_owned(&RefusalLabels { source: source.clone(), reason }).inc();
    }

    /// Copies what the source's state and its connector's vitals know.
    fn refresh(&self, state: &SourceState) {
        let gauge = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        let vitals = &state.vitals;
        self.received_bytes.inner().store(vitals.received_bytes.load(Ordering::Relaxed), Ordering::Relaxed);
        self.lag_bytes.set(gauge(state.lag_bytes()));
        self.lag_ms.set(gauge(state.lag_ms()));
        self.retained_bytes.set(gauge(vitals.retained_bytes.load(Ordering::Relaxed)));
        let wal = state.wal();
        self.wal_rate.set(gauge(wal.rate));
        self.wal_left.set(wal.left_s.map_or(-1, gauge));
        self.wal_pressure.set(wal.pressure as i64);
        self.holder_age.set(wal.holder.map_or(0, |holder| gauge(holder.age_s)));
        let snapshots = state.snapshots();
        let under_way = || snapshots.iter().filter(|job| !job.has_ended());
        self.snapshot_jobs.set(gauge(under_way().count() as u64));
        self.snapshot_rows_left
            .set(gauge(under_way().filter_map(|job| Some(job.expected?.saturating_sub(job.rows))).sum()));
        self.log_expires.set(state.log_expires_in().map_or(-1, |left| gauge(left.as_secs())));
        // A connector with a log says it itself; of a webhook source only its state does.
        let streaming = vitals.streaming.load(Ordering::Relaxed) != 0 || state.phase() == Phase::Streaming;
        self.streaming.set(i64::from(streaming));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::config::ConnectorKind;

    #[test]
    fn scrape_shows_every_family_of_a_source() {
        let metrics = Metrics::new();
        let state = SourceState::new("shop", ConnectorKind::Postgres, metrics.source("shop"));
        state.metrics.published.inc_by(3);
        state.metrics.commit_to_ack.observe(0.004);
        state.vitals.received_bytes.store(77, Ordering::Relaxed);
        state.vitals.server_log.store(100, Ordering::Relaxed);
        state.set_done(60);
        let text = metrics.encode([&state]).unwrap();
        for line in [
            "headgate_received_total{source=\"shop\"} 0",
            "headgate_published_total{source=\"shop\"} 3",
            "headgate_failed_total{source=\"shop\"} 0",
            "headgate_deduplicated_total{source=\"shop\"} 0",
            "headgate_received_bytes_total{source=\"shop\"} 77",
            "headgate_published_bytes_total{source=\"shop\"} 0",
            "headgate_restarts_total{source=\"shop\"} 0",
            "headgate_resyncs_total{source=\"shop\"} 0",
            "headgate_snapshot_rows_total{source=\"shop\"} 0",
            "headgate_snapshot_jobs{source=\"shop\"} 0",
            "headgate_snapshot_rows_left{source=\"shop\"} 0",
            "headgate_in_flight{source=\"shop\"} 0",
            "headgate_lag_bytes{source=\"shop\"} 40",
            "headgate_lag_ms{source=\"shop\"} 0",
            "headgate_retained_bytes{source=\"shop\"} 0",
            "headgate_wal_bytes_per_second{source=\"shop\"} 0",
            "headgate_wal_left_seconds{source=\"shop\"} -1",
            "headgate_wal_pressure{source=\"shop\"} 0",
            "headgate_wal_holder_age_seconds{source=\"shop\"} 0",
            "headgate_log_expires_seconds{source=\"shop\"} -1",
            "headgate_streaming{source=\"shop\"} 0",
            "headgate_commit_to_ack_seconds_bucket{le=\"0.005\",source=\"shop\"} 1",
            "headgate_commit_to_ack_seconds_count{source=\"shop\"} 1",
            "# EOF",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
        state.set_phase(Phase::Streaming);
        let text = metrics.encode([&state]).unwrap();
        assert!(text.contains("headgate_streaming{source=\"shop\"} 1"), "{text}");
    }
}
