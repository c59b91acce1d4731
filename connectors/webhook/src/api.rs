//! The providers' own APIs: making a webhook there, and finding what it never delivered.
//!
//! # Duplicates
//! What is found comes in by the front door: GitHub is asked to deliver again, under the id that the delivery had; an event of
//! Stripe's is signed with the endpoint's own secret and posted to the gateway under Stripe's id. So everything that holds for
//! a delivery holds for it, de-duplication by id included, and nothing is published beside the gateway.
//!
//! # Memory
//! A page is at most `client::ANSWER` bytes; what is missing is collected up to [`MISSED`] deliveries, and then said to be
//! too much, instead of being cut.

mod client;
mod github;
mod stripe;

use crate::Secret;
use bytes::Bytes;
pub use client::{Api, ApiError};

/// Most missed deliveries of one run.
pub const MISSED: usize = 10_000;

/// Providers whose webhooks can be made by API.
pub const REGISTERED: [&str; 2] = ["github", "stripe"];

/// Where an API is, unless told otherwise. `None`: this provider's is not known to the gateway.
#[must_use]
pub fn base(provider: &str) -> Option<&'static str> {
    match provider {
        "github" => Some("https://api.github.com"),
        "stripe" => Some("https://api.stripe.com"),
        _ => None,
    }
}

/// A webhook that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registered {
    /// The provider's id of it.
    pub id: String,
    /// The secret that the provider chose, said once; `None` where it took the endpoint's.
    pub secret: Option<Secret>,
}

/// What was never delivered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Missed {
    /// The provider was asked to deliver these again.
    Redelivered(usize),
    /// The bodies that it would have delivered, oldest first.
    Bodies(Vec<Bytes>),
}

/// Makes a webhook for `url` that signs with `secret`, or with one that the provider chooses. `target` says where:
/// `owner/repository` or `organization` at GitHub, nothing at Stripe.
///
/// # Errors
/// The provider has no such API here, refuses, or cannot be reached.
pub async fn register(
    provider: &str,
    api: &Api,
    target: &str,
    url: &str,
    secret: Option<&Secret>,
) -> Result<Registered, ApiError> {
    match provider {
        "github" => github::register(api, target, url, secret).await,
        "stripe" => stripe::register(api, url).await,
        _ => Err(ApiError::Unknown),
    }
}

/// Finds what was not delivered to `url` since a time in microseconds since 1970-01-01 UTC.
///
/// # Errors
/// The provider has no such API here, refuses, cannot be reached, or there is more than [`MISSED`].
pub async fn reconcile(
    provider: &str,
    api: &Api,
    target: &str,
    url: &str,
    since: i64,
) -> Result<Missed, ApiError> {
    match provider {
        "github" => github::reconcile(api, target, url, since).await.map(Missed::Redelivered),
        "stripe" => stripe::reconcile(api, since).await.map(Missed::Bodies),
        _ => Err(ApiError::Unknown),
    }
}
