//! Signed GitHub deliveries of 2 KiB over keep-alive connections, each answered after its JetStream acknowledgement.
//!
//! The load generator writes prepared requests to plain sockets, so that it takes as little as it can of the two cores
//! that it shares with the gateway and the broker; what CPU each of the three took is shown for each delivery.

use crate::{
    process::{cpu, peak_memory},
    support::{gateway::Gateway, hooks, nats::Nats, sender::Sender},
};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

const CONNECTIONS: usize = 64;
/// What makes a delivery 2 KiB.
const TEXT: usize = 1850;

/// Throughput, then latency at a steady rate, then memory with many open connections.
pub(crate) async fn run(deliveries: usize, rounds: usize) {
    println!("\nWebhooks: signed 2 KiB GitHub deliveries, each answered after its acknowledgement");
    println!(
        "{:<34} {:>10} {:>10} {:>10} {:>10} {:>10} {:>10} {:>10}",
        "", "a second", "median", "p99", "gateway", "broker", "generator", "memory"
    );
    for _ in 0..rounds {
        throughput(deliveries).await;
    }
    latency(1000, 10).await;
    open_connections(2000).await;
}

/// What the three processes that share the machine use of it.
struct Usage {
    began: Instant,
    gateway: Duration,
    broker: Duration,
    generator: Duration,
}

impl Usage {
    fn now(gateway: &Gateway, nats: &Nats) -> Self {
        Self {
            began: Instant::now(),
            gateway: cpu(gateway.pid()),
            broker: cpu(nats.pid(0)),
            generator: cpu(std::process::id()),
        }
    }

    /// Prints a line about what happened since.
    fn show(self, name: &str, waits: &mut [Duration], gateway: &Gateway, nats: &Nats) {
        let now = Self::now(gateway, nats);
        waits.sort_unstable();
        let at = |share: usize| waits[(waits.len() - 1) * share / 100].as_secs_f64() * 1e3;
        let each = |now: Duration, before: Duration| (now - before).as_secs_f64() * 1e6 / waits.len() as f64;
        println!(
            "{name:<34} {:>8.1} k {:>7.2} ms {:>7.2} ms {:>7.1} µs {:>7.1} µs {:>7.1} µs {:>6} MiB",
            waits.len() as f64 / (now.began - self.began).as_secs_f64() / 1e3,
            at(50),
            at(99),
            each(now.gateway, self.gateway),
            each(now.broker, self.broker),
            each(now.generator, self.generator),
            peak_memory(gateway.pid())
        );
    }
}

async fn sender(gateway: &Gateway, name: &str, key: u64) -> Sender {
    Sender::connect(gateway.http_port(), name, key, &"x".repeat(TEXT), hooks::SECRET).await
}

async fn throughput(deliveries: usize) {
    let nats = Nats::start().await;
    let mut gateway = hooks::start(&nats, "", "").await;
    let mut senders = Vec::with_capacity(CONNECTIONS);
    for lane in 0..CONNECTIONS {
        senders.push(sender(&gateway, &lane.to_string(), lane as u64).await);
    }
    let usage = Usage::now(&gateway, &nats);
    let mut sending = JoinSet::new();
    for mut sender in senders {
        sending.spawn(async move {
            let mut waits = Vec::with_capacity(deliveries / CONNECTIONS);
            for _ in 0..deliveries / CONNECTIONS {
                let sent = Instant::now();
                assert!(sender.exchange().await < 300);
                waits.push(sent.elapsed());
            }
            waits
        });
    }
    let mut waits: Vec<Duration> = sending.join_all().await.into_iter().flatten().collect();
    usage.show("64 connections, as fast as it goes", &mut waits, &gateway, &nats);
    gateway.terminate();
}

async fn latency(rate: u32, seconds: u32) {
    let nats = Nats::start().await;
    let mut gateway = hooks::start(&nats, "", "").await;
    let lanes = 8;
    let period = Duration::from_secs(1) * lanes / rate;
    let mut senders = Vec::new();
    for lane in 0..lanes {
        senders.push(sender(&gateway, &lane.to_string(), lane.into()).await);
    }
    let usage = Usage::now(&gateway, &nats);
    let mut sending = JoinSet::new();
    for (lane, mut sender) in (0..).zip(senders) {
        sending.spawn(async move {
            // One a millisecond, not eight every eighth.
            let mut tick = tokio::time::interval_at((Instant::now() + period / lanes * lane).into(), period);
            let mut waits = Vec::new();
            for _ in 0..rate * seconds / lanes {
                // From when it was due: a late answer makes the next one late too.
                let due = tick.tick().await.into_std();
                assert!(sender.exchange().await < 300);
                waits.push(due.elapsed());
            }
            waits
        });
    }
    let mut waits: Vec<Duration> = sending.join_all().await.into_iter().flatten().collect();
    usage.show("at 1,000 a second", &mut waits, &gateway, &nats);
    gateway.terminate();
}

async fn open_connections(count: usize) {
    let nats = Nats::start().await;
    let mut gateway = hooks::start(&nats, "", "").await;
    let mut senders = Vec::with_capacity(count);
    let mut waits = Vec::with_capacity(count);
    let usage = Usage::now(&gateway, &nats);
    for number in 0..count {
        let mut sender = sender(&gateway, &format!("open-{number}"), 0).await;
        let sent = Instant::now();
        assert!(sender.exchange().await < 300);
        waits.push(sent.elapsed());
        senders.push(sender);
    }
    usage.show("2,000 connections open", &mut waits, &gateway, &nats);
    gateway.terminate();
}
