//! What the broker's memory of message ids costs it: the same messages into a stream that remembers their ids for a day, and
//! into one that forgets them at once.

use crate::{process::resident, support::nats::Nats};
use async_nats::jetstream::stream::Config;
use std::time::Duration;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufStream},
    net::TcpStream,
};

/// Ids that are remembered.
const IDS: u64 = 1_000_000;
/// Messages that are published before an acknowledgement is waited for.
const TOGETHER: u64 = 1000;

pub(crate) async fn run() {
    println!("\nDe-duplication: memory of the broker with {IDS} ids of 36 characters");
    let forgotten = publish(Duration::from_millis(100)).await;
    let remembered = publish(Duration::from_secs(86_400)).await;
    let each = remembered.saturating_sub(forgotten) as f64 * 1024.0 / IDS as f64;
    println!(
        "forgotten {} MiB, remembered {} MiB: {each:.0} bytes an id",
        forgotten / 1024,
        remembered / 1024
    );
}

/// The broker's resident memory in KiB, with that many messages in a stream of this window.
async fn publish(window: Duration) -> u64 {
    let nats = Nats::start().await;
    let jetstream = nats.jetstream().await;
    let config = Config {
        name: "IDS".to_owned(),
        subjects: vec!["ids".to_owned()],
        duplicate_window: window,
        ..Config::default()
    };
    jetstream.create_stream(config).await.unwrap();
    let mut socket = BufStream::new(TcpStream::connect(("127.0.0.1", nats.port(0))).await.unwrap());
    socket.write_all(b"CONNECT {\"verbose\":false,\"headers\":true}\r\nSUB acks 1\r\n").await.unwrap();
    let mut line = String::new();
    for number in 0..IDS {
        let head = format!("NATS/1.0\r\nNats-Msg-Id: {number:08x}-cc78-11e3-81ab-4c9367dc0958\r\n\r\n");
        let last = number % TOGETHER == TOGETHER - 1;
        let reply = if last { "acks " } else { "" };
        let message = format!("HPUB ids {reply}{} {}\r\n{head}{{}}\r\n", head.len(), head.len() + 2);
        socket.write_all(message.as_bytes()).await.unwrap();
        if last {
            // The broker refuses what it would have to hold too much of.
            socket.flush().await.unwrap();
            while !line.contains("\"seq\"") {
                line.clear();
                assert!(socket.read_line(&mut line).await.unwrap() > 0, "the broker closed the connection");
            }
            assert!(line.contains(&format!("\"seq\":{}", number + 1)), "{line}");
            line.clear();
        }
    }
    // What the collector of garbage gives back, it gives back within minutes; most of it soon.
    tokio::time::sleep(Duration::from_secs(10)).await;
    resident(nats.pid(0))
}
