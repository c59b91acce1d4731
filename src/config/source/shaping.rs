//! Reading what a source's settings make of its rows: `columns`, `mask_salt`, `outbox`, `event`, `messages`.

use crate::{
    condition::Condition,
    config::{
        ColumnRule, Mask, Member, Outbox, Salt, SemanticEvent, Shaping,
        section::{Section, did_you_mean},
    },
};
use std::collections::BTreeMap;

/// Verbs that mean something else in every subject.
const VERBS: [&str; 8] =
    ["created", "updated", "deleted", "truncated", "snapshot", "message", "schema", "gap"];

/// The shortest salt that is worth the name, in bytes.
const SALT_LENGTH: usize = 16;

pub(super) fn shaping(section: &Section<'_, '_>) -> Shaping {
    let columns = columns(&section.section("columns"));
    let mask_salt = section.secret("mask_salt");
    let hashes = columns.iter().any(|rule| rule.mask.values().any(|mask| *mask == Mask::Hash));
    match &mask_salt {
        Some(salt) if salt.len() < SALT_LENGTH => {
            let what = format!("must have at least {SALT_LENGTH} bytes, or the values can be guessed");
            section.problem("mask_salt", what, Some("openssl rand -hex 32 makes one".to_owned()));
        }
        None if hashes && !section.has("mask_salt") => {
            let hint = "mask_salt = \"${MASK_SALT}\"; openssl rand -hex 32 makes one".to_owned();
            section.problem("mask_salt", "is required, for a column is masked with hash", Some(hint));
        }
        _ => {}
    }
    let messages = section.strings("messages");
    Shaping {
        columns,
        mask_salt: mask_salt.map(Salt::new),
        outboxes: section.tables("outbox").into_iter().filter_map(outbox).collect(),
        events: events(section),
        messages: messages.unwrap_or_else(|| Shaping::default().messages),
    }
}

/// A table's name with its schema.
fn check_table(section: &Section<'_, '_>, key: &str, table: &str) {
    if table.split_once('.').is_none_or(|(schema, table)| schema.is_empty() || table.is_empty()) {
        let hint = Some(format!("\"public.{table}\""));
        section.problem(key, "expected the table's name with its schema", hint);
    }
}

fn columns(all: &Section<'_, '_>) -> Vec<ColumnRule> {
    let mut rules = Vec::new();
    for (table, section) in all.sections() {
        check_table(&section, "", table);
        let include = section.strings("include");
        let exclude = section.strings("exclude").unwrap_or_default();
        let masked = section.section("mask");
        let mut mask = BTreeMap::new();
        for (column, text) in masked.texts() {
            match parse_mask(&text) {
                Some(parsed) => drop(mask.insert(column.to_owned(), parsed)),
                None => masked.problem(
                    column,
                    "expected \"hash\", \"redact\" or \"truncate(N)\" with N characters to keep, 1 to 10000",
                    None,
                ),
            }
        }
        if include.as_ref().is_some_and(Vec::is_empty) {
            section.problem("include", "no column would be left", None);
        }
        if let Some(column) = mask.keys().find(|column| exclude.contains(column)) {
            masked.problem(column, "is excluded, so there is nothing to mask", None);
        }
        if include.is_none() && exclude.is_empty() && mask.is_empty() {
            let hint = "give it include, exclude or mask".to_owned();
            section.problem("", "says nothing about the table's columns", Some(hint));
        }
        section.finish();
        rules.push(ColumnRule { table: table.to_owned(), include, exclude, mask });
    }
    rules
}

fn parse_mask(text: &str) -> Option<Mask> {
    match text {
        "hash" => Some(Mask::Hash),
        "redact" => Some(Mask::Redact),
        _ => {
            let keep = text.strip_prefix("truncate(")?.strip_suffix(')')?.trim().parse().ok()?;
            (1..=10_000).contains(&keep).then_some(Mask::Truncate(keep))
        }
    }
}

fn outbox(section: Section<'_, '_>) -> Option<Outbox> {
    let outbox = Outbox {
        table: required_table(&section).unwrap_or_default(),
        id: section.text("id"),
        entity: section.text("entity"),
        kind: section.text("type"),
        key: section.text("key"),
        payload: section.text("payload"),
        headers: section.text("headers"),
    };
    section.finish();
    (!outbox.table.is_empty()).then_some(outbox)
}

fn required_table(section: &Section<'_, '_>) -> Option<String> {
    let table = section.text("table");
    match &table {
        Some(table) => check_table(section, "table", table),
        None if !section.has("table") => {
            section.problem("table", "is required", Some("table = \"public.…\"".to_owned()));
        }
        None => {}
    }
    table
}

fn events(section: &Section<'_, '_>) -> Vec<SemanticEvent> {
    let mut events: Vec<SemanticEvent> = Vec::new();
    for section in section.tables("event") {
        if let Some(event) = event(section, &events) {
            events.push(event);
        }
    }
    events
}

fn event(section: Section<'_, '_>, others: &[SemanticEvent]) -> Option<SemanticEvent> {
    let name = section.text("name");
    let named = name.as_deref().and_then(|name| split_name(&section, name));
    if name.is_none() && !section.has("name") {
        section.problem("name", "is required", Some("name = \"deal.stage_changed\"".to_owned()));
    }
    let table = required_table(&section);
    let when = when(&section);
    let instead = section.boolean("instead").unwrap_or(false);
    let key = section.strings("key");
    if key.as_ref().is_some_and(Vec::is_empty) {
        section.problem("key", "no column is named", Some("leave it out for the table's own key".to_owned()));
    }
    let data = data(&section);
    let same = |other: &SemanticEvent| Some(other.name()) == name && Some(&other.table) == table.as_ref();
    if others.iter().any(same) {
        section.problem("name", "there is another event of this name for this table", None);
    }
    section.finish();
    let ((entity, verb), table, when) = (named?, table?, when?);
    Some(SemanticEvent { entity, verb, table, when, instead, key, data })
}

/// `entity.verb`, both fit to be tokens as they are.
fn split_name(section: &Section<'_, '_>, name: &str) -> Option<(String, String)> {
    let sound = |part: &str| {
        !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
    };
    match name.split_once('.') {
        Some((entity, verb)) if sound(entity) && sound(verb) => {
            if VERBS.contains(&verb) {
                let what = format!("`{verb}` already means something else as a verb");
                section.problem("name", what, None);
                return None;
            }
            Some((entity.to_owned(), verb.to_owned()))
        }
        _ => {
            let what = "expected entity and verb, each of letters, digits, `_` and `-`, with one dot between";
            section.problem("name", what, Some(did_you_mean("deal.stage_changed")));
            None
        }
    }
}

fn when(section: &Section<'_, '_>) -> Option<Condition> {
    let Some((text, as_written)) = section.text_with_origin("when") else {
        if !section.has("when") {
            let hint = "when = \"before.stage != after.stage\"".to_owned();
            section.problem("when", "is required", Some(hint));
        }
        return None;
    };
    match Condition::compile(&text) {
        Ok(condition) => Some(condition),
        Err(malformed) => {
            let at = match malformed.at {
                Some((1, column)) => format!(" at column {column}"),
                Some((line, column)) => format!(" at line {line}, column {column}"),
                None => String::new(),
            };
            // What a variable holds is not repeated.
            let why = if as_written { format!(": {}", malformed.what) } else { String::new() };
            section.problem("when", format!("is no condition in CEL{at}{why}"), None);
            None
        }
    }
}

fn data(section: &Section<'_, '_>) -> Option<Vec<Member>> {
    let inside = section.section("data");
    let mut members = Vec::new();
    for (name, path) in inside.texts() {
        let member =
            |before, column: &str| Member { name: name.to_owned(), before, column: column.to_owned() };
        match path.split_once('.') {
            Some(("before", column)) if !column.is_empty() => members.push(member(true, column)),
            Some(("after", column)) if !column.is_empty() => members.push(member(false, column)),
            _ => inside.problem(name, "expected \"before.COLUMN\" or \"after.COLUMN\"", None),
        }
    }
    inside.is_given().then_some(members)
}
