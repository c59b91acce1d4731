//! GTID_TAGGED: a GTID with a tag, in MySQL's own serialization format (8.3 and later).
//!
//! <https://dev.mysql.com/doc/dev/mysql-server/latest/PageLibsMysqlSerialization.html>

use super::{
    Gtid,
    cursor::{Cursor, DecodeError, Problem},
};
use crate::gtid::mysql::{MAX_NUMBER, Source, Tag, Uuid};

/// The serialization's version.
const VERSION: u64 = 1;

/// The fields of the message, by their ids.
mod field {
    pub(super) const FLAGS: u64 = 0;
    pub(super) const UUID: u64 = 1;
    pub(super) const NUMBER: u64 = 2;
    pub(super) const TAG: u64 = 3;
    pub(super) const LAST_COMMITTED: u64 = 4;
    pub(super) const SEQUENCE_NUMBER: u64 = 5;
    pub(super) const IMMEDIATE_COMMIT: u64 = 6;
    pub(super) const ORIGINAL_COMMIT: u64 = 7;
    pub(super) const LENGTH: u64 = 8;
    pub(super) const IMMEDIATE_VERSION: u64 = 9;
    pub(super) const ORIGINAL_VERSION: u64 = 10;
    pub(super) const TICKET: u64 = 11;
}

/// Decodes the body.
pub(super) fn decode(body: &[u8]) -> Result<Gtid, DecodeError> {
    let mut cursor = Cursor::new(body, "GTID_TAGGED");
    match varlen(&mut cursor, "version")? {
        VERSION => {}
        version => return Err(cursor.error("version", Problem::Unknown(version))),
    }
    let size = varlen(&mut cursor, "size")?;
    if size != body.len() as u64 {
        return Err(cursor.error("size", Problem::Contradiction));
    }
    // Fields up to this one may not be left out by a reader that does not know them.
    let last_needed = varlen(&mut cursor, "last field that may not be ignored")?;
    if last_needed > field::TICKET + 1 {
        return Err(cursor.error("last field that may not be ignored", Problem::Unknown(last_needed)));
    }
    let (mut uuid, mut number, mut tag) = (None, None, None);
    let mut gtid = Gtid { id: None, immediate_commit: None, original_commit: None, length: None, flags: 0 };
    while !cursor.is_empty() {
        match varlen(&mut cursor, "field")? {
            field::FLAGS => {
                let flags = varlen(&mut cursor, "flags")?;
                gtid.flags =
                    u8::try_from(flags).map_err(|_| cursor.error("flags", Problem::Unknown(flags)))?;
            }
            field::UUID => {
                let mut bytes = [0; 16];
                for byte in &mut bytes {
                    let value = varlen(&mut cursor, "server uuid")?;
                    *byte = u8::try_from(value)
                        .map_err(|_| cursor.error("server uuid", Problem::Unknown(value)))?;
                }
                uuid = Some(Uuid::new(bytes));
            }
            field::NUMBER => number = Some(signed(&mut cursor, "number")?),
            field::TAG => {
                let len = varlen(&mut cursor, "length of tag")?;
                let bytes = cursor.bytes(len, "tag")?;
                let parsed = Tag::from_bytes(bytes);
                tag = Some(parsed.ok_or_else(|| cursor.error("tag", Problem::Contradiction))?);
            }
            field::LAST_COMMITTED | field::SEQUENCE_NUMBER => {
                signed(&mut cursor, "logical timestamp")?;
            }
            field::IMMEDIATE_COMMIT => gtid.immediate_commit = Some(varlen(&mut cursor, "commit timestamp")?),
            field::ORIGINAL_COMMIT => gtid.original_commit = Some(varlen(&mut cursor, "commit timestamp")?),
            field::LENGTH => gtid.length = Some(varlen(&mut cursor, "length of the transaction")?),
            field::IMMEDIATE_VERSION | field::ORIGINAL_VERSION | field::TICKET => {
                varlen(&mut cursor, "server version")?;
            }
            // The length of a field that is not known is not known either: what follows is nothing that had to be read.
            unknown if unknown >= last_needed => break,
            unknown => return Err(cursor.error("field", Problem::Unknown(unknown))),
        }
    }
    // Where both times are the same only one is written.
    gtid.original_commit = gtid.original_commit.or(gtid.immediate_commit);
    let (Some(uuid), Some(number)) = (uuid, number) else {
        return Err(cursor.error("server uuid and number", Problem::Short));
    };
    let number = u64::try_from(number).ok().filter(|number| (1..=MAX_NUMBER).contains(number));
    let number = number.ok_or_else(|| cursor.error("number", Problem::Contradiction))?;
    let source = Source { uuid, tag: tag.unwrap_or_default() };
    gtid.id = Some(crate::gtid::mysql::Gtid { source, number });
    Ok(gtid)
}

/// A number of 1 to 9 bytes: the lowest bits of the first byte, as far as they are set, count the bytes after it.
pub(super) fn varlen(cursor: &mut Cursor<'_>, field: &'static str) -> Result<u64, DecodeError> {
    let first = cursor.u8(field)?;
    let more = first.trailing_ones();
    if more == u8::BITS {
        return cursor.u64(field);
    }
    let rest = cursor.bytes(more.into(), field)?;
    let mut bytes = [0; 8];
    bytes[0] = first;
    for (to, from) in bytes[1..].iter_mut().zip(rest) {
        *to = *from;
    }
    Ok(u64::from_le_bytes(bytes) >> (more + 1))
}

/// A signed number: its lowest bit is the sign.
fn signed(cursor: &mut Cursor<'_>, field: &'static str) -> Result<i64, DecodeError> {
    let number = varlen(cursor, field)?;
    let magnitude = (number >> 1).cast_signed();
    Ok(if number & 1 == 0 { magnitude } else { -magnitude - 1 })
}
