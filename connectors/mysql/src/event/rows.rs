//! WRITE_ROWS, UPDATE_ROWS, DELETE_ROWS and PARTIAL_UPDATE_ROWS: the rows, of both versions and compressed by MariaDB.
//!
//! A row is cut into cells that borrow the event; nothing is copied or allocated for it. The only exceptions are
//! compressed events and partial updates of JSON, which are first made into plain ones.
//!
//! <https://dev.mysql.com/doc/dev/mysql-server/latest/classbinary__log_1_1Rows__event.html>

use super::{
    compressed,
    cursor::{Cursor, DecodeError, Problem},
    header::kind,
    table_map::MAX_COLUMNS,
};
use crate::{
    json::partial,
    table::{Layout, Table},
};
use headgate_sdk::Cell;
use std::borrow::Cow;

/// What happened to the rows of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowChange {
    /// They were inserted; there are new images only.
    Write,
    /// They were updated; there are old and new images.
    Update,
    /// They were deleted; there are old images only.
    Delete,
}

/// Rows of one table that one statement changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rows<'a> {
    /// The table, by the number of its TABLE_MAP.
    pub table_id: u64,
    /// What happened to the rows.
    pub change: RowChange,
    /// Whether these are the last rows of the statement; numbers of tables are not valid beyond.
    pub end_of_statement: bool,
    /// Whether new images hold changes of JSON documents instead of documents.
    partial: bool,
    columns: u64,
    /// Which columns the first image of a row has, a bit for each.
    first: &'a [u8],
    /// Which columns the second image has; only for updates.
    second: &'a [u8],
    data: Cow<'a, [u8]>,
}

/// The number of the table that a server uses for an event with the flag alone.
const NO_TABLE: u64 = 0x00ff_ffff;

/// Flag of the last rows of a statement (`STMT_END_F`).
const END_OF_STATEMENT: u16 = 1;

impl<'a> Rows<'a> {
    pub(super) fn decode(event: u8, body: &'a [u8]) -> Result<Self, DecodeError> {
        let mut cursor = Cursor::new(body, "ROWS");
        let (change, extra, compressed) = match event {
            kind::WRITE_ROWS => (RowChange::Write, true, false),
            kind::UPDATE_ROWS | kind::PARTIAL_UPDATE_ROWS => (RowChange::Update, true, false),
            kind::DELETE_ROWS => (RowChange::Delete, true, false),
            kind::WRITE_ROWS_V1 => (RowChange::Write, false, false),
            kind::UPDATE_ROWS_V1 => (RowChange::Update, false, false),
            kind::DELETE_ROWS_V1 => (RowChange::Delete, false, false),
            kind::MARIADB_WRITE_ROWS_COMPRESSED_V1 => (RowChange::Write, false, true),
            kind::MARIADB_UPDATE_ROWS_COMPRESSED_V1 => (RowChange::Update, false, true),
            kind::MARIADB_DELETE_ROWS_COMPRESSED_V1 => (RowChange::Delete, false, true),
            kind::MARIADB_WRITE_ROWS_COMPRESSED => (RowChange::Write, true, true),
            kind::MARIADB_UPDATE_ROWS_COMPRESSED => (RowChange::Update, true, true),
            kind::MARIADB_DELETE_ROWS_COMPRESSED => (RowChange::Delete, true, true),
            kind => return Err(cursor.error("type", Problem::Unknown(kind.into()))),
        };
        let table_id = cursor.u48("table")?;
        let flags = cursor.u16("flags")?;
        if extra {
            // The length counts itself. What is in it (partitions, an application's own data) changes no row.
            let len = cursor.u16("length of extra data")?;
            let Some(len) = len.checked_sub(2) else {
                return Err(cursor.error("length of extra data", Problem::Contradiction));
            };
            cursor.bytes(len.into(), "extra data")?;
        }
        let columns = cursor.lenenc("number of columns")?;
        if columns > MAX_COLUMNS {
            return Err(cursor.error("number of columns", Problem::TooMany(columns)));
        }
        let first = cursor.bytes(columns.div_ceil(8), "columns of the first image")?;
        let second = match change {
            RowChange::Update => cursor.bytes(columns.div_ceil(8), "columns of the second image")?,
            RowChange::Write | RowChange::Delete => &[],
        };
        let data = cursor.take();
        let data = if compressed && !data.is_empty() {
            Cow::Owned(compressed::inflate(data, "compressed ROWS")?)
        } else {
            Cow::Borrowed(data)
        };
        Ok(Self {
            table_id,
            change,
            end_of_statement: flags & END_OF_STATEMENT != 0,
            partial: event == kind::PARTIAL_UPDATE_ROWS,
            columns,
            first,
            second,
            data,
        })
    }

    /// Whether there is no row: the server only says that a statement ends.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.data.is_empty() || self.table_id == NO_TABLE
    }

    /// Whether rows were written of which the log has no column, and so not even their number: an insert of nothing but
    /// defaults with `binlog_row_image = MINIMAL`.
    #[must_use]
    pub fn is_void(&self) -> bool {
        self.change == RowChange::Write
            && self.table_id != NO_TABLE
            && self.data.is_empty()
            && self.first.iter().all(|byte| *byte == 0)
    }

    /// Reads the rows. `scratch` is used where the event has changes of JSON documents; what it held before is gone.
    ///
    /// # Errors
    /// The event does not fit the table, or holds a change of JSON that does not fit the document.
    pub fn read<'r>(
        &'r self,
        table: &'r Table,
        scratch: &'r mut Vec<u8>,
    ) -> Result<RowReader<'r>, DecodeError> {
        let data = if self.partial {
            scratch.clear();
            partial::expand(self, table, scratch)?;
            scratch
        } else {
            &*self.data
        };
        let reader = self.reader(table, data)?;
        Ok(RowReader { expanded: self.partial, ..reader })
    }

    /// Reads `data` as rows of this event.
    pub(crate) fn reader<'r>(&self, table: &'r Table, data: &'r [u8]) -> Result<RowReader<'r>, DecodeError>
    where
        'a: 'r,
    {
        let cursor = Cursor::new(data, "ROWS");
        if self.columns != table.layouts().len() as u64 {
            return Err(cursor.error("number of columns", Problem::Contradiction));
        }
        Ok(RowReader {
            layouts: table.layouts(),
            change: self.change,
            first: self.first,
            second: self.second,
            first_null_bytes: present(self.first, table).div_ceil(8),
            second_null_bytes: present(self.second, table).div_ceil(8),
            keeps: present(self.second, table) < table.layouts().len() as u64,
            expanded: false,
            cursor,
        })
    }

    /// The bytes of the rows as they are in the log.
    pub(crate) fn data(&self) -> &[u8] {
        &self.data
    }
}

/// How many columns an image has.
fn present(bitmap: &[u8], table: &Table) -> u64 {
    (0..table.layouts().len()).filter(|&at| has(bitmap, at)).count() as u64
}

/// Whether a bit is set, the lowest of each byte first.
#[inline]
pub(crate) fn has(bitmap: &[u8], at: usize) -> bool {
    bitmap.get(at / 8).is_some_and(|byte| byte >> (at % 8) & 1 != 0)
}

/// Room for the images of one row, kept from row to row so that a row costs no allocation.
#[derive(Debug, Default)]
pub struct Images<'a> {
    /// The old row: one cell a column; columns that the log left out are unavailable. Empty for a write.
    pub before: Vec<Cell<'a>>,
    /// The new row, likewise. Empty for a delete. What the log has of the old row alone has not changed, and is here too.
    pub after: Vec<Cell<'a>>,
}

impl Images<'_> {
    /// The same room, empty, for rows that live longer or shorter than the last ones.
    #[must_use]
    pub fn recycle<'b>(self) -> Images<'b> {
        Images { before: recycle(self.before), after: recycle(self.after) }
    }
}

/// An empty vector over the same memory: collecting a vector's own iterator keeps its allocation.
#[inline]
fn recycle<'b>(mut cells: Vec<Cell<'_>>) -> Vec<Cell<'b>> {
    cells.clear();
    cells.into_iter().map(|_| Cell::Null).collect()
}

/// The rows of an event, one after the other.
#[derive(Clone, Debug)]
pub struct RowReader<'r> {
    pub(crate) cursor: Cursor<'r>,
    pub(crate) layouts: &'r [Layout],
    change: RowChange,
    first: &'r [u8],
    second: &'r [u8],
    first_null_bytes: u64,
    second_null_bytes: u64,
    /// Whether second images lack columns.
    keeps: bool,
    /// Whether changes of JSON were made into documents, of which some may be missing.
    expanded: bool,
}

impl<'r> RowReader<'r> {
    /// Reads the next row into `images`; `false` at the end.
    ///
    /// # Errors
    /// The event ends inside the row. Nothing more can be read then.
    #[inline]
    pub fn next_row(&mut self, images: &mut Images<'r>) -> Result<bool, DecodeError> {
        images.before.clear();
        images.after.clear();
        if self.cursor.is_empty() {
            return Ok(false);
        }
        // A table without any column in its images would never end.
        if self.first_null_bytes == 0 && self.second_null_bytes == 0 {
            return Err(self.cursor.error("columns of the images", Problem::Contradiction));
        }
        match self.change {
            RowChange::Write => self.first(&mut images.after)?,
            RowChange::Delete => self.first(&mut images.before)?,
            RowChange::Update => {
                self.first(&mut images.before)?;
                self.second(&mut images.after)?;
                if self.keeps {
                    keep(&images.before, &mut images.after, self.second);
                }
            }
        }
        Ok(true)
    }

    /// Reads the first image of a row.
    #[inline]
    pub(crate) fn first(&mut self, cells: &mut Vec<Cell<'r>>) -> Result<(), DecodeError> {
        image(&mut self.cursor, self.layouts, self.first, self.first_null_bytes, cells)
    }

    fn second(&mut self, cells: &mut Vec<Cell<'r>>) -> Result<(), DecodeError> {
        image(&mut self.cursor, self.layouts, self.second, self.second_null_bytes, cells)?;
        if self.expanded {
            for cell in cells {
                if *cell == Cell::Value(partial::MISSING) {
                    *cell = Cell::Unavailable;
                }
            }
        }
        Ok(())
    }

    /// Which columns the second image has, and the bytes of its null bits.
    pub(crate) fn second_image(&self) -> (&'r [u8], u64) {
        (self.second, self.second_null_bytes)
    }
}

/// Completes a new row with what its image leaves out and the old row's image has: it has not changed.
fn keep<'r>(before: &[Cell<'r>], after: &mut [Cell<'r>], present: &[u8]) {
    for (at, (old, new)) in before.iter().zip(after).enumerate() {
        if !has(present, at) {
            *new = *old;
        }
    }
}

/// Reads one image.
#[inline]
fn image<'r>(
    cursor: &mut Cursor<'r>,
    layouts: &[Layout],
    present: &[u8],
    null_bytes: u64,
    cells: &mut Vec<Cell<'r>>,
) -> Result<(), DecodeError> {
    let nulls = cursor.bytes(null_bytes, "null bits")?;
    cells.reserve(layouts.len());
    // The null bits count only the columns that are there.
    let mut nth = 0;
    for (at, layout) in layouts.iter().enumerate() {
        if !has(present, at) {
            cells.push(Cell::Unavailable);
            continue;
        }
        let null = has(nulls, nth);
        nth += 1;
        cells.push(if null { Cell::Null } else { Cell::Value(layout.read(cursor)?) });
    }
    Ok(())
}
