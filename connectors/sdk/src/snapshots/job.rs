//! One job: which of its tables is being read, and how far.
//!
//! What events carry of it is the table's [place](super::place), and behind a `#` how many rows the job has told, of all its
//! tables: `+42@89ab12cd#9000`. So whoever goes on knows what the stream holds, and can say how much is left.

use super::{Reader, pace::Size, place::Place};
use crate::{Position, SnapshotJob, SnapshotPlace, SnapshotProgress, TableName};
use std::{collections::BTreeSet, fmt::Write as _, sync::Arc};
use tokio::time::Instant;

/// A job under way.
pub(super) struct Job<R: Reader> {
    pub(super) job: SnapshotJob,
    /// Which of its tables is being told.
    pub(super) table: usize,
    /// How far that is told.
    pub(super) place: Place,
    /// How far it is read: beyond what is told, while a chunk waits.
    pub(super) ahead: Ahead,
    /// In the middle of a table without a key: the session that reads it.
    pub(super) session: Option<R>,
    /// The table as it was last looked up.
    pub(super) described: Option<Arc<R::Table>>,
    pub(super) size: Size,
    /// Transactions that may have written to the table before its changes were published; they have to end first.
    pub(super) writers: Option<BTreeSet<String>>,
    /// How often in a row the table was not there to be described, although it is captured.
    pub(super) missed: u32,
    /// Not before.
    pub(super) wait: Option<Instant>,
    /// Where the log stood when all of it had been told.
    pub(super) told_at: Option<u64>,
    pub(super) progress: SnapshotProgress,
}

/// How far a table is read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Ahead {
    /// As far as it is told.
    #[default]
    Told,
    /// Up to this key.
    Key(String),
    /// A table without a key, in the middle of it.
    Middle,
    /// To its end.
    End,
}

impl<R: Reader> Job<R> {
    /// A job that goes on at `place`, if the stream knows one.
    pub(super) fn new(job: SnapshotJob, place: Option<&SnapshotPlace>, now: i64) -> Self {
        let progress = SnapshotProgress {
            job: job.id,
            reason: job.reason,
            table: None,
            tables: job.tables.len(),
            tables_done: 0,
            rows: 0,
            rows_before: 0,
            expected: None,
            started_at: now,
            ended_at: None,
            last: None,
            trouble: None,
            fix: None,
        };
        let table = place.map_or(0, |place| place.table.min(job.tables.len()));
        let (place, rows) = place.map(|place| parse(&place.place)).unwrap_or_default();
        let progress = SnapshotProgress { rows, rows_before: rows, ..progress };
        let mut new = Self {
            job,
            table,
            place,
            ahead: Ahead::Told,
            session: None,
            described: None,
            size: Size::default(),
            writers: None,
            missed: 0,
            wait: None,
            told_at: None,
            progress,
        };
        new.show_table();
        new
    }

    /// The table that is being read; `None` when all have been told.
    pub(super) fn current(&self) -> Option<&TableName> {
        self.job.tables.get(self.table)
    }

    /// Writes how far it is over what `out` holds.
    pub(super) fn write_place(&self, out: &mut String) {
        self.place.write(out);
        if self.progress.rows > 0 {
            let _ = write!(out, "#{}", self.progress.rows);
        }
    }

    /// Whether everything that was read is told.
    pub(super) fn is_caught_up(&self) -> bool {
        matches!(self.ahead, Ahead::Told | Ahead::End)
    }

    /// Goes on with the next table.
    pub(super) fn next_table(&mut self) {
        self.table += 1;
        self.start_table();
    }

    /// Begins the table from its start.
    pub(super) fn start_table(&mut self) {
        self.place = Place::default();
        self.reread();
        self.size = Size::default();
        self.writers = None;
        self.missed = 0;
        self.show_table();
    }

    /// Goes back to what is told; the table is looked at anew.
    pub(super) fn reread(&mut self) {
        self.ahead = Ahead::Told;
        self.session = None;
        self.described = None;
    }

    /// Notes that everything has been told.
    pub(super) fn told(&mut self, log: u64, now: i64, last: Option<Position>) {
        self.told_at = Some(log);
        self.progress.last = last;
        self.progress.ended_at = Some(now);
    }

    fn show_table(&mut self) {
        self.progress.tables_done = self.table;
        self.progress.table = self.current().cloned();
    }
}

/// The place in a text of [`Job::write_place`], and the rows that were told by then: none where it does not say.
fn parse(text: &str) -> (Place, u64) {
    let (place, rows) = text.split_once('#').unwrap_or((text, ""));
    (Place::parse(place), rows.parse().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rows_told_read_back_behind_any_place() {
        let at = |text| (Place::parse(text), 9_000);
        for text in ["-", "+42", "+42!7;9", "+42@89ab12cd"] {
            assert_eq!(parse(&format!("{text}#9000")), at(text));
            assert_eq!(parse(text), (Place::parse(text), 0), "as it was written before rows were counted");
        }
        for nonsense in ["+42#", "+42#x", "+42#-1", "+42#1#2", "+42#99999999999999999999"] {
            assert_eq!(parse(nonsense), (Place::parse("+42"), 0), "{nonsense}");
        }
    }
}
