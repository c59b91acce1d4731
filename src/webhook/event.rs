//! A verified delivery as a message: attributes, subject and data, in either mode.
//!
//! Everything but `sequence` is known when a delivery has been judged. The sequence is known when its turn comes; as it has
//! a fixed width, it is filled in at its place ([`Draft::stamp`]).

use super::message::Message;
use crate::{
    config::Mode,
    normalize::{
        context, encode,
        form::{Form, json_string},
        subject::{Names, Template},
        time,
    },
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use headgate_sdk::{fnv1a, percent};
use headgate_webhook::{Arrival, Data, Delivery};
use sha2::{Digest as _, Sha256};

/// Digits of a sequence: microseconds, as 16 hexadecimal digits, so that byte order is order until the year 586,000.
pub(super) const SEQUENCE_LEN: usize = 16;
/// Longest token of a subject that a delivery's text becomes; the broker takes 4 KiB for all of a subject.
const LONGEST_TOKEN: usize = 200;
/// Longest id that is sent as it is.
const LONGEST_ID: usize = 400;

/// Attributes that are the gateway's own; an extension of the same name is not taken over.
const OWN: [&str; 18] = [
    "specversion",
    "id",
    "source",
    "type",
    "subject",
    "time",
    "recordedtime",
    "partitionkey",
    "sequence",
    "traceparent",
    "tracestate",
    "integrity",
    "datacontenttype",
    "data",
    "dataref",
    "datadigest",
    "datasize",
    "providersequence",
];

/// What all messages of a source have in common.
#[derive(Debug)]
pub(crate) struct Style {
    /// The source's name.
    pub(crate) source: String,
    /// The `source` attribute where the provider's mapping has none.
    pub(crate) uri: String,
    /// How attributes are spelled.
    pub(crate) mode: Mode,
    /// The subject template.
    pub(crate) template: Template,
    /// Number of partitions.
    pub(crate) partitions: u32,
}

/// A message that lacks its sequence.
#[derive(Debug)]
pub(super) struct Draft {
    id: String,
    subject: String,
    head: Vec<u8>,
    payload: Vec<u8>,
    data: (usize, usize),
    /// Where the sequence goes, in the payload or, in binary mode, in the head.
    sequence_at: usize,
    binary: bool,
}

impl Draft {
    /// The message with its sequence.
    pub(super) fn stamp(mut self, sequence: u64) -> Message {
        let target = if self.binary { &mut self.head } else { &mut self.payload };
        if let Some(place) = target.get_mut(self.sequence_at..self.sequence_at + SEQUENCE_LEN) {
            for (pair, byte) in place.as_chunks_mut::<2>().0.iter_mut().zip(sequence.to_be_bytes()) {
                *pair = encode::hex(byte);
            }
        }
        Message {
            id: self.id,
            sequence,
            subject: self.subject,
            head: Bytes::from(self.head),
            payload: Bytes::from(self.payload),
            data: self.data,
        }
    }
}

/// Writes one delivery of an arrival.
pub(super) fn draft(style: &Style, delivery: &Delivery, arrival: &Arrival) -> Draft {
    let subject = delivery.subject.as_deref();
    // The ordering key is the subject, or the entity where there is none; but who names a key is kept to it.
    let key = delivery.key.as_deref().or(subject).unwrap_or(&delivery.entity);
    let partition = fnv1a(&[key.as_bytes()]) % style.partitions;
    let mut key_text = Vec::with_capacity(key.len());
    percent::encode(key.as_bytes(), &mut key_text);
    let names = Names {
        source: &style.source,
        entity: &bounded(encode::token(&delivery.entity)),
        verb: &bounded(encode::token(&delivery.verb)),
        partition,
        key: &bounded(String::from_utf8(key_text).unwrap_or_default()),
        schema: "",
        table: "",
    };
    let binary = style.mode == Mode::Binary;
    let mut head = Vec::with_capacity(if binary { 1024 } else { 320 });
    for (name, value) in &delivery.headers {
        head_line(["Http-", name], value, &mut head);
    }
    let mut spelled = Spelled::begin(style.mode, delivery.data.bytes().len());
    spelled.attribute("id", &delivery.id);
    spelled.attribute("source", delivery.source.as_deref().unwrap_or(&style.uri));
    spelled.attribute("type", &delivery.event_type);
    if let Some(subject) = subject {
        spelled.attribute("subject", subject);
    }
    spelled.attribute("time", time::rfc3339(delivery.time.unwrap_or(arrival.received_at)).as_str());
    spelled.attribute("recordedtime", time::rfc3339(arrival.received_at).as_str());
    spelled.attribute("partitionkey", key);
    let sequence_at = spelled.sequence();
    let (parent, state) = trace(style, delivery, arrival);
    spelled.attribute("traceparent", &parent);
    if let Some(state) = state {
        spelled.attribute("tracestate", state);
    }
    spelled.attribute("integrity", delivery.integrity.as_str());
    if let Some(sequence) = &delivery.sequence {
        spelled.attribute("providersequence", sequence);
    }
    for (name, value) in &delivery.extensions {
        if !OWN.contains(&name.as_str()) {
            spelled.attribute(name, value);
        }
    }
    let content_type = delivery.content_type.as_deref().or(match delivery.data {
        Data::Json(_) => Some("application/json"),
        Data::Text(_) => Some("text/plain"),
        Data::Binary(_) => Some("application/octet-stream"),
        Data::Empty => None,
    });
    if let Some(content_type) = content_type.filter(|_| !binary) {
        spelled.attribute("datacontenttype", content_type);
    }
    let (payload, data) = if binary {
        head_line(["", "Content-Type"], content_type.unwrap_or("application/json"), &mut head);
        let length = delivery.data.bytes().len();
        (delivery.data.bytes().to_vec(), (0, length))
    } else {
        head_line(["", "Content-Type"], "application/cloudevents+json", &mut head);
        spelled.data(&delivery.data)
    };
    let sequence_at = if binary {
        let before = head.len();
        head.extend_from_slice(&spelled.out);
        before + sequence_at
    } else {
        sequence_at
    };
    let subject = style.template.fill(names, None, &[]);
    Draft { id: message_id(identity(delivery)), subject, head, payload, data, sequence_at, binary }
}

/// Attributes as they are being written.
struct Spelled {
    form: Form,
    out: Vec<u8>,
}

impl Spelled {
    fn begin(mode: Mode, data: usize) -> Self {
        let form = Form::new(mode);
        let mut out = Vec::with_capacity(640 + if form.is_structured() { data } else { 0 });
        out.extend_from_slice(if form.is_structured() {
            b"{\"specversion\":\"1.0\""
        } else {
            b"ce-specversion: 1.0\r\n"
        });
        Self { form, out }
    }

    fn attribute(&mut self, name: &str, value: &str) {
        self.form.attribute(name, value, &mut self.out);
    }

    /// Leaves room for the sequence; tells where.
    fn sequence(&mut self) -> usize {
        self.form.begin("sequence", "0000000000000000", &mut self.out);
        let at = self.out.len() - SEQUENCE_LEN;
        self.out.extend_from_slice(self.form.close);
        at
    }

    /// Ends a structured event with its data; tells where the data's member is.
    fn data(&mut self, data: &Data) -> (Vec<u8>, (usize, usize)) {
        let mut out = std::mem::take(&mut self.out);
        let from = out.len();
        match data {
            Data::Json(json) => {
                out.extend_from_slice(b",\"data\":");
                out.extend_from_slice(json);
            }
            Data::Text(text) => {
                out.extend_from_slice(b",\"data\":");
                out.extend_from_slice(&json_string(&String::from_utf8_lossy(text)));
            }
            Data::Binary(bytes) => {
                out.extend_from_slice(b",\"data_base64\":\"");
                out.extend_from_slice(STANDARD.encode(bytes).as_bytes());
                out.push(b'"');
            }
            Data::Empty => {}
        }
        let to = out.len();
        out.push(b'}');
        (out, (from, to))
    }
}

/// The caller's trace, else one that every retry of the delivery gets again.
fn trace<'a>(style: &Style, delivery: &'a Delivery, arrival: &'a Arrival) -> (String, Option<&'a str>) {
    let extension = |name: &str| {
        delivery.extensions.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    };
    let callers = [
        (extension("traceparent"), extension("tracestate")),
        (arrival.traceparent.as_deref(), arrival.tracestate.as_deref()),
    ];
    for (parent, state) in callers {
        if let Some(parent) = parent.filter(|parent| context::is_traceparent(parent)) {
            return (parent.to_owned(), state.filter(|state| is_printable(state)));
        }
    }
    let digest = Sha256::new()
        .chain_update(&style.source)
        .chain_update([0])
        .chain_update(identity(delivery))
        .finalize();
    let mut parent = String::with_capacity(55);
    parent.push_str("00-");
    push_hex(&digest[..16], &mut parent);
    parent.push('-');
    push_hex(&digest[16..24], &mut parent);
    parent.push_str("-01");
    (parent, None)
}

fn is_printable(text: &str) -> bool {
    text.len() <= 512 && text.bytes().all(|byte| (0x20..0x7f).contains(&byte))
}

/// One line of a message's head, its name in two parts. What would end the line or the head is left out.
fn head_line(name: [&str; 2], value: &str, head: &mut Vec<u8>) {
    let ends = |byte: &u8| matches!(byte, b'\r' | b'\n' | 0);
    if !name.iter().all(|part| part.bytes().all(|byte| byte.is_ascii_graphic() && byte != b':')) {
        return;
    }
    head.extend(name.iter().flat_map(|part| part.bytes()));
    head.extend_from_slice(b": ");
    if value.as_bytes().iter().any(ends) {
        head.extend(value.bytes().filter(|byte| !ends(byte)));
    } else {
        head.extend_from_slice(value.as_bytes());
    }
    head.extend_from_slice(b"\r\n");
}

/// A token that is not too long; what is cut off leaves its hash.
fn bounded(token: String) -> String {
    if token.len() <= LONGEST_TOKEN {
        return token;
    }
    let hash = fnv1a(&[token.as_bytes()]);
    let mut end = LONGEST_TOKEN - 9;
    // Neither a character nor a percent-encoded byte is cut in two.
    while !token.is_char_boundary(end) || token[..end].bytes().rev().take(2).any(|byte| byte == b'%') {
        end -= 1;
    }
    format!("{}~{hash:08x}", &token[..end])
}

/// What is the same again when the same delivery comes again, and only then.
fn identity(delivery: &Delivery) -> &str {
    delivery.identity.as_deref().unwrap_or(&delivery.id)
}

/// What the broker de-duplicates by: a delivery's identity, as a header may hold it.
fn message_id(id: &str) -> String {
    let mut encoded = Vec::with_capacity(id.len());
    encode::header_value(id.as_bytes(), &mut encoded);
    if encoded.len() > LONGEST_ID {
        let mut hash = "sha256:".to_owned();
        push_hex(&Sha256::digest(id), &mut hash);
        return hash;
    }
    String::from_utf8(encoded).unwrap_or_default()
}

fn push_hex(bytes: &[u8], text: &mut String) {
    text.extend(bytes.iter().flat_map(|byte| encode::hex(*byte)).map(char::from));
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use headgate_webhook::Integrity;
    use serde_json::Value;

    fn style(mode: Mode) -> Style {
        Style {
            source: "gh".to_owned(),
            uri: "/headgate/gh".to_owned(),
            mode,
            template: Template::parse("events.{source}.{entity}.{verb}.{partition}").unwrap(),
            partitions: 16,
        }
    }

    fn delivery() -> Delivery {
        Delivery {
            id: "72d3162e".to_owned(),
            identity: None,
            event_type: "com.github.issues.opened".to_owned(),
            entity: "issues".to_owned(),
            verb: "opened".to_owned(),
            key: None,
            time: Some(1_700_000_000_000_000),
            source: Some("https://api.github.com/repos/o/r".to_owned()),
            subject: Some("42".to_owned()),
            sequence: None,
            content_type: Some("application/json".to_owned()),
            data: Data::Json(Bytes::from_static(b"{ \"action\": \"opened\",\n \"n\": 1.50 }")),
            headers: vec![("x-github-event".to_owned(), "issues".to_owned())],
            extensions: Vec::new(),
            integrity: Integrity::Body,
        }
    }

    fn arrival(traceparent: Option<&str>) -> Arrival {
        Arrival {
            deliveries: Vec::new(),
            received_at: 1_700_000_001_000_000,
            traceparent: traceparent.map(str::to_owned),
            tracestate: Some("a=b".to_owned()),
        }
    }

    #[test]
    fn a_structured_event_has_the_body_untouched() {
        let message = draft(&style(Mode::Structured), &delivery(), &arrival(None)).stamp(0xabc);
        let text = std::str::from_utf8(&message.payload).unwrap();
        assert!(text.contains("{ \"action\": \"opened\",\n \"n\": 1.50 }"), "{text}");
        let event: Value = serde_json::from_str(text).unwrap();
        assert_eq!(event["sequence"], "0000000000000abc");
        assert_eq!(event["time"], "2023-11-14T22:13:20.000000Z");
        assert_eq!(event["recordedtime"], "2023-11-14T22:13:21.000000Z");
        assert_eq!((&event["subject"], &event["partitionkey"]), (&Value::from("42"), &Value::from("42")));
        assert_eq!(event["integrity"], "body");
        assert_eq!(message.subject, format!("events.gh.issues.opened.{}", fnv1a(&[b"42"]) % 16));
        let again = draft(&style(Mode::Structured), &delivery(), &arrival(None)).stamp(0xabc);
        assert_eq!(again.payload, message.payload, "a retry is the same event");
        let member = &message.payload[message.data.0..message.data.1];
        assert!(member.starts_with(b",\"data\":{") && member.ends_with(b"}"));
    }

    #[test]
    fn what_a_delivery_is_told_apart_by_and_ordered_by_can_be_its_own() {
        let own = Delivery { identity: Some("/a 1".to_owned()), key: Some("pk".to_owned()), ..delivery() };
        let message = draft(&style(Mode::Structured), &own, &arrival(None)).stamp(1);
        let event: Value = serde_json::from_slice(&message.payload).unwrap();
        assert_eq!((&event["id"], &event["subject"]), (&"72d3162e".into(), &"42".into()));
        assert_eq!(event["partitionkey"], "pk");
        assert_eq!(message.subject, format!("events.gh.issues.opened.{}", fnv1a(&[b"pk"]) % 16));
        let of = |identity: &str| {
            let delivery = Delivery { identity: Some(identity.to_owned()), ..own.clone() };
            draft(&style(Mode::Structured), &delivery, &arrival(None)).stamp(1).id
        };
        assert_eq!(message.id, of("/a 1"));
        assert_ne!(message.id, of("/b 1"));
        let keyed = Delivery { subject: None, ..own };
        let message = draft(&style(Mode::Structured), &keyed, &arrival(None)).stamp(1);
        let event: Value = serde_json::from_slice(&message.payload).unwrap();
        assert_eq!((&event["subject"], &event["partitionkey"]), (&Value::Null, &"pk".into()));
    }

    #[test]
    fn a_binary_event_is_headers_and_the_body() {
        let message = draft(&style(Mode::Binary), &delivery(), &arrival(None)).stamp(0xabc);
        let head = std::str::from_utf8(&message.head).unwrap();
        for line in [
            "ce-sequence: 0000000000000abc",
            "ce-id: 72d3162e",
            "Content-Type: application/json",
            "Http-x-github-event: issues",
        ] {
            assert!(head.lines().any(|found| found == line), "{head}");
        }
        assert_eq!(&*message.payload, delivery().data.bytes());
    }

    #[test]
    fn the_callers_trace_is_kept_if_it_is_one() {
        let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let event = |traceparent| -> Value {
            let message = draft(&style(Mode::Structured), &delivery(), &arrival(Some(traceparent))).stamp(1);
            serde_json::from_slice(&message.payload).unwrap()
        };
        assert_eq!(
            (&event(parent)["traceparent"], &event(parent)["tracestate"]),
            (&parent.into(), &"a=b".into())
        );
        let derived = event("00-zz");
        assert!(context::is_traceparent(derived["traceparent"].as_str().unwrap()));
        assert!(derived["tracestate"].is_null());
    }

    #[test]
    fn hostile_names_stay_within_their_tokens_and_lines() {
        let mut hostile = delivery();
        hostile.entity = "a.b *>\r\n".to_owned();
        hostile.verb = "é%".repeat(300);
        hostile.id = "x\r\nNats-Expected-Last-Sequence: 1".to_owned();
        hostile.headers =
            vec![("x-a".to_owned(), "1\r\nx: 2".to_owned()), ("x: b".to_owned(), "1".to_owned())];
        let message = draft(&style(Mode::Structured), &hostile, &arrival(None)).stamp(1);
        let tokens: Vec<&str> = message.subject.split('.').collect();
        assert_eq!((tokens.len(), tokens[2]), (5, "a%2Eb%20%2A%3E%0D%0A"));
        assert!(tokens[3].len() <= LONGEST_TOKEN && percent::decode(tokens[3]).is_some());
        assert!(!message.id.contains(['\r', '\n', ' ']));
        assert_eq!(std::str::from_utf8(&message.head).unwrap().lines().count(), 2);
        assert!(message_id(&"x".repeat(5000)).starts_with("sha256:"));
    }

    /// What the gateway itself says of an event is said once, whatever its sender calls his own.
    #[test]
    fn a_senders_extension_does_not_pass_for_the_gateways_own() {
        let mut hostile = delivery();
        hostile.extensions =
            OWN.iter().chain(&["shade"]).map(|name| ((*name).to_owned(), "forged".to_owned())).collect();
        for mode in [Mode::Structured, Mode::Binary] {
            let message = draft(&style(mode), &hostile, &arrival(None)).stamp(1);
            let text = format!("{:?} {:?}", message.head, message.payload);
            assert_eq!(text.matches("forged").count(), 1, "{text}");
        }
    }
}
