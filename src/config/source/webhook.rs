//! The settings of a webhook source. They fail closed: what would accept requests that nobody can verify is refused.

use crate::config::{
    Connector, Http, OnGap, OnIncompatible, Shaping, Source, Webhook,
    nearest::nearest,
    section::{Section, did_you_mean},
    units,
};
use headgate_sdk::SnapshotSettings;
use headgate_webhook::{Catalog, Endpoint, Limits, Policy, Rate, Secret, Settings, SettingsError, Tolerance};
use std::{collections::BTreeMap, sync::Arc, time::Duration};

/// Largest body that is accepted unless `max_body` says otherwise: what GitHub sends at most.
const MAX_BODY: u64 = 25 << 20;
/// Shortest window that a NATS server takes.
const SHORTEST_WINDOW: Duration = Duration::from_millis(100);

/// Reads a source; `None` where its endpoint cannot be made, which is among the problems then.
pub(super) fn source(
    name: &str,
    section: &Section<'_, '_>,
    http: &Http,
    catalog: &Catalog,
) -> Option<Source> {
    let uri = section.text("uri");
    if uri.as_ref().is_some_and(|uri| !super::is_uri_reference(uri)) {
        section.problem("uri", "expected a URI without spaces, quotes and control characters", None);
    }
    let limits = limits(section, http);
    let dedup_window = section.duration("dedup_window").unwrap_or(Duration::from_secs(24 * 3600));
    if dedup_window < SHORTEST_WINDOW {
        section.problem("dedup_window", "must be at least 100ms", Some("dedup_window = \"24h\"".to_owned()));
    }
    let settings = settings(name, section, http);
    let provider = section.text("provider");
    if !section.has("provider") {
        let hint = "provider = \"github\"; `headgate webhook list` shows all of them";
        section.problem("provider", "is required", Some(hint.to_owned()));
    }
    let provider_name = provider?;
    let Some(provider) = catalog.get(&provider_name) else {
        let known: Vec<&str> = catalog.iter().map(|provider| provider.name()).collect();
        let hint = nearest(&provider_name, known.iter().copied())
            .map_or_else(|| "`headgate webhook list` shows all providers".to_owned(), did_you_mean);
        section.problem("provider", "unknown provider", Some(hint));
        return None;
    };
    let settings = settings?;
    if let Err(error) = Endpoint::new(Arc::clone(provider), settings.clone()) {
        unsafe_endpoint(section, &error);
        return None;
    }
    if settings.tolerance == Tolerance::Off {
        tracing::warn!(
            source = name,
            "tolerance = \"off\": whoever saw a signed request can send it again at any time; only dedup_window is left"
        );
    }
    let webhook = Webhook { provider: Arc::clone(provider), settings, limits, dedup_window };
    Some(Source {
        uri,
        type_prefix: None,
        entities: BTreeMap::new(),
        on_gap: OnGap::Stop,
        on_incompatible: OnIncompatible::Warn,
        shaping: Shaping::default(),
        snapshots: SnapshotSettings { initial: false, ..SnapshotSettings::default() },
        connector: Connector::Webhook(webhook),
    })
}

fn unsafe_endpoint(section: &Section<'_, '_>, error: &SettingsError) {
    let (key, hint) = match error {
        SettingsError::NoSecret { .. } => ("secret", Some("secret = \"${WEBHOOK_SECRET}\"")),
        SettingsError::Secret { .. } => ("secret", None),
        SettingsError::Parameter { .. } => ("parameters", None),
        SettingsError::NoPublicUrl { .. } => ("public_url", Some("or set http.public_url")),
        SettingsError::Integrity { .. } => ("integrity", Some("integrity = \"any\"")),
    };
    // The place of the key that is there, or the source's own.
    let key = if key == "secret" && section.has("secrets") { "secrets" } else { key };
    section.problem(key, error.to_string(), hint.map(str::to_owned));
}

/// `None` where something that the endpoint rests on could not be read.
fn settings(name: &str, section: &Section<'_, '_>, http: &Http) -> Option<Settings> {
    let one = section.secret("secret");
    let several = section.secrets("secrets");
    if section.has("secret") && section.has("secrets") {
        section.problem("secrets", "cannot be combined with secret", Some("keep one of them".to_owned()));
    }
    let unread = (section.has("secret") && one.is_none()) || (section.has("secrets") && several.is_none());
    let secrets: Vec<String> = one.into_iter().chain(several.into_iter().flatten()).collect();
    let empty = secrets.iter().any(|secret| secret.trim().is_empty());
    if empty {
        let key = if section.has("secret") { "secret" } else { "secrets" };
        section.problem(key, "is empty", Some("anybody could sign with an empty secret".to_owned()));
    }
    let public_url = section.text("public_url");
    if public_url.as_ref().is_some_and(|url| !is_http_url(url)) {
        section.problem("public_url", "expected an http or https URL", None);
    }
    let public_url =
        public_url.or_else(|| http.public_url.as_ref().map(|base| format!("{base}/webhooks/{name}")));
    let parameters = section.section("parameters");
    let parameters: BTreeMap<String, Secret> = parameters
        .secret_texts()
        .into_iter()
        .map(|(key, text)| (key.to_owned(), Secret::new(text)))
        .collect();
    let settings = Settings {
        secrets: secrets.into_iter().map(Secret::new).collect(),
        parameters,
        tolerance: match section.duration_or_off("tolerance") {
            None => Tolerance::Own,
            Some(None) => Tolerance::Off,
            Some(Some(within)) => Tolerance::Within(within),
        },
        public_url,
        integrity: section
            .choice("integrity", &[("any", Policy::Any), ("body", Policy::Body)])
            .unwrap_or_default(),
        ..Settings::default()
    };
    (!unread && !empty).then_some(settings)
}

fn limits(section: &Section<'_, '_>, http: &Http) -> Limits {
    let limits = Limits {
        max_body: section.size("max_body", 1).unwrap_or(MAX_BODY).try_into().unwrap_or(usize::MAX),
        body_timeout: section.duration("body_timeout").unwrap_or(Duration::from_secs(10)),
        rate: rate(section),
        allow: section.networks("allow_ips"),
    };
    if limits.max_body > http.memory {
        let what = "is more than http.memory, so the largest body could never be read";
        section.problem("max_body", what, Some("raise http.memory, or lower max_body".to_owned()));
    }
    if limits.body_timeout.is_zero() {
        section.problem("body_timeout", "must be more than zero", None);
    }
    limits
}

/// `rate_limit = "100/s"`: requests of one client address, in a second, minute or hour; `off` for no limit.
fn rate(section: &Section<'_, '_>) -> Option<Rate> {
    let text = section.text("rate_limit")?;
    if text == "off" {
        return None;
    }
    let parsed = text.split_once('/').and_then(|(requests, unit)| {
        let every = match unit.trim() {
            "s" => units::duration("1s"),
            "m" => units::duration("1m"),
            "h" => units::duration("1h"),
            _ => None,
        }?;
        Some(Rate { requests: requests.trim().parse().ok()?, every })
    });
    if parsed.is_none() {
        let what = "expected requests a second, minute or hour of one address, or \"off\"";
        section.problem("rate_limit", what, Some("rate_limit = \"100/s\"".to_owned()));
    }
    parsed
}

/// Whether a text is an absolute URL with a host and nothing that a URL cannot hold.
pub(in crate::config) fn is_http_url(url: &str) -> bool {
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    rest.is_some_and(|rest| !rest.is_empty() && !rest.starts_with('/')) && super::is_uri_reference(url)
}
