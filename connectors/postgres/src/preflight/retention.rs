//! How long the server keeps its log for a gateway that is away, measured against how long that may be.

use super::{Findings, Site, ask};
use crate::wal_rate::{self, WalRate};
use headgate_sdk::{
    Finding,
    amount::{Bytes, duration},
};
use std::time::Duration;

/// A log that grows slower than this (bytes a second) fills nothing within any outage.
const HARDLY: u64 = 1 << 10;
const GIB: u64 = 1 << 30;

pub(super) async fn look(site: &Site<'_>) -> Findings {
    let budget = site.config.outage_budget;
    let rate =
        if site.facilities.standby { WalRate::default() } else { wal_rate::measure(site.client).await? };
    let mut findings = vec![limit(site, rate, budget).await?];
    if let Some(own) = site.config.wal_limit
        && rate.needed(budget) > own
    {
        findings.push(
            Finding::warning(
                "wal_limit",
                format!("{} last {} at {rate}", Bytes(own), duration(rate.lasts(own))),
                format!("outage_budget = {} needs {}", duration(budget), Bytes(rate.needed(budget))),
            )
            .with_fix(format!("wal_limit = \"{}GiB\"", rate.needed(budget).div_ceil(GIB))),
        );
    }
    findings.extend(idle_timeout(site, budget).await?);
    Ok(findings)
}

async fn limit(site: &Site<'_>, rate: WalRate, budget: Duration) -> Result<Finding, headgate_sdk::Fault> {
    const SUBJECT: &str = "max_slot_wal_keep_size";
    let megabytes: i64 = ask::one(
        site.client,
        "read the setting max_slot_wal_keep_size",
        "SELECT setting::bigint FROM pg_settings WHERE name = 'max_slot_wal_keep_size'",
        &[],
        |row| row.try_get(0),
    )
    .await?;
    let needed = rate.needed(budget);
    // Twice what is needed, for the hours when more is written than now.
    let advised = (2 * needed).div_ceil(GIB).max(10);
    let fix = format!("ALTER SYSTEM SET max_slot_wal_keep_size = '{advised}GB'; SELECT pg_reload_conf()");
    let Ok(megabytes) = u64::try_from(megabytes) else {
        let what = if rate.bytes() < HARDLY {
            "unlimited; hardly anything is written now".to_owned()
        } else {
            format!("unlimited; an outage of {} takes {} at {rate}", duration(budget), Bytes(needed))
        };
        return Ok(Finding::warning(
            SUBJECT,
            what,
            "while Headgate is away the server keeps its log for it, until the disk is full and the database stands still",
        )
        .with_fix(format!("{fix} -- a slot over the limit is lost; choose what the disk has room for")));
    };
    let limit = megabytes << 20;
    let shown = Bytes(limit);
    if rate.bytes() < HARDLY {
        return Ok(Finding::good(SUBJECT, format!("{shown}; hardly anything is written")));
    }
    let lasts = rate.lasts(limit);
    let what = format!("{shown} last {} at {rate}", duration(lasts));
    Ok(if lasts >= budget {
        Finding::good(SUBJECT, format!("{what}; outage_budget is {}", duration(budget)))
    } else {
        Finding::warning(
            SUBJECT,
            what,
            format!(
                "a gateway that is away for longer loses its slot, and changes with it; outage_budget = {} needs {}",
                duration(budget),
                Bytes(needed)
            ),
        )
        .with_fix(fix)
    })
}

/// PostgreSQL 18 may also give up a slot for its idleness alone.
async fn idle_timeout(site: &Site<'_>, budget: Duration) -> Findings {
    const SUBJECT: &str = "idle_replication_slot_timeout";
    let seconds: Option<i64> = ask::one(
        site.client,
        "read the setting idle_replication_slot_timeout",
        "SELECT (SELECT setting::bigint * CASE unit WHEN 'min' THEN 60 ELSE 1 END FROM pg_settings \
         WHERE name = 'idle_replication_slot_timeout')",
        &[],
        |row| row.try_get(0),
    )
    .await?;
    Ok(match seconds.and_then(|seconds| u64::try_from(seconds).ok()).map(Duration::from_secs) {
        Some(timeout) if !timeout.is_zero() && timeout < budget => vec![
            Finding::warning(
                SUBJECT,
                duration(timeout),
                format!(
                    "a gateway that is away for longer loses its slot, and changes with it; outage_budget is {}",
                    duration(budget)
                ),
            )
            .with_fix(format!("ALTER SYSTEM SET {SUBJECT} = 0; SELECT pg_reload_conf()")),
        ],
        _ => Vec::new(),
    })
}
