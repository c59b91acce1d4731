//! What a connector tells: transactions, row changes and logical messages, all borrowing the bytes of the wire.

use crate::Relation;
use std::sync::Arc;

/// The transaction that the changes after it belong to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transaction {
    /// Commit position in the log; strictly rising from transaction to transaction within an epoch.
    pub commit: u64,
    /// Commit time in microseconds since 1970-01-01 UTC.
    pub committed_at: i64,
    /// The database's name for the transaction (PostgreSQL: the xid; MySQL: the GTID).
    pub id: String,
}

/// What happened to a row, or to a whole table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Op {
    /// A row was inserted.
    Created,
    /// A row was updated.
    Updated,
    /// A row was deleted.
    Deleted,
    /// All rows of a table went at once.
    Truncated,
}

/// One column's value in one row image: value, null and unavailable are three states, never two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cell<'a> {
    /// SQL NULL.
    Null,
    /// The log did not carry the value (an unchanged TOAST value, a minimal row image, a column outside the old key).
    Unavailable,
    /// The value as the wire carried it; the column's [`WriteValue`](crate::WriteValue) knows its form.
    Value(&'a [u8]),
}

/// One change of one row (or of a whole table).
#[derive(Clone, Copy, Debug)]
pub struct Change<'a> {
    /// The version of the table's shape that the images below were written with.
    pub relation: &'a Arc<Relation>,
    /// What happened.
    pub op: Op,
    /// The old row as far as the log gave it, one cell a column in the relation's order; columns that the log left out
    /// are [`Cell::Unavailable`]. `None` where the log gave nothing of it.
    pub before: Option<&'a [Cell<'a>]>,
    /// The new row, one cell a column. `None` for deletes and truncates.
    pub after: Option<&'a [Cell<'a>]>,
}

/// Prefix of the transactional message by which a writer sets attributes on the events of its transaction. A connector
/// that can see so far ahead tells it right after [`begin`](crate::Outlet::begin), so that it holds for all of them;
/// where it is told later, it holds for the events after it.
pub const CONTEXT_PREFIX: &str = "headgate.context";

/// A message that an application wrote into the log itself.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// The application's name for this kind of message.
    pub prefix: &'a str,
    /// The content, as written.
    pub content: &'a [u8],
    /// Whether it belongs to the transaction around it. Otherwise it stands alone: the outlet must not be inside a
    /// transaction when it is told, and it is an event even if the writer's transaction rolled back.
    pub transactional: bool,
    /// Its own position in the log. Where it stands alone this is its commit position.
    pub position: u64,
}
