//! Reads chunks, on an SQL session of its own.
//!
//! Each chunk is one short transaction that only reads. A table without a key is the exception: there is nothing to go on from,
//! so it is one transaction to its end, read bit by bit.
//!
//! # Order
//! The shape is looked at behind the rows: from its first row on the transaction keeps the table from being altered.
//!
//! # Patience
//! Rows that a condition seldom wants may take the server hours. What is waited for is waited for as long as the server is
//! seen to work on it, and not longer: see [`Database::attend`]. Everything else has to be answered soon.
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
    place::{Place, parse_file},
    server::{self, Server},
};
use headgate_sdk::{
    Change, Fault, TableName,
    clock::now,
    snapshots::{CHUNK_BYTES, Chunk, OwnedChange, Read, Reader, Rows, Unread},
};
use mysql_async::{
    Conn, Error, QueryResult, Row, TextProtocol, Value,
    prelude::{Query as _, Queryable as _},
};
use std::{
    collections::BTreeSet,
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

/// How long a read waits where nothing tells what it sees, so that what had been told before has become visible.
const SETTLE: Duration = Duration::from_millis(250);
/// A session that was idle as long is not used again: the server may have ended it.
const IDLE: Duration = Duration::from_secs(60);
/// How often in a row it may be unknown whether the server still works on what is waited for.
const UNKNOWN: u32 = 10;

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
            // A key is walked by its index, also while somebody tries out what would be slow without it.
            Flavor::MySql => {
                "SET SESSION max_execution_time = 0, information_schema_stats_expiry = 0, \
                 optimizer_switch = 'use_invisible_indexes=on'"
            }
            Flavor::MariaDb => "SET SESSION max_statement_time = 0",
        });
        let prepared = async {
            for statement in settings {
                session
                    .query_drop(statement)
                    .await
                    .map_err(|error| sql_fault(error, "cannot prepare a session to read tables"))?;
            }
            Ok::<_, Fault>(())
        };
        self.target.answer(prepared).await?;
        Ok(session)
    }

    /// Waits for what session `id` asks as long as the server works on it. When nothing has come for the source's patience,
    /// another session asks whether it does. If not, what it said was lost on the way, or will never be whole: once more as
    /// long is given to what may have been said in between, and then the wait is over. That it cannot be asked (the server has
    /// no connection left, say) is no answer: [`UNKNOWN`] such times in a row are waited through. When the wait is over in vain,
    /// so is the session.
    async fn attend<T>(&self, id: u32, asked: impl Future<Output = T>) -> Result<T, Fault> {
        let patience = self.target.patience();
        let mut asked = pin!(asked);
        let mut idle = false;
        let mut unknown = 0;
        loop {
            if let Ok(answer) = tokio::time::timeout(patience, asked.as_mut()).await {
                return Ok(answer);
            }
            // In a box: it is almost never made, and would be room in each wait for a row.
            let works = match Box::pin(self.target.answer(self.is_at_work(id))).await {
                Ok(works) => works,
                Err(fault) if unknown + 1 < UNKNOWN => {
                    unknown += 1;
                    tracing::debug!(%fault, unknown, "cannot ask whether the server still reads a table");
                    continue;
                }
                Err(fault) => {
                    Box::pin(self.end_session(id)).await;
                    return Err(fault);
                }
            };
            unknown = 0;
            if !works && idle {
                Box::pin(self.end_session(id)).await;
                let address = self.target.address();
                return Err(Fault::transient(format!(
                    "{address} has nothing more to say to a session that waits for rows: what it said was lost on the way"
                )));
            }
            idle = !works;
        }
    }

    /// Whether the server still does what session `id` has asked for.
    async fn is_at_work(&self, id: u32) -> Result<bool, Fault> {
        let mut session = self.target.connect().await?;
        // An account sees its own sessions, whatever it may.
        let threads: Vec<Row> = session
            .query("SHOW PROCESSLIST")
            .await
            .map_err(|error| sql_fault(error, "cannot ask whether the server still reads a table"))?;
        let of = |thread: &Row| thread.get_opt::<u64, _>(0).and_then(Result::ok) == Some(id.into());
        let doing = threads
            .iter()
            .find(|thread| of(thread))
            .and_then(|thread| thread.get_opt::<Option<String>, _>(4).and_then(Result::ok).flatten());
        Ok(doing.is_some_and(|doing| doing != "Sleep"))
    }

    /// What the catalog says of a table.
    async fn facts(&self, session: &mut Conn, name: &TableName) -> Result<Option<Facts>, Fault> {
        let asked = async {
            let facts = Facts::ask(session, name).await;
            facts.map_err(|error| sql_fault(error, format!("cannot look at table {name}")))
        };
        self.target.answer(asked).await
    }

    /// Ends a session that is in the middle of an answer: reading that to its end could take hours.
    async fn end_session(&self, id: u32) {
        let ended = self.target.answer(async {
            let mut session = self.target.connect().await?;
            let killed = session.query_drop(format!("KILL CONNECTION {id}")).await;
            killed.map_err(|error| sql_fault(error, "cannot end a session that reads"))
        });
        if let Err(fault) = ended.await {
            tracing::debug!(%fault, "could not end a session that reads");
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
        let database = Arc::clone(&self.database);
        let facts = database.facts(self.session().await?, name).await?;
        facts.map(|facts| Table::new(name, facts)).transpose()
    }

    async fn expected(&mut self, tables: &[TableName]) -> Result<Option<u64>, Fault> {
        let database = Arc::clone(&self.database);
        let session = self.session().await?;
        let mut sum = 0;
        for TableName { schema, table } in tables {
            let rows = session.exec_first(
                "SELECT table_rows FROM information_schema.tables WHERE table_schema = ? AND table_name = ?",
                (schema, table),
            );
            let rows =
                async { rows.await.map_err(|error| sql_fault(error, "cannot ask how large the tables are")) };
            let rows: Option<Option<u64>> = database.target.answer(rows).await?;
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
        let database = Arc::clone(&self.database);
        let session = self.session().await?;
        let tried = async {
            for statement in table.trials(condition) {
                // Prepared, for that takes one statement only: nothing can be smuggled in behind it.
                let statement = session.prep(statement).await.map_err(failed)?;
                session.exec_drop(&statement, ()).await.map_err(failed)?;
            }
            Ok(())
        };
        database.target.answer(tried).await
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
        let database = Arc::clone(&self.database);
        let statement = table.statement(rows, condition)?;
        let (sight, mut moment) = database.target.answer(self.begin()).await?;
        // The wait for it says nothing of how long rows take.
        let begun = Instant::now();
        if *rows == Rows::All {
            let open = self.open(table, statement, moment, condition).await?;
            return self.go_on(table, open, begun, sight).await;
        }
        let mut chunk = Chunk::new(Arc::clone(&table.relation));
        let mut cut = false;
        let id = self.conn.as_ref().ok_or_else(gone)?.id();
        {
            let session = self.conn.as_mut().ok_or_else(gone)?;
            let mut answer = match database.attend(id, session.query_iter(&statement)).await? {
                Ok(answer) => answer,
                Err(error) => return Err(self.refused(table, condition, error).await),
            };
            loop {
                match database.attend(id, answer.next()).await? {
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
            former = self.conn.replace(database.connect().await?);
        }
        let session = self.conn.as_mut().ok_or_else(gone)?;
        let facts = database.facts(session, &name_of(table)).await?;
        if !table.facts.transactional {
            // Its rows are those of the moments at which they were read.
            moment.watermark = database.target.answer(server::end(session, &database.server)).await?.place;
        }
        if former.is_some() {
            database.end_session(id).await;
        } else {
            let ended = async { session.query_drop("COMMIT").await.map_err(|error| unread(table, error)) };
            database.target.answer(ended).await?;
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

    /// What the catalog says of a table now, on a session of no transaction.
    async fn look_again(&mut self, table: &Table) -> Result<Option<Facts>, Fault> {
        let database = Arc::clone(&self.database);
        database.facts(self.session().await?, &name_of(table)).await
    }

    /// Begins to read a table without a key.
    async fn open(
        &mut self,
        table: &Table,
        statement: String,
        moment: Moment,
        condition: Option<&str>,
    ) -> Result<Open, Unread> {
        let conn = self.conn.take().ok_or_else(gone)?;
        let id = conn.id();
        let rows = match self.database.attend(id, statement.run(conn)).await? {
            Ok(rows) => rows,
            Err(error) => return Err(self.refused(table, condition, error).await),
        };
        let open = Open { rows, moment, id };
        // The table is held from the first answer on, so another session sees it as it is read.
        let facts = self.look_again(table).await;
        if facts.as_ref().is_ok_and(|facts| facts.as_ref() == Some(&table.facts)) {
            return Ok(open);
        }
        self.database.end_session(id).await;
        facts?;
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
        let database = Arc::clone(&self.database);
        let mut chunk = Chunk::new(Arc::clone(&table.relation));
        let complete = loop {
            match database.attend(open.id, open.rows.next()).await? {
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
            let session = self.session().await?;
            watermark = database.target.answer(server::end(session, &database.server)).await?.place;
        }
        if !complete {
            self.open = Some(open);
        }
        Ok(Read { chunk, complete, sight, watermark: watermark.0, read_at, took: begun.elapsed() })
    }

    /// The server did not take the statement. Where it misses something, that is not there any more because the table was
    /// altered while we looked; or the table is what it was, and would be described anew for ever.
    async fn refused(&mut self, table: &Table, condition: Option<&str>, error: Error) -> Unread {
        // Whatever transaction it was in, the next session is in none.
        self.conn = None;
        let refusal = match error {
            Error::Server(refusal) if matches!(refusal.code, NO_COLUMN | NO_TABLE | NO_INDEX) => refusal,
            error => return unread(table, error),
        };
        let name = name_of(table);
        match self.look_again(table).await {
            Ok(Some(facts)) if facts == table.facts => {}
            Ok(_) => {
                tracing::debug!(table = %name, %refusal, "the table has changed");
                return Unread::Changed;
            }
            Err(fault) => return Unread::Fault(fault),
        }
        let fix = match (refusal.code, condition) {
            (NO_INDEX, _) => table.make_visible(),
            (_, Some(_)) => Some(
                "the condition of the snapshot (--where) names what the server does not have any more: give it back, and the snapshot goes on by itself"
                    .to_owned(),
            ),
            (_, None) => None,
        };
        let fault = Fault::transient(format!("cannot read table {name}")).with_cause(refusal);
        Unread::Fault(match fix {
            Some(fix) => fault.with_fix(fix),
            None => fault,
        })
    }
}

/// Server errors: what a statement names is not there.
const NO_COLUMN: u16 = 1054;
const NO_TABLE: u16 = 1146;
const NO_INDEX: u16 = 1176;
/// Server error: the table was altered since the transaction began.
const ALTERED: u16 = 1412;

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
        Error::Server(refusal) if refusal.code == ALTERED => {
            tracing::debug!(table = %name, %error, "the table has changed");
            Unread::Changed
        }
        _ => Unread::Fault(sql_fault(error, format!("cannot read table {name}"))),
    }
}
