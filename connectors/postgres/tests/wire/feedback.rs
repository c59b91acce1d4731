//! The connection lives through backpressure, and is left when the server wants to go.

use crate::{run::Run, server::Server};
use headgate_postgres::{Config, Postgres};
use headgate_sdk::{FaultKind, Resume};
use headgate_test_servers::postgres::Stop;
use std::{sync::atomic::Ordering::Relaxed, time::Duration};

#[tokio::test(flavor = "multi_thread")]
async fn a_stuck_outlet_does_not_lose_the_connection() {
    let server = Server::start(&[("wal_sender_timeout", "2s")]).await;
    let admin = server.admin().await;
    admin.batch_execute("CREATE TABLE t (id int PRIMARY KEY, pad text)").await.unwrap();
    let run = Run::start(&Config::new(server.url()), Resume::default()).streaming().await;
    run.stuck.send_replace(true);
    admin
        .batch_execute("INSERT INTO t SELECT n, repeat('x', 1000) FROM generate_series(1, 50000) n")
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_secs(7)).await;
    assert!(run.rows() < 50_000);
    run.stuck.send_replace(false);
    run.until("rows", |run| run.rows() == 50_000).await;
    assert_eq!(
        run.told().iter().filter(|told| matches!(told, headgate_sdk::testing::Told::Open(_))).count(),
        1
    );
    run.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fast_shutdown_of_the_server_does_not_wait_for_us() {
    let mut server = Server::start(&[]).await;
    let admin = server.admin().await;
    admin.batch_execute("CREATE TABLE t (id int PRIMARY KEY)").await.unwrap();
    let source = Postgres::new("shop", Config::new(server.url()));
    let run = Run::with(source, Resume::default(), false, true).streaming().await;
    admin.batch_execute("INSERT INTO t VALUES (1)").await.unwrap();
    run.until("row", |run| run.events().len() == 1).await;
    run.stuck.send_replace(true);
    assert_eq!(run.vitals.confirmed_log.load(Relaxed), 0);
    let took = server.stop(Stop::Fast).await;
    assert!(took < Duration::from_secs(5), "{took:?}");
    let (_, fault) = run.fault().await;
    assert_eq!(fault.kind(), FaultKind::Transient, "{fault}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_is_released_as_it_is_confirmed_even_while_other_databases_write() {
    let server = Server::start(&[]).await;
    let admin = server.admin().await;
    admin.batch_execute("CREATE TABLE t (id int PRIMARY KEY)").await.unwrap();
    admin.batch_execute("CREATE DATABASE other").await.unwrap();
    let run = Run::start(&Config::new(server.url()), Resume::default()).streaming().await;
    let other = server.connect("other").await;
    other.batch_execute("CREATE TABLE noise AS SELECT n FROM generate_series(1, 200000) n").await.unwrap();
    let wal: String = other.query_one("SELECT pg_current_wal_flush_lsn()::text", &[]).await.unwrap().get(0);
    let mut confirmed = false;
    for _ in 0..200 {
        confirmed = admin
            .query_one("SELECT confirmed_flush_lsn >= $1::text::pg_lsn FROM pg_replication_slots WHERE slot_name = 'headgate_shop'", &[&wal])
            .await
            .unwrap()
            .get(0);
        if confirmed {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(confirmed);
    run.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_over_the_limit_is_rejected_and_the_rest_goes_on() {
    let server = Server::start(&[]).await;
    let admin = server.admin().await;
    admin.batch_execute("CREATE TABLE t (id int PRIMARY KEY, pad text)").await.unwrap();
    let config =
        Config { max_row: 1 << 20, heartbeat: Some(Duration::from_secs(1)), ..Config::new(server.url()) };
    let run = Run::start(&config, Resume::default()).streaming().await;
    admin.batch_execute("INSERT INTO t VALUES (1, 'a'), (2, repeat('x', 3000000)), (3, 'b')").await.unwrap();
    run.until("rows", |run| run.events().len() == 3).await;
    let events = run.events();
    assert!(events[1].starts_with("reject public.t 30000"), "{events:?}");
    assert!(events[2].contains("\"id\":3"), "{events:?}");
    // A heartbeat keeps the log going and is no event.
    let before = run.vitals.received_log.load(Relaxed);
    run.until("heartbeat", |run| run.vitals.received_log.load(Relaxed) > before).await;
    assert_eq!(run.events().len(), 3);
    run.stop().await;
}
