//! Snapshots of PostgreSQL's tables: what [`headgate_sdk::snapshots`] has to know of this database.
//!
//! A chunk is a short transaction of its own ([`read`]), whose snapshot says which transactions it saw ([`visibility`]). Rows
//! come as COPY's text ([`copy`]), which is the text that the log has too.

mod copy;
mod read;
mod table;
mod visibility;

pub(crate) use read::{Database, Session};

/// The snapshots of a PostgreSQL source.
pub(crate) type Snapshots = headgate_sdk::snapshots::Snapshots<Session>;
