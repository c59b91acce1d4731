//! A provider together with one user's secrets: what judges requests.

use crate::{KeyRing, Provider, Reason, Refusal, Reply, Request, Secret, Verdict};
use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use std::{collections::BTreeMap, sync::Arc, time::Duration};

/// What a user sets for an endpoint.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The secrets, any of which may have signed: several while one is being replaced.
    pub secrets: Vec<Secret>,
    /// The provider's own parameters by name (a verify token, a webhook's id, an audience). They may be secret.
    pub parameters: BTreeMap<String, Secret>,
    /// How far a signed timestamp may be from now, either way; `None` switches the check off. `Some(DEFAULT)` gives way to
    /// what the provider itself says.
    pub tolerance: Option<Duration>,
    /// The URL that the provider was given, without a query of its own making: `https://hooks.example.com/webhooks/shop`.
    /// Providers that sign the URL need it; it is never taken from the Host header.
    pub public_url: Option<String>,
    /// The least integrity that is accepted.
    pub integrity: Policy,
    /// Where fetched keys are found.
    pub keys: KeyRing,
}

impl Settings {
    /// The default of `tolerance`.
    pub const TOLERANCE: Duration = Duration::from_secs(300);
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            secrets: Vec::new(),
            parameters: BTreeMap::new(),
            tolerance: Some(Self::TOLERANCE),
            public_url: None,
            integrity: Policy::Any,
            keys: KeyRing::default(),
        }
    }
}

/// Which integrity an endpoint insists on (`integrity` in the configuration).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// `any`: what the provider offers; the event says how much that is.
    #[default]
    Any,
    /// `body`: a provider or scheme that leaves the body unsigned cannot be configured.
    Body,
}

/// Settings that do not make a safe endpoint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// No secret, and the provider gives none in a handshake.
    #[error("{provider} needs a secret: {hint}")]
    NoSecret {
        /// The provider's name.
        provider: String,
        /// Where the secret is found.
        hint: String,
    },
    /// A secret that cannot be a key of this provider.
    #[error("secret {index} is not one of {provider}: {problem}")]
    Secret {
        /// The provider's name.
        provider: String,
        /// Which, from 1.
        index: usize,
        /// What is wrong with its form.
        problem: String,
    },
    /// A parameter is missing, unknown or unusable.
    #[error("parameter \"{name}\" of {provider}: {problem}")]
    Parameter {
        /// The provider's name.
        provider: String,
        /// The parameter.
        name: String,
        /// What is wrong.
        problem: String,
    },
    /// The provider signs the URL, which is not configured.
    #[error("{provider} signs the URL it calls: set public_url to exactly what the provider was given")]
    NoPublicUrl {
        /// The provider's name.
        provider: String,
    },
    /// `integrity = "body"`, and the provider does not sign bodies.
    #[error("{provider} does not sign the body, and integrity = \"body\" asks for that")]
    Integrity {
        /// The provider's name.
        provider: String,
    },
}

/// One endpoint. Cheap to share; build a new one when a secret changes.
#[derive(Debug)]
pub struct Endpoint {
    provider: Arc<Provider>,
    settings: Settings,
}

impl Endpoint {
    /// Joins a provider with settings.
    ///
    /// # Errors
    /// The settings do not make a safe endpoint: it fails closed.
    pub fn new(provider: Arc<Provider>, settings: Settings) -> Result<Self, SettingsError> {
        Ok(Self { provider, settings })
    }

    /// The same endpoint with one more secret, first in line.
    ///
    /// # Errors
    /// The secret cannot be a key of this provider.
    pub fn with_secret(&self, secret: Secret) -> Result<Self, SettingsError> {
        let mut settings = self.settings.clone();
        settings.secrets.insert(0, secret);
        Self::new(self.provider.clone(), settings)
    }

    /// Its provider.
    #[must_use]
    pub fn provider(&self) -> &Arc<Provider> {
        &self.provider
    }

    /// Whether it has a secret: without one it answers handshakes only.
    #[must_use]
    pub fn has_secret(&self) -> bool {
        !self.settings.secrets.is_empty()
    }

    /// Judges a request. Pure, and total: whatever the bytes, it neither panics nor waits.
    #[must_use]
    pub fn receive(&self, _request: &Request<'_>) -> Verdict {
        Verdict::Refused(Refusal { status: StatusCode::UNAUTHORIZED, reason: Reason::NoSecret })
    }

    /// What to answer when a verified delivery cannot be kept now: 503 with `Retry-After`, or what makes this provider try
    /// again.
    #[must_use]
    pub fn overloaded(&self) -> Reply {
        Reply::empty(StatusCode::SERVICE_UNAVAILABLE)
    }

    /// A sample of the provider's, signed as the provider would sign it now (microseconds since 1970-01-01 UTC).
    ///
    /// # Errors
    /// There is no such sample, or only the provider can sign (public keys).
    pub fn sign(&self, _sample: Option<&str>, _now: i64) -> Result<SignedRequest, SignError> {
        Err(SignError::OnlyProvider)
    }
}

/// A request ready to be sent to the endpoint.
#[derive(Clone, Debug)]
pub struct SignedRequest {
    /// The method.
    pub method: Method,
    /// What has to be appended to the endpoint's URL: empty, or a query with its `?`.
    pub query: String,
    /// The headers, content type and signature among them.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

/// Why there is no signed sample.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignError {
    /// No sample of that name.
    #[error("no sample \"{name}\" (there are: {known})")]
    NoSample {
        /// The name asked for.
        name: String,
        /// Those that there are.
        known: String,
    },
    /// The provider signs with a private key that only it has.
    #[error("only the provider itself can sign: it holds the private key")]
    OnlyProvider,
    /// The endpoint has no secret.
    #[error("the endpoint has no secret to sign with")]
    NoSecret,
}
