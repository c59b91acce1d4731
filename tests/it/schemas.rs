//! Every version of a table that an event names can be looked up, and says what its events look like.

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
use std::{
    collections::BTreeSet,
    io::Write as _,
    process::{Output, Stdio},
    time::Duration,
};

fn run(gateway: &Gateway, arguments: &[&str]) -> Output {
    gateway.command().args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// What `schema check` says of events, one a line.
fn check(gateway: &Gateway, events: &[u8]) -> (Option<i32>, String) {
    let mut child = gateway.command();
    let child = child.args(["schema", "check", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = child.spawn().unwrap();
    child.stdin.take().unwrap().write_all(events).unwrap();
    let output = child.wait_with_output().unwrap();
    (output.status.code(), text(&output.stdout))
}

async fn events(nats: &Nats, count: usize) {
    eventually("the events", Duration::from_secs(30), || async {
        let found = stream::read(nats, STREAM).await.len();
        if found >= count { Ok(()) } else { Err(format!("{found} of {count}")) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_as_the_schemas_say_that_they_name_through_ddl_and_kill9() {
    for version in [Version::Pg15, Version::Pg18] {
        let postgres = Postgres::start(version, &[]).await;
        postgres
            .execute(
                "CREATE TYPE mood AS ENUM ('sad', 'ok'); CREATE DOMAIN positive AS int CHECK (VALUE > 0); \
                 CREATE TYPE address AS (street text, number int); \
                 CREATE TABLE kinds (id bigint PRIMARY KEY, a int2, b bool, c float8, d numeric, e text, f uuid, g date, \
                   h timestamptz, i interval, j jsonb, k bytea, l int[], m text[], n mood, o positive, p address, q inet, \
                   r int4range, s money, t bit(3), u point, \"v/~\" oid); \
                 CREATE TABLE \"odd.name\" (a int, b int, PRIMARY KEY (b, a)); ALTER TABLE kinds REPLICA IDENTITY FULL",
            )
            .await;
        let nats = Nats::start().await;
        let settings = Settings::new(&nats, postgres.url());
        let mut gateway = Gateway::start(&settings).await;
        postgres
            .execute(
                "INSERT INTO kinds VALUES (1, 2, true, 'NaN', 'NaN', 'x', gen_random_uuid(), 'infinity', now(), '1 day', '[1, {}]', \
                   '\\x00', '{1,NULL}', '[2:2]={a}', 'ok', 5, ('s', 1), '::1', '[1,2)', 1, '101', '(1,2)', 7); INSERT INTO kinds (id) VALUES (2); \
                 UPDATE kinds SET c = 1.5 WHERE id = 1; UPDATE kinds SET id = 3 WHERE id = 2; DELETE FROM kinds WHERE id = 3; \
                 INSERT INTO \"odd.name\" VALUES (1, 2); TRUNCATE \"odd.name\"",
            )
            .await;
        events(&nats, 8).await;
        gateway.kill9();
        postgres
            .execute(
                "INSERT INTO kinds (id) VALUES (4); ALTER TABLE kinds ADD COLUMN w text; INSERT INTO kinds (id, w) VALUES (5, 'w'); \
                 ALTER TABLE kinds DROP COLUMN a; ALTER TABLE kinds ALTER COLUMN \"v/~\" TYPE int8; INSERT INTO kinds (id) VALUES (6)",
            )
            .await;
        gateway.start_again().await;
        events(&nats, 13).await;

        let named: BTreeSet<String> = stream::read(&nats, STREAM)
            .await
            .iter()
            .filter(|event| event.data.op != "schema")
            .map(|event| event.attribute("dataschema").rsplit(':').next().unwrap().to_owned())
            .collect();
        let listed = text(&run(&gateway, &["schema", "list"]).stdout);
        let listed: Vec<Vec<&str>> = listed.lines().map(|line| line.split_whitespace().collect()).collect();
        let known: BTreeSet<String> = listed.iter().map(|words| words[2].to_owned()).collect();
        assert_eq!(named, known, "each version is there once, and nothing else");
        let numbers: Vec<&str> =
            listed.iter().filter(|words| words[0] == "shop.kinds").map(|words| words[1]).collect();
        assert_eq!(numbers, ["@1", "@2", "@3"]);

        let difference = text(&run(&gateway, &["schema", "diff", "shop.kinds", "1", "2"]).stdout);
        assert_eq!(difference, "shop.kinds @1 → @2\n  + w: text\ncompatible\n");
        let difference = text(&run(&gateway, &["schema", "diff", "shop.kinds"]).stdout);
        assert_eq!(difference, "shop.kinds @2 → @3\n  - a\n  ~ v/~: oid → int8\nnot compatible\n");
        let json = |arguments: &[&str]| {
            serde_json::from_slice::<Value>(&run(&gateway, arguments).stdout).unwrap_or_default()
        };
        let difference = json(&["schema", "diff", "shop.kinds", "--json"]);
        assert_eq!(
            (&difference["to"], &difference["changes"][0], &difference["compatible"]),
            (&3.into(), &"- a".into(), &false.into()),
            "{difference}"
        );
        let versions = json(&["schema", "list", "shop", "--json"]);
        let uris = versions.as_array().unwrap().iter().map(|version| version["uri"].as_str().unwrap());
        assert_eq!(
            uris.map(|uri| uri.rsplit(':').next().unwrap().to_owned()).collect::<BTreeSet<_>>(),
            known
        );
        let first = versions.as_array().unwrap().iter().find(|version| version["entity"] == "kinds").unwrap();
        assert_eq!((&first["version"], &first["changes"]), (&1.into(), &Value::Array(Vec::new())), "{first}");

        let tail = run(&gateway, &["tail", "shop", "--from", "start", "--count", "13", "--json"]).stdout;
        assert_eq!(
            check(&gateway, &tail),
            (Some(0), "11 events checked, 2 without a schema, 0 violations\n".to_owned())
        );
        let (code, told) = check(&gateway, text(&tail).replace("\"b\":true", "\"b\":\"yes\"").as_bytes());
        assert!(code == Some(69) && told.contains("/after/b: is string"), "{told}");

        let api: Value = serde_json::from_slice(&run(&gateway, &["schema", "asyncapi"]).stdout).unwrap();
        assert_eq!(api["asyncapi"], "3.0.0");
        let address = &api["channels"]["shop.odd_2Ename.created"]["address"];
        assert_eq!(address, "events.shop.odd%2Ename.created.{partition}");
        let shown: Value =
            serde_json::from_slice(&run(&gateway, &["schema", "show", "shop.kinds@1"]).stdout).unwrap();
        assert_eq!(shown["$defs"]["row"]["properties"]["id"]["type"][0], "integer");
        assert_eq!(run(&gateway, &["schema", "show", "shop.kinds@9"]).status.code(), Some(64));
    }
}

/// The first events of the stream as a subscriber gets them, but for when they were recorded.
fn tail(gateway: &Gateway, count: usize) -> Vec<Value> {
    let output =
        run(gateway, &["tail", "shop", "--from", "start", "--count", &count.to_string(), "--json"]).stdout;
    let event = |line: &str| {
        let mut event: Value = serde_json::from_str(line).unwrap();
        event.as_object_mut().unwrap().remove("recordedtime");
        event
    };
    text(&output).lines().map(event).collect()
}

/// Each new shape of a table stands between the last event of the old one and the first of the new one, once.
fn assert_in_place(events: &[Value], table: &str) -> usize {
    let mut shape: Option<Value> = None;
    let mut changes = 0;
    for event in events.iter().filter(|event| event["data"]["table"] == table) {
        let data = &event["data"];
        if data["op"] == "schema" {
            assert_eq!(Some(&data["from"]), shape.as_ref(), "{event}");
            assert_ne!(data["from"], data["to"], "{event}");
            shape = Some(data["to"].clone());
            changes += 1;
        } else {
            let known = shape.get_or_insert_with(|| event["dataschema"].clone());
            assert_eq!(event["dataschema"], *known, "{event}");
        }
    }
    changes
}

/// Both streams have as many events as one of them should; they are the same, and well formed.
async fn assert_the_same(nats: [&Nats; 2], gateways: [&Gateway; 2], count: usize) -> Vec<Value> {
    for nats in nats {
        events(nats, count).await;
        assert_eq!(oracle::malformed(&stream::read(nats, STREAM).await), Vec::<String>::new());
    }
    let [mut killed, mut spared] = gateways.map(|gateway| tail(gateway, count));
    killed.iter_mut().chain(&mut spared).for_each(forget_nullable);
    for (one, other) in killed.iter().zip(&spared) {
        assert_eq!(one, other);
    }
    assert_eq!((killed.len(), spared.len()), (count, count));
    killed
}

/// That a column may be NULL is said by the catalog alone: a gateway that comes by when the column is gone is not told (docs/schemas.md). That
/// it may not is a part of the shape's name, and stays.
fn forget_nullable(event: &mut Value) {
    let Some(columns) = event["data"]["shape"]["columns"].as_array_mut() else { return };
    for column in columns.iter_mut().filter_map(Value::as_object_mut) {
        if column.get("nullable") == Some(&json!(true)) {
            column.remove("nullable");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_shape_is_told_once_and_in_place_through_kill9() {
    const ROUNDS: usize = 4;
    for (version, nats_lines) in [(Version::Pg15, ""), (Version::Pg18, "publish = \"atomic\"\n")] {
        let postgres = Postgres::start(version, &[]).await;
        postgres.execute("CREATE TABLE things (id serial PRIMARY KEY, a text)").await;
        let (nats, other) = (Nats::start().await, Nats::start().await);
        let settings = Settings { nats_lines: nats_lines.to_owned(), ..Settings::new(&nats, postgres.url()) };
        let mut gateway = Gateway::start(&settings).await;
        let spared = Settings {
            source_lines: "slot = \"spared\"\n".to_owned(),
            ..Settings::new(&other, postgres.url())
        };
        let spared = Gateway::start(&spared).await;
        for round in 0..ROUNDS {
            let many = "INSERT INTO things (a) SELECT repeat('x', 100) FROM generate_series(1, 500);";
            postgres
                .execute(&format!(
                    "BEGIN; {many} ALTER TABLE things ADD COLUMN c{round} int; {many} COMMIT; \
                     BEGIN; ALTER TABLE things DROP COLUMN c{round}; {many} COMMIT"
                ))
                .await;
            tokio::time::sleep(Duration::from_millis(12 * round as u64)).await;
            gateway.kill9();
            gateway.start_again().await;
        }
        let count = ROUNDS * (3 * 500 + 2);
        let told = assert_the_same([&nats, &other], [&gateway, &spared], count).await;
        assert_eq!(assert_in_place(&told, "things"), 2 * ROUNDS);
        let schema: Vec<&Value> = told.iter().filter(|event| event["data"]["op"] == "schema").collect();
        assert_eq!(schema[0]["data"]["changes"], json!(["+ c0: int4"]));
        assert_eq!(
            (&schema[0]["data"]["compatible"], &schema[1]["data"]["compatible"]),
            (&json!(true), &json!(false))
        );
        let subject = stream::read(&nats, STREAM).await.into_iter().find(|event| event.data.op == "schema");
        assert!(subject.unwrap().subject.starts_with("events.shop.things.schema."));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn online_schema_changes_are_one_new_shape_through_kill9() {
    for version in [mysql::Version::MySql97, mysql::Version::MariaDb118] {
        let Some(shop) = MySqlShop::open(version).await else { continue };
        let mut gateway = shop.gateway().await;
        let other = Nats::start().await;
        let settings = shop.settings();
        let spared = Settings {
            nats: other.urls(),
            source_lines: format!("{}server_id = 77123\n", settings.source_lines),
            ..settings
        };
        let spared = Gateway::start(&spared).await;
        let rounds: [&[&str]; 4] = [
            &[
                "INSERT INTO scratch VALUES (1, 'x')",
                "ALTER TABLE scratch ADD COLUMN more int unsigned DEFAULT 7",
                "INSERT INTO scratch VALUES (2, 'x', 1), (3, 'x', 1)",
            ],
            // As gh-ost does it.
            &[
                "CREATE TABLE _scratch_gho LIKE scratch",
                "ALTER TABLE _scratch_gho DROP COLUMN more, ADD COLUMN other text",
                "INSERT INTO _scratch_gho (id, value) SELECT id, value FROM scratch",
                "RENAME TABLE scratch TO _scratch_del, _scratch_gho TO scratch",
                "DROP TABLE _scratch_del",
                "INSERT INTO scratch VALUES (4, 'x', 'y'), (5, 'x', 'y')",
            ],
            // As pt-online-schema-change does it.
            &[
                "CREATE TABLE _scratch_new LIKE scratch",
                "ALTER TABLE _scratch_new DROP COLUMN other",
                "INSERT INTO _scratch_new (id, value) SELECT id, value FROM scratch",
                "RENAME TABLE scratch TO _scratch_old, _scratch_new TO scratch",
                "UPDATE scratch SET value = 'z'",
            ],
            &[
                "DROP TABLE scratch",
                "CREATE TABLE scratch (id bigint PRIMARY KEY, value text)",
                "INSERT INTO scratch VALUES (9, 'x')",
            ],
        ];
        for (nth, statements) in rounds.into_iter().enumerate() {
            shop.server.execute(statements).await;
            tokio::time::sleep(Duration::from_millis(15 * nth as u64)).await;
            gateway.kill9();
            gateway.start_again().await;
        }
        // A new shape in each round.
        let told = assert_the_same([&shop.nats, &other], [&gateway, &spared], 3 + 2 + 5 + 1 + 4).await;
        let schema: Vec<&Value> = told.iter().filter(|event| event["data"]["op"] == "schema").collect();
        let changes: Vec<String> = schema.iter().map(|event| event["data"]["changes"].to_string()).collect();
        assert_eq!(
            changes,
            [
                r#"["+ more: int unsigned"]"#,
                r#"["- more","+ other: text"]"#,
                r#"["- other"]"#,
                r#"["~ id: int → bigint"]"#
            ]
        );
        assert!(schema.iter().all(|event| event.get("txid").is_none()));
    }
}

/// Waits until the source stands still, and gives what its status says.
async fn stopped(gateway: &Gateway) -> Value {
    eventually("the source stops", Duration::from_secs(30), || async {
        let source = gateway.status().await["sources"][0].clone();
        if source["state"] == "stopped" { Ok(source) } else { Err(source.to_string()) }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_incompatible_shape_waits_until_somebody_accepts_it() {
    let postgres = Postgres::start(Version::Pg15, &[]).await;
    postgres.execute("CREATE TABLE things (id serial PRIMARY KEY, a text, b text)").await;
    let nats = Nats::start().await;
    let settings = Settings {
        source_lines: "on_incompatible = \"stop\"\n".to_owned(),
        ..Settings::new(&nats, postgres.url())
    };
    let mut gateway = Gateway::start(&settings).await;
    postgres
        .execute("INSERT INTO things (a) VALUES ('x'); ALTER TABLE things ADD COLUMN c int; INSERT INTO things (a) VALUES ('y')")
        .await;
    events(&nats, 3).await;
    let accept =
        |arguments: &[&str]| run(&gateway, &[&["source", "accept-schema", "shop"], arguments].concat());
    assert_eq!(accept(&[]).status.code(), Some(78), "there is nothing to accept");
    postgres
        .execute(
            "BEGIN; INSERT INTO things (a) VALUES ('z'); ALTER TABLE things DROP COLUMN b; \
             INSERT INTO things (a) VALUES ('u'), ('v'); COMMIT; INSERT INTO things (a) VALUES ('w')",
        )
        .await;
    for _ in 0..2 {
        let source = stopped(&gateway).await;
        let (error, fix) = (source["last_error"].to_string(), source["fix"].to_string());
        assert!(error.contains("public.things") && error.contains("- b"), "{source}");
        assert!(fix.contains("headgate source accept-schema shop 'public.things'"), "{source}");
        let seen = stream::read(&nats, STREAM).await;
        // The transaction's first row waits for the one behind it, to know whether it is the last.
        assert_eq!(seen.len(), 3, "nothing of the new shape is told");
        gateway.kill9();
        gateway.launch();
    }
    stopped(&gateway).await;
    let accept =
        |arguments: &[&str]| run(&gateway, &[&["source", "accept-schema", "shop"], arguments].concat());
    assert_eq!(accept(&["public.others"]).status.code(), Some(78));
    let accepted = accept(&["public.things"]);
    assert_eq!(text(&accepted.stdout), "accepted for public.things: - b\n", "{accepted:?}");
    gateway.kill9();
    gateway.start_again().await;
    events(&nats, 8).await;
    let told = tail(&gateway, 8);
    let ops: Vec<&str> = told.iter().map(|event| event["data"]["op"].as_str().unwrap()).collect();
    assert_eq!(ops, ["created", "schema", "created", "created", "schema", "created", "created", "created"]);
    assert_eq!(assert_in_place(&told, "things"), 2);
    assert_eq!(oracle::malformed(&stream::read(&nats, STREAM).await), Vec::<String>::new());
    // The next change is another one.
    postgres.execute("ALTER TABLE things ADD COLUMN b text; INSERT INTO things (b) VALUES ('x'); ALTER TABLE things DROP COLUMN b; INSERT INTO things (a) VALUES ('x')").await;
    stopped(&gateway).await;
    assert_eq!(gateway.terminate(), Some(0));
    let dropped = run(&gateway, &["source", "drop", "shop", "--yes"]);
    assert!(dropped.status.success(), "{dropped:?}");
    let left = nats.jetstream().await.get_key_value("headgate").await.unwrap();
    let left: Vec<String> = left.keys().await.unwrap().try_collect().await.unwrap();
    assert!(!left.iter().any(|key| key.starts_with("shape.")), "{left:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn semantic_events_and_letters_name_versions_too() {
    let postgres = Postgres::start(Version::Pg15, &[]).await;
    postgres
        .execute(
            "CREATE TABLE deals (id int PRIMARY KEY, stage text, amount numeric); ALTER TABLE deals REPLICA IDENTITY FULL; \
             CREATE TABLE outbox (id uuid PRIMARY KEY, type text, payload jsonb)",
        )
        .await;
    let nats = Nats::start().await;
    let settings = Settings {
        source_lines: "[[sources.shop.event]]\nname = \"deal.moved\"\ntable = \"public.deals\"\n\
             when = \"before.stage != after.stage\"\ndata = { from = \"before.stage\", to = \"after.stage\" }\n\
             [[sources.shop.event]]\nname = \"deal.touched\"\ntable = \"public.deals\"\nwhen = \"op == 'updated'\"\n\
             [[sources.shop.outbox]]\ntable = \"public.outbox\"\n"
            .to_owned(),
        ..Settings::new(&nats, postgres.url())
    };
    let gateway = Gateway::start(&settings).await;
    postgres
        .execute(
            "INSERT INTO deals VALUES (1, 'new', 5); UPDATE deals SET stage = 'won'; \
             INSERT INTO outbox VALUES (gen_random_uuid(), 'invoice.sent', '{\"n\": [1]}'); \
             ALTER TABLE deals ADD COLUMN owner text; UPDATE deals SET stage = 'lost'",
        )
        .await;
    events(&nats, 9).await;
    // A column that no letter is made of is none of their business, one that they are made of is.
    postgres
        .execute(
            "ALTER TABLE outbox ADD COLUMN note text; \
             INSERT INTO outbox VALUES (gen_random_uuid(), 'invoice.sent', '{}'), (gen_random_uuid(), 'invoice.paid', '{}'); \
             TRUNCATE outbox; ALTER TABLE outbox ALTER COLUMN payload TYPE json; \
             INSERT INTO outbox VALUES (gen_random_uuid(), 'invoice.sent', '{}')",
        )
        .await;
    events(&nats, 12).await;
    let listed = text(&run(&gateway, &["schema", "list"]).stdout);
    let listed: Vec<Vec<&str>> =
        listed.lines().map(|line| line.split_whitespace().take(2).collect()).collect();
    assert_eq!(
        listed,
        [
            ["shop.deal.moved", "@1"],
            ["shop.deal.touched", "@1"],
            ["shop.deal.touched", "@2"],
            ["shop.deals", "@1"],
            ["shop.deals", "@2"],
            ["shop.invoice.paid", "@1"],
            ["shop.invoice.sent", "@1"],
            ["shop.invoice.sent", "@2"],
            ["shop.outbox", "@1"],
            ["shop.outbox", "@2"],
            ["shop.outbox", "@3"]
        ]
    );
    let lines: Vec<String> = tail(&gateway, 12).iter().map(Value::to_string).collect();
    assert_eq!(
        check(&gateway, lines.join("\n").as_bytes()),
        (Some(0), "11 events checked, 1 without a schema, 0 violations\n".to_owned())
    );
    let broken = lines.join("\n").replace(r#""to":"won""#, r#""into":"won""#);
    assert!(check(&gateway, broken.as_bytes()).1.contains("/into: is not in the schema"));
    let api: Value = serde_json::from_slice(&run(&gateway, &["schema", "asyncapi"]).stdout).unwrap();
    assert_eq!(api["channels"]["shop.deal.moved"]["address"], "events.shop.deal.moved.{partition}");
    assert_eq!(api["channels"]["shop.invoice.sent"]["address"], "events.shop.invoice.sent.{partition}");
    assert_eq!(api["channels"]["shop.deals.schema"]["address"], "events.shop.deals.schema.{partition}");
}
