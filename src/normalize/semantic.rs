//! Semantic events: what a row change means, where a condition says so.
//!
//! They follow the row's own event (or stand in its place), in the order of the configuration, and take the next indexes
//! of the transaction. So they are asked for at every replay, also for changes that the stream holds already: the same
//! transaction gives the same positions as long as the configuration is the same.

use super::{form::json_string, key::Key, table::Style};
use crate::{
    condition::{Columns, Condition, Facts, from_json},
    config::SemanticEvent,
    schema::{EventData, Shape, ShapeColumn, Version},
};
use cel::Value;
use headgate_sdk::{Cell, Op, Relation, Unwritable};
use std::collections::HashMap;

/// A semantic event, prepared for one version of its table.
#[derive(Debug)]
pub(super) struct Semantic {
    /// What it is about, a token.
    pub entity: String,
    /// What happened, a token.
    pub verb: String,
    /// Whether it takes the place of the row's event.
    pub instead: bool,
    /// From the end of `id` to where the key joins `subject`.
    pub head: Vec<u8>,
    /// The version of its data; none where it cannot be told.
    pub version: Option<Version>,
    /// The name of that version.
    pub dataschema: Option<String>,
    condition: Condition,
    before: Vec<(String, usize)>,
    after: Vec<(String, usize)>,
    key: Option<Vec<usize>>,
    data: Option<Vec<Member>>,
    /// Why it cannot be told of this version of the table.
    broken: Option<String>,
}

#[derive(Debug)]
struct Member {
    label: String,
    /// `"label":`
    name: Vec<u8>,
    before: bool,
    column: usize,
}

/// The change that a semantic event is asked about.
#[derive(Clone, Copy)]
pub(super) struct Asked<'i, 'a> {
    /// What happened to the row.
    pub op: Op,
    /// The row's relation, as it is told.
    pub relation: &'i Relation,
    /// The old row.
    pub before: Option<&'i [Cell<'a>]>,
    /// The new row.
    pub after: Option<&'i [Cell<'a>]>,
}

impl Semantic {
    /// Prepares an event for a version of its table, whose rows have a shape.
    pub(super) fn new(event: &SemanticEvent, relation: &Relation, rows: &Shape, style: &Style) -> Self {
        let place = |name: &str| relation.columns.iter().position(|column| column.name == name);
        let read = |columns: &Columns| -> Vec<(String, usize)> {
            let all = relation.columns.iter().enumerate();
            let read = all.filter(|(_, column)| columns.contains(&column.name));
            read.map(|(index, column)| (column.name.clone(), index)).collect()
        };
        let mut broken = None;
        let mut place_or_break = |name: &str| {
            place(name).unwrap_or_else(|| {
                broken = Some(format!("the table has no column {name}"));
                usize::MAX
            })
        };
        let key = event.key.as_ref().map(|names| names.iter().map(|name| place_or_break(name)).collect());
        let data = event.data.as_ref().map(|members| {
            let member = |member: &crate::config::Member| {
                let mut name = json_string(&member.name);
                name.push(b':');
                let column = place_or_break(&member.column);
                Member { label: member.name.clone(), name, before: member.before, column }
            };
            members.iter().map(member).collect()
        });
        let mut semantic = Self {
            entity: event.entity.clone(),
            verb: event.verb.clone(),
            instead: event.instead,
            head: style.head(&event.entity, &event.verb),
            version: None,
            dataschema: None,
            condition: event.when.clone(),
            before: read(&event.when.reads().before),
            after: read(&event.when.reads().after),
            key,
            data,
            broken,
        };
        semantic.version = semantic.version_of(&style.source, relation, rows);
        semantic.dataschema = semantic.version.as_ref().map(Version::uri);
        semantic
    }

    fn version_of(&self, source: &str, relation: &Relation, rows: &Shape) -> Option<Version> {
        if self.broken.is_some() {
            return None;
        }
        let name_of = |index: &usize| relation.columns.get(*index).map(|column| column.name.clone());
        let key = self.key.as_ref().unwrap_or(&relation.key).iter().filter_map(name_of).collect();
        let data = match &self.data {
            None => EventData::Row(relation, Shape { columns: rows.columns.clone(), key }),
            Some(members) => {
                let columns = members.iter().filter_map(|member| {
                    // A row that is not there has no values, whatever the column is.
                    let r#type = relation.columns.get(member.column)?.type_name.clone();
                    Some(ShapeColumn { name: member.label.clone(), r#type, nullable: None })
                });
                EventData::Members(Shape { columns: columns.collect(), key })
            }
        };
        Some(Version::of_event(
            source,
            &self.name(),
            &format!("{}.{}", relation.schema, relation.table),
            &data,
        ))
    }

    /// `entity.verb`.
    pub(super) fn name(&self) -> String {
        format!("{}.{}", self.entity, self.verb)
    }

    /// Whether the change is this event.
    ///
    /// # Errors
    /// Why that cannot be said, without any value of the row.
    pub(super) fn is_meant_by(&self, asked: Asked<'_, '_>) -> Result<bool, String> {
        let Asked { op, relation, before, after } = asked;
        let op = match op {
            Op::Created => "created",
            Op::Updated => "updated",
            Op::Deleted => "deleted",
            // A row that is read tells of no change, and a truncation of no row.
            Op::Snapshot | Op::Truncated => return Ok(false),
        };
        if let Some(broken) = &self.broken {
            return Err(broken.clone());
        }
        let row = |cells: Option<&[Cell<'_>]>, columns| {
            cells.map(|cells| values(relation, cells, columns)).transpose().map_err(|error| error.to_string())
        };
        self.condition.holds(Facts {
            op,
            before: row(before, &self.before)?,
            after: row(after, &self.after)?,
            changed: if self.condition.reads().changed { changed(asked) } else { None },
        })
    }

    /// Reads the event's own key, if it has one.
    pub(super) fn read_key(
        &self,
        key: &mut Key,
        names: &[Vec<u8>],
        asked: Asked<'_, '_>,
    ) -> Result<bool, Unwritable> {
        let Some(columns) = &self.key else { return Ok(false) };
        let row = asked.after.or(asked.before).unwrap_or_default();
        key.read_columns(asked.relation, names, columns, row, asked.before)?;
        Ok(true)
    }

    /// Whether it has data of its own, rather than the row's.
    pub(super) fn selects_data(&self) -> bool {
        self.data.is_some()
    }

    /// Appends the data of its own. A member whose value the log did not carry is absent.
    pub(super) fn write_data(&self, asked: Asked<'_, '_>, out: &mut Vec<u8>) -> Result<(), Unwritable> {
        let mut separator = b'{';
        for member in self.data.iter().flatten() {
            let row = if member.before { asked.before } else { asked.after };
            let raw = match row.and_then(|row| row.get(member.column)) {
                None | Some(Cell::Unavailable) => continue,
                Some(Cell::Null) => None,
                Some(Cell::Value(raw)) => Some(raw),
            };
            out.push(separator);
            separator = b',';
            out.extend_from_slice(&member.name);
            match raw {
                None => out.extend_from_slice(b"null"),
                Some(raw) => asked.relation.columns[member.column].writer.write(raw, out)?,
            }
        }
        if separator == b'{' {
            out.push(b'{');
        }
        out.push(b'}');
        Ok(())
    }
}

/// The columns of a row as the condition reads them; what the log did not carry is not there.
fn values(
    relation: &Relation,
    row: &[Cell<'_>],
    columns: &[(String, usize)],
) -> Result<HashMap<String, Value>, Unwritable> {
    let mut values = HashMap::with_capacity(columns.len());
    let mut json = Vec::new();
    for (name, index) in columns {
        let value = match row.get(*index) {
            None | Some(Cell::Unavailable) => continue,
            Some(Cell::Null) => Value::Null,
            Some(Cell::Value(raw)) => {
                json.clear();
                relation.columns[*index].writer.write(raw, &mut json)?;
                let value = serde_json::from_slice(&json).map_err(|_| Unwritable {
                    reason: "a column that the condition reads is nested too deeply",
                })?;
                from_json(value)
            }
        };
        values.insert(name.clone(), value);
    }
    Ok(values)
}

/// The columns that differ, as far as the log tells. Nothing differs in a row that was not there, or is gone.
fn changed(asked: Asked<'_, '_>) -> Option<Vec<String>> {
    if asked.op != Op::Updated {
        return Some(Vec::new());
    }
    let (before, after) = (asked.before?, asked.after?);
    if before.contains(&Cell::Unavailable) {
        return None;
    }
    let pairs = asked.relation.columns.iter().zip(before.iter().zip(after));
    let differ = pairs.filter(|(_, (old, new))| old != new && **new != Cell::Unavailable);
    Some(differ.map(|(column, _)| column.name.clone()).collect())
}
