//! What can be known about a run before it: each finding with the statement or the setting that fixes it. Changes nothing.

use crate::{
    Config,
    connect::{Target, sql_fault},
    event::Flavor,
    server::{self, Server},
    tables::Captured,
};
use headgate_sdk::{Fault, FaultKind, Finding};
use mysql_async::{Conn, Row, prelude::Queryable as _};
use std::time::Duration;

/// The newest versions that the tests know.
const NEWEST: [(Flavor, (u16, u16)); 2] = [(Flavor::MySql, (9, 7)), (Flavor::MariaDb, (11, 8))];

/// Asks the server of `source` whether a run will work.
pub async fn check(source: &str, config: &Config) -> Vec<Finding> {
    let mut findings = Vec::new();
    let target = match Target::new(config) {
        Ok(target) => target,
        Err(fault) => return vec![failed("connection", &fault)],
    };
    let mut session = match target.connect().await {
        Ok(session) => session,
        Err(fault) => return vec![failed("connection", &fault)],
    };
    findings.push(Finding::good("connection", format!("{} as {}", target.address(), target.user)));
    if let Err(fault) = look(source, config, &mut session, &mut findings).await {
        findings.push(failed("the checks", &fault));
    }
    findings
}

fn failed(subject: &str, fault: &Fault) -> Finding {
    let why = match fault.kind() {
        FaultKind::Definite | FaultKind::Gap => "the source cannot run until this is changed",
        FaultKind::Transient | FaultKind::Busy => "the source cannot run while this lasts",
    };
    let finding = Finding::error(subject, fault.to_string(), why);
    match fault.fix() {
        Some(fix) => finding.with_fix(fix),
        None => finding,
    }
}

async fn look(
    source: &str,
    config: &Config,
    session: &mut Conn,
    findings: &mut Vec<Finding>,
) -> Result<(), Fault> {
    let server = Server::of(session).await?;
    findings.push(version(&server));
    if !server.is_on("log_bin") {
        findings.push(
            Finding::error("log_bin", "OFF", "without a binary log there is nothing to read")
                .with_fix("in the server's configuration: log_bin = binlog, server_id = 1; then restart it"),
        );
        return Ok(());
    }
    findings.push(Finding::good("log_bin", "ON"));
    log_format(&server, findings);
    names(&server, findings);
    retention(&server, config.outage_budget, findings);
    replication(&server, config.server_id_of(source), session, findings).await;
    privileges(&server, session, findings).await;
    tables(&server, config, session, findings).await
}

fn version(server: &Server) -> Finding {
    let (major, minor, _) = server.version;
    let newest = NEWEST.into_iter().find(|(flavor, _)| *flavor == server.flavor).map(|(_, version)| version);
    if (major, minor) < server::oldest(server.flavor) {
        return Finding::error("version", server.name(), "its log lacks what Headgate relies on")
            .with_fix("upgrade to MySQL 8.0 or MariaDB 10.5 at least");
    }
    if newest.is_some_and(|newest| (major, minor) > newest) {
        return Finding::warning(
            "version",
            server.name(),
            "Headgate is tested up to MySQL 9.7 and MariaDB 11.8; a newer one should work",
        );
    }
    Finding::good("version", server.name())
}

/// What the log has to hold.
fn log_format(server: &Server, findings: &mut Vec<Finding>) {
    let mut setting = |name: &str, wanted: &str, error: bool, why: &str| {
        let found = server.setting(name);
        findings.push(if found.is_empty() || found.eq_ignore_ascii_case(wanted) {
            Finding::good(name, wanted)
        } else {
            let finding = if error { Finding::error } else { Finding::warning };
            finding(name.to_owned(), found.to_owned(), why.to_owned()).with_fix(format!(
                "SET GLOBAL {name} = '{wanted}'; and {name} = {wanted} in the server's configuration"
            ))
        });
    };
    setting(
        "binlog_format",
        "ROW",
        true,
        "the log holds statements, not the rows that they changed; sessions that are open keep the format that they have",
    );
    setting(
        "binlog_row_image",
        "FULL",
        false,
        "events lack the columns that a statement did not change: they are named in `unavailable`, and `before` has the key alone",
    );
    setting(
        "binlog_row_metadata",
        "FULL",
        false,
        "the log does not tell the columns' names, keys and labels: they are taken from the table as it is now, and a table that was altered since is refused",
    );
    let partial = server.setting("binlog_row_value_options");
    if !partial.is_empty() {
        findings.push(Finding::good(
            "binlog_row_value_options",
            format!("{partial}: partial updates of JSON are applied"),
        ));
    }
    if server.flavor == Flavor::MySql && !server.is_on("binlog_rows_query_log_events") {
        findings.push(Finding::good(
            "binlog_rows_query_log_events",
            "OFF: events carry no trace from their statement's comment; SET GLOBAL binlog_rows_query_log_events = ON to have it",
        ));
    }
}

fn names(server: &Server, findings: &mut Vec<Finding>) {
    if server.flavor == Flavor::MariaDb {
        findings.push(Finding::good("gtid", "MariaDB names every transaction"));
    } else if server.has_names() {
        findings.push(Finding::good("gtid_mode", "ON"));
    } else {
        findings.push(
            Finding::warning(
                "gtid_mode",
                server.setting("gtid_mode"),
                "without GTIDs the source can go on on this very server only: a failover is a gap",
            )
            .with_fix(
                "SET GLOBAL enforce_gtid_consistency = ON; then gtid_mode = OFF_PERMISSIVE, ON_PERMISSIVE and ON, one after the other, on every server",
            ),
        );
    }
    let updates = if server.setting("log_replica_updates").is_empty() {
        "log_slave_updates"
    } else {
        "log_replica_updates"
    };
    findings.push(if server.is_on(updates) {
        Finding::good(updates, "ON")
    } else {
        Finding::warning(
            updates,
            "OFF",
            "a replica does not log what it replays: reading from one, or failing over to one, would lose changes",
        )
        .with_fix(format!("{updates} = ON in the server's configuration, and restart it; needed on replicas only"))
    });
}

fn retention(server: &Server, budget: Duration, findings: &mut Vec<Finding>) {
    findings.push(match server.retention() {
        None => Finding::warning(
            "retention",
            "log files are kept for ever",
            "the disk fills up, whether they were read or not",
        )
        .with_fix("SET PERSIST binlog_expire_logs_seconds = 604800 -- MariaDB: SET GLOBAL"),
        Some(kept) if kept < budget => Finding::warning(
            "retention",
            format!("log files are kept for {} hours", kept.as_secs() / 3600),
            format!(
                "an outage longer than that loses changes; outage_budget is {} hours",
                budget.as_secs() / 3600
            ),
        )
        .with_fix(format!(
            "SET PERSIST binlog_expire_logs_seconds = {} -- MariaDB: SET GLOBAL, and in its configuration",
            budget.as_secs().max(259_200)
        )),
        Some(kept) => {
            Finding::good("retention", format!("log files are kept for {} hours", kept.as_secs() / 3600))
        }
    });
}

async fn replication(server: &Server, server_id: u32, session: &mut Conn, findings: &mut Vec<Finding>) {
    if server.setting("server_id") == "0" {
        findings.push(
            Finding::error("server_id", "0", "a server without an id accepts no reader of its log")
                .with_fix("SET PERSIST server_id = 1 -- any number that no other server has"),
        );
    }
    let listing = match server.flavor {
        Flavor::MySql if server.version >= (8, 0, 22) => "SHOW REPLICAS",
        Flavor::MySql | Flavor::MariaDb => "SHOW SLAVE HOSTS",
    };
    let replicas: Vec<Row> = session.query(listing).await.unwrap_or_default();
    let ours = server_id.to_string();
    let taken = replicas
        .iter()
        .any(|row| row.get_opt::<String, _>(0).is_some_and(|id| id.is_ok_and(|id| id == ours)));
    findings.push(if server.setting("server_id") == ours {
        Finding::error(
            "reader's id",
            format!("the server itself has the id {ours}"),
            "a server does not send its log to itself",
        )
        .with_fix("give the source another server_id")
    } else if taken {
        Finding::warning(
            "reader's id",
            format!("{ours} is reading already"),
            "the gateway itself, if it runs; two readers with one id end each other's connections",
        )
        .with_fix("give the source a server_id of its own")
    } else {
        Finding::good("reader's id", format!("{ours} is free"))
    });
    let timeout: u64 = server.setting("net_write_timeout").parse().unwrap_or(60);
    findings.push(Finding::good(
        "net_write_timeout",
        format!(
            "{timeout} s; the reader's own session asks for a day, so that a slow broker costs no connection"
        ),
    ));
    if server.setting("max_allowed_packet").parse().is_ok_and(|bytes: u64| bytes < 16 << 20) {
        findings.push(
            Finding::warning(
                "max_allowed_packet",
                server.setting("max_allowed_packet"),
                "some servers refuse to send an event of their own log that is larger",
            )
            .with_fix("SET GLOBAL max_allowed_packet = 1073741824"),
        );
    }
}

async fn privileges(server: &Server, session: &mut Conn, findings: &mut Vec<Finding>) {
    let grants: Vec<String> = match session.query("SHOW GRANTS").await {
        Ok(grants) => grants,
        Err(error) => {
            findings.push(failed("privileges", &sql_fault(error, "cannot ask for the privileges")));
            return;
        }
    };
    let grants = grants.join("\n").to_ascii_uppercase();
    let all = grants.contains("ALL PRIVILEGES ON *.*");
    let wanted: [(&str, &[&str]); 2] = match server.flavor {
        Flavor::MySql => {
            [("REPLICATION SLAVE", &["REPLICATION SLAVE"]), ("REPLICATION CLIENT", &["REPLICATION CLIENT"])]
        }
        Flavor::MariaDb => [
            ("REPLICATION SLAVE", &["REPLICATION SLAVE", "REPLICATION REPLICA"]),
            ("BINLOG MONITOR", &["BINLOG MONITOR", "REPLICATION CLIENT"]),
        ],
    };
    for (privilege, names) in wanted {
        findings.push(if all || names.iter().any(|name| grants.contains(name)) {
            Finding::good("privilege", privilege)
        } else {
            Finding::error(
                "privilege",
                format!("{privilege} is missing"),
                "the log can be read only by an account that has it",
            )
            .with_fix(format!(
                "GRANT {privilege} ON *.* TO CURRENT_USER -- by an administrator, with the account's name"
            ))
        });
    }
}

/// The tables that are captured as the server is now: schema and name.
pub(crate) async fn captured(config: &Config, session: &mut Conn) -> Result<Vec<(String, String)>, Fault> {
    let all: Vec<(String, String)> = session
        .query(
            "SELECT table_schema, table_name FROM information_schema.tables \
             WHERE table_type IN ('BASE TABLE', 'SYSTEM VERSIONED') ORDER BY 1, 2",
        )
        .await
        .map_err(|error| sql_fault(error, "cannot list the tables"))?;
    let captured = Captured::new(&config.tables);
    Ok(all.into_iter().filter(|(schema, table)| captured.captures(schema, table)).collect())
}

async fn tables(
    server: &Server,
    config: &Config,
    session: &mut Conn,
    findings: &mut Vec<Finding>,
) -> Result<(), Fault> {
    let failed = |error| sql_fault(error, "cannot list the tables");
    let ours = captured(config, session).await?;
    if ours.is_empty() {
        findings.push(
            Finding::error("tables", format!("no table matches {:?}", config.tables), "nothing would be captured")
                .with_fix("correct the globs of tables (schema.table), or GRANT SELECT on the tables to the account: it sees no others"),
        );
        return Ok(());
    }
    let compressed: Vec<(String, String, String)> = if server.flavor == Flavor::MariaDb {
        session
            .query("SELECT table_schema, table_name, column_name FROM information_schema.columns WHERE column_type LIKE '%COMPRESSED%'")
            .await
            .map_err(failed)?
    } else {
        Vec::new()
    };
    let keyed: Vec<(String, String)> = session
        .query(
            "SELECT DISTINCT table_schema, table_name FROM information_schema.statistics WHERE index_name = 'PRIMARY'",
        )
        .await
        .map_err(failed)?;
    for table in ours {
        let name = format!("{}.{}", table.0, table.1);
        findings.push(if keyed.contains(&table) {
            Finding::good(format!("table {name}"), "captured")
        } else {
            Finding::warning(
                format!("key of {name}"),
                "no primary key",
                "its rows have no name: their events share one ordering key, and a change of a row cannot be told from another's",
            )
            .with_fix(format!("ALTER TABLE `{}`.`{}` ADD COLUMN id BIGINT UNSIGNED AUTO_INCREMENT PRIMARY KEY", table.0, table.1))
        });
        for (_, _, column) in
            compressed.iter().filter(|(schema, name, _)| *schema == table.0 && *name == table.1)
        {
            findings.push(Finding::good(
                format!("column {name}.{column}"),
                "compressed by MariaDB; it is decompressed",
            ));
        }
    }
    Ok(())
}
