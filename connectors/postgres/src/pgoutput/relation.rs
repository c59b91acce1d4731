//! Relation and Type: the shape of the rows to come.
//!
//! <https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html>

use super::{
    MAX_COLUMNS,
    cursor::{Cursor, DecodeError, Problem},
};

/// The shape of a table, as it was when the rows after it were written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relation<'a> {
    /// OID of the table, by which rows refer to it.
    pub oid: u32,
    /// The schema.
    pub schema: &'a str,
    /// The table.
    pub table: &'a str,
    /// What the log keeps of old rows.
    pub identity: ReplicaIdentity,
    /// The columns, in the order of the tuples.
    pub columns: Vec<Column<'a>>,
}

/// What the log keeps of an updated or deleted row (`REPLICA IDENTITY`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplicaIdentity {
    /// The primary key.
    Default,
    /// Nothing.
    Nothing,
    /// The whole row.
    Full,
    /// The columns of a unique index.
    Index,
}

/// A column of a relation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column<'a> {
    /// Whether it is part of the replica identity.
    pub identity: bool,
    /// Its name.
    pub name: &'a str,
    /// OID of its type.
    pub type_oid: u32,
    /// Its type modifier (`atttypmod`).
    pub modifier: i32,
}

impl<'a> Relation<'a> {
    pub(super) fn decode(cursor: &mut Cursor<'a>) -> Result<Self, DecodeError> {
        let oid = cursor.u32("relation")?;
        let schema = match cursor.name("schema")? {
            // The protocol writes the system's own schema as nothing.
            "" => "pg_catalog",
            schema => schema,
        };
        let table = cursor.name("table")?;
        let identity = match cursor.u8("replica identity")? {
            b'd' => ReplicaIdentity::Default,
            b'n' => ReplicaIdentity::Nothing,
            b'f' => ReplicaIdentity::Full,
            b'i' => ReplicaIdentity::Index,
            byte => return Err(cursor.error("replica identity", Problem::Unknown(byte))),
        };
        let count = cursor.u16("number of columns")?;
        if count > MAX_COLUMNS {
            return Err(cursor.error("number of columns", Problem::TooMany(count.into())));
        }
        let mut columns = Vec::with_capacity(count.into());
        for _ in 0..count {
            columns.push(Column::decode(cursor)?);
        }
        Ok(Self { oid, schema, table, identity, columns })
    }
}

impl<'a> Column<'a> {
    fn decode(cursor: &mut Cursor<'a>) -> Result<Self, DecodeError> {
        let identity = match cursor.u8("column flags")? {
            0 => false,
            1 => true,
            flags => return Err(cursor.error("column flags", Problem::Unknown(flags))),
        };
        Ok(Self {
            identity,
            name: cursor.name("column name")?,
            type_oid: cursor.u32("column type")?,
            modifier: cursor.i32("column type modifier")?,
        })
    }
}

/// The name of a type that is not built in. For a domain it is the name of its base type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Type<'a> {
    /// OID of the type.
    pub oid: u32,
    /// The schema; empty for `pg_catalog`.
    pub schema: &'a str,
    /// The name.
    pub name: &'a str,
}

impl<'a> Type<'a> {
    pub(super) fn decode(cursor: &mut Cursor<'a>) -> Result<Self, DecodeError> {
        Ok(Self { oid: cursor.u32("type")?, schema: cursor.name("schema")?, name: cursor.name("name")? })
    }
}
