//! What a database holds and who may capture it, for proposing a configuration. Reads the catalog and statistics only,
//! no table; changes nothing.

use crate::{
    Config,
    connect::{Server, Target},
    facilities::Facilities,
    refusal::sql_fault,
    sql_name, wal_rate,
};
use headgate_sdk::{Fault, TableFilter, TableName};
use postgres_protocol::escape::escape_identifier;
use std::time::{Duration, Instant};

/// How long tables are watched for their writes, beside the log: sessions tell theirs once a second.
const WATCH: Duration = Duration::from_secs(2);

/// A database, looked at from outside.
#[derive(Clone, Debug)]
pub struct Survey {
    /// Where it was reached, without credentials.
    pub address: String,
    /// Its name.
    pub database: String,
    /// The role that looked.
    pub user: String,
    /// The server's major version.
    pub version: i32,
    /// Whether the role is a superuser.
    pub superuser: bool,
    /// Whether the role could make the publications by itself: it may create them, and owns every table.
    pub sufficient: bool,
    /// Bytes of log that the server writes in a second.
    pub wal_rate: u64,
    /// Its tables, by name; partitions count into their root.
    pub tables: Vec<SurveyedTable>,
}

/// A table, looked at from outside. Rows and sizes are the server's estimates.
#[derive(Clone, Debug)]
pub struct SurveyedTable {
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub table: String,
    /// The role that owns it.
    pub owner: String,
    /// Rows, as the server guesses; none of a table that it has not counted since it was made.
    pub rows: Option<u64>,
    /// Bytes, with indexes and large values.
    pub bytes: u64,
    /// Rows inserted, updated and deleted in a second, while it was looked at.
    pub writes: f64,
    /// What names a row in an update.
    pub identity: RowIdentity,
}

/// What the log says of an old row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowIdentity {
    /// Its key.
    Key,
    /// All of it.
    Full,
    /// Nothing: only inserts can be captured.
    None,
}

/// Looks at the database that `config` names; takes some seconds.
///
/// # Errors
/// The server cannot be reached, or does not let the role look.
pub async fn survey(config: &Config) -> Result<Survey, Fault> {
    let (server, session) = Server::find(Target::new(config, "init")?).await?;
    let client = &*session.client;
    let facilities = Facilities::of(client).await?;
    let failed = |error| sql_fault(error, "cannot look at the role");
    let row = client
        .query_one(
            "SELECT rolsuper, has_database_privilege(current_database(), 'CREATE') FROM pg_roles WHERE rolname = current_user",
            &[],
        )
        .await
        .map_err(failed)?;
    let (superuser, creates): (bool, bool) =
        (row.try_get(0).map_err(failed)?, row.try_get(1).map_err(failed)?);

    let begun = Instant::now();
    let before = tables(client).await?;
    let wal_rate = if facilities.standby { 0 } else { wal_rate::measure(client).await?.bytes() };
    tokio::time::sleep(WATCH.saturating_sub(begun.elapsed())).await;
    let after = tables(client).await?;
    let seconds = begun.elapsed().as_secs_f64().max(0.1);

    let owned = after.iter().all(|found| found.owned);
    let tables = after
        .into_iter()
        .map(|found| {
            let was = before.iter().find(|was| was.oid == found.oid).map_or(found.written, |was| was.written);
            let writes = (found.written - was).max(0) as f64 / seconds;
            SurveyedTable { writes, ..found.table }
        })
        .collect();
    Ok(Survey {
        address: server.address.to_string(),
        database: server.target.database.clone(),
        user: server.target.user.clone(),
        version: facilities.version / 10_000,
        superuser,
        sufficient: superuser || (creates && owned),
        wal_rate,
        tables,
    })
}

struct Found {
    oid: u32,
    owned: bool,
    written: i64,
    table: SurveyedTable,
}

async fn tables(client: &tokio_postgres::Client) -> Result<Vec<Found>, Fault> {
    const STATEMENT: &str = "SELECT c.oid, n.nspname::text, c.relname::text, pg_get_userbyid(c.relowner)::text, pg_has_role(c.relowner, 'USAGE'), \
        (SELECT sum(m.reltuples)::bigint FROM pg_class m WHERE m.oid = ANY (l.oids) AND m.reltuples >= 0), \
        (SELECT sum(pg_total_relation_size(o))::bigint FROM unnest(l.oids) o), \
        (SELECT sum(pg_stat_get_tuples_inserted(o) + pg_stat_get_tuples_updated(o) + pg_stat_get_tuples_deleted(o))::bigint FROM unnest(l.oids) o), \
        CASE c.relreplident WHEN 'f' THEN 'f' \
          WHEN 'd' THEN (SELECT 'k' FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary AND i.indimmediate) \
          WHEN 'i' THEN (SELECT 'k' FROM pg_index i WHERE i.indrelid = c.oid AND i.indisreplident AND i.indisvalid) END \
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace, \
          LATERAL (SELECT ARRAY(SELECT c.oid UNION SELECT p.relid::oid FROM pg_partition_tree(c.oid) p) AS oids) l \
        WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relpersistence = 'p' AND c.oid >= 16384 AND n.nspname NOT LIKE 'pg\\_%' \
        ORDER BY 2, 3";
    let failed = |error| sql_fault(error, "cannot list the database's tables");
    let rows = client.query(STATEMENT, &[]).await.map_err(failed)?;
    let count = |number: Option<i64>| u64::try_from(number.unwrap_or(0)).unwrap_or(0);
    rows.iter()
        .map(|row| {
            Ok(Found {
                oid: row.try_get(0)?,
                owned: row.try_get(4)?,
                written: row.try_get::<_, Option<i64>>(7)?.unwrap_or(0),
                table: SurveyedTable {
                    schema: row.try_get(1)?,
                    table: row.try_get(2)?,
                    owner: row.try_get(3)?,
                    rows: row.try_get::<_, Option<i64>>(5)?.map(|rows| count(Some(rows))),
                    bytes: count(row.try_get(6)?),
                    writes: 0.0,
                    identity: match row.try_get::<_, Option<&str>>(8)? {
                        Some("f") => RowIdentity::Full,
                        Some(_) => RowIdentity::Key,
                        None => RowIdentity::None,
                    },
                },
            })
        })
        .collect::<Result<_, _>>()
        .map_err(failed)
}

impl Survey {
    /// The tables that globs capture.
    #[must_use]
    pub fn captured(&self, globs: &[String]) -> Vec<&SurveyedTable> {
        let filter = TableFilter::new(globs);
        self.tables.iter().filter(|table| filter.matches(&table.schema, &table.table)).collect()
    }

    /// The statements, one a line, by which an administrator gives `role` the least that capturing needs: it reads the
    /// log and these tables, owns nothing, and writes nothing. `publication` is made for it.
    #[must_use]
    pub fn least_privileges(&self, role: &str, publication: &str, globs: &[String]) -> Vec<String> {
        let captured = self.captured(globs);
        let role_text = escape_identifier(role);
        let mut statements = Vec::new();
        if role != self.user || self.superuser {
            statements.push(format!("CREATE ROLE {role_text} LOGIN REPLICATION PASSWORD '…';"));
        } else {
            statements.push(format!("ALTER ROLE {role_text} REPLICATION;"));
        }
        statements
            .push(format!("GRANT CONNECT ON DATABASE {} TO {role_text};", escape_identifier(&self.database)));
        let mut schemas: Vec<&str> = captured.iter().map(|table| table.schema.as_str()).collect();
        schemas.dedup();
        for schema in schemas {
            statements.push(format!("GRANT USAGE ON SCHEMA {} TO {role_text};", escape_identifier(schema)));
        }
        let quoted = |table: &SurveyedTable| {
            sql_name::quoted(&TableName { schema: table.schema.clone(), table: table.table.clone() })
        };
        for table in &captured {
            statements.push(format!("GRANT SELECT ON {} TO {role_text};", quoted(table)));
        }
        statements.push(format!("GRANT pg_read_all_stats TO {role_text};"));
        // Published with updates and without an identity, the application's own UPDATE would fail.
        let published: Vec<String> = captured
            .iter()
            .filter(|table| table.identity != RowIdentity::None)
            .map(|table| quoted(table))
            .collect();
        if !published.is_empty() {
            let generated = if self.version >= 18 { ", publish_generated_columns = stored" } else { "" };
            statements.push(format!(
                "CREATE PUBLICATION {} FOR TABLE ONLY {} WITH (publish = 'insert, update, delete, truncate', publish_via_partition_root = true{generated});",
                escape_identifier(publication),
                published.join(", ONLY ")
            ));
        }
        statements
    }
}
