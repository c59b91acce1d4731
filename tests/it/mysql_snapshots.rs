//! Rows of MySQL and MariaDB that were there before are told in the stream, and the stream gives the tables exactly.

mod values;

use crate::support::{
    eventually,
    gateway::{Gateway, Settings},
    mysql::{MySql, Version},
    mysql_shop::{MySqlShop, is_mark, mark, write},
    proxy::Proxy,
    snapshots::{are_done, ask, each_once, listed, told},
    stream::{self, Event},
};
use mysql_async::prelude::Queryable as _;
use std::{collections::BTreeSet, time::Duration};
use tokio::time::sleep;

const STREAM: &str = "EVENTS_shop";

/// Settings with an initial snapshot, and more lines of the source.
fn initial(shop: &MySqlShop, lines: &str) -> Settings {
    let settings = shop.settings();
    let source_lines = format!("{}{lines}", settings.source_lines);
    Settings { snapshot: "initial", source_lines, ..settings }
}

/// A table that nobody writes to, large enough to be read in many chunks.
async fn archive(server: &MySql, rows: usize) {
    server
        .execute(&["CREATE TABLE archive (id int PRIMARY KEY, body varchar(100) CHARACTER SET latin1)"])
        .await;
    let values: Vec<String> = (1..=rows).map(|id| format!("({id}, 'größe {id}')")).collect();
    for values in values.chunks(5_000) {
        server.execute(&[&format!("INSERT INTO archive VALUES {}", values.join(","))]).await;
    }
}

async fn initial_under_writes(version: Version, server: &[&str]) {
    let Some(shop) = MySqlShop::with(version, server).await else { return };
    write(&shop.server, 3, 3, 200).join_all().await;
    archive(&shop.server, 3_000).await;
    // Not so quick that the writers have no time to interfere.
    let writing = write(&shop.server, 4, 3, 700);
    let mut gateway = Gateway::start(&initial(&shop, "snapshot_rate = 2000\n")).await;
    are_done(&gateway, 1).await;
    writing.join_all().await;
    let events = shop.assert_faithful().await;
    each_once(&events, "shop.archive", 3_000);
    let tables: BTreeSet<&str> = events
        .iter()
        .filter(|event| event.data.op == "snapshot")
        .map(|event| event.data.table.as_str())
        .collect();
    for table in ["shop.orders", "shop.order_lines"] {
        assert!(tables.contains(table), "{table} is not among {tables:?}");
    }
    let event = events.iter().find(|event| event.data.table == "shop.archive").unwrap();
    assert_eq!(event.attribute("type"), "shop.archive.snapshot");
    assert_eq!((event.attribute("txid"), event.attribute("txindex")), ("", ""));
    assert_eq!(event.data.after.as_ref().unwrap()["body"].to_string(), "\"größe 1\"");
    assert!(event.data.before.is_none() && event.data.unavailable.is_empty());
    assert_eq!(gateway.terminate(), Some(0));
}

#[tokio::test]
async fn what_was_there_is_told_while_others_write_mysql() {
    initial_under_writes(Version::MySql97, &[]).await;
}

#[tokio::test]
async fn what_was_there_is_told_while_others_write_without_gtids() {
    initial_under_writes(Version::MySql97, &["--gtid-mode=OFF", "--enforce-gtid-consistency=OFF"]).await;
}

#[tokio::test]
async fn what_was_there_is_told_while_others_write_minimal() {
    initial_under_writes(Version::MySql97, &["--binlog-row-image=MINIMAL"]).await;
}

#[tokio::test]
async fn what_was_there_is_told_while_others_write_mariadb_10_11() {
    initial_under_writes(Version::MariaDb1011, &[]).await;
}

#[tokio::test]
async fn what_was_there_is_told_while_others_write_mariadb_11_8() {
    initial_under_writes(Version::MariaDb118, &[]).await;
}

async fn goes_on_after_kills(version: Version) {
    let Some(shop) = MySqlShop::open(version).await else { return };
    archive(&shop.server, 20_000).await;
    let writing = write(&shop.server, 22, 2, 1500);
    let mut gateway = Gateway::start(&initial(&shop, "snapshot_rate = 8000\n")).await;
    for round in 0..4 {
        sleep(Duration::from_millis(300 + 170 * round)).await;
        gateway.kill9();
        gateway.start_again().await;
    }
    are_done(&gateway, 1).await;
    writing.join_all().await;
    each_once(&shop.assert_faithful().await, "shop.archive", 20_000);
}

#[tokio::test]
async fn a_killed_gateway_goes_on_behind_the_last_row_mysql() {
    goes_on_after_kills(Version::MySql97).await;
}

#[tokio::test]
async fn a_killed_gateway_goes_on_behind_the_last_row_mariadb() {
    goes_on_after_kills(Version::MariaDb118).await;
}

/// Nothing but the snapshot happens: the server's log stands still, also over a restart in the middle.
#[tokio::test]
async fn an_idle_database_is_told_too() {
    for version in [Version::MySql97, Version::MariaDb1011] {
        let Some(shop) = MySqlShop::open(version).await else { continue };
        archive(&shop.server, 6_000).await;
        shop.server.execute(&["FLUSH LOGS"]).await;
        let mut gateway = Gateway::start(&initial(&shop, "snapshot_rate = 4000\n")).await;
        let begun = || async {
            let rows = told(&stream::read(&shop.nats, STREAM).await, "shop.archive").len();
            if rows > 300 { Ok(()) } else { Err(rows.to_string()) }
        };
        eventually("the snapshot has begun", Duration::from_secs(30), begun).await;
        gateway.kill9();
        gateway.start_again().await;
        are_done(&gateway, 1).await;
        each_once(&shop.assert_faithful().await, "shop.archive", 6_000);
        assert_eq!(gateway.terminate(), Some(0));
    }
}

#[tokio::test]
async fn somebody_asks_for_a_table_or_a_part_of_one() {
    for version in [Version::MySql97, Version::MariaDb118] {
        let Some(shop) = MySqlShop::open(version).await else { continue };
        archive(&shop.server, 2_000).await;
        let gateway = shop.gateway().await;
        let (code, answer, error) = ask(&gateway, &["archive", "--where", "id % 100 = 7 -- some"]);
        assert_eq!((code, &answer["rows"]), (Some(0), &20.into()), "{answer} {error}");
        let (code, answer, _) = ask(&gateway, &["shop.archive"]);
        assert_eq!((code, &answer["rows"]), (Some(0), &2_000.into()), "{answer}");
        let events = shop.assert_faithful().await;
        assert_eq!(told(&events, "shop.archive").values().sum::<usize>(), 2_020);
        for (arguments, what) in [
            (&["nothing"][..], "no table nothing"),
            (&["archive", "orders", "--where", "true"], "one table"),
            (&["archive", "--where", "nonsense = 1"], "nonsense"),
            (&["archive", "--where", "true); DROP TABLE archive; SELECT (true"], "condition"),
            // In the parentheses of a chunk it would be read from the beginning again and again.
            (&["archive", "--where", "id > 0) OR (false"], "condition"),
        ] {
            let (code, _, error) = ask(&gateway, arguments);
            assert_eq!(code, Some(64), "{error}");
            assert!(error.contains(what), "{error}");
        }
    }
}

#[tokio::test]
async fn tables_that_come_later_are_told_too() {
    let Some(shop) = MySqlShop::open(Version::MariaDb1011).await else { return };
    let mut gateway = Gateway::start(&initial(&shop, "")).await;
    are_done(&gateway, 1).await;
    archive(&shop.server, 500).await;
    are_done(&gateway, 2).await;
    each_once(&shop.assert_faithful().await, "shop.archive", 500);
    assert_eq!(gateway.terminate(), Some(0));
}

#[tokio::test]
async fn a_table_without_a_key_is_read_as_a_whole() {
    for version in [Version::MySql97, Version::MariaDb118] {
        let Some(shop) = MySqlShop::open(version).await else { continue };
        shop.server.execute(&["CREATE TABLE loose (a int, body text)"]).await;
        let values: Vec<String> = (0..2_000).map(|n| format!("({n}, REPEAT('y', 3000))")).collect();
        shop.server.execute(&[&format!("INSERT INTO loose VALUES {}", values.join(","))]).await;
        let mut gateway = Gateway::start(&initial(&shop, "")).await;
        // Another snapshot in the middle of it.
        shop.server.execute(&["INSERT INTO scratch VALUES (1, 'new')"]).await;
        assert_eq!(ask(&gateway, &["scratch"]).0, Some(0));
        are_done(&gateway, 2).await;
        let events = stream::read(&shop.nats, STREAM).await;
        let rows: BTreeSet<String> = events
            .iter()
            .filter(|event| event.data.table == "shop.loose")
            .map(|event| event.data.after.as_ref().unwrap()["a"].to_string())
            .collect();
        assert_eq!(rows.len(), 2_000);
        assert_eq!(gateway.terminate(), Some(0));
    }
}

#[tokio::test]
async fn a_shape_that_changes_and_a_table_that_goes_end_well() {
    for version in [Version::MySql97, Version::MariaDb1011] {
        let Some(shop) = MySqlShop::open(version).await else { continue };
        archive(&shop.server, 6_000).await;
        shop.server
            .execute(&[
                "CREATE TABLE doomed (id int PRIMARY KEY)",
                "INSERT INTO doomed SELECT id FROM archive",
            ])
            .await;
        let mut gateway = Gateway::start(&initial(&shop, "snapshot_rate = 3000\n")).await;
        let begun = || async {
            let rows = told(&stream::read(&shop.nats, STREAM).await, "shop.archive").len();
            if rows > 300 { Ok(()) } else { Err(rows.to_string()) }
        };
        eventually("the snapshot has begun", Duration::from_secs(30), begun).await;
        shop.server
            .execute(&[
                "ALTER TABLE archive ADD extra int DEFAULT 7",
                "UPDATE archive SET extra = 8 WHERE id % 1000 = 1",
                "ALTER TABLE archive DROP body",
                "DROP TABLE doomed",
            ])
            .await;
        are_done(&gateway, 1).await;
        let events = stream::read(&shop.nats, STREAM).await;
        each_once(&events, "shop.archive", 6_000);
        let last = events
            .iter()
            .rfind(|event| event.data.op == "snapshot" && event.data.table == "shop.archive")
            .unwrap();
        let columns: Vec<&String> = last.data.after.as_ref().unwrap().keys().collect();
        assert_eq!(columns, ["extra", "id"]);
        assert_eq!(gateway.terminate(), Some(0));
    }
}

#[tokio::test]
async fn after_a_gap_everything_is_read_again() {
    for version in [Version::MySql97, Version::MariaDb118] {
        let Some(shop) = MySqlShop::open(version).await else { continue };
        archive(&shop.server, 500).await;
        let settings = shop.settings();
        let source_lines = format!("{}on_gap = \"snapshot\"\n", settings.source_lines);
        let mut gateway = Gateway::start(&Settings { source_lines, ..settings }).await;
        let seen = mark(&shop.server).await;
        stream::read_until(&shop.nats, STREAM, Duration::from_secs(30), |event| is_mark(event, &seen)).await;
        assert_eq!(gateway.terminate(), Some(0));
        shop.server
            .execute(&[
                "UPDATE archive SET body = 'unseen' WHERE id <= 10",
                "FLUSH BINARY LOGS",
                "DO SLEEP(1.1)",
                "PURGE BINARY LOGS BEFORE NOW()",
            ])
            .await;
        let checked = gateway.command().args(["check", "--json"]).output().unwrap();
        let checked: serde_json::Value = serde_json::from_slice(&checked.stdout).unwrap();
        let mut findings = checked["findings"].as_array().unwrap().iter();
        let history = findings.find(|finding| finding["subject"] == "history").expect("a finding");
        assert_eq!(history["severity"], "warning", "{history}");
        gateway.start_again().await;
        are_done(&gateway, 1).await;
        let events = stream::read(&shop.nats, STREAM).await;
        let gap =
            events.iter().position(|event| event.data.op == "gap").expect("it says that history is lost");
        each_once(&events[gap..], "shop.archive", 500);
        let unseen = |event: &&Event| {
            let body = event.data.after.as_ref().and_then(|row| row.get("body"));
            body.is_some_and(|body| body == "\"unseen\"")
        };
        assert_eq!(events.iter().filter(unseen).count(), 10);
        assert_eq!(gateway.terminate(), Some(0));
    }
}

/// A replica is the source, while what it replicates is written.
#[tokio::test]
async fn a_replica_tells_what_was_there() {
    for version in [Version::MySql97, Version::MariaDb118] {
        let Some(shop) = MySqlShop::open(version).await else { continue };
        let replica = MySql::start_as(2, version, &[]).await;
        write(&shop.server, 7, 2, 100).join_all().await;
        archive(&shop.server, 3_000).await;
        replica.follow(&shop.server).await;
        eventually("the replica has begun", Duration::from_secs(60), || async {
            let count: Result<Option<u32>, _> =
                replica.session().await.query_first("SELECT COUNT(*) FROM archive").await;
            if count.as_ref().is_ok_and(|count| *count == Some(3_000)) {
                Ok(())
            } else {
                Err(format!("{count:?}"))
            }
        })
        .await;
        let writing = write(&shop.server, 8, 2, 300);
        let settings = initial(&shop, "snapshot_rate = 2000\n");
        let mut gateway = Gateway::start(&Settings { source: replica.url(), ..settings }).await;
        are_done(&gateway, 1).await;
        writing.join_all().await;
        let last = mark(&shop.server).await;
        let events =
            stream::read_until(&shop.nats, STREAM, Duration::from_secs(60), |event| is_mark(event, &last))
                .await;
        each_once(&events, "shop.archive", 3_000);
        shop.assert_faithful().await;
        assert_eq!(gateway.terminate(), Some(0));
    }
}

/// What keeps the first snapshot from going on, and what to do.
async fn trouble(gateway: &Gateway) -> (String, String) {
    eventually("the snapshot tells its trouble", Duration::from_secs(30), || async {
        let all = listed(gateway).await;
        let text = |key: &str| all[0][key].as_str().map(str::to_owned);
        text("error").zip(text("fix")).ok_or_else(|| format!("{all:?}"))
    })
    .await
}

async fn has_begun(shop: &MySqlShop, table: &str) {
    eventually("the snapshot has begun", Duration::from_secs(30), || async {
        let rows = told(&stream::read(&shop.nats, STREAM).await, table).len();
        if rows > 100 { Ok(()) } else { Err(rows.to_string()) }
    })
    .await;
}

/// A condition names a column that is dropped meanwhile.
#[tokio::test]
async fn a_condition_that_fits_no_more_is_told_and_waits() {
    for version in [Version::MySql97, Version::MariaDb1011] {
        let Some(shop) = MySqlShop::open(version).await else { continue };
        archive(&shop.server, 3_000).await;
        shop.server.execute(&["ALTER TABLE archive ADD extra int"]).await;
        let settings = shop.settings();
        let source_lines = format!("{}snapshot_rate = 2000\n", settings.source_lines);
        let mut gateway = Gateway::start(&Settings { source_lines, ..settings }).await;
        assert_eq!(ask(&gateway, &["archive", "--where", "extra IS NULL", "--detach"]).0, Some(0));
        has_begun(&shop, "shop.archive").await;
        shop.server.execute(&["ALTER TABLE archive DROP extra"]).await;
        let (error, fix) = trouble(&gateway).await;
        assert!(error.contains("shop.archive") && error.contains("extra"), "{error}");
        assert!(fix.contains("condition"), "{fix}");
        shop.server.execute(&["ALTER TABLE archive ADD extra int"]).await;
        are_done(&gateway, 1).await;
        each_once(&stream::read(&shop.nats, STREAM).await, "shop.archive", 3_000);
        assert_eq!(gateway.terminate(), Some(0));
    }
}

/// The index of the key that is walked is hidden from queries meanwhile. MySQL lets a session see it all the same.
#[tokio::test]
async fn an_index_that_is_hidden_is_walked_or_told() {
    for version in [Version::MySql97, Version::MariaDb1011] {
        let Some(shop) = MySqlShop::open(version).await else { continue };
        archive(&shop.server, 3_000).await;
        // The key is the first of two by name, and not the one by which the table is kept.
        shop.server
            .execute(&[
                "CREATE TABLE indexed (id int NOT NULL, other int NOT NULL, UNIQUE KEY z (other), UNIQUE KEY a (id))",
                "INSERT INTO indexed SELECT id, -id FROM archive",
                "DROP TABLE archive",
            ])
            .await;
        let mut gateway = Gateway::start(&initial(&shop, "snapshot_rate = 2000\n")).await;
        has_begun(&shop, "shop.indexed").await;
        let hide = if version == Version::MySql97 { "INVISIBLE" } else { "IGNORED" };
        shop.server.execute(&[&format!("ALTER TABLE indexed ALTER INDEX a {hide}")]).await;
        if version != Version::MySql97 {
            let (error, fix) = trouble(&gateway).await;
            assert!(error.contains("shop.indexed"), "{error}");
            shop.server.execute(&[&fix]).await;
        }
        are_done(&gateway, 1).await;
        each_once(&stream::read(&shop.nats, STREAM).await, "shop.indexed", 3_000);
        assert_eq!(gateway.terminate(), Some(0));
    }
}

/// Rows that are lost on the way are not waited for; those that take the server long are.
async fn waits_as_long_as_the_server_works(version: Version, table: &str, columns: &str) {
    let Some(shop) = MySqlShop::open(version).await else { return };
    let (create, fill) = (
        format!("CREATE TABLE {table} ({columns})"),
        format!(
            "INSERT INTO {table} WITH RECURSIVE c AS (SELECT 1 n UNION ALL SELECT n + 1 FROM c WHERE n < 200) SELECT n FROM c"
        ),
    );
    shop.server.execute(&[&create, &fill]).await;
    let proxy = Proxy::start(shop.server.port()).await;
    let settings = shop.settings();
    let source = format!("{}?ssl-mode=disabled", shop.server.url_at(proxy.port()));
    let source_lines = "heartbeat = \"1s\"\nconnect_timeout = \"1s\"\n".to_owned();
    let mut gateway = Gateway::start(&Settings { source, source_lines, ..settings }).await;
    proxy.swallow(&format!("FROM `shop`.`{table}`"));
    let (code, answer, error) = ask(&gateway, &[table]);
    assert!(proxy.has_swallowed());
    assert_eq!((code, &answer["rows"]), (Some(0), &200.into()), "{answer} {error}");
    assert!(gateway.log().contains("has nothing more to say"), "{}", gateway.log());
    // Longer than the source's patience of three seconds, and the servers say nothing until the end.
    let (code, answer, error) = ask(&gateway, &[table, "--where", "n > 0 AND SLEEP(0.02) = 0"]);
    assert_eq!((code, &answer["rows"]), (Some(0), &200.into()), "{answer} {error}");
    assert_eq!(gateway.terminate(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_were_lost_are_not_waited_for_mysql() {
    waits_as_long_as_the_server_works(Version::MySql97, "keyed", "n int PRIMARY KEY").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_were_lost_are_not_waited_for_mariadb() {
    waits_as_long_as_the_server_works(Version::MariaDb118, "loose", "n int").await;
}
