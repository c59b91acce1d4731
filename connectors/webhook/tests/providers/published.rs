//! Requests whose verdict others published (`tests/published.json` says who), and some computed without any of this code.

use headgate_webhook::{Endpoint, Reason, Request, Secret, Settings, Verdict};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde::Deserialize;
use std::collections::BTreeMap;

#[derive(Deserialize)]
struct Published {
    provider: String,
    secret: String,
    body: String,
    headers: BTreeMap<String, String>,
    now: i64,
    verdict: String,
    url: Option<String>,
    response: Option<serde_json::Value>,
}

#[test]
fn published_requests_get_their_verdict() {
    let all: Vec<Published> = serde_json::from_str(include_str!("../published.json")).unwrap();
    let mut judged = 0;
    for (at, published) in all.iter().enumerate() {
        let name = published.provider.replace('_', "-");
        // Of HubSpot's three schemes the headers tell which it is; Zoom's challenge stands alone below.
        let name = match name.as_str() {
            "hubspot-v1" | "hubspot-v2" | "hubspot-v3" => "hubspot",
            "zoom-challenge" => continue,
            // Not a provider of ours.
            "twitter-crc" => continue,
            name => name,
        };
        let provider =
            crate::vectors::CATALOG.get(name).unwrap_or_else(|| panic!("no provider {name}")).clone();
        let url = published.url.clone().unwrap_or("https://hooks.example.com/webhooks/x".to_owned());
        let (public_url, query) = url.split_once('?').unwrap_or((&url, ""));
        let parameters = provider.parameters().into_iter().filter(|parameter| parameter.default.is_none());
        let settings = Settings {
            secrets: vec![Secret::new(published.secret.clone())],
            parameters: parameters.map(|parameter| (parameter.name, Secret::new("x"))).collect(),
            public_url: Some(public_url.to_owned()),
            ..Settings::default()
        };
        let endpoint = Endpoint::new(provider, settings).unwrap();
        let mut headers = HeaderMap::new();
        for (name, value) in &published.headers {
            headers.insert(name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value).unwrap());
        }
        let path_and_query = format!("/x?{query}");
        let request = Request {
            method: &Method::POST,
            path_and_query: &path_and_query,
            headers: &headers,
            body: published.body.as_bytes(),
            received_at: published.now * 1_000_000,
            pending: false,
        };
        match (published.verdict.as_str(), endpoint.verify(&request)) {
            // Whatever the body is, it was signed, and is kept.
            ("accept", Ok(_)) => {
                let verdict = endpoint.receive(&request);
                assert!(matches!(verdict, Verdict::Deliveries { .. }), "{at} {name}: {verdict:?}");
            }
            ("reject_stale", Err(Verdict::Refused(refusal))) if refusal.reason == Reason::Stale => {}
            // The time of Linear's signed body is part of the check; this body has none, and may.
            (expected, verdict) => panic!("{at} {name}: {verdict:?}, not {expected}"),
        }
        judged += 1;
    }
    assert_eq!(judged, all.len() - 2);
}

#[test]
fn twilio_signs_a_body_that_is_no_form_by_its_hash() {
    // twilio-python, tests/unit/test_request_validator.py.
    let provider = crate::vectors::CATALOG.get("twilio").unwrap().clone();
    let settings = Settings {
        secrets: vec![Secret::new("12345")],
        public_url: Some("https://mycompany.com/myapp.php".to_owned()),
        ..Settings::default()
    };
    let endpoint = Endpoint::new(provider, settings).unwrap();
    let judge = |content_type, body: &str| {
        let mut headers = HeaderMap::new();
        headers.insert("content-type", HeaderValue::from_static(content_type));
        headers.insert("x-twilio-signature", HeaderValue::from_static("a9nBmqA0ju/hNViExpshrM61xv4="));
        endpoint.receive(&Request {
            method: &Method::POST,
            path_and_query: "/x?foo=1&bar=2&bodySHA256=0a1ff7634d9ab3b95db5c9a2dfe9416e41502b283a80c7cf19632632f96e6620",
            headers: &headers,
            body: body.as_bytes(),
            received_at: 1_700_000_000_000_000,
            pending: false,
        })
    };
    let body = r#"{"property": "value", "boolean": true}"#;
    assert!(matches!(judge("application/json", body), Verdict::Deliveries { .. }));
    assert!(matches!(judge("application/json", "{}"), Verdict::Refused(_)));
    // As a form it would have parameters, which the signature does not cover.
    assert!(matches!(judge("application/x-www-form-urlencoded", body), Verdict::Refused(_)));
    assert!(matches!(judge("application/x-www-form-urlencoded", "a=b"), Verdict::Refused(_)));
}

#[test]
fn zooms_challenge_is_answered_as_computed_elsewhere() {
    let all: Vec<Published> = serde_json::from_str(include_str!("../published.json")).unwrap();
    let published = all.iter().find(|published| published.provider == "zoom_challenge").unwrap();
    let mut vector = crate::vectors::of("zoom").remove(0);
    vector.now = published.now * 1_000_000;
    vector.secret = Some(published.secret.clone());
    vector.body = published.body.clone().into_bytes();
    let endpoint = vector.endpoint();
    let unsigned = |body: &str, pending, headers: &HeaderMap| {
        endpoint.receive(&Request {
            method: &Method::POST,
            path_and_query: "/x",
            headers,
            body: body.as_bytes(),
            received_at: published.now * 1_000_000,
            pending,
        })
    };
    let none = HeaderMap::new();
    let Verdict::Reply(reply) = unsigned(&published.body, true, &none) else { panic!("no reply") };
    assert_eq!(serde_json::from_slice::<serde_json::Value>(&reply.body).ok(), published.response);
    assert!(matches!(unsigned(&published.body, false, &none), Verdict::Refused(_)));
    // An answer must not be what signs another request, and a wrong signature is no missing one.
    let forged = published.body.replace("qgg8vlvZRS6UYooatFL8Aw", "v0:1700000000:{}");
    assert!(matches!(unsigned(&forged, true, &none), Verdict::Refused(_)));
    assert!(matches!(unsigned(&published.body, true, &vector.headers), Verdict::Refused(_)));
    // The challenge is signed like any delivery; the vector has only its body and answer.
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, published.secret.as_bytes());
    let message = format!("v0:{}:{}", published.now, published.body);
    let signature: String = aws_lc_rs::hmac::sign(&key, message.as_bytes())
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    vector.headers.insert("x-zm-signature", HeaderValue::from_str(&format!("v0={signature}")).unwrap());
    vector
        .headers
        .insert("x-zm-request-timestamp", HeaderValue::from_str(&published.now.to_string()).unwrap());
    let Verdict::Reply(reply) = vector.verdict(&vector.endpoint()) else { panic!("no reply") };
    let answer: serde_json::Value = serde_json::from_slice(&reply.body).unwrap();
    assert_eq!(Some(answer), published.response);
    vector.headers.remove("x-zm-signature");
    assert!(matches!(vector.verdict(&vector.endpoint()), Verdict::Refused(_)));
}

#[test]
fn the_legacy_order_of_zendesks_documentation_is_refused() {
    let mut vector = crate::vectors::of("zendesk").remove(0);
    vector.secret = Some("HRkRd4BeOAoUkfZr-mhauJT64rvBASlJRoIyPsd3zeA=".to_owned());
    vector.body = br#"{"say": "hello"}"#.to_vec();
    vector.now = 1_627_207_200_000_000;
    let endpoint = vector.endpoint();
    vector
        .headers
        .insert("x-zendesk-webhook-signature-timestamp", HeaderValue::from_static("2021-07-25T10:00:00Z"));
    for (signature, accepted) in [
        ("tRDSF7URY8BLCDlaBcQ7FHu051Zk+aAB0NKMP53teMw=", false),
        ("Rry/4TtIdFyawtXXp8QdI6tlAUUQ/5kL1OTp5qo/ZIk=", true),
    ] {
        vector.headers.insert("x-zendesk-webhook-signature", HeaderValue::from_static(signature));
        assert_eq!(matches!(vector.verdict(&endpoint), Verdict::Deliveries { .. }), accepted);
    }
}
