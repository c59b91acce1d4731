//! What a transaction's events carry from their writer: the attributes of a
//! [`CONTEXT_PREFIX`](headgate_sdk::CONTEXT_PREFIX) message, else a trace
//! that is derived from the transaction and so is the same on every replay.

use super::time::Text;
use headgate_sdk::Position;
use serde_json::Value;

const MAX_BYTES: usize = 8 << 10;
const MAX_ATTRIBUTES: usize = 32;

/// Attributes that the gateway itself sets.
const RESERVED: [&str; 19] = [
    "specversion",
    "id",
    "source",
    "type",
    "subject",
    "time",
    "datacontenttype",
    "dataschema",
    "partitionkey",
    "sequence",
    "recordedtime",
    "txid",
    "txindex",
    "txlast",
    "data",
    "dataref",
    "datadigest",
    "datasize",
    "database64",
];

/// Reads the attributes of a context message: a flat JSON object of attribute names and text, number or boolean values.
///
/// # Errors
/// What is wrong with it, for the log. The transaction's events then go without.
pub fn parse(content: &[u8]) -> Result<Vec<(String, String)>, String> {
    if content.len() > MAX_BYTES {
        return Err(format!("{} bytes are more than the {MAX_BYTES} allowed", content.len()));
    }
    let object: serde_json::Map<String, Value> =
        serde_json::from_slice(content).map_err(|error| format!("not a JSON object: {error}"))?;
    if object.len() > MAX_ATTRIBUTES {
        return Err(format!("{} attributes are more than the {MAX_ATTRIBUTES} allowed", object.len()));
    }
    let mut attributes = Vec::with_capacity(object.len());
    for (name, value) in object {
        let well_named = !name.is_empty()
            && name.len() <= 20
            && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
        if !well_named {
            return Err(format!("attribute name {name:?} is not 1 to 20 of a-z and 0-9"));
        }
        if RESERVED.contains(&name.as_str()) {
            return Err(format!("attribute {name} is the gateway's own"));
        }
        let text = match value {
            Value::String(text) => text,
            Value::Number(number) => number.to_string(),
            Value::Bool(flag) => flag.to_string(),
            Value::Null => continue,
            Value::Array(_) | Value::Object(_) => {
                return Err(format!("attribute {name} is not a plain value"));
            }
        };
        if name == "traceparent" && !is_traceparent(&text) {
            return Err("traceparent is not of the form 00-{32 hex}-{16 hex}-{2 hex}".to_owned());
        }
        attributes.push((name, text));
    }
    Ok(attributes)
}

/// W3C Trace Context, version 00: <https://www.w3.org/TR/trace-context/#traceparent-header>
pub fn is_traceparent(text: &str) -> bool {
    let hex = |part: &str, length: usize| {
        part.len() == length
            && part.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
    };
    let nonzero = |part: &str| part.bytes().any(|byte| byte != b'0');
    let mut parts = text.split('-');
    let (Some(version), Some(trace), Some(parent), Some(flags), None) =
        (parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return false;
    };
    version == "00" && hex(trace, 32) && nonzero(trace) && hex(parent, 16) && nonzero(parent) && hex(flags, 2)
}

/// The `traceparent` of a transaction whose writer gave none. Marked as sampled, so that an agent that follows it is seen.
pub fn derived_traceparent(source: u64, position: Position) -> Text<55> {
    let first = mix(source ^ mix(u64::from(position.epoch)));
    let second = mix(first ^ position.commit);
    let span = mix(second ^ u64::from(position.index)) | 1;
    let mut text = *b"00-00000000000000000000000000000000-0000000000000000-01";
    for (at, value) in [(3, first), (19, second), (36, span)] {
        for (digit, shift) in text[at..at + 16].iter_mut().zip((0..16).rev()) {
            *digit = b"0123456789abcdef"[(value >> (4 * shift) & 15) as usize];
        }
    }
    Text(text)
}

/// The finalizer of splitmix64: every bit of the input moves every bit of the output.
fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn reads_plain_attributes() {
        let attributes = parse(
            br#"{"traceparent":"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01","correlationid":"c 1","attempt":3}"#,
        )
        .unwrap();
        assert!(attributes.contains(&("correlationid".into(), "c 1".into())));
        assert!(attributes.contains(&("attempt".into(), "3".into())));
    }

    #[test]
    fn refuses_what_would_break_an_event() {
        for content in [
            &b"[]"[..],
            b"{",
            b"{\"id\":\"1\"}",
            b"{\"Upper\":\"1\"}",
            b"{\"a\\r\\nb\":\"1\"}",
            b"{\"nested\":{}}",
            b"{\"traceparent\":\"00-00000000000000000000000000000000-b7ad6b7169203331-01\"}",
            b"{\"traceparent\":\"x\"}",
        ] {
            assert!(parse(content).is_err(), "{}", String::from_utf8_lossy(content));
        }
        assert!(parse(&vec![b' '; MAX_BYTES + 1]).is_err());
    }

    #[test]
    fn a_derived_trace_is_valid_and_stable() {
        let position = Position { epoch: 1, commit: 42, index: 0 };
        let trace = derived_traceparent(7, position);
        assert!(is_traceparent(trace.as_str()), "{}", trace.as_str());
        assert_eq!(trace, derived_traceparent(7, position));
        assert_ne!(trace, derived_traceparent(8, position));
        assert_ne!(trace, derived_traceparent(7, Position { commit: 43, ..position }));
    }
}
