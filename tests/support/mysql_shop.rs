//! A MySQL or MariaDB database, a workload for it, and what it holds as the contract says that it looks in events. The
//! oracle that judges is the same as PostgreSQL's.

use super::{
    database::{Row, Table, Tables},
    eventually,
    gateway::{Gateway, Settings},
    mysql::{MySql, Version},
    nats::Nats,
    oracle,
    stream::{self, Event, canonical},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use mysql_async::{Conn, Value, prelude::Queryable as _};
use std::time::Duration;
use tokio::task::JoinSet;

/// The stream of the source `shop`.
const STREAM: &str = "EVENTS_shop";

/// The servers around a gateway.
#[derive(Debug)]
pub(crate) struct MySqlShop {
    /// The database.
    pub(crate) server: MySql,
    /// The broker.
    pub(crate) nats: Nats,
}

impl MySqlShop {
    /// A database with the workload's tables, and a single broker. `None`: that server is not installed.
    pub(crate) async fn open(version: Version) -> Option<Self> {
        Self::with(version, &[]).await
    }

    /// The same with more settings of the server.
    pub(crate) async fn with(version: Version, settings: &[&str]) -> Option<Self> {
        if !version.is_installed() {
            return None;
        }
        let server = MySql::start(version, settings).await;
        create_tables(&server).await;
        Some(Self { server, nats: Nats::start().await })
    }

    /// Writes one large transaction, and comes back when the stream has a part of it.
    pub(crate) async fn within_a_large_transaction(&self) {
        let rows: Vec<String> = (5000..25_000).map(|id| format!("({id}, REPEAT('y', 100))")).collect();
        self.server.execute(&[&format!("INSERT INTO scratch VALUES {}", rows.join(","))]).await;
        let before = stream::last_sequence(&self.nats, STREAM).await;
        eventually("a part of the transaction", Duration::from_secs(30), || async {
            let last = stream::last_sequence(&self.nats, STREAM).await;
            if last > before + 100 || last > 5000 { Ok(()) } else { Err(format!("{last} events")) }
        })
        .await;
    }

    /// What a gateway is started with.
    pub(crate) fn settings(&self) -> Settings {
        self.settings_at(self.server.port())
    }

    /// The same with the database behind another port.
    pub(crate) fn settings_at(&self, port: u16) -> Settings {
        Settings {
            connector: "mysql",
            source_lines: "heartbeat = \"1s\"\n".to_owned(),
            nats_lines: "confirm_delay = \"0s\"\n".to_owned(),
            ..Settings::new(&self.nats, self.server.url_at(port))
        }
    }

    /// A gateway that is ready and reads.
    pub(crate) async fn gateway(&self) -> Gateway {
        Gateway::start(&self.settings()).await
    }

    /// Waits until the stream holds all that was written to `server` until now, then asserts that it is faithful.
    pub(crate) async fn assert_faithful_to(&self, server: &MySql) -> Vec<Event> {
        let mark = mark(server).await;
        let events =
            stream::read_until(&self.nats, STREAM, Duration::from_secs(90), |event| is_mark(event, &mark))
                .await;
        let found = oracle::violations(&events, &read(server).await);
        assert!(found.is_empty(), "{} events:\n{}", events.len(), found[..found.len().min(20)].join("\n"));
        println!("faithful: {} events", events.len());
        events
    }

    /// The same for the database that the shop was opened with.
    pub(crate) async fn assert_faithful(&self) -> Vec<Event> {
        self.assert_faithful_to(&self.server).await
    }
}

/// Whether an event tells of that mark.
pub(crate) fn is_mark(event: &Event, mark: &str) -> bool {
    event.data.table == "shop.marks" && event.data.key.as_ref().is_some_and(|key| key["id"] == mark)
}

/// Writes a row that comes after everything that is committed; its key as JSON.
pub(crate) async fn mark(server: &MySql) -> String {
    let mut session = server.session().await;
    let id: Option<String> = session.query_first("SELECT UUID()").await.unwrap();
    let id = id.unwrap();
    session.exec_drop("INSERT INTO marks VALUES (?)", (&id,)).await.unwrap();
    format!("\"{id}\"")
}

/// The tables, in the database `shop`.
const TABLES: [&str; 5] = [
    "CREATE TABLE orders (
        id bigint PRIMARY KEY, status varchar(40) NOT NULL, total decimal(24,6), weight double, ratio float,
        paid tinyint(1), placed timestamp(6) NULL, note text)",
    "CREATE TABLE order_lines (
        order_id bigint unsigned, line int, sku varchar(20) CHARACTER SET latin1 NOT NULL, quantity smallint,
        level mediumint, size enum('small','größer','xl'), tags set('a','b','c'), PRIMARY KEY (line, order_id))",
    "CREATE TABLE documents (
        id binary(8) PRIMARY KEY, title varchar(100) CHARACTER SET utf8mb3, body longtext, attributes json, raw blob,
        due date, at datetime(3), opens time(6), built year, flags bit(11))",
    "CREATE TABLE scratch (id int PRIMARY KEY, value text)",
    "CREATE TABLE marks (id varchar(40) PRIMARY KEY)",
];

async fn create_tables(server: &MySql) {
    server.execute(&TABLES).await;
}

/// Numbers that follow from a seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

/// Writers that work at the same time, each that many transactions, and survive a server that goes away. What they may
/// write over each other collides on purpose.
pub(crate) fn write(server: &MySql, seed: u64, writers: u64, transactions: u64) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    for writer in 0..writers {
        let url = format!(
            "mysql://app:{}@127.0.0.1:{}/shop?prefer_socket=false",
            super::mysql::PASSWORD,
            server.port()
        );
        tasks.spawn(async move {
            let mut dice = Dice(seed * 7919 + writer * 104_729 + 1);
            let mut session: Option<Conn> = None;
            for _ in 0..transactions {
                let conn = match &mut session {
                    Some(conn) => conn,
                    None => match Conn::from_url(&url).await {
                        Ok(conn) => session.insert(conn),
                        Err(_) => {
                            tokio::time::sleep(Duration::from_millis(100)).await;
                            continue;
                        }
                    },
                };
                // Deadlocks and duplicate keys are part of life, and roll back.
                if let Err(error) = transaction(conn, &mut dice).await
                    && !matches!(&error, mysql_async::Error::Server(_))
                {
                    session = None;
                }
            }
        });
    }
    tasks
}

async fn transaction(conn: &mut Conn, dice: &mut Dice) -> Result<(), mysql_async::Error> {
    conn.query_drop("BEGIN").await?;
    let written = statements(conn, dice).await;
    let end = if written.is_err() || dice.roll(12) == 0 { "ROLLBACK" } else { "COMMIT" };
    conn.query_drop(end).await?;
    written
}

async fn statements(conn: &mut Conn, dice: &mut Dice) -> Result<(), mysql_async::Error> {
    for _ in 0..=dice.roll(4) {
        let id = dice.roll(60);
        let statement = match dice.roll(14) {
            0..=3 => format!(
                "INSERT INTO orders VALUES ({id}, 'new', {}.{:06}, {}e-{}, {}.1, {}, FROM_UNIXTIME({}.{:06}), 'ünï {id}')",
                dice.roll(1 << 40),
                dice.roll(1_000_000),
                dice.roll(1 << 50),
                dice.roll(300),
                dice.roll(9999),
                dice.roll(2),
                dice.roll(1 << 31),
                dice.roll(1_000_000)
            ),
            4 | 5 => format!("UPDATE orders SET status = 'paid', total = -total WHERE id = {id}"),
            6 => format!("UPDATE orders SET id = id + 100 WHERE id = {id}"),
            7 => format!("DELETE FROM orders WHERE id = {id}"),
            8 => format!(
                "INSERT INTO order_lines VALUES ({}, {id}, 'Stück', -{}, -{}, {}, {})",
                u64::MAX - dice.roll(5),
                dice.roll(32_768),
                dice.roll(8_388_608),
                dice.roll(3) + 1,
                dice.roll(8)
            ),
            9 => format!(
                "REPLACE INTO documents VALUES (UNHEX('{:016x}'), 'Größe', REPEAT('x', {}), JSON_OBJECT('a', {}, 'b', JSON_ARRAY(1.50, NULL, 'ü')), UNHEX('00ff{:04x}'), '2026-02-{:02}', '1970-01-01 00:00:00.{:03}', '-{}:00:00.5', {}, {})",
                dice.roll(6) << 32,
                dice.roll(9000),
                dice.roll(1 << 60),
                dice.roll(65_536),
                1 + dice.roll(28),
                dice.roll(1000),
                dice.roll(838),
                1901 + dice.roll(250),
                dice.roll(2048)
            ),
            10 => format!(
                "UPDATE documents SET attributes = JSON_SET(attributes, '$.a', {}), flags = 5",
                dice.roll(99)
            ),
            11 => "DELETE FROM documents LIMIT 1".to_owned(),
            12 => format!("INSERT INTO scratch VALUES ({id}, NULL), ({}, '')", id + 1),
            _ => {
                conn.query_drop("SAVEPOINT s").await?;
                conn.query_drop(format!("INSERT INTO scratch VALUES ({}, 'never')", 1000 + id)).await?;
                "ROLLBACK TO s".to_owned()
            }
        };
        conn.query_drop(statement).await?;
    }
    Ok(())
}

/// Reads every table of `shop` that has a primary key.
pub(crate) async fn read(server: &MySql) -> Tables {
    let mut session = server.session().await;
    let columns: Vec<(String, String, String, String, String)> = session
        .query(
            "SELECT c.table_name, c.column_name, c.data_type, c.column_type, c.column_key FROM information_schema.columns c
             JOIN information_schema.tables t USING (table_schema, table_name)
             WHERE c.table_schema = 'shop' AND t.table_type = 'BASE TABLE' ORDER BY c.table_name, c.ordinal_position",
        )
        .await
        .unwrap();
    let checks: Vec<(String, String)> = match server.version() {
        Version::MySql97 => Vec::new(),
        Version::MariaDb1011 | Version::MariaDb118 => session
            .query("SELECT table_name, check_clause FROM information_schema.check_constraints WHERE constraint_schema = 'shop'")
            .await
            .unwrap(),
    };
    let mut tables = Tables::new();
    for columns in columns.chunk_by(|a, b| a.0 == b.0) {
        let name = &columns[0].0;
        let mut table = Table::default();
        let kinds: Vec<String> = columns
            .iter()
            .map(|(_, column, kind, whole, _)| {
                let json = checks.contains(&(name.clone(), format!("json_valid(`{column}`)")));
                if json {
                    "json".to_owned()
                } else if kind == "bit" {
                    whole.clone()
                } else {
                    kind.clone()
                }
            })
            .collect();
        for ((_, column, ..), kind) in columns.iter().zip(&kinds) {
            // By the names that the oracle's comparison knows.
            let compared = match kind.as_str() {
                "double" => "float8",
                "float" => "float4",
                "datetime" | "timestamp" | "time" => "timestamp",
                other => other,
            };
            table.types.insert(column.clone(), compared.to_owned());
        }
        let selected: Vec<String> = columns
            .iter()
            .zip(&kinds)
            .map(|((_, column, ..), kind)| match kind.as_str() {
                // As text a FLOAT has six digits.
                "float" => format!("CAST(`{column}` AS DOUBLE)"),
                kind if kind.starts_with("bit") => format!("BIN(`{column}`)"),
                _ => format!("`{column}`"),
            })
            .collect();
        let rows: Vec<mysql_async::Row> =
            session.query(format!("SELECT {} FROM `{name}`", selected.join(", "))).await.unwrap();
        for found in rows {
            let (mut key, mut row) = (Row::new(), Row::new());
            for (((_, column, _, _, part), kind), value) in columns.iter().zip(&kinds).zip(found.unwrap()) {
                let json = match value {
                    Value::NULL => "null".to_owned(),
                    Value::Bytes(bytes) => json(kind, &bytes),
                    other => panic!("{name}.{column}: {other:?} is not text"),
                };
                if part == "PRI" {
                    key.insert(column.clone(), json.clone());
                }
                row.insert(column.clone(), json);
            }
            if !key.is_empty() {
                table.rows.insert(key, row);
            }
        }
        tables.insert(format!("shop.{name}"), table);
    }
    tables
}

/// The contract's JSON of a value that the server wrote as text.
fn json(kind: &str, bytes: &[u8]) -> String {
    let string = |text: &str| serde_json::Value::from(text).to_string();
    if matches!(kind, "binary" | "varbinary" | "blob" | "tinyblob" | "mediumblob" | "longblob") {
        return string(&STANDARD.encode(bytes));
    }
    let text = std::str::from_utf8(bytes).unwrap();
    match kind {
        "tinyint" | "smallint" | "mediumint" | "int" | "bigint" | "double" => text.to_owned(),
        "year" => text.trim_start_matches('0').parse::<u16>().unwrap_or(0).to_string(),
        "float" => (text.parse::<f64>().unwrap() as f32).to_string(),
        "json" => canonical(text),
        "datetime" => string(&text.replacen(' ', "T", 1)),
        "timestamp" => string(&format!("{}Z", text.replacen(' ', "T", 1))),
        "set" => {
            let labels: Vec<String> = text.split(',').filter(|label| !label.is_empty()).map(string).collect();
            format!("[{}]", labels.join(","))
        }
        kind if kind.starts_with("bit") => {
            let width: usize = kind.trim_start_matches("bit(").trim_end_matches(')').parse().unwrap();
            string(&format!("{text:0>width$}"))
        }
        _ => string(text),
    }
}
