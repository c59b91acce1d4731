//! Slack: an app's manifest says where its events go (`apps.manifest.export`, `apps.manifest.update`), and the conversations
//! themselves have what was written in them (`conversations.history`, `conversations.replies`).
//!
//! Slack keeps no list of what it delivered. A message that is missing is one that the conversation has and the stream has not,
//! and one whose latest edit the stream has not is told as changed. It comes under `CHANNEL:TS`, or `CHANNEL:TS:EDITED`, for the
//! API does not tell the event's id. What was deleted is not in a conversation any more, so nothing tells of it.

use super::{
    Api, ApiError, Arrived, Batch, Bookmark, Chain, Hook, MISSED, Redelivery, Seen, Since, State, Wish,
    is_word, json as json_headers, list, places::Places, text,
};
use crate::{
    json::{self, Value},
    mapping::time,
};
use bytes::Bytes;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::Method;
use std::{collections::VecDeque, ops::RangeInclusive, time::Duration};

/// Slack delivers for the last time after five minutes; some minutes more for what is under way.
pub(super) const PATIENCE: Duration = Duration::from_secs(10 * 60);

/// Most bytes of messages that are held, while those of a conversation are brought into their order.
const HELD: usize = 64 << 20;

const URL: &str = "/settings/event_subscriptions/request_url";
const EVENTS: &str = "/settings/event_subscriptions/bot_events";

/// The app, if its events go to this URL already and the wanted ones are among them.
pub(super) async fn find(api: &Api, wish: &Wish<'_>) -> Result<Option<Hook>, ApiError> {
    let manifest = manifest(api, wish).await?;
    let there = events(&manifest);
    let whole = !there.is_empty() && wish.events.iter().all(|event| there.contains(event));
    let calls = manifest.pointer(URL).and_then(serde_json::Value::as_str) == Some(wish.url);
    Ok((calls && whole).then(|| Hook { id: wish.target.to_owned(), ..Hook::default() }))
}

/// Sends the app's events to this URL; those that it is subscribed to stay. An app whose events go elsewhere is left alone.
pub(super) async fn make(api: &Api, wish: &Wish<'_>) -> Result<Hook, ApiError> {
    let mut manifest = manifest(api, wish).await?;
    let there = manifest.pointer(URL).and_then(serde_json::Value::as_str).unwrap_or_default();
    if !there.is_empty() && there != wish.url {
        return Err(ApiError::Taken(there.to_owned()));
    }
    let mut names = events(&manifest);
    names.extend(wish.events.iter().cloned());
    names.sort_unstable();
    names.dedup();
    if names.is_empty() {
        return Err(ApiError::NoEvents("message.channels"));
    }
    // The update replaces all of it, so it begins with what was there.
    let Some(root) = manifest.as_object_mut() else {
        return Err(ApiError::Strange("a manifest that is no object"));
    };
    let settings = root.entry("settings").or_insert_with(|| serde_json::json!({}));
    let Some(settings) = settings.as_object_mut() else {
        return Err(ApiError::Strange("a manifest whose settings are no object"));
    };
    let subscriptions = settings.entry("event_subscriptions").or_insert_with(|| serde_json::json!({}));
    let Some(subscriptions) = subscriptions.as_object_mut() else {
        return Err(ApiError::Strange("a manifest whose event_subscriptions are no object"));
    };
    subscriptions.insert("request_url".to_owned(), wish.url.into());
    subscriptions.insert("bot_events".to_owned(), names.into());
    let body = serde_json::json!({ "app_id": wish.target, "manifest": manifest.to_string() });
    call(api, Method::POST, "/apps.manifest.update", Some(body)).await?;
    Ok(Hook { id: wish.target.to_owned(), ..Hook::default() })
}

/// The app's manifest.
async fn manifest(api: &Api, wish: &Wish<'_>) -> Result<serde_json::Value, ApiError> {
    if !is_word(wish.target) {
        return Err(ApiError::Target(wish.target.to_owned()));
    }
    let body = serde_json::json!({ "app_id": wish.target });
    let answer = call(api, Method::POST, "/apps.manifest.export", Some(body)).await?;
    let root: serde_json::Value =
        serde_json::from_slice(&answer).map_err(|_| ApiError::Strange("a manifest that is no JSON"))?;
    root.get("manifest").cloned().ok_or(ApiError::Strange("no manifest"))
}

fn events(manifest: &serde_json::Value) -> Vec<String> {
    let events = manifest.pointer(EVENTS).and_then(serde_json::Value::as_array);
    events.into_iter().flatten().filter_map(|event| event.as_str().map(str::to_owned)).collect()
}

/// Calls a method. Slack's refusals come with status 200.
async fn call(
    api: &Api,
    method: Method,
    path: &str,
    body: Option<serde_json::Value>,
) -> Result<Bytes, ApiError> {
    let body = body.map(|body| ("application/json; charset=utf-8", body.to_string()));
    let answer = api.call(method, path, body).await?;
    let root = json::parse(&answer.body).map_err(ApiError::Strange)?;
    if text(root, "/ok").as_deref() == Some("true") {
        return Ok(answer.body);
    }
    let error = text(root, "/error").ok_or(ApiError::Strange("neither ok nor an error"))?;
    match error.as_str() {
        "token_expired"
        | "token_revoked"
        | "invalid_auth"
        | "not_authed"
        | "account_inactive"
        | "not_allowed_token_type" => Err(api.denied(200, &error)),
        "missing_scope" => {
            let needed = text(root, "/needed").unwrap_or_default();
            Err(api.denied(200, &format!("{error}: {needed}")))
        }
        _ => {
            let first = text(root, "/errors/0/message");
            let told = first.map_or_else(|| error.clone(), |first| format!("{error}: {first}"));
            Err(api.refused(200, &told))
        }
    }
}

/// The state that an event of a message tells.
fn state(event: Value<'_>) -> Option<State> {
    if text(event, "/event/type")? != "message" {
        return None;
    }
    let channel = text(event, "/event/channel")?;
    let message = ["/event/message", "/event/previous_message", "/event"];
    let ts = message.iter().find_map(|message| text(event, &format!("{message}/ts")))?;
    let edited = ["/event/message/edited/ts", "/event/edited/ts"];
    let edited = edited.iter().find_map(|edited| text(event, edited));
    // A message that was deleted since is not fetched as it was before.
    let deleted = text(event, "/event/deleted_ts").and_then(|_| text(event, "/event/event_ts"));
    let at = time(deleted.or(edited).as_deref().unwrap_or(&ts))?;
    Some(State { thing: format!("{channel}:{ts}"), at })
}

/// The conversations, one after the other.
pub(super) struct Conversations {
    team: String,
    channels: VecDeque<String>,
    places: Places,
    since: Since,
    latest: i64,
    arrived: Arrived,
}

impl Conversations {
    pub(super) async fn new(
        api: &Api,
        wish: &Wish<'_>,
        bookmark: &Bookmark,
        since: Since,
    ) -> Result<Self, ApiError> {
        let who = call(api, Method::POST, "/auth.test", None).await?;
        let root = json::parse(&who).map_err(ApiError::Strange)?;
        let team = text(root, "/team_id").ok_or(ApiError::Strange("a token of no team"))?;
        let channels = match wish.target {
            "" => joined(api).await?,
            named if named.split(',').all(is_word) => named.split(',').map(str::to_owned).collect(),
            other => return Err(ApiError::Target(other.to_owned())),
        };
        let places = Places::read(&bookmark.next);
        Ok(Self { team, channels, places, since, latest: i64::MAX, arrived: Arrived::default() })
    }

    /// From when on messages are looked at.
    pub(super) fn begins(&self) -> i64 {
        let from = self.channels.iter().map(|channel| self.from(channel));
        from.min().unwrap_or(self.since.time())
    }

    /// Where a conversation is read from: no later than it would be without a bookmark, for a thread has its place by its first message and
    /// gets replies long after.
    fn from(&self, channel: &str) -> i64 {
        self.places.from(channel, self.since).min(self.since.time())
    }

    /// Leaves out what was written after a time, in microseconds since 1970-01-01 UTC.
    pub(super) fn settle(&mut self, until: i64) {
        self.latest = until;
    }

    /// Notes a message of the stream.
    pub(super) fn seen(&mut self, event: &Seen<'_>) {
        if let Some(state) = json::parse(event.data).ok().and_then(state) {
            self.arrived.note(&state);
        }
    }

    /// What is missing of the next conversation.
    pub(super) async fn next(&mut self, api: &Api) -> Result<Option<Batch>, ApiError> {
        self.arrived.whole()?;
        let Some(channel) = self.channels.pop_front() else { return Ok(None) };
        let mut found = Found {
            channel: &channel,
            team: &self.team,
            missing: Vec::new(),
            held: 0,
            threads: Vec::new(),
            left_out: i64::MAX,
        };
        let span = self.from(&channel)..=self.latest;
        let range = format!(
            "channel={channel}&oldest={}&latest={}&inclusive=true&limit=200",
            seconds(*span.start()),
            seconds(*span.end())
        );
        self.read(api, &format!("/conversations.history?{range}"), &span, &mut found).await?;
        for thread in std::mem::take(&mut found.threads) {
            let path = format!("/conversations.replies?{range}&ts={}", encoded(&thread));
            self.read(api, &path, &span, &mut found).await?;
        }
        let mut missing = found.missing;
        missing.sort_unstable_by(|one, other| one.0.cmp(&other.0));
        // A reply that was sent to the channel too is in both lists, and so is a thread's first message.
        missing.dedup_by(|one, other| one.0 == other.0);
        let deliveries = missing.into_iter().map(|(_, body)| Redelivery { headers: json_headers(), body });
        let deliveries = deliveries.collect();
        self.places.reach(&channel, *span.start(), (*span.end()).min(found.left_out.saturating_sub(1)));
        let bookmark = Some(Bookmark { next: self.places.written(), ..Bookmark::default() });
        Ok(Some(Batch { deliveries, bookmark, ..Batch::default() }))
    }

    /// Reads one list to its end.
    async fn read(
        &self,
        api: &Api,
        path: &str,
        span: &RangeInclusive<i64>,
        found: &mut Found<'_>,
    ) -> Result<(), ApiError> {
        let mut cursor = String::new();
        let mut chain = Chain::default();
        loop {
            chain.follow(&cursor)?;
            let page = call(api, Method::GET, &format!("{path}{cursor}"), None).await?;
            let root = json::parse(&page).map_err(ApiError::Strange)?;
            for message in list(root, "/messages", "messages are no list")? {
                found.take(message, &self.arrived, span)?;
            }
            match following(root) {
                Some(next) => cursor = next,
                None => return Ok(()),
            }
        }
    }
}

/// What was found in one conversation.
struct Found<'a> {
    channel: &'a str,
    team: &'a str,
    /// Each with what it is sorted by: when it came to be so, and its id.
    missing: Vec<((i64, String), Bytes)>,
    held: usize,
    /// Messages with replies to be looked at.
    threads: Vec<String>,
    /// From where on the next run has to read: the first message that was left out because its edit is too young, or whose thread it is in.
    left_out: i64,
}

impl Found<'_> {
    fn take(
        &mut self,
        message: Value<'_>,
        arrived: &Arrived,
        range: &RangeInclusive<i64>,
    ) -> Result<(), ApiError> {
        let ts = text(message, "/ts").unwrap_or_default();
        let sent = time(&ts).ok_or(ApiError::Strange("a message without a time"))?;
        let edited = text(message, "/edited/ts");
        let at = edited.as_deref().and_then(time).unwrap_or(sent);
        let latest = text(message, "/latest_reply").as_deref().and_then(time);
        // A reply has the thread's time too, and no replies of its own.
        let replied = latest.is_some_and(|latest| latest >= *range.start());
        if replied && self.threads.iter().all(|known| *known != ts) {
            if self.threads.len() == MISSED {
                return Err(ApiError::TooMany(MISSED));
            }
            self.threads.push(ts.clone());
        }
        let state = State { thing: format!("{}:{ts}", self.channel), at };
        if arrived.has(&state) {
            return Ok(());
        }
        if at > *range.end() && sent <= *range.end() {
            let thread = text(message, "/thread_ts").as_deref().and_then(time);
            let found_by = thread.filter(|thread| range.contains(thread)).unwrap_or(sent);
            if range.contains(&found_by) {
                self.left_out = self.left_out.min(found_by);
            }
        }
        // The first message of an old thread comes along with its replies.
        if !range.contains(&at) {
            return Ok(());
        }
        let (id, body) = self.event(message, &state, edited.as_deref(), arrived.knows(&state.thing))?;
        self.held += body.len();
        if self.missing.len() == MISSED || self.held > HELD {
            return Err(ApiError::TooMany(self.missing.len()));
        }
        self.missing.push(((at, id), body));
        Ok(())
    }

    /// A message as an event of Slack's: as changed, where it came as it was before.
    fn event(
        &self,
        message: Value<'_>,
        state: &State,
        edited: Option<&str>,
        known: bool,
    ) -> Result<(String, Bytes), ApiError> {
        let strange = || ApiError::Strange("a message that is no object");
        let quoted = |text: &str| serde_json::Value::from(text).to_string();
        let (channel, team) = (quoted(self.channel), quoted(self.team));
        let id = edited.map_or_else(|| state.thing.clone(), |edited| format!("{}:{edited}", state.thing));
        let event = match edited.filter(|_| known) {
            Some(edited) => format!(
                r#"{{"type":"message","subtype":"message_changed","channel":{channel},"ts":{at},"event_ts":{at},"message":{}}}"#,
                message.text(),
                at = quoted(edited),
            ),
            None => {
                let members = message.members().ok_or_else(strange)?;
                let mut event = String::from("{");
                for (name, value) in members.into_iter().filter(|(name, _)| name != "channel") {
                    event.push_str(&format!("{}:{},", quoted(&name), value.text()));
                }
                format!("{event}\"channel\":{channel}}}")
            }
        };
        let body = format!(
            r#"{{"team_id":{team},"type":"event_callback","event_id":{},"event_time":{},"fetched":"history","event":{event}}}"#,
            quoted(&id),
            state.at / 1_000_000,
        );
        Ok((id, Bytes::from(body)))
    }
}

/// The conversations that the token's owner is in.
async fn joined(api: &Api) -> Result<VecDeque<String>, ApiError> {
    let path = "/users.conversations?types=public_channel,private_channel&exclude_archived=true&limit=200";
    let mut found = VecDeque::new();
    let mut cursor = String::new();
    let mut chain = Chain::default();
    loop {
        chain.follow(&cursor)?;
        let page = call(api, Method::GET, &format!("{path}{cursor}"), None).await?;
        let root = json::parse(&page).map_err(ApiError::Strange)?;
        for channel in list(root, "/channels", "conversations are no list")? {
            let id = text(channel, "/id").filter(|id| is_word(id));
            found.push_back(id.ok_or(ApiError::Strange("a conversation without an id"))?);
        }
        match following(root) {
            Some(next) => cursor = next,
            None => return Ok(found),
        }
    }
}

/// The parameter that asks for the page after this one.
fn following(root: Value<'_>) -> Option<String> {
    let next = text(root, "/response_metadata/next_cursor").filter(|next| !next.is_empty());
    next.map(|next| format!("&cursor={}", encoded(&next)))
}

/// A time as Slack writes it: seconds, with six digits behind the point.
fn seconds(micros: i64) -> String {
    let micros = micros.max(0);
    format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000)
}

fn encoded(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}
