//! A broker that stands still for a minute under a backlog: what the gateway's memory does meanwhile.
//!
//! The broker's process is stopped (SIGSTOP) as soon as it has stored a tenth of the backlog: connections stay open,
//! nothing is answered. The gateway must hold what it has and read no further; the database keeps the rest, and its
//! patience (`wal_sender_timeout`) is shorter than the stall.

use crate::{
    load::{Load, create_table},
    process,
    support::{
        gateway::{Gateway, Settings},
        nats::Nats,
        postgres::{Postgres, Version},
    },
};
use std::time::{Duration, Instant};

const STALL: Duration = Duration::from_secs(60);

/// Runs every load against one version.
pub(crate) async fn run(version: Version, rows: u64) {
    println!("\n{version:?}: {rows} rows of 10 columns, the broker stands still for {STALL:?} after a tenth");
    println!(
        "{:<30} {:>14} {:>14} {:>14} {:>12} {:>12}",
        "load", "before", "in the stall", "at the end", "connections", "stored"
    );
    for load in [Load::SingleRows, Load::OneTransaction] {
        let settings = [
            ("synchronous_commit", "off"),
            ("max_wal_size", "8GB"),
            ("shared_buffers", "256MB"),
            ("wal_sender_timeout", "20s"),
        ];
        let postgres = Postgres::start(version, &settings).await;
        create_table(&postgres).await;
        postgres.execute("SELECT pg_create_logical_replication_slot('stalled', 'pgoutput')").await;
        load.write(&postgres, rows).await;
        let nats = Nats::start().await;
        let mut settings = Settings::new(&nats, postgres.url());
        settings.source_lines = "publication = \"bench\"\nslot = \"stalled\"\n".to_owned();
        let mut gateway = Gateway::configure(&settings);
        gateway.launch();
        stored(&nats, rows / 10, &gateway).await;
        nats.freeze(0);
        let before = process::peak_memory(gateway.pid());
        tokio::time::sleep(STALL).await;
        let stalled = process::peak_memory(gateway.pid());
        nats.thaw(0);
        let stored = stored(&nats, rows, &gateway).await;
        let end = process::peak_memory(gateway.pid());
        let connections = gateway.log().matches("streaming").count();
        println!(
            "{:<30} {before:>10} MiB {stalled:>10} MiB {end:>10} MiB {connections:>12} {stored:>12}",
            load.name()
        );
        gateway.terminate();
    }
}

/// Waits until the stream holds at least `rows` messages; how many it holds.
async fn stored(nats: &Nats, rows: u64, gateway: &Gateway) -> u64 {
    let (jetstream, began) = (nats.jetstream().await, Instant::now());
    loop {
        assert!(began.elapsed() < Duration::from_secs(300), "no end in sight:\n{}", gateway.log());
        if let Ok(stream) = jetstream.get_stream("EVENTS_shop").await {
            let stored = stream.cached_info().state.messages;
            if stored >= rows {
                return stored;
            }
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
