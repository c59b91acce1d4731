//! Logical messages as events: what they are called, and their content as JSON.

use super::{encode, form::json_string};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use headgate_sdk::Message;
use serde_json::value::RawValue;

/// The longest prefix that becomes part of a subject: a broker takes 4 KiB of it at most.
pub(super) const MAX_PREFIX: usize = 255;

/// Verbs that the gateway's own events have: a message must not pass for one of them.
const VERBS: [&str; 8] =
    ["created", "updated", "deleted", "truncated", "snapshot", "message", "schema", "gap"];

/// Entity and verb of a message, as tokens: a prefix `entity.verb` says both, any other one is an entity alone.
pub(super) fn name(prefix: &str) -> (String, String) {
    match prefix.rsplit_once('.') {
        Some((entity, verb))
            if !entity.is_empty() && !verb.is_empty() && entity != "headgate" && !VERBS.contains(&verb) =>
        {
            (encode::token(entity), encode::token(verb))
        }
        _ => (encode::token(prefix), "message".to_owned()),
    }
}

/// The data of a message's event. Content that is JSON stands there byte for byte, other text as a string, anything else
/// in base64.
pub(super) fn data(message: &Message<'_>) -> Vec<u8> {
    let mut data = Vec::with_capacity(message.content.len() + message.prefix.len() + 80);
    data.extend_from_slice(b"{\"op\":\"message\",\"prefix\":");
    data.extend_from_slice(&json_string(message.prefix));
    data.extend_from_slice(if message.transactional {
        b",\"transactional\":true,"
    } else {
        b",\"transactional\":false,"
    });
    if let Ok(json) = serde_json::from_slice::<&RawValue>(message.content) {
        data.extend_from_slice(b"\"content\":");
        data.extend_from_slice(json.get().as_bytes());
    } else if let Ok(text) = std::str::from_utf8(message.content) {
        data.extend_from_slice(b"\"content\":");
        data.extend_from_slice(&json_string(text));
    } else {
        data.extend_from_slice(b"\"content_base64\":\"");
        data.extend_from_slice(BASE64.encode(message.content).as_bytes());
        data.push(b'"');
    }
    data.push(b'}');
    data
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_names_entity_and_verb() {
        for (prefix, entity, verb) in [
            ("invoice.requested", "invoice", "requested"),
            ("com.acme.invoice.requested", "com%2Eacme%2Einvoice", "requested"),
            ("note", "note", "message"),
            ("a b.c*d", "a%20b", "c%2Ad"),
            ("orders.deleted", "orders%2Edeleted", "message"),
            ("headgate.anything", "headgate%2Eanything", "message"),
            (".x", "%2Ex", "message"),
            ("x.", "x%2E", "message"),
            ("", "%", "message"),
        ] {
            assert_eq!(name(prefix), (entity.to_owned(), verb.to_owned()), "{prefix}");
        }
    }

    #[test]
    fn no_digit_of_json_is_lost() {
        let told = |content: &[u8]| {
            let data = data(&Message { prefix: "a.b", content, transactional: true, position: 1 });
            String::from_utf8_lossy(&data).into_owned()
        };
        let head = r#"{"op":"message","prefix":"a.b","transactional":true,"#;
        let json = r#"{"b": 1.50, "a": 12345678901234567890.123456789}"#;
        assert_eq!(told(json.as_bytes()), format!("{head}\"content\":{json}}}"));
        assert_eq!(told(b"{broken"), format!("{head}\"content\":\"{{broken\"}}"));
        assert_eq!(told(b"\xff\xfe"), format!("{head}\"content_base64\":\"//4=\"}}"));
        assert_eq!(told(b""), format!("{head}\"content\":\"\"}}"));
    }
}
