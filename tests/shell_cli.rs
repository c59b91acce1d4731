//! The program as a user meets it: exit codes, what it says, and nothing started with a wrong configuration. With a real
//! nats-server (on PATH or in HEADGATE_NATS_SERVER).
#![allow(clippy::unwrap_used, clippy::panic)]

use async_nats::{HeaderMap, jetstream};
use headgate::{
    broker::{self, Patience, embedded::EmbeddedServer},
    config::{self, Config, Server},
};
use std::{
    io::{BufRead as _, BufReader, Read as _},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::Duration,
};
use tokio_util::sync::CancellationToken;

fn headgate(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_headgate"))
        .args(arguments)
        .env_remove("HEADGATE_CONFIG")
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

fn free() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

fn write(directory: &Path, nats: &str, rest: &str) -> PathBuf {
    let file = directory.join("config.toml");
    let text = format!(
        "[gateway]\ndata_dir = {directory:?}\n[admin]\nlisten = \"{}\"\n{nats}\n\
         [sources.shop]\nconnector = \"postgres\"\nurl = \"postgres://u:hunter2@127.0.0.1:1/d\"\n{rest}\n",
        free()
    );
    std::fs::write(&file, text).unwrap();
    file
}

#[test]
fn wrong_usage_and_wrong_configuration_exit_64() {
    for arguments in [&["nonsense"][..], &[], &["tail", "--from", "yesterday"], &["tail", "a..b"]] {
        let output = headgate(arguments);
        assert_eq!(output.status.code(), Some(64), "{arguments:?}");
    }
    for arguments in [&["--help"][..], &["--version"], &["tail", "--help"], &["completions", "bash"]] {
        assert_eq!(headgate(arguments).status.code(), Some(0), "{arguments:?}");
    }
    let directory = tempfile::tempdir().unwrap();
    let file = write(directory.path(), "[nats]\nurl = \"embedded\"", "tabels = []");
    let name = file.to_str().unwrap();
    for command in [&["run"][..], &["check"], &["status"], &["tail"], &["source", "drop", "shop", "--yes"]] {
        let output = headgate(&[&["-c", name], command].concat());
        assert_eq!(output.status.code(), Some(64), "{command:?}");
        assert_eq!(
            text(&output.stderr),
            format!("headgate: {name}:10: sources.shop.tabels: unknown key; did you mean \"tables\"?\n")
        );
    }
    assert!(!directory.path().join("nats").exists(), "something was started");
    let output = headgate(&["check", "--json", "-c", name]);
    assert_eq!(output.status.code(), Some(64));
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(answer["ok"], false);
    assert_eq!(answer["findings"][0]["fix"], "did you mean \"tables\"?");
}

#[test]
fn what_is_not_there_exits_69() {
    let directory = tempfile::tempdir().unwrap();
    let file = write(directory.path(), "[nats]\nurl = \"nats://u:hunter2@127.0.0.1:1\"", "");
    let name = file.to_str().unwrap();
    for command in [&["check"][..], &["status"], &["tail"], &["source", "accept-gap", "shop"]] {
        let output = headgate(&[&["-c", name], command].concat());
        assert_eq!(output.status.code(), Some(69), "{command:?}");
        assert!(!text(&output.stdout).contains("hunter2") && !text(&output.stderr).contains("hunter2"));
    }
    let output = headgate(&["-c", name, "source", "drop", "shop"]);
    assert_eq!(output.status.code(), Some(78), "nobody can be asked");
}

struct Broker {
    config: Config,
    file: PathBuf,
    server: EmbeddedServer,
    context: jetstream::Context,
    directory: tempfile::TempDir,
}

async fn broker() -> Broker {
    let directory = tempfile::tempdir().unwrap();
    let nats = format!("[nats]\nurl = \"embedded\"\n[nats.embedded]\nlisten = \"{}\"", free());
    let file = write(directory.path(), &nats, "");
    let config = config::load(&file, &|_| None).unwrap();
    let Server::Embedded(settings) = &config.nats.server else { panic!() };
    let server =
        EmbeddedServer::start(settings, directory.path(), &CancellationToken::new()).await.unwrap().unwrap();
    let (client, _) = broker::connect(&config.nats, "test", Patience::Once).await.unwrap();
    let context = jetstream::new(client);
    for source in ["shop", "dlq"] {
        stream(&context, source).await;
    }
    Broker { config, file, server, context, directory }
}

async fn stream(context: &jetstream::Context, source: &str) {
    let settings = jetstream::stream::Config {
        name: format!("EVENTS_{source}"),
        subjects: vec![format!("events.{source}.>")],
        ..Default::default()
    };
    context.create_stream(settings).await.unwrap();
}

async fn publish(context: &jetstream::Context, subject: &str, id: u32) {
    let mut headers = HeaderMap::new();
    headers.insert("Content-Type", "application/cloudevents+json");
    let payload = format!(
        "{{\"specversion\":\"1.0\",\"id\":\"{id}\",\n\"source\":\"/headgate/shop\",\"type\":\"shop.orders.updated\",\"subject\":\"orders/{id}\",\"time\":\"2026-11-22T14:06:07.123456Z\",\"data\":{{\"key\":{{\"id\":{id}}},\"before\":{{\"status\":\"new\"}},\"after\":{{\"status\":\"paid\"}}}}}}"
    );
    context.publish_with_headers(subject.to_owned(), headers, payload.into()).await.unwrap().await.unwrap();
}

fn ids(stdout: &[u8]) -> Vec<String> {
    text(stdout)
        .lines()
        .map(|line| {
            serde_json::from_str::<serde_json::Value>(line).unwrap()["id"].as_str().unwrap().to_owned()
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn tail_shows_what_matches_from_where_it_is_told() {
    let broker = broker().await;
    for (subject, id) in [
        ("events.shop.orders.updated.1", 1),
        ("events.shop.users.updated.2", 2),
        ("events.shop.orders.updated.3", 3),
        ("events.dlq.shop.orders.0", 4),
    ] {
        publish(&broker.context, subject, id).await;
    }
    let name = broker.file.to_str().unwrap();
    let tail = |more: &[&str]| headgate(&[&["-c", name, "tail"], more].concat());
    let output = tail(&["--from", "start", "--count", "3", "--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(ids(&output.stdout), ["1", "2", "3"]);
    assert_eq!(ids(&tail(&["shop.orders", "--from", "start", "--count", "2", "--json"]).stdout), ["1", "3"]);
    assert_eq!(ids(&tail(&["shop", "--from", "2", "--count", "2", "--json"]).stdout), ["2", "3"]);
    assert_eq!(ids(&tail(&["shop", "--from", "10m", "--count", "1", "--json"]).stdout), ["1"]);
    assert_eq!(ids(&tail(&["dlq", "--from", "start", "--count", "1", "--json"]).stdout), ["4"]);
    stream(&broker.context, "late").await;
    publish(&broker.context, "events.late.orders.updated.1", 5).await;
    let late = tail(&["late", "--from", "start", "--count", "1", "--json"]);
    assert_eq!(ids(&late.stdout), ["5"]);
    assert!(text(&late.stderr).contains("the configuration has no source late; known: shop"));
    let line = tail(&["shop.users", "--from", "start", "--count", "1"]);
    let shown = text(&line.stdout);
    assert!(
        shown.starts_with("14:06:07.123 updated   shop orders/2 ")
            && shown.contains("  status: new → paid  +"),
        "{shown}"
    );
    broker.server.stop().await;
    drop(broker.directory);
}

#[tokio::test(flavor = "multi_thread")]
async fn tail_survives_a_restart_of_the_broker_and_ends_when_its_reader_goes() {
    let broker = broker().await;
    let mut tail = Command::new(env!("CARGO_BIN_EXE_headgate"))
        .args(["-c", broker.file.to_str().unwrap(), "tail", "--json"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(tail.stdout.take().unwrap());
    // Until the consumer is there, which nothing tells.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let mut next = || {
        let mut line = String::new();
        lines.read_line(&mut line).unwrap();
        serde_json::from_str::<serde_json::Value>(&line).unwrap()["id"].as_str().unwrap().to_owned()
    };
    publish(&broker.context, "events.shop.orders.updated.1", 1).await;
    assert_eq!(next(), "1");
    broker.server.stop().await;
    let Server::Embedded(settings) = &broker.config.nats.server else { panic!() };
    let server = EmbeddedServer::start(settings, broker.directory.path(), &CancellationToken::new())
        .await
        .unwrap()
        .unwrap();
    let (client, _) = broker::connect(&broker.config.nats, "test", Patience::Once).await.unwrap();
    let context = jetstream::new(client);
    for id in 2..5 {
        publish(&context, "events.shop.orders.updated.1", id).await;
    }
    assert_eq!([next(), next(), next()], ["2", "3", "4"]);
    // A source that begins later shows from its first event on.
    stream(&context, "late").await;
    publish(&context, "events.late.orders.updated.1", 5).await;
    assert_eq!(next(), "5");
    // Without an event that it could fail to write.
    drop(lines);
    let status = tokio::task::spawn_blocking(move || tail.wait().unwrap()).await.unwrap();
    assert_eq!(status.code(), Some(0));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn run_answers_on_its_admin_listener_and_ends_with_success() {
    let directory = tempfile::tempdir().unwrap();
    let nats = format!("[nats]\nurl = \"embedded\"\n[nats.embedded]\nlisten = \"{}\"", free());
    let file = write(directory.path(), &nats, "");
    let name = file.to_str().unwrap().to_owned();
    let mut run = Command::new(env!("CARGO_BIN_EXE_headgate"))
        .args(["-c", &name, "run"])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let status = loop {
        let output = headgate(&["-c", &name, "status", "--json"]);
        if output.status.code() == Some(0) {
            break serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap();
        }
        assert_eq!(output.status.code(), Some(69));
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    assert_eq!(status["sources"][0]["name"], "shop");
    assert!(text(&headgate(&["-c", &name, "status"]).stdout).contains("\nSOURCE"));
    let second = headgate(&["-c", &name, "run"]);
    assert_eq!(second.status.code(), Some(69), "the admin address is taken");
    assert!(text(&second.stderr).contains("fix: stop what listens there"));
    let pid = rustix::process::Pid::from_child(&run);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let mut log = String::new();
    run.stderr.take().unwrap().read_to_string(&mut log).unwrap();
    assert_eq!(run.wait().unwrap().code(), Some(0), "{log}");
    assert!(!log.contains("hunter2"), "{log}");
}
