//! Where history is really gone, the stream says so once, and goes on only when somebody has accepted that.

use crate::support::{
    database, eventually,
    gateway::{Gateway, Settings},
    nats::Nats,
    oracle,
    postgres::{Postgres, Version},
    shop::{SLOT, STREAM, Shop},
    snapshots,
    stream::{self, Event},
    workload::{self, Load},
};
use std::time::Duration;
use tokio::time::sleep;

/// Waits until the stream ends with word of a gap.
async fn ends_with_a_gap(nats: &Nats) {
    eventually("a gap event", Duration::from_secs(60), || async {
        let events = stream::read(nats, STREAM).await;
        match events.last() {
            Some(event) if event.data.op == "gap" => Ok(()),
            last => Err(format!("{} events, the last is {last:?}", events.len())),
        }
    })
    .await;
}

/// Starts a gateway over history that is gone: it says so once, and tells nothing after it.
async fn tells_of_a_gap(shop: &Shop, gateway: &mut Gateway) {
    for _ in 0..2 {
        gateway.launch();
        ends_with_a_gap(&shop.nats).await;
        // It stops there, and a restart does not say it again.
        sleep(Duration::from_secs(1)).await;
        shop.postgres.execute("INSERT INTO marks SELECT gen_random_uuid()").await;
        sleep(Duration::from_secs(1)).await;
        assert!(!gateway.says_ready().await, "it stands at a gap and says that it is ready");
        assert_eq!(gateway.terminate(), Some(0));
    }
    let events = stream::read(&shop.nats, STREAM).await;
    assert_eq!(gaps(&events), [events.len() - 1], "one gap event, at the end");
    assert_eq!(oracle::malformed(&events), Vec::<String>::new());
}

/// An empty broker cannot prove that something is missing in it. What can be known is said, and the source goes on.
#[tokio::test]
async fn another_broker_is_told_of_in_the_log() {
    const BEFORE: &str = "the slot was there before the stream began";
    let shop = Shop::open().await;
    let mut gateway = shop.gateway().await;
    gateway.is_ready().await;
    assert_eq!(gateway.terminate(), Some(0));
    assert!(!gateway.log().contains(BEFORE), "the slot is this run's own");
    let another = Nats::start().await;
    let settings = Settings { nats: another.urls(), ..shop.settings() };
    let mut gateway = Gateway::start(&settings).await;
    shop.postgres.slot_is_active(SLOT).await;
    shop.postgres.execute("INSERT INTO scratch VALUES (1)").await;
    eventually("the event", Duration::from_secs(30), || async {
        let events = stream::read(&another, STREAM).await;
        if events.iter().any(|event| event.data.op == "created") {
            Ok(())
        } else {
            Err(format!("{events:?}"))
        }
    })
    .await;
    assert!(gateway.log().contains(BEFORE), "{}", gateway.log());
    assert_eq!(gateway.terminate(), Some(0));
}

fn gaps(events: &[Event]) -> Vec<usize> {
    (0..events.len()).filter(|n| events[*n].data.op == "gap").collect()
}

/// Accepts the gap that the stream ends with. From there on nothing is missing: not what was written while it waited to be
/// accepted, and not what is written after.
async fn goes_on_when_accepted(shop: &Shop, gateway: &mut Gateway) {
    let client = shop.postgres.client().await;
    let waited = workload::mark(&client).await;
    let accept = || gateway.command().args(["source", "accept-gap", "shop"]).output().unwrap();
    let accepted = accept();
    assert!(accepted.status.success(), "{accepted:?}");
    assert_eq!(accept().status.code(), Some(78), "there is nothing more to accept");
    gateway.start_again().await;
    shop.postgres.slot_is_active(SLOT).await;
    // What the rows were before is not in the stream: it can be compared again from where all tables are empty.
    shop.postgres.execute("TRUNCATE orders, order_lines, documents, labels, scratch, marks").await;
    workload::start(&Load::new(shop.postgres.url(), 99)).finish().await;
    let last = workload::mark(&client).await;
    let is_mark = |event: &Event, mark: &String| {
        event.data.table == "public.marks" && event.data.key.as_ref().is_some_and(|key| key["id"] == *mark)
    };
    let events =
        stream::read_until(&shop.nats, STREAM, Duration::from_secs(60), |event| is_mark(event, &last)).await;
    assert_eq!(oracle::malformed(&events), Vec::<String>::new());
    let [gap] = gaps(&events)[..] else { panic!("{} gap events", gaps(&events).len()) };
    assert!(events[gap..].iter().any(|event| is_mark(event, &waited)), "what waited for the word is lost");
    let emptied = |event: &Event| event.data.op == "truncated" && event.data.table == "public.marks";
    let after = &events[gap..];
    let emptying = after.iter().find(|event| emptied(event)).expect("the truncate").attribute("txid");
    let from = after.iter().position(|event| event.attribute("txid") == emptying).unwrap();
    let found = oracle::violations(&after[from..], &database::read(&client, "public").await);
    assert_eq!(found, Vec::<String>::new());
}

/// A gateway has read, was ended, and more was written.
async fn ended(shop: &Shop, seed: u64) -> Gateway {
    let mut gateway = shop.gateway().await;
    workload::start(&Load::new(shop.postgres.url(), seed)).finish().await;
    shop.assert_faithful().await;
    assert_eq!(gateway.terminate(), Some(0));
    workload::start(&Load::new(shop.postgres.url(), seed + 1)).finish().await;
    gateway
}

async fn history_is_lost(loss: &[&str], seed: u64) {
    let shop = Shop::open().await;
    let mut gateway = ended(&shop, seed).await;
    for statement in loss {
        shop.postgres.execute(statement).await;
    }
    workload::start(&Load::new(shop.postgres.url(), seed + 2)).finish().await;
    tells_of_a_gap(&shop, &mut gateway).await;
    goes_on_when_accepted(&shop, &mut gateway).await;
}

#[tokio::test]
async fn slot_dropped() {
    history_is_lost(&["SELECT pg_drop_replication_slot('headgate_shop')"], 16).await;
}

#[tokio::test]
async fn slot_created_anew() {
    let again = "SELECT pg_create_logical_replication_slot('headgate_shop', 'pgoutput')";
    history_is_lost(&["SELECT pg_drop_replication_slot('headgate_shop')", again], 17).await;
}

#[tokio::test]
async fn slot_advanced_by_somebody_else() {
    history_is_lost(&["SELECT pg_replication_slot_advance('headgate_shop', pg_current_wal_lsn())"], 18).await;
}

/// The database gave the slot up, for it kept too much of the log.
async fn slot_invalidated(version: Version, seed: u64) {
    let settings = [("max_slot_wal_keep_size", "1MB"), ("min_wal_size", "32MB"), ("max_wal_size", "32MB")];
    let shop = Shop::configured(version, Nats::start().await, &settings).await;
    let mut gateway = ended(&shop, seed).await;
    for _ in 0..4 {
        shop.postgres.execute("INSERT INTO scratch SELECT n FROM generate_series(100000, 105000) n ON CONFLICT (id) DO UPDATE SET value = 'x'").await;
        shop.postgres.execute("SELECT pg_switch_wal()").await;
        shop.postgres.execute("CHECKPOINT").await;
    }
    let status = "SELECT wal_status FROM pg_replication_slots";
    let status: String = shop.postgres.client().await.query_one(status, &[]).await.unwrap().get(0);
    assert_eq!(status, "lost");
    tells_of_a_gap(&shop, &mut gateway).await;
    goes_on_when_accepted(&shop, &mut gateway).await;
}

#[tokio::test]
async fn slot_invalidated_15() {
    slot_invalidated(Version::Pg15, 19).await;
}

#[tokio::test]
async fn slot_invalidated_18() {
    slot_invalidated(Version::Pg18, 20).await;
}

/// Its positions mean nothing in the new one's log, whichever way they compare.
#[tokio::test]
async fn another_cluster_behind_the_name() {
    let mut shop = Shop::open().await;
    ended(&shop, 21).await;
    shop.postgres = Postgres::start(Version::Pg18, &[("wal_sender_timeout", "2s")]).await;
    workload::create_tables(&shop.postgres).await;
    let mut gateway = Gateway::configure(&shop.settings());
    tells_of_a_gap(&shop, &mut gateway).await;
    goes_on_when_accepted(&shop, &mut gateway).await;
}

/// Whoever accepts a gap goes on without what was missed. That the tables are others now, as in a cluster that was filled from a
/// dump, does not make them be read after all: not even where the gateway dies after it told of the gap.
#[tokio::test]
async fn an_accepted_gap_reads_no_tables() {
    let mut shop = Shop::open().await;
    let settings = |shop: &Shop| Settings { snapshot: "initial", ..shop.settings() };
    let mut gateway = shop.gateway_with(&settings(&shop)).await;
    snapshots::are_done(&gateway, 1).await;
    let client = shop.postgres.client().await;
    // The stream's last event says that nothing is left to be read.
    workload::mark(&client).await;
    stream::read_until(&shop.nats, STREAM, Duration::from_secs(30), |event| {
        event.data.table == "public.marks"
    })
    .await;
    assert_eq!(gateway.terminate(), Some(0));
    shop.postgres = Postgres::start(Version::Pg18, &[("wal_sender_timeout", "2s")]).await;
    // In another order they have other OIDs.
    shop.postgres.execute("CREATE TABLE aside (id integer PRIMARY KEY)").await;
    workload::create_tables(&shop.postgres).await;
    shop.postgres.execute("INSERT INTO marks SELECT gen_random_uuid() FROM generate_series(1, 50)").await;
    let mut gateway = Gateway::configure(&settings(&shop));
    gateway.launch();
    ends_with_a_gap(&shop.nats).await;
    gateway.kill9();
    let accepted = gateway.command().args(["source", "accept-gap", "shop"]).output().unwrap();
    // Killed before that was kept, the next run finds it.
    if !accepted.status.success() {
        gateway.launch();
        eventually("the gap waits", Duration::from_secs(30), || async {
            let state = gateway.status().await["sources"][0]["state"].clone();
            if state == "gap" { Ok(()) } else { Err(state.to_string()) }
        })
        .await;
        gateway.kill9();
        let accepted = gateway.command().args(["source", "accept-gap", "shop"]).output().unwrap();
        assert!(accepted.status.success(), "{accepted:?}");
    }
    gateway.start_again().await;
    let client = shop.postgres.client().await;
    let mark = workload::mark(&client).await;
    let events = stream::read_until(&shop.nats, STREAM, Duration::from_secs(60), |event| {
        event.data.key.as_ref().is_some_and(|key| key["id"] == mark)
    })
    .await;
    assert_eq!(gaps(&events).len(), 1);
    let of_known = |job: &serde_json::Value| job["reason"] == "joined" && job["tables"] != 1;
    let status = gateway.status().await;
    let snapshots = status["sources"][0]["snapshots"].as_array().unwrap();
    assert!(!snapshots.iter().any(of_known), "{status}");
    let read = events.iter().filter(|event| event.data.op == "snapshot").count();
    assert_eq!(read, 0, "rows that were there before the gap was accepted");
    assert_eq!(gateway.terminate(), Some(0));
}

/// Without its publication a reader is told nothing, on 18 even without an error.
async fn publication_dropped(version: Version, seed: u64) {
    let shop = Shop::with(version, Nats::start().await).await;
    let mut gateway = shop.gateway().await;
    workload::start(&Load::new(shop.postgres.url(), seed)).finish().await;
    shop.assert_faithful().await;
    let client = shop.postgres.client().await;
    for row in client.query("SELECT quote_ident(pubname) FROM pg_publication", &[]).await.unwrap() {
        client.batch_execute(&format!("DROP PUBLICATION {}", row.get::<_, &str>(0))).await.unwrap();
    }
    let writing = workload::start(&Load::steady(shop.postgres.url(), seed));
    ends_with_a_gap(&shop.nats).await;
    writing.stop().await;
    assert!(!gateway.says_ready().await);
    assert_eq!(gateway.terminate(), Some(0));
    tells_of_a_gap(&shop, &mut gateway).await;
    goes_on_when_accepted(&shop, &mut gateway).await;
}

/// Made anew under its name it hides that it was gone: the log in between is read without it.
async fn publication_made_anew(version: Version, seed: u64) {
    let shop = Shop::with(version, Nats::start().await).await;
    let mut gateway = ended(&shop, seed).await;
    shop.postgres.execute("DROP PUBLICATION headgate_shop, headgate_shop_append").await;
    workload::start(&Load::new(shop.postgres.url(), seed)).finish().await;
    shop.postgres.execute("CREATE PUBLICATION headgate_shop").await;
    shop.postgres.execute("CREATE PUBLICATION headgate_shop_append").await;
    tells_of_a_gap(&shop, &mut gateway).await;
    goes_on_when_accepted(&shop, &mut gateway).await;
}

#[tokio::test]
async fn publication_made_anew_15() {
    publication_made_anew(Version::Pg15, 24).await;
}

#[tokio::test]
async fn publication_made_anew_18() {
    publication_made_anew(Version::Pg18, 25).await;
}

#[tokio::test]
async fn publication_dropped_15() {
    publication_dropped(Version::Pg15, 22).await;
}

#[tokio::test]
async fn publication_dropped_18() {
    publication_dropped(Version::Pg18, 23).await;
}
