//! Checks find what would stop a run, and say what fixes it.

use crate::server::Server;
use headgate_postgres::{Config, check};
use headgate_sdk::{Finding, Severity};

fn found<'a>(findings: &'a [Finding], subject: &str) -> &'a Finding {
    findings
        .iter()
        .find(|finding| finding.subject == subject)
        .unwrap_or_else(|| panic!("no {subject} in {findings:#?}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fit_database_has_no_errors() {
    let server = Server::start(&[]).await;
    server
        .admin()
        .await
        .batch_execute("CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE bare (id int)")
        .await
        .unwrap();
    let findings = check("shop", &Config::new(server.url())).await;
    assert!(findings.iter().all(|finding| finding.severity < Severity::Error), "{findings:#?}");
    assert_eq!(found(&findings, "replica identity of public.bare").severity, Severity::Warning);
    assert_eq!(found(&findings, "max_slot_wal_keep_size").severity, Severity::Warning);
    assert_eq!(found(&findings, "table public.t").severity, Severity::Good);
    let slots: i64 = server
        .admin()
        .await
        .query_one(
            "SELECT (SELECT count(*) FROM pg_replication_slots) + (SELECT count(*) FROM pg_publication)",
            &[],
        )
        .await
        .unwrap()
        .get(0);
    assert_eq!(slots, 0, "a check changes nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unfit_database_is_told_why() {
    let server = Server::start(&[("wal_level", "replica"), ("max_replication_slots", "0")]).await;
    server
        .admin()
        .await
        .batch_execute("CREATE ROLE cdc LOGIN; CREATE TABLE t (id int PRIMARY KEY)")
        .await
        .unwrap();
    server.0.allow("host all cdc all trust").await;
    let config = Config::new(format!("postgres://cdc@127.0.0.1:{}/postgres", server.port()));
    let findings = check("shop", &config).await;
    for subject in ["wal_level", "replication", "max_replication_slots", "ownership", "publication"] {
        let finding = found(&findings, subject);
        assert!(
            finding.severity == Severity::Error && finding.fix.is_some() && !finding.why.is_empty(),
            "{finding:#?}"
        );
    }
    let findings = check("shop", &Config { tables: vec!["none.*".to_owned()], ..config }).await;
    assert_eq!(found(&findings, "tables").severity, Severity::Error);
    let findings = check("shop", &Config::new("postgres://cdc@127.0.0.1:1/postgres")).await;
    assert_eq!(found(&findings, "connection").severity, Severity::Error);
}
