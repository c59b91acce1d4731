//! What settings make of rows: columns hidden, rows filtered, outboxes, messages, semantic events.

use crate::support::{
    eventually,
    gateway::{Gateway, Settings},
    nats::Nats,
    postgres::Version,
    shop::{STREAM, Shop},
};
use serde_json::{Value, json};
use std::{path::Path, time::Duration};

const DEAD_LETTERS: &str = "EVENTS_dlq";

/// What a stream holds, as it is, as soon as that is `count` messages.
async fn held(nats: &Nats, stream: &str, count: u64) -> Vec<(String, Value)> {
    let jetstream = nats.jetstream().await;
    let stream = eventually("the stream holds it", Duration::from_secs(30), || async {
        let stream = jetstream.get_stream(stream).await.map_err(|error| error.to_string())?;
        let found = stream.cached_info().state.messages;
        if found >= count { Ok(stream) } else { Err(format!("{found} of {count}")) }
    })
    .await;
    let last = stream.cached_info().state.last_sequence;
    assert_eq!(last, count, "messages");
    let mut messages = Vec::new();
    for sequence in 1..=last {
        let message = stream.get_raw_message(sequence).await.unwrap();
        messages.push((message.subject.to_string(), serde_json::from_slice(&message.payload).unwrap()));
    }
    messages
}

fn types(events: &[(String, Value)]) -> Vec<&str> {
    events.iter().map(|(_, event)| event["type"].as_str().unwrap()).collect()
}

/// What `headgate check` says, and its exit code.
fn checked(gateway: &Gateway) -> (Option<i32>, String) {
    let output = gateway.command().arg("check").output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(said).unwrap())
}

/// The settings, statements and events that a page of the documentation shows.
struct Page {
    settings: String,
    statements: Vec<String>,
    events: Vec<String>,
}

impl Page {
    fn read(name: &str) -> Self {
        let text =
            std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(name)).unwrap();
        let block = |language: &str| {
            let (_, after) = text.split_once(&format!("\n```{language}\n")).expect(language);
            after.split_once("\n```").unwrap().0.to_owned()
        };
        let statements =
            block("sql").split(';').map(|sql| sql.trim().to_owned()).filter(|sql| !sql.is_empty()).collect();
        Self {
            settings: block("toml"),
            statements,
            events: block("text").lines().map(str::to_owned).collect(),
        }
    }

    /// Does what the page says; the stream then holds what it shows.
    async fn is_true(&self, version: Version) {
        let shop = Shop::with(version, Nats::start().await).await;
        let (definitions, changes): (Vec<_>, Vec<_>) = self
            .statements
            .iter()
            .partition(|statement| statement.starts_with("CREATE") || statement.starts_with("ALTER"));
        for statement in definitions {
            shop.postgres.execute(statement).await;
        }
        let settings = Settings { source_lines: self.settings.clone(), ..shop.settings() };
        let mut gateway = shop.gateway_with(&settings).await;
        let (code, said) = checked(&gateway);
        assert_eq!(code, Some(0), "{said}");
        for statement in changes {
            shop.postgres.execute(statement).await;
        }
        let told: Vec<_> = held(&shop.nats, STREAM, self.events.len() as u64).await;
        for ((_, event), line) in told.iter().zip(&self.events) {
            let [kind, subject, data] = line.splitn(3, ' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
            let data: Value = serde_json::from_str(data).unwrap();
            assert_eq!(
                (&event["type"], &event["subject"], &event["data"]),
                (&json!(kind), &json!(subject), &data)
            );
        }
        assert_eq!(gateway.terminate(), Some(0));
    }
}

#[tokio::test]
async fn the_page_on_semantic_events() {
    Page::read("semantic-events.md").is_true(Version::Pg15).await;
}

#[tokio::test]
async fn the_page_on_outboxes() {
    Page::read("outbox.md").is_true(Version::Pg18).await;
}

#[tokio::test]
async fn the_page_on_columns_and_rows() {
    Page::read("columns-and-rows.md").is_true(Version::Pg15).await;
}

const EVERYTHING: &str = "
mask_salt = \"0123456789abcdef\"
messages = [\"*\", \"!noise.*\"]

[sources.shop.columns.\"public.deals\"]
exclude = [\"secret\"]
mask = { owner = \"hash\" }

[[sources.shop.event]]
name = \"deal.stage_changed\"
table = \"public.deals\"
when = \"before.stage != after.stage\"

[[sources.shop.event]]
name = \"deal.checked\"
table = \"public.deals\"
when = \"int(after.stage) > 5\"

[[sources.shop.outbox]]
table = \"public.outbox\"
";

/// The gateway is killed again and again while all kinds of events are written: each comes once, in order, under the same
/// numbers, and nothing hidden comes to light.
async fn everything_comes_once(version: Version) {
    const DEALS: u64 = 60;
    let shop = Shop::with(version, Nats::start().await).await;
    shop.postgres
        .execute(
            "CREATE TABLE deals (id bigint PRIMARY KEY, stage text, owner text, secret text);
             ALTER TABLE deals REPLICA IDENTITY FULL;
             CREATE TABLE outbox (id uuid, type text, payload bytea)",
        )
        .await;
    let settings = Settings { source_lines: EVERYTHING.to_owned(), ..shop.settings() };
    let mut gateway = shop.gateway_with(&settings).await;
    for id in 0..DEALS {
        // One failing condition in each transaction, and the outbox emptied where it was filled.
        shop.postgres
            .execute(&format!(
                "BEGIN;
                 INSERT INTO deals VALUES ({id}, '7', 'ann hidden', 'very hidden');
                 UPDATE deals SET stage = 'won hidden' WHERE id = {id};
                 SELECT pg_logical_emit_message(true, 'deal.noted', '{{\"deal\": {id}}}');
                 SELECT pg_logical_emit_message(true, 'noise.any', 'x');
                 INSERT INTO outbox VALUES (gen_random_uuid(), 'deal.told', '\\xff');
                 UPDATE outbox SET type = 'silent';
                 DELETE FROM outbox;
                 COMMIT"
            ))
            .await;
        if id % 20 == 10 {
            gateway.kill9();
        }
        if id % 20 == 15 {
            gateway.start_again().await;
        }
    }
    // In each transaction: created, checked, updated, stage_changed, a dead letter, a message, a letter.
    let events = held(&shop.nats, STREAM, DEALS * 6).await;
    for (id, events) in (0..DEALS).zip(events.chunks(6)) {
        let expected = [
            "shop.deals.created",
            "shop.deal.checked",
            "shop.deals.updated",
            "shop.deal.stage_changed",
            "shop.deal.noted",
            "shop.deal.told",
        ];
        assert_eq!(types(events), expected, "{id}");
        let numbers: Vec<_> = events.iter().map(|(_, event)| event["txindex"].as_u64().unwrap()).collect();
        assert_eq!(numbers, [0, 1, 2, 3, 4, 5], "{id}");
        assert_eq!(events[5].1["txlast"], true, "{id}");
        assert_eq!(events[4].1["data"]["content"], json!({"deal": id}));
        assert_eq!(events[5].1["data_base64"], "/w==");
        assert_eq!(events[3].1["subject"], format!("deal/{id}"));
        assert_eq!(events[2].1["data"]["before"]["owner"].as_str().map(str::len), Some(64));
        assert!(events[5].0.starts_with("events.shop.deal.told."), "{}", events[5].0);
    }
    let order: Vec<_> = events.iter().map(|(_, event)| event["sequence"].as_str().unwrap()).collect();
    assert!(order.is_sorted());
    let letters = held(&shop.nats, DEAD_LETTERS, DEALS).await;
    assert!(letters.iter().all(|(_, letter)| letter["data"]["reason"] == "condition"));
    let detail = letters[0].1["data"]["detail"].as_str().unwrap();
    assert!(detail.contains("deal.checked") && !detail.contains("hidden"), "{detail}");
    assert_eq!(gateway.terminate(), Some(0));
    for told in [format!("{events:?}"), format!("{letters:?}"), gateway.log()] {
        assert!(!told.contains("ann hidden") && !told.contains("very hidden"), "a hidden value was told");
    }
    assert!(!gateway.log().contains("won hidden"), "a row's value is in the log");
}

#[tokio::test]
async fn everything_comes_once_from_postgres_15() {
    everything_comes_once(Version::Pg15).await;
}

#[tokio::test]
async fn everything_comes_once_from_postgres_18() {
    everything_comes_once(Version::Pg18).await;
}

async fn row_filters(version: Version) {
    let shop = Shop::with(version, Nats::start().await).await;
    shop.postgres
        .execute(
            "CREATE TABLE leads (tenant bigint, id bigint, n bigint, PRIMARY KEY (tenant, id));
             CREATE TABLE logs (tenant bigint, line text);
             CREATE TABLE parts (tenant bigint, id bigint, PRIMARY KEY (tenant, id)) PARTITION BY RANGE (id);
             CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (100)",
        )
        .await;
    let filtered = |condition: &str| Settings {
        source_lines: format!(
            "[sources.shop.where]\n\"public.leads\" = \"{condition}\"\n\"public.logs\" = \"tenant = 7 -- ours\"\n\"public.parts\" = \"tenant = 7\"\n"
        ),
        ..shop.settings()
    };
    let mut gateway = shop.gateway_with(&filtered("tenant = 7")).await;
    let (code, said) = checked(&gateway);
    assert_eq!(code, Some(0), "{said}");
    let changes = [
        "INSERT INTO leads VALUES (7, 1, 0), (8, 1, 0)",
        "UPDATE leads SET n = 1",
        "UPDATE leads SET tenant = 9 WHERE tenant = 7",
        "UPDATE leads SET tenant = 7 WHERE tenant = 8",
        "DELETE FROM leads",
        "INSERT INTO logs VALUES (7, 'a'), (8, 'b')",
        "UPDATE logs SET line = 'c'",
        "INSERT INTO parts VALUES (7, 1), (8, 2)",
        "UPDATE parts SET id = id + 10",
    ];
    for change in changes {
        shop.postgres.execute(change).await;
    }
    let events = held(&shop.nats, STREAM, 9).await;
    assert_eq!(
        types(&events),
        [
            "shop.leads.created",
            "shop.leads.updated",
            "shop.leads.deleted",
            "shop.leads.created",
            "shop.leads.deleted",
            "shop.logs.created",
            "shop.parts.created",
            "shop.parts.deleted",
            "shop.parts.created",
        ]
    );
    assert!(events.iter().all(|(_, event)| !event["subject"].as_str().unwrap().contains("/8")), "{events:?}");
    assert_eq!(gateway.terminate(), Some(0));

    // Another condition is put in place by the next start, and says the same as itself after that.
    for condition in ["tenant IN (7, 8)", "tenant IN (7, 8)", "tenant > 100"] {
        let mut gateway = shop.gateway_with(&filtered(condition)).await;
        let changed = gateway.log().contains("change the row filter of table public.leads");
        gateway.terminate();
        let published: String = shop
            .postgres
            .client()
            .await
            .query_one("SELECT rowfilter FROM pg_publication_tables WHERE tablename = 'leads'", &[])
            .await
            .unwrap()
            .get(0);
        assert_eq!(published.contains('8'), condition.contains('8'), "{published}");
        assert!(changed || condition.contains('8'), "{}", gateway.log());
    }
}

#[tokio::test]
async fn row_filters_of_postgres_15() {
    row_filters(Version::Pg15).await;
}

#[tokio::test]
async fn row_filters_of_postgres_18() {
    row_filters(Version::Pg18).await;
}

/// Starts a gateway that has to refuse; what it says, and what `check` says.
async fn refused(shop: &Shop, source_lines: &str) -> (String, String) {
    let settings = Settings { source_lines: source_lines.to_owned(), ..shop.settings() };
    let mut gateway = Gateway::configure(&settings);
    let (code, said) = checked(&gateway);
    assert_eq!(code, Some(69), "{said}");
    gateway.launch();
    let told = eventually("the source has stopped", Duration::from_secs(20), || async {
        let status = gateway.status().await;
        let source = &status["sources"][0];
        if source["state"] == "stopped" { Ok(source.to_string()) } else { Err(status.to_string()) }
    })
    .await;
    assert_eq!(gateway.terminate(), Some(0));
    (told, said)
}

/// A setting that does not fit the tables stops the source before anything is told or published.
#[tokio::test]
async fn settings_that_do_not_fit_are_refused() {
    let shop = Shop::with(Version::Pg15, Nats::start().await).await;
    shop.postgres
        .execute(
            "CREATE TABLE deals (id bigint PRIMARY KEY, stage text); INSERT INTO deals VALUES (1, 'lead');
             CREATE TABLE box (id bigint PRIMARY KEY, kind text)",
        )
        .await;
    let event = "[[sources.shop.event]]\nname = \"deal.won\"\ntable = \"public.deals\"\nwhen = ";
    for (settings, expected) in [
        ("[sources.shop.where]\n\"public.deals\" = \"stage = 'x'\"\n", "REPLICA IDENTITY FULL"),
        ("[sources.shop.where]\n\"public.deals\" = \"stagee = 'x'\"\n", "stagee"),
        ("[sources.shop.where]\n\"public.dealz\" = \"true\"\n", "public.dealz"),
        ("[sources.shop.columns.\"public.deals\"]\nexclude = [\"id\"]\n", "hash"),
        ("[sources.shop.columns.\"public.deals\"]\nmask = { stagee = \"redact\" }\n", "no column stagee"),
        ("[sources.shop.columns.\"public.dealz\"]\nexclude = [\"id\"]\n", "public.dealz"),
        ("[[sources.shop.outbox]]\ntable = \"public.box\"\n", "lacks a column type"),
        (&format!("{event}\"after.stagee == 'won'\"\n"), "did you mean stage?"),
    ] {
        let (told, said) = refused(&shop, settings).await;
        assert!(said.contains(expected), "{settings}: {said}");
        assert!(told.contains(expected), "{settings}: {told}");
        shop.postgres.execute("UPDATE deals SET stage = stage || '!'").await;
    }
    let settings =
        Settings { source_lines: format!("{event}\"before.stage != after.stage\"\n"), ..shop.settings() };
    let (code, said) = checked(&Gateway::configure(&settings));
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("REPLICA IDENTITY FULL") && said.contains("old row"), "{said}");
    let settings = Settings { source_lines: format!("{event}\"before.stage !=\"\n"), ..shop.settings() };
    let (code, said) = checked(&Gateway::configure(&settings));
    assert_eq!(code, Some(64), "{said}");
    assert!(said.contains("at column 16") && said.contains("sources.shop.event.when"), "{said}");
}

/// A masked column is renamed under a running gateway: nothing is told under the new name, before a restart or after.
#[tokio::test]
async fn a_renamed_column_stays_hidden() {
    let shop = Shop::open().await;
    shop.postgres.execute("CREATE TABLE people (id bigint PRIMARY KEY, email text)").await;
    let lines = "[sources.shop.columns.\"public.people\"]\nmask = { email = \"redact\" }\n";
    let settings = Settings { source_lines: lines.to_owned(), ..shop.settings() };
    let mut gateway = shop.gateway_with(&settings).await;
    shop.postgres.execute("INSERT INTO people VALUES (1, 'ann@example.com')").await;
    held(&shop.nats, STREAM, 1).await;
    shop.postgres.execute("ALTER TABLE people RENAME email TO mail").await;
    shop.postgres.execute("INSERT INTO people VALUES (2, 'ann@example.com')").await;
    for _ in 0..2 {
        eventually("the source has stopped", Duration::from_secs(20), || async {
            let status = gateway.status().await;
            let stopped =
                status["sources"][0]["state"] == "stopped" && status.to_string().contains("no column email");
            if stopped { Ok(()) } else { Err(status.to_string()) }
        })
        .await;
        gateway.kill9();
        gateway.launch();
    }
    gateway.kill9();
    let events = held(&shop.nats, STREAM, 1).await;
    assert!(!format!("{events:?}{}", gateway.log()).contains("ann@"));

    let lines = format!("{}{}", lines.replace("email", "mail"), lines.replace("public.people", "*.people"));
    let _gateway = shop.gateway_with(&Settings { source_lines: lines, ..shop.settings() }).await;
    let events = held(&shop.nats, STREAM, 3).await;
    assert_eq!(events[1].1["data"]["changes"], json!(["- email", "+ mail: text"]));
    assert_eq!(events[2].1["data"]["after"], json!({"id": 2, "mail": "[redacted]"}));
}
