//! Stripe: <https://docs.stripe.com/api>

use super::{Shared, refusal};
use axum::{
    Json, Router,
    body::Bytes,
    extract::{Query, State},
    http::HeaderMap,
    response::{IntoResponse, Response},
    routing::get,
};
use serde_json::{Value, json};
use std::collections::HashMap;

pub(super) fn routes() -> Router<Shared> {
    Router::new().route("/v1/webhook_endpoints", get(endpoints).post(make)).route("/v1/events", get(events))
}

fn error(message: &str) -> Value {
    json!({"error": {"type": "invalid_request_error", "message": message}})
}

async fn endpoints(State(world): State<Shared>, headers: HeaderMap) -> Response {
    let refused = refusal(&world, &headers, error);
    refused.unwrap_or_else(|| {
        let endpoints = world.lock().unwrap().endpoints.clone();
        Json(json!({"object": "list", "data": endpoints, "has_more": false})).into_response()
    })
}

async fn make(State(world): State<Shared>, headers: HeaderMap, body: Bytes) -> Response {
    if let Some(refused) = refusal(&world, &headers, error) {
        return refused;
    }
    let form: Vec<(String, String)> = url_pairs(&body);
    let value = |name: &str| form.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
    let mut world = world.lock().unwrap();
    let id = format!("we_{}", world.endpoints.len() + 1);
    let mut endpoint = json!({"id": id, "object": "webhook_endpoint", "url": value("url"), "enabled_events": [value("enabled_events[]")]});
    world.endpoints.push(endpoint.clone());
    endpoint["secret"] = json!("whsec_6fH2kPq8");
    Json(endpoint).into_response()
}

fn url_pairs(body: &[u8]) -> Vec<(String, String)> {
    let text = format!("http://x/?{}", std::str::from_utf8(body).unwrap());
    reqwest::Url::parse(&text).unwrap().query_pairs().into_owned().collect()
}

/// Two on a page.
async fn events(
    State(world): State<Shared>,
    headers: HeaderMap,
    Query(query): Query<HashMap<String, String>>,
) -> Response {
    if let Some(refused) = refusal(&world, &headers, error) {
        return refused;
    }
    assert_eq!(query["delivery_success"], "false");
    assert!(query["created[gte]"].parse::<i64>().is_ok());
    let events = &world.lock().unwrap().events;
    let from = query
        .get("starting_after")
        .map_or(0, |id| 1 + events.iter().position(|event| event["id"] == json!(id)).unwrap());
    let page: Vec<&Value> = events.iter().skip(from).take(2).collect();
    Json(json!({"object": "list", "data": page, "has_more": from + 2 < events.len()})).into_response()
}
