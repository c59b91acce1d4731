//! What fails around the gateway while deliveries come: nothing that was answered is lost, doubled or out of order.

use crate::support::{
    eventually,
    gateway::Settings,
    hooks::{self, Load, SECRET, STREAM, Signed},
    nats::Nats,
    port::Port,
    proxy::Proxy,
    stream,
};
use std::time::Duration;

/// Rounds of a fault; more are for `make soak`.
fn rounds() -> usize {
    std::env::var("HEADGATE_FAULT_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(4)
}

#[tokio::test]
async fn a_broker_that_is_down_slow_and_back_loses_and_doubles_nothing() {
    let mut nats = Nats::start().await;
    let mut gateway = hooks::start(&nats, "", "").await;
    let load = Load::start(&[gateway.http_port()], 8);
    load.goes_on(50).await;
    for _ in 0..rounds() {
        nats.kill9(0);
        load.goes_on(100).await;
        nats.start_again(0).await;
        load.goes_on(100).await;
        nats.freeze(0);
        load.goes_on(100).await;
        nats.thaw(0);
        load.goes_on(100).await;
    }
    let answered = load.finish().await;
    hooks::assert_faithful(&nats, &answered).await;
    assert_eq!(gateway.terminate(), Some(0));
}

#[tokio::test]
async fn a_gateway_killed_between_spool_and_publish_loses_and_doubles_nothing() {
    let mut nats = Nats::start().await;
    // Made before streams took batches: what lies in the spool goes in windows.
    let older = async_nats::jetstream::stream::Config {
        name: STREAM.to_owned(),
        subjects: vec!["events.gh.>".to_owned()],
        duplicate_window: Duration::from_secs(24 * 3600),
        ..Default::default()
    };
    nats.jetstream().await.create_stream(older).await.unwrap();
    let mut gateway = hooks::start(&nats, "", "").await;
    let load = Load::start(&[gateway.http_port()], 8);
    load.goes_on(50).await;
    for _ in 0..rounds() {
        nats.kill9(0);
        load.goes_on(200).await;
        gateway.kill9();
        gateway.launch();
        load.goes_on(100).await;
        nats.start_again(0).await;
        // While the spool is being emptied.
        gateway.kill9();
        gateway.start_again().await;
        load.goes_on(100).await;
    }
    let answered = load.finish().await;
    hooks::assert_faithful(&nats, &answered).await;
}

#[tokio::test]
async fn two_gateways_behind_one_address_make_one_event_of_a_delivery() {
    let mut nats = Nats::start().await;
    let one = hooks::start(&nats, "", "").await;
    let other = hooks::start(&nats, "", "").await;
    let ports = [one.http_port(), other.http_port()];
    // The same deliveries at the same moment to both.
    let client = hooks::client();
    for number in 0..100 {
        let signed = Signed::issue(&format!("both-{number:03}"), number);
        let answers = futures_util::future::join_all(ports.map(|port| signed.post(&client, port))).await;
        assert!(answers.into_iter().all(|answer| answer.unwrap().status().is_success()));
    }
    assert_eq!(stream::read(&nats, STREAM).await.len(), 100);
    // And through an outage, from senders that try the other one when one fails.
    let load = Load::start(&ports, 6);
    load.goes_on(50).await;
    nats.kill9(0);
    load.goes_on(100).await;
    nats.start_again(0).await;
    load.goes_on(50).await;
    let answered = load.finish().await;
    let ids: std::collections::BTreeSet<String> = answered.into_iter().flatten().collect();
    eventually("both spools are empty", Duration::from_secs(60), || async {
        let events = stream::read(&nats, STREAM).await;
        let count = events.iter().filter(|event| ids.contains(event.attribute("id"))).count();
        let unique: std::collections::BTreeSet<&str> =
            events.iter().map(|event| event.attribute("id")).collect();
        assert_eq!(unique.len(), events.len(), "an event came twice");
        if count == ids.len() { Ok(()) } else { Err(format!("{count} of {}", ids.len())) }
    })
    .await;
}

/// What a gateway sends at once out of its spool stays in order although others, as a second gateway, write to the stream in between.
#[tokio::test]
async fn a_spool_is_emptied_in_order_while_another_writes_to_the_stream() {
    let mut nats = Nats::start().await;
    let gateway = hooks::start(&nats, "", "").await;
    assert!(Signed::issue("first-000000", 1).status(gateway.http_port()).await < 300);
    nats.kill9(0);
    let load = Load::start(&[gateway.http_port()], 48);
    load.goes_on(8000).await;
    let answered = load.finish().await;
    nats.start_again(0).await;
    let jetstream = nats.jetstream().await;
    let stream = jetstream.get_stream(STREAM).await.unwrap();
    assert!(stream.cached_info().config.allow_atomic_publish, "for the spool");
    let first = stream.get_raw_message(1).await.unwrap();
    let first = String::from_utf8(first.payload.to_vec()).unwrap();
    let retained = async || gateway.status().await["sources"][0]["retained_bytes"].as_u64().unwrap();
    let mut headers = async_nats::HeaderMap::new();
    headers.insert("Content-Type", "application/cloudevents+json");
    let mut others = 0;
    while retained().await > 0 {
        let event = first.replace("first-000000", &format!("other-{others:06}"));
        let (subject, headers) = ("events.gh.issues.opened.0", headers.clone());
        jetstream.publish_with_headers(subject, headers, event.into()).await.unwrap().await.unwrap();
        others += 1;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(others > 3, "the other wrote {others} times while the spool was emptied");
    let events = hooks::assert_faithful(&nats, &answered).await;
    // All of them lay in the spool, in the order of their sequence.
    let ours = events.iter().filter(|event| event.attribute("id").starts_with('s'));
    let sequences: Vec<&str> = ours.map(|event| event.attribute("sequence")).collect();
    assert!(sequences.is_sorted(), "out of order");
}

/// A batch is refused whole for one message that the stream has. On three replicas such a refusal must not stop the stream.
#[tokio::test]
async fn a_spool_with_what_the_stream_has_is_emptied_in_order_on_three_replicas() {
    let mut nats = Nats::cluster(3).await;
    let settings = Settings { stream_lines: "replicas = 3".to_owned(), ..Settings::new(&nats, "") };
    let mut gateway = hooks::configure_with(&settings, "", "");
    gateway.start_again().await;
    let (client, port) = (hooks::client(), gateway.http_port());
    let post = async |kind: &str, numbers: std::ops::Range<u64>| {
        for number in numbers {
            let signed = Signed::issue(&format!("{kind}-{number:03}"), number);
            assert!(signed.post(&client, port).await.unwrap().status().is_success());
        }
    };
    post("old", 0..40).await;
    for node in 0..3 {
        nats.kill9(node);
    }
    post("new", 0..100).await;
    post("old", 0..40).await;
    post("new", 100..200).await;
    for node in 0..3 {
        nats.launch(node);
    }
    nats.leader(STREAM).await;
    let ids = |kind: &str, count: u64| (0..count).map(|number| format!("{kind}-{number:03}")).collect();
    let events = hooks::assert_faithful(&nats, &[ids("old", 40), ids("new", 200)]).await;
    assert_eq!(events.len(), 240);
    post("more", 0..5).await;
    hooks::assert_faithful(&nats, &[ids("more", 5)]).await;
}

#[tokio::test]
async fn a_full_spool_says_so_and_takes_again_what_fits() {
    let mut nats = Nats::start().await;
    let gateway = hooks::start(&nats, "spool_max = \"1MiB\"\n", "").await;
    let port = gateway.http_port();
    let client = hooks::client();
    nats.kill9(0);
    let text = "x".repeat(50_000);
    let mut kept = Vec::new();
    let refused = loop {
        let id = format!("full-{:03}", kept.len());
        let answer = Signed::issue_with(&id, 1, &text, SECRET).post(&client, port).await.unwrap();
        if !answer.status().is_success() {
            break answer;
        }
        kept.push(id);
        assert!(kept.len() < 100, "the spool is not bounded");
    };
    assert_eq!(refused.status(), 503);
    assert!(refused.headers().contains_key("retry-after"), "{refused:?}");
    assert!(kept.len() >= 15, "{} fitted", kept.len());
    nats.start_again(0).await;
    let load = Load::start(&[port], 1);
    load.goes_on(5).await;
    let mut answered = load.finish().await;
    answered.push(kept);
    hooks::assert_faithful(&nats, &answered).await;
}

#[tokio::test]
async fn a_full_disk_is_told_to_the_sender_and_survived() {
    let mut nats = Nats::start().await;
    let mut gateway = hooks::configure(&nats, "", "");
    // Files of the gateway end at 2 MiB (blocks of 512 bytes); the signal that comes with that is ignored, so it is an
    // error of the write, as a full disk is.
    gateway.launch_limited("trap '' XFSZ; ulimit -f 4096");
    gateway.is_ready().await;
    let port = gateway.http_port();
    let client = hooks::client();
    nats.kill9(0);
    let text = "x".repeat(100_000);
    let mut kept = Vec::new();
    let mut refused = 0;
    for number in 0..60 {
        let id = format!("disk-{number:03}");
        let answer = Signed::issue_with(&id, 1, &text, SECRET).post(&client, port).await.unwrap();
        match answer.status().as_u16() {
            200..300 => kept.push(id),
            503 => {
                assert!(answer.headers().contains_key("retry-after"), "{answer:?}");
                refused += 1;
            }
            other => panic!("{other}"),
        }
    }
    assert!(!kept.is_empty() && refused > 0, "{} kept, {refused} refused", kept.len());
    // What it has said yes to outlives it.
    gateway.kill9();
    nats.start_again(0).await;
    gateway.start_again().await;
    hooks::assert_faithful(&nats, &[kept]).await;
    let load = Load::start(&[port], 1);
    load.goes_on(5).await;
    hooks::assert_faithful(&nats, &load.finish().await).await;
}

#[tokio::test]
async fn a_secret_is_replaced_under_load() {
    const NEXT: &str = "the next secret";
    let nats = Nats::start().await;
    let mut gateway = hooks::start(&nats, "", "").await;
    let port = gateway.http_port();
    let old = Load::start(&[port], 2);
    old.goes_on(20).await;
    // Both for a while.
    gateway.reconfigure(|text| {
        text.replace(&format!("secret = \"{SECRET}\""), &format!("secrets = [\"{NEXT}\", \"{SECRET}\"]"))
    });
    assert_eq!(gateway.terminate(), Some(0));
    gateway.start_again().await;
    old.goes_on(20).await;
    let mut answered = old.finish().await;
    for number in 0..20 {
        let id = format!("n-{number:03}");
        assert!(Signed::issue_with(&id, 1, "", NEXT).status(port).await < 300);
        answered.push(vec![id]);
    }
    // Then the next one alone.
    gateway.reconfigure(|text| {
        text.replace(&format!("secrets = [\"{NEXT}\", \"{SECRET}\"]"), &format!("secret = \"{NEXT}\""))
    });
    assert_eq!(gateway.terminate(), Some(0));
    gateway.start_again().await;
    assert_eq!(Signed::issue("old", 1).status(port).await, 401);
    assert!(Signed::issue_with("n-100", 1, "", NEXT).status(port).await < 300);
    hooks::assert_faithful(&nats, &answered).await;
}

/// A broker so far away that more deliveries come within any one step towards it.
#[tokio::test]
async fn a_distant_broker_is_reached_under_load() {
    let nats = Nats::start().await;
    let far = Proxy::far(nats.port(0), Duration::from_millis(60)).await;
    let settings =
        Settings { nats: vec![format!("nats://127.0.0.1:{}", far.port())], ..Settings::new(&nats, "") };
    let mut gateway = hooks::configure_with(&settings, "", "");
    gateway.launch();
    let load = Load::start(&[gateway.http_port()], 2);
    hooks::goes_direct(&gateway, &load).await;
    // And again after it was lost.
    far.drop_connections();
    load.goes_on(20).await;
    hooks::goes_direct(&gateway, &load).await;
    hooks::assert_faithful(&nats, &load.finish().await).await;
}

/// A first server that takes connections and says nothing, so that each try at it lasts until it is given up.
#[tokio::test]
async fn a_dead_server_in_front_of_a_good_one_does_not_keep_deliveries_in_the_spool() {
    let nats = Nats::start().await;
    let port = Port::free();
    let _dead = std::net::TcpListener::bind(("127.0.0.1", port.number())).unwrap();
    let servers = [port.number(), nats.port(0)].map(|port| format!("nats://127.0.0.1:{port}"));
    let settings = Settings { nats: servers.to_vec(), ..Settings::new(&nats, "") };
    let mut gateway = hooks::configure_with(&settings, "", "");
    gateway.launch();
    let load = Load::start(&[gateway.http_port()], 2);
    hooks::goes_direct(&gateway, &load).await;
    hooks::assert_faithful(&nats, &load.finish().await).await;
}
