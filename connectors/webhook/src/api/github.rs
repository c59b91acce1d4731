//! GitHub: `POST /repos/{owner}/{repo}/hooks` or `/orgs/{org}/hooks`, the deliveries of a hook, and asking for one again
//! (REST API, "Repository webhooks"). Deliveries are kept for three days.

use super::{Api, ApiError, MISSED, Registered};
use crate::{
    Secret,
    json::{self, Pointer, Value},
    mapping::time,
};
use reqwest::Method;
use std::collections::HashMap;

fn hooks(target: &str) -> Result<String, ApiError> {
    let word = |text: &str| {
        !text.is_empty()
            && text != "."
            && text != ".."
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
    };
    match target.split_once('/') {
        Some((owner, repository)) if word(owner) && word(repository) => {
            Ok(format!("/repos/{owner}/{repository}/hooks"))
        }
        None if word(target) => Ok(format!("/orgs/{target}/hooks")),
        _ => Err(ApiError::Target(target.to_owned())),
    }
}

pub(super) async fn register(
    api: &Api,
    target: &str,
    url: &str,
    secret: Option<&Secret>,
) -> Result<Registered, ApiError> {
    let secret = secret.map_or("", Secret::expose);
    let body = serde_json::json!({
        "name": "web", "active": true, "events": ["*"],
        "config": { "url": url, "content_type": "json", "secret": secret, "insecure_ssl": "0" },
    });
    let answer =
        api.call(Method::POST, &hooks(target)?, Some(("application/json", body.to_string()))).await?;
    let root = json::parse(&answer.body).map_err(ApiError::Strange)?;
    let id = text(root, "/id").ok_or(ApiError::Strange("a webhook without an id"))?;
    Ok(Registered { id, secret: None })
}

/// Asks for every delivery again that never got a 2xx; says how many.
pub(super) async fn reconcile(api: &Api, target: &str, url: &str, since: i64) -> Result<usize, ApiError> {
    let hooks = hooks(target)?;
    let hook = find(api, &hooks, url).await?;
    // By the id that GitHub gives an event: its newest attempt, and whether any arrived.
    let mut attempts: HashMap<String, (String, bool)> = HashMap::new();
    let mut order = Vec::new();
    let mut page = Some(format!("{hooks}/{hook}/deliveries?per_page=100"));
    while let Some(path) = page.take() {
        let answer = api.call(Method::GET, &path, None).await?;
        let root = json::parse(&answer.body).map_err(ApiError::Strange)?;
        let mut done = false;
        for delivery in root.elements().ok_or(ApiError::Strange("deliveries are no list"))? {
            let strange = ApiError::Strange("a delivery without id, guid, time or status");
            let (Some(id), Some(guid), Some(at), Some(status)) = (
                text(delivery, "/id"),
                text(delivery, "/guid"),
                text(delivery, "/delivered_at").as_deref().and_then(time),
                text(delivery, "/status_code"),
            ) else {
                return Err(strange);
            };
            if at < since {
                done = true;
                break;
            }
            let arrived = status.starts_with('2') && status.len() == 3;
            let (_, known) = attempts.entry(guid.clone()).or_insert_with(|| {
                order.push(guid);
                (id, false)
            });
            *known |= arrived;
            if attempts.len() > MISSED {
                return Err(ApiError::TooMany(MISSED));
            }
        }
        page = answer.next.filter(|_| !done);
    }
    let mut asked = 0;
    // Newest first is how they are listed; oldest first is how they happened.
    for guid in order.iter().rev() {
        if let Some((id, false)) = attempts.get(guid) {
            api.call(Method::POST, &format!("{hooks}/{hook}/deliveries/{id}/attempts"), None).await?;
            asked += 1;
        }
    }
    Ok(asked)
}

/// The hook that calls this URL.
async fn find(api: &Api, hooks: &str, url: &str) -> Result<String, ApiError> {
    let mut page = Some(format!("{hooks}?per_page=100"));
    while let Some(path) = page.take() {
        let answer = api.call(Method::GET, &path, None).await?;
        let root = json::parse(&answer.body).map_err(ApiError::Strange)?;
        for hook in root.elements().ok_or(ApiError::Strange("webhooks are no list"))? {
            if text(hook, "/config/url").as_deref() == Some(url) {
                return text(hook, "/id").ok_or(ApiError::Strange("a webhook without an id"));
            }
        }
        page = answer.next;
    }
    Err(ApiError::NoHook(url.to_owned()))
}

fn text(value: Value<'_>, pointer: &str) -> Option<String> {
    let pointer = Pointer::parse(pointer).ok()?;
    value.get(&pointer)?.scalar().map(std::borrow::Cow::into_owned)
}
