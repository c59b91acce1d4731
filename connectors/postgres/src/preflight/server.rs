//! The server as a whole: its version, its clock, and settings that a source stumbles over.

use super::{Findings, Site, ask};
use crate::facilities::OLDEST;
use headgate_sdk::{Finding, clock::now};

/// The newest version that the tests know.
const NEWEST: i32 = 190_000;
/// Microseconds that two clocks may differ by.
const SKEW: i64 = 1_000_000;

pub(super) async fn look(site: &Site<'_>) -> Findings {
    let mut findings = vec![version(site)];
    if site.config.failover && site.facilities.version < 170_000 {
        findings.push(
            Finding::error(
                "failover",
                format!("PostgreSQL {}", site.facilities.version / 10_000),
                "failover slots came with PostgreSQL 17",
            )
            .with_fix("failover = false"),
        );
    }
    let level = ask::setting(site.client, "wal_level").await?;
    findings.push(if level == "logical" {
        Finding::good("wal_level", level)
    } else {
        Finding::error("wal_level", level, "the log holds no row changes that could be decoded")
            .with_fix("ALTER SYSTEM SET wal_level = logical; then restart the server")
    });
    findings.push(sender_timeout(site).await?);
    findings.extend(synchronous(site).await?);
    findings.push(clock(site).await?);
    if ask::setting(site.client, "server_encoding").await? == "SQL_ASCII" {
        findings.push(Finding::warning(
            "encoding",
            "SQL_ASCII",
            "the server does not know the charset of its texts; a row that is not valid UTF-8 goes to the dead letters",
        ));
    }
    Ok(findings)
}

fn version(site: &Site<'_>) -> Finding {
    let what = format!("PostgreSQL {}", site.facilities.version / 10_000);
    match site.facilities.version {
        ..OLDEST => {
            Finding::error("version", what, "logical messages and the options of pgoutput need PostgreSQL 14")
                .with_fix("upgrade the server to PostgreSQL 14 or later")
        }
        NEWEST.. => {
            Finding::warning("version", what, "Headgate knows versions 14 to 18; a newer one should work")
        }
        _ => Finding::good("version", what),
    }
}

async fn sender_timeout(site: &Site<'_>) -> Result<Finding, headgate_sdk::Fault> {
    let timeout = ask::setting(site.client, "wal_sender_timeout").await?;
    Ok(if timeout == "0" {
        Finding::warning(
            "wal_sender_timeout",
            "off",
            "the server does not notice when a connection dies without a word, and the slot stays busy",
        )
        .with_fix("ALTER SYSTEM SET wal_sender_timeout = '60s'; SELECT pg_reload_conf()")
    } else {
        Finding::good("wal_sender_timeout", timeout)
    })
}

/// A walsender whose name stands in `synchronous_standby_names` is waited for by every COMMIT, and we confirm late on
/// purpose.
async fn synchronous(site: &Site<'_>) -> Findings {
    let names = ask::setting(site.client, "synchronous_standby_names").await?;
    let application = &site.server.target.application;
    if !names_standby(&names, application) {
        return Ok(Vec::new());
    }
    Ok(vec![
        Finding::error(
            "synchronous_standby_names",
            names,
            "Headgate would count as a synchronous standby: every COMMIT of the application may wait until the broker's disk is safe",
        )
        .with_fix(format!(
            "name the real standbys in synchronous_standby_names, without * and without {application}; SELECT pg_reload_conf()"
        )),
    ])
}

/// Whether the setting takes in a standby of this name; names are compared without case, `*` is everybody.
fn names_standby(setting: &str, name: &str) -> bool {
    setting
        .split([',', '(', ')', ' ', '\t', '\n'])
        .map(|part| part.trim_matches('"'))
        .any(|part| part == "*" || part.eq_ignore_ascii_case(name))
}

async fn clock(site: &Site<'_>) -> Result<Finding, headgate_sdk::Fault> {
    let before = now();
    let theirs: i64 = ask::one(
        site.client,
        "ask for the time",
        "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint",
        &[],
        |row| row.try_get(0),
    )
    .await?;
    let after = now();
    // The answer was given at some moment between; only what the way cannot explain is a difference.
    let skew = if theirs < before { theirs - before } else { (theirs - after).max(0) };
    Ok(if skew.abs() <= SKEW {
        Finding::good("clock", "agrees with this machine's")
    } else {
        let what = format!(
            "{} s {} this machine's",
            skew.abs() / 1_000_000,
            if skew < 0 { "behind" } else { "ahead of" }
        );
        Finding::warning(
            "clock",
            what,
            "an event's time is the database's, so lag_ms and commit_to_ack are wrong by as much",
        )
        .with_fix("let both machines follow one time server (chronyd, systemd-timesyncd)")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_synchronous_standby_is_recognised_in_every_form_of_the_setting() {
        for setting in
            ["*", "FIRST 1 (a, *)", "ANY 2 (a,headgate_shop)", "\"Headgate_Shop\"", "headgate_shop, b"]
        {
            assert!(names_standby(setting, "headgate_shop"), "{setting}");
        }
        for setting in ["", "a, b", "FIRST 1 (headgate_shop2)"] {
            assert!(!names_standby(setting, "headgate_shop"), "{setting}");
        }
    }
}
