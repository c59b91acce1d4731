//! A local server that plays the providers' APIs as they document them: paths, tokens, pages, limits, errors, expiry.

use axum::{
    Json, Router,
    body::Bytes,
    extract::{Path, Query, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde_json::{Value, json};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard},
};

/// The token that every API takes.
pub(crate) const TOKEN: &str = "tok_1f4b9c:hunter2";

/// What all of them have been told, and what they answer.
#[derive(Debug, Default)]
pub(crate) struct World {
    /// So many calls are answered 429 before one is heard.
    pub(crate) busy: u32,
    /// GitHub's webhooks, or Airtable's, or Zendesk's.
    pub(crate) hooks: Vec<Value>,
    /// GitHub's deliveries, newest first, each with its `request`.
    pub(crate) deliveries: Vec<Value>,
    /// Stripe's endpoints.
    pub(crate) endpoints: Vec<Value>,
    /// Stripe's undelivered events, newest first.
    pub(crate) events: Vec<Value>,
    /// Airtable's payloads; the first has the number 1.
    pub(crate) payloads: Vec<Value>,
    /// Google Drive's channels.
    pub(crate) channels: Vec<Value>,
    /// What it was asked to close.
    pub(crate) closed: Vec<Value>,
    /// Google Drive's changes; page tokens count them.
    pub(crate) changes: Vec<Value>,
    /// For how long channels and webhooks live, in seconds.
    pub(crate) life: i64,
    /// Shopify's subscriptions.
    pub(crate) subscriptions: Vec<Value>,
    /// Where pages of a log were asked for from.
    pub(crate) asked: Vec<String>,
}

type Shared = Arc<Mutex<World>>;

/// The server; it ends with the test's runtime.
#[derive(Debug)]
pub(crate) struct Vendors {
    pub(crate) base: String,
    world: Shared,
}

impl Vendors {
    pub(crate) async fn start() -> Self {
        let world = Arc::new(Mutex::new(World { life: 7 * 24 * 3600, ..World::default() }));
        let hooks = "/repos/octo/shop/hooks";
        let app = Router::new()
            .route(hooks, get(github_hooks).post(github_make))
            .route(&format!("{hooks}/7/deliveries"), get(github_deliveries))
            .route(&format!("{hooks}/7/deliveries/{{id}}"), get(github_delivery))
            .route("/v1/webhook_endpoints", get(stripe_endpoints).post(stripe_make))
            .route("/v1/events", get(stripe_events))
            .route("/v0/bases/appBase/webhooks", get(airtable_hooks).post(airtable_make))
            .route("/v0/bases/appBase/webhooks/{id}/refresh", post(airtable_refresh))
            .route("/v0/bases/appBase/webhooks/{id}/payloads", get(airtable_payloads))
            .route("/drive/v3/changes/startPageToken", get(drive_start))
            .route("/drive/v3/changes/watch", post(drive_watch))
            .route("/drive/v3/changes", get(drive_changes))
            .route("/drive/v3/channels/stop", post(drive_stop))
            .route("/api/v2/webhooks", get(zendesk_hooks).post(zendesk_make))
            .route("/api/v2/webhooks/{id}/signing_secret", get(zendesk_secret))
            .route("/graphql.json", post(shopify))
            .with_state(world.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { base, world }
    }

    pub(crate) fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap()
    }
}

/// What a call without the right token, or too early, is answered; the error's body is the provider's own.
fn refusal(world: &Shared, headers: &HeaderMap, error: fn(&str) -> Value) -> Option<Response> {
    let mut world = world.lock().unwrap();
    if world.busy > 0 {
        world.busy -= 1;
        let body = Json(error("slow down"));
        return Some((StatusCode::TOO_MANY_REQUESTS, [(header::RETRY_AFTER, "0")], body).into_response());
    }
    let sent = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let good = sent == Some(&format!("Bearer {TOKEN}"));
    // A provider may well repeat what it was sent.
    let told = format!("bad credentials: {}", sent.unwrap_or("none"));
    (!good).then(|| (StatusCode::UNAUTHORIZED, Json(error(&told))).into_response())
}

fn from_now(seconds: i64) -> jiff::Timestamp {
    jiff::Timestamp::now() + jiff::SignedDuration::from_secs(seconds)
}

// GitHub: https://docs.github.com/en/rest/repos/webhooks

fn github_error(message: &str) -> Value {
    json!({"message": message, "documentation_url": "https://docs.github.com/rest"})
}

async fn github_hooks(State(world): State<Shared>, headers: HeaderMap) -> Response {
    let refused = refusal(&world, &headers, github_error);
    refused.unwrap_or_else(|| Json(Value::Array(world.lock().unwrap().hooks.clone())).into_response())
}

async fn github_make(
    State(world): State<Shared>,
    headers: HeaderMap,
    Json(mut hook): Json<Value>,
) -> Response {
    if let Some(refused) = refusal(&world, &headers, github_error) {
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
async fn github_deliveries(
    State(world): State<Shared>,
    headers: HeaderMap,
    Query(query): Query<HashMap<String, String>>,
) -> Response {
    if let Some(refused) = refusal(&world, &headers, github_error) {
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

async fn github_delivery(State(world): State<Shared>, headers: HeaderMap, Path(id): Path<u64>) -> Response {
    if let Some(refused) = refusal(&world, &headers, github_error) {
        return refused;
    }
    let world = world.lock().unwrap();
    let found = world.deliveries.iter().find(|delivery| delivery["id"] == json!(id));
    found.map_or_else(
        || (StatusCode::NOT_FOUND, Json(github_error("Not Found"))).into_response(),
        |delivery| Json(delivery).into_response(),
    )
}

// Stripe: https://docs.stripe.com/api

fn stripe_error(message: &str) -> Value {
    json!({"error": {"type": "invalid_request_error", "message": message}})
}

async fn stripe_endpoints(State(world): State<Shared>, headers: HeaderMap) -> Response {
    let refused = refusal(&world, &headers, stripe_error);
    refused.unwrap_or_else(|| {
        let endpoints = world.lock().unwrap().endpoints.clone();
        Json(json!({"object": "list", "data": endpoints, "has_more": false})).into_response()
    })
}

async fn stripe_make(State(world): State<Shared>, headers: HeaderMap, body: Bytes) -> Response {
    if let Some(refused) = refusal(&world, &headers, stripe_error) {
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
async fn stripe_events(
    State(world): State<Shared>,
    headers: HeaderMap,
    Query(query): Query<HashMap<String, String>>,
) -> Response {
    if let Some(refused) = refusal(&world, &headers, stripe_error) {
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

// Airtable: https://airtable.com/developers/web/api/webhooks-overview

fn airtable_error(message: &str) -> Value {
    json!({"error": {"type": "AUTHENTICATION_REQUIRED", "message": message}})
}

async fn airtable_hooks(State(world): State<Shared>, headers: HeaderMap) -> Response {
    let refused = refusal(&world, &headers, airtable_error);
    refused.unwrap_or_else(|| Json(json!({"webhooks": world.lock().unwrap().hooks})).into_response())
}

async fn airtable_make(State(world): State<Shared>, headers: HeaderMap, Json(hook): Json<Value>) -> Response {
    if let Some(refused) = refusal(&world, &headers, airtable_error) {
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

async fn airtable_refresh(
    State(world): State<Shared>,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> Response {
    if let Some(refused) = refusal(&world, &headers, airtable_error) {
        return refused;
    }
    let mut world = world.lock().unwrap();
    let hook = world.hooks.iter_mut().find(|hook| hook["id"] == json!(id)).unwrap();
    hook["expirationTime"] = json!(from_now(7 * 24 * 3600).to_string());
    Json(json!({"expirationTime": hook["expirationTime"]})).into_response()
}

/// Two on a page.
async fn airtable_payloads(
    State(world): State<Shared>,
    headers: HeaderMap,
    Query(query): Query<HashMap<String, String>>,
) -> Response {
    if let Some(refused) = refusal(&world, &headers, airtable_error) {
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

// Google Drive: https://developers.google.com/workspace/drive/api/guides/push

fn google_error(message: &str) -> Value {
    json!({"error": {"code": 401, "message": message, "status": "UNAUTHENTICATED"}})
}

async fn drive_start(State(world): State<Shared>, headers: HeaderMap) -> Response {
    let refused = refusal(&world, &headers, google_error);
    refused.unwrap_or_else(|| {
        let token = format!("t{}", world.lock().unwrap().changes.len());
        Json(json!({"kind": "drive#startPageToken", "startPageToken": token})).into_response()
    })
}

async fn drive_watch(
    State(world): State<Shared>,
    headers: HeaderMap,
    Query(query): Query<HashMap<String, String>>,
    Json(mut channel): Json<Value>,
) -> Response {
    if let Some(refused) = refusal(&world, &headers, google_error) {
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

async fn drive_stop(State(world): State<Shared>, headers: HeaderMap, Json(channel): Json<Value>) -> Response {
    if let Some(refused) = refusal(&world, &headers, google_error) {
        return refused;
    }
    world.lock().unwrap().closed.push(channel["id"].clone());
    StatusCode::NO_CONTENT.into_response()
}

/// Two on a page.
async fn drive_changes(
    State(world): State<Shared>,
    headers: HeaderMap,
    Query(query): Query<HashMap<String, String>>,
) -> Response {
    if let Some(refused) = refusal(&world, &headers, google_error) {
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

// Zendesk: https://developer.zendesk.com/api-reference/webhooks/webhooks-api/webhooks

/// Zendesk takes the token as user and password.
fn zendesk_refusal(headers: &HeaderMap) -> Option<Response> {
    // tok_1f4b9c:hunter2
    let good =
        headers.get(header::AUTHORIZATION).is_some_and(|value| value == "Basic dG9rXzFmNGI5YzpodW50ZXIy");
    let error = json!({"error": "Couldn't authenticate you"});
    (!good).then(|| (StatusCode::UNAUTHORIZED, Json(error)).into_response())
}

/// One on a page.
async fn zendesk_hooks(
    State(world): State<Shared>,
    headers: HeaderMap,
    Query(query): Query<HashMap<String, String>>,
) -> Response {
    zendesk_refusal(&headers).unwrap_or_else(|| {
        let world = world.lock().unwrap();
        let from: usize = query.get("page[after]").map_or(0, |cursor| cursor.parse().unwrap());
        let page: Vec<&Value> = world.hooks.iter().skip(from).take(1).collect();
        let meta = json!({"has_more": from + 1 < world.hooks.len(), "after_cursor": (from + 1).to_string()});
        Json(json!({"webhooks": page, "meta": meta})).into_response()
    })
}

async fn zendesk_make(
    State(world): State<Shared>,
    headers: HeaderMap,
    Json(wanted): Json<Value>,
) -> Response {
    zendesk_refusal(&headers).unwrap_or_else(|| {
        let mut hook = wanted["webhook"].clone();
        assert_eq!(hook["subscriptions"], json!(["zen:event-type:ticket.created"]), "{hook}");
        hook["id"] = json!("01GHOOK");
        world.lock().unwrap().hooks.push(hook.clone());
        (StatusCode::CREATED, Json(json!({"webhook": hook}))).into_response()
    })
}

async fn zendesk_secret(headers: HeaderMap, Path(id): Path<String>) -> Response {
    zendesk_refusal(&headers).unwrap_or_else(|| {
        assert_eq!(id, "01GHOOK");
        Json(json!({"signing_secret": {"algorithm": "SHA256", "secret": "zen-secret"}})).into_response()
    })
}

// Shopify: https://shopify.dev/docs/api/admin-graphql/latest/mutations/webhookSubscriptionCreate

/// One subscription on a page.
async fn shopify(State(world): State<Shared>, headers: HeaderMap, Json(call): Json<Value>) -> Response {
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
