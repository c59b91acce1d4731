//! An AsyncAPI 3 document of all subjects and messages: what a subscriber can expect where. Pure.

use super::{Stored, shape::ABOUT};
use serde_json::{Map, Value, json};

/// What happens to a row; each is a subject of its own.
const VERBS: [&str; 5] = ["created", "updated", "deleted", "truncated", "snapshot"];
const FORMAT: &str = "application/schema+json;version=draft-2020-12";
/// The message of every table's new shape.
const CHANGE: &str = "headgate.schema";

/// The document for the newest version of each entity. `servers` are the broker's addresses, without credentials.
#[must_use]
pub fn document(name: &str, servers: &[String], versions: &[Stored]) -> Value {
    let mut newest: Vec<&Stored> = Vec::new();
    for version in versions {
        match newest.last_mut() {
            Some(last) if last.source == version.source && last.entity == version.entity => *last = version,
            _ => newest.push(version),
        }
    }
    let (mut channels, mut operations, mut messages, mut schemas) =
        (Map::new(), Map::new(), Map::new(), Map::new());
    for version in newest {
        let id = identifier(&format!("{}.{}", version.source, version.entity));
        schemas.insert(id.clone(), json!({ "schemaFormat": FORMAT, "schema": version.document }));
        let schema = format!("#/components/schemas/{id}/schema");
        messages.insert(id.clone(), message(&id, &version.document["title"], &schema));
        for (channel, address, message) in channels_of(&id, version) {
            let parameters: Map<String, Value> = address
                .split('.')
                .filter_map(|token| token.strip_prefix('{')?.strip_suffix('}'))
                .map(|token| (token.to_owned(), json!({ "description": parameter(token) })))
                .collect();
            if message == CHANGE && !messages.contains_key(CHANGE) {
                schemas.insert(CHANGE.to_owned(), json!({ "schemaFormat": FORMAT, "schema": change() }));
                let schema = format!("#/components/schemas/{CHANGE}/schema");
                messages
                    .insert(CHANGE.to_owned(), self::message(CHANGE, &json!("a table's new shape"), &schema));
            }
            channels.insert(
                channel.clone(),
                json!({
                    "address": address,
                    "messages": { "event": { "$ref": format!("#/components/messages/{message}") } },
                    "parameters": parameters,
                }),
            );
            operations.insert(
                format!("receive.{channel}"),
                json!({ "action": "receive", "channel": { "$ref": format!("#/channels/{channel}") } }),
            );
        }
    }
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

/// Where events of a version go: channel, address and message.
fn channels_of(id: &str, version: &Stored) -> Vec<(String, String, String)> {
    let Stored { source, entity, .. } = version;
    match version.document[ABOUT]["kind"].as_str() {
        // Its name is entity and verb.
        Some("event" | "letter") => {
            vec![(id.to_owned(), format!("events.{source}.{entity}.{{partition}}"), id.to_owned())]
        }
        // What its rows are about, they say themselves.
        Some("outbox") => {
            vec![(id.to_owned(), format!("events.{source}.{{entity}}.{{verb}}.{{partition}}"), id.to_owned())]
        }
        _ => {
            let address = |verb: &str| format!("events.{source}.{entity}.{verb}.{{partition}}");
            let rows = VERBS.iter().map(|verb| (format!("{id}.{verb}"), address(verb), id.to_owned()));
            let change = (format!("{id}.schema"), address("schema"), CHANGE.to_owned());
            rows.chain([change]).collect()
        }
    }
}

fn parameter(name: &str) -> &'static str {
    match name {
        "entity" => "what the event is about, as its writer says",
        "verb" => "what happened, as its writer says",
        _ => "FNV-1a of partitionkey, modulo gateway.partitions",
    }
}

/// The data of a `schema` event.
fn change() -> Value {
    json!({
        "type": "object",
        "required": ["op", "schema", "table", "from", "to", "compatible", "changes", "diff"],
        "properties": {
            "op": { "const": "schema" },
            "schema": { "type": "string" },
            "table": { "type": "string" },
            "from": { "type": "string" },
            "to": { "type": "string" },
            "compatible": { "type": "boolean" },
            "changes": { "type": "array", "items": { "type": "string" } },
            "diff": { "type": "array", "items": { "type": "object", "required": ["change"] } },
        },
    })
}

fn message(id: &str, title: &Value, schema: &str) -> Value {
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
    use super::*;

    #[test]
    fn every_reference_leads_somewhere_and_the_newest_version_counts() {
        let version = |entity: &str, number| Stored {
            source: "shop".to_owned(),
            entity: entity.to_owned(),
            hash: String::new(),
            number,
            document: json!({
                "title": format!("{entity} {number}"),
                "x-headgate": { "kind": match entity { "deal.won" => "event", "letters" => "outbox", _ => "table" } },
            }),
        };
        let found = document(
            "g",
            &["nats://h:4222".to_owned()],
            &[
                version("a b", 1),
                version("a b", 2),
                version("c", 1),
                version("deal.won", 1),
                version("letters", 1),
            ],
        );
        assert_eq!(found["components"]["schemas"]["shop.a_b"]["schema"]["title"], "a b 2");
        let address = |channel: &str| found["channels"][channel]["address"].clone();
        assert_eq!(address("shop.a_b.deleted"), "events.shop.a b.deleted.{partition}");
        assert_eq!(address("shop.c.schema"), "events.shop.c.schema.{partition}");
        assert_eq!(address("shop.deal.won"), "events.shop.deal.won.{partition}");
        assert_eq!(address("shop.letters"), "events.shop.{entity}.{verb}.{partition}");
        assert_eq!(found["channels"]["shop.letters"]["parameters"].as_object().map(Map::len), Some(3));
        assert_eq!(found["channels"].as_object().map(Map::len), Some(2 * (VERBS.len() + 1) + 2));
        let mut references = Vec::new();
        collect(&found, &mut references);
        for reference in references {
            assert!(found.pointer(reference.trim_start_matches('#')).is_some(), "{reference}");
        }
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
