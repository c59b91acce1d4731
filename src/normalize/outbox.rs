//! An outbox: a table whose inserts are events of their own kinds, written by an application in its own transaction.
//!
//! Each insert is one event and takes one index of its transaction. Updates, deletes and truncates of the table are
//! silent and take none: who empties an outbox, or notes in it what was sent, says nothing new.

use super::{
    context, encode,
    form::{Form, json_string},
    key,
};
use crate::{config, schema::Envelope};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use headgate_sdk::{Cell, Relation, percent};
use serde_json::{Value, value::RawValue};

/// The longest entity, verb and id, in bytes: a broker takes 4 KiB of a subject at most.
const MAX_NAME: usize = 255;
/// What headers may weigh, as in a `headgate.context` message.
const MAX_HEADERS: usize = 8 << 10;
const MAX_ATTRIBUTES: usize = 32;
/// The longest attribute name that CloudEvents advises.
const MAX_ATTRIBUTE: usize = 20;

/// The columns of an outbox, found in one version of its table.
#[derive(Debug)]
pub(super) struct Outbox {
    id: Option<usize>,
    entity: Option<usize>,
    kind: usize,
    key: Option<usize>,
    payload: usize,
    headers: Option<usize>,
}

/// What an outbox row says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Letter {
    /// The writer's own id of the event.
    pub id: Option<String>,
    /// What it is about, as a token.
    pub entity: String,
    /// What happened, as a token.
    pub verb: String,
    /// The ordering key, percent-encoded; empty for none.
    pub key: Vec<u8>,
    /// The writer's own attributes.
    pub attributes: Vec<(String, String)>,
    /// The event's data.
    pub body: Body,
}

/// The data of an outbox event.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Body {
    /// JSON, byte for byte.
    Json(Vec<u8>),
    /// Text that is not JSON.
    Text(String),
    /// Bytes, in base64.
    Base64(String),
}

impl Outbox {
    /// Finds the columns that the settings name, and the others under their usual names.
    ///
    /// # Errors
    /// What is missing.
    pub(super) fn new(settings: &config::Outbox, columns: &[&str]) -> Result<Self, String> {
        let place = |name: &str| columns.iter().position(|column| *column == name);
        let find = |named: &Option<String>, usual: &[&str]| match named {
            Some(name) => place(name).map(Some).ok_or_else(|| format!("column {name}")),
            None => Ok(usual.iter().find_map(|name| place(name))),
        };
        let need = |found: Option<usize>, what: &str| found.ok_or_else(|| format!("a column {what}"));
        Ok(Self {
            id: find(&settings.id, &["id"])?,
            entity: find(&settings.entity, &["aggregatetype", "entity"])?,
            kind: need(find(&settings.kind, &["type"])?, "type")?,
            key: find(&settings.key, &["aggregateid", "key"])?,
            payload: need(find(&settings.payload, &["payload"])?, "payload")?,
            headers: find(&settings.headers, &["headers"])?,
        })
    }

    /// The place of the column that the events' id is taken from.
    pub(super) fn id(&self) -> Option<usize> {
        self.id
    }

    /// The columns that its letters are made of, each with what it is for.
    pub(super) fn envelope(&self, relation: &Relation) -> Envelope {
        let parts = [
            ("id", self.id),
            ("entity", self.entity),
            ("type", Some(self.kind)),
            ("key", self.key),
            ("payload", Some(self.payload)),
            ("headers", self.headers),
        ];
        Envelope::of(relation, parts.into_iter().filter_map(|(part, place)| Some((part, place?))))
    }

    /// Reads a row.
    ///
    /// # Errors
    /// Why it is no event, without any value of it.
    pub(super) fn read(&self, relation: &Relation, row: &[Cell<'_>], source: &str) -> Result<Letter, String> {
        let text = |index: Option<usize>| -> Result<Option<String>, String> {
            let Some(index) = index else { return Ok(None) };
            Ok(json(relation, row, index)?.map(|json| key::plain(&json).into_owned()))
        };
        let short = |text: Option<String>, what: &str| match text {
            Some(text) if text.len() > MAX_NAME => Err(format!("its {what} is longer than {MAX_NAME} bytes")),
            text => Ok(text.filter(|text| !text.is_empty())),
        };
        let kind = short(text(Some(self.kind))?, "type")?.ok_or("it has no type")?;
        let entity = short(text(self.entity)?, "entity")?;
        let (entity, verb) = match (entity, kind.rsplit_once('.')) {
            (Some(entity), _) => (entity, kind.as_str()),
            (None, Some((entity, verb))) if !entity.is_empty() && !verb.is_empty() => {
                (entity.to_owned(), verb)
            }
            (None, _) => (kind.clone(), "event"),
        };
        // What the gateway says of a table or of its log must not be mistaken, nor hidden.
        let (entity, verb) = match verb {
            "schema" | "gap" => (format!("{entity}.{verb}"), "event"),
            verb => (entity, verb),
        };
        let mut encoded = Vec::new();
        percent::encode(text(self.key)?.unwrap_or_default().as_bytes(), &mut encoded);
        let headers = self.headers.map_or(Ok(None), |index| json(relation, row, index))?;
        Ok(Letter {
            id: short(text(self.id)?, "id")?,
            entity: encode::token(&entity),
            verb: encode::token(verb),
            key: encoded,
            attributes: headers.map_or_else(Vec::new, |json| attributes(&json, source, &relation.table)),
            body: self.body(relation, row)?,
        })
    }

    fn body(&self, relation: &Relation, row: &[Cell<'_>]) -> Result<Body, String> {
        let Some(json) = json(relation, row, self.payload)? else { return Ok(Body::Json(b"null".to_vec())) };
        if !json.starts_with(b"\"") {
            return Ok(Body::Json(json));
        }
        let type_name = relation.columns[self.payload].type_name.as_str();
        if matches!(type_name, "json" | "jsonb") {
            return Ok(Body::Json(json));
        }
        let text = key::plain(&json).into_owned();
        let is_binary = type_name == "bytea" || type_name.contains("blob") || type_name.contains("binary");
        if is_binary {
            return Ok(Body::Base64(text));
        }
        Ok(match serde_json::from_str::<&RawValue>(&text) {
            Ok(json) => Body::Json(json.get().as_bytes().to_vec()),
            Err(_) => Body::Text(text),
        })
    }
}

impl Body {
    /// Appends the data, in structured form as the member of the event.
    pub(super) fn write(&self, form: &Form, out: &mut Vec<u8>) {
        if form.is_structured() {
            out.extend_from_slice(if matches!(self, Self::Base64(_)) {
                b",\"data_base64\":"
            } else {
                b",\"data\":"
            });
        }
        match self {
            Self::Json(json) => out.extend_from_slice(json),
            Self::Text(text) if form.is_structured() => out.extend_from_slice(&json_string(text)),
            Self::Text(text) => out.extend_from_slice(text.as_bytes()),
            Self::Base64(text) if form.is_structured() => out.extend_from_slice(&json_string(text)),
            // A writer's base64 decodes.
            Self::Base64(text) => out.extend_from_slice(&BASE64.decode(text).unwrap_or_default()),
        }
    }
}

/// A column's value as JSON; `None` for NULL.
fn json(relation: &Relation, row: &[Cell<'_>], index: usize) -> Result<Option<Vec<u8>>, String> {
    match row.get(index) {
        Some(Cell::Value(raw)) => {
            let mut out = Vec::with_capacity(raw.len() + 2);
            let column = &relation.columns[index];
            column.writer.write(raw, &mut out).map_err(|error| format!("column {}: {error}", column.name))?;
            Ok(Some(out))
        }
        Some(Cell::Null | Cell::Unavailable) | None => Ok(None),
    }
}

/// The headers of an outbox row as attributes. Names are brought to what CloudEvents allows: lower case, letters and
/// digits, 20 at most. Headers that are no JSON object set nothing, and neither does one that would be an attribute of the
/// gateway's own; the event comes all the same.
fn attributes(json: &[u8], source: &str, table: &str) -> Vec<(String, String)> {
    // A text column may hold the object as text.
    let text = key::plain(json);
    let parsed = if text.len() > MAX_HEADERS { None } else { serde_json::from_str(&text).ok() };
    let Some(Value::Object(headers)) = parsed else {
        tracing::warn!(
            source,
            table,
            "the headers of an outbox row are no JSON object of at most {MAX_HEADERS} bytes, and set nothing"
        );
        return Vec::new();
    };
    let mut attributes: Vec<(String, String)> = Vec::new();
    for (header, value) in headers {
        let name: String = header.chars().filter(char::is_ascii_alphanumeric).take(MAX_ATTRIBUTE).collect();
        let name = name.to_ascii_lowercase();
        let text = match value {
            Value::Null => continue,
            Value::String(text) => text,
            other => other.to_string(),
        };
        let sound = !name.is_empty()
            && !context::is_reserved(&name)
            && (name != "traceparent" || context::is_traceparent(&text))
            && !attributes.iter().any(|(known, _)| *known == name)
            && attributes.len() < MAX_ATTRIBUTES;
        if sound {
            attributes.push((name, text));
        } else {
            tracing::debug!(
                source,
                table,
                header,
                "a header of an outbox row is not an attribute, and is left out"
            );
        }
    }
    attributes
}
