//! Stripe: `POST /v1/webhook_endpoints`, which says the signing secret once, and `GET /v1/events`, which keeps what happened
//! for 30 days and knows what was not delivered.

use super::{Api, ApiError, MISSED, Registered};
use crate::{
    Secret,
    json::{self, Pointer},
};
use bytes::Bytes;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::Method;

pub(super) async fn register(api: &Api, url: &str) -> Result<Registered, ApiError> {
    let form = format!("enabled_events%5B%5D=%2A&url={}", utf8_percent_encode(url, NON_ALPHANUMERIC));
    let form = Some(("application/x-www-form-urlencoded", form));
    let answer = api.call(Method::POST, "/v1/webhook_endpoints", form).await?;
    let root = json::parse(&answer.body).map_err(ApiError::Strange)?;
    let text = |name: &str| root.get(&Pointer::of(name)).and_then(json::Value::scalar);
    match (text("id"), text("secret")) {
        (Some(id), Some(secret)) => {
            Ok(Registered { id: id.into_owned(), secret: Some(Secret::new(secret.into_owned())) })
        }
        _ => Err(ApiError::Strange("an endpoint without id or secret")),
    }
}

/// The events that some endpoint did not take, oldest first.
pub(super) async fn reconcile(api: &Api, since: i64) -> Result<Vec<Bytes>, ApiError> {
    let mut missed = Vec::new();
    let mut after = String::new();
    loop {
        let seconds = since / 1_000_000;
        let path = format!("/v1/events?limit=100&delivery_success=false&created%5Bgte%5D={seconds}{after}");
        let answer = api.call(Method::GET, &path, None).await?;
        let root = json::parse(&answer.body).map_err(ApiError::Strange)?;
        let events = root.get(&Pointer::of("data")).and_then(json::Value::elements);
        let events = events.ok_or(ApiError::Strange("events are no list"))?;
        let last = events.last().and_then(|event| event.get(&Pointer::of("id"))?.scalar());
        missed.extend(events.iter().map(|event| Bytes::copy_from_slice(event.text().as_bytes())));
        if missed.len() > MISSED {
            return Err(ApiError::TooMany(MISSED));
        }
        let more = root.get(&Pointer::of("has_more")).and_then(json::Value::scalar);
        match last.filter(|_| more.as_deref() == Some("true")) {
            Some(id) => after = format!("&starting_after={}", utf8_percent_encode(&id, NON_ALPHANUMERIC)),
            None => break,
        }
    }
    missed.reverse();
    Ok(missed)
}
