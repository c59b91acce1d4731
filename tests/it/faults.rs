//! Whatever fails, and whenever: the stream tells everything once, in order, or says that history is gone.
//!
//! `HEADGATE_FAULT_ROUNDS` says how often each fault strikes within a test.

use crate::support::{
    eventually,
    gateway::{Gateway, Settings},
    nats::Nats,
    oracle::Witness,
    postgres::{Stop, Version},
    proxy::{Flow, Proxy},
    servers,
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

/// Positions are released to the database at once, so that it has forgotten what it may forget when a fault comes.
const AT_ONCE: &str = "confirm_delay = \"0s\"\n";
const BINARY: &str = "mode = \"binary\"\nconfirm_delay = \"0s\"\n";
const ATOMIC: &str = "publish = \"atomic\"\nconfirm_delay = \"0s\"\n";

async fn gateway_dies(nats_lines: &str, seed: u64) {
    let (shop, mut dice) = (Shop::open().await, Dice(seed));
    let mut gateway = shop.gateway_with(&shop.settings_with(nats_lines)).await;
    let writing = workload::start(&Load::steady(shop.postgres.url(), seed));
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
async fn gateway_killed() {
    gateway_dies("", 1).await;
}

#[tokio::test]
async fn gateway_killed_in_binary_mode() {
    gateway_dies(BINARY, 21).await;
}

#[tokio::test]
async fn gateway_killed_in_atomic_mode() {
    gateway_dies(ATOMIC, 22).await;
}

async fn gateway_dies_catching_up(nats_lines: &str, seed: u64) {
    let (shop, mut dice) = (Shop::with(Version::Pg15, Nats::start().await).await, Dice(seed));
    let mut gateway = shop.gateway_with(&shop.settings_with(nats_lines)).await;
    gateway.kill9();
    workload::start(&Load { transactions: 500, ..Load::new(shop.postgres.url(), seed) }).finish().await;
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
async fn gateway_killed_while_it_catches_up() {
    gateway_dies_catching_up("", 2).await;
}

#[tokio::test]
async fn gateway_killed_while_it_catches_up_in_atomic_mode() {
    gateway_dies_catching_up(ATOMIC, 23).await;
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

/// A gateway that runs its own broker where the shop's was.
fn embedded(shop: &Shop) -> Settings {
    let embedded = format!(
        "[nats.embedded]\nlisten = \"127.0.0.1:{}\"\nbinary = \"{}\"\n",
        shop.nats.port(0),
        servers().join("nats/nats-server").display()
    );
    Settings { nats: vec!["embedded".to_owned()], stream_lines: embedded, ..shop.settings() }
}

/// A second gateway on the same folder would take the first one's broker for its own, and end it.
#[tokio::test]
async fn second_gateway_on_one_folder() {
    let mut shop = Shop::open().await;
    shop.nats.terminate(0);
    let mut gateway = shop.gateway_with(&embedded(&shop)).await;
    // The same configuration, but for the admin listener, which would refuse it first.
    let refused = gateway.command_elsewhere().arg("run").output().unwrap();
    let said = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(78), "{said}");
    assert!(said.contains(&format!("another gateway (pid {})", gateway.pid())), "{said}");
    workload::start(&Load::new(shop.postgres.url(), 32)).finish().await;
    shop.assert_faithful().await;
    // Nothing of the hold outlives the process.
    gateway.kill9();
    gateway.start_again().await;
    assert_eq!(gateway.terminate(), Some(0));
}

/// The gateway's own broker falls with it, and comes back with it.
#[tokio::test]
async fn gateway_killed_with_the_broker_that_it_runs() {
    let (mut shop, mut dice) = (Shop::open().await, Dice(31));
    shop.nats.terminate(0);
    // In the other one's place, so that the oracle finds it.
    let settings = embedded(&shop);
    let mut gateway = shop.gateway_with(&settings).await;
    let writing = workload::start(&Load::steady(shop.postgres.url(), 31));
    for round in 0..rounds() {
        moment(&mut dice).await;
        if round % 2 == 0 {
            gateway.kill9();
        } else {
            assert_eq!(gateway.terminate(), Some(0));
        }
        gateway.start_again().await;
    }
    writing.stop().await;
    shop.assert_faithful().await;
}

async fn broker_restarts(nats_lines: &str, end: impl Fn(&mut Nats), seed: u64) {
    let (mut shop, mut dice) = (Shop::open().await, Dice(seed));
    let mut gateway = shop.gateway_with(&shop.settings_with(nats_lines)).await;
    let writing = workload::start(&Load::steady(shop.postgres.url(), seed));
    for _ in 0..rounds() {
        moment(&mut dice).await;
        end(&mut shop.nats);
        moment(&mut dice).await;
        shop.nats.start_again(0).await;
    }
    writing.stop().await;
    shop.assert_faithful().await;
    gateway.is_ready().await;
}

#[tokio::test]
async fn broker_killed() {
    broker_restarts("", |nats| nats.kill9(0), 4).await;
}

#[tokio::test]
async fn broker_killed_in_binary_mode() {
    broker_restarts(BINARY, |nats| nats.kill9(0), 24).await;
}

#[tokio::test]
async fn broker_killed_in_atomic_mode() {
    broker_restarts(ATOMIC, |nats| nats.kill9(0), 25).await;
}

#[tokio::test]
async fn broker_terminated() {
    broker_restarts("", |nats| nats.terminate(0), 5).await;
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
    // What was confirmed is forgotten by an immediate stop: the database sends it again.
    let mut gateway = shop.gateway_with(&shop.settings_with(AT_ONCE)).await;
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
    gateway.is_ready().await;
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
    let mut witness = Witness::default();
    for round in 0..rounds() {
        workload::start(&Load::new(shop.postgres.url(), seed + round)).finish().await;
        shop.still_faithful(&mut witness).await;
        shop.nats.terminate(0);
        let copy = shop.nats.copy_store(0);
        let known = witness.clone();
        shop.nats.start_again(0).await;
        workload::start(&Load { transactions: 30, ..Load::new(shop.postgres.url(), seed + round + 1_000) })
            .finish()
            .await;
        let tail = shop.still_faithful(&mut witness).await;
        if !gateway_runs {
            gateway.terminate();
        }
        shop.nats.terminate(0);
        shop.nats.restore_store(0, &copy);
        witness = known;
        shop.nats.start_again(0).await;
        if !gateway_runs {
            assert_eq!(
                stream::last_sequence(&shop.nats, STREAM).await,
                witness.sequence(),
                "no tail was lost"
            );
            gateway.start_again().await;
        }
        // What was lost is there again, and the new mark.
        assert!(shop.still_faithful(&mut witness).await > tail);
    }
    // Once more from the beginning, by somebody who knows nothing.
    shop.assert_faithful().await;
}

#[tokio::test]
async fn stream_loses_its_tail_under_a_running_gateway() {
    tail_lost(true, 12).await;
}

#[tokio::test]
async fn stream_loses_its_tail_while_the_gateway_is_down() {
    tail_lost(false, 13).await;
}

/// A power cut takes the stream's tail but not the checkpoint's, after a time in which only others wrote.
#[tokio::test]
async fn stream_loses_more_than_its_checkpoint() {
    let mut shop = Shop::open().await;
    let mut gateway = shop.gateway_with(&shop.settings_with("confirm_delay = \"5s\"\n")).await;
    workload::start(&Load::new(shop.postgres.url(), 26)).finish().await;
    let held = shop.assert_faithful().await.len();
    shop.postgres
        .execute("CREATE SCHEMA other; CREATE TABLE other.t AS SELECT generate_series(1, 1000)")
        .await;
    let elsewhere = shop.postgres.end_of_log().await;
    shop.postgres.slot_has_confirmed(SLOT, elsewhere).await;
    shop.nats.terminate(0);
    let copy = shop.nats.copy_store(0);
    shop.nats.start_again(0).await;
    workload::start(&Load { transactions: 20, ..Load::new(shop.postgres.url(), 27) }).finish().await;
    shop.assert_faithful().await;
    // Long enough for the checkpoint to say so, too short for the database to hear of it.
    sleep(Duration::from_millis(1_500)).await;
    gateway.kill9();
    shop.nats.terminate(0);
    shop.nats.restore_stream(0, &copy, STREAM);
    shop.nats.start_again(0).await;
    assert_eq!(stream::read(&shop.nats, STREAM).await.len(), held);
    gateway.start_again().await;
    shop.assert_faithful().await;
    assert!(gateway.log().contains("lost its tail"), "the checkpoint was lost too");
}

async fn two_gateways(nats_lines: &str, seed: u64) {
    let (shop, mut dice) = (Shop::open().await, Dice(seed));
    let settings = shop.settings_with(nats_lines);
    let mut runs = shop.gateway_with(&settings).await;
    let mut waits = Gateway::configure(&settings);
    waits.launch();
    let writing = workload::start(&Load::steady(shop.postgres.url(), seed));
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

#[tokio::test]
async fn two_gateways_on_one_source() {
    two_gateways("", 14).await;
}

/// The one that waits must not take what the other one confirms for lost history.
#[tokio::test]
async fn two_gateways_on_one_source_that_confirm_at_once() {
    two_gateways(AT_ONCE, 28).await;
}

/// A gateway that cannot drain ends in time and says why; nothing is lost.
#[tokio::test]
async fn gateway_terminated_while_the_broker_stands_still() {
    let shop = Shop::open().await;
    let mut gateway = shop.gateway().await;
    let writing = workload::start(&Load::steady(shop.postgres.url(), 29));
    sleep(Duration::from_millis(500)).await;
    shop.nats.freeze(0);
    sleep(Duration::from_millis(500)).await;
    let begun = std::time::Instant::now();
    assert_eq!(gateway.terminate(), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(13), "it took {:?}", begun.elapsed());
    assert!(gateway.log().contains("the grace is over"), "it did not say why");
    shop.nats.thaw(0);
    gateway.start_again().await;
    writing.stop().await;
    shop.assert_faithful().await;
}

#[tokio::test]
async fn readiness_follows_the_servers() {
    let mut shop = Shop::open().await;
    let mut gateway = shop.gateway().await;
    let unready = async |gateway: &Gateway| {
        eventually("the gateway is not ready", Duration::from_secs(10), || async {
            if gateway.says_ready().await { Err("it is".to_owned()) } else { Ok(()) }
        })
        .await;
    };
    shop.postgres.stop(Stop::Fast);
    unready(&gateway).await;
    shop.postgres.start_again().await;
    gateway.is_ready().await;
    shop.nats.terminate(0);
    unready(&gateway).await;
    shop.nats.start_again(0).await;
    gateway.is_ready().await;
    workload::start(&Load::new(shop.postgres.url(), 30)).finish().await;
    shop.assert_faithful().await;
    let status = gateway.status().await;
    assert_eq!(status["sources"][0]["state"], "streaming", "{status}");
    assert_eq!(status["gateway"]["nats"]["connected"], true, "{status}");
}

#[tokio::test]
async fn stream_deleted_under_a_running_gateway() {
    let shop = Shop::open().await;
    let gateway = shop.gateway().await;
    workload::start(&Load::new(shop.postgres.url(), 61)).finish().await;
    shop.assert_faithful().await;
    shop.nats.jetstream().await.delete_stream(STREAM).await.unwrap();
    // Nothing was released yet: the log still has everything, and the new stream gets all of it.
    workload::start(&Load::new(shop.postgres.url(), 62)).finish().await;
    shop.assert_faithful().await;
    assert!(gateway.says_ready().await);
}
