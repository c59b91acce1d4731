//! What makes two versions of a table, or of an event, the same: names, types, NOT NULL and key. Pure.

use headgate_sdk::Relation;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

/// The member of a document that is Headgate's own; validators pass over it.
pub(super) const ABOUT: &str = "x-headgate";
/// What says in a document whether a column may be NULL, where that is known. Validators pass over it too.
pub(super) const NULLABLE: &str = "x-nullable";

/// A version, without what stays the same from version to version.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shape {
    /// The columns, in the table's order.
    pub columns: Vec<ShapeColumn>,
    /// The columns that name a row, in key order.
    pub key: Vec<String>,
}

/// A column of a shape.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShapeColumn {
    /// Its name.
    pub name: String,
    /// The database's name of its type.
    pub r#type: String,
    /// Whether it may be NULL; `None` where that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nullable: Option<bool>,
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
                .map(|column| ShapeColumn {
                    name: column.name.clone(),
                    r#type: column.type_name.clone(),
                    nullable: column.nullable,
                })
                .collect(),
            key: relation.key.iter().filter_map(column).collect(),
        }
    }

    /// The shape of a table as it is told, where its events had another one before. What nobody says of it is taken over from
    /// that: the catalog knows no column that was dropped or renamed since.
    #[must_use]
    pub fn following(before: Option<&Self>, relation: &Relation) -> Self {
        let mut shape = Self::of(relation);
        for column in shape.columns.iter_mut().filter(|column| column.nullable.is_none()) {
            let before = before.and_then(|before| before.column(&column.name));
            column.nullable = before.and_then(|before| before.nullable);
        }
        shape
    }

    /// A column, by its name.
    #[must_use]
    pub fn column(&self, name: &str) -> Option<&ShapeColumn> {
        self.columns.iter().find(|column| column.name == name)
    }

    /// The shape that a document in the registry is of.
    #[must_use]
    pub fn of_document(document: &Value) -> Self {
        let columns = document.pointer("/$defs/row/properties").and_then(Value::as_object);
        let column = |(name, schema): (&String, &Value)| ShapeColumn {
            name: name.clone(),
            r#type: schema["x-type"].as_str().unwrap_or("?").to_owned(),
            nullable: schema[NULLABLE].as_bool(),
        };
        let names = |of: &str| {
            let names = document[ABOUT][of].as_array();
            names.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect::<Vec<_>>()
        };
        let order = names("columns");
        let mut columns: Vec<ShapeColumn> = columns.into_iter().flatten().map(column).collect();
        // The members of an object have no order, and a table's columns do.
        columns.sort_by_key(|column| order.iter().position(|name| *name == column.name));
        Self { columns, key: names("key") }
    }

    /// Tells versions of one thing from each other, in 16 hexadecimal digits. What is said about the columns beside the
    /// shape, if anything, is `about`.
    #[must_use]
    pub fn hash(&self, about: &str) -> String {
        let mut shape = Sha256::new();
        for column in &self.columns {
            shape.update(column.name.as_bytes());
            shape.update([0]);
            shape.update(column.r#type.as_bytes());
            shape.update([0]);
            if column.nullable == Some(false) {
                shape.update([2]);
            }
        }
        for name in &self.key {
            shape.update(name.as_bytes());
            shape.update([1]);
        }
        shape.update(about.as_bytes());
        shape.finalize()[..8].iter().map(|byte| format!("{byte:02x}")).collect()
    }
}
