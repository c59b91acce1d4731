//! What has to be done to the publications, and what will be captured then.

use crate::sql_name;
use headgate_sdk::{CapturedTables, Fault, TableName};
use postgres_protocol::escape::escape_identifier;
use std::collections::{BTreeMap, BTreeSet};

/// What there is, what there should be, and how to get there.
#[derive(Clone, Debug, Default)]
pub(crate) struct Plan {
    /// Publications that do not exist.
    pub(crate) missing: Vec<String>,
    /// In order; all in one transaction.
    pub(crate) statements: Vec<String>,
    /// What the statements do, for people.
    pub(crate) changes: Vec<String>,
    /// Every captured table that is (to be) published whole.
    pub(crate) whole: BTreeSet<TableName>,
    /// Every captured table without a usable identity.
    pub(crate) append: BTreeSet<TableName>,
    /// The OIDs of both.
    pub(super) oids: BTreeMap<TableName, u32>,
    /// Those of both that are published now.
    pub(super) published: BTreeSet<TableName>,
    /// Tables that have to be added but are not ours, with their owner unless that is a superuser.
    pub(crate) foreign: Vec<(TableName, Option<String>)>,
    /// Tables that are published whole although they have a row filter.
    pub(crate) unfiltered: Vec<TableName>,
    /// Tables whose row filter reads columns outside their identity, with those. Published as if they had none.
    pub(crate) uncovered: Vec<(TableName, Vec<String>)>,
    /// Row filters of tables that are not captured.
    pub(crate) orphans: Vec<String>,
}

impl Plan {
    /// Logs what was changed; of many tables the first ones and a number.
    pub(crate) fn tell(&self, source: &str) {
        const TOLD: usize = 12;
        for change in self.changes.iter().take(TOLD) {
            tracing::info!(source, change, "publications changed");
        }
        if let Some(more) = self.changes.len().checked_sub(TOLD).filter(|more| *more > 0) {
            tracing::info!(
                source,
                changes = self.changes.len(),
                "publications changed, and {more} times more"
            );
        }
    }

    /// Adds a statement, and what it does, for people.
    pub(super) fn step(&mut self, statement: String, change: String) {
        self.statements.push(statement);
        self.changes.push(change);
    }

    /// The tables that are captured once the plan is carried out.
    pub(crate) fn captured(&self) -> CapturedTables {
        let all = self.whole.union(&self.append);
        self.with_oids(all.filter(|table| !self.foreign.iter().any(|(foreign, _)| foreign == *table)))
    }

    /// The tables that are captured while nobody carries it out. One that only should be published is not among them: it would count as
    /// read before its changes are told.
    pub(crate) fn captured_as_is(&self) -> CapturedTables {
        self.with_oids(self.published.iter())
    }

    fn with_oids<'a>(&self, tables: impl Iterator<Item = &'a TableName>) -> CapturedTables {
        tables
            .map(|table| (table.clone(), self.oids.get(table).copied().unwrap_or_default().into()))
            .collect()
    }

    /// The fault of a run that cannot publish tables it should.
    pub(crate) fn foreign_fault(&self, user: &str) -> Option<Fault> {
        let (table, owner) = self.foreign.first()?;
        let mut names: Vec<String> =
            self.foreign.iter().take(10).map(|(table, _)| table.to_string()).collect();
        if self.foreign.len() > names.len() {
            names.push(format!("and {} more", self.foreign.len() - names.len()));
        }
        let quoted = sql_name::quoted(table);
        let fix = match owner {
            Some(owner) => format!(
                "GRANT {} TO {} (or ALTER TABLE {quoted} OWNER TO a role that both share), exclude the table (add to tables: \"!{table}\"), or name a publication that its owner keeps (publication = \"…\")",
                escape_identifier(owner),
                escape_identifier(user),
            ),
            // Whoever is a member of a superuser's role may do anything.
            None => format!(
                "add to tables: \"!{table}\"; or ALTER TABLE {quoted} OWNER TO a role that {} is a member of (a superuser owns it now, and that role is not to be granted), or name a publication that an administrator keeps (publication = \"…\")",
                escape_identifier(user),
            ),
        };
        let it = if self.foreign.len() == 1 { "it" } else { "them" };
        let what = format!("{user} does not own {}, and so may not publish {it}", names.join(", "));
        Some(Fault::definite(what).with_fix(fix))
    }
}
