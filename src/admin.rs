//! The admin listener: `/livez`, `/readyz`, `/metrics`, `/status`, and `POST /snapshot`.
//!
//! It reads states and never waits for the data path. The socket is bound before anything is started, so that a taken
//! port is found in time; serving ends when the shutdown token fires.

use crate::{
    status::Registry,
    telemetry::{exposition::Format, metrics::Metrics},
};
use axum::{
    Json, Router,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use headgate_sdk::{FaultKind, SnapshotRequest};
use serde::{Deserialize, Serialize};
use std::{io, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{net::TcpListener, sync::oneshot};
use tokio_util::sync::CancellationToken;

/// The admin address cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} for [admin]: {error}")]
pub struct BindError {
    address: SocketAddr,
    error: io::Error,
}

impl BindError {
    /// What to do next.
    #[must_use]
    pub fn fix(&self) -> &'static str {
        "stop what listens there (another headgate?), or set admin.listen to another address"
    }
}

/// Takes the admin address.
///
/// # Errors
/// It is taken, or not an address of this machine.
pub async fn bind(address: SocketAddr) -> Result<TcpListener, BindError> {
    TcpListener::bind(address).await.map_err(|error| BindError { address, error })
}

#[derive(Clone)]
struct Shared {
    registry: Arc<Registry>,
    metrics: Arc<Metrics>,
}

/// Serves until the token fires and the requests under way are answered.
///
/// # Errors
/// The listener failed.
pub async fn serve(
    listener: TcpListener,
    registry: Arc<Registry>,
    metrics: Arc<Metrics>,
    shutdown: CancellationToken,
) -> io::Result<()> {
    let router = Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(scrape))
        .route("/status", get(status))
        .route("/snapshot", post(snapshot))
        .with_state(Shared { registry, metrics });
    axum::serve(listener, router).with_graceful_shutdown(shutdown.cancelled_owned()).await
}

#[derive(Serialize)]
struct Readiness {
    ready: bool,
    reasons: Vec<String>,
}

async fn readyz(State(shared): State<Shared>) -> Response {
    let reasons = shared.registry.unready();
    let status = if reasons.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(Readiness { ready: reasons.is_empty(), reasons })).into_response()
}

async fn scrape(State(shared): State<Shared>, headers: HeaderMap) -> Response {
    let accepted = headers.get_all(header::ACCEPT).iter();
    let format = Format::wanted(accepted.filter_map(|value| value.to_str().ok()));
    match shared.metrics.encode(shared.registry.sources()) {
        Ok(text) => {
            ([(header::CONTENT_TYPE, format.content_type())], format.of_open_metrics(text)).into_response()
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

async fn status(State(shared): State<Shared>) -> Response {
    Json(shared.registry.report()).into_response()
}

/// What a snapshot is asked for with: the body of `POST /snapshot`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SnapshotOrder {
    /// The source.
    pub source: String,
    /// Its tables; none: all that are captured.
    #[serde(default)]
    pub tables: Vec<String>,
    /// An SQL condition on the rows of one table.
    #[serde(default, rename = "where", skip_serializing_if = "Option::is_none")]
    pub condition: Option<String>,
}

/// The answer to that.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub enum SnapshotAnswer {
    /// It is kept, and made as soon as there is room for it.
    Begun {
        /// Its number, by which `/status` tells of it.
        job: u64,
    },
    /// It is not made.
    Refused {
        /// Why.
        error: String,
        /// What to do next.
        fix: Option<String>,
    },
}

/// How long a source may take to accept a snapshot.
const ACCEPTANCE: Duration = Duration::from_secs(20);
/// How often to look meanwhile whether it still runs.
const LOOK: Duration = Duration::from_millis(100);

/// Takes JSON only: a page in somebody's browser cannot send that here without being asked first.
async fn snapshot(State(shared): State<Shared>, Json(order): Json<SnapshotOrder>) -> Response {
    let refused = |status: StatusCode, error: String, fix: Option<&str>| {
        (status, Json(SnapshotAnswer::Refused { error, fix: fix.map(str::to_owned) })).into_response()
    };
    let Some(source) = shared.registry.source(&order.source) else {
        return refused(StatusCode::NOT_FOUND, format!("there is no source {}", order.source), None);
    };
    let (answer, mut answered) = oneshot::channel();
    source.snapshots.ask(SnapshotRequest { tables: order.tables, condition: order.condition, answer });
    let accepted = async {
        let mut looks = tokio::time::interval(LOOK);
        loop {
            tokio::select! {
                biased;
                answer = &mut answered => return Ok(answer),
                _ = looks.tick() => {
                    if let Some(trouble) = shared.registry.trouble(source) {
                        return Err(trouble);
                    }
                }
            }
        }
    };
    match tokio::time::timeout(ACCEPTANCE, accepted).await {
        Ok(Ok(Ok(Ok(job)))) => (StatusCode::ACCEPTED, Json(SnapshotAnswer::Begun { job })).into_response(),
        Ok(Err((error, fix))) => refused(StatusCode::SERVICE_UNAVAILABLE, error, Some(&fix)),
        Ok(Ok(Ok(Err(fault)))) => {
            let status = if fault.kind() == FaultKind::Definite {
                StatusCode::UNPROCESSABLE_ENTITY
            } else {
                StatusCode::SERVICE_UNAVAILABLE
            };
            refused(status, fault.to_string(), fault.fix())
        }
        // The source was started again meanwhile, or is slow to start.
        Ok(Ok(Err(_))) | Err(_) => refused(
            StatusCode::SERVICE_UNAVAILABLE,
            format!("source {} is {} and takes no snapshots now", source.name(), source.phase()),
            Some("headgate status shows why; ask again when it streams"),
        ),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{broker::Link, config, status::Phase};
    use headgate_sdk::Fault;
    use tokio::sync::watch;

    fn registry() -> (Arc<Registry>, Arc<Metrics>, watch::Sender<Link>) {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("config.toml");
        std::fs::write(&file, "[nats]\nurl='nats://u:hunter2@h:1'\n[sources.shop]\nconnector='postgres'\nurl='postgres://u:hunter2@h/d'\n").unwrap();
        let config = config::load(&file, &|_| None).unwrap();
        let metrics = Arc::new(Metrics::new());
        let (link, watched) = watch::channel(Link::default());
        (Registry::new(&config, &metrics, watched), metrics, link)
    }

    #[tokio::test]
    async fn a_snapshot_of_a_source_that_does_not_run_is_refused_with_the_reason() {
        let (registry, metrics, link) = registry();
        let source = Arc::clone(registry.source("shop").unwrap());
        let ask = async || {
            let shared = Shared { registry: Arc::clone(&registry), metrics: Arc::clone(&metrics) };
            let order = SnapshotOrder { source: "shop".to_owned(), tables: Vec::new(), condition: None };
            let answer = snapshot(State(shared), Json(order)).await;
            let status = answer.status();
            let body = axum::body::to_bytes(answer.into_body(), 1 << 16).await.unwrap();
            (status, String::from_utf8(body.to_vec()).unwrap())
        };
        let unavailable = StatusCode::SERVICE_UNAVAILABLE;
        assert_eq!(
            ask().await,
            (unavailable, r#"{"error":"not connected to nats at nats://h:1","fix":"ask again when headgate status shows the source streaming"}"#.to_owned())
        );
        link.send_replace(Link { connected: true, generation: 1 });
        source.fault(Phase::Stopped, &Fault::definite("no password").with_fix("export it"));
        assert_eq!(
            ask().await,
            (unavailable, r#"{"error":"source shop is stopped and takes no snapshots now: no password","fix":"export it"}"#.to_owned())
        );
    }

    #[tokio::test]
    async fn ready_means_connected_and_streaming() {
        let (registry, metrics, link) = registry();
        let listener = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let taken = bind(address).await.unwrap_err();
        assert!(taken.to_string().starts_with(&format!("cannot listen on {address} for [admin]: ")));
        let shutdown = CancellationToken::new();
        let serving = tokio::spawn(serve(listener, registry.clone(), metrics, shutdown.clone()));
        let client = reqwest::Client::new();
        let get_as = async |path: &str, accept: &str| {
            let request = client.get(format!("http://{address}{path}")).header("accept", accept);
            let answer = request.send().await.unwrap();
            let kind = answer.headers()["content-type"].to_str().unwrap().to_owned();
            (answer.status().as_u16(), kind, answer.text().await.unwrap())
        };
        let get = async |path: &str| get_as(path, "*/*").await;
        assert_eq!(get("/livez").await.0, 200);
        let (code, _, body) = get("/readyz").await;
        assert_eq!(code, 503);
        assert_eq!(
            body,
            r#"{"ready":false,"reasons":["not connected to nats at nats://h:1","source shop is starting"]}"#
        );
        link.send_replace(Link { connected: true, generation: 1 });
        registry.source("shop").unwrap().set_phase(Phase::Streaming);
        assert_eq!(get("/readyz").await.0, 200);
        let (code, kind, body) = get("/metrics").await;
        assert_eq!((code, kind.as_str()), (200, "text/plain; version=0.0.4; charset=utf-8"));
        assert!(body.contains(
            "# TYPE headgate_published_total counter\nheadgate_published_total{source=\"shop\"} 0\n"
        ));
        let (code, kind, body) =
            get_as("/metrics", "application/openmetrics-text;version=1.0.0,*/*;q=0.1").await;
        assert_eq!(
            (code, kind.as_str()),
            (200, "application/openmetrics-text; version=1.0.0; charset=utf-8")
        );
        assert!(body.contains("headgate_published_total{source=\"shop\"} 0") && body.ends_with("# EOF\n"));
        let (code, kind, body) = get("/status").await;
        assert_eq!((code, kind.as_str()), (200, "application/json"));
        for (path, allow) in [("status", "GET,HEAD"), ("livez", "GET,HEAD"), ("snapshot", "POST")] {
            let answer = client.delete(format!("http://{address}/{path}")).send().await.unwrap();
            assert_eq!((answer.status().as_u16(), answer.headers()["allow"].to_str().unwrap()), (405, allow));
        }
        assert!(body.contains("\"state\":\"streaming\"") && !body.contains("hunter2"));
        shutdown.cancel();
        serving.await.unwrap().unwrap();
    }
}
