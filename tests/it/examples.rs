//! The examples that the documentation shows do what it says, in Rust and in Python.

use crate::support::{
    eventually, servers,
    shop::{STREAM, Shop},
    stream,
};
use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
    time::Duration,
};

/// The life of two tasks.
const CHANGES: &str = "
    INSERT INTO tasks VALUES (1, 'new');
    INSERT INTO tasks VALUES (2, 'new');
    UPDATE tasks SET state = 'done' WHERE id = 1;
    UPDATE tasks SET state = 'été' WHERE id = 2;
    DELETE FROM tasks WHERE id = 1;";

/// What a subscriber prints of them, without sequence and id.
const TOLD: [&str; 5] = [
    r#"tasks/1 shop.tasks.created #1 {"id":1,"state":"new"}"#,
    r#"tasks/2 shop.tasks.created #1 {"id":2,"state":"new"}"#,
    r#"tasks/1 shop.tasks.updated #2 {"id":1,"state":"done"}"#,
    r#"tasks/2 shop.tasks.updated #2 {"id":2,"state":"été"}"#,
    "tasks/1 shop.tasks.deleted #3 null",
];

/// Runs an example to its end; the lines that it printed.
async fn lines(mut command: Command, shop: &Shop, arguments: &[&str]) -> Vec<String> {
    command.arg("events.shop.tasks.>").args(arguments).env("NATS_URL", &shop.nats.urls()[0]);
    let running = tokio::task::spawn_blocking(move || command.output());
    let ended = tokio::time::timeout(Duration::from_secs(60), running).await;
    let Output { status, stdout, stderr } = ended.expect("the example ends").unwrap().unwrap();
    assert!(status.success(), "{status}: {}", String::from_utf8_lossy(&stderr));
    String::from_utf8(stdout).unwrap().lines().map(str::to_owned).collect()
}

/// A line without sequence and id.
fn told(line: &str) -> String {
    let mut words: Vec<&str> = line.splitn(6, ' ').collect();
    assert_eq!(words.len(), 6, "{line}");
    words.remove(4);
    words[1..].join(" ")
}

fn all_told(lines: &[String]) -> Vec<String> {
    lines.iter().map(|line| told(line)).collect()
}

async fn subscribes(example: impl Fn() -> Command) {
    let shop = Shop::open().await;
    shop.postgres.execute("CREATE TABLE tasks (id bigint PRIMARY KEY, state text)").await;
    let _gateway = shop.gateway().await;
    shop.postgres.execute(CHANGES).await;
    eventually("the stream holds the tasks", Duration::from_secs(30), || async {
        let held = stream::read(&shop.nats, STREAM).await.len();
        if held >= TOLD.len() { Ok(()) } else { Err(format!("{held} events")) }
    })
    .await;

    let first = lines(example(), &shop, &["--count", "3"]).await;
    assert_eq!(all_told(&first), TOLD[..3]);
    let sequence = first[2].split(' ').next().unwrap();
    let rest = lines(example(), &shop, &["--after", sequence, "--count", "2"]).await;
    let without_count = |line: &str| line.split(' ').filter(|w| !w.starts_with('#')).collect::<String>();
    let expected: Vec<String> = TOLD[3..].iter().map(|line| without_count(line)).collect();
    assert_eq!(all_told(&rest).iter().map(|line| without_count(line)).collect::<Vec<_>>(), expected);

    // The broker remembers for it.
    let first = lines(example(), &shop, &["--durable", "agent", "--count", "2"]).await;
    assert_eq!(all_told(&first), TOLD[..2]);
    let rest = lines(example(), &shop, &["--durable", "agent", "--count", "3"]).await;
    assert_eq!(rest.len(), 3);
    assert!(told(&rest[2]).starts_with("tasks/1 shop.tasks.deleted"), "{rest:?}");
}

#[tokio::test]
async fn subscribe_in_rust() {
    let program: PathBuf =
        Path::new(env!("CARGO_BIN_EXE_headgate")).with_file_name("examples").join("subscribe");
    assert!(program.is_file(), "no {}; run cargo build --examples", program.display());
    subscribes(|| Command::new(&program)).await;
}

#[tokio::test]
async fn subscribe_in_python() {
    let library = servers().join("nats-py");
    assert!(library.is_dir(), "no {}; run scripts/servers", library.display());
    subscribes(|| {
        let mut command = Command::new("python3");
        command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/subscribe.py"));
        command.env("PYTHONPATH", &library);
        command
    })
    .await;
}
