//! Keeps the reader's lock, and looks at the server now and then: where its log ends, and how long it keeps what this
//! source has not confirmed yet.
//!
//! A task of its own, which waits neither for the dump nor for the broker.

use crate::{
    Config,
    connect::Target,
    place::Place,
    preflight::captured,
    server::{self, Server},
};
use headgate_sdk::{CapturedTables, Fault, TableName, Vitals, clock::now};
use mysql_async::Conn;
use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::{sync::watch, task::JoinHandle};

/// How often. Far below the session's own idle timeout.
const INTERVAL: Duration = Duration::from_secs(5);

/// What is watched.
#[derive(Debug)]
pub(crate) struct Watch {
    pub(crate) source: String,
    pub(crate) target: Target,
    pub(crate) server: Server,
    pub(crate) vitals: Arc<Vitals>,
    /// A time, in microseconds since 1970-01-01 UTC, before which the file of the newest confirmed place was not ended: the
    /// last commit in it, or when it was last seen to be the one that is written.
    pub(crate) confirmed_at: Arc<AtomicI64>,
    pub(crate) config: Config,
    /// Told of the tables that are captured, whenever that changes.
    pub(crate) captured: watch::Sender<CapturedTables>,
}

/// The tables that are there and captured. Nothing tells a table from another that has its name later on: of one that is made
/// anew the log tells every row from the first on. A filled table that is renamed into the name is not noticed, and its rows are
/// not in the log: they are read when a snapshot is asked for.
pub(crate) async fn tables(config: &Config, session: &mut Conn) -> Result<CapturedTables, Fault> {
    let all = captured(config, session).await?;
    Ok(all.into_iter().map(|(schema, table)| (TableName { schema, table }, 0)).collect())
}

/// A running monitor. Ends, and gives the lock back, when dropped.
#[derive(Debug)]
pub(crate) struct Monitor(JoinHandle<Fault>);

impl Monitor {
    /// Watches by `session`, which holds the lock.
    pub(crate) fn start(watch: Watch, session: Conn) -> Self {
        Self(tokio::spawn(watch.run(session)))
    }

    /// Waits for trouble.
    pub(crate) async fn failed(&mut self) -> Fault {
        match (&mut self.0).await {
            Ok(fault) => fault,
            Err(error) => Fault::transient("the monitor of the server failed").with_cause(error),
        }
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Watch {
    async fn run(self, mut session: Conn) -> Fault {
        let mut warned = false;
        loop {
            match self.target.answer(self.look(&mut session)).await {
                Ok(expires) => {
                    let soon = expires.is_some_and(|left| left < Duration::from_secs(6 * 3600));
                    if soon && !warned {
                        tracing::warn!(
                            source = self.source,
                            seconds = expires.map(|left| left.as_secs()),
                            "the server will purge log that was not read yet"
                        );
                    }
                    warned = soon;
                }
                Err(fault) => return fault,
            }
            tokio::time::sleep(INTERVAL).await;
        }
    }

    /// When the server may purge the file of the newest confirmed place, in microseconds since 1970-01-01 UTC; 0 for never.
    fn deadline(&self) -> i64 {
        let since = self.confirmed_at.load(Relaxed);
        match self.server.retention() {
            Some(kept) if since > 0 => {
                since.saturating_add(i64::try_from(kept.as_micros()).unwrap_or(i64::MAX))
            }
            _ => 0,
        }
    }

    /// Gives the time until log is purged that is not confirmed.
    async fn look(&self, session: &mut Conn) -> Result<Option<Duration>, Fault> {
        let end = server::end(session, &self.server).await?;
        let files = server::files(session).await?;
        let tables = tables(&self.config, session).await?;
        self.captured.send_if_modified(|known| {
            let changed = *known != tables;
            *known = tables;
            changed
        });
        let vitals = &self.vitals;
        vitals.server_log.fetch_max(end.place.0, Relaxed);
        vitals
            .log_file_bytes
            .store(self.server.setting("max_binlog_size").parse().unwrap_or(1 << 30), Relaxed);
        let confirmed = Place(vitals.confirmed_log.load(Relaxed));
        let oldest = files.first().and_then(|(file, _)| Place::new(*file, 4)).unwrap_or(end.place);
        vitals.retained_log.store(oldest.0, Relaxed);
        // Of log that is before what is confirmed, the server keeps nothing for us.
        let needed: u64 = files
            .iter()
            .filter(|(file, _)| *file >= confirmed.file())
            .map(
                |(file, size)| {
                    if *file == confirmed.file() { size.saturating_sub(confirmed.offset()) } else { *size }
                },
            )
            .sum();
        vitals.retained_bytes.store(if confirmed.0 == 0 { 0 } else { needed }, Relaxed);
        // The file that is being written is never purged. An older one goes when its last change is as old as the
        // retention, and is no older than what is known of it.
        let at_risk = confirmed.0 != 0 && files.iter().any(|(file, _)| *file > confirmed.file());
        if confirmed.0 != 0 && !at_risk {
            self.confirmed_at.fetch_max(now(), Relaxed);
        }
        let expires = if at_risk { self.deadline() } else { 0 };
        vitals.expires_at.store(expires, Relaxed);
        Ok((expires > 0).then(|| Duration::from_micros(u64::try_from(expires - now()).unwrap_or(0))))
    }
}

/// Nobody looks any more, because the server, the broker or the source stands still: the deadline runs from here.
impl Drop for Watch {
    fn drop(&mut self) {
        if self.vitals.confirmed_log.load(Relaxed) != 0 {
            self.vitals.expires_at.store(self.deadline(), Relaxed);
        }
    }
}
