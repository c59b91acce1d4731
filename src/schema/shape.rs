//! What makes two versions of a table, or of an event, the same: names, types and key. Pure.

use headgate_sdk::Relation;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

/// The member of a document that is Headgate's own; validators pass over it.
pub(super) const ABOUT: &str = "x-headgate";

/// A version, without what stays the same from version to version.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shape {
    /// Names and the database's names of their types, in the table's order.
    pub columns: Vec<(String, String)>,
    /// The columns that name a row, in key order.
    pub key: Vec<String>,
}

impl Shape {
    /// The shape of a table as it is told.
    #[must_use]
    pub fn of(relation: &Relation) -> Self {
        let column = |index: &usize| relation.columns.get(*index).map(|column| column.name.clone());
        Self {
            columns: relation
                .columns
                .iter()
                .map(|column| (column.name.clone(), column.type_name.clone()))
                .collect(),
            key: relation.key.iter().filter_map(column).collect(),
        }
    }

    /// The shape that a document in the registry is of.
    #[must_use]
    pub fn of_document(document: &Value) -> Self {
        let columns = document.pointer("/$defs/row/properties").and_then(Value::as_object);
        let column = |(name, schema): (&String, &Value)| {
            (name.clone(), schema["x-type"].as_str().unwrap_or("?").to_owned())
        };
        let key = document[ABOUT]["key"].as_array();
        Self {
            columns: columns.into_iter().flatten().map(column).collect(),
            key: key.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect(),
        }
    }

    /// Tells versions of one thing from each other, in 16 hexadecimal digits. What is said about the columns beside the
    /// shape, if anything, is `about`.
    #[must_use]
    pub fn hash(&self, about: &str) -> String {
        let mut shape = Sha256::new();
        for (name, kind) in &self.columns {
            shape.update(name.as_bytes());
            shape.update([0]);
            shape.update(kind.as_bytes());
            shape.update([0]);
        }
        for name in &self.key {
            shape.update(name.as_bytes());
            shape.update([1]);
        }
        shape.update(about.as_bytes());
        shape.finalize()[..8].iter().map(|byte| format!("{byte:02x}")).collect()
    }
}
