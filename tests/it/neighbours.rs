//! Others write to the same server, or the way to it is bad: the database keeps no log for us that we have no use for.

use crate::support::{
    postgres::connect,
    proxy::Proxy,
    shop::{SLOT, STREAM, Shop},
    stream,
};
use std::time::Duration;
use tokio::time::sleep;

/// Without heartbeats, which would move a silent log by themselves.
async fn log_moves_on(write: impl AsyncFn(&Shop)) {
    let shop = Shop::open().await;
    let mut settings = shop.settings_with("confirm_delay = \"0s\"\n");
    settings.source_lines = "tables = [\"public.*\", \"!public.noise*\"]\nheartbeat = \"off\"\n".to_owned();
    shop.postgres.execute("CREATE TABLE noise (n integer)").await;
    let _gateway = shop.gateway_with(&settings).await;
    shop.assert_faithful_however_small().await;
    let held = stream::read(&shop.nats, STREAM).await.len();
    for _ in 0..3 {
        write(&shop).await;
        shop.postgres.slot_has_confirmed(SLOT, shop.postgres.end_of_log().await).await;
    }
    assert_eq!(stream::read(&shop.nats, STREAM).await.len(), held);
    shop.assert_faithful_however_small().await;
}

#[tokio::test]
async fn only_tables_that_are_not_captured_change() {
    log_moves_on(async |shop| {
        shop.postgres.execute("TRUNCATE noise; INSERT INTO noise SELECT generate_series(1, 20000)").await;
    })
    .await;
}

#[tokio::test]
async fn only_another_database_changes() {
    log_moves_on(async |shop| {
        let client = shop.postgres.client().await;
        // There already the second time.
        let _ = client.batch_execute("CREATE DATABASE neighbour").await;
        let neighbour = connect(&shop.postgres.url_of("neighbour")).await.unwrap();
        neighbour
            .batch_execute(
                "CREATE TABLE IF NOT EXISTS t (n integer); INSERT INTO t SELECT generate_series(1, 20000)",
            )
            .await
            .unwrap();
    })
    .await;
}

/// The delay is not counted anew with each connection.
#[tokio::test]
async fn log_is_released_though_connections_live_shorter_than_the_delay() {
    let shop = Shop::open().await;
    let proxy = Proxy::start(shop.postgres.port()).await;
    let mut settings = shop.settings_with("confirm_delay = \"6s\"\n");
    settings.source =
        settings.source.replace(&format!(":{}/", shop.postgres.port()), &format!(":{}/", proxy.port()));
    shop.postgres.execute("CREATE TABLE early (n integer PRIMARY KEY)").await;
    let _gateway = shop.gateway_with(&settings).await;
    shop.postgres.execute("INSERT INTO early SELECT generate_series(1, 100)").await;
    shop.assert_faithful_however_small().await;
    let told = shop.postgres.end_of_log().await;
    for n in 101..107 {
        sleep(Duration::from_secs(2)).await;
        proxy.drop_connections();
        shop.postgres.slot_is_active(SLOT).await;
        shop.postgres.execute(&format!("INSERT INTO early VALUES ({n})")).await;
    }
    let client = shop.postgres.client().await;
    let sql = "SELECT (confirmed_flush_lsn - '0/0')::int8 FROM pg_replication_slots WHERE slot_name = $1";
    let confirmed: i64 = client.query_one(sql, &[&SLOT]).await.unwrap().get(0);
    assert!(confirmed >= told, "{confirmed:X} is confirmed, {told:X} was told long ago");
    shop.assert_faithful_however_small().await;
}
