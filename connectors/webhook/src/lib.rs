//! Webhooks of any provider, verified and kept, as a Headgate source.
//!
//! # Providers
//! A provider is data: a TOML file ([`Catalog`]) that says how its deliveries are signed, which handshakes it makes, what
//! answer it wants and how its events are named. [`Endpoint`] joins one with a user's secrets and judges requests:
//! [`Endpoint::receive`] is a pure function of the request, so it can be tested against vectors, fuzzed and benchmarked
//! without a socket. What needs a network or a disk it says as a value in its [`Verdict`].
//!
//! # Verification
//! The raw bytes of the body are verified before anything parses them, in constant time, and whatever is missing, doubled
//! or not understood is refused. An endpoint without a secret cannot be built.

mod cloudevents;
mod delivery;
mod endpoint;
mod form;
mod handshake;
mod json;
mod keys;
mod mapping;
mod provider;
mod request;
mod secret;
mod sign;
mod soap;
mod template;
mod verdict;
mod verify;

pub use delivery::{Data, Delivery, Integrity};
pub use endpoint::{Endpoint, Policy, Settings, SettingsError};
pub use keys::{KeyRequest, KeyRing};
pub use provider::{
    ParameterInfo, Provider,
    catalog::{Catalog, CatalogError},
};
pub use request::Request;
pub use secret::Secret;
pub use sign::{SignError, SignedRequest};
pub use verdict::{Action, Handshake, Reason, Refusal, Reply, Verdict};
