//! How far a snapshot is, as `/status` tells it.

use headgate_sdk::{Position, SnapshotProgress};
use serde::{Deserialize, Serialize};

/// What a snapshot is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SnapshotState {
    /// Rows are read and told.
    Running,
    /// Something is in the way; it is tried again.
    Waiting,
    /// The stream holds all of it.
    Done,
    /// It was given up.
    Failed,
}

/// One snapshot in `/status`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SnapshotReport {
    /// Its number, unique within the source.
    pub job: u64,
    /// Why it is made: `initial`, `joined`, `gap`, `asked`.
    pub reason: String,
    /// What it is doing.
    pub state: SnapshotState,
    /// The table that is being read.
    pub table: Option<String>,
    /// How many tables it has.
    pub tables: usize,
    /// How many of them are done.
    pub tables_done: usize,
    /// Rows told, through restarts.
    pub rows: u64,
    /// Rows that the database guesses there are; null where it does not.
    pub expected: Option<u64>,
    /// Rows in a second, since the source was last started.
    pub rate: u64,
    /// Seconds that are left at this rate.
    pub eta_s: Option<u64>,
    /// What is in the way, or why it failed.
    pub error: Option<String>,
    /// What to do about that.
    pub fix: Option<String>,
}

impl SnapshotReport {
    /// The report of `progress`, where the stream holds everything up to `held`, at `now` (microseconds since 1970-01-01 UTC).
    #[must_use]
    pub fn new(progress: SnapshotProgress, held: Option<Position>, now: i64) -> Self {
        let ended = progress.ended_at.is_some() && progress.last.is_none_or(|last| Some(last) <= held);
        let state = match (&progress.trouble, ended) {
            (None, true) => SnapshotState::Done,
            (Some(_), true) => SnapshotState::Failed,
            (Some(_), false) => SnapshotState::Waiting,
            (None, false) => SnapshotState::Running,
        };
        let seconds = (progress.ended_at.unwrap_or(now) - progress.started_at).max(1) as f64 / 1e6;
        let rate = (progress.rows.saturating_sub(progress.rows_before) as f64 / seconds).round() as u64;
        let left = progress.expected.map(|expected| expected.saturating_sub(progress.rows));
        Self {
            job: progress.job,
            reason: progress.reason.as_str().to_owned(),
            state,
            table: progress.table.map(|table| table.to_string()),
            tables: progress.tables,
            tables_done: progress.tables_done,
            rows: progress.rows,
            expected: progress.expected,
            rate,
            eta_s: left.filter(|_| rate > 0 && !ended).map(|left| left.div_ceil(rate)),
            error: progress.trouble,
            fix: progress.fix,
        }
    }

    /// Whether there is nothing more to come.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        matches!(self.state, SnapshotState::Done | SnapshotState::Failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use headgate_sdk::SnapshotReason;

    #[test]
    fn tells_rate_and_time_left_and_when_it_is_done() {
        let last = Position { epoch: 1, commit: 99, index: 7 };
        let mut progress = SnapshotProgress {
            job: 3,
            reason: SnapshotReason::Asked,
            table: None,
            tables: 2,
            tables_done: 1,
            rows: 6_000,
            rows_before: 5_000,
            expected: Some(9_001),
            started_at: 5_000_000,
            ended_at: None,
            last: None,
            trouble: None,
            fix: None,
        };
        let report = SnapshotReport::new(progress.clone(), None, 7_000_000);
        assert_eq!((report.state, report.rate, report.eta_s), (SnapshotState::Running, 500, Some(7)));
        (progress.ended_at, progress.last) = (Some(9_000_000), Some(last));
        let report = SnapshotReport::new(progress.clone(), None, 20_000_000);
        assert_eq!((report.state, report.rate), (SnapshotState::Running, 250));
        let report = SnapshotReport::new(progress.clone(), Some(last), 20_000_000);
        assert_eq!((report.state, report.eta_s), (SnapshotState::Done, None));
        progress.trouble = Some("no".to_owned());
        assert_eq!(SnapshotReport::new(progress, Some(last), 0).state, SnapshotState::Failed);
    }
}
