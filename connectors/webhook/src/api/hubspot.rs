//! HubSpot: one URL and a list of subscriptions for a whole app (`/webhooks/v3/{appId}`), opened by the developer account's key.
//! They sign with the app's client secret.
//!
//! There is no list of what was not delivered. What happened is read off the CRM instead, with another token, one of the account:
//! creations and changes of properties from the objects that were modified (search, then batch read with history), deletions from
//! the archived ones.
//!
//! # Duplicates
//! A delivery's `eventId` cannot be known. What is found has one that is made of what happened, under subscription 0, and is left
//! out where the stream shows that it arrived: that the object was made, that it was deleted no earlier, or that the property took
//! that value a minute earlier or later at most. Each event answers for one change only.

use super::{
    Api, ApiError, Batch, Bookmark, Chain, Hook, MISSED, OVERLAP, Redelivery, Seen, Since, Wish,
    json as json_headers, list, places::Places, text,
};
use crate::{
    json::{self, Value},
    mapping::time,
};
use bytes::Bytes;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::Method;
use serde_json::json as object;
use std::{borrow::Cow, collections::HashMap, time::Duration};

/// HubSpot tries ten times in 24 hours; some minutes more for what is under way.
pub(super) const PATIENCE: Duration = Duration::from_secs(24 * 3600 + 600);

/// How far the CRM's time of something and a delivery's may be apart, in microseconds.
const APART: i64 = 60_000_000;

/// Most bytes of values that are held at a time.
const HELD: usize = 64 << 20;

/// Most objects of one read with their history.
const READ: usize = 50;

/// Settings and subscriptions of the app, which the token's parameter opens.
const KEY: &str = "hapikey";

fn app(target: &str) -> Result<String, ApiError> {
    if !target.is_empty() && target.len() < 20 && target.bytes().all(|byte| byte.is_ascii_digit()) {
        Ok(format!("/webhooks/v3/{target}"))
    } else {
        Err(ApiError::Target(target.to_owned()))
    }
}

/// The app's subscriptions, if it calls this URL and has one for each event.
pub(super) async fn find(api: &Api, wish: &Wish<'_>) -> Result<Option<Hook>, ApiError> {
    let wanted = wanted(wish)?;
    if called(api, wish).await?.as_deref() != Some(wish.url) {
        return Ok(None);
    }
    let there = subscriptions(api, wish).await?;
    let all = wanted.iter().all(|wanted| there.get(wanted).is_some_and(|(_, active)| *active));
    Ok(all.then(|| hook(wish)))
}

/// Sets the app's URL where it has none, and subscribes to what is not subscribed to.
pub(super) async fn make(api: &Api, wish: &Wish<'_>) -> Result<Hook, ApiError> {
    let wanted = wanted(wish)?;
    let path = app(wish.target)?;
    match called(api, wish).await? {
        Some(url) if url == wish.url => {}
        Some(url) => return Err(ApiError::Taken(url)),
        None => {
            let settings = object!({
                "targetUrl": wish.url, "throttling": { "period": "SECONDLY", "maxConcurrentRequests": 10 },
            });
            let body = Some(("application/json", settings.to_string()));
            api.call_with_key(Method::PUT, &format!("{path}/settings"), KEY, body).await?;
        }
    }
    let there = subscriptions(api, wish).await?;
    for wanted in wanted {
        match there.get(&wanted) {
            Some((_, true)) => {}
            Some((id, false)) => {
                let body = Some(("application/json", object!({ "active": true }).to_string()));
                api.call_with_key(Method::PATCH, &format!("{path}/subscriptions/{id}"), KEY, body).await?;
            }
            None => {
                let (event, property) = wanted;
                let mut subscription = object!({ "eventType": event, "active": true });
                if let Some(property) = property {
                    subscription["propertyName"] = property.into();
                }
                let body = Some(("application/json", subscription.to_string()));
                api.call_with_key(Method::POST, &format!("{path}/subscriptions"), KEY, body).await?;
            }
        }
    }
    Ok(hook(wish))
}

/// The app is the webhook.
fn hook(wish: &Wish<'_>) -> Hook {
    Hook { id: wish.target.to_owned(), ..Hook::default() }
}

/// The URL that the app calls.
async fn called(api: &Api, wish: &Wish<'_>) -> Result<Option<String>, ApiError> {
    let path = format!("{}/settings", app(wish.target)?);
    match api.call_with_key(Method::GET, &path, KEY, None).await {
        // An app that calls nothing has no settings.
        Err(ApiError::Refused { status: 404, .. }) => Ok(None),
        answer => {
            let body = answer?.body;
            let root = json::parse(&body).map_err(ApiError::Strange)?;
            Ok(text(root, "/targetUrl").filter(|url| !url.is_empty()))
        }
    }
}

/// An event's name, and the property where it is about one.
type Event = (String, Option<String>);

/// Id of each subscription, and whether it is active.
async fn subscriptions(api: &Api, wish: &Wish<'_>) -> Result<HashMap<Event, (u64, bool)>, ApiError> {
    let path = format!("{}/subscriptions", app(wish.target)?);
    let answer = api.call_with_key(Method::GET, &path, KEY, None).await?;
    let root = json::parse(&answer.body).map_err(ApiError::Strange)?;
    let found = list(root, "/results", "subscriptions are no list")?.into_iter().map(|subscription| {
        let event = (text(subscription, "/eventType")?, text(subscription, "/propertyName"));
        let active = text(subscription, "/active")? == "true";
        Some((event, (number(subscription, "/id")?, active)))
    });
    found.collect::<Option<_>>().ok_or(ApiError::Strange("a subscription without id or event"))
}

/// The events that were wished for: `contact.creation`, `contact.propertyChange:email`.
fn wanted(wish: &Wish<'_>) -> Result<Vec<Event>, ApiError> {
    if wish.events.is_empty() {
        return Err(ApiError::NoEvents("contact.creation,contact.propertyChange:email"));
    }
    let event = |name: &String| match name.split_once(':') {
        Some((event, property)) if event.ends_with(".propertyChange") && !property.is_empty() => {
            Ok((event.to_owned(), Some(property.to_owned())))
        }
        None if !name.ends_with(".propertyChange") => Ok((name.clone(), None)),
        _ => Err(ApiError::Event(name.clone())),
    };
    wish.events.iter().map(event).collect()
}

/// An object of the CRM whose events can be found: its name in events, in paths, and the property of its last modification.
const OBJECTS: [(&str, &str, &str); 6] = [
    ("contact", "contacts", "lastmodifieddate"),
    ("company", "companies", "hs_lastmodifieddate"),
    ("deal", "deals", "hs_lastmodifieddate"),
    ("ticket", "tickets", "hs_lastmodifieddate"),
    ("product", "products", "hs_lastmodifieddate"),
    ("line_item", "line_items", "hs_lastmodifieddate"),
];

/// The ids by which subscriptions to any kind of object name these.
const TYPES: [(&str, &str); OBJECTS.len()] = [
    ("0-1", "contact"),
    ("0-2", "company"),
    ("0-3", "deal"),
    ("0-5", "ticket"),
    ("0-7", "product"),
    ("0-8", "line_item"),
];

/// An event's name with that of its object: `object.creation` of the type `0-1` is `contact.creation`.
fn specific<'a>(name: &'a str, told: Value<'_>) -> Cow<'a, str> {
    let kind = name.strip_prefix("object.").and_then(|verb| {
        let id = text(told, "/objectTypeId")?;
        let (_, object) = TYPES.iter().find(|(known, _)| *known == id)?;
        Some(format!("{object}.{verb}"))
    });
    kind.map_or(Cow::Borrowed(name), Cow::Owned)
}

/// Something that a delivery should have told.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Due {
    /// When it happened.
    at: i64,
    object: u64,
    event: String,
    /// A property and its new value.
    change: Option<(String, String)>,
    /// Who did it, as HubSpot names them.
    origin: String,
}

/// What should have been told and is not known to have arrived, oldest first.
pub(super) struct Missed {
    portal: u64,
    search: Search,
    due: Vec<Due>,
    /// Where in `due` that is which happened to an object.
    by_object: HashMap<u64, Vec<usize>>,
    /// Which of `due` arrived.
    arrived: Vec<bool>,
    next: usize,
}

/// What is looked for, and how far that went.
#[derive(Clone, Debug, Default)]
struct Search {
    from: i64,
    until: i64,
    /// Names of what is looked for, with the account.
    things: Vec<String>,
    /// Up to where each was looked for; until it is told in the last batch.
    places: Option<Places>,
}

/// What is asked of one kind of object.
#[derive(Default)]
struct Question {
    creation: bool,
    deletion: bool,
    properties: Vec<String>,
}

impl Missed {
    pub(super) async fn find(
        api: &Api,
        wish: &Wish<'_>,
        bookmark: &Bookmark,
        since: Since,
    ) -> Result<Self, ApiError> {
        let mut questions: [Question; OBJECTS.len()] = Default::default();
        for (event, property) in wanted(wish)? {
            let (object, verb) = event.split_once('.').unwrap_or((&event, ""));
            let known = OBJECTS.iter().position(|(name, ..)| *name == object);
            let question = known.and_then(|index| questions.get_mut(index));
            match (question, verb, property) {
                (Some(question), "creation", None) => question.creation = true,
                (Some(question), "deletion", None) => question.deletion = true,
                (Some(question), "propertyChange", Some(property)) => question.properties.push(property),
                _ => return Err(ApiError::Event(event)),
            }
        }
        let answer = api.call(Method::GET, "/account-info/v3/details", None).await?;
        let root = json::parse(&answer.body).map_err(ApiError::Strange)?;
        let portal = number(root, "/portalId").ok_or(ApiError::Strange("an account without portalId"))?;
        let places = Places::read(&bookmark.next);
        let things: Vec<String> = wish.events.iter().map(|event| format!("{portal}/{event}")).collect();
        let begins = |thing: &String| match since {
            Since::LastRun(first) => places.of(thing).map_or(first, |place| place.saturating_sub(OVERLAP)),
            Since::Time(at) => at,
        };
        let since = things.iter().map(begins).min().unwrap_or(since.time());
        let search = Search { from: since, until: i64::MAX, things, places: Some(places) };
        let mut due = Vec::new();
        for ((name, path, modified), question) in OBJECTS.iter().zip(&questions) {
            if question.creation || !question.properties.is_empty() {
                let objects = modified_since(api, path, modified, since).await?;
                if question.creation {
                    due.extend(objects.iter().filter(|(_, created)| *created >= since).map(
                        |(object, created)| Due {
                            at: *created,
                            object: *object,
                            event: format!("{name}.creation"),
                            change: None,
                            origin: String::new(),
                        },
                    ));
                }
                if !question.properties.is_empty() {
                    for some in objects.chunks(READ) {
                        changes(api, (name, path), &question.properties, some, since, &mut due).await?;
                    }
                }
            }
            if question.deletion {
                deletions(api, (name, path), since, &mut due).await?;
            }
            if due.len() > MISSED {
                return Err(ApiError::TooMany(MISSED));
            }
        }
        Ok(Self::of(portal, search, due))
    }

    fn of(portal: u64, search: Search, mut due: Vec<Due>) -> Self {
        due.sort_unstable();
        due.dedup();
        let mut by_object: HashMap<u64, Vec<usize>> = HashMap::new();
        for (index, due) in due.iter().enumerate() {
            by_object.entry(due.object).or_default().push(index);
        }
        Self { portal, search, arrived: vec![false; due.len()], due, by_object, next: 0 }
    }

    /// From when on things are looked at.
    pub(super) fn begins(&self) -> i64 {
        self.search.from
    }

    /// Before anything was [`seen`](Self::seen).
    pub(super) fn settle(&mut self, until: i64) {
        let due = std::mem::take(&mut self.due).into_iter().filter(|due| due.at <= until).collect();
        *self = Self::of(self.portal, Search { until, ..std::mem::take(&mut self.search) }, due);
    }

    pub(super) fn seen(&mut self, event: &Seen<'_>) {
        let Some(name) = event.event_type.strip_prefix("com.hubspot.") else { return };
        let Ok(told) = json::parse(event.data) else { return };
        let name = specific(name, told);
        let (Some(object), Some(at)) = (number(told, "/objectId"), at(told, "/occurredAt")) else { return };
        let change = text(told, "/propertyName")
            .map(|property| (property, text(told, "/propertyValue").unwrap_or_default()));
        let due = &self.due;
        let arrived = &self.arrived;
        let same = self.by_object.get(&object).into_iter().flatten().copied().filter_map(|index| {
            let due = due.get(index).filter(|due| due.event == name && due.change == change)?;
            Some((due.at.abs_diff(at), index))
                .filter(|_| due.told_at(at) && arrived.get(index) == Some(&false))
        });
        let nearest = same.min();
        if let Some(arrived) = nearest.and_then(|(_, index)| self.arrived.get_mut(index)) {
            *arrived = true;
        }
    }

    pub(super) fn next(&mut self) -> Option<Batch> {
        while let (Some(due), Some(arrived)) = (self.due.get(self.next), self.arrived.get(self.next)) {
            self.next += 1;
            if !arrived {
                let delivery = due.redelivery(self.portal);
                return Some(Batch { deliveries: vec![delivery], ..Batch::default() });
            }
        }
        let mut places = self.search.places.take()?;
        for thing in &self.search.things {
            places.reach(thing, self.search.from, self.search.until);
        }
        let bookmark = Some(Bookmark { next: places.written(), ..Bookmark::default() });
        Some(Batch { bookmark, ..Batch::default() })
    }
}

impl Due {
    /// Whether an event that tells of this, and says that it happened at a time, may be about this very time.
    fn told_at(&self, at: i64) -> bool {
        if self.change.is_some() {
            self.at.abs_diff(at) <= APART.unsigned_abs()
        } else if self.event.ends_with(".deletion") {
            // It may have been deleted and restored before.
            at >= self.at.saturating_sub(APART)
        } else {
            // An object is made once, and the CRM lets its users say when.
            true
        }
    }

    /// A delivery of it alone.
    fn redelivery(&self, portal: u64) -> Redelivery {
        let mut event = object!({
            "eventId": self.event_id(), "subscriptionId": 0, "portalId": portal, "occurredAt": self.at / 1000,
            "subscriptionType": self.event, "attemptNumber": 0, "objectId": self.object, "reconciled": true,
        });
        if let Some((property, value)) = &self.change {
            event["propertyName"] = property.as_str().into();
            event["propertyValue"] = value.as_str().into();
        }
        if !self.origin.is_empty() {
            event["changeSource"] = self.origin.as_str().into();
        }
        Redelivery { headers: json_headers(), body: Bytes::from(format!("[{event}]")) }
    }

    /// A number that says what happened, and never anything else that happened to this object: 53 bits, so that every reader of
    /// JSON can hold it.
    fn event_id(&self) -> u64 {
        let (property, value) = self.change.as_ref().map_or(("", ""), |(name, value)| (name, value));
        let text = format!("{}\0{}\0{property}\0{value}", self.event, self.at);
        let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
        hash.as_ref().iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte)) >> 11
    }
}

/// The objects of a kind that were modified, each with its creation.
async fn modified_since(
    api: &Api,
    path: &str,
    modified: &str,
    since: i64,
) -> Result<Vec<(u64, i64)>, ApiError> {
    let mut found = Vec::new();
    let (mut after, mut chain) = (String::new(), Chain::default());
    loop {
        chain.follow(&after)?;
        let mut query = object!({
            "filterGroups": [{ "filters": [
                { "propertyName": modified, "operator": "GTE", "value": (since / 1000).to_string() },
            ] }],
            "sorts": [{ "propertyName": modified, "direction": "ASCENDING" }],
            "properties": [modified],
            "limit": 200,
        });
        if !after.is_empty() {
            query["after"] = after.as_str().into();
        }
        let body = Some(("application/json", query.to_string()));
        let answer = api.call(Method::POST, &format!("/crm/v3/objects/{path}/search"), body).await?;
        let root = json::parse(&answer.body).map_err(ApiError::Strange)?;
        for thing in list(root, "/results", "objects are no list")? {
            let created = at(thing, "/createdAt");
            found.push(
                number(thing, "/id").zip(created).ok_or(ApiError::Strange("an object without id or time"))?,
            );
        }
        // A search goes no further than this either.
        if found.len() > MISSED || number(root, "/total").is_some_and(|total| total > MISSED as u64) {
            return Err(ApiError::TooMany(MISSED));
        }
        match text(root, "/paging/next/after").filter(|next| !next.is_empty()) {
            Some(next) => after = next,
            None => return Ok(found),
        }
    }
}

/// The values that properties of some objects took.
async fn changes(
    api: &Api,
    (name, path): (&str, &str),
    properties: &[String],
    objects: &[(u64, i64)],
    since: i64,
    due: &mut Vec<Due>,
) -> Result<(), ApiError> {
    let inputs: Vec<_> = objects.iter().map(|(id, _)| object!({ "id": id.to_string() })).collect();
    let query = object!({ "propertiesWithHistory": properties, "properties": [], "inputs": inputs });
    let body = Some(("application/json", query.to_string()));
    let answer = api.call(Method::POST, &format!("/crm/v3/objects/{path}/batch/read"), body).await?;
    let root = json::parse(&answer.body).map_err(ApiError::Strange)?;
    for thing in list(root, "/results", "objects are no list")? {
        let object = number(thing, "/id").ok_or(ApiError::Strange("an object without an id"))?;
        for property in properties {
            let pointer =
                format!("/propertiesWithHistory/{}", property.replace('~', "~0").replace('/', "~1"));
            // A property that never had a value has no history.
            for version in list(thing, &pointer, "").unwrap_or_default() {
                let at = at(version, "/timestamp").ok_or(ApiError::Strange("a version without its time"))?;
                if at >= since {
                    let value = text(version, "/value").unwrap_or_default();
                    due.push(Due {
                        at,
                        object,
                        event: format!("{name}.propertyChange"),
                        change: Some((property.clone(), value)),
                        origin: text(version, "/sourceType").unwrap_or_default(),
                    });
                }
            }
        }
    }
    let held: usize = due.iter().filter_map(|due| due.change.as_ref()).map(|(_, value)| value.len()).sum();
    if due.len() > MISSED || held > HELD { Err(ApiError::TooMany(due.len().min(MISSED))) } else { Ok(()) }
}

/// The objects that were deleted: all that are archived have to be looked through, as they are listed by id.
async fn deletions(
    api: &Api,
    (name, path): (&str, &str),
    since: i64,
    due: &mut Vec<Due>,
) -> Result<(), ApiError> {
    let (mut after, mut chain) = (String::new(), Chain::default());
    loop {
        chain.follow(&after)?;
        let list_path =
            format!("/crm/v3/objects/{path}?archived=true&limit=100&properties=hs_object_id{after}");
        let answer = api.call(Method::GET, &list_path, None).await?;
        let root = json::parse(&answer.body).map_err(ApiError::Strange)?;
        for thing in list(root, "/results", "objects are no list")? {
            let found = number(thing, "/id").zip(at(thing, "/archivedAt"));
            let (object, at) = found.ok_or(ApiError::Strange("an archived object without id or time"))?;
            if at >= since {
                let event = format!("{name}.deletion");
                due.push(Due { at, object, event, change: None, origin: String::new() });
            }
        }
        if due.len() > MISSED {
            return Err(ApiError::TooMany(MISSED));
        }
        match text(root, "/paging/next/after").filter(|next| !next.is_empty()) {
            Some(next) => after = format!("&after={}", utf8_percent_encode(&next, NON_ALPHANUMERIC)),
            None => return Ok(()),
        }
    }
}

fn number(value: Value<'_>, pointer: &str) -> Option<u64> {
    text(value, pointer)?.parse().ok()
}

fn at(value: Value<'_>, pointer: &str) -> Option<i64> {
    text(value, pointer).as_deref().and_then(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn due(object: u64, event: &str, change: Option<(&str, &str)>) -> Due {
        let change = change.map(|(property, value)| (property.to_owned(), value.to_owned()));
        Due { at: 1_700_000_000_000_000, object, event: event.to_owned(), change, origin: String::new() }
    }

    #[test]
    fn generic_subscriptions_tell_of_the_same_events() {
        let all = [
            due(1, "contact.creation", None),
            due(2, "line_item.propertyChange", Some(("price", "9"))),
            due(3, "ticket.deletion", None),
            due(4, "deal.creation", None),
        ];
        let mut missed = Missed::of(7, Search::default(), all.to_vec());
        let told = [
            ("creation", r#"{"objectTypeId":"0-1","objectId":1,"occurredAt":1700000000000}"#),
            (
                "propertyChange",
                r#"{"objectTypeId":"0-8","objectId":2,"occurredAt":1700000000000,"propertyName":"price","propertyValue":"9"}"#,
            ),
            ("deletion", r#"{"objectTypeId":"0-5","objectId":3,"occurredAt":1700000000000}"#),
            // A company of the same id is another object.
            ("creation", r#"{"objectTypeId":"0-2","objectId":4,"occurredAt":1700000000000}"#),
        ];
        for (verb, data) in told {
            missed.seen(&Seen { event_type: &format!("com.hubspot.object.{verb}"), data: data.as_bytes() });
        }
        let arrived: Vec<u64> = missed
            .due
            .iter()
            .zip(&missed.arrived)
            .filter(|(_, arrived)| **arrived)
            .map(|(due, _)| due.object)
            .collect();
        assert_eq!(arrived, [1, 2, 3]);
    }
}
