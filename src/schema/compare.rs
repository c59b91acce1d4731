//! What changed between two versions of a table, and whether a subscriber that knows the first one can live with the
//! second. Pure.

use super::Shape;
use serde::Serialize;
use std::fmt;

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "change", rename_all = "lowercase")]
pub enum Difference {
    /// A column is new. Who does not know it passes over it.
    Added {
        /// Its name.
        column: String,
        /// The database's name of its type.
        r#type: String,
    },
    /// A column is gone; a renamed one is gone and new.
    Removed {
        /// Its name.
        column: String,
    },
    /// A column is of another type.
    Retyped {
        /// Its name.
        column: String,
        /// The type before.
        from: String,
        /// The type now.
        to: String,
    },
    /// Rows are named by other columns.
    Rekeyed {
        /// The key before.
        from: Vec<String>,
        /// The key now.
        to: Vec<String>,
    },
}

impl Difference {
    /// Whether whoever reads the old version can read the new one.
    #[must_use]
    pub fn is_compatible(&self) -> bool {
        matches!(self, Self::Added { .. })
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Added { column, r#type } => write!(f, "+ {column}: {type}"),
            Self::Removed { column } => write!(f, "- {column}"),
            Self::Retyped { column, from, to } => write!(f, "~ {column}: {from} → {to}"),
            Self::Rekeyed { from, to } => {
                write!(f, "~ key: ({}) → ({})", from.join(", "), to.join(", "))
            }
        }
    }
}

/// What changed from one shape to another. The order of columns is none: rows are objects.
#[must_use]
pub fn differences(from: &Shape, to: &Shape) -> Vec<Difference> {
    let kind = |shape: &Shape, column: &str| {
        shape.columns.iter().find(|(name, _)| name == column).map(|(_, kind)| kind.clone())
    };
    let mut found = Vec::new();
    for (column, old) in &from.columns {
        let column = column.clone();
        match kind(to, &column) {
            None => found.push(Difference::Removed { column }),
            Some(new) if new != *old => {
                found.push(Difference::Retyped { column, from: old.clone(), to: new });
            }
            Some(_) => {}
        }
    }
    for (column, r#type) in &to.columns {
        if kind(from, column).is_none() {
            found.push(Difference::Added { column: column.clone(), r#type: r#type.clone() });
        }
    }
    if from.key != to.key {
        found.push(Difference::Rekeyed { from: from.key.clone(), to: to.key.clone() });
    }
    found
}

/// Whether whoever reads the old version can read the new one.
#[must_use]
pub fn is_compatible(differences: &[Difference]) -> bool {
    differences.iter().all(Difference::is_compatible)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(columns: &[(&str, &str)], key: &[&str]) -> Shape {
        Shape {
            columns: columns.iter().map(|&(name, kind)| (name.to_owned(), kind.to_owned())).collect(),
            key: key.iter().map(|&name| name.to_owned()).collect(),
        }
    }

    #[test]
    fn only_a_new_column_is_compatible() {
        let old = shape(&[("id", "int4"), ("a", "text")], &["id"]);
        let told = |new: &Shape| -> Vec<(String, bool)> {
            differences(&old, new).iter().map(|d| (d.to_string(), d.is_compatible())).collect()
        };
        assert_eq!(told(&old), []);
        assert_eq!(told(&shape(&[("a", "text"), ("id", "int4")], &["id"])), []);
        let new = shape(&[("id", "int4"), ("a", "text"), ("b", "int4")], &["id"]);
        assert_eq!(told(&new), [("+ b: int4".to_owned(), true)]);
        let new = shape(&[("id", "int8"), ("b", "text")], &["b"]);
        assert_eq!(
            told(&new),
            [
                ("~ id: int4 → int8".to_owned(), false),
                ("- a".to_owned(), false),
                ("+ b: text".to_owned(), true),
                ("~ key: (id) → (b)".to_owned(), false)
            ]
        );
        assert!(!is_compatible(&differences(&old, &new)));
    }
}
