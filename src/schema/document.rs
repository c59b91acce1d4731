//! A version of a table as a JSON Schema (2020-12) of its events' `data`.

use headgate_sdk::Relation;
use serde_json::{Map, Value, json};

/// The member of a document that is Headgate's own; validators pass over it.
pub(super) const ABOUT: &str = "x-headgate";

/// A version of a table's shape.
#[derive(Clone, Debug)]
pub struct Version {
    /// The source's name.
    pub source: String,
    /// The entity, as a token.
    pub entity: String,
    /// What tells it from other versions.
    pub hash: String,
    /// The schema of the events' `data`.
    pub document: Value,
}

impl Version {
    /// The version that events of `relation` name by `uri`, whose last part is the hash.
    #[must_use]
    pub fn new(source: &str, entity: &str, uri: &str, relation: &Relation) -> Self {
        Self {
            source: source.to_owned(),
            entity: entity.to_owned(),
            hash: uri.rsplit(':').next().unwrap_or_default().to_owned(),
            document: document(source, entity, uri, relation),
        }
    }
}

fn document(source: &str, entity: &str, uri: &str, relation: &Relation) -> Value {
    let columns: Map<String, Value> = relation
        .columns
        .iter()
        .map(|column| (column.name.clone(), column_schema(&column.type_name)))
        .collect();
    let key: Map<String, Value> = relation
        .key
        .iter()
        .filter_map(|index| relation.columns.get(*index))
        .map(|column| (column.name.clone(), column_schema(&column.type_name)))
        .collect();
    let names: Vec<&String> = key.keys().collect();
    let key_schema = if names.is_empty() {
        json!({ "type": ["object", "null"] })
    } else {
        json!({ "type": ["object", "null"], "properties": key, "required": names, "additionalProperties": false })
    };
    let row = json!({ "anyOf": [{ "$ref": "#/$defs/row" }, { "type": "null" }] });
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": uri,
        "title": format!("{}.{}", relation.schema, relation.table),
        "description": "data of the events of one version of a table; a column that the log did not carry is absent from its row",
        "type": "object",
        "properties": {
            "op": { "enum": ["created", "updated", "deleted", "truncated", "snapshot"] },
            "schema": { "const": relation.schema },
            "table": { "const": relation.table },
            "key": key_schema,
            "before": row,
            "after": row,
            "changed": { "type": "array", "items": { "type": "string" } },
            "unavailable": { "type": "array", "items": { "type": "string" } },
            "rekeyed": { "type": "object" },
        },
        "required": ["op", "schema", "table"],
        "$defs": { "row": { "type": "object", "properties": columns, "additionalProperties": false } },
        ABOUT: { "source": source, "entity": entity, "key": relation.key.iter()
            .filter_map(|index| relation.columns.get(*index)).map(|column| &column.name).collect::<Vec<_>>() },
    })
}

/// What a column's values are in JSON, by the database's name of the type. The log does not say which columns are NOT
/// NULL, so every one may be null. What is not known may be anything.
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
