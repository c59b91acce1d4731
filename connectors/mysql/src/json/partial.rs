//! Partial updates (`binlog_row_value_options = PARTIAL_JSON`): changes of documents made into documents.
//!
//! The old row holds the document before, as long as the row image is FULL. A partial event is rewritten as the plain event that
//! the server would have written otherwise, but for the new documents, which are texts, with the paths of the changes before them, behind
//! a byte that no binary document begins with. Where the old document is not in the log, the new one cannot be known: it is missing, and said to be.
//!
//! <https://dev.mysql.com/doc/dev/mysql-server/latest/classJson__diff.html>

use super::tree::{self, Node};
use crate::{
    event::{Cursor, DecodeError, Problem, Rows, has},
    table::Table,
    value::Kind,
};
use headgate_sdk::{Cell, Unwritable};

/// The first byte of a document that is a text. Then come the length of the paths, in four bytes, the paths, and the text.
const TEXT: u8 = 0xff;

/// What stands for a document that cannot be known.
pub(crate) const MISSING: &[u8] = &[0xfe];

/// Option of an image that it may hold changes of documents.
const PARTIAL_JSON: u64 = 1;

/// What a change does.
mod operation {
    pub(super) const REPLACE: u8 = 0;
    pub(super) const INSERT: u8 = 1;
    pub(super) const REMOVE: u8 = 2;
}

/// A document that was put together here.
pub(crate) struct Text<'a> {
    /// The paths of its changes, a JSON array of strings.
    pub(crate) paths: &'a [u8],
    pub(crate) document: &'a [u8],
}

/// Reads a document that was put together here; `None`: it is another one.
#[inline]
pub(crate) fn text(raw: &[u8]) -> Option<Text<'_>> {
    let (length, rest) = raw.strip_prefix(&[TEXT])?.split_first_chunk()?;
    let (paths, document) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
    Some(Text { paths, document })
}

/// Appends the rows of a partial event as those of a plain one.
pub(crate) fn expand(rows: &Rows<'_>, table: &Table, out: &mut Vec<u8>) -> Result<(), DecodeError> {
    let data = rows.data();
    let mut reader = rows.reader(table, data)?;
    let (present, null_bytes) = reader.second_image();
    let documents = table.kinds().iter().filter(|kind| **kind == Kind::Json).count() as u64;
    let mut before = Vec::new();
    while !reader.cursor.is_empty() {
        before.clear();
        let start = data.len() - reader.cursor.len();
        reader.first(&mut before)?;
        let cursor = &mut reader.cursor;
        let end = data.len() - cursor.len();
        out.extend_from_slice(data.get(start..end).unwrap_or_default());
        let changed = match cursor.lenenc("options of an image")? {
            0 => &[],
            PARTIAL_JSON => cursor.bytes(documents.div_ceil(8), "changed documents")?,
            options => return Err(cursor.error("options of an image", Problem::Unknown(options))),
        };
        let nulls = cursor.bytes(null_bytes, "null bits")?;
        out.extend_from_slice(nulls);
        let (mut nth, mut document) = (0, 0);
        for (at, (layout, kind)) in reader.layouts.iter().zip(table.kinds()).enumerate() {
            let is_document = *kind == Kind::Json;
            let partial = is_document && has(changed, document);
            document += usize::from(is_document);
            if !has(present, at) {
                continue;
            }
            let null = has(nulls, nth);
            nth += 1;
            if null {
                continue;
            }
            let from = data.len() - cursor.len();
            let value = layout.read(cursor)?;
            if partial {
                let place = out.len();
                out.extend_from_slice(&[0; 4]);
                document_after(before.get(at), value, out)
                    .map_err(|_| cursor.error("document", Problem::Json))?;
                let len = u32::try_from(out.len() - place - 4)
                    .map_err(|_| cursor.error("document", Problem::TooMany(u64::MAX)))?;
                if let Some(prefix) = out.get_mut(place..place + 4) {
                    prefix.copy_from_slice(&len.to_le_bytes());
                }
            } else {
                let to = data.len() - cursor.len();
                out.extend_from_slice(data.get(from..to).unwrap_or_default());
            }
        }
    }
    Ok(())
}

/// Appends what some changes make of the document before.
fn document_after(before: Option<&Cell<'_>>, changes: &[u8], out: &mut Vec<u8>) -> Result<(), Unwritable> {
    let before = match before {
        Some(Cell::Value(before)) => before,
        Some(Cell::Unavailable) => {
            out.extend_from_slice(MISSING);
            return Ok(());
        }
        Some(Cell::Null) | None => return Err(super::DAMAGED),
    };
    // A document beside the one that was changed.
    if changes.is_empty() {
        out.extend_from_slice(before);
        return Ok(());
    }
    let mut document = Node::read(before)?;
    out.push(TEXT);
    let place = out.len();
    out.extend_from_slice(&[0; 4]);
    apply(&mut document, changes, out).ok_or(super::DAMAGED)?;
    let length = u32::try_from(out.len() - place - 4).map_err(|_| super::DAMAGED)?;
    if let Some(prefix) = out.get_mut(place..place + 4) {
        prefix.copy_from_slice(&length.to_le_bytes());
    }
    document.write(out)
}

/// Applies changes, each after the other, and appends their paths.
fn apply(document: &mut Node, changes: &[u8], paths: &mut Vec<u8>) -> Option<()> {
    let mut cursor = Cursor::new(changes, "PARTIAL_UPDATE_ROWS");
    let mut separator = b'[';
    while !cursor.is_empty() {
        let operation = cursor.u8("operation").ok()?;
        let path = cursor.lenenc_bytes("path").ok()?;
        paths.push(std::mem::replace(&mut separator, b','));
        serde_json::to_writer(&mut *paths, std::str::from_utf8(path).ok()?).ok()?;
        let path = tree::steps(path)?;
        let mut value = || Node::read(cursor.lenenc_bytes("value").ok()?).ok();
        match operation {
            operation::REPLACE => document.replace(&path, value()?)?,
            operation::INSERT => document.insert(&path, value()?)?,
            operation::REMOVE => document.remove(&path)?,
            _ => return None,
        }
    }
    paths.push(b']');
    Some(())
}
