//! The adapters of the CloudEvents specification, row by row (`adapters.txt`): a body is made that holds what a row names, and the
//! event has to have it where the row says.

use crate::vectors::CATALOG;
use headgate_webhook::{Delivery, Endpoint, Integrity, Request, Secret, Settings, Verdict};
use http::{HeaderMap, HeaderValue};
use serde_json::{Value, json};

const NOW: i64 = 1_795_356_367_000_000;

/// Sets what is at a dotted path.
fn put(body: &mut Value, path: &str, value: Value) {
    let mut at = body;
    for step in path.split('.') {
        at = &mut at[step];
    }
    *at = value;
}

fn deliver(provider: &str, event: &str, body: &Value) -> Delivery {
    let settings = Settings { secrets: vec![Secret::new("secret")], ..Settings::default() };
    let endpoint = Endpoint::new(CATALOG.get(provider).unwrap().clone(), settings).unwrap();
    let mut headers = HeaderMap::new();
    headers.insert("content-type", HeaderValue::from_static("application/json"));
    headers.insert("x-github-event", HeaderValue::from_str(event).unwrap());
    headers.insert("x-github-delivery", HeaderValue::from_static("d1"));
    headers.insert("x-gitlab-event-uuid", HeaderValue::from_static("d1"));
    headers.insert("x-not-listed", HeaderValue::from_static("private"));
    let signed = if provider == "gitlab" {
        headers.insert("x-gitlab-token", HeaderValue::from_static("secret"));
        headgate_webhook::SignedRequest {
            method: http::Method::POST,
            query: String::new(),
            headers,
            body: body.to_string().into(),
        }
    } else {
        endpoint.sign_delivery(headers, body.to_string().into(), NOW).unwrap()
    };
    let verdict = endpoint.receive(&Request {
        method: &signed.method,
        path_and_query: "/",
        headers: &signed.headers,
        body: &signed.body,
        received_at: NOW,
        pending: false,
    });
    let Verdict::Deliveries { mut deliveries, .. } = verdict else { panic!("{event}: {verdict:?}") };
    assert_eq!(deliveries.len(), 1);
    deliveries.remove(0)
}

/// What a row's source is for a body in which each path holds `https://x/PATH#note_1`.
fn source(rule: &str) -> String {
    let whole = |path: &str| format!("https://x/{path}");
    if let Some(text) = rule.strip_prefix('\'') {
        return text.trim_end_matches('\'').to_owned();
    }
    if rule.ends_with('<') {
        return "https://x".to_owned();
    }
    rule.split('/').map(|path| whole(path.trim_end_matches('#'))).collect::<Vec<_>>().join("/")
}

#[test]
fn every_row_of_the_adapters() {
    let mut rows = 0;
    let mut wrong = Vec::new();
    for line in include_str!("adapters.txt").lines().filter(|line| !line.starts_with("//")) {
        let parts: Vec<&str> = line.split(" | ").collect();
        let [provider, event, from, kind, subject, time] = parts[..] else { panic!("{line}") };
        rows += 1;
        let mut body = json!({});
        if provider == "gitlab" {
            let (object, noteable) = event.split_once('.').unwrap_or((event, ""));
            put(&mut body, "object_kind", json!(object));
            if !noteable.is_empty() {
                put(&mut body, "object_attributes.noteable_type", json!(noteable));
            }
        } else {
            // These stand in most bodies, and must not take the place of what a row names.
            put(&mut body, "sender.url", json!("https://x/sender.url"));
            put(&mut body, "action", json!("done"));
        }
        for path in from.split('/').filter(|path| !path.starts_with('\'')) {
            let cut = path.ends_with('#');
            let path = path.trim_end_matches(['<', '#']);
            let note = if cut { "#note_1244" } else { "" };
            put(&mut body, path, json!(format!("https://x/{path}{note}")));
        }
        let mut expected = String::new();
        for piece in kind.split_inclusive('}') {
            let (text, path) = piece.split_once('{').unwrap_or((piece, ""));
            expected.push_str(text);
            if !path.is_empty() {
                let path = path.trim_end_matches('}');
                put(&mut body, path, json!("done"));
                expected.push_str("done");
            }
        }
        let untyped = !kind.contains('{');
        if untyped && !matches!(event, "deployment" | "github_app_authorization") && provider == "github" {
            // Bodies of these have no action.
            put(&mut body, "action", Value::Null);
        }
        if subject != "-" {
            put(&mut body, subject, json!(4711));
        }
        let times: Vec<&str> = time.split(' ').filter(|path| *path != "-").collect();
        for (number, path) in times.iter().enumerate() {
            put(&mut body, path, json!(format!("2026-11-2{number}T10:00:00Z")));
        }
        let delivery = deliver(provider, event, &body);
        // 2026-11-20T10:00:00Z, and days later.
        let day = |number: i64| Some(1_795_168_800_000_000 + number * 86_400_000_000);
        let at = if times.is_empty() { None } else { day(0) };
        let found = (delivery.event_type, delivery.source, delivery.subject, delivery.time);
        let wanted = (expected, Some(source(from)), (subject != "-").then(|| "4711".to_owned()), at);
        if found != wanted {
            wrong.push(format!("{line}\n  is {found:?}\n  not {wanted:?}"));
        }
        if let [first, _] = times[..] {
            put(&mut body, first, Value::Null);
            if deliver(provider, event, &body).time != day(1) {
                wrong.push(format!("{line}: without {first}"));
            }
        }
        assert_eq!(delivery.id, "d1", "{line}");
        let integrity = if provider == "gitlab" { Integrity::None } else { Integrity::Body };
        assert_eq!(delivery.integrity, integrity, "{line}");
        let listed = |name: &str| name.starts_with("x-github-") || name.starts_with("x-gitlab-");
        assert!(delivery.headers.iter().all(|(name, _)| listed(name)), "{:?}", delivery.headers);
        assert!(delivery.headers.iter().all(|(name, _)| name != "x-gitlab-token"), "{:?}", delivery.headers);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(rows > 80, "{rows} rows");
}
