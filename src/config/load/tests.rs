#![allow(clippy::unwrap_used, clippy::panic)]
use super::*;

const SECRET: &str = "hunter2";

fn environment(name: &str) -> Option<String> {
    match name {
        "PASSWORD" => Some(SECRET.to_owned()),
        "PORT" => Some("8080".to_owned()),
        _ => None,
    }
}

fn load_text(text: &str) -> Result<Config, ConfigError> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("config.toml");
    std::fs::write(&path, text).unwrap();
    load(&path, &environment)
}

/// The rendered error, with the file's directory taken off.
fn wrong(text: &str) -> String {
    let error = match load_text(text) {
        Ok(config) => panic!("it was accepted: {config:?}"),
        Err(error) => error,
    };
    assert!(!error.problems().is_empty());
    let shown = error.to_string();
    assert!(!shown.contains(SECRET) && !format!("{error:?}").contains(SECRET), "a secret shows in {shown}");
    shown
        .lines()
        .map(|line| {
            line.split_once("/config.toml")
                .map_or(line, |(_, rest)| rest)
                .trim_start_matches([':', ' '])
                .to_owned()
        })
        .collect::<Vec<_>>()
        .join("\n")
}

const SMALLEST: &str = r#"
[nats]
url = "nats://127.0.0.1:4222"

[sources.shop]
connector = "postgres"
url = "postgres://cdc:${PASSWORD}@db:5432/shop"
tables = ["public.*"]
"#;

/// The smallest useful file with one line more under a section.
fn with(section: &str, line: &str) -> String {
    if SMALLEST.contains(section) {
        SMALLEST.replace(section, &format!("{section}\n{line}"))
    } else {
        format!("{SMALLEST}{section}\n{line}\n")
    }
}

#[test]
fn smallest_file_gets_every_default() {
    let config = load_text(SMALLEST).unwrap();
    assert_eq!(config.gateway.name, "headgate");
    assert_eq!(config.gateway.data_dir, Path::new("./headgate-data"));
    assert_eq!((config.gateway.partitions, config.gateway.memory), (16, 16 << 20));
    assert_eq!(config.gateway.shutdown_grace, Duration::from_secs(30));
    assert_eq!(config.nats.server, Server::Remote(vec!["nats://127.0.0.1:4222".to_owned()]));
    assert_eq!((config.nats.mode, config.nats.publish), (Mode::Structured, Publish::Chain));
    assert_eq!(config.nats.subject, "events.{source}.{entity}.{verb}.{partition}");
    assert_eq!((config.nats.confirm_delay, config.nats.window), (None, 2048));
    assert_eq!(config.nats.ack_timeout, Duration::from_secs(2));
    assert_eq!((config.nats.stream.memory, config.nats.stream.replicas), (false, 1));
    assert_eq!((config.nats.stream.max_age, config.nats.stream.max_bytes), (Duration::ZERO, None));
    assert_eq!(config.http.listen.to_string(), "127.0.0.1:8080");
    assert_eq!(config.admin.listen.to_string(), "127.0.0.1:9090");
    let Connector::Postgres(postgres) = &config.sources["shop"].connector else { panic!("not PostgreSQL") };
    assert_eq!(postgres.url, "postgres://cdc:hunter2@db:5432/shop");
    assert_eq!(postgres.heartbeat, Some(Duration::from_secs(30)));
    assert!(!format!("{config:?}").contains(SECRET));
}

#[test]
fn every_setting_is_read() {
    let directory = tempfile::tempdir().unwrap();
    let secret = directory.path().join("secret");
    std::fs::write(&secret, "postgres://cdc:from-file@db/shop\n").unwrap();
    let config = load_text(&format!(
        r#"
[gateway]
name = "g1"
data_dir = "/var/lib/headgate"
partitions = "${{PARTITIONS:-64}}"
shutdown_grace = "5s"
memory = "64MiB"
[nats]
url = ["nats://a:4222", "tls://b"]
user = "u"
password = "${{PASSWORD}}"
mode = "binary"
publish = "atomic"
subject = "events.{{source}}.{{column:tenant id}}.{{entity}}.{{verb}}.p{{partition}}"
confirm_delay = "0"
window = 100
ack_timeout = "500ms"
[nats.tls]
ca = "/ca.pem"
[nats.stream]
storage = "memory"
replicas = 3
max_age = "7d"
max_bytes = 1_000_000
[http]
listen = "0.0.0.0:${{PORT}}"
public_url = "https://example.com"
[admin]
listen = "[::1]:9091"
[sources.shop-2]
connector = "postgres"
url = {{ file = "{}" }}
tables = ["*.*", "!audit.*"]
publication = "p"
slot = "s"
failover = true
partition_root = false
heartbeat = "off"
max_row = "1MiB"
connect_timeout = "1s"
slot_timeout = "1m"
uri = "urn:x"
type_prefix = "com.example"
on_gap = "stop"
on_incompatible = "stop"
snapshot = "never"
entities = {{ "public.orders" = "order" }}
"#,
        secret.display()
    ))
    .unwrap();
    assert_eq!((config.gateway.partitions, config.gateway.memory), (64, 64 << 20));
    assert_eq!(config.nats.server.to_string(), "nats://a:4222,tls://b");
    assert!(matches!(&config.nats.auth, Auth::Password(user, password) if user == "u" && password == SECRET));
    assert!(config.nats.tls.required, "certificates mean TLS");
    assert_eq!(config.nats.confirm_delay, Some(Duration::ZERO));
    assert_eq!(config.nats.stream.max_age, Duration::from_secs(7 * 86_400));
    assert_eq!(config.http.listen.to_string(), "0.0.0.0:8080");
    let source = &config.sources["shop-2"];
    assert_eq!(source.entities["public.orders"], "order");
    assert_eq!(source.on_incompatible, crate::config::OnIncompatible::Stop);
    let Connector::Postgres(postgres) = &source.connector else { panic!("not PostgreSQL") };
    assert_eq!(postgres.url, "postgres://cdc:from-file@db/shop", "the newline is trimmed");
    assert_eq!((postgres.heartbeat, postgres.max_row), (None, 1 << 20));
}

#[test]
fn localhost_is_this_machine() {
    let config = load_text(&format!("{SMALLEST}\n[admin]\nlisten = \"localhost:9191\"\n")).unwrap();
    assert_eq!(config.admin.listen.to_string(), "127.0.0.1:9191");
}

#[test]
fn embedded_server_and_lists_of_servers() {
    let config = load_text(&SMALLEST.replace("nats://127.0.0.1:4222", "embedded")).unwrap();
    let Server::Embedded(embedded) = config.nats.server else { panic!() };
    assert_eq!(embedded.listen.to_string(), "127.0.0.1:4222");
    assert_eq!(embedded.sync_interval, Duration::from_secs(1));
    let config = load_text(&SMALLEST.replace("nats://127.0.0.1:4222", "nats://a:1, b:2")).unwrap();
    assert_eq!(config.nats.server, Server::Remote(vec!["nats://a:1".to_owned(), "b:2".to_owned()]));
}

#[test]
fn unknown_keys_name_line_key_and_the_nearest() {
    assert_eq!(
        wrong(&SMALLEST.replace("tables", "tabels")),
        "8: sources.shop.tabels: unknown key; did you mean \"tables\"?"
    );
    assert_eq!(wrong(&with("[nats]", "strem = 1")), "3: nats.strem: unknown key; did you mean \"stream\"?");
    assert_eq!(
        wrong(&SMALLEST.replace("[sources.shop]", "[source.shop]")),
        "sources: there is no source; add a section [sources.NAME]\n5: source: unknown key; did you mean \"sources\"?"
    );
    assert_eq!(wrong(&with("[admin]", "colour = 1")), "10: admin.colour: unknown key; known here: listen");
}

#[test]
fn wrong_types_say_what_is_expected() {
    assert_eq!(
        wrong(&SMALLEST.replace("[\"public.*\"]", "\"public.*\"")),
        "8: sources.shop.tables: expected an array of strings, found a string"
    );
    assert_eq!(
        wrong(&with("[gateway]", "partitions = \"16\"")),
        "10: gateway.partitions: expected a whole number from 1 to 65536, found a string"
    );
    assert_eq!(
        wrong(&with("[gateway]", "partitions = -1")),
        "10: gateway.partitions: expected a whole number from 1 to 65536"
    );
    assert_eq!(
        wrong(&with("[gateway]", "shutdown_grace = 30")),
        "10: gateway.shutdown_grace: expected a duration like \"500ms\", \"30s\", \"5m\", \"24h\" or \"7d\", found a whole number"
    );
    assert_eq!(
        wrong(&with("[gateway]", "memory = \"many\"")),
        "10: gateway.memory: expected a size like \"64MiB\", \"1GB\" or a number of bytes, found \"many\""
    );
    assert_eq!(
        wrong(&with("[http]", "listen = \"localhost\"")),
        "10: http.listen: expected an address like \"127.0.0.1:8080\", found \"localhost\""
    );
    assert_eq!(
        wrong(&with("[nats]", "mode = \"binry\"")),
        "3: nats.mode: expected \"structured\" or \"binary\", found \"binry\"; did you mean \"binary\"?"
    );
    assert_eq!(
        wrong(&with("[nats]", "stream = 1")),
        "3: nats.stream: expected a section [nats.stream], found a whole number"
    );
}

#[test]
fn unset_variables_are_named_and_values_of_set_ones_are_not() {
    assert_eq!(
        wrong(&SMALLEST.replace("PASSWORD", "SHOP_PASSWORD")),
        "7: sources.shop.url: the environment variable SHOP_PASSWORD is not set; set it, or give a default: ${NAME:-default}"
    );
    assert_eq!(
        wrong(&with("[http]", "listen = \"${PASSWORD}\"")),
        "10: http.listen: expected an address like \"127.0.0.1:8080\", found \"${PASSWORD}\""
    );
    assert_eq!(
        wrong(&SMALLEST.replace("nats://127.0.0.1:4222", "nats://${PASSWORD}:${PASSWORD}@h:x")),
        "3: nats.url: is not the URL of a nats server; url = \"nats://127.0.0.1:4222\", or \"embedded\" for a server of Headgate's own"
    );
}

#[test]
fn secrets_never_show_whatever_is_wrong() {
    let wrong_url = "is not a PostgreSQL URL; write it as postgres://user:password@host:5432/database, with every special character of the password percent-encoded";
    assert_eq!(
        wrong(&SMALLEST.replace("postgres://", "mysql://")),
        format!("7: sources.shop.url: {wrong_url}")
    );
    assert_eq!(
        wrong(&SMALLEST.replace("/shop\"", "/shop?sslmod=require\"")),
        "7: sources.shop.url: the url of the source cannot be read: invalid connection string: unknown option `sslmod`; \
         url = \"postgres://user:password@host:5432/database?sslmode=verify-full\""
    );
    for (from, to) in [("@db:5432", "@@db:5432"), (":5432", ":x5432"), ("/shop\"", "/\""), ("cdc:", "c%zz:")]
    {
        wrong(&SMALLEST.replace(from, to).replace("${PASSWORD}", SECRET));
    }
    assert_eq!(
        wrong(&SMALLEST.replace("${PASSWORD}@db:5432/shop\"", SECRET)),
        "7: invalid basic string, expected `\"`"
    );
    assert_eq!(
        wrong(
            &SMALLEST.replace(
                "url = \"postgres://cdc:${PASSWORD}@db:5432/shop\"",
                &format!("url = [\"{SECRET}\"]")
            )
        ),
        "7: sources.shop.url: expected a string or { file = \"…\" }, found an array"
    );
    assert_eq!(
        wrong(&with("[nats]", "token = { file = \"/none\" }")),
        "3: nats.token: the file cannot be read: No such file or directory (os error 2)"
    );
    assert_eq!(
        wrong(&with("[nats]", &format!("token = {{ flie = \"{SECRET}\" }}"))),
        "3: nats.token.flie: unknown key; did you mean \"file\"?"
    );
    assert_eq!(
        wrong(&with("[nats]", &format!("token = \"{SECRET}\"\nnkey = \"{SECRET}\""))),
        "3: nats.token: cannot be combined with nkey; keep one of them"
    );
    assert_eq!(
        wrong(&with("[nats]", &format!("password = \"{SECRET}\""))),
        "3: nats.password: needs user beside it"
    );
}

#[test]
fn sources_may_not_share_a_stream_a_slot_or_a_reserved_name() {
    let second = |name: &str| {
        format!("{SMALLEST}[sources.{name}]\nconnector = \"postgres\"\nurl = \"postgres://u@other/shop\"\n")
    };
    assert_eq!(wrong(&second("shop")), "9: duplicate key `shop`");
    assert_eq!(
        wrong(&second("Shop")),
        "9: sources.Shop: would write the stream EVENTS_shop, as [sources.shop] does; choose another name"
    );
    assert_eq!(
        wrong(&second("\"My Shop\"")),
        "9: sources.My Shop: a source's name is made of a-z, 0-9, `_` and `-`, and begins with a letter or digit; did you mean \"my_shop\"?"
    );
    assert_eq!(
        wrong(&second("dlq")),
        "9: sources.dlq: would write the stream EVENTS_dlq, which holds the dead letters; choose another name"
    );
    let same_slot = format!(
        "{SMALLEST}[sources.b]\nconnector = \"postgres\"\nurl = \"postgres://x@db:5432/shop\"\nslot = \"headgate_shop\"\n"
    );
    assert_eq!(
        wrong(&same_slot),
        "12: sources.b.slot: would read the same replication slot as [sources.shop]; give each its own slot"
    );
}

#[test]
fn what_later_releases_will_have_is_refused_clearly() {
    assert_eq!(
        wrong(&SMALLEST.replace("\"postgres\"", "\"postgress\"")),
        "6: sources.shop.connector: unknown connector; did you mean \"postgres\"?"
    );
    assert_eq!(
        wrong(&with("[sources.shop]", "snapshot = \"always\"")),
        "6: sources.shop.snapshot: expected \"initial\" or \"never\", found \"always\""
    );
    assert_eq!(
        wrong(&with("[sources.shop]", "snapshot_rate = 0")),
        "6: sources.shop.snapshot_rate: expected a whole number from 1 to 4294967295"
    );
}

#[test]
fn subjects_stay_in_their_stream() {
    let subject = |subject: &str| with("[nats]", &format!("subject = \"{subject}\""));
    assert!(load_text(&subject("events.{source}.{schema}.{table}.{key}")).is_ok());
    assert_eq!(
        wrong(&subject("cdc.{source}.{entity}")),
        "3: nats.subject: must begin with \"events.{source}.\", the subjects of the source's stream; by default: \"events.{source}.{entity}.{verb}.{partition}\""
    );
    assert_eq!(
        wrong(&subject("events.{source}.{entitiy}")),
        "3: nats.subject: unknown placeholder {entitiy}; did you mean \"{entity}\"?"
    );
    for bad in [
        "events.{source}.",
        "events.{source}.a..b",
        "events.{source}.a b",
        "events.{source}.>",
        "events.{source}.{verb",
        "events.{source}.a}",
        "events.{source}.{column:}",
    ] {
        assert!(load_text(&subject(bad)).is_err(), "{bad}");
    }
}

#[test]
fn a_misspelt_required_key_is_named() {
    assert_eq!(
        wrong(
            "[nats]\nurll = \"nats://h\"\n[sources.shop]\nconector = \"postgres\"\nurl = \"postgres://u@h/d\"\n"
        ),
        "1: nats.url: is required; url = \"nats://127.0.0.1:4222\", or \"embedded\" for a server of Headgate's own\n\
         2: nats.urll: unknown key; did you mean \"url\"?\n\
         3: sources.shop.connector: is required; connector = \"postgres\"\n\
         4: sources.shop.conector: unknown key; did you mean \"connector\"?"
    );
}

#[test]
fn several_problems_are_told_at_once_in_the_order_of_the_lines() {
    assert_eq!(
        wrong("[nats]\n[admin]\nlisten = 1\n[sources.shop]\nurl = \"postgres://u@h/d\"\n"),
        "1: nats.url: is required; url = \"nats://127.0.0.1:4222\", or \"embedded\" for a server of Headgate's own\n\
         3: admin.listen: expected an address like \"127.0.0.1:8080\", found a whole number\n\
         4: sources.shop.connector: is required; connector = \"postgres\""
    );
    assert!(wrong("").contains("sources: there is no source; add a section [sources.NAME]"));
}

#[test]
fn a_file_that_is_not_there_says_how_to_name_it() {
    let error = load(Path::new("/nowhere/config.toml"), &environment).unwrap_err();
    assert_eq!(
        error.to_string(),
        "/nowhere/config.toml: cannot be read: No such file or directory (os error 2); name the file with -c FILE or HEADGATE_CONFIG"
    );
}

/// The smallest file with more settings of its source.
fn shaped(lines: &str) -> String {
    format!("{SMALLEST}{lines}")
}

#[test]
fn what_is_made_of_rows_is_read() {
    let config = load_text(&shaped(
        "mask_salt = \"0123456789abcdef\"\nmessages = [\"a.*\"]\n\
         [sources.shop.columns.\"public.*\"]\nexclude = [\"x\"]\nmask = { y = \"truncate(3)\", z = \"hash\" }\n\
         [sources.shop.where]\n\"public.t\" = \"tenant = 7\"\n\
         [[sources.shop.outbox]]\ntable = \"public.box\"\ntype = \"kind\"\n\
         [[sources.shop.event]]\nname = \"deal.won\"\ntable = \"public.t\"\nwhen = \"after.a == 1\"\ndata = { b = \"before.b\" }\n\
         [[sources.shop.event]]\nname = \"deal.lost\"\ntable = \"public.t\"\nwhen = \"op == 'deleted'\"\ninstead = true\nkey = [\"a\"]\n",
    ))
    .unwrap();
    let source = &config.sources["shop"];
    let shaping = &source.shaping;
    assert_eq!(shaping.columns[0].mask["y"], crate::config::Mask::Truncate(3));
    assert_eq!(shaping.outboxes[0].kind.as_deref(), Some("kind"));
    assert_eq!((shaping.events[0].name().as_str(), shaping.events[1].instead), ("deal.won", true));
    assert_eq!(shaping.messages, ["a.*"]);
    let Connector::Postgres(postgres) = &source.connector else { panic!("not PostgreSQL") };
    assert_eq!(postgres.row_filters["public.t"], "tenant = 7");
    assert!(!format!("{config:?}").contains("0123456789abcdef"), "the salt shows");
}

#[test]
fn the_text_of_statements_is_not_told_where_columns_are_hidden() {
    let mysql = SMALLEST.replace("\"postgres\"", "\"mysql\"").replace("postgres://", "mysql://");
    let hiding = "[sources.shop.columns.\"shop.customers\"]\nexclude = [\"password\"]\n";
    assert!(load_text(&format!("{mysql}{hiding}")).is_ok());
    let told = wrong(&format!("{mysql}query = true\n{hiding}"));
    assert!(told.contains("sources.shop.query: would tell the values that `columns` hides"), "{told}");
}

#[test]
fn what_cannot_be_made_of_rows_is_told_with_its_line() {
    const EVENT: &str = "[[sources.shop.event]]\nname = \"deal.won\"\ntable = \"public.t\"\n";
    for (lines, expected) in [
        (
            "[sources.shop.columns.\"public.t\"]\nmask = { a = \"hash\" }\n".to_owned(),
            "sources.shop.mask_salt: is required",
        ),
        (
            "mask_salt = \"${PASSWORD}\"\n".to_owned(),
            "9: sources.shop.mask_salt: must have at least 16 bytes",
        ),
        (
            "[sources.shop.columns.\"public.t\"]\nmask = { a = \"scramble\" }\n".to_owned(),
            "10: sources.shop.columns.public.t.mask.a: expected \"hash\"",
        ),
        ("[sources.shop.columns.t]\nexclud = [\"a\"]\n".to_owned(), "did you mean \"exclude\"?"),
        (
            format!("{EVENT}when = \"before.a = after.a\"\n"),
            "12: sources.shop.event.when: is no condition in CEL",
        ),
        (format!("{EVENT}when = \"befor.a == 1\"\n"), "at column 1: `befor` is unknown"),
        (
            format!("{EVENT}when = \"op == '${{PASSWORD}}\"\n"),
            "12: sources.shop.event.when: is no condition in CEL",
        ),
        (format!("{EVENT}whn = \"true\"\n"), "did you mean \"when\"?"),
        (format!("{EVENT}when = \"true\"\ndata = {{ a = \"b\" }}\n"), "expected \"before.COLUMN\""),
        (
            EVENT.replace("deal.won", "deal.updated") + "when = \"true\"\n",
            "`updated` already means something else",
        ),
        (
            EVENT.replace("deal.won", "won") + "when = \"true\"\n",
            "10: sources.shop.event.name: expected entity and verb",
        ),
        (
            format!("{EVENT}when = \"true\"\n{EVENT}when = \"true\"\n"),
            "14: sources.shop.event.name: there is another",
        ),
        ("[[sources.shop.outbox]]\ntyp = \"x\"\n".to_owned(), "sources.shop.outbox.table: is required"),
        (
            "outbox = \"public.t\"\n".to_owned(),
            "9: sources.shop.outbox: expected sections [[sources.shop.outbox]]",
        ),
        (
            "publication = \"mine\"\n[sources.shop.where]\n\"public.t\" = \"a = 1\"\n".to_owned(),
            "row filters belong to the publication",
        ),
    ] {
        let told = wrong(&shaped(&lines));
        assert!(told.contains(expected), "{lines}: {told}");
    }
}

#[test]
fn a_webhook_source_gets_every_default_and_names_what_is_wrong() {
    let webhook = |lines: &str| {
        format!(
            "[nats]\nurl = \"nats://h\"\n[http]\npublic_url = \"https://hooks.example.com/\"\n\
             [sources.gh]\nconnector = \"webhook\"\nprovider = \"github\"\n{lines}\n"
        )
    };
    let config = load_text(&webhook("secret = \"${PASSWORD}\"")).unwrap();
    let Connector::Webhook(source) = &config.sources["gh"].connector else { panic!("not a webhook") };
    assert_eq!(source.provider.name(), "github");
    assert_eq!(source.limits.max_body, 25 << 20);
    assert_eq!(source.limits.body_timeout, Duration::from_secs(10));
    assert_eq!((source.limits.rate, source.limits.allow.len()), (None, 0));
    assert_eq!(source.dedup_window, Duration::from_secs(86_400));
    assert_eq!(source.settings.public_url.as_deref(), Some("https://hooks.example.com/webhooks/gh"));
    assert!(!format!("{config:?}").contains(SECRET));
    assert_eq!((config.http.max_connections, config.http.memory), (4096, 64 << 20));
    assert_eq!((config.http.spool_max, config.http.trusted_proxies.len()), (1 << 30, 0));
    for (lines, key) in [
        ("", "secret"),
        ("secret = \"\"", "secret"),
        ("secret = \"${UNSET}\"", "secret"),
        ("secret = \"x\"\nsecrets = [\"y\"]", "secrets"),
        ("secret = \"x\"\nintegrity = \"bodies\"", "integrity"),
        ("secret = \"x\"\nrate_limit = \"100\"", "rate_limit"),
        ("secret = \"x\"\nallow_ips = [\"10.0.0.0/33\"]", "allow_ips"),
        ("secret = \"x\"\nmax_body = \"65MiB\"", "max_body"),
        ("secret = \"x\"\ndedup_window = \"1ms\"", "dedup_window"),
        ("secret = \"x\"\npublic_url = \"hooks\"", "public_url"),
        ("secret = \"x\"\ntables = [\"public.*\"]", "tables"),
    ] {
        let told = wrong(&webhook(lines));
        assert!(told.contains(&format!("sources.gh.{key}")), "{lines}: {told}");
    }
}

#[test]
fn both_listeners_have_an_address_of_their_own() {
    const HOOK: &str = "[sources.gh]\nconnector = \"webhook\"\nprovider = \"github\"\nsecret = \"x\"\n";
    let text = |http: &str, admin: &str, source: &str| {
        format!("{SMALLEST}\n[http]\nlisten = \"{http}\"\n[admin]\nlisten = \"{admin}\"\n{source}")
    };
    for (http, admin) in [
        ("127.0.0.1:9000", "127.0.0.1:9000"),
        ("0.0.0.0:9000", "127.0.0.1:9000"),
        ("10.0.0.1:9000", "0.0.0.0:9000"),
        ("[::]:9000", "127.0.0.1:9000"),
        ("[::1]:9000", "[::]:9000"),
    ] {
        let shown = wrong(&text(http, admin, HOOK));
        let told =
            format!("13: admin.listen: {admin} is taken by [http], which listens on {http} for webhooks");
        assert!(shown.starts_with(&told), "{shown}");
        // Without webhooks only one of them listens.
        load_text(&text(http, admin, "")).unwrap();
    }
    for (http, admin) in [
        ("127.0.0.1:9000", "127.0.0.1:9001"),
        ("127.0.0.1:9000", "127.0.0.2:9000"),
        ("0.0.0.0:9000", "[::1]:9000"),
        ("127.0.0.1:0", "127.0.0.1:0"),
    ] {
        load_text(&text(http, admin, HOOK)).unwrap();
    }
}
