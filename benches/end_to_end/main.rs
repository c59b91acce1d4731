//! From a real PostgreSQL's or MySQL's log to acknowledged JetStream messages, on this machine.
//!
//! Prints, for each kind of load, events a second, CPU of the gateway an event and its peak memory, beside a raw reader
//! of the same slot that does nothing with what it reads: the ceiling. Then the latency from a client's send to stored in
//! the stream at a steady rate, and the gateway's peak memory while the broker stands still for a minute. At last, webhooks,
//! and what the broker's memory of their ids takes.
//! Runs alternate, the median is shown; nothing here passes or fails.
//!
//! `HEADGATE_BENCH_ROWS` (500 000), `HEADGATE_BENCH_ROUNDS` (3) and `HEADGATE_BENCH_POSTGRES` (`15,18`) change the size;
//! `HEADGATE_BENCH_MYSQL` (`9.7`, also `10.11`, `11.8`) names the MySQL servers, `none` leaves either database out;
//! `HEADGATE_BENCH_ONLY` (`backlog,latency,stalled,snapshot,webhooks,duplicates`), `HEADGATE_BENCH_LOADS` (part of a load's name) and
//! `HEADGATE_BENCH_RATES` (`100,1000`, of the latency) leave some of it out.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod backlog;
mod duplicates;
mod latency;
mod load;
mod mysql;
mod process;
mod raw_reader;
mod relay;
mod snapshot;
mod stalled;
#[path = "../../tests/support/mod.rs"]
#[allow(dead_code, unreachable_pub, unused_imports)]
mod support;
mod webhooks;

use support::{mysql::Version as MySqlVersion, postgres::Version};

fn setting(name: &str, default: &str) -> String {
    std::env::var(name).ok().filter(|value| !value.is_empty()).unwrap_or_else(|| default.to_owned())
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let rows: u64 = setting("HEADGATE_BENCH_ROWS", "500000").parse().unwrap();
    let rounds: usize = setting("HEADGATE_BENCH_ROUNDS", "3").parse().unwrap();
    let only = setting("HEADGATE_BENCH_ONLY", "backlog,latency,stalled,snapshot,webhooks,duplicates");
    for version in setting("HEADGATE_BENCH_MYSQL", "9.7").split(',') {
        let version = match version {
            "9.7" => MySqlVersion::MySql97,
            "10.11" => MySqlVersion::MariaDb1011,
            "11.8" => MySqlVersion::MariaDb118,
            "none" => continue,
            other => panic!("no MySQL {other} here: 9.7, 10.11, 11.8 or none"),
        };
        if only.contains("backlog") {
            mysql::run(version, rows, rounds).await;
        }
        if only.contains("snapshot") {
            snapshot::run_mysql(version, rows, rounds).await;
        }
    }
    for version in setting("HEADGATE_BENCH_POSTGRES", "15,18").split(',') {
        let version = match version {
            "15" => Version::Pg15,
            "18" => Version::Pg18,
            "none" => continue,
            other => panic!("no PostgreSQL {other} here: 15, 18 or none"),
        };
        if only.contains("backlog") {
            backlog::run(version, rows, rounds).await;
        }
        if only.contains("snapshot") {
            snapshot::run(version, rows, rounds).await;
        }
        if only.contains("latency") {
            latency::run(version).await;
        }
        if only.contains("stalled") {
            stalled::run(version, rows).await;
        }
    }
    if only.contains("webhooks") {
        webhooks::run(usize::try_from(rows).unwrap().min(300_000), rounds).await;
    }
    if only.contains("duplicates") {
        duplicates::run().await;
    }
}
