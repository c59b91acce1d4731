//! The publications as the server has them, and the tables that could be in them.

use crate::refusal::sql_fault;
use headgate_sdk::{Fault, TableName};
use std::collections::BTreeMap;
use tokio_postgres::{Client, Row};

/// A publication.
pub(super) struct Publication {
    pub(super) name: String,
    /// FOR ALL TABLES.
    pub(super) all_tables: bool,
    pub(super) via_root: bool,
    /// Whether it publishes both, inserts and truncates.
    pub(super) appends: bool,
    /// Whether it publishes both, updates and deletes.
    pub(super) rewrites: bool,
    /// Whether it publishes one of them at least.
    pub(super) rewrites_some: bool,
    /// Which generated columns, as `pg_publication` has it: `s` are those that are stored.
    pub(super) generated: String,
}

/// A table in one of the publications.
pub(super) struct Member {
    pub(super) publication: String,
    pub(super) oid: u32,
    pub(super) name: TableName,
    /// Its row filter, as the server writes it.
    pub(super) filter: Option<String>,
}

/// A table that could be captured.
pub(super) struct Candidate {
    pub(super) oid: u32,
    pub(super) name: TableName,
    pub(super) partitioned: bool,
    /// Whether its updates and deletes can be published.
    pub(super) identity: bool,
    /// The tables that it is a partition of, however far above.
    pub(super) ancestors: Vec<u32>,
    /// Whether we may publish it.
    pub(super) owned: bool,
    /// `None` where it is a superuser.
    pub(super) owner: Option<String>,
}

/// Those of the publications that exist.
pub(super) async fn publications(client: &Client, names: &[String]) -> Result<Vec<Publication>, Fault> {
    let rows = client
        .query("SELECT pubname::text, puballtables, pubviaroot, pubinsert AND pubtruncate, pubupdate AND pubdelete, pubupdate OR pubdelete, \
            COALESCE(to_jsonb(p) ->> 'pubgencols', 's') FROM pg_publication p WHERE pubname::text = ANY($1)", &[&names])
        .await
        .map_err(unseen)?;
    let read = |row: &Row| -> Result<_, tokio_postgres::Error> {
        Ok(Publication {
            name: row.try_get(0)?,
            all_tables: row.try_get(1)?,
            via_root: row.try_get(2)?,
            appends: row.try_get(3)?,
            rewrites: row.try_get(4)?,
            rewrites_some: row.try_get(5)?,
            generated: row.try_get(6)?,
        })
    };
    rows.iter().map(read).collect::<Result<_, _>>().map_err(unseen)
}

/// Their tables, with the row filters where the version has them.
pub(super) async fn members(
    client: &Client,
    publications: &[String],
    version: i32,
) -> Result<Vec<Member>, Fault> {
    let filter = if version >= 150_000 { "pg_get_expr(r.prqual, r.prrelid)" } else { "NULL::text" };
    let statement = format!(
        "SELECT p.pubname::text, c.oid, n.nspname::text, c.relname::text, {filter} FROM pg_publication p JOIN pg_publication_rel r ON r.prpubid = p.oid \
         JOIN pg_class c ON c.oid = r.prrelid JOIN pg_namespace n ON n.oid = c.relnamespace WHERE p.pubname::text = ANY($1)"
    );
    let rows = client.query(&statement, &[&publications]).await.map_err(unseen)?;
    let read = |row: &Row| -> Result<_, tokio_postgres::Error> {
        Ok(Member {
            publication: row.try_get(0)?,
            oid: row.try_get(1)?,
            name: TableName { schema: row.try_get(2)?, table: row.try_get(3)? },
            filter: row.try_get(4)?,
        })
    };
    rows.iter().map(read).collect::<Result<_, _>>().map_err(unseen)
}

/// The tables that publications have by now, partitions under the name that they speak under, with their OIDs.
pub(super) async fn published(
    client: &Client,
    publications: &[String],
) -> Result<BTreeMap<TableName, u32>, Fault> {
    let failed = |error| sql_fault(error, "cannot look at the publication's tables");
    let rows = client
        .query(
            "SELECT p.schemaname::text, p.tablename::text, c.oid FROM pg_publication_tables p \
             JOIN pg_namespace n ON n.nspname = p.schemaname JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = p.tablename \
             WHERE p.pubname::text = ANY($1)",
            &[&publications],
        )
        .await
        .map_err(failed)?;
    let read = |row: &Row| -> Result<_, tokio_postgres::Error> {
        Ok((TableName { schema: row.try_get(0)?, table: row.try_get(1)? }, row.try_get(2)?))
    };
    rows.iter().map(read).collect::<Result<_, _>>().map_err(failed)
}

/// The tables that can be published.
pub(super) async fn candidates(client: &Client) -> Result<Vec<Candidate>, Fault> {
    // The server asks each *leaf* for its identity when an UPDATE comes through the root. A virtual generated column
    // in a FULL identity cannot be published, and the server then refuses the UPDATE (PostgreSQL 18).
    const STATEMENT: &str = "WITH t AS (SELECT c.oid, n.nspname::text AS schema, c.relname::text AS name, c.relkind = 'p' AS partitioned, c.relispartition, \
        pg_has_role(c.relowner, 'USAGE') AS owned, \
        (SELECT o.rolname::text FROM pg_roles o WHERE o.oid = c.relowner AND NOT o.rolsuper) AS owner, \
        CASE c.relreplident \
          WHEN 'f' THEN NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attgenerated = 'v') \
          WHEN 'd' THEN EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary AND i.indisvalid AND i.indimmediate) \
          WHEN 'i' THEN EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisreplident AND i.indisvalid) \
          ELSE false END AS identity \
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
        WHERE c.relkind IN ('r', 'p') AND c.relpersistence = 'p' AND c.oid >= 16384 AND n.nspname NOT LIKE 'pg\\_%') \
        SELECT t.oid, t.schema, t.name, t.partitioned, t.owned, t.owner, \
          t.identity AND (NOT t.partitioned OR COALESCE((SELECT bool_and(l.identity) FROM pg_partition_tree(t.oid) p JOIN t l ON l.oid = p.relid WHERE p.isleaf), true)), \
          CASE WHEN t.relispartition THEN ARRAY(SELECT a.relid::oid FROM pg_partition_ancestors(t.oid) a WHERE a.relid <> t.oid) ELSE '{}'::oid[] END \
        FROM t ORDER BY 2, 3";
    let failed = |error| sql_fault(error, "cannot list the database's tables");
    let rows = client.query(STATEMENT, &[]).await.map_err(failed)?;
    let read = |row: &Row| -> Result<_, tokio_postgres::Error> {
        Ok(Candidate {
            oid: row.try_get(0)?,
            name: TableName { schema: row.try_get(1)?, table: row.try_get(2)? },
            partitioned: row.try_get(3)?,
            owned: row.try_get(4)?,
            owner: row.try_get(5)?,
            identity: row.try_get(6)?,
            ancestors: row.try_get(7)?,
        })
    };
    rows.iter().map(read).collect::<Result<_, _>>().map_err(failed)
}

fn unseen(error: tokio_postgres::Error) -> Fault {
    sql_fault(error, "cannot look at the publications")
}
