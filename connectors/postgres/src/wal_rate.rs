//! How fast the server writes its log: the average since its statistics began, and a moment's sample.

use crate::refusal::sql_fault;
use headgate_sdk::{Fault, amount::Bytes};
use std::{fmt, time::Duration};
use tokio_postgres::Client;

/// How long the sample takes.
const SAMPLE: Duration = Duration::from_secs(1);
/// Younger statistics than this say nothing: the making of a database is in them.
const YOUNG: f64 = 3600.0;

/// Bytes of log in a second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct WalRate {
    /// Since the statistics began, if that is long enough ago.
    average: Option<f64>,
    /// During the sample.
    now: f64,
}

/// The higher of both figures: an outage does not choose the quiet hours.
impl WalRate {
    /// Bytes in a second.
    pub(crate) fn bytes(self) -> u64 {
        self.average.unwrap_or(0.0).max(self.now) as u64
    }

    /// Bytes that are written within a time.
    pub(crate) fn needed(self, time: Duration) -> u64 {
        self.bytes().saturating_mul(time.as_secs())
    }

    /// How long so many bytes last.
    pub(crate) fn lasts(self, bytes: u64) -> Duration {
        Duration::from_secs(bytes.checked_div(self.bytes()).unwrap_or(u64::MAX))
    }
}

impl fmt::Display for WalRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/s of log", Bytes(self.bytes()))?;
        match self.average {
            Some(average) if average >= self.now => {
                write!(f, " (on average; {}/s now)", Bytes(self.now as u64))
            }
            Some(average) => write!(f, " (now; {}/s on average)", Bytes(average as u64)),
            None => Ok(()),
        }
    }
}

/// Measures it on a primary; takes a second.
pub(crate) async fn measure(client: &Client) -> Result<WalRate, Fault> {
    const STATEMENT: &str = "SELECT (pg_current_wal_insert_lsn() - '0/0')::float8, extract(epoch FROM clock_timestamp())::float8, \
        wal_bytes::float8, extract(epoch FROM now() - stats_reset)::float8 FROM pg_stat_wal";
    let look = async || -> Result<_, tokio_postgres::Error> {
        let row = client.query_one(STATEMENT, &[]).await?;
        Ok((
            row.try_get::<_, f64>(0)?,
            row.try_get::<_, f64>(1)?,
            row.try_get::<_, f64>(2)?,
            row.try_get::<_, Option<f64>>(3)?.unwrap_or(0.0),
        ))
    };
    let failed = |error| sql_fault(error, "cannot measure the log");
    let (from, begun, ..) = look().await.map_err(failed)?;
    tokio::time::sleep(SAMPLE).await;
    let (to, ended, bytes, age) = look().await.map_err(failed)?;
    Ok(WalRate {
        average: (age > YOUNG).then(|| bytes / age),
        now: (to - from).max(0.0) / (ended - begun).max(0.1),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_higher_figure_counts() {
        let rate = WalRate { average: Some(2048.0), now: 1024.0 };
        assert_eq!((rate.bytes(), rate.needed(Duration::from_secs(10))), (2048, 20_480));
        assert_eq!(rate.lasts(20_480), Duration::from_secs(10));
        assert_eq!(rate.to_string(), "2.0 KiB/s of log (on average; 1.0 KiB/s now)");
        assert_eq!(WalRate::default().lasts(1), Duration::from_secs(u64::MAX));
    }
}
