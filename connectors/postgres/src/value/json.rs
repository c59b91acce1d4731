//! json and jsonb: the JSON itself, digit for digit.

use super::{Parsed, text::NOT_UTF8};
use serde::de::IgnoredAny;

/// Writes JSON as it is.
///
/// The server has checked it when it was stored. It is checked again, because one bad byte here would spoil the event
/// around it: one pass that builds nothing.
pub(super) fn write(raw: &[u8], out: &mut Vec<u8>) -> Parsed {
    let text = std::str::from_utf8(raw).map_err(|_| NOT_UTF8)?;
    if serde_json::from_str::<IgnoredAny>(text).is_err() {
        return Ok(false);
    }
    out.extend_from_slice(raw);
    Ok(true)
}
