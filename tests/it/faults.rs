//! Whatever fails, and whenever: the stream tells everything once, in order, or says that history is gone.
//!
//! `HEADGATE_FAULT_ROUNDS` says how often each fault strikes within a test.

use crate::support::{
    eventually,
    gateway::Gateway,
    nats::Nats,
    oracle,
    postgres::{Stop, Version},
    proxy::{Flow, Proxy},
    shop::{SLOT, STREAM, Shop},
    stream,
    workload::{self, Dice, Load},
};
use std::time::Duration;
use tokio::time::sleep;

fn rounds() -> u64 {
    std::env::var("HEADGATE_FAULT_ROUNDS")
        .map_or(3, |rounds| rounds.parse().expect("HEADGATE_FAULT_ROUNDS is a number"))
}

/// A moment that nobody planned, and the same with the same seed.
async fn moment(dice: &mut Dice) {
    sleep(Duration::from_millis(50 + dice.below(1_000))).await;
}

#[tokio::test]
async fn gateway_killed() {
    let (shop, mut dice) = (Shop::open().await, Dice(1));
    let mut gateway = shop.gateway().await;
    let writing = workload::start(&Load::steady(shop.postgres.url(), 1));
    for _ in 0..rounds() {
        moment(&mut dice).await;
        gateway.kill9();
        moment(&mut dice).await;
        gateway.start_again().await;
    }
    writing.stop().await;
    shop.assert_faithful().await;
}

#[tokio::test]
async fn gateway_killed_while_it_catches_up() {
    let (shop, mut dice) = (Shop::with(Version::Pg15, Nats::start().await).await, Dice(2));
    let mut gateway = shop.gateway().await;
    gateway.kill9();
    workload::start(&Load { transactions: 500, ..Load::new(shop.postgres.url(), 2) }).finish().await;
    shop.postgres.execute("INSERT INTO scratch SELECT n, 'x' FROM generate_series(10001, 40000) n").await;
    for _ in 0..rounds() {
        gateway.launch();
        sleep(Duration::from_millis(100 + dice.below(600))).await;
        gateway.kill9();
    }
    gateway.start_again().await;
    shop.assert_faithful().await;
}

#[tokio::test]
async fn gateway_terminated() {
    let (shop, mut dice) = (Shop::open().await, Dice(3));
    let mut gateway = shop.gateway().await;
    let writing = workload::start(&Load::steady(shop.postgres.url(), 3));
    for _ in 0..rounds() {
        moment(&mut dice).await;
        assert_eq!(gateway.terminate(), Some(0));
        gateway.start_again().await;
    }
    writing.stop().await;
    shop.assert_faithful().await;
}

async fn broker_restarts(end: impl Fn(&mut Nats), seed: u64) {
    let (mut shop, mut dice) = (Shop::open().await, Dice(seed));
    let _gateway = shop.gateway().await;
    let writing = workload::start(&Load::steady(shop.postgres.url(), seed));
    for _ in 0..rounds() {
        moment(&mut dice).await;
        end(&mut shop.nats);
        moment(&mut dice).await;
        shop.nats.start_again(0).await;
    }
    writing.stop().await;
    shop.assert_faithful().await;
}

#[tokio::test]
async fn broker_killed() {
    broker_restarts(|nats| nats.kill9(0), 4).await;
}

#[tokio::test]
async fn broker_terminated() {
    broker_restarts(|nats| nats.terminate(0), 5).await;
}

#[tokio::test]
async fn leader_of_a_replicated_stream_changes() {
    let (mut shop, mut dice) = (Shop::with(Version::Pg18, Nats::cluster(3).await).await, Dice(6));
    let mut settings = shop.settings();
    settings.stream_lines = "replicas = 3\n".to_owned();
    let _gateway = shop.gateway_with(&settings).await;
    let writing = workload::start(&Load::steady(shop.postgres.url(), 6));
    for round in 0..rounds() {
        moment(&mut dice).await;
        let leader = shop.nats.leader(STREAM).await;
        match round % 3 {
            0 => shop.nats.kill9(leader),
            1 => shop.nats.terminate(leader),
            _ => {
                shop.nats.step_down(STREAM).await;
                continue;
            }
        }
        moment(&mut dice).await;
        shop.nats.start_again(leader).await;
    }
    writing.stop().await;
    shop.assert_faithful().await;
}

async fn database_restarts(version: Version, seed: u64) {
    let (mut shop, mut dice) = (Shop::with(version, Nats::start().await).await, Dice(seed));
    let _gateway = shop.gateway().await;
    let writing = workload::start(&Load::steady(shop.postgres.url(), seed));
    for round in 0..rounds() {
        moment(&mut dice).await;
        match round % 3 {
            0 => shop.postgres.stop(Stop::Immediate),
            1 => shop.postgres.kill9(),
            _ => shop.postgres.stop(Stop::Fast),
        }
        moment(&mut dice).await;
        shop.postgres.start_again().await;
        shop.postgres.slot_is_active(SLOT).await;
    }
    writing.stop().await;
    shop.assert_faithful().await;
}

#[tokio::test]
async fn database_15_stopped() {
    database_restarts(Version::Pg15, 7).await;
}

#[tokio::test]
async fn database_18_stopped() {
    database_restarts(Version::Pg18, 8).await;
}

/// Every kind of cut, mended with the connections alive and with them gone.
async fn network_fails(proxy: &Proxy, dice: &mut Dice) {
    for round in 0..rounds() {
        for flow in [Flow::CUT, Flow::MUTE, Flow::DEAF] {
            moment(dice).await;
            proxy.set(flow);
            // Shorter and longer than the patience of either side.
            sleep(Duration::from_millis(200 + dice.below(4_000))).await;
            if round % 2 == 0 {
                proxy.drop_connections();
            }
            proxy.set(Flow::WHOLE);
        }
    }
}

#[tokio::test]
async fn network_to_the_database_cut() {
    let shop = Shop::open().await;
    let proxy = Proxy::start(shop.postgres.port()).await;
    let mut settings = shop.settings();
    settings.source =
        settings.source.replace(&format!(":{}/", shop.postgres.port()), &format!(":{}/", proxy.port()));
    let _gateway = shop.gateway_with(&settings).await;
    let writing = workload::start(&Load::steady(shop.postgres.url(), 9));
    network_fails(&proxy, &mut Dice(9)).await;
    writing.stop().await;
    shop.assert_faithful().await;
}

#[tokio::test]
async fn network_to_the_broker_cut() {
    let shop = Shop::open().await;
    let proxy = Proxy::start(shop.nats.port(0)).await;
    let mut settings = shop.settings();
    settings.nats = vec![format!("nats://127.0.0.1:{}", proxy.port())];
    let _gateway = shop.gateway_with(&settings).await;
    let writing = workload::start(&Load::steady(shop.postgres.url(), 10));
    network_fails(&proxy, &mut Dice(10)).await;
    writing.stop().await;
    shop.assert_faithful().await;
}

#[tokio::test]
async fn broker_stalled_for_longer_than_the_database_waits() {
    let shop = Shop::open().await;
    let _gateway = shop.gateway().await;
    let writing = workload::start(&Load::steady(shop.postgres.url(), 11));
    let client = shop.postgres.client().await;
    let reader = async || -> Option<i32> {
        let sql = "SELECT active_pid FROM pg_replication_slots WHERE slot_name = $1";
        client.query_one(sql, &[&SLOT]).await.unwrap().get(0)
    };
    for _ in 0..rounds() {
        let before = reader().await;
        shop.nats.freeze(0);
        sleep(Duration::from_secs(5)).await;
        // Keepalives are answered whatever the broker does: the database has not hung up.
        assert_eq!(reader().await, before);
        shop.nats.thaw(0);
        sleep(Duration::from_secs(1)).await;
    }
    writing.stop().await;
    shop.assert_faithful().await;
}

/// The broker's machine loses power: what it had acknowledged and not yet synced is gone.
async fn tail_lost(gateway_runs: bool, seed: u64) {
    let mut shop = Shop::open().await;
    let mut gateway: Gateway = shop.gateway().await;
    for round in 0..rounds() {
        workload::start(&Load::new(shop.postgres.url(), seed + round)).finish().await;
        shop.assert_faithful().await;
        shop.nats.terminate(0);
        let copy = shop.nats.copy_store(0);
        shop.nats.start_again(0).await;
        workload::start(&Load { transactions: 30, ..Load::new(shop.postgres.url(), seed + round + 1_000) })
            .finish()
            .await;
        let held = shop.assert_faithful().await.len();
        if !gateway_runs {
            gateway.terminate();
        }
        shop.nats.terminate(0);
        shop.nats.restore_store(0, &copy);
        shop.nats.start_again(0).await;
        if !gateway_runs {
            assert!(stream::read(&shop.nats, STREAM).await.len() < held, "no tail was lost");
            gateway.start_again().await;
        }
        shop.assert_faithful().await;
    }
}

#[tokio::test]
async fn stream_loses_its_tail_under_a_running_gateway() {
    tail_lost(true, 12).await;
}

#[tokio::test]
async fn stream_loses_its_tail_while_the_gateway_is_down() {
    tail_lost(false, 13).await;
}

#[tokio::test]
async fn two_gateways_on_one_source() {
    let (shop, mut dice) = (Shop::open().await, Dice(14));
    let mut runs = shop.gateway().await;
    let mut waits = Gateway::configure(&shop.settings());
    waits.launch();
    let writing = workload::start(&Load::steady(shop.postgres.url(), 14));
    for _ in 0..rounds() {
        moment(&mut dice).await;
        runs.kill9();
        shop.postgres.slot_is_active(SLOT).await;
        moment(&mut dice).await;
        runs.launch();
        std::mem::swap(&mut runs, &mut waits);
    }
    writing.stop().await;
    shop.assert_faithful().await;
}

/// Starts a gateway over history that is gone: it says so once, and tells nothing after it.
async fn tells_of_a_gap(shop: &Shop, gateway: &mut Gateway) {
    for _ in 0..2 {
        gateway.launch();
        eventually("a gap event", Duration::from_secs(60), || async {
            let events = stream::read(&shop.nats, STREAM).await;
            match events.last() {
                Some(event) if event.data.op == "gap" => Ok(()),
                last => Err(format!("{} events, the last is {last:?}", events.len())),
            }
        })
        .await;
        // It stops there, and a restart does not say it again.
        sleep(Duration::from_secs(1)).await;
        shop.postgres.execute("INSERT INTO marks SELECT gen_random_uuid()").await;
        sleep(Duration::from_secs(1)).await;
        gateway.terminate();
    }
    let events = stream::read(&shop.nats, STREAM).await;
    let gaps: Vec<usize> = (0..events.len()).filter(|n| events[*n].data.op == "gap").collect();
    assert_eq!(gaps, [events.len() - 1], "one gap event, at the end");
    assert_eq!(oracle::malformed(&events), Vec::<String>::new());
}

async fn history_is_lost(loss: &[&str], seed: u64) {
    let shop = Shop::open().await;
    let mut gateway = shop.gateway().await;
    workload::start(&Load::new(shop.postgres.url(), seed)).finish().await;
    shop.assert_faithful().await;
    gateway.terminate();
    workload::start(&Load::new(shop.postgres.url(), seed + 1)).finish().await;
    for statement in loss {
        shop.postgres.execute(statement).await;
    }
    workload::start(&Load::new(shop.postgres.url(), seed + 2)).finish().await;
    tells_of_a_gap(&shop, &mut gateway).await;
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

/// Without its publication a reader is told nothing, on 18 even without an error: the gateway must not look well.
async fn publication_dropped(version: Version, seed: u64) {
    let shop = Shop::with(version, Nats::start().await).await;
    let gateway = shop.gateway().await;
    workload::start(&Load::new(shop.postgres.url(), seed)).finish().await;
    shop.assert_faithful().await;
    let client = shop.postgres.client().await;
    for row in client.query("SELECT quote_ident(pubname) FROM pg_publication", &[]).await.unwrap() {
        client.batch_execute(&format!("DROP PUBLICATION {}", row.get::<_, &str>(0))).await.unwrap();
    }
    let writing = workload::start(&Load::steady(shop.postgres.url(), seed));
    eventually("the gateway says that changes are missing", Duration::from_secs(60), || async {
        let events = stream::read(&shop.nats, STREAM).await;
        if events.iter().any(|event| event.data.op == "gap") || !gateway.says_ready().await {
            return Ok(());
        }
        Err(format!("{} events, no gap, and ready", events.len()))
    })
    .await;
    writing.stop().await;
    let found = oracle::malformed(&stream::read(&shop.nats, STREAM).await);
    assert_eq!(found, Vec::<String>::new());
}

#[tokio::test]
async fn publication_dropped_15() {
    publication_dropped(Version::Pg15, 18).await;
}

#[tokio::test]
async fn publication_dropped_18() {
    publication_dropped(Version::Pg18, 19).await;
}
