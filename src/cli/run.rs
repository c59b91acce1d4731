//! `headgate run`: the gateway, until it is asked to end.
//!
//! The first SIGINT or SIGTERM drains within `shutdown_grace`; the second ends the process at once.

use super::Failure;
use crate::{config::Config, gateway};
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// What ending may take beyond the grace period, the embedded server's end above all, before it is given up.
const MARGIN: Duration = Duration::from_secs(15);

pub(super) async fn run(config: Config) -> Result<(), Failure> {
    let internal = |error: std::io::Error| Failure::internal(format!("cannot listen for signals: {error}"));
    let mut interrupt = signal(SignalKind::interrupt()).map_err(internal)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(internal)?;
    let grace = config.gateway.shutdown_grace;
    let shutdown = CancellationToken::new();
    tracing::info!(version = env!("CARGO_PKG_VERSION"), sources = config.sources.len(), "headgate starts");
    let mut gateway = tokio::spawn(gateway::run(config, shutdown.clone()));

    let ended = tokio::select! {
        ended = &mut gateway => ended,
        () = either(&mut interrupt, &mut terminate) => {
            tracing::info!(?grace, "draining; another signal ends at once");
            shutdown.cancel();
            tokio::select! {
                ended = &mut gateway => ended,
                () = either(&mut interrupt, &mut terminate) => {
                    return Err(Failure::unavailable("ended at once by a second signal; what was under way will be sent again"));
                }
                () = tokio::time::sleep(grace + MARGIN) => {
                    return Err(Failure::unavailable(format!("not drained within {grace:?}; what was under way will be sent again"))
                        .with_fix("set gateway.shutdown_grace to a longer time"));
                }
            }
        }
    };
    match ended {
        Ok(Ok(())) => {
            tracing::info!("headgate has ended");
            Ok(())
        }
        Ok(Err(error)) => {
            let failed = if error.is_refusal() { Failure::refused } else { Failure::unavailable };
            Err(failed(error.to_string()).with_fix(error.fix()))
        }
        Err(error) => Err(Failure::internal(format!("the gateway failed: {error}"))),
    }
}

async fn either(one: &mut Signal, other: &mut Signal) {
    tokio::select! {
        _ = one.recv() => {}
        _ = other.recv() => {}
    }
}
