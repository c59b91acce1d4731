//! The captured tables as the catalog has them now, for settings of the gateway that have to fit them.

use crate::{
    Config,
    connect::{Server, Target},
    facilities::Facilities,
    publication::Publications,
    refusal::sql_fault,
};
use headgate_sdk::{Fault, TableShape};
use postgres_protocol::escape::escape_identifier;

/// The tables that a run of `source` would capture.
///
/// # Errors
/// The database cannot be reached, or does not answer.
pub async fn tables(source: &str, config: &Config) -> Result<Vec<TableShape>, Fault> {
    // The key is the one of `relation::key`; each partition logs old rows by an identity of its own.
    const STATEMENT: &str = "SELECT n.nspname::text, c.relname::text, \
        ARRAY(SELECT a.attname::text FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum), \
        ARRAY(SELECT a.attname::text FROM pg_index i CROSS JOIN unnest(i.indkey) WITH ORDINALITY k(attnum, place) \
          JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum \
          WHERE i.indrelid = c.oid AND k.place <= i.indnkeyatts \
            AND CASE c.relreplident WHEN 'i' THEN i.indisreplident ELSE i.indisprimary END ORDER BY k.place), \
        COALESCE((SELECT bool_and(l.relreplident = 'f') FROM pg_partition_tree(c.oid) p JOIN pg_class l ON l.oid = p.relid WHERE p.isleaf), c.relreplident = 'f') \
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
        WHERE c.relkind IN ('r', 'p') AND n.nspname || '.' || c.relname = ANY($1) ORDER BY 1, 2";
    let (_, session) = Server::find(Target::new(config, source)?).await?;
    let client = &session.client;
    let publications = Publications::new(source, config, Facilities::of(client).await?.version);
    let plan = publications.plan(client).await?;
    let names: Vec<String> = plan.whole.iter().chain(&plan.append).map(ToString::to_string).collect();
    let failed = |error| sql_fault(error, "cannot look at the tables' columns");
    let rows = client.query(STATEMENT, &[&names]).await.map_err(failed)?;
    let shape = |row: &tokio_postgres::Row| -> Result<TableShape, tokio_postgres::Error> {
        let (schema, table): (String, String) = (row.try_get(0)?, row.try_get(1)?);
        Ok(TableShape {
            columns: row.try_get(2)?,
            key: row.try_get(3)?,
            whole_before: row.try_get(4)?,
            make_before_whole: format!(
                "ALTER TABLE {}.{} REPLICA IDENTITY FULL (of a partitioned table: each partition)",
                escape_identifier(&schema),
                escape_identifier(&table)
            ),
            schema,
            table,
        })
    };
    rows.iter().map(|row| shape(row).map_err(failed)).collect()
}
