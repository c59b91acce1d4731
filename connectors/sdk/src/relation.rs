//! A version of a table's shape, and how its values become JSON.

use std::fmt;

/// Writes one column's values as JSON. Prepared once for each version of a table, called for every value.
pub trait WriteValue: fmt::Debug + Send + Sync {
    /// Appends exactly one JSON value for `raw`, which is the value as the wire carried it.
    ///
    /// # Errors
    /// [`Unwritable`] where `raw` cannot be a JSON value, invalid UTF-8 above all. What was appended by then is
    /// unspecified; the caller cuts it off. The event then goes to the dead letters: a value is never bent to fit.
    fn write(&self, raw: &[u8], out: &mut Vec<u8>) -> Result<(), Unwritable>;

    /// Where in a document the log says that it was changed, as a JSON array of paths; `None` where it says nothing of it, as of
    /// everything that is no document.
    fn paths<'r>(&self, raw: &'r [u8]) -> Option<&'r str> {
        let _ = raw;
        None
    }
}

/// Why a value cannot be written as JSON.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Unwritable {
    /// What is wrong with the value; never the value itself.
    pub reason: &'static str,
}

/// A column of a relation.
#[derive(Debug)]
pub struct Column {
    /// The column's name as the database has it.
    pub name: String,
    /// The database's name of its type, for schemas and messages.
    pub type_name: String,
    /// Whether it may be NULL; `None` where nobody says. What the log itself does not say is the catalog's word, which may be
    /// later than the log.
    pub nullable: Option<bool>,
    /// How its values become JSON.
    pub writer: Box<dyn WriteValue>,
}

/// One version of a table's shape. A new version (DDL, a reconnect) is a new value with a new `id`.
#[derive(Debug)]
pub struct Relation {
    /// Unique among all relations that a connector ever makes in this process, so that prepared writers can be kept by it.
    pub id: u64,
    /// The schema (PostgreSQL) or database (MySQL) of the table.
    pub schema: String,
    /// The table's name.
    pub table: String,
    /// The columns in the order of the row images.
    pub columns: Vec<Column>,
    /// Indexes into `columns` of the key that names a row, in key order; empty where a row has no name.
    pub key: Vec<usize>,
}
