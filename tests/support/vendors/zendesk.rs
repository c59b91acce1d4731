//! Zendesk: <https://developer.zendesk.com/api-reference/webhooks/webhooks-api/webhooks>

use super::Shared;
use axum::{
    Json, Router,
    extract::{Path, Query, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use serde_json::{Value, json};
use std::collections::HashMap;

pub(super) fn routes() -> Router<Shared> {
    Router::new()
        .route("/api/v2/webhooks", get(hooks).post(make))
        .route("/api/v2/webhooks/{id}/signing_secret", get(secret))
}

/// Zendesk takes the token as user and password.
fn refusal(headers: &HeaderMap) -> Option<Response> {
    // tok_1f4b9c:hunter2
    let good =
        headers.get(header::AUTHORIZATION).is_some_and(|value| value == "Basic dG9rXzFmNGI5YzpodW50ZXIy");
    let error = json!({"error": "Couldn't authenticate you"});
    (!good).then(|| (StatusCode::UNAUTHORIZED, Json(error)).into_response())
}

/// One on a page.
async fn hooks(
    State(world): State<Shared>,
    headers: HeaderMap,
    Query(query): Query<HashMap<String, String>>,
) -> Response {
    refusal(&headers).unwrap_or_else(|| {
        let world = world.lock().unwrap();
        let from: usize = query.get("page[after]").map_or(0, |cursor| cursor.parse().unwrap());
        let page: Vec<&Value> = world.hooks.iter().skip(from).take(1).collect();
        let meta = json!({"has_more": from + 1 < world.hooks.len(), "after_cursor": (from + 1).to_string()});
        Json(json!({"webhooks": page, "meta": meta})).into_response()
    })
}

async fn make(State(world): State<Shared>, headers: HeaderMap, Json(wanted): Json<Value>) -> Response {
    refusal(&headers).unwrap_or_else(|| {
        let mut hook = wanted["webhook"].clone();
        assert_eq!(hook["subscriptions"], json!(["zen:event-type:ticket.created"]), "{hook}");
        hook["id"] = json!("01GHOOK");
        world.lock().unwrap().hooks.push(hook.clone());
        (StatusCode::CREATED, Json(json!({"webhook": hook}))).into_response()
    })
}

async fn secret(headers: HeaderMap, Path(id): Path<String>) -> Response {
    refusal(&headers).unwrap_or_else(|| {
        assert_eq!(id, "01GHOOK");
        Json(json!({"signing_secret": {"algorithm": "SHA256", "secret": "zen-secret"}})).into_response()
    })
}
