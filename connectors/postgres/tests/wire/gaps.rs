//! Where history is lost, it is said; where it is not, nothing is.

use crate::{run::Run, server::Server};
use headgate_postgres::{Config, Postgres};
use headgate_sdk::{FaultKind, Resume, testing::Told};

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

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_loses_nothing_and_says_no_gap() {
    let mut server = Server::start(&[]).await;
    let config = Config::new(server.url());
    let mut resume = ran(&server, &config).await;
    for id in 2..5 {
        server.admin().await.batch_execute(&format!("INSERT INTO t VALUES ({id})")).await.unwrap();
        // An immediate stop makes the slot forget what was confirmed.
        server.stop("immediate").await;
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
    admin.execute("SELECT pg_drop_replication_slot($1::text::name)", &[&SLOT]).await.unwrap();
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
    admin
        .execute("SELECT pg_replication_slot_advance($1::text::name, pg_current_wal_flush_lsn())", &[&SLOT])
        .await
        .unwrap();
    let run = Run::start(&config, resume).streaming().await;
    assert!(run.gap().unwrap().reason.contains("advanced"), "{:?}", run.gap());
    run.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_server_behind_the_name_is_a_gap() {
    let server = Server::start(&[]).await;
    let resume = ran(&server, &Config::new(server.url())).await;
    let other = Server::start(&[]).await;
    let run = Run::start(&Config::new(other.url()), resume).streaming().await;
    assert!(run.gap().unwrap().reason.contains("another"), "{:?}", run.gap());
    run.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_slot_is_a_gap_and_replaced_only_when_accepted() {
    let server =
        Server::start(&["max_slot_wal_keep_size=1MB", "min_wal_size=32MB", "max_wal_size=32MB"]).await;
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
    assert_eq!(status().await, "lost");
    let run = Run::start(&config, resume).streaming().await;
    assert!(run.gap().is_some());
    assert_ne!(status().await, "lost");
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
