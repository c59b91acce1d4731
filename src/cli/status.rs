//! `headgate status`: what the running gateway's `/status` says.

use super::{Failure, failure::print, paint::Paint};
use crate::{
    config::Config,
    snapshot::{SnapshotReport, SnapshotState},
    status::{Phase, Report, SourceReport, WalPressure},
};
use clap::Args;
use headgate_sdk::amount::Bytes;
use std::{fmt::Write as _, time::Duration};

const TIMEOUT: Duration = Duration::from_secs(3);

/// The arguments.
#[derive(Debug, Args)]
#[command(after_help = "\
LAG       bytes of the database's log whose events are not in the stream yet
LAG TIME  age of the oldest commit that was read and is not in the stream yet
RETAINED  bytes of log that the database keeps for the source
DEAD      events that went to the dead letters (headgate tail dlq --from start)

States: streaming and standby are well; starting and waiting pass; stopped and
gap need somebody.

Examples:
  headgate status
  headgate status --json | jq '.sources[].lag_bytes'")]
pub(super) struct Status {
    /// Print the same JSON as the admin listener's /status
    #[arg(long)]
    json: bool,
}

impl Status {
    pub(super) async fn execute(self, config: &Config) -> Result<(), Failure> {
        let (text, report) = fetch(config).await?;
        if self.json {
            return print(format!("{text}\n").as_bytes());
        }
        print(table(&report, Paint::detect()).as_bytes())
    }
}

/// The running gateway's report, as text too.
pub(super) async fn fetch(config: &Config) -> Result<(String, Report), Failure> {
    fetch_from(&config.admin.listen.to_string()).await
}

/// The report of the gateway whose admin listener is at an address.
pub(super) async fn fetch_from(address: &str) -> Result<(String, Report), Failure> {
    let away = |error: reqwest::Error| {
        let why = if error.is_timeout() { "it does not answer" } else { "nothing answers" };
        Failure::unavailable(format!("no headgate is running with this configuration: {why} on {address}"))
            .with_fix("headgate run, or look at admin.listen")
    };
    let client = reqwest::Client::builder()
        .timeout(TIMEOUT)
        .no_proxy()
        .build()
        .map_err(|error| Failure::internal(error.to_string()))?;
    let answer = client.get(format!("http://{address}/status")).send().await.map_err(away)?;
    let text = answer.error_for_status().map_err(away)?.text().await.map_err(away)?;
    let report = serde_json::from_str(&text).map_err(|_| {
        Failure::unavailable(format!("what listens on {address} is not a headgate of this version"))
    })?;
    Ok((text, report))
}

fn table(report: &Report, paint: Paint) -> String {
    let gateway = &report.gateway;
    let link = if gateway.nats.connected { paint.green("connected") } else { paint.red("disconnected") };
    let mut out = format!(
        "{} {}, up {}, nats {} {link}\n\n",
        paint.bold(&gateway.name),
        gateway.version,
        uptime(gateway.uptime_s),
        gateway.nats.url
    );
    let heads = [
        "SOURCE", "STATE", "LAG", "LAG TIME", "RETAINED", "EVENTS", "DEAD", "ERRORS", "RESTARTS", "POSITION",
    ];
    let rows: Vec<[String; 10]> = report.sources.iter().map(row).collect();
    let widths: Vec<usize> = (0..heads.len())
        .map(|column| {
            rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0).max(heads[column].len())
        })
        .collect();
    let mut line = |cells: &[String], colour: &dyn Fn(usize, String) -> String| {
        let mut text = String::new();
        for (column, (cell, width)) in cells.iter().zip(&widths).enumerate() {
            // Numbers to the right, words to the left.
            let padded = match column {
                2..=8 => format!("{cell:>width$}"),
                9 => cell.clone(),
                _ => format!("{cell:<width$}"),
            };
            text.push_str(&colour(column, padded));
            text.push_str(if column == 9 { "" } else { "  " });
        }
        let _ = writeln!(out, "{}", text.trim_end());
    };
    line(&heads.map(str::to_owned), &|_, text| paint.dim(&text));
    for (source, cells) in report.sources.iter().zip(&rows) {
        line(cells, &|column, text| if column == 1 { state(source.state, &text, paint) } else { text });
    }
    if !gateway.nats.connected {
        let _ = writeln!(out, "\nnats: not connected to {}, which the sources wait for", gateway.nats.url);
        let _ = writeln!(out, "  fix: start the server, or correct nats.url; headgate check tells more");
    }
    for source in &report.sources {
        if let Some(warning) = wal_warning(source) {
            let _ = writeln!(out, "\n{}: {}", paint.bold(&source.name), paint.yellow(&warning));
        }
        if let Some(error) = &source.last_error {
            let _ = writeln!(out, "\n{}: {error}", paint.bold(&source.name));
            if let Some(fix) = &source.fix {
                let _ = writeln!(out, "  fix: {fix}");
            }
        }
        for snapshot in source.snapshots.iter().filter(|snapshot| !snapshot.has_ended()) {
            let _ = writeln!(out, "\n{}: {}", paint.bold(&source.name), under_way(snapshot));
            if let Some(fix) = &snapshot.fix {
                let _ = writeln!(out, "  fix: {fix}");
            }
        }
    }
    out
}

/// How far a snapshot is, and what is in its way.
fn under_way(snapshot: &SnapshotReport) -> String {
    let SnapshotReport { job, reason, tables, tables_done, rows, .. } = snapshot;
    let mut text = format!("snapshot {job} ({reason}): {tables_done} of {tables} tables, {rows}");
    if let Some(expected) = snapshot.expected {
        let _ = write!(text, " of about {expected}");
    }
    text.push_str(" rows");
    let waits = snapshot.state == SnapshotState::Waiting;
    if !waits {
        let _ = write!(text, ", {} rows/s", snapshot.rate);
        if let Some(left) = snapshot.eta_s {
            let _ = write!(text, ", {} left", uptime(left));
        }
    }
    if let Some(table) = &snapshot.table {
        let _ = write!(text, "; {table}{}", if waits { " waits" } else { "" });
    } else if waits {
        text.push_str("; it waits");
    }
    if let Some(error) = &snapshot.error {
        let _ = write!(text, ": {error}");
    }
    text
}

/// What there is to say while the database keeps much log for the source.
fn wal_warning(source: &SourceReport) -> Option<String> {
    let wal = &source.wal;
    if wal.pressure == WalPressure::None {
        return None;
    }
    let mut text = format!("the database keeps {} of log for it", Bytes(source.retained_bytes));
    if let Some(left) = wal.left_s {
        let _ = write!(text, "; at {}/s it may do so for {} more", Bytes(wal.rate), uptime(left));
    }
    match &wal.holder {
        Some(holder) if holder.pid != 0 => {
            let _ = write!(
                text,
                "; held by the transaction of pid {}, open for {}",
                holder.pid,
                uptime(holder.age_s)
            );
        }
        Some(holder) => {
            let _ = write!(text, "; held by a prepared transaction, open for {}", uptime(holder.age_s));
        }
        None => {}
    }
    Some(text)
}

fn row(source: &SourceReport) -> [String; 10] {
    [
        source.name.clone(),
        source.state.to_string(),
        Bytes(source.lag_bytes).to_string(),
        delay(source.lag_ms),
        Bytes(source.retained_bytes).to_string(),
        source.events.to_string(),
        source.dead_letters.to_string(),
        source.errors.to_string(),
        source.restarts.to_string(),
        source.position.clone().unwrap_or_else(|| "-".to_owned()),
    ]
}

fn state(phase: Phase, text: &str, paint: Paint) -> String {
    match phase {
        Phase::Streaming | Phase::Standby => paint.green(text),
        Phase::Starting | Phase::Waiting => paint.yellow(text),
        Phase::Stopped | Phase::Gap => paint.red(text),
    }
}

/// A lag: as fine as it matters.
fn delay(ms: u64) -> String {
    match ms {
        0..10_000 => format!("{ms} ms"),
        10_000..120_000 => format!("{} s", ms / 1000),
        _ => uptime(ms / 1000),
    }
}

fn uptime(seconds: u64) -> String {
    match (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60, seconds % 60) {
        (0, 0, 0, s) => format!("{s}s"),
        (0, 0, m, s) => format!("{m}m {s}s"),
        (0, h, m, _) => format!("{h}h {m}m"),
        (d, h, ..) => format!("{d}d {h}h"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::config::ConnectorKind;
    use crate::status::{GatewayReport, NatsReport, SourceState};
    use crate::telemetry::metrics::Metrics;
    use headgate_sdk::Fault;
    use std::sync::atomic::Ordering;

    #[test]
    fn table_is_aligned_and_tells_the_fix() {
        let metrics = Metrics::new();
        let good = SourceState::new("shop", ConnectorKind::Postgres, metrics.source("shop"));
        good.set_phase(Phase::Streaming);
        good.metrics.published.inc_by(1_234_567);
        let bad = SourceState::new("billing", ConnectorKind::Postgres, metrics.source("billing"));
        bad.fault(
            Phase::Stopped,
            &Fault::definite("the slot is gone").with_fix("headgate source accept-gap billing"),
        );
        let nats = NatsReport { connected: true, url: "nats://h:4222".to_owned() };
        bad.vitals.retained_bytes.store(5 << 30, Ordering::Relaxed);
        bad.vitals.wal_rate.store(1 << 20, Ordering::Relaxed);
        bad.vitals.wal_left_seconds.store(3_700, Ordering::Relaxed);
        bad.vitals.wal_pressure.store(1, Ordering::Relaxed);
        bad.vitals.holder_pid.store(7, Ordering::Relaxed);
        bad.vitals.holder_since.store(1, Ordering::Relaxed);
        let mut bad = bad.report();
        if let Some(holder) = &mut bad.wal.holder {
            holder.age_s = 65;
        }
        let gateway = GatewayReport { name: "g".to_owned(), version: "1".to_owned(), uptime_s: 3_725, nats };
        let mut good = good.report();
        good.snapshots.push(SnapshotReport {
            job: 1,
            reason: "initial".to_owned(),
            state: SnapshotState::Waiting,
            table: Some("public.orders".to_owned()),
            tables: 10,
            tables_done: 4,
            rows: 309,
            expected: None,
            rate: 0,
            eta_s: None,
            error: Some("permission denied".to_owned()),
            fix: Some("GRANT SELECT".to_owned()),
        });
        good.snapshots.push(SnapshotReport {
            job: 2,
            state: SnapshotState::Running,
            expected: Some(1_000),
            rate: 10,
            eta_s: Some(70),
            error: None,
            fix: None,
            ..good.snapshots[0].clone()
        });
        let report = Report { gateway, sources: vec![bad, good] };
        assert_eq!(
            table(&report, Paint::plain()),
            "g 1, up 1h 2m, nats nats://h:4222 connected\n\n\
             SOURCE   STATE      LAG  LAG TIME  RETAINED   EVENTS  DEAD  ERRORS  RESTARTS  POSITION\n\
             billing  stopped    0 B      0 ms   5.0 GiB        0     0       1         0  -\n\
             shop     streaming  0 B      0 ms       0 B  1234567     0       0         0  -\n\n\
             billing: the database keeps 5.0 GiB of log for it; at 1.0 MiB/s it may do so for 1h 1m more; \
             held by the transaction of pid 7, open for 1m 5s\n\n\
             billing: the slot is gone\n  fix: headgate source accept-gap billing\n\n\
             shop: snapshot 1 (initial): 4 of 10 tables, 309 rows; public.orders waits: permission denied\n  \
             fix: GRANT SELECT\n\n\
             shop: snapshot 2 (initial): 4 of 10 tables, 309 of about 1000 rows, 10 rows/s, 1m 10s left; public.orders\n"
        );
        assert_eq!(
            [9_999, 10_000, 119_999, 120_000, 3_725_000, 90_061_000].map(delay),
            ["9999 ms", "10 s", "119 s", "2m 0s", "1h 2m", "1d 1h"]
        );
        assert_eq!(
            [1023, 1024, 5 << 30].map(|bytes| Bytes(bytes).to_string()),
            ["1023 B".to_owned(), "1.0 KiB".to_owned(), "5.0 GiB".to_owned()]
        );
    }
}
