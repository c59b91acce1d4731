//! An AsyncAPI 3 document of all subjects and messages: what a subscriber can expect where. Pure.

use super::{Stored, shape::ABOUT};
use crate::normalize::encode;
use serde_json::{Map, Value, json};

/// What happens to a row; each is a subject of its own.
const VERBS: [&str; 5] = ["created", "updated", "deleted", "truncated", "snapshot"];
/// The messages of every table's new shape, of lost history, and of what writers say by logical messages.
const CHANGE: &str = "headgate.schema";
const GAP: &str = "headgate.gap";
const MESSAGE: &str = "headgate.message";

/// A source that reads a database's log.
#[derive(Clone, Copy, Debug)]
pub struct LogSource<'a> {
    /// Its name.
    pub name: &'a str,
    /// Whether logical messages become events.
    pub messages: bool,
}

/// What all events of one kind are, and where they go.
struct Channel {
    id: String,
    address: String,
    message: String,
}

/// The document for the newest version of each entity, and for what `sources` tell beside them. `servers` are the broker's
/// addresses, without credentials; `template` is that of subjects.
#[must_use]
pub fn document(
    name: &str,
    servers: &[String],
    template: &str,
    sources: &[LogSource<'_>],
    versions: &[Stored],
) -> Value {
    let (mut channels, mut messages, mut schemas) = (Vec::new(), Map::new(), Map::new());
    for version in newest(versions) {
        let mut id = identifier(&format!("{}.{}", version.source, version.entity));
        while schemas.contains_key(&id) {
            // Two names that differ only in what an identifier may not hold.
            id.push('_');
        }
        messages.insert(id.clone(), message(&id, &version.document["title"]));
        schemas.insert(id.clone(), embedded(&version.document, &id));
        channels.extend(channels_of(&id, version, template));
    }
    for source in sources {
        let of = |verb: &str, entity: &str, message: &str| Channel {
            id: format!("{}.headgate.{verb}", source.name),
            address: address(template, source.name, entity, if verb == "message" { "{verb}" } else { verb }),
            message: message.to_owned(),
        };
        channels.push(of("gap", "headgate", GAP));
        if source.messages {
            channels.push(of("message", "{entity}", MESSAGE));
        }
    }
    for (id, title, schema) in [
        (CHANGE, "a table's new shape", change()),
        (GAP, "history that is lost", gap()),
        (MESSAGE, "a logical message", logical_message()),
    ] {
        if channels.iter().any(|channel| channel.message == id) {
            messages.insert(id.to_owned(), message(id, &json!(title)));
            schemas.insert(id.to_owned(), schema);
        }
    }
    let operations: Map<String, Value> = channels
        .iter()
        .map(|Channel { id, .. }| {
            let reference = format!("#/channels/{id}");
            (format!("receive.{id}"), json!({ "action": "receive", "channel": { "$ref": reference } }))
        })
        .collect();
    let channels: Map<String, Value> = channels.iter().map(channel).collect();
    let servers: Map<String, Value> = servers
        .iter()
        .enumerate()
        .map(|(index, url)| {
            let host = url.split_once("://").map_or(url.as_str(), |(_, host)| host);
            (format!("nats{index}"), json!({ "host": host, "protocol": "nats" }))
        })
        .collect();
    json!({
        "asyncapi": "3.0.0",
        "info": {
            "title": name,
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Changes as CloudEvents on NATS JetStream, by Headgate. Each source has one stream, EVENTS_{source}.",
        },
        "defaultContentType": "application/cloudevents+json",
        "servers": servers,
        "channels": channels,
        "operations": operations,
        "components": { "messages": messages, "schemas": schemas },
    })
}

/// The last version of each entity.
fn newest(versions: &[Stored]) -> Vec<&Stored> {
    let mut newest: Vec<&Stored> = Vec::new();
    for version in versions {
        match newest.last_mut() {
            Some(last) if last.source == version.source && last.entity == version.entity => *last = version,
            _ => newest.push(version),
        }
    }
    newest
}

/// Where events of a version go.
fn channels_of(id: &str, version: &Stored, template: &str) -> Vec<Channel> {
    let Stored { source, entity, document, .. } = version;
    let channel =
        |id: String, address: String, message: &str| Channel { id, address, message: message.to_owned() };
    match document[ABOUT]["kind"].as_str() {
        // Its name is entity and verb.
        Some("event" | "letter") => {
            let (entity, verb) = entity.rsplit_once('.').unwrap_or((entity, "{verb}"));
            vec![channel(id.to_owned(), address(template, source, entity, verb), id)]
        }
        // What its rows are about, they say themselves.
        Some("outbox") => {
            vec![channel(id.to_owned(), address(template, source, "{entity}", "{verb}"), id)]
        }
        _ => {
            let of = |name: &str| {
                document["properties"][name]["const"].as_str().map_or(format!("{{{name}}}"), encode::token)
            };
            let address = |verb: &str| {
                let address = address(template, source, entity, verb);
                address.replace("{schema}", &of("schema")).replace("{table}", &of("table"))
            };
            let rows = VERBS.iter().map(|verb| channel(format!("{id}.{verb}"), address(verb), id));
            let change = channel(format!("{id}.schema"), address("schema"), CHANGE);
            rows.chain([change]).collect()
        }
    }
}

/// The template for one kind of event. A parameter's name holds letters, digits, `_` and `-` only.
fn address(template: &str, source: &str, entity: &str, verb: &str) -> String {
    template
        .replace("{source}", source)
        .replace("{verb}", verb)
        .replace("{entity}", entity)
        .split('{')
        .enumerate()
        .map(|(nth, part)| match part.split_once('}') {
            Some((name, rest)) if nth > 0 => format!("{{{}}}{rest}", identifier(&name.replace('.', "_"))),
            _ => part.to_owned(),
        })
        .collect()
}

fn channel(channel: &Channel) -> (String, Value) {
    let parameters: Map<String, Value> = channel
        .address
        .split('{')
        .skip(1)
        .filter_map(|rest| rest.split_once('}'))
        .map(|(name, _)| (name.to_owned(), json!({ "description": parameter(name) })))
        .collect();
    let reference = format!("#/components/messages/{}", channel.message);
    let described = json!({
        "address": channel.address,
        "messages": { "event": { "$ref": reference } },
        "parameters": parameters,
    });
    (channel.id.clone(), described)
}

fn parameter(name: &str) -> String {
    match name {
        "entity" => "what the event is about, as its writer says".to_owned(),
        "verb" => "what happened, as its writer says".to_owned(),
        "key" => "the key of the row".to_owned(),
        "schema" => "the table's schema".to_owned(),
        "table" => "the table".to_owned(),
        "partition" => "FNV-1a of partitionkey, modulo gateway.partitions".to_owned(),
        column => format!("the value of the column {}", column.trim_start_matches("column_")),
    }
}

/// A version's schema as part of this document: AsyncAPI knows the words of JSON Schema's draft 7, where `$ref` stands alone, and
/// its tools look references up from the document's root.
fn embedded(schema: &Value, id: &str) -> Value {
    let mut schema = referring(schema, id);
    if let Value::Object(members) = &mut schema {
        members.remove("$schema");
        members.remove("$id");
        if let Some(parts) = members.remove("$defs") {
            members.insert("definitions".to_owned(), parts);
        }
    }
    schema
}

fn referring(value: &Value, id: &str) -> Value {
    match value {
        Value::Array(items) => items.iter().map(|item| referring(item, id)).collect(),
        Value::Object(members) => {
            let mut members: Map<String, Value> =
                members.iter().map(|(name, member)| (name.clone(), referring(member, id))).collect();
            let part = members.get("$ref").and_then(Value::as_str).and_then(|of| of.strip_prefix("#/$defs/"));
            if let Some(part) = part {
                let reference = json!({ "$ref": format!("#/components/schemas/{id}/definitions/{part}") });
                members.remove("$ref");
                if members.is_empty() {
                    return reference;
                }
                members.insert("allOf".to_owned(), json!([reference]));
            }
            Value::Object(members)
        }
        other => other.clone(),
    }
}

/// The data of a `schema` event.
fn change() -> Value {
    let names = json!({ "type": "array", "items": { "type": "string" } });
    let column = json!({
        "type": "object",
        "required": ["name", "type"],
        "properties": {
            "name": { "type": "string" },
            "type": { "type": "string", "description": "the database's name of it" },
            "nullable": { "type": "boolean", "description": "absent where it is not known" },
        },
    });
    json!({
        "type": "object",
        "required": ["op", "schema", "table", "from", "to", "compatible", "changes", "diff", "shape"],
        "properties": {
            "op": { "const": "schema" },
            "schema": { "type": "string" },
            "table": { "type": "string" },
            "from": { "type": "string" },
            "to": { "type": "string" },
            "compatible": { "type": "boolean" },
            "changes": names,
            "diff": { "type": "array", "items": { "type": "object", "required": ["change"] } },
            "shape": {
                "type": "object",
                "required": ["columns", "key"],
                "properties": { "columns": { "type": "array", "items": column }, "key": names },
            },
        },
    })
}

/// The data of a `gap` event.
fn gap() -> Value {
    let place = json!({
        "type": ["object", "null"],
        "properties": { "epoch": { "type": "integer" }, "log": { "type": "string" } },
    });
    json!({
        "type": "object",
        "required": ["op", "reason"],
        "properties": {
            "op": { "const": "gap" },
            "reason": { "type": "string" },
            "from": place,
            "to": place,
            "bytes": { "type": ["integer", "null"] },
        },
    })
}

/// The data of a logical message's event.
fn logical_message() -> Value {
    json!({
        "type": "object",
        "required": ["op", "prefix", "transactional"],
        "properties": {
            "op": { "const": "message" },
            "prefix": { "type": "string" },
            "transactional": { "type": "boolean" },
            "content": { "description": "JSON as it was written, else a text" },
            "content_base64": { "type": "string", "description": "what is neither" },
        },
    })
}

fn message(id: &str, title: &Value) -> Value {
    let schema = format!("#/components/schemas/{id}");
    json!({
        "name": id,
        "title": title,
        "contentType": "application/cloudevents+json",
        "payload": {
            "type": "object",
            "required": ["specversion", "id", "source", "type"],
            "properties": {
                "specversion": { "const": "1.0" },
                "id": { "type": "string" },
                "source": { "type": "string" },
                "type": { "type": "string" },
                "subject": { "type": "string" },
                "partitionkey": { "type": "string" },
                "sequence": { "type": "string" },
                "time": { "type": "string", "format": "date-time" },
                "dataschema": { "type": "string" },
                "data": { "$ref": schema },
            },
        },
    })
}

/// A key of the components object may hold letters, digits and `._-`.
fn identifier(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-') { c } else { '_' })
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const TEMPLATE: &str = "events.{source}.{entity}.{verb}.{partition}";

    fn version(entity: &str, number: u64) -> Stored {
        let row = json!({ "$ref": "#/$defs/row" });
        let mut document = json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "$id": format!("urn:{entity}"),
            "title": format!("{entity} {number}"),
            "properties": {
                "schema": { "const": "public" }, "table": { "const": entity },
                "after": { "anyOf": [row, { "type": "null" }] },
            },
            "$defs": { "row": { "properties": { "$defs": {}, "$id": {} } } },
            "x-headgate": { "kind": match entity { "deal.won" => "event", "letters" => "outbox", _ => "table" } },
        });
        if entity == "deal.won" {
            document["$ref"] = json!("#/$defs/row");
        }
        let (source, entity, hash) = ("shop".to_owned(), entity.to_owned(), String::new());
        Stored { source, entity, hash, number, document }
    }

    fn all(template: &str) -> Value {
        let versions = [("a b", 1), ("a b", 2), ("a_b", 1), ("c", 1), ("deal.won", 1), ("letters", 1)];
        let versions = versions.map(|(entity, number)| version(entity, number));
        let sources = [LogSource { name: "shop", messages: true }, LogSource { name: "my", messages: false }];
        document("g", &["nats://h:4222".to_owned()], template, &sources, &versions)
    }

    #[test]
    fn every_subject_has_its_channel_and_the_newest_version_counts() {
        let found = all(TEMPLATE);
        assert_eq!(found["components"]["schemas"]["shop.a_b"]["title"], "a b 2");
        assert_eq!(found["components"]["schemas"]["shop.a_b_"]["title"], "a_b 1");
        let address = |channel: &str| found["channels"][channel]["address"].clone();
        assert_eq!(address("shop.a_b.deleted"), "events.shop.a b.deleted.{partition}");
        assert_eq!(address("shop.a_b_.deleted"), "events.shop.a_b.deleted.{partition}");
        assert_eq!(address("shop.c.schema"), "events.shop.c.schema.{partition}");
        assert_eq!(address("shop.deal.won"), "events.shop.deal.won.{partition}");
        assert_eq!(address("shop.letters"), "events.shop.{entity}.{verb}.{partition}");
        assert_eq!(address("my.headgate.gap"), "events.my.headgate.gap.{partition}");
        assert_eq!(address("shop.headgate.message"), "events.shop.{entity}.{verb}.{partition}");
        assert_eq!(found["channels"]["shop.letters"]["parameters"].as_object().map(Map::len), Some(3));
        assert_eq!(found["channels"].as_object().map(Map::len), Some(3 * (VERBS.len() + 1) + 2 + 3));
        let found = all("events.{source}.{schema}.{table}.{verb}.{column:tenant id}.{key}");
        let channel = &found["channels"]["shop.c.created"];
        assert_eq!(channel["address"], "events.shop.public.c.created.{column_tenant_id}.{key}");
        let parameters: Vec<&String> = channel["parameters"].as_object().unwrap().keys().collect();
        assert_eq!(parameters, ["column_tenant_id", "key"]);
    }

    #[test]
    fn every_reference_leads_somewhere() {
        let found = all(TEMPLATE);
        let mut references = Vec::new();
        collect(&found, &mut references);
        assert!(references.iter().any(|reference| reference.ends_with("/definitions/row")), "{references:?}");
        for reference in references {
            assert!(found.pointer(reference.trim_start_matches('#')).is_some(), "{reference}");
        }
        let event = &found["components"]["schemas"]["shop.deal.won"];
        assert!(event.get("$id").is_none() && event["allOf"][0]["$ref"].is_string(), "{event}");
        // A column may be called so.
        assert!(event["definitions"]["row"]["properties"].get("$id").is_some(), "{event}");
    }

    #[test]
    fn a_change_of_shape_is_what_the_document_says() {
        let shape =
            json!({ "columns": [{ "name": "id", "type": "int4", "nullable": false }], "key": ["id"] });
        let mut data = json!({
            "op": "schema", "schema": "public", "table": "c", "from": "urn:a", "to": "urn:b", "compatible": true,
            "changes": ["+ id: int4"], "diff": [{ "change": "added", "column": "id", "type": "int4" }], "shape": shape,
        });
        let violations = |data: &Value| crate::schema::validate::violations(&change(), data);
        assert_eq!(violations(&data), [""; 0]);
        data["shape"]["columns"][0]["name"] = json!(7);
        assert_eq!(violations(&data).len(), 1);
    }

    fn collect(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(members) => {
                for (name, member) in members {
                    match member.as_str() {
                        Some(reference) if name == "$ref" => found.push(reference.to_owned()),
                        _ => collect(member, found),
                    }
                }
            }
            Value::Array(items) => items.iter().for_each(|item| collect(item, found)),
            _ => {}
        }
    }
}
