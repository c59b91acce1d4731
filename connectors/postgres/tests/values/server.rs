//! A private PostgreSQL server, and what its `pgoutput` plugin makes of SQL.

use headgate_postgres::testing::Replay;
use headgate_sdk::{
    Change, Fault, Gap, Message, Origin, Outlet, Progress, RowFault, Transaction,
    testing::{Recorder, Told},
};
use headgate_test_servers::postgres::{Postgres, chosen, connect};
use std::sync::Arc;
use tokio_postgres::{Client, types::PgLsn};

/// A database with a publication `p` of all tables and a slot.
pub(crate) struct Database {
    name: &'static str,
    pub(crate) client: Arc<Client>,
    replay: Replay,
    _server: Postgres,
}

impl Database {
    pub(crate) async fn new(name: &'static str) -> Self {
        Self::with(name, "", "").await
    }

    pub(crate) async fn with(name: &'static str, database: &str, publication: &str) -> Self {
        let mut server = Postgres::prepare(chosen(), &[("autovacuum", "off")]);
        server.start_again().await;
        server.execute(&format!("CREATE DATABASE {name} TEMPLATE template0 {database}")).await;
        let client = Arc::new(connect(&server.url_of(name)).await.unwrap());
        let slot = format!("SELECT pg_create_logical_replication_slot('{name}', 'pgoutput')");
        client.batch_execute(&format!("CREATE PUBLICATION p FOR ALL TABLES {publication}")).await.unwrap();
        client.batch_execute(&slot).await.unwrap();
        let replay = Replay::new(client.clone(), &["public.*".to_owned(), "!public.left_out".to_owned()]);
        Self { name, client, replay, _server: server }
    }

    /// Runs statements one by one: sent together they would be one transaction. They end with a semicolon and a space.
    pub(crate) async fn sql(&self, sql: &str) {
        for statement in sql.split("; ").flat_map(|line| line.split(";\n")) {
            self.client
                .batch_execute(statement)
                .await
                .unwrap_or_else(|error| panic!("{error:?} in {statement}"));
        }
    }

    /// The payloads of everything that was committed since the last call.
    pub(crate) async fn payloads(&self) -> Vec<(u64, Vec<u8>)> {
        let rows = self
            .client
            .query(
                "SELECT lsn, data FROM pg_logical_slot_get_binary_changes($1::text::name, NULL, NULL,
                 'proto_version', '1', 'publication_names', 'p', 'messages', 'true')",
                &[&self.name],
            )
            .await
            .unwrap();
        rows.iter().map(|row| (row.get::<_, PgLsn>(0).into(), row.get(1))).collect()
    }

    /// The same, told to an outlet.
    pub(crate) async fn told(&mut self) -> Notes {
        let mut notes = Notes::default();
        for (lsn, payload) in self.payloads().await {
            self.replay.message(&payload, lsn, &mut notes).await.unwrap();
        }
        assert!(!self.replay.in_transaction());
        notes
    }

    /// Runs SQL and tells what comes of it.
    pub(crate) async fn run(&mut self, sql: &str) -> Notes {
        self.sql(sql).await;
        self.told().await
    }

    pub(crate) fn replay(&mut self) -> &mut Replay {
        &mut self.replay
    }
}

/// What was told, and beside each change the id and the key of its relation; beside each message its position.
#[derive(Default)]
pub(crate) struct Notes {
    recorder: Recorder,
    pub(crate) relations: Vec<u64>,
    pub(crate) keys: Vec<String>,
    pub(crate) positions: Vec<u64>,
}

impl Notes {
    pub(crate) fn told(&self) -> &[Told] {
        &self.recorder.told
    }

    /// One line a call, without what differs from run to run.
    pub(crate) fn lines(&self) -> Vec<String> {
        let image = |image: &Option<String>| image.clone().unwrap_or_else(|| "-".to_owned());
        let line = |told: &Told| match told {
            Told::Begin(_) => "begin".to_owned(),
            Told::Commit(_) => "commit".to_owned(),
            Told::Progress(_) => "progress".to_owned(),
            Told::Change { table, op, before, after } => {
                format!("{op:?} {table} {} -> {}", image(before), image(after))
            }
            Told::Message(prefix, content, transactional) => {
                format!("message {prefix} {} {transactional}", String::from_utf8_lossy(content))
            }
            Told::Reject(fault) => format!("reject {:?} {} {}", fault.table, fault.reason, fault.size),
            other => format!("{other:?}"),
        };
        self.recorder.told.iter().map(line).collect()
    }

    /// The changes alone.
    pub(crate) fn changes(&self) -> Vec<String> {
        self.lines().into_iter().filter(|line| line.contains(" -> ")).collect()
    }
}

impl Outlet for Notes {
    async fn open(&mut self, origin: Origin) -> Result<(), Fault> {
        self.recorder.open(origin).await
    }
    async fn gap(&mut self, origin: Origin, gap: Gap) -> Result<(), Fault> {
        self.recorder.gap(origin, gap).await
    }
    fn begin(&mut self, transaction: &Transaction) {
        self.recorder.begin(transaction);
    }
    fn change(&mut self, change: &Change<'_>) {
        let names = change.relation.key.iter().map(|&at| change.relation.columns[at].name.clone());
        self.keys.push(names.collect::<Vec<_>>().join(","));
        self.relations.push(change.relation.id);
        self.recorder.change(change);
    }
    fn message(&mut self, message: &Message<'_>) {
        self.positions.push(message.position);
        self.recorder.message(message);
    }
    fn reject(&mut self, fault: &RowFault) {
        self.recorder.reject(fault);
    }
    fn commit(&mut self, progress: Progress) {
        // PostgreSQL 14 tells of transactions without a word in them too, later versions seldom do.
        if let Some(Told::Begin(_)) = self.recorder.told.last() {
            self.recorder.told.pop();
            return;
        }
        self.recorder.commit(progress);
    }
    fn progress(&mut self, progress: Progress) {
        self.recorder.progress(progress);
    }
    fn is_full(&self) -> bool {
        self.recorder.is_full()
    }
    async fn flush(&mut self) -> Result<(), Fault> {
        self.recorder.flush().await
    }
}
