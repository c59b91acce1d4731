//! Webhook sources: from the public listener to their streams.
//!
//! ```text
//!  request ─▶ Listener ─▶ Intake ─▶ Gate ─▶ Lane ─┬─▶ JetStream EVENTS_{source}   (Nats-Msg-Id = delivery id)
//!             (headgate-webhook)   (draft) (order) └─▶ Spool ─▶ Drain ─▶ the same
//! ```
//!
//! * **Safe before answered**: a request is answered when the broker has acknowledged its events, or when they are synced to
//!   the spool.
//! * **Order**: by arrival, for each source, the spool included. Deliveries that were under way at the same moment when the
//!   connection broke may change places among themselves; what was answered before another was received comes first.
//! * **Duplicates**: dropped by the broker, by the delivery's id, within `dedup_window`; so two gateways may serve one address.
//! * **Shutdown**: the listener first, then the lanes; what is in the spool stays for the next start.

mod batch;
mod bus;
mod dead_letter;
mod drain;
mod event;
mod flight;
mod lane;
mod message;
mod pipelining;
mod removal;
mod stream;

pub(crate) use dead_letter::replay;
pub(crate) use removal::forget;
pub(crate) use stream::findings;

use crate::{
    config::{Config, Connector, Webhook},
    normalize::subject::Template,
    publish::{ClaimCheck, Identity, dead_letter::DeadLetters},
    status::Registry,
};
use drain::Drain;
use event::Style;
use headgate_sdk::Position;
use headgate_webhook::{Budget, Endpoint, Intake, Listener, Spool, SpoolError, TlsError};
use lane::{Gate, Lane};
use std::{io, net::SocketAddr, path::PathBuf, sync::Arc};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// The listener cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address is taken, or not one of this machine's.
    #[error("cannot listen on {address} for [http]: {error}")]
    Address {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        error: io::Error,
    },
    /// The certificate or its key cannot be used.
    #[error("[http.tls]: {0}")]
    Tls(#[from] TlsError),
    /// The spool cannot be used: without it nothing could be answered safely.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// A setting that was sound when the file was read is not.
    #[error("[sources.{source_name}]: {problem}")]
    Setting {
        /// The source.
        source_name: String,
        /// What is wrong.
        problem: String,
    },
}

impl StartError {
    /// What to do next.
    #[must_use]
    pub fn fix(&self) -> &'static str {
        match self {
            Self::Address { .. } => {
                "stop what listens there (another headgate?), or set http.listen to another address"
            }
            Self::Tls(_) => "set http.tls.cert and http.tls.key to a certificate chain and its key, both PEM",
            Self::Spool(_) => {
                "one gateway for each gateway.data_dir; it has to be writable, with room for http.spool_max"
            }
            Self::Setting { .. } => "correct the configuration",
        }
    }
}

/// Where the spool is.
pub(crate) fn spool_directory(config: &Config) -> PathBuf {
    config.gateway.data_dir.join("webhooks")
}

/// The webhook sources of a configuration.
fn webhooks(config: &Config) -> impl Iterator<Item = (&String, &crate::config::Source, &Webhook)> {
    config.sources.iter().filter_map(|(name, source)| match &source.connector {
        Connector::Webhook(webhook) => Some((name, source, webhook)),
        _ => None,
    })
}

/// Everything that is bound and opened, ready to serve.
#[derive(Debug)]
pub(crate) struct Service {
    listener: Listener,
    spool: Spool,
}

/// Takes the address and opens the spool, if there is any webhook source.
///
/// # Errors
/// Nothing was started.
pub(crate) async fn bind(config: &Config) -> Result<Option<Service>, StartError> {
    if webhooks(config).next().is_none() {
        return Ok(None);
    }
    let http = &config.http;
    let acceptor = match &http.tls {
        Some(tls) => Some(headgate_webhook::tls(&tls.cert, &tls.key)?),
        None => None,
    };
    let address = http.listen;
    let listener = Listener::bind(address, acceptor, http.max_connections)
        .await
        .map_err(|error| StartError::Address { address, error })?;
    let (directory, most) = (spool_directory(config), http.spool_max);
    let opening = tokio::task::spawn_blocking(move || Spool::open(&directory, most));
    let spool = opening.await.unwrap_or(Err(SpoolError::Closed))?;
    Ok(Some(Service { listener, spool }))
}

impl Service {
    /// Serves all webhook sources until the token fires and everything is safe, as tasks of `tasks`.
    ///
    /// # Errors
    /// A source's settings do not make an endpoint.
    pub(crate) async fn start(
        self,
        config: &Config,
        registry: &Registry,
        tasks: &TaskTracker,
        shutdown: CancellationToken,
    ) -> Result<(), StartError> {
        let Self { listener, spool } = self;
        for left in spool.sources() {
            if !webhooks(config).any(|(name, ..)| **name == *left) {
                let held = spool.held(&left).records;
                tracing::warn!(
                    source = &*left,
                    held,
                    "the spool holds deliveries of a source that is not configured"
                );
            }
        }
        let name = format!("{}/webhooks", config.gateway.name);
        let bus = bus::connect(config.nats.clone(), name, shutdown.clone());
        let mut sources = Vec::new();
        for (name, source, webhook) in webhooks(config) {
            let Some(state) = registry.source(name) else { continue };
            let wrong = |problem: String| StartError::Setting { source_name: name.clone(), problem };
            let uri = source.uri.clone().unwrap_or_else(|| format!("/headgate/{name}"));
            let style = Style {
                source: name.clone(),
                uri: uri.clone(),
                mode: config.nats.mode,
                template: Template::parse(&config.nats.subject).map_err(wrong)?,
                partitions: config.gateway.partitions,
            };
            let identity = Identity { source: name, uri: &uri, partitions: config.gateway.partitions };
            let drain = Drain {
                source: Arc::from(name.as_str()),
                spool: spool.clone(),
                bus: bus.clone(),
                nats: config.nats.clone(),
                dedup_window: webhook.dedup_window,
                dead_letters: DeadLetters::new(identity, &config.nats.stream),
                claim_check: ClaimCheck::new(name, &config.nats.stream),
                state: Arc::clone(state),
                floor: Arc::default(),
                server: Arc::default(),
            };
            let known = spool.endpoint(&drain.source).await?;
            let mut endpoint = Endpoint::new(webhook.provider.clone(), webhook.settings.clone())
                .map_err(|error| wrong(error.to_string()))?;
            // What the configuration says goes before what a handshake brought.
            if let Some(secret) = known.secret.filter(|_| !endpoint.has_secret()) {
                endpoint = endpoint.with_secret(secret).map_err(|error| wrong(error.to_string()))?;
            }
            let (lane, gate) = Lane::new(Arc::new(style), drain);
            tasks.spawn(lane.run());
            sources.push(headgate_webhook::Webhook::new(
                name,
                endpoint,
                webhook.settings.keys.clone(),
                webhook.limits.clone(),
                known.settled,
                gate,
            ));
        }
        let trusted = config.http.trusted_proxies.clone();
        let budget = Budget::new(config.http.memory);
        let intake: Arc<Intake<Gate>> = Arc::new(Intake::new(sources, trusted, budget, spool));
        tracing::info!(listen = %config.http.listen, "webhooks are received");
        // The lanes end with the last gate, which the intake holds, and the listener the intake.
        tasks.spawn(listener.serve(intake, shutdown));
        Ok(())
    }
}

/// A webhook's sequence where a position is shown.
fn position(sequence: u64) -> Position {
    Position { epoch: 0, commit: sequence, index: 0 }
}
