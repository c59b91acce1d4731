//! Handshakes: answered while an endpoint is pending, or when they prove themselves; never in the place of a signature.

use crate::vectors::{self, CATALOG};
use headgate_webhook::{Action, Endpoint, Reason, Request, Secret, Settings, Verdict};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

fn endpoint(provider: &str, secret: Option<&str>) -> Endpoint {
    let settings = Settings {
        secrets: secret.iter().map(|secret| Secret::new(*secret)).collect(),
        parameters: match provider {
            "meta" => [("verify_token".to_owned(), Secret::new("mine"))].into(),
            _ => Default::default(),
        },
        ..Settings::default()
    };
    Endpoint::new(CATALOG.get(provider).unwrap().clone(), settings).unwrap()
}

struct Ask<'a> {
    method: Method,
    query: &'a str,
    headers: &'a [(&'a str, &'a str)],
    body: &'a str,
    pending: bool,
}

fn ask(endpoint: &Endpoint, ask: &Ask<'_>) -> Verdict {
    let mut headers = HeaderMap::new();
    for (name, value) in ask.headers {
        headers.append(name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value).unwrap());
    }
    endpoint.receive(&Request {
        method: &ask.method,
        path_and_query: &format!("/webhooks/x?{}", ask.query),
        headers: &headers,
        body: ask.body.as_bytes(),
        received_at: 1_795_356_367_000_000,
        pending: ask.pending,
    })
}

fn body(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Reply(reply) => String::from_utf8(reply.body.to_vec()).unwrap(),
        other => panic!("{other:?}"),
    }
}

fn reason(verdict: Verdict) -> Reason {
    match verdict {
        Verdict::Refused(refusal) => refusal.reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn challenges_are_echoed_while_pending_and_only_then() {
    for (provider, method, query, headers, sent, answer) in [
        ("dropbox", Method::GET, "challenge=ab%20c", &[][..], "", "ab c"),
        ("microsoft-graph", Method::POST, "validationToken=Validation%3a%20x", &[], "", "Validation: x"),
        ("monday", Method::POST, "", &[], r#"{"challenge":"3eZb"}"#, r#"{"challenge":"3eZb"}"#),
        (
            "okta",
            Method::GET,
            "",
            &[("x-okta-verification-challenge", "my\"c")],
            "",
            r#"{"verification":"my\"c"}"#,
        ),
    ] {
        let endpoint = endpoint(provider, Some("secret"));
        let mut request = Ask { method: method.clone(), query, headers, body: sent, pending: true };
        let verdict = ask(&endpoint, &request);
        assert_eq!(body(&verdict), answer, "{provider}");
        let Verdict::Reply(reply) = verdict else { unreachable!() };
        assert_eq!(reply.status, StatusCode::OK);
        assert!(
            reply.headers.iter().any(|(name, value)| name == "x-content-type-options" && value == "nosniff"),
            "{provider}"
        );
        request.pending = false;
        let refused = reason(ask(&endpoint, &request));
        if method == Method::GET {
            assert_eq!(refused, Reason::NotPending, "{provider}");
        } else {
            // A POST is then judged as the delivery that it is not.
            assert!(matches!(refused, Reason::Missing(_) | Reason::Body(_)), "{provider}: {refused:?}");
        }
    }
}

#[test]
fn metas_challenge_needs_the_verify_token_and_nothing_else() {
    let endpoint = endpoint("meta", Some("secret"));
    let with =
        |query| ask(&endpoint, &Ask { method: Method::GET, query, headers: &[], body: "", pending: false });
    assert_eq!(body(&with("hub.mode=subscribe&hub.challenge=115&hub.verify_token=mine")), "115");
    assert_eq!(reason(with("hub.mode=subscribe&hub.challenge=115&hub.verify_token=other")), Reason::Mismatch);
    assert_eq!(reason(with("hub.mode=subscribe&hub.challenge=115")), Reason::Mismatch);
    assert_eq!(
        reason(with("hub.mode=subscribe&hub.challenge=115&hub.verify_token=mine&hub.verify_token=x")),
        Reason::Doubled("query parameter hub.verify_token".to_owned())
    );
    assert_eq!(reason(with("hub.challenge=115&hub.verify_token=mine")), Reason::Method);
    // Where none is set, an empty one is not it.
    let settings = Settings { secrets: vec![Secret::new("secret")], ..Settings::default() };
    let unset = Endpoint::new(CATALOG.get("meta").unwrap().clone(), settings).unwrap();
    for query in
        ["hub.mode=subscribe&hub.challenge=115&hub.verify_token=", "hub.mode=subscribe&hub.challenge=115"]
    {
        let verdict = ask(&unset, &Ask { method: Method::GET, query, headers: &[], body: "", pending: true });
        assert!(matches!(reason(verdict), Reason::Missing(_)));
    }
}

#[test]
fn a_hook_secret_is_kept_once() {
    for (provider, headers, sent, secret) in [
        (
            "asana",
            &[("X-Hook-Secret", "b537207f20cbfa02357cf448134da559e8bd39d61597dcd5631b8012eae53e81")][..],
            "",
            "b537207f20cbfa02357cf448134da559e8bd39d61597dcd5631b8012eae53e81",
        ),
        (
            "notion",
            &[],
            r#"{"verification_token":"secret_tMrlL1qK5vuQAh1b6cZGhFChZTSYJlce98V0pYn7yBl"}"#,
            "secret_tMrlL1qK5vuQAh1b6cZGhFChZTSYJlce98V0pYn7yBl",
        ),
    ] {
        let fresh = endpoint(provider, None);
        assert!(!fresh.has_secret());
        let mut request = Ask { method: Method::POST, query: "", headers, body: sent, pending: true };
        let Verdict::Handshake(handshake) = ask(&fresh, &request) else { panic!("{provider}") };
        assert_eq!(handshake.action, Action::KeepSecret(Secret::new(secret)));
        assert!(!format!("{handshake:?}").contains(secret) || provider == "asana");
        if provider == "asana" {
            assert_eq!(handshake.reply.headers[0].0, "x-hook-secret");
        }
        // Nobody installs a key of his own where there is one, nor where nobody waits for one.
        let kept = fresh.with_secret(Secret::new(secret)).unwrap();
        assert!(matches!(reason(ask(&kept, &request)), Reason::Missing(_)));
        request.pending = false;
        assert_eq!(reason(ask(&fresh, &request)), Reason::NoSecret);
    }
}

#[test]
fn signed_handshakes_are_answered_at_any_time_and_never_unsigned() {
    for (provider, sent, answer) in [
        ("slack", r#"{"token":"x","challenge":"3eZbrw1a","type":"url_verification"}"#, "3eZbrw1a"),
        ("intercom", r#"{"type":"notification_event","topic":"ping"}"#, ""),
        ("pagerduty", r#"{"event":{"event_type":"pagey.ping"}}"#, ""),
    ] {
        let mut vector = vectors::of(provider).remove(0);
        let endpoint = vector.endpoint();
        vector.body = sent.as_bytes().to_vec();
        assert!(matches!(vector.verdict(&endpoint), Verdict::Refused(_)), "{provider} unsigned");
        vector.headers = sign(provider, vector.secret.as_deref().unwrap(), vector.now / 1_000_000, sent);
        assert_eq!(body(&vector.verdict(&endpoint)), answer, "{provider}");
    }
}

fn sign(provider: &str, secret: &str, now: i64, body: &str) -> HeaderMap {
    use aws_lc_rs::hmac;
    let hex = |algorithm, message: &str| -> String {
        let key = hmac::Key::new(algorithm, secret.as_bytes());
        hmac::sign(&key, message.as_bytes()).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
    };
    let mut headers = HeaderMap::new();
    let mut insert =
        |name: &'static str, value: String| headers.insert(name, HeaderValue::from_str(&value).unwrap());
    match provider {
        "slack" => {
            insert("x-slack-request-timestamp", now.to_string());
            insert(
                "x-slack-signature",
                format!("v0={}", hex(hmac::HMAC_SHA256, &format!("v0:{now}:{body}"))),
            );
        }
        "intercom" => {
            insert("x-hub-signature", format!("sha1={}", hex(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, body)));
        }
        _ => {
            insert("x-pagerduty-signature", format!("v1={}", hex(hmac::HMAC_SHA256, body)));
        }
    }
    headers
}

#[test]
fn a_ping_is_no_event() {
    let mut github = vectors::of("github").remove(0);
    github.headers.insert("x-github-event", HeaderValue::from_static("ping"));
    assert!(matches!(github.verdict(&github.endpoint()), Verdict::Reply(_)));
    let mut drive = vectors::of("google-drive").remove(0);
    drive.headers.insert("x-goog-resource-state", HeaderValue::from_static("sync"));
    assert!(matches!(drive.verdict(&drive.endpoint()), Verdict::Reply(_)));
}

#[test]
fn cloudevents_origins_are_allowed_while_pending() {
    let endpoint = endpoint("cloudevents", Some("secret"));
    let mut request = Ask {
        method: Method::OPTIONS,
        query: "",
        headers: &[("WebHook-Request-Origin", "eventemitter.example.com")],
        body: "",
        pending: true,
    };
    let answer = |request: &Ask<'_>, name: &str| {
        let Verdict::Reply(reply) = ask(&endpoint, request) else { panic!("no reply") };
        let (_, value) = reply.headers.into_iter().find(|(found, _)| found == name).unwrap();
        value.to_str().unwrap().to_owned()
    };
    assert_eq!(answer(&request, "webhook-allowed-origin"), "eventemitter.example.com");
    assert_eq!(answer(&request, "webhook-allowed-rate"), "*");
    request.headers = &[("WebHook-Request-Origin", "x.example"), ("WebHook-Request-Rate", "120")];
    assert_eq!(answer(&request, "webhook-allowed-rate"), "120");
    request.pending = false;
    assert_eq!(reason(ask(&endpoint, &request)), Reason::NotPending);
}

#[test]
fn answers_hold_no_line_breaks_and_no_novels() {
    let endpoint = endpoint("dropbox", Some("secret"));
    let long = format!("challenge={}", "x".repeat(5000));
    let request = Ask { method: Method::GET, query: &long, headers: &[], body: "", pending: true };
    assert!(matches!(reason(ask(&endpoint, &request)), Reason::Malformed(_)));
}

#[test]
fn other_methods_are_refused() {
    let endpoint = endpoint("github", Some("secret"));
    for method in [Method::GET, Method::PUT, Method::DELETE, Method::HEAD, Method::OPTIONS, Method::TRACE] {
        let request = Ask { method, query: "", headers: &[], body: "", pending: true };
        let Verdict::Refused(refusal) = ask(&endpoint, &request) else { panic!("accepted") };
        assert_eq!(refusal.status, StatusCode::METHOD_NOT_ALLOWED);
    }
}
