//! A backlog of MySQL's binary log, read by one gateway after the other, each from the place that it noted before there was
//! a backlog. The yardstick is `mysqlbinlog`, which copies the same log to a file and looks at nothing.

use crate::{
    backlog::{Run, catch_up},
    support::{
        gateway::{Gateway, Settings},
        mysql::{MySql, PASSWORD, Version},
        nats::Nats,
        servers,
    },
};
use mysql_async::prelude::Queryable as _;
use std::{process::Command, time::Instant};

const TABLE: &str = "CREATE TABLE bench (id bigint AUTO_INCREMENT PRIMARY KEY, customer bigint, status varchar(20), \
    note text, total decimal(12,2), rate double, ok tinyint(1), at timestamp(6), doc json, tag char(36))";

const PROCEDURE: &str = "CREATE PROCEDURE fill(transactions INT, size INT) BEGIN \
    DECLARE i INT DEFAULT 0; DECLARE j INT; \
    WHILE i < transactions DO START TRANSACTION; SET j = 0; WHILE j < size DO \
    INSERT INTO bench (customer, status, note, total, rate, ok, at, doc, tag) VALUES (1234567, 'new', \
    'a note of some forty characters for order', 199.95, 0.25, 1, NOW(6), \
    '{\"a\": 1, \"b\": \"two\", \"c\": [1, 2, 3]}', '6f1c1f4e-7a57-4d0a-9c3e-0d3d6d8b5b11'); \
    SET j = j + 1; END WHILE; COMMIT; SET i = i + 1; END WHILE; END";

/// Runs all loads against one server.
pub(crate) async fn run(version: Version, rows: u64, rounds: usize) {
    if !version.is_installed() {
        return;
    }
    println!("\n{version:?}: {rows} rows of 10 columns, median of {rounds} rounds");
    println!(
        "{:<30} {:>12} {:>12} {:>7} {:>14} {:>10}",
        "load", "mysqlbinlog", "headgate", "ratio", "CPU an event", "memory"
    );
    let only = crate::setting("HEADGATE_BENCH_LOADS", "");
    for (name, rows, size) in [
        ("each row its own transaction", rows, 1),
        ("1000-row transactions", rows, 1000),
        ("one transaction", 2 * rows, 2 * rows),
    ] {
        if !name.contains(&only) {
            continue;
        }
        let server = MySql::start(version, &["--max-allowed-packet=64M"]).await;
        create_table(&server).await;
        let mut waiting = Vec::new();
        for _ in 0..rounds {
            let nats = Nats::start().await;
            let settings = Settings { connector: "mysql", ..Settings::new(&nats, server.url()) };
            let mut gateway = Gateway::start(&settings).await;
            gateway.terminate();
            waiting.push((nats, gateway));
        }
        server.execute(&["FLUSH BINARY LOGS"]).await;
        let mut session = server.session().await;
        let first = newest_file(&mut session).await;
        fill(&mut session, rows / size, size).await;
        let raw = copied(version, &server, &first).map(|took| rows as f64 / took);
        let mut ours: Vec<Run> = Vec::new();
        for (nats, gateway) in waiting {
            ours.push(catch_up(gateway, &nats, rows).await);
        }
        ours.sort_by(|a, b| a.rate.total_cmp(&b.rate));
        let ours = &ours[rounds / 2];
        let (raw, ratio) = match raw {
            Some(raw) => (format!("{:.1} k", raw / 1e3), format!("{:.2}", ours.rate / raw)),
            None => ("-".to_owned(), "-".to_owned()),
        };
        println!(
            "{name:<30} {raw:>12} {:>10.1} k {ratio:>7} {:>11.2} µs {:>6} MiB",
            ours.rate / 1e3,
            ours.cpu_micros,
            ours.memory
        );
    }
}

/// Makes the table, and what fills it.
pub(crate) async fn create_table(server: &MySql) {
    server.execute(&[TABLE, PROCEDURE]).await;
}

/// Writes that many transactions of `size` rows.
pub(crate) async fn fill(session: &mut mysql_async::Conn, transactions: u64, size: u64) {
    session.query_drop(format!("CALL fill({transactions}, {size})")).await.unwrap();
}

async fn newest_file(session: &mut mysql_async::Conn) -> String {
    let files: Vec<mysql_async::Row> = session.query("SHOW BINARY LOGS").await.unwrap();
    files.last().and_then(|row| row.get(0)).expect("a log file")
}

/// Seconds that `mysqlbinlog` takes to copy the log from a file on; `None` where it was not installed with the server.
fn copied(version: Version, server: &MySql, first: &str) -> Option<f64> {
    if version != Version::MySql97 {
        return None;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new(servers().join("mysql-9.7/bin/mysqlbinlog"));
    command.args(["--read-from-remote-server", "--raw", "--to-last-log", "--host=127.0.0.1", "--user=app"]);
    command.arg(format!("--password={PASSWORD}")).arg(format!("--port={}", server.port()));
    command.arg(format!("--result-file={}/", dir.path().display())).arg(first);
    let began = Instant::now();
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(began.elapsed().as_secs_f64())
}
