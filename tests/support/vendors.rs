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
    /// Slack's messages by channel, oldest first, those of threads among them.
    pub(crate) messages: HashMap<String, Vec<Value>>,
    /// The manifest of Slack's app.
    pub(crate) manifest: Value,
    /// Salesforce's records, deleted ones too.
    pub(crate) records: Vec<Value>,
    /// What Salesforce's last query found.
    found: Vec<Value>,
    /// Whether Salesforce's calls of the day are spent.
    pub(crate) spent: bool,
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
            .route("/auth.test", post(slack_who))
            .route("/users.conversations", get(slack_joined))
            .route("/conversations.history", get(slack_history))
            .route("/conversations.replies", get(slack_replies))
            .route("/apps.manifest.export", post(slack_export))
            .route("/apps.manifest.update", post(slack_update))
            .route("/services/data/v65.0/sobjects/Account/describe", get(salesforce_describe))
            .route("/services/data/v65.0/queryAll", get(salesforce_query))
            .route("/services/data/v65.0/query/{at}", get(salesforce_more))
            .route("/services/data/v65.0/composite/sobjects/Account", post(salesforce_records))
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

// Slack: https://docs.slack.dev/reference/methods

/// Slack's errors come with status 200, but the one for too many calls.
fn slack_refusal(world: &Shared, headers: &HeaderMap) -> Option<Response> {
    let refused = refusal(world, headers, |message| json!({"ok": false, "error": message}))?;
    if refused.status() == StatusCode::TOO_MANY_REQUESTS {
        return Some(refused);
    }
    Some(Json(json!({"ok": false, "error": "token_expired"})).into_response())
}

/// Two on a page, and a cursor to the rest.
fn slack_page(all: &[Value], query: &HashMap<String, String>, name: &str) -> Response {
    let from: usize = query.get("cursor").map_or(0, |cursor| cursor.trim_end_matches('=').parse().unwrap());
    let page: Vec<&Value> = all.iter().skip(from).take(2).collect();
    let more = from + 2 < all.len();
    let next = if more { format!("{}=", from + 2) } else { String::new() };
    Json(json!({"ok": true, name: page, "has_more": more, "response_metadata": {"next_cursor": next}}))
        .into_response()
}

async fn slack_who(State(world): State<Shared>, headers: HeaderMap) -> Response {
    slack_refusal(&world, &headers)
        .unwrap_or_else(|| Json(json!({"ok": true, "team_id": "T1", "user_id": "U1"})).into_response())
}

async fn slack_joined(
    State(world): State<Shared>,
    headers: HeaderMap,
    Query(query): Query<HashMap<String, String>>,
) -> Response {
    slack_refusal(&world, &headers).unwrap_or_else(|| {
        let channels: Vec<Value> = ["C1", "C2", "C3"].map(|id| json!({"id": id, "is_member": true})).to_vec();
        slack_page(&channels, &query, "channels")
    })
}

fn slack_within(message: &Value, query: &HashMap<String, String>) -> bool {
    let number = |text: &str| text.parse::<f64>().unwrap();
    let ts = number(message["ts"].as_str().unwrap());
    (number(&query["oldest"])..=number(&query["latest"])).contains(&ts)
}

/// Newest first, without the replies of threads.
async fn slack_history(
    State(world): State<Shared>,
    headers: HeaderMap,
    Query(query): Query<HashMap<String, String>>,
) -> Response {
    if let Some(refused) = slack_refusal(&world, &headers) {
        return refused;
    }
    let mut world = world.lock().unwrap();
    world.asked.push(format!("{} {}", query["channel"], query.get("cursor").map_or("", String::as_str)));
    let Some(messages) = world.messages.get(&query["channel"]) else {
        return Json(json!({"ok": false, "error": "channel_not_found"})).into_response();
    };
    let is_reply = |message: &Value| message.get("thread_ts").is_some_and(|thread| *thread != message["ts"]);
    let mut found: Vec<Value> = messages
        .iter()
        .filter(|message| !is_reply(message) && slack_within(message, &query))
        .cloned()
        .collect();
    found.reverse();
    slack_page(&found, &query, "messages")
}

/// The thread's first message, then its replies, oldest first.
async fn slack_replies(
    State(world): State<Shared>,
    headers: HeaderMap,
    Query(query): Query<HashMap<String, String>>,
) -> Response {
    if let Some(refused) = slack_refusal(&world, &headers) {
        return refused;
    }
    let world = world.lock().unwrap();
    let found: Vec<Value> = world.messages[&query["channel"]]
        .iter()
        .filter(|message| message["thread_ts"] == query["ts"])
        .filter(|message| message["ts"] == query["ts"] || slack_within(message, &query))
        .cloned()
        .collect();
    slack_page(&found, &query, "messages")
}

async fn slack_export(State(world): State<Shared>, headers: HeaderMap, Json(call): Json<Value>) -> Response {
    slack_refusal(&world, &headers).unwrap_or_else(|| {
        assert_eq!(call["app_id"], "A1");
        Json(json!({"ok": true, "manifest": world.lock().unwrap().manifest})).into_response()
    })
}

async fn slack_update(State(world): State<Shared>, headers: HeaderMap, Json(call): Json<Value>) -> Response {
    slack_refusal(&world, &headers).unwrap_or_else(|| {
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

// Salesforce: https://developer.salesforce.com/docs/atlas.en-us.api_rest.meta/api_rest/

fn salesforce_error(message: &str) -> Value {
    json!([{"message": format!("Session expired or invalid: {message}"), "errorCode": "INVALID_SESSION_ID"}])
}

async fn salesforce_describe(State(world): State<Shared>, headers: HeaderMap) -> Response {
    refusal(&world, &headers, salesforce_error).unwrap_or_else(|| {
        if world.lock().unwrap().spent {
            let error =
                json!([{"message": "TotalRequests Limit exceeded.", "errorCode": "REQUEST_LIMIT_EXCEEDED"}]);
            return (StatusCode::FORBIDDEN, Json(error)).into_response();
        }
        let types = [
            ("Id", "id"),
            ("IsDeleted", "boolean"),
            ("Name", "string"),
            ("BillingAddress", "address"),
            ("Employees", "int"),
            ("LastModifiedDate", "datetime"),
            ("SystemModstamp", "datetime"),
        ];
        let fields = types.map(|(name, kind)| json!({"name": name, "type": kind, "picklistValues": []}));
        Json(json!({"name": "Account", "fields": fields})).into_response()
    })
}

/// Two on a page, in order, deleted ones too.
async fn salesforce_query(
    State(world): State<Shared>,
    headers: HeaderMap,
    Query(query): Query<HashMap<String, String>>,
) -> Response {
    if let Some(refused) = refusal(&world, &headers, salesforce_error) {
        return refused;
    }
    let query = &query["q"];
    let head = "SELECT Id, SystemModstamp, IsDeleted FROM Account WHERE SystemModstamp >= ";
    let rest = query.strip_prefix(head).unwrap_or_else(|| panic!("{query}"));
    let (from, rest) = rest.split_once(" AND SystemModstamp < ").unwrap();
    let until = rest.strip_suffix(" ORDER BY SystemModstamp, Id").unwrap();
    let at = |text: &str| -> jiff::Timestamp { text.replace("+0000", "Z").parse().unwrap() };
    let mut world = world.lock().unwrap();
    world.asked.push(from.to_owned());
    let mut found: Vec<Value> = world
        .records
        .iter()
        .filter(|record| (at(from)..at(until)).contains(&at(record["SystemModstamp"].as_str().unwrap())))
        .cloned()
        .collect();
    found.sort_by_key(|record| (record["SystemModstamp"].to_string(), record["Id"].to_string()));
    world.found = found;
    salesforce_page(&world.found, 0)
}

fn salesforce_page(found: &[Value], from: usize) -> Response {
    let row = |record: &Value| {
        json!({"attributes": {"type": "Account"}, "Id": record["Id"], "SystemModstamp": record["SystemModstamp"],
            "IsDeleted": record["IsDeleted"]})
    };
    let page: Vec<Value> = found.iter().skip(from).take(2).map(row).collect();
    let mut answer = json!({"totalSize": found.len(), "done": from + 2 >= found.len(), "records": page});
    if from + 2 < found.len() {
        answer["nextRecordsUrl"] =
            json!(format!("/services/data/v65.0/query/01g000000000001AAA-{}", from + 2));
    }
    Json(answer).into_response()
}

async fn salesforce_more(
    State(world): State<Shared>,
    headers: HeaderMap,
    Path(at): Path<String>,
) -> Response {
    refusal(&world, &headers, salesforce_error).unwrap_or_else(|| {
        let (_, from) = at.split_once('-').unwrap();
        salesforce_page(&world.lock().unwrap().found, from.parse().unwrap())
    })
}

/// What was deleted is null.
async fn salesforce_records(
    State(world): State<Shared>,
    headers: HeaderMap,
    Json(wanted): Json<Value>,
) -> Response {
    if let Some(refused) = refusal(&world, &headers, salesforce_error) {
        return refused;
    }
    let world = world.lock().unwrap();
    let fields: Vec<&str> = wanted["fields"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert!(!fields.contains(&"BillingAddress"), "{fields:?}");
    let one = |id: &Value| {
        let known = |record: &&Value| record["Id"] == *id && record["IsDeleted"] == json!(false);
        let Some(record) = world.records.iter().find(known) else { return Value::Null };
        let mut answer = json!({"attributes": {"type": "Account"}});
        for field in &fields {
            answer[*field] = record[*field].clone();
        }
        answer
    };
    let records: Vec<Value> = wanted["ids"].as_array().unwrap().iter().map(one).collect();
    Json(records).into_response()
}
