//! A TABLE_MAP and a catalog's description made into one shape.

use super::{
    Ending, Table,
    column::{self, Facts, Problem},
    declared::Declared,
    describe::{DescribedColumn, Description},
    next_id,
};
use crate::{
    event::{Flavor, TableMap, code},
    value::Kind,
};
use headgate_sdk::{Column, Fault, Relation};
use std::sync::Arc;

/// A table whose rows cannot be decoded as things are.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Unfit {
    /// Which table and column, and why.
    pub message: String,
    /// What to do.
    pub fix: String,
}

impl From<Unfit> for Fault {
    fn from(unfit: Unfit) -> Self {
        Self::definite(unfit.message).with_fix(unfit.fix)
    }
}

/// What makes the log tell names, labels and keys.
const FULL: &str = "SET GLOBAL binlog_row_metadata = 'FULL' -- and in the server's configuration, for its next start; rows \
                    that are written from then on can be read, and the older ones by a snapshot";

impl Unfit {
    /// A column that cannot be prepared.
    pub(super) fn column(schema: &str, table: &str, column: &str, problem: &Problem) -> Self {
        let exclude = format!("leave the table out (tables = [\"!{schema}.{table}\"])");
        let (what, fix) = match problem {
            Problem::Type(code) => (format!("has type {code} on the wire, which is not known"), exclude),
            Problem::Declared(name) => (format!("has the type {name}, which is not known"), exclude),
            Problem::Charset(name) => (
                format!("has the character set {name}, which is not supported"),
                format!("convert it (ALTER TABLE … MODIFY … CHARACTER SET utf8mb4), or {exclude}"),
            ),
            Problem::Labels | Problem::NoCharset => {
                ("is not described by the log, and not by the catalog either".to_owned(), FULL.to_owned())
            }
            Problem::LabelText => ("has labels that are no text".to_owned(), exclude),
        };
        Self { message: format!("column {column} of {schema}.{table} {what}"), fix }
    }

    fn names(map: &TableMap<'_>) -> Self {
        Self {
            message: format!(
                "the log does not name the columns of {}.{}, and the table as it is now does not fit them",
                map.schema, map.table
            ),
            fix: FULL.to_owned(),
        }
    }
}

pub(super) fn wants_catalog(map: &TableMap<'_>, flavor: Flavor) -> bool {
    let metadata = &map.metadata;
    let labels = map.types.iter().any(|column| column.has_labels())
        && (metadata.label_collations.is_none()
            || (metadata.enum_labels.is_none() && metadata.set_labels.is_none()));
    // What MariaDB's own types are kept in: fixed and variable byte strings, and texts; and times whose digits it does not tell.
    let hidden = flavor == Flavor::MariaDb
        && map.types.iter().any(|column| match column.code {
            code::STRING => matches!(column.meta, 4 | 16),
            code::TIME | code::DATETIME | code::TIMESTAMP => true,
            _ => column.is_character(),
        });
    // Every key of a system-versioned table has what ends its rows, and something before it.
    let versioned = flavor == Flavor::MariaDb
        && metadata.key.as_ref().is_some_and(|key| {
            let ends = |at: &&u64| {
                let column = usize::try_from(**at).ok().and_then(|at| map.types.get(at));
                column.is_some_and(|column| matches!(column.code, code::TIMESTAMP2 | code::LONGLONG))
            };
            key.len() > 1 && key.iter().any(|at| ends(&at))
        });
    metadata.names.is_none() || metadata.key.is_none() || labels || hidden || versioned
}

/// The columns of the catalog in the order of the log's: by name, or, where the log has no names, all of them or none.
fn described<'d>(
    map: &TableMap<'_>,
    description: Option<&'d Description>,
) -> Result<Vec<Option<&'d DescribedColumn>>, Unfit> {
    match (&map.metadata.names, description) {
        (Some(names), Some(description)) => Ok(names
            .iter()
            .map(|name| description.columns.iter().find(|column| column.name == *name))
            .collect()),
        (Some(names), None) => Ok(vec![None; names.len()]),
        (None, Some(description)) if description.columns.len() == map.types.len() => {
            Ok(description.columns.iter().map(Some).collect())
        }
        (None, _) => Err(Unfit::names(map)),
    }
}

pub(super) fn prepare(
    map: &TableMap<'_>,
    flavor: Flavor,
    description: Option<&Description>,
) -> Result<Table, Unfit> {
    let described = described(map, description)?;
    let metadata = &map.metadata;
    let (mut numeric, mut character, mut labelled) = (0, 0, 0);
    let (mut enums, mut sets) = (0, 0);
    let mut columns = Vec::with_capacity(map.types.len());
    let (mut layouts, mut kinds) = (Vec::with_capacity(map.types.len()), Vec::with_capacity(map.types.len()));
    for (at, (wire, known)) in map.types.iter().zip(&described).enumerate() {
        let name = metadata.names.as_ref().and_then(|names| names.get(at).copied());
        let name = name.or(known.map(|column| column.name.as_str())).unwrap_or_default();
        // Names that the log gave count even where the catalog's type cannot be read: it may be of another time.
        let declared = known.map(Declared::read).and_then(Result::ok);
        let mut facts = Facts {
            wire: *wire,
            unsigned: false,
            collation: None,
            labels: None,
            declared: declared.as_ref(),
        };
        if wire.is_numeric() {
            facts.unsigned =
                metadata.unsigned.as_ref().and_then(|all| all.get(numeric).copied()).unwrap_or_default();
            numeric += 1;
        }
        if wire.is_character() {
            facts.collation = metadata.collations.as_ref().and_then(|all| all.get(character));
        }
        // MariaDB tells a collation of geometries too. Without it those of the columns behind one would be their neighbours'.
        if wire.is_character() || (flavor == Flavor::MariaDb && wire.code == code::GEOMETRY) {
            character += 1;
        }
        if wire.has_labels() {
            facts.collation = metadata.label_collations.as_ref().and_then(|all| all.get(labelled));
            labelled += 1;
            let (all, nth) = if wire.code == code::ENUM {
                (&metadata.enum_labels, &mut enums)
            } else {
                (&metadata.set_labels, &mut sets)
            };
            facts.labels = all.as_ref().and_then(|all| all.get(*nth)).map(Vec::as_slice);
            *nth += 1;
        }
        let unfit = |problem| Unfit::column(map.schema, map.table, name, &problem);
        let (layout, kind, type_name) = column::prepare(&facts).map_err(unfit)?;
        // Without names in the log the catalog's column must be of this very type, or it is another column.
        if metadata.names.is_none() && declared.as_ref().is_none_or(|declared| !alike(&declared.kind, &kind))
        {
            return Err(Unfit::names(map));
        }
        columns.push(Column {
            name: name.to_owned(),
            type_name,
            nullable: map.nullable.get(at).copied(),
            writer: Box::new(kind.clone()),
        });
        layouts.push(layout);
        kinds.push(kind);
    }
    let mut key = key(map, description, &columns);
    if flavor == Flavor::MariaDb && has_void_bits(map, &key) {
        for column in &mut columns {
            column.nullable = None;
        }
    }
    let mut ending = None;
    if flavor == Flavor::MariaDb
        && let Some(at) = (0..columns.len()).find(|at| ends_rows(*at, map, description, &columns, &kinds))
    {
        key.retain(|part| *part != at);
        ending = matches!(kinds.get(at), Some(Kind::Timestamp { .. })).then_some(Ending { column: at });
    }
    let relation =
        Relation { id: next_id(), schema: map.schema.to_owned(), table: map.table.to_owned(), columns, key };
    Ok(Table { relation: Arc::new(relation), layouts, kinds, ending, shape: map.shape.to_vec() })
}

/// Whether a column of the catalog can be one of the log.
fn alike(declared: &Kind, log: &Kind) -> bool {
    match (declared, log) {
        (Kind::Time { digits }, Kind::OldTime { digits: old })
        | (Kind::DateTime { digits }, Kind::OldDateTime { digits: old })
        | (Kind::Timestamp { digits }, Kind::OldTimestamp { digits: old }) => digits == old,
        _ => declared == log,
    }
}

/// The key, in key order: what the log says; where it says nothing of a primary key, what the catalog says.
fn key(map: &TableMap<'_>, description: Option<&Description>, columns: &[Column]) -> Vec<usize> {
    if let Some(key) = &map.metadata.key {
        let places = key.iter().filter_map(|at| usize::try_from(*at).ok());
        return places.filter(|at| *at < columns.len()).collect();
    }
    let named = description.map(|all| all.key.as_slice()).unwrap_or_default();
    let place = |name: &String| columns.iter().position(|column| column.name == *name);
    named.iter().map(place).collect::<Option<_>>().unwrap_or_default()
}

/// Whether a map's bits of nullability say nothing. MariaDB sets all of them for a table on the inner side of an outer join
/// (`UPDATE a LEFT JOIN b`), those of its primary key, which has no NULL, among them.
fn has_void_bits(map: &TableMap<'_>, key: &[usize]) -> bool {
    if key.is_empty() {
        return map.nullable.iter().all(|nullable| *nullable);
    }
    key.iter().any(|at| map.nullable.get(*at) == Some(&true))
}

/// Whether a column is the end of a row's life, which MariaDB adds to the keys of system-versioned tables.
///
/// It is no part of the row's name, which stays the same when the row ends. The catalog flags the column, or, where nobody
/// declared it, does not have it. What the catalog does not have may as well be a column of the application's that was renamed
/// or dropped since, so it has to stand as MariaDB puts it: last, right behind the beginning, neither of them NULL, and in the
/// key where there is one.
fn ends_rows(
    at: usize,
    map: &TableMap<'_>,
    description: Option<&Description>,
    columns: &[Column],
    kinds: &[Kind],
) -> bool {
    let (Some(column), Some(description)) = (columns.get(at), description) else {
        return false;
    };
    if let Some(known) = description.columns.iter().find(|known| known.name == column.name) {
        return known.row_end;
    }
    let is = |at: usize, name: &str| {
        columns.get(at).is_some_and(|column| column.name == name && column.nullable != Some(true))
            && matches!(kinds.get(at), Some(Kind::Timestamp { digits: 6 }))
    };
    let in_key =
        map.metadata.key.as_ref().is_none_or(|key| key.iter().any(|part| usize::try_from(*part) == Ok(at)));
    at + 1 == columns.len()
        && is(at, "row_end")
        && at.checked_sub(1).is_some_and(|before| is(before, "row_start"))
        && in_key
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::event::{Collations, ColumnType, Metadata};

    /// MariaDB lists a collation (63, binary) for a geometry; MySQL does not.
    #[test]
    fn a_text_behind_a_geometry_has_its_own_collation() {
        let column = |code, meta| ColumnType { code, meta };
        let types = vec![column(code::LONG, 0), column(code::GEOMETRY, 4), column(code::VARCHAR, 9)];
        for (flavor, collations) in [
            (Flavor::MariaDb, Collations::Each(vec![63, 8])),
            (Flavor::MariaDb, Collations::Default(8, vec![(0, 63)])),
            (Flavor::MySql, Collations::Each(vec![8])),
            (Flavor::MySql, Collations::Default(8, vec![])),
        ] {
            let metadata = Metadata {
                collations: Some(collations),
                names: Some(vec!["id", "place", "name"]),
                key: Some(vec![0]),
                ..Metadata::default()
            };
            let map = TableMap {
                table_id: 1,
                schema: "shop",
                table: "places",
                nullable: vec![false; types.len()],
                types: types.clone(),
                metadata,
                shape: &[],
            };
            let table = prepare(&map, flavor, None).unwrap();
            let types: Vec<&str> =
                table.relation.columns.iter().map(|column| column.type_name.as_str()).collect();
            assert_eq!(types, ["int", "geometry", "varchar(9)"], "{flavor:?}");
        }
    }

    fn map<'m>(names: &[&'m str], codes: &[u8], nullable: &[bool], key: Option<Vec<u64>>) -> TableMap<'m> {
        let meta = |code: u8| if code == code::TIMESTAMP2 { 6 } else { 0 };
        TableMap {
            table_id: 1,
            schema: "shop",
            table: "prices",
            nullable: nullable.to_vec(),
            types: codes.iter().map(|&code| ColumnType { code, meta: meta(code) }).collect(),
            metadata: Metadata { names: Some(names.to_vec()), key, ..Metadata::default() },
            shape: &[],
        }
    }

    #[test]
    fn an_end_that_nobody_declared_stands_where_mariadb_puts_it() {
        let catalog = Description {
            columns: vec![DescribedColumn {
                name: "id".to_owned(),
                column_type: "int".to_owned(),
                ..DescribedColumn::default()
            }],
            key: vec!["id".to_owned()],
        };
        let ends = |names: &[&'static str], nullable: &[bool], key: Option<Vec<u64>>| {
            let codes: Vec<u8> = names
                .iter()
                .map(|name| if name.starts_with("row") { code::TIMESTAMP2 } else { code::LONG })
                .collect();
            let table = prepare(&map(names, &codes, nullable, key), Flavor::MariaDb, Some(&catalog)).unwrap();
            table.ending.is_some()
        };
        let names = ["id", "row_start", "row_end"];
        assert!(ends(&names, &[false; 3], Some(vec![0, 2])));
        assert!(ends(&names, &[true, false, false], None));
        assert!(ends(&names, &[true; 3], Some(vec![0, 2])), "an outer join's bits say nothing");
        assert!(!ends(&names, &[false; 3], Some(vec![0])), "not in the key");
        assert!(!ends(&names, &[false, false, true], None), "may be NULL");
        assert!(!ends(&["id", "row_end"], &[false; 2], Some(vec![0, 1])), "no beginning");
        assert!(!ends(&["row_start", "row_end", "id"], &[false; 3], Some(vec![2, 1])), "not the last");
    }

    #[test]
    fn the_bits_of_an_outer_join_say_nothing() {
        let nullable = |flavor, bits: &[bool], key: Option<Vec<u64>>| {
            let names = ["id", "price"];
            let table = prepare(&map(&names, &[code::LONG; 2], bits, key), flavor, None).unwrap();
            table.relation.columns.iter().map(|column| column.nullable).collect::<Vec<_>>()
        };
        let key = || Some(vec![0]);
        assert_eq!(nullable(Flavor::MariaDb, &[true, true], key()), [None, None]);
        assert_eq!(nullable(Flavor::MariaDb, &[true, true], None), [None, None]);
        assert_eq!(nullable(Flavor::MariaDb, &[false, true], key()), [Some(false), Some(true)]);
        assert_eq!(nullable(Flavor::MySql, &[true, true], key()), [Some(true), Some(true)]);
    }
}
