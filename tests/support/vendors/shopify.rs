//! Shopify: <https://shopify.dev/docs/api/admin-graphql/latest/mutations/webhookSubscriptionCreate>

use super::{Shared, TOKEN};
use axum::{
    Json, Router,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::post,
};
use serde_json::{Value, json};

pub(super) fn routes() -> Router<Shared> {
    Router::new().route("/graphql.json", post(graphql))
}

/// One subscription on a page.
async fn graphql(State(world): State<Shared>, headers: HeaderMap, Json(call): Json<Value>) -> Response {
    if headers.get("x-shopify-access-token").is_none_or(|token| token != TOKEN) {
        let errors = "[API] Invalid API key or access token (unrecognized login or wrong password)";
        return (StatusCode::UNAUTHORIZED, Json(json!({"errors": errors}))).into_response();
    }
    let mut world = world.lock().unwrap();
    let variables = &call["variables"];
    if call["query"].as_str().unwrap().starts_with("query") {
        let from: usize = variables["after"].as_str().map_or(0, |cursor| cursor.parse().unwrap());
        let nodes: Vec<&Value> = world.subscriptions.iter().skip(from).take(1).collect();
        let more = from + 1 < world.subscriptions.len();
        let page = json!({"hasNextPage": more, "endCursor": (from + 1).to_string()});
        return Json(json!({"data": {"webhookSubscriptions": {"nodes": nodes, "pageInfo": page}}}))
            .into_response();
    }
    let topic = variables["topic"].as_str().unwrap();
    let (made, errors) = if topic == "ORDERS_CREATE" || topic == "APP_UNINSTALLED" {
        let id = format!("gid://shopify/WebhookSubscription/{}", world.subscriptions.len() + 1);
        let uri = &variables["subscription"]["uri"];
        world.subscriptions.push(json!({"id": id, "topic": topic, "uri": uri}));
        (json!({"id": id}), json!([]))
    } else {
        (Value::Null, json!([{"field": ["topic"], "message": "Topic is not to be had"}]))
    };
    Json(json!({"data": {"webhookSubscriptionCreate": {"webhookSubscription": made, "userErrors": errors}}}))
        .into_response()
}
