//! Which jobs there are: made, kept in the ledger, and closed once the broker holds their last event for good.

use super::{Reader, Snapshots, job::Job, now};
use crate::{
    CapturedTables, Fault, Outlet, Progress, SnapshotJob, SnapshotLedger, SnapshotReason, SnapshotSettings,
    SnapshotStart, TableName,
};
use std::collections::BTreeSet;

/// Keeps what lost history means for snapshots: where that is the policy, one job of reading all captured tables. Else the tables
/// that are known by their names count as known, whichever they are by now: after a gap everything may be another table (of another
/// cluster, say), and going on without what they held is what somebody has to accept. Jobs go on where they were, so the word of the
/// gap carries their places like any event.
///
/// To be called before the word of the gap: whoever dies in between finds the gap again, but not this.
///
/// # Errors
/// It could not be kept.
pub async fn after_gap<O: Outlet>(
    start: &mut SnapshotStart,
    captured: &CapturedTables,
    outlet: &mut O,
) -> Result<(), Fault> {
    outlet.places(&start.places);
    keep(&start.settings, &mut start.ledger, captured, outlet).await
}

async fn keep<O: Outlet>(
    settings: &SnapshotSettings,
    ledger: &mut SnapshotLedger,
    captured: &CapturedTables,
    outlet: &mut O,
) -> Result<(), Fault> {
    let before = ledger.clone();
    if settings.on_gap && !captured.is_empty() {
        ledger.next += 1;
        // Jobs that were under way go up in it.
        ledger.jobs = vec![SnapshotJob {
            id: ledger.next,
            reason: SnapshotReason::Gap,
            tables: captured.keys().cloned().collect(),
            condition: None,
        }];
        ledger.known.clone_from(captured);
    } else if !settings.on_gap {
        for (name, made) in &mut ledger.known {
            *made = captured.get(name).copied().unwrap_or(*made);
        }
    }
    if *ledger == before { Ok(()) } else { outlet.keep_snapshots(ledger).await }
}

impl<R: Reader> Snapshots<R> {
    /// [`after_gap`], for the next run.
    ///
    /// # Errors
    /// It could not be kept.
    pub async fn after_gap<O: Outlet>(&mut self, outlet: &mut O) -> Result<(), Fault> {
        let captured = self.captured.borrow().clone();
        keep(&self.settings, &mut self.ledger, &captured, outlet).await
    }

    /// Makes jobs for tables that are new to the source, and forgets those that left it.
    pub(super) async fn sort_captured<O: Outlet>(&mut self, outlet: &mut O) -> Result<(), Fault> {
        self.unsorted = false;
        let captured = self.captured.borrow_and_update().clone();
        if !self.settings.initial || captured == self.ledger.known {
            return Ok(());
        }
        // A table that took the place of another is as new as one of a new name: rows that it had before it was captured are in
        // nobody's log.
        let is_known = |name: &TableName, made: u64| {
            let known = self.ledger.known.get(name);
            known.is_some_and(|&known| known == made || known == 0 || made == 0)
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::testing::{Recorder, Told};

    fn tables(tables: &[(&str, u64)]) -> CapturedTables {
        let name = |table: &str| TableName { schema: "public".to_owned(), table: table.to_owned() };
        tables.iter().map(|(table, made)| (name(table), *made)).collect()
    }

    async fn kept(on_gap: bool, known: &[(&str, u64)], captured: &[(&str, u64)]) -> Option<SnapshotLedger> {
        let settings = SnapshotSettings { on_gap, ..SnapshotSettings::default() };
        let mut ledger = SnapshotLedger { next: 3, known: tables(known), ..SnapshotLedger::default() };
        let mut outlet = Recorder::default();
        keep(&settings, &mut ledger, &tables(captured), &mut outlet).await.unwrap();
        match outlet.told.as_slice() {
            [] => None,
            [Told::KeepSnapshots(kept)] if *kept == ledger => Some(ledger),
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn an_accepted_gap_makes_known_tables_of_their_namesakes() {
        let ledger = kept(false, &[("a", 1), ("b", 2)], &[("a", 11), ("new", 12)]).await.unwrap();
        assert_eq!(ledger.known, tables(&[("a", 11), ("b", 2)]), "what is new by name stays new");
        assert!(ledger.jobs.is_empty());
        assert_eq!(kept(false, &[("a", 1)], &[("a", 1)]).await, None);
    }

    #[tokio::test]
    async fn where_that_is_the_policy_everything_is_read_again() {
        let ledger = kept(true, &[("a", 1)], &[("a", 11), ("new", 12)]).await.unwrap();
        assert_eq!(ledger.known, tables(&[("a", 11), ("new", 12)]));
        let [job] = ledger.jobs.as_slice() else { panic!("{ledger:?}") };
        assert_eq!((job.id, job.reason, job.tables.len()), (4, SnapshotReason::Gap, 2));
        assert_eq!(kept(true, &[("a", 1)], &[]).await, None);
    }
}
