//! A gateway takes over from one that is gone without a word: what that one had under way comes to nothing.

use super::snapshots::{archive, initial};
use crate::support::{
    eventually,
    gateway::Gateway,
    nats::Nats,
    postgres::Version,
    proxy::{Flow, Proxy},
    shop::{STREAM, Shop},
    snapshots::{are_done, each_once, told},
    stream,
    workload::{self, Load},
};
use std::time::Duration;
use tokio::time::sleep;

/// The machine's network goes while it tells a snapshot, and nothing is closed. Another gateway with the same configuration
/// begins, slowly: it would still be among the sequences that the vanished one gave to its messages when those come.
#[tokio::test]
async fn what_a_vanished_machine_sent_comes_when_the_next_run_publishes() {
    // The broker ends a connection that takes nothing sooner than by default.
    let shop = Shop::with(Version::Pg18, Nats::with("write_deadline: \"2s\"\n").await).await;
    archive(&shop, 2_500).await;
    let to_broker = Proxy::start(shop.nats.port(0)).await;
    let to_database = Proxy::start(shop.postgres.port()).await;
    let mut settings = initial(&shop, "snapshot_rate = 2000\n");
    settings.nats = vec![format!("nats://127.0.0.1:{}", to_broker.port())];
    // It shall not give up by itself.
    settings.nats_lines = "ack_timeout = \"60s\"\n".to_owned();
    settings.source =
        settings.source.replace(&format!(":{}/", shop.postgres.port()), &format!(":{}/", to_database.port()));
    let _vanished = shop.gateway_with(&settings).await;
    let writing = workload::start(&Load::steady(shop.postgres.url(), 61));
    let end = async || {
        let stream = shop.nats.jetstream().await.get_stream(STREAM).await.unwrap();
        stream.get_info().await.unwrap().state.last_sequence
    };
    let grown = async |than: u64| {
        eventually("the stream grows", Duration::from_secs(60), || async {
            let sequence = end().await;
            if sequence > than { Ok(()) } else { Err(format!("{sequence}, not beyond {than}")) }
        })
        .await;
    };
    // By now it asks the broker for nothing more before it tells the rest.
    eventually("the snapshot is under way", Duration::from_secs(60), || async {
        let rows = told(&stream::read(&shop.nats, STREAM).await, "public.archive").len();
        if rows > 200 { Ok(()) } else { Err(format!("{rows} rows")) }
    })
    .await;
    to_broker.set(Flow::CUT);
    eventually("events are held back", Duration::from_secs(10), || async {
        let held = to_broker.held();
        if held.contains("HPUB events.shop.") { Ok(()) } else { Err(held) }
    })
    .await;
    sleep(Duration::from_millis(500)).await;
    to_database.set(Flow::CUT);
    writing.stop().await;
    let found = end().await;
    let mut next = Gateway::configure(&initial(&shop, "snapshot_rate = 500\n"));
    next.launch();
    grown(found + 5).await;
    to_broker.set(Flow::WHOLE);
    to_database.set(Flow::WHOLE);
    are_done(&next, 1).await;
    each_once(&shop.assert_faithful().await, "public.archive", 2_500);
    assert!(next.log().contains("waiting for an earlier connection to nats to end"), "{}", next.log());
}
