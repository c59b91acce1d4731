//! Where a signature or token is found in a request, and how it is written there.
//!
//! Total over hostile input: no slice by a fixed length, no more than [`CANDIDATES`] signatures looked at, a header that
//! comes twice refused, a prefix matched exactly.

use super::candidate::{Candidate, Candidates};
use crate::{
    Reason,
    json::{Pointer, Value},
    template::{Scope, hex},
};
use base64::{Engine as _, engine::general_purpose};
use http::HeaderName;
use serde::Deserialize;
use std::borrow::Cow;

/// Most signatures of one request that are compared; a provider that rotates keys sends two.
const CANDIDATES: usize = 16;

/// The `signature` table of a provider's `[[verify]]`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Location {
    /// Headers that may hold it, each with signatures of its own (DocuSign numbers them).
    #[serde(default)]
    headers: Vec<String>,
    /// The one header that holds it.
    header: Option<String>,
    query: Option<String>,
    json: Option<String>,
    /// What stands before it, exactly.
    #[serde(default)]
    prefix: String,
    /// Whether the prefix may be left out.
    #[serde(default)]
    prefix_optional: bool,
    /// What separates several of them.
    split: Option<String>,
    /// What separates name and value where they are pairs.
    pairs: Option<String>,
    /// The name of the pairs that are signatures.
    #[serde(default)]
    take: String,
    /// How its bytes are written.
    #[serde(default)]
    encoding: Encoding,
}

/// How bytes are written as text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Encoding {
    /// As they are.
    #[default]
    Plain,
    /// Hexadecimal, in either case.
    Hex,
    /// Base64 with padding.
    Base64,
    /// Base64 for URLs, without padding.
    Base64url,
}

impl Encoding {
    /// The bytes behind the text.
    pub(crate) fn decode(self, text: &str) -> Option<Vec<u8>> {
        match self {
            Self::Plain => Some(text.as_bytes().to_vec()),
            Self::Hex => Candidate::unhex(text).map(|bytes| bytes.to_vec()),
            Self::Base64 => general_purpose::STANDARD.decode(text).ok(),
            Self::Base64url => general_purpose::URL_SAFE_NO_PAD.decode(text).ok(),
        }
    }

    /// The same, for a signature.
    fn candidate(self, text: &str) -> Option<Candidate> {
        match self {
            Self::Hex => Candidate::unhex(text),
            _ => self.decode(text).map(Candidate::Long),
        }
    }

    /// The text of bytes.
    pub(crate) fn encode(self, bytes: &[u8]) -> String {
        match self {
            Self::Plain => String::from_utf8_lossy(bytes).into_owned(),
            Self::Hex => hex(bytes),
            Self::Base64 => general_purpose::STANDARD.encode(bytes),
            Self::Base64url => general_purpose::URL_SAFE_NO_PAD.encode(bytes),
        }
    }
}

/// A compiled [`Location`].
#[derive(Clone, Debug)]
pub(crate) struct Finder {
    place: Place,
    rules: Location,
}

#[derive(Clone, Debug)]
enum Place {
    Headers(Vec<HeaderName>),
    Query(String),
    Json(Pointer),
}

/// What was found.
pub(crate) struct Found<'a> {
    /// The signatures' bytes; never empty.
    pub(crate) candidates: Candidates,
    /// All pairs, if they are pairs.
    pub(crate) fields: Vec<(&'a str, &'a str)>,
}

impl Finder {
    /// Checks the rules.
    pub(crate) fn new(rules: Location) -> Result<Self, String> {
        let mut headers = rules.headers.clone();
        headers.extend(rules.header.clone());
        let place = match (headers.is_empty(), &rules.query, &rules.json) {
            (false, None, None) => {
                let names = headers
                    .iter()
                    .map(|name| name.parse().map_err(|_| format!("\"{name}\" is not a header's name")));
                Place::Headers(names.collect::<Result<_, String>>()?)
            }
            (true, Some(name), None) => Place::Query(name.clone()),
            (true, None, Some(pointer)) => Place::Json(Pointer::parse(pointer)?),
            _ => return Err("signature: exactly one of header, headers, query, json".to_owned()),
        };
        if rules.pairs.is_some() == rules.take.is_empty() {
            return Err("signature: pairs and take belong together".to_owned());
        }
        Ok(Self { place, rules })
    }

    /// Whether a request has anything at this place, in this form.
    pub(crate) fn is_present(&self, scope: &Scope<'_>) -> bool {
        match &self.place {
            Place::Headers(names) => names.iter().any(|name| {
                scope.request.headers.get_all(name).iter().any(|value| {
                    // A prefix or name of another scheme's does not count.
                    std::str::from_utf8(value.as_bytes()).is_ok_and(|text| self.parts(text).next().is_some())
                })
            }),
            Place::Query(name) => crate::form::count(scope.request.query(), name) > 0,
            Place::Json(pointer) => scope.item.and_then(|item| item.get(pointer)).is_some(),
        }
    }

    /// What it is called, for reasons.
    pub(crate) fn name(&self) -> String {
        match &self.place {
            Place::Headers(names) => {
                names.iter().map(|name| format!("header {name}")).collect::<Vec<_>>().join(" or ")
            }
            Place::Query(name) => format!("query parameter {name}"),
            Place::Json(_) => "the signature in the body".to_owned(),
        }
    }

    /// Whether it is inside JSON.
    pub(crate) fn is_json(&self) -> bool {
        matches!(self.place, Place::Json(_))
    }

    /// The headers that hold it.
    pub(crate) fn headers(&self) -> &[HeaderName] {
        match &self.place {
            Place::Headers(names) => names,
            Place::Query(_) | Place::Json(_) => &[],
        }
    }

    /// Finds and decodes the signatures.
    pub(crate) fn find<'a>(&self, scope: &Scope<'a>) -> Result<Found<'a>, Reason> {
        let mut found = Found { candidates: Candidates::default(), fields: Vec::new() };
        let mut seen = false;
        match &self.place {
            Place::Headers(names) => {
                for name in names {
                    if let Some(text) = scope.header(name)? {
                        seen = true;
                        self.take(text, &mut found);
                        self.fields(text, &mut found.fields);
                    }
                }
            }
            Place::Query(name) => {
                if crate::form::count(scope.request.query(), name) > 1 {
                    return Err(Reason::Doubled(self.name()));
                }
                if let Some(text) = crate::form::first(scope.request.query(), name) {
                    seen = true;
                    self.take(&text, &mut found);
                }
            }
            Place::Json(pointer) => {
                let value: Option<Cow<'_, str>> =
                    scope.item.and_then(|v| v.get(pointer)).and_then(Value::scalar);
                if let Some(text) = value {
                    seen = true;
                    self.take(&text, &mut found);
                }
            }
        }
        match (found.candidates.is_empty(), seen) {
            (false, _) => Ok(found),
            (true, true) => Err(Reason::Malformed(self.name())),
            (true, false) => Err(Reason::Missing(self.name())),
        }
    }

    fn take(&self, text: &str, found: &mut Found<'_>) {
        let room = CANDIDATES - found.candidates.len().min(CANDIDATES);
        let decoded = self.parts(text).take(room).filter_map(|part| self.rules.encoding.candidate(part));
        decoded.filter(|bytes| !bytes.is_empty()).for_each(|bytes| found.candidates.push(bytes));
    }

    fn fields<'a>(&self, text: &'a str, fields: &mut Vec<(&'a str, &'a str)>) {
        if let (Some(pairs), Some(split)) = (&self.rules.pairs, &self.rules.split) {
            fields
                .extend(text.split(split.as_str()).filter_map(|part| part.trim().split_once(pairs.as_str())));
        }
    }

    /// The signatures in a text, still encoded.
    fn parts<'t>(&'t self, text: &'t str) -> impl Iterator<Item = &'t str> {
        let split = self.rules.split.as_deref();
        let whole = split.is_none().then_some(text);
        let list = split.into_iter().flat_map(|split| text.split(split).map(str::trim));
        whole.into_iter().chain(list).filter_map(move |part| {
            if let Some(pairs) = &self.rules.pairs {
                let (name, value) = part.split_once(pairs.as_str())?;
                return (name == self.rules.take).then_some(value);
            }
            match part.strip_prefix(self.rules.prefix.as_str()) {
                None if self.rules.prefix_optional => Some(part),
                stripped => stripped,
            }
        })
    }

    /// Where and how a signature is written, for signing samples, with `timestamp` among its pairs.
    pub(crate) fn write(&self, signature: &[u8], timestamp: Option<(&str, &str)>) -> (Slot<'_>, String) {
        let encoded = self.rules.encoding.encode(signature);
        let text = match &self.rules.pairs {
            Some(pairs) => {
                let split = self.rules.split.as_deref().unwrap_or(",");
                let stamp = timestamp.map(|(name, value)| format!("{name}{pairs}{value}{split}"));
                format!("{}{}{pairs}{encoded}", stamp.unwrap_or_default(), self.rules.take)
            }
            None => format!("{}{encoded}", self.rules.prefix),
        };
        let slot = match &self.place {
            Place::Headers(names) => Slot::Header(&names[0]),
            Place::Query(name) => Slot::Query(name),
            Place::Json(pointer) => Slot::Json(pointer),
        };
        (slot, text)
    }
}

/// Where a signature is written.
pub(crate) enum Slot<'a> {
    Header(&'a HeaderName),
    Query(&'a str),
    Json(&'a Pointer),
}
