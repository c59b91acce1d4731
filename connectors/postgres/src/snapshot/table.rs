//! A table as a snapshot reads it: the shape that the log gives its rows, and the statement that reads them.
//!
//! What is read must look as what is streamed: the publication's columns and row filter, the partition's root in the place of
//! its leaves, the key in the order of its index.

use crate::{
    catalog::{Catalog, KeyIndex},
    pgoutput::{self, ReplicaIdentity},
    refusal::sql_fault,
    relation::{Known, Shape},
};
use headgate_sdk::{
    Fault, Relation, TableName,
    snapshots::{self, Rows},
};
use postgres_protocol::escape::{escape_identifier, escape_literal};
use std::sync::Arc;
use tokio_postgres::Client;

/// A published table.
#[derive(Debug)]
pub(crate) struct Table {
    pub(super) oid: u32,
    /// The shape of its rows.
    pub(super) relation: Arc<Relation>,
    /// What the shape was made from; another text is another shape.
    pub(super) fingerprint: String,
    from: String,
    columns: String,
    filter: Option<String>,
    /// Name and type of each key column, as SQL wants them, in key order.
    key: Vec<(String, String)>,
    /// Number, type and collation of each key column: one that is renamed stays what it was.
    order: String,
}

/// A column, as the catalog has it.
struct Described {
    name: String,
    type_oid: u32,
    sql_type: String,
    sorted_by: String,
}

/// A text in SQL. What is not UTF-8 is not in any statement of ours, so its bytes are spelled; only a database without an encoding
/// (SQL_ASCII) has such texts, and takes them as they are.
fn text_literal(text: &[u8]) -> String {
    if let Ok(text) = std::str::from_utf8(text) {
        return escape_literal(text).trim().to_owned();
    }
    let spelled: String = text.iter().map(|byte| format!("\\x{byte:02x}")).collect();
    format!("E'{spelled}'")
}

/// The table's shape as one text; `oid` is a number or an SQL expression.
fn fingerprint(oid: &str) -> String {
    format!(
        "(SELECT concat_ws(' ', f.relnamespace, f.relname, f.relreplident, \
            string_agg(concat_ws(' ', g.attnum, g.attname, g.atttypid, g.attcollation, g.attgenerated, g.attnotnull, n.oid), ',' ORDER BY g.attnum), \
            (SELECT string_agg(i.indkey::text, ',' ORDER BY i.indexrelid) FROM pg_index i \
             WHERE i.indrelid = f.oid AND (i.indisprimary OR i.indisreplident))) \
         FROM pg_class f JOIN pg_attribute g ON g.attrelid = f.oid AND g.attnum > 0 AND NOT g.attisdropped \
         LEFT JOIN pg_constraint n ON n.conrelid = f.oid AND n.contype = 'n' AND n.conkey = ARRAY[g.attnum] AND NOT n.convalidated \
         WHERE f.oid = {oid} GROUP BY f.oid, f.relnamespace, f.relname, f.relreplident)"
    )
}

impl snapshots::Table for Table {
    fn has_key(&self) -> bool {
        !self.key.is_empty()
    }

    fn order(&self) -> String {
        self.order.clone()
    }
}

impl Table {
    /// Looks a table up; `None` if there is none, or none of the publications has a column of it.
    pub(super) async fn describe(
        client: &Client,
        catalog: &mut Catalog,
        name: &TableName,
        publications: &[String],
        version: i32,
    ) -> Result<Option<Self>, Fault> {
        let failed = |error| sql_fault(error, format!("cannot look at table {name}"));
        // Before PostgreSQL 15 a publication has neither columns nor filters; through JSON one statement serves all.
        // The columns of a table of which none is published are NULL there, which is not the same as all.
        let statement = format!(
            "SELECT c.oid, c.relkind = 'p', c.relreplident, \
                CASE WHEN jsonb_typeof(to_jsonb(p) -> 'attnames') = 'array' \
                       THEN ARRAY(SELECT jsonb_array_elements_text(to_jsonb(p) -> 'attnames')) \
                     WHEN to_jsonb(p) ? 'attnames' THEN '{{}}'::text[] END, \
                to_jsonb(p) ->> 'rowfilter', {} \
             FROM pg_publication_tables p \
             JOIN pg_namespace n ON n.nspname = p.schemaname JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = p.tablename \
             WHERE p.schemaname::text = $1 AND p.tablename::text = $2 AND p.pubname::text = ANY($3) LIMIT 1",
            fingerprint("c.oid")
        );
        let Some(row) = client
            .query_opt(&statement, &[&name.schema, &name.table, &publications])
            .await
            .map_err(failed)?
        else {
            return Ok(None);
        };
        let oid: u32 = row.try_get(0).map_err(failed)?;
        let partitioned: bool = row.try_get(1).map_err(failed)?;
        let identity = match row.try_get::<_, i8>(2).map_err(failed)?.cast_unsigned() {
            b'f' => ReplicaIdentity::Full,
            b'i' => ReplicaIdentity::Index,
            b'n' => ReplicaIdentity::Nothing,
            _ => ReplicaIdentity::Default,
        };
        let published: Option<Vec<String>> = row.try_get(3).map_err(failed)?;
        let filter: Option<String> = row.try_get(4).map_err(failed)?;
        let Some(fingerprint): Option<String> = row.try_get(5).map_err(failed)? else { return Ok(None) };

        let generated = if version >= 180_000 { "('', 's')" } else { "('')" };
        let statement = format!(
            "SELECT attname::text, atttypid, format_type(atttypid, -1), concat_ws(' ', attnum, atttypid, attcollation) FROM pg_attribute \
             WHERE attrelid = $1 AND attnum > 0 AND NOT attisdropped AND attgenerated IN {generated} ORDER BY attnum"
        );
        let mut columns: Vec<Described> = Vec::new();
        for row in client.query(&statement, &[&oid]).await.map_err(failed)? {
            let name: String = row.try_get(0).map_err(failed)?;
            if published.as_ref().is_none_or(|published| published.contains(&name)) {
                columns.push(Described {
                    name,
                    type_oid: row.try_get(1).map_err(failed)?,
                    sql_type: row.try_get(2).map_err(failed)?,
                    sorted_by: row.try_get(3).map_err(failed)?,
                });
            }
        }
        if columns.is_empty() {
            // Its rows say nothing, so there is nothing to read.
            return Ok(None);
        }
        let flagged = match identity {
            ReplicaIdentity::Default => catalog.table(oid, KeyIndex::Primary).await?.key,
            ReplicaIdentity::Index => catalog.table(oid, KeyIndex::ReplicaIdentity).await?.key,
            ReplicaIdentity::Full | ReplicaIdentity::Nothing => Vec::new(),
        };
        // As the log would describe it, so that the same table has the same shape.
        let message = pgoutput::Relation {
            oid,
            schema: &name.schema,
            table: &name.table,
            identity,
            columns: columns
                .iter()
                .map(|column| pgoutput::Column {
                    identity: identity == ReplicaIdentity::Full || flagged.contains(&column.name),
                    name: &column.name,
                    type_oid: column.type_oid,
                    modifier: -1,
                })
                .collect(),
        };
        let relation = Known::new(Shape::resolve(&message, catalog).await?).relation;
        let key = || relation.key.iter().filter_map(|&at| columns.get(at));
        let order = key().map(|column| format!("{},", column.sorted_by)).collect();
        let key = key().map(|column| (escape_identifier(&column.name), column.sql_type.clone())).collect();
        let quoted = crate::sql_name::quoted(name);
        let list: Vec<String> = columns.iter().map(|column| escape_identifier(&column.name)).collect();
        Ok(Some(Self {
            oid,
            relation,
            fingerprint,
            // Tables that inherit from it are published by themselves.
            from: if partitioned { quoted } else { format!("ONLY {quoted}") },
            columns: list.join(", "),
            filter,
            key,
            order,
        }))
    }

    /// What tells whether the table is still what it was.
    pub(super) fn fingerprint_query(&self) -> String {
        fingerprint(&self.oid.to_string())
    }

    /// The statement that reads rows. Fails where a key is not one of this table.
    pub(super) fn statement(&self, rows: &Rows, condition: Option<&str>) -> Result<String, Fault> {
        let mut conditions: Vec<String> = Vec::new();
        // A line of its own, so that a comment at its end stays within it.
        conditions.extend(self.filter.iter().map(|filter| format!("({filter})")));
        conditions.extend(condition.map(|condition| format!("({condition}\n)")));
        let mut end = String::new();
        match rows {
            Rows::All => {}
            Rows::After(after, limit) => {
                if let Some(after) = after {
                    conditions.push(format!("{} > {}", self.key_columns(), self.literal(after)?));
                }
                let order: Vec<&str> = self.key.iter().map(|(name, _)| name.as_str()).collect();
                end = format!(" ORDER BY {} LIMIT {limit}", order.join(", "));
            }
            Rows::Keys(keys) => {
                let keys = keys.iter().map(|key| self.literal(key)).collect::<Result<Vec<_>, _>>()?;
                conditions.push(format!("{} IN ({})", self.key_columns(), keys.join(", ")));
            }
        }
        let filter = if conditions.is_empty() {
            String::new()
        } else {
            format!(" WHERE {}", conditions.join(" AND "))
        };
        Ok(format!("SELECT {} FROM {}{filter}{end}", self.columns, self.from))
    }

    /// Statements that say nothing, one of which fails where a condition is not one.
    ///
    /// Chunks are read under the condition in parentheses. One that closes them itself (`a) OR (b`) would go past the key
    /// at which a chunk begins, and the snapshot would never end: without parentheses that is no statement.
    pub(super) fn trials(&self, condition: &str) -> [String; 2] {
        [format!("({condition}\n)"), format!("{condition}\n")]
            .map(|condition| format!("EXPLAIN SELECT FROM {} WHERE {condition}", self.from))
    }

    fn key_columns(&self) -> String {
        let names: Vec<&str> = self.key.iter().map(|(name, _)| name.as_str()).collect();
        format!("({})", names.join(", "))
    }

    fn literal(&self, key: &str) -> Result<String, Fault> {
        let values = snapshots::columns(key, self.key.len()).ok_or_else(|| {
            Fault::transient(format!(
                "the snapshot of {}.{} cannot go on: its place is not a key of the table any more",
                self.relation.schema, self.relation.table
            ))
        })?;
        let values = values.iter().zip(&self.key);
        let values: Vec<String> =
            values.map(|(value, (_, kind))| format!("{}::{kind}", text_literal(value))).collect();
        Ok(format!("({})", values.join(", ")))
    }
}
