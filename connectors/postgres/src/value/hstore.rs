//! hstore: <https://www.postgresql.org/docs/current/hstore.html#HSTORE-EXTERNAL-REP>

use super::{Parsed, quoted, text};

/// Writes `"a"=>"1", "b"=>NULL` as an object of strings and nulls.
pub(super) fn write(raw: &[u8], out: &mut Vec<u8>) -> Parsed {
    let mut scratch = Vec::new();
    let mut rest = raw;
    out.push(b'{');
    while !rest.is_empty() {
        if rest.len() < raw.len() {
            let Some(tail) = rest.strip_prefix(b", ") else { return Ok(false) };
            rest = tail;
            out.push(b',');
        }
        let Some(tail) = rest.strip_prefix(b"\"") else { return Ok(false) };
        let Some((key, tail)) = quoted(tail, false, &mut scratch) else { return Ok(false) };
        text::write(key, out)?;
        out.push(b':');
        let Some(tail) = tail.strip_prefix(b"=>") else { return Ok(false) };
        if let Some(tail) = tail.strip_prefix(b"NULL") {
            out.extend_from_slice(b"null");
            rest = tail;
            continue;
        }
        let Some(tail) = tail.strip_prefix(b"\"") else { return Ok(false) };
        let Some((value, tail)) = quoted(tail, false, &mut scratch) else { return Ok(false) };
        text::write(value, out)?;
        rest = tail;
    }
    out.push(b'}');
    Ok(true)
}
