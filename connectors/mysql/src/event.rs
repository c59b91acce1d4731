//! Decodes the events of a binary log, of MySQL 8.0 to 9 and MariaDB 10.5 to 12.
//!
//! Pure: bytes in, an [`Event`] that borrows them out. No I/O, no panic on any bytes, and no allocation for a row. What is
//! not understood exactly is an error: skipping it would lose a change without a word. The only events that are left out
//! are those that are known to tell nothing of a row ([`Event::Aside`]), or that the server itself marks as ignorable.
//!
//! Positions in headers are not identities: they are 0 inside compressed payloads and on MariaDB since 11.4, and wrap at
//! 4 GiB.
//!
//! The formats: <https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_replication_binlog_event.html> and
//! <https://mariadb.com/docs/server/reference/clientserver-protocol/replication-protocol>.

mod compressed;
mod cursor;
mod format;
mod gtid;
mod header;
mod incident;
mod mariadb;
mod payload;
mod query;
mod rotate;
mod rows;
mod table_map;
mod tagged;
#[cfg(test)]
mod tests;
mod xa;

pub use compressed::MAX_INFLATED;
pub(crate) use compressed::inflate_column;
pub(crate) use cursor::Cursor;
pub use cursor::{DecodeError, Problem};
pub use format::{Flavor, Format};
pub use gtid::Gtid;
pub use header::{Frame, Header, kind};
pub use incident::Incident;
pub use mariadb::MariaGtid;
pub use payload::{Payload, PayloadEvents};
pub use query::Query;
pub use rotate::Rotate;
pub(crate) use rows::has;
pub use rows::{Images, RowChange, RowReader, Rows};
pub use table_map::{Collations, ColumnType, MAX_COLUMNS, Metadata, TableMap, code};
pub use xa::XaPrepare;

use crate::gtid::{mariadb::GtidList, mysql::GtidSet};

/// One event of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// How the events after it are laid out; the first of every file and of every dump.
    Format(Format),
    /// The log goes on in another file.
    Rotate(Rotate<'a>),
    /// All transactions before this file (MySQL).
    PreviousGtids(GtidSet),
    /// A transaction begins (MySQL).
    Gtid(Gtid),
    /// A transaction begins (MariaDB).
    MariaGtid(MariaGtid),
    /// The last transaction of each domain and server before this file (MariaDB).
    MariaGtidList(GtidList),
    /// A statement: `BEGIN`, `COMMIT`, `SAVEPOINT`, `XA`, DDL, or, in statement format, a change.
    Query(Query<'a>),
    /// The text of the statement whose rows follow, in the client's character set.
    RowsQuery(&'a [u8]),
    /// The shape of a table whose rows follow.
    TableMap(TableMap<'a>),
    /// Rows were written, updated or deleted.
    Rows(Rows<'a>),
    /// The events of a transaction, compressed (MySQL).
    Payload(Payload<'a>),
    /// The transaction is committed.
    Xid(u64),
    /// A distributed transaction is prepared; what becomes of it is told later by an `XA COMMIT` or `XA ROLLBACK`.
    XaPrepare(XaPrepare<'a>),
    /// The server is alive and has nothing to tell.
    Heartbeat,
    /// The server lost changes before it could log them.
    Incident(Incident<'a>),
    /// An event that tells nothing of any row, by its type code.
    Aside(u8),
}

impl<'a> Event<'a> {
    /// Decodes the body of an event: what is between its header and its checksum.
    ///
    /// # Errors
    /// The body is not as its type has it, or the type is not known.
    pub fn decode(header: &Header, body: &'a [u8]) -> Result<Self, DecodeError> {
        // Rows first: they are nearly all of the traffic.
        Ok(match header.kind {
            kind::WRITE_ROWS
            | kind::UPDATE_ROWS
            | kind::DELETE_ROWS
            | kind::WRITE_ROWS_V1
            | kind::UPDATE_ROWS_V1
            | kind::DELETE_ROWS_V1
            | kind::PARTIAL_UPDATE_ROWS
            | kind::MARIADB_WRITE_ROWS_COMPRESSED_V1..=kind::MARIADB_DELETE_ROWS_COMPRESSED => {
                Self::Rows(Rows::decode(header.kind, body)?)
            }
            kind::TABLE_MAP => Self::TableMap(TableMap::decode(body)?),
            kind::XID => Self::Xid(xid(body)?),
            kind::QUERY | kind::EXECUTE_LOAD_QUERY | kind::MARIADB_QUERY_COMPRESSED => {
                Self::Query(Query::decode(header.kind, body)?)
            }
            kind::GTID | kind::ANONYMOUS_GTID => Self::Gtid(Gtid::decode(header.kind, body)?),
            kind::GTID_TAGGED => Self::Gtid(tagged::decode(body)?),
            kind::MARIADB_GTID => Self::MariaGtid(MariaGtid::decode(header.server_id, body)?),
            kind::ROWS_QUERY => Self::RowsQuery(query::rows_query(body)?),
            kind::MARIADB_ANNOTATE_ROWS => Self::RowsQuery(body),
            kind::TRANSACTION_PAYLOAD => Self::Payload(Payload::decode(body)?),
            kind::FORMAT_DESCRIPTION => Self::Format(Format::decode(body)?),
            kind::ROTATE => Self::Rotate(Rotate::decode(body)?),
            kind::PREVIOUS_GTIDS => Self::PreviousGtids(gtid::previous(body)?),
            kind::MARIADB_GTID_LIST => Self::MariaGtidList(mariadb::gtid_list(body)?),
            kind::XA_PREPARE => Self::XaPrepare(XaPrepare::decode(body)?),
            kind::HEARTBEAT | kind::HEARTBEAT_V2 => Self::Heartbeat,
            kind::INCIDENT => Self::Incident(Incident::decode(body)?),
            // Load files, statement variables, group replication's bookkeeping: the rows come in events of their own. In
            // statement format the variables belong to a QUERY, which is refused there.
            kind::STOP
            | kind::INTVAR
            | kind::RAND
            | kind::USER_VAR
            | kind::BEGIN_LOAD_QUERY
            | kind::APPEND_BLOCK
            | kind::DELETE_FILE
            | kind::IGNORABLE
            | kind::TRANSACTION_CONTEXT
            | kind::VIEW_CHANGE
            | kind::MARIADB_BINLOG_CHECKPOINT
            | kind::MARIADB_START_ENCRYPTION => Self::Aside(header.kind),
            kind if header.flags & header::IGNORABLE != 0 => Self::Aside(kind),
            kind => {
                return Err(DecodeError {
                    event: "unknown",
                    field: "type",
                    problem: Problem::Unknown(kind.into()),
                });
            }
        })
    }
}

/// The body of an XID event.
fn xid(body: &[u8]) -> Result<u64, DecodeError> {
    let mut cursor = Cursor::new(body, "XID");
    let xid = cursor.u64("transaction")?;
    cursor.finish()?;
    Ok(xid)
}
