//! Reads chunks, on an SQL session of its own.
//!
//! Each chunk is one short transaction that only reads. A table without a key is the exception: there is nothing to go on from,
//! so it is one transaction to its end, read bit by bit.
//!
//! # Order
//! The shape is looked at behind the rows: from its first row on the transaction keeps the table from being altered.
//!
//! # Memory
//! One chunk of [`CHUNK_BYTES`], and the row that is over it. What a server has more to say of a chunk is not waited for: its
//! session is ended.

use super::{
    form,
    sight::{Sight, Told},
    table::{Facts, Table},
};
use crate::{
    connect::{Target, sql_fault},
    event::Flavor,
    executed::Executed,
    monitor::now,
    place::{Place, parse_file},
    server::{self, Server},
};
use headgate_sdk::{
    Change, Fault, TableName,
    snapshots::{CHUNK_BYTES, Chunk, OwnedChange, Read, Reader, Rows, Unread},
};
use mysql_async::{
    Conn, Error, QueryResult, TextProtocol, Value,
    prelude::{Query as _, Queryable as _},
};
use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

/// How long a read waits where nothing tells what it sees, so that what had been told before has become visible.
const SETTLE: Duration = Duration::from_millis(250);
/// A session that was idle as long is not used again: the server may have ended it.
const IDLE: Duration = Duration::from_secs(60);

/// What all reads of a source have in common.
#[derive(Debug)]
pub(crate) struct Database {
    pub(crate) target: Target,
    pub(crate) server: Server,
    /// Where the log ended before it was read from.
    pub(crate) end: Place,
}

impl Database {
    /// Whether a read is judged by the names of transactions.
    fn by_name(&self) -> bool {
        self.server.flavor == Flavor::MySql && self.server.has_names()
    }

    async fn connect(&self) -> Result<Conn, Fault> {
        let mut session = self.target.connect().await?;
        // What would change how values are printed, how they are compared, or how long all that may take. Old values may be
        // dates that no calendar has.
        let mut settings = vec![
            "SET NAMES utf8mb4",
            "SET SESSION sql_mode = 'ALLOW_INVALID_DATES', net_write_timeout = 3600, lock_wait_timeout = 10, \
             sql_select_limit = DEFAULT",
            "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ",
        ];
        settings.push(match self.server.flavor {
            Flavor::MySql => "SET SESSION max_execution_time = 0, information_schema_stats_expiry = 0",
            Flavor::MariaDb => "SET SESSION max_statement_time = 0",
        });
        for statement in settings {
            session
                .query_drop(statement)
                .await
                .map_err(|error| sql_fault(error, "cannot prepare a session to read tables"))?;
        }
        Ok(session)
    }

    /// Ends a session that is in the middle of an answer: reading that to its end could take hours.
    async fn end_session(&self, id: u32) {
        let ended = match self.target.connect().await {
            Ok(mut session) => {
                session.query_drop(format!("KILL CONNECTION {id}")).await.map_err(|error| error.to_string())
            }
            Err(fault) => Err(fault.to_string()),
        };
        if let Err(error) = ended {
            tracing::debug!(error, "could not end a session that reads");
        }
    }
}

/// A session that reads.
pub(crate) struct Session {
    database: Arc<Database>,
    /// Not there while it is lent to `open`.
    conn: Option<Conn>,
    used: Instant,
    /// The read of a table without a key, while it is under way.
    open: Option<Open>,
}

/// A read that goes on in the next chunk.
struct Open {
    rows: QueryResult<'static, 'static, TextProtocol>,
    moment: Moment,
    id: u32,
}

/// When a read saw the table.
#[derive(Clone, Copy, Debug)]
struct Moment {
    watermark: Place,
    read_at: i64,
}

impl Drop for Session {
    fn drop(&mut self) {
        // The driver would read the answer to its end.
        if let Some(open) = self.open.take()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            let database = Arc::clone(&self.database);
            runtime.spawn(async move { database.end_session(open.id).await });
        }
    }
}

impl Reader for Session {
    type Database = Database;
    type Table = Table;
    type Sight = Sight;
    type Told = Told;

    const LOG_FORM: bool = false;

    fn told(database: &Database) -> Told {
        Told::new(database.by_name(), database.end.0)
    }

    fn restate(change: &Change<'_>) -> Option<OwnedChange> {
        Some(form::restate(change))
    }

    async fn start(database: Arc<Database>) -> Result<Self, Fault> {
        let conn = database.connect().await?;
        Ok(Self { database, conn: Some(conn), used: Instant::now(), open: None })
    }

    fn is_open(&self) -> bool {
        self.open.is_some()
    }

    async fn describe(&mut self, name: &TableName) -> Result<Option<Table>, Fault> {
        let facts = Facts::ask(self.session().await?, name).await;
        let facts = facts.map_err(|error| sql_fault(error, format!("cannot look at table {name}")))?;
        facts.map(|facts| Table::new(name, facts)).transpose()
    }

    async fn expected(&mut self, tables: &[TableName]) -> Result<Option<u64>, Fault> {
        let session = self.session().await?;
        let mut sum = 0;
        for TableName { schema, table } in tables {
            let rows: Option<Option<u64>> = session
                .exec_first(
                    "SELECT table_rows FROM information_schema.tables WHERE table_schema = ? AND table_name = ?",
                    (schema, table),
                )
                .await
                .map_err(|error| sql_fault(error, "cannot ask how large the tables are"))?;
            let Some(rows) = rows.flatten() else { return Ok(None) };
            sum += rows;
        }
        Ok(Some(sum))
    }

    /// None: the log has everything that is committed, whoever captures it from when.
    async fn writers(&mut self, _table: &Table) -> Result<BTreeSet<String>, Fault> {
        Ok(BTreeSet::new())
    }

    async fn try_condition(&mut self, table: &Table, condition: &str) -> Result<(), Fault> {
        let failed = |error| match error {
            // Whatever it says of the condition, it will say again.
            Error::Server(refusal) => {
                Fault::definite("the condition cannot be asked of the table").with_cause(refusal)
            }
            error => sql_fault(error, "the condition cannot be asked of the table"),
        };
        let session = self.session().await?;
        // Prepared, for that takes one statement only: nothing can be smuggled in behind it.
        let statement = session.prep(table.trial(condition)).await.map_err(failed)?;
        session.exec_drop(&statement, ()).await.map_err(failed)
    }

    async fn read(
        &mut self,
        table: &Table,
        rows: &Rows,
        condition: Option<&str>,
    ) -> Result<Read<Self>, Unread> {
        if let Some(open) = self.open.take() {
            return self.go_on(table, open, Instant::now(), Sight::Settled).await;
        }
        let statement = table.statement(rows, condition)?;
        let (sight, mut moment) = self.begin().await?;
        // The wait for it says nothing of how long rows take.
        let begun = Instant::now();
        if *rows == Rows::All {
            let open = self.open(table, statement, moment).await?;
            return self.go_on(table, open, begun, sight).await;
        }
        let mut chunk = Chunk::new(Arc::clone(&table.relation));
        let mut cut = false;
        let id = self.conn.as_ref().ok_or_else(gone)?.id();
        {
            let session = self.conn.as_mut().ok_or_else(gone)?;
            let mut answer = match session.query_iter(&statement).await {
                Ok(answer) => answer,
                Err(error) => return Err(self.refused(table, error).await),
            };
            loop {
                match answer.next().await {
                    Ok(Some(row)) => push(&mut chunk, table, &row.unwrap())?,
                    Ok(None) => break,
                    Err(error) => return Err(unread(table, error)),
                }
                if chunk.bytes() >= CHUNK_BYTES {
                    cut = true;
                    break;
                }
            }
        }
        // The transaction still keeps the table as it was read.
        let mut former = None;
        if cut {
            // More may be coming than there is room for: this session is done with.
            former = self.conn.replace(self.database.connect().await?);
        }
        let session = self.conn.as_mut().ok_or_else(gone)?;
        let facts = Facts::ask(session, &name_of(table)).await.map_err(|error| unread(table, error))?;
        if !table.facts.transactional {
            // Its rows are those of the moments at which they were read.
            moment.watermark = server::end(session, &self.database.server).await?.place;
        }
        if former.is_some() {
            self.database.end_session(id).await;
        } else {
            session.query_drop("COMMIT").await.map_err(|error| unread(table, error))?;
        }
        if facts.as_ref() != Some(&table.facts) {
            return Err(Unread::Changed);
        }
        self.used = Instant::now();
        let complete = match rows {
            Rows::After(_, limit) => !cut && chunk.len() < *limit as usize,
            Rows::Keys(_) | Rows::All => !cut,
        };
        Ok(Read {
            chunk,
            complete,
            sight,
            watermark: moment.watermark.0,
            read_at: moment.read_at,
            took: begun.elapsed(),
        })
    }
}

impl Session {
    /// The session between two reads, made anew where it was idle for long.
    async fn session(&mut self) -> Result<&mut Conn, Fault> {
        if self.used.elapsed() > IDLE {
            self.conn = None;
        }
        let conn = match self.conn.take() {
            Some(conn) => conn,
            None => self.database.connect().await?,
        };
        self.used = Instant::now();
        Ok(self.conn.insert(conn))
    }

    /// Begins a transaction, and finds out what it sees.
    async fn begin(&mut self) -> Result<(Sight, Moment), Fault> {
        let database = Arc::clone(&self.database);
        let Database { server, .. } = &*database;
        let session = self.session().await?;
        let failed = |error| sql_fault(error, "cannot begin to read a chunk");
        let mut sight = Sight::Settled;
        if database.by_name() {
            let seen: Option<Option<String>> =
                session.query_first("SELECT @@GLOBAL.gtid_executed").await.map_err(failed)?;
            let seen = Executed::parse(server.flavor, &seen.flatten().unwrap_or_default());
            match seen {
                Ok(Executed::MySql(seen)) => sight = Sight::Names(seen),
                Ok(Executed::MariaDb(_)) => {}
                Err(error) => {
                    return Err(Fault::definite("the server's GTIDs cannot be read").with_cause(error));
                }
            }
        } else if server.flavor == Flavor::MySql {
            tokio::time::sleep(SETTLE).await;
        }
        session.query_drop("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY").await.map_err(failed)?;
        let read_at = now();
        let watermark = match server.flavor {
            Flavor::MySql => server::end(session, server).await?.place,
            Flavor::MariaDb => {
                let status: Vec<(String, String)> =
                    session.query("SHOW STATUS LIKE 'binlog_snapshot_%'").await.map_err(failed)?;
                let value = |wanted: &str| {
                    let found = status.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted));
                    found.map(|(_, value)| value.as_str())
                };
                let place = value("binlog_snapshot_file")
                    .and_then(parse_file)
                    .zip(value("binlog_snapshot_position").and_then(|text| text.parse().ok()))
                    .and_then(|((_, file), offset)| Place::new(file, offset));
                let place = place.ok_or_else(|| {
                    Fault::transient(
                        "the server does not say where in its log a read is (binlog_snapshot_position)",
                    )
                })?;
                sight = Sight::Place(place.0);
                place
            }
        };
        Ok((sight, Moment { watermark, read_at }))
    }

    /// Begins to read a table without a key.
    async fn open(&mut self, table: &Table, statement: String, moment: Moment) -> Result<Open, Unread> {
        let conn = self.conn.take().ok_or_else(gone)?;
        let id = conn.id();
        let answer = statement.run(conn).await;
        let open = Open { rows: answer.map_err(|error| unread(table, error))?, moment, id };
        // The table is held from the first answer on, so another session sees it as it is read.
        let mut other = self.database.connect().await?;
        let facts = Facts::ask(&mut other, &name_of(table)).await.map_err(|error| unread(table, error))?;
        if facts.as_ref() == Some(&table.facts) {
            return Ok(open);
        }
        self.database.end_session(id).await;
        Err(Unread::Changed)
    }

    /// Reads on in a table without a key.
    async fn go_on(
        &mut self,
        table: &Table,
        mut open: Open,
        begun: Instant,
        sight: Sight,
    ) -> Result<Read<Self>, Unread> {
        let mut chunk = Chunk::new(Arc::clone(&table.relation));
        let complete = loop {
            match open.rows.next().await {
                Ok(Some(row)) => push(&mut chunk, table, &row.unwrap())?,
                Ok(None) => break true,
                Err(error) => return Err(unread(table, error)),
            }
            if chunk.bytes() >= CHUNK_BYTES {
                break false;
            }
        };
        let Moment { mut watermark, read_at } = open.moment;
        if !table.facts.transactional {
            let mut other = self.database.connect().await?;
            watermark = server::end(&mut other, &self.database.server).await?.place;
        }
        if !complete {
            self.open = Some(open);
        }
        Ok(Read { chunk, complete, sight, watermark: watermark.0, read_at, took: begun.elapsed() })
    }

    /// The server did not take the statement.
    async fn refused(&mut self, table: &Table, error: Error) -> Unread {
        if let Some(session) = &mut self.conn
            && let Err(error) = session.query_drop("ROLLBACK").await
        {
            tracing::debug!(%error, "could not end a transaction that only read");
            self.conn = None;
        }
        unread(table, error)
    }
}

fn gone() -> Fault {
    Fault::transient("the session that reads is gone")
}

fn name_of(table: &Table) -> TableName {
    TableName { schema: table.relation.schema.clone(), table: table.relation.table.clone() }
}

/// Adds a row that a query printed.
fn push(chunk: &mut Chunk, table: &Table, row: &[Value]) -> Result<(), Fault> {
    let columns = table.printed();
    chunk.push(|data, spans| {
        if row.len() != columns.len() {
            return Err(Fault::transient("the server sent a row with another number of columns"));
        }
        for (column, value) in columns.iter().zip(row) {
            match value {
                Value::NULL => form::push(column, None, data, spans),
                Value::Bytes(bytes) => form::push(column, Some(bytes), data, spans),
                _ => return Err(Fault::transient("the server sent a value that is not text")),
            }
        }
        Ok(())
    })
}

/// Why there is no chunk.
fn unread(table: &Table, error: Error) -> Unread {
    let name = name_of(table);
    match &error {
        // A column, an index or the table itself went, or was altered, while we looked.
        Error::Server(refusal) if matches!(refusal.code, 1054 | 1146 | 1176 | 1412) => {
            tracing::debug!(table = %name, %error, "the table has changed");
            Unread::Changed
        }
        _ => Unread::Fault(sql_fault(error, format!("cannot read table {name}"))),
    }
}
