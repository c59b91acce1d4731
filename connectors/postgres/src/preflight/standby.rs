//! A standby as the source.

use super::{Findings, Site, ask};
use headgate_sdk::Finding;

pub(super) async fn look(site: &Site<'_>) -> Findings {
    if !site.facilities.standby {
        return Ok(Vec::new());
    }
    if site.facilities.version < 160_000 {
        return Ok(vec![
            Finding::error(
                "standby",
                "this server is a standby",
                "only PostgreSQL 16 and later decode on a standby",
            )
            .with_fix(
                "point the url at the primary; several hosts with target_session_attrs=read-write find it",
            ),
        ]);
    }
    let mut findings = vec![
        Finding::warning(
            "standby",
            "this server is a standby",
            "a slot is created only when the primary logs its running transactions, and no heartbeat can be written",
        )
        .with_fix("while the slot is being created, on the primary: SELECT pg_log_standby_snapshot()"),
    ];
    if ask::setting(site.client, "hot_standby_feedback").await? != "on" {
        findings.push(
            Finding::warning(
                "hot_standby_feedback",
                "off",
                "the primary may vacuum catalog rows that the slot still needs, which invalidates it",
            )
            .with_fix("ALTER SYSTEM SET hot_standby_feedback = on; SELECT pg_reload_conf()"),
        );
    }
    Ok(findings)
}
