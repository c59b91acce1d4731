//! Real servers, faults and the oracle, for tests of the whole gateway.
//!
//! Every server is private to its test: loopback, a port of its own, files in a temporary folder, ended when its value
//! is dropped, also by a panic. `scripts/servers` installs what is started here.

pub(crate) mod database;
pub(crate) mod gateway;
pub(crate) mod hooks;
pub(crate) mod nats;
pub(crate) mod oracle;
pub(crate) mod port;
pub(crate) mod postgres;
pub(crate) mod process;
pub(crate) mod proxy;
pub(crate) mod shop;
pub(crate) mod stream;
pub(crate) mod workload;

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// Where `scripts/servers` put the servers.
pub(crate) fn servers() -> PathBuf {
    let dir = std::env::var_os("HEADGATE_SERVERS")
        .filter(|dir| !dir.is_empty())
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join(".servers"), PathBuf::from);
    dir.canonicalize()
        .unwrap_or_else(|error| panic!("no servers in {}: {error}; run scripts/servers", dir.display()))
}

/// Asks again and again until there is an answer.
///
/// # Panics
/// There is none in time.
pub(crate) async fn eventually<T, F: Future<Output = Result<T, String>>>(
    what: &str,
    within: Duration,
    mut ask: impl FnMut() -> F,
) -> T {
    let began = Instant::now();
    loop {
        let left = within.saturating_sub(began.elapsed()).max(Duration::from_millis(1));
        let reason = match tokio::time::timeout(left, ask()).await {
            Ok(Ok(answer)) => return answer,
            Ok(Err(reason)) => reason,
            Err(_) => "no answer".to_owned(),
        };
        assert!(began.elapsed() < within, "{what}: not within {within:?}: {reason}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
