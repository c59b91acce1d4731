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
    /// A column may no longer be NULL. What the stream holds from before does not have to fit that.
    Required {
        /// Its name.
        column: String,
    },
    /// A column may be NULL from now on, which whoever reads it may not expect.
    Nullable {
        /// Its name.
        column: String,
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
            Self::Required { column } => write!(f, "~ {column}: NOT NULL"),
            Self::Nullable { column } => write!(f, "~ {column}: NULL"),
            Self::Rekeyed { from, to } => {
                write!(f, "~ key: ({}) → ({})", from.join(", "), to.join(", "))
            }
        }
    }
}

/// What changed from one shape to another. The order of columns is none: rows are objects.
#[must_use]
pub fn differences(from: &Shape, to: &Shape) -> Vec<Difference> {
    let mut found = Vec::new();
    for old in &from.columns {
        let column = old.name.clone();
        let Some(new) = to.column(&column) else {
            found.push(Difference::Removed { column });
            continue;
        };
        if new.r#type != old.r#type {
            let (from, to) = (old.r#type.clone(), new.r#type.clone());
            found.push(Difference::Retyped { column: column.clone(), from, to });
        }
        // Where one of them is not known, nothing is known to have changed.
        match (old.nullable, new.nullable) {
            (Some(true), Some(false)) => found.push(Difference::Required { column }),
            (Some(false), Some(true)) => found.push(Difference::Nullable { column }),
            _ => {}
        }
    }
    for new in &to.columns {
        if from.column(&new.name).is_none() {
            found.push(Difference::Added { column: new.name.clone(), r#type: new.r#type.clone() });
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
    use crate::schema::ShapeColumn;

    fn shape(columns: &[(&str, &str)], key: &[&str]) -> Shape {
        Shape {
            columns: columns
                .iter()
                .map(|&(name, kind)| ShapeColumn {
                    name: name.to_owned(),
                    r#type: kind.to_owned(),
                    nullable: None,
                })
                .collect(),
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

    #[test]
    fn what_may_be_null_is_a_promise_either_way() {
        let with = |nullable| {
            let mut shape = shape(&[("id", "int4"), ("a", "text")], &["id"]);
            shape.columns[1].nullable = nullable;
            shape
        };
        let told = |from, to| -> Vec<(String, bool)> {
            differences(&with(from), &with(to)).iter().map(|d| (d.to_string(), d.is_compatible())).collect()
        };
        assert_eq!(told(Some(true), Some(false)), [("~ a: NOT NULL".to_owned(), false)]);
        assert_eq!(told(Some(false), Some(true)), [("~ a: NULL".to_owned(), false)]);
        for known in [Some(true), Some(false)] {
            assert_eq!(told(known, known), []);
            assert_eq!(told(known, None), []);
            assert_eq!(told(None, known), []);
        }
    }
}
