//! What a server holds and who may capture it, for proposing a configuration. Reads the catalog and statistics only, no
//! table; changes nothing.

use crate::{
    Config,
    connect::{Target, sql_fault},
    event::Flavor,
    privileges::{self, Privileges},
    server::{self, Server},
    tables::Captured,
};
use headgate_sdk::Fault;
use mysql_async::{Conn, prelude::Queryable as _};
use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

/// How long tables and log are watched for what is written.
const WATCH: Duration = Duration::from_secs(2);

/// Schemas that are the server's own.
const SYSTEM: &str = "'mysql', 'sys', 'information_schema', 'performance_schema'";

/// A server, looked at from outside.
#[derive(Clone, Debug)]
pub struct Survey {
    /// Where it was reached, without credentials.
    pub address: String,
    /// The database that the URL names.
    pub database: Option<String>,
    /// The account that looked, by the name in the URL.
    pub user: String,
    /// Product and version.
    pub product: String,
    /// Whether the account rules the server.
    pub administrator: bool,
    /// Whether the account may read the log.
    pub sufficient: bool,
    /// Bytes of log that the server writes in a second; `None` where the account may not know.
    pub log_rate: Option<u64>,
    /// Its tables, by name, as far as the account sees them.
    pub tables: Vec<SurveyedTable>,
    /// The account as the server knows it, quoted.
    account: String,
    flavor: Flavor,
}

/// A table, looked at from outside. Rows and sizes are the server's estimates.
#[derive(Clone, Debug)]
pub struct SurveyedTable {
    /// Its schema (database).
    pub schema: String,
    /// Its name.
    pub table: String,
    /// Rows.
    pub rows: u64,
    /// Bytes, with indexes.
    pub bytes: u64,
    /// Rows inserted, updated and deleted in a second, while it was looked at; `None` where the server does not count
    /// (`performance_schema`, or MariaDB's `userstat`), or does not tell this account.
    pub writes: Option<f64>,
    /// Whether its rows have names: a key without NULL.
    pub keyed: bool,
}

/// Looks at the server that `config` names; takes some seconds.
///
/// # Errors
/// The server cannot be reached, or does not let the account look.
pub async fn survey(config: &Config) -> Result<Survey, Fault> {
    let target = Target::new(config)?;
    let mut session = target.connect().await?;
    let server = Server::of(&mut session).await?;
    let privileges = Privileges::of(&mut session).await?;
    let account: Option<String> = session
        .query_first("SELECT CURRENT_USER()")
        .await
        .map_err(|error| sql_fault(error, "cannot ask for the account"))?;

    let begun = Instant::now();
    let before = written(&mut session, server.flavor).await;
    let from = server::end(&mut session, &server).await.ok().map(|end| end.place);
    let found = tables(&mut session, &server).await?;
    tokio::time::sleep(WATCH.saturating_sub(begun.elapsed())).await;
    let after = written(&mut session, server.flavor).await;
    let seconds = begun.elapsed().as_secs_f64().max(0.1);
    let log_rate = match from {
        Some(from) => server::files(&mut session).await.ok().map(|files| {
            let since: u64 =
                files.iter().filter(|(file, _)| *file >= from.file()).map(|(_, size)| size).sum();
            (since.saturating_sub(from.offset()) as f64 / seconds) as u64
        }),
        None => None,
    };

    let keyed = keyed(&mut session).await?;
    let tables = found
        .into_iter()
        .map(|(schema, table, rows, bytes)| {
            let name = (schema, table);
            // Where the server counts and has no count, nobody wrote since it started.
            let count = |counts: &Counts| counts.get(&name).copied().unwrap_or(0);
            let writes = before
                .as_ref()
                .zip(after.as_ref())
                .map(|(before, after)| count(after).saturating_sub(count(before)) as f64 / seconds);
            let keyed = keyed.contains(&name);
            let (schema, table) = name;
            SurveyedTable { schema, table, rows, bytes, writes, keyed }
        })
        .collect();
    Ok(Survey {
        address: target.address(),
        database: target.database.clone(),
        user: target.user.clone(),
        product: server.name(),
        administrator: privileges.administers(),
        sufficient: privileges.suffice(server.flavor),
        log_rate,
        tables,
        account: account.map_or_else(|| quoted_account(&target.user, "%"), |account| quoted(&account)),
        flavor: server.flavor,
    })
}

type Counts = HashMap<(String, String), u64>;

/// Rows written to each table since the server counts them; `None` where it does not, or does not tell.
async fn written(session: &mut Conn, flavor: Flavor) -> Option<Counts> {
    const INSTRUMENTS: &str = "SELECT object_schema, object_name, count_insert + count_update + count_delete \
        FROM performance_schema.table_io_waits_summary_by_table WHERE object_type = 'TABLE'";
    const STATISTICS: &str =
        "SELECT table_schema, table_name, rows_changed FROM information_schema.table_statistics";
    let is_on = |row: Option<u8>| row == Some(1);
    let instruments = "SELECT @@GLOBAL.performance_schema AND EXISTS (SELECT 1 FROM performance_schema.setup_instruments \
        WHERE name = 'wait/io/table/sql/handler' AND enabled = 'YES')";
    let statement = if is_on(session.query_first(instruments).await.ok().flatten()) {
        INSTRUMENTS
    } else if flavor == Flavor::MariaDb
        && is_on(session.query_first("SELECT @@GLOBAL.userstat").await.ok().flatten())
    {
        STATISTICS
    } else {
        return None;
    };
    let rows: Vec<(String, String, u64)> = session.query(statement).await.ok()?;
    Some(rows.into_iter().map(|(schema, table, count)| ((schema, table), count)).collect())
}

type Found = (String, String, u64, u64);

/// Schema, name, rows and bytes.
async fn tables(session: &mut Conn, server: &Server) -> Result<Vec<Found>, Fault> {
    let failed = |error| sql_fault(error, "cannot list the server's tables");
    // Else MySQL keeps what it looked up, which is a write.
    if !server.setting("information_schema_stats_expiry").is_empty() {
        session.query_drop("SET SESSION information_schema_stats_expiry = 0").await.map_err(failed)?;
    }
    session
        .query(format!(
            "SELECT table_schema, table_name, COALESCE(table_rows, 0), COALESCE(data_length, 0) + COALESCE(index_length, 0) \
             FROM information_schema.tables WHERE table_type IN ('BASE TABLE', 'SYSTEM VERSIONED') \
             AND table_schema NOT IN ({SYSTEM}) ORDER BY 1, 2"
        ))
        .await
        .map_err(failed)
}

/// The tables that have a key to name their rows by: the primary one, or a unique one without NULL.
pub(crate) async fn keyed(session: &mut Conn) -> Result<HashSet<(String, String)>, Fault> {
    let rows: Vec<(String, String)> = session
        .query(
            "SELECT table_schema, table_name FROM information_schema.statistics WHERE non_unique = 0 \
             GROUP BY table_schema, table_name, index_name \
             HAVING SUM(nullable = 'YES') = 0 AND SUM(column_name IS NULL) = 0",
        )
        .await
        .map_err(|error| sql_fault(error, "cannot list the tables' keys"))?;
    Ok(rows.into_iter().collect())
}

impl Survey {
    /// The tables that globs capture.
    #[must_use]
    pub fn captured(&self, globs: &[String]) -> Vec<&SurveyedTable> {
        let captured = Captured::new(globs);
        self.tables.iter().filter(|table| captured.captures(&table.schema, &table.table)).collect()
    }

    /// The statements, one a line, by which an administrator gives `user` the least that capturing needs: it reads the
    /// log and these tables, and writes nothing. None where the account that looked is meant, and has it already.
    #[must_use]
    pub fn least_privileges(&self, user: &str, globs: &[String]) -> Vec<String> {
        let same = user == self.user;
        if same && self.sufficient {
            return Vec::new();
        }
        let mut statements = Vec::new();
        let account = if same { self.account.clone() } else { quoted_account(user, "%") };
        if !same {
            statements.push(format!("CREATE USER {account} IDENTIFIED BY '…';"));
        }
        let everywhere: Vec<&str> = privileges::needed(self.flavor).iter().map(|(name, _)| *name).collect();
        statements.push(format!("GRANT {} ON *.* TO {account};", everywhere.join(", ")));
        let captured = self.captured(globs);
        for tables in captured.chunk_by(|a, b| a.schema == b.schema) {
            let Some(SurveyedTable { schema, .. }) = tables.first() else { continue };
            let all = self.tables.iter().filter(|table| table.schema == *schema).count();
            // A table that is made later belongs to it then, as it does to what is captured.
            if tables.len() == all && globs.iter().any(|glob| *glob == format!("{schema}.*")) {
                statements.push(format!("GRANT SELECT ON {} TO {account};", whole_database(schema)));
                continue;
            }
            for table in tables {
                let (schema, name) = (identifier(schema), identifier(&table.table));
                statements.push(format!("GRANT SELECT ON {schema}.{name} TO {account};"));
            }
        }
        statements
    }
}

/// All tables of a database, as GRANT names them: `_` and `%` are wildcards there.
pub(crate) fn whole_database(name: &str) -> String {
    let pattern = name.replace('\\', "\\\\").replace('_', "\\_").replace('%', "\\%");
    format!("{}.*", identifier(&pattern))
}

/// A name as SQL has it.
pub(crate) fn identifier(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

fn quoted_account(user: &str, host: &str) -> String {
    format!("{}@{}", identifier(user), identifier(host))
}

/// An account as `CURRENT_USER()` tells it. A user's name may hold an `@`, a host's may not.
fn quoted(account: &str) -> String {
    let (user, host) = account.rsplit_once('@').unwrap_or((account, "%"));
    quoted_account(user, host)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn survey() -> Survey {
        let table = |schema: &str, table: &str| SurveyedTable {
            schema: schema.to_owned(),
            table: table.to_owned(),
            rows: 0,
            bytes: 0,
            writes: None,
            keyed: true,
        };
        Survey {
            address: "db:3306".to_owned(),
            database: None,
            user: "cdc".to_owned(),
            product: "MySQL 9.7.4".to_owned(),
            administrator: false,
            sufficient: false,
            log_rate: None,
            tables: vec![table("a_b", "odd`name"), table("a_b", "plain"), table("shop", "keys")],
            account: "`cdc`@`10.%`".to_owned(),
            flavor: Flavor::MySql,
        }
    }

    #[test]
    fn least_privileges_name_what_is_captured_and_nothing_else() {
        let grants = |user: &str, globs: &[&str]| {
            let globs: Vec<String> = globs.iter().map(|glob| (*glob).to_owned()).collect();
            survey().least_privileges(user, &globs)
        };
        assert_eq!(
            grants("head`gate", &["a_b.*"]),
            [
                "CREATE USER `head``gate`@`%` IDENTIFIED BY '…';",
                "GRANT REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO `head``gate`@`%`;",
                "GRANT SELECT ON `a\\_b`.* TO `head``gate`@`%`;",
            ]
        );
        assert_eq!(
            grants("cdc", &["*.*", "!shop.*", "!a_b.plain"]),
            [
                "GRANT REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO `cdc`@`10.%`;",
                "GRANT SELECT ON `a_b`.`odd``name` TO `cdc`@`10.%`;",
            ]
        );
        let able = Survey { sufficient: true, ..survey() };
        assert_eq!(able.least_privileges("cdc", &["a_b.*".to_owned()]), Vec::<String>::new());
    }
}
