//! Airtable: `POST /v0/bases/{base}/webhooks`, which says the secret once, and the list of payloads, which has what a
//! notification only tells of. A webhook ends after seven days unless it is refreshed or its payloads are listed; payloads are
//! kept for seven days.

use super::{
    Api, ApiError, Batch, Bookmark, Hook, Redelivery, Wish, is_word, json as json_headers, list, text,
};
use crate::{Secret, json, mapping::time};
use bytes::Bytes;
use reqwest::Method;
use std::vec;

fn hooks(target: &str) -> Result<String, ApiError> {
    if is_word(target) {
        Ok(format!("/v0/bases/{target}/webhooks"))
    } else {
        Err(ApiError::Target(target.to_owned()))
    }
}

pub(super) async fn find(api: &Api, wish: &Wish<'_>) -> Result<Option<Hook>, ApiError> {
    let answer = api.call(Method::GET, &hooks(wish.target)?, None).await?;
    let root = json::parse(&answer.body).map_err(ApiError::Strange)?;
    let found = list(root, "/webhooks", "webhooks are no list")?;
    let found = found.into_iter().find(|hook| text(*hook, "/notificationUrl").as_deref() == Some(wish.url));
    found.map(made).transpose()
}

pub(super) async fn make(api: &Api, wish: &Wish<'_>) -> Result<Hook, ApiError> {
    let all = ["tableData", "tableFields", "tableMetadata"].map(str::to_owned);
    let kinds = if wish.events.is_empty() { &all } else { wish.events };
    let body = serde_json::json!({
        "notificationUrl": wish.url,
        "specification": { "options": { "filters": { "dataTypes": kinds } } },
    });
    let body = Some(("application/json", body.to_string()));
    let answer = api.call(Method::POST, &hooks(wish.target)?, body).await?;
    let root = json::parse(&answer.body).map_err(ApiError::Strange)?;
    let secret = text(root, "/macSecretBase64").ok_or(ApiError::Strange("a webhook without its secret"))?;
    Ok(Hook { secret: Some(Secret::new(secret)), ..made(root)? })
}

pub(super) async fn renew(api: &Api, wish: &Wish<'_>, hook: &Hook) -> Result<Hook, ApiError> {
    let path = format!("{}/{}/refresh", hooks(wish.target)?, hook.id);
    let answer = api.call(Method::POST, &path, None).await?;
    let root = json::parse(&answer.body).map_err(ApiError::Strange)?;
    Ok(Hook { expires: expires(root), ..hook.clone() })
}

fn made(hook: json::Value<'_>) -> Result<Hook, ApiError> {
    let id =
        text(hook, "/id").filter(|id| is_word(id)).ok_or(ApiError::Strange("a webhook without an id"))?;
    Ok(Hook { id, secret: None, expires: expires(hook) })
}

fn expires(hook: json::Value<'_>) -> Option<i64> {
    text(hook, "/expirationTime").as_deref().and_then(time)
}

/// The payloads from a bookmark on, one by one: each is a step of its own, so that what was posted of a page is not posted again
/// after the run was cut off in the middle of it.
pub(super) struct Payloads {
    base: String,
    hook: String,
    /// Those of the page that was fetched, each with its number.
    page: vec::IntoIter<(u64, Redelivery)>,
    /// The cursor of the next page; `None` after the last one.
    next: Option<u64>,
}

impl Payloads {
    pub(super) async fn new(api: &Api, wish: &Wish<'_>, bookmark: &Bookmark) -> Result<Self, ApiError> {
        let hook = find(api, wish).await?.ok_or_else(|| ApiError::NoHook(wish.url.to_owned()))?.id;
        // A cursor belongs to a webhook; those of another one begin at 1.
        let known = bookmark.next.parse().ok().filter(|_| bookmark.hook == hook);
        let page = Vec::new().into_iter();
        Ok(Self { base: wish.target.to_owned(), hook, page, next: Some(known.unwrap_or(1)) })
    }

    pub(super) async fn next(&mut self, api: &Api) -> Result<Option<Batch>, ApiError> {
        if let Some(batch) = self.step() {
            return Ok(Some(batch));
        }
        let Some(cursor) = self.next.take() else { return Ok(None) };
        let path = format!("{}/{}/payloads?cursor={cursor}&limit=50", hooks(&self.base)?, self.hook);
        let answer = api.call(Method::GET, &path, None).await?;
        let root = json::parse(&answer.body).map_err(ApiError::Strange)?;
        let payloads = list(root, "/payloads", "payloads are no list")?;
        let next: u64 = text(root, "/cursor")
            .and_then(|cursor| cursor.parse().ok())
            .ok_or(ApiError::Strange("payloads without a cursor"))?;
        let count = payloads.len() as u64;
        // Those that Airtable has dropped since are before the first of the page, not behind its last.
        let first = next.checked_sub(count).ok_or(ApiError::Strange("a cursor before its payloads"))?;
        let page: Vec<(u64, Redelivery)> = payloads
            .iter()
            .zip(first..)
            .map(|(payload, number)| (number, self.delivery(*payload, number)))
            .collect();
        self.page = page.into_iter();
        let more = text(root, "/mightHaveMore").is_some_and(|more| more == "true");
        // An answer that leads nowhere must not be asked for for ever.
        self.next = Some(next).filter(|next| more && count > 0 && *next > cursor);
        // A run from the first number on wants what there is; one that goes on wants what follows.
        let dropped = if cursor > 1 { first.saturating_sub(cursor) } else { 0 };
        let begun =
            self.step().unwrap_or_else(|| Batch { bookmark: Some(self.bookmark(next)), ..Batch::default() });
        Ok(Some(Batch { dropped, ..begun }))
    }

    /// The next payload of the page.
    fn step(&mut self) -> Option<Batch> {
        let (number, delivery) = self.page.next()?;
        let bookmark = Some(self.bookmark(number.saturating_add(1)));
        Some(Batch { deliveries: vec![delivery], bookmark, ..Batch::default() })
    }

    fn bookmark(&self, next: u64) -> Bookmark {
        Bookmark { hook: self.hook.clone(), next: next.to_string(), ..Bookmark::default() }
    }

    /// A payload in the form of a notification, with what it tells of.
    fn delivery(&self, payload: json::Value<'_>, number: u64) -> Redelivery {
        let quoted = |text: &str| serde_json::Value::from(text).to_string();
        let at = text(payload, "/timestamp").unwrap_or_default();
        let body = format!(
            r#"{{"base":{{"id":{}}},"webhook":{{"id":{}}},"timestamp":{},"fetched":"transaction","cursor":{number},"payload":{}}}"#,
            quoted(&self.base),
            quoted(&self.hook),
            quoted(&at),
            payload.text(),
        );
        Redelivery { headers: json_headers(), body: Bytes::from(body) }
    }
}
