//! What a provider's file holds, as it is written.

use crate::{
    Reply, handshake,
    mapping::{self, Mapping},
    provider::{body, reply_headers, service::Service},
    verify::{self, Verifier},
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use serde::Deserialize;
use std::collections::BTreeMap;

/// The keys whose strings may hold `${parameter}`: everything that [`Rules`] reads.
pub(crate) const KEYS: [&str; 7] = ["methods", "body", "form-json", "verify", "handshake", "map", "answer"];

/// What a file says about a provider, beside its [`Rules`] and its test vectors (`vector`, which only tests read).
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Definition {
    pub(crate) name: String,
    pub(crate) title: String,
    /// What has to be done on the provider's side, in words; `{url}` stands for the endpoint's URL.
    pub(crate) setup: String,
    pub(crate) facts: Facts,
    pub(crate) secret: SecretRules,
    #[serde(default)]
    pub(crate) parameters: BTreeMap<String, Parameter>,
    pub(crate) sample: Vec<Sample>,
    /// The provider's own API, where the gateway speaks it.
    pub(crate) api: Option<Service>,
}

/// How sure a file's facts are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Facts {
    Confirmed,
    Reported,
    Memory,
}

impl Facts {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Confirmed => "confirmed",
            Self::Reported => "reported",
            Self::Memory => "memory",
        }
    }
}

/// Where the secret comes from.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SecretRules {
    pub(crate) about: String,
    /// The user chooses it, and tells it the provider.
    #[serde(default)]
    pub(crate) chosen: bool,
    /// The provider hands it over in a handshake, so an endpoint may start without.
    #[serde(default)]
    pub(crate) captured: bool,
}

/// A value that the user sets.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Parameter {
    pub(crate) about: String,
    pub(crate) default: Option<String>,
    /// What it may be, where that is not any text.
    #[serde(default)]
    pub(crate) one_of: Vec<String>,
    /// What it looks like; the file's vectors are made with it.
    #[serde(default)]
    pub(crate) example: String,
}

/// A delivery as the provider sends it, without its signature.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Sample {
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) query: String,
    #[serde(default)]
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: String,
}

/// How the body is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Format {
    /// JSON, or a form where the content type says so.
    #[default]
    Json,
    /// JSON where it is; anything else too.
    Any,
    /// SOAP, read as JSON.
    Soap,
    /// CloudEvents.
    Cloudevents,
}

/// What decides about a request.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Rules {
    /// The methods of deliveries.
    #[serde(default = "post")]
    pub(crate) methods: Vec<String>,
    #[serde(default)]
    pub(crate) body: Format,
    /// The form field that holds the JSON, where the body is a form.
    pub(crate) form_json: Option<String>,
    pub(crate) verify: Vec<verify::Rules>,
    #[serde(default)]
    pub(crate) handshake: Vec<handshake::Rules>,
    #[serde(default)]
    pub(crate) map: mapping::Rules,
    #[serde(default)]
    pub(crate) answer: Answer,
}

fn post() -> Vec<String> {
    vec!["POST".to_owned()]
}

/// What the provider wants to hear.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(crate) struct Answer {
    status: u16,
    body: String,
    content_type: String,
    /// The status of what is not verified.
    pub(crate) reject: u16,
    /// The status of what cannot be kept now, and after how many seconds to come again.
    overload: u16,
    retry_after: u32,
}

impl Default for Answer {
    fn default() -> Self {
        Self {
            status: 200,
            body: String::new(),
            content_type: String::new(),
            reject: 401,
            overload: 503,
            retry_after: 30,
        }
    }
}

impl Answer {
    /// What a kept delivery is answered.
    pub(crate) fn ack(&self) -> Result<Reply, String> {
        let content_type = match self.content_type.as_str() {
            "" => None,
            text => Some(HeaderValue::from_str(text).map_err(|_| "not a content type".to_owned())?),
        };
        Ok(Reply {
            status: status(self.status)?,
            headers: reply_headers(content_type.as_ref()),
            body: body(&self.body),
        })
    }

    /// What a delivery is answered that cannot be kept now.
    pub(crate) fn overloaded(&self) -> Result<Reply, String> {
        let mut reply = Reply::empty(status(self.overload)?);
        reply.headers.push((header::RETRY_AFTER, self.retry_after.into()));
        Ok(reply)
    }
}

pub(crate) fn status(code: u16) -> Result<StatusCode, String> {
    StatusCode::from_u16(code).map_err(|_| format!("{code} is not an HTTP status"))
}

impl Rules {
    /// Refuses a file that could not be safe, or could not work.
    pub(crate) fn check(&self, definition: &Definition) -> Result<(), String> {
        if definition.name.is_empty()
            || !definition.name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        {
            return Err("name: a to z, 0 to 9 and - only".to_owned());
        }
        if self.verify.is_empty() {
            return Err("verify: a provider without verification would take anything".to_owned());
        }
        let mapping = Mapping::new(&self.map).map_err(|problem| format!("map: {problem}"))?;
        let secret_headers: Vec<HeaderName> =
            self.verify.iter().flat_map(verify::Rules::secret_headers).collect();
        let forbidden = [header::AUTHORIZATION, header::COOKIE, header::PROXY_AUTHORIZATION];
        for name in mapping.headers() {
            if secret_headers.contains(name) || forbidden.contains(name) {
                return Err(format!("map.headers: {name} holds a secret"));
            }
        }
        for rules in &self.verify {
            Verifier::new(rules, &[], verify::timestamp::Tolerance::Own)
                .map_err(|problem| format!("verify: {problem}"))?;
        }
        for rules in &self.handshake {
            handshake::Greeting::new(rules).map_err(|problem| format!("handshake: {problem}"))?;
        }
        self.answer.ack()?;
        self.answer.overloaded()?;
        status(self.answer.reject)?;
        for sample in &definition.sample {
            sample.header_map()?;
        }
        Ok(())
    }
}

impl Sample {
    /// Its headers.
    pub(crate) fn header_map(&self) -> Result<HeaderMap, String> {
        header_map(&self.headers)
    }
}

/// Headers of a file.
pub(crate) fn header_map(headers: &BTreeMap<String, String>) -> Result<HeaderMap, String> {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        let name: HeaderName = name.parse().map_err(|_| format!("\"{name}\" is not a header's name"))?;
        let value = HeaderValue::from_str(value).map_err(|_| format!("header {name} has no value"))?;
        map.append(name, value);
    }
    Ok(map)
}
