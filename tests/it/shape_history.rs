//! Each change of shape is told once and rightly, whatever became of what is kept about shapes beside the stream.

use crate::support::{
    eventually,
    gateway::{Gateway, Settings},
    mysql,
    mysql_shop::MySqlShop,
    nats::Nats,
    oracle,
    postgres::{Postgres, Version},
    shop::STREAM,
    stream,
};
use futures_util::TryStreamExt as _;
use serde_json::{Value, json};
use std::time::Duration;

/// Each event of the source in the order of the stream: what happened, the version that it names, and its data.
async fn told(nats: &Nats, count: usize) -> Vec<(String, String, Value)> {
    eventually("the events", Duration::from_secs(30), || async {
        let found = stream::read(nats, STREAM).await;
        assert_eq!(oracle::malformed(&found), Vec::<String>::new());
        if found.len() == count { Ok(()) } else { Err(format!("{} of {count}", found.len())) }
    })
    .await;
    let stream = nats.jetstream().await.get_stream(STREAM).await.unwrap();
    let mut events = Vec::new();
    for sequence in 1..=stream.get_info().await.unwrap().state.last_sequence {
        let message = stream.get_raw_message(sequence).await.unwrap();
        let mut event: Value = serde_json::from_slice(&message.payload).unwrap();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        events.push((text(&event["data"]["op"]), text(&event["dataschema"]), event["data"].take()));
    }
    events
}

/// The changes of shape that the stream tells of, each as it says them.
fn changes(told: &[(String, String, Value)]) -> Vec<String> {
    told.iter()
        .filter(|(op, ..)| op == "schema")
        .map(|(.., data)| format!("{}: {}", data["table"].as_str().unwrap(), data["changes"]))
        .collect()
}

/// Every change leads from the version of the events before it to that of those after it.
fn assert_in_place(told: &[(String, String, Value)], table: &str) {
    let mut version = None;
    for (op, dataschema, data) in told.iter().filter(|(.., data)| data["table"] == table) {
        if op == "schema" {
            assert_eq!(Some(data["from"].as_str().unwrap().to_owned()), version, "{data}");
            version = Some(data["to"].as_str().unwrap().to_owned());
        } else {
            assert_eq!(version.get_or_insert_with(|| dataschema.clone()), dataschema, "{data}");
        }
    }
}

/// What is kept of shapes is lost, or an older copy of it comes back: the stream itself says what they were.
#[tokio::test(flavor = "multi_thread")]
async fn the_stream_says_what_the_bucket_lost() {
    for (nats_lines, source_lines) in
        [("", "on_incompatible = \"warn\"\n"), ("mode = \"binary\"\nconfirm_delay = \"0s\"\n", "")]
    {
        let postgres = Postgres::start(Version::Pg15, &[]).await;
        postgres
            .execute(
                "CREATE TABLE one (id int PRIMARY KEY, z text, a text); \
                 CREATE TABLE \"an other\" (id int PRIMARY KEY, z text, a text)",
            )
            .await;
        let mut nats = Nats::start().await;
        let settings = Settings {
            nats_lines: nats_lines.to_owned(),
            source_lines: source_lines.to_owned(),
            ..Settings::new(&nats, postgres.url())
        };
        let mut gateway = Gateway::start(&settings).await;
        postgres.execute("INSERT INTO one VALUES (1); INSERT INTO \"an other\" VALUES (1)").await;
        wait(&nats, 2).await;
        // The copy knows the first shapes, and not the second one of the first table.
        assert_eq!(gateway.terminate(), Some(0));
        nats.terminate(0);
        let copy = nats.copy_store(0);
        nats.start_again(0).await;
        gateway.start_again().await;
        postgres.execute("ALTER TABLE one ADD COLUMN b int; INSERT INTO one VALUES (2)").await;
        wait(&nats, 4).await;
        gateway.kill9();
        nats.terminate(0);
        nats.restore_stream(0, &copy, "KV_headgate");
        nats.start_again(0).await;
        gateway.start_again().await;
        postgres
            .execute("INSERT INTO one VALUES (3); ALTER TABLE one DROP COLUMN a; INSERT INTO one VALUES (4)")
            .await;
        wait(&nats, 7).await;
        // Now nothing is left of shapes, neither of a table that had several nor of one that has its first.
        gateway.kill9();
        let bucket = nats.jetstream().await.get_key_value("headgate").await.unwrap();
        let keys: Vec<String> = bucket.keys().await.unwrap().try_collect().await.unwrap();
        let shapes: Vec<&String> = keys.iter().filter(|key| key.starts_with("shape.")).collect();
        assert_eq!(shapes.len(), 2, "{keys:?}");
        for key in shapes {
            bucket.purge(key).await.unwrap();
        }
        postgres
            .execute(
                "INSERT INTO one VALUES (5); ALTER TABLE one ADD COLUMN c int; INSERT INTO one VALUES (6); \
                 ALTER TABLE \"an other\" DROP COLUMN a; INSERT INTO \"an other\" VALUES (2)",
            )
            .await;
        gateway.start_again().await;
        wait(&nats, 12).await;
        // The next run finds again what was lost.
        gateway.kill9();
        gateway.start_again().await;
        postgres.execute("INSERT INTO one VALUES (7); INSERT INTO \"an other\" VALUES (3)").await;
        wait(&nats, 14).await;
        assert_eq!(gateway.log().matches("is behind the stream").count(), 3, "{}", gateway.log());
        let listed = gateway.command().args(["schema", "list"]).output().unwrap().stdout;
        let listed = String::from_utf8(listed).unwrap();
        let versions: Vec<String> =
            listed.lines().map(|line| line.split_whitespace().take(2).collect::<String>()).collect();
        assert_eq!(
            versions,
            [
                "shop.an%20other@1",
                "shop.an%20other@2",
                "shop.one@1",
                "shop.one@2",
                "shop.one@3",
                "shop.one@4"
            ]
        );
        if nats_lines.is_empty() {
            let told = told(&nats, 14).await;
            assert_eq!(
                changes(&told),
                [r#"one: ["+ b: int4"]"#, r#"one: ["- a"]"#, r#"one: ["+ c: int4"]"#, r#"an other: ["- a"]"#]
            );
            assert_in_place(&told, "one");
            assert_in_place(&told, "an other");
        }
    }
}

async fn wait(nats: &Nats, count: usize) {
    eventually("the events", Duration::from_secs(30), || async {
        let found = stream::read(nats, STREAM).await;
        assert_eq!(oracle::malformed(&found), Vec::<String>::new());
        if found.len() == count { Ok(()) } else { Err(format!("{} of {count}", found.len())) }
    })
    .await;
}

/// How many dead letters there are.
async fn dead_letters(nats: &Nats) -> u64 {
    match nats.jetstream().await.get_stream("EVENTS_dlq").await {
        Ok(stream) => stream.get_info().await.unwrap().state.last_sequence,
        Err(_) => 0,
    }
}

/// A source that waits looks again and again, and reads the same each time.
#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_before_a_shape_that_waits_are_kept_once() {
    let postgres = Postgres::start(Version::Pg18, &[]).await;
    postgres
        .execute(
            "CREATE TABLE things (id serial PRIMARY KEY, a text); CREATE TABLE big (id serial PRIMARY KEY, a text); \
             ALTER TABLE big ALTER COLUMN a SET STORAGE EXTERNAL",
        )
        .await;
    let nats = Nats::start().await;
    let settings = Settings {
        source_lines: "on_incompatible = \"stop\"\nmax_row = \"64KiB\"\n".to_owned(),
        ..Settings::new(&nats, postgres.url())
    };
    let mut gateway = Gateway::start(&settings).await;
    postgres.execute("INSERT INTO things (a) VALUES ('x')").await;
    wait(&nats, 1).await;
    const LETTER: &str = "INSERT INTO big (a) VALUES (repeat('x', 100000));";
    // One is a transaction of its own, and two stand before the row that is refused, in its transaction.
    postgres.execute(LETTER).await;
    postgres
        .execute(&format!(
            "BEGIN; INSERT INTO things (a) VALUES ('y'); {LETTER} {LETTER} \
             ALTER TABLE things ALTER COLUMN a TYPE varchar; INSERT INTO things (a) VALUES ('z'); COMMIT"
        ))
        .await;
    let stopped = async |gateway: &Gateway| {
        eventually("the source stops", Duration::from_secs(30), || async {
            let source = gateway.status().await["sources"][0].clone();
            if source["state"] == "stopped" { Ok(()) } else { Err(source.to_string()) }
        })
        .await;
    };
    for _ in 0..3 {
        stopped(&gateway).await;
        assert_eq!(dead_letters(&nats).await, 1, "only the one that is done with");
        // The broker's memory for ids is not what keeps it from coming twice.
        forget_ids(&nats).await;
        gateway.kill9();
        gateway.launch();
    }
    stopped(&gateway).await;
    let accepted = gateway.command().args(["source", "accept-schema", "shop"]).output().unwrap();
    assert!(accepted.status.success(), "{accepted:?}");
    gateway.kill9();
    gateway.start_again().await;
    wait(&nats, 4).await;
    eventually("the dead letters", Duration::from_secs(10), || async {
        let kept = dead_letters(&nats).await;
        if kept == 3 { Ok(()) } else { Err(kept.to_string()) }
    })
    .await;
    assert_eq!(changes(&told(&nats, 4).await), [r#"things: ["~ a: text → varchar"]"#]);
}

/// Makes the broker forget which ids the dead letters had.
async fn forget_ids(nats: &Nats) {
    let jetstream = nats.jetstream().await;
    let mut config = jetstream.get_stream("EVENTS_dlq").await.unwrap().get_info().await.unwrap().config;
    config.duplicate_window = Duration::from_millis(100);
    jetstream.update_stream(&config).await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
}

const NULLS: [&str; 7] = [
    "INSERT INTO things (id, a) VALUES (1, 'x')",
    "ALTER TABLE things ADD COLUMN c int",
    "INSERT INTO things (id, a) VALUES (2, 'x')",
    "SET NOT NULL",
    "INSERT INTO things (id, a) VALUES (3, 'x')",
    "DROP NOT NULL",
    "INSERT INTO things (id, a) VALUES (4, NULL)",
];

/// What a run tells of NOT NULL, and what a snapshot made of it.
async fn assert_nulls(nats: &Nats, gateway: &mut Gateway, int: &str) {
    wait(nats, 7).await;
    gateway.kill9();
    gateway.start_again().await;
    let asked = gateway.command().args(["snapshot", "shop", "things"]).output().unwrap();
    assert!(asked.status.success(), "{asked:?}");
    let told = told(nats, 11).await;
    assert_eq!(
        changes(&told),
        [
            format!(r#"things: ["+ c: {int}"]"#),
            r#"things: ["~ a: NOT NULL"]"#.to_owned(),
            r#"things: ["~ a: NULL"]"#.to_owned()
        ],
        "log and snapshot have the same shape"
    );
    assert_in_place(&told, "things");
    let diff = |nth: usize| told.iter().filter(|(op, ..)| op == "schema").nth(nth).unwrap().2.clone();
    assert_eq!(diff(1)["diff"], json!([{"change": "required", "column": "a"}]));
    assert_eq!(diff(2)["diff"], json!([{"change": "nullable", "column": "a"}]));
    assert_eq!((&diff(1)["compatible"], &diff(2)["compatible"]), (&json!(false), &json!(false)));
    let shown = gateway.command().args(["schema", "show", "shop.things@3"]).output().unwrap().stdout;
    let shown: Value = serde_json::from_slice(&shown).unwrap();
    let nullable = |column: &str| shown["$defs"]["row"]["properties"][column]["x-nullable"].clone();
    assert_eq!((nullable("id"), nullable("a"), nullable("c")), (json!(false), json!(false), json!(true)));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_becomes_required_is_told_postgres() {
    for version in [Version::Pg15, Version::Pg18] {
        let postgres = Postgres::start(version, &[]).await;
        postgres.execute("CREATE TABLE things (id int PRIMARY KEY, a text)").await;
        let nats = Nats::start().await;
        let mut gateway = Gateway::start(&Settings::new(&nats, postgres.url())).await;
        for (nth, statement) in NULLS.into_iter().enumerate() {
            match statement {
                "SET NOT NULL" | "DROP NOT NULL" => {
                    postgres.execute(&format!("ALTER TABLE things ALTER COLUMN a {statement}")).await;
                }
                statement => postgres.execute(statement).await,
            }
            // The catalog is asked when the row is read: the row has to be read before the next statement.
            wait(&nats, [1, 1, 3, 3, 5, 5, 7][nth]).await;
        }
        assert_nulls(&nats, &mut gateway, "int4").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_becomes_required_is_told_mysql() {
    for version in [mysql::Version::MySql97, mysql::Version::MariaDb118] {
        let Some(shop) = MySqlShop::open(version).await else { continue };
        shop.server.execute(&["CREATE TABLE things (id int PRIMARY KEY, a varchar(9))"]).await;
        let mut gateway = shop.gateway().await;
        gateway.kill9();
        // The log says it itself: it may be read as late as one likes.
        for statement in NULLS {
            let statement = match statement {
                "SET NOT NULL" => "ALTER TABLE things MODIFY a varchar(9) NOT NULL",
                "DROP NOT NULL" => "ALTER TABLE things MODIFY a varchar(9)",
                statement => statement,
            };
            shop.server.execute(&[statement]).await;
        }
        gateway.start_again().await;
        assert_nulls(&shop.nats, &mut gateway, "int").await;
    }
}
