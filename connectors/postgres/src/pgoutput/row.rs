//! Insert, Update and Delete: the rows.
//!
//! <https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html>

use super::{
    MAX_COLUMNS,
    cursor::{Cursor, DecodeError, Problem},
};
use headgate_sdk::Cell;

/// Room for the row images of one message, kept from message to message so that a row costs no allocation.
#[derive(Debug, Default)]
pub struct Images<'a> {
    /// The old row, or what the replica identity keeps of it.
    pub old: Vec<Cell<'a>>,
    /// The new row.
    pub new: Vec<Cell<'a>>,
}

impl Images<'_> {
    /// The same room, empty, for a message that lives longer or shorter than the last one.
    #[must_use]
    pub fn recycle<'b>(self) -> Images<'b> {
        Images { old: recycle(self.old), new: recycle(self.new) }
    }
}

/// An empty vector over the same memory: collecting a vector's own iterator keeps its allocation.
#[inline]
fn recycle<'b>(mut cells: Vec<Cell<'_>>) -> Vec<Cell<'b>> {
    cells.clear();
    cells.into_iter().map(|_| Cell::Null).collect()
}

/// What a message holds of the old row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OldImage {
    /// The columns of the replica identity. All others are there too, as NULL, and mean nothing.
    Key,
    /// The whole row.
    Full,
}

/// A row was inserted; [`Images::new`] holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Insert {
    /// OID of the table.
    pub relation: u32,
}

impl Insert {
    #[inline]
    pub(super) fn decode<'a>(cursor: &mut Cursor<'a>, images: &mut Images<'a>) -> Result<Self, DecodeError> {
        let relation = cursor.u32("relation")?;
        match cursor.u8("kind of tuple")? {
            b'N' => tuple(cursor, &mut images.new)?,
            kind => return Err(cursor.error("kind of tuple", Problem::Unknown(kind))),
        }
        Ok(Self { relation })
    }
}

/// A row was updated; [`Images::new`] holds the new row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Update {
    /// OID of the table.
    pub relation: u32,
    /// What [`Images::old`] holds, if anything: a key only where it changed.
    pub old: Option<OldImage>,
}

impl Update {
    pub(super) fn decode<'a>(cursor: &mut Cursor<'a>, images: &mut Images<'a>) -> Result<Self, DecodeError> {
        let relation = cursor.u32("relation")?;
        let mut kind = cursor.u8("kind of tuple")?;
        let old = match kind {
            b'K' => Some(OldImage::Key),
            b'O' => Some(OldImage::Full),
            _ => None,
        };
        if old.is_some() {
            tuple(cursor, &mut images.old)?;
            kind = cursor.u8("kind of new tuple")?;
        }
        match kind {
            b'N' => tuple(cursor, &mut images.new)?,
            kind => return Err(cursor.error("kind of tuple", Problem::Unknown(kind))),
        }
        Ok(Self { relation, old })
    }
}

/// A row was deleted; [`Images::old`] holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delete {
    /// OID of the table.
    pub relation: u32,
    /// What [`Images::old`] holds.
    pub old: OldImage,
}

impl Delete {
    pub(super) fn decode<'a>(cursor: &mut Cursor<'a>, images: &mut Images<'a>) -> Result<Self, DecodeError> {
        let relation = cursor.u32("relation")?;
        let old = match cursor.u8("kind of tuple")? {
            b'K' => OldImage::Key,
            b'O' => OldImage::Full,
            kind => return Err(cursor.error("kind of tuple", Problem::Unknown(kind))),
        };
        tuple(cursor, &mut images.old)?;
        Ok(Self { relation, old })
    }
}

/// Reads a tuple into `cells`.
#[inline]
fn tuple<'a>(cursor: &mut Cursor<'a>, cells: &mut Vec<Cell<'a>>) -> Result<(), DecodeError> {
    let columns = cursor.u16("number of columns")?;
    if columns > MAX_COLUMNS {
        return Err(cursor.error("number of columns", Problem::TooMany(columns.into())));
    }
    cells.clear();
    cells.reserve(columns.into());
    for _ in 0..columns {
        cells.push(match cursor.u8("kind of value")? {
            b't' => {
                let len = cursor.u32("length of value")?;
                Cell::Value(cursor.bytes(len, "value")?)
            }
            b'n' => Cell::Null,
            // An unchanged value that is stored out of line: the log does not repeat it.
            b'u' => Cell::Unavailable,
            b'b' => return Err(cursor.error("kind of value", Problem::Binary)),
            kind => return Err(cursor.error("kind of value", Problem::Unknown(kind))),
        });
    }
    Ok(())
}
