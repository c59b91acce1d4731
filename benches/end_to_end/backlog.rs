//! A backlog, read from a copy of one slot by each reader in turn, so that all read the same bytes.

use crate::{
    load::{Load, create_table},
    process, raw_reader,
    support::{
        gateway::{Gateway, Settings},
        nats::Nats,
        postgres::{Postgres, Version},
    },
};
use std::time::{Duration, Instant};

/// What a run of the gateway took.
pub(crate) struct Run {
    /// Events a second.
    pub(crate) rate: f64,
    /// CPU time of the gateway for one event.
    pub(crate) cpu_micros: f64,
    /// Peak memory in MiB.
    pub(crate) memory: u64,
}

/// What one process took of a run, for each event.
struct Share {
    cpu_micros: f64,
    /// How often it gave the processor up.
    switches: f64,
}

impl Share {
    fn of(pid: u32, rows: u64) -> Self {
        Self {
            cpu_micros: process::cpu(pid).as_secs_f64() * 1e6 / rows as f64,
            switches: process::switches(pid) as f64 / rows as f64,
        }
    }
}

impl std::fmt::Display for Share {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.2} µs, {:.3} switches", self.cpu_micros, self.switches)
    }
}

/// Runs all loads against one version.
pub(crate) async fn run(version: Version, rows: u64, rounds: usize) {
    println!("\n{version:?}: {rows} rows of 10 columns, median of {rounds} alternating rounds");
    println!(
        "Before each median, every round: its rate; CPU and context switches an event of gateway | walsender | broker"
    );
    println!(
        "{:<30} {:>12} {:>12} {:>7} {:>14} {:>10}",
        "load", "raw reader", "headgate", "ratio", "CPU an event", "memory"
    );
    let only = crate::setting("HEADGATE_BENCH_LOADS", "");
    for (load, rows) in [(Load::SingleRows, rows), (Load::Thousands, rows), (Load::OneTransaction, 2 * rows)]
    {
        if !load.name().contains(&only) {
            continue;
        }
        let settings = [
            ("synchronous_commit", "off"),
            ("max_wal_size", "8GB"),
            ("shared_buffers", "256MB"),
            ("max_replication_slots", "40"),
            ("wal_sender_timeout", "60s"),
        ];
        let postgres = Postgres::start(version, &settings).await;
        create_table(&postgres).await;
        let copy = |slot: &str| format!("SELECT pg_copy_logical_replication_slot('base', '{slot}')");
        postgres.execute("SELECT pg_create_logical_replication_slot('base', 'pgoutput')").await;
        load.write(&postgres, rows).await;
        postgres.execute("CHECKPOINT").await;
        let (mut raw, mut ours) = (Vec::new(), Vec::new());
        for round in 0..rounds {
            let slot = format!("raw_{round}");
            postgres.execute(&copy(&slot)).await;
            let (port, user, password) = login(&postgres);
            let took =
                tokio::task::spawn_blocking(move || raw_reader::read(port, &user, &password, &slot, rows))
                    .await;
            raw.push(rows as f64 / took.unwrap().as_secs_f64());
            let slot = format!("headgate_{round}");
            postgres.execute(&copy(&slot)).await;
            ours.push(headgate(&postgres, &slot, rows).await);
        }
        raw.sort_by(f64::total_cmp);
        ours.sort_by(|a, b| a.rate.total_cmp(&b.rate));
        let (raw, ours) = (raw[rounds / 2], &ours[rounds / 2]);
        println!(
            "{:<30} {:>10.1} k {:>10.1} k {:>7.2} {:>11.2} µs {:>6} MiB",
            load.name(),
            raw / 1e3,
            ours.rate / 1e3,
            ours.rate / raw,
            ours.cpu_micros,
            ours.memory
        );
    }
}

/// Port, user and password.
pub(crate) fn login(postgres: &Postgres) -> (u16, String, String) {
    let url = postgres.url();
    let (user, password) = url
        .strip_prefix("postgres://")
        .and_then(|rest| rest.split_once('@'))
        .and_then(|(login, _)| login.split_once(':'))
        .expect("a URL with user and password");
    (postgres.port(), user.to_owned(), password.to_owned())
}

/// One run of the gateway over the whole backlog, from its start to the last acknowledgement.
async fn headgate(postgres: &Postgres, slot: &str, rows: u64) -> Run {
    let nats = Nats::start().await;
    let mut settings = Settings::new(&nats, postgres.url());
    settings.source_lines = format!("publication = \"bench\"\nslot = \"{slot}\"\n");
    let mut gateway = Gateway::configure(&settings);
    let run = run_to_end(&mut gateway, &nats, rows).await;
    let active = format!("SELECT active_pid FROM pg_replication_slots WHERE slot_name = '{slot}'");
    let walsender: i32 = postgres.client().await.query_one(&active, &[]).await.unwrap().get(0);
    let shares = [gateway.pid(), walsender.unsigned_abs(), nats.pid(0)].map(|pid| Share::of(pid, rows));
    println!("  {:.1} k/s; {}", run.rate / 1e3, shares.map(|share| share.to_string()).join(" | "));
    gateway.terminate();
    run
}

/// Runs a gateway until its stream holds `rows` events.
pub(crate) async fn measure(settings: &Settings, nats: &Nats, rows: u64) -> Run {
    catch_up(Gateway::configure(settings), nats, rows).await
}

/// Starts a gateway that has a backlog of `rows` events before it, waits until the broker has them, and ends it.
pub(crate) async fn catch_up(mut gateway: Gateway, nats: &Nats, rows: u64) -> Run {
    let run = run_to_end(&mut gateway, nats, rows).await;
    gateway.terminate();
    run
}

/// Starts a gateway that has a backlog of `rows` events before it, and waits until the broker has them.
async fn run_to_end(gateway: &mut Gateway, nats: &Nats, rows: u64) -> Run {
    let jetstream = nats.jetstream().await;
    let began = Instant::now();
    gateway.launch();
    let mut first = None;
    let (took, counted) = loop {
        tokio::time::sleep(Duration::from_millis(10)).await;
        assert!(began.elapsed() < Duration::from_secs(300), "no end in sight:\n{}", gateway.log());
        let Ok(stream) = jetstream.get_stream("EVENTS_shop").await else { continue };
        let stored = stream.cached_info().state.messages;
        if stored > 0 {
            let (at, before) = *first.get_or_insert((Instant::now(), stored));
            if stored >= rows {
                break (at.elapsed(), rows - before);
            }
        }
    };
    let pid = gateway.pid();
    Run {
        rate: counted as f64 / took.as_secs_f64(),
        cpu_micros: process::cpu(pid).as_secs_f64() * 1e6 / rows as f64,
        memory: process::peak_memory(pid),
    }
}
