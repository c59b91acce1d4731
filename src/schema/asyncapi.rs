//! An AsyncAPI 3 document of all subjects and messages: what a subscriber can expect where. Pure.

use super::Stored;
use serde_json::{Map, Value, json};

/// What happens to a row; each is a subject of its own.
const VERBS: [&str; 5] = ["created", "updated", "deleted", "truncated", "snapshot"];

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
        schemas.insert(
            id.clone(),
            json!({ "schemaFormat": "application/schema+json;version=draft-2020-12", "schema": version.document }),
        );
        messages.insert(id.clone(), message(&id, version));
        for verb in VERBS {
            let channel = format!("{id}.{verb}");
            channels.insert(
                channel.clone(),
                json!({
                    "address": format!("events.{}.{}.{verb}.{{partition}}", version.source, version.entity),
                    "messages": { "event": { "$ref": format!("#/components/messages/{id}") } },
                    "parameters": { "partition": { "description": "FNV-1a of partitionkey, modulo gateway.partitions" } },
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

fn message(id: &str, version: &Stored) -> Value {
    json!({
        "name": id,
        "title": version.document["title"],
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
                "data": { "$ref": format!("#/components/schemas/{id}/schema") },
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
            document: json!({ "title": format!("{entity} {number}") }),
        };
        let found = document(
            "g",
            &["nats://h:4222".to_owned()],
            &[version("a b", 1), version("a b", 2), version("c", 1)],
        );
        assert_eq!(found["components"]["schemas"]["shop.a_b"]["schema"]["title"], "a b 2");
        assert_eq!(found["channels"].as_object().map(Map::len), Some(2 * VERBS.len()));
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
