//! The settings of a PostgreSQL source.

use crate::config::section::{Section, did_you_mean};
use headgate_postgres::WalPressure;
use std::{collections::BTreeMap, time::Duration};

pub(super) fn config(name: &str, section: &Section<'_, '_>) -> Option<headgate_postgres::Config> {
    let url = section.secret("url");
    if !section.has("url") {
        let hint = "url = \"postgres://user:${PASSWORD}@host:5432/database\"";
        section.problem("url", "is required", Some(hint.to_owned()));
    } else if let Some(what) = url.as_deref().and_then(unsound_url) {
        let hint = "write it as postgres://user:password@host:5432/database, with every special character of the password percent-encoded";
        section.problem("url", what, Some(hint.to_owned()));
    } else if let Some(Err(fault)) =
        url.as_ref().map(|url| headgate_postgres::Config::new(url.as_str()).check_url())
    {
        section.problem("url", fault.to_string(), fault.fix().map(str::to_owned));
    }
    let defaults = headgate_postgres::Config::new(url.unwrap_or_default());
    let config = headgate_postgres::Config {
        tables: section.strings("tables").unwrap_or(defaults.tables),
        row_filters: row_filters(section),
        publication: section.text("publication"),
        slot: section.text("slot"),
        failover: section.boolean("failover").unwrap_or(defaults.failover),
        partition_root: section.boolean("partition_root").unwrap_or(defaults.partition_root),
        heartbeat: section.duration_or_off("heartbeat").unwrap_or(defaults.heartbeat),
        max_row: section.size("max_row", 1024).unwrap_or(defaults.max_row),
        connect_timeout: section.duration("connect_timeout").unwrap_or(defaults.connect_timeout),
        slot_timeout: section.duration("slot_timeout").unwrap_or(defaults.slot_timeout),
        outage_budget: section.duration("outage_budget").unwrap_or(defaults.outage_budget),
        wal_limit: section.size("wal_limit", 16 << 20),
        on_wal_pressure: section
            .choice("on_wal_pressure", &[("warn", WalPressure::Warn), ("drop_slot", WalPressure::DropSlot)])
            .unwrap_or_default(),
        url: defaults.url,
    };
    if config.on_wal_pressure == WalPressure::DropSlot && !section.has("wal_limit") {
        let hint = "wal_limit = \"100GiB\": at so much kept log the slot is dropped";
        section.problem("on_wal_pressure", "needs wal_limit beside it", Some(hint.to_owned()));
    }
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
    if let (Some(publication), Some((table, condition))) =
        (&config.publication, config.row_filters.iter().next())
    {
        let hint = format!(
            "ALTER PUBLICATION {publication} SET TABLE {table} WHERE ({condition}), …; and take `where` out"
        );
        section.problem(
            "where",
            "row filters belong to the publication, and this one is not Headgate's",
            Some(hint),
        );
    }
    check_slot(name, config.slot.as_deref(), section);
    Some(config)
}

fn row_filters(section: &Section<'_, '_>) -> BTreeMap<String, String> {
    let section = section.section("where");
    let filters: BTreeMap<String, String> =
        section.texts().into_iter().map(|(table, condition)| (table.to_owned(), condition)).collect();
    for (table, condition) in &filters {
        if !table.contains('.') {
            section.problem(
                table,
                "expected the table's name with its schema",
                Some(format!("\"public.{table}\"")),
            );
        }
        if condition.trim().is_empty() {
            section.problem(table, "expected a condition in SQL", None);
        }
    }
    filters
}

/// The server and the slot that a source reads: no two sources may read the same.
pub(super) fn slot_of(name: &str, config: &headgate_postgres::Config) -> (String, String) {
    (server_of(&config.url).to_owned(), config.slot.clone().unwrap_or_else(|| default_slot(name)))
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
