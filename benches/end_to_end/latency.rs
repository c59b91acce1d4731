//! From a client's send to stored in the stream, at a steady rate of single-row commits that are really synced to disk.
//!
//! Each row carries the client's clock at its send; the stream keeps its own clock for each message. Both run on this
//! machine.

use crate::{
    load::create_table,
    support::{
        gateway::{Gateway, Settings},
        nats::Nats,
        postgres::{Postgres, Version},
    },
};
use async_nats::jetstream::consumer::{DeliverPolicy, pull};
use futures_util::StreamExt as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Runs all rates against one version.
pub(crate) async fn run(version: Version) {
    println!("\n{version:?}: latency from the client's send to stored in the stream");
    println!("{:<14} {:>9} {:>9} {:>9} {:>9}", "commits/s", "p50", "p90", "p99", "max");
    for (rate, seconds) in [(100u32, 20u32), (1000, 10)] {
        let postgres = Postgres::start(version, &[("fsync", "on"), ("synchronous_commit", "on")]).await;
        create_table(&postgres).await;
        let nats = Nats::start().await;
        let mut settings = Settings::new(&nats, postgres.url());
        settings.source_lines = "publication = \"bench\"\n".to_owned();
        let mut gateway = Gateway::start(&settings).await;
        postgres.slot_is_active("headgate_shop").await;
        write(&postgres, rate, rate * seconds).await;
        let mut latencies = read(&nats, (rate * seconds) as usize).await;
        latencies.sort_unstable();
        let at = |share: f64| latencies[((latencies.len() - 1) as f64 * share) as usize] as f64 / 1e3;
        println!(
            "{rate:<14} {:>6.2} ms {:>6.2} ms {:>6.2} ms {:>6.2} ms",
            at(0.5),
            at(0.9),
            at(0.99),
            at(1.0)
        );
        gateway.terminate();
    }
}

fn micros_since_epoch() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros()).unwrap()
}

async fn write(postgres: &Postgres, rate: u32, rows: u32) {
    let client = postgres.client().await;
    let insert = client
        .prepare("INSERT INTO bench (customer, status, ok, at) VALUES ($1, 'new', true, now())")
        .await
        .unwrap();
    let mut tick = tokio::time::interval(Duration::from_secs(1) / rate);
    for _ in 0..rows {
        tick.tick().await;
        client.execute(&insert, &[&micros_since_epoch()]).await.unwrap();
    }
}

/// Microseconds from send to stored, of every event.
async fn read(nats: &Nats, rows: usize) -> Vec<i64> {
    let stream = nats.jetstream().await.get_stream("EVENTS_shop").await.unwrap();
    let consumer = stream
        .create_consumer(pull::OrderedConfig { deliver_policy: DeliverPolicy::All, ..Default::default() })
        .await
        .unwrap();
    let mut messages = consumer.messages().await.unwrap();
    let mut latencies = Vec::with_capacity(rows);
    while latencies.len() < rows {
        let message = messages.next().await.unwrap().unwrap();
        let event: serde_json::Value = serde_json::from_slice(&message.payload).unwrap();
        let sent = event["data"]["after"]["customer"].as_i64().unwrap();
        let stored = message.info().unwrap().published.unix_timestamp_nanos() / 1000;
        latencies.push(i64::try_from(stored).unwrap() - sent);
    }
    latencies
}
