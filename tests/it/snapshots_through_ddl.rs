//! Tables that are altered, replaced and emptied while a snapshot reads them: no row of them is left out, and the stream still gives
//! the tables exactly.

use crate::support::{
    eventually,
    gateway::Settings,
    nats::Nats,
    postgres::Version,
    shop::{STREAM, Shop},
    snapshots, stream,
    workload::{self, Load},
};
use std::{collections::BTreeSet, time::Duration};
use tokio::time::sleep;

const IN_TIME: Duration = Duration::from_secs(40);

/// An initial snapshot that is slow enough to be interfered with.
fn initial(shop: &Shop, rate: u32) -> Settings {
    Settings { snapshot: "initial", source_lines: format!("snapshot_rate = {rate}\n"), ..shop.settings() }
}

/// What snapshots told of one column of a table, each value once.
async fn told(shop: &Shop, table: &str, column: &str) -> BTreeSet<String> {
    let events = stream::read(&shop.nats, STREAM).await;
    let rows = events.iter().filter(|event| event.data.op == "snapshot" && event.data.table == table);
    rows.filter_map(|event| event.data.after.as_ref()?.get(column).cloned()).collect()
}

async fn are_told(shop: &Shop, table: &str, column: &str, rows: usize) {
    eventually("the rows are told", IN_TIME, || async {
        let found = told(shop, table, column).await.len();
        if found == rows { Ok(()) } else { Err(format!("{found} of {rows} rows of {table}")) }
    })
    .await;
}

async fn begins(shop: &Shop, table: &str, column: &str) {
    eventually("the snapshot is on its way", IN_TIME, || async {
        let found = told(shop, table, column).await.len();
        if found > 200 { Ok(()) } else { Err(found.to_string()) }
    })
    .await;
}

/// Rows that a table has before it is published are in nobody's log: also where it takes the name of one that was.
async fn another_table_of_the_same_name(version: Version) {
    let shop = Shop::with(version, Nats::start().await).await;
    shop.postgres.execute("CREATE TABLE things (id integer PRIMARY KEY, v text)").await;
    shop.postgres.execute("INSERT INTO things SELECT n, 'first' FROM generate_series(1, 50) n").await;
    let settings = Settings {
        snapshot: "initial",
        source_lines: "tables = [\"public.*\", \"!public.things_*\"]\n".to_owned(),
        ..shop.settings()
    };
    let mut gateway = shop.gateway_with(&settings).await;
    snapshots::are_done(&gateway, 1).await;
    let anew = |from: u32| {
        format!(
            "DELETE FROM things; \
             BEGIN; DROP TABLE things; CREATE TABLE things (id integer PRIMARY KEY, v text); \
             INSERT INTO things SELECT n, 'anew' FROM generate_series({from}, {from} + 299) n; COMMIT"
        )
    };
    shop.postgres.execute(&anew(1_000)).await;
    are_told(&shop, "public.things", "id", 350).await;
    shop.postgres.execute("UPDATE things SET v = 'changed' WHERE id % 7 = 0").await;
    shop.assert_faithful().await;
    // The same while nobody looks.
    assert_eq!(gateway.terminate(), Some(0));
    shop.postgres.execute(&anew(2_000)).await;
    gateway.start_again().await;
    are_told(&shop, "public.things", "id", 650).await;
    // As tools do that copy a table and swap it.
    shop.postgres
        .execute(
            "CREATE TABLE things_new (LIKE things INCLUDING ALL); \
             INSERT INTO things_new SELECT id + 1000, 'copied' FROM things; DELETE FROM things; \
             BEGIN; DROP TABLE things; ALTER TABLE things_new RENAME TO things; COMMIT",
        )
        .await;
    are_told(&shop, "public.things", "id", 950).await;
    shop.assert_faithful().await;
    // That is all: a restart finds nothing new.
    snapshots::are_done(&gateway, 1).await;
    let held = stream::last_sequence(&shop.nats, STREAM).await;
    gateway.kill9();
    gateway.start_again().await;
    shop.assert_faithful().await;
    // The oracle's mark alone came after.
    assert_eq!(stream::last_sequence(&shop.nats, STREAM).await, held + 1);
    assert_eq!(gateway.terminate(), Some(0));
}

#[tokio::test]
async fn another_table_of_the_same_name_15() {
    another_table_of_the_same_name(Version::Pg15).await;
}

#[tokio::test]
async fn another_table_of_the_same_name_18() {
    another_table_of_the_same_name(Version::Pg18).await;
}

/// How far a table is read is a key; where another key takes its place, that says nothing any more.
#[tokio::test]
async fn another_key_in_the_middle_of_a_table() {
    const ROWS: usize = 3_000;
    for (alter, killed) in [
        // The new order is the old one backwards: nothing lies behind the place where the walk was.
        ("ALTER TABLE codes DROP CONSTRAINT codes_pkey, ADD PRIMARY KEY (code)", false),
        ("ALTER TABLE codes DROP CONSTRAINT codes_pkey, ADD PRIMARY KEY (code)", true),
        ("ALTER TABLE codes DROP CONSTRAINT codes_pkey, ADD PRIMARY KEY (id, code)", false),
        ("ALTER TABLE codes ALTER COLUMN id TYPE text", false),
        ("ALTER TABLE codes DROP CONSTRAINT codes_pkey", false),
        ("ALTER TABLE codes RENAME COLUMN code TO label", false),
    ] {
        let shop = Shop::open().await;
        shop.postgres
            .execute(&format!(
                "CREATE TABLE codes (id integer PRIMARY KEY, code text NOT NULL); \
                 INSERT INTO codes SELECT n, 'c' || 99999 - n FROM generate_series(1, {ROWS}) n"
            ))
            .await;
        let mut gateway = shop.gateway_with(&initial(&shop, 1_500)).await;
        begins(&shop, "public.codes", "id").await;
        if killed {
            gateway.kill9();
        }
        shop.postgres.execute(alter).await;
        if killed {
            gateway.start_again().await;
        }
        snapshots::are_done(&gateway, 1).await;
        let ids: BTreeSet<String> = told(&shop, "public.codes", "id")
            .await
            .iter()
            .map(|id| id.trim_matches('"').to_owned())
            .collect();
        assert_eq!(ids.len(), ROWS, "{alter}, killed: {killed}");
        assert_eq!(gateway.terminate(), Some(0));
    }
}

/// A table that is away for a moment is not one that has been read.
#[tokio::test]
async fn a_table_that_is_renamed_and_comes_back() {
    let shop = Shop::open().await;
    shop.postgres
        .execute(
            "CREATE TABLE codes (id integer PRIMARY KEY); INSERT INTO codes SELECT generate_series(1, 3000)",
        )
        .await;
    let mut gateway = shop.gateway_with(&initial(&shop, 1_500)).await;
    begins(&shop, "public.codes", "id").await;
    shop.postgres.execute("ALTER TABLE codes RENAME TO gone").await;
    sleep(Duration::from_millis(700)).await;
    shop.postgres.execute("ALTER TABLE gone RENAME TO codes").await;
    are_told(&shop, "public.codes", "id", 3_000).await;
    assert_eq!(gateway.terminate(), Some(0));
}

/// Everything at once, and the gateway killed in the middle of it.
async fn all_kinds_of_ddl(version: Version, seed: u64) {
    let shop = Shop::with(version, Nats::start().await).await;
    workload::start(&Load::new(shop.postgres.url(), seed)).finish().await;
    shop.postgres
        .execute("CREATE TABLE archive (id integer PRIMARY KEY, body text); INSERT INTO archive SELECT n, 'x' || n FROM generate_series(1, 3000) n")
        .await;
    let mut gateway = shop.gateway_with(&initial(&shop, 1_500)).await;
    let writing = workload::start(&Load::steady(shop.postgres.url(), seed + 1));
    for round in 0..4 {
        for statement in [
            format!("ALTER TABLE orders ADD COLUMN extra{round} integer DEFAULT {round}"),
            format!("ALTER TABLE archive ADD COLUMN extra{round} integer"),
            format!("ALTER TABLE orders RENAME COLUMN extra{round} TO kept{round}"),
            format!("ALTER TABLE documents ADD COLUMN passing{round} text DEFAULT 'p'"),
            format!("ALTER TABLE documents DROP COLUMN passing{round}"),
            "ALTER TABLE labels ALTER COLUMN color TYPE varchar(40)".to_owned(),
            "TRUNCATE order_lines".to_owned(),
            format!("UPDATE archive SET extra{round} = id WHERE id % 10 = {round}"),
        ] {
            shop.postgres.execute(&statement).await;
            sleep(Duration::from_millis(30)).await;
        }
        if round == 1 {
            gateway.kill9();
            gateway.start_again().await;
        }
    }
    snapshots::are_done(&gateway, 1).await;
    writing.stop().await;
    assert_eq!(told(&shop, "public.archive", "id").await.len(), 3_000);
    // Rows that were told before a column came do not have it: read again, everything is as it is.
    let (code, answer, said) = snapshots::ask(&gateway, &[]);
    assert_eq!((code, &answer["state"]), (Some(0), &"done".into()), "{said}");
    shop.assert_faithful().await;
    assert_eq!(gateway.status().await["sources"][0]["errors"], 0);
    assert_eq!(gateway.terminate(), Some(0));
}

#[tokio::test]
async fn all_kinds_of_ddl_15() {
    all_kinds_of_ddl(Version::Pg15, 90).await;
}

#[tokio::test]
async fn all_kinds_of_ddl_18() {
    all_kinds_of_ddl(Version::Pg18, 92).await;
}
