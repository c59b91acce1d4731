//! What a server is and where it stands, by its own words.

use crate::{
    connect::{Target, sql_fault},
    event::Flavor,
    executed::Executed,
    history::Facts,
    place::{Place, parse_file},
};
use headgate_sdk::Fault;
use mysql_async::{Conn, Row, prelude::Queryable as _};
use std::{collections::HashMap, time::Duration};

/// A server's settings.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    pub(crate) flavor: Flavor,
    /// Major, minor, patch.
    pub(crate) version: (u16, u16, u16),
    variables: HashMap<String, String>,
}

impl Server {
    /// Asks the server.
    pub(crate) async fn of(session: &mut Conn) -> Result<Self, Fault> {
        let rows: Vec<(String, Option<String>)> = session
            .query("SHOW GLOBAL VARIABLES")
            .await
            .map_err(|error| sql_fault(error, "cannot ask the server for its settings"))?;
        let variables: HashMap<String, String> = rows
            .into_iter()
            .map(|(name, value)| (name.to_ascii_lowercase(), value.unwrap_or_default()))
            .collect();
        let version = variables.get("version").cloned().unwrap_or_default();
        let flavor =
            if version.to_ascii_lowercase().contains("mariadb") { Flavor::MariaDb } else { Flavor::MySql };
        Ok(Self { flavor, version: numbers(&version), variables })
    }

    /// A setting; empty where the server does not have it.
    pub(crate) fn setting(&self, name: &str) -> &str {
        self.variables.get(name).map_or("", String::as_str)
    }

    /// A setting that is switched on.
    pub(crate) fn is_on(&self, name: &str) -> bool {
        matches!(self.setting(name).to_ascii_uppercase().as_str(), "ON" | "1" | "YES")
    }

    /// Name and version, for people.
    pub(crate) fn name(&self) -> String {
        let product = match self.flavor {
            Flavor::MySql => "MySQL",
            Flavor::MariaDb => "MariaDB",
        };
        let (major, minor, patch) = self.version;
        format!("{product} {major}.{minor}.{patch}")
    }

    /// What tells this server from every other.
    ///
    /// MariaDB has nothing that is its own alone; all of what distinguishes two servers is taken together. Two that are
    /// taken for different ones cost a new epoch, two that are taken for one would cost changes.
    pub(crate) fn identity(&self) -> String {
        match self.flavor {
            Flavor::MySql => self.setting("server_uuid").to_owned(),
            Flavor::MariaDb => ["server_id", "server_uid", "hostname", "port", "datadir"]
                .into_iter()
                .map(|name| self.setting(name))
                .collect::<Vec<_>>()
                .join("/"),
        }
    }

    /// Whether every transaction has a global name.
    pub(crate) fn has_names(&self) -> bool {
        self.flavor == Flavor::MariaDb || self.setting("gtid_mode").eq_ignore_ascii_case("ON")
    }

    /// How long a log file is kept after its last change; `None` for ever.
    pub(crate) fn retention(&self) -> Option<Duration> {
        if matches!(self.setting("binlog_expire_logs_auto_purge"), "OFF" | "0") {
            return None;
        }
        let seconds = |name: &str| self.setting(name).parse::<f64>().ok().filter(|seconds| *seconds > 0.0);
        seconds("binlog_expire_logs_seconds")
            .or_else(|| seconds("expire_logs_days").map(|days| days * 86_400.0))
            .map(Duration::from_secs_f64)
    }

    /// The statement that changes a setting while the server runs; MySQL's for good, MariaDB's until it restarts.
    pub(crate) fn set(&self, name: &str, value: &str) -> String {
        match self.flavor {
            Flavor::MySql => format!("SET PERSIST {name} = {value}"),
            Flavor::MariaDb => format!("SET GLOBAL {name} = {value}"),
        }
    }

    /// The statement that lists the readers of the log.
    pub(crate) fn list_of_readers(&self) -> &'static str {
        match self.flavor {
            Flavor::MySql if self.version >= (8, 0, 22) => "SHOW REPLICAS",
            Flavor::MySql | Flavor::MariaDb => "SHOW SLAVE HOSTS",
        }
    }

    /// The statement that tells where the log ends. Servers from 8.4 on know it by its new name alone.
    fn log_status(&self) -> &'static str {
        let new = self.flavor == Flavor::MySql && self.version >= (8, 2, 0);
        if new { "SHOW BINARY LOG STATUS" } else { "SHOW MASTER STATUS" }
    }

    /// What a run needs, whatever it reads.
    pub(crate) fn suffices(&self) -> Result<(), Fault> {
        let oldest = oldest(self.flavor);
        if (self.version.0, self.version.1) < oldest {
            return Err(Fault::definite(format!("{} is too old", self.name()))
                .with_fix("upgrade the server: MySQL 8.0 or MariaDB 10.5 at least"));
        }
        if !self.is_on("log_bin") {
            return Err(Fault::definite("the server writes no binary log (log_bin is off)").with_fix(
                "set log_bin = binlog and a server_id in the server's configuration, and restart it",
            ));
        }
        if !self.setting("binlog_format").is_empty()
            && !self.setting("binlog_format").eq_ignore_ascii_case("ROW")
        {
            return Err(Fault::definite(format!(
                "the server logs statements, not rows (binlog_format = {})",
                self.setting("binlog_format")
            ))
            .with_fix(self.set("binlog_format", "'ROW'")));
        }
        Ok(())
    }
}

/// The oldest version that is read.
pub(crate) fn oldest(flavor: Flavor) -> (u16, u16) {
    match flavor {
        Flavor::MySql => (8, 0),
        Flavor::MariaDb => (10, 5),
    }
}

fn numbers(version: &str) -> (u16, u16, u16) {
    // Some MariaDB servers put a version before their own, for old clients.
    let version = version.strip_prefix("5.5.5-").unwrap_or(version);
    let mut numbers = version.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse().unwrap_or(0));
    let mut next = || numbers.next().unwrap_or(0);
    (next(), next(), next())
}

/// Where a log ends.
#[derive(Clone, Debug)]
pub(crate) struct End {
    /// What files' names begin with.
    pub(crate) log: String,
    pub(crate) place: Place,
}

fn column(row: &mut Row, at: usize) -> String {
    row.take_opt::<Option<String>, _>(at).and_then(Result::ok).flatten().unwrap_or_default()
}

/// Asks where the log ends.
pub(crate) async fn end(session: &mut Conn, server: &Server) -> Result<End, Fault> {
    let row: Option<Row> = session
        .query_first(server.log_status())
        .await
        .map_err(|error| sql_fault(error, "cannot ask where the log ends (needs REPLICATION CLIENT)"))?;
    let mut row = row.ok_or_else(|| {
        Fault::definite("the server writes no binary log")
            .with_fix("set log_bin in the server's configuration, and restart it")
    })?;
    let file = column(&mut row, 0);
    let place = parse_file(&file)
        .and_then(|(log, number)| Some((log, Place::new(number, column(&mut row, 1).parse().ok()?)?)));
    let Some((log, place)) = place else {
        return Err(Fault::definite(format!("the server's log file {file} has no number")));
    };
    Ok(End { log: log.to_owned(), place })
}

/// The schemas that alone are logged (none: all), and those that never are.
pub(crate) async fn logged_schemas(
    session: &mut Conn,
    server: &Server,
) -> Result<(Vec<String>, Vec<String>), Fault> {
    let row: Option<Row> = session
        .query_first(server.log_status())
        .await
        .map_err(|error| sql_fault(error, "cannot ask what is logged (needs REPLICATION CLIENT)"))?;
    let Some(mut row) = row else { return Ok((Vec::new(), Vec::new())) };
    let mut names = |at| -> Vec<String> {
        column(&mut row, at).split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect()
    };
    Ok((names(2), names(3)))
}

/// Numbers and sizes of the log files, oldest first.
pub(crate) async fn files(session: &mut Conn) -> Result<Vec<(u64, u64)>, Fault> {
    let rows: Vec<Row> = session
        .query("SHOW BINARY LOGS")
        .await
        .map_err(|error| sql_fault(error, "cannot list the log files (needs REPLICATION CLIENT)"))?;
    Ok(rows
        .into_iter()
        .filter_map(|mut row| {
            let number = parse_file(&column(&mut row, 0))?.1;
            Some((number, column(&mut row, 1).parse().ok()?))
        })
        .collect())
}

/// All that [`judge`](crate::history::judge) has to know.
pub(crate) async fn facts(session: &mut Conn, server: &Server) -> Result<Facts, Fault> {
    // The set first: what is committed in between is then read, and not left out.
    let (executed, purged) = names(session, server).await?;
    let End { log, place } = end(session, server).await?;
    let files = files(session).await?;
    Ok(Facts {
        server: server.identity(),
        log,
        files,
        end: place,
        executed,
        purged,
        replica: is_replica(session, server).await,
    })
}

/// The transactions before the oldest log file, of a MariaDB, which does not say so by itself; `None` where it cannot be told.
pub(crate) async fn before_oldest(session: &mut Conn, server: &Server, facts: &Facts) -> Option<Executed> {
    let (number, _) = facts.files.first()?;
    let file = format!("{}.{number:06}", facts.log);
    let before: Option<Option<String>> =
        session.exec_first("SELECT BINLOG_GTID_POS(?, 4)", (file,)).await.ok().flatten();
    Executed::parse(server.flavor, &before.flatten()?).ok()
}

/// Whether the server replays another one's log; `false` where the account may not know.
pub(crate) async fn is_replica(session: &mut Conn, server: &Server) -> bool {
    let statement = match server.flavor {
        Flavor::MySql if server.version >= (8, 0, 22) => "SHOW REPLICA STATUS",
        Flavor::MySql => "SHOW SLAVE STATUS",
        Flavor::MariaDb => "SHOW ALL SLAVES STATUS",
    };
    session.query::<Row, _>(statement).await.is_ok_and(|sources| !sources.is_empty())
}

async fn names(session: &mut Conn, server: &Server) -> Result<(Option<Executed>, Option<Executed>), Fault> {
    if !server.has_names() {
        return Ok((None, None));
    }
    let failed = |error| sql_fault(error, "cannot ask which transactions the log holds");
    let read = |text: Option<String>| {
        Executed::parse(server.flavor, &text.unwrap_or_default())
            .map_err(|error| Fault::definite("the server's GTIDs cannot be read").with_cause(error))
    };
    match server.flavor {
        Flavor::MySql => {
            let row: Option<(Option<String>, Option<String>)> = session
                .query_first("SELECT @@GLOBAL.gtid_executed, @@GLOBAL.gtid_purged")
                .await
                .map_err(failed)?;
            let (executed, purged) = row.unwrap_or_default();
            Ok((Some(read(executed)?), Some(read(purged)?)))
        }
        // What was replicated but never written to this log is not in it: gtid_current_pos would tell too much.
        Flavor::MariaDb => {
            let executed: Option<Option<String>> =
                session.query_first("SELECT @@GLOBAL.gtid_binlog_pos").await.map_err(failed)?;
            Ok((Some(read(executed.flatten())?), None))
        }
    }
}

/// What the lock of a reader is called.
pub(crate) fn lock_name(server_id: u32) -> String {
    format!("headgate-{server_id}")
}

/// The lock that one reader of a source holds on the server.
pub(crate) async fn lock(session: &mut Conn, target: &Target, server_id: u32) -> Result<(), Fault> {
    let name = lock_name(server_id);
    let held: Option<Option<i64>> = session
        .exec_first("SELECT GET_LOCK(?, 1)", (&name,))
        .await
        .map_err(|error| sql_fault(error, "cannot take the reader's lock"))?;
    if held.flatten() == Some(1) {
        return Ok(());
    }
    let holder: Option<Option<u64>> =
        session.exec_first("SELECT IS_USED_LOCK(?)", (&name,)).await.ok().flatten();
    let holder = holder.flatten().map_or(String::new(), |id| format!(", by connection {id}"));
    Err(Fault::busy(format!("{} is being read already under server id {server_id}{holder}", target.address()))
        .with_fix("if that is another gateway that should read it too, give one of them another server_id; if nobody needs it: KILL that connection"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        assert_eq!(numbers("9.7.4-2"), (9, 7, 4));
        assert_eq!(numbers("10.11.19-MariaDB-0+deb12u1-log"), (10, 11, 19));
        assert_eq!(numbers("5.5.5-10.5.2-MariaDB"), (10, 5, 2));
        assert_eq!(numbers(""), (0, 0, 0));
    }
}
