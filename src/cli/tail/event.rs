//! A message as one structured CloudEvent on one line, whichever mode it was published in.

use async_nats::{HeaderMap, Message};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use headgate_sdk::percent;
use serde::Deserialize;
use serde_json::{Map, Value, value::RawValue};

/// A structured CloudEvent without line breaks.
pub(in crate::cli) struct Structured {
    json: Vec<u8>,
}

/// What a person wants to see of an event.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Attributes<'a> {
    #[serde(rename = "type", default)]
    pub(super) kind: String,
    #[serde(default)]
    pub(super) subject: String,
    #[serde(default)]
    pub(super) time: Option<String>,
    /// To the letter: a number is not read and written again.
    #[serde(borrow, default)]
    pub(super) data: Option<&'a RawValue>,
    /// Where the data of a large event is.
    #[serde(default)]
    pub(super) dataref: Option<String>,
}

impl Structured {
    pub(in crate::cli) fn read(message: &Message) -> Result<Self, String> {
        let structured =
            message.headers.as_ref().and_then(|headers| header(headers, "content-type")).is_some_and(
                // The binding compares without regard to case.
                |kind| {
                    kind.as_bytes()
                        .get(..23)
                        .is_some_and(|start| start.eq_ignore_ascii_case(b"application/cloudevents"))
                },
            );
        let json = if structured {
            let text = std::str::from_utf8(&message.payload).map_err(|_| "its payload is not UTF-8")?;
            serde_json::from_str::<&RawValue>(text)
                .map_err(|error| format!("its payload is not JSON: {error}"))?;
            one_line(message.payload.to_vec())
        } else {
            binary(message)?
        };
        Ok(Self { json })
    }

    pub(in crate::cli) fn json(&self) -> &[u8] {
        &self.json
    }

    pub(super) fn attributes(&self) -> Attributes<'_> {
        serde_json::from_slice(&self.json).unwrap_or_default()
    }
}

/// JSON holds line breaks only between its tokens, where a space means the same.
fn one_line(mut json: Vec<u8>) -> Vec<u8> {
    for byte in &mut json {
        if matches!(byte, b'\n' | b'\r') {
            *byte = b' ';
        }
    }
    json
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers
        .iter()
        .find(|(key, _)| AsRef::<str>::as_ref(*key).eq_ignore_ascii_case(name))
        .and_then(|(_, values)| values.first())
        .map(|value| value.as_str())
}

/// From the `ce-` headers and the payload of binary mode.
fn binary(message: &Message) -> Result<Vec<u8>, String> {
    let headers = message.headers.as_ref().ok_or("it has no headers")?;
    let mut attributes: Map<String, Value> = Map::new();
    for (name, values) in headers.iter() {
        let name = AsRef::<str>::as_ref(name).to_ascii_lowercase();
        let (Some(attribute), Some(value)) = (name.strip_prefix("ce-"), values.first()) else { continue };
        let text = percent::decode(value.as_str())
            .ok_or_else(|| format!("its attribute {attribute} is not encoded right"))?;
        let value = match attribute {
            "txindex" => text.parse::<u64>().map_or_else(|_| Value::from(text), Value::from),
            "txlast" => text.parse::<bool>().map_or_else(|_| Value::from(text), Value::from),
            _ => Value::from(text),
        };
        attributes.insert(attribute.to_owned(), value);
    }
    for required in ["specversion", "id", "source", "type"] {
        if !attributes.contains_key(required) {
            return Err(format!("it has no {required}"));
        }
    }
    let is_json = match attributes.get("datacontenttype").and_then(Value::as_str) {
        None => true,
        Some(kind) => kind.split(';').next().is_some_and(|kind| kind.trim().ends_with("json")),
    };
    let mut out = serde_json::to_vec(&attributes).map_err(|error| error.to_string())?;
    if !message.payload.is_empty() {
        // Before the object's closing brace.
        out.pop();
        let text = std::str::from_utf8(&message.payload).ok();
        match text.and_then(|text| serde_json::from_str::<&RawValue>(text).ok()).filter(|_| is_json) {
            Some(data) => {
                out.extend_from_slice(b",\"data\":");
                out.extend_from_slice(data.get().as_bytes());
            }
            None => {
                out.extend_from_slice(b",\"data_base64\":\"");
                out.extend_from_slice(STANDARD.encode(&message.payload).as_bytes());
                out.push(b'"');
            }
        }
        out.push(b'}');
    }
    Ok(one_line(out))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn message(headers: &[(&str, &str)], payload: &'static [u8]) -> Message {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, *value);
        }
        Message {
            subject: "events.shop.orders.updated.3".into(),
            reply: None,
            payload: payload.into(),
            headers: Some(map),
            status: None,
            description: None,
            length: 0,
        }
    }

    #[test]
    fn structured_events_become_one_line() {
        let message = message(
            &[("Content-Type", "application/CloudEvents+json")],
            b"{\"id\":\"1\",\n\"n\":1.000000000000000000001}",
        );
        let event = Structured::read(&message).unwrap();
        assert_eq!(event.json(), b"{\"id\":\"1\", \"n\":1.000000000000000000001}");
    }

    #[test]
    fn binary_events_become_structured_ones() {
        let headers = [
            ("ce-specversion", "1.0"),
            ("ce-id", "x"),
            ("ce-source", "/headgate/shop"),
            ("CE-Type", "shop.orders.updated"),
            ("ce-subject", "orders/caf%C3%A9%20%22"),
            ("ce-txindex", "3"),
            ("ce-txlast", "true"),
            ("Nats-Msg-Id", "x"),
        ];
        let event = Structured::read(&message(&headers, b"{\"a\":12345678901234567890.10}")).unwrap();
        assert_eq!(
            std::str::from_utf8(event.json()).unwrap(),
            r#"{"id":"x","source":"/headgate/shop","specversion":"1.0","subject":"orders/café \"","txindex":3,"txlast":true,"type":"shop.orders.updated","data":{"a":12345678901234567890.10}}"#
        );
        let event = Structured::read(&message(&headers, b"\xff")).unwrap();
        assert!(event.json().ends_with(b",\"data_base64\":\"/w==\"}"));
    }

    #[test]
    fn foreign_messages_are_told_apart() {
        assert!(Structured::read(&message(&[], b"hello")).is_err());
        assert!(
            Structured::read(&message(&[("Content-Type", "application/cloudevents+json")], b"{")).is_err()
        );
        assert!(Structured::read(&message(&[("ce-id", "%C0%A0")], b"")).is_err());
    }
}
