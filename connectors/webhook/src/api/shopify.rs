//! Shopify: a subscription for each topic, by the Admin API in GraphQL. They sign with the app's client secret.
//!
//! There is no list of what was not delivered. What exists is asked for instead, by the REST Admin API, since that has the very
//! form that a delivery has: what was changed (`updated_at_min`), and what was deleted (`events.json`, verb `destroy`).
//!
//! # Duplicates
//! A delivery's id cannot be known. What is found has the id `headgate:TOPIC:ID:TIME` and is left out where the stream shows that it
//! arrived: a creation or a deletion by an event of that topic, a change by any event of that thing that is as new.

use super::{
    Api, ApiError, Batch, Bookmark, Chain, Hook, OVERLAP, Redelivery, Seen, Since, TRIES, Wish, insert,
    is_word, json as json_headers, list, places::Places, retry, text,
};
use crate::{
    json::{self, Pointer, Value},
    mapping::time,
};
use bytes::Bytes;
use reqwest::Method;
use serde_json::json as object;
use std::{collections::HashMap, time::Duration, vec};

/// Shopify tries eight times in four hours; some minutes more for what is under way.
pub(super) const PATIENCE: Duration = Duration::from_secs(4 * 3600 + 600);

/// Most things that are looked at, of which only some will be missing.
const THINGS: usize = 100_000;

/// The version in the provider's file, which a delivery says too.
const VERSION: &str = "2026-01";

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

/// The topics that were wished for: `orders/create` is `ORDERS_CREATE`.
fn topics(wish: &Wish<'_>) -> Result<Vec<String>, ApiError> {
    if wish.events.is_empty() {
        return Err(ApiError::NoEvents("orders/create"));
    }
    Ok(wish.events.iter().map(|name| spelled(name)).collect())
}

/// A topic as GraphQL has it.
fn spelled(topic: &str) -> String {
    topic.replace('/', "_").to_ascii_uppercase()
}

/// Topic and id of each subscription of this URL.
async fn subscribed(api: &Api, wish: &Wish<'_>) -> Result<Vec<(String, String)>, ApiError> {
    let strange = "subscriptions are no list";
    let mut found = Vec::new();
    let mut after: Option<String> = None;
    let mut chain = Chain::default();
    loop {
        chain.follow(after.as_deref().unwrap_or_default())?;
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
        after = next;
    }
}

/// A query. Its errors come with status 200, also that it was one too many.
async fn call(api: &Api, query: &str, variables: &serde_json::Value) -> Result<Bytes, ApiError> {
    let body = object!({ "query": query, "variables": variables }).to_string();
    let mut tries = 0;
    let answer = loop {
        tries += 1;
        let body = Some(("application/json", body.clone()));
        let answer = api.call(Method::POST, "/graphql.json", body).await?;
        let root = json::parse(&answer.body).map_err(ApiError::Strange)?;
        if text(root, "/errors/0/extensions/code").as_deref() != Some("THROTTLED") {
            break answer;
        }
        if tries == TRIES {
            return Err(ApiError::Busy { tries, wait: None });
        }
        tokio::time::sleep(retry::backoff(tries, true)).await;
    };
    let root = json::parse(&answer.body).map_err(ApiError::Strange)?;
    let told = ["/errors/0/message", "/data/webhookSubscriptionCreate/userErrors/0/message"];
    match told.iter().find_map(|pointer| text(root, pointer)) {
        Some(message) => Err(api.refused(200, &message)),
        None => Ok(answer.body),
    }
}

/// A thing whose changes can be asked for.
struct Kind {
    /// What its topics begin with, its path and the name of a list of it.
    name: &'static str,
    /// The topic of a change.
    changed: &'static str,
    /// The name of one.
    one: &'static str,
    /// What the list is asked for beside the time.
    scope: &'static str,
    /// Its name in the log of events, which has its deletions.
    log: Option<&'static str>,
}

const KINDS: [Kind; 4] = [
    Kind { name: "orders", changed: "updated", one: "order", scope: "&status=any", log: Some("Order") },
    Kind { name: "products", changed: "update", one: "product", scope: "", log: Some("Product") },
    Kind { name: "customers", changed: "update", one: "customer", scope: "", log: None },
    Kind { name: "draft_orders", changed: "update", one: "draft_order", scope: "", log: None },
];

/// What happened to a thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Verb {
    Create,
    Change,
    Delete,
}

/// Something that a delivery should have told.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Due {
    /// When it happened.
    at: i64,
    verb: Verb,
    /// Which of [`KINDS`].
    kind: usize,
    id: u64,
}

/// What should have been told and is not known to have arrived.
pub(super) struct Missed {
    /// The shop's host, which a delivery names.
    shop: String,
    /// By what a delivery would say of it.
    due: HashMap<(usize, u64, Verb), i64>,
    from: i64,
    /// What happened after this is left to the provider and to the next run.
    until: i64,
    /// The topics that are looked for.
    topics: Vec<String>,
    /// Up to where each topic was looked for; until it is told in the last batch.
    places: Option<Places>,
    /// In order, from the first call of [`Missed::next`] on.
    steps: Option<vec::IntoIter<Due>>,
}

impl Kind {
    fn topic(&self, verb: Verb) -> String {
        let verb = match verb {
            Verb::Create => "create",
            Verb::Change => self.changed,
            Verb::Delete => "delete",
        };
        format!("{}/{verb}", self.name)
    }

    fn has(&self, wanted: &[String], verb: Verb) -> bool {
        wanted.contains(&spelled(&self.topic(verb)))
    }
}

/// Whether what a topic tells of can be asked for.
fn can_be_asked(topic: &str) -> bool {
    let verbs = [Verb::Create, Verb::Change, Verb::Delete];
    KINDS.iter().any(|kind| {
        let told = |verb: &Verb| *verb != Verb::Delete || kind.log.is_some();
        verbs.iter().filter(|verb| told(verb)).any(|verb| spelled(&kind.topic(*verb)) == topic)
    })
}

impl Missed {
    pub(super) async fn find(
        api: &Api,
        wish: &Wish<'_>,
        bookmark: &Bookmark,
        since: Since,
    ) -> Result<Self, ApiError> {
        if !is_word(wish.target) {
            return Err(ApiError::Target(wish.target.to_owned()));
        }
        let wanted = if wish.events.is_empty() {
            let there = subscribed(api, wish).await?;
            there.into_iter().map(|(topic, _)| topic).collect()
        } else {
            topics(wish)?
        };
        if wanted.is_empty() {
            return Err(ApiError::NoHook(wish.url.to_owned()));
        }
        // A webhook may well have others beside them; who names one wants that one.
        let (known, other): (Vec<&String>, Vec<&String>) =
            wanted.iter().partition(|topic| can_be_asked(topic));
        if let Some(other) = other.first().filter(|_| known.is_empty() || !wish.events.is_empty()) {
            return Err(ApiError::Event((*other).clone()));
        }
        let places = Places::read(&bookmark.next);
        let begins = |topic: &&String| match since {
            Since::LastRun(first) => {
                places.of(topic.as_str()).map_or(first, |place| place.saturating_sub(OVERLAP))
            }
            Since::Time(at) => at,
        };
        let since = known.iter().map(begins).min().unwrap_or(since.time());
        let mut missed = Self {
            shop: format!("{}.myshopify.com", wish.target),
            due: HashMap::new(),
            from: since,
            until: i64::MAX,
            topics: known.into_iter().cloned().collect(),
            places: Some(places),
            steps: None,
        };
        let from = jiff::Timestamp::from_microsecond(since).unwrap_or_default();
        let from = from.strftime("%Y-%m-%dT%H%%3A%M%%3A%SZ").to_string();
        for (index, kind) in KINDS.iter().enumerate() {
            let (create, change) = (kind.has(&wanted, Verb::Create), kind.has(&wanted, Verb::Change));
            if create || change {
                let path = format!(
                    "/{}.json?limit=250&fields=id,created_at,updated_at&updated_at_min={from}{}",
                    kind.name, kind.scope
                );
                missed
                    .list(api, path, kind.name, |missed, thing| {
                        let (id, created, updated) =
                            (number(thing, "/id")?, at(thing, "/created_at")?, at(thing, "/updated_at")?);
                        if create && created >= since {
                            missed.due.insert((index, id, Verb::Create), created);
                        }
                        // What was never changed was told of when it was made.
                        if change && updated >= since && (updated > created || !create) {
                            missed.due.insert((index, id, Verb::Change), updated);
                        }
                        Some(())
                    })
                    .await?;
            }
            if let Some(log) = kind.log.filter(|_| kind.has(&wanted, Verb::Delete)) {
                let path = format!("/events.json?limit=250&filter={log}&verb=destroy&created_at_min={from}");
                missed
                    .list(api, path, "events", |missed, event| {
                        let (id, deleted) = (number(event, "/subject_id")?, at(event, "/created_at")?);
                        let told = text(event, "/verb")? == "destroy" && text(event, "/subject_type")? == log;
                        if told && deleted >= since {
                            missed.due.insert((index, id, Verb::Delete), deleted);
                        }
                        Some(())
                    })
                    .await?;
            }
        }
        Ok(missed)
    }

    /// Takes every element of a list of the REST Admin API.
    async fn list(
        &mut self,
        api: &Api,
        path: String,
        name: &str,
        mut take: impl FnMut(&mut Self, Value<'_>) -> Option<()>,
    ) -> Result<(), ApiError> {
        let (mut page, mut chain) = (Some(path), Chain::default());
        while let Some(path) = page.take() {
            chain.follow(&path)?;
            let answer = api.call(Method::GET, &path, None).await?;
            let root = json::parse(&answer.body).map_err(ApiError::Strange)?;
            for element in list(root, &format!("/{name}"), "no list where one was asked for")? {
                take(self, element).ok_or(ApiError::Strange("a thing without its id or times"))?;
            }
            if self.due.len() > THINGS {
                return Err(ApiError::TooMany(THINGS));
            }
            page = answer.next;
        }
        Ok(())
    }

    /// From when on things are looked at.
    pub(super) fn begins(&self) -> i64 {
        self.from
    }

    pub(super) fn settle(&mut self, until: i64) {
        self.until = until;
        self.due.retain(|_, at| *at <= until);
    }

    pub(super) fn seen(&mut self, event: &Seen<'_>) {
        let Some((name, verb)) =
            event.event_type.strip_prefix("com.shopify.").and_then(|event| event.rsplit_once('.'))
        else {
            return;
        };
        let Some(kind) = KINDS.iter().position(|kind| kind.name == name) else { return };
        let Ok(thing) = json::parse(event.data) else { return };
        let Some(id) = number(thing, "/id") else { return };
        match verb {
            "create" => self.due.remove(&(kind, id, Verb::Create)),
            "delete" => self.due.remove(&(kind, id, Verb::Delete)),
            _ => None,
        };
        let as_new = |due: &i64| at(thing, "/updated_at").is_some_and(|updated| updated >= *due);
        if self.due.get(&(kind, id, Verb::Change)).is_some_and(as_new) {
            self.due.remove(&(kind, id, Verb::Change));
        }
    }

    pub(super) async fn next(&mut self, api: &Api) -> Result<Option<Batch>, ApiError> {
        let due = &mut self.due;
        let steps = self.steps.get_or_insert_with(|| {
            let mut steps: Vec<Due> =
                due.drain().map(|((kind, id, verb), at)| Due { at, verb, kind, id }).collect();
            steps.sort_unstable();
            steps.into_iter()
        });
        for due in steps {
            if let Some(delivery) = redelivery(api, &self.shop, &due, self.until).await? {
                return Ok(Some(Batch { deliveries: vec![delivery], ..Batch::default() }));
            }
        }
        let Some(mut places) = self.places.take() else { return Ok(None) };
        for topic in &self.topics {
            places.reach(topic, self.from, self.until);
        }
        let bookmark = Some(Bookmark { next: places.written(), ..Bookmark::default() });
        Ok(Some(Batch { bookmark, ..Batch::default() }))
    }
}

/// What a delivery would have told, as it is now; `None` where it was deleted since, or changed after `until`: the provider still tries
/// to tell of that change, which would become a second event.
async fn redelivery(api: &Api, shop: &str, due: &Due, until: i64) -> Result<Option<Redelivery>, ApiError> {
    let Some(kind) = KINDS.get(due.kind) else { return Ok(None) };
    let (body, as_of) = if due.verb == Verb::Delete {
        (Bytes::from(format!(r#"{{"id":{}}}"#, due.id)), due.at)
    } else {
        let path = format!("/{}/{}.json", kind.name, due.id);
        let answer = match api.call(Method::GET, &path, None).await {
            Err(ApiError::Refused { status: 404, .. }) => return Ok(None),
            answer => answer?,
        };
        let root = json::parse(&answer.body).map_err(ApiError::Strange)?;
        let thing = root.get(&Pointer::of(kind.one)).filter(|thing| number(*thing, "/id") == Some(due.id));
        let thing = thing.ok_or(ApiError::Strange("another thing than the one that was asked for"))?;
        let updated = at(thing, "/updated_at").ok_or(ApiError::Strange("a thing without its time"))?;
        if due.verb == Verb::Change && updated > until {
            return Ok(None);
        }
        // There is one creation, and a state for each change.
        let as_of = if due.verb == Verb::Create { due.at } else { updated };
        (Bytes::copy_from_slice(thing.text().as_bytes()), as_of)
    };
    let topic = kind.topic(due.verb);
    let time = jiff::Timestamp::from_microsecond(as_of).unwrap_or_default().to_string();
    let mut headers = json_headers();
    insert(&mut headers, "x-shopify-event-id", &format!("headgate:{topic}:{}:{time}", due.id));
    insert(&mut headers, "x-shopify-topic", &topic);
    insert(&mut headers, "x-shopify-shop-domain", shop);
    insert(&mut headers, "x-shopify-api-version", VERSION);
    insert(&mut headers, "x-shopify-triggered-at", &time);
    Ok(Some(Redelivery { headers, body }))
}

fn number(value: Value<'_>, pointer: &str) -> Option<u64> {
    text(value, pointer)?.parse().ok()
}

fn at(value: Value<'_>, pointer: &str) -> Option<i64> {
    text(value, pointer).as_deref().and_then(time)
}
