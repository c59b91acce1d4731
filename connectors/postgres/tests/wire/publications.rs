//! The publications follow the tables, and never make the application's statements fail.

use crate::{run::Run, server::Server};
use headgate_postgres::Config;
use headgate_sdk::{FaultKind, Resume};
use std::time::{Duration, Instant};
use tokio_postgres::Client;

async fn published(client: &Client) -> Vec<String> {
    client
        .query("SELECT substr(p.pubname::text, 14) || ' ' || r.prrelid::regclass::text FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid ORDER BY 1", &[])
        .await
        .unwrap()
        .iter()
        .map(|row| row.get(0))
        .collect()
}

async fn until(client: &Client, expected: &[&str]) {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let found = published(client).await;
        if found == expected {
            return;
        }
        assert!(Instant::now() < deadline, "{found:?} instead of {expected:?}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_come_and_go_and_change_sides() {
    let server = Server::start(&[]).await;
    let admin = server.admin().await;
    admin
        .batch_execute(
            "CREATE TABLE keyed (id int PRIMARY KEY); CREATE TABLE bare (id int); CREATE TABLE full_ (id int); ALTER TABLE full_ REPLICA IDENTITY FULL; \
             CREATE TABLE late (id int PRIMARY KEY DEFERRABLE); CREATE TABLE nothing (id int PRIMARY KEY); ALTER TABLE nothing REPLICA IDENTITY NOTHING; \
             CREATE UNLOGGED TABLE fleeting (id int PRIMARY KEY); CREATE TABLE secret (id int PRIMARY KEY); CREATE TABLE \"Odd.Na\"\"me\" (id int PRIMARY KEY); \
             CREATE TABLE parts (id int, PRIMARY KEY (id)) PARTITION BY RANGE (id); CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (10); \
             CREATE TABLE loose (id int) PARTITION BY RANGE (id); CREATE TABLE loose_1 PARTITION OF loose FOR VALUES FROM (0) TO (10)",
        )
        .await
        .unwrap();
    // As careful administrators set it. This session is older than that.
    admin.batch_execute("ALTER ROLE CURRENT_USER SET default_transaction_read_only = on").await.unwrap();
    let config = Config {
        tables: vec!["public.*".to_owned(), "!public.secret".to_owned()],
        ..Config::new(server.url())
    };
    let run = Run::start(&config, Resume::default()).streaming().await;
    let first = [
        " \"Odd.Na\"\"me\"",
        " full_",
        " keyed",
        " parts",
        "_append bare",
        "_append late",
        "_append loose",
        "_append nothing",
    ];
    until(&admin, &first).await;
    // The application goes on as before.
    admin
        .batch_execute(
            "INSERT INTO bare VALUES (1); UPDATE bare SET id = 2; DELETE FROM bare; INSERT INTO late VALUES (1); UPDATE late SET id = 2; INSERT INTO nothing VALUES (1); UPDATE nothing SET id = 3; \
             INSERT INTO full_ VALUES (1); UPDATE full_ SET id = 2; INSERT INTO loose VALUES (1); UPDATE loose SET id = 2; INSERT INTO parts VALUES (1); UPDATE parts SET id = 2",
        )
        .await
        .unwrap();
    run.until("events", |run| {
        run.events().iter().filter(|event| event.starts_with("public.parts ")).count() >= 2
    })
    .await;
    let events = run.events();
    assert!(
        events.contains(&"public.bare Created {\"id\":1}".to_owned())
            && !events.iter().any(|event| event.starts_with("public.bare Updated")),
        "{events:?}"
    );
    assert!(events.iter().any(|event| event.starts_with("public.full_ Updated")), "{events:?}");

    admin
        .batch_execute("DROP TABLE keyed; CREATE TABLE fresh (id int PRIMARY KEY); ALTER TABLE bare ADD PRIMARY KEY (id); ALTER TABLE full_ REPLICA IDENTITY DEFAULT; CREATE TABLE parts_2 PARTITION OF parts FOR VALUES FROM (10) TO (20)")
        .await
        .unwrap();
    until(
        &admin,
        &[
            " \"Odd.Na\"\"me\"",
            " bare",
            " fresh",
            " parts",
            "_append full_",
            "_append late",
            "_append loose",
            "_append nothing",
        ],
    )
    .await;
    admin.batch_execute("INSERT INTO fresh VALUES (7); INSERT INTO parts VALUES (11)").await.unwrap();
    run.until("events", |run| {
        run.events().contains(&"public.parts Created {\"id\":11}".to_owned())
            && run.events().contains(&"public.fresh Created {\"id\":7}".to_owned())
    })
    .await;
    run.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_speak_for_themselves_where_asked() {
    let server = Server::start(&[]).await;
    let admin = server.admin().await;
    admin
        .batch_execute("CREATE TABLE parts (id int PRIMARY KEY) PARTITION BY RANGE (id); CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (10)")
        .await
        .unwrap();
    let config = Config { partition_root: false, ..Config::new(server.url()) };
    let run = Run::start(&config, Resume::default()).streaming().await;
    until(&admin, &[" parts_1"]).await;
    admin.batch_execute("INSERT INTO parts VALUES (1)").await.unwrap();
    run.until("row", |run| run.events() == ["public.parts_1 Created {\"id\":1}"]).await;
    run.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_without_the_rights_is_told_which() {
    let server = Server::start(&[]).await;
    let admin = server.admin().await;
    admin
        .batch_execute(
            "CREATE ROLE cdc LOGIN REPLICATION; CREATE ROLE owner; CREATE TABLE t (id int PRIMARY KEY)",
        )
        .await
        .unwrap();
    server.0.allow("host all cdc all trust").await;
    let config = Config::new(format!("postgres://cdc@127.0.0.1:{}/postgres", server.port()));
    // A superuser's role is nothing to be granted.
    let (_, fault) = Run::start(&config, Resume::default()).fault().await;
    let fix = fault.fix().unwrap();
    assert!(
        fault.kind() == FaultKind::Definite
            && fix.contains("ALTER TABLE \"public\".\"t\" OWNER TO")
            && !fix.contains("GRANT"),
        "{fault} {fix}"
    );
    admin.batch_execute("ALTER TABLE t OWNER TO owner").await.unwrap();
    let (_, fault) = Run::start(&config, Resume::default()).fault().await;
    assert!(
        fault.kind() == FaultKind::Definite && fault.fix().unwrap().contains("GRANT \"owner\" TO \"cdc\""),
        "{fault} {:?}",
        fault.fix()
    );
    admin.batch_execute("ALTER TABLE t OWNER TO cdc").await.unwrap();
    let (_, fault) = Run::start(&config, Resume::default()).fault().await;
    assert!(
        fault.kind() == FaultKind::Definite
            && fault.fix().unwrap().contains("GRANT CREATE ON DATABASE \"postgres\" TO \"cdc\""),
        "{fault} {:?}",
        fault.fix()
    );
    admin.batch_execute("GRANT CREATE ON DATABASE postgres TO cdc").await.unwrap();
    let run = Run::start(&config, Resume::default()).streaming().await;
    run.stop().await;
}
