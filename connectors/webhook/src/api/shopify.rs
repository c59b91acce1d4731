//! Shopify: a subscription for each topic, by the Admin API in GraphQL. They sign with the app's client secret.

use super::{Api, ApiError, Hook, Wish, list, text};
use crate::json;
use reqwest::Method;
use serde_json::json as object;

const SUBSCRIPTIONS: &str = "query($after: String) { webhookSubscriptions(first: 100, after: $after) { \
    nodes { id topic uri } pageInfo { hasNextPage endCursor } } }";

const SUBSCRIBE: &str = "mutation($topic: WebhookSubscriptionTopic!, $subscription: WebhookSubscriptionInput!) { \
    webhookSubscriptionCreate(topic: $topic, webhookSubscription: $subscription) { \
    webhookSubscription { id } userErrors { field message } } }";

/// The subscriptions of this URL, if there is one for each topic.
pub(super) async fn find(api: &Api, wish: &Wish<'_>) -> Result<Option<Hook>, ApiError> {
    let wanted = topics(wish)?;
    let there = subscribed(api, wish).await?;
    let ids: Option<Vec<&str>> = wanted
        .iter()
        .map(|wanted| Some(there.iter().find(|(topic, _)| topic == wanted)?.1.as_str()))
        .collect();
    Ok(ids.map(|ids| Hook { id: ids.join(" "), ..Hook::default() }))
}

/// Subscribes to the topics that are not subscribed to.
pub(super) async fn make(api: &Api, wish: &Wish<'_>) -> Result<Hook, ApiError> {
    let there = subscribed(api, wish).await?;
    let mut ids = Vec::new();
    for topic in topics(wish)? {
        if let Some((_, id)) = there.iter().find(|(known, _)| *known == topic) {
            ids.push(id.clone());
            continue;
        }
        let variables = object!({ "topic": topic, "subscription": { "uri": wish.url, "format": "JSON" } });
        let body = call(api, SUBSCRIBE, &variables).await?;
        let root = json::parse(&body).map_err(ApiError::Strange)?;
        let made = "/data/webhookSubscriptionCreate/webhookSubscription/id";
        let id = text(root, made).ok_or(ApiError::Strange("a subscription without an id"))?;
        ids.push(id);
    }
    Ok(Hook { id: ids.join(" "), ..Hook::default() })
}

/// Topics as GraphQL has them: `orders/create` is `ORDERS_CREATE`.
fn topics(wish: &Wish<'_>) -> Result<Vec<String>, ApiError> {
    if wish.events.is_empty() {
        return Err(ApiError::NoEvents("orders/create"));
    }
    Ok(wish.events.iter().map(|name| name.replace('/', "_").to_ascii_uppercase()).collect())
}

/// Topic and id of each subscription of this URL.
async fn subscribed(api: &Api, wish: &Wish<'_>) -> Result<Vec<(String, String)>, ApiError> {
    let strange = "subscriptions are no list";
    let mut found = Vec::new();
    let mut after = None;
    loop {
        let body = call(api, SUBSCRIPTIONS, &object!({ "after": after })).await?;
        let root = json::parse(&body).map_err(ApiError::Strange)?;
        for node in list(root, "/data/webhookSubscriptions/nodes", strange)? {
            if text(node, "/uri").as_deref() == Some(wish.url) {
                let (topic, id) = (text(node, "/topic"), text(node, "/id"));
                found.push(topic.zip(id).ok_or(ApiError::Strange("a subscription without topic or id"))?);
            }
        }
        let page = "/data/webhookSubscriptions/pageInfo";
        let more = text(root, &format!("{page}/hasNextPage")).is_some_and(|more| more == "true");
        let next = text(root, &format!("{page}/endCursor")).filter(|_| more);
        if next.is_none() {
            return Ok(found);
        }
        if next == after {
            return Err(ApiError::Strange("a page of subscriptions that leads to itself"));
        }
        after = next;
    }
}

/// A query, whose errors come with status 200.
async fn call(api: &Api, query: &str, variables: &serde_json::Value) -> Result<bytes::Bytes, ApiError> {
    let body = object!({ "query": query, "variables": variables }).to_string();
    let answer = api.call(Method::POST, "/graphql.json", Some(("application/json", body))).await?;
    let root = json::parse(&answer.body).map_err(ApiError::Strange)?;
    let told = ["/errors/0/message", "/data/webhookSubscriptionCreate/userErrors/0/message"];
    match told.iter().find_map(|pointer| text(root, pointer)) {
        Some(message) => Err(api.refused(200, &message)),
        None => Ok(answer.body),
    }
}
