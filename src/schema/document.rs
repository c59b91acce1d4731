//! A version of a table, or of an event, as a JSON Schema (2020-12) of its events' `data`.

use super::shape::{ABOUT, NULLABLE, Shape, ShapeColumn};
use headgate_sdk::{Relation, percent};
use serde_json::{Map, Value, json};

const DIALECT: &str = "https://json-schema.org/draft/2020-12/schema";

/// A version of what events' `data` looks like.
#[derive(Clone, Debug)]
pub struct Version {
    /// The source's name.
    pub source: String,
    /// What it is a version of: a table's entity or an outbox's as a token, or the name of a semantic event.
    pub entity: String,
    /// What tells it from other versions.
    pub hash: String,
    /// The schema of the events' `data`.
    pub document: Value,
}

/// The data of a semantic event.
#[derive(Debug)]
pub enum EventData<'a> {
    /// The row's own, with the shape that it has under the event's key.
    Row(&'a Relation, Shape),
    /// Members of its own with their types, under the key columns named.
    Members(Shape),
}

/// What the letters of an outbox are made of.
#[derive(Clone, Debug)]
pub struct Envelope {
    /// The outbox, `schema.table`.
    outbox: String,
    /// What each column is for, and its name.
    parts: Vec<(&'static str, String)>,
    shape: Shape,
}

impl Envelope {
    /// Of the columns of a relation that have a part in it.
    pub fn of(relation: &Relation, parts: impl Iterator<Item = (&'static str, usize)>) -> Self {
        let all = Shape::of(relation);
        let (mut named, mut columns) = (Vec::new(), Vec::new());
        for (part, place) in parts {
            let Some(column) = all.columns.get(place) else { continue };
            named.push((part, column.name.clone()));
            columns.push(column.clone());
        }
        let outbox = format!("{}.{}", relation.schema, relation.table);
        Self { outbox, parts: named, shape: Shape { columns, key: Vec::new() } }
    }
}

impl Version {
    /// A version of a table that has this shape.
    #[must_use]
    pub fn of_table(source: &str, entity: &str, relation: &Relation, shape: &Shape) -> Self {
        let mut document = rows(relation, shape);
        document["title"] = json!(format!("{}.{}", relation.schema, relation.table));
        Self::new(source, entity, "table", shape.hash(""), shape, document)
    }

    /// A version of a semantic event of the table `title`.
    #[must_use]
    pub fn of_event(source: &str, name: &str, table: &str, data: &EventData<'_>) -> Self {
        let (hash, shape, mut document) = match data {
            EventData::Row(relation, shape) => (shape.hash("row"), shape.clone(), rows(relation, shape)),
            EventData::Members(shape) => {
                let document = json!({
                    "description": "data of a semantic event; a member whose value the log did not carry is absent",
                    "$ref": "#/$defs/row",
                    "$defs": { "row": row(&shape.columns) },
                });
                (shape.hash("members"), shape.clone(), document)
            }
        };
        document["title"] = json!(format!("{name} of {table}"));
        Self::new(source, name, "event", hash, &shape, document)
    }

    /// A version of an outbox. What its events' data looks like is between its writers and readers: the schema says nothing
    /// of it but the type of the column that it stands in.
    #[must_use]
    pub fn of_outbox(source: &str, entity: &str, relation: &Relation) -> Self {
        let shape = Shape::of(relation);
        let document = json!({
            "title": format!("outbox {}.{}", relation.schema, relation.table),
            "description": "data of the events that are rows of this outbox is what their writers put in its payload",
            "$defs": { "row": row(&shape.columns) },
        });
        Self::new(source, entity, "outbox", shape.hash("outbox"), &shape, document)
    }

    /// A version of one kind of letters, `entity.verb`: of their envelope, for what is in a payload is between writers and
    /// readers. Other columns of the outbox are none of it.
    #[must_use]
    pub fn of_letter(source: &str, name: &str, envelope: &Envelope) -> Self {
        let Envelope { outbox, parts, shape } = envelope;
        let about: String = parts.iter().map(|(part, _)| format!("{part} ")).collect();
        let document = json!({
            "title": format!("{name} of outbox {outbox}"),
            "description": "data of the events of this type is what their writers put in the payload",
            "$defs": { "row": row(&shape.columns) },
        });
        let mut version =
            Self::new(source, name, "letter", shape.hash(&format!("letter {about}")), shape, document);
        version.document[ABOUT]["envelope"] =
            parts.iter().map(|(part, column)| json!([part, column])).collect();
        version
    }

    fn new(source: &str, entity: &str, kind: &str, hash: String, shape: &Shape, mut document: Value) -> Self {
        document["$schema"] = json!(DIALECT);
        document["$id"] = json!(uri(source, entity, &hash));
        let columns: Vec<&str> = shape.columns.iter().map(|column| column.name.as_str()).collect();
        document[ABOUT] =
            json!({ "source": source, "entity": entity, "kind": kind, "key": shape.key, "columns": columns });
        Self { source: source.to_owned(), entity: entity.to_owned(), hash, document }
    }

    /// What events name it by.
    #[must_use]
    pub fn uri(&self) -> String {
        uri(&self.source, &self.entity, &self.hash)
    }
}

/// The name of a version: the entity percent-encoded, so that `:` only separates.
#[must_use]
pub fn uri(source: &str, entity: &str, hash: &str) -> String {
    let mut encoded = Vec::with_capacity(entity.len());
    percent::encode(entity.as_bytes(), &mut encoded);
    format!("urn:headgate:schema:{source}:{}:{hash}", String::from_utf8_lossy(&encoded))
}

fn row<'c>(columns: impl IntoIterator<Item = &'c ShapeColumn>) -> Value {
    let column = |column: &ShapeColumn| {
        let mut schema = column_schema(&column.r#type);
        if let Some(nullable) = column.nullable {
            schema[NULLABLE] = json!(nullable);
        }
        (column.name.clone(), schema)
    };
    let columns: Map<String, Value> = columns.into_iter().map(column).collect();
    json!({ "type": "object", "properties": columns, "additionalProperties": false })
}

/// The data of a row's event, where the row is of a shape.
fn rows(relation: &Relation, shape: &Shape) -> Value {
    let key = &shape.key;
    let named = shape.columns.iter().filter(|column| key.contains(&column.name));
    let key_schema = if key.is_empty() {
        json!({ "type": ["object", "null"] })
    } else {
        let mut schema = row(named);
        schema["type"] = json!(["object", "null"]);
        schema["required"] = json!(key);
        schema
    };
    let image = json!({ "anyOf": [{ "$ref": "#/$defs/row" }, { "type": "null" }] });
    json!({
        "description": "data of the events of one version of a table; a column that the log did not carry is absent from its row",
        "type": "object",
        "properties": {
            "op": { "enum": ["created", "updated", "deleted", "truncated", "snapshot"] },
            "schema": { "const": relation.schema },
            "table": { "const": relation.table },
            "key": key_schema,
            "before": image,
            "after": image,
            "changed": { "type": "array", "items": { "type": "string" } },
            "paths": { "type": "object", "additionalProperties": { "type": "array", "items": { "type": "string" } } },
            "unavailable": { "type": "array", "items": { "type": "string" } },
            "rekeyed": { "type": "object" },
        },
        "required": ["op", "schema", "table"],
        "$defs": { "row": row(&shape.columns) },
    })
}

/// What a column's values are in JSON, by the database's name of the type. Every one may be null: that a column is NOT NULL may
/// be known earlier than the last row without it is read. What is not known may be anything.
fn column_schema(type_name: &str) -> Value {
    let element = type_name.strip_suffix("[]");
    let base = element.unwrap_or(type_name).trim_end_matches(" unsigned");
    let types: &[&str] = match base {
        _ if element.is_some() => {
            // An array with bounds of its own travels as the database's text.
            let schema = json!({ "type": ["array", "string", "null"], "x-type": type_name });
            return schema;
        }
        "int2" | "int4" | "int8" | "tinyint" | "smallint" | "mediumint" | "int" | "bigint" | "year" => {
            &["integer"]
        }
        // NaN and the infinities are strings.
        "float4" | "float8" | "float" | "double" => &["number", "string"],
        "bool" => &["boolean"],
        "hstore" => &["object"],
        "text" | "varchar" | "bpchar" | "char" | "name" | "uuid" | "numeric" | "decimal" | "date"
        | "time" | "timetz" | "timestamp" | "timestamptz" | "datetime" | "interval" | "bytea" | "bit"
        | "varbit" | "inet" | "cidr" | "macaddr" | "macaddr8" | "money" | "xml" | "tsvector" | "tsquery"
        | "oid" | "pg_lsn" => &["string"],
        _ => &[],
    };
    if types.is_empty() {
        return json!({ "x-type": type_name });
    }
    let all: Vec<&str> = types.iter().copied().chain(["null"]).collect();
    json!({ "type": all, "x-type": type_name })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_say_what_the_contract_says_of_their_values() {
        for (name, expected) in [
            ("int8", json!(["integer", "null"])),
            ("bigint unsigned", json!(["integer", "null"])),
            ("numeric", json!(["string", "null"])),
            ("float8", json!(["number", "string", "null"])),
            ("text[]", json!(["array", "string", "null"])),
            ("bool", json!(["boolean", "null"])),
        ] {
            assert_eq!(column_schema(name)["type"], expected, "{name}");
        }
        for anything in ["jsonb", "mood", "address", "type 77"] {
            assert!(column_schema(anything).get("type").is_none(), "{anything}");
        }
    }
}
