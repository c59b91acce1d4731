//! The shapes of events as JSON Schema: one document for each version of a table, a type of letters, an outbox or a semantic event, named
//! by the events' `dataschema`; and which version each table has had since when.
//!
//! * **Order**: a version is in the registry before the first event that names it leaves; see [`Registry::register`].
//! * **Identity**: a version's name is a hash of its columns, types, NOT NULLs and key. The same shape has the same name on every
//!   replay, whoever reads it, and is written once.
//! * **Cost**: nothing for a row; a look at the registry for each version of a table in a run.

pub mod asyncapi;
pub mod compare;
mod document;
mod evidence;
mod history;
mod registry;
mod shape;
pub mod validate;

pub use document::{Envelope, EventData, Version, uri};
pub use evidence::Evidence;
pub use history::{History, Known, Note, Turn, accept, forget};
pub use registry::{BUCKET, Registry, Stored, by_uri, event_names, stored};
pub use shape::{Shape, ShapeColumn};

/// How much is read from the broker at the same time.
const READS: usize = 32;
