//! Writers that do to a database what applications do, from a seed.
//!
//! Transactions of one to many rows over several tables, with keys of several types; updates that change a key, that
//! touch a row twice, that leave a large value as it was; deletes, truncates, savepoints that roll back, transactions
//! that do. Writers collide on purpose. They survive a database that goes away, and stop by themselves.

use super::postgres::{Postgres, connect};
use std::{fmt::Write as _, time::Duration};
use tokio::task::JoinSet;
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;

/// The tables, in the schema `public`.
const TABLES: &str = "
CREATE TABLE orders (
    id bigint PRIMARY KEY, status text NOT NULL, total numeric(24, 6), weight double precision, ratio real,
    paid boolean, placed timestamptz, note text);
CREATE TABLE order_lines (
    order_id bigint, line integer, sku text NOT NULL, quantity smallint, tags text[], sizes integer[],
    PRIMARY KEY (order_id, line));
CREATE TABLE documents (id uuid PRIMARY KEY, title text, body text, attributes jsonb, raw bytea, due date);
ALTER TABLE documents ALTER body SET STORAGE EXTERNAL;
CREATE TABLE labels (name text PRIMARY KEY, color varchar(20), at timestamp, span interval, opens time, body text);
ALTER TABLE labels ALTER body SET STORAGE EXTERNAL;
ALTER TABLE labels REPLICA IDENTITY FULL;
CREATE TABLE scratch (id integer PRIMARY KEY, value text);
CREATE TABLE marks (id text PRIMARY KEY);
";

/// How much to write.
#[derive(Clone, Debug)]
pub(crate) struct Load {
    /// The database.
    pub(crate) url: String,
    /// Same seed, same statements (their interleaving is the machine's).
    pub(crate) seed: u64,
    /// Sessions that write at the same time.
    pub(crate) writers: u64,
    /// Transactions of each at most.
    pub(crate) transactions: u64,
    /// Between two transactions of one writer.
    pub(crate) pause: Duration,
}

impl Load {
    /// Four writers of a hundred transactions.
    pub(crate) fn new(url: impl Into<String>, seed: u64) -> Self {
        Self { url: url.into(), seed, writers: 4, transactions: 100, pause: Duration::ZERO }
    }

    /// Writes until stopped, for ten minutes at most.
    pub(crate) fn steady(url: impl Into<String>, seed: u64) -> Self {
        let pause = Duration::from_millis(10);
        Self { transactions: 60_000, pause, writers: 2, ..Self::new(url, seed) }
    }
}

/// What came of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Written {
    /// Transactions that the database said it committed.
    pub(crate) committed: u64,
    /// Transactions that were rolled back, on purpose or by a collision.
    pub(crate) rolled_back: u64,
    /// Transactions whose end is unknown: the database went away.
    pub(crate) unknown: u64,
}

/// Writers at work.
#[derive(Debug)]
pub(crate) struct Writing {
    writers: JoinSet<Written>,
    stop: CancellationToken,
}

impl Writing {
    /// Waits until all is written.
    pub(crate) async fn finish(self) -> Written {
        let mut sum = Written::default();
        for one in self.writers.join_all().await {
            sum.committed += one.committed;
            sum.rolled_back += one.rolled_back;
            sum.unknown += one.unknown;
        }
        assert!(sum.committed > 0, "the workload committed nothing: {sum:?}");
        sum
    }

    /// Ends each writer after its transaction.
    pub(crate) async fn stop(self) -> Written {
        self.stop.cancel();
        self.finish().await
    }
}

/// Makes the tables.
pub(crate) async fn create_tables(postgres: &Postgres) {
    postgres.execute(TABLES).await;
}

/// Writes a row that nobody wrote before; its key, as JSON. The event of it comes after those of all former writes.
pub(crate) async fn mark(client: &Client) -> String {
    let row =
        client.query_one("INSERT INTO marks SELECT gen_random_uuid()::text RETURNING id", &[]).await.unwrap();
    serde_json::Value::from(row.get::<_, &str>(0)).to_string()
}

/// Begins to write.
pub(crate) fn start(load: &Load) -> Writing {
    let stop = CancellationToken::new();
    let mut writers = JoinSet::new();
    for writer in 0..load.writers {
        writers.spawn(write(
            load.clone(),
            Dice(load.seed.wrapping_mul(0x1_0001).wrapping_add(writer)),
            stop.clone(),
        ));
    }
    Writing { writers, stop }
}

async fn write(load: Load, mut dice: Dice, stop: CancellationToken) -> Written {
    let mut written = Written::default();
    let mut session: Option<Client> = None;
    let mut done = 0;
    while done < load.transactions && !stop.is_cancelled() {
        let client = match &session {
            Some(client) if !client.is_closed() => client,
            _ => match connect(&load.url).await {
                Ok(client) => {
                    // Collisions are wanted, waiting for them is not.
                    let _ =
                        client.batch_execute("SET deadlock_timeout = '20ms'; SET lock_timeout = '2s'").await;
                    session.insert(client)
                }
                Err(_) => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
        };
        done += 1;
        match transaction(client, &mut dice).await {
            Ending::Committed => written.committed += 1,
            Ending::RolledBack => written.rolled_back += 1,
            Ending::Unknown => written.unknown += 1,
        }
        if !load.pause.is_zero() {
            tokio::time::sleep(load.pause).await;
        }
    }
    written
}

enum Ending {
    Committed,
    RolledBack,
    Unknown,
}

async fn transaction(client: &Client, dice: &mut Dice) -> Ending {
    let statements = if dice.one_in(4) { 1 } else { 1 + dice.below(12) };
    let mut sql = String::from("BEGIN;\n");
    for _ in 0..statements {
        if dice.one_in(8) {
            let undone = statement(dice);
            let _ = writeln!(sql, "SAVEPOINT s; {undone}; ROLLBACK TO s;");
        }
        let _ = writeln!(sql, "{};", statement(dice));
    }
    let meant = !dice.one_in(15);
    let outcome = match client.batch_execute(&sql).await {
        Ok(()) => client.batch_execute(if meant { "COMMIT" } else { "ROLLBACK" }).await,
        Err(error) => {
            let _ = client.batch_execute("ROLLBACK").await;
            return if error.code().is_some() { Ending::RolledBack } else { Ending::Unknown };
        }
    };
    match outcome {
        Ok(()) if meant => Ending::Committed,
        Ok(()) => Ending::RolledBack,
        Err(_) => Ending::Unknown,
    }
}

fn statement(dice: &mut Dice) -> String {
    match dice.below(100) {
        0..20 => {
            let (id, status, total, weight, ratio) =
                (dice.below(400), dice.text(), dice.number(), dice.float(), dice.float());
            let (paid, placed, note) = (dice.pick(&["true", "false", "NULL"]), dice.moment(), dice.text());
            format!(
                "INSERT INTO orders VALUES ({id}, {status}, {total}, {weight}, {ratio}::real, {paid}, {placed}, {note})
                 ON CONFLICT (id) DO UPDATE SET status = excluded.status, total = excluded.total, placed = excluded.placed"
            )
        }
        20..32 => format!(
            "UPDATE orders SET status = {}, weight = {} WHERE id = {}",
            dice.text(),
            dice.float(),
            dice.below(400)
        ),
        32..36 => format!("DELETE FROM orders WHERE id = {}", dice.below(400)),
        36..39 => {
            let (from, to) = (dice.below(400), dice.below(400));
            format!(
                "UPDATE orders SET id = {to} WHERE id = {from} AND NOT EXISTS (SELECT FROM orders WHERE id = {to})"
            )
        }
        39..51 => {
            let (order, line, sku) = (dice.below(60), dice.below(8), dice.text());
            let (quantity, size, tag) = (dice.below(30_000), dice.below(1_000), dice.text());
            format!(
                "INSERT INTO order_lines VALUES ({order}, {line}, {sku}, {quantity}, ARRAY[{tag}, NULL, 'b'], ARRAY[{size}, -1])
                 ON CONFLICT (order_id, line) DO UPDATE SET quantity = excluded.quantity, tags = NULL"
            )
        }
        51..54 => format!("DELETE FROM order_lines WHERE order_id = {}", dice.below(60)),
        54..56 => {
            format!("UPDATE order_lines SET quantity = quantity / 2 WHERE order_id < {}", dice.below(10))
        }
        56..66 => {
            let (id, title, body) = (dice.uuid(), dice.text(), dice.large());
            let (number, word) = (dice.number(), dice.below(1 << 40));
            format!(
                "INSERT INTO documents VALUES ({id}, {title}, {body}, jsonb_build_object('n', {number}, 'a', ARRAY[1, {word}]),
                     decode(md5('{word}'), 'hex'), DATE '2000-01-01' + {word}::int8::bit(14)::int)
                 ON CONFLICT (id) DO UPDATE SET title = excluded.title"
            )
        }
        66..74 => format!("UPDATE documents SET title = {} WHERE id = {}", dice.text(), dice.uuid()),
        74..76 => format!("UPDATE documents SET body = {} WHERE id = {}", dice.large(), dice.uuid()),
        76..78 => {
            let (from, to) = (dice.uuid(), dice.uuid());
            format!(
                "UPDATE documents SET id = {to} WHERE id = {from} AND NOT EXISTS (SELECT FROM documents WHERE id = {to})"
            )
        }
        78..80 => format!("DELETE FROM documents WHERE id = {}", dice.uuid()),
        80..87 => {
            let (name, at, body) = (dice.text(), dice.moment(), dice.large());
            let (seconds, minutes) = (dice.below(1 << 24), dice.below(1_440));
            format!(
                "INSERT INTO labels VALUES ({name}, 'red', {at}, make_interval(secs => {seconds} / 7.0),
                     TIME '00:00' + make_interval(mins => {minutes}::int), {body})
                 ON CONFLICT (name) DO UPDATE SET color = 'color ' || {minutes}"
            )
        }
        87..90 => {
            format!("UPDATE labels SET color = NULL, at = {} WHERE name = {}", dice.moment(), dice.text())
        }
        90..92 => format!("DELETE FROM labels WHERE name = {}", dice.text()),
        92..97 => {
            let (first, value) = (dice.below(2_000), dice.text());
            format!(
                "INSERT INTO scratch SELECT n, {value} FROM generate_series({first}, {first} + {}) n
                 ON CONFLICT (id) DO UPDATE SET value = excluded.value",
                dice.below(60)
            )
        }
        97 => "UPDATE scratch SET value = value || '+' WHERE id % 7 = 0 AND length(value) < 40".to_owned(),
        98 => "TRUNCATE scratch".to_owned(),
        _ => "TRUNCATE scratch, order_lines".to_owned(),
    }
}

/// Chance from a seed (SplitMix64).
#[derive(Clone, Debug)]
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    /// A number below `end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn pick<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.below(of.len() as u64) as usize]
    }

    /// Text that subjects, URLs, JSON and SQL would each trip over.
    fn text(&mut self) -> String {
        let text = self.pick(&[
            "new",
            "paid",
            "",
            "a/b,c",
            "x.y.*.>",
            "100%25",
            "na\u{ef}ve \u{2603} \u{1f600}",
            "it''s",
            "\"quoted\" \\ \\n",
            "tab\tline\nend",
            "null",
            "{\"a\":1}",
            "\u{7f}\u{1}",
            " blank ",
        ]);
        let suffix = self.below(20);
        if suffix < 10 { format!("'{text}'") } else { format!("'{text}{suffix}'") }
    }

    fn number(&mut self) -> String {
        let digits = self.below(u64::MAX);
        match self.below(6) {
            0 => "NULL::numeric".to_owned(),
            1 => "0.000000".to_owned(),
            2 => format!("-{}.{:06}", digits >> 10, digits % 1_000_000),
            _ => format!("{}.5", digits % 1_000_000),
        }
    }

    fn float(&mut self) -> String {
        let digits = self.below(1 << 53);
        match self.below(8) {
            0 => self
                .pick(&[
                    "'NaN'::float8",
                    "'Infinity'::float8",
                    "'-Infinity'::float8",
                    "NULL::float8",
                    "'-0'::float8",
                ])
                .to_owned(),
            1 => format!("{digits}e-20::float8"),
            2 => format!("{digits}e15::float8"),
            _ => format!("{digits}::float8 / 3"),
        }
    }

    fn moment(&mut self) -> String {
        match self.below(10) {
            0 => "NULL".to_owned(),
            1 => "'infinity'".to_owned(),
            2 => "'1999-12-31 23:59:59.9'".to_owned(),
            _ => format!("to_timestamp({} / 1000000.0)", self.below(4_000_000_000_000_000)),
        }
    }

    fn uuid(&mut self) -> String {
        format!("'7d444840-9dc0-11d1-b245-{:012x}'", self.below(120))
    }

    /// Text that is stored outside of its row, most of the time.
    fn large(&mut self) -> String {
        match self.below(5) {
            0 => "'small'".to_owned(),
            1 => "NULL".to_owned(),
            _ => format!("repeat(md5('{}'), {})", self.below(1 << 30), 80 + self.below(400)),
        }
    }
}
