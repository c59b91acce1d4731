//! The form that a snapshot's values have from the moment they are read: JSON. Pure.
//!
//! What a query prints and what the log holds are different bytes of the same value; as JSON they are the same bytes. So the
//! log's values can go over those of a row that waits.

use headgate_sdk::{
    Cell, Change, Column, Relation, Unwritable, WriteValue,
    snapshots::{OwnedCell, OwnedChange, Span},
};
use std::sync::Arc;

/// Writes what is JSON already. Nothing at all stands for a value that could not be written.
#[derive(Debug)]
struct Written;

impl WriteValue for Written {
    #[inline]
    fn write(&self, raw: &[u8], out: &mut Vec<u8>) -> Result<(), Unwritable> {
        if raw.is_empty() {
            return Err(Unwritable {
                reason: "the value is not as its type and its character set have it: it was damaged or stored by force",
            });
        }
        out.extend_from_slice(raw);
        Ok(())
    }
}

/// The same shape for values that are JSON already.
pub(super) fn written(relation: &Relation) -> Arc<Relation> {
    let column = |column: &Column| Column {
        name: column.name.clone(),
        type_name: column.type_name.clone(),
        nullable: column.nullable,
        writer: Box::new(Written),
    };
    Arc::new(Relation {
        id: crate::table::next_id(),
        schema: relation.schema.clone(),
        table: relation.table.clone(),
        columns: relation.columns.iter().map(column).collect(),
        key: relation.key.clone(),
    })
}

/// Appends a value that a query printed.
pub(super) fn push(column: &Column, value: Option<&[u8]>, data: &mut Vec<u8>, spans: &mut Vec<Span>) {
    spans.push(value.map(|raw| {
        let start = data.len();
        if column.writer.write(raw, data).is_err() {
            data.truncate(start);
        }
        (start, data.len())
    }));
}

/// A change of the log with its values as JSON.
pub(super) fn restate(change: &Change<'_>) -> OwnedChange {
    let row = |row: &[Cell<'_>]| {
        let cells = change.relation.columns.iter().zip(row);
        cells
            .map(|(column, cell)| match cell {
                Cell::Null => OwnedCell::Null,
                Cell::Unavailable => OwnedCell::Unavailable,
                Cell::Value(raw) => {
                    let mut json = Vec::with_capacity(raw.len() + 8);
                    if column.writer.write(raw, &mut json).is_err() {
                        json.clear();
                    }
                    OwnedCell::Value(json.into_boxed_slice())
                }
            })
            .collect()
    };
    OwnedChange {
        relation: Arc::clone(change.relation),
        op: change.op,
        before: change.before.map(row),
        after: change.after.map(row),
    }
}
