//! The files that come with the source are right.

use headgate::config::{Connector, Server, load};
use std::path::Path;

fn example(set: &dyn Fn(&str) -> Option<String>) -> headgate::config::Config {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("config.toml");
    load(&file, set).unwrap_or_else(|error| panic!("{error}"))
}

fn password_only(name: &str) -> Option<String> {
    (name == "SHOP_PASSWORD").then(|| "secret".to_owned())
}

#[test]
fn the_reference_configuration_is_valid() {
    let config = example(&password_only);
    assert_eq!(config.nats.server, Server::Remote(vec!["nats://127.0.0.1:4222".to_owned()]));
    let Connector::Postgres(source) = &config.sources["shop"].connector else { panic!("not PostgreSQL") };
    assert_eq!(source.url, "postgres://cdc:secret@127.0.0.1:5432/shop");
}

/// Every line of it that shows a default says what holds without that line.
#[test]
fn the_reference_configuration_shows_the_defaults() {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("config.toml")).unwrap();
    // Settings that have no default, or that exclude each other, are shown as examples.
    let examples = [
        "credentials",
        "nkey",
        "token",
        "user",
        "password",
        "confirm_delay",
        "max_bytes",
        "required",
        "ca",
        "cert",
        "key",
        "binary",
        "public_url",
        "providers_dir",
        // The webhook source, which is one whole example.
        "connector",
        "provider",
        "secret",
        "secrets",
        "tolerance",
        "integrity",
        "max_body",
        "body_timeout",
        "rate_limit",
        "allow_ips",
        "dedup_window",
        "slot",
        "uri",
        "type_prefix",
        "publication",
        "mask_salt",
        "snapshot_rate",
        "wal_limit",
        "\"public.tbl_orders_v2\"",
    ];
    let shown: Vec<&str> = text
        .lines()
        .map(|line| match line.strip_prefix("# ") {
            Some(section) if section.starts_with("[nats.embedded]") => section,
            Some(setting) => match setting.split_once(" = ") {
                Some((key, _)) if !key.contains(' ') && !examples.contains(&key) => setting,
                _ => "",
            },
            None => line,
        })
        .collect();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config.toml");
    std::fs::write(&file, shown.join("\n")).unwrap();
    let spelled_out = load(&file, &password_only).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(format!("{spelled_out:?}"), format!("{:?}", example(&password_only)));
}
