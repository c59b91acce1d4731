//! Rows that were there before are told in the stream, between the changes, and the stream gives the tables exactly.

use crate::support::{
    eventually,
    gateway::Settings,
    nats::Nats,
    postgres::{PASSWORD, Version},
    proxy::{Flow, Proxy},
    shop::{STREAM, Shop},
    snapshots::{are_done, ask, each_once, listed, told},
    stream::{self, Event},
    workload::{self, Load},
};
use serde_json::Value;
use std::{collections::BTreeSet, time::Duration};
use tokio::time::sleep;

/// Settings with an initial snapshot, and more lines of the source.
pub(super) fn initial(shop: &Shop, lines: &str) -> Settings {
    Settings { snapshot: "initial", source_lines: lines.to_owned(), ..shop.settings() }
}

/// A table that nobody writes to, large enough to be read in many chunks.
pub(super) async fn archive(shop: &Shop, rows: usize) {
    shop.postgres
        .execute(&format!(
            "CREATE TABLE archive (id integer PRIMARY KEY, body text);
             INSERT INTO archive SELECT n, repeat('x', 20) || n FROM generate_series(1, {rows}) n"
        ))
        .await;
}

async fn initial_under_writes(version: Version, lines: &str) {
    let shop = Shop::with(version, Nats::start().await).await;
    workload::start(&Load::new(shop.postgres.url(), 11)).finish().await;
    archive(&shop, 3_000).await;
    // Not so quick that the writers have no time to interfere.
    let writing = workload::start(&Load::steady(shop.postgres.url(), 12));
    let mut settings = initial(&shop, "snapshot_rate = 2000\n");
    settings.nats_lines = lines.to_owned();
    let mut gateway = shop.gateway_with(&settings).await;
    are_done(&gateway, 1).await;
    writing.stop().await;
    let events = shop.assert_faithful().await;
    each_once(&events, "public.archive", 3_000);
    let tables: BTreeSet<&str> = events
        .iter()
        .filter(|event| event.data.op == "snapshot")
        .map(|event| event.data.table.as_str())
        .collect();
    // The others may have been truncated meanwhile.
    for table in ["public.orders", "public.documents", "public.labels"] {
        assert!(tables.contains(table), "{table} is not among {tables:?}");
    }
    let event = events.iter().find(|event| event.data.table == "public.archive").unwrap();
    assert_eq!(event.attribute("type"), "shop.archive.snapshot");
    assert_eq!((event.attribute("txid"), event.attribute("txindex")), ("", ""));
    assert!(
        event.data.before.is_none()
            && event.data.unavailable.is_empty()
            && !event.attribute("time").is_empty()
    );
    assert_eq!(gateway.terminate(), Some(0));
}

#[tokio::test]
async fn what_was_there_is_told_while_others_write_15() {
    initial_under_writes(Version::Pg15, "").await;
}

#[tokio::test]
async fn what_was_there_is_told_while_others_write_18() {
    initial_under_writes(Version::Pg18, "").await;
}

#[tokio::test]
async fn binary_mode_and_atomic_batches_tell_it_too() {
    initial_under_writes(Version::Pg18, "mode = \"binary\"\npublish = \"atomic\"\n").await;
}

#[tokio::test]
async fn a_killed_gateway_goes_on_behind_the_last_row() {
    let shop = Shop::open().await;
    workload::start(&Load::new(shop.postgres.url(), 21)).finish().await;
    archive(&shop, 20_000).await;
    let writing = workload::start(&Load::steady(shop.postgres.url(), 22));
    let mut gateway = shop.gateway_with(&initial(&shop, "snapshot_rate = 8000\n")).await;
    for round in 0..5 {
        sleep(Duration::from_millis(300 + 170 * round)).await;
        gateway.kill9();
        gateway.start_again().await;
    }
    eventually("the snapshot is done", Duration::from_secs(60), || async {
        let rows = told(&stream::read(&shop.nats, STREAM).await, "public.archive").len();
        if rows == 20_000 { Ok(()) } else { Err(rows.to_string()) }
    })
    .await;
    are_done(&gateway, 1).await;
    writing.stop().await;
    let events = shop.assert_faithful().await;
    each_once(&events, "public.archive", 20_000);
    let rows = events.iter().filter(|event| event.data.op == "snapshot").count();
    assert_eq!(listed(&gateway).await[0]["rows"], rows, "what all the runs told");
}

#[tokio::test]
async fn a_killed_broker_and_a_killed_database_lose_and_repeat_nothing() {
    let mut shop = Shop::open().await;
    archive(&shop, 20_000).await;
    let gateway = shop.gateway_with(&initial(&shop, "snapshot_rate = 8000\n")).await;
    let writing = workload::start(&Load::steady(shop.postgres.url(), 32));
    sleep(Duration::from_millis(500)).await;
    shop.nats.kill9(0);
    sleep(Duration::from_millis(300)).await;
    shop.nats.start_again(0).await;
    sleep(Duration::from_millis(700)).await;
    shop.postgres.kill9();
    shop.postgres.start_again().await;
    are_done(&gateway, 1).await;
    writing.stop().await;
    each_once(&shop.assert_faithful().await, "public.archive", 20_000);
}

#[tokio::test]
async fn somebody_asks_for_a_table_or_a_part_of_one() {
    let shop = Shop::open().await;
    archive(&shop, 2_000).await;
    let gateway = shop.gateway().await;
    let (code, answer, _) = ask(&gateway, &["archive", "--where", "id % 100 = 7 -- some"]);
    assert_eq!((code, &answer["rows"], &answer["state"]), (Some(0), &20.into(), &"done".into()), "{answer}");
    let (code, answer, _) = ask(&gateway, &["public.archive"]);
    assert_eq!(
        (code, &answer["rows"], &answer["expected"]),
        (Some(0), &2_000.into(), &Value::Null),
        "{answer}"
    );
    let events = shop.assert_faithful().await;
    assert_eq!(told(&events, "public.archive").values().sum::<usize>(), 2_020);
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
    let unknown = gateway.command().args(["snapshot", "elsewhere"]).output().unwrap();
    assert_eq!(unknown.status.code(), Some(64));
}

#[tokio::test]
async fn a_small_snapshot_does_not_wait_for_a_large_one() {
    let shop = Shop::open().await;
    archive(&shop, 100_000).await;
    shop.postgres
        .execute("INSERT INTO orders (id, status) SELECT n, 'new' FROM generate_series(1, 50) n")
        .await;
    let mut gateway = shop.gateway_with(&initial(&shop, "snapshot_rate = 4000\n")).await;
    let (code, answer, _) = ask(&gateway, &["orders"]);
    assert_eq!((code, &answer["rows"]), (Some(0), &50.into()), "{answer}");
    let large = listed(&gateway).await.into_iter().find(|job| job["reason"] == "initial").unwrap();
    assert_eq!(large["state"], "running", "{large}");
    assert_eq!(gateway.terminate(), Some(0));
}

#[tokio::test]
async fn tables_that_join_later_are_told_too() {
    let shop = Shop::open().await;
    let mut gateway = shop.gateway_with(&initial(&shop, "")).await;
    // A writer that began before the table was published, and ends after.
    shop.postgres.execute("CREATE TABLE late (id integer PRIMARY KEY, value text)").await;
    let client = shop.postgres.client().await;
    client
        .batch_execute("BEGIN; INSERT INTO late SELECT n, 'early' FROM generate_series(1, 500) n")
        .await
        .unwrap();
    let publishes = || async {
        let row = shop.postgres.client().await;
        let row =
            row.query_one("SELECT count(*) FROM pg_publication_tables WHERE tablename = 'late'", &[]).await;
        if row.unwrap().get::<_, i64>(0) == 1 { Ok(()) } else { Err("not yet".to_owned()) }
    };
    eventually("the table is published", Duration::from_secs(30), publishes).await;
    sleep(Duration::from_millis(500)).await;
    client.batch_execute("COMMIT; UPDATE late SET value = 'later' WHERE id < 100").await.unwrap();
    are_done(&gateway, 1).await;
    eventually("the rows are told", Duration::from_secs(30), || async {
        let rows = told(&stream::read(&shop.nats, STREAM).await, "public.late").len();
        if rows == 500 { Ok(()) } else { Err(rows.to_string()) }
    })
    .await;
    shop.assert_faithful().await;
    // A restart knows it.
    assert_eq!(gateway.terminate(), Some(0));
    gateway.start_again().await;
    sleep(Duration::from_secs(1)).await;
    each_once(&shop.assert_faithful().await, "public.late", 500);
}

/// Keys whose order, equality or text is not the obvious one.
const KEYS: &str = "
CREATE TYPE mood AS ENUM ('so-so', 'bad', 'good');
CREATE TABLE by_pair (a text COLLATE \"C\", b integer, PRIMARY KEY (b, a));
INSERT INTO by_pair SELECT 'k' || n % 40, n / 40 FROM generate_series(1, 300) n;
CREATE TABLE by_text (k text PRIMARY KEY);
INSERT INTO by_text SELECT chr(33 + n % 90) || chr(200 + n) || n FROM generate_series(1, 300) n;
INSERT INTO by_text VALUES (''), (' '), ('a,b'), ('100%'), (E'\\\\ back'), (E'tab\\tnew\\nline'), ('''quoted'''), ('+!;:/'), ('\u{1F600}');
CREATE TABLE by_uuid (k uuid PRIMARY KEY);
INSERT INTO by_uuid SELECT gen_random_uuid() FROM generate_series(1, 300);
CREATE TABLE by_number (k numeric PRIMARY KEY);
INSERT INTO by_number SELECT (n - 150) * 1.50 FROM generate_series(1, 300) n;
INSERT INTO by_number VALUES ('NaN'), ('Infinity'), ('-Infinity'), (1e40), (0.00000001);
CREATE TABLE by_float (k double precision PRIMARY KEY);
INSERT INTO by_float SELECT (n - 150) / 7.0 FROM generate_series(1, 300) n;
INSERT INTO by_float VALUES ('NaN'), ('Infinity'), ('-Infinity'), (1e300);
CREATE TABLE by_time (k timestamptz PRIMARY KEY);
INSERT INTO by_time SELECT TIMESTAMPTZ '2026-03-29 00:00+00' + n * INTERVAL '7 min 0.000001 s' FROM generate_series(1, 300) n;
INSERT INTO by_time VALUES ('infinity'), ('-infinity'), ('0044-03-15 12:00 BC');
CREATE TABLE by_mood (k mood, n integer, PRIMARY KEY (k, n));
INSERT INTO by_mood SELECT (ENUM_RANGE(NULL::mood))[1 + n % 3], n FROM generate_series(1, 300) n;
CREATE TABLE by_char (k char(8) PRIMARY KEY);
INSERT INTO by_char SELECT 'c' || n FROM generate_series(1, 300) n;
CREATE TABLE by_bytes (k bytea PRIMARY KEY);
INSERT INTO by_bytes SELECT decode(md5(n::text), 'hex') FROM generate_series(1, 300) n;
CREATE TABLE by_date (k date PRIMARY KEY);
INSERT INTO by_date SELECT DATE '2026-01-01' + n FROM generate_series(1, 300) n;
INSERT INTO by_date VALUES ('infinity'), ('-infinity'), ('0044-03-15 BC');
CREATE TABLE by_span (k interval, n integer, PRIMARY KEY (k, n));
INSERT INTO by_span SELECT n % 50 * INTERVAL '-1 day 2.000003 s', n FROM generate_series(1, 300) n;
CREATE TABLE by_place (k inet PRIMARY KEY);
INSERT INTO by_place SELECT '10.0.0.0'::inet + n FROM generate_series(1, 300) n;
INSERT INTO by_place VALUES ('10.0.0.0/8'), ('::1');
CREATE TABLE by_list (k text[] PRIMARY KEY);
INSERT INTO by_list SELECT ARRAY['a,b\"' || n % 7, NULL, '{' || n] FROM generate_series(1, 300) n;
CREATE TABLE by_range (k int4range PRIMARY KEY);
INSERT INTO by_range SELECT int4range(n % 17, 20 + n) FROM generate_series(1, 300) n;
CREATE TABLE by_bits (k bit(12) PRIMARY KEY);
INSERT INTO by_bits SELECT n::bit(12) FROM generate_series(1, 300) n;
CREATE DOMAIN code AS varchar(20) CHECK (VALUE <> '');
CREATE TABLE by_domain (k code, b boolean, PRIMARY KEY (b, k));
INSERT INTO by_domain SELECT 'c' || n, n % 2 = 0 FROM generate_series(1, 300) n;
CREATE TABLE by_index (v text, k integer NOT NULL);
CREATE UNIQUE INDEX by_index_k ON by_index (k DESC);
ALTER TABLE by_index REPLICA IDENTITY USING INDEX by_index_k;
INSERT INTO by_index SELECT 'v', n FROM generate_series(1, 300) n;
CREATE TABLE \"By Quote\"\"d\" (\"the Key\" integer PRIMARY KEY, twice integer GENERATED ALWAYS AS (\"the Key\" * 2) STORED);
INSERT INTO \"By Quote\"\"d\" SELECT n FROM generate_series(1, 300) n;
CREATE TABLE by_part (id integer, region text, PRIMARY KEY (region, id)) PARTITION BY LIST (region);
CREATE TABLE by_part_eu PARTITION OF by_part FOR VALUES IN ('eu');
CREATE TABLE by_part_us PARTITION OF by_part FOR VALUES IN ('us');
INSERT INTO by_part SELECT n, CASE WHEN n % 2 = 0 THEN 'eu' ELSE 'us' END FROM generate_series(1, 300) n;
";

/// Keys in an order that only ICU knows, one of them where different texts are equal.
const KEYS_OF_ICU: &str = "
CREATE COLLATION numbers (provider = icu, locale = 'en-u-kn-true');
CREATE COLLATION no_case (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
CREATE TABLE by_german (k text COLLATE \"de-x-icu\" PRIMARY KEY);
INSERT INTO by_german SELECT (ARRAY['\u{e4}', 'A', 'z', '-', '\u{df}'])[1 + n % 5] || n FROM generate_series(1, 300) n;
CREATE TABLE by_numbers (k text COLLATE numbers, n text COLLATE \"C\", PRIMARY KEY (n, k));
INSERT INTO by_numbers SELECT 'v' || n, 'x' || n % 3 FROM generate_series(1, 300) n;
CREATE TABLE by_no_case (k text COLLATE no_case PRIMARY KEY);
INSERT INTO by_no_case SELECT CASE WHEN n % 2 = 0 THEN 'Row ' ELSE 'rOW ' END || n FROM generate_series(1, 300) n;
CREATE EXTENSION citext;
CREATE TABLE by_citext (k citext PRIMARY KEY);
INSERT INTO by_citext SELECT CASE WHEN n % 2 = 0 THEN 'Row ' ELSE 'rOW ' END || n FROM generate_series(1, 300) n;
";

async fn keys_of_all_kinds_are_walked_once(version: Version) {
    let shop = Shop::with(version, Nats::start().await).await;
    shop.postgres.execute("DROP TABLE orders, order_lines, documents, labels, scratch").await;
    shop.postgres.execute(KEYS).await;
    // The other build does not know ICU.
    if version == Version::Pg15 {
        shop.postgres.execute(KEYS_OF_ICU).await;
    }
    let mut gateway = shop.gateway_with(&initial(&shop, "snapshot_rate = 20000\n")).await;
    are_done(&gateway, 1).await;
    let client = shop.postgres.client().await;
    let events = stream::read(&shop.nats, STREAM).await;
    let tables = "SELECT relname::text FROM pg_class WHERE relnamespace = 'public'::regnamespace \
                  AND relkind IN ('r', 'p') AND NOT relispartition AND relname ILIKE 'by%'";
    let tables = client.query(tables, &[]).await.unwrap();
    assert!(tables.len() >= 19, "{tables:?}");
    for table in &tables {
        let table: &str = table.get(0);
        let quoted = table.replace('"', "\"\"");
        let count = client.query_one(&format!("SELECT count(*) FROM \"{quoted}\""), &[]).await.unwrap();
        each_once(&events, &format!("public.{table}"), count.get::<_, i64>(0) as usize);
    }
    // The log tells a row as the snapshot did.
    for statement in [
        "UPDATE by_index SET v = 'v' WHERE k = 7",
        "UPDATE \"By Quote\"\"d\" SET \"the Key\" = 7 WHERE \"the Key\" = 7",
        "UPDATE by_number SET k = k WHERE k = 'NaN'",
        "UPDATE by_part SET id = id WHERE id = 8",
    ] {
        shop.postgres.execute(statement).await;
    }
    workload::mark(&client).await;
    eventually("the updates are told", Duration::from_secs(30), || async {
        let events = stream::read(&shop.nats, STREAM).await;
        if events.last().is_some_and(|event| event.data.table == "public.marks") {
            Ok(())
        } else {
            Err(String::new())
        }
    })
    .await;
    let events = stream::read(&shop.nats, STREAM).await;
    let updated: Vec<&Event> = events.iter().filter(|event| event.data.op == "updated").collect();
    assert_eq!(updated.len(), 4);
    assert!(!events.iter().any(|event| event.data.op == "schema"), "no table changed its shape");
    for update in updated {
        let read = events.iter().find(|event| {
            event.data.op == "snapshot"
                && event.data.key == update.data.key
                && event.data.table == update.data.table
        });
        let read = read.unwrap_or_else(|| panic!("no snapshot of {update:?}"));
        assert_eq!(read.data.after, update.data.after);
        for name in ["dataschema", "subject", "partitionkey"] {
            assert_eq!(read.attribute(name), update.attribute(name), "{name}");
        }
    }
    assert_eq!(gateway.terminate(), Some(0));
}

#[tokio::test]
async fn keys_of_all_kinds_are_walked_once_15() {
    keys_of_all_kinds_are_walked_once(Version::Pg15).await;
}

#[tokio::test]
async fn keys_of_all_kinds_are_walked_once_18() {
    keys_of_all_kinds_are_walked_once(Version::Pg18).await;
}

#[tokio::test]
async fn a_table_without_a_key_is_read_as_a_whole() {
    let shop = Shop::open().await;
    shop.postgres
        .execute("CREATE TABLE loose (a integer, body text); INSERT INTO loose SELECT n % 1000, repeat('y', 2000) FROM generate_series(1, 6000) n")
        .await;
    let mut gateway = shop.gateway_with(&initial(&shop, "")).await;
    // Another snapshot in the middle of it.
    shop.postgres.execute("INSERT INTO orders (id, status) VALUES (1, 'new')").await;
    assert_eq!(ask(&gateway, &["orders"]).0, Some(0));
    are_done(&gateway, 2).await;
    let events = stream::read(&shop.nats, STREAM).await;
    let rows = events.iter().filter(|event| event.data.table == "public.loose").count();
    assert_eq!(rows, 6_000);
    // The same while others write: no row is left out, and the log tells each of theirs once.
    let mut command = gateway.command();
    command.args(["snapshot", "--json", "shop", "loose"]);
    let asked = tokio::task::spawn_blocking(move || command.output().unwrap());
    for n in 0..100 {
        shop.postgres.execute(&format!("INSERT INTO loose VALUES (100000 + {n}, 'new')")).await;
    }
    assert_eq!(asked.await.unwrap().status.code(), Some(0));
    let mark = workload::mark(&shop.postgres.client().await).await;
    let held = stream::read_until(&shop.nats, STREAM, Duration::from_secs(30), |event| {
        event.data.key.as_ref().is_some_and(|key| key.get("id") == Some(&mark))
    })
    .await;
    let loose: Vec<&Event> =
        held[events.len()..].iter().filter(|event| event.data.table == "public.loose").collect();
    let of = |op: &str| loose.iter().filter(|event| event.data.op == op).count();
    assert!(of("created") == 100 && (6_000..=6_100).contains(&of("snapshot")), "{}", of("snapshot"));
    let values: BTreeSet<&String> =
        loose.iter().map(|event| &event.data.after.as_ref().unwrap()["a"]).collect();
    assert_eq!(values.len(), 1_100);
    assert_eq!(gateway.terminate(), Some(0));
}

/// Who changes their mind gets the rows then, once.
#[tokio::test]
async fn never_may_become_initial() {
    let shop = Shop::open().await;
    archive(&shop, 500).await;
    let mut gateway = shop.gateway().await;
    shop.postgres.execute("UPDATE archive SET body = 'y' WHERE id < 10").await;
    assert_eq!(gateway.terminate(), Some(0));
    gateway.reconfigure(|text| text.replace("snapshot = \"never\"", "snapshot = \"initial\""));
    for _ in 0..2 {
        gateway.start_again().await;
        eventually("the rows are told", Duration::from_secs(30), || async {
            let rows = told(&stream::read(&shop.nats, STREAM).await, "public.archive").len();
            if rows == 500 { Ok(()) } else { Err(rows.to_string()) }
        })
        .await;
        each_once(&shop.assert_faithful().await, "public.archive", 500);
        assert_eq!(gateway.terminate(), Some(0));
    }
}

#[tokio::test]
async fn a_shape_that_changes_and_a_table_that_goes_end_well() {
    let shop = Shop::open().await;
    archive(&shop, 6_000).await;
    shop.postgres.execute("CREATE TABLE doomed (id integer PRIMARY KEY); INSERT INTO doomed SELECT generate_series(1, 6000)").await;
    let mut gateway = shop.gateway_with(&initial(&shop, "snapshot_rate = 3000\n")).await;
    let begun = || async {
        let rows = told(&stream::read(&shop.nats, STREAM).await, "public.archive").len();
        if rows > 300 { Ok(()) } else { Err(rows.to_string()) }
    };
    eventually("the snapshot has begun", Duration::from_secs(30), begun).await;
    shop.postgres
        .execute("ALTER TABLE archive ADD extra integer DEFAULT 7; UPDATE archive SET extra = 8 WHERE id % 1000 = 1; ALTER TABLE archive DROP body; DROP TABLE doomed")
        .await;
    are_done(&gateway, 1).await;
    let events = stream::read(&shop.nats, STREAM).await;
    each_once(&events, "public.archive", 6_000);
    let last = events
        .iter()
        .rfind(|event| event.data.op == "snapshot" && event.data.table == "public.archive")
        .unwrap();
    let columns: Vec<&String> = last.data.after.as_ref().unwrap().keys().collect();
    assert_eq!(columns, ["extra", "id"]);
    let shapes =
        events.iter().filter(|event| event.data.op == "schema" && event.data.table == "public.archive");
    assert_eq!(shapes.count(), 2, "a shape comes and goes once, whoever tells the rows");
    assert_eq!(gateway.terminate(), Some(0));
}

#[tokio::test]
async fn a_table_that_may_not_be_read_waits_for_the_grant() {
    let shop = Shop::open().await;
    archive(&shop, 100).await;
    shop.postgres
        .execute(&format!("CREATE ROLE reader LOGIN REPLICATION PASSWORD '{PASSWORD}'; CREATE PUBLICATION given FOR TABLE archive, marks"))
        .await;
    let mut settings = initial(&shop, "publication = \"given\"\n");
    settings.source = settings.source.replacen("postgres://postgres", "postgres://reader", 1);
    let mut gateway = shop.gateway_with(&settings).await;
    eventually("it says what is missing", Duration::from_secs(30), || async {
        let all = listed(&gateway).await;
        let fix = all.first().map(|job| job["fix"].to_string()).unwrap_or_default();
        if fix.contains("GRANT SELECT ON public.archive TO reader") {
            Ok(())
        } else {
            Err(format!("{all:?}"))
        }
    })
    .await;
    assert!(gateway.says_ready().await, "the changes go on");
    let (code, _, error) = ask(&gateway, &["marks"]);
    assert_eq!(code, Some(69), "{error}");
    shop.postgres.execute("GRANT SELECT ON archive, marks TO reader").await;
    eventually("it is done", Duration::from_secs(30), || async {
        let all = listed(&gateway).await;
        if all.iter().any(|job| job["reason"] == "initial" && job["state"] == "done") {
            Ok(())
        } else {
            Err(format!("{all:?}"))
        }
    })
    .await;
    each_once(&stream::read(&shop.nats, STREAM).await, "public.archive", 100);
    assert_eq!(gateway.terminate(), Some(0));
}

#[tokio::test]
async fn after_a_gap_everything_is_read_again() {
    let shop = Shop::open().await;
    archive(&shop, 500).await;
    let settings = Settings { source_lines: "on_gap = \"snapshot\"\n".to_owned(), ..shop.settings() };
    let mut gateway = shop.gateway_with(&settings).await;
    workload::mark(&shop.postgres.client().await).await;
    eventually("the mark is told", Duration::from_secs(30), || async {
        let events = stream::read(&shop.nats, STREAM).await;
        if events.is_empty() { Err("no event".to_owned()) } else { Ok(()) }
    })
    .await;
    gateway.kill9();
    shop.postgres.execute("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots").await;
    shop.postgres.execute("UPDATE archive SET body = 'unseen' WHERE id <= 10").await;
    gateway.start_again().await;
    // Rows stand behind the word of the gap, so the log has to move on.
    workload::mark(&shop.postgres.client().await).await;
    are_done(&gateway, 1).await;
    let events = stream::read(&shop.nats, STREAM).await;
    let gap = events.iter().position(|event| event.data.op == "gap").expect("it says that history is lost");
    each_once(&events[gap..], "public.archive", 500);
    assert_eq!(gateway.terminate(), Some(0));
}

#[tokio::test]
async fn partitions_are_told_by_their_own_names() {
    for version in [Version::Pg15, Version::Pg18] {
        let shop = Shop::with(version, Nats::start().await).await;
        shop.postgres
            .execute(
                "CREATE TABLE stays (region text, id integer, PRIMARY KEY (region, id)) PARTITION BY LIST (region);
                 CREATE TABLE stays_eu PARTITION OF stays FOR VALUES IN ('eu', '');
                 CREATE TABLE stays_us PARTITION OF stays FOR VALUES IN ('us') PARTITION BY RANGE (id);
                 CREATE TABLE stays_us_1 PARTITION OF stays_us FOR VALUES FROM (0) TO (1000);
                 INSERT INTO stays SELECT (ARRAY['eu', 'us', ''])[1 + n % 3], n FROM generate_series(1, 900) n",
            )
            .await;
        let mut gateway = shop.gateway_with(&initial(&shop, "partition_root = false\n")).await;
        are_done(&gateway, 1).await;
        shop.postgres.execute("UPDATE stays SET id = id WHERE id = 1").await;
        workload::mark(&shop.postgres.client().await).await;
        let events = stream::read_until(&shop.nats, STREAM, Duration::from_secs(30), |event| {
            event.data.table == "public.marks" && event.data.op == "created"
        })
        .await;
        for (table, rows) in [("stays_eu", 600), ("stays_us_1", 300), ("stays_us", 0), ("stays", 0)] {
            each_once(&events, &format!("public.{table}"), rows);
        }
        let update = events.iter().find(|event| event.data.op == "updated").unwrap();
        assert_eq!(update.data.table, "public.stays_us_1");
        assert_eq!(gateway.terminate(), Some(0));
    }
}

/// What a killed gateway sent and the broker has not read yet belongs to a snapshot that the next run reads anew, with other
/// rows in other places: it must have come to an end before that run publishes.
#[tokio::test]
async fn bytes_of_a_killed_gateway_do_not_mix_with_the_next_runs() {
    let shop = Shop::open().await;
    archive(&shop, 2_500).await;
    let broker = shop.nats.port(0);
    let held_back = Proxy::start(broker).await;
    let mut settings = initial(&shop, "snapshot_rate = 2000\n");
    settings.nats = vec![format!("nats://127.0.0.1:{}", held_back.port())];
    // It shall not give up by itself.
    settings.nats_lines = "ack_timeout = \"60s\"\n".to_owned();
    let mut gateway = shop.gateway_with(&settings).await;
    let writing = workload::start(&Load::steady(shop.postgres.url(), 51));
    let end = async || {
        let stream = shop.nats.jetstream().await.get_stream(STREAM).await.unwrap();
        stream.get_info().await.unwrap().state.last_sequence
    };
    eventually("the snapshot is on its way", Duration::from_secs(20), || async {
        let sequence = end().await;
        if sequence > 500 { Ok(()) } else { Err(sequence.to_string()) }
    })
    .await;
    held_back.set(Flow::CUT);
    eventually("events are held back", Duration::from_secs(10), || async {
        let held = held_back.held();
        if held.contains("HPUB events.shop.") { Ok(()) } else { Err(held) }
    })
    .await;
    sleep(Duration::from_millis(500)).await;
    gateway.kill9();
    writing.stop().await;
    let found = end().await;
    // The next run is slow: it would still be among the sequences that the dead one gave to its messages.
    gateway.reconfigure(|text| {
        text.replace(&held_back.port().to_string(), &broker.to_string())
            .replace("_rate = 2000", "_rate = 500")
    });
    gateway.launch();
    eventually("the next run streams", Duration::from_secs(20), || async {
        let status = gateway.status().await["sources"][0].clone();
        if status["state"] == "streaming" { Ok(()) } else { Err(status.to_string()) }
    })
    .await;
    for _ in 0..20 {
        if end().await > found + 5 {
            break;
        }
        sleep(Duration::from_millis(50)).await;
    }
    let begun = end().await;
    held_back.set(Flow::WHOLE);
    are_done(&gateway, 1).await;
    each_once(&shop.assert_faithful().await, "public.archive", 2_500);
    assert_eq!(begun, found, "the next run published while bytes of the last one were under way");
}
