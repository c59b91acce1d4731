//! Who holds the slot back: the log from the beginning of the oldest open transaction on is kept, however much of it has
//! been confirmed.

use crate::slot::Slot;
use headgate_sdk::amount::duration;
use std::{fmt, time::Duration};
use tokio_postgres::{Client, Error};

/// Less than this between what is kept and what is confirmed is how decoding works, not somebody's doing.
const ORDINARY: u64 = 64 << 20;

/// The oldest transaction that is open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Holder {
    /// The session's process; 0 for a prepared transaction, which has none.
    pub(super) pid: i32,
    /// When it began, in microseconds since 1970-01-01 UTC.
    pub(super) since: i64,
    age: Duration,
    who: String,
    state: String,
    /// The name of a prepared transaction.
    prepared: Option<String>,
}

impl Holder {
    /// What ends it.
    pub(super) fn fix(&self) -> String {
        match &self.prepared {
            Some(name) => {
                format!("ROLLBACK PREPARED {}", postgres_protocol::escape::escape_literal(name).trim())
            }
            None => format!("SELECT pg_terminate_backend({})", self.pid),
        }
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let open = duration(self.age);
        match &self.prepared {
            Some(name) => write!(f, "the prepared transaction {name:?} of {}, open for {open}", self.who),
            None => {
                write!(
                    f,
                    "the transaction of pid {} ({}, {}), open for {open}",
                    self.pid, self.who, self.state
                )
            }
        }
    }
}

/// Looks for it where more is kept than the reader's own lag explains. `None` also where the role may not see other
/// roles' sessions (`pg_read_all_stats`).
pub(super) async fn find(client: &Client, slot: &Slot) -> Result<Option<Holder>, Error> {
    let kept = slot.confirmed.unwrap_or_default().0.saturating_sub(slot.restart.unwrap_or_default().0);
    if kept < ORDINARY || kept < slot.retained_bytes() / 2 {
        return Ok(None);
    }
    const STATEMENT: &str = "SELECT pid, who, state, (extract(epoch FROM since) * 1000000)::bigint, \
          GREATEST(extract(epoch FROM clock_timestamp() - since), 0)::bigint, gid FROM ( \
            SELECT pid, usename::text AS who, COALESCE(state, '?') AS state, COALESCE(xact_start, backend_start) AS since, \
              NULL::text AS gid, age(backend_xid) AS xids FROM pg_stat_activity WHERE backend_xid IS NOT NULL \
            UNION ALL \
            SELECT 0, owner::text, 'prepared', prepared, gid, age(transaction) FROM pg_prepared_xacts \
          ) t WHERE since IS NOT NULL ORDER BY xids DESC LIMIT 1";
    let Some(row) = client.query_opt(STATEMENT, &[]).await? else { return Ok(None) };
    let age: i64 = row.try_get(4)?;
    Ok(Some(Holder {
        pid: row.try_get(0)?,
        who: row.try_get::<_, Option<String>>(1)?.unwrap_or_else(|| "?".to_owned()),
        state: row.try_get(2)?,
        since: row.try_get(3)?,
        age: Duration::from_secs(u64::try_from(age).unwrap_or(0)),
        prepared: row.try_get(5)?,
    }))
}
