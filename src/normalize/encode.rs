//! Percent-encodings: of keys ([`percent::encode`]), of subject tokens, of header values. Three sets, for three readers; one way
//! back ([`percent::decode`]).

use headgate_sdk::percent;

/// A byte as two lower-case hexadecimal digits.
pub fn hex(byte: u8) -> [u8; 2] {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let digit = |value: u8| HEX[usize::from(value)];
    [digit(byte >> 4), digit(byte & 15)]
}

/// A subject token: what NATS forbids in one (white space, `.`, `*`, `>`, control characters) and `%`. An empty text
/// becomes `%`, for a token cannot be empty and nothing else is encoded so.
pub fn token(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    for &byte in text.as_bytes() {
        if byte <= b' ' || matches!(byte, b'.' | b'*' | b'>' | b'%' | 0x7f) {
            percent::byte(byte, &mut out);
        } else {
            out.push(byte);
        }
    }
    if out.is_empty() {
        out.push(b'%');
    }
    String::from_utf8(out).unwrap_or_default()
}

/// A key text as a subject token: it is percent-encoded already, only what a token forbids beyond that is left.
pub fn key_token(key: &str) -> String {
    if key.is_empty() { "%".to_owned() } else { key.replace('.', "%2E") }
}

/// The value of a `ce-` header, by the CloudEvents NATS binding: space, `"`, `%` and all outside U+0021–U+007E.
/// <https://github.com/cloudevents/spec/blob/main/cloudevents/bindings/nats-protocol-binding.md>
pub fn header_value(text: &[u8], out: &mut Vec<u8>) {
    for &byte in text {
        if (0x21..=0x7e).contains(&byte) && byte != b'"' && byte != b'%' {
            out.push(byte);
        } else {
            percent::byte(byte, out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_never_split_or_match() {
        assert_eq!(token("orders"), "orders");
        assert_eq!(token("my table.*>%\t\u{1F600}"), "my%20table%2E%2A%3E%25%09\u{1F600}");
        assert_eq!(token(""), "%");
        assert_eq!(key_token("a.b%2C"), "a%2Eb%2C");
    }

    #[test]
    fn header_values_follow_the_binding() {
        let mut out = Vec::new();
        header_value("Euro € \"50%\"\r\n".as_bytes(), &mut out);
        assert_eq!(out, b"Euro%20%E2%82%AC%20%2250%25%22%0D%0A");
        assert_eq!(percent::decode(&String::from_utf8_lossy(&out)).as_deref(), Some("Euro € \"50%\"\r\n"));
    }
}
