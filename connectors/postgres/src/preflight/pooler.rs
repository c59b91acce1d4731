//! Whether something stands between us and the server that does not pass replication on, or our session settings.

use super::{Site, ask};
use crate::connect::{Place, Target};
use headgate_sdk::{Fault, Finding};

const WHY: &str = "poolers and proxies pass on queries, but not the log, and share sessions whose settings the values depend on";

/// Places whose names say that they are poolers.
pub(super) fn known_places(target: &Target) -> Vec<Finding> {
    target
        .places
        .iter()
        .filter_map(|place| match place {
            Place::Tcp { host, port, .. } => known(host, *port),
            Place::Unix(_) => None,
        })
        .map(|(what, fix)| Finding::warning("pooler", what, WHY).with_fix(fix))
        .collect()
}

/// What a host and port look like, and where the server itself is then.
fn known(host: &str, port: u16) -> Option<(String, String)> {
    let host = host.to_ascii_lowercase();
    let (name, fix) = if host.ends_with(".pooler.supabase.com") {
        (
            "Supabase's pooler (Supavisor)",
            "use the direct connection: db.PROJECT.supabase.co:5432 (IPv6, or the IPv4 add-on)".to_owned(),
        )
    } else if host.ends_with(".neon.tech")
        && host.split('.').next().is_some_and(|first| first.ends_with("-pooler"))
    {
        (
            "Neon's pooler",
            format!("take -pooler out of the host's name: {}", host.replacen("-pooler.", ".", 1)),
        )
    } else if host.ends_with(".rds.amazonaws.com") && host.contains(".proxy-") {
        ("Amazon RDS Proxy", "use the end point of the instance, or the cluster's writer end point (….cluster-….rds.amazonaws.com)".to_owned())
    } else if host.ends_with(".rds.amazonaws.com") && host.contains(".cluster-ro-") {
        (
            "Aurora's reader end point",
            format!("slots are on the writer: {}", host.replacen(".cluster-ro-", ".cluster-", 1)),
        )
    } else if port == 6432 {
        ("port 6432, where PgBouncer usually is", "use the server's own port, usually 5432".to_owned())
    } else if port == 6543 {
        ("port 6543, where Supavisor usually is", "use the server's own port, usually 5432".to_owned())
    } else {
        return None;
    };
    Some((format!("{host}:{port} looks like {name}"), fix))
}

/// Asks whether the sessions are the server's own: `pid` is what the other end called the replication session's process,
/// if it started one; without it there is something to say only where the settings do not hold.
pub(super) async fn look(site: &Site<'_>, pid: Option<i32>) -> Result<Option<Finding>, Fault> {
    const STATEMENT: &str = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $1), \
        current_setting('DateStyle') = 'ISO, YMD' AND current_setting('IntervalStyle') = 'iso_8601' \
          AND current_setting('TimeZone') = 'UTC' AND current_setting('bytea_output') = 'hex' \
          AND current_setting('extra_float_digits') = '1'";
    let (direct, settings): (bool, bool) =
        ask::one(site.client, "ask who is at the other end", STATEMENT, &[&pid], |row| {
            Ok((row.try_get(0)?, row.try_get(1)?))
        })
        .await?;
    Ok(if !settings {
        Some(Finding::error("pooler", "the session settings that were asked for do not hold", WHY).with_fix(
            "connect to the server itself; PgBouncer's ignore_startup_parameters = options drops them without a word",
        ))
    } else if direct {
        Some(Finding::good("pooler", "none in between"))
    } else {
        pid.map(|_| {
            Finding::warning("pooler", "the server does not know the process that answers", WHY)
                .with_fix("connect to the server itself, not to PgBouncer, Supavisor, RDS Proxy or the like")
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn poolers_are_known_by_their_places() {
        for (host, port, expected) in [
            ("aws-0-eu-central-1.pooler.supabase.com", 5432, "direct connection"),
            (
                "ep-cool-1234-pooler.eu-central-1.aws.neon.tech",
                5432,
                "ep-cool-1234.eu-central-1.aws.neon.tech",
            ),
            ("app.proxy-abc.eu-west-1.rds.amazonaws.com", 5432, "writer end point"),
            ("shop.cluster-ro-abc.eu-west-1.rds.amazonaws.com", 5432, "shop.cluster-abc.eu-west-1"),
            ("shop.postgres.database.azure.com", 6432, "5432"),
            ("db", 6543, "5432"),
        ] {
            let (_, fix) = known(host, port).unwrap_or_default();
            assert!(fix.contains(expected), "{host}: {fix}");
        }
        for (host, port) in
            [("db.abcd.supabase.co", 5432), ("ep-cool-1234.neon.tech", 5432), ("pooler", 5432)]
        {
            assert_eq!(known(host, port), None);
        }
    }
}
