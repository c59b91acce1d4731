//! The replication slot: its name, its state, its making and its end.
//!
//! The publication comes first, the slot second: a slot reads the catalog as it was at each position of the log, and
//! finds no publication at positions before its creation.

use crate::{
    Config,
    connect::{Server, SqlSession},
    lsn::Lsn,
    refusal::sql_fault,
    replication::{CommandError, Replication},
};
use headgate_sdk::{Fault, fnv1a};
use std::time::Duration;
use tokio_postgres::Client;

/// A name within PostgreSQL's 63 bytes: a longer one is cut and told apart by a hash of the whole.
pub(crate) fn bounded(name: String) -> String {
    const LONGEST: usize = 63;
    if name.len() <= LONGEST {
        return name;
    }
    let hash = fnv1a(&[name.as_bytes()]);
    let mut end = LONGEST - 9;
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}_{hash:08x}", name.get(..end).unwrap_or_default())
}

/// The slot of a source.
pub(crate) fn name(source: &str, config: &Config) -> String {
    config.slot.clone().unwrap_or_else(|| default_name(source))
}

/// The slot of a source where the configuration names none; slots know no dash.
fn default_name(source: &str) -> String {
    bounded(format!("headgate_{}", source.replace('-', "_")))
}

/// A slot as `pg_replication_slots` shows it.
#[derive(Clone, Debug)]
pub(crate) struct Slot {
    plugin: Option<String>,
    database: Option<String>,
    temporary: bool,
    /// A copy of the primary's that this standby keeps. What a promoted one shows of that is of the past.
    synced: bool,
    /// Whether standbys may keep a copy.
    pub(crate) failover: bool,
    /// Who reads it now.
    pub(crate) active_pid: Option<i32>,
    /// From where the server keeps its log.
    pub(crate) restart: Option<Lsn>,
    /// What was confirmed.
    pub(crate) confirmed: Option<Lsn>,
    /// Why it can never be read again, if so.
    pub(crate) unusable: Option<String>,
    /// Bytes until the server gives it up; `None` without a limit.
    pub(crate) safe_bytes: Option<i64>,
    /// The end of the server's log.
    pub(crate) server_log: Lsn,
}

impl Slot {
    /// Whether this is a slot that a source can read.
    pub(crate) fn validate(&self, name: &str, database: &str) -> Result<(), Fault> {
        let another = "choose another name with slot = \"…\", or drop it if nobody needs it";
        let wrong = |what: String| {
            Err(Fault::definite(what)
                .with_fix(format!("{another}: SELECT pg_drop_replication_slot('{name}')")))
        };
        match (self.plugin.as_deref(), self.database.as_deref()) {
            (None, _) => wrong(format!("slot {name} is a physical one")),
            (Some(plugin), _) if plugin != "pgoutput" => {
                wrong(format!("slot {name} uses the output plugin {plugin}, not pgoutput"))
            }
            (_, found) if found != Some(database) => {
                wrong(format!("slot {name} belongs to database {}, not {database}", found.unwrap_or("none")))
            }
            _ if self.temporary => wrong(format!("slot {name} is a temporary one of another session")),
            _ if self.synced => Err(Fault::transient(format!(
                "slot {name} is a copy that this standby keeps of its primary's"
            ))
            .with_fix("read it on the primary, or promote this standby")),
            _ => Ok(()),
        }
    }

    /// Bytes of log that the server keeps for it.
    pub(crate) fn retained_bytes(&self) -> u64 {
        self.restart.map_or(0, |restart| self.server_log.0.saturating_sub(restart.0))
    }
}

/// Looks at the slot; `None` if there is none.
pub(crate) async fn inspect(client: &Client, name: &str) -> Result<Option<Slot>, Fault> {
    let doing = || format!("cannot look at slot {name}");
    // Columns that came with later versions are asked for through JSON, so that one statement serves all.
    const STATEMENT: &str = "SELECT plugin::text, database::text, temporary, active_pid, restart_lsn::text, confirmed_flush_lsn::text, \
        CASE WHEN to_jsonb(s) ->> 'invalidation_reason' IS NOT NULL THEN to_jsonb(s) ->> 'invalidation_reason' \
             WHEN wal_status = 'lost' THEN 'its log was removed (wal_status = lost)' \
             WHEN to_jsonb(s) ->> 'conflicting' = 'true' THEN 'it conflicted with recovery' END, \
        safe_wal_size, pg_is_in_recovery() AND COALESCE((to_jsonb(s) ->> 'synced')::boolean, false), \
        (CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_flush_lsn() END)::text, \
        COALESCE((to_jsonb(s) ->> 'failover')::boolean, false) \
        FROM pg_replication_slots s WHERE slot_name = $1::text::name";
    let Some(row) = client.query_opt(STATEMENT, &[&name]).await.map_err(|error| sql_fault(error, doing()))?
    else {
        return Ok(None);
    };
    let read = || -> Result<Slot, tokio_postgres::Error> {
        let lsn = |text: Option<&str>| text.and_then(|text| text.parse().ok());
        Ok(Slot {
            plugin: row.try_get(0)?,
            database: row.try_get(1)?,
            temporary: row.try_get(2)?,
            active_pid: row.try_get(3)?,
            restart: lsn(row.try_get(4)?),
            confirmed: lsn(row.try_get(5)?),
            unusable: row.try_get(6)?,
            safe_bytes: row.try_get(7)?,
            synced: row.try_get(8)?,
            server_log: lsn(row.try_get(9)?).unwrap_or_default(),
            failover: row.try_get(10)?,
        })
    };
    read().map(Some).map_err(|error| sql_fault(error, doing()))
}

/// Makes the slot. Waits for every transaction that is open now, at most `timeout`; then names what it waited for.
pub(crate) async fn create(
    replication: &mut Replication,
    server: &Server,
    control: &SqlSession,
    name: &str,
    failover: bool,
    timeout: Duration,
) -> Result<Lsn, Fault> {
    let pid = replication.backend.pid;
    match tokio::time::timeout(timeout, replication.create_slot(name, failover)).await {
        Ok(Ok(point)) => Ok(point),
        Ok(Err(CommandError::Refused(refusal))) if refusal.code == "55000" => Err(refusal
            .fault(format!("cannot create slot {name}"))
            .with_fix("set wal_level = logical in postgresql.conf (on a standby: on its primary too) and restart the server")),
        Ok(Err(error)) => Err(error.fault(format!("cannot create slot {name}"))),
        Err(_) => {
            let blockers = blockers(&control.client, pid).await;
            // A walsender that waits for a transaction does not notice that its client has gone.
            let cancelled = control.client.execute("SELECT pg_cancel_backend($1)", &[&pid]).await;
            if let Err(error) = cancelled {
                tracing::warn!(slot = name, pid, %error, "could not cancel the creation of the slot");
            }
            let fault = Fault::transient(format!(
                "slot {name} at {} could not be created within {timeout:?}, for it waits for every open transaction to end{blockers}",
                server.address
            ));
            Err(fault.with_fix(
                "end those transactions (SELECT pg_terminate_backend(pid)), or raise slot_timeout; on a standby: SELECT pg_log_standby_snapshot() on the primary",
            ))
        }
    }
}

/// What `pid` waits for, for people; empty where it cannot be told.
async fn blockers(client: &Client, pid: i32) -> String {
    const STATEMENT: &str = "SELECT string_agg(format('pid %s (%s, %s, xid %s, open since %s)', pid, usename, COALESCE(state, '?'), \
        COALESCE(backend_xid::text, 'none'), xact_start), '; ') FROM pg_stat_activity WHERE pid = ANY(pg_blocking_pids($1))";
    match client.query_one(STATEMENT, &[&pid]).await.and_then(|row| row.try_get::<_, Option<String>>(0)) {
        Ok(Some(blockers)) => format!(": {blockers}"),
        Ok(None) | Err(_) => String::new(),
    }
}

/// Drops the slot; says whether there was one.
pub(crate) async fn drop(client: &Client, name: &str) -> Result<bool, Fault> {
    let dropped = client
        .execute("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = $1::text::name", &[&name])
        .await
        .map_err(|error| sql_fault(error, format!("cannot drop slot {name}")))?;
    Ok(dropped > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit() {
        assert_eq!(default_name("my-shop"), "headgate_my_shop");
        let (one, two) = (default_name(&"a".repeat(80)), default_name(&"a".repeat(81)));
        assert!(one.len() <= 63 && two.len() <= 63 && one != two);
    }
}
