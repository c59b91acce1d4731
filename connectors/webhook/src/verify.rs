//! Verification: whether a request comes from who holds the key, judged over its raw bytes.
//!
//! A provider has one or several schemes. The first whose signature a request carries decides, and decides alone: a right
//! weaker signature does not rescue a wrong stronger one, and a scheme that none of the endpoint's secrets fits does not
//! exist. Signatures and tokens are compared in constant time over decoded bytes of full length. Nothing of a request is
//! parsed before its signature holds, but for the schemes that sign values inside the body.

mod candidate;
mod certificate;
pub(crate) mod condition;
mod jwt;
pub(crate) mod signature;
pub(crate) mod timestamp;
pub(crate) mod url;

use crate::{
    Integrity, KeyRequest, KeyRing, Reason, Secret,
    json::{self, Pointer, Value},
    template::{Scope, Template, hex},
};
use aws_lc_rs::{
    constant_time::verify_slices_are_equal,
    digest, hmac,
    signature::{self as public, ParsedPublicKey, VerificationAlgorithm},
};
use candidate::Candidate;
use certificate::Certificate;
pub(crate) use certificate::is_like;
use condition::Condition;
use jwt::Jwt;
use serde::Deserialize;
use signature::{Encoding, Finder, Location};
use timestamp::{Timestamp, Tolerance};

/// A provider's `[[verify]]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Rules {
    /// What the provider calls the scheme.
    name: String,
    algorithm: Algorithm,
    #[serde(default)]
    key: KeyRules,
    signature: Location,
    /// What is signed.
    #[serde(default)]
    message: String,
    timestamp: Option<timestamp::Rules>,
    /// Where the items are that are signed one by one.
    items: Option<String>,
    /// When this scheme is meant, beside its signature being there.
    #[serde(default)]
    when: Vec<condition::Rule>,
    /// What else must hold once the signature does.
    #[serde(default)]
    require: Vec<condition::Rule>,
    #[serde(default)]
    url_variants: Vec<url::Variant>,
    /// The query parameter with the body's SHA-256 in hexadecimal, where the body is no form (Twilio).
    body_hash: Option<String>,
    certificate: Option<certificate::Rules>,
    jwt: Option<jwt::Rules>,
}

/// How a key is made of a secret's text.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct KeyRules {
    #[serde(default)]
    encoding: Encoding,
    /// What a secret begins with; cut off.
    #[serde(default)]
    prefix: String,
    /// Secrets without the prefix are not this scheme's.
    #[serde(default)]
    prefix_required: bool,
    /// Secrets that begin with this are another scheme's.
    #[serde(default)]
    not_prefix: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Algorithm {
    HmacSha1,
    HmacSha256,
    HmacSha384,
    HmacSha512,
    /// A plain hash of a message that holds the secret.
    Sha256,
    Ed25519,
    EcdsaP256Sha256,
    RsaSha1,
    RsaSha256,
    /// The secret itself comes along.
    Token,
    Jwt,
    /// Nothing but what `require` says (a certificate checked elsewhere).
    Require,
}

impl Algorithm {
    fn public(self) -> Option<&'static dyn VerificationAlgorithm> {
        match self {
            Self::Ed25519 => Some(&public::ED25519),
            Self::EcdsaP256Sha256 => Some(&public::ECDSA_P256_SHA256_ASN1),
            Self::RsaSha1 => Some(&public::RSA_PKCS1_2048_8192_SHA1_FOR_LEGACY_USE_ONLY),
            Self::RsaSha256 => Some(&public::RSA_PKCS1_2048_8192_SHA256),
            _ => None,
        }
    }

    fn hmac(self) -> Option<hmac::Algorithm> {
        match self {
            Self::HmacSha1 => Some(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY),
            Self::HmacSha256 => Some(hmac::HMAC_SHA256),
            Self::HmacSha384 => Some(hmac::HMAC_SHA384),
            Self::HmacSha512 => Some(hmac::HMAC_SHA512),
            _ => None,
        }
    }
}

/// One scheme with an endpoint's keys.
#[derive(Debug)]
pub(crate) struct Verifier {
    rules: Rules,
    pub(crate) finder: Finder,
    message: Template,
    pub(crate) timestamp: Option<Timestamp>,
    pub(crate) items: Option<Pointer>,
    when: Vec<Condition>,
    require: Vec<Condition>,
    /// What a signature of this scheme proves.
    pub(crate) integrity: Integrity,
    /// Whether something in the JSON has to hold that is not needed for the signature.
    reads_json_after: bool,
    keys: Keys,
}

enum Keys {
    Hmac(Vec<hmac::Key>),
    /// Secrets that are compared, or hashed with the message.
    Plain(Vec<Vec<u8>>),
    Public(Vec<ParsedPublicKey>),
    Certificate(Certificate),
    Jwt(Jwt),
}

/// Shows how many there are.
impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (kind, count) = match self {
            Self::Hmac(keys) => ("Hmac", keys.len()),
            Self::Plain(keys) => ("Plain", keys.len()),
            Self::Public(keys) => ("Public", keys.len()),
            Self::Certificate(_) => ("Certificate", 1),
            Self::Jwt(_) => ("Jwt", 1),
        };
        write!(f, "{kind}({count})")
    }
}

/// Why a request is not verified.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    Refused(Reason),
    KeyNeeded(KeyRequest),
}

impl From<Reason> for Failure {
    fn from(reason: Reason) -> Self {
        Self::Refused(reason)
    }
}

/// Whether a document holds keys: a set of JSON web keys, or a certificate.
pub(crate) fn has_keys(document: &[u8]) -> bool {
    jwt::has_keys(document) || certificate::has_key(document)
}

impl Verifier {
    /// Compiles one scheme. `None`: none of the secrets is a key of it.
    pub(crate) fn new(
        rules: &Rules,
        secrets: &[Secret],
        tolerance: Tolerance,
    ) -> Result<Option<Self>, String> {
        let finder = Finder::new(rules.signature.clone())?;
        let timestamp = rules.timestamp.as_ref().map(|t| Timestamp::new(t, tolerance)).transpose()?;
        let message = Template::parse(&rules.message)?;
        if rules.algorithm == Algorithm::Sha256 && !message.has_secret() {
            return Err(
                "algorithm \"sha256\" hashes what anybody knows: message needs {secret}, or use hmac-sha256"
                    .to_owned(),
            );
        }
        let items = rules.items.as_deref().map(Pointer::parse).transpose()?;
        let (when, require) = (Condition::all(&rules.when)?, Condition::all(&rules.require)?);
        let integrity = rules.integrity(&message);
        let reads_json_after = timestamp.as_ref().is_some_and(|timestamp| timestamp.template.has_json())
            || require.iter().any(Condition::has_json);
        let Some(keys) = rules.keys(secrets)? else { return Ok(None) };
        let rules = rules.clone();
        Ok(Some(Self {
            rules,
            finder,
            message,
            timestamp,
            items,
            when,
            require,
            integrity,
            reads_json_after,
            keys,
        }))
    }

    /// Whether the endpoint's public URL is part of what is signed.
    pub(crate) fn needs_url(&self) -> bool {
        self.message.has_url()
    }

    /// Whether the body has to be read as JSON before its signature can be verified.
    pub(crate) fn needs_json(&self) -> bool {
        self.finder.is_json()
            || self.items.is_some()
            || self.message.has_json()
            || self.when.iter().any(Condition::has_json)
            || matches!(&self.keys, Keys::Certificate(certificate) if certificate.url.has_json())
    }

    /// Whether a request is signed by this scheme.
    pub(crate) fn applies(&self, scope: &Scope<'_>) -> bool {
        let first = self.elements(scope).ok().and_then(|elements| elements.first().copied());
        let scope = &Scope { item: first.or(scope.item), ..*scope };
        self.finder.is_present(scope) && self.when.iter().all(|when| when.holds(scope) == Ok(true))
    }

    /// Verifies a request, every signed item of it.
    pub(crate) fn verify(&self, scope: &Scope<'_>, ring: &KeyRing) -> Result<(), Failure> {
        if self.items.is_none() {
            return self.verify_one(scope, ring);
        }
        let elements = self.elements(scope)?;
        if elements.is_empty() {
            return Err(Reason::Missing("an item that could be signed".to_owned()).into());
        }
        elements.iter().try_for_each(|item| self.verify_one(&Scope { item: Some(*item), ..*scope }, ring))
    }

    fn elements<'a>(&self, scope: &Scope<'a>) -> Result<Vec<Value<'a>>, Reason> {
        let Some(pointer) = &self.items else { return Ok(Vec::new()) };
        let array = scope.root.and_then(|root| root.get(pointer)).and_then(Value::elements);
        array.ok_or_else(|| Reason::Missing("the array of the signed items".to_owned()))
    }

    fn verify_one(&self, scope: &Scope<'_>, ring: &KeyRing) -> Result<(), Failure> {
        let found = self.finder.find(scope)?;
        let stamp;
        let mut scope = Scope { fields: &found.fields, ..*scope };
        let early = self.timestamp.as_ref().filter(|timestamp| !timestamp.template.has_json());
        if let Some(timestamp) = early {
            stamp = timestamp.find(&scope)?;
            scope.timestamp = &stamp;
        }
        self.verify_signature(&scope, &found.candidates, ring)?;
        self.verify_body_hash(&scope)?;
        if scope.root.is_none() && self.reads_json_after && !scope.request.body.is_empty() {
            // What is no JSON says no time; what of it is refused is decided where it is read.
            scope.root = json::parse(scope.request.body).ok();
            scope.item = scope.root;
        }
        for require in &self.require {
            if !require.holds(&scope)? {
                return Err(Reason::Mismatch.into());
            }
        }
        let now = scope.request.received_at;
        match (&self.timestamp, early) {
            (Some(timestamp), None) => Ok(timestamp.check(&timestamp.find(&scope)?, now)?),
            (Some(timestamp), Some(_)) => Ok(timestamp.check(scope.timestamp, now)?),
            (None, _) => Ok(()),
        }
    }

    fn verify_signature(
        &self,
        scope: &Scope<'_>,
        candidates: &[Candidate],
        ring: &KeyRing,
    ) -> Result<(), Failure> {
        if self.rules.url_variants.is_empty() {
            return self.verify_spelling(scope, candidates, ring);
        }
        let mut verdict = Err(Reason::Mismatch.into());
        for url in url::spellings(scope.url, &self.rules.url_variants) {
            verdict = self.verify_spelling(&Scope { url: &url, ..*scope }, candidates, ring);
            if verdict.is_ok() {
                break;
            }
        }
        verdict
    }

    fn verify_spelling(
        &self,
        scope: &Scope<'_>,
        candidates: &[Candidate],
        ring: &KeyRing,
    ) -> Result<(), Failure> {
        let equal = |a: &[u8]| candidates.iter().any(|b| verify_slices_are_equal(a, b).is_ok());
        let holds = match &self.keys {
            Keys::Hmac(keys) => {
                let mut holds = false;
                for key in keys {
                    let mut context = hmac::Context::with_key(key);
                    self.message.feed(scope, &mut |bytes| context.update(bytes))?;
                    holds = holds || equal(context.sign().as_ref());
                }
                holds
            }
            Keys::Plain(keys) if self.rules.algorithm == Algorithm::Sha256 => {
                let mut holds = false;
                for key in keys {
                    let mut context = digest::Context::new(&digest::SHA256);
                    let scope = Scope { secret: key, ..*scope };
                    self.message.feed(&scope, &mut |bytes| context.update(bytes))?;
                    holds |= equal(context.finish().as_ref());
                }
                holds
            }
            Keys::Plain(keys) => {
                self.rules.algorithm == Algorithm::Require
                    || keys.iter().any(|key| candidates.iter().any(|found| condition::same(key, found)))
            }
            Keys::Public(keys) => {
                let message = self.bytes(scope)?;
                keys.iter().any(|key| candidates.iter().any(|found| key.verify_sig(&message, found).is_ok()))
            }
            Keys::Certificate(certificate) => {
                let algorithm = self.rules.algorithm.public().ok_or(Reason::Mismatch)?;
                let key = certificate.key(scope, algorithm, ring)?;
                let message = self.bytes(scope)?;
                candidates.iter().any(|found| key.verify_sig(&message, found).is_ok())
            }
            Keys::Jwt(jwt) => {
                let [token] = candidates else { return Err(Reason::Doubled("the token".to_owned()).into()) };
                return jwt.verify(token, scope.request.body, scope.request.received_at, ring);
            }
        };
        if holds { Ok(()) } else { Err(Reason::Mismatch.into()) }
    }

    fn bytes(&self, scope: &Scope<'_>) -> Result<Vec<u8>, Reason> {
        let mut message = Vec::with_capacity(scope.request.body.len() + 64);
        self.message.feed(scope, &mut |bytes| message.extend_from_slice(bytes))?;
        Ok(message)
    }

    /// A body that is no form is signed only through its hash in the query.
    fn verify_body_hash(&self, scope: &Scope<'_>) -> Result<(), Reason> {
        let Some(parameter) = &self.rules.body_hash else { return Ok(()) };
        let is_form = scope.says_form()?;
        match crate::form::count(scope.request.query(), parameter) {
            0 if is_form || scope.request.body.is_empty() => Ok(()),
            0 => Err(Reason::Missing(format!("query parameter {parameter}"))),
            1 => {
                let hash = crate::form::first(scope.request.query(), parameter).unwrap_or_default();
                let expected = digest::digest(&digest::SHA256, scope.request.body);
                let holds =
                    condition::same(hex(expected.as_ref()).as_bytes(), hash.to_lowercase().as_bytes());
                if holds { Ok(()) } else { Err(Reason::Mismatch) }
            }
            _ => Err(Reason::Doubled(format!("query parameter {parameter}"))),
        }
    }

    /// Signs as the provider would, with the first key. `None`: only the provider can.
    pub(crate) fn sign(&self, scope: &Scope<'_>) -> Result<Option<Vec<u8>>, Reason> {
        Ok(match &self.keys {
            Keys::Hmac(keys) => {
                let Some(key) = keys.first() else { return Ok(None) };
                Some(hmac::sign(key, &self.bytes(scope)?).as_ref().to_vec())
            }
            Keys::Plain(keys) if self.rules.algorithm == Algorithm::Sha256 => {
                let Some(key) = keys.first() else { return Ok(None) };
                let message = self.bytes(&Scope { secret: key, ..*scope })?;
                Some(digest::digest(&digest::SHA256, &message).as_ref().to_vec())
            }
            Keys::Plain(keys) => keys.first().cloned(),
            Keys::Jwt(jwt) => jwt.sign(scope.request.body, scope.request.received_at),
            Keys::Public(_) | Keys::Certificate(_) => None,
        })
    }
}

impl Rules {
    /// What the provider calls the scheme.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Whether a scheme of this kind takes keys from secrets at all.
    pub(crate) fn takes_secrets(&self) -> bool {
        self.certificate.is_none()
            && self.algorithm != Algorithm::Require
            && self.jwt.as_ref().is_none_or(jwt::Rules::takes_secrets)
    }

    /// The name of the header or the like that carries its signature, if that is a secret itself.
    pub(crate) fn secret_headers(&self) -> Vec<http::HeaderName> {
        match self.algorithm {
            Algorithm::Token | Algorithm::Jwt => {
                Finder::new(self.signature.clone()).map(|f| f.headers().to_vec()).unwrap_or_default()
            }
            _ => Vec::new(),
        }
    }

    /// A checksum, a selection of fields or a token prove less than the body.
    fn integrity(&self, message: &Template) -> Integrity {
        match self.algorithm {
            Algorithm::Token | Algorithm::Require => Integrity::None,
            Algorithm::Jwt => self.jwt.as_ref().map_or(Integrity::Metadata, jwt::Rules::integrity),
            _ if message.covers_body() => Integrity::Body,
            _ => Integrity::Metadata,
        }
    }

    fn keys(&self, secrets: &[Secret]) -> Result<Option<Keys>, String> {
        if let Some(rules) = &self.certificate {
            return Ok(Some(Keys::Certificate(Certificate::new(rules)?)));
        }
        if self.algorithm == Algorithm::Require {
            return Ok(Some(Keys::Plain(Vec::new())));
        }
        let mut raw = Vec::new();
        if self.takes_secrets() {
            for secret in secrets {
                raw.extend(self.key.decode(secret.expose())?);
            }
            if raw.is_empty() {
                return Ok(None);
            }
        }
        if let Some(rules) = &self.jwt {
            return Ok(Some(Keys::Jwt(Jwt::new(rules, &raw)?)));
        }
        if let Some(algorithm) = self.algorithm.hmac() {
            return Ok(Some(Keys::Hmac(raw.iter().map(|key| hmac::Key::new(algorithm, key)).collect())));
        }
        if let Some(algorithm) = self.algorithm.public() {
            let keys = raw.iter().map(|key| ParsedPublicKey::new(algorithm, key));
            let keys =
                keys.collect::<Result<_, _>>().map_err(|_| "not a public key of its kind".to_owned())?;
            return Ok(Some(Keys::Public(keys)));
        }
        if self.algorithm == Algorithm::Jwt {
            return Err("algorithm \"jwt\" needs the table jwt".to_owned());
        }
        Ok(Some(Keys::Plain(raw)))
    }
}

impl KeyRules {
    /// The key in a secret; `None` where the secret is another scheme's.
    fn decode(&self, secret: &str) -> Result<Option<Vec<u8>>, String> {
        if !self.not_prefix.is_empty() && secret.starts_with(&self.not_prefix) {
            return Ok(None);
        }
        let text = match secret.strip_prefix(self.prefix.as_str()) {
            Some(text) => text,
            None if self.prefix_required => return Ok(None),
            None => secret,
        };
        let key = self.encoding.decode(text).ok_or_else(|| match self.encoding {
            Encoding::Hex => "it has to be hexadecimal".to_owned(),
            _ => "it has to be base64".to_owned(),
        })?;
        if key.is_empty() { Err("it is empty".to_owned()) } else { Ok(Some(key)) }
    }
}
