//! The gateway: all sources, the broker and the admin listener, from start to drain.
//!
//! * **Start**: what can be wrong for good (a taken port, a missing nats-server) is found before any source runs; a
//!   broker or a database that is away is waited for, and shown as not ready.
//! * **Shutdown**: one token, one tracker, one grace period. Sources stop reading, the last events are acknowledged, the
//!   last progress is kept, then the embedded broker stops. What has not ended after `shutdown_grace` is cut off, which
//!   loses nothing: the next run goes on from what the stream really holds.

mod data_dir;

use crate::{
    admin,
    broker::{
        self, Link, Patience,
        embedded::{EmbeddedError, EmbeddedServer},
    },
    config::{Config, Connector, Server},
    pipeline::{Pipeline, supervise},
    status::{Phase, Registry, SourceState},
    telemetry::metrics::Metrics,
    webhook::{self, StartError},
};
use async_nats::jetstream;
use data_dir::DataDir;
pub use data_dir::DataDirError;
use headgate_sdk::Fault;
use std::sync::Arc;
use tokio::{sync::watch, time::timeout};
use tokio_util::{
    sync::CancellationToken,
    task::{TaskTracker, task_tracker::TaskTrackerToken},
};

/// Why the gateway could not start.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The admin address cannot be had.
    #[error(transparent)]
    Admin(#[from] admin::BindError),
    /// The public listener cannot be had.
    #[error(transparent)]
    Webhooks(#[from] StartError),
    /// The gateway's folder cannot be had.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// The embedded broker cannot be had.
    #[error(transparent)]
    Embedded(#[from] EmbeddedError),
}

impl RunError {
    /// What to do next.
    #[must_use]
    pub fn fix(&self) -> String {
        match self {
            Self::Admin(error) => error.fix().to_owned(),
            Self::Webhooks(error) => error.fix().to_owned(),
            Self::DataDir(error) => error.fix().to_owned(),
            Self::Embedded(error) => error.fix(),
        }
    }

    /// Whether to go on would have done harm, though everything is there.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::DataDir(DataDirError::Held { .. }))
    }
}

/// Runs everything that `config` says until `shutdown` fires, then drains.
///
/// # Errors
/// Something could not be started; no source has been.
pub async fn run(config: Config, shutdown: CancellationToken) -> Result<(), RunError> {
    let listener = admin::bind(config.admin.listen).await?;
    let webhooks = webhook::bind(&config).await?;
    // Held until the broker in it has ended.
    let mut _data_dir = None;
    let embedded = match &config.nats.server {
        Server::Embedded(settings) => {
            _data_dir = Some(DataDir::hold(&config.gateway.data_dir)?);
            match EmbeddedServer::start(settings, &config.gateway.data_dir, &shutdown).await? {
                Some(embedded) => Some(embedded),
                None => return Ok(()),
            }
        }
        Server::Remote(_) => None,
    };
    let metrics = Arc::new(Metrics::new());
    let (link, watched) = watch::channel(Link::default());
    let registry = Registry::new(&config, &metrics, watched);

    let tasks = TaskTracker::new();
    let admin_ends = CancellationToken::new();
    let admin = tokio::spawn(admin::serve(listener, Arc::clone(&registry), metrics, admin_ends.clone()));
    tasks.spawn(watch_link(config.clone(), link, shutdown.clone()));
    if let Some(webhooks) = webhooks {
        webhooks.start(&config, &registry, &tasks, shutdown.clone()).await?;
    }
    for (name, source) in &config.sources {
        // Webhooks come by the public listener.
        if matches!(source.connector, Connector::Webhook(_)) {
            continue;
        }
        let Some(state) = registry.source(name) else { continue };
        let running =
            run_source(config.clone(), name.clone(), source.clone(), Arc::clone(state), shutdown.clone());
        start_source(state, running, tasks.token());
    }
    tasks.close();
    tracing::info!(admin = %config.admin.listen, sources = config.sources.len(), "gateway started");

    shutdown.cancelled().await;
    if timeout(config.gateway.shutdown_grace, tasks.wait()).await.is_err() {
        tracing::warn!("the grace is over; what was not acknowledged will be read again at the next start");
    }
    // The sources' state stays visible until they have ended.
    admin_ends.cancel();
    if timeout(std::time::Duration::from_secs(1), admin).await.is_err() {
        tracing::debug!("a request to the admin listener was cut off");
    }
    if let Some(embedded) = embedded {
        embedded.stop().await;
    }
    tracing::info!("gateway stopped");
    Ok(())
}

/// Runs a source on a thread and a runtime of its own, which end with it.
///
/// So reader, normalizer and publisher hand over to each other without waking another thread, and no source waits for a worker
/// that another one keeps busy. Where the system gives neither, the source alone is stopped.
fn start_source(
    state: &Arc<SourceState>,
    running: impl Future<Output = ()> + Send + 'static,
    token: TaskTrackerToken,
) {
    let of_thread = Arc::clone(state);
    let thread = move || {
        let _token = token;
        // Made here: no runtime may end on a thread of another one.
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => return unstarted(&of_thread, error),
        };
        runtime.block_on(running);
        // Nothing that is left (a name that is still being looked up) may hold the end up.
        runtime.shutdown_background();
    };
    if let Err(error) = std::thread::Builder::new().name(state.name().to_owned()).spawn(thread) {
        unstarted(state, error);
    }
}

fn unstarted(state: &SourceState, error: std::io::Error) {
    let fault = Fault::definite("cannot start a thread for the source").with_cause(error).with_fix(
        "raise the limit on threads or open files (ulimit -u, ulimit -n), and start the gateway again",
    );
    stop(state, &fault);
}

/// Tells of what a source cannot even begin with.
fn stop(state: &SourceState, fault: &Fault) {
    state.fault(Phase::Stopped, fault);
    tracing::error!(source = state.name(), fix = fault.fix(), "source stopped: {fault}");
}

/// Shows how the broker is, by a connection of its own, so that readiness does not depend on any source.
async fn watch_link(config: Config, told: watch::Sender<Link>, shutdown: CancellationToken) {
    let watching = async {
        let Ok((_client, mut link)) =
            broker::connect(&config.nats, &config.gateway.name, Patience::Endless).await
        else {
            return;
        };
        loop {
            told.send_replace(*link.borrow_and_update());
            if link.changed().await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = watching => {}
        () = shutdown.cancelled() => {}
    }
}

/// Connects one source to the broker and keeps it running.
async fn run_source(
    config: Config,
    name: String,
    source: crate::config::Source,
    state: Arc<SourceState>,
    shutdown: CancellationToken,
) {
    let client_name = format!("{}/{name}", config.gateway.name);
    let connected = tokio::select! {
        connected = broker::connect(&config.nats, &client_name, Patience::Silent) => connected,
        () = shutdown.cancelled() => return,
    };
    let (client, link) = match connected {
        Ok(connected) => connected,
        Err(error) => {
            return stop(&state, &Fault::definite(error.to_string()).with_fix(error.fix()));
        }
    };
    let pipeline = Pipeline {
        name,
        source,
        gateway: config.gateway,
        nats: config.nats,
        jetstream: jetstream::new(client),
        link,
        state,
    };
    Box::pin(supervise(pipeline, shutdown)).await;
}
