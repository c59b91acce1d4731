//! Google Drive: <https://developers.google.com/workspace/drive/api/guides/push>

use super::{Shared, from_now, refusal};
use axum::{
    Json, Router,
    extract::{Query, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde_json::{Value, json};
use std::collections::HashMap;

pub(super) fn routes() -> Router<Shared> {
    Router::new()
        .route("/drive/v3/changes/startPageToken", get(start))
        .route("/drive/v3/changes/watch", post(watch))
        .route("/drive/v3/changes", get(changes))
        .route("/drive/v3/channels/stop", post(stop))
}

fn error(message: &str) -> Value {
    json!({"error": {"code": 401, "message": message, "status": "UNAUTHENTICATED"}})
}

async fn start(State(world): State<Shared>, headers: HeaderMap) -> Response {
    let refused = refusal(&world, &headers, error);
    refused.unwrap_or_else(|| {
        let token = format!("t{}", world.lock().unwrap().changes.len());
        Json(json!({"kind": "drive#startPageToken", "startPageToken": token})).into_response()
    })
}

async fn watch(
    State(world): State<Shared>,
    headers: HeaderMap,
    Query(query): Query<HashMap<String, String>>,
    Json(mut channel): Json<Value>,
) -> Response {
    if let Some(refused) = refusal(&world, &headers, error) {
        return refused;
    }
    let mut world = world.lock().unwrap();
    assert!(query["pageToken"].starts_with('t'));
    assert_eq!(channel["type"], "web_hook");
    let wanted: i64 = channel["expiration"].as_str().unwrap().parse().unwrap();
    let expires = wanted.min(from_now(world.life).as_millisecond());
    channel["expiration"] = json!(expires.to_string());
    world.channels.push(channel.clone());
    Json(json!({
        "kind": "api#channel", "id": channel["id"], "resourceId": "res1", "token": channel["token"],
        "resourceUri": "https://www.googleapis.com/drive/v3/changes?alt=json", "expiration": channel["expiration"],
    }))
    .into_response()
}

async fn stop(State(world): State<Shared>, headers: HeaderMap, Json(channel): Json<Value>) -> Response {
    if let Some(refused) = refusal(&world, &headers, error) {
        return refused;
    }
    world.lock().unwrap().closed.push(channel["id"].clone());
    StatusCode::NO_CONTENT.into_response()
}

/// Two on a page.
async fn changes(
    State(world): State<Shared>,
    headers: HeaderMap,
    Query(query): Query<HashMap<String, String>>,
) -> Response {
    if let Some(refused) = refusal(&world, &headers, error) {
        return refused;
    }
    let mut world = world.lock().unwrap();
    world.asked.push(query["pageToken"].clone());
    let from: usize = query["pageToken"].trim_start_matches('t').parse().unwrap();
    let page: Vec<&Value> = world.changes.iter().skip(from).take(2).collect();
    let next = from + page.len();
    let name = if next < world.changes.len() { "nextPageToken" } else { "newStartPageToken" };
    Json(json!({"kind": "drive#changeList", "changes": page, name: format!("t{next}")})).into_response()
}
