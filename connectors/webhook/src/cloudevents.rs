//! CloudEvents over HTTP: the events are there already, in the three content modes of the HTTP protocol binding
//! (CloudEvents 1.0.2, HTTP binding §3, JSON format §§2–4).
//!
//! Attributes are checked as the specification writes them (§3): names of `a-z0-9`, `id`, `source`, `type` and
//! `specversion` 1.0 required. An event that already carries what the gateway adds keeps its own.

use crate::{
    Data, Delivery, Integrity, Reason,
    json::{self, Value},
    mapping::time,
    template::Scope,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use percent_encoding::percent_decode_str;

/// Most events of one batch.
const BATCH: usize = 10_000;

/// Longest name of an attribute.
const NAME: usize = 64;

fn wrong(what: impl Into<String>) -> Reason {
    Reason::Body(what.into())
}

/// The events of a verified request.
pub(crate) fn deliveries(scope: &Scope<'_>, integrity: Integrity) -> Result<Vec<Delivery>, Reason> {
    let content_type = scope.header(&CONTENT_TYPE)?.unwrap_or_default();
    let media = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match media.as_str() {
        "application/cloudevents+json" => {
            let event = json::parse(scope.request.body).map_err(wrong)?;
            Ok(vec![structured(event, integrity)?])
        }
        "application/cloudevents-batch+json" => {
            let batch = json::parse(scope.request.body).map_err(wrong)?;
            let events = batch.elements().ok_or_else(|| wrong("a batch is a JSON array"))?;
            if events.len() > BATCH {
                return Err(wrong(format!("more than {BATCH} events")));
            }
            events.into_iter().map(|event| structured(event, integrity)).collect()
        }
        media if media.starts_with("application/cloudevents") => {
            Err(Reason::Format("CloudEvents in another event format than JSON".to_owned()))
        }
        _ => Ok(vec![binary(scope, content_type, integrity)?]),
    }
}

fn structured(event: Value<'_>, integrity: Integrity) -> Result<Delivery, Reason> {
    let members = event.members().ok_or_else(|| wrong("an event is a JSON object"))?;
    let mut attributes = Vec::new();
    let mut data = Data::Empty;
    for (name, value) in members {
        match name.as_ref() {
            "data" => data = Data::Json(Bytes::copy_from_slice(value.text().as_bytes())),
            "data_base64" => {
                let text = value.scalar().ok_or_else(|| wrong("data_base64 is a string"))?;
                let bytes =
                    STANDARD.decode(text.as_bytes()).map_err(|_| wrong("data_base64 is not base64"))?;
                data = Data::Binary(Bytes::from(bytes));
            }
            _ => {
                if value.elements().is_some() || value.is_object() {
                    return Err(wrong("an attribute is no scalar"));
                }
                attributes.extend(value.scalar().map(|value| (name.into_owned(), value.into_owned())));
            }
        }
    }
    // The JSON of a string is the string: data of a text type travels as that (JSON format §3.1).
    let text_type = attributes.iter().any(|(name, value)| name == "datacontenttype" && !is_json(value));
    if let (true, Data::Json(raw)) = (text_type, &data)
        && let Ok(value) = json::parse(raw)
        && raw.starts_with(b"\"")
        && let Some(text) = value.scalar()
    {
        data = Data::Text(Bytes::from(text.into_owned()));
    }
    delivery(attributes, data, integrity)
}

fn binary(scope: &Scope<'_>, content_type: &str, integrity: Integrity) -> Result<Delivery, Reason> {
    let mut attributes = Vec::new();
    for name in scope.request.headers.keys() {
        if let Some(attribute) = name.as_str().strip_prefix("ce-") {
            let value = scope.header(name)?.unwrap_or_default();
            let value = percent_decode_str(value).decode_utf8();
            let value = value.map_err(|_| Reason::Malformed(format!("header {name}")))?;
            attributes.push((attribute.to_owned(), value.into_owned()));
        }
    }
    if attributes.is_empty() {
        return Err(Reason::Format("neither ce- headers nor a CloudEvents content type".to_owned()));
    }
    if !content_type.is_empty() {
        attributes.push(("datacontenttype".to_owned(), content_type.to_owned()));
    }
    let body = Bytes::copy_from_slice(scope.request.body);
    let data = if body.is_empty() {
        Data::Empty
    } else if is_json(content_type) {
        json::parse(&body).map_err(wrong)?;
        Data::Json(body)
    } else if std::str::from_utf8(&body).is_ok() {
        Data::Text(body)
    } else {
        Data::Binary(body)
    };
    delivery(attributes, data, integrity)
}

/// Whether a media type is JSON.
pub(crate) fn is_json(content_type: &str) -> bool {
    let media = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    media.ends_with("/json") || media.ends_with("+json")
}

fn delivery(attributes: Vec<(String, String)>, data: Data, integrity: Integrity) -> Result<Delivery, Reason> {
    let mut event = Delivery {
        id: String::new(),
        identity: None,
        event_type: String::new(),
        entity: String::new(),
        verb: String::new(),
        key: None,
        time: None,
        source: None,
        subject: None,
        sequence: None,
        content_type: None,
        data,
        headers: Vec::new(),
        extensions: Vec::new(),
        integrity,
    };
    let mut version = String::new();
    for (name, value) in attributes {
        if name.len() > NAME || !name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit()) {
            return Err(wrong("an attribute's name may hold a to z and 0 to 9 only"));
        }
        if value.is_empty() || value.chars().any(char::is_control) {
            return Err(wrong("an attribute is empty or has control characters"));
        }
        match name.as_str() {
            "specversion" => version = value,
            "id" => event.id = value,
            "source" => event.source = Some(value),
            "type" => event.event_type = value,
            "subject" => event.subject = Some(value),
            "time" => {
                event.time = Some(time(&value).ok_or_else(|| wrong("attribute time is not RFC 3339"))?);
            }
            "datacontenttype" => event.content_type = Some(value),
            "partitionkey" => event.key = Some(value),
            "sequence" => event.sequence = Some(value),
            _ => event.extensions.push((name, value)),
        }
    }
    if version != "1.0" {
        return Err(wrong("specversion has to be 1.0"));
    }
    if event.id.is_empty() || event.event_type.is_empty() || event.source.is_none() {
        return Err(wrong("id, source and type have to be there"));
    }
    // CloudEvents 1.0.2, §3.1: only source and id together are unique.
    event.identity = event.source.as_ref().map(|source| format!("{source} {}", event.id));
    if event.content_type.is_none() && matches!(event.data, Data::Json(_)) {
        event.content_type = Some("application/json".to_owned());
    }
    let (things, verb) = event.event_type.rsplit_once('.').unwrap_or((&event.event_type, "received"));
    event.entity = things.rsplit('.').next().filter(|thing| !thing.is_empty()).unwrap_or("event").to_owned();
    event.verb = if verb.is_empty() { "received".to_owned() } else { verb.to_owned() };
    event.key = event.key.or_else(|| event.subject.clone());
    Ok(event)
}
