//! What a snapshot reads is what the log tells of the same row: keys and values of every form, each row once.

use super::{STREAM, initial};
use crate::support::{
    gateway::Gateway,
    mysql::Version,
    mysql_shop::{MySqlShop, is_mark, mark},
    snapshots::{are_done, each_once},
    stream::{self, Event},
};
use mysql_async::prelude::Queryable as _;
use std::{collections::BTreeMap, time::Duration};

/// Keys whose order, equality or text is not the obvious one; and each table's rows as a value of `n`.
const KEYS: [(&str, &str, &str); 14] = [
    (
        "by_pair",
        "a varchar(9) CHARACTER SET latin1, b int, PRIMARY KEY (b, a)",
        "CONCAT('kä', n % 40), n DIV 40",
    ),
    (
        "by_text",
        "k varchar(60) CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci PRIMARY KEY",
        "ELT(1 + n % 6, CONCAT(CHAR(33 + n % 90), 'Ö', n), CONCAT('\\\\', n), CONCAT('a,b%', n), CONCAT('''', n, '\"'), CONCAT('tab\\t', n), CONCAT(_utf8mb4 x'f09f9880', n))",
    ),
    (
        "by_bin",
        "k varchar(20) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin PRIMARY KEY",
        "CONCAT(CHAR(33 + n % 90), n)",
    ),
    ("by_sjis", "k varchar(20) CHARACTER SET sjis PRIMARY KEY", "CONCAT(_utf8mb4 '表ソ', n)"),
    ("by_char", "k char(8) PRIMARY KEY", "CONCAT('c', n)"),
    ("by_bytes", "k binary(32) PRIMARY KEY", "UNHEX(SHA2(n, 256))"),
    ("by_zeros", "k binary(4) PRIMARY KEY", "UNHEX(CONCAT(LPAD(HEX(n), 4, '0'), '0000'))"),
    ("by_number", "k decimal(20,4) PRIMARY KEY", "(n - 150) * 1.5"),
    ("by_unsigned", "k bigint unsigned PRIMARY KEY", "18446744073709551615 - n"),
    ("by_float", "k float PRIMARY KEY", "(n - 150) / 7"),
    ("by_double", "k double PRIMARY KEY", "(n - 150) / 7e100"),
    (
        "by_time",
        "k datetime(6), t time(2), PRIMARY KEY (t, k)",
        "'2026-03-29' + INTERVAL n * 7 MINUTE + INTERVAL n MICROSECOND, SEC_TO_TIME((n - 150) * 9999.25)",
    ),
    (
        "by_stamp",
        "k timestamp(3) NOT NULL DEFAULT '2000-01-01', e enum('z','größer','a') NOT NULL, s set('x','it''s'), PRIMARY KEY (e, k)",
        "FROM_UNIXTIME(n * 1000.125), 1 + n % 3, n % 4",
    ),
    (
        "by_index",
        "v varchar(9), k int NOT NULL, f bit(12) NOT NULL, y year NOT NULL, UNIQUE (y, f)",
        "'v', n, n, 1950 + n % 100",
    ),
];

/// Compares rows that were written again with what the snapshot read: the same but for the verb. How many there were.
fn told_alike(events: &[Event]) -> usize {
    let mut compared = 0;
    let mut read: BTreeMap<(&str, String), &Event> = BTreeMap::new();
    for event in events {
        let name = (event.data.table.as_str(), format!("{:?}", event.data.key));
        match event.data.op.as_str() {
            "snapshot" => drop(read.insert(name, event)),
            "created" if event.data.table != "shop.marks" => {
                let snapshot = read.get(&name).unwrap_or_else(|| panic!("no snapshot of {event:?}"));
                assert_eq!(snapshot.data.after, event.data.after);
                for attribute in ["dataschema", "subject", "partitionkey"] {
                    assert_eq!(snapshot.attribute(attribute), event.attribute(attribute), "{attribute}");
                }
                compared += 1;
            }
            _ => {}
        }
    }
    compared
}

async fn keys_of_all_kinds(version: Version) {
    let Some(shop) = MySqlShop::open(version).await else { return };
    shop.server.execute(&["DROP TABLE orders, order_lines, documents, scratch"]).await;
    let mut tables: Vec<String> = KEYS.iter().map(|(table, ..)| (*table).to_owned()).collect();
    let mut create = Vec::new();
    for (table, columns, values) in KEYS {
        create.push(format!("CREATE TABLE {table} ({columns})"));
        create.push(format!(
            "INSERT INTO {table} WITH RECURSIVE c AS (SELECT 1 n UNION ALL SELECT n + 1 FROM c WHERE n < 300) SELECT {values} FROM c"
        ));
    }
    create.push(
        "CREATE TABLE `By Quote``d` (`the Key` int PRIMARY KEY, twice int AS (`the Key` * 2) STORED)"
            .to_owned(),
    );
    create.push("INSERT INTO `By Quote``d` (`the Key`) WITH RECURSIVE c AS (SELECT 1 n UNION ALL SELECT n + 1 FROM c WHERE n < 300) SELECT n FROM c".to_owned());
    tables.push("By Quote`d".to_owned());
    if version == Version::MariaDb118 {
        create.push("CREATE TABLE by_uuid (k uuid PRIMARY KEY, i inet6)".to_owned());
        create.push("INSERT INTO by_uuid WITH RECURSIVE c AS (SELECT 1 n UNION ALL SELECT n + 1 FROM c WHERE n < 300) SELECT UUID(), '::1' FROM c".to_owned());
        tables.push("by_uuid".to_owned());
    }
    let statements: Vec<&str> = create.iter().map(String::as_str).collect();
    shop.server.execute(&statements).await;
    let mut gateway = Gateway::start(&initial(&shop, "snapshot_rate = 20000\n")).await;
    are_done(&gateway, 1).await;
    let events = stream::read(&shop.nats, STREAM).await;
    for table in &tables {
        each_once(&events, &format!("shop.{table}"), 300);
    }
    // The log tells each row as the snapshot did: written again, it is the same but for the verb.
    let mut rewrite = Vec::new();
    for table in &tables {
        let quoted = table.replace('`', "``");
        rewrite.push(format!("CREATE TEMPORARY TABLE copy AS SELECT * FROM `{quoted}`"));
        rewrite.push(format!("DELETE FROM `{quoted}`"));
        let columns = if quoted.contains(' ') { " (`the Key`) SELECT `the Key`" } else { " SELECT *" };
        rewrite.push(format!("INSERT INTO `{quoted}`{columns} FROM copy"));
        rewrite.push("DROP TEMPORARY TABLE copy".to_owned());
    }
    let mut session = shop.server.session().await;
    for statement in &rewrite {
        session.query_drop(statement).await.unwrap();
    }
    let last = mark(&shop.server).await;
    let events =
        stream::read_until(&shop.nats, STREAM, Duration::from_secs(60), |event| is_mark(event, &last)).await;
    assert_eq!(told_alike(&events), 300 * tables.len());
    assert_eq!(gateway.terminate(), Some(0));
}

#[tokio::test]
async fn keys_of_all_kinds_are_walked_once_mysql() {
    keys_of_all_kinds(Version::MySql97).await;
}

#[tokio::test]
async fn keys_of_all_kinds_are_walked_once_mariadb() {
    keys_of_all_kinds(Version::MariaDb118).await;
}

/// Times as servers of old stored them, whose digits the log does not tell, and labels whose character set is none.
async fn values_of_an_unusual_form(version: Version, server: &[&str]) {
    let Some(shop) = MySqlShop::with(version, server).await else { return };
    shop.server
        .execute(&[
            "DROP TABLE orders, order_lines, documents, scratch",
            "CREATE TABLE labels (id int PRIMARY KEY, e enum('so','größer') CHARACTER SET binary, s set('a','b') CHARACTER SET binary)",
            "INSERT INTO labels VALUES (1, 'so', 'a'), (2, 'größer', 'a,b'), (3, NULL, '')",
            "CREATE TABLE times (id int PRIMARY KEY, t0 time, t1 time(1), t2 time(2), t3 time(3), t4 time(4), t5 time(5), t6 time(6), \
             d0 datetime, d1 datetime(1), d2 datetime(2), d3 datetime(3), d4 datetime(4), d5 datetime(5), d6 datetime(6), \
             s0 timestamp NULL, s1 timestamp(1) NULL, s2 timestamp(2) NULL, s3 timestamp(3) NULL, s4 timestamp(4) NULL, \
             s5 timestamp(5) NULL, s6 timestamp(6) NULL)",
        ])
        .await;
    let moments = [
        ("-838:59:59", "0000-00-00 00:00:00", "0000-00-00 00:00:00"),
        ("838:59:59", "9999-12-31 23:59:59", "2038-01-19 03:14:07"),
        ("-00:00:00.987654", "2026-11-22 14:06:07.123456", "2026-11-22 14:06:07.123456"),
        ("00:00:01.000001", "1000-01-01 00:00:00.000001", "1970-01-01 00:00:01.000001"),
    ];
    let mut insert = vec!["SET SESSION sql_mode = 'ALLOW_INVALID_DATES', time_zone = '+00:00'".to_owned()];
    for (id, (time, date, stamp)) in moments.iter().enumerate() {
        let seven = |text: &str| vec![format!("'{text}'"); 7].join(",");
        insert.push(format!(
            "INSERT INTO times VALUES ({id}, {}, {}, {})",
            seven(time),
            seven(date),
            seven(stamp)
        ));
    }
    let insert: Vec<&str> = insert.iter().map(String::as_str).collect();
    shop.server.execute(&insert).await;
    let mut gateway = Gateway::start(&initial(&shop, "")).await;
    are_done(&gateway, 1).await;
    let again = [
        "DELETE FROM labels",
        "INSERT INTO labels VALUES (1, 'so', 'a'), (2, 'größer', 'a,b'), (3, NULL, '')",
    ];
    shop.server.execute(&[&again[..], &["DELETE FROM times"], &insert[..]].concat()).await;
    let last = mark(&shop.server).await;
    let events =
        stream::read_until(&shop.nats, STREAM, Duration::from_secs(60), |event| is_mark(event, &last)).await;
    assert_eq!(told_alike(&events), 3 + moments.len());
    let row = |table: &str, id: &str| {
        let is = |event: &&Event| {
            event.data.table == table
                && event.data.op == "created"
                && event.data.key.as_ref().is_some_and(|key| key["id"] == id)
        };
        events.iter().find(is).unwrap().data.after.clone().unwrap()
    };
    let labels = row("shop.labels", "2");
    assert_eq!((labels["e"].as_str(), labels["s"].as_str()), ("\"größer\"", "[\"a\",\"b\"]"));
    let times = row("shop.times", "2");
    assert_eq!(times["t6"], "\"-00:00:00.987654\"");
    assert_eq!(times["d3"], "\"2026-11-22T14:06:07.123\"");
    assert_eq!(times["s3"], "\"2026-11-22T14:06:07.123Z\"");
    assert_eq!(gateway.terminate(), Some(0));
}

#[tokio::test]
async fn values_of_an_unusual_form_mysql() {
    values_of_an_unusual_form(Version::MySql97, &[]).await;
}

#[tokio::test]
async fn values_of_an_unusual_form_mariadb() {
    values_of_an_unusual_form(Version::MariaDb1011, &["--mysql56-temporal-format=OFF"]).await;
}

/// No catalog shows characters beyond the Basic Multilingual Plane; the labels of rows have them all the same.
#[tokio::test]
async fn labels_that_no_catalog_shows_are_told() {
    for version in [Version::MySql97, Version::MariaDb1011] {
        let Some(shop) = MySqlShop::open(version).await else { continue };
        let charset = "CHARACTER SET utf8mb4 COLLATE utf8mb4_bin";
        shop.server
            .execute(&[
                "DROP TABLE orders, order_lines, documents, scratch",
                &format!(
                    "CREATE TABLE moods (id int PRIMARY KEY, e enum('😀','🦀','?') {charset}, s set('so','😀') {charset})"
                ),
                "INSERT INTO moods VALUES (1, '🦀', 'so,😀'), (2, '?', ''), (3, NULL, NULL)",
            ])
            .await;
        let mut gateway = Gateway::start(&initial(&shop, "")).await;
        are_done(&gateway, 1).await;
        let rows: Vec<_> = stream::read(&shop.nats, STREAM)
            .await
            .into_iter()
            .filter(|event| event.data.table == "shop.moods")
            .map(|event| event.data.after.unwrap())
            .map(|row| (row["e"].clone(), row["s"].clone()))
            .collect();
        let told = [("\"🦀\"", "[\"so\",\"😀\"]"), ("\"?\"", "[]"), ("null", "null")];
        assert_eq!(rows, told.map(|(e, s)| (e.to_owned(), s.to_owned())), "{version:?}");
        assert_eq!(gateway.terminate(), Some(0));
    }
}
