//! The settings of a MySQL or MariaDB source.

use crate::config::{Shaping, section::Section};
use std::time::Duration;

pub(super) fn config(section: &Section<'_, '_>, shaping: &Shaping) -> Option<headgate_mysql::Config> {
    let url = section.secret("url");
    let (mut database, mut names_none) = (None, false);
    if !section.has("url") {
        let hint = "url = \"mysql://user:${PASSWORD}@host:3306/database\"";
        section.problem("url", "is required", Some(hint.to_owned()));
    } else if let Some(url) = url.as_deref() {
        match headgate_mysql::parse_url(url) {
            Ok(named) => {
                names_none = named.is_none();
                database = named;
            }
            Err(error) => {
                let hint = "write it as mysql://user:password@host:3306/database, with every special character of the password percent-encoded";
                section.problem("url", error.to_string(), Some(hint.to_owned()));
            }
        }
    }
    let defaults = headgate_mysql::Config::new(url.unwrap_or_default());
    let tables = section.strings("tables").or_else(|| Some(vec![format!("{}.*", database.as_ref()?)]));
    let config = headgate_mysql::Config {
        server_id: section
            .integer("server_id", 1..=u64::from(u32::MAX))
            .and_then(|id| u32::try_from(id).ok()),
        heartbeat: section.duration("heartbeat").unwrap_or(defaults.heartbeat),
        query: section.boolean("query").unwrap_or(defaults.query),
        connect_timeout: section.duration("connect_timeout").unwrap_or(defaults.connect_timeout),
        outage_budget: section.duration("outage_budget").unwrap_or(defaults.outage_budget),
        tables: tables.clone().unwrap_or_default(),
        url: defaults.url,
    };
    let example = || Some("tables = [\"shop.*\", \"!shop.secrets\"]".to_owned());
    match &tables {
        None if names_none && !section.has("tables") => {
            section.problem("tables", "is required where the url names no database", example());
        }
        Some(globs) if globs.iter().all(|glob| glob.starts_with('!')) => {
            section.problem("tables", "no glob includes a table", example());
        }
        _ => {}
    }
    for glob in &config.tables {
        let parts = glob.trim_start_matches('!').split_once('.');
        if parts.is_none_or(|(schema, table)| schema.is_empty() || table.is_empty()) {
            section.problem(
                "tables",
                "a glob names schema (database) and table",
                Some("\"shop.*\"".to_owned()),
            );
        }
    }
    if config.connect_timeout.is_zero() {
        section.problem("connect_timeout", "must be more than zero", None);
    }
    if config.query && !shaping.columns.is_empty() {
        let what = "would tell the values that `columns` hides: they are in the text of the statements";
        section.problem("query", what, Some("query = false".to_owned()));
    }
    // The server counts it in nanoseconds, up to 2^32 seconds.
    if !(Duration::from_secs(1)..=Duration::from_secs(3600)).contains(&config.heartbeat) {
        section.problem("heartbeat", "must be from one second to one hour", None);
    }
    Some(config)
}

/// The server and the id that a source is known by there: no two sources may have the same.
pub(super) fn reader_of(name: &str, config: &headgate_mysql::Config) -> (String, String) {
    let rest = config.url.split_once("://").map_or(config.url.as_str(), |(_, rest)| rest);
    let authority = rest.split(['/', '?']).next().unwrap_or(rest);
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    (host.to_owned(), config.server_id_of(name).to_string())
}

/// The schema whose tables are known by their name alone: the URL's database.
pub(crate) fn default_schema(config: &headgate_mysql::Config) -> String {
    headgate_mysql::parse_url(&config.url).ok().flatten().unwrap_or_default()
}
