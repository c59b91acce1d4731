//! Which jobs there are: made, kept in the ledger, and closed once the broker holds their last event for good.

use super::{Reader, Snapshots, job::Job, now};
use crate::{
    CapturedTables, Fault, Outlet, Progress, SnapshotJob, SnapshotLedger, SnapshotReason, TableName,
};
use std::collections::BTreeSet;

/// Makes one job of reading all captured tables, after lost history. To be kept before the word of the gap: whoever dies in between
/// finds the gap again, but not this.
///
/// # Errors
/// It could not be kept.
pub async fn read_again<O: Outlet>(
    ledger: &mut SnapshotLedger,
    captured: &CapturedTables,
    outlet: &mut O,
) -> Result<(), Fault> {
    if captured.is_empty() {
        return Ok(());
    }
    ledger.next += 1;
    // Jobs that were under way go up in it.
    ledger.jobs = vec![SnapshotJob {
        id: ledger.next,
        reason: SnapshotReason::Gap,
        tables: captured.keys().cloned().collect(),
        condition: None,
    }];
    ledger.known.clone_from(captured);
    outlet.keep_snapshots(ledger).await
}

impl<R: Reader> Snapshots<R> {
    /// Sees to it that the next run reads everything again, where that is the policy after lost history.
    ///
    /// # Errors
    /// It could not be kept.
    pub async fn read_again<O: Outlet>(&mut self, outlet: &mut O) -> Result<(), Fault> {
        if !self.settings.on_gap {
            return Ok(());
        }
        let captured = self.captured.borrow().clone();
        read_again(&mut self.ledger, &captured, outlet).await
    }

    /// Makes jobs for tables that are new to the source, and forgets those that left it.
    pub(super) async fn sort_captured<O: Outlet>(&mut self, outlet: &mut O) -> Result<(), Fault> {
        self.unsorted = false;
        let captured = self.captured.borrow_and_update().clone();
        let after_gap = std::mem::take(&mut self.after_gap);
        if !self.settings.initial || captured == self.ledger.known {
            return Ok(());
        }
        // A table that took the place of another is as new as one of a new name: rows that it had before it was captured are in
        // nobody's log. After a gap everything may be another table, and somebody has accepted that.
        let is_known = |name: &TableName, made: u64| {
            let known = self.ledger.known.get(name);
            known.is_some_and(|&known| known == made || known == 0 || made == 0 || after_gap)
        };
        let joined: Vec<TableName> = captured
            .iter()
            .filter(|(name, made)| !is_known(name, **made))
            .map(|(name, _)| name.clone())
            .collect();
        let reason = if self.ledger.next == 0 { SnapshotReason::Initial } else { SnapshotReason::Joined };
        self.ledger.known = captured;
        self.add_job(reason, joined, None, outlet).await.map(drop)
    }

    pub(super) async fn checked<O: Outlet>(
        &mut self,
        checked: Result<(), Fault>,
        outlet: &mut O,
    ) -> Result<(), Fault> {
        let Some(asked) = self.asked.take() else { return Ok(()) };
        let answer = match checked {
            Ok(()) => {
                let (tables, condition) = (asked.tables, asked.condition);
                Ok(self.add_job(SnapshotReason::Asked, tables, condition, outlet).await?)
            }
            Err(fault) => Err(fault),
        };
        // Whoever asked may have gone away; the job is made all the same.
        let _ = asked.answer.send(answer);
        Ok(())
    }

    pub(super) async fn add_job<O: Outlet>(
        &mut self,
        reason: SnapshotReason,
        tables: Vec<TableName>,
        condition: Option<String>,
        outlet: &mut O,
    ) -> Result<u64, Fault> {
        self.ledger.next += 1;
        let job = SnapshotJob { id: self.ledger.next, reason, tables, condition };
        let id = job.id;
        let empty = job.tables.is_empty();
        if !empty {
            tracing::info!(
                source = self.source,
                job = id,
                reason = reason.as_str(),
                tables = job.tables.len(),
                "snapshot begins"
            );
            self.ledger.jobs.push(job.clone());
        }
        outlet.keep_snapshots(&self.ledger).await?;
        if !empty {
            let job = Job::new(job, None, now());
            self.desk.show(job.progress.clone());
            self.jobs.push(job);
            self.write_places();
        }
        Ok(id)
    }

    /// Takes jobs out of the ledger whose last event the broker holds for good.
    pub(super) async fn close_jobs<O: Outlet>(&mut self, outlet: &mut O) -> Result<(), Fault> {
        let released = *self.released.borrow_and_update();
        let done = |job: &Job<R>| {
            // Beyond, not up to: the log may have stood there before the rows were told.
            job.told_at.is_some_and(|told| released > Progress { epoch: self.epoch, log: told })
        };
        if !self.jobs.iter().any(done) {
            return Ok(());
        }
        let ids: BTreeSet<u64> = self.jobs.iter().filter(|job| done(job)).map(|job| job.job.id).collect();
        self.ledger.jobs.retain(|job| !ids.contains(&job.id));
        outlet.keep_snapshots(&self.ledger).await?;
        self.jobs.retain(|job| !ids.contains(&job.job.id));
        self.write_places();
        Ok(())
    }
}
