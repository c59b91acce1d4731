//! The shapes of tables as the log tells them, one version after the other.
//!
//! A row names its table by OID alone; the RELATION message before it said what that is. Nothing is known after a
//! reconnect, and a table may change its shape in the middle of a transaction.

use crate::{
    catalog::{Catalog, KeyIndex},
    pgoutput::{self, ReplicaIdentity},
    value::Kind,
};
use headgate_sdk::{Column, Fault, Relation};
use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// What is known of the tables whose rows may come.
#[derive(Debug, Default)]
pub(crate) struct Relations {
    tables: Vec<Option<Known>>,
    places: HashMap<u32, usize>,
    /// OID and place of the table that the last row belonged to: rows of one table come in runs.
    last: Option<(u32, usize)>,
}

/// A captured table.
#[derive(Debug)]
pub(crate) struct Known {
    pub(crate) relation: Arc<Relation>,
    /// For each column, whether it is part of the replica identity.
    pub(crate) identity: Vec<bool>,
    shape: Shape,
}

/// Everything that makes two versions of a table's shape the same.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    schema: String,
    table: String,
    columns: Vec<ShapeColumn>,
    key: Vec<usize>,
}

#[derive(Debug, PartialEq, Eq)]
struct ShapeColumn {
    name: String,
    type_name: String,
    nullable: Option<bool>,
    kind: Kind,
    identity: bool,
}

impl Relations {
    /// What is known of a table: `None` if the log never described it, `Some(None)` if it is not captured.
    #[inline]
    pub(crate) fn get(&mut self, oid: u32) -> Option<Option<&Known>> {
        let place = match self.last {
            Some((last, place)) if last == oid => place,
            _ => *self.places.get(&oid)?,
        };
        self.last = Some((oid, place));
        self.tables.get(place).map(Option::as_ref)
    }

    /// Keeps a table's shape. The same shape again keeps its [`Relation`], and with it all that was prepared for it.
    pub(crate) fn insert(&mut self, oid: u32, shape: Shape) {
        let table = self.table_mut(oid);
        if table.as_ref().is_none_or(|known| known.shape != shape) {
            *table = Some(Known::new(shape));
        }
    }

    /// Notes that a table's rows are to be left out.
    pub(crate) fn leave_out(&mut self, oid: u32) {
        *self.table_mut(oid) = None;
    }

    fn table_mut(&mut self, oid: u32) -> &mut Option<Known> {
        let place = *self.places.entry(oid).or_insert_with(|| {
            self.tables.push(None);
            self.tables.len() - 1
        });
        &mut self.tables[place]
    }
}

impl Known {
    pub(crate) fn new(shape: Shape) -> Self {
        let column = |column: &ShapeColumn| Column {
            name: column.name.clone(),
            type_name: column.type_name.clone(),
            nullable: column.nullable,
            writer: Box::new(column.kind.clone()),
        };
        let relation = Relation {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            schema: shape.schema.clone(),
            table: shape.table.clone(),
            columns: shape.columns.iter().map(column).collect(),
            key: shape.key.clone(),
        };
        let identity = shape.columns.iter().map(|column| column.identity).collect();
        Self { relation: Arc::new(relation), identity, shape }
    }
}

impl Shape {
    /// The shape that a RELATION message tells, with the catalog's help.
    pub(crate) async fn resolve(
        message: &pgoutput::Relation<'_>,
        catalog: &mut Catalog,
    ) -> Result<Self, Fault> {
        let index = match message.identity {
            ReplicaIdentity::Index => KeyIndex::ReplicaIdentity,
            ReplicaIdentity::Default | ReplicaIdentity::Full | ReplicaIdentity::Nothing => KeyIndex::Primary,
        };
        let facts = catalog.table(message.oid, index).await?;
        let key = key(message, &facts.key);
        let types: Vec<u32> = message.columns.iter().map(|column| column.type_oid).collect();
        let kinds = catalog.kinds(&types).await?;
        let columns = message.columns.iter().zip(kinds).map(|(column, (type_name, kind))| ShapeColumn {
            name: column.name.to_owned(),
            type_name,
            nullable: facts.nullable.get(column.name).copied(),
            kind,
            identity: column.identity,
        });
        Ok(Self {
            schema: message.schema.to_owned(),
            table: message.table.to_owned(),
            columns: columns.collect(),
            key,
        })
    }
}

/// The key columns, in key order.
///
/// The log says by flags *which* columns are the replica identity, the catalog in *which order* they stand in their
/// index. The log is as old as the row, the catalog as new as now: the key may have been altered, the columns renamed or
/// the table dropped in between. So the catalog counts only where it names the same columns as the flags do; otherwise
/// they stay in the table's order. With FULL every column is flagged and with NOTHING none is, so there the catalog's
/// primary key counts if the log's columns hold it, and else there is no key.
fn key(message: &pgoutput::Relation<'_>, catalog: &[String]) -> Vec<usize> {
    let flagged: Vec<usize> =
        (0..).zip(&message.columns).filter(|(_, c)| c.identity).map(|(at, _)| at).collect();
    let place = |name: &String| message.columns.iter().position(|column| column.name == name);
    let named: Option<Vec<usize>> = catalog.iter().map(place).collect();
    match (message.identity, named) {
        (ReplicaIdentity::Full | ReplicaIdentity::Nothing, named) => named.unwrap_or_default(),
        (ReplicaIdentity::Default | ReplicaIdentity::Index, Some(named))
            if named.len() == flagged.len() && flagged.iter().all(|at| named.contains(at)) =>
        {
            named
        }
        (ReplicaIdentity::Default | ReplicaIdentity::Index, _) => flagged,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(identity: ReplicaIdentity, columns: &[(&'static str, bool)]) -> pgoutput::Relation<'static> {
        let column = |&(name, identity)| pgoutput::Column { identity, name, type_oid: 23, modifier: -1 };
        pgoutput::Relation {
            oid: 1,
            schema: "public",
            table: "t",
            identity,
            columns: columns.iter().map(column).collect(),
        }
    }

    fn key_of(identity: ReplicaIdentity, columns: &[(&'static str, bool)], catalog: &[&str]) -> Vec<usize> {
        let catalog: Vec<String> = catalog.iter().map(|&name| name.to_owned()).collect();
        key(&message(identity, columns), &catalog)
    }

    #[test]
    fn the_catalog_orders_what_the_log_flags() {
        let columns = [("a", true), ("x", false), ("b", true)];
        for identity in [ReplicaIdentity::Default, ReplicaIdentity::Index] {
            assert_eq!(key_of(identity, &columns, &["b", "a"]), [2, 0]);
            // The key was altered, a column renamed, the table dropped since.
            assert_eq!(key_of(identity, &columns, &["x"]), [0, 2]);
            assert_eq!(key_of(identity, &columns, &["b", "x"]), [0, 2]);
            assert_eq!(key_of(identity, &columns, &["b", "a", "x"]), [0, 2]);
            assert_eq!(key_of(identity, &columns, &["b", "renamed"]), [0, 2]);
            assert_eq!(key_of(identity, &columns, &[]), [0, 2]);
            // It was added since: rows of that time had no name.
            assert!(key_of(identity, &[("a", false)], &["a"]).is_empty());
        }
    }

    #[test]
    fn flags_of_full_and_nothing_say_nothing() {
        let full = [("a", true), ("x", true), ("b", true)];
        assert_eq!(key_of(ReplicaIdentity::Full, &full, &["b", "a"]), [2, 0]);
        assert!(key_of(ReplicaIdentity::Full, &full, &[]).is_empty());
        assert!(key_of(ReplicaIdentity::Full, &full, &["renamed"]).is_empty());
        let nothing = [("a", false), ("x", false)];
        assert_eq!(key_of(ReplicaIdentity::Nothing, &nothing, &["x"]), [1]);
    }

    fn shape(type_name: &str) -> Shape {
        let column = ShapeColumn {
            name: "a".to_owned(),
            type_name: type_name.to_owned(),
            nullable: None,
            kind: Kind::Integer,
            identity: true,
        };
        Shape { schema: "public".to_owned(), table: "t".to_owned(), columns: vec![column], key: vec![0] }
    }

    #[test]
    fn the_same_shape_keeps_its_relation() {
        let mut relations = Relations::default();
        let id =
            |relations: &mut Relations| relations.get(7).map(|known| known.map(|known| known.relation.id));
        assert_eq!(id(&mut relations), None);
        relations.insert(7, shape("int4"));
        relations.insert(8, shape("int4"));
        let first = id(&mut relations);
        assert!(first.flatten().is_some());
        relations.insert(7, shape("int4"));
        assert_eq!(id(&mut relations), first);
        relations.insert(7, shape("int8"));
        assert_ne!(id(&mut relations), first);
        relations.leave_out(7);
        assert_eq!(id(&mut relations), Some(None));
        assert_eq!(relations.get(9).map(|_| ()), None);
    }
}
