//! All sources of a gateway, and whether it is ready.

use super::{GatewayReport, NatsReport, Phase, Report, SourceState};
use crate::{broker::Link, config::Config, telemetry::metrics::Metrics};
use std::{collections::BTreeMap, sync::Arc, time::Instant};
use tokio::sync::watch;

/// All sources of a gateway and the gateway itself.
#[derive(Debug)]
pub struct Registry {
    name: String,
    server: String,
    started: Instant,
    link: watch::Receiver<Link>,
    sources: BTreeMap<String, Arc<SourceState>>,
}

impl Registry {
    /// One state for each configured source.
    #[must_use]
    pub fn new(config: &Config, metrics: &Metrics, link: watch::Receiver<Link>) -> Arc<Self> {
        let sources = config
            .sources
            .iter()
            .map(|(name, source)| {
                (name.clone(), SourceState::new(name, source.connector.kind(), metrics.source(name)))
            })
            .collect();
        Arc::new(Self {
            name: config.gateway.name.clone(),
            server: config.nats.server.to_string(),
            started: Instant::now(),
            link,
            sources,
        })
    }

    /// The state of one source.
    #[must_use]
    pub fn source(&self, name: &str) -> Option<&Arc<SourceState>> {
        self.sources.get(name)
    }

    /// All states, by name.
    pub fn sources(&self) -> impl Iterator<Item = &Arc<SourceState>> {
        self.sources.values()
    }

    /// Why the gateway is not ready; empty when it is.
    #[must_use]
    pub fn unready(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        if !self.link.borrow().connected {
            reasons.push(format!("not connected to nats at {}", self.server));
        }
        for source in self.sources() {
            let phase = source.phase();
            if !phase.is_ready() {
                reasons.push(match source.last_error() {
                    Some(error) => format!("source {} is {phase}: {error}", source.name()),
                    None => format!("source {} is {phase}", source.name()),
                });
            }
        }
        reasons
    }

    /// Why `source` does nothing that is asked of it now, and what to do next; `None` where it runs, or is about to.
    #[must_use]
    pub fn trouble(&self, source: &SourceState) -> Option<(String, String)> {
        const AGAIN: &str = "ask again when headgate status shows the source streaming";
        let (name, phase) = (source.name(), source.phase());
        match phase {
            Phase::Streaming => None,
            Phase::Starting if self.link.borrow().connected => None,
            Phase::Starting => Some((format!("not connected to nats at {}", self.server), AGAIN.to_owned())),
            Phase::Standby => Some((
                format!("source {name} is {phase}: another gateway reads it"),
                "ask that gateway".to_owned(),
            )),
            Phase::Waiting | Phase::Stopped | Phase::Gap => {
                let report = source.report();
                let state =
                    if phase == Phase::Gap { "stands at a gap".to_owned() } else { format!("is {phase}") };
                let error = report.last_error.map_or_else(String::new, |error| format!(": {error}"));
                let fix = report.fix.unwrap_or_else(|| AGAIN.to_owned());
                Some((format!("source {name} {state} and takes no snapshots now{error}"), fix))
            }
        }
    }

    /// Everything, for people and for scripts.
    #[must_use]
    pub fn report(&self) -> Report {
        Report {
            gateway: GatewayReport {
                name: self.name.clone(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                uptime_s: self.started.elapsed().as_secs(),
                nats: NatsReport { connected: self.link.borrow().connected, url: self.server.clone() },
            },
            sources: self.sources().map(|source| source.report()).collect(),
        }
    }
}
