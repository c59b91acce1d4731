//! Any headers and body to any provider are judged without a panic, and none that nobody signed is believed.
//!
//! The first byte chooses the provider; then come lines of headers (`name: value`), an empty line, the body.
#![no_main]

use headgate_webhook::{Catalog, Endpoint, Request, Secret, Settings, Verdict};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

/// A secret that no input can have signed with.
const SECRET: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";

static ENDPOINTS: LazyLock<Vec<Endpoint>> = LazyLock::new(|| {
    let catalog = Catalog::builtin().expect("the release's providers are sound");
    let settings = || Settings {
        secrets: vec![Secret::new(SECRET)],
        public_url: Some("https://hooks.example.com/webhooks/x".to_owned()),
        ..Settings::default()
    };
    // Those that need parameters, or another form of secret, are left out.
    catalog.iter().filter_map(|provider| Endpoint::new(provider.clone(), settings()).ok()).collect()
});

fuzz_target!(|input: &[u8]| {
    let Some((choice, rest)) = input.split_first() else { return };
    let Some(endpoint) = ENDPOINTS.get(usize::from(*choice) % ENDPOINTS.len().max(1)) else { return };
    let end = rest.windows(2).position(|pair| pair == b"\n\n").unwrap_or(rest.len());
    let (head, body) = rest.split_at(end);
    let mut headers = HeaderMap::new();
    for line in head.split(|byte| *byte == b'\n').take(64) {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let (name, value) = (HeaderName::from_bytes(&line[..colon]), HeaderValue::from_bytes(line[colon + 1..].trim_ascii()));
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.append(name, value);
        }
    }
    let verdict = endpoint.receive(&Request {
        method: &Method::POST,
        path_and_query: "/webhooks/x",
        headers: &headers,
        body: body.get(2..).unwrap_or_default(),
        received_at: 1_700_000_000_000_000,
        pending: false,
    });
    assert!(!matches!(verdict, Verdict::Deliveries { .. }), "{}: believed", endpoint.provider().name());
});
