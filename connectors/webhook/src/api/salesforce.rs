//! Salesforce: the records of an object that were saved or deleted since, by `queryAll` over `SystemModstamp`, and their fields by
//! sObject Collections. Deleted records are told for as long as the recycle bin keeps them (15 days).
//!
//! An outbound message has an id that the API does not tell, and holds a record's latest state. So what is missing is a record whose
//! latest state the stream has not; it comes in the form of an outbound message, under `ID:SYSTEMMODSTAMP`. Outbound messages never
//! tell of a delete; this does, as `deleted`.
//!
//! # Order
//! Each object's records by `SystemModstamp`, one object after the other.

use super::{
    Api, ApiError, Arrived, Batch, Bookmark, Chain, Redelivery, Seen, Since, State, Wish, list,
    places::Places, text,
};
use crate::{
    json::{self, Value},
    mapping::time,
};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, header};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::Method;
use std::{
    collections::{BTreeMap, VecDeque},
    fmt::Write as _,
    time::Duration,
};

const VERSION: &str = "/services/data/v65.0";

/// Salesforce tries to deliver for 24 hours; some minutes more for what is under way.
pub(super) const PATIENCE: Duration = Duration::from_secs(24 * 3600 + 600);

/// A transaction may run for ten minutes, and its records show only then, with the times at which they were written: a run that
/// looked at younger ones would note that it had read a time of which more is to come.
pub(super) const SETTLED: Duration = Duration::from_secs(15 * 60);

/// Records whose fields are asked for at once.
const CHUNK: usize = 100;

/// A record that was found.
struct Row {
    id: String,
    deleted: bool,
    /// `SystemModstamp`.
    at: i64,
}

/// The objects, one after the other.
pub(super) struct Objects {
    left: VecDeque<String>,
    current: Option<Walk>,
    places: Places,
    since: Since,
    until: i64,
    arrived: Arrived,
}

/// One object on its way.
struct Walk {
    object: String,
    from: i64,
    fields: Vec<String>,
    /// The path of the next page.
    page: Option<String>,
    chain: Chain,
    rows: VecDeque<Row>,
}

impl Objects {
    pub(super) fn new(wish: &Wish<'_>, bookmark: &Bookmark, since: Since) -> Result<Self, ApiError> {
        if wish.events.is_empty() {
            return Err(ApiError::NoEvents("Account"));
        }
        if let Some(bad) = wish.events.iter().find(|object| !is_name(object)) {
            return Err(ApiError::Target(bad.clone()));
        }
        Ok(Self {
            left: wish.events.iter().cloned().collect(),
            current: None,
            places: Places::read(&bookmark.next),
            since,
            until: 0,
            arrived: Arrived::default(),
        })
    }

    /// Leaves out what was saved after a time, in microseconds since 1970-01-01 UTC.
    pub(super) fn settle(&mut self, until: i64) {
        // Salesforce counts seconds, and one that is over gets no more.
        self.until = until / 1_000_000 * 1_000_000;
    }

    /// Notes a record of the stream.
    pub(super) fn seen(&mut self, event: &Seen<'_>) {
        if let Some(state) = json::parse(event.data).ok().and_then(state) {
            self.arrived.note(&state);
        }
    }

    /// From when on records are looked at.
    pub(super) fn begins(&self) -> i64 {
        let from = self.left.iter().map(|object| self.places.from(object, self.since));
        from.min().unwrap_or(self.since.time())
    }

    /// Some of the records that are missing.
    pub(super) async fn next(&mut self, api: &Api) -> Result<Option<Batch>, ApiError> {
        self.arrived.whole()?;
        let mut walk = match self.current.take() {
            Some(walk) => walk,
            None => match self.left.pop_front() {
                Some(object) => {
                    let from = self.places.from(&object, self.since);
                    Walk::new(api, object, from, self.until).await?
                }
                None => return Ok(None),
            },
        };
        if walk.rows.is_empty() {
            walk.turn(api).await?;
        }
        let rows: Vec<Row> = walk.rows.drain(..walk.rows.len().min(CHUNK)).collect();
        let done = walk.rows.is_empty() && walk.page.is_none();
        // Records of one second may be on two pages, so the last one's second is read again. No answer moves the place beyond what
        // was asked for.
        let reached = rows.last().filter(|_| !done).map_or(self.until, |row| row.at.min(self.until));
        self.places.reach(&walk.object, walk.from, reached.max(walk.from));
        let deliveries = walk.missing(api, rows, &self.arrived, self.until).await?;
        self.current = (!done).then_some(walk);
        let bookmark = Bookmark { next: self.places.written(), ..Bookmark::default() };
        Ok(Some(Batch { deliveries, bookmark: Some(bookmark), ..Batch::default() }))
    }
}

impl Walk {
    async fn new(api: &Api, object: String, from: i64, until: i64) -> Result<Self, ApiError> {
        let answer = api.call(Method::GET, &format!("{VERSION}/sobjects/{object}/describe"), None).await?;
        let root = json::parse(&answer.body).map_err(ApiError::Strange)?;
        let mut fields = Vec::new();
        for field in list(root, "/fields", "an object without fields")? {
            // Compound fields hold what other fields hold too, and contents are not read along with a record.
            let plain = !matches!(text(field, "/type").as_deref(), Some("address" | "location" | "base64"));
            fields.extend(text(field, "/name").filter(|name| plain && is_name(name)));
        }
        let has = |name: &str| fields.iter().any(|field| field == name);
        if !has("SystemModstamp") {
            return Err(ApiError::Strange(
                "an object without SystemModstamp: it cannot be looked through by time",
            ));
        }
        let deleted = if has("IsDeleted") { ", IsDeleted" } else { "" };
        let query = format!(
            "SELECT Id, SystemModstamp{deleted} FROM {object} WHERE SystemModstamp >= {} AND SystemModstamp < {} \
             ORDER BY SystemModstamp, Id",
            stamp(from),
            stamp(until),
        );
        let query = utf8_percent_encode(&query, NON_ALPHANUMERIC);
        let page = (from < until).then(|| format!("{VERSION}/queryAll?q={query}"));
        Ok(Self { object, from, fields, page, chain: Chain::default(), rows: VecDeque::new() })
    }

    /// Reads the next page.
    async fn turn(&mut self, api: &Api) -> Result<(), ApiError> {
        let Some(path) = self.page.take() else { return Ok(()) };
        self.chain.follow(&path)?;
        let answer = api.call(Method::GET, &path, None).await?;
        let root = json::parse(&answer.body).map_err(ApiError::Strange)?;
        for record in list(root, "/records", "records are no list")? {
            let row = (|| {
                let deleted = text(record, "/IsDeleted").is_some_and(|deleted| deleted == "true");
                Some(Row { id: id(record)?, deleted, at: time(&text(record, "/SystemModstamp")?)? })
            })();
            self.rows.push_back(row.ok_or(ApiError::Strange("a record without Id or SystemModstamp"))?);
        }
        let next = text(root, "/nextRecordsUrl");
        // Only a path is taken, so that the next page is the same API's.
        if next.as_deref().is_some_and(|next| !next.starts_with("/services/data/")) {
            return Err(ApiError::Strange("a page that leads elsewhere"));
        }
        if next.is_some() && self.rows.is_empty() {
            return Err(ApiError::Strange("an empty page before the last"));
        }
        self.page = next;
        Ok(())
    }

    /// Those of the records whose latest state did not arrive.
    async fn missing(
        &self,
        api: &Api,
        rows: Vec<Row>,
        arrived: &Arrived,
        until: i64,
    ) -> Result<Vec<Redelivery>, ApiError> {
        let ids: Vec<&str> = rows.iter().filter(|row| !row.deleted).map(|row| row.id.as_str()).collect();
        let body = if ids.is_empty() {
            Bytes::from_static(b"[]")
        } else {
            let wanted = serde_json::json!({ "ids": ids, "fields": self.fields }).to_string();
            let path = format!("{VERSION}/composite/sobjects/{}", self.object);
            api.call(Method::POST, &path, Some(("application/json", wanted))).await?.body
        };
        let root = json::parse(&body).map_err(ApiError::Strange)?;
        let records = list(root, "", "records are no list")?;
        let records: BTreeMap<String, Value<'_>> =
            records.into_iter().filter_map(|record| Some((id(record)?, record))).collect();
        let mut missing = Vec::new();
        for row in rows {
            if row.deleted {
                let state = State { thing: deleted(&row.id), at: row.at };
                if !arrived.has(&state) {
                    missing.push(self.delivery(&row, [("IsDeleted", "true".to_owned())]));
                }
                continue;
            }
            // Without it the record is gone meanwhile, or may not be seen.
            let Some(record) = records.get(&row.id) else { continue };
            let saved = |field| text(*record, field).as_deref().and_then(time);
            let at = saved("/SystemModstamp").unwrap_or(row.at);
            let seen = State { thing: row.id.clone(), at: saved("/LastModifiedDate").unwrap_or(at) };
            // What was saved meanwhile is left to the next run.
            if at >= until || arrived.has(&seen) {
                continue;
            }
            let fields = self.fields.iter().filter_map(|field| {
                let known = matches!(field.as_str(), "Id" | "SystemModstamp");
                Some((field.as_str(), text(*record, &format!("/{field}")).filter(|_| !known)?))
            });
            missing.push(self.delivery(&Row { at, ..row }, fields));
        }
        Ok(missing)
    }

    /// A record in the form of an outbound message. The organization's id, which it is verified by, is put in where it is signed.
    fn delivery<'a>(&self, row: &Row, fields: impl IntoIterator<Item = (&'a str, String)>) -> Redelivery {
        let at = stamp(row.at);
        let mut body = format!(
            r#"<?xml version="1.0" encoding="UTF-8"?><soapenv:Envelope xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"><soapenv:Body><notifications xmlns="http://soap.sforce.com/2005/09/outbound"><OrganizationId>-</OrganizationId><Notification><Id>{id}:{at}</Id><fetched>record</fetched><sObject xsi:type="sf:{}" xmlns:sf="urn:sobject.enterprise.soap.sforce.com"><sf:Id>{id}</sf:Id><sf:SystemModstamp>{at}</sf:SystemModstamp>"#,
            self.object,
            id = row.id,
        );
        for (name, value) in fields {
            let _ = write!(body, "<sf:{name}>{}</sf:{name}>", escaped(&value));
        }
        body.push_str("</sObject></Notification></notifications></soapenv:Body></soapenv:Envelope>");
        let content_type = HeaderValue::from_static("text/xml; charset=utf-8");
        Redelivery {
            headers: HeaderMap::from_iter([(header::CONTENT_TYPE, content_type)]),
            body: Bytes::from(body),
        }
    }
}

/// The state that an event of an outbound message tells.
fn state(event: Value<'_>) -> Option<State> {
    let id = text(event, "/sObject/Id")?;
    let saved = |field| text(event, field).as_deref().and_then(time);
    let (modified, modstamp) = (saved("/sObject/LastModifiedDate"), saved("/sObject/SystemModstamp"));
    if text(event, "/sObject/IsDeleted").is_some_and(|gone| gone == "true") {
        return Some(State { thing: deleted(&id), at: modstamp.or(modified)? });
    }
    Some(State { thing: id, at: modified.max(modstamp)? })
}

fn deleted(id: &str) -> String {
    format!("{id} deleted")
}

/// A record's id, which stands in XML as it is.
fn id(record: Value<'_>) -> Option<String> {
    text(record, "/Id").filter(|id| !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_alphanumeric()))
}

/// Whether it can be an object's or a field's name, in a path, a query and XML.
fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// A time as SOQL and outbound messages have it.
fn stamp(micros: i64) -> String {
    let time = jiff::Timestamp::from_microsecond(micros).unwrap_or_default();
    format!("{time:.3}")
}

/// Text in XML. What XML cannot hold at all is left out.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '\r' => out.push_str("&#13;"),
            '\t' | '\n' | ' '..='\u{fffd}' | '\u{10000}'.. => out.push(c),
            _ => {}
        }
    }
    out
}
