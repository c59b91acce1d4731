//! Registering and reconciling against a local server that plays the documented API: pages, 429, expiry, links elsewhere.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

use axum::{
    Json, Router,
    extract::{Path, Query, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use headgate_webhook::{
    Catalog, Endpoint, Request, Secret, Settings, Verdict,
    api::{self, Api, ApiError, Missed},
};
use serde_json::{Value, json};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

const URL: &str = "https://hooks.example.com/webhooks/gh";

/// What the server was asked, and how often it still says 429.
#[derive(Default)]
struct Seen {
    hooks: Vec<Value>,
    again: Vec<String>,
    forms: Vec<String>,
    busy: u32,
}

type Shared = Arc<Mutex<Seen>>;

/// The answer to a wrong token.
fn refusal(headers: &HeaderMap) -> Option<Response> {
    let good = headers.get(header::AUTHORIZATION).is_some_and(|value| value == "Bearer good");
    (!good).then(|| (StatusCode::UNAUTHORIZED, Json(json!({"message": "Bad credentials"}))).into_response())
}

async fn hooks(State(seen): State<Shared>, headers: HeaderMap) -> Response {
    if let Some(refusal) = refusal(&headers) {
        return refusal;
    }
    Json(Value::Array(seen.lock().unwrap().hooks.clone())).into_response()
}

async fn make_hook(State(seen): State<Shared>, headers: HeaderMap, Json(mut hook): Json<Value>) -> Response {
    if let Some(refusal) = refusal(&headers) {
        return refusal;
    }
    hook["id"] = json!(7);
    seen.lock().unwrap().hooks.push(hook.clone());
    (StatusCode::CREATED, Json(hook)).into_response()
}

/// Two pages, newest first: `a` failed twice, `b` failed and then arrived, `c` is too old.
async fn deliveries(
    State(seen): State<Shared>,
    headers: HeaderMap,
    Query(query): Query<HashMap<String, String>>,
) -> Response {
    {
        let mut seen = seen.lock().unwrap();
        if seen.busy > 0 {
            seen.busy -= 1;
            return (StatusCode::TOO_MANY_REQUESTS, [(header::RETRY_AFTER, "0")]).into_response();
        }
    }
    let delivery = |id: u64, guid: &str, at: &str, status: u64| json!({"id": id, "guid": guid, "delivered_at": at, "status_code": status, "event": "push"});
    if query.contains_key("cursor") {
        return Json(json!([
            delivery(11, "b", "2026-11-22T10:00:00Z", 502),
            delivery(10, "a", "2026-11-22T09:00:00Z", 504),
            delivery(9, "c", "2026-11-20T09:00:00Z", 500),
        ]))
        .into_response();
    }
    let host = headers[header::HOST].to_str().unwrap();
    let next =
        format!("<http://{host}/repos/octo/shop/hooks/7/deliveries?per_page=100&cursor=x>; rel=\"next\"");
    let page = json!([
        delivery(13, "a", "2026-11-22T12:00:00Z", 500),
        delivery(12, "b", "2026-11-22T11:00:00Z", 200),
    ]);
    ([(header::LINK, next)], Json(page)).into_response()
}

async fn again(State(seen): State<Shared>, Path(id): Path<String>) -> StatusCode {
    seen.lock().unwrap().again.push(id);
    StatusCode::ACCEPTED
}

async fn endpoints(State(seen): State<Shared>, body: String) -> Json<Value> {
    seen.lock().unwrap().forms.push(body);
    Json(json!({"id": "we_1", "object": "webhook_endpoint", "secret": "whsec_fresh"}))
}

async fn events(Query(query): Query<HashMap<String, String>>) -> Json<Value> {
    assert_eq!(query["delivery_success"], "false");
    let event = |id: &str| json!({"id": id, "type": "charge.succeeded", "data": {"object": {"id": "ch_1"}}});
    Json(match query.get("starting_after").map(String::as_str) {
        None => json!({"data": [event("evt_3"), event("evt_2")], "has_more": true}),
        Some("evt_2") => json!({"data": [event("evt_1")], "has_more": false}),
        Some(other) => panic!("an unknown cursor {other}"),
    })
}

/// Starts the server on a free port; it ends with the test's runtime.
async fn serve() -> (String, Shared) {
    let seen = Shared::default();
    let app = Router::new()
        .route("/repos/octo/shop/hooks", get(hooks).post(make_hook))
        .route("/repos/octo/shop/hooks/7/deliveries", get(deliveries))
        .route("/repos/octo/shop/hooks/7/deliveries/{id}/attempts", post(again))
        .route(
            "/repos/octo/away/hooks",
            get(|| async { ([(header::LINK, "<https://evil.example/x>; rel=\"next\"")], "[]") }),
        )
        .route("/v1/webhook_endpoints", post(endpoints))
        .route("/v1/events", get(events))
        .with_state(seen.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    (base, seen)
}

fn api(base: &str, token: &str) -> Api {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    Api::new(base, Secret::new(token)).unwrap()
}

fn since(text: &str) -> i64 {
    text.parse::<jiff::Timestamp>().unwrap().as_microsecond()
}

#[tokio::test]
async fn github_delivers_again_what_never_arrived() {
    let (base, seen) = serve().await;
    let api = api(&base, "good");
    let secret = Secret::new("s3cret");
    let made = api::register("github", &api, "octo/shop", URL, Some(&secret)).await.unwrap();
    assert_eq!((made.id.as_str(), made.secret), ("7", None));
    {
        let mut seen = seen.lock().unwrap();
        assert_eq!(seen.hooks[0]["config"]["url"], URL);
        assert_eq!(seen.hooks[0]["config"]["secret"], "s3cret");
        seen.busy = 2;
    }
    let from = since("2026-11-22T00:00:00Z");
    let missed = api::reconcile("github", &api, "octo/shop", URL, from).await.unwrap();
    assert_eq!(missed, Missed::Redelivered(1));
    assert_eq!(seen.lock().unwrap().again, ["13"]);
    let other = api::reconcile("github", &api, "octo/shop", "https://other.example/x", from).await;
    assert!(matches!(other, Err(ApiError::NoHook(_))));
}

#[tokio::test]
async fn stripes_events_become_deliveries_under_their_own_ids() {
    let (base, seen) = serve().await;
    let api = api(&base, "good");
    let made = api::register("stripe", &api, "", "https://h.example/webhooks/pay", None).await.unwrap();
    assert_eq!(made.secret, Some(Secret::new("whsec_fresh")));
    assert_eq!(
        seen.lock().unwrap().forms,
        ["enabled_events%5B%5D=%2A&url=https%3A%2F%2Fh%2Eexample%2Fwebhooks%2Fpay"]
    );
    let missed = api::reconcile("stripe", &api, "", URL, 1_700_000_000_000_000).await.unwrap();
    let Missed::Bodies(bodies) = missed else { panic!("no bodies") };
    let provider = Catalog::builtin().unwrap().get("stripe").unwrap().clone();
    let settings = Settings { secrets: vec![made.secret.unwrap()], ..Settings::default() };
    let endpoint = Endpoint::new(provider, settings).unwrap();
    let mut ids = Vec::new();
    for body in bodies {
        let signed = endpoint.sign_delivery(HeaderMap::new(), body, 1_800_000_000_000_000).unwrap();
        let verdict = endpoint.receive(&Request {
            method: &signed.method,
            path_and_query: "/webhooks/pay",
            headers: &signed.headers,
            body: &signed.body,
            received_at: 1_800_000_000_000_000,
            pending: false,
        });
        let Verdict::Deliveries { deliveries, .. } = verdict else { panic!("{verdict:?}") };
        ids.push(deliveries[0].id.clone());
    }
    assert_eq!(ids, ["evt_1", "evt_2", "evt_3"]);
}

#[tokio::test]
async fn a_token_that_expired_is_said_and_never_shown_nor_sent_elsewhere() {
    let (base, _seen) = serve().await;
    let error = api::register("github", &api(&base, "hunter2"), "octo/shop", URL, None).await.unwrap_err();
    assert!(matches!(error, ApiError::Denied { status: 401 }));
    assert!(!format!("{error} {error:?}").contains("hunter2"));
    let error = api::reconcile("github", &api(&base, "good"), "octo/away", URL, 0).await.unwrap_err();
    assert!(matches!(error, ApiError::Strange("a link to another host")), "{error}");
    for target in ["", "a/b/c", "../x", "a/..", "a b", "a/b?x"] {
        let error = api::register("github", &api(&base, "good"), target, URL, None).await.unwrap_err();
        assert!(matches!(error, ApiError::Target(_)), "{target}");
    }
    assert!(matches!(api::reconcile("zoom", &api(&base, "good"), "", URL, 0).await, Err(ApiError::Unknown)));
}
