//! What a real server's log becomes: every type, every shape of change.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs, unreachable_pub)]

#[path = "values/server.rs"]
mod server;

use headgate_sdk::{Progress, Transaction, testing::Told};
use serde_json::value::RawValue;
use server::Database;
use std::collections::BTreeMap;

/// Type, literal, JSON.
const TYPES: &[(&str, &str, &str)] = &[
    ("boolean", "true", "true"),
    ("boolean", "false", "false"),
    ("smallint", "-32768", "-32768"),
    ("integer", "2147483647", "2147483647"),
    ("bigint", "-9223372036854775808", "-9223372036854775808"),
    ("bigint", "9007199254740993", "9007199254740993"),
    ("real", "'0.1'", "0.1"),
    ("real", "'3.4028235e38'", "3.4028235e+38"),
    ("real", "'NaN'", r#""NaN""#),
    ("double precision", "0.1::float8 + 0.2::float8", "0.30000000000000004"),
    ("double precision", "'5e-324'", "5e-324"),
    ("double precision", "'-0'", "-0"),
    ("double precision", "'1e15'", "1e+15"),
    ("double precision", "'Infinity'", r#""Infinity""#),
    ("double precision", "'-Infinity'", r#""-Infinity""#),
    (
        "numeric",
        "123456789012345678901234567890.123456789012345678901234567890",
        r#""123456789012345678901234567890.123456789012345678901234567890""#,
    ),
    ("numeric(10,4)", "1.5", r#""1.5000""#),
    ("numeric", "'NaN'", r#""NaN""#),
    ("numeric", "'Infinity'", r#""Infinity""#),
    ("text", "''", r#""""#),
    (
        "text",
        "E'quote \" backslash \\\\ newline \\n tab \\t bell \\x07 é 😀'",
        r#""quote \" backslash \\ newline \n tab \t bell \u0007 é 😀""#,
    ),
    ("varchar(10)", "'NULL'", r#""NULL""#),
    ("char(5)", "'ab'", r#""ab   ""#),
    ("name", "'pg_class'", r#""pg_class""#),
    (r#""char""#, "'x'", r#""x""#),
    ("uuid", "'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'", r#""a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11""#),
    ("inet", "'192.168.0.1/24'", r#""192.168.0.1/24""#),
    ("cidr", "'2001:db8::/32'", r#""2001:db8::/32""#),
    ("macaddr", "'08:00:2b:01:02:03'", r#""08:00:2b:01:02:03""#),
    ("macaddr8", "'08:00:2b:01:02:03:04:05'", r#""08:00:2b:01:02:03:04:05""#),
    ("xml", "'<a b=\"c\">d</a>'", r#""<a b=\"c\">d</a>""#),
    (
        "json",
        r#"'{"b" : 1.500, "a":[1e400 , 9007199254740993],"a":null}'"#,
        r#"{"b" : 1.500, "a":[1e400 , 9007199254740993],"a":null}"#,
    ),
    ("json", r#"'"\ud83d\ude00\u0000"'"#, r#""\ud83d\ude00\u0000""#),
    ("jsonb", r#"'{"b":1.500,"a":"\u00e9"}'"#, r#"{"a": "é", "b": 1.500}"#),
    ("jsonb", "'null'", "null"),
    ("jsonpath", "'$.a[*]'", r#""$.\"a\"[*]""#),
    ("bytea", r"'\x'", r#""""#),
    ("bytea", r"'\xdeadbeef00'", r#""3q2+7wA=""#),
    ("bit(5)", "B'10101'", r#""10101""#),
    ("varbit", "B''", r#""""#),
    ("date", "'2026-11-22'", r#""2026-11-22""#),
    ("date", "'infinity'", r#""infinity""#),
    ("date", "'0044-03-15 BC'", r#""0044-03-15 BC""#),
    ("date", "'5874897-12-31'", r#""5874897-12-31""#),
    ("time", "'14:06:07.123456'", r#""14:06:07.123456""#),
    ("time", "'24:00:00'", r#""24:00:00""#),
    ("timetz", "'14:06:07.5+05:30'", r#""14:06:07.5+05:30""#),
    ("timestamp", "'2026-11-22 14:06:07.123456'", r#""2026-11-22T14:06:07.123456""#),
    ("timestamp", "'2026-11-22 14:06:07.1'", r#""2026-11-22T14:06:07.1""#),
    ("timestamp", "'2026-11-22 24:00:00'", r#""2026-11-23T00:00:00""#),
    ("timestamp", "'-infinity'", r#""-infinity""#),
    ("timestamp", "'4713-01-01 00:00:00 BC'", r#""4713-01-01 00:00:00 BC""#),
    ("timestamp", "'294276-12-31 23:59:59.999999'", r#""294276-12-31 23:59:59.999999""#),
    ("timestamptz", "'2026-11-22 14:06:07.123456+09'", r#""2026-11-22T05:06:07.123456Z""#),
    ("timestamptz", "'infinity'", r#""infinity""#),
    ("timestamptz", "'0044-03-15 12:00:00+00 BC'", r#""0044-03-15 12:00:00+00 BC""#),
    ("interval", "'1 year 2 mons -3 days 04:05:06.789'", r#""P1Y2M-3DT4H5M6.789S""#),
    ("interval", "'0'", r#""PT0S""#),
    ("money", "'-1234.56'", r#""-$1,234.56""#),
    ("oid", "4294967295", r#""4294967295""#),
    ("xid8", "'18446744073709551615'", r#""18446744073709551615""#),
    ("pg_lsn", "'16/B374D848'", r#""16/B374D848""#),
    ("int2vector", "'1 2 3'", r#""1 2 3""#),
    ("tsvector", "'a fat:2B'", r#""'a' 'fat':2B""#),
    ("tsquery", "'fat & rat'", r#""'fat' & 'rat'""#),
    ("point", "'(1,2.5)'", r#""(1,2.5)""#),
    ("box", "'(1,1),(0,0)'", r#""(1,1),(0,0)""#),
    ("path", "'[(0,0),(1,1)]'", r#""[(0,0),(1,1)]""#),
    ("circle", "'<(0,0),2>'", r#""<(0,0),2>""#),
    ("int4range", "'[1,5)'", r#""[1,5)""#),
    ("tstzrange", "'[2026-01-01 00:00+00,)'", r#""[\"2026-01-01 00:00:00+00\",)""#),
    ("int4multirange", "'{[1,2),[5,9)}'", r#""{[1,2),[5,9)}""#),
    ("integer[]", "'{}'", "[]"),
    ("integer[]", "'{1,NULL,-3}'", "[1,null,-3]"),
    ("integer[][]", "'{{1,2},{3,4}}'", "[[1,2],[3,4]]"),
    ("integer[]", "'[-1:0][2:3]={{1,2},{3,4}}'", "[[1,2],[3,4]]"),
    (
        "text[]",
        r#"ARRAY['a','b c','d"e\f','NULL','',NULL,'{}',',','é']"#,
        r#"["a","b c","d\"e\\f","NULL","",null,"{}",",","é"]"#,
    ),
    ("box[]", "'{(1,1),(0,0);(3,3),(2,2)}'", r#"["(1,1),(0,0)","(3,3),(2,2)"]"#),
    ("point[]", "ARRAY['(1,2)'::point]", r#"["(1,2)"]"#),
    ("jsonb[]", r#"ARRAY['{"a": "b\"c"}'::jsonb, 'null']"#, r#"[{"a": "b\"c"},null]"#),
    ("bytea[]", r"ARRAY['\xff'::bytea, '\x']", r#"["/w==",""]"#),
    (
        "timestamptz[]",
        "ARRAY['2026-11-22 14:06:07+00'::timestamptz,'infinity']",
        r#"["2026-11-22T14:06:07Z","infinity"]"#,
    ),
    ("boolean[]", "'{t,f,NULL}'", "[true,false,null]"),
    ("numeric[]", "'{1.50,NaN}'", r#"["1.50","NaN"]"#),
    ("float8[]", "'{1.5,NaN,-Infinity}'", r#"[1.5,"NaN","-Infinity"]"#),
    ("mood", "'so \"so\"'", r#""so \"so\"""#),
    ("mood[]", r#"ARRAY['sad','so "so"']::mood[]"#, r#"["sad","so \"so\""]"#),
    ("positive", "7", "7"),
    ("positive[]", "ARRAY[7,8]::positive[]", "[7,8]"),
    ("more_positive", "8", "8"),
    ("numbers", "'{1,2}'", "[1,2]"),
    ("pair", r#"ROW(1, 'x "y" \z, (w)')"#, r#"{"id":1,"a \"label\"":"x \"y\" \\z, (w)"}"#),
    ("pair", "ROW(NULL, NULL)", r#"{"id":null,"a \"label\"":null}"#),
    ("pair", "ROW(1, '')", r#"{"id":1,"a \"label\"":""}"#),
    (
        "outer_pair",
        r#"ROW(ARRAY[ROW(1,'a"b')::pair, NULL, ROW(2,'c,d')::pair], '2026-11-22 14:06:07+00', true, '{"a": [1]}', '{1,2}')"#,
        r#"{"pairs":[{"id":1,"a \"label\"":"a\"b"},null,{"id":2,"a \"label\"":"c,d"}],"at":"2026-11-22T14:06:07Z","ok":true,"doc":{"a": [1]},"n":[1,2]}"#,
    ),
    (
        "outer_pair[]",
        "ARRAY[ROW(NULL,NULL,false,NULL,NULL)]::outer_pair[]",
        r#"[{"pairs":null,"at":null,"ok":false,"doc":null,"n":null}]"#,
    ),
    ("float_range", "'[1.5,2.5]'", r#""[1.5,2.5]""#),
    (
        "hstore",
        r#"hstore(ARRAY['a','b','q"\','']  , ARRAY['1',NULL,'é','=>'])"#,
        r#"{"":"=>","a":"1","b":null,"q\"\\":"é"}"#,
    ),
    ("hstore", "''", "{}"),
    ("hstore[]", r#"ARRAY['a=>1'::hstore]"#, r#"[{"a":"1"}]"#),
    ("citext", "'MiXed'", r#""MiXed""#),
    ("text", "NULL", "null"),
    ("text", "repeat('é', 100000)", ""),
];

const OWN_TYPES: &str = r#"
    CREATE EXTENSION hstore; CREATE EXTENSION citext;
    CREATE TYPE mood AS ENUM ('sad', 'so "so"');
    CREATE DOMAIN positive AS integer CHECK (VALUE > 0);
    CREATE DOMAIN more_positive AS positive CHECK (VALUE > 1);
    CREATE DOMAIN numbers AS integer[];
    CREATE TYPE pair AS (id integer, gone integer, "a ""label""" text);
    ALTER TYPE pair DROP ATTRIBUTE gone;
    CREATE TYPE outer_pair AS (pairs pair[], at timestamptz, ok boolean, doc jsonb, n numbers);
    CREATE TYPE float_range AS RANGE (subtype = float8);"#;

#[tokio::test]
async fn every_type() {
    let mut database = Database::with("every_type", "", "").await;
    database.sql(OWN_TYPES).await;
    // Not every build of the server knows it.
    let knows_xml = database.client.simple_query("SELECT xml '<a/>'").await.is_ok();
    let types: Vec<_> = TYPES.iter().filter(|(name, ..)| *name != "xml" || knows_xml).collect();
    let columns: Vec<String> =
        types.iter().enumerate().map(|(at, (name, ..))| format!("c{at} {name}")).collect();
    let values: Vec<&str> = types.iter().map(|(_, literal, _)| *literal).collect();
    let notes = database
        .run(&format!(
            "CREATE TABLE t (id integer PRIMARY KEY, {}); INSERT INTO t VALUES (1, {})",
            columns.join(", "),
            values.join(", ")
        ))
        .await;
    let [Told::Begin(_), Told::Change { after: Some(after), .. }, Told::Commit(_)] = notes.told() else {
        panic!("{:?}", notes.lines())
    };
    let row: BTreeMap<String, &RawValue> = serde_json::from_str(after).unwrap();
    assert_eq!(row.len(), types.len() + 1);
    let long = format!("\"{}\"", "é".repeat(100_000));
    for (at, (name, literal, expected)) in types.iter().enumerate() {
        let expected = if expected.is_empty() { &long } else { *expected };
        assert_eq!(row[&format!("c{at}")].get(), expected, "{name} {literal}");
    }
}

#[tokio::test]
async fn types_that_changed_since() {
    let mut database = Database::new("types_that_changed_since").await;
    database.sql("CREATE TYPE pair AS (a integer, b text); CREATE TABLE t (p pair, m text)").await;
    database.sql("INSERT INTO t VALUES (ROW(1, 'x'), 'm'); ALTER TYPE pair ADD ATTRIBUTE c boolean").await;
    assert_eq!(database.told().await.changes(), [r#"Created public.t - -> {"p":"(1,x)","m":"m"}"#]);
    // A new version of the table reads the type again.
    let notes =
        database.run("ALTER TABLE t ADD n integer; INSERT INTO t VALUES (ROW(1, 'x', true), 'm', 1)").await;
    assert_eq!(notes.changes(), [r#"Created public.t - -> {"p":{"a":1,"b":"x","c":true},"m":"m","n":1}"#]);
    // Table and type are gone before the log is read.
    database.sql("CREATE TYPE e AS ENUM ('x'); CREATE TABLE u (b e, a integer PRIMARY KEY)").await;
    let notes = database.run("INSERT INTO u VALUES ('x', 1); DROP TABLE u; DROP TYPE e").await;
    assert_eq!(notes.changes(), [r#"Created public.u - -> {"b":"x","a":1}"#]);
    assert_eq!(notes.keys, ["a"]);
}

#[tokio::test]
async fn sql_ascii_bytes_are_refused_value_by_value() {
    let mut database = Database::with("sql_ascii", "ENCODING 'SQL_ASCII'", "").await;
    // With UTF8 the plugin itself fails on such a row, for ever.
    database.sql("SET client_encoding = 'SQL_ASCII'").await;
    let notes =
        database.run(r"CREATE TABLE t (a text, b text); INSERT INTO t VALUES (E'\xff', 'fine')").await;
    let line = &notes.changes()[0];
    assert!(
        line.contains(r#""a":<unwritable"#) && line.contains("SQL_ASCII") && line.contains(r#""b":"fine""#),
        "{line}"
    );
}

#[tokio::test]
async fn replica_identities() {
    let mut database = Database::new("replica_identities").await;
    database.sql("CREATE TABLE t (a integer, b integer, c text, PRIMARY KEY (b, a))").await;
    let notes = database
        .run("INSERT INTO t VALUES (1, 2, 'x'); UPDATE t SET c = 'y'; UPDATE t SET a = 3; DELETE FROM t")
        .await;
    assert_eq!(
        notes.changes(),
        [
            r#"Created public.t - -> {"a":1,"b":2,"c":"x"}"#,
            r#"Updated public.t - -> {"a":1,"b":2,"c":"y"}"#,
            r#"Updated public.t {"a":1,"b":2} -> {"a":3,"b":2,"c":"y"}"#,
            r#"Deleted public.t {"a":3,"b":2} -> -"#,
        ]
    );
    assert_eq!(notes.keys, ["b,a"; 4]);

    let notes = database
        .run("ALTER TABLE t REPLICA IDENTITY FULL; INSERT INTO t VALUES (1, 2, NULL); UPDATE t SET c = 'y'; DELETE FROM t")
        .await;
    assert_eq!(
        notes.changes(),
        [
            r#"Created public.t - -> {"a":1,"b":2,"c":null}"#,
            r#"Updated public.t {"a":1,"b":2,"c":null} -> {"a":1,"b":2,"c":"y"}"#,
            r#"Deleted public.t {"a":1,"b":2,"c":"y"} -> -"#,
        ]
    );
    assert_eq!(notes.keys, ["b,a"; 3]);

    let notes = database
        .run(
            "ALTER TABLE t ALTER c SET NOT NULL; CREATE UNIQUE INDEX u ON t (c, a) INCLUDE (b);
             ALTER TABLE t REPLICA IDENTITY USING INDEX u;
             INSERT INTO t VALUES (1, 2, 'x'); DELETE FROM t",
        )
        .await;
    assert_eq!(notes.changes()[1], r#"Deleted public.t {"a":1,"c":"x"} -> -"#);
    assert_eq!(notes.keys, ["c,a"; 2]);

    let notes =
        database.run("ALTER TABLE t REPLICA IDENTITY NOTHING; INSERT INTO t VALUES (1, 2, 'x')").await;
    assert_eq!(notes.keys, ["b,a"]);

    let notes = database
        .run(
            "CREATE TABLE n (a integer); INSERT INTO n VALUES (1);
             ALTER TABLE n REPLICA IDENTITY FULL; INSERT INTO n VALUES (2);
             ALTER TABLE n ADD PRIMARY KEY (a); INSERT INTO n VALUES (3)",
        )
        .await;
    // The catalog is newer than the log: FULL says nothing of a key, so the one of now is taken.
    assert_eq!(notes.keys, ["", "a", "a"]);
}

#[tokio::test]
async fn toast() {
    let mut database = Database::new("toast").await;
    database.sql("CREATE TABLE t (id integer PRIMARY KEY, long text, n integer)").await;
    database.sql("ALTER TABLE t ALTER long SET STORAGE EXTERNAL").await;
    database.sql("INSERT INTO t VALUES (1, repeat('x', 5000), 1)").await;
    database.told().await;
    let long = "x".repeat(5000);
    let notes = database.run("UPDATE t SET n = 2; UPDATE t SET id = 2").await;
    assert_eq!(
        notes.changes(),
        [r#"Updated public.t - -> {"id":1,"n":2}"#, r#"Updated public.t {"id":1} -> {"id":2,"n":2}"#]
    );
    let notes = database.run("ALTER TABLE t REPLICA IDENTITY FULL; UPDATE t SET n = 3; DELETE FROM t").await;
    assert_eq!(
        notes.changes(),
        [
            format!(
                r#"Updated public.t {{"id":2,"long":"{long}","n":2}} -> {{"id":2,"long":"{long}","n":3}}"#
            ),
            format!(r#"Deleted public.t {{"id":2,"long":"{long}","n":3}} -> -"#),
        ]
    );
    // A key that is itself out of line, and stays as it was.
    database.sql("CREATE TABLE k (long text PRIMARY KEY, n integer); ALTER TABLE k ALTER long SET STORAGE EXTERNAL").await;
    let notes = database.run("INSERT INTO k VALUES (repeat('x', 2500), 1); UPDATE k SET n = 2").await;
    let long = "x".repeat(2500);
    assert_eq!(
        notes.changes()[1],
        format!(r#"Updated public.k {{"long":"{long}"}} -> {{"long":"{long}","n":2}}"#)
    );
}

#[tokio::test]
async fn a_table_changes_within_a_transaction() {
    let mut database = Database::new("a_table_changes").await;
    let notes = database
        .run(
            "CREATE TABLE t (id integer PRIMARY KEY, a integer);
             BEGIN;
             INSERT INTO t VALUES (1, 1);
             ALTER TABLE t ALTER a TYPE text, ADD b boolean DEFAULT true;
             INSERT INTO t VALUES (2, 'x');
             SAVEPOINT s; INSERT INTO t VALUES (3, 'lost'); ROLLBACK TO s;
             ALTER TABLE t RENAME a TO z;
             INSERT INTO t VALUES (4, 'y');
             COMMIT;
             COMMENT ON TABLE t IS 'the same shape again'; ALTER TABLE t SET (fillfactor = 50);
             INSERT INTO t VALUES (5, 'z');",
        )
        .await;
    assert_eq!(
        notes.lines(),
        [
            "begin",
            r#"Created public.t - -> {"id":1,"a":1}"#,
            r#"Created public.t - -> {"id":2,"a":"x","b":true}"#,
            r#"Created public.t - -> {"id":4,"z":"y","b":true}"#,
            "commit",
            "begin",
            r#"Created public.t - -> {"id":5,"z":"z","b":true}"#,
            "commit",
        ]
    );
    let [one, two, three, four] = notes.relations[..] else { panic!() };
    assert!(one < two && two < three && three == four, "{:?}", notes.relations);
}

#[tokio::test]
async fn tables_that_are_left_out() {
    let mut database = Database::new("tables_left_out").await;
    let notes = database
        .run(
            "CREATE TABLE left_out (id integer PRIMARY KEY); CREATE TABLE t (id integer PRIMARY KEY);
             BEGIN; INSERT INTO left_out VALUES (1); INSERT INTO t VALUES (1); UPDATE left_out SET id = 2; COMMIT;
             INSERT INTO left_out VALUES (3);
             TRUNCATE left_out, t RESTART IDENTITY CASCADE",
        )
        .await;
    assert_eq!(
        notes.lines(),
        [
            "begin",
            r#"Created public.t - -> {"id":1}"#,
            "commit",
            "begin",
            "Truncated public.t - -> -",
            "commit",
        ]
    );
}

#[tokio::test]
async fn partitions_under_their_own_names() {
    let notes = partitions(&mut Database::new("partitions_own").await).await;
    assert_eq!(
        notes.changes(),
        [
            r#"Created public.low - -> {"id":1,"a":"x"}"#,
            r#"Deleted public.low {"id":1} -> -"#,
            r#"Created public.high - -> {"a":"x","id":200}"#,
            "Truncated public.low - -> -",
            "Truncated public.high - -> -",
        ]
    );
}

#[tokio::test]
async fn partitions_under_their_root() {
    let mut database =
        Database::with("partitions_root", "", "WITH (publish_via_partition_root = true)").await;
    let notes = partitions(&mut database).await;
    assert_eq!(
        notes.changes(),
        [
            r#"Created public.t - -> {"id":1,"a":"x"}"#,
            r#"Deleted public.t {"id":1} -> -"#,
            r#"Created public.t - -> {"id":200,"a":"x"}"#,
            "Truncated public.t - -> -",
        ]
    );
    assert_eq!(notes.keys, ["id"; 4]);
}

async fn partitions(database: &mut Database) -> server::Notes {
    database
        .run(
            "CREATE TABLE t (id integer PRIMARY KEY, a text) PARTITION BY RANGE (id);
             CREATE TABLE low PARTITION OF t FOR VALUES FROM (0) TO (100);
             CREATE TABLE high (a text, id integer NOT NULL PRIMARY KEY);
             ALTER TABLE t ATTACH PARTITION high FOR VALUES FROM (100) TO (1000);",
        )
        .await;
    database.run("INSERT INTO t VALUES (1, 'x'); UPDATE t SET id = 200; TRUNCATE t").await
}

#[tokio::test]
async fn messages_and_positions() {
    let mut database = Database::new("messages").await;
    database.sql("CREATE TABLE t (id integer PRIMARY KEY)").await;
    database.told().await;
    database
        .sql(
            "BEGIN; INSERT INTO t VALUES (1);
             SELECT pg_logical_emit_message(true, 'audit', 'within');
             SELECT pg_logical_emit_message(true, 'headgate.heartbeat', '');
             SELECT pg_logical_emit_message(false, 'audit', 'alone');
             COMMIT;
             BEGIN; SELECT pg_logical_emit_message(false, 'audit', 'rolled back'); ROLLBACK;
             SELECT pg_logical_emit_message(false, 'headgate.heartbeat', '');
             SELECT pg_logical_emit_message(true, 'headgate.context', '{}')",
        )
        .await;
    let notes = database.told().await;
    assert_eq!(
        notes.lines(),
        [
            "message audit alone false",
            "begin",
            r#"Created public.t - -> {"id":1}"#,
            "message audit within true",
            "commit",
            "message audit rolled back false",
            "progress",
            "begin",
            "message headgate.context {} true",
            "commit",
        ]
    );
    let [
        _,
        Told::Begin(first),
        _,
        _,
        Told::Commit(first_end),
        _,
        Told::Progress(beat),
        Told::Begin(second),
        ..,
    ] = notes.told()
    else {
        panic!()
    };
    // The message that stands alone is the last record before the commit record (unless another test writes just then):
    // it ends where that begins, and still has a position of its own.
    assert!(notes.positions[0] < first.commit);
    let alone = notes.positions[2];
    assert!(first_end.log <= alone && alone < beat.log && beat.log <= second.commit, "{:?}", notes.told());
    assert_eq!(*first_end, Progress { epoch: 1, log: first_end.log });
}

#[tokio::test]
async fn transactions_say_when_and_who() {
    let mut database = Database::new("transactions").await;
    database.sql("CREATE TABLE t (id integer PRIMARY KEY)").await;
    database.told().await;
    database.sql("BEGIN; INSERT INTO t VALUES (1)").await;
    let row = database
        .client
        .query_one(
            "SELECT pg_current_xact_id()::text, (extract(epoch FROM clock_timestamp()) * 1e6)::int8",
            &[],
        )
        .await
        .unwrap();
    database.sql("COMMIT").await;
    let notes = database.told().await;
    let Told::Begin(Transaction { id, committed_at, .. }) = &notes.told()[0] else { panic!() };
    assert_eq!(*id, row.get::<_, String>(0));
    let late = committed_at - row.get::<_, i64>(1);
    assert!((0..10_000_000).contains(&late), "{late}");
}

#[tokio::test]
async fn disorder_and_oversize() {
    let mut database = Database::new("disorder").await;
    database.sql("CREATE TABLE t (id integer PRIMARY KEY); INSERT INTO t VALUES (1)").await;
    let payloads = database.payloads().await;
    let rows: Vec<&[u8]> = payloads.iter().map(|(_, payload)| payload.as_slice()).collect();
    let [.., begin, relation, insert, commit] = rows[..] else { panic!("{rows:?}") };
    let mut notes = server::Notes::default();
    let outlet = &mut notes;
    let replay = database.replay();
    let mut expect = async |payload: &[u8], expected: &str| {
        let error = replay.message(payload, 0x1_0000_000A, outlet).await.map_err(|error| error.to_string());
        match error {
            Ok(()) => assert_eq!(expected, ""),
            Err(error) => assert!(!expected.is_empty() && error.contains(expected), "{error}"),
        }
    };
    expect(insert, "a row comes outside a transaction").await;
    expect(commit, "a commit comes outside a transaction").await;
    expect(begin, "").await;
    expect(begin, "a transaction begins within another").await;
    expect(insert, "was not described").await;
    expect(relation, "").await;
    expect(insert, "").await;
    expect(&insert[..insert.len() - 1], "cannot decode the log at 1/A: Insert message, value").await;
    expect(b"?", "unknown message").await;
    expect(b"", "empty message").await;

    let replay = database.replay();
    let outlet = &mut notes;
    replay.oversized(&insert[..5], 99, outlet).unwrap();
    let mut message = b"M\0".to_vec();
    message.extend(u64::MAX.to_be_bytes());
    message.extend(b"audit\0");
    assert!(replay.oversized(&message, 99, outlet).unwrap_err().message().contains("stands alone"));
    replay.message(commit, 0, outlet).await.unwrap();
    replay.oversized(&message, 98, outlet).unwrap();
    assert!(replay.oversized(b"R....", 99, outlet).unwrap_err().fix().unwrap().contains("max_row"));
    assert_eq!(
        notes.lines(),
        [
            "begin",
            r#"Created public.t - -> {"id":1}"#,
            r#"reject Some("public.t") the row has 99 bytes on the wire, more than `max_row` allows 99"#,
            "commit",
            "begin",
            r#"reject None the logical message "audit" has 98 bytes on the wire, more than `max_row` allows 98"#,
            "commit",
        ]
    );
}
