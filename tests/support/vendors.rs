//! A local server that plays the providers' APIs as they document them: paths, tokens, pages, limits, errors, expiry.

mod airtable;
mod drive;
mod github;
mod salesforce;
mod shopify;
mod slack;
mod stripe;
mod zendesk;

use axum::{
    Json, Router,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::Value;
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
        let app = Router::new()
            .merge(github::routes())
            .merge(stripe::routes())
            .merge(airtable::routes())
            .merge(drive::routes())
            .merge(zendesk::routes())
            .merge(shopify::routes())
            .merge(slack::routes())
            .merge(salesforce::routes())
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
