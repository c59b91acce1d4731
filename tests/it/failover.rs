//! A primary with a standby: the standby takes over, or is itself the source. Nothing is lost, and nothing told twice.

use crate::support::{
    eventually,
    gateway::{Gateway, Settings},
    nats::Nats,
    postgres::{Postgres, STANDBY, Version},
    shop::{SLOT, STREAM, Shop},
    stream,
    workload::{self, Load},
};
use std::{mem, time::Duration};
use tokio::time::sleep;

const AT_ONCE: &str = "confirm_delay = \"0s\"\n";

/// A shop whose database has a standby.
async fn with_standby() -> (Shop, Postgres) {
    let shop = Shop::with(Version::Pg18, Nats::start().await).await;
    let settings = [
        ("hot_standby_feedback", "on"),
        ("wal_receiver_status_interval", "1s"),
        ("sync_replication_slots", "on"),
    ];
    let standby = shop.postgres.standby(&settings).await;
    (shop, standby)
}

/// Waits until the standby has replayed everything that its primary has written.
async fn has_caught_up(standby: &Postgres, primary: &Postgres) {
    let (client, end) = (standby.client().await, primary.end_of_log().await);
    eventually("the standby has caught up", Duration::from_secs(30), || async {
        let sql = "SELECT (pg_last_wal_replay_lsn() - '0/0')::int8";
        let replayed: i64 = client.query_one(sql, &[]).await.map_err(|error| error.to_string())?.get(0);
        if replayed >= end { Ok(()) } else { Err(format!("{replayed:X}, not yet {end:X}")) }
    })
    .await;
}

/// Waits until the primary knows what slots on its standby need. What it clears away before that ends those slots.
async fn is_kept_by_the_primary(primary: &Postgres) {
    let client = primary.client().await;
    eventually("the primary keeps what the slot needs", Duration::from_secs(30), || async {
        let sql = "SELECT FROM pg_replication_slots WHERE slot_name = $1 AND catalog_xmin IS NOT NULL";
        let slot = client.query_opt(sql, &[&STANDBY]).await.map_err(|error| error.to_string())?;
        slot.map(drop).ok_or_else(|| "not yet".to_owned())
    })
    .await;
}

/// The running gateway finds the promoted standby by the other host of its URL, and its slot there.
///
/// `later`: the slot was made without failover.
async fn the_standby_takes_over(later: bool, seed: u64) {
    let (mut shop, mut standby) = with_standby().await;
    // Nobody is told what the standby does not have yet.
    shop.postgres.execute(&format!("ALTER SYSTEM SET synchronized_standby_slots = '{STANDBY}'")).await;
    shop.postgres.execute("SELECT pg_reload_conf()").await;
    if later {
        assert_eq!(shop.gateway().await.terminate(), Some(0));
    }
    let hosts = format!(":{},127.0.0.1:{}/", shop.postgres.port(), standby.port());
    let url = shop.postgres.url().replace(&format!(":{}/", shop.postgres.port()), &hosts);
    let settings = Settings {
        source: format!("{url}?target_session_attrs=read-write"),
        source_lines: "failover = true\n".to_owned(),
        ..shop.settings_with(AT_ONCE)
    };
    let mut gateway = shop.gateway_with(&settings).await;
    let (client, primary) = (standby.client().await, shop.postgres.client().await);
    eventually("the standby keeps a copy of the slot", Duration::from_secs(60), || async {
        // The copy begins when the slot has moved on, which it does at such records.
        primary.execute("SELECT pg_log_standby_snapshot()", &[]).await.map_err(|error| error.to_string())?;
        workload::mark(&primary).await;
        let sql = "SELECT synced AND NOT temporary AND invalidation_reason IS NULL \
                   FROM pg_replication_slots WHERE slot_name = $1";
        match client.query_opt(sql, &[&SLOT]).await.map_err(|error| error.to_string())? {
            Some(row) if row.get(0) => Ok(()),
            found => Err(format!("{found:?}")),
        }
    })
    .await;
    is_kept_by_the_primary(&shop.postgres).await;
    let writing = workload::start(&Load::steady(shop.postgres.url(), seed));
    sleep(Duration::from_millis(500)).await;
    shop.postgres.kill9();
    writing.stop().await;
    standby.promote().await;
    mem::swap(&mut shop.postgres, &mut standby);
    shop.postgres.slot_is_active(SLOT).await;
    gateway.is_ready().await;
    workload::start(&Load::new(shop.postgres.url(), seed + 1)).finish().await;
    let events = shop.assert_faithful().await;
    assert!(events.iter().all(|event| event.data.op != "gap"), "{}", gateway.log());
    assert_eq!(gateway.terminate(), Some(0));
}

#[tokio::test]
async fn standby_takes_over() {
    the_standby_takes_over(false, 70).await;
}

#[tokio::test]
async fn standby_takes_over_a_slot_that_was_made_without_it() {
    the_standby_takes_over(true, 72).await;
}

/// A gateway that reads the standby, once the primary has been told what it says.
async fn reads(shop: &Shop, standby: &Postgres, settings: &Settings) -> Gateway {
    let mut gateway = Gateway::configure(settings);
    gateway.launch();
    let fix = eventually("the fix", Duration::from_secs(20), || async {
        let status = gateway.status().await;
        let fix = status["sources"][0]["fix"].as_str().map(str::to_owned);
        fix.ok_or_else(|| status.to_string())
    })
    .await;
    let statements = fix.strip_prefix("on the primary: ").unwrap_or_else(|| panic!("{fix}"));
    shop.postgres.execute(statements).await;
    has_caught_up(standby, &shop.postgres).await;
    gateway.kill9();
    gateway.launch();
    // What a new slot on a standby waits for; the gateway says so if it does not come.
    let client = standby.client().await;
    eventually("the slot is read", Duration::from_secs(30), || async {
        shop.postgres.execute("SELECT pg_log_standby_snapshot()").await;
        let sql = "SELECT FROM pg_replication_slots WHERE slot_name = $1 AND active";
        let slot = client.query_opt(sql, &[&SLOT]).await.map_err(|error| error.to_string())?;
        slot.map(drop).ok_or_else(|| "not yet".to_owned())
    })
    .await;
    gateway.is_ready().await;
    is_kept_by_the_primary(&shop.postgres).await;
    gateway
}

/// The source is a standby: what the primary has to be told, the gateway says. It outlives the standby's restart and its
/// promotion.
#[tokio::test]
async fn standby_is_the_source() {
    let (mut shop, mut standby) = with_standby().await;
    let settings = Settings { source: standby.url(), ..shop.settings_with(AT_ONCE) };
    let mut gateway = reads(&shop, &standby, &settings).await;
    workload::start(&Load::new(shop.postgres.url(), 74)).finish().await;
    shop.assert_faithful().await;

    standby.kill9();
    workload::start(&Load::new(shop.postgres.url(), 75)).finish().await;
    standby.start_again().await;
    shop.assert_faithful().await;

    has_caught_up(&standby, &shop.postgres).await;
    shop.postgres.kill9();
    standby.promote().await;
    mem::swap(&mut shop.postgres, &mut standby);
    shop.postgres.slot_is_active(SLOT).await;
    workload::start(&Load::new(shop.postgres.url(), 76)).finish().await;
    let events = shop.assert_faithful().await;
    assert!(events.iter().all(|event| event.data.op != "gap"), "{}", gateway.log());
    assert_eq!(gateway.terminate(), Some(0));
}

/// Rows that were there are read from the standby too, while its primary is written to.
#[tokio::test]
async fn standby_tells_what_was_there() {
    let (shop, standby) = with_standby().await;
    workload::start(&Load::new(shop.postgres.url(), 77)).finish().await;
    let archive = "CREATE TABLE archive (id integer PRIMARY KEY, body text); \
                   INSERT INTO archive SELECT n, 'x' || n FROM generate_series(1, 3000) n";
    shop.postgres.execute(archive).await;
    let settings = Settings {
        source: standby.url(),
        snapshot: "initial",
        source_lines: "snapshot_rate = 2000\n".to_owned(),
        ..shop.settings_with(AT_ONCE)
    };
    let mut gateway = reads(&shop, &standby, &settings).await;
    let writing = workload::start(&Load::steady(shop.postgres.url(), 78));
    eventually("the snapshot is done", Duration::from_secs(60), || async {
        let status = gateway.status().await;
        let jobs = status["sources"][0]["snapshots"].as_array().cloned().unwrap_or_default();
        if jobs.iter().any(|job| job["state"] == "done") { Ok(()) } else { Err(format!("{jobs:?}")) }
    })
    .await;
    writing.stop().await;
    let events = shop.assert_faithful().await;
    let told =
        events.iter().filter(|event| event.data.op == "snapshot" && event.data.table == "public.archive");
    assert_eq!(told.count(), 3_000);
    assert_eq!(gateway.terminate(), Some(0));
}

/// A table that the primary does not publish yet is not captured, on a standby either: it would count as read, and what is written
/// between its reading and its publication would be told by nobody.
#[tokio::test]
async fn standby_captures_what_its_primary_publishes() {
    let (shop, standby) = with_standby().await;
    let settings = Settings { source: standby.url(), snapshot: "initial", ..shop.settings_with(AT_ONCE) };
    let mut gateway = reads(&shop, &standby, &settings).await;
    shop.postgres.execute("CREATE TABLE late (id integer PRIMARY KEY); INSERT INTO late VALUES (1)").await;
    has_caught_up(&standby, &shop.postgres).await;
    // The gateway must not take it for captured now, nor when it starts.
    assert_eq!(gateway.terminate(), Some(0));
    gateway.start_again().await;
    let fix = eventually("the warning", Duration::from_secs(30), || async {
        let log = gateway.log();
        let line = log
            .lines()
            .rev()
            .find(|line| line.contains("ADD TABLE ONLY") && line.contains("late"))
            .map(str::to_owned);
        line.ok_or(log)
    })
    .await;
    assert!(fix.contains("which only the primary can change"), "{fix}");
    sleep(Duration::from_secs(2)).await;
    shop.postgres.execute("INSERT INTO late VALUES (2)").await;
    shop.postgres.execute("ALTER PUBLICATION headgate_shop ADD TABLE late").await;
    shop.postgres.execute("INSERT INTO late VALUES (3)").await;
    let known = || async {
        let events = stream::read(&shop.nats, STREAM).await;
        let mut ids: Vec<u64> = events
            .iter()
            .filter(|event| event.data.table == "public.late")
            .filter_map(|event| event.data.key.as_ref()?["id"].parse().ok())
            .collect();
        ids.sort_unstable();
        ids.dedup();
        if ids == [1, 2, 3] { Ok(()) } else { Err(format!("{ids:?}")) }
    };
    eventually("all rows are told", Duration::from_secs(60), known).await;
    assert_eq!(gateway.terminate(), Some(0));
}
