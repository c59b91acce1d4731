//! One API over HTTP: a token, a deadline, patience with 429 ([`retry`]), and no way off its host.
//!
//! # Duplicates
//! What makes something (`POST`) is repeated only after an answer that says it was not done: a 429. After any other failure
//! nobody knows, and the next run of the command looks first.

use super::retry::{self, PATIENCE, TRIES};
use crate::{Auth, Secret, Unrandom, json};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use bytes::{Bytes, BytesMut};
use reqwest::{
    Method, StatusCode, Url,
    header::{self, HeaderMap, HeaderValue},
};
use std::{
    collections::{HashSet, hash_map::DefaultHasher},
    error::Error,
    hash::{Hash as _, Hasher as _},
    time::Duration,
};

/// Largest answer that is read, in bytes.
pub(super) const ANSWER: usize = 32 << 20;

const ENDLESS: ApiError = ApiError::Strange("an answer without end");

/// Most pages of one list.
const PAGES: usize = 1000;

/// Deadline of one call.
const DEADLINE: Duration = Duration::from_secs(30);

/// Why an API did not help. Nothing in it holds a token.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The gateway does not know this provider's API.
    #[error("the gateway does not know this provider's API")]
    Unknown,
    /// The target is not in the provider's form.
    #[error("the target \"{0}\" is not of the form that this provider has")]
    Target(String),
    /// Events have to be named; the example is one of them.
    #[error("this provider has no \"all events\": name those you want, --event {0} for instance")]
    NoEvents(&'static str),
    /// An event that cannot be asked for.
    #[error("the event \"{0}\" is none that can be looked for")]
    Event(String),
    /// There is one URL, and it is another's.
    #[error("the app calls {0}, and one URL is all it has: delete that there, or take another app")]
    Taken(String),
    /// The system has no random numbers to give.
    #[error(transparent)]
    Unrandom(#[from] Unrandom),
    /// The token is missing a right, or its time is over.
    #[error("the API answered {status} ({said}): the token is wrong, has expired or lacks a right")]
    Denied {
        /// 401 or 403; 200 at Slack, which says it in the body.
        status: u16,
        /// The API's own words, shortened.
        said: String,
    },
    /// Any other refusal.
    #[error("the API answered {status}: {message}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// The API's own words, shortened.
        message: String,
    },
    /// Too many requests, after some patience still or for longer than there is.
    #[error("the API wants fewer requests (429 or the like, {tries} tries): come again {}", later(*wait))]
    Busy {
        /// How often it was tried.
        tries: u32,
        /// For how long the API wants none, where it says so.
        wait: Option<Duration>,
    },
    /// The API's address is none.
    #[error("the API's address is no URL: {0}")]
    Url(String),
    /// No answer.
    #[error("the API cannot be reached: {0}")]
    Unreachable(String),
    /// An answer that is not what the API's documentation says.
    #[error("the API's answer is not what it documents: {0}")]
    Strange(&'static str),
    /// No webhook calls this URL.
    #[error("no webhook there calls {0}; headgate webhook register makes one")]
    NoHook(String),
    /// More than one run takes.
    #[error("more than {0} deliveries may be missing: take a later --since")]
    TooMany(usize),
}

/// An API with the token to use it.
pub struct Api {
    client: reqwest::Client,
    base: Url,
    auth: Auth,
    token: Secret,
}

/// The pages of a list, told by what leads to each: none comes twice, and they come to an end.
#[derive(Default)]
pub(super) struct Chain(HashSet<u64>);

impl Chain {
    /// Goes on to another page.
    pub(super) fn follow(&mut self, next: &str) -> Result<(), ApiError> {
        // What leads to a page may be long, and it is the other side that says it.
        let mut hasher = DefaultHasher::new();
        next.hash(&mut hasher);
        if self.0.len() >= PAGES {
            return Err(ApiError::Strange("more than a thousand pages"));
        }
        if self.0.insert(hasher.finish()) {
            Ok(())
        } else {
            Err(ApiError::Strange("a page that leads to itself"))
        }
    }
}

/// A successful answer.
pub(super) struct Answer {
    pub(super) body: Bytes,
    /// The URL of the next page (RFC 8288 `rel="next"`).
    pub(super) next: Option<String>,
}

impl Api {
    /// An API at `base` (no path, or the prefix of all paths).
    ///
    /// # Errors
    /// `base` is not a URL.
    pub fn new(base: &str, auth: &Auth, token: Secret) -> Result<Self, ApiError> {
        let base = Url::parse(base).map_err(|error| ApiError::Url(format!("{base}: {error}")))?;
        let client = reqwest::Client::builder()
            .timeout(DEADLINE)
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("headgate/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| ApiError::Unreachable(error.to_string()))?;
        Ok(Self { client, base, auth: auth.clone(), token })
    }

    /// Calls a path of the API, or a URL that it named itself, which must be on its own host: the token goes nowhere else.
    pub(super) async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<(&'static str, String)>,
    ) -> Result<Answer, ApiError> {
        let url = self.url(path)?;
        self.send(&method, &url, body, |request| self.authorize(request)).await
    }

    /// Calls a path of the API with the token as a parameter of the URL, as some want it.
    pub(super) async fn call_with_key(
        &self,
        method: Method,
        path: &str,
        parameter: &str,
        body: Option<(&'static str, String)>,
    ) -> Result<Answer, ApiError> {
        let mut url = self.url(path)?;
        url.query_pairs_mut().append_pair(parameter, self.token.expose());
        self.send(&method, &url, body, |request| request).await
    }

    async fn send(
        &self,
        method: &Method,
        url: &Url,
        body: Option<(&'static str, String)>,
        authorize: impl Fn(reqwest::RequestBuilder) -> reqwest::RequestBuilder,
    ) -> Result<Answer, ApiError> {
        let mut tries = 0;
        loop {
            tries += 1;
            let request = authorize(self.client.request(method.clone(), url.clone()));
            let mut request = request.header(header::ACCEPT, "application/json");
            if let Some((content_type, body)) = &body {
                request = request.header(header::CONTENT_TYPE, *content_type).body(body.clone());
            }
            let answer = request.send().await;
            let answer = answer.map_err(|error| self.unreachable(error))?;
            let (status, headers) = (answer.status(), answer.headers().clone());
            let body = read(answer).await.map_err(|error| self.unreachable(error))?.ok_or(ENDLESS)?;
            let wait = retry::asked(&headers, jiff::Timestamp::now());
            let limited = retry::is_limited(status, &headers, &body);
            let again = limited || (status.is_server_error() && *method == Method::GET);
            let pause = wait.unwrap_or(retry::backoff(tries, limited));
            if again && tries < TRIES && pause <= PATIENCE {
                tokio::time::sleep(pause).await;
                continue;
            }
            // Salesforce says 403 when a day's calls are spent, and waiting a minute does not help.
            if limited || (status == StatusCode::FORBIDDEN && code(&body) == "REQUEST_LIMIT_EXCEEDED") {
                return Err(ApiError::Busy { tries, wait });
            }
            return match status {
                StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                    Err(self.denied(status.as_u16(), &message(&body)))
                }
                status if status.is_success() => Ok(Answer { body, next: next(&headers) }),
                status => Err(self.refused(status.as_u16(), &message(&body))),
            };
        }
    }

    /// Why there is no answer, down to its cause.
    fn unreachable(&self, error: reqwest::Error) -> ApiError {
        let error = error.without_url();
        let mut cause: &dyn Error = &error;
        while let Some(deeper) = cause.source() {
            cause = deeper;
        }
        ApiError::Unreachable(format!("{}: {cause}", self.base.host_str().unwrap_or_default()))
    }

    /// A refusal in the API's own words.
    pub(super) fn refused(&self, status: u16, message: &str) -> ApiError {
        ApiError::Refused { status, message: self.clean(message) }
    }

    /// A refusal that is the token's fault, in the API's own words.
    pub(super) fn denied(&self, status: u16, message: &str) -> ApiError {
        ApiError::Denied { status, said: self.clean(message) }
    }

    /// An API's own words, without the token, should it have come back in them.
    fn clean(&self, message: &str) -> String {
        // The token goes before anything is cut off, for a piece of it is as bad; in every form that it was sent in.
        let token = self.token.expose();
        let mut url = self.base.clone();
        url.set_query(None);
        url.query_pairs_mut().append_key_only(token);
        let encoded = url.query().unwrap_or(token).to_owned();
        let message = [BASE64_STANDARD.encode(token), encoded, token.to_owned()]
            .iter()
            .fold(message.to_owned(), |message, form| message.replace(form, "…"));
        message.chars().filter(|c| !c.is_control()).take(300).collect()
    }

    fn authorize(&self, request: reqwest::RequestBuilder) -> reqwest::RequestBuilder {
        let token = self.token.expose();
        let (name, value) = match &self.auth {
            Auth::Header(name) => (name.as_str(), token.to_owned()),
            Auth::Basic if token.contains(':') => {
                ("authorization", format!("Basic {}", BASE64_STANDARD.encode(token)))
            }
            Auth::Bearer | Auth::Basic => ("authorization", format!("Bearer {token}")),
        };
        match HeaderValue::from_str(&value) {
            Ok(mut value) => {
                value.set_sensitive(true);
                request.header(name, value)
            }
            // What is no header's value is no token either, and without one the API says so.
            Err(_) => request,
        }
    }

    fn url(&self, path: &str) -> Result<Url, ApiError> {
        let prefix = self.base.as_str().trim_end_matches('/');
        let url = if path.starts_with('/') { format!("{prefix}{path}") } else { path.to_owned() };
        let url = Url::parse(&url).map_err(|_| ApiError::Strange("a link that is no URL"))?;
        if url.origin() == self.base.origin() {
            Ok(url)
        } else {
            Err(ApiError::Strange("a link to another host"))
        }
    }
}

/// When to come again, in words.
fn later(wait: Option<Duration>) -> String {
    wait.filter(|wait| !wait.is_zero())
        .map_or_else(|| "later".to_owned(), |wait| format!("in {} s", wait.as_secs_f64().ceil()))
}

/// The target of `Link: <…>; rel="next"`.
fn next(headers: &HeaderMap) -> Option<String> {
    let links = headers.get(header::LINK)?.to_str().ok()?;
    links.split(',').find_map(|link| {
        let (target, rest) = link.trim().strip_prefix('<')?.split_once('>')?;
        rest.contains("rel=\"next\"").then(|| target.to_owned())
    })
}

/// An answer's body; `None` where it is larger than [`ANSWER`].
async fn read(mut answer: reqwest::Response) -> reqwest::Result<Option<Bytes>> {
    let mut body = BytesMut::new();
    while let Some(chunk) = answer.chunk().await? {
        if body.len() + chunk.len() > ANSWER {
            return Ok(None);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Some(body.freeze()))
}

/// What an API says about a refusal, in a line.
fn message(body: &[u8]) -> String {
    let root = json::parse(body).ok();
    // GitHub and HubSpot; Salesforce; Stripe, Google and Airtable; Zendesk; Airtable and Shopify.
    let places = [
        "/message",
        "/0/message",
        "/error/message",
        "/error/title",
        "/errors/0/title",
        "/description",
        "/errors",
        "/error",
    ];
    let text = places.iter().find_map(|place| super::text(root?, place));
    text.unwrap_or_else(|| "no reason given".to_owned())
}

/// Salesforce's name of a refusal.
fn code(body: &[u8]) -> String {
    json::parse(body).ok().and_then(|root| super::text(root, "/0/errorCode")).unwrap_or_default()
}
