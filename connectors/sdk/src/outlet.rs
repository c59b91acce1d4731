//! Where a connector tells what it read.

use crate::{
    Change, Fault, Message, Position, Progress, SnapshotLedger, SnapshotPlace, SnapshotPoint, Transaction,
};
use std::future::Future;

/// The history that the positions to come count in, bound to the server and slot they were read from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// See [`Position::epoch`](crate::Position::epoch).
    pub epoch: u16,
    /// What the positions are positions *in*, in the connector's own words (PostgreSQL: system id, timeline and slot).
    /// Kept in the checkpoint and handed back in [`Resume`](crate::Resume).
    pub identity: String,
}

/// History that is gone: changes between the two positions may be missing from the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The last progress that the stream or the checkpoint proves.
    pub from: Option<Progress>,
    /// Where the readable log begins, in the new epoch.
    pub to: Progress,
    /// What happened, for people.
    pub reason: String,
}

/// A row that cannot become an event, found while it was read; its content goes no further than this.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowFault {
    /// The table, if it is known.
    pub table: Option<String>,
    /// Why (a row over the configured size, say).
    pub reason: String,
    /// Size of the row in bytes on the wire.
    pub size: u64,
}

/// A transaction of which the stream holds events, as [`Outlet::held_since`] tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held<'a> {
    /// The database's name for it ([`Transaction::id`]).
    pub transaction: &'a str,
    /// Positions of it with indexes below this are done with.
    pub events: u32,
    /// Whether that is all of it.
    pub ended: bool,
}

/// Takes what a connector tells, in order, and hands it on. Implemented by the gateway and by
/// [`testing::Recorder`](crate::testing::Recorder).
///
/// Calls come in this order: [`open`](Self::open), then any number of transactions
/// (`begin`, changes and transactional messages, `commit`), rows of snapshots (`begin_snapshot`, changes,
/// `end_snapshot`), messages that stand alone, and `progress`, the last four only between transactions. Only `open`, `gap`,
/// `held_since`, `keep_snapshots` and `flush` wait.
pub trait Outlet: Send {
    /// Binds the positions to come to a history, durably, before anything of it is told. Called again, between
    /// transactions, where the connector's own words for the same epoch have changed.
    ///
    /// # Errors
    /// The checkpoint could not be written.
    fn open(&mut self, origin: Origin) -> impl Future<Output = Result<(), Fault>> + Send;

    /// Tells of lost history. It is published as an event of the new epoch and, by the source's `on_gap` policy, ends
    /// the run: the connector returns the error it gets.
    ///
    /// # Errors
    /// The policy says stop, or the event could not be published.
    fn gap(&mut self, origin: Origin, gap: Gap) -> impl Future<Output = Result<(), Fault>> + Send;

    /// Reads which transactions of `from.epoch` the stream holds from `from.log` on, in the stream's order: for a connector
    /// that goes on by their names where positions mean nothing any more. `Ok(false)`: the stream may have held more than it
    /// has now.
    ///
    /// # Errors
    /// The stream could not be read.
    fn held_since(
        &mut self,
        from: Progress,
        each: &mut (dyn FnMut(Held<'_>) + Send),
    ) -> impl Future<Output = Result<bool, Fault>> + Send {
        let _ = (from, each);
        std::future::ready(Ok(true))
    }

    /// Begins a transaction.
    fn begin(&mut self, transaction: &Transaction);

    /// The first events of the transaction that has just begun are in the stream already, under an earlier epoch: those with
    /// indexes below `events`.
    fn skip(&mut self, events: u32) {
        let _ = events;
    }

    /// One change of the open transaction.
    fn change(&mut self, change: &Change<'_>);

    /// A logical message, inside the open transaction or standing alone.
    fn message(&mut self, message: &Message<'_>);

    /// A row of the open transaction that cannot be read: it goes to the dead letters, and counts as one event.
    fn reject(&mut self, fault: &RowFault);

    /// A change of the open transaction that is told to nobody still takes its index: whoever reads the transaction again, and
    /// knows more or less of the table by then, has to count the changes behind it as they were counted. Who wraps an outlet has
    /// to pass it on.
    fn pass_over(&mut self) {}

    /// Ends the open transaction. `progress.log` is the position after its commit.
    fn commit(&mut self, progress: Progress);

    /// Everything before `progress.log` has been told, although nothing was published for it.
    fn progress(&mut self, progress: Progress);

    /// Begins to tell rows that a snapshot read: changes with [`Op::Snapshot`](crate::Op::Snapshot), and rejected rows.
    fn begin_snapshot(&mut self, point: SnapshotPoint);

    /// Ends that. Gives the position of the last event that was told, of whatever kind, and is no dead letter.
    fn end_snapshot(&mut self) -> Option<Position>;

    /// How far all unfinished snapshot jobs are, from the next event on: every event carries it until this is called again. Empty:
    /// nothing is carried. Where rows are told, each has its own call right before it: what was given before that is what an
    /// event carries which has to come before the row.
    fn places(&mut self, places: &[SnapshotPlace]);

    /// Keeps what has to be snapshotted, durably, before this returns.
    ///
    /// # Errors
    /// It could not be written.
    fn keep_snapshots(&mut self, ledger: &SnapshotLedger) -> impl Future<Output = Result<(), Fault>> + Send;

    /// Whether enough has gathered that [`flush`](Self::flush) should come before the next change.
    fn is_full(&self) -> bool;

    /// Hands on everything told so far; waits while the broker is behind. Cheap when there is nothing.
    ///
    /// # Errors
    /// The publisher is gone; the connector returns what it gets and will be started again.
    fn flush(&mut self) -> impl Future<Output = Result<(), Fault>> + Send;
}
