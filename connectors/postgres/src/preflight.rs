//! What can be known about a run before it: each finding with the statement or the setting that fixes it. Changes
//! nothing, except [`drop_source`], which takes away what a source left on the server.

use crate::{
    Config,
    connect::{Server, SqlSession, Target},
    facilities::{Facilities, OLDEST},
    publication::{Plan, Publications},
    refusal::sql_fault,
    slot,
    source::slot_name,
};
use headgate_sdk::{Fault, FaultKind, Finding};
use postgres_protocol::escape::escape_identifier;
use tokio_postgres::Client;

/// The newest version that the tests know.
const NEWEST: i32 = 190_000;

/// Asks the database of `source` whether a run will work.
pub async fn check(source: &str, config: &Config) -> Vec<Finding> {
    let mut findings = Vec::new();
    let (server, session) = match reach(source, config).await {
        Ok(reached) => reached,
        Err(fault) => return vec![failed("connection", &fault)],
    };
    findings.push(Finding::good(
        "connection",
        format!("{} at {} as {}", server.target.database, server.address, server.target.user),
    ));
    if let Err(fault) = look(source, config, &server, &session, &mut findings).await {
        findings.push(failed("the checks", &fault));
    }
    findings
}

/// Drops the slot and the publications that Headgate made for `source`, and says what it dropped.
///
/// # Errors
/// The server cannot be reached, or refuses: the slot is being read, a privilege is missing.
pub async fn drop_source(source: &str, config: &Config) -> Result<Vec<String>, Fault> {
    let (server, session) = reach(source, config).await?;
    let mut dropped = Vec::new();
    let name = slot_name(source, config);
    if let Some(slot) = slot::inspect(&session.client, &name).await? {
        slot.validate(&name, &server.target.database)?;
        if let Some(pid) = slot.active_pid {
            return Err(Fault::busy(format!("slot {name} is being read by process {pid}"))
                .with_fix("stop the gateway that runs the source first"));
        }
        if slot::drop(&session.client, &name).await? {
            dropped.push(format!("replication slot {name}"));
        }
    }
    let publications = Publications::new(source, config, Facilities::of(&session.client).await?.version);
    if publications.are_kept() {
        let missing = publications.plan(&session.client).await?.missing;
        for name in publications.names().into_iter().filter(|name| !missing.contains(name)) {
            session
                .client
                .batch_execute(&format!("DROP PUBLICATION IF EXISTS {}", escape_identifier(&name)))
                .await
                .map_err(|error| sql_fault(error, format!("cannot drop publication {name}")))?;
            dropped.push(format!("publication {name}"));
        }
    }
    Ok(dropped)
}

async fn reach(source: &str, config: &Config) -> Result<(Server, SqlSession), Fault> {
    Server::find(Target::new(config, source)?).await
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
    server: &Server,
    session: &SqlSession,
    findings: &mut Vec<Finding>,
) -> Result<(), Fault> {
    let client = &*session.client;
    let facilities = Facilities::of(client).await?;
    let major = facilities.version / 10_000;
    findings.push(match facilities.version {
        ..OLDEST => Finding::error(
            "version",
            format!("PostgreSQL {major}"),
            "logical messages and the options of pgoutput need PostgreSQL 14",
        )
        .with_fix("upgrade the server to PostgreSQL 14 or later"),
        NEWEST.. => Finding::warning(
            "version",
            format!("PostgreSQL {major}"),
            "Headgate knows versions 14 to 18; a newer one should work",
        ),
        _ => Finding::good("version", format!("PostgreSQL {major}")),
    });
    if config.failover && facilities.version < 170_000 {
        findings.push(
            Finding::error(
                "failover",
                format!("PostgreSQL {major}"),
                "failover slots came with PostgreSQL 17",
            )
            .with_fix("failover = false"),
        );
    }
    if facilities.standby {
        standby(client, facilities.version, findings).await?;
    }
    settings(client, findings).await?;
    role(client, server, findings).await?;
    slots(source, config, server, client, findings).await?;
    tables(source, config, server, client, &facilities, findings).await
}

async fn setting(client: &Client, name: &str) -> Result<String, Fault> {
    let failed = |error| sql_fault(error, format!("cannot read the setting {name}"));
    let row = client.query_one("SELECT current_setting($1, true)", &[&name]).await.map_err(failed)?;
    Ok(row.try_get::<_, Option<String>>(0).map_err(failed)?.unwrap_or_default())
}

async fn standby(client: &Client, version: i32, findings: &mut Vec<Finding>) -> Result<(), Fault> {
    if version < 160_000 {
        findings.push(
            Finding::error(
                "standby",
                "this server is a standby",
                "only PostgreSQL 16 and later decode on a standby",
            )
            .with_fix(
                "point the url at the primary; several hosts with target_session_attrs=read-write find it",
            ),
        );
        return Ok(());
    }
    findings.push(
        Finding::warning("standby", "this server is a standby", "a slot is created only when the primary logs its running transactions, and no heartbeat can be written")
            .with_fix("while the slot is being created, on the primary: SELECT pg_log_standby_snapshot()"),
    );
    if setting(client, "hot_standby_feedback").await? != "on" {
        findings.push(
            Finding::warning(
                "hot_standby_feedback",
                "off",
                "the primary may vacuum catalog rows that the slot still needs, which invalidates it",
            )
            .with_fix("ALTER SYSTEM SET hot_standby_feedback = on; SELECT pg_reload_conf()"),
        );
    }
    Ok(())
}

async fn settings(client: &Client, findings: &mut Vec<Finding>) -> Result<(), Fault> {
    let level = setting(client, "wal_level").await?;
    findings.push(if level == "logical" {
        Finding::good("wal_level", level)
    } else {
        Finding::error("wal_level", level, "the log holds no row changes that could be decoded")
            .with_fix("ALTER SYSTEM SET wal_level = logical; then restart the server")
    });
    let keep = setting(client, "max_slot_wal_keep_size").await?;
    findings.push(if keep == "-1" {
        Finding::warning("max_slot_wal_keep_size", "unlimited", "while Headgate is down the server keeps its log for it, until the disk is full")
            .with_fix("ALTER SYSTEM SET max_slot_wal_keep_size = '50GB'; SELECT pg_reload_conf() -- or watch the retained bytes; a slot over the limit is lost")
    } else {
        Finding::good("max_slot_wal_keep_size", keep)
    });
    let timeout = setting(client, "wal_sender_timeout").await?;
    findings.push(if timeout == "0" {
        Finding::warning(
            "wal_sender_timeout",
            "off",
            "the server does not notice when a connection dies without a word, and the slot stays busy",
        )
        .with_fix("ALTER SYSTEM SET wal_sender_timeout = '60s'; SELECT pg_reload_conf()")
    } else {
        Finding::good("wal_sender_timeout", timeout)
    });
    if setting(client, "server_encoding").await? == "SQL_ASCII" {
        findings.push(Finding::warning(
            "encoding",
            "SQL_ASCII",
            "the server does not know the charset of its texts; a row that is not valid UTF-8 goes to the dead letters",
        ));
    }
    Ok(())
}

async fn role(client: &Client, server: &Server, findings: &mut Vec<Finding>) -> Result<(), Fault> {
    let user = &server.target.user;
    let failed = |error| sql_fault(error, "cannot look at the role");
    // Managed services give the right by membership, so what decides is whether a session starts.
    let row = client
        .query_one("SELECT rolreplication OR rolsuper FROM pg_roles WHERE rolname = current_user", &[])
        .await
        .map_err(failed)?;
    let entitled: bool = row.try_get(0).map_err(failed)?;
    match server.replication("UTF8").await {
        Ok(_) => findings.push(Finding::good("replication", format!("{user} may replicate"))),
        Err(_) if !entitled => findings.push(
            Finding::error(
                "replication",
                format!("{user} may not replicate"),
                "the log can be read only by a role with REPLICATION",
            )
            .with_fix(format!(
                "ALTER ROLE {} REPLICATION; on Amazon RDS: GRANT rds_replication TO {0}",
                escape_identifier(user)
            )),
        ),
        Err(fault) => findings.push(self::failed("replication", &fault)),
    }
    Ok(())
}

async fn slots(
    source: &str,
    config: &Config,
    server: &Server,
    client: &Client,
    findings: &mut Vec<Finding>,
) -> Result<(), Fault> {
    let name = slot_name(source, config);
    let existing = slot::inspect(client, &name).await?;
    if let Some(slot) = &existing {
        findings.push(if let Err(fault) = slot.validate(&name, &server.target.database) {
            failed("slot", &fault)
        } else if let Some(reason) = &slot.unusable {
            Finding::error(
                "slot",
                format!("{name} cannot be read any more: {reason}"),
                "changes are lost, which a run will say with a gap event; it then makes the slot anew",
            )
            .with_fix(format!("SELECT pg_drop_replication_slot('{name}') -- or let the run do it"))
        } else if let Some(pid) = slot.active_pid {
            Finding::warning(
                "slot",
                format!("{name} is being read by process {pid}"),
                "a slot has one reader; a second gateway waits",
            )
        } else {
            Finding::good("slot", format!("{name} exists and keeps {} bytes of log", slot.retained_bytes()))
        });
    }
    let failed = |error| sql_fault(error, "cannot count slots and senders");
    let row = client
        .query_one(
            "SELECT current_setting('max_replication_slots')::bigint, (SELECT count(*) FROM pg_replication_slots), \
             current_setting('max_wal_senders')::bigint, (SELECT count(*) FROM pg_stat_replication)",
            &[],
        )
        .await
        .map_err(failed)?;
    for (index, setting, used, needed) in
        [(0, "max_replication_slots", "slots", existing.is_none()), (2, "max_wal_senders", "senders", true)]
    {
        let (limit, taken): (i64, i64) =
            (row.try_get(index).map_err(failed)?, row.try_get(index + 1).map_err(failed)?);
        let what = format!("{taken} of {limit} {used} taken");
        findings.push(if taken < limit || !needed {
            Finding::good(setting, what)
        } else {
            Finding::error(setting, what, "there is none left for the source")
                .with_fix(format!("ALTER SYSTEM SET {setting} = {}; then restart the server", limit + 5))
        });
    }
    Ok(())
}

async fn tables(
    source: &str,
    config: &Config,
    server: &Server,
    client: &Client,
    facilities: &Facilities,
    findings: &mut Vec<Finding>,
) -> Result<(), Fault> {
    let publications = Publications::new(source, config, facilities.version);
    let plan = publications.plan(client).await?;
    let user = &server.target.user;
    if publications.are_kept() {
        if let Some(fault) = Publications::foreign_fault(&plan, user) {
            findings.push(failed("ownership", &fault));
        }
        if !plan.missing.is_empty() {
            findings.push(publication_to_come(&plan, server, facilities.standby, client).await?);
        }
    } else if let Some(name) = plan.missing.first() {
        findings.push(
            Finding::error(
                "publication",
                format!("{name} does not exist"),
                "the server sends what a publication names, and nothing else",
            )
            .with_fix(format!("CREATE PUBLICATION {} FOR TABLE …", escape_identifier(name))),
        );
    }
    if plan.whole.is_empty() && plan.append.is_empty() {
        findings.push(
            Finding::error(
                "tables",
                format!("no table matches {:?}", config.tables),
                "nothing would be captured",
            )
            .with_fix("correct the globs of tables; they match schema.table as the catalog has it"),
        );
        return Ok(());
    }
    for table in &plan.whole {
        findings.push(Finding::good(format!("table {table}"), "captured"));
    }
    for table in &plan.append {
        findings.push(
            Finding::warning(
                format!("replica identity of {table}"),
                "none that can be used",
                "its updates and deletes are not captured, for publishing them would make the application's fail",
            )
            .with_fix(format!("add a primary key, or: ALTER TABLE {} REPLICA IDENTITY FULL", table.quoted())),
        );
    }
    Ok(())
}

async fn publication_to_come(
    plan: &Plan,
    server: &Server,
    standby: bool,
    client: &Client,
) -> Result<Finding, Fault> {
    let names = plan.missing.join(" and ");
    if standby {
        return Ok(Finding::error("publication", format!("{names} missing"), "a standby cannot make it")
            .with_fix(format!("on the primary: {}", plan.statements.join("; "))));
    }
    let failed = |error| sql_fault(error, "cannot look at the role's privileges");
    let row = client
        .query_one("SELECT has_database_privilege(current_database(), 'CREATE')", &[])
        .await
        .map_err(failed)?;
    Ok(if row.try_get(0).map_err(failed)? {
        Finding::good("publication", format!("{names} will be created"))
    } else {
        Finding::error(
            "publication",
            format!("{} may not create {names}", server.target.user),
            "the server sends what a publication names, and nothing else",
        )
        .with_fix(format!(
            "GRANT CREATE ON DATABASE {} TO {}",
            escape_identifier(&server.target.database),
            escape_identifier(&server.target.user)
        ))
    })
}
