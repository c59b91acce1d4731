//! Changes of a MySQL or MariaDB database become the events of its stream: each once, in order, whatever breaks.

use crate::support::{
    eventually,
    gateway::{Gateway, Settings},
    mysql::{MySql, PASSWORD, Version},
    mysql_shop::{MySqlShop, is_mark, mark, write},
    proxy::{Flow, Proxy},
    stream::{self, Event},
};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

const STREAM: &str = "EVENTS_shop";

async fn streams(version: Version, change: impl FnOnce(&mut Settings)) {
    let Some(shop) = MySqlShop::open(version).await else { return };
    let mut settings = shop.settings();
    change(&mut settings);
    let mut gateway = Gateway::start(&settings).await;
    write(&shop.server, 42, 4, 100).join_all().await;
    shop.server.execute(&["TRUNCATE scratch", "INSERT INTO scratch VALUES (1, 'x')"]).await;
    let events = shop.assert_faithful().await;
    let verbs: BTreeSet<&str> = events.iter().map(|event| event.data.op.as_str()).collect();
    assert_eq!(verbs.into_iter().collect::<Vec<_>>(), ["created", "deleted", "truncated", "updated"]);
    assert!(events.iter().any(|event| event.data.rekeyed), "no key changed");
    for event in &events {
        assert!(event.attribute("type").starts_with("shop."), "{event:?}");
        assert_eq!(event.subject.split('.').nth(2), Some(event.data.table.trim_start_matches("shop.")));
        assert!(!event.attribute("time").is_empty() && !event.attribute("txid").is_empty(), "{event:?}");
    }
    let status = gateway.status().await.to_string();
    assert_eq!(gateway.terminate(), Some(0));
    assert!(!gateway.log().contains(PASSWORD) && !status.contains(PASSWORD), "the password was told");
}

#[tokio::test]
async fn mysql_becomes_events() {
    streams(Version::MySql97, |_| {}).await;
}

#[tokio::test]
async fn mariadb_10_11_becomes_events() {
    streams(Version::MariaDb1011, |_| {}).await;
}

#[tokio::test]
async fn mariadb_11_8_becomes_events() {
    streams(Version::MariaDb118, |settings| settings.nats_lines.push_str("mode = \"binary\"\n")).await;
}

/// Kills the gateway again and again while others write.
async fn survives_kills(version: Version, settings: &[&str]) {
    let Some(shop) = MySqlShop::with(version, settings).await else { return };
    let mut gateway = shop.gateway().await;
    for round in 0..4 {
        let writers = write(&shop.server, 100 + round, 2, 150);
        tokio::time::sleep(Duration::from_millis(300 + 170 * round)).await;
        gateway.kill9();
        gateway.launch();
        writers.join_all().await;
    }
    gateway.is_ready().await;
    shop.within_a_large_transaction().await;
    gateway.kill9();
    gateway.start_again().await;
    shop.assert_faithful().await;
}

#[tokio::test]
async fn kills_of_the_gateway_add_and_lose_nothing_mysql() {
    survives_kills(Version::MySql97, &[]).await;
}

#[tokio::test]
async fn kills_of_the_gateway_add_and_lose_nothing_compressed() {
    survives_kills(Version::MySql97, &["--binlog-transaction-compression=ON"]).await;
}

#[tokio::test]
async fn kills_of_the_gateway_add_and_lose_nothing_mariadb() {
    survives_kills(Version::MariaDb118, &["--log-bin-compress=ON", "--log-bin-compress-min-len=10"]).await;
}

/// Without GTIDs a source goes on by file and position.
#[tokio::test]
async fn goes_on_by_place_without_gtids() {
    survives_kills(Version::MySql97, &["--gtid-mode=OFF", "--enforce-gtid-consistency=OFF"]).await;
}

async fn survives_the_server(version: Version) {
    let Some(mut shop) = MySqlShop::open(version).await else { return };
    let proxy = Proxy::start(shop.server.port()).await;
    let mut gateway = Gateway::start(&shop.settings_at(proxy.port())).await;
    let writers = write(&shop.server, 7, 2, 400);
    for _ in 0..2 {
        tokio::time::sleep(Duration::from_millis(400)).await;
        proxy.drop_connections();
    }
    // A network that says nothing: only the missing heartbeats tell.
    proxy.set(Flow::CUT);
    tokio::time::sleep(Duration::from_secs(1)).await;
    shop.server.kill9();
    shop.server.start_again().await;
    eventually("the silence is noticed", Duration::from_secs(30), || async {
        if gateway.says_ready().await { Err("still ready".to_owned()) } else { Ok(()) }
    })
    .await;
    proxy.set(Flow::WHOLE);
    writers.join_all().await;
    gateway.is_ready().await;
    write(&shop.server, 8, 2, 50).join_all().await;
    shop.assert_faithful().await;
}

#[tokio::test]
async fn a_crash_and_a_silent_network_add_and_lose_nothing_mysql() {
    survives_the_server(Version::MySql97).await;
}

#[tokio::test]
async fn a_crash_and_a_silent_network_add_and_lose_nothing_mariadb() {
    survives_the_server(Version::MariaDb1011).await;
}

/// The replica takes over while the stream ends somewhere within what the old server wrote.
async fn fails_over(version: Version) {
    let Some(mut shop) = MySqlShop::open(version).await else { return };
    let replica = MySql::start_as(2, version, &[]).await;
    replica.follow(&shop.server).await;
    let proxy = Proxy::start(shop.server.port()).await;
    // Nothing is released for long: what the stream holds has to be read from the stream.
    let settings =
        Settings { nats_lines: "confirm_delay = \"60s\"\n".to_owned(), ..shop.settings_at(proxy.port()) };
    let mut gateway = Gateway::start(&settings).await;
    write(&shop.server, 11, 3, 200).join_all().await;
    let told = mark(&shop.server).await;
    stream::read_until(&shop.nats, STREAM, Duration::from_secs(60), |event| is_mark(event, &told)).await;
    shop.within_a_large_transaction().await;
    gateway.kill9();
    write(&shop.server, 12, 3, 100).join_all().await;
    let last = mark(&shop.server).await;
    eventually("the replica has it all", Duration::from_secs(60), || async {
        let mut session = replica.session().await;
        let sql =
            "SELECT COUNT(*) FROM information_schema.tables WHERE table_schema='shop' AND table_name='marks'";
        let there: Option<u32> = mysql_async::prelude::Queryable::query_first(&mut session, sql)
            .await
            .map_err(|e| e.to_string())?;
        if there != Some(1) {
            return Err("no table".to_owned());
        }
        let sql = format!("SELECT COUNT(*) FROM marks WHERE id = {}", last.replace('"', "'"));
        let count: Option<u32> = mysql_async::prelude::Queryable::query_first(&mut session, sql)
            .await
            .map_err(|e| e.to_string())?;
        if count == Some(1) { Ok(()) } else { Err("not yet".to_owned()) }
    })
    .await;
    shop.server.kill9();
    let stop = if version == Version::MySql97 { "STOP REPLICA" } else { "STOP SLAVE" };
    replica.execute(&[stop]).await;
    drop(gateway);
    let replaced = Settings { source: replica.url(), ..settings };
    let mut gateway = Gateway::start(&replaced).await;
    write(&replica, 13, 2, 50).join_all().await;
    let events = shop.assert_faithful_to(&replica).await;
    let epochs: BTreeSet<&str> = events.iter().filter_map(|event| event.attribute("id").get(..4)).collect();
    assert_eq!(epochs.into_iter().collect::<Vec<_>>(), ["0001", "0002"], "another server is another epoch");
    gateway.kill9();
    gateway.start_again().await;
    assert_eq!(shop.assert_faithful_to(&replica).await.len(), events.len() + 1);
}

#[tokio::test]
async fn a_replica_takes_over_mysql() {
    fails_over(Version::MySql97).await;
}

#[tokio::test]
async fn a_replica_takes_over_mariadb() {
    fails_over(Version::MariaDb118).await;
}

/// Rows of a distributed transaction are told when it is committed, and never when it is rolled back.
async fn distributed_transactions(version: Version) {
    use mysql_async::prelude::Queryable as _;
    let Some(shop) = MySqlShop::open(version).await else { return };
    let mut gateway = shop.gateway().await;
    let mut session = shop.server.session().await;
    for (name, id) in [("kept", 1), ("dropped", 2), ("later", 3)] {
        for statement in [
            format!("XA START '{name}'"),
            format!("INSERT INTO scratch VALUES ({id}, '{name}')"),
            format!("XA END '{name}'"),
            format!("XA PREPARE '{name}'"),
        ] {
            session.query_drop(statement).await.unwrap();
        }
        // MariaDB ends a prepared transaction in its own session alone, until that is gone.
        drop(std::mem::replace(&mut session, shop.server.session().await));
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    session.query_drop("XA ROLLBACK 'dropped'").await.unwrap();
    session.query_drop("XA COMMIT 'kept'").await.unwrap();
    for statement in [
        "XA START 'at once'",
        "INSERT INTO scratch VALUES (4, 'x')",
        "XA END 'at once'",
        "XA COMMIT 'at once' ONE PHASE",
    ] {
        session.query_drop(statement).await.unwrap();
    }
    let seen = mark(&shop.server).await;
    let told =
        stream::read_until(&shop.nats, STREAM, Duration::from_secs(30), |event| is_mark(event, &seen)).await;
    let ids: Vec<String> = told
        .iter()
        .filter(|event| event.data.table == "shop.scratch")
        .map(|event| event.data.key.as_ref().unwrap()["id"].clone())
        .collect();
    assert_eq!(ids, ["1", "4"], "what is prepared is not committed");
    gateway.kill9();
    gateway.start_again().await;
    session.query_drop("XA COMMIT 'later'").await.unwrap();
    shop.assert_faithful().await;
}

#[tokio::test]
async fn distributed_transactions_are_told_when_committed_mysql() {
    distributed_transactions(Version::MySql97).await;
}

#[tokio::test]
async fn distributed_transactions_are_told_when_committed_mariadb() {
    distributed_transactions(Version::MariaDb1011).await;
}

/// A comment of the application's and the statement itself come with the events of its rows.
async fn gives_its_trace_and_its_text(version: Version) {
    let Some(shop) = MySqlShop::open(version).await else { return };
    let mut settings = shop.settings();
    settings.source_lines.push_str("query = true\n");
    let _gateway = Gateway::start(&settings).await;
    let trace = "00-5bd66ef5095369c7b0d1f8f4bd33716a-c532cb4098ac3dd2-01";
    let statement =
        format!("INSERT INTO scratch VALUES (1, 'x') /*traceparent='{trace}',tracestate='a%3Db'*/");
    shop.server.execute(&[&statement]).await;
    let events = shop.assert_faithful().await;
    assert_eq!(events[0].attribute("traceparent"), trace);
    assert_eq!(events[0].attribute("tracestate"), "a=b");
    assert_eq!(events[0].attribute("query"), statement);
}

#[tokio::test]
async fn a_statement_gives_its_trace_and_its_text_mysql() {
    gives_its_trace_and_its_text(Version::MySql97).await;
}

#[tokio::test]
async fn a_statement_gives_its_trace_and_its_text_mariadb() {
    gives_its_trace_and_its_text(Version::MariaDb1011).await;
    gives_its_trace_and_its_text(Version::MariaDb118).await;
}

/// Where the log has changes of documents instead of documents, the event has the documents, and says where they changed.
#[tokio::test]
async fn a_changed_document_says_where() {
    let Some(shop) = MySqlShop::open(Version::MySql97).await else { return };
    let gateway = shop.gateway().await;
    shop.server
        .execute(&[
            "CREATE TABLE papers (id int PRIMARY KEY, one json, other json)",
            r#"INSERT INTO papers VALUES (1, '{"a": {"b\\"c": 1}, "list": [1, 2, 3]}', '{}')"#,
            "SET SESSION binlog_row_value_options = PARTIAL_JSON",
            r#"UPDATE papers SET one = JSON_REMOVE(JSON_SET(one, '$.a."b\\"c"', 2), '$.list[0]')"#,
            "UPDATE papers SET other = NULL",
        ])
        .await;
    let count = shop.assert_faithful().await.len().to_string();
    let tail = ["tail", "shop", "--from", "start", "--count", &count, "--json"];
    let output = gateway.command().args(tail).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let updated: Vec<Value> = std::str::from_utf8(&output.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .filter(|event| event["type"] == "shop.papers.updated")
        .map(|mut event| event["data"].take())
        .collect();
    assert_eq!(updated.len(), 2);
    assert_eq!(updated[0]["after"]["one"], json!({ "a": { "b\"c": 2 }, "list": [2, 3] }));
    assert_eq!(updated[0]["changed"], json!(["one"]));
    assert_eq!(updated[0]["paths"], json!({ "one": ["$.a.\"b\\\"c\"", "$.list[0]"] }));
    assert_eq!(updated[1].get("paths"), None);
}

/// A statement is logged in the character set of its client, rows are not.
#[tokio::test]
async fn a_name_in_another_character_set_is_the_table() {
    use mysql_async::prelude::Queryable as _;
    for version in [Version::MySql97, Version::MariaDb1011] {
        let Some(shop) = MySqlShop::open(version).await else { continue };
        let mut gateway = shop.gateway().await;
        let tables = ["größen", "表"];
        for table in tables {
            let create = format!("CREATE TABLE `{table}` (id int PRIMARY KEY)");
            shop.server.execute(&[&create, &format!("INSERT INTO `{table}` VALUES (1)")]).await;
        }
        let mut session = shop.server.session().await;
        for statement in [
            &b"SET NAMES latin1"[..],
            b"TRUNCATE `gr\xf6\xdfen`",
            b"SET NAMES sjis",
            // The second byte of this character is a backslash in ASCII.
            b"TRUNCATE `\x95\x5c`",
        ] {
            session.query_drop(statement).await.unwrap();
        }
        let last = mark(&shop.server).await;
        let events =
            stream::read_until(&shop.nats, STREAM, Duration::from_secs(30), |event| is_mark(event, &last))
                .await;
        let truncated: Vec<&str> = events
            .iter()
            .filter(|event| event.data.op == "truncated")
            .map(|event| event.data.table.as_str())
            .collect();
        assert_eq!(truncated, tables.map(|table| format!("shop.{table}")), "{version:?}");
        assert_eq!(gateway.terminate(), Some(0));
    }
}

/// Where tables have small letters only, a statement may write others.
#[tokio::test]
async fn a_name_in_other_letters_is_the_table() {
    let Some(shop) = MySqlShop::with(Version::MariaDb1011, &["--lower-case-table-names=1"]).await else {
        return;
    };
    let mut gateway = shop.gateway().await;
    shop.server
        .execute(&["INSERT INTO SCRATCH VALUES (1, 'x')", "TRUNCATE Scratch", "USE SHOP", "TRUNCATE SCRATCH"])
        .await;
    let last = mark(&shop.server).await;
    let events =
        stream::read_until(&shop.nats, STREAM, Duration::from_secs(30), |event| is_mark(event, &last)).await;
    let told: Vec<_> = events.iter().map(|event| (&*event.data.op, &*event.data.table)).take(3).collect();
    let truncated = ("truncated", "shop.scratch");
    assert_eq!(told, [("created", "shop.scratch"), truncated, truncated]);
    assert_eq!(gateway.terminate(), Some(0));
}

/// Tables that change their shape, copies of online schema changes, and a rename in the end.
#[tokio::test]
async fn shapes_change_under_way() {
    for version in [Version::MySql97, Version::MariaDb118] {
        let Some(shop) = MySqlShop::open(version).await else { continue };
        let mut gateway = shop.gateway().await;
        shop.server
            .execute(&[
                "INSERT INTO scratch VALUES (1, 'before')",
                "ALTER TABLE scratch ADD COLUMN more int unsigned DEFAULT 7 FIRST",
                "UPDATE scratch SET value = 'after' WHERE id = 1",
                "CREATE TABLE _scratch_gho LIKE scratch",
                "ALTER TABLE _scratch_gho DROP COLUMN more",
                "INSERT INTO _scratch_gho SELECT id, value FROM scratch",
                "RENAME TABLE scratch TO _scratch_del, _scratch_gho TO scratch",
                "DROP TABLE _scratch_del",
                "INSERT INTO scratch VALUES (2, 'swapped')",
                "CREATE TABLE copied AS SELECT 5 AS id",
            ])
            .await;
        let last = mark(&shop.server).await;
        let events =
            stream::read_until(&shop.nats, STREAM, Duration::from_secs(30), |event| is_mark(event, &last))
                .await;
        let told: Vec<(String, String)> = events
            .iter()
            .map(|event| (event.data.op.clone(), event.data.table.clone()))
            .filter(|(_, table)| table != "shop.marks")
            .collect();
        let scratch = |op: &str| (op.to_owned(), "shop.scratch".to_owned());
        assert_eq!(
            told,
            [
                scratch("created"),
                scratch("schema"),
                scratch("updated"),
                scratch("schema"),
                scratch("created"),
                ("created".to_owned(), "shop.copied".to_owned())
            ]
        );
        assert!(events[2].data.after.as_ref().unwrap().contains_key("more"));
        assert!(!events[4].data.after.as_ref().unwrap().contains_key("more"));
        assert_eq!(gateway.terminate(), Some(0));
    }
}

#[tokio::test]
async fn check_says_what_is_wrong() {
    let settings = ["--binlog-row-image=MINIMAL", "--binlog-row-metadata=MINIMAL", "--expire-logs-days=0"];
    let Some(shop) = MySqlShop::with(Version::MariaDb1011, &settings).await else { return };
    shop.server.execute(&["CREATE TABLE keyless (a int)"]).await;
    let gateway = Gateway::configure(&shop.settings());
    let output = gateway.command().args(["check", "--json"]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let answer: Value = serde_json::from_str(&text).unwrap();
    let warned: BTreeSet<&str> = answer["findings"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|finding| finding["scope"] == "shop" && finding["severity"] == "warning")
        .map(|finding| finding["subject"].as_str().unwrap())
        .collect();
    let expected = ["binlog_row_image", "binlog_row_metadata", "key of shop.keyless", "retention"];
    assert_eq!(warned.into_iter().collect::<Vec<_>>(), expected, "{text}");
    assert!(!text.contains(PASSWORD));
}

/// The second of two gateways waits, and takes over.
#[tokio::test]
async fn one_gateway_reads_at_a_time() {
    let Some(shop) = MySqlShop::open(Version::MariaDb118).await else { return };
    let mut first = shop.gateway().await;
    let mut second = Gateway::configure(&shop.settings());
    second.launch();
    eventually("the second stands by", Duration::from_secs(30), || async {
        let status = second.status().await;
        if status["sources"][0]["state"] == "standby" { Ok(()) } else { Err(status.to_string()) }
    })
    .await;
    let writers = write(&shop.server, 31, 2, 100);
    tokio::time::sleep(Duration::from_millis(300)).await;
    first.kill9();
    writers.join_all().await;
    shop.assert_faithful().await;
}

/// Tables without transactions: what was written stays, also where its statement fails or is rolled back.
async fn without_transactions(version: Version, engine: &str) {
    let Some(shop) = MySqlShop::open(version).await else { return };
    shop.server
        .execute(&[
            &format!("CREATE TABLE flat (id int PRIMARY KEY, body text) ENGINE={engine}"),
            "INSERT INTO flat VALUES (1, 'early')",
        ])
        .await;
    let settings = Settings { snapshot: "initial", ..shop.settings() };
    let mut gateway = Gateway::start(&settings).await;
    shop.server
        .execute(&[
            "INSERT INTO flat VALUES (2, 'b'), (3, 'c'), (4, 'd')",
            "UPDATE flat SET body = 'ö', id = id + 10 WHERE id > 2",
            "DELETE FROM flat WHERE id = 2",
            "INSERT INTO scratch VALUES (1, 'x')",
        ])
        .await;
    gateway.kill9();
    gateway.start_again().await;
    let mut session = shop.server.session().await;
    use mysql_async::prelude::Queryable as _;
    let failed = session.query_drop("INSERT INTO flat VALUES (5, 'stays'), (1, 'twice'), (6, 'never')").await;
    assert!(failed.is_err());
    for statement in [
        "BEGIN",
        "INSERT INTO flat VALUES (7, 'stays')",
        "UPDATE flat SET body = 'too' WHERE id = 7",
        "ROLLBACK",
    ] {
        session.query_drop(statement).await.unwrap();
    }
    let events = shop.assert_faithful().await;
    let stays = |event: &&Event| event.data.table == "shop.flat" && event.data.op == "created";
    assert!(events.iter().filter(stays).count() >= 5, "{events:?}");
    shop.server.execute(&["TRUNCATE flat", "INSERT INTO flat VALUES (8, 'anew')"]).await;
    shop.assert_faithful().await;
    assert_eq!(gateway.terminate(), Some(0));
}

#[tokio::test]
async fn tables_without_transactions_are_told_mysql() {
    without_transactions(Version::MySql97, "MyISAM").await;
}

#[tokio::test]
async fn tables_without_transactions_are_told_mariadb() {
    without_transactions(Version::MariaDb118, "Aria").await;
    without_transactions(Version::MariaDb1011, "MyISAM").await;
}

/// The log of a system-versioned table holds its history as rows; what is told is the table as it is at every moment.
#[tokio::test]
async fn history_is_not_told_as_rows_of_now() {
    for version in [Version::MariaDb1011, Version::MariaDb118] {
        for image in ["FULL", "MINIMAL"] {
            let Some(shop) = MySqlShop::with(version, &[&format!("--binlog-row-image={image}")]).await else {
                continue;
            };
            let declared = "s timestamp(6) GENERATED ALWAYS AS ROW START, e timestamp(6) GENERATED ALWAYS AS ROW END, \
                            PERIOD FOR SYSTEM_TIME (s, e)";
            let mut gateway = shop.gateway().await;
            for (table, more) in [("versioned", String::new()), ("declared", format!(", {declared}"))] {
                for statement in [
                    format!("CREATE TABLE {table} (id int PRIMARY KEY, a int{more}) WITH SYSTEM VERSIONING"),
                    format!("INSERT INTO {table} (id, a) VALUES (1, 1), (2, 2), (3, 3)"),
                    format!("UPDATE {table} SET a = a + 10"),
                    format!("UPDATE {table} SET id = 9 WHERE id = 3"),
                    format!("DELETE FROM {table} WHERE id = 2"),
                    format!("REPLACE INTO {table} (id, a) VALUES (1, 5)"),
                    format!("INSERT INTO {table} (id, a) VALUES (2, 6)"),
                    format!("DELETE HISTORY FROM {table} BEFORE SYSTEM_TIME NOW(6)"),
                ] {
                    shop.server.execute(&[&statement]).await;
                }
            }
            let last = mark(&shop.server).await;
            let events = stream::read_until(&shop.nats, STREAM, Duration::from_secs(30), |event| {
                is_mark(event, &last)
            })
            .await;
            for table in ["versioned", "declared"] {
                let name = format!("shop.{table}");
                let mut now = BTreeMap::new();
                for event in events.iter().filter(|event| event.data.table == name) {
                    let key = event.data.key.as_ref().unwrap();
                    assert_eq!(key.keys().collect::<Vec<_>>(), ["id"], "{event:?}");
                    let a = event.data.after.as_ref().map(|row| row.get("a").cloned().unwrap_or_default());
                    match event.data.op.as_str() {
                        "deleted" => drop(now.remove(&key["id"])),
                        "schema" => {}
                        _ => drop(now.insert(key["id"].clone(), a.unwrap())),
                    }
                }
                let rows: Vec<(&str, &str)> = now.iter().map(|(id, a)| (id.as_str(), a.as_str())).collect();
                // A minimal image need not have all of a row whose key changed.
                let moved = rows.last().filter(|_| image == "MINIMAL").map_or("13", |(_, a)| a);
                assert_eq!(rows, [("1", "5"), ("2", "6"), ("9", moved)], "{version:?} {image} {table}");
            }
            assert_eq!(gateway.terminate(), Some(0));
        }
    }
}
