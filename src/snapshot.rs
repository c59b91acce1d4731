//! Snapshots, as the gateway sees them: what is kept of them beside the stream, and how far they are, for people.
//!
//! * **Durability**: the ledger counts when the broker has acknowledged it. It says which jobs there are; how far each is says the
//!   stream itself, in its events' headers.
//! * **Fencing**: each write names the revision that it replaces.

mod ledger;
mod report;

pub use ledger::{LedgerStore, forget};
pub use report::{SnapshotReport, SnapshotState};

/// Header that carries how far the snapshots of a source are.
pub const PLACES_HEADER: &str = "Headgate-Snapshot";
