//! Airtable: <https://airtable.com/developers/web/api/webhooks-overview>

use super::{Shared, from_now, refusal};
use axum::{
    Json, Router,
    extract::{Path, Query, State},
    http::HeaderMap,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde_json::{Value, json};
use std::collections::HashMap;

pub(super) fn routes() -> Router<Shared> {
    Router::new()
        .route("/v0/bases/appBase/webhooks", get(hooks).post(make))
        .route("/v0/bases/appBase/webhooks/{id}/refresh", post(refresh))
        .route("/v0/bases/appBase/webhooks/{id}/payloads", get(payloads))
}

fn error(message: &str) -> Value {
    json!({"error": {"type": "AUTHENTICATION_REQUIRED", "message": message}})
}

async fn hooks(State(world): State<Shared>, headers: HeaderMap) -> Response {
    let refused = refusal(&world, &headers, error);
    refused.unwrap_or_else(|| Json(json!({"webhooks": world.lock().unwrap().hooks})).into_response())
}

async fn make(State(world): State<Shared>, headers: HeaderMap, Json(hook): Json<Value>) -> Response {
    if let Some(refused) = refusal(&world, &headers, error) {
        return refused;
    }
    let mut world = world.lock().unwrap();
    let kinds = &hook["specification"]["options"]["filters"]["dataTypes"];
    assert!(kinds.as_array().is_some_and(|kinds| !kinds.is_empty()), "{hook}");
    let expires = from_now(world.life).to_string();
    world.hooks.push(json!({
        "id": "achHook", "notificationUrl": hook["notificationUrl"], "specification": hook["specification"],
        "cursorForNextPayload": 1, "areNotificationsEnabled": true, "isHookEnabled": true, "expirationTime": expires,
    }));
    Json(json!({"id": "achHook", "macSecretBase64": "AAECAwQFBgcICQoLDA0ODw==", "expirationTime": expires}))
        .into_response()
}

async fn refresh(State(world): State<Shared>, headers: HeaderMap, Path(id): Path<String>) -> Response {
    if let Some(refused) = refusal(&world, &headers, error) {
        return refused;
    }
    let mut world = world.lock().unwrap();
    let hook = world.hooks.iter_mut().find(|hook| hook["id"] == json!(id)).unwrap();
    hook["expirationTime"] = json!(from_now(7 * 24 * 3600).to_string());
    Json(json!({"expirationTime": hook["expirationTime"]})).into_response()
}

/// Two on a page.
async fn payloads(
    State(world): State<Shared>,
    headers: HeaderMap,
    Query(query): Query<HashMap<String, String>>,
) -> Response {
    if let Some(refused) = refusal(&world, &headers, error) {
        return refused;
    }
    let mut world = world.lock().unwrap();
    world.asked.push(query["cursor"].clone());
    let from: usize = query["cursor"].parse::<usize>().unwrap() - 1;
    let page: Vec<&Value> = world.payloads.iter().skip(from).take(2).collect();
    let cursor = from + page.len() + 1;
    let more = cursor <= world.payloads.len();
    Json(json!({"payloads": page, "cursor": cursor, "mightHaveMore": more})).into_response()
}
