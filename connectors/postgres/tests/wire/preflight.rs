//! Checks find what would stop a run, and say what fixes it.

use crate::server::Server;
use headgate_postgres::{Config, check};
use headgate_sdk::{Finding, Severity};
use headgate_test_servers::postgres::Stop;

fn found<'a>(findings: &'a [Finding], subject: &str) -> &'a Finding {
    findings
        .iter()
        .find(|finding| finding.subject == subject)
        .unwrap_or_else(|| panic!("no {subject} in {findings:#?}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fit_database_has_no_errors() {
    let server = Server::start(&[]).await;
    server
        .admin()
        .await
        .batch_execute("CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE bare (id int)")
        .await
        .unwrap();
    let findings = check("shop", &Config::new(server.url())).await;
    assert!(findings.iter().all(|finding| finding.severity < Severity::Error), "{findings:#?}");
    assert_eq!(found(&findings, "replica identity of public.bare").severity, Severity::Warning);
    assert_eq!(found(&findings, "max_slot_wal_keep_size").severity, Severity::Warning);
    assert_eq!(found(&findings, "tables").what, "2 captured: public.bare, public.t");
    assert_eq!(found(&findings, "pooler").severity, Severity::Good);
    let slots: i64 = server
        .admin()
        .await
        .query_one(
            "SELECT (SELECT count(*) FROM pg_replication_slots) + (SELECT count(*) FROM pg_publication)",
            &[],
        )
        .await
        .unwrap()
        .get(0);
    assert_eq!(slots, 0, "a check changes nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unfit_database_is_told_why() {
    let server = Server::start(&[("wal_level", "replica"), ("max_replication_slots", "0")]).await;
    server
        .admin()
        .await
        .batch_execute("CREATE ROLE cdc LOGIN; CREATE TABLE t (id int PRIMARY KEY)")
        .await
        .unwrap();
    server.0.allow("host all cdc all trust").await;
    let config = Config::new(format!("postgres://cdc@127.0.0.1:{}/postgres", server.port()));
    let findings = check("shop", &config).await;
    for subject in ["wal_level", "replication", "max_replication_slots", "ownership", "publication"] {
        let finding = found(&findings, subject);
        assert!(
            finding.severity == Severity::Error && finding.fix.is_some() && !finding.why.is_empty(),
            "{finding:#?}"
        );
    }
    let findings = check("shop", &Config { tables: vec!["none.*".to_owned()], ..config }).await;
    assert_eq!(found(&findings, "tables").severity, Severity::Error);
    let findings = check("shop", &Config::new("postgres://cdc@127.0.0.1:1/postgres")).await;
    assert_eq!(found(&findings, "connection").severity, Severity::Error);
}

/// Carries out what a finding says fixes it: the first statement or statements that it names.
async fn fix(server: &Server, finding: &Finding) {
    let fix = finding.fix.as_deref().unwrap_or_else(|| panic!("no fix: {finding:#?}"));
    let begins =
        ["ALTER ", "GRANT ", "SELECT ", "BEGIN", "DROP "].iter().filter_map(|verb| fix.find(verb)).min();
    let mut statement = &fix[begins.unwrap_or_else(|| panic!("no statement: {finding:#?}"))..];
    for end in [" -- ", "; on Amazon", "; or ", ", or ", "; then restart"] {
        statement = statement.split(end).next().unwrap();
    }
    if let Some(block) = statement.strip_prefix("BEGIN; ") {
        return server.admin().await.batch_execute(&format!("BEGIN; {block}")).await.unwrap();
    }
    // ALTER SYSTEM stands alone: several statements at once are one transaction.
    for part in statement.split("; ") {
        server.admin().await.batch_execute(part).await.unwrap_or_else(|error| panic!("{part}: {error:?}"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_statements_that_it_names_make_a_poor_role_fit() {
    let server = Server::start(&[("max_slot_wal_keep_size", "16MB")]).await;
    let admin = server.admin().await;
    admin
        .batch_execute(
            "CREATE ROLE cdc LOGIN PASSWORD 'cdc'; CREATE ROLE boss; CREATE SCHEMA secret; CREATE TABLE secret.t (id int PRIMARY KEY); \
             ALTER TABLE secret.t OWNER TO boss; ALTER TABLE secret.t ENABLE ROW LEVEL SECURITY; \
             CREATE TABLE public.bare (id int); ALTER TABLE public.bare OWNER TO boss; \
             DO $$ DECLARE f regprocedure; BEGIN \
               FOR f IN SELECT oid FROM pg_proc WHERE proname = 'pg_logical_emit_message' LOOP \
                 EXECUTE 'REVOKE EXECUTE ON FUNCTION ' || f || ' FROM PUBLIC'; END LOOP; END $$",
        )
        .await
        .unwrap();
    let url = format!("postgres://cdc:cdc@127.0.0.1:{}/postgres", server.port());
    let config = Config { tables: vec!["*.*".to_owned()], ..Config::new(url) };
    let findings = check("shop", &config).await;
    for subject in ["replication", "ownership", "publication"] {
        assert_eq!(found(&findings, subject).severity, Severity::Error, "{findings:#?}");
    }
    for subject in ["statistics", "heartbeat", "SELECT", "row security"] {
        assert_eq!(found(&findings, subject).severity, Severity::Warning, "{findings:#?}");
    }
    for subject in ["replication", "publication", "statistics", "heartbeat", "SELECT", "row security"] {
        fix(&server, found(&findings, subject)).await;
    }
    admin.batch_execute("GRANT boss TO cdc; ALTER TABLE public.bare REPLICA IDENTITY FULL").await.unwrap();
    // While something is written, the time that the limit gives is known.
    let load = tokio::spawn({
        let writer = server.admin().await;
        async move {
            loop {
                writer
                    .execute("SELECT pg_logical_emit_message(false, 'x', repeat('x', 100000))", &[])
                    .await
                    .unwrap();
            }
        }
    });
    let findings = check("shop", &config).await;
    load.abort();
    let keep = found(&findings, "max_slot_wal_keep_size");
    assert!(keep.severity == Severity::Warning && keep.what.contains("/s of log"), "{keep:#?}");
    let open: Vec<&Finding> = findings
        .iter()
        .filter(|f| f.severity > Severity::Good && f.subject != "max_slot_wal_keep_size")
        .collect();
    assert!(open.is_empty(), "{open:#?}");
    let size = keep.fix.as_deref().unwrap().split('\'').nth(1).unwrap();
    assert!(size.ends_with("GB") && size != "10GB", "{keep:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publication_that_makes_writes_fail_is_found_out() {
    let server = Server::start(&[]).await;
    let admin = server.admin().await;
    admin
        .batch_execute(
            "CREATE TABLE bare (id int); INSERT INTO bare VALUES (1); \
             CREATE TABLE listed (id int PRIMARY KEY, a int, b int); INSERT INTO listed VALUES (1, 1, 1); \
             ALTER TABLE listed REPLICA IDENTITY FULL; CREATE TABLE good (id int PRIMARY KEY, a int, b int); \
             CREATE PUBLICATION mine FOR TABLE bare, listed (id, a), good (id, a) WHERE (id > 5) \
               WITH (publish = 'insert, update, delete')",
        )
        .await
        .unwrap();
    let config = Config { publication: Some("mine".to_owned()), ..Config::new(server.url()) };
    let findings = check("shop", &config).await;
    for (subject, write) in [
        ("replica identity of public.bare", "UPDATE bare SET id = 2"),
        ("column list of public.listed", "UPDATE listed SET a = 2"),
    ] {
        assert_eq!(found(&findings, subject).severity, Severity::Error, "{findings:#?}");
        assert!(admin.batch_execute(write).await.is_err(), "{write} works although {subject} says not");
    }
    let list = found(&findings, "column list of public.good");
    assert!(list.severity == Severity::Warning && list.what == "leaves out b", "{list:#?}");
    assert!(admin.batch_execute("UPDATE good SET a = 2").await.is_ok());
    assert_eq!(found(&findings, "row filter of public.good").what, "WHERE (id > 5)");
    let told: Vec<&str> = findings.iter().filter(|f| f.subject == "publication").map(|f| &*f.what).collect();
    assert!(told.contains(&"mine does not publish truncate"), "{told:?}");
    assert!(told.contains(&"publish_via_partition_root is false"), "{told:?}");
    let missing = Config { publication: Some("none".to_owned()), ..config.clone() };
    assert_eq!(found(&check("shop", &missing).await, "publication").severity, Severity::Error);

    // What it names is gone after what it says.
    let meant = ["column list of public.good", "row filter of public.good"];
    let open = |findings: &[Finding]| -> Vec<Finding> {
        let about = |f: &&Finding| {
            ["publication", "replica", "column", "row"].iter().any(|word| f.subject.starts_with(word))
        };
        let open = |f: &&Finding| f.severity > Severity::Good && !meant.contains(&&*f.subject);
        findings.iter().filter(about).filter(open).cloned().collect()
    };
    assert_eq!(open(&findings).len(), 4, "{findings:#?}");
    for finding in open(&findings) {
        fix(&server, &finding).await;
    }
    let findings = check("shop", &config).await;
    assert!(open(&findings).is_empty(), "{findings:#?}");
    for write in ["UPDATE bare SET id = 2", "UPDATE listed SET a = 2", "DELETE FROM listed"] {
        admin.batch_execute(write).await.unwrap();
    }
}

/// Settings of the server, of which some need a restart.
#[tokio::test(flavor = "multi_thread")]
async fn the_settings_that_it_names_make_a_server_fit() {
    let mut server = Server::prepare(&[]);
    for setting in ["wal_level", "max_wal_senders", "max_replication_slots"] {
        server.0.leave(setting);
    }
    let unfit =
        "wal_level = replica\nmax_wal_senders = 0\nmax_replication_slots = 0\nwal_sender_timeout = 0\n";
    server.0.write("postgresql.auto.conf", unfit);
    server.up().await;
    let admin = server.admin().await;
    let version: i32 =
        admin.query_one("SELECT current_setting('server_version_num')::int", &[]).await.unwrap().get(0);
    let mut subjects = vec![
        "wal_level",
        "max_wal_senders",
        "max_replication_slots",
        "wal_sender_timeout",
        "connection limit",
    ];
    if version >= 180_000 {
        admin.batch_execute("ALTER SYSTEM SET idle_replication_slot_timeout = '1min'").await.unwrap();
        admin.batch_execute("SELECT pg_reload_conf()").await.unwrap();
        subjects.push("idle_replication_slot_timeout");
    }
    admin
        .batch_execute(
            "CREATE ROLE cdc LOGIN REPLICATION CONNECTION LIMIT 2 PASSWORD 'cdc'; CREATE TABLE t (id int PRIMARY KEY); \
             ALTER TABLE t OWNER TO cdc; GRANT CREATE ON DATABASE postgres TO cdc; GRANT pg_read_all_stats TO cdc; \
             CREATE UNLOGGED TABLE cache (id int PRIMARY KEY); ALTER TABLE cache OWNER TO cdc",
        )
        .await
        .unwrap();
    subjects.push("unlogged tables");
    let config = Config::new(format!("postgres://cdc:cdc@127.0.0.1:{}/postgres", server.port()));
    server.0.allow("host all,replication cdc all scram-sha-256").await;
    let findings = check("shop", &config).await;
    for subject in &subjects {
        let finding = found(&findings, subject);
        assert!(finding.severity > Severity::Good && !finding.why.is_empty(), "{finding:#?}");
        fix(&server, finding).await;
    }
    drop(admin);
    server.stop(Stop::Fast).await;
    server.up().await;
    let findings = check("shop", &config).await;
    let open: Vec<&Finding> = findings
        .iter()
        .filter(|f| f.severity > Severity::Good && f.subject != "max_slot_wal_keep_size")
        .collect();
    assert!(open.is_empty(), "{open:#?}");
    assert_eq!(found(&findings, "tables").what, "2 captured: public.cache, public.t");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_log_does_not_hold_and_who_waits_for_us_is_told() {
    let server = Server::start(&[("synchronous_standby_names", "*"), ("synchronous_commit", "local")]).await;
    let admin = server.admin().await;
    admin
        .batch_execute(
            "CREATE TABLE made (id int PRIMARY KEY, twice int GENERATED ALWAYS AS (id * 2) STORED); \
             CREATE UNLOGGED TABLE cache (id int PRIMARY KEY); CREATE VIEW seen AS SELECT 1 AS one; \
             CREATE TABLE days (id int, day date, PRIMARY KEY (id, day)) PARTITION BY RANGE (day); \
             CREATE TABLE days_1 PARTITION OF days FOR VALUES FROM ('2026-01-01') TO ('2027-01-01')",
        )
        .await
        .unwrap();
    let findings = check("shop", &Config::new(server.url())).await;
    assert_eq!(found(&findings, "synchronous_standby_names").severity, Severity::Error);
    assert_eq!(found(&findings, "unlogged tables").what, "not captured: public.cache");
    assert_eq!(found(&findings, "views").what, "not captured: public.seen");
    assert!(found(&findings, "partitions").what.ends_with("public.days for 1"));
    assert_eq!(found(&findings, "clock").severity, Severity::Good);
    let version: i32 =
        admin.query_one("SELECT current_setting('server_version_num')::int", &[]).await.unwrap().get(0);
    let generated = findings.iter().find(|f| f.subject == "generated columns of public.made");
    assert_eq!(generated.is_some(), version < 180_000, "{findings:#?}");
}
