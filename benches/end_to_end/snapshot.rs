//! The snapshot of a table that nobody writes to, from the gateway's start to the last acknowledgement.

use crate::{
    backlog::{self, Run},
    load::{Load, create_table},
    mysql,
    support::{
        gateway::Settings,
        mysql::{MySql, Version as MySqlVersion},
        nats::Nats,
        postgres::{Postgres, Version},
    },
};

/// Snapshots one table of PostgreSQL, several times.
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
    show(&format!("{version:?}"), rows, runs);
}

/// The same of MySQL or MariaDB.
pub(crate) async fn run_mysql(version: MySqlVersion, rows: u64, rounds: usize) {
    if !version.is_installed() {
        return;
    }
    let server = MySql::start(version, &["--innodb-buffer-pool-size=256M"]).await;
    mysql::create_table(&server).await;
    mysql::fill(&mut server.session().await, rows / 1000, 1000).await;
    server.execute(&["ANALYZE TABLE bench"]).await;
    let mut runs: Vec<Run> = Vec::new();
    for _ in 0..rounds {
        let nats = Nats::start().await;
        let settings = Settings::new(&nats, server.url());
        let settings = Settings { connector: "mysql", snapshot: "initial", ..settings };
        runs.push(backlog::measure(&settings, &nats, rows / 1000 * 1000).await);
    }
    show(&format!("{version:?}"), rows, runs);
}

/// Prints the median.
fn show(server: &str, rows: u64, mut runs: Vec<Run>) {
    runs.sort_by(|a, b| a.rate.total_cmp(&b.rate));
    let Run { rate, cpu_micros, memory } = &runs[runs.len() / 2];
    println!(
        "\n{server}: snapshot of {rows} rows of 10 columns, median of {} rounds: {:.1} k rows/s, {cpu_micros:.2} µs CPU a row, {memory} MiB",
        runs.len(),
        rate / 1e3
    );
}
