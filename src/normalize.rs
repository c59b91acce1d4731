//! Turns what a connector tells into encoded CloudEvents, in batches for the publisher.
//!
//! * **Order**: events leave in the order they were told, numbered within their transaction. One event of a transaction
//!   is always held back, because only the commit tells that it was the last.
//! * **Duplicates**: an event at or before the stream's last one is dropped before it is encoded; the same transaction
//!   always gives the same positions.
//! * **Memory**: a batch leaves when it is large or when the connector would wait; it waits for its share of the
//!   source's memory, which the publisher gives back when the broker has acknowledged it.
//! * **Cost**: JSON is written once, from the wire's bytes into the batch's buffer; what does not change from row to row
//!   is spelled once for each table and transaction.

pub mod context;
pub mod encode;
mod encoder;
pub mod form;
mod key;
mod mask;
mod message;
mod outbox;
mod row;
mod selection;
mod semantic;
pub mod shapes;
pub mod shaping;
pub mod subject;
mod table;
#[cfg(test)]
mod tests;
pub mod time;

use crate::{
    config::OnGap,
    event::{Batch, Item},
    publish::{Announced, CheckpointStore, Claim, Durable, Landmark, StoredCheckpoint},
    schema::{History, Note, Registry, Version},
    snapshot::LedgerStore,
    witness::Witness,
};
use encoder::BATCH_BYTES;
pub use encoder::{Encoder, Look};
use headgate_sdk::{
    Change, Fault, Gap, Held, Message, Origin, Outlet, Position, Progress, RowFault, SnapshotLedger,
    SnapshotPlace, SnapshotPoint, Transaction,
};
use std::sync::Arc;
pub use table::Style;
use tokio::sync::{Semaphore, mpsc, watch};

/// The gateway's outlet.
#[derive(Debug)]
pub struct Normalizer {
    encoder: Encoder,
    /// What the encoder gave and nobody has yet: a call that waits to hand it on may be dropped.
    taken: Taken,
    /// Whether the connector has settled where the run begins.
    is_open: bool,
    on_gap: OnGap,
    memory: usize,
    batches: mpsc::Sender<Batch>,
    room: Arc<Semaphore>,
    durable: watch::Receiver<Durable>,
    checkpoints: CheckpointStore,
    schemas: Registry,
    shapes: History,
    claim: Claim,
    ledger: LedgerStore,
    witness: Witness,
}

/// What is on its way from the encoder to the publisher and the stores.
#[derive(Debug, Default)]
struct Taken {
    /// Items of a batch, and what they weigh.
    batch: Option<(Vec<Item>, usize)>,
    versions: Vec<Version>,
    notes: Vec<Note>,
}

/// What is kept beside the stream.
#[derive(Debug)]
pub struct Stores {
    /// The source's checkpoint.
    pub checkpoints: CheckpointStore,
    /// Versions of tables and events.
    pub schemas: Registry,
    /// Which version each table has had since when.
    pub shapes: History,
    /// What has to be held before that is written.
    pub claim: Claim,
    /// Snapshots that are under way.
    pub ledger: LedgerStore,
    /// What the stream itself says of transactions.
    pub witness: Witness,
}

impl Normalizer {
    /// An outlet that hands its batches to `batches`, at most `memory` bytes of them at a time.
    pub fn new(
        encoder: Encoder,
        on_gap: OnGap,
        memory: usize,
        batches: mpsc::Sender<Batch>,
        durable: watch::Receiver<Durable>,
        Stores { checkpoints, schemas, shapes, claim, ledger, witness }: Stores,
    ) -> Self {
        let memory = memory.clamp(BATCH_BYTES, u32::MAX as usize);
        Self {
            encoder,
            taken: Taken::default(),
            is_open: false,
            on_gap,
            memory,
            batches,
            room: Arc::new(Semaphore::new(memory)),
            durable,
            checkpoints,
            schemas,
            shapes,
            claim,
            ledger,
            witness,
        }
    }

    /// Hands on everything that is complete. Dropped before it is done, it has lost nothing: the next call goes on.
    async fn hand_on(&mut self) -> Result<(), Fault> {
        if self.taken.batch.is_some() {
            self.hand_on_taken().await?;
        }
        self.taken.batch = self.encoder.take();
        self.hand_on_taken().await
    }

    async fn hand_on_taken(&mut self) -> Result<(), Fault> {
        let Some(size) = self.taken.batch.as_ref().map(|(_, size)| *size) else { return Ok(()) };
        self.register().await?;
        // A batch larger than all the memory there is goes alone.
        let share = u32::try_from(size.min(self.memory)).unwrap_or(u32::MAX);
        let permit = match Arc::clone(&self.room).try_acquire_many_owned(share) {
            Ok(permit) => Some(permit),
            Err(_) => {
                // The publisher must not wait for more of a transaction that waits for room here.
                place(&self.batches).await?.send(Batch { items: Vec::new(), permit: None });
                Arc::clone(&self.room).acquire_many_owned(share).await.ok()
            }
        };
        let place = place(&self.batches).await?;
        if let Some((items, _)) = self.taken.batch.take() {
            place.send(Batch { items, permit });
        }
        Ok(())
    }

    /// Sees that the registry knows what the events to come name, and which shapes begin with them.
    async fn register(&mut self) -> Result<(), Fault> {
        let (versions, notes) = self.encoder.take_shapes();
        self.taken.versions.extend(versions);
        self.taken.notes.extend(notes);
        if !self.taken.notes.is_empty() || self.shapes.is_behind() {
            self.claim.held().await?;
            let durable = self.durable.borrow().position;
            // A call that was dropped may have noted them: the store refuses to note them again, and the run ends.
            self.shapes.keep(&self.taken.notes, durable).await?;
            self.taken.notes.clear();
        }
        // It has them before it waits for anything.
        self.schemas.register(std::mem::take(&mut self.taken.versions)).await;
        Ok(())
    }
}

/// A place among the batches.
async fn place(batches: &mpsc::Sender<Batch>) -> Result<mpsc::Permit<'_, Batch>, Fault> {
    batches.reserve().await.map_err(|_| Fault::transient("the publisher has stopped"))
}

impl Outlet for Normalizer {
    async fn open(&mut self, origin: Origin) -> Result<(), Fault> {
        self.encoder.set_epoch(origin.epoch);
        self.checkpoints.bind(origin).await?;
        self.is_open = true;
        Ok(())
    }

    async fn gap(&mut self, origin: Origin, gap: Gap) -> Result<(), Fault> {
        // What looks like a gap may be the work of another gateway since this run began. What that one published, the
        // publisher finds out; what it only read, the checkpoint tells.
        self.checkpoints
            .announce(Announced {
                epoch: origin.epoch,
                identity: origin.identity.clone(),
                log: gap.to.log,
                reason: gap.reason.clone(),
            })
            .await?;
        let position = self.encoder.gap(origin.epoch, &gap);
        self.hand_on().await?;
        self.durable
            .wait_for(|durable| durable.position.is_some_and(|at| at >= position))
            .await
            .map_err(|_| Fault::transient("the publisher has stopped"))?;
        let stop = self.on_gap == OnGap::Stop;
        let reached = Landmark { progress: gap.to, sequence: self.durable.borrow().sequence };
        self.checkpoints
            .store(StoredCheckpoint {
                epoch: origin.epoch,
                identity: origin.identity,
                reached,
                released: Landmark::default(),
                gap: stop.then(|| gap.reason.clone()),
                announced: None,
            })
            .await?;
        if stop { Err(gap_fault(self.encoder.source(), &gap.reason)) } else { Ok(()) }
    }

    async fn held_since(
        &mut self,
        from: Progress,
        each: &mut (dyn FnMut(Held<'_>) + Send),
    ) -> Result<bool, Fault> {
        self.witness.held_since(from, each).await
    }

    fn begin(&mut self, transaction: &Transaction) {
        self.encoder.begin(transaction);
    }

    fn skip(&mut self, events: u32) {
        self.encoder.skip(events);
    }

    fn change(&mut self, change: &Change<'_>) {
        self.encoder.change(change);
    }

    fn message(&mut self, message: &Message<'_>) {
        self.encoder.message(message);
    }

    fn reject(&mut self, fault: &RowFault) {
        self.encoder.reject(fault);
    }

    fn pass_over(&mut self) {
        self.encoder.pass_over();
    }

    fn commit(&mut self, progress: Progress) {
        self.encoder.commit(progress);
    }

    fn progress(&mut self, progress: Progress) {
        self.encoder.progress(progress);
    }

    fn begin_snapshot(&mut self, point: SnapshotPoint) {
        self.encoder.begin_snapshot(point);
    }

    fn end_snapshot(&mut self) -> Option<Position> {
        self.encoder.end_snapshot()
    }

    fn places(&mut self, places: &[SnapshotPlace]) {
        self.encoder.places(places);
    }

    async fn keep_snapshots(&mut self, ledger: &SnapshotLedger) -> Result<(), Fault> {
        if !self.is_open {
            // What a gap has read again. It must be one before the ledger is replaced for it: see `gap`.
            self.checkpoints.assert_unchanged().await?;
        }
        self.ledger.keep(ledger).await
    }

    fn is_full(&self) -> bool {
        self.encoder.is_full()
    }

    async fn flush(&mut self) -> Result<(), Fault> {
        self.hand_on().await?;
        match self.encoder.take_refusal() {
            None => Ok(()),
            Some(refusal) => {
                // What waits to be accepted has to be known to whoever accepts it.
                self.register().await?;
                Err(refusal)
            }
        }
    }
}

/// The fault of a source that waits for somebody to accept a gap.
pub fn gap_fault(source: &str, reason: &str) -> Fault {
    Fault::gap(format!("history is gone: {reason}")).with_fix(format!(
        "the gap event in EVENTS_{source} says how much; when the consumers know, run `headgate source accept-gap {source}`"
    ))
}
