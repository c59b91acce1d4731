//! Text as a JSON string (RFC 8259, section 7): what nearly every value of a row is, so it is written by vectors.

/// How many bytes are looked at together: one vector register.
const LANES: usize = 16;

/// Writes `raw` as a JSON string; `None`, with the text half written, where it is not UTF-8.
#[inline]
pub fn write_text(raw: &[u8], out: &mut Vec<u8>) -> Option<()> {
    out.reserve(raw.len() + 2);
    out.push(b'"');
    // Plain ASCII without quotes, backslashes and control characters is nearly all of the traffic; it is copied whole
    // and needs no UTF-8 check of its own.
    if is_plain(raw) {
        out.extend_from_slice(raw);
    } else {
        escape(std::str::from_utf8(raw).ok()?, out);
    }
    out.push(b'"');
    Some(())
}

/// Whether every byte is ASCII that stands for itself. Without a branch inside the lanes, so that they become vectors.
#[inline]
pub fn is_plain(raw: &[u8]) -> bool {
    let (lanes, rest) = raw.as_chunks::<LANES>();
    let special =
        |bytes: &[u8]| bytes.iter().fold(false, |any, &byte| any | needs_escape(byte) | (byte >= 0x80));
    !lanes.iter().any(|lane| special(lane)) && !special(rest)
}

/// Writes what stands between the quotes.
pub fn escape(text: &str, out: &mut Vec<u8>) {
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

/// Whether a byte cannot stand for itself inside a JSON string.
#[inline]
const fn needs_escape(byte: u8) -> bool {
    (byte < 0x20) | (byte == b'"') | (byte == b'\\')
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Every byte that needs care, at every place of a vector and around its end.
    #[test]
    fn text_is_read_back_as_it_was() {
        for special in
            ['"', '\\', '\n', '\r', '\t', '\u{8}', '\u{c}', '\0', '\u{1f}', ' ', '\u{7f}', 'é', '😀']
        {
            for before in 0..=2 * LANES + 1 {
                let text = format!("{}{special}{}", "a".repeat(before), "b".repeat(LANES));
                let mut out = Vec::new();
                write_text(text.as_bytes(), &mut out).unwrap();
                assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
            }
        }
    }

    #[test]
    fn what_is_not_utf8_is_refused_wherever_it_stands() {
        for before in 0..=2 * LANES {
            let mut text = vec![b'a'; before];
            text.push(0xff);
            assert_eq!(write_text(&text, &mut Vec::new()), None);
        }
    }
}
