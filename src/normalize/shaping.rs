//! What the settings make of a table's rows: prepared once for each version of the table, so that a row of a table
//! without such settings costs nothing more.
//!
//! Hiding comes first: semantic events, outboxes, keys, subjects and dead letters are made of what is left. Where hiding
//! cannot be done as the settings want (a key that would no longer name its row, a hidden column that is gone and may go
//! on under another name) the source stops before the row: nothing is told in clear that was to be hidden.

mod findings;

pub use findings::findings;

use super::{
    outbox::Outbox,
    selection::{Misfit, Rules, View},
    semantic::Semantic,
    table::Style,
};
use crate::{config, schema};
use headgate_sdk::{Fault, Relation, TableFilter};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// The settings of a source, and what they have met so far.
#[derive(Debug)]
pub struct Shaping {
    settings: config::Shaping,
    messages: TableFilter,
    /// Hidden columns that a table has had, by `schema.table`.
    seen: BTreeMap<String, BTreeSet<String>>,
}

/// What becomes of the rows of one version of a table.
#[derive(Debug)]
pub(super) struct Treatment {
    /// What is left of the table, where that is not all.
    pub view: Option<View>,
    /// What its rows are.
    pub role: Role,
}

/// What the rows of a table are.
#[derive(Debug)]
pub(super) enum Role {
    /// Rows, and what their changes mean.
    Rows(Vec<Semantic>),
    /// Letters of an outbox.
    Outbox(Outbox),
}

impl Shaping {
    /// The settings of a source.
    #[must_use]
    pub fn new(settings: config::Shaping) -> Self {
        let messages = TableFilter::new(&settings.messages);
        Self { settings, messages, seen: BTreeMap::new() }
    }

    /// Whether messages of this prefix are told.
    pub(super) fn tells_message(&self, prefix: &str) -> bool {
        self.messages.matches_name(prefix)
    }

    /// What becomes of the rows of `relation`; `None` where they are told as they are. `before`: the shape that its events
    /// had until now, if one is known.
    ///
    /// # Errors
    /// Why they cannot be told as the settings want. The source has to stop before them.
    pub(super) fn prepare(
        &mut self,
        relation: &Arc<Relation>,
        before: Option<&schema::Shape>,
        style: &Style,
    ) -> Result<Option<Arc<Treatment>>, Fault> {
        let name = format!("{}.{}", relation.schema, relation.table);
        let settings = &self.settings;
        let salt = settings.mask_salt.as_ref();
        let rules = Rules::of(&settings.columns, &relation.schema, &relation.table);
        let key = relation.key.iter().map(|index| relation.columns[*index].name.as_str());
        if let Some(misfit) = rules.misfit(&name, key, salt) {
            return Err(fault(misfit));
        }
        let has = |column: &str| relation.columns.iter().any(|known| known.name == column);
        let hidden: BTreeSet<String> =
            rules.hidden().filter(|column| has(column)).map(str::to_owned).collect();
        if let Some(gone) = self.seen.get(&name).and_then(|seen| seen.difference(&hidden).next()) {
            return Err(fault(gone_misfit(&name, gone)));
        }
        if !hidden.is_empty() {
            self.seen.insert(name.clone(), hidden);
        }
        let view = rules.view(relation, salt);
        let told = view.as_ref().map_or(relation, |view| &view.relation);
        if let Some(outbox) = settings.outboxes.iter().find(|outbox| outbox.table == name) {
            let columns: Vec<&str> = told.columns.iter().map(|column| column.name.as_str()).collect();
            let role = Role::Outbox(
                Outbox::new(outbox, &columns).map_err(|missing| fault(outbox_misfit(&name, &missing)))?,
            );
            return Ok(Some(Arc::new(Treatment { view, role })));
        }
        let meant = settings.events.iter().filter(|event| event.table == name);
        let rows = schema::Shape::following(before, told);
        let events: Vec<Semantic> = meant.map(|event| Semantic::new(event, told, &rows, style)).collect();
        if view.is_none() && events.is_empty() {
            return Ok(None);
        }
        Ok(Some(Arc::new(Treatment { view, role: Role::Rows(events) })))
    }
}

fn fault((what, fix): Misfit) -> Fault {
    Fault::definite(what).with_fix(fix)
}

/// A hidden column went away: dropped, or renamed, and then its values would be told in clear under the new name. Rows
/// that the log still has under the old name have to be hidden too.
fn gone_misfit(table: &str, column: &str) -> Misfit {
    let what = format!(
        "{table} has no column {column} (any more), which is to be hidden: it may have another name now"
    );
    let glob = table.split_once('.').map_or_else(|| format!("*{table}"), |(_, name)| format!("*.{name}"));
    let fix = format!(
        "hide the new name in columns.\"{table}\"; move {column} to a section columns.\"{glob}\", where it may be missing, for rows that the log still has under that name"
    );
    (what, fix)
}

fn outbox_misfit(table: &str, missing: &str) -> Misfit {
    let what = format!("the outbox {table} lacks {missing}");
    let fix = format!(
        "name its columns in the settings: [[…outbox]] table = \"{table}\", type = \"…\", payload = \"…\""
    );
    (what, fix)
}
