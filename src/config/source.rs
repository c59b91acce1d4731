//! `[sources.NAME]`: the names, what all connectors share, and each connector's own settings.

use super::{
    Connector, OnGap, Source,
    nearest::nearest,
    section::{Section, did_you_mean},
};
use std::{collections::BTreeMap, time::Duration};

/// The stream `EVENTS_dlq` is the dead letters'.
const RESERVED: &str = "dlq";

pub(super) fn sources(root: &Section<'_, '_>) -> BTreeMap<String, Source> {
    let all = root.section("sources");
    let sections = all.sections();
    let names: Vec<&str> = sections.iter().map(|(name, _)| *name).collect();
    if sections.is_empty() && (all.is_given() || !root.has("sources")) {
        root.problem("sources", "there is no source", Some("add a section [sources.NAME]".to_owned()));
    }
    let mut sources = BTreeMap::new();
    let mut slots: BTreeMap<(String, String), String> = BTreeMap::new();
    for (name, section) in sections {
        check_name(name, &names, &section);
        let Ok(source) = source(name, &section) else { continue };
        let Some(source) = source else {
            section.finish();
            continue;
        };
        let Connector::Postgres(postgres) = &source.connector;
        let slot = postgres.slot.clone().unwrap_or_else(|| default_slot(name));
        if let Some(other) = slots.insert((server_of(&postgres.url).to_owned(), slot), name.to_owned()) {
            let what = format!("would read the same replication slot as [sources.{other}]");
            section.problem("slot", what, Some("give each its own slot".to_owned()));
        }
        section.finish();
        sources.insert(name.to_owned(), source);
    }
    sources
}

/// A name has to be a subject token and part of a stream's name, the same on every system.
fn check_name(name: &str, names: &[&str], section: &Section<'_, '_>) {
    if name == RESERVED {
        let what = "would write the stream EVENTS_dlq, which holds the dead letters";
        section.problem("", what, Some("choose another name".to_owned()));
        return;
    }
    let tail = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '-';
    if name.chars().all(tail) && name.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit()) {
        return;
    }
    let lower = name.to_ascii_lowercase();
    let valid: String = lower.chars().map(|c| if tail(c) { c } else { '_' }).collect();
    let valid = valid.trim_start_matches(['_', '-']);
    if valid != name && names.contains(&valid) {
        let what = format!("would write the stream EVENTS_{valid}, as [sources.{valid}] does");
        section.problem("", what, Some("choose another name".to_owned()));
        return;
    }
    let what = "a source's name is made of a-z, 0-9, `_` and `-`, and begins with a letter or digit";
    section.problem("", what, (!valid.is_empty()).then(|| did_you_mean(valid)));
}

/// The connector is known, and a later release will have it: nothing can be said of its keys.
struct NotYet;

/// Reads a source. Without a connector, or with one that nobody knows, the keys are read as those of PostgreSQL: what is
/// misspelt has to be named all the same.
fn source(name: &str, section: &Section<'_, '_>) -> Result<Option<Source>, NotYet> {
    let connector = section.text("connector");
    match connector.as_deref() {
        Some("postgres") => {}
        Some(later @ ("mysql" | "webhook")) => {
            let what = format!("the {later} connector is not in this release yet");
            section.problem("connector", what, Some("this release has \"postgres\"".to_owned()));
            return Err(NotYet);
        }
        Some(other) => {
            let hint = nearest(other, ["postgres", "mysql", "webhook"])
                .map_or_else(|| "this release has \"postgres\"".to_owned(), did_you_mean);
            section.problem("connector", "unknown connector", Some(hint));
        }
        None if section.has("connector") => {}
        None => section.problem("connector", "is required", Some("connector = \"postgres\"".to_owned())),
    }
    let uri = section.text("uri");
    if uri.as_ref().is_some_and(|uri| !is_uri_reference(uri)) {
        section.problem("uri", "expected a URI without spaces, quotes and control characters", None);
    }
    let type_prefix = section.text("type_prefix");
    if type_prefix.as_ref().is_some_and(|prefix| !is_uri_reference(prefix)) {
        section.problem("type_prefix", "expected a text without spaces, quotes and control characters", None);
    }
    let entities = entities(&section.section("entities"));
    if section.choice("on_gap", &[("stop", false), ("snapshot", true)]) == Some(true) {
        not_yet(section, "on_gap", "snapshot", "stop");
    }
    if section.choice("snapshot", &[("never", false), ("initial", true)]) == Some(true) {
        not_yet(section, "snapshot", "initial", "never");
    }
    let postgres = postgres(name, section).filter(|_| connector.as_deref() == Some("postgres"));
    Ok(postgres.map(|config| Source {
        uri,
        type_prefix,
        entities,
        on_gap: OnGap::Stop,
        connector: Connector::Postgres(config),
    }))
}

fn not_yet(section: &Section<'_, '_>, key: &'static str, wanted: &str, instead: &str) {
    let what = format!("\"{wanted}\" is not in this release yet");
    section.problem(key, what, Some(format!("this release has \"{instead}\"")));
}

fn is_uri_reference(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'"' | b'<' | b'>' | b'\\'))
}

fn entities(section: &Section<'_, '_>) -> BTreeMap<String, String> {
    let entities: BTreeMap<String, String> =
        section.texts().into_iter().map(|(table, entity)| (table.to_owned(), entity)).collect();
    for (table, entity) in &entities {
        if !table.contains('.') {
            let hint = format!("\"public.{table}\" = \"{entity}\"");
            section.problem(table, "expected the table's name with its schema", Some(hint));
        }
        if entity.is_empty() {
            section.problem(table, "an entity's name cannot be empty", None);
        }
    }
    entities
}

fn postgres(name: &str, section: &Section<'_, '_>) -> Option<headgate_postgres::Config> {
    let url = section.secret("url");
    if !section.has("url") {
        let hint = "url = \"postgres://user:${PASSWORD}@host:5432/database\"";
        section.problem("url", "is required", Some(hint.to_owned()));
    } else if let Some(what) = url.as_deref().and_then(unsound_url) {
        let hint = "write it as postgres://user:password@host:5432/database, with every special character of the password percent-encoded";
        section.problem("url", what, Some(hint.to_owned()));
    }
    let defaults = headgate_postgres::Config::new(url.unwrap_or_default());
    let config = headgate_postgres::Config {
        tables: section.strings("tables").unwrap_or(defaults.tables),
        publication: section.text("publication"),
        slot: section.text("slot"),
        failover: section.boolean("failover").unwrap_or(defaults.failover),
        partition_root: section.boolean("partition_root").unwrap_or(defaults.partition_root),
        heartbeat: section.duration_or_off("heartbeat").unwrap_or(defaults.heartbeat),
        max_row: section.size("max_row", 1024).unwrap_or(defaults.max_row),
        connect_timeout: section.duration("connect_timeout").unwrap_or(defaults.connect_timeout),
        slot_timeout: section.duration("slot_timeout").unwrap_or(defaults.slot_timeout),
        url: defaults.url,
    };
    if config.tables.iter().all(|glob| glob.starts_with('!')) {
        let what = "no glob includes a table";
        section.problem("tables", what, Some("tables = [\"public.*\", \"!public.secrets\"]".to_owned()));
    }
    for glob in &config.tables {
        if glob
            .trim_start_matches('!')
            .split_once('.')
            .is_none_or(|(schema, table)| schema.is_empty() || table.is_empty())
        {
            section.problem("tables", "a glob names schema and table", Some("\"public.*\"".to_owned()));
        }
    }
    for key in ["connect_timeout", "slot_timeout"] {
        let value = if key == "connect_timeout" { config.connect_timeout } else { config.slot_timeout };
        if value.is_zero() {
            section.problem(key, "must be more than zero", None);
        }
    }
    if config.heartbeat.is_some_and(|every| every < Duration::from_secs(1)) {
        section.problem("heartbeat", "must be at least one second", Some("or \"off\"".to_owned()));
    }
    check_slot(name, config.slot.as_deref(), section);
    Some(config)
}

/// The slot that a source has when none is named: a slot's name cannot hold a hyphen.
fn default_slot(name: &str) -> String {
    format!("headgate_{}", name.replace('-', "_"))
}

fn check_slot(name: &str, slot: Option<&str>, section: &Section<'_, '_>) {
    const LONGEST: usize = 63;
    match slot {
        Some(slot) => {
            let sound = slot.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
            if slot.is_empty() || slot.len() > LONGEST || !sound {
                let what = "a slot's name is made of a-z, 0-9 and `_`, at most 63 of them";
                section.problem("slot", what, Some(did_you_mean(&default_slot(name))));
            }
        }
        None if default_slot(name).len() > LONGEST => {
            let hint = Some("give the source a shorter name, or a `slot`".to_owned());
            section.problem("", "the name of its replication slot would be longer than 63 characters", hint);
        }
        None => {}
    }
}

/// What is wrong with a PostgreSQL URL, without any part of it.
fn unsound_url(url: &str) -> Option<&'static str> {
    let Some(rest) = url.strip_prefix("postgres://").or_else(|| url.strip_prefix("postgresql://")) else {
        // The other form that libpq knows: `host=… dbname=…`.
        let pairs = !url.contains("://") && url.split_whitespace().all(|pair| pair.contains('='));
        return (url.trim().is_empty() || !pairs).then_some("is not a PostgreSQL URL");
    };
    let (authority, after) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let (user, hosts) = authority.rsplit_once('@').unwrap_or(("", authority));
    let broken_escape = |text: &str| {
        text.split('%')
            .skip(1)
            .any(|part| part.get(..2).is_none_or(|digits| !digits.bytes().all(|b| b.is_ascii_hexdigit())))
    };
    if user.contains('@') || broken_escape(user) {
        return Some("has a user or password that is not percent-encoded");
    }
    let bad_port = |host: &str| match host.rsplit_once(':') {
        Some((name, port)) => !name.ends_with(']') && name.contains(':') || port.parse::<u16>().is_err(),
        None => false,
    };
    let socket = after.contains("host=");
    if hosts.split(',').any(|host| (host.is_empty() && !socket) || (!host.ends_with(']') && bad_port(host))) {
        return Some("has no sound host and port");
    }
    let database = after.strip_prefix('/').unwrap_or("").split('?').next().unwrap_or("");
    (database.is_empty() && !after.contains("dbname=")).then_some("names no database")
}

/// What tells one server from another: the URL without user, database and options.
fn server_of(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split(['/', '?']).next().unwrap_or(rest);
    authority.rsplit_once('@').map_or(authority, |(_, hosts)| hosts)
}
