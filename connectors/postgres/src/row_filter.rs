//! Row filters: the conditions under which a table's rows are published (`where`, PostgreSQL 15 and later).
//!
//! The server evaluates them, so what they leave out never leaves the database. It also refuses an UPDATE or DELETE *of the
//! application* on a table whose filter reads columns outside the replica identity. So a filter is tried in a transaction
//! that is rolled back: that tells which columns it reads, before anything is published with it.

use crate::{
    refusal::{Refusal, sql_fault},
    sql_name,
};
use headgate_sdk::{Fault, TableName};
use postgres_protocol::escape::{escape_identifier, escape_literal};
use std::collections::BTreeMap;
use tokio_postgres::{Client, SimpleQueryMessage};

/// The first version that has them.
const SINCE: i32 = 150_000;

/// The row filters of a source, by `schema.table`.
#[derive(Debug, Default)]
pub(crate) struct RowFilters(BTreeMap<String, RowFilter>);

/// The filter of one table.
#[derive(Debug)]
pub(crate) struct RowFilter {
    /// As the settings have it.
    pub(crate) condition: String,
    /// As the server writes it and which columns it reads; known once it was tried.
    tried: Option<Tried>,
}

#[derive(Debug)]
struct Tried {
    canonical: String,
    columns: Vec<String>,
}

impl RowFilter {
    /// Whether a table that is published with `published` has this filter. Where that cannot be known, any will do.
    pub(crate) fn is(&self, published: Option<&str>) -> bool {
        match (&self.tried, published) {
            (_, None) => false,
            (Some(tried), Some(published)) => tried.canonical == published,
            (None, Some(_)) => true,
        }
    }

    /// The columns that it reads, where they are known.
    pub(crate) fn columns(&self) -> Option<&[String]> {
        self.tried.as_ref().map(|tried| tried.columns.as_slice())
    }
}

impl RowFilters {
    pub(crate) fn new(filters: &BTreeMap<String, String>) -> Self {
        let filter = |condition: &String| RowFilter { condition: condition.clone(), tried: None };
        Self(filters.iter().map(|(table, condition)| (table.clone(), filter(condition))).collect())
    }

    /// The filter of a table.
    pub(crate) fn of(&self, table: &TableName) -> Option<&RowFilter> {
        if self.0.is_empty() { None } else { self.0.get(&table.to_string()) }
    }

    /// The tables that have one.
    pub(crate) fn tables(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Tries every filter; changes nothing. `probe` is the name of a publication that does not exist.
    ///
    /// # Errors
    /// The server is too old, or does not take a filter.
    pub(crate) async fn attempt(
        &mut self,
        client: &Client,
        probe: &str,
        partition_root: bool,
        version: i32,
    ) -> Result<(), Fault> {
        if self.0.is_empty() {
            return Ok(());
        }
        if version < SINCE {
            return Err(Fault::definite(format!(
                "row filters (where) came with PostgreSQL 15, and this is {}",
                version / 10_000
            ))
            .with_fix("upgrade the server, or take the section `where` out of the settings"));
        }
        for (name, filter) in &mut self.0 {
            filter.tried = attempt(client, probe, partition_root, name, &filter.condition).await?;
        }
        Ok(())
    }
}

/// `None` where the role may not publish the table: that is found and told of elsewhere.
async fn attempt(
    client: &Client,
    probe: &str,
    root: bool,
    name: &str,
    condition: &str,
) -> Result<Option<Tried>, Fault> {
    let (schema, table) = name.split_once('.').unwrap_or(("public", name));
    let table = TableName { schema: schema.to_owned(), table: table.to_owned() };
    let statements = format!(
        "BEGIN; CREATE PUBLICATION {} FOR TABLE ONLY {} WHERE ({condition}\n) WITH (publish_via_partition_root = {root}); \
         SELECT pg_get_expr(r.prqual, r.prrelid), a.attname FROM pg_publication p JOIN pg_publication_rel r ON r.prpubid = p.oid \
         LEFT JOIN pg_depend d ON d.classid = 'pg_publication_rel'::regclass AND d.objid = r.oid \
           AND d.refclassid = 'pg_class'::regclass AND d.refobjid = r.prrelid AND d.refobjsubid > 0 \
         LEFT JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid WHERE p.pubname = {}",
        escape_identifier(probe),
        sql_name::quoted(&table),
        escape_literal(probe),
    );
    let outcome = client.simple_query(&statements).await;
    let rolled_back = client.batch_execute("ROLLBACK").await;
    let answer = match outcome {
        Ok(answer) => answer,
        Err(error) => {
            return match Refusal::of(&error) {
                Some(refusal) if refusal.code == "42501" => Ok(None),
                Some(refusal) if refusal.code == "42P01" || refusal.code == "3F000" => {
                    Err(absent(name).with_cause(refusal))
                }
                Some(refusal) if ["42", "0A", "22"].iter().any(|class| refusal.code.starts_with(class)) => {
                    Err(Fault::definite(format!("the server does not take the row filter of {name}"))
                        .with_fix(format!("correct where.\"{name}\"; a filter is a condition on the table's own columns, with built-in functions and operators only"))
                        .with_cause(refusal))
                }
                _ => Err(sql_fault(error, format!("cannot try the row filter of {name}"))),
            };
        }
    };
    rolled_back.map_err(|error| sql_fault(error, "cannot take back the trial of a row filter"))?;
    let mut tried = Tried { canonical: String::new(), columns: Vec::new() };
    for message in answer {
        if let SimpleQueryMessage::Row(row) = message {
            tried.canonical = row.get(0).unwrap_or_default().to_owned();
            tried.columns.extend(row.get(1).map(str::to_owned));
        }
    }
    tried.columns.sort();
    tried.columns.dedup();
    Ok(Some(tried))
}

/// The fault of a filter for a table that is not there, or not captured: perhaps it has another name now.
pub(crate) fn absent(name: &str) -> Fault {
    Fault::definite(format!("{name} has a row filter and is not a captured table"))
        .with_fix(format!("correct the name in `where`, or capture the table: tables = [\"{name}\", …]"))
}

/// Those of `columns` that are not part of the replica identity of `table`, or of one of its partitions.
pub(crate) async fn outside_identity(
    client: &Client,
    table: u32,
    columns: &[String],
) -> Result<Vec<String>, Fault> {
    // The server asks the table that a row is stored in, and each partition has an identity of its own.
    const STATEMENT: &str = "SELECT DISTINCT f.name FROM unnest($2::text[]) f(name) \
        CROSS JOIN (SELECT $1::oid AS oid UNION SELECT relid FROM pg_partition_tree($1::oid::regclass) WHERE isleaf) l \
        JOIN pg_class c ON c.oid = l.oid AND c.relkind = 'r' \
        WHERE c.relreplident <> 'f' AND NOT EXISTS (SELECT FROM pg_index i, unnest(i.indkey) WITH ORDINALITY k(attnum, place) \
          JOIN pg_attribute a ON a.attnum = k.attnum \
          WHERE i.indrelid = c.oid AND a.attrelid = c.oid AND a.attname = f.name AND k.place <= i.indnkeyatts \
            AND CASE c.relreplident WHEN 'd' THEN i.indisprimary WHEN 'i' THEN i.indisreplident ELSE false END) \
        ORDER BY 1";
    let failed = |error| sql_fault(error, "cannot compare a row filter with the replica identity");
    let rows = client.query(STATEMENT, &[&table, &columns]).await.map_err(failed)?;
    rows.iter().map(|row| row.try_get(0).map_err(failed)).collect()
}

/// The fault of a filter that would make the application's updates fail.
pub(crate) fn uncovered(table: &TableName, columns: &[String]) -> Fault {
    Fault::definite(format!(
        "the row filter of {table} reads {}, outside its replica identity: the application's updates and deletes would fail",
        columns.join(", ")
    ))
    .with_fix(format!("ALTER TABLE {} REPLICA IDENTITY FULL; or filter by columns of its key", sql_name::quoted(table)))
}
