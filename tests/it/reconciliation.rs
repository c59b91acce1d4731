//! `headgate webhook reconcile` and `register` with Zendesk, Shopify and HubSpot, as an operator runs them, and a run that is cut off in
//! the middle. The oracle is what happened at the provider: all of it is in the stream, once.

use super::provider_apis::{configure, run_at, secret_file};
use crate::support::{
    crm::{Server, ago},
    eventually,
    gateway::Gateway,
    hooks::{self, hmac_hex},
    nats::Nats,
    stream::{self, Event},
    vendors::{TOKEN, Vendors},
};
use axum::{Router, body::Bytes, http::HeaderMap, routing::post};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::{
    path::PathBuf,
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

/// A gateway that runs, with the secret in its file.
async fn started(nats: &Nats, provider: &str, secret: &str) -> Gateway {
    let mut gateway = configure(nats, provider);
    std::fs::write(secret_file(&gateway), format!("{secret}\n")).unwrap();
    gateway.start_again().await;
    gateway
}

/// Has a delivery come in, as the provider sends it.
async fn push(gateway: &Gateway, headers: &[(&str, String)], body: String) {
    let url = format!("http://127.0.0.1:{}/webhooks/in", gateway.http_port());
    let mut request = hooks::client().post(url).header("content-type", "application/json");
    for (name, value) in headers {
        request = request.header(*name, value);
    }
    let answer = request.body(body).send().await.unwrap();
    assert!(answer.status().is_success(), "{answer:?}");
}

fn base64_hmac(secret: &str, message: &str) -> String {
    let hex = hmac_hex(secret, message.as_bytes());
    let bytes: Vec<u8> =
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect();
    BASE64_STANDARD.encode(bytes)
}

async fn events(nats: &Nats) -> Vec<Event> {
    stream::read(nats, "EVENTS_in").await
}

/// Type and subject of each event.
fn told(events: &[Event]) -> Vec<(&str, &str)> {
    events.iter().map(|event| (event.attribute("type"), event.attribute("subject"))).collect()
}

async fn push_zendesk(gateway: &Gateway, body: &Value) {
    let (now, body) = (jiff::Timestamp::now().to_string(), body.to_string());
    let signature = base64_hmac("zen-secret", &format!("{now}{body}"));
    let headers =
        [("x-zendesk-webhook-signature", signature), ("x-zendesk-webhook-signature-timestamp", now)];
    push(gateway, &headers, body).await;
}

#[tokio::test]
async fn zendesks_failed_invocations_come_under_the_id_of_their_event() {
    let (nats, server) = (Nats::start().await, Server::start().await);
    let gateway = started(&nats, "zendesk", "zen-secret").await;
    let event = |number: u64, kind: &str| {
        json!({"account_id": 22, "id": format!("event-{number}"), "type": format!("zen:event-type:{kind}"),
            "subject": format!("zen:ticket:{number}"), "time": ago(60), "detail": {"id": number.to_string()}, "event": {}})
    };
    let invocation = |number: u64, minutes: i64, status: &str, payload: Value| {
        let attempt = json!({"id": format!("a{number}"), "status": status, "request": {"headers": [], "payload": payload}});
        json!({"id": format!("01INV{number}"), "status": status, "latest_completed_at": ago(minutes), "attempts": [attempt]})
    };
    let (first, second, third) =
        (event(1, "ticket.created"), event(2, "ticket.created"), event(3, "ticket.permanently_deleted"));
    server.crm().invocations = vec![
        invocation(9, 3 * 24 * 60, "failed", event(9, "ticket.created")),
        invocation(1, 50, "success", first.clone()),
        invocation(2, 40, "server error", Value::from(second.to_string())),
        // Not even tried: Zendesk had opened the circuit.
        invocation(3, 30, "circuit broken", third),
        // Arrived, and was answered too late.
        invocation(4, 20, "timeout", event(4, "ticket.created")),
        invocation(5, 10, "failed", Value::Null),
    ];
    push_zendesk(&gateway, &first).await;
    push_zendesk(&gateway, &event(4, "ticket.created")).await;
    let reconcile = ["reconcile", "in"];
    let (code, text) = run_at(&gateway, &server.base, "hunter2-old", &reconcile).await;
    assert!(code == Some(78) && text.contains("401") && text.contains("webhooks:read"), "{text}");
    let (code, text) =
        run_at(&gateway, &server.base, TOKEN, &[&reconcile[..], &["--since", "30h"]].concat()).await;
    assert!(code == Some(64) && text.contains("dedup_window"), "{text}");
    server.crm().busy = 2;
    let (code, text) = run_at(&gateway, &server.base, TOKEN, &reconcile).await;
    assert!(code == Some(78) && text.contains("delivered 3 of Zendesk"), "{text}");
    assert!(text.contains("1 cannot be had any more"), "what is lost is said: {text}");
    let ids = async || -> Vec<String> {
        events(&nats).await.iter().map(|event| event.attribute("id").to_owned()).collect()
    };
    let expected = ["event-1", "event-4", "event-2", "event-3"];
    assert_eq!(ids().await, expected);
    let (_, text) = run_at(&gateway, &server.base, TOKEN, &reconcile).await;
    assert!(text.contains("delivered 3 of Zendesk"), "{text}");
    // Zendesk manages it after all.
    push_zendesk(&gateway, &second).await;
    assert_eq!(ids().await, expected, "one event each, however often it comes and whence");
    let kinds = events(&nats).await;
    assert_eq!(told(&kinds)[3], ("com.zendesk.ticket.permanently_deleted", "zen:ticket:3"));
}

async fn push_shopify(gateway: &Gateway, topic: &str, id: &str, body: &Value) {
    let body = body.to_string();
    let headers = [
        ("x-shopify-hmac-sha256", base64_hmac("app-secret", &body)),
        ("x-shopify-topic", topic.to_owned()),
        ("x-shopify-shop-domain", "octo.myshopify.com".to_owned()),
        ("x-shopify-event-id", id.to_owned()),
    ];
    push(gateway, &headers, body).await;
}

#[tokio::test]
async fn what_happened_at_shopify_and_is_not_in_the_stream_is_delivered_once() {
    let (nats, server) = (Nats::start().await, Server::start().await);
    let gateway = started(&nats, "shopify", "app-secret").await;
    let order = |id: u64, created: i64, updated: i64| {
        json!({"id": id, "admin_graphql_api_id": format!("gid://shopify/Order/{id}"), "total_price": "12.30",
            "created_at": ago(created), "updated_at": ago(updated)})
    };
    let deleted = |id: u64, minutes: i64| json!({"id": id + 100, "subject_id": id, "subject_type": "Product", "verb": "destroy", "created_at": ago(minutes)});
    let lost = order(2, 590, 590);
    server.crm().things.insert(
        "orders",
        vec![
            order(1, 600, 600),
            lost.clone(),
            order(3, 5000, 580),
            order(4, 5000, 570),
            order(5, 60, 60),
            order(6, 550, 550),
            order(7, 540, 500),
        ],
    );
    server.crm().gone = vec![6];
    server.crm().log = vec![deleted(21, 400), deleted(22, 390), deleted(23, 5)];
    push_shopify(&gateway, "orders/create", "e1", &order(1, 600, 600)).await;
    // Older than the order is now.
    push_shopify(&gateway, "orders/updated", "e3", &order(3, 5000, 700)).await;
    push_shopify(&gateway, "orders/paid", "e4", &order(4, 5000, 570)).await;
    push_shopify(&gateway, "products/delete", "e22", &json!({"id": 22})).await;
    push_shopify(&gateway, "orders/create", "e7", &order(7, 540, 540)).await;

    let reconcile = ["reconcile", "in", "--target", "octo"];
    let (code, text) = run_at(&gateway, &server.base, "hunter2-old", &reconcile).await;
    assert!(code == Some(78) && text.contains("401") && text.contains("read_orders"), "{text}");
    let (code, text) = run_at(&gateway, &server.base, TOKEN, &["reconcile", "in"]).await;
    assert!(code == Some(64) && text.contains("--target"), "{text}");
    let other = [&reconcile[..], &["--event", "orders/create,orders/paid"]].concat();
    let (code, text) = run_at(&gateway, &server.base, TOKEN, &other).await;
    assert!(code == Some(64) && text.contains("ORDERS_PAID"), "{text}");
    server.crm().busy = 2;
    let (code, text) = run_at(&gateway, &server.base, TOKEN, &reconcile).await;
    assert!(code == Some(0) && text.contains("delivered 4 of Shopify"), "{text}");
    let seen = events(&nats).await;
    assert_eq!(
        told(&seen)[5..],
        [
            ("com.shopify.orders.create", "gid://shopify/Order/2"),
            ("com.shopify.orders.updated", "gid://shopify/Order/3"),
            ("com.shopify.orders.updated", "gid://shopify/Order/7"),
            ("com.shopify.products.delete", "21"),
        ]
    );
    let id = format!("headgate:orders/create:2:{}", lost["created_at"].as_str().unwrap());
    assert_eq!(seen[5].attribute("id"), id);
    assert_eq!(seen[5].attribute("source"), seen[0].attribute("source"));
    let (code, text) = run_at(&gateway, &server.base, TOKEN, &reconcile).await;
    assert!(code == Some(0) && text.contains("nothing of Shopify is missing"), "{text}");
    assert_eq!(events(&nats).await.len(), 9);
    // What Shopify may still deliver is left to it, unless one does not want to wait.
    let soon = [&reconcile[..], &["--until", "1m", "--json"]].concat();
    let (code, text) = run_at(&gateway, &server.base, TOKEN, &soon).await;
    assert_eq!(code, Some(0), "{text}");
    assert_eq!(serde_json::from_str::<Value>(&text).unwrap()["delivered"], 2);
    assert_eq!(
        told(&events(&nats).await)[9..],
        [("com.shopify.orders.create", "gid://shopify/Order/5"), ("com.shopify.products.delete", "23")]
    );
    let (code, text) =
        run_at(&gateway, &server.base, TOKEN, &[&reconcile[..], &["--since", "2h"]].concat()).await;
    assert!(code == Some(64) && text.contains("--until"), "{text}");

    // Where the last run ended three days ago, the next one begins there; another shop's did not.
    server.crm().things.get_mut("orders").unwrap().push(order(8, 2 * 24 * 60, 2 * 24 * 60));
    let (code, text) = run_at(&gateway, &server.base, TOKEN, &reconcile).await;
    assert!(code == Some(0) && text.contains("nothing of Shopify is missing"), "{text}");
    let mut note = bookmark(&gateway, "in.octo.json");
    assert!(note["next"].as_str().unwrap().contains("ORDERS%5FCREATE="), "{note}");
    note["next"] = json!(format!("ORDERS%5FCREATE={}", micros_ago(3 * 24 * 60)));
    write_bookmark(&gateway, "in.octo.json", &note);
    let (code, text) = run_at(&gateway, &server.base, TOKEN, &["reconcile", "in", "--target", "other"]).await;
    assert!(code == Some(0) && text.contains("nothing of Shopify is missing"), "{text}");
    let (code, text) = run_at(&gateway, &server.base, TOKEN, &reconcile).await;
    assert!(code == Some(0) && text.contains("delivered 1 of Shopify"), "{text}");
    let seen = events(&nats).await;
    assert_eq!(told(&seen)[11..], [("com.shopify.orders.create", "gid://shopify/Order/8")]);
    // And the one after that goes on from there, which the least that it asks for shows.
    assert!(place(&gateway, "in.octo.json", "ORDERS%5FCREATE=") > micros_ago(5 * 60));
}

fn note(gateway: &Gateway, name: &str) -> PathBuf {
    gateway.command().get_current_dir().unwrap().join("data/webhooks").join(name)
}

fn bookmark(gateway: &Gateway, name: &str) -> Value {
    serde_json::from_slice(&std::fs::read(note(gateway, name)).unwrap()).unwrap()
}

fn write_bookmark(gateway: &Gateway, name: &str, bookmark: &Value) {
    std::fs::write(note(gateway, name), bookmark.to_string()).unwrap();
}

/// Up to where a bookmark says that something was looked for.
fn place(gateway: &Gateway, name: &str, thing: &str) -> i64 {
    let bookmark = bookmark(gateway, name);
    let mut places = bookmark["next"].as_str().unwrap().split(' ');
    places.find_map(|place| place.strip_prefix(thing)).unwrap().parse().unwrap()
}

fn micros_ago(minutes: i64) -> i64 {
    ago(minutes).parse::<jiff::Timestamp>().unwrap().as_microsecond()
}

async fn push_hubspot(gateway: &Gateway, event: Value) {
    let body = json!([event]).to_string();
    let digest = Sha256::digest(format!("hub-secret{body}"));
    let signature: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    push(gateway, &[("x-hubspot-signature", signature)], body).await;
}

#[tokio::test]
async fn hubspots_app_is_set_up_and_what_happened_in_the_crm_is_delivered_once() {
    let (nats, server) = (Nats::start().await, Server::start().await);
    let gateway = started(&nats, "hubspot", "hub-secret").await;
    let wanted = "contact.creation,contact.deletion,contact.propertyChange:email";
    let register = ["register", "in", "--target", "4711", "--event", wanted];
    let (code, text) = run_at(&gateway, &server.base, "hunter2-old", &register).await;
    assert!(code == Some(78) && text.contains("401") && text.contains("developer account"), "{text}");
    let (code, text) = run_at(&gateway, &server.base, TOKEN, &["register", "in", "--target", "4711"]).await;
    assert!(code == Some(64) && text.contains("--event"), "{text}");
    server.crm().target = Some("https://other.example/hook".to_owned());
    let (code, text) = run_at(&gateway, &server.base, TOKEN, &register).await;
    assert!(code == Some(78) && text.contains("https://other.example/hook"), "it is another's: {text}");
    assert_eq!(server.crm().target.as_deref(), Some("https://other.example/hook"));
    server.crm().target = None;
    server.crm().subscriptions = vec![json!({"id": "1", "eventType": "contact.deletion", "active": false})];
    for outcome in ["made webhook 4711", "nothing was changed there"] {
        let (code, text) = run_at(&gateway, &server.base, TOKEN, &register).await;
        assert!(code == Some(0) && text.contains(outcome), "{text}");
    }
    assert_eq!(server.crm().target.as_deref(), Some("https://hooks.example.com/webhooks/in"));
    let made: Vec<(Value, Value, Value)> = server
        .crm()
        .subscriptions
        .iter()
        .map(|one| (one["eventType"].clone(), one["propertyName"].clone(), one["active"].clone()))
        .collect();
    assert_eq!(
        made,
        [
            (json!("contact.deletion"), Value::Null, json!(true)),
            (json!("contact.creation"), Value::Null, json!(true)),
            (json!("contact.propertyChange"), json!("email"), json!(true)),
        ]
    );

    // Hours ago; HubSpot itself tries for a day.
    let hours = |hours: i64| ago(hours * 60);
    let contact = |id: u64, created: i64, updated: i64, emails: &[(&str, i64)]| {
        let history: Vec<Value> = emails
            .iter()
            .map(|(value, at)| json!({"value": value, "timestamp": hours(*at), "sourceType": "CRM_UI"}))
            .collect();
        json!({"id": id.to_string(), "createdAt": hours(created), "updatedAt": hours(updated), "archived": false,
            "properties": {}, "propertiesWithHistory": {"email": history}})
    };
    let archived = |id: u64, at: i64| json!({"id": id.to_string(), "createdAt": hours(900), "updatedAt": hours(at), "archived": true, "archivedAt": hours(at)});
    server.crm().contacts = vec![
        contact(1, 40, 40, &[]),
        contact(2, 39, 39, &[]),
        contact(3, 500, 30, &[("c@x", 30), ("a@x", 35), ("b@x", 36), ("a@x", 37), ("old@x", 400)]),
        contact(4, 2, 2, &[]),
        archived(5, 34),
        archived(6, 33),
        archived(7, 800),
    ];
    let event = |kind: &str, object: u64, at: i64| {
        let occurred = hours(at).parse::<jiff::Timestamp>().unwrap().as_millisecond() + 300;
        json!({"eventId": object, "subscriptionId": 55, "portalId": 62515, "occurredAt": occurred,
            "subscriptionType": kind, "attemptNumber": 0, "objectId": object})
    };
    let changed = |value: &str, at: i64| {
        let mut event = event("contact.propertyChange", 3, at);
        event["eventId"] = json!(at);
        event["propertyName"] = json!("email");
        event["propertyValue"] = json!(value);
        event
    };
    push_hubspot(&gateway, event("contact.creation", 1, 40)).await;
    push_hubspot(&gateway, changed("a@x", 37)).await;
    push_hubspot(&gateway, changed("b@x", 36)).await;
    push_hubspot(&gateway, event("contact.deletion", 5, 34)).await;
    let reconcile = ["reconcile", "in", "--event", wanted];
    let (code, text) = run_at(&gateway, &server.base, "hunter2-old", &reconcile).await;
    assert!(code == Some(78) && text.contains("401") && text.contains("crm.objects"), "{text}");
    let (code, text) = run_at(&gateway, &server.base, TOKEN, &["reconcile", "in"]).await;
    assert!(code == Some(64) && text.contains("--event"), "{text}");
    let (code, text) =
        run_at(&gateway, &server.base, TOKEN, &["reconcile", "in", "--event", "contact.merge"]).await;
    assert!(code == Some(64) && text.contains("contact.merge"), "{text}");
    server.crm().busy = 2;
    let (code, text) = run_at(&gateway, &server.base, TOKEN, &reconcile).await;
    assert!(code == Some(0) && text.contains("delivered 4 of HubSpot"), "{text}");
    let seen = events(&nats).await;
    let expected = [
        ("com.hubspot.contact.creation", "2"),
        ("com.hubspot.contact.propertyChange", "3"),
        ("com.hubspot.contact.deletion", "6"),
        ("com.hubspot.contact.propertyChange", "3"),
    ];
    assert_eq!(told(&seen)[4..], expected);
    assert!(seen[4].attribute("id").starts_with("62515:0:"), "{}", seen[4].attribute("id"));
    assert_eq!(seen[4].attribute("source"), seen[0].attribute("source"));
    assert_ne!(seen[5].attribute("id"), seen[7].attribute("id"), "two changes are two events");
    let (code, text) = run_at(&gateway, &server.base, TOKEN, &reconcile).await;
    assert!(code == Some(0) && text.contains("nothing of HubSpot is missing"), "{text}");
    assert_eq!(events(&nats).await.len(), 8);

    // Where the last run ended three days ago, the next one begins there, for what it had looked for.
    server.crm().contacts.push(contact(8, 60, 60, &[]));
    let thing = "62515%2Fcontact%2Ecreation=";
    assert!(place(&gateway, "in.json", thing) > micros_ago(25 * 60));
    write_bookmark(&gateway, "in.json", &json!({"next": format!("{thing}{}", micros_ago(3 * 24 * 60))}));
    let other = ["reconcile", "in", "--event", "contact.deletion"];
    let (code, text) = run_at(&gateway, &server.base, TOKEN, &other).await;
    assert!(code == Some(0) && text.contains("nothing of HubSpot is missing"), "{text}");
    let (code, text) = run_at(&gateway, &server.base, TOKEN, &reconcile).await;
    assert!(code == Some(0) && text.contains("delivered 1 of HubSpot"), "{text}");
    assert_eq!(told(&events(&nats).await)[8..], [("com.hubspot.contact.creation", "8")]);

    // Where there is more than one run takes, the next one would begin at the same place: what holds it there is named.
    server.crm().contacts.extend((100..10_200).map(|id| contact(id, 20, 20, &[])));
    let (code, text) = run_at(&gateway, &server.base, TOKEN, &reconcile).await;
    assert!(code == Some(78) && text.contains("webhooks/in.json") && text.contains("remove it"), "{text}");
}

/// What a run that is killed in the middle of a page had taken is not taken again, even when no id is known any more.
#[tokio::test]
async fn airtables_bookmark_stands_behind_the_last_payload_that_was_taken() {
    let (nats, vendors) = (Nats::start().await, Vendors::start().await);
    let mut gateway = configure(&nats, "airtable");
    let (code, text) =
        run_at(&gateway, &vendors.base, TOKEN, &["register", "in", "--target", "appBase"]).await;
    assert_eq!(code, Some(0), "{text}");
    gateway.start_again().await;
    let payload =
        |number: u64| json!({"timestamp": format!("2026-11-22T10:00:0{number}.000Z"), "payloadFormat": "v0"});
    vendors.world().payloads = (1..=4).map(payload).collect();
    // Lets three through, and says nothing to the fourth, the second of its page.
    let (count, to) = (Arc::new(AtomicUsize::new(0)), gateway.http_port());
    let posts = count.clone();
    let relay = async move |headers: HeaderMap, body: Bytes| {
        if posts.fetch_add(1, Ordering::SeqCst) >= 3 {
            std::future::pending::<()>().await;
        }
        let request = hooks::client().post(format!("http://127.0.0.1:{to}/webhooks/in"));
        request.headers(headers).body(body).send().await.unwrap().status()
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let slow = format!("http://{}/", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, Router::new().route("/", post(relay))).await.unwrap() });
    let reconcile = ["webhook", "reconcile", "in", "--target", "appBase", "--api", &vendors.base];
    let mut command = gateway.command();
    command.args(reconcile).args(["--url", &slow]).env("HEADGATE_API_TOKEN", TOKEN).stdout(Stdio::null());
    let mut child = command.spawn().unwrap();
    eventually("the fourth is posted", Duration::from_secs(20), || async {
        let posted = count.load(Ordering::SeqCst);
        if posted == 4 { Ok(()) } else { Err(format!("{posted}")) }
    })
    .await;
    child.kill().unwrap();
    child.wait().unwrap();
    vendors.world().asked.clear();
    let (code, text) =
        run_at(&gateway, &vendors.base, TOKEN, &["reconcile", "in", "--target", "appBase"]).await;
    assert!(code == Some(0) && text.contains("delivered 1 of Airtable"), "{text}");
    assert_eq!(vendors.world().asked, ["4"]);
    let ids: Vec<String> = events(&nats).await.iter().map(|event| event.attribute("id").to_owned()).collect();
    assert_eq!(ids, ["achHook:1", "achHook:2", "achHook:3", "achHook:4"]);
}

/// A delivery that lies in the spool of another gateway behind the same address makes no second event: its id is the same; and where the
/// API does not tell ids, the run asks that gateway.
#[tokio::test]
async fn what_another_gateway_has_in_its_spool_makes_no_second_event() {
    let (mut nats, vendors, server) = (Nats::start().await, Vendors::start().await, Server::start().await);
    let (one, mut other) =
        (started(&nats, "github", "gh-secret").await, started(&nats, "github", "gh-secret").await);
    vendors.world().hooks =
        vec![json!({"id": 7, "config": {"url": "https://hooks.example.com/webhooks/in"}})];
    let payload = json!({"action": "opened", "issue": {"number": 1}, "repository": {"id": 1}});
    vendors.world().deliveries = vec![
        json!({"id": 11, "guid": "d1", "delivered_at": ago(5), "status_code": 504, "event": "issues",
        "request": {"headers": {"X-GitHub-Event": "issues", "X-GitHub-Delivery": "d1"}, "payload": payload}}),
    ];
    let shops =
        (started(&nats, "shopify", "app-secret").await, started(&nats, "shopify", "app-secret").await);
    nats.kill9(0);
    let signature = format!("sha256={}", hmac_hex("gh-secret", payload.to_string().as_bytes()));
    let headers = [
        ("x-github-event", "issues".to_owned()),
        ("x-github-delivery", "d1".to_owned()),
        ("x-hub-signature-256", signature),
    ];
    push(&other, &headers, payload.to_string()).await;
    other.kill9();

    // Shopify tells no ids: what waits over there would come under two.
    push_shopify(&shops.1, "orders/create", "e1", &json!({"id": 1})).await;
    let beside = shops.1.admin();
    let reconcile = ["reconcile", "in", "--target", "octo", "--beside", &beside];
    let (code, text) = run_at(&shops.0, &server.base, TOKEN, &reconcile).await;
    assert!(code == Some(69) && text.contains(&format!("spool of the gateway at {beside}")), "{text}");
    drop(shops);
    let (code, text) =
        run_at(&one, &server.base, TOKEN, &["reconcile", "in", "--target", "octo", "--beside", &beside])
            .await;
    assert!(code == Some(64) && text.contains("--beside"), "{text}");

    nats.start_again(0).await;
    one.status().await;
    let (code, text) =
        run_at(&one, &vendors.base, TOKEN, &["reconcile", "in", "--target", "octo/shop"]).await;
    assert!(code == Some(0) && text.contains("delivered 1 of GitHub"), "{text}");
    other.start_again().await;
    eventually("the other's spool is empty", Duration::from_secs(30), || async {
        let retained = other.status().await["sources"][0]["retained_bytes"].as_u64();
        if retained == Some(0) { Ok(()) } else { Err(format!("{retained:?}")) }
    })
    .await;
    let ids: Vec<String> = events(&nats).await.iter().map(|event| event.attribute("id").to_owned()).collect();
    assert_eq!(ids, ["d1"]);
}

/// A gateway that lets few requests of an address through is asked again as it says.
#[tokio::test]
async fn the_gateways_own_limit_is_waited_for() {
    let (nats, vendors) = (Nats::start().await, Vendors::start().await);
    let mut gateway = configure(&nats, "airtable");
    gateway.reconfigure(|text| format!("{text}rate_limit = \"2/s\"\n"));
    let (code, text) =
        run_at(&gateway, &vendors.base, TOKEN, &["register", "in", "--target", "appBase"]).await;
    assert_eq!(code, Some(0), "{text}");
    gateway.start_again().await;
    let payload = |_| json!({"timestamp": "2026-11-22T10:00:00.000Z", "payloadFormat": "v0"});
    vendors.world().payloads = (1..=4).map(payload).collect();
    let (code, text) =
        run_at(&gateway, &vendors.base, TOKEN, &["reconcile", "in", "--target", "appBase"]).await;
    assert!(code == Some(0) && text.contains("delivered 4 of Airtable"), "{text}");
    let refused = gateway.metric("headgate_refused_total{source=\"in\",reason=\"rate\"}").await;
    assert!(refused > 0.0, "the limit was not reached");
}
