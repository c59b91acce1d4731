//! Message: what an application wrote into the log with `pg_logical_emit_message`.
//!
//! <https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html>

use super::cursor::{Cursor, DecodeError, Problem};

/// An application's message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Logical<'a> {
    /// Whether it belongs to the transaction around it. Otherwise it was sent at once, whatever became of its writer.
    pub transactional: bool,
    /// LSN after the message's own record.
    pub end_lsn: u64,
    /// The application's name for this kind of message; U+FFFD where that is not UTF-8 (in a database of SQL_ASCII).
    pub prefix: &'a str,
    /// What it wrote.
    pub content: &'a [u8],
}

/// Stands for a prefix that is not UTF-8.
const UNREADABLE: &str = "\u{fffd}";

impl<'a> Logical<'a> {
    pub(super) fn decode(cursor: &mut Cursor<'a>) -> Result<Self, DecodeError> {
        let message = Self::decode_head(cursor)?;
        let len = cursor.u32("length of content")?;
        Ok(Self { content: cursor.bytes(len, "content")?, ..message })
    }

    /// Everything before the content.
    fn decode_head(cursor: &mut Cursor<'a>) -> Result<Self, DecodeError> {
        let transactional = match cursor.u8("flags")? {
            0 => false,
            1 => true,
            flags => return Err(cursor.error("flags", Problem::Unknown(flags))),
        };
        let end_lsn = cursor.u64("LSN")?;
        // Anybody may write a message: its name must not be able to stop the source.
        let prefix = match cursor.name("prefix") {
            Err(DecodeError { problem: Problem::NotUtf8, .. }) => UNREADABLE,
            prefix => prefix?,
        };
        Ok(Self { transactional, end_lsn, prefix, content: &[] })
    }
}

/// What the first bytes of a payload tell, where the rest of it was too large to be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Head<'a> {
    /// A row of this relation.
    Row {
        /// OID of the table.
        relation: u32,
    },
    /// An application's message, without its content.
    Logical(Logical<'a>),
}

/// Decodes the head of a payload.
///
/// # Errors
/// The payload is neither a row nor an application's message, or its head is not whole.
pub fn decode_head(head: &[u8]) -> Result<Head<'_>, DecodeError> {
    let (&tag, body) =
        head.split_first().ok_or(DecodeError { message: "empty", field: "tag", problem: Problem::Short })?;
    match tag {
        b'I' | b'U' | b'D' => Ok(Head::Row { relation: Cursor::new(body, "row").u32("relation")? }),
        b'M' => Logical::decode_head(&mut Cursor::new(body, "Message")).map(Head::Logical),
        tag => Err(DecodeError { message: "oversized", field: "tag", problem: Problem::Unknown(tag) }),
    }
}
