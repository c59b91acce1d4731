//! Chunks to the outlet, in slices: the log has its turn after each.

use super::{
    Held, Reader, Snapshots,
    job::{Ahead, Job},
    now,
    reader::Rows,
};
use crate::{Cell, Change, Op, Outlet, Position, RowFault, SnapshotPlace, SnapshotPoint};

impl<R: Reader> Snapshots<R> {
    /// Whether rows can be told now.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        !self.in_transaction
            && self.passed > self.floor
            && self.held.front().is_some_and(|held| self.passed >= held.watermark)
    }

    /// Tells rows until the outlet is full, or there are no more of them for now.
    pub fn tell<O: Outlet>(&mut self, outlet: &mut O) {
        while self.is_ready() && !outlet.is_full() {
            let Some(mut held) = self.held.pop_front() else { return };
            let of = |job: &Job<R>| job.job.id == held.job && job.current() == Some(&held.name);
            let Some(at) = self.jobs.iter().position(of) else { continue };
            outlet.begin_snapshot(SnapshotPoint { log: self.passed, read_at: held.read_at });
            self.tell_rows(at, &mut held, outlet);
            let last = outlet.end_snapshot();
            if let Some(job) = self.jobs.get_mut(at) {
                job.progress.trouble = None;
                job.progress.fix = None;
            }
            if held.next < held.chunk.len() {
                self.held.push_front(held);
            } else {
                self.chunk_told(at, &held, last);
                self.show_places(outlet);
            }
            if let Some(job) = self.jobs.get(at) {
                self.desk.show(job.progress.clone());
            }
        }
        self.ask();
    }

    fn tell_rows<O: Outlet>(&mut self, at: usize, held: &mut Held, outlet: &mut O) {
        let Held { chunk, next, rows, .. } = held;
        let mut cells = Vec::new();
        while *next < chunk.len() && !outlet.is_full() {
            let row = *next;
            *next += 1;
            let is_there = chunk.row(row, &mut cells);
            if let Some(job) = self.jobs.get_mut(at) {
                job.progress.rows += u64::from(is_there);
                match (chunk.read_key(row), &rows) {
                    (Some(key), Rows::Keys(_)) => job.place.again.retain(|again| again != key),
                    (Some(key), Rows::After(..) | Rows::All) => match &mut job.place.after {
                        Some(after) => {
                            after.clear();
                            after.push_str(key);
                        }
                        None => job.place.after = Some(key.to_owned()),
                    },
                    (None, _) => {}
                }
                if let Some(place) = self.places.get_mut(at) {
                    job.write_place(&mut place.place);
                }
            }
            if !is_there {
                continue;
            }
            outlet.places(&self.places);
            let size: usize =
                cells.iter().map(|cell| if let Cell::Value(raw) = cell { raw.len() } else { 0 }).sum();
            if size as u64 > self.max_row {
                outlet.reject(&RowFault {
                    table: Some(held.name.to_string()),
                    reason: format!("the row has {size} bytes, more than `max_row` allows"),
                    size: size as u64,
                });
                continue;
            }
            outlet.change(&Change {
                relation: &chunk.relation,
                op: Op::Snapshot,
                before: None,
                after: Some(&cells),
            });
        }
    }

    /// All rows of a chunk have been told.
    fn chunk_told(&mut self, at: usize, held: &Held, last: Option<Position>) {
        let Some(job) = self.jobs.get_mut(at) else { return };
        match &held.rows {
            // Those that were not found are there no more, unless reading ended before it came to them.
            Rows::Keys(keys) if held.complete => job.place.again.retain(|again| !keys.contains(again)),
            Rows::Keys(_) | Rows::After(..) | Rows::All => {}
        }
        // Read to its end it is as soon as its last chunk has come, told only when no chunk of it waits any more.
        let waits = self.held.iter().any(|other| other.job == held.job);
        if job.ahead == Ahead::End && job.place.again.is_empty() && !waits {
            self.table_told(at, last);
        } else if let Some(job) = self.jobs.get_mut(at) {
            // Caught up with what was read.
            if matches!((&job.ahead, &job.place.after), (Ahead::Key(ahead), Some(after)) if ahead == after) {
                job.ahead = Ahead::Told;
            }
        }
        self.write_places();
    }

    /// A table has been told whole, or is not there to be told.
    pub(super) fn table_told(&mut self, at: usize, last: Option<Position>) {
        let Some(job) = self.jobs.get_mut(at) else { return };
        if let Some(name) = job.current() {
            tracing::info!(source = self.source, job = job.job.id, table = %name, "snapshot of the table done");
        }
        job.next_table();
        if job.current().is_none() {
            job.told(self.passed, now(), last);
            tracing::info!(source = self.source, job = job.job.id, rows = job.progress.rows, "snapshot done");
        }
        self.desk.show(job.progress.clone());
        self.write_places();
    }

    pub(super) fn write_places(&mut self) {
        self.places.clear();
        for job in &self.jobs {
            let mut place = String::new();
            job.write_place(&mut place);
            self.places.push(SnapshotPlace { job: job.job.id, table: job.table, place });
        }
    }
}
