//! What the log holds, and for how long.

use super::{long, with_setting};
use crate::{event::Flavor, server::Server};
use headgate_sdk::Finding;
use std::time::Duration;

/// How the log is written.
pub(super) fn format(server: &Server, findings: &mut Vec<Finding>) {
    let mut setting = |name: &str, wanted: &str, error: bool, why: &str| {
        let found = server.setting(name);
        findings.push(if found.is_empty() || found.eq_ignore_ascii_case(wanted) {
            Finding::good(name, wanted)
        } else {
            let finding = if error { Finding::error } else { Finding::warning };
            let finding = finding(name.to_owned(), found.to_owned(), why.to_owned());
            with_setting(finding, server, name, &format!("'{wanted}'"))
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
    setting(
        "binlog_checksum",
        "CRC32",
        false,
        "an event that is damaged on the way, or on the server's disk, is not noticed",
    );
    partial_documents(server, findings);
    let compressed = ["binlog_transaction_compression", "log_bin_compress"];
    if let Some(name) = compressed.into_iter().find(|name| server.is_on(name)) {
        findings.push(Finding::good(name, "ON: compressed transactions and rows are read"));
    }
    if server.flavor == Flavor::MySql && !server.is_on("binlog_rows_query_log_events") {
        findings.push(Finding::good(
            "binlog_rows_query_log_events",
            format!(
                "OFF: events carry no trace from their statement's comment; {} to have it",
                server.set("binlog_rows_query_log_events", "ON")
            ),
        ));
    }
}

fn partial_documents(server: &Server, findings: &mut Vec<Finding>) {
    const NAME: &str = "binlog_row_value_options";
    let partial = server.setting(NAME);
    if partial.is_empty() {
        return;
    }
    findings.push(if server.setting("binlog_row_image").eq_ignore_ascii_case("MINIMAL") {
        let finding = Finding::warning(
            NAME,
            format!("{partial}, with binlog_row_image = MINIMAL"),
            "the log has what changed in a JSON document and not the document: the column is `unavailable`",
        );
        with_setting(finding, server, NAME, "''")
    } else {
        Finding::good(NAME, format!("{partial}: partial updates of JSON are applied"))
    });
}

/// What names transactions, and whether those of another server are in the log.
pub(super) fn names(server: &Server, replica: bool, findings: &mut Vec<Finding>) {
    if server.flavor == Flavor::MariaDb {
        findings.push(Finding::good("gtid", "MariaDB names every transaction"));
    } else if server.has_names() {
        findings.push(Finding::good("gtid_mode", "ON"));
    } else {
        findings.push(
            Finding::warning(
                "gtid_mode",
                server.setting("gtid_mode"),
                "without GTIDs the source can go on on this very server only: a failover is a gap. Where there are replicas, each \
                 statement is for all servers, before the next one",
            )
            .with_fix(name_transactions(server)),
        );
    }
    let name = if server.setting("log_replica_updates").is_empty() {
        "log_slave_updates"
    } else {
        "log_replica_updates"
    };
    if server.is_on(name) {
        findings.push(Finding::good(name, "ON"));
        return;
    }
    let fix = format!("{name} = ON in the server's configuration, and restart it");
    findings.push(if replica {
        let why = "this server is a replica and does not log what it replays: no change of its source's would be told";
        Finding::error(name, "OFF", why).with_fix(fix)
    } else {
        let why = "if this server becomes a replica, or a replica like it takes over, what it replays is not in its log";
        Finding::warning(name, "OFF", why).with_fix(fix)
    });
}

/// The statements that give transactions names, one step after the other, as the server wants it.
fn name_transactions(server: &Server) -> String {
    const MODES: [&str; 4] = ["OFF", "OFF_PERMISSIVE", "ON_PERMISSIVE", "ON"];
    let now = server.setting("gtid_mode");
    let reached = MODES.iter().position(|mode| mode.eq_ignore_ascii_case(now)).unwrap_or(0);
    let mut statements = Vec::new();
    if !server.is_on("enforce_gtid_consistency") {
        statements.push(server.set("enforce_gtid_consistency", "ON"));
    }
    statements.extend(MODES.iter().skip(reached + 1).map(|mode| server.set("gtid_mode", mode)));
    statements.join(";\n")
}

/// How long an outage the log outlasts.
pub(super) fn retention(server: &Server, budget: Duration, findings: &mut Vec<Finding>) {
    let ample = budget.as_secs().saturating_mul(2).max(259_200);
    let (name, value) = if server.setting("binlog_expire_logs_seconds").is_empty() {
        ("expire_logs_days", ample.div_ceil(86_400).to_string())
    } else {
        ("binlog_expire_logs_seconds", ample.to_string())
    };
    findings.push(match server.retention() {
        None => {
            let finding = Finding::warning(
                "retention",
                "log files are kept for ever",
                "the disk fills up, whether they were read or not",
            );
            const PURGE: &str = "binlog_expire_logs_auto_purge";
            if matches!(server.setting(PURGE), "OFF" | "0") {
                // What was set for when it purges stays as it is, if it is long enough.
                let short = server.setting(name).parse().is_ok_and(|kept: u64| kept < budget.as_secs());
                let mut statements = Vec::new();
                statements.extend(short.then(|| server.set(name, &value)));
                statements.push(server.set(PURGE, "ON"));
                finding.with_fix(statements.join(";\n"))
            } else {
                with_setting(finding, server, name, &value)
            }
        }
        Some(kept) if kept < budget => {
            let finding = Finding::warning(
                "retention",
                format!("log files are kept for {}", long(kept)),
                format!("a gateway that is away for longer loses changes; outage_budget is {}", long(budget)),
            );
            with_setting(finding, server, name, &value)
        }
        Some(kept) => Finding::good("retention", format!("log files are kept for {}", long(kept))),
    });
    // MariaDB from 11.4 on knows it by two names.
    const LIMIT: &str = "max_binlog_total_size";
    if server.setting(LIMIT).parse().is_ok_and(|bytes: u64| bytes > 0) {
        let finding = Finding::warning(
            LIMIT,
            format!("{} bytes", server.setting(LIMIT)),
            "log files are purged, however young, when all of them are larger: a gateway that is away while much is written loses changes",
        );
        findings.push(with_setting(finding, server, LIMIT, "0"));
    }
}
