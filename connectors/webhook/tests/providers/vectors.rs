//! The `[[vector]]` tables of the provider files.

use headgate_webhook::{
    Catalog, Delivery, Endpoint, KeyRequest, KeyRing, Request, Secret, Settings, Verdict,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde::Deserialize;
use std::{collections::BTreeMap, sync::LazyLock};

pub(crate) static CATALOG: LazyLock<Catalog> = LazyLock::new(|| Catalog::builtin().unwrap());

/// One vector: a request that its provider's endpoint accepts.
#[derive(Clone, Debug)]
pub(crate) struct Vector {
    pub(crate) provider: String,
    /// Which of the file's, from 0.
    pub(crate) at: usize,
    pub(crate) sample: String,
    pub(crate) secret: Option<String>,
    pub(crate) parameters: BTreeMap<String, Secret>,
    pub(crate) url: String,
    pub(crate) now: i64,
    pub(crate) headers: HeaderMap,
    /// The headers that the vector adds to its sample: those of the signature.
    pub(crate) signing: Vec<HeaderName>,
    pub(crate) body: Vec<u8>,
    keys: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct File {
    #[serde(default)]
    parameters: BTreeMap<String, Parameter>,
    sample: Vec<Part>,
    vector: Vec<Part>,
}

#[derive(Deserialize)]
struct Parameter {
    default: Option<String>,
    example: Option<String>,
}

#[derive(Clone, Deserialize)]
struct Part {
    name: Option<String>,
    sample: Option<String>,
    secret: Option<String>,
    now: Option<i64>,
    url: Option<String>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    body: Option<String>,
    #[serde(default)]
    keys: BTreeMap<String, String>,
}

/// All vectors of all files.
pub(crate) fn all() -> Vec<Vector> {
    CATALOG.iter().flat_map(|provider| of(provider.name())).collect()
}

/// The vectors of one file.
pub(crate) fn of(provider: &str) -> Vec<Vector> {
    let path = format!("{}/providers/{provider}.toml", env!("CARGO_MANIFEST_DIR"));
    let file: File = toml::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let parameters = file.parameters.iter().filter_map(|(name, parameter)| {
        let value =
            parameter.example.clone().filter(|value| !value.is_empty()).or(parameter.default.clone())?;
        Some((name.clone(), Secret::new(value)))
    });
    let parameters: BTreeMap<_, _> = parameters.collect();
    let vectors = file.vector.iter().enumerate().map(|(at, vector)| {
        let sample = file.sample.iter().find(|sample| sample.name == vector.sample).unwrap();
        let mut headers = HeaderMap::new();
        for (name, value) in sample.headers.iter().chain(&vector.headers) {
            headers.insert(name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value).unwrap());
        }
        Vector {
            provider: provider.to_owned(),
            at,
            sample: vector.sample.clone().unwrap(),
            secret: vector.secret.clone(),
            parameters: parameters.clone(),
            url: vector.url.clone().unwrap(),
            now: vector.now.unwrap() * 1_000_000,
            headers,
            signing: vector.headers.keys().map(|name| name.parse().unwrap()).collect(),
            body: vector.body.clone().or(sample.body.clone()).unwrap().into_bytes(),
            keys: vector.keys.clone(),
        }
    });
    vectors.collect()
}

impl Vector {
    pub(crate) fn label(&self) -> String {
        format!("{}[{}] {}", self.provider, self.at, self.sample)
    }

    pub(crate) fn settings(&self) -> Settings {
        let keys = KeyRing::default();
        for (url, document) in &self.keys {
            keys.insert(&KeyRequest { url: url.clone() }, document.as_bytes(), i64::MAX, i64::MAX);
        }
        Settings {
            secrets: self.secret.iter().map(|secret| Secret::new(secret.clone())).collect(),
            parameters: self.parameters.clone(),
            public_url: Some(self.url.clone()),
            keys,
            ..Settings::default()
        }
    }

    pub(crate) fn endpoint(&self) -> Endpoint {
        Endpoint::new(CATALOG.get(&self.provider).unwrap().clone(), self.settings()).unwrap()
    }

    /// The verdict on the vector's request as it now is.
    pub(crate) fn verdict(&self, endpoint: &Endpoint) -> Verdict {
        endpoint.receive(&Request {
            method: &Method::POST,
            path_and_query: "/webhooks/shop",
            headers: &self.headers,
            body: &self.body,
            received_at: self.now,
            pending: false,
        })
    }

    pub(crate) fn deliveries(&self) -> Vec<Delivery> {
        match self.verdict(&self.endpoint()) {
            Verdict::Deliveries { deliveries, .. } => deliveries,
            other => panic!("{}: {other:?}", self.label()),
        }
    }
}
