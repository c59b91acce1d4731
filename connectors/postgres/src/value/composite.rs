//! Rows, as `record_out` prints them: <https://www.postgresql.org/docs/current/rowtypes.html#ROWTYPES-IO-SYNTAX>

use super::{Kind, Parsed, quoted, text};
use headgate_sdk::WriteValue;

/// An attribute of a composite type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attribute {
    /// `"name":`, written once.
    member: Vec<u8>,
    kind: Kind,
}

impl Attribute {
    /// An attribute by its name.
    #[must_use]
    pub fn new(name: &str, kind: Kind) -> Self {
        let mut member = Vec::with_capacity(name.len() + 3);
        text::write_name(name, &mut member);
        member.push(b':');
        Self { member, kind }
    }
}

/// Writes `(a,"b c",)` as an object by attribute names. A type that was altered after the value was stored prints another
/// number of fields: such a value is not of this form.
pub(super) fn write(attributes: &[Attribute], raw: &[u8], out: &mut Vec<u8>) -> Parsed {
    let Some(inner) = raw.strip_prefix(b"(").and_then(|raw| raw.strip_suffix(b")")) else { return Ok(false) };
    let mut scratch = Vec::new();
    let mut rest = inner;
    out.push(b'{');
    for (index, attribute) in attributes.iter().enumerate() {
        if index > 0 {
            let Some(tail) = rest.strip_prefix(b",") else { return Ok(false) };
            rest = tail;
            out.push(b',');
        }
        out.extend_from_slice(&attribute.member);
        if let Some(tail) = rest.strip_prefix(b"\"") {
            let Some((field, tail)) = quoted(tail, true, &mut scratch) else { return Ok(false) };
            attribute.kind.write(field, out)?;
            rest = tail;
            continue;
        }
        let end =
            rest.iter().position(|byte| matches!(byte, b',' | b'"' | b'(' | b')')).unwrap_or(rest.len());
        let (field, tail) = rest.split_at(end);
        match field {
            b"" => out.extend_from_slice(b"null"),
            field => attribute.kind.write(field, out)?,
        }
        rest = tail;
    }
    out.push(b'}');
    Ok(rest.is_empty())
}
