//! What breaks around a MySQL or MariaDB source: the broker, the network, the server, and the log itself. The stream
//! holds each change once, in order, or says what it lacks.

use crate::support::{
    eventually,
    gateway::Gateway,
    mysql::{MySql, Version},
    mysql_shop::{MySqlShop, is_mark, mark, write},
    proxy::{Flow, Proxy},
    stream,
};
use mysql_async::prelude::Queryable as _;
use std::{collections::BTreeSet, time::Duration};
use tokio::time::sleep;

const STREAM: &str = "EVENTS_shop";
const PATIENCE: Duration = Duration::from_secs(30);

fn millis(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// The broker is killed, frozen and ended in order, and the gateway ended in order, within a large transaction too.
async fn the_broker_fails(version: Version) {
    let Some(mut shop) = MySqlShop::open(version).await else { return };
    let mut gateway = shop.gateway().await;
    let writers = write(&shop.server, 51, 2, 600);
    sleep(millis(300)).await;
    shop.nats.kill9(0);
    sleep(millis(500)).await;
    shop.nats.start_again(0).await;
    sleep(millis(500)).await;
    shop.nats.freeze(0);
    sleep(millis(2500)).await;
    shop.nats.thaw(0);
    sleep(millis(300)).await;
    assert_eq!(gateway.terminate(), Some(0), "{}", gateway.log());
    gateway.launch();
    writers.join_all().await;
    gateway.is_ready().await;
    shop.within_a_large_transaction().await;
    assert_eq!(gateway.terminate(), Some(0), "{}", gateway.log());
    gateway.start_again().await;
    shop.assert_faithful().await;
}

#[tokio::test]
async fn a_broker_that_fails_adds_and_loses_nothing_mysql() {
    the_broker_fails(Version::MySql97).await;
}

#[tokio::test]
async fn a_broker_that_fails_adds_and_loses_nothing_mariadb() {
    the_broker_fails(Version::MariaDb1011).await;
}

/// The network is cut in each direction, and damages what it carries.
async fn the_network_fails(version: Version) {
    let Some(shop) = MySqlShop::open(version).await else { return };
    let proxy = Proxy::start(shop.server.port()).await;
    // In the clear: TLS would find the damage before the checksums do.
    let mut settings = shop.settings_at(proxy.port());
    settings.source.push_str("?ssl-mode=disabled");
    settings.source_lines.push_str("connect_timeout = \"3s\"\n");
    let mut gateway = Gateway::start(&settings).await;
    let writers = write(&shop.server, 61, 2, 1000);
    for flow in [Flow::MUTE, Flow::DEAF] {
        sleep(millis(300)).await;
        proxy.set(flow);
        // Three heartbeats, and no more of it than that.
        sleep(millis(4500)).await;
        proxy.set(Flow::WHOLE);
    }
    writers.join_all().await;
    for round in 0..8 {
        gateway.is_ready().await;
        // Headers, lengths, rows and checksums.
        proxy.damage(300 + 37 * round * round);
        write(&shop.server, 62 + u64::from(round), 2, 20).join_all().await;
    }
    gateway.is_ready().await;
    assert!(gateway.log().contains("the checksum of an event is wrong"), "{}", gateway.log());
    shop.assert_faithful().await;
    assert_eq!(gateway.terminate(), Some(0));
}

#[tokio::test]
async fn a_network_that_cuts_and_damages_adds_and_loses_nothing_mysql() {
    the_network_fails(Version::MySql97).await;
}

#[tokio::test]
async fn a_network_that_cuts_and_damages_adds_and_loses_nothing_mariadb() {
    the_network_fails(Version::MariaDb118).await;
}

/// Distributed transactions that are prepared before the server and the gateway were killed.
async fn prepared_survives(version: Version) {
    let Some(mut shop) = MySqlShop::open(version).await else { return };
    let mut gateway = shop.gateway().await;
    for (name, id) in [("kept", 1), ("dropped", 2)] {
        let mut session = shop.server.session().await;
        for statement in [
            format!("XA START '{name}'"),
            format!("INSERT INTO scratch VALUES ({id}, '{name}')"),
            format!("XA END '{name}'"),
            format!("XA PREPARE '{name}'"),
        ] {
            session.query_drop(statement).await.unwrap();
        }
    }
    let seen = mark(&shop.server).await;
    stream::read_until(&shop.nats, STREAM, PATIENCE, |event| is_mark(event, &seen)).await;
    gateway.kill9();
    shop.server.kill9();
    shop.server.start_again().await;
    gateway.start_again().await;
    shop.server.execute(&["FLUSH BINARY LOGS", "XA ROLLBACK 'dropped'", "XA COMMIT 'kept'"]).await;
    let events = shop.assert_faithful().await;
    let told = events.iter().filter(|event| event.data.table == "shop.scratch").count();
    assert_eq!(told, 1, "what was rolled back is not told");
    assert_eq!(gateway.terminate(), Some(0));
}

#[tokio::test]
async fn prepared_transactions_survive_the_server_mysql() {
    prepared_survives(Version::MySql97).await;
}

#[tokio::test]
async fn prepared_transactions_survive_the_server_mariadb() {
    prepared_survives(Version::MariaDb118).await;
}

/// Transactions whose GTIDs have a tag are told, known after a restart, and known to a replica that takes over.
#[tokio::test]
async fn tagged_gtids_are_names_like_others() {
    let Some(mut shop) = MySqlShop::open(Version::MySql97).await else { return };
    let replica = MySql::start_as(2, Version::MySql97, &[]).await;
    replica.follow(&shop.server).await;
    let proxy = Proxy::start(shop.server.port()).await;
    let mut gateway = Gateway::start(&shop.settings_at(proxy.port())).await;
    let mut session = shop.server.session().await;
    let mut id = 0;
    for round in 0..4 {
        for tag in ["blue", "green_2", ""] {
            let next = if tag.is_empty() { "AUTOMATIC".to_owned() } else { format!("AUTOMATIC:{tag}") };
            session.query_drop(format!("SET gtid_next = '{next}'")).await.unwrap();
            for _ in 0..5 {
                id += 1;
                session.query_drop(format!("INSERT INTO scratch VALUES ({id}, '{tag}')")).await.unwrap();
            }
        }
        match round {
            0 => gateway.kill9(),
            1 => assert_eq!(gateway.terminate(), Some(0)),
            _ => continue,
        }
        gateway.start_again().await;
    }
    let events = shop.assert_faithful().await;
    let tagged = events.iter().filter(|event| event.attribute("txid").contains(":blue:")).count();
    assert_eq!(tagged, 20, "{:?}", events.last());
    eventually("the replica has it all", PATIENCE, || async {
        let count: Option<u32> = replica
            .session()
            .await
            .query_first("SELECT COUNT(*) FROM shop.marks")
            .await
            .map_err(|e| e.to_string())?;
        if count == Some(1) { Ok(()) } else { Err(format!("{count:?}")) }
    })
    .await;
    // The same process goes over to the replica, whose places in the log are other ones.
    replica.execute(&["STOP REPLICA"]).await;
    drop(session);
    shop.server.stop();
    proxy.redirect(replica.port());
    eventually("the gateway reads from the replica", PATIENCE, || async {
        if gateway.log().contains("another server has taken over") { Ok(()) } else { Err(String::new()) }
    })
    .await;
    let mut session = replica.session().await;
    for statement in ["SET gtid_next = 'AUTOMATIC:blue'", "INSERT INTO scratch VALUES (1000, 'after')"] {
        session.query_drop(statement).await.unwrap();
    }
    assert_eq!(shop.assert_faithful_to(&replica).await.len(), events.len() + 2);
    eventually("it is caught up, by the replica's own places", PATIENCE, || async {
        let status = gateway.status().await["sources"][0].clone();
        if status["lag_bytes"] == 0 && status["lag_ms"] == 0 { Ok(()) } else { Err(status.to_string()) }
    })
    .await;
}

/// Without names in the log they are taken from the table as it is, and never from another one than was written.
async fn minimal_metadata(version: Version) {
    let Some(shop) = MySqlShop::with(version, &["--binlog-row-metadata=MINIMAL"]).await else { return };
    let mut gateway = shop.gateway().await;
    write(&shop.server, 71, 2, 60).join_all().await;
    shop.assert_faithful().await;
    assert_eq!(gateway.terminate(), Some(0));
    let before = stream::last_sequence(&shop.nats, STREAM).await;
    shop.server
        .execute(&["INSERT INTO scratch VALUES (7777, 'x')", "ALTER TABLE scratch ADD COLUMN more int FIRST"])
        .await;
    gateway.launch();
    eventually("the source stops", PATIENCE, || async {
        let source = gateway.status().await["sources"][0].clone();
        let text = source["last_error"].as_str().unwrap_or_default();
        if text.contains("scratch") && source["state"] == "stopped" {
            Ok(())
        } else {
            Err(source.to_string())
        }
    })
    .await;
    assert_eq!(stream::last_sequence(&shop.nats, STREAM).await, before, "nothing is told under wrong names");
    assert!(gateway.log().contains("binlog_row_metadata"), "it says what to do:\n{}", gateway.log());
}

#[tokio::test]
async fn rows_without_names_are_told_right_or_not_mysql() {
    minimal_metadata(Version::MySql97).await;
}

#[tokio::test]
async fn rows_without_names_are_told_right_or_not_mariadb() {
    minimal_metadata(Version::MariaDb1011).await;
}

/// Another server behind the address, which has nothing of what was read: a gap, and no event of its until that is accepted.
async fn another_server(version: Version) {
    let Some(shop) = MySqlShop::open(version).await else { return };
    let other = MySqlShop::with(version, &["--server-id=77"]).await.unwrap();
    let proxy = Proxy::start(shop.server.port()).await;
    let mut gateway = Gateway::start(&shop.settings_at(proxy.port())).await;
    write(&shop.server, 81, 2, 20).join_all().await;
    let told = shop.assert_faithful().await.len();
    other.server.execute(&["INSERT INTO scratch VALUES (1, 'another')"]).await;
    proxy.redirect(other.server.port());
    eventually("a gap event", PATIENCE, || async {
        match stream::read(&shop.nats, STREAM).await.last() {
            Some(event) if event.data.op == "gap" => Ok(()),
            last => Err(format!("the last is {last:?}")),
        }
    })
    .await;
    let accepted = gateway.command().args(["source", "accept-gap", "shop"]).output().unwrap();
    assert!(accepted.status.success(), "{accepted:?}");
    assert_eq!(gateway.terminate(), Some(0));
    gateway.start_again().await;
    let last = mark(&other.server).await;
    let events = stream::read_until(&shop.nats, STREAM, PATIENCE, |event| is_mark(event, &last)).await;
    let ops = events[told..].iter().map(|event| event.data.op.as_str());
    let ops: Vec<&str> = ops.filter(|op| *op != "schema").collect();
    assert_eq!(ops, ["gap", "created", "created"], "all that the other server still has");
    let ids: BTreeSet<&str> = events.iter().map(|event| event.attribute("id")).collect();
    assert_eq!(ids.len(), events.len(), "every event has an id of its own");
}

#[tokio::test]
async fn another_server_is_a_gap_mysql() {
    another_server(Version::MySql97).await;
}

#[tokio::test]
async fn another_server_is_a_gap_mariadb() {
    another_server(Version::MariaDb118).await;
}

/// A source that was dropped and added again says that it does not know what came between; `tail` shows what comes.
#[tokio::test]
async fn a_dropped_source_begins_anew() {
    let Some(shop) = MySqlShop::open(Version::MariaDb118).await else { return };
    let mut gateway = shop.gateway().await;
    shop.server.execute(&["INSERT INTO scratch VALUES (1, 'x')"]).await;
    shop.assert_faithful().await;
    let tail = gateway
        .command()
        .args(["tail", "shop.scratch", "--from", "start", "--count", "1", "--json"])
        .output()
        .unwrap();
    let event: serde_json::Value = serde_json::from_slice(&tail.stdout).unwrap();
    assert_eq!(event["data"]["after"]["value"], "x");
    assert_eq!(gateway.terminate(), Some(0));
    let dropped = gateway.command().args(["source", "drop", "shop", "--yes"]).output().unwrap();
    assert!(dropped.status.success(), "{dropped:?}");
    shop.server.execute(&["INSERT INTO scratch VALUES (2, 'unseen')"]).await;
    gateway.launch();
    eventually("a gap event", PATIENCE, || async {
        match stream::read(&shop.nats, STREAM).await.last() {
            Some(event) if event.data.op == "gap" => Ok(()),
            last => Err(format!("the last is {last:?}")),
        }
    })
    .await;
}
