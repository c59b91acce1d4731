//! `[sources.NAME]`: the names, what all connectors share, and each connector's own settings.

mod mysql;
mod postgres;
mod shaping;
mod webhook;

pub(crate) use mysql::default_schema as mysql_default_schema;

use super::{
    Connector, Http, OnGap, OnIncompatible, Source,
    nearest::nearest,
    section::{Section, did_you_mean},
};
use headgate_sdk::SnapshotSettings;
use headgate_webhook::Catalog;
use std::collections::BTreeMap;
pub(super) use webhook::is_http_url;

/// The stream `EVENTS_dlq` is the dead letters'.
const RESERVED: &str = "dlq";

pub(super) fn sources(root: &Section<'_, '_>, http: &Http, catalog: &Catalog) -> BTreeMap<String, Source> {
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
        let Some(source) = source(name, &section, http, catalog) else {
            section.finish();
            continue;
        };
        let reader = match &source.connector {
            Connector::Postgres(config) => {
                Some((postgres::slot_of(name, config), "slot", "replication slot"))
            }
            Connector::MySql(config) => {
                Some((mysql::reader_of(name, config), "server_id", "log under the same server_id"))
            }
            Connector::Webhook(_) => None,
        };
        if let Some((reader, key, what)) = reader
            && let Some(other) = slots.insert(reader, name.to_owned())
        {
            let what = format!("would read the same {what} as [sources.{other}]");
            section.problem(key, what, Some(format!("give each its own {key}")));
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

/// Reads a source. Without a connector, or with one that nobody knows, the keys are read as those of PostgreSQL: what is
/// misspelt has to be named all the same.
fn source(name: &str, section: &Section<'_, '_>, http: &Http, catalog: &Catalog) -> Option<Source> {
    let connector = section.text("connector");
    match connector.as_deref() {
        Some("postgres" | "mysql") => {}
        Some("webhook") => return webhook::source(name, section, http, catalog),
        Some(other) => {
            let hint = nearest(other, ["postgres", "mysql", "webhook"]).map_or_else(
                || "this release has \"postgres\", \"mysql\" and \"webhook\"".to_owned(),
                did_you_mean,
            );
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
    let shaping = shaping::shaping(section);
    let on_gap = section
        .choice("on_gap", &[("stop", OnGap::Stop), ("snapshot", OnGap::Snapshot)])
        .unwrap_or(OnGap::Stop);
    let on_incompatible = section
        .choice("on_incompatible", &[("warn", OnIncompatible::Warn), ("stop", OnIncompatible::Stop)])
        .unwrap_or(OnIncompatible::Warn);
    let snapshots = snapshots(section, on_gap);
    let connector = match connector.as_deref() {
        Some("mysql") => mysql::config(section, &shaping).map(Connector::MySql),
        known => {
            postgres::config(name, section).filter(|_| known == Some("postgres")).map(Connector::Postgres)
        }
    };
    connector.map(|connector| Source {
        uri,
        type_prefix,
        entities,
        on_gap,
        on_incompatible,
        shaping,
        snapshots,
        connector,
    })
}

fn snapshots(section: &Section<'_, '_>, on_gap: OnGap) -> SnapshotSettings {
    let defaults = SnapshotSettings::default();
    let settings = SnapshotSettings {
        initial: section.choice("snapshot", &[("initial", true), ("never", false)]).unwrap_or(true),
        on_gap: on_gap == OnGap::Snapshot,
        rate: section
            .integer("snapshot_rate", 1..=u64::from(u32::MAX))
            .and_then(|rate| u32::try_from(rate).ok()),
        chunk: section.duration("snapshot_chunk").unwrap_or(defaults.chunk),
    };
    if settings.chunk.is_zero() {
        section.problem("snapshot_chunk", "must be more than zero", None);
    }
    settings
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
