//! Webhooks become events: signed ones only, each once, in order.

use crate::support::{
    eventually,
    hooks::{self, SECRET, STREAM, Signed},
    nats::Nats,
    stream,
};
use std::time::Duration;
use tokio::io::AsyncReadExt as _;

#[tokio::test]
async fn a_signed_delivery_becomes_an_event_once() {
    let nats = Nats::start().await;
    let mut gateway = hooks::start(&nats, "", "").await;
    let port = gateway.http_port();
    let signed = Signed::issue("72d3162e-cc78-11e3-81ab-4c9367dc0958", 42);
    for _ in 0..3 {
        assert!((200..300).contains(&signed.status(port).await), "the same again is as good");
    }
    let events = stream::read(&nats, STREAM).await;
    let [event] = events.as_slice() else { panic!("{events:?}") };
    assert_eq!(event.attribute("id"), "72d3162e-cc78-11e3-81ab-4c9367dc0958");
    assert_eq!(event.attribute("type"), "com.github.issues.opened");
    assert_eq!(event.attribute("source"), "https://api.github.com/repos/o/r");
    assert_eq!((event.attribute("subject"), event.attribute("integrity")), ("42", "body"));
    assert_eq!(event.attribute("time"), "2026-11-22T10:00:00.000000Z");
    assert_eq!(event.attribute("partitionkey"), event.attribute("subject"));
    let tokens: Vec<&str> = event.subject.split('.').collect();
    assert_eq!((tokens.len(), &tokens[..4]), (5, ["events", "gh", "issues", "opened"].as_slice()));
    let status = gateway.status().await.to_string();
    assert!(status.contains("\"webhook\"") && !status.contains(SECRET), "{status}");
    assert_eq!(gateway.terminate(), Some(0));
    assert!(!gateway.log().contains(SECRET), "the secret was told");
}

/// Of two senders of CloudEvents each counts from 1.
#[tokio::test]
async fn events_of_two_sources_with_one_id_are_two() {
    let nats = Nats::start().await;
    let parameters = "[sources.gh.parameters]\nheader = \"X-Hub-Signature-256\"";
    let mut gateway = hooks::configure(&nats, "", parameters);
    gateway.reconfigure(|text| text.replace("provider = \"github\"", "provider = \"cloudevents\""));
    gateway.start_again().await;
    for source in ["/a", "/b", "/a"] {
        let body = format!(r#"{{"specversion":"1.0","id":"1","source":"{source}","type":"order.paid"}}"#);
        let signed =
            Signed::of("1", body.into_bytes(), SECRET).with("content-type", "application/cloudevents+json");
        assert_eq!(signed.status(gateway.http_port()).await, 202);
    }
    let events = stream::read(&nats, STREAM).await;
    let told: Vec<_> =
        events.iter().map(|event| (event.attribute("source"), event.attribute("id"))).collect();
    assert_eq!(told, [("/a", "1"), ("/b", "1")]);
}

#[tokio::test]
async fn what_is_not_verified_is_refused_and_leaves_nothing() {
    let nats = Nats::start().await;
    let gateway = hooks::start(&nats, "memory = \"8MiB\"\n", "max_body = \"4MiB\"\n").await;
    let port = gateway.http_port();
    let wrong = Signed::issue_with("w", 1, "", "another secret");
    assert_eq!(wrong.status(port).await, 401);
    assert_eq!(Signed::issue("x", 1).with("x-hub-signature-256", "sha256=").status(port).await, 401);
    let client = hooks::client();
    let unknown = client.post(format!("http://127.0.0.1:{port}/webhooks/nobody")).send().await.unwrap();
    assert_eq!(unknown.status(), 404);
    let deeper = client.post(format!("http://127.0.0.1:{port}/webhooks/gh/x")).send().await.unwrap();
    assert_eq!(deeper.status(), 404);
    let put = client.put(format!("http://127.0.0.1:{port}/webhooks/gh")).send().await.unwrap();
    assert_eq!((put.status().as_u16(), put.headers()["allow"].to_str().unwrap()), (405, "POST"));
    let large = Signed::of("l", vec![b' '; 5 << 20], SECRET);
    assert_eq!(large.status(port).await, 413);
    assert_eq!(Signed::issue("e", 1).with("content-encoding", "br").status(port).await, 415);
    // Nothing was published; what is in order still is.
    assert!(Signed::issue("good", 1).status(port).await < 300);
    let events = stream::read(&nats, STREAM).await;
    assert_eq!(events.iter().map(|event| event.attribute("id")).collect::<Vec<_>>(), ["good"]);
}

#[tokio::test]
async fn a_body_over_the_brokers_limit_is_kept_whole() {
    let nats = Nats::start().await;
    let gateway = hooks::start(&nats, "", "").await;
    let port = gateway.http_port();
    let text = "y".repeat(24 << 20);
    let large = Signed::issue_with("large", 7, &text, SECRET);
    assert!(large.status(port).await < 300);
    assert!(Signed::issue("small", 7).status(port).await < 300);
    let events = hooks::assert_faithful(&nats, &[vec!["large".to_owned()], vec!["small".to_owned()]]).await;
    assert_eq!(events[0].attribute("id"), "large");
    let reference = events[0].attribute("dataref").to_owned();
    let (bucket, name) = reference.strip_prefix("nats-obj://").unwrap().split_once('/').unwrap();
    let jetstream = nats.jetstream().await;
    let store = jetstream.get_object_store(bucket).await.unwrap();
    let mut object = store.get(name).await.unwrap();
    let mut content = Vec::new();
    object.read_to_end(&mut content).await.unwrap();
    assert!(content == large.body, "the body came back changed: {} bytes", content.len());
}

#[tokio::test]
async fn a_sample_is_sent_and_dead_letters_are_published_again() {
    let nats = Nats::start().await;
    let gateway = hooks::start(&nats, "", "").await;
    let run = async |arguments: &[&str]| {
        let mut command = gateway.command();
        command.arg("webhook").args(arguments);
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(text).unwrap())
    };
    let (code, text) = run(&["list"]).await;
    assert!(code == Some(0) && text.contains("github"), "{text}");
    let (code, text) = run(&["show", "github"]).await;
    assert!(code == Some(0) && text.contains("provider = \"github\""), "{text}");
    let (code, text) = run(&["show", "gihub"]).await;
    assert!(code == Some(64) && text.contains("headgate webhook show github"), "{text}");
    let json = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
    let shown = json(&run(&["show", "meta", "--json"]).await.1);
    assert_eq!((&shown["name"], &shown["parameters"][0]["name"]), (&"meta".into(), &"verify_token".into()));
    assert_eq!(run(&["send", "nobody"]).await.0, Some(64));
    let (code, text) = run(&["send", "gh"]).await;
    assert_eq!(code, Some(0), "{text}");
    let sent = json(&run(&["send", "gh", "--json"]).await.1);
    assert_eq!((&sent["provider"], &sent["status"]), (&"github".into(), &200.into()));
    assert_eq!(stream::read(&nats, STREAM).await.len(), 1);
    // A stream that takes no message of that size refuses it for good.
    let jetstream = nats.jetstream().await;
    let mut config = jetstream.get_stream(STREAM).await.unwrap().cached_info().config.clone();
    config.max_message_size = 20_000;
    jetstream.update_stream(&config).await.unwrap();
    let text = "z".repeat(30_000);
    let port = gateway.http_port();
    assert!(Signed::issue_with("too-large", 1, &text, SECRET).status(port).await < 300);
    assert!(Signed::issue("behind", 1).status(port).await < 300);
    eventually("the one behind it is there", Duration::from_secs(20), || async {
        let events = stream::read(&nats, STREAM).await;
        let last = events.last().map_or("", |event| event.attribute("id"));
        if last == "behind" { Ok(()) } else { Err(format!("{} events", events.len())) }
    })
    .await;
    config.max_message_size = -1;
    jetstream.update_stream(&config).await.unwrap();
    let (code, text) = run(&["replay", "gh", "--delivery", "another"]).await;
    assert!(code == Some(64) && text.contains("no dead letter of another"), "{text}");
    let (code, text) = run(&["replay", "gh", "--delivery", "too-large"]).await;
    assert!(code == Some(0) && text.contains("published 1"), "{text}");
    let (_, text) = run(&["replay", "gh"]).await;
    assert!(text.contains("published 0, already there 1"), "{text}");
    let told = json(&run(&["replay", "gh", "--json"]).await.1);
    assert_eq!(told, serde_json::json!({ "published": 0, "known": 1, "without_content": 0 }));
    let events = stream::read(&nats, STREAM).await;
    assert_eq!(events.last().map(|event| event.attribute("id")), Some("too-large"));
}

/// A source that could not tell its provider from anybody else is not started.
#[tokio::test]
async fn without_a_secret_nothing_is_started() {
    let nats = Nats::start().await;
    let gateway = hooks::configure(&nats, "", "");
    let wrong = [
        (format!("secret = \"{SECRET}\""), String::new()),
        (format!("secret = \"{SECRET}\""), "secret = \"\"".to_owned()),
        ("provider = \"github\"".to_owned(), "provider = \"gihub\"".to_owned()),
        (format!("secret = \"{SECRET}\""), format!("secret = \"{SECRET}\"\nallow_ips = [\"10.0.0.0/99\"]")),
        (format!("secret = \"{SECRET}\""), format!("secret = \"{SECRET}\"\nrate_limit = \"many\"")),
    ];
    for (from, to) in wrong {
        let mut sound = String::new();
        gateway.reconfigure(|text| {
            sound = text.clone();
            assert!(text.contains(&from));
            text.replace(&from, &to)
        });
        let output = gateway.command().arg("run").output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(64), "{to}: {told}");
        assert!(told.contains("sources.gh") && !told.contains(SECRET), "{told}");
        gateway.reconfigure(|_| sound);
    }
}

#[tokio::test]
async fn a_signature_from_another_time_is_refused_both_ways() {
    let nats = Nats::start().await;
    let pay = "\n[sources.pay]\nconnector = \"webhook\"\nprovider = \"stripe\"\nsecret = \"whsec_test\"\n";
    let gateway = hooks::start(&nats, "", pay).await;
    let url = format!("http://127.0.0.1:{}/webhooks/pay", gateway.http_port());
    let client = hooks::client();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let post = async |id: &str, time: u64| {
        let body = format!(
            r#"{{"id":"{id}","object":"event","type":"charge.succeeded","created":{now},"data":{{"object":{{"id":"ch_1","object":"charge"}}}}}}"#
        );
        let signature = hooks::hmac_hex("whsec_test", format!("{time}.{body}").as_bytes());
        let request = client.post(&url).header("content-type", "application/json");
        let request = request.header("stripe-signature", format!("t={time},v1={signature}"));
        request.body(body).send().await.unwrap().status().as_u16()
    };
    assert_eq!(post("evt_old", now - 400).await, 401);
    assert_eq!(post("evt_early", now + 400).await, 401);
    assert!(post("evt_late", now - 200).await < 300);
    assert!(post("evt_ahead", now + 200).await < 300);
    let events = stream::read(&nats, "EVENTS_pay").await;
    let ids: Vec<&str> = events.iter().map(|event| event.attribute("id")).collect();
    assert_eq!(ids, ["evt_late", "evt_ahead"]);
}

#[tokio::test]
async fn a_source_is_dropped_when_no_gateway_runs_and_nothing_of_it_waits() {
    let mut nats = Nats::start().await;
    let mut gateway = hooks::start(&nats, "", "").await;
    let port = gateway.http_port();
    let drop = |gateway: &crate::support::gateway::Gateway| {
        let output = gateway.command().args(["source", "drop", "gh", "--yes"]).output().unwrap();
        (output.status.code(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
    };
    assert!(Signed::issue("d1", 1).status(port).await < 300);
    let (code, text) = drop(&gateway);
    assert!(code == Some(78) && text.contains("in use") && text.contains("stop the gateway"), "{text}");
    assert!(Signed::issue("d2", 1).status(port).await < 300, "it goes on");
    // What was answered and waits is not lost either.
    nats.kill9(0);
    assert!(Signed::issue("d3", 1).status(port).await < 300);
    gateway.kill9();
    nats.start_again(0).await;
    let (code, text) = drop(&gateway);
    assert!(code == Some(78) && text.contains("1 deliveries of gh wait in the spool"), "{text}");
    gateway.start_again().await;
    hooks::assert_faithful(&nats, &[["d1", "d2", "d3"].map(str::to_owned).to_vec()]).await;
    assert_eq!(gateway.terminate(), Some(0));
    let bookmark = gateway.command().get_current_dir().unwrap().join("data/webhooks/gh.json");
    std::fs::write(&bookmark, "{}").unwrap();
    let (code, text) = drop(&gateway);
    assert!(code == Some(0) && text.contains("set up") && text.contains("gh.json"), "{text}");
    assert!(!bookmark.exists());
    // As if it had never been there; the events stay.
    let (code, text) = drop(&gateway);
    assert!(code == Some(0) && !text.contains("set up"), "{text}");
    assert_eq!(stream::read(&nats, STREAM).await.len(), 3);
}
