//! Arrays, as `array_out` prints them: <https://www.postgresql.org/docs/current/arrays.html#ARRAYS-IO>

use super::{Kind, Parsed, quoted};
use headgate_sdk::WriteValue;

/// Most dimensions that an array has (`MAXDIM` of the server).
const MAX_DIMENSIONS: usize = 6;

/// What may come next.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Expect {
    /// An element or a nested array; at the start, the outermost array.
    Item,
    /// The same, or the end of an array that just began.
    First,
    /// A delimiter or an end.
    Next,
}

/// Writes an array of any number of dimensions. Lower bounds that are not 1 are dropped: JSON has none.
pub(super) fn write(element: &Kind, delimiter: u8, raw: &[u8], out: &mut Vec<u8>) -> Parsed {
    let mut scratch = Vec::new();
    let mut rest = without_bounds(raw);
    let mut depth = 0;
    let mut expect = Expect::Item;
    while let Some((&byte, tail)) = rest.split_first() {
        match (expect, byte) {
            (Expect::Item | Expect::First, b'{') if depth < MAX_DIMENSIONS => {
                out.push(b'[');
                depth += 1;
                expect = Expect::First;
                rest = tail;
            }
            (Expect::First | Expect::Next, b'}') => {
                out.push(b']');
                depth -= 1;
                if depth == 0 {
                    return Ok(tail.is_empty());
                }
                expect = Expect::Next;
                rest = tail;
            }
            (Expect::Next, byte) if byte == delimiter => {
                out.push(b',');
                expect = Expect::Item;
                rest = tail;
            }
            (Expect::Item | Expect::First, b'"') if depth > 0 => {
                let Some((item, tail)) = quoted(tail, false, &mut scratch) else { return Ok(false) };
                element.write(item, out)?;
                expect = Expect::Next;
                rest = tail;
            }
            (Expect::Item | Expect::First, _) if depth > 0 => {
                let end =
                    rest.iter().position(|&byte| byte == delimiter || matches!(byte, b'{' | b'}' | b'"'));
                let Some((item, tail)) = end.and_then(|end| rest.split_at_checked(end)) else {
                    return Ok(false);
                };
                match item {
                    b"" => return Ok(false),
                    b"NULL" => out.extend_from_slice(b"null"),
                    item => element.write(item, out)?,
                }
                expect = Expect::Next;
                rest = tail;
            }
            _ => return Ok(false),
        }
    }
    Ok(false)
}

/// The text after `[0:2]=`, which the server prints where a lower bound is not 1.
fn without_bounds(raw: &[u8]) -> &[u8] {
    if raw.first() != Some(&b'[') {
        return raw;
    }
    let is_bound = |byte: &u8| byte.is_ascii_digit() || matches!(byte, b'[' | b':' | b'-' | b'+' | b']');
    match memchr::memchr(b'=', raw).map(|at| (&raw[..at], &raw[at + 1..])) {
        Some((bounds, array)) if bounds.iter().all(is_bound) => array,
        _ => raw,
    }
}
