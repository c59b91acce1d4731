//! Every version of a table that an event names can be looked up, and says what its events look like.

use crate::support::{eventually, gateway::Settings};
use crate::support::{
    gateway::Gateway,
    nats::Nats,
    postgres::{Postgres, Version},
    shop::STREAM,
    stream,
};
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
        events(&nats, 11).await;

        let named: BTreeSet<String> = stream::read(&nats, STREAM)
            .await
            .iter()
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

        let tail = run(&gateway, &["tail", "shop", "--from", "start", "--count", "11", "--json"]).stdout;
        let check = |events: &[u8]| {
            let mut child = gateway.command();
            let child = child.args(["schema", "check", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped());
            let mut child = child.spawn().unwrap();
            child.stdin.take().unwrap().write_all(events).unwrap();
            let output = child.wait_with_output().unwrap();
            (output.status.code(), text(&output.stdout))
        };
        assert_eq!(
            check(&tail),
            (Some(0), "11 events checked, 0 without a schema, 0 violations\n".to_owned())
        );
        let (code, told) = check(text(&tail).replace("\"b\":true", "\"b\":\"yes\"").as_bytes());
        assert!(code == Some(69) && told.contains("/after/b: is string"), "{told}");

        let api: serde_json::Value =
            serde_json::from_slice(&run(&gateway, &["schema", "asyncapi"]).stdout).unwrap();
        assert_eq!(api["asyncapi"], "3.0.0");
        let address = &api["channels"]["shop.odd_2Ename.created"]["address"];
        assert_eq!(address, "events.shop.odd%2Ename.created.{partition}");
        let shown: serde_json::Value =
            serde_json::from_slice(&run(&gateway, &["schema", "show", "shop.kinds@1"]).stdout).unwrap();
        assert_eq!(shown["$defs"]["row"]["properties"]["id"]["type"][0], "integer");
        assert_eq!(run(&gateway, &["schema", "show", "shop.kinds@9"]).status.code(), Some(64));
    }
}
