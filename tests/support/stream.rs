//! Reads a stream from its first message on, as a subscriber would.

use super::{database::Row, eventually, nats::Nats};
use async_nats::{
    HeaderMap,
    jetstream::{
        self,
        consumer::{DeliverPolicy, pull::OrderedConfig},
    },
};
use futures_util::StreamExt;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::{collections::BTreeMap, time::Duration};

/// One event, whatever the mode it was published in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Event {
    /// The subject of its message.
    pub(crate) subject: String,
    /// Attributes by name, as text.
    pub(crate) attributes: BTreeMap<String, String>,
    /// `data`, as far as it is a row change.
    pub(crate) data: Data,
}

impl Event {
    /// An attribute, empty where there is none.
    pub(crate) fn attribute(&self, name: &str) -> &str {
        self.attributes.get(name).map_or("", String::as_str)
    }
}

/// The data of a row change; of other events only what has the same name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Data {
    pub(crate) op: String,
    /// `schema.table`.
    pub(crate) table: String,
    pub(crate) key: Option<Row>,
    pub(crate) before: Option<Row>,
    pub(crate) after: Option<Row>,
    pub(crate) unavailable: Vec<String>,
    /// Half of a change of key.
    pub(crate) rekeyed: bool,
}

/// Reads a stream until an event that `is_last`, and what follows it within half a second.
///
/// # Panics
/// That event does not come in time, or a message is not a CloudEvent.
pub(crate) async fn read_until(
    nats: &Nats,
    stream: &str,
    within: Duration,
    is_last: impl Fn(&Event) -> bool,
) -> Vec<Event> {
    read_after(nats, stream, 0, within, is_last).await.0
}

/// The same from the message after the one with the sequence `after`; the last one's sequence too.
///
/// # Panics
/// As [`read_until`].
pub(crate) async fn read_after(
    nats: &Nats,
    stream: &str,
    after: u64,
    within: Duration,
    is_last: impl Fn(&Event) -> bool,
) -> (Vec<Event>, u64) {
    // A broker that was just restarted may drop the reader: it begins again.
    eventually("the stream holds everything", within, || async {
        let (mut events, mut sequence) = (Vec::new(), after);
        let jetstream = nats.jetstream().await;
        let mut messages = messages(&jetstream, stream, after).await?;
        let mut complete = false;
        loop {
            let patience = if complete { Duration::from_millis(500) } else { Duration::from_secs(10) };
            match tokio::time::timeout(patience, messages.next()).await {
                Ok(Some(Ok(message))) => {
                    let event = parse(&message);
                    sequence = message.info().map_err(|error| error.to_string())?.stream_sequence;
                    complete |= is_last(&event);
                    events.push(event);
                }
                Ok(Some(Err(error))) => return Err(error.to_string()),
                Ok(None) => return Err("the subscription ended".to_owned()),
                Err(_) if complete => return Ok((events, sequence)),
                Err(_) => {
                    let last = events.last().map_or("none", |event: &Event| event.attribute("id"));
                    return Err(format!("{} events, the last is {last}", events.len()));
                }
            }
        }
    })
    .await
}

/// The sequence of the last message that a stream holds now.
pub(crate) async fn last_sequence(nats: &Nats, stream: &str) -> u64 {
    nats.jetstream().await.get_stream(stream).await.unwrap().cached_info().state.last_sequence
}

/// Reads what a stream holds now.
pub(crate) async fn read(nats: &Nats, stream: &str) -> Vec<Event> {
    let jetstream = nats.jetstream().await;
    let count = jetstream.get_stream(stream).await.unwrap().cached_info().state.messages;
    // A cluster that has just been started may have a leader of the stream before one that makes consumers.
    let mut messages =
        eventually("the stream can be read", Duration::from_secs(30), || messages(&jetstream, stream, 0))
            .await;
    let mut events = Vec::new();
    for _ in 0..count {
        let message =
            tokio::time::timeout(Duration::from_secs(10), messages.next()).await.expect("the next message");
        events.push(parse(&message.expect("the subscription lives").unwrap()));
    }
    events
}

/// The data of everything that a stream holds now, as JSON; of structured events.
pub(crate) async fn read_data(nats: &Nats, stream: &str) -> Vec<serde_json::Value> {
    let jetstream = nats.jetstream().await;
    let count = jetstream.get_stream(stream).await.unwrap().cached_info().state.messages;
    let mut messages = messages(&jetstream, stream, 0).await.unwrap();
    let mut data = Vec::new();
    for _ in 0..count {
        let message =
            tokio::time::timeout(Duration::from_secs(10), messages.next()).await.expect("the next message");
        let event: serde_json::Value = serde_json::from_slice(&message.unwrap().unwrap().payload).unwrap();
        data.push(event["data"].clone());
    }
    data
}

async fn messages(
    jetstream: &jetstream::Context,
    stream: &str,
    after: u64,
) -> Result<jetstream::consumer::pull::Ordered, String> {
    let stream = jetstream.get_stream(stream).await.map_err(|error| error.to_string())?;
    let deliver_policy = DeliverPolicy::ByStartSequence { start_sequence: after + 1 };
    let config = OrderedConfig { deliver_policy, ..OrderedConfig::default() };
    let consumer = stream.create_consumer(config).await.map_err(|error| error.to_string())?;
    consumer.messages().await.map_err(|error| error.to_string())
}

fn parse(message: &jetstream::Message) -> Event {
    let headers = message.headers.clone().unwrap_or_default();
    from_message(&message.subject, &headers, &message.payload)
        .unwrap_or_else(|error| panic!("not a CloudEvent on {}: {error}: {message:?}", message.subject))
}

fn from_message(subject: &str, headers: &HeaderMap, payload: &[u8]) -> Result<Event, serde_json::Error> {
    let mut event = Event { subject: subject.to_owned(), ..Event::default() };
    let structured = headers
        .get("Content-Type")
        .is_some_and(|kind| kind.as_str().starts_with("application/cloudevents+json"));
    if structured {
        let whole: BTreeMap<String, &RawValue> = serde_json::from_slice(payload)?;
        for (name, value) in whole {
            if name == "data" {
                event.data = data(value.get().as_bytes())?;
            } else {
                let text =
                    serde_json::from_str::<String>(value.get()).unwrap_or_else(|_| value.get().to_owned());
                event.attributes.insert(name, text);
            }
        }
    } else {
        for (name, values) in headers.iter() {
            if let (Some(name), Some(value)) = (name.to_string().strip_prefix("ce-"), values.first()) {
                event.attributes.insert(name.to_owned(), percent_decoded(value.as_str()));
            }
        }
        // One that is kept elsewhere (`dataref`) has none here.
        if !payload.is_empty() {
            event.data = data(payload)?;
        }
    }
    if event.data.op.is_empty() {
        let kind = event.attribute("type").rsplit('.').next().unwrap_or_default();
        event.data.op = kind.to_owned();
    }
    Ok(event)
}

/// The CloudEvents header form of an attribute, read back.
pub(crate) fn percent_decoded(value: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = value.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let code = after.get(..2).and_then(|code| std::str::from_utf8(code).ok());
        match code.and_then(|code| u8::from_str_radix(code, 16).ok()) {
            Some(byte) if *first == b'%' => (rest, _) = (&after[2..], bytes.push(byte)),
            _ => (rest, _) = (after, bytes.push(*first)),
        }
    }
    String::from_utf8(bytes).expect("a header is UTF-8")
}

#[derive(Deserialize)]
struct RawData<'a> {
    #[serde(default)]
    op: String,
    #[serde(default)]
    schema: String,
    #[serde(default)]
    table: String,
    #[serde(borrow, default)]
    key: Option<BTreeMap<String, &'a RawValue>>,
    #[serde(borrow, default)]
    before: Option<BTreeMap<String, &'a RawValue>>,
    #[serde(borrow, default)]
    after: Option<BTreeMap<String, &'a RawValue>>,
    #[serde(default)]
    unavailable: Vec<String>,
    #[serde(borrow, default)]
    rekeyed: Option<&'a RawValue>,
}

fn data(json: &[u8]) -> Result<Data, serde_json::Error> {
    let raw: RawData<'_> = serde_json::from_slice(json)?;
    let row = |row: Option<BTreeMap<String, &RawValue>>| {
        row.map(|row| row.into_iter().map(|(column, value)| (column, canonical(value.get()))).collect())
    };
    Ok(Data {
        op: raw.op,
        table: format!("{}.{}", raw.schema, raw.table),
        key: row(raw.key),
        before: row(raw.before),
        after: row(raw.after),
        unavailable: raw.unavailable,
        rekeyed: raw.rekeyed.is_some_and(|link| link.get() != "null"),
    })
}

/// One spelling for equal JSON: no blanks, sorted names, one way to escape. A number keeps every digit that it has.
pub(crate) fn canonical(json: &str) -> String {
    let json = json.trim();
    let spelled = match json.as_bytes().first() {
        Some(b'"') => serde_json::from_str::<String>(json).and_then(|text| serde_json::to_string(&text)),
        Some(b'[') => serde_json::from_str::<Vec<&RawValue>>(json).map(|items| {
            let items: Vec<String> = items.iter().map(|item| canonical(item.get())).collect();
            format!("[{}]", items.join(","))
        }),
        Some(b'{') => serde_json::from_str::<BTreeMap<String, &RawValue>>(json).map(|members| {
            let members: Vec<String> = members
                .iter()
                .map(|(name, value)| {
                    format!("{}:{}", serde_json::Value::from(name.as_str()), canonical(value.get()))
                })
                .collect();
            format!("{{{}}}", members.join(","))
        }),
        _ => Ok(json.to_owned()),
    };
    spelled.unwrap_or_else(|error| panic!("not JSON: {error}: {json}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_modes_read_as_the_same_event() {
        let data = r#"{"op":"updated","schema":"public","table":"orders","key":{"id":42},"before":null,
            "after":{"id":42,"note":"\u2603"},"changed":[],"unavailable":["body"]}"#;
        let whole = format!(
            r#"{{"specversion":"1.0","id":"x","type":"shop.orders.updated","txindex":3,"txlast":true,"data":{data}}}"#
        );
        let mut headers = HeaderMap::new();
        headers.insert("Content-Type", "application/cloudevents+json; charset=utf-8");
        let structured = from_message("s", &headers, whole.as_bytes()).unwrap();
        let mut headers = HeaderMap::new();
        headers.insert("Content-Type", "application/json");
        for (name, value) in [
            ("specversion", "1.0"),
            ("id", "x"),
            ("type", "shop.orders.updated"),
            ("txindex", "3"),
            ("txlast", "true"),
        ] {
            headers.insert(format!("ce-{name}").as_str(), value);
        }
        let binary = from_message("s", &headers, data.as_bytes()).unwrap();
        assert_eq!(structured, binary);
        assert_eq!(structured.attribute("txindex"), "3");
        assert_eq!(structured.data.after.unwrap()["note"], "\"☃\"");
        assert_eq!(structured.data.unavailable, ["body"]);
    }

    #[test]
    fn headers_are_percent_decoded_once() {
        assert_eq!(percent_decoded("labels/a%252Fb%20%e2%98%83%"), "labels/a%2Fb \u{2603}%");
    }

    #[test]
    fn canonical_json_forgets_spelling_and_keeps_digits() {
        assert_eq!(canonical(r#" {"b": [1.50, "\u00e9"], "a": null} "#), r#"{"a":null,"b":[1.50,"é"]}"#);
        assert_ne!(canonical("12345678901234567890.10"), canonical("12345678901234567890.1"));
    }
}
