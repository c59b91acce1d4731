//! Webhooks of any provider, verified and kept, as a Headgate source.
//!
//! # Providers
//! A provider is data: a TOML file ([`Catalog`]) that says how its deliveries are signed, which handshakes it makes, what
//! answer it wants and how its events are named. [`Endpoint`] joins one with a user's secrets and judges requests:
//! [`Endpoint::receive`] is a pure function of the request, so it can be tested against vectors, fuzzed and benchmarked
//! without a socket. What needs a network or a disk it says as a value in its [`Verdict`].
//!
//! # Service
//! [`Listener`] takes connections, [`Intake`] makes a request's way from its source to its answer, and the gateway's
//! [`Keep`] makes deliveries safe: at the broker, or in the [`Spool`].
//!
//! # Verification
//! The raw bytes of the body are verified before anything parses them, in constant time, and whatever is missing, doubled
//! or not understood is refused. An endpoint without a secret cannot be built.

pub mod api;
mod body;
mod budget;
mod client;
mod cloudevents;
mod delivery;
mod endpoint;
mod form;
mod handshake;
mod intake;
mod json;
mod keys;
mod mapping;
mod outbound;
mod provider;
mod request;
mod roster;
mod secret;
mod server;
mod sign;
mod soap;
mod spool;
mod template;
mod verdict;
mod verify;

pub use budget::Budget;
pub use client::Rate;
pub use delivery::{Data, Delivery, Integrity};
pub use endpoint::{Endpoint, Policy, Settings, SettingsError};
pub use intake::{Arrival, Intake, Keep, Limits, Unkept, Webhook};
pub use ipnet::IpNet;
pub use keys::{KeyRequest, KeyRing};
pub use provider::{
    ParameterInfo, Provider,
    catalog::{Catalog, CatalogError},
    service::{Auth, Registration, SecretOrigin, Service},
};
pub use request::Request;
pub use secret::{Secret, Unrandom};
pub use server::{Listener, TlsError, tls};
pub use sign::{SignError, SignedRequest};
pub use spool::{EndpointState, Held, Record, Spool, SpoolError};
pub use verdict::{Action, Handshake, Reason, Refusal, Reply, Verdict};
pub use verify::timestamp::Tolerance;
