//! What a server is and can do, as far as it matters to a source.

use crate::{Config, refusal::sql_fault};
use headgate_sdk::Fault;
use std::time::Duration;
use tokio_postgres::Client;

/// Oldest server: logical messages and pgoutput's options as we use them.
pub(crate) const OLDEST: i32 = 140_000;

/// What a server is, as far as it matters.
pub(crate) struct Facilities {
    pub(crate) version: i32,
    pub(crate) standby: bool,
    pub(crate) wal_sender_timeout: Duration,
    /// Whether the database keeps text as bytes of no known encoding (SQL_ASCII).
    raw_text: bool,
}

impl Facilities {
    /// Asks the server.
    pub(crate) async fn of(client: &Client) -> Result<Self, Fault> {
        let failed = |error| sql_fault(error, "cannot ask the server what it is");
        let row = client
            .query_one(
                "SELECT current_setting('server_version_num')::int, pg_is_in_recovery(), \
                 (SELECT setting::bigint FROM pg_settings WHERE name = 'wal_sender_timeout'), \
                 current_setting('server_encoding') = 'SQL_ASCII'",
                &[],
            )
            .await
            .map_err(failed)?;
        let timeout: i64 = row.try_get(2).map_err(failed)?;
        Ok(Self {
            version: row.try_get(0).map_err(failed)?,
            standby: row.try_get(1).map_err(failed)?,
            wal_sender_timeout: Duration::from_millis(u64::try_from(timeout).unwrap_or(0)),
            raw_text: row.try_get(3).map_err(failed)?,
        })
    }

    /// The encoding to read the log's text in. A server that is asked for UTF-8 converts; where there is nothing to
    /// convert from, it would fail at the first value that is not UTF-8, at every try, and hold its log for good. Taken as
    /// it is, that one value goes to the dead letters.
    pub(crate) fn encoding(&self) -> &'static str {
        if self.raw_text { "SQL_ASCII" } else { "UTF8" }
    }

    /// Whether it can be the source that the settings ask for.
    pub(crate) fn suffices(&self, config: &Config) -> Result<(), Fault> {
        if self.version < OLDEST {
            return Err(Fault::definite(format!("PostgreSQL {} is too old", self.version / 10_000))
                .with_fix("upgrade the server to PostgreSQL 14 or later"));
        }
        if config.failover && self.version < 170_000 {
            return Err(Fault::definite(format!(
                "failover slots need PostgreSQL 17, and this is {}",
                self.version / 10_000
            ))
            .with_fix("set failover = false"));
        }
        if self.standby && self.version < 160_000 {
            return Err(Fault::definite(
                "this server is a standby, and only PostgreSQL 16 and later decode on a standby",
            )
            .with_fix(
                "point the url at the primary (several hosts with target_session_attrs=read-write find it)",
            ));
        }
        Ok(())
    }
}
