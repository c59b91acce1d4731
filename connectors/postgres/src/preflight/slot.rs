//! The source's slot, and slots that nobody reads beside it.

use super::{Findings, Site, ask};
use crate::slot::{self, Slot};
use headgate_sdk::{Finding, amount::Bytes};
use postgres_protocol::escape::escape_literal;

/// A slot that keeps less has only just been left.
const MUCH: i64 = 1 << 30;

pub(super) async fn look(site: &Site<'_>) -> Findings {
    let name = slot::name(site.source, site.config);
    let mut findings = vec![match slot::inspect(site.client, &name).await? {
        Some(slot) => existing(site, &name, &slot),
        None => Finding::good("slot", format!("{name} will be created")),
    }];
    findings.extend(abandoned(site, &name).await?);
    Ok(findings)
}

fn existing(site: &Site<'_>, name: &str, slot: &Slot) -> Finding {
    if let Err(fault) = slot.validate(name, &site.server.target.database) {
        Finding::fault("slot", &fault)
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
        Finding::good("slot", format!("{name} exists and keeps {} of log", Bytes(slot.retained_bytes())))
    }
}

async fn abandoned(site: &Site<'_>, ours: &str) -> Findings {
    if site.facilities.standby {
        return Ok(Vec::new());
    }
    const STATEMENT: &str = "SELECT slot_name::text, (pg_current_wal_lsn() - restart_lsn)::bigint FROM pg_replication_slots \
        WHERE NOT active AND slot_name::text <> $1 AND pg_current_wal_lsn() - restart_lsn > $2::bigint ORDER BY 2 DESC LIMIT 5";
    let found: Vec<(String, i64)> =
        ask::all(site.client, "look at other slots", STATEMENT, &[&ours, &MUCH], |row| {
            Ok((row.try_get(0)?, row.try_get(1)?))
        })
        .await?;
    Ok(found
        .into_iter()
        .map(|(name, kept)| {
            let kept = Bytes(u64::try_from(kept).unwrap_or(0));
            Finding::warning(
                "abandoned slot",
                format!("{name} is read by nobody and keeps {kept} of log"),
                "the server keeps its log for the slowest slot, until the disk is full",
            )
            .with_fix(format!(
                "if nobody will read it any more: SELECT pg_drop_replication_slot({})",
                escape_literal(&name).trim()
            ))
        })
        .collect())
}
