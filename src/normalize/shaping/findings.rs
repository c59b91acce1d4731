//! Compares the settings with the tables as they are now, before a run and for `headgate check`.

use super::{Misfit, Outbox, Rules, gone_misfit, outbox_misfit};
use crate::config::{SemanticEvent, Shaping};
use headgate_sdk::{Finding, TableShape};
use std::collections::BTreeSet;

/// What is to be said about the settings of a source whose captured tables are `tables`. Nothing, where there are none.
pub fn findings(settings: &Shaping, tables: &[TableShape]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for table in tables {
        hiding(settings, table, &mut findings);
    }
    for rule in settings.columns.iter().filter(|rule| rule.names_one_table()) {
        find(tables, &rule.table, "columns", &mut findings);
    }
    for outbox in &settings.outboxes {
        let Some(table) = find(tables, &outbox.table, "outbox", &mut findings) else { continue };
        let columns = told(settings, table);
        let subject = format!("outbox {}", outbox.table);
        findings.push(match Outbox::new(outbox, &columns) {
            Err(missing) => misfit(subject, outbox_misfit(&outbox.table, &missing)),
            Ok(found) => match found.id().map(|index| columns[index]) {
                Some(id) if table.key != [id] => Finding::warning(
                    subject,
                    format!("column {id} is not the primary key"),
                    "it becomes the events' id, and a subscriber takes two events of one id for one",
                )
                .with_fix("make it the primary key, or name another column: id = \"…\""),
                _ => Finding::good(subject, "its inserts are events of their own"),
            },
        });
    }
    for event in &settings.events {
        let subject = format!("event {}", event.name());
        let Some(table) = find(tables, &event.table, &subject, &mut findings) else { continue };
        if settings.outboxes.iter().any(|outbox| outbox.table == event.table) {
            let why = "the rows of an outbox are no row changes that an event could be made of";
            findings.push(Finding::error(subject, format!("{} is an outbox", event.table), why));
            continue;
        }
        findings.extend(semantic(settings, event, table, &subject));
    }
    findings
}

/// The columns of a table that are told.
fn told<'t>(settings: &Shaping, table: &'t TableShape) -> Vec<&'t str> {
    let rules = Rules::of(&settings.columns, &table.schema, &table.table);
    let told = rules.told(table.columns.iter().map(String::as_str), settings.mask_salt.as_ref());
    table.columns.iter().map(String::as_str).filter(|column| told.contains_key(column)).collect()
}

/// The table that a setting is meant for, or the finding that there is none.
fn find<'t>(
    tables: &'t [TableShape],
    name: &str,
    setting: &str,
    findings: &mut Vec<Finding>,
) -> Option<&'t TableShape> {
    let found = tables.iter().find(|table| format!("{}.{}", table.schema, table.table) == name);
    if found.is_none() {
        let why = "what was said of it holds for nothing; if the table was renamed, its rows are told under the new name as they are";
        findings.push(
            Finding::error(setting, format!("{name} is not a captured table"), why)
                .with_fix(format!("correct the name, or capture the table: tables = [\"{name}\", …]")),
        );
    }
    found
}

fn misfit(subject: impl Into<String>, (what, fix): Misfit) -> Finding {
    Finding::error(subject, what, "the source stops before such a row").with_fix(fix)
}

fn hiding(settings: &Shaping, table: &TableShape, findings: &mut Vec<Finding>) {
    let name = format!("{}.{}", table.schema, table.table);
    let rules = Rules::of(&settings.columns, &table.schema, &table.table);
    let subject = format!("columns of {name}");
    if let Some(found) =
        rules.misfit(&name, table.key.iter().map(String::as_str), settings.mask_salt.as_ref())
    {
        findings.push(misfit(subject, found));
        return;
    }
    let hidden: BTreeSet<&str> = rules.hidden().collect();
    if let Some(column) = hidden.iter().find(|column| !table.columns.iter().any(|known| known == *column)) {
        findings.push(misfit(subject, gone_misfit(&name, column)));
        return;
    }
    let salt = settings.mask_salt.as_ref();
    let told = rules.told(table.columns.iter().map(String::as_str), salt);
    let masked = told.values().filter(|mask| mask.is_some()).count();
    let left_out = table.columns.len() - told.len();
    if masked + left_out > 0 {
        let of = table.columns.len();
        findings.push(Finding::good(subject, format!("{left_out} of {of} left out, {masked} masked")));
    }
}

fn semantic(settings: &Shaping, event: &SemanticEvent, table: &TableShape, subject: &str) -> Vec<Finding> {
    let columns = told(settings, table);
    let reads = event.when.reads();
    let members = event.data.iter().flatten();
    let named = reads
        .before
        .named()
        .chain(reads.after.named())
        .chain(event.key.iter().flatten().map(String::as_str))
        .chain(members.clone().map(|member| member.column.as_str()));
    let unknown: BTreeSet<&str> = named.filter(|column| !columns.contains(column)).collect();
    let mut findings = Vec::new();
    for column in unknown {
        let hidden = table.columns.iter().any(|known| known == column);
        let what = if hidden {
            format!("column {column} of {} is excluded", event.table)
        } else {
            format!("{} has no column {column}", event.table)
        };
        let why = "an event reads what subscribers may see, and each change would end in the dead letters";
        let near = crate::config::nearest(column, columns.iter().copied());
        let fix = near.map_or_else(
            || "correct the event's when, key or data".to_owned(),
            |near| format!("did you mean {near}?"),
        );
        findings.push(Finding::error(subject, what, why).with_fix(fix));
    }
    let reads_old = reads.before.any();
    let old_data = members.clone().any(|member| member.before && !table.key.contains(&member.column));
    if (reads_old || reads.changed || old_data) && !table.whole_before {
        let why = if reads_old || reads.changed {
            "the condition reads the old row, which the log does not hold: each update would end in the dead letters"
        } else {
            "its data takes values of the old row, which the log does not hold: they will be absent"
        };
        let what = format!("the log does not hold the old rows of {}", event.table);
        findings.push(Finding::warning(subject, what, why).with_fix(table.make_before_whole.clone()));
    }
    if findings.is_empty() {
        findings.push(Finding::good(subject, format!("fits {}", event.table)));
    }
    findings
}
