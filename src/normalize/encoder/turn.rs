//! The event of a table's new shape, in order: right before the first event that has it.
//!
//! It stands at the even index before that event's own and outside the transaction around it, so neither ids nor `txindex` of
//! any other event depend on it. It is told where the table's former shape is known and another one, which the stream itself
//! bounds: see [`crate::schema::History`].

use super::Encoder;
use crate::{normalize::shapes::Refused, schema::compare::is_compatible};
use headgate_sdk::{Fault, Position, Relation};
use serde_json::json;

impl Encoder {
    /// Whether the next event of a table has a shape that the one before it had not.
    pub(super) fn is_turning(&self, relation: &Relation) -> bool {
        self.arrivals && self.tables.get(&relation.id).is_some_and(|table| table.arrival.is_some())
    }

    /// Notes that the event at `position`, which can be written, is the first of the table's shape; tells of it, where there
    /// was another one before. `false`: the settings say that it has to be accepted first, and nothing more may be told.
    pub(super) fn turn(&mut self, relation: &Relation, position: Position) -> bool {
        let Some(table) = self.tables.get_mut(&relation.id) else { return true };
        let Some(arrival) = table.arrival.take() else { return true };
        let (entity, to) = (table.entity.clone(), table.dataschema.clone());
        self.arrivals = self.tables.values().any(|table| table.arrival.is_some());
        let schema_position = Position { index: position.index - 1, ..position };
        let since = if arrival.before.is_some() { schema_position } else { position };
        let change = match self.shapes.arrive(&arrival, since) {
            Ok(Some(change)) => change,
            Ok(None) => return true,
            Err(Refused { changes }) => {
                let source = self.source();
                let table = &arrival.table;
                self.refusal = Some(
                    Fault::definite(format!(
                        "the shape of {table} changed in a way that is not compatible: {changes}"
                    ))
                    .with_fix(format!(
                        "when the consumers are ready for it, run `headgate source accept-schema {source} '{table}'`"
                    )),
                );
                return false;
            }
        };
        let compatible = is_compatible(&change.differences);
        let changes: Vec<String> = change.differences.iter().map(ToString::to_string).collect();
        let (source, table, told) = (self.source(), &arrival.table, changes.join("; "));
        if compatible {
            tracing::info!(source, table, changes = told, "the shape of a table changed");
        } else {
            tracing::warn!(
                source,
                table,
                changes = told,
                "the shape of a table changed in a way that is not compatible"
            );
        }
        let data = json!({
            "op": "schema",
            "schema": relation.schema,
            "table": relation.table,
            "from": change.from,
            "to": to,
            "compatible": compatible,
            "changes": changes,
            "diff": change.differences,
            "shape": change.shape,
        });
        self.encode_plain(&entity, "schema", schema_position, data.to_string().as_bytes(), Some(relation));
        true
    }
}
