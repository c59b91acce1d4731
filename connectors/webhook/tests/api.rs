//! What an API's answers must not bring about: the token told or sent elsewhere, a run without end. How the commands use the
//! APIs is tested with the whole gateway, in `tests/it/provider_apis.rs`.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

use axum::{
    Router,
    body::Bytes,
    http::{HeaderMap, Method, StatusCode, Uri, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use headgate_webhook::{
    Auth, Registration, Secret,
    api::{self, Api, ApiError, Bookmark, Missed, Since, Wish},
};
use std::sync::{Arc, Mutex};

const URL: &str = "https://hooks.example.com/webhooks/gh";

/// A field whose name would be an element of its own, and one whose name would be a condition.
const DESCRIPTION: &str = r#"{"fields":[{"name":"Id","type":"id"},{"name":"SystemModstamp","type":"datetime"},
    {"name":"a></sObject><x","type":"string"},{"name":"Name FROM User --","type":"string"},{"name":"Name","type":"string"}]}"#;

/// The next page is somebody else's.
const RECORDS: &str = r#"{"done":false,"nextRecordsUrl":"//evil.example/services/data/x","records":[
    {"Id":"001000000000001AAA","SystemModstamp":"2026-11-22T10:00:00.000+0000"}]}"#;

const FOUND: &str =
    r#"[{"Id":"001000000000001AAA","SystemModstamp":"2026-11-22T10:00:00.000+0000","Name":"x"}]"#;

/// Always one more page.
async fn endless(uri: Uri) -> String {
    let length = uri.query().unwrap_or_default().len();
    format!(
        r#"{{"ok":true,"channels":[],"response_metadata":{{"next_cursor":"{}"}}}}"#,
        "x".repeat(length % 2000 + 1)
    )
}

/// Starts the server on a free port; it ends with the test's runtime.
async fn serve() -> String {
    // It repeats what it was sent, as some do.
    let refuse = async |headers: HeaderMap| {
        let sent = headers[header::AUTHORIZATION].to_str().unwrap();
        (StatusCode::UNPROCESSABLE_ENTITY, format!(r#"{{"message":"not with {sent}\n"}}"#))
    };
    let elsewhere =
        async || ([(header::LINK, "<https://evil.example/x>; rel=\"next\"")], "[]").into_response();
    let app = Router::new()
        .route("/repos/octo/refused/hooks", get(refuse))
        .route("/repos/octo/away/hooks", get(elsewhere))
        .route(
            "/repos/octo/moved/hooks",
            get(async || (StatusCode::FOUND, [(header::LOCATION, "https://evil.example/")])),
        )
        .route("/auth.test", post(async || r#"{"ok":true,"team_id":"T1"}"#))
        .route("/users.conversations", get(endless))
        .route("/conversations.history", get(async || "<html>Service Unavailable</html>"))
        .route("/services/data/v65.0/sobjects/Account/describe", get(async || DESCRIPTION))
        .route("/services/data/v65.0/queryAll", get(async || RECORDS))
        .route("/services/data/v65.0/composite/sobjects/Account", post(async || FOUND))
        .route("/drive/v3/changes", get(async || r#"{"changes":[],"nextPageToken":"t0"}"#));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    base
}

fn api(base: &str) -> Api {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    Api::new(base, &Auth::Bearer, Secret::new("hunter2")).unwrap()
}

fn wish(target: &str) -> Wish<'_> {
    Wish { target, url: URL, events: &[] }
}

#[tokio::test]
async fn a_token_is_neither_shown_nor_sent_elsewhere() {
    let api = api(&serve().await);
    let find = async |target: &'static str| {
        api::find("github", &api, &wish(target), &Bookmark::default()).await.unwrap_err()
    };
    let refused = find("octo/refused").await;
    assert!(matches!(refused, ApiError::Refused { status: 422, .. }), "{refused:?}");
    assert!(!format!("{refused} {refused:?}").contains("hunter2"));
    assert!(matches!(find("octo/away").await, ApiError::Strange("a link to another host")));
    assert!(matches!(find("octo/moved").await, ApiError::Refused { status: 302, .. }));
    for target in ["", "a/b/c", "../x", "a/..", "a b", "a/b?x"] {
        assert!(matches!(find(target).await, ApiError::Target(_)), "{target}");
    }
    assert!(matches!(
        Missed::find("zoom", &api, &wish(""), &Bookmark::default(), Since::Time(0)).await,
        Err(ApiError::Unknown)
    ));
}

/// What is waited for, and for how long.
#[tokio::test]
async fn who_wants_fewer_requests_is_asked_again_when_he_says_and_not_for_ever() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let asked: Arc<Mutex<Vec<String>>> = Arc::default();
    let noted = asked.clone();
    let answer = async move |uri: Uri| {
        let kind = uri.path().split('/').nth(1).unwrap().to_owned();
        noted.lock().unwrap().push(kind.clone());
        let before = noted.lock().unwrap().iter().filter(|known| **known == kind).count() - 1;
        let limit = |after: &'static str| {
            (StatusCode::TOO_MANY_REQUESTS, [(header::RETRY_AFTER, after)]).into_response()
        };
        match kind.as_str() {
            "hour" => limit("3600"),
            "always" => limit("0"),
            "date" if before < 2 => limit("Sun, 22 Nov 2020 10:00:00 GMT"),
            "google" if before == 0 => {
                let body = r#"{"error":{"errors":[{"reason":"userRateLimitExceeded"}],"message":"slow"}}"#;
                (StatusCode::FORBIDDEN, [(header::RETRY_AFTER, "0")], body).into_response()
            }
            _ => "[]".into_response(),
        }
    };
    tokio::spawn(async move { axum::serve(listener, Router::new().fallback(answer)).await.unwrap() });
    let find = async |kind: &str| {
        let api = api(&format!("{base}/{kind}"));
        api::find("github", &api, &wish("o/r"), &Bookmark::default()).await
    };
    let told = find("hour").await.unwrap_err().to_string();
    assert!(told.contains("fewer requests") && told.contains("in 3600 s"), "{told}");
    let told = find("always").await.unwrap_err().to_string();
    assert!(told.contains("5 tries") && told.contains("later"), "{told}");
    assert!(find("date").await.is_ok() && find("google").await.is_ok());
    let asked = asked.lock().unwrap();
    let count = |kind: &str| asked.iter().filter(|known| *known == kind).count();
    assert_eq!(["hour", "always", "date", "google"].map(count), [1, 5, 3, 2]);
}

/// Answers that lead from one page to another and back, or to ever another one, or are none: as the URL of the API says.
async fn maze(method: Method, uri: Uri, body: Bytes) -> Response {
    let (mut parts, path) = (uri.path().splitn(3, '/'), uri.path());
    let kind = parts.nth(1).unwrap().to_owned();
    let before = format!("{path}{}{}", uri.query().unwrap_or_default(), String::from_utf8_lossy(&body));
    let next = match kind.as_str() {
        "circle" => (if before.contains("cursor1") { "cursor2" } else { "cursor1" }).to_owned(),
        "endless" => {
            let last = before.split("cursor").last().and_then(|last| last.split(['&', '"']).next());
            format!("cursor{}", last.and_then(|last| last.parse::<u32>().ok()).unwrap_or_default() + 1)
        }
        "huge" => return Bytes::from(vec![b' '; (32 << 20) + 1]).into_response(),
        "text" => return "<html>Sorry</html>".into_response(),
        "moved" => {
            return (StatusCode::TEMPORARY_REDIRECT, [(header::LOCATION, "https://evil.example/")])
                .into_response();
        }
        kind => panic!("{kind}"),
    };
    if path.contains("signing_secret") || method == Method::PUT {
        return StatusCode::NOT_FOUND.into_response();
    }
    // HubSpot's account, and pages in the forms of all three.
    let page = serde_json::json!({
        "portalId": 1,
        "webhooks": [{"id": "01HOOK", "endpoint": if path.ends_with("/webhooks") && kind == "endless" { "https://other" } else { URL }}],
        "invocations": [], "orders": [], "events": [], "results": [],
        "meta": {"has_more": true, "after_cursor": next},
        "paging": {"next": {"after": next}},
        "data": {"webhookSubscriptions": {"nodes": [], "pageInfo": {"hasNextPage": true, "endCursor": next}}},
    });
    let link = format!("</{kind}/orders.json?page={next}>; rel=\"next\"");
    ([(header::LINK, link)], page.to_string()).into_response()
}

#[tokio::test]
async fn what_an_api_answers_brings_no_run_to_wait_for_ever() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, Router::new().fallback(maze)).await.unwrap() });
    let events = |name: &str| match name {
        "shopify" => vec!["orders/updated".to_owned()],
        "hubspot" => vec!["contact.creation".to_owned()],
        _ => Vec::new(),
    };
    for provider in ["zendesk", "shopify", "hubspot"] {
        let events = events(provider);
        for (kind, told) in [
            ("circle", "leads to itself"),
            ("endless", "a thousand pages"),
            ("huge", "without end"),
            ("text", "not what it documents"),
            ("moved", "307"),
        ] {
            let api = api(&format!("{base}/{kind}"));
            let wish = Wish { target: "octo", url: URL, events: &events };
            let missed = Missed::find(provider, &api, &wish, &Bookmark::default(), Since::Time(0)).await;
            let error =
                missed.err().unwrap_or_else(|| panic!("{provider}, {kind}: found something")).to_string();
            assert!(error.contains(told), "{provider}, {kind}: {error}");
        }
    }
}

#[tokio::test]
async fn a_page_that_leads_to_itself_ends_the_run() {
    let api = api(&serve().await);
    let bookmark = Bookmark { next: "t0".to_owned(), ..Bookmark::default() };
    let mut missed = Missed::find("google-drive", &api, &wish(""), &bookmark, Since::Time(0)).await.unwrap();
    assert!(matches!(missed.next().await, Err(ApiError::Strange(_))));
}

#[tokio::test]
async fn answers_that_are_none_lead_nowhere() {
    let api = api(&serve().await);
    let slack =
        async |target| Missed::find("slack", &api, &wish(target), &Bookmark::default(), Since::Time(0)).await;
    assert!(matches!(slack("").await, Err(ApiError::Strange(_))), "an endless list of conversations");
    for target in ["C1,", "C1&cursor=x", "../x"] {
        assert!(matches!(slack(target).await, Err(ApiError::Target(_))), "{target}");
    }
    let mut missed = slack("C1").await.unwrap();
    missed.settle(1_000_000);
    assert!(matches!(missed.next().await, Err(ApiError::Strange(_))), "a page for people");
    let names = ["Account".to_owned()];
    let wish = Wish { target: "octo", url: URL, events: &names };
    let mut missed =
        Missed::find("salesforce", &api, &wish, &Bookmark::default(), Since::Time(0)).await.unwrap();
    missed.settle(i64::MAX / 2);
    let error = missed.next().await.unwrap_err();
    assert!(matches!(error, ApiError::Strange("a page that leads elsewhere")), "{error:?}");
    for name in ["Account WHERE", "a/b", ""] {
        let names = [name.to_owned()];
        let wish = Wish { target: "octo", url: URL, events: &names };
        let missed = Missed::find("salesforce", &api, &wish, &Bookmark::default(), Since::Time(0)).await;
        assert!(matches!(missed, Err(ApiError::Target(_))), "{name}");
    }
}

/// Every `[api]` of a provider's file is spoken, and says what the commands ask of it.
#[tokio::test]
async fn every_service_is_spoken() {
    let api = api("http://127.0.0.1:9");
    let catalog = headgate_webhook::Catalog::builtin().unwrap();
    let services = catalog.iter().filter_map(|provider| Some((provider.name(), provider.service()?)));
    let mut count = 0;
    for (name, service) in services {
        count += 1;
        assert!(service.documentation.iter().all(|page| page.starts_with("https://")), "{name}");
        assert!(service.base("octo").unwrap().starts_with("https://"), "{name}");
        let target = match name {
            "github" => "o/r",
            "hubspot" => "4711",
            _ => "octo",
        };
        let found = api::find(name, &api, &wish(target), &Bookmark::default()).await;
        let by_hand = service.register == Registration::Hand;
        assert_eq!(matches!(found, Err(ApiError::Unknown)), by_hand, "{name}");
        if !service.reconcile.is_empty() {
            let missed = Missed::find(name, &api, &wish(target), &Bookmark::default(), Since::Time(0)).await;
            assert!(!matches!(missed, Err(ApiError::Unknown)), "{name}");
        }
    }
    assert!(count >= 7, "{count} services");
}
