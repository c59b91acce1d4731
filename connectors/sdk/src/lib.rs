//! The contract between a connector and the gateway.
//!
//! A connector reads one database's log and tells it, change by change, to an [`Outlet`]; the gateway's outlet turns
//! each change into a CloudEvent and publishes it. Connectors never see the broker, the gateway never sees a socket of
//! the database, and a new connector is a new crate that depends on this one alone.
//!
//! # Order
//! A connector tells changes in commit order, from a single task. The outlet numbers them: an event's [`Position`] is
//! (epoch, the transaction's commit position, index within the transaction), never a bare log position.
//!
//! # Duplicates
//! A connector may tell again what it told before (a log is re-read after every restart). It must tell *the same
//! transaction as the same changes in the same order*; the outlet drops what the stream already holds.
//!
//! # Durability
//! Telling is not keeping. A log position may be released to the database only when it came back through
//! [`Context::released`]: by then the broker holds everything before it, durably.
//!
//! # Memory
//! A connector hands on what it has decoded whenever [`Outlet::is_full`] says so and whenever it would wait for more
//! input. [`Outlet::flush`] waits while the broker is behind; a connector must go on answering its database meanwhile.
//!
//! # Shutdown
//! When [`Context::shutdown`] fires, a connector stops reading, flushes, and returns `Ok(())`.

pub mod amount;
mod change;
pub mod clock;
mod fault;
mod filter;
mod finding;
mod hash;
pub mod json;
mod outlet;
pub mod percent;
mod position;
mod relation;
mod shape;
mod snapshot;
pub mod snapshots;
mod source;
pub mod testing;

pub use change::{CONTEXT_PREFIX, Cell, Change, Message, Op, Transaction};
pub use fault::{Fault, FaultKind};
pub use filter::{TableFilter, glob_matches};
pub use finding::{Finding, Severity};
pub use hash::fnv1a;
pub use outlet::{Gap, Held, Origin, Outlet, RowFault};
pub use position::{ParsePositionError, Position, Progress};
pub use relation::{Column, Relation, Unwritable, WriteValue};
pub use shape::TableShape;
pub use snapshot::{
    CapturedTables, ParseReasonError, SnapshotDesk, SnapshotJob, SnapshotLedger, SnapshotPlace,
    SnapshotPoint, SnapshotProgress, SnapshotReason, SnapshotRequest, SnapshotSettings, SnapshotStart,
    TableName,
};
pub use source::{Checkpoint, Context, LastEvent, Resume, Source, Vitals};
