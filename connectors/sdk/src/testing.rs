//! A recording outlet, for tests of connectors.

use crate::{
    Cell, Change, Fault, Gap, Message, Op, Origin, Outlet, Position, Progress, RowFault, SnapshotLedger,
    SnapshotPlace, SnapshotPoint, Transaction,
};

/// One call that a connector made, with everything it borrowed copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// [`Outlet::open`].
    Open(Origin),
    /// [`Outlet::gap`].
    Gap(Origin, Gap),
    /// [`Outlet::begin`].
    Begin(Transaction),
    /// [`Outlet::change`], with each image as one JSON object in text form.
    Change {
        /// `schema.table`.
        table: String,
        /// What happened.
        op: Op,
        /// The old row.
        before: Option<String>,
        /// The new row.
        after: Option<String>,
    },
    /// [`Outlet::message`]: prefix, content, transactional.
    Message(String, Vec<u8>, bool),
    /// [`Outlet::reject`].
    Reject(RowFault),
    /// [`Outlet::pass_over`].
    PassOver,
    /// [`Outlet::commit`].
    Commit(Progress),
    /// [`Outlet::progress`].
    Progress(Progress),
    /// [`Outlet::begin_snapshot`].
    BeginSnapshot(SnapshotPoint),
    /// [`Outlet::end_snapshot`].
    EndSnapshot,
    /// [`Outlet::places`].
    Places(Vec<SnapshotPlace>),
    /// [`Outlet::keep_snapshots`].
    KeepSnapshots(SnapshotLedger),
}

/// An outlet that keeps what it is told. Values are written by the columns' own writers; one that cannot be written
/// shows as `<unwritable: reason>`, one that the log left out does not show.
#[derive(Debug, Default)]
pub struct Recorder {
    /// Everything told so far, in order.
    pub told: Vec<Told>,
}

fn object(change: &Change<'_>, row: &[Cell<'_>]) -> String {
    let mut text = String::from("{");
    for (column, cell) in change.relation.columns.iter().zip(row) {
        let value = match cell {
            Cell::Unavailable => continue,
            Cell::Null => "null".to_owned(),
            Cell::Value(raw) => {
                let mut out = Vec::new();
                match column.writer.write(raw, &mut out) {
                    Ok(()) => String::from_utf8_lossy(&out).into_owned(),
                    Err(error) => format!("<unwritable: {error}>"),
                }
            }
        };
        if text.len() > 1 {
            text.push(',');
        }
        text.push_str(&format!("{:?}:{value}", column.name));
    }
    text.push('}');
    text
}

impl Outlet for Recorder {
    async fn open(&mut self, origin: Origin) -> Result<(), Fault> {
        self.told.push(Told::Open(origin));
        Ok(())
    }

    async fn gap(&mut self, origin: Origin, gap: Gap) -> Result<(), Fault> {
        self.told.push(Told::Gap(origin, gap));
        Ok(())
    }

    fn begin(&mut self, transaction: &Transaction) {
        self.told.push(Told::Begin(transaction.clone()));
    }

    fn change(&mut self, change: &Change<'_>) {
        self.told.push(Told::Change {
            table: format!("{}.{}", change.relation.schema, change.relation.table),
            op: change.op,
            before: change.before.map(|row| object(change, row)),
            after: change.after.map(|row| object(change, row)),
        });
    }

    fn message(&mut self, message: &Message<'_>) {
        self.told.push(Told::Message(
            message.prefix.to_owned(),
            message.content.to_vec(),
            message.transactional,
        ));
    }

    fn reject(&mut self, fault: &RowFault) {
        self.told.push(Told::Reject(fault.clone()));
    }

    fn pass_over(&mut self) {
        self.told.push(Told::PassOver);
    }

    fn commit(&mut self, progress: Progress) {
        self.told.push(Told::Commit(progress));
    }

    fn progress(&mut self, progress: Progress) {
        self.told.push(Told::Progress(progress));
    }

    fn begin_snapshot(&mut self, point: SnapshotPoint) {
        self.told.push(Told::BeginSnapshot(point));
    }

    fn end_snapshot(&mut self) -> Option<Position> {
        self.told.push(Told::EndSnapshot);
        None
    }

    fn places(&mut self, places: &[SnapshotPlace]) {
        self.told.push(Told::Places(places.to_vec()));
    }

    async fn keep_snapshots(&mut self, ledger: &SnapshotLedger) -> Result<(), Fault> {
        self.told.push(Told::KeepSnapshots(ledger.clone()));
        Ok(())
    }

    fn is_full(&self) -> bool {
        false
    }

    async fn flush(&mut self) -> Result<(), Fault> {
        Ok(())
    }
}
