//! Zendesk: `POST /api/v2/webhooks`, and the signing secret, which can be asked for at any time.

use super::{Api, ApiError, Hook, Wish, is_word, list, text};
use crate::{Secret, json};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::Method;

/// What every event type begins with.
const PREFIX: &str = "zen:event-type:";

/// The webhook that calls this URL, with its secret.
pub(super) async fn find(api: &Api, wish: &Wish<'_>) -> Result<Option<Hook>, ApiError> {
    let mut after = String::new();
    loop {
        let path = format!("/api/v2/webhooks?page%5Bsize%5D=100{after}");
        let answer = api.call(Method::GET, &path, None).await?;
        let root = json::parse(&answer.body).map_err(ApiError::Strange)?;
        let hooks = list(root, "/webhooks", "webhooks are no list")?;
        if let Some(hook) =
            hooks.into_iter().find(|hook| text(*hook, "/endpoint").as_deref() == Some(wish.url))
        {
            return with_secret(api, hook).await.map(Some);
        }
        let more = text(root, "/meta/has_more").is_some_and(|more| more == "true");
        match text(root, "/meta/after_cursor").filter(|_| more) {
            Some(cursor) => {
                let next = format!("&page%5Bafter%5D={}", utf8_percent_encode(&cursor, NON_ALPHANUMERIC));
                if next == after {
                    return Err(ApiError::Strange("a page of webhooks that leads to itself"));
                }
                after = next;
            }
            None => return Ok(None),
        }
    }
}

pub(super) async fn make(api: &Api, wish: &Wish<'_>) -> Result<Hook, ApiError> {
    if wish.events.is_empty() {
        return Err(ApiError::NoEvents("ticket.created"));
    }
    let prefixed = |name: &String| if name.contains(':') { name.clone() } else { format!("{PREFIX}{name}") };
    let body = serde_json::json!({ "webhook": {
        "name": format!("Headgate {}", wish.url), "endpoint": wish.url, "http_method": "POST", "request_format": "json",
        "status": "active", "subscriptions": wish.events.iter().map(prefixed).collect::<Vec<_>>(),
    }});
    let body = Some(("application/json", body.to_string()));
    let answer = api.call(Method::POST, "/api/v2/webhooks", body).await?;
    let root = json::parse(&answer.body).map_err(ApiError::Strange)?;
    let hook = root.get(&json::Pointer::of("webhook")).ok_or(ApiError::Strange("no webhook was made"))?;
    with_secret(api, hook).await
}

async fn with_secret(api: &Api, hook: json::Value<'_>) -> Result<Hook, ApiError> {
    let id =
        text(hook, "/id").filter(|id| is_word(id)).ok_or(ApiError::Strange("a webhook without an id"))?;
    let answer = api.call(Method::GET, &format!("/api/v2/webhooks/{id}/signing_secret"), None).await?;
    let root = json::parse(&answer.body).map_err(ApiError::Strange)?;
    let secret = text(root, "/signing_secret/secret").ok_or(ApiError::Strange("no signing secret"))?;
    Ok(Hook { id, secret: Some(Secret::new(secret)), expires: None })
}
