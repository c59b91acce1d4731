//! JSON that is a text already: MariaDB's, and what a query prints.

use crate::value::{Charset, text};
use headgate_sdk::Unwritable;
use serde::de::IgnoredAny;
use std::borrow::Cow;

/// Writes JSON as it is, digit for digit.
///
/// The server has checked it when it was stored. It is checked again, because one bad byte here would spoil the event around
/// it: one pass that builds nothing. What is no JSON after all is a string.
pub(crate) fn write(charset: Charset, raw: &[u8], out: &mut Vec<u8>) -> Result<(), Unwritable> {
    let json = match charset {
        Charset::Utf8 => Cow::Borrowed(std::str::from_utf8(raw).map_err(|_| text::NOT_UTF8)?),
        other => Cow::Owned(other.decode(raw)?),
    };
    if serde_json::from_str::<IgnoredAny>(&json).is_err() {
        return text::write(json.as_bytes(), out);
    }
    out.extend_from_slice(json.as_bytes());
    Ok(())
}
