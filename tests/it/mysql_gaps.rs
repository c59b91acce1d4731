//! What the log of MySQL or MariaDB does not hold, or not as rows, is a gap in the stream: never silence.

use crate::support::{
    checkpoint, eventually,
    gateway::Gateway,
    mysql::Version,
    mysql_shop::{MySqlShop, is_mark, mark, write},
    nats::Nats,
    oracle,
    stream::{self, Event},
};
use std::time::Duration;

const STREAM: &str = "EVENTS_shop";

async fn ends_with_a_gap(nats: &Nats) -> Event {
    eventually("a gap event", Duration::from_secs(30), || async {
        match stream::read(nats, STREAM).await.last() {
            Some(event) if event.data.op == "gap" => Ok(event.clone()),
            last => Err(format!("the last is {last:?}")),
        }
    })
    .await
}

async fn waits_at_a_gap(gateway: &Gateway) {
    eventually("the gap waits", Duration::from_secs(30), || async {
        let state = gateway.status().await["sources"][0]["state"].clone();
        if state == "gap" { Ok(()) } else { Err(state.to_string()) }
    })
    .await;
}

/// The log is purged, or begun anew, while the gateway is down.
async fn tells_of_a_gap(version: Version, lose: &[&str]) {
    let Some(shop) = MySqlShop::open(version).await else { return };
    let mut gateway = shop.gateway().await;
    write(&shop.server, 21, 2, 30).join_all().await;
    shop.assert_faithful().await;
    // The landmark that it begins at is kept every few seconds, and when it ends.
    assert_eq!(gateway.terminate(), Some(0));
    let before = checkpoint::read(&shop.nats).await;
    write(&shop.server, 22, 2, 30).join_all().await;
    shop.server.execute(lose).await;
    let after = mark(&shop.server).await;
    gateway.launch();
    ends_with_a_gap(&shop.nats).await;
    waits_at_a_gap(&gateway).await;
    // Killed after it told of the gap and before that was kept: the next run finds it.
    gateway.kill9();
    checkpoint::forget_the_gap(&shop.nats, before).await;
    let accept = || gateway.command().args(["source", "accept-gap", "shop"]).output().unwrap();
    assert_eq!(accept().status.code(), Some(78), "there is nothing to accept yet");
    gateway.launch();
    waits_at_a_gap(&gateway).await;
    let accepted = gateway.command().args(["source", "accept-gap", "shop"]).output().unwrap();
    assert!(accepted.status.success(), "{accepted:?}");
    assert_eq!(gateway.terminate(), Some(0));
    gateway.start_again().await;
    let events =
        stream::read_until(&shop.nats, STREAM, Duration::from_secs(30), |event| is_mark(event, &after)).await;
    assert_eq!(oracle::malformed(&events), Vec::<String>::new());
    assert_eq!(events.iter().filter(|event| event.data.op == "gap").count(), 1);
    assert_eq!(events.iter().filter(|event| is_mark(event, &after)).count(), 1);
}

#[tokio::test]
async fn a_purged_log_is_a_gap_mysql() {
    tells_of_a_gap(
        Version::MySql97,
        &["FLUSH BINARY LOGS", "DO SLEEP(1.1)", "PURGE BINARY LOGS BEFORE NOW()"],
    )
    .await;
}

#[tokio::test]
async fn a_purged_log_is_a_gap_mariadb() {
    tells_of_a_gap(
        Version::MariaDb1011,
        &["FLUSH BINARY LOGS", "DO SLEEP(1.1)", "PURGE BINARY LOGS BEFORE NOW()"],
    )
    .await;
}

#[tokio::test]
async fn a_log_that_was_reset_is_a_gap() {
    tells_of_a_gap(Version::MySql97, &["RESET BINARY LOGS AND GTIDS"]).await;
}

/// A server that was reset gives its files and its transactions the same names again: what it wrote since is not taken for
/// what the stream holds, however much it is.
async fn names_that_come_again_are_a_gap(version: Version, reset: &str, confirm_delay: &str) {
    let Some(shop) = MySqlShop::open(version).await else { return };
    let mut settings = shop.settings();
    settings.nats_lines = format!("confirm_delay = \"{confirm_delay}\"\n");
    let mut gateway = Gateway::start(&settings).await;
    let insert = |number: usize| format!("INSERT INTO scratch VALUES ({number}, 'x')");
    let rows = |numbers: std::ops::Range<usize>| numbers.map(insert).collect::<Vec<_>>();
    let execute = async |statements: Vec<String>| {
        shop.server.execute(&statements.iter().map(String::as_str).collect::<Vec<_>>()).await;
    };
    execute(rows(100..130)).await;
    let last = mark(&shop.server).await;
    stream::read_until(&shop.nats, STREAM, Duration::from_secs(30), |event| is_mark(event, &last)).await;
    assert_eq!(gateway.terminate(), Some(0));
    // Of the same length as those before.
    execute([vec!["DELETE FROM scratch".to_owned(), reset.to_owned()], rows(200..300)].concat()).await;
    gateway.launch();
    ends_with_a_gap(&shop.nats).await;
    waits_at_a_gap(&gateway).await;
    let accepted = gateway.command().args(["source", "accept-gap", "shop"]).output().unwrap();
    assert!(accepted.status.success(), "{accepted:?}");
    assert_eq!(gateway.terminate(), Some(0));
    gateway.start_again().await;
    let after = mark(&shop.server).await;
    let events =
        stream::read_until(&shop.nats, STREAM, Duration::from_secs(30), |event| is_mark(event, &after)).await;
    assert_eq!(oracle::malformed(&events), Vec::<String>::new());
    assert_eq!(gateway.terminate(), Some(0));
}

#[tokio::test]
async fn names_that_come_again_are_a_gap_mysql() {
    // Told by the transaction that the stream ends with, and by the file that was begun anew.
    for confirm_delay in ["1h", "0s"] {
        names_that_come_again_are_a_gap(Version::MySql97, "RESET BINARY LOGS AND GTIDS", confirm_delay).await;
    }
}

#[tokio::test]
async fn names_that_come_again_are_a_gap_mariadb() {
    for confirm_delay in ["1h", "0s"] {
        names_that_come_again_are_a_gap(Version::MariaDb1011, "RESET MASTER", confirm_delay).await;
    }
}

/// Changes that the log has otherwise than as rows are not passed over, nor are rows that it has and the tables have not: each
/// is a gap with the word of it, and the source goes on behind it.
async fn are_gaps(version: Version, changes: &[(&[&str], &str)]) {
    let Some(shop) = MySqlShop::open(version).await else { return };
    shop.server
        .execute(&[
            "CREATE TABLE flat (id int PRIMARY KEY) ENGINE=MyISAM",
            "CREATE TABLE defaults (a int DEFAULT 1, b int)",
            "INSERT INTO scratch VALUES (1, 'x')",
        ])
        .await;
    let mut gateway = shop.gateway().await;
    for (statements, word) in changes {
        shop.server.execute(statements).await;
        let gap = ends_with_a_gap(&shop.nats).await;
        assert!(gap.subject.starts_with("events.shop.headgate.gap."), "{gap:?}");
        let reason = stream::read_data(&shop.nats, STREAM).await.pop().unwrap()["reason"].to_string();
        assert!(reason.contains(word), "{word}: {reason}");
        let accepted = gateway.command().args(["source", "accept-gap", "shop"]).output().unwrap();
        assert!(accepted.status.success(), "{accepted:?}");
        assert_eq!(gateway.terminate(), Some(0));
        gateway.start_again().await;
        let after = mark(&shop.server).await;
        stream::read_until(&shop.nats, STREAM, Duration::from_secs(30), |event| is_mark(event, &after)).await;
    }
    assert_eq!(gateway.terminate(), Some(0));
}

/// `LOAD DATA` in statement format is logged in events of its own.
fn loads(file: &tempfile::NamedTempFile) -> String {
    std::fs::write(file, "7\tx\n").unwrap();
    format!("LOAD DATA INFILE '{}' INTO TABLE scratch", file.path().display())
}

#[tokio::test]
async fn what_is_not_in_the_log_as_rows_is_a_gap_mysql() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let load = loads(&file);
    are_gaps(
        Version::MySql97,
        &[
            (&["SET SESSION binlog_format = STATEMENT", &load], "statement format"),
            (&["SET SESSION binlog_row_image = MINIMAL", "INSERT INTO defaults () VALUES ()"], "MINIMAL"),
        ],
    )
    .await;
}

#[tokio::test]
async fn what_is_not_in_the_log_as_rows_is_a_gap_mariadb() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let load = loads(&file);
    let undone = "INSERT INTO scratch VALUES (3, 'never')";
    are_gaps(
        Version::MariaDb1011,
        &[
            (
                &["SET SESSION binlog_format = STATEMENT", "UPDATE scratch SET value = 'y'"],
                "statement format",
            ),
            (&["SET SESSION binlog_format = STATEMENT", &load], "statement format"),
            (
                &[
                    "BEGIN",
                    "INSERT INTO scratch VALUES (2, 'stays')",
                    "SAVEPOINT a",
                    undone,
                    "CREATE TEMPORARY TABLE passing (a int)",
                    "ROLLBACK TO a",
                    "COMMIT",
                ],
                "savepoint a",
            ),
            (
                &[
                    "BEGIN",
                    "INSERT INTO scratch VALUES (4, 'stays')",
                    "SAVEPOINT `b b`",
                    undone,
                    "INSERT INTO flat VALUES (1)",
                    "ROLLBACK TO `b b`",
                    "COMMIT",
                ],
                "savepoint b b",
            ),
        ],
    )
    .await;
}
