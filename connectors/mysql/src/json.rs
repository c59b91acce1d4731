//! MySQL's binary JSON as JSON text, and the changes of documents that the log may carry instead of documents.
//!
//! The text is the one that the server itself prints, byte for byte: its order of members, its spaces, its numbers, and
//! dates, decimals and other SQL values inside a document as the server shows them. So a snapshot brings the same bytes.
//!
//! The form: <https://dev.mysql.com/doc/dev/mysql-server/latest/json__binary_8h.html>

mod binary;
pub(crate) mod partial;
mod scalar;
#[cfg(test)]
mod tests;
pub(crate) mod text;
mod tree;

use binary::{Budget, Container, Value};
use headgate_sdk::Unwritable;
use serde::de::IgnoredAny;

/// Why a document cannot be written.
pub(crate) const DAMAGED: Unwritable =
    Unwritable { reason: "the value is not a JSON document in MySQL's binary form" };

/// The deepest nesting that the server stores.
const MAX_DEPTH: usize = 100;

/// Writes a document. One that [`partial`] put together is a text already.
#[inline]
pub(crate) fn write(raw: &[u8], out: &mut Vec<u8>) -> Result<(), Unwritable> {
    if let Some(text) = partial::text(raw) {
        out.extend_from_slice(json_text(text.document).ok_or(DAMAGED)?.as_bytes());
        return Ok(());
    }
    match raw.split_first() {
        // What `INSERT IGNORE` leaves of a text that is no JSON.
        None => {
            out.extend_from_slice(b"null");
            Ok(())
        }
        Some((&kind, body)) => {
            let mut budget = Budget::new(raw.len());
            write_value(&Value::read(kind, body)?, MAX_DEPTH, &mut budget, out)
        }
    }
}

/// The paths of the changes in a document that [`partial`] put together.
pub(crate) fn paths(raw: &[u8]) -> Option<&str> {
    json_text(partial::text(raw)?.paths)
}

/// What is JSON. A damaged document could begin like one that was put together, and what is skipped in bytes need not be UTF-8.
fn json_text(text: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(text).ok()?;
    serde_json::from_str::<IgnoredAny>(text).ok()?;
    Some(text)
}

fn write_value(
    value: &Value<'_>,
    depth: usize,
    budget: &mut Budget,
    out: &mut Vec<u8>,
) -> Result<(), Unwritable> {
    match value {
        Value::Object(container) => {
            write_members(container, depth, budget, out, true)?;
            out.push(b'}');
            Ok(())
        }
        Value::Array(container) => {
            write_members(container, depth, budget, out, false)?;
            out.push(b']');
            Ok(())
        }
        scalar => scalar::write(scalar, budget, out),
    }
}

/// Writes an object or an array up to its closing bracket.
fn write_members(
    container: &Container<'_>,
    depth: usize,
    budget: &mut Budget,
    out: &mut Vec<u8>,
    keys: bool,
) -> Result<(), Unwritable> {
    let depth = depth.checked_sub(1).ok_or(DAMAGED)?;
    out.push(if keys { b'{' } else { b'[' });
    for nth in 0..container.len() {
        budget.spend(1)?;
        if nth > 0 {
            out.extend_from_slice(b", ");
        }
        if keys {
            let key = container.key(nth)?;
            budget.spend(key.len())?;
            scalar::write_string(key, out)?;
            out.extend_from_slice(b": ");
        }
        write_value(&container.value(nth)?, depth, budget, out)?;
    }
    Ok(())
}
