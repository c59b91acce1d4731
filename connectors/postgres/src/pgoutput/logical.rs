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
    /// The application's name for this kind of message.
    pub prefix: &'a str,
    /// What it wrote.
    pub content: &'a [u8],
}

impl<'a> Logical<'a> {
    pub(super) fn decode(cursor: &mut Cursor<'a>) -> Result<Self, DecodeError> {
        let transactional = match cursor.u8("flags")? {
            0 => false,
            1 => true,
            flags => return Err(cursor.error("flags", Problem::Unknown(flags))),
        };
        let end_lsn = cursor.u64("LSN")?;
        let prefix = cursor.name("prefix")?;
        let len = cursor.u32("length of content")?;
        Ok(Self { transactional, end_lsn, prefix, content: cursor.bytes(len, "content")? })
    }
}
