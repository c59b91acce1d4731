//! The configuration that is written, and what is said about it. Pure.
//!
//! Names come from the database and may hold anything: in a comment control characters are spelled out, so that no name
//! can end it, and in a string everything that TOML gives a meaning is escaped.

use super::{Address, Choices, Database, address::variable, database::Table, open_findings, shown};
use crate::cli::paint::Paint;
use headgate_sdk::{Finding, Severity, amount::Bytes};
use std::{fmt::Write as _, path::Path};

/// More tables than this are told as a number.
const SHOWN: usize = 40;

/// Everything that the file is made of.
pub(super) struct Draft<'a> {
    pub(super) choices: &'a Choices,
    pub(super) database: &'a Database,
    pub(super) address: &'a Address,
    pub(super) findings: &'a [Finding],
}

impl Draft<'_> {
    fn same_user(&self) -> bool {
        self.choices.role == self.database.user()
    }

    fn publication(&self) -> Option<String> {
        self.database.publication(self.choices)
    }

    fn privileges(&self) -> Vec<String> {
        self.database.privileges(self.choices)
    }

    fn url(&self) -> String {
        self.address.written(&self.choices.role, self.same_user(), &variable(&self.choices.name))
    }

    /// The file.
    pub(super) fn config(&self) -> String {
        let Self { choices, database, .. } = self;
        let mut notes = format!(
            "Written by headgate init: {} at {}, {}.\n\nTables (rows and sizes are estimates):\n{}",
            database.name(),
            database.place(),
            database.product(),
            tables(database, &choices.tables, Paint::plain())
        );
        notes.push_str(self.of_nameless());
        let open = open_findings(self.findings);
        if !open.is_empty() {
            let _ = write!(
                notes,
                "\nTo look at first (headgate check tells when all is well):\n{}",
                shown(&open, Paint::plain())
            );
        }
        let privileges = self.privileges();
        if !privileges.is_empty() {
            let _ = write!(notes, "\nThe least that the role needs, by an administrator of the database:\n");
            for statement in &privileges {
                let _ = writeln!(notes, "  {statement}");
            }
        }
        let mut text: String = notes.lines().map(comment).collect();
        let _ = write!(
            text,
            "\n[nats]\nurl = {}\n\n[sources.{}]\nconnector = {}\nurl = {}\n",
            string(&self.nats_url()),
            choices.name,
            string(database.connector().name()),
            string(&self.url())
        );
        let globs: Vec<String> = choices.tables.iter().map(|glob| string(glob)).collect();
        let _ = writeln!(text, "tables = [{}]", globs.join(", "));
        if let Some(publication) = self.publication() {
            let _ = writeln!(text, "publication = {}", string(&publication));
        }
        let _ = writeln!(text, "outage_budget = {}", string(&choices.outage_budget));
        text
    }

    /// What becomes of tables whose rows have no names, if there are any.
    fn of_nameless(&self) -> &'static str {
        let captured = self.database.captured(&self.choices.tables);
        if captured.iter().any(|table| table.nameless) { self.database.of_nameless(self.choices) } else { "" }
    }

    /// The broker's URL may hold a password too.
    fn nats_url(&self) -> String {
        if self.choices.nats.contains('@') && !self.choices.nats.contains("${") {
            "${NATS_URL}".to_owned()
        } else {
            self.choices.nats.clone()
        }
    }
}

/// A line of a comment.
fn comment(line: &str) -> String {
    let line: String = line
        .chars()
        .map(|c| if c.is_control() { c.escape_default().to_string() } else { c.to_string() })
        .collect();
    format!("# {line}").trim_end().to_owned() + "\n"
}

/// A basic string of TOML.
fn string(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => {
                out.push('\\');
                out.push(c);
            }
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04X}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// The tables that globs capture, aligned.
pub(super) fn tables(database: &Database, globs: &[String], paint: Paint) -> String {
    let mut captured: Vec<Table> = database.captured(globs);
    if captured.is_empty() {
        return "  none\n".to_owned();
    }
    let written = |table: &Table| table.writes.unwrap_or(0.0);
    captured.sort_by(|a, b| written(b).total_cmp(&written(a)).then(b.bytes.cmp(&a.bytes)));
    let names: Vec<String> = captured.iter().take(SHOWN).map(|table| plain(&table.name)).collect();
    let width = names.iter().map(|name| name.chars().count()).max().unwrap_or(0).clamp(5, 50);
    let named_by = database.heading();
    let head = format!("  {:<width$}  {:>9}  {:>10}  {:>9}  {named_by}", "table", "rows", "size", "writes/s");
    let mut text = paint.dim(&head) + "\n";
    for (table, name) in captured.iter().zip(&names) {
        let named_by = if table.nameless { paint.yellow(table.named_by) } else { table.named_by.to_owned() };
        let writes = table.writes.map_or_else(|| "?".to_owned(), |writes| format!("{writes:.1}"));
        let _ = writeln!(
            text,
            "  {name:<width$}  {:>9}  {:>10}  {writes:>9}  {named_by}",
            table.rows.map_or_else(|| "?".to_owned(), count),
            Bytes(table.bytes).to_string(),
        );
    }
    if captured.len() > SHOWN {
        let _ = writeln!(text, "  and {} more", captured.len() - SHOWN);
    }
    text
}

/// A name without control characters, which could move a terminal's cursor.
fn plain(name: &str) -> String {
    name.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

fn count(number: u64) -> String {
    match number {
        0..10_000 => number.to_string(),
        10_000..10_000_000 => format!("{} k", number / 1000),
        _ => format!("{} M", number / 1_000_000),
    }
}

/// What was looked at, and the tables that will be captured.
pub(super) fn overview(draft: &Draft<'_>, paint: Paint) -> String {
    let Draft { choices, database, .. } = draft;
    let rate = database.log_rate().map_or_else(String::new, |rate| format!(", {}/s of log", Bytes(rate)));
    format!(
        "{} at {}, {}{rate}\n\n{}",
        paint.bold(&plain(database.name())),
        database.place(),
        database.product(),
        tables(database, &choices.tables, paint)
    )
}

/// What is said on the terminal once the file is there, after the overview unless that was shown before.
pub(super) fn report(draft: &Draft<'_>, overview: Option<String>, file: &Path, paint: Paint) -> String {
    let choices = draft.choices;
    let captured = |globs: &[String]| draft.database.captured(globs).len();
    let mut text = overview.unwrap_or_else(|| {
        let (some, all) = (captured(&choices.tables), captured(&["*.*".to_owned()]));
        format!("\n{some} of {all} tables are captured.\n")
    });
    text.push_str(draft.of_nameless());
    let open = open_findings(draft.findings);
    let errors = open.iter().filter(|finding| finding.severity == Severity::Error).count();
    if !open.is_empty() {
        let head = match errors {
            0 => "To look at:".to_owned(),
            _ => format!("To fix first ({errors}), and to look at:"),
        };
        let _ = write!(text, "\n{}\n{}", paint.bold(&head), shown(&open, paint));
    }
    let privileges = draft.privileges();
    if !privileges.is_empty() {
        let _ = writeln!(
            text,
            "\n{}",
            paint.bold("The least that the role needs, by an administrator of the database:")
        );
        for statement in &privileges {
            let _ = writeln!(text, "  {}", plain(statement));
        }
    }
    let _ = writeln!(text, "\n{} {}", paint.green("wrote"), file.display());
    let mut steps = Vec::new();
    if draft.url().contains(&format!("${{{}}}", variable(&choices.name))) {
        let (name, what) =
            (variable(&choices.name), "the role's password, special characters percent-encoded");
        steps.push(format!("export {name}=…    # {what}"));
    }
    if draft.nats_url() == "${NATS_URL}" {
        steps.push("export NATS_URL=…    # the broker's, as you gave it".to_owned());
    }
    steps.push(format!("headgate -c {} check", file.display()));
    steps.push(format!("headgate -c {} run", file.display()));
    for step in steps {
        let _ = writeln!(text, "  {step}");
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use headgate_postgres::{RowIdentity, Survey, SurveyedTable};

    fn table(name: &str, identity: RowIdentity) -> SurveyedTable {
        SurveyedTable {
            schema: "public".to_owned(),
            table: name.to_owned(),
            owner: "o".to_owned(),
            rows: Some(12_345),
            bytes: 5 << 20,
            writes: 1.5,
            identity,
        }
    }

    #[test]
    fn a_hostile_name_stays_within_its_comment_and_string() {
        let survey = Survey {
            address: "db:5432".to_owned(),
            database: "shop\n[nats]\nurl = \"nats://evil\"".to_owned(),
            user: "root\"\n".to_owned(),
            version: 18,
            superuser: false,
            sufficient: false,
            wal_rate: 0,
            tables: vec![table("a\"\n[x]\r\u{7}", RowIdentity::Key), table("bare", RowIdentity::None)],
        };
        let choices = Choices {
            name: "shop".to_owned(),
            tables: vec!["public.*\"\n".to_owned(), "public.*".to_owned()],
            nats: "nats://u:hunter2@h".to_owned(),
            role: survey.user.clone(),
            outage_budget: "8h".to_owned(),
        };
        let address = Address::parse("postgres://u:hunter2@h/d", &|_| None).unwrap();
        let database = Database::Postgres(survey);
        let draft = Draft { choices: &choices, database: &database, address: &address, findings: &[] };
        let text = draft.config();
        assert!(!text.contains("hunter2"), "{text}");
        let parsed: toml::Table = text.parse().unwrap();
        assert_eq!(parsed["nats"]["url"].as_str(), Some("${NATS_URL}"));
        let source = &parsed["sources"]["shop"];
        assert_eq!(source["url"].as_str(), Some("postgres://u:${SHOP_PASSWORD}@h/d"));
        assert_eq!(source["tables"][0].as_str(), Some("public.*\"\n"));
        assert_eq!(source["publication"].as_str(), Some("shop_changes"));
        assert_eq!(parsed.len(), 2);
        let published = text.lines().find(|line| line.contains("CREATE PUBLICATION")).unwrap();
        assert!(!published.contains("bare"), "{published}");
    }
}
