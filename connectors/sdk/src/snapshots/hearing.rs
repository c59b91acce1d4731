//! What the log tells, on its way past the rows that wait: new values go over them.

use super::{Reader, Snapshots, Told as _, chunk::Effect, job::Ahead, place};
use crate::{Cell, Change, Op, Progress, TableName, Transaction};

impl<R: Reader> Snapshots<R> {
    pub(super) fn hear_begin(&mut self, transaction: &Transaction) {
        self.in_transaction = true;
        self.told.note(transaction);
    }

    pub(super) fn hear_progress(&mut self, progress: Progress) {
        self.in_transaction = false;
        self.passed = self.passed.max(progress.log);
    }

    /// Lets the rows that wait hear a change; says whether places changed by it.
    pub(super) fn hear_change(&mut self, change: &Change<'_>) -> bool {
        if self.jobs.is_empty() {
            return false;
        }
        let (schema, table) = (&change.relation.schema, &change.relation.table);
        let of = |name: &TableName| name.table == *table && name.schema == *schema;
        if !self.jobs.iter().any(|job| job.current().is_some_and(of)) {
            return false;
        }
        match R::restate(change) {
            Some(restated) => restated.borrowed(|change| self.hear_row(change)),
            None => self.hear_row(change),
        }
    }

    fn hear_row(&mut self, change: &Change<'_>) -> bool {
        let (schema, table) = (&change.relation.schema, &change.relation.table);
        let of = |name: &TableName| name.table == *table && name.schema == *schema;
        let (mut voided, mut moved) = (Vec::new(), None);
        for held in self.held.iter_mut().filter(|held| of(&held.name)) {
            match held.chunk.changed(change, R::LOG_FORM) {
                Effect::None => {}
                Effect::Moved(key) => moved = Some(key),
                Effect::Void => voided.push(held.job),
            }
        }
        if let Some(reading) = self.reading.as_mut().filter(|reading| of(&reading.name)) {
            reading.notes.note(change);
        }
        for job in voided {
            self.void(job);
        }
        if change.op == Op::Truncated && change.relation.key.is_empty() {
            // What is left to read of it is of a table that is no more.
            let middle =
                self.jobs.iter().filter(|job| job.ahead == Ahead::Middle && job.current().is_some_and(of));
            let middle: Vec<u64> = middle.map(|job| job.job.id).collect();
            middle.into_iter().for_each(|job| self.void(job));
        }
        if change.op == Op::Updated && change.before.is_some() && moved.is_none() {
            moved = moved_to(change);
        }
        let Some(key) = moved else { return false };
        let (mut noted, mut restarted) = (false, Vec::new());
        for job in &mut self.jobs {
            // Before a table's first row has been read everything about it is still to come.
            let begun = job.place.after.is_some()
                || !job.place.again.is_empty()
                || self.held.iter().any(|held| held.job == job.job.id);
            if begun && job.current().is_some_and(of) {
                noted = true;
                if !job.place.repeat(key.clone()) {
                    tracing::info!(job = job.job.id, table = %format!("{schema}.{table}"), "too many rows change their key while their table is read: reading it from its beginning");
                    restarted.push(job.job.id);
                }
            }
        }
        for id in restarted {
            self.void(id);
            if let Some(job) = self.jobs.iter_mut().find(|job| job.job.id == id) {
                job.start_table();
            }
        }
        if noted {
            self.write_places();
        }
        noted
    }
}

/// Where a row moved whose event could not carry every column.
fn moved_to(change: &Change<'_>) -> Option<place::Key> {
    let (before, after) = (change.before?, change.after?);
    if !after.contains(&Cell::Unavailable) {
        return None;
    }
    let key = place::key(change.relation, after, Some(before))?;
    let old = place::key(change.relation, before, Some(after))?;
    (key != old).then_some(key)
}
