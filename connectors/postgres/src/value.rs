//! Writes PostgreSQL's text format as JSON, by type.
//!
//! Pure, and without an allocation for any scalar. A value that does not parse in its own type's format travels as the
//! database's text, a JSON string; bytes that are not UTF-8 cannot be JSON at all and are
//! [`Unwritable`]. So no value is bent, dropped or turned into null.
//!
//! The text is what a session prints that is pinned to `DateStyle = ISO`, `IntervalStyle = iso_8601`,
//! `TimeZone = UTC`, `bytea_output = hex` and `extra_float_digits = 1`; with other settings the values still arrive, as
//! that text.

mod array;
mod builtin;
mod bytea;
mod composite;
mod hstore;
mod json;
mod number;
mod text;
mod time;

pub use builtin::builtin;
pub use composite::Attribute;

use headgate_sdk::{Unwritable, WriteValue};

/// How a type's values become JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The database's text as a string: every type that has no form of its own below.
    Text,
    /// `t` and `f` as true and false.
    Bool,
    /// Integers as numbers.
    Integer,
    /// Floats as numbers, the shortest text that reads back the same; what is not finite as a string.
    Float,
    /// JSON as itself.
    Json,
    /// Bytes as base64.
    Bytea,
    /// A timestamp without a zone, in the form of RFC 3339.
    Timestamp,
    /// A timestamp in UTC, in the form of RFC 3339 with `Z`.
    TimestampTz,
    /// An array, of any number of dimensions.
    Array {
        /// How the elements become JSON.
        element: Box<Kind>,
        /// What stands between two elements (`typdelim` of the element's type).
        delimiter: u8,
    },
    /// A row as an object.
    Composite(Vec<Attribute>),
    /// An hstore as an object.
    Hstore,
}

/// What a form of its own says about a text: written, or not of this form.
type Parsed = Result<bool, Unwritable>;

impl WriteValue for Kind {
    #[inline]
    fn write(&self, raw: &[u8], out: &mut Vec<u8>) -> Result<(), Unwritable> {
        let start = out.len();
        let written = match self {
            Self::Text => return text::write(raw, out),
            Self::Bool => number::write_bool(raw, out),
            Self::Integer => number::write_integer(raw, out),
            Self::Float => number::write_float(raw, out),
            Self::Json => json::write(raw, out)?,
            Self::Bytea => bytea::write(raw, out),
            Self::Timestamp => time::write_timestamp(raw, out),
            Self::TimestampTz => time::write_timestamptz(raw, out),
            Self::Array { element, delimiter } => array::write(element, *delimiter, raw, out)?,
            Self::Composite(attributes) => composite::write(attributes, raw, out)?,
            Self::Hstore => hstore::write(raw, out)?,
        };
        if written {
            return Ok(());
        }
        out.truncate(start);
        text::write(raw, out)
    }
}

/// A part of a container's text: with quotes and escapes taken off, borrowed where there were no escapes.
///
/// Arrays, composites and hstores all print a quoted part as `"…"` with a backslash before each `"` and `\`, or, in
/// composites, with them doubled. `doubled` says whether `""` stands for a quote.
///
/// `text` starts after the opening quote. Gives the part and what follows the closing quote; `None` where there is none.
fn quoted<'s, 't: 's>(
    text: &'t [u8],
    doubled: bool,
    scratch: &'s mut Vec<u8>,
) -> Option<(&'s [u8], &'t [u8])> {
    let first = memchr::memchr2(b'"', b'\\', text)?;
    // Most parts hold neither an escape nor a quote, and need no copy.
    if text.get(first) == Some(&b'"') && !(doubled && text.get(first + 1) == Some(&b'"')) {
        let (part, rest) = text.split_at(first);
        return Some((part, rest.get(1..)?));
    }
    scratch.clear();
    let mut rest = text;
    loop {
        let next = memchr::memchr2(b'"', b'\\', rest)?;
        scratch.extend_from_slice(rest.get(..next)?);
        let escape = *rest.get(next)?;
        rest = rest.get(next + 1..)?;
        if escape == b'"' && !(doubled && rest.first() == Some(&b'"')) {
            return Some((scratch, rest));
        }
        scratch.push(*rest.first()?);
        rest = rest.get(1..)?;
    }
}

#[cfg(test)]
mod tests;
