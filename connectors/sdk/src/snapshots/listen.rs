//! The outlet that the log is told to while snapshots are made: it passes everything on, and lets the rows that wait hear it.

use super::{Reader, Snapshots};
use crate::{
    Change, Fault, Gap, Held, Message, Origin, Outlet, Position, Progress, RowFault, SnapshotLedger,
    SnapshotPlace, SnapshotPoint, Transaction,
};

/// Passes on to `outlet` what is told of the log.
#[derive(Debug)]
pub struct Listening<'a, O, R: Reader> {
    pub(super) outlet: &'a mut O,
    pub(super) snapshots: &'a mut Snapshots<R>,
}

impl<O: Outlet, R: Reader> Outlet for Listening<'_, O, R> {
    async fn open(&mut self, origin: Origin) -> Result<(), Fault> {
        self.outlet.open(origin).await
    }

    async fn gap(&mut self, origin: Origin, gap: Gap) -> Result<(), Fault> {
        self.outlet.gap(origin, gap).await
    }

    async fn held_since(
        &mut self,
        from: Progress,
        each: &mut (dyn FnMut(Held<'_>) + Send),
    ) -> Result<bool, Fault> {
        self.outlet.held_since(from, each).await
    }

    fn begin(&mut self, transaction: &Transaction) {
        self.snapshots.hear_begin(transaction);
        self.outlet.begin(transaction);
    }

    fn skip(&mut self, events: u32) {
        self.outlet.skip(events);
    }

    #[inline]
    fn change(&mut self, change: &Change<'_>) {
        // First, so that the event itself carries what follows from it.
        if self.snapshots.hear_change(change) {
            self.snapshots.show_places(self.outlet);
        }
        self.outlet.change(change);
    }

    fn message(&mut self, message: &Message<'_>) {
        self.outlet.message(message);
    }

    fn reject(&mut self, fault: &RowFault) {
        self.outlet.reject(fault);
    }

    fn pass_over(&mut self) {
        self.outlet.pass_over();
    }

    fn commit(&mut self, progress: Progress) {
        self.outlet.commit(progress);
        self.snapshots.hear_progress(progress);
    }

    fn progress(&mut self, progress: Progress) {
        self.outlet.progress(progress);
        self.snapshots.hear_progress(progress);
    }

    fn begin_snapshot(&mut self, point: SnapshotPoint) {
        self.outlet.begin_snapshot(point);
    }

    fn end_snapshot(&mut self) -> Option<Position> {
        self.outlet.end_snapshot()
    }

    fn places(&mut self, places: &[SnapshotPlace]) {
        self.outlet.places(places);
    }

    async fn keep_snapshots(&mut self, ledger: &SnapshotLedger) -> Result<(), Fault> {
        self.outlet.keep_snapshots(ledger).await
    }

    fn is_full(&self) -> bool {
        self.outlet.is_full()
    }

    async fn flush(&mut self) -> Result<(), Fault> {
        self.outlet.flush().await
    }
}
