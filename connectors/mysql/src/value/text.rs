//! Text as a JSON string.

use headgate_sdk::Unwritable;

/// Why bytes are not text.
pub(crate) const NOT_UTF8: Unwritable = Unwritable {
    reason: "the value is not UTF-8, which its character set is: it was damaged or stored by force",
};

/// How many bytes are looked at together: one vector register.
const LANES: usize = 16;

/// Writes `raw` as a JSON string.
///
/// # Errors
/// `raw` is not UTF-8.
#[inline]
pub(crate) fn write(raw: &[u8], out: &mut Vec<u8>) -> Result<(), Unwritable> {
    out.reserve(raw.len() + 2);
    out.push(b'"');
    // Plain ASCII without quotes, backslashes and control characters is nearly all of the traffic; it is copied whole
    // and needs no UTF-8 check of its own.
    if is_plain(raw) {
        out.extend_from_slice(raw);
    } else {
        escape(std::str::from_utf8(raw).map_err(|_| NOT_UTF8)?, out);
    }
    out.push(b'"');
    Ok(())
}

/// Whether a byte cannot stand for itself inside a JSON string.
#[inline]
const fn needs_escape(byte: u8) -> bool {
    (byte < 0x20) | (byte == b'"') | (byte == b'\\')
}

/// Whether every byte is ASCII that stands for itself. Without a branch inside the lanes, so that they become vectors.
#[inline]
pub(crate) fn is_plain(raw: &[u8]) -> bool {
    let (lanes, rest) = raw.as_chunks::<LANES>();
    let special =
        |bytes: &[u8]| bytes.iter().fold(false, |any, &byte| any | needs_escape(byte) | (byte >= 0x80));
    !lanes.iter().any(|lane| special(lane)) && !special(rest)
}

/// Writes what stands between the quotes.
pub(crate) fn escape(text: &str, out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let mut rest = text.as_bytes();
    while let Some(at) = next_escape(rest) {
        let (plain, tail) = rest.split_at(at);
        out.extend_from_slice(plain);
        let Some((&byte, tail)) = tail.split_first() else { return };
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0x08 => out.extend_from_slice(b"\\b"),
            0x0c => out.extend_from_slice(b"\\f"),
            control => out.extend_from_slice(&[
                b'\\',
                b'u',
                b'0',
                b'0',
                HEX[usize::from(control >> 4)],
                HEX[usize::from(control & 0xf)],
            ]),
        }
        rest = tail;
    }
    out.extend_from_slice(rest);
}

/// Where the next byte is that needs an escape.
fn next_escape(bytes: &[u8]) -> Option<usize> {
    let (lanes, rest) = bytes.as_chunks::<LANES>();
    let clean = lanes
        .iter()
        .take_while(|lane| !lane.iter().fold(false, |any, &byte| any | needs_escape(byte)))
        .count();
    let skipped = clean * LANES;
    let rest = if clean == lanes.len() { rest } else { &bytes[skipped..] };
    rest.iter().position(|&byte| needs_escape(byte)).map(|at| skipped + at)
}
