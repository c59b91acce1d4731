//! What a writer says of its transaction is told before the transaction's rows, as far as the look ahead goes.

use crate::{run::Run, server::Server};
use headgate_postgres::Config;
use headgate_sdk::{CONTEXT_PREFIX, Resume, testing::Told};

fn emit(content: &str) -> String {
    format!("SELECT pg_logical_emit_message(true, '{CONTEXT_PREFIX}', '{content}')")
}

#[tokio::test(flavor = "multi_thread")]
async fn context_comes_first_wherever_it_was_written() {
    let server = Server::start(&[]).await;
    let admin = server.admin().await;
    admin.batch_execute("CREATE TABLE t (id int PRIMARY KEY, pad text)").await.unwrap();
    let run = Run::start(&Config::new(server.url()), Resume::default()).streaming().await;
    let rows = "INSERT INTO t SELECT n, repeat('x', 1000) FROM generate_series";
    for transaction in [
        format!("INSERT INTO t VALUES (1); {}; INSERT INTO t VALUES (2); {}", emit("middle"), emit("second")),
        "INSERT INTO t VALUES (3)".to_owned(),
        format!("{rows}(100, 149) n; {}", emit("end")),
        // Its end is further away than anything waits for.
        format!("{rows}(1000, 1999) n; {}; INSERT INTO t VALUES (4)", emit("far")),
    ] {
        admin.batch_execute(&format!("BEGIN; {transaction}; COMMIT")).await.unwrap();
    }
    run.until("rows", |run| run.rows() == 2 + 1 + 50 + 1001).await;
    run.until("commit", |run| matches!(run.told().last(), Some(Told::Commit(_) | Told::Progress(_)))).await;
    let mut told = Vec::new();
    let mut rows = 0;
    for call in run.told() {
        let line = match call {
            Told::Begin(_) => "begin".to_owned(),
            Told::Message(_, content, _) => String::from_utf8(content).unwrap(),
            Told::Commit(_) => "commit".to_owned(),
            Told::Change { .. } => {
                rows += 1;
                continue;
            }
            _ => continue,
        };
        if rows > 0 {
            told.push(format!("{} rows", std::mem::take(&mut rows)));
        }
        told.push(line);
    }
    assert_eq!(
        told,
        [
            "begin",
            "middle",
            "2 rows",
            "second",
            "commit",
            "begin",
            "1 rows",
            "commit",
            "begin",
            "end",
            "50 rows",
            "commit",
            "begin",
            "1000 rows",
            "far",
            "1 rows",
            "commit",
        ]
    );
    run.stop().await;
}
