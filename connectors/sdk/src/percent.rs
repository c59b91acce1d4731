//! The percent-encoding of keys: in an event's `partitionkey` and subject, and in how far a snapshot is told.
//!
//! RFC 3986, section 2: every byte but the unreserved characters is encoded, so that what joins the parts of a key (`,`, `/`, `;`)
//! never stands inside one. <https://www.rfc-editor.org/rfc/rfc3986#section-2>

const HEX: &[u8; 16] = b"0123456789ABCDEF";

/// Appends `byte` as `%` and two upper-case hexadecimal digits.
#[inline]
pub fn byte(byte: u8, out: &mut Vec<u8>) {
    out.extend_from_slice(&[b'%', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
}

/// Appends `text` with everything encoded but the unreserved characters.
#[inline]
pub fn encode(text: &[u8], out: &mut Vec<u8>) {
    for &each in text {
        if each.is_ascii_alphanumeric() || matches!(each, b'-' | b'.' | b'_' | b'~') {
            out.push(each);
        } else {
            byte(each, out);
        }
    }
}

/// The text that was percent-encoded, whatever was left as it is; `None` where it is not such an encoding, or not UTF-8.
pub fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let high = char::from(rest.next()?).to_digit(16)?;
            let low = char::from(rest.next()?).to_digit(16)?;
            bytes.push(u8::try_from(high * 16 + low).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_separates_keys_never_stands_in_one() {
        let mut out = Vec::new();
        encode("a,b/c;é~".as_bytes(), &mut out);
        assert_eq!(out, b"a%2Cb%2Fc%3B%C3%A9~");
        assert_eq!(decode(std::str::from_utf8(&out).unwrap()).as_deref(), Some("a,b/c;é~"));
    }

    #[test]
    fn what_is_no_encoding_is_not_read() {
        for broken in ["%", "%4", "%zz", "%C0%A0"] {
            assert_eq!(decode(broken), None, "{broken}");
        }
    }
}
