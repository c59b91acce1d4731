//! Samples signed as the provider would sign them: for test deliveries through the whole gateway.

use crate::{
    Endpoint, Reason, Request,
    json::{self, Pointer},
    soap,
    template::Scope,
    verify::{Verifier, signature::Slot, url},
};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method};

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

impl From<Reason> for SignError {
    fn from(_: Reason) -> Self {
        Self::OnlyProvider
    }
}

impl Endpoint {
    /// A sample of the provider's (the first, if none is named), signed as the provider would sign it now (microseconds
    /// since 1970-01-01 UTC).
    ///
    /// # Errors
    /// There is no such sample, or only the provider can sign (public keys).
    pub fn sign(&self, sample: Option<&str>, now: i64) -> Result<SignedRequest, SignError> {
        let samples = &self.provider().definition().sample;
        let found = samples.iter().find(|found| sample.is_none_or(|name| name == found.name));
        let found = found.ok_or_else(|| SignError::NoSample {
            name: sample.unwrap_or_default().to_owned(),
            known: self.provider().samples().collect::<Vec<_>>().join(", "),
        })?;
        self.sign_with(
            SignedRequest {
                method: Method::POST,
                query: found.query.clone(),
                headers: found.header_map().unwrap_or_default(),
                body: Bytes::from(found.body.clone()),
            },
            now,
        )
    }

    /// A delivery that never arrived, found by the provider's API, signed as the provider would have signed it.
    ///
    /// # Errors
    /// Only the provider can sign, or there is no secret.
    pub fn sign_delivery(
        &self,
        headers: HeaderMap,
        body: Bytes,
        now: i64,
    ) -> Result<SignedRequest, SignError> {
        self.sign_with(SignedRequest { method: Method::POST, query: String::new(), headers, body }, now)
    }

    fn sign_with(&self, mut signed: SignedRequest, now: i64) -> Result<SignedRequest, SignError> {
        let (_, verifiers) = self.parts();
        let verifier = verifiers.first().ok_or(SignError::NoSecret)?;
        let stamp = verifier.timestamp.as_ref().map(|rules| (rules, rules.unit.write(now)));
        let mut field = None;
        if let Some((rules, text)) = &stamp {
            let source = rules.source.trim_start_matches('{').trim_end_matches('}');
            match source.split_once(':') {
                Some(("header", name)) => insert(&mut signed.headers, name, text),
                Some(("field", name)) => field = Some((name, text.as_str())),
                _ => signed.body = splice(&signed.body, source, text),
            }
        }
        let Some(items) = &verifier.items else {
            self.sign_one(verifier, &mut signed, None, field, now)?;
            return Ok(signed);
        };
        let count =
            json::parse(&signed.body).ok().and_then(|root| root.get(items)).and_then(json::Value::elements);
        for index in 0..count.map_or(0, |elements| elements.len()) {
            self.sign_one(verifier, &mut signed, Some((items, index)), field, now)?;
        }
        Ok(signed)
    }

    fn sign_one(
        &self,
        verifier: &Verifier,
        signed: &mut SignedRequest,
        item: Option<(&Pointer, usize)>,
        field: Option<(&str, &str)>,
        now: i64,
    ) -> Result<(), SignError> {
        let (settings, _) = self.parts();
        let path_and_query = format!("/{}{}", if signed.query.is_empty() { "" } else { "?" }, signed.query);
        let full = url::full(settings.public_url.as_deref().unwrap_or_default(), &signed.query).into_owned();
        let request = Request {
            method: &signed.method,
            path_and_query: &path_and_query,
            headers: &signed.headers,
            body: &signed.body,
            received_at: now,
            pending: false,
        };
        let root = json::parse(&signed.body).ok();
        let element = item.and_then(|(items, index)| root?.get(items)?.elements()?.get(index).copied());
        let fields: Vec<_> = field.into_iter().collect();
        let mut scope = Scope { url: &full, fields: &fields, ..Scope::of(&request, root) };
        scope.item = element.or(root);
        let stamp = verifier.timestamp.as_ref().map(|rules| rules.find(&scope)).transpose()?;
        scope.timestamp = stamp.as_deref().unwrap_or_default();
        let signature = verifier.sign(&scope)?.ok_or(SignError::OnlyProvider)?;
        let (slot, text) = verifier.finder.write(&signature, field);
        match slot {
            Slot::Header(name) => {
                let name = name.clone();
                insert(&mut signed.headers, name.as_str(), &text);
            }
            Slot::Query(name) => {
                let between = if signed.query.is_empty() { "" } else { "&" };
                signed.query = format!("{}{between}{name}={text}", signed.query);
            }
            Slot::Json(pointer) => {
                let at = scope.item.and_then(|item| item.get(pointer)).map(json::Value::text);
                signed.body = match at {
                    Some(at) => replace(&signed.body, at, &text),
                    // Where the body is no JSON, it is SOAP.
                    None => soap::replace(&signed.body, pointer.last().unwrap_or_default(), &text),
                };
            }
        }
        Ok(())
    }
}

fn insert(headers: &mut HeaderMap, name: &str, value: &str) {
    if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), HeaderValue::from_str(value)) {
        headers.insert(name, value);
    }
}

/// The body with another scalar at this pointer.
fn splice(body: &Bytes, pointer: &str, text: &str) -> Bytes {
    let found = json::parse(body).ok().zip(Pointer::parse(pointer).ok()).and_then(|(root, at)| root.get(&at));
    found.map_or_else(|| body.clone(), |found| replace(body, found.text(), text))
}

/// The body with another scalar in the place of one of its own, a string where that is one.
fn replace(body: &Bytes, old: &str, new: &str) -> Bytes {
    let start = old.as_ptr() as usize - body.as_ptr() as usize;
    let new = if old.starts_with('"') { format!("\"{new}\"") } else { new.to_owned() };
    Bytes::from([&body[..start], new.as_bytes(), &body[start + old.len()..]].concat())
}
