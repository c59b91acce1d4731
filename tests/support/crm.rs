//! A local server that plays what Zendesk, Shopify and HubSpot document of their APIs beyond webhooks: pages, limits, deletions.

use super::vendors::TOKEN;
use axum::{
    Json, Router,
    body::Bytes,
    extract::{Path, Query, State},
    http::{HeaderMap, Method, StatusCode, Uri, header},
    response::{IntoResponse, Response},
    routing::{any, get, patch, post},
};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use serde_json::{Value, json};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard},
};

/// What there is at the provider.
#[derive(Debug, Default)]
pub(crate) struct Crm {
    /// So many calls are answered 429 before one is heard.
    pub(crate) busy: u32,
    /// Zendesk's invocations, each with its `attempts`, oldest first.
    pub(crate) invocations: Vec<Value>,
    /// Shopify's things by the name of their list: `orders`, `products`…
    pub(crate) things: HashMap<&'static str, Vec<Value>>,
    /// Things of Shopify that are listed and then gone.
    pub(crate) gone: Vec<u64>,
    /// Shopify's log.
    pub(crate) log: Vec<Value>,
    /// The URL that HubSpot's app calls.
    pub(crate) target: Option<String>,
    /// HubSpot's subscriptions.
    pub(crate) subscriptions: Vec<Value>,
    /// HubSpot's contacts, archived ones too, with `propertiesWithHistory`.
    pub(crate) contacts: Vec<Value>,
    /// Paths that were asked for.
    pub(crate) asked: Vec<String>,
}

type Shared = Arc<Mutex<Crm>>;

/// The server; it ends with the test's runtime.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) base: String,
    crm: Shared,
}

impl Server {
    pub(crate) async fn start() -> Self {
        let crm = Shared::default();
        let app = Router::new()
            .route("/api/v2/webhooks", get(zendesk_hooks))
            .route("/api/v2/webhooks/{id}/signing_secret", get(zendesk_secret))
            .route("/api/v2/webhooks/{id}/invocations", get(zendesk_invocations))
            .route("/api/v2/webhooks/{id}/invocations/{invocation}/attempts", get(zendesk_attempts))
            .route("/graphql.json", post(shopify_subscriptions))
            .route("/events.json", get(shopify_log))
            .route("/{list}", get(shopify_list))
            .route("/{list}/{one}", get(shopify_one))
            .route("/webhooks/v3/4711/settings", any(hubspot_settings))
            .route("/webhooks/v3/4711/subscriptions", any(hubspot_subscriptions))
            .route("/webhooks/v3/4711/subscriptions/{id}", patch(hubspot_activate))
            .route("/account-info/v3/details", get(hubspot_account))
            .route("/crm/v3/objects/contacts", get(hubspot_archived))
            .route("/crm/v3/objects/contacts/search", post(hubspot_search))
            .route("/crm/v3/objects/contacts/batch/read", post(hubspot_read))
            .with_state(crm.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { base, crm }
    }

    pub(crate) fn crm(&self) -> MutexGuard<'_, Crm> {
        self.crm.lock().unwrap()
    }
}

/// A time so many minutes ago, as most write it.
pub(crate) fn ago(minutes: i64) -> String {
    let second = jiff::Timestamp::now().as_second() - minutes * 60;
    jiff::Timestamp::from_second(second).unwrap().to_string()
}

/// What a call without the right token, or too early, is answered.
fn refusal(crm: &Shared, uri: &Uri, good: bool, error: Value) -> Option<Response> {
    let mut crm = crm.lock().unwrap();
    crm.asked.push(uri.path().to_owned());
    if crm.busy > 0 {
        crm.busy -= 1;
        return Some((StatusCode::TOO_MANY_REQUESTS, [(header::RETRY_AFTER, "0")], "").into_response());
    }
    (!good).then(|| (StatusCode::UNAUTHORIZED, Json(error)).into_response())
}

/// A page of a list, and what leads to the next.
fn page(all: &[Value], after: Option<&String>, size: usize) -> (Vec<Value>, Option<String>) {
    let from: usize = after.map_or(0, |after| after.parse().unwrap());
    let next = (from + size < all.len()).then(|| (from + size).to_string());
    (all.iter().skip(from).take(size).cloned().collect(), next)
}

type Parameters = Query<HashMap<String, String>>;

// Zendesk: https://developer.zendesk.com/api-reference/webhooks/webhooks-api/webhooks

fn zendesk(crm: &Shared, uri: &Uri, headers: &HeaderMap) -> Option<Response> {
    let good = headers
        .get(header::AUTHORIZATION)
        .is_some_and(|value| *value == format!("Basic {}", BASE64_STANDARD.encode(TOKEN)));
    // It repeats what it was sent, as some do.
    let sent = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    refusal(crm, uri, good, json!({"error": format!("Couldn't authenticate you: {sent}")}))
}

async fn zendesk_hooks(State(crm): State<Shared>, uri: Uri, headers: HeaderMap) -> Response {
    zendesk(&crm, &uri, &headers).unwrap_or_else(|| {
        let hook = json!({"id": "01GHOOK", "endpoint": "https://hooks.example.com/webhooks/in"});
        Json(json!({"webhooks": [hook], "meta": {"has_more": false}})).into_response()
    })
}

async fn zendesk_secret(State(crm): State<Shared>, uri: Uri, headers: HeaderMap) -> Response {
    zendesk(&crm, &uri, &headers).unwrap_or_else(|| {
        Json(json!({"signing_secret": {"algorithm": "SHA256", "secret": "zen-secret"}})).into_response()
    })
}

/// Two on a page, without their attempts.
async fn zendesk_invocations(
    State(crm): State<Shared>,
    uri: Uri,
    headers: HeaderMap,
    Query(query): Parameters,
) -> Response {
    zendesk(&crm, &uri, &headers).unwrap_or_else(|| {
        let from: jiff::Timestamp = query["filter[from_ts]"].parse().unwrap();
        let mut all = crm.lock().unwrap().invocations.clone();
        all.retain(|one| {
            one["latest_completed_at"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap() >= from
        });
        for one in &mut all {
            one.as_object_mut().unwrap().remove("attempts");
        }
        let (invocations, next) = page(&all, query.get("page[after]"), 2);
        let meta = json!({"has_more": next.is_some(), "after_cursor": next});
        Json(json!({"invocations": invocations, "meta": meta})).into_response()
    })
}

async fn zendesk_attempts(
    State(crm): State<Shared>,
    uri: Uri,
    headers: HeaderMap,
    Path((_, id)): Path<(String, String)>,
) -> Response {
    zendesk(&crm, &uri, &headers).unwrap_or_else(|| {
        let crm = crm.lock().unwrap();
        let found = crm.invocations.iter().find(|one| one["id"] == id.as_str()).unwrap();
        Json(json!({"attempts": found["attempts"]})).into_response()
    })
}

// Shopify: https://shopify.dev/docs/api/admin-rest

fn shopify(crm: &Shared, uri: &Uri, headers: &HeaderMap) -> Option<Response> {
    let good = headers.get("x-shopify-access-token").is_some_and(|token| token == TOKEN);
    refusal(crm, uri, good, json!({"errors": "[API] Invalid API key or access token"}))
}

async fn shopify_subscriptions(State(crm): State<Shared>, uri: Uri, headers: HeaderMap) -> Response {
    shopify(&crm, &uri, &headers).unwrap_or_else(|| {
        let topics = ["ORDERS_CREATE", "ORDERS_UPDATED", "PRODUCTS_DELETE", "APP_UNINSTALLED"];
        let uri = "https://hooks.example.com/webhooks/in";
        let nodes: Vec<Value> =
            topics.iter().map(|topic| json!({"id": topic, "topic": topic, "uri": uri})).collect();
        let page = json!({"hasNextPage": false, "endCursor": null});
        Json(json!({"data": {"webhookSubscriptions": {"nodes": nodes, "pageInfo": page}}})).into_response()
    })
}

/// Two on a page; the next one is a link.
fn shopify_page(headers: &HeaderMap, name: &str, all: &[Value], query: &HashMap<String, String>) -> Response {
    let (found, next) = page(all, query.get("page_info"), 2);
    let body = Json(json!({ name: found }));
    match next {
        Some(next) => {
            let host = headers[header::HOST].to_str().unwrap();
            let link = format!("<http://{host}/{name}.json?limit=250&page_info={next}>; rel=\"next\"");
            ([(header::LINK, link)], body).into_response()
        }
        None => body.into_response(),
    }
}

async fn shopify_log(
    State(crm): State<Shared>,
    uri: Uri,
    headers: HeaderMap,
    Query(query): Parameters,
) -> Response {
    shopify(&crm, &uri, &headers).unwrap_or_else(|| {
        if !query.contains_key("page_info") {
            assert_eq!((query["verb"].as_str(), query["filter"].as_str()), ("destroy", "Product"));
        }
        shopify_page(&headers, "events", &crm.lock().unwrap().log, &query)
    })
}

async fn shopify_list(
    State(crm): State<Shared>,
    uri: Uri,
    headers: HeaderMap,
    Path(list): Path<String>,
    Query(query): Parameters,
) -> Response {
    shopify(&crm, &uri, &headers).unwrap_or_else(|| {
        let name = list.strip_suffix(".json").unwrap();
        if !query.contains_key("page_info") {
            assert!(query["updated_at_min"].parse::<jiff::Timestamp>().is_ok());
            assert_eq!(
                (query["status"].as_str(), query["fields"].as_str()),
                ("any", "id,created_at,updated_at")
            );
        }
        let crm = crm.lock().unwrap();
        shopify_page(&headers, name, crm.things.get(name).map_or(&[], Vec::as_slice), &query)
    })
}

async fn shopify_one(
    State(crm): State<Shared>,
    uri: Uri,
    headers: HeaderMap,
    Path((list, one)): Path<(String, String)>,
) -> Response {
    shopify(&crm, &uri, &headers).unwrap_or_else(|| {
        let id: u64 = one.strip_suffix(".json").unwrap().parse().unwrap();
        let crm = crm.lock().unwrap();
        let found =
            crm.things[list.as_str()].iter().find(|thing| thing["id"] == id && !crm.gone.contains(&id));
        found.map_or_else(
            || (StatusCode::NOT_FOUND, Json(json!({"errors": "Not Found"}))).into_response(),
            |thing| Json(json!({ list.trim_end_matches('s'): thing })).into_response(),
        )
    })
}

// HubSpot: https://developers.hubspot.com/docs/api-reference

/// The app's settings are opened by a parameter of the URL and by nothing else.
fn hubspot_app(
    crm: &Shared,
    uri: &Uri,
    headers: &HeaderMap,
    query: &HashMap<String, String>,
) -> Option<Response> {
    assert!(!headers.contains_key(header::AUTHORIZATION));
    let sent = query.get("hapikey");
    let error = json!({"status": "error", "message": format!("bad key {sent:?} in {uri}")});
    refusal(crm, uri, sent.is_some_and(|key| key == TOKEN), error)
}

fn hubspot(crm: &Shared, uri: &Uri, headers: &HeaderMap) -> Option<Response> {
    let good = headers.get(header::AUTHORIZATION).is_some_and(|value| *value == format!("Bearer {TOKEN}"));
    let error = json!({"status": "error", "message": "The OAuth token used to make this call expired", "category": "EXPIRED_AUTHENTICATION"});
    refusal(crm, uri, good, error)
}

async fn hubspot_settings(
    State(crm): State<Shared>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    Query(query): Parameters,
    body: Bytes,
) -> Response {
    hubspot_app(&crm, &uri, &headers, &query).unwrap_or_else(|| {
        let mut crm = crm.lock().unwrap();
        if method == Method::PUT {
            let settings: Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(settings["throttling"]["period"], "SECONDLY");
            crm.target = Some(settings["targetUrl"].as_str().unwrap().to_owned());
        }
        let missing = || (StatusCode::NOT_FOUND, Json(json!({"message": "no settings"}))).into_response();
        crm.target.clone().map_or_else(missing, |url| Json(json!({"targetUrl": url})).into_response())
    })
}

async fn hubspot_subscriptions(
    State(crm): State<Shared>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    Query(query): Parameters,
    body: Bytes,
) -> Response {
    hubspot_app(&crm, &uri, &headers, &query).unwrap_or_else(|| {
        let mut crm = crm.lock().unwrap();
        if method == Method::POST {
            let mut made: Value = serde_json::from_slice(&body).unwrap();
            made["id"] = json!((crm.subscriptions.len() + 1).to_string());
            crm.subscriptions.push(made.clone());
            return (StatusCode::CREATED, Json(made)).into_response();
        }
        Json(json!({"results": crm.subscriptions})).into_response()
    })
}

async fn hubspot_activate(
    State(crm): State<Shared>,
    uri: Uri,
    headers: HeaderMap,
    Path(id): Path<String>,
    Query(query): Parameters,
) -> Response {
    hubspot_app(&crm, &uri, &headers, &query).unwrap_or_else(|| {
        let mut crm = crm.lock().unwrap();
        let found = crm.subscriptions.iter_mut().find(|one| one["id"] == id.as_str()).unwrap();
        found["active"] = json!(true);
        Json(found.clone()).into_response()
    })
}

async fn hubspot_account(State(crm): State<Shared>, uri: Uri, headers: HeaderMap) -> Response {
    hubspot(&crm, &uri, &headers).unwrap_or_else(|| Json(json!({"portalId": 62515})).into_response())
}

fn hubspot_page(all: &[Value], after: Option<&String>) -> Response {
    let (results, next) = page(all, after, 2);
    let mut body = json!({"total": all.len(), "results": results});
    if let Some(next) = next {
        body["paging"] = json!({"next": {"after": next}});
    }
    Json(body).into_response()
}

/// Two on a page.
async fn hubspot_search(
    State(crm): State<Shared>,
    uri: Uri,
    headers: HeaderMap,
    Json(query): Json<Value>,
) -> Response {
    hubspot(&crm, &uri, &headers).unwrap_or_else(|| {
        let filter = &query["filterGroups"][0]["filters"][0];
        assert_eq!(
            (&filter["propertyName"], &filter["operator"]),
            (&json!("lastmodifieddate"), &json!("GTE"))
        );
        let since: i64 = filter["value"].as_str().unwrap().parse().unwrap();
        let mut all = crm.lock().unwrap().contacts.clone();
        let modified = |one: &Value| {
            one["updatedAt"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap().as_millisecond()
        };
        all.retain(|one| one["archived"] == false && modified(one) >= since);
        all.sort_by_key(modified);
        for one in &mut all {
            one.as_object_mut().unwrap().remove("propertiesWithHistory");
        }
        hubspot_page(&all, query["after"].as_str().map(str::to_owned).as_ref())
    })
}

async fn hubspot_read(
    State(crm): State<Shared>,
    uri: Uri,
    headers: HeaderMap,
    Json(query): Json<Value>,
) -> Response {
    hubspot(&crm, &uri, &headers).unwrap_or_else(|| {
        assert_eq!(query["propertiesWithHistory"], json!(["email"]));
        let wanted = query["inputs"].as_array().unwrap();
        assert!(wanted.len() <= 50);
        let crm = crm.lock().unwrap();
        let found = crm.contacts.iter().filter(|one| wanted.iter().any(|wanted| wanted["id"] == one["id"]));
        Json(json!({"status": "COMPLETE", "results": found.collect::<Vec<_>>()})).into_response()
    })
}

async fn hubspot_archived(
    State(crm): State<Shared>,
    uri: Uri,
    headers: HeaderMap,
    Query(query): Parameters,
) -> Response {
    hubspot(&crm, &uri, &headers).unwrap_or_else(|| {
        assert_eq!(query["archived"], "true");
        let mut all = crm.lock().unwrap().contacts.clone();
        all.retain(|one| one["archived"] == true);
        hubspot_page(&all, query.get("after"))
    })
}
