//! The providers' own APIs: making a webhook there, and finding what it never delivered.
//!
//! # Duplicates
//! Making a webhook begins with looking for it, so a second time changes nothing. What is found missing comes in by the front
//! door: it is signed with the endpoint's own secret and posted to the gateway, under the id that the provider's own delivery
//! has. So everything that holds for a delivery holds for it, de-duplication by id included, and nothing is published beside
//! the gateway.
//!
//! Where the API does not tell that id ([`patience`]), what is found has one of its own, made of what it is, and the stream is asked
//! first: [`Missed::seen`] takes away what arrived. It holds what the provider's own delivery would have told.
//!
//! # Order
//! [`Missed`] gives the oldest first, and its caller posts one after the other.
//!
//! # Memory
//! A page is at most `client::ANSWER` bytes. What is missing is named by up to [`MISSED`] ids, and more than that is said to
//! be too much, instead of being cut; contents are fetched one by one, or page by page. Only Stripe lists whole events: those
//! are held until the oldest, which comes last, is known. What is compared with the stream is held by name and time, and by value
//! where a provider's delivery holds nothing else.

mod airtable;
mod arrived;
mod client;
mod drive;
mod github;
mod hubspot;
mod places;
mod retry;
mod salesforce;
mod shopify;
mod slack;
mod stripe;
mod zendesk;

use crate::{
    Secret,
    json::{Pointer, Value},
};
use arrived::{Arrived, State};
use bytes::Bytes;
use client::Chain;
pub use client::{Api, ApiError};
use http::{HeaderMap, HeaderName, HeaderValue, header};
pub use retry::{PATIENCE, TRIES, retry_after};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Most missed deliveries of one run.
pub const MISSED: usize = 10_000;

/// A webhook is made anew, or extended, when less than this is left of it: three days, in microseconds.
const RENEW: i64 = 3 * 24 * 3600 * 1_000_000;

/// Which webhook is meant.
#[derive(Clone, Copy, Debug)]
pub struct Wish<'a> {
    /// Where at the provider: `owner/repository`, a base, a shop; as the provider's file says.
    pub target: &'a str,
    /// The URL that it calls.
    pub url: &'a str,
    /// The events, in the provider's names, where they have to be named; for what is missing, the things that are looked through.
    pub events: &'a [String],
}

/// A webhook at the provider.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hook {
    /// The provider's id of it.
    pub id: String,
    /// The secret that the provider chose, where it says it.
    pub secret: Option<Secret>,
    /// When it ends by itself, in microseconds since 1970-01-01 UTC.
    pub expires: Option<i64>,
}

/// How much of the time before the end of the last run is looked at again, in microseconds: what has just happened may not be found at
/// once. What was posted then is in the stream now.
const OVERLAP: i64 = 15 * 60 * 1_000_000;

/// What has to be remembered between two runs: of a webhook what its provider would not say again, and how far a search went. Nothing in
/// it is secret.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Bookmark {
    /// The webhook that it is about.
    pub hook: String,
    /// Where the next page of what happened begins, in the provider's own terms; or up to when each thing was searched.
    pub next: String,
    /// Google Drive's id of what the channel watches.
    pub resource: String,
    /// The URL that the channel calls.
    pub url: String,
    /// When the channel ends, in microseconds since 1970-01-01 UTC.
    pub expires: i64,
}

/// From when on things are looked for, in microseconds since 1970-01-01 UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since {
    /// From where the last run ended, as the bookmark says; from this time on where none has.
    LastRun(i64),
    /// From this time on, whatever the bookmark says. It is not moved back by that.
    Time(i64),
}

impl Since {
    fn time(self) -> i64 {
        match self {
            Self::LastRun(time) | Self::Time(time) => time,
        }
    }
}

/// A delivery that never arrived, to be signed and posted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redelivery {
    /// Its headers, without a signature.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

/// Some of what was not delivered, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// What has to be posted.
    pub deliveries: Vec<Redelivery>,
    /// How many the provider itself was asked to deliver again, because it does not tell what was in them.
    pub asked: usize,
    /// How many the provider neither tells the content of nor delivers again.
    pub untold: usize,
    /// How many the provider had dropped from its log before anybody read them.
    pub dropped: u64,
    /// What has to be remembered when all of them were posted.
    pub bookmark: Option<Bookmark>,
}

/// What was not delivered, a batch at a time.
pub struct Missed<'a> {
    api: &'a Api,
    rest: Rest,
}

enum Rest {
    Github(github::Missed),
    Stripe(Option<Vec<Bytes>>),
    Airtable(airtable::Payloads),
    Drive(drive::Pages),
    Salesforce(salesforce::Objects),
    Slack(slack::Conversations),
    Shopify(shopify::Missed),
    Zendesk(zendesk::Missed),
    Hubspot(hubspot::Missed),
}

/// An event that is in the stream.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// Its `type`.
    pub event_type: &'a str,
    /// Its `data`, which is JSON.
    pub data: &'a [u8],
}

/// For how long a provider itself goes on trying to deliver, where its API does not tell under which id: what is younger may still
/// come by itself, and older events have to be looked for in the stream ([`Missed::seen`]) because no id tells them apart.
#[must_use]
pub fn patience(provider: &str) -> Option<Duration> {
    match provider {
        "hubspot" => Some(hubspot::PATIENCE),
        "salesforce" => Some(salesforce::PATIENCE),
        "shopify" => Some(shopify::PATIENCE),
        "slack" => Some(slack::PATIENCE),
        _ => None,
    }
}

/// What is younger than this has to be left out of a search in any case, where the provider has [`patience`]: it may not show yet.
#[must_use]
pub fn settled(provider: &str) -> Duration {
    match provider {
        "salesforce" => salesforce::SETTLED,
        _ => Duration::ZERO,
    }
}

/// What a bookmark is about, beside its source, so that two targets do not share one: a base, a drive, a shop, an organization. Empty
/// where the bookmark itself names what it is about: Slack's channels, HubSpot's accounts. `host` is where the API is, if not at the
/// provider's usual place.
#[must_use]
pub fn bookmark_of(provider: &str, target: &str, host: Option<&str>) -> String {
    match provider {
        "airtable" | "google-drive" | "shopify" => target.to_owned(),
        // A sandbox has no other name.
        "salesforce" => host.unwrap_or(target).to_owned(),
        _ => String::new(),
    }
}

/// The webhook that calls the URL already.
///
/// # Errors
/// The provider has no such API here, refuses, or cannot be reached.
pub async fn find(
    provider: &str,
    api: &Api,
    wish: &Wish<'_>,
    bookmark: &Bookmark,
) -> Result<Option<Hook>, ApiError> {
    match provider {
        "airtable" => airtable::find(api, wish).await,
        "github" => github::find(api, wish).await,
        "google-drive" => Ok(drive::find(wish, bookmark)),
        "hubspot" => hubspot::find(api, wish).await,
        "shopify" => shopify::find(api, wish).await,
        "slack" => slack::find(api, wish).await,
        "stripe" => stripe::find(api, wish).await,
        "zendesk" => zendesk::find(api, wish).await,
        _ => Err(ApiError::Unknown),
    }
}

/// Makes a webhook that signs with `secret`, or with one that the provider chooses; `bookmark` has to be kept afterwards.
///
/// # Errors
/// The provider has no such API here, refuses, or cannot be reached.
pub async fn make(
    provider: &str,
    api: &Api,
    wish: &Wish<'_>,
    secret: &Secret,
    bookmark: &mut Bookmark,
) -> Result<Hook, ApiError> {
    match provider {
        "airtable" => airtable::make(api, wish).await,
        "github" => github::make(api, wish, secret).await,
        "google-drive" => drive::make(api, wish, secret, bookmark).await,
        "hubspot" => hubspot::make(api, wish).await,
        "shopify" => shopify::make(api, wish).await,
        "slack" => slack::make(api, wish).await,
        "stripe" => stripe::make(api, wish).await,
        "zendesk" => zendesk::make(api, wish).await,
        _ => Err(ApiError::Unknown),
    }
}

/// Extends a webhook that would end soon, or makes another in its place; `None` where that is not due at `now` (microseconds
/// since 1970-01-01 UTC).
///
/// # Errors
/// The provider refuses, or cannot be reached.
pub async fn renew(
    provider: &str,
    api: &Api,
    wish: &Wish<'_>,
    hook: &Hook,
    secret: &Secret,
    bookmark: &mut Bookmark,
    now: i64,
) -> Result<Option<Hook>, ApiError> {
    if hook.expires.is_none_or(|expires| expires > now.saturating_add(RENEW)) {
        return Ok(None);
    }
    match provider {
        "airtable" => airtable::renew(api, wish, hook).await.map(Some),
        "google-drive" => drive::make(api, wish, secret, bookmark).await.map(Some),
        _ => Ok(None),
    }
}

impl<'a> Missed<'a> {
    /// Looks for what was not delivered. A log is read from where the bookmark says, whatever `since`.
    ///
    /// # Errors
    /// The provider has no such API here, refuses, cannot be reached, or there is more than [`MISSED`].
    pub async fn find(
        provider: &str,
        api: &'a Api,
        wish: &Wish<'_>,
        bookmark: &Bookmark,
        since: Since,
    ) -> Result<Self, ApiError> {
        let time = since.time();
        let rest = match provider {
            "airtable" => Rest::Airtable(airtable::Payloads::new(api, wish, bookmark).await?),
            "github" => Rest::Github(github::Missed::find(api, wish, time).await?),
            "google-drive" => Rest::Drive(drive::Pages::new(wish, bookmark)?),
            "salesforce" => Rest::Salesforce(salesforce::Objects::new(wish, bookmark, since)?),
            "slack" => Rest::Slack(slack::Conversations::new(api, wish, bookmark, since).await?),
            "hubspot" => Rest::Hubspot(hubspot::Missed::find(api, wish, bookmark, since).await?),
            "shopify" => Rest::Shopify(shopify::Missed::find(api, wish, bookmark, since).await?),
            "stripe" => Rest::Stripe(Some(stripe::missed(api, time).await?)),
            "zendesk" => Rest::Zendesk(zendesk::Missed::find(api, wish, time).await?),
            _ => return Err(ApiError::Unknown),
        };
        Ok(Self { api, rest })
    }

    /// From when on things are looked at, in microseconds since 1970-01-01 UTC, where the provider has [`patience`]; by the bookmark it
    /// may be long ago.
    #[must_use]
    pub fn begins(&self) -> Option<i64> {
        match &self.rest {
            Rest::Hubspot(missed) => Some(missed.begins()),
            Rest::Salesforce(objects) => Some(objects.begins()),
            Rest::Shopify(missed) => Some(missed.begins()),
            Rest::Slack(conversations) => Some(conversations.begins()),
            _ => None,
        }
    }

    /// Leaves out what happened after `until`, in microseconds since 1970-01-01 UTC; where the provider has [`patience`].
    pub fn settle(&mut self, until: i64) {
        match &mut self.rest {
            Rest::Hubspot(missed) => missed.settle(until),
            Rest::Salesforce(objects) => objects.settle(until),
            Rest::Shopify(missed) => missed.settle(until),
            Rest::Slack(conversations) => conversations.settle(until),
            _ => {}
        }
    }

    /// Leaves out what an event of the stream shows to have arrived; where the provider has [`patience`].
    pub fn seen(&mut self, event: &Seen<'_>) {
        match &mut self.rest {
            Rest::Hubspot(missed) => missed.seen(event),
            Rest::Salesforce(objects) => objects.seen(event),
            Rest::Shopify(missed) => missed.seen(event),
            Rest::Slack(conversations) => conversations.seen(event),
            _ => {}
        }
    }

    /// The next batch; `None` when there is nothing more.
    ///
    /// # Errors
    /// The provider refuses, or cannot be reached.
    pub async fn next(&mut self) -> Result<Option<Batch>, ApiError> {
        match &mut self.rest {
            Rest::Github(missed) => missed.next(self.api).await,
            Rest::Stripe(events) => Ok(events.take().map(|events| Batch {
                deliveries: events.into_iter().map(|body| Redelivery { headers: json(), body }).collect(),
                ..Batch::default()
            })),
            Rest::Airtable(payloads) => payloads.next(self.api).await,
            Rest::Drive(pages) => pages.next(self.api).await,
            Rest::Salesforce(objects) => objects.next(self.api).await,
            Rest::Slack(conversations) => conversations.next(self.api).await,
            Rest::Shopify(missed) => missed.next(self.api).await,
            Rest::Zendesk(missed) => missed.next(self.api).await,
            Rest::Hubspot(missed) => Ok(missed.next()),
        }
    }
}

/// The headers of JSON.
fn json() -> HeaderMap {
    HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))])
}

/// Adds a header whose value came from outside; one that could not be a header's is left out.
fn insert(headers: &mut HeaderMap, name: &'static str, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(HeaderName::from_static(name), value);
    }
}

/// A scalar at a pointer.
fn text(value: Value<'_>, pointer: &str) -> Option<String> {
    let pointer = Pointer::parse(pointer).ok()?;
    value.get(&pointer)?.scalar().map(std::borrow::Cow::into_owned)
}

/// The elements of a list at a pointer.
fn list<'a>(value: Value<'a>, pointer: &str, strange: &'static str) -> Result<Vec<Value<'a>>, ApiError> {
    let pointer = Pointer::parse(pointer).map_err(|_| ApiError::Strange(strange))?;
    value.get(&pointer).and_then(Value::elements).ok_or(ApiError::Strange(strange))
}

/// Whether a text can stand in a path as it is.
fn is_word(text: &str) -> bool {
    !text.is_empty()
        && text != "."
        && text != ".."
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}
