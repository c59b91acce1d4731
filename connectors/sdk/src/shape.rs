//! How a table stands in the database now, for settings that have to be compared with it before a run.

/// A captured table as the database's catalog has it. The log may be older: it alone decides how rows are read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TableShape {
    /// The schema (PostgreSQL) or database (MySQL) of the table.
    pub schema: String,
    /// The table's name.
    pub table: String,
    /// The columns' names, in the table's order.
    pub columns: Vec<String>,
    /// The columns that name a row in its events, in key order; empty where it has no name.
    pub key: Vec<String>,
    /// Whether the log has the whole old row of an update or delete.
    pub whole_before: bool,
    /// The statement that makes it so.
    pub make_before_whole: String,
}
