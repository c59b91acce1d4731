//! What changed between two versions of a table, and whether a subscriber that knows the first one can live with the
//! second. Pure.

use super::document::ABOUT;
use serde_json::{Map, Value};
use std::fmt;

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Difference {
    /// A column is new. Who does not know it passes over it.
    Added(String, String),
    /// A column is gone; a renamed one is gone and new.
    Removed(String),
    /// A column is of another type.
    Retyped(String, String, String),
    /// Rows are named by other columns.
    Rekeyed(Vec<String>, Vec<String>),
}

impl Difference {
    /// Whether whoever reads the old version can read the new one.
    #[must_use]
    pub fn is_compatible(&self) -> bool {
        matches!(self, Self::Added(..))
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Added(column, kind) => write!(f, "+ {column}: {kind}"),
            Self::Removed(column) => write!(f, "- {column}"),
            Self::Retyped(column, from, to) => write!(f, "~ {column}: {from} → {to}"),
            Self::Rekeyed(from, to) => write!(f, "~ key: ({}) → ({})", from.join(", "), to.join(", ")),
        }
    }
}

/// What changed from one document to another.
#[must_use]
pub fn differences(from: &Value, to: &Value) -> Vec<Difference> {
    let empty = Map::new();
    let columns = |document: &'_ Value| {
        document
            .pointer("/$defs/row/properties")
            .and_then(Value::as_object)
            .cloned()
            .unwrap_or_else(|| empty.clone())
    };
    let kind = |schema: &Value| schema["x-type"].as_str().unwrap_or("?").to_owned();
    let (old, new) = (columns(from), columns(to));
    let mut found = Vec::new();
    for (name, schema) in &old {
        match new.get(name) {
            None => found.push(Difference::Removed(name.clone())),
            Some(now) if kind(now) != kind(schema) => {
                found.push(Difference::Retyped(name.clone(), kind(schema), kind(now)));
            }
            Some(_) => {}
        }
    }
    for (name, schema) in new.iter().filter(|(name, _)| !old.contains_key(*name)) {
        found.push(Difference::Added(name.clone(), kind(schema)));
    }
    let key = |document: &Value| -> Vec<String> {
        let names = document[ABOUT]["key"].as_array();
        names.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    if key(from) != key(to) {
        found.push(Difference::Rekeyed(key(from), key(to)));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn document(columns: &[(&str, &str)], key: &[&str]) -> Value {
        let columns: Map<String, Value> =
            columns.iter().map(|(name, kind)| ((*name).to_owned(), json!({ "x-type": kind }))).collect();
        json!({ "$defs": { "row": { "properties": columns } }, "x-headgate": { "key": key } })
    }

    #[test]
    fn only_a_new_column_is_compatible() {
        let old = document(&[("id", "int4"), ("a", "text")], &["id"]);
        let told = |new: &Value| -> Vec<(String, bool)> {
            differences(&old, new).iter().map(|d| (d.to_string(), d.is_compatible())).collect()
        };
        assert_eq!(told(&old), []);
        let new = document(&[("id", "int4"), ("a", "text"), ("b", "int4")], &["id"]);
        assert_eq!(told(&new), [("+ b: int4".to_owned(), true)]);
        let new = document(&[("id", "int8"), ("b", "text")], &["b"]);
        assert_eq!(
            told(&new),
            [
                ("- a".to_owned(), false),
                ("~ id: int4 → int8".to_owned(), false),
                ("+ b: text".to_owned(), true),
                ("~ key: (id) → (b)".to_owned(), false)
            ]
        );
    }
}
