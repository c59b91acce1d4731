//! From a client's send to stored in the stream, at a steady rate of single-row commits that are really synced to disk.
//!
//! Each row carries the client's clock at its send; the stream keeps its own clock for each message. Both run on this
//! machine. Beside the whole, its parts: until the client had its commit (which the database reports when it is on disk,
//! while it already sends it to its readers), and until the transaction was read (the event's `recordedtime`). Before the gateway a
//! bare relay passes as many rows: the floor.

use crate::{
    load::create_table,
    relay::Relay,
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
    println!(
        "{:<10} {:<34} {:>9} {:>9} {:>9} {:>9}",
        "commits/s", "from the send", "p50", "p90", "p99", "max"
    );
    let only = crate::setting("HEADGATE_BENCH_RATES", "100,1000");
    for rate in only.split(',').map(|rate| rate.parse::<u32>().unwrap()) {
        let rows = rate * if rate < 1000 { 20 } else { 10 };
        let postgres = Postgres::start(version, &[("fsync", "on"), ("synchronous_commit", "on")]).await;
        create_table(&postgres).await;
        let nats = Nats::start().await;
        let relay = Relay::start(&postgres, &nats, rows.into()).await;
        let committed = write(&postgres, rate, rows).await;
        show(rate, "bare relay", &committed, &relay.passed(&nats).await);

        let mut settings = Settings::new(&nats, postgres.url());
        settings.source_lines = "publication = \"bench\"\n".to_owned();
        let mut gateway = Gateway::start(&settings).await;
        postgres.slot_is_active("headgate_shop").await;
        let committed = write(&postgres, rate, rows).await;
        show(rate, "headgate", &committed, &read(&nats, rows as usize).await);
        gateway.terminate();
    }
}

pub(crate) fn micros_since_epoch() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros()).unwrap()
}

/// Prints what each part of the way took.
fn show(rate: u32, who: &str, committed: &[i64], passed: &[Passed]) {
    let after = committed.iter().zip(passed).map(|(committed, row)| row.stored - row.sent - committed);
    for (what, mut latencies) in [
        ("its commit to stored", after.collect::<Vec<_>>()),
        ("to its commit", committed.to_vec()),
        ("to read", passed.iter().map(|row| row.decoded - row.sent).collect()),
        ("read to stored", passed.iter().map(|row| row.stored - row.decoded).collect()),
        ("to stored in the stream", passed.iter().map(|row| row.stored - row.sent).collect()),
    ] {
        latencies.sort_unstable();
        let at = |share: f64| latencies[((latencies.len() - 1) as f64 * share) as usize] as f64 / 1e3;
        println!(
            "{rate:<10} {:<34} {:>6.2} ms {:>6.2} ms {:>6.2} ms {:>6.2} ms",
            format!("{who}, {what}"),
            at(0.5),
            at(0.9),
            at(0.99),
            at(1.0)
        );
    }
}

/// Writes the rows; the microseconds that each commit took.
async fn write(postgres: &Postgres, rate: u32, rows: u32) -> Vec<i64> {
    let client = postgres.client().await;
    let insert = client
        .prepare("INSERT INTO bench (customer, status, ok, at) VALUES ($1, 'new', true, now())")
        .await
        .unwrap();
    let mut tick = tokio::time::interval(Duration::from_secs(1) / rate);
    let mut committed = Vec::with_capacity(rows as usize);
    for _ in 0..rows {
        tick.tick().await;
        let sent = micros_since_epoch();
        client.execute(&insert, &[&sent]).await.unwrap();
        committed.push(micros_since_epoch() - sent);
    }
    committed
}

/// When a row passed, in microseconds since 1970-01-01.
pub(crate) struct Passed {
    pub(crate) sent: i64,
    pub(crate) decoded: i64,
    pub(crate) stored: i64,
}

/// Reads all events.
async fn read(nats: &Nats, rows: usize) -> Vec<Passed> {
    let stream = nats.jetstream().await.get_stream("EVENTS_shop").await.unwrap();
    let consumer = stream
        .create_consumer(pull::OrderedConfig { deliver_policy: DeliverPolicy::All, ..Default::default() })
        .await
        .unwrap();
    let mut messages = consumer.messages().await.unwrap();
    let mut events = Vec::with_capacity(rows);
    while events.len() < rows {
        let message = messages.next().await.unwrap().unwrap();
        let event: serde_json::Value = serde_json::from_slice(&message.payload).unwrap();
        let decoded: jiff::Timestamp = event["recordedtime"].as_str().unwrap().parse().unwrap();
        let stored = message.info().unwrap().published.unix_timestamp_nanos() / 1000;
        events.push(Passed {
            sent: event["data"]["after"]["customer"].as_i64().unwrap(),
            decoded: decoded.as_microsecond(),
            stored: i64::try_from(stored).unwrap(),
        });
    }
    events
}
