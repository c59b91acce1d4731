//! Names of tables as SQL wants them.

use headgate_sdk::TableName;
use postgres_protocol::escape::escape_identifier;

/// A table's name with its schema, each quoted.
pub(crate) fn quoted(table: &TableName) -> String {
    format!("{}.{}", escape_identifier(&table.schema), escape_identifier(&table.table))
}
