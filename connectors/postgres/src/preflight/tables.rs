//! The tables: which are captured, as what, and what of them is not in the log.

use super::{Findings, Site, ask};
use crate::{
    publication::{Plan, Publications},
    sql_name,
};
use headgate_sdk::TableName;
use headgate_sdk::{Fault, Finding, TableFilter};
use postgres_protocol::escape::escape_identifier;
use std::collections::{BTreeMap, BTreeSet};

/// More findings of one kind than this are told as a number.
const SHOWN: usize = 12;

/// A table, or something like one, that the globs match.
struct Table {
    name: TableName,
    /// `relkind`, as the catalog has it.
    kind: String,
    logged: bool,
    full: bool,
    stored: Vec<String>,
    virtuals: Vec<String>,
    readable: bool,
    filtered: bool,
    leaves: i64,
}

pub(super) async fn look(site: &Site<'_>, publications: &Publications, plan: &Plan) -> Findings {
    if !publications.are_kept() && !plan.missing.is_empty() {
        // What it will hold is not known, and that it is missing is told already.
        return Ok(Vec::new());
    }
    if plan.whole.is_empty() && plan.append.is_empty() {
        return Ok(vec![
            Finding::error(
                "tables",
                format!("no table matches {:?}", site.config.tables),
                "nothing would be captured",
            )
            .with_fix("correct the globs of tables; they match schema.table as the catalog has it"),
        ]);
    }
    let filter = TableFilter::new(&site.config.tables);
    let mut matched = matched(site).await?;
    let in_log = |table: &&Table| plan.whole.contains(&table.name) || plan.append.contains(&table.name);
    // Schemas that hold something that is not captured: what the globs leave out, and views, whose rows need not be those
    // of captured tables. A right to the whole schema would show that too.
    let partial: BTreeSet<String> =
        matched.iter().filter(|table| !in_log(table)).map(|table| table.name.schema.clone()).collect();
    matched.retain(|table| filter.matches(&table.name.schema, &table.name.table));
    let captured: Vec<&Table> = matched.iter().filter(in_log).collect();
    let mut findings = vec![Finding::good(
        "tables",
        format!("{} captured: {}", captured.len(), some(captured.iter().map(|table| table.name.to_string()))),
    )];
    findings.extend(identities(plan, &captured));
    findings.extend(partitions(&captured));
    findings.extend(generated(site, publications, &captured));
    findings.extend(not_logged(&matched));
    findings.extend(unreadable(site, &captured, &partial));
    Ok(findings)
}

/// At most [`SHOWN`] names.
fn some(names: impl ExactSizeIterator<Item = String>) -> String {
    let left = names.len().saturating_sub(SHOWN);
    let shown: Vec<String> = names.take(SHOWN).collect();
    match left {
        0 => shown.join(", "),
        _ => format!("{} and {left} more", shown.join(", ")),
    }
}

fn identities(plan: &Plan, captured: &[&Table]) -> Vec<Finding> {
    let full = captured.iter().filter(|table| table.full).count();
    let mut findings = vec![Finding::good(
        "before",
        format!(
            "the whole old row for {full} of {} tables (REPLICA IDENTITY FULL), else its key",
            captured.len()
        ),
    )];
    for table in plan.append.iter().take(SHOWN) {
        findings.push(
            Finding::warning(
                format!("replica identity of {table}"),
                "none that can be used",
                "its updates and deletes are not captured, for publishing them would make the application's fail",
            )
            .with_fix(format!("add a primary key, or: ALTER TABLE {} REPLICA IDENTITY FULL", sql_name::quoted(table))),
        );
    }
    if plan.append.len() > SHOWN {
        findings.push(Finding::warning(
            "replica identity",
            format!("{} more tables have none that can be used", plan.append.len() - SHOWN),
            "their updates and deletes are not captured",
        ));
    }
    findings
}

fn partitions(captured: &[&Table]) -> Option<Finding> {
    let roots: Vec<&&Table> = captured.iter().filter(|table| table.kind == "p").collect();
    if roots.is_empty() {
        return None;
    }
    let told = roots.iter().map(|table| format!("{} for {}", table.name, table.leaves));
    Some(Finding::good("partitions", format!("told under the name of their root: {}", some(told))))
}

fn generated(site: &Site<'_>, publications: &Publications, captured: &[&Table]) -> Vec<Finding> {
    // From PostgreSQL 18 on our own publications hold the stored ones.
    let published = site.facilities.version >= 180_000 && publications.are_kept();
    captured
        .iter()
        .filter_map(|table| {
            let mut missing = table.virtuals.clone();
            if !published {
                missing.extend(table.stored.iter().cloned());
            }
            (!missing.is_empty()).then(|| {
                Finding::warning(
                    format!("generated columns of {}", table.name),
                    format!("{} not in the log", missing.join(", ")),
                    "events lack these columns; a subscriber has to compute them itself",
                )
                .with_fix("PostgreSQL 18 logs stored generated columns, virtual ones never: turn them into stored or ordinary ones, or do without")
            })
        })
        .take(SHOWN)
        .collect()
}

fn not_logged(matched: &[Table]) -> Vec<Finding> {
    type Is = fn(&Table) -> bool;
    let kinds: [(&str, Is); 3] = [
        ("unlogged tables", |table| matches!(table.kind.as_str(), "r" | "p") && !table.logged),
        ("views", |table| matches!(table.kind.as_str(), "v" | "m")),
        ("foreign tables", |table| table.kind == "f"),
    ];
    kinds
        .into_iter()
        .filter_map(|(what, is)| {
            let found: Vec<&TableName> =
                matched.iter().filter(|table| is(table)).map(|table| &table.name).collect();
            let shown = || found.iter().take(SHOWN);
            (!found.is_empty()).then(|| {
                let finding = Finding::warning(
                    what,
                    format!("not captured: {}", some(found.iter().map(ToString::to_string))),
                    "their changes are not in the log",
                );
                let excluded: Vec<String> = shown().map(|name| format!("\"!{name}\"")).collect();
                let excluded = format!(
                    "exclude them, so that nobody expects them: add to tables: {}",
                    excluded.join(", ")
                );
                finding.with_fix(match what {
                    "unlogged tables" => {
                        let logged: Vec<String> = shown()
                            .map(|name| format!("ALTER TABLE {} SET LOGGED", sql_name::quoted(name)))
                            .collect();
                        format!("{}; or {excluded}", logged.join("; "))
                    }
                    _ => excluded,
                })
            })
        })
        .collect()
}

/// What a snapshot could not read. The log needs no right to the table.
fn unreadable(site: &Site<'_>, captured: &[&Table], partial: &BTreeSet<String>) -> Vec<Finding> {
    let role = escape_identifier(&site.server.target.user);
    let mut findings = Vec::new();
    let hidden: Vec<&&Table> = captured.iter().filter(|table| !table.readable).collect();
    if !hidden.is_empty() {
        findings.push(
            Finding::warning(
                "SELECT",
                format!("not on {}", some(hidden.iter().map(|table| table.name.to_string()))),
                "the log needs no such right, but rows that are there already can be told only by reading them",
            )
            .with_fix(granting(&hidden, partial, &role)),
        );
    }
    let filtered = captured.iter().filter(|table| table.filtered).map(|table| table.name.to_string());
    let filtered: Vec<String> = filtered.collect();
    if !filtered.is_empty() {
        findings.push(
            Finding::warning(
                "row security",
                format!("hides rows of {} from this role", some(filtered.into_iter())),
                "the log holds every row, but a snapshot would hold only those that the policies show",
            )
            .with_fix(format!("ALTER ROLE {role} BYPASSRLS")),
        );
    }
    findings
}

/// The statements after which the role may read the tables, and nothing that is not captured.
fn granting(hidden: &[&&Table], partial: &BTreeSet<String>, role: &str) -> String {
    let mut by_schema: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for table in hidden {
        by_schema.entry(&table.name.schema).or_default().push(sql_name::quoted(&table.name));
    }
    let schemas: Vec<String> = by_schema.keys().map(|schema| escape_identifier(schema)).collect();
    let mut statements = vec![format!("GRANT USAGE ON SCHEMA {} TO {role}", schemas.join(", "))];
    let mut single = Vec::new();
    for (schema, tables) in by_schema {
        if tables.len() > SHOWN && !partial.contains(schema) {
            let schema = escape_identifier(schema);
            statements.push(format!("GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO {role}"));
        } else {
            single.extend(tables);
        }
    }
    if !single.is_empty() {
        statements.push(format!("GRANT SELECT ON {} TO {role}", single.join(", ")));
    }
    statements.join("; ")
}

async fn matched(site: &Site<'_>) -> Result<Vec<Table>, Fault> {
    const STATEMENT: &str = "SELECT n.nspname::text, c.relname::text, c.relkind::text, c.relpersistence = 'p', c.relreplident = 'f', \
        ARRAY(SELECT a.attname::text FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND a.attgenerated = 's' ORDER BY a.attnum), \
        ARRAY(SELECT a.attname::text FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND a.attgenerated = 'v' ORDER BY a.attnum), \
        has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT'), \
        c.relrowsecurity AND row_security_active(c.oid), \
        CASE WHEN c.relkind = 'p' THEN (SELECT count(*) FROM pg_partition_tree(c.oid) WHERE isleaf) ELSE 0 END \
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
        WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND c.relpersistence <> 't' AND c.oid >= 16384 AND n.nspname NOT LIKE 'pg\\_%' \
        ORDER BY 1, 2";
    ask::all(site.client, "list the database's tables", STATEMENT, &[], |row| {
        Ok(Table {
            name: TableName { schema: row.try_get(0)?, table: row.try_get(1)? },
            kind: row.try_get(2)?,
            logged: row.try_get(3)?,
            full: row.try_get(4)?,
            stored: row.try_get(5)?,
            virtuals: row.try_get(6)?,
            readable: row.try_get(7)?,
            filtered: row.try_get(8)?,
            leaves: row.try_get(9)?,
        })
    })
    .await
}
