//! The life of a slot.

use crate::{run::Run, server::Server};
use headgate_postgres::{Config, drop_source};
use headgate_sdk::{FaultKind, Resume};
use std::time::Duration;

#[tokio::test(flavor = "multi_thread")]
async fn creation_waits_for_open_transactions_and_names_them() {
    let server = Server::start(&[]).await;
    let (admin, writer) = (server.admin().await, server.admin().await);
    admin.batch_execute("CREATE TABLE t (id int PRIMARY KEY)").await.unwrap();
    writer.batch_execute("BEGIN; INSERT INTO t VALUES (1)").await.unwrap();
    let pid: i32 = writer.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
    let config = Config { slot_timeout: Duration::from_secs(1), ..Config::new(server.url()) };
    let (_, fault) = Run::start(&config, Resume::default()).fault().await;
    assert!(
        fault.kind() == FaultKind::Transient && fault.message().contains(&format!("pid {pid} ")),
        "{fault}"
    );
    tokio::time::sleep(Duration::from_millis(300)).await;
    let senders: i64 =
        admin.query_one("SELECT count(*) FROM pg_replication_slots", &[]).await.unwrap().get(0);
    assert_eq!(senders, 0, "the attempt leaves no slot");
    writer.batch_execute("COMMIT").await.unwrap();
    let run = Run::start(&config, Resume::default()).streaming().await;
    run.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_is_adopted_if_it_fits_and_refused_if_not() {
    let server = Server::start(&[]).await;
    let admin = server.admin().await;
    admin
        .batch_execute("CREATE TABLE t (id int PRIMARY KEY); CREATE PUBLICATION mine FOR TABLE t")
        .await
        .unwrap();
    admin.batch_execute("SELECT pg_create_logical_replication_slot('mine', 'pgoutput')").await.unwrap();
    admin.batch_execute("SELECT pg_create_physical_replication_slot('body'); SELECT pg_create_logical_replication_slot('other', 'test_decoding')").await.unwrap();
    admin.batch_execute("INSERT INTO t VALUES (1)").await.unwrap();
    let named = |slot: &str| Config {
        slot: Some(slot.to_owned()),
        publication: Some("mine".to_owned()),
        ..Config::new(server.url())
    };
    let run = Run::start(&named("mine"), Resume::default()).streaming().await;
    run.until("row", |run| run.events().len() == 1).await;
    let (_, fault) = Run::start(&named("mine"), Resume::default()).fault().await;
    assert!(fault.kind() == FaultKind::Busy && fault.to_string().contains("PID"), "{fault}");
    run.stop().await;
    for slot in ["body", "other"] {
        let (_, fault) = Run::start(&named(slot), Resume::default()).fault().await;
        assert!(fault.kind() == FaultKind::Definite && fault.fix().is_some(), "{fault}");
    }
    let config = Config { failover: true, ..named("mine") };
    let version: i32 =
        admin.query_one("SELECT current_setting('server_version_num')::int", &[]).await.unwrap().get(0);
    if version < 170_000 {
        let (_, fault) = Run::start(&config, Resume::default()).fault().await;
        assert_eq!(fault.kind(), FaultKind::Definite, "{fault}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn drop_takes_away_what_a_source_left() {
    let server = Server::start(&[]).await;
    let admin = server.admin().await;
    admin.batch_execute("CREATE TABLE t (id int PRIMARY KEY)").await.unwrap();
    let config = Config::new(server.url());
    let run = Run::start(&config, Resume::default()).streaming().await;
    assert_eq!(drop_source("shop", &config).await.unwrap_err().kind(), FaultKind::Busy);
    run.stop().await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let dropped = drop_source("shop", &config).await.unwrap();
    assert_eq!(
        dropped,
        ["replication slot headgate_shop", "publication headgate_shop", "publication headgate_shop_append"]
    );
    assert!(drop_source("shop", &config).await.unwrap().is_empty());
}
