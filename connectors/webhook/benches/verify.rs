//! What verification costs beside the HMAC that it cannot do without: a 2 KiB delivery of GitHub's. `judged` is all that an
//! endpoint does: verification, reading the JSON, naming the event.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

use aws_lc_rs::hmac;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use headgate_webhook::{Catalog, Endpoint, Request, Secret, Settings, Verdict};
use http::{HeaderMap, HeaderValue, Method};
use std::hint::black_box;

const SECRET: &str = "test-secret-0123456789abcdef";

fn body() -> Vec<u8> {
    let filler = r#"{"name":"a label","color":"f29513","description":"Something \"isn't\" working"}"#;
    let labels = vec![filler; 22].join(",");
    format!(
        r#"{{"action":"opened","issue":{{"number":1347,"title":"Found a bug","updated_at":"2026-11-22T14:06:07Z","labels":[{labels}]}},"repository":{{"id":1296269,"url":"https://api.github.com/repos/octo/shop"}}}}"#
    )
    .into_bytes()
}

fn verify(criterion: &mut Criterion) {
    let body = body();
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
    let tag = hmac::sign(&key, &body);
    let signature: String = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("x-hub-signature-256", format!("sha256={signature}")),
        ("content-type", "application/json".to_owned()),
        ("x-github-event", "issues".to_owned()),
        ("x-github-delivery", "72d3162e-cc78-11e3-81ab-4c9367dc0958".to_owned()),
        ("user-agent", "GitHub-Hookshot/044aadd".to_owned()),
    ] {
        headers.insert(name, HeaderValue::from_str(&value).unwrap());
    }
    let settings = Settings { secrets: vec![Secret::new(SECRET)], ..Settings::default() };
    let provider = Catalog::builtin().unwrap().get("github").unwrap().clone();
    let endpoint = Endpoint::new(provider, settings).unwrap();
    let request = Request {
        method: &Method::POST,
        path_and_query: "/webhooks/gh",
        headers: &headers,
        body: &body,
        received_at: 1_795_356_367_000_000,
        pending: false,
    };
    assert!(matches!(endpoint.receive(&request), Verdict::Deliveries { .. }));

    let mut group = criterion.benchmark_group("webhook");
    group.throughput(Throughput::Bytes(u64::try_from(body.len()).unwrap()));
    group.bench_function("hmac alone", |bencher| {
        bencher.iter(|| hmac::verify(&key, black_box(&body), tag.as_ref()).unwrap());
    });
    group
        .bench_function("verified", |bencher| bencher.iter(|| endpoint.verify(black_box(&request)).unwrap()));
    group.bench_function("judged", |bencher| bencher.iter(|| endpoint.receive(black_box(&request))));
    group.finish();
}

criterion_group!(benches, verify);
criterion_main!(benches);
