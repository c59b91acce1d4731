//! Where history is lost, it is said; where it is not, nothing is.

use crate::{run::Run, server::Server};
use headgate_postgres::{Config, Postgres};
use headgate_sdk::{FaultKind, Resume, testing::Told};
use headgate_test_servers::postgres::Stop;
use tokio_postgres::Client;

const SLOT: &str = "headgate_shop";

async fn ran(server: &Server, config: &Config) -> Resume {
    let admin = server.admin().await;
    admin.batch_execute("CREATE TABLE t (id int PRIMARY KEY); ").await.unwrap();
    let run = Run::start(config, Resume::default()).streaming().await;
    assert_eq!(run.gap(), None);
    admin.batch_execute("INSERT INTO t VALUES (1)").await.unwrap();
    run.until("row", |run| run.events().len() == 1).await;
    let told = run.told();
    assert!(
        matches!(&told[0], Told::Open(origin) if origin.epoch == 1 && origin.identity.contains(SLOT)),
        "{told:?}"
    );
    let resume = run.resume();
    run.stop().await;
    assert_eq!(resume.proven().unwrap().epoch, 1);
    resume
}

/// Does something to the slot. The server may take a moment to see that we have left.
async fn once_left(admin: &Client, statement: &str) {
    while let Err(error) = admin.execute(statement, &[&SLOT]).await {
        assert_eq!(error.code().map(|code| code.code()), Some("55006"), "{error:?}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_loses_nothing_and_says_no_gap() {
    let mut server = Server::start(&[]).await;
    let config = Config::new(server.url());
    let mut resume = ran(&server, &config).await;
    for id in 2..5 {
        server.admin().await.batch_execute(&format!("INSERT INTO t VALUES ({id})")).await.unwrap();
        // An immediate stop makes the slot forget what was confirmed.
        server.stop(Stop::Immediate).await;
        server.up().await;
        let run = Run::start(&config, resume).streaming().await;
        let row = format!("\"id\":{id}}}");
        run.until("row", |run| run.events().last().is_some_and(|event| event.contains(&row))).await;
        assert_eq!(run.gap(), None);
        resume = run.resume();
        run.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_slot_is_a_gap_and_made_anew() {
    let server = Server::start(&[]).await;
    let config = Config::new(server.url());
    let resume = ran(&server, &config).await;
    let admin = server.admin().await;
    once_left(&admin, "SELECT pg_drop_replication_slot($1::text::name)").await;
    let proven = resume.proven();

    // Refused: the slot stands later than what is proven, so the gap is found again.
    for _ in 0..2 {
        let refusing = Run::with(Postgres::new("shop", config.clone()), resume.clone(), true, false);
        let (_, fault) = refusing.fault().await;
        assert_eq!(fault.kind(), FaultKind::Gap);
    }
    let run = Run::start(&config, resume).streaming().await;
    let gap = run.gap().unwrap();
    assert_eq!((gap.from, gap.to.epoch), (proven, 2));
    let told = run.told();
    assert!(
        matches!((&told[0], &told[1]), (Told::Gap(told, _), Told::Open(opened)) if told.epoch == 2 && opened.epoch == 2)
    );
    admin.batch_execute("INSERT INTO t VALUES (2)").await.unwrap();
    run.until("row", |run| run.events().len() == 1).await;
    let resume = run.resume();
    run.stop().await;
    let run = Run::start(&config, resume).streaming().await;
    assert_eq!(run.gap(), None);
    run.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_advanced_by_others_is_a_gap() {
    let server = Server::start(&[]).await;
    let config = Config::new(server.url());
    let resume = ran(&server, &config).await;
    let admin = server.admin().await;
    admin.batch_execute("INSERT INTO t VALUES (2)").await.unwrap();
    once_left(&admin, "SELECT pg_replication_slot_advance($1::text::name, pg_current_wal_flush_lsn())").await;
    let run = Run::start(&config, resume).streaming().await;
    assert!(run.gap().unwrap().reason.contains("advanced"), "{:?}", run.gap());
    run.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_server_behind_the_name_is_a_gap() {
    let server = Server::start(&[]).await;
    let resume = ran(&server, &Config::new(server.url())).await;
    let other = Server::start_another().await;
    let run = Run::start(&Config::new(other.url()), resume).streaming().await;
    assert!(run.gap().unwrap().reason.contains("another"), "{:?}", run.gap());
    run.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_slot_is_replaced_and_a_gap_up_to_where_the_new_one_begins() {
    let server = Server::start(&[
        ("max_slot_wal_keep_size", "1MB"),
        ("min_wal_size", "32MB"),
        ("max_wal_size", "32MB"),
    ])
    .await;
    let config = Config::new(server.url());
    let resume = ran(&server, &config).await;
    let admin = server.admin().await;
    for _ in 0..4 {
        admin.batch_execute("CREATE TABLE IF NOT EXISTS noise (n int); INSERT INTO noise SELECT generate_series(1, 10000); SELECT pg_switch_wal(); CHECKPOINT").await.unwrap();
    }
    let status = || async {
        admin.query_one("SELECT wal_status FROM pg_replication_slots", &[]).await.unwrap().get::<_, String>(0)
    };
    assert_eq!(status().await, "lost");
    let (_, fault) =
        Run::with(Postgres::new("shop", config.clone()), resume.clone(), true, false).fault().await;
    assert_eq!(fault.kind(), FaultKind::Gap);
    // From here on the log is kept again, however long it takes until somebody accepts the gap.
    assert_ne!(status().await, "lost");
    let run = Run::start(&config, resume).streaming().await;
    assert!(run.gap().is_some());
    admin.batch_execute("INSERT INTO t VALUES (2)").await.unwrap();
    run.until("row", |run| run.events().iter().any(|event| event.starts_with("public.t "))).await;
    run.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_publication_is_a_gap() {
    let server = Server::start(&[]).await;
    let config = Config::new(server.url());
    let resume = ran(&server, &config).await;
    let run = Run::start(&config, resume).streaming().await;
    let resume = run.resume();
    let admin = server.admin().await;
    admin.batch_execute("DROP PUBLICATION headgate_shop").await.unwrap();
    admin.batch_execute("INSERT INTO t VALUES (2)").await.unwrap();
    let (source, fault) = run.fault().await;
    assert_eq!(fault.kind(), FaultKind::Transient, "{fault}");
    let run = Run::with(source, resume, true, true).streaming().await;
    assert!(run.gap().is_some());
    admin.batch_execute("INSERT INTO t VALUES (3)").await.unwrap();
    run.until("row", |run| run.events().iter().any(|event| event.contains("\"id\":3"))).await;
    run.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_restored_from_before_is_a_gap() {
    let mut server = Server::start(&[]).await;
    let resume = ran(&server, &Config::new(server.url())).await;
    server.stop(Stop::Fast).await;
    let mut backup = Server(server.0.copy());
    server.up().await;
    server.admin().await.batch_execute("INSERT INTO t SELECT generate_series(100, 20000)").await.unwrap();
    let run = Run::start(&Config::new(server.url()), resume).streaming().await;
    run.until("rows", |run| run.events().len() > 19_000).await;
    let resume = run.resume();
    run.stop().await;
    backup.up().await;
    let run = Run::start(&Config::new(backup.url()), resume).streaming().await;
    assert!(run.gap().unwrap().reason.contains("rewound"), "{:?}", run.gap());
    run.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_promotion_is_a_gap_only_where_more_was_read_than_it_kept() {
    let mut server = Server::start(&[]).await;
    let resume = ran(&server, &Config::new(server.url())).await;
    server.stop(Stop::Fast).await;
    // Both go on from the same log, each on a timeline of its own.
    let mut promoted = Server(server.0.copy());
    promoted.0.write("standby.signal", "");
    promoted.up().await;
    promoted.0.promote().await;
    server.up().await;
    server.admin().await.batch_execute("INSERT INTO t SELECT generate_series(100, 200)").await.unwrap();
    let run = Run::start(&Config::new(server.url()), resume.clone()).streaming().await;
    run.until("rows", |run| run.events().len() > 100).await;
    let ahead = run.resume();
    run.stop().await;

    promoted
        .admin()
        .await
        .batch_execute(
            "INSERT INTO t VALUES (2); CHECKPOINT; INSERT INTO t SELECT generate_series(1000, 9000)",
        )
        .await
        .unwrap();
    let slots: i64 = promoted
        .admin()
        .await
        .query_one("SELECT count(*) FROM pg_replication_slots", &[])
        .await
        .unwrap()
        .get(0);
    assert_eq!(slots, 1, "a standby made of a cold copy keeps the slot");
    let run = Run::start(&Config::new(promoted.url()), ahead).streaming().await;
    assert!(run.gap().unwrap().reason.contains("promoted"), "{:?}", run.gap());
    run.until("rows", |run| run.events().len() == 8002).await;
    run.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_promotion_behind_what_was_read_goes_on() {
    let mut server = Server::start(&[]).await;
    let resume = ran(&server, &Config::new(server.url())).await;
    server.stop(Stop::Fast).await;
    server.0.write("standby.signal", "");
    server.up().await;
    server.0.promote().await;
    server.admin().await.batch_execute("INSERT INTO t VALUES (2)").await.unwrap();
    let run = Run::start(&Config::new(server.url()), resume).streaming().await;
    run.until("row", |run| run.events().iter().any(|event| event.contains("\"id\":2"))).await;
    assert_eq!(run.gap(), None);
    assert!(
        matches!(&run.told()[0], Told::Open(origin) if origin.epoch == 1 && origin.identity.contains("timeline=2"))
    );
    run.stop().await;
}
