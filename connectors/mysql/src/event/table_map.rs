//! TABLE_MAP: the shape of a table whose rows follow.
//!
//! <https://dev.mysql.com/doc/dev/mysql-server/latest/classbinary__log_1_1Table__map__event.html>

use super::cursor::{Cursor, DecodeError, Problem};

/// Most columns that a table of either server can have.
pub const MAX_COLUMNS: u64 = 4096;

/// The shape of a table, as it was when the rows after it were written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableMap<'a> {
    /// The number by which the rows refer to it.
    pub table_id: u64,
    /// The database.
    pub schema: &'a str,
    /// The table.
    pub table: &'a str,
    /// The columns' types, in the order of the row images.
    pub types: Vec<ColumnType>,
    /// What else the server tells; whole with `binlog_row_metadata = FULL`.
    pub metadata: Metadata<'a>,
    /// Everything of it but the number: two events with the same bytes describe the same shape.
    pub shape: &'a [u8],
}

/// A column's type on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ColumnType {
    /// The type's code (`enum_field_types`), taken out of the metadata where the server hides it there.
    pub code: u8,
    /// Its metadata: a length, a precision and a scale, …
    pub meta: u16,
}

/// What a server tells of a table beyond the types of its columns. Each part is there or not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metadata<'a> {
    /// For each numeric column whether it is unsigned ([`ColumnType::is_numeric`]), and whatever fills the last byte.
    pub unsigned: Option<Vec<bool>>,
    /// For each character column its collation.
    pub collations: Option<Collations>,
    /// For each column its name.
    pub names: Option<Vec<&'a str>>,
    /// For each SET column its labels, in the column's character set.
    pub set_labels: Option<Vec<Vec<&'a [u8]>>>,
    /// For each ENUM column its labels, in the column's character set.
    pub enum_labels: Option<Vec<Vec<&'a [u8]>>>,
    /// The columns of the primary key, in key order.
    pub key: Option<Vec<u64>>,
    /// For each ENUM and SET column its collation.
    pub label_collations: Option<Collations>,
    /// For each column whether `SELECT *` shows it.
    pub visible: Option<Vec<bool>>,
}

/// Collations of the columns of some class, in their order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Collations {
    /// One for all, but for some, by their place within the class.
    Default(u64, Vec<(u64, u64)>),
    /// One for each.
    Each(Vec<u64>),
}

impl Collations {
    /// The collation of the `nth` column of the class.
    #[must_use]
    pub fn get(&self, nth: usize) -> Option<u64> {
        match self {
            Self::Default(default, others) => {
                let other = others.iter().find(|(at, _)| *at == nth as u64);
                Some(other.map_or(*default, |(_, collation)| *collation))
            }
            Self::Each(all) => all.get(nth).copied(),
        }
    }
}

/// Type codes (`enum_field_types`).
#[allow(missing_docs, reason = "the servers' own names")]
pub mod code {
    pub const TINY: u8 = 1;
    pub const SHORT: u8 = 2;
    pub const LONG: u8 = 3;
    pub const FLOAT: u8 = 4;
    pub const DOUBLE: u8 = 5;
    pub const TIMESTAMP: u8 = 7;
    pub const LONGLONG: u8 = 8;
    pub const INT24: u8 = 9;
    pub const DATE: u8 = 10;
    pub const TIME: u8 = 11;
    pub const DATETIME: u8 = 12;
    pub const YEAR: u8 = 13;
    pub const NEWDATE: u8 = 14;
    pub const VARCHAR: u8 = 15;
    pub const BIT: u8 = 16;
    pub const TIMESTAMP2: u8 = 17;
    pub const DATETIME2: u8 = 18;
    pub const TIME2: u8 = 19;
    pub const BLOB_COMPRESSED: u8 = 140;
    pub const VARCHAR_COMPRESSED: u8 = 141;
    pub const VECTOR: u8 = 242;
    pub const JSON: u8 = 245;
    pub const NEWDECIMAL: u8 = 246;
    pub const ENUM: u8 = 247;
    pub const SET: u8 = 248;
    pub const TINY_BLOB: u8 = 249;
    pub const MEDIUM_BLOB: u8 = 250;
    pub const LONG_BLOB: u8 = 251;
    pub const BLOB: u8 = 252;
    pub const VAR_STRING: u8 = 253;
    pub const STRING: u8 = 254;
    pub const GEOMETRY: u8 = 255;
}

/// Kinds of optional metadata.
mod field {
    pub(super) const SIGNEDNESS: u8 = 1;
    pub(super) const DEFAULT_CHARSET: u8 = 2;
    pub(super) const COLUMN_CHARSET: u8 = 3;
    pub(super) const COLUMN_NAME: u8 = 4;
    pub(super) const SET_LABELS: u8 = 5;
    pub(super) const ENUM_LABELS: u8 = 6;
    pub(super) const SIMPLE_KEY: u8 = 8;
    pub(super) const KEY_WITH_PREFIX: u8 = 9;
    pub(super) const LABEL_DEFAULT_CHARSET: u8 = 10;
    pub(super) const LABEL_CHARSET: u8 = 11;
    pub(super) const VISIBILITY: u8 = 12;
}

impl<'a> TableMap<'a> {
    pub(super) fn decode(body: &'a [u8]) -> Result<Self, DecodeError> {
        let mut cursor = Cursor::new(body, "TABLE_MAP");
        let table_id = cursor.u48("table")?;
        let shape = cursor.clone().take();
        cursor.u16("flags")?;
        let len = cursor.u8("length of schema")?;
        let schema = cursor.name(len, "schema")?;
        let len = cursor.u8("length of table")?;
        let table = cursor.name(len, "table")?;
        let count = cursor.lenenc("number of columns")?;
        if count > MAX_COLUMNS {
            return Err(cursor.error("number of columns", Problem::TooMany(count)));
        }
        let codes = cursor.bytes(count, "types")?;
        let mut meta = Cursor::new(cursor.lenenc_bytes("metadata of types")?, "TABLE_MAP");
        let types = codes.iter().map(|&code| column_type(code, &mut meta)).collect::<Result<Vec<_>, _>>()?;
        meta.finish()?;
        cursor.bytes(count.div_ceil(8), "nullable columns")?;
        let metadata = Metadata::decode(&mut cursor, &types)?;
        Ok(Self { table_id, schema, table, types, metadata, shape })
    }
}

/// The type of a column, with the metadata that belongs to it.
fn column_type(code: u8, meta: &mut Cursor<'_>) -> Result<ColumnType, DecodeError> {
    let field = "metadata of a type";
    Ok(match code {
        code::STRING => {
            let [high, low] = meta.array(field)?;
            // ENUM and SET hide here. Of a long CHAR the two highest bits of the length are in the type's code, inverted.
            if high & 0x30 == 0x30 {
                ColumnType { code: high, meta: low.into() }
            } else {
                ColumnType { code: high | 0x30, meta: u16::from(low) | u16::from((high & 0x30) ^ 0x30) << 4 }
            }
        }
        code::NEWDECIMAL => {
            let [precision, scale] = meta.array(field)?;
            ColumnType { code, meta: u16::from_be_bytes([precision, scale]) }
        }
        code::VARCHAR | code::VAR_STRING | code::VARCHAR_COMPRESSED | code::BIT | code::ENUM | code::SET => {
            ColumnType { code, meta: meta.u16(field)? }
        }
        code::FLOAT
        | code::DOUBLE
        | code::TINY_BLOB
        | code::MEDIUM_BLOB
        | code::LONG_BLOB
        | code::BLOB
        | code::BLOB_COMPRESSED
        | code::GEOMETRY
        | code::JSON
        | code::VECTOR
        | code::TIMESTAMP2
        | code::DATETIME2
        | code::TIME2 => ColumnType { code, meta: meta.u8(field)?.into() },
        code::TINY
        | code::SHORT
        | code::INT24
        | code::LONG
        | code::LONGLONG
        | code::TIMESTAMP
        | code::DATE
        | code::TIME
        | code::DATETIME
        | code::YEAR
        | code::NEWDATE => ColumnType { code, meta: 0 },
        code => return Err(meta.error("type of a column", Problem::Unknown(code.into()))),
    })
}

impl ColumnType {
    /// Whether [`Metadata::unsigned`] tells of it. YEAR is among the numbers there, which readers are wont to forget: the signs of all
    /// columns behind one are then those of their neighbours.
    #[must_use]
    pub fn is_numeric(self) -> bool {
        matches!(
            self.code,
            code::TINY
                | code::SHORT
                | code::INT24
                | code::LONG
                | code::LONGLONG
                | code::NEWDECIMAL
                | code::FLOAT
                | code::DOUBLE
                | code::YEAR
        )
    }

    /// Whether it has a collation that [`Metadata::collations`] tells, where MariaDB counts geometries too.
    #[must_use]
    pub fn is_character(self) -> bool {
        matches!(
            self.code,
            code::STRING | code::VAR_STRING | code::VARCHAR | code::VARCHAR_COMPRESSED | code::TINY_BLOB
                ..=code::BLOB | code::BLOB_COMPRESSED
        )
    }

    /// Whether [`Metadata::label_collations`] tells of it.
    #[must_use]
    pub fn has_labels(self) -> bool {
        matches!(self.code, code::ENUM | code::SET)
    }
}

impl<'a> Metadata<'a> {
    fn decode(cursor: &mut Cursor<'a>, types: &[ColumnType]) -> Result<Self, DecodeError> {
        let mut metadata = Self::default();
        while !cursor.is_empty() {
            let field = cursor.u8("kind of metadata")?;
            let mut value = Cursor::new(cursor.lenenc_bytes("metadata")?, "TABLE_MAP");
            match field {
                field::SIGNEDNESS => {
                    let all = 8 * value.len();
                    metadata.unsigned = Some(bits(&mut value, all)?);
                }
                field::DEFAULT_CHARSET => metadata.collations = Some(default_collations(&mut value)?),
                field::COLUMN_CHARSET => metadata.collations = Some(Collations::Each(numbers(&mut value)?)),
                field::COLUMN_NAME => {
                    let mut names = Vec::with_capacity(types.len());
                    for _ in types {
                        let name = value.lenenc_bytes("name of a column")?;
                        names.push(value.utf8(name, "name of a column")?);
                    }
                    metadata.names = Some(names);
                }
                field::SET_LABELS => metadata.set_labels = Some(labels(&mut value)?),
                field::ENUM_LABELS => metadata.enum_labels = Some(labels(&mut value)?),
                field::SIMPLE_KEY => metadata.key = Some(numbers(&mut value)?),
                field::KEY_WITH_PREFIX => {
                    let mut key = Vec::new();
                    while !value.is_empty() {
                        key.push(value.lenenc("column of the key")?);
                        value.lenenc("length of a prefix")?;
                    }
                    metadata.key = Some(key);
                }
                field::LABEL_DEFAULT_CHARSET => {
                    metadata.label_collations = Some(default_collations(&mut value)?);
                }
                field::LABEL_CHARSET => {
                    metadata.label_collations = Some(Collations::Each(numbers(&mut value)?));
                }
                field::VISIBILITY => metadata.visible = Some(bits(&mut value, types.len())?),
                // A kind of geometry, the dimensions of a vector, and what newer servers add: the values tell themselves.
                _ => continue,
            }
            value.finish()?;
        }
        Ok(metadata)
    }
}

/// Bits, the highest of each byte first.
fn bits(cursor: &mut Cursor<'_>, count: usize) -> Result<Vec<bool>, DecodeError> {
    let bytes = cursor.bytes(count.div_ceil(8) as u64, "bits")?;
    let all = bytes.iter().flat_map(|byte| (0..8).map(move |bit| byte << bit & 0x80 != 0));
    Ok(all.take(count).collect())
}

fn numbers(cursor: &mut Cursor<'_>) -> Result<Vec<u64>, DecodeError> {
    let mut numbers = Vec::new();
    while !cursor.is_empty() {
        numbers.push(cursor.lenenc("number")?);
    }
    Ok(numbers)
}

fn default_collations(cursor: &mut Cursor<'_>) -> Result<Collations, DecodeError> {
    let default = cursor.lenenc("default collation")?;
    let mut others = Vec::new();
    while !cursor.is_empty() {
        others.push((cursor.lenenc("column")?, cursor.lenenc("collation")?));
    }
    Ok(Collations::Default(default, others))
}

fn labels<'a>(cursor: &mut Cursor<'a>) -> Result<Vec<Vec<&'a [u8]>>, DecodeError> {
    let mut columns = Vec::new();
    while !cursor.is_empty() {
        let count = cursor.lenenc("number of labels")?;
        // Each label takes a byte at least.
        if count > cursor.len() as u64 {
            return Err(cursor.error("number of labels", Problem::TooMany(count)));
        }
        columns.push((0..count).map(|_| cursor.lenenc_bytes("label")).collect::<Result<_, _>>()?);
    }
    Ok(columns)
}
