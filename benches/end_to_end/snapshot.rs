//! The snapshot of a table that nobody writes to, from the gateway's start to the last acknowledgement.

use crate::{
    backlog::{self, Run},
    load::{Load, create_table},
    support::{
        gateway::Settings,
        nats::Nats,
        postgres::{Postgres, Version},
    },
};

/// Snapshots one table, several times.
pub(crate) async fn run(version: Version, rows: u64, rounds: usize) {
    let settings = [("synchronous_commit", "off"), ("max_wal_size", "8GB"), ("shared_buffers", "256MB")];
    let postgres = Postgres::start(version, &settings).await;
    create_table(&postgres).await;
    Load::OneTransaction.write(&postgres, rows).await;
    postgres.execute("VACUUM ANALYZE bench").await;
    postgres.execute("CHECKPOINT").await;
    let mut runs: Vec<Run> = Vec::new();
    for round in 0..rounds {
        let nats = Nats::start().await;
        let mut settings = Settings::new(&nats, postgres.url());
        settings.snapshot = "initial";
        settings.source_lines = format!("publication = \"bench\"\nslot = \"snapshot_{round}\"\n");
        runs.push(backlog::measure(&settings, &nats, rows).await);
    }
    runs.sort_by(|a, b| a.rate.total_cmp(&b.rate));
    let Run { rate, cpu_micros, memory } = &runs[rounds / 2];
    println!(
        "\n{version:?}: snapshot of {rows} rows of 10 columns, median of {rounds} rounds: {:.1} k rows/s, {cpu_micros:.2} µs CPU a row, {memory} MiB",
        rate / 1e3
    );
}
