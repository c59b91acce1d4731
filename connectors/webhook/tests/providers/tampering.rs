//! What a forger would try: each change of an accepted request must make it refused.

use crate::vectors::{self, Vector};
use headgate_webhook::{Endpoint, Integrity, Reason, Secret, Tolerance, Verdict};
use http::HeaderValue;

fn refused(vector: &Vector, endpoint: &Endpoint, what: &str) {
    let verdict = vector.verdict(endpoint);
    assert!(
        matches!(verdict, Verdict::Refused(_) | Verdict::KeyNeeded(_)),
        "{}: {what} was not refused: {verdict:?}",
        vector.label()
    );
}

/// Headers of vectors that are there for show, and lists in which one signature of several is good.
fn idle(vector: &Vector, header: &str) -> bool {
    matches!(
        (vector.provider.as_str(), header),
        ("paypal", "paypal-auth-algo") | ("docusign", "x-docusign-signature-1")
    )
}

#[test]
fn any_bit_of_a_signed_body() {
    let mut signed = 0;
    for vector in vectors::all() {
        let endpoint = vector.endpoint();
        let Verdict::Deliveries { deliveries, .. } = vector.verdict(&endpoint) else {
            panic!("{}", vector.label())
        };
        if deliveries[0].integrity != Integrity::Body {
            continue;
        }
        signed += 1;
        for at in 0..vector.body.len() {
            let mut changed = vector.clone();
            changed.body[at] ^= 1 << (at % 8);
            // Twilio signs what a form says, and there are several ways to write the same.
            if vector.provider == "twilio" && same_form(&vector.body, &changed.body) {
                continue;
            }
            refused(&changed, &endpoint, &format!("a bit of byte {at} flipped"));
        }
        let mut shorter = vector.clone();
        shorter.body.pop();
        refused(&shorter, &endpoint, "the last byte cut off");
        let mut longer = vector.clone();
        longer.body.extend(b"&x=1");
        refused(&longer, &endpoint, "something appended");
    }
    assert!(signed >= 35, "only {signed} vectors sign the body");
}

fn same_form(a: &[u8], b: &[u8]) -> bool {
    let lower = |body: &[u8]| String::from_utf8_lossy(body).to_lowercase();
    // %2B and %2b are the same; so are the two halves of a pair that is torn apart elsewhere.
    lower(a) == lower(b) && a != b
}

#[test]
fn every_header_of_the_signature() {
    for vector in vectors::all() {
        let endpoint = vector.endpoint();
        for name in vector.signing.iter().filter(|name| !idle(&vector, name.as_str())) {
            let value = vector.headers[name].to_str().unwrap().to_owned();
            let with = |values: &[&str]| {
                let mut changed = vector.clone();
                changed.headers.remove(name);
                for value in values {
                    changed.headers.append(name, HeaderValue::from_str(value).unwrap());
                }
                changed
            };
            refused(&with(&[]), &endpoint, &format!("{name} missing"));
            refused(&with(&[""]), &endpoint, &format!("{name} empty"));
            refused(&with(&[&value, &value]), &endpoint, &format!("{name} doubled"));
            refused(&with(&["x", &value]), &endpoint, &format!("another {name} before it"));
            refused(&with(&[&value[..value.len() - 1]]), &endpoint, &format!("{name} cut by one"));
            refused(&with(&[&value[..value.len() / 2]]), &endpoint, &format!("{name} cut in half"));
            refused(&with(&[&format!("{value}0")]), &endpoint, &format!("{name} longer"));
            // In a list what is not understood is passed over.
            let list = value.contains(",v1=") || value.contains(" v1a,");
            if !list {
                refused(&with(&[&format!("x{value}")]), &endpoint, &format!("a wrong prefix of {name}"));
            }
        }
    }
}

#[test]
fn hostile_bytes_in_every_header() {
    let hostile: [&[u8]; 8] =
        [b"\xff\xfe", b"=", b",", b"v1=", b"sha256=", b"t=,v1=", b"Bearer ..", b"\xe2\x82\xac=\xe2\x82\xac"];
    for vector in vectors::all() {
        let endpoint = vector.endpoint();
        for name in vector.signing.iter().filter(|name| !idle(&vector, name.as_str())) {
            for bytes in hostile {
                let mut changed = vector.clone();
                changed.headers.insert(name, HeaderValue::from_bytes(bytes).unwrap());
                refused(&changed, &endpoint, &format!("{name}: {bytes:?}"));
            }
        }
    }
}

#[test]
fn another_secret() {
    for vector in vectors::all().iter().filter(|vector| vector.secret.is_some()) {
        let other = match vector.provider.as_str() {
            "adyen" => "00".repeat(32),
            "discord" => "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a".to_owned(),
            "sendgrid" => "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE83T4O/n84iotIvIW4mdBgQ/7dAfSmpqIM8kF9mN1flpVKS3GRqe62gw+2fNNRaINXvVpiglSI8eNEc6wEA3F+g==".to_owned(),
            "airtable" => "b3RoZXI=".to_owned(),
            "standard-webhooks" if vector.at == 1 => "whpk_11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=".to_owned(),
            "standard-webhooks" => "whsec_b3RoZXI=".to_owned(),
            "gitlab" if vector.at == 0 => "whsec_b3RoZXI=".to_owned(),
            _ => "another-secret".to_owned(),
        };
        let mut settings = vector.settings();
        settings.secrets = vec![Secret::new(other)];
        let provider = vectors::CATALOG.get(&vector.provider).unwrap().clone();
        refused(vector, &Endpoint::new(provider.clone(), settings.clone()).unwrap(), "another secret");
        // While secrets are replaced, both are good.
        settings.secrets.push(Secret::new(vector.secret.clone().unwrap()));
        let both = Endpoint::new(provider, settings).unwrap();
        assert!(
            matches!(vector.verdict(&both), Verdict::Deliveries { .. }),
            "{}: two secrets",
            vector.label()
        );
    }
}

#[test]
fn another_time() {
    const YEAR: i64 = 365 * 86_400 * 1_000_000;
    let timed = |vector: &Vector| match vector.provider.as_str() {
        "aws-sns" | "box" | "calendly" | "discord" | "google-pubsub" | "linear" | "mailgun" | "monday"
        | "paypal" | "sendgrid" | "slack" | "standard-webhooks" | "stripe" | "zendesk" | "zoom" => true,
        "gitlab" | "hubspot" => vector.at == 0,
        "jira" => vector.at == 1,
        _ => false,
    };
    for mut vector in vectors::all() {
        let (endpoint, now) = (vector.endpoint(), vector.now);
        for (offset, reason) in [(YEAR, Reason::Stale), (-YEAR, Reason::Future)] {
            vector.now = now + offset;
            match vector.verdict(&endpoint) {
                Verdict::Refused(refusal) => {
                    assert!(timed(&vector), "{}", vector.label());
                    assert_eq!(refusal.reason, reason, "{}", vector.label());
                }
                _ => assert!(!timed(&vector), "{} at another time was not refused", vector.label()),
            }
        }
    }
}

#[test]
fn the_tolerance_is_kept_to_the_second() {
    let mut vector = vectors::of("stripe").remove(0);
    let (endpoint, now) = (vector.endpoint(), vector.now);
    for (offset, accepted) in [(300, true), (301, false), (-300, true), (-301, false)] {
        vector.now = now + offset * 1_000_000;
        assert_eq!(matches!(vector.verdict(&endpoint), Verdict::Deliveries { .. }), accepted, "{offset}");
    }
    let mut settings = vector.settings();
    settings.tolerance = Tolerance::Off;
    let lax = Endpoint::new(endpoint.provider().clone(), settings).unwrap();
    assert!(matches!(vector.verdict(&lax), Verdict::Deliveries { .. }));
    // What a user sets is kept to, also where it is the common default and the provider's own is another.
    let mut vector = vectors::of("box").remove(0);
    let mut settings = vector.settings();
    vector.now += 400 * 1_000_000;
    assert!(matches!(vector.verdict(&vector.endpoint()), Verdict::Deliveries { .. }));
    settings.tolerance = Tolerance::Within(std::time::Duration::from_secs(300));
    let strict = Endpoint::new(vector.endpoint().provider().clone(), settings).unwrap();
    assert!(matches!(vector.verdict(&strict), Verdict::Refused(_)));
}

#[test]
fn another_endpoints_url() {
    for provider in ["twilio", "hubspot", "square"] {
        let mut vector = vectors::of(provider).remove(0);
        vector.url = "https://hooks.example.com/webhooks/other".to_owned();
        refused(&vector, &vector.endpoint(), "another URL");
    }
}

#[test]
fn a_host_header_changes_nothing() {
    for provider in ["twilio", "hubspot", "square"] {
        let mut vector = vectors::of(provider).remove(0);
        let endpoint = vector.endpoint();
        vector.headers.insert("host", HeaderValue::from_static("evil.example"));
        vector.headers.insert("x-forwarded-host", HeaderValue::from_static("evil.example"));
        assert!(matches!(vector.verdict(&endpoint), Verdict::Deliveries { .. }), "{provider}");
    }
}

#[test]
fn signatures_inside_the_body() {
    for (provider, changes) in [
        (
            "mailgun",
            &[
                ("\"d6f1ab", "\"d6f1ac"),
                ("\"signature\":{\"t", "\"signature\":{\"x\":1,\"t"),
                ("1795356367\"", "1795356368\""),
            ][..],
        ),
        ("adyen", &[("1130", "1"), ("\"true\"", "\"false\""), ("hmacSignature", "hmacSignatur")]),
        ("microsoft-graph", &[("test-secret", "tost-secret"), ("clientState", "clientstate")]),
        ("aws-sns", &[("Hello", "Hallo"), (":orders\",\"S", ":others\",\"S"), ("22b80b92", "22b80b93")]),
    ] {
        let vector = vectors::of(provider).remove(0);
        let endpoint = vector.endpoint();
        for (old, new) in changes {
            let mut changed = vector.clone();
            let body = String::from_utf8(vector.body.clone()).unwrap();
            assert!(body.contains(old), "{provider}: {old}");
            changed.body = body.replace(old, new).into_bytes();
            if *new == "\"signature\":{\"x\":1,\"t" {
                // Beside the signed values more may stand.
                assert!(matches!(changed.verdict(&endpoint), Verdict::Deliveries { .. }));
                continue;
            }
            refused(&changed, &endpoint, new);
        }
    }
}

#[test]
fn every_item_of_a_batch_is_verified() {
    let vector = vectors::of("adyen").remove(0);
    let endpoint = vector.endpoint();
    let body = String::from_utf8(vector.body.clone()).unwrap();
    let start = body.find("[{").unwrap() + 1;
    let item = &body[start..body.rfind("]").unwrap()];
    let forged = item.replace("1130", "9999");
    let mut changed = vector;
    changed.body = body.replace(item, &format!("{item},{forged}")).into_bytes();
    refused(&changed, &endpoint, "a second item with another amount");
    changed.body = body.replace(item, "").into_bytes();
    refused(&changed, &endpoint, "no item at all");
}

#[test]
fn keys_from_elsewhere() {
    for (provider, old, new) in [
        (
            "aws-sns",
            "https://sns.eu-central-1.amazonaws.com/S",
            "https://sns.eu-central-1.amazonaws.com.evil.example/S",
        ),
        ("aws-sns", "https://sns.eu-central-1.amazonaws.com/S", "http://sns.eu-central-1.amazonaws.com/S"),
        ("aws-sns", "https://sns.eu-central-1.amazonaws.com/S", "https://s3.eu-central-1.amazonaws.com/S"),
    ] {
        let mut vector = vectors::of(provider).remove(0);
        let endpoint = vector.endpoint();
        vector.body = String::from_utf8(vector.body).unwrap().replace(old, new).into_bytes();
        let Verdict::Refused(refusal) = vector.verdict(&endpoint) else { panic!("{new}") };
        assert_eq!(refusal.reason, Reason::ForeignKey);
    }
    let mut vector = vectors::of("paypal").remove(0);
    let endpoint = vector.endpoint();
    for url in [
        "https://api.paypal.com.evil.example/v1/notifications/certs/C",
        "https://api.paypal.com/v1/notifications/certs/../x",
    ] {
        vector.headers.insert("paypal-cert-url", HeaderValue::from_static(url));
        let Verdict::Refused(refusal) = vector.verdict(&endpoint) else { panic!("{url}") };
        assert_eq!(refusal.reason, Reason::ForeignKey);
    }
    vector.headers.insert(
        "paypal-cert-url",
        HeaderValue::from_static("https://api.paypal.com/v1/notifications/certs/CERT-new"),
    );
    assert!(matches!(vector.verdict(&endpoint), Verdict::KeyNeeded(_)));
}
