//! What should not be, and is: it gets a clear error or is kept apart, and everything else goes on.

use crate::support::{
    eventually,
    gateway::{Gateway, Settings},
    nats::Nats,
    oracle,
    postgres::{PASSWORD, Version, connect},
    shop::{SLOT, STREAM, Shop},
    stream::{self, Event},
    workload::{self, Load},
};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use std::time::Duration;
use tokio::io::AsyncReadExt as _;

/// The stream of what could not be an event.
const DEAD_LETTERS: &str = "EVENTS_dlq";

async fn stopped(gateway: &Gateway) -> Value {
    eventually("the source has stopped", Duration::from_secs(20), || async {
        let status = gateway.status().await;
        let source = status["sources"][0].clone();
        if source["state"] == "stopped" { Ok(source) } else { Err(status.to_string()) }
    })
    .await
}

/// The dead letters, as JSON.
async fn dead_letters(nats: &Nats, count: u64) -> Vec<Value> {
    let jetstream = nats.jetstream().await;
    let mut stream = eventually("dead letters", Duration::from_secs(20), || async {
        jetstream.get_stream(DEAD_LETTERS).await.map_err(|error| error.to_string())
    })
    .await;
    eventually("dead letters", Duration::from_secs(20), || async {
        let found = jetstream.get_stream(DEAD_LETTERS).await.map_err(|error| error.to_string())?;
        let found = found.cached_info().state.messages;
        if found >= count { Ok(()) } else { Err(format!("{found} of {count}")) }
    })
    .await;
    let last = stream.info().await.unwrap().state.last_sequence;
    assert_eq!(last, count, "dead letters");
    let mut letters = Vec::new();
    for sequence in 1..=last {
        let message = stream.get_raw_message(sequence).await.unwrap();
        letters.push(serde_json::from_slice(&message.payload).unwrap());
    }
    letters
}

#[tokio::test]
async fn wrong_password() {
    let shop = Shop::open().await;
    let mut settings = shop.settings();
    settings.source = settings.source.replace(PASSWORD, "not-the-password");
    let mut gateway = Gateway::configure(&settings);
    gateway.launch();
    let source = stopped(&gateway).await;
    assert!(source["last_error"].as_str().unwrap().contains("28P01"), "{source}");
    assert!(source["fix"].as_str().unwrap().contains("ALTER ROLE"), "{source}");
    assert!(!gateway.says_ready().await);
    let checked = gateway.command().arg("check").output().unwrap();
    assert_eq!(checked.status.code(), Some(69), "{checked:?}");
    assert_eq!(gateway.terminate(), Some(0));
    assert!(!gateway.log().contains("not-the-password"));
    shop.postgres.execute("ALTER ROLE postgres PASSWORD 'not-the-password'").await;
    gateway.start_again().await;
}

#[tokio::test]
async fn wrong_tables() {
    let shop = Shop::open().await;
    let check = |tables: &str| {
        let settings = Settings { source_lines: format!("tables = {tables}\n"), ..shop.settings() };
        let checked = Gateway::configure(&settings).command().arg("check").output().unwrap();
        let said = [checked.stdout, checked.stderr].concat();
        (checked.status.code(), String::from_utf8_lossy(&said).into_owned())
    };
    let (code, said) = check("[\"publc.*\"]");
    assert!(code == Some(69) && said.contains("publc.*"), "{code:?} {said}");
    let (code, said) = check("[\"!public.*\"]");
    assert!(code != Some(0), "{said}");
    let (code, said) = check("[\"public.orders\", \"public.order_*\"]");
    assert_eq!(code, Some(0), "{said}");
}

/// The gateway is away while a table is altered in every way and dropped: the log tells each row as it was written then.
async fn table_changes(version: Version) {
    let shop = Shop::with(version, Nats::start().await).await;
    shop.postgres.execute("CREATE TABLE things (id integer PRIMARY KEY, v text)").await;
    let mut gateway = shop.gateway().await;
    shop.postgres.execute("INSERT INTO things VALUES (1, 'one')").await;
    shop.assert_faithful().await;
    gateway.kill9();
    for statement in [
        "INSERT INTO things VALUES (2, 'two')",
        "ALTER TABLE things ADD COLUMN n integer DEFAULT 5",
        "INSERT INTO things VALUES (3, 'three')",
        "ALTER TABLE things RENAME COLUMN v TO w",
        "UPDATE things SET w = 'drei' WHERE id = 3",
        "ALTER TABLE things ALTER COLUMN n TYPE text",
        "INSERT INTO things VALUES (4, 'four', 'many')",
        "ALTER TABLE things DROP COLUMN w",
        "INSERT INTO things VALUES (5, 'more')",
        "CREATE TYPE mood AS ENUM ('glad', 'sad')",
        "ALTER TABLE things ADD COLUMN m mood",
        "INSERT INTO things VALUES (6, 'x', 'glad')",
        "ALTER TABLE things RENAME TO stuff",
        "INSERT INTO stuff VALUES (7, 'y', 'sad')",
        "ALTER TABLE stuff DROP CONSTRAINT things_pkey, ADD CONSTRAINT stuff_pkey PRIMARY KEY (id, n)",
        "INSERT INTO stuff VALUES (8, 'z', NULL)",
        "DROP TABLE stuff",
        "DROP TYPE mood",
    ] {
        shop.postgres.execute(statement).await;
    }
    gateway.start_again().await;
    let told: Vec<String> = read_to_a_mark(&shop)
        .await
        .iter()
        .filter(|event| matches!(event.data.table.as_str(), "public.things" | "public.stuff"))
        .map(|event| {
            if event.data.op == "schema" {
                return "schema".to_owned();
            }
            let row: Vec<String> =
                event.data.after.iter().flatten().map(|(k, v)| format!("{k}={v}")).collect();
            format!("{} {} {}", event.data.op, event.data.table, row.join(" "))
        })
        .collect();
    assert_eq!(
        told,
        [
            r#"created public.things id=1 v="one""#,
            r#"created public.things id=2 v="two""#,
            "schema",
            r#"created public.things id=3 n=5 v="three""#,
            "schema",
            r#"updated public.things id=3 n=5 w="drei""#,
            "schema",
            r#"created public.things id=4 n="many" w="four""#,
            "schema",
            r#"created public.things id=5 n="more""#,
            "schema",
            r#"created public.things id=6 m="glad" n="x""#,
            r#"created public.stuff id=7 m="sad" n="y""#,
            "schema",
            r#"created public.stuff id=8 m=null n="z""#,
        ]
    );
    // The dropped table is not the oracle's any more; what comes after it is.
    workload::start(&Load::new(shop.postgres.url(), 31)).finish().await;
    read_to_a_mark(&shop).await;
    gateway.is_ready().await;
}

/// Everything up to a row that is written now.
async fn read_to_a_mark(shop: &Shop) -> Vec<Event> {
    let mark = workload::mark(&shop.postgres.client().await).await;
    stream::read_until(&shop.nats, STREAM, Duration::from_secs(60), |event| {
        event.data.table == "public.marks" && event.data.key.as_ref().is_some_and(|key| key["id"] == mark)
    })
    .await
}

#[tokio::test]
async fn table_altered_renamed_and_dropped_15() {
    table_changes(Version::Pg15).await;
}

#[tokio::test]
async fn table_altered_renamed_and_dropped_18() {
    table_changes(Version::Pg18).await;
}

/// The same while the gateway reads, under load.
#[tokio::test]
async fn table_altered_and_dropped_under_load() {
    let shop = Shop::open().await;
    let mut gateway = shop.gateway().await;
    let writing = workload::start(&Load::steady(shop.postgres.url(), 32));
    for round in 0..5 {
        for statement in [
            format!("CREATE TABLE passing (id integer PRIMARY KEY, v{round} text)"),
            "INSERT INTO passing SELECT generate_series(1, 100), 'x'".to_owned(),
            format!("ALTER TABLE passing ADD COLUMN w integer, DROP COLUMN v{round}"),
            "UPDATE passing SET w = id".to_owned(),
            "ALTER TABLE orders ALTER COLUMN note TYPE varchar(200)".to_owned(),
            "ALTER TABLE orders ALTER COLUMN note TYPE text".to_owned(),
            "DROP TABLE passing".to_owned(),
        ] {
            shop.postgres.execute(&statement).await;
        }
    }
    writing.stop().await;
    shop.postgres.execute("CREATE TABLE IF NOT EXISTS passing (id integer PRIMARY KEY)").await;
    read_to_a_mark(&shop).await;
    gateway.is_ready().await;
    let status = gateway.status().await;
    assert_eq!(status["sources"][0]["errors"], 0, "{status}");
}

/// Larger than the broker takes: the data goes to the object store, and the event says where it is and what it is.
async fn too_large_for_the_broker(shop: Shop, nats_lines: &str) {
    let mut gateway = shop.gateway_with(&shop.settings_with(nats_lines)).await;
    let id = "7d444840-9dc0-11d1-b245-5ffdce74fad2";
    let insert = format!(
        "INSERT INTO documents (id, title, body) SELECT '{id}', 'large', string_agg(md5(n::text), '') FROM generate_series(1, 100000) n"
    );
    shop.postgres
        .execute(&format!(
            "BEGIN; INSERT INTO scratch VALUES (1); {insert}; INSERT INTO scratch VALUES (2); COMMIT"
        ))
        .await;
    let check = async || {
        let events = read_to_a_mark(&shop).await;
        let order: Vec<&str> = events.iter().map(|event| event.attribute("txindex")).collect();
        assert_eq!(order[..3], ["0", "1", "2"]);
        let large = &events[1];
        let (bucket, name) =
            large.attribute("dataref").strip_prefix("nats-obj://").unwrap().split_once('/').unwrap();
        let store = shop.nats.jetstream().await.get_object_store(bucket).await.unwrap();
        let mut data = Vec::new();
        store.get(name).await.unwrap().read_to_end(&mut data).await.unwrap();
        assert_eq!(large.attribute("datasize"), data.len().to_string());
        let digest: String = Sha256::digest(&data).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(large.attribute("datadigest"), format!("sha-256:{digest}"));
        let data: Value = serde_json::from_slice(&data).unwrap();
        let sql = "SELECT body FROM documents WHERE title = 'large'";
        let body: String = shop.postgres.client().await.query_one(sql, &[]).await.unwrap().get(0);
        assert_eq!(data["after"]["body"], body);
        assert_eq!(data["key"]["id"], id);
    };
    check().await;
    gateway.kill9();
    gateway.start_again().await;
    check().await;
}

#[tokio::test]
async fn row_too_large_for_the_broker() {
    too_large_for_the_broker(Shop::open().await, "").await;
}

#[tokio::test]
async fn row_too_large_for_the_broker_in_binary_mode() {
    too_large_for_the_broker(Shop::open().await, "mode = \"binary\"\n").await;
}

#[tokio::test]
async fn row_too_large_for_the_broker_in_atomic_mode() {
    too_large_for_the_broker(Shop::open().await, "publish = \"atomic\"\n").await;
}

/// One that takes less than an object's usual chunk.
#[tokio::test]
async fn row_too_large_for_a_broker_that_takes_little() {
    let nats = Nats::with("max_payload: 65536").await;
    too_large_for_the_broker(Shop::with(Version::Pg15, nats).await, "").await;
}

/// Larger than all the memory that a source may take, behind smaller ones of its transaction, which hold some of it.
#[tokio::test]
async fn row_too_large_for_the_memory_in_atomic_mode() {
    let shop = Shop::open().await;
    let settings = Settings {
        gateway_lines: "memory = \"1MiB\"\n".to_owned(),
        ..shop.settings_with("publish = \"atomic\"\n")
    };
    let mut gateway = shop.gateway_with(&settings).await;
    gateway.kill9();
    let large =
        "INSERT INTO scratch SELECT 9, string_agg(md5(n::text), '') FROM generate_series(1, 100000) n";
    let small = "INSERT INTO scratch SELECT n, repeat('x', 100) FROM generate_series";
    for _ in 0..3 {
        for row in 2001..2010 {
            shop.postgres.execute(&format!("{small}({row}, {row}) n")).await;
        }
        shop.postgres
            .execute(&format!("BEGIN; {small}(10, 500) n; {large}; {small}(1000, 2000) n; COMMIT"))
            .await;
        shop.postgres.execute("TRUNCATE scratch").await;
    }
    gateway.start_again().await;
    let events = read_to_a_mark(&shop).await;
    assert_eq!(events.len(), 3 * (9 + 491 + 1 + 1001 + 1) + 1);
    assert_eq!(oracle::malformed(&events), Vec::<String>::new());
}

/// Larger than the source may be: the row goes to the dead letters, unread, and everything around it to the stream.
#[tokio::test]
async fn row_larger_than_allowed() {
    let shop = Shop::open().await;
    let settings = Settings { source_lines: "max_row = \"100KiB\"\n".to_owned(), ..shop.settings() };
    let mut gateway = shop.gateway_with(&settings).await;
    shop.postgres
        .execute(
            "BEGIN; INSERT INTO scratch VALUES (1, 'a'); INSERT INTO scratch VALUES (2, repeat('x', 200000));
             INSERT INTO scratch VALUES (3, 'c'); COMMIT; INSERT INTO scratch VALUES (4, repeat('y', 200000))",
        )
        .await;
    let check = async || {
        let events = read_to_a_mark(&shop).await;
        let told: Vec<&str> = events
            .iter()
            .filter(|event| event.data.table == "public.scratch")
            .map(|event| event.data.key.as_ref().unwrap()["id"].as_str())
            .collect();
        assert_eq!(told, ["1", "3"]);
        assert_eq!(oracle::malformed(&events), Vec::<String>::new());
        assert_eq!(events[1].attribute("txlast"), "true");
        let letters = dead_letters(&shop.nats, 2).await;
        for letter in &letters {
            assert_eq!(letter["data"]["reason"], "too-large", "{letter}");
            assert_eq!(letter["data"]["table"], "public.scratch", "{letter}");
            assert!(letter["data"]["content"]["size"].as_u64().unwrap() > 200_000, "{letter}");
        }
    };
    check().await;
    gateway.kill9();
    gateway.start_again().await;
    check().await;
    assert_eq!(gateway.status().await["sources"][0]["state"], "streaming");
}

/// A database of SQL_ASCII holds any bytes. What is UTF-8 becomes an event, the rest goes to the dead letters, whole.
async fn bytes_that_are_not_text(version: Version) {
    let shop = Shop::with(version, Nats::start().await).await;
    shop.postgres
        .execute("CREATE DATABASE raw ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0")
        .await;
    let settings = Settings { source: shop.postgres.url_of("raw"), ..shop.settings() };
    let client = connect(&settings.source).await.unwrap();
    client.batch_execute("CREATE TABLE words (id integer PRIMARY KEY, word text, note text)").await.unwrap();
    let mut gateway = shop.gateway_with(&settings).await;
    client
        .batch_execute(
            "BEGIN; INSERT INTO words VALUES (1, 'na\u{ef}ve \u{2603}', 'x'); INSERT INTO words VALUES (2, E'caf\\351', 'y');
             INSERT INTO words VALUES (3, 'three', 'z'); COMMIT;
             SELECT pg_logical_emit_message(true, E'caf\\351', 'x'); SELECT pg_logical_emit_message(false, E'caf\\351', 'y');
             UPDATE words SET word = 'caf\u{e9}' WHERE id = 2",
        )
        .await
        .unwrap();
    let told = async || {
        let events = stream::read_until(&shop.nats, STREAM, Duration::from_secs(30), |event| {
            event.data.op == "updated"
        })
        .await;
        let words: Vec<String> =
            events.iter().filter_map(|event| Some(event.data.after.as_ref()?["word"].clone())).collect();
        assert_eq!(events.iter().filter(|event| event.data.op == "message").count(), 2);
        assert_eq!(words, ["\"na\u{ef}ve \u{2603}\"", "\"three\"", "\"caf\u{e9}\""]);
        assert_eq!(oracle::malformed(&events), Vec::<String>::new());
        let letters = dead_letters(&shop.nats, 1).await;
        let data = &letters[0]["data"];
        assert_eq!(data["reason"], "unencodable", "{data}");
        assert_eq!(data["table"], "public.words", "{data}");
        assert_eq!(data["content"]["after"]["id"], 2, "{data}");
        assert_eq!(data["content"]["after"]["note"], "y", "{data}");
        assert_eq!(data["content"]["after"]["word"]["base64"], "Y2Fm6Q==", "{data}");
    };
    told().await;
    gateway.kill9();
    gateway.start_again().await;
    told().await;
}

#[tokio::test]
async fn bytes_that_are_not_text_15() {
    bytes_that_are_not_text(Version::Pg15).await;
}

#[tokio::test]
async fn bytes_that_are_not_text_18() {
    bytes_that_are_not_text(Version::Pg18).await;
}

/// Names that would split a subject, match others, end a header or break JSON.
async fn hostile_names(nats_lines: &str) {
    const NAMES: [&str; 9] = [
        "two words",
        "dot.ted",
        "a.*.>",
        "per%cent%2E",
        "quo\"ted'",
        "\u{1f600} smile",
        "UPPER",
        "line\nbreak\ttab",
        "back\\slash,{}/",
    ];
    let shop = Shop::open().await;
    let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
    for name in NAMES {
        let table = quoted(name);
        shop.postgres
            .execute(&format!(
                "CREATE TABLE {table} ({table} text PRIMARY KEY, {} text)",
                quoted(&format!("{name} 2"))
            ))
            .await;
    }
    let mut gateway = shop.gateway_with(&shop.settings_with(nats_lines)).await;
    for name in NAMES {
        let (table, value) = (quoted(name), name.replace('\'', "''"));
        shop.postgres
            .execute(&format!("INSERT INTO {table} VALUES ('{value}', '{value}'), ('', 'empty')"))
            .await;
        shop.postgres.execute(&format!("UPDATE {table} SET {table} = {table} || '.*.>'")).await;
        shop.postgres.execute(&format!("DELETE FROM {table} WHERE {table} = '.*.>'")).await;
    }
    let events = shop.assert_faithful_however_small().await;
    for name in NAMES {
        let of: Vec<&Event> =
            events.iter().filter(|event| event.data.table == format!("public.{name}")).collect();
        assert_eq!(of.len(), 7, "{name}");
        for event in of {
            let tokens: Vec<&str> = event.subject.split('.').collect();
            let [_, _, entity, ..] = tokens[..] else { panic!("{event:?}") };
            assert_eq!(tokens.len(), 5, "{event:?}");
            assert!(!entity.contains(['*', '>', ' ', '\n', '\t']), "{event:?}");
            assert_eq!(stream::percent_decoded(entity), name, "{event:?}");
        }
    }
    assert_eq!(gateway.status().await["sources"][0]["errors"], 0);
    assert_eq!(gateway.terminate(), Some(0));
}

#[tokio::test]
async fn names_that_are_hostile_to_subjects() {
    hostile_names("").await;
}

#[tokio::test]
async fn names_that_are_hostile_to_headers() {
    hostile_names("mode = \"binary\"\n").await;
}

/// What a writer says about its transaction is on the transaction's events, and on no others.
#[tokio::test]
async fn context_of_a_transaction() {
    let shop = Shop::open().await;
    let _gateway = shop.gateway().await;
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let emit =
        |content: &str| format!("SELECT pg_logical_emit_message(true, 'headgate.context', '{content}');");
    let good =
        emit(&format!("{{\"traceparent\":\"{trace}\",\"correlationid\":\"c 1\",\"causationid\":\"x\"}}"));
    shop.postgres
        .execute(&format!(
            "BEGIN; INSERT INTO scratch VALUES (1); {good} INSERT INTO scratch VALUES (2); COMMIT"
        ))
        .await;
    shop.postgres.execute("INSERT INTO scratch VALUES (3)").await;
    // Not to be believed: it would forge what the gateway says. The transaction's events go without.
    for bad in ["{\"id\":\"1\"}", "not json", "{\"traceparent\":\"x\"}", "{\"Bad Name\":1}"] {
        shop.postgres
            .execute(&format!(
                "BEGIN; {} INSERT INTO scratch SELECT max(id) + 1 FROM scratch; COMMIT",
                emit(bad)
            ))
            .await;
    }
    let events = shop.assert_faithful_however_small().await;
    let seen: Vec<(&str, bool)> = events
        .iter()
        .map(|event| (event.attribute("correlationid"), event.attribute("traceparent") == trace))
        .collect();
    assert_eq!(seen[..3], [("c 1", true), ("c 1", true), ("", false)]);
    assert!(seen[3..].iter().all(|seen| *seen == ("", false)), "{seen:?}");
    assert!(events.iter().all(|event| event.attribute("traceparent").len() == trace.len()));
    shop.postgres.slot_is_active(SLOT).await;
}
