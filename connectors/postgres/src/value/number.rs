//! Booleans, integers and floats.

/// Writes `t` and `f`.
#[inline]
pub(super) fn write_bool(raw: &[u8], out: &mut Vec<u8>) -> bool {
    match raw {
        b"t" => out.extend_from_slice(b"true"),
        b"f" => out.extend_from_slice(b"false"),
        _ => return false,
    }
    true
}

/// Writes an integer of any width as it is.
#[inline]
pub(super) fn write_integer(raw: &[u8], out: &mut Vec<u8>) -> bool {
    let valid = is_integer(raw.strip_prefix(b"-").unwrap_or(raw));
    if valid {
        out.extend_from_slice(raw);
    }
    valid
}

/// Writes a float as it is: the server prints the shortest digits that read back the same, in a form that JSON has too.
pub(super) fn write_float(raw: &[u8], out: &mut Vec<u8>) -> bool {
    if !is_number(raw) {
        // NaN and the infinities among them: the fallback makes them strings.
        return false;
    }
    out.extend_from_slice(raw);
    true
}

/// Whether `digits` is a whole number as JSON has it: no leading zero.
#[inline]
fn is_integer(digits: &[u8]) -> bool {
    match digits {
        [b'0'] => true,
        [b'1'..=b'9', rest @ ..] => rest.iter().all(u8::is_ascii_digit),
        _ => false,
    }
}

/// Whether `raw` is a number as JSON has it.
fn is_number(raw: &[u8]) -> bool {
    let raw = raw.strip_prefix(b"-").unwrap_or(raw);
    let (mantissa, exponent) = match memchr::memchr2(b'e', b'E', raw) {
        Some(at) => (&raw[..at], Some(&raw[at + 1..])),
        None => (raw, None),
    };
    let (whole, fraction) = match memchr::memchr(b'.', mantissa) {
        Some(at) => (&mantissa[..at], Some(&mantissa[at + 1..])),
        None => (mantissa, None),
    };
    let digits = |part: &[u8]| !part.is_empty() && part.iter().all(u8::is_ascii_digit);
    is_integer(whole)
        && fraction.is_none_or(digits)
        && exponent
            .is_none_or(|part| digits(part.strip_prefix(b"-").or(part.strip_prefix(b"+")).unwrap_or(part)))
}
