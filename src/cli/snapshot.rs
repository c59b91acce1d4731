//! `headgate snapshot`: asks the running gateway for a snapshot, and watches it to its end.

use super::{Failure, failure::print};
use crate::{
    admin::{SnapshotAnswer, SnapshotOrder},
    config::{Config, Connector},
    snapshot::{SnapshotReport, SnapshotState},
    status::Report,
};
use clap::Args;
use std::{
    io::{IsTerminal as _, Write as _},
    time::Duration,
};

/// How often to look.
const TICK: Duration = Duration::from_millis(200);
/// How long the gateway may be away, for a restart say, before that is the end of watching.
const PATIENCE: u32 = 150;
/// Cells of the bar.
const WIDTH: u64 = 30;

/// The arguments.
#[derive(Debug, Args)]
#[command(after_help = "\
The rows come as events with the verb `snapshot`, between the changes that go
on meanwhile. It goes on without this command too: headgate status shows how
far it is.

Examples:
  headgate snapshot shop                                 all captured tables
  headgate snapshot shop orders old.invoices             two of them
  headgate snapshot shop orders --where 'tenant_id = 7'  some rows of one

Exit codes: 0 the stream holds all of it, 64 no such source or table, 69 it
failed or nothing runs.")]
pub(super) struct Snapshot {
    /// The source, as in [sources.NAME]
    source: String,
    /// Tables, with or without their schema; without any: all that are captured
    tables: Vec<String>,
    /// An SQL condition on the rows of one table
    #[arg(long = "where", value_name = "SQL")]
    condition: Option<String>,
    /// Ask for it and do not wait
    #[arg(long)]
    detach: bool,
    /// Print one JSON object at the end
    #[arg(long)]
    json: bool,
}

impl Snapshot {
    pub(super) async fn execute(self, config: &Config) -> Result<(), Failure> {
        match config.sources.get(&self.source).map(|source| &source.connector) {
            Some(Connector::Postgres(_) | Connector::MySql(_)) => {}
            Some(Connector::Webhook(_)) => {
                return Err(Failure::usage(format!("{} is a webhook source: it has no tables", self.source)));
            }
            None => {
                let known: Vec<&str> = config.sources.keys().map(String::as_str).collect();
                return Err(Failure::usage(format!("there is no source {}", self.source))
                    .with_fix(format!("known here: {}", known.join(", "))));
            }
        }
        let address = config.admin.listen;
        let client = reqwest::Client::builder()
            .timeout(Duration::from_secs(30))
            .no_proxy()
            .build()
            .map_err(|error| Failure::internal(error.to_string()))?;
        let order = SnapshotOrder {
            source: self.source.clone(),
            tables: self.tables.clone(),
            condition: self.condition.clone(),
        };
        let away = |error: reqwest::Error| {
            let why = if error.is_timeout() { "it does not answer" } else { "nothing answers" };
            Failure::unavailable(format!(
                "no headgate is running with this configuration: {why} on {address}"
            ))
            .with_fix("headgate run, or look at admin.listen")
        };
        let answer =
            client.post(format!("http://{address}/snapshot")).json(&order).send().await.map_err(away)?;
        let refused = answer.status();
        let answer: SnapshotAnswer = answer.json().await.map_err(|_| {
            Failure::unavailable(format!("what listens on {address} is not a headgate of this version"))
        })?;
        let job = match answer {
            SnapshotAnswer::Begun { job } => job,
            SnapshotAnswer::Refused { error, fix } => {
                let failure = if refused.is_client_error() {
                    Failure::usage(error)
                } else {
                    Failure::unavailable(error)
                };
                return Err(match fix {
                    Some(fix) => failure.with_fix(fix),
                    None => failure,
                });
            }
        };
        if self.detach {
            return self.show(
                &format!("snapshot {job} of {} begins\n", self.source),
                &serde_json::json!({ "job": job }),
            );
        }
        let bar = !self.json && std::io::stderr().is_terminal();
        let last = self.watch(&client, config, job, bar).await?;
        if last.state == SnapshotState::Failed {
            let error = last.error.unwrap_or_default();
            let failure = Failure::unavailable(format!("snapshot {job} failed: {error}"));
            return Err(match last.fix {
                Some(fix) => failure.with_fix(fix),
                None => failure,
            });
        }
        let text = format!(
            "snapshot {job} of {} done: {} rows of {} table{}, {} rows/s\n",
            self.source,
            last.rows,
            last.tables,
            if last.tables == 1 { "" } else { "s" },
            last.rate
        );
        self.show(&text, &serde_json::to_value(&last).unwrap_or_default())
    }

    fn show(&self, text: &str, json: &serde_json::Value) -> Result<(), Failure> {
        if self.json { print(format!("{json}\n").as_bytes()) } else { print(text.as_bytes()) }
    }

    /// Watches until the job has ended.
    async fn watch(
        &self,
        client: &reqwest::Client,
        config: &Config,
        job: u64,
        bar: bool,
    ) -> Result<SnapshotReport, Failure> {
        let mut away = 0;
        loop {
            match self.look(client, config, job).await {
                Some(report) => {
                    away = 0;
                    if bar {
                        eprint_line(&line(&report));
                    }
                    if report.has_ended() {
                        if bar {
                            eprint_line("");
                        }
                        return Ok(report);
                    }
                }
                None => away += 1,
            }
            if away > PATIENCE {
                return Err(Failure::unavailable(format!("the gateway no longer tells of snapshot {job}"))
                    .with_fix(
                        "headgate status; a snapshot that was begun goes on when its source runs again",
                    ));
            }
            tokio::time::sleep(TICK).await;
        }
    }

    async fn look(&self, client: &reqwest::Client, config: &Config, job: u64) -> Option<SnapshotReport> {
        let answer = client.get(format!("http://{}/status", config.admin.listen)).send().await.ok()?;
        let report: Report = answer.json().await.ok()?;
        let source = report.sources.into_iter().find(|source| source.name == self.source)?;
        source.snapshots.into_iter().find(|snapshot| snapshot.job == job)
    }
}

/// Writes over the terminal's line.
fn eprint_line(text: &str) {
    // Nobody is there to be told that a progress bar cannot be drawn.
    let mut out = std::io::stderr();
    let _ = write!(out, "\r\x1b[K{text}");
    let _ = out.flush();
}

/// One line: bar, rows, rate, time left.
fn line(report: &SnapshotReport) -> String {
    let mut line = String::new();
    if let Some(expected) = report.expected.filter(|expected| *expected > 0) {
        // It is a guess: not beyond the end while there is more to come.
        let share =
            (report.rows.saturating_mul(1000) / expected).min(if report.has_ended() { 1000 } else { 999 });
        let filled = share * WIDTH / 1000;
        line.push('[');
        (0..WIDTH).for_each(|cell| line.push(if cell < filled { '#' } else { '.' }));
        line.push_str(&format!("] {:>3} %  ", share / 10));
    }
    line.push_str(&format!("{} rows  {} rows/s", report.rows, report.rate));
    if let Some(seconds) = report.eta_s {
        line.push_str(&format!("  {}:{:02}:{:02} left", seconds / 3600, seconds / 60 % 60, seconds % 60));
    }
    if let Some(table) = &report.table {
        line.push_str(&format!("  {table}"));
    }
    if report.tables > 1 {
        line.push_str(&format!(" ({} of {} tables done)", report.tables_done, report.tables));
    }
    if let Some(error) = &report.error {
        line.push_str(&format!("  waiting: {error}"));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_tells_how_far_it_is() {
        let mut report = SnapshotReport {
            job: 1,
            reason: "asked".to_owned(),
            state: SnapshotState::Running,
            table: Some("public.orders".to_owned()),
            tables: 2,
            tables_done: 1,
            rows: 500,
            expected: Some(1000),
            rate: 50,
            eta_s: Some(10),
            error: None,
            fix: None,
        };
        assert_eq!(
            line(&report),
            "[###############...............]  50 %  500 rows  50 rows/s  0:00:10 left  public.orders (1 of 2 tables done)"
        );
        (report.rows, report.tables, report.eta_s) = (5000, 1, None);
        assert!(line(&report).contains("]  99 %"));
        report.expected = None;
        assert_eq!(line(&report), "5000 rows  50 rows/s  public.orders");
    }
}
