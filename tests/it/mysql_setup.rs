//! From a MySQL or MariaDB server to a configuration that runs: `init`, `check` and its fixes, how a connection is secured,
//! and the alarm before log is purged.

use crate::support::{
    eventually,
    gateway::{Gateway, Settings},
    mysql::{MySql, PASSWORD, Version},
    mysql_shop::{MySqlShop, is_mark, mark, write},
    nats::Nats,
    stream,
    tls::Authority,
};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    path::Path,
    process::{Command, Output},
    time::Duration,
};

const STREAM: &str = "EVENTS_shop";
const PATIENCE: Duration = Duration::from_secs(30);

fn init(directory: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_headgate"));
    command.current_dir(directory).env_remove("HEADGATE_CONFIG").env_remove("MYSQL_PWD").arg("init");
    let output = command.args(arguments).output().unwrap();
    for told in [&output.stdout, &output.stderr] {
        let told = String::from_utf8_lossy(told);
        assert!(!told.contains(PASSWORD), "{told}");
    }
    output
}

/// What `check` finds of the source `shop`, each by its subject: severity, and all that is said.
fn findings(output: &Output) -> BTreeMap<String, (String, Value)> {
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(!text.contains(PASSWORD), "{text}");
    let answer: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    let mut found = BTreeMap::new();
    for finding in answer["findings"].as_array().unwrap() {
        if finding["scope"] == "shop" {
            let text = |key: &str| finding[key].as_str().unwrap_or_default().to_owned();
            found.insert(text("subject"), (text("severity"), finding.clone()));
        }
    }
    found
}

fn check(gateway: &Gateway) -> BTreeMap<String, (String, Value)> {
    findings(&gateway.command().args(["check", "--json"]).output().unwrap())
}

/// Subjects of what is not good.
fn open(findings: &BTreeMap<String, (String, Value)>) -> Vec<&str> {
    findings
        .iter()
        .filter(|(_, (severity, _))| severity != "good")
        .map(|(subject, _)| subject.as_str())
        .collect()
}

/// The account that `init` proposes, made by exactly the statements that it names, can run what it writes.
async fn proposes_what_runs(version: Version, settings: &[&str]) {
    if !version.is_installed() {
        return;
    }
    let server = MySql::start(version, settings).await;
    server
        .execute(&[
            "CREATE TABLE orders (id int PRIMARY KEY, status text)",
            "CREATE TABLE `odd ``name` (id int PRIMARY KEY)",
            "CREATE TABLE bare (id int)",
            "CREATE DATABASE shop_secret",
            "CREATE TABLE shop_secret.`keys` (id int PRIMARY KEY)",
            "CREATE TABLE hidden (id int PRIMARY KEY)",
        ])
        .await;
    let nats = Nats::start().await;
    let directory = tempfile::tempdir().unwrap();
    let url = server.url().replace("://cdc:", "://app:");
    let bus = nats.urls().join(",");
    let globs = ["--table", "shop.*", "--table", "!shop.hidden"];
    let arguments =
        [&[url.as_str(), "--role", "least", "--nats", &bus, "--outage-budget", "1h"], &globs[..]].concat();
    // What is written while it looks.
    let writing = tokio::spawn({
        let mut session = server.session().await;
        async move {
            use mysql_async::prelude::Queryable as _;
            for id in 1..2000 {
                session.query_drop(format!("INSERT INTO orders VALUES ({id}, 'early')")).await.unwrap();
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        }
    });
    let place = directory.path().to_owned();
    let owned: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
    let output = tokio::task::spawn_blocking(move || {
        init(&place, &owned.iter().map(String::as_str).collect::<Vec<_>>())
    })
    .await
    .unwrap();
    writing.abort();
    let _ = writing.await;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(!said.contains(" 0 B/s of log"), "much is written: {said}");
    let text = std::fs::read_to_string(directory.path().join("config.toml")).unwrap();
    assert!(text.contains("url = \"mysql://least:${SHOP_PASSWORD}@"), "{text}");
    let line = text.lines().find(|line| line.contains("shop.orders")).unwrap();
    let written: f64 =
        line.split_whitespace().rev().nth(1).unwrap().parse().unwrap_or_else(|_| panic!("{text}"));
    assert!(written > 1.0, "{line}");
    assert!(text.lines().any(|line| line.contains("shop.bare") && line.ends_with("none")), "{text}");
    assert_eq!(init(directory.path(), &arguments).status.code(), Some(78), "a file that is there stays");

    let statements =
        text.lines().filter_map(|line| line.strip_prefix("#   ")).filter(|line| line.ends_with(';'));
    let statements: Vec<String> = statements.map(|statement| statement.replace('…', "sesame")).collect();
    assert!(statements.len() > 3, "{text}");
    for statement in &statements {
        assert!(!statement.contains("secret") && !statement.contains("hidden"), "{statement}");
        server.execute(&[statement.trim_end_matches(';')]).await;
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_headgate"));
    command.current_dir(directory.path()).env_remove("HEADGATE_CONFIG").env("SHOP_PASSWORD", "sesame");
    let output = command.args(["check", "--json"]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(open(&findings(&output)), ["key of shop.bare"], "{output:?}");

    let source = server.url().replace(&format!("cdc:{PASSWORD}"), "least:sesame");
    let source_lines = text.lines().find(|line| line.starts_with("tables =")).unwrap().to_owned();
    let settings = Settings { connector: "mysql", source_lines, ..Settings::new(&nats, source) };
    let _gateway = Gateway::start(&settings).await;
    server
        .execute(&[
            "INSERT INTO orders VALUES (-1, 'new')",
            "INSERT INTO `odd ``name` VALUES (1)",
            "INSERT INTO shop_secret.`keys` VALUES (1)",
            "INSERT INTO hidden VALUES (1)",
            "INSERT INTO bare VALUES (1)",
        ])
        .await;
    eventually("the events of the proposed tables", PATIENCE, || async {
        let events = stream::read(&nats, STREAM).await;
        let told: Vec<&str> = events.iter().map(|event| event.attribute("type")).collect();
        let expected = ["shop.orders.created", "shop.odd%20`name.created", "shop.bare.created"];
        if told == expected { Ok(()) } else { Err(format!("{told:?}")) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn init_proposes_what_runs_mysql() {
    proposes_what_runs(Version::MySql97, &["--performance-schema=ON", "--binlog-expire-logs-seconds=86400"])
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn init_proposes_what_runs_mariadb() {
    proposes_what_runs(Version::MariaDb118, &["--userstat=ON", "--binlog-expire-logs-seconds=86400"]).await;
}

/// Everything that can be changed while the server runs is fixed by the statement that `check` names.
async fn fixes_what_it_finds(version: Version, bad: &[&str], expected: &[&str], left: &[&str]) {
    let bad =
        [&["--binlog-row-image=MINIMAL", "--binlog-row-metadata=MINIMAL", "--binlog-checksum=NONE"], bad]
            .concat();
    let Some(shop) = MySqlShop::with(version, &bad).await else { return };
    shop.server
        .execute(&[
            "CREATE TABLE keyless (a int, b int, UNIQUE KEY (a))",
            "CREATE TABLE named (a int NOT NULL, UNIQUE KEY (a))",
            "CREATE TABLE parent (id int PRIMARY KEY)",
            "CREATE TABLE child (id int PRIMARY KEY, parent_id int, FOREIGN KEY (parent_id) REFERENCES parent (id) ON DELETE CASCADE)",
        ])
        .await;
    let lines = "tables = [\"shop.*\", \"absent.*\"]\noutage_budget = \"2h\"\n".to_owned();
    let gateway = Gateway::configure(&Settings { source_lines: lines, ..shop.settings() });
    let found = check(&gateway);
    assert_eq!(open(&found), expected, "{found:?}");
    for (severity, finding) in found.values().filter(|(severity, _)| severity != "good") {
        let fix = finding["fix"].as_str().unwrap_or_default();
        assert!(
            !fix.is_empty() && !finding["why"].as_str().unwrap_or_default().is_empty(),
            "{severity}: {finding}"
        );
        if fix.starts_with("SET ") || fix.starts_with("ALTER TABLE") {
            let statement = fix.split("; ").next().unwrap();
            if !statement.contains("enforce_gtid") {
                shop.server.execute(&[statement]).await;
            }
        }
    }
    let found = check(&gateway);
    assert_eq!(open(&found), left, "{found:?}");
}

#[tokio::test]
async fn check_fixes_what_it_finds_mysql() {
    fixes_what_it_finds(
        Version::MySql97,
        &["--binlog-expire-logs-seconds=3600", "--gtid-mode=OFF", "--enforce-gtid-consistency=OFF"],
        &[
            "binlog_checksum",
            "binlog_row_image",
            "binlog_row_metadata",
            "gtid_mode",
            "key of shop.keyless",
            "retention",
            "tables",
        ],
        &["gtid_mode", "tables"],
    )
    .await;
}

#[tokio::test]
async fn check_fixes_what_it_finds_mariadb() {
    fixes_what_it_finds(
        Version::MariaDb118,
        &["--binlog-expire-logs-seconds=3600", "--max-binlog-total-size=1G", "--binlog-do-db=elsewhere"],
        &[
            "binlog_checksum",
            "binlog_row_image",
            "binlog_row_metadata",
            "foreign keys of shop.child",
            "key of shop.keyless",
            "log of shop",
            "max_binlog_total_size",
            "retention",
            "tables",
        ],
        &["foreign keys of shop.child", "log of shop", "tables"],
    )
    .await;
}

/// Whose the id is under which the log is read.
#[tokio::test]
async fn check_tells_whether_a_gateway_reads_already() {
    let Some(shop) = MySqlShop::open(Version::MySql97).await else { return };
    let mut gateway = shop.gateway().await;
    let found = check(&gateway);
    assert!(found["reader's id"].1["what"].as_str().unwrap().contains("a gateway is reading"), "{found:?}");
    let refused = gateway.command().args(["source", "drop", "shop", "--yes"]).output().unwrap();
    assert_eq!(refused.status.code(), Some(78), "it would go on and remember its place again: {refused:?}");
    gateway.kill9();
    shop.server.execute(&["REVOKE REPLICATION CLIENT ON *.* FROM cdc"]).await;
    let output = gateway.command().args(["check", "--json"]).output().unwrap();
    let found = findings(&output);
    assert_eq!(output.status.code(), Some(69));
    let fix = "GRANT REPLICATION CLIENT ON *.* TO `cdc`@`%`";
    assert_eq!(found["privilege"].1["fix"], fix, "{found:?}");
}

/// What a server's certificate is worth, for every `ssl-mode`.
async fn secures_as_it_is_told(version: Version) {
    if !version.is_installed() {
        return;
    }
    let (authority, stranger) = (Authority::new(), Authority::new());
    let identity = authority.certify("localhost");
    let files = [
        format!("--ssl-ca={}", authority.certificate().display()),
        format!("--ssl-cert={}", identity.certificate.display()),
        format!("--ssl-key={}", identity.key.display()),
    ];
    let Some(shop) = MySqlShop::with(version, &files.each_ref().map(String::as_str)).await else { return };
    shop.server.execute(&["CREATE USER proven IDENTIFIED BY 'sesame' REQUIRE X509"]).await;
    let privileges =
        if version == Version::MySql97 { "REPLICATION CLIENT" } else { "BINLOG MONITOR, SLAVE MONITOR" };
    shop.server
        .execute(&[
            &format!("GRANT REPLICATION SLAVE, {privileges} ON *.* TO proven"),
            "GRANT SELECT ON shop.* TO proven",
        ])
        .await;
    let ca = |authority: &Authority| format!("&ssl-ca={}", authority.certificate().display());
    let (known, unknown) = (ca(&authority), ca(&stranger));
    let at = |host: &str, options: &str| {
        let source = format!("{}?{options}", shop.server.url().replace("127.0.0.1", host));
        let found = check(&Gateway::configure(&Settings { source, ..shop.settings() }));
        match found.get("transport") {
            Some((_, transport)) => Ok(transport["what"].as_str().unwrap().to_owned()),
            None => Err(found["connection"].1.to_string()),
        }
    };
    let tls = |found: Result<String, String>| found.is_ok_and(|version| version.starts_with("TLSv1."));
    // With caching_sha2_password too, which then asks the server for its key.
    assert!(at("127.0.0.1", "ssl-mode=disabled").unwrap().contains("in the clear"));
    for mode in ["preferred", "required"] {
        assert!(tls(at("127.0.0.1", &format!("ssl-mode={mode}"))), "{mode}");
    }
    for host in ["localhost", "127.0.0.1"] {
        assert!(tls(at(host, &format!("ssl-mode=verify_ca{known}"))), "the name does not matter: {host}");
    }
    assert!(tls(at("localhost", &format!("ssl-mode=verify_identity{known}"))));
    for (host, options) in [
        ("127.0.0.1", format!("ssl-mode=verify_identity{known}")),
        ("localhost", format!("ssl-mode=verify_identity{unknown}")),
        ("localhost", format!("ssl-mode=verify_ca{unknown}")),
        ("127.0.0.1", format!("ssl-mode=verify_ca{unknown}")),
        ("localhost", "ssl-mode=verify_identity".to_owned()),
    ] {
        let refused = at(host, &options).expect_err(&options);
        assert!(refused.contains("certificate") && refused.contains("ssl-ca"), "{options}: {refused}");
    }
    // A certificate of ours, and a whole run over it.
    let proven = authority.certify("proven");
    let login = shop.server.url().replace(&format!("cdc:{PASSWORD}@127.0.0.1"), "proven:sesame@localhost");
    let (certificate, key) = (proven.certificate.display(), proven.key.display());
    let source = format!("{login}?ssl-mode=verify_identity{known}&ssl-cert={certificate}&ssl-key={key}");
    let mut gateway = Gateway::start(&Settings { source, ..shop.settings() }).await;
    write(&shop.server, 3, 2, 40).join_all().await;
    shop.assert_faithful().await;
    assert_eq!(gateway.terminate(), Some(0));
}

#[tokio::test]
async fn connections_are_secured_as_they_are_told_mysql() {
    secures_as_it_is_told(Version::MySql97).await;
}

#[tokio::test]
async fn connections_are_secured_as_they_are_told_mariadb() {
    secures_as_it_is_told(Version::MariaDb1011).await;
}

/// Where the server cannot do what the URL or the account wants, it is said, and nothing falls back.
#[tokio::test]
async fn what_the_server_cannot_do_is_refused() {
    let shop = MySqlShop::with(Version::MariaDb1011, &[]).await.unwrap();
    let source = format!("{}?ssl-mode=required", shop.server.url());
    let found = check(&Gateway::configure(&Settings { source, ..shop.settings() }));
    assert!(found["connection"].1.to_string().contains("the server has no TLS"), "{found:?}");
    let Some(shop) = MySqlShop::open(Version::MySql97).await else { return };
    shop.server.execute(&["CREATE USER old IDENTIFIED WITH sha256_password BY 'sesame'"]).await;
    let source = shop.server.url().replace(&format!("cdc:{PASSWORD}"), "old:sesame");
    let found = check(&Gateway::configure(&Settings { source, ..shop.settings() }));
    assert!(found["connection"].1.to_string().contains("sha256_password"), "{found:?}");
}

/// Log that is not in the broker yet and will be purged is an alarm, and no longer one when it is.
async fn warns_before_log_is_purged(version: Version) {
    let Some(mut shop) = MySqlShop::with(version, &["--binlog-expire-logs-seconds=7200"]).await else {
        return;
    };
    let gateway = shop.gateway().await;
    let first = mark(&shop.server).await;
    stream::read_until(&shop.nats, STREAM, PATIENCE, |event| is_mark(event, &first)).await;
    let left = async || gateway.status().await["sources"][0]["log_expires_in_s"].clone();
    eventually("something is confirmed", PATIENCE, || async {
        let confirmed = gateway.status().await["sources"][0]["confirmed"].clone();
        if confirmed.is_null() { Err("nothing".to_owned()) } else { Ok(()) }
    })
    .await;
    assert!(left().await.is_null(), "nothing is about to go");
    shop.nats.kill9(0);
    shop.server.execute(&["INSERT INTO scratch VALUES (1, 'x')", "FLUSH BINARY LOGS"]).await;
    let last = mark(&shop.server).await;
    let seconds = eventually("the alarm", PATIENCE, || async {
        left().await.as_u64().ok_or_else(|| "no deadline".to_owned())
    })
    .await;
    assert!((7000..=7200).contains(&seconds), "{seconds}");
    let metric = gateway.metric("headgate_log_expires_seconds{source=\"shop\"}").await;
    assert!((7000.0..=7200.0).contains(&metric), "{metric}");
    assert!(gateway.log().contains("the server will purge log that was not read yet"), "{}", gateway.log());
    shop.nats.start_again(0).await;
    stream::read_until(&shop.nats, STREAM, PATIENCE, |event| is_mark(event, &last)).await;
    eventually("the alarm ends", PATIENCE, || async {
        if left().await.is_null() { Ok(()) } else { Err(left().await.to_string()) }
    })
    .await;
    assert_eq!(gateway.metric("headgate_log_expires_seconds{source=\"shop\"}").await, -1.0);
}

#[tokio::test]
async fn an_alarm_before_log_is_purged_mysql() {
    warns_before_log_is_purged(Version::MySql97).await;
}

#[tokio::test]
async fn an_alarm_before_log_is_purged_mariadb() {
    warns_before_log_is_purged(Version::MariaDb1011).await;
}

/// What settings of the gateway are held against.
#[tokio::test]
async fn tables_are_described_as_they_are() {
    for version in [Version::MySql97, Version::MariaDb118] {
        if !version.is_installed() {
            continue;
        }
        let server = MySql::start(version, &[]).await;
        server
            .execute(&[
                "CREATE TABLE pairs (a int, b int, c int AS (a + b) STORED, PRIMARY KEY (b, a))",
                "CREATE TABLE named (a int NOT NULL, b int, UNIQUE KEY (a))",
                "CREATE TABLE bare (a int)",
                "CREATE VIEW seen AS SELECT * FROM pairs",
            ])
            .await;
        let tables = vec!["shop.*".to_owned()];
        let config = headgate_mysql::Config { tables, ..headgate_mysql::Config::new(server.url()) };
        let shapes = headgate_mysql::tables(&config).await.unwrap();
        let described: Vec<(&str, String, String)> = shapes
            .iter()
            .map(|shape| (shape.table.as_str(), shape.columns.join(","), shape.key.join(",")))
            .collect();
        let expected = [("bare", "a", ""), ("named", "a,b", "a"), ("pairs", "a,b,c", "b,a")]
            .map(|(table, columns, key)| (table, columns.to_owned(), key.to_owned()));
        assert_eq!(described, expected);
        assert!(shapes.iter().all(|shape| shape.whole_before));
        server.execute(&["SET GLOBAL binlog_row_image = 'MINIMAL'"]).await;
        assert!(headgate_mysql::tables(&config).await.unwrap().iter().all(|shape| !shape.whole_before));
    }
}
