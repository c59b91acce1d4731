//! Zendesk: `POST /api/v2/webhooks`, the signing secret, which can be asked for at any time, and the invocations of a webhook of
//! the last seven days, each with its attempts and what was sent in them. That an attempt tells its `request.payload` is said by
//! Zendesk's own staff and used by other clients; the API's reference was not at hand with the field.

use super::{
    Api, ApiError, Batch, Chain, Hook, MISSED, Redelivery, Wish, insert, is_word, json as json_headers, list,
    text,
};
use crate::{
    Secret,
    json::{self, Pointer, Value},
    mapping::time,
};
use bytes::Bytes;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::Method;
use std::vec;

/// What every event type begins with.
const PREFIX: &str = "zen:event-type:";

/// The webhook that calls this URL, with its secret.
pub(super) async fn find(api: &Api, wish: &Wish<'_>) -> Result<Option<Hook>, ApiError> {
    match id(api, wish).await? {
        Some(id) => with_secret(api, id).await.map(Some),
        None => Ok(None),
    }
}

/// The id of the webhook that calls this URL.
async fn id(api: &Api, wish: &Wish<'_>) -> Result<Option<String>, ApiError> {
    let mut pages = Pages::new("/api/v2/webhooks?page%5Bsize%5D=100");
    while let Some(path) = pages.path()? {
        let answer = api.call(Method::GET, &path, None).await?;
        let root = json::parse(&answer.body).map_err(ApiError::Strange)?;
        for hook in list(root, "/webhooks", "webhooks are no list")? {
            if text(hook, "/endpoint").as_deref() == Some(wish.url) {
                return word(hook, "/id").map(Some);
            }
        }
        pages.turn(root);
    }
    Ok(None)
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
    with_secret(api, word(root, "/webhook/id")?).await
}

async fn with_secret(api: &Api, id: String) -> Result<Hook, ApiError> {
    let answer = api.call(Method::GET, &format!("/api/v2/webhooks/{id}/signing_secret"), None).await?;
    let root = json::parse(&answer.body).map_err(ApiError::Strange)?;
    let secret = text(root, "/signing_secret/secret").ok_or(ApiError::Strange("no signing secret"))?;
    Ok(Hook { id, secret: Some(Secret::new(secret)), expires: None })
}

/// An id that can stand in a path.
fn word(value: Value<'_>, pointer: &str) -> Result<String, ApiError> {
    text(value, pointer).filter(|id| is_word(id)).ok_or(ApiError::Strange("something without an id"))
}

/// A list's pages, by cursor.
struct Pages {
    list: String,
    /// The next page's parameter; `None` after the last one.
    next: Option<String>,
    chain: Chain,
}

impl Pages {
    fn new(list: &str) -> Self {
        Self { list: list.to_owned(), next: Some(String::new()), chain: Chain::default() }
    }

    /// The path of the next page.
    fn path(&mut self) -> Result<Option<String>, ApiError> {
        let Some(next) = self.next.take() else { return Ok(None) };
        self.chain.follow(&next)?;
        Ok(Some(format!("{}{next}", self.list)))
    }

    /// Looks in a page for what leads to the next one.
    fn turn(&mut self, page: Value<'_>) {
        let more = text(page, "/meta/has_more").is_some_and(|more| more == "true");
        self.next = text(page, "/meta/after_cursor")
            .filter(|_| more)
            .map(|cursor| format!("&page%5Bafter%5D={}", utf8_percent_encode(&cursor, NON_ALPHANUMERIC)));
    }
}

/// The invocations that did not succeed, oldest first.
pub(super) struct Missed {
    hook: String,
    ids: vec::IntoIter<String>,
}

impl Missed {
    pub(super) async fn find(api: &Api, wish: &Wish<'_>, since: i64) -> Result<Self, ApiError> {
        let hook = id(api, wish).await?.ok_or_else(|| ApiError::NoHook(wish.url.to_owned()))?;
        let from = jiff::Timestamp::from_microsecond(since).unwrap_or_default();
        let from = from.strftime("%Y-%m-%dT%H%%3A%M%%3A%SZ");
        let mut pages = Pages::new(&format!(
            "/api/v2/webhooks/{hook}/invocations?sort=latest_completed_at&filter%5Bfrom_ts%5D={from}&page%5Bsize%5D=100"
        ));
        let mut missed: Vec<(i64, String)> = Vec::new();
        while let Some(path) = pages.path()? {
            let answer = api.call(Method::GET, &path, None).await?;
            let root = json::parse(&answer.body).map_err(ApiError::Strange)?;
            for invocation in list(root, "/invocations", "invocations are no list")? {
                // Failed, timed out, throttled, not even tried because the circuit was broken: the names of what went wrong are many.
                if text(invocation, "/status").as_deref() == Some("success") {
                    continue;
                }
                // What is not complete yet is the youngest.
                let at =
                    text(invocation, "/latest_completed_at").as_deref().and_then(time).unwrap_or(i64::MAX);
                if at >= since {
                    missed.push((at, word(invocation, "/id")?));
                }
                if missed.len() > MISSED {
                    return Err(ApiError::TooMany(MISSED));
                }
            }
            pages.turn(root);
        }
        missed.sort();
        let ids: Vec<String> = missed.into_iter().map(|(_, id)| id).collect();
        Ok(Self { hook, ids: ids.into_iter() })
    }

    pub(super) async fn next(&mut self, api: &Api) -> Result<Option<Batch>, ApiError> {
        let Some(id) = self.ids.next() else { return Ok(None) };
        let path = format!("/api/v2/webhooks/{}/invocations/{id}/attempts", self.hook);
        let answer = api.call(Method::GET, &path, None).await?;
        let root = json::parse(&answer.body).map_err(ApiError::Strange)?;
        let attempts = list(root, "/attempts", "attempts are no list")?;
        let batch = match attempts.into_iter().find_map(body) {
            Some(body) => {
                let mut headers = json_headers();
                insert(&mut headers, "x-zendesk-webhook-id", &self.hook);
                insert(&mut headers, "x-zendesk-webhook-invocation-id", &id);
                Batch { deliveries: vec![Redelivery { headers, body }], ..Batch::default() }
            }
            None => Batch { untold: 1, ..Batch::default() },
        };
        Ok(Some(batch))
    }
}

/// What was sent in an attempt: its text, or the JSON that it was.
fn body(attempt: Value<'_>) -> Option<Bytes> {
    let payload = attempt.get(&Pointer::parse("/request/payload").ok()?)?;
    if payload.is_object() {
        return Some(Bytes::copy_from_slice(payload.text().as_bytes()));
    }
    payload.scalar().filter(|text| !text.is_empty()).map(|text| Bytes::from(text.into_owned()))
}
