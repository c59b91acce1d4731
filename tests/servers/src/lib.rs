//! Private, real servers for the tests of the gateway and of its connectors.
//!
//! Every server belongs to its test: loopback, a port of its own, files in a temporary folder, ended when its value is
//! dropped, also by a panic. `scripts/servers` installs what is started here. Whatever goes wrong is a panic: there is
//! nobody here to handle it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod mysql;
pub mod port;
pub mod postgres;
pub mod process;
pub mod tls;

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// Where `scripts/servers` put the servers.
///
/// # Panics
/// There are none.
#[must_use]
pub fn servers() -> PathBuf {
    let dir = std::env::var_os("HEADGATE_SERVERS")
        .filter(|dir| !dir.is_empty())
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.servers"), PathBuf::from);
    dir.canonicalize()
        .unwrap_or_else(|error| panic!("no servers in {}: {error}; run scripts/servers", dir.display()))
}

/// Asks again and again until there is an answer.
///
/// # Panics
/// There is none in time.
pub async fn eventually<T, F: Future<Output = Result<T, String>>>(
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
