//! GitHub: <https://docs.github.com/en/rest/repos/webhooks>

use super::{Shared, refusal};
use axum::{
    Json, Router,
    extract::{Path, Query, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use serde_json::{Value, json};
use std::collections::HashMap;

/// Where the webhooks of the only repository are.
const HOOKS: &str = "/repos/octo/shop/hooks";

pub(super) fn routes() -> Router<Shared> {
    Router::new()
        .route(HOOKS, get(hooks).post(make))
        .route(&format!("{HOOKS}/7/deliveries"), get(deliveries))
        .route(&format!("{HOOKS}/7/deliveries/{{id}}"), get(delivery))
}

fn error(message: &str) -> Value {
    json!({"message": message, "documentation_url": "https://docs.github.com/rest"})
}

async fn hooks(State(world): State<Shared>, headers: HeaderMap) -> Response {
    let refused = refusal(&world, &headers, error);
    refused.unwrap_or_else(|| Json(Value::Array(world.lock().unwrap().hooks.clone())).into_response())
}

async fn make(State(world): State<Shared>, headers: HeaderMap, Json(mut hook): Json<Value>) -> Response {
    if let Some(refused) = refusal(&world, &headers, error) {
        return refused;
    }
    let mut world = world.lock().unwrap();
    if world.hooks.iter().any(|known| known["config"]["url"] == hook["config"]["url"]) {
        let message = json!({"message": "Validation Failed", "errors": [{"message": "Hook already exists on this repository"}]});
        return (StatusCode::UNPROCESSABLE_ENTITY, Json(message)).into_response();
    }
    hook["id"] = json!(7);
    world.hooks.push(hook.clone());
    hook["config"]["secret"] = json!("********");
    (StatusCode::CREATED, Json(hook)).into_response()
}

/// Three on a page, newest first, without what was in them.
async fn deliveries(
    State(world): State<Shared>,
    headers: HeaderMap,
    Query(query): Query<HashMap<String, String>>,
) -> Response {
    if let Some(refused) = refusal(&world, &headers, error) {
        return refused;
    }
    let mut deliveries = world.lock().unwrap().deliveries.clone();
    for delivery in &mut deliveries {
        delivery.as_object_mut().unwrap().remove("request");
    }
    let from: usize = query.get("cursor").map_or(0, |cursor| cursor.parse().unwrap());
    let page: Vec<Value> = deliveries.iter().skip(from).take(3).cloned().collect();
    let host = headers[header::HOST].to_str().unwrap();
    let more = from + 3 < deliveries.len();
    let path = format!("http://{host}/repos/octo/shop/hooks/7/deliveries?per_page=100&cursor");
    let link = format!("<{path}={}>; rel=\"next\", <{path}=0>; rel=\"first\"", from + 3);
    let link = if more { link } else { format!("<{path}=0>; rel=\"first\"") };
    ([(header::LINK, link)], Json(page)).into_response()
}

async fn delivery(State(world): State<Shared>, headers: HeaderMap, Path(id): Path<u64>) -> Response {
    if let Some(refused) = refusal(&world, &headers, error) {
        return refused;
    }
    let world = world.lock().unwrap();
    let found = world.deliveries.iter().find(|delivery| delivery["id"] == json!(id));
    found.map_or_else(
        || (StatusCode::NOT_FOUND, Json(error("Not Found"))).into_response(),
        |delivery| Json(delivery).into_response(),
    )
}
