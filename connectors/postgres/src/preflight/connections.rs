//! Whether there is room for a source: slots, WAL senders, ordinary connections.

use super::{Findings, Site, ask};
use crate::slot;
use headgate_sdk::Finding;
use postgres_protocol::escape::escape_identifier;

/// Ordinary sessions of a running source, of which one is asking.
const SESSIONS: i64 = 2;

pub(super) async fn look(site: &Site<'_>) -> Findings {
    const STATEMENT: &str = "SELECT current_setting('max_replication_slots')::bigint, \
        (SELECT count(*) FROM pg_replication_slots), current_setting('max_wal_senders')::bigint, \
        (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'walsender'), \
        current_setting('max_connections')::bigint - current_setting('superuser_reserved_connections')::bigint, \
        (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'), \
        (SELECT rolconnlimit::bigint FROM pg_roles WHERE rolname = current_user), \
        (SELECT count(*) FROM pg_stat_activity WHERE usename = current_user AND backend_type = 'client backend')";
    let [slots_max, slots, senders_max, senders, sessions_max, sessions, own_max, own]: [i64; 8] =
        ask::one(site.client, "count slots, senders and sessions", STATEMENT, &[], |row| {
            let mut numbers = [0; 8];
            for (index, number) in numbers.iter_mut().enumerate() {
                *number = row.try_get(index)?;
            }
            Ok(numbers)
        })
        .await?;
    let existing = slot::inspect(site.client, &slot::name(site.source, site.config)).await?;
    let reads = i64::from(existing.as_ref().is_some_and(|slot| slot.active_pid.is_some()));
    let mut findings = Vec::new();
    for (setting, taken, limit, needed, what) in [
        ("max_replication_slots", slots, slots_max, i64::from(existing.is_none()), "slots"),
        ("max_wal_senders", senders, senders_max, 1 - reads, "senders"),
        ("max_connections", sessions, sessions_max, SESSIONS - 1, "sessions"),
    ] {
        let told = format!("{taken} of {limit} {what} taken");
        findings.push(if taken + needed <= limit {
            Finding::good(setting, told)
        } else {
            Finding::error(setting, told, "there is none left for the source")
                .with_fix(format!("ALTER SYSTEM SET {setting} = {}; then restart the server", limit + 5))
        });
    }
    if own_max >= 0 && own + SESSIONS > own_max {
        let role = escape_identifier(&site.server.target.user);
        findings.push(
            Finding::error(
                "connection limit",
                format!("{own} of the role's {own_max} sessions taken"),
                "a source takes two sessions and a WAL sender",
            )
            .with_fix(format!("ALTER ROLE {role} CONNECTION LIMIT {}", own + SESSIONS + 3)),
        );
    }
    Ok(findings)
}
