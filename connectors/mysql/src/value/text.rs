//! Text as a JSON string.

use headgate_sdk::{Unwritable, json};

/// Why bytes are not text.
pub(crate) const NOT_UTF8: Unwritable = Unwritable {
    reason: "the value is not UTF-8, which its character set is: it was damaged or stored by force",
};

/// Writes `raw` as a JSON string.
///
/// # Errors
/// `raw` is not UTF-8.
#[inline]
pub(crate) fn write(raw: &[u8], out: &mut Vec<u8>) -> Result<(), Unwritable> {
    json::write_text(raw, out).ok_or(NOT_UTF8)
}
