//! What the server keeps for a slot: told before it hurts, and given up where the operator has chosen so.

use crate::{run::Run, server::Server};
use headgate_postgres::{Config, Postgres, WalPressure, guard};
use headgate_sdk::{FaultKind, Resume, Vitals};
use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;

const MIB: u64 = 1 << 20;

async fn write_log(client: &Client, mib: i32) {
    client
        .execute(
            "SELECT pg_logical_emit_message(false, 'ballast', repeat('x', 1 << 20)) FROM generate_series(1, $1)",
            &[&mib],
        )
        .await
        .unwrap();
}

async fn slots(client: &Client) -> i64 {
    client.query_one("SELECT count(*) FROM pg_replication_slots", &[]).await.unwrap().get(0)
}

async fn until(what: &str, mut enough: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(40);
    while !enough().await {
        assert!(Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

struct Guarded {
    vitals: Arc<Vitals>,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Guarded {
    fn start(config: &Config, vitals: Arc<Vitals>) -> Self {
        let (stop, config) = (CancellationToken::new(), config.clone());
        let (seen, token) = (Arc::clone(&vitals), stop.clone());
        let task = tokio::spawn(async move { guard("shop", &config, seen, token).await });
        Self { vitals, stop, task }
    }

    async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap();
    }
}

fn read(number: &AtomicU64) -> u64 {
    number.load(Relaxed)
}

fn signed(number: &AtomicI64) -> i64 {
    number.load(Relaxed)
}

#[tokio::test(flavor = "multi_thread")]
async fn at_its_limit_a_slot_is_dropped_where_the_database_counts_more_and_the_loss_is_told() {
    let server = Server::start(&[]).await;
    let admin = server.admin().await;
    admin.batch_execute("CREATE TABLE t (id int PRIMARY KEY)").await.unwrap();
    let config = Config {
        wal_limit: Some(48 * MIB),
        on_wal_pressure: WalPressure::DropSlot,
        ..Config::new(server.url())
    };
    // Nothing is confirmed, as while the broker is away.
    let run =
        Run::with(Postgres::new("shop", config.clone()), Resume::default(), false, true).streaming().await;
    let guarded = Guarded::start(&config, Arc::clone(&run.vitals));
    write_log(&admin, 30).await;
    until("a warning", async || read(&run.vitals.wal_pressure) >= 1).await;
    assert_eq!(slots(&admin).await, 1, "a warning drops nothing");
    admin.batch_execute("INSERT INTO t VALUES (1)").await.unwrap();
    write_log(&admin, 30).await;
    let resume = run.resume();
    let (source, fault) = run.fault().await;
    assert!(fault.kind() == FaultKind::Definite && fault.message().contains("drop_slot"), "{fault}");
    assert!(fault.fix().unwrap().contains("accept-gap shop"), "{fault:?}");
    until("the slot is dropped", async || slots(&admin).await == 0).await;
    guarded.stop().await;
    // The next start makes a slot, and says what the stream lacks.
    let run = Run::with(source, resume, true, true).streaming().await;
    let gap = run.gap().expect("a gap is told");
    assert!(gap.from.is_some() && gap.to.log > 0, "{gap:?}");
    run.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_nobody_reads_is_watched_up_to_the_limit_of_the_server() {
    let server = Server::start(&[
        ("max_slot_wal_keep_size", "96MB"),
        ("min_wal_size", "32MB"),
        ("max_wal_size", "64MB"),
    ])
    .await;
    let admin = server.admin().await;
    admin.batch_execute("CREATE TABLE t (id int PRIMARY KEY)").await.unwrap();
    let config = Config::new(server.url());
    Run::start(&config, Resume::default()).streaming().await.stop().await;
    let guarded = Guarded::start(&config, Arc::default());
    let vitals = Arc::clone(&guarded.vitals);
    until("the guard looks", async || signed(&vitals.safe_bytes) > 0).await;
    assert_eq!((read(&vitals.wal_pressure), signed(&vitals.holder_since)), (0, 0));
    let mut seen = 0;
    for _ in 0..3 {
        write_log(&admin, 29).await;
        let log = admin.query_one("SELECT (pg_current_wal_flush_lsn() - '0/0')::bigint", &[]).await.unwrap();
        let log = u64::try_from(log.get::<_, i64>(0)).unwrap();
        until("the guard has seen it", async || read(&vitals.server_log) >= log).await;
        seen = read(&vitals.wal_pressure).max(seen);
    }
    assert_eq!(seen, 3, "it is told before the server gives the slot up");
    assert!(read(&vitals.wal_rate) > 0 && signed(&vitals.wal_left_seconds) >= 0);
    assert_eq!(slots(&admin).await, 1, "only an operator's choice drops a slot");
    guarded.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_transaction_that_holds_the_log_is_named() {
    let server = Server::start(&[]).await;
    let (admin, forgotten) = (server.admin().await, server.admin().await);
    admin.batch_execute("CREATE TABLE t (id int PRIMARY KEY)").await.unwrap();
    let config = Config { wal_limit: Some(160 * MIB), ..Config::new(server.url()) };
    let run = Run::start(&config, Resume::default()).streaming().await;
    forgotten.batch_execute("BEGIN; INSERT INTO t VALUES (1)").await.unwrap();
    let pid: i32 = forgotten.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
    write_log(&admin, 100).await;
    until("the holder is named", async || signed(&run.vitals.holder_pid) == i64::from(pid)).await;
    assert!(signed(&run.vitals.holder_since) > 0 && read(&run.vitals.wal_pressure) >= 1);
    // It ends, the log moves on, and nobody is blamed any more.
    forgotten.batch_execute("COMMIT").await.unwrap();
    until("nobody holds it", async || {
        admin.batch_execute("CHECKPOINT").await.unwrap();
        write_log(&admin, 1).await;
        signed(&run.vitals.holder_pid) == 0
    })
    .await;
    run.stop().await;
}
