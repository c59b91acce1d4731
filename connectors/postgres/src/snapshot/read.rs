//! Reads chunks, on an SQL session of its own.
//!
//! Each chunk is one short transaction that only reads: the snapshot and the position of the log first, then the rows. A table
//! without a key is the exception: there is nothing to go on from, so it is one transaction to its end, read bit by bit.
//!
//! # Memory
//! One chunk of [`CHUNK_BYTES`], and the row that is over it. What a server has more to say of a chunk is not waited for: the
//! session is closed.

use super::{
    copy,
    table::Table,
    visibility::{Told, Visibility},
};
use crate::{
    catalog::Catalog,
    connect::{Server, SqlSession},
    lsn::Lsn,
    refusal::{Refusal, sql_fault},
};
use futures_util::StreamExt as _;
use headgate_sdk::{
    Change, Fault, TableName,
    snapshots::{CHUNK_BYTES, Chunk, OwnedChange, Read, Reader, Rows, Unread},
};
use std::{collections::BTreeSet, pin::Pin, sync::Arc, time::Instant};
use tokio_postgres::{Client, CopyOutStream, SimpleQueryMessage};

/// What all reads of a source have in common.
pub(crate) struct Database {
    pub(crate) server: Server,
    /// Where the rows come from: see [`Table::describe`].
    pub(crate) publications: Vec<String>,
    pub(crate) version: i32,
    pub(crate) standby: bool,
    /// Whether the database keeps text as bytes of no known encoding.
    pub(crate) raw_text: bool,
}

/// A session that reads.
pub(crate) struct Session {
    database: Arc<Database>,
    sql: SqlSession,
    catalog: Catalog,
    /// The read of a table without a key, while it is under way.
    open: Option<Open>,
}

/// A read that goes on in the next chunk.
struct Open {
    rows: Pin<Box<CopyOutStream>>,
    moment: Moment,
}

/// When a read saw the table.
#[derive(Clone, Debug)]
struct Moment {
    visibility: Visibility,
    watermark: Lsn,
    read_at: i64,
}

impl Reader for Session {
    type Database = Database;
    type Table = Table;
    type Sight = Option<Visibility>;
    type Told = Told;

    const LOG_FORM: bool = true;

    fn told(_database: &Database) -> Told {
        Told::default()
    }

    fn restate(_change: &Change<'_>) -> Option<OwnedChange> {
        None
    }

    async fn start(database: Arc<Database>) -> Result<Self, Fault> {
        let sql = database.server.sql().await?;
        let catalog = Catalog::new(Arc::clone(&sql.client));
        Ok(Self { database, sql, catalog, open: None })
    }

    fn is_open(&self) -> bool {
        self.open.is_some()
    }

    async fn describe(&mut self, name: &TableName) -> Result<Option<Table>, Fault> {
        let Database { publications, version, .. } = &*self.database;
        Table::describe(&self.sql.client, &mut self.catalog, name, publications, *version).await
    }

    async fn expected(&mut self, tables: &[TableName]) -> Result<Option<u64>, Fault> {
        const STATEMENT: &str = "SELECT sum(r.rows)::int8, bool_and(r.rows >= 0) FROM unnest($1::text[], $2::text[]) t(s, n) \
            JOIN pg_namespace ns ON ns.nspname = t.s JOIN pg_class c ON c.relnamespace = ns.oid AND c.relname = t.n, \
            LATERAL (SELECT CASE WHEN c.relkind = 'p' \
                THEN (SELECT sum(l.reltuples) FROM pg_partition_tree(c.oid) p JOIN pg_class l ON l.oid = p.relid WHERE p.isleaf) \
                ELSE c.reltuples END AS rows) r";
        let failed = |error| sql_fault(error, "cannot ask how large the tables are");
        let schemas: Vec<&str> = tables.iter().map(|table| table.schema.as_str()).collect();
        let names: Vec<&str> = tables.iter().map(|table| table.table.as_str()).collect();
        let row = self.client().query_one(STATEMENT, &[&schemas, &names]).await.map_err(failed)?;
        let (sum, known): (Option<i64>, Option<bool>) =
            (row.try_get(0).map_err(failed)?, row.try_get(1).map_err(failed)?);
        Ok(sum.filter(|_| known == Some(true)).and_then(|sum| u64::try_from(sum).ok()))
    }

    async fn try_condition(&mut self, table: &Table, condition: &str) -> Result<(), Fault> {
        for statement in table.trials(condition) {
            // Prepared, for that takes one statement only: nothing can be smuggled in behind it.
            let tried = self.client().query(&statement, &[]).await;
            tried.map_err(|error| sql_fault(error, "the condition cannot be asked of the table"))?;
        }
        Ok(())
    }

    async fn writers(&mut self, table: &Table) -> Result<BTreeSet<String>, Fault> {
        const STATEMENT: &str = "SELECT DISTINCT l.virtualtransaction FROM pg_locks l \
            WHERE l.locktype = 'relation' AND l.granted AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()) \
              AND l.mode IN ('RowExclusiveLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock') \
              AND (l.relation = $1 OR l.relation IN (SELECT relid FROM pg_partition_tree($1::oid::regclass)))";
        let failed = |error| sql_fault(error, "cannot see who writes to the table");
        let rows = self.client().query(STATEMENT, &[&table.oid]).await.map_err(failed)?;
        rows.iter().map(|row| row.try_get(0).map_err(failed)).collect()
    }

    async fn read(
        &mut self,
        table: &Table,
        rows: &Rows,
        condition: Option<&str>,
    ) -> Result<Read<Self>, Unread> {
        let begun = Instant::now();
        let mut open = match self.open.take() {
            Some(open) if *rows == Rows::All => open,
            _ => self.begin(table, rows, condition).await?,
        };
        let mut chunk = Chunk::new(Arc::clone(&table.relation));
        let mut complete = true;
        while let Some(line) = open.rows.next().await {
            let line = line.map_err(|error| self.unreadable(table, error))?;
            let columns = table.relation.columns.len();
            let row = chunk.push(|data, spans| copy::row(&line, columns, data, spans));
            row.map_err(|error| Fault::definite(error.to_string()))?;
            if chunk.bytes() >= CHUNK_BYTES {
                complete = false;
                break;
            }
        }
        let Moment { visibility, watermark, read_at } = open.moment.clone();
        if !complete && *rows == Rows::All {
            self.open = Some(open);
        } else if !complete {
            // More may be coming than there is room for.
            drop(open);
            *self = Self::start(Arc::clone(&self.database)).await?;
        } else {
            drop(open);
            let ended = self.client().batch_execute("COMMIT").await;
            ended.map_err(|error| Unread::Fault(sql_fault(error, "cannot end the reading of a chunk")))?;
            if let Rows::After(_, limit) = rows {
                complete = chunk.len() < *limit as usize;
            }
        }
        let sight = (!self.database.standby).then_some(visibility);
        Ok(Read { chunk, complete, sight, watermark: watermark.0, read_at, took: begun.elapsed() })
    }
}

impl Session {
    fn client(&self) -> &Client {
        &self.sql.client
    }

    /// Begins a transaction, and to read.
    async fn begin(&self, table: &Table, rows: &Rows, condition: Option<&str>) -> Result<Open, Unread> {
        // What a transaction wrote before it can be seen lies before the position that is asked for after the snapshot was
        // taken. On a standby a commit can be seen before its replay is counted, but not before it was received.
        let position = if self.database.standby {
            "GREATEST(pg_last_wal_replay_lsn(), pg_last_wal_receive_lsn())"
        } else {
            "pg_current_wal_insert_lsn()"
        };
        // Rows that a policy hides would be missing silently: with `row_security` off the server refuses instead.
        let opening = format!(
            "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL row_security = off; \
             SELECT pg_current_snapshot()::text, {position}::text, {}, \
                    (extract(epoch FROM clock_timestamp()) * 1000000)::int8",
            table.fingerprint_query()
        );
        let statement = table.statement(rows, condition)?;
        let failed = |error| self.unreadable(table, error);
        let answer = self.client().simple_query(&opening).await.map_err(failed)?;
        let row = answer.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        });
        let field = |at: usize| row.and_then(|row| row.try_get(at).ok().flatten());
        let (Some(visibility), Some(watermark), Some(read_at)) = (
            field(0).and_then(Visibility::parse),
            field(1).and_then(|text| text.parse().ok()),
            field(3).and_then(|text| text.parse().ok()),
        ) else {
            return Err(Fault::transient("the server does not say where its log stands").into());
        };
        if field(2) != Some(table.fingerprint.as_str()) {
            self.roll_back().await;
            return Err(Unread::Changed);
        }
        let encoding = if self.database.raw_text { " (ENCODING 'SQL_ASCII')" } else { "" };
        let copy = format!("COPY ({statement}) TO STDOUT{encoding}");
        match self.client().copy_out(&copy).await {
            Ok(stream) => {
                Ok(Open { rows: Box::pin(stream), moment: Moment { visibility, watermark, read_at } })
            }
            Err(error) => {
                let unread = self.unreadable(table, error);
                self.roll_back().await;
                Err(unread)
            }
        }
    }

    async fn roll_back(&self) {
        if let Err(error) = self.client().batch_execute("ROLLBACK").await {
            tracing::debug!(%error, "could not end a transaction that only read");
        }
    }

    fn unreadable(&self, table: &Table, error: tokio_postgres::Error) -> Unread {
        let name = format!("{}.{}", table.relation.schema, table.relation.table);
        let doing = format!("cannot read table {name}");
        match Refusal::of(&error) {
            // A column or the table itself went, or was altered, while we looked.
            Some(refusal) if matches!(refusal.code.as_str(), "42703" | "42P01" | "42804" | "42883") => {
                tracing::debug!(table = name, %refusal, "the table has changed");
                Unread::Changed
            }
            Some(refusal) if refusal.code == "42501" => {
                let user = &self.database.server.target.user;
                let fix = format!(
                    "GRANT SELECT ON {name} TO {user}, and USAGE on its schema; where row-level security hides rows: ALTER ROLE {user} BYPASSRLS"
                );
                Unread::Fault(refusal.fault(doing).with_fix(fix))
            }
            Some(_) | None => Unread::Fault(sql_fault(error, doing)),
        }
    }
}
