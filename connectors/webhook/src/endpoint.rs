//! A provider together with one user's secrets: what judges requests.

use crate::{
    Data, Integrity, KeyRing, Provider, Reason, Refusal, Reply, Request, Secret, Verdict, cloudevents, form,
    handshake::Greeting,
    json,
    mapping::{Content, Mapping},
    provider::rules::{Format, Rules, status},
    soap,
    template::Scope,
    verify::{Failure, Verifier, timestamp::Tolerance, url},
};
use bytes::Bytes;
use http::{HeaderValue, Method, StatusCode, header::CONTENT_TYPE};
use std::{
    borrow::Cow,
    collections::{BTreeMap, HashSet},
    fmt,
    sync::Arc,
};

/// What a user sets for an endpoint.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// The secrets, any of which may have signed: several while one is being replaced.
    pub secrets: Vec<Secret>,
    /// The provider's own parameters by name (a verify token, a webhook's id, an audience). They may be secret.
    pub parameters: BTreeMap<String, Secret>,
    /// How far a signed timestamp may be from now.
    pub tolerance: Tolerance,
    /// The URL that the provider was given, without a query of its own making: `https://hooks.example.com/webhooks/shop`.
    /// Providers that sign the URL need it; it is never taken from the Host header.
    pub public_url: Option<String>,
    /// The least integrity that is accepted.
    pub integrity: Policy,
    /// Where fetched keys are found.
    pub keys: KeyRing,
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
pub struct Endpoint {
    provider: Arc<Provider>,
    settings: Settings,
    methods: Vec<String>,
    format: Format,
    form_json: Option<String>,
    verifiers: Vec<Verifier>,
    /// Whether some signature is of values inside the JSON.
    signs_json: bool,
    greetings: Vec<Greeting>,
    mapping: Mapping,
    ack: Reply,
    overloaded: Reply,
    reject: StatusCode,
    allow: HeaderValue,
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint").field("provider", &self.provider.name()).finish_non_exhaustive()
    }
}

impl Endpoint {
    /// Joins a provider with settings.
    ///
    /// # Errors
    /// The settings do not make a safe endpoint: it fails closed.
    pub fn new(provider: Arc<Provider>, settings: Settings) -> Result<Self, SettingsError> {
        let rules = rules(&provider, &settings)?;
        let broken = |problem: String| SettingsError::Parameter {
            provider: provider.name().to_owned(),
            name: "(any)".to_owned(),
            problem,
        };
        let verifiers = verifiers(&provider, &rules, &settings)?;
        let greetings: Vec<Greeting> =
            rules.handshake.iter().map(Greeting::new).collect::<Result<_, _>>().map_err(broken)?;
        Ok(Self {
            allow: allow(&rules.methods, &greetings).map_err(broken)?,
            methods: rules.methods.clone(),
            format: rules.body,
            form_json: rules.form_json.clone(),
            signs_json: verifiers.iter().any(Verifier::needs_json),
            verifiers,
            greetings,
            mapping: Mapping::new(&rules.map).map_err(broken)?,
            ack: rules.answer.ack().map_err(broken)?,
            overloaded: rules.answer.overloaded().map_err(broken)?,
            reject: status(rules.answer.reject).map_err(broken)?,
            provider,
            settings,
        })
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

    /// Whether it can verify anything: without a secret it answers handshakes only.
    #[must_use]
    pub fn has_secret(&self) -> bool {
        !self.verifiers.is_empty()
    }

    /// What the weakest of its schemes proves.
    #[must_use]
    pub fn integrity(&self) -> Integrity {
        self.verifiers.iter().map(|verifier| verifier.integrity).min().unwrap_or(Integrity::None)
    }

    /// What to answer when a verified delivery cannot be kept now: 503 with `Retry-After`, or what makes this provider try
    /// again.
    #[must_use]
    pub fn overloaded(&self) -> Reply {
        self.overloaded.clone()
    }

    /// The methods that a request may have, deliveries' and handshakes', as the header `Allow` has them (RFC 9110, section 10.2.1).
    pub(crate) fn allow(&self) -> &HeaderValue {
        &self.allow
    }

    /// Judges a request. Pure, and total: whatever the bytes, it neither panics nor waits.
    #[must_use]
    pub fn receive(&self, request: &Request<'_>) -> Verdict {
        self.receive_shared(request, &Bytes::copy_from_slice(request.body))
    }

    /// The same for a request whose body is all of `body`: deliveries share it.
    #[must_use]
    pub(crate) fn receive_shared(&self, request: &Request<'_>, body: &Bytes) -> Verdict {
        match self.judge(request, body) {
            Ok(verdict) => verdict,
            Err(Failure::KeyNeeded(key)) => Verdict::KeyNeeded(key),
            Err(Failure::Refused(reason)) => Verdict::Refused(self.refuse(reason)),
        }
    }

    /// Verifies a request and does nothing more: what its signature proves.
    ///
    /// # Errors
    /// It is not verified, or a key has to be fetched first.
    pub fn verify(&self, request: &Request<'_>) -> Result<Integrity, Verdict> {
        let url = self.url(request);
        self.verify_with(request, &url).map(|verifier| verifier.integrity).map_err(|failure| match failure {
            Failure::KeyNeeded(key) => Verdict::KeyNeeded(key),
            Failure::Refused(reason) => Verdict::Refused(self.refuse(reason)),
        })
    }

    fn judge(&self, request: &Request<'_>, body: &Bytes) -> Result<Verdict, Failure> {
        if let Some(verdict) = self.greet_unsigned(request)? {
            return Ok(verdict);
        }
        if !self.methods.iter().any(|method| method == request.method.as_str()) {
            return Err(Reason::Method.into());
        }
        let url = self.url(request);
        let verifier = self.verify_with(request, &url)?;
        if self.format == Format::Cloudevents {
            let deliveries = cloudevents::deliveries(&Scope::of(request, None), verifier.integrity)?;
            return Ok(Verdict::Deliveries { deliveries, ack: self.ack.clone() });
        }
        let body = Body::read(request, body, self.format, self.form_json.as_deref())?;
        let scope = Scope { url: &url, secret: self.secret(), ..Scope::of(request, body.root()?) };
        if let Some(greeting) =
            self.greetings.iter().find(|greeting| greeting.verified && greeting.is(&scope))
        {
            return Ok(greeting.answer(&scope)?);
        }
        let deliveries = self.mapping.deliveries(&scope, &body.content, verifier.integrity)?;
        Ok(Verdict::Deliveries { deliveries, ack: self.ack.clone() })
    }

    /// Handshakes that come before there is a signature. A POST that may not be one now is judged as a delivery.
    fn greet_unsigned(&self, request: &Request<'_>) -> Result<Option<Verdict>, Reason> {
        for greeting in self.greetings.iter().filter(|greeting| !greeting.verified) {
            let get = request.method == Method::GET || request.method == Method::HEAD;
            if greeting.method() != request.method.as_str() && !(get && greeting.method() == "GET") {
                continue;
            }
            let root =
                if greeting.needs_json() && request.pending { json::parse(request.body).ok() } else { None };
            let scope = Scope { secret: self.secret(), ..Scope::of(request, root) };
            if !greeting.is(&scope) {
                continue;
            }
            match greeting.allow(&scope, self.has_secret()) {
                Ok(()) => return greeting.answer(&scope).map(Some),
                Err(_) if request.method == Method::POST => {}
                Err(reason) => return Err(reason),
            }
        }
        Ok(None)
    }

    fn verify_with(&self, request: &Request<'_>, url: &str) -> Result<&Verifier, Failure> {
        let first = self.verifiers.first().ok_or(Reason::NoSecret)?;
        let converted;
        let root = match (self.signs_json, self.format) {
            (false, _) => None,
            (true, Format::Soap) => {
                converted = soap::to_json(request.body).map_err(unreadable)?;
                Some(json::parse(converted.as_bytes()).map_err(unreadable)?)
            }
            (true, _) if request.body.is_empty() => None,
            (true, _) => Some(json::parse(request.body).map_err(unreadable)?),
        };
        let scope = Scope { url, ..Scope::of(request, root) };
        // Without any signature the first scheme says what is missing.
        let verifier = match &self.verifiers[..] {
            [only] => only,
            several => several.iter().find(|verifier| verifier.applies(&scope)).unwrap_or(first),
        };
        verifier.verify(&scope, &self.settings.keys)?;
        Ok(verifier)
    }

    /// What handshakes are answered with, where that takes the secret.
    fn secret(&self) -> &[u8] {
        self.settings.secrets.first().map_or(b"", |secret| secret.expose().as_bytes())
    }

    fn url<'a>(&'a self, request: &Request<'_>) -> Cow<'a, str> {
        match &self.settings.public_url {
            Some(public_url) => url::full(public_url, request.query()),
            None => Cow::Borrowed(""),
        }
    }

    fn refuse(&self, reason: Reason) -> Refusal {
        let status = match reason {
            Reason::Method => StatusCode::METHOD_NOT_ALLOWED,
            Reason::Body(_) => StatusCode::BAD_REQUEST,
            Reason::Format(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Reason::NotPending => StatusCode::FORBIDDEN,
            _ => self.reject,
        };
        Refusal { status, reason }
    }

    pub(crate) fn parts(&self) -> (&Settings, &[Verifier]) {
        (&self.settings, &self.verifiers)
    }
}

fn allow(methods: &[String], greetings: &[Greeting]) -> Result<HeaderValue, String> {
    let mut all: Vec<&str> = methods.iter().map(String::as_str).collect();
    for greeting in greetings {
        all.push(greeting.method());
        all.extend((greeting.method() == "GET").then_some("HEAD"));
    }
    let mut seen = HashSet::new();
    all.retain(|method| seen.insert(*method));
    HeaderValue::from_str(&all.join(", ")).map_err(|_| "a method that is none".to_owned())
}

/// A verified body as its format says.
struct Body<'a> {
    /// The JSON that it was turned into.
    converted: Option<Vec<u8>>,
    /// The JSON that it is.
    json: Option<json::Value<'a>>,
    content: Content,
}

impl<'a> Body<'a> {
    /// A verified body is never lost for what it is: what is no JSON is kept as text or bytes. Only JSON with a key twice is
    /// refused, for two readers could see two different events in it.
    fn read(
        request: &Request<'a>,
        whole: &Bytes,
        format: Format,
        form_json: Option<&str>,
    ) -> Result<Self, Reason> {
        let content_type = request.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let raw = request.body;
        if raw.is_empty() {
            let content = Content { data: Data::Empty, content_type: None };
            return Ok(Self { converted: None, json: None, content });
        }
        if format == Format::Soap {
            let text = soap::to_json(raw).map_err(body_reason)?;
            return Ok(Self::converted(text.into_bytes()));
        }
        let says_json = content_type.is_some_and(cloudevents::is_json);
        let plain = || {
            let data = match std::str::from_utf8(raw) {
                Ok(_) => Data::Text(whole.clone()),
                Err(_) => Data::Binary(whole.clone()),
            };
            let content_type = content_type.filter(|_| !says_json).map(str::to_owned);
            Self { converted: None, json: None, content: Content { data, content_type } }
        };
        // Nobody's form begins like a JSON object, but JSON is sent as a form by who leaves the content type to curl.
        let like_json = raw.trim_ascii_start().first().is_some_and(|first| matches!(first, b'{' | b'['));
        if content_type.is_some_and(form::is) && !like_json {
            let payload = std::str::from_utf8(raw).ok().zip(form_json);
            let payload = payload.and_then(|(form, name)| form::first(form, name));
            let payload = payload.map(|payload| payload.into_owned().into_bytes());
            return Ok(match payload {
                Some(payload) if matches!(json::parse(&payload), Ok(_) | Err(json::TWICE)) => {
                    Self::converted(payload)
                }
                _ => plain(),
            });
        }
        match json::parse(raw) {
            // Whoever may send any text may send that too, if he does not call it JSON.
            Err(json::TWICE) if format == Format::Json || says_json => Err(body_reason(json::TWICE)),
            Err(_) => Ok(plain()),
            Ok(json) => {
                let content_type = content_type.filter(|_| says_json).unwrap_or("application/json");
                let content_type = Some(content_type.to_owned());
                let content = Content { data: Data::Json(whole.clone()), content_type };
                Ok(Self { converted: None, json: Some(json), content })
            }
        }
    }

    /// JSON that a body was turned into.
    fn converted(text: Vec<u8>) -> Self {
        let content_type = Some("application/json".to_owned());
        let content = Content { data: Data::Json(Bytes::copy_from_slice(&text)), content_type };
        Self { converted: Some(text), json: None, content }
    }

    /// The JSON that pointers look into.
    fn root(&self) -> Result<Option<json::Value<'_>>, Reason> {
        match &self.converted {
            Some(text) => json::parse(text).map(Some).map_err(body_reason),
            None => Ok(self.json),
        }
    }
}

fn body_reason(problem: &str) -> Reason {
    Reason::Body(problem.to_owned())
}

/// A body that holds its own signature, and cannot be read: nobody has signed it.
fn unreadable(problem: &str) -> Reason {
    Reason::Malformed(format!("the body, which the signature is in ({problem}),"))
}

/// The provider's rules with the user's parameters in them.
fn rules(provider: &Provider, settings: &Settings) -> Result<Rules, SettingsError> {
    let wrong = |name: &str, problem: &str| SettingsError::Parameter {
        provider: provider.name().to_owned(),
        name: name.to_owned(),
        problem: problem.to_owned(),
    };
    let known = &provider.definition().parameters;
    if let Some(name) = settings.parameters.keys().find(|name| !known.contains_key(*name)) {
        let names: Vec<_> = known.keys().map(String::as_str).collect();
        let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        return Err(wrong(name, &format!("unknown; there are: {names}")));
    }
    let mut values = BTreeMap::new();
    for (name, parameter) in known {
        let set = settings.parameters.get(name).map(Secret::expose).filter(|value| !value.is_empty());
        let value = set.or(parameter.default.as_deref());
        let value = value.ok_or_else(|| wrong(name, &format!("has to be set: {}", parameter.about)))?;
        if !parameter.one_of.is_empty() && !parameter.one_of.iter().any(|known| known == value) {
            return Err(wrong(name, &format!("has to be one of {}", parameter.one_of.join(", "))));
        }
        values.insert(name.as_str(), value);
    }
    // The error's own text may quote a parameter, and parameters may be secret.
    provider
        .rules(&values)
        .map_err(|_| wrong("(any)", "one of the values does not fit; see the provider's page"))
}

/// The schemes that the endpoint's secrets fit. None at all is an error, unless a handshake will bring the secret.
fn verifiers(
    provider: &Provider,
    rules: &Rules,
    settings: &Settings,
) -> Result<Vec<Verifier>, SettingsError> {
    let name = || provider.name().to_owned();
    let mut problems = vec![None; settings.secrets.len()];
    let mut found = Vec::new();
    for scheme in &rules.verify {
        let mut fitting = Vec::new();
        for (secret, problem) in settings.secrets.iter().zip(&mut problems) {
            match Verifier::new(scheme, std::slice::from_ref(secret), settings.tolerance) {
                Ok(Some(_)) if scheme.takes_secrets() => {
                    *problem = Some(Ok(()));
                    fitting.push(secret.clone());
                }
                Err(text) if problem.is_none() => *problem = Some(Err(text)),
                _ => {}
            }
        }
        let verifier = Verifier::new(scheme, &fitting, settings.tolerance);
        found.extend(verifier.map_err(|problem| SettingsError::Parameter {
            provider: name(),
            name: "(any)".to_owned(),
            problem,
        })?);
    }
    for (index, problem) in problems.into_iter().enumerate() {
        let problem = match problem {
            Some(Ok(())) => continue,
            Some(Err(problem)) => problem,
            None => "no scheme of the provider takes it".to_owned(),
        };
        return Err(SettingsError::Secret { provider: name(), index: index + 1, problem });
    }
    if found.is_empty() && !provider.definition().secret.captured {
        return Err(SettingsError::NoSecret { provider: name(), hint: provider.secret().to_owned() });
    }
    let any = !found.is_empty();
    if settings.integrity == Policy::Body {
        found.retain(|verifier| verifier.integrity == Integrity::Body);
    }
    if any && found.is_empty() {
        return Err(SettingsError::Integrity { provider: name() });
    }
    if settings.public_url.is_none() && found.iter().any(Verifier::needs_url) {
        return Err(SettingsError::NoPublicUrl { provider: name() });
    }
    Ok(found)
}
