//! Stripe: `POST /v1/webhook_endpoints`, which says the signing secret once, and `GET /v1/events`, which keeps what happened
//! for 30 days and knows what was not delivered.

use super::{Api, ApiError, Chain, Hook, MISSED, Wish, list, text};
use crate::{Secret, json};
use bytes::Bytes;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::Method;

/// The endpoint that calls this URL. Its secret is not said again.
pub(super) async fn find(api: &Api, wish: &Wish<'_>) -> Result<Option<Hook>, ApiError> {
    let mut after = String::new();
    let mut chain = Chain::default();
    loop {
        chain.follow(&after)?;
        let path = format!("/v1/webhook_endpoints?limit=100{after}");
        let answer = api.call(Method::GET, &path, None).await?;
        let root = json::parse(&answer.body).map_err(ApiError::Strange)?;
        let endpoints = list(root, "/data", "endpoints are no list")?;
        for endpoint in &endpoints {
            if text(*endpoint, "/url").as_deref() == Some(wish.url) {
                let id = text(*endpoint, "/id").ok_or(ApiError::Strange("an endpoint without id"))?;
                return Ok(Some(Hook { id, ..Hook::default() }));
            }
        }
        match following(root, &endpoints) {
            Some(next) => after = next,
            None => return Ok(None),
        }
    }
}

pub(super) async fn make(api: &Api, wish: &Wish<'_>) -> Result<Hook, ApiError> {
    let encoded = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    let all = ["*".to_owned()];
    let events = if wish.events.is_empty() { &all } else { wish.events };
    let mut form: String =
        events.iter().map(|name| format!("enabled_events%5B%5D={}&", encoded(name))).collect();
    form.push_str(&format!("url={}", encoded(wish.url)));
    let form = Some(("application/x-www-form-urlencoded", form));
    let answer = api.call(Method::POST, "/v1/webhook_endpoints", form).await?;
    let root = json::parse(&answer.body).map_err(ApiError::Strange)?;
    match (text(root, "/id"), text(root, "/secret")) {
        (Some(id), Some(secret)) => Ok(Hook { id, secret: Some(Secret::new(secret)), expires: None }),
        _ => Err(ApiError::Strange("an endpoint without id or secret")),
    }
}

/// The events that some endpoint did not take, oldest first.
pub(super) async fn missed(api: &Api, since: i64) -> Result<Vec<Bytes>, ApiError> {
    let seconds = since / 1_000_000;
    let mut missed = Vec::new();
    let mut after = String::new();
    let mut chain = Chain::default();
    loop {
        chain.follow(&after)?;
        let path = format!("/v1/events?limit=100&delivery_success=false&created%5Bgte%5D={seconds}{after}");
        let answer = api.call(Method::GET, &path, None).await?;
        let root = json::parse(&answer.body).map_err(ApiError::Strange)?;
        let events = list(root, "/data", "events are no list")?;
        missed.extend(events.iter().map(|event| Bytes::copy_from_slice(event.text().as_bytes())));
        if missed.len() > MISSED {
            return Err(ApiError::TooMany(MISSED));
        }
        match following(root, &events) {
            Some(next) => after = next,
            None => break,
        }
    }
    missed.reverse();
    Ok(missed)
}

/// The parameter that asks for the page after this one.
fn following(root: json::Value<'_>, page: &[json::Value<'_>]) -> Option<String> {
    let more = text(root, "/has_more").is_some_and(|more| more == "true");
    let last = page.last().filter(|_| more).and_then(|last| text(*last, "/id"))?;
    Some(format!("&starting_after={}", utf8_percent_encode(&last, NON_ALPHANUMERIC)))
}
