//! Text as a JSON string.

use headgate_sdk::{Unwritable, json};

/// Why bytes are not text.
pub(super) const NOT_UTF8: Unwritable = Unwritable {
    reason: "the value is not UTF-8 (the database's encoding is SQL_ASCII, or the value was damaged)",
};

/// Writes `raw` as a JSON string.
///
/// # Errors
/// `raw` is not UTF-8.
#[inline]
pub(super) fn write(raw: &[u8], out: &mut Vec<u8>) -> Result<(), Unwritable> {
    json::write_text(raw, out).ok_or(NOT_UTF8)
}

/// Writes a name as a JSON string.
pub(super) fn write_name(name: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    json::escape(name, out);
    out.push(b'"');
}
