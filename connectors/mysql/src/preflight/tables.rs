//! The tables: which are captured, and what of them is not in the log.

use crate::{
    Config,
    connect::sql_fault,
    event::Flavor,
    server::{self, Server},
    survey::{identifier, keyed},
    tables::Captured,
};
use headgate_sdk::{Fault, Finding, TableFilter};
use mysql_async::{Conn, prelude::Queryable as _};
use std::collections::HashMap;

/// More findings of one kind than this are told as a number.
const SHOWN: usize = 12;

/// Schema and name.
type Table = (String, String);

/// The tables that are captured as the server is now.
pub(crate) async fn captured(config: &Config, session: &mut Conn) -> Result<Vec<Table>, Fault> {
    let all: Vec<Table> = session
        .query(
            "SELECT table_schema, table_name FROM information_schema.tables \
             WHERE table_type IN ('BASE TABLE', 'SYSTEM VERSIONED') ORDER BY 1, 2",
        )
        .await
        .map_err(|error| sql_fault(error, "cannot list the tables"))?;
    let captured = Captured::new(&config.tables);
    Ok(all.into_iter().filter(|(schema, table)| captured.captures(schema, table)).collect())
}

pub(super) async fn look(
    server: &Server,
    config: &Config,
    session: &mut Conn,
    findings: &mut Vec<Finding>,
) -> Result<(), Fault> {
    const UNSEEN: &str = "correct the globs of tables (schema.table), or GRANT SELECT on the tables to the account: it sees no others";
    let ours = captured(config, session).await?;
    if ours.is_empty() {
        let what = format!("no table matches {:?}", config.tables);
        findings.push(Finding::error("tables", what, "nothing would be captured").with_fix(UNSEEN));
        return Ok(());
    }
    findings.push(Finding::good("tables", format!("{} captured: {}", ours.len(), some(&ours))));
    for glob in config.tables.iter().filter(|glob| !glob.starts_with('!')) {
        let filter = TableFilter::new(&[glob]);
        if !ours.iter().any(|(schema, table)| filter.matches(schema, table)) {
            let what = format!("no table matches {glob:?}");
            let why = "it is misspelt, or what it means is not there yet, or not shown to this account";
            findings.push(Finding::warning("tables", what, why).with_fix(UNSEEN));
        }
    }
    left_out(server, &ours, session, findings).await?;
    keys(&ours, session, findings).await?;
    cascades(server, &ours, session, findings).await?;
    if server.flavor == Flavor::MariaDb {
        numbered(&ours, session, findings).await?;
        compressed(&ours, session, findings).await?;
    }
    Ok(())
}

/// At most [`SHOWN`] names.
fn some(tables: &[Table]) -> String {
    let shown: Vec<String> =
        tables.iter().take(SHOWN).map(|(schema, table)| format!("{schema}.{table}")).collect();
    match tables.len().saturating_sub(SHOWN) {
        0 => shown.join(", "),
        left => format!("{} and {left} more", shown.join(", ")),
    }
}

/// Tells `finding` of each table, and of how many more there are.
fn each(tables: &[Table], findings: &mut Vec<Finding>, finding: impl Fn(&Table, String) -> Finding) {
    for (nth, table) in tables.iter().take(SHOWN).enumerate() {
        let more = match tables.len() - SHOWN.min(tables.len()) {
            left @ 1.. if nth + 1 == SHOWN => format!("; so it is with {left} more"),
            _ => String::new(),
        };
        findings.push(finding(table, more));
    }
}

/// Schemas that the server does not log.
async fn left_out(
    server: &Server,
    ours: &[Table],
    session: &mut Conn,
    findings: &mut Vec<Finding>,
) -> Result<(), Fault> {
    let (only, never) = server::logged_schemas(session, server).await?;
    let mut schemas: Vec<&String> = ours.iter().map(|(schema, _)| schema).collect();
    schemas.dedup();
    for schema in schemas {
        let setting = match (only.contains(schema), never.contains(schema)) {
            (false, _) if !only.is_empty() => "binlog_do_db",
            (_, true) => "binlog_ignore_db",
            _ => continue,
        };
        findings.push(
            Finding::error(
                format!("log of {schema}"),
                format!("left out by {setting}"),
                "no change of its tables is logged, so none would be told",
            )
            .with_fix(format!("take {setting} out of the server's configuration, and restart it")),
        );
    }
    Ok(())
}

/// Tables whose rows have no names.
async fn keys(ours: &[Table], session: &mut Conn, findings: &mut Vec<Finding>) -> Result<(), Fault> {
    let keyed = keyed(session).await?;
    let keyless: Vec<Table> = ours.iter().filter(|table| !keyed.contains(table)).cloned().collect();
    let mut fixes = HashMap::new();
    for table in keyless.iter().take(SHOWN) {
        let columns: Vec<(String, String)> = session
            .exec(
                "SELECT column_name, extra FROM information_schema.columns WHERE table_schema = ? AND table_name = ?",
                table,
            )
            .await
            .map_err(|error| sql_fault(error, "cannot look up the columns of a table without a key"))?;
        let kind: Option<(Option<String>, Option<String>)> = session
            .exec_first(
                "SELECT table_type, create_options FROM information_schema.tables WHERE table_schema = ? AND table_name = ?",
                table,
            )
            .await
            .map_err(|error| sql_fault(error, "cannot look up a table without a key"))?;
        let (kind, options) = kind.unwrap_or_default();
        let has = |text: Option<String>, word: &str| text.is_some_and(|text| text.contains(word));
        // A partitioned table's key has to hold what it is partitioned by, which only its owner can tell apart.
        let fix = if has(options, "partitioned") {
            "give it a primary key, with the columns that it is partitioned by among its own".to_owned()
        } else if has(kind, "SYSTEM VERSIONED") {
            "give it a primary key of columns that it has: to a table with history the server adds none that it counts itself"
                .to_owned()
        } else {
            key_statement(table, &columns)
        };
        fixes.insert(table.clone(), fix);
    }
    each(&keyless, findings, |table, more| {
        let (schema, name) = table;
        let finding = Finding::warning(
            format!("key of {schema}.{name}"),
            format!("no primary key{more}"),
            "its rows have no name: their events share one ordering key, and a change of a row cannot be told from another's",
        );
        match fixes.get(table) {
            Some(fix) => finding.with_fix(fix),
            None => finding,
        }
    });
    Ok(())
}

/// The statement that gives a table a primary key. `columns` are their names, and what else is said of them.
fn key_statement((schema, name): &Table, columns: &[(String, String)]) -> String {
    let table = format!("{}.{}", identifier(schema), identifier(name));
    let counted = columns.iter().find(|(_, extra)| extra.to_ascii_lowercase().contains("auto_increment"));
    let change = match counted {
        // There can be one such column only.
        Some((column, _)) => format!("ADD PRIMARY KEY ({})", identifier(column)),
        None => {
            let free = |name: &String| !columns.iter().any(|(taken, _)| taken.eq_ignore_ascii_case(name));
            let names =
                std::iter::once("id".to_owned()).chain((1..).map(|number| format!("row_id_{number}")));
            let id = names.into_iter().find(free).unwrap_or_default();
            format!("ADD COLUMN {} BIGINT UNSIGNED AUTO_INCREMENT PRIMARY KEY", identifier(&id))
        }
    };
    format!("ALTER TABLE {table} {change}")
}

/// Rows that the server changes without logging them: InnoDB carries out the actions of foreign keys below the log. MySQL does
/// it above from 9.6 on, unless it is told not to.
async fn cascades(
    server: &Server,
    ours: &[Table],
    session: &mut Conn,
    findings: &mut Vec<Finding>,
) -> Result<(), Fault> {
    let logged = !server.setting("innodb_native_foreign_keys").is_empty()
        && !server.is_on("innodb_native_foreign_keys");
    if logged {
        return Ok(());
    }
    let failed = |error| sql_fault(error, "cannot look up the foreign keys");
    let constrained: Vec<Table> = session
        .query(
            "SELECT DISTINCT table_schema, table_name FROM information_schema.key_column_usage \
             WHERE referenced_table_name IS NOT NULL ORDER BY 1, 2",
        )
        .await
        .map_err(failed)?;
    let mut children = Vec::new();
    for child in constrained.into_iter().filter(|child| ours.contains(child)) {
        // What the rules are MariaDB's catalog shows only to those who may write; the table's own text, to those who read.
        let statement = format!("SHOW CREATE TABLE {}.{}", identifier(&child.0), identifier(&child.1));
        let row: Option<(String, String)> = session.query_first(statement).await.map_err(failed)?;
        if row.is_some_and(|(_, text)| text.lines().any(changes_rows)) {
            children.push(child);
        }
    }
    each(&children, findings, |(schema, table), more| {
        Finding::warning(
            format!("foreign keys of {schema}.{table}"),
            format!("ON DELETE or ON UPDATE changes its rows{more}"),
            "the server does not log what a foreign key's CASCADE or SET NULL does, so no event tells of it",
        )
        .with_fix("let the application, or a trigger, delete and change the rows; or MySQL 9.6 and later, which logs it")
    });
    Ok(())
}

/// Whether a line of a table's text is a foreign key that does more than refuse.
fn changes_rows(line: &str) -> bool {
    const RULES: [&str; 3] = ["CASCADE", "SET NULL", "SET DEFAULT"];
    let rule = |on: &str| RULES.iter().any(|rule| line.contains(&format!(" {on} {rule}")));
    line.contains(" FOREIGN KEY (") && (rule("ON DELETE") || rule("ON UPDATE"))
}

/// System-versioned tables whose history is kept by numbers of transactions.
async fn numbered(ours: &[Table], session: &mut Conn, findings: &mut Vec<Finding>) -> Result<(), Fault> {
    let all: Vec<Table> = session
        .query(
            "SELECT table_schema, table_name FROM information_schema.columns \
             WHERE generation_expression = 'ROW END' AND data_type = 'bigint' ORDER BY 1, 2",
        )
        .await
        .map_err(|error| sql_fault(error, "cannot list the tables with history"))?;
    let numbered: Vec<Table> = all.into_iter().filter(|table| ours.contains(table)).collect();
    each(&numbered, findings, |(schema, table), more| {
        Finding::error(
            format!("history of {schema}.{table}"),
            format!("is kept by numbers of transactions (BIGINT){more}"),
            "MariaDB logs the changes of such a table as statements, and not its rows: the first one is a gap",
        )
        .with_fix(format!("leave it out (tables = [\"!{schema}.{table}\"]), or keep its history by TIMESTAMP(6)"))
    });
    Ok(())
}

/// Columns that MariaDB compresses.
async fn compressed(ours: &[Table], session: &mut Conn, findings: &mut Vec<Finding>) -> Result<(), Fault> {
    let columns: Vec<(String, String, String)> = session
        .query("SELECT table_schema, table_name, column_name FROM information_schema.columns WHERE column_type LIKE '%COMPRESSED%'")
        .await
        .map_err(|error| sql_fault(error, "cannot list the compressed columns"))?;
    let count = columns
        .into_iter()
        .filter(|(schema, table, _)| ours.iter().any(|ours| ours.0 == *schema && ours.1 == *table))
        .count();
    if count > 0 {
        findings.push(Finding::good("compressed columns", format!("{count}; they are decompressed")));
    }
    Ok(())
}
