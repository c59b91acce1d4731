//! Handshakes: what a provider asks before, or between, its deliveries.
//!
//! A handshake is answered, never forwarded, and never stands in for a signature. One that comes unsigned is answered only
//! while the endpoint is pending, or if it shows a token that the user set; one that hands over a secret only as long as
//! there is none.

use crate::{
    Action, Handshake, Reason, Reply, Secret, Verdict,
    provider::reply_headers,
    template::{Scope, Template},
    verify::condition::{self, Condition},
};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode, header};
use serde::Deserialize;
use std::collections::BTreeMap;

/// Longest answer, in bytes: challenges are short.
const ANSWER: usize = 4096;

/// A provider's `[[handshake]]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Rules {
    /// What it is, for people.
    about: String,
    #[serde(default = "post")]
    method: String,
    /// What makes a request this handshake.
    when: Vec<condition::Rule>,
    /// A token that the user set and the request must show; it is answered whether pending or not.
    #[serde(default)]
    authorize: Vec<condition::Rule>,
    /// Whether it is signed as deliveries are; then it is verified first and answered at any time.
    #[serde(default)]
    verified: bool,
    #[serde(default = "ok")]
    status: u16,
    #[serde(default)]
    content_type: String,
    /// The answer's body.
    #[serde(default)]
    body: String,
    /// The answer's body as a JSON object.
    #[serde(default)]
    json: BTreeMap<String, String>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    /// The secret that the request hands over.
    keep_secret: Option<String>,
    /// A URL to call back, and what it has to look like.
    confirm: Option<Confirm>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Confirm {
    url: String,
    like: Vec<String>,
}

fn post() -> String {
    "POST".to_owned()
}

fn ok() -> u16 {
    200
}

/// A compiled handshake.
#[derive(Clone, Debug)]
pub(crate) struct Greeting {
    method: String,
    when: Vec<Condition>,
    authorize: Vec<Condition>,
    pub(crate) verified: bool,
    status: StatusCode,
    content_type: Option<HeaderValue>,
    body: Template,
    json: Vec<(String, Template)>,
    headers: Vec<(HeaderName, Template)>,
    keep_secret: Option<Template>,
    confirm: Option<(Template, Vec<String>)>,
}

impl Rules {
    /// What it is, for people.
    pub(crate) fn about(&self) -> &str {
        &self.about
    }
}

impl Greeting {
    pub(crate) fn new(rules: &Rules) -> Result<Self, String> {
        let headers = rules.headers.iter().map(|(name, value)| {
            let name = name.parse().map_err(|_| format!("\"{name}\" is not a header's name"))?;
            Ok((name, Template::parse(value)?))
        });
        let json = rules.json.iter().map(|(name, value)| Ok((name.clone(), Template::parse(value)?)));
        let content_type = match (rules.content_type.as_str(), rules.json.is_empty()) {
            ("", true) => None,
            ("", false) => Some("application/json"),
            (text, _) => Some(text),
        };
        Ok(Self {
            method: rules.method.clone(),
            when: Condition::all(&rules.when)?,
            authorize: Condition::all(&rules.authorize)?,
            verified: rules.verified,
            status: StatusCode::from_u16(rules.status).map_err(|_| "not an HTTP status".to_owned())?,
            content_type: content_type
                .map(|text| HeaderValue::from_str(text).map_err(|_| "not a content type".to_owned()))
                .transpose()?,
            body: Template::parse(&rules.body)?,
            json: json.collect::<Result<_, String>>()?,
            headers: headers.collect::<Result<_, String>>()?,
            keep_secret: rules.keep_secret.as_deref().map(Template::parse).transpose()?,
            confirm: rules
                .confirm
                .as_ref()
                .map(|confirm| Ok::<_, String>((Template::parse(&confirm.url)?, confirm.like.clone())))
                .transpose()?,
        })
    }

    /// The method it comes with; a HEAD is answered as a GET.
    pub(crate) fn method(&self) -> &str {
        &self.method
    }

    /// Whether the body has to be read to know it.
    pub(crate) fn needs_json(&self) -> bool {
        self.when.iter().any(Condition::has_json)
    }

    /// Whether a request is this handshake.
    pub(crate) fn is(&self, scope: &Scope<'_>) -> bool {
        let method = scope.request.method.as_str();
        (method == self.method || (method == "HEAD" && self.method == "GET"))
            && self.when.iter().all(|when| when.holds(scope) == Ok(true))
    }

    /// Whether an unsigned one may be answered now.
    pub(crate) fn allow(&self, scope: &Scope<'_>, has_secret: bool) -> Result<(), Reason> {
        if self.keep_secret.is_some() && has_secret {
            return Err(Reason::NotPending);
        }
        if self.authorize.is_empty() {
            return if scope.request.pending { Ok(()) } else { Err(Reason::NotPending) };
        }
        for authorize in &self.authorize {
            if authorize.is_unset() {
                return Err(Reason::Missing(
                    "the parameter that the handshake's token is compared with".to_owned(),
                ));
            }
            if !authorize.holds(scope)? {
                return Err(Reason::Mismatch);
            }
        }
        Ok(())
    }

    /// The answer to a request that is this handshake.
    pub(crate) fn answer(&self, scope: &Scope<'_>) -> Result<Verdict, Reason> {
        let missing = || Reason::Missing("what the handshake has to be answered with".to_owned());
        let render = |template: &Template| -> Result<String, Reason> {
            let text = template.render(scope)?.ok_or_else(missing)?;
            if text.len() > ANSWER { Err(Reason::Malformed("the handshake".to_owned())) } else { Ok(text) }
        };
        let body = if self.json.is_empty() {
            Bytes::from(render(&self.body)?)
        } else {
            let mut object = serde_json::Map::new();
            for (name, template) in &self.json {
                object.insert(name.clone(), render(template)?.into());
            }
            Bytes::from(serde_json::Value::Object(object).to_string())
        };
        let mut headers = reply_headers(self.content_type.as_ref());
        for (name, template) in &self.headers {
            let value = HeaderValue::from_str(&render(template)?)
                .map_err(|_| Reason::Malformed("the handshake".to_owned()))?;
            headers.push((name.clone(), value));
        }
        let reply = Reply { status: self.status, headers, body };
        if let Some(template) = &self.keep_secret {
            let secret = Secret::new(render(template)?);
            return Ok(Verdict::Handshake(Handshake { action: Action::KeepSecret(secret), reply }));
        }
        if let Some((template, like)) = &self.confirm {
            let url = render(template)?;
            if !like
                .iter()
                .any(|like| crate::verify::is_like(url.split('?').next().unwrap_or_default(), like))
            {
                return Err(Reason::ForeignKey);
            }
            return Ok(Verdict::Handshake(Handshake { action: Action::Confirm { url }, reply }));
        }
        Ok(Verdict::Reply(reply))
    }
}

/// An answer that echoes what a stranger sent must not be taken for a page.
pub(crate) fn nosniff() -> (HeaderName, HeaderValue) {
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"))
}
