//! Asks the database's catalog what the log does not say: the types that are not built in, the order of key columns, and
//! which columns are NOT NULL.
//!
//! The catalog is as it is *now*, the log may be days behind: whatever the log says itself goes before the catalog, and
//! what the catalog no longer knows is no fault.

use crate::value::{self, Attribute, Kind};
use headgate_sdk::Fault;
use std::{collections::HashMap, sync::Arc};
use tokio_postgres::Client;

/// Deepest nesting of types that gets a form of its own; whatever is deeper travels as the database's text.
const MAX_DEPTH: usize = 16;

/// Most types and parts of types that a table's columns are put together from; likewise. A schema can nest composites so
/// that their parts multiply with each level.
const MAX_PARTS: usize = 10_000;

const TYPES: &str = "
    SELECT t.oid, t.typname::text, t.typtype,
           CASE WHEN e.typarray = t.oid THEN e.oid ELSE 0::pg_catalog.oid END AS element,
           COALESCE(e.typdelim, ',') AS delimiter,
           t.typbasetype,
           ARRAY(SELECT a.attname::text FROM pg_catalog.pg_attribute a
                 WHERE a.attrelid = t.typrelid AND t.typtype = 'c' AND a.attnum > 0 AND NOT a.attisdropped
                 ORDER BY a.attnum) AS attributes,
           ARRAY(SELECT a.atttypid FROM pg_catalog.pg_attribute a
                 WHERE a.attrelid = t.typrelid AND t.typtype = 'c' AND a.attnum > 0 AND NOT a.attisdropped
                 ORDER BY a.attnum) AS attribute_types
    FROM pg_catalog.pg_type t LEFT JOIN pg_catalog.pg_type e ON e.oid = t.typelem
    WHERE t.oid = ANY($1)";

// A constraint that is NOT VALID (PostgreSQL 18) says nothing of the rows that were there before it.
const TABLE: &str = "
    SELECT ARRAY(SELECT a.attname::text
                 FROM pg_catalog.pg_index i, pg_catalog.unnest(i.indkey) WITH ORDINALITY k(attnum, place)
                 JOIN pg_catalog.pg_attribute a ON a.attrelid = $1 AND a.attnum = k.attnum
                 WHERE i.indrelid = $1 AND CASE WHEN $2 THEN i.indisreplident ELSE i.indisprimary END
                   AND k.place <= i.indnkeyatts ORDER BY k.place),
           ARRAY(SELECT a.attname::text FROM pg_catalog.pg_attribute a
                 WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum),
           ARRAY(SELECT NOT a.attnotnull OR EXISTS (
                          SELECT FROM pg_catalog.pg_constraint c
                          WHERE c.conrelid = $1 AND c.contype = 'n' AND c.conkey = ARRAY[a.attnum] AND NOT c.convalidated)
                 FROM pg_catalog.pg_attribute a
                 WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum)";

/// Which index names the rows of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeyIndex {
    /// The primary key.
    Primary,
    /// The index of `REPLICA IDENTITY USING INDEX`.
    ReplicaIdentity,
}

/// What the catalog says of a table; nothing of one that it no longer knows.
#[derive(Debug, Default)]
pub(crate) struct TableFacts {
    /// The columns of the index that names its rows, in index order; empty where there is none.
    pub(crate) key: Vec<String>,
    /// Its columns, and whether each may be NULL.
    pub(crate) nullable: HashMap<String, bool>,
}

/// The catalog, with a memory for types.
#[derive(Debug)]
pub(crate) struct Catalog {
    client: Arc<Client>,
    types: HashMap<u32, Definition>,
}

/// A type that is not built in, as the catalog has it.
#[derive(Clone, Debug)]
struct Definition {
    name: String,
    form: Form,
}

#[derive(Clone, Debug)]
enum Form {
    Text,
    Hstore,
    Array { element: u32, delimiter: u8 },
    Domain { base: u32 },
    Composite(Vec<(String, u32)>),
}

impl Form {
    /// The types that this one is made of.
    fn parts(&self) -> Vec<u32> {
        match self {
            Self::Text | Self::Hstore => Vec::new(),
            Self::Array { element: part, .. } | Self::Domain { base: part } => vec![*part],
            Self::Composite(attributes) => attributes.iter().map(|(_, part)| *part).collect(),
        }
    }
}

impl Catalog {
    pub(crate) fn new(client: Arc<Client>) -> Self {
        Self { client, types: HashMap::new() }
    }

    /// Name and form of each type, in order. Asks the database only about types that are neither built in nor known.
    pub(crate) async fn kinds(&mut self, oids: &[u32]) -> Result<Vec<(String, Kind)>, Fault> {
        // A composite keeps its OID through ALTER TYPE, so it is read again for each version of a table.
        self.types.retain(|_, definition| !matches!(definition.form, Form::Composite(_)));
        let mut wanted = oids.to_vec();
        for _ in 0..MAX_DEPTH {
            // A type that holds a composite somewhere inside may be remembered itself: look through it.
            wanted = self.learn(wanted).await?;
            if wanted.is_empty() {
                break;
            }
        }
        let mut room = MAX_PARTS;
        Ok(oids.iter().map(|&oid| self.resolve(oid, MAX_DEPTH, &mut room)).collect())
    }

    /// Asks about those of `oids` that are unknown; returns what all of them are made of.
    async fn learn(&mut self, mut oids: Vec<u32>) -> Result<Vec<u32>, Fault> {
        oids.retain(|&oid| value::builtin(oid).is_none());
        oids.sort_unstable();
        oids.dedup();
        let unknown: Vec<u32> = oids.iter().copied().filter(|oid| !self.types.contains_key(oid)).collect();
        if !unknown.is_empty() {
            let rows =
                self.client.query(TYPES, &[&unknown]).await.map_err(|error| unanswered("types", error))?;
            for row in &rows {
                let (oid, definition) = definition(row).map_err(|error| unanswered("types", error))?;
                self.types.insert(oid, definition);
            }
        }
        Ok(oids.iter().filter_map(|oid| self.types.get(oid)).flat_map(|known| known.form.parts()).collect())
    }

    /// Puts a type together. One that was dropped since is text: its OID is all that is left of it.
    fn resolve(&self, oid: u32, depth: usize, room: &mut usize) -> (String, Kind) {
        if let Some(known) = value::builtin(oid) {
            return known;
        }
        let Some(Definition { name, form }) = self.types.get(&oid) else {
            return (format!("type {oid}"), Kind::Text);
        };
        let (Some(depth), Some(left)) = (depth.checked_sub(1), room.checked_sub(1 + form.parts().len()))
        else {
            return (name.clone(), Kind::Text);
        };
        *room = left;
        match form {
            Form::Text => (name.clone(), Kind::Text),
            Form::Hstore => (name.clone(), Kind::Hstore),
            Form::Domain { base } => (name.clone(), self.resolve(*base, depth, room).1),
            Form::Array { element, delimiter } => {
                let (element, kind) = self.resolve(*element, depth, room);
                (format!("{element}[]"), Kind::Array { element: Box::new(kind), delimiter: *delimiter })
            }
            Form::Composite(attributes) => {
                let attribute =
                    |(name, oid): &(String, u32)| Attribute::new(name, self.resolve(*oid, depth, room).1);
                (name.clone(), Kind::Composite(attributes.iter().map(attribute).collect()))
            }
        }
    }

    /// What the log does not say of a table.
    pub(crate) async fn table(&self, table: u32, index: KeyIndex) -> Result<TableFacts, Fault> {
        let by_identity = index == KeyIndex::ReplicaIdentity;
        let failed = |error| unanswered("a table", error);
        let row = self.client.query_one(TABLE, &[&table, &by_identity]).await.map_err(failed)?;
        let names: Vec<String> = row.try_get(1).map_err(failed)?;
        let nullable: Vec<bool> = row.try_get(2).map_err(failed)?;
        Ok(TableFacts {
            key: row.try_get(0).map_err(failed)?,
            nullable: names.into_iter().zip(nullable).collect(),
        })
    }
}

fn definition(row: &tokio_postgres::Row) -> Result<(u32, Definition), tokio_postgres::Error> {
    let name: String = row.try_get(1)?;
    let element: u32 = row.try_get(3)?;
    let form = match row.try_get::<_, i8>(2)?.cast_unsigned() {
        b'd' => Form::Domain { base: row.try_get(5)? },
        b'c' => {
            let names: Vec<String> = row.try_get(6)?;
            let types: Vec<u32> = row.try_get(7)?;
            Form::Composite(names.into_iter().zip(types).collect())
        }
        _ if element != 0 => Form::Array { element, delimiter: row.try_get::<_, i8>(4)?.cast_unsigned() },
        b'b' if name == "hstore" => Form::Hstore,
        _ => Form::Text,
    };
    Ok((row.try_get(0)?, Definition { name, form }))
}

fn unanswered(what: &str, error: tokio_postgres::Error) -> Fault {
    Fault::transient(format!("the catalog did not answer about {what}")).with_cause(error)
}
