//! MariaDB's compressed events (`log_bin_compress`): a head, then zlib.
//!
//! The head is one byte (0x80, the algorithm in bits 4 to 6, the number of length bytes in bits 0 to 2) and the length of the
//! plain bytes, big-endian. Compressed columns have a head of their own.

use super::cursor::{Cursor, DecodeError, Problem};
use flate2::read::{DeflateDecoder, ZlibDecoder};
use std::io::Read;

/// Most bytes that anything is inflated to: the largest `max_allowed_packet`. A server cannot have written more.
pub const MAX_INFLATED: u64 = 1 << 30;

/// The plain bytes of a compressed part of an event.
pub(super) fn inflate(bytes: &[u8], event: &'static str) -> Result<Vec<u8>, DecodeError> {
    let mut cursor = Cursor::new(bytes, event);
    let head = cursor.u8("head of compressed bytes")?;
    if head & 0xf0 != 0x80 {
        return Err(cursor.error("compression algorithm", Problem::Unknown(head.into())));
    }
    let mut len = 0;
    for byte in cursor.bytes((head & 0x07).into(), "length of plain bytes")? {
        len = len << 8 | u64::from(*byte);
    }
    inflated(ZlibDecoder::new(cursor.take()), len)
        .map_err(|problem| cursor.error("compressed bytes", problem))
}

/// Inflates to exactly `len` bytes, without trusting `len` for memory.
fn inflated(source: impl Read, len: u64) -> Result<Vec<u8>, Problem> {
    if len > MAX_INFLATED {
        return Err(Problem::TooMany(len));
    }
    let mut plain = Vec::new();
    let read = source.take(len + 1).read_to_end(&mut plain).map_err(|_| Problem::Compression)?;
    if read as u64 == len { Ok(plain) } else { Err(Problem::Compression) }
}

/// The plain bytes of a value of a MariaDB `COMPRESSED` column.
///
/// Its first byte is 0 where the value is stored as it is. Otherwise bits 4 to 7 are the method (8 is zlib), bit 3 says that
/// there is no zlib header around the deflated bytes, and bits 0 to 2 count the bytes of the length, big-endian.
pub(crate) fn inflate_column(raw: &[u8]) -> Option<Vec<u8>> {
    let Some((&head, rest)) = raw.split_first() else { return Some(Vec::new()) };
    if head == 0 {
        return Some(rest.to_vec());
    }
    if head >> 4 != 8 {
        return None;
    }
    let (length, deflated) = rest.split_at_checked((head & 0x07).into())?;
    let len = length.iter().fold(0, |len, &byte| len << 8 | u64::from(byte));
    let plain = if head & 0x08 == 0 {
        inflated(ZlibDecoder::new(deflated), len)
    } else {
        inflated(DeflateDecoder::new(deflated), len)
    };
    plain.ok()
}
