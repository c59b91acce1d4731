//! Changes of a database become the events of its stream.

use crate::support::{
    gateway::{Gateway, Settings},
    nats::Nats,
    postgres::{PASSWORD, Version},
    shop::{STREAM, Shop},
    stream::{self, Event},
    workload::{self, Load},
};
use std::collections::BTreeSet;

/// The partition function of the contract: FNV-1a, as the broker itself has it.
fn partition(key: &str) -> u32 {
    key.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)) % 16
}

fn assert_well_formed(event: &Event) {
    let tokens: Vec<&str> = event.subject.split('.').collect();
    let verb = event.attribute("type").rsplit('.').next().unwrap_or_default();
    let entity = event.data.table.trim_start_matches("public.");
    let partition = partition(event.attribute("partitionkey")).to_string();
    assert_eq!(tokens, ["events", "shop", entity, verb, &partition], "{event:?}");
    assert_eq!(event.attribute("specversion"), "1.0", "{event:?}");
    assert_eq!(event.attribute("source"), "/headgate/shop", "{event:?}");
    assert_eq!(event.attribute("type"), format!("shop.{entity}.{verb}"), "{event:?}");
    assert_eq!(event.attribute("id"), event.attribute("sequence"), "{event:?}");
    assert!(event.attribute("subject").starts_with(entity), "{event:?}");
    for name in ["time", "recordedtime", "traceparent", "txid"] {
        assert!(!event.attribute(name).is_empty(), "no {name}: {event:?}");
    }
}

async fn streams(version: Version, change: impl FnOnce(&mut Settings)) -> Vec<Event> {
    let shop = Shop::with(version, Nats::start().await).await;
    let mut settings = shop.settings();
    change(&mut settings);
    let mut gateway = shop.gateway_with(&settings).await;
    workload::start(&Load::new(shop.postgres.url(), 42)).finish().await;
    let events = shop.assert_faithful().await;
    events.iter().for_each(assert_well_formed);
    let verbs: BTreeSet<&str> = events.iter().map(|event| event.data.op.as_str()).collect();
    assert_eq!(verbs.into_iter().collect::<Vec<_>>(), ["created", "deleted", "truncated", "updated"]);
    // The workload reaches what is hard: otherwise the oracle has proven little.
    assert!(events.iter().any(|event| event.data.rekeyed), "no key changed");
    assert!(events.iter().any(|event| !event.data.unavailable.is_empty()), "no value was left out");
    assert!(events.iter().any(|event| event.data.before.is_some()), "no image before");
    let status = gateway.status().await.to_string();
    assert!(status.contains("shop"), "{status}");
    assert_eq!(gateway.terminate(), Some(0));
    assert!(!gateway.log().contains(PASSWORD) && !status.contains(PASSWORD), "the password was told");
    events
}

#[tokio::test]
async fn postgres_15_becomes_events() {
    streams(Version::Pg15, |_| {}).await;
}

#[tokio::test]
async fn postgres_18_becomes_events() {
    streams(Version::Pg18, |_| {}).await;
}

#[tokio::test]
async fn binary_mode_tells_the_same() {
    streams(Version::Pg18, |settings| settings.nats_lines = "mode = \"binary\"\n".to_owned()).await;
}

#[tokio::test]
async fn atomic_batches_tell_the_same() {
    streams(Version::Pg18, |settings| settings.nats_lines = "publish = \"atomic\"\n".to_owned()).await;
}

#[tokio::test]
async fn a_transaction_larger_than_any_window_stays_whole() {
    let shop = Shop::open().await;
    let _gateway = shop.gateway().await;
    shop.postgres
        .execute("INSERT INTO scratch SELECT n, repeat('x', 200) FROM generate_series(1, 30000) n")
        .await;
    let events = shop.assert_faithful().await;
    let last = events
        .iter()
        .filter(|event| event.attribute("txlast") == "true")
        .map(|event| event.attribute("txindex"));
    assert_eq!(last.collect::<Vec<_>>(), ["29999", "0"]);
}

/// Sizes around those of batches, windows and atomic batches, told as they come and all at once.
#[tokio::test]
async fn transactions_of_all_sizes_as_atomic_batches() {
    let shop = Shop::open().await;
    let mut gateway = shop.gateway_with(&shop.settings_with("publish = \"atomic\"\n")).await;
    let sizes = [1, 2, 498, 999, 1000, 1001, 1023, 1024, 1025, 1999, 2000, 2001, 2048, 3000, 5000, 10_000];
    for told_at_once in [false, true] {
        if told_at_once {
            gateway.kill9();
        }
        for size in sizes {
            let rows = format!("INSERT INTO scratch SELECT n, 'x' FROM generate_series(1, {size}) n");
            shop.postgres.execute(&format!("BEGIN; {rows}; COMMIT; TRUNCATE scratch")).await;
        }
        if told_at_once {
            gateway.start_again().await;
        }
        shop.assert_faithful_however_small().await;
    }
}

#[tokio::test]
async fn a_restart_adds_nothing() {
    let shop = Shop::open().await;
    let mut gateway = shop.gateway().await;
    workload::start(&Load::new(shop.postgres.url(), 3)).finish().await;
    let events = shop.assert_faithful().await;
    for _ in 0..2 {
        assert_eq!(gateway.terminate(), Some(0));
        gateway.start_again().await;
    }
    gateway.kill9();
    gateway.start_again().await;
    assert_eq!(stream::read(&shop.nats, STREAM).await.len(), events.len());
    shop.assert_faithful().await;
}

#[tokio::test]
async fn a_gateway_that_was_down_catches_up() {
    let shop = Shop::open().await;
    let mut gateway: Gateway = shop.gateway().await;
    workload::start(&Load::new(shop.postgres.url(), 4)).finish().await;
    gateway.kill9();
    workload::start(&Load::new(shop.postgres.url(), 5)).finish().await;
    gateway.start_again().await;
    shop.assert_faithful().await;
}

/// Somebody who listens to everything hears every question, also those that are asked to find out who writes.
#[tokio::test]
async fn a_subscriber_to_all_subjects_holds_nothing_up() {
    let shop = Shop::open().await;
    let nosy = async_nats::connect(shop.nats.urls()).await.unwrap();
    let _everything = nosy.subscribe(">").await.unwrap();
    nosy.flush().await.unwrap();
    let mut gateway = shop.gateway().await;
    for seed in [43, 44] {
        workload::start(&Load::new(shop.postgres.url(), seed)).finish().await;
        shop.assert_faithful().await;
        gateway.kill9();
        gateway.start_again().await;
    }
    workload::mark(&shop.postgres.client().await).await;
    shop.assert_faithful().await;
    assert!(!gateway.log().contains("has not ended within"), "{}", gateway.log());
    assert!(gateway.log().contains("subscribes to all subjects"), "{}", gateway.log());
    assert_eq!(gateway.terminate(), Some(0));
}
