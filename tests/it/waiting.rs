//! A source that cannot go on says so, and what to do: it neither looks well nor stands still in silence.

use crate::support::{
    eventually,
    gateway::{Gateway, Settings},
    nats::Nats,
    postgres::{Postgres, Version},
    shop::STREAM,
    stream,
};
use std::time::Duration;

/// How the source is, once it waits.
async fn waiting(gateway: &Gateway) -> serde_json::Value {
    let source = eventually("the source waits", Duration::from_secs(30), || async {
        let source = gateway.status().await["sources"][0].clone();
        if source["state"] == "waiting" { Ok(source) } else { Err(source.to_string()) }
    })
    .await;
    assert!(!gateway.says_ready().await, "{source}");
    source
}

fn assert_says(source: &serde_json::Value, error: &str, fix: &str) {
    let says = |member: &str, part: &str| source[member].as_str().unwrap_or_default().contains(part);
    assert!(says("last_error", error) && says("fix", fix), "{source}");
}

async fn events(nats: &Nats, count: usize) {
    eventually("the events", Duration::from_secs(30), || async {
        let found = stream::read(nats, STREAM).await.len();
        if found == count { Ok(()) } else { Err(format!("{found} of {count}")) }
    })
    .await;
}

/// A gateway that may not ask who listens to everything.
const RESTRICTED: &str = "no_auth_user: test
authorization { users: [
  { user: test, password: test }
  { user: gateway, password: secret, permissions: { publish: { deny: \"headgate.writing.EVENTS_shop.nobody\" } } }
] }";

#[tokio::test]
async fn an_earlier_connection_that_does_not_end_is_named() {
    for (lines, login) in [("", ""), (RESTRICTED, "gateway:secret@")] {
        let postgres = Postgres::start(Version::Pg18, &[]).await;
        postgres.execute("CREATE TABLE things (id int PRIMARY KEY)").await;
        let nats = Nats::with(lines).await;
        let mut settings = Settings::new(&nats, postgres.url());
        settings.nats = vec![format!("nats://{login}127.0.0.1:{}", nats.port(0))];
        let mut gateway = Gateway::start(&settings).await;
        postgres.execute("INSERT INTO things VALUES (1)").await;
        events(&nats, 1).await;
        assert_eq!(gateway.terminate(), Some(0));
        // One that hears and never leaves, and that of a source whose name begins likewise.
        let client = async_nats::connect(nats.urls()).await.unwrap();
        let mut held = Vec::new();
        for stream in [STREAM.to_owned(), format!("{STREAM}-nobody")] {
            held.push(client.subscribe(format!("headgate.writing.{stream}")).await.unwrap());
        }
        client.flush().await.unwrap();
        gateway.start_again().await;
        postgres.execute("INSERT INTO things VALUES (2)").await;
        let source = waiting(&gateway).await;
        assert_says(&source, "waiting for an earlier connection to nats", "headgate.writing.>");
        let is_refused =
            source["last_error"].as_str().unwrap().to_lowercase().contains("permissions violation");
        assert_eq!(is_refused, !lines.is_empty(), "{source}");
        assert!(source["lag_ms"].as_u64().unwrap() > 0, "what waits is seen: {source}");
        events(&nats, 1).await;
        assert_eq!(gateway.terminate(), Some(0));
        assert!(!gateway.log().contains("the grace is over"), "{}", gateway.log());
        gateway.launch();
        waiting(&gateway).await;
        for mut subscription in held {
            subscription.unsubscribe().await.unwrap();
        }
        events(&nats, 2).await;
        gateway.is_ready().await;
    }
}

#[tokio::test]
async fn what_cannot_be_kept_beside_the_stream_is_named() {
    let postgres = Postgres::start(Version::Pg18, &[]).await;
    postgres
        .execute(
            "CREATE TABLE things (id serial PRIMARY KEY, a text); \
             ALTER TABLE things ALTER COLUMN a SET STORAGE EXTERNAL",
        )
        .await;
    let nats = Nats::start().await;
    let jetstream = nats.jetstream().await;
    let config = async_nats::jetstream::stream::Config {
        name: "EVENTS_dlq".to_owned(),
        subjects: vec!["elsewhere".to_owned()],
        ..Default::default()
    };
    jetstream.create_stream(config).await.unwrap();
    let settings =
        Settings { source_lines: "max_row = \"64KiB\"\n".to_owned(), ..Settings::new(&nats, postgres.url()) };
    let mut gateway = Gateway::start(&settings).await;
    postgres.execute("INSERT INTO things (a) VALUES ('x')").await;
    events(&nats, 1).await;
    postgres.execute("INSERT INTO things (a) VALUES (repeat('x', 100000))").await;
    let source = waiting(&gateway).await;
    assert_says(&source, "cannot keep a dead letter in EVENTS_dlq", "events.dlq.>");
    jetstream.delete_stream("EVENTS_dlq").await.unwrap();
    gateway.is_ready().await;
    let letters = jetstream.get_stream("EVENTS_dlq").await.unwrap().get_info().await.unwrap().state.messages;
    assert_eq!(letters, 1);

    let bucket = jetstream.get_stream("KV_headgate").await.unwrap().get_info().await.unwrap().config;
    let closed = async_nats::jetstream::stream::Config { max_message_size: 1, ..bucket.clone() };
    jetstream.update_stream(closed).await.unwrap();
    postgres.execute("INSERT INTO things (a) VALUES ('y')").await;
    let source = waiting(&gateway).await;
    assert_says(&source, "cannot write $KV.headgate.checkpoint.shop", "$KV.headgate.>");
    events(&nats, 2).await;
    jetstream.update_stream(bucket).await.unwrap();
    gateway.is_ready().await;
    assert!(gateway.status().await["sources"][0]["fix"].is_null());
}

#[tokio::test]
async fn a_stream_that_takes_nothing_is_named() {
    let postgres = Postgres::start(Version::Pg18, &[]).await;
    postgres.execute("CREATE TABLE things (id int PRIMARY KEY)").await;
    let nats = Nats::start().await;
    let mut gateway = Gateway::start(&Settings::new(&nats, postgres.url())).await;
    postgres.execute("INSERT INTO things VALUES (1)").await;
    events(&nats, 1).await;

    // It has no room, and says so each time.
    let jetstream = nats.jetstream().await;
    let usual = jetstream.get_stream(STREAM).await.unwrap().get_info().await.unwrap().config;
    let full = async_nats::jetstream::stream::Config {
        max_messages: 1,
        discard: async_nats::jetstream::stream::DiscardPolicy::New,
        ..usual.clone()
    };
    jetstream.update_stream(full).await.unwrap();
    postgres.execute("INSERT INTO things VALUES (2)").await;
    let source = waiting(&gateway).await;
    assert_says(&source, "nothing is stored in EVENTS_shop: refused", "room");
    assert!(source["last_error"].as_str().unwrap().contains("maximum messages"), "{source}");
    jetstream.update_stream(usual).await.unwrap();
    events(&nats, 2).await;
    gateway.is_ready().await;

    // It does not answer at all; the connection stays.
    nats.freeze(0);
    postgres.execute("INSERT INTO things VALUES (3)").await;
    let source = waiting(&gateway).await;
    assert_says(&source, "nothing is stored in EVENTS_shop: an acknowledgement is overdue", "leader");
    assert!(source["lag_ms"].as_u64().unwrap() > 0, "{source}");
    nats.thaw(0);
    events(&nats, 3).await;
    gateway.is_ready().await;
}

#[tokio::test]
async fn a_gateway_that_stands_by_is_ready_all_the_while() {
    let postgres = Postgres::start(Version::Pg18, &[]).await;
    postgres.execute("CREATE TABLE things (id int PRIMARY KEY)").await;
    let nats = Nats::start().await;
    let settings = Settings::new(&nats, postgres.url());
    let mut reads = Gateway::start(&settings).await;
    let mut waits = Gateway::configure(&settings);
    waits.launch();
    waits.is_ready().await;
    // It looks every two seconds whether it is wanted.
    for _ in 0..60 {
        let source = waits.status().await["sources"][0].clone();
        assert_eq!(source["state"], "standby", "{source}");
        assert!(waits.says_ready().await);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    reads.kill9();
    eventually("it takes over", Duration::from_secs(30), || async {
        let source = waits.status().await["sources"][0].clone();
        if source["state"] == "streaming" { Ok(()) } else { Err(source.to_string()) }
    })
    .await;
}
