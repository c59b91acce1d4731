//! The way to the server, and what it lets its reader do.

use crate::{
    connect::{Target, sql_fault},
    privileges::{Privileges, needed},
    server::{self, Server},
    survey::identifier,
};
use headgate_sdk::{Fault, Finding, clock::now};
use mysql_async::{Conn, Row, prelude::Queryable as _};

/// Microseconds that two clocks may differ by.
const SKEW: i64 = 1_000_000;

/// Who could listen.
pub(super) async fn transport(target: &Target, session: &mut Conn) -> Result<Finding, Fault> {
    let row: Option<(String, String)> =
        session
            .query_first("SHOW SESSION STATUS LIKE 'Ssl_version'")
            .await
            .map_err(|error| sql_fault(error, "cannot ask how the connection is secured"))?;
    let version = row.map(|(_, version)| version).unwrap_or_default();
    Ok(match (version.is_empty(), target.is_near()) {
        (true, true) => Finding::good("transport", "in the clear, on this machine"),
        (true, false) => Finding::warning(
            "transport",
            "in the clear, over a network",
            "everybody on the way can read every row, and get the password of a caching_sha2_password account",
        )
        .with_fix("ssl-mode=verify_identity in the url; ssl_cert and ssl_key at the server"),
        (false, near) if near || target.verifies() => Finding::good("transport", version),
        (false, _) => Finding::warning(
            "transport",
            format!("{version}, but the server's name is not verified"),
            "somebody between here and the server could pose as it, and read the rows and the password",
        )
        .with_fix("ssl-mode=verify_identity in the url, with ssl-ca=… where the authority is not a public one"),
    })
}

/// Whether both machines mean the same by now.
pub(super) async fn clock(session: &mut Conn) -> Result<Finding, Fault> {
    let before = now();
    let theirs: Option<i64> = session
        .query_first("SELECT CAST(UNIX_TIMESTAMP(NOW(6)) * 1000000 AS SIGNED)")
        .await
        .map_err(|error| sql_fault(error, "cannot ask for the time"))?;
    let (theirs, after) = (theirs.unwrap_or(before), now());
    // The answer was given at some moment between; only what the way cannot explain is a difference.
    let skew = if theirs < before { theirs - before } else { (theirs - after).max(0) };
    if skew.abs() <= SKEW {
        return Ok(Finding::good("clock", "agrees with this machine's"));
    }
    let side = if skew < 0 { "behind" } else { "ahead of" };
    Ok(Finding::warning(
        "clock",
        format!("{} s {side} this machine's", skew.abs() / 1_000_000),
        "an event's time is the database's, so lag_ms, commit_to_ack and the purge deadline are wrong by as much",
    )
    .with_fix("let both machines follow one time server (chronyd, systemd-timesyncd)"))
}

/// Whether the account may read the log.
pub(super) async fn privileges(server: &Server, session: &mut Conn) -> Result<Vec<Finding>, Fault> {
    let account: Option<String> = session.query_first("SELECT CURRENT_USER()").await.ok().flatten();
    let account = account.as_deref().and_then(|account| account.rsplit_once('@')).map_or_else(
        || "CURRENT_USER".to_owned(),
        |(user, host)| format!("{}@{}", identifier(user), identifier(host)),
    );
    let held = Privileges::of(session).await?;
    let look = |(privilege, names): &(&str, &[&str])| {
        if held.any(names) {
            return Finding::good("privilege", *privilege);
        }
        let fix = format!("GRANT {privilege} ON *.* TO {account}");
        let what = format!("{privilege} is missing");
        match *privilege {
            "SLAVE MONITOR" => Finding::warning(
                "privilege",
                what,
                "a replica that is only late, after a failover, cannot be told from a server that lost changes: it is a gap",
            ),
            _ => Finding::error("privilege", what, "the log can be read only by an account that has it"),
        }
        .with_fix(fix)
    };
    Ok(needed(server.flavor).iter().map(look).collect())
}

/// Whether the reader's id is its own.
pub(super) async fn id(server: &Server, server_id: u32, session: &mut Conn, findings: &mut Vec<Finding>) {
    if server.setting("server_id") == "0" {
        let why =
            "a server without an id accepts no reader of its log; any number that no other server has is one";
        let finding = Finding::error("server_id", "0", why);
        findings.push(super::with_setting(finding, server, "server_id", "1"));
    }
    let ours = server_id.to_string();
    let lock: Option<Option<u64>> =
        session.exec_first("SELECT IS_USED_LOCK(?)", (server::lock_name(server_id),)).await.ok().flatten();
    // MariaDB shows them to administrators only.
    let readers: Option<Vec<Row>> = session.query(server.list_of_readers()).await.ok();
    let taken = readers.as_ref().is_some_and(|readers| {
        readers.iter().any(|row| row.get_opt::<String, _>(0).is_some_and(|id| id.is_ok_and(|id| id == ours)))
    });
    findings.push(if server.setting("server_id") == ours {
        Finding::error(
            "reader's id",
            format!("the server itself has the id {ours}"),
            "a server does not send its log to itself",
        )
        .with_fix("give the source another server_id")
    } else if let Some(connection) = lock.flatten() {
        Finding::good(
            "reader's id",
            format!("{ours}, which a gateway is reading under now (connection {connection})"),
        )
    } else if taken {
        Finding::warning(
            "reader's id",
            format!("{ours} is reading already, and is no gateway"),
            "of two readers with one id the server ends the older one's connection, again and again",
        )
        .with_fix("give the source a server_id of its own")
    } else if readers.is_none() {
        Finding::good(
            "reader's id",
            format!("{ours}; whether a replica has it too is not shown to this account"),
        )
    } else {
        Finding::good("reader's id", format!("{ours} is free"))
    });
}

/// Limits that a long connection meets.
pub(super) fn limits(server: &Server, findings: &mut Vec<Finding>) {
    let timeout: u64 = server.setting("net_write_timeout").parse().unwrap_or(60);
    findings.push(Finding::good(
        "net_write_timeout",
        format!(
            "{timeout} s; the reader's own session asks for a day, so that a slow broker costs no connection"
        ),
    ));
    if server.setting("max_allowed_packet").parse().is_ok_and(|bytes: u64| bytes < 16 << 20) {
        let finding = Finding::warning(
            "max_allowed_packet",
            server.setting("max_allowed_packet"),
            "some servers refuse to send an event of their own log that is larger",
        );
        findings.push(super::with_setting(finding, server, "max_allowed_packet", "1073741824"));
    }
}
