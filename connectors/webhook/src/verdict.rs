//! What an endpoint says about a request.

use crate::{Delivery, KeyRequest, Secret};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode};
use std::fmt;

/// The verdict on one request. Whoever serves HTTP does what it says; nothing in here has happened yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Verified: keep the deliveries, all or none, then answer `ack`. There may be none (a heartbeat).
    Deliveries {
        /// In the order in which the request holds them.
        deliveries: Vec<Delivery>,
        /// What the provider wants to hear once they are safe.
        ack: Reply,
    },
    /// Answer, and keep nothing: a ping, or a handshake that changes nothing.
    Reply(Reply),
    /// Do the action, and answer only if it succeeded.
    Handshake(Handshake),
    /// A key is missing that has to be fetched: do so, put it into the [`KeyRing`](crate::KeyRing) and ask again, once.
    KeyNeeded(KeyRequest),
    /// Not verified, or not understood.
    Refused(Refusal),
}

/// An HTTP response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Its status.
    pub status: StatusCode,
    /// Its headers, the content type among them.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Its body.
    pub body: Bytes,
}

impl Reply {
    /// A reply without headers or body.
    #[must_use]
    pub fn empty(status: StatusCode) -> Self {
        Self { status, headers: Vec::new(), body: Bytes::new() }
    }
}

/// A handshake that has an effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handshake {
    /// What has to be done first.
    pub action: Action,
    /// The answer after that.
    pub reply: Reply,
}

/// The effect of a handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Store this secret for the endpoint, durably, and build the endpoint anew with it. It is given only while the
    /// endpoint has no secret at all; where one has been stored meanwhile, it must not be replaced (answer 409).
    KeepSecret(Secret),
    /// Send a GET to this URL, which came in a verified request and whose host is one of the provider's. Follow no
    /// redirect, connect to no private address, give up after 5 s; anything but a 2xx is a failure (answer 502).
    Confirm {
        /// The URL, `https` always.
        url: String,
    },
}

/// A request that is turned away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The answer: 401 unless the provider wants another one. It says nothing about why.
    pub status: StatusCode,
    /// Why, for log and metrics.
    pub reason: Reason,
}

/// Why a request was refused. The text holds nothing of the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// A method that the provider does not use here.
    Method,
    /// The signature, token or a header that it covers is missing.
    Missing(String),
    /// A header that must be single came twice.
    Doubled(String),
    /// The signature, token or timestamp is not in the provider's form.
    Malformed(String),
    /// The signature or token is wrong.
    Mismatch,
    /// Signed too long ago.
    Stale,
    /// Signed in the future, beyond what clocks may differ.
    Future,
    /// The body is not what the provider sends (a key twice, a broken CloudEvent, too many items).
    Body(String),
    /// The body is in a format that is not understood.
    Format(String),
    /// A handshake, but the endpoint is not pending.
    NotPending,
    /// The endpoint has no secret yet: the provider gives it in a handshake that has not happened.
    NoSecret,
    /// The key that has to be fetched is from a place that is not the provider's.
    ForeignKey,
}

impl Reason {
    /// A word for metrics, one of a fixed few.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Method => "method",
            Self::Missing(_) => "missing",
            Self::Doubled(_) => "doubled",
            Self::Malformed(_) => "malformed",
            Self::Mismatch => "mismatch",
            Self::Stale => "stale",
            Self::Future => "future",
            Self::Body(_) => "body",
            Self::Format(_) => "format",
            Self::NotPending => "not_pending",
            Self::NoSecret => "no_secret",
            Self::ForeignKey => "foreign_key",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Method => f.write_str("the provider does not use this method"),
            Self::Missing(what) => write!(f, "{what} is missing"),
            Self::Doubled(what) => write!(f, "{what} came more than once"),
            Self::Malformed(what) => write!(f, "{what} is malformed"),
            Self::Mismatch => f.write_str("the signature does not match (wrong secret, or a changed request)"),
            Self::Stale => f.write_str("signed too long ago (a replay, or a clock that is behind)"),
            Self::Future => f.write_str("signed in the future (compare the clocks)"),
            Self::Body(what) => write!(f, "the body is not usable: {what}"),
            Self::Format(what) => write!(f, "the body's format is not understood: {what}"),
            Self::NotPending => f.write_str(
                "a handshake for an endpoint that is set up already (docs/webhooks.md says how to set it up again)",
            ),
            Self::NoSecret => f.write_str(
                "the endpoint has no secret yet: the provider gives it in a handshake when the webhook is made there",
            ),
            Self::ForeignKey => f.write_str("the delivery names a key that is not at the provider's place"),
        }
    }
}
