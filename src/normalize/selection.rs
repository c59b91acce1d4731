//! Which columns of a table are told, and how: a relation and rows as everybody behind the connector sees them.
//!
//! A table with nothing to select has no [`View`], and its rows cost nothing more. A view of masks alone only changes the
//! writers; one that leaves columns out copies the cells that stay, never their values.

use super::mask::{Masked, Prepared};
use crate::config::{ColumnRule, Salt};
use headgate_sdk::{Cell, Column, Relation, Unwritable, WriteValue, glob_matches};
use std::{collections::BTreeMap, sync::Arc};

/// A relation as it is told, and how to get from a row of the log to one of it.
#[derive(Clone, Debug)]
pub(super) struct View {
    /// The relation as it is told. It keeps the id of the one it was made from.
    pub relation: Arc<Relation>,
    /// The columns that stay, unless all do.
    keep: Option<Vec<usize>>,
}

impl View {
    /// The cells that stay.
    pub(super) fn row<'a>(&self, row: &[Cell<'a>]) -> Vec<Cell<'a>> {
        match &self.keep {
            Some(keep) => keep.iter().filter_map(|index| row.get(*index).copied()).collect(),
            None => row.to_vec(),
        }
    }
}

/// Why the columns of a table cannot be told as the settings want: what, and what to do.
pub(super) type Misfit = (String, String);

/// What the rules that are meant for a table say together: a column is told if none leaves it out, under the first mask
/// that one has for it.
#[derive(Debug, Default)]
pub(super) struct Rules<'c> {
    rules: Vec<&'c ColumnRule>,
}

impl<'c> Rules<'c> {
    /// The rules for `schema.table`. A rule for this table alone goes before those for many.
    pub(super) fn of(rules: &'c [ColumnRule], schema: &str, table: &str) -> Self {
        let name = format!("{schema}.{table}");
        let mut rules: Vec<_> = rules.iter().filter(|rule| glob_matches(&rule.table, &name)).collect();
        rules.sort_by_key(|rule| !rule.names_one_table());
        Self { rules }
    }

    fn tells(&self, column: &str) -> bool {
        let named = |names: &[String]| names.iter().any(|name| name == column);
        self.rules.iter().all(|rule| !named(&rule.exclude) && rule.include.as_deref().is_none_or(named))
    }

    fn mask(&self, column: &str, salt: Option<&Salt>) -> Option<Prepared> {
        let mask = self.rules.iter().find_map(|rule| rule.mask.get(column))?;
        Some(Prepared::new(*mask, salt))
    }

    /// The columns that must not be told as they are, by the rules for this table alone.
    pub(super) fn hidden(&self) -> impl Iterator<Item = &'c str> {
        let rules = self.rules.iter().filter(|rule| rule.names_one_table());
        rules.flat_map(|rule| rule.exclude.iter().chain(rule.mask.keys())).map(String::as_str)
    }

    /// The columns that are told, each with its mask.
    pub(super) fn told<'n>(
        &self,
        columns: impl Iterator<Item = &'n str>,
        salt: Option<&Salt>,
    ) -> BTreeMap<&'n str, Option<Prepared>> {
        columns.filter(|column| self.tells(column)).map(|column| (column, self.mask(column, salt))).collect()
    }

    /// Whether the rules leave a key its meaning: it has to name the same row in every event.
    pub(super) fn misfit<'n>(
        &self,
        table: &str,
        key: impl Iterator<Item = &'n str>,
        salt: Option<&Salt>,
    ) -> Option<Misfit> {
        let fix = |column: &str| {
            format!(
                "under columns.\"{table}\": mask = {{ {column} = \"hash\" }}, which keeps rows apart; or give the table another key"
            )
        };
        for column in key {
            if !self.tells(column) {
                let what = format!(
                    "column {column} of {table} is excluded, but it is part of the key: two rows would have one name"
                );
                return Some((what, fix(column)));
            }
            if self.mask(column, salt).is_some_and(|mask| !mask.keeps_identity()) {
                let what = format!(
                    "column {column} of {table} is part of the key and its mask makes different rows look the same"
                );
                return Some((what, fix(column)));
            }
        }
        None
    }

    /// The relation as it is told; `None` where that is as it is.
    pub(super) fn view(&self, relation: &Arc<Relation>, salt: Option<&Salt>) -> Option<View> {
        let told = self.told(relation.columns.iter().map(|column| column.name.as_str()), salt);
        if told.len() == relation.columns.len() && told.values().all(Option::is_none) {
            return None;
        }
        let keep: Vec<usize> = (0..relation.columns.len())
            .filter(|index| told.contains_key(relation.columns[*index].name.as_str()))
            .collect();
        let column = |&index: &usize| {
            let column = &relation.columns[index];
            let mask = told.get(column.name.as_str()).cloned().flatten();
            Column {
                name: column.name.clone(),
                type_name: if mask.is_some() { "text".to_owned() } else { column.type_name.clone() },
                nullable: column.nullable,
                writer: match mask {
                    Some(mask) => Box::new(Masked { relation: Arc::clone(relation), column: index, mask }),
                    None => Box::new(AsTold { relation: Arc::clone(relation), column: index }),
                },
            }
        };
        let place = |index: &usize| keep.iter().position(|kept| kept == index);
        let view = Relation {
            id: relation.id,
            schema: relation.schema.clone(),
            table: relation.table.clone(),
            columns: keep.iter().map(column).collect(),
            key: relation.key.iter().filter_map(place).collect(),
        };
        let all = keep.len() == relation.columns.len();
        Some(View { relation: Arc::new(view), keep: (!all).then_some(keep) })
    }
}

/// Writes a column as the connector does.
#[derive(Debug)]
struct AsTold {
    relation: Arc<Relation>,
    column: usize,
}

impl WriteValue for AsTold {
    fn write(&self, raw: &[u8], out: &mut Vec<u8>) -> Result<(), Unwritable> {
        self.relation.columns[self.column].writer.write(raw, out)
    }

    fn paths<'r>(&self, raw: &'r [u8]) -> Option<&'r str> {
        self.relation.columns[self.column].writer.paths(raw)
    }
}
