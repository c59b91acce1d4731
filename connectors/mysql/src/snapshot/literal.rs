//! A key's value, which is JSON, as SQL that compares with its column as the column's index does. Pure.

use crate::value::Kind;
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use std::fmt::Write as _;

/// The SQL of a value; `None` where it is not one of that type.
pub(super) fn literal(kind: &Kind, json: &str) -> Option<String> {
    match kind {
        Kind::Integer { .. } | Kind::Year => digits(json),
        // Its column is compared as the double that it is exactly.
        Kind::Float => {
            json.parse::<f32>().ok().filter(|n| n.is_finite()).map(|n| format!("{:e}", f64::from(n)))
        }
        Kind::Double => json.parse::<f64>().ok().filter(|n| n.is_finite()).map(|n| format!("{n:e}")),
        Kind::Decimal { .. } => digits(&string(json)?),
        Kind::Bit { .. } => {
            let bits = string(json)?;
            (!bits.is_empty() && bits.bytes().all(|bit| matches!(bit, b'0' | b'1')))
                .then(|| format!("b'{bits}'"))
        }
        Kind::Date | Kind::Time { .. } | Kind::OldTime { .. } => moment(&string(json)?),
        Kind::DateTime { .. }
        | Kind::Timestamp { .. }
        | Kind::OldDateTime { .. }
        | Kind::OldTimestamp { .. } => moment(&string(json)?.replacen('T', " ", 1).replacen('Z', "", 1)),
        // The server brings it into the column's character set, and compares by the column's collation.
        Kind::Text(_) | Kind::CompressedText(_) => {
            Some(format!("_utf8mb4 {}", hex(string(json)?.as_bytes())))
        }
        Kind::Binary { .. } | Kind::Blob | Kind::CompressedBlob => {
            Some(hex(&BASE64.decode(string(json)?).ok()?))
        }
        // Sorted by number, not by label.
        Kind::Enum(labels) => labels.number_of(json).map(|number| number.to_string()),
        Kind::Set(labels) => {
            let texts: Vec<String> = serde_json::from_str(json).ok()?;
            let mut bits = 0u64;
            for text in texts {
                let number = labels.number_of(&spelled(&text))?;
                bits |= 1u64.checked_shl(u32::try_from(number.checked_sub(1)?).ok()?)?;
            }
            Some(bits.to_string())
        }
        Kind::Uuid | Kind::Inet4 | Kind::Inet6 => {
            let text = string(json)?;
            let sound = text.bytes().all(|byte| byte.is_ascii_hexdigit() || b"-.:".contains(&byte));
            sound.then(|| format!("'{text}'"))
        }
        // No server has an index of these that could be a key.
        Kind::Json | Kind::JsonText(_) | Kind::Geometry | Kind::Vector => None,
    }
}

/// A text as [`Labels`](crate::value::Labels) spell it.
fn spelled(text: &str) -> String {
    let mut out = vec![b'"'];
    headgate_sdk::json::escape(text, &mut out);
    out.push(b'"');
    String::from_utf8(out).unwrap_or_default()
}

fn string(json: &str) -> Option<String> {
    serde_json::from_str(json).ok()
}

fn digits(text: &str) -> Option<String> {
    let sound = text.bytes().all(|byte| byte.is_ascii_digit() || b"-.".contains(&byte));
    (sound && !text.is_empty()).then(|| text.to_owned())
}

fn moment(text: &str) -> Option<String> {
    let sound = text.bytes().all(|byte| byte.is_ascii_digit() || b"-.: ".contains(&byte));
    (sound && !text.is_empty()).then(|| format!("'{text}'"))
}

/// `x'…'`: nothing in it has to be escaped.
fn hex(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(3 + 2 * bytes.len());
    out.push_str("x'");
    for byte in bytes {
        // Writing to a string does not fail.
        let _ = write!(out, "{byte:02x}");
    }
    out.push('\'');
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::{Charset, Labels};

    #[test]
    fn values_become_sql() {
        let labels = Labels::new(["so-so", "it's", "good"]);
        for (kind, json, expected) in [
            (Kind::Integer { bytes: 8, unsigned: true }, "18446744073709551615", "18446744073709551615"),
            (Kind::Float, "0.1", "1.0000000149011612e-1"),
            (Kind::Double, "-1e+300", "-1e300"),
            (Kind::Decimal { precision: 9, scale: 2 }, "\"-0.50\"", "-0.50"),
            (Kind::Bit { bits: 3 }, "\"101\"", "b'101'"),
            (Kind::Date, "\"0000-00-00\"", "'0000-00-00'"),
            (Kind::Time { digits: 1 }, "\"-838:59:58.5\"", "'-838:59:58.5'"),
            (Kind::Timestamp { digits: 0 }, "\"2026-11-22T14:06:07Z\"", "'2026-11-22 14:06:07'"),
            (Kind::Text(Charset::Utf8), "\"a'\\\\\"", "_utf8mb4 x'61275c'"),
            (Kind::Binary { length: 2 }, "\"AP8=\"", "x'00ff'"),
            (Kind::Enum(labels.clone()), "\"good\"", "3"),
            (Kind::Enum(labels.clone()), "\"\"", "0"),
            (Kind::Set(labels), "[\"so-so\",\"good\"]", "5"),
            (Kind::Uuid, "\"0-a\"", "'0-a'"),
        ] {
            assert_eq!(literal(&kind, json).as_deref(), Some(expected), "{json}");
        }
    }

    #[test]
    fn hostile_values_are_refused() {
        for (kind, json) in [
            (Kind::Integer { bytes: 4, unsigned: false }, "1 OR 1"),
            (Kind::Integer { bytes: 4, unsigned: false }, ""),
            (Kind::Float, "1); --"),
            (Kind::Decimal { precision: 9, scale: 2 }, "\"1'\""),
            (Kind::Date, "\"' OR '\""),
            (Kind::Bit { bits: 3 }, "\"2\""),
            (Kind::Blob, "\"%\""),
            (Kind::Uuid, "\"'\""),
            (Kind::Enum(Labels::new(["a"])), "\"b\""),
            (Kind::Json, "1"),
        ] {
            assert_eq!(literal(&kind, json), None, "{json}");
        }
    }
}
