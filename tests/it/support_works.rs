//! The servers, the faults and the workload themselves do what the tests of the gateway take for granted.

use crate::support::{
    database,
    nats::Nats,
    postgres::{Postgres, Stop, Version},
    proxy::{Flow, Proxy},
    workload::{self, Load},
};
use std::time::Duration;
use tokio::time::timeout;

async fn survives(version: Version) {
    let mut postgres = Postgres::start(version, &[]).await;
    workload::create_tables(&postgres).await;
    let written = workload::start(&Load::new(postgres.url(), 7)).finish().await;
    assert_eq!(written.unknown, 0, "{written:?}");
    assert!(written.committed > written.rolled_back, "{written:?}");
    let tables = database::read(&postgres.client().await, "public").await;
    for table in ["orders", "order_lines", "documents", "labels"] {
        assert!(!tables[&format!("public.{table}")].rows.is_empty(), "{table} is empty after {written:?}");
    }
    postgres.stop(Stop::Immediate);
    postgres.start_again().await;
    postgres.kill9();
    postgres.start_again().await;
    postgres.stop(Stop::Fast);
    postgres.start_again().await;
    assert_eq!(database::read(&postgres.client().await, "public").await, tables);
}

#[tokio::test]
async fn postgres_15_keeps_what_was_committed() {
    survives(Version::Pg15).await;
}

#[tokio::test]
async fn postgres_18_keeps_what_was_committed() {
    survives(Version::Pg18).await;
}

#[tokio::test]
async fn a_killed_server_leaves_no_memory_behind() {
    let held = |id: &str| {
        let segments = std::fs::read_to_string("/proc/sysvipc/shm").unwrap();
        segments.lines().any(|segment| segment.split_whitespace().nth(1) == Some(id))
    };
    let mut postgres = Postgres::start(Version::Pg18, &[]).await;
    postgres.kill9();
    let segment = postgres.segment().expect("the file of a killed server");
    assert!(held(&segment), "{segment} is not listed");
    drop(postgres);
    assert!(!held(&segment), "{segment} is still there");
}

#[tokio::test]
async fn writers_live_through_a_restart_of_the_database() {
    let mut postgres = Postgres::start(Version::Pg18, &[]).await;
    workload::create_tables(&postgres).await;
    let writing = workload::start(&Load::steady(postgres.url(), 1));
    tokio::time::sleep(Duration::from_millis(500)).await;
    postgres.stop(Stop::Immediate);
    postgres.start_again().await;
    let before: i64 =
        postgres.client().await.query_one("SELECT count(*) FROM orders", &[]).await.unwrap().get(0);
    tokio::time::sleep(Duration::from_millis(500)).await;
    let written = writing.stop().await;
    let after: i64 =
        postgres.client().await.query_one("SELECT count(*) FROM orders", &[]).await.unwrap().get(0);
    assert!(after > before, "{before} orders, then {after}: {written:?}");
}

#[tokio::test]
async fn a_broker_keeps_its_stream_and_loses_the_tail_that_a_restored_store_lacks() {
    let mut nats = Nats::start().await;
    let jetstream = nats.jetstream().await;
    let config = async_nats::jetstream::stream::Config {
        name: "S".to_owned(),
        subjects: vec!["s".to_owned()],
        ..Default::default()
    };
    jetstream.create_stream(config).await.unwrap();
    let publish = async |nats: &Nats| {
        nats.jetstream().await.publish("s", "x".into()).await.unwrap().await.unwrap().sequence
    };
    assert_eq!(publish(&nats).await, 1);
    nats.terminate(0);
    let copy = nats.copy_store(0);
    nats.start_again(0).await;
    assert_eq!(publish(&nats).await, 2);
    nats.kill9(0);
    nats.start_again(0).await;
    assert_eq!(publish(&nats).await, 3);
    nats.terminate(0);
    nats.restore_store(0, &copy);
    nats.start_again(0).await;
    assert_eq!(publish(&nats).await, 2);
    nats.freeze(0);
    let frozen = timeout(Duration::from_millis(300), async_nats::connect(nats.urls())).await;
    assert!(!matches!(frozen, Ok(Ok(_))), "a frozen broker answered");
    nats.thaw(0);
    assert_eq!(publish(&nats).await, 3);
}

#[tokio::test]
async fn a_cluster_elects_another_leader() {
    let mut nats = Nats::cluster(3).await;
    let jetstream = nats.jetstream().await;
    let config = async_nats::jetstream::stream::Config {
        name: "S".to_owned(),
        subjects: vec!["s".to_owned()],
        num_replicas: 3,
        ..Default::default()
    };
    jetstream.create_stream(config).await.unwrap();
    let first = nats.leader("S").await;
    nats.kill9(first);
    let second = nats.leader("S").await;
    assert_ne!(first, second);
    nats.start_again(first).await;
    nats.step_down("S").await;
    assert_ne!(nats.leader("S").await, second);
}

#[tokio::test]
async fn a_proxy_cuts_each_direction_and_both() {
    let postgres = Postgres::start(Version::Pg18, &[]).await;
    let proxy = Proxy::start(postgres.port()).await;
    let url = postgres.url().replace(&postgres.port().to_string(), &proxy.port().to_string());
    let client = crate::support::postgres::connect(&url).await.unwrap();
    let ask = async || timeout(Duration::from_millis(300), client.simple_query("SELECT 1")).await;
    for flow in [Flow::CUT, Flow::MUTE, Flow::DEAF] {
        assert!(ask().await.unwrap().is_ok());
        proxy.set(flow);
        assert!(ask().await.is_err(), "{flow:?} let an answer through");
        proxy.set(Flow::WHOLE);
    }
    assert!(ask().await.unwrap().is_ok());
    proxy.drop_connections();
    assert!(ask().await.unwrap().is_err());
    assert!(crate::support::postgres::connect(&url).await.is_ok());
}
