//! The shapes of events as JSON Schema: one document for each version of a table, named by the events' `dataschema`.
//!
//! * **Order**: a version is in the registry before the first event that names it leaves; see [`Registry::register`].
//! * **Identity**: a version's name is a hash of its columns, types and key. The same shape has the same name on every
//!   replay, whoever reads it, and is written once.
//! * **Cost**: nothing for a row; a look at the registry for each version of a table in a run.

pub mod asyncapi;
pub mod compare;
mod document;
mod registry;
pub mod validate;

pub use document::Version;
pub use registry::{BUCKET, Registry, Stored, by_uri, stored};
