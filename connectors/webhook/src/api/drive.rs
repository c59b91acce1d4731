//! Google Drive: `changes.watch` opens a channel that ends after a week at most, and `changes.list` has what its messages only
//! tell of. There is no list of channels, so a [`Bookmark`] remembers the one that was made.

use super::{
    Api, ApiError, Batch, Bookmark, Chain, Hook, Redelivery, Wish, insert, is_word, json as json_headers,
    list, text,
};
use crate::{Secret, json, secret::random};
use bytes::Bytes;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::Method;

/// For how long a channel is asked for, in milliseconds: the longest for changes.
const LIFE: i64 = 7 * 24 * 3600 * 1000;

/// What is asked of every change.
const SCOPE: &str = "includeRemoved=true&includeItemsFromAllDrives=true&supportsAllDrives=true";

pub(super) fn find(wish: &Wish<'_>, bookmark: &Bookmark) -> Option<Hook> {
    (!bookmark.hook.is_empty() && bookmark.url == wish.url).then(|| Hook {
        id: bookmark.hook.clone(),
        secret: None,
        expires: Some(bookmark.expires),
    })
}

/// Opens a channel, from where the last one was read to, and closes the one that was there.
pub(super) async fn make(
    api: &Api,
    wish: &Wish<'_>,
    secret: &Secret,
    bookmark: &mut Bookmark,
) -> Result<Hook, ApiError> {
    let drive = match wish.target {
        "" => String::new(),
        drive if is_word(drive) => format!("&driveId={drive}"),
        other => return Err(ApiError::Target(other.to_owned())),
    };
    if bookmark.next.is_empty() {
        let path = format!("/drive/v3/changes/startPageToken?supportsAllDrives=true{drive}");
        let answer = api.call(Method::GET, &path, None).await?;
        let root = json::parse(&answer.body).map_err(ApiError::Strange)?;
        bookmark.next =
            text(root, "/startPageToken").ok_or(ApiError::Strange("no token of a page to start from"))?;
    }
    let path = format!("/drive/v3/changes/watch?pageToken={}&{SCOPE}{drive}", encoded(&bookmark.next));
    let expires = jiff::Timestamp::now().as_millisecond().saturating_add(LIFE);
    let id = format!("headgate-{:032x}", u128::from_be_bytes(random()?));
    let body = serde_json::json!({
        "id": id, "type": "web_hook", "address": wish.url, "token": secret.expose(), "expiration": expires.to_string(),
    });
    let answer = api.call(Method::POST, &path, Some(("application/json", body.to_string()))).await?;
    let root = json::parse(&answer.body).map_err(ApiError::Strange)?;
    let (Some(resource), Some(expires)) =
        (text(root, "/resourceId"), text(root, "/expiration").and_then(|text| text.parse::<i64>().ok()))
    else {
        return Err(ApiError::Strange("a channel without resourceId or expiration"));
    };
    let old = std::mem::replace(
        bookmark,
        Bookmark {
            hook: id.clone(),
            next: bookmark.next.clone(),
            resource,
            url: wish.url.to_owned(),
            expires: expires.saturating_mul(1000),
        },
    );
    if !old.hook.is_empty() {
        close(api, &old).await;
    }
    Ok(Hook { id, secret: None, expires: Some(bookmark.expires) })
}

/// A channel that cannot be closed ends by itself; until then the same change is told of twice.
async fn close(api: &Api, old: &Bookmark) {
    let body = serde_json::json!({ "id": old.hook, "resourceId": old.resource }).to_string();
    let closed = api.call(Method::POST, "/drive/v3/channels/stop", Some(("application/json", body))).await;
    if let Err(error) = closed {
        tracing::debug!(channel = old.hook, %error, "the old channel was not closed; it ends by itself");
    }
}

fn encoded(token: &str) -> String {
    utf8_percent_encode(token, NON_ALPHANUMERIC).to_string()
}

/// The changes from a bookmark on.
pub(super) struct Pages {
    bookmark: Bookmark,
    drive: String,
    chain: Chain,
    done: bool,
}

impl Pages {
    pub(super) fn new(wish: &Wish<'_>, bookmark: &Bookmark) -> Result<Self, ApiError> {
        if bookmark.next.is_empty() {
            return Err(ApiError::NoHook(wish.url.to_owned()));
        }
        let drive = match wish.target {
            "" => String::new(),
            drive if is_word(drive) => format!("&driveId={drive}"),
            other => return Err(ApiError::Target(other.to_owned())),
        };
        let mut chain = Chain::default();
        chain.follow(&bookmark.next)?;
        Ok(Self { bookmark: bookmark.clone(), drive, chain, done: false })
    }

    pub(super) async fn next(&mut self, api: &Api) -> Result<Option<Batch>, ApiError> {
        if self.done {
            return Ok(None);
        }
        let token = encoded(&self.bookmark.next);
        let path = format!("/drive/v3/changes?pageToken={token}&pageSize=100&fields=*&{SCOPE}{}", self.drive);
        let answer = api.call(Method::GET, &path, None).await?;
        let root = json::parse(&answer.body).map_err(ApiError::Strange)?;
        let changes = list(root, "/changes", "changes are no list")?;
        let (more, last) = (text(root, "/nextPageToken"), text(root, "/newStartPageToken"));
        self.done = more.is_none();
        let next = more.or(last).ok_or(ApiError::Strange("changes without the token of a next page"))?;
        if !self.done {
            self.chain.follow(&next)?;
        }
        self.bookmark.next = next;
        let deliveries = changes.iter().map(|change| {
            let mut headers = json_headers();
            insert(&mut headers, "x-goog-channel-id", &self.bookmark.hook);
            insert(&mut headers, "x-goog-resource-id", &self.bookmark.resource);
            insert(&mut headers, "x-goog-resource-state", "change");
            Redelivery { headers, body: Bytes::copy_from_slice(change.text().as_bytes()) }
        });
        Ok(Some(Batch {
            deliveries: deliveries.collect(),
            bookmark: Some(self.bookmark.clone()),
            ..Batch::default()
        }))
    }
}
