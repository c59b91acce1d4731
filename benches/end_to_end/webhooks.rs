//! Signed GitHub deliveries of 2 KiB over keep-alive connections, each answered after its JetStream acknowledgement.
//!
//! The load generator writes prepared requests to plain sockets, so that it takes as little as it can of the two cores
//! that it shares with the gateway and the broker.

use crate::{
    process::{cpu, peak_memory},
    support::{
        hooks::{self, Signed},
        nats::Nats,
    },
};
use std::time::{Duration, Instant};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
};

const CONNECTIONS: usize = 64;

/// Throughput, then latency at a steady rate, then memory with many open connections.
pub(crate) async fn run(deliveries: usize, rounds: usize) {
    println!("\nWebhooks: signed 2 KiB GitHub deliveries, each answered after its acknowledgement");
    println!("{:<34} {:>12} {:>10} {:>12} {:>10}", "", "deliveries/s", "p99", "CPU each", "memory");
    for _ in 0..rounds {
        throughput(deliveries).await;
    }
    latency(1000, 10).await;
    open_connections(2000).await;
}

/// One request, as the bytes on the wire.
fn request(id: &str, number: usize) -> Vec<u8> {
    let text = "x".repeat(1850);
    let signed = Signed::issue_with(id, number as u64, &text, hooks::SECRET);
    let mut out = b"POST /webhooks/gh HTTP/1.1\r\nhost: hooks.example.com\r\n".to_vec();
    for (name, value) in &signed.headers {
        out.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
    }
    out.extend_from_slice(format!("content-length: {}\r\n\r\n", signed.body.len()).as_bytes());
    out.extend_from_slice(&signed.body);
    out
}

/// Sends one request and waits for its answer, which has a head and, where it says so, a short body.
async fn exchange(connection: &mut TcpStream, request: &[u8], buffer: &mut Vec<u8>) {
    connection.write_all(request).await.unwrap();
    buffer.clear();
    loop {
        assert!(connection.read_buf(buffer).await.unwrap() > 0, "the gateway closed the connection");
        let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
        let head = std::str::from_utf8(&buffer[..end]).unwrap().to_ascii_lowercase();
        assert!(head.starts_with("http/1.1 2"), "{head}");
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        if buffer.len() >= end + 4 + length.map_or(0, |length| length.parse::<usize>().unwrap()) {
            return;
        }
    }
}

async fn connect(port: u16) -> TcpStream {
    let connection = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    connection.set_nodelay(true).unwrap();
    connection
}

fn show(name: &str, rate: f64, waits: &mut [Duration], cpu: Duration, memory: u64) {
    waits.sort_unstable();
    let p99 = waits[(waits.len() - 1) * 99 / 100];
    let each = cpu.as_secs_f64() * 1e6 / waits.len() as f64;
    println!(
        "{name:<34} {:>10.1} k {:>7.2} ms {each:>9.1} µs {memory:>6} MiB",
        rate / 1e3,
        p99.as_secs_f64() * 1e3
    );
}

async fn throughput(deliveries: usize) {
    let nats = Nats::start().await;
    let mut gateway = hooks::start(&nats, "", "").await;
    let each = deliveries / CONNECTIONS;
    let prepared: Vec<Vec<Vec<u8>>> = (0..CONNECTIONS)
        .map(|lane| (0..each).map(|n| request(&format!("{lane}-{n:08}"), lane)).collect())
        .collect();
    let (before, began) = (cpu(gateway.pid()), Instant::now());
    let mut senders = JoinSet::new();
    for requests in prepared {
        let port = gateway.http_port();
        senders.spawn(async move {
            let mut connection = connect(port).await;
            let mut buffer = Vec::with_capacity(1024);
            let mut waits = Vec::with_capacity(requests.len());
            for request in &requests {
                let sent = Instant::now();
                exchange(&mut connection, request, &mut buffer).await;
                waits.push(sent.elapsed());
            }
            waits
        });
    }
    let mut waits: Vec<Duration> = senders.join_all().await.into_iter().flatten().collect();
    let took = began.elapsed();
    let used = cpu(gateway.pid()) - before;
    let rate = waits.len() as f64 / took.as_secs_f64();
    show("64 connections, as fast as it goes", rate, &mut waits, used, peak_memory(gateway.pid()));
    gateway.terminate();
}

async fn latency(rate: u32, seconds: u32) {
    let nats = Nats::start().await;
    let mut gateway = hooks::start(&nats, "", "").await;
    let port = gateway.http_port();
    let before = cpu(gateway.pid());
    let mut senders = JoinSet::new();
    let lanes = 8;
    for lane in 0..lanes {
        senders.spawn(async move {
            let mut connection = connect(port).await;
            let mut buffer = Vec::new();
            let mut tick = tokio::time::interval(Duration::from_secs(1) * lanes / rate);
            let mut waits = Vec::new();
            for number in 0..rate * seconds / lanes {
                let request = request(&format!("{lane}-{number}"), lane as usize);
                // From when it was due: a late answer makes the next one late too.
                let due = tick.tick().await.into_std();
                exchange(&mut connection, &request, &mut buffer).await;
                waits.push(due.elapsed());
            }
            waits
        });
    }
    let mut waits: Vec<Duration> = senders.join_all().await.into_iter().flatten().collect();
    let used = cpu(gateway.pid()) - before;
    show("at 1,000 a second", f64::from(rate), &mut waits, used, peak_memory(gateway.pid()));
    gateway.terminate();
}

async fn open_connections(count: usize) {
    let nats = Nats::start().await;
    let mut gateway = hooks::start(&nats, "", "").await;
    let mut connections = Vec::with_capacity(count);
    let mut buffer = Vec::new();
    let mut waits = Vec::new();
    let (before, began) = (cpu(gateway.pid()), Instant::now());
    for number in 0..count {
        let mut connection = connect(gateway.http_port()).await;
        let sent = Instant::now();
        exchange(&mut connection, &request(&format!("open-{number}"), number), &mut buffer).await;
        waits.push(sent.elapsed());
        connections.push(connection);
    }
    let rate = count as f64 / began.elapsed().as_secs_f64();
    let used = cpu(gateway.pid()) - before;
    show("2,000 connections open", rate, &mut waits, used, peak_memory(gateway.pid()));
    gateway.terminate();
}
