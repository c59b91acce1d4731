//! Slack: <https://docs.slack.dev/reference/methods>

use super::{Shared, refusal};
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
        .route("/auth.test", post(who))
        .route("/users.conversations", get(joined))
        .route("/conversations.history", get(history))
        .route("/conversations.replies", get(replies))
        .route("/apps.manifest.export", post(export))
        .route("/apps.manifest.update", post(update))
}

/// Slack's errors come with status 200, but the one for too many calls.
fn turned_away(world: &Shared, headers: &HeaderMap) -> Option<Response> {
    let refused = refusal(world, headers, |message| json!({"ok": false, "error": message}))?;
    if refused.status() == StatusCode::TOO_MANY_REQUESTS {
        return Some(refused);
    }
    Some(Json(json!({"ok": false, "error": "token_expired"})).into_response())
}

/// Two on a page, and a cursor to the rest.
fn page(all: &[Value], query: &HashMap<String, String>, name: &str) -> Response {
    let from: usize = query.get("cursor").map_or(0, |cursor| cursor.trim_end_matches('=').parse().unwrap());
    let page: Vec<&Value> = all.iter().skip(from).take(2).collect();
    let more = from + 2 < all.len();
    let next = if more { format!("{}=", from + 2) } else { String::new() };
    Json(json!({"ok": true, name: page, "has_more": more, "response_metadata": {"next_cursor": next}}))
        .into_response()
}

async fn who(State(world): State<Shared>, headers: HeaderMap) -> Response {
    turned_away(&world, &headers)
        .unwrap_or_else(|| Json(json!({"ok": true, "team_id": "T1", "user_id": "U1"})).into_response())
}

async fn joined(
    State(world): State<Shared>,
    headers: HeaderMap,
    Query(query): Query<HashMap<String, String>>,
) -> Response {
    turned_away(&world, &headers).unwrap_or_else(|| {
        let channels: Vec<Value> = ["C1", "C2", "C3"].map(|id| json!({"id": id, "is_member": true})).to_vec();
        page(&channels, &query, "channels")
    })
}

fn within(message: &Value, query: &HashMap<String, String>) -> bool {
    let number = |text: &str| text.parse::<f64>().unwrap();
    let ts = number(message["ts"].as_str().unwrap());
    (number(&query["oldest"])..=number(&query["latest"])).contains(&ts)
}

/// Newest first, without the replies of threads.
async fn history(
    State(world): State<Shared>,
    headers: HeaderMap,
    Query(query): Query<HashMap<String, String>>,
) -> Response {
    if let Some(refused) = turned_away(&world, &headers) {
        return refused;
    }
    let mut world = world.lock().unwrap();
    world.asked.push(format!("{} {}", query["channel"], query.get("cursor").map_or("", String::as_str)));
    let Some(messages) = world.messages.get(&query["channel"]) else {
        return Json(json!({"ok": false, "error": "channel_not_found"})).into_response();
    };
    let is_reply = |message: &Value| message.get("thread_ts").is_some_and(|thread| *thread != message["ts"]);
    let mut found: Vec<Value> =
        messages.iter().filter(|message| !is_reply(message) && within(message, &query)).cloned().collect();
    found.reverse();
    page(&found, &query, "messages")
}

/// The thread's first message, then its replies, oldest first.
async fn replies(
    State(world): State<Shared>,
    headers: HeaderMap,
    Query(query): Query<HashMap<String, String>>,
) -> Response {
    if let Some(refused) = turned_away(&world, &headers) {
        return refused;
    }
    let world = world.lock().unwrap();
    let found: Vec<Value> = world.messages[&query["channel"]]
        .iter()
        .filter(|message| message["thread_ts"] == query["ts"])
        .filter(|message| message["ts"] == query["ts"] || within(message, &query))
        .cloned()
        .collect();
    page(&found, &query, "messages")
}

async fn export(State(world): State<Shared>, headers: HeaderMap, Json(call): Json<Value>) -> Response {
    turned_away(&world, &headers).unwrap_or_else(|| {
        assert_eq!(call["app_id"], "A1");
        Json(json!({"ok": true, "manifest": world.lock().unwrap().manifest})).into_response()
    })
}

async fn update(State(world): State<Shared>, headers: HeaderMap, Json(call): Json<Value>) -> Response {
    turned_away(&world, &headers).unwrap_or_else(|| {
        assert_eq!(call["app_id"], "A1");
        let manifest: Value = serde_json::from_str(call["manifest"].as_str().unwrap()).unwrap();
        if manifest["oauth_config"]["scopes"]["bot"].as_array().is_none_or(Vec::is_empty) {
            let pointer = "/oauth_config/scopes";
            let errors = json!([{"message": "Missing scopes for the events", "pointer": pointer}]);
            return Json(json!({"ok": false, "error": "invalid_manifest", "errors": errors})).into_response();
        }
        world.lock().unwrap().manifest = manifest;
        Json(json!({"ok": true, "app_id": "A1", "permissions_updated": false})).into_response()
    })
}
