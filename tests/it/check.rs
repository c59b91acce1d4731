//! What `headgate check` finds before a run does.

use crate::support::{
    checkpoint, eventually,
    gateway::Gateway,
    gateway::Settings,
    shop::{STREAM, Shop},
    stream, workload,
};
use async_nats::jetstream;
use serde_json::Value;
use std::time::Duration;

/// The exit code, and the findings of a scope about a subject.
fn checked(gateway: &Gateway, scope: &str, subject: &str) -> (Option<i32>, Vec<Value>) {
    let output = gateway.command().args(["check", "--json"]).output().unwrap();
    let answer: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    let mut findings = answer["findings"].as_array().unwrap().clone();
    findings.retain(|finding| finding["scope"] == scope && finding["subject"] == subject);
    (output.status.code(), findings)
}

#[tokio::test]
async fn history_that_is_gone_is_found_and_what_the_run_will_do() {
    let shop = Shop::open().await;
    let mut gateway = shop.gateway().await;
    workload::mark(&shop.postgres.client().await).await;
    stream::read_until(&shop.nats, STREAM, Duration::from_secs(30), |event| {
        event.data.table == "public.marks"
    })
    .await;
    let (code, found) = checked(&gateway, "shop", "history");
    assert_eq!((code, &found[0]["severity"]), (Some(0), &"good".into()), "while it runs: {found:?}");
    assert_eq!(gateway.terminate(), Some(0));
    let (code, found) = checked(&gateway, "shop", "history");
    assert_eq!((code, &found[0]["severity"]), (Some(0), &"good".into()), "{found:?}");

    shop.postgres.execute("SELECT pg_drop_replication_slot('headgate_shop')").await;
    let (code, found) = checked(&gateway, "shop", "history");
    let [finding] = &found[..] else { panic!("{found:?}") };
    assert_eq!(
        (code, &finding["severity"], &finding["what"]),
        (Some(69), &"error".into(), &"the slot is missing".into())
    );
    assert!(finding["why"].as_str().unwrap().contains("on_gap = \"stop\""), "{finding}");
    assert!(finding["fix"].as_str().unwrap().contains("accept-gap shop"), "{finding}");
    gateway.reconfigure(|text| text.replace("[sources.shop]", "[sources.shop]\non_gap = \"snapshot\""));
    let (code, found) = checked(&gateway, "shop", "history");
    assert_eq!((code, &found[0]["severity"]), (Some(0), &"warning".into()), "{found:?}");
    assert!(found[0]["why"].as_str().unwrap().contains("reads all tables again"), "{found:?}");

    gateway.reconfigure(|text| text.replace("\non_gap = \"snapshot\"", ""));
    let before = checkpoint::read(&shop.nats).await;
    gateway.launch();
    eventually("the gap", Duration::from_secs(30), || async {
        let state = gateway.status().await["sources"][0]["state"].clone();
        if state == "gap" { Ok(()) } else { Err(state.to_string()) }
    })
    .await;
    let (code, found) = checked(&gateway, "shop", "history");
    assert_eq!((code, &found[0]["fix"]), (Some(69), &"headgate source accept-gap shop".into()), "{found:?}");
    // Killed before the gap was kept, there is nothing to accept until a run has found it.
    gateway.kill9();
    checkpoint::forget_the_gap(&shop.nats, before).await;
    let (code, found) = checked(&gateway, "shop", "history");
    let fix = "headgate run, then headgate source accept-gap shop";
    assert_eq!((code, &found[0]["fix"]), (Some(69), &fix.into()), "{found:?}");
}

#[tokio::test]
async fn a_stream_that_finds_no_room_is_told_before_it_is_needed() {
    let shop = Shop::open().await;
    let room = |max_bytes: &str| Settings {
        stream_lines: format!("max_bytes = \"{max_bytes}\"\n"),
        ..shop.settings()
    };
    // Left by a check that was killed.
    let left = jetstream::stream::Config {
        name: "headgate_check_3".to_owned(),
        subjects: vec!["headgate.check.3".to_owned()],
        ..Default::default()
    };
    shop.nats.jetstream().await.create_stream(left).await.unwrap();
    let (code, found) = checked(&Gateway::configure(&room("16MiB")), "nats", "room");
    assert_eq!((code, &found[0]["severity"]), (Some(0), &"good".into()), "{found:?}");
    // More than any disk has.
    let gateway = Gateway::configure(&room("4096000GiB"));
    let (code, found) = checked(&gateway, "nats", "stream EVENTS_shop");
    assert_eq!((code, &found[0]["severity"]), (Some(69), &"error".into()), "{found:?}");
    assert!(found[0]["fix"].as_str().unwrap().contains("max_bytes in [nats.stream]"), "{found:?}");
    let streams = shop.nats.streams().await;
    assert!(streams.is_empty(), "nothing is left: {streams:?}");
}
