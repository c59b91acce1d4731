//! GitHub: `POST /repos/{owner}/{repo}/hooks` or `/orgs/{org}/hooks`, and the deliveries of a hook with what was in them
//! (REST API, "Repository webhooks"). Deliveries are kept for three days.

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
use reqwest::Method;
use std::{collections::HashMap, vec};

/// The headers of a delivery that say what it is. Its signature is made again.
const HEADERS: [&str; 5] = [
    "x-github-event",
    "x-github-delivery",
    "x-github-hook-id",
    "x-github-hook-installation-target-id",
    "x-github-hook-installation-target-type",
];

fn hooks(target: &str) -> Result<String, ApiError> {
    match target.split_once('/') {
        Some((owner, repository)) if is_word(owner) && is_word(repository) => {
            Ok(format!("/repos/{owner}/{repository}/hooks"))
        }
        None if is_word(target) => Ok(format!("/orgs/{target}/hooks")),
        _ => Err(ApiError::Target(target.to_owned())),
    }
}

/// The hook that calls this URL.
pub(super) async fn find(api: &Api, wish: &Wish<'_>) -> Result<Option<Hook>, ApiError> {
    let mut page = Some(format!("{}?per_page=100", hooks(wish.target)?));
    let mut chain = Chain::default();
    while let Some(path) = page.take() {
        chain.follow(&path)?;
        let answer = api.call(Method::GET, &path, None).await?;
        let root = json::parse(&answer.body).map_err(ApiError::Strange)?;
        for hook in list(root, "", "webhooks are no list")? {
            if text(hook, "/config/url").as_deref() == Some(wish.url) {
                return made(hook).map(Some);
            }
        }
        page = answer.next;
    }
    Ok(None)
}

pub(super) async fn make(api: &Api, wish: &Wish<'_>, secret: &Secret) -> Result<Hook, ApiError> {
    let all = ["*".to_owned()];
    let events = if wish.events.is_empty() { &all } else { wish.events };
    let body = serde_json::json!({
        "name": "web", "active": true, "events": events,
        "config": { "url": wish.url, "content_type": "json", "secret": secret.expose(), "insecure_ssl": "0" },
    });
    let body = Some(("application/json", body.to_string()));
    let answer = api.call(Method::POST, &hooks(wish.target)?, body).await?;
    made(json::parse(&answer.body).map_err(ApiError::Strange)?)
}

fn made(hook: Value<'_>) -> Result<Hook, ApiError> {
    let id =
        text(hook, "/id").filter(|id| is_word(id)).ok_or(ApiError::Strange("a webhook without an id"))?;
    Ok(Hook { id, ..Hook::default() })
}

/// The deliveries that never got a 2xx.
pub(super) struct Missed {
    deliveries: String,
    ids: vec::IntoIter<String>,
}

/// What the attempts at one event come to.
struct Attempts {
    /// The newest attempt, which can be asked for again.
    id: String,
    arrived: bool,
    /// Where in the list, newest first, its oldest attempt is.
    first: usize,
}

impl Missed {
    pub(super) async fn find(api: &Api, wish: &Wish<'_>, since: i64) -> Result<Self, ApiError> {
        let hook = find(api, wish).await?.ok_or_else(|| ApiError::NoHook(wish.url.to_owned()))?;
        let deliveries = format!("{}/{}/deliveries", hooks(wish.target)?, hook.id);
        let mut attempts: HashMap<String, Attempts> = HashMap::new();
        let mut position = 0;
        let mut page = Some(format!("{deliveries}?per_page=100"));
        let mut chain = Chain::default();
        while let Some(path) = page.take() {
            chain.follow(&path)?;
            let answer = api.call(Method::GET, &path, None).await?;
            let root = json::parse(&answer.body).map_err(ApiError::Strange)?;
            let mut done = false;
            for delivery in list(root, "", "deliveries are no list")? {
                let (Some(id), Some(guid), Some(at)) = (
                    text(delivery, "/id").filter(|id| is_word(id)),
                    text(delivery, "/guid"),
                    text(delivery, "/delivered_at").as_deref().and_then(time),
                ) else {
                    return Err(ApiError::Strange("a delivery without id, guid or time"));
                };
                // Without a status nothing answered.
                let status = text(delivery, "/status_code").unwrap_or_default();
                if at < since {
                    done = true;
                    break;
                }
                let known = attempts.entry(guid).or_insert(Attempts { id, arrived: false, first: position });
                known.arrived |= status.starts_with('2') && status.len() == 3;
                known.first = position;
                position += 1;
                if attempts.len() > MISSED {
                    return Err(ApiError::TooMany(MISSED));
                }
            }
            page = answer.next.filter(|_| !done);
        }
        let mut missed: Vec<Attempts> = attempts.into_values().filter(|event| !event.arrived).collect();
        // Newest first is how they are listed; oldest first is how they happened.
        missed.sort_unstable_by_key(|event| std::cmp::Reverse(event.first));
        let ids: Vec<String> = missed.into_iter().map(|event| event.id).collect();
        Ok(Self { deliveries, ids: ids.into_iter() })
    }

    pub(super) async fn next(&mut self, api: &Api) -> Result<Option<Batch>, ApiError> {
        let Some(id) = self.ids.next() else { return Ok(None) };
        let path = format!("{}/{id}", self.deliveries);
        let answer = api.call(Method::GET, &path, None).await?;
        let root = json::parse(&answer.body).map_err(ApiError::Strange)?;
        if let Some(delivery) = redelivery(root) {
            return Ok(Some(Batch { deliveries: vec![delivery], ..Batch::default() }));
        }
        // The documentation allows the content to be null.
        api.call(Method::POST, &format!("{path}/attempts"), None).await?;
        Ok(Some(Batch { asked: 1, ..Batch::default() }))
    }
}

/// A delivery as it was sent, without its signature; `None` where GitHub does not say all of it.
fn redelivery(root: Value<'_>) -> Option<Redelivery> {
    let payload =
        root.get(&Pointer::parse("/request/payload").ok()?).filter(|payload| payload.is_object())?;
    let sent = root.get(&Pointer::parse("/request/headers").ok()?)?.members()?;
    let mut headers = json_headers();
    for (name, value) in sent {
        let known = HEADERS.into_iter().find(|known| name.eq_ignore_ascii_case(known));
        if let (Some(name), Some(value)) = (known, value.scalar()) {
            insert(&mut headers, name, &value);
        }
    }
    let whole = headers.contains_key("x-github-event") && headers.contains_key("x-github-delivery");
    whole.then(|| Redelivery { headers, body: Bytes::copy_from_slice(payload.text().as_bytes()) })
}
