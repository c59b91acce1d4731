//! Bodies and batches, once they are verified.

use crate::vectors::{self, CATALOG};
use headgate_webhook::{Data, Endpoint, Reason, Request, Secret, Settings, Verdict};
use http::{HeaderMap, HeaderName, HeaderValue, Method};

fn post(provider: &str, headers: &[(&str, &str)], body: &[u8]) -> Verdict {
    let settings = Settings { secrets: vec![Secret::new("token")], ..Settings::default() };
    let endpoint = Endpoint::new(CATALOG.get(provider).unwrap().clone(), settings).unwrap();
    let mut map = HeaderMap::new();
    map.insert("authorization", HeaderValue::from_static("Bearer token"));
    for (name, value) in headers {
        map.insert(name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value).unwrap());
    }
    endpoint.receive(&Request {
        method: &Method::POST,
        path_and_query: "/",
        headers: &map,
        body,
        received_at: 1_795_356_367_000_000,
        pending: false,
    })
}

fn refused(verdict: Verdict) -> Reason {
    match verdict {
        Verdict::Refused(refusal) => refusal.reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn data_is_the_body_byte_for_byte() {
    for (content_type, body, expected) in [
        ("application/json", &b" {\"n\": 1.50 }\n"[..], "Json(14 bytes)"),
        ("text/plain", b"hello", "Text(5 bytes)"),
        ("application/octet-stream", b"\xff\x00", "Binary(2 bytes)"),
        ("application/x-www-form-urlencoded", b"a=1&b=2", "Text(7 bytes)"),
        ("application/json", b"", "Empty"),
    ] {
        let Verdict::Deliveries { deliveries, .. } = post("token", &[("content-type", content_type)], body)
        else {
            panic!("{content_type} was refused")
        };
        assert_eq!(format!("{:?}", deliveries[0].data), expected);
        assert_eq!(deliveries[0].data.bytes(), body);
    }
}

#[test]
fn a_key_twice_is_refused_at_any_depth() {
    for body in [r#"{"type":"a","type":"b"}"#, r#"{"x":[{"y":{"a":1,"\u0061":2}}]}"#] {
        let reason = refused(post("token", &[("content-type", "application/json")], body.as_bytes()));
        assert!(matches!(reason, Reason::Body(_)), "{reason:?}");
    }
}

#[test]
fn a_verified_body_that_is_no_json_is_kept_as_it_is() {
    for (content_type, body, data, kept) in [
        ("application/json", &b"Hello, World!"[..], "Text(13 bytes)", None),
        ("application/json", b"{\"a\":", "Text(5 bytes)", None),
        ("text/plain", b"Hello, World!", "Text(13 bytes)", Some("text/plain")),
        ("application/json", b"\xff\xfe", "Binary(2 bytes)", None),
        (
            "application/x-www-form-urlencoded",
            b"payload=no",
            "Text(10 bytes)",
            Some("application/x-www-form-urlencoded"),
        ),
        ("application/x-www-form-urlencoded", b"{\"a\":1}", "Json(7 bytes)", Some("application/json")),
    ] {
        let mut vector = vectors::of("github").remove(0);
        vector.headers.insert("content-type", HeaderValue::from_static(content_type));
        let signed =
            vector.endpoint().sign_delivery(vector.headers.clone(), body.into(), vector.now).unwrap();
        (vector.headers, vector.body) = (signed.headers, signed.body.to_vec());
        let Verdict::Deliveries { deliveries, .. } = vector.verdict(&vector.endpoint()) else {
            panic!("{content_type} {body:?} was refused")
        };
        assert_eq!(format!("{:?}", deliveries[0].data), data);
        assert_eq!(deliveries[0].data.bytes(), body);
        assert_eq!(deliveries[0].content_type.as_deref(), kept);
    }
}

#[test]
fn a_signed_body_that_could_have_told_its_time_is_kept_too() {
    let judge = |body: &'static str| {
        let mut vector = vectors::of("linear").remove(0);
        let signed =
            vector.endpoint().sign_delivery(vector.headers.clone(), body.into(), vector.now).unwrap();
        (vector.headers, vector.body) = (signed.headers, signed.body.to_vec());
        vector.verdict(&vector.endpoint())
    };
    assert!(matches!(judge("no json"), Verdict::Deliveries { .. }));
    let twice = refused(judge(r#"{"webhookTimestamp":1,"webhookTimestamp":2}"#));
    assert!(matches!(twice, Reason::Body(_)), "{twice:?}");
}

#[test]
fn what_cannot_be_verified_is_unauthorized_whatever_it_is() {
    // Their signatures, or what is signed, stand in the body.
    for provider in ["mailgun", "adyen", "microsoft-graph", "salesforce", "aws-sns"] {
        for body in
            ["no json", "{}", "[]", "\"\"", r#"{"value":[],"notificationItems":[]}"#, r#"{"a":1,"a":2}"#, ""]
        {
            let mut vector = vectors::of(provider).remove(0);
            vector.body = body.as_bytes().to_vec();
            let Verdict::Refused(refusal) = vector.verdict(&vector.endpoint()) else {
                panic!("{provider} took {body}")
            };
            assert_eq!(
                refusal.status,
                http::StatusCode::UNAUTHORIZED,
                "{provider} {body}: {}",
                refusal.reason
            );
        }
    }
}

#[test]
fn two_deliveries_about_one_thing_are_two() {
    for provider in ["token", "basic", "hmac", "salesforce-hmac", "zendesk"] {
        let vector = vectors::of(provider).remove(0);
        let id = |headers: &[(&'static str, &'static str)], body: &str| {
            let mut vector = vector.clone();
            for (name, value) in headers {
                vector.headers.insert(*name, HeaderValue::from_static(value));
            }
            let body = body.as_bytes().to_vec();
            let signed =
                vector.endpoint().sign_delivery(vector.headers.clone(), body.into(), vector.now).unwrap();
            (vector.headers, vector.body) = (signed.headers, signed.body.to_vec());
            vector.deliveries().remove(0).id
        };
        let paid = id(&[], r#"{"id":42,"status":"paid"}"#);
        assert_eq!(paid, id(&[], r#"{"id":42,"status":"paid"}"#), "{provider}");
        assert_ne!(paid, id(&[], r#"{"id":42,"status":"shipped"}"#), "{provider}");
        // What is a delivery's own id is its id.
        let (headers, body) = match provider {
            "zendesk" => (&[][..], r#"{"id":"d1","type":"zen:event-type:ticket.created"}"#),
            "salesforce-hmac" => (&[][..], r#"{"eventId":"d1","Id":"001A"}"#),
            _ => (&[("x-request-id", "d1")][..], r#"{"status":"paid"}"#),
        };
        assert_eq!(id(headers, body), "d1", "{provider}");
    }
}

#[test]
fn the_authorization_header_never_goes_along() {
    let Verdict::Deliveries { deliveries, .. } = post("token", &[], b"{}") else { panic!("refused") };
    assert!(deliveries[0].headers.is_empty());
    for vector in vectors::all() {
        for delivery in vector.deliveries() {
            for (name, value) in &delivery.headers {
                assert!(name != "authorization" && name != "cookie", "{}", vector.label());
                let secret = vector.secret.as_deref().unwrap_or("no secret");
                assert!(!value.contains(secret), "{}: {name}", vector.label());
            }
        }
    }
}

#[test]
fn the_same_request_has_the_same_ids_and_a_batch_has_different_ones() {
    let vector = vectors::of("hubspot").remove(0);
    let deliveries = vector.deliveries();
    assert_eq!(deliveries, vector.deliveries());
    assert_eq!(deliveries.len(), 2);
    assert_ne!(deliveries[0].id, deliveries[1].id);
    let Data::Json(first) = &deliveries[0].data else { panic!("not JSON") };
    assert!(vector.body.windows(first.len()).any(|window| window == first));
}

#[test]
fn salesforce_gets_its_soap_answer_and_keeps_its_session() {
    let mut vector = vectors::of("salesforce").remove(0);
    let endpoint = vector.endpoint();
    let body = String::from_utf8(vector.body.clone()).unwrap();
    let start = body.find("<Notification>").unwrap();
    let end = body.find("</notifications>").unwrap();
    let second = body[start..end].replace("04l000000000001AAA", "04l000000000002AAA");
    vector.body = format!("{}{second}{}", &body[..end], &body[end..])
        .replace(r#"<SessionId xsi:nil="true"/>"#, "<SessionId>00D!secret</SessionId>")
        .into_bytes();
    let Verdict::Deliveries { deliveries, ack } = vector.verdict(&endpoint) else { panic!("refused") };
    assert_eq!(
        deliveries.iter().map(|d| d.id.as_str()).collect::<Vec<_>>(),
        ["04l000000000001AAA", "04l000000000002AAA"]
    );
    assert!(std::str::from_utf8(&ack.body).unwrap().contains("<Ack>true</Ack>"));
    for delivery in &deliveries {
        assert!(!std::str::from_utf8(delivery.data.bytes()).unwrap().contains("secret"));
    }
    for hostile in [
        r#"<!DOCTYPE x [<!ENTITY a "b">]><x>&a;</x>"#.to_owned(),
        format!("{}{}", "<a>".repeat(300), "</a>".repeat(300)),
        body.replace("00D000000000001EAA", "00D000000000002EAA"),
        body[..body.len() / 2].to_owned(),
    ] {
        vector.body = hostile.into_bytes();
        assert!(matches!(vector.verdict(&endpoint), Verdict::Refused(_)));
    }
}

#[test]
fn adyen_is_told_that_it_was_accepted() {
    let vector = vectors::of("adyen").remove(0);
    let Verdict::Deliveries { ack, .. } = vector.verdict(&vector.endpoint()) else { panic!("refused") };
    assert_eq!(&ack.body[..], b"[accepted]");
}

#[test]
fn an_empty_batch_is_a_heartbeat() {
    let mut vector = vectors::of("asana").remove(0);
    let endpoint = vector.endpoint();
    vector.body = br#"{"events":[]}"#.to_vec();
    assert!(matches!(vector.verdict(&endpoint), Verdict::Refused(_)));
    let key =
        aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, vector.secret.as_deref().unwrap().as_bytes());
    let tag = aws_lc_rs::hmac::sign(&key, &vector.body);
    let hex: String = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    vector.headers.insert("x-hook-signature", HeaderValue::from_str(&hex).unwrap());
    let Verdict::Deliveries { deliveries, .. } = vector.verdict(&endpoint) else { panic!("refused") };
    assert!(deliveries.is_empty());
}

#[test]
fn broken_cloudevents_are_refused() {
    let structured = [("content-type", "application/cloudevents+json")];
    for body in [
        r#"{"specversion":"0.3","id":"1","source":"/a","type":"t"}"#,
        r#"{"specversion":"1.0","id":"","source":"/a","type":"t"}"#,
        r#"{"specversion":"1.0","source":"/a","type":"t"}"#,
        r#"{"specversion":"1.0","id":"1","source":"/a","type":"t","Bad-Name":"x"}"#,
        r#"{"specversion":"1.0","id":"1","source":"/a","type":"t","extra":{"a":1}}"#,
        r#"{"specversion":"1.0","id":"1","source":"/a","type":"t","time":"yesterday"}"#,
        r#"{"specversion":"1.0","id":"1","source":"/a","type":"t","data_base64":"???"}"#,
        "[]",
    ] {
        let reason = refused(post("cloudevents", &structured, body.as_bytes()));
        assert!(matches!(reason, Reason::Body(_)), "{body}: {reason:?}");
    }
    // HTTP 1.1 Web Hooks for Event Delivery, §2.2.
    for (content_type, body) in [("application/json", "{}"), ("application/cloudevents+avro", "x")] {
        let verdict = post("cloudevents", &[("content-type", content_type)], body.as_bytes());
        let Verdict::Refused(refusal) = verdict else { panic!("{verdict:?}") };
        assert!(matches!(refusal.reason, Reason::Format(_)), "{refusal:?}");
        assert_eq!(refusal.status, http::StatusCode::UNSUPPORTED_MEDIA_TYPE);
    }
}

#[test]
fn cloudevents_of_every_mode_keep_their_attributes() {
    let binary = [
        ("content-type", "application/octet-stream"),
        ("ce-specversion", "1.0"),
        ("ce-id", "1"),
        ("ce-source", "/a"),
        ("ce-type", "com.example.thing.made"),
        ("ce-causationid", "caf%C3%A9"),
    ];
    let Verdict::Deliveries { deliveries, .. } = post("cloudevents", &binary, b"\xff\x00") else {
        panic!("refused")
    };
    assert_eq!(deliveries[0].extensions, [("causationid".to_owned(), "café".to_owned())]);
    assert_eq!(format!("{:?}", deliveries[0].data), "Binary(2 bytes)");
    assert_eq!((deliveries[0].entity.as_str(), deliveries[0].verb.as_str()), ("thing", "made"));
    let text = r#"{"specversion":"1.0","id":"1","source":"/a","type":"t","datacontenttype":"text/plain","data":"a\nb"}"#;
    let structured = [("content-type", "application/cloudevents+json; charset=utf-8")];
    let Verdict::Deliveries { deliveries, .. } = post("cloudevents", &structured, text.as_bytes()) else {
        panic!("refused")
    };
    assert_eq!(deliveries[0].data.bytes(), b"a\nb");
    // Neither id nor source alone tells an event from others.
    let first = deliveries[0].identity.clone();
    let other = text.replace("/a", "/b");
    let Verdict::Deliveries { deliveries, .. } = post("cloudevents", &structured, other.as_bytes()) else {
        panic!("refused")
    };
    assert_eq!(deliveries[0].id, "1");
    assert_ne!(deliveries[0].identity, first);
}
