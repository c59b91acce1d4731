//! What a connector brings: sessions that read tables, and what they can have missed.

use super::{Chunk, Key, OwnedChange};
use crate::{Change, Fault, TableName, Transaction};
use std::{collections::BTreeSet, future::Future, sync::Arc, time::Duration};

/// A session that reads tables of one database. Dropped while a statement runs, it ends it.
pub trait Reader: Sized + Send + 'static {
    /// What all sessions of a source have in common.
    type Database: Send + Sync + 'static;
    /// A table as it was described.
    type Table: Table;
    /// What a read saw of the log.
    type Sight: Send + 'static;
    /// What was told of the log.
    type Told: Told<Sight = Self::Sight>;

    /// Whether rows are read in the very form that the log's changes have. Otherwise they are [restated](Self::restate).
    const LOG_FORM: bool;

    /// Begins to remember what is told, before anything is.
    fn told(database: &Self::Database) -> Self::Told;

    /// Puts a change of the log into the form that rows are read in; `None` where it has it already.
    fn restate(change: &Change<'_>) -> Option<OwnedChange>;

    /// A new session.
    fn start(database: Arc<Self::Database>) -> impl Future<Output = Result<Self, Fault>> + Send;

    /// Whether it is in the middle of a read, which goes on in the next chunk.
    fn is_open(&self) -> bool;

    /// Looks a table up; `None` if there is none to read.
    fn describe(
        &mut self,
        name: &TableName,
    ) -> impl Future<Output = Result<Option<Self::Table>, Fault>> + Send;

    /// How many rows the database guesses that the tables have; `None` where it has no guess for one of them.
    fn expected(&mut self, tables: &[TableName]) -> impl Future<Output = Result<Option<u64>, Fault>> + Send;

    /// Transactions under way that may change the table without being told, for they began before it was captured. A table that
    /// joins is read when they have ended.
    fn writers(
        &mut self,
        table: &Self::Table,
    ) -> impl Future<Output = Result<BTreeSet<String>, Fault>> + Send;

    /// Checks that a condition is one that this table's rows can be asked.
    fn try_condition(
        &mut self,
        table: &Self::Table,
        condition: &str,
    ) -> impl Future<Output = Result<(), Fault>> + Send;

    /// Reads a chunk.
    fn read(
        &mut self,
        table: &Self::Table,
        rows: &Rows,
        condition: Option<&str>,
    ) -> impl Future<Output = Result<Read<Self>, Unread>> + Send;
}

/// A table as it was described.
pub trait Table: Send + Sync + 'static {
    /// Whether a row has a name, so that it can be found again.
    fn has_key(&self) -> bool;

    /// What the order of its keys follows from: columns, types, collations. A table whose order is another one meanwhile is
    /// read from its beginning, for a key says no longer what lies before it.
    fn order(&self) -> String;
}

/// Remembers which transactions were told: servers send them to the readers of their log before every new read sees them.
pub trait Told: Send {
    /// What a read saw.
    type Sight;
    /// What had been told at a moment, as far as a read can have missed it.
    type Mark: Send;

    /// Notes a transaction.
    fn note(&mut self, transaction: &Transaction);

    /// Now.
    fn mark(&self) -> Self::Mark;

    /// Whether a read saw all that had been told by then.
    fn all_seen(by: &Self::Sight, told: &Self::Mark) -> bool;
}

/// Which rows to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rows {
    /// Those behind a key, at most so many, in key order.
    After(Option<Key>, u32),
    /// Those with these keys.
    Keys(Vec<Key>),
    /// All of a table that has no key.
    All,
}

/// A chunk that was read.
#[derive(Debug)]
pub struct Read<R: Reader> {
    /// The rows.
    pub chunk: Chunk,
    /// Whether these were all rows that there are.
    pub complete: bool,
    /// Which transactions it saw.
    pub sight: R::Sight,
    /// Everything that it saw lies before this position of the log.
    pub watermark: u64,
    /// When it was read, in microseconds since 1970-01-01 UTC.
    pub read_at: i64,
    /// How long that took.
    pub took: Duration,
}

/// Why there is no chunk.
#[derive(Debug)]
pub enum Unread {
    /// The table is not what it was: it has to be described again.
    Changed,
    /// It cannot be read, now or ever.
    Fault(Fault),
}

impl From<Fault> for Unread {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}
