//! Builds the data path of every source and runs it.

use crate::config::Config;
use tokio_util::sync::CancellationToken;

/// Why the gateway could not run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Something that it needs is not there.
    #[error("{message}")]
    Unavailable {
        /// What is not there.
        message: String,
        /// What to do next.
        fix: Option<String>,
    },
    /// Going on would not be safe.
    #[error("{message}")]
    Refused {
        /// What was found.
        message: String,
        /// What to do next.
        fix: Option<String>,
    },
    /// A defect of the gateway itself.
    #[error("{0}")]
    Internal(String),
}

/// Runs until the token fires, then drains.
///
/// # Errors
/// See [`RunError`].
pub async fn run(config: Config, shutdown: CancellationToken) -> Result<(), RunError> {
    use crate::{admin, broker, broker::embedded::EmbeddedServer, config::Server, status, telemetry::metrics::Metrics};
    use std::sync::Arc;
    let unavailable = |message: String, fix: &str| RunError::Unavailable { message, fix: Some(fix.to_owned()) };
    let listener =
        admin::bind(config.admin.listen).await.map_err(|error| unavailable(error.to_string(), error.fix()))?;
    let embedded = match &config.nats.server {
        Server::Embedded(settings) => Some(
            EmbeddedServer::start(settings, &config.gateway.data_dir)
                .await
                .map_err(|error| unavailable(error.to_string(), &error.fix()))?,
        ),
        Server::Remote(_) => None,
    };
    let connected = tokio::select! {
        connected = broker::connect(&config.nats, &config.gateway.name, broker::Patience::Endless) => Some(connected),
        () = shutdown.cancelled() => None,
    };
    if let Some(connected) = connected {
        let (_client, link) = connected.map_err(|error| unavailable(error.to_string(), error.fix()))?;
        let metrics = Arc::new(Metrics::new());
        let registry = status::Registry::new(&config, &metrics, link);
        admin::serve(listener, registry, metrics, shutdown.clone())
            .await
            .map_err(|error| RunError::Internal(error.to_string()))?;
    }
    if let Some(server) = embedded {
        server.stop().await;
    }
    Ok(())
}
