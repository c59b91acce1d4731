//! The floor of the latency: a thread that reads a slot and passes each row on as it is, with system calls alone.
//!
//! It waits in `recv`, and when a transaction is whole writes its row to the broker: no runtime, no decoding, no JSON, nothing
//! kept, no acknowledgement asked for. What it takes is the walsender's, the broker's and the kernel's.

use crate::{
    backlog::login,
    latency::{Passed, micros_since_epoch},
    raw_reader::Reader,
    support::{nats::Nats, postgres::Postgres},
};
use async_nats::jetstream::stream::Config;
use std::{io::Write as _, net::TcpStream};
use tokio::task::JoinHandle;

/// A relay from a slot of its own to a stream of its own.
pub(crate) struct Relay {
    rows: u64,
    /// When each row was whole, in microseconds since 1970-01-01.
    reading: JoinHandle<Vec<i64>>,
}

impl Relay {
    /// Starts a relay that ends after `rows` rows.
    pub(crate) async fn start(postgres: &Postgres, nats: &Nats, rows: u64) -> Self {
        let config =
            Config { name: "RELAY".to_owned(), subjects: vec!["relay".to_owned()], ..Config::default() };
        nats.jetstream().await.create_stream(config).await.unwrap();
        postgres.execute("SELECT pg_create_logical_replication_slot('relay', 'pgoutput')").await;
        let (port, user, password) = login(postgres);
        let broker = nats.port(0);
        let reading = tokio::task::spawn_blocking(move || {
            relay(Reader::start(port, &user, &password, "relay"), broker, rows)
        });
        postgres.slot_is_active("relay").await;
        Self { rows, reading }
    }

    /// Waits for the last row, and reads the stream.
    pub(crate) async fn passed(self, nats: &Nats) -> Vec<Passed> {
        let read = self.reading.await.unwrap();
        let stream = nats.jetstream().await.get_stream("RELAY").await.unwrap();
        let mut passed = Vec::new();
        for (sequence, decoded) in (1..=self.rows).zip(read) {
            let message = stream.get_raw_message(sequence).await.unwrap();
            let stored = i64::try_from(message.time.unix_timestamp_nanos() / 1000).unwrap();
            passed.push(Passed { sent: sent(&message.payload), decoded, stored });
        }
        passed
    }
}

fn relay(mut reader: Reader, broker: u16, rows: u64) -> Vec<i64> {
    let mut socket = TcpStream::connect(("127.0.0.1", broker)).unwrap();
    socket.set_nodelay(true).unwrap();
    socket.write_all(b"CONNECT {\"verbose\":false,\"headers\":true}\r\n").unwrap();
    let (mut read, mut row) = (Vec::new(), Vec::new());
    while (read.len() as u64) < rows {
        reader.gulp(|payload| match payload.first() {
            Some(b'I') => row = payload.to_vec(),
            Some(b'C') => {
                read.push(micros_since_epoch());
                let head = format!("NATS/1.0\r\nNats-Expected-Last-Sequence: {}\r\n\r\n", read.len() - 1);
                let mut message =
                    format!("HPUB relay {} {}\r\n{head}", head.len(), head.len() + row.len()).into_bytes();
                message.extend_from_slice(&row);
                message.extend_from_slice(b"\r\n");
                socket.write_all(&message).unwrap();
            }
            _ => {}
        });
    }
    read
}

/// The second column of an insert: 'I', OID, 'N', how many columns; for each 't', its length, its text.
fn sent(insert: &[u8]) -> i64 {
    let text = |at: usize| {
        let length = u32::from_be_bytes(insert[at + 1..at + 5].try_into().unwrap()) as usize;
        &insert[at + 5..at + 5 + length]
    };
    let id = text(8);
    std::str::from_utf8(text(8 + 5 + id.len())).unwrap().parse().unwrap()
}
