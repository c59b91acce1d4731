//! What happens to a request: its source is found, limits are looked at, the body is read, the provider's rules judge it,
//! and only then is it answered: when its deliveries are safe.
//!
//! * **Order**: deliveries are handed on in the order in which their requests were judged; two requests of one sender that
//!   waits for its answers keep their order.
//! * **Duplicates**: the same delivery has the same id; whoever keeps it de-duplicates, after verification only.
//! * **Durability**: the provider's acknowledgement is sent after [`Keep::keep`] said that all deliveries are safe.
//! * **Memory**: bodies under way are within one budget; a request beyond it gets 503 at once.
//! * **Shutdown**: a request that was read is answered; the listener waits for it within the grace period.
//!
//! A refusal says nothing about why to the outside; the reason is counted, and logged now and then.

use crate::{
    Action, Delivery, Endpoint, Handshake, KeyRequest, KeyRing, Reply, Request, Spool, SpoolError, Verdict,
    body::{self, Coding, Unread},
    budget::{Budget, Lease},
    client::{self, Meter, Rate},
    outbound::{Outbound, OutboundError},
    verify,
};
use axum::body::Body as ResponseBody;
use bytes::Bytes;
use headgate_sdk::clock::now;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Uri, header, request::Parts};
use hyper::body::Body;
use ipnet::IpNet;
use std::{
    collections::HashMap,
    future::Future,
    net::IpAddr,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::sync::Semaphore;

/// Where the sources are.
const PREFIX: &str = "/webhooks/";
/// Above this, judging a body is left to a thread that may take its time.
const LARGE: usize = 256 << 10;
/// Bodies whose content coding is undone at the same time.
const UNDOING: usize = 2;
/// Room for headers that a connection keeps from one request to the next.
const KEPT_HEADERS: usize = 32;
/// How often the refusals of one source are logged at most.
const LOG_EVERY: i64 = 10_000_000;
/// What a sender is told to wait when there is no room, in seconds.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("5");

/// What came with one request.
#[derive(Debug)]
pub struct Arrival {
    /// Verified, in the order in which the request holds them; never empty.
    pub deliveries: Vec<Delivery>,
    /// When the request arrived, in microseconds since 1970-01-01 UTC.
    pub received_at: i64,
    /// The caller's `traceparent` header, not checked.
    pub traceparent: Option<String>,
    /// The caller's `tracestate` header, not checked.
    pub tracestate: Option<String>,
}

/// Deliveries could not be made safe; the sender has to come again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unkept {
    /// Why, for the log.
    pub reason: String,
}

/// Where a source's verified deliveries go.
pub trait Keep: Send + Sync + 'static {
    /// Makes deliveries safe: all of them, or the sender is told to come again.
    fn keep(&self, arrival: Arrival) -> impl Future<Output = Result<(), Unkept>> + Send;

    /// Counts a request that was turned away, by the reason in one word.
    fn refused(&self, reason: &'static str);
}

/// What a source accepts, and how much.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Bytes of a body, on the wire and decoded.
    pub max_body: usize,
    /// How long a body may take to arrive.
    pub body_timeout: Duration,
    /// Requests of one client address.
    pub rate: Option<Rate>,
    /// Networks that may call; empty for all.
    pub allow: Vec<IpNet>,
}

/// One source as the listener knows it.
#[derive(Debug)]
pub struct Webhook<K> {
    name: Arc<str>,
    endpoint: RwLock<Arc<Endpoint>>,
    keys: KeyRing,
    limits: Limits,
    meter: Option<Meter>,
    /// Whether it has had a verified delivery: from then on, no unverified handshake is answered.
    settled: AtomicBool,
    log: LogPace,
    keep: K,
}

impl<K: Keep> Webhook<K> {
    /// A source whose endpoint looks for fetched keys in `keys`.
    pub fn new(
        name: &str,
        endpoint: Endpoint,
        keys: KeyRing,
        limits: Limits,
        settled: bool,
        keep: K,
    ) -> Self {
        Self {
            name: name.into(),
            endpoint: RwLock::new(Arc::new(endpoint)),
            keys,
            meter: limits.rate.and_then(Meter::new),
            limits,
            settled: AtomicBool::new(settled),
            log: LogPace::default(),
            keep,
        }
    }

    fn endpoint(&self) -> Arc<Endpoint> {
        self.endpoint.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn refuse(&self, status: StatusCode, reason: &'static str, detail: &dyn std::fmt::Display) -> Reply {
        self.keep.refused(reason);
        if let Some(others) = self.log.due(now()) {
            tracing::warn!(source = &*self.name, others, "a request was refused ({status}): {detail}");
        }
        Reply::empty(status)
    }
}

/// Lets one line through now and then, and counts the others: a flood of bad requests must not fill the log's disk.
#[derive(Debug, Default)]
struct LogPace {
    last: AtomicI64,
    held_back: AtomicU64,
}

impl LogPace {
    /// How many were held back since the last one, if it is time for another.
    fn due(&self, now: i64) -> Option<u64> {
        let last = self.last.load(Ordering::Relaxed);
        let due = now - last >= LOG_EVERY
            && self.last.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if due {
            return Some(self.held_back.swap(0, Ordering::Relaxed));
        }
        self.held_back.fetch_add(1, Ordering::Relaxed);
        None
    }
}

/// All sources, and what they share.
#[derive(Debug)]
pub struct Intake<K> {
    webhooks: HashMap<String, Webhook<K>>,
    trusted: Vec<IpNet>,
    budget: Budget,
    spool: Spool,
    outbound: Outbound,
    undoing: Arc<Semaphore>,
}

impl<K: Keep> Intake<K> {
    /// An intake for these sources; `trusted` are the networks of proxies whose `X-Forwarded-For` is believed.
    pub fn new(
        webhooks: impl IntoIterator<Item = Webhook<K>>,
        trusted: Vec<IpNet>,
        budget: Budget,
        spool: Spool,
    ) -> Self {
        let webhooks = webhooks.into_iter().map(|webhook| (webhook.name.to_string(), webhook)).collect();
        Self {
            webhooks,
            trusted,
            budget,
            spool,
            outbound: Outbound::default(),
            undoing: Arc::new(Semaphore::new(UNDOING)),
        }
    }

    /// Answers a request.
    pub async fn answer<B>(&self, request: http::Request<B>, peer: IpAddr) -> Response<ResponseBody>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let (parts, body) = request.into_parts();
        let is_head = parts.method == Method::HEAD;
        let reply = match self.find(&parts.uri) {
            Some(webhook) => self.receive(webhook, &parts, body, peer).await,
            None => Reply::empty(StatusCode::NOT_FOUND),
        };
        response(reply, is_head, parts.headers)
    }

    fn find(&self, uri: &Uri) -> Option<&Webhook<K>> {
        self.webhooks.get(uri.path().strip_prefix(PREFIX)?)
    }

    async fn receive<B>(&self, webhook: &Webhook<K>, parts: &Parts, body: B, peer: IpAddr) -> Reply
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let limits = &webhook.limits;
        let client = client::address(peer, &parts.headers, &self.trusted);
        if !client::is_allowed(client, &limits.allow) {
            return webhook.refuse(
                StatusCode::FORBIDDEN,
                "address",
                &format_args!("{client} is not allowed"),
            );
        }
        if let Some(wait) = webhook.meter.as_ref().and_then(|meter| meter.wait(client)) {
            let reply = webhook.refuse(
                StatusCode::TOO_MANY_REQUESTS,
                "rate",
                &format_args!("{client} is over the rate limit"),
            );
            return with_header(reply, header::RETRY_AFTER, HeaderValue::from(wait.as_secs() + 1));
        }
        let mut lease = self.budget.lease();
        let read = body::read(&parts.headers, body, limits.max_body, limits.body_timeout, &mut lease).await;
        match read {
            Ok(body) => self.judge(webhook, parts, body, lease).await,
            Err(unread) => unreadable(webhook, unread),
        }
    }

    async fn judge(&self, webhook: &Webhook<K>, parts: &Parts, body: Bytes, lease: Lease) -> Reply {
        let received_at = now();
        let decoded = match Coding::of(&parts.headers) {
            Ok(None) => Ok((body, lease)),
            Ok(Some(coding)) => self.undo(coding, body, &webhook.limits, lease).await,
            Err(unread) => Err(unread),
        };
        let (body, _lease) = match decoded {
            Ok(decoded) => decoded,
            Err(unread) => return unreadable(webhook, unread),
        };
        let mut fetched = false;
        loop {
            let endpoint = webhook.endpoint();
            let pending = !webhook.settled.load(Ordering::Relaxed);
            let verdict = verdict(&endpoint, parts, &body, received_at, pending).await;
            return match verdict {
                Verdict::Deliveries { deliveries, ack } => {
                    let arrival = Arrival {
                        deliveries,
                        received_at,
                        traceparent: text(&parts.headers, "traceparent"),
                        tracestate: text(&parts.headers, "tracestate"),
                    };
                    self.keep(webhook, &endpoint, arrival, ack).await
                }
                Verdict::Reply(reply) => reply,
                Verdict::Handshake(handshake) => self.shake(webhook, &endpoint, handshake).await,
                Verdict::KeyNeeded(key) if !fetched => match self.fetch(&webhook.keys, &key).await {
                    Ok(()) => {
                        fetched = true;
                        continue;
                    }
                    Err(error) => {
                        webhook.keep.refused("key_fetch");
                        if let Some(others) = webhook.log.due(now()) {
                            tracing::warn!(
                                source = &*webhook.name,
                                others,
                                "cannot fetch the provider's key: {error}"
                            );
                        }
                        endpoint.overloaded()
                    }
                },
                Verdict::KeyNeeded(_) => {
                    webhook.refuse(StatusCode::UNAUTHORIZED, "key", &"the fetched key is not the one needed")
                }
                Verdict::Refused(refusal) => {
                    let reply = webhook.refuse(refusal.status, refusal.reason.label(), &refusal.reason);
                    match refusal.status {
                        StatusCode::METHOD_NOT_ALLOWED => {
                            with_header(reply, header::ALLOW, endpoint.allow().clone())
                        }
                        _ => reply,
                    }
                }
            };
        }
    }

    /// Fetches a key, unless another request has just done so.
    async fn fetch(&self, keys: &KeyRing, key: &KeyRequest) -> Result<(), OutboundError> {
        let turn = self.outbound.turn(&key.url).await?;
        if keys.is_fresh(&key.url, now()) {
            return Ok(());
        }
        // A provider's error page with status 200 must not take the place of its keys.
        let (document, good_for) = turn.fetch(&key.url, verify::has_keys).await?;
        let now = now();
        let until = now.saturating_add(i64::try_from(good_for.as_micros()).unwrap_or(i64::MAX));
        keys.insert(key, &document, now, until);
        Ok(())
    }

    /// Undoes a body's coding beside everything else, and few of them at a time: it is work that anybody can ask for.
    async fn undo(
        &self,
        coding: Coding,
        body: Bytes,
        limits: &Limits,
        mut lease: Lease,
    ) -> Result<(Bytes, Lease), Unread> {
        let most = limits.max_body;
        let waiting = Arc::clone(&self.undoing).acquire_owned();
        let waited = tokio::time::timeout(limits.body_timeout, waiting).await;
        let Ok(Ok(turn)) = waited else { return Err(Unread::NoRoom) };
        let undoing = tokio::task::spawn_blocking(move || {
            // The turn is the thread's: a client that hangs up ends its request, but not the thread.
            let _turn = turn;
            coding.undo(&body, most, &mut lease).map(|undone| (undone, lease))
        });
        undoing.await.unwrap_or(Err(Unread::Broken))
    }

    async fn keep(&self, webhook: &Webhook<K>, endpoint: &Endpoint, arrival: Arrival, ack: Reply) -> Reply {
        if !webhook.settled.swap(true, Ordering::Relaxed)
            && let Err(error) = self.spool.settle(&webhook.name, arrival.received_at).await
        {
            tracing::warn!(source = &*webhook.name, "not noted that the endpoint is set up: {error}");
        }
        if arrival.deliveries.is_empty() {
            return ack;
        }
        match webhook.keep.keep(arrival).await {
            Ok(()) => ack,
            Err(unkept) => {
                webhook.keep.refused("unkept");
                if let Some(others) = webhook.log.due(now()) {
                    tracing::error!(
                        source = &*webhook.name,
                        others,
                        "a verified delivery was not kept, its sender was told to come again: {}",
                        unkept.reason
                    );
                }
                let reply = endpoint.overloaded();
                match reply.headers.iter().any(|(name, _)| name == header::RETRY_AFTER) {
                    true => reply,
                    false => with_header(reply, header::RETRY_AFTER, RETRY_AFTER),
                }
            }
        }
    }

    /// Does what a handshake asks for, then answers it.
    async fn shake(&self, webhook: &Webhook<K>, endpoint: &Endpoint, handshake: Handshake) -> Reply {
        match handshake.action {
            Action::KeepSecret(secret) => {
                match self.spool.keep_secret(&webhook.name, secret.clone()).await {
                    Ok(()) => {}
                    Err(SpoolError::SecretExists) => {
                        return webhook.refuse(
                            StatusCode::CONFLICT,
                            "secret_exists",
                            &"a handshake brought another secret",
                        );
                    }
                    Err(error) => {
                        tracing::error!(
                            source = &*webhook.name,
                            "the provider's secret was not kept: {error}"
                        );
                        return endpoint.overloaded();
                    }
                }
                match endpoint.with_secret(secret) {
                    Ok(renewed) => {
                        *webhook.endpoint.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(renewed);
                        tracing::info!(
                            source = &*webhook.name,
                            "the provider gave its secret in a handshake"
                        );
                        handshake.reply
                    }
                    Err(error) => webhook.refuse(StatusCode::BAD_REQUEST, "secret", &error),
                }
            }
            Action::Confirm { url } => match self.outbound.confirm(&url).await {
                Ok(()) => {
                    tracing::info!(source = &*webhook.name, "the provider's subscription was confirmed");
                    handshake.reply
                }
                Err(error) => webhook.refuse(
                    StatusCode::BAD_GATEWAY,
                    "confirm",
                    &format_args!("not confirmed: {error}"),
                ),
            },
        }
    }
}

/// Judges a request; a large one on a thread of its own, so that no other request waits for it.
async fn verdict(
    endpoint: &Arc<Endpoint>,
    parts: &Parts,
    body: &Bytes,
    received_at: i64,
    pending: bool,
) -> Verdict {
    let path_and_query = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    if body.len() < LARGE {
        let (method, headers) = (&parts.method, &parts.headers);
        let request = Request { method, path_and_query, headers, body, received_at, pending };
        return endpoint.receive_shared(&request, body);
    }
    let (endpoint, body) = (Arc::clone(endpoint), body.clone());
    let (method, headers, path) = (parts.method.clone(), parts.headers.clone(), path_and_query.to_owned());
    let judging = tokio::task::spawn_blocking(move || {
        let request = Request {
            method: &method,
            path_and_query: &path,
            headers: &headers,
            body: &body,
            received_at,
            pending,
        };
        endpoint.receive_shared(&request, &body)
    });
    judging.await.unwrap_or_else(|error| {
        tracing::error!("judging a request failed: {error}; this is a defect of Headgate");
        Verdict::Reply(Reply::empty(StatusCode::INTERNAL_SERVER_ERROR))
    })
}

fn unreadable<K: Keep>(webhook: &Webhook<K>, unread: Unread) -> Reply {
    let limit = webhook.limits.max_body;
    let reply = match unread {
        Unread::TooLarge => webhook.refuse(
            StatusCode::PAYLOAD_TOO_LARGE,
            "too_large",
            &format_args!("a body of more than {limit} bytes (max_body)"),
        ),
        Unread::TooSlow => {
            webhook.refuse(StatusCode::REQUEST_TIMEOUT, "too_slow", &"the body came too slowly")
        }
        Unread::NoRoom => {
            let what = "all bodies together would take more than http.memory";
            let reply = webhook.refuse(StatusCode::SERVICE_UNAVAILABLE, "memory", &what);
            with_header(reply, header::RETRY_AFTER, RETRY_AFTER)
        }
        Unread::Broken => webhook.refuse(StatusCode::BAD_REQUEST, "broken", &"the body could not be read"),
        Unread::UnknownEncoding => webhook.refuse(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "encoding",
            &"a content encoding other than gzip and deflate",
        ),
    };
    // What is left of the body is not read.
    with_header(reply, header::CONNECTION, HeaderValue::from_static("close"))
}

fn with_header(mut reply: Reply, name: header::HeaderName, value: HeaderValue) -> Reply {
    reply.headers.push((name, value));
    reply
}

/// The answer, its headers in the map that the request's were in: hyper takes it for those of the next request.
fn response(reply: Reply, is_head: bool, mut headers: HeaderMap) -> Response<ResponseBody> {
    let body = if is_head { ResponseBody::empty() } else { ResponseBody::from(reply.body) };
    let mut response = Response::new(body);
    *response.status_mut() = reply.status;
    if headers.capacity() <= KEPT_HEADERS {
        headers.clear();
        *response.headers_mut() = headers;
    }
    response.headers_mut().extend(reply.headers);
    response
}

fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}
